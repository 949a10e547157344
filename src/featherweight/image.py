"""The one decoder: bytes of a picture → upright RGB, 0–255. Training, evaluation and prediction all go through here.

What it settles, once for all of them:
- The format is told by the first bytes, not by the name: JPEG, PNG, BMP, WebP, GIF (its first frame).
- Size caps are checked in the header, before a pixel is decoded.
- EXIF orientation is applied. Grey, palette, CMYK and 16-bit become 8-bit RGB; alpha is laid over white.
- A truncated file is an error, never a half-grey picture; so is a JPEG whose pixel data end early or are unreadable.
- Broken metadata are no error: what is not pixels or orientation is passed over, without a warning.

Imports boxes and errors.
"""

import io
import struct
from pathlib import Path
from typing import Protocol

import cv2
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

from featherweight.boxes import area_of, middle
from featherweight.errors import ImageError

Pixels = NDArray[np.uint8]

MAX_BYTES = 100 * 2**20
MAX_PIXELS = 80_000_000
MAX_SIDE = 65_500
GREY = 127  # beside a picture in a letterbox: Darknet's 0.5


class _JpegReader(JpegImagePlugin.JpegImageFile):
    """Pillow's, without its own reading of EXIF (for the resolution), which warns where the block is broken."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


# The readers by a file's first bytes. Pillow's `open` would also try some thirty formats that nobody photographs in,
# and each of them is a way in for a hostile file.
_READERS = (
    (b"\xff\xd8\xff", "JPEG", _JpegReader),
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
# The PNG chunks that decide on a pixel. Pillow sees no others: texts and profiles can be bombs, animation is unwanted.
_PNG_CHUNKS = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
# What libjpeg says where pixels are lost; its other complaints are about bytes between the segments.
_JPEG_LOSSES = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst")
_ORIENTATION = 0x0112
_EXIF_INTEGERS = {1: "B", 3: "H", 4: "I"}  # the TIFF types that an orientation comes in; 3 is the proper one
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


class Rows(Protocol):
    """A picture that is read from above to below; a file is closed at the end of a `with`."""

    height: int
    width: int

    def read(self, count: int) -> Pixels:
        """The next rows, (count, width, 3) RGB.

        Raises:
            ImageError: the file is damaged, or ends before.
        """
        ...

    def __enter__(self) -> "Rows": ...

    def __exit__(self, *_: object) -> None: ...


class Whole:
    """A picture (h, w, 3) in memory, by rows."""

    def __init__(self, pixels: Pixels):
        self.height, self.width = pixels.shape[:2]
        self._pixels, self._next = pixels, 0

    def read(self, count: int) -> Pixels:
        """The next rows, (count, width, 3)."""
        start, self._next = self._next, self._next + count
        return self._pixels[start : self._next]

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, *_: object) -> None:
        pass


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
    exif = b""
    try:
        if kind == "PNG":
            data, exif = _essential_png(data)
        elif kind == "GIF":
            _check_gif(data)
        with reader(io.BytesIO(data)) as image:
            _check_size(*image.size)
            pixels = _decode_jpeg(data, image) if kind == "JPEG" else to_rgb(image)
            exif = exif or image.info.get("exif", b"")
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error, OverflowError, IndexError) as error:
        # Pillow answers damage with any of these, depending on the format.
        raise ImageError(f"damaged {kind}: {' '.join(str(error).split()) or type(error).__name__}") from error
    except Image.DecompressionBombError as error:  # the WebP reader looks at the size before we can
        raise ImageError(f"over {MAX_PIXELS:,} pixels, the most that are read") from error
    except (TypeError, MemoryError) as error:
        raise ImageError(f"damaged {kind}: {type(error).__name__}") from error
    return _upright(pixels, _orientation(exif))


def resize(pixels: Pixels, height: int, width: int, rule: str = "stretch") -> Pixels:
    """To (height, width, 3); nothing is cut off, but by the rule tile.

    Bilinear; where a side shrinks to half or less, each target pixel is the mean of the area it covers, as bilinear
    alone would skip pixels there.

    Args:
        pixels: (h, w, 3) RGB.
        height: pixels.
        width: pixels.
        rule: stretch, which does not keep the aspect ratio; letterbox, which does, centred on grey (`GREY`);
            bilinear, a stretch that skips pixels; or tile, the middle at its own scale, mirrored where the picture is
            smaller: one of the tiles that `tiles` cuts all of.

    Raises:
        SettingError: an unknown rule.
    """
    left, top, inner_width, inner_height = area_of(rule, (pixels.shape[0], pixels.shape[1]), (height, width))
    if rule == "tile":
        return middle(pixels, height, width)
    inner = _stretched(pixels, inner_height, inner_width, may_skip=rule == "bilinear")
    if inner.shape[:2] == (height, width):
        return inner
    boxed = np.full((height, width, 3), GREY, np.uint8)
    boxed[top : top + inner_height, left : left + inner_width] = inner
    return boxed


def _stretched(pixels: Pixels, height: int, width: int, may_skip: bool) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    skips = pixels.shape[0] >= 2 * height or pixels.shape[1] >= 2 * width
    kind = cv2.INTER_AREA if skips and not may_skip else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=kind), np.uint8)


def decoder_versions() -> dict[str, str]:
    """The versions that decide on a pixel's last bit."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pillow", "simplejpeg", "opencv-python-headless")}


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


def _essential_png(data: bytes) -> tuple[bytes, bytes]:
    """(the PNG with nothing but the chunks that decide on pixels, its EXIF block or nothing)."""
    kept, exif, start = [data[:8]], b"", 8
    while start + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        if name == b"IHDR" and length == 13 and start + 16 <= len(data):
            _check_size(*struct.unpack_from(">II", data, start + 8))
        end = start + 12 + length  # length, name and checksum are 4 bytes each
        if name in _PNG_CHUNKS:
            kept.append(data[start:end])
        elif name == b"eXIf":
            exif = data[start + 8 : end - 4]
        if name == b"IEND":
            return b"".join(kept), exif
        start = end
    raise ImageError("damaged PNG: truncated, it has no IEND chunk")


def _check_gif(data: bytes) -> None:
    """Walk through the blocks: all there up to the trailer, and no frame over the caps."""

    def table(flags: int) -> int:
        return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0

    frames = 0
    try:
        screen_width, screen_height, flags = struct.unpack_from("<HHB", data, 6)
        start = 13 + table(flags)
        while data[start] in b"\x21\x2c":
            if data[start] == 0x2C:  # a frame: its place and size, perhaps a palette, the code size
                left, top, width, height, flags = struct.unpack_from("<4HB", data, start + 1)
                _check_size(max(screen_width, left + width), max(screen_height, top + height))
                frames += 1
                start += 11 + table(flags)
            else:  # an extension: its label
                start += 2
            while data[start]:
                start += 1 + data[start]
            start += 1
    except (IndexError, struct.error) as error:
        raise ImageError("damaged GIF: truncated, it ends within a frame or has no trailer") from error
    if not frames:
        raise ImageError("damaged GIF: no frame")


def _decode_jpeg(data: bytes, image: Image.Image) -> Pixels:
    in_rgb = image.mode in ("RGB", "L")
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB" if in_rgb else "CMYK")
    except ValueError as error:
        # Pillow takes the harmless oddities that simplejpeg refuses, but it would leave lost pixels grey.
        if any(loss in str(error).lower() for loss in _JPEG_LOSSES):
            raise
        return to_rgb(image)
    return pixels if in_rgb else to_rgb(image)


def to_rgb(image: Image.Image) -> Pixels:
    """A picture as Pillow has it → (h, w, 3) RGB, 0–255; alpha is laid over white."""
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own conversion would clip all above 255 to white.
        values = np.asarray(image).astype(np.float64)
        grey = np.clip(np.round(values / 257.0), 0, 255).astype(np.uint8)
        grey[values == image.info.get("transparency")] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", with_alpha.size, (255, 255, 255, 255)), with_alpha)
    return np.asarray(image.convert("RGB"))


def _orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 where there is none or the block is broken: the pixels are still good.

    Not Pillow's `getexif`: that reads every tag, and warns where one is broken.
    """
    tiff = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION:
                return int(struct.unpack_from(order + _EXIF_INTEGERS[kind], tiff, entry + 8)[0])
    except (struct.error, KeyError):
        return 1
    return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(Image.fromarray(pixels).transpose(turn))
