"""What is in a folder of pictures and what is wrong with it, as text.

Imports data.
"""

from collections.abc import Sequence
from typing import Any

from featherweight.data import BoxAudit, Dataset

MOST_NAMED = 20  # lines of one kind of fault; JSON has them all


def dataset_dict(dataset: Dataset) -> dict[str, Any]:
    """A data set without its items, in plain values for JSON."""
    return {
        "task": dataset.task,
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "pictures": len(dataset.items),
        **dataset.audit.as_dict(),
    }


def bad_text(bad: Sequence[tuple[str, str]]) -> str:
    """The pictures that cannot be used, each with its cause."""
    return "\n".join([f"{len(bad)} bad pictures", *(f"  {file}: {cause}" for file, cause in bad)])


def audit_text(dataset: Dataset) -> str:
    """What is in a data set and what is wrong with it."""
    audit = dataset.audit
    lines = _classes_text(dataset) if audit.boxes is None else _boxes_text(dataset, audit.boxes)
    lines += ["", f"heights {audit.heights[0]} to {audit.heights[2]}, median {audit.heights[1]}"]
    lines += [f"widths  {audit.widths[0]} to {audit.widths[2]}, median {audit.widths[1]}"]
    lines.append(f"{audit.ignored} files passed over that are no pictures by name")
    lines.append(bad_text(audit.bad))
    for title, groups in (
        ("exact duplicates", audit.duplicates),
        ("equal pictures in different files", audit.equal),
        (f"equal pictures with different {'labels' if audit.boxes is None else 'boxes'}", audit.conflicts),
        ("equal pictures in two parts", audit.leaks),
    ):
        lines.append(f"{len(groups)} groups of {title}")
        lines += [f"  {' = '.join(group)}" for group in groups]
    return "\n".join(lines)


def _classes_text(dataset: Dataset) -> list[str]:
    audit = dataset.audit
    parts = dataset.parts
    width = max(len(name) for name in (*dataset.classes, "class"))
    lines = [f"{len(dataset.items)} pictures, {len(dataset.classes)} classes, fingerprint {dataset.fingerprint}", ""]
    lines.append("  ".join([f"{'class':<{width}}", *(f"{part:>7}" for part in parts)]))
    for name in dataset.classes:
        lines.append("  ".join([f"{name:<{width}}", *(f"{audit.counts[part][name]:>7}" for part in parts)]))
    totals = (sum(audit.counts[part].values()) for part in parts)
    lines.append("  ".join([f"{'all':<{width}}", *(f"{total:>7}" for total in totals)]))
    return lines


def _boxes_text(dataset: Dataset, boxes: BoxAudit) -> list[str]:
    """Pictures and boxes by class and part, how large the boxes are, and what is wrong with them."""
    pictures, parts = dataset.audit.counts, dataset.parts
    width = max(len(name) for name in (*dataset.classes, "class"))
    rows = [
        ("", *(cell for part in parts for cell in (part, ""))),
        ("class", *("pictures", "boxes") * len(parts)),
        *((name, *(n for part in parts for n in (pictures[part][name], boxes.counts[part][name])))
          for name in dataset.classes),
        ("all", *(n for part in parts for n in (boxes.pictures[part], sum(boxes.counts[part].values())))),
    ]  # fmt: skip
    classes = f"{len(dataset.classes)} classes"
    lines = [f"{len(dataset.items)} pictures, {classes} of boxes ({boxes.layout}), fingerprint {dataset.fingerprint}"]
    lines += ["", *("  ".join([f"{row[0]:<{width}}", *(f"{cell:>8}" for cell in row[1:])]).rstrip() for row in rows)]
    lines += ["", "heights of boxes {:g} to {:g}, median {:g}".format(*(boxes.heights[i] for i in (0, 2, 1)))]
    lines += ["widths  of boxes {:g} to {:g}, median {:g}".format(*(boxes.widths[i] for i in (0, 2, 1)))]
    shares = zip(boxes.shares.items(), (" (under 32²)", " (under 96²)", ""), strict=True)
    lines.append(", ".join(f"{100 * share:.1f} % {name}{limit}" for (name, share), limit in shares))
    lines.append(f"{boxes.hard} boxes are hard: difficult, or around a crowd")
    lines += [f"also boxes in the layout {layout}, which were not read" for layout in boxes.also]
    for title, names in (
        ("boxes left out", _pairs(boxes.left_out)),
        ("boxes left out that are there twice", _pairs(boxes.twice)),
        ("boxes cut off at the picture's edge", _pairs(boxes.clipped)),
        ("pictures without boxes", boxes.empty),
        ("pictures left out for want of labels", boxes.unlabelled),
        ("labels without their picture", boxes.missing),
        ("pictures left out that are in no part", boxes.partless),
    ):
        lines += [f"{len(names)} {title}", *(f"  {name}" for name in names[:MOST_NAMED])]
        lines += [f"  and {len(names) - MOST_NAMED} more, all in --json"] if len(names) > MOST_NAMED else []
    return lines


def _pairs(named: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{file}: {what}" for file, what in named]
