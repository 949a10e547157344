"""A folder of labelled pictures → `Dataset`: found, decoded once, split, audited.

Two layouts: `DIR/class/**.jpg`, split here, or `DIR/{train,val,test}/class/**.jpg`, split by its maker.

The split rule: equal pictures (same pixels once decoded) are one group. In each class the groups, ordered by the
least SHA-256 of their files, are dealt out: the first 15 % to test, the next 15 % to val, the rest to train. So the
parts depend on contents alone, not on names, order or a seed; every class has its share of each part; and equal
pictures never stand on both sides.

Nothing is ever written into the user's folder. Imports boxes, device, errors, image and progress.
"""

import hashlib
import os
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes
from featherweight.device import available_cores, this_device
from featherweight.errors import DataError, ImageError, SettingError, TooManyBad
from featherweight.image import Pixels, decode, read_bytes, resize
from featherweight.progress import track

PARTS = ("train", "val", "test")
PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif"])
# Pictures by name that we do not read: named in the audit rather than passed over.
OTHER_SUFFIXES = frozenset(
    [
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".svg",
        ".psd",
        ".raw",
        ".dng",
        ".cr2",
        ".nef",
        ".jp2",
        ".ico",
        ".tga",
        ".pdf",
    ]
)
MAX_BAD_SHARE = 0.05
MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class Split:
    """The shares of val and test in a folder that comes without parts; the rest is train."""

    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise SettingError(
                f"split val={self.val}, test={self.test}; wanted shares with 0 < val, 0 <= test and val + test < 1"
            )


@dataclass(frozen=True)
class Item:
    """One usable picture: where it is, what it shows (an index into the classes) and in which part it is."""

    path: Path
    label: int
    part: str
    sha256: str
    pixels_sha256: str
    height: int
    width: int
    boxes: Boxes | None = None  # of a data set of boxes, where `label` is -1


@dataclass(frozen=True)
class Audit:
    """What is in the folder and what is wrong with it. Paths are relative to the folder, made printable."""

    counts: Mapping[str, Mapping[str, int]]  # part → class → pictures
    heights: tuple[int, int, int]  # least, median, most
    widths: tuple[int, int, int]
    bad: tuple[tuple[str, str], ...]  # (file, cause)
    ignored: int  # files that are no pictures by name
    duplicates: tuple[tuple[str, ...], ...]  # files with the same bytes
    equal: tuple[tuple[str, ...], ...]  # other files, same pixels
    conflicts: tuple[tuple[str, ...], ...]  # same pixels, different labels
    leaks: tuple[tuple[str, ...], ...]  # same pixels in two parts of a ready-made split

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "counts": {part: dict(classes) for part, classes in self.counts.items()},
            "heights": dict(zip(("min", "median", "max"), self.heights, strict=True)),
            "widths": dict(zip(("min", "median", "max"), self.widths, strict=True)),
            "bad": [{"file": file, "cause": cause} for file, cause in self.bad],
            "ignored": self.ignored,
            "duplicates": [list(group) for group in self.duplicates],
            "equal": [list(group) for group in self.equal],
            "conflicts": [list(group) for group in self.conflicts],
            "leaks": [list(group) for group in self.leaks],
        }


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures, split, with one audit. Pixels are read when asked for."""

    root: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    audit: Audit
    task: str = "classify"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over contents, labels and parts: the same wherever the folder lies and whatever its files
        are called.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        for line in sorted(f"{item.part} {item.label} {item.sha256}" for item in self.items):
            digest.update(line.encode())
        return digest.hexdigest()[:16]

    def part(self, name: str) -> tuple[Item, ...]:
        """The items of one part.

        Raises:
            DataError: the dataset has no such part.
        """
        items = tuple(item for item in self.items if item.part == name)
        if not items:
            raise DataError(f"{display(self.root)} has no part {name!r}; it has: {', '.join(self.audit.counts)}")
        return items

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that hold pictures, in the order train, val, test."""
        present = {item.part for item in self.items}
        return tuple(name for name in PARTS if name in present)

    @property
    def median_side(self) -> int:
        """The median of the pictures' shorter sides, in pixels."""
        return int(statistics.median(min(item.height, item.width) for item in self.items))


@dataclass(frozen=True)
class PixelCache:
    """Every picture of a folder at one size, decoded once: (n, height, width, 3), in memory or in a mapped file."""

    height: int
    width: int
    rows: Mapping[Path, int]
    pixels: Pixels

    def take(self, items: Sequence[Item]) -> Pixels:
        """The items' pixels, (len(items), height, width, 3); no copy where they lie together."""
        rows = np.array([self.rows[item.path] for item in items], dtype=np.intp)
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            together: Pixels = self.pixels[rows[0] : rows[0] + len(rows)]
            return together
        chosen: Pixels = self.pixels[rows]
        return chosen


def read_dataset(folder: str | Path, split: Split | None = None) -> Dataset:
    """Find, fully decode and split the pictures of a folder.

    Raises:
        DataError: no such folder or one that cannot be listed, parts beside other folders, no pictures, more than
            5 % bad, an empty class, too few different pictures in one, or fewer than two classes.
    """
    return scan(folder, split, None)[0]


def read_dataset_cached(
    folder: str | Path, height: int, width: int, split: Split | None = None, rule: str = "stretch"
) -> tuple[Dataset, PixelCache]:
    """As `read_dataset`, and keep every picture at one size, by a rule of `image.resize`, out of the same decoding.

    Raises:
        DataError: as `read_dataset`.
    """
    dataset, cache = scan(folder, split, (height, width), rule)
    if cache is None:
        raise AssertionError("scan was given a size")
    return dataset, cache


def load_pixels(
    items: Sequence[Item], height: int, width: int, label: str = "decoding", rule: str = "stretch"
) -> PixelCache:
    """Decode items into a cache of one size, by a rule of `image.resize`.

    Raises:
        DataError: a file has changed or vanished since the scan.
    """
    pixels = allocate(len(items), height, width)

    def fill(row: int) -> None:
        try:
            pixels[row] = resize(decode(read_bytes(items[row].path)), height, width, rule)
        except ImageError as error:
            raise DataError(
                f"{display(items[row].path)} changed since the scan: {error}. Scan the data anew"
            ) from error

    for _ in track(_in_threads(fill, range(len(items))), label, len(items)):
        pass
    return PixelCache(height, width, {item.path: row for row, item in enumerate(items)}, pixels)


def labels(items: Sequence[Item]) -> NDArray[np.int64]:
    """The items' labels, (n,)."""
    return np.array([item.label for item in items], dtype=np.int64)


def targets(items: Sequence[Item]) -> list[Any]:
    """What is true of each item, as plain values for JSON: its label, or its boxes."""
    return [item.label if item.boxes is None else item.boxes.as_dict() for item in items]


def labelled(items: Sequence[Item], height: int, width: int, rule: str = "stretch") -> tuple[Pixels, NDArray[np.int64]]:
    """Pixels (n, h, w, 3) and labels (n,) of items; as `load_pixels`."""
    return load_pixels(items, height, width, rule=rule).take(items), labels(items)


def display(path: str | Path) -> str:
    """A path that can always be printed: bytes that are no UTF-8, and control characters, are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def allocate(count: int, height: int, width: int) -> Pixels:
    """Room for `count` pictures: in memory, or in an unnamed mapped file where it would take over a quarter of it."""
    size = count * height * width * 3
    if size <= MEMORY_SHARE * (this_device().memory_bytes or 2**32):
        return np.empty((count, height, width, 3), np.uint8)
    with tempfile.TemporaryFile(prefix="featherweight-") as file:  # the mapping keeps it alive, the name is gone
        return np.memmap(file, np.uint8, "w+", shape=(count, height, width, 3))


# ---------------------------------------------------------------------------------------------------- the scan


@dataclass(frozen=True)
class _Found:
    """A file that is a picture by its name, before it was opened."""

    path: Path
    class_name: str
    part: str | None


@dataclass(frozen=True)
class _Seen:
    """What the scan learnt of one file."""

    found: _Found
    sha256: str
    pixels_sha256: str
    height: int
    width: int


def scan(
    folder: str | Path, split: Split | None, size: tuple[int, int] | None, rule: str = "stretch"
) -> tuple[Dataset, PixelCache | None]:
    """The work behind `read_dataset` and `read_dataset_cached`: one pass, every file decoded once, in parallel."""
    root = Path(folder)
    classes, found, ignored = _find(root)
    pixels = None if size is None else allocate(len(found), *size)

    def look(row: int) -> _Seen | str:
        try:
            data = read_bytes(found[row].path)
            image = decode(data)
        except ImageError as error:
            return str(error)
        if size is not None and pixels is not None:
            pixels[row] = resize(image, *size, rule)
        height, width = image.shape[:2]
        pixel_hash = hashlib.sha256(f"{height} {width} ".encode())
        pixel_hash.update(np.ascontiguousarray(image).data)  # no second copy of a large picture
        return _Seen(found[row], hashlib.sha256(data).hexdigest(), pixel_hash.hexdigest(), height, width)

    looked = list(track(_in_threads(look, range(len(found))), "scanning pictures", len(found)))
    seen = [result for result in looked if isinstance(result, _Seen)]
    bad = [(_relative(f.path, root), r) for f, r in zip(found, looked, strict=True) if isinstance(r, str)]
    _check_usable(root, classes, seen, bad, len(found))
    dataset = _assemble(root, classes, seen, tuple(bad), ignored, split or Split())
    if size is None or pixels is None:
        return dataset, None
    return dataset, PixelCache(*size, {file.path: row for row, file in enumerate(found)}, pixels)


def _find(root: Path) -> tuple[tuple[str, ...], list[_Found], int]:
    """(classes, picture files in a stable order, how many files are no pictures by name)."""
    if not root.exists():
        raise DataError(f"no folder {display(root)}; wanted DIR/class/*.jpg or DIR/{{train,val,test}}/class/*.jpg")
    if not root.is_dir():
        raise DataError(f"{display(root)} is a file; wanted the folder that holds a folder for each class")
    folders = _subfolders(root)
    given = {PART_NAMES[f.name.lower()]: f for f in folders if f.name.lower() in PART_NAMES}
    ready_made = "train" in given and len(given) > 1
    if ready_made and len(given) < len(folders):
        others = ", ".join(display(folder.name) for folder in folders if folder not in given.values())
        raise DataError(
            f"{display(root)} has parts ({', '.join(sorted(given))}) and beside them: {others}; wanted either one "
            "folder for each part or one for each class"
        )
    sources: dict[str | None, Path] = {part: given[part] for part in given} if ready_made else {None: root}
    files: list[_Found] = []
    classes: set[str] = set()
    ignored = 0
    for part, source in sources.items():
        for class_folder in _subfolders(source):
            classes.add(class_folder.name)
            for path in sorted(_walk(class_folder), key=os.fsencode):
                if path.suffix.lower() in SUFFIXES | OTHER_SUFFIXES and not path.name.startswith("."):
                    files.append(_Found(path, class_folder.name, part))
                else:
                    ignored += 1
    if len(classes) < 2:
        what = f"only the class {display(next(iter(classes)))!r}" if classes else "no folder of a class"
        raise DataError(f"{display(root)} has {what}; wanted a folder with pictures for each of at least two classes")
    if not files:
        raise DataError(f"no pictures in {display(root)}; wanted JPEG, PNG, BMP, WebP or GIF files in class folders")
    return tuple(sorted(classes)), files, ignored


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=os.fsencode)
    except OSError as error:
        raise DataError(f"cannot list {display(folder)}: {error.strerror}") from error


def _walk(folder: Path) -> Iterable[Path]:
    def stop(error: OSError) -> None:  # without it, a folder that cannot be listed would count as empty
        raise DataError(f"cannot list {display(error.filename)}: {error.strerror}") from error

    for parent, _, names in os.walk(folder, onerror=stop):  # does not follow links to folders: those can form a loop
        for name in names:
            yield Path(parent, name)


def _in_threads(function: Callable[[int], Any], rows: Sequence[int]) -> Iterator[Any]:
    """Results in order; the decoders let go of the interpreter lock, so threads do run side by side."""
    pool = ThreadPoolExecutor(available_cores())
    try:
        yield from pool.map(function, rows)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the pictures still in the queue


def _check_usable(
    root: Path, classes: tuple[str, ...], seen: list[_Seen], bad: list[tuple[str, str]], total: int
) -> None:
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


def _assemble(
    root: Path,
    classes: tuple[str, ...],
    seen: list[_Seen],
    bad: tuple[tuple[str, str], ...],
    ignored: int,
    split: Split,
) -> Dataset:
    groups: dict[str, list[_Seen]] = defaultdict(list)
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


def _parts(root: Path, groups: dict[str, list[_Seen]], split: Split) -> dict[str, str]:
    """Pixel hash → part, by the rule in the module's docstring.

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
        return tuple(tuple(_relative(item.path, root) for item in group) for group in groups)

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


def _relative(path: Path, root: Path) -> str:
    return display(path.relative_to(root))
