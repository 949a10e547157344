"""Boxes that come with pictures: Pascal VOC, COCO and YOLO, read from files that nobody vouches for.

    find(tree)              which formats the files of a folder are in, by names and a look at their beginnings
    read(tree, layout)      the labels of a folder in one form: `Labels`

No picture is opened here: corners stay as the files have them (VOC's moved to our edges, YOLO's in shares), and
whoever decodes the picture holds them against its size. Imports errors, progress and the folder's own files.
"""

from collections.abc import Callable
from pathlib import Path

from featherweight.annotations import coco, voc, yolo
from featherweight.annotations.labels import Labelled, Labels, Marks
from featherweight.annotations.tree import PART_NAMES, Tree

__all__ = ["LAYOUTS", "PART_NAMES", "Labelled", "Labels", "Marks", "Tree", "find", "read"]

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
