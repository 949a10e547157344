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


@dataclass(frozen=True)
class Shapes:
    """What labels draw on one picture; nothing of it is held against the picture yet."""

    polygons: tuple[tuple[str, tuple[float, ...]], ...]  # (class, ring x, y, x, y … in pixels)
    runs: tuple[tuple[str, tuple[int, ...]], ...]  # (class, COCO's run lengths)
    left_out: tuple[str, ...] = ()  # shapes that the reader could make nothing of, each with its cause
    height: int | None = None  # of the picture, in pixels, where the labels say it
    width: int | None = None


@dataclass(frozen=True)
class Masked:
    """A picture that has a mask: its file, the shapes on it, or why that cannot be told."""

    path: Path
    part: str | None
    mask: Path | Shapes | str


@dataclass(frozen=True)
class Masks:
    """The masks of a folder."""

    layout: str  # folders, names or coco
    source: str  # printable: the folder of the masks, what their names have more, or the files
    pictures: tuple[Masked, ...]
    unlabelled: tuple[Path, ...]  # pictures without a mask
    missing: tuple[str, ...]  # masks without a picture, printable
    partless: tuple[Path, ...]  # pictures that stand in none of the parts that the folder comes with
    also: tuple[str, ...] = ()  # what is there too and was not read, printable
    classes: tuple[str, ...] = ()  # of shapes
