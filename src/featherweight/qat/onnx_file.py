"""A float ONNX file with Q/DQ pairs behind its activations → one whose kernels and biases are integers, too.

A runtime takes an operation for int8 where each of its inputs comes from a DequantizeLinear and its output goes to a
QuantizeLinear; so here

- padding and the addition of a bias, which the converter left apart, go into their convolution or dense layer,
- a layer whose ReLU the grid behind it does not stand for (one with values below 0) is rounded before the ReLU, too,
- what only hands on its input gets a pair of the same grid behind it,
- kernels that lie on a grid become int8, biases int32 on the grid of input times kernel.

In scope: the graph. Not aware of: Keras, which activations are rounded. Imports grid; onnx where it is used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.qat.grid import KERNEL_LEVELS
from featherweight.quantize.onnx_protos import attributes, copied

# The axis of output channels of each operator's weights.
CHANNELS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
HANDS_ON = ("Flatten", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
# A bias of more steps than that would not fit its 32 bits.
BIAS_LIMIT = 2.0**30


def with_integer_weights(data: bytes) -> bytes:
    """The file with integer kernels and biases wherever a layer's input is rounded; others keep float weights."""
    import onnx

    model = onnx.load_from_string(data)
    graph = _Graph(model)
    _pads_into_convolutions(graph)
    _biases_into_products(graph)
    _round_before_relus(graph)
    _hand_grids_on(graph)
    _round_weights(graph)
    graph.write(model)
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes in the order in which they run, and constants by name; both may be changed."""

    def __init__(self, model: Any):
        import onnx

        self.nodes = [copied(node) for node in model.graph.node]
        self.constants: dict[str, NDArray[Any]] = {
            one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer
        }
        self.outputs = {value.name for value in model.graph.output}
        known = onnx.shape_inference.infer_shapes(model).graph
        self.ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*known.input, *known.value_info, *known.output)
        }

    def takers(self, name: str) -> list[Any]:
        return [node for node in self.nodes if name in node.input]

    def grid(self, name: str) -> tuple[str, str] | None:
        """The names of the scale and zero point that a tensor was made with, or `None` where it is float."""
        maker = next((node for node in self.nodes if name in node.output), None)
        return None if maker is None or maker.op_type != "DequantizeLinear" else (maker.input[1], maker.input[2])

    def replace(self, old: Any, *new: Any) -> None:
        place = next(place for place, node in enumerate(self.nodes) if node is old)
        self.nodes[place : place + 1] = new

    def round_behind(self, node: Any, grid: Sequence[str]) -> None:
        """Put a Q/DQ pair with this scale and zero point behind a node, for all that take its output."""
        import onnx

        name = node.output[0]
        codes, values = f"{name}_codes", f"{name}_values"
        for taker in self.takers(name):
            taker.input[:] = [values if one == name else one for one in taker.input]
        pair = (
            onnx.helper.make_node("QuantizeLinear", [name, *grid], [codes], codes),
            onnx.helper.make_node("DequantizeLinear", [codes, *grid], [values], values),
        )
        self.replace(node, node, *pair)

    def write(self, model: Any) -> None:
        """Into the model, in place, with the constants that are used."""
        import onnx

        used = {name for node in self.nodes for name in node.input}
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(values, name) for name, values in self.constants.items() if name in used
        )


# ------------------------------------------------------------------------------------------- what was left apart


def _pads_into_convolutions(graph: _Graph) -> None:
    """Zeros that are put around the input of convolutions become their own padding."""
    import onnx

    for pad in [node for node in graph.nodes if node.op_type == "Pad"]:
        takers, sides = graph.takers(pad.output[0]), _zeros_around(pad, graph)
        if sides is None or not takers or not all(_can_pad(node) for node in takers):
            continue
        for node in takers:
            settings = attributes(node)
            settings.pop("auto_pad", None)
            settings["pads"] = [a + b for a, b in zip(settings.get("pads", [0] * 4), sides, strict=True)]
            inputs = [pad.input[0], *node.input[1:]]
            graph.replace(node, onnx.helper.make_node("Conv", inputs, list(node.output), node.name, **settings))
        graph.replace(pad)


def _zeros_around(pad: Any, graph: _Graph) -> list[int] | None:
    """How many zeros a Pad puts before each side of the map and behind; `None` if it does anything else."""
    sides = graph.constants.get(pad.input[1]) if len(pad.input) > 1 else None
    value = graph.constants.get(pad.input[2], np.zeros(1)) if len(pad.input) > 2 else np.zeros(1)
    constant = attributes(pad).get("mode", b"constant") == b"constant"
    if not constant or sides is None or sides.size != 8 or np.any(sides[[0, 1, 4, 5]]) or np.any(value):
        return None
    return [int(side) for side in sides[[2, 3, 6, 7]]]


def _can_pad(node: Any) -> bool:
    return node.op_type == "Conv" and attributes(node).get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")


def _biases_into_products(graph: _Graph) -> None:
    """A matrix product of two axes and the addition of a vector become one Gemm."""
    import onnx

    for product in [node for node in graph.nodes if node.op_type == "MatMul"]:
        name = product.output[0]
        takers = graph.takers(name)
        if len(takers) != 1 or takers[0].op_type != "Add" or graph.ranks.get(name) != 2 or name in graph.outputs:
            continue
        bias = next((one for one in takers[0].input if one != name), "")
        if product.input[1] in graph.constants and graph.constants.get(bias, np.zeros(())).ndim == 1:
            outputs = list(takers[0].output)
            graph.replace(takers[0], onnx.helper.make_node("Gemm", [*product.input, bias], outputs, product.name))
            graph.replace(product)


# ---------------------------------------------------------------------------------------------------------- int8


def _round_before_relus(graph: _Graph) -> None:
    """On the same grid as behind: 0 is on it, so that rounding and ReLU may change places, and do no harm twice."""
    for relu in [node for node in graph.nodes if node.op_type in ("Relu", "Clip")]:
        name = relu.input[0]
        layer = next((node for node in graph.nodes if name in node.output), None)
        takers = graph.takers(relu.output[0])
        if layer is None or layer.op_type not in CHANNELS or len(graph.takers(name)) != 1 or len(takers) != 1:
            continue
        if takers[0].op_type == "QuantizeLinear" and graph.constants[takers[0].input[2]]:
            graph.round_behind(layer, takers[0].input[1:])


def _hand_grids_on(graph: _Graph) -> None:
    for node in [node for node in graph.nodes if node.op_type in HANDS_ON]:
        name, grid = node.output[0], graph.grid(node.input[0])
        takers = graph.takers(name)
        if grid is None or not takers or all(taker.op_type == "QuantizeLinear" for taker in takers):
            continue
        graph.round_behind(node, grid)


def _round_weights(graph: _Graph) -> None:
    for node in [node for node in graph.nodes if node.op_type in CHANNELS]:
        weights, grid = graph.constants.get(node.input[1]), graph.grid(node.input[0])
        if weights is None or grid is None:
            continue
        axis, input_scale = CHANNELS[node.op_type], float(graph.constants[grid[0]])
        bias = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        scales = _scales(weights, axis, input_scale, bias)
        along = scales.reshape([-1 if place == axis else 1 for place in range(weights.ndim)])
        made = [_integers(graph, f"{node.name}_weights", np.round(weights / along).astype(np.int8), scales, axis)]
        if bias is not None:
            steps = (scales * np.float32(input_scale)).astype(np.float32)
            made.append(_integers(graph, f"{node.name}_bias", np.round(bias / steps).astype(np.int32), steps, 0))
        node.input[1 : 1 + len(made)] = [one.output[0] for one in made]
        graph.replace(node, *made, node)


def _scales(
    weights: NDArray[np.float32], axis: int, input_scale: float, bias: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """The scale of each output channel: its greatest weight is 127 steps, or less where the bias would not fit its 32
    bits else: such weights are next to nothing beside it.
    """
    others = tuple(place for place in range(weights.ndim) if place != axis)
    scales = np.max(np.abs(weights), axis=others) / KERNEL_LEVELS
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / (input_scale * BIAS_LIMIT))
    return np.where(scales > 0, scales, 1).astype(np.float32)


def _integers(graph: _Graph, name: str, codes: NDArray[Any], scales: NDArray[np.float32], axis: int) -> Any:
    """Put codes and their scales among the constants; the node that makes `name` of them."""
    import onnx

    names = [f"{name}_codes", f"{name}_scale", f"{name}_zero_point"]
    graph.constants |= dict(zip(names, (codes, scales, np.zeros(scales.shape, codes.dtype)), strict=True))
    return onnx.helper.make_node("DequantizeLinear", names, [name], name, axis=axis)
