"""A folder of labelled pictures → `Dataset`: found, decoded once, split, audited.

Two layouts of classes: `DIR/class/**.jpg`, split here, or `DIR/{train,val,test}/class/**.jpg`, split by its maker. The
layouts of boxes and masks are those of `annotations`.

The split rule: equal pictures (same pixels once decoded) are one group. In each class the groups, ordered by the
least SHA-256 of their files, are dealt out: the first 15 % to test, the next 15 % to val, the rest to train. So the
parts depend on contents alone, not on names, order or a seed; every class has its share of each part; and equal
pictures never stand on both sides.

`dataset` says what a data set is, `find` which files are looked at, `assemble` makes one of the other; here the files
are read. Nothing is ever written into the user's folder. Imports annotations, device, errors,
image, masks and progress.
"""

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.annotations import Marks, Shapes
from featherweight.data.assemble import assemble, check_usable
from featherweight.data.audit import Seen, relative
from featherweight.data.boxed import check
from featherweight.data.dataset import PARTS, Audit, BoxAudit, Dataset, Item, MaskAudit, Split
from featherweight.data.find import Folder, find
from featherweight.data.masked import Key, agree, check_mask, glance
from featherweight.device import available_cores, this_device
from featherweight.errors import DataError, ImageError, LabelError, display
from featherweight.image import Pixels, decode, orientation, read_bytes, resize
from featherweight.masks import IGNORE, read_mask, resize_mask
from featherweight.progress import track

__all__ = [
    "MEMORY_SHARE", "PARTS", "Audit", "BoxAudit", "Dataset", "Item", "MaskAudit", "PixelCache", "Split", "allocate",
    "display", "labelled", "labels", "load_masks", "load_pixels", "read_dataset", "read_dataset_cached", "scan",
    "targets",
]  # fmt: skip
MEMORY_SHARE = 0.25


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


def read_dataset(
    folder: str | Path, split: Split | None = None, task: str | None = None, ignore: int = IGNORE
) -> Dataset:
    """Find, fully decode and split the pictures of a folder.

    `task` is classify, detect or segment; None: the folder's layout tells. `ignore` is the value in masks, 0–255,
    of pixels that are not asked for, where no legend says it and it does not stand for the foreground (0 and 255).

    Raises:
        DataError: no such folder or one that cannot be listed, parts beside other folders, no pictures, more than
            5 % bad, an empty class, too few different pictures in one, or fewer than two classes; no boxes or masks,
            masks of one class alone, or a file of labels that stands for all of them and cannot be read.
        SettingError: an unknown task, or an `ignore` that no mask can have.
    """
    return scan(folder, split, None, task, ignore=ignore)[0]


def read_dataset_cached(
    folder: str | Path,
    height: int,
    width: int,
    split: Split | None = None,
    rule: str = "stretch",
    task: str | None = None,
) -> tuple[Dataset, PixelCache]:
    """As `read_dataset`, and keep every picture at one size, by a rule of `image.resize`, out of the same decoding.

    Raises:
        DataError: as `read_dataset`.
        SettingError: as `read_dataset`.
    """
    dataset, cache = scan(folder, split, (height, width), task, rule)
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
    """The items' labels, (n,).

    Raises:
        DataError: the items have boxes or masks.
    """
    if any(item.mask is not None for item in items):
        raise DataError("pictures with masks have no one label each; wanted pictures in folders of classes")
    if any(item.boxes is not None for item in items):
        raise DataError("pictures with boxes have no one label each; wanted pictures in folders of classes")
    return np.array([item.label for item in items], dtype=np.int64)


def targets(items: Sequence[Item]) -> list[Any]:
    """What is true of each item, as plain values for JSON: its label, its boxes, or where its mask is and for which
    "height" and "width".
    """
    return [_target(item) for item in items]


def _target(item: Item) -> Any:
    if item.mask is not None:
        return {**item.mask.as_dict(), "height": item.height, "width": item.width}
    return item.label if item.boxes is None else item.boxes.as_dict()


def load_masks(items: Sequence[Item], height: int, width: int, rule: str = "stretch") -> NDArray[np.uint8]:
    """The items' masks at one size, (n, height, width): class indices, or `masks.IGNORE`; as `load_pixels`.

    Raises:
        DataError: a mask has changed or vanished since the scan, or an item has none.
    """
    found = _room((len(items), height, width))

    def fill(row: int) -> None:
        item = items[row]
        if item.mask is None:
            raise DataError(f"{display(item.path)} has no mask; wanted pictures with masks")
        try:
            mask = read_mask(item.mask, item.height, item.width)
        except LabelError as error:
            raise DataError(f"{display(item.path)} changed since the scan: {error}. Scan the data anew") from error
        found[row] = resize_mask(mask, height, width, rule)

    for _ in _in_threads(fill, range(len(items))):
        pass
    return found


def labelled(items: Sequence[Item], height: int, width: int, rule: str = "stretch") -> tuple[Pixels, NDArray[np.int64]]:
    """Pixels (n, h, w, 3) and labels (n,) of items; as `load_pixels`."""
    return load_pixels(items, height, width, rule=rule).take(items), labels(items)


def allocate(count: int, height: int, width: int) -> Pixels:
    """Room for `count` pictures: in memory, or in an unnamed mapped file where it would take over a quarter of it."""
    return _room((count, height, width, 3))


def _room(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if math.prod(shape) <= MEMORY_SHARE * (this_device().memory_bytes or 2**32):
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(prefix="featherweight-") as file:  # the mapping keeps it alive, the name is gone
        return np.memmap(file, np.uint8, "w+", shape=shape)


def scan(
    folder: str | Path,
    split: Split | None,
    size: tuple[int, int] | None,
    task: str | None = None,
    rule: str = "stretch",
    ignore: int = IGNORE,
) -> tuple[Dataset, PixelCache | None]:
    """The work behind `read_dataset` and `read_dataset_cached`: one pass, every file decoded once, in parallel."""
    root = Path(folder)
    found, key = _agreed(find(root, task), ignore)
    index = {name: label for label, name in enumerate(found.classes)}
    pixels = None if size is None else allocate(len(found.files), *size)

    def look(row: int) -> Seen | str:
        file = found.files[row]
        for cause in (file.marks, file.mask):
            if isinstance(cause, str):
                return cause
        try:
            data = read_bytes(file.path)
            image = decode(data)
            height, width = image.shape[:2]
            checked = None
            if isinstance(file.marks, Marks):
                checked = check(file.marks, index, height, width)
            masked = None
            if key is not None and isinstance(file.mask, Path | Shapes):
                masked = check_mask(file.mask, key, height, width, orientation(data))
        except (ImageError, LabelError) as error:
            return str(error)
        if size is not None and pixels is not None:
            pixels[row] = resize(image, *size, rule)
        pixel_hash = hashlib.sha256(f"{height} {width} ".encode())
        pixel_hash.update(np.ascontiguousarray(image).data)  # no second copy of a large picture
        return Seen(file, hashlib.sha256(data).hexdigest(), pixel_hash.hexdigest(), height, width, checked, masked)

    count = len(found.files)
    looked = list(track(_in_threads(look, range(count)), "scanning pictures", count))
    seen = [result for result in looked if isinstance(result, Seen)]
    bad = [(relative(f.path, root), r) for f, r in zip(found.files, looked, strict=True) if isinstance(r, str)]
    check_usable(found, seen, bad)
    dataset = assemble(found, seen, tuple(bad), split or Split(), key)
    if size is None or pixels is None:
        return dataset, None
    return dataset, PixelCache(*size, {file.path: row for row, file in enumerate(found.files)}, pixels)


def _agreed(folder: Folder, ignore: int) -> tuple[Folder, Key | None]:
    """(the folder with its classes, what the numbers of its masks stand for): that takes a look at all of them."""
    if folder.masks is None:
        return folder, None
    files = [file.mask for file in folder.files if isinstance(file.mask, Path)]
    looks = track(_in_threads(lambda row: glance(files[row]), range(len(files))), "looking at masks", len(files))
    key = agree(folder.masks, folder.legend, [one for one in looks if one is not None], ignore)
    return replace(folder, classes=key.classes), key


def _in_threads(function: Callable[[int], Any], rows: Sequence[int]) -> Iterator[Any]:
    """Results in order; the decoders let go of the interpreter lock, so threads do run side by side."""
    pool = ThreadPoolExecutor(available_cores())
    try:
        yield from pool.map(function, rows)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the pictures still in the queue
