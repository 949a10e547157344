"""What label files say, in one form for every format.

Imports nothing of the package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Marked:
    """One box as a label file has it, in the format's own words turned into corners, unchecked but for being there."""

    name: str  # of the class
    left: float
    top: float
    right: float
    bottom: float
    hard: bool = False


@dataclass(frozen=True)
class Marks:
    """The boxes that labels give one picture; nothing of them is held against the picture yet."""

    corners: NDArray[np.float64]  # (k, 4): left, top, right, bottom; pixels, or shares of the sides where `shares`
    names: tuple[str, ...]  # (k,): the classes
    hard: NDArray[np.bool_]  # (k,)
    left_out: tuple[str, ...] = ()  # boxes that the reader could make nothing of, each with its cause
    height: int | None = None  # of the picture, in pixels, where the labels say it
    width: int | None = None
    shares: bool = False


@dataclass(frozen=True)
class Labelled:
    """A picture that has labels: its boxes, or why its labels cannot be read."""

    path: Path
    part: str | None
    marks: Marks | str


@dataclass(frozen=True)
class Labels:
    """The labels of a folder."""

    layout: str
    classes: tuple[str, ...]
    pictures: tuple[Labelled, ...]
    unlabelled: tuple[Path, ...]  # pictures that no label file is for
    missing: tuple[str, ...]  # labels whose picture is not there, printable
    partless: tuple[Path, ...]  # pictures that stand in none of the parts that the folder comes with


def marks(
    boxes: Sequence[Marked],
    left_out: Sequence[str] = (),
    height: int | None = None,
    width: int | None = None,
    shares: bool = False,
) -> Marks:
    """Boxes as arrays."""
    corners = np.array([(one.left, one.top, one.right, one.bottom) for one in boxes], np.float64).reshape(-1, 4)
    hard = np.array([one.hard for one in boxes], np.bool_)
    return Marks(corners, tuple(one.name for one in boxes), hard, tuple(left_out), height, width, shares)
