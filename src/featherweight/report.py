"""Records → what people read: a card, a table, and one self-contained page that works offline.

In scope: words and drawing. Not aware of: how anything was measured beyond what the record says.
Imports budget, compare, page, quantity, record.
"""

import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from featherweight.budget import Budget, Violation, parse_budget
from featherweight.compare import DEFAULT_KEYS, better, check_comparable, fields_of, front
from featherweight.page import document, escape, write_page
from featherweight.record import BY_KEY, QUANTITIES, Record, read_records, value_of

PIPE_WIDTH = 400  # of a table that no terminal bounds: wide enough that nothing is folded
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
        write_page(output, page(comparison, limits))
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
    return f"{text} ({_bounds(name, interval)})"


def _bounds(name: str, interval: tuple[float, float]) -> str:
    low, high = (QUANTITIES[name].show(bound).removesuffix(" %").removesuffix(" ms") for bound in interval)
    return f"{low}–{high}"


def card(record: Record) -> str:
    """Everything about one record, a line a number, with what is missing and why."""
    lines = [
        f"{record.name}  [{record.id}]",
        f"  {record.runtime} {record.versions.get(record.runtime, '')}, {_threads(record.threads)}, "
        f"{record.device.get('name', '?')}",
    ]
    for name, quantity in QUANTITIES.items():
        value = show(record, name)
        note = f"  {record.missing.get(name, 'not measured')}" if value_of(record, name) is None else ""
        count = {"accuracy": record.accuracy_n, "latency_p50_ms": record.latency_n}.get(name)
        tail = f"  n = {count}" + (f", {record.part} pictures" if name == "accuracy" else " runs") if count else ""
        lines.append(f"  {quantity.label:<22} {value}{tail}{note}")
    lines += [f"  warning: {warning}" for warning in record.warnings]
    return "\n".join(lines)


def table(comparison: Comparison, budgeted: bool, width: int | None = None) -> str:
    """The records as a table for the terminal, lightest first; ● marks the front."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("")
    for head in ("name", "runtime", "threads", *(BY_KEY[key].label for key in COLUMNS), "accuracy against best"):
        justify: Literal["left", "right"] = "left" if head in ("name", "runtime", "accuracy against best") else "right"
        grid.add_column(head, justify=justify, overflow="fold")
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
        grid.add_row(*map(Text, cells))  # as text, a name like [bold] or :x: is no markup
    stream = io.StringIO()
    # Whatever the environment says (FORCE_COLOR, a notebook), plain text is wanted here.
    Console(file=stream, width=width or PIPE_WIDTH, force_terminal=False, force_jupyter=False).print(grid)
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
    return "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _markdown_cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


# -------------------------------------------------------------------------------------------------------- page

PLOT_WIDTH, PLOT_HEIGHT = 920, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 54
SMALLEST_DOT, LARGEST_DOT = 2.0, 26.0  # radii; a dot below the smallest could not be seen
UNSIZED_DOT = 7.0  # a ring
PAD = LARGEST_DOT + 8  # between the outermost dots' centres and the frame, so that none is cut off
LETTER_WIDTH, LINE_HEIGHT = 7.2, 15  # of a 12 px letter: an upper bound, as fonts differ
LONGEST_NAME = 44

STYLE = """
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}
svg .name{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}svg .on{fill:var(--ink)}
.grid{stroke:var(--line)}.bar{stroke:var(--soft);opacity:.7}.leader{stroke:var(--front)}
.front{fill:var(--front);stroke:var(--front)}.other{fill:var(--other);stroke:var(--other)}
circle{fill-opacity:.5}.unsized{fill-opacity:0;stroke-dasharray:2 2}
.path{fill:none;stroke:var(--front);stroke-width:1.5;stroke-dasharray:4 4}
"""


def page(comparison: Comparison, limits: Budget) -> str:
    """One HTML page: the front as a picture, the table, how each number was measured. No script, no link."""
    first = comparison.records[0]
    count = len(comparison.records)
    body = [
        "<h1>featherweight</h1>",
        f"<p>{count} record{'s' if count > 1 else ''} on {escape(first.device.get('name', '?'))}, "
        f"{escape(first.device.get('cores', '?'))} cores. Budget: {escape(limits)}.</p>",
        "<h2>Accuracy against latency</h2>",
        _figure(comparison),
        "<h2>Records</h2>",
        _html_table(comparison, bool(limits.limits)),
        "<h2>How each number was measured</h2>",
        *(_html_method(record) for record in comparison.records),
    ]
    return document("featherweight report", STYLE, body)


def _figure(comparison: Comparison) -> str:
    dots = _dots(comparison.records)
    if not dots:
        return "<p>No accuracy or latency to draw.</p>"
    sizes = [dot.record.size_bytes for dot in dots if dot.record.size_bytes is not None]
    size = f"; its area is the file's size, at most {QUANTITIES['size_bytes'].show(max(sizes))}" if sizes else ""
    unsized = " A dashed ring has no known size." if len(sizes) < len(dots) else ""
    undrawn = len(comparison.records) - len(dots)
    left_out = f" Not drawn, for want of accuracy or latency: {undrawn}." if undrawn else ""
    line = " Dashed line: beaten by none in accuracy and p50 latency alone." if len(_staircase(dots)) > 1 else ""
    return (
        f"{plot(comparison)}<p>A dot is one file by one runtime{size}.{unsized} Green: beaten by none in "
        f"{escape(', '.join(BY_KEY[key].label for key in comparison.keys))}.{line} Bars: 95 % intervals. "
        f"Where names would overlap, hover over a dot.{left_out}</p>"
    )


@dataclass(frozen=True)
class _Dot:
    """A record that can be drawn, as both of its axes are known."""

    record: Record
    latency: float
    accuracy: float

    @property
    def latencies(self) -> tuple[float, float]:
        """The bar along the latency axis; a lower end of 0 has no place on a logarithmic one."""
        low, high = self.record.latency_p50_interval_ms or (self.latency, self.latency)
        return (low if low > 0 else self.latency, high)

    @property
    def accuracies(self) -> tuple[float, float]:
        """The bar along the accuracy axis."""
        return self.record.accuracy_interval or (self.accuracy, self.accuracy)

    def radius(self, largest: float) -> float:
        """Area is to the largest dot's area as size is to the largest size."""
        size = self.record.size_bytes
        return UNSIZED_DOT if size is None else max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(size / largest))


def _dots(records: Sequence[Record]) -> list[_Dot]:
    return [
        _Dot(record, record.latency_p50_ms, record.accuracy)
        for record in records
        if record.accuracy is not None and record.latency_p50_ms
    ]


@dataclass(frozen=True)
class _Axis:
    """A linear map from values to pixels: the outermost values lie `PAD` inside the frame."""

    low: float  # value at `start` + PAD
    high: float  # value at `end` - PAD
    start: float
    end: float

    @property
    def _inner(self) -> float:
        return self.end - self.start - math.copysign(2 * PAD, self.end - self.start)

    def __call__(self, value: float) -> float:
        middle = (self.start + self.end) / 2
        return middle + (value - (self.low + self.high) / 2) / (self.high - self.low) * self._inner

    @property
    def frame(self) -> tuple[float, float]:
        """The values at the two sides of the frame."""
        pad = PAD / abs(self._inner) * (self.high - self.low)
        return self.low - pad, self.high + pad


def _axis(values: Sequence[float], least: float, start: float, end: float) -> _Axis:
    """An axis over all values, but over a range of `least` where they lie closer."""
    low, high = min(values), max(values)
    widen = max(0.0, least - (high - low)) / 2
    return _Axis(low - widen, high + widen, start, end)


def plot(comparison: Comparison) -> str:
    """The records as an SVG: p50 latency on a logarithmic axis, accuracy upwards, the dot's area the file's size."""
    dots = _dots(comparison.records)
    largest = max((dot.record.size_bytes or 0 for dot in dots), default=0) or 1
    bottom, right = PLOT_HEIGHT - BOTTOM, PLOT_WIDTH - RIGHT
    decades = _axis([math.log10(bound) for dot in dots for bound in dot.latencies], 0.1, LEFT, right)
    y = _axis([bound for dot in dots for bound in dot.accuracies], 0.02, bottom, TOP)

    def x(latency: float) -> float:
        return decades(math.log10(latency))

    parts = [f'<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="accuracy against latency">']
    for tick in _ticks(max(0.0, y.frame[0]), min(1.0, y.frame[1])):
        parts.append(_line("grid", LEFT, y(tick), right, y(tick)))
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.6g} %</text>')
    for tick in _log_ticks(*(10**decade for decade in decades.frame)):
        parts.append(_line("grid", x(tick), TOP, x(tick), bottom))
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.6g}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{PLOT_HEIGHT - 10}" text-anchor="middle">'
        "p50 latency of one inference, ms (logarithmic)</text>"
    )
    path = _staircase(dots)
    if len(path) > 1:
        points = " ".join(f"{x(dot.latency):.1f},{y(dot.accuracy):.1f}" for dot in path)
        parts.append(f'<polyline class="path" points="{points}"/>')
    taken: list[_Box] = []
    for dot in sorted(dots, key=lambda dot: -(dot.record.size_bytes or 0)):
        centre_x, centre_y, radius = x(dot.latency), y(dot.accuracy), dot.radius(largest)
        (left, far), (low, high) = map(x, dot.latencies), map(y, dot.accuracies)
        parts += [_line("bar", centre_x, low, centre_x, high), _line("bar", left, centre_y, far, centre_y)]
        taken += [
            _Box(centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius),
            _Box(centre_x, high, centre_x, low),
            _Box(left, centre_y, far, centre_y),
        ]
        kind = "front" if dot.record.id in comparison.front else "other"
        unsized = " unsized" if dot.record.size_bytes is None else ""
        parts.append(
            f'<circle class="{kind}{unsized}" cx="{centre_x:.1f}" cy="{centre_y:.1f}" r="{radius:.2f}">'
            f"<title>{escape(_hover(dot.record))}</title></circle>"
        )
    names = _names([dot.record for dot in dots])
    frame = _Box(LEFT, TOP, right, bottom)
    for dot in sorted(dots, key=lambda dot: dot.record.id not in comparison.front):  # the front is named first
        on_front = dot.record.id in comparison.front
        centre = x(dot.latency), y(dot.accuracy)
        name = names[dot.record.id]
        box = _place(centre, dot.radius(largest), len(name) * LETTER_WIDTH, frame, taken, far=on_front)
        if box is None:
            continue
        taken.append(box)
        if not box.touches(centre, dot.radius(largest) + LINE_HEIGHT):
            parts.append(_line("leader", *centre, *box.nearest(centre)))
        anchor, at = _anchor(box, centre[0])
        parts.append(
            f'<text class="name{" on" if on_front else ""}" x="{at:.1f}" y="{box.bottom - 4:.1f}" '
            f'text-anchor="{anchor}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _hover(record: Record) -> str:
    numbers = ", ".join(show(record, name) for name in ("accuracy", "latency_p50_ms", "size_bytes"))
    return f"{record.name}, {record.runtime}, {_threads(record.threads)}: {numbers}"


def _staircase(dots: Sequence[_Dot]) -> list[_Dot]:
    """The dots that none beats in accuracy and latency, by latency."""
    stairs: list[_Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.latency, -dot.accuracy)):
        if not stairs or dot.accuracy > stairs[-1].accuracy:
            stairs.append(dot)
    return stairs


def _names(records: Sequence[Record]) -> dict[str, str]:
    """A name for each id; runtime and threads are said where one name stands for several of them."""
    names = {}
    for record in records:
        same = [other for other in records if other.name == record.name]
        runtime = f", {record.runtime}" if len({other.runtime for other in same}) > 1 else ""
        threads = f", {_threads(record.threads)}" if len({other.threads for other in same}) > 1 else ""
        short = record.name if len(record.name) <= LONGEST_NAME else record.name[: LONGEST_NAME - 1] + "…"
        names[record.id] = short + runtime + threads
    return names


@dataclass(frozen=True)
class _Box:
    """A rectangle of the picture, in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: "_Box") -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """The point of the rectangle that is nearest to another point."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.top), self.bottom)

    def touches(self, centre: tuple[float, float], radius: float) -> bool:
        return math.dist(centre, self.nearest(centre)) <= radius


def _place(
    centre: tuple[float, float], radius: float, width: float, frame: _Box, taken: Sequence[_Box], far: bool
) -> _Box | None:
    """The first free place for a name: right, left, above or below its dot, then (if `far`) in rings around it."""
    x, y = centre
    for ring in range(8 if far else 1):
        gap = radius + 4 + ring * LINE_HEIGHT
        corners = [
            (x + gap, y - LINE_HEIGHT / 2),
            (x - gap - width, y - LINE_HEIGHT / 2),
            *((left, y - gap - LINE_HEIGHT) for left in (x - width / 2, x + 4, x - 4 - width)),
            *((left, y + gap) for left in (x - width / 2, x + 4, x - 4 - width)),
        ]
        for left, top in corners:
            box = _Box(left, top, left + width, top + LINE_HEIGHT)
            if box.within(frame) and not any(box.overlaps(other) for other in taken):
                return box
    return None


def _anchor(box: _Box, x: float) -> tuple[str, float]:
    """Where in its box a name is drawn, as it is shorter than the box: at the side that its dot is on."""
    if box.left >= x:
        return "start", box.left
    return ("end", box.right) if box.right <= x else ("middle", (box.left + box.right) / 2)


def _ticks(low: float, high: float) -> list[float]:
    """At most nine round numbers from low to high: multiples of 1, 2 or 5 times a power of ten."""
    decade = math.floor(math.log10((high - low) / 8))
    step = next(s for s in (10.0**decade * digit for digit in (1, 2, 5, 10, 20)) if (high - low) / s <= 8)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis; under half a decade those of a linear one."""
    if high / low < 4:
        return [tick for tick in _ticks(low, high) if tick > 0]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(ticks) >= 5:
            break
    return ticks


def _html_table(comparison: Comparison, budgeted: bool) -> str:
    heads = ["record", "file", *(BY_KEY[key].label for key in COLUMNS), "accuracy against best"]
    heads += ["budget"] if budgeted else []
    as_text = ("accuracy against best", "budget")
    rows = []
    for record in comparison.records:
        cells = [
            f"<td>{record.id}</td>",
            f'<td class="file">{escape(record.name)}'
            f"<small>{escape(record.runtime)}, {_threads(record.threads)}</small></td>",
            *(f"<td>{_cell(record, BY_KEY[key].field)}</td>" for key in COLUMNS),
            f'<td class="text">{escape(comparison.verdicts[record.id])}</td>',
        ]
        if budgeted:
            misses = "; ".join(map(str, comparison.violations[record.id]))
            cells.append(f'<td class="text{" miss" if misses else ""}">{escape(misses or "fits")}</td>')
        rows.append(f'<tr class="{"on" if record.id in comparison.front else ""}">{"".join(cells)}</tr>')
    head = "".join(f"<th{' class=text' if text in as_text else ''}>{escape(text)}</th>" for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cell(record: Record, name: str) -> str:
    if value_of(record, name) is None:
        return f'<span title="{escape(record.missing.get(name, "not measured"))}">–</span>'
    interval = record.interval(name)
    number = escape(QUANTITIES[name].show(value_of(record, name)))
    return number if interval is None else f"{number} <small>{escape(_bounds(name, interval))}</small>"


def _html_method(record: Record) -> str:
    protocol = record.settings.get("protocol")
    protocol = protocol if isinstance(protocol, dict) else {}
    runs, seconds, warm_runs, warm_seconds = (
        protocol.get(name, "unknown") for name in ("min_runs", "min_seconds", "warmup_runs", "warmup_seconds")
    )
    lines = [
        f"File sha256 {record.artifact_sha256}, {record.format}, precision {record.precision or 'unknown'}.",
        f"One picture at a time through {record.runtime} on {_threads(record.threads)}, in a process of its own; "
        f"{'unknown' if record.latency_n is None else record.latency_n} runs (at least {runs} and {seconds} s) after a "
        f"warm-up of at least {warm_runs} runs and {warm_seconds} s; inputs: "
        f"{record.settings.get('inputs', 'unknown')}. Latency is inference alone; pre- and post-processing have "
        "their own numbers.",
    ]
    if record.accuracy is not None:
        lines.append(
            f"Accuracy: {record.accuracy_n or 'an unknown number of'} pictures of {record.part or 'an unknown part'} "
            f"(data {record.data or 'unknown'}) through the same session; Wilson's 95 % interval."
        )
    if record.latency_p50_interval_ms is not None:
        lines.append(
            "Interval of the p50: order statistics over the medians of 20 windows of the run; it knows the drift "
            "within one process, not between processes."
        )
    if record.memory_peak_bytes is not None:
        baseline = record.memory_baseline_bytes
        before = "" if baseline is None else f"; {QUANTITIES['memory_peak_bytes'].show(baseline)} were resident before"
        lines.append(f"Peak memory: VmHWM of the whole process from before the model was loaded{before}.")
    lines += [
        *(
            f"No {quantity.label}: {record.missing.get(name, 'not measured')}."
            for name, quantity in QUANTITIES.items()
            if value_of(record, name) is None
        ),
        *(f"Warning: {warning}." for warning in record.warnings),
        f"Taken {record.created}; command: {record.settings.get('command') or 'called from Python'}.",
    ]
    details = json.dumps(json.loads(record.to_json()), indent=1, ensure_ascii=False)
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return (
        f'<details id="{record.id}"><summary>{record.id} · {escape(record.name)}, {escape(record.runtime)}, '
        f"{_threads(record.threads)}</summary>{text}<pre>{escape(details)}</pre></details>"
    )


__all__ = ["Comparison", "card", "compare", "fields_of", "markdown", "page", "plot", "show", "table"]
