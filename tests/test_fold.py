"""Folding keeps the outputs, for every network and every kind of branch; what cannot be folded is named."""

from typing import Any

import keras
import numpy as np
import pytest

from featherweight.errors import SettingError
from featherweight.fold import fold, fold_batch_norm, fold_branches
from featherweight.models import blocks, zoo
from featherweight.models.copying import set_layer_weights
from featherweight.models.nets import NETS
from featherweight.models.stages import Style
from featherweight.train import _copy

SIDE = 32
# Families whose graphs differ; the slow large ones add nothing.
NAMES = [
    "hello", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_conv_small", "squeezenet_1_1",
    "shufflenet_v1_g3", "shufflenet_v2", "ghostnet", "mobileone_s0", "resnet20_cifar",
]  # fmt: skip


def after_training(model: keras.Model) -> keras.Model:
    """Statistics and factors as they could be: nothing is 0 or 1 by accident."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [rng.uniform(0.5, 1.5, w.shape) if i in (0, 3) else rng.normal(0, 0.3, w.shape)
                 for i, w in enumerate(layer.get_weights())]
            )  # fmt: skip
    return model


def outputs(model: keras.Model, layer: str | None = None) -> np.ndarray:
    x = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:])).astype(np.float32)
    inner = model if layer is None else keras.Model(model.input, model.get_layer(layer).output)
    return np.asarray(inner(x))


def count(model: keras.Model, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in model.layers)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_answers_as_before(name: str) -> None:
    model = after_training(zoo.build(zoo.Shape(name, 0.25, SIDE), 5))
    before = [w.copy() for w in model.get_weights()]
    folded, step = fold(model)
    wanted, found = outputs(model, zoo.LOGITS), outputs(folded, zoo.LOGITS)
    np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1, np.abs(wanted).max()))
    assert np.ptp(wanted) > 0
    assert count(folded, keras.layers.BatchNormalization) == 0
    assert step.skipped == ()
    norms = count(model, keras.layers.BatchNormalization)
    if name == "mobileone_s0":  # each of its norms is in a branch; 21 blocks of two halves, and the stem
        assert step.settings == {"branches": 43, "batch_norms": 0}
    else:
        assert step.settings == {"branches": 0, "batch_norms": norms}
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))  # the input is unchanged


def test_mobileone_folds_to_its_published_size() -> None:
    """Vasu et al. 2022, table 2: S0 has 2.1 M parameters and 275 M MACs at inference; timm's has 2,078,504."""
    from featherweight.analyze.costs import count as costs

    folded, _ = fold(zoo.reference(NETS["mobileone_s0"], 1.0))
    assert costs(folded) == (2_078_504, 275_110_400)


def test_the_folded_numbers_are_right() -> None:
    """One channel: y = 2 (3x + 1 - 5) / √(3 + 1) + 7 = 3x + 3."""
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(1, 1, name="c")(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization(epsilon=1.0, name="n")(x))
    model.get_layer("c").set_weights([np.full((1, 1, 1, 1), 3.0), np.array([1.0])])
    model.get_layer("n").set_weights([np.array([v]) for v in (2.0, 7.0, 5.0, 3.0)])
    folded, step = fold_batch_norm(model)
    kernel, bias = folded.get_layer("c").get_weights()
    assert (kernel.item(), bias.item()) == (3.0, 3.0)
    assert step.settings == {"folded": 1}


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("each_channel", [False, True])
@pytest.mark.parametrize(("kernel", "branches"), [(3, 1), (3, 3), (5, 2), (1, 2)])
def test_branches_become_one_convolution(strides: int, each_channel: bool, kernel: int, branches: int) -> None:
    inputs = keras.Input((9, 9, 6))
    y = blocks.branched(
        inputs, 6, strides, name="b", kernel=kernel, branches=branches, each_channel=each_channel, style=Style()
    )
    model = after_training(keras.Model(inputs, y))
    folded, step = fold_branches(model)
    np.testing.assert_allclose(outputs(folded), outputs(model), rtol=1e-4, atol=1e-3)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    assert sum(isinstance(layer, kinds) for layer in folded.layers) == 1
    assert step.settings == {"folded": 1}
    assert step.skipped == ()


def test_separable_and_dense_layers_take_their_norm_too() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.SeparableConv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = after_training(keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(5)(x))))
    folded, step = fold(model)
    np.testing.assert_allclose(outputs(folded), outputs(model), rtol=1e-4, atol=1e-3)
    assert step.settings["batch_norms"] == 2


def skipped_by(build: Any) -> dict[str, str]:
    inputs = keras.Input((8, 8, 4))
    model = after_training(keras.Model(inputs, build(inputs)))
    folded, step = fold(model)
    np.testing.assert_allclose(outputs(folded), outputs(model), rtol=1e-4, atol=1e-3)
    return dict(step.skipped)


def convolution(x: Any, **settings: Any) -> Any:
    return keras.layers.Conv2D(4, **{"kernel_size": 3, "padding": "same", **settings})(x)


def depthwise(x: Any) -> Any:
    return keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)


def used_twice(x: Any) -> Any:
    y = convolution(x)
    return keras.layers.Concatenate()([keras.layers.BatchNormalization()(y), y])


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (keras.layers.BatchNormalization(), "behind InputLayer"),
        (lambda x: keras.layers.BatchNormalization()(convolution(x, activation="relu")), "has an activation between"),
        (used_twice, "feeds other layers too"),
        (lambda x: keras.layers.Add()([convolution(x), convolution(x, groups=2)]), "grouped convolutions"),
        (
            lambda x: keras.layers.Add()([convolution(x), keras.layers.DepthwiseConv2D(3, padding="same")(x)]),
            "a standard and a depthwise convolution side by side",
        ),
        (lambda x: keras.layers.Add()([convolution(x), convolution(x, dilation_rate=2)]), "dilated convolutions"),
        (
            lambda x: keras.layers.Add()([convolution(x, dilation_rate=2), convolution(x, dilation_rate=2)]),
            "dilated convolutions",
        ),
        (
            lambda x: keras.layers.Add()([depthwise(x), depthwise(x)]),
            "several filters a channel",
        ),
        (
            lambda x: keras.layers.Add()([x, keras.layers.Conv2D(1, 1)(x)]),
            "outputs of different shapes",
        ),
        (lambda x: keras.layers.BatchNormalization(axis=1)(convolution(x)), "not over the last axis"),
        (lambda x: keras.layers.Add()([convolution(x), convolution(x, kernel_size=2)]), "not square with an odd side"),
        (
            lambda x: keras.layers.Add()([convolution(x, strides=2), convolution(x, kernel_size=1, strides=2)]),
            "is not padded by half of its kernel",
        ),
        (lambda x: keras.layers.Add()([keras.layers.BatchNormalization()(x), x]), "no convolution in any branch"),
    ],
)
def test_what_cannot_be_folded_is_named_and_left(build: Any, reason: str) -> None:
    skipped = skipped_by(build)
    assert any(reason in found for found in skipped.values()), skipped


def test_ordinary_residuals_are_no_branches() -> None:
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, blocks.inverted_residual(inputs, 16, name="r"))
    _, step = fold_branches(model)
    assert step.settings == {"folded": 0}
    assert step.skipped == ()


def test_a_shared_layer_is_refused() -> None:
    inputs = keras.Input((8, 8, 4))
    layer = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    with pytest.raises(SettingError, match=r"a layer of .* is used more than once; wanted layers"):
        fold(keras.Model(inputs, layer(layer(inputs))))


def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(SettingError, match=r"own has a call\(\) of its own"):
        fold(Own(name="own"))


def test_a_normalization_keeps_its_statistics() -> None:
    """Keras' layer computes with a copy of them, which setting weights does not renew."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(mean=None)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    model = after_training(keras.Model(inputs, x))
    set_layer_weights(model.layers[1], [np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), np.array(9)])
    for copy in (fold(model)[0], _copy(model, freeze_batch_norm=True)):
        np.testing.assert_allclose(outputs(copy), outputs(model), rtol=1e-4, atol=1e-3)


def test_layers_inside_of_layers_are_named_as_skipped() -> None:
    inputs = keras.Input((8, 8, 4))
    x = blocks.Block("mobileone_block", {"filters": 8}, name="own")(inputs)
    nested = keras.Sequential([keras.Input((8, 8, 8)), keras.layers.Conv2D(4, 1)], name="nested")
    folded, step = fold(keras.Model(inputs, nested(x)))
    assert {name for name, reason in step.skipped if "a model inside" in reason} == {"own", "nested"}
    assert folded.output_shape == (None, 8, 8, 4)
