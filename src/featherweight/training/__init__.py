"""What differs by task where models are made: built, checked, trained, taught, and told of.

    world = training_of(dataset.task)
    model, knows = world.build(Shape("mobilenet_v2", 0.35, 256), dataset.classes, "imagenet")
    model, step = world.train(model, dataset, world.usual(True), knows)
    export(model, folder, "onnx", about_of(model, "mine", dataset.classes, (step,)), pictures)

`search` and `compress` go their ways by this protocol and know no task's name. `tasks/` is its like in the device
world.

classify, detect, segment   the three of them
start                       a model of the user's, as a candidate beside those of the zoo
verbs                       train and export of one model in a file

Imports artifact, boxes, data, detect, distill, errors, export, models, prune, quantize, segment, tasks and train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from featherweight.artifact import Step
from featherweight.boxes import RESIZES
from featherweight.data import Dataset, Item, PixelCache
from featherweight.errors import SettingError
from featherweight.export import About
from featherweight.image import Pixels
from featherweight.models.zoo import Shape
from featherweight.prune import Pictures
from featherweight.quantize.sensitivity import Score

if TYPE_CHECKING:
    import keras

__all__ = [
    "LADDER",
    "QUALITIES",
    "Ladder",
    "Training",
    "about_of",
    "changed",
    "check_kind",
    "names_of",
    "rule_of",
    "training_of",
]

# The quantities of a record that say how right a file is; which of them a task has is in its `qualities`.
QUALITIES = ("accuracy", "ap50", "ap75", "iou", "dice", "pixel_accuracy", "boundary_f1")
Ladder = tuple[tuple[str, float], ...]  # networks of the zoo and their widths, the lightest first
# Light nets and the widths that Keras publishes weights for.
LADDER: Ladder = (
    ("mobilenet_v1", 0.25),
    ("mobilenet_v3_small", 0.75),
    ("mobilenet_v2", 0.35),
    ("mobilenet_v1", 0.5),
    ("mobilenet_v2", 0.75),
)
SETTINGS = ("train", "detect", "segment")  # fields that hold settings themselves


class Training(Protocol):
    """One task in the training world. Models take RGB 0–255 (n, h, w, 3) of a fixed size."""

    name: str
    qualities: tuple[str, ...]  # what a budget may ask of how right a file is
    resize: str | None  # what was asked for instead of the usual rule
    ladder: Ladder  # what a search tries when it is told nothing

    def sizes(self, dataset: Dataset) -> tuple[int, ...]:
        """Two input sizes, or one, that suit the pictures: sides of a square in pixels."""
        ...

    def rule(self, model: "keras.Model", dataset: Dataset) -> str:
        """How these pictures become the model's input, one of `boxes.RESIZES`: as was asked, or as is usual."""
        ...

    def build(self, shape: Shape, classes: Sequence[str], weights: str | None = None) -> tuple["keras.Model", bool]:
        """A network of the zoo for these classes, and whether `train` is to take it for pretrained.

        Raises:
            SettingError: a shape that cannot be.
            WeightsError: as `build_pretrained`.
        """
        ...

    def started(self, model: "keras.Model", dataset: Dataset, seed: int) -> tuple["keras.Model", bool]:
        """A model of the user's made one for this data, and whether it knows the classes already.

        Raises:
            SettingError: a model of another task, or one that cannot be.
        """
        ...

    def check(self, model: "keras.Model", dataset: Dataset) -> None:
        """See that the model answers for the classes of the data.

        Raises:
            SettingError: another task, other classes, or an end that cannot be trained on.
        """
        ...

    def usual(self, pretrained: bool, knows: bool = False) -> Any:
        """The usual settings of `train`, of weights that are pretrained or not, and may know the classes."""
        ...

    def train(
        self,
        model: "keras.Model",
        dataset: Dataset,
        settings: Any,
        pretrained: bool,
        cache: PixelCache | None = None,
        checkpoint: Path | None = None,
    ) -> tuple["keras.Model", Step]:
        """A trained copy, as `train.train`, `detect.train.train_detector` and `segment.train.train_segmenter` say.

        Raises:
            SettingError: settings of another task, and as those say.
        """
        ...

    def usual_taught(self) -> Any:
        """The usual settings of `distil`, for a model that lost channels and learns from what it was."""
        ...

    def distil(
        self, student: "keras.Model", teacher: "keras.Model", dataset: Dataset, settings: Any, checkpoint: Path
    ) -> tuple["keras.Model", Step]:
        """A copy of the student, pretrained, that learnt from the teacher.

        Raises:
            SettingError: settings of another task, and as those of the task say.
        """
        ...

    def pictures(self, model: "keras.Model", items: Sequence[Item], pixels: Pixels, rule: str) -> Pictures:
        """Items with their pixels (n, h, w, 3) by that rule, as a criterion of pruning learns from them."""
        ...

    def score(self, items: Sequence[Item], pixels: Pixels) -> Score:
        """By what int8 is held against float32, 0–1: a function of an artifact."""
        ...

    def told(self, value: float) -> str:
        """An accuracy of a record on val, in words: `97.9 % right on val`."""
        ...


def training_of(task: str, resize: str | None = None) -> Training:
    """The training world of a task.

    Args:
        task: as `Dataset.task`.
        resize: how pictures become inputs, one of `boxes.RESIZES`; by default as the world's `rule` says.

    Raises:
        SettingError: an unknown task or rule.
    """
    from featherweight.training.classify import Classify
    from featherweight.training.detect import Detect
    from featherweight.training.segment import Segment

    known: dict[str, Callable[[str | None], Training]] = {world.name: world for world in (Classify, Detect, Segment)}
    if task not in known:
        raise SettingError(f"unknown task {task!r}; known: {', '.join(known)}")
    if resize is not None and resize not in RESIZES:
        raise SettingError(f"unknown resize {resize!r}; known: {', '.join(RESIZES)}")
    return known[task](resize)


def rule_of(model: "keras.Model") -> str:
    """How a model's pictures become its input, where nobody says: a detector with anchors is Darknet's or was trained
    on from one, and Darknet's saw pictures by bilinear sampling alone; all others are stretched.
    """
    from featherweight.models.heads import decoding_of_model

    decoding = decoding_of_model(model)
    return "stretch" if decoding is None or decoding.kind == "distances" else "bilinear"


def names_of(model: "keras.Model") -> tuple[str, ...]:
    """The names of a model's classes: those in it, else class 0, class 1 …

    Raises:
        SettingError: it has several outputs.
    """
    from featherweight.models.heads import classes_of_model, count_of_model

    if len(model.outputs) != 1:
        raise SettingError(f"{model.name} gives {len(model.outputs)} answers; wanted one")
    return classes_of_model(model) or tuple(f"class {number}" for number in range(count_of_model(model)))


def about_of(
    model: "keras.Model", name: str, classes: Sequence[str], steps: Sequence[Step], resize: str | None = None
) -> About:
    """What the manifest of a model's files says: its task, and what a detector's numbers mean, are in the model.

    Args:
        model: to be exported.
        name: of the file.
        classes: their names, in the order of the outputs.
        steps: the lineage.
        resize: by default `rule_of`.
    """
    from featherweight.models.heads import decoding_of_model, task_of_model

    rule, decoding = resize or rule_of(model), decoding_of_model(model)
    return About(name, tuple(classes), tuple(steps), task_of_model(model), rule, decoding)


def check_kind(task: str, settings: Any, wanted: type) -> None:
    """See that settings are those of the task.

    Raises:
        SettingError: they are of another one.
    """
    if not isinstance(settings, wanted):
        raise SettingError(f"{type(settings).__name__} for the task {task}; wanted {wanted.__name__}")


def changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Settings with other values: of their own fields, or of those of the settings that they hold.

    Raises:
        SettingError: no such setting, or a value that cannot be.
    """
    if not changes:
        return settings
    own = {field.name for field in fields(settings)}
    mine = {name: value for name, value in changes.items() if name in own}
    rest = {name: value for name, value in changes.items() if name not in own}
    inside = next((name for name in SETTINGS if name in own and is_dataclass(getattr(settings, name))), None)
    if rest and inside is None:
        raise SettingError(f"unknown setting {next(iter(rest))!r}; known: {', '.join(sorted(own))}")
    if rest and inside is not None:
        mine[inside] = changed(mine.get(inside, getattr(settings, inside)), rest)
    return replace(settings, **mine)
