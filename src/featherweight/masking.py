"""A loaded segmenter × a picture → its mask, whole or by tiles; and what becomes of it: shares, a PNG, outlines, a
drawing.

A picture comes and its mask goes by rows, so that neither has to fit into memory. Imports draw, errors, image, masks,
polygons, runtimes, strips and tiles.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.draw import draw_mask, palette_of
from featherweight.errors import SettingError
from featherweight.image import MAX_PIXELS, Pixels, Rows, resize
from featherweight.masks import Mask, mask_of, shares_of
from featherweight.polygons import FORMS, pieces_of
from featherweight.runtimes import Session
from featherweight.strips import IndexPng
from featherweight.tiles import maps_of, masks_in

MOST_DRAWN = 16_000_000  # pixels; of larger pictures each second, third … row and column is drawn


@dataclass(frozen=True)
class Masking:
    """A loaded file, and what is wanted of each mask."""

    session: Session
    classes: tuple[str, ...]
    resize: str  # one of `boxes.RESIZES`
    polygons: str | None = None  # one of `polygons.FORMS`
    drawn: bool = False
    top: int | None = None  # classes told, by default all that are there

    def __post_init__(self) -> None:
        if self.polygons is not None and self.polygons not in FORMS:
            raise SettingError(f"unknown polygons {self.polygons!r:.40}; known: {', '.join(FORMS)}")

    def rows(self, picture: Rows) -> Iterator[tuple[Pixels, Mask]]:
        """Rows (k, w, 3) of a picture with their mask (k, w), from above to below.

        Raises:
            FeatherweightError: the file does not run, answers something else, or the picture cannot be read.
        """
        into = self.session.height, self.session.width
        if self.resize == "tile":
            yield from masks_in(self._run, picture, *into)
            return
        pixels = picture.read(picture.height)
        maps = self._run(resize(pixels, *into, self.resize)[None])[0]
        yield pixels, mask_of(maps, (picture.height, picture.width), self.resize)

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return maps_of(self.session.run(batch), len(self.classes))

    def told(self, picture: Rows, into: Path | None) -> "Masked":
        """All that is wanted of one picture; its mask goes into a PNG where a path is given.

        Raises:
            SettingError: outlines of a picture that is too large for them.
            FeatherweightError: as `rows`, or the PNG cannot be written.
        """
        pixels = picture.height * picture.width
        if self.polygons is not None and pixels > MAX_PIXELS:
            raise SettingError(
                f"polygons of {picture.width}×{picture.height} pixels; at most {MAX_PIXELS:,} are outlined: "
                "leave them out, and take the mask"
            )
        counts, kept = np.zeros(len(self.classes), np.int64), []
        sample = _Sample(math.ceil(math.sqrt(pixels / MOST_DRAWN)))
        size = picture.height, picture.width
        with IndexPng(into, *size, palette_of(len(self.classes))) if into else contextlib.nullcontext() as png:
            for some, mask in self.rows(picture):
                # Not by `bincount`, which takes eight bytes a pixel.
                counts += [np.count_nonzero(mask == label) for label in range(len(self.classes))]
                if png is not None:
                    png.put(mask)
                if self.polygons is not None:
                    kept.append(mask)
                if self.drawn:
                    sample.put(some, mask)
        fields: dict[str, Any] = {"predictions": shares_of(counts, self.classes)[: self.top]}
        if into is not None:
            fields["mask"] = str(into)
        if self.polygons is not None:
            fields["polygons"] = FORMS[self.polygons](pieces_of(np.concatenate(kept)), self.classes)
        return Masked(fields, sample, self.classes)


class _Sample:
    """Each so-many-th row and column of a picture and of its mask."""

    def __init__(self, every: int):
        self._every, self._next = every, 0
        self._pixels: list[Pixels] = []
        self._masks: list[Mask] = []

    def put(self, pixels: Pixels, mask: Mask) -> None:
        start = -self._next % self._every
        self._pixels.append(pixels[start :: self._every, :: self._every].copy())
        self._masks.append(mask[start :: self._every, :: self._every].copy())
        self._next += len(mask)

    def both(self) -> tuple[Pixels, Mask]:
        return np.concatenate(self._pixels), np.concatenate(self._masks)


@dataclass(frozen=True)
class Masked:
    """What is told of a picture, and its drawing."""

    fields: dict[str, Any]  # plain values: "predictions", where asked for "mask" (a path) and "polygons"
    sample: _Sample
    classes: tuple[str, ...]

    def drawing(self) -> Pixels:
        """The picture under its mask, with a legend; only where `drawn` was asked for."""
        return draw_mask(*self.sample.both(), self.fields["predictions"], self.classes)
