"""An analysis as people and programs read it: tables for the terminal, JSON, CSV. The page is in `page`.

In scope: words and columns. Imports artifact, page, quantity and this folder; rich where it is used.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.analyze.costs import Analysis, Group, Row
from featherweight.analyze.graph import Shape
from featherweight.analyze.roofline import Roofline, Timed
from featherweight.artifact import to_utf8, write_file
from featherweight.page import check_place
from featherweight.quantity import Quantity

PIPE_WIDTH = 400  # of a table that no terminal bounds
CAVEAT = "Counts do not rank light models by speed; measure them on the device: featherweight measure"
COUNT = Quantity("count", "", "count", "lower")
BYTES = Quantity("size_bytes", "", "B", "lower")
LEVELS = ("stage", "layer", "operator")

# The columns of the CSV file: one row an operator.
CSV_COLUMNS = (
    "model", "number", "name", "kind", "layer", "stage", "inputs", "output", "dtype", "parameters", "trainable",
    "macs", "flops", "weight_bytes", "activation_bytes", "traffic_bytes", "flops_per_byte", "share_of_macs",
    "receptive_field", "stride", "bound_by", "least_us", "measured_us",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """An analysis, and its times where they were asked for."""

    analysis: Analysis
    roofline: Roofline | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.analysis.as_dict(), "roofline": None if self.roofline is None else self.roofline.as_dict()}


def show_shape(shape: Shape) -> str:
    """`(1, 56, 56, 24)` → `56×56×24`; the batch is always 1."""
    return "×".join(map(str, shape[1:] if len(shape) > 1 else shape)) or "1"


def show_count(value: int | None, at_least: bool = False) -> str:
    """`301 M`, `≥ 301 M`, `unknown`."""
    if value is None:
        return "unknown"
    return f"{'≥ ' if at_least else ''}{value if value < 1000 else COUNT.show(value)}"


def show_bytes(value: int | None) -> str:
    """`14.0 MB`."""
    return f"{value} B" if value is not None and value < 1000 else BYTES.show(value)


def show_microseconds(value: float | None) -> str:
    """`12.3`; `–` where there is none."""
    return "–" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def show_percent(share: float | None) -> str:
    """`12.3 %`."""
    return "–" if share is None else f"{100 * share:.1f} %"


# -------------------------------------------------------------------------------------------------------- text


def summary(view: View) -> list[str]:
    """The model in a few lines."""
    analysis = view.analysis
    more = analysis.at_least
    inputs, outputs = (", ".join(show_shape(t.shape) for t in side) for side in (analysis.inputs, analysis.outputs))
    fixed = None if analysis.trainable is None else analysis.parameters - analysis.trainable
    trainable = "" if fixed is None else f", of these {fixed:,} not trainable"
    size = "" if analysis.file_bytes is None else f", file {show_bytes(analysis.file_bytes)}"
    least = "at least " if more else ""
    lines = [
        f"{analysis.name} ({analysis.format}{size}): {inputs} → {outputs}",
        f"  parameters   {show_count(analysis.parameters)} ({analysis.parameters:,}{trainable})",
        f"  MACs         {show_count(analysis.macs, more)} ({least}{analysis.macs:,})",
        f"  FLOPs        {show_count(analysis.flops, more)} ({least}{analysis.flops:,} = 2 · MACs + other arithmetic)",
        f"  weights      {show_bytes(analysis.weight_bytes)}",
        f"  activations  {show_bytes(analysis.activation_bytes)} written; at most {_peak(analysis)}",
    ]
    lines += _standard_lines(analysis)
    lines += [f"  unknown      {name} ({times} times): not counted" for name, times in analysis.unknown]
    lines += [f"  note         {note}" for note in analysis.notes]
    if view.roofline is not None:
        lines += view.roofline.lines()
    return lines


def _peak(analysis: Analysis) -> str:
    peak = analysis.peak
    text = f"{show_bytes(peak.file_bytes)} alive at once, at {peak.at}"
    if peak.only_order:
        return f"{text}; there is only one order"
    if peak.exact and peak.best_bytes == peak.file_bytes:
        return f"{text}; no other order needs less"
    if peak.exact:
        return f"{text}; {show_bytes(peak.best_bytes)} in the best order"
    better = peak.best_bytes < peak.file_bytes
    order = f"{show_bytes(peak.best_bytes)} in the best order that was found" if better else "no better one was found"
    return f"{text}; {order}, at least {show_bytes(peak.bound_bytes)} in any"


def _standard_lines(analysis: Analysis) -> list[str]:
    standard = analysis.standard
    if not standard.pairs:
        return []
    ratios = sorted(pair.ratio for pair in standard.pairs)
    times = standard.macs / analysis.macs
    return [
        f"  as standard  {show_count(standard.macs, analysis.at_least)} MACs, "
        f"{show_count(standard.parameters)} parameters with standard convolutions in place of the "
        f"{len(ratios)} depthwise + 1×1 pairs: {times:.1f} times the MACs (1/N + 1/k² = {ratios[0]:.3f} to "
        f"{ratios[-1]:.3f} a pair)"
    ]


def text(views: Sequence[View], level: str, width: int | None = None) -> str:
    """One model with its table, or several side by side; what a file names with control characters is made visible."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in _text(views, level, width))


def _text(views: Sequence[View], level: str, width: int | None) -> str:
    if len(views) > 1:
        return "\n".join([_side_by_side(views, width), "", CAVEAT])
    view = views[0]
    parts = ["\n".join(summary(view)), cost_table(view, level, width)]
    if level != "stage":
        parts.append(cost_table(view, "stage", width))
    parts.append(_endpoint_table(view.analysis, width))
    return "\n\n".join([*(part for part in parts if part), CAVEAT])


def cost_table(view: View, level: str, width: int | None = None) -> str:
    """The cost by operator, layer or stage."""
    timed = view.roofline is not None
    heads = [level, "kind", "output", "params", "MACs", "FLOPs", "activation", "FLOPs/B", share_title(view.analysis)]
    heads += ["bound by", "≥ µs", "µs"] if timed else []
    rows = [[*_cells(line), *(_time_cells(view, line) if timed else [])] for line in _lines(view, level)]
    total = view.analysis
    last = [
        "total", "", "", show_count(total.parameters), show_count(total.macs, total.at_least),
        show_count(total.flops, total.at_least), show_bytes(total.activation_bytes), "", "100.0 %",
    ]  # fmt: skip
    if view.roofline is not None:
        last += ["", show_microseconds(view.roofline.least_us), show_microseconds(view.roofline.profiled_us)]
    return _table(heads, [*rows, last], 3, width)


def share_title(analysis: Analysis) -> str:
    """What the shares are of."""
    return "share of MACs" if analysis.macs or not analysis.flops else "share of FLOPs"


def _lines(view: View, level: str) -> Sequence[Row | Group]:
    analysis = view.analysis
    levels: dict[str, Sequence[Row | Group]] = {
        "operator": analysis.rows,
        "layer": analysis.layers,
        "stage": analysis.stages,
    }
    return levels[level]


def _cells(line: Row | Group) -> list[str]:
    if isinstance(line, Row):
        kind, share, more = line.kind, show_percent(line.share), False
    else:
        kind, share, more = _main_kind(line), show_percent(line.share), line.at_least
    intensity = line.intensity
    return [
        line.name,
        kind,
        show_shape(line.output),
        show_count(line.parameters) if line.parameters else "",
        show_count(line.macs, more) if line.macs != 0 or more else "",
        show_count(line.flops, more) if line.flops != 0 or more else "",
        show_bytes(line.activation_bytes) if line.activation_bytes else "",
        "" if not intensity else f"{intensity:.2f}",
        share,
    ]


def _main_kind(group: Group) -> str:
    """A layer's kinds; of a stage, how many operators it has."""
    return " + ".join(group.kinds) if len(group.kinds) <= 3 else f"{group.operators} operators"


def _time_cells(view: View, line: Row | Group) -> list[str]:
    if view.roofline is None:
        return []
    if isinstance(line, Row):
        timed: Timed | None = view.roofline.row(line.name)
    else:
        is_stage = line in view.analysis.stages
        rows = view.analysis.rows
        timed = view.roofline.group([r.name for r in rows if line.name == (r.stage if is_stage else r.layer)])
    if timed is None:
        return ["", "", ""]
    return [timed.bound_by, show_microseconds(timed.least_us), show_microseconds(timed.measured_us)]


def _endpoint_table(analysis: Analysis, width: int | None) -> str:
    heads = ["last operator at this stride", "output", "stride", "receptive field"]
    rows = [[e.name, show_shape(e.shape), _pair(e.stride), _pair(e.field)] for e in analysis.endpoints]
    return _table(heads, rows, 1, width) if rows else ""


def _pair(values: Sequence[float]) -> str:
    high, wide = (f"{value:g}" for value in values)
    return high if high == wide else f"{high}×{wide}"


def _side_by_side(views: Sequence[View], width: int | None) -> str:
    heads = ["", *(view.analysis.name for view in views)]
    return _table(heads, comparison_rows(views), 1, width)


def comparison_rows(views: Sequence[View]) -> list[list[str]]:
    """Models as columns, what they cost as rows, and the MACs of each stage that one of them has."""
    analyses = [view.analysis for view in views]
    rows = [
        ["format", *(a.format for a in analyses)],
        ["input", *(", ".join(show_shape(t.shape) for t in a.inputs) for a in analyses)],
        ["file", *(show_bytes(a.file_bytes) for a in analyses)],
        ["parameters", *(f"{a.parameters:,}" for a in analyses)],
        ["MACs", *(show_count(a.macs, a.at_least) for a in analyses)],
        ["FLOPs", *(show_count(a.flops, a.at_least) for a in analyses)],
        ["MACs a parameter", *(f"{a.macs / a.parameters:.1f}" if a.parameters else "–" for a in analyses)],
        ["FLOPs a byte moved", *(_intensity(a) for a in analyses)],
        ["activations written", *(show_bytes(a.activation_bytes) for a in analyses)],
        ["peak of activations", *(show_bytes(a.peak.file_bytes) for a in analyses)],
        ["  in the best order", *(show_bytes(a.peak.best_bytes) + ("" if a.peak.exact else " ?") for a in analyses)],
        ["as standard convolutions", *(_times(a) for a in analyses)],
        ["receptive field", *(_pair(a.endpoints[-1].field) if a.endpoints else "–" for a in analyses)],
        ["operators", *(str(len(a.rows)) for a in analyses)],
        ["unknown operators", *(str(sum(times for _, times in a.unknown)) for a in analyses)],
    ]
    if all(view.roofline is not None for view in views):
        times = [view.roofline for view in views if view.roofline is not None]
        rows.append(["least time here, µs", *(show_microseconds(t.least_us) for t in times)])
        rows.append(["measured, µs", *(show_microseconds(t.measured_us) for t in times)])
    names = dict.fromkeys(stage.name for a in analyses for stage in a.stages if stage.macs)
    for name in sorted(names, key=_stage_order):
        rows.append([f"MACs at {name}", *(_stage_macs(a, name) for a in analyses)])
    return rows


def _stage_order(name: str) -> tuple[bool, bool, float]:
    number = name.removeprefix("stride ").partition(",")[0].partition("×")[0]
    return name == "head", ", up" in name, float(number) if name.startswith("stride ") else 0.0


def _stage_macs(analysis: Analysis, name: str) -> str:
    stage = next((stage for stage in analysis.stages if stage.name == name), None)
    return "–" if stage is None else f"{show_count(stage.macs, stage.at_least)} ({show_percent(stage.share)})"


def _intensity(analysis: Analysis) -> str:
    moved = sum(row.traffic_bytes for row in analysis.rows)
    return f"{analysis.flops / moved:.2f}" if moved else "–"


def _times(analysis: Analysis) -> str:
    pairs = analysis.standard.pairs
    return f"{analysis.standard.macs / analysis.macs:.1f} × the MACs" if pairs and analysis.macs else "–"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int | None) -> str:
    """A plain table; the first `left` columns are text, the others numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        grid.add_column(Text(head), justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))  # as text, a name like [bold] is no markup
    stream = io.StringIO()
    Console(file=stream, width=width or PIPE_WIDTH, force_terminal=False, force_jupyter=False).print(grid)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


# --------------------------------------------------------------------------------------------------------- CSV


def to_csv(views: Sequence[View]) -> str:
    """One row an operator, of all models."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for view in views:
        for number, row in enumerate(view.analysis.rows):
            writer.writerow(_csv_row(view, number, row))
    return stream.getvalue()


def write_csv(views: Sequence[View], path: str | Path) -> None:
    """Write the table.

    Raises:
        OutputError: as `check_csv`, or it cannot be written.
    """
    check_csv(path)
    write_file(Path(path), to_utf8(to_csv(views)))


def check_csv(path: str | Path) -> None:
    """See that a table can be written there; errors as in `page.check_place`."""
    check_place(path, lambda head: head.startswith(",".join(CSV_COLUMNS).encode()), "table of analyze")


def _csv_row(view: View, number: int, row: Row) -> list[Any]:
    """What is unknown stays empty; a text that a spreadsheet would run as a formula is marked as text."""
    timed = view.roofline.row(row.name) if view.roofline is not None else None
    total = view.analysis.macs
    values = [
        view.analysis.name, number, row.name, row.kind, row.layer, row.stage,
        " ".join(show_shape(shape) for shape in row.inputs), show_shape(row.output), row.dtype, row.parameters,
        row.trainable, row.macs, row.flops, row.weight_bytes, row.activation_bytes, row.traffic_bytes, row.intensity,
        None if row.macs is None or not total else row.macs / total,
        None if row.field is None else _pair(row.field), None if row.stride is None else _pair(row.stride),
        None if timed is None else timed.bound_by, None if timed is None else timed.least_us,
        None if timed is None else timed.measured_us,
    ]  # fmt: skip
    return [f"'{v}" if isinstance(v, str) and v[:1] in tuple("=+-@\t\r") else "" if v is None else v for v in values]
