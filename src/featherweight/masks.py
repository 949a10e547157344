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

Imports boxes, errors, image and outlines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import area_of, middle
from featherweight.errors import ImageError, LabelError
from featherweight.image import Raw, decode_raw, read_bytes, upright
from featherweight.outlines import fill, unroll

Mask = NDArray[np.uint8]
IGNORE = 255
MOST_CLASSES = 255
KINDS = ("values", "colours", "polygons")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that change height and width


@dataclass(frozen=True)
class MaskSource:
    """The mask of one picture: a file whose values or colours stand for classes, or shapes.

    `legend` has for each value, (v,), or colour, (r, g, b), the class that it stands for: (key, class index or
    `IGNORE`). Shapes lie on a ground of class 0: first `runs`, (class index, COCO's run lengths), then `polygons`,
    (class index, rings), each ring x, y, x, y … in pixels of the picture; later ones lie on earlier ones. `turn` is
    the EXIF orientation by which a file of the picture's size before it was turned is made upright.
    """

    path: str = ""
    kind: str = "values"
    legend: tuple[tuple[tuple[int, ...], int], ...] = ()
    polygons: tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] = ()
    runs: tuple[tuple[int, tuple[int, ...]], ...] = ()
    turn: int = 1

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
        tuple((label, tuple(runs)) for label, runs in plain.get("runs", ())),
        plain.get("turn", 1),
    )


def read_mask(source: MaskSource, height: int, width: int) -> Mask:
    """The mask (height, width) of a picture of that size.

    Raises:
        LabelError: a file that cannot be read, is of another size, or has values that the legend lacks; shapes that
            cannot be filled.
    """
    if source.path == "":
        return _painted(source, height, width)
    raw = read_raw(source.path)
    codes = codes_of(raw, source.kind)
    if codes.shape == (width, height) != (height, width) and source.turn in SIDEWAYS:
        codes = upright(codes, source.turn)
    if codes.shape != (height, width):
        raise LabelError(f"its mask has {codes.shape[1]}×{codes.shape[0]} pixels, and it has {width}×{height}")
    return _looked_up(source, raw, codes)


def read_raw(path: str | Path) -> Raw:
    """The values in a mask file, as `image.decode_raw`.

    Raises:
        LabelError: it cannot be read.
    """
    try:
        return decode_raw(read_bytes(path))
    except ImageError as error:
        raise LabelError(f"its mask cannot be read: {error}") from error


def codes_of(raw: Raw, kind: str) -> NDArray[np.integer[Any]]:
    """One number a pixel, (h, w): its value, or its colour as 65536 r + 256 g + b.

    A palette's indices are values, and become colours only where the kind says so; equal red, green and blue are one
    value.

    Raises:
        LabelError: colours where values are wanted, or values over 255.
    """
    values = raw.values
    if kind == "colours":
        if values.ndim == 2:
            if values.max(initial=0) > 255:
                raise LabelError(f"its mask has the value {values.max()} and no colours; wanted those of the legend")
            palette = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
            if raw.palette is not None:
                palette[: len(raw.palette)] = raw.palette[:256]
            values = palette[values]
        red, green, blue = np.moveaxis(values.astype(np.int32), 2, 0)
        return np.asarray(red << 16 | green << 8 | blue, np.int32)
    if values.ndim == 3:
        if is_coloured(raw):
            if raw.lossy:
                raise LabelError(f"its mask is a {raw.kind} in colours, which smears them; wanted a PNG")
            raise LabelError(
                "its mask is in colours, and no legend says what they stand for; wanted a legend.csv of name,r,g,b"
            )
        values = values[:, :, 0]
    if values.max(initial=0) > 255:
        raise LabelError(
            f"its mask has the value {values.max()}; wanted classes of 0 to 254, in 8 bits (numbers of single things, "
            "one for each nucleus or car, are no classes)"
        )
    return np.asarray(values, np.uint8)


def is_coloured(raw: Raw) -> bool:
    """Whether a file has pixels of other than grey, palettes aside."""
    values = raw.values
    return values.ndim == 3 and bool((values[:, :, :1] != values[:, :, 1:]).any())


def histogram(values: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How many of each of 0 to 255 there are in values (h, w), (256,); without a copy of a large mask in 64 bits."""
    blocks = np.array_split(values, max(1, values.size // 2**20))
    return np.asarray(sum(np.bincount(block.ravel(), minlength=256) for block in blocks), np.int64)


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


def shares_of(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """`[{"label", "share"}, …]` of the classes that are there, the greatest first; shares are of all pixels, 0–1.

    Args:
        counts: pixels of each value of a mask, (classes or more,).
        classes: their names.
    """
    total = max(1, int(counts.sum()))
    order = np.argsort(-counts[: len(classes)], kind="stable")
    return [{"label": classes[one], "share": round(float(counts[one] / total), 6)} for one in order if counts[one]]


def _looked_up(source: MaskSource, raw: Raw, codes: NDArray[np.integer[Any]]) -> Mask:
    """Codes → classes, by the legend."""
    known = {_code(key): label for key, label in source.legend}
    if source.kind == "colours":
        order = np.array(sorted(known) or [0], np.int32)
        labels = np.array([known.get(code, -1) for code in order.tolist()], np.int16)
        place = np.minimum(np.searchsorted(order, codes), len(order) - 1)
        found = np.where(order[place] == codes, labels[place], np.int16(-1))
    else:
        found = np.array([known.get(value, -1) for value in range(256)], np.int16)[codes]
    unknown = codes[found < 0]
    if raw.lossy:
        shown = len(np.unique(codes))
        if shown > 2 or len(unknown):
            raise LabelError(
                f"its mask is a {raw.kind}, which smears values between those of the classes ({shown} different ones); "
                "wanted a PNG"
            )
    if len(unknown):
        others = len(np.unique(unknown))
        more = f" and {others - 1} more" if others > 1 else ""
        what = "values" if others > 1 else "value"
        raise LabelError(f"its mask has the {what} {_shown(int(unknown[0]), source.kind)}{more}, of no class")
    return np.asarray(found, np.uint8)


def _code(key: tuple[int, ...]) -> int:
    return key[0] if len(key) == 1 else key[0] << 16 | key[1] << 8 | key[2]


def _shown(code: int, kind: str) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})" if kind == "colours" else str(code)


def _painted(source: MaskSource, height: int, width: int) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    for label, runs in source.runs:
        mask[unroll(runs, height, width)] = label
    for label, rings in source.polygons:
        fill(mask, rings, label)
    return mask
