"""A model of the user's as a candidate: in a file, at one input size. Imports artifact, errors, models, this folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.detectors import at_size
from featherweight.models.functional import picture_size
from featherweight.models.kept import kept_in
from featherweight.models.load import load_model

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Start:
    """What to train on from. `size` is (height, width) in pixels."""

    name: str
    size: tuple[int, int]
    model: "keras.Model" = field(compare=False, repr=False)
    steps: tuple[Step, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        height, width = self.size
        return f"{self.name}-{height}" if height == width else f"{self.name}-{height}x{width}"


def starts(path: str | Path, sizes: Sequence[int] = ()) -> tuple[Start, ...]:
    """The model of a file at its own size, or at these: a detector's maps grow and shrink with its input.

    Raises:
        ModelFileError: no model, or a damaged one.
        SettingError: an open input size; a size that a detector cannot have, or that another model has not.
    """
    from featherweight.models.heads import decoding_of_model

    model, name, steps = load_model(path), Path(path).stem, kept_in(path).steps
    own = picture_size(model)
    found = []
    for size in [(side, side) for side in sizes] or [own]:
        if size != own and decoding_of_model(model) is None:
            raise SettingError(f"{path} takes pictures of {own[0]}×{own[1]}; leave --sizes out")
        found.append(Start(name, size, model if size == own else at_size(model, *size), steps))
    return tuple(dict.fromkeys(found))
