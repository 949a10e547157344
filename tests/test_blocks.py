"""Every block: its shape, its cost by its formula, saved and loaded, and what is special in each."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.errors import SettingError
from featherweight.models import blocks
from featherweight.models.blocks import BLOCKS, AffineSampler, Block, ChannelPad, ChannelSlice
from featherweight.models.stages import Style, make_divisible

SIDE, CHANNELS = 12, 16

# block → (settings, output shape, kernel numbers by the docstring's formula with c = 16). A kernel number of a layer at
# an H × W map is H·W MACs; all layers of a block with strides 1 are at the same map.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
    "convolution": ({"filters": 24, "kernel": 3}, (12, 12, 24), 9 * 16 * 24),
    "depthwise": ({"kernel": 5}, (12, 12, 16), 25 * 16),
    "depthwise_separable": ({"filters": 24}, (12, 12, 24), 9 * 16 + 16 * 24),
    "inverted_residual": ({"filters": 24, "expand": 4}, (12, 12, 24), 16 * 64 + 9 * 64 + 64 * 24),
    "fused_inverted_residual": ({"filters": 24, "expand": 2}, (12, 12, 24), 9 * 16 * 32 + 32 * 24),
    "squeeze_excite": ({"reduced": 4}, (12, 12, 16), 2 * 16 * 4),
    "fire": ({"filters": 32}, (12, 12, 32), 16 * 4 + 4 * 16 + 9 * 4 * 16),
    "channel_shuffle": ({"groups": 4}, (12, 12, 16), 0),
    "shuffle_unit": ({"filters": 16, "groups": 2}, (12, 12, 16), 16 * 4 // 2 + 9 * 4 + 4 * 16 // 2),
    "shuffle_unit_v2": ({"filters": 16}, (12, 12, 16), 2 * 8 * 8 + 9 * 8),
    "ghost": ({"filters": 32}, (12, 12, 32), 16 * 16 + 9 * 16),
    "ghost_bottleneck": ({"filters": 16, "expand": 32}, (12, 12, 16), (16 * 16 + 9 * 16) + (32 * 8 + 9 * 8)),
    "universal_inverted_bottleneck": (
        {"filters": 24, "expand": 4, "start": 3, "middle": 5},
        (12, 12, 24),
        9 * 16 + 16 * 64 + 25 * 64 + 64 * 24,
    ),
    "branched": ({"filters": 16, "branches": 2}, (12, 12, 16), 16 * 16 + 2 * 9 * 16 * 16),
    "mobileone_block": ({"filters": 24, "branches": 2}, (12, 12, 24), (16 + 2 * 9 * 16) + 2 * 16 * 24),
    "basic_residual": ({"filters": 16}, (12, 12, 16), 2 * 9 * 16 * 16),
    "spatial_pyramid_pooling": ({"filters": 24}, (12, 12, 24), 16 * 8 + 4 * 8 * 24),
    "spatial_transformer": ({}, (12, 12, 16), (9 * 16 + 16 * 8) + (9 * 8 + 8 * 16) + 16 * 6),
}
STRIDED = {name: case for name, case in CASES.items() if name not in
           ("squeeze_excite", "channel_shuffle", "spatial_transformer")}  # fmt: skip


def one_block(kind: str, settings: dict[str, Any], channels: int = CHANNELS, side: int = SIDE) -> keras.Model:
    return keras.Sequential([keras.Input((side, side, channels)), Block(kind, settings, name="block")])


def randomised(model: keras.Model) -> keras.Model:
    """Batch norms as after training, so that nothing is the identity by accident."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) * (0.2 if w.ndim > 1 else 1.0)
                       for w in model.get_weights()])  # fmt: skip
    return model


def test_every_block_has_a_case() -> None:
    assert set(CASES) == set(BLOCKS)


@pytest.mark.parametrize("kind", CASES)
def test_shape_and_kernel_numbers(kind: str) -> None:
    settings, shape, numbers = CASES[kind]
    model = one_block(kind, settings)
    assert model.output_shape == (None, *shape)
    kernels = [w for w in model.weights if "kernel" in w.name]
    assert sum(int(np.prod(w.shape)) for w in kernels) == numbers


@pytest.mark.parametrize("kind", STRIDED)
@pytest.mark.parametrize("side", [12, 13])
def test_strides_halve_the_map_rounded_up(kind: str, side: int) -> None:
    settings, shape, _ = STRIDED[kind]
    settings = {**settings, "strides": 2}
    if kind == "shuffle_unit":
        settings["filters"], shape = 32, (*shape[:2], 32)  # the pooled input is a part of the output
    # Caffe's pooling gives 13 → 6 exactly, nothing is left over.
    half = 6 if kind == "fire" and side == 13 else -(-side // 2)
    assert one_block(kind, settings, side=side).output_shape == (None, half, half, shape[-1])


@pytest.mark.parametrize("kind", CASES)
def test_a_model_with_the_block_is_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    model = randomised(one_block(kind, CASES[kind][0]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(1).normal(size=(2, SIDE, SIDE, CHANNELS)).astype(np.float32)
    np.testing.assert_array_equal(model.predict_on_batch(x), loaded.predict_on_batch(x))
    assert np.ptp(model.predict_on_batch(x)) > 0


@pytest.mark.parametrize("kind", ["inverted_residual", "fire", "ghost_bottleneck", "spatial_transformer"])
def test_a_block_in_a_functional_model_trains(kind: str) -> None:
    inputs = keras.Input((SIDE, SIDE, CHANNELS))
    x = Block(kind, CASES[kind][0])(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, SIDE, SIDE, CHANNELS)), rng.normal(size=(8, 2))
    before = [w.copy() for w in model.get_weights()]
    model.fit(x, y, verbose=0, epochs=2)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.9


def test_shuffle_mixes_the_groups() -> None:
    """Zhang et al.: 6 channels in 2 groups, 0 1 2 | 3 4 5 → 0 3 1 4 2 5."""
    model = one_block("channel_shuffle", {"groups": 2}, channels=6)
    x = np.tile(np.arange(6, dtype=np.float32), (1, SIDE, SIDE, 1))
    assert model.predict_on_batch(x)[0, 3, 5].tolist() == [0, 3, 1, 4, 2, 5]
    # Every place keeps its own: no pixel moves.
    places = np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE, 1) * np.ones(6, np.float32)
    np.testing.assert_array_equal(model.predict_on_batch(places), places)


def test_shuffle_v2_passes_one_half_untouched() -> None:
    model = randomised(one_block("shuffle_unit_v2", {"filters": 16}))
    x = np.random.default_rng(0).normal(size=(1, SIDE, SIDE, 16)).astype(np.float32)
    np.testing.assert_array_equal(model.predict_on_batch(x)[..., 0::2], x[..., :8])


def test_ghost_with_an_odd_number_of_filters_is_cut() -> None:
    assert one_block("ghost", {"filters": 31}).output_shape[-1] == 31
    assert one_block("ghost", {"filters": 30, "ratio": 3}).output_shape[-1] == 30


def test_the_residual_adds_the_input() -> None:
    """With the last batch norm silent, what is left of an inverted residual is its input."""
    model = randomised(one_block("inverted_residual", {"filters": 16, "expand": 2}))
    inner = model.layers[0].inner
    norm = inner.get_layer("inverted_residual_project_norm")
    norm.set_weights([np.zeros(16), np.zeros(16), np.zeros(16), np.ones(16)])
    x = np.random.default_rng(0).normal(size=(1, SIDE, SIDE, 16)).astype(np.float32)
    np.testing.assert_allclose(model.predict_on_batch(x), x, atol=1e-6)
    wider = one_block("inverted_residual", {"filters": 24})
    assert not [layer for layer in wider.layers[0].inner.layers if isinstance(layer, keras.layers.Add)]


def test_basic_residual_thins_and_fills_its_shortcut() -> None:
    """Option A: every second pixel from the first, zero channels before and behind."""
    model = one_block("basic_residual", {"filters": 20, "strides": 2})
    for layer in model.layers[0].inner.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.zeros(20))
    x = np.random.default_rng(0).uniform(1, 2, (1, SIDE, SIDE, 16)).astype(np.float32)
    y = model.predict_on_batch(x)
    np.testing.assert_array_equal(y[..., 2:18], x[:, ::2, ::2])
    assert not y[..., :2].any()
    assert not y[..., 18:].any()


def test_paddings_look_at_different_pixels() -> None:
    """A 3×3 window with strides 2 over 4 pixels, kernel 1 at its corner: symmetric starts at -1, same at 0."""
    row = np.arange(1, 5, dtype=np.float32)
    x = np.tile(row[None, :, None], (4, 1, 1))[None]
    first = {}
    for padding in ("symmetric", "same"):
        inputs = keras.Input((4, 4, 1))
        y = blocks.convolution(inputs, 1, 3, 2, name="c", style=Style(padding), norm=False, activation="linear")
        model = keras.Model(inputs, y)
        kernel = np.zeros((3, 3, 1, 1), np.float32)
        kernel[1, 0] = 1
        model.set_weights([kernel, np.zeros(1)])
        first[padding] = model.predict_on_batch(x)[0, 0, :, 0].tolist()
    assert first == {"symmetric": [0, 2], "same": [1, 3]}


# ----------------------------------------------------------------------------------------- spatial transformer


def sampled(image: np.ndarray, theta: list[float]) -> np.ndarray:
    return np.asarray(AffineSampler()([image, np.array([theta], np.float32)]))


def test_the_sampler_starts_as_the_identity_and_mirrors() -> None:
    image = np.random.default_rng(0).normal(size=(1, 5, 7, 2)).astype(np.float32)
    np.testing.assert_allclose(sampled(image, [1, 0, 0, 0, 1, 0]), image, atol=1e-5)
    np.testing.assert_allclose(sampled(image, [-1, 0, 0, 0, 1, 0]), image[:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(sampled(image, [1, 0, 0, 0, -1, 0]), image[:, ::-1], atol=1e-5)


def test_the_sampler_shifts_and_interpolates() -> None:
    """Width 5: a shift of 0.25 in [-1, 1] is half a pixel; outside there are zeros."""
    image = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1) * np.ones((1, 3, 1, 1), np.float32)
    half = sampled(image, [1, 0, 0.25, 0, 1, 0])
    np.testing.assert_allclose(half[0, 1, :, 0], [0.5, 1.5, 2.5, 3.5, 2.0], atol=1e-5)
    assert not sampled(image, [1, 0, 4.0, 0, 1, 0]).any()


def test_the_spatial_transformer_does_nothing_before_training() -> None:
    model = one_block("spatial_transformer", {})
    x = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, CHANNELS)).astype(np.float32)
    np.testing.assert_allclose(model.predict_on_batch(x), x, atol=1e-5)


# -------------------------------------------------------------------------------------- as a layer among others


def test_a_frozen_block_does_not_train(tmp_path: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, CHANNELS))
    block = Block("inverted_residual", {"filters": 16, "expand": 2}, trainable=False)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(block(inputs)))
    assert model.trainable_weights == []
    model.save(tmp_path / "frozen.keras")
    assert keras.saving.load_model(tmp_path / "frozen.keras").trainable_weights == []


def test_a_block_keeps_its_own_dtype_policy() -> None:
    block = Block("spatial_transformer", {}, dtype="mixed_float16")
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    y = block(x)  # 4096 places: more than float16 can count
    assert y.dtype == "float16"
    assert {str(w.dtype) for w in block.weights} == {"float32"}
    np.testing.assert_allclose(np.asarray(y, np.float32), x, atol=0.02)
    assert keras.config.dtype_policy().name == "float32"


def test_a_block_takes_a_style_as_a_mapping(tmp_path: Path) -> None:
    settings = {"filters": 8, "strides": 2, "style": {"padding": "same", "activation": "relu6", "epsilon": 1e-3}}
    model = keras.Sequential([keras.Input((SIDE, SIDE, CHANNELS)), Block("depthwise_separable", settings)])
    inner = model.layers[0].inner
    assert not [layer for layer in inner.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
    assert inner.get_layer("depthwise_separable_depthwise_norm").epsilon == 1e-3
    model.save(tmp_path / "styled.keras")
    loaded = keras.saving.load_model(tmp_path / "styled.keras")
    assert loaded.layers[0].settings["style"]["activation"] == "relu6"


# ------------------------------------------------------------------------------------------------------ errors


def test_make_divisible_is_the_papers_rule() -> None:
    """MobileNetV2's: nearest multiple, but never under 90 %."""
    assert [make_divisible(c) for c in (32, 33, 36, 37, 3, 11.9)] == [32, 32, 40, 40, 8, 16]
    assert make_divisible(27, 4) == 28


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Block("fires"), "unknown block 'fires'; known: convolution, depthwise"),
        (lambda: one_block("fire", {"filter": 8}), "block fire on .*filter"),
        (lambda: one_block("channel_shuffle", {"groups": 3}), "16 channels in 3 groups"),
        (lambda: one_block("channel_shuffle", {"groups": 0}), "block channel_shuffle on .* with .*groups"),
        (lambda: one_block("convolution", {"filters": 0}), "block convolution on .*filters"),
        (lambda: one_block("convolution", {"filters": 4, "kernel": 2}), "a kernel of 2 at convolution; wanted an odd"),
        (lambda: one_block("branched", {"filters": 16, "branches": 0, "kernel": 1, "strides": 2}), "block branched on"),
        (lambda: one_block("branched", {"filters": 24, "each_channel": True}), "24 filters on 16 channels, each"),
        (lambda: one_block("fire", {"filters": 16, "strides": 3}), "strides 3 at fire; wanted 1 or 2"),
        (lambda: one_block("shuffle_unit_v2", {"filters": 24}), "24 filters on 16 channels .* wanted an even number"),
        (
            lambda: one_block("universal_inverted_bottleneck", {"filters": 8, "middle": 0, "strides": 2}),
            "strides 2 without a depthwise filter",
        ),
        (lambda: one_block("fire", {"filters": 16, "style": {"pad": 1}}), "block fire on .*Style.*pad"),
        (lambda: Style("half"), "padding 'half'; wanted symmetric, same or valid"),
        (lambda: ChannelSlice(4, 4), "channels 4 to 4"),
        (lambda: ChannelSlice(0, 9)(keras.Input((4, 4, 8))), "wants channels 0 to 9; its input has 8"),
        (lambda: ChannelPad(-1, 0), "-1 channels before"),
        (
            lambda: blocks.fire(keras.Input((12, 13, 8)), 16, 2, name="f"),
            "a map of 12×13; wanted two even or two odd sides",
        ),
    ],
)
def test_bad_settings_are_refused(bad: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        bad()
