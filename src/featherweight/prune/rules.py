"""What each layer does with the channels it is given: one rule a kind, one table.

A rule takes a `Call` and returns the labels of its outputs. What no rule knows keeps all of its channels, with that as
the reason.

Imports analyze, models and trace.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.analyze.keras_reader import ACTIVATIONS, AUGMENTATION
from featherweight.models.functional import functional, known_class, nodes
from featherweight.prune.trace import Kept, Labels, Size, Trace, Use, compressed

# Activations that look at one number at a time; all others mix channels.
ELEMENTWISE = {"linear", *(name for name, kind in ACTIVATIONS.items() if kind not in ("softmax", "log_softmax"))}


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation: its tensors without the batch."""

    trace: Trace
    operation: Any
    inputs: tuple[Labels, ...]
    input_shapes: tuple[tuple[Size, ...], ...]
    output_shapes: tuple[tuple[Size, ...], ...]
    constants: tuple[Any, ...]  # the arguments that are no tensors

    @property
    def name(self) -> str:
        """The layer's, which is one of a kind in its model."""
        return str(self.operation.name)

    def unknown(self, reason: str) -> list[Labels]:
        """All channels that come in and that go out must stay."""
        for labels in self.inputs:
            self.trace.fix(labels, reason)
        return [fixed(self.trace, shape, reason) for shape in self.output_shapes]

    def vector(self) -> Labels | None:
        """The labels (c,) of the only input; `None` where they change along another axis than the last too."""
        (labels,), (shape,) = self.inputs, self.input_shapes
        if math.prod(labels.shape[:-1]) != 1 or not shape or shape[-1] is None:
            return None
        return np.broadcast_to(labels.ravel(), (shape[-1],))

    def outputs(self, vector: Labels) -> list[Labels]:
        """The channels as the last axis of the only output."""
        return [vector.reshape(*(1,) * (len(self.output_shapes[0]) - 1), -1)]

    def has(self, name: str) -> int | None:
        """The number of the weight of that name, if there is one."""
        names = [str(variable.name) for variable in self.operation.weights]
        return names.index(name) if name in names else None

    def follows(self, name: str, axis: int, channels: Labels) -> None:
        """The weight has one entry a channel along the axis; a weight that is not there is nothing to note."""
        weight = self.has(name)
        if weight is not None:
            self.trace.use(Use(self.name, weight, name, self._axis(weight, axis), channels, "follows"))

    def takes(self, name: str, axis: int, channels: Labels) -> None:
        """A kernel's inputs."""
        weight = self.has(name)
        assert weight is not None
        self.trace.use(Use(self.name, weight, name, self._axis(weight, axis), channels, "takes"))

    def makes(self, name: str, axis: int, bias: str = "bias") -> Labels:
        """New channels, the kernel's outputs; those of the first call where the layer is called again."""
        weight = self.has(name)
        assert weight is not None
        place = self._axis(weight, axis)
        known = self.trace.uses.get((self.name, weight, place))
        if known is None:
            count = self.operation.weights[weight].shape[place]
            known = Use(self.name, weight, name, place, self.trace.new(count), "makes")
        channels = self.trace.use(known)
        self.follows(bias, 0, channels)
        return channels

    def _axis(self, weight: int, axis: int) -> int:
        return axis % len(self.operation.weights[weight].shape)


Rule = Callable[[Call], list[Labels]]


def trace(model: Any) -> Trace:
    """Follow the channels through a flat model (`models.functional.flat`).

    Raises:
        SettingError: the model has no graph.
    """
    import keras

    function, found = functional(model), Trace()
    labels = {id(t): fixed(found, tuple(t.shape[1:]), "the model's input") for t in function.inputs}
    for node in nodes(function):
        tensors = node.arguments.keras_tensors
        flat = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        call = Call(
            found,
            node.operation,
            tuple(labels[id(t)] for t in tensors),
            tuple(tuple(t.shape[1:]) for t in tensors),
            tuple(tuple(t.shape[1:]) for t in node.outputs),
            tuple(value for value in flat if not isinstance(value, keras.KerasTensor)),
        )
        if isinstance(node.operation, keras.Layer):
            shapes = enumerate(tuple(variable.shape) for variable in node.operation.weights)
            found.shapes |= {(call.name, number): shape for number, shape in shapes}
        for tensor, made in zip(node.outputs, rule_for(node.operation)(call), strict=True):
            labels[id(tensor)] = made
    for tensor in function.outputs:
        found.fix(labels[id(tensor)], "the model's output")
    return found


def fixed(found: Trace, shape: Sequence[Size], reason: str) -> Labels:
    """Channels of a tensor that must stay."""
    count = shape[-1] if shape and shape[-1] is not None else 1
    return found.fix(found.new(count).reshape(*(1,) * (len(shape) - 1), -1), reason)


def rule_for(operation: Any) -> Rule:
    """The rule of a layer, of an operation on tensors, or that of the unknown."""
    import keras

    table = LAYERS if isinstance(operation, keras.Layer) else OPERATIONS
    return table.get(known_class(operation, table, AUGMENTATION), _stranger)


def _stranger(call: Call) -> list[Labels]:
    return call.unknown(f"{call.name} ({type(call.operation).__name__}) may mix channels in a way that is not known")


# --------------------------------------------------------------------------------------------- kernels and norms


def _by_place(call: Call, kernel: str, shape: Sequence[Size]) -> None:
    """One picture goes through the kernel at every place of the map of that shape; calls add up."""
    weight = call.has(kernel)
    assert weight is not None
    spatial = shape[:-1]
    before = call.trace.places.get((call.name, weight), 0)
    now = None if before is None or None in spatial else before + math.prod(s for s in spatial if s is not None)
    call.trace.places[call.name, weight] = now


def _activated(call: Call, outputs: list[Labels]) -> list[Labels]:
    """What the layer's own activation does to its channels."""
    function = call.operation.activation
    name = str(getattr(function, "__name__", type(function).__name__))
    if name not in ELEMENTWISE:
        call.trace.fix(outputs[0], f"{name} in {call.name} looks at all channels")
    return outputs


def _last_axis(call: Call) -> Labels | None:
    """The input's channels where they lie along the last axis, as convolutions have them."""
    return None if call.operation.data_format == "channels_first" else call.vector()


def _spread(call: Call) -> list[Labels]:
    return call.unknown(f"{call.name} reads channels that do not lie along the last axis alone")


def _convolution(call: Call) -> list[Labels]:
    x = _last_axis(call)
    if x is None:
        return _spread(call)
    _by_place(call, "kernel", call.output_shapes[0])
    groups = call.operation.groups
    if groups == len(x) > 1:
        made = _each_by_itself(call, x)
    else:
        made = call.makes("kernel", -1)
        if groups > 1:  # every group must lose as many inputs, and as many outputs: those at the same place in it
            call.trace.tie(*x.reshape(groups, -1))
            call.trace.tie(*made.reshape(groups, -1))
        call.takes("kernel", -2, x.reshape(groups, -1)[0])
        call.trace.settings[call.name] = lambda kept: {"filters": kept.count(made)}
    return _activated(call, call.outputs(made))


def _each_by_itself(call: Call, x: Labels) -> Labels:
    """A depthwise convolution in the form of a grouped one."""
    made = np.repeat(x, call.operation.filters // len(x))
    call.follows("kernel", -1, made)
    call.follows("bias", 0, made)
    call.trace.settings[call.name] = lambda kept: {"filters": kept.count(made), "groups": kept.count(x)}
    return made


def _depthwise(call: Call) -> list[Labels]:
    x = _last_axis(call)
    if x is None:
        return _spread(call)
    _by_place(call, "kernel", call.output_shapes[0])
    made = np.repeat(x, call.operation.depth_multiplier)
    call.follows("kernel", -2, x)
    call.follows("bias", 0, made)
    return _activated(call, call.outputs(made))


def _separable(call: Call) -> list[Labels]:
    x = _last_axis(call)
    if x is None:
        return _spread(call)
    for kernel in ("depthwise_kernel", "pointwise_kernel"):
        _by_place(call, kernel, call.output_shapes[0])
    call.follows("depthwise_kernel", -2, x)
    call.takes("pointwise_kernel", -2, np.repeat(x, call.operation.depth_multiplier))
    made = call.makes("pointwise_kernel", -1)
    call.trace.settings[call.name] = lambda kept: {"filters": kept.count(made)}
    return _activated(call, call.outputs(made))


def _transposed(call: Call) -> list[Labels]:
    x = _last_axis(call)
    if x is None:
        return _spread(call)
    _by_place(call, "kernel", call.input_shapes[0])
    call.takes("kernel", -1, x)
    made = call.makes("kernel", -2)
    call.trace.settings[call.name] = lambda kept: {"filters": kept.count(made)}
    return _activated(call, call.outputs(made))


def _dense(call: Call) -> list[Labels]:
    x = call.vector()
    if x is None:
        return _spread(call)
    _by_place(call, "kernel", call.output_shapes[0])
    call.takes("kernel", 0, x)
    made = call.makes("kernel", 1)
    call.trace.settings[call.name] = lambda kept: {"units": kept.count(made)}
    return _activated(call, call.outputs(made))


def _batch_norm(call: Call) -> list[Labels]:
    x, axes = call.vector(), call.operation.axis
    axes = axes if isinstance(axes, list | tuple) else [axes]
    if x is None or [axis % (len(call.input_shapes[0]) + 1) for axis in axes] != [len(call.input_shapes[0])]:
        return _spread(call)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        call.follows(name, 0, x)
    return call.outputs(x)


def _prelu(call: Call) -> list[Labels]:
    x = call.vector()
    if x is None:
        return _spread(call)
    call.follows("alpha", -1, x)
    return call.outputs(x)


# ---------------------------------------------------------------------------------- one channel, or several alike


def _same(call: Call) -> list[Labels]:
    """Every number by itself."""
    if len(call.inputs) > 1 or any(np.ndim(value) for value in call.constants):
        return _joined(call)
    return list(call.inputs)


def _window(call: Call) -> list[Labels]:
    """Pools, pads and the like: channels pass where they lie along the last axis alone."""
    x = call.vector()
    return _spread(call) if x is None else call.outputs(x)


def _rescaling(call: Call) -> list[Labels]:
    alike = np.ndim(call.operation.scale) == 0 and np.ndim(call.operation.offset) == 0
    return _same(call) if alike else call.unknown(f"{call.name} scales each channel by a number of its own")


def _activation(call: Call) -> list[Labels]:
    return _activated(call, _same(call))


def _mixed(call: Call) -> list[Labels]:
    return call.unknown(f"{call.name} ({type(call.operation).__name__}) looks at all channels")


def _joined(call: Call) -> list[Labels]:
    """Channels at the same place become one. What is broadcast over channels has none to tie, and stays."""
    if any(np.ndim(value) for value in call.constants):
        return call.unknown(f"{call.name} computes with an array of its own")
    if len({len(shape) for shape in call.input_shapes}) > 1:
        return call.unknown(f"{call.name} joins tensors of different ranks")
    width = call.output_shapes[0][-1]
    alike = []
    for labels, shape in zip(call.inputs, call.input_shapes, strict=True):
        if shape[-1] == width:
            alike.append(labels)
        else:
            call.trace.fix(labels, f"{call.name} spreads it over all channels")
    return [call.trace.tie(*alike)]


def _concatenated(call: Call) -> list[Labels]:
    axis = _axis(call)
    if axis is None:
        return call.unknown(f"{call.name} joins batches")
    sizes = [shape[axis] for shape in call.input_shapes]
    if all(labels.shape[axis] == 1 for labels in call.inputs) and axis != len(call.output_shapes[0]) - 1:
        return [call.trace.tie(*call.inputs)]  # side by side in space: channel i is channel i of both
    if None in sizes:
        return call.unknown(f"{call.name} joins along an axis of open size")
    common = list(np.broadcast_shapes(*((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in call.inputs)))
    parts = []
    for labels, size in zip(call.inputs, sizes, strict=True):
        parts.append(np.broadcast_to(labels, [*common[:axis], size or 0, *common[axis + 1 :]]))
    return [call.trace.tie_to_grid(compressed(np.concatenate(parts, axis)))]


def _axis(call: Call) -> int | None:
    """The operation's axis without the batch's; `None` for the batch's."""
    rank = len(call.input_shapes[0]) + 1
    axis = call.operation.axis % rank
    return None if axis == 0 else axis - 1


# --------------------------------------------------------------------------------------------- other orders


def _reshaped(call: Call) -> list[Labels]:
    """The same numbers in the same order, in another shape."""
    (shape,), (target,) = call.input_shapes, call.output_shapes
    if None in shape or None in target:
        return call.unknown(f"{call.name} reshapes a map of open size")
    full = np.broadcast_to(call.inputs[0], [size or 0 for size in shape])
    return [call.trace.tie_to_grid(compressed(full.reshape([size or 0 for size in target])))]


def _reshaped_to(setting: str, given: Callable[[Any], Sequence[Size]]) -> Rule:
    """As above, by a layer or operation that holds the new shape in a setting of its own."""

    def rule(call: Call) -> list[Labels]:
        (labels,) = outputs = _reshaped(call)
        (target,) = call.output_shapes
        wanted = given(call.operation)

        def change(kept: Kept) -> dict[str, Any]:
            sizes = kept.sizes(labels, target)
            return {setting: [old if old == -1 else new for old, new in zip(wanted, sizes, strict=True)]}

        if labels.ndim == len(wanted):
            call.trace.settings[call.name] = change
        return outputs

    return rule


def _with_batch(call: Call) -> list[Labels]:
    """`keras.ops.reshape`, whose new shape begins with the batch."""
    shape = tuple(call.operation.newshape)
    if not shape or shape[0] not in (-1, None):
        return call.unknown(f"{call.name} reshapes the batch")
    outputs = _reshaped_to("newshape", lambda operation: tuple(operation.newshape)[1:])(call)
    change = call.trace.settings.pop(call.name, None)
    if change is not None:
        call.trace.settings[call.name] = lambda kept: {"newshape": [shape[0], *change(kept)["newshape"]]}
    return outputs


def _transposed_axes(call: Call) -> list[Labels]:
    axes = call.operation.axes
    if axes is None or axes[0] != 0:
        return call.unknown(f"{call.name} moves the batch")
    return [call.inputs[0].transpose([axis - 1 for axis in axes[1:]])]


def _permuted(call: Call) -> list[Labels]:
    return [call.inputs[0].transpose([axis - 1 for axis in call.operation.dims])]


def _reduced(call: Call) -> list[Labels]:
    """Mean, sum, maximum over axes along which no channel lies."""
    operation, (labels,), (shape,) = call.operation, call.inputs, call.input_shapes
    axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
    if None in axes or any(axis % (len(shape) + 1) == 0 for axis in axes):
        return _mixed(call)
    gone = tuple(sorted(axis % (len(shape) + 1) - 1 for axis in axes))
    if any(labels.shape[axis] > 1 or axis == len(shape) - 1 for axis in gone):
        return _mixed(call)
    return [labels if operation.keepdims else labels.squeeze(gone)]


def _padded(call: Call) -> list[Labels]:
    widths = call.operation.pad_width
    last = widths[-1] if len(widths) == len(call.input_shapes[0]) + 1 else widths[0]
    return _window(call) if tuple(last) == (0, 0) else call.unknown(f"{call.name} adds channels")


# ------------------------------------------------------------------------------------------- parts of channels


def _channel_pad(call: Call) -> list[Labels]:
    """Zero channels before and behind, which may go as any other."""
    x = call.vector()
    if x is None:
        return _spread(call)
    before, after = call.trace.new(call.operation.before), call.trace.new(call.operation.after)
    call.trace.settings[call.name] = lambda kept: {"before": kept.count(before), "after": kept.count(after)}
    return call.outputs(np.concatenate([before, x, after]))


def _channel_slice(call: Call) -> list[Labels]:
    x = call.vector()
    if x is None:
        return _spread(call)
    start, stop = call.operation.start, call.operation.stop
    call.trace.settings[call.name] = lambda kept: {"start": kept.count(x[:start]), "stop": kept.count(x[:stop])}
    return call.outputs(x[start:stop])


def _split(call: Call) -> list[Labels]:
    axis, (labels,) = _axis(call), call.inputs
    if axis is None:
        return call.unknown(f"{call.name} splits the batch")
    if labels.shape[axis] == 1:
        return [labels for _ in call.output_shapes]
    sections = call.operation.indices_or_sections
    cuts = np.arange(1, sections) * (labels.shape[axis] // sections) if isinstance(sections, int) else sections
    line = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)[:, 0]
    call.trace.settings[call.name] = lambda kept: {"indices_or_sections": [kept.count(line[:cut]) for cut in cuts]}
    return list(np.split(labels, cuts, axis))


def _item(call: Call) -> list[Labels]:
    """`x[..., start:stop]`; also places of a map, where no channel lies along them."""
    (labels,), (shape,), (target,) = call.inputs, call.input_shapes, call.output_shapes
    key = call.constants
    last = key[-1] if key and (len(key) == len(shape) + 1 or Ellipsis in key) else slice(None)
    whole = len(target) == len(shape) and math.prod(labels.shape[:-1]) == 1
    if not whole or not isinstance(last, slice | type(Ellipsis)) or None in (shape[-1], target[-1]):
        return call.unknown(f"{call.name} takes parts in a way that is not known")
    part = slice(None) if last is Ellipsis else last
    x = np.broadcast_to(labels.ravel(), (shape[-1] or 0,))
    start, stop, stride = part.indices(len(x))
    if part == slice(None):
        return call.outputs(x)
    if stride != 1:
        return call.unknown(f"{call.name} takes every {stride}th channel")
    call.trace.arguments[call.name] = lambda kept: (
        (*key[:-1], slice(kept.count(x[:start]), kept.count(x[:stop]))),
    )  # fmt: skip
    return call.outputs(x[start:stop])


def _sampled(call: Call) -> list[Labels]:
    """`AffineSampler`: the picture's channels pass; the six numbers of the map stay."""
    picture, theta = call.inputs
    call.trace.fix(theta, f"{call.name} wants six numbers")
    return [picture]


def _predicted(call: Call) -> list[Labels]:
    return call.unknown(f"{call.name} gives what a decoding reads")


# ------------------------------------------------------------------------------------------------------- tables

_WINDOWS = ("MaxPooling", "AveragePooling", "GlobalAveragePooling", "GlobalMaxPooling", "ZeroPadding", "Cropping",
          "UpSampling", "SpatialDropout")  # fmt: skip
LAYERS: dict[str, Rule] = {
    **{f"Conv{n}D": _convolution for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": _depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": _separable for n in (1, 2)},
    **{f"Conv{n}DTranspose": _transposed for n in (1, 2, 3)},
    "Dense": _dense, "BatchNormalization": _batch_norm, "PReLU": _prelu,
    **{f"{kind}{n}D": _window for kind in _WINDOWS for n in (1, 2, 3)},
    **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout",
                     "ActivityRegularization", "Identity"), _same),
    **dict.fromkeys(("Resizing", "CenterCrop"), _window),
    "Rescaling": _rescaling, "Activation": _activation, "ChannelPad": _channel_pad, "ChannelSlice": _channel_slice,
    "AffineSampler": _sampled, "Predictions": _predicted,
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _joined),
    "Concatenate": _concatenated,
    "Flatten": _reshaped, "Reshape": _reshaped_to("target_shape", lambda layer: layer.target_shape),
    "Permute": _permuted,
    **dict.fromkeys(("Softmax", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization"),
                    _mixed),
}  # fmt: skip
OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSilu", "Silu",
                     "Tanh", "HardTanh", "LogSigmoid", "Gelu", "Softplus", "Softsign", "Clip", "Exp", "Log", "Sqrt",
                     "Rsqrt", "Abs", "Absolute", "Negative", "Square", "Reciprocal", "Power", "Round", "Floor", "Erf",
                     "Sin", "Cos", "Cast", "StopGradient", "Identity"), _same),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum"), _joined),
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), _reduced),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _mixed),
    **dict.fromkeys(("Squeeze", "ExpandDims", "Ravel"), _reshaped),
    "Reshape": _with_batch, "Transpose": _transposed_axes, "Concatenate": _concatenated, "Split": _split,
    "Pad": _padded, "GetItem": _item,
}  # fmt: skip
