"""The one decoder: bytes of a picture → upright RGB, 0–255. Training, evaluation and prediction all go through here.

What it settles, once for all of them:
- The format is told by the first bytes, not by the name: JPEG, PNG, BMP, WebP, GIF (its first frame).
- Size caps are checked in the header, before a pixel is decoded.
- EXIF orientation is applied. Grey, palette, CMYK and 16-bit become 8-bit RGB; alpha is laid over white.
- A truncated file is an error, never a half-grey picture.

Imports nothing of the package but errors.
"""

import io
import struct
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from featherweight.errors import ImageError

Pixels = NDArray[np.uint8]

MAX_BYTES = 100 * 2**20
MAX_PIXELS = 80_000_000
MAX_SIDE = 65_500

# The readers by a file's first bytes. Pillow's `open` would also try some thirty formats that nobody photographs in,
# and each of them is a way in for a hostile file.
_READERS = (
    (b"\xff\xd8\xff", "JPEG", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImagePlugin.PngImageFile),
    (b"BM", "BMP", BmpImagePlugin.BmpImageFile),
    (b"RIFF", "WebP", WebPImagePlugin.WebPImageFile),
    (b"GIF87a", "GIF", GifImagePlugin.GifImageFile),
    (b"GIF89a", "GIF", GifImagePlugin.GifImageFile),
)
_KNOWN_OTHERS = (
    (b"<!DOCTYPE", "an HTML page"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"version https://git-lfs", "a Git LFS pointer (fetch the real file with git lfs pull)"),
    (b"II*\x00", "a TIFF file"),
    (b"MM\x00*", "a TIFF file"),
    (b"%PDF", "a PDF file"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG file"),
    (b"%!PS", "a PostScript file"),
)
_ORIENTATION = 0x0112
# EXIF orientation → what makes the picture upright (EXIF 2.32, tag 0x0112); 1 is upright already.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path) -> Pixels:
    """The picture in a file, (h, w, 3) RGB.

    Raises:
        ImageError: as `decode`, or the file cannot be read.
    """
    return decode(read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a picture file, at most `MAX_BYTES`.

    Raises:
        ImageError: not there, not a regular file, not readable, empty or too large.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a pipe or a device would block for ever
            raise ImageError("no such file" if not path.exists() else "not a regular file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImageError(f"{size:,} bytes; at most {MAX_BYTES:,} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if not data:
        raise ImageError("empty file")
    return data


def decode(data: bytes) -> Pixels:
    """The picture in `data`, upright, (h, w, 3) RGB, 0–255.

    Raises:
        ImageError: not one of the formats, over the caps, damaged or truncated.
    """
    kind, reader = _identify(data)
    try:
        with reader(io.BytesIO(data)) as image:
            _check_size(*image.size)
            orientation = _orientation(image)
            pixels = _decode_jpeg(data, image) if kind == "JPEG" and image.mode in ("RGB", "L") else _to_rgb(image)
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error, OverflowError, IndexError) as error:
        # Pillow answers damage with any of these, depending on the format.
        raise ImageError(f"damaged {kind}: {' '.join(str(error).split()) or type(error).__name__}") from error
    except (TypeError, MemoryError, Image.DecompressionBombError) as error:
        raise ImageError(f"damaged {kind}: {type(error).__name__}") from error
    return _upright(pixels, orientation)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Stretch to (height, width, 3), bilinear with antialiasing; the aspect ratio is not kept, nothing is cut off."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def decoder_versions() -> dict[str, str]:
    """The versions that decide on a pixel's last bit."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pillow", "simplejpeg")}


def _identify(data: bytes) -> tuple[str, type[ImageFile.ImageFile]]:
    for magic, kind, reader in _READERS:
        if data.startswith(magic) and (kind != "WebP" or data[8:12] == b"WEBP"):
            return kind, reader
    start = data.lstrip()[:32]
    for magic, what in _KNOWN_OTHERS:
        if start.startswith(magic):
            raise ImageError(f"{what}, not a picture")
    raise ImageError("not a JPEG, PNG, BMP, WebP or GIF file")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels; at most {MAX_PIXELS:,} are read, no side over {MAX_SIDE:,}")


def _decode_jpeg(data: bytes, image: Image.Image) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        # simplejpeg refuses harmless oddities too; Pillow takes those and refuses real damage.
        return _to_rgb(image)
    return pixels


def _to_rgb(image: Image.Image) -> Pixels:
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own conversion would clip all above 255 to white.
        values = np.asarray(image).astype(np.float64)
        grey = np.clip(np.round(values / 257.0), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", with_alpha.size, (255, 255, 255, 255)), with_alpha)
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or the EXIF block is broken: the pixels are still good."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(Image.fromarray(pixels).transpose(turn))
