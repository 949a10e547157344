"""The convolution with a kernel of its own at every place."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.analyze.costs import count
from featherweight.errors import SettingError
from featherweight.models.load import load_model
from featherweight.models.local import LocalConvolution


def test_each_place_has_its_own_kernel() -> None:
    chance = np.random.default_rng(0)
    image = chance.normal(size=(2, 5, 6, 3)).astype(np.float32)
    layer = LocalConvolution(4, 3, stride=2, padding=1)
    found = np.asarray(layer(image))
    kernel, bias = chance.normal(size=(9, 27, 4)), chance.normal(size=(9, 4))
    layer.set_weights([kernel, bias])
    found = np.asarray(layer(image))
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    assert found.shape == (2, 3, 3, 4)
    for row, column in np.ndindex(3, 3):
        window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].reshape(2, 27)
        wanted = window @ kernel[3 * row + column] + bias[3 * row + column]
        np.testing.assert_allclose(found[:, row, column], wanted, atol=1e-4)


def test_it_is_counted_saved_and_loaded(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5, 6, 3)), LocalConvolution(4, 3)])
    assert count(model) == (3 * 4 * (27 + 1) * 4, 3 * 4 * 27 * 4)
    model.save(tmp_path / "model.keras")
    image = np.ones((1, 5, 6, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(load_model(tmp_path / "model.keras")(image)), np.asarray(model(image)))


@pytest.mark.parametrize("settings", [(0, 3), (4, 0), (4, 3, 0), (4, 3, 1, -1), (10**9, 3), (4, 2.5), (True, 3)])
def test_settings_that_cannot_be(settings: tuple[Any, ...]) -> None:
    with pytest.raises(SettingError, match="filters of size"):
        LocalConvolution(*settings)


def test_maps_that_cannot_be() -> None:
    with pytest.raises(SettingError, match="wanted a map of a fixed size"):
        LocalConvolution(2, 3)(keras.Input((None, 4, 3)))
    with pytest.raises(SettingError, match="wanted a map that its window fits into"):
        LocalConvolution(2, 5)(keras.Input((4, 4, 3)))
