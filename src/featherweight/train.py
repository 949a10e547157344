"""Training: `keras.Model` × `Dataset` → a trained `keras.Model`.

1. The trunk frozen: its features are computed once, and the head is fitted to them.
2. The whole network, with augmentation, the learning rate falling along a cosine; the best weights on val are kept.
   Pretrained batch norms stay frozen: the statistics of a million pictures are better than those of a batch (on
   signdigits 98.7 % instead of 97.4 on val), a step takes half the time, and a network whose batch norm was folded
   into its convolutions, so that the statistics are none, is not wrecked.

A network without pretrained weights skips phase 1: the features of a random trunk teach a head nothing. So does one
whose head knows the classes already, because it was pruned or factorized (`head_epochs=0`).

Order and augmentation are functions of the seed and the epoch alone, and the state is kept after each epoch where a
file for it is named: a run that was killed goes on at the last epoch done and gives what it would have given.

What is learned is the `Learner`'s: its loss, how it is judged, which epoch is its best. Those of other tasks derive
from it; the epochs and their state are the same.

In scope: the optimizer, the input path, early stopping. Not aware of: which network, which budget.
Imports artifact, data, errors, models, progress and training_state.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.data import Dataset, PixelCache, labels, load_pixels
from featherweight.errors import SettingError
from featherweight.models.copying import copy_weights, every_layer
from featherweight.models.functional import picture_size
from featherweight.models.zoo import FEATURES, LOGITS
from featherweight.progress import LINE_EVERY_SECONDS, logger, quiet, track
from featherweight.training_state import State, StateFile, model_digest

if TYPE_CHECKING:
    import keras


# Batch norm keeps steps in proportion. A network without it (SqueezeNet) forgets what it knew at the same rate: on
# signdigits 90.0 % right with its head alone, 35.8 after the first epoch at 3e-3.
WITHOUT_BATCH_NORM = 0.1
MOMENTUM = 0.9
OPTIMIZERS = ("adam", "sgd")
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    `shift`, `zoom` and `rotate` are shares of the side, of the size and of a full turn; `crop` is how many pixels a
    picture moves at most, what comes in from beyond its edge being its mirror image.

    `optimizer`: adam, or sgd with Nesterov's momentum of 0.9. `weight_decay` takes this share, times the learning rate,
    off every kernel at each step (Loshchilov & Hutter, arXiv 1711.05101); with sgd, whose momentum adds up steps, it
    does what a tenth of it does as a penalty in the loss. `head_epochs` 0 leaves the head's own phase out;
    `freeze_batch_norm` None means: where the network comes pretrained. With `keep_zeros`, weights of kernels that are 0
    at the start stay 0.
    """

    epochs: int = 12
    patience: int = 6
    batch_size: int = 32
    learning_rate: float = 3e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    freeze_batch_norm: bool | None = None
    keep_zeros: bool = False
    head_epochs: int = 40
    head_learning_rate: float = 3e-3
    augment: bool = True
    flip: bool = False
    crop: int = 0
    shift: float = 0.08
    zoom: float = 0.1
    rotate: float = 0.0
    contrast: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch_size) < 1 or min(self.head_epochs, self.crop) < 0:
            raise SettingError(
                f"epochs {self.epochs}, patience {self.patience}, batch {self.batch_size}; wanted >= 1; "
                f"head epochs {self.head_epochs}, crop {self.crop}; wanted >= 0"
            )
        if not 0 < self.learning_rate < 1 or not 0 < self.head_learning_rate < 1:
            raise SettingError(f"learning rate {self.learning_rate}; wanted between 0 and 1")
        if not 0 <= self.weight_decay < 1 or not 0 <= self.label_smoothing < 1:
            raise SettingError(
                f"weight decay {self.weight_decay}, label smoothing {self.label_smoothing}; wanted 0 up to 1"
            )
        if self.optimizer not in OPTIMIZERS:
            raise SettingError(f"unknown optimizer {self.optimizer!r}; known: {', '.join(OPTIMIZERS)}")
        if not 0 <= self.seed < 2**32:
            raise SettingError(f"seed {self.seed}; wanted 0 to {2**32 - 1}")


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
    checkpoint: Path | None = None,
) -> tuple["keras.Model", Step]:
    """Train a copy of the model.

    Args:
        model: as `models.zoo.build` makes it, or any that takes RGB 0–255 and gives probabilities; unchanged.
        dataset: with the parts train and val.
        settings: how.
        pretrained: whether the weights are worth keeping: then the start counts as an epoch that may be the best one.
        cache: the pixels of train and val at the model's size, where they were decoded already.
        checkpoint: a file for the state after each epoch. With the same call again, training goes on there; a run that
            is done gives its result at once.

    Returns:
        The trained model with the weights of its best epoch on val, and what was done for the lineage.

    Raises:
        SettingError: no layers `features` and `logits` for the head's phase; a checkpoint of another run.
        OutputError: the checkpoint cannot be written.
    """
    set_seed(settings.seed)
    file = state_file(checkpoint, {"train": asdict(settings), "pretrained": pretrained}, dataset, model)
    state = None if file is None else file.read()
    train_set, val_set = read_parts(model, dataset, cache)
    frozen = pretrained if settings.freeze_batch_norm is None else settings.freeze_batch_norm
    model = _copy(model, freeze_batch_norm=frozen)
    notes: dict[str, float] = {}
    if state is None and pretrained and settings.head_epochs:
        notes["head_accuracy_val"] = _fit_head(model, train_set, val_set, settings)
    stream = batches(*train_set, settings, first_epoch=0 if state is None else state.epochs)
    val_stream = batches(*val_set, settings, shuffle=False)
    fitted = compiled(model, settings, optimizer(settings, model, int(stream.cardinality())))
    learner = Learner(fitted, model, fitted)
    state = learner.begin(val_stream, pretrained, notes) if state is None else learner.restore(state)
    with zeros_kept(model, settings.keep_zeros) as zeros:
        state = fit_epochs(learner, state, stream, val_stream, settings, file)
    done = {**asdict(settings), "batch_norm": "frozen" if frozen else "trained", **results(learner, state)}
    return model, Step("train", {**done, "learning_rate": learning_rate(settings, model), "zeros_kept": zeros})


def read_parts(
    model: "keras.Model", dataset: Dataset, cache: PixelCache | None
) -> tuple[tuple[Pixels, Labels], tuple[Pixels, Labels]]:
    """(pixels (n, h, w, 3), labels (n,)) of train and of val, at the model's size."""
    train_items, val_items = dataset.part("train"), dataset.part("val")
    if cache is None:
        cache = load_pixels((*train_items, *val_items), *picture_size(model))
    return (cache.take(train_items), labels(train_items)), (cache.take(val_items), labels(val_items))


def predict_pixels(
    model: "keras.Model", pixels: Pixels, label: str = "predicting", batch_size: int = 64
) -> NDArray[np.float32]:
    """Outputs (n, …) on RGB 0–255 (n, h, w, 3), batch by batch: pixels may lie in a mapped file."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate(
        [
            model.predict_on_batch(pixels[start : start + batch_size].astype(np.float32))
            for start in track(starts, label, len(starts))
        ]
    )


# ------------------------------------------------------------------------------------------------ the input path


def batches(
    pixels: Pixels,
    truth: Labels,
    settings: TrainSettings,
    shuffle: bool = True,
    first_epoch: int = 0,
    beside: Sequence[NDArray[np.float32]] = (),
) -> Any:
    """A `tf.data.Dataset` of (RGB 0–255 float32 (b, h, w, 3), labels (b,)), augmented, the next batch always ready.

    Each time it is gone through is an epoch. Order and augmentation are functions of the seed and the epoch. Whole
    pixels are moved on bytes, which takes microseconds a picture; the rest is done by Keras' own layers, beside the
    step. What stands `beside`, a row a picture, follows behind the labels.

    Raises:
        SettingError: a crop that moves pictures by their whole side.
    """
    import tensorflow as tf

    if settings.crop >= min(pixels.shape[1:3]):
        raise SettingError(f"crop {settings.crop} of pictures of {pixels.shape[1:3]}; wanted less than a side")
    size = settings.batch_size
    # A last batch of one picture has no variance; in training it is left for another epoch.
    lone_last = shuffle and len(pixels) > size and len(pixels) % size == 1
    starts = range(0, len(pixels) - lone_last, size)
    change = settings.augment and shuffle
    layers = augmentation(settings) if change else []
    numbers = itertools.count(first_epoch)

    def epoch() -> Iterator[tuple[NDArray[Any], ...]]:
        random = np.random.default_rng((settings.seed, next(numbers)))
        order = random.permutation(len(pixels)) if shuffle else np.arange(len(pixels))
        for layer in layers:
            layer.generator.state.assign(random.integers(0, 2**31, 2))
        for start in starts:
            rows = order[start : start + size]
            images = moved(pixels[rows], settings, random) if change else pixels[rows]
            yield (images, truth[rows], *(array[rows] for array in beside))

    kinds: list[tuple[NDArray[Any], Any]] = [(pixels, tf.uint8), (truth, tf.int64)]
    kinds += [(array, tf.float32) for array in beside]
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), kind) for array, kind in kinds)
    stream = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    stream = stream.map(lambda x, *others: (_float(x, layers), *others)).prefetch(1)
    # With autotune on, TensorFlow 2.21 ends an epoch only when its tuning thread wakes next, and that thread sleeps
    # twice as long each time: a 5.8 s epoch then takes 10.2 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options).apply(tf.data.experimental.assert_cardinality(len(starts)))


def moved(pixels: Pixels, settings: TrainSettings, random: np.random.Generator) -> Pixels:
    """Pictures (b, h, w, c), each by itself moved by up to `crop` pixels and turned left to right every second time."""
    count, height, width = pixels.shape[:3]
    if not settings.crop and not settings.flip:
        return pixels
    rows, columns = (_places(side, settings.crop, count, random) for side in (height, width))
    if settings.flip:
        turned = random.random(count) < 0.5
        columns[turned] = columns[turned, ::-1]
    found: Pixels = pixels[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found


def _places(side: int, most: int, count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Which rows or columns each picture shows, (count, side); those beyond the edge are mirrored, without the edge."""
    places = np.arange(side) + random.integers(-most, most + 1, (count, 1))
    mirrored: NDArray[np.intp] = (side - 1) - np.abs((side - 1) - np.abs(places))
    return mirrored


def augmentation(settings: TrainSettings) -> list[Any]:
    """Keras' preprocessing layers for the settings that are no whole pixels."""
    import keras

    seed = settings.seed
    layers: list[Any] = []
    if settings.rotate:
        layers.append(keras.layers.RandomRotation(settings.rotate, fill_mode="nearest", seed=seed))
    if settings.shift:
        layers.append(keras.layers.RandomTranslation(settings.shift, settings.shift, fill_mode="nearest", seed=seed))
    if settings.zoom:
        layers.append(keras.layers.RandomZoom(settings.zoom, settings.zoom, fill_mode="nearest", seed=seed))
    if settings.contrast:
        layers.append(keras.layers.RandomContrast(settings.contrast, value_range=(0, 255), seed=seed))
    return layers


def _float(images: Any, layers: Sequence[Any]) -> Any:
    import tensorflow as tf

    images = tf.cast(images, tf.float32)
    for layer in layers:
        images = layer(images, training=True)
    return images


# --------------------------------------------------------------------------------------------------- the pieces


def cross_entropy(settings: TrainSettings, classes: int, from_logits: bool = False) -> Any:
    """The mean loss of outputs (b, …, classes) for labels (b, …), which are smoothed as the settings say.

    With smoothing ε, ε / classes of the truth goes to every class. Szegedy et al. 2016, arXiv 1512.00567, §7.
    """
    import keras

    def loss(truth: Any, outputs: Any) -> Any:
        wanted = keras.ops.one_hot(keras.ops.cast(truth, "int32"), classes)
        smoothing = settings.label_smoothing
        return keras.ops.mean(keras.losses.categorical_crossentropy(wanted, outputs, from_logits, smoothing))

    if settings.label_smoothing:
        return loss
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def compiled(model: "keras.Model", settings: TrainSettings, optimizer: Any = "sgd") -> "keras.Model":
    """A view of the model that can be fitted and evaluated; the model itself stays ordinary, without an optimizer that
    its file would keep.
    """
    import keras

    view = keras.Model(model.inputs[0], model.outputs[0])
    view.compile(
        optimizer,
        cross_entropy(settings, model.outputs[0].shape[-1]),
        metrics=[accuracy()],
        jit_compile=False,  # XLA on the CPU is seven times slower
    )
    return view


def accuracy() -> Any:
    """The metric by which epochs are shown: labels (b, …) against outputs (b, …, classes)."""
    import keras

    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def learning_rate(settings: TrainSettings, model: "keras.Model") -> float:
    """The highest of the run: the settings', or a tenth of it where no batch norm keeps steps in proportion."""
    import keras

    has_norm = any(isinstance(layer, keras.layers.BatchNormalization) for layer in every_layer(model))
    return settings.learning_rate * (1 if has_norm else WITHOUT_BATCH_NORM)


def optimizer(settings: TrainSettings, model: "keras.Model", steps: int, average: float = 0.0) -> Any:
    """For the model's weights, built: the rate rises in the first epoch of so many steps, then falls along a cosine.

    Kernels alone decay: a bias or the factor of a batch norm has no size to keep small. With `average`, the share that
    stays at each step, it keeps a moving average of the weights among its variables.
    """
    import keras

    rate, all_steps = learning_rate(settings, model), settings.epochs * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10, all_steps, warmup_target=rate, warmup_steps=min(steps, all_steps // 4)
    )
    more: dict[str, Any] = {"weight_decay": settings.weight_decay or None}
    if average:
        more |= {"use_ema": True, "ema_momentum": average}
    if settings.optimizer == "sgd":
        made = keras.optimizers.SGD(schedule, momentum=MOMENTUM, nesterov=True, **more)
    else:
        made = keras.optimizers.Adam(schedule, **more)
    weights = model.trainable_variables
    made.exclude_from_weight_decay(var_list=[weight for weight in weights if not _is_kernel(weight)])
    made.build(weights)
    return made


def _is_kernel(weight: Any) -> bool:
    """Whether it mixes its inputs: a bias or a factor of each channel does not, nor do PReLU's slopes."""
    return len(weight.shape) > 1 and weight.name != "alpha"


@contextmanager
def zeros_kept(model: "keras.Model", keep: bool) -> Iterator[int]:
    """Within it, the kernels' weights that are 0 now are 0 again after each step; yields how many these are.

    By Keras' constraints, which its optimizers apply behind each step, inside of the graph.
    """
    kernels = [weight for weight in model.trainable_variables if keep and _is_kernel(weight)]
    masks = [(weight, np.asarray(weight) != 0, weight.constraint) for weight in kernels]
    for weight, mask, constraint in masks:
        weight.constraint = _masked(mask, constraint)
    try:
        yield sum(int(np.sum(~mask)) for _, mask, _ in masks)
    finally:
        for weight, _, constraint in masks:
            weight.constraint = constraint


def _masked(mask: NDArray[np.bool_], constraint: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """A constraint of Keras': the layer's own, then the mask."""
    import keras

    def masked(weight: Any) -> Any:
        kept = weight if constraint is None else constraint(weight)
        return keras.ops.where(mask, kept, keras.ops.zeros_like(kept))

    return masked


def _copy(model: "keras.Model", freeze_batch_norm: bool) -> "keras.Model":
    import keras

    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    set_batch_norm(copy, freeze_batch_norm)
    return copy


def set_batch_norm(model: "keras.Model", frozen: bool) -> None:
    """Whether statistics and factors learn, in place."""
    import keras

    for layer in every_layer(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen


# --------------------------------------------------------------------------------------------------- the phases


def _fit_head(model: "keras.Model", train_set: Any, val_set: Any, settings: TrainSettings) -> float:
    """Phase 1, in place on our copy: features once, then the head alone. Returns its accuracy on val."""
    import keras

    if missing := {FEATURES, LOGITS} - {layer.name for layer in model.layers}:
        raise SettingError(
            f"{model.name} has no layer {min(missing)!r} for the head's phase; leave it out: head_epochs=0"
        )
    trunk = keras.Model(model.input, model.get_layer(FEATURES).output)
    features, val_features = (
        predict_pixels(trunk, pixels, f"features of {name}")
        for name, (pixels, _) in (("train", train_set), ("val", val_set))
    )
    dense = model.get_layer(LOGITS)
    head = keras.Sequential(
        [keras.Input(features.shape[1:]), keras.layers.Dropout(0.2), keras.layers.Dense(dense.units)]
    )
    head.compile(
        keras.optimizers.Adam(settings.head_learning_rate),
        cross_entropy(settings, dense.units, from_logits=True),
        metrics=[accuracy()],
        jit_compile=False,
    )
    # Stops when the loss on val no longer falls, and goes back to the weights of the best epoch.
    patience = keras.callbacks.EarlyStopping(monitor="val_loss", patience=settings.patience, restore_best_weights=True)
    history = head.fit(
        features,
        train_set[1],
        batch_size=settings.batch_size,
        epochs=settings.head_epochs,
        validation_data=(val_features, val_set[1]),
        callbacks=[patience],
        verbose=0,
    )
    dense.set_weights(head.layers[-1].get_weights())
    best = float(history.history["val_accuracy"][int(np.argmin(history.history["val_loss"]))])
    logger.info("head on frozen features: %.1f %% right on val", 100 * best)
    return best


@dataclass(frozen=True)
class Learner:
    """Who is in a training: `fitted` is what Keras fits, `trained` has every weight that this changes, `judged` gives
    the answers. They are views of one model where it learns by itself; with a teacher there is more to fit.

    This one learns classes. What another task does otherwise is in the methods that it replaces.
    """

    fitted: "keras.Model"
    trained: "keras.Model"
    judged: "keras.Model"

    score: ClassVar[str] = "accuracy"  # what the second number of a judgement is

    @property
    def variables(self) -> list[Any]:
        """What the next epoch depends on: weights and statistics, the state of dropout, what the optimizer keeps."""
        return [*self.trained.variables, *self.fitted.optimizer.variables]

    def learn(self, stream: Any, callback: Any) -> None:
        """One epoch, in place."""
        self.fitted.fit(stream, verbose=0, shuffle=False, callbacks=[callback])  # the stream shuffles itself

    def judge(self, stream: Any) -> tuple[float, float]:
        """Loss and score on a stream of batches."""
        found = self.judged.evaluate(stream, verbose=0, return_dict=True)
        return float(found["loss"]), float(found["accuracy"])

    def best(self, history: Sequence[tuple[float, float]]) -> int:
        """Which of some (loss, score) is the best: that of the least loss. One that is no number is the worst."""
        return min(range(len(history)), key=lambda i: (math.isnan(history[i][0]), history[i][0]))

    def told(self, judged: tuple[float, float]) -> str:
        """A judgement in words."""
        return f"{100 * judged[1]:.1f} % right on val"

    def stalled(self, state: State, patience: int) -> bool:
        """Whether no epoch was better than an earlier one for so many epochs."""
        epochs = state.history[1:]
        return bool(epochs) and len(epochs) - 1 - self.best(epochs) >= patience

    def begin(self, stream: Any, pretrained: bool, notes: Mapping[str, float]) -> State:
        """The state before the first epoch. What comes pretrained is judged: where no epoch is better, it is kept."""
        return self.after(State((), (), (), notes=notes), self.judge(stream) if pretrained else (math.inf, 0.0), 0.0)

    def after(self, before: State, judged: tuple[float, float], seconds: float) -> State:
        """The state one epoch on."""
        history = (*before.history, judged)
        is_best = self.best(history) == len(history) - 1
        return replace(
            before,
            history=history,
            variables=tuple(np.asarray(variable) for variable in self.variables),
            best=tuple(self.judged.get_weights()) if is_best else before.best,
            seconds=before.seconds + seconds,
        )

    def restore(self, state: State) -> State:
        """Everything as it was; returns the state."""
        for variable, array in zip(self.variables, state.variables, strict=True):
            variable.assign(array)
        logger.info("going on after epoch %d", state.epochs)
        return state


def one_epoch(view: "keras.Model", batches: Any, weights: Sequence[Any], callback: Any) -> list[NDArray[Any]]:
    """One epoch of a compiled view, in place. Returns these weights as the last step left them: where the optimizer
    keeps an average, Keras puts that in their place at the end.
    """
    import keras

    kept: list[NDArray[Any]] = []

    class Keep(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, _: int, logs: Any = None) -> None:
            kept.extend(np.array(weight) for weight in weights)

    if len(view.outputs) > 1:  # Keras wants a truth for each
        batches = batches.map(lambda images, truth: (images, (truth,) * len(view.outputs)))
    view.fit(batches, verbose=0, shuffle=False, callbacks=[callback, Keep()])
    return kept


def state_file(path: Path | None, how: dict[str, Any], dataset: Dataset, *models: "keras.Model") -> StateFile | None:
    """The file for a run of these settings, data and first weights."""
    if path is None:
        return None
    import keras

    weights = [model_digest(model) for model in models]
    return StateFile(path, {**how, "data": dataset.fingerprint, "weights": weights, "keras": keras.__version__})


def fit_epochs(
    learner: Learner, state: State, stream: Any, val_stream: Any, settings: TrainSettings, file: StateFile | None
) -> State:
    """Phase 2, in place: epoch by epoch from the state; at its end the best weights are set."""
    if file is not None and not state.epochs:
        file.write(state)  # a place that cannot be written is known before the long work
    while state.epochs < settings.epochs and not learner.stalled(state, settings.patience):
        started = time.monotonic()
        show = _show(state.epochs + 1, settings.epochs, int(stream.cardinality()))
        learner.learn(stream, show)
        judged = learner.judge(val_stream)
        state = learner.after(state, judged, time.monotonic() - started)
        logger.info("epoch %d of at most %d: %s", state.epochs, settings.epochs, learner.told(judged))
        if file is not None:
            file.write(state)
    learner.judged.set_weights(list(state.best))
    return state


def results(learner: Learner, state: State) -> dict[str, Any]:
    """What came of a training, for its step."""
    best = learner.best(state.history)
    return {
        **state.notes,
        "epochs_run": state.epochs,
        "best_epoch": best,
        f"{learner.score}_val": state.history[best][1],
        "train_s": round(state.seconds, 1),
    }


def _show(epoch: int, epochs: int, steps: int) -> Any:
    """A Keras callback that logs a line now and then within a long epoch."""
    import keras

    class Show(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, _: int, logs: Any = None) -> None:
            self.last = time.monotonic()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if time.monotonic() - self.last > LINE_EVERY_SECONDS:
                self.last = time.monotonic()
                logger.info("epoch %d of at most %d: step %d of %d", epoch, epochs, batch + 1, steps)

    return Show()
