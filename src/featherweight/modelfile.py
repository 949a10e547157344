"""Which kind of model file is this? Told by its content, never by its name; and what every reader of such files needs.

A model file is input from strangers. Nothing of it is executed here, no size that it declares is believed before it
was held against the bytes that are there, and whatever is wrong is said in one line: `file: what; wanted what`.

In scope: kinds, containers (zip), JSON, size limits. Not aware of: tensors, layers, Keras.
Imports errors only.
"""

import contextlib
import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from featherweight.errors import ModelFileError

MAX_FILE_BYTES = 2**31
MAX_DECLARED_BYTES = 2**32
MAX_MEMBERS = 20_000
MAX_DIRECTORY_BYTES = 4 * 2**20
# Deflate can pack zeros a thousandfold, weights hardly twofold. Small archives may do as they like.
MAX_UNPACKING = 20
FREE_UNPACKING_BYTES = 64 * 2**20

MAX_JSON_BYTES = 16 * 2**20
MAX_JSON_DEPTH = 128
MAX_JSON_NODES = 100_000  # NASNetMobile, with 771 layers, has 46,316

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
# Every file of torch before 1.6 starts with this number, pickled by protocol 2.
TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
SAFETENSORS_HEADER_LIMIT = 100_000_000
KERAS_MEMBERS = frozenset({"metadata.json", "config.json", "model.weights.h5"})
KEPT_MEMBER = "featherweight.json"  # ours, beside what Keras writes: see `models.kept`

# What opening and reading a damaged or encrypted zip archive raises.
ZIP_ERRORS = (
    OSError, ValueError, KeyError, EOFError, IndexError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

WANTED = "wanted a .keras, .h5, .npz, .pth, .safetensors, .onnx or .tflite file"


class Kind(StrEnum):
    """What a model file is. Whether an HDF5 file holds a whole model or weights only, `models.load` finds out."""

    KERAS = "keras"
    HDF5 = "hdf5"
    NPZ = "npz"
    TORCH = "torch"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TFLITE = "tflite"


def identify(path: str | Path, max_bytes: int = MAX_FILE_BYTES) -> Kind:
    """The kind of a model file, by its content.

    Args:
        path: the file.
        max_bytes: files that are larger are refused.

    Raises:
        ModelFileError: absent, a folder, empty, too large, damaged, or of no kind that can be read; what it is
            instead is said where it can be told.
    """
    path = Path(path)
    size = check_file(path, max_bytes)
    with open_file(path) as file:
        head = file.read(512)
    if head.startswith(HDF5_MAGIC):
        return Kind.HDF5
    if head.startswith(ZIP_MAGIC):
        return _kind_of_zip(path)
    if head.startswith(TORCH_LEGACY_MAGIC):
        return Kind.TORCH
    if head[4:8] == b"TFL3":
        return Kind.TFLITE
    refuse_known_strangers(path, head)
    if _looks_like_safetensors(head, size):
        return Kind.SAFETENSORS
    if head[:1] in ONNX_FIRST_BYTES:
        check_onnx(path)
        return Kind.ONNX
    raise failure(path, f"no model file: it starts with {head[:8].hex(' ')}", WANTED)


def failure(path: str | Path, what: str, wanted: str) -> ModelFileError:
    """The error of one file in one line: `file: what; wanted what`."""
    return ModelFileError(f"{printable(path)}: {one_line(what)}; {wanted}")


def one_line(value: object, limit: int = 200) -> str:
    """Text out of a file or a foreign error, fit for one line of ours: printable, without runs of spaces, and short."""
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(value: object) -> str:
    r"""Text that any terminal and any UTF-8 file takes: what is not printable (line ends, controls, marks that turn the
    direction of writing, halves of characters) as Python writes it in a literal, as `\n`, `\x1b`, `\ud800`.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_file(path: Path, max_bytes: int = MAX_FILE_BYTES, wanted: str = WANTED) -> int:
    """The size of a regular file that is neither empty nor over `max_bytes`.

    Raises:
        ModelFileError: absent, a folder, a pipe or device, empty, or too large.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise failure(path, f"cannot be read: {getattr(error, 'strerror', None) or error}", wanted) from error
    if stat.S_ISDIR(status.st_mode):
        if (path / "saved_model.pb").is_file():
            raise failure(path, "a TensorFlow SavedModel folder, which can run any code", "save it as .keras instead")
        raise failure(path, "a folder", wanted)
    if not stat.S_ISREG(status.st_mode):
        raise failure(path, "no regular file", wanted)
    if not status.st_size:
        raise failure(path, "an empty file", "fetch it again")
    if status.st_size > max_bytes:
        raise failure(path, f"{status.st_size:,} bytes", f"wanted at most {max_bytes:,}")
    return status.st_size


def open_file(path: Path) -> BinaryIO:
    """The file, open for reading.

    Raises:
        ModelFileError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise failure(path, f"cannot be read: {error.strerror}", WANTED) from error


def memory_budget_bytes() -> int:
    """How much a file may declare: 4 GiB, or a quarter of the memory that is free now where that is less."""
    free = _free_memory_bytes()
    return MAX_DECLARED_BYTES if free is None else min(MAX_DECLARED_BYTES, free // 4)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose list of members was checked; read the members with `read_member`.

    Raises:
        ModelFileError: damaged; a member twice, encrypted, a link, a folder, with an absolute name or `..` in it, or
            compressed in a way other than deflate; or it would unpack to far more than was stored.
    """
    size = check_file(path)
    with open_file(path) as file:
        if _directory_bytes(file, size, path) > MAX_DIRECTORY_BYTES:
            raise failure(path, "a zip archive with a huge list of members", f"wanted at most {MAX_MEMBERS:,} members")
        try:
            archive = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise failure(path, f"a damaged zip archive: {one_line(error)}", "fetch it again") from error
        with archive:
            _check_members(archive, size, path)
            yield archive


def read_member(archive: zipfile.ZipFile, name: str, path: Path, limit: int | None = None) -> bytes:
    """One member's bytes: as many as it declares, with the checksum right, and never more than that unpacked.

    Raises:
        ModelFileError: no such member, over `limit` bytes, or damaged.
    """
    try:
        declared = archive.getinfo(name).file_size
        if limit is not None and declared > limit:
            raise failure(path, f"{one_line(name, 80)} has {declared:,} bytes", f"wanted at most {limit:,}")
        with archive.open(name) as stream:
            # A read with a size stops there; one without would unpack whatever the stream holds.
            data = stream.read(declared)
    except ZIP_ERRORS as error:
        raise failure(path, f"{one_line(name, 80)} is damaged: {one_line(error)}", "fetch it again") from error
    if len(data) != declared:
        raise failure(path, f"{one_line(name, 80)} is cut off", "fetch it again")
    return data


def parse_json(data: bytes, path: Path, what: str) -> Any:
    """JSON out of a file, once its size, depth and number of values are within limits.

    Args:
        data: UTF-8 text.
        path: for the error.
        what: how the error calls it, as "config.json".

    Raises:
        ModelFileError: no JSON, a name twice in one object, or over a limit.
    """
    if len(data) > MAX_JSON_BYTES:
        raise failure(path, f"{what} has {len(data):,} bytes", f"wanted at most {MAX_JSON_BYTES:,}")
    # Each value costs one of these characters: counted before anything is built.
    marks = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if marks > 2 * MAX_JSON_NODES:
        raise failure(path, f"{what} has too many values", f"wanted at most {MAX_JSON_NODES:,}")
    try:
        tree = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise failure(path, f"{what} is no JSON that can be read: {one_line(error, 80)}", "fetch it again") from error
    _check_tree(tree, path, what)
    return tree


def check_onnx(path: Path) -> None:
    """Walk the outermost fields of an ONNX file, which must end where the file ends and hold one graph.

    Costs a few dozen reads: each field is a tag, a length and content that is passed over.

    Raises:
        ModelFileError: cut off, no protobuf, or a protobuf that is no ONNX model.
    """
    size = check_file(path)
    graphs = operator_sets = fields = 0
    with open_file(path) as file:
        while (position := file.tell()) < size:
            tag = _varint(file)
            number, kind = (-1, -1) if tag is None else (tag >> 3, tag & 7)
            if number not in ONNX_FIELDS or ONNX_FIELDS[number] != kind:
                raise failure(path, f"no ONNX model: a foreign field at byte {position}", WANTED)
            length = _varint(file)
            if length is None or (kind == 2 and file.tell() + length > size):
                raise failure(path, f"an ONNX file that was cut off: field {number} at byte {position}", "fetch again")
            if kind == 2:
                file.seek(length, os.SEEK_CUR)
            graphs += number == 7
            operator_sets += number == 8
            fields += 1
            if fields > MAX_MEMBERS:
                raise failure(path, f"an ONNX file with over {MAX_MEMBERS:,} outer fields", "export it again")
    if graphs != 1 or not operator_sets:
        raise failure(path, f"no ONNX model: {graphs} graphs and {operator_sets} operator sets", WANTED)


# Field number of ONNX' ModelProto → protobuf's kind of encoding: 0 a number, 2 a length and that many bytes.
ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
ONNX_FIRST_BYTES = frozenset(bytes([number << 3 | kind]) for number, kind in ONNX_FIELDS.items() if number < 16)


def _varint(file: BinaryIO) -> int | None:
    """A protobuf number of at most ten bytes; `None` where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _kind_of_zip(path: Path) -> Kind:
    with open_archive(path) as archive:
        names = archive.namelist()
    if "config.json" in names and "metadata.json" in names:
        return Kind.KERAS
    if any(name.endswith("data.pkl") for name in names):
        return Kind.TORCH
    if names and all(name.endswith(".npy") for name in names):
        return Kind.NPZ
    listed = ", ".join(one_line(name, 40) for name in names[:3]) or "nothing"
    raise failure(path, f"a zip archive of no known kind: it holds {listed}", WANTED)


def refuse_known_strangers(path: Path, head: bytes) -> None:
    """Raise for what is often found in a model file's place."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise failure(path, "an HTML page, as a failed download leaves it", "download the file itself")
    if text.startswith(b"version https://git-lfs"):
        raise failure(path, "a Git LFS pointer, not the file", "fetch the file with `git lfs pull`")
    if (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or re.match(rb"\(?c[\w.]+\n[\w.]+\n", head):
        raise failure(path, "a Python pickle, which runs code when it is read", "save the tensors as .safetensors")
    if head.startswith((b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")):
        raise failure(path, "a compressed file", "unpack it first")
    if head.startswith(b"PK\x05\x06"):
        raise failure(path, "an empty zip archive", WANTED)
    if head.startswith(b"\x93NUMPY"):
        raise failure(path, "a single array (.npy)", "wanted an .npz of named arrays")
    if head[257:262] == b"ustar":
        raise failure(path, "a tar archive", "unpack it first")


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes of length, then a JSON object of that length."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    return int.from_bytes(head[:8], "little") <= SAFETENSORS_HEADER_LIMIT or size < 2**20


def _directory_bytes(file: BinaryIO, size: int, path: Path) -> int:
    """How long a zip archive's list of members says it is (zipfile reads it whole, whatever its length)."""
    tail = min(size, 65535 + 22 + 20 + 56)
    file.seek(size - tail)
    data = file.read(tail)
    end = data.rfind(b"PK\x05\x06")
    if end < 0 or len(data) - end < 22:
        raise failure(path, "a zip archive that was cut off: its list of members is missing", "fetch it again")
    length = int(struct.unpack_from("<I", data, end + 12)[0])
    large = data.rfind(b"PK\x06\x06", 0, end)  # the zip64 form, which stands before the other and overrules it
    if large >= 0 and end - large >= 56:
        length = max(length if length != 0xFFFFFFFF else 0, int(struct.unpack_from("<Q", data, large + 40)[0]))
    file.seek(0)
    return length


def _check_members(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise failure(path, f"a zip archive with {len(members):,} members", f"wanted at most {MAX_MEMBERS:,}")
    seen: set[str] = set()
    for member in members:
        problem = _member_problem(member)
        if member.orig_filename in seen:
            problem = "is there twice"
        if problem:
            raise failure(path, f"member {one_line(member.orig_filename, 80)!r} {problem}", "refused")
        seen.add(member.orig_filename)
    stored, declared = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    if stored > size:
        raise failure(path, "a zip archive whose members overlap", "refused")
    if declared > min(MAX_UNPACKING * stored + FREE_UNPACKING_BYTES, memory_budget_bytes()):
        raise failure(path, f"a zip archive of {size:,} bytes that would unpack to {declared:,}", "refused")


def _member_problem(member: zipfile.ZipInfo) -> str | None:
    """Why a member of an archive cannot be accepted; nothing is ever unpacked to a name out of an archive anyway."""
    name = member.orig_filename
    mode = member.external_attr >> 16
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
        return "points outside the archive"
    if "\\" in name or not name.isprintable():
        return "has a name that is not plain"
    if stat.S_ISLNK(mode):
        return "is a link"
    if name.endswith("/"):
        return "is a folder"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in an unknown way"
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; two readers may differ in which of two equal names counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _check_tree(tree: Any, path: Path, what: str) -> None:
    nodes, level, depth = 0, [tree], 0
    while level:
        nodes += len(level)
        if depth > MAX_JSON_DEPTH:
            raise failure(path, f"{what} is nested deeper than {MAX_JSON_DEPTH} levels", "refused")
        if nodes > MAX_JSON_NODES:
            raise failure(path, f"{what} has too many values", f"wanted at most {MAX_JSON_NODES:,}")
        deeper: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                deeper.extend(node.values())
            elif isinstance(node, list):
                deeper.extend(node)
        level, depth = deeper, depth + 1


def _free_memory_bytes() -> int | None:
    """Memory that programs can still take; `None` where the system does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None
