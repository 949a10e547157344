"""Transfer learning in two phases: `keras.Model` × `Dataset` → a trained `keras.Model`.

1. The trunk frozen: its features are computed once, and the head is fitted to them.
2. The whole network, with augmentation, the learning rate falling along a cosine; the best weights on val are kept.
   Pretrained batch norms stay frozen: the statistics of a million pictures are better than those of a batch (on
   signdigits 98.7 % instead of 97.4 on val), a step takes half the time, and a network whose batch norm was folded
   into its convolutions, so that the statistics are none, is not wrecked.

A network without pretrained weights skips phase 1: the features of a random trunk teach a head nothing.

In scope: the optimizer, the input path, early stopping. Not aware of: which network, which budget.
Imports data, errors, image, models and progress.
"""

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.data import Dataset, PixelCache, labels, load_pixels
from featherweight.errors import SettingError
from featherweight.models.copying import copy_weights, every_layer
from featherweight.models.zoo import FEATURES
from featherweight.progress import LINE_EVERY_SECONDS, logger, quiet, track

if TYPE_CHECKING:
    import keras


# Batch norm keeps steps in proportion. A network without it (SqueezeNet) forgets what it knew at the same rate: on
# signdigits 90.0 % right with its head alone, 35.8 after the first epoch at 3e-3.
WITHOUT_BATCH_NORM = 0.1


@dataclass(frozen=True)
class TrainSettings:
    """How to train. `shift`, `zoom` and `rotate` are shares of the side, of the size and of a full turn."""

    epochs: int = 12
    patience: int = 6
    batch_size: int = 32
    learning_rate: float = 3e-3
    head_epochs: int = 40
    head_learning_rate: float = 3e-3
    augment: bool = True
    flip: bool = False
    shift: float = 0.08
    zoom: float = 0.1
    rotate: float = 0.0
    contrast: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch_size, self.head_epochs) < 1:
            raise SettingError(f"epochs {self.epochs}, patience {self.patience}, batch {self.batch_size}; wanted >= 1")
        if not 0 < self.learning_rate < 1 or not 0 < self.head_learning_rate < 1:
            raise SettingError(f"learning rate {self.learning_rate}; wanted between 0 and 1")


def load_keras() -> None:
    """Import Keras and TensorFlow, whose start-up notes are no news to the user.

    Raises:
        ModuleNotFoundError: the training world is not installed.
    """
    with quiet():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow: before a network is built, so that its first weights are its seed's too."""
    import keras

    keras.utils.set_random_seed(seed)


def train(
    model: "keras.Model",
    dataset: Dataset,
    settings: TrainSettings,
    pretrained: bool,
    cache: PixelCache | None = None,
) -> tuple["keras.Model", Step]:
    """Train a copy of the model.

    Args:
        model: as `models.zoo.build` makes it; unchanged.
        dataset: with the parts train and val.
        settings: how.
        pretrained: whether the trunk's weights are worth keeping.
        cache: the pixels of train and val at the model's size, where they were decoded already.

    Returns:
        The trained model with the weights of its best epoch on val, and what was done for the lineage.
    """
    set_seed(settings.seed)
    height, width = model.input_shape[1:3]
    train_items, val_items = dataset.part("train"), dataset.part("val")
    if cache is None:
        cache = load_pixels((*train_items, *val_items), height, width)
    x, y = cache.take(train_items), labels(train_items)
    x_val, y_val = cache.take(val_items), labels(val_items)
    done: dict[str, Any] = asdict(settings)
    done["batch_norm"] = "frozen" if pretrained else "trained"
    model = _copy(model, freeze_batch_norm=pretrained)
    if pretrained:
        done["head_accuracy_val"] = _fit_head(model, (x, y), (x_val, y_val), settings)
    done |= _fit_all(model, (x, y), (x_val, y_val), settings, pretrained)
    return model, Step("train", done)


def predict_pixels(
    model: "keras.Model", pixels: NDArray[np.uint8], label: str = "predicting", batch_size: int = 64
) -> NDArray[np.float32]:
    """Outputs (n, …) on RGB 0–255 (n, h, w, 3), batch by batch: pixels may lie in a mapped file."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate(
        [
            model.predict_on_batch(pixels[start : start + batch_size].astype(np.float32))
            for start in track(starts, label, len(starts))
        ]
    )


def batches(pixels: NDArray[np.uint8], truth: NDArray[np.int64], settings: TrainSettings, shuffle: bool = True) -> Any:
    """A `tf.data.Dataset` of (RGB 0–255 float32 (b, h, w, 3), labels (b,)), augmented, the next batch always ready.

    The order is a function of the seed and the epoch. Augmentation is Keras' own layers, run beside the step.
    """
    import tensorflow as tf

    rng = np.random.default_rng(settings.seed)
    size = settings.batch_size
    # A last batch of one picture has no variance; in training it is left for another epoch.
    lone_last = shuffle and len(pixels) > size and len(pixels) % size == 1
    starts = range(0, len(pixels) - lone_last, size)

    def epoch() -> Any:
        order = rng.permutation(len(pixels)) if shuffle else np.arange(len(pixels))
        for start in starts:
            rows = order[start : start + size]
            yield pixels[rows], truth[rows]

    shape = (None, *pixels.shape[1:])
    signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((None,), tf.int64))
    stream = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    change = augmentation(settings) if settings.augment and shuffle else None
    stream = stream.map(lambda x, y: (_float(x, change), y)).prefetch(1)
    # With autotune on, TensorFlow 2.21 ends an epoch only when its tuning thread wakes next, and that thread sleeps
    # twice as long each time: a 5.8 s epoch then takes 10.2 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options).apply(tf.data.experimental.assert_cardinality(len(starts)))


def augmentation(settings: TrainSettings) -> list[Any]:
    """Keras' preprocessing layers for the settings."""
    import keras

    seed = settings.seed
    layers: list[Any] = []
    if settings.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=seed))
    if settings.rotate:
        layers.append(keras.layers.RandomRotation(settings.rotate, fill_mode="nearest", seed=seed + 1))
    if settings.shift:
        layers.append(
            keras.layers.RandomTranslation(settings.shift, settings.shift, fill_mode="nearest", seed=seed + 2)
        )
    if settings.zoom:
        layers.append(keras.layers.RandomZoom(settings.zoom, settings.zoom, fill_mode="nearest", seed=seed + 3))
    if settings.contrast:
        layers.append(keras.layers.RandomContrast(settings.contrast, value_range=(0, 255), seed=seed + 4))
    return layers


def _float(images: Any, layers: list[Any] | None) -> Any:
    import tensorflow as tf

    images = tf.cast(images, tf.float32)
    for layer in layers or ():
        images = layer(images, training=True)
    return images


def _copy(model: "keras.Model", freeze_batch_norm: bool) -> "keras.Model":
    import keras

    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    for layer in every_layer(copy):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not freeze_batch_norm
    return copy


def _fit_head(model: "keras.Model", train_set: Any, val_set: Any, settings: TrainSettings) -> float:
    """Phase 1, in place on our copy: features once, then the head alone. Returns its accuracy on val."""
    import keras

    trunk = keras.Model(model.input, model.get_layer(FEATURES).output)
    features, val_features = (
        predict_pixels(trunk, pixels, f"features of {name}")
        for name, (pixels, _) in (("train", train_set), ("val", val_set))
    )
    dense = model.get_layer("logits")
    head = keras.Sequential(
        [keras.Input(features.shape[1:]), keras.layers.Dropout(0.2), keras.layers.Dense(dense.units)]
    )
    head.compile(
        keras.optimizers.Adam(settings.head_learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    history = head.fit(
        features,
        train_set[1],
        batch_size=settings.batch_size,
        epochs=settings.head_epochs,
        validation_data=(val_features, val_set[1]),
        callbacks=[_early_stopping(settings)],
        verbose=0,
    )
    dense.set_weights(head.layers[-1].get_weights())
    best = float(history.history["val_accuracy"][int(np.argmin(history.history["val_loss"]))])
    logger.info("head on frozen features: %.1f %% right on val", 100 * best)
    return best


def _fit_all(
    model: "keras.Model", train_set: Any, val_set: Any, settings: TrainSettings, pretrained: bool
) -> dict[str, Any]:
    """Phase 2, in place on our copy. Returns the epochs it took and the best accuracy on val.

    Where no epoch is better than the start, a pretrained network goes back to that: best epoch 0.
    """
    import keras

    stream = batches(train_set[0], train_set[1], settings)
    val_stream = batches(val_set[0], val_set[1], settings, shuffle=False)
    steps = int(stream.cardinality())
    rate = settings.learning_rate * (1 if _has_batch_norm(model) else WITHOUT_BATCH_NORM)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10,
        settings.epochs * steps,
        warmup_target=rate,
        warmup_steps=min(steps, settings.epochs * steps // 4),
    )
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,  # XLA on the CPU is seven times slower
    )
    start = model.get_weights()
    start_loss, start_accuracy = model.evaluate(val_stream, verbose=0) if pretrained else (math.inf, 0.0)
    history = model.fit(
        stream,
        epochs=settings.epochs,
        validation_data=val_stream,
        callbacks=[_early_stopping(settings), _show(settings.epochs, steps)],
        verbose=0,
        shuffle=False,  # the stream shuffles itself
    )
    losses = [start_loss, *history.history["val_loss"]]
    best = int(np.nanargmin(losses))
    if best == 0:
        model.set_weights(start)
    return {
        "epochs_run": len(losses) - 1,
        "best_epoch": best,
        "accuracy_val": float([start_accuracy, *history.history["val_accuracy"]][best]),
        "learning_rate": rate,
    }


def _has_batch_norm(model: "keras.Model") -> bool:
    import keras

    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in every_layer(model))


def _early_stopping(settings: TrainSettings) -> Any:
    """Stop when the loss on val no longer falls, and go back to the weights of the best epoch."""
    import keras

    return keras.callbacks.EarlyStopping(monitor="val_loss", patience=settings.patience, restore_best_weights=True)


def _show(epochs: int, steps: int) -> Any:
    """A Keras callback that logs each epoch, and within a long one a line now and then."""
    import keras

    class Show(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch, self.last = epoch + 1, time.monotonic()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if time.monotonic() - self.last > LINE_EVERY_SECONDS:
                self.last = time.monotonic()
                logger.info("epoch %d of at most %d: step %d of %d", self.epoch, epochs, batch + 1, steps)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            right = 100 * (logs or {})["val_accuracy"]
            logger.info("epoch %d of at most %d: %.1f %% right on val", self.epoch, epochs, right)

    return Show()
