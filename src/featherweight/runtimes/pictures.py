"""How a model file takes a picture, and what its 8-bit answers stand for: axes, size, type of number.

A picture is RGB 0–255. A float file gets these values; an 8-bit one gets a pixel's byte as its own code, and a signed
one the byte less 128: both are what cameras and converters mean by an 8-bit picture, and exact for our own files.

Imports errors only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from featherweight.errors import RuntimeFailure, SettingError

Side = int | str | None  # a size that a file leaves open has a name or none
WANTED = "one picture, [1, height, width, 3] or [1, 3, height, width], of 8-bit or float numbers"
TYPES = ("float32", "float16", "uint8", "int8")


class Entry:
    """The buffer that a session reads its picture from, in the file's own order of axes and type of number.

    Args:
        height: pixels.
        width: pixels.
        channels_first: (1, 3, height, width) rather than (1, height, width, 3).
        dtype: one of `TYPES`.
    """

    def __init__(self, height: int, width: int, channels_first: bool, dtype: DTypeLike):
        self.height, self.width = height, width
        shape = (1, 3, height, width) if channels_first else (1, height, width, 3)
        self.buffer: NDArray[np.generic] = np.zeros(shape, dtype)
        view = self.buffer.transpose(0, 2, 3, 1) if channels_first else self.buffer
        self._signed = view.dtype == np.int8
        self._view = view.view(np.uint8) if self._signed else view
        self._shape = view.shape
        self._as_is = view.dtype == np.uint8 and not channels_first

    def fill(self, batch: NDArray[np.uint8]) -> None:
        """Put a picture (1, height, width, 3) into the buffer.

        Raises:
            RuntimeFailure: a picture of another size.
        """
        if batch.shape != self._shape:
            raise RuntimeFailure(f"the picture is {batch.shape}; wanted {self._shape}")
        if self._signed:
            np.bitwise_xor(batch, 128, out=self._view)  # a byte less 128, in two's complement
        else:
            np.copyto(self._view, batch, casting="unsafe")

    def take(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """The picture as the file wants it: itself where it is so already, else the filled buffer.

        Raises:
            RuntimeFailure: a picture of another size.
        """
        if self._as_is and batch.shape == self._shape:
            return batch
        self.fill(batch)
        return self.buffer

    def __str__(self) -> str:
        return f"{self.buffer.dtype} {'×'.join(str(side) for side in self.buffer.shape)}"


def entry_of(path: Path, shape: Sequence[Side], dtype: str, input_size: tuple[int, int] | None) -> Entry:
    """The entry of a file's only input.

    Args:
        path: the file, for messages.
        shape: of the input; a size that is no number is open.
        dtype: NumPy's name of its numbers.
        input_size: (height, width) for what is open.

    Raises:
        RuntimeFailure: the input is no picture, or leaves its size open and no size was given.
        SettingError: a size was given and the file's own is another.
    """
    given = f"{path} takes {dtype} [{', '.join(str(side or '?') for side in shape)}]"
    one = len(shape) == 4 and (not isinstance(shape[0], int) or shape[0] == 1)
    if not one or 3 not in (shape[1], shape[3]) or dtype not in TYPES:
        raise RuntimeFailure(f"{given}; wanted {WANTED}")
    channels_first = shape[1] == 3 and shape[3] != 3
    own = shape[2:] if channels_first else shape[1:3]
    height, width = (_side(given, side, place, input_size) for place, side in enumerate(own))
    return Entry(height, width, channels_first, dtype)


def _side(given: str, own: Side, place: int, input_size: tuple[int, int] | None) -> int:
    fixed = own if isinstance(own, int) and own > 0 else None
    if input_size is None:
        if fixed is None:
            raise RuntimeFailure(f"{given} and leaves its size open; give it with --input")
        return fixed
    if fixed is not None and fixed != input_size[place]:
        raise SettingError(f"{given}; its size is fixed and cannot become {input_size[0]}×{input_size[1]}")
    return input_size[place]


class Answer:
    """What the numbers of an output stand for.

    Args:
        dtype: of the output.
        scale: a code of 8 or 16 bits stands for (code - zero point) * scale; 0 says that numbers are their own values.
        zero_point: the code that stands for 0.
    """

    def __init__(self, dtype: DTypeLike, scale: float = 0.0, zero_point: float = 0.0):
        kind = np.dtype(dtype)
        self._is_real = kind == np.float32
        self._values: NDArray[np.float32] | None = None
        if scale and kind.kind in "iu" and kind.itemsize <= 2:
            self._bits = np.dtype(f"u{kind.itemsize}")
            codes = np.arange(1 << 8 * kind.itemsize, dtype=self._bits).view(kind).astype(np.float32)
            self._values = (codes - np.float32(zero_point)) * np.float32(scale)  # at the place of each code's bits

    def real(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """An output as real numbers; float32 without codes stays the same array."""
        if self._values is not None:
            return self._values.take(output.view(self._bits))
        return output if self._is_real else output.astype(np.float32)
