"""What a layer sees: patches times its kernel are its outputs, for every window; sums are numpy's."""

import keras
import numpy as np
import pytest

from featherweight.errors import SettingError
from featherweight.moments import check_pictures, moments, patches, seen

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "height", "width"), [(1, 6, 5), (3, 7, 8), (2, 6, 7), ((1, 4), 5, 9), (5, 5, 6)])
def test_patches_times_the_kernel_are_the_outputs(
    padding: str, strides: int, kernel: int | tuple[int, int], height: int, width: int
) -> None:
    layer = keras.layers.Conv2D(4, kernel, strides, padding, bias_initializer="ones")
    maps = RNG.normal(size=(2, height, width, 3)).astype(np.float32)
    wanted = np.asarray(layer(maps)).reshape(-1, 4)
    weights, bias = layer.get_weights()
    found = patches(maps, layer, 1000, RNG) @ weights.reshape(-1, 4) + bias
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_dense_layer_sees_each_row() -> None:
    layer = keras.layers.Dense(4)
    maps = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32)
    wanted = np.asarray(layer(maps)).reshape(-1, 4)
    np.testing.assert_allclose(patches(maps, layer, 1000, RNG) @ layer.get_weights()[0], wanted, atol=1e-5)


def test_places_are_bounded_and_differ() -> None:
    layer = keras.layers.Conv2D(1, 1)
    maps = np.arange(2 * 6 * 6, dtype=np.float32).reshape(2, 6, 6, 1)
    layer(maps)
    found = patches(maps, layer, 5, np.random.default_rng(0)).ravel()
    assert len(set(found)) == 10
    assert sum(found < 36) == 5  # five of each picture


def test_moments_are_those_of_all_rows() -> None:
    rows = RNG.normal(3, 2, (50, 4))
    found = moments([{"a": rows[:20]}, {"a": rows[20:], "b": rows[:30, :2]}])
    assert (found["a"].count, found["b"].count) == (50, 30)
    np.testing.assert_allclose(found["a"].mean, rows.mean(axis=0))
    np.testing.assert_allclose(found["a"].covariance, np.cov(rows.T, bias=True), atol=1e-12)


def test_layers_see_what_stands_before_them() -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", name="first")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(keras.layers.Flatten()(x)))
    pictures = RNG.integers(0, 256, (20, 4, 4, 3), np.uint8)  # more than a batch
    batches = list(seen(model, ["first", "last"], pictures, 100, 0))
    first, last = (np.concatenate([batch[name] for batch in batches]) for name in ("first", "last"))
    assert first.shape == (20 * 4, 27)
    wanted = keras.Model(inputs, model.get_layer("last").input)(pictures.astype(np.float32))
    np.testing.assert_allclose(last, np.asarray(wanted), rtol=1e-5)
    assert list(seen(model, [], pictures, 100, 0)) == []


def test_pictures_that_do_not_fit_are_refused() -> None:
    inputs = keras.Input((None, 8, 3))
    one = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs), name="one")
    check_pictures(one, np.zeros((2, 5, 8, 3)))
    for shape in [(2, 8, 7, 3), (1, 8, 8, 3), (8, 8, 3)]:
        with pytest.raises(SettingError, match=r"pictures \(.*one wants \(n, any, 8, 3\), n of 2 or more"):
            check_pictures(one, np.zeros(shape))
    two = keras.Model([inputs, keras.Input((8,), name="b")], one(inputs), name="two")
    with pytest.raises(SettingError, match="two takes 2 inputs; wanted a model of pictures alone"):
        check_pictures(two, np.zeros((2, 8, 8, 3)))
