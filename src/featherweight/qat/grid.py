"""The grids of int8: which values an activation, a kernel and a bias can take.

    activation   (code - zero point) · scale, codes 0 to 255, one grid a tensor; 0 is always on it
    kernel       code · scale, codes -127 to 127, one scale an output channel
    bias         code · (scale of the input) · (scale of the kernel), codes of 32 bits

LiteRT's int8 files and ONNX' QDQ both hold these. Jacob et al. 2018, arXiv 1712.05877, §2. Imports nothing of the
package.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 255
KERNEL_LEVELS = 127
# Larger codes of a bias are no whole numbers in float32 any more; such a bias is so fine that rounding changes nothing.
EXACT = 2.0**23

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """The 256 values of an activation."""

    scale: float
    zero_point: int  # the code of 0, 0–255

    @property
    def low(self) -> float:
        """The least value, at most 0."""
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        """The greatest value, at least 0."""
        return (LEVELS - self.zero_point) * self.scale


def kernel_scales(kernel: Array, axes: tuple[int, ...]) -> Array:
    """The scale of each output channel, with the axes that it is the same along kept as 1.

    A channel of zeros has scale 1.
    """
    largest = np.max(np.abs(kernel), axis=axes, keepdims=True)
    return np.where(largest > 0, largest / KERNEL_LEVELS, 1).astype(np.float32)


def on_kernel_grid(kernel: Array, axes: tuple[int, ...]) -> Array:
    """The kernel rounded to its grid."""
    scales = kernel_scales(kernel, axes)
    return (np.round(kernel / scales) * scales).astype(np.float32)


def on_bias_grid(bias: Array, input_scale: float, scales: Array) -> Array:
    """The bias (channels,) rounded to its grid, for a kernel with these scales."""
    steps = input_scale * scales.astype(np.float64).ravel()
    codes = bias / steps
    return np.where(np.abs(codes) < EXACT, np.round(codes) * steps, bias).astype(np.float32)
