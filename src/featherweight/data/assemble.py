"""From what the scan has seen of every file to a `Dataset`: its parts by the rule of the package, and its audit.

Imports errors and the folder's lower files.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featherweight.data.audit import Seen, audit_boxes, audit_masks, audit_pictures
from featherweight.data.dataset import Audit, Dataset, Item, Split
from featherweight.data.find import Folder
from featherweight.data.masked import Key
from featherweight.errors import DataError, TooManyBad, display

MAX_BAD_SHARE = 0.05


def check_usable(folder: Folder, seen: Sequence[Seen], bad: Sequence[tuple[str, str]]) -> None:
    """Raise a `DataError` where too much is bad or a class has nothing left."""
    root, total = folder.root, len(folder.files)
    if len(bad) > MAX_BAD_SHARE * total:
        raise TooManyBad(
            f"{len(bad)} of {total} pictures in {display(root)} are bad, more than 5 %; the first: {bad[0][0]}: "
            f"{bad[0][1]}. Take them out, or see them all with: featherweight data",
            tuple(bad),
        )
    used = {item.found.class_name for item in seen}
    for name in folder.classes:
        if name not in used and folder.task == "classify":
            raise DataError(
                f"the class {display(name)!r} in {display(root)} has no usable picture; add some or remove its folder"
            )


def assemble(
    folder: Folder, seen: Sequence[Seen], bad: tuple[tuple[str, str], ...], split: Split, key: Key | None = None
) -> Dataset:
    """Deal the pictures out to their parts, and say what is wrong with them; masks were read by `key`."""
    root, classes = folder.root, folder.classes
    groups: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.pixels_sha256].append(one)
    parts = _parts(root, groups, split)
    index = {name: label for label, name in enumerate(classes)}
    items = tuple(
        Item(
            one.found.path,
            -1 if one.checked or one.masked else index[one.found.class_name],
            one.found.part if one.found.part in ("val", "test") else parts[one.pixels_sha256],
            one.sha256,
            one.pixels_sha256,
            one.height,
            one.width,
            one.checked.boxes if one.checked else None,
            one.masked.source if one.masked else None,
            one.masked.sha256 if one.masked else "",
        )
        for one in seen
    )
    names = tuple(display(name) for name in classes)
    audit = audit_pictures(root, names, items, seen, bad, folder.ignored)
    if key is not None:
        audit = replace(audit, masks=audit_masks(folder, key, names, items, seen))
        _check_masks(root, audit)
    elif folder.labels is None:
        _check_parts(root, classes, items)
    else:
        _check_boxes(root, items)
        audit = replace(audit, boxes=audit_boxes(folder, names, items, seen))
    return Dataset(root, names, items, audit, folder.task)


def _parts(root: Path, groups: dict[str, list[Seen]], split: Split) -> dict[str, str]:
    """Pixel hash → part, by the rule in the package's docstring.

    Of a ready-made split only what is missing is dealt out: without val, some of train becomes val.
    """
    ready_made = {one.found.part for group in groups.values() for one in group} - {None}
    shares = {"test": split.test, "val": split.val}
    if ready_made:
        shares = {} if "val" in ready_made else {"val": split.val}
    by_class: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pixel_hash, group in groups.items():
        if any(one.found.part in (None, "train") for one in group):
            first = min(group, key=lambda one: (one.sha256, os.fsencode(one.found.path)))
            by_class[first.found.class_name].append((first.sha256, pixel_hash))
    parts: dict[str, str] = {}
    for name, members in by_class.items():
        wanted = 1 + sum(share > 0 for share in shares.values())
        if len(members) < wanted:
            where = f"the class {display(name)!r} in {display(root)}" if name else display(root)
            raise DataError(
                f"{where} has {len(members)} different pictures; wanted at least {wanted}, one for each part"
            )
        members.sort()
        start = 0
        for part, share in shares.items():
            count = max(1, round(share * len(members))) if share > 0 else 0
            parts.update((pixel_hash, part) for _, pixel_hash in members[start : start + count])
            start += count
        parts.update((pixel_hash, "train") for _, pixel_hash in members[start:])
    return parts


def _check_parts(root: Path, classes: tuple[str, ...], items: tuple[Item, ...]) -> None:
    present = {(item.part, item.label) for item in items}
    for label, name in enumerate(classes):
        if ("train", label) not in present:
            raise DataError(f"the class {display(name)!r} in {display(root)} has no picture to train on; add some")


def _check_masks(root: Path, audit: Audit) -> None:
    shown = [name for name, count in audit.counts.get("train", {}).items() if count]
    if len(shown) < 2:
        raise DataError(
            f"the masks of train in {display(root)} show {'only ' + repr(shown[0]) if shown else 'nothing'}; wanted at "
            "least two classes to learn, the background among them"
        )


def _check_boxes(root: Path, items: tuple[Item, ...]) -> None:
    if not any(item.part == "train" and item.boxes is not None and len(item.boxes.labels) for item in items):
        raise DataError(f"no box to train on in {display(root)}; wanted a part train whose pictures have boxes")
