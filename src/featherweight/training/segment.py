"""Segmentation in the training world. Imports artifact, data, errors, models, prune, quantize and segment."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.artifact import Artifact, Step
from featherweight.data import Dataset, Item, PixelCache, load_masks
from featherweight.errors import SettingError
from featherweight.image import Pixels
from featherweight.models.functional import picture_size
from featherweight.models.zoo import Shape
from featherweight.prune import Pictures
from featherweight.quantize.agreement import answers
from featherweight.quantize.sensitivity import Score
from featherweight.segment.classes import with_classes
from featherweight.segment.distil import Distillation
from featherweight.segment.losses import loss_of, of_probabilities
from featherweight.segment.scores import classes_of, confusion, mean_iou
from featherweight.segment.settings import SegmentSettings
from featherweight.segment.stream import TILE
from featherweight.segment.train import check, count_of, train_segmenter
from featherweight.training import Ladder, check_kind, rule_of

if TYPE_CHECKING:
    import keras

SIZES = (96, 128, 160, 192, 224, 256, 320, 384, 512)  # of whole cells at stride 32
# Pictures whose shorter side is more than so many times the input's are cut, not shrunk: what is small in them would
# be gone.
SHRUNK_AT_MOST = 2
LADDER: Ladder = (
    ("mobilenet_v1", 0.25),
    ("lraspp", 0.75),
    ("unet_light", 0.35),
    ("mobilenet_v1", 0.5),
    ("mobilenet_v2", 0.75),
)
AT_ONCE = 16  # pictures whose answers are held at a time: they are larger than the pictures


def _taught() -> SegmentSettings:
    start = SegmentSettings()
    return replace(start, train=replace(start.train, epochs=30, patience=12, learning_rate=1e-3))


@dataclass(frozen=True)
class TaughtSettings:
    """How a segmenter learns from another of the same answers: as `Distillation` has it, and how it is trained."""

    segment: SegmentSettings = field(default_factory=_taught)
    alpha: float = 0.5
    temperature: float = 2.0
    endpoints: tuple[tuple[str, str], ...] = ()
    feature_weight: float = 1.0


class Segment:
    """Models that end in a map of probabilities: a softmax, or for two classes a sigmoid."""

    name = "segment"
    qualities: tuple[str, ...] = ("accuracy", "iou", "dice", "pixel_accuracy", "boundary_f1")
    ladder = LADDER

    def __init__(self, resize: str | None = None):
        self.resize = resize

    def sizes(self, dataset: Dataset) -> tuple[int, ...]:
        """The largest that the pictures fill, and one less."""
        fitting = [size for size in SIZES if size <= max(SIZES[0], dataset.median_side)]
        return tuple(fitting[-2:])

    def rule(self, model: "keras.Model", dataset: Dataset) -> str:
        """Where nobody says: pictures of more than twice the input's side are cut into tiles."""
        usual = TILE if dataset.median_side > SHRUNK_AT_MOST * min(picture_size(model)) else rule_of(model)
        return self.resize or usual

    def build(self, shape: Shape, classes: Sequence[str], weights: str | None = None) -> tuple["keras.Model", bool]:
        """As `models.segmenters.segmenter`: it tells nothing apart yet, whatever its trunk knows."""
        from featherweight.models.segmenters import segmenter

        return segmenter(shape, len(classes), weights), False

    def started(self, model: "keras.Model", dataset: Dataset, seed: int) -> tuple["keras.Model", bool]:
        """As it is where it tells as many classes apart: nothing in it names them. Else with a new end for these.

        Raises:
            SettingError: no segmenter, or one whose end cannot be another.
        """
        if count_of(model) == len(dataset.classes):
            return model, True
        return with_classes(model, len(dataset.classes)), False

    def check(self, model: "keras.Model", dataset: Dataset) -> None:
        """See that it answers for each pixel, and for as many classes.

        Raises:
            SettingError: it does not.
        """
        check(model, len(dataset.classes))

    def usual(self, pretrained: bool, knows: bool = False) -> SegmentSettings:
        """A decoder that is new on a pretrained trunk learns first; twice as many epochs from nothing."""
        start = SegmentSettings()
        if knows:
            return start
        if pretrained:
            return replace(start, train=replace(start.train, head_epochs=4))
        return replace(start, train=replace(start.train, epochs=120, patience=40))

    def train(
        self,
        model: "keras.Model",
        dataset: Dataset,
        settings: Any,
        pretrained: bool,
        cache: PixelCache | None = None,
        checkpoint: Path | None = None,
    ) -> tuple["keras.Model", Step]:
        """As `train_segmenter`, on pictures by `rule`."""
        check_kind(self.name, settings, SegmentSettings)
        how = self._by_rule(settings, model, dataset)
        return train_segmenter(model, dataset, how, pretrained, cache, checkpoint)

    def usual_taught(self) -> TaughtSettings:
        """Half from the teacher, half from the true masks."""
        return TaughtSettings()

    def distil(
        self, student: "keras.Model", teacher: "keras.Model", dataset: Dataset, settings: Any, checkpoint: Path
    ) -> tuple["keras.Model", Step]:
        """As `train_segmenter` with a `Distillation`."""
        check_kind(self.name, settings, TaughtSettings)
        how = Distillation(teacher, settings.alpha, settings.temperature, settings.endpoints, settings.feature_weight)
        settings = self._by_rule(settings.segment, student, dataset)
        return train_segmenter(student, dataset, settings, True, None, checkpoint, how)

    def pictures(self, model: "keras.Model", items: Sequence[Item], pixels: Pixels, rule: str) -> Pictures:
        """With their masks, for the usual loss."""
        loss: Any = of_probabilities(loss_of(SegmentSettings()))
        masks = load_masks(items, *picture_size(model), rule)
        return Pictures(pixels, masks, loss, batch_size=8)

    def score(self, items: Sequence[Item], pixels: Pixels) -> Score:
        """Mean IoU over the pixels of the input; of a tile, those of the pictures' middles."""

        def score(artifact: Artifact) -> float:
            classes = len(artifact.classes or ())
            masks = load_masks(items, pixels.shape[1], pixels.shape[2], artifact.resize or "stretch")
            counts = np.zeros((classes, classes), np.int64)
            for start in range(0, len(pixels), AT_ONCE):
                rows = slice(start, start + AT_ONCE)
                counts += confusion(masks[rows], classes_of(answers(artifact, pixels[rows])), classes)
            return mean_iou(counts)

        return score

    def told(self, value: float) -> str:
        """In percent."""
        return f"mean IoU {100 * value:.1f} % on val"

    def _by_rule(self, settings: SegmentSettings, model: "keras.Model", dataset: Dataset) -> SegmentSettings:
        rule = self.rule(model, dataset)
        if settings.resize not in (None, rule):
            raise SettingError(f"resize {settings.resize} in the settings beside {rule}; name it once, as resize")
        return replace(settings, resize=rule)
