"""Where a model is rounded: where the int8 files of LiteRT and ONNX have a tensor of 8 bits.

    kernels                              rounded, per output channel
    convolution, dense, sum, product     rounded behind it, or behind the ReLU that is fused with it
    mean over the map, other activations rounded; sigmoid, tanh, softmax and hard sigmoid on grids that the formats fix
    concatenation                        what goes in is rounded on one grid
    average pooling, resizing            rounded on the grid of the input
    maximum, padding, reshaping, slices  hand on the grid of the input
    softmax at the end                   stays as the format has it
    the picture                          0–255, a pixel is its own code; what scales it stays float up to its end
    anything else                        stays float and is named; what it gives is rounded again

Of a `fused` one nothing is rounded between a convolution or a sum and the activation behind it, whatever that is, nor
at the end: ONNX alone has files of that kind. All up to a layer may stay float, in ONNX too.

Runtimes differ in how they round a mean that lies just between two codes, as every fourth mean of four does: behind an
average pooling of an even number of places an activation may be a step off.

Imports errors, models and rewrite; keras with this module: it is imported where it is used.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from featherweight.errors import SettingError
from featherweight.models.blocks import ChannelPad, ChannelSlice
from featherweight.models.heads import Predictions
from featherweight.qat.grid import LEVELS
from featherweight.qat.layers import KERNEL_AXES, FakeQuantize, FakeQuantizedKernel, SameGrid
from featherweight.qat.spelling import function_of, set_weights
from featherweight.rewrite import Graph

Tensor = Any

SCALING = (layers.Rescaling, layers.Normalization)
SAME_GRID = (layers.AveragePooling2D, layers.UpSampling2D)
HANDS_ON = (
    layers.MaxPooling2D,
    layers.GlobalMaxPooling2D,
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.Reshape,
    layers.Flatten,
    layers.Permute,
    layers.Concatenate,
    ChannelPad,
    ChannelSlice,
)
ARITHMETIC = (layers.Add, layers.Subtract, layers.Multiply)
ROUNDED = (*KERNEL_AXES, *ARITHMETIC, layers.GlobalAveragePooling2D)
# The formats give these outputs one grid whatever they are; hard sigmoid's is exact, as its inside is rounded alike.
FIXED = {
    activations.sigmoid: (0.0, 255 / 256),
    activations.softmax: (0.0, 255 / 256),
    activations.tanh: (-1.0, 127 / 128),
    activations.hard_sigmoid: (0.0, 1.0),
}
RELUS = (activations.relu, activations.relu6)
FUNCTIONS = (*RELUS, *FIXED, activations.leaky_relu, activations.hard_silu)
PIXELS = "pixels"


def placed(
    model: keras.Model, shape: tuple[int, ...], float_up_to: str | None = None, fused: bool = False
) -> tuple[keras.Model, tuple[tuple[str, str], ...]]:
    """A copy that rounds, with ranges that are still empty; and what stays float, with the reason.

    Args:
        model: `spelled_out`, of one picture; unchanged.
        shape: of a picture, (h, w, c).
        float_up_to: the layer that stays float, with all that it is computed from.
        fused: as above.

    Raises:
        SettingError: no such layer.
    """
    old = model.inputs[0]
    picture = keras.Input(batch_shape=old.shape, dtype=old.dtype, name=old.name)
    placing = _Placing(model, shape, picture, float_up_to, fused)
    inputs = keras.tree.map_structure(lambda _: picture, model.input)
    copy = keras.models.clone_model(model, input_tensors=inputs, call_function=placing)
    known = {layer.name for layer in model.layers if layer.weights}
    set_weights(copy, model, {one.name: one.get_weights() for one in copy.layers if one.name not in known})
    return copy, tuple(placing.skipped)


class _Placing:
    """Calls each operation of the copy, and what rounds before and behind it."""

    def __init__(
        self, model: keras.Model, shape: tuple[int, ...], picture: Tensor, float_up_to: str | None, fused: bool
    ):
        self.graph, self.fused = Graph(model), fused
        self.originals = {operation.name: operation for operation in model.operations}
        self.floats = frozenset[str]() if float_up_to is None else _up_to(float_up_to, self.originals, self.graph)
        self.scaled = _scaled(model, self.graph, shape)
        self.told = {source_of(one, self.graph) for one in model.operations if type(one) in SAME_GRID}
        self.ranges: dict[str, Tensor] = {}
        self.skipped: list[tuple[str, str]] = []
        self.picture = picture
        self.pixels = self._rounded(picture, PIXELS, (0.0, LEVELS))

    def __call__(self, operation: Any, *args: Any, **kwargs: Any) -> Tensor:
        original, name, kind = self.originals[operation.name], operation.name, type(operation)
        if name in self.floats:
            return self._in_float(operation, original, *args, **kwargs)
        args = keras.tree.map_structure(lambda x: self.pixels if x is self.picture else x, args)
        if kind is layers.Concatenate:
            return operation(self._rounded(list(args[0]), name))
        told = self.ranges.get(source_of(original, self.graph)) if kind in SAME_GRID else None
        if told is not None:
            return SameGrid(operation, name=name)([args[0], told])
        if kind in KERNEL_AXES:
            operation = FakeQuantizedKernel(operation, name=name)
        outputs = operation(*args, **kwargs)
        if _left(original, self.graph, self.fused):
            return outputs
        function = function_of(original)
        if kind not in (*ROUNDED, *SCALING) and function not in FUNCTIONS:
            self.skipped.append(
                (name, f"no rule for {kind.__name__}: it stays float, and what it gives is rounded to 8 bits again")
            )
        if not isinstance(outputs, keras.KerasTensor):
            return outputs
        return self._rounded(outputs, name, self.scaled.get(name, FIXED.get(function)))

    def _in_float(self, operation: Any, original: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Rounded where anything that is not float takes it."""
        outputs = operation(*args, **kwargs)
        takers = self.graph.takers.get(id(original.output), ())
        inside = all(taker.name in self.floats for taker in takers) or not isinstance(outputs, keras.KerasTensor)
        return outputs if inside else self._rounded(outputs, operation.name)

    def _rounded(self, x: Tensor, name: str, fixed: tuple[float, float] | None = None) -> Tensor:
        tells = name in self.told
        outputs = FakeQuantize(fixed, tells, name=f"{name}_quantized")(x)
        if not tells:
            return outputs
        *tensors, self.ranges[name] = outputs
        return tensors if isinstance(x, list) else tensors[0]


def _up_to(name: str, operations: Mapping[str, Any], graph: Graph) -> frozenset[str]:
    """The names of an operation and of all that it is computed from."""
    if name not in operations:
        raise SettingError(f"no layer {name!r} to stay float up to; wanted one of the model's with folded batch norms")
    found, todo = set(), [name]
    while todo:
        if (at := todo.pop()) not in found:
            found.add(at)
            makers = (graph.maker(tensor) for tensor in keras.tree.flatten(operations[at].input))
            todo += [one.name for one in makers if one is not None and not isinstance(one, layers.InputLayer)]
    return frozenset(found)


def _left(operation: Any, graph: Graph, fused: bool) -> bool:
    """Whether nothing is to be rounded behind it."""
    output = operation.output
    if type(operation) in HANDS_ON or (fused and _at_the_end(operation, graph)):
        return True
    if not graph.takers.get(id(output)):
        return function_of(operation) is activations.softmax
    if not graph.once(output):
        return False
    taker = graph.taker(output)
    fuses = type(operation) in (*KERNEL_AXES, *ARITHMETIC) and not _has_relu(operation)
    known = FUNCTIONS if fused else RELUS
    if type(operation) in SCALING:
        return type(taker) in SCALING
    return type(taker) is layers.Concatenate or (fuses and function_of(taker) in known)


def _at_the_end(operation: Any, graph: Graph) -> bool:
    """Whether nothing takes it but what arranges a detector's rows, if anything."""
    takers = graph.takers.get(id(operation.output), ())
    return all(isinstance(taker, Predictions) for taker in takers)


def _has_relu(operation: Any) -> bool:
    return type(operation) in KERNEL_AXES and operation.activation is not activations.linear


def source_of(operation: Any, graph: Graph) -> str:
    """Behind which operation the grid was set that an operation's (first) input lies on."""
    maker = graph.maker(keras.tree.flatten(operation.input)[0])
    while type(maker) in (*HANDS_ON, *SAME_GRID) and type(maker) is not layers.Concatenate:
        maker = graph.maker(maker.input)
    return PIXELS if maker is None or isinstance(maker, layers.InputLayer) else str(maker.name)


def _scaled(model: keras.Model, graph: Graph, shape: tuple[int, ...]) -> dict[str, tuple[float, float]]:
    """What pixels of 0 and 255 become, and so all between, behind each layer that does no more than scale the picture.

    A grid whose steps are as wide as the pixels', but lie half a step beside them (x / 127.5 - 1), would leave each
    rounding to chance; there it is made a little wider.
    """
    ends = np.stack([np.zeros(shape, np.float32), np.full(shape, LEVELS, np.float32)])
    found: dict[str, tuple[float, float]] = {}
    for operation in model.operations:
        if type(operation) in SCALING and source_of(operation, graph) in {PIXELS, *found}:
            values = keras.Model(model.inputs, operation.output).predict_on_batch(ends)
            low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
            half = high > low and 0.4 < -low / (high - low) * LEVELS % 1 < 0.6
            found[operation.name] = (1.01 * low, 1.01 * high) if half else (low, high)
    return found
