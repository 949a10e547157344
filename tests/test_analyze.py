"""The cost rules and what follows from shapes, held against arithmetic done here; the Keras reader; the law that the
Keras reader and the ONNX reader agree.
"""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.analyze import analyze, count, memory, read_graph
from featherweight.analyze.costs import analyze_graph, folded_totals, products
from featherweight.analyze.folding import folded
from featherweight.analyze.geometry import fields
from featherweight.analyze.graph import UNKNOWN, Graph, Operator, Tensor, Weight, Window
from featherweight.analyze.keras_reader import read_keras
from featherweight.analyze.memory import peak_memory
from featherweight.analyze.onnx_reader import read_onnx
from featherweight.analyze.operators import RULES, Memory, cost
from featherweight.analyze.views import View, show_bytes, text
from featherweight.errors import SettingError
from featherweight.export import onnx_bytes
from featherweight.models.nets import NETS, net_named
from featherweight.models.zoo import Shape, build, reference

L = keras.layers


def model_of(*layers: Any, shape: tuple[int, ...] = (8, 8, 4)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers])


# ---------------------------------------------------------------------------------------------- costs by hand

# layer, (MACs, FLOPs beyond 2 · MACs) for an input of 8×8×4
BY_HAND = [
    (L.Conv2D(16, 3, padding="same"), 8 * 8 * 3 * 3 * 4 * 16, 8 * 8 * 16),
    (L.Conv2D(16, 3, use_bias=False), 6 * 6 * 3 * 3 * 4 * 16, 0),
    (L.Conv2D(16, (1, 5), 2, padding="same"), 4 * 4 * 5 * 4 * 16, 4 * 4 * 16),
    (L.Conv2D(16, 3, groups=2, padding="same", use_bias=False), 8 * 8 * 3 * 3 * (4 // 2) * 16, 0),
    (L.Conv2D(16, 3, dilation_rate=2, use_bias=False), 4 * 4 * 3 * 3 * 4 * 16, 0),
    (L.Conv2D(4, 3, groups=4, padding="same", use_bias=False), 8 * 8 * 3 * 3 * 4, 0),
    (L.DepthwiseConv2D(3, padding="same", use_bias=False), 8 * 8 * 3 * 3 * 4, 0),
    (L.DepthwiseConv2D(5, 2, padding="same", depth_multiplier=3), 4 * 4 * 5 * 5 * 12, 4 * 4 * 12),
    (L.SeparableConv2D(16, 3, padding="same"), 8 * 8 * (3 * 3 * 4 + 4 * 16), 8 * 8 * 16),
    (L.Conv2DTranspose(6, 3, 2, padding="same", use_bias=False), 8 * 8 * 3 * 3 * 4 * 6, 0),
    (L.Conv2DTranspose(6, 4, 2, use_bias=True), 8 * 8 * 4 * 4 * 4 * 6, 18 * 18 * 6),
    (L.Dense(10), 8 * 8 * 4 * 10, 8 * 8 * 10),
    (L.BatchNormalization(), 0, 2 * 256),
    (L.LayerNormalization(), 0, 7 * 256),
    (L.MaxPooling2D(2), 0, 3 * 4 * 4 * 4),
    (L.AveragePooling2D(2), 0, 4 * 4 * 4 * 4),
    (L.GlobalAveragePooling2D(), 0, 256),
    (L.GlobalMaxPooling2D(), 0, 252),
    (L.Rescaling(1 / 255), 0, 256),
    (L.Rescaling(1 / 127.5, offset=-1), 0, 512),
    (L.Normalization(mean=[0.5] * 4, variance=[2.0] * 4), 0, 512),
    (L.ReLU(), 0, 256),
    (L.ReLU(6), 0, 512),
    (L.ReLU(max_value=4), 0, 512),
    (L.ReLU(negative_slope=0.1), 0, 512),
    (L.LeakyReLU(), 0, 512),
    (L.PReLU(shared_axes=[1, 2]), 0, 512),
    (L.ELU(), 0, 768),
    (L.Softmax(), 0, 5 * 256),
    (L.Activation("swish"), 0, 5 * 256),
    (L.Activation("hard_sigmoid"), 0, 4 * 256),
    (L.Activation("linear"), 0, 0),
    (L.UpSampling2D(2), 0, 0),
    (L.UpSampling2D(2, interpolation="bilinear"), 0, 9 * 16 * 16 * 4),
    (L.Resizing(4, 4), 0, 9 * 4 * 4 * 4),
    (L.UnitNormalization(), 0, 4 * 256),
    (L.ZeroPadding2D(1), 0, 0),
    (L.Cropping2D(1), 0, 0),
    (L.CenterCrop(4, 4), 0, 0),
    (L.Reshape((64, 4)), 0, 0),
    (L.Permute((3, 1, 2)), 0, 0),
    (L.Flatten(), 0, 0),
    (L.Dropout(0.5), 0, 0),
    (L.SpatialDropout2D(0.5), 0, 0),
    (L.GaussianNoise(0.1), 0, 0),
    (L.RandomFlip(), 0, 0),
    (L.RandomRotation(0.1), 0, 0),
]


@pytest.mark.parametrize(("layer", "macs", "other"), BY_HAND, ids=lambda value: getattr(value, "name", None))
def test_a_layer_costs_what_arithmetic_says(layer: Any, macs: int, other: int) -> None:
    model = model_of(layer)
    analysis = analyze(model)
    assert not analysis.unknown
    assert (analysis.macs, analysis.flops) == (macs, 2 * macs + other)
    assert analysis.parameters == model.count_params()
    assert analysis.trainable == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert analysis.rows[-1].output == (1, *model.output_shape[1:])
    assert count(model) == (model.count_params(), macs)


def test_other_dimensions_cost_by_the_same_rule() -> None:
    assert analyze(model_of(L.Conv1D(5, 3, padding="same"), shape=(10, 2))).macs == 10 * 3 * 2 * 5
    assert analyze(model_of(L.Conv3D(5, 3, padding="same"), shape=(4, 5, 6, 2))).macs == 4 * 5 * 6 * 27 * 2 * 5
    assert analyze(model_of(L.DepthwiseConv1D(3, padding="same"), shape=(10, 2))).macs == 10 * 3 * 2


@pytest.mark.parametrize(
    ("layer", "inputs", "flops"),
    [
        (L.Add, 3, 2),
        (L.Multiply, 2, 1),
        (L.Maximum, 2, 1),
        (L.Average, 4, 4),
        (L.Concatenate, 3, 0),
        (L.Subtract, 2, 1),
    ],
)
def test_joins_cost_one_flop_an_element_between_two_inputs(layer: Any, inputs: int, flops: int) -> None:
    tensors = [keras.Input((4, 4, 2)) for _ in range(inputs)]
    assert analyze(keras.Model(tensors, layer()(tensors))).flops == flops * 4 * 4 * 2


def test_operations_on_tensors_are_read_from_their_table() -> None:
    x = keras.Input((8, 8, 4))
    y = keras.ops.relu6(x + 3.0) * (1 / 6) * x  # hard swish in pieces: 1 + 2 + 1 + 1
    y = keras.ops.mean(y, axis=(1, 2), keepdims=True)  # one an element
    y = keras.ops.maximum(keras.ops.reshape(y, (-1, 4)), 0.0)  # 4
    analysis = analyze(keras.Model(x, y))
    assert not analysis.unknown
    assert analysis.flops == 5 * 256 + 256 + 4
    assert [row.kind for row in analysis.rows[:4]] == ["shift", "relu6", "scale", "multiply"]


def test_a_fused_activation_is_an_operator_of_its_own() -> None:
    analysis = analyze(model_of(L.Conv2D(3, 1, activation="relu"), L.Flatten(), L.Dense(7, activation="softmax")))
    assert [row.kind for row in analysis.rows] == ["convolution", "relu", "reshape", "dense", "softmax"]
    assert [group.flops - 2 * group.macs for group in analysis.layers] == [8 * 8 * 3 * 2, 0, 7 + 5 * 7]


# ----------------------------------------------------------------------------------------- what can be read


def test_models_within_models_and_sequences_are_walked_into() -> None:
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(6, 3, name="a"), L.BatchNormalization(name="b")])
    x = keras.Input((8, 8, 4))
    nested = keras.Model(x, L.ReLU()(inner(x)))
    flat = model_of(L.Conv2D(6, 3), L.BatchNormalization(), L.ReLU())
    first, second = analyze(nested), analyze(flat)
    assert (first.parameters, first.macs, first.flops) == (second.parameters, second.macs, second.flops)
    assert [row.kind for row in first.rows] == [row.kind for row in second.rows]
    assert first.rows[0].layer.endswith("/a")


def test_a_block_is_walked_into() -> None:
    from featherweight.models.blocks import Block

    model = model_of(Block("depthwise_separable", {"filters": 6}))
    analysis = analyze(model)
    assert analysis.macs == 8 * 8 * (9 * 4 + 4 * 6)
    assert analysis.parameters == model.count_params()


def test_a_shared_layer_computes_twice_and_counts_once() -> None:
    x = keras.Input((8, 8, 4))
    shared = L.Conv2D(4, 3, padding="same")
    model = keras.Model(x, shared(shared(x)))
    analysis = analyze(model)
    assert analysis.macs == 2 * 8 * 8 * 9 * 16
    assert analysis.parameters == model.count_params() == 9 * 16 + 4
    assert len({row.name for row in analysis.rows}) == 2


def test_a_model_called_twice_computes_twice() -> None:
    x = keras.Input((8, 8, 4))
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 1, use_bias=False)])
    analysis = analyze(keras.Model(x, inner(inner(x))))
    assert analysis.macs == 2 * 64 * 16
    assert analysis.parameters == 16


class Doubled(L.Conv2D):
    """Does more than the layer it comes from."""

    def call(self, inputs: Any) -> Any:
        return super().call(inputs) * 2


class Renamed(L.Conv2D):
    """Does what the layer it comes from does."""


def test_an_unknown_layer_is_listed_and_the_total_says_at_least() -> None:
    model = model_of(L.Conv2D(4, 1), Doubled(4, 3), L.Flatten())
    analysis = analyze(model)
    assert analysis.unknown == (("Doubled", 1),)
    assert analysis.at_least
    assert analysis.macs == 64 * 16
    assert analysis.parameters == model.count_params()
    assert [row.macs for row in analysis.rows] == [64 * 16, None, 0]
    assert [group.at_least for group in analysis.layers] == [False, True, False]
    assert count(model) == (model.count_params(), None)


def test_a_subclass_that_changes_nothing_is_what_it_comes_from() -> None:
    assert analyze(model_of(Renamed(4, 1))).macs == 64 * 16


def test_a_model_with_a_call_of_its_own_cannot_be_read() -> None:
    class Own(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(SettingError, match=r"has a call\(\) of its own"):
        analyze(Own())


def test_a_sequence_that_knows_no_shape_cannot_be_read() -> None:
    with pytest.raises(SettingError, match="has no input shape yet"):
        analyze(keras.Sequential([L.Dense(3)]))


def test_open_sizes_are_asked_for_and_taken() -> None:
    model = model_of(L.Conv2D(4, 3, padding="same", use_bias=False), shape=(None, None, 3))
    with pytest.raises(SettingError, match=r"leaves its input size open.*--input-size"):
        analyze(model)
    assert analyze(model, 16).macs == 16 * 16 * 27 * 4
    assert analyze(model, (16, 8)).macs == 16 * 8 * 27 * 4
    with pytest.raises(SettingError, match="takes 8×8, not 16×16"):
        analyze(model_of(L.Flatten()), 16)
    with pytest.raises(SettingError, match="wanted pixels"):
        analyze(model, 0)


def test_a_layer_of_open_size_within_a_fixed_model_is_one_line() -> None:
    class Open(L.Layer):
        def call(self, x: Any) -> Any:
            return x

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor((None, None, 4))

    with pytest.raises(SettingError, match=r"a layer gives .*wanted sizes that follow"):
        analyze(model_of(L.Reshape((64, 4)), Open()))


def test_a_name_that_is_neither_file_nor_network_is_refused() -> None:
    with pytest.raises(SettingError, match=r"mobilenet_v9 is no file and no network of the zoo; .*mobilenet_v1"):
        analyze("mobilenet_v9")
    with pytest.raises(SettingError, match="squares"):
        analyze("mobilenet_v1", (64, 32))


def test_the_verb_stays_a_function_when_its_package_is_imported() -> None:
    code = (
        "import featherweight as fw, featherweight.analyze, featherweight.analyze.costs\n"
        "print(callable(fw.analyze), fw.analyze is featherweight.analyze)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


# ---------------------------------------------------------------------------------------------- published nets

# Name, parameters as Keras counts them, MACs: counted by hand from the papers' tables of layers.
# VGG-16: thirteen 3×3 convolutions and three dense layers (arXiv 1409.1556, table 1, column D).
VGG_CONVOLUTIONS = (
    (224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 128, 256), (56, 256, 256), (56, 256, 256),
    (28, 256, 512), (28, 512, 512), (28, 512, 512), (14, 512, 512), (14, 512, 512), (14, 512, 512),
)  # fmt: skip
VGG_MACS = sum(side * side * 9 * c * f for side, c, f in VGG_CONVOLUTIONS) + 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096000
# MobileNetV1: a 3×3 convolution, thirteen depthwise separable ones and a dense layer (arXiv 1704.04861, table 1).
MOBILENET = (
    (112, 32, 64), (56, 64, 128), (56, 128, 128), (28, 128, 256), (28, 256, 256), (14, 256, 512),
    *((14, 512, 512),) * 5, (7, 512, 1024), (7, 1024, 1024),
)  # fmt: skip
MOBILENET_MACS = 112 * 112 * 27 * 32 + sum(s * s * (9 * c + c * f) for s, c, f in MOBILENET) + 1024 * 1000


def test_mobilenet_costs_what_its_paper_says() -> None:
    analysis = analyze("mobilenet_v1")
    assert analysis.parameters == 4_253_864
    assert analysis.macs == MOBILENET_MACS
    assert 0.569e9 * 0.99 < analysis.macs < 0.569e9 * 1.01
    stages = [stage.name for stage in analysis.stages if stage.macs]
    assert stages == [*(f"stride {2**k}" for k in range(1, 6)), "head"]
    assert analysis.endpoints[-1].shape == (1, 7, 7, 1024)
    assert analysis.endpoints[-1].stride == (32, 32)
    # Published for MobileNet 1.0 at 224 by "Computing Receptive Fields": 315.
    assert analysis.endpoints[-1].field == (315, 315)


def test_vgg_costs_what_its_paper_says() -> None:
    analysis = analyze_graph(read_graph(reference(net_named("vgg16"), 1.0)))
    assert analysis.parameters == 138_357_544
    assert analysis.macs == VGG_MACS
    assert 15.47e9 * 0.99 < analysis.macs < 15.47e9 * 1.01
    # Published for VGG-16's last pooling: 212 pixels, 32 apart.
    assert analysis.endpoints[-1].field == (212, 212)
    assert analysis.endpoints[-1].stride == (32, 32)
    assert not analysis.standard.pairs
    assert analysis.standard.macs == analysis.macs


# ---------------------------------------------------------------------------------------------------- geometry


def test_the_receptive_field_of_a_small_net_by_hand() -> None:
    model = model_of(
        L.Conv2D(4, 3, strides=2, padding="same"),  # sees 3, every 2
        L.Conv2D(4, 3, padding="same"),  # 3 + 2 · 2 = 7
        L.MaxPooling2D(2),  # 7 + 1 · 2 = 9, every 4
        L.Conv2D(4, 3, dilation_rate=2, padding="same"),  # 9 + 2 · 2 · 4 = 25
        L.ReLU(),
        L.UpSampling2D(2),  # every 2 again
        L.GlobalAveragePooling2D(),
        shape=(32, 32, 3),
    )
    rows = analyze(model).rows
    assert [row.field[0] if row.field else None for row in rows] == [3, 7, 9, 25, 25, 25, None]
    assert [row.stride[0] if row.stride else None for row in rows] == [2, 2, 4, 4, 4, 2, None]
    assert [row.stage for row in rows] == [*["stride 2"] * 2, *["stride 4"] * 3, "stride 2, up", "head"]
    assert [(end.shape, end.field) for end in analyze(model).endpoints] == [
        ((1, 16, 16, 4), (7, 7)),
        ((1, 8, 8, 4), (25, 25)),
        ((1, 16, 16, 4), (25, 25)),
    ]


def test_a_transposed_convolution_sees_its_neighbours_and_halves_the_stride() -> None:
    rows = analyze(model_of(L.MaxPooling2D(2), L.Conv2DTranspose(4, 4, 2, padding="same"))).rows
    assert (rows[0].field, rows[0].stride) == ((2, 2), (2, 2))
    assert (rows[1].field, rows[1].stride) == ((2 + 2, 2 + 2), (1, 1))


def test_a_gate_belongs_to_what_it_scales_and_widens_no_field() -> None:
    x = keras.Input((16, 16, 4))
    y = L.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)
    gate = L.GlobalAveragePooling2D(keepdims=True, name="pool")(y)
    gate = L.Conv2D(4, 1, activation="sigmoid", name="gate")(gate)
    y = L.Multiply(name="scaled")([y, gate])
    analysis = analyze(keras.Model(x, L.Dense(3)(L.Flatten()(y))))
    stages = {row.name: row.stage for row in analysis.rows}
    assert stages["pool"] == stages["gate"] == stages["scaled"] == "stride 2"
    assert analysis.endpoints[-1].name == "scaled"
    assert analysis.endpoints[-1].field == (3, 3)


def test_a_channel_shuffle_keeps_the_places() -> None:
    from featherweight.models.blocks import Block

    model = model_of(L.Conv2D(8, 3, padding="same"), Block("channel_shuffle", {"groups": 2}), L.Conv2D(4, 3))
    assert analyze(model).rows[-1].field == (5, 5)


# ------------------------------------------------------------------------------------------------ peak memory


def graph_of(edges: dict[str, tuple[str, ...]], sizes: dict[str, int], kinds: dict[str, str] | None = None) -> Graph:
    """Operators named as the tensor they make; `edges` are their inputs, sizes in floats; `x` is the input."""
    kinds = kinds or {}
    operators = [Operator(name, kinds.get(name, "add"), name, tuple(inputs), (name,)) for name, inputs in edges.items()]
    read = {name for inputs in edges.values() for name in inputs}
    outputs = tuple(name for name in edges if name not in read)
    return Graph("g", "keras", tuple(operators), {n: Tensor(n, (1, s)) for n, s in sizes.items()}, ("x",), outputs)


def test_the_peak_of_a_branchy_net_by_hand() -> None:
    # x → a, then b and c from a, then d from both: while c is made, a, b and c are there.
    edges = {"a": ("x",), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    peak = peak_memory(graph_of(edges, {"x": 1, "a": 10, "b": 4, "c": 5, "d": 2}))
    assert peak.file_bytes == 4 * (10 + 4 + 5)
    assert peak.at == "c"
    assert peak.best_bytes == peak.file_bytes
    assert peak.exact


def test_another_order_needs_less() -> None:
    # Two branches swell and shrink. The file swells both before it shrinks either.
    edges = {"a": ("x",), "b": ("x",), "c": ("a",), "d": ("b",), "e": ("c", "d")}
    peak = peak_memory(graph_of(edges, {"x": 1, "a": 100, "b": 100, "c": 1, "d": 1, "e": 1}))
    assert peak.file_bytes == 4 * (100 + 100 + 1)  # a, b, and c while a is still there
    assert peak.best_bytes == 4 * (1 + 100 + 1)  # a, c; then b beside c and x
    assert peak.exact


def test_element_wise_functions_and_views_take_no_memory_of_their_own() -> None:
    edges = {"a": ("x",), "b": ("a",), "c": ("b",)}
    sizes = {"x": 3, "a": 10, "b": 10, "c": 10}
    assert peak_memory(graph_of(edges, sizes, {"b": "relu", "c": "reshape"})).file_bytes == 4 * 13
    assert peak_memory(graph_of(edges, sizes)).file_bytes == 4 * 20
    # Where the input is needed later, or is the caller's, nothing is written over it.
    twice = {"a": ("x",), "b": ("a",), "c": ("a", "b")}
    assert peak_memory(graph_of(twice, sizes, {"b": "relu"})).file_bytes == 4 * 30
    assert peak_memory(graph_of({"a": ("x",)}, {"x": 10, "a": 10}, {"a": "relu"})).file_bytes == 4 * 20


def test_a_chain_has_one_order_and_a_pad_is_in_its_peak() -> None:
    chain = graph_of({"p": ("x",), "c": ("p",)}, {"x": 100, "p": 120, "c": 10}, {"p": "pad"})
    peak = peak_memory(chain)
    assert (peak.only_order, peak.exact, peak.file_bytes, peak.best_bytes) == (True, True, 4 * 220, 4 * 220)
    assert "there is only one order" in text([View(analyze_graph(chain))], "stage")
    branched = graph_of({"a": ("x",), "b": ("x",), "c": ("a", "b")}, {"x": 10, "a": 10, "b": 10, "c": 10})
    assert not peak_memory(branched).only_order
    assert "no other order needs less" in text([View(analyze_graph(branched))], "stage")


def test_of_many_operators_no_order_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    edges: dict[str, tuple[str, ...]] = {f"b{n}": ("x",) for n in range(60)}
    edges["y"] = tuple(edges)
    sizes = {"x": 1, "y": 1} | {f"b{n}": 5 + n for n in range(60)}
    monkeypatch.setattr(memory, "MAX_STEPS", 100)
    few = peak_memory(graph_of(edges, sizes))
    assert few.bound_bytes <= few.best_bytes == few.file_bytes
    monkeypatch.setattr(memory, "MAX_OPERATORS", 10)
    assert peak_memory(graph_of(edges, sizes)).best_bytes == few.file_bytes


def test_an_unknown_activation_is_named() -> None:
    x = keras.Input((8,))
    y = L.Dense(4, activation=keras.activations.squareplus)(x)
    y = L.Activation(keras.activations.celu)(L.Activation(keras.activations.squareplus)(y))
    analysis = analyze(keras.Model(x, L.Activation("log_softmax")(y)))
    assert analysis.unknown == (("activation squareplus", 2),)


def test_a_size_that_is_too_small_is_one_line() -> None:
    x = keras.Input((None, None, 3))
    model = keras.Model(x, L.Conv2D(4, 3)(x), name="open")
    with pytest.raises(SettingError, match=r"open cannot be built for 1×1: .*; wanted a larger size"):
        analyze(model, 1)


def test_shares_add_up_operator_by_operator() -> None:
    x = keras.Input((8, 8, 3))
    analysis = analyze(keras.Model(x, L.Conv2D(4, 3, activation="relu")(x)))
    assert [row.share for row in analysis.rows] == [1.0, 0.0]
    assert "share of MACs" in text([View(analysis)], "operator")
    assert analysis.as_dict()["rows"][0]["share"] == 1.0
    without = analyze(keras.Model(x, L.ReLU()(x)))
    assert [row.share for row in without.rows] == [1.0]
    assert "share of FLOPs" in text([View(without)], "operator")


def test_a_slip_in_a_name_is_answered_without_keras() -> None:
    code = (
        "import sys\nfrom featherweight.analyze import analyze\n"
        "try: analyze('mobilnet')\nexcept Exception as error: print(error, 'keras' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("mobilnet is no file and no network of the zoo")
    assert said.endswith("False\n")


def test_a_search_that_is_given_up_says_so() -> None:
    edges: dict[str, tuple[str, ...]] = {}
    sizes = {"x": 1}
    for branch in range(5):
        for step in range(3):
            name = f"{branch}{step}"
            edges[name] = (f"{branch}{step - 1}",) if step else ("x",)
            sizes[name] = 10 + 7 * ((branch + step) % 5)
    by_step = dict(sorted(edges.items(), key=lambda item: item[0][1]))  # all branches at once
    by_step["y"] = tuple(f"{branch}2" for branch in range(5))
    sizes["y"] = 1
    graph = graph_of(by_step, sizes)
    given_up = peak_memory(graph, max_states=1)
    assert not given_up.exact
    found = peak_memory(graph)
    assert found.exact
    assert given_up.bound_bytes <= found.best_bytes <= given_up.best_bytes <= given_up.file_bytes
    assert found.best_bytes < found.file_bytes
    said = text([View(replace(analyze_graph(graph), peak=given_up))], "stage")
    assert f"at least {show_bytes(given_up.bound_bytes)} in any" in said


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 6))
    names = ["x", *(f"t{number}" for number in range(count))]
    edges, kinds = {}, {}
    for number in range(count):
        inputs = draw(st.lists(st.sampled_from(names[: number + 1]), min_size=1, max_size=3, unique=True))
        edges[f"t{number}"] = tuple(inputs)
        kinds[f"t{number}"] = draw(st.sampled_from(["add", "relu", "reshape", "conv"] if len(inputs) == 1 else ["add"]))
    sizes = {name: draw(st.integers(1, 9)) for name in names}
    for name, kind in kinds.items():
        if kind in ("relu", "reshape"):
            sizes[name] = sizes[edges[name][0]]
    return graph_of(edges, sizes, kinds)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(graphs())
def test_the_best_order_is_the_best_of_all_orders(graph: Graph) -> None:
    peak = peak_memory(graph)
    assert peak.exact
    peaks = []
    for order in itertools.permutations(graph.operators):
        made = {"x"}
        for operator in order:
            if not set(operator.inputs) <= made:
                break
            made.update(operator.outputs)
        else:
            peaks.append(peak_memory(replace(graph, operators=order), max_states=0).file_bytes)
    assert peak.best_bytes == min(peaks)
    assert peak.file_bytes == peak_memory(graph, max_states=0).file_bytes


# --------------------------------------------------------------------------------- standard against depthwise


@pytest.mark.parametrize(("kernel", "filters", "strides"), [(3, 16, 1), (5, 24, 2), (7, 8, 1)])
def test_a_separable_convolution_costs_the_share_that_the_law_says(kernel: int, filters: int, strides: int) -> None:
    model = model_of(
        L.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False),
        L.BatchNormalization(),
        L.ReLU(6),
        L.Conv2D(filters, 1, use_bias=False),
    )
    standard = analyze(model_of(L.Conv2D(filters, kernel, strides, padding="same", use_bias=False)))
    analysis = analyze(model)
    (pair,) = analysis.standard.pairs
    assert pair.ratio == pytest.approx(1 / filters + 1 / kernel**2, rel=1e-12)
    assert pair.standard_macs == standard.macs == analysis.standard.macs
    assert pair.standard_parameters == standard.parameters
    assert analysis.standard.parameters == standard.parameters + 4 * 4  # the batch norm between stays
    assert analysis.macs / standard.macs == pytest.approx(pair.ratio)


def test_gates_between_are_looked_through_and_lone_depthwise_ones_are_named() -> None:
    x = keras.Input((8, 8, 4))
    y = L.DepthwiseConv2D(3, padding="same", name="first")(x)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(y))
    y = L.Conv2D(6, 1, name="project")(L.Multiply()([y, gate]))
    y = L.DepthwiseConv2D(3, padding="same", name="alone")(y)
    y = L.Conv2D(6, 3, padding="same")(y)
    standard = analyze(keras.Model(x, y)).standard
    assert [(pair.depthwise, pair.pointwise) for pair in standard.pairs] == [("first", "project")]
    assert standard.unpaired == ("alone",)


# --------------------------------------------------------------------------------------------------- folding


def test_batch_norms_fold_into_convolutions_and_chains_into_one() -> None:
    model = model_of(
        L.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[1.0, 2.0, 3.0, 4.0]),
        L.Rescaling(2.0),
        L.Conv2D(6, 3, use_bias=False),
        L.BatchNormalization(),
        L.Dropout(0.1),
        L.ReLU(),
        L.BatchNormalization(),
    )
    graph = folded(read_keras(model))
    assert [operator.kind for operator in graph.operators] == ["affine", "convolution", "relu", "affine"]
    # Four scales and shifts; the kernel and a bias; the last batch norm as a scale and a shift.
    assert [operator.parameters for operator in graph.operators] == [8, 9 * 4 * 6 + 6, 0, 12]
    assert graph.operators[1].also
    parameters, macs, flops = folded_totals(read_keras(model))
    assert (parameters, macs) == (8 + 222 + 12, 6 * 6 * 216)
    assert flops == 2 * macs + 2 * 256 + 216 + 216 + 432


def test_what_two_read_is_not_folded_and_what_repeats_is_computed_once() -> None:
    x = keras.Input((8, 8, 4))
    y = L.Conv2D(4, 1)(x)
    model = keras.Model(x, L.Add()([L.BatchNormalization()(y), L.ReLU()(y), L.ReLU()(y), L.ReLU()(x)]))
    kinds = [operator.kind for operator in folded(read_keras(model)).operators]
    assert sorted(kinds) == ["add", "affine", "convolution", "relu", "relu"]


# ------------------------------------------------------------------------------------------------- the laws


def random_weights(model: keras.Model) -> None:
    """Fresh batch norms shift by 0 and scale by almost 1; exporters drop what does nothing."""
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) if w.ndim < 2 else w for w in model.get_weights()]
    )


# Structurally different and quick to export; the others are in the slow run.
QUICK = ("hello", "mobilenet_v2", "mobilenet_v3_small", "squeezenet_1_1", "shufflenet_v2", "resnet20_cifar")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_the_keras_reader_and_the_onnx_reader_agree(name: str, tmp_path: Path) -> None:
    model = build(Shape(name, net_named(name).widths[0], 64), 4)
    random_weights(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(model))
    ours, theirs = read_keras(model), read_onnx(path)
    assert {operator.kind for graph in (ours, theirs) for operator in graph.operators}.isdisjoint({UNKNOWN})
    assert folded_totals(ours) == folded_totals(theirs)  # parameters, MACs and FLOPs
    # Branches may come in another order.
    assert sorted(products(ours)) == sorted(products(theirs))
    assert sum(operator.parameters for operator in ours.operators) == model.count_params()


@pytest.mark.parametrize("name", QUICK)
def test_columns_add_up_to_the_totals(name: str) -> None:
    analysis = analyze(build(Shape(name, net_named(name).widths[0], 64), 4))
    for lines in (analysis.rows, analysis.layers, analysis.stages):
        for column in ("parameters", "trainable", "macs", "flops", "weight_bytes", "activation_bytes"):
            assert sum(getattr(line, column) for line in lines) == getattr(analysis, column)
    for groups in (analysis.layers, analysis.stages):
        assert sum(group.share for group in groups) == pytest.approx(1)
        assert sum(group.operators for group in groups) == len(analysis.rows)
    assert analysis.flops >= 2 * analysis.macs
    assert analysis.peak.bound_bytes <= analysis.peak.best_bytes <= analysis.peak.file_bytes


def test_every_rule_gives_counts_for_a_picture() -> None:
    tensors = {"x": Tensor("x", (1, 4, 4, 6)), "y": Tensor("y", (1, 4, 4, 6))}
    kernel = (Weight("kernel", (3, 3, 6, 6)),)
    for kind, rule in RULES.items():
        operator = Operator("o", kind, "o", ("x", "x"), ("y",), kernel, Window((3, 3)))
        macs, flops = cost(operator, tensors) or (-1, -1)
        assert macs >= 0
        assert flops >= 2 * macs
        assert rule.memory is not Memory.VIEW or flops == 0
    assert cost(Operator("o", UNKNOWN, "o", ("x",), ("y",)), tensors) is None


def test_fields_of_inputs_that_are_no_pictures_are_none() -> None:
    graph = read_keras(model_of(L.Dense(3), shape=(7,)))
    assert set(fields(graph).values()) == {None}
