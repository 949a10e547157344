"""COCO: one JSON file for many pictures, with `images`, `annotations` and `categories`; one file a part, or one in all.

A box is [left, top, width, height] in pixels from the picture's edge (the format's own page, cocodataset.org,
"Data format"): corners are sums, and nothing is shifted. `iscrowd` marks a box around many things: it is `hard`.
The part is told by the file's name (`instances_val2017.json`) or by its folder's (`valid/_annotations.coco.json`).

Pictures are only looked for among the files of the folder, never opened by a path out of the JSON. Files over
`MAX_BYTES` or with more lists and objects than any real set has are refused before they are parsed, and masks are let
go of while parsing. Imports errors and the folder's own files.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from featherweight.annotations.labels import Labelled, Labels, Marked, Marks, marks
from featherweight.annotations.tree import (
    KINDS,
    MAX_BOXES,
    MAX_CLASSES,
    Tree,
    by_name,
    ending,
    part_of,
    read_file,
    read_start,
    settle,
)  # fmt: skip
from featherweight.errors import DataError, LabelError, display

MAX_BYTES = 512 * 2**20  # the 118,287 pictures of COCO's train2017 take 448 MB
MAX_PARTS = 20_000_000  # lists and objects in all; train2017 has about 5 million
MOST_FILES = 64  # more JSON files than this are one a picture, which is another format
START_BYTES = 65_536
M = TypeVar("M")
T = TypeVar("T")
NOT_BOXES = ("segmentation", "keypoints", "caption")


@dataclass(frozen=True)
class Image(Generic[M]):
    """A picture by the JSON's words."""

    name: str
    marks: M  # its boxes, or what else is read of its annotations


@dataclass(frozen=True)
class Document(Generic[M]):
    """What one JSON file says."""

    images: tuple[Image[M], ...]
    classes: tuple[str, ...]  # by category id
    astray: tuple[str, ...]  # annotations of pictures that the file does not have


def find(tree: Tree) -> tuple[Path, ...]:
    """The label files, if the folder is of this format."""
    files = [file for file in tree.others if file.suffix.lower() == ".json" and _placed(tree, file)]
    if len(files) > MOST_FILES:
        return ()
    files = [file for file in files if _is_coco(file)]
    named = [file for file in files if file.stem.lower().startswith("instances")]
    return tuple(named or files)


def read(tree: Tree, files: tuple[Path, ...]) -> Labels:
    """The labels of a folder of this format.

    Raises:
        DataError: a file that cannot be read, two for one part, or files with other categories.
    """
    classes, found, missing = arranged(tree, files, read_document)
    pictures = tuple(Labelled(*found[picture]) for picture in tree.pictures if picture in found)
    unlabelled = tuple(picture for picture in tree.pictures if picture not in found)
    return Labels("coco", classes, pictures, unlabelled, missing, ())


def arranged(
    tree: Tree, files: tuple[Path, ...], reader: Callable[[bytes], Document[M]]
) -> tuple[tuple[str, ...], dict[Path, tuple[Path, str | None, M]], tuple[str, ...]]:
    """(the classes, picture → (itself, its part, what `reader` found of it), what no picture is there for).

    Raises:
        DataError: as `read`.
    """
    documents = {file: _read_named(tree, file, reader) for file in files}
    parts = settle({file: part_of([file.stem, *reversed(tree.folders(file))]) for file in files})
    for file in files:
        others = [other for other in files if other != file and parts.get(other) == parts.get(file)]
        if others or file not in parts:
            what = f"{tree.show(file)} is for no part"
            if others:
                part = parts.get(file)
                what = f"{tree.show(file)} and {tree.show(others[0])} are both for {part or 'one set'}"
            raise DataError(f"{what}; wanted one COCO file for each of train, val and test, or one in all")
    classes = {document.classes for document in documents.values()}
    if len(classes) > 1:
        raise DataError(f"{' and '.join(map(tree.show, files))} have other categories; wanted the same in each")
    named = by_name(tree.pictures)
    found: dict[Path, tuple[Path, str | None, M]] = {}
    missing: list[str] = []
    for file in sorted(files, key=lambda file: parts[file] or ""):
        missing += [f"{astray} in {tree.show(file)}" for astray in documents[file].astray]
        for image in documents[file].images:
            picture = _picture(tree, file, image.name, named)
            if picture is None or picture in found:
                again = "" if picture is None else ", which has labels already,"
                missing.append(f"{display(image.name)}{again} in {tree.show(file)}")
            else:
                found[picture] = picture, parts[file], image.marks
    return next(iter(classes)), found, tuple(missing)


def read_document(data: bytes) -> Document[Marks]:
    """The boxes of one file.

    Raises:
        LabelError: no JSON, too large or too deep, or not of this format.
    """

    def marked(found: list[Marked | str], height: int | None, width: int | None) -> Marks:
        boxes = [one for one in found if isinstance(one, Marked)]
        return marks(boxes, [one for one in found if isinstance(one, str)], height, width)

    return document_of(data, _without_masks, _box, marked)


def document_of(
    data: bytes,
    hook: Callable[[dict[str, Any]], dict[str, Any]],
    read_one: Callable[[Mapping[str, Any], Mapping[Any, str]], T],
    gather: Callable[[list[T], int | None, int | None], M],
) -> Document[M]:
    """One file: each JSON object goes through `hook`, each annotation through `read_one` with the names of the
    categories, and those of a picture through `gather`, with its height and width where they are said.

    Raises:
        LabelError: as `read_document`.
    """
    if data.count(b"[") + data.count(b"{") > MAX_PARTS:
        raise LabelError(f"JSON of over {MAX_PARTS:,} lists and objects, the most that are read")
    try:
        text = json.loads(data, object_hook=hook)
    except RecursionError as error:
        raise LabelError("JSON that is nested too deep") from error
    except ValueError as error:  # also numbers of thousands of digits, and bytes that are no Unicode
        raise LabelError(f"no JSON: {error}") from error
    if not isinstance(text, dict):
        raise LabelError("JSON without images, annotations and categories")
    images, categories = _by_id(text, "images"), _by_id(text, "categories")
    names = _names(categories)
    found: dict[Any, list[T]] = defaultdict(list)
    astray: dict[str, int] = defaultdict(int)
    for number, one in enumerate(_list(text, "annotations")):
        image = one.get("image_id") if isinstance(one, dict) else None
        if not _is_id(image):
            raise LabelError(f"annotation {number} has no image_id")
        if image not in images:
            astray[display(str(image)[:40])] += 1
            continue
        found[image].append(read_one(one, names))
        if len(found[image]) > MAX_BOXES:
            raise LabelError(f"image {image} has over {MAX_BOXES:,} boxes, the most that are read")
    return Document(
        tuple(
            Image(fields["file_name"], gather(found[key], _side(fields, "height"), _side(fields, "width")))
            for key, fields in images.items()
        ),
        tuple(names.values()),
        tuple(f"{count} annotations of the unknown image {image}" for image, count in astray.items()),
    )


def _placed(tree: Tree, file: Path) -> bool:
    """Beside the folders of pictures, in `annotations`, or in the folder of a part."""
    folders = [name for name in tree.folders(file) if name.lower() not in KINDS]
    return not folders or (not tree.classes and len(folders) == 1 and part_of(folders) is not None)


def _is_coco(file: Path) -> bool:
    """Told by the first bytes: the file may be very large, or anything."""
    try:
        start = b"".join(read_start(file, START_BYTES).split())
    except LabelError:
        return False
    keys = (b"images", b"annotations", b"categories")
    return start.removeprefix(b"\xef\xbb\xbf")[:1] == b"{" and any(b'"%s":[' % key in start for key in keys)


def _without_masks(fields: dict[str, Any]) -> dict[str, Any]:
    for key in NOT_BOXES:
        fields.pop(key, None)
    return fields


def _list(text: Mapping[str, Any], key: str) -> list[Any]:
    value = text.get(key)
    if not isinstance(value, list):
        raise LabelError(f"JSON without a list of {key}")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _by_id(text: Mapping[str, Any], key: str) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for number, one in enumerate(_list(text, key)):
        name = "file_name" if key == "images" else "name"
        if not isinstance(one, dict) or not _is_id(one.get("id")) or not isinstance(one.get(name), str):
            raise LabelError(f"entry {number} of {key} lacks an id or a {name}")
        if one["id"] in found:
            raise LabelError(f"two {key} have the id {display(str(one['id'])[:40])}")
        found[one["id"]] = one
    return found


def _names(categories: Mapping[Any, Mapping[str, Any]]) -> dict[Any, str]:
    """Category id → class, in the order of the ids.

    Some programs write the name of the whole as a first category that no box has and all others are under: no class.
    """
    above = {one.get("supercategory") for one in categories.values() if isinstance(one.get("supercategory"), str)}
    first = min(categories, key=_order, default=None)
    names = {key: categories[key]["name"] for key in sorted(categories, key=_order)}
    if first == 0 and len(names) > 1 and names[0] in above and categories[0].get("supercategory") == "none":
        del names[0]
    if not names or len(names) > MAX_CLASSES:
        raise LabelError(f"{len(names)} categories; wanted 1 to {MAX_CLASSES:,}")
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise LabelError(f"two categories are called {display(twice)!r}")
    return names


def _order(key: Any) -> tuple[bool, Any]:
    return isinstance(key, str), key


def _box(one: Mapping[str, Any], names: Mapping[Any, str]) -> Marked | str:
    """A box, or why there is none."""
    category, box = one.get("category_id"), one.get("bbox")
    if not _is_id(category) or category not in names:
        return f"a box of the unknown category {display(str(category)[:40])}"
    name = names[category]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"{display(name)}: a bbox that is no list of four numbers"
    left, top, width, height = map(float, box)
    return Marked(name, left, top, left + width, top + height, bool(one.get("iscrowd", 0)))


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53 and not isinstance(value, bool))


def _side(fields: Mapping[str, Any], side: str) -> int | None:
    told = fields.get(side)
    return round(told) if _is_number(told) and told is not None and 0 < told < 2**31 else None


def _picture(tree: Tree, file: Path, name: str, named: Mapping[str, list[Path]]) -> Path | None:
    """The picture that an entry means; of several, the one near the file or in the folder of its part."""
    fitting = ending(named, name)
    part = part_of([file.stem, *reversed(tree.folders(file))])
    for near in (
        lambda one: True,
        lambda one: one.parent == file.parent,
        lambda one: tree.place(one)[0] == tree.place(file)[0],
        lambda one: part_of(tree.folders(one)) == part,
    ):
        chosen = [one for one in fitting if near(one)]
        if len(chosen) == 1:
            return chosen[0]
    return None


def _read_named(tree: Tree, file: Path, reader: Callable[[bytes], Document[M]]) -> Document[M]:
    try:
        return reader(read_file(file, MAX_BYTES))
    except LabelError as error:
        raise DataError(f"{tree.show(file)}: {error}; wanted COCO's images, annotations and categories") from error
