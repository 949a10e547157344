"""Records as one self-contained HTML page: no script, no link.

Imports budget, matches, page, quantity, record and this folder.
"""

import json
from collections.abc import Sequence

from featherweight.budget import Budget
from featherweight.matches import Answers
from featherweight.page import document, escape
from featherweight.record import BY_KEY, QUANTITIES, Record, label_of, told, value_of
from featherweight.report.comparison import Comparison
from featherweight.report.figure import STYLE, figure
from featherweight.report.pictures import STYLE as PICTURES_STYLE
from featherweight.report.pictures import pictures
from featherweight.report.scores import by_class
from featherweight.report.text import (
    arithmetic,
    bounds_text,
    change_texts,
    columns_of,
    estimate_text,
    labels,
    matrix,
    threads_text,
)


def page(comparison: Comparison, limits: Budget, answers: Sequence[Answers] = ()) -> str:
    """One HTML page: a figure and a table each device, pictures of what was found, how each number was measured."""
    devices = comparison.devices
    count = len(comparison.records)
    where = comparison.device if len(devices) == 1 else f"{len(devices)} devices"
    body = [
        "<h1>featherweight</h1>",
        f"<p>{count} record{'s' if count > 1 else ''} on {escape(where)}. Budget: {escape(limits)}.</p>",
    ]
    if len(devices) > 1:
        body += ["<h2>p50 latency by device</h2>", _html_matrix(comparison)]
    for one in devices:
        of_device = "" if len(devices) == 1 else f": {escape(one.device)}"
        body += [
            f"<h2>Accuracy against latency{of_device}</h2>",
            figure(one),
            f"<h2>Records{of_device}</h2>",
            _html_table(one, bool(limits.limits)),
        ]
    body += [*by_class(comparison), *pictures(answers)]
    body += ["<h2>How each number was measured</h2>", *methods(comparison.records)]
    style = STYLE + PICTURES_STYLE if answers else STYLE
    return document("featherweight report", style, body, pictures=bool(answers))


def methods(records: Sequence[Record]) -> list[str]:
    """A part to unfold for each record: how every number of it was taken, and the record itself."""
    return [_html_method(record) for record in records]


def _html_matrix(comparison: Comparison) -> str:
    heads, *rows = matrix(comparison)
    head = "".join(f"<th class=text>{escape(text)}</th>" for text in heads)
    lines = []
    for name, runtime, *cells in rows:
        times = "".join(f'<td class="text">{escape(cell)}</td>' for cell in cells)
        lines.append(f'<tr><td class="file">{escape(name)}</td><td>{escape(runtime)}</td>{times}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        "<p>Side by side, without a verdict: records of different devices are not compared.</p>"
    )


def _html_table(comparison: Comparison, budgeted: bool) -> str:
    columns = columns_of(comparison.records)
    named = (label_of(BY_KEY[key].field, comparison.records) for key in columns)
    heads = ["record", "file", *named, "accuracy against best"]
    heads += ["budget"] if budgeted else []
    as_text = ("accuracy against best", "budget")
    rows = []
    for record in comparison.records:
        cells = [
            f"<td>{record.id}</td>",
            f'<td class="file">{escape(record.name)}<small>{escape(_how(record))}</small>{_badges(record)}</td>',
            *(f"<td>{_cell(record, BY_KEY[key].field)}</td>" for key in columns),
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
    return number if interval is None else f"{number} <small>{escape(bounds_text(name, interval))}</small>"


def _how(record: Record) -> str:
    """Runtime and threads, and the arithmetic where it is not that of the file."""
    differs = record.compute_precision not in (None, record.precision)
    computed = f", computed in {record.compute_precision}" if differs else ""
    return f"{record.runtime}, {threads_text(record.threads)}{computed}"


def _badges(record: Record) -> str:
    return "".join(f'<strong class="miss">{label}</strong> ' for label in labels(record))


def _html_method(record: Record) -> str:
    lines = [
        *_doubts(record),
        f"File sha256 {record.artifact_sha256}, {record.format}. Computed in {arithmetic(record)}.",
        _protocol_line(record),
        *_number_lines(record),
        *(
            f"No {label_of(name, [record])}: {record.missing.get(name, 'not measured')}."
            for name in told(record)
            if value_of(record, name) is None
        ),
        *(f"Warning: {warning}." for warning in record.warnings),
        *(f"Finding: {finding}." for finding in record.findings),
        *(f"Changed meanwhile: {change}." for change in change_texts(record)),
        f"Taken {record.created}; command: {record.settings.get('command') or 'called from Python'}.",
    ]
    if record.samples is not None:
        lines.append(f"Every raw sample, of the warm-up too: {record.samples}, beside the file of records.")
    details = json.dumps(json.loads(record.to_json()), indent=1, ensure_ascii=False)
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    words = "".join(f", {label}" for label in labels(record))
    return (
        f'<details id="{record.id}"><summary>{record.id} · {escape(record.name)}, {escape(record.runtime)}, '
        f"{threads_text(record.threads)}{words}</summary>{text}<pre>{escape(details)}</pre></details>"
    )


def _doubts(record: Record) -> list[str]:
    lines = [f"UNSTABLE, so that its times are not compared: {reason}." for reason in record.unstable]
    return [*lines, "Quick: too short to be compared."] if record.quick else lines


def _protocol_line(record: Record) -> str:
    protocol = record.settings.get("protocol")
    protocol = protocol if isinstance(protocol, dict) else {}
    runs, seconds, warm_runs, warm_seconds = (
        protocol.get(name, "unknown") for name in ("min_runs", "min_seconds", "warmup_runs", "warmup_seconds")
    )
    return (
        f"One picture at a time through {record.runtime} on {threads_text(record.threads)}, in a process of its own; "
        f"{'unknown' if record.latency_n is None else record.latency_n} runs (at least {runs} and {seconds} s) after a "
        f"warm-up of at least {warm_runs} runs and {warm_seconds} s; inputs: "
        f"{record.settings.get('inputs', 'unknown')}. Latency is inference alone; pre- and post-processing have "
        "their own numbers."
    )


def _number_lines(record: Record) -> list[str]:
    """How each number that is there was taken."""
    lines = []
    if record.accuracy is not None:
        how = record.settings.get("accuracy_interval_by", "Wilson's")
        lines.append(
            f"Accuracy: {record.accuracy_n or 'an unknown number of'} pictures of {record.part or 'an unknown part'} "
            f"(data {record.data or 'unknown'}) through the same session; {how} 95 % interval."
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
    if record.energy_mj is not None:
        lines.append(f"Energy: {record.energy_method or 'by an unknown method'}.")
    estimate = estimate_text(record)
    if estimate is not None:
        lines.append(f"Energy, estimated and not measured, and never compared: {estimate}.")
    return lines
