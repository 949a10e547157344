"""Training with the rounding of int8: `keras.Model` × `Dataset` → a fake-quantized `keras.Model`.

In scope: the optimizer, when ranges freeze. Not aware of: where it rounds. Imports artifact, data, errors, progress,
train and steps; keras where it is used.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.artifact import Step
from featherweight.data import Dataset, PixelCache
from featherweight.errors import SettingError
from featherweight.progress import logger
from featherweight.qat.steps import RangeSettings, fake_quantize, set_rate, settled
from featherweight.train import TrainSettings, batches, read_parts, set_seed

if TYPE_CHECKING:
    import keras

# The model knows its task, and without batch norm large steps make it forget.
GENTLE = TrainSettings(epochs=6, patience=6, learning_rate=1e-4)
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


def _fit(
    model: "keras.Model", stream: Any, val_stream: Any, settings: TrainSettings, ranges: RangeSettings
) -> dict[str, Any]:
    """Train in place on our copy. Returns which epoch was the best and its accuracy on val; 0 is before the first."""
    import keras

    steps = settings.epochs * int(stream.cardinality())
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,  # XLA on the CPU is seven times slower
    )
    start = model.get_weights()
    start_loss, start_accuracy = model.evaluate(val_stream, verbose=0)
    history = model.fit(
        stream,
        epochs=settings.epochs,
        validation_data=val_stream,
        callbacks=[
            _freeze(int(np.ceil(ranges.frozen_after * settings.epochs))),
            keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True),
        ],
        verbose=0,
        shuffle=False,  # the stream shuffles itself
    ).history
    losses = [start_loss, *history["val_loss"]]
    accuracies = [start_accuracy, *history["val_accuracy"]]
    best = int(np.nanargmin(losses))
    if best == 0:
        model.set_weights(start)
    logger.info("int8: %.1f %% right on val before, %.1f %% after", 100 * start_accuracy, 100 * accuracies[best])
    return {
        "epochs_run": len(losses) - 1,
        "best_epoch": best,
        "accuracy_val_before": float(start_accuracy),
        "accuracy_val": float(accuracies[best]),
    }


def _freeze(epochs: int) -> Any:
    """A Keras callback that freezes the ranges once so many epochs are done, and tells how it goes."""
    import keras

    class Freeze(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch >= epochs:
                set_rate(self.model, 0.0)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logger.info("epoch %d: %.1f %% right on val in int8", epoch + 1, 100 * (logs or {})["val_accuracy"])

    return Freeze()
