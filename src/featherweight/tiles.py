"""A picture of any size through a network of one size: tiles that overlap, at the picture's own scale, blended.

    tiled      a picture in memory → its probabilities
    masks_in   rows of a picture, as they are read → rows of its mask; what is held does not grow with the height
    maps_of    what a file answers → probabilities of each pixel, whatever the order of its axes

Tiles start at multiples of `ALIGNMENT`, so that a network with strides sees the same grid in each of them. The weights
of a tile are 0 for a quarter of the overlap at each side that another tile covers, rise over the middle half of it as
sin², and are 1 within; over all tiles they add up to 1. So wherever the network sees no further than that quarter,
tiles answer as the whole picture would, up to the rounding of float32. At the picture's own edges tiles end where the
picture does; where the last ones are larger than what is left, and where all of the picture is smaller, it is mirrored.

Imports boxes, errors, image and masks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import mirrored
from featherweight.errors import RuntimeFailure, SettingError
from featherweight.image import Pixels, Rows, Whole
from featherweight.masks import Mask

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (1, h, w, 3) → (1, h, w, classes)
ALIGNMENT = 32  # pixels: the coarsest stride of the networks here
OVERLAP = 0.25  # of the input's shorter side, by default


def tiled(run: Run, picture: Pixels, height: int, width: int, overlap: int | None = None) -> NDArray[np.float32]:
    """The probabilities (H, W, classes) of a picture (H, W, 3) of any size.

    Args:
        run: the network: (1, height, width, 3) uint8 → (1, height, width, classes) float32.
        picture: RGB.
        height: of the network's input, pixels.
        width: the same.
        overlap: pixels that neighbouring tiles have in common, at least; by default a quarter of the shorter side.

    Raises:
        SettingError: an overlap below 0 or over half of a side.
        RuntimeFailure: answers of another size than the input.
    """
    bands = _blended(run, Whole(picture), (height, width), overlap, lambda maps: maps)
    return np.concatenate([band for _, band in bands])


def masks_in(
    run: Run, rows: Rows, height: int, width: int, overlap: int | None = None
) -> Iterator[tuple[Pixels, Mask]]:
    """Rows of a picture (k, W, 3) with their mask (k, W), from above to below, as soon as no tile changes them.

    What is held: as many rows of the picture as the input has, and of probabilities as tiles overlap.

    Raises:
        FeatherweightError: as `tiled`, or what reads the rows raises.
    """
    yield from _blended(run, rows, (height, width), overlap, classes_of)


def classes_of(probabilities: NDArray[np.float32]) -> Mask:
    """The class of each pixel, (h, w), out of (h, w, classes), or (h, w, 1) of class 1's probability."""
    if probabilities.shape[-1] == 1:
        return np.asarray(probabilities[..., 0] > 0.5, np.uint8)
    return np.asarray(probabilities.argmax(-1), np.uint8)


def maps_of(answer: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """What a file answers, of which the order of axes is not known → (1, h, w, classes), or (1, h, w, 1).

    Class indices, (1, h, w), become a 1 at their class.

    Raises:
        RuntimeFailure: answers of another shape, or of a class that there is not.
    """
    channels = {classes} if classes > 2 else {1, 2}
    if answer.ndim == 4 and answer.shape[3] in channels:
        return answer
    if answer.ndim == 4 and answer.shape[1] in channels:
        return answer.transpose(0, 2, 3, 1)
    if answer.ndim == 4 and 1 in (answer.shape[1], answer.shape[3]):
        answer = answer.reshape(1, *(side for side in answer.shape[1:] if side != 1))
    if answer.ndim != 3:
        raise RuntimeFailure(
            f"the file answers {answer.shape}; wanted (1, height, width) of class indices or (1, height, width, "
            f"{classes}), in either order of axes. How many classes has it?"
        )
    highest = int(answer.max())
    if highest >= classes or answer.min() < 0:
        raise RuntimeFailure(f"the file answers class {highest}; named are {classes} classes, 0 to {classes - 1}")
    return np.asarray(answer[..., None] == np.arange(classes, dtype=np.float32), np.float32)


@dataclass(frozen=True)
class _Axis:
    """Where tiles start along one side of a picture, and how much each counts there."""

    length: int  # of the picture, pixels
    starts: tuple[int, ...]
    weights: NDArray[np.float32]  # (tiles, the input's side); at each pixel they add up to 1

    def step(self, tile: int) -> int:
        """How many pixels from the tile's start on belong to no later one."""
        return (*self.starts[1:], self.length)[tile] - self.starts[tile]


def _axis(length: int, size: int, overlap: int) -> _Axis:
    if not 0 <= overlap <= size // 2:
        raise SettingError(f"overlap {overlap} of tiles of {size} pixels; wanted 0 to {size // 2}")
    step = size - overlap
    alignment = min(ALIGNMENT, 1 << (step.bit_length() - 1))
    step -= step % alignment
    last = max(0, -(-(length - size) // alignment) * alignment)
    starts = (*range(0, last, step), last)
    margin = overlap // 4
    rise = np.sin(np.pi / 2 * np.clip((np.arange(size) + 0.5 - margin) / max(1, overlap - 2 * margin), 0, 1)) ** 2
    weights = np.ones((len(starts), size))
    weights[1:] *= rise
    weights[:-1] *= rise[::-1]
    total = np.zeros(last + size)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start : start + size]
    return _Axis(length, starts, weights.astype(np.float32))


def _blended(
    run: Run,
    rows: Rows,
    size: tuple[int, int],
    overlap: int | None,
    settle: Callable[[NDArray[np.float32]], NDArray[Any]],
) -> Iterator[tuple[Pixels, NDArray[Any]]]:
    """Rows of the picture, and what `settle` makes of their probabilities (k, columns, classes)."""
    common = int(OVERLAP * min(size)) if overlap is None else overlap
    down, across = _axis(rows.height, size[0], common), _axis(rows.width, size[1], common)
    held: Pixels = np.empty((0, rows.width, 3), np.uint8)
    carried: NDArray[np.float32] | None = None  # sums of the rows that later tiles reach into
    before = 0
    for number, top in enumerate(down.starts):
        held = np.concatenate([held, rows.read(min(size[0], rows.height - top) - len(held))])
        step = down.step(number)
        settled = []
        for columns, maps in _across(run, held, size, across):
            part = maps * down.weights[number][:, None, None]
            if carried is None:
                carried = np.empty((_most_carried(down, size[0]), rows.width, part.shape[-1]), np.float32)
            part[:before] += carried[:before, columns]
            settled.append(settle(part[:step]))
            if number + 1 < len(down.starts):
                carried[: size[0] - step, columns] = part[step:]
        before = size[0] - step
        yield held[:step], np.concatenate(settled, axis=1)
        held = held[step:]


def _most_carried(down: _Axis, height: int) -> int:
    return max((height - down.step(tile) for tile in range(len(down.starts) - 1)), default=0)


def _across(
    run: Run, held: Pixels, size: tuple[int, int], across: _Axis
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """From left to right columns of the picture and their probabilities (height, columns, classes)."""
    height, width = size
    below = mirrored(0, height, len(held))[:, None]
    sums: NDArray[np.float32] | None = None
    for number, left in enumerate(across.starts):
        there = held[:, left : left + width]
        whole = there.shape[:2] == size
        tile = np.ascontiguousarray(there) if whole else there[below, mirrored(0, width, there.shape[1])]
        maps = run(tile[None])[0]
        if maps.ndim != 3 or maps.shape[:2] != size:
            raise RuntimeFailure(
                f"the file answers {maps.shape} to a tile of {height}×{width}; wanted ({height}, {width}, classes)"
            )
        weighted = maps * across.weights[number][:, None]
        if sums is not None:
            weighted[:, : sums.shape[1]] += sums
        step = across.step(number)
        yield slice(left, left + step), weighted[:, :step]
        sums = weighted[:, step:]
