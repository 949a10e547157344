"""Percentiles, intervals and tests, and from how many samples on something may be said.

A against B: one log-ratio of times a pair of fresh processes; `ratio_interval` says how large the ratio is, `verdict`
whether it may be said, `more_wanted` when to stop. Accuracies: `mcnemar` and `accuracy_difference`, on the same images.

Imports nothing of the package.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import NormalDist, median
from typing import Literal, NamedTuple

Z95 = 1.959963984540054

# The least number of samples from which a percentile may be claimed with 99 % confidence: at most one of so many lies
# beyond the true percentile with a chance under 1 % (MLPerf LoadGen's early stopping).
MIN_SAMPLES: dict[float, int] = {50: 11, 90: 64, 95: 130, 99: 662, 99.9: 6_636}

# The practical margin: a smaller difference of times is none, however surely it was measured.
MARGIN = 0.02

# Pairs of fresh processes: so many first, so many more at a time while the interval is wider than the margin, at most
# so many. Looking again and again makes an interval cover less than it says; with these numbers of pairs, of which
# some have an exact level above 95 %, it covers in 95.0 to 96.4 % (benchmarks/coverage.py --sessions 20000).
PAIRS_START, PAIRS_STEP, PAIRS_CAP = 20, 4, 40

OUTLIER_DEVIATIONS = 10.0
RESAMPLES = 10_000


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


def median_interval(samples: Sequence[float], alpha: float = 0.05) -> tuple[float, float] | None:
    """The 1 - alpha interval of the median by order statistics; `None` where so few samples have none (under 6).

    The interval is [x_(r), x_(n-r+1)] with the largest r for which P(Binomial(n, 1/2) < r) <= alpha / 2.
    """
    n = len(samples)
    rank = _median_rank(n, alpha)
    if rank == 0:
        return None
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[n - rank]


def _median_rank(n: int, alpha: float) -> int:
    if n >= 1000:  # the normal approximation is exact to a rank here
        return int(n / 2 - NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(n) / 2)
    rank, tail, term, most = 0, 0, 1, Fraction(alpha) / 2 * 2**n  # exact, in units of 2^-n
    while tail + term <= most:
        tail += term
        rank += 1
        term = term * (n - rank + 1) // rank
    return rank


def spread(samples: Sequence[float]) -> float:
    """The interquartile range as a share of the median."""
    return (percentile(samples, 75) - percentile(samples, 25)) / percentile(samples, 50)


def outliers(samples: Sequence[float]) -> tuple[int, ...]:
    """The places of the samples that lie far off: to be flagged, and never dropped, as they happened.

    Far is over 10 scaled median absolute deviations from the median, as hyperfine has it (B. Iglewicz and D. Hoaglin,
    How to Detect and Handle Outliers, 1993, with a wider cut): times have long tails, and criterion's fences of 3
    interquartile ranges would flag runs in every measurement. Where over half of the samples are equal, the mean
    absolute deviation takes its place, as in that book.
    """
    if not samples:
        return ()
    middle = median(samples)
    distances = [abs(sample - middle) for sample in samples]
    scale = 1.4826 * median(distances) or 1.2533 * math.fsum(distances) / len(distances)
    return tuple(place for place, distance in enumerate(distances) if distance > OUTLIER_DEVIATIONS * scale)


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


# ----------------------------------------------------------------------------------------------- A against B

Word = Literal["faster", "slower", "no difference shown"]
NOT_SHOWN: Word = "no difference shown"


@dataclass(frozen=True)
class Ratio:
    """How many times the time of B is that of A: the median over pairs and its interval; under 1, A is the faster."""

    median: float
    low: float
    high: float
    n: int  # pairs

    @property
    def half_width(self) -> float:
        """Half the interval, as a logarithm of a ratio."""
        return math.log(self.high / self.low) / 2

    def __str__(self) -> str:
        return f"{self.median:.3f} times the time ({self.low:.3f}–{self.high:.3f}, {self.n} pairs)"


@dataclass(frozen=True)
class Verdict:
    """What may be said of A against B.

    `detectable` is a share of the time (0.05 is 5 %): a difference of that size would have its interval clear the
    margin with the noise of these pairs, so that about one of two sessions would find it. It is half the interval plus
    the margin, as the interval of a true difference lies around it and must lie wholly beyond the margin.
    """

    word: Word
    ratio: Ratio | None  # with too few pairs there is none
    p: float  # of the sign test that A is not faster, or not slower, by more than the margin; two-sided
    detectable: float | None
    comparisons: int = 1  # among how many it may be said (`verdicts`)

    def __str__(self) -> str:
        if self.ratio is None or self.detectable is None:
            return f"{self.word}: too few pairs for an interval; wanted at least 6"
        least = f"; smallest detectable about {100 * self.detectable:.2g} %" if self.word == NOT_SHOWN else ""
        among = f" (Holm over {self.comparisons} comparisons)" if self.comparisons > 1 else ""
        return f"{self.word}{least}{among}: {self.ratio}"


def ratio_interval(log_ratios: Sequence[float], alpha: float = 0.05) -> Ratio | None:
    """The median ratio with its 1 - alpha interval by order statistics; `None` under 6 pairs.

    Args:
        log_ratios: log(time of A / time of B), one a pair of fresh processes.
        alpha: how often the interval may miss.
    """
    interval = median_interval(log_ratios, alpha)
    if interval is None:
        return None
    return Ratio(math.exp(median(log_ratios)), math.exp(interval[0]), math.exp(interval[1]), len(log_ratios))


def verdict(log_ratios: Sequence[float], margin: float = MARGIN, alpha: float = 0.05) -> Verdict:
    """Whether A is faster or slower than B, said only where the whole interval lies beyond the margin.

    The p-value says the same: it is that of the sign test on the log-ratios moved by the margin, and p <= alpha
    exactly where the interval lies beyond it.

    Args:
        log_ratios: log(time of A / time of B), one a pair of fresh processes.
        margin: the least difference that matters, as a share; ratios from 1 / (1 + margin) to 1 + margin are equal.
        alpha: how often a difference may be claimed where there is none.
    """
    beyond = math.log1p(margin)
    n = len(log_ratios)
    faster = _sign_tail(sum(ratio >= -beyond for ratio in log_ratios), n)
    slower = _sign_tail(sum(ratio <= beyond for ratio in log_ratios), n)
    p = min(1.0, 2 * min(faster, slower))
    ratio = ratio_interval(log_ratios, alpha)
    word: Word = NOT_SHOWN if p > alpha else "faster" if faster < slower else "slower"
    return Verdict(word, ratio, p, None if ratio is None else math.expm1(ratio.half_width + beyond))


def verdicts(several: Sequence[Sequence[float]], margin: float = MARGIN, alpha: float = 0.05) -> tuple[Verdict, ...]:
    """A verdict each, so that a false one among them all is as rare as in a single one (`holm`)."""
    found = [verdict(log_ratios, margin, alpha) for log_ratios in several]
    shown = holm([one.p for one in found], alpha)
    return tuple(
        replace(one, word=one.word if is_shown else NOT_SHOWN, comparisons=len(found))
        for one, is_shown in zip(found, shown, strict=True)
    )


def holm(p_values: Sequence[float], alpha: float = 0.05) -> tuple[bool, ...]:
    """Which of several tests hold, with a chance of at most alpha of any false one among them (S. Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    held: set[int] = set()
    for passed, place in enumerate(order):
        if p_values[place] > alpha / (len(order) - passed):
            break
        held.add(place)
    return tuple(place in held for place in range(len(p_values)))


def more_wanted(log_ratios: Sequence[float], margin: float = MARGIN, cap: int = PAIRS_CAP) -> bool:
    """Whether more pairs are wanted: by the interval's width and a preset cap alone, never by where it lies.

    Pairs that were added until a difference showed would show one where there is none. Under `PAIRS_START` pairs the
    width is not looked at.
    """
    if len(log_ratios) >= cap:
        return False
    if len(log_ratios) < PAIRS_START:
        return True
    ratio = ratio_interval(log_ratios)
    return ratio is None or ratio.half_width > math.log1p(margin)


def _sign_tail(most: int, n: int) -> float:
    """P(Binomial(n, 1/2) <= most), exactly."""
    tail, term = 0, 1
    for k in range(most + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return tail / (1 << n)


# ------------------------------------------------------------------------------------------- accuracy, paired


class McNemar(NamedTuple):
    """How two models disagree on the same images."""

    only_a: int  # images that A alone has right
    only_b: int
    p: float  # of the exact test that both are as often right alone (Q. McNemar 1947)


class Bootstrap(NamedTuple):
    """How a metric of all pictures together differs on pictures drawn anew, the same ones for both models."""

    draws: int
    p: float  # twice the share of draws in which the difference is not on the side where most are


@dataclass(frozen=True)
class Difference:
    """Accuracy of A less accuracy of B on the same n images, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def mcnemar(a_right: Sequence[bool], b_right: Sequence[bool]) -> McNemar:
    """The exact test of McNemar: whether one of two models is more often right where they disagree.

    Args:
        a_right: whether A is right, an image each.
        b_right: the same of B, in the same order.

    Raises:
        ValueError: no images, or not as many on both sides.
    """
    only_a, only_b = _disagreements(a_right, b_right)
    return McNemar(only_a, only_b, min(1.0, 2 * _sign_tail(min(only_a, only_b), only_a + only_b)))


def drawn_difference(
    values: tuple[float, float], drawn: tuple[Sequence[float], Sequence[float]], n: int
) -> tuple[Difference, Bootstrap]:
    """How much more A's metric is than B's: the paired percentile bootstrap (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: of A and of B on the n images.
        drawn: of A and of B on images drawn anew, draw by draw the same images for both.
        n: how many images.

    Raises:
        ValueError: no draws, or not as many on both sides.
    """
    import numpy as np

    a, b = drawn
    if not a or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} draws; wanted as many of both, at least one")
    apart = np.asarray(a) - np.asarray(b)
    low, high = np.quantile(apart, [0.025, 0.975])
    other = min(int(np.sum(apart <= 0)), int(np.sum(apart >= 0)))
    p = min(1.0, 2 * (other + 1) / (len(apart) + 1))  # never 0: the data themselves are one draw
    return Difference(values[0] - values[1], float(low), float(high), n), Bootstrap(len(apart), p)


def accuracy_difference(a_right: Sequence[bool], b_right: Sequence[bool], seed: int = 0) -> Difference:
    """How much more often A is right than B, with the paired bootstrap's 95 % interval over 10,000 resamples.

    Drawing images with replacement draws how many of them A alone, B alone, or both alike have right: a multinomial,
    which is drawn directly. Where the two never disagree, each resample says 0; the interval is then Wilson's of a
    share of which none was seen.

    Raises:
        ValueError: no images, or not as many on both sides.
    """
    import numpy as np

    only_a, only_b = _disagreements(a_right, b_right)
    n = len(a_right)
    if only_a + only_b == 0:
        most = wilson(0, n)[1]
        return Difference(0.0, -most, most, n)
    shares = [only_a / n, only_b / n, (n - only_a - only_b) / n]
    drawn = np.random.default_rng(seed).multinomial(n, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    return Difference((only_a - only_b) / n, float(low), float(high), n)


def _disagreements(a_right: Sequence[bool], b_right: Sequence[bool]) -> tuple[int, int]:
    if len(a_right) != len(b_right) or len(a_right) == 0:
        raise ValueError(f"{len(a_right)} and {len(b_right)} images; wanted one or more, the same on both sides")
    pairs = [(bool(a), bool(b)) for a, b in zip(a_right, b_right, strict=True)]
    return pairs.count((True, False)), pairs.count((False, True))
