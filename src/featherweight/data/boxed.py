"""What labels say of a picture, held against the picture: boxes that can be, and what is wrong with the others.

Imports annotations, boxes and errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featherweight.annotations import Marks
from featherweight.boxes import Boxes
from featherweight.errors import LabelError, display

LEAST_SIDE = 0.01  # pixels; a box that is narrower has no area
TOLERANCE = 1.0  # pixels beyond the picture that are rounding, or another way of counting
SAME_IOU = 0.99  # of two boxes of one class that are one and the same
ROWS = 512  # boxes that are held against all others at a time


@dataclass(frozen=True)
class Checked:
    """The boxes of one picture, and a line for each that was left out or changed."""

    boxes: Boxes
    left_out: tuple[str, ...]
    twice: tuple[str, ...]
    clipped: tuple[str, ...]


def check(marks: Marks, classes: Mapping[str, int], height: int, width: int) -> Checked:
    """Boxes within the picture, of known classes, each once; in the order of the labels.

    Raises:
        LabelError: the labels are for a picture of another size.
    """
    if (marks.height or height, marks.width or width) != (height, width):
        raise LabelError(
            f"its labels are for {marks.width or '?'}×{marks.height or '?'} pixels, and it has {width}×{height}; "
            "label it anew, or undo what turned or resized it"
        )
    sides = np.array([width, height, width, height], np.float64)
    corners = marks.corners * sides if marks.shares else marks.corners
    inside = np.clip(corners, 0, sides)
    wrong = _wrong(corners, inside, sides)
    unknown = np.array([name not in classes for name in marks.names], np.bool_)
    left_out = [*marks.left_out]
    left_out += [f"{_show(marks, corners, row)}: {wrong[row]}" for row in range(len(corners)) if wrong[row]]
    left_out += [f"{_show(marks, corners, row)}: unknown class" for row in np.flatnonzero(unknown)]
    good = np.array([not cause for cause in wrong], np.bool_) & ~unknown
    labels = np.array([classes.get(name, -1) for name in marks.names], np.int64)
    again = np.zeros_like(good)
    rows = np.flatnonzero(good)
    again[rows] = _repeated(inside[rows], labels[rows], marks.hard[rows])
    kept = good & ~again
    beyond = np.abs(np.nan_to_num(corners - inside)).max(axis=1, initial=0) > TOLERANCE
    boxes = Boxes(inside[kept].astype(np.float32), labels[kept], np.ones(int(kept.sum()), np.float32), marks.hard[kept])
    return Checked(
        boxes,
        tuple(left_out),
        tuple(_show(marks, corners, row) for row in np.flatnonzero(again)),
        tuple(_show(marks, corners, row) for row in np.flatnonzero(kept & beyond)),
    )


def _wrong(corners: NDArray[np.float64], inside: NDArray[np.float64], sides: NDArray[np.float64]) -> list[str]:
    """What keeps each box from being one; empty where nothing does."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        spans = corners[:, 2:] - corners[:, :2]
        left = inside[:, 2:] - inside[:, :2]
    cases = [
        (~np.isfinite(corners), "a corner that is no number"),
        (spans < LEAST_SIDE, "no area"),
        (np.hstack([corners[:, 2:] <= 0, corners[:, :2] >= sides[:2]]), "outside of the picture"),
        (left < LEAST_SIDE, "no area within the picture"),
    ]
    hits = [(np.asarray(hit.any(axis=1)).tolist(), cause) for hit, cause in cases]
    return [next((cause for hit, cause in hits if hit[row]), "") for row in range(len(corners))]


def _repeated(corners: NDArray[np.float64], labels: NDArray[np.int64], hard: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each box is an earlier one again: same class, same kind, IoU over `SAME_IOU`."""
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    again = np.zeros(len(corners), np.bool_)
    for start in range(0, len(corners), ROWS):
        some = corners[start : start + ROWS, None]
        spans = np.minimum(some[..., 2:], corners[:, 2:]) - np.maximum(some[..., :2], corners[:, :2])
        shared = np.clip(spans, 0, None).prod(axis=2)
        same = shared > SAME_IOU * (areas[start : start + ROWS, None] + areas - shared)
        same &= (labels[start : start + ROWS, None] == labels) & (hard[start : start + ROWS, None] == hard)
        earlier = np.arange(len(corners)) < np.arange(start, start + len(some))[:, None]
        same &= earlier
        for row in np.flatnonzero(same.any(axis=1)):  # few; a box that was left out itself repeats nothing
            again[start + row] = (same[row] & ~again).any()
    return again


def _show(marks: Marks, corners: NDArray[np.float64], row: np.intp | int) -> str:
    """A box as the audit names it: its class and corners in pixels."""
    return f"{display(marks.names[row])} {', '.join(f'{corner:g}' for corner in corners[row].round(2))}"
