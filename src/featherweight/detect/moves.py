"""Pictures changed together with their boxes: moved, zoomed, turned left to right, recoloured, put together by four.

All on bytes, and each picture is sampled once whatever is done to it: a `Move` says where its pixels go, several sizes
of output included. Keras' own layers with boxes take longer than a step of a light network, and their order of random
numbers is no function of an epoch's number alone.

Imports settings; cv2.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.detect.settings import DetectSettings

Pixels = NDArray[np.uint8]
Truth = NDArray[np.float32]  # (k, 6): left, top, right, bottom in pixels, class, 1 for hard ones
GREY = 114  # what is shown beyond a picture's edge
# A box of which less than this is left in the picture is no longer one that anybody could find; nor one this small.
LEAST_SHARE, LEAST_SIDE = 0.2, 2.0


@dataclass(frozen=True)
class Move:
    """Where a point of a picture goes: (x · across + right, y · down + lower); negative factors turn it round."""

    across: float
    down: float
    right: float
    lower: float

    def of_pixels(self, pixels: Pixels, height: int, width: int, border: int = cv2.BORDER_CONSTANT) -> Pixels:
        """The picture in another of that size; pixels have their middle at a half. Beyond its edge it is grey, or what
        another of OpenCV's rules for borders makes of it.
        """
        half = 0.5
        matrix = np.array(
            [
                [self.across, 0, self.right + half * self.across - half],
                [0, self.down, self.lower + half * self.down - half],
            ]
        )
        shown = cv2.warpAffine(
            pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=(GREY,) * 3
        )
        return np.asarray(shown, np.uint8)

    def of_boxes(self, truth: Truth, height: int, width: int) -> Truth:
        """The boxes in a picture of that size: clipped, and without those of which little or nothing is left."""
        x = np.sort(truth[:, [0, 2]] * self.across + self.right, axis=1)
        y = np.sort(truth[:, [1, 3]] * self.down + self.lower, axis=1)
        whole = (x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])
        x, y = np.clip(x, 0, width), np.clip(y, 0, height)
        sides = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
        left = (sides[0] * sides[1] >= LEAST_SHARE * whole) & (np.minimum(*sides) >= LEAST_SIDE)
        moved: Truth = np.column_stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1], truth[:, 4:]]).astype(np.float32)
        kept: Truth = moved[left]
        return kept


def stretched(source: tuple[int, int], size: tuple[int, int]) -> Move:
    """A picture of (height, width) `source` fills one of `size`."""
    return Move(size[1] / source[1], size[0] / source[0], 0.0, 0.0)


def drawn_move(
    source: tuple[int, int], size: tuple[int, int], settings: DetectSettings, random: np.random.Generator
) -> Move:
    """A random one: zoomed about the middle, each side a little by itself, shifted, and turned."""
    how = settings.train
    zoom = np.exp(random.uniform(np.log1p(-how.zoom), np.log1p(how.zoom)))
    narrow = np.exp(random.uniform(-1, 1) * np.log1p(settings.aspect) / 2)
    shift = random.uniform(-how.shift, how.shift, 2)
    turned = random.random(2) < (0.5 * how.flip, 0.5 * settings.flip_vertical)
    factors, offsets = [], []
    for place, factor in enumerate((zoom * narrow, zoom / narrow)):
        wanted, given = size[1 - place], source[1 - place]
        scale = factor * wanted / given * (-1 if turned[place] else 1)
        factors.append(float(scale))
        offsets.append(float(wanted * (0.5 + shift[place]) - scale * given / 2))
    return Move(*factors, *offsets)


def mosaic(
    pictures: list[Pixels],
    truths: list[Truth],
    size: tuple[int, int],
    settings: DetectSettings,
    random: np.random.Generator,
) -> tuple[Pixels, Truth]:
    """Four pictures around a random point, of each a random cut-out that fills its quarter. Bochkovskiy et al. 2020,
    arXiv 2004.10934, §3.3.

    It differs from that paper in that no quarter has an empty part, and in the zoom, which is the settings'.
    """
    height, width = size
    middle = random.uniform(0.3, 0.7, 2) * (width, height)
    x, y = (round(float(place)) for place in middle)
    shown = np.empty((height, width, 3), np.uint8)
    boxes = []
    corners = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    for pixels, truth, (left, top, right, bottom) in zip(pictures, truths, corners, strict=True):
        quarter = bottom - top, right - left
        move = _cut_out(pixels.shape[:2], quarter, size, settings, random)
        shown[top:bottom, left:right] = move.of_pixels(pixels, *quarter, cv2.BORDER_REPLICATE)
        moved = move.of_boxes(truth, *quarter)
        moved[:, :4] += np.array([left, top, left, top], np.float32)
        boxes.append(moved)
    return shown, np.concatenate(boxes)


def _cut_out(
    source: tuple[int, int],
    quarter: tuple[int, int],
    size: tuple[int, int],
    settings: DetectSettings,
    random: np.random.Generator,
) -> Move:
    """A window of a picture that fills the quarter, at a scale near to that of the whole picture in the whole size."""
    least = max(quarter[i] / size[i] for i in (0, 1))
    how = settings.train
    zoom = max(least, float(random.uniform(1 - how.zoom, 1 + how.zoom)))
    turned = random.random(2) < (0.5 * how.flip, 0.5 * settings.flip_vertical)
    factors, offsets = [], []
    for place in (0, 1):
        scale = zoom * size[1 - place] / source[1 - place]
        room = scale * source[1 - place] - quarter[1 - place]
        offset = -random.uniform(0, max(room, 0.0))
        if turned[place]:
            scale, offset = -scale, offset + scale * source[1 - place]
        factors.append(float(scale))
        offsets.append(float(offset))
    return Move(*factors, *offsets)


def recoloured(pixels: Pixels, settings: DetectSettings, random: np.random.Generator) -> Pixels:
    """Hue turned, saturation and brightness multiplied, all at random within the settings."""
    most = np.array([settings.hue, settings.saturation, settings.train.contrast])
    if not most.any():
        return pixels
    turn, saturation, brightness = random.uniform(-1, 1, 3) * most + (0, 1, 1)
    values = np.arange(256)
    # A picture of bytes has hues of 0–179.
    tables = (
        (values + round(turn * 180)) % 180,
        np.clip(values * saturation, 0, 255),
        np.clip(values * brightness, 0, 255),
    )
    channels = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    changed = [cv2.LUT(one, table.astype(np.uint8)) for one, table in zip(channels, tables, strict=True)]
    return np.asarray(cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2RGB), np.uint8)
