"""What int8 weights make wrong on average goes into the biases. Imports nothing of the package but `ranges`.

Weights W that become W' change a layer's output by (W' - W) x. Its mean over pictures and places, for each output
channel, is Σ (W' - W) over the kernel's places times the mean of x, and is taken off the bias: Nagel et al. 2019,
arXiv 1906.04721, §4.2, here with means measured on pictures. At borders, where a kernel sees padding, the mean is taken
to be as inside.
"""

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from featherweight.quantize.ranges import Tensors


def channel_means(runs: Iterable[Tensors], names: Collection[str], axis: int) -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of these tensors over pictures and places; `axis` is that of the channels."""
    sums = dict.fromkeys(names, np.zeros(()))
    count = 0
    for count, tensors in enumerate(runs, start=1):  # noqa: B007
        for name in names:
            values = tensors[name]
            others = tuple(place for place in range(values.ndim) if place != axis % values.ndim)
            sums[name] = sums[name] + values.mean(axis=others, dtype=np.float64)
    return {name: total / max(1, count) for name, total in sums.items()}


def mean_change(change: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean change of a layer's outputs (out,).

    Args:
        change: of the weights, summed over the kernel's places (out, in / groups).
        mean: of the layer's inputs (in,).
    """
    groups = len(mean) // change.shape[1]
    by_group = change.astype(np.float64).reshape(groups, -1, change.shape[1])
    return np.asarray(np.einsum("goi,gi->go", by_group, mean.reshape(groups, -1)).ravel())
