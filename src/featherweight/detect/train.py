"""Training a detector: `keras.Model` × `Dataset` with boxes → a trained one.

    model, step = train_detector(detector(shape, classes, weights="imagenet"), dataset, DetectSettings(), False)

As `train`, whose epochs, optimizer and state these are: epochs are functions of the seed and their number, a run that
was killed goes on where it was. What is its own: the loss of the rows, pictures that change together with their boxes,
and that the best epoch is that of the greatest AP50 on val, of a moving average of the weights where there is one.

The average is Keras' optimizer's own, which is among its variables and so in the state. Keras puts it in place of the
weights at the end of each `fit`, which is an epoch here; the weights are put back, so that learning goes on from them.

Imports artifact, boxes, data, errors, models, train, training_state and its neighbours; keras where it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.boxes import Boxes, Decoding
from featherweight.data import Dataset, Item, PixelCache, load_pixels
from featherweight.detect.anchors import fitted_anchors
from featherweight.detect.distil import Distillation, losses_of, pair_of
from featherweight.detect.losses import loss_of
from featherweight.detect.scores import average_precision, quick_boxes
from featherweight.detect.settings import DetectSettings
from featherweight.detect.stream import BoxStream, Pictures, truth_of
from featherweight.errors import DataError, SettingError
from featherweight.models.copying import copy_weights
from featherweight.models.detectors import PREFIX, at_size, detector_size
from featherweight.train import (
    Learner,
    TrainSettings,
    fit_epochs,
    learning_rate,
    one_epoch,
    optimizer,
    results,
    set_batch_norm,
    set_seed,
    state_file,
    zeros_kept,
)

if TYPE_CHECKING:
    import keras

Loss = Callable[[Any, Any], Any]


def train_detector(
    model: "keras.Model",
    dataset: Dataset,
    settings: DetectSettings,
    pretrained: bool,
    cache: PixelCache | None = None,
    checkpoint: Path | None = None,
    distillation: Distillation | None = None,
) -> tuple["keras.Model", Step]:
    """Train a copy of a detector.

    Args:
        model: one that ends in `Predictions`, of kind yolo or distances; unchanged. `models.detectors.with_classes`
            makes one for the data's classes of one for others.
        dataset: with boxes and the parts train and val. Pictures are stretched to the model's size.
        settings: how.
        pretrained: whether it finds these classes already: then the start counts as an epoch that may be the best one.
        cache: the pixels of train and val at the model's size, where they were decoded already.
        checkpoint: a file for the state after each epoch, as `train`'s.
        distillation: a teacher, where there is one.

    Returns:
        The trained model with the weights of its best epoch on val, and what was done for the lineage. Its `ap50_val`
        is a quick look without a file.

    Raises:
        SettingError: no detector, one of another kind or for another number of classes, sizes that its maps do not
            divide, a teacher of other rows, a checkpoint of another run.
        DataError: pictures without boxes known for them.
        OutputError: the checkpoint cannot be written.
    """
    how = settings.train
    set_seed(how.seed)
    size = detector_size(model)
    _check(model, dataset, settings, distillation)
    teachers = () if distillation is None else (distillation.teacher,)
    run = {"detect": asdict(settings), "pretrained": pretrained}
    if distillation is not None:
        run["distillation"] = distillation.as_dict()
    file = state_file(checkpoint, run, dataset, model, *teachers)
    state = None if file is None else file.read()
    pictures, val = (_pictures(dataset.part(part), size, cache) for part in ("train", "val"))
    student = _copy(model, frozen=bool(how.freeze_batch_norm))
    stream = BoxStream(pictures, settings, size, shuffle=True, epoch=0 if state is None else state.epochs)
    learner = _learner(model, student, settings, stream.cardinality(), distillation)
    val_stream = BoxStream(val, settings, size, shuffle=False, epoch=0)
    state = learner.begin(val_stream, pretrained, {}) if state is None else learner.restore(state)
    with zeros_kept(student, how.keep_zeros) as zeros:
        state = fit_epochs(learner, state, stream, val_stream, how, file)
    done = {
        **asdict(settings),
        "distillation": None if distillation is None else distillation.as_dict(),
        "batch_norm": "trunk frozen" if how.freeze_batch_norm else "trained",
        "zeros_kept": zeros,
        "learning_rate": learning_rate(how, student),
        **results(learner, state),
    }
    return learner.judged, Step("train_detector", done)


def boxes_of(item: Item) -> Boxes:
    """The true boxes of a picture.

    Raises:
        DataError: none are known for it.
    """
    boxes = item.boxes
    if not isinstance(boxes, Boxes):
        raise DataError(f"{item.path.name} comes without boxes; wanted data for detection")
    return boxes


def anchors_for(model: "keras.Model", items: Sequence[Item], seed: int = 0) -> NDArray[np.float64]:
    """As many anchors as a detector of kind yolo has, (k, 2) in pixels of its input, fitted to the pictures' boxes.

    Raises:
        SettingError: a detector without anchors, or fewer sizes of boxes than anchors.
        DataError: pictures without boxes known for them.
    """
    from featherweight.models.heads import decoding_of_model

    size, decoding = detector_size(model), decoding_of_model(model)
    count = 0 if decoding is None else sum(len(scale.anchors) for scale in decoding.scales)
    if not count:
        raise SettingError(f"{model.name} has no anchors to fit")
    truths = [truth_of(boxes_of(item), (item.height, item.width), size) for item in items]
    corners = np.concatenate(truths)[:, :4].astype(np.float64)
    return fitted_anchors(corners[:, 2:] - corners[:, :2], count, seed)


# ------------------------------------------------------------------------------------------------------- who learns


@dataclass(frozen=True)
class _Detector(Learner):
    """`trained` learns, by the views of it for each size of picture; `judged` is a copy, with the average's weights."""

    student: Any  # keras.Model; `trained` has what a teacher needs besides
    views: Mapping[tuple[int, int], Any]
    decoding: Decoding
    loss: Loss
    average: bool
    score: ClassVar[str] = "ap50"

    def learn(self, stream: Any, callback: Any) -> None:
        """One epoch at one size; then `judged` gets the weights, or their average."""
        size, batches = stream.next_epoch()
        weights = self.trained.trainable_variables
        kept = one_epoch(self.views[size], batches, weights, callback)
        self.judged.set_weights(self.student.get_weights())
        if self.average:
            for weight, array in zip(weights, kept, strict=True):
                weight.assign(array)

    def judge(self, stream: Any) -> tuple[float, float]:
        """Loss and AP50 on val."""
        _, batches = stream.next_epoch()
        losses, counts, found = [], [], []
        for images, truth in batches:
            raw = self.judged.predict_on_batch(images)
            losses.append(float(self.loss(truth, raw)))
            counts.append(len(raw))
            found += quick_boxes(raw, self.decoding)
        score = average_precision(found, stream.pictures.truths, self.decoding.classes)
        return float(np.average(losses, weights=counts)), score

    def best(self, history: Sequence[tuple[float, float]]) -> int:
        """The greatest AP50; of equal ones the least loss."""
        return max(range(len(history)), key=lambda i: (history[i][1], -np.nan_to_num(history[i][0], nan=np.inf), -i))

    def told(self, judged: tuple[float, float]) -> str:
        """A judgement in words."""
        return f"loss {judged[0]:.3f}, AP50 {100 * judged[1]:.1f} % on val"


def _learner(
    model: "keras.Model",
    student: "keras.Model",
    settings: DetectSettings,
    steps: int,
    distillation: Distillation | None,
) -> _Detector:
    import keras
    import tensorflow as tf

    from featherweight.models.heads import decoding_of_model

    decoding = decoding_of_model(student)
    assert decoding is not None
    own = loss_of(decoding)
    base = detector_size(student)
    if distillation is None:
        # Views, so that the model stays without an optimizer.
        trained = student
        views = {base: keras.Model(student.inputs[0], student.outputs[0])}
        losses: Any = own
    else:
        trained = pair_of(student, distillation)
        views = {base: trained}
        several = losses_of(decoding, own, distillation)
        losses = several if len(several) > 1 else several[0]
    # Over no more than a tenth of the run: it would be mostly of the first weights else.
    average = min(settings.average, max(0.0, 1 - 10 / (settings.train.epochs * steps)))
    rate = optimizer(settings.train, trained, steps, average)
    views[base].compile(rate, losses, jit_compile=False)  # XLA on the CPU is seven times slower
    for side in settings.sizes:
        if (side, side) not in views:
            views[side, side] = view = at_size(student, side, side)
            other = decoding_of_model(view)
            assert other is not None
            view.compile(rate, loss_of(other), jit_compile=False)
    return _Detector(
        fitted=views[base],
        trained=trained,
        judged=_copy(model, frozen=False),
        student=student,
        views=views,
        decoding=decoding,
        loss=tf.function(own, reduce_retracing=True, autograph=False),
        average=bool(average),
    )


def _copy(model: "keras.Model", frozen: bool) -> "keras.Model":
    """A copy, whose trunk's batch norms are frozen or not; those of the head always learn."""
    import keras

    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    set_batch_norm(copy, frozen)
    for layer in copy.layers:
        if layer.name.startswith(PREFIX):
            layer.trainable = True
    return copy


def _pictures(items: Sequence[Item], size: tuple[int, int], cache: PixelCache | None) -> Pictures:
    truths = tuple(truth_of(boxes_of(item), (item.height, item.width), size) for item in items)
    return Pictures((cache or load_pixels(items, *size)).take(items), truths)


def _check(model: "keras.Model", dataset: Dataset, settings: DetectSettings, distillation: Distillation | None) -> None:
    from featherweight.models.heads import decoding_of_model

    decoding = decoding_of_model(model)
    assert decoding is not None
    if decoding.classes != len(dataset.classes):
        raise SettingError(
            f"{model.name} finds {decoding.classes} classes, the data has {len(dataset.classes)}; "
            "make it one for these: with_classes"
        )
    if distillation is not None and settings.sizes:
        raise SettingError("a teacher answers at one size; leave sizes out")


__all__ = ["DetectSettings", "Distillation", "TrainSettings", "anchors_for", "boxes_of", "train_detector"]
