"""Which of the boxes found in a picture are right, and which of the true ones were missed.

The same rule as behind average precision at IoU 0.5, for the boxes that are shown: it picks pictures to look at, and is
no metric. Imports boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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
    def failures(self) -> int:
        """Boxes missed and boxes wrongly found."""
        return int(self.missed.sum() + (~self.right).sum())


@dataclass(frozen=True)
class Answers:
    """What one detector found in the pictures of a part."""

    name: str  # of the file
    classes: tuple[str, ...]
    pictures: tuple[Seen, ...]
    part: str
    score: float  # the least of a box that was found


def overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of corners (k, 4) and (m, 4), each with each: (k, m)."""
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    shares: NDArray[np.float64] = np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)
    return shares


def to_look_at(seen: Sequence[Seen], worst: int, others: int) -> tuple[list[Seen], list[Seen]]:
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
