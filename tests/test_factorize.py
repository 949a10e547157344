"""Low rank: the decomposition and the principal components, worked out here; ranks; laws over networks."""

import itertools
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.analyze.costs import count
from featherweight.errors import SettingError
from featherweight.factorize import Energy, Macs, Spectrum, factorize
from featherweight.models import blocks, zoo

RNG = np.random.default_rng(0)
NAMES = ["mobilenet_v1", "mobilenet_v3_small", "squeezenet_1_1", "shufflenet_v2"]


def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x.astype(np.float32)))


def falling(c: int, f: int) -> np.ndarray:
    """A matrix whose squared singular values are 1/2, 1/4, 1/8 …"""
    u, _ = np.linalg.qr(RNG.normal(size=(c, c)))
    v, _ = np.linalg.qr(RNG.normal(size=(f, f)))
    k = min(c, f)
    return u[:, :k] * np.sqrt(0.5 ** np.arange(1, k + 1)) @ v[:k]


def dense_model(weights: np.ndarray, **settings: Any) -> keras.Model:
    inputs = keras.Input(weights.shape[:1])
    model = keras.Model(inputs, keras.layers.Dense(weights.shape[1], name="d", **settings)(inputs))
    layer = model.get_layer("d")
    layer.set_weights([weights, *(RNG.normal(size=w.shape) for w in layer.get_weights()[1:])])
    return model


def test_without_pictures_it_is_the_truncated_decomposition() -> None:
    """0.5 + 0.25 + 0.125 + 0.0625 = 0.9375 is the first sum over 0.9."""
    weights = falling(30, 40)
    model = dense_model(weights, activation="tanh")
    small, step = factorize(model, Energy(0.9), multiple_of=1)
    assert step.settings["ranks"] == {"d": [4, 30]}
    assert step.settings["energy_kept"] == {"d": 0.9375}
    (thin,), (wide, bias) = (small.get_layer(name).get_weights() for name in ("d_low", "d"))
    u, s, v = np.linalg.svd(weights)
    np.testing.assert_allclose(thin @ wide, u[:, :4] * s[:4] @ v[:4], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(thin, axis=0), np.linalg.norm(wide, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(bias, model.get_layer("d").get_weights()[1])
    assert small.get_layer("d").activation is keras.activations.tanh
    assert small.get_layer("d_low").activation is keras.activations.linear


def test_a_strided_convolution_of_low_rank_is_kept_exactly() -> None:
    inputs = keras.Input((7, 7, 24))
    x = keras.layers.Conv2D(40, 1, strides=2, use_bias=False, name="c")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="n")(x))
    model = keras.Model(inputs, x)
    model.get_layer("c").set_weights([(RNG.normal(size=(24, 5)) @ RNG.normal(size=(5, 40)))[None, None]])
    small, step = factorize(model, Energy(0.9999))
    assert step.settings["ranks"] == {"c": [8, 24]}  # five, rounded up to eight
    assert step.skipped == ()
    maps = RNG.normal(size=(2, 7, 7, 24))
    np.testing.assert_allclose(outputs(small, maps), outputs(model, maps), atol=1e-3)
    assert [tuple(small.get_layer(name).strides) for name in ("c_low", "c")] == [(2, 2), (1, 1)]
    assert not small.get_layer("c").use_bias
    assert count(small)[1] == 4 * 4 * 8 * (24 + 40)


def seen_by(model: keras.Model, name: str, pictures: np.ndarray) -> np.ndarray:
    found = outputs(keras.Model(model.input, model.get_layer(name).input), pictures)
    return found.reshape(-1, found.shape[-1]).astype(np.float64)


def correlated() -> tuple[keras.Model, np.ndarray]:
    """A convolution whose inputs vary in few directions."""
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(20, 3, activation="relu", name="before")(inputs)
    x = keras.layers.Conv2D(24, 1, use_bias=False, name="c")(x)
    return keras.Model(inputs, x), RNG.uniform(0, 255, (40, 6, 6, 3))


def test_with_pictures_it_keeps_the_principal_components_of_the_outputs() -> None:
    model, pictures = correlated()
    rows, weights = seen_by(model, "c", pictures), model.get_layer("c").get_weights()[0][0, 0].astype(np.float64)
    ys = rows @ weights
    # As many rows as there are inputs, of white noise of the same power, stand for the weights.
    spread = np.cov(rows.T, bias=True)
    spread = (len(rows) * spread + 20 * np.eye(20) * np.trace(spread) / 20) / (len(rows) + 20)
    values, vectors = np.linalg.eigh(weights.T @ spread @ weights)
    rank = int(np.argmax(np.cumsum(values[::-1]) / values.sum() >= 0.8)) + 1
    kept = vectors[:, ::-1][:, :rank]
    small, step = factorize(model, Energy(0.8), pictures, multiple_of=1)
    assert step.settings["ranks"] == {"c": [rank, 20]}
    assert step.settings["pictures"] == 40
    mean = ys.mean(axis=0)
    wanted = (ys - mean) @ kept @ kept.T + mean
    found = outputs(small, pictures).reshape(-1, 24)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(ys).max())


def test_with_pictures_less_is_lost_on_other_pictures_too() -> None:
    model, pictures = correlated()
    fitted_to, others = pictures[:20], pictures[20:]
    wanted = outputs(model, others)
    ranks, misses = [], []
    for given in (fitted_to, None):
        small, step = factorize(model, Macs(0.8), given, multiple_of=1)
        ranks.append(step.settings["ranks"])
        misses.append(np.sum((outputs(small, others) - wanted) ** 2))
    assert ranks[0] == ranks[1]
    assert misses[0] < 0.5 * misses[1]


@pytest.mark.parametrize("name", NAMES)
def test_networks_keep_to_their_macs(name: str, tmp_path: Path) -> None:
    model = zoo.build(zoo.Shape(name, 0.5, 32), 5)
    before = [w.copy() for w in model.get_weights()]
    pictures = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    small, step = factorize(model, Macs(0.9), pictures if name == "mobilenet_v1" else None, multiple_of=4)
    whole, left = count(model)[1], count(small)[1]
    assert whole is not None
    assert left is not None
    assert 0.8 * whole < left <= 0.9 * whole
    assert all(rank % 4 == 0 and rank < full for rank, full in step.settings["ranks"].values())
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    found = outputs(small, pictures)
    assert found.shape == (3, 5)
    small.save(tmp_path / "small.keras")
    np.testing.assert_allclose(outputs(keras.saving.load_model(tmp_path / "small.keras"), pictures), found, atol=1e-5)


def spectrum(name: str, shape: tuple[int, int], places: int) -> Spectrum:
    shares = np.sort(RNG.exponential(size=min(shape)) ** 2)[::-1]
    return Spectrum(name, shape, shares / shares.sum(), places)


def test_no_other_ranks_of_as_few_macs_keep_more() -> None:
    """Each sum of cuts is the best of all combinations that take no more MACs: tried one by one."""
    inputs = keras.Input((4, 4, 12))
    model = keras.Model(inputs, keras.layers.Conv2D(100, 3, padding="same")(inputs))
    layers = [spectrum("a", (16, 24), 16), spectrum("b", (12, 12), 64), spectrum("c", (40, 8), 9)]
    options = [
        [None, *(rank for rank in range(1, layer.full_rank) if layer.pays(rank))] for layer in layers
    ]  # fmt: skip
    for share in (0.99, 0.98, 0.97):
        ranks = Macs(share).ranks(model, layers, 1)

        def cost(chosen: Any) -> int:
            return sum(layer.macs(rank) for layer, rank in zip(layers, chosen, strict=True))

        def kept(chosen: Any) -> float:
            return math.prod(
                1.0 if rank is None else layer.kept(rank) for layer, rank in zip(layers, chosen, strict=True)
            )

        found = [ranks.get(layer.name) for layer in layers]
        assert ranks
        best = max(kept(chosen) for chosen in itertools.product(*options) if cost(chosen) <= cost(found))
        assert kept(found) == pytest.approx(best)


def test_a_sequential_model_and_names() -> None:
    """Only what is asked for; a name that is taken already gets a number."""
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(64, name="a"), keras.layers.Dense(64, name="a_low"),
         keras.layers.Dense(64, name="c")]
    )  # fmt: skip
    for name in ("a", "c"):
        layer = model.get_layer(name)
        layer.set_weights([falling(64, 64), np.zeros(64)])
    small, step = factorize(model, Energy(0.9), layers=["a"])
    assert [layer.name for layer in small.layers][1:] == ["a_low_2", "a", "a_low", "c"]
    assert list(step.settings["ranks"]) == ["a"]
    assert step.skipped == ()
    again, _ = factorize(small, Energy(0.9), layers=["c"])
    assert again.count_params() == small.count_params() - 64 * 64 + 2 * 8 * 64


def block_inside(x: Any) -> Any:
    return blocks.Block("depthwise_separable", {"filters": 8}, name="it")(x)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (keras.layers.Conv2D(8, 1, groups=2, name="it"), "a grouped convolution: its kernel is thin already"),
        (keras.layers.Conv2D(8, 1, name="it"), "rank 8 takes 128 MACs at a place, the layer itself 64"),
        (keras.layers.Conv2D(8, 1, kernel_initializer="zeros", name="it"), "its outputs do not vary"),
        (keras.layers.Dense(8, name="it"), "rank 8 takes 128 MACs at a place"),
        (keras.layers.SeparableConv2D(8, 3, name="it"), "its 1×1 half is inside of the layer"),
        (keras.layers.Conv2D(8, 1, data_format="channels_first", name="it"), "its channels are not the last axis"),
        (block_inside, "a model inside of a layer is not looked into"),
    ],
)
def test_what_cannot_be_factorized_is_named_and_left(build: Any, reason: str) -> None:
    inputs = keras.Input((8, 8, 8))
    model = keras.Model(inputs, build(inputs))
    small, step = factorize(model, Energy(0.99), RNG.uniform(0, 255, (2, 8, 8, 8)))
    assert [name for name, _ in step.skipped] == ["it"]
    assert reason in step.skipped[0][1]
    assert [layer.name for layer in small.layers][1:] == ["it"]


def test_other_layers_are_named_only_if_asked_for() -> None:
    class Own(keras.layers.Dense):
        pass

    inputs = keras.Input((8, 8, 8))
    x = keras.layers.Conv2D(32, 3, name="wide")(inputs)
    model = keras.Model(inputs, Own(32, name="own")(x))
    assert factorize(model, Energy(0.9))[1].skipped == (("own", "Own may do more than Keras' own layer"),)
    _, step = factorize(model, Energy(0.9), layers=["wide"])
    assert step.skipped == (("wide", "no 1×1 convolution or dense layer"),)
    _, step = factorize(dense_model(falling(64, 64)), Macs(0.9))
    assert step.skipped == ()


def test_a_layer_that_the_target_does_not_need_stays_whole() -> None:
    inputs = keras.Input((64,))
    x = keras.layers.Dense(64, name="low", use_bias=False)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(64, name="full", use_bias=False)(x))
    model.get_layer("low").set_weights([falling(64, 64)])
    model.get_layer("full").set_weights([np.linalg.qr(RNG.normal(size=(64, 64)))[0]])
    _, step = factorize(model, Macs(0.75))
    assert step.settings["ranks"] == {"low": [16, 64]}  # 2 · 16 · 64 is half of 64 · 64
    assert step.skipped == (("full", "the others reach the target with less lost"),)


def test_bad_requests_are_refused_in_one_line() -> None:
    model = dense_model(falling(64, 64))
    for make, share in itertools.product((Energy, Macs), (0, 1)):
        with pytest.raises(SettingError, match=f"{share}; wanted a share over 0 and under 1"):
            make(share)
    with pytest.raises(SettingError, match="ranks in multiples of 0; wanted at least 1"):
        factorize(model, Energy(0.9), multiple_of=0)
    with pytest.raises(SettingError, match="has no layer 'x'"):
        factorize(model, Energy(0.9), layers=["x"])
    with pytest.raises(SettingError, match=r"pictures \(2, 3\)"):
        factorize(model, Energy(0.9), np.zeros((2, 3)))
    with pytest.raises(SettingError, match="keeps 25% of its MACs even with ranks of 8; wanted 20%"):
        factorize(model, Macs(0.2))
    wide = keras.Input((6001,))
    _, step = factorize(keras.Model(wide, keras.layers.Dense(2, name="d")(wide)), Energy(0.9), np.zeros((2, 6001)))
    assert step.skipped == (("d", "6001 inputs are too many to be fitted on pictures; leave them out"),)
    shared = keras.layers.Dense(64)
    inputs = keras.Input((64,))
    with pytest.raises(SettingError, match="used more than once"):
        factorize(keras.Model(inputs, shared(shared(inputs))), Energy(0.9))
    unknown = keras.layers.Lambda(lambda x: x)(keras.layers.Dense(8)(inputs))
    with pytest.raises(SettingError, match="has a layer whose MACs nobody knows; wanted Energy"):
        factorize(keras.Model(inputs, unknown), Macs(0.9))
