"""A teacher's rows beside the true boxes: `Distillation` in a training.

The loss of a batch, with the student's rows s, the teacher's t and the true boxes y:

    α · loss(y, s)  +  (1 - α) · [ scores + boxes + w · features ]

`scores`: |σ(t) - σ(s)|² · BCE(σ(s), σ(t)) over all rows and classes, and over objectness. `boxes`: 1 - CIoU of the
student's box and the teacher's, and T² · KL of their distributions where they have these (Zheng et al. 2021, arXiv
2102.12252, §3). Each row counts as much as the teacher believes that something is there, so that what it says of
background does not drown the rest (Chen et al. 2017, Learning Efficient Object Detection Models with Knowledge
Distillation, §3.2–3.3). `features`: the mean over the named endpoints of |p(s) - t|² / |t|², p a 1×1 projection where
the widths differ, as in `distill`. All but the last are divided by the sum of that belief.

Imports geometry, losses and models; keras where it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherweight.boxes import Decoding
from featherweight.detect.geometry import bins_of, complete_iou, found_boxes, found_scores, priors_of, split
from featherweight.detect.losses import BOX, cross_entropy
from featherweight.errors import SettingError

if TYPE_CHECKING:
    import keras

TINY = 1e-6


@dataclass(frozen=True)
class Distillation:
    """A trained detector of the same rows as the student's, and how much it counts.

    `alpha` is the share of the true boxes' own loss; `endpoints` are pairs of layers (student's, teacher's) whose maps
    are to be alike.
    """

    teacher: "keras.Model"
    alpha: float = 0.5
    temperature: float = 4.0
    endpoints: tuple[tuple[str, str], ...] = ()
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1 or not self.temperature > 0 or not self.feature_weight > 0:
            raise SettingError(
                f"alpha {self.alpha}, temperature {self.temperature}, feature weight {self.feature_weight}; "
                "wanted 0 up to 1, and over 0"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the lineage."""
        return {
            "teacher": self.teacher.name,
            "teacher_parameters": self.teacher.count_params(),
            "alpha": self.alpha,
            "temperature": self.temperature,
            "endpoints": [list(pair) for pair in self.endpoints],
            "feature_weight": self.feature_weight,
        }


def pair_of(student: "keras.Model", distillation: Distillation) -> "keras.Model":
    """Picture → rows of both (b, p, 2 · values), and how far their features are apart (b, 1) where endpoints are named.

    Raises:
        SettingError: rows that mean something else, endpoints that are not there or of another size.
    """
    import keras

    from featherweight.models.heads import decoding_of_model

    mine, theirs = decoding_of_model(student), decoding_of_model(distillation.teacher)
    if mine != theirs:
        raise SettingError(
            f"the teacher {distillation.teacher.name} has rows {_shortly(theirs)}, the student {_shortly(mine)}; "
            "wanted the same size, classes, kind and anchors"
        )
    # A copy, as whether it learns is a matter of the layers.
    teacher = keras.models.clone_model(distillation.teacher)
    teacher.set_weights(distillation.teacher.get_weights())
    pairs = [(_map(student, ours), _map(teacher, its)) for ours, its in distillation.endpoints]
    seen = keras.Model(student.inputs[0], [student.outputs[0], *(ours for ours, _ in pairs)])
    said = keras.Model(teacher.inputs[0], [teacher.outputs[0], *(its for _, its in pairs)], name="teacher")
    said.trainable = False
    image = keras.Input(student.input_shape[1:], name="image")
    (rows, *ours_of), (told, *its_of) = _several(seen(image)), _several(said(image))
    joined = keras.layers.Concatenate(name="rows")([rows, told])
    if not pairs:
        return keras.Model(image, joined)
    apart: Any = 0.0
    for number, (ours, its) in enumerate(zip(ours_of, its_of, strict=True)):
        if ours.shape[1:3] != its.shape[1:3]:
            raise SettingError(f"endpoints of {ours.shape[1:]} and {its.shape[1:]}; wanted maps of one size")
        if ours.shape[-1] != its.shape[-1]:
            projected = keras.layers.Conv2D(its.shape[-1], 1, name=f"projection_{number}")(ours)
        else:
            projected = ours
        off = keras.ops.sum(keras.ops.square(projected - its), axis=(1, 2, 3))
        size = keras.ops.sum(keras.ops.square(its), axis=(1, 2, 3))
        apart = apart + off / keras.ops.maximum(size, TINY) / len(pairs)
    return keras.Model(image, (joined, keras.ops.expand_dims(apart, -1)))


def losses_of(
    decoding: Decoding, own: Callable[[Any, Any], Any], distillation: Distillation
) -> tuple[Callable[[Any, Any], Any], ...]:
    """A loss for each output of `pair_of`."""
    import tensorflow as tf
    from keras import ops

    values, rest = decoding.values, 1 - distillation.alpha
    taught = taught_by(decoding, distillation.temperature)

    def both(truth: Any, rows: Any) -> Any:
        mine, its = rows[..., :values], ops.stop_gradient(rows[..., values:])
        return distillation.alpha * own(truth, mine) + rest * taught(its, mine)

    def features(_: Any, apart: Any) -> Any:
        return rest * distillation.feature_weight * ops.mean(apart)

    found = (both, features) if distillation.endpoints else (both,)
    return tuple(tf.autograph.experimental.do_not_convert(one) for one in found)


def taught_by(decoding: Decoding, temperature: float = 1.0) -> Callable[[Any, Any], Any]:
    """`scores` and `boxes` of the above: (the teacher's rows, the student's) → a number."""
    from keras import ops

    priors = priors_of(decoding)

    def taught(its: Any, mine: Any) -> Any:
        belief = ops.max(found_scores(its, decoding), axis=-1)
        boxes = found_boxes(mine, decoding, priors), found_boxes(its, decoding, priors)
        loss = BOX * ops.sum(belief * (1 - complete_iou(*boxes)))
        box, objectness, classes = zip(split(mine, decoding), split(its, decoding), strict=True)
        loss += _alike(*classes, None if decoding.kind == "distances" else belief)
        if decoding.kind == "yolo":
            loss += _alike(*objectness, None)
        if decoding.bins:
            learnt, told = (ops.log_softmax(bins_of(one, decoding) / temperature) for one in box)
            off = ops.sum(ops.exp(told) * (told - learnt), axis=(-1, -2)) / 4
            loss += temperature**2 * ops.sum(belief * off)
        return loss / ops.maximum(ops.sum(belief), 1.0)

    return taught


def _alike(mine: Any, its: Any, weight: Any) -> Any:
    """|σ(t) - σ(s)|² · BCE(σ(s), σ(t)), summed; rows by weight."""
    from keras import ops

    wanted = ops.sigmoid(its)
    each = ops.square(ops.sigmoid(mine) - wanted) * cross_entropy(mine, wanted)
    return ops.sum(each if weight is None else each * weight[..., None])


def _map(model: "keras.Model", name: str) -> Any:
    known = {layer.name: layer for layer in model.layers}
    if name not in known or len(known[name].output.shape) != 4:
        raise SettingError(f"{model.name} has no map {name!r}; name a layer of its head")
    return known[name].output


def _several(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _shortly(decoding: Decoding | None) -> str:
    if decoding is None:
        return "that are none"
    return f"of kind {decoding.kind}, {decoding.priors}×{decoding.values} at {decoding.height}×{decoding.width}"
