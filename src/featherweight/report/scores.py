"""What stands behind average precision and mean IoU: by class, by size, and over thresholds of the score.

A record may come from anywhere: what is not as `tasks.average_precision` or `tasks.confusion` writes it is left out.
Imports page and record.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featherweight.page import escape
from featherweight.record import Record
from featherweight.report.comparison import Comparison


@dataclass(frozen=True)
class Kind:
    """What a class may have, and how it is told."""

    keys: tuple[str, ...]  # the one that counts first
    head: str
    count: str
    counted: str  # what it counts
    label: str  # of the line on a card, and the key of what it tells
    told: str
    sized: bool  # whether there are lines by size


KINDS = (
    Kind(("ap", "ap50"), "AP50:95 (AP50)", "boxes", "true boxes", "AP50 by class", "ap50", sized=True),
    Kind(
        ("iou", "dice", "boundary_f1"), "IoU (Dice, boundary F1)", "pixels", "true pixels", "IoU by class", "iou",
        sized=False,
    ),
)  # fmt: skip
MOST_CLASSES = 200  # in a page
MOST_COLUMNS = 8
SIZES = {
    "small": "small, under 32² pixels",
    "medium": "medium, under 96²",
    "large": "large",
    "recall": "recall of 100 boxes",
}


def by_class(comparison: Comparison) -> list[str]:
    """HTML: the metric by class and size of the records that have it; those that say the same stand in one column."""
    return [line for kind in KINDS for line in _of_kind(kind, comparison.records)]


def _of_kind(kind: Kind, records: Sequence[Record]) -> list[str]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        if kind_of(record) == kind:
            groups.setdefault(f"{record.artifact_sha256} {record.scores!r}", []).append(record)
    columns = list(groups.values())[:MOST_COLUMNS]
    if not columns:
        return []
    left_out = len(groups) - len(columns)
    names = list(dict.fromkeys(name for some in columns for name in class_scores(some[0])))
    heads = "".join(f"<th>{escape(_head(some))}</th>" for some in columns)
    rows = [_class_row(kind, name, [some[0] for some in columns]) for name in names[:MOST_CLASSES]]
    rows += [_size_row(key, text, [some[0] for some in columns]) for key, text in SIZES.items() if kind.sized]
    more = [f"{len(names) - MOST_CLASSES} more classes are in the records."] if len(names) > MOST_CLASSES else []
    more += [f"{left_out} more columns are in the records."] if left_out else []
    return [
        f"<h2>By class{' and size' if kind.sized else ''}</h2>",
        f'<div class="scroll"><table><thead><tr><th class="text">{kind.head}</th><th>{kind.counted}</th>{heads}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>",
        *(f"<p>{line}</p>" for line in more),
        *(_thresholds(some) for some in columns),
    ]


def kind_of(record: Record) -> Kind | None:
    """What a record says of its classes; `None` where it says nothing."""
    classes = class_scores(record)
    return next((kind for kind in KINDS if any(kind.keys[0] in one for one in classes.values())), None)


def class_scores(record: Record) -> dict[str, Mapping[str, Any]]:
    """Class → what the record says of it, as the keys of its `Kind`; nothing where it says nothing."""
    classes = (record.scores or {}).get("classes")
    if not isinstance(classes, Mapping):
        return {}
    return {str(name): one for name, one in classes.items() if isinstance(one, Mapping)}


def share_text(value: Any) -> str:
    """A share as percent; – where it is none."""
    there = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return f"{100 * value:.1f} %" if there else "–"


def _head(records: Sequence[Record]) -> str:
    runtimes = list(dict.fromkeys(record.runtime for record in records))
    return f"{records[0].name} ({', '.join(runtimes)})"


def _class_row(kind: Kind, name: str, records: Sequence[Record]) -> str:
    known = [class_scores(record).get(name, {}) for record in records]
    count = next((one[kind.count] for one in known if isinstance(one.get(kind.count), int)), "–")
    first, *rest = kind.keys
    cells = "".join(
        f"<td>{share_text(one.get(first))} ({', '.join(share_text(one.get(key)) for key in rest)})</td>"
        for one in known
    )
    return f'<tr><td class="file">{escape(name)}</td><td>{escape(count)}</td>{cells}</tr>'


def _size_row(key: str, text: str, records: Sequence[Record]) -> str:
    cells = "".join(f"<td>{share_text((record.scores or {}).get(key))}</td>" for record in records)
    return f'<tr><td class="text"><em>{escape(text)}</em></td><td></td>{cells}</tr>'


def _thresholds(records: Sequence[Record]) -> str:
    """A part to unfold: which score to ask for."""
    rows = (records[0].scores or {}).get("thresholds")
    known = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    if not known:
        return ""
    lines = "".join(
        f'<tr><td class="text">{share_text(row.get("score"))}</td><td class="text">{share_text(row.get("precision"))}'
        f'</td><td class="text">{share_text(row.get("recall"))}</td></tr>'
        for row in known
    )
    return (
        f"<details><summary>Precision and recall by score at IoU 0.5: {escape(_head(records))}</summary>"
        '<table><thead><tr><th class="text">least score</th><th class="text">precision: of what is found, right</th>'
        f'<th class="text">recall: of what is there, found</th></tr></thead><tbody>{lines}</tbody></table></details>'
    )
