"""ONNX graphs with 8-bit weights and activations quantized on the way, or with weights stored in 16 bits.

ONNX Runtime's own dynamic quantizer gives a convolution one scale for all of its weights, which depthwise layers do
not survive, and leaves `Gemm` float. Here each output channel has its own:

    y = (x' ∗ W' in integers) · scale of x · scales of W + bias

`ConvInteger` and `MatMulInteger` are exact, but only the second has fast kernels everywhere: ONNX Runtime 1.31 unrolls
a `ConvInteger` into memory and runs a depthwise one channel by channel. So this makes a convolutional network four
times smaller, and slower. Imports nothing of the package; onnx where used.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.quantize.onnx_protos import attributes

PRODUCTS = ("Conv", "Gemm", "MatMul")
ZERO = 128  # the code of 0 of every weight: kernels of integers want unsigned ones, and one zero point


def with_integer_products(model: Any, per_channel: bool, skip: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Replace convolutions and dense layers by integer ones, in place; what else stays float, with the reason."""
    import onnx

    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes: list[Any] = []
    left: list[tuple[str, str]] = []
    codes: set[str] = set()  # activations that are quantized already
    zero = onnx.numpy_helper.from_array(np.array(ZERO, np.uint8), "weight_zero_point")
    for node in list(model.graph.node):
        reason = _why_float(node, constants)
        if node.op_type in PRODUCTS and node.name not in skip and not reason:
            new, initializers = _integer(node, constants, per_channel, codes)
            nodes += new
            model.graph.initializer.extend(initializers)
        else:
            nodes.append(node)
            left += [(node.name, reason)] * (node.op_type in PRODUCTS and node.name not in skip)
    model.graph.initializer.append(zero)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model.graph)
    return tuple(left)


def store_float16(model: Any, skip: Collection[str]) -> None:
    """Store the weights of products as float16 with a cast back to float32 behind them, in place; but for those that
    an operator in `skip` takes, too.
    """
    import onnx

    kept = {name for node in model.graph.node if node.name in skip for name in node.input}
    constants = {one.name: one for one in model.graph.initializer if one.name not in kept}
    casts: list[Any] = []
    for node in model.graph.node:
        if node.op_type not in (*PRODUCTS, "ConvTranspose") or node.input[1] not in constants:
            continue
        weight = constants.pop(node.input[1])
        name, stored = weight.name, onnx.numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(onnx.numpy_helper.from_array(stored, f"{name}_float16"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])


def quantized_weights(weights: NDArray[np.float32], axes: tuple[int, ...]) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """(int8 codes -127–127, scales): symmetric, one scale for all values along `axes`, which keep the length 1."""
    scale = np.maximum(np.abs(weights).max(axis=axes, keepdims=True) / 127, 1e-12).astype(np.float32)
    return np.clip(np.round(weights / scale), -127, 127).astype(np.int8), scale


def _why_float(node: Any, constants: dict[str, NDArray[Any]]) -> str:
    """Why a product cannot be one of integers; empty if it can."""
    if node.op_type not in PRODUCTS:
        return ""
    if len(node.input) < 2 or node.input[1] not in constants:
        return "its second factor is no constant"
    if constants[node.input[1]].ndim < 2 or (node.op_type != "Conv" and constants[node.input[1]].ndim != 2):
        return "its weights are no matrix"
    if any(name and name not in constants for name in node.input[2:]):
        return "its bias is no constant"
    settings = attributes(node)
    plain = all(settings.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not settings.get("transA", 0)
    return "" if plain else "a Gemm that scales or transposes its input"


def _integer(
    node: Any, constants: dict[str, NDArray[Any]], per_channel: bool, codes: set[str]
) -> tuple[list[Any], list[Any]]:
    """The nodes in place of a product, and their constants."""
    import onnx
    from onnx.helper import make_node

    source, weight, *bias = filter(None, node.input)
    output, convolution = node.output[0], node.op_type == "Conv"
    settings = attributes(node)
    weights = constants[weight].T if settings.get("transB", 0) else constants[weight]
    axes = tuple(range(1, weights.ndim)) if convolution else (0,)
    values, scales = quantized_weights(weights, axes if per_channel else tuple(range(weights.ndim)))
    shape = (1, -1, *[1] * (weights.ndim - 2)) if convolution else (-1,)
    arrays = {
        f"{output}_weight": (values.astype(np.int16) + ZERO).astype(np.uint8),
        f"{output}_weight_scale": scales.reshape(shape),
    }
    nodes = []
    if source not in codes:
        codes.add(source)
        made = [f"{source}_codes", f"{source}_scale", f"{source}_zero_point"]
        nodes.append(make_node("DynamicQuantizeLinear", [source], made, f"{source}_to_codes"))
    factors = [f"{source}_codes", f"{output}_weight", f"{source}_zero_point", "weight_zero_point"]
    sums, real, scale = f"{output}_sums", f"{output}_real", f"{output}_product_scale"
    operator = "ConvInteger" if convolution else "MatMulInteger"
    product = make_node(operator, factors, [sums], node.name)
    product.attribute.extend(node.attribute if convolution else ())
    scaled = f"{output}_scaled" if bias else output
    nodes += [
        product,
        make_node("Cast", [sums], [real], f"{node.name}_cast", to=onnx.TensorProto.FLOAT),
        make_node("Mul", [f"{source}_scale", f"{output}_weight_scale"], [scale], f"{node.name}_scales"),
        make_node("Mul", [real, scale], [scaled], f"{node.name}_scale"),
    ]
    if bias:
        arrays[f"{output}_bias"] = constants[bias[0]].reshape(shape)
        nodes.append(make_node("Add", [scaled, f"{output}_bias"], [output], f"{node.name}_bias"))
    return nodes, [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
