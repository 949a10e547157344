"""Records → what people read: a card, a table, and one self-contained page that works offline.

In scope: words and drawing. Not aware of: how anything was measured beyond what the record says.
Imports artifact (to write files), budget, compare, errors, quantity, record.
"""

import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.artifact import write_file
from featherweight.budget import Budget, Violation, parse_budget
from featherweight.compare import DEFAULT_KEYS, better, check_comparable, fields_of, front
from featherweight.record import BY_KEY, QUANTITIES, Record, read_records, value_of

COLUMNS = ("accuracy", "latency_p50", "latency_p90", "memory_peak", "size", "parameters", "macs")


@dataclass(frozen=True)
class Comparison:
    """Records side by side, lightest first."""

    records: tuple[Record, ...]
    keys: tuple[str, ...]
    front: tuple[str, ...]  # ids of the records that no other beats
    violations: dict[str, tuple[Violation, ...]]  # id → what it misses of the budget
    verdicts: dict[str, str]  # id → how its accuracy stands to the best one's

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "keys": list(self.keys),
            "records": [
                {
                    **json.loads(record.to_json()),
                    "id": record.id,
                    "on_front": record.id in self.front,
                    "violations": [str(v) for v in self.violations[record.id]],
                    "accuracy_against_best": self.verdicts[record.id],
                }
                for record in self.records
            ],
        }


def compare(
    records: str | Path | Sequence[Record],
    budget: str | Budget | None = None,
    keys: Sequence[str] = DEFAULT_KEYS,
    output: str | Path | None = None,
) -> Comparison:
    """Set records side by side: which are beaten by none, which fit a budget, which differ beyond noise.

    Args:
        records: a file of records, a folder of such files, or records.
        budget: limits to hold each against.
        keys: the quantities of the front.
        output: where to write the page; nothing is written without.

    Raises:
        RecordError: the file is no file of records, or the records are not comparable.
        BudgetError: the budget cannot be understood.
        OutputError: the page cannot be written.
    """
    listed = read_records(records) if isinstance(records, str | Path) else list(records)
    limits = parse_budget(budget) if isinstance(budget, str) else budget or Budget()
    check_comparable(listed, keys)
    ordered = sorted(listed, key=lambda r: (r.latency_p50_ms or math.inf, r.size_bytes or math.inf))
    comparison = Comparison(
        records=tuple(ordered),
        keys=tuple(keys),
        front=tuple(record.id for record in front(ordered, keys)),
        violations={record.id: limits.violations(record) for record in ordered},
        verdicts=_verdicts(ordered, "accuracy" in keys),
    )
    if output is not None:
        write_file(Path(output), page(comparison, limits).encode())
    return comparison


def _verdicts(records: Sequence[Record], with_accuracy: bool) -> dict[str, str]:
    if not with_accuracy:
        return dict.fromkeys((record.id for record in records), "–")
    best = max(records, key=lambda record: record.accuracy or 0)
    words = {True: "lower", False: "higher", None: "no difference shown"}
    return {r.id: "best" if r is best else words[better(best, r, "accuracy")] for r in records}


# -------------------------------------------------------------------------------------------------------- text


def show(record: Record, name: str) -> str:
    """One measured field with its interval: `97.9 % (96.1–98.9)`."""
    quantity = QUANTITIES[name]
    text = quantity.show(value_of(record, name))
    interval = record.interval(name)
    if interval is None:
        return text
    low, high = (quantity.show(bound).removesuffix(" %").removesuffix(" ms") for bound in interval)
    return f"{text} ({low}–{high})"


def card(record: Record) -> str:
    """Everything about one record, a line a number, with what is missing and why."""
    lines = [
        f"{record.name}  [{record.id}]",
        f"  {record.runtime} {record.versions.get(record.runtime, '')}, {_threads(record.threads)}, "
        f"{record.device.get('name', '?')}",
    ]
    for name, quantity in QUANTITIES.items():
        value = show(record, name)
        note = f"  {record.missing[name]}" if name in record.missing else ""
        count = {"accuracy": record.accuracy_n, "latency_p50_ms": record.latency_n}.get(name)
        tail = f"  n = {count}" + (f", {record.part} pictures" if name == "accuracy" else " runs") if count else ""
        lines.append(f"  {quantity.label:<22} {value}{tail}{note}")
    lines += [f"  warning: {warning}" for warning in record.warnings]
    return "\n".join(lines)


def table(comparison: Comparison, budgeted: bool, width: int | None = None) -> str:
    """The records as a table for the terminal, lightest first; ● marks the front."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("")
    for head in ("name", "runtime", "threads", *(BY_KEY[key].label for key in COLUMNS), "accuracy against best"):
        grid.add_column(head, justify="left" if head in ("name", "runtime", "accuracy against best") else "right")
    if budgeted:
        grid.add_column("budget")
    for record in comparison.records:
        cells = [
            "●" if record.id in comparison.front else "",
            record.name,
            record.runtime,
            str(record.threads),
            *(show(record, BY_KEY[key].field) for key in COLUMNS),
            comparison.verdicts[record.id],
        ]
        if budgeted:
            cells.append("; ".join(map(str, comparison.violations[record.id])) or "fits")
        grid.add_row(*(cell.replace("[", "\\[") for cell in cells))
    stream = io.StringIO()
    Console(file=stream, width=width or 200).print(grid)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    return "\n".join([*lines, f"● beaten by none in {', '.join(BY_KEY[key].label for key in comparison.keys)}"])


def markdown(records: Sequence[Record]) -> str:
    """A README table of records, lightest first, with the id by which each is found in its file."""
    heads = ["record", "file", "runtime", "threads", *(BY_KEY[key].label for key in COLUMNS)]
    rows = [
        [r.id, r.name, r.runtime, str(r.threads), *(show(r, BY_KEY[key].field) for key in COLUMNS)]
        for r in sorted(records, key=lambda r: r.latency_p50_ms or math.inf)
    ]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


# -------------------------------------------------------------------------------------------------------- page

PLOT_WIDTH, PLOT_HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 24, 54
SMALLEST_DOT, LARGEST_DOT = 4.0, 26.0

STYLE = """
:root{--ink:#1b1f24;--soft:#5b6570;--line:#d9dee4;--paper:#fff;--front:#0b6e4f;--other:#8a96a3;--miss:#b3402a}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf0;--soft:#9aa6b2;--line:#333b44;--paper:#14181c;--front:#4fc79a;
--other:#6c7783;--miss:#f08a73}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1080px;padding:32px 20px 64px;background:var(--paper);
color:var(--ink);font:15px/1.5 system-ui,sans-serif}h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}
p,dd{color:var(--soft);margin:4px 0}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}
svg .name{fill:var(--ink)}.grid{stroke:var(--line)}.front{fill:var(--front)}.other{fill:var(--other)}
.bar{stroke:var(--soft);stroke-width:1}.path{fill:none;stroke:var(--front);stroke-width:1.5;stroke-dasharray:4 4}
circle{fill-opacity:.65}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:right;padding:6px 10px;border-bottom:1px solid var(--line);white-space:nowrap;
font-variant-numeric:tabular-nums}th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}td.text{text-align:left;
white-space:normal;min-width:150px}tr.on td:first-child{color:var(--front);font-weight:600}.miss{color:var(--miss)}
details{margin:8px 0;border-bottom:1px solid var(--line);padding-bottom:8px}summary{cursor:pointer}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px;color:var(--soft)}
"""


def page(comparison: Comparison, limits: Budget) -> str:
    """One HTML page: the front as a picture, the table, and for every record how it was measured. No script, no link."""
    first = comparison.records[0]
    body = [
        "<h1>featherweight</h1>",
        f"<p>{len(comparison.records)} records on {_e(first.device.get('name', '?'))}, "
        f"{_e(first.device.get('cores', '?'))} cores. Budget: {_e(limits)}.</p>",
        "<h2>Accuracy against latency</h2>",
        plot(comparison) if _plottable(comparison.records) else "<p>No accuracy or latency to draw.</p>",
        f"<p>A dot is one file by one runtime; its area is the file's size. Green dots are beaten by none in "
        f"{_e(', '.join(BY_KEY[key].label for key in comparison.keys))}. Bars are 95 % intervals.</p>",
        "<h2>Records</h2>",
        _html_table(comparison, bool(limits.limits)),
        "<h2>How each number was measured</h2>",
        *(_html_method(record) for record in comparison.records),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>featherweight report</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def plot(comparison: Comparison) -> str:
    """The records as an SVG: p50 latency on a logarithmic axis, accuracy upwards, the dot's area the file's size."""
    dots = [r for r in comparison.records if r.accuracy is not None and r.latency_p50_ms]
    latencies = [r.latency_p50_ms for r in dots if r.latency_p50_ms]
    x_low, x_high = min(latencies) / 1.25, max(latencies) * 1.25
    lows = [(r.accuracy_interval or (r.accuracy or 0, 0))[0] for r in dots]
    highs = [(r.accuracy_interval or (0, r.accuracy or 0))[1] for r in dots]
    y_low, y_high = max(0.0, min(lows) - 0.02), min(1.0, max(highs) + 0.02)
    largest = max((r.size_bytes or 0 for r in dots), default=0) or 1

    def x(latency: float) -> float:
        share = math.log(latency / x_low) / math.log(x_high / x_low)
        return LEFT + share * (PLOT_WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return PLOT_HEIGHT - BOTTOM - (accuracy - y_low) / (y_high - y_low) * (PLOT_HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="accuracy against latency">']
    for tick in _ticks(y_low, y_high):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{PLOT_WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:g} %</text>')
    for tick in _log_ticks(x_low, x_high):
        parts.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{PLOT_HEIGHT - BOTTOM}"/>'
        )
        parts.append(f'<text x="{x(tick):.1f}" y="{PLOT_HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text x="{(LEFT + PLOT_WIDTH - RIGHT) / 2}" y="{PLOT_HEIGHT - 12}" text-anchor="middle">'
        "p50 latency of one inference, ms (logarithmic)</text>"
    )
    on_front = sorted((r for r in dots if r.id in comparison.front), key=lambda r: r.latency_p50_ms or 0)
    line = " ".join(f"{x(r.latency_p50_ms or 1):.1f},{y(r.accuracy or 0):.1f}" for r in on_front)
    parts.append(f'<polyline class="path" points="{line}"/>')
    for record in sorted(dots, key=lambda r: -(r.size_bytes or 0)):
        latency, accuracy = record.latency_p50_ms or 1, record.accuracy or 0
        radius = max(SMALLEST_DOT, LARGEST_DOT * math.sqrt((record.size_bytes or 0) / largest))
        if record.accuracy_interval is not None:
            low, high = record.accuracy_interval
            parts.append(
                f'<line class="bar" x1="{x(latency):.1f}" x2="{x(latency):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'
            )
        if record.latency_p50_interval_ms is not None:
            low, high = (min(max(bound, x_low), x_high) for bound in record.latency_p50_interval_ms)
            parts.append(
                f'<line class="bar" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y(accuracy):.1f}" y2="{y(accuracy):.1f}"/>'
            )
        kind = "front" if record.id in comparison.front else "other"
        hover = (
            f"{record.name}, {record.runtime}, {_threads(record.threads)}: {show(record, 'accuracy')}, "
            + ", ".join(show(record, name) for name in ("latency_p50_ms", "size_bytes"))
        )
        parts.append(
            f'<circle class="{kind}" cx="{x(latency):.1f}" cy="{y(accuracy):.1f}" r="{radius:.1f}">'
            f"<title>{_e(hover)}</title></circle>"
        )
    for place, record in enumerate(on_front):
        label_y = y(record.accuracy or 0) - 34 - 15 * (place % 3)
        parts.append(
            f'<text class="name" x="{x(record.latency_p50_ms or 1):.1f}" y="{max(TOP - 8, label_y):.1f}" '
            f'text-anchor="{_anchor(x(record.latency_p50_ms or 1))}">{_e(record.name)}, {record.threads}t</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _anchor(place: float) -> str:
    if place < PLOT_WIDTH / 3:
        return "start"
    return "end" if place > 2 * PLOT_WIDTH / 3 else "middle"


def _plottable(records: Sequence[Record]) -> bool:
    return any(r.accuracy is not None and r.latency_p50_ms for r in records)


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 8)
    return [round(i * step, 4) for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(ticks) >= 4:
            break
    return ticks


def _html_table(comparison: Comparison, budgeted: bool) -> str:
    heads = ["record", "file", "runtime", "threads", *(BY_KEY[key].label for key in COLUMNS), "accuracy against best"]
    heads += ["budget"] if budgeted else []
    rows = []
    for record in comparison.records:
        cells = [
            f"<td>{record.id}</td>",
            f"<td>{_e(record.name)}</td>",
            f"<td>{_e(record.runtime)}</td>",
            f"<td>{record.threads}</td>",
            *(f"<td>{_cell(record, BY_KEY[key].field)}</td>" for key in COLUMNS),
            f'<td class="text">{_e(comparison.verdicts[record.id])}</td>',
        ]
        if budgeted:
            misses = "; ".join(map(str, comparison.violations[record.id]))
            cells.append(f'<td class="text{" miss" if misses else ""}">{_e(misses or "fits")}</td>')
        rows.append(f'<tr class="{"on" if record.id in comparison.front else ""}">{"".join(cells)}</tr>')
    head = "".join(f"<th>{_e(text)}</th>" for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cell(record: Record, name: str) -> str:
    if name in record.missing:
        return f'<span title="{_e(record.missing[name])}">–</span>'
    return _e(show(record, name))


def _html_method(record: Record) -> str:
    protocol = record.settings.get("protocol", {})
    lines = [
        f"File sha256 {record.artifact_sha256}, {record.format}, {record.precision}.",
        f"One picture at a time through {record.runtime} on {_threads(record.threads)}, in a process of its own; "
        f"{record.latency_n} runs (at least {protocol.get('min_runs')} and {protocol.get('min_seconds')} s) after a "
        f"warm-up of at least {protocol.get('warmup_runs')} runs and {protocol.get('warmup_seconds')} s; inputs: "
        f"{record.settings.get('inputs')}. Latency is inference alone; pre- and post-processing have their own numbers.",
        f"Accuracy: {record.accuracy_n} pictures of {record.part} (data {record.data}) through the same session; "
        "Wilson's 95 % interval."
        if record.accuracy is not None
        else f"No accuracy: {record.missing.get('accuracy')}.",
        "Interval of the p50: order statistics over the medians of 20 windows of the run; it knows the drift within "
        "one process, not between processes.",
        f"Peak memory: VmHWM of the whole process from before the model was loaded; "
        f"{QUANTITIES['memory_peak_bytes'].show(record.memory_baseline_bytes)} were resident before.",
        *(f"No {QUANTITIES[name].label}: {why}." for name, why in record.missing.items() if name != "accuracy"),
        *(f"Warning: {warning}." for warning in record.warnings),
        f"Taken {record.created}; command: {record.settings.get('command') or 'called from Python'}.",
    ]
    details = json.dumps(json.loads(record.to_json()), indent=1, ensure_ascii=False)
    text = "".join(f"<p>{_e(line)}</p>" for line in lines)
    return (
        f'<details id="{record.id}"><summary>{record.id} · {_e(record.name)}, {_e(record.runtime)}, '
        f"{_threads(record.threads)}</summary>{text}<pre>{_e(details)}</pre></details>"
    )


def _e(value: object) -> str:
    return html.escape(str(value), quote=True)


__all__ = ["Comparison", "card", "compare", "fields_of", "markdown", "page", "plot", "show", "table"]
