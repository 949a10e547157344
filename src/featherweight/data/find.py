"""Which files of a folder are pictures, with which class, boxes or mask and in which part, before any is opened.

Imports annotations, errors and data.dataset.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from featherweight import annotations
from featherweight.annotations import PART_NAMES, Labels, Legend, Marks, Masks, Shapes, Tree
from featherweight.data.dataset import TASKS
from featherweight.errors import DataError, SettingError, display

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


@dataclass(frozen=True)
class Found:
    """A file that is a picture by its name, before it was opened."""

    path: Path
    class_name: str  # empty where there are boxes or masks
    part: str | None
    marks: Marks | str | None = None  # its boxes, or why its labels cannot be read
    mask: Path | Shapes | str | None = None  # its mask, or why that cannot be told


@dataclass(frozen=True)
class Folder:
    """What stands in a folder, before a picture was opened."""

    root: Path
    classes: tuple[str, ...]  # none yet where masks are files: their values tell
    files: tuple[Found, ...]  # in a stable order
    ignored: int  # files that are no pictures by name, and no labels
    labels: Labels | None = None  # of pictures with boxes
    also: tuple[str, ...] = ()  # layouts of boxes that are there too
    masks: Masks | None = None  # of pictures with masks
    legend: Legend | None = None  # what the values or colours of masks stand for

    @property
    def task(self) -> str:
        """What the labels are for."""
        if self.masks is not None:
            return "segment"
        return "classify" if self.labels is None else "detect"


def find(root: Path, task: str | None = None) -> Folder:
    """The pictures of a folder with their classes, boxes or masks; the task is told by the layout unless it is named.

    Raises:
        DataError: no such folder, one that cannot be listed, or not of a layout that is known.
        SettingError: an unknown task.
    """
    if task is not None and task not in TASKS:
        raise SettingError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    if not root.exists():
        raise DataError(f"no folder {display(root)}; wanted DIR/class/*.jpg or DIR/{{train,val,test}}/class/*.jpg")
    if not root.is_dir():
        raise DataError(f"{display(root)} is a file; wanted the folder that holds a folder for each class")
    if task == "segment":
        return _with_masks(_tree(root), strict=False) or _without_masks(root)
    if task != "classify":
        tree = _tree(root)
        layouts = annotations.find(replace(tree, classes=task is None and _reads_as_classes(tree)))
        if layouts:
            return _with_boxes(tree, layouts)
        masked = _with_masks(tree, strict=True) if task is None else None
        if masked is not None:
            return masked
    if task == "detect":
        raise DataError(
            f"no boxes in {display(root)}; wanted pictures and Pascal VOC (Annotations/*.xml), COCO "
            "(annotations/*.json) or YOLO (labels/*.txt)"
        )
    return _with_classes(root)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name."""
    return path.suffix.lower() in SUFFIXES | OTHER_SUFFIXES and not path.name.startswith(".")


def _with_boxes(tree: Tree, layouts: Mapping[str, tuple[Path, ...]]) -> Folder:
    layout, *also = layouts
    labels = annotations.read(tree, layout, layouts[layout])
    files = tuple(Found(one.path, "", one.part, one.marks) for one in labels.pictures)
    if not files:
        raise DataError(
            f"no picture in {display(tree.root)} has labels: {len(tree.pictures)} pictures, {len(labels.partless)} of "
            f"them in no part, {len(layouts[layout])} files of labels ({layout}); wanted pictures that are called as "
            "the labels and the lists of parts say"
        )
    if not labels.classes:
        raise DataError(f"no class in the labels of {display(tree.root)} ({layout}); wanted boxes of at least one")
    return Folder(tree.root, labels.classes, files, len(tree.others) - len(layouts[layout]), labels, tuple(also))


def _with_masks(tree: Tree, strict: bool) -> Folder | None:
    masks = annotations.find_masks(tree, strict)
    if masks is None:
        return None
    files = tuple(Found(one.path, "", one.part, mask=one.mask) for one in masks.pictures)
    legend = None if masks.layout == "coco" else annotations.find_legend(tree)
    return Folder(tree.root, masks.classes, files, len(tree.others), masks=masks, legend=legend)


def _without_masks(root: Path) -> Folder:
    raise DataError(
        f"no masks in {display(root)}; wanted images/ and masks/ with files of the same names, pictures beside theirs "
        "(7.jpg, 7_mask.png), or COCO's JSON with outlines"
    )


def _tree(root: Path) -> Tree:
    """All files but hidden ones; links to folders are followed, once each."""

    def stop(error: OSError) -> None:
        raise DataError(f"cannot list {display(error.filename)}: {error.strerror}") from error

    pictures: list[Path] = []
    others: list[Path] = []
    seen = {os.path.realpath(root)}
    _subfolders(root)  # whoever cannot list the root is told so in its name
    for parent, folders, names in os.walk(root, onerror=stop, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and _is_new(Path(parent, name), seen)]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            (pictures if is_picture(path) else others).append(path)
    return Tree(root, tuple(sorted(pictures, key=os.fsencode)), tuple(sorted(others, key=os.fsencode)))


def _is_new(folder: Path, seen: set[str]) -> bool:
    """Whether a folder was not walked through yet: links can form a loop, and lead to where we may not look."""
    real = os.path.realpath(folder)
    if real in seen or (folder.is_symlink() and not os.access(folder, os.R_OK | os.X_OK)):
        return False
    seen.add(real)
    return True


def _reads_as_classes(tree: Tree) -> bool:
    """Whether every folder holds pictures, as folders of classes do; beside labels at least one would not."""
    folders = _subfolders(tree.root)
    given = [folder for folder in folders if folder.name.lower() in PART_NAMES]
    if any(folder.name.lower() in ("train", "training") for folder in given) and len(given) > 1:
        if len(given) < len(folders):
            return False
        folders = [folder for part in given for folder in _subfolders(part)]
    depth = len(tree.root.parts)
    holders = {picture.parts[:length] for picture in tree.pictures for length in (depth + 1, depth + 2)}
    return len({folder.name for folder in folders}) > 1 and all(folder.parts in holders for folder in folders)


def _with_classes(root: Path) -> Folder:
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
    files: list[Found] = []
    classes: set[str] = set()
    ignored = 0
    for part, source in sources.items():
        for class_folder in _subfolders(source):
            classes.add(class_folder.name)
            for path in sorted(_walk(class_folder), key=os.fsencode):
                if is_picture(path):
                    files.append(Found(path, class_folder.name, part))
                else:
                    ignored += 1
    if len(classes) < 2:
        what = f"only the class {display(next(iter(classes)))!r}" if classes else "no folder of a class"
        raise DataError(f"{display(root)} has {what}; wanted a folder with pictures for each of at least two classes")
    if not files:
        raise DataError(f"no pictures in {display(root)}; wanted JPEG, PNG, BMP, WebP or GIF files in class folders")
    return Folder(root, tuple(sorted(classes)), tuple(files), ignored)


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
