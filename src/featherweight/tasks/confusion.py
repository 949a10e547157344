"""Masks found against true ones: IoU, Dice and boundary F1 by class, their means, and how sure they are.

A picture is counted once and then let go: what stays of it are the cells of its confusion matrix that are not 0, and
a number a class for its boundaries. All metrics but that of boundaries are of the summed matrices, as Pascal VOC has
mean IoU: a class's intersection over its union in all pictures. The interval is a bootstrap over pictures: they are
drawn anew, as often as there are pictures, and their matrices summed.

Boundary F1 is that of Csurka, Larlus & Perronnin (What is a good evaluation measure for semantic segmentation?,
BMVC 2013, section 3): a class in a picture has the precision of the boundary found, the share of its pixels that lie
within a tolerance of the true one, and the recall the other way round; F1 of both, then the mean over the classes of
the picture, then over pictures. The tolerance is 0.75 % of the picture's diagonal, as there, and at least a pixel.

Imports errors and masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.errors import DataError, SettingError
from featherweight.masks import IGNORE, Mask

TOLERANCE = 0.0075  # of the diagonal
RESAMPLES = 1000
SEED = 0
MOST_CELLS = 32  # classes of which the whole confusion matrix is told


@dataclass(frozen=True, eq=False)
class Counts:
    """What stays of one picture."""

    classes: int
    cells: NDArray[np.int64]  # (k,): true class × classes + found class, each once, of the pixels that count
    pixels: NDArray[np.int64]  # (k,): how many of each
    boundaries: dict[int, float]  # class → F1, of those that have a boundary in it

    @property
    def matrix(self) -> NDArray[np.int64]:
        """(classes, classes): pixels by true class and found class."""
        whole = np.zeros(self.classes**2, np.int64)
        whole[self.cells] = self.pixels
        return whole.reshape(self.classes, self.classes)

    @cached_property
    def parts(self) -> NDArray[np.int64]:
        """(3, classes): pixels that are right, true and found of each class."""
        true, found = self.cells // self.classes, self.cells % self.classes
        same = true == found
        rows = ((true[same], self.pixels[same]), (true, self.pixels), (found, self.pixels))
        parts = np.zeros((3, self.classes), np.int64)
        for row, (labels, pixels) in zip(parts, rows, strict=True):
            np.add.at(row, labels, pixels)
        return parts

    @property
    def iou(self) -> float | None:
        """The picture's own mean IoU, of the classes that are in it or were found in it; `None`: nothing counts."""
        return mean_iou(self.parts)


def count(true: Mask, found: Mask, classes: int) -> Counts:
    """Count one picture.

    Args:
        true: (h, w) class indices, or `IGNORE` where nothing is asked.
        found: (h, w) class indices.
        classes: how many there are.

    Raises:
        DataError: a true pixel of a class that is none.
        SettingError: a found one, or masks of two sizes.
    """
    if true.shape != found.shape:
        raise SettingError(f"a mask of {found.shape} was found for one of {true.shape}; wanted the same size")
    asked = true != IGNORE
    truths, answers = true[asked], found[asked]
    if truths.size and truths.max() >= classes:
        raise DataError(f"a true pixel of class {truths.max()}; wanted 0 to {classes - 1}")
    if answers.size and answers.max() >= classes:
        raise SettingError(f"a found pixel of class {answers.max()}; wanted 0 to {classes - 1}")
    whole = np.bincount(truths * np.int64(classes) + answers, minlength=1)
    cells = np.flatnonzero(whole)
    return Counts(classes, cells, whole[cells], boundary_f1(true, np.where(asked, found, np.uint8(IGNORE))))


def boundary_f1(true: Mask, found: Mask, tolerance: float | None = None) -> dict[int, float]:
    """F1 of the boundaries in one picture, of the classes that have one in either mask.

    A pixel is on the boundary of its class where one of its four neighbours is of another class. The picture's own
    edge is no boundary, nor is the edge of what is `IGNORE`.

    Args:
        true: (h, w) class indices, or `IGNORE`.
        found: the same, with `IGNORE` in the same places.
        tolerance: in pixels; by default 0.75 % of the diagonal, at least 1.
    """
    allowed = max(1.0, TOLERANCE * float(np.hypot(*true.shape))) if tolerance is None else tolerance
    on_true, on_found = _boundary(true), _boundary(found)
    scores = {}
    for label in np.union1d(true[on_true], found[on_found]).tolist():
        one, other = on_true & (true == label), on_found & (found == label)
        precision, recall = _share_near(other, one, allowed), _share_near(one, other, allowed)
        scores[int(label)] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores


def _boundary(mask: Mask) -> NDArray[np.bool_]:
    """(h, w): whether a neighbour above, below, left or right is of another class."""
    on = np.zeros(mask.shape, np.bool_)
    for a, b in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        other = (mask[a] != mask[b]) & (mask[a] != IGNORE) & (mask[b] != IGNORE)
        on[a] |= other
        on[b] |= other
    return on


def _share_near(some: NDArray[np.bool_], others: NDArray[np.bool_], tolerance: float) -> float:
    """The share of `some` that lie within a distance of any of `others`; 0 where one of both is empty."""
    if not (some.any() and others.any()):
        return 0.0
    away = cv2.distanceTransform(np.where(others, np.uint8(0), np.uint8(1)), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.mean(away[some] <= tolerance + 1e-4))  # distances are rounded to float32


# ------------------------------------------------------------------------------------------------ all pictures


def ious(parts: NDArray[Any]) -> NDArray[np.float64]:
    """(…, 3, classes) right, true, found → IoU (…, classes), not a number where a class neither is nor was found."""
    right, true, found = (parts[..., row, :].astype(np.float64) for row in range(3))
    with np.errstate(invalid="ignore"):
        return np.asarray(right / (true + found - right))


def mean_iou(parts: NDArray[Any]) -> float | None:
    """(3, classes) right, true, found → the mean over the classes that are or were found; `None` where none was."""
    known = ious(parts)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None


def evaluate(counts: Sequence[Counts], classes: Sequence[str], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Mean IoU with what stands behind it, as plain values.

    Args:
        counts: a picture each.
        classes: their names.
        resamples: of the bootstrap, which is the same each time.

    Returns:
        "value" (mean IoU, over the classes that are true or were found anywhere), "interval" of 95 %, "n" pictures,
        "drawn" (the value on pictures drawn anew, the same draws whatever was found), "pixel_accuracy",
        "boundary_f1"; "iou" and "dice", of two classes those of class 1, else `None` and the mean. In "scores" a
        class each "iou", its "interval", "dice", "precision", "recall", "boundary_f1" and true "pixels", and the
        "confusion" matrix (true, found) of up to 32 classes. `None` where there is nothing to tell.

    Raises:
        DataError: no pixel counts in any picture.
    """
    parts = np.array([one.parts for one in counts], np.float64).reshape(len(counts), 3, len(classes))
    total = parts.sum(axis=0)
    value = mean_iou(total)
    if value is None:
        raise DataError(f"no pixel of {len(counts)} masks counts; wanted masks that are not ignored as a whole")
    sums = _drawn(parts, resamples)
    each = ious(sums)
    drawn = np.nanmean(each, axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    right, true, found = total
    dice = _over(2 * right, true + found)
    by_class = [
        {
            "iou": _plain(ious(total)[place]),
            "interval": _bounds(each[:, place]),
            "dice": _plain(dice[place]),
            "precision": _plain(_over(right, found)[place]),
            "recall": _plain(_over(right, true)[place]),
            "boundary_f1": _mean([one.boundaries[place] for one in counts if place in one.boundaries]),
            "pixels": int(true[place]),
        }
        for place in range(len(classes))
    ]
    scores: dict[str, Any] = {"classes": dict(zip(classes, by_class, strict=True)), "boundary_tolerance": TOLERANCE}
    if len(classes) <= MOST_CELLS:
        scores["confusion"] = np.sum([one.matrix for one in counts], axis=0).tolist()
    two = len(classes) == 2
    return {
        "value": value,
        "interval": (float(low), float(high)),
        "n": len(counts),
        "drawn": drawn.tolist(),
        "iou": by_class[1]["iou"] if two else None,
        "dice": by_class[1]["dice"] if two else float(np.nanmean(dice)),
        "pixel_accuracy": float(right.sum() / true.sum()),
        "boundary_f1": _mean([float(np.mean([*one.boundaries.values()])) for one in counts if one.boundaries]),
        "scores": scores,
    }


def _drawn(parts: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """(draws, 3, classes): sums of pictures drawn anew.

    The draws depend on how many pictures there are and on which of them any pixel counts, so that two files' can be
    held against each other.
    """
    rng = np.random.default_rng(SEED)
    n = len(parts)
    times = np.array([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)], np.float64)
    sums = (times @ parts.reshape(n, -1)).reshape(resamples, *parts.shape[1:])
    return np.asarray(sums[sums[:, 1].any(axis=1)])


def _over(some: NDArray[np.float64], all_of: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(some / all_of)


def _plain(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _bounds(values: NDArray[np.float64]) -> list[float] | None:
    """The 95 % interval of a class, of the draws that it is in."""
    known = values[~np.isnan(values)]
    return np.percentile(known, [2.5, 97.5]).tolist() if known.size else None
