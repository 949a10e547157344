"""How wrong a detector's rows are: `loss_of(decoding)` gives the loss for Keras.

    loss(truth (b, m, 6), raw (b, priors, values)) → a number

`truth` is as in `assign`. Both losses are sums over the rows of a batch, divided by how much is asked for: the number
of rows that answer for a box, or the sum of the scores that they should have, and at least 1. So a batch without boxes
has a loss, of what was found where nothing is. Imports assign and geometry; keras and tensorflow
where they are used.
"""

from collections.abc import Callable
from typing import Any

from featherweight.boxes import Decoding
from featherweight.detect.assign import Assigned, by_anchor, by_task
from featherweight.detect.geometry import (
    Priors,
    bins_of,
    complete_iou,
    found_boxes,
    found_scores,
    priors_of,
    split,
)

Tensor = Any
Loss = Callable[[Tensor, Tensor], Tensor]
# What one row's box counts beside its class, and beside that what its distribution does: as the losses that these are
# from were weighed (Yu et al. 2021, arXiv 2111.00902, §3.2: 2.5 and 0.5 for detectors of this size).
BOX, DISTRIBUTION = 2.5, 0.5
# Of kind yolo: what a row's box counts beside its objectness and its classes.
YOLO_BOX = 2.0


def loss_of(decoding: Decoding) -> Loss:
    """The loss for the rows that a decoding describes.

    Raises:
        SettingError: a kind that cannot be trained on.
    """
    import tensorflow as tf

    priors = priors_of(decoding)
    kind = _yolo if decoding.kind == "yolo" else _distances

    def loss(truth: Tensor, raw: Tensor) -> Tensor:
        return kind(truth, raw, decoding, priors)

    # There is no branch on a tensor in it, and rewriting it in search of one takes as long as tracing it.
    unchanged: Loss = tf.autograph.experimental.do_not_convert(loss)
    return unchanged


def _yolo(truth: Tensor, raw: Tensor, decoding: Decoding, priors: Priors) -> Tensor:
    """Rows that answer for a box: 1 - CIoU, objectness towards 1, their class towards 1 and the others towards 0; the
    others' objectness towards 0. Redmon & Farhadi 2018, arXiv 1804.02767, §2.1, with the loss of boxes and the rows of
    Bochkovskiy et al. 2020, arXiv 2004.10934, §3.4.
    """
    from keras import ops

    _, objectness, classes = split(raw, decoding)
    boxes = found_boxes(raw, decoding, priors)
    found = by_anchor(boxes, truth, decoding, priors)
    count = ops.maximum(ops.sum(found.quality), 1.0)
    box = ops.sum(found.quality * (1 - complete_iou(boxes, found.truth[..., :4])))
    there = ops.sum(
        cross_entropy(objectness[..., 0], found.quality)
        * ops.cast(ops.logical_or(found.positive, found.negative), raw.dtype)
    )
    kind = ops.sum(cross_entropy(classes, _one_hot(found, decoding)) * found.quality[..., None])
    return (YOLO_BOX * box + there + kind) / count


def _distances(truth: Tensor, raw: Tensor, decoding: Decoding, priors: Priors) -> Tensor:
    """Classes: the quality focal loss |y - σ|² · BCE(σ, y), whose y is how well the row does, 0 for all other classes
    and rows. Boxes: 1 - CIoU; and, where distances are distributions, the cross entropy of the two bins beside the true
    distance. Both count as y does. Li et al. 2020, arXiv 2006.04388, §3.1–3.2.
    """
    from keras import ops

    box, _, classes = split(raw, decoding)
    boxes = found_boxes(raw, decoding, priors)
    found = by_task(found_scores(raw, decoding), boxes, truth, priors)
    count = ops.maximum(ops.sum(found.quality), 1.0)
    wanted = _one_hot(found, decoding) * found.quality[..., None]
    focus = ops.square(ops.sigmoid(classes) - wanted) * cross_entropy(classes, wanted)
    told = ops.cast(ops.logical_or(found.positive, found.negative), raw.dtype)
    total = ops.sum(focus * told[..., None])
    total += BOX * ops.sum(found.quality * (1 - complete_iou(boxes, found.truth[..., :4])))
    if decoding.bins:
        total += DISTRIBUTION * ops.sum(found.quality * _distribution(box, found, decoding, priors))
    return total / count


def _distribution(box: Tensor, found: Assigned, decoding: Decoding, priors: Priors) -> Tensor:
    """(b, p): the mean over the four sides of -((k + 1 - d) · log p(k) + (d - k) · log p(k + 1)), k <= d < k + 1."""
    from keras import ops

    true = found.truth
    nearer = (priors.centres - true[..., :2]) / priors.strides
    farther = (true[..., 2:4] - priors.centres) / priors.strides
    distances = ops.clip(ops.concatenate([nearer, farther], -1), 0.0, decoding.bins - 1.001)
    below = ops.floor(distances)
    share = distances - below
    index = ops.cast(below, "int32")
    wanted = ops.one_hot(index, decoding.bins) * (1 - share)[..., None]
    wanted += ops.one_hot(index + 1, decoding.bins) * share[..., None]
    return ops.mean(-ops.sum(wanted * ops.log_softmax(bins_of(box, decoding)), -1), -1)


def _one_hot(found: Assigned, decoding: Decoding) -> Tensor:
    """(b, p, classes): 1 at the class of the box that a row answers for."""
    from keras import ops

    kinds = ops.one_hot(ops.cast(ops.maximum(found.truth[..., 4], 0.0), "int32"), decoding.classes)
    return kinds * ops.cast(found.positive, kinds.dtype)[..., None]


def cross_entropy(raw: Tensor, wanted: Tensor) -> Tensor:
    """-y log σ(x) - (1 - y) log(1 - σ(x)), without an overflow: max(x, 0) - x y + log(1 + e^-|x|)."""
    from keras import ops

    return ops.maximum(raw, 0.0) - raw * wanted + ops.log1p(ops.exp(-ops.abs(raw)))
