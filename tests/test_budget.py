"""Budgets: what may be written, and what a record violates."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.budget import Budget, Limit, parse_budget
from featherweight.errors import BudgetError
from featherweight.quantity import Quantity
from featherweight.record import BY_KEY, QUANTITIES
from tests.make import make_record

EVERY = pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=lambda quantity: quantity.key)
BOUNDS = {"ms": 4.0, "B": 4e6, "mJ": 4.0, "1/s": 4.0, "fraction": 0.5, "count": 4e6}


def test_the_example_of_the_docs() -> None:
    budget = parse_budget("latency_p90=10ms,size=4MB,accuracy>=0.9")
    assert budget.limits == (
        Limit(BY_KEY["latency_p90"], 10.0),
        Limit(BY_KEY["size"], 4_000_000),
        Limit(BY_KEY["accuracy"], 0.9),
    )
    assert str(budget) == "latency_p90<=10.00 ms, size<=4.00 MB, accuracy>=90.0 %"


@EVERY
def test_every_quantity_from_its_right_side_only(quantity: Quantity) -> None:
    right, wrong = ("<", ">") if quantity.better == "lower" else (">", "<")
    value = (
        "0.5"
        if quantity.unit == "fraction"
        else {"ms": "4ms", "B": "4MB", "mJ": "4mJ", "1/s": "4/s", "count": "4M"}[quantity.unit]
    )
    for sign in ("=", right, right + "="):
        assert parse_budget(f" {quantity.key} {sign} {value} ,").limits == (Limit(quantity, BOUNDS[quantity.unit]),)
    for sign in (wrong, wrong + "="):
        with pytest.raises(
            BudgetError, match=rf"bounds {quantity.key} from the wrong side: {quantity.better} is better"
        ):
            parse_budget(f"{quantity.key}{sign}{value}")


@EVERY
def test_what_a_budget_says_can_be_parsed_again(quantity: Quantity) -> None:
    budget = Budget((Limit(quantity, BOUNDS[quantity.unit]),))
    assert parse_budget(str(budget)) == budget


@EVERY
def test_on_the_bound_fits_and_a_step_beyond_does_not(quantity: Quantity) -> None:
    bound = BOUNDS[quantity.unit]
    worse, better = (math.inf, 0.0) if quantity.better == "lower" else (0.0, math.inf)
    budget = Budget((Limit(quantity, bound),))
    for value in (bound, math.nextafter(bound, better)):
        assert budget.violations(make_record(**{quantity.field: value})) == ()
    value = math.nextafter(bound, worse)
    (violation,) = budget.violations(make_record(**{quantity.field: value}))
    assert violation.value == value and violation.limit.bound == bound
    # What is shown must differ, however small the difference.
    match = re.fullmatch(r"(.+) is (\S+).*; wanted [<>]= (\S+).*", str(violation))
    assert match is not None and match[1] == quantity.label and match[2] != match[3]
    assert violation.miss == pytest.approx(abs(value - bound) / bound)


@EVERY
def test_a_number_that_is_missing_misses_its_limit(quantity: Quantity) -> None:
    budget = Budget((Limit(quantity, BOUNDS[quantity.unit]),))
    (violation,) = budget.violations(make_record(**{quantity.field: None}, missing={quantity.field: "no meter"}))
    assert str(violation) == f"{quantity.label} is unknown (no meter); wanted {budget}"
    assert violation.value is None and violation.miss == math.inf
    (violation,) = budget.violations(make_record(**{quantity.field: None}))
    assert "is unknown (not measured)" in str(violation)


def test_the_share_that_a_percentage_says_fits() -> None:
    for hits in range(1, 101):
        record = make_record(accuracy=hits / 100)
        assert parse_budget(f"accuracy={hits}%").violations(record) == ()  # 35 * 0.01 > 35 / 100


def test_violations_in_the_order_of_the_limits() -> None:
    budget = parse_budget("size=300kB,accuracy=0.8,latency_p50=2125us")
    size, latency = budget.violations(make_record())
    assert str(size) == "file size is 320 kB; wanted <= 300 kB"
    assert size.miss == pytest.approx(20 / 300)
    assert str(latency) == "p50 latency is 4.25 ms; wanted <= 2.12 ms"
    assert latency.miss == 1.0
    (by_a_byte,) = parse_budget("size=4MB").violations(make_record(size_bytes=4_000_001))
    assert str(by_a_byte) == "file size is 4000001 B; wanted <= 4000000 B"


def test_a_bound_of_nothing_is_missed_without_measure() -> None:
    (violation,) = parse_budget("energy=0mJ").violations(make_record())
    assert violation.miss == math.inf


def test_parts_of_a_budget() -> None:
    budget = parse_budget("latency_p90=10ms,size=4MB,accuracy>=0.9")
    assert budget.bound("size") == 4e6
    assert budget.bound("energy") is None
    assert budget.only(("size", "energy")) == parse_budget("size=4MB")
    assert budget.only(()) == Budget()
    assert (str(Budget()), Budget().violations(make_record())) == ("no limit", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the budget is empty; wanted for example latency_p90=10ms"),
        (" , ,", "the budget is empty"),
        ("fast", "cannot read 'fast' in the budget; wanted for example"),
        ("latency_p90", "cannot read 'latency_p90'"),
        ("=10ms", "cannot read '=10ms'"),
        ("latency_p90=", "cannot read 'latency_p90='"),
        ("latency-p90=10ms", "cannot read 'latency-p90=10ms'"),
        ("latency_p90==10ms", "cannot read '=10ms' as latency_p90"),
        ("latency_p95=10ms", "unknown quantity 'latency_p95' in the budget; known: accuracy, latency_p50"),
        ("latency_p90_ms=10ms", "unknown quantity 'latency_p90_ms'"),
        ("latency_p90=10", "cannot read '10' as latency_p90; wanted a number and one of: ns, us"),
        ("size=4mb", "cannot read '4mb' as size"),
        ("size=-1B", "cannot read '-1B' as size"),
        ("size=1e400B", "'1e400B' is more than any size can be"),
        ("accuracy<=0.9", "bounds accuracy from the wrong side: higher is better; wanted accuracy=…"),
        ("size>4MB", "bounds size from the wrong side: lower is better"),
        ("size=4MB,size=5MB", "size stands twice in the budget; name each quantity once"),
        ("accuracy=90", "'accuracy=90': accuracy is a fraction from 0 to 1, or a percentage with %"),
        ("accuracy=101%", "accuracy is a fraction from 0 to 1"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_cause(text: str, message: str) -> None:
    with pytest.raises(BudgetError, match=re.escape(message)):
        parse_budget(text)


PARTS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from([*BY_KEY, "speed", "", " size "]),
        st.sampled_from(["=", "<=", ">=", "<", ">", "==", " = ", ""]),
        st.one_of(st.floats().map(str), st.text(max_size=5), st.integers().map(str)),
        st.sampled_from(["", "ms", "MB", "%", "k", "mJ", " s"]),
    ),
)


@given(st.one_of(st.text(max_size=40), st.lists(PARTS, max_size=4).map(",".join)))
def test_any_text_is_a_budget_or_a_budget_error(text: str) -> None:
    try:
        budget = parse_budget(text)
    except BudgetError:
        return
    keys = [limit.quantity.key for limit in budget.limits]
    assert keys and len(keys) == len(set(keys))
    assert all(0 <= limit.bound < math.inf for limit in budget.limits)
    assert isinstance(budget.violations(make_record()), tuple)
    assert str(budget)
