"""Outlines and runs → pixels: shapes as labelling programs write them, filled in.

A pixel belongs to a shape if its centre lies within: no half pixel more or less on any side, so that two shapes with
a common edge neither overlap nor leave a gap. Of the rings of one shape an even number around a pixel is a hole.

Imports errors.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import LabelError

MOST_CROSSINGS = 50_000_000  # of edges with rows, a shape: a square over the largest picture has 131,000
CHUNK = 2_000_000  # crossings that are worked out at a time


def fill(mask: NDArray[np.uint8], rings: Sequence[Sequence[float]], label: int) -> None:
    """Write a label into the pixels of a mask that lie within a shape of rings x, y, x, y …, in pixels from the
    picture's edge; what is beyond it is cut off.

    Raises:
        LabelError: more edges through more rows than any drawing has.
    """
    height, width = mask.shape
    edges = np.concatenate([_edges(ring) for ring in rings])
    upward = edges[:, 1] > edges[:, 3]
    edges[upward] = edges[upward][:, [2, 3, 0, 1]]
    first = np.clip(np.ceil(edges[:, 1] - 0.5), 0, height).astype(np.int64)
    rows = np.clip(np.ceil(edges[:, 3] - 0.5), 0, height).astype(np.int64) - first
    edges, first, rows = edges[rows > 0], first[rows > 0], rows[rows > 0]
    if rows.sum() > MOST_CROSSINGS:
        raise LabelError(f"an outline that crosses {rows.sum():,} rows in all; at most {MOST_CROSSINGS:,} are filled")
    if not len(rows):
        return
    top, bottom = int(first.min()), int((first + rows).max())
    left, right = np.clip([np.floor(edges[:, [0, 2]].min()), np.ceil(edges[:, [0, 2]].max())], 0, width).astype(int)
    crossed = np.zeros((bottom - top, right - left + 1), np.bool_)
    ends = np.cumsum(rows)
    start = 0
    while start < len(rows):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] - rows[start] + CHUNK, "right")))
        _cross(crossed, edges[start:stop], first[start:stop], rows[start:stop], (top, int(left)))
        start = stop
    inside = np.logical_xor.accumulate(crossed[:, :-1], axis=1)
    mask[top:bottom, left:right][inside] = label


def unroll(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels (height, width) of COCO's run lengths: down the columns, by turns outside and within.

    Raises:
        LabelError: the runs are for another number of pixels.
    """
    lengths = np.array(runs, np.int64)
    if (len(lengths) and lengths.min() < 0) or lengths.sum() != height * width:
        raise LabelError(f"runs over {lengths.sum():,} pixels, and its picture has {height * width:,}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def runs_of(text: str) -> list[int]:
    """COCO's run lengths out of its compressed text: numbers of five bits a character, least first; bit 6 says that
    more follow, bit 5 of the last is the sign, and from the fourth on each is the difference to the one before last.

    Raises:
        LabelError: a character that is none of its 64, a number that never ends, or a negative run.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 35:
            raise LabelError(f"compressed runs that are none: {text[:20]!r}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if not 0 <= runs[-1] < 2**40:
            raise LabelError(f"compressed runs of {runs[-1]} pixels")
        value, shift = 0, 0
    if shift:
        raise LabelError("compressed runs that end within a number")
    return runs


def _edges(ring: Sequence[float]) -> NDArray[np.float64]:
    points = np.array(ring, np.float64).reshape(-1, 2)
    return np.hstack([points, np.roll(points, -1, axis=0)])


def _cross(
    crossed: NDArray[np.bool_],
    edges: NDArray[np.float64],
    first: NDArray[np.int64],
    rows: NDArray[np.int64],
    corner: tuple[int, int],
) -> None:
    """Turn over, for each row that an edge crosses, the pixel from which on its line is behind the edge.

    `crossed` is a window of the picture whose upper left pixel is `corner` (row, column).
    """
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    left, top, right, bottom = edges[edge].T
    x = left + (right - left) * ((row + 0.5 - top) / (bottom - top))
    column = np.clip(np.ceil(x - 0.5) - corner[1], 0, crossed.shape[1] - 1).astype(np.int64)
    np.logical_xor.at(crossed, (row - corner[0], column), True)
