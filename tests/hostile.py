"""Makers of model files, good and hostile, byte by byte: no library that would refuse to write the hostile ones."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

# --- pickles by hand: the operations of pickle protocol 2 that a file of torch uses --------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if -(2**31) <= value < 2**31 else _long(value)


def _long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def row(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + row(*arguments) + b"R"


def ordered(*pairs: tuple[str, bytes]) -> bytes:
    items = b"".join(text(key) + value for key, value in pairs)
    return name("collections", "OrderedDict") + b")R(" + items + b"u"


def storage(key: str, count: int, kind: str = "FloatStorage", *more: bytes) -> bytes:
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), number(count), *more) + b"Q"


def tensor(block: bytes, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0) -> bytes:
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    sizes = row(*map(number, shape)), row(*map(number, strides))
    hooks = name("collections", "OrderedDict") + b")R"
    return call(name("torch._utils", "_rebuild_tensor_v2"), block, number(offset), *sizes, b"\x89", hooks)


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


# --- containers ------------------------------------------------------------------------------------------------------


def torch_zip(path: Path, value: bytes, blocks: dict[str, bytes], **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        for member, data in members.items():
            archive.writestr(f"archive/{member}", data)
        for key, data in blocks.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return path


LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"


def torch_legacy(
    path: Path, value: bytes, blocks: dict[str, tuple[int, bytes]], little: bool = True, version: int = 1001
) -> Path:
    """`blocks`: storage key → (the count that stands before it, its bytes)."""
    system = b"}(" + text("little_endian") + (b"\x88" if little else b"\x89") + b"u"
    keys = b"](" + b"".join(map(text, blocks)) + b"e"
    parts = [LEGACY_MAGIC, pickled(number(version)), pickled(system), pickled(value), pickled(keys)]
    parts += [struct.pack("<q", count) + data for count, data in blocks.values()]
    path.write_bytes(b"".join(parts))
    return path


def safetensors(path: Path, header: bytes, numbers: bytes, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + numbers)
    return path


def npy(header: str, numbers: bytes) -> bytes:
    data = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + numbers


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], deflate: bool = False) -> Path:
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return path


def one_array(value: float = 1.0) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.full(4, value, np.float32))
    return stream.getvalue()


# --- damage ----------------------------------------------------------------------------------------------------------


def truncations(data: bytes, points: int = 30) -> list[bytes]:
    """The file cut off at points from its first to its last byte."""
    return [data[:length] for length in np.linspace(1, len(data) - 1, points).astype(int)]


def flips(data: bytes, places: int = 60) -> list[tuple[int, bytes]]:
    """(place, the file with that byte changed): half of the places in the first and last 2 kB, where structure is."""
    chance = np.random.default_rng(0)
    near = min(2048, len(data) // 2)
    spread = chance.integers(0, len(data), places - places // 2)
    edges = chance.integers(-near, near, places // 2) % len(data)
    changed = []
    for place in map(int, [*spread, *edges]):
        value = (data[place] + int(chance.integers(1, 256))) % 256
        changed.append((place, data[:place] + bytes([value]) + data[place + 1 :]))
    return changed


def outcomes(
    path: Path, versions: list[bytes], read: Callable[[Path], object], error: type[Exception]
) -> tuple[list[str], list[object]]:
    """What reading each version gives: (messages of `error`, results); any other exception goes through."""
    messages, results = [], []
    for data in versions:
        path.write_bytes(data)
        try:
            results.append(read(path))
        except error as problem:
            messages.append(str(problem))
    return messages, results
