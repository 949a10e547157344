"""Records as text: the card of one, the table of a terminal, the table of a README.

Imports compare, quantity, record and this folder; rich where it is used.
"""

import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from featherweight.compare import by_device, changes, flat
from featherweight.record import BY_KEY, OPTIONAL, QUANTITIES, Record, label_of, told, value_of
from featherweight.report.comparison import Comparison
from featherweight.report.scores import class_scores, kind_of, share_text

PIPE_WIDTH = 400  # of a table that no terminal bounds: wide enough that nothing is folded
COLUMNS = ("accuracy", "latency_p50", "latency_p90", "memory_peak", "size", "parameters", "macs")
# Where a terminal is too narrow for all columns, these go first, the first one first of all.
DISPENSABLE = (
    "ap75", "boundary_f1", "pixel_accuracy", "dice", "macs", "parameters", "memory_peak", "latency_p90", "size", "ap50",
    "iou", "verdict",
)  # fmt: skip
NAME_WIDTH = 28  # a longer name may be folded to this
GAP = 2  # between two columns
SHOWN_CHANGES = 4  # of the environment, on a card
SHOWN_CLASSES = 6  # of a detector, on a card


def show(record: Record, name: str) -> str:
    """One measured field with its interval: `97.9 % (96.1–98.9)`."""
    text = QUANTITIES[name].show(value_of(record, name))
    interval = record.interval(name)
    return text if interval is None else f"{text} ({bounds_text(name, interval)})"


def columns_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The quantities of a table of these records: `COLUMNS`, and behind the metric what else they have of it."""
    more = (name for name in OPTIONAL if any(value_of(record, name) is not None for record in records))
    return (COLUMNS[0], *more, *COLUMNS[1:])


def bounds_text(name: str, interval: tuple[float, float]) -> str:
    """An interval of a quantity: `96.1–98.9`."""
    low, high = (QUANTITIES[name].show(bound).removesuffix(" %").removesuffix(" ms") for bound in interval)
    return f"{low}–{high}"


def threads_text(count: int) -> str:
    """`1 thread`."""
    return f"{count} thread{'s' if count > 1 else ''}"


def printable(text: str) -> str:
    """A line whose control characters can be seen: a record may come from anywhere."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def labels(record: Record) -> tuple[str, ...]:
    """What must stand wherever the record is shown."""
    return (*(("UNSTABLE",) if record.unstable else ()), *(("quick",) if record.quick else ()))


def labelled(text: str, record: Record) -> str:
    """A text with the record's labels: `mobilenet (UNSTABLE, quick)`."""
    return f"{text} ({', '.join(labels(record))})" if labels(record) else text


def arithmetic(record: Record) -> str:
    """What it really ran with, and what the file is in: `bfloat16 on cpu (file: float32)`."""
    computed, provider = (value or "unknown" for value in (record.compute_precision, record.provider))
    return f"{computed} on {provider} (file: {record.precision or 'unknown'})"


def estimate_text(record: Record) -> str | None:
    """An estimate of energy, as it was made; it is no measurement and is never compared."""
    if record.energy_estimate is None:
        return None
    return ", ".join(f"{name} {value}" for name, value in flat(record.energy_estimate).items())


def change_texts(record: Record) -> list[str]:
    """What of the machine was another after the measurement: `load_1m 0.31 → 1.9`."""
    return [f"{name} {before!s:.60} → {after!s:.60}" for name, before, after in changes(record.environment)]


# -------------------------------------------------------------------------------------------------------- card


def card(record: Record) -> str:
    """Everything about one record, a line a number, with what is missing and why."""
    lines = [
        "  ".join((record.name, f"[{record.id}]", *labels(record))),
        f"  {record.runtime} {record.versions.get(record.runtime, '')}, {threads_text(record.threads)}, "
        f"{record.device.get('name', '?')}",
        f"  computed in {arithmetic(record)}",
        *(_card_line(record, name) for name in told(record)),
    ]
    lines += _class_lines(record)
    estimate = estimate_text(record)
    lines += [] if estimate is None else [f"  energy, estimated and not measured: {estimate}"]
    lines += [f"  UNSTABLE: {reason}" for reason in record.unstable]
    lines += ["  quick: too short to be compared"] if record.quick else []
    lines += [f"  warning: {warning}" for warning in record.warnings]
    lines += [f"  finding: {finding}" for finding in record.findings]
    found = change_texts(record)
    more = [f"{len(found) - SHOWN_CHANGES} more"] if len(found) > SHOWN_CHANGES else []
    lines += [f"  changed meanwhile: {'; '.join(found[:SHOWN_CHANGES] + more)}"] if found else []
    lines += [f"  raw samples: {record.samples}"] if record.samples else []
    return "\n".join(map(printable, lines))


def _class_lines(record: Record) -> list[str]:
    """AP50 or IoU of the classes that have any, the worst first."""
    kind = kind_of(record)
    if kind is None:
        return []
    scores = class_scores(record)
    known = {name: one[kind.told] for name, one in scores.items() if isinstance(one.get(kind.told), float)}
    names = sorted(known, key=known.__getitem__)
    more = f"; {len(names) - SHOWN_CLASSES} more on the page" if len(names) > SHOWN_CLASSES else ""
    said = ", ".join(f"{name} {share_text(known[name])}" for name in names[:SHOWN_CLASSES])
    return [f"  {kind.label:<24} {said}{more}"] if names else []


def _card_line(record: Record, name: str) -> str:
    label = label_of(name, [record])
    if value_of(record, name) is None:
        return f"  {label:<24} –  {record.missing.get(name, 'not measured')}"
    tails = {
        "accuracy": f"  n = {record.accuracy_n}, {record.part} pictures" if record.accuracy_n else "",
        "latency_p50_ms": f"  n = {record.latency_n} runs" if record.latency_n else "",
        "energy_mj": f"  {record.energy_method or 'method unknown'}",
    }
    return f"  {label:<24} {show(record, name)}{tails.get(name, '')}"


# ------------------------------------------------------------------------------------------------------- table


@dataclass(frozen=True)
class _Column:
    """One column of the terminal's table."""

    head: str
    cells: tuple[str, ...]
    key: str = ""  # by which it may be left out
    left: bool = False

    @property
    def least(self) -> int:
        """The least width at which no word is cut; names may be cut at `NAME_WIDTH`."""
        most = max(len(word) for text in (self.head, *self.cells) for word in (text.split() or [""]))
        return min(most, NAME_WIDTH)

    @property
    def most(self) -> int:
        """The width at which nothing is folded."""
        return max(map(len, (self.head, *self.cells)))


def table(comparison: Comparison, budgeted: bool, width: int | None = None) -> str:
    """The records as a table for the terminal, device by device, lightest first; ● marks the front.

    What is the same in every row stands below; what a narrow terminal has no room for is named there.
    """
    devices = comparison.devices
    parts = [_device_table(one, budgeted, width, titled=len(devices) > 1) for one in devices]
    if len(devices) > 1:
        heads, *rows = matrix(comparison)
        columns = [_Column(head, tuple(row[i] for row in rows), left=True) for i, head in enumerate(heads)]
        parts.append("\n".join(["p50 latency by device", _grid(columns, width)]))
    notes = [
        f"● beaten by none in {', '.join(label_of(BY_KEY[key].field, comparison.records) for key in comparison.keys)}"
    ]
    if any(record.unstable for record in comparison.records):
        notes.append("UNSTABLE: its times are not compared; its card and the page have the reasons")
    if any(record.quick for record in comparison.records):
        notes.append("quick: too short to be compared")
    return "\n\n".join([*parts[:-1], "\n".join([parts[-1], *notes])])


def _device_table(comparison: Comparison, budgeted: bool, width: int | None, titled: bool) -> str:
    columns, same = _told_apart(_columns(comparison, budgeted))
    kept, left_out = _fitting(columns, width or PIPE_WIDTH)
    lines = [comparison.device] if titled else []
    lines.append(_grid(kept, width))
    lines += [f"all: {', '.join(same)}"] if same else []
    lines += (
        [f"no room for: {', '.join(left_out)}; widen the terminal, or see the page with --output"] if left_out else []
    )
    return "\n".join(lines)


def _columns(comparison: Comparison, budgeted: bool) -> list[_Column]:
    records = comparison.records
    marks = (("●" if r.id in comparison.front else "", *labels(r)) for r in records)
    columns = [
        _Column("", tuple(" ".join(filter(None, mark)) for mark in marks), left=True),
        _Column("name", tuple(r.name for r in records), left=True),
        _Column("runtime", tuple(r.runtime for r in records), left=True),
        _Column("threads", tuple(str(r.threads) for r in records)),
        _Column("computed in", tuple(r.compute_precision or "?" for r in records), left=True),
        _Column("provider", tuple(r.provider or "?" for r in records), left=True),
        *(_number_column(key, records) for key in columns_of(records)),
        _Column("accuracy against best", tuple(comparison.verdicts[r.id] for r in records), "verdict", True),
    ]
    if budgeted:
        misses = ("; ".join(map(str, comparison.violations[r.id])) or "fits" for r in records)
        columns.append(_Column("budget", tuple(misses), left=True))
    return columns


def _number_column(key: str, records: Sequence[Record]) -> _Column:
    name = BY_KEY[key].field
    return _Column(label_of(name, records), tuple(show(r, name) for r in records), key)


def _told_apart(columns: Sequence[_Column]) -> tuple[list[_Column], list[str]]:
    """(the columns that tell rows apart or hold numbers, how all rows were run alike)."""
    words = {"runtime": "{}", "threads": "threads {}", "computed in": "computed in {}", "provider": "on {}"}
    same = [column for column in columns if column.head in words and len(set(column.cells)) == 1]
    known = [column for column in same if column.cells[0] != "?"]
    return [c for c in columns if c not in same], [words[c.head].format(c.cells[0]) for c in known]


def _fitting(columns: Sequence[_Column], width: int) -> tuple[list[_Column], list[str]]:
    """(the columns that fit the width without a cut word, the labels of those left out)."""
    kept, left_out = list(columns), []
    for key in DISPENSABLE:
        if sum(column.least + GAP for column in kept) - GAP <= width:
            break
        left_out += [column.head for column in kept if column.key == key]
        kept = [column for column in kept if column.key != key]
    return kept, left_out


def _grid(columns: Sequence[_Column], width: int | None) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    widths = _widths(columns, width or PIPE_WIDTH)
    for column, wide in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "left" if column.left else "right"
        grid.add_column(Text(column.head), justify=justify, overflow="fold", width=wide)
    for cells in zip(*(column.cells for column in columns), strict=True):
        grid.add_row(*(Text(printable(cell)) for cell in cells))  # as text, a name like [bold] or :x: is no markup
    stream = io.StringIO()
    # Whatever the environment says (FORCE_COLOR, a notebook), plain text is wanted here.
    Console(file=stream, width=sum(widths) + GAP * len(widths), force_terminal=False, force_jupyter=False).print(grid)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """As wide as the words want; where that is too much, the widest is folded first, and no word is cut."""
    widths = [column.most for column in columns]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        spare = [wide if wide > column.least else 0 for wide, column in zip(widths, columns, strict=True)]
        if not any(spare):
            break
        widths[spare.index(max(spare))] -= 1
    return widths


def matrix(comparison: Comparison) -> list[list[str]]:
    """Heads and rows: a file by a runtime each, a device each column, the p50 latencies with threads and precision."""
    devices = comparison.devices
    rows: dict[tuple[str, str, str], list[str]] = {}
    for record in comparison.records:
        rows.setdefault((record.name, record.artifact_sha256, record.runtime), [])
    names = [name for name, _ in {(name, sha256) for name, sha256, _ in rows}]
    for (name, sha256, runtime), cells in rows.items():
        cells += [f"{name} {sha256[:8]}" if names.count(name) > 1 else name, runtime]
        for one in devices:
            mine = [r for r in one.records if (r.name, r.artifact_sha256, r.runtime) == (name, sha256, runtime)]
            cells.append("; ".join(_matrix_cell(record) for record in mine) or "–")
    heads = ["file", "runtime", *(one.device for one in devices)]
    return [heads, *(rows[key] for key in sorted(rows))]


def _matrix_cell(record: Record) -> str:
    how = f"{threads_text(record.threads)}, {record.compute_precision or 'precision unknown'}"
    return f"{QUANTITIES['latency_p50_ms'].show(record.latency_p50_ms)} ({', '.join((how, *labels(record)))})"


# ---------------------------------------------------------------------------------------------------- markdown


def markdown(records: Sequence[Record]) -> str:
    """A README table of records, lightest first, with the id by which each is found in its file.

    Records of several devices have one column more, and stand device by device.
    """
    several = len(by_device(records)) > 1
    ordered = sorted(records, key=lambda r: r.latency_p50_ms or math.inf)
    heads = ["record", *(["device"] if several else []), "file", "runtime", "threads"]
    columns = columns_of(records)
    lines = [[*heads, *(label_of(BY_KEY[key].field, records) for key in columns)]]
    lines.append(["---"] * len(lines[0]))
    for group in by_device(ordered).values():
        for r in group:
            device = [str(r.device.get("name", "?"))] if several else []
            numbers = (show(r, BY_KEY[key].field) for key in columns)
            lines.append([r.id, *device, labelled(r.name, r), r.runtime, str(r.threads), *numbers])
    return "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _markdown_cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
