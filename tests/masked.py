"""Makers of pictures with masks, 12×8, and of the same masks in every kind of file."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.boxed import picture, write

CLASSES = ("background", "cell", "edge")
COLOURS = np.array([[0, 0, 0], [200, 30, 30], [10, 90, 250]], np.uint8)
HEIGHT, WIDTH = 8, 12


def truth(seed: int, classes: int = 3) -> NDArray[np.uint8]:
    """A mask (8, 12) that shows every class."""
    mask = np.random.default_rng(seed).integers(0, classes, (HEIGHT, WIDTH)).astype(np.uint8)
    mask[0, :classes] = range(classes)
    return mask


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def grey(mask: NDArray[np.uint8]) -> bytes:
    return encoded(Image.fromarray(mask))


def palette(mask: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette(COLOURS[::-1].ravel().tolist())
    return encoded(image)


def coloured(mask: NDArray[np.uint8]) -> bytes:
    return encoded(Image.fromarray(COLOURS[mask]))


def bmp(mask: NDArray[np.uint8]) -> bytes:
    return encoded(Image.fromarray(mask), "BMP")


def low_bits(mask: NDArray[np.uint8], depth: int) -> bytes:
    """A grey PNG of 2 or 4 bits, which Pillow does not write."""
    bits = np.unpackbits(mask[:, :, None], axis=2)[:, :, 8 - depth :].reshape(len(mask), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def shot(seed: int) -> bytes:
    """The picture to a mask."""
    return picture(seed, WIDTH, HEIGHT)


def folder(
    root: Path,
    write_mask: Callable[[NDArray[np.uint8]], bytes] = grey,
    names: str | None = "classes.txt",
    count: int = 10,
    classes: int = 3,
) -> Path:
    """images/ and masks/ of `count` pictures; `names` is the file that names the classes."""
    for seed in range(count):
        write(root / "images" / f"{seed}.png", shot(seed))
        write(root / "masks" / f"{seed}.png", write_mask(truth(seed, classes)))
    if names == "classes.txt":
        write(root / names, "\n".join(CLASSES[:classes]))
    elif names:
        rows = [f"{name},{','.join(map(str, colour))}" for name, colour in zip(CLASSES, COLOURS.tolist(), strict=True)]
        write(root / names, "name,r,g,b\n" + "\n".join(rows))
    return root


def coco_of(images: dict[str, list[dict[str, object]]], names: tuple[str, ...] = CLASSES[1:]) -> str:
    """COCO's JSON of annotations, each with a category's number from 1 and a segmentation."""
    return json.dumps(
        {
            "images": [
                {"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in enumerate(images)
            ],
            "annotations": [{"image_id": n, "bbox": [0, 0, 2, 2], **one} for n, found in enumerate(images.values())
                            for one in found],
            "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
        }
    )  # fmt: skip
