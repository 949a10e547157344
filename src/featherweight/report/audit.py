"""What is in a folder of pictures and what is wrong with it, as text.

Imports data.
"""

from collections.abc import Sequence
from typing import Any

from featherweight.data import BoxAudit, Dataset, MaskAudit

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
    what = "labels"
    if audit.boxes is not None:
        lines, what = _boxes_text(dataset, audit.boxes), "boxes"
    elif audit.masks is not None:
        lines, what = _masks_text(dataset, audit.masks), "masks"
    else:
        lines = _classes_text(dataset)
    lines += ["", f"heights {audit.heights[0]} to {audit.heights[2]}, median {audit.heights[1]}"]
    lines += [f"widths  {audit.widths[0]} to {audit.widths[2]}, median {audit.widths[1]}"]
    lines.append(f"{audit.ignored} files passed over that are no pictures by name")
    lines.append(bad_text(audit.bad))
    for title, groups in (
        ("exact duplicates", audit.duplicates),
        ("equal pictures in different files", audit.equal),
        (f"equal pictures with different {what}", audit.conflicts),
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
    return lines + _named(
        ("boxes left out", _pairs(boxes.left_out)),
        ("boxes left out that are there twice", _pairs(boxes.twice)),
        ("boxes cut off at the picture's edge", _pairs(boxes.clipped)),
        ("pictures without boxes", boxes.empty),
        ("pictures left out for want of labels", boxes.unlabelled),
        ("labels without their picture", boxes.missing),
        ("pictures left out that are in no part", boxes.partless),
    )


def _masks_text(dataset: Dataset, masks: MaskAudit) -> list[str]:
    """Pictures and pixels by class and part, what stands for each class, and what is wrong with the masks."""
    pictures, parts = dataset.audit.counts, dataset.parts
    width = max(len(name) for name in (*dataset.classes, "class"))
    totals = {part: sum(masks.pixels[part].values()) for part in parts}
    rows = [
        ("", *(cell for part in parts for cell in (part, ""))),
        ("class", *("pictures", "pixels") * len(parts)),
        *((name, *(cell for part in parts for cell in (
            pictures[part][name], f"{100 * masks.pixels[part][name] / max(1, totals[part]):.2f} %")))
          for name in dataset.classes),
        ("all", *(cell for part in parts for cell in (masks.pictures[part], ""))),
    ]  # fmt: skip
    classes = f"{len(dataset.classes)} classes of masks ({masks.layout}: {masks.source})"
    lines = [f"{len(dataset.items)} pictures, {classes}, fingerprint {dataset.fingerprint}", ""]
    lines += ["  ".join([f"{row[0]:<{width}}", *(f"{cell:>8}" for cell in row[1:])]).rstrip() for row in rows]
    if masks.kind != "polygons":
        told = "; ".join(f"{keys} {name}" for name, keys in masks.keys.items())
        lines += ["", f"{masks.kind}: {told}" + (f" (by {masks.legend})" if masks.legend else "")]
    lines.append(f"{100 * masks.ignored:.2f} % of all pixels are ignored")
    for names, where in ((masks.unseen, ""), (masks.untrained, " in train")):
        lines += [f"{len(names)} classes have no pixel{where}: {', '.join(names)}"] if names else []
    lines += [f"also there, not read: {what}" for what in masks.also]
    return lines + _named(
        (f"pictures that show {dataset.classes[0]} alone", masks.empty),
        ("pictures that show one other class alone", masks.alone),
        ("groups of different pictures with equal masks", [" = ".join(group) for group in masks.equal]),
        ("outlines left out", _pairs(masks.left_out)),
        ("pictures left out for want of a mask", masks.unlabelled),
        ("masks without their picture", masks.missing),
        ("pictures left out that are in no part", masks.partless),
    )


def _named(*kinds: tuple[str, Sequence[str]]) -> list[str]:
    """How many there are of each kind, and the first of them."""
    lines = []
    for title, names in kinds:
        lines += [f"{len(names)} {title}", *(f"  {name}" for name in names[:MOST_NAMED])]
        lines += [f"  and {len(names) - MOST_NAMED} more, all in --json"] if len(names) > MOST_NAMED else []
    return lines


def _pairs(named: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{file}: {what}" for file, what in named]
