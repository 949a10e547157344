"""From what an activation was on calibration pictures to the range that its 256 codes span.

- minmax: from the least to the greatest value. Nothing is clipped; one outlier makes all steps coarse.
- percentile: the middle share of the values; the rest is clipped, half of it on each side.
- entropy: the range whose 256 steps lose the least information (Kullback-Leibler divergence), after Migacz, "8-bit
  Inference with TensorRT", 2017. There a range is symmetric about 0; here both ends shrink alike, so that what is
  never negative keeps all codes for what it is.

Pictures are run twice where histograms are wanted: once for the bounds, once for the counts between them. Imports
nothing of the package.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 2048
CODES = 256
Tensors = Mapping[str, NDArray[np.float32]]


class Range(NamedTuple):
    """The least and the greatest value that codes stand for."""

    low: float
    high: float

    def at_least(self, width: float) -> "Range":
        """The same with 0 in it, and so wide: both ends move away from 0 in proportion."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if high - low >= width:
            return Range(low, high)
        return Range(low * width / (high - low), high * width / (high - low)) if high > low else Range(0.0, width)


FULL_PICTURE = Range(0.0, 255.0)  # of the input: a pixel is its own code, whatever the calibration pictures


def observe(
    runs: Callable[[], Iterable[Tensors]], method: str, percentile: float, whole: Collection[str] = ()
) -> dict[str, Range]:
    """The range of every tensor by name.

    Args:
        runs: runs the calibration pictures and yields the tensors of each by name; called once or twice.
        method: minmax, percentile or entropy.
        percentile: the share of values to keep, in percent.
        whole: tensors of which nothing is clipped, as the answers: their rare great values are what they say.
    """
    found = _bounds(runs())
    if method == "minmax":
        return found
    counts = _histograms(runs(), {name: bounds for name, bounds in found.items() if name not in whole})
    if method == "percentile":
        return found | {name: middle(values, found[name], percentile) for name, values in counts.items()}
    return found | {name: entropy(values, found[name]) for name, values in counts.items()}


def middle(counts: NDArray[np.int64], bounds: Range, percentile: float) -> Range:
    """The range of the middle share of values, in percent, to the next edge of a bin."""
    tail = (100 - percentile) / 200
    share = np.cumsum(counts) / max(1, counts.sum())
    edges = np.linspace(bounds.low, bounds.high, len(counts) + 1)
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return Range(float(edges[min(first, last)]), float(edges[min(last, len(counts) - 1) + 1]))


def entropy(counts: NDArray[np.int64], bounds: Range) -> Range:
    """The range, out of `bounds` shrunk towards 0, of the least divergence between values and codes.

    Zeros are left out: they have a code of their own in every range, and after a ReLU they are most of the values.
    """
    edges = np.linspace(bounds.low, bounds.high, len(counts) + 1)
    zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(counts) - 1))
    values = counts.copy()
    values[zero] = values[min(zero + 1, len(values) - 1)]
    best, least = bounds, np.inf
    for part in np.linspace(1.0, CODES / len(counts), 57):
        first = int(np.searchsorted(edges, bounds.low * part, side="right")) - 1 if bounds.low < 0 else 0
        last = int(np.searchsorted(edges, bounds.high * part, side="left")) if bounds.high > 0 else len(counts)
        if last - first < CODES:
            break
        divergence = _divergence(values, first, last)
        if divergence < least:
            best, least = Range(float(edges[first]), float(edges[last])), divergence
    return best


def _divergence(counts: NDArray[np.int64], first: int, last: int) -> float:
    """KL(values ‖ codes) where bins outside of [first, last) are clipped to its ends."""
    inside = counts[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    starts = (np.arange(CODES) * len(inside)) // CODES  # the first bin of each code
    filled = np.add.reduceat((inside > 0).astype(np.float64), starts)
    level = np.add.reduceat(inside, starts) / np.maximum(filled, 1)
    coded = np.repeat(level, np.diff(starts, append=len(inside))) * (inside > 0)
    return _kl(clipped, coded)


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Of counts, each with a millionth of its sum added to every bin, so that none is empty."""
    p, q = (side + 1e-6 * max(1.0, side.sum()) for side in (p, q))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


def _bounds(runs: Iterable[Tensors]) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for tensors in runs:
        for name, values in tensors.items():
            low, high = float(values.min()), float(values.max())
            before = found.get(name, Range(low, high))
            found[name] = Range(min(low, before.low), max(high, before.high))
    return found


def _histograms(runs: Iterable[Tensors], bounds: Mapping[str, Range]) -> dict[str, NDArray[np.int64]]:
    counts = {name: np.zeros(BINS, np.int64) for name in bounds}
    for tensors in runs:
        for name, (low, high) in bounds.items():
            if high > low:
                places = ((tensors[name].ravel() - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int64)
                counts[name] += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
    return counts
