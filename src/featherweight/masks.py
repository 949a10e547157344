"""Masks: what a segmenter's answers mean, and where what is true of a picture stands.

A mask is (h, w) uint8: the index of each pixel's class, or `IGNORE` where nothing is asked. Class 0 comes first in
every list of names, and is the background where the data has one.

    MaskSource     where the mask of one picture is, and what its values mean; plain data, kept beside the picture
    read_mask      the mask in it
    resize_mask    a mask by the nearest pixel, by the rules of `image.resize`
    mask_of        probabilities of the network's input → the mask of the picture
    placed_mask    the same of class indices

A segmenter has one output (n, h, w, classes) of probabilities at the size of its input; one for two classes may be
(n, h, w, 1), the probability of class 1. A file of somebody else may give the indices themselves, (n, h, w).

Imports boxes and errors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featherweight.boxes import area_of, middle
from featherweight.errors import LabelError

Mask = NDArray[np.uint8]
IGNORE = 255
MOST_CLASSES = 255
KINDS = ("values", "colours", "polygons")


@dataclass(frozen=True)
class MaskSource:
    """The mask of one picture: a file whose values or colours stand for classes, or polygons.

    `legend` has for each value, (v,), or colour, (r, g, b), the class that it stands for: (key, class index or
    `IGNORE`). `polygons` are (class index, rings), each ring x, y, x, y … in pixels of the picture; later ones lie on
    earlier ones, on a ground of class 0.
    """

    path: str = ""
    kind: str = "values"
    legend: tuple[tuple[tuple[int, ...], int], ...] = ()
    polygons: tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def mask_source_of(plain: Mapping[str, Any]) -> MaskSource:
    """What `as_dict` made plain, after JSON too."""
    return MaskSource(
        plain["path"],
        plain["kind"],
        tuple((tuple(key), label) for key, label in plain["legend"]),
        tuple((label, tuple(tuple(ring) for ring in rings)) for label, rings in plain["polygons"]),
    )


def read_mask(source: MaskSource, height: int, width: int) -> Mask:
    """The mask (height, width) of a picture of that size.

    Raises:
        LabelError: a file that cannot be read, is of another size, or has values that the legend lacks.
    """
    try:
        with Image.open(source.path) as image:
            values = np.asarray(image)
    except OSError as error:
        raise LabelError(f"its mask cannot be read: {error}") from error
    if values.shape[:2] != (height, width):
        raise LabelError(f"its mask has {values.shape[1]}×{values.shape[0]} pixels, and it has {width}×{height}")
    known = np.full(256, -1, np.int16)
    for key, label in source.legend:
        known[key[0]] = label
    found = known[values]
    if (found < 0).any():
        raise LabelError(f"its mask has the value {values[found < 0][0]}, which stands for no class")
    return np.asarray(found, np.uint8)


def resize_mask(mask: Mask, height: int, width: int, rule: str = "stretch") -> Mask:
    """A mask (h, w) as a picture's becomes (height, width) by a rule of `image.resize`, by the nearest pixel; what a
    letterbox adds is `IGNORE`.

    Raises:
        SettingError: an unknown rule.
    """
    left, top, inner_width, inner_height = area_of(rule, (mask.shape[0], mask.shape[1]), (height, width))
    if rule == "tile":
        return middle(mask, height, width)
    inner = cv2.resize(mask, (inner_width, inner_height), interpolation=cv2.INTER_NEAREST_EXACT)
    if inner.shape == (height, width):
        return np.asarray(inner, np.uint8)
    boxed = np.full((height, width), IGNORE, np.uint8)
    boxed[top : top + inner_height, left : left + inner_width] = inner
    return boxed


def mask_of(probabilities: NDArray[np.float32], size: tuple[int, int], rule: str) -> Mask:
    """The mask (height, width) of a picture, out of probabilities at the network's input.

    What a letterbox added is cut off; each class is resized bilinearly to the picture's size, so that the edges of
    both are the same; the greatest counts, of equal ones the first. One channel is the probability of class 1, which
    counts from above 0.5 on.

    Args:
        probabilities: (h, w, classes), or (h, w, 1).
        size: (height, width) of the picture.
        rule: how the picture became the input, one of `boxes.RESIZES`.

    Raises:
        SettingError: an unknown rule.
    """
    return chosen(probabilities, size, rule)[0]


def chosen(probabilities: NDArray[np.float32], size: tuple[int, int], rule: str) -> tuple[Mask, NDArray[np.float32]]:
    """As `mask_of`, and beside it the probability of the chosen class of each pixel, (height, width)."""
    inner = _inner(probabilities, size, rule)
    best = _linear(inner[..., 0], size)
    if inner.shape[-1] == 1:
        found = (best > 0.5).astype(np.uint8)
        return found, np.where(found, best, 1 - best)
    found = np.zeros(size, np.uint8)
    for label in range(1, inner.shape[-1]):  # one class at a time: all of them may be more than memory holds
        more = _linear(inner[..., label], size)
        above = more > best
        found[above] = label
        np.maximum(best, more, out=best)
    return found, best


def placed_mask(indices: Mask, size: tuple[int, int], rule: str) -> Mask:
    """The mask (height, width) of a picture, out of class indices (h, w) at the network's input: the nearest pixel's.

    Raises:
        SettingError: an unknown rule.
    """
    height, width = size
    inner = _inner(indices, size, rule)
    if inner.shape == (height, width):
        return np.asarray(inner, np.uint8)
    return np.asarray(cv2.resize(inner, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _inner(values: NDArray[Any], size: tuple[int, int], rule: str) -> NDArray[Any]:
    """The part of (h, w, …) that the picture lies in."""
    left, top, width, height = area_of(rule, size, (values.shape[0], values.shape[1]))
    return values[top : top + height, left : left + width]


def _linear(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A new (height, width) of (h, w) by bilinear sampling."""
    if values.shape == size:
        return values.astype(np.float32)
    plane = np.ascontiguousarray(values, np.float32)
    return np.asarray(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
