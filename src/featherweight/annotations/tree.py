"""The files of a folder by their names: which label file is for which picture, and in which part it stands.

Imports errors.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from featherweight.errors import LabelError, display

PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
ORDER = ("train", "val", "test")
# Folders that say what kind of files they hold; `train/images/a.jpg` and `train/labels/a.txt` are otherwise alike.
KINDS = frozenset(
    "images image imgs img jpegimages pictures labels label annotations annotation xml xmls txt".split()  # noqa: SIM905
)
MAX_BOXES = 10_000  # a picture
MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Tree:
    """What stands in a folder, by name only."""

    root: Path
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]  # files that are no pictures
    classes: bool = False  # the folders read as classes too, so that labels count only where nothing else can be meant

    def folders(self, path: Path) -> tuple[str, ...]:
        """The names of the folders from the root to a file."""
        return path.relative_to(self.root).parts[:-1]

    def show(self, path: Path) -> str:
        """A file as messages name it."""
        return display(path.relative_to(self.root))

    def place(self, path: Path) -> tuple[tuple[str, ...], str]:
        """Where a file stands and how it is called, without what tells pictures from labels."""
        return tuple(name for name in self.folders(path) if name.lower() not in KINDS), path.stem


@dataclass(frozen=True)
class Pairs:
    """Pictures and the label files that are for them."""

    files: Mapping[Path, Path | str]  # picture → its label file, or why that cannot be told
    unlabelled: tuple[Path, ...]
    unused: tuple[Path, ...]  # label files without a picture


def pair(tree: Tree, files: Sequence[Path]) -> Pairs:
    """Which label file is for which picture: the one of the same name in the same place, kinds of folders aside;
    else, of those that are in no picture's place, the one of the same name where one place lies within the other.
    """
    by_place, by_stem = defaultdict(list), defaultdict(list)
    placed = {tree.place(picture) for picture in tree.pictures}
    for file in files:
        by_place[tree.place(file)].append(file)
        if tree.place(file) not in placed:
            by_stem[file.stem].append(file)
    chosen: dict[Path, list[Path]] = {}
    for picture in tree.pictures:
        near = [file for file in by_stem[picture.stem] if _within(tree.place(picture)[0], tree.place(file)[0])]
        chosen[picture] = by_place.get(tree.place(picture)) or near
    fit: dict[Path, list[Path]] = defaultdict(list)
    for picture, found in chosen.items():
        for file in found:
            fit[file].append(picture)
    told: dict[Path, Path | str] = {}
    for picture, found in chosen.items():
        if len(found) == 1 and len(fit[found[0]]) == 1:
            told[picture] = found[0]
        elif found:
            told[picture] = _unclear(tree, found, fit)
    unlabelled = tuple(picture for picture, found in chosen.items() if not found)
    return Pairs(told, unlabelled, tuple(file for file in files if file not in fit))


def _within(one: Sequence[str], other: Sequence[str]) -> bool:
    return set(one) <= set(other) or set(other) <= set(one)


def _unclear(tree: Tree, found: list[Path], fit: Mapping[Path, list[Path]]) -> str:
    if len(found) > 1:
        return f"{len(found)} label files are for it: {', '.join(map(tree.show, found))}"
    return f"{tree.show(found[0])} is for {len(fit[found[0]])} pictures: {', '.join(map(tree.show, fit[found[0]]))}"


def part_of(names: Iterable[str]) -> str | None:
    """The part that the first of some names speaks of: `val` for `instances_val2017` or `valid`."""
    for name in names:
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in PART_NAMES:
                return PART_NAMES[word]
    return None


def by_name(pictures: Iterable[Path]) -> dict[str, list[Path]]:
    """File name → the pictures of that name."""
    found: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        found[picture.name].append(picture)
    return found


def ending(named: Mapping[str, Sequence[Path]], written: str) -> list[Path]:
    """The pictures that a path in a file can mean, which was written on somebody's machine: those of its name whose
    folders agree with the most of its last folders. Nothing is ever opened by such a path.
    """
    pieces = PurePosixPath(written.replace("\\", "/")).parts
    candidates = named.get(pieces[-1], ()) if pieces else ()

    def agreement(picture: Path) -> int:
        pairs = zip(reversed(picture.parts), reversed(pieces), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(agreement, candidates), default=0)
    return [picture for picture in candidates if agreement(picture) == most]


def settle(parts: Mapping[Path, str | None]) -> dict[Path, str | None]:
    """The files with parts where those are a split; all, without one, where they are to be split here: one part alone
    is none.
    """
    if len(set(parts.values()) - {None}) < 2:
        return dict.fromkeys(parts)
    return {file: part for file, part in parts.items() if part is not None}


def dealt(named: Iterable[tuple[str, Path]]) -> dict[Path, str | None]:
    """Picture → part, of pairs from lists. Of a picture in two lists val takes it from train, and test from both, so
    that nothing is trained on that is tested on.
    """
    parts: dict[Path, str | None] = {}
    for part, picture in sorted(named, key=lambda pair: ORDER.index(pair[0])):
        parts[picture] = part
    return parts


def read_start(path: Path, count: int = 4096) -> bytes:
    """The first bytes of a label file.

    Raises:
        LabelError: not a regular file, or not readable.
    """
    try:
        if not path.is_file():
            raise LabelError("not a regular file")
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise LabelError(error.strerror or str(error)) from error


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a label file.

    Raises:
        LabelError: not a regular file, not readable, or over `limit` bytes.
    """
    try:
        if not path.is_file():  # a pipe would block for ever
            raise LabelError("not a regular file" if path.exists() else "no such file")
        size = path.stat().st_size
        if size > limit:
            raise LabelError(f"{size:,} bytes; at most {limit:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise LabelError(error.strerror or str(error)) from error


def read_lines(path: Path, limit: int) -> list[str]:
    """The lines of a text file, without spaces at their ends.

    Raises:
        LabelError: as `read_file`, or the file is no UTF-8 text.
    """
    try:
        text = read_file(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"no UTF-8 text at byte {error.start}") from error
    if "\0" in text:
        raise LabelError("no text: it holds zero bytes")
    return [line.strip() for line in text.split("\n")]
