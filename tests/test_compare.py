"""The laws of comparing: who beats whom, and what may not stand side by side."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.compare import (
    DEFAULT_KEYS,
    Source,
    apart,
    better,
    by_device,
    changes,
    check_comparable,
    fields_of,
    flat,
    front,
    gather,
    is_noisy,
)
from featherweight.errors import RecordError
from featherweight.quantity import Quantity
from featherweight.record import BY_KEY, QUANTITIES, Record, append_record
from featherweight.stats import MARGIN
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
def test_apart_on_every_quantity(quantity: Quantity) -> None:
    less, more = plain(quantity, 0.25), plain(quantity, 0.75)
    assert apart(less, more, quantity.key) is (quantity.better == "lower")
    assert apart(more, less, quantity.key) is (quantity.better == "higher")
    assert apart(less, less, quantity.key) is None
    near = plain(quantity, 0.25 * (1 + MARGIN / 2))
    noisy = quantity.unit in ("ms", "1/s", "mJ")
    assert is_noisy(quantity.key) is noisy
    assert apart(less, near, quantity.key) is (None if noisy else quantity.better == "lower")


@EVERY
def test_nothing_is_shown_by_what_is_noisy_and_has_no_interval(quantity: Quantity) -> None:
    less, more = plain(quantity, 0.25), plain(quantity, 0.75)
    wanted = None if is_noisy(quantity.key) else quantity.better == "lower"
    assert better(less, more, quantity.key) is wanted


@EVERY
@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_nothing_is_shown_by_the_times_and_energy_of_an_unstable_record(quantity: Quantity, which: str) -> None:
    interval = {"accuracy": "accuracy_interval", "latency_p50_ms": "latency_p50_interval_ms"}.get(quantity.field)

    def record(value: float, unstable: bool) -> Record:
        around = {} if interval is None else {interval: (value - 0.01, value + 0.01)}
        return make_record(**{quantity.field: value}, unstable=("hot",) if unstable else (), **around)

    less, more = record(0.25, which != "b"), record(0.75, which != "a")
    for judge in (better, apart):
        looks = judge is apart or not is_noisy(quantity.key)
        assert (judge(less, more, quantity.key) is not None) is looks
        assert (judge(more, less, quantity.key) is not None) is looks
    if quantity.field == "latency_p50_ms":
        assert better(record(0.25, False), record(0.75, False), quantity.key) is True


def test_apart_looks_at_nothing_but_the_numbers() -> None:
    fast = make_record(latency_p50_interval_ms=(1.0, 1.1), quick=True, device_id="ffffffffffff", data=None)
    slow = make_record(latency_p50_interval_ms=(2.0, 2.1), unstable=("hot",))
    assert apart(fast, slow, "latency_p50") is True
    with pytest.raises(RecordError, match="has no macs"):
        apart(fast, replace(slow, macs=None), "macs")


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

    edge = 10 * (1 + MARGIN)
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
        front([make_record(**{quantity.field: 0.5}), without], (quantity.key,))
    with pytest.raises(RecordError, match=message):
        better(without, make_record(), quantity.key)
    with pytest.raises(RecordError, match="not measured"):
        check_comparable([replace(without, missing={})], (quantity.key,))


def test_quick_records_are_not_compared() -> None:
    full, quick = make_record(), make_record(quick=True, seed=1)
    message = rf"{quick.id} \(.*\) of 2: a quick measurement is not compared\. Measure again without --quick"
    with pytest.raises(RecordError, match=message):
        check_comparable([full, quick], ("size",))
    with pytest.raises(RecordError, match=rf"{quick.id} \(.*\) and 1 more of 2"):
        better(quick, replace(quick, seed=2), "latency_p50")


def test_energies_taken_in_other_ways_are_not_compared() -> None:
    records = [make_record(), make_record(energy_method="measured:meter"), make_record(energy_method=None)]
    shown = "measured:meter, measured:rapl-package, unknown"
    with pytest.raises(RecordError, match=f"differ in how energy was taken: {shown}"):
        check_comparable(records, ("energy", "size"))
    check_comparable(records, DEFAULT_KEYS)
    check_comparable([records[0], replace(records[0], seed=1)], ("energy",))
    estimated = make_record(energy_mj=None, energy_method=None, energy_estimate={"mj_per_inference": 1.0})
    with pytest.raises(RecordError, match="has no energy"):
        check_comparable([records[0], estimated], ("energy",))


@given(RECORDS, KEYS, st.lists(st.booleans(), min_size=12, max_size=12))
def test_an_unstable_record_has_no_part_in_a_front_of_times(
    records: list[Record], keys: tuple[str, ...], doubtful: list[bool]
) -> None:
    marked = [replace(r, unstable=("hot",) if d else ()) for r, d in zip(records, doubtful, strict=False)]
    stable = [record for record in marked if not record.unstable]
    if "latency_p50" in keys:
        assert front(marked, keys) == (front(stable, keys) if stable else [])
    else:
        assert [r.accuracy for r in front(marked, keys)] == [r.accuracy for r in front(records, keys)]


# ------------------------------------------------------------------------------------------------------- gather


def test_records_are_gathered_from_folders_below(tmp_path: Path) -> None:
    a, b, c, d = (make_record(seed=seed) for seed in range(4))
    for place, record in (
        ("pi/records.jsonl", a),
        ("pi/screen.jsonl", d),  # of the same folder, which fit wrote: other pictures
        ("pc/first.jsonl", b),
        ("pc/second.jsonl", c),
        ("pc/copy/records.jsonl", a),
    ):
        append_record(tmp_path / place, record)
    found = gather(tmp_path)
    assert sorted(source.record.id for source in found) == sorted(record.id for record in (a, b, c))
    assert Source(b, tmp_path / "pc") in found
    assert gather([tmp_path / "pi" / "screen.jsonl", str(tmp_path / "pc" / "copy")]) == [
        Source(d, tmp_path / "pi"),
        Source(a, tmp_path / "pc" / "copy"),
    ]
    assert gather([a, a, b]) == [Source(a), Source(b)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"no \*\.jsonl in .*empty"):
        gather(tmp_path / "empty")
    with pytest.raises(RecordError, match="cannot read"):
        gather([tmp_path / "none.jsonl"])


def test_a_corrected_record_is_left_out_wherever_it_lies() -> None:
    first = make_record()
    corrected = replace(first, unstable=("hot",), replaces=first.id)
    again = replace(corrected, findings=("slow",), replaces=corrected.id)
    assert gather([first, again, corrected]) == [Source(again)]


def test_groups_by_device_keep_the_order() -> None:
    records = [make_record(seed=i, device_id=name) for i, name in enumerate(["b", "a", "b"])]
    assert by_device(records) == {"b": [records[0], records[2]], "a": [records[1]]}
    assert list(by_device(records)) == ["b", "a"]


def test_what_changed_of_the_machine() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": None}) == {"a.b.c": 1, "a.d": [{"e": 2}], "f": None}
    before = {"governor": "performance", "clock": {"mhz": 2000}, "load": [0.1, 0.2], "count": 3, "gone": 1}
    after = {"governor": "powersave", "clock": {"mhz": 1800}, "load": [0.15, 0.2], "count": 4}
    assert changes({"before": before, "after": after}) == [
        ("governor", "performance", "powersave"),
        ("clock.mhz", 2000, 1800),
        ("count", 3, 4),
        ("gone", 1, None),
    ]
    assert changes({"before": {"mhz": 2000, "share": 0.02}, "after": {"mhz": 1910, "share": 0.1}}) == []
    assert changes({"before": {"load": [1.0]}, "after": {"load": [2.0]}}) == [("load", [1.0], [2.0])]
    assert changes({}) == changes({"before": "hot"}) == []


def test_two_metrics_are_not_compared() -> None:
    records = [make_record(), make_record(metric="AP50:95")]
    with pytest.raises(RecordError, match=r"records differ in metric: AP50:95, top-1\. Compare each task apart"):
        check_comparable(records, ("accuracy",))
    check_comparable(records, ("latency_p50",))
