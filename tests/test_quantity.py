"""Quantities: what a user may write, what people read, and that both agree."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.errors import BudgetError
from featherweight.quantity import SCALES, SUFFIXES, Quantity, quantities
from featherweight.record import BY_KEY, QUANTITIES, Record

EVERY = pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=lambda quantity: quantity.key)
LATENCY, SIZE, ACCURACY = BY_KEY["latency_p50"], BY_KEY["size"], BY_KEY["accuracy"]


def test_the_quantities_of_a_record_in_order_and_each_key_once() -> None:
    assert list(QUANTITIES) == [name for name in Record.__dataclass_fields__ if name in QUANTITIES]
    assert len(BY_KEY) == len(QUANTITIES) == 23
    assert len({quantity.label for quantity in QUANTITIES.values()}) == len(QUANTITIES)
    assert quantities(Quantity) == {}


@EVERY
def test_each_field_says_its_unit(quantity: Quantity) -> None:
    assert quantity.key + SUFFIXES[quantity.unit] == quantity.field
    assert quantity.unit in SCALES
    assert [key for key in SUFFIXES.values() if key and quantity.key.endswith(key)] == []


@EVERY
@pytest.mark.parametrize("number", ["0", "7", "0.35", ".5", "12.75", "1e3", "2.5E-2", "3e+1"])
def test_every_unit_is_exact_to_one_rounding(quantity: Quantity, number: str) -> None:
    for unit, scale in SCALES[quantity.unit].items():
        exact = Fraction(number) * Fraction(repr(scale))
        for text in (number + unit, f" {number} {unit} "):
            assert quantity.parse(text) == float(exact)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("size", "4MB", 4_000_000),
        ("size", "4MiB", 4 * 1024 * 1024),
        ("size", "3KiB", 3 * 1024),
        ("size", "1GiB", 1024**3),
        ("size", "2kB", 2_000),
        ("latency_p50", "250us", 0.25),
        ("latency_p50", "3 ns", 0.000_003),
        ("latency_p50", "1.5s", 1500),
        ("energy", "2J", 2000),
        ("accuracy", "97.9%", 0.979),
        ("macs", "13.6M", 13_600_000),
    ],
)
def test_units_by_hand(key: str, text: str, value: float) -> None:
    assert BY_KEY[key].parse(text) == value


@pytest.mark.parametrize("percent", range(101))
def test_a_percentage_is_the_share_it_says(percent: int) -> None:
    assert ACCURACY.parse(f"{percent}%") == percent / 100  # 35 * 0.01 is 0.35000000000000003


@EVERY
@pytest.mark.parametrize("value", [0.25, 0.5, 0.875, 1.0])
def test_what_is_shown_can_be_written(quantity: Quantity, value: float) -> None:
    for factor in (
        (1,) if quantity.unit == "fraction" else (1, 13, 321, 4_500, 99_000, 7_654_321, 2 * 10**9, 1e-3, 1e-7)
    ):
        shown = quantity.show(value * factor)
        assert "e" not in shown.removesuffix(quantity.unit)
        assert quantity.parse(shown) == pytest.approx(value * factor, rel=0.006), shown


def test_shown_values() -> None:
    assert SIZE.show(320_000) == "320 kB"
    assert SIZE.show(4_280_000) == "4.28 MB"
    assert SIZE.show(999) == "999 B"
    assert LATENCY.show(0.42) == "0.42 ms"
    assert LATENCY.show(0.000_001) == "0.000001 ms"
    assert LATENCY.show(0.000_000_4) == "0.0000004 ms"  # a number that is there never looks like none
    assert ACCURACY.show(0.979) == "97.9 %"
    assert BY_KEY["throughput"].show(800.0) == "800/s"
    assert BY_KEY["throughput"].exact(800.5) == "800.5/s"
    assert BY_KEY["macs"].show(13_600_000) == "13.60 M"
    assert BY_KEY["energy"].show(0) == "0 mJ"


@EVERY
def test_missing_is_a_dash(quantity: Quantity) -> None:
    assert quantity.show(None) == "–"


@EVERY
def test_less_cost_is_better(quantity: Quantity) -> None:
    assert (quantity.cost(1.0) < quantity.cost(2.0)) == (quantity.better == "lower")
    assert abs(quantity.cost(3.0)) == 3.0


def test_exact_tells_apart_what_show_does_not() -> None:
    assert SIZE.show(4_000_001) == SIZE.show(4_000_000)
    assert (SIZE.exact(4_000_001), SIZE.exact(4_000_000.0)) == ("4000001 B", "4000000 B")
    assert ACCURACY.exact(0.1 + 0.2) == "0.30000000000000004"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ms",
        "-1ms",
        "+1ms",
        "1 000ms",
        "1,5ms",
        "10 MB",
        "10 m s",
        "0x10ms",
        "nan",
        "inf",
        "１ms",
        "1e",
        "1.ms",
        "1e9999",
    ],
)
def test_what_cannot_be_read_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(BudgetError, match=r"as latency_p50; wanted a number and one of: ns, us, µs, ms, s"):
        LATENCY.parse(text)


@pytest.mark.parametrize("text", ["1e400ms", "1e308s", "9" * 400])
def test_more_than_a_float_holds_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="more than any"):
        (BY_KEY["macs"] if text.isdigit() else LATENCY).parse(text)


def test_a_unit_of_another_quantity_is_refused_and_no_unit_is_named() -> None:
    with pytest.raises(
        BudgetError, match=re.escape("cannot read '3MB' as parameters; wanted a number and one of: no unit")
    ):
        BY_KEY["parameters"].parse("3MB")


WORDS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"\s?[0-9.eE+\-]{1,12} ?(ms|B|KiB|MiB|%|k|M|µs|s|J|mJ)?", fullmatch=True),
)


@given(st.sampled_from(list(QUANTITIES.values())), WORDS)
def test_any_text_is_a_number_or_a_budget_error(quantity: Quantity, text: str) -> None:
    try:
        value = quantity.parse(text)
    except BudgetError as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= value < float("inf")


def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(BudgetError):
        LATENCY.parse("1" * 100_000 + "!")  # a careless pattern would need hours
