"""Outlines cover the pixels that they stand for, no more and no fewer."""

import json

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featherweight.masks import IGNORE
from featherweight.polygons import FORMS, Piece, as_coco, as_geojson, pieces_of

CLASSES = ("ground", "lake", "wood")


def inside(rings: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Which pixels' middles an odd number of edges to their right surround."""
    crossed = np.zeros((height, width), int)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                rows = (y > min(y0, y1)) & (y < max(y0, y1))
                at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                crossed += rows[:, None] & (x[None] < at[:, None])
    return crossed % 2 == 1


def test_one_pixel_and_a_ring_by_hand() -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[0, 0] = 2
    mask[1:4, 1:4] = 1
    mask[2, 2] = 0
    ring, dot = pieces_of(mask)
    assert (dot.label, dot.area, len(dot.outer), dot.holes) == (2, 1, 4, ())
    assert sorted(map(tuple, dot.outer.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sorted(map(tuple, ring.outer.tolist())) == [(1, 1), (1, 4), (4, 1), (4, 4)]
    assert sorted(map(tuple, ring.holes[0].tolist())) == [(2, 2), (2, 3), (3, 2), (3, 3)]
    found = as_coco(pieces_of(mask), CLASSES)
    assert [(one["category"], one["bbox"], one["area"]) for one in found] == [
        ("lake", [1, 1, 3, 3], 8), ("wood", [0, 0, 1, 1], 1)
    ]  # fmt: skip
    features = as_geojson(pieces_of(mask), CLASSES)["features"]
    assert features[0]["properties"] == {"class": 1, "label": "lake", "area": 8}
    for line in features[0]["geometry"]["coordinates"]:
        assert line[0] == line[-1] and len(line) == 5
    json.dumps([found, features])
    assert set(FORMS) == {"coco", "geojson"}


def test_what_is_ignored_and_the_ground_have_no_outline() -> None:
    assert not list(pieces_of(np.array([[0, IGNORE], [IGNORE, 0]], np.uint8)))


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2])))
def test_rings_cover_their_pixels(mask: np.ndarray) -> None:
    pieces = list(pieces_of(mask))
    for label in (1, 2):
        own = [piece for piece in pieces if piece.label == label]
        assert sum(piece.area for piece in own) == (mask == label).sum()
        there = np.zeros(mask.shape, bool)
        for piece in own:
            there |= inside([piece.outer, *piece.holes], *mask.shape)
        assert (there == (mask == label)).all()
        joined = np.zeros(mask.shape, bool)
        for one in as_coco(iter(own), CLASSES):
            joined |= inside([np.array(one["segmentation"][0]).reshape(-1, 2)], *mask.shape)
        assert (joined == (mask == label)).all()
        assert len(own) == cv2.connectedComponents((mask == label).astype(np.uint8), connectivity=8)[0] - 1


def test_a_hole_is_cut_open() -> None:
    outer, hole = np.array([[0, 0], [9, 0], [9, 9], [0, 9]]), np.array([[3, 3], [6, 3], [6, 6], [3, 6]])
    (one,) = as_coco(iter([Piece(1, outer, (hole, hole + (3, 3)))]), CLASSES)
    assert one["area"] == 81 - 9 - 9 and len(one["segmentation"]) == 1
