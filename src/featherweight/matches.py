"""What was found in a picture beside what is true, to be looked at, and which pictures are looked at first.

Boxes are right or missed by the same rule as behind average precision at IoU 0.5, for those that are shown; of masks it
is the picture's own IoU. Both pick pictures and are no metric of the whole. Imports boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes

OVERLAP = 0.5  # intersection over union from which a box of the same class counts as found


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture, what is true in it and what was found, in pixels of the picture."""

    path: Path
    true: Boxes
    found: Boxes  # best first

    @cached_property
    def _pairs(self) -> NDArray[np.intp]:
        """(found,): the true box that each is right about, or -1."""
        pairs = np.full(len(self.found), -1, np.intp)
        overlap = overlaps(self.found.corners, self.true.corners)
        overlap[self.found.labels[:, None] != self.true.labels[None, :]] = 0
        for number, row in enumerate(overlap):
            # One that must be found goes before a hard one; a true box is found once, but may be crowded over often.
            free = np.where(self.true.hard | ~np.isin(np.arange(len(row)), pairs), row, 0)
            for some in (~self.true.hard, self.true.hard):
                near = np.where(some, free, 0)
                if pairs[number] < 0 and near.size and near.max() >= OVERLAP:
                    pairs[number] = near.argmax()
        return pairs

    @property
    def right(self) -> NDArray[np.bool_]:
        """(found,): whether each is on a true box of its class."""
        return self._pairs >= 0

    @property
    def missed(self) -> NDArray[np.bool_]:
        """(true,): whether none was found for it; never one that need not be found."""
        there = np.zeros(len(self.true), np.bool_)
        there[self._pairs[self.right]] = True
        return ~there & ~self.true.hard

    @property
    def failures(self) -> float:
        """Boxes missed and boxes wrongly found."""
        return float(self.missed.sum() + (~self.right).sum())


@dataclass(frozen=True, eq=False)
class SeenMask:
    """One picture, its true mask and the one that was found, packed: of all pictures of a part they are many."""

    path: Path
    iou: float | None  # the mean over the classes in it; `None` where nothing is asked
    _masks: bytes  # both as one PNG, the true one above

    @classmethod
    def of(cls, path: Path, true: NDArray[np.uint8], found: NDArray[np.uint8], iou: float | None) -> "SeenMask":
        """Of two masks (h, w) of the picture's size."""
        packed = cv2.imencode(".png", np.concatenate([true, found]))[1]
        return cls(path, iou, packed.tobytes())

    @property
    def masks(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(the true one, the found one), (h, w) each."""
        both = np.asarray(cv2.imdecode(np.frombuffer(self._masks, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
        return both[: len(both) // 2], both[len(both) // 2 :]

    @property
    def failures(self) -> float:
        """How much of IoU is missing, 0–1."""
        return 0.0 if self.iou is None else 1 - self.iou


Look = TypeVar("Look", Seen, SeenMask)


@dataclass(frozen=True)
class Answers:
    """What one file found in the pictures of a part: boxes in all of them, or masks."""

    name: str  # of the file
    classes: tuple[str, ...]
    pictures: tuple[Seen, ...] | tuple[SeenMask, ...]
    part: str
    score: float | None = None  # the least of a box that was found


def overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of corners (k, 4) and (m, 4), each with each: (k, m)."""
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    shares: NDArray[np.float64] = np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)
    return shares


def to_look_at(seen: Sequence[Look], worst: int, others: int) -> tuple[list[Look], list[Look]]:
    """(those with the most failures, the worst first; some of the rest, from all over them).

    Args:
        seen: all pictures.
        worst: at most so many, of those with any failure.
        others: at most so many.
    """
    ordered = sorted(seen, key=lambda one: -one.failures)  # stable: where equal, as they came
    first = [one for one in ordered[:worst] if one.failures]
    rest = ordered[len(first) :]
    step = max(1, len(rest) // others) if others else 1
    return first, rest[::step][:others]
