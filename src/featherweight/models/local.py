"""A convolution with a kernel of its own at every place, as YOLOv1 has one. Redmon et al. 2016, arXiv 1506.02640, §2.1.

Keras 3 has none any more. Imports errors; keras with this module: it is imported where it is used.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from featherweight.errors import SettingError

Tensor = Any
MOST = 2**16  # filters, or the side of a window


@keras.saving.register_keras_serializable(package="featherweight")
class LocalConvolution(layers.Layer):  # type: ignore[misc]
    """A k×k window with weights of its own at each place of the map: h · w · k² · c · filters multiplications, and as
    many weights. For one input size.
    """

    def __init__(self, filters: int, size: int, stride: int = 1, padding: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        whole = all(type(one) is int for one in (filters, size, stride, padding))
        if not whole or min(filters, size, stride, padding + 1) < 1 or max(filters, size, stride, padding) > MOST:
            raise SettingError(f"{filters} filters of size {size}, stride {stride}, padding {padding}; wanted 1, 2, …")
        self.filters, self.size, self.stride, self.padding = filters, size, stride, padding

    def places(self, shape: Sequence[int | None]) -> tuple[int, int]:
        """(height, width) of what is given for an input (n, h, w, c)."""
        if len(shape) != 4 or None in shape[1:]:
            raise SettingError(f"{self.name} is given {tuple(shape)}; wanted a map of a fixed size")
        down, across = ((int(s or 0) + 2 * self.padding - self.size) // self.stride + 1 for s in shape[1:3])
        if min(down, across) < 1:
            raise SettingError(f"{self.name} is given {tuple(shape)}; wanted a map that its window fits into")
        return down, across

    def build(self, shape: Sequence[int | None]) -> None:
        """Make the kernels (places, k · k · c, filters) and biases (places, filters)."""
        down, across = self.places(shape)
        self.kernel = self.add_weight((down * across, self.size**2 * (shape[-1] or 0), self.filters), name="kernel")
        self.bias = self.add_weight((down * across, self.filters), "zeros", name="bias")
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        """(n, h, w, c) → (n, h', w', filters)."""
        down, across = self.places(x.shape)
        x = ops.pad(x, [[0, 0], [self.padding, self.padding], [self.padding, self.padding], [0, 0]])
        far = self.stride * (down - 1) + 1, self.stride * (across - 1) + 1
        parts = [
            x[:, row : row + far[0] : self.stride, column : column + far[1] : self.stride, :]
            for row in range(self.size)
            for column in range(self.size)
        ]
        patches = ops.reshape(ops.concatenate(parts, -1), (-1, down * across, 1, self.size**2 * x.shape[-1]))
        y = ops.matmul(patches, self.kernel)
        y = ops.reshape(y, (-1, down * across, self.filters)) + self.bias
        return ops.reshape(y, (-1, down, across, self.filters))

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Also refuses a map of open size."""
        return (shape[0], *self.places(shape), self.filters)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        settings = {"filters": self.filters, "size": self.size, "stride": self.stride, "padding": self.padding}
        return {**super().get_config(), **settings}


OWN_LAYERS = (LocalConvolution,)
