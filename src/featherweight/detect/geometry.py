"""Rows of a detector's output → boxes, and how much boxes have in common: tensors, through which gradients flow.

Boxes are (…, 4): left, top, right, bottom in pixels of the network's input. Imports boxes and errors; keras where it is
used.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Decoding
from featherweight.errors import SettingError

Tensor = Any
Array = NDArray[np.float32]
# A side of e⁸ anchors is none; beyond that an exponential of a weight gone astray is no number.
MOST_EXPONENT = 8.0
TINY = 1e-7
LEARNT = ("yolo", "distances")


@dataclass(frozen=True)
class Priors:
    """What each row (p) starts from; all in pixels of the network's input."""

    centres: Array  # (p, 2): x, y of the cell's middle
    strides: Array  # (p, 2): width and height of the cell
    anchors: Array  # (p, 2): width and height; zeros where there are none
    xy_scales: Array  # (p, 1)


def priors_of(decoding: Decoding) -> Priors:
    """The rows of a decoding in their order.

    Raises:
        SettingError: a kind that cannot be trained on.
    """
    if decoding.kind not in LEARNT or decoding.uncertain or decoding.activated:
        what = f"{decoding.kind}{', uncertain' * decoding.uncertain}{', activated' * decoding.activated}"
        raise SettingError(f"a detector of kind {what} is not trained here; wanted {' or '.join(LEARNT)}")
    parts: list[tuple[Array, ...]] = []
    for scale in decoding.scales:
        anchors = np.array(scale.anchors or ((0.0, 0.0),), np.float32)
        stride = np.array([decoding.width / scale.width, decoding.height / scale.height], np.float32)
        rows, columns = np.mgrid[: scale.height, : scale.width]
        cells = (np.stack([columns, rows], -1).reshape(-1, 2) + 0.5) * stride
        count = len(cells) * len(anchors)
        parts.append(
            (
                np.repeat(cells, len(anchors), 0).astype(np.float32),
                np.tile(stride, (count, 1)),
                np.tile(anchors, (len(cells), 1)),
                np.full((count, 1), scale.xy_scale, np.float32),
            )
        )
    return Priors(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def split(raw: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (…, values) → what is of the box, the objectness (…, 1 or 0) and the classes (…, classes), all raw."""
    kept = decoding.values - decoding.classes
    box = 4 if decoding.kind == "yolo" else kept
    return raw[..., :box], raw[..., box:kept], raw[..., kept:]


def found_boxes(raw: Tensor, decoding: Decoding, priors: Priors) -> Tensor:
    """Rows (b, p, values) → boxes (b, p, 4), not clipped to the picture."""
    from keras import ops

    box, _, _ = split(raw, decoding)
    if decoding.kind == "yolo":
        moved = (ops.sigmoid(box[..., :2]) - 0.5) * priors.xy_scales * priors.strides
        centres = priors.centres + moved
        halves = priors.anchors * ops.exp(ops.minimum(box[..., 2:], MOST_EXPONENT)) / 2
        return ops.concatenate([centres - halves, centres + halves], -1)
    distances = found_distances(box, decoding)
    centres, strides = priors.centres, priors.strides
    return ops.concatenate([centres - distances[..., :2] * strides, centres + distances[..., 2:] * strides], -1)


def found_distances(box: Tensor, decoding: Decoding) -> Tensor:
    """(b, p, 4 · bins) → (b, p, 4): left, top, right, bottom in strides; of a distribution its mean."""
    from keras import ops

    if not decoding.bins:
        return box
    shares = ops.softmax(bins_of(box, decoding))
    return ops.sum(shares * np.arange(decoding.bins, dtype=np.float32), -1)


def bins_of(box: Tensor, decoding: Decoding) -> Tensor:
    """(b, p, 4 · bins) → (b, p, 4, bins), raw."""
    from keras import ops

    return ops.reshape(box, (-1, decoding.priors, 4, decoding.bins))


def found_scores(raw: Tensor, decoding: Decoding) -> Tensor:
    """Rows (b, p, values) → scores (b, p, classes), 0–1; with an objectness its product with each class."""
    from keras import ops

    _, objectness, classes = split(raw, decoding)
    scores = ops.softmax(classes) if decoding.softmax else ops.sigmoid(classes)
    return ops.sigmoid(objectness) * scores if decoding.kind == "yolo" else scores


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (…, 4) and (…, 4) → (…); 0 where a box has no area."""
    from keras import ops

    sides = ops.minimum(first[..., 2:], second[..., 2:]) - ops.maximum(first[..., :2], second[..., :2])
    both = ops.prod(ops.maximum(sides, 0.0), axis=-1)
    return both / ops.maximum(_area(first) + _area(second) - both, TINY)


def shape_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes of sides (…, 2) and (…, 2) with one centre."""
    from keras import ops

    both = ops.prod(ops.minimum(first, second), axis=-1)
    return both / ops.maximum(ops.prod(first, axis=-1) + ops.prod(second, axis=-1) - both, TINY)


def complete_iou(found: Tensor, true: Tensor) -> Tensor:
    """IoU - ρ² / c² - α v, -1.5 … 1: less for centres that lie apart (ρ, against the diagonal c of what holds both) and
    for another ratio of sides (v). Zheng et al. 2020, arXiv 1911.08287, §3.3. No gradient flows through α.
    """
    from keras import ops

    overlap = iou(found, true)
    apart = ops.sum(ops.square(found[..., :2] + found[..., 2:] - true[..., :2] - true[..., 2:]), -1) / 4
    around = ops.maximum(found[..., 2:], true[..., 2:]) - ops.minimum(found[..., :2], true[..., :2])
    diagonal = ops.maximum(ops.sum(ops.square(around), -1), TINY)
    ratio = (4 / math.pi**2) * ops.square(_ratio(true) - _ratio(found))
    weight = ops.stop_gradient(ratio / ops.maximum(1 - overlap + ratio, TINY))
    return overlap - apart / diagonal - weight * ratio


def _area(boxes: Tensor) -> Tensor:
    from keras import ops

    return ops.prod(ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def _ratio(boxes: Tensor) -> Tensor:
    """arctan(w / h), 0 … π / 2."""
    from keras import ops

    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], TINY)
    return ops.arctan(sides[..., 0] / sides[..., 1])
