"""A model spelled out in the operations that int8 files are made of, so that each rounding has a place to stand.

- A separable convolution is a depthwise and a pointwise one.
- An activation other than ReLU inside a layer stands behind it; x · sigmoid(x) is a sigmoid and a product.
- A batch norm that could not be folded is a depthwise 1×1 convolution.
- A sum of more than two is a sum of sums; what adds, subtracts or multiplies tensors without a layer becomes one.
- ReLU6(x + 3) · (1/6), written out as in `keras.applications.MobileNetV3`, is a hard sigmoid.
- What does nothing at inference (dropout) is left out: fine-tuning to rounding is short, and ranges should be those of
  inference.

Outputs at inference are equal. Imports models; keras with this module: it is imported where it is used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import activations, layers
from numpy.typing import NDArray

from featherweight.models.copying import set_layer_weights
from featherweight.qat.layers import KERNEL_AXES

Tensor = Any
Weights = Mapping[str, Sequence[NDArray[Any]]]

NOTHING_AT_INFERENCE = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)
# A kernel and one of these are one operation.
FUSED = (activations.linear, activations.relu, activations.relu6)
# Operations on tensors by the names of their classes → the layers that do the same.
LAYERS = {"Add": layers.Add, "Subtract": layers.Subtract, "Multiply": layers.Multiply}


def spelled_out(model: keras.Model) -> keras.Model:
    """An equal model.

    Args:
        model: functional, of layers that are used once; unchanged.
    """
    spelling = _Spelling(model)
    copy = keras.models.clone_model(model, call_function=spelling)
    set_weights(copy, model, spelling.weights)
    return copy


def set_weights(copy: keras.Model, model: keras.Model, weights: Weights) -> None:
    """Give the layers of a copy the named weights or those of the model's layer of their name, in place."""
    for layer in copy.layers:
        if layer.weights:
            named = weights.get(layer.name)
            set_layer_weights(layer, model.get_layer(layer.name).get_weights() if named is None else named)


def function_of(operation: Any) -> Any:
    """The activation that a layer is, or `None`."""
    kind = type(operation)
    if kind is layers.Activation:
        return operation.activation
    if kind is layers.ReLU and operation.negative_slope == operation.threshold == 0:
        return {None: activations.relu, 6: activations.relu6}.get(operation.max_value)
    return {layers.Softmax: activations.softmax, layers.LeakyReLU: activations.leaky_relu}.get(kind)


class _Spelling:
    """Calls each operation of the copy, or others that do the same."""

    def __init__(self, model: keras.Model):
        self.model = model
        self.weights: dict[str, Sequence[NDArray[Any]]] = {}
        # x + 3 and ReLU6(x + 3) that were met → x. The tensors are kept, so that no other has their id.
        self.shifted: dict[int, tuple[Tensor, Tensor]] = {}
        self.clipped: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Tensor:
        kind, x, function = type(layer), args[0], function_of(layer)
        if kind in NOTHING_AT_INFERENCE or function is activations.linear:
            return x
        if kind is layers.SeparableConv2D:
            return self._separable(self.model.get_layer(layer.name), x)
        if kind in KERNEL_AXES and layer.activation not in FUSED:
            linear = type(layer).from_config({**layer.get_config(), "activation": "linear"})
            return _activated(linear(x), layer.activation, layer.name)
        if kind is layers.BatchNormalization and len(x.shape) == 4 and self._is_over_channels(layer.name):
            return self._as_convolution(self.model.get_layer(layer.name), x)
        if function is activations.silu:
            return _activated(x, function, layer.name)
        if kind is layers.Add and len(x) > 2:
            return _sum_of_sums(x, layer.name)
        if not isinstance(layer, layers.Layer) and kind.__name__ in LAYERS and len(args) == 2:
            return self._arithmetic(layer, *args)
        y = layer(*args, **kwargs)
        if function is activations.relu6 and id(x) in self.shifted:
            self.clipped[id(y)] = y, self.shifted[id(x)][1]
        return y

    def _arithmetic(self, operation: Any, a: Any, b: Any) -> Tensor:
        """A layer in place of an operation on two tensors; a tensor and a number may be a part of a hard sigmoid."""
        kind = type(operation).__name__
        if isinstance(a, keras.KerasTensor) and isinstance(b, keras.KerasTensor):
            return LAYERS[kind](name=operation.name)([a, b])
        if kind == "Multiply" and id(a) in self.clipped and b == 1 / 6:
            return layers.Activation(activations.hard_sigmoid, name=operation.name)(self.clipped[id(a)][1])
        y = operation(a, b)
        if kind == "Add" and isinstance(b, float | int) and b == 3:
            self.shifted[id(y)] = y, a
        return y

    def _separable(self, layer: Any, x: Tensor) -> Tensor:
        depthwise, *pointwise = layer.get_weights()
        names = f"{layer.name}_depthwise", f"{layer.name}_pointwise"
        self.weights |= {names[0]: [depthwise], names[1]: pointwise}
        x = layers.DepthwiseConv2D(
            layer.kernel_size,
            layer.strides,
            layer.padding,
            depth_multiplier=layer.depth_multiplier,
            dilation_rate=layer.dilation_rate,
            use_bias=False,
            name=names[0],
        )(x)
        x = layers.Conv2D(layer.filters, 1, use_bias=layer.use_bias, name=names[1])(x)
        return _activated(x, layer.activation, layer.name)

    def _is_over_channels(self, name: str) -> bool:
        axes = self.model.get_layer(name).axis
        return [axis % 4 for axis in (axes if isinstance(axes, list | tuple) else [axes])] == [3]

    def _as_convolution(self, norm: Any, x: Tensor) -> Tensor:
        """A batch norm: γ (x - μ) / √(σ² + ε) + β."""
        variance = np.asarray(norm.moving_variance, np.float64)
        scale = (np.asarray(norm.gamma, np.float64) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
        shift = (np.asarray(norm.beta, np.float64) if norm.center else 0.0) - np.asarray(norm.moving_mean) * scale
        self.weights[norm.name] = [scale.reshape(1, 1, -1, 1), shift]
        return layers.DepthwiseConv2D(1, name=norm.name)(x)


def _activated(x: Tensor, function: Any, name: str) -> Tensor:
    """The activation as a layer or two; a ReLU joins what is before it later on."""
    if function is activations.silu:
        gate = layers.Activation(activations.sigmoid, name=f"{name}_sigmoid")(x)
        return layers.Multiply(name=f"{name}_silu")([x, gate])
    return x if function is activations.linear else layers.Activation(function, name=f"{name}_activation")(x)


def _sum_of_sums(parts: Sequence[Tensor], name: str) -> Tensor:
    x = parts[0]
    for number, part in enumerate(parts[1:-1], 1):
        x = layers.Add(name=f"{name}_{number}")([x, part])
    return layers.Add(name=name)([x, parts[-1]])
