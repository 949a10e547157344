"""Training a segmenter: `keras.Model` × `Dataset` with masks → a trained one.

    model, step = train_segmenter(segmenter(shape, classes, "imagenet"), dataset, SegmentSettings(), False)

As `train`, whose epochs, optimizer and state these are: epochs are functions of the seed and their number, a run that
was killed goes on where it was. What is its own: the loss of the pixels, pictures that change together with their
masks, a first phase in which the trunk stays as it is, and that the best epoch is that of the greatest mean IoU on val,
of a moving average of the weights where there is one.

The first phase has an optimizer of its own, over the decoder's weights alone: its steps leave nothing behind in the
second one's, whose rate rises and falls as if the run began there.

Imports artifact, data, errors, models, train, training_state and its neighbours; keras where it is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featherweight.artifact import Step
from featherweight.data import Dataset, PixelCache
from featherweight.errors import SettingError
from featherweight.models.copying import copy_weights
from featherweight.models.ends import logits
from featherweight.models.functional import picture_size
from featherweight.models.segmenters import ENDS, PREFIX
from featherweight.segment.distil import Distillation, losses_of, pair_of
from featherweight.segment.losses import Weights, loss_of, weights_of
from featherweight.segment.scores import classes_of, confusion, mean_iou
from featherweight.segment.settings import SegmentSettings
from featherweight.segment.stream import MaskStream, pictures_of
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


def train_segmenter(
    model: "keras.Model",
    dataset: Dataset,
    settings: SegmentSettings,
    pretrained: bool,
    cache: PixelCache | None = None,
    checkpoint: Path | None = None,
    distillation: Distillation | None = None,
) -> tuple["keras.Model", Step]:
    """Train a copy of a segmenter.

    Args:
        model: takes RGB 0–255 (n, h, w, 3) of a fixed size and ends in a softmax (n, h, w, classes) or, for two
            classes, a sigmoid (n, h, w, 1); unchanged.
        dataset: with masks and the parts train and val.
        settings: how.
        pretrained: whether it knows these classes already: then the start counts as an epoch that may be the best one.
        cache: the pixels of train and val at the model's size by the settings' rule, where they were decoded already.
        checkpoint: a file for the state after each epoch, as `train`'s.
        distillation: a teacher, where there is one.

    Returns:
        The trained model with the weights of its best epoch on val, and what was done for the lineage. Its
        `mean_iou_val` is of pictures as the network saw them, without a file.

    Raises:
        SettingError: no segmenter, or one for another number of classes; class weights of another number; a teacher
            of other answers; nothing but trunk; a checkpoint of another run.
        DataError: pictures without masks.
        OutputError: the checkpoint cannot be written.
    """
    how = settings.train
    set_seed(how.seed)
    check(model, len(dataset.classes))
    size = picture_size(model)
    teachers = () if distillation is None else (distillation.teacher,)
    run = {"segment": asdict(settings), "pretrained": pretrained}
    if distillation is not None:
        run["distillation"] = distillation.as_dict()
    file = state_file(checkpoint, run, dataset, model, *teachers)
    state = None if file is None else file.read()
    pictures, val = (
        pictures_of(dataset.part(part), size, settings.resize or "stretch", cache) for part in ("train", "val")
    )
    weights = weights_of(settings, pictures.masks, len(dataset.classes))
    stream = MaskStream(pictures, settings, size, shuffle=True, epoch=0 if state is None else state.epochs)
    learner = _learner(model, len(dataset.classes), settings, weights, stream.cardinality(), distillation)
    val_stream = MaskStream(val, settings, size, shuffle=False, epoch=0)
    state = learner.begin(val_stream, pretrained, {}) if state is None else learner.restore(state)
    with zeros_kept(learner.student, how.keep_zeros) as zeros:
        state = fit_epochs(learner, state, stream, val_stream, how, file)
    done = {
        **asdict(settings),
        "distillation": None if distillation is None else distillation.as_dict(),
        "weights_of_classes": None if weights is None else [round(float(one), 4) for one in weights],
        "batch_norm": "trunk frozen" if how.freeze_batch_norm else "trained",
        "zeros_kept": zeros,
        "learning_rate": learning_rate(how, learner.student),
        **results(learner, state),
    }
    return learner.judged, Step("train_segmenter", done)


def check(model: "keras.Model", classes: int) -> None:
    """See that a model answers for each pixel, for so many classes.

    Raises:
        SettingError: it does not.
    """
    known = count_of(model)
    if classes != known:
        raise SettingError(f"{model.name} tells {known} classes apart and the data has {classes}; wanted the same")


def count_of(model: "keras.Model") -> int:
    """How many classes a segmenter tells apart.

    Raises:
        SettingError: it is none.
    """
    outputs = model.outputs or []
    size = picture_size(model)
    if len(outputs) != 1 or len(outputs[0].shape) != 4 or tuple(outputs[0].shape[1:3]) != size:
        shapes = ", ".join(str(tuple(one.shape)) for one in outputs)
        raise SettingError(f"{model.name} gives {shapes} of pictures {size}; wanted one map of probabilities that size")
    logits(model, "model", sigmoid=True)  # raises where it ends otherwise
    return max(2, int(outputs[0].shape[-1]))


def trunk_layers(model: "keras.Model") -> frozenset[str]:
    """The names of a segmenter's layers before its decoder: of one that was built here all that is not named as such,
    of another one what makes its coarsest map.
    """
    names = [layer.name for layer in model.layers]
    if any(name.startswith(PREFIX) for name in names):
        return frozenset(name for name in names if not name.startswith(PREFIX) and name not in ENDS)
    return _before_coarsest(model)


def _before_coarsest(model: "keras.Model") -> frozenset[str]:
    from featherweight.models.functional import functional, nodes

    calls = list(nodes(functional(model)))
    maps = [(node, out) for node in calls for out in node.outputs if len(out.shape) == 4 and out.shape[1] > 1]
    coarsest = min(out.shape[1] for _, out in maps)
    makers = {id(out): node for node in calls for out in node.outputs}
    todo = [next(node for node, out in reversed(maps) if out.shape[1] == coarsest)]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if node.operation.name not in found:
            found.add(node.operation.name)
            todo += [makers[id(one)] for one in node.arguments.keras_tensors if id(one) in makers]
    return frozenset(found)


# ------------------------------------------------------------------------------------------------------- who learns


@dataclass(frozen=True)
class _Segmenter(Learner):
    """`trained` learns, and within it `student`; `judged` is a copy, with the average's weights. `fitted` and `first`,
    of the phase in which the trunk stays, are views of `trained`.
    """

    student: Any  # keras.Model; `trained` has what a teacher needs besides
    first: Any  # keras.Model or None
    trunk: tuple[Any, ...]  # the student's layers that learn in the second phase only
    answers: Any  # keras.Model: picture → logits of `judged`
    loss: Loss
    classes: int
    settings: SegmentSettings
    score: ClassVar[str] = "mean_iou"

    @property
    def variables(self) -> list[Any]:
        """Of both phases."""
        return [*super().variables, *(() if self.first is None else self.first.optimizer.variables)]

    def learn(self, stream: Any, callback: Any) -> None:
        """One epoch; then `judged` gets the weights, or their average."""
        alone = self.first is not None and stream.epoch < self.settings.train.head_epochs
        view = self.first if alone else self.fitted
        # Keras asks what learns when it traces a view's step, which is in the view's first epoch.
        for layer in self.trunk:
            layer.trainable = not alone
        weights = view.trainable_variables
        # With an axis more: where the truth has one less, Keras takes away that of a single channel.
        batches = stream.next_epoch().map(lambda images, truth: (images, truth[..., None]))
        kept = one_epoch(view, batches, weights, callback)
        for layer in self.trunk:
            layer.trainable = True
        self.judged.set_weights(self.student.get_weights())
        if not alone and self.settings.average:
            for weight, array in zip(weights, kept, strict=True):
                weight.assign(array)

    def judge(self, stream: Any) -> tuple[float, float]:
        """Loss and mean IoU on val, of one confusion matrix over all of its pixels."""
        losses, sizes, counts = [], [], np.zeros((self.classes, self.classes), np.int64)
        for images, truth in stream.next_epoch():
            answers = self.answers.predict_on_batch(images)
            losses.append(float(self.loss(truth, answers)))
            sizes.append(len(answers))
            counts += confusion(truth.numpy(), classes_of(answers, 0.0), self.classes)
        return float(np.average(losses, weights=sizes)), mean_iou(counts)

    def best(self, history: Sequence[tuple[float, float]]) -> int:
        """The greatest mean IoU; of equal ones the least loss."""
        return max(range(len(history)), key=lambda i: (history[i][1], -np.nan_to_num(history[i][0], nan=np.inf), -i))

    def told(self, judged: tuple[float, float]) -> str:
        """A judgement in words."""
        return f"loss {judged[0]:.3f}, mean IoU {100 * judged[1]:.1f} % on val"


def _learner(
    model: "keras.Model",
    classes: int,
    settings: SegmentSettings,
    weights: Weights | None,
    steps: int,
    distillation: Distillation | None,
) -> _Segmenter:
    import keras
    import tensorflow as tf

    how = settings.train
    trunk = trunk_layers(model) if how.head_epochs or how.freeze_batch_norm else frozenset()
    student, judged = _copy(model, trunk if how.freeze_batch_norm else frozenset()), _copy(model, frozenset())
    own = loss_of(settings, weights)
    seen: tuple[Any, Any] = (student.inputs[0], logits(student, "model", sigmoid=True))
    losses: Any = own
    trained = student
    if distillation is not None:
        trained = pair_of(student, distillation)
        seen = trained.inputs[0], trained.outputs
        several = losses_of(own, distillation)
        losses = several if len(several) > 1 else several[0]

    def view(rate_of: Callable[[Any], Any]) -> Any:
        made = keras.Model(*seen)
        # Of the view's own weights: Keras puts averages in their place by order.
        made.compile(rate_of(made), losses, jit_compile=False)  # XLA on the CPU is seven times slower
        return made

    frozen = tuple(layer for layer in student.layers if layer.name in trunk and layer.trainable)
    first = view(lambda made: _first_rate(how, made, frozen)) if how.head_epochs else None
    left = max(1, how.epochs - how.head_epochs)
    # Over no more than a tenth of the run: it would be mostly of the first weights else.
    average = min(settings.average, max(0.0, 1 - 10 / (left * steps)))
    return _Segmenter(
        fitted=view(lambda made: optimizer(replace(how, epochs=left), made, steps, average)),
        trained=trained,
        judged=judged,
        student=student,
        first=first,
        trunk=frozen,
        answers=keras.Model(judged.inputs[0], logits(judged, "model", sigmoid=True)),
        loss=tf.function(own, reduce_retracing=True, autograph=False),
        classes=classes,
        settings=settings if average else replace(settings, average=0.0),
    )


def _first_rate(how: TrainSettings, view: "keras.Model", trunk: Sequence[Any]) -> Any:
    """The optimizer of all but the trunk.

    Raises:
        SettingError: nothing else is there.
    """
    import keras

    for layer in trunk:
        layer.trainable = False
    weights = view.trainable_variables
    for layer in trunk:
        layer.trainable = True
    if not weights:
        raise SettingError(f"{view.name} has no layer behind its trunk; leave its own phase out: head_epochs=0")
    made = keras.optimizers.Adam(how.head_learning_rate)
    made.build(weights)
    return made


def _copy(model: "keras.Model", frozen: frozenset[str]) -> "keras.Model":
    """A copy, whose batch norms in these layers are frozen; all others learn."""
    import keras

    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    set_batch_norm(copy, False)
    for layer in copy.layers:
        if layer.name in frozen and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return copy


__all__ = ["Distillation", "SegmentSettings", "check", "count_of", "train_segmenter", "trunk_layers"]
