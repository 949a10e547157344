"""ONNX's axes and names: which tensors are pictures as (n, c, h, w), and what layer an operator is part of.

Imports graph only.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

from featherweight.analyze.graph import Operator, Tensor

# These take and give pictures, (n, c, h, w) there.
PICTURE_TYPES = {
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization",
    "Resize", "Upsample", "SpaceToDepth", "DepthToSpace", "InstanceNormalization", "QLinearConv", "GridSample",
}  # fmt: skip
# These keep the axes of what they are given.
SAME_AXES = {
    "relu", "relu6", "clip", "leaky_relu", "prelu", "elu", "celu", "selu", "sigmoid", "hard_sigmoid", "silu",
    "hard_silu", "tanh", "gelu", "softplus", "log_sigmoid", "softsign", "mish", "function", "scale", "shift",
    "affine", "add", "subtract", "multiply", "divide", "maximum", "minimum", "average", "compare", "pad", "slice",
    "concatenate", "identity", "cast", "quantize", "dequantize",
}  # fmt: skip


def channels_last(operators: list[Operator], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with pictures as (n, h, w, c)."""
    first = _channels_first(operators, tensors)
    return {
        name: replace(tensor, shape=(tensor.shape[0], *tensor.shape[2:], tensor.shape[1])) if name in first else tensor
        for name, tensor in tensors.items()
    }


def _channels_first(operators: list[Operator], tensors: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that are (n, c, …): those that a picture operator touches, and what they go through."""
    marked: set[str] = set()

    def mark(names: tuple[str, ...], rank: int) -> None:
        marked.update(name for name in names if len(tensors[name].shape) == rank and rank > 2)

    def spread(operator: Operator) -> None:
        names = (*operator.inputs, *operator.outputs)
        same = operator.kind in SAME_AXES
        if operator.origin.split(".")[-1] in PICTURE_TYPES:
            mark((operator.inputs[0], operator.outputs[0]), len(tensors[operator.inputs[0]].shape))
        elif same and any(name in marked for name in names):
            mark(names, len(tensors[operator.outputs[0]].shape))
        elif operator.kind in ("reduce_mean", "reduce", "softmax") and operator.inputs[0] in marked:
            mark(operator.outputs, len(tensors[operator.inputs[0]].shape))
        elif operator.kind == "reshape" and operator.inputs[0] in marked:
            before, after = tensors[operator.inputs[0]].shape, tensors[operator.outputs[0]].shape
            if before == after or (len(after) == 4 and after[2:] == before[2:]):
                mark(operator.outputs, 4)

    before = -1
    while len(marked) != before:  # forwards, then backwards, until nothing new is found
        before = len(marked)
        for operator in operators:
            spread(operator)
        for operator in reversed(operators):
            spread(operator)
    return marked


# What exporters append to a layer's name for the operations inside it.
TAILS = {
    "batchnorm", "convolution", "depthwise", "BiasAdd", "MatMul", "ReadVariableOp", "merged_input", "Tensordot",
    "moments", "Squeeze", "Reshape", "transpose",
}  # fmt: skip


def layer_names(graph: Any) -> list[str]:
    """A layer's name for each node: the part of the exporter's path that stands for the layer."""
    weights = {tensor.name for tensor in graph.initializer}
    paths = []
    for node in graph.node:
        candidates = [node.name, *(n for n in node.input if n in weights), *(n for n in node.output if n)]
        paths.append(next((path for path in candidates if "/" in path), node.name or (node.output or [""])[0]))
    scopes = Counter(part for path in paths for part in set(path.split("/")[:-1]))
    whole = {part for part, count in scopes.items() if count > 0.8 * len(paths)}
    return [_layer_name(path, whole) for path in paths]


def _layer_name(path: str, whole: set[str]) -> str:
    """The scopes that are left, joined as their framework does it.

    PyTorch repeats a module's place within itself, `/layer1/layer1.0/conv1/Conv`: a scope that the next one begins
    with is left out, and the others are the module's name, `layer1.0.conv1`. TensorFlow begins with no stroke.
    """
    parts = [part for part in path.split("/") if part]
    inside = [part for part in parts[:-1] if part not in whole and part.split(":")[0] not in TAILS]
    if inside:
        ends = [
            scope for scope, after in zip(inside, [*inside[1:], ""], strict=True) if not after.startswith(scope + ".")
        ]
        return ("." if path.startswith("/") else "/").join(ends)
    return parts[-1].split(":")[0] if parts else "?"
