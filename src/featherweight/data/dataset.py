"""What a data set is: pictures with their labels or boxes, parts and one audit, and how it is split.

Imports boxes, errors and masks.
"""

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.boxes import Boxes
from featherweight.errors import DataError, SettingError, display
from featherweight.masks import MaskSource

PARTS = ("train", "val", "test")
TASKS = ("classify", "detect", "segment")


@dataclass(frozen=True)
class Split:
    """The shares of val and test in a folder that comes without parts; the rest is train."""

    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise SettingError(
                f"split val={self.val}, test={self.test}; wanted shares with 0 < val, 0 <= test and val + test < 1"
            )


@dataclass(frozen=True)
class Item:
    """One usable picture: where it is, what it shows (an index into the classes, boxes or a mask) and in which part it
    is.
    """

    path: Path
    label: int  # -1 where there are boxes or a mask
    part: str
    sha256: str
    pixels_sha256: str
    height: int
    width: int
    # Arrays do not compare as one value; pictures with other boxes differ in the data set's fingerprint.
    boxes: Boxes | None = field(default=None, compare=False)
    mask: MaskSource | None = None


@dataclass(frozen=True)
class BoxAudit:
    """What is in the labels of a folder and what is wrong with them. Paths are printable, as in `Audit`.

    Boxes without area, outside of the picture, of unknown classes and there twice are left out; so are pictures
    without labels and, where the folder comes with parts, pictures in none of them.
    """

    layout: str  # voc, coco or yolo
    also: tuple[str, ...]  # layouts that are there too, and were not read
    pictures: Mapping[str, int]  # part → pictures
    counts: Mapping[str, Mapping[str, int]]  # part → class → boxes
    hard: int  # boxes that are difficult, or around a crowd; they are among those counted
    widths: tuple[float, float, float]  # of boxes in pixels: least, median, most
    heights: tuple[float, float, float]
    shares: Mapping[str, float]  # small, medium and large boxes: under 32², under 96² and other pixels, as COCO has it
    left_out: tuple[tuple[str, str], ...]  # (picture, which box and why)
    twice: tuple[tuple[str, str], ...]  # (picture, which box), left out
    clipped: tuple[tuple[str, str], ...]  # (picture, which box was cut off by more than a pixel), kept
    empty: tuple[str, ...]  # pictures without a box, kept
    unlabelled: tuple[str, ...]  # pictures that no label file is for, left out
    missing: tuple[str, ...]  # labels without their picture
    partless: tuple[str, ...]  # pictures in none of the parts that the folder comes with, left out

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for key in ("left_out", "twice", "clipped"):
            plain[key] = [{"file": file, "box": box} for file, box in plain[key]]
        for key in ("widths", "heights"):
            plain[key] = dict(zip(("min", "median", "max"), plain[key], strict=True))
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass(frozen=True)
class Audit:
    """What is in the folder and what is wrong with it. Paths are relative to the folder, made printable."""

    counts: Mapping[str, Mapping[str, int]]  # part → class → pictures; with boxes, those that show the class
    heights: tuple[int, int, int]  # least, median, most
    widths: tuple[int, int, int]
    bad: tuple[tuple[str, str], ...]  # (file, cause)
    ignored: int  # files that are no pictures by name, and no labels
    duplicates: tuple[tuple[str, ...], ...]  # files with the same bytes
    equal: tuple[tuple[str, ...], ...]  # other files, same pixels
    conflicts: tuple[tuple[str, ...], ...]  # same pixels, different labels or boxes
    leaks: tuple[tuple[str, ...], ...]  # same pixels in two parts of a ready-made split
    boxes: BoxAudit | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "counts": {part: dict(classes) for part, classes in self.counts.items()},
            "heights": dict(zip(("min", "median", "max"), self.heights, strict=True)),
            "widths": dict(zip(("min", "median", "max"), self.widths, strict=True)),
            "bad": [{"file": file, "cause": cause} for file, cause in self.bad],
            "ignored": self.ignored,
            "duplicates": [list(group) for group in self.duplicates],
            "equal": [list(group) for group in self.equal],
            "conflicts": [list(group) for group in self.conflicts],
            "leaks": [list(group) for group in self.leaks],
            **({} if self.boxes is None else {"boxes": self.boxes.as_dict()}),
        }


@dataclass(frozen=True)
class Dataset:
    """Pictures with labels (task classify) or boxes (detect), split, with one audit. Pixels are read when asked for."""

    root: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    audit: Audit
    task: str = "classify"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over contents, labels, boxes (to a hundredth of a pixel) and parts: the same wherever the
        folder lies, whatever its files are called and in whichever format its labels are.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        for line in sorted(f"{item.part} {item.label} {item.sha256}{_written(item.boxes)}" for item in self.items):
            digest.update(line.encode())
        return digest.hexdigest()[:16]

    def part(self, name: str) -> tuple[Item, ...]:
        """The items of one part.

        Raises:
            DataError: the dataset has no such part.
        """
        items = tuple(item for item in self.items if item.part == name)
        if not items:
            raise DataError(f"{display(self.root)} has no part {name!r}; it has: {', '.join(self.audit.counts)}")
        return items

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that hold pictures, in the order train, val, test."""
        present = {item.part for item in self.items}
        return tuple(name for name in PARTS if name in present)

    @property
    def median_side(self) -> int:
        """The median of the pictures' shorter sides, in pixels."""
        return int(statistics.median(min(item.height, item.width) for item in self.items))


def hundredths(boxes: Boxes) -> tuple[tuple[int, ...], ...]:
    """Boxes as whole numbers in an order of their own, (label, left, top, right, bottom, hard): equal where boxes are
    equal to a hundredth of a pixel.
    """
    corners = np.rint(boxes.corners.astype(np.float64) * 100).astype(np.int64)
    rows = np.column_stack([boxes.labels, corners, boxes.hard])
    return tuple(sorted(map(tuple, rows.tolist())))


def _written(boxes: Boxes | None) -> str:
    return "" if boxes is None else f" {hundredths(boxes)}"
