"""Anchors fitted to boxes: the shapes that have the most in common with those of the data. Imports errors."""

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError

Sides = NDArray[np.float64]
ROUNDS = 100


def fitted_anchors(sides: Sides, count: int, seed: int = 0) -> Sides:
    """Width and height (count, 2) of anchors for boxes of such sides (k, 2), by area: k-means whose distance is 1 - IoU
    of boxes with one centre. Redmon & Farhadi 2016, arXiv 1612.08242, §2.

    The first ones are drawn as k-means++ does, with that distance (Arthur & Vassilvitskii 2007). A centre is the mean
    of its boxes; one that loses all of them is moved to the box that is farthest from its own.

    Raises:
        SettingError: fewer different boxes than anchors, or a box without area.
    """
    sides = np.asarray(sides, np.float64)
    different = len(np.unique(sides, axis=0))
    if count < 1 or different < count:
        raise SettingError(f"{count} anchors for {different} different sizes of boxes; wanted at least as many sizes")
    if not np.all(sides > 0):
        raise SettingError("a box without area has no shape; leave it out")
    random = np.random.default_rng(seed)
    anchors = sides[[random.integers(len(sides))]]
    while len(anchors) < count:
        far = (1 - _in_common(sides, anchors).max(1)) ** 2
        anchors = np.concatenate([anchors, sides[[random.choice(len(sides), p=far / far.sum())]]])
    for _ in range(ROUNDS):
        common = _in_common(sides, anchors)
        nearest = common.argmax(1)
        # One that keeps no box goes where a box is served worst.
        worst = iter(np.argsort(common.max(1), kind="stable"))
        moved = np.array(
            [sides[nearest == i].mean(0) if np.any(nearest == i) else sides[next(worst)] for i in range(count)]
        )
        if np.allclose(moved, anchors):
            break
        anchors = moved
    return anchors[np.argsort(anchors.prod(1), kind="stable")]


def mean_iou(sides: Sides, anchors: Sides) -> float:
    """What a box has in common with its nearest anchor, on average, 0–1."""
    return float(_in_common(np.asarray(sides, np.float64), np.asarray(anchors, np.float64)).max(1).mean())


def _in_common(sides: Sides, anchors: Sides) -> NDArray[np.float64]:
    """IoU (k, count) of boxes with one centre."""
    both: Sides = np.minimum(sides[:, None], anchors).prod(-1)
    found: NDArray[np.float64] = both / (sides.prod(-1)[:, None] + anchors.prod(-1) - both)
    return found
