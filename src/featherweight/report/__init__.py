"""Records → what people read: a card, a table, and one self-contained page that works offline.

    comparison  records side by side, as data
    text        the card, the terminal's table, the README's table
    figure      accuracy against latency as an SVG
    scores      what stands behind average precision, by class and size
    pictures    true and found boxes, the worst pictures first
    page        the HTML page

In scope: words and drawing. Not aware of: how anything was measured beyond what the record says.
Imports boxes, budget, compare, errors, image, matches, page, quantity, record.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from featherweight.budget import Budget, parse_budget
from featherweight.compare import DEFAULT_KEYS, better, by_device, check_comparable, fields_of, front, gather
from featherweight.matches import Answers
from featherweight.page import write_page
from featherweight.record import Record
from featherweight.report.comparison import Comparison
from featherweight.report.figure import plot
from featherweight.report.page import page
from featherweight.report.text import card, markdown, show, table

__all__ = ["Comparison", "card", "compare", "markdown", "page", "plot", "show", "table"]


def compare(
    records: str | Path | Sequence[str | Path | Record],
    budget: str | Budget | None = None,
    keys: Sequence[str] = DEFAULT_KEYS,
    output: str | Path | None = None,
    quick: bool = False,
    answers: Sequence[Answers] = (),
) -> Comparison:
    """Set records side by side: which are beaten by none, which fit a budget, which differ beyond noise.

    Records of several devices stand beside each other, device by device; nothing is said across devices.

    Args:
        records: a file of records, a folder of such files, several of them, or records.
        budget: limits to hold each against.
        keys: the quantities of the front.
        output: where to write the page; nothing is written without.
        quick: show quick measurements too, labelled, which have no part in the front and the verdicts.
        answers: of detectors, what each file found in its pictures, for the page.

    Raises:
        RecordError: the file is no file of records, or the records of a device are not comparable.
        BudgetError: the budget cannot be understood.
        OutputError: the page cannot be written.
    """
    listed = [source.record for source in gather(records)]
    limits = parse_budget(budget) if isinstance(budget, str) else budget or Budget()
    compared = [record for record in listed if not (quick and record.quick)]
    fields_of(keys)  # an unknown one is refused even where there is nothing to compare
    if not listed:
        check_comparable(listed, keys)
    verdicts = dict.fromkeys((record.id for record in listed), "–")
    on_front: list[str] = []
    for group in by_device(compared).values():
        on_front += [record.id for record in front(group, keys)]
        verdicts |= _verdicts(group) if "accuracy" in keys else {}
    comparison = Comparison(
        records=tuple(sorted(listed, key=_place)),
        keys=tuple(keys),
        front=tuple(on_front),
        violations={record.id: limits.violations(record) for record in listed},
        verdicts=verdicts,
    )
    if output is not None:
        write_page(output, page(comparison, limits, answers))
    return comparison


def _place(record: Record) -> tuple[str, str, float, float]:
    """Device by device; within each lightest first."""
    latency, size = (math.inf if value is None else value for value in (record.latency_p50_ms, record.size_bytes))
    return str(record.device.get("name", "?")), record.device_id, latency, size


def _verdicts(records: Sequence[Record]) -> dict[str, str]:
    best = max(records, key=lambda record: record.accuracy or 0)
    words = {True: "lower", False: "higher", None: "no difference shown"}
    return {r.id: "best" if r is best else words[better(best, r, "accuracy")] for r in records}
