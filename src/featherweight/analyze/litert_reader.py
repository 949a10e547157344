"""`.tflite` file → `Graph`, by a small flatbuffer reader of our own that needs no library and runs nothing.

LiteRT's own loader crashes on some damaged files, so no interpreter is made. Every offset is held against the file's
end before it is followed, and all that is read together is held against the file's size: tables of a flatbuffer may
share their parts, so that a short file can describe an endless one.

Tensors are (n, h, w, c) in these files. Kernels are (out, kh, kw, in) and become (kh, kw, in, out).
Format: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs; a field's number in a
table is its place there. Imports errors and this folder.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from featherweight.analyze.graph import (
    MAX_FILE_BYTES,
    MAX_RANK,
    MAX_TENSOR_BYTES,
    UNKNOWN,
    Graph,
    Operator,
    Shape,
    Tensor,
    Weight,
    Window,
    convolution_kind,
    uniquely_named,
)
from featherweight.analyze.operators import WITH_CONSTANT
from featherweight.errors import ArtifactError

MAX_OPERATORS = 20_000
MAX_LIST = 200_000  # elements of any other list

TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16",
)  # fmt: skip

# The schema's number of an operator → (its name there, kind).
OPERATORS = {
    0: ("ADD", "add"), 1: ("AVERAGE_POOL_2D", "average_pool"), 2: ("CONCATENATION", "concatenate"),
    3: ("CONV_2D", "convolution"), 4: ("DEPTHWISE_CONV_2D", "depthwise"), 5: ("DEPTH_TO_SPACE", "depth_to_space"),
    6: ("DEQUANTIZE", "dequantize"), 8: ("FLOOR", "function"), 9: ("FULLY_CONNECTED", "dense"),
    11: ("L2_NORMALIZATION", "normalize"), 14: ("LOGISTIC", "sigmoid"), 17: ("MAX_POOL_2D", "max_pool"),
    18: ("MUL", "multiply"), 19: ("RELU", "relu"), 20: ("RELU_N1_TO_1", "clip"), 21: ("RELU6", "relu6"),
    22: ("RESHAPE", "reshape"), 23: ("RESIZE_BILINEAR", "resize_linear"), 25: ("SOFTMAX", "softmax"),
    26: ("SPACE_TO_DEPTH", "space_to_depth"), 28: ("TANH", "tanh"), 34: ("PAD", "pad"), 36: ("GATHER", "gather"),
    37: ("BATCH_TO_SPACE_ND", "transpose"), 38: ("SPACE_TO_BATCH_ND", "transpose"), 39: ("TRANSPOSE", "transpose"),
    40: ("MEAN", "reduce_mean"), 41: ("SUB", "subtract"), 42: ("DIV", "divide"), 43: ("SQUEEZE", "reshape"),
    45: ("STRIDED_SLICE", "slice"), 47: ("EXP", "function"), 49: ("SPLIT", "slice"), 50: ("LOG_SOFTMAX", "log_softmax"),
    53: ("CAST", "cast"),
    54: ("PRELU", "prelu"), 55: ("MAXIMUM", "maximum"), 57: ("MINIMUM", "minimum"), 59: ("NEG", "function"),
    60: ("PADV2", "pad"), 61: ("GREATER", "compare"), 65: ("SLICE", "slice"), 66: ("SIN", "function"),
    67: ("TRANSPOSE_CONV", "transposed_convolution"), 69: ("TILE", "repeat"), 70: ("EXPAND_DIMS", "reshape"),
    73: ("LOG", "function"), 74: ("SUM", "reduce"), 75: ("SQRT", "function"), 76: ("RSQRT", "function"),
    77: ("SHAPE", "shape"), 78: ("POW", "function"), 82: ("REDUCE_MAX", "reduce"), 83: ("PACK", "concatenate"),
    88: ("UNPACK", "slice"), 89: ("REDUCE_MIN", "reduce"), 92: ("SQUARE", "function"),
    97: ("RESIZE_NEAREST_NEIGHBOR", "resize_nearest"), 98: ("LEAKY_RELU", "leaky_relu"), 100: ("MIRROR_PAD", "pad"),
    101: ("ABS", "function"), 102: ("SPLIT_V", "slice"), 104: ("CEIL", "function"), 106: ("ADD_N", "add"),
    107: ("GATHER_ND", "gather"), 108: ("COS", "function"), 111: ("ELU", "elu"), 114: ("QUANTIZE", "quantize"),
    116: ("ROUND", "function"), 117: ("HARD_SWISH", "hard_silu"), 126: ("BATCH_MATMUL", "matmul"),
    130: ("BROADCAST_TO", "repeat"), 150: ("GELU", "gelu"), 152: ("RELU_0_TO_1", "clip"),
}  # fmt: skip
DEQUANTIZE, CUSTOM = 6, 32
# The schema's number of a fused activation → kind; 0 is none.
FUSED = {1: "relu", 2: "clip", 3: "relu6", 4: "tanh", 5: "clip"}


class _Damaged(Exception):
    """What is wrong, without the file's name."""


class _Bytes:
    """The file, read with bounds; what is read all in all is bounded too."""

    def __init__(self, data: bytes):
        self.data = data
        self._left = 8 * len(data) + 2**16

    def number(self, place: int, kind: str, size: int) -> int:
        """An integer at that place."""
        self._left -= size
        if place < 0 or place + size > len(self.data):
            raise _Damaged(f"an offset leads to {place}, and the file has {len(self.data)} bytes")
        if self._left < 0:
            raise _Damaged("its tables describe far more than the file holds")
        value: int = struct.unpack_from(kind, self.data, place)[0]
        return value

    def follow(self, place: int) -> int:
        """Where the offset at that place leads; always forward."""
        return place + self.number(place, "<I", 4)


@dataclass(frozen=True)
class _Table:
    """A table of the flatbuffer: fields found through its list of places."""

    data: _Bytes
    place: int

    def _field(self, number: int) -> int:
        """Where the field is; 0 if it is left out."""
        fields = self.place - self.data.number(self.place, "<i", 4)
        size = self.data.number(fields, "<H", 2)
        entry = 4 + 2 * number
        if entry + 2 > size:
            return 0
        offset = self.data.number(fields + entry, "<H", 2)
        return self.place + offset if offset else 0

    def integer(self, number: int, kind: str, size: int, default: int = 0) -> int:
        """A number of that type (of `struct`) and size."""
        place = self._field(number)
        return self.data.number(place, kind, size) if place else default

    def table(self, number: int) -> "_Table | None":
        """A table within."""
        place = self._field(number)
        return _Table(self.data, self.data.follow(place)) if place else None

    def _vector(self, number: int, size: int) -> tuple[int, int]:
        """(where the elements begin, how many there are), of elements of so many bytes."""
        place = self._field(number)
        if not place:
            return 0, 0
        start = self.data.follow(place)
        count = self.data.number(start, "<I", 4)
        if start + 4 + count * size > len(self.data.data):
            raise _Damaged(f"a list of {count:,} elements is longer than the file")
        return start + 4, count

    def _short_vector(self, number: int) -> tuple[int, int]:
        """Of elements of four bytes that all become objects, so that their number is held before."""
        start, count = self._vector(number, 4)
        if count > MAX_LIST:
            raise _Damaged(f"it has a list of {count:,} elements; at most {MAX_LIST:,} are read")
        return start, count

    def tables(self, number: int) -> "list[_Table]":
        """A list of tables."""
        start, count = self._short_vector(number)
        return [_Table(self.data, self.data.follow(start + 4 * each)) for each in range(count)]

    def integers(self, number: int) -> tuple[int, ...]:
        """A list of 32-bit integers."""
        start, count = self._short_vector(number)
        return tuple(self.data.number(start + 4 * each, "<i", 4) for each in range(count))

    def length(self, number: int) -> int:
        """How many bytes a list of bytes has."""
        return self._vector(number, 1)[1]

    def text(self, number: int) -> str:
        """A name; what is no UTF-8 in it is replaced."""
        start, count = self._vector(number, 1)
        self.data.number(start, "<B", 1)
        return self.data.data[start : start + min(count, 1000)].decode(errors="replace") if start else ""


def read_litert(path: str | Path) -> Graph:
    """The first subgraph of the file.

    Raises:
        ArtifactError: no LiteRT file, a damaged one, or one beyond the caps.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"{path} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    try:
        return _read(path.read_bytes(), path)
    except _Damaged as error:
        raise ArtifactError(f"{path} is damaged: {error}; export the model again") from error


def _read(data: bytes, path: Path) -> Graph:
    if data[4:8] != b"TFL3":
        raise _Damaged("it does not begin as a LiteRT file")
    source = _Bytes(data)
    model = _Table(source, source.follow(0))
    graphs = model.tables(2)
    if not graphs:
        raise _Damaged("it holds no graph")
    reader = _Reader(path, model, graphs[0])
    graph = reader.graph()
    notes = [] if len(graphs) == 1 else [f"{len(graphs) - 1} further subgraphs are not read"]
    return replace(graph, notes=(*graph.notes, *notes))


@dataclass
class _Reader:
    """One walk over a subgraph."""

    path: Path
    model: _Table
    subgraph: _Table
    tensors: list[Tensor] = field(default_factory=list)
    constant: list[bool] = field(default_factory=list)
    counted: set[int] = field(default_factory=set)
    operators: list[Operator] = field(default_factory=list)
    extra: dict[str, Tensor] = field(default_factory=dict)
    open_sizes: bool = False

    def graph(self) -> Graph:
        """Read everything."""
        self._read_tensors()
        codes = [self._code(code) for code in self.model.tables(1)]
        inputs, outputs = (self._places(self.subgraph.integers(number)) for number in (1, 2))
        made = set(inputs)
        operators = self.subgraph.tables(3)
        if not operators or not outputs:
            raise _Damaged("its graph has no operators or no outputs")
        if len(operators) > MAX_OPERATORS:
            raise _Damaged(f"it has {len(operators):,} operators; at most {MAX_OPERATORS:,} are read")
        for table in operators:
            made |= self._add(table, codes, made)
        named = {tensor.name: tensor for tensor in self.tensors}
        names = {name for operator in self.operators for name in (*operator.inputs, *operator.outputs)}
        names |= {self.tensors[place].name for place in (*inputs, *outputs)}
        tensors = {name: self.extra.get(name) or named[name] for name in sorted(names)}
        return Graph(
            name=self.path.parent.name if self.path.name == "model.tflite" else self.path.stem,
            format="litert",
            operators=uniquely_named(self.operators),
            tensors=tensors,
            inputs=tuple(self.tensors[place].name for place in inputs),
            outputs=tuple(self.tensors[place].name for place in outputs),
            path=str(self.path),
            file_bytes=len(self.model.data.data),
            notes=("sizes that the file leaves open are taken as 1",) if self.open_sizes else (),
        )

    def _read_tensors(self) -> None:
        held = [self._buffer_bytes(table) for table in self.model.tables(4)]
        for number, table in enumerate(self.subgraph.tables(0)):
            shape = table.integers(0)
            if len(shape) > MAX_RANK:
                raise _Damaged(f"tensor {number} has {len(shape)} axes")
            if any(size < 1 for size in shape):
                self.open_sizes = True
            code = table.integer(1, "<b", 1)
            dtype = TYPES[code] if 0 <= code < len(TYPES) else "other"
            # The number keeps names apart that a file gives twice.
            tensor = Tensor(f"{table.text(3)}#{number}", tuple(max(size, 1) for size in shape), dtype)
            if tensor.bytes > MAX_TENSOR_BYTES:
                raise _Damaged(f"tensor {number} would have the shape {list(shape)}")
            self.tensors.append(tensor)
            buffer = table.integer(2, "<I", 4)
            if buffer >= len(held):
                raise _Damaged(f"tensor {number} names buffer {buffer} of {len(held)}")
            # Texts and sparse tensors take what they take.
            if 0 < held[buffer] < tensor.bytes and dtype != "string" and table.table(6) is None:
                raise _Damaged(
                    f"tensor {number} of the shape {list(shape)} has {held[buffer]:,} bytes, wanted {tensor.bytes:,}"
                )
            self.constant.append(held[buffer] > 0)

    def _buffer_bytes(self, table: _Table) -> int:
        """How many bytes a buffer holds, in its list or, in large files, behind everything else."""
        offset, size = table.integer(1, "<Q", 8), table.integer(2, "<Q", 8)
        if offset > 1 and offset + size > len(self.model.data.data):
            raise _Damaged(f"a buffer ends at byte {offset + size:,}")
        return size if offset > 1 else table.length(0)

    def _code(self, table: _Table) -> tuple[int, str]:
        """(number, name) of an operator's type: older files keep it in one byte."""
        number = max(table.integer(3, "<i", 4), table.integer(0, "<b", 1))
        if number == CUSTOM:
            return number, f"custom {table.text(1)[:80]}"
        return number, OPERATORS[number][0] if number in OPERATORS else f"builtin operator {number}"

    def _places(self, places: tuple[int, ...]) -> list[int]:
        """Numbers of tensors, checked; -1 stands for one that is left out."""
        for place in places:
            if not -1 <= place < len(self.tensors):
                raise _Damaged(f"an operator names tensor {place} of {len(self.tensors)}")
        return [place for place in places if place >= 0]

    def _add(self, table: _Table, codes: list[tuple[int, str]], made: set[int]) -> set[int]:
        """Read one operator; returns the tensors that it makes."""
        index = table.integer(0, "<I", 4)
        if index >= len(codes):
            raise _Damaged(f"an operator is of type {index} of {len(codes)}")
        number, origin = codes[index]
        inputs, outputs = self._places(table.integers(1)), self._places(table.integers(2))
        if not outputs:
            raise _Damaged(f"{origin} gives nothing")
        twice = [place for number, place in enumerate(outputs) if place in made or place in outputs[:number]]
        if twice:
            raise _Damaged(f"{origin} makes tensor {twice[0]}, which is there already")
        absent = [place for place in inputs if place not in made and not self.constant[place]]
        if absent and number in OPERATORS:
            raise _Damaged(f"{origin} reads tensor {absent[0]}, which nothing made before it")
        if inputs and all(self.constant[place] and place not in made for place in inputs):
            self._add_constant(number, inputs[0], outputs)
            return set()
        if number in OPERATORS and not inputs:
            raise _Damaged(f"{origin} reads nothing")
        operator = Operator(
            name=self.tensors[outputs[0]].name.rpartition("#")[0] or f"{origin} {len(self.operators)}",
            kind=OPERATORS[number][1] if number in OPERATORS else UNKNOWN,
            layer="",
            inputs=tuple(self.tensors[place].name for place in inputs if place in made),
            outputs=tuple(self.tensors[place].name for place in outputs),
            origin=origin,
        )
        constants = [place for place in inputs if self.constant[place] and place not in made]
        self._finish(operator, inputs, constants, table.table(4))
        return set(outputs)

    def _add_constant(self, number: int, source: int, outputs: list[int]) -> None:
        """What is made of constants alone is a constant; float16 files hold their weights behind such an operator."""
        for place in outputs:
            self.constant[place] = True
            if number == DEQUANTIZE:
                self.tensors[place] = replace(self.tensors[place], dtype=self.tensors[source].dtype)

    def _finish(self, operator: Operator, inputs: list[int], constants: list[int], options: _Table | None) -> None:
        """Weights, window and fused activation, by kind."""
        kind, window, fused = operator.kind, None, 0
        weights: tuple[Weight, ...] = ()
        if kind in READERS and options is not None:
            kind, weights, window, fused = READERS[kind](self, inputs, options)
        elif kind in WITH_CONSTANT and constants:
            kind, weights = WITH_CONSTANT[kind], self._channel_weight(constants[0], WITH_CONSTANT[kind])
        elif kind == "matmul" and constants:
            weights = self._constant_factor(inputs, constants[0], options)
        elif kind in (UNKNOWN, "prelu", "gather"):
            weights = self._weights([(place, "weight", None) for place in constants])
        elif kind == "reduce_mean" and self._is_global(operator):
            kind = "global_average_pool"
        if kind in WITH_FUSED and options is not None:
            fused = options.integer(WITH_FUSED[kind], "<b", 1)
        self._append(operator, kind, weights, window, FUSED.get(fused))

    def _constant_factor(self, inputs: list[int], place: int, options: _Table | None) -> tuple[Weight, ...]:
        """BatchMatMulOptions: adj_x, adj_y. A factor as (…, shared, other)."""
        shape, is_left = self.tensors[place].shape, inputs[0] == place
        turned = options is not None and options.integer(0 if is_left else 1, "<b", 1) != 0
        swapped = len(shape) > 1 and is_left != turned
        return self._weights([(place, "kernel", (*shape[:-2], *shape[:-3:-1]) if swapped else shape)])

    def _append(
        self, operator: Operator, kind: str, weights: tuple[Weight, ...], window: Window | None, fused: str | None
    ) -> None:
        """The operator, and its fused activation as one of its own."""
        name = operator.name.split(";")[0]
        layer = _layer_name(name)
        outputs = operator.outputs
        if fused is not None:
            whole = self.tensors[int(outputs[0].rpartition("#")[2])]
            between = Tensor(f"{outputs[0]}/linear", whole.shape, whole.dtype)
            self.extra[between.name] = between
            outputs = (between.name, *outputs[1:])
        first = Operator(name, kind, layer, operator.inputs, outputs, weights, window, operator.origin)
        self.operators.append(first)
        if fused is not None:
            ends = operator.outputs[:1]
            self.operators.append(Operator(f"{name}/{fused}", fused, layer, outputs[:1], ends, origin=operator.origin))

    def _is_global(self, operator: Operator) -> bool:
        """Whether a mean is taken over all places of a picture."""
        before = self._shape(operator.inputs[0]) if operator.inputs else ()
        after = self._shape(operator.outputs[0])
        return len(before) == 4 and math.prod(after) == before[0] * before[3]

    def _shape(self, name: str) -> Shape:
        return self.tensors[int(name.rpartition("#")[2])].shape

    def _weights(self, chosen: list[tuple[int, str, Shape | None]]) -> tuple[Weight, ...]:
        """Constants as weights, each counted once."""
        found = []
        for place, role, shape in chosen:
            tensor = self.tensors[place]
            shared = place in self.counted
            self.counted.add(place)
            held = "shared" if shared else "own"
            found.append(Weight(role, tensor.shape if shape is None else shape, tensor.dtype, None, held))  # type: ignore[arg-type]
        return tuple(found)

    def _channel_weight(self, place: int, role: str) -> tuple[Weight, ...]:
        """One number for all elements belongs to the operator; one a channel is a weight."""
        elements = self.tensors[place].elements
        return self._weights([(place, role, (elements,))]) if elements > 1 else ()


# kind → the number of the field that holds its fused activation
WITH_FUSED = {"add": 0, "subtract": 0, "multiply": 0, "divide": 0, "shift": 0, "scale": 0, "concatenate": 1}

Read = tuple[str, tuple[Weight, ...], Window | None, int]


def _convolution(reader: _Reader, inputs: list[int], options: _Table) -> Read:
    """Conv2DOptions: padding, stride_w, stride_h, activation, dilation_w, dilation_h. Kernel (out, kh, kw, in)."""
    out, high, wide, each = _kernel(reader, inputs, 4)
    channels = _channels(reader, inputs)
    if channels % each:
        raise _Damaged(f"a convolution of {channels} channels has a kernel for {each}")
    window = _window(options, (high, wide), channels // each, (1, 2), (4, 5))
    weights = _kernel_and_bias(reader, inputs, (high, wide, each, out))
    return convolution_kind(channels, channels // each), weights, window, options.integer(3, "<b", 1)


def _depthwise(reader: _Reader, inputs: list[int], options: _Table) -> Read:
    """DepthwiseConv2DOptions: padding, stride_w, stride_h, multiplier, activation, dilation_w, dilation_h."""
    _, high, wide, out = _kernel(reader, inputs, 4)
    channels = _channels(reader, inputs)
    window = _window(options, (high, wide), channels, (1, 2), (5, 6))
    weights = _kernel_and_bias(reader, inputs, (high, wide, 1, out))
    return convolution_kind(channels, channels), weights, window, options.integer(4, "<b", 1)


def _dense(reader: _Reader, inputs: list[int], options: _Table) -> Read:
    """FullyConnectedOptions: activation. Kernel (out, in)."""
    if len(inputs) < 2:
        raise _Damaged("a dense layer has no kernel")
    if not reader.constant[inputs[1]]:
        return "matmul", (), None, options.integer(0, "<b", 1)
    out, each = _kernel(reader, inputs, 2)
    return "dense", _kernel_and_bias(reader, inputs, (each, out)), None, options.integer(0, "<b", 1)


def _transposed(reader: _Reader, inputs: list[int], options: _Table) -> Read:
    """TransposeConvOptions: padding, stride_w, stride_h, activation. Inputs: output shape, kernel, picture, bias."""
    out, high, wide, each = _kernel(reader, inputs, 4)
    window = _window(options, (high, wide), 1, (1, 2), None)
    chosen: list[tuple[int, str, Shape | None]] = [(inputs[1], "kernel", (high, wide, each, out))]
    chosen += [(place, "bias", None) for place in inputs[3:4]]
    return "transposed_convolution", reader._weights(chosen), window, options.integer(3, "<b", 1)


def _pool(kind: str) -> Callable[[_Reader, list[int], _Table], Read]:
    """Pool2DOptions: padding, stride_w, stride_h, filter_width, filter_height, activation."""

    def read(reader: _Reader, inputs: list[int], options: _Table) -> Read:
        wide, high = (max(options.integer(number, "<i", 4), 1) for number in (3, 4))
        return kind, (), _window(options, (high, wide), 1, (1, 2), None), options.integer(5, "<b", 1)

    return read


def _kernel(reader: _Reader, inputs: list[int], rank: int) -> Shape:
    if len(inputs) < 2:
        raise _Damaged("a convolution has no kernel")
    shape = reader.tensors[inputs[1]].shape
    if len(shape) != rank:
        raise _Damaged(f"a kernel has the shape {list(shape)}; wanted {rank} axes")
    return shape


def _channels(reader: _Reader, inputs: list[int]) -> int:
    shape = reader.tensors[inputs[0]].shape
    if len(shape) != 4:
        raise _Damaged(f"a convolution reads the shape {list(shape)}; wanted 4 axes")
    return shape[-1]


def _kernel_and_bias(reader: _Reader, inputs: list[int], kernel: Shape) -> tuple[Weight, ...]:
    chosen: list[tuple[int, str, Shape | None]] = [(inputs[1], "kernel", kernel)]
    chosen += [(place, "bias", None) for place in inputs[2:3]]
    return reader._weights(chosen)


def _window(
    options: _Table, kernel: Shape, groups: int, strides: tuple[int, int], dilations: tuple[int, int] | None
) -> Window:
    """Files name the width before the height."""

    def pair(places: tuple[int, int] | None) -> Shape:
        if places is None:
            return (1, 1)
        wide, high = (max(options.integer(place, "<i", 4, 1), 1) for place in places)
        return (high, wide)

    return Window(kernel, pair(strides), pair(dilations), groups)


READERS: dict[str, Callable[[_Reader, list[int], _Table], Read]] = {
    "convolution": _convolution, "depthwise": _depthwise, "dense": _dense, "transposed_convolution": _transposed,
    "max_pool": _pool("max_pool"), "average_pool": _pool("average_pool"),
}  # fmt: skip

# What converters append to a layer's name.
TAILS = {
    "batchnorm", "convolution", "depthwise", "BiasAdd", "MatMul", "Relu", "Relu6", "add_1", "mul_1", "Conv2D", "add",
    "mul", "Mean", "Softmax", "Add", "Mul", "FusedBatchNormV3",
}  # fmt: skip


def _layer_name(path: str) -> str:
    """`model/conv_dw_1_bn/batchnorm/add_1` → `conv_dw_1_bn`."""
    parts = [part for part in path.split("/") if part]
    inside = [part for part in parts if part not in TAILS]
    return (inside or parts or ["?"])[-1]
