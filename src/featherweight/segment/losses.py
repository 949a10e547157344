"""How wrong the pixels of a segmenter are: `loss_of(settings, weights)` gives the loss for Keras.

    loss(truth (b, h, w) or (b, h, w, 1), logits (b, h, w, channels)) → a number

`truth` has class indices, and `IGNORE` where nothing is asked: no term sees these pixels. Logits are what the model's
last softmax is given, or, of one channel, its sigmoid: class 1 against class 0. A sum of terms adds them up as they
are: all of them are about 0 to 1 once something is learned.

Imports errors, masks, models and settings; keras and tensorflow where they are used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError
from featherweight.masks import IGNORE
from featherweight.models.ends import LEAST, MOST
from featherweight.segment.settings import BALANCED, SegmentSettings, terms_of

Tensor = Any
Loss = Callable[[Tensor, Tensor], Tensor]
Weights = NDArray[np.float32]
SMOOTH = 1.0  # pixels: of a class that is neither there nor found, Dice's loss is 0
PRESENT = 1.02  # of `balanced`


def loss_of(settings: SegmentSettings, weights: Weights | None = None) -> Loss:
    """The sum that the settings name, with a weight a class (classes,) or without."""
    import tensorflow as tf

    terms = [TERMS[name] for name in terms_of(settings.loss)]

    def loss(truth: Tensor, logits: Tensor) -> Tensor:
        truth = truth[..., 0] if len(truth.shape) == len(logits.shape) else truth
        return sum(term(truth, logits, weights, settings.focus) for term in terms)

    # There is no branch on a tensor in it, and rewriting it in search of one takes as long as tracing it.
    unchanged: Loss = tf.autograph.experimental.do_not_convert(loss)
    return unchanged


def of_probabilities(loss: Loss) -> Loss:
    """A loss of logits as one of probabilities (b, h, w, channels), for where there are no others."""
    from keras import ops

    def of(truth: Tensor, p: Tensor) -> Tensor:
        p = ops.clip(p, LEAST, MOST)
        return loss(truth, ops.log(p) - ops.log1p(-p) if p.shape[-1] == 1 else ops.log(p))

    return of


def weights_of(settings: SegmentSettings, masks: Sequence[NDArray[np.uint8]], classes: int) -> Weights | None:
    """What each class counts, (classes,), in pictures with these masks; `None` where all count alike.

    Raises:
        SettingError: another number of weights than of classes.
    """
    given = settings.class_weights
    if given is None:
        return None
    if given == BALANCED:
        counts = sum(np.bincount(mask.ravel(), minlength=256)[:classes] for mask in masks)
        return balanced(np.asarray(counts))
    if len(given) != classes:
        raise SettingError(f"{len(given)} class weights for {classes} classes; wanted one each")
    return np.asarray(given, np.float32)


def balanced(counts: NDArray[np.int64]) -> Weights:
    """Weights (classes,) of classes with so many pixels each: 1 / ln(1.02 + share), divided by their mean over the
    pixels, so that the loss keeps its size. Paszke et al. 2016, arXiv 1606.02147, §5.2.

    The rarest class counts at most 36 times as much as one that is everywhere.
    """
    share = counts / max(1, counts.sum())
    weights = 1 / np.log(PRESENT + share)
    return np.asarray(weights / max(float((weights * share).sum()), 1e-9), np.float32)


# ------------------------------------------------------------------------------------------------------------ terms


def cross_entropy(truth: Tensor, logits: Tensor, weights: Weights | None, _: float) -> Tensor:
    """The mean of -log p(true class), a pixel by its class' weight: Σ w · CE / Σ w."""
    return _mean(_surprise(truth, logits), truth, logits, weights)


def focal(truth: Tensor, logits: Tensor, weights: Weights | None, focus: float) -> Tensor:
    """The mean of -(1 - p)^focus · log p of the true class. Lin et al. 2017, arXiv 1708.02002, §3.2."""
    from keras import ops

    surprise = _surprise(truth, logits)
    return _mean(ops.power(1 - ops.exp(-surprise), focus) * surprise, truth, logits, weights)


def dice(truth: Tensor, logits: Tensor, weights: Weights | None, _: float) -> Tensor:
    """1 - (2 Σ p·y + 1) / (Σ p² + Σ y² + 1), sums over all pixels of the batch; the mean over the classes that are in
    its truth, by weight. Of one channel class 1 alone counts, there or not. Milletari et al. 2016, arXiv 1606.04797,
    §3; the ones are ours: they keep a batch without the class from dividing by 0.
    """
    from keras import ops

    wanted, p = _wanted(truth, logits), _probabilities(truth, logits)
    wanted, p = (wanted[..., 1:], p[..., 1:]) if logits.shape[-1] == 1 else (wanted, p)
    axes = (0, 1, 2)
    both, ours, theirs = (ops.sum(one, axes) for one in (p * wanted, p * p, wanted))
    return _over_classes(1 - (2 * both + SMOOTH) / (ours + theirs + SMOOTH), theirs, logits, weights)


def lovasz(truth: Tensor, logits: Tensor, weights: Weights | None, _: float) -> Tensor:
    """The Lovász extension of 1 - IoU over all pixels of the batch: of the errors |y - p| of each class that is in its
    truth (Lovász-softmax), of one channel that of the hinge 1 - z · (±1) (Lovász hinge). Berman et al. 2018, arXiv
    1705.08790, §2.2–3.
    """
    from keras import ops

    asked = ops.reshape(_asked(truth), (-1,))
    if logits.shape[-1] == 1:
        here = ops.reshape(_wanted(truth, logits)[..., 1], (-1,))
        errors = ops.maximum(1 - ops.reshape(logits, (-1,)) * (2 * here - 1), 0.0)
        return _extension(errors * asked, here)
    classes = logits.shape[-1]
    wanted, p = (ops.reshape(one, (-1, classes)) for one in (_wanted(truth, logits), _probabilities(truth, logits)))
    each = [_extension(ops.abs(wanted[:, i] - p[:, i]) * asked, wanted[:, i]) for i in range(classes)]
    return _over_classes(ops.stack(each), ops.sum(wanted, axis=0), logits, weights)


def _extension(errors: Tensor, here: Tensor) -> Tensor:
    """Σ errors, greatest first, by how much IoU each costs beyond those before it: algorithm 1 of that paper.

    Errors (n,) from 0 on; `here` (n,) is 1 where the class is true. A pixel that is not asked has the error 0 and is
    nowhere true, so that it comes behind all that cost anything.
    """
    from keras import ops

    order = ops.argsort(-ops.stop_gradient(errors))
    errors, here = ops.take(errors, order), ops.take(here, order)
    total = ops.sum(here)
    lost = 1 - (total - ops.cumsum(here)) / ops.maximum(total + ops.cumsum(1 - here), 1.0)
    return ops.sum(errors * (lost - ops.concatenate([ops.zeros_like(lost[:1]), lost[:-1]])))


TERMS = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice, "lovasz": lovasz}


# ----------------------------------------------------------------------------------------------------------- pixels


def _asked(truth: Tensor) -> Tensor:
    """(b, h, w): 1 where something is asked."""
    from keras import ops

    return ops.cast(ops.not_equal(truth, IGNORE), "float32")


def _labels(truth: Tensor) -> Tensor:
    """(b, h, w): class indices; 0 where nothing is asked."""
    from keras import ops

    return ops.cast(ops.where(ops.equal(truth, IGNORE), ops.zeros_like(truth), truth), "int32")


def _wanted(truth: Tensor, logits: Tensor) -> Tensor:
    """(b, h, w, classes): 1 at the true class, all 0 where nothing is asked."""
    from keras import ops

    return ops.one_hot(_labels(truth), max(2, logits.shape[-1])) * _asked(truth)[..., None]


def _probabilities(truth: Tensor, logits: Tensor) -> Tensor:
    """(b, h, w, classes): as `_wanted`."""
    from keras import ops

    if logits.shape[-1] == 1:
        first = ops.sigmoid(logits)
        p = ops.concatenate([1 - first, first], axis=-1)
    else:
        p = ops.softmax(logits)
    return p * _asked(truth)[..., None]


def _surprise(truth: Tensor, logits: Tensor) -> Tensor:
    """(b, h, w): -log p of the true class, without an overflow."""
    from keras import ops

    labels = _labels(truth)
    if logits.shape[-1] == 1:
        return ops.softplus(logits[..., 0] * (1 - 2 * ops.cast(labels, logits.dtype)))
    return -ops.sum(ops.one_hot(labels, logits.shape[-1]) * ops.log_softmax(logits), axis=-1)


def _mean(each: Tensor, truth: Tensor, logits: Tensor, weights: Weights | None) -> Tensor:
    """Over the pixels that are asked, by their class' weight; 0 where there is none."""
    from keras import ops

    count = _asked(truth) if weights is None else ops.sum(_wanted(truth, logits) * weights, axis=-1)
    return ops.sum(each * count) / ops.maximum(ops.sum(count), 1e-9)


def _over_classes(each: Tensor, pixels: Tensor, logits: Tensor, weights: Weights | None) -> Tensor:
    """The mean of (classes,) over those with any pixels, by weight; one value is itself."""
    from keras import ops

    if logits.shape[-1] == 1:
        return each[0]
    count = ops.cast(pixels > 0, "float32") * (1.0 if weights is None else weights)
    return ops.sum(each * count) / ops.maximum(ops.sum(count), 1e-9)
