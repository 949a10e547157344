"""One page of a compression: what each stage gained, which were refused and why, and the records behind it.

Imports budget, matches, page, record and this folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.budget import Budget
from featherweight.matches import Answers
from featherweight.page import document, escape
from featherweight.record import QUANTITIES, Record, label_of, value_of
from featherweight.report.figure import STYLE as FIGURE_STYLE
from featherweight.report.page import methods
from featherweight.report.pictures import STYLE as PICTURES_STYLE
from featherweight.report.pictures import pictures
from featherweight.report.text import labelled, show, threads_text
from featherweight.report.waterfall import STYLE, Bar, waterfall

DRAWN = ("latency_p50_ms", "size_bytes", "macs")
COLUMNS = ("accuracy", "latency_p50_ms", "latency_p90_ms", "size_bytes", "memory_peak_bytes", "parameters", "macs")


@dataclass(frozen=True)
class Stage:
    """One step of a compression: the record of the fastest file that it gave, and whether it was taken."""

    name: str
    record: Record
    kept: bool
    why: str  # what was gained, or why it was refused, with the figures


def compression_page(
    name: str,
    stages: Sequence[Stage],
    proofs: Sequence[Record],
    reasons: Sequence[str],
    limits: Budget,
    answers: Sequence[Answers] = (),
) -> str:
    """The page.

    Args:
        name: of the model.
        stages: in their order; the first is the model as it was.
        proofs: records on test of the file that was chosen, and of the model as it was.
        reasons: what else there is to say.
        limits: what was asked for.
        answers: boxes or masks that the chosen file finds, beside the true ones.
    """
    body = [f"<h1>{escape(name)}, compressed</h1>", f"<p>Budget: {escape(limits)}.</p>"]
    for field in DRAWN:
        bars = [_bar(stage, field) for stage in stages]
        drawn = waterfall(QUANTITIES[field], bars)
        body += [f"<h2>{escape(QUANTITIES[field].label)}</h2>", f'<div class="scroll">{drawn}</div>']
    body += ["<h2>Stages, on val</h2>", _table(stages)]
    if proofs:
        body += ["<h2>Proof, on test</h2>", _records(proofs)]
    body += [f"<p>{escape(reason)}</p>" for reason in reasons]
    body += pictures(answers)
    body += ["<h2>How each number was measured</h2>", *methods([*(stage.record for stage in stages), *proofs])]
    style = FIGURE_STYLE + STYLE + (PICTURES_STYLE if answers else "")
    return document("featherweight compression", style, body, pictures=bool(answers))


def _bar(stage: Stage, field: str) -> Bar:
    return Bar(
        stage.name,
        value_of(stage.record, field),
        stage.kept,
        f"{label_of('accuracy', [stage.record])} {show(stage.record, 'accuracy')}",
    )


def _table(stages: Sequence[Stage]) -> str:
    heads = ["stage", "file", *(QUANTITIES[field].label for field in COLUMNS), "kept", "why"]
    rows = [
        [stage.name, _file(stage.record), *_numbers(stage.record), "yes" if stage.kept else "refused", stage.why]
        for stage in stages
    ]
    return _html(heads, rows)


def _records(records: Sequence[Record]) -> str:
    heads = ["record", "file", *(QUANTITIES[field].label for field in COLUMNS)]
    return _html(heads, [[record.id, _file(record), *_numbers(record)] for record in records])


def _file(record: Record) -> str:
    return f"{labelled(record.name, record)}, {record.runtime}, {threads_text(record.threads)}"


def _numbers(record: Record) -> list[str]:
    return [show(record, field) for field in COLUMNS]


def _html(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [{"file": "file", "why": "text"}.get(head, "") for head in heads]
    head = "".join(f'<th class="{kind}">{escape(text)}</th>' for kind, text in zip(kinds, heads, strict=True))
    lines = []
    for row in rows:
        cells = "".join(f'<td class="{kind}">{escape(text)}</td>' for kind, text in zip(kinds, row, strict=True))
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
