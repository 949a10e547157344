"""How a detector is trained, as data. Imports errors and train."""

from dataclasses import dataclass, field

from featherweight.errors import SettingError
from featherweight.train import TrainSettings


def _usual() -> TrainSettings:
    """Those of `train` that suit a detector: boxes make up for pictures, so that it learns longer and zooms more."""
    return TrainSettings(
        epochs=100, patience=30, batch_size=16, learning_rate=2e-3, weight_decay=5e-3, flip=True, shift=0.1, zoom=0.3,
        contrast=0.3, head_epochs=0,
    )  # fmt: skip


@dataclass(frozen=True)
class DetectSettings:
    """How to train a detector.

    Of `train`, `shift` and `zoom` are shares of the picture's sides, `contrast` is how much brighter or darker it gets;
    `freeze_batch_norm` is about the trunk alone, and `None` lets all learn. `rotate`, `crop`, `label_smoothing` and
    `head_epochs` have no meaning for boxes and are to be 0.

    `hue` (of a full turn), `saturation` and `aspect` are how much these change at most; `mosaic` is how many of the
    pictures are put together by four, until the last `plain` share of the epochs, which see pictures as they come.
    `average` is the share that stays of a moving average of the weights at each step, less in a run of few steps; the
    average is what is judged and kept, 0 leaves it out. `sizes` are further input sizes in pixels: each epoch draws one
    of them or the model's own.
    """

    train: TrainSettings = field(default_factory=_usual)
    flip_vertical: bool = False
    aspect: float = 0.1
    hue: float = 0.02
    saturation: float = 0.3
    mosaic: float = 0.5
    plain: float = 0.2
    average: float = 0.99
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        how = self.train
        unused = {
            name: getattr(how, name)
            for name in ("rotate", "crop", "label_smoothing", "head_epochs")
            if getattr(how, name)
        }
        if unused:
            raise SettingError(f"{', '.join(f'{name} {value}' for name, value in unused.items())} with boxes; wanted 0")
        if not all(0 <= value < 1 for value in (how.shift, how.zoom, how.contrast, self.aspect, self.saturation)):
            raise SettingError("shift, zoom, contrast, aspect or saturation out of range; wanted 0 up to 1")
        if not (0 <= self.hue <= 0.5 and 0 <= self.mosaic <= 1 and 0 <= self.plain <= 1):
            raise SettingError(f"hue {self.hue}, mosaic {self.mosaic}, plain {self.plain}; wanted 0–0.5, 0–1 and 0–1")
        if not 0 <= self.average < 1:
            raise SettingError(f"average {self.average}; wanted 0 up to 1")
