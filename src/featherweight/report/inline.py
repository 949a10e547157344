"""Pictures and masks as addresses that hold them, so that a page asks for nothing.

Imports nothing of the package.
"""

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_BYTES = 65_536  # of a picture in a page
QUALITIES = (80, 60, 40, 20, 5)

Colour = tuple[int, int, int]


def jpeg(pixels: NDArray[np.uint8], side: int) -> str:
    """Pixels (h, w, 3), RGB, as a small JPEG whose longer side is at most `side`."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    for quality in QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        if stream.tell() <= MOST_BYTES:
            break
    return _address("jpeg", stream.getvalue())


def png(values: NDArray[np.uint8], palette: Sequence[Colour | None], side: int) -> str:
    """Values (h, w) in colours, by the nearest pixel at most `side` long; `None` is seen through.

    Args:
        values: places in the palette.
        palette: RGB each.
        side: pixels.
    """
    times = min(1.0, side / max(values.shape))
    height, width = (max(1, round(times * length)) for length in values.shape)
    small = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    image = Image.fromarray(np.asarray(small, np.uint8), "P")
    image.putpalette([part for colour in palette for part in colour or (0, 0, 0)])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=bytes(0 if colour is None else 255 for colour in palette), optimize=True)
    return _address("png", stream.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
