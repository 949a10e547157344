"""A mask → the outlines of its pieces, exact to the pixel's corner, as COCO or GeoJSON have them.

A piece is what hangs together of one class, corners included; it has one outer ring and perhaps holes. Points are
corners of pixels: the piece of the one pixel at the top left is 0,0 – 1,0 – 1,1 – 0,1.

Imports masks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.masks import IGNORE, Mask

Ring = NDArray[np.int64]  # (k, 2): x, y in pixels of the picture; the last point is joined to the first


@dataclass(frozen=True)
class Piece:
    """One piece of a class: where it lies."""

    label: int  # the class' place
    outer: Ring
    holes: tuple[Ring, ...]

    @property
    def area(self) -> int:
        """Pixels."""
        return _area(self.outer) - sum(_area(hole) for hole in self.holes)


def pieces_of(mask: Mask) -> Iterator[Piece]:
    """The pieces of all classes but 0 in a mask (h, w), class by class."""
    for label in range(1, IGNORE):
        there = np.asarray(mask == label, np.uint8)
        left, top, width, height = cv2.boundingRect(there)
        if not width:
            continue
        # Contours go through the middles of pixels. Of a mask of twice the size, a middle is next to one corner only.
        double = there[top : top + height, left : left + width].repeat(2, axis=0).repeat(2, axis=1)
        contours, tree = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        rings = [_corners(contour[:, 0].astype(np.int64)) + (left, top) for contour in contours]
        holes: dict[int, list[Ring]] = {}
        for ring, (_, _, _, parent) in zip(rings, tree[0], strict=True):
            if parent >= 0:
                holes.setdefault(int(parent), []).append(ring)
        for place, (ring, (_, _, _, parent)) in enumerate(zip(rings, tree[0], strict=True)):
            if parent < 0:
                yield Piece(label, ring, tuple(holes.get(place, ())))


def _corners(double: Ring) -> Ring:
    """The corners at which a ring of the doubled mask turns, in pixels of the mask."""
    points = (double + 1) // 2
    moves = np.roll(points, -1, axis=0) - points
    points = points[moves.any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _area(ring: Ring) -> int:
    """By the shoelace formula, whichever way round."""
    x, y = ring[:, 0], ring[:, 1]
    return int(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))) // 2


def _joined(piece: Piece) -> Ring:
    """One ring: COCO's have no holes, so each is entered and left again by the same cut."""
    ring = piece.outer
    # From the right to the left: so the nearest point to the right of a hole is never cut off from it by another hole.
    for hole in sorted(piece.holes, key=lambda hole: int(-hole[:, 0].max())):
        start = int(hole[:, 0].argmax())
        away = np.abs(ring - hole[start]).sum(axis=1)
        near = int(away.argmin())
        around = np.concatenate([hole[start:], hole[: start + 1]])
        if _turns_right(hole) == _turns_right(piece.outer):
            around = around[::-1]
        ring = np.concatenate([ring[: near + 1], around, ring[near:]])
    return ring


def _turns_right(ring: Ring) -> bool:
    x, y = ring[:, 0], ring[:, 1]
    return bool(x @ np.roll(y, -1) > y @ np.roll(x, -1))


def as_coco(pieces: Iterator[Piece], classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's annotations: "category_id" (a class' place), "category", "segmentation", "bbox", "area", "iscrowd"."""
    found = []
    for piece in pieces:
        (left, top), (right, bottom) = piece.outer.min(axis=0).tolist(), piece.outer.max(axis=0).tolist()
        found.append({
            "category_id": piece.label,
            "category": classes[piece.label],
            "segmentation": [_joined(piece).ravel().tolist()],
            "bbox": [left, top, right - left, bottom - top],
            "area": piece.area,
            "iscrowd": 0,
        })  # fmt: skip
    return found


def as_geojson(pieces: Iterator[Piece], classes: Sequence[str]) -> dict[str, Any]:
    """A FeatureCollection of polygons, each closed, holes after the outer ring; x to the right and y down, in pixels."""
    features = [
        {
            "type": "Feature",
            "properties": {"class": piece.label, "label": classes[piece.label], "area": piece.area},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in (piece.outer, *piece.holes)],
            },
        }
        for piece in pieces
    ]
    return {"type": "FeatureCollection", "features": features}


FORMS: dict[str, Callable[[Iterator[Piece], Sequence[str]], Any]] = {"coco": as_coco, "geojson": as_geojson}
