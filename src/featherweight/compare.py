"""Which records may stand beside each other, which differ beyond noise, and which no other beats.

Imports errors, quantity and record.
"""

from collections.abc import Sequence

from featherweight.errors import RecordError
from featherweight.record import BY_KEY, QUANTITIES, Record, value_of

DEFAULT_KEYS = ("accuracy", "latency_p50", "size")

# Two latencies closer than this are called the same even where their intervals are apart: the interval knows the
# drift within one process only, and a fresh process of the same file differs by about as much.
LATENCY_MARGIN = 0.02


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
    """Raise unless the records were taken on one device, on the same pictures, and have every key.

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
    data = {(r.data, r.part) for r in records}
    if "accuracy" in names and len(data) > 1:
        shown = ", ".join(f"{fingerprint} {part}" for fingerprint, part in sorted(data, key=str))
        raise RecordError(f"records differ in data: {shown}. Measure them on the same pictures, or leave accuracy out")
    for record in records:
        for name in names:
            if value_of(record, name) is None:
                cause = record.missing.get(name, "not measured")
                key = QUANTITIES[name].key
                raise RecordError(
                    f"{record.id} ({record.name}) has no {key}: {cause}. Leave {key} out with --keys, or measure it"
                )


def front(records: Sequence[Record], keys: Sequence[str] = DEFAULT_KEYS) -> list[Record]:
    """The records that no other record beats: at least as good on every key and better on one.

    Raises:
        RecordError: they are not comparable.
    """
    check_comparable(records, keys)
    costs = [_costs(record, fields_of(keys)) for record in records]
    return [
        record
        for record, cost in zip(records, costs, strict=True)
        if not any(other != cost and all(o <= c for o, c in zip(other, cost, strict=True)) for other in costs)
    ]


def better(a: Record, b: Record, key: str) -> bool | None:
    """True where `a` is better than `b` on `key` beyond noise, False where it is worse, `None` where neither is shown.

    With intervals, these must lie apart (latencies by at least 2 %); sizes, counts and other exact numbers have none
    and simply differ.

    Raises:
        RecordError: they are not comparable on that key.
    """
    check_comparable((a, b), (key,))
    quantity = BY_KEY[key]
    low_a, high_a = _interval(a, quantity.field)
    low_b, high_b = _interval(b, quantity.field)
    margin = 1 + LATENCY_MARGIN if quantity.unit == "ms" else 1.0
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
