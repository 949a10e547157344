"""How much a channel matters: a number for each, summed over all that must go together.

Each criterion gives an array for every kernel or batch norm that it looks at. An array is divided by its mean, so that
layers count alike whatever the size of their weights, and the coupled members are added up.

Imports errors, progress and trace; tensorflow where it is used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError
from featherweight.progress import track
from featherweight.prune.trace import Trace, Use

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float64]
Seen = Iterator[tuple[Use, Array]]  # what is looked at, and a score for each of its entries
KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


@dataclass(frozen=True)
class Pictures:
    """What Taylor's criterion learns from: RGB 0–255 (n, h, w, 3), and truth as the loss takes it.

    `loss` is a Keras loss of (truth, the model's outputs); by default the cross-entropy of class numbers (n,).
    """

    pixels: NDArray[np.uint8]
    truth: NDArray[Any]
    loss: "keras.losses.Loss | None" = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or not len(self.pixels) or len(self.pixels) != len(self.truth):
            raise SettingError(
                f"pictures {self.pixels.shape} with truth {self.truth.shape}; wanted (n, h, w, 3) and as many of both"
            )


def importance(
    model: "keras.Model", traced: Trace, criterion: str, pictures: Pictures | None = None, seed: int = 0
) -> Array:
    """A score for each number of a channel: the higher, the more it matters. Channels that are tied have the same;
    `nan` where the criterion sees none of them (batch_norm on a layer without one).

    Args:
        model: flat, as it was traced.
        traced: its channels.
        criterion: a name of `CRITERIA`.
        pictures: for taylor.
        seed: for random.

    Raises:
        SettingError: an unknown criterion, or taylor without pictures or with pictures of another size.
    """
    if criterion not in CRITERIA:
        raise SettingError(f"unknown criterion {criterion!r}; known: {', '.join(CRITERIA)}")
    total = np.full(len(traced.parents), np.nan)
    for use, scores in CRITERIA[criterion](model, traced, pictures, seed):
        roots = traced.roots(use.channels)
        total[roots] = np.nan_to_num(total[roots])
        np.add.at(total, roots, scores / max(scores.mean(), np.finfo(float).tiny))
    return np.asarray(total[traced.roots(np.arange(len(total)))])


def _filters(traced: Trace) -> list[Use]:
    """The kernels by what they make: filters that mix, and the depthwise ones of the same channels."""
    return [use for use in traced.uses.values() if use.role != "takes" and use.name in KERNELS]


def _reduced(array: Array, axis: int, norm: Callable[[Array], Array]) -> Array:
    """(…) → one number for each entry along the axis; `norm` reduces the last axis."""
    return norm(np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1))


def _norm(norm: Callable[[Array], Array]) -> "Criterion":
    def scores(model: "keras.Model", traced: Trace, pictures: Pictures | None, seed: int) -> Seen:
        for use in _filters(traced):
            kernel = np.asarray(model.get_layer(use.layer).weights[use.weight], np.float64)
            yield use, _reduced(kernel, use.axis, norm)

    return scores


def _batch_norm(model: "keras.Model", traced: Trace, pictures: Pictures | None, seed: int) -> Seen:
    for use in traced.uses.values():
        if use.name == "gamma":
            yield use, np.abs(np.asarray(model.get_layer(use.layer).weights[use.weight], np.float64))


def _random(model: "keras.Model", traced: Trace, pictures: Pictures | None, seed: int) -> Seen:
    rng = np.random.default_rng(seed)
    for use in _filters(traced):
        if use.role == "makes":
            yield use, rng.random(len(use.channels))


def _taylor(model: "keras.Model", traced: Trace, pictures: Pictures | None, seed: int) -> Seen:
    """(Σ w · ∂loss/∂w)² over a filter, meaned over batches: what the loss would change without it, to first order."""
    import keras
    import tensorflow as tf

    if pictures is None:
        raise SettingError("the criterion taylor wants pictures; give some, or choose l1")
    if tuple(model.input_shape[1:]) != pictures.pixels.shape[1:]:
        raise SettingError(f"pictures {pictures.pixels.shape[1:]}; wanted {tuple(model.input_shape[1:])}, the model's")
    uses = _filters(traced)
    weights = [model.get_layer(use.layer).weights[use.weight] for use in uses]
    loss = pictures.loss or keras.losses.SparseCategoricalCrossentropy()
    total = [np.zeros(len(use.channels)) for use in uses]
    starts = range(0, len(pictures.pixels), pictures.batch_size)
    for start in track(starts, "gradients", len(starts)):
        rows = slice(start, start + pictures.batch_size)
        with tf.GradientTape() as tape:
            values = [weight.value for weight in weights]
            tape.watch(values)
            error = loss(pictures.truth[rows], model(pictures.pixels[rows].astype(np.float32), training=False))
        for place, (use, value, slope) in enumerate(zip(uses, values, tape.gradient(error, values), strict=True)):
            if slope is not None:  # a branch that the loss does not see
                change = np.asarray(value, np.float64) * np.asarray(slope, np.float64)
                total[place] += _reduced(change, use.axis, lambda filters: filters.sum(axis=1)) ** 2
    yield from zip(uses, total, strict=True)


Criterion = Callable[["keras.Model", Trace, Pictures | None, int], Seen]
CRITERIA: dict[str, Criterion] = {
    # Li et al. 2017, arXiv 1608.08710: filters with small absolute sums
    "l1": _norm(lambda filters: np.asarray(np.abs(filters).sum(axis=1))),
    "l2": _norm(lambda filters: np.sqrt((filters**2).sum(axis=1))),
    # Liu et al. 2017, arXiv 1708.06519: the factor that a channel is multiplied by
    "batch_norm": _batch_norm,
    # Molchanov et al. 2019, arXiv 1906.10771, equation 8
    "taylor": _taylor,
    # the control: what any choice costs
    "random": _random,
}
