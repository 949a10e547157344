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
    mask_sha256: str = ""  # of its size and class indices, whatever file they are in


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
class MaskAudit:
    """What is in the masks of a folder and what is wrong with them. Paths are printable, as in `Audit`.

    Pictures without a mask are left out and, where the folder comes with parts, pictures in none of them. Masks of
    another size than their picture, of unknown values, and those that ask for nothing are bad.
    """

    layout: str  # folders, names or coco
    source: str  # the word in folders or names by which masks are told, or the files of COCO
    kind: str  # values, colours or polygons
    legend: str  # the file that names the classes; empty where there is none
    keys: Mapping[str, str]  # class, or "ignored" → the values or colours that stand for it
    also: tuple[str, ...]  # what is there too, and was not read
    pictures: Mapping[str, int]  # part → pictures
    pixels: Mapping[str, Mapping[str, int]]  # part → class → pixels
    ignored: float  # share of all pixels that are not asked for
    shares: Mapping[str, float]  # class → share of the pixels that are
    unseen: tuple[str, ...]  # classes without a pixel
    untrained: tuple[str, ...]  # classes with pixels in other parts, and none in train
    empty: tuple[str, ...]  # pictures that show class 0 alone, kept
    alone: tuple[str, ...]  # pictures that show one other class alone, kept
    equal: tuple[tuple[str, ...], ...]  # different pictures with equal masks of two classes and more, kept
    left_out: tuple[tuple[str, str], ...]  # (picture, which outline and why)
    unlabelled: tuple[str, ...]  # pictures without a mask, left out
    missing: tuple[str, ...]  # masks without their picture
    partless: tuple[str, ...]  # pictures in none of the parts that the folder comes with, left out

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        plain["left_out"] = [{"file": file, "shape": shape} for file, shape in self.left_out]
        plain["equal"] = [list(group) for group in self.equal]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass(frozen=True)
class Audit:
    """What is in the folder and what is wrong with it. Paths are relative to the folder, made printable."""

    counts: Mapping[str, Mapping[str, int]]  # part → class → pictures; with boxes or masks, those that show the class
    heights: tuple[int, int, int]  # least, median, most
    widths: tuple[int, int, int]
    bad: tuple[tuple[str, str], ...]  # (file, cause)
    ignored: int  # files that are no pictures by name, and no labels
    duplicates: tuple[tuple[str, ...], ...]  # files with the same bytes
    equal: tuple[tuple[str, ...], ...]  # other files, same pixels
    conflicts: tuple[tuple[str, ...], ...]  # same pixels, different labels, boxes or masks
    leaks: tuple[tuple[str, ...], ...]  # same pixels in two parts of a ready-made split
    boxes: BoxAudit | None = None
    masks: MaskAudit | None = None

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
            **({} if self.masks is None else {"masks": self.masks.as_dict()}),
        }


@dataclass(frozen=True)
class Dataset:
    """Pictures with labels (task classify), boxes (detect) or masks (segment), split, with one audit. Pixels are
    read when asked for.
    """

    root: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    audit: Audit
    task: str = "classify"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over contents, labels, boxes (to a hundredth of a pixel), masks and parts: the same wherever
        the folder lies, whatever its files are called and in whichever format its labels or masks are.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        for line in sorted(f"{item.part} {item.label} {item.sha256}{_written(item)}" for item in self.items):
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


def _written(item: Item) -> str:
    if item.mask_sha256:
        return f" {item.mask_sha256}"
    return "" if item.boxes is None else f" {hundredths(item.boxes)}"
