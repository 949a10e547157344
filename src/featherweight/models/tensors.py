"""Named arrays out of `.pth`/`.th`, `.safetensors` and `.npz` files of strangers, without running anything in them.

A file of torch is a pickle, which `torchpickle` reads without running it, plus blocks of raw numbers. The numbers are
taken from the file as declared once storage, offset, shape and strides were held against the bytes that are there.

    read_tensors(path)   names as in the file; a dictionary within a dictionary as `outer/inner`
    state_dict(path)     the same for a network's weights alone: out of `state_dict/` or `model/`, without `module.`

Imports modelfile and torchpickle.
"""

import io
import math
import struct
import tokenize
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from featherweight.modelfile import (
    SAFETENSORS_HEADER_LIMIT,
    TORCH_LEGACY_MAGIC,
    Kind,
    check_file,
    failure,
    identify,
    memory_budget_bytes,
    one_line,
    open_archive,
    open_file,
    parse_json,
    read_member,
)
from featherweight.models.torchpickle import (
    BFLOAT16,
    Refusal,
    Storage,
    Tensor,
    are_sizes,
    interpret,
    is_shape,
    itemsize,
)

MAX_TENSORS = 20_000
MAX_PICKLE_BYTES = 2 * 2**20  # a network of 1,000 tensors needs about 160 kB
MAX_NESTING = 8
MAX_NAME = 500
# Tensors may share their numbers (tied weights), so a good file can declare more than it holds, but not much more.
MAX_SHARING = 2
FREE_SHARING_BYTES = 16 * 2**20

# Where checkpoints keep the network's weights among other things.
WRAPPERS = ("state_dict", "model_state_dict", "model", "params")
PARALLEL_PREFIX = "module."

SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
SAFE_TO_SAY = "such a file could run code; save the tensors as .safetensors"

Arrays = dict[str, NDArray[Any]]


def read_tensors(path: str | Path) -> Arrays:
    """All arrays of a file by name, in the file's order; new, contiguous, in this machine's byte order.

    bfloat16 becomes float32. What a torch checkpoint holds beside tensors (epoch, scores, lists) is left out.

    Raises:
        ModelFileError: absent, damaged, hostile, or of a kind that holds no plain arrays.
    """
    path = Path(path)
    kind = identify(path)
    if kind not in READERS:
        raise failure(path, f"a file of kind {kind}", "wanted .pth, .safetensors or .npz")
    arrays = READERS[kind](path)
    if not arrays:
        raise failure(path, "no tensors in it", "wanted a file of weights")
    return arrays


def state_dict(path: str | Path) -> Arrays:
    """A network's weights by name, in the file's order: unwrapped from `state_dict`, `model` or the like, and without
    the `module.` that training on several devices puts before every name.

    Raises:
        ModelFileError: as `read_tensors`.
    """
    arrays = read_tensors(path)
    for wrapper in WRAPPERS:
        inner = {k.removeprefix(f"{wrapper}/"): array for k, array in arrays.items() if k.startswith(f"{wrapper}/")}
        if inner:
            arrays = inner
            break
    if all(name.startswith(PARALLEL_PREFIX) for name in arrays):
        return {name.removeprefix(PARALLEL_PREFIX): array for name, array in arrays.items()}
    return arrays


# --- safetensors: 8 bytes of header length, a JSON header, then the numbers without holes --------------------------


def _read_safetensors(path: Path) -> Arrays:
    size = check_file(path)
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, SAFETENSORS_HEADER_LIMIT):
            raise failure(path, f"declares a header of {length:,} bytes in a file of {size:,}", "fetch it again")
        header = parse_json(file.read(length), path, "the header")
        rows = _safetensors_rows(header, size - 8 - length, path)
        arrays: Arrays = {}
        for name, kind, shape, begin, end in rows:
            file.seek(8 + length + begin)
            arrays[name] = _numbers(_exactly(file, end - begin, path), kind).reshape(shape)
    return {name: arrays[name] for name in header if name != "__metadata__"}


def _safetensors_rows(header: Any, room: int, path: Path) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """(name, type, shape, begin, end) of each tensor; together they fill the room exactly, without overlap."""
    rows = []
    for name, about in header.items():
        if name == "__metadata__":
            continue
        what = f"tensor {one_line(name, 80)!r}"
        if not name.isprintable():
            raise failure(path, f"{what} has a name that is no plain text", "fetch it again")
        if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
            raise failure(path, f"{what} is not described by dtype, shape and data_offsets", "fetch it again")
        kind, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
        if not isinstance(kind, str) or kind not in SAFETENSORS_TYPES:
            raise failure(path, f"{what} has the type {one_line(kind, 40)}", f"known: {', '.join(SAFETENSORS_TYPES)}")
        if not is_shape(shape) or not are_sizes(offsets) or len(offsets) != 2:
            raise failure(path, f"{what} has no proper shape and offsets", "fetch it again")
        begin, end = offsets
        if end - begin != math.prod(shape) * itemsize(SAFETENSORS_TYPES[kind]):
            raise failure(path, f"{what} of shape {shape} takes {end - begin:,} bytes", "fetch it again")
        rows.append((name, SAFETENSORS_TYPES[kind], tuple(shape), begin, end))
    rows.sort(key=lambda row: row[3:])
    position = 0
    for name, _, _, begin, end in rows:
        if begin != position:
            raise failure(path, f"tensor {one_line(name, 80)!r} leaves a hole or overlaps another", "fetch it again")
        position = end
    if position != room:
        raise failure(path, f"declares {position:,} bytes of numbers and holds {room:,}", "fetch it again")
    return rows


# --- npz: a zip archive of .npy files --------------------------------------------------------------------------------


def _read_npz(path: Path) -> Arrays:
    with open_archive(path) as archive:
        return {
            name.removesuffix(".npy"): _npy(read_member(archive, name, path), path, name) for name in archive.namelist()
        }


def _npy(data: bytes, path: Path, name: str) -> NDArray[Any]:
    """One .npy file: a header as a Python literal (parsed as such, never run), then the numbers."""
    what, stream = one_line(name, 80), io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shape, by_columns, dtype = read(stream)
    except (
        ValueError,
        SyntaxError,
        TypeError,
        RecursionError,
        MemoryError,
        struct.error,
        tokenize.TokenError,
        Warning,
    ) as error:
        raise failure(path, f"{what} is no array: {one_line(error, 80)}", "fetch it again") from error
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise failure(path, f"{what} holds {one_line(dtype, 40)}, not plain numbers", SAFE_TO_SAY)
    room = len(data) - stream.tell()
    if not is_shape(shape) or math.prod(shape) * dtype.itemsize != room:
        raise failure(path, f"{what} declares the shape {one_line(shape, 40)} and holds {room:,} bytes", "fetch again")
    flat: NDArray[Any] = np.frombuffer(data, dtype, offset=stream.tell())
    array: NDArray[Any] = flat.reshape(shape, order="F" if by_columns else "C")
    return np.array(array, dtype.newbyteorder("="), order="C")


# --- torch -----------------------------------------------------------------------------------------------------------


def _read_torch(path: Path) -> Arrays:
    with open_file(path) as file:
        legacy = file.read(len(TORCH_LEGACY_MAGIC)) == TORCH_LEGACY_MAGIC
    try:
        return _read_torch_legacy(path) if legacy else _read_torch_zip(path)
    except Refusal as refusal:
        raise failure(path, str(refusal), SAFE_TO_SAY) from None


def _read_torch_zip(path: Path) -> Arrays:
    """The form since torch 1.6: `NAME/data.pkl` and a member `NAME/data/KEY` for each storage."""
    with open_archive(path) as archive:
        pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise failure(path, f"{len(pickles)} members data.pkl", "wanted a .pth file with one")
        folder = pickles[0].removesuffix("data.pkl")
        names = set(archive.namelist())
        if f"{folder}constants.pkl" in names:
            raise failure(path, "a TorchScript program", "wanted a .pth file of weights")
        order = f"{folder}byteorder"
        if order in names and read_member(archive, order, path, 16) != b"little":
            raise failure(path, "written on a big-endian machine", "save it again on a little-endian one")
        tree = interpret(io.BytesIO(read_member(archive, pickles[0], path, MAX_PICKLE_BYTES)))
        tensors = _named_tensors(tree, path)
        blocks: dict[str, bytes] = {}
        for name, tensor in tensors.items():
            member = f"{folder}data/{tensor.storage.key}"
            if member not in names:
                raise failure(path, f"tensor {one_line(name, 80)!r} has no storage in the file", "fetch it again")
            if archive.getinfo(member).file_size != tensor.storage.size_bytes:
                raise failure(path, f"tensor {one_line(name, 80)!r} has a storage of another size", "fetch it again")
            if member not in blocks:
                blocks[member] = read_member(archive, member, path)
        return {name: _view(t, blocks[f"{folder}data/{t.storage.key}"]) for name, t in tensors.items()}


def _read_torch_legacy(path: Path) -> Arrays:
    """The form before torch 1.6: five pickles (magic, version, system, the tree, storage keys), then the storages."""
    size = check_file(path)
    with open_file(path) as file:
        stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        _, version, system, tree, keys = (interpret(stream) for _ in range(5))
        if type(version) is not int or version != 1001:
            raise failure(path, "a torch file of an unknown version", "wanted protocol 1001")
        if type(system) is not dict or system.get("little_endian") is not True:
            raise failure(path, "written on a big-endian machine", "save it again on a little-endian one")
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise failure(path, "its list of storages is no list of names", "fetch it again")
        tensors = _named_tensors(tree, path)
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        file.seek(stream.tell())
        blocks: dict[str, bytes] = {}
        for key in keys:
            # A storage whose tensors were left out (an optimizer's, say) has an unknown item size: cannot be passed.
            if key not in storages or key in blocks:
                raise failure(path, f"storage {one_line(key, 40)!r} belongs to no tensor, or is twice", "fetch again")
            if int.from_bytes(_exactly(file, 8, path), "little") != storages[key].count:
                raise failure(path, f"storage {one_line(key, 40)!r} has another length than declared", "fetch it again")
            blocks[key] = _exactly(file, storages[key].size_bytes, path)
        if file.tell() != size:
            raise failure(path, f"{size - file.tell():,} bytes after the last storage", "fetch it again")
    if lacking := set(storages) - set(blocks):
        raise failure(path, f"storage {one_line(min(lacking), 40)!r} is not in the file", "fetch it again")
    return {name: _view(tensor, blocks[tensor.storage.key]) for name, tensor in tensors.items()}


def _named_tensors(tree: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of nested dictionaries, in order, checked one by one and as a whole against the file's size."""
    if type(tree) is not dict:
        raise failure(path, "its outermost value is no dictionary", "save model.state_dict(), not the model")
    found: dict[str, Tensor] = {}
    if len(tree) > MAX_TENSORS:
        raise failure(path, f"a dictionary of {len(tree):,} values", f"wanted up to {MAX_TENSORS:,} tensors")
    waiting: list[tuple[str, Any]] = [(_key(name), value) for name, value in reversed(tree.items())]
    visited = 0
    while waiting:
        name, value = waiting.pop()
        visited += 1
        # Counted before the names of what is inside are made.
        inside = len(value) if type(value) is dict else 0
        if visited + len(waiting) + inside > MAX_TENSORS or name.count("\0") > MAX_NESTING:
            raise failure(path, "too many or too deeply nested dictionaries", f"wanted up to {MAX_TENSORS:,} tensors")
        if type(value) is dict:
            waiting += [(f"{name}\0{_key(inner)}", item) for inner, item in reversed(value.items())]
        elif type(value) is Tensor:
            public = name.replace("\0", "/")
            if public in found:
                raise failure(path, f"tensor {one_line(public, 80)!r} is there twice", "fetch it again")
            found[public] = value
    _check_reach(found, path)
    return found


def _key(name: Any) -> str:
    text = str(name)
    # The name of a dictionary is repeated before the names of all that is in it.
    if len(text) > MAX_NAME:
        raise Refusal(f"it has a name of {len(text):,} characters")
    if not text.isprintable():
        raise Refusal(f"it has the name {one_line(text, 80)}, which is no plain text")
    return text


def _check_reach(tensors: dict[str, Tensor], path: Path) -> None:
    """No tensor may reach past its storage or hold more numbers than it; nor all together far more than the file."""
    total = 0
    kinds: dict[str, Storage] = {}
    for name, tensor in tensors.items():
        storage, numbers = tensor.storage, math.prod(tensor.shape)
        if kinds.setdefault(storage.key, storage) != storage:
            raise failure(path, f"storage {one_line(storage.key, 40)!r} is declared in two ways", "fetch it again")
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        if numbers and (last >= storage.count or numbers > storage.count):
            raise failure(
                path,
                f"tensor {one_line(name, 80)!r} of shape {tensor.shape} reaches past its storage",
                "fetch it again",
            )
        total += numbers * itemsize(storage.kind)
    if total > min(MAX_SHARING * check_file(path) + FREE_SHARING_BYTES, memory_budget_bytes()):
        raise failure(path, f"its tensors declare {total:,} bytes", "more than the file can hold; fetch it again")


def _view(tensor: Tensor, block: bytes) -> NDArray[Any]:
    numbers = _numbers(block, tensor.storage.kind)
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, numbers.dtype)
    steps = tuple(step * numbers.itemsize for step in tensor.strides)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
    return np.array(view, order="C")


def _numbers(data: bytes, kind: str) -> NDArray[Any]:
    """Raw little-endian numbers as a flat array of this machine's byte order."""
    if kind == BFLOAT16:
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "|b1":
        truths: NDArray[np.bool_] = np.frombuffer(data, np.uint8).astype(np.bool_)
        return truths
    stored = np.dtype(kind)
    array: NDArray[Any] = np.frombuffer(data, stored).astype(stored.newbyteorder("="))
    return array


def _exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    """The next `count` bytes; asked of the file only when it has them."""
    left = path.stat().st_size - file.tell()
    if count > left:
        raise failure(path, f"cut off: {count:,} bytes declared, {left:,} there", "fetch it again")
    return file.read(count)


READERS: dict[Kind, Callable[[Path], Arrays]] = {
    Kind.SAFETENSORS: _read_safetensors,
    Kind.NPZ: _read_npz,
    Kind.TORCH: _read_torch,
}
