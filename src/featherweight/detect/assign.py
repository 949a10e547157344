"""Which row of a detector's output answers for which true box.

True boxes of a batch are (b, m, 6): left, top, right, bottom in pixels of the network's input, the class, and 1 for
hard ones; as many a picture as the one with the most has, the others' rows filled up with class -1. No gradient flows
through an assignment. Imports geometry; keras where it is used.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.boxes import Decoding
from featherweight.detect.geometry import Priors, iou, shape_iou

Tensor = Any
# Of the task-aligned assignment: t = score^α · IoU^β. Feng et al. 2021, arXiv 2108.07755, §3.2.
ALPHA, BETA, MOST_ROWS = 1.0, 6.0, 13
# An anchor whose shape has more than this in common with a box learns it besides the one that has the most: iou_thresh
# of YOLOv4's configurations.
ALSO = 0.213
# A row whose box has more than this in common with a true one is not told that nothing is there: YOLOv4's
# ignore_thresh.
IGNORED, IGNORED_HARD = 0.7, 0.5
# Less than any score · IoU⁶ that matters: among cells whose boxes have nothing in common with the truth yet, the
# nearest are taken.
FAINT = 1e-12


@dataclass(frozen=True)
class Assigned:
    """For each row of each picture (b, p): whether it answers for a box, which one (b, p, 6), how well it does so (0–1,
    the score that it should have), and whether it is told that nothing is there.
    """

    positive: Tensor
    truth: Tensor
    quality: Tensor
    negative: Tensor


def by_task(scores: Tensor, boxes: Tensor, truth: Tensor, priors: Priors) -> Assigned:
    """The rows that are best at class and place together answer for a box. Feng et al. 2021, arXiv 2108.07755, §3.2.

    Of the cells whose middle lies inside of the box, the 13 with the greatest t = score · IoU⁶; one that is taken by
    several boxes answers for that of the greatest IoU. The wanted score is t, scaled so that the best row's is its IoU.
    Here a box counts as at least a cell wide and high, so that none is between all cells.

    Args:
        scores: (b, p, classes), 0–1.
        boxes: (b, p, 4) found.
        truth: (b, m, 6).
        priors: of the p rows.
    """
    from keras import ops

    scores, boxes = ops.stop_gradient(scores), ops.stop_gradient(boxes)
    is_true = _asked(truth)
    overlap = iou(truth[:, :, None, :4], boxes[:, None])  # (b, m, p), as all below
    kinds = ops.one_hot(ops.cast(ops.maximum(truth[..., 4], 0.0), "int32"), scores.shape[-1])
    aligned = ops.einsum("bmc,bpc->bmp", kinds, scores) ** ALPHA * overlap**BETA
    inside, far = _inside(truth, priors)
    allowed = ops.logical_and(inside, is_true[..., None])
    rank = ops.where(allowed, aligned + FAINT / (1 + far), 0.0)
    least = ops.top_k(rank, min(MOST_ROWS, rank.shape[-1]))[0][..., -1:]
    chosen = ops.logical_and(allowed, rank >= least)
    owner = ops.argmax(ops.where(chosen, overlap, -1.0), axis=1)  # (b, p)
    positive = ops.any(chosen, axis=1)
    owned = ops.logical_and(chosen, ops.arange(ops.shape(truth)[1])[None, :, None] == owner[:, None])
    owned_aligned, owned_overlap = ops.where(owned, aligned, 0.0), ops.where(owned, overlap, 0.0)
    best = ops.max(owned_aligned, axis=-1, keepdims=True)
    quality = owned_aligned / ops.maximum(best, 1e-30) * ops.max(owned_overlap, axis=-1, keepdims=True)
    spared = ops.any(ops.logical_and(inside, _hard(truth)[..., None]), axis=1)
    return Assigned(
        positive,
        _take(truth, owner),
        ops.sum(quality, axis=1),
        ops.logical_not(ops.logical_or(positive, spared)),
    )


def by_anchor(boxes: Tensor, truth: Tensor, decoding: Decoding, priors: Priors) -> Assigned:
    """In the cell that holds a box's middle, the anchor of all maps whose shape is nearest answers for it, and all
    whose shape has an IoU over 0.213 with it; as Darknet's YOLOv4 does. Bochkovskiy et al. 2020, arXiv 2004.10934, §3.4
    (several anchors for a box). Where two boxes meet in one row, it answers for the one whose shape is nearer.

    Args:
        boxes: (b, p, 4) found.
        truth: (b, m, 6).
        decoding: of kind yolo.
        priors: of the p rows.
    """
    from keras import ops

    sizes = np.array([anchor for scale in decoding.scales for anchor in scale.anchors], np.float32)
    is_true = _asked(truth)
    sides = truth[..., 2:4] - truth[..., :2]
    # A middle on the picture's far edge belongs to the last cell.
    limit = np.array([decoding.width, decoding.height], np.float32) * (1 - 1e-6)
    middle = ops.clip((truth[..., :2] + truth[..., 2:4]) / 2, 0.0, limit)
    offset = middle[:, :, None] - (priors.centres - priors.strides / 2)
    in_cell = ops.all(ops.logical_and(offset >= 0, offset < priors.strides), axis=-1)  # (b, m, p), as all below
    best = ops.max(shape_iou(sides[:, :, None], sizes), axis=-1, keepdims=True)
    alike = shape_iou(sides[:, :, None], priors.anchors)
    chosen = ops.logical_and(in_cell, ops.logical_or(alike >= best * (1 - 1e-6), alike > ALSO))
    chosen = ops.logical_and(chosen, is_true[..., None])
    owner = ops.argmax(ops.where(chosen, alike, -1.0), axis=1)
    positive = ops.any(chosen, axis=1)
    overlap = iou(truth[:, :, None, :4], ops.stop_gradient(boxes)[:, None])
    near = ops.logical_or(
        ops.logical_and(overlap > IGNORED, is_true[..., None]),
        ops.logical_and(overlap > IGNORED_HARD, _hard(truth)[..., None]),
    )
    negative = ops.logical_not(ops.logical_or(positive, ops.any(near, axis=1)))
    return Assigned(positive, _take(truth, owner), ops.cast(positive, "float32"), negative)


def _asked(truth: Tensor) -> Tensor:
    """(b, m): which rows are boxes that are to be found."""
    from keras import ops

    return ops.logical_and(truth[..., 4] >= 0, truth[..., 5] < 0.5)


def _hard(truth: Tensor) -> Tensor:
    from keras import ops

    return ops.logical_and(truth[..., 4] >= 0, truth[..., 5] >= 0.5)


def _inside(truth: Tensor, priors: Priors) -> tuple[Tensor, Tensor]:
    """(b, m, p): whether a cell's middle is inside of a box, and how far it is from the box's middle, in cells."""
    from keras import ops

    middle = (truth[..., :2] + truth[..., 2:4])[:, :, None] / 2
    sides = ops.maximum((truth[..., 2:4] - truth[..., :2])[:, :, None], priors.strides)
    away = ops.abs(priors.centres - middle)
    return ops.all(away <= sides / 2, axis=-1), ops.sum(away / priors.strides, axis=-1)


def _take(truth: Tensor, owner: Tensor) -> Tensor:
    """The rows (b, p, 6) of the boxes (b, m, 6) that `owner` (b, p) names."""
    from keras import ops

    return ops.take_along_axis(truth, owner[..., None], axis=1)
