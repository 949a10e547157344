"""Training with the rounding of int8: `keras.Model` × `Dataset` → a fake-quantized `keras.Model`.

    train_aware    by labels, a classifier
    imitate        by what the model itself says of pictures, any

In scope: the optimizer, when ranges freeze. Not aware of: where it rounds. Imports artifact, data, errors, image,
models, progress, train and steps; keras where it is used.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.artifact import Step
from featherweight.data import Dataset, PixelCache
from featherweight.errors import SettingError
from featherweight.image import Pixels
from featherweight.models.copying import copy_weights
from featherweight.progress import logger
from featherweight.qat.steps import PlaceSettings, RangeSettings, fake_quantize, set_rate, settled
from featherweight.train import TrainSettings, batches, read_parts, set_seed

if TYPE_CHECKING:
    import keras

# The model knows its task, and without batch norm large steps make it forget.
GENTLE = TrainSettings(epochs=6, patience=6, learning_rate=1e-4)
# To say the same again in other words takes longer. Where int8 is near to it from the start, the start is kept.
PATIENT = TrainSettings(
    epochs=16, patience=16, batch_size=10, learning_rate=1e-4, flip=True, shift=0.1, zoom=0.3, contrast=0.2
)
HELD_OUT = 0.1  # of the pictures, to tell the best epoch
TINY = 1e-12
# Adam and the plain cross-entropy it always is, on the whole model with folded batch norms.
NOT_USED = (
    "optimizer", "weight_decay", "label_smoothing", "keep_zeros", "head_epochs", "head_learning_rate",
    "freeze_batch_norm",
)  # fmt: skip


def train_aware(
    model: "keras.Model",
    dataset: Dataset,
    settings: TrainSettings = GENTLE,
    ranges: RangeSettings | None = None,
    cache: PixelCache | None = None,
) -> tuple["keras.Model", Step]:
    """Train a trained model on with the rounding of int8 in it.

    Args:
        model: as `fake_quantize` takes it, with probabilities for outputs; unchanged.
        dataset: with the parts train and val.
        settings: how; few epochs and a small learning rate. Those of `NOT_USED` have no effect.
        ranges: of the activations.
        cache: the pixels of train and val at the model's size, where they were decoded already.

    Returns:
        The fake-quantized model with the weights of its best epoch on val, for `export_qat` or `finish`, and what was
        done. A model that cannot be fake-quantized comes back as it was, with the reason among the skipped.

    Raises:
        SettingError: it does not take one picture of a fixed size.
    """
    ranges = ranges or RangeSettings()
    set_seed(settings.seed)
    (x, truth), (x_val, truth_val) = read_parts(model, dataset, cache)
    evenly = np.unique(np.linspace(0, len(x) - 1, ranges.calibration_images).astype(int))
    try:
        copy, step = fake_quantize(model, x[evenly], ranges)
    except SettingError as error:
        return model, Step("train_aware", {"kernels": 0, "activations": 0}, ((model.name, str(error)),))
    stream = batches(x, truth, settings)
    val_stream = batches(x_val, truth_val, settings, shuffle=False)
    used = {name: value for name, value in asdict(settings).items() if name not in NOT_USED}
    done = _fit(copy, stream, val_stream, settings, ranges)
    return settled(copy), Step("train_aware", {**used, **asdict(ranges), **step.settings, **done}, step.skipped)


def imitate(
    model: "keras.Model",
    pictures: Pixels,
    settings: TrainSettings = PATIENT,
    ranges: RangeSettings | None = None,
    places: PlaceSettings | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
) -> tuple["keras.Model", Step]:
    """Train a model to say with the rounding of int8 in it what it says without: from pictures alone, for any task.

    Args:
        model: as `fake_quantize` takes it, with one output; unchanged.
        pictures: (n, h, w, 3) RGB 0–255 of its size, as it will see them, at least two. Every tenth is held out, to
            choose the best epoch by.
        settings: how. Those of `NOT_USED` have no effect.
        ranges: of the activations.
        places: where it rounds.
        loss: (what the model says, what its rounding copy says) of a batch → a number; by default the square of the
            relative error. Of a detector `detect.distil.taught_by` counts what becomes a box.

    Returns:
        The fake-quantized model with the weights of its best epoch, for `export_qat` or `finish`, and what was done.

    Raises:
        SettingError: less than two pictures, or as `fake_quantize`.
    """
    if len(pictures) < 2:
        raise SettingError(f"{len(pictures)} picture to imitate on; wanted at least two")
    ranges, places = ranges or RangeSettings(), places or PlaceSettings()
    set_seed(settings.seed)
    copy, step = fake_quantize(model, pictures, ranges, places)
    held = np.arange(len(pictures)) % round(1 / HELD_OUT) == 1
    nothing = np.zeros(len(pictures), np.int64)
    stream = batches(pictures[~held], nothing[~held], settings)
    val_stream = batches(pictures[held], nothing[held], settings, shuffle=False)
    joint = _beside(model, copy)
    middle = joint.output_shape[-1] // 2
    apart = loss or _relative
    joint.compile(
        _gentle(settings, stream),
        lambda _, both: apart(both[..., :middle], both[..., middle:]),
        jit_compile=False,
    )
    done = _epochs(joint, stream, val_stream, settings, ranges, copy)
    used = {name: value for name, value in asdict(settings).items() if name not in NOT_USED}
    return settled(copy), Step("imitate", {**used, **asdict(ranges), **step.settings, **done}, step.skipped)


def _beside(model: "keras.Model", copy: "keras.Model") -> "keras.Model":
    """Picture → what the model says and what its copy says, one behind the other along the last axis; only the copy
    learns.
    """
    import keras

    teacher = keras.models.clone_model(model)
    copy_weights(model, teacher)
    said = keras.Model(teacher.inputs[0], teacher.outputs[0], name="said")
    said.trainable = False  # its batch norms, too, are then those of inference
    image = keras.Input(model.input_shape[1:], name="image")
    student = keras.Model(copy.inputs[0], copy.outputs[0], name="rounded")
    return keras.Model(image, keras.layers.Concatenate(name="both")([said(image), student(image)]))


def _relative(wanted: Any, found: Any) -> Any:
    from keras import ops

    return ops.sum(ops.square(found - wanted)) / ops.maximum(ops.sum(ops.square(wanted)), TINY)


def _gentle(settings: TrainSettings, stream: Any) -> Any:
    """Adam whose rate falls to nothing over the run."""
    import keras

    steps = settings.epochs * int(stream.cardinality())
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps), clipnorm=10.0)


def _fit(
    model: "keras.Model", stream: Any, val_stream: Any, settings: TrainSettings, ranges: RangeSettings
) -> dict[str, Any]:
    """Train in place on our copy, by labels."""
    import keras

    model.compile(
        _gentle(settings, stream),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,  # XLA on the CPU is seven times slower
    )
    return _epochs(model, stream, val_stream, settings, ranges, model)


def _epochs(
    model: "keras.Model", stream: Any, val_stream: Any, settings: TrainSettings, ranges: RangeSettings, rounding: Any
) -> dict[str, Any]:
    """Fit a compiled model and leave the weights of its best epoch in it, of which `rounding` is the part that rounds.
    Returns the figures on val; 0 is before the first epoch.
    """
    import keras

    start = model.get_weights()
    before = model.evaluate(val_stream, verbose=0, return_dict=True)
    history = model.fit(
        stream,
        epochs=settings.epochs,
        validation_data=val_stream,
        callbacks=[
            _freeze(int(np.ceil(ranges.frozen_after * settings.epochs)), rounding),
            keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True),
        ],
        verbose=0,
        shuffle=False,  # the stream shuffles itself
    ).history
    best = int(np.nanargmin([before["loss"], *history["val_loss"]]))
    if best == 0:
        model.set_weights(start)
    told: dict[str, Any] = {"epochs_run": len(history["val_loss"]), "best_epoch": best}
    for name, first in before.items():
        after = [first, *history[f"val_{name}"]][best]
        told |= {f"{name}_val_before": float(first), f"{name}_val": float(after)}
        logger.info("int8: %s on val %.4g before, %.4g after", name, first, after)
    return told


def _freeze(epochs: int, rounding: Any) -> Any:
    """A Keras callback that freezes the ranges of a model once so many epochs are done, and tells how it goes."""
    import keras

    class Freeze(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch >= epochs:
                set_rate(rounding, 0.0)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            told = ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items() if name.startswith("val_"))
            logger.info("epoch %d: in int8 %s", epoch + 1, told)

    return Freeze()
