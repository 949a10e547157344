"""Quantized files: what is made, what is left float and why, how much that costs; on one small trained network."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featherweight.artifact import Artifact, read_artifact
from featherweight.data import load_pixels
from featherweight.errors import DataError, ExportError, OutputError, SettingError
from featherweight.export import About, export
from featherweight.quantize import (
    LayerCost,
    QuantizeSettings,
    Sensitivity,
    accuracy_on,
    calibration_pictures,
    check_agreement,
    choose_calibration,
    flatbuffer,
    litert_file,
    make,
    output_error,
    quantize,
    quantize_within,
    sensitivity,
    within,
)
from featherweight.quantize.agreement import FLOAT16_TOLERANCE, INT8_TOLERANCE, answers
from featherweight.quantize.layers import Layer, Operator, layers_of, members_of, whole_names
from featherweight.quantize.litert_file import LiteRTFile, open_litert
from featherweight.quantize.make import draft, read_source
from featherweight.quantize.onnx_dynamic import quantized_weights
from featherweight.quantize.onnx_file import open_onnx
from featherweight.quantize.ranges import BINS, Range, entropy, middle, observe
from featherweight.quantize.within import _points
from featherweight.runtimes import runtime_named, supporting
from featherweight.runtimes.settings import Settings
from tests.trained import SIZE, Trained

FORMATS = ("onnx", "litert")


@pytest.fixture(scope="module")
def pictures(trained: Trained) -> NDArray[np.uint8]:
    """Of the training part, with a black and a white pixel, so that the least and the greatest are 0 and 255."""
    items = trained.dataset.part("train")
    chosen = np.array(load_pixels(items, SIZE, SIZE).take(items)[:24])
    chosen[0, 0, 0], chosen[0, -1, -1] = 0, 255
    return chosen


@pytest.fixture(scope="module")
def held_out(trained: Trained) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    items = trained.dataset.part("test")
    return load_pixels(items, SIZE, SIZE).take(items), np.array([item.label for item in items])


def float_file(trained: Trained, file_format: str) -> Artifact:
    return trained.artifacts[f"{file_format}-float32"]


def operators(artifact: Artifact) -> list[str]:
    """The kinds of operators in a file, in its order."""
    if artifact.format == "onnx":
        return [node.op_type for node in onnx.load(artifact.model_path).graph.node]
    model = flatbuffer.read_model(artifact.model_path.read_bytes())
    return [flatbuffer.kind_of(model, operator) for operator in model.subgraphs[0].operators]


# -------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'; known: int8, int8-dynamic, float16"),
        ({"calibration": "mse"}, "unknown calibration 'mse'; known: minmax, percentile, entropy"),
        ({"percentile": 50}, "percentile 50; wanted over 50"),
        ({"percentile": 100.5}, "wanted over 50 and at most 100"),
        ({"images": 0}, "0 calibration images; wanted at least 1"),
        ({"bias_correction": True, "precision": "float16"}, "bias correction with precision float16"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        QuantizeSettings(**wrong)


def test_a_choice_takes_of_each_class_alike() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2] * 5)
    rows = choose_calibration(8, labels, seed=0)
    assert np.bincount(labels[rows]).tolist() == [3, 2, 3]
    assert np.array_equal(rows, choose_calibration(8, labels, seed=0))
    assert len({tuple(choose_calibration(8, labels, seed)) for seed in range(5)}) > 1
    assert choose_calibration(99, labels, 0).tolist() == list(range(17))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 9))
def test_no_class_has_two_more_than_another_that_has_any_left(labels: list[int], count: int, seed: int) -> None:
    kinds = np.array(labels)
    rows = choose_calibration(count, kinds, seed)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(kinds))
    chosen, there = np.bincount(kinds[rows], minlength=5), np.bincount(kinds, minlength=5)
    unspent = chosen < there
    assert not unspent.any() or chosen.max() - chosen[unspent].min() <= 1


def test_nothing_to_choose_from_is_refused() -> None:
    for count, labels in ((0, [1]), (1, [])):
        with pytest.raises(SettingError, match="calibration images out of"):
            choose_calibration(count, np.array(labels, np.int64), 0)


def test_pictures_of_a_dataset_are_chosen_and_sized(trained: Trained) -> None:
    found = calibration_pictures(float_file(trained, "onnx"), trained.dataset, QuantizeSettings(images=9))
    assert found.shape == (9, SIZE, SIZE, 3)
    # The class is the colour: the classes are blue, green, red, and the channels red, green, blue.
    assert np.bincount(2 - found.mean(axis=(1, 2)).argmax(axis=1)).tolist() == [3, 3, 3]


def test_pictures_of_something_else_are_refused(trained: Trained) -> None:
    artifact, dataset, settings = float_file(trained, "onnx"), trained.dataset, QuantizeSettings()
    with pytest.raises(ExportError, match="is for detect, colours for classify"):
        calibration_pictures(artifact, replace(dataset, task="detect"), settings)
    with pytest.raises(ExportError, match="has other classes than colours, as 'cat'"):
        calibration_pictures(artifact, replace(dataset, classes=("cat", "dog")), settings)
    with pytest.raises(ExportError, match="is a bare file and does not say its size"):
        calibration_pictures(read_artifact(artifact.model_path), dataset, settings)
    with pytest.raises(DataError, match="no part 'other'"):
        calibration_pictures(artifact, dataset, settings, "other")


# ---------------------------------------------------------------------------------------------------------- ranges


def counts_of(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    return np.histogram(values, BINS, (low, high))[0]


def test_ranges_over_several_pictures() -> None:
    runs = [{"a": np.array([-1.0, 2.0], np.float32)}, {"a": np.array([0.0, 3.0], np.float32)}]
    assert observe(lambda: runs, "minmax", 99) == {"a": Range(-1.0, 3.0)}
    constant = [{"a": np.zeros(4, np.float32)}]
    for method in ("percentile", "entropy"):
        assert observe(lambda: constant, method, 99) == {"a": Range(0.0, 0.0)}
    spread = [{"a": np.linspace(0, 1, 1001, dtype=np.float32)}, {"a": np.linspace(1, 2, 1001, dtype=np.float32)}]
    low, high = observe(lambda: spread, "percentile", 90)["a"]
    assert (low, high) == pytest.approx((0.1, 1.9), abs=2 / BINS)  # 5 % off on each side
    assert observe(lambda: spread, "percentile", 90, ["a"]) == {"a": Range(0.0, 2.0)}


def test_the_middle_share_to_the_next_edge() -> None:
    counts = np.array([1, 0, 98, 0, 1])  # of 100 values from 0 to 5
    assert middle(counts, Range(0, 5), 100) == Range(0, 5)
    assert middle(counts, Range(0, 5), 98) == Range(2, 3)  # a hundredth off on each side
    assert middle(counts, Range(0, 5), 99.9) == Range(0, 5)
    zeros = np.array([90, 0, 0, 9, 1])  # behind a ReLU: the least value is the most frequent
    assert middle(zeros, Range(0, 5), 98) == Range(0, 4)


def test_entropy_keeps_what_is_spread_evenly_and_clips_a_lonely_tail() -> None:
    rng = np.random.default_rng(0)
    even = entropy(counts_of(rng.uniform(-1, 1, 100_000), -1, 1), Range(-1, 1))
    assert even.high - even.low > 1.9
    normal = np.append(rng.normal(0, 1, 100_000), [40.0, -40.0])
    low, high = entropy(counts_of(normal, -40, 40), Range(-40, 40))
    assert -20 < low < -3
    assert 3 < high < 20
    behind_relu = np.append(np.maximum(rng.normal(0, 1, 100_000), 0), 40.0)
    low, high = entropy(counts_of(behind_relu, 0, 40), Range(0, 40))
    assert low == 0
    assert 3 < high < 20


def test_entropy_does_not_depend_on_how_many_zeros_there_are() -> None:
    rng = np.random.default_rng(0)
    values = np.append(np.maximum(rng.normal(0, 1, 20_000), 0), 10.0)
    more = np.append(values, np.zeros(1_000_000))
    assert entropy(counts_of(values, 0, 10), Range(0, 10)) == entropy(counts_of(more, 0, 10), Range(0, 10))


# ---------------------------------------------------------------------------------------------------------- errors


def test_the_error_of_probabilities_and_of_other_numbers() -> None:
    wanted = np.array([[1, 0], [0.5, 0.5]], np.float32)
    assert output_error(wanted, wanted) == 0
    assert output_error(wanted, np.array([[0, 1], [0.5, 0.5]], np.float32)) == 0.5  # one of two is disjoint
    boxes = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
    assert output_error(boxes, boxes + np.array([[0.5, 0], [0, 0]], np.float32)) == pytest.approx(0.5 / 5)
    assert np.isnan(output_error(wanted, wanted * np.nan))
    # Of a map of 100 probabilities: what is found is lost, and next to nothing where nothing is found.
    maps = np.zeros((1, 10, 10, 1), np.float32)
    assert output_error(maps, maps + np.float32(0.01)) == pytest.approx(0.1)
    maps[0, :2] = 1
    assert output_error(maps, maps * 0) == pytest.approx(1.0)


def test_the_tolerance_is_that_of_the_precision() -> None:
    boxes = np.array([[3.0, 4.0]], np.float32)
    for precision, tolerance in (("float16", FLOAT16_TOLERANCE), ("int8", INT8_TOLERANCE)):
        check_agreement("x", boxes, boxes * (1 + 0.9 * tolerance), precision)
        with pytest.raises(ExportError, match=rf"x: {precision} outputs are .* \(relative error\)"):
            check_agreement("x", boxes, boxes * (1 + 1.1 * tolerance), precision)


# --------------------------------------------------------------------------------------------------------- the file


def static_by_the_library(artifact: Artifact, pictures: NDArray[np.uint8], place: Path) -> bytes:
    """ONNX Runtime's own way from the file to int8: the truth for ours."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self.rest, None)
            return None if picture is None else {"image": picture[None].astype(np.float32)}

    kinds = {node.op_type for node in onnx.load(artifact.model_path).graph.node} - {"Softmax"}
    quant_pre_process(str(artifact.model_path), str(place / "a.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(place / "a.onnx"), str(place / "b.onnx"), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=sorted(kinds),
    )  # fmt: skip
    return (place / "b.onnx").read_bytes()


def test_plain_onnx_int8_is_the_library_s_own(trained: Trained, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    artifact = float_file(trained, "onnx")
    made = quantize(artifact, tmp_path / "int8", pictures)
    wanted = onnx.load_from_string(static_by_the_library(artifact, pictures, tmp_path))
    found = onnx.load(made.model_path)
    assert [node.op_type for node in found.graph.node] == [node.op_type for node in wanted.graph.node]
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in found.graph.initializer}
    assert constants.keys() == {one.name for one in wanted.graph.initializer}
    for one in wanted.graph.initializer:
        assert np.array_equal(constants[one.name], onnx.numpy_helper.to_array(one)), one.name


def test_plain_litert_int8_is_the_converter_s_own(
    trained: Trained, pictures: NDArray[np.uint8], held_out: tuple[NDArray[np.uint8], Any], tmp_path: Path
) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from featherweight.progress import quiet

    with quiet():
        function = tf.function(lambda image: trained.model(image, training=False)).get_concrete_function(
            tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32)
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one[None].astype(np.float32)] for one in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        wanted = converter.convert()
    made = quantize(float_file(trained, "litert"), tmp_path / "int8", pictures)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / made.file).write_bytes(wanted)
    assert operators(made) == operators(replace(made, path=tmp_path / "theirs"))
    ours, theirs = (steps_of(data) for data in (made.model_path.read_bytes(), wanted))
    # The converter reads the range of what is computed in place, as the scaling is, from memory that is overwritten.
    same = [a == pytest.approx(b, rel=1e-4) for a, b in zip(ours, theirs, strict=True)]
    assert same.count(False) <= 1
    float_outputs = answers(float_file(trained, "litert"), held_out[0])
    errors = [output_error(float_outputs, answers(made, held_out[0], data)) for data in (None, wanted)]
    assert errors[0] <= errors[1] + 0.005


def steps_of(data: bytes) -> list[float]:
    """The scale of what each operator of a LiteRT file makes."""
    graph = flatbuffer.read_model(data).subgraphs[0]
    return [float(graph.tensors[int(operator.outputs[0])].quantization.scale[0]) for operator in graph.operators]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(
    "settings",
    [
        QuantizeSettings(calibration="percentile", percentile=99.9),
        QuantizeSettings(calibration="entropy"),
        QuantizeSettings(images=12, seed=1),
        QuantizeSettings("int8-dynamic"),
        QuantizeSettings("float16"),
    ],
    ids=lambda settings: f"{settings.precision}-{settings.calibration}-{settings.images}",
)
def test_every_way_answers_as_float_does(
    trained: Trained,
    pictures: NDArray[np.uint8],
    held_out: tuple[NDArray[np.uint8], Any],
    file_format: str,
    settings: QuantizeSettings,
    tmp_path: Path,
) -> None:
    source = float_file(trained, file_format)
    before = source.model_path.read_bytes()
    made = quantize(source, tmp_path / "made", pictures, None, settings)
    assert read_artifact(made.path) == made
    assert (made.name, made.precision) == (f"colours-{settings.precision}", settings.precision)
    assert source.model_path.read_bytes() == before
    wanted, found = answers(source, held_out[0]), answers(made, held_out[0])
    most = {"float16": 0.002, "int8-dynamic": 0.1, "int8": INT8_TOLERANCE if settings.calibration == "entropy" else 0.1}
    assert output_error(wanted, found) <= most[settings.precision]
    told = made.steps[-1].settings
    assert (made.steps[-1].name, told["precision"]) == ("quantize", settings.precision)
    assert told["calibration_images"] == (settings.images or len(pictures))
    assert told["seed"] == settings.seed
    weights = 4 * source.parameters if source.parameters else 0
    saved = {"int8": 3 / 4, "int8-dynamic": 3 / 4, "float16": 1 / 2}[settings.precision] * weights
    assert source.size_bytes - made.size_bytes > 0.7 * saved - 12_000  # what says how to use the codes costs its part


@pytest.mark.parametrize("precision", ["float16", "int8-dynamic"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_input_and_output_stay_float32(
    trained: Trained, pictures: NDArray[np.uint8], file_format: str, precision: str, tmp_path: Path
) -> None:
    made = quantize(float_file(trained, file_format), tmp_path / "x", pictures, None, QuantizeSettings(precision))
    if file_format == "onnx":
        graph = onnx.load(made.model_path).graph
        kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
        assert kinds == [onnx.TensorProto.FLOAT] * 2
        return
    graph = flatbuffer.read_model(made.model_path.read_bytes()).subgraphs[0]
    assert [graph.tensors[int(end[0])].type for end in (graph.inputs, graph.outputs)] == [0, 0]


def test_litert_int8_takes_and_gives_bytes(trained: Trained, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    half = pictures // 2  # none of them is as bright as white
    for settings in (QuantizeSettings(), QuantizeSettings(calibration="percentile", percentile=99.0)):
        made = quantize(float_file(trained, "litert"), tmp_path / settings.calibration, half, None, settings)
        interpreter = Interpreter(str(made.model_path))
        entry, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        assert (entry["dtype"], entry["quantization"]) == (np.uint8, (1.0, 0))
        assert (answer["dtype"], answer["quantization"]) == (np.uint8, (1 / 256, 0))


def test_an_operator_that_litert_has_not_in_int8_is_named(tmp_path: Path) -> None:
    import keras

    from featherweight.export import About, export

    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.ops.floor(keras.layers.Conv2D(8, 3, name="c")(x))
    model = keras.Model(image, keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(x)))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    source = export(model, tmp_path / "float", "litert", About("x", tuple("abcdefgh"), ()), pixels)
    made = quantize(source, tmp_path / "int8", pixels)
    assert [why for _, why in made.steps[-1].skipped] == ["stays float: LiteRT has no int8 FLOOR"]


def test_activations_belong_to_their_layer() -> None:
    rows = [
        ("t", "Transpose", "picture"), ("scale", "Mul", "t"), ("shift", "Sub", "scale"), ("c", "Conv", "shift"),
        ("s", "Sigmoid", "c"), ("swish", "Mul", "c s"), ("d", "Conv", "swish"), ("a", "Add", "d swish"),
        ("r", "Relu", "a"), ("g", "Mean", "r"), ("gate", "Mul", "r g"), ("flat", "Reshape", "gate"),
    ]  # fmt: skip
    operators = [Operator(name, kind, tuple(taken.split()), (name,)) for name, kind, taken in rows]
    layers = layers_of(operators, ("Transpose", "Relu", "Reshape"), ("Add", "Mul", "Sub", "Sigmoid"))
    assert [(layer.name, layer.operator, layer.members) for layer in layers] == [
        ("scale", "Mul", ("scale", "shift")),
        ("c", "Conv", ("c", "s", "swish")),
        ("d", "Conv", ("d",)),
        ("a", "Add", ("a", "r")),
        ("g", "Mean", ("g",)),
        ("gate", "Mul", ("gate", "flat")),
    ]


@pytest.mark.parametrize("file_format", FORMATS)
def test_layers_hold_every_product_once(trained: Trained, file_format: str) -> None:
    artifact = float_file(trained, file_format)
    file = {"onnx": open_onnx, "litert": open_litert}[file_format](artifact)
    members = [member for layer in file.layers for member in layer.members]
    assert len(members) == len(set(members))
    products = [one for one in operators(artifact) if one in ("Conv", "CONV_2D", "DEPTHWISE_CONV_2D")]
    assert len(products) == 27  # a stem and 13 blocks of two
    kinds = {"Conv", "CONV_2D", "DEPTHWISE_CONV_2D"}
    assert sum(layer.operator in kinds for layer in file.layers) == 27
    assert not any(layer.operator in ("Softmax", "Relu", "Clip", "Reshape") for layer in file.layers)


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_answer_is_clipped(trained: Trained, pictures: NDArray[np.uint8], file_format: str) -> None:
    artifact = float_file(trained, file_format)
    plain, clipped = (
        read_source(artifact, pictures, QuantizeSettings(calibration=method, percentile=90.0))
        for method in ("minmax", "percentile")
    )
    runs = list(plain.file.tensors(pictures))
    outputs = np.concatenate([answers(artifact, pictures)])
    probabilities = [name for name in plain.file.ends if np.allclose(runs[0][name], outputs[0], atol=1e-5)]
    assert probabilities
    assert len(plain.file.ends) > len(probabilities)  # what the softmax takes, too
    changed = {name for name, span in plain.ranges.items() if clipped.ranges[name] != span}
    assert changed
    assert not changed & plain.file.ends


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "float16"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_layer_that_is_skipped_stays_float_and_is_named(
    trained: Trained, pictures: NDArray[np.uint8], file_format: str, precision: str, tmp_path: Path
) -> None:
    source = float_file(trained, file_format)
    file = {"onnx": open_onnx, "litert": open_litert}[file_format](source)
    name = [layer.name for layer in file.layers if layer.operator in ("Conv", "CONV_2D")][-1]
    made = quantize(source, tmp_path / "all", pictures, None, QuantizeSettings(precision))
    less = quantize(source, tmp_path / "less", pictures, None, QuantizeSettings(precision, skip=(name,)))
    assert (name, "stays float: asked for") in less.steps[-1].skipped
    assert float_products(less) == float_products(made) + 1
    assert less.size_bytes > made.size_bytes


def float_products(artifact: Artifact) -> int:
    """How many convolutions and dense layers have weights of float32 in the file."""
    if artifact.format == "onnx":
        graph = onnx.load(artifact.model_path).graph
        floats = {
            one.name for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) > 1
        }
        return sum(node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in floats for node in graph.node)
    model = flatbuffer.read_model(artifact.model_path.read_bytes())
    graph = model.subgraphs[0]
    factors = [
        graph.tensors[int(operator.inputs[1])] for operator in graph.operators
        if flatbuffer.kind_of(model, operator) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]  # fmt: skip
    return sum(one.type == 0 and flatbuffer.is_constant(model, one) for one in factors)


@pytest.mark.parametrize(("place", "ends"), [(0, (0, 3)), (-1, (3, 0))])
def test_litert_int8_with_an_end_in_float(
    trained: Trained, pictures: NDArray[np.uint8], place: int, ends: tuple[int, int], tmp_path: Path
) -> None:
    """0 is float32 and 3 uint8 in the format."""
    source = float_file(trained, "litert")
    name = open_litert(source).layers[place].name
    made = quantize(source, tmp_path / "x", pictures, None, QuantizeSettings(skip=(name,)))
    graph = flatbuffer.read_model(made.model_path.read_bytes()).subgraphs[0]
    assert (graph.tensors[int(graph.inputs[0])].type, graph.tensors[int(graph.outputs[0])].type) == ends


def test_one_scale_for_all_channels_is_worse(trained: Trained, pictures: NDArray[np.uint8]) -> None:
    for file_format in FORMATS:
        for precision in ("int8", "int8-dynamic"):
            errors = []
            for per_channel in (True, False):
                settings = QuantizeSettings(precision, per_channel=per_channel)
                source = read_source(float_file(trained, file_format), pictures, settings)
                errors.append(output_error(source.wanted, draft(source, "x", ()).found))
            assert errors[0] < errors[1], (file_format, precision)


def test_codes_of_weights_are_within_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    weights[2] = 0
    codes, scales = quantized_weights(weights, (1, 2, 3))
    assert scales.shape == (4, 1, 1, 1)
    assert np.abs(codes * scales - weights).max() <= scales.max() / 2 + 1e-6
    assert [np.abs(channel).max() for channel in codes] == [127, 127, 0, 127]


# ------------------------------------------------------------------------------------- dynamic int8, by hand-made nets

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


def hand_made(tmp_path: Path, text: str, arrays: dict[str, NDArray[np.float32]]) -> Artifact:
    """A net that takes a picture of 4×4, as an artifact."""
    model = onnx.parser.parse_model(HEADER + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return Artifact(tmp_path, "model.onnx", "net", "onnx", "float32", "", 0, "classify", ("a", "b"), 4, 4, "stretch")


NET = """net (float[1,4,4,3] image) => (float[1,2] y) {
 t = Transpose <perm=[0,3,1,2]> (image)
 c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (t, w, b)
 r = Relu (c)
 d = Conv <kernel_shape=[3,3], group=8> (r, v)
 p = GlobalAveragePool (d)
 f = Flatten (p)
 g = Gemm GEMM (f, m, n)
 y = MatMul (g, k)
}"""


def net(tmp_path: Path, gemm: str = "<transB=1>") -> Artifact:
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 1, 3, 3), "m": (5, 8), "n": (5,), "k": (5, 2)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["w"][0] *= 100  # one channel of quite another scale
    return hand_made(tmp_path, NET.replace("GEMM", gemm), arrays)


def test_integer_products_of_every_kind(tmp_path: Path) -> None:
    artifact = net(tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3), np.uint8)
    file = open_onnx(artifact)
    made = file.dynamic(True, ())
    data = made.data
    assert made.left == ()
    kinds = [node.op_type for node in onnx.load_from_string(data).graph.node]
    assert (kinds.count("ConvInteger"), kinds.count("MatMulInteger")) == (2, 2)
    wanted, found = answers(artifact, pixels), answers(artifact, pixels, data)
    assert output_error(wanted, found) < 0.02
    whole = file.dynamic(False, ()).data
    assert output_error(wanted, answers(artifact, pixels, whole)) > output_error(wanted, found)


def test_a_dense_layer_with_a_factor_stays_float_and_is_named(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3), np.uint8)
    made = quantize(
        net(tmp_path, "<transB=1, alpha=0.5>"), tmp_path / "x", pixels, "x", QuantizeSettings("int8-dynamic")
    )
    ((_, reason),) = made.steps[-1].skipped
    assert reason == "stays float: a Gemm that scales or transposes its input"


def test_a_product_of_two_activations_stays_float(tmp_path: Path) -> None:
    text = NET.replace("y = MatMul (g, k)", "h = MatMul (g, k)\n i = Transpose (h)\n y = MatMul (h, i)").replace(
        "[1,2] y", "[1,1] y"
    )
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 1, 3, 3), "m": (5, 8), "n": (5,), "k": (5, 2)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    artifact = hand_made(tmp_path, text.replace("GEMM", "<transB=1>"), arrays)
    assert [reason for _, reason in open_onnx(artifact).dynamic(True, ()).left] == ["its second factor is no constant"]


def test_weights_that_are_no_matrix_stay_float(tmp_path: Path) -> None:
    text = NET.replace("y = MatMul (g, k)", "y = MatMul (g, k)").replace("[1,2] y", "[3,1,2] y")
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 1, 3, 3), "m": (5, 8), "n": (5,), "k": (3, 5, 2)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made = open_onnx(hand_made(tmp_path, text.replace("GEMM", "<transB=1>"), arrays)).dynamic(True, ())
    assert [reason for _, reason in made.left] == ["its weights are no matrix"]


# ------------------------------------------------------------------------------------------------------------- bias


def test_a_corrected_bias_takes_off_the_mean_error(tmp_path: Path) -> None:
    """A 1×1 convolution on a grey picture: the error of W' x is known to the last digit."""
    text = """net (float[1,4,4,3] image) => (float[1,4,4,4] y) {
     t = Transpose <perm=[0,3,1,2]> (image)
     y = Conv <kernel_shape=[1,1]> (t, w, b)
    }"""
    weights = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    artifact = hand_made(tmp_path, text, {"w": weights, "b": np.zeros(4, np.float32)})
    pixels = np.full((2, 4, 4, 3), 100, np.uint8)
    pixels[1] = 200  # the mean is 150
    file = open_onnx(artifact)
    ranges = observe(lambda: file.tensors(pixels), "minmax", 100)
    data = file.int8(ranges, True, ()).data
    codes, scales = quantized_weights(weights, (1, 2, 3))
    wanted = -((codes * scales - weights).sum(axis=(1, 2, 3)) * 150)
    corrected = file.corrected(data, pixels)
    found = {one.name: onnx.numpy_helper.to_array(one) for one in corrected.model.graph.initializer}
    assert found["b"] == pytest.approx(wanted, abs=0.05 * float(np.abs(wanted).max()))
    before = {one.name: onnx.numpy_helper.to_array(one) for one in file.model.graph.initializer}
    assert np.array_equal(before["b"], np.zeros(4))


def test_a_grouped_and_a_dense_layer_are_corrected_too(tmp_path: Path) -> None:
    """With its input's mean and error known, each bias moves by the mean of what its weights make wrong."""
    text = NET.replace("(r, v)", "(r, v, u)").replace("GEMM", "<transB=1>")
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 1, 3, 3), "u": (8,), "m": (5, 8), "n": (5,), "k": (5, 2)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    artifact = hand_made(tmp_path, text, arrays)
    pixels = rng.integers(0, 256, (6, 4, 4, 3), np.uint8)
    file = open_onnx(artifact)
    data = file.int8(observe(lambda: file.tensors(pixels), "minmax", 100), True, ()).data
    corrected = file.corrected(data, pixels)
    before, after = (
        {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        for model in (file.model, corrected.model)
    )
    runs = list(file.tensors(pixels))
    codes, scales = quantized_weights(arrays["m"], (1,))
    wrong = np.mean([run["f"] @ (codes * scales - arrays["m"]).T for run in runs], axis=(0, 1))
    assert after["n"] - before["n"] == pytest.approx(-wrong, abs=0.1 * float(np.abs(wrong).max()))
    codes, scales = quantized_weights(arrays["v"], (1, 2, 3))
    change = (codes * scales - arrays["v"])[:, 0]
    wrong = np.array([change[c].sum() * np.mean([run["r"][0, c] for run in runs]) for c in range(8)])
    assert after["u"] - before["u"] == pytest.approx(-wrong, abs=0.1 * float(np.abs(wrong).max()))


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_mean_of_each_channel_comes_back(trained: Trained, pictures: NDArray[np.uint8], file_format: str) -> None:
    """Weights alone are made coarse: what the first convolution gives is then off on average, and after it is not."""
    source = read_source(float_file(trained, file_format), pictures, QuantizeSettings(per_channel=False))
    coarse = draft(source, "x", ()).data
    corrected = source.file.corrected(coarse, pictures)
    changes = []
    for biases in (biases_of(source.file), biases_of(corrected)):
        changes.append(list(biases.values()))
    assert len(changes[0]) == 28  # 27 convolutions and the head
    moved = [float(np.abs(a - b).max()) for a, b in zip(*changes, strict=True)]
    assert sum(one > 0 for one in moved) >= 27
    errors = []
    for file in (source.file, corrected):
        data = file.int8(source.ranges, False, ()).data
        errors.append(output_error(source.wanted, answers(replace(source.artifact, precision="int8"), pictures, data)))
    assert errors[1] < errors[0]


def biases_of(file: Any) -> dict[str, NDArray[np.float32]]:
    """The biases of convolutions and dense layers, by name."""
    if isinstance(file, LiteRTFile):
        model = flatbuffer.read_model(file.data)
        return {name: flatbuffer.array_of(model, bias) for name, _, _, bias in litert_file._biased(model)}
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in file.model.graph.initializer}
    return {node.name: constants[node.input[2]] for node in file.model.graph.node if node.op_type in ("Conv", "Gemm")}


@pytest.mark.parametrize("file_format", FORMATS)
def test_bias_correction_is_kept_only_where_it_helps(
    trained: Trained, pictures: NDArray[np.uint8], file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = QuantizeSettings(bias_correction=True)
    source = read_source(float_file(trained, file_format), pictures, settings)
    plain = draft(replace(source, settings=QuantizeSettings()), "x", ())
    made = draft(source, "x", ())
    errors = [output_error(source.wanted, one.found) for one in (plain, made)]
    assert errors[1] <= errors[0]
    told = made.step.settings.get("bias_correction")
    if errors[1] < errors[0]:
        assert told == {"error_before": errors[0], "error_after": errors[1]}
    monkeypatch.setattr(type(source.file), "corrected", lambda self, data, pictures: self)
    kept = draft(source, "x", ())
    assert kept.data == plain.data
    ((_, why),) = [pair for pair in kept.step.skipped if pair[0] == "bias correction"]
    assert f"{errors[0]:.4f} away from float without it and {errors[0]:.4f} with it" in why


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), "uint8 0×40×40×3"),
        (np.zeros((2, SIZE, 32, 3), np.uint8), "uint8 2×40×32×3"),
        (np.zeros((2, SIZE, SIZE, 3), np.float32), "float32 2×40×40×3"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), "uint8 40×40×3"),
    ],
)
def test_other_pictures_are_refused(trained: Trained, wrong: NDArray[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"calibration pictures are {said}; colours.* wants at least one, uint8"):
        quantize(float_file(trained, "onnx"), tmp_path / "x", wrong)


def test_only_float_files_with_a_manifest_are_quantized(
    trained: Trained, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    for kind in ("onnx-int8", "litert-int8"):
        with pytest.raises(ExportError, match=rf"\({kind.split('-')[0]}, int8\); wanted a float32 artifact"):
            quantize(trained.artifacts[kind], tmp_path / "x", pictures)
    with pytest.raises(ExportError, match=r"\(a bare file\); wanted a float32 artifact with its manifest"):
        quantize(read_artifact(float_file(trained, "onnx").model_path), tmp_path / "x", pictures)


def test_an_unknown_layer_is_refused(trained: Trained, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no layer 'conv99' to skip; the file has \d+, as "):
        quantize(float_file(trained, "onnx"), tmp_path / "x", pictures, None, QuantizeSettings(skip=("conv99",)))
    assert members_of((Layer("a", "Conv", ("a", "b")),), ["a"]) == {"a", "b"}


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_channel_that_died_keeps_no_runtime_from_its_int8_file(
    pictures: NDArray[np.uint8], file_format: str, tmp_path: Path
) -> None:
    """Three maps that are 0 on every picture: taken by a convolution, added to one that lives, and behind a swish."""
    import keras

    image = keras.Input((*pictures.shape[1:3], 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    dead = keras.layers.Conv2D(4, 1, activation="relu", bias_initializer=keras.initializers.Constant(-100.0))(x)
    low = keras.layers.Conv2D(4, 1, bias_initializer=keras.initializers.Constant(-100.0))(x)
    nothing = keras.layers.Activation("hard_swish")(low)
    alive = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.Concatenate()([keras.layers.Conv2D(4, 1)(dead), keras.layers.Add()([dead, alive]), nothing])
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    net = keras.Model(image, keras.layers.Softmax()(x))
    source = export(net, tmp_path / "float", file_format, About("dead-float32", ("a", "b", "c"), ()), pictures)
    made = quantize(source, tmp_path / "int8", pictures)
    for runtime in supporting(made):
        session = runtime_named(runtime).load(made, Settings())
        found = np.concatenate([session.run(one[None]) for one in pictures[:4]])
        np.testing.assert_allclose(found, answers(source, pictures[:4]), atol=0.05)


def test_a_range_grows_about_zero() -> None:
    assert Range(-1.0, 3.0).at_least(2.0) == Range(-1.0, 3.0)
    assert Range(-1.0, 3.0).at_least(8.0) == Range(-2.0, 6.0)
    assert Range(1.0, 3.0).at_least(2.0) == Range(0.0, 3.0)
    assert Range(0.0, 0.0).at_least(2.0) == Range(0.0, 2.0)


def test_a_layer_may_be_called_as_the_table_shows_it() -> None:
    layers = [Layer(name, "CONV_2D", ()) for name in ("net/a;net/a_norm", "net/b;1", "net/b;2", "x" * 60)]
    assert whole_names(layers, ["net/a", "x" * 48, "net/b;2"]) == ("net/a;net/a_norm", "x" * 60, "net/b;2")
    with pytest.raises(SettingError, match="no layer 'net/b' to skip; the file has 4, as net/a, net/b, "):
        whole_names(layers, ["net/b"])  # two are called so


@pytest.mark.parametrize(
    ("file_format", "precision"),
    [("onnx", "float16"), ("litert", "float16"), ("litert", "int8-dynamic")],  # int8-dynamic of ONNX makes a copy
)
def test_weights_of_a_layer_that_stays_float_are_not_rounded_for_another(
    pictures: NDArray[np.uint8], file_format: str, precision: str, tmp_path: Path
) -> None:
    """One kernel, two convolutions: where one of them is skipped, the kernel is as it was."""
    import keras

    image = keras.Input((*pictures.shape[1:3], 3))
    shared = keras.layers.Conv2D(3, 1, name="shared")
    x = keras.layers.GlobalAveragePooling2D()(shared(keras.layers.ReLU()(shared(image))))
    net = keras.Model(image, keras.layers.Softmax()(x))
    about = About("twice-float32", ("a", "b", "c"), ())
    source = export(net, tmp_path / "float", file_format, about, pictures)
    file = {"onnx": open_onnx, "litert": open_litert}[file_format](source)
    first = next(layer.name for layer in file.layers if layer.operator in ("Conv", "CONV_2D"))
    made = quantize(source, tmp_path / "less", pictures, None, QuantizeSettings(precision, skip=(first,)))
    np.testing.assert_array_equal(answers(made, pictures[:4]), answers(source, pictures[:4]))


def test_an_existing_folder_is_left_alone(trained: Trained, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        quantize(float_file(trained, "onnx"), tmp_path, pictures, None, QuantizeSettings("float16"))


def test_what_is_not_installed_is_said(
    trained: Trained, pictures: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = float_file(trained, "litert")
    file = open_litert(source)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="needs TensorFlow, whose quantizer makes it"):
        file.int8({}, True, ())
    with pytest.raises(ExportError, match="no LiteRT here; pip install"):
        open_litert(source)


def test_a_file_of_several_graphs_is_refused(trained: Trained, tmp_path: Path) -> None:
    source = float_file(trained, "litert")
    model = flatbuffer.read_model(source.model_path.read_bytes())
    model.subgraphs.append(model.subgraphs[0])
    (tmp_path / source.file).write_bytes(flatbuffer.written(model))
    with pytest.raises(ExportError, match="it has 2 graphs; wanted one"):
        open_litert(replace(source, path=tmp_path))


def test_an_old_opset_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    text = "net (float[1,4,4,3] image) => (float[1,4,4,3] y) { y = Relu (image) }"
    model = onnx.parser.parse_model(HEADER.replace("17", "11") + text)
    artifact = hand_made(tmp_path, text, {})
    artifact.model_path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="net is of ONNX opset 11; wanted 13 or newer"):
        open_onnx(artifact)
    artifact.model_path.write_bytes(b"\x08nothing")
    with pytest.raises(ExportError, match="cannot quantize net: "):
        open_onnx(artifact)


def test_a_failing_quantizer_is_one_line() -> None:
    with pytest.raises(ExportError, match="cannot quantize x: "):
        litert_file._tensorflow_int8("x", b"no model", True, ())


def test_operators_without_a_name_get_one(tmp_path: Path) -> None:
    names = [member for layer in open_onnx(net(tmp_path)).layers for member in layer.members]
    assert all(names)
    assert len(set(names)) == len(names)


# ------------------------------------------------------------------------------------------------------ sensitivity


@pytest.mark.parametrize("file_format", FORMATS)
def test_each_layer_alone(
    trained: Trained, pictures: NDArray[np.uint8], held_out: tuple[Any, Any], file_format: str
) -> None:
    artifact = float_file(trained, file_format)
    called: list[str | None] = []

    def score(one: Artifact) -> float:
        assert read_artifact(one.path) == one
        called.append(one.precision)
        return 0.5

    found = sensitivity(artifact, pictures[:8], score, images=4)
    assert called == ["int8"] * len(found.layers) + ["float32"]
    file = {"onnx": open_onnx, "litert": open_litert}[file_format](artifact)
    assert [one.layer for one in found.layers] == [layer.name for layer in file.layers]
    assert (found.images, found.measure, found.score) == (4, "mean total variation", 0.5)
    source = read_source(artifact, pictures[:8], QuantizeSettings())
    every = output_error(source.wanted[:4], draft(source, "x", ()).found[:4])
    errors = [one.error for one in found.layers]
    assert 0 < max(errors) < 3 * every
    # All but one in float is that one alone in int8.
    worst = found.worst_first()[0]
    others = [one.layer for one in found.layers if one is not worst]
    alone = draft(source, "x", others)
    assert output_error(source.wanted[:4], alone.found[:4]) == pytest.approx(worst.error, abs=1e-6)
    json.dumps(found.as_dict())


def test_the_table_has_the_worst_first() -> None:
    rows = (
        LayerCost("a", "Conv", 0.01, 0.9),
        LayerCost("b;c", "Add", float("nan"), 0.1),
        LayerCost("d", "Mul", 0.2, 0.8),
    )
    table = str(Sensitivity(rows, "mean total variation", 4, 0.95))
    assert [line.split()[0] for line in table.splitlines()] == ["layer", "b", "d", "a", "error:"]
    assert table.splitlines()[2].split() == ["d", "Mul", "0.2000", "80.0"]
    assert table.endswith("mean total variation against float32 on 4 pictures; float32 scores 95.0 %")
    plain = Sensitivity((LayerCost("a", "Conv", 0.01, None),), "relative error", 4, None)
    assert str(plain).splitlines()[0].split() == ["layer", "operator", "error"]


def test_sensitivity_that_cannot_be_is_refused(trained: Trained, pictures: NDArray[np.uint8]) -> None:
    with pytest.raises(ExportError, match="sensitivity to float16; it is told of int8 only"):
        sensitivity(float_file(trained, "onnx"), pictures, settings=QuantizeSettings("float16"))
    with pytest.raises(SettingError, match="sensitivity on 0 pictures"):
        sensitivity(float_file(trained, "onnx"), pictures, images=0)


# ------------------------------------------------------------------------------------------------------ within a loss


def needs(count: int, seen: list[int]) -> Callable[[Artifact], float]:
    """A score that is that of float once so many layers are in float."""

    def score(artifact: Artifact) -> float:
        if artifact.precision == "float32":
            return 0.9
        left = sum("alone in int8" in why for _, why in artifact.steps[-1].skipped)
        seen.append(left)
        return 0.9 if left >= count else 0.8

    return score


@pytest.fixture
def chain(tmp_path: Path) -> Artifact:
    """Eleven layers: ten convolutions that change little, and the mean."""
    lines = ["t = Transpose <perm=[0,3,1,2]> (image)"]
    lines += [f"c{n} = Conv <kernel_shape=[1,1]> ({f'c{n - 1}' if n else 't'}, w{n})" for n in range(10)]
    lines += ["m = GlobalAveragePool (c9)", "y = Flatten (m)"]
    rng = np.random.default_rng(0)
    arrays = {f"w{n}": (np.eye(3) + rng.normal(0, 0.05, (3, 3)))[..., None, None].astype(np.float32) for n in range(10)}
    (tmp_path / "chain").mkdir()
    text = "net (float[1,4,4,3] image) => (float[1,3] y) {\n" + "\n".join(lines) + "\n}"
    return hand_made(tmp_path / "chain", text, arrays)


@pytest.fixture
def dots() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)


@pytest.fixture
def quick_costs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Layers cost the more the later they come, without a measurement; their names, the costliest first."""
    names: list[str] = []

    def costs(source: make.Source) -> Sensitivity:
        rows = [LayerCost(one.name, one.operator, float(n), None) for n, one in enumerate(source.file.layers)]
        names.extend(row.layer for row in reversed(rows))
        return Sensitivity(tuple(rows), "mean total variation", 1, None)

    monkeypatch.setattr(within, "costs", costs)
    return names


@pytest.mark.parametrize(
    ("count", "tried"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 4, 3]), (5, [0, 1, 2, 4, 5])]
)
def test_the_fewest_layers_that_it_takes_stay_float(
    chain: Artifact, dots: NDArray[np.uint8], quick_costs: list[str], count: int, tried: list[int], tmp_path: Path
) -> None:
    seen: list[int] = []
    made = quantize_within(chain, tmp_path / "x", dots, needs(count, seen))
    assert seen == tried
    step = made.steps[-1]
    named = [what for what, why in step.skipped if "alone in int8 it moves the outputs by" in why]
    assert named == quick_costs[:count]
    assert (step.settings["layers_float"], step.settings["score"], step.settings["score_float32"]) == (count, 0.9, 0.9)
    assert step.settings["scored_by"] == "score"


def test_a_layer_that_was_asked_for_stays_so(
    chain: Artifact, dots: NDArray[np.uint8], quick_costs: list[str], tmp_path: Path
) -> None:
    last = open_onnx(chain).layers[-1].name
    settings = QuantizeSettings(skip=(last,))
    made = quantize_within(chain, tmp_path / "x", dots, needs(1, []), settings=settings)
    reasons = dict(made.steps[-1].skipped)
    assert reasons[last] == "stays float: asked for"
    assert "alone in int8" in reasons[quick_costs[1]]


def test_a_loss_that_no_file_is_within_is_refused_with_the_figures(
    chain: Artifact, dots: NDArray[np.uint8], quick_costs: list[str], tmp_path: Path
) -> None:
    assert len(open_onnx(chain).layers) == 11
    said = r"10\.00 points are lost in int8, and 10\.00 with 5 of 11 layers in float, .* away; wanted at most 2"
    with pytest.raises(ExportError, match=said):
        quantize_within(chain, tmp_path / "x", dots, needs(999, []), 0.02)
    assert not (tmp_path / "x").exists()
    assert _points(0.005) == "0.50"


@pytest.mark.parametrize("file_format", FORMATS)
def test_without_labels_the_best_class_of_the_float_file_counts(
    trained: Trained, pictures: NDArray[np.uint8], file_format: str, tmp_path: Path
) -> None:
    made = quantize_within(float_file(trained, file_format), tmp_path / "x", pictures, max_loss=0.05)
    settings = made.steps[-1].settings
    assert settings["scored_by"] == "agreement with float32"
    assert settings["score_float32"] == 1
    assert settings["score"] >= 0.95
    same = answers(made, pictures).argmax(1) == answers(float_file(trained, file_format), pictures).argmax(1)
    assert settings["score"] == pytest.approx(np.mean(same))


def test_the_accuracy_on_pictures(trained: Trained, held_out: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    artifact = float_file(trained, "onnx")
    right = answers(artifact, held_out[0]).argmax(axis=1) == held_out[1]
    assert accuracy_on(*held_out)(artifact) == pytest.approx(right.mean())


def test_losses_that_cannot_be_are_refused(trained: Trained, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    artifact = float_file(trained, "onnx")
    with pytest.raises(SettingError, match="max_loss 1; wanted a share from 0 to below 1"):
        quantize_within(artifact, tmp_path / "x", pictures, max_loss=1)
    with pytest.raises(SettingError, match="precision float16 within a loss"):
        quantize_within(artifact, tmp_path / "x", pictures, settings=QuantizeSettings("float16"))


def test_a_file_without_classes_needs_a_score(tmp_path: Path) -> None:
    text = """net (float[1,4,4,3] image) => (float[1,4,4,4] y) {
     t = Transpose <perm=[0,3,1,2]> (image)
     y = Conv <kernel_shape=[1,1]> (t, w, b)
    }"""
    arrays = {"w": np.ones((4, 3, 1, 1), np.float32), "b": np.zeros(4, np.float32)}
    with pytest.raises(ExportError, match=r"net: outputs \(2, .* do not tell classes apart; say how they are scored"):
        quantize_within(hand_made(tmp_path, text, arrays), tmp_path / "x", np.ones((2, 4, 4, 3), np.uint8))
