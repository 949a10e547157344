"""Analyses as one self-contained page: what each layer costs, from input to output, stages shaded, shapes on hover.

In scope: drawing. Imports page and this folder.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.analyze.costs import Analysis, Group
from featherweight.analyze.graph import Shape
from featherweight.analyze.views import (
    CAVEAT,
    View,
    comparison_rows,
    share_title,
    show_bytes,
    show_count,
    show_microseconds,
    show_percent,
    show_shape,
    summary,
)
from featherweight.page import document, escape
from featherweight.page import write_page as write

WIDTH, HEIGHT = 1160.0, 230.0
LEFT, TOP, BOTTOM = 64.0, 22.0, 8.0
LETTER_WIDTH = 7.2  # of a 12 px letter: an upper bound, as fonts differ
GRID_LINES = 4

STYLE = """
svg{width:100%;min-width:760px;height:auto;display:block;margin:4px 0 14px}svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--line)}.shade{fill:var(--line);opacity:.55}.cost{fill:var(--front)}
.least{fill:var(--front)}.over{fill:var(--miss);opacity:.45}
g.layer:hover rect.hit{fill:var(--soft);fill-opacity:.18}rect.hit{fill-opacity:0}
ul{margin:6px 0 14px;padding-left:18px;color:var(--soft)}h3{font-size:14px;margin:18px 0 0}
td:nth-child(n+2),th:nth-child(n+2){text-align:right}
"""


@dataclass(frozen=True)
class _Chart:
    """One picture: a number a layer, and how to write it. `second` is drawn on top, from 0 too."""

    title: str
    value: Callable[[Group], float]
    show: Callable[[float], str]
    second: Callable[[Group], float] | None = None


def write_page(views: Sequence[View], path: str | Path) -> None:
    """Write the page.

    Raises:
        OutputError: the place holds something else than a page, or cannot be written.
    """
    write(path, page(views))


def page(views: Sequence[View]) -> str:
    """One HTML page of one model or of several. No script, no link."""
    names = ", ".join(view.analysis.name for view in views)
    body = ["<h1>featherweight analyze</h1>", f"<p>{escape(names)}</p>"]
    if len(views) > 1:
        body += ["<h2>Side by side</h2>", _comparison(views), "<p>Below, all are drawn to one scale.</p>"]
    for view in views:
        body += _model(view, tallest=_tallest(views))
    body.append(f"<p>{escape(CAVEAT)}</p>")
    return document("featherweight analyze", STYLE, body)


def _comparison(views: Sequence[View]) -> str:
    heads = "".join(f"<th>{escape(view.analysis.name)}</th>" for view in views)
    rows = (
        f"<tr><td>{escape(row[0])}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in comparison_rows(views)
    )
    return f'<div class="scroll"><table><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'


def _tallest(views: Sequence[View]) -> dict[str, float]:
    """The largest bar of each chart over all models, so that models are drawn to one scale."""
    found: dict[str, float] = {}
    for view in views:
        for chart in _charts(view):
            values = [chart.value(layer) for layer in view.analysis.layers]
            found[chart.title] = max([found.get(chart.title, 0.0), *values])
    return found


def _model(view: View, tallest: dict[str, float]) -> list[str]:
    analysis = view.analysis
    head, *facts = summary(view)
    body = [f"<h2>{escape(analysis.name)}</h2>", f"<p>{escape(head)}</p>"]
    body.append("<ul>" + "".join(f"<li>{escape(' '.join(fact.split()))}</li>" for fact in facts) + "</ul>")
    for chart in _charts(view):
        body += [f"<h3>{escape(chart.title)}</h3>", _figure(view, chart, tallest[chart.title])]
    body.append(_stages(analysis))
    return [*body, _endpoints(analysis), _layers(view)]


def _charts(view: View) -> list[_Chart]:
    charts = [
        _Chart("MACs of each layer", lambda group: group.macs, lambda value: show_count(round(value))),
        _Chart("Parameters of each layer", lambda group: group.parameters, lambda value: show_count(round(value))),
        _Chart(
            "Activations that each layer writes", lambda group: group.activation_bytes, lambda v: show_bytes(round(v))
        ),
    ]
    if view.roofline is not None:
        charts.append(_time_chart(view))
    return charts


def _time_chart(view: View) -> _Chart:
    """Measured times with the least times on top; the least alone where nothing was measured."""
    times = {}
    if view.roofline is not None:
        for layer in view.analysis.layers:
            times[layer.name] = view.roofline.group([r.name for r in view.analysis.rows if r.layer == layer.name])

    def least(group: Group) -> float:
        timed = times.get(group.name)
        return 0.0 if timed is None else timed.least_us

    def measured(group: Group) -> float:
        timed = times.get(group.name)
        return 0.0 if timed is None or timed.measured_us is None else timed.measured_us

    def show(value: float) -> str:
        return f"{show_microseconds(value)} µs"

    if any(timed is not None and timed.measured_us is not None for timed in times.values()):
        return _Chart("Time of each layer: measured, and the least that is possible (dark)", measured, show, least)
    return _Chart("Least time of each layer on this machine", least, show)


# ---------------------------------------------------------------------------------------------------- drawing


def _figure(view: View, chart: _Chart, tallest: float) -> str:
    layers = view.analysis.layers
    step = (WIDTH - LEFT) / max(len(layers), 1)
    parts = [_shades(layers, step), _grid(chart, tallest)]
    parts += [_bar(view, layer, chart, LEFT + place * step, step, tallest) for place, layer in enumerate(layers)]
    label = escape(f"{chart.title}: {view.analysis.name}")
    svg = f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f'<div class="scroll">{svg}</div>'


def _shades(layers: Sequence[Group], step: float) -> str:
    """Every other run of layers of one stage on a darker ground, with its name where there is room."""
    runs: list[tuple[str, int, int]] = []
    for place, layer in enumerate(layers):
        if runs and runs[-1][0] == layer.stage:
            runs[-1] = (layer.stage, runs[-1][1], place + 1)
        else:
            runs.append((layer.stage, place, place + 1))
    parts = []
    for number, (name, first, last) in enumerate(runs):
        x, width = LEFT + first * step, (last - first) * step
        if number % 2:
            parts.append(f'<rect class="shade" x="{x:.1f}" y="0" width="{width:.1f}" height="{HEIGHT - BOTTOM:g}"/>')
        short = name.removeprefix("stride ")
        label = name if len(name) * LETTER_WIDTH < width - 8 else short
        if len(label) * LETTER_WIDTH < width - 4:
            parts.append(f'<text x="{x + 4:.1f}" y="14">{escape(label)}</text>')
    return "".join(parts)


def _grid(chart: _Chart, tallest: float) -> str:
    """Lines at round numbers."""
    step = _round_step(tallest / GRID_LINES)
    parts = []
    for line in range(math.floor(tallest / step) + 1 if step else 1):
        y = _height(line * step / tallest if tallest else 0.0)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if line:
            text = escape(chart.show(line * step))
            parts.append(f'<text x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _round_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten; 0 for nothing."""
    if least <= 0:
        return 0.0
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least)


def _height(share: float) -> float:
    """Where a share of the tallest bar ends, in pixels from the top."""
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def _bar(view: View, layer: Group, chart: _Chart, x: float, step: float, tallest: float) -> str:
    parts = [f'<rect class="hit" x="{x:.2f}" y="0" width="{step:.2f}" height="{HEIGHT - BOTTOM:g}"/>']
    kinds = (("over" if chart.second else "cost", chart.value), ("least", chart.second))
    for kind, value in kinds:
        share = min(1.0, value(layer) / tallest) if value is not None and tallest else 0.0
        if share:
            top = min(_height(share), _height(0) - 0.75)  # the smallest cost can still be seen
            parts.append(
                f'<rect class="{kind}" x="{x + 0.1 * step:.2f}" y="{top:.2f}" width="{0.8 * step:.2f}" '
                f'height="{_height(0) - top:.2f}"/>'
            )
    return f'<g class="layer"><title>{escape(_hover(view, layer))}</title>{"".join(parts)}</g>'


def _hover(view: View, layer: Group) -> str:
    """Everything about a layer, line by line."""
    rows = [row for row in view.analysis.rows if row.layer == layer.name]
    fields = [row.field for row in rows if row.field is not None]
    inputs = _shapes(rows[0].inputs) if rows else ""
    lines = [
        f"{layer.name} ({' + '.join(layer.kinds)})",
        f"{inputs} → {show_shape(layer.output)}, {layer.stage}",
        f"MACs {show_count(layer.macs, layer.at_least)} ({show_percent(layer.share)}), "
        f"FLOPs {show_count(layer.flops, layer.at_least)}",
        f"parameters {layer.parameters:,}, activations {show_bytes(layer.activation_bytes)}",
    ]
    if layer.intensity:
        lines.append(f"{layer.intensity:.2f} FLOPs a byte")
    if fields:
        lines.append(f"receptive field {fields[-1][0]}×{fields[-1][1]}")
    timed = view.roofline.group([row.name for row in rows]) if view.roofline is not None else None
    if timed is not None:
        measured = "" if timed.measured_us is None else f", measured {show_microseconds(timed.measured_us)} µs"
        lines.append(f"at least {show_microseconds(timed.least_us)} µs, bound by {timed.bound_by}{measured}")
    return "\n".join(lines)


def _shapes(shapes: Sequence[Shape]) -> str:
    return ", ".join(show_shape(shape) for shape in shapes)


# ----------------------------------------------------------------------------------------------------- tables


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _stages(analysis: Analysis) -> str:
    share = share_title(analysis)
    heads = ("stage", "output", "operators", "parameters", "MACs", "FLOPs", "activations", "FLOPs/B", share)
    rows = [
        [
            stage.name, show_shape(stage.output), str(stage.operators), f"{stage.parameters:,}",
            show_count(stage.macs, stage.at_least), show_count(stage.flops, stage.at_least),
            show_bytes(stage.activation_bytes), f"{stage.intensity or 0:.2f}", show_percent(stage.share),
        ]
        for stage in analysis.stages
    ]  # fmt: skip
    return "<h3>Stages</h3>" + _html_table(heads, rows)


def _endpoints(analysis: Analysis) -> str:
    rows = [[e.name, show_shape(e.shape), f"{e.stride[0]:g}", f"{e.field[0]}×{e.field[1]}"] for e in analysis.endpoints]
    heads = ("last operator at this stride", "output", "stride", "receptive field")
    return "<h3>Endpoints</h3>" + _html_table(heads, rows)


def _layers(view: View) -> str:
    share = share_title(view.analysis)
    heads = ("layer", "kind", "stage", "output", "parameters", "MACs", "FLOPs", "activations", "FLOPs/B", share)
    rows = [
        [
            layer.name, " + ".join(layer.kinds), layer.stage, show_shape(layer.output), f"{layer.parameters:,}",
            show_count(layer.macs, layer.at_least), show_count(layer.flops, layer.at_least),
            show_bytes(layer.activation_bytes), f"{layer.intensity or 0:.2f}", show_percent(layer.share),
        ]
        for layer in view.analysis.layers
    ]  # fmt: skip
    count = len(rows)
    return f"<details><summary>All {count} layers</summary>{_html_table(heads, rows)}</details>"
