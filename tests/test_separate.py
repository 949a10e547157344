"""Standard convolutions as depthwise and pointwise ones: least squares worked out here; laws over networks."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.analyze.costs import count
from featherweight.errors import SettingError
from featherweight.models import blocks, zoo
from featherweight.moments import Regression
from featherweight.separate import (
    SeparateSettings,
    _alternate,
    _nearest,
    _solve_depthwise,
    _solve_pointwise,
    separate,
)

RNG = np.random.default_rng(0)
ANY = SeparateSettings(max_error=1.0)


def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x.astype(np.float32)))


def one_convolution(channels: int = 6, filters: int = 10, side: int = 7, **settings: Any) -> keras.Model:
    inputs = keras.Input((side, side, channels))
    layer = keras.layers.Conv2D(filters, **{"kernel_size": 3, "name": "c", **settings})
    return keras.Model(inputs, layer(inputs))


def smooth_pictures(n: int, side: int, channels: int) -> np.ndarray:
    """Neighbours and channels are alike, as in maps of a network."""
    rough = RNG.normal(size=(n, side + 2, side + 2, channels)) @ RNG.normal(size=(channels, channels))
    return sum(rough[:, i : i + side, j : j + side] for i in range(3) for j in range(3)) + 2.0  # type: ignore[no-any-return]


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
def test_a_kernel_of_that_rank_is_kept_exactly(multiplier: int, padding: str, strides: int) -> None:
    model = one_convolution(filters=20, strides=strides, padding=padding, activation="relu", bias_initializer="ones")
    d, p = RNG.normal(size=(3, 3, 6, multiplier)), RNG.normal(size=(6, multiplier, 20))
    model.get_layer("c").set_weights([np.einsum("hwcm,cmf->hwcf", d, p), RNG.normal(size=20)])
    pictures = smooth_pictures(10, 7, 6)
    small, step = separate(model, pictures, settings=SeparateSettings(multiplier=multiplier))
    assert step.settings["errors"]["c"] < 1e-6
    assert step.skipped == ()
    wanted = outputs(model, pictures)
    np.testing.assert_allclose(outputs(small, pictures), wanted, atol=1e-4 * np.abs(wanted).max())
    places = wanted.shape[1] * wanted.shape[2]
    assert count(small)[1] == places * multiplier * (9 * 6 + 6 * 20)
    assert [type(layer).__name__ for layer in small.layers[1:]] == ["DepthwiseConv2D", "Conv2D"]
    assert small.get_layer("c").activation is keras.activations.relu


def problem(multiplier: int) -> tuple[np.ndarray, np.ndarray, Regression, np.ndarray, np.ndarray]:
    """Patches (n, 9·4), a kernel (9, 4, 5), what is known of them, and where the fit begins."""
    rows = RNG.normal(size=(300, 36)) @ RNG.normal(size=(36, 36))
    kernel = RNG.normal(size=(9, 4, 5))
    y = rows @ kernel.reshape(36, 5)
    zero = np.zeros(36)
    task = Regression(300, zero, zero[:5], rows.T @ rows / 300, rows.T @ y / 300, float(np.sum(y**2) / 300))
    return rows, kernel, task, *_nearest(kernel, multiplier)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_each_half_is_the_least_squares_solution_for_the_other(multiplier: int) -> None:
    rows, kernel, task, d, p = problem(multiplier)
    y = rows @ kernel.reshape(36, 5)
    x, products, spread = rows.reshape(-1, 9, 4), task.products.reshape(9, 4, 5), task.spread.reshape(9, 4, 9, 4)

    filtered = np.einsum("ntc,tcm->ncm", x, d).reshape(len(x), -1)
    wanted = np.linalg.lstsq(filtered, y, rcond=None)[0]
    found, error = _solve_pointwise(spread, products, d, p)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-3 * np.abs(wanted).max())
    missed = np.sum((filtered @ wanted - y) ** 2) - np.sum(y**2)
    assert error == pytest.approx(missed / len(x), rel=1e-4)

    design = np.einsum("ntc,cmf->nftcm", x, p).reshape(y.size, -1)
    wanted = np.linalg.lstsq(design, y.ravel(), rcond=None)[0]
    found = _solve_depthwise(spread, products, d, p)
    np.testing.assert_allclose(found.ravel(), wanted, atol=1e-3 * np.abs(wanted).max())


def test_the_start_is_the_best_of_its_rank_for_the_weights_alone() -> None:
    _, kernel, _, d, p = problem(2)
    for channel in range(4):
        u, s, v = np.linalg.svd(kernel[:, channel])
        np.testing.assert_allclose(d[:, channel] @ p[channel], u[:, :2] * s[:2] @ v[:2], atol=1e-9)


def test_more_sweeps_and_more_filters_miss_less() -> None:
    rows, kernel, task, *_ = problem(1)

    def missed(multiplier: int, sweeps: int) -> float:
        d, p = _nearest(kernel, multiplier)
        if sweeps:
            d, p = _alternate(task, d, p, sweeps)
        return float(np.sum((rows @ (np.einsum("tcm,cmf->tcf", d, p) - kernel).reshape(36, 5)) ** 2))

    found = [missed(1, 0), missed(1, 1), missed(1, 30), missed(2, 30), missed(3, 30)]
    assert found == sorted(found, reverse=True)
    assert found[2] < 0.8 * found[0]
    assert missed(5, 0) == pytest.approx(0, abs=1e-9)  # 9 × 5 is of no higher rank


def test_the_error_is_that_of_the_pictures_that_were_not_fitted_to() -> None:
    model = one_convolution()
    pictures = smooth_pictures(30, 7, 6)
    small, step = separate(model, pictures, settings=ANY)
    held = np.arange(30) % 5 == 0
    wanted, found = (outputs(one, pictures).reshape(30, -1, 10) for one in (model, small))
    missed = ((wanted - found)[held] ** 2).mean(axis=(0, 1))
    assert step.settings["errors"]["c"] == pytest.approx(missed.sum() / wanted[held].var(axis=(0, 1)).sum(), rel=1e-3)
    np.testing.assert_allclose(found[~held].mean(axis=(0, 1)), wanted[~held].mean(axis=(0, 1)), rtol=1e-3, atol=1e-2)


def test_a_fit_to_pictures_beats_the_weights_alone() -> None:
    model = one_convolution(padding="same")
    pictures, others = np.split(smooth_pictures(50, 7, 6), [40])
    small, _ = separate(model, pictures, settings=ANY)
    kernel = model.get_layer("c").get_weights()[0].astype(np.float64)
    d, p = _nearest(kernel.reshape(9, 6, 10), 1)
    plain = keras.models.clone_model(small)
    pointwise = p.reshape(1, 1, 6, 10)
    plain.set_weights([d.reshape(3, 3, 6, 1), pointwise, np.zeros(10)])
    wanted = outputs(model, others)
    fitted, alone = (np.sum((outputs(one, others) - wanted) ** 2) for one in (small, plain))
    assert fitted < 0.7 * alone


def test_later_layers_make_good_what_earlier_ones_lost() -> None:
    """Fitted to what the trained layer gave, from what the new one sees; else its own error comes on top."""
    inputs = keras.Input((9, 9, 6))
    x = keras.layers.Conv2D(12, 3, activation="relu", name="a")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(10, 3, name="b")(x))
    pictures, others = np.split(smooth_pictures(60, 9, 6), [50])
    together, step = separate(model, pictures, settings=ANY)
    first, second = (separate(model, pictures, [name], ANY)[0] for name in "ab")
    apart = keras.models.clone_model(together)
    for layer in apart.layers[1:]:
        one = first if layer.name.startswith("a") else second
        layer.set_weights(one.get_layer(layer.name).get_weights())
    wanted = outputs(model, others)
    one_by_one, each_alone = (np.sum((outputs(one, others) - wanted) ** 2) for one in (together, apart))
    assert one_by_one < each_alone
    assert step.settings["errors"]["b"] == pytest.approx(
        one_by_one / np.sum((wanted - wanted.mean(axis=(0, 1, 2))) ** 2), rel=0.3
    )


@pytest.mark.parametrize("name", ["resnet20_cifar", "squeezenet_1_1", "mobilenet_v4_conv_small"])
def test_networks_get_lighter(name: str, tmp_path: Path) -> None:
    model = zoo.build(zoo.Shape(name, 0.5, 32), 5)
    before = [w.copy() for w in model.get_weights()]
    pictures = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
    wide = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size[0] > 1]
    first, *some = wide[:5] + wide[7:8]  # of ResNet-20 also the first with strides
    small, step = separate(model, pictures, [first, *some], ANY)
    assert [what for what, _ in step.skipped] == [first]
    assert list(step.settings["errors"]) == some
    assert all("3 channels: so few" in why for _, why in step.skipped)
    whole, left = count(model)[1], count(small)[1]
    assert whole is not None
    assert left is not None
    assert left < whole
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    found = outputs(small, pictures)
    assert found.shape == (4, 5)
    small.save(tmp_path / "small.keras")
    np.testing.assert_allclose(outputs(keras.saving.load_model(tmp_path / "small.keras"), pictures), found, atol=1e-5)


def test_a_layer_that_is_missed_too_much_is_left() -> None:
    pictures = RNG.normal(size=(20, 7, 7, 6))
    small, step = separate(one_convolution(), pictures, settings=SeparateSettings(max_error=0.01))
    assert step.settings["errors"] == {}
    assert step.skipped[0][0] == "c"
    assert "more of its outputs' variance would be missed; wanted at most 1%" in step.skipped[0][1]
    assert [layer.name for layer in small.layers][1:] == ["c"]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (keras.layers.Conv2D(8, 3, groups=2, name="it"), "a grouped convolution"),
        (keras.layers.Conv2D(8, 3, dilation_rate=2, name="it"), "a dilated convolution"),
        (keras.layers.Conv2D(8, 3, strides=(1, 2), name="it"), "different strides down and across"),
        (keras.layers.Conv2D(8, 3, data_format="channels_first", name="it"), "its channels are not the last axis"),
        (keras.layers.Conv2D(1, 3, name="it"), "takes 9 MACs for a channel and place, the two layers 10"),
        (keras.layers.Conv2D(8, 3, kernel_initializer="zeros", name="it"), "its outputs do not vary"),
        (keras.layers.Conv2D(99, 30, padding="same", name="it"), "7200 inputs are too many to be fitted on pictures"),
        (blocks.Block("fire", {"filters": 16}, name="it"), "a model inside of a layer is not looked into"),
    ],
)
def test_what_cannot_be_separated_is_named_and_left(build: Any, reason: str) -> None:
    inputs = keras.Input((9, 9, 8))
    model = keras.Model(inputs, build(inputs))
    small, step = separate(model, RNG.uniform(0, 255, (4, 9, 9, 8)))
    assert [name for name, _ in step.skipped] == ["it"]
    assert reason in step.skipped[0][1]
    assert [layer.name for layer in small.layers][1:] == ["it"]


def test_other_layers_are_named_only_if_asked_for() -> None:
    class Own(keras.layers.Conv2D):
        pass

    inputs = keras.Input((9, 9, 8))
    x = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(8, 1, name="thin")(inputs))
    model = keras.Model(inputs, Own(8, 3, name="own")(x))
    pictures = RNG.uniform(0, 255, (4, 9, 9, 8))
    assert separate(model, pictures)[1].skipped == (("own", "Own may do more than Keras' own layer"),)
    _, step = separate(model, pictures, ["relu", "thin"])
    assert dict(step.skipped) == {
        "relu": "no standard convolution",
        "thin": "a 1×1 convolution: it filters nothing",
    }


def test_maps_that_are_always_zero_settle_nothing() -> None:
    """A dead layer gives no data to fit to; nothing breaks."""
    model = one_convolution()
    _, step = separate(model, np.zeros((4, 7, 7, 6)))
    assert step.skipped == (("c", "its outputs do not vary"),)


def test_a_sequential_model_works() -> None:
    model = keras.Sequential([keras.Input((9, 9, 8)), keras.layers.Conv2D(8, (1, 3), name="a"), keras.layers.ReLU()])
    small, _ = separate(model, RNG.uniform(0, 255, (4, 9, 9, 8)), settings=ANY)
    assert [layer.name for layer in small.layers][1:3] == ["a_depthwise", "a"]


def test_bad_requests_are_refused_in_one_line() -> None:
    model, pictures = one_convolution(), np.zeros((2, 7, 7, 6))
    with pytest.raises(SettingError, match="multiplier 0, places 64, sweeps 20; wanted >= 1"):
        SeparateSettings(multiplier=0)
    with pytest.raises(SettingError, match="error of at most 0; wanted a share over 0, at most 1"):
        SeparateSettings(max_error=0)
    with pytest.raises(SettingError, match="has no layer 'x'"):
        separate(model, pictures, ["x"])
    with pytest.raises(SettingError, match=r"pictures \(1, 7, 7, 6\); .* n of 2 or more"):
        separate(model, pictures[:1])
    layer = keras.layers.Conv2D(6, 3, padding="same")
    inputs = keras.Input((7, 7, 6))
    with pytest.raises(SettingError, match="used more than once"):
        separate(keras.Model(inputs, layer(layer(inputs))), pictures)
