"""Predictions drawn onto a picture: boxes with legible labels, a colour a class, in proportion to the picture.

Imports nothing of the package.
"""

import colorsys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# Turned by the golden angle, hues of neighbouring classes are far apart, however many there are.
GOLDEN_TURN = 0.381966
# Relative luminances that stand out by 3 to 1 and more from black and from white alike (WCAG 2.1, 1.4.11).
LUMINANCES = (0.18, 0.12, 0.27)
SATURATION = 0.85
# Shares of the picture's longer side, and the least in pixels.
LINE, LEAST_LINE = 0.003, 2
TEXT, LEAST_TEXT = 0.02, 11


def draw(
    pixels: NDArray[np.uint8], predictions: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """A copy of a picture (h, w, 3) with its predictions drawn on, the best on top.

    Args:
        pixels: RGB.
        predictions: as a task decodes them. Those with a "box" are drawn there; of others the best is written into
            the corner.
        classes: all of the model, whose order decides on the colours.
    """
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    side = max(image.size)
    line, font = max(LEAST_LINE, round(LINE * side)), _font(max(LEAST_TEXT, round(TEXT * side)))
    colours = {name: colour_of(place) for place, name in enumerate(classes)}
    boxed = [one for one in predictions if "box" in one]
    for one in reversed(boxed):
        _frame(canvas, one["box"], colours[one["label"]], line)
        _label(canvas, image.size, one, one["box"], colours[one["label"]], font)
    for one in predictions[:1] if not boxed else ():
        _label(canvas, image.size, one, (0, 0, image.width, image.height), colours[one["label"]], font)
    return np.asarray(image)


@lru_cache(maxsize=4096)
def colour_of(place: int) -> Colour:
    """The colour of a class by its place: always the same, and seen on light and on dark."""
    hue, wanted = place * GOLDEN_TURN % 1, LUMINANCES[place % len(LUMINANCES)]
    low, high = 0.0, 1.0
    for _ in range(12):  # luminance rises with lightness
        middle = (low + high) / 2
        low, high = (middle, high) if luminance(_rgb(hue, middle)) < wanted else (low, middle)
    return _rgb(hue, high)


def luminance(colour: Colour) -> float:
    """Relative luminance, 0–1 (WCAG 2.1)."""
    linear = [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (value / 255 for value in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: Colour, b: Colour) -> float:
    """How far two colours stand apart, 1–21 (WCAG 2.1)."""
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def _rgb(hue: float, lightness: float) -> Colour:
    red, green, blue = (round(255 * share) for share in colorsys.hls_to_rgb(hue, lightness, SATURATION))
    return red, green, blue


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _frame(canvas: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour, line: int) -> None:
    left, top, right, bottom = (round(side) for side in box)
    canvas.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)


def _label(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    one: Mapping[str, Any],
    box: Sequence[float],
    colour: Colour,
    font: Any,
) -> None:
    """On a ground of the box' colour above it; inside where there is no room; never out of the picture."""
    text = f"{one['label']} {100 * one['score']:.0f} %"
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    pad = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(0, round(box[0])), max(0, size[0] - round(width)))
    y = round(box[1]) - height if box[1] >= height else min(max(0, round(box[1])), max(0, size[1] - round(height)))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    ink = max((BLACK, WHITE), key=lambda other: contrast(colour, other))
    canvas.text((x + pad - left, y + pad - top), text, fill=ink, font=font)
