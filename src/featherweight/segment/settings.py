"""How a segmenter is trained, as data. Imports boxes, errors and train."""

import math
from dataclasses import dataclass, field

from featherweight.boxes import RESIZES
from featherweight.errors import SettingError
from featherweight.train import TrainSettings

LOSSES = ("cross_entropy", "focal", "dice", "lovasz")
BALANCED = "balanced"


def _usual() -> TrainSettings:
    """Those of `train` that suit a segmenter: every pixel is an example, so that batches are small."""
    return TrainSettings(
        epochs=60, patience=20, batch_size=8, learning_rate=3e-3, weight_decay=5e-3, flip=True, shift=0.1, zoom=0.2,
        contrast=0.2, head_epochs=0,
    )  # fmt: skip


@dataclass(frozen=True)
class SegmentSettings:
    """How to train a segmenter.

    Of `train`, `shift` and `zoom` are shares of the picture's sides, `rotate` of a full turn, `contrast` is how much
    more or less pixels differ from their mean; the first `head_epochs` of the `epochs` leave the trunk as it is, at
    `head_learning_rate`; `freeze_batch_norm` is about the trunk alone, and `None` lets all learn. `crop` and
    `label_smoothing` have no meaning for masks and are to be 0.

    `loss` is a name of `LOSSES` or a sum of them, as "cross_entropy+dice". `class_weights` are what a class counts, one
    each in the order of the classes, or "balanced" (`losses.balanced`); nothing lets pixels count alike. `focus` is the
    exponent of the focal loss.

    `resize` is how pictures become inputs, a rule of `image.resize`, by default "stretch". With "tile"
    they keep their scale, and an epoch sees as many cut-outs of the input's size as cover them; the share `foreground`
    of these lies around a pixel that is not of class 0, where there is one.

    `brightness` is how much brighter or darker pictures become, as a share of what they are. `average` is the share
    that stays of a moving average of the weights at each step, less in a run of few steps; the average is what is
    judged and kept, 0 leaves it out.
    """

    train: TrainSettings = field(default_factory=_usual)
    loss: str = "cross_entropy+dice"
    class_weights: tuple[float, ...] | str | None = None
    focus: float = 2.0
    resize: str | None = None
    foreground: float = 0.5
    flip_vertical: bool = False
    brightness: float = 0.3
    average: float = 0.98

    def __post_init__(self) -> None:
        how = self.train
        unused = {name: getattr(how, name) for name in ("crop", "label_smoothing") if getattr(how, name)}
        if unused:
            raise SettingError(f"{', '.join(f'{name} {value}' for name, value in unused.items())} with masks; wanted 0")
        if not all(0 <= value < 1 for value in (how.shift, how.zoom, how.rotate, how.contrast, self.brightness)):
            raise SettingError("shift, zoom, rotate, contrast or brightness out of range; wanted 0 up to 1")
        if not (0 <= self.average < 1 and 0 <= self.foreground <= 1 and 0 <= self.focus < math.inf):
            raise SettingError(
                f"average {self.average}, foreground {self.foreground}, focus {self.focus}; wanted 0 up to 1, 0–1 and "
                "from 0 on"
            )
        if self.resize is not None and self.resize not in RESIZES:
            raise SettingError(f"unknown resize {self.resize!r}; known: {', '.join(RESIZES)}")
        terms_of(self.loss)
        self._check_weights()

    def _check_weights(self) -> None:
        weights = self.class_weights
        if weights is None or weights == BALANCED:
            return
        if (
            isinstance(weights, str)
            or not weights
            or not all(0 <= one < math.inf for one in weights)
            or not any(weights)
        ):
            raise SettingError(f"class weights {weights!r}; wanted {BALANCED!r} or a number from 0 on for each class")


def terms_of(loss: str) -> tuple[str, ...]:
    """The names in a sum of losses.

    Raises:
        SettingError: an unknown one, or one twice.
    """
    terms = tuple(term.strip() for term in loss.split("+"))
    unknown = next((term for term in terms if term not in LOSSES or terms.count(term) > 1), None)
    if unknown is not None:
        raise SettingError(f"loss {unknown!r} in {loss!r}; known, once each: {', '.join(LOSSES)}")
    return terms
