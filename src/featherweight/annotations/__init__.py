"""Boxes and masks that come with pictures, read from files that nobody vouches for.

    find(tree)              in which formats boxes are (Pascal VOC, COCO, YOLO), by names and a look at beginnings
    read(tree, layout)      the boxes of a folder in one form: `Labels`
    find_masks(tree)        which pictures have masks, as files beside them or as COCO's outlines: `Masks`
    find_legend(tree)       what values and colours of masks stand for: `Legend`

No picture is opened here: corners stay as the files have them (VOC's moved to our edges, YOLO's in shares), and
whoever decodes the picture holds them against its size. Imports errors, outlines, progress and the folder's
own files.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from featherweight.annotations import coco, paired, shapes, voc, yolo
from featherweight.annotations.labels import Labelled, Labels, Marks, Masked, Masks, Shapes
from featherweight.annotations.legend import Entry, Legend
from featherweight.annotations.legend import find as find_legend
from featherweight.annotations.paired import unusual
from featherweight.annotations.tree import PART_NAMES, Tree

__all__ = [
    "LAYOUTS", "PART_NAMES", "Entry", "Labelled", "Labels", "Legend", "Marks", "Masked", "Masks", "Shapes", "Tree",
    "find", "find_legend", "find_masks", "read", "unusual",
]  # fmt: skip

Files = tuple[Path, ...]
# In the order of preference where a folder holds several: those that say a picture's size can be held against it.
LAYOUTS: dict[str, tuple[Callable[[Tree], Files], Callable[[Tree, Files], Labels]]] = {
    "voc": (voc.find, voc.read),
    "coco": (coco.find, coco.read),
    "yolo": (yolo.find, yolo.read),
}


def find(tree: Tree) -> dict[str, Files]:
    """Layout → its label files, of those that the folder has; the first is the one to read."""
    found = {layout: looks(tree) for layout, (looks, _) in LAYOUTS.items()}
    return {layout: files for layout, files in found.items() if files}


def read(tree: Tree, layout: str, files: Files) -> Labels:
    """The labels of a folder, of the layout and files that `find` names.

    Raises:
        DataError: a file that stands for the whole folder cannot be read, or contradicts another.
    """
    return LAYOUTS[layout][1](tree, files)


def find_masks(tree: Tree, strict: bool) -> Masks | None:
    """The masks of a folder, or None where it has none: files, else, unless `strict`, COCO's outlines.

    `strict`: only where nothing but masks can be meant.

    Raises:
        DataError: a file that stands for the whole folder cannot be read, or contradicts another.
    """
    files = paired.find(tree, strict)
    documents = () if strict else coco.find(tree)
    if files is None:
        return shapes.read(tree, documents) if documents else None
    return replace(files, also=(*files.also, *(tree.show(file) for file in documents)))
