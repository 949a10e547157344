"""What a data set is: pictures with their labels, parts and one audit, and how it is split.

Imports errors.
"""

import hashlib
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.errors import DataError, SettingError

PARTS = ("train", "val", "test")
PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


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
    """One usable picture: where it is, what it shows (an index into the classes) and in which part it is."""

    path: Path
    label: int
    part: str
    sha256: str
    pixels_sha256: str
    height: int
    width: int


@dataclass(frozen=True)
class Audit:
    """What is in the folder and what is wrong with it. Paths are relative to the folder, made printable."""

    counts: Mapping[str, Mapping[str, int]]  # part → class → pictures
    heights: tuple[int, int, int]  # least, median, most
    widths: tuple[int, int, int]
    bad: tuple[tuple[str, str], ...]  # (file, cause)
    ignored: int  # files that are no pictures by name
    duplicates: tuple[tuple[str, ...], ...]  # files with the same bytes
    equal: tuple[tuple[str, ...], ...]  # other files, same pixels
    conflicts: tuple[tuple[str, ...], ...]  # same pixels, different labels
    leaks: tuple[tuple[str, ...], ...]  # same pixels in two parts of a ready-made split

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
        }


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures, split, with one audit. Pixels are read when asked for."""

    root: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    audit: Audit
    task: str = "classify"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over contents, labels and parts: the same wherever the folder lies and whatever its files
        are called.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        for line in sorted(f"{item.part} {item.label} {item.sha256}" for item in self.items):
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


def display(path: str | Path) -> str:
    """A path that can always be printed: bytes that are no UTF-8, and control characters, are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
