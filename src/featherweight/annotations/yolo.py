"""YOLO: a text file a picture, a line a box: class index, centre x, centre y, width, height in shares of the picture.

Darknet's own format (Redmon, 2016). A line of a class and at least three points is an outline, and its box is taken.
An empty file says that the picture shows nothing. Names come from data.yaml (or another YAML file with `names`),
*.names, classes.txt or labels.txt; without any of them a class is called by its index. Parts come from lists
(train.txt, val.txt, test.txt), from what data.yaml says, or from the folders' names. Imports errors, progress and the
folder's own files.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from featherweight.annotations.labels import Labelled, Labels, Marked, Marks, marks
from featherweight.annotations.settings import Settings, read_settings
from featherweight.annotations.tree import (
    MAX_BOXES,
    MAX_CLASSES,
    PART_NAMES,
    Tree,
    by_name,
    dealt,
    ending,
    pair,
    part_of,
    read_file,
    read_lines,
    settle,
)  # fmt: skip
from featherweight.errors import DataError, LabelError, display
from featherweight.progress import track

MAX_BYTES = 4 * 2**20
MAX_LIST_BYTES = 64 * 2**20
Told = TypeVar("Told")
NAMES = frozenset(["classes.txt", "labels.txt", "predefined_classes.txt"])
LISTS = frozenset(f"{name}.txt" for name in (*PART_NAMES, "trainval"))


def find(tree: Tree) -> tuple[Path, ...]:
    """The label files, if the folder is of this format."""
    if tree.classes and not any(_names_file(file) for file in tree.others if file.parent == tree.root):
        return ()
    stems = {picture.stem for picture in tree.pictures}
    files = [file for file in tree.others if file.suffix.lower() == ".txt" and not _is_other(file, stems)]
    in_labels = [file for file in files if "labels" in (name.lower() for name in tree.folders(file))]
    files = in_labels or [file for file in files if file.stem in stems]
    return tuple(files) if any(map(_is_labels, files[:50])) else ()


def read(tree: Tree, files: tuple[Path, ...]) -> Labels:
    """The labels of a folder of this format.

    Raises:
        DataError: the names or lists cannot be read.
    """
    settings, names = _settings(tree)
    pairs = pair(tree, files)
    parts, missing = _parts(tree, settings)
    pictures = []
    labelled = [picture for picture in tree.pictures if picture in pairs.files and picture in parts]
    for picture in track(labelled, "reading labels", len(labelled)):
        file = pairs.files[picture]
        found = file if isinstance(file, str) else _read_named(tree, file, names)
        pictures.append(Labelled(picture, parts[picture], found))
    missing += [tree.show(file) for file in pairs.unused]
    partless = tuple(picture for picture in tree.pictures if picture not in parts)
    unlabelled = tuple(picture for picture in pairs.unlabelled if picture in parts)
    classes = names if names is not None else _indices(pictures)
    return Labels("yolo", classes, tuple(pictures), unlabelled, tuple(missing), partless)


def read_marks(lines: Sequence[str], names: Sequence[str] | None) -> Marks:
    """The boxes of one file; without names the classes are called by their indices.

    Raises:
        LabelError: a line that is no box and no outline, or too many lines.
    """
    boxes: list[Marked] = []
    left_out: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        if len(boxes) + len(left_out) >= MAX_BOXES:
            raise LabelError(f"over {MAX_BOXES:,} lines, the most that are read")
        words = line.split()
        if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
            raise LabelError(f"line {number} has {len(words)} values; wanted a class, and x, y, width and height")
        try:
            index, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise LabelError(f"line {number} has values that are no numbers: {display(line[:40])}") from None
        known = MAX_CLASSES if names is None else len(names)
        if not index.is_integer() or not 0 <= index < known:
            left_out.append(f"line {number}: the unknown class {display(words[0][:20])}; known: 0 to {known - 1}")
            continue
        name = str(int(index)) if names is None else names[int(index)]
        boxes.append(Marked(name, *(_corners(values) if len(values) == 4 else _around(values))))
    return marks(boxes, left_out, shares=True)


def _corners(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _around(points: Sequence[float]) -> tuple[float, float, float, float]:
    """The box around an outline; a point that is no number makes a box that is none."""
    if not all(map(math.isfinite, points)):
        return (math.nan,) * 4
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _indices(pictures: Iterable[Labelled]) -> tuple[str, ...]:
    used = [int(name) for one in pictures if isinstance(one.marks, Marks) for name in one.marks.names]
    return tuple(map(str, range(max(used, default=-1) + 1)))


def _is_labels(file: Path) -> bool:
    try:
        lines = read_lines(file, MAX_BYTES)
        return read_marks(lines, None) is not None and (any(lines) or "labels" in map(str.lower, file.parts))
    except LabelError:
        return False


def _names_file(file: Path) -> bool:
    return file.name.lower() in NAMES or file.suffix.lower() in (".names", ".yaml", ".yml")


def _is_other(file: Path, stems: set[str]) -> bool:
    """Whether a text file is no label file by its name; a picture may well be called `test`."""
    name = file.name.lower()
    return name in NAMES or (name in LISTS and file.stem not in stems) or name.startswith("readme")


def _read_named(tree: Tree, file: Path, names: Sequence[str] | None) -> Marks | str:
    try:
        return read_marks(read_lines(file, MAX_BYTES), names)
    except LabelError as error:
        return f"its labels {tree.show(file)}: {error}"


def _settings(tree: Tree) -> tuple[Settings, tuple[str, ...] | None]:
    """(what data.yaml says of parts, the names of the classes or None)."""
    near = sorted((file for file in tree.others if _names_file(file)), key=lambda file: (len(file.parts), str(file)))
    near = [file for file in near if len(tree.folders(file)) <= 2]
    for file in (file for file in near if file.suffix.lower() in (".yaml", ".yml")):
        settings = _told(tree, file, lambda file: read_settings(read_file(file, MAX_BYTES)))
        if settings.names:
            return settings, _checked(tree, file, settings.names)
    plain = [file for file in near if file.suffix.lower() in (".names", ".txt")]
    for file in sorted(plain, key=lambda file: file.suffix.lower()):  # *.names is before *.txt
        lines = _told(tree, file, lambda file: read_lines(file, MAX_BYTES))
        while lines and not lines[-1]:
            lines.pop()
        if lines:
            return Settings(), _checked(tree, file, tuple(lines))
    return Settings(), None


def _parts(tree: Tree, settings: Settings) -> tuple[dict[Path, str | None], list[str]]:
    """(picture → part, paths in the lists that no picture has): by lists, by what data.yaml says, or by folders."""
    lists = _lists(tree, settings)
    if lists:
        named = by_name(tree.pictures)
        lines = [(part, file, line) for part, file in lists for line in _list(tree, file)]
        meant = [(part, file, line, ending(named, line)) for part, file, line in lines]
        missing = [f"{display(line)} in {tree.show(file)}" for _, file, line, found in meant if len(found) != 1]
        return settle(dealt((part, found[0]) for part, _, _, found in meant if len(found) == 1)), missing
    by_folder = {picture: part_of(tree.folders(picture)) for picture in tree.pictures}
    if settings.parts and len(set(settings.parts.values())) == len(settings.parts):
        pairs = ((part, one) for one in tree.pictures for part in settings.parts if _within(tree, one, settings, part))
        told = dealt(pairs)
        if "train" in told.values():  # a part that it does not speak of may be there all the same
            return settle({one: part for one, part in by_folder.items() if part not in settings.parts} | told), []
    return settle(by_folder), []


def _lists(tree: Tree, settings: Settings) -> list[tuple[str, Path]]:
    """(part, file) of the lists of pictures that name at least one of ours."""
    written = {PurePosixPath(place).name: part for part, places in settings.parts.items() for place in places}
    named = by_name(tree.pictures)
    found = []
    for file in (one for one in tree.others if one.suffix.lower() == ".txt" and len(tree.folders(one)) <= 2):
        part = written.get(file.name) or (part_of([file.stem]) if file.name.lower() in LISTS else None)
        if part is not None and any(ending(named, line) for line in _list(tree, file)[:100]):
            found.append((part, file))
    return found


def _list(tree: Tree, file: Path) -> list[str]:
    try:
        return list(filter(None, read_lines(file, MAX_LIST_BYTES)))
    except LabelError as error:
        raise DataError(f"{tree.show(file)}: {error}; wanted a path of a picture a line") from error


def _within(tree: Tree, picture: Path, settings: Settings, part: str) -> bool:
    """Whether a picture lies in a folder of a part: some end of the written path is where the picture's begins."""
    folders = tree.folders(picture)
    for place in settings.parts[part]:
        pieces = tuple(one for one in PurePosixPath(place.replace("\\", "/")).parts if one not in ("/", ".", ".."))
        if any(folders[: len(pieces) - start] == pieces[start:] for start in range(len(pieces))):
            return True
    return False


def _told(tree: Tree, file: Path, reader: Callable[[Path], Told]) -> Told:
    try:
        return reader(file)
    except LabelError as error:
        raise DataError(f"{tree.show(file)}: {error}; wanted the names of the classes") from error


def _checked(tree: Tree, file: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > MAX_CLASSES:
        raise DataError(f"{tree.show(file)} names {len(names):,} classes; at most {MAX_CLASSES:,} are read")
    for name, count in Counter(names).items():
        if not name or count > 1:
            what = f"{count} classes are called {display(name)!r}" if name else "a class without a name"
            raise DataError(f"{tree.show(file)}: {what}; wanted names that differ")
    return names
