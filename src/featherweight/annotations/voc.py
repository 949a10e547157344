"""Pascal VOC: an XML file a picture, and lists of names in ImageSets/Main for the parts.

The development kit (Everingham et al., 2010, "The PASCAL Visual Object Classes (VOC) Challenge") counts pixels from 1
and both corners are within the box. Our corners are distances from the picture's edges, so that 1 is taken from xmin
and ymin, and xmax and ymax stay: a box over a whole picture of 640 pixels, 1 to 640, becomes 0 to 640. Programs that
count from 0 write one pixel less; that one pixel falls outside and is cut off again.

XML comes from strangers: a document type, which entities would need, is refused, and so are depth and size beyond any
annotation. Imports errors, progress and the folder's own files.
"""

from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from featherweight.annotations.labels import Labelled, Labels, Marked, Marks, marks
from featherweight.annotations.tree import (
    KINDS,
    MAX_BOXES,
    MAX_CLASSES,
    Tree,
    dealt,
    pair,
    part_of,
    read_file,
    read_lines,
    read_start,
    settle,
)  # fmt: skip
from featherweight.errors import DataError, LabelError, display
from featherweight.progress import track

MAX_BYTES = 8 * 2**20
MAX_LIST_BYTES = 64 * 2**20
MAX_DEPTH = 16
MAX_TEXT = 1000  # characters of a value
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find(tree: Tree) -> tuple[Path, ...]:
    """The label files, if the folder is of this format."""
    if tree.classes:
        return ()
    stems = {picture.stem for picture in tree.pictures}
    files = [file for file in tree.others if file.suffix.lower() == ".xml"]
    files = [file for file in files if file.stem in stems or KINDS & {name.lower() for name in tree.folders(file)}]
    return tuple(files) if any(map(_is_annotation, files[:20])) else ()


def read(tree: Tree, files: tuple[Path, ...]) -> Labels:
    """The labels of a folder of this format.

    Raises:
        DataError: a list of a part cannot be read, or there are too many classes.
    """
    pairs = pair(tree, files)
    parts, missing = _parts(tree)
    pictures = []
    labelled = [picture for picture in tree.pictures if picture in pairs.files and picture in parts]
    for picture in track(labelled, "reading labels", len(labelled)):
        file = pairs.files[picture]
        found = file if isinstance(file, str) else _read_named(tree, file)
        pictures.append(Labelled(picture, parts[picture], found))
    classes = sorted({name for one in pictures if isinstance(one.marks, Marks) for name in one.marks.names})
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{display(tree.root)} has {len(classes)} classes; at most {MAX_CLASSES:,} are read")
    missing += [tree.show(file) for file in pairs.unused]
    partless = tuple(picture for picture in tree.pictures if picture not in parts)
    unlabelled = tuple(picture for picture in pairs.unlabelled if picture in parts)
    return Labels("voc", tuple(classes), tuple(pictures), unlabelled, tuple(missing), partless)


def read_marks(data: bytes) -> Marks:
    """The boxes of one annotation.

    Raises:
        LabelError: no XML, not an annotation, with a document type, too deep, or with too many objects.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise LabelError(f"no XML: {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not know, or of several bytes
        raise LabelError(f"XML in an encoding that cannot be read: {error}") from error
    boxes, left_out = [], []
    for fields in reader.objects:
        box = _box(fields)
        if isinstance(box, Marked):
            boxes.append(box)
        else:
            left_out.append(box)
    return marks(boxes, left_out, _size(reader.size, "height"), _size(reader.size, "width"))


class _Reader:
    """Keeps what is asked of an annotation while expat walks through it."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.value = ""
        self.size: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []

    def doctype(self, *_: object) -> None:
        raise LabelError("XML with a document type, which no annotation needs; take the DOCTYPE out")

    def start(self, name: str, _: object) -> None:
        if not self.path and name != "annotation":
            raise LabelError(f"XML of <{display(name[:40])}>; wanted <annotation>")
        self.path.append(name)
        self.value = ""
        if len(self.path) > MAX_DEPTH:
            raise LabelError(f"XML over {MAX_DEPTH} elements deep")
        if self.path[1:] == ["object"]:
            self.objects.append({})
            if len(self.objects) > MAX_BOXES:
                raise LabelError(f"over {MAX_BOXES:,} objects, the most that are read")

    def text(self, text: str) -> None:
        if len(self.value) < MAX_TEXT:
            self.value += text

    def end(self, name: str) -> None:
        # Parts of an object have a name and a box of their own, one level deeper: those are passed over.
        match self.path[1:]:
            case ["size", ("height" | "width") as field]:
                self.size[field] = self.value.strip()
            case ["object", ("name" | "difficult") as field] | ["object", "bndbox", field]:
                self.objects[-1][field] = self.value.strip()[:MAX_TEXT]
        self.path.pop()
        self.value = ""


def _box(fields: Mapping[str, str]) -> Marked | str:
    """A box, or why there is none."""
    name = fields.get("name", "")
    if not name:
        return "a box without a class"
    absent = [corner for corner in CORNERS if corner not in fields]
    if absent:
        return f"{display(name)}: no {', '.join(absent)}"
    try:
        left, top, right, bottom = (float(fields[corner]) for corner in CORNERS)
    except ValueError:
        return (
            f"{display(name)}: corners that are no numbers: {display(', '.join(fields[one][:20] for one in CORNERS))}"
        )
    if right <= left or bottom <= top:
        # One pixel by the rule of the format; in practice a click that was taken for a box.
        return f"{display(name)} without area: {left:g}, {top:g}, {right:g}, {bottom:g}"
    return Marked(name, left - 1, top - 1, right, bottom, fields.get("difficult", "0") not in ("0", ""))


def _size(fields: Mapping[str, str], side: str) -> int | None:
    """A side in pixels; None where it is not said, for which many programs write 0."""
    try:
        return int(float(fields[side])) or None
    except (KeyError, ValueError, OverflowError):
        return None


def _read_named(tree: Tree, file: Path) -> Marks | str:
    try:
        return read_marks(read_file(file, MAX_BYTES))
    except LabelError as error:
        return f"its labels {tree.show(file)}: {error}"


def _is_annotation(file: Path) -> bool:
    try:
        return b"<annotation" in read_start(file)
    except LabelError:
        return False


def _parts(tree: Tree) -> tuple[dict[Path, str | None], list[str]]:
    """(picture → part, names in the lists that no picture has): by lists, or else by the folders' names."""
    lists: dict[str, list[Path]] = {}
    for file in tree.others:
        folders = [name.lower() for name in tree.folders(file)]
        if folders[-1:] in (["main"], ["imagesets"]) and "imagesets" in folders and file.suffix == ".txt":
            lists.setdefault(file.stem.lower(), []).append(file)
    whole = "train" not in lists and "trainval" in lists  # some of it becomes val here
    wanted = {"train": lists.get("trainval" if whole else "train", []), "val": [] if whole else lists.get("val", [])}
    wanted["test"] = lists.get("test", [])
    if not any(wanted.values()):
        return settle({picture: part_of(tree.folders(picture)) for picture in tree.pictures}), []
    by_stem: dict[str, list[Path]] = {}
    for picture in tree.pictures:
        by_stem.setdefault(picture.stem, []).append(picture)
    named = [(part, file, name) for part, files in wanted.items() for file in files for name in _names(file)]
    missing = [f"{display(name)} in {tree.show(file)}" for _, file, name in named if name not in by_stem]
    return settle(dealt((part, picture) for part, _, name in named for picture in by_stem.get(name, ()))), missing


def _names(file: Path) -> list[str]:
    try:
        return list(filter(None, read_lines(file, MAX_LIST_BYTES)))
    except LabelError as error:
        raise DataError(f"{display(file)}: {error}; wanted a name of a picture a line") from error
