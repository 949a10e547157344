"""Which files of a folder are pictures, of which class and in which part, before any is opened.

Imports errors and data.dataset.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from featherweight.data.dataset import PART_NAMES, display
from featherweight.errors import DataError

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
    class_name: str
    part: str | None


def find(root: Path) -> tuple[tuple[str, ...], list[Found], int]:
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
    files: list[Found] = []
    classes: set[str] = set()
    ignored = 0
    for part, source in sources.items():
        for class_folder in _subfolders(source):
            classes.add(class_folder.name)
            for path in sorted(_walk(class_folder), key=os.fsencode):
                if path.suffix.lower() in SUFFIXES | OTHER_SUFFIXES and not path.name.startswith("."):
                    files.append(Found(path, class_folder.name, part))
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
