"""Average precision of boxes as COCO has it, how sure it is, and what stands behind it.

What matches what, and the average precision, are hotcoco's. The interval is a bootstrap over pictures of the same
matches: pictures are drawn anew, with the boxes found and true in them, as often as there are pictures.

Imports boxes and errors; hotcoco where it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes
from featherweight.errors import DataError

MOST_BOXES = 100  # a picture: those that COCO counts
RESAMPLES = 400
SEED = 0
RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads precision
OVERLAPS = np.linspace(0.5, 0.95, 10)  # IoU from which a box counts as found
SHOWN_SCORES = tuple(round(0.05 * step, 2) for step in range(1, 20))
AREAS = ("all", "small", "medium", "large")  # under 32², under 96², beyond, in pixels of the picture


@dataclass(frozen=True)
class _Matches:
    """The boxes found of one class, best first, and what of them was right."""

    label: int
    picture: NDArray[np.intp]  # (k,)
    score: NDArray[np.float64]  # (k,)
    right: NDArray[np.bool_]  # (overlaps, k)
    counted: NDArray[np.bool_]  # (overlaps, k): not those on a box that need not be found
    true: NDArray[np.int64]  # (pictures,): how many there are to find


def average_precision(
    found: Sequence[Boxes], true: Sequence[Boxes], classes: Sequence[str], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """AP at IoU 0.50 to 0.95, with what stands behind it, as plain values.

    Args:
        found: for each picture the boxes found, best first, with low scores too; 100 of them count.
        true: for each picture the boxes that are there; what is `hard` in them is as COCO's crowd.
        classes: their names.
        resamples: of the bootstrap, which is the same each time.

    Returns:
        "value" (AP50:95), "interval" of 95 %, "n" pictures, "drawn" (the value on pictures drawn anew, the same draws
        whatever was found), "ap50", "ap75", and in "scores": "small", "medium",
        "large" and "recall" (of 100 boxes a picture); a class each "ap", "ap50" and "boxes"; and over thresholds of
        the score the precision and recall of all boxes at IoU 0.5. `None` where there is nothing to find.

    Raises:
        DataError: no box is to be found in any picture, a box of another class, or hotcoco is not installed.
    """
    names = tuple(classes)
    labels = np.concatenate([boxes.labels for boxes in (*found, *true)] or [np.empty(0, np.int64)])
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise DataError(f"a box of class {labels.max()}; wanted 0 to {len(names) - 1}")
    if not any(np.sum(~boxes.hard) for boxes in true):
        raise DataError(f"no box is to be found in {len(true)} pictures; wanted pictures with boxes")
    evaluation = _evaluated(found, true, names)
    matches = _matches(evaluation, true, len(names))
    precision = evaluation.eval["precision"][:, :, :, :, -1]  # (overlaps, recalls, classes, areas)
    recall = evaluation.eval["recall"][:, :, 0, -1]
    counts = {one.label: int(one.true.sum()) for one in matches}
    value = _mean(precision[..., 0])
    assert value is not None  # as there are boxes
    drawn = _drawn(matches, len(true), resamples)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "value": value,
        "interval": (float(low), float(high)),
        "n": len(true),
        "drawn": drawn,
        "ap50": _mean(precision[0, :, :, 0]),
        "ap75": _mean(precision[5, :, :, 0]),
        "scores": {
            **{area: _mean(precision[..., place]) for place, area in enumerate(AREAS) if place},
            "recall": _mean(recall),
            "classes": {
                name: {
                    "ap": _mean(precision[:, :, place, 0]),
                    "ap50": _mean(precision[0, :, place, 0]),
                    "boxes": counts[place],
                }
                for place, name in enumerate(names)
            },
            "thresholds": [_at(matches, score) for score in SHOWN_SCORES],
        },
    }


def check_installed() -> None:
    """See that average precision can be computed here.

    Raises:
        DataError: hotcoco is not installed.
    """
    try:
        import hotcoco  # noqa: F401
    except ImportError as error:
        raise DataError(
            "average precision needs hotcoco; install it with: pip install featherweight[detect]"
        ) from error


def _evaluated(found: Sequence[Boxes], true: Sequence[Boxes], names: tuple[str, ...]) -> Any:
    """Hotcoco's evaluation; pictures and classes count from 1 there."""
    check_installed()
    from hotcoco import COCO, COCOeval

    pictures, labels, sides = _columns(true)
    known = COCO.from_arrays(
        [{"id": number + 1} for number in range(len(true))],
        [{"id": number + 1, "name": name} for number, name in enumerate(names)],
        pictures,
        labels,
        sides,
        area=sides[:, 2] * sides[:, 3],
        iscrowd=np.concatenate([boxes.hard for boxes in true]).astype(np.int64),
    )
    pictures, labels, sides = _columns(found)
    scores = np.concatenate([boxes.scores for boxes in found]).astype(np.float64)
    evaluation = COCOeval(known, known.load_res(np.column_stack([pictures, sides, scores, labels])), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _columns(boxes: Sequence[Boxes]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(picture (k,), class (k,), left, top, width, height (k, 4)) of all of them."""
    pictures = np.repeat(np.arange(1, len(boxes) + 1), [len(one) for one in boxes])
    corners = np.concatenate([one.corners for one in boxes]).astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return pictures, np.concatenate([one.labels for one in boxes]) + 1, sides


def _matches(evaluation: Any, true: Sequence[Boxes], classes: int) -> list[_Matches]:
    """A class each, of boxes of any size."""
    parts: list[list[tuple[Any, ...]]] = [[] for _ in range(classes)]
    everything = evaluation.params.area_rng[0]
    for one in evaluation.eval_imgs:
        if one is not None and one["aRng"] == everything and one["dtScores"]:
            scores = np.array(one["dtScores"])
            pictures = np.full(len(scores), one["image_id"] - 1)
            right, ignored = np.array(one["dtMatched"], np.bool_), np.array(one["dtIgnore"], np.bool_)
            parts[one["category_id"] - 1].append((pictures, scores, right & ~ignored, ~ignored))
    found = []
    for label, some in enumerate(parts):
        there = np.array([np.sum((boxes.labels == label) & ~boxes.hard) for boxes in true])
        none = np.empty(0, np.intp), np.empty(0), *(np.empty((len(OVERLAPS), 0), np.bool_),) * 2
        pictures, scores, right, counted = (
            np.concatenate(part, axis=-1) for part in zip(*(some or [none]), strict=True)
        )
        order = np.argsort(-scores, kind="stable")
        found.append(_Matches(label, pictures[order], scores[order], right[:, order], counted[:, order], there))
    return found


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean where there is something to find, which is not -1."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None


def _drawn(matches: Sequence[_Matches], pictures: int, resamples: int) -> list[float]:
    """AP50:95 of pictures drawn anew.

    The draws depend on the pictures and what is true in them alone, so that two files' can be held against each other.
    """
    rng = np.random.default_rng(SEED)
    values = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
        value = resampled(matches, times)
        if value is not None:
            values.append(value)
    return values


def resampled(matches: Sequence[_Matches], times: NDArray[np.int64]) -> float | None:
    """AP50:95 with each picture counted so many times (pictures,); `None` where nothing is to be found."""
    found = [_of_class(one, times) for one in matches if one.true @ times]
    return float(np.mean(found)) if found else None


def _of_class(one: _Matches, times: NDArray[np.int64]) -> float:
    """Precision read at 101 recalls, where what comes later may be better: it counts from there on (VOC 2010)."""
    there = float(one.true @ times)
    weight = np.where(one.counted, times[one.picture], 0)
    right = np.cumsum(np.where(one.right, weight, 0), axis=1)
    given = np.cumsum(weight, axis=1)
    if not given.shape[1]:
        return 0.0
    precision = right / np.maximum(given, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One search for all rows: each is shifted by 2, more than a recall can be.
    shift = 2.0 * np.arange(len(right))[:, None]
    places = np.searchsorted((right / there + shift).ravel(), (RECALLS + shift).ravel()).reshape(len(right), -1)
    places -= np.arange(len(right))[:, None] * right.shape[1]
    padded = np.concatenate([precision, np.zeros((len(right), 1))], axis=1)
    return float(np.take_along_axis(padded, np.clip(places, 0, right.shape[1]), axis=1).mean())


def _at(matches: Sequence[_Matches], score: float) -> dict[str, float | None]:
    """Precision and recall of all boxes that score at least so much, at IoU 0.5."""
    right = sum(int(np.sum(one.right[0, one.score >= score])) for one in matches)
    given = sum(int(np.sum(one.counted[0, one.score >= score])) for one in matches)
    there = sum(int(one.true.sum()) for one in matches)
    return {"score": score, "precision": right / given if given else None, "recall": right / there}
