"""AP50 between epochs: a quick look by which the best epoch is found. What a detector is worth is measured on its file,
by the task of detection.

Imports boxes and geometry; cv2; keras where it is used.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes, Decoding
from featherweight.detect.geometry import found_boxes, found_scores, priors_of
from featherweight.detect.moves import Truth

LEAST_SCORE = 0.01  # what is found with less changes an average precision hardly
SAME = 0.5  # the IoU of AP50


def quick_boxes(raw: Any, decoding: Decoding) -> list[Boxes]:
    """Rows (b, p, values) → the boxes of each picture in pixels of the input: per class, the worse of two that have
    much in common is gone.
    """
    import keras

    priors = priors_of(decoding)
    corners = keras.ops.convert_to_numpy(found_boxes(raw, decoding, priors))
    scores = keras.ops.convert_to_numpy(found_scores(raw, decoding))
    limit = np.array([decoding.width, decoding.height] * 2, np.float32)
    return [_kept(np.clip(one, 0, limit), s, decoding) for one, s in zip(corners, scores, strict=True)]


def _kept(corners: NDArray[np.float32], scores: NDArray[np.float32], decoding: Decoding) -> Boxes:
    rows, labels = np.nonzero(scores > LEAST_SCORE)
    found = scores[rows, labels]
    best = np.argsort(-found, kind="stable")[: 4 * decoding.most]
    rows, labels, found = rows[best], labels[best], found[best]
    sides = np.column_stack([corners[rows, :2], corners[rows, 2:] - corners[rows, :2]]).astype(np.float64)
    # OpenCV's own types know lists alone; arrays are taken as they are.
    alone: Any = cv2.dnn.NMSBoxesBatched
    left = alone(sides, found, labels.astype(np.int32), LEAST_SCORE, decoding.iou)
    kept = np.sort(np.asarray(left, np.intp).reshape(-1))[: decoding.most]
    return Boxes(corners[rows[kept]], labels[kept].astype(np.int64), found[kept], np.zeros(len(kept), np.bool_))


def average_precision(found: Sequence[Boxes], truths: Sequence[Truth], classes: int) -> float:
    """The mean over the classes that have true boxes of the area under precision against recall, at an IoU of 0.5.

    From the best score on, a box is right that has at least that in common with a true one of its class that no better
    one has taken; of several the one with the most. Everingham et al. 2015 (VOC), §4.2, with all points. Hard ones are
    neither missed nor wrong. 0 where no picture has a box.
    """
    each = [_of_class(found, truths, label) for label in range(classes)]
    known = [value for value in each if value is not None]
    return float(np.mean(known)) if known else 0.0


def _of_class(found: Sequence[Boxes], truths: Sequence[Truth], label: int) -> float | None:
    total = sum(int(np.sum((truth[:, 4] == label) & (truth[:, 5] < 0.5))) for truth in truths)
    if not total:
        return None
    scores: list[NDArray[np.float32]] = []
    right: list[NDArray[np.int8]] = []
    for boxes, truth in zip(found, truths, strict=True):
        mine = boxes.labels == label
        scores.append(boxes.scores[mine])
        right.append(_right(boxes.corners[mine], truth[truth[:, 4] == label]))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.concatenate(right)[order]
    hits = hits[hits >= 0]
    recall = np.cumsum(hits) / total
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    # At each recall the best precision at that or a greater one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _right(corners: NDArray[np.float32], truth: Truth) -> NDArray[np.int8]:
    """For each box, best first: 1 right, 0 wrong, -1 not counted."""
    result = np.zeros(len(corners), np.int8)
    if not len(truth):
        return result
    overlap = _iou(corners, truth[:, :4])
    free = np.ones(len(truth), np.bool_)
    hard = truth[:, 5] > 0.5
    for i, row in enumerate(overlap):
        asked = np.where(free & ~hard, row, 0)
        best = int(asked.argmax())
        if asked[best] >= SAME:
            result[i], free[best] = 1, False
        elif np.any(row[hard] >= SAME):
            result[i] = -1
    return result


def _iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """(k, 4) and (m, 4) → (k, m)."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    both = np.maximum(high - low, 0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    found: NDArray[np.float64] = both / np.maximum(areas[0][:, None] + areas[1] - both, 1e-9)
    return found
