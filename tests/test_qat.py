"""Fake quantization by hand arithmetic; and the exported int8 file answers as the model that was trained."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from featherweight.artifact import Artifact, Step, read_artifact
from featherweight.data import Dataset, read_dataset
from featherweight.errors import ExportError, SettingError
from featherweight.export import About
from featherweight.models import blocks
from featherweight.models.stages import Style
from featherweight.qat import (
    GENTLE,
    PATIENT,
    Grid,
    PlaceSettings,
    RangeSettings,
    export_qat,
    fake_quantize,
    finish,
    imitate,
    settled,
    train_aware,
)
from featherweight.qat.files import _check
from featherweight.qat.grid import kernel_scales, on_bias_grid, on_kernel_grid
from featherweight.qat.layers import FakeQuantize, FakeQuantizedKernel, rounded_activation, rounded_kernel
from featherweight.qat.spelling import spelled_out
from featherweight.quantize.agreement import answers
from featherweight.train import predict_pixels, set_seed
from tests.pictures import write_folder

SIDE = 24
CLASSES = 3
ABOUT = About("tiny", ("a", "b", "c"), ())


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    """Smooth blobs of colour with some noise, as photos have."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 4, 4, 3))
    smooth = np.asarray(keras.ops.image.resize(coarse, (side, side), interpolation="bilinear"))
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def as_trained(model: keras.Model) -> keras.Model:
    """Statistics, biases and a head that tells pictures apart, as after training."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([rng.uniform(0.7, 1.5, gamma.shape), rng.normal(0, 0.3, beta.shape),
                               rng.normal(0, 0.2, mean.shape), rng.uniform(0.3, 1.0, variance.shape)])  # fmt: skip
    features = keras.Model(model.input, model.get_layer("head").input)(pictures(16)).numpy()
    kernel = rng.normal(0, 1, (features.shape[1], CLASSES))
    logits = features @ kernel
    scale = 2 / logits.std(axis=0).mean()
    model.get_layer("head").set_weights([scale * kernel, -scale * logits.mean(axis=0)])
    return model


def residual_net() -> keras.Model:
    """MobileNetV2's block with the addition, a padded strided convolution, and a channel that is never but its bias."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127.5, -1, name="scale")(inputs)
    style = Style(activation="relu6")
    x = blocks.convolution(x, 8, 3, 2, name="stem", style=style)
    x = blocks.inverted_residual(x, 8, name="block", expand=3, style=style)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dropout(0.3)(x)
    model = as_trained(keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(x)))
    kernel = model.get_layer("block_expand").get_weights()[0]
    kernel[..., 3] = 0
    model.get_layer("block_expand").set_weights([kernel])
    return model


def gated_net() -> keras.Model:
    """Squeeze-and-excitation, hard-swish, a sigmoid gate, branches that are pooled and concatenated, three summed; it
    gives logits.
    """
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    x = blocks.convolution(x, 8, 3, 2, name="stem", style=Style(activation="hard_swish"))
    x = blocks.squeeze_excite(x, name="excite", reduced=4)
    left = layers.SeparableConv2D(6, 3, activation="silu", name="left")(x)
    right = layers.Conv2D(6, 3, activation="relu", name="right")(x)
    x = layers.Concatenate(name="both")([left, right, layers.AveragePooling2D(3, 1, name="means")(x)])
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(8, 1, activation="hard_swish", name="mix")(x)
    a, b = (layers.Conv2D(8, 1, activation="relu", name=name)(x) for name in ("one", "two"))
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, a, b]))
    x = layers.Flatten(name="flat")(layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x))
    return as_trained(keras.Model(inputs, layers.Dense(CLASSES, name="head")(x)))


NETS = {"residual": residual_net, "gated": gated_net}


class Aware(NamedTuple):
    model: Any  # keras.Model
    aware: Any  # the same, fake-quantized; not to be changed
    step: Step


@pytest.fixture(scope="module")
def made() -> dict[str, Aware]:
    set_seed(1)
    models = {name: net() for name, net in NETS.items()}
    return {name: Aware(model, *fake_quantize(model, pictures(32))) for name, model in models.items()}


@pytest.fixture(scope="module")
def files(made: dict[str, Aware], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Artifact]:
    place = tmp_path_factory.mktemp("qat-files")
    return {
        (name, kind): export_qat(one.aware, place / f"{name}-{kind}", kind, ABOUT, pictures(48))
        for name, one in made.items() for kind in ("onnx", "litert")
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- arithmetic


def test_an_activation_is_rounded_and_its_gradient_goes_straight_through() -> None:
    """Scale 1/2 and zero point 250: from -125 to 2.5. 0.26 is 0.52 steps, 1.4 is 2.8; 9 is beyond."""
    x = tf.constant([-125.4, -3.0, -1.1, 0.26, 1.4, 9.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = rounded_activation(x, 0.5, 250.0)
        total = tf.reduce_sum(y * tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    np.testing.assert_array_equal(y, [-125.0, -3.0, -1.0, 0.5, 1.5, 2.5])
    np.testing.assert_array_equal(tape.gradient(total, x), [0.0, 2.0, 3.0, 4.0, 5.0, 0.0])


def test_a_kernel_is_rounded_by_output_channel_and_all_of_it_gets_its_gradient() -> None:
    """Greatest weights 1.27 and 2.54: steps of 0.01 and 0.02."""
    kernel = tf.constant([[[[1.27, 0.313], [-0.504, -2.54]]]])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = rounded_kernel(kernel, (0, 1, 2))
        total = tf.reduce_sum(y * tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]]))
    np.testing.assert_allclose(y, [[[[1.27, 0.32], [-0.50, -2.54]]]], atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(total, kernel), [[[[1.0, 2.0], [3.0, 4.0]]]])


def test_each_kind_of_kernel_has_a_scale_for_each_output_channel() -> None:
    convolution = np.array([[[[1.27, 2.54, 0.0]]]], np.float32)  # (h, w, in, out)
    np.testing.assert_allclose(kernel_scales(convolution, (0, 1, 2)).ravel(), [0.01, 0.02, 1.0])
    depthwise = np.array([[[[1.27, 2.54], [12.7, 25.4]]]], np.float32)  # (h, w, in, filters of each)
    np.testing.assert_allclose(kernel_scales(depthwise, (0, 1)), [[[[0.01, 0.02], [0.1, 0.2]]]])
    transposed = np.array([[[[1.27, 0.1], [0.3, 2.54]]]], np.float32)  # (h, w, out, in)
    np.testing.assert_allclose(kernel_scales(transposed, (0, 1, 3)).ravel(), [0.01, 0.02])
    np.testing.assert_allclose(on_kernel_grid(np.array([[0.313], [2.54]], np.float32), (0,)), [[0.32], [2.54]])


def test_a_bias_lies_on_the_grid_of_input_times_kernel() -> None:
    """Steps of 0.5 · 0.01 and 0.5 · 1; a bias of more than 2²³ steps is left."""
    scales = np.array([[[[0.01, 1.0]]]], np.float32)
    np.testing.assert_allclose(on_bias_grid(np.array([0.0121, 0.6], np.float32), 0.5, scales), [0.01, 0.5])
    huge = np.array([1e9, 1e9 + 64], np.float32)
    np.testing.assert_array_equal(on_bias_grid(huge, 0.5, scales), huge)


def test_a_grid_holds_zero_and_its_ends() -> None:
    """-1 to 3 is 4/255 a step; 0 would be code 63.75 and is 64."""
    layer = FakeQuantize(fixed=(-1.0, 3.0))
    layer(np.zeros((1, 2), np.float32))
    grid = layer.grid()
    assert (grid.zero_point, grid.scale) == (64, pytest.approx(4 / 255))
    assert (grid.low, grid.high) == (pytest.approx(-64 * 4 / 255), pytest.approx(191 * 4 / 255))
    assert Grid(0.5, 250).low == -125


def test_a_range_follows_the_batch_and_can_be_frozen() -> None:
    layer = FakeQuantize()
    batch = np.array([[-1.0, 4.0]], np.float32)
    layer(batch)
    layer.rate.assign(0.25)
    layer(batch, training=True)  # from 0, 0 a quarter of the way
    assert layer.range.numpy().tolist() == [-0.25, 1.0]
    layer([batch, 3 * batch], training=True)  # several tensors have one range: -3 to 12
    assert layer.range.numpy().tolist() == [-0.9375, 3.75]
    layer(batch + 100)  # not in inference
    layer.rate.assign(0.0)
    layer(batch + 100, training=True)
    assert layer.range.numpy().tolist() == [-0.9375, 3.75]


def test_first_ranges_are_the_mean_over_batches() -> None:
    """Batches of 32: one whose greatest product is 2 · 100, one of 2 · 50."""
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, layers.Conv2D(1, 1, use_bias=False, name="double")(inputs))
    model.set_weights([np.full((1, 1, 1, 1), 2.0)])
    pixels = np.concatenate([np.full((32, 1, 1, 1), 100, np.uint8), np.full((32, 1, 1, 1), 50, np.uint8)])
    aware, step = fake_quantize(model, pixels)
    assert finish(aware)[1]["double"].high == pytest.approx(150)
    assert step.settings == {"kernels": 1, "activations": 2, "calibration_images": 64}


# -------------------------------------------------------------------------------------------------------- places


def test_it_is_rounded_where_the_files_have_8_bits(made: dict[str, Aware]) -> None:
    _, aware, step = made["residual"]
    assert finish(aware)[1].keys() == {
        "pixels", "scale", "stem_relu6", "block_expand_relu6", "block_depthwise_relu6", "block_project", "block_add",
        "mean", "head",
    }  # fmt: skip
    kernels = {layer.name for layer in aware.layers if isinstance(layer, FakeQuantizedKernel)}
    assert kernels == {"stem", "block_expand", "block_depthwise", "block_project", "head"}
    assert step.settings == {"kernels": 5, "activations": 9, "calibration_images": 32}
    assert step.skipped == ()


def test_grids_are_shared_or_fixed_where_the_formats_have_them_so(made: dict[str, Aware]) -> None:
    _, grids = finish(made["gated"].aware)
    assert "both" in grids  # of all that goes into the concatenation
    assert not {"left_silu", "right", "means"} & grids.keys()  # what only it takes, and what is pooled
    assert grids["left_sigmoid"] == Grid(pytest.approx(1 / 256), 0)
    assert grids["excite_expand_activation"] == Grid(pytest.approx(1 / 255), 0)  # the hard sigmoid's
    assert {"sum_1", "sum_relu"} <= grids.keys()
    assert "sum" not in grids


def test_pixels_that_would_lie_half_a_step_beside_the_grid_get_a_wider_one(made: dict[str, Aware]) -> None:
    """x / 127.5 - 1 has 0 at pixel 127.5; x / 255 has it at 0."""
    assert finish(made["residual"].aware)[1]["scale"].scale == pytest.approx(1.01 * 2 / 255)
    assert finish(made["gated"].aware)[1]["scale"] == Grid(pytest.approx(1 / 255), 0)


@pytest.mark.parametrize("name", NETS)
def test_spelling_out_keeps_the_answers(made: dict[str, Aware], name: str) -> None:
    x, model = pictures(4).astype(np.float32), made[name].model
    np.testing.assert_allclose(spelled_out(model)(x), model(x), rtol=1e-4, atol=1e-4)


def test_arithmetic_without_layers_is_spelled_in_layers() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="a")(inputs)
    y = layers.Conv2D(4, 1, activation="relu", name="b")(inputs)
    gate = layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)  # as keras.applications.MobileNetV3 has it
    model = keras.Model(inputs, layers.Activation("linear")(layers.ReLU(6.0)(x * gate - y) * 0.5))
    spelled = spelled_out(model)
    kinds = [type(operation).__name__ for operation in spelled.operations]
    assert kinds.count("Activation") == 1  # the hard sigmoid
    assert {"Subtract", "Multiply"} <= {type(layer).__name__ for layer in spelled.layers}
    pixels = pictures(2, 8).astype(np.float32) / 100
    np.testing.assert_allclose(spelled(pixels), model(pixels), atol=1e-5)
    _, step = fake_quantize(model, pictures(2, 8))
    assert [reason for _, reason in step.skipped] == [  # the product with a number
        "no rule for Multiply: it stays float, and what it gives is rounded to 8 bits again"
    ]


def test_a_model_comes_back_in_plain_layers(made: dict[str, Aware]) -> None:
    model, aware, _ = made["residual"]
    plain, grids = finish(aware)
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    kernel, bias = plain.get_layer("block_project").get_weights()
    codes = kernel / kernel_scales(kernel, (0, 1, 2))
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
    steps = grids["block_depthwise_relu6"].scale * kernel_scales(kernel, (0, 1, 2)).ravel()
    np.testing.assert_allclose(bias / steps, np.round(bias / steps), atol=1e-2)
    assert not model.get_layer("block_project").use_bias  # the input is unchanged


def test_it_is_saved_and_loaded(made: dict[str, Aware], tmp_path: Path) -> None:
    aware = made["gated"].aware
    aware.save(tmp_path / "aware.keras")
    loaded = keras.saving.load_model(tmp_path / "aware.keras")
    x = pictures(4).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), aware(x))
    assert finish(loaded)[1] == finish(aware)[1]


# --------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("file_format", ["onnx", "litert"])
@pytest.mark.parametrize("name", NETS)
def test_the_file_answers_within_a_step_of_its_output(
    made: dict[str, Aware], files: dict[tuple[str, str], Artifact], name: str, file_format: str
) -> None:
    """Of probabilities 1/255: LiteRT has them in steps of 1/256, ONNX as the softmax of rounded logits. Of logits one
    step of their grid.
    """
    aware, artifact, x = made[name].aware, files[name, file_format], pictures(48)
    found, wanted = answers(artifact, x), predict_pixels(settled(aware), x)
    one = 1 / 255 if name == "residual" else 1.0001 * finish(aware)[1]["head"].scale
    off = np.abs(found - wanted)
    assert np.ptp(wanted, axis=0).max() > 50 * one  # the pictures differ
    if (name, file_format) == ("gated", "litert"):
        # Of 256 codes LiteRT's hard-swish gives one or two a step off, which random layers behind it multiply.
        assert off.mean() <= 2 * one
    else:
        assert off.max() <= one
    assert artifact == read_artifact(artifact.path)
    assert (artifact.precision, artifact.parameters) == ("int8", finish(aware)[0].count_params())
    assert artifact.steps[-1].settings["largest_difference"] == pytest.approx(off.max())


def test_onnx_has_no_float_convolution_left(files: dict[tuple[str, str], Artifact]) -> None:
    import onnx

    graph = onnx.load(files["residual", "onnx"].model_path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert [node.op_type for node in products] == ["Conv"] * 4 + ["Gemm"]
    assert {makers[name] for node in products for name in node.input} == {"DequantizeLinear"}
    assert "Pad" not in makers.values()
    kinds = {one.name.rpartition("_weights_")[2]: one.data_type for one in graph.initializer if "_weights_" in one.name}
    assert kinds["codes"] == onnx.TensorProto.INT8
    # ONNX Runtime takes all of it for int8, in both nets.
    for name in NETS:
        operators = fused(files[name, "onnx"])
        assert operators["QLinearConv"] == {"residual": 4, "gated": 10}[name]
        assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & operators.keys()


def fused(artifact: Artifact) -> Counter[str]:
    """The operators of a file as ONNX Runtime runs it."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(artifact.path / "fused.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    onnxruntime.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(artifact.path / "fused.onnx").graph.node)


@pytest.mark.parametrize("name", NETS)
def test_litert_is_integer_only_and_takes_a_pixel_as_its_own_code(
    files: dict[tuple[str, str], Artifact], name: str
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(files[name, "litert"].model_path))
    details = interpreter.get_input_details()[0]
    assert (details["dtype"], details["quantization"]) == (np.uint8, (1.0, 0))
    assert not [one["name"] for one in interpreter.get_tensor_details() if one["dtype"] is np.float32]


def test_unknown_layers_and_transposed_convolutions_are_exported_too(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu", name="grown")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name="large")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="mean")(x))
    aware, step = fake_quantize(model, pictures(8, 8))
    reason = "no rule for LayerNormalization: it stays float, and what it gives is rounded to 8 bits again"
    assert step.skipped == (("norm", reason),)
    assert "norm" in finish(aware)[1]
    wanted = predict_pixels(settled(aware), pictures(8, 8))
    for file_format in ("onnx", "litert"):
        artifact = export_qat(aware, tmp_path / file_format, file_format, ABOUT, pictures(8, 8))
        off = np.abs(answers(artifact, pictures(8, 8)) - wanted).max()
        assert off <= 1.0001 * finish(aware)[1]["mean"].scale


# ------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(write_folder(tmp_path_factory.mktemp("qat") / "colours"))


def test_training_moves_kernels_and_ranges_and_lowers_the_loss(colours: Dataset) -> None:
    set_seed(0)
    model = residual_net()
    settings = replace(GENTLE, epochs=3, learning_rate=3e-3, batch_size=16, augment=False)
    aware, step = train_aware(model, colours, settings, RangeSettings(calibration_images=16))
    done = step.settings
    assert (done["kernels"], done["activations"], done["calibration_images"], done["epochs_run"]) == (5, 9, 16, 3)
    assert done["best_epoch"] > 0  # the loss on val fell
    rates = {float(layer.rate) for layer in aware.layers if isinstance(layer, FakeQuantize)}
    assert rates == {0.0 if done["best_epoch"] > 2 else pytest.approx(0.01)}
    before = finish(fake_quantize(model, pictures(16))[0])
    after = finish(aware)
    assert after[1]["block_add"] != before[1]["block_add"]
    moved = after[0].get_layer("block_project").get_weights()[0] - before[0].get_layer("block_project").get_weights()[0]
    assert np.abs(moved).max() > 1e-3
    # Steps that are far too large make it worse, and it goes back to what it was.
    worse = replace(settings, epochs=1, learning_rate=0.9)
    _, step = train_aware(after[0], colours, worse, RangeSettings(calibration_images=16))
    assert step.settings["best_epoch"] == 0
    assert step.settings["accuracy_val"] == step.settings["accuracy_val_before"]


# ------------------------------------------------------------------------------------------------------ refusals


def test_a_model_that_cannot_be_rounded_comes_back_with_the_reason(colours: Dataset) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    shared = layers.Conv2D(3, 3, padding="same")
    x = layers.GlobalAveragePooling2D()(shared(shared(inputs)))
    model = keras.Model(inputs, layers.Softmax()(x), name="twice")
    found, step = train_aware(model, colours)
    assert found is model
    assert step.settings["kernels"] == 0
    assert step.skipped[0][0] == "twice"
    assert "used more than once" in step.skipped[0][1]


def test_bad_requests_get_one_line(made: dict[str, Aware], tmp_path: Path) -> None:
    model, about = made["residual"].model, ABOUT
    with pytest.raises(SettingError, match="0 calibration images; wanted at least 1"):
        RangeSettings(calibration_images=0)
    with pytest.raises(SettingError, match=r"momentum 1\.5, frozen after 0\.5; wanted 0 to 1"):
        RangeSettings(momentum=1.5)
    with pytest.raises(SettingError, match="wanted at least one, of the size of its one input"):
        fake_quantize(model, pictures(2, 16))
    with pytest.raises(SettingError, match="no convolution or dense layer"):
        inputs = keras.Input((SIDE, SIDE, 3))
        fake_quantize(keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs)), pictures(2))
    for refused in (finish, settled, lambda model: export_qat(model, tmp_path / "x", "onnx", about, pictures(2))):
        with pytest.raises(SettingError, match="is not fake-quantized"):
            refused(model)
    with pytest.raises(ExportError, match="unknown format 'tflite'; known: onnx, litert"):
        export_qat(model, tmp_path / "x", "tflite", about, pictures(2))
    wanted = np.array([[1.0, 0.0]], np.float32)
    assert _check("x", wanted, wanted) == 0
    with pytest.raises(ExportError, match=r"0\.500 away from the fake-quantized model"):
        _check("x", wanted, np.array([[0.5, 0.5]], np.float32))


# ------------------------------------------------------------------------------------------- places, and imitation


def leaky_net() -> keras.Model:
    """Leaky ReLUs and two outputs' worth of raw numbers, as a detector has them."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    for number, filters in enumerate((8, 8, 12)):
        x = layers.Conv2D(filters, 3, 1 + number % 2, "same", use_bias=False, name=f"conv{number}")(x)
        x = layers.LeakyReLU(negative_slope=0.1, name=f"leaky{number}")(layers.BatchNormalization(name=f"n{number}")(x))
    return keras.Model(inputs, layers.Conv2D(5, 1, name="head")(x))


def test_all_up_to_a_layer_may_stay_float(tmp_path: Path) -> None:
    set_seed(2)
    model, x = leaky_net(), pictures(24)
    aware, step = fake_quantize(model, x, places=PlaceSettings("leaky0"))
    kernels = {layer.name for layer in aware.layers if isinstance(layer, FakeQuantizedKernel)}
    assert kernels == {"conv1", "conv2", "head"}
    assert finish(aware)[1].keys() == {"leaky0", "conv1", "leaky1", "conv2", "leaky2", "head"}
    assert step.settings["float_up_to"] == "leaky0"
    artifact = export_qat(aware, tmp_path / "part", "onnx", ABOUT, x)
    np.testing.assert_allclose(
        answers(artifact, x), predict_pixels(settled(aware), x), atol=1.01 * finish(aware)[1]["head"].scale
    )
    with pytest.raises(ExportError, match="tiny is not rounded everywhere, and LiteRT has no such"):
        export_qat(aware, tmp_path / "litert", "litert", ABOUT, x)
    with pytest.raises(SettingError, match="no layer 'leaky9' to stay float up to"):
        fake_quantize(model, x, places=PlaceSettings("leaky9"))


def test_fused_ones_have_no_inner_codes_and_float_ends(tmp_path: Path) -> None:
    set_seed(2)
    model, x = leaky_net(), pictures(24)
    plain, fused_one = (fake_quantize(model, x, places=PlaceSettings(fused=fused))[0] for fused in (False, True))
    assert finish(plain)[1].keys() - finish(fused_one)[1].keys() == {"conv0", "conv1", "conv2", "head"}
    wanted = predict_pixels(model, x)
    off = [np.abs(predict_pixels(settled(one), x) - wanted).mean() for one in (plain, fused_one)]
    assert off[1] < off[0]
    artifact = export_qat(fused_one, tmp_path / "fused", "onnx", ABOUT, x)
    assert np.abs(answers(artifact, x) - predict_pixels(settled(fused_one), x)).max() < 0.02 * np.abs(wanted).max()
    with pytest.raises(ExportError, match="not rounded everywhere"):
        export_qat(fused_one, tmp_path / "litert", "litert", ABOUT, x)
    export_qat(plain, tmp_path / "plain", "litert", ABOUT, x)


def test_a_model_imitates_itself_in_int8_without_labels() -> None:
    set_seed(2)
    model, x = leaky_net(), pictures(40)
    factors, *rest = model.get_layer("n1").get_weights()
    model.get_layer("n1").set_weights([60 * np.eye(len(factors))[0] + factors, *rest])  # one channel takes all codes
    before = model.get_weights()
    settings = replace(PATIENT, epochs=20, batch_size=4, learning_rate=3e-3, augment=False)
    aware, step = imitate(model, x, settings, RangeSettings(calibration_images=16))
    assert step.settings["loss_val"] < 0.95 * step.settings["loss_val_before"]
    assert step.settings["best_epoch"] > 0
    wanted, start = predict_pixels(model, x), fake_quantize(model, x)[0]
    off = [np.linalg.norm(predict_pixels(settled(one), x) - wanted) for one in (start, aware)]
    assert off[1] < off[0]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    by_hand, step = imitate(model, x, replace(settings, epochs=1), loss=lambda a, b: keras.ops.mean(abs(a - b)))
    assert by_hand.output_shape == model.output_shape
    assert step.settings["loss_val"] <= step.settings["loss_val_before"]
    with pytest.raises(SettingError, match="1 picture to imitate on; wanted at least two"):
        imitate(model, x[:1])
