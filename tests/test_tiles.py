"""Tiles answer as the whole picture would."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.boxes import middle, mirrored
from featherweight.errors import RuntimeFailure, SettingError
from featherweight.image import Whole, resize
from featherweight.masks import resize_mask
from featherweight.tiles import _axis, classes_of, maps_of, masks_in, tiled

KERNELS = np.random.default_rng(0).normal(size=(3, 5, 5)) / 25
FIELD = 2  # pixels to each side that a 5×5 kernel sees
TOLERANCE = 2e-6  # of numbers up to 1, in float32


def network(batch: np.ndarray) -> np.ndarray:
    """One convolution with zeros around, then a sigmoid: (1, h, w, 3) → (1, h, w, 3)."""
    picture = batch[0].astype(np.float64) / 255
    sums = [cv2.filter2D(picture.sum(-1), -1, kernel, borderType=cv2.BORDER_CONSTANT) for kernel in KERNELS]
    return (1 / (1 + np.exp(-np.stack(sums, -1))))[None].astype(np.float32)


def picture_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(200, 150), (64, 64), (65, 193), (64, 1000), (97, 64), (320, 320)])
def test_tiles_answer_as_the_whole_picture(size: tuple[int, int]) -> None:
    """Everywhere but at the right and lower edge, where what is mirrored stands for what is beyond the picture."""
    picture = picture_of(*size)
    whole, parts = network(picture[None])[0], tiled(network, picture, 64, 64, overlap=16)  # sees 2; the quarter is 4
    assert parts.shape == whole.shape and parts.dtype == np.float32
    inner = slice(0, size[0] - FIELD), slice(0, size[1] - FIELD)
    assert np.abs(parts - whole)[inner].max() <= TOLERANCE
    if size[0] % 32 == 0 and size[1] % 32 == 0:  # nothing is mirrored
        assert np.abs(parts - whole).max() <= TOLERANCE


def test_a_field_wider_than_the_quarter_shows() -> None:
    """So the test above would see it."""
    picture = picture_of(200, 200)
    whole, parts = network(picture[None])[0], tiled(network, picture, 64, 64, overlap=4)
    assert np.abs(parts - whole)[:-2, :-2].max() > 100 * TOLERANCE


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 8))
def test_bands_are_the_whole(height: int, width: int, overlap: int) -> None:
    picture = picture_of(height, width)
    probabilities = tiled(network, picture, 24, 16, overlap)
    bands = list(masks_in(network, Whole(picture), 24, 16, overlap))
    assert np.array_equal(np.concatenate([pixels for pixels, _ in bands]), picture)
    assert np.array_equal(np.concatenate([mask for _, mask in bands]), classes_of(probabilities))
    assert max(len(mask) for _, mask in bands) <= 24


def test_what_is_held_does_not_grow_with_the_height() -> None:
    class Endless(Whole):
        def __init__(self, height: int):
            self.height, self.width = height, 96

        def read(self, count: int) -> np.ndarray:
            return np.full((count, self.width, 3), 200, np.uint8)

    def peak_of(height: int) -> int:
        tracemalloc.start()
        try:
            bands = masks_in(lambda batch: batch[..., :1] / np.float32(255), Endless(height), 64, 64)
            assert sum(int(mask.sum()) for _, mask in bands) == 96 * height
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(200)  # what is imported and cached once
    assert peak_of(3000) < 1.3 * peak_of(300)  # 778 kB more of the picture; weights are 0.5 kB a row of tiles


@given(st.integers(1, 5000), st.integers(8, 600), st.floats(0, 0.5))
def test_weights_add_up_to_one(length: int, size: int, share: float) -> None:
    axis = _axis(length, size, int(share * size))
    total = np.zeros(axis.starts[-1] + size)
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        total[start : start + size] += weight
    assert np.abs(total - 1).max() < 1e-6 and axis.starts[-1] + size >= length
    steps = [axis.step(tile) for tile in range(len(axis.starts))]
    assert sum(steps) == length and min(steps) > 0
    if size - int(share * size) >= 32:
        assert not any(start % 32 for start in axis.starts)  # where a network's strides see the same grid


def test_one_probability_is_told_from_above_a_half() -> None:
    assert classes_of(np.array([[[0.5], [0.51]]], np.float32)).tolist() == [[0, 1]]
    assert classes_of(np.array([[[0.2, 0.5, 0.3]]], np.float32)).tolist() == [[1]]


def test_what_cannot_be_tiled() -> None:
    with pytest.raises(SettingError, match="overlap 33 of tiles of 64 pixels; wanted 0 to 32"):
        tiled(network, picture_of(9, 9), 64, 64, 33)
    with pytest.raises(RuntimeFailure, match=r"answers \(32, 32, 3\) to a tile of 64×64"):
        tiled(lambda batch: network(batch)[:, ::2, ::2], picture_of(9, 9), 64, 64)


def test_axes_in_any_order() -> None:
    maps = np.random.default_rng(0).random((1, 6, 7, 4), np.float32)
    indices = maps.argmax(-1).astype(np.float32)
    assert maps_of(maps, 4) is maps and np.array_equal(maps_of(maps.transpose(0, 3, 1, 2), 4), maps)
    for answer in (indices, indices[..., None], indices[:, None]):
        assert np.array_equal(classes_of(maps_of(answer, 4)[0]), indices[0])
    assert maps_of(maps[..., :1], 2).shape == (1, 6, 7, 1)
    assert maps_of(maps[..., :1].transpose(0, 3, 1, 2), 2).shape == (1, 6, 7, 1)
    with pytest.raises(RuntimeFailure, match="answers class 3; named are 3 classes"):
        maps_of(indices, 3)
    with pytest.raises(RuntimeFailure, match="How many classes"):
        maps_of(maps, 21)


def test_mirrors() -> None:
    assert mirrored(-3, 8, 3).tolist() == [1, 2, 1, 0, 1, 2, 1, 0]
    assert mirrored(-2, 4, 1).tolist() == [0, 0, 0, 0]
    pixels = picture_of(5, 9)
    assert np.array_equal(middle(pixels, 3, 3), pixels[1:4, 3:6])
    assert np.array_equal(resize(pixels, 3, 11, "tile")[:, 1:10], pixels[1:4])
    assert np.array_equal(resize_mask(pixels[..., 0], 3, 3, "tile"), pixels[1:4, 3:6, 0])
