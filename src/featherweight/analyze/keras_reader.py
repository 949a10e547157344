"""`keras.Model` → `Graph`: the model's own order of execution, nested models and our composite layers walked into.

A layer gives one operator, or several where it does several things: a fused activation is an operator of its own, a
separable convolution is a depthwise and a 1×1 one. Layers that only act in training (dropout, random augmentation) are
identities. Imports errors and this folder; keras where it is used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.analyze.graph import UNKNOWN, Graph, Operator, Shape, Tensor, Weight, Window, convolution_kind
from featherweight.analyze.operators import WITH_CONSTANT
from featherweight.errors import SettingError
from featherweight.models.functional import functional, graph_inside, known_class, nodes

if TYPE_CHECKING:
    import keras

# Keras' name of an activation → kind. `linear` is none.
ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "leaky_relu": "leaky_relu", "elu": "elu", "celu": "celu", "selu": "selu",
    "sigmoid": "sigmoid", "hard_sigmoid": "hard_sigmoid", "silu": "silu", "swish": "silu", "hard_silu": "hard_silu",
    "hard_swish": "hard_silu", "tanh": "tanh", "gelu": "gelu", "softplus": "softplus", "softsign": "softsign",
    "mish": "mish", "exponential": "function", "softmax": "softmax", "log_softmax": "log_softmax",
    "log_sigmoid": "log_sigmoid", "hard_tanh": "clip",
}  # fmt: skip

# Keras' class → kind, where one layer is one operator that needs nothing but shapes.
SIMPLE = {
    "Add": "add", "Subtract": "subtract", "Multiply": "multiply", "Average": "average", "Maximum": "maximum",
    "Minimum": "minimum", "Concatenate": "concatenate",
    "Flatten": "reshape", "Reshape": "reshape", "Permute": "transpose", "RepeatVector": "repeat",
    "ZeroPadding1D": "pad", "ZeroPadding2D": "pad", "ZeroPadding3D": "pad",
    "Cropping1D": "crop", "Cropping2D": "crop", "Cropping3D": "crop", "CenterCrop": "crop",
    "ChannelSlice": "slice", "ChannelPad": "pad",
    "UpSampling1D": "repeat", "UpSampling3D": "repeat",
    "GlobalAveragePooling1D": "global_average_pool", "GlobalAveragePooling2D": "global_average_pool",
    "GlobalAveragePooling3D": "global_average_pool", "GlobalMaxPooling1D": "global_max_pool",
    "GlobalMaxPooling2D": "global_max_pool", "GlobalMaxPooling3D": "global_max_pool",
    "LayerNormalization": "layer_norm", "GroupNormalization": "layer_norm", "UnitNormalization": "normalize",
    "LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu", "Softmax": "softmax",
    "Embedding": "gather", "AffineSampler": "affine_sampler", "LocalConvolution": "matmul",
    "Predictions": "concatenate",
    "Dropout": "identity", "SpatialDropout1D": "identity", "SpatialDropout2D": "identity",
    "SpatialDropout3D": "identity", "GaussianNoise": "identity", "GaussianDropout": "identity",
    "AlphaDropout": "identity", "ActivityRegularization": "identity", "Identity": "identity",
}  # fmt: skip

# Keras' operations on tensors (keras.ops) → kind.
OPERATIONS = {
    "Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "Silu": "silu", "Tanh": "tanh", "Gelu": "gelu",
    "Softplus": "softplus", "Softsign": "softsign", "Softmax": "softmax", "Clip": "clip",
    "Celu": "celu", "LogSoftmax": "log_softmax", "LogSigmoid": "log_sigmoid", "HardTanh": "clip",
    "Exp": "function", "Log": "function", "Sqrt": "function", "Rsqrt": "function", "Abs": "function",
    "Absolute": "function", "Negative": "function", "Square": "function", "Reciprocal": "function",
    "Power": "function", "Round": "function", "Floor": "function", "Erf": "function", "Sin": "function",
    "Cos": "function",
    "Add": "add", "Subtract": "subtract", "Multiply": "multiply", "Divide": "divide", "TrueDivide": "divide",
    "Maximum": "maximum", "Minimum": "minimum",
    "Mean": "reduce_mean", "Sum": "reduce", "Max": "reduce", "Min": "reduce", "Prod": "reduce",
    "Reshape": "reshape", "Squeeze": "reshape", "ExpandDims": "reshape", "Ravel": "reshape", "Transpose": "transpose",
    "Moveaxis": "transpose", "Swapaxes": "transpose", "Concatenate": "concatenate", "Stack": "concatenate",
    "Pad": "pad", "GetItem": "slice", "Slice": "slice", "Split": "slice", "Repeat": "repeat", "Tile": "repeat",
    "Take": "gather", "Roll": "gather", "Cast": "cast", "StopGradient": "identity", "Identity": "identity",
    "BroadcastTo": "repeat", "Matmul": "matmul",
}  # fmt: skip

# Random augmentation does nothing at inference.
AUGMENTATION = ("Random", "RandAugment", "MixUp", "CutMix", "AugMix")


@dataclass
class _Reading:
    """What is gathered while a model is walked. `names` maps a Keras tensor to its name here."""

    operators: list[Operator] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    counted: set[int] = field(default_factory=set)  # weights that an earlier call of the same layer counted

    def unique(self, name: str) -> str:
        """The name, with a number behind it from its second use on."""
        count = self.seen.get(name, 0)
        self.seen[name] = count + 1
        return name if count == 0 else f"{name}:{count + 1}"

    def tensor(self, name: str, shape: Shape, dtype: str = "float32") -> str:
        """Note a tensor of batch 1; returns its name."""
        self.tensors[name] = Tensor(name, shape, dtype)
        return name


@dataclass(frozen=True)
class _Call:
    """One call of a layer: the names of what goes in and comes out."""

    layer: Any
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reading: _Reading
    constants: int = 0  # arguments that are numbers, not tensors

    @property
    def input_shape(self) -> Shape:
        """Of the first input."""
        return self.reading.tensors[self.inputs[0]].shape

    @property
    def output_shape(self) -> Shape:
        """Of the first output."""
        return self.reading.tensors[self.outputs[0]].shape

    def operator(
        self,
        kind: str,
        weights: tuple[Weight, ...] = (),
        window: Window | None = None,
        inputs: tuple[str, ...] | None = None,
        outputs: tuple[str, ...] | None = None,
        suffix: str = "",
        origin: str = "",
    ) -> Operator:
        """An operator of this layer."""
        return Operator(
            name=self.name + suffix,
            kind=kind,
            layer=self.name,
            inputs=self.inputs if inputs is None else inputs,
            outputs=self.outputs if outputs is None else outputs,
            weights=weights,
            window=window,
            origin=origin or type(self.layer).__name__,
        )

    def between(self, suffix: str, shape: Shape) -> str:
        """A tensor between two operators of this layer."""
        return self.reading.tensor(f"{self.name}{suffix}", shape)


def read_keras(model: "keras.Model", input_size: tuple[int, int] | None = None) -> Graph:
    """The model as a graph, batch 1, as it is at inference.

    Args:
        model: Functional or Sequential, built; a subclass with a `call` of its own cannot be looked into.
        input_size: (height, width) for a model that leaves them open.

    Raises:
        SettingError: not such a model, not built, or an input size is open and not given.
    """
    function = functional(model)
    if any(size is None for tensor in function.inputs for size in tensor.shape[1:]):
        function = functional(_sized(model, input_size))
    elif input_size is not None:
        _check_size(function, input_size)
    reading = _Reading()
    inputs = []
    for tensor in function.inputs:
        name = reading.tensor(reading.unique(tensor.name), _shape(tensor.shape), str(tensor.dtype))
        reading.names[id(tensor)] = name
        inputs.append(name)
    outputs = _walk(function, reading, "")
    return Graph(
        name=str(model.name),
        format="keras",
        operators=tuple(reading.operators),
        tensors=reading.tensors,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


def _sized(model: Any, input_size: tuple[int, int] | None) -> Any:
    """A copy whose inputs have that height and width."""
    import keras

    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if input_size is None or any(len(shape) != 4 or shape[3] is None for shape in shapes):
        raise SettingError(
            f"{model.name} leaves its input size open: {', '.join(map(str, shapes))}; give it with --input-size"
        )
    inputs = [keras.Input((*input_size, shape[3]), name=t.name) for shape, t in zip(shapes, model.inputs, strict=True)]
    try:
        return keras.models.clone_model(model, input_tensors=inputs if len(inputs) > 1 else inputs[0])
    except Exception as error:  # any layer's own, where a map gets smaller than its window
        text = " ".join(str(error).split())[:200]
        high, wide = input_size
        raise SettingError(f"{model.name} cannot be built for {high}×{wide}: {text}; wanted a larger size") from error


def _check_size(function: Any, input_size: tuple[int, int]) -> None:
    for tensor in function.inputs:
        if tuple(tensor.shape[1:3]) != input_size:
            raise SettingError(
                f"the model takes {tensor.shape[1]}×{tensor.shape[2]}, not {input_size[0]}×{input_size[1]}; "
                "leave --input-size out, or build the model for that size"
            )


def _shape(shape: Any) -> Shape:
    """Keras' shape with the open batch as 1; other open sizes cannot be left once the inputs are fixed."""
    if any(size is None for size in shape[1:]):
        raise SettingError(f"a layer gives {tuple(shape)}; wanted sizes that follow from the input's")
    return tuple(1 if place == 0 and size is None else int(size) for place, size in enumerate(shape))


def _walk(function: Any, reading: _Reading, prefix: str) -> list[str]:
    """Add a functional graph's operators in the order in which Keras runs them; returns the outputs' names."""
    import keras

    for node in nodes(function):
        # A tensor of the graph may also have been fed to it from a model outside.
        inputs = tuple(reading.names[id(tensor)] for tensor in node.arguments.keras_tensors)
        name = reading.unique(prefix + str(node.operation.name))
        inner = graph_inside(node.operation)
        if inner is not None:
            outputs = _nested(inner, inputs, reading, f"{name}/")
        else:
            outputs = []
            for number, tensor in enumerate(node.outputs):
                label = name if number == 0 else f"{name}#{number}"
                outputs.append(reading.tensor(label, _shape(tensor.shape), str(tensor.dtype)))
            constants = _constants(node.arguments) if not isinstance(node.operation, keras.Layer) else 0
            call = _Call(node.operation, name, inputs, tuple(outputs), reading, constants)
            reading.operators.extend(_operators(call))
        for tensor, output in zip(node.outputs, outputs, strict=True):
            reading.names[id(tensor)] = output
    return [reading.names[id(tensor)] for tensor in function.outputs]


def _nested(function: Any, inputs: tuple[str, ...], reading: _Reading, prefix: str) -> list[str]:
    """Walk into a graph with its inputs standing for tensors outside. Its weights are counted at its first call."""
    outer = dict(reading.names)
    for tensor, name in zip(function.inputs, inputs, strict=True):
        reading.names[id(tensor)] = name
    outputs = _walk(function, reading, prefix)
    reading.names = outer
    return outputs


def _constants(arguments: Any) -> int:
    """How many of an operation's first two arguments are numbers."""
    tensors = {id(tensor) for tensor in arguments.keras_tensors}
    return sum(isinstance(value, int | float) for value in arguments.args[:2] if id(value) not in tensors)


# --------------------------------------------------------------------------------------------- layers → operators


def _operators(call: _Call) -> Iterator[Operator]:
    """The operators of one call; a layer that no table knows is one operator of unknown kind."""
    import keras

    name = _known_class(call.layer)
    is_layer = isinstance(call.layer, keras.Layer)
    if is_layer and name in LAYERS:
        yield from LAYERS[name](call)
    elif is_layer and name in SIMPLE:
        yield call.operator(SIMPLE[name], _weights(call))
    elif name in OPERATIONS:
        kind = OPERATIONS[name]
        if kind in WITH_CONSTANT and call.constants:
            kind = WITH_CONSTANT[kind]
        elif kind in ("maximum", "minimum") and call.constants:
            kind = "relu"
        yield call.operator(kind)
    else:
        yield call.operator(UNKNOWN, _weights(call) if is_layer else ())


def _known_class(layer: Any) -> str:
    import keras

    known = {*LAYERS, *SIMPLE} if isinstance(layer, keras.Layer) else OPERATIONS
    return known_class(layer, known, AUGMENTATION)


def _weights(call: _Call, kernel_shape: Shape | None = None) -> tuple[Weight, ...]:
    """The layer's weights by role; from the second call of a layer on they are shared, so that each counts once."""
    found = []
    for variable in call.layer.weights:
        role = str(variable.name)
        is_kernel = role == "kernel" and kernel_shape is not None
        shape = kernel_shape if is_kernel else tuple(int(size) for size in variable.shape)
        found.append(_weight(call, variable, role, shape))
    return tuple(found)


def _weight(call: _Call, variable: Any, role: str, shape: Shape | None) -> Weight:
    held: Any = "shared" if id(variable) in call.reading.counted else "own"
    call.reading.counted.add(id(variable))
    return Weight(role, shape or (), str(variable.dtype), bool(variable.trainable), held)


def _activation_kind(function: Any) -> str | None:
    """The kind of an activation function; `None` for linear."""
    name = _activation_name(function)
    return None if name == "linear" else ACTIVATIONS.get(name, UNKNOWN)


def _activation_name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _origin(call: _Call, kind: str) -> str:
    """What stands in a list of unknown operators: the activation, not the layer that has it."""
    return f"activation {_activation_name(call.layer.activation)}" if kind == UNKNOWN else type(call.layer).__name__


def _with_activation(call: _Call, first: Callable[[tuple[str, ...]], Operator]) -> Iterator[Operator]:
    """An operator, and its fused activation as a second one."""
    kind = _activation_kind(call.layer.activation)
    if kind is None:
        yield first(call.outputs)
        return
    between = (call.between("/linear", call.output_shape),)
    yield first(between)
    yield call.operator(kind, inputs=between, suffix=f"/{kind}", origin=_origin(call, kind))


def _pair(value: Any) -> Shape:
    return tuple(int(part) for part in value) if isinstance(value, list | tuple) else (int(value), int(value))


def _convolution(call: _Call) -> Iterator[Operator]:
    layer = call.layer
    kernel = tuple(int(size) for size in layer.kernel.shape)
    groups = int(layer.groups)
    window = Window(kernel[:-2], tuple(layer.strides), tuple(layer.dilation_rate), groups)
    kind = convolution_kind(kernel[-2] * groups, groups)
    weights = _weights(call, kernel)
    yield from _with_activation(call, lambda outputs: call.operator(kind, weights, window, outputs=outputs))


def _depthwise(call: _Call) -> Iterator[Operator]:
    layer = call.layer
    *size, channels, multiplier = (int(part) for part in layer.kernel.shape)
    kernel = (*size, 1, channels * multiplier)
    window = Window(tuple(size), tuple(_pair(layer.strides)[: len(size)]), tuple(_pair(layer.dilation_rate)), channels)
    kind = convolution_kind(channels, channels)
    weights = _weights(call, kernel)
    yield from _with_activation(call, lambda outputs: call.operator(kind, weights, window, outputs=outputs))


def _separable(call: _Call) -> Iterator[Operator]:
    layer = call.layer
    *size, channels, multiplier = (int(part) for part in layer.depthwise_kernel.shape)
    filters = int(layer.pointwise_kernel.shape[-1])
    middle = call.between("/depthwise", (*call.output_shape[:-1], channels * multiplier))
    window = Window(tuple(size), tuple(layer.strides), tuple(layer.dilation_rate), channels)
    kernel = _weight(call, layer.depthwise_kernel, "kernel", (*size, 1, channels * multiplier))
    kind = convolution_kind(channels, channels)
    yield call.operator(kind, (kernel,), window, outputs=(middle,), suffix="/depthwise")
    ones = (1,) * len(size)
    pointwise = [_weight(call, layer.pointwise_kernel, "kernel", (*ones, channels * multiplier, filters))]
    if layer.use_bias:
        pointwise.append(_weight(call, layer.bias, "bias", (filters,)))
    yield from _with_activation(
        call,
        lambda outputs: call.operator(
            "convolution", tuple(pointwise), Window(ones, ones, ones), (middle,), outputs, "/pointwise"
        ),
    )


def _transposed(call: _Call) -> Iterator[Operator]:
    layer = call.layer
    *size, filters, channels = (int(part) for part in layer.kernel.shape)
    window = Window(tuple(size), tuple(layer.strides), tuple(layer.dilation_rate))
    weights = _weights(call, (*size, channels, filters))
    yield from _with_activation(
        call, lambda outputs: call.operator("transposed_convolution", weights, window, outputs=outputs)
    )


def _dense(call: _Call) -> Iterator[Operator]:
    kernel = tuple(int(size) for size in call.layer.kernel.shape)
    weights = _weights(call, kernel)
    yield from _with_activation(call, lambda outputs: call.operator("dense", weights, outputs=outputs))


def _activation(call: _Call) -> Iterator[Operator]:
    kind = _activation_kind(call.layer.activation) or "identity"
    yield call.operator(kind, origin=_origin(call, kind))


def _relu(call: _Call) -> Iterator[Operator]:
    layer = call.layer
    if layer.negative_slope:
        yield call.operator("leaky_relu")
    elif layer.max_value is None:
        yield call.operator("relu")
    else:
        yield call.operator("relu6" if layer.max_value == 6 else "clip")


def _batch_norm(call: _Call) -> Iterator[Operator]:
    yield call.operator("batch_norm", _weights(call))


def _rescaling(call: _Call) -> Iterator[Operator]:
    """The layer computes x · scale + offset; lists are one number a channel, which exported files hold as constants."""
    layer = call.layer
    yield call.operator("affine" if _any(layer.offset) else "scale", _held(scale=layer.scale, shift=layer.offset))


def _normalization(call: _Call) -> Iterator[Operator]:
    """(x - mean) / √variance: its numbers are weights that no training changes, or constants that were given."""
    weights = _weights(call)
    if not weights:
        weights = _held(scale=call.layer.input_variance, shift=call.layer.input_mean)
    yield call.operator("batch_norm" if call.layer.weights else "affine", weights)


def _any(value: Any) -> bool:
    return bool(np.any(value))


def _held(**values: Any) -> tuple[Weight, ...]:
    """Constants of one number a channel; one number for all is part of the operator and no weight."""
    return tuple(
        Weight(role, (np.size(value),), "float32", False, "setting")
        for role, value in values.items()
        if value is not None and np.size(value) > 1
    )


def _pool(call: _Call) -> Iterator[Operator]:
    layer = call.layer
    size = tuple(int(part) for part in _pair(layer.pool_size))[: len(call.input_shape) - 2]
    kind = "max_pool" if "Max" in type(layer).__name__ else "average_pool"
    yield call.operator(kind, window=Window(size, tuple(_pair(layer.strides))[: len(size)], (1,) * len(size)))


def _resize(call: _Call) -> Iterator[Operator]:
    nearest = getattr(call.layer, "interpolation", "nearest") == "nearest"
    yield call.operator("resize_nearest" if nearest else "resize_linear")


LAYERS: dict[str, Callable[[_Call], Iterator[Operator]]] = {
    "Conv1D": _convolution, "Conv2D": _convolution, "Conv3D": _convolution,
    "DepthwiseConv1D": _depthwise, "DepthwiseConv2D": _depthwise,
    "SeparableConv1D": _separable, "SeparableConv2D": _separable,
    "Conv1DTranspose": _transposed, "Conv2DTranspose": _transposed, "Conv3DTranspose": _transposed,
    "Dense": _dense, "Activation": _activation, "ReLU": _relu,
    "BatchNormalization": _batch_norm, "Rescaling": _rescaling, "Normalization": _normalization,
    "MaxPooling1D": _pool, "MaxPooling2D": _pool, "MaxPooling3D": _pool,
    "AveragePooling1D": _pool, "AveragePooling2D": _pool, "AveragePooling3D": _pool,
    "UpSampling2D": _resize, "Resizing": _resize,
}  # fmt: skip
