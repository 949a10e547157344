"""Masks: what a segmenter's answers mean, and where what is true of a picture stands.

A mask is (h, w) uint8: the index of each pixel's class, or `IGNORE` where nothing is asked. Class 0 comes first in
every list of names, and is the background where the data has one.

    MaskSource     where the mask of one picture is, and what its values mean; plain data, kept beside the picture
    read_mask      the mask in it
    resize_mask    a mask by the nearest pixel, by the rules of `image.resize`

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
    """The mask (height, width) of a picture, out of probabilities (h, w, classes) or (h, w, 1) at the network's input.

    Raises:
        SettingError: an unknown rule.
    """
    left, top, width, height = area_of(rule, size, (probabilities.shape[0], probabilities.shape[1]))
    inner = probabilities[top : top + height, left : left + width]
    if inner.shape[:2] != size:
        layers = [cv2.resize(np.ascontiguousarray(inner[..., one]), size[::-1]) for one in range(inner.shape[-1])]
        inner = np.stack(layers, axis=-1)
    return np.asarray(inner[..., 0] > 0.5 if inner.shape[-1] == 1 else inner.argmax(-1), np.uint8)
