"""AP50 between epochs: a quick look by which the best epoch is found. What a detector is worth is measured on its file,
by the task of detection.

Imports boxes, decode, matches, moves and suppress.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes, Decoding, place
from featherweight.decode import decode
from featherweight.detect.moves import Truth
from featherweight.matches import OVERLAP, overlaps
from featherweight.suppress import suppress

LEAST_SCORE = 0.01  # what is found with less changes an average precision hardly


def quick_boxes(raw: Any, decoding: Decoding) -> list[Boxes]:
    """Rows (b, p, values) → the boxes of each picture in pixels of the input, suppressed, best first."""
    size = decoding.height, decoding.width
    found = decode(np.asarray(raw, np.float32), decoding, LEAST_SCORE)
    # Of thousands that an untrained head finds, only the best can be among those kept.
    best = (boxes.take(np.arange(min(len(boxes), 4 * decoding.most))) for boxes in found)
    return [place(suppress(boxes, decoding.iou, decoding.most), "stretch", size, size) for boxes in best]


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
    overlap = overlaps(corners, truth[:, :4])
    free = np.ones(len(truth), np.bool_)
    hard = truth[:, 5] > 0.5
    for i, row in enumerate(overlap):
        asked = np.where(free & ~hard, row, 0)
        best = int(asked.argmax())
        if asked[best] >= OVERLAP:
            result[i], free[best] = 1, False
        elif np.any(row[hard] >= OVERLAP):
            result[i] = -1
    return result
