"""The batches of an epoch: pictures and their masks, changed at random, as functions of the seed and the epoch.

Imports boxes, data, image, masks, moves and settings; tensorflow where it is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import mirrored
from featherweight.data import Item, PixelCache, allocate, load_masks, load_pixels
from featherweight.errors import DataError, ImageError, LabelError, display
from featherweight.image import decode, read_bytes
from featherweight.masks import IGNORE, Mask, read_mask
from featherweight.progress import track
from featherweight.segment.moves import Pixels, drawn_move, recoloured
from featherweight.segment.settings import SegmentSettings

TILE = "tile"
MOST_POINTS = 10_000  # of foreground that are kept a picture


@dataclass(frozen=True)
class Pictures:
    """All pictures of a part, (h, w, 3) each, and their masks (h, w): of the input's size, or, to be cut, of their
    own.
    """

    pixels: Sequence[Pixels]
    masks: Sequence[Mask]


@dataclass(frozen=True)
class Window:
    """A cut-out of the input's size: which picture, and its upper left pixel. Of the mask, what lies over `top` and
    left of `left` belongs to another one, in pixels of the cut-out.
    """

    row: int
    y: int
    x: int
    top: int = 0
    left: int = 0


def pictures_of(items: Sequence[Item], size: tuple[int, int], rule: str, cache: PixelCache | None = None) -> Pictures:
    """The items as a network of that input size sees them by a rule of `image.resize`: with "tile" as they are.

    Raises:
        DataError: an item without a mask, or a file that changed since the scan.
    """
    if rule == TILE:
        return _at_own_scale(items)
    masks = load_masks(items, *size, rule)  # first: data without masks costs no decoding
    return Pictures(tuple((cache or load_pixels(items, *size, rule=rule)).take(items)), tuple(masks))


def _at_own_scale(items: Sequence[Item]) -> Pictures:
    """All in one piece of memory, or of a mapped file where they would take too much of it."""
    ends = np.cumsum([0, *(item.height * item.width for item in items)])
    # Three bytes a pixel, and one more for its mask.
    room = allocate(1, int(ends[-1]), 1).reshape(-1, 3)
    masks = allocate(1, int(ends[-1]) // 3 + 1, 1).reshape(-1)
    pixels, truths = [], []
    for item, start, end in track(list(zip(items, ends, ends[1:], strict=False)), "decoding", len(items)):
        if item.mask is None:
            raise DataError(f"{display(item.path)} has no mask; wanted pictures with masks")
        shape = item.height, item.width
        pixels.append(room[start:end].reshape(*shape, 3))
        truths.append(masks[start:end].reshape(shape))
        try:
            pixels[-1][:] = decode(read_bytes(item.path))
            truths[-1][:] = read_mask(item.mask, *shape)
        except (ImageError, LabelError, ValueError) as error:
            raise DataError(f"{display(item.path)} changed since the scan: {error}. Scan the data anew") from error
    return Pictures(pixels, truths)


def windows_of(masks: Sequence[Mask], size: tuple[int, int]) -> list[Window]:
    """Cut-outs that cover every picture; each pixel counts in the first that it is in. A picture that is smaller lies
    in the middle of its only one.
    """
    found = []
    for row, mask in enumerate(masks):
        (ys, tops), (xs, lefts) = (_places(mask.shape[i], size[i]) for i in (0, 1))
        found += [
            Window(row, y, x, top, left)
            for y, top in zip(ys, tops, strict=True)
            for x, left in zip(xs, lefts, strict=True)
        ]
    return found


def _places(side: int, size: int) -> tuple[list[int], list[int]]:
    """Where cut-outs of a side begin, and how much of each the one before it has."""
    if side <= size:
        return [(side - size) // 2], [0]
    starts = [*range(0, side - size, size), side - size]
    return starts, [0, *(before + size - start for before, start in pairwise(starts))]


class MaskStream:
    """Epoch after epoch of batches (RGB 0–255 float32 (b, h, w, 3), masks uint8 (b, h, w)), the next one always ready.

    Order and changes are functions of the seed and the epoch's number alone. In training (`shuffle`) large pictures
    are cut at random places, else so that each pixel counts once.
    """

    def __init__(self, pictures: Pictures, settings: SegmentSettings, size: tuple[int, int], shuffle: bool, epoch: int):
        self.pictures, self.settings, self.size, self.shuffle, self.epoch = pictures, settings, size, shuffle, epoch
        self.cut = settings.resize == TILE
        if shuffle:
            self.rows = np.repeat(np.arange(len(pictures.masks)), [self._times(mask) for mask in pictures.masks])
        self.windows = windows_of(pictures.masks, size) if self.cut and not shuffle else []
        self.ahead = [_foreground(mask) for mask in pictures.masks] if self.cut and shuffle else []
        count = len(self.rows) if shuffle else len(self.windows) if self.cut else len(pictures.masks)
        batch = settings.train.batch_size
        # A last batch of one picture has no variance; in training it is left for another epoch.
        lone_last = shuffle and count > batch and count % batch == 1
        self.count, self.starts = count, range(0, count - lone_last, batch)

    def _times(self, mask: Mask) -> int:
        """How often an epoch looks at a picture: as many cut-outs as have its area."""
        return max(1, round(mask.size / (self.size[0] * self.size[1]))) if self.cut else 1

    def cardinality(self) -> int:
        """Batches an epoch."""
        return len(self.starts)

    def next_epoch(self) -> Any:
        """A `tf.data.Dataset` that can be gone through once."""
        import tensorflow as tf

        random = np.random.default_rng((self.settings.train.seed, self.epoch))
        self.epoch += 1
        signature = (tf.TensorSpec((None, *self.size, 3), tf.uint8), tf.TensorSpec((None, *self.size), tf.uint8))
        stream = tf.data.Dataset.from_generator(lambda: self._batches(random), output_signature=signature)
        stream = stream.map(lambda images, truth: (tf.cast(images, tf.float32), truth)).prefetch(2)
        options = tf.data.Options()
        options.autotune.enabled = False  # train.batches says why
        return stream.with_options(options).apply(tf.data.experimental.assert_cardinality(len(self.starts)))

    def _batches(self, random: np.random.Generator) -> Iterator[tuple[Pixels, Mask]]:
        order = random.permutation(self.count) if self.shuffle else np.arange(self.count)
        for start in self.starts:
            rows = order[start : start + self.settings.train.batch_size]
            made = [self._drawn(self.rows[row], random) if self.shuffle else self._as_it_is(row) for row in rows]
            yield np.stack([pixels for pixels, _ in made]), np.stack([mask for _, mask in made])

    def _as_it_is(self, number: int) -> tuple[Pixels, Mask]:
        if not self.cut:
            return self.pictures.pixels[number], self.pictures.masks[number]
        window = self.windows[number]
        pixels, mask = self._cut_out(window)
        mask[: window.top] = IGNORE
        mask[:, : window.left] = IGNORE
        return pixels, mask

    def _drawn(self, row: int, random: np.random.Generator) -> tuple[Pixels, Mask]:
        pixels, mask = self.pictures.pixels[row], self.pictures.masks[row]
        source = mask.shape[0], mask.shape[1]
        around = self._point(row, random) if self.cut else None
        if not self.settings.train.augment:
            if around is None:
                return pixels, mask
            y, x = (
                _start(place, side, size) for place, side, size in zip(around[::-1], source, self.size, strict=True)
            )
            return self._cut_out(Window(row, y, x))
        move = drawn_move(source, self.size, self.settings, random, around)
        shown = recoloured(move.of_pixels(pixels, *self.size), self.settings, random)
        return shown, move.of_mask(mask, *self.size)

    def _point(self, row: int, random: np.random.Generator) -> tuple[float, float]:
        """(x, y) that a cut-out lies around: so that it lies inside of the picture, or has some foreground."""
        mask, ahead = self.pictures.masks[row], self.ahead[row]
        places = random.random(2)
        if len(ahead) and random.random() < self.settings.foreground:
            y, x = divmod(int(ahead[random.integers(len(ahead))]), mask.shape[1])
            # Anywhere in it, not always in its middle.
            off = 0.8 * (places - 0.5) * self.size
            return x + 0.5 + float(off[1]), y + 0.5 + float(off[0])
        y, x = (
            size / 2 + place * (side - size) if side > size else side / 2
            for place, side, size in zip(places, mask.shape, self.size, strict=True)
        )
        return float(x), float(y)

    def _cut_out(self, window: Window) -> tuple[Pixels, Mask]:
        """Beyond the picture it is mirrored, and its mask `IGNORE`."""
        pixels, mask = self.pictures.pixels[window.row], self.pictures.masks[window.row]
        places = [start + np.arange(size) for start, size in zip((window.y, window.x), self.size, strict=True)]
        inside = [(place >= 0) & (place < side) for place, side in zip(places, mask.shape, strict=True)]
        ys, xs = (
            mirrored(start, size, side)
            for start, size, side in zip((window.y, window.x), self.size, mask.shape, strict=True)
        )
        truth = mask[ys[:, None], xs]
        truth[~(inside[0][:, None] & inside[1])] = IGNORE
        return pixels[ys[:, None], xs], truth


def _foreground(mask: Mask) -> NDArray[np.intp]:
    """Places in the flat mask that are of a class but the first; of many, some from all over it."""
    found = np.flatnonzero((mask != 0) & (mask != IGNORE))
    return found[:: 1 + len(found) // MOST_POINTS]


def _start(middle: float, side: int, size: int) -> int:
    """Where a cut-out around a point begins: inside of the picture where that is large enough."""
    return int(np.clip(round(middle - size / 2), 0, side - size)) if side > size else (side - size) // 2
