"""The laws of comparing: who beats whom, and what may not stand side by side."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.compare import DEFAULT_KEYS, LATENCY_MARGIN, better, check_comparable, fields_of, front
from featherweight.errors import RecordError
from featherweight.quantity import Quantity
from featherweight.record import BY_KEY, QUANTITIES, Record
from tests.make import make_record

EVERY = pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=lambda quantity: quantity.key)


def record_of(accuracy: float, latency: float, size: float, **changes: Any) -> Record:
    return make_record(accuracy=accuracy, latency_p50_ms=latency, size_bytes=size, **changes)


# Few values, so that ties and copies come up.
VALUES = st.integers(1, 5)
RECORDS = st.lists(
    st.builds(lambda a, b, c: record_of(a / 8, b, c * 1000), VALUES, VALUES, VALUES), min_size=1, max_size=12
)
KEYS = st.lists(st.sampled_from(DEFAULT_KEYS), min_size=1, unique=True).map(tuple)


def beats(a: Record, b: Record, keys: Sequence[str]) -> bool:
    """From the words of the docs: at least as good on every key and better on one."""
    pairs = [(a.accuracy, b.accuracy)] if "accuracy" in keys else []
    pairs += [(-a.latency_p50_ms, -b.latency_p50_ms)] if "latency_p50" in keys else []  # type: ignore[operator]
    pairs += [(-a.size_bytes, -b.size_bytes)] if "size" in keys else []  # type: ignore[operator]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


@given(RECORDS, KEYS)
def test_none_beats_the_front_and_each_other_record_is_beaten_by_one_on_it(
    records: list[Record], keys: tuple[str, ...]
) -> None:
    found = front(records, keys)
    assert found
    for record in records:
        on_front = record in found
        assert any(beats(other, record, keys) for other in records) is not on_front
        assert any(beats(other, record, keys) for other in found) is not on_front


@given(RECORDS, KEYS, st.randoms(use_true_random=False))
def test_the_front_is_unmoved_by_reordering(records: list[Record], keys: tuple[str, ...], rng: random.Random) -> None:
    shuffled = list(records)
    rng.shuffle(shuffled)
    mixed = list(keys)
    rng.shuffle(mixed)
    ids = sorted(record.id for record in front(records, keys))
    assert sorted(record.id for record in front(shuffled, mixed)) == ids


@given(RECORDS, st.sampled_from([2, 0.5, 1024, 3]))
def test_the_front_is_unmoved_by_the_scale_of_a_cost(records: list[Record], scale: float) -> None:
    wanted = [record in front(records) for record in records]
    for name in ("latency_p50_ms", "size_bytes"):
        scaled = [replace(record, **{name: getattr(record, name) * scale}) for record in records]
        found = front(scaled)
        assert [record in found for record in scaled] == wanted
    halved = [replace(record, accuracy=(record.accuracy or 0) / 2) for record in records]
    assert [record in front(halved) for record in halved] == wanted


@given(RECORDS)
def test_the_front_keeps_order_and_copies(records: list[Record]) -> None:
    found = front([*records, *records])
    assert found == [record for record in [*records, *records] if record in found]
    assert found == front(records) * 2
    assert front(found) == found


def test_a_front_by_hand() -> None:
    fast, exact, small, beaten = (
        record_of(0.5, 1, 30),
        record_of(0.9, 9, 90),
        record_of(0.4, 8, 10),
        record_of(0.4, 9, 90),
    )
    assert front([beaten, exact, fast, small]) == [exact, fast, small]
    assert front([beaten, exact, fast, small], ("accuracy",)) == [exact]
    assert front([beaten, exact, fast, small], ("latency_p50",)) == [fast]


# ------------------------------------------------------------------------------------------------------- better


def plain(quantity: Quantity, value: float) -> Record:
    return make_record(**{quantity.field: value}, accuracy_interval=None, latency_p50_interval_ms=None)


@EVERY
def test_better_on_every_quantity(quantity: Quantity) -> None:
    less, more = plain(quantity, 0.25), plain(quantity, 0.75)
    assert better(less, more, quantity.key) is (quantity.better == "lower")
    assert better(more, less, quantity.key) is (quantity.better == "higher")
    assert better(less, less, quantity.key) is None


INTERVALS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)


@given(st.sampled_from(["accuracy", "latency_p50", "size", "memory_peak", "energy"]), INTERVALS, INTERVALS)
def test_better_is_the_mirror_of_itself(key: str, a: tuple[float, float], b: tuple[float, float]) -> None:
    def record(interval: tuple[float, float]) -> Record:
        changes = {
            BY_KEY[key].field: sum(interval) / 2,
            "accuracy_interval": interval,
            "latency_p50_interval_ms": interval,
        }
        return make_record(**changes)

    mirror = {True: False, False: True, None: None}
    assert better(record(b), record(a), key) is mirror[better(record(a), record(b), key)]
    assert better(record(a), record(a), key) is None
    if key == "accuracy" and better(record(a), record(b), key):
        assert a[0] > b[1]


def test_intervals_that_touch_show_no_difference() -> None:
    def record(low: float, high: float) -> Record:
        return make_record(accuracy=(low + high) / 2, accuracy_interval=(low, high))

    assert better(record(0.8, 0.9), record(0.6, 0.8), "accuracy") is None
    assert better(record(0.81, 0.9), record(0.6, 0.8), "accuracy") is True
    assert better(record(0.6, 0.8), record(0.81, 0.9), "accuracy") is False


def test_latencies_within_the_margin_show_no_difference() -> None:
    def record(low: float, high: float) -> Record:
        return make_record(latency_p50_ms=(low + high) / 2, latency_p50_interval_ms=(low, high))

    edge = 10 * (1 + LATENCY_MARGIN)
    for a, b in ((record(9, 10), record(edge, 12)), (record(9, 10), record(10.1, 12))):
        assert better(a, b, "latency_p50") is better(b, a, "latency_p50") is None
    assert better(record(9, 10), record(edge + 1e-6, 12), "latency_p50") is True
    assert better(record(edge + 1e-6, 12), record(9, 10), "latency_p50") is False


# --------------------------------------------------------------------------------------------------- comparable


def test_the_fields_of_keys() -> None:
    assert fields_of(("size", "accuracy")) == ("size_bytes", "accuracy")
    assert fields_of(BY_KEY) == tuple(QUANTITIES)
    with pytest.raises(RecordError, match="unknown quantity 'speed'; known: accuracy, latency_p50, "):
        fields_of(("accuracy", "speed"))


def test_no_records() -> None:
    with pytest.raises(RecordError, match="no records to compare; wanted at least one"):
        front([])


def test_two_devices_are_not_compared() -> None:
    other = make_record(device_id="ffffffffffff", device={"name": "Big PC"})
    with pytest.raises(RecordError, match=r"differ in device: Testboard 5 \(0123456789ab\), Big PC \(ffffffffffff\)"):
        check_comparable([make_record(), other], ("size",))


@pytest.mark.parametrize("change", [{"data": "0ther"}, {"part": "validation"}, {"data": None}])
def test_accuracies_on_other_pictures_are_not_compared(change: dict[str, Any]) -> None:
    records = [make_record(), make_record(**change)]
    message = "differ in data: .*feedc0de test.* Measure them on the same pictures, or leave accuracy out"
    with pytest.raises(RecordError, match=message):
        front(records)
    with pytest.raises(RecordError, match="differ in data"):
        better(*records, "accuracy")
    assert front(records, ("latency_p50", "size")) == records  # a latency is no matter of the pictures


@EVERY
def test_a_missing_number_is_not_compared_as_zero(quantity: Quantity) -> None:
    without = make_record(**{quantity.field: None}, missing={quantity.field: "no meter"})
    message = (
        rf"{without.id} \(.*\) has no {quantity.key}: no meter\. Leave {quantity.key} out with --keys, or measure it"
    )
    with pytest.raises(RecordError, match=message):
        front([make_record(), without], (quantity.key,))
    with pytest.raises(RecordError, match=message):
        better(without, make_record(), quantity.key)
    with pytest.raises(RecordError, match="not measured"):
        check_comparable([replace(without, missing={})], (quantity.key,))
