"""The batches of an epoch: pictures and their true boxes, changed at random, as functions of the seed and the epoch.

Imports boxes, moves and settings; tensorflow where it is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes
from featherweight.detect.moves import Pixels, Truth, drawn_move, mosaic, recoloured, stretched
from featherweight.detect.settings import DetectSettings

BOX_VALUES = 6


def truth_of(boxes: Boxes, source: tuple[int, int], size: tuple[int, int]) -> Truth:
    """Boxes in a picture of (height, width) `source` → (k, 6) in one of `size`, stretched: corners, class, hard."""
    across, down = size[1] / source[1], size[0] / source[0]
    corners = np.asarray(boxes.corners, np.float32).reshape(-1, 4) * np.array([across, down] * 2, np.float32)
    return np.column_stack([corners, boxes.labels, boxes.hard]).astype(np.float32).reshape(-1, BOX_VALUES)


def padded(truths: Sequence[Truth]) -> NDArray[np.float32]:
    """(b, m, 6): as many rows as the picture with the most boxes has, and at least one; the others of class -1."""
    most = max(1, *(len(truth) for truth in truths))
    found = np.zeros((len(truths), most, BOX_VALUES), np.float32)
    found[..., 4] = -1
    for row, truth in zip(found, truths, strict=True):
        row[: len(truth)] = truth
    return found


@dataclass(frozen=True)
class Pictures:
    """All pictures of a part, (n, h, w, 3), and the boxes in each, in pixels of these."""

    pixels: Pixels
    truths: tuple[Truth, ...]


class BoxStream:
    """Epoch after epoch of batches (RGB 0–255 float32 (b, h, w, 3), truth (b, m, 6)), the next one always ready.

    Size, order, changes and mosaics are functions of the seed and the epoch's number alone.
    """

    def __init__(self, pictures: Pictures, settings: DetectSettings, size: tuple[int, int], shuffle: bool, epoch: int):
        self.pictures, self.settings, self.size, self.shuffle, self.epoch = pictures, settings, size, shuffle, epoch
        count, batch = len(pictures.pixels), settings.train.batch_size
        # A last batch of one picture has no variance; in training it is left for another epoch.
        lone_last = shuffle and count > batch and count % batch == 1
        self.starts = range(0, count - lone_last, batch)

    def cardinality(self) -> int:
        """Batches an epoch."""
        return len(self.starts)

    def next_epoch(self) -> tuple[tuple[int, int], Any]:
        """(height, width) of its pictures, and a `tf.data.Dataset` that can be gone through once."""
        import tensorflow as tf

        random = np.random.default_rng((self.settings.train.seed, self.epoch))
        size = self.size
        if self.shuffle and self.settings.sizes:
            sizes = (size, *((side, side) for side in self.settings.sizes))
            size = sizes[random.integers(len(sizes))]
        # The last epochs see what the network will see: Ge et al. 2021, arXiv 2107.08430, §2.1.
        plain = self.epoch >= round(self.settings.train.epochs * (1 - self.settings.plain))
        share = 0.0 if plain else self.settings.mosaic
        self.epoch += 1
        signature = (
            tf.TensorSpec((None, *size, 3), tf.uint8),
            tf.TensorSpec((None, None, BOX_VALUES), tf.float32),
        )
        stream = tf.data.Dataset.from_generator(lambda: self._batches(random, size, share), output_signature=signature)
        stream = stream.map(lambda images, truth: (tf.cast(images, tf.float32), truth)).prefetch(2)
        options = tf.data.Options()
        options.autotune.enabled = False  # train.batches says why
        return size, stream.with_options(options).apply(tf.data.experimental.assert_cardinality(len(self.starts)))

    def _batches(
        self, random: np.random.Generator, size: tuple[int, int], share: float
    ) -> Iterator[tuple[Pixels, NDArray[np.float32]]]:
        count, batch = len(self.pictures.pixels), self.settings.train.batch_size
        order = random.permutation(count) if self.shuffle else np.arange(count)
        for start in self.starts:
            made = [self._picture(row, random, size, share) for row in order[start : start + batch]]
            yield np.stack([pixels for pixels, _ in made]), padded([truth for _, truth in made])

    def _picture(
        self, row: int, random: np.random.Generator, size: tuple[int, int], share: float
    ) -> tuple[Pixels, Truth]:
        all_pixels, truths = self.pictures.pixels, self.pictures.truths
        source: tuple[int, int] = all_pixels.shape[1:3]
        if not self.shuffle or not self.settings.train.augment:
            if source == size:
                return all_pixels[row], truths[row]
            move = stretched(source, size)
        elif random.random() < share:
            rows = [row, *random.integers(0, len(all_pixels), 3)]
            chosen = [all_pixels[i] for i in rows], [truths[i] for i in rows]
            pixels, truth = mosaic(*chosen, size, self.settings, random)
            return recoloured(pixels, self.settings, random), truth
        else:
            move = drawn_move(source, size, self.settings, random)
        pixels = move.of_pixels(all_pixels[row], *size)
        if self.shuffle and self.settings.train.augment:
            pixels = recoloured(pixels, self.settings, random)
        return pixels, move.of_boxes(truths[row], *size)
