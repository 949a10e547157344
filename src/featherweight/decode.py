"""A detector's raw numbers → boxes in pixels of its input.

Scores come first and boxes are computed of the few that are high enough: that costs well under a millisecond.

Imports boxes and errors.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes, Decoding, Scale, found_boxes
from featherweight.errors import SettingError

# Boxes a picture that are kept for suppression, the best ones: with a threshold near 0 every prior would be one.
CANDIDATES = 1000
# The most that a size's exponent may be: exp(30) is beyond any picture, and is still a number.
MOST_EXPONENT = 30.0


def decode(outputs: NDArray[np.float32], decoding: Decoding, score: float | None = None) -> list[Boxes]:
    """Raw outputs (n, priors, values) → for each picture its boxes in pixels of the network's input, best first.

    A score is objectness × class, as in Darknet, less the share that Gaussian YOLO is unsure of; a prior is a box of
    every class whose score is high enough. Of more than `CANDIDATES` a picture the best ones are kept. Nothing is
    suppressed or clipped here.

    Args:
        outputs: as the network gave them.
        decoding: what they mean.
        score: the least score, instead of the decoding's own.

    Raises:
        SettingError: outputs of another shape than the decoding's.
    """
    if outputs.shape[1:] != (decoding.priors, decoding.values):
        raise SettingError(
            f"outputs {outputs.shape}; wanted (n, {decoding.priors}, {decoding.values}), as the decoding says"
        )
    least = decoding.score if score is None else score
    return [_decoded(rows, decoding, least) for rows in outputs]


def _decoded(rows: NDArray[np.float32], decoding: Decoding, least: float) -> Boxes:
    """One picture: scores first, for boxes are computed of the few that score high enough."""
    priors, labels, scores = _high(rows, decoding, least)
    if len(scores) > CANDIDATES:
        best = np.sort(np.argpartition(-scores, CANDIDATES)[:CANDIDATES])
        priors, labels, scores = priors[best], labels[best], scores[best]
    cells = cells_of(decoding.scales, decoding.height, decoding.width)
    corners = _CORNERS[decoding.kind](rows[priors], Cells(*(column[priors] for column in cells)), decoding)
    # Distances may be below 0, and such a box has its sides the wrong way round.
    real = np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return found_boxes(corners[real], labels[real], scores[real])


def _high(rows: NDArray[np.float32], decoding: Decoding, least: float) -> tuple[NDArray[Any], ...]:
    """(rows of the output, labels, scores) of all that score at least so much, (k,) each."""
    start = decoding.values - decoding.classes
    if decoding.kind == "distances":
        sure, some = None, np.flatnonzero(_maybe(rows[:, start:], decoding, least))
    else:
        sure = _activated(rows[:, start - 1], decoding)
        if decoding.uncertain:
            sure = sure * (1 - _activated(rows[:, 4:8], decoding).mean(axis=1))
        some = np.flatnonzero(sure >= least)  # a class' share is at most 1
        sure = sure[some]
    scores = _classes(rows[some, start:], decoding)
    scores = scores if sure is None else scores * sure[:, None]
    places, labels = np.nonzero(scores >= least)
    return some[places], labels, scores[places, labels]


def _maybe(raw: NDArray[np.float32], decoding: Decoding, least: float) -> NDArray[np.bool_]:
    """Whether a class of (k, classes) may score so high: told of the raw numbers where that can be."""
    if decoding.softmax or decoding.activated or not 0 < least < 1:
        return np.ones(len(raw), np.bool_)
    return np.asarray(raw.max(axis=1) >= math.log(least / (1 - least)) - 1e-3)


def _classes(raw: NDArray[np.float32], decoding: Decoding) -> NDArray[np.float32]:
    """(k, classes) → the same as shares."""
    return _softmax(raw) if decoding.softmax or decoding.kind == "region" else _activated(raw, decoding)


def _activated(raw: NDArray[np.float32], decoding: Decoding) -> NDArray[np.float32]:
    return raw if decoding.activated or decoding.kind == "grid" else _sigmoid(raw)


def _sigmoid(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    half = np.float32(0.5)
    shares: NDArray[np.float32] = half + half * np.tanh(half * raw)  # which never overflows
    return shares


def _softmax(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(raw - raw.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


class Cells(NamedTuple):
    """Of each prior, (priors,): its cell, the cell's sides and its anchor's in pixels, and how far a centre goes."""

    column: NDArray[np.float32]
    row: NDArray[np.float32]
    cell_width: NDArray[np.float32]
    cell_height: NDArray[np.float32]
    anchor_width: NDArray[np.float32]
    anchor_height: NDArray[np.float32]
    xy_scale: NDArray[np.float32]


@lru_cache(maxsize=8)
def cells_of(scales: tuple[Scale, ...], height: int, width: int) -> Cells:
    """The cells of all priors in the order of the output, for an input of so many pixels."""
    columns: list[tuple[NDArray[Any], ...]] = []
    for scale in scales:
        anchors = np.array(scale.anchors or ((0.0, 0.0),))
        row, column, anchor = np.indices((scale.height, scale.width, len(anchors))).reshape(3, -1)
        sides = np.full(scale.priors, width / scale.width), np.full(scale.priors, height / scale.height)
        reach = np.full(scale.priors, scale.xy_scale)
        columns.append((column, row, *sides, anchors[anchor, 0], anchors[anchor, 1], reach))
    return Cells(*(np.concatenate(parts).astype(np.float32) for parts in zip(*columns, strict=True)))


def _around(x: NDArray[Any], y: NDArray[Any], width: NDArray[Any], height: NDArray[Any]) -> NDArray[np.float32]:
    """Centres and sides (k,) → corners (k, 4)."""
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)


def _of_anchors(rows: NDArray[np.float32], cells: Cells, decoding: Decoding) -> NDArray[np.float32]:
    """A centre within the cell, or a little out of it; sides as multiples of the anchor's."""
    centre = _activated(rows[:, :2], decoding)
    reach = cells.xy_scale
    x = (cells.column + centre[:, 0] * reach - (reach - 1) / 2) * cells.cell_width
    y = (cells.row + centre[:, 1] * reach - (reach - 1) / 2) * cells.cell_height
    sides = rows[:, 2:4]
    times = np.square(2 * sides) if decoding.activated else np.exp(np.minimum(sides, MOST_EXPONENT))
    return _around(x, y, times[:, 0] * cells.anchor_width, times[:, 1] * cells.anchor_height)


def _of_shares(rows: NDArray[np.float32], cells: Cells, decoding: Decoding) -> NDArray[np.float32]:
    """A centre within the cell; sides as shares of the picture, or their square roots."""
    x, y = (cells.column + rows[:, 0]) * cells.cell_width, (cells.row + rows[:, 1]) * cells.cell_height
    sides = np.square(rows[:, 2:4]) if decoding.roots else rows[:, 2:4]
    return _around(x, y, sides[:, 0] * decoding.width, sides[:, 1] * decoding.height)


def _of_distances(rows: NDArray[np.float32], cells: Cells, decoding: Decoding) -> NDArray[np.float32]:
    """Distances of the four sides from the cell's centre, in cells."""
    if decoding.bins:
        shares = _softmax(rows[:, : 4 * decoding.bins].reshape(-1, 4, decoding.bins))
        away: NDArray[Any] = shares @ np.arange(decoding.bins, dtype=np.float32)
    else:
        away = rows[:, :4]
    x, y = cells.column + np.float32(0.5), cells.row + np.float32(0.5)
    in_cells = np.stack([x - away[:, 0], y - away[:, 1], x + away[:, 2], y + away[:, 3]], axis=1)
    sides = np.stack([cells.cell_width, cells.cell_height] * 2, axis=1)
    return np.asarray(in_cells * sides, np.float32)


_CORNERS = {"yolo": _of_anchors, "region": _of_anchors, "grid": _of_shares, "distances": _of_distances}
