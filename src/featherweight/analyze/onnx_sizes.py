"""Arithmetic on sizes inside an ONNX graph, done ahead, so that shapes behind it can be inferred.

PyTorch's exporter writes `x.chunk(2)` or `x.view(n, -1)` as Shape, Gather, Div, Concat and the like on integers. ONNX's
own inference follows part of that. Here every operator of `RULES` whose inputs are known integers, few of them, is
computed and becomes a constant; then shapes are inferred anew, until nothing new is found.

Imports nothing of the package; onnx where it is used.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ROUNDS = 40
MAX_ELEMENTS = 64

Integers = NDArray[np.int64]
Rule = Callable[[Any, list[Integers]], Integers]


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _axes(node: Any, inputs: list[Integers]) -> tuple[int, ...]:
    """Axes come as an attribute in old files, as an input in new ones."""
    if len(inputs) > 1:
        return tuple(int(axis) for axis in inputs[1].reshape(-1))
    return next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "axes"), (0,))


def _divide(node: Any, inputs: list[Integers]) -> Integers:
    """Integer division cuts towards zero."""
    if not np.all(inputs[1]):
        raise ZeroDivisionError
    return np.trunc(inputs[0] / inputs[1]).astype(np.int64)


def _slice(node: Any, inputs: list[Integers]) -> Integers:
    data, starts, ends, *rest = inputs
    step = int(rest[1].reshape(-1)[0]) if len(rest) > 1 else 1
    return data[int(starts.reshape(-1)[0]) : int(ends.reshape(-1)[0]) : step]


RULES: dict[str, Rule] = {
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Div": _divide,
    "Identity": lambda node, inputs: inputs[0],
    "Cast": lambda node, inputs: inputs[0],
    "Floor": lambda node, inputs: inputs[0],
    "Gather": lambda node, inputs: np.take(inputs[0], inputs[1], axis=_attribute(node, "axis", 0)),
    "Concat": lambda node, inputs: np.concatenate(inputs, axis=_attribute(node, "axis", 0)),
    "Unsqueeze": lambda node, inputs: np.expand_dims(inputs[0], _axes(node, inputs)),
    "Squeeze": lambda node, inputs: np.squeeze(inputs[0]),
    "Slice": _slice,
}
# What the rules raise on inputs that do not fit together: then the operator is left as it is.
FAILURES = (ValueError, IndexError, ZeroDivisionError, OverflowError, TypeError)


def computed(graph: Any, shapes: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, Integers]:
    """Tensor → its numbers, for all that follows from constants and from shapes that are known."""
    known = {tensor.name: values for tensor in graph.initializer if (values := _values(tensor)) is not None}
    found: dict[str, Integers] = {}
    with np.errstate(all="ignore"):
        for node in graph.node:
            values = _result(node, known, shapes)
            if values is not None and values.size <= MAX_ELEMENTS:
                known[node.output[0]] = values
                if node.op_type != "Constant":
                    found[node.output[0]] = values
    return found


def _result(node: Any, known: dict[str, Integers], shapes: dict[str, tuple[tuple[int, ...], str]]) -> Integers | None:
    if len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Constant":
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        return None if tensor is None else _values(tensor)
    if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
        return np.array(shapes[node.input[0]][0], np.int64)
    names = [name for name in node.input if name]
    if node.op_type not in RULES or not names or any(name not in known for name in names):
        return None
    try:
        return np.asarray(RULES[node.op_type](node, [known[name] for name in names]), np.int64)
    except FAILURES:
        return None


def _values(tensor: Any) -> Integers | None:
    """A constant's integers; `None` for other types and for many."""
    import onnx

    if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) or tensor.external_data:
        return None
    if len(tensor.dims) > 2 or any(not 0 <= size <= MAX_ELEMENTS for size in tensor.dims):
        return None
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor), np.int64)
    except Exception:  # a payload that is shorter than its shape: the reader says so where it needs the numbers
        return None


def replace_computed(graph: Any, values: dict[str, Integers]) -> None:
    """Put constants in place of the operators that were computed."""
    import onnx

    kept = [node for node in graph.node if not (node.output and node.output[0] in values)]
    del graph.node[:]
    graph.node.extend(kept)
    for name, numbers in values.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(numbers), name))
