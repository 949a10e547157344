"""Detection in the training world. Imports data, detect, errors, models, prune, quantize and train."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.artifact import Artifact, Step
from featherweight.data import Dataset, Item, PixelCache, load_pixels, targets
from featherweight.detect.distil import Distillation
from featherweight.detect.losses import loss_of
from featherweight.detect.settings import DetectSettings
from featherweight.detect.stream import padded, truth_of
from featherweight.detect.train import anchors_for, boxes_of, train_detector
from featherweight.errors import SettingError
from featherweight.image import Pixels
from featherweight.models.detectors import detector, detector_size, with_classes
from featherweight.models.zoo import Shape
from featherweight.prune import Pictures
from featherweight.quantize.agreement import answers
from featherweight.quantize.sensitivity import Score
from featherweight.tasks import task_of
from featherweight.training import LADDER, check_kind, rule_of

if TYPE_CHECKING:
    import keras

SIZES = (96, 128, 160, 192, 256, 320)  # of whole cells at stride 32
TRAINED_BY = ("stretch", "bilinear")  # boxes are moved as pictures that fill the input


def _taught() -> DetectSettings:
    start = DetectSettings()
    return replace(start, train=replace(start.train, epochs=40, patience=15, learning_rate=1e-3))


@dataclass(frozen=True)
class TaughtSettings:
    """How a detector learns from another of the same rows: as `Distillation` has it, and how it is trained."""

    detect: DetectSettings = field(default_factory=_taught)
    alpha: float = 0.5
    temperature: float = 4.0
    endpoints: tuple[tuple[str, str], ...] = ()
    feature_weight: float = 1.0


class Detect:
    """Models that end in `models.heads.Predictions`."""

    name = "detect"
    qualities: tuple[str, ...] = ("accuracy", "ap50", "ap75")
    ladder = LADDER

    def __init__(self, resize: str | None = None):
        self.resize = resize

    def sizes(self, dataset: Dataset) -> tuple[int, ...]:
        """The largest that the pictures fill, and one less; small objects want many pixels."""
        fitting = [size for size in SIZES if size <= max(SIZES[0], 1.3 * dataset.median_side)]
        return tuple(fitting[-2:])

    def rule(self, model: "keras.Model", dataset: Dataset) -> str:
        """The model's, whatever the pictures are."""
        return self.resize or rule_of(model)

    def build(self, shape: Shape, classes: Sequence[str], weights: str | None = None) -> tuple["keras.Model", bool]:
        """The anchor-free head on a trunk: it finds nothing yet, whatever its trunk knows."""
        return detector(shape, classes, weights=weights), False

    def started(self, model: "keras.Model", dataset: Dataset, seed: int) -> tuple["keras.Model", bool]:
        """As it is where its classes are named as the data's; else for these, with anchors fitted to their boxes.

        Raises:
            SettingError: no detector, or one that cannot be for other classes.
        """
        from featherweight.models.heads import classes_of_model, decoding_of_model

        detector_size(model)
        if classes_of_model(model) == dataset.classes:
            self.check(model, dataset)
            return model, True
        decoding = decoding_of_model(model)
        anchored = decoding is not None and any(scale.anchors for scale in decoding.scales)
        anchors = anchors_for(model, dataset.part("train"), seed) if anchored else None
        return with_classes(model, dataset.classes, anchors, seed), False

    def check(self, model: "keras.Model", dataset: Dataset) -> None:
        """See that it finds the classes of the data, and that it can be trained.

        Raises:
            SettingError: it does not, or cannot.
        """
        from featherweight.models.heads import classes_of_model, decoding_of_model

        detector_size(model)
        decoding = decoding_of_model(model)
        assert decoding is not None
        names = classes_of_model(model)
        if decoding.classes != len(dataset.classes) or names not in (None, dataset.classes):
            known = f"{decoding.classes} classes" if names is None else ", ".join(names[:5])
            raise SettingError(
                f"{model.name} finds {known} and the data has {', '.join(dataset.classes[:5])}; wanted the pictures "
                "that it was trained for: train it on these first"
            )
        loss_of(decoding)  # raises where the kind is none that is trained here
        self._rule(model)

    def usual(self, pretrained: bool, knows: bool = False) -> DetectSettings:
        """Twice as many epochs from nothing."""
        start = DetectSettings()
        return start if pretrained else replace(start, train=replace(start.train, epochs=200, patience=60))

    def train(
        self,
        model: "keras.Model",
        dataset: Dataset,
        settings: Any,
        pretrained: bool,
        cache: PixelCache | None = None,
        checkpoint: Path | None = None,
    ) -> tuple["keras.Model", Step]:
        """As `train_detector`, on pictures by the model's rule."""
        check_kind(self.name, settings, DetectSettings)
        cache = cache or self._cache(model, dataset)
        return train_detector(model, dataset, settings, pretrained, cache, checkpoint)

    def usual_taught(self) -> TaughtSettings:
        """Half from the teacher, half from the true boxes."""
        return TaughtSettings()

    def distil(
        self, student: "keras.Model", teacher: "keras.Model", dataset: Dataset, settings: Any, checkpoint: Path
    ) -> tuple["keras.Model", Step]:
        """As `train_detector` with a `Distillation`."""
        check_kind(self.name, settings, TaughtSettings)
        how = Distillation(teacher, settings.alpha, settings.temperature, settings.endpoints, settings.feature_weight)
        cache = self._cache(student, dataset)
        return train_detector(student, dataset, settings.detect, True, cache, checkpoint, how)

    def pictures(self, model: "keras.Model", items: Sequence[Item], pixels: Pixels, rule: str) -> Pictures:
        """With their boxes, for the detector's own loss."""
        from featherweight.models.heads import decoding_of_model

        decoding = decoding_of_model(model)
        assert decoding is not None
        size = detector_size(model)
        truth = [truth_of(boxes_of(item), (item.height, item.width), size) for item in items]
        loss: Any = loss_of(decoding)
        return Pictures(pixels, padded(truth), loss, batch_size=16)

    def score(self, items: Sequence[Item], pixels: Pixels) -> Score:
        """AP50: the average over closer overlaps moves with every rounding of a side."""
        true, sizes = targets(items), [(item.height, item.width) for item in items]

        def score(artifact: Artifact) -> float:
            task = task_of(artifact)
            return float(task.score(task.read(answers(artifact, pixels), sizes, true), true)["ap50"])

        return score

    def told(self, value: float) -> str:
        """In percent."""
        return f"AP50:95 {100 * value:.1f} % on val"

    def _rule(self, model: "keras.Model") -> str:
        rule = self.resize or rule_of(model)
        if rule not in TRAINED_BY:
            raise SettingError(f"a detector trained with resize {rule}; wanted {' or '.join(TRAINED_BY)}")
        return rule

    def _cache(self, model: "keras.Model", dataset: Dataset) -> PixelCache:
        items = (*dataset.part("train"), *dataset.part("val"))
        return load_pixels(items, *detector_size(model), rule=self._rule(model))
