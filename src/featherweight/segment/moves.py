"""Pictures changed together with their masks: moved, zoomed, turned, recoloured.

All on bytes, and each picture is sampled once, whatever is done to it: a `Move` is one affine map, by which a picture
goes bilinearly and its mask by the nearest pixel. Beyond the edge a picture is mirrored, and its mask is `IGNORE`.

Imports masks and settings; cv2.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.masks import IGNORE, Mask
from featherweight.segment.settings import SegmentSettings

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Move:
    """Where a point (x, y) of a picture goes: `turn` (2, 2) · (point - `start`) + `end`; pixels have their middle at a
    half.
    """

    turn: tuple[tuple[float, float], tuple[float, float]]
    start: tuple[float, float]
    end: tuple[float, float]

    def of_pixels(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """The picture in another of that size."""
        shown = cv2.warpAffine(
            pixels, self._matrix(), (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(shown, np.uint8)

    def of_mask(self, mask: Mask, height: int, width: int) -> Mask:
        """Its mask likewise."""
        shown = cv2.warpAffine(
            mask, self._matrix(), (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
            borderValue=(IGNORE,),
        )  # fmt: skip
        return np.asarray(shown, np.uint8)

    def _matrix(self) -> NDArray[np.float64]:
        """For OpenCV, where pixels have their middle at whole numbers."""
        turn = np.array(self.turn)
        offset = np.array(self.end) - turn @ np.array(self.start)
        return np.column_stack([turn, offset + turn @ [0.5, 0.5] - 0.5])


def drawn_move(
    source: tuple[int, int],
    size: tuple[int, int],
    settings: SegmentSettings,
    random: np.random.Generator,
    around: tuple[float, float] | None = None,
) -> Move:
    """A random one of a picture of (height, width) `source` to one of `size`: zoomed, turned round and over, shifted.

    Args:
        source: of the picture.
        size: of what comes out.
        settings: how much at most.
        random: what draws.
        around: the point (x, y) of the picture that comes to the middle, at the picture's own scale; by default the
            picture's middle comes there, and the whole fills the size.
    """
    how = settings.train
    zoom = float(np.exp(random.uniform(np.log1p(-how.zoom), np.log1p(how.zoom))))
    angle = 2 * math.pi * float(random.uniform(-how.rotate, how.rotate))
    shift = random.uniform(-how.shift, how.shift, 2)
    over = random.random(2) < (0.5 * how.flip, 0.5 * settings.flip_vertical)
    scales = (size[1] / source[1], size[0] / source[0]) if around is None else (1.0, 1.0)
    across, down = (zoom * scale * (-1 if turned else 1) for scale, turned in zip(scales, over, strict=True))
    cos, sin = math.cos(angle), math.sin(angle)
    start = around or (source[1] / 2, source[0] / 2)
    end = size[1] * (0.5 + float(shift[0])), size[0] * (0.5 + float(shift[1]))
    return Move(((cos * across, -sin * down), (sin * across, cos * down)), start, end)


def recoloured(pixels: Pixels, settings: SegmentSettings, random: np.random.Generator) -> Pixels:
    """Contrast about the mean and brightness changed at random within the settings. Brightness is multiplied: to add to
    it would take all that there is to see from a dark picture.
    """
    contrast, brightness = random.uniform(-1, 1, 2) * (settings.train.contrast, settings.brightness)
    if not contrast and not brightness:
        return pixels
    mean = float(pixels.mean())
    table = np.clip(((np.arange(256) - mean) * (1 + contrast) + mean) * (1 + brightness), 0, 255)
    return np.asarray(cv2.LUT(pixels, np.rint(table).astype(np.uint8)), np.uint8)
