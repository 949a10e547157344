"""Classification in the training world. Imports data, distill, errors, models, prune, quantize and train."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.artifact import Step
from featherweight.data import Dataset, Item, PixelCache, labels, load_pixels
from featherweight.distill import DistillSettings, distill
from featherweight.errors import SettingError
from featherweight.image import Pixels
from featherweight.models.ends import logits
from featherweight.models.functional import picture_size
from featherweight.models.pretrained import build_pretrained
from featherweight.models.zoo import Shape
from featherweight.prune import Pictures
from featherweight.quantize import accuracy_on
from featherweight.quantize.sensitivity import Score
from featherweight.train import TrainSettings, train
from featherweight.training import LADDER, check_kind, rule_of

if TYPE_CHECKING:
    import keras

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
# The statistics of a net that lost channels are those of another net: they are learned anew.
TAUGHT = TrainSettings(epochs=20, patience=8, freeze_batch_norm=False)


class Classify:
    """Models that end in a softmax over the classes."""

    name = "classify"
    qualities: tuple[str, ...] = ("accuracy",)
    ladder = LADDER

    def __init__(self, resize: str | None = None):
        self.resize = resize

    def sizes(self, dataset: Dataset) -> tuple[int, ...]:
        """The largest that the pictures fill (at least 64: tiny ones do better enlarged), and one less."""
        fitting = [size for size in SIZES if size <= max(64, 1.3 * dataset.median_side)]
        return tuple(dict.fromkeys((fitting[max(0, len(fitting) - 2)], fitting[-1])))

    def rule(self, model: "keras.Model", dataset: Dataset) -> str:
        """The model's, whatever the pictures are."""
        return self.resize or rule_of(model)

    def build(self, shape: Shape, classes: Sequence[str], weights: str | None = None) -> tuple["keras.Model", bool]:
        """As `build_pretrained`."""
        return build_pretrained(shape, len(classes), weights), weights is not None

    def started(self, model: "keras.Model", dataset: Dataset, seed: int) -> tuple["keras.Model", bool]:
        """The model itself: it tells the classes apart already.

        Raises:
            SettingError: as `check`.
        """
        self.check(model, dataset)
        return model, True

    def check(self, model: "keras.Model", dataset: Dataset) -> None:
        """See that it ends in a softmax over as many classes.

        Raises:
            SettingError: it does not.
        """
        outputs = model.outputs or []
        if len(outputs) != 1 or model.inputs[0].shape[-1] != 3:
            raise SettingError(
                f"{model.name} takes {tuple(model.inputs[0].shape)} and gives {len(outputs)} answers; wanted RGB and "
                "one"
            )
        logits(model, "model")  # raises where it does not end in a softmax
        if outputs[0].shape[-1] != len(dataset.classes):
            raise SettingError(
                f"{model.name} tells {outputs[0].shape[-1]} classes apart and the data has {len(dataset.classes)}; "
                "wanted the pictures that it was trained for"
            )

    def usual(self, pretrained: bool, knows: bool = False) -> TrainSettings:
        """Few epochs from pretrained weights, many from nothing; a head that knows its classes needs no own phase."""
        if knows:
            return TrainSettings(head_epochs=0)
        return TrainSettings() if pretrained else TrainSettings(epochs=40, patience=12, learning_rate=1e-2)

    def train(
        self,
        model: "keras.Model",
        dataset: Dataset,
        settings: Any,
        pretrained: bool,
        cache: PixelCache | None = None,
        checkpoint: Path | None = None,
    ) -> tuple["keras.Model", Step]:
        """As `train.train`; a model without the zoo's head goes without the head's own phase."""
        check_kind(self.name, settings, TrainSettings)
        return train(model, dataset, settings, pretrained, cache or self._cache(model, dataset), checkpoint)

    def usual_taught(self) -> DistillSettings:
        """Those of `distill`, with batch norms that learn."""
        return DistillSettings(TAUGHT)

    def distil(
        self, student: "keras.Model", teacher: "keras.Model", dataset: Dataset, settings: Any, checkpoint: Path
    ) -> tuple["keras.Model", Step]:
        """As `distill.distill`."""
        check_kind(self.name, settings, DistillSettings)
        return distill(student, teacher, dataset, settings, True, self._cache(student, dataset), checkpoint)

    def pictures(self, model: "keras.Model", items: Sequence[Item], pixels: Pixels, rule: str) -> Pictures:
        """With their labels, for the cross-entropy."""
        return Pictures(pixels, labels(items))

    def score(self, items: Sequence[Item], pixels: Pixels) -> Score:
        """Top-1."""
        return accuracy_on(pixels, labels(items))

    def told(self, value: float) -> str:
        """In percent."""
        return f"{100 * value:.1f} % right on val"

    def _cache(self, model: "keras.Model", dataset: Dataset) -> PixelCache | None:
        """Where another rule was asked for than the usual one, which `train` knows."""
        if self.resize is None:
            return None
        items = (*dataset.part("train"), *dataset.part("val"))
        return load_pixels(items, *picture_size(model), rule=self.resize)
