"""Percentiles by counting, Wilson's interval by its quadratic, the median's interval and every test by the exact
binomial; what a verdict may say as laws.
"""

import math
import random
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.stats import (
    MARGIN,
    MIN_SAMPLES,
    PAIRS_CAP,
    PAIRS_START,
    Z95,
    Difference,
    McNemar,
    accuracy_difference,
    holm,
    mcnemar,
    median_interval,
    more_wanted,
    outliers,
    percentile,
    rank_correlation,
    ratio_interval,
    spread,
    verdict,
    verdicts,
    wilson,
)

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


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("n", [6, 25, 999])
def test_the_interval_of_the_median_on_other_levels(n: int, alpha: float) -> None:
    interval = median_interval(range(1, n + 1), alpha)
    low = 0 if interval is None else int(interval[0])
    assert below(low, n) <= Fraction(alpha) / 2 < below(low + 1, n)
    wide = median_interval(range(1, 2001), alpha)
    assert wide is not None and below(int(wide[0]) - 1, 2000) <= Fraction(alpha) / 2 < below(int(wide[0]) + 2, 2000)


def test_the_least_numbers_of_samples_are_those_of_loadgen() -> None:
    assert MIN_SAMPLES == {50: 11, 90: 64, 95: 130, 99: 662, 99.9: 6636}


@pytest.mark.parametrize(("percent", "least"), MIN_SAMPLES.items())
def test_the_least_numbers_of_samples_leave_one_run_beyond_the_percentile(percent: float, least: int) -> None:
    # LoadGen's early stopping: at most one of n runs lies beyond the true percentile with a chance under 1 %.
    share = Fraction(str(percent)) / 100

    def at_most_one_beyond(n: int) -> Fraction:
        return share**n + n * (1 - share) * share ** (n - 1)

    assert at_most_one_beyond(least) <= Fraction(1, 100) < at_most_one_beyond(least - 1)


def test_spread_is_the_middle_half_by_the_median() -> None:
    assert spread([10, 20, 30, 40]) == (30 - 10) / 20
    assert spread([5.0] * 9) == 0


def test_outliers_lie_over_ten_scaled_deviations_off() -> None:
    # Median 10, deviations 0 1 1 1 2 …: their median is 1, so the cut lies 14.826 from the median.
    samples = [10.0, 9.0, 11.0, 9.0, 8.0, 11.0, 10.0 + 14.8, 10.0 + 14.9, 10.0 - 14.9]
    assert sorted(samples)[4] == 10 and sorted(abs(x - 10) for x in samples)[4] == 1
    assert outliers(samples) == (7, 8)
    assert outliers([]) == outliers([5.0]) == ()
    assert outliers(list(range(1000))) == ()


def test_outliers_of_samples_that_are_mostly_equal() -> None:
    # The median deviation is 0; the mean one is 90 / 30 = 3 times 1.2533, and ten of these are 37.6.
    assert outliers([7.0] * 29 + [97.0]) == (29,)
    assert outliers([7.0] * 4 + [17.0]) == ()  # mean deviation 2: ten are 25
    assert outliers([7.0] * 20) == ()


@given(st.lists(st.floats(0.1, 1e3), max_size=40), st.floats(0.01, 100))
def test_outliers_are_places_and_do_not_depend_on_the_unit(samples: list[float], scale: float) -> None:
    found = outliers(samples)
    assert all(0 <= place < len(samples) for place in found) and len(found) <= len(samples) / 2
    assert outliers([64 * sample for sample in samples]) == found  # a power of two: no rounding
    assert not samples or all(samples[place] != sorted(samples)[len(samples) // 2] for place in found)


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


# ----------------------------------------------------------------------------------------------- A against B

# A grid of log-ratios, so that ties and values on the margin itself come up.
STEP = math.log1p(MARGIN)
RATIOS = st.lists(st.integers(-4, 4).map(lambda k: k * STEP), max_size=PAIRS_CAP)


@given(RATIOS, st.sampled_from([0.2, 0.05, 0.01, 0.001]), st.sampled_from([0.0, MARGIN, 0.05]))
def test_a_difference_is_said_exactly_where_the_whole_interval_lies_beyond_the_margin(
    log_ratios: list[float], alpha: float, margin: float
) -> None:
    interval = median_interval(log_ratios, alpha)
    beyond = math.log1p(margin)
    if interval is not None and interval[1] < -beyond:
        wanted = "faster"
    elif interval is not None and interval[0] > beyond:
        wanted = "slower"
    else:
        wanted = "no difference shown"
    found = verdict(log_ratios, margin, alpha)
    assert found.word == wanted
    assert (found.p <= alpha) == (wanted != "no difference shown")
    assert verdicts([log_ratios], margin, alpha) == (found,)
    mirrored = verdict([-ratio for ratio in log_ratios], margin, alpha)
    assert mirrored.p == found.p
    assert mirrored.word == {"faster": "slower", "slower": "faster"}.get(found.word, found.word)


@given(RATIOS)
def test_the_p_value_is_that_of_the_sign_test(log_ratios: list[float]) -> None:
    n = len(log_ratios)
    not_faster = sum(ratio >= -math.log1p(MARGIN) for ratio in log_ratios)
    not_slower = sum(ratio <= math.log1p(MARGIN) for ratio in log_ratios)
    exact = min(1, 2 * min(below(not_faster + 1, n), below(not_slower + 1, n)))
    assert verdict(log_ratios).p == pytest.approx(float(exact), rel=1e-12)


def test_verdicts_by_hand() -> None:
    # Twelve pairs have the interval from the 3rd to the 10th, as P(Binomial(12, 1/2) < 3) = 79/4096 <= 0.025.
    log_ratios = [math.log(0.8)] * 2 + [math.log(0.9)] * 8 + [math.log(1.5)] * 2
    found = verdict(log_ratios)
    assert found.ratio is not None and found.ratio.n == 12
    assert (found.ratio.low, found.ratio.median, found.ratio.high) == pytest.approx((0.9, 0.9, 0.9))
    assert found.word == "faster" and found.p == pytest.approx(2 * 79 / 4096)
    assert str(found) == "faster: 0.900 times the time (0.900–0.900, 12 pairs)"
    # 0.8 to 1.25: half of it is a factor of 1.25, and the margin comes on top: 1.25 · 1.02 = 1.275.
    wide = verdict([math.log(0.8)] * 6 + [math.log(1.25)] * 6)
    assert wide.word == "no difference shown" and wide.detectable == pytest.approx(0.275)
    assert str(wide) == (
        "no difference shown; smallest detectable about 28 %: 1.000 times the time (0.800–1.250, 12 pairs)"
    )
    few = verdict([math.log(0.5)] * 5)
    assert few.word == "no difference shown" and few.ratio is few.detectable is None and few.p == 2 / 32
    assert str(few) == "no difference shown: too few pairs for an interval; wanted at least 6"
    assert verdict([math.log(0.5)] * 6).word == "faster"
    assert verdict([]).p == 1


def test_what_is_called_detectable_is_detected_with_the_same_noise() -> None:
    rng = random.Random(5)
    noise = [rng.gauss(0, 0.05) for _ in range(20)]
    centre = ratio_interval(noise)
    assert centre is not None
    centred = [ratio - math.log(centre.low * centre.high) / 2 for ratio in noise]
    least = verdict(centred).detectable
    assert least is not None
    for size, word in ((1.001, "slower"), (0.999, "no difference shown")):
        assert verdict([ratio + math.log1p(least) * size for ratio in centred]).word == word


def test_the_ratio_is_that_of_the_medians_of_the_pairs() -> None:
    assert ratio_interval([0.1] * 5) is None
    ratio = ratio_interval([math.log(x) for x in (0.5, 1, 2, 4, 8, 16)])
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high, ratio.n) == pytest.approx((0.5, 8**0.5, 16, 6))
    assert ratio.half_width == pytest.approx(math.log(32) / 2)


def test_holm_by_hand() -> None:
    # Ordered 0.01 0.02 0.03 0.04 are held against 0.05 / 4, / 3, / 2, / 1.
    assert holm([0.04, 0.01, 0.03, 0.02]) == (False, True, False, False)
    assert holm([0.012, 0.016, 0.024, 0.05]) == (True, True, True, True)
    assert holm([0.05]) == (True,) and holm([0.051]) == (False,) and holm([]) == ()
    assert holm([0.02, 0.02]) == (True, True)
    assert holm([0.03, 0.03]) == (False, False)


@given(st.lists(st.floats(0, 1), max_size=8), st.randoms(use_true_random=False))
def test_holm_lies_between_bonferroni_and_no_correction(p_values: list[float], rng: random.Random) -> None:
    held = holm(p_values)
    for p, is_held in zip(p_values, held, strict=True):
        assert not is_held or p <= 0.05
        assert is_held or p > 0.05 / len(p_values)
    order = list(range(len(p_values)))
    rng.shuffle(order)
    assert holm([p_values[i] for i in order]) == tuple(held[i] for i in order)


def test_of_several_comparisons_each_has_to_be_surer() -> None:
    sure, just = [math.log(0.9)] * 20, [math.log(0.9)] * 10 + [math.log(1.1)] * 2
    assert verdict(just).p == pytest.approx(2 * 79 / 4096)  # 0.0386: enough alone, too much for the second of three
    alone = verdicts([just])[0]
    assert (alone.word, alone.comparisons) == ("faster", 1)
    found = verdicts([sure, just, just])
    assert [one.word for one in found] == ["faster", "no difference shown", "no difference shown"]
    assert found[1].ratio == alone.ratio and found[1].p == alone.p
    assert "(Holm over 3 comparisons)" in str(found[1])


def test_more_pairs_are_wanted_by_the_width_alone() -> None:
    wide, narrow = [-0.1, 0.1] * 10, [-0.01, 0.01] * 10
    assert len(wide) == PAIRS_START
    assert more_wanted(wide) and not more_wanted(narrow)
    assert not more_wanted(wide, margin=0.2)
    # Wherever the interval lies, and so whatever is shown.
    for shift in (-1.0, -0.05, 0.3):
        assert more_wanted([ratio + shift for ratio in wide]) and not more_wanted([ratio + shift for ratio in narrow])
    assert more_wanted(narrow[:-1]), "under the start nothing is looked at"
    assert more_wanted([]) and not more_wanted([], cap=0)
    assert not more_wanted(wide * 2) and more_wanted(wide * 2, cap=41)
    assert more_wanted([-STEP * 1.01, STEP * 1.01] * 10) and not more_wanted([-STEP * 0.99, STEP * 0.99] * 10)


def test_the_interval_covers_with_its_own_stopping_rule() -> None:
    """benchmarks/coverage.py in small: 300 sessions, where 95.5 % are covered, lie within 91 to 99 %."""
    rng = random.Random(0)
    covered = 0
    for _ in range(300):
        drawn = [rng.gauss(0, 0.03) for _ in range(PAIRS_CAP)]
        taken = PAIRS_START
        while more_wanted(drawn[:taken]):
            taken += 4
        ratio = ratio_interval(drawn[:taken])
        assert ratio is not None
        covered += ratio.low <= 1 <= ratio.high
    assert 0.91 <= covered / 300 <= 0.99


# ------------------------------------------------------------------------------------------- accuracy, paired


def test_mcnemar_by_hand() -> None:
    a = [True] * 9 + [False] * 1 + [True] * 50 + [False] * 40
    b = [False] * 9 + [True] * 1 + [True] * 50 + [False] * 40
    # Ten disagreements, one of them for B: 2 · (1 + 10) / 2^10.
    assert mcnemar(a, b) == McNemar(9, 1, 22 / 1024)
    assert mcnemar(b, a) == McNemar(1, 9, 22 / 1024)
    assert mcnemar(a, a) == (0, 0, 1.0)
    assert mcnemar([True, False], [False, True]).p == 1
    assert mcnemar([True] * 6_000, [False] * 3_000 + [True] * 3_000).p == pytest.approx(0, abs=1e-300)


def test_the_difference_of_accuracies_by_every_resample() -> None:
    # Four images: A alone has two, B alone one. All 4^4 resamples are equally likely; their 2.5 and 97.5 % points.
    a, b = [True, True, False, True], [False, False, True, True]
    every = np.array([sum(int(a[i]) - int(b[i]) for i in places) / 4 for places in product(range(4), repeat=4)])
    low, high = np.quantile(every, [0.025, 0.975])
    found = accuracy_difference(a, b, seed=1)
    assert found == Difference(0.25, low, high, 4)
    assert accuracy_difference(a, b, seed=1) == found


def test_the_difference_of_accuracies_is_as_wide_as_it_should_be() -> None:
    # 1000 images, A alone right on 60, B alone on 20: the standard error of the difference is
    # sqrt((60 + 20 - 40² / 1000) / 1000²) = 0.00885.
    a = [True] * 60 + [False] * 20 + [True] * 920
    b = [False] * 60 + [True] * 20 + [True] * 920
    error = math.sqrt(60 + 20 - 40**2 / 1000) / 1000
    found = accuracy_difference(a, b, seed=0)
    assert (found.value, found.n) == (0.04, 1000)
    assert found.low == pytest.approx(0.04 - Z95 * error, abs=0.001)
    assert found.high == pytest.approx(0.04 + Z95 * error, abs=0.001)
    mirrored = accuracy_difference(b, a, seed=0)
    assert mirrored.value == -0.04 and mirrored.low == pytest.approx(-found.high, abs=0.002)


def test_models_that_never_disagree_may_do_so_elsewhere() -> None:
    most = wilson(0, 200)[1]
    assert accuracy_difference([True, False] * 100, [True, False] * 100) == Difference(0.0, -most, most, 200)


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False])])
def test_no_pairs_of_answers(a: list[bool], b: list[bool]) -> None:
    for test in (mcnemar, accuracy_difference):
        with pytest.raises(ValueError, match=f"{len(a)} and {len(b)} images; wanted one or more"):
            test(a, b)
