"""From what the scan has seen of every file to a `Dataset`: its parts by the rule of the package, and its audit.

Imports errors, data.dataset and data.find.
"""

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.data.dataset import PARTS, Audit, Dataset, Item, Split, display
from featherweight.data.find import Found
from featherweight.errors import DataError, TooManyBad

MAX_BAD_SHARE = 0.05


@dataclass(frozen=True)
class Seen:
    """What the scan learnt of one file."""

    found: Found
    sha256: str
    pixels_sha256: str
    height: int
    width: int


def check_usable(
    root: Path, classes: tuple[str, ...], seen: list[Seen], bad: list[tuple[str, str]], total: int
) -> None:
    """Raise a `DataError` where too much is bad or a class has nothing left."""
    if len(bad) > MAX_BAD_SHARE * total:
        raise TooManyBad(
            f"{len(bad)} of {total} pictures in {display(root)} are bad, more than 5 %; the first: {bad[0][0]}: "
            f"{bad[0][1]}. Take them out, or see them all with: featherweight data",
            tuple(bad),
        )
    used = {item.found.class_name for item in seen}
    for name in classes:
        if name not in used:
            raise DataError(
                f"the class {display(name)!r} in {display(root)} has no usable picture; add some or remove its folder"
            )


def assemble(
    root: Path,
    classes: tuple[str, ...],
    seen: list[Seen],
    bad: tuple[tuple[str, str], ...],
    ignored: int,
    split: Split,
) -> Dataset:
    """Deal the pictures out to their parts, and say what is wrong with them."""
    groups: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.pixels_sha256].append(one)
    parts = _parts(root, groups, split)
    index = {name: label for label, name in enumerate(classes)}
    items = tuple(
        Item(
            one.found.path,
            index[one.found.class_name],
            one.found.part if one.found.part in ("val", "test") else parts[one.pixels_sha256],
            one.sha256,
            one.pixels_sha256,
            one.height,
            one.width,
        )
        for one in seen
    )
    _check_parts(root, classes, items)
    names = tuple(display(name) for name in classes)
    return Dataset(root, names, items, _audit(root, names, items, bad, ignored))


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
            raise DataError(
                f"the class {display(name)!r} in {display(root)} has {len(members)} different pictures; wanted at "
                f"least {wanted}, one for each part"
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


def _audit(
    root: Path, classes: tuple[str, ...], items: tuple[Item, ...], bad: tuple[tuple[str, str], ...], ignored: int
) -> Audit:
    counted = Counter((item.part, item.label) for item in items)
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
        conflicts=named(group for group in by_pixels if len({item.label for item in group}) > 1),
        leaks=named(group for group in by_pixels if len({item.part for item in group}) > 1),
    )


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _least_median_most(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), int(statistics.median(values)), max(values)


def relative(path: Path, root: Path) -> str:
    """A path as the audit names it."""
    return display(path.relative_to(root))
