"""Which records may stand beside each other, which differ beyond noise, and which no other beats.

Imports errors, quantity, record and stats.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.errors import RecordError
from featherweight.record import BY_KEY, QUANTITIES, Record, label_of, read_records, value_of
from featherweight.stats import MARGIN

DEFAULT_KEYS = ("accuracy", "latency_p50", "size")

# What other load on the machine changes. Of an UNSTABLE record these are not believed, and two that are closer than
# the margin are called the same even where their intervals are apart: an interval knows the drift within one process
# only, and a fresh process of the same file differs by about as much.
NOISY_UNITS = ("ms", "1/s", "mJ")


@dataclass(frozen=True)
class Source:
    """A record, and the folder that its file is in (where its raw samples are), if it came from a file."""

    record: Record
    folder: Path | None = None


def gather(records: str | Path | Sequence[str | Path | Record]) -> list[Source]:
    """The records of a file, of a folder and all folders below it, of several of these, or records themselves.

    Of each folder its `records.jsonl` is read, else every `*.jsonl`. A record that was copied is there once, and one
    that another corrects is not.

    Raises:
        RecordError: a place without a record, or a line that is no record.
    """
    found: dict[str, Source] = {}
    for one in [records] if isinstance(records, str | Path) else records:
        for source in [Source(one)] if isinstance(one, Record) else _below(Path(one)):
            found.setdefault(source.record.id, source)
    corrected = {source.record.replaces for source in found.values()}
    return [source for source in found.values() if source.record.id not in corrected]


def _below(path: Path) -> list[Source]:
    folders = sorted({file.parent for file in path.rglob("*.jsonl")}) if path.is_dir() else []
    if not folders:
        return [Source(record, path.parent) for record in read_records(path)]
    return [Source(record, folder) for folder in folders for record in read_records(folder)]


def by_device(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Device id → its records; the devices in the order in which they come up."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.device_id, []).append(record)
    return groups


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, their names joined by dots: `{"before": {"load": 1}}` → `{"before.load": 1}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def changes(environment: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(what, before, after) for each thing of a record's environment that was another after the measurement.

    Numbers within 5 % are alike, and small ones within 0.1: a load and a temperature never stand still.
    """
    known = flat(environment)
    names = [name.removeprefix("before.") for name in known if name.startswith("before.")]
    pairs = [(name, known[f"before.{name}"], known.get(f"after.{name}")) for name in names]
    return [(name, before, after) for name, before, after in pairs if not _alike(before, after)]


def _alike(before: Any, after: Any) -> bool:
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return all(map(_alike, before, after))
    if isinstance(before, int | float) and isinstance(after, int | float):
        return math.isclose(before, after, rel_tol=0.05, abs_tol=0.1)
    return bool(before == after)


def fields_of(keys: Sequence[str]) -> tuple[str, ...]:
    """Budget keys → fields of a record.

    Raises:
        RecordError: an unknown key.
    """
    for key in keys:
        if key not in BY_KEY:
            raise RecordError(f"unknown quantity {key!r}; known: {', '.join(BY_KEY)}")
    return tuple(BY_KEY[key].field for key in keys)


def check_comparable(records: Sequence[Record], keys: Sequence[str]) -> None:
    """Raise unless the records were taken on one device, in full, on the same pictures, and have every key.

    Raises:
        RecordError: which of it is not so, and what to do.
    """
    if not records:
        raise RecordError("no records to compare; wanted at least one")
    names = fields_of(keys)
    devices = {r.device_id: f"{r.device.get('name', '?')} ({r.device_id})" for r in records}
    if len(devices) > 1:
        raise RecordError(
            f"records differ in device: {', '.join(devices.values())}. Measure them again on one device, "
            "or compare each device apart"
        )
    quick = [f"{record.id} ({record.name})" for record in records if record.quick]
    if quick:
        more = f" and {len(quick) - 1} more" if len(quick) > 1 else ""
        raise RecordError(
            f"{quick[0]}{more} of {len(records)}: a quick measurement is not compared. Measure again without --quick "
            "(a record of schema 1 counts as quick, too), or show it, labelled, with --quick"
        )
    _check_same(records, names)
    for record in records:
        for name in names:
            if value_of(record, name) is None:
                cause = record.missing.get(name, "not measured")
                key = QUANTITIES[name].key
                raise RecordError(
                    f"{record.id} ({record.name}) has no {key}: {cause}. Leave {key} out with --keys, or measure it"
                )


def _check_same(records: Sequence[Record], names: Sequence[str]) -> None:
    """Accuracy is one metric of the same pictures, energy was taken the same way."""
    metrics = {label_of("accuracy", [record]) for record in records}
    if "accuracy" in names and len(metrics) > 1:
        raise RecordError(f"records differ in metric: {', '.join(sorted(metrics))}. Compare each task apart")
    data = {(r.data, r.part) for r in records}
    if "accuracy" in names and len(data) > 1:
        shown = ", ".join(f"{fingerprint} {part}" for fingerprint, part in sorted(data, key=str))
        raise RecordError(f"records differ in data: {shown}. Measure them on the same pictures, or leave accuracy out")
    methods = {r.energy_method or "unknown" for r in records if r.energy_mj is not None}
    if "energy_mj" in names and len(methods) > 1:
        shown = ", ".join(sorted(methods))
        raise RecordError(f"records differ in how energy was taken: {shown}. Measure it one way, or leave energy out")


def front(records: Sequence[Record], keys: Sequence[str] = DEFAULT_KEYS) -> list[Record]:
    """The records that no other record beats: at least as good on every key and better on one.

    Where a key is a time, throughput or energy, UNSTABLE records neither beat another nor stand on the front.

    Raises:
        RecordError: they are not comparable.
    """
    check_comparable(records, keys)
    believed = [record for record in records if not (record.unstable and any(map(is_noisy, keys)))]
    costs = [_costs(record, fields_of(keys)) for record in believed]
    return [
        record
        for record, cost in zip(believed, costs, strict=True)
        if not any(other != cost and all(o <= c for o, c in zip(other, cost, strict=True)) for other in costs)
    ]


def is_noisy(key: str) -> bool:
    """Whether other load on the machine changes a quantity: times, throughput, energy."""
    return BY_KEY[key].unit in NOISY_UNITS


def better(a: Record, b: Record, key: str) -> bool | None:
    """True where `a` is better than `b` on `key` beyond noise, False where it is worse, `None` where neither is shown.

    As `apart`, and nothing is shown by the times, throughput and energy of an UNSTABLE record, nor by such without an
    interval.

    Raises:
        RecordError: they are not comparable on that key.
    """
    check_comparable((a, b), (key,))
    name = BY_KEY[key].field
    if is_noisy(key) and any(record.unstable or record.interval(name) is None for record in (a, b)):
        return None
    return apart(a, b, key)


def apart(a: Record, b: Record, key: str) -> bool | None:
    """As `better`, without a look at whether the two may be compared: for who orders work and claims nothing.

    Intervals must lie apart, those of times, throughput and energy by at least 2 %; sizes, counts and other exact
    numbers have none and simply differ.

    Raises:
        RecordError: one of them has no such number.
    """
    quantity = BY_KEY[key]
    low_a, high_a = _interval(a, quantity.field)
    low_b, high_b = _interval(b, quantity.field)
    margin = 1 + MARGIN if is_noisy(key) else 1.0
    if high_a * margin < low_b:
        return quantity.better == "lower"
    if high_b * margin < low_a:
        return quantity.better == "higher"
    return None


def _interval(record: Record, name: str) -> tuple[float, float]:
    value = value_of(record, name)
    if value is None:
        raise RecordError(f"{record.id} has no {name}")
    return record.interval(name) or (value, value)


def _costs(record: Record, names: Sequence[str]) -> tuple[float, ...]:
    values = ((QUANTITIES[name], value_of(record, name)) for name in names)
    return tuple(quantity.cost(value) for quantity, value in values if value is not None)
