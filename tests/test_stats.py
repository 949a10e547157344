"""Percentiles by counting, Wilson's interval by its quadratic, the median's interval by the exact binomial."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.stats import MIN_SAMPLES, Z95, median_interval, percentile, rank_correlation, spread, wilson

SAMPLES = st.lists(st.integers(-50, 50), min_size=1, max_size=60)


@given(SAMPLES, st.integers(1, 100))
def test_a_percentile_is_the_smallest_sample_that_enough_do_not_exceed(samples: list[int], percent: int) -> None:
    enough = [x for x in samples if 100 * sum(y <= x for y in samples) >= percent * len(samples)]
    assert percentile(samples, percent) == min(enough)


@pytest.mark.parametrize("percent", range(1, 101))
def test_of_a_hundred_samples_each_percent_is_one(percent: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == percent  # 55 / 100 * 100 is 55.00000000000001


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], 0), ([1.0], 100.5), ([1.0], -1)])
def test_a_percentile_that_is_none_is_refused(samples: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match=rf"percentile {percent} of {len(samples)} samples; wanted 0 < percent"):
        percentile(samples, percent)


@pytest.mark.parametrize("trials", [1, 2, 10, 37, 1000, 100_000])
def test_wilson_solves_its_quadratic(trials: int) -> None:
    # The bounds are the shares p from which the seen share s lies exactly z standard errors off:
    # (s - p)^2 = z^2 p (1 - p) / n, so (1 + z²/n) p² - (2 s + z²/n) p + s² = 0.
    for successes in sorted({0, 1, trials // 3, trials // 2, trials - 1, trials}):
        s, c = Fraction(successes, trials), Fraction(Z95) ** 2 / trials
        root = math.sqrt((2 * s + c) ** 2 - 4 * (1 + c) * s * s)  # exact below the root
        low, high = wilson(successes, trials)
        assert low == pytest.approx(float(2 * s + c - root) / float(2 * (1 + c)), abs=1e-14)
        assert high == pytest.approx(float(2 * s + c + root) / float(2 * (1 + c)), abs=1e-14)
        assert 0 <= low <= s <= high <= 1


def test_wilson_at_the_ends_and_mirrored() -> None:
    z2 = Z95 * Z95
    assert wilson(0, 20) == (0.0, pytest.approx(z2 / (20 + z2)))
    assert wilson(20, 20) == (pytest.approx(20 / (20 + z2)), 1.0)
    for successes in range(51):
        low, high = wilson(successes, 50)
        assert wilson(50 - successes, 50) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        wilson(successes, trials)


def below(rank: int, n: int) -> Fraction:
    """P(Binomial(n, 1/2) < rank), exactly."""
    return Fraction(sum(math.comb(n, k) for k in range(rank)), 2**n)


@pytest.mark.parametrize("n", [*range(6, 60), 100, 101, 640, 999])
def test_the_interval_of_the_median_has_the_largest_rank_that_is_sure_enough(n: int) -> None:
    interval = median_interval(range(n, 0, -1))
    assert interval is not None
    low, high = map(int, interval)
    assert low + high == n + 1  # the same rank from both ends
    assert below(low, n) <= Fraction(25, 1000) < below(low + 1, n)


@pytest.mark.parametrize("n", [1000, 1001, 1500, 2000])
def test_for_many_samples_the_rank_is_at_most_one_too_wide(n: int) -> None:
    interval = median_interval(range(1, n + 1))
    assert interval is not None
    low, high = map(int, interval)
    assert low + high == n + 1
    assert below(low, n) <= Fraction(25, 1000) < below(low + 2, n)


@pytest.mark.parametrize("n", range(6))
def test_few_samples_have_no_interval(n: int) -> None:
    assert below(1, n) > Fraction(25, 1000)  # not even the whole range is sure enough
    assert median_interval(range(n)) is None


@pytest.mark.parametrize(("percent", "least"), MIN_SAMPLES.items())
def test_the_least_numbers_of_samples_leave_one_run_beyond_the_percentile(percent: int, least: int) -> None:
    # LoadGen's early stopping: at most one of n runs lies beyond the true percentile with a chance under 1 %.
    def at_most_one_beyond(n: int) -> Fraction:
        share = Fraction(percent, 100)
        return share**n + n * (1 - share) * share ** (n - 1)

    assert at_most_one_beyond(least) <= Fraction(1, 100) < at_most_one_beyond(least - 1)


def test_spread_is_the_middle_half_by_the_median() -> None:
    assert spread([10, 20, 30, 40]) == (30 - 10) / 20
    assert spread([5.0] * 9) == 0


def test_rank_correlation_by_hand() -> None:
    """Spearman's own formula without ties: 1 - 6 Σd² / n(n² - 1). Ranks 1 2 3 4 and 2 1 4 3: Σd² = 4, so 0.6."""
    assert rank_correlation([10, 20, 30, 40], [2.0, 1.0, 40.0, 3.0]) == pytest.approx(1 - 6 * 4 / (4 * 15))
    assert rank_correlation([1, 2, 3], [9, 99, 999]) == 1
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1
    # Ties share: ranks 1.5 1.5 3 and 1 2 3 correlate as 1.5 / √(1.5 · 2).
    assert rank_correlation([5, 5, 6], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([1], [1], "1 and 1 values"), ([1, 2], [1], "2 and 1 values"), ([1, 1], [1, 2], "all values of one side")],
)
def test_no_rank_correlation_without_an_order(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_correlation(first, second)
