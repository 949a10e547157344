"""The layers of a fake-quantized model: they round to what int8 can hold, and let gradients through.

Rounding has no useful gradient; both pass on the one of the value before rounding (straight-through: Bengio et al.
2013, arXiv 1308.3432). An activation beyond its range gets none, as moving it changes nothing.

In scope: rounding, ranges. Not aware of: where in a model they stand. Imports grid and, with this module, keras: it is
imported where it is used. A `.keras` file with these layers loads once this module is imported.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from featherweight.qat.grid import KERNEL_LEVELS, LEVELS, Grid

Tensor = Any

# The layers whose kernels are rounded → the axes along which a kernel has one scale: all but the output channels.
KERNEL_AXES: dict[type, tuple[int, ...]] = {
    layers.Conv2D: (0, 1, 2),  # (h, w, in, out)
    layers.DepthwiseConv2D: (0, 1),  # (h, w, in, filters of each)
    layers.Conv2DTranspose: (0, 1, 3),  # (h, w, out, in)
    layers.Dense: (0,),  # (in, out)
}
# A tensor that is never but 0 has the range of one that has not been seen.
SMALLEST_SPREAD = 1e-7


def rounded_activation(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The tensor on this grid, clipped to its ends. dy/dx is 1 between them and 0 beyond."""
    inside = ops.clip(x, -zero_point * scale, (LEVELS - zero_point) * scale)
    return _straight_through(inside, ops.round(inside / scale) * scale)


def rounded_kernel(kernel: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The kernel on its grid, symmetric about 0, whose ends are its own greatest values: nothing is clipped and dy/dx
    is 1. `axes` are those along which the scale is the same.
    """
    largest = ops.stop_gradient(ops.max(ops.abs(kernel), axis=axes, keepdims=True))
    scale = ops.where(largest > 0, largest / KERNEL_LEVELS, 1.0)
    return _straight_through(kernel, ops.round(kernel / scale) * scale)


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    return x + ops.stop_gradient(rounded - x)


def scale_and_zero_point(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The grid of a range with low ≤ 0 ≤ high."""
    spread = high - low
    scale = ops.where(spread > SMALLEST_SPREAD, spread, 1.0) / LEVELS
    return scale, ops.round(-low / scale)


@keras.saving.register_keras_serializable(package="featherweight")
class FakeQuantize(layers.Layer):  # type: ignore[misc]
    """Rounds a tensor, or several on one grid, to 8 bits.

    The range moves in training by `rate` of the way to that of the batch; 0 freezes it. It always holds 0, which
    padding needs. A `fixed` range (low, high) never moves. With `tells`, the last output is the range, (2,), for
    `SameGrid`.
    """

    def __init__(self, fixed: Sequence[float] | None = None, tells: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.tells = tells

    def build(self, shape: Any) -> None:
        """Make the range: empty, if it is not fixed."""
        self.range = self.add_weight(shape=(2,), initializer="zeros", trainable=False, name="range")
        self.rate = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rate")
        if self.fixed is not None:
            self.range.assign(self.fixed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """A tensor or a list of tensors → the same, rounded; where the range is told, a list with it behind them."""
        tensors = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if training and self.fixed is None:
            self._follow(tensors)
        low, high = self.range[0], self.range[1]
        scale, zero_point = scale_and_zero_point(low, high)
        outputs = [rounded_activation(x, scale, zero_point) for x in tensors]
        if self.tells:
            return [*outputs, ops.stack([low, high])]
        return outputs if isinstance(inputs, list | tuple) else outputs[0]

    def compute_output_spec(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Dense tensors: Keras 3.15 takes the product of a tensor and a number for a sparse one."""
        several = isinstance(inputs, list | tuple)
        outputs = [keras.KerasTensor(x.shape, self.compute_dtype) for x in (inputs if several else [inputs])]
        if self.tells:
            return [*outputs, keras.KerasTensor((2,), self.compute_dtype)]
        return outputs if several else outputs[0]

    def grid(self) -> Grid:
        """The grid as it stands, with the very numbers that `call` rounds by."""
        scale, zero_point = scale_and_zero_point(self.range[0], self.range[1])
        return Grid(float(ops.convert_to_numpy(scale)), int(ops.convert_to_numpy(zero_point)))

    def _follow(self, tensors: list[Tensor]) -> None:
        low = high = 0.0
        for x in tensors:
            low, high = ops.minimum(low, ops.min(x)), ops.maximum(high, ops.max(x))
        self.range.assign(self.range + self.rate * (ops.stack([low, high]) - self.range))

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "fixed": self.fixed, "tells": self.tells}


@keras.saving.register_keras_serializable(package="featherweight")
class SameGrid(layers.Wrapper):  # type: ignore[misc]
    """A layer whose output is rounded on the grid of its input, as average pooling in LiteRT's int8 files."""

    def build(self, shapes: Any) -> None:
        """Build the layer inside."""
        super().build(shapes[0])

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """[input, the range that its `FakeQuantize` tells] → the layer's output."""
        x, told = inputs
        scale, _ = scale_and_zero_point(told[0], told[1])
        # In whole numbers, as kernels of integers do it, so that halves are halves.
        outputs = self.layer(_straight_through(x / scale, ops.round(x / scale)))
        return _straight_through(outputs, ops.round(outputs)) * scale


@keras.saving.register_keras_serializable(package="featherweight")
class FakeQuantizedKernel(layers.Wrapper):  # type: ignore[misc]
    """A convolution or dense layer that works with its kernel rounded to int8; the kernel itself stays float and is
    what is trained.
    """

    def call(self, x: Tensor) -> Tensor:
        """As the layer inside."""
        inner = self.layer
        axes = KERNEL_AXES[type(inner)]

        def values(variables: list[Any]) -> list[Tensor]:
            return [rounded_kernel(v, axes) if v is inner.kernel else ops.convert_to_tensor(v) for v in variables]

        outputs, _ = inner.stateless_call(values(inner.trainable_variables), values(inner.non_trainable_variables), x)
        return outputs
