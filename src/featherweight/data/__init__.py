"""A folder of labelled pictures → `Dataset`: found, decoded once, split, audited.

Two layouts: `DIR/class/**.jpg`, split here, or `DIR/{train,val,test}/class/**.jpg`, split by its maker.

The split rule: equal pictures (same pixels once decoded) are one group. In each class the groups, ordered by the
least SHA-256 of their files, are dealt out: the first 15 % to test, the next 15 % to val, the rest to train. So the
parts depend on contents alone, not on names, order or a seed; every class has its share of each part; and equal
pictures never stand on both sides.

`dataset` says what a data set is, `find` which files are looked at, `assemble` makes one of the other; here the files
are read. Nothing is ever written into the user's folder. Imports device, errors, image and progress.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.data.assemble import Seen, assemble, check_usable, relative
from featherweight.data.dataset import PARTS, Audit, Dataset, Item, Split, display
from featherweight.data.find import find
from featherweight.device import available_cores, this_device
from featherweight.errors import DataError, ImageError
from featherweight.image import Pixels, decode, read_bytes, resize
from featherweight.progress import track

__all__ = [
    "MEMORY_SHARE", "PARTS", "Audit", "Dataset", "Item", "PixelCache", "Split", "allocate", "display", "labelled",
    "labels", "load_pixels", "read_dataset", "read_dataset_cached", "scan",
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


def read_dataset(folder: str | Path, split: Split | None = None) -> Dataset:
    """Find, fully decode and split the pictures of a folder.

    Raises:
        DataError: no such folder or one that cannot be listed, parts beside other folders, no pictures, more than
            5 % bad, an empty class, too few different pictures in one, or fewer than two classes.
    """
    return scan(folder, split, None)[0]


def read_dataset_cached(
    folder: str | Path, height: int, width: int, split: Split | None = None
) -> tuple[Dataset, PixelCache]:
    """As `read_dataset`, and keep every picture at one size out of the same decoding.

    Raises:
        DataError: as `read_dataset`.
    """
    dataset, cache = scan(folder, split, (height, width))
    if cache is None:
        raise AssertionError("scan was given a size")
    return dataset, cache


def load_pixels(items: Sequence[Item], height: int, width: int, label: str = "decoding") -> PixelCache:
    """Decode items into a cache of one size.

    Raises:
        DataError: a file has changed or vanished since the scan.
    """
    pixels = allocate(len(items), height, width)

    def fill(row: int) -> None:
        try:
            pixels[row] = resize(decode(read_bytes(items[row].path)), height, width)
        except ImageError as error:
            raise DataError(
                f"{display(items[row].path)} changed since the scan: {error}. Scan the data anew"
            ) from error

    for _ in track(_in_threads(fill, range(len(items))), label, len(items)):
        pass
    return PixelCache(height, width, {item.path: row for row, item in enumerate(items)}, pixels)


def labels(items: Sequence[Item]) -> NDArray[np.int64]:
    """The items' labels, (n,)."""
    return np.array([item.label for item in items], dtype=np.int64)


def labelled(items: Sequence[Item], height: int, width: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Pixels (n, h, w, 3) and labels (n,) of items; as `load_pixels`."""
    return load_pixels(items, height, width).take(items), labels(items)


def allocate(count: int, height: int, width: int) -> Pixels:
    """Room for `count` pictures: in memory, or in an unnamed mapped file where it would take over a quarter of it."""
    size = count * height * width * 3
    if size <= MEMORY_SHARE * (this_device().memory_bytes or 2**32):
        return np.empty((count, height, width, 3), np.uint8)
    with tempfile.TemporaryFile(prefix="featherweight-") as file:  # the mapping keeps it alive, the name is gone
        return np.memmap(file, np.uint8, "w+", shape=(count, height, width, 3))


def scan(folder: str | Path, split: Split | None, size: tuple[int, int] | None) -> tuple[Dataset, PixelCache | None]:
    """The work behind `read_dataset` and `read_dataset_cached`: one pass, every file decoded once, in parallel."""
    root = Path(folder)
    classes, found, ignored = find(root)
    pixels = None if size is None else allocate(len(found), *size)

    def look(row: int) -> Seen | str:
        try:
            data = read_bytes(found[row].path)
            image = decode(data)
        except ImageError as error:
            return str(error)
        if size is not None and pixels is not None:
            pixels[row] = resize(image, *size)
        height, width = image.shape[:2]
        pixel_hash = hashlib.sha256(f"{height} {width} ".encode())
        pixel_hash.update(np.ascontiguousarray(image).data)  # no second copy of a large picture
        return Seen(found[row], hashlib.sha256(data).hexdigest(), pixel_hash.hexdigest(), height, width)

    looked = list(track(_in_threads(look, range(len(found))), "scanning pictures", len(found)))
    seen = [result for result in looked if isinstance(result, Seen)]
    bad = [(relative(f.path, root), r) for f, r in zip(found, looked, strict=True) if isinstance(r, str)]
    check_usable(root, classes, seen, bad, len(found))
    dataset = assemble(root, classes, seen, tuple(bad), ignored, split or Split())
    if size is None or pixels is None:
        return dataset, None
    return dataset, PixelCache(*size, {file.path: row for row, file in enumerate(found)}, pixels)


def _in_threads(function: Callable[[int], Any], rows: Sequence[int]) -> Iterator[Any]:
    """Results in order; the decoders let go of the interpreter lock, so threads do run side by side."""
    pool = ThreadPoolExecutor(available_cores())
    try:
        yield from pool.map(function, rows)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the pictures still in the queue
