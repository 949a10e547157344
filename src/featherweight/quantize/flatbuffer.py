"""A `.tflite` file as objects that may be changed, and back: tables of tensors, operators and buffers.

Imports nothing of the package; ai_edge_litert where used.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The axis of output channels of each operator's weights.
WEIGHTS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}


def schema() -> Any:
    """The module of the format's classes and numbers."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def read_model(data: bytes) -> Any:
    """The file as objects that may be changed."""
    return schema().ModelT.InitFromPackedBuf(bytearray(data))


def written(model: Any) -> bytes:
    """The file, without the buffers that nothing refers to any more."""
    owners = [*model.subgraphs[0].tensors, *(model.metadata or ())]
    kept = sorted({0, *(int(owner.buffer) for owner in owners)})  # the first is the empty one
    places = {old: new for new, old in enumerate(kept)}
    for owner in owners:
        owner.buffer = places[int(owner.buffer)]
    model.buffers = [model.buffers[old] for old in kept]
    builder = schema().flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def text(tensor: Any) -> str:
    """A tensor's name, by which the operator that makes it is known too."""
    return str(tensor.name.decode())


def kind_of(model: Any, operator: Any) -> str:
    """The operator's name in the format."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(str(name) for name, value in vars(schema().BuiltinOperator).items() if value == number)


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether its values are in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def float_operators(model: Any) -> list[tuple[str, str]]:
    """(name, kind) of the operators that compute in float."""
    graph, found = model.subgraphs[0], []
    for operator in graph.operators:
        kind, tensor = kind_of(model, operator), graph.tensors[int(operator.outputs[0])]
        if tensor.type == schema().TensorType.FLOAT32 and kind != "DEQUANTIZE":
            found.append((text(tensor), kind))
    return found


def weighted(model: Any, skip: Collection[str]) -> list[tuple[str, str, int]]:
    """(name, kind, tensor) of the operators with float weights, and these weights, each tensor once; without those that
    are also the weights of an operator in `skip`.
    """
    graph = model.subgraphs[0]
    found: dict[int, tuple[str, str, int]] = {}
    kept: set[int] = set()
    for operator in graph.operators:
        kind, name = kind_of(model, operator), text(graph.tensors[int(operator.outputs[0])])
        if kind in WEIGHTS:
            place = int(operator.inputs[1])
            weights = graph.tensors[place]
            if weights.type == schema().TensorType.FLOAT32 and is_constant(model, weights):
                found.setdefault(place, (name, kind, place))
                kept |= {place} if name in skip else set()
    return [one for place, one in found.items() if place not in kept]


def int8_weights(model: Any) -> dict[str, NDArray[np.float32]]:
    """What the int8 weights of convolutions and dense layers stand for, by the operators' names."""
    graph = model.subgraphs[0]
    found = {}
    for operator in graph.operators:
        kind = kind_of(model, operator)
        if kind in WEIGHTS:
            weights = graph.tensors[int(operator.inputs[1])]
            if weights.type == schema().TensorType.INT8 and is_constant(model, weights):
                codes = np.frombuffer(bytes(model.buffers[weights.buffer].data), np.int8).reshape(weights.shape)
                scale = np.asarray(weights.quantization.scale, np.float32)
                shape = [-1 if axis == WEIGHTS[kind] else 1 for axis in range(codes.ndim)] if scale.size > 1 else [-1]
                found[text(graph.tensors[int(operator.outputs[0])])] = codes * scale.reshape(shape)
    return found


def array_of(model: Any, place: int) -> NDArray[np.float32]:
    """The values of a float constant."""
    tensor = model.subgraphs[0].tensors[place]
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def set_data(model: Any, place: int, kind: int, values: NDArray[Any]) -> None:
    """Put other values, of this type, in place of a constant: into a new buffer, as tensors may share the old one."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = model.subgraphs[0].tensors[place]
    tensor.type, tensor.buffer = kind, len(model.buffers) - 1


def set_codes(model: Any, place: int, values: NDArray[np.int8], scales: NDArray[Any], axis: int) -> None:
    """Put int8 codes in place of a constant, with the scales that make numbers of them again, along an axis."""
    names = schema()
    set_data(model, place, names.TensorType.INT8, values)
    parameters = names.QuantizationParametersT()
    parameters.scale = [float(scale) for scale in scales.ravel()]
    parameters.zeroPoint = [0] * scales.size
    parameters.quantizedDimension = axis if scales.size > 1 else 0
    model.subgraphs[0].tensors[place].quantization = parameters


def set_float16(model: Any, place: int) -> int:
    """Store a constant in 16 bits; the number of a new tensor for its float32 values."""
    graph, names = model.subgraphs[0], schema()
    old, values = graph.tensors[place], array_of(model, place)
    real = names.TensorT()
    real.name, real.shape, real.type = old.name, old.shape, names.TensorType.FLOAT32
    old.name = old.name + b"_float16"
    set_data(model, place, names.TensorType.FLOAT16, values.astype(np.float16))
    graph.tensors.append(real)
    return len(graph.tensors) - 1


def operator_code(model: Any, builtin: int) -> int:
    """The place of an operator in the file's table, where it is put if it is new."""
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return place
    code = schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, builtin, 3  # the first that takes float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
