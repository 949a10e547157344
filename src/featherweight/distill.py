"""Distillation: a student learns from a teacher's answers besides the labels.

    student, step = distill(pruned, original, dataset, DistillSettings(), pretrained=True)

The loss of a picture, or of a pixel, with the student's logits s, the teacher's t and the label y:

    α · CE(y, softmax(s))  +  (1 - α) · [ T² · KL(softmax(t / T) ‖ softmax(s / T))  +  w · features ]

Hinton et al. 2015, arXiv 1503.02531; T² keeps the gradients' size whatever T is. `features` is the mean over the named
endpoints of |p(s) - t|² / |t|², where p is a 1×1 projection where the widths differ (Romero et al. 2015, arXiv
1412.6550); projections are thrown away afterwards. It differs from that paper in two ways: divided by |t|², so that 1
is what zeros would get and one weight does for all endpoints; and learned along with the logits, not in a stage before.

Logits are what the last softmax is given. Where it is inside of another layer (a dense layer's activation), they are
the log of the probabilities: log softmax(z) = z - log Σ exp z, and softmax((z - c) / T) = softmax(z / T) for any number
c, so that they serve as well, at any T. In float32 that holds to rounding, down to probabilities of 1e-38.

Training is Keras' `Distiller` with its own kinds of losses. It is given views instead of the models themselves:

- The student's has logits and projected features as its outputs. Asked for features by layer names, `Distiller` runs
  the student a second time with `training=True`, in evaluation too: twice the time, and statistics of val in the batch
  norms (Keras 3.15.1).
- The teacher's is, where its answers were computed once for all, one that hands on what stands beside the picture:
  `Distiller` runs its teacher in every step.

Epochs are judged by the student alone, as in `train`. Imports artifact, data, device, errors, models, progress and
train; keras where it is used.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.data import MEMORY_SHARE, Dataset, PixelCache, display, load_pixels
from featherweight.device import this_device
from featherweight.errors import SettingError
from featherweight.models.ends import LEAST, logits
from featherweight.models.functional import flat, functional
from featherweight.progress import track
from featherweight.train import (
    Labels,
    Learner,
    Pixels,
    TrainSettings,
    batches,
    compiled,
    cross_entropy,
    fit_epochs,
    learning_rate,
    optimizer,
    read_parts,
    results,
    set_batch_norm,
    set_seed,
    state_file,
    zeros_kept,
)

if TYPE_CHECKING:
    import keras

IMAGE, LOGITS = "image", "logits"
Answers = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class DistillSettings:
    """How to distil.

    `alpha` is the share of the labels' own loss. `endpoints` are pairs of layers (student's, teacher's) whose outputs
    are to be alike, `feature_weight` is what that counts beside the logits. Maps of different sizes are refused unless
    `resize` lets the teacher's be resized. `teacher_classes` are the names of the teacher's outputs in their order,
    where they are known: a file of Keras has none.
    """

    train: TrainSettings = field(default_factory=TrainSettings)
    temperature: float = 4.0
    alpha: float = 0.1
    feature_weight: float = 1.0
    endpoints: tuple[tuple[str, str], ...] = ()
    resize: bool = False
    teacher_classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise SettingError(f"temperature {self.temperature}; wanted over 0")
        if not 0 <= self.alpha < 1:
            raise SettingError(f"alpha {self.alpha}; wanted 0 up to 1, where 1 would be training without a teacher")
        if not 0 < self.feature_weight < math.inf:
            raise SettingError(f"feature weight {self.feature_weight}; wanted over 0")


def distill(
    student: "keras.Model",
    teacher: "keras.Model",
    dataset: Dataset,
    settings: DistillSettings,
    pretrained: bool,
    cache: PixelCache | None = None,
    checkpoint: Path | None = None,
) -> tuple["keras.Model", Step]:
    """Train a copy of the student with the teacher's help.

    The head has no phase of its own here: a student with a pretrained trunk and a new head is trained first.

    Args:
        student: takes RGB 0–255 and ends in a softmax over the data's classes; unchanged. Nested models are laid open.
        teacher: a trained one of the zoo, out of a file (`models.load.load_model`), or what the student was pruned
            from; of the same classes in the same order; unchanged. Where its input has another size, it is shown the
            pictures at its own: decoded anew where its answers are computed once, else the student's, resized.
        dataset: with the parts train and val.
        settings: how. Without augmentation the teacher is asked once for each picture, else in each step.
        pretrained: as `train`'s, of the student.
        cache: the pixels of train and val at the student's size, where they were decoded already.
        checkpoint: as `train`'s.

    Raises:
        SettingError: a teacher of other classes or no better than chance; a model without a softmax at its end;
            endpoints that are not there or of different sizes; a checkpoint of another run.
        OutputError: the checkpoint cannot be written.
    """
    how = settings.train
    set_seed(how.seed)
    _check_classes(student, teacher, dataset, settings)
    file = state_file(checkpoint, {"distill": asdict(settings), "pretrained": pretrained}, dataset, student, teacher)
    state = None if file is None else file.read()
    frozen = pretrained if how.freeze_batch_norm is None else how.freeze_batch_norm
    taught = flat(student)
    set_batch_norm(taught, frozen)
    pair = _pair(taught, flat(teacher), settings)
    train_set, val_set = read_parts(taught, dataset, cache)
    answers, told = _answers(pair, dataset, train_set[0], val_set, how)

    stream = batches(
        *train_set,
        how,
        first_epoch=0 if state is None else state.epochs,
        beside=[] if answers is None else list(answers.values()),
    ).map(pair.arranged)
    distiller = _distiller(pair, answers is not None, settings)
    view = distiller.student
    _compile(distiller, pair, how, optimizer(how, view, int(stream.cardinality())))
    learner = Learner(distiller, view, compiled(taught, how))
    val_stream = batches(*val_set, how, shuffle=False)
    state = learner.begin(val_stream, pretrained, {}) if state is None else learner.restore(state)
    with zeros_kept(taught, how.keep_zeros) as zeros:
        state = fit_epochs(learner, state, stream, val_stream, how, file)
    done = {
        **asdict(settings),
        **told,
        "teacher": teacher.name,
        "teacher_parameters": teacher.count_params(),
        "features": pair.features,
        "batch_norm": "frozen" if frozen else "trained",
        "zeros_kept": zeros,
        "learning_rate": learning_rate(how, taught),
        **results(learner, state),
    }
    return taught, Step("distill", done)


# ----------------------------------------------------------------------------------------------- Keras' Distiller


def soft_loss(teacher: Any, student: Any) -> Any:
    """KL(softmax(teacher) ‖ softmax(student)) of logits (b, …, classes), a number each: (b, …).

    Not Keras' own: its KL cuts probabilities at 1e-7, where a student that is far off then learns nothing; and its
    `LogitsDistillation` by default hands logits to it for probabilities, because it looks for the class where the name
    "kl_divergence" gives the function (Keras 3.15.1).
    """
    import keras

    told, learnt = keras.ops.log_softmax(teacher), keras.ops.log_softmax(student)
    return keras.ops.sum(keras.ops.exp(told) * (told - learnt), axis=-1)


def feature_loss(teacher: Any, student: Any) -> Any:
    """|s - t|² / |t|² over the batch: 0 for the same, 1 for zeros."""
    import keras

    off, size = keras.ops.sum(keras.ops.square(student - teacher)), keras.ops.sum(keras.ops.square(teacher))
    return off / keras.ops.maximum(size, LEAST)


def _distiller(pair: "_Pair", answered: bool, settings: DistillSettings) -> Any:
    """Keras' own, over the two views."""
    import keras

    features = len(pair.keys) - 1
    losses = [keras.distillation.LogitsDistillation(settings.temperature, _alone([soft_loss, *[None] * features]))]
    if features:
        losses.append(keras.distillation.FeatureDistillation((None, *[feature_loss] * features)))
    weights = [settings.temperature**2, settings.feature_weight / max(1, features)]
    student, teacher = pair.student_view(answered), pair.teacher_view(answered)
    return keras.distillation.Distiller(teacher, student, losses, weights[: len(losses)], settings.alpha)


def _compile(distiller: Any, pair: "_Pair", how: TrainSettings, optimizer: Any) -> None:
    """The labels' own loss is for the logits alone."""
    hard = cross_entropy(how, pair.seen[LOGITS].shape[-1], from_logits=True)
    losses = _alone([hard, *[_no_loss] * (len(pair.keys) - 1)])
    distiller.compile(optimizer, losses, jit_compile=False)  # XLA on the CPU is seven times slower


def _alone(values: Iterable[Any]) -> Any:
    """Outputs and what belongs to them, as Keras has them: one stands alone, several in a tuple.

    Not by name: `Distiller` cannot take a dict of losses, which Keras wraps so that it no longer matches one of labels.
    """
    found = tuple(values)
    return found[0] if len(found) == 1 else found


def _no_loss(_: Any, __: Any) -> float:
    return 0.0


# --------------------------------------------------------------------------------------------- student and teacher


@dataclass(frozen=True)
class _Pair:
    """The two models and what is compared: `seen` and `said` have logits and features under the same keys, the features
    of one size but for their channels. They are tensors of the models' own graphs.
    """

    student: "keras.Model"
    teacher: "keras.Model"
    seen: Mapping[str, Any]
    said: Mapping[str, Any]
    features: tuple[str, ...]  # in words

    @property
    def keys(self) -> tuple[str, ...]:
        """`logits` first."""
        return tuple(self.seen)

    @property
    def same_size(self) -> bool:
        """Whether the two take pictures of one size."""
        return bool(self.student.input_shape[1:3] == self.teacher.input_shape[1:3])

    def inputs(self, answered: bool) -> dict[str, Any]:
        """Of both views: the picture, and what the teacher said of it where that is known."""
        import keras

        shapes = {IMAGE: self.student.input_shape[1:]}
        if answered:
            shapes |= {_told(key): tensor.shape[1:] for key, tensor in self.said.items()}
        return {name: keras.Input(shape, name=name) for name, shape in shapes.items()}

    def student_view(self, answered: bool) -> "keras.Model":
        """The student up to its logits and its features, each projected to as many channels as the teacher's."""
        import keras

        inputs = self.inputs(answered)
        seen = keras.Model(self.student.inputs[0], _alone(self.seen.values()))(inputs[IMAGE])
        found = dict(zip(self.keys, keras.tree.flatten(seen), strict=True))
        for key in self.keys[1:]:
            channels = self.said[key].shape[-1]
            if found[key].shape[-1] != channels:  # a dense layer over the last axis is a 1×1 convolution
                found[key] = keras.layers.Dense(channels, name=f"{key}_projection")(found[key])
        return keras.Model(inputs, _alone(found.values()))

    def teacher_view(self, answered: bool) -> "keras.Model":
        """The teacher up to the same, or, where it has answered already, what it said."""
        import keras

        inputs = self.inputs(answered)
        if not answered:
            return keras.Model(inputs, self.asked(self.keys, own_size=False)(inputs[IMAGE]))
        return keras.Model(inputs, _alone(keras.layers.Identity()(inputs[_told(key)]) for key in self.keys))

    def asked(self, keys: Sequence[str], own_size: bool) -> "keras.Model":
        """The teacher up to some of what it says, on pictures of its own size or of the student's."""
        import keras

        model = keras.Model(self.teacher.inputs[0], _alone(self.said[key] for key in keys))
        if own_size or self.same_size:
            return model
        image = keras.Input(self.student.input_shape[1:], name=IMAGE)
        # Not the layer Resizing: called without `training`, it lets all layers behind it train (Keras 3.15.1).
        return keras.Model(image, model(keras.ops.image.resize(image, self.teacher.input_shape[1:3])))

    def arranged(self, images: Any, truth: Any, *answers: Any) -> tuple[dict[str, Any], Any]:
        """A batch as `Distiller` takes it: the inputs by name, and the labels once for each output."""
        known = {_told(key): answer for key, answer in zip(self.keys, answers, strict=False)}
        return {IMAGE: images, **known}, _alone([truth] * len(self.keys))


def _told(key: str) -> str:
    return f"teacher_{key}"


def _pair(student: "keras.Model", teacher: "keras.Model", settings: DistillSettings) -> _Pair:
    """Both of them laid open; `student` is the copy that will learn.

    Raises:
        SettingError: a model that ends otherwise, an endpoint that is not there, outputs that cannot be compared.
    """
    teacher = _sized(teacher, student)
    seen, said = {LOGITS: logits(student, "student")}, {LOGITS: logits(teacher, "teacher", linear=True)}
    features = []
    for number, (ours, theirs) in enumerate(settings.endpoints):
        key = f"feature_{number}"
        seen[key], tensor = _endpoint(student, "student", ours), _endpoint(teacher, "teacher", theirs)
        said[key] = _of_one_size(tensor, seen[key], (ours, theirs), settings.resize)
        features.append(f"{ours} {_shape(seen[key])} like {theirs} {_shape(tensor)}")
    return _Pair(student, teacher, seen, said, tuple(features))


def _sized(teacher: "keras.Model", student: "keras.Model") -> "keras.Model":
    """A teacher that takes pictures of any size takes the student's."""
    import keras

    if None not in teacher.input_shape[1:]:
        return teacher
    both = zip(teacher.input_shape[1:], student.input_shape[1:], strict=True)
    image = keras.Input([own or other for own, other in both], name=IMAGE)
    return flat(keras.Model(image, teacher(image)))


def _endpoint(model: "keras.Model", who: str, name: str) -> Any:
    known = {layer.name: layer for layer in model.layers}
    if name not in known:
        near = ", ".join(get_close_matches(name, known, cutoff=0.0))
        raise SettingError(f"the {who} {model.name} has no layer {name!r}; the nearest names: {near}")
    return known[name].output


def _of_one_size(theirs: Any, ours: Any, names: tuple[str, str], resize: bool) -> Any:
    """The teacher's feature in the student's size, whatever its channels."""
    import keras

    if len(theirs.shape) == len(ours.shape) and theirs.shape[1:-1] == ours.shape[1:-1]:
        return theirs
    what = f"{names[0]} gives {_shape(ours)}, the teacher's {names[1]} {_shape(theirs)}"
    if not len(theirs.shape) == len(ours.shape) == 4:
        raise SettingError(f"{what}; wanted two maps, or two vectors")
    if not resize:
        raise SettingError(f"{what}; wanted maps of one size: name other endpoints, or allow it with resize")
    return keras.ops.image.resize(theirs, ours.shape[1:3], antialias=True)


def _shape(tensor: Any) -> str:
    return "×".join(map(str, tensor.shape[1:]))


# -------------------------------------------------------------------------------------------- what the teacher says


def _answers(
    pair: _Pair, dataset: Dataset, pixels: Pixels, val_set: tuple[Pixels, Labels], how: TrainSettings
) -> tuple[Answers | None, dict[str, Any]]:
    """What the teacher says of all of train, where pictures stay as they are and there is room for it; and, for the
    step, how it is asked and how much of val it gets right.

    Raises:
        SettingError: that is no more than the commonest class would get.
    """
    reason = "augmentation" if how.augment else _no_room(pair, len(pixels))
    once = reason is None
    side = "×".join(map(str, pair.teacher.input_shape[1:3]))
    shown = "the student's" if pair.same_size else f"decoded at {side}" if once else f"the student's, resized to {side}"
    if once and not pair.same_size:
        cache = load_pixels((*dataset.part("train"), *dataset.part("val")), *pair.teacher.input_shape[1:3])
        pixels, val_pixels = (cache.take(dataset.part(part)) for part in ("train", "val"))
        val_set = val_pixels, val_set[1]
    told = {
        "teacher_pictures": shown,
        "teacher_asked": "once a picture" if reason is None else f"in each step: {reason}",
        "teacher_accuracy_val": _accuracy(pair, once, val_set, how.batch_size),
    }
    return (_ask(pair, pair.keys, True, pixels, how.batch_size) if once else None), told


def _no_room(pair: _Pair, count: int) -> str | None:
    """Why the answers for so many pictures are not kept; `None` where they can be."""
    size = 4 * count * sum(math.prod(tensor.shape[1:]) for tensor in pair.said.values())
    if size <= MEMORY_SHARE * (this_device().memory_bytes or 2**32):
        return None
    return f"{size / 1e9:.1f} GB of answers, over a quarter of the memory"


def _ask(pair: _Pair, keys: Sequence[str], own_size: bool, pixels: Pixels, batch_size: int) -> Answers:
    """What the teacher says of pictures of its own size or of the student's, for some of the keys."""
    import keras

    model = pair.asked(keys, own_size)
    found = {key: np.empty((len(pixels), *pair.said[key].shape[1:]), np.float32) for key in keys}
    starts = range(0, len(pixels), batch_size)
    for start in track(starts, "asking the teacher", len(starts)):
        outputs = model.predict_on_batch(pixels[start : start + batch_size].astype(np.float32))
        for array, output in zip(found.values(), keras.tree.flatten(outputs), strict=True):
            array[start : start + batch_size] = output
    return found


def _accuracy(pair: _Pair, own_size: bool, val_set: tuple[Pixels, Labels], batch_size: int) -> float:
    """The share of val that the teacher gets right, which must be more than the commonest class would get."""
    pixels, truth = val_set
    logits = _ask(pair, [LOGITS], own_size, pixels, batch_size)[LOGITS]
    right = float(np.mean(np.argmax(logits, -1) == truth))
    commonest = Counter(truth.tolist()).most_common(1)[0][1] / len(truth)
    if right <= commonest:
        raise SettingError(
            f"the teacher {pair.teacher.name} gets {100 * right:.1f} % of val right, its commonest class alone would "
            f"get {100 * commonest:.1f}; wanted a trained one of the same classes in the same order, for RGB 0–255"
        )
    return right


def _check_classes(student: "keras.Model", teacher: "keras.Model", dataset: Dataset, settings: DistillSettings) -> None:
    for who, model in (("student", student), ("teacher", teacher)):
        functional(model)  # raises where there is no graph
        found = model.outputs[0].shape[-1]
        if found != len(dataset.classes):
            raise SettingError(
                f"the {who} {model.name} tells {found} classes apart, {display(dataset.root)} has "
                f"{len(dataset.classes)}; wanted the same classes in the same order"
            )
    if student.inputs[0].shape[-1] != teacher.inputs[0].shape[-1]:
        channels = student.inputs[0].shape[-1], teacher.inputs[0].shape[-1]
        raise SettingError(f"the student takes {channels[0]} channels, the teacher {channels[1]}; wanted the same")
    for number, (theirs, ours) in enumerate(zip_longest(settings.teacher_classes or dataset.classes, dataset.classes)):
        if theirs != ours:
            raise SettingError(
                f"class {number} of the teacher is {theirs!r}, of the data {ours!r}; wanted the same classes in the "
                "same order"
            )
