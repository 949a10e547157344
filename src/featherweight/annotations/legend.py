"""What the numbers or colours of masks stand for: a file of names, of names and values, or of names and colours.

    legend.csv   name,r,g,b   or   name,value   (columns in any order where a first line names them)
    legend.txt   64 128 64 Animal   or   Animal: 64,128,64   (label_colors.txt, labelmap.txt, class_dict.csv)
    legend.json  {"Animal": [64, 128, 64]}, {"0": "background"}, {"road": 1}, ["background", "road"], …
    classes.txt  a name a line, from value 0 on; what stands behind an empty line is a remark

A class called ignore, void or unlabelled is not asked for. Imports errors and the folder's own files.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.annotations.tree import Tree, part_of, read_file
from featherweight.errors import DataError, LabelError, display

MAX_BYTES = 2**20
MOST_LINES = 4096
# By preference; a file of colours says more than one of names.
FILES = (
    "legend.csv", "legend.json", "legend.txt", "class_dict.csv", "label_colors.txt", "labelmap.txt", "colormap.csv",
    "classes.csv", "classes.json", "labels.json", "classes.txt", "labels.txt", "classes.names",
)  # fmt: skip
IGNORED = frozenset(["ignore", "ignored", "void", "unlabelled", "unlabeled"])
GROUND = frozenset(["background", "_background_", "bg"])
_COLUMNS = {
    "name": "name", "class": "name", "label": "name", "class_name": "name", "r": "r", "red": "r", "g": "g",
    "green": "g", "b": "b", "blue": "b", "value": "value", "index": "value", "id": "value", "class_id": "value",
}  # fmt: skip
_GAP = r"[\s,;]+"
_LINES = (  # in the order in which they are tried; each line of a file has the same form
    ("colour", re.compile(rf"(?P<r>\d+){_GAP}(?P<g>\d+){_GAP}(?P<b>\d+){_GAP}(?P<name>\D.*)")),
    ("colour", re.compile(rf"(?P<name>.+?)(?:\s*:\s*|{_GAP})(?P<r>\d+){_GAP}(?P<g>\d+){_GAP}(?P<b>\d+)(?::.*)?")),
    ("value", re.compile(r"(?P<value>\d+)[\s,;:]+(?P<name>\D.*)")),
    ("value", re.compile(r"(?P<name>.+?)\s*[,;:\t]\s*(?P<value>\d+)")),
    ("name", re.compile(r"(?P<name>.+)")),
)


@dataclass(frozen=True)
class Entry:
    """A class by its name, with its value or colour where the file says so."""

    name: str
    value: int | None = None
    colour: tuple[int, int, int] | None = None

    @property
    def ground(self) -> bool:
        """Whether it is what is behind all others."""
        return self.name.lower() in GROUND

    @property
    def ignored(self) -> bool:
        """Whether pixels of it are not asked for."""
        return self.name.lower() in IGNORED


@dataclass(frozen=True)
class Legend:
    """What a file says of the classes of masks, in its order."""

    entries: tuple[Entry, ...]
    file: str  # printable

    @property
    def coloured(self) -> bool:
        """Whether each class has a colour."""
        return all(one.colour is not None for one in self.entries)

    @property
    def valued(self) -> bool:
        """Whether each class has a value."""
        return all(one.value is not None for one in self.entries)


def find(tree: Tree) -> Legend | None:
    """The legend of a folder: at its top, or at most two folders below.

    Raises:
        DataError: it cannot be read, or two files of a kind are there.
    """
    near = [file for file in tree.others if len(tree.folders(file)) <= 2]
    for name in FILES:
        files = sorted((file for file in near if file.name.lower() == name), key=lambda file: len(file.parts))
        if files:
            return _told(tree, files[0])
    files = [file for file in near if re.fullmatch(r".*[_-](labels|classes|legend)\.(txt|csv|json)", file.name.lower())]
    files = [file for file in files if part_of([file.stem]) is None]
    if len(files) > 1:
        raise DataError(
            f"{' and '.join(map(tree.show, files[:3]))} in {display(tree.root)} could both name the classes of its "
            "masks; wanted one, called legend.csv or classes.txt"
        )
    return _told(tree, files[0]) if files else None


def read(data: bytes, suffix: str) -> tuple[Entry, ...]:
    """The classes of one file, in its order.

    Raises:
        LabelError: in none of the forms above, a name twice, two classes with one value or colour, or numbers that
            are none of 0 to 255.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"no UTF-8 text at byte {error.start}") from error
    if "\0" in text:
        raise LabelError("no text: it holds zero bytes")
    entries = _from_json(text) if suffix == ".json" else _from_lines(text)
    if not entries or len(entries) > MOST_LINES:
        raise LabelError(f"{len(entries)} classes")
    _check(entries)
    return tuple(entries)


def _told(tree: Tree, file: Path) -> Legend:
    try:
        return Legend(read(read_file(file, MAX_BYTES), file.suffix.lower()), tree.show(file))
    except LabelError as error:
        raise DataError(f"{tree.show(file)}: {error}; wanted the classes of masks, as name,r,g,b lines") from error


def _from_lines(text: str) -> list[Entry]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if not line.startswith(("#", "//"))]
    while lines and not lines[0]:
        lines.pop(0)
    if "" in lines and not any(_LINES[number][1].fullmatch(lines[0]) for number in range(4)):
        lines = lines[: lines.index("")]
    lines = [line for line in lines if line][: MOST_LINES + 1]
    if not lines:
        return []
    head = _head(lines[0])
    if head is not None:
        return _from_table(lines[1:], *head)
    for form, pattern in _LINES:
        matches = [pattern.fullmatch(line) for line in lines]
        if all(matches):
            fields = [match.groupdict() for match in matches if match]
            return [_entry(one["name"].strip().strip('"'), form, one) for one in fields]
    raise LabelError("an empty name")


def _head(line: str) -> tuple[str, dict[str, int]] | None:
    """(what separates, column → its place), if a line names columns."""
    for mark in (",", ";", "\t"):
        cells = [cell.strip().strip('"').lower() for cell in line.split(mark)]
        places = {_COLUMNS[cell]: place for place, cell in reversed(list(enumerate(cells))) if cell in _COLUMNS}
        if "name" in places and ({"r", "g", "b"} <= set(places) or "value" in places):
            return mark, places
    return None


def _from_table(lines: Sequence[str], mark: str, places: Mapping[str, int]) -> list[Entry]:
    entries = []
    try:
        rows = list(csv.reader(lines, delimiter=mark))
    except csv.Error as error:
        raise LabelError(f"no table: {error}") from error
    for number, row in enumerate(rows, 2):
        if len(row) <= max(places.values()):
            raise LabelError(f"line {number} has {len(row)} columns; wanted {max(places.values()) + 1}")
        cells = {column: row[place].strip() for column, place in places.items()}
        colour = _colour([cells[one] for one in "rgb"]) if {"r", "g", "b"} <= set(cells) else None
        entries.append(Entry(cells["name"], _number(cells["value"]) if "value" in cells else None, colour))
    return entries


def _entry(name: str, form: str, fields: Mapping[str, str]) -> Entry:
    if form == "colour":
        return Entry(name, None, _colour([fields[one] for one in "rgb"]))
    return Entry(name, _number(fields["value"]) if form == "value" else None)


def _from_json(text: str) -> list[Entry]:
    try:
        plain = json.loads(text)
    except RecursionError as error:
        raise LabelError("JSON that is nested too deep") from error
    except ValueError as error:
        raise LabelError(f"no JSON: {error}") from error
    if isinstance(plain, dict) and isinstance(plain.get("classes"), list | dict):
        plain = plain["classes"]
    if isinstance(plain, dict):
        return [_of_pair(key, value) for key, value in plain.items()]
    if isinstance(plain, list):
        return [Entry(one) if isinstance(one, str) else _of_object(one) for one in plain]
    raise LabelError("JSON that is no list and no object")


def _of_pair(key: str, value: Any) -> Entry:
    if isinstance(value, str):
        return Entry(value, _number(key))
    return Entry(key, None, _colour(value)) if isinstance(value, list) else Entry(key, _number(value))


def _of_object(one: Any) -> Entry:
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise LabelError("an entry without a name")
    colour = next((one[key] for key in ("color", "colour", "rgb") if key in one), None)
    value = next((one[key] for key in ("value", "id", "index") if key in one), None)
    return Entry(one["name"], None if value is None else _number(value), None if colour is None else _colour(colour))


def _colour(cells: Any) -> tuple[int, int, int]:
    if not isinstance(cells, list) or len(cells) != 3:
        raise LabelError("a colour that is no three numbers")
    red, green, blue = map(_number, cells)
    return red, green, blue


def _number(cell: Any) -> int:
    digits = str(cell).strip()
    fine = digits.isascii() and digits.isdecimal() and len(digits) < 9 and int(digits) <= 255
    if isinstance(cell, bool) or not fine:
        raise LabelError(f"{display(digits[:20])!r} where a number of 0 to 255 belongs")
    return int(digits)


def _check(entries: Sequence[Entry]) -> None:
    for what, found in (
        ("are called", [one.name for one in entries]),
        ("have the value", [one.value for one in entries if one.value is not None]),
        ("have the colour", [one.colour for one in entries if one.colour is not None]),
    ):
        if len(set(found)) < len(found):
            twice = next(one for one in found if found.count(one) > 1)  # type: ignore[arg-type]
            raise LabelError(f"two classes {what} {display(str(twice))}")
    if not all(one.name for one in entries):
        raise LabelError("a class without a name")
