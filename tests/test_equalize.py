"""Equalization: scales by hand; outputs stay; ranges become equal, in every network with ReLUs."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.equalize import equalize
from featherweight.errors import SettingError
from featherweight.fold import fold
from featherweight.models import blocks, zoo

RNG = np.random.default_rng(0)
# Networks with ReLUs, of different graphs → pairs and triples in them.
CHAINS = {
    "resnet20_cifar": 9,  # the two convolutions of each block
    "squeezenet_1_1": 1,  # from the stem over its pooling; a Fire's squeeze feeds two layers
    "mnasnet": 19,  # 17 blocks, two joints without an addition
}


def outputs(model: keras.Model, layer: str | None = None) -> np.ndarray:
    x = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:])).astype(np.float32)
    inner = model if layer is None else keras.Model(model.input, model.get_layer(layer).output)
    return np.asarray(inner(x))


def uneven(model: keras.Model) -> keras.Model:
    """Batch norms whose factors differ by two orders of magnitude, as they do in trained networks."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [10 ** rng.uniform(-1, 1, shape), rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape),
                 rng.uniform(0.5, 1.5, shape)]
            )  # fmt: skip
    return model


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_pair_by_hand() -> None:
    """Channel 0: r = 8 and 2, t = 4, s = 2. Channel 1: r = 1 and 9, t = 3, s = 1/3."""
    inputs = keras.Input((1,))
    x = keras.layers.Dense(2, activation="relu", name="a")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="b")(x))
    model.get_layer("a").set_weights([np.array([[8.0, -1.0]]), np.array([1.0, 6.0])])
    model.get_layer("b").set_weights([np.array([[2.0, -1.0], [-9.0, 3.0]]), np.array([5.0, 7.0])])
    found, step = equalize(model)
    kernel, bias = found.get_layer("a").get_weights()
    np.testing.assert_allclose(kernel, [[4, -3]], rtol=1e-6)
    np.testing.assert_allclose(bias, [0.5, 18], rtol=1e-6)
    kernel, bias = found.get_layer("b").get_weights()
    np.testing.assert_allclose(kernel, [[4, -2], [-3, 1]], rtol=1e-6)
    np.testing.assert_array_equal(bias, [5, 7])
    assert step.settings["chains"] == 1
    # Before: 8/8 and 2/9, 1/8 and 9/9; after: 4/4 and 4/4, 3/4 and 3/4.
    assert step.settings["precision"] == [pytest.approx((math.sqrt(2 / 9) + math.sqrt(1 / 8)) / 2, abs=1e-4), 0.875]
    assert step.skipped == (("b", "b feeds several layers or is an output"),)
    same(outputs(found), outputs(model))


def test_a_depthwise_convolution_stands_inside_of_a_chain() -> None:
    """r = 27, 1, 8: t = 6, so that the scales are 27/6 and 27/36."""
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="a")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="b")(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, name="c")(keras.layers.LeakyReLU()(x)))
    for name, size in (("a", 27), ("b", 1), ("c", 8)):
        layer = model.get_layer(name)
        layer.set_weights([np.full(w.shape, size) if i == 0 else w + 1 for i, w in enumerate(layer.get_weights())])
    found, step = equalize(model)
    for name in "abc":
        np.testing.assert_allclose(found.get_layer(name).get_weights()[0], 6, rtol=1e-6)
    np.testing.assert_allclose(found.get_layer("b").get_weights()[1], 1 / (27 / 36), rtol=1e-6)
    assert step.settings["chains"] == 1
    same(outputs(found), outputs(model))


@pytest.mark.parametrize("name", CHAINS)
def test_networks_answer_as_before_and_their_channels_are_equal(name: str, tmp_path: Path) -> None:
    folded, _ = fold(uneven(zoo.build(zoo.Shape(name, 0.25, 32), 5)))
    before = [w.copy() for w in folded.get_weights()]
    found, step = equalize(folded)
    same(outputs(found, zoo.LOGITS), outputs(folded, zoo.LOGITS))
    assert step.settings["chains"] == CHAINS[name]
    low, high = step.settings["precision"]
    assert high > low
    assert all("batch norm" not in reason for _, reason in step.skipped)
    assert all(np.array_equal(a, b) for a, b in zip(before, folded.get_weights(), strict=True))
    again, more = equalize(found)
    assert more.settings["sweeps"] <= 2
    np.testing.assert_allclose(outputs(again, zoo.LOGITS), outputs(found, zoo.LOGITS), rtol=1e-3, atol=1e-3)
    found.save(tmp_path / "found.keras")
    same(outputs(keras.saving.load_model(tmp_path / "found.keras")), outputs(folded))


def test_relu6_is_kept_or_taken_for_a_relu() -> None:
    """Taken for one, the outputs are those of the model that has ReLUs; so the scales are still exact."""
    folded, _ = fold(uneven(zoo.build(zoo.Shape("mobilenet_v1", 0.25, 32), 5)))
    kept, step = equalize(folded)
    assert step.settings["chains"] == step.settings["sweeps"] - 1 == 0
    assert step.settings["precision"] == [None, None]
    assert sum("ReLU6 is behind it" in reason for _, reason in step.skipped) == 27  # the stem and 13 pairs
    same(outputs(kept, zoo.LOGITS), outputs(folded, zoo.LOGITS))

    def without_clip(layer: keras.Layer) -> keras.Layer:
        settings = layer.get_config()
        return type(layer).from_config({**settings, "max_value": None} if "max_value" in settings else settings)

    unclipped = keras.models.clone_model(folded, clone_function=without_clip)
    unclipped.set_weights(folded.get_weights())
    taken, step = equalize(folded, relu6="relu")
    same(outputs(taken, zoo.LOGITS), outputs(unclipped, zoo.LOGITS))
    assert step.settings["chains"] == 14
    assert len(step.settings["relu6_taken_for_relu"]) == 27
    assert not np.allclose(outputs(taken, zoo.LOGITS), outputs(folded, zoo.LOGITS), rtol=1e-2)


def test_activations_inside_of_layers_count_too() -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8, 1, activation="relu6", name="a")(inputs)
    x = keras.layers.Activation("relu6", name="clip")(keras.layers.DepthwiseConv2D(3, name="b")(x))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="sigmoid", name="c")(x))
    assert [name for name, reason in equalize(model)[1].skipped if "ReLU6" in reason] == ["a", "b"]
    found, step = equalize(model, "relu")
    assert step.settings["relu6_taken_for_relu"] == ["a", "clip"]
    assert found.get_layer("a").activation is keras.activations.relu
    assert found.get_layer("clip").activation is keras.activations.relu
    assert found.get_layer("c").activation is keras.activations.sigmoid


def test_a_flattened_map_and_a_multiplier() -> None:
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="a")(inputs)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="b")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(keras.layers.ZeroPadding2D(1)(x)))
    model = keras.Model(inputs, keras.layers.Dense(5, name="c")(x))
    for layer in model.layers:
        layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    found, step = equalize(model)
    assert step.settings["chains"] == 2  # a to b, whose channels are two for each, and b to c
    same(outputs(found), outputs(model))
    kernel = found.get_layer("c").get_weights()[0].reshape(-1, 8, 5)
    ranges = np.abs(found.get_layer("b").get_weights()[0]).max(axis=(0, 1)).ravel()
    np.testing.assert_allclose(np.abs(kernel).max(axis=(0, 2)), ranges, rtol=1e-2)


def test_a_channel_of_zeros_stays() -> None:
    inputs = keras.Input((3,))
    x = keras.layers.Dense(2, activation="relu", name="a")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="b")(x))
    model.get_layer("a").set_weights([np.array([[0.0, 4], [0, 1], [0, 1]]), np.ones(2)])
    model.get_layer("b").set_weights([np.array([[3.0, 1], [1, 1]]), np.ones(2)])
    found, _ = equalize(model)
    np.testing.assert_array_equal(found.get_layer("b").get_weights()[0], [[3, 1], [2, 2]])
    np.testing.assert_array_equal(found.get_layer("a").get_weights()[1], [1, 0.5])


def convolution(x: Any, **settings: Any) -> Any:
    return keras.layers.Conv2D(4, 1, **settings)(x)


def to_two(x: Any) -> Any:
    return keras.layers.Concatenate()([convolution(x), keras.layers.ReLU()(x)])


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (lambda x: convolution(keras.layers.BatchNormalization()(x)), "fold batch norms first"),
        (lambda x: convolution(keras.layers.Activation("sigmoid")(x)), "sigmoid is behind it"),
        (lambda x: convolution(keras.layers.ReLU(threshold=1.0, name="r")(x)), r"ReLU (r) is behind it"),
        (lambda x: convolution(keras.layers.ReLU(max_value=1.0, name="r")(x)), r"ReLU (r) is behind it"),
        (lambda x: convolution(keras.ops.tanh(x)), "Tanh ("),
        (lambda x: convolution(keras.layers.ReLU(max_value=6)(x)), 'relu6="relu" takes a ReLU for it'),
        (lambda x: convolution(x, groups=2, name="g"), "g behind it is a grouped convolution"),
        (keras.layers.SeparableConv2D(4, 1, name="s"), "SeparableConv2D (s) is behind it"),
        (to_two, "it feeds several layers or is an output"),
        (lambda x: convolution(keras.layers.LayerNormalization(name="l")(x)), "LayerNormalization (l) is behind it"),
        (blocks.Block("fire", {"filters": 16}, name="own"), "Block (own) is behind it"),
    ],
)
def test_what_scales_do_not_pass_is_named(behind: Any, reason: str) -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 1, name="it")(inputs)
    model = keras.Model(inputs, behind(x))
    found, step = equalize(model)
    assert reason in dict(step.skipped)["it"]
    assert step.settings["chains"] == 0
    same(outputs(found), outputs(model))
    assert ("own" in dict(step.skipped)) == (reason == "Block (own) is behind it")


def test_channels_that_are_not_the_last_axis_are_named() -> None:
    inputs = keras.Input((8, 8, 8))
    x = keras.layers.Conv2D(8, 1, name="a")(inputs)
    x = keras.layers.Conv2D(8, 1, data_format="channels_first", name="b")(x)
    x = keras.layers.Conv2D(8, 1, name="c")(x)
    x = keras.layers.MaxPooling2D(data_format="channels_first", name="pool")(x)
    _, step = equalize(keras.Model(inputs, keras.layers.Conv2D(8, 1, name="d")(x)))
    reasons = dict(step.skipped)
    assert reasons["a"] == "the channels of b behind it are not the last axis"
    assert reasons["b"] == "its channels are not the last axis"
    assert "MaxPooling2D (pool) is behind it" in reasons["c"]


def test_an_activation_inside_of_the_layer_is_named() -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 1, name="it", activation=keras.activations.gelu)(inputs)
    _, step = equalize(keras.Model(inputs, convolution(x, name="end")))
    assert "gelu is behind it" in dict(step.skipped)["it"]


def test_a_sequential_model_works_and_bad_requests_are_refused() -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(4, 1), keras.layers.Conv2D(4, 1)])
    found, step = equalize(model)
    assert step.settings["chains"] == 1
    same(outputs(found), outputs(model))
    with pytest.raises(SettingError, match="relu6 'clip'; wanted keep or relu"):
        equalize(model, "clip")
    layer, inputs = keras.layers.Conv2D(3, 1), keras.Input((4, 4, 3))
    with pytest.raises(SettingError, match="used more than once"):
        equalize(keras.Model(inputs, layer(layer(inputs))))
