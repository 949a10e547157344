"""Pictures read, and index masks written, by rows: for those that are too large for memory.

    open_rows   a picture's file, by rows: PNG, BMP, PPM and NPY of any size; others as `image` reads them
    IndexPng    a mask as a PNG with a palette, rows as they come

A PNG is inflated as far as rows are asked for; the rows are wrapped as a small PNG of their own, with the row above
them in front, and decoded as any other. Of pictures that are too large EXIF is not looked at.

Imports errors and image.
"""

import io
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from featherweight.errors import ImageError, OutputError
from featherweight.image import MAX_BYTES, MAX_PIXELS, Pixels, Rows, Whole, read_image, to_rgb

MAX_SIDE = 1_000_000
STRIP_BYTES = 2**22  # of rows that are decoded at a time
CHUNK_BYTES = 2**16
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
PPM = re.compile(rb"(P[56])" + 3 * rb"(?:\s+|#[^\n]*\n)+(\d{1,9})" + rb"\s")


def open_rows(path: str | Path) -> Rows:
    """A picture's file by rows.

    Raises:
        ImageError: no such file, not a picture that can be read, or too large for its format.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(1024)
        if start.startswith(b"\x93NUMPY"):
            return _open_npy(path)
        if PPM.match(start):
            return _open_ppm(path, start)
        if start.startswith(PNG_START) and _too_large(path, *_sides(">II", start, 16)):
            return _PngRows(path)
        if start.startswith(b"BM") and _too_large(path, *_sides("<ii", start, 18)):
            return _open_bmp(path, start)
    except OSError as error:
        raise ImageError("no such file" if not path.exists() else error.strerror or str(error)) from error
    try:
        return Whole(read_image(path))
    except ImageError as error:
        if "at most" in str(error):
            raise ImageError(f"{error}; of larger ones PNG, BMP, PPM and NPY are read, by rows") from error
        raise


def _sides(code: str, start: bytes, offset: int) -> tuple[int, int]:
    if len(start) < offset + 8:
        return 0, 0
    width, height = struct.unpack_from(code, start, offset)
    return int(width), abs(int(height))


def _too_large(path: Path, width: int, height: int) -> bool:
    return width * height > MAX_PIXELS or path.stat().st_size > MAX_BYTES


def _check_sides(width: int, height: int) -> None:
    if not 1 <= width <= MAX_SIDE or not 1 <= height <= MAX_SIDE:
        raise ImageError(f"{width}×{height} pixels; no side over {MAX_SIDE:,} is read")


# ------------------------------------------------------------------------------------------- rows as they stand


class _RawRows:
    """Rows of bytes at a place in a file. Read, not mapped: pages of a map would count as memory.

    Args:
        path: the file.
        shape: (height, width, channels), 1 or 3 of these.
        start: where the rows begin, bytes.
        stride: from row to row, bytes.
        backwards: the last row comes first, and blue before red.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], start: int, stride: int, backwards: bool = False):
        self.height, self.width, self._channels = shape
        _check_sides(self.width, self.height)
        if path.stat().st_size < start + self.height * stride:
            raise ImageError("truncated: the file ends before its last row")
        self._start, self._stride, self._backwards, self._next = start, stride, backwards, 0
        self._file: IO[bytes] = path.open("rb")

    def read(self, count: int) -> Pixels:
        first = self.height - self._next - count if self._backwards else self._next
        self._file.seek(self._start + first * self._stride)
        data = np.frombuffer(self._file.read(count * self._stride), np.uint8)
        self._next += count
        if len(data) != count * self._stride:
            raise ImageError("truncated: the file ends before its last row")
        rows = data.reshape(count, self._stride)[:, : self.width * self._channels]
        rows = rows.reshape(count, self.width, self._channels)
        if self._backwards:
            rows = rows[::-1, :, ::-1]
        return np.ascontiguousarray(rows if self._channels == 3 else rows.repeat(3, axis=2))

    def __enter__(self) -> "_RawRows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _open_npy(path: Path) -> _RawRows:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, by_column, dtype = read(file)
        except (ValueError, KeyError) as error:
            raise ImageError(f"damaged NPY: {' '.join(str(error).split())[:200]}") from error
        start = file.tell()
    if dtype != np.uint8 or by_column or shape[2:] not in ((), (3,)) or len(shape) < 2:
        raise ImageError(f"an array {dtype} {shape}; wanted uint8 (height, width, 3), row by row")
    channels = 3 if len(shape) == 3 else 1
    return _RawRows(path, (shape[0], shape[1], channels), start, shape[1] * channels)


def _open_ppm(path: Path, start: bytes) -> _RawRows:
    header = PPM.match(start)
    assert header is not None
    width, height, most = (int(one) for one in header.groups()[1:])
    if most != 255:
        raise ImageError(f"a PPM with values to {most}; wanted 255")
    channels = 3 if header[1] == b"P6" else 1
    return _RawRows(path, (height, width, channels), header.end(), width * channels)


def _open_bmp(path: Path, start: bytes) -> _RawRows:
    (begin,) = struct.unpack_from("<I", start, 10)
    width, height = struct.unpack_from("<ii", start, 18)
    bits, packing = struct.unpack_from("<HI", start, 28)
    if (bits, packing) != (24, 0) or height < 0:
        raise ImageError(f"a large BMP of {bits} bits, packing {packing}; wanted 24 bits, unpacked, from below to above")
    return _RawRows(path, (height, width, 3), begin, (3 * width + 3) // 4 * 4, backwards=True)


# ---------------------------------------------------------------------------------------------------------- PNG


class _PngRows:
    """A PNG by rows: 8 bits a channel, not interlaced."""

    def __init__(self, path: Path):
        self._file: IO[bytes] = path.open("rb")
        try:
            self._kept: list[bytes] = []  # chunks that decide on colours
            self._left = 0  # bytes of the IDAT chunk at hand
            self._row = 0  # bytes
            self._to_first_data()
        except BaseException:
            self._file.close()
            raise
        self._above = bytes(self._row)
        self._inflate, self._pending, self._read = zlib.decompressobj(), b"", 0

    def _to_first_data(self) -> None:
        self._file.seek(len(PNG_START))
        for name, length in self._chunks():
            if name == b"IDAT":
                self._left = length
                break
            if length > MAX_BYTES:
                raise ImageError(f"damaged PNG: a chunk of {length:,} bytes")
            data = self._file.read(length)
            self._file.read(4)  # the checksum
            if name == b"IHDR":
                self._header(data)
            elif name in (b"PLTE", b"tRNS"):
                self._kept.append(_chunk(name, data))
        if not self._row:
            raise ImageError("damaged PNG: it has no header")

    def _header(self, data: bytes) -> None:
        if len(data) != 13:
            raise ImageError("damaged PNG: its header is cut off")
        self.width, self.height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data)
        _check_sides(self.width, self.height)
        if depth != 8 or colour not in PNG_CHANNELS or interlaced:
            raise ImageError(
                f"a large PNG of {depth} bits a channel{', interlaced' if interlaced else ''}; "
                "wanted 8 bits, not interlaced"
            )
        self._form = data[8:]
        self._row = self.width * PNG_CHANNELS[colour]

    def _chunks(self) -> Iterator[tuple[bytes, int]]:
        """(name, length) of each from here on; its data are to be read before the next one is asked for."""
        while len(head := self._file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            yield name, length
        raise ImageError("damaged PNG: truncated, it ends before its last row")

    def _data(self) -> bytes:
        """More of what is in the IDAT chunks."""
        while not self._left:
            self._file.read(4)  # the checksum of the last one; zlib has its own
            name, self._left = next(self._chunks())
            if name != b"IDAT":
                raise ImageError("damaged PNG: truncated, it ends before its last row")
        data = self._file.read(min(self._left, CHUNK_BYTES))
        if not data:
            raise ImageError("damaged PNG: truncated, it ends before its last row")
        self._left -= len(data)
        return data

    def _inflated(self, size: int) -> bytes:
        parts = []
        try:
            while size:
                data = self._inflate.unconsumed_tail or self._data()
                parts.append(self._inflate.decompress(data, size))
                size -= len(parts[-1])
                if size and self._inflate.eof:
                    raise ImageError("damaged PNG: its pixels end before its last row")
        except zlib.error as error:
            raise ImageError(f"damaged PNG: {error}") from error
        return b"".join(parts)

    def read(self, count: int) -> Pixels:
        most = max(1, STRIP_BYTES // self._row)
        strips = [self._strip(min(most, count - start)) for start in range(0, count, most)]
        return np.concatenate(strips) if strips else np.empty((0, self.width, 3), np.uint8)

    def _strip(self, count: int) -> Pixels:
        """Rows are told as differences from the row above: that one, as it is, goes in front."""
        filtered = b"\0" + self._above + self._inflated(count * (1 + self._row))
        header = struct.pack(">II", self.width, count + 1) + self._form
        parts = [_chunk(b"IHDR", header), *self._kept, _chunk(b"IDAT", zlib.compress(filtered, 0)), _chunk(b"IEND", b"")]
        try:
            with PngImagePlugin.PngImageFile(io.BytesIO(PNG_START + b"".join(parts))) as image:
                image.load()
                self._above = np.asarray(image)[-1].tobytes()
                return to_rgb(image)[1:]
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"damaged PNG: {' '.join(str(error).split())}") from error

    def __enter__(self) -> "_PngRows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


class IndexPng:
    """A mask (height, width) as a PNG with a palette that stands in its place once it is whole. To be used in a `with`.

    Args:
        path: the file.
        height: pixels.
        width: pixels.
        palette: (r, g, b) of each value.

    Raises:
        OutputError: it is there already, or cannot be written.
    """

    def __init__(self, path: Path, height: int, width: int, palette: Sequence[tuple[int, int, int]]):
        self.path, self._beside = path, path.with_name(f".{path.name}.{os.getpid()}")
        self._missing = height
        if path.exists():
            raise OutputError(f"{path} exists already; name another folder for masks, nothing is overwritten")
        self._deflate = zlib.compressobj(6)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self._beside.open("wb")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; name another place") from error
        header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
        colours = bytes(value for colour in palette for value in colour)
        self._write(PNG_START + _chunk(b"IHDR", header) + _chunk(b"PLTE", colours))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; make room or name another place") from error

    def put(self, rows: NDArray[np.uint8]) -> None:
        """The next rows (k, width).

        Raises:
            OutputError: they cannot be written.
        """
        unfiltered = np.zeros((rows.shape[0], rows.shape[1] + 1), np.uint8)  # each row begins with its filter, none
        unfiltered[:, 1:] = rows
        data = self._deflate.compress(unfiltered.tobytes())
        if data:
            self._write(_chunk(b"IDAT", data))
        self._missing -= rows.shape[0]

    def __enter__(self) -> "IndexPng":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._missing:
                self._write(_chunk(b"IDAT", self._deflate.flush()) + _chunk(b"IEND", b""))
                self._file.close()
                self._beside.replace(self.path)
        finally:
            self._file.close()
            self._beside.unlink(missing_ok=True)
