"""Accuracy against latency as one SVG, without a library: dots, bars, names that do not lie on each other.

Imports page, quantity, record and this folder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.page import escape
from featherweight.record import BY_KEY, QUANTITIES, Record, label_of
from featherweight.report.comparison import Comparison
from featherweight.report.text import labelled, labels, show, threads_text

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
.doubtful{fill:var(--miss);stroke:var(--miss)}
circle{fill-opacity:.5}.doubtful{fill-opacity:.15}.unsized{fill-opacity:0;stroke-dasharray:2 2}
.path{fill:none;stroke:var(--front);stroke-width:1.5;stroke-dasharray:4 4}
"""


def figure(comparison: Comparison) -> str:
    """The plot of one device's records, and what is seen in it."""
    dots = _dots(comparison.records)
    if not dots:
        return "<p>No accuracy or latency to draw.</p>"
    sizes = [dot.record.size_bytes for dot in dots if dot.record.size_bytes is not None]
    size = f"; its area is the file's size, at most {QUANTITIES['size_bytes'].show(max(sizes))}" if sizes else ""
    unsized = " A dashed ring has no known size." if len(sizes) < len(dots) else ""
    undrawn = len(comparison.records) - len(dots)
    left_out = f" Not drawn, for want of accuracy or latency: {undrawn}." if undrawn else ""
    doubtful = " Red: UNSTABLE or quick." if any(labels(dot.record) for dot in dots) else ""
    line = " Dashed line: beaten by none in accuracy and p50 latency alone." if len(_staircase(dots)) > 1 else ""
    keys = [label_of(BY_KEY[key].field, comparison.records) for key in comparison.keys]
    return (
        f"{plot(comparison)}<p>A dot is one file by one runtime{size}.{unsized} Green: beaten by none in "
        f"{escape(', '.join(keys))}.{doubtful}{line} Bars: 95 % intervals. "
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
        kind = "front" if dot.record.id in comparison.front else "doubtful" if labels(dot.record) else "other"
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
    words = "".join(f", {label}" for label in labels(record))
    return f"{record.name}, {record.runtime}, {threads_text(record.threads)}{words}: {numbers}"


def _staircase(dots: Sequence[_Dot]) -> list[_Dot]:
    """The dots that none beats in accuracy and latency, by latency; what is UNSTABLE or quick is left out."""
    stairs: list[_Dot] = []
    believed = (dot for dot in dots if not labels(dot.record))
    for dot in sorted(believed, key=lambda dot: (dot.latency, -dot.accuracy)):
        if not stairs or dot.accuracy > stairs[-1].accuracy:
            stairs.append(dot)
    return stairs


def _names(records: Sequence[Record]) -> dict[str, str]:
    """A name for each id; runtime and threads are said where one name stands for several of them."""
    names = {}
    for record in records:
        same = [other for other in records if other.name == record.name]
        runtime = f", {record.runtime}" if len({other.runtime for other in same}) > 1 else ""
        threads = f", {threads_text(record.threads)}" if len({other.threads for other in same}) > 1 else ""
        short = record.name if len(record.name) <= LONGEST_NAME else record.name[: LONGEST_NAME - 1] + "…"
        names[record.id] = labelled(short + runtime + threads, record)
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
