"""Graphs that lose less in int8: the same outputs in float, like channels, no codes before an activation."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import SettingError
from featherweight.quantize import QuantizeSettings, output_error, quantize
from featherweight.quantize.agreement import answers
from featherweight.quantize.litert_file import LiteRTFile
from featherweight.quantize.onnx_ease import smoothed, without_inner_codes
from featherweight.quantize.onnx_file import open_onnx

SIDE = 8
# A detector with two maps: a trunk of depthwise layers, leaky ReLUs, and one output that only lines the maps up.
BODY = """ t = Transpose <perm=[0,3,1,2]> (image)
 s = Mul (t, share)
 a = Conv <kernel_shape=[1,1]> (s, w0, b0)
 al = LeakyRelu <alpha=0.1> (a)
 ap = Pad (al, pads)
 d = Conv <kernel_shape=[3,3], strides=[2,2], group=6> (ap, w1, b1)
 dl = LeakyRelu <alpha=0.1> (d)
 e = Conv <kernel_shape=[1,1]> (dl, w2)
 f = Conv <kernel_shape=[1,1]> (e, w3, b3)
 p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (e)
 g = Conv <kernel_shape=[1,1]> (p, w4, b4)
 fm = Transpose <perm=[0,2,3,1]> (f)
 gm = Transpose <perm=[0,2,3,1]> (g)
 fr = Reshape (fm, rows)
 gr = Reshape (gm, rows)
 y = Concat <axis=1> (fr, gr)
"""
SHAPES = {
    "w0": (6, 3, 1, 1), "b0": (6,), "w1": (6, 1, 3, 3), "b1": (6,), "w2": (4, 6, 1, 1), "w3": (10, 4, 1, 1),
    "b3": (10,), "w4": (10, 4, 1, 1), "b4": (10,),
}  # fmt: skip


def detector(tmp_path: Path, body: str = BODY, **more: NDArray[np.float32]) -> Artifact:
    """(n, 8, 8, 3) → (n, 16 + 4, 10); the first two layers have channels that differ by 100 in size."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    uneven = np.geomspace(0.1, 10, 6).astype(np.float32)
    arrays["w0"] *= uneven[:, None, None, None]
    arrays["b0"] = uneven  # positive, as LeakyRelu makes the rest small
    arrays["w1"] *= 1 / uneven[:, None, None, None] * uneven[::-1, None, None, None]
    arrays["w2"] /= uneven[None, ::-1, None, None]
    arrays["share"] = np.array(1 / 255, np.float32)
    arrays |= more
    text = f'<ir_version: 8, opset_import: ["" : 17]>\nnet (float[1,8,8,3] image) => (float[1,20,10] y) {{\n{body}}}'
    model = onnx.parser.parse_model(text)
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    constants.append(onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64), "pads"))
    constants.append(onnx.numpy_helper.from_array(np.array([1, -1, 10], np.int64), "rows"))
    model.graph.initializer.extend(constants)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return Artifact(tmp_path, "model.onnx", "net", "onnx", "float32", "", 0, "classify", ("a",), SIDE, SIDE, "stretch")


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)


def ranges(file: object, pixels: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    runs = [one[name] for one in file.tensors(pixels)]  # type: ignore[attr-defined]
    return np.abs(np.concatenate(runs)).max(axis=(0, 2, 3))


def test_smoothed_outputs_are_equal_and_channels_alike(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    artifact = detector(tmp_path)
    file = open_onnx(artifact)
    eased = file.eased(pixels, QuantizeSettings(smooth=True))
    wanted = answers(artifact, pixels)
    assert output_error(wanted, answers(artifact, pixels, eased.model.SerializeToString())) < 1e-6
    into_depthwise, into_dense = (
        node.input[0] for node in file.model.graph.node if node.input[1:2] in (["w1"], ["w2"])
    )
    before, after = (ranges(one, pixels, into_depthwise) for one in (file, eased))
    assert before.max() / before.min() > 20
    assert after == pytest.approx(np.full(6, before.max()), rel=1e-4)  # a depthwise layer takes any factor
    spread = [found.max() / found.min() for found in (ranges(one, pixels, into_dense) for one in (file, eased))]
    assert spread[1] < spread[0]
    model, pairs = smoothed(file.model, file.tensors(pixels), per_channel=False)
    assert pairs == 2  # the third feeds two
    halfway = ranges(replace(file, model=model), pixels, into_depthwise)
    assert 2 < halfway.max() / halfway.min() < before.max() / before.min()


def test_a_channel_that_died_keeps_its_scale(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    first, bias, third = (rng.normal(size=SHAPES[name]).astype(np.float32) for name in ("w0", "b0", "w2"))
    first[2], bias[2], third[:, 4] = 0, 0, 0
    artifact = detector(tmp_path, w0=first, b0=bias, w2=third)
    file = open_onnx(artifact)
    model, _ = smoothed(file.model, file.tensors(pixels), True)
    assert output_error(answers(artifact, pixels), answers(artifact, pixels, model.SerializeToString())) < 1e-6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("al = LeakyRelu <alpha=0.1> (a)", "al = Tanh (a)"),  # is not homogeneous
        ("Pad (al, pads)", "Pad (al, pads, share)"),  # other numbers than 0
        ("Pad (al, pads)", 'Pad <mode = "edge"> (al, pads)'),
        ("(s, w0, b0)", "(s, w0, b1)"),  # a bias that is another's too
        ("e = Conv <kernel_shape=[1,1]> (dl, w2)", "h = Add (a, a)\n e = Conv <kernel_shape=[1,1]> (dl, w2)"),
    ],
)
def test_what_scales_do_not_pass(tmp_path: Path, pixels: NDArray[np.uint8], old: str, new: str) -> None:
    assert old in BODY
    file = open_onnx(detector(tmp_path, BODY.replace(old, new)))
    _, pairs = smoothed(file.model, file.tensors(pixels), True)
    assert pairs == (0 if "b1" in new else 1)  # from the first to the second no more; the third takes from the second


def test_no_codes_between_a_convolution_and_its_activation(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    file = open_onnx(detector(tmp_path))
    plain = quantize(detector(tmp_path), tmp_path / "plain", pixels)
    model = onnx.load(plain.model_path)
    before = Counter(node.op_type for node in model.graph.node)
    assert without_inner_codes(model) == 2
    onnx.checker.check_model(model)
    after = Counter(node.op_type for node in model.graph.node)
    assert before - after == Counter(QuantizeLinear=2, DequantizeLinear=2)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert {makers[node.input[0]] for node in model.graph.node if node.op_type == "LeakyRelu"} == {"Conv"}
    used = {name for node in model.graph.node for name in node.input}
    assert {one.name for one in model.graph.initializer} <= used
    assert without_inner_codes(model) == 0
    assert file.inner_codes


def test_a_detector_loses_less_so(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    artifact = detector(tmp_path)
    wanted = answers(artifact, pixels)
    errors = {}
    for name, settings in {
        "plain": QuantizeSettings(),
        "smooth": QuantizeSettings(smooth=True),
        "both": QuantizeSettings(smooth=True, inner_codes=False, bias_correction=True),
    }.items():
        made = quantize(artifact, tmp_path / name, pixels, settings=settings)
        errors[name] = output_error(wanted, answers(made, pixels))
        told = made.steps[-1].settings
        assert (told.get("smooth", False), told.get("inner_codes", True)) == (settings.smooth, settings.inner_codes)
    assert errors["both"] < errors["smooth"] < errors["plain"]
    assert errors["both"] < 0.7 * errors["plain"]


def test_where_there_is_no_such_thing() -> None:
    for wrong in ({"smooth": True}, {"inner_codes": False}):
        with pytest.raises(SettingError, match="precision float16; they are for int8 only"):
            QuantizeSettings("float16", **wrong)  # type: ignore[arg-type]
        with pytest.raises(SettingError, match="for net, a LiteRT file; wanted ONNX"):
            LiteRTFile("net", b"", ()).eased(np.zeros((1, 1, 1, 3), np.uint8), QuantizeSettings(**wrong))  # type: ignore[arg-type]
