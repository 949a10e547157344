"""Percentiles and intervals, and from how many samples on they may be said.

Imports nothing of the package.
"""

import math
from collections.abc import Sequence

Z95 = 1.959963984540054

# The least number of samples from which a percentile may be claimed with 99 % confidence (MLPerf LoadGen's rule).
MIN_SAMPLES = {50: 11, 90: 64, 99: 662}


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `percent` % of all do not exceed.

    Raises:
        ValueError: no samples, or a percent outside (0, 100].
    """
    if not samples or not 0 < percent <= 100:
        raise ValueError(f"percentile {percent} of {len(samples)} samples; wanted 0 < percent <= 100 and a sample")
    return sorted(samples)[max(0, math.ceil(percent * len(samples) / 100) - 1)]


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson 1927): it stays inside 0–1 and is honest at the ends.

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials; wanted 0 <= successes <= trials and a trial")
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the bound is exact; rounding must not push it past the share itself.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median by order statistics; `None` under 6 samples, where there is none.

    The interval is [x_(r), x_(n-r+1)] with the largest r for which P(Binomial(n, 1/2) < r) <= 0.025.
    """
    n = len(samples)
    if n < 6:
        return None
    rank, tail, probability = 0, 0.0, 0.5**n if n < 1000 else 0.0
    if n < 1000:
        while tail + probability <= 0.025:
            tail += probability
            rank += 1
            probability *= (n - rank + 1) / rank
    else:  # the normal approximation is exact to a rank here
        rank = int(n / 2 - Z95 * math.sqrt(n) / 2)
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[n - rank]


def spread(samples: Sequence[float]) -> float:
    """The interquartile range as a share of the median."""
    return (percentile(samples, 75) - percentile(samples, 25)) / percentile(samples, 50)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """How far two orders agree, -1 to 1 (C. Spearman 1904): the correlation of the ranks, equal values sharing theirs.

    Raises:
        ValueError: fewer than two values, another number of them, or one side all equal.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} values; wanted two or more, and as many on both sides")
    x, y = _ranks(first), _ranks(second)
    middle = (len(x) + 1) / 2
    spread = math.sqrt(sum((a - middle) ** 2 for a in x) * sum((b - middle) ** 2 for b in y))
    if spread == 0:
        raise ValueError("all values of one side are equal; they have no order")
    return sum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True)) / spread


def _ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal values get the mean of their places."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
