"""`.onnx` file → `Graph`, with the `onnx` package alone: no Keras, no runtime, no weight is read beyond its shape.

`onnx_file` opens the file and holds the caps; here its nodes become operators.

ONNX keeps pictures as (n, c, h, w). Which tensors those are follows from the operators that take and give pictures;
they are written (n, h, w, c) here. Quantized files keep a pair of operators around each tensor; a pair is what its
tensor is stored as, not a computation of its own, as runtimes compute in integers there.

Imports errors and this folder; onnx where it is used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from featherweight.analyze.graph import (
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
from featherweight.analyze.onnx_file import SMALL_ELEMENTS, all_tensors, dtype_name, graphs_within, one_line, open_onnx
from featherweight.analyze.onnx_names import channels_last, layer_names
from featherweight.analyze.operators import WITH_CONSTANT
from featherweight.errors import ArtifactError

MAX_SIDE = 2**20  # of a window

# ONNX's type → kind, where shapes say all.
SIMPLE = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "PRelu": "prelu", "Elu": "elu", "Celu": "celu", "Selu": "selu",
    "Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid", "HardSwish": "hard_silu", "Swish": "silu", "Tanh": "tanh",
    "Gelu": "gelu",
    "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish", "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Exp": "function", "Log": "function", "Sqrt": "function", "Erf": "function", "Abs": "function",
    "Neg": "function", "Reciprocal": "function", "Pow": "function", "Floor": "function", "Ceil": "function",
    "Round": "function", "Sin": "function", "Cos": "function", "Sign": "function",
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Max": "maximum", "Min": "minimum",
    "Sum": "add", "Mean": "average", "Equal": "compare", "Greater": "compare", "Less": "compare",
    "GreaterOrEqual": "compare", "LessOrEqual": "compare", "Where": "compare", "And": "compare", "Not": "compare",
    "Or": "compare",
    "GlobalAveragePool": "global_average_pool", "GlobalMaxPool": "global_max_pool", "ReduceMean": "reduce_mean",
    "ReduceSum": "reduce", "ReduceMax": "reduce", "ReduceMin": "reduce", "ReduceProd": "reduce",
    "LayerNormalization": "layer_norm", "GroupNormalization": "layer_norm", "InstanceNormalization": "layer_norm",
    "LpNormalization": "normalize",
    "Pad": "pad", "Slice": "slice", "Split": "slice", "Concat": "concatenate", "Transpose": "transpose",
    "Expand": "repeat", "Tile": "repeat", "Gather": "gather", "GatherND": "gather", "GatherElements": "gather",
    "SpaceToDepth": "space_to_depth", "DepthToSpace": "depth_to_space", "Cast": "cast",
    "Reshape": "reshape", "Flatten": "reshape", "Squeeze": "reshape", "Unsqueeze": "reshape",
    "Identity": "identity", "Dropout": "identity",
    "Shape": "shape", "Size": "shape", "Range": "shape", "ConstantOfShape": "constant",
    "QuantizeLinear": "quantize", "DequantizeLinear": "dequantize", "GridSample": "affine_sampler",
}  # fmt: skip
# How many inputs these have at least.
NEEDS = {
    **dict.fromkeys(SIMPLE, 1), "Conv": 2, "ConvTranspose": 2, "QLinearConv": 8, "FusedConv": 2, "Gemm": 2, "MatMul": 2,
    "BatchNormalization": 5, "MaxPool": 1, "AveragePool": 1, "Clip": 1, "Resize": 1, "Upsample": 1, "Range": 3,
    "Add": 2, "Sub": 2, "Mul": 2, "Div": 2, "PRelu": 2,
}  # fmt: skip


def read_onnx(path: str | Path, input_size: tuple[int, int] | None = None) -> Graph:
    """The file as a graph of batch 1.

    Args:
        path: the `.onnx` file.
        input_size: (height, width) for a file that leaves them open.

    Raises:
        ArtifactError: no ONNX file, a damaged one, one beyond the caps, or one with its weights in other files.
        SettingError: the file leaves a size open that was not given, or says another than was given.
    """
    path = Path(path)
    opened = open_onnx(path, input_size)
    return _Reader(opened.model, path, dict(opened.shapes), list(opened.notes), opened.sizes).graph()


# ------------------------------------------------------------------------------------------ nodes → operators


@dataclass(frozen=True)
class _Constant:
    """A tensor of the file: shape, dtype, and its numbers where they are few."""

    name: str
    shape: Shape
    dtype: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass
class _Reader:
    """One walk over the nodes."""

    model: Any
    path: Path
    shapes: dict[str, tuple[Shape, str]]
    notes: list[str]
    sizes: dict[str, Shape]
    constants: dict[str, _Constant] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=dict)  # constants of few numbers, as the file has them
    counted: set[str] = field(default_factory=set)
    operators: list[Operator] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)  # the tensor that stands for another

    def graph(self) -> Graph:
        """Read everything."""
        for tensor in self.model.graph.initializer:
            self._add_constant(tensor.name, tensor)
        weights = set(self.constants)
        self.constants.update((name, _Constant(name, shape, "int64")) for name, shape in self.sizes.items())
        names = layer_names(self.model.graph)
        for place, node in enumerate(self.model.graph.node):
            self._add(node, names[place])
        inputs = [value.name for value in self.model.graph.input if value.name not in weights]
        outputs = tuple(self._real(value.name) for value in self.model.graph.output)
        self._drop_dead(outputs)
        tensors = self._tensors(inputs)
        return Graph(
            name=self.path.parent.name if self.path.name == "model.onnx" else self.path.stem,
            format="onnx",
            operators=uniquely_named(self.operators),
            tensors=channels_last(self.operators, tensors),
            inputs=tuple(inputs),
            outputs=outputs,
            path=str(self.path),
            file_bytes=self.path.stat().st_size,
            notes=tuple(self.notes),
        )

    def _add_constant(self, name: str, tensor: Any) -> None:
        shape = tuple(int(size) for size in tensor.dims)
        self.constants[name] = _Constant(name, shape, dtype_name(tensor.data_type))
        if math.prod(shape) <= SMALL_ELEMENTS:
            self.small[name] = tensor

    def _real(self, name: str) -> str:
        """The tensor that is meant, without quantization around it."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def _add(self, node: Any, layer: str) -> None:
        if node.op_type == "Constant":
            self._constant_node(node)
            return
        if node.output[0] in self.sizes or self._is_quantization(node) or self._is_constant_work(node):
            return
        if len(node.input) < NEEDS.get(node.op_type, 0) and node.domain in ("", "ai.onnx"):
            raise ArtifactError(f"{self.path} is damaged: {node.op_type} {node.name!r} has {len(node.input)} inputs")
        inputs = [self._real(name) for name in node.input]
        kind, weights, window = self._read_node(node, inputs)
        captured = self._captured(node)
        weights += self._weights_within(node) + self._all_weights(captured)
        inputs += [name for name in captured if name not in inputs]
        used = {weight for weight in inputs if weight in self.constants}
        fresh = [weight for weight in weights if weight is not None]
        output = [self._real(name) for name in node.output if name]
        self.operators.append(
            Operator(
                name=node.name or output[0],
                kind=kind,
                layer=layer,
                inputs=tuple(name for name in inputs if name and name not in used),
                outputs=tuple(output[:1] if kind in ("identity", "batch_norm", "max_pool") else output),
                weights=tuple(fresh),
                window=window,
                origin=node.op_type if not node.domain else f"{node.domain}.{node.op_type}",
            )
        )

    def _constant_node(self, node: Any) -> None:
        for attribute in node.attribute:
            if attribute.name == "value":
                self._add_constant(node.output[0], attribute.t)
            else:
                length = len(attribute.ints) or len(attribute.floats)
                shape = (length,) if attribute.name.endswith("s") else ()
                self.constants[node.output[0]] = _Constant(node.output[0], shape, "int64")

    def _is_quantization(self, node: Any) -> bool:
        """Quantization around a tensor says how it is stored; the pair is no computation."""
        if node.op_type == "DequantizeLinear":
            source = self._real(node.input[0])
            if source in self.constants:
                held = self.constants[source]
                self.constants[node.output[0]] = replace(held, name=source)
            else:
                self.alias[node.output[0]] = source
            return True
        if node.op_type == "QuantizeLinear" and self._real(node.input[0]) not in self.constants:
            source = self._real(node.input[0])
            dtype = "uint8"
            if len(node.input) > 2 and node.input[2] in self.constants:
                dtype = self.constants[node.input[2]].dtype
            if source in self.shapes and source not in {value.name for value in self.model.graph.input}:
                self.shapes[source] = (self.shapes[source][0], dtype)
            self.alias[node.output[0]] = source
            return True
        return False

    def _is_constant_work(self, node: Any) -> bool:
        """What is computed from constants alone is a constant."""
        names = [self._real(name) for name in node.input if name]
        if any(graphs_within(attribute) for attribute in node.attribute):
            return False
        if not names or any(name not in self.constants for name in names) or len(node.output) != 1:
            return False
        known = self.shapes.get(node.output[0])
        first = self.constants[names[0]]
        shape, dtype = known if known is not None else (first.shape, first.dtype)
        # A moved weight is the same weight; counted under its own name, once.
        moved = node.op_type in ("Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze")
        self.constants[node.output[0]] = _Constant(first.name if moved else node.output[0], shape, dtype)
        return True

    # ------------------------------------------------------------------------------------------ one node

    def _read_node(self, node: Any, inputs: list[str]) -> tuple[str, list[Weight | None], Window | None]:
        """(kind, weights, window)."""
        if node.domain not in ("", "ai.onnx", "com.microsoft"):
            return UNKNOWN, self._all_weights(inputs), None
        if node.op_type in NODES:
            return NODES[node.op_type](self, node, inputs)
        kind = SIMPLE.get(node.op_type, UNKNOWN)
        if kind in WITH_CONSTANT and any(name in self.constants for name in inputs):
            constant = next(name for name in inputs if name in self.constants)
            kind = WITH_CONSTANT[kind]
            return kind, [self._channel_weight(constant, kind, node.output[0])], None
        if kind in (UNKNOWN, "layer_norm", "prelu", "gather"):
            return kind, self._all_weights(inputs), None
        return kind, [], None

    def _captured(self, node: Any) -> list[str]:
        """What the graphs within an If or a Loop read of this one."""
        names = [name for attribute in node.attribute for graph in graphs_within(attribute) for name in _free(graph)]
        real = dict.fromkeys(self._real(name) for name in names)
        return [name for name in real if name in self.constants or name in self.shapes]

    def _weights_within(self, node: Any) -> list[Weight | None]:
        """What the graphs within an If or a Loop bring along themselves."""
        graphs = [graph for attribute in node.attribute for graph in graphs_within(attribute)]
        found: list[Weight | None] = []
        for tensor in (tensor for graph in graphs for tensor in all_tensors(graph)):
            shape, dtype = tuple(int(size) for size in tensor.dims), dtype_name(tensor.data_type)
            found += [Weight("weight", shape, dtype)] if math.prod(shape) > 1 and "float" in dtype else []
        return found

    def weight(self, name: str, role: str, shape: Shape | None = None) -> Weight | None:
        """A constant as a weight; `None` where it is absent."""
        if name not in self.constants:
            return None
        constant = self.constants[name]
        held: Any = "shared" if constant.name in self.counted else "own"
        self.counted.add(constant.name)
        return Weight(role, constant.shape if shape is None else shape, constant.dtype, None, held)

    def _channel_weight(self, name: str, role: str, output: str) -> Weight | None:
        """One number for all elements belongs to the operator; one a channel is a weight."""
        constant = self.constants[name]
        alone = self._one_channel(output)
        return self.weight(name, role, (constant.elements,)) if constant.elements > 1 or alone else None

    def _one_channel(self, output: str) -> bool:
        """Whether a single constant may be one a channel: after a convolution that gives one channel."""
        made = self.operators[-1] if self.operators else None
        return made is not None and made.window is not None and self.shapes.get(output, ((), ""))[0][1:2] == (1,)

    def _all_weights(self, inputs: list[str]) -> list[Weight | None]:
        return [self.weight(name, "weight") for name in inputs if name in self.constants and self._is_float(name)]

    def _is_float(self, name: str) -> bool:
        constant = self.constants[name]
        return constant.elements > 1 and "float" in constant.dtype

    def shape_of(self, name: str) -> Shape:
        """A tensor's shape.

        Raises:
            ArtifactError: it cannot be told.
        """
        if name in self.constants:
            return self.constants[name].shape
        if name not in self.shapes:
            raise ArtifactError(
                f"{self.path}: the shape of {name!r} does not follow from the input's; "
                "export the model with fixed sizes"
            )
        return self.shapes[name][0]

    def _drop_dead(self, outputs: tuple[str, ...]) -> None:
        """Leave out arithmetic on sizes that only constants were made of, and all that reaches no output."""
        needed = set(outputs)
        kept = []
        for operator in reversed(self.operators):
            if any(name in needed for name in operator.outputs):
                needed.update(operator.inputs)
                kept.append(operator)
        dropped = len(self.operators) - len(kept)
        if dropped:
            self.notes.append(f"{dropped} operators that reach no output are left out")
        self.operators = kept[::-1]

    def _tensors(self, inputs: list[str]) -> dict[str, Tensor]:
        names = [*inputs, *(name for operator in self.operators for name in (*operator.inputs, *operator.outputs))]
        tensors = {}
        for name in names:
            shape = self.shape_of(name)
            dtype = self.shapes[name][1] if name in self.shapes else "float32"
            tensors[name] = Tensor(name, shape, dtype)
        return tensors


def _free(graph: Any) -> list[str]:
    """The names that a graph within another reads and does not make."""
    known = {value.name for value in (*graph.input, *graph.initializer)}
    found = []
    for node in graph.node:
        inner = [name for attribute in node.attribute for each in graphs_within(attribute) for name in _free(each)]
        found += [name for name in (*node.input, *inner) if name and name not in known]
        known.update(node.output)
    return [*found, *(value.name for value in graph.output if value.name not in known)]


Node = tuple[str, list[Weight | None], Window | None]


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: attribute for attribute in node.attribute}


def _ints(node: Any, name: str, default: Shape) -> Shape:
    attribute = _attributes(node).get(name)
    return tuple(int(value) for value in attribute.ints) if attribute is not None and attribute.ints else default


def _int(node: Any, name: str, default: int) -> int:
    attribute = _attributes(node).get(name)
    return int(attribute.i) if attribute is not None else default


def _convolution(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    """Kernel (out, in / groups, …) → (…, in / groups, out)."""
    kernel, bias = (1, 2) if node.op_type != "QLinearConv" else (3, 8)
    out, each, *size = _kernel_shape(reader, node, inputs, kernel)
    groups = _int(node, "group", 1)
    if groups < 1 or out % groups:
        raise ArtifactError(f"{reader.path} is damaged: {node.name!r} has {groups} groups for {out} channels")
    _check_channels(reader, node, inputs[0], each * groups)
    window = _window(reader, node, tuple(size), groups)
    weights = [reader.weight(inputs[kernel], "kernel", (*size, each, out))]
    weights += [reader.weight(inputs[bias], "bias")] if len(inputs) > bias else []
    return convolution_kind(each * groups, groups), weights, window


def _check_channels(reader: _Reader, node: Any, name: str, wanted: int) -> None:
    shape = reader.shape_of(name)
    if len(shape) < 3 or shape[1] != wanted:
        raise ArtifactError(
            f"{reader.path} is damaged: {node.name!r} reads the shape {list(shape)} with a kernel for {wanted} channels"
        )


def _window(reader: _Reader, node: Any, size: Shape, groups: int) -> Window:
    ones = (1,) * len(size)
    window = Window(size, _ints(node, "strides", ones), _ints(node, "dilations", ones), groups)
    for sizes in (window.kernel, window.strides, window.dilations):
        if len(sizes) != len(size) or any(not 1 <= side <= MAX_SIDE for side in sizes):
            raise ArtifactError(f"{reader.path} is damaged: {node.name!r} has a window of {list(sizes)}")
    return window


def _transposed(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    """Kernel (in, out / groups, …) → (…, in / groups, out): each of `groups` parts joins its own channels."""
    channels, each, *size = _kernel_shape(reader, node, inputs, 1)
    groups = _int(node, "group", 1)
    if groups < 1 or channels % groups:
        raise ArtifactError(f"{reader.path} is damaged: {node.name!r} has {groups} groups for {channels} channels")
    _check_channels(reader, node, inputs[0], channels)
    window = _window(reader, node, tuple(size), groups)
    weights = [reader.weight(inputs[1], "kernel", (*size, channels // groups, each * groups))]
    weights += [reader.weight(inputs[2], "bias")] if len(inputs) > 2 else []
    return "transposed_convolution", weights, window


def _kernel_shape(reader: _Reader, node: Any, inputs: list[str], place: int) -> Shape:
    if len(inputs) <= place or inputs[place] not in reader.constants:
        raise ArtifactError(f"{reader.path}: {node.op_type} {node.name!r} has no kernel of its own; wanted a constant")
    shape = reader.constants[inputs[place]].shape
    if len(shape) < 3 or min(shape) < 1:
        raise ArtifactError(f"{reader.path} is damaged: the kernel of {node.name!r} has the shape {list(shape)}")
    return shape


def _gemm(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    if inputs[1] not in reader.constants:
        return "matmul", _left_kernel(reader, inputs[0], bool(_int(node, "transA", 0))), None
    shape = reader.constants[inputs[1]].shape
    kernel = shape[::-1] if _int(node, "transB", 0) else shape
    weights = [reader.weight(inputs[1], "kernel", kernel)]
    weights += [reader.weight(inputs[2], "bias")] if len(inputs) > 2 and inputs[2] else []
    return "dense", weights, None


def _matmul(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    if inputs[1] in reader.constants:
        kind = "dense" if len(reader.constants[inputs[1]].shape) == 2 else "matmul"
        return kind, [reader.weight(inputs[1], "kernel")], None
    return "matmul", _left_kernel(reader, inputs[0], False), None


def _left_kernel(reader: _Reader, name: str, is_turned: bool) -> list[Weight | None]:
    """A constant on the left of a product, (…, other, shared), as (…, shared, other); none where it is no constant."""
    if name not in reader.constants:
        return []
    shape = reader.constants[name].shape
    return [reader.weight(name, "kernel", shape if is_turned or len(shape) < 2 else (*shape[:-2], *shape[:-3:-1]))]


def _batch_norm(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    roles = ("gamma", "beta", "mean", "variance")
    return "batch_norm", [reader.weight(name, role) for name, role in zip(inputs[1:], roles, strict=False)], None


def _pool(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    kind = "max_pool" if node.op_type == "MaxPool" else "average_pool"
    return kind, [], _window(reader, node, _ints(node, "kernel_shape", (1, 1)), 1)


def _clip(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    """Clip at 0 and 6 is relu6, at 0 alone relu."""
    named = _attributes(node)
    low = named["min"].f if "min" in named else _number(reader, inputs[1:2])
    high = named["max"].f if "max" in named else _number(reader, inputs[2:3])
    if low == 0 and high is None:
        return "relu", [], None
    return ("relu6" if (low, high) == (0, 6) else "clip"), [], None


def _number(reader: _Reader, names: list[str]) -> float | None:
    """The value of a constant of one number."""
    import onnx

    if not names or names[0] not in reader.small:
        return None
    try:
        values = onnx.numpy_helper.to_array(reader.small[names[0]])
    except Exception as error:  # a payload shorter than its shape, or an unknown type
        raise ArtifactError(f"{reader.path} is damaged: the constant {names[0]!r}: {one_line(error)}") from error
    return float(values.reshape(-1)[0]) if values.size else None


def _resize(reader: _Reader, node: Any, inputs: list[str]) -> Node:
    mode = _attributes(node).get("mode")
    nearest = mode is None or mode.s == b"nearest"
    return ("resize_nearest" if nearest else "resize_linear"), [], None


NODES: dict[str, Callable[[_Reader, Any, list[str]], Node]] = {
    "Conv": _convolution, "QLinearConv": _convolution, "FusedConv": _convolution, "ConvTranspose": _transposed,
    "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _batch_norm, "MaxPool": _pool, "AveragePool": _pool,
    "Clip": _clip, "Resize": _resize, "Upsample": _resize,
}  # fmt: skip
