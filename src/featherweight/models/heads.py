"""What stands at the end of a model: that of a detector as a layer, and the task that an end tells.

A detector has one output of raw numbers (n, priors, values); the last layer, `Predictions`, only lines its maps up, and
says what they mean.

Imports boxes and errors; keras with this module: it is imported where it is used.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from featherweight.boxes import Decoding, decoding_of
from featherweight.errors import SettingError

Tensor = Any
MAX_SIDE = 2**16
MAX_CLASSES = 2**16


@keras.saving.register_keras_serializable(package="featherweight")
class Predictions(layers.Layer):  # type: ignore[misc]
    """The maps of a detector, (n, h, w, anchors · values) each, as one output (n, priors, values). No arithmetic.

    `decoding` is `boxes.Decoding.as_dict()`; the maps come in the order of its scales. `classes` are the names.
    """

    def __init__(self, decoding: Mapping[str, Any], classes: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.decoding = _checked(decoding)
        if classes is not None and (
            len(classes) != self.decoding.classes or not all(isinstance(name, str) for name in classes)
        ):
            raise SettingError(f"{len(classes)} names of classes; wanted {self.decoding.classes}, each a text")
        self.classes = None if classes is None else tuple(classes)

    def call(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """[(n, h, w, anchors · values), …] → (n, priors, values)."""
        maps = list(maps) if isinstance(maps, list | tuple) else [maps]
        decoding = self.decoding
        rows = [
            ops.reshape(one, (-1, scale.priors, decoding.values))
            for one, scale in zip(maps, decoding.scales, strict=True)
        ]
        return rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=1)

    def compute_output_shape(self, shapes: Any) -> tuple[int | None, ...]:
        """Also refuses maps that are not as the decoding says."""
        many = bool(shapes) and isinstance(shapes[0], list | tuple)
        given = [tuple(shape) for shape in (shapes if many else [shapes])]
        decoding = self.decoding
        wanted = [
            (scale.height, scale.width, max(1, len(scale.anchors)) * decoding.values) for scale in decoding.scales
        ]
        if [shape[1:] for shape in given] != wanted:
            raise SettingError(f"{self.name} is given maps {[shape[1:] for shape in given]}; its decoding has {wanted}")
        return (given[0][0], decoding.priors, decoding.values)

    def get_config(self) -> dict[str, Any]:
        """For saving: plain values without tuples, which Keras would write as objects."""
        classes = None if self.classes is None else list(self.classes)
        decoding = json.loads(json.dumps(self.decoding.as_dict()))
        return {**super().get_config(), "decoding": decoding, "classes": classes}


def _checked(fields: Mapping[str, Any]) -> Decoding:
    """A file can say anything; what decodes boxes must find numbers, and not too many.

    Raises:
        SettingError: no decoding.
    """
    decoding = decoding_of(fields)
    sizes = [decoding.height, decoding.width, *(side for s in decoding.scales for side in (s.height, s.width))]
    counts = [*sizes, decoding.classes, decoding.most]
    whole = all(type(one) is int for one in (*counts, decoding.bins))
    if not decoding.scales or not whole or not all(0 < size <= MAX_SIDE for size in counts):
        raise SettingError(f"a decoding with the sizes {counts[:8]}; wanted whole numbers from 1 to {MAX_SIDE:,}")
    if decoding.classes > MAX_CLASSES or not 0 <= decoding.bins <= MAX_CLASSES:
        raise SettingError(f"a decoding of {decoding.classes} classes and {decoding.bins} bins; wanted fewer")
    return decoding


def _last(model: keras.Model) -> Any:
    """The `Predictions` that gives a model's output; `None` where another layer does."""
    outputs = keras.tree.flatten(model.outputs)
    found = [layer for layer in model.layers if isinstance(layer, Predictions)]
    return found[0] if len(found) == 1 and len(outputs) == 1 and found[0].output is outputs[0] else None


def decoding_of_model(model: keras.Model) -> Decoding | None:
    """What a detector's output means; `None` for a model that is none."""
    last = _last(model)
    return None if last is None else last.decoding


def task_of_model(model: keras.Model) -> str:
    """classify, detect or segment, by a model's end alone: a detector ends in `Predictions`, a segmenter gives one map
    (n, h, w, classes) of more than one place.
    """
    if _last(model) is not None:
        return "detect"
    outputs = keras.tree.flatten(model.outputs)
    is_map = len(outputs) == 1 and len(outputs[0].shape) == 4 and tuple(outputs[0].shape[1:3]) != (1, 1)
    return "segment" if is_map else "classify"


def count_of_model(model: keras.Model) -> int:
    """How many classes a model of one output tells apart; a segmenter with one channel tells two."""
    decoding = decoding_of_model(model)
    if decoding is not None:
        return decoding.classes
    channels = int(model.outputs[0].shape[-1])
    return 2 if channels == 1 and task_of_model(model) == "segment" else channels


def classes_of_model(model: keras.Model) -> tuple[str, ...] | None:
    """The names of a detector's classes; `None` where it has none, or is no detector."""
    last = _last(model)
    return None if last is None else last.classes


OWN_LAYERS = (Predictions,)
