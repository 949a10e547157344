"""Predictions drawn onto a picture: boxes with legible labels, masks with a legend, a colour a class, in proportion
to the picture.

Imports nothing of the package.
"""

import colorsys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
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
VEIL = 0.5  # how much of a class' colour lies on its pixels


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


def draw_mask(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    predictions: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> NDArray[np.uint8]:
    """A copy of a picture (h, w, 3) under its mask (h, w): each class but 0 a veil with an outline; a legend of shares.

    Args:
        pixels: RGB.
        mask: class indices; those that there are no names for are left as they are.
        predictions: "label" and "share" of the classes in it.
        classes: all of the model, whose order decides on the colours.
    """
    palette = np.array([*palette_of(len(classes)), *[BLACK] * (256 - len(classes))], np.uint8)[:256]
    there = (mask > 0) & (mask < len(classes))
    colours = palette[mask]
    drawn = np.where(there[..., None], cv2.addWeighted(colours, VEIL, pixels, 1 - VEIL, 0), pixels)
    # Half of the line on each side of the edge, and on the side of a class that is drawn.
    width = max(1, max(LEAST_LINE, round(LINE * max(mask.shape))) // 2)
    around = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    edge = there & ((cv2.erode(mask, around) != mask) | (cv2.dilate(mask, around) != mask))
    drawn[edge] = colours[edge]
    image = Image.fromarray(drawn)
    canvas, font = ImageDraw.Draw(image), _font(max(LEAST_TEXT, round(TEXT * max(image.size))))
    places = {name: place for place, name in enumerate(classes)}
    top = 0.0
    for one in predictions:
        if places[one["label"]]:
            text = f"{one['label']} {100 * one['share']:.1f} %"
            top = _tag(canvas, image.size, text, (0, top), colour_of(places[one["label"]]), font)
    return np.asarray(image)


def palette_of(classes: int) -> list[Colour]:
    """The colour of each class in a mask: black for class 0, the others' as they are drawn."""
    return [BLACK, *(colour_of(place) for place in range(1, classes))]


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
    _, _, _, height = _ground(canvas, text, font)
    _tag(canvas, size, text, (box[0], round(box[1]) - height if box[1] >= height else box[1]), colour, font)


def _ground(canvas: ImageDraw.ImageDraw, text: str, font: Any) -> tuple[float, float, float, float]:
    """Of the ground of a text: where in it the text begins, its width and height."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    pad = max(1, round((bottom - top) / 5))
    return pad - left, pad - top, right - left + 2 * pad, bottom - top + 2 * pad


def _tag(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], text: str, at: tuple[float, float], colour: Colour, font: Any
) -> float:
    """A text on a ground of a colour, moved so that it is in the picture; where its ground ends below."""
    left, top, width, height = _ground(canvas, text, font)
    x = min(max(0, round(at[0])), max(0, size[0] - round(width)))
    y = min(max(0, round(at[1])), max(0, size[1] - round(height)))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    ink = max((BLACK, WHITE), key=lambda other: contrast(colour, other))
    canvas.text((x + left, y + top), text, fill=ink, font=font)
    return y + height
