"""An ONNX graph that loses less in int8, with equal float outputs.

- `smoothed`: the codes of an activation are spanned by its greatest channel. Where a convolution follows a convolution
  with nothing between but functions with f(s x) = s f(x) for s > 0, a channel is divided by s in the first and
  multiplied by s in the second, so that the channels of the activation become alike: after Xiao et al. 2022
  (SmoothQuant, arXiv 2211.10438), eq. 4 with α = 1/2, here into the layer before. A depthwise convolution with a scale
  for each channel takes any factor, so there α = 1.
- `without_inner_codes`: QDQ rounds between a convolution and its activation, in steps that span what a leaky ReLU takes
  away. A runtime that computes both as one needs no codes there.

Imports nothing of the package but its neighbours; onnx where used.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.quantize.onnx_protos import attributes, copied
from featherweight.quantize.ranges import Tensors

HOMOGENEOUS = ("LeakyRelu", "Relu", "MaxPool", "Pad")
ACTIVATIONS = ("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Sigmoid", "Tanh")
LEAST = 2.0**-12  # of a scale: 8 bits tell no less apart


def smoothed(model: Any, runs: Iterable[Tensors], per_channel: bool) -> tuple[Any, int]:
    """A copy of a model whose activations have channels of like ranges, and the number of activations.

    Args:
        model: onnx.ModelProto with constant weights; unchanged.
        runs: its activations by name, for each calibration picture.
        per_channel: weights will have a scale for each output channel.
    """
    import onnx

    model = copied(model)
    constants = {one.name: one for one in model.graph.initializer}
    pairs = list(_pairs(model.graph, constants))
    greatest = _greatest(runs, {second.input[0] for _, second in pairs})
    for first, second in pairs:
        before, after = (
            onnx.numpy_helper.to_array(constants[node.input[1]]).astype(np.float64) for node in (first, second)
        )
        channels = len(before)
        depthwise = after.shape[1] == 1 and attributes(second).get("group", 1) == channels
        by_input = after.reshape(channels, -1) if depthwise else after.swapaxes(0, 1)  # views
        weights = np.abs(by_input.reshape(channels, -1)).max(axis=1)
        if per_channel and depthwise and len(after) == channels:
            scale = _scales(greatest[second.input[0]], weights, 1.0)
        else:
            scale = _scales(greatest[second.input[0]], weights, 0.5)
        by_input *= scale.reshape(-1, *[1] * (by_input.ndim - 1))
        new = {first.input[1]: before / scale.reshape(-1, 1, 1, 1), second.input[1]: after}
        if len(first.input) > 2:
            new[first.input[2]] = onnx.numpy_helper.to_array(constants[first.input[2]]) / scale
        for name, values in new.items():
            constants[name].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return model, len(pairs)


def _scales(ranges: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Of each channel, at most 1; 1 for a channel that is 0 or that nothing looks at."""
    alive = (ranges > 0) & (weights > 0)
    scale = np.ones(len(ranges))
    scale[alive] = ranges[alive] ** share / weights[alive] ** (1 - share)
    scale[alive] /= scale[alive].max(initial=0.0)
    return np.maximum(scale, LEAST)


def _pairs(graph: Any, constants: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Convolutions that follow each other, and whose weights are theirs alone."""
    takers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def own(node: Any) -> bool:
        return all(name in constants and len(takers[name]) == 1 for name in node.input[1:])

    for first in graph.node:
        if first.op_type != "Conv" or not own(first):
            continue
        at = first
        while at.output[0] not in outputs and len(takers.get(at.output[0], ())) == 1:
            at = takers[at.output[0]][0]
            if at.op_type == "Conv":
                weights = constants.get(at.input[1])
                group = attributes(at).get("group", 1)
                channels = constants[first.input[1]].dims[0]
                if weights is not None and own(at) and group in (1, channels) and len(weights.dims) == 4:
                    yield first, at
                break
            if at.op_type not in HOMOGENEOUS or (at.op_type == "Pad" and not _with_zeros(at, constants)):
                break


def _with_zeros(node: Any, constants: dict[str, Any]) -> bool:
    import onnx

    if attributes(node).get("mode", b"constant") != b"constant":
        return False
    value = node.input[2] if len(node.input) > 2 else ""
    return not value or (value in constants and not onnx.numpy_helper.to_array(constants[value]).any())


def _greatest(runs: Iterable[Tensors], names: set[str]) -> dict[str, NDArray[np.float64]]:
    """The greatest magnitude of each channel (channels,) of tensors (n, channels, h, w)."""
    found: dict[str, NDArray[np.float64]] = {}
    for tensors in runs:
        for name in names:
            values = np.abs(tensors[name]).max(axis=(0, 2, 3)).astype(np.float64)
            found[name] = np.maximum(found.get(name, values), values)
    return found


def without_inner_codes(model: Any) -> int:
    """Take the codes between a convolution and its activation out of a QDQ model, in place; how many."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    users = Counter(name for node in graph.node for name in node.input)
    gone: set[str] = set()
    for node in graph.node:
        back = makers.get(node.input[0]) if node.op_type in ACTIVATIONS else None
        code = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        product = makers.get(code.input[0]) if code is not None else None
        if back is None or code is None or product is None or product.op_type != "Conv":
            continue
        if all(users[one.output[0]] == 1 for one in (product, code, back)):
            node.input[0] = product.output[0]
            gone |= {code.output[0], back.output[0]}
    left = [node for node in graph.node if not gone.intersection(node.output)]
    used = {name for node in left for name in node.input}
    constants = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(left)
    graph.initializer.extend(constants)
    return len(gone) // 2
