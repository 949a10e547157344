"""The ONNX and LiteRT readers: what they count, and that no damaged file gives more than one line."""

import contextlib
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight.analyze import analyze, litert_reader, onnx_file, read_graph
from featherweight.analyze.costs import analyze_graph, folded_totals, products
from featherweight.analyze.litert_reader import read_litert
from featherweight.analyze.onnx_reader import read_onnx
from featherweight.analyze.onnx_wire import TooMuch, WireError, count_nodes
from featherweight.artifact import Step, write_artifact
from featherweight.device import peak_memory_bytes, reset_peak_memory, resident_memory_bytes
from featherweight.errors import ArtifactError, FeatherweightError, SettingError
from featherweight.export import About, export, litert_bytes, onnx_bytes
from tests.make import make_artifact

HEADER = '<ir_version: 8, opset_import: ["" : 15]>\n'


def write(tmp_path: Path, text: str, header: str = HEADER, name: str = "net.onnx") -> Path:
    """A file from ONNX's own text format."""
    path = tmp_path / name
    path.write_bytes(onnx.parser.parse_model(header + text).SerializeToString())
    return path


# ---------------------------------------------------------------------------------------- what ONNX files cost


def weights(**shapes: tuple[int, ...]) -> str:
    """Initializers of zeros."""
    found = []
    for name, shape in shapes.items():
        zeros = ", ".join(["0"] * int(np.prod(shape)))
        found.append(f"float[{','.join(map(str, shape))}] {name} = {{{zeros}}}")
    return f"<{', '.join(found)}>"


# body, initializers, output shape as the file has it, (MACs, FLOPs beyond 2 · MACs, parameters); x is 1×4×8×8
NODES = [
    ("y = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w, b)", weights(w=(16, 4, 3, 3), b=(16,)), "1,16,8,8",
     (64 * 36 * 16, 64 * 16, 36 * 16 + 16)),
    ("y = Conv <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], group=4> (x, w)", weights(w=(4, 1, 3, 3)), "1,4,4,4",
     (16 * 9 * 4, 0, 36)),
    ("y = Conv <kernel_shape=[1,1], group=2> (x, w)", weights(w=(6, 2, 1, 1)), "1,6,8,8", (64 * 2 * 6, 0, 12)),
    ("y = Conv <kernel_shape=[3,3], dilations=[2,2]> (x, w)", weights(w=(2, 4, 3, 3)), "1,2,4,4",
     (16 * 36 * 2, 0, 72)),
    ("y = ConvTranspose <kernel_shape=[2,2], strides=[2,2]> (x, w)", weights(w=(4, 3, 2, 2)), "1,3,16,16",
     (64 * 4 * 4 * 3, 0, 48)),
    ("y = ConvTranspose <kernel_shape=[2,2], strides=[2,2], group=2> (x, w)", weights(w=(4, 3, 2, 2)), "1,6,16,16",
     (64 * 4 * 2 * 6, 0, 48)),
    ("y = BatchNormalization (x, a, b, c, d)", weights(a=(4,), b=(4,), c=(4,), d=(4,)), "1,4,8,8", (0, 512, 16)),
    ("y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)", "", "1,4,4,4", (0, 3 * 64, 0)),
    ("y = AveragePool <kernel_shape=[2,2], strides=[2,2]> (x)", "", "1,4,4,4", (0, 4 * 64, 0)),
    ("y = GlobalAveragePool (x)", "", "1,4,1,1", (0, 256, 0)),
    ("y = ReduceMean <axes=[2,3], keepdims=1> (x)", "", "1,4,1,1", (0, 256, 0)),
    ("f = Flatten (x)\n y = Gemm <transB=1> (f, w, b)", weights(w=(5, 256), b=(5,)), "1,5", (256 * 5, 5, 256 * 5 + 5)),
    ("f = Flatten (x)\n y = MatMul (f, w)", weights(w=(256, 5)), "1,5", (256 * 5, 0, 256 * 5)),
    ("t = Transpose <perm=[0,1,3,2]> (x)\n y = MatMul (x, t)", "", "1,4,8,8", (4 * 8 * 8 * 8, 0, 0)),
    ("y = Mul (x, s)", weights(s=(1, 4, 1, 1)), "1,4,8,8", (0, 256, 4)),
    ("y = Add (x, s)", weights(s=(1,)), "1,4,8,8", (0, 256, 0)),
    ("y = PRelu (x, s)", weights(s=(4, 1, 1)), "1,4,8,8", (0, 512, 4)),
    ("z = Constant <value_float = 0.0> ()\n s = Constant <value_float = 6.0> ()\n y = Clip (x, z, s)", "", "1,4,8,8",
     (0, 512, 0)),
    ("y = Add (x, x)", "", "1,4,8,8", (0, 256, 0)),
    ("y = HardSwish (x)", "", "1,4,8,8", (0, 5 * 256, 0)),
    ("y = Softmax (x)", "", "1,4,8,8", (0, 5 * 256, 0)),
    ("f = Flatten (x)\n t = Transpose <perm=[1,0]> (f)\n y = Gemm (f, t)", "", "1,1", (256, 0, 0)),
    ("z = Constant <value = float {0.0}> ()\n y = Clip (x, z)", "", "1,4,8,8", (0, 256, 0)),
    ("r = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()\n y = Resize <mode=\"linear\"> (x, , r)", "",
     "1,4,16,16", (0, 9 * 1024, 0)),
    ("r = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()\n y = Resize <mode=\"nearest\"> (x, , r)", "",
     "1,4,16,16", (0, 0, 0)),
    ("y = DepthToSpace <blocksize=2> (x)", "", "1,1,16,16", (0, 0, 0)),
    ("y = MatMul (k, x)", weights(k=(5, 8)), "1,4,5,8", (4 * 5 * 8 * 8, 0, 40)),
    ("y = MatMul (x, k)", weights(k=(4, 8, 5)), "1,4,8,5", (4 * 8 * 5 * 8, 0, 160)),
    ("f = Flatten (x)\n t = Transpose <perm=[1,0]> (f)\n y = Gemm <transA=1> (t, w)", weights(w=(256, 5)), "1,5",
     (256 * 5, 0, 256 * 5)),
    ("f = Flatten (x)\n t = Transpose <perm=[1,0]> (f)\n y = Gemm (k, t)", weights(k=(3, 256)), "3,1",
     (256 * 3, 0, 256 * 3)),
    ("f = Flatten (x)\n t = Transpose <perm=[1,0]> (f)\n y = Gemm <transA=1> (k, t)", weights(k=(256, 3)), "3,1",
     (256 * 3, 0, 256 * 3)),
    ("y = Celu (x)", "", "1,4,8,8", (0, 4 * 256, 0)),
    ("y = LogSoftmax (x)", "", "1,4,8,8", (0, 5 * 256, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("body", "constants", "shape", "wanted"), NODES, ids=[node[0][:60] for node in NODES])
def test_an_onnx_operator_costs_what_arithmetic_says(
    body: str, constants: str, shape: str, wanted: tuple[int, int, int], tmp_path: Path
) -> None:
    path = write(tmp_path, f"g (float[1,4,8,8] x) => (float[{shape}] y)\n{constants} {{ {body} }}")
    analysis = analyze(path)
    assert not analysis.unknown
    macs, other, parameters = wanted
    assert (analysis.macs, analysis.flops, analysis.parameters) == (macs, 2 * macs + other, parameters)
    assert analysis.trainable in (None, 0)
    assert analysis.sha256 is not None
    assert analysis.file_bytes == path.stat().st_size


def test_what_graphs_within_read_and_bring_is_kept(tmp_path: Path) -> None:
    net = (
        "g (float[1,4,8,8] x, bool[1] q) => (float[1,4,6,6] y)\n"
        + weights(w=(4, 4, 3, 3), v=(4, 4, 1, 1))
        + "{ c = Conv <kernel_shape=[3,3]> (x, w)\n y = If (q) <"
        "then_branch = a () => (float[1,4,6,6] r) { r = Relu (c) }, "
        "else_branch = b () => (float[1,4,6,6] s) <float[4] own = {0, 0, 0, 0}>"
        "{ t = Conv <kernel_shape=[1,1]> (c, v)\n s = Mul (t, own) }> }"
    )
    analysis = analyze(write(tmp_path, net))
    assert [row.kind for row in analysis.rows] == ["convolution", "unknown"]
    assert (analysis.macs, analysis.at_least) == (36 * 36 * 4, True)
    assert analysis.parameters == 4 * 4 * 9 + 4 * 4 + 4
    assert analysis.notes == ()


def test_pytorchs_layers_are_named_by_their_modules(tmp_path: Path) -> None:
    nodes = "\n".join(f"t{number + 1} = Conv <kernel_shape=[1,1]> (t{number}, w)" for number in range(5))
    net = f"g (float[1,4,8,8] t0) => (float[1,4,8,8] t5)\n{weights(w=(4, 4, 1, 1))} {{ {nodes} }}"
    model = onnx.parser.parse_model(HEADER + net)
    for node, name in zip(model.graph.node, ("stem", "0/conv1", "0/conv2", "1/conv1", "1/conv2"), strict=True):
        node.name = "/stem/Conv" if name == "stem" else f"/layer1/layer1.{name}/Conv"
    (tmp_path / "torch.onnx").write_bytes(model.SerializeToString())
    wanted = ["stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"]
    assert [layer.name for layer in analyze(tmp_path / "torch.onnx").layers] == wanted


def test_strides_that_no_picture_has_are_one_line(tmp_path: Path) -> None:
    pools = [f"t{n} = MaxPool <kernel_shape=[1,1], strides=[65536,65536]> (t{n - 1})" for n in range(1, 4)]
    net = "g (float[1,4,8,8] t0) => (float[1,4,1,1] t3) { " + "\n".join(pools) + " }"
    with pytest.raises(ArtifactError, match="the strides up to 't3' multiply to more than any picture"):
        analyze(write(tmp_path, net))


def test_a_pair_is_compared_at_what_it_gives(tmp_path: Path) -> None:
    net = (
        "g (float[1,4,8,8] x) => (float[1,6,4,4] y)\n"
        + weights(d=(4, 1, 3, 3), p=(6, 4, 1, 1))
        + "{ t = Conv <kernel_shape=[3,3], pads=[1,1,1,1], group=4> (x, d)\n"
        "y = Conv <kernel_shape=[1,1], strides=[2,2]> (t, p) }"
    )
    (pair,) = analyze(write(tmp_path, net)).standard.pairs
    assert pair.macs == 64 * 9 * 4 + 16 * 4 * 6
    assert pair.standard_macs == 16 * 9 * 4 * 6
    nothing = (
        "z = Constant <value = int64[1] {0}> ()\n a = Constant <value = int64[1] {2}> ()\n e = Slice (x, z, z, a)\n"
    )
    empty = net.replace("{ t =", "{ " + nothing + " t =").replace("(x, d)", "(e, d)").replace("[1,6,4,4]", "[1,6,0,4]")
    assert analyze(write(tmp_path, empty, name="empty.onnx")).standard.pairs == ()


def test_a_dense_layer_at_each_place_keeps_the_places(tmp_path: Path) -> None:
    net = (
        "g (float[1,4,8,8] x) => (float[1,4,6,6] y)\n"
        + weights(k=(4, 4), w=(4, 4, 3, 3))
        + "{ t = Transpose <perm=[0,2,3,1]> (x)\n m = MatMul (t, k)\n u = Transpose <perm=[0,3,1,2]> (m)\n"
        "y = Conv <kernel_shape=[3,3]> (u, w) }"
    )
    assert [row.field for row in analyze(write(tmp_path, net)).rows] == [(1, 1), (1, 1), (1, 1), (3, 3)]


def test_empty_operators_are_counted_before_they_are_built(tmp_path: Path) -> None:
    graph = b"\x0a\x00" * 100_000  # operators of no length
    length = bytes([len(graph) & 127 | 128, len(graph) >> 7 & 127 | 128, len(graph) >> 14])
    (tmp_path / "many.onnx").write_bytes(b"\x08\x08\x42\x04\x0a\x00\x10\x0f\x3a" + length + graph)
    with pytest.raises(ArtifactError, match="has over 20,000 operators"):
        analyze(tmp_path / "many.onnx")


@given(data=st.binary(max_size=60))
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError, TooMuch):
        assert 0 <= count_nodes(data, 5, 40) <= 5


def test_calls_that_double_are_not_followed(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 15, "my" : 1]>\n'
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = my.F0 (x) }"
    )
    for number in range(60):
        function = model.functions.add(domain="my", name=f"F{number}", input=["a"], output=["c"])
        function.opset_import.extend(model.opset_import)
        for source, target in (("a", "b"), ("b", "c")):
            function.node.add(domain="my", op_type=f"F{number + 1}", input=[source], output=[target])
    last = model.functions.add(domain="my", name="F60", input=["a"], output=["c"])
    last.node.add(op_type="Relu", input=["a"], output=["c"])
    (tmp_path / "calls.onnx").write_bytes(model.SerializeToString())
    start = time.monotonic()
    assert analyze(tmp_path / "calls.onnx").unknown == (("my.F0", 1),)
    assert time.monotonic() - start < 20


def test_pictures_are_written_height_width_channels(tmp_path: Path) -> None:
    text = (
        "g (float[1,9,11,4] x) => (float[1,6] y)\n"
        + weights(w=(6, 4, 3, 3))
        + "{ t = Transpose <perm=[0,3,1,2]> (x)\n c = Conv <kernel_shape=[3,3]> (t, w)\n r = Relu (c)\n"
        "p = GlobalAveragePool (r)\n y = Flatten (p) }"
    )
    analysis = analyze(write(tmp_path, text))
    assert [row.output for row in analysis.rows] == [(1, 9, 11, 4), *[(1, 7, 9, 6)] * 2, (1, 1, 1, 6), (1, 6)]
    assert analysis.rows[1].field == (3, 3)


def test_an_open_batch_is_one_and_open_sizes_are_asked_for(tmp_path: Path) -> None:
    body = f"=> (float[N,2,H,W] y)\n{weights(w=(2, 3, 3, 3))}{{ y = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w) }}"
    open_batch = write(tmp_path, f"g (float[N,3,8,8] x) {body}")
    assert analyze(open_batch).macs == 64 * 27 * 2
    assert analyze(open_batch).notes == ("x leaves the batch open: taken as 1",)
    open_sides = write(tmp_path, f"g (float[N,3,H,W] x) {body}", name="open.onnx")
    with pytest.raises(SettingError, match=r"open: \[1, 3, 'H', 'W'\]; give height and width with --input-size"):
        analyze(open_sides)
    assert analyze(open_sides, (16, 4)).macs == 64 * 27 * 2
    with pytest.raises(SettingError, match=r"takes \[1, 3, 8, 8\], not 16×16|takes"):
        analyze(open_batch, 16)
    last = write(tmp_path, "g (float[N,H,W,3] x) => (float[N,H,W,3] y) { y = Relu (x) }", name="last.onnx")
    assert analyze(last, (5, 7)).inputs[0].shape == (1, 5, 7, 3)


def test_unknown_operators_make_the_total_say_at_least(tmp_path: Path) -> None:
    text = (
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y)\n"
        + weights(w=(4, 4, 1, 1), k=(4, 4))
        + '{ c = Conv <kernel_shape=[1,1]> (x, w)\n e = Einsum <equation="nchw,cd->ndhw"> (c, k)\n'
        'y = Einsum <equation="nchw,cd->ndhw"> (e, k) }'
    )
    analysis = analyze(write(tmp_path, text))
    assert analysis.unknown == (("Einsum", 2),)
    assert analysis.at_least
    assert analysis.macs == 64 * 16
    assert analysis.parameters == 16 + 16  # the second use of k is the first's


def test_an_operator_of_another_domain_is_unknown_by_its_full_name(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["" : 15, "my.own" : 1]>\n'
    text = "g (float[1,4] x) => (float[1,4] y) { c = my.own.Conv (x)\n y = Relu (x) }"
    analysis = analyze(write(tmp_path, text, header))
    assert analysis.notes == ("1 operators that reach no output are left out",)
    text = "g (float[1,4] x) => (float[1,4] y) { y = my.own.Conv (x) }"
    assert analyze(write(tmp_path, text, header)).unknown == (("my.own.Conv", 1),)


def test_weights_that_two_read_count_once_and_constants_of_constants_are_constants(tmp_path: Path) -> None:
    text = (
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y)\n"
        + weights(w=(4, 4, 1, 1))
        + "{ t = Transpose <perm=[1,0,2,3]> (w)\n c = Conv <kernel_shape=[1,1]> (x, w)\n"
        "y = Conv <kernel_shape=[1,1]> (c, t) }"
    )
    analysis = analyze(write(tmp_path, text))
    assert (analysis.macs, analysis.parameters) == (2 * 64 * 16, 16)


def test_quantization_pairs_are_storage_not_computation(tmp_path: Path) -> None:
    text = (
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y)\n"
        "<float s = {0.1}, uint8 z = {0}, int8[4,4,1,1] q = {" + ",".join(["0"] * 16) + "}, int8 n = {0}>"
        "{ a = QuantizeLinear (x, s, z)\n b = DequantizeLinear (a, s, z)\n w = DequantizeLinear (q, s, n)\n"
        "c = Conv <kernel_shape=[1,1]> (b, w)\n d = QuantizeLinear (c, s, z)\n y = DequantizeLinear (d, s, z) }"
    )
    analysis = analyze(write(tmp_path, text))
    assert [row.kind for row in analysis.rows] == ["convolution"]
    assert (analysis.macs, analysis.parameters, analysis.weight_bytes) == (64 * 16, 16, 16)
    assert analysis.rows[0].dtype == "uint8"


def test_arithmetic_on_sizes_is_done_ahead_and_costs_nothing(tmp_path: Path) -> None:
    # What PyTorch writes for x.chunk(2, 1)[0], and for a channel shuffle by x.view(1, 2, -1, 8, 8).
    text = (
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y)\n"
        "<int64 one = {1}, int64[1] axis = {1}, int64[1] zero = {0}, int64[1] two = {2}, int64[1] half = {2},"
        "int64[1] last = {-1}, int64 third = {2}>"
        "{ s = Shape (x)\n c = Gather <axis=0> (s, axis)\n d = Add (c, axis)\n e = Div (d, two)\n"
        "a = Slice (x, zero, e, axis)\n b = Slice (x, e, c, axis)\n j = Concat <axis=1> (b, a)\n"
        "side = Gather <axis=0> (s, third)\n sides = Unsqueeze (side, zero)\n"
        "to = Concat <axis=0> (axis, two, half, sides, sides)\n v = Reshape (j, to)\n"
        "t = Transpose <perm=[0,2,1,3,4]> (v)\n back = Shape (x)\n r = Reshape (t, back)\n y = Relu (r) }"
    )
    analysis = analyze(write(tmp_path, text))
    kinds = ["slice", "slice", "concatenate", "reshape", "transpose", "reshape", "relu"]
    assert [row.kind for row in analysis.rows] == kinds
    assert [row.output for row in analysis.rows[:3]] == [(1, 2, 8, 8), (1, 2, 8, 8), (1, 4, 8, 8)]
    assert analysis.flops == 256
    # Where the arithmetic cannot be done, the tensor that depends on it is named.
    broken = text.replace("Div (d, two)", "Div (d, zero)")
    with pytest.raises(ArtifactError, match="does not follow from the input's"):
        read_onnx(write(tmp_path, broken))


# ------------------------------------------------------------------------------------------- damaged ONNX files

GOOD = (
    "g (float[1,4,8,8] x) => (float[1,4,8,8] y)\n"
    + weights(w=(4, 4, 1, 1))
    + "{ c = Conv <kernel_shape=[1,1]> (x, w)\n y = Relu (c) }"
)


def edited(tmp_path: Path, change: Callable[[Any], None], text: str = GOOD) -> Path:
    model = onnx.parser.parse_model(HEADER + text)
    change(model)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="../../etc/passwd")


def _set_groups(model: Any) -> None:
    model.graph.node[0].attribute.add(name="group", type=2, i=3)


def _flat_kernel(model: Any) -> None:
    del model.graph.initializer[0].dims[1:]


def _reversed(model: Any) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _huge(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


def _negative(model: Any) -> None:
    model.graph.initializer[0].dims[0] = -4


def _computed_kernel(model: Any) -> None:
    model.graph.node[0].input[1] = "x"


def _no_output(model: Any) -> None:
    model.graph.output[0].name = "nowhere"


def _empty(model: Any) -> None:
    model.graph.ClearField("node")


def _no_result(model: Any) -> None:
    del model.graph.node[1].output[:]


def _no_kernel(model: Any) -> None:
    del model.graph.node[0].input[1:]


def _standing_window(model: Any) -> None:
    model.graph.node[0].attribute.add(name="strides", type=7, ints=[0, 1])


def _transposed_groups(model: Any) -> None:
    model.graph.node[0].op_type = "ConvTranspose"
    _set_groups(model)


def _short_payload(model: Any) -> None:
    model.graph.node[1].op_type = "Clip"
    model.graph.node[1].input.append("low")
    model.graph.initializer.add(name="low", data_type=1, raw_data=bytes(5))  # a float and a bit


def _cut_off(model: Any) -> None:
    model.graph.initializer.add(name="v", data_type=1, dims=[1000, 4], raw_data=bytes(8))


def _cut_off_numbers(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 1000


def _cut_off_within(model: Any) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"]))
    inner = model.graph.node[0].attribute.add(name="body", type=5).g
    constant = inner.node.add(op_type="Constant", output=["deep"]).attribute.add(name="value", type=4)
    constant.t.MergeFrom(onnx.TensorProto(name="deep", data_type=22, dims=[9], raw_data=bytes(4)))


def _external_constant(model: Any) -> None:
    value = model.graph.node[0].attribute.add(name="value", type=4).t
    value.MergeFrom(onnx.TensorProto(name="k", data_type=1, data_location=1))


def _external_sparse(model: Any) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.MergeFrom(onnx.TensorProto(name="s", data_type=1))
    sparse.values.external_data.add(key="location", value="secret")


def _no_operator_set(model: Any) -> None:
    model.ClearField("opset_import")


def _unknown_type(model: Any) -> None:
    model.graph.initializer[0].data_type = 99


def _made_twice(model: Any) -> None:
    model.graph.node[1].output[0] = "x"


def _no_filters(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 0


def _unmatched(model: Any) -> None:
    model.graph.initializer[0].dims[1] = 2


DAMAGED = [
    (_external, "keeps its weights in other files"),
    (_set_groups, "is damaged: .* has 3 groups for 4 channels|shapes do not fit"),
    (_flat_kernel, "is damaged"),
    (_reversed, "is damaged: Relu reads 'c', which nothing made before it"),
    (_huge, "too large to be real"),
    (_negative, r"is damaged: 'w' has the shape \[-4, 4, 1, 1\]"),
    (_computed_kernel, "has no kernel of its own|is damaged"),
    (_no_output, "nothing makes its output 'nowhere'"),
    (_empty, "holds no graph"),
    (_no_result, "is damaged: the operator .* gives nothing"),
    (_no_kernel, "is damaged: Conv .* has 1 inputs"),
    (_standing_window, r"has a window of \[0, 1\]"),
    (_transposed_groups, "has 3 groups for 4 channels"),
    (_short_payload, "is damaged: the constant 'low'"),
    (_cut_off, "was cut off: 'v' of the shape .* has 8 bytes, wanted 16,000"),
    (_cut_off_numbers, "was cut off: 'w' of the shape .* has 16 numbers, wanted 4,000"),
    (_cut_off_within, "was cut off: 'deep' of the shape .* has 4 bytes, wanted 5"),
    (_external_constant, "keeps its weights in other files"),
    (_external_sparse, "keeps its weights in other files"),
    (_no_operator_set, "was cut off: it does not say which operator set"),
    (_unknown_type, "'w' is of the type 99"),
    (_made_twice, "Relu makes 'x', which is there already"),
    (_no_filters, "is damaged: the kernel of .* has the shape|shapes do not fit"),
    (_unmatched, "with a kernel for 2 channels"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED, ids=lambda value: getattr(value, "__name__", None))
def test_a_damaged_onnx_file_is_one_line(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        read_onnx(edited(tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["wxyz", "chan", "one_", "net_"])
def test_names_that_are_no_text_are_one_line(name: str, tmp_path: Path) -> None:
    text = (
        "net_ (float[1,4,8,8] one_) => (float[1,4,8,8] y)\n"
        + weights(wxyz=(4, 4, 1, 1))
        + "{ chan = Conv <kernel_shape=[1,1]> (one_, wxyz)\n y = Relu (chan) }"
    )
    path = write(tmp_path, text)
    path.write_bytes(path.read_bytes().replace(name.encode(), b"\xff\xfe\xff\xfe"))
    if name == "net_":
        assert read_onnx(path).operators  # the graph's own name is never looked at
        return
    with pytest.raises(ArtifactError, match=r"is damaged: .*(named|UTF-8|utf-8|decode)"):
        read_onnx(path)


def test_caps_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)
    for name, value, message in (
        ("MAX_NODES", 1, "has over 1 operators"),
        ("MAX_FIELDS", 20, "has over 20 fields"),
        ("MAX_FILE_BYTES", 10, "at most 10"),
        ("MAX_TENSOR_BYTES", 100, "too large to be real"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(onnx_file, name, value)
            with pytest.raises(ArtifactError, match=message):
                read_onnx(path)


def test_graphs_within_graphs_are_counted_to_the_cap(tmp_path: Path) -> None:
    def nest(model: Any) -> None:
        graph = model.graph
        for _ in range(12):
            node = graph.node.add(op_type="If", input=["x"], output=["z"])
            attribute = node.attribute.add(name="then_branch", type=5)
            graph = attribute.g
            graph.node.add(op_type="Relu", input=["x"], output=["z"])

    with pytest.raises(ArtifactError, match="9 graphs deep; at most 20000 and 8"):
        read_onnx(edited(tmp_path, nest))


def test_a_shape_that_does_not_follow_is_asked_for(tmp_path: Path) -> None:
    text = "g (float[1,4] x, float[1] n) => (float[K] y) { k = NonZero (x)\n r = Cast <to=1> (k)\n y = Relu (r) }"
    with pytest.raises(ArtifactError, match=r"the shape of 'k' does not follow from the input's"):
        read_onnx(write(tmp_path, text))


# ------------------------------------------------------------------------------------------------ both exports


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small net with all that matters, as ONNX, LiteRT float32 and LiteRT int8."""
    L = keras.layers
    x = keras.Input((24, 20, 3), name="image")
    y = L.Rescaling(1 / 127.5, offset=-1)(x)
    y = L.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(y)
    y = L.ReLU(6)(L.BatchNormalization()(y))
    z = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="wide")(y)
    z = L.ReLU()(L.BatchNormalization()(z))
    z = L.Conv2D(8, 1, name="narrow")(z)
    y = L.Add()([y, z])
    y = L.Conv2DTranspose(4, 2, 2, name="up")(y)
    y = L.MaxPooling2D(2)(L.Concatenate()([y, L.UpSampling2D(2)(L.AveragePooling2D(2)(y))]))
    y = L.GlobalAveragePooling2D()(y)
    model = keras.Model(x, L.Softmax()(L.Dense(5)(y)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in model.get_weights()])
    place = tmp_path_factory.mktemp("files")
    pictures = rng.integers(0, 256, (8, 24, 20, 3), np.uint8)
    found = {"keras": place / "m.keras", "onnx": place / "m.onnx", "litert": place / "m.tflite"}
    model.save(found["keras"])
    found["onnx"].write_bytes(onnx_bytes(model))
    found["litert"].write_bytes(litert_bytes(model))
    about = About("net", tuple("abcde"), ())
    found["int8"] = export(model, place / "int8", "litert", about, pictures, "int8").model_path
    return found


def test_all_readers_agree_on_one_net(files: dict[str, Path]) -> None:
    graphs = {name: read_graph(path) for name, path in files.items()}
    wanted = folded_totals(graphs["keras"])
    assert folded_totals(graphs["onnx"]) == wanted
    # LiteRT's converter may write one operator for several; parameters and MACs stay.
    assert folded_totals(graphs["litert"])[:2] == folded_totals(graphs["int8"])[:2] == wanted[:2]
    for graph in graphs.values():
        assert sorted(products(graph)) == sorted(products(graphs["keras"]))
    stride = {"stem": 12 * 10 * 27 * 8, "narrow": 12 * 10 * 64, "wide": 12 * 10 * 72, "up": 12 * 10 * 4 * 32}
    assert sum(macs for _, macs in products(graphs["litert"])) == sum(stride.values()) + 8 * 5


def test_a_litert_file_is_read_without_any_library(files: dict[str, Path]) -> None:
    code = (
        "import sys\nfrom featherweight.analyze import analyze\n"
        f"print(analyze({str(files['litert'])!r}).macs)\n"
        "print([n for n in ('ai_edge_litert', 'onnx', 'tensorflow', 'keras', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"


def test_an_onnx_file_is_read_without_keras_or_a_runtime(files: dict[str, Path]) -> None:
    code = (
        "import sys\nfrom featherweight.cli import main\n"
        f"status = main(['analyze', {str(files['onnx'])!r}])\n"
        "print([n for n in ('keras', 'tensorflow', 'onnxruntime', 'PIL', 'cv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_int8_files_count_a_byte_a_number(files: dict[str, Path]) -> None:
    large, small = analyze(files["litert"]), analyze(files["int8"])
    assert {row.dtype for row in small.rows if row.macs} == {"int8"}
    assert small.peak.file_bytes * 4 == large.peak.file_bytes
    assert small.parameters == large.parameters
    biases = sum(row.output[-1] for row in small.rows if row.macs)  # 32 bits each
    assert small.weight_bytes == large.weight_bytes // 4 + 3 * biases


def test_an_artifact_is_read_by_its_name_and_must_be_whole(files: dict[str, Path], tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "scratch")
    pixels, outputs = artifact.golden()
    whole = replace(artifact, path=tmp_path / "mine", name="mine-24", steps=(Step("export", {}),))
    write_artifact(whole, files["onnx"].read_bytes(), (pixels, outputs))
    analysis = analyze(tmp_path / "mine")
    assert analysis.name == "mine-24"
    assert analysis.macs == analyze(files["onnx"]).macs
    (tmp_path / "mine" / "model.onnx").write_bytes(files["onnx"].read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        analyze(tmp_path / "mine")


def test_weights_without_a_network_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(SettingError, match="holds weights without a network"):
        analyze(tmp_path / "w.npz")


# --------------------------------------------------------------------------------------------- damaged files


@pytest.fixture
def limits() -> Iterator[None]:
    """Damaged files stay quick and small."""
    start = time.perf_counter()
    reset_peak_memory()
    before = resident_memory_bytes()
    yield
    peak = peak_memory_bytes()
    assert before is None or peak is None or peak - before < 256 * 2**20
    assert time.perf_counter() - start < 60


def read_damaged(kind: str, data: bytes, path: Path) -> str | None:
    """The one line that a damaged file gives; `None` where it is still read, with counts that hold together."""
    path.write_bytes(data)
    try:
        analysis = analyze_graph((read_litert if kind == "litert" else read_onnx)(path))
    except FeatherweightError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        return str(error)
    assert analysis.macs >= 0
    return None


@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_a_truncated_file_is_one_line(kind: str, files: dict[str, Path], tmp_path: Path, limits: None) -> None:
    data = files[kind].read_bytes()
    # In its last bytes an ONNX file names its operator sets; without the second of them it is whole.
    for end in range(0, len(data) - 64, max(1, len(data) // 40)):
        message = read_damaged(kind, data[:end], tmp_path / "cut")
        assert message is not None or kind == "litert", end  # weights of LiteRT may stand at the end, unread
    with pytest.raises(FeatherweightError):
        analyze(tmp_path / "absent.onnx")


@pytest.mark.parametrize("kind", ["onnx", "litert", "int8"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_are_read_or_are_one_line(
    kind: str, files: dict[str, Path], tmp_path: Path, limits: None, data: st.DataObject
) -> None:
    damaged = bytearray(files[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read_damaged("onnx" if kind == "onnx" else "litert", bytes(damaged), tmp_path / "flipped")


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300))
def test_noise_behind_the_magic_bytes_is_one_line(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "noise"
    for kind, start in (("litert", b"\x08\x00\x00\x00TFL3"), ("onnx", b"\x08\x08")):
        message = read_damaged(kind, start + noise, path)
        assert message is not None


def test_lists_longer_than_the_file_are_one_line(files: dict[str, Path], tmp_path: Path, limits: None) -> None:
    data = files["litert"].read_bytes()
    for place in range(0, min(len(data), 6000) - 4, 28):
        read_damaged("litert", data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :], tmp_path / "long")


def shared_parts(tensors: int, sizes: int, buffers: int = 1) -> bytes:
    """A LiteRT file of so many tensors, which are all the same table with the same shape of so many sizes.

    By hand: a table is (offset back to its list of fields), then fields; offsets lead forward from where they stand.
    """
    fields = struct.pack("<HHHH", 6, 8, 4, 0) + struct.pack(
        "<HHHHHHH", 14, 12, 0, 0, 4, 0, 8
    )  # tensor at 8, model at 16
    head = b"\0\0\0\0TFL3" + fields + b"\0\0"
    model = len(head)
    graphs, listed_buffers, graph = model + 12, model + 20, model + 28
    listed = graph + 8
    tensor = listed + 4 + 4 * tensors
    shape = tensor + 8
    data = bytearray(head)
    data += struct.pack("<iII", model - 16, graphs - (model + 4), listed_buffers - (model + 8))
    data += struct.pack("<II", 1, graph - (graphs + 4))
    data += struct.pack("<II", buffers, tensor - (listed_buffers + 4))  # the buffer is the tensor's table too
    data += struct.pack("<iI", graph - 8, listed - (graph + 4)) + struct.pack("<I", tensors)
    data += b"".join(struct.pack("<I", tensor - (listed + 4 + 4 * each)) for each in range(tensors))
    data += (
        struct.pack("<iI", tensor - 8, shape - (tensor + 4)) + struct.pack("<I", sizes) + struct.pack("<i", 1) * sizes
    )
    data[:4] = struct.pack("<I", model)
    return bytes(data)


def test_shared_parts_are_no_bomb(tmp_path: Path, limits: None) -> None:
    # Read as it says, this file of 0.4 MB holds 1.6 million sizes, and shorter lists could share on.
    message = read_damaged("litert", shared_parts(100_000, 16), tmp_path / "bomb")
    assert message is not None and "far more than the file holds" in message
    message = read_damaged("litert", shared_parts(3, 17), tmp_path / "axes")
    assert message is not None and "tensor 0 has 17 axes" in message
    message = read_damaged("litert", shared_parts(3, 2, 0), tmp_path / "buffers")
    assert message is not None and "names buffer 0 of 0" in message


def rebuilt(path: Path, change: Callable[[Any], None], place: Path) -> Path:
    """A LiteRT file with a change to what it describes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    place.write_bytes(bytes(builder.Output()))
    return place


def operator_of(model: Any, code: int) -> Any:
    """The first operator of that type."""
    return next(o for o in model.subgraphs[0].operators if model.operatorCodes[o.opcodeIndex].builtinCode == code)


CONVOLUTION, DENSE = 3, 9


def _set(path: str, value: Any, code: int = CONVOLUTION) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        setattr(operator_of(model, code), path, value)

    return change


def _tensor(code: int, place: int, shape: list[int]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.subgraphs[0].tensors[operator_of(model, code).inputs[place]].shape = shape

    return change


def _keep_no_operators(model: Any) -> None:
    model.subgraphs[0].operators = []


def _keep_no_graph(model: Any) -> None:
    model.subgraphs = []


def _read_ahead(model: Any) -> None:
    operator = operator_of(model, CONVOLUTION)
    operator.inputs = [model.subgraphs[0].operators[-1].outputs[0], *operator.inputs[1:]]


def _drop_inputs(code: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        operator = operator_of(model, code)
        operator.inputs = operator.inputs[:1]

    return change


def _run_twice(model: Any) -> None:
    model.subgraphs[0].operators.append(operator_of(model, CONVOLUTION))


def _far_buffer(model: Any) -> None:
    model.buffers[-1].offset, model.buffers[-1].size = 2**40, 4


DAMAGED_LITERT = [
    (_keep_no_operators, "has no operators"),
    (_keep_no_graph, "holds no graph"),
    (_set("outputs", []), "CONV_2D gives nothing"),
    (_set("inputs", []), "CONV_2D reads nothing"),
    (_set("opcodeIndex", 99), "is of type 99 of"),
    (_set("inputs", [9999]), "names tensor 9999 of"),
    (_read_ahead, "CONV_2D reads tensor .*, which nothing made before it"),
    (_drop_inputs(CONVOLUTION), "a convolution has no kernel"),
    (_drop_inputs(DENSE), "a dense layer has no kernel"),
    (_tensor(CONVOLUTION, 1, [8, 3, 3, 2]), "of 3 channels has a kernel for 2"),
    (_tensor(CONVOLUTION, 1, [8, 3]), r"a kernel has the shape \[8, 3\]; wanted 4 axes"),
    (_tensor(CONVOLUTION, 0, [24, 60]), r"reads the shape \[24, 60\]; wanted 4 axes"),
    (_tensor(CONVOLUTION, 0, [2**15, 2**15, 2**15, 3]), "would have the shape"),
    (_tensor(CONVOLUTION, 1, [1000, 3, 3, 3]), "has .* bytes, wanted 108,000"),
    (_run_twice, "CONV_2D makes tensor .*, which is there already"),
    (_far_buffer, "a buffer ends at byte"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED_LITERT, ids=[row[1][:30] for row in DAMAGED_LITERT])
def test_a_damaged_litert_file_is_one_line(change: Any, message: str, files: dict[str, Path], tmp_path: Path) -> None:
    place = rebuilt(files["litert"], change, tmp_path / "changed.tflite")
    with pytest.raises(ArtifactError, match=message) as caught:
        read_litert(place)
    assert "\n" not in str(caught.value)


def test_what_litert_files_leave_open_or_add_is_said(files: dict[str, Path], tmp_path: Path) -> None:
    def custom(model: Any) -> None:
        code = model.operatorCodes[operator_of(model, 25).opcodeIndex]  # softmax
        code.builtinCode = code.deprecatedBuiltinCode = 32
        code.customCode = "Mine"
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape = [-1, 24, 20, 3]
        model.subgraphs.append(model.subgraphs[0])

    analysis = analyze_graph(read_litert(rebuilt(files["litert"], custom, tmp_path / "custom.tflite")))
    assert analysis.unknown == (("custom Mine", 1),)
    assert analysis.notes == ("sizes that the file leaves open are taken as 1", "1 further subgraphs are not read")
    assert analysis.inputs[0].shape == (1, 24, 20, 3)


def test_a_dense_layer_flattens_what_it_reads(files: dict[str, Path], tmp_path: Path) -> None:
    def unflatten(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[operator_of(model, DENSE).inputs[0]]
        tensor.shape = [1, *tensor.shape[1:], 1, 1]

    changed = rebuilt(files["litert"], unflatten, tmp_path / "changed.tflite")
    assert analyze(changed).macs == analyze(files["litert"]).macs


def test_a_litert_file_has_its_size(files: dict[str, Path]) -> None:
    size = analyze(files["litert"]).inputs[0].shape[1:3]
    assert analyze(files["litert"], (size[0], size[1])).inputs[0].shape[1:3] == size
    with pytest.raises(SettingError, match="which is fixed; leave --input-size out"):
        analyze(files["litert"], 7)


def test_files_without_a_network_get_advice_that_fits(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(FeatherweightError, match=r"no model file: .*; wanted an .onnx, .* with a network"):
        analyze(tmp_path / "notes.txt")


def test_caps_of_litert_files_hold(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    caps = (("MAX_FILE_BYTES", 9, "at most 9"), ("MAX_OPERATORS", 2, "at most 2"), ("MAX_LIST", 1, "at most 1 are"))
    for name, value, message in caps:
        with monkeypatch.context() as patch:
            patch.setattr(litert_reader, name, value)
            with pytest.raises(ArtifactError, match=message):
                read_litert(files["litert"])


def test_float16_weights_are_weights_of_two_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    import tensorflow as tf

    model = keras.models.load_model(files["keras"])
    function = tf.function(model).get_concrete_function(tf.TensorSpec((1, 24, 20, 3), tf.float32))
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    place = tmp_path / "half.tflite"
    place.write_bytes(converter.convert())
    half, whole = analyze(place), analyze(files["litert"])
    assert (half.macs, half.parameters) == (whole.macs, whole.parameters)
    assert half.weight_bytes * 2 == whole.weight_bytes


def test_a_file_of_another_kind_is_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("page.onnx", "page.tflite"):
        (tmp_path / name).write_bytes(b"<!doctype html><html>")
        with pytest.raises(FeatherweightError) as caught:
            analyze(tmp_path / name)
        assert "\n" not in str(caught.value)
    # The suffix does not matter.
    (tmp_path / "wrong.onnx").write_bytes(files["litert"].read_bytes())
    assert analyze(tmp_path / "wrong.onnx").format == "litert"
    with pytest.raises(ArtifactError, match="does not begin as a LiteRT file"):
        read_litert(files["onnx"])
