"""What was seen of each file, and what is wrong with it.

Imports boxes, errors and the folder's lower files.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherweight.data.boxed import Checked
from featherweight.data.dataset import PARTS, Audit, BoxAudit, Item, MaskAudit, hundredths
from featherweight.data.find import Folder, Found
from featherweight.data.masked import CheckedMask, Key
from featherweight.errors import display

SMALL, MEDIUM = 32**2, 96**2  # pixels of area below which boxes are small, and medium, by COCO's evaluation


@dataclass(frozen=True)
class Seen:
    """What the scan learnt of one file."""

    found: Found
    sha256: str
    pixels_sha256: str
    height: int
    width: int
    checked: Checked | None = None  # its boxes
    masked: CheckedMask | None = None  # its mask


def audit_pictures(
    root: Path,
    classes: tuple[str, ...],
    items: tuple[Item, ...],
    seen: Sequence[Seen],
    bad: tuple[tuple[str, str], ...],
    ignored: int,
) -> Audit:
    """What is in the pictures, of which each was `seen`, and what is wrong with them."""
    shown = [_shown(item, one) for item, one in zip(items, seen, strict=True)]
    counted = Counter((item.part, label) for item, labels in zip(items, shown, strict=True) for label in labels)
    present = [part for part in PARTS if any(item.part == part for item in items)]
    by_bytes, by_pixels = _grouped(items, lambda item: item.sha256), _grouped(items, lambda item: item.pixels_sha256)

    def named(groups: Iterable[list[Item]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(relative(item.path, root) for item in group) for group in groups)

    return Audit(
        counts={part: {name: counted[part, i] for i, name in enumerate(classes)} for part in present},
        heights=_least_median_most([item.height for item in items]),
        widths=_least_median_most([item.width for item in items]),
        bad=bad,
        ignored=ignored,
        duplicates=named(by_bytes),
        equal=named(group for group in by_pixels if len({item.sha256 for item in group}) > 1),
        conflicts=named(group for group in by_pixels if len({_truth(item) for item in group}) > 1),
        leaks=named(group for group in by_pixels if len({item.part for item in group}) > 1),
    )


def audit_boxes(folder: Folder, classes: tuple[str, ...], items: tuple[Item, ...], seen: Sequence[Seen]) -> BoxAudit:
    """What is in the labels of `folder` and what is wrong with them; there is at least one box."""
    labels, root = folder.labels, folder.root
    if labels is None:
        raise AssertionError("a folder of classes has no boxes to audit")
    true = [(item.part, item.boxes) for item in items if item.boxes is not None]
    corners = np.concatenate([boxes.corners for _, boxes in true])
    spans = corners[:, 2:] - corners[:, :2]
    areas = spans.prod(axis=1)
    counted = Counter((part, label) for part, boxes in true for label in boxes.labels.tolist())
    present = [part for part in PARTS if any(item.part == part for item in items)]

    def lines(of: Callable[[Checked], tuple[str, ...]]) -> tuple[tuple[str, str], ...]:
        checked = ((relative(one.found.path, root), one.checked) for one in seen if one.checked is not None)
        return tuple((name, line) for name, one in checked for line in of(one))

    return BoxAudit(
        layout=labels.layout,
        also=folder.also,
        pictures={part: sum(item.part == part for item in items) for part in present},
        counts={part: {name: counted[part, i] for i, name in enumerate(classes)} for part in present},
        hard=sum(int(boxes.hard.sum()) for _, boxes in true),
        widths=_spread(spans[:, 0]),
        heights=_spread(spans[:, 1]),
        shares={
            "small": float((areas < SMALL).mean()),
            "medium": float(((areas >= SMALL) & (areas < MEDIUM)).mean()),
            "large": float((areas >= MEDIUM).mean()),
        },
        left_out=lines(lambda one: one.left_out),
        twice=lines(lambda one: one.twice),
        clipped=lines(lambda one: one.clipped),
        empty=tuple(relative(i.path, root) for i in items if i.boxes is not None and not len(i.boxes.labels)),
        unlabelled=tuple(relative(path, root) for path in labels.unlabelled),
        missing=labels.missing,
        partless=tuple(relative(path, root) for path in labels.partless),
    )


def audit_masks(
    folder: Folder, key: Key, classes: tuple[str, ...], items: tuple[Item, ...], seen: Sequence[Seen]
) -> MaskAudit:
    """What is in the masks of `folder`, read by `key`, and what is wrong with them; `seen` as `items`."""
    masks, root = folder.masks, folder.root
    if masks is None:
        raise AssertionError("a folder without masks has none to audit")
    both = [(item, one.masked) for item, one in zip(items, seen, strict=True) if one.masked is not None]
    present = [part for part in PARTS if any(item.part == part for item in items)]
    by_part = {part: _totals([mask for item, mask in both if item.part == part], len(classes)) for part in present}
    pixels = _totals([mask for _, mask in both], len(classes))
    every, asked = sum(item.height * item.width for item in items), int(pixels.sum())
    by_mask = _grouped([item for item, mask in both if len(mask.shown) > 1], lambda item: item.mask_sha256)

    def named(wanted: Callable[[CheckedMask], bool]) -> tuple[str, ...]:
        return tuple(relative(item.path, root) for item, mask in both if wanted(mask))

    return MaskAudit(
        layout=masks.layout,
        source=masks.source,
        kind=key.kind,
        legend="" if folder.legend is None else folder.legend.file,
        keys=key.told(classes),
        also=masks.also,
        pictures={part: sum(item.part == part for item in items) for part in present},
        pixels={part: dict(zip(classes, by_part[part].tolist(), strict=True)) for part in present},
        ignored=1 - asked / every,
        shares={name: count / asked for name, count in zip(classes, pixels.tolist(), strict=True)},
        unseen=tuple(name for name, count in zip(classes, pixels, strict=True) if not count),
        untrained=tuple(
            name for i, name in enumerate(classes) if pixels[i] and "train" in by_part and not by_part["train"][i]
        ),
        empty=named(lambda mask: mask.shown == (0,)),
        alone=named(lambda mask: len(mask.shown) == 1 and mask.shown != (0,)),
        equal=tuple(
            tuple(relative(item.path, root) for item in group)
            for group in by_mask
            if len({item.pixels_sha256 for item in group}) > 1
        ),
        left_out=tuple((relative(item.path, root), line) for item, mask in both for line in mask.left_out),
        unlabelled=tuple(relative(path, root) for path in masks.unlabelled),
        missing=masks.missing,
        partless=tuple(relative(path, root) for path in masks.partless),
    )


def _totals(masks: Sequence[CheckedMask], classes: int) -> NDArray[np.int64]:
    """Pixels by class."""
    return np.asarray(np.array([mask.pixels for mask in masks], np.int64).reshape(-1, classes).sum(axis=0))


def _spread(values: NDArray[np.float32]) -> tuple[float, float, float]:
    """Least, median and most, to a hundredth of a pixel."""
    least, median, most = (round(float(one), 2) for one in (values.min(), np.median(values), values.max()))
    return least, median, most


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _least_median_most(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), int(statistics.median(values)), max(values)


def _shown(item: Item, seen: Seen) -> set[int]:
    """The classes that a picture shows."""
    if seen.masked is not None:
        return set(seen.masked.shown)
    return {item.label} if item.boxes is None else set(item.boxes.labels.tolist())


def _truth(item: Item) -> object:
    """What equal pictures should have in common."""
    return (item.label, item.mask_sha256) if item.boxes is None else hundredths(item.boxes)


def relative(path: Path, root: Path) -> str:
    """A path as the audit names it."""
    return display(path.relative_to(root))
