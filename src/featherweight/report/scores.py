"""What stands behind average precision: by class, by size, and over thresholds of the score.

A record may come from anywhere: what is not as `tasks.average_precision` writes it is left out.
Imports page and record.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from featherweight.page import escape
from featherweight.record import Record
from featherweight.report.comparison import Comparison

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
    groups: dict[str, list[Record]] = {}
    for record in comparison.records:
        if class_scores(record):
            groups.setdefault(f"{record.artifact_sha256} {record.scores!r}", []).append(record)
    columns = list(groups.values())[:MOST_COLUMNS]
    if not columns:
        return []
    left_out = len(groups) - len(columns)
    names = list(dict.fromkeys(name for records in columns for name in class_scores(records[0])))
    heads = "".join(f"<th>{escape(_head(records))}</th>" for records in columns)
    rows = [_class_row(name, [records[0] for records in columns]) for name in names[:MOST_CLASSES]]
    rows += [_size_row(key, text, [records[0] for records in columns]) for key, text in SIZES.items()]
    more = [f"{len(names) - MOST_CLASSES} more classes are in the records."] if len(names) > MOST_CLASSES else []
    more += [f"{left_out} more columns are in the records."] if left_out else []
    return [
        "<h2>By class and size</h2>",
        f'<div class="scroll"><table><thead><tr><th class="text">AP50:95 (AP50)</th><th>true boxes</th>{heads}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>",
        *(f"<p>{line}</p>" for line in more),
        *(_thresholds(records) for records in columns),
    ]


def class_scores(record: Record) -> dict[str, Mapping[str, Any]]:
    """Class → "ap", "ap50" and "boxes"; nothing where the record has none."""
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


def _class_row(name: str, records: Sequence[Record]) -> str:
    known = [class_scores(record).get(name, {}) for record in records]
    count = next((one["boxes"] for one in known if isinstance(one.get("boxes"), int)), "–")
    cells = "".join(f"<td>{share_text(one.get('ap'))} ({share_text(one.get('ap50'))})</td>" for one in known)
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
