"""Model files are told by content; what is no model file is named; containers are checked before they are used."""

import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight import modelfile
from featherweight.errors import ModelFileError
from featherweight.modelfile import Kind, check_onnx, identify, open_archive, parse_json, read_member
from tests import hostile


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


# ModelProto: ir_version 8, producer, graph, one operator set.
ONNX = b"\x08\x08" + field(2, b"pytest") + field(7, b"\x0a\x00") + field(8, b"\x10\x12")

GOOD = {
    Kind.HDF5: b"\x89HDF\r\n\x1a\n" + bytes(40),
    Kind.TFLITE: b"\x1c\0\0\0TFL3" + bytes(40),
    Kind.ONNX: ONNX,
    Kind.SAFETENSORS: struct.pack("<Q", 2) + b"{}",
    Kind.TORCH: hostile.LEGACY_MAGIC + b"\x80\x02J\xe9\x03\0\0.",
}
ZIPS = {
    Kind.KERAS: ("config.json", "metadata.json", "model.weights.h5"),
    Kind.NPZ: ("a.npy", "b/w.npy"),
    Kind.TORCH: ("archive/data.pkl", "archive/data/0"),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("suffix", [".keras", ".bin", ".onnx"])
def test_the_content_decides_and_never_the_suffix(tmp_path: Path, kind: Kind, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(GOOD[kind])
    assert identify(path) is kind


@pytest.mark.parametrize("kind", ZIPS)
def test_zip_archives_are_told_by_their_members(tmp_path: Path, kind: Kind) -> None:
    path = hostile.zipped(tmp_path / "model.onnx", *((name, b"x") for name in ZIPS[kind]))
    assert identify(path) is kind


STRANGERS = {
    "HTML page": b"\xef\xbb\xbf\n <!DOCTYPE html><html>",
    "HTML": b"<html><body>404",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "Python pickle": b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x94",
    "pickle, which runs code": b"cos\nsystem\n(S'true'\ntR.",
    "compressed": b"\x1f\x8b\x08\0",
    "empty zip": b"PK\x05\x06" + bytes(18),
    "single array": b"\x93NUMPY\x01\0",
    "tar archive": bytes(257) + b"ustar\0",
    "no model file": b"GARBAGE!",
    "an empty file": b"",
    "cut off": b"PK\x03\x04" + bytes(100),
    "no ONNX model: a foreign field": b"\x08\x08\x67",
    "that was cut off: field 7": ONNX[:12],
    "no ONNX model: 0 graphs and 1 operator sets": b"\x08\x08" + field(8, b"\x10\x12"),
    "2 graphs": ONNX + field(7, b""),
    "operator sets": b"\x08\x08" + field(7, b""),
    "cut off: field 1 at byte 0": b"\x08" + b"\xff" * 11,
    "outer fields": b"\x08\x08" * (modelfile.MAX_MEMBERS + 1),
}


@pytest.mark.parametrize("said", STRANGERS)
def test_what_is_no_model_file_is_named(tmp_path: Path, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(STRANGERS[said])
    with pytest.raises(ModelFileError, match=said) as caught:
        identify(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="a folder"):
        identify(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        identify(tmp_path / "absent")
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"SavedModel folder.*save it as \.keras"):
        identify(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ModelFileError, match="no regular file"):  # and does not wait for a writer
        identify(pipe)
    with pytest.raises(ModelFileError, match="null"):
        identify("a\0b")
    big = tmp_path / "big"
    big.write_bytes(bytes(11))
    with pytest.raises(ModelFileError, match="11 bytes; wanted at most 10"):
        identify(big, max_bytes=10)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelFileError, match="Permission denied"):
        identify(path)


def test_real_onnx_files_pass_and_each_truncation_is_seen(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }'
    )
    data = graph.SerializeToString()
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    assert identify(path) is Kind.ONNX
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError):
            check_onnx(path)


def member(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


HOSTILE_MEMBERS = {
    "points outside": member("../outside.npy"),
    "'a/../../b.npy' points outside": member("a/../../b.npy"),
    "'/etc/a.npy' points outside": member("/etc/a.npy"),
    "'C:/a.npy' points outside": member("C:/a.npy"),
    "not plain": member("a\nb.npy"),
    "is a link": member("link.npy", stat.S_IFLNK | 0o777),
    "is a folder": member("folder/"),
}


@pytest.mark.parametrize("said", HOSTILE_MEMBERS)
def test_hostile_members_are_named(tmp_path: Path, said: str) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("good.npy", hostile.one_array()), (HOSTILE_MEMBERS[said], b"x"))
    with pytest.raises(ModelFileError, match=said):
        identify(path)


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = hostile.zipped(tmp_path / "a.npz", ("a.npy", b"1"), ("a.npy", b"2"))
    with pytest.raises(ModelFileError, match=r"'a\.npy' is there twice"):
        identify(path)


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path: Path) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("a.npy", b"x"))
    data = bytearray(path.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    for place, value, said in ((8, 1, "encrypted"), (10, 12, "unknown way")):
        changed = bytearray(data)
        changed[directory + place] = value
        path.write_bytes(changed)
        with pytest.raises(ModelFileError, match=said):
            identify(path)


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("a.npy", bytes(1000)))
    data = path.read_bytes()
    directory, end = data.rfind(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    entry = data[directory:end]
    entries = entry + entry.replace(b"a.npy", b"b.npy")  # both point at the same bytes
    tail = bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, 2, 2, len(entries), directory)
    path.write_bytes(data[:directory] + entries + tail)
    with pytest.raises(ModelFileError, match="overlap"):
        identify(path)


def test_zip_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("a.npy", bytes(100 * 2**20)), deflate=True)
    assert path.stat().st_size < 2**20
    with pytest.raises(ModelFileError, match=r"unpack to 104,857,600"):
        identify(path)
    monkeypatch.setattr(modelfile, "MAX_DECLARED_BYTES", 100)
    small = hostile.zipped(tmp_path / "b.npz", ("a.npy", bytes(101)))
    with pytest.raises(ModelFileError, match="unpack to 101"):
        identify(small)


def test_a_lying_member_is_never_unpacked_beyond_what_it_declares(tmp_path: Path) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("a.npy", bytes(50 * 2**20)), deflate=True)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 16)  # declares 16 bytes, holds 50 MiB
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"), open_archive(path) as archive:
        read_member(archive, "a.npy", path)
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 60 * 2**20)  # declares more than it holds
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"damaged|cut off"), open_archive(path) as archive:
        read_member(archive, "a.npy", path)


def test_the_zip64_list_of_members_counts(tmp_path: Path) -> None:
    """As torch writes it: a second, larger end record that stands before the first."""
    path = hostile.zipped(tmp_path / "a.npz", ("a.npy", hostile.one_array()))
    data = path.read_bytes()
    directory, end = data.rfind(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    for declared in (end - directory, 2**40):
        large = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, declared, directory)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        path.write_bytes(data[:end] + large + locator + data[end:])
        if declared == 2**40:
            with pytest.raises(ModelFileError, match="huge list"):
                identify(path)
        else:
            assert identify(path) is Kind.NPZ


def test_members_are_limited_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("a.npy", b"123"), ("b.npy", b""))
    with open_archive(path) as archive:
        assert read_member(archive, "a.npy", path) == b"123"
        with pytest.raises(ModelFileError, match=r"a\.npy has 3 bytes; wanted at most 2"):
            read_member(archive, "a.npy", path, 2)
        with pytest.raises(ModelFileError, match=r"c\.npy is damaged"):
            read_member(archive, "c.npy", path)
    monkeypatch.setattr(modelfile, "MAX_MEMBERS", 1)
    with pytest.raises(ModelFileError, match="2 members"):
        identify(path)
    monkeypatch.setattr(modelfile, "MAX_DIRECTORY_BYTES", 10)
    with pytest.raises(ModelFileError, match="huge list"):
        identify(path)
    odd = hostile.zipped(tmp_path / "b.zip", ("readme.txt", b"x"))
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=r"no known kind: it holds readme\.txt"):
        identify(odd)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * 200 + b"]" * 200, "nested deeper than 128"),
        (b"[" * 100_000, "no JSON"),
        (b"[" + b"1," * 150_000 + b"1]", "too many values"),
        (b"[" + b"1," * 250_000 + b"1]", "too many values"),
        (b'{"a": 1, "a": 2}', "a name twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"nothing", "no JSON"),
        (b" " * (modelfile.MAX_JSON_BYTES + 1), "wanted at most 16,777,216"),
    ],
)
def test_json_is_limited(data: bytes, said: str) -> None:
    with pytest.raises(ModelFileError, match=said):
        parse_json(data, Path("file"), "config.json")


def test_json_within_limits_is_parsed() -> None:
    assert parse_json(b'{"a": [1, {"b": null}]}', Path("file"), "x") == {"a": [1, {"b": None}]}


def test_one_line_is_one_short_printable_line() -> None:
    assert modelfile.one_line("a\n\x1b[31mb\t c" + "d" * 300) == (r"a \x1b[31mb c" + "d" * 300)[:199] + "…"


def test_what_is_not_printable_is_escaped_and_the_rest_stays() -> None:
    assert modelfile.printable("naïve  名 a\\b") == "naïve  名 a\\b"
    assert modelfile.printable("a\n\ud800\u202e\0b") == r"a\n\ud800\u202e\x00b"
    assert str(modelfile.failure("two\nlines", "bad\nend", "refused")) == r"two\nlines: bad end; refused"


def test_the_budget_is_a_quarter_of_free_memory_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < modelfile.memory_budget_bytes() <= modelfile.MAX_DECLARED_BYTES
    monkeypatch.setattr(modelfile, "_free_memory_bytes", lambda: 4000)
    assert modelfile.memory_budget_bytes() == 1000
    monkeypatch.setattr(modelfile, "_free_memory_bytes", lambda: None)
    assert modelfile.memory_budget_bytes() == 2**32


def test_free_memory_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert modelfile._free_memory_bytes() is None
    monkeypatch.setattr(Path, "read_text", lambda _: "MemTotal: 1 kB\n")
    assert modelfile._free_memory_bytes() is None
    monkeypatch.setattr(Path, "read_text", lambda _: "MemTotal: 9 kB\nMemAvailable:   8 kB\n")
    assert modelfile._free_memory_bytes() == 8192


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: ONNX[:8] + tail)))
def test_any_bytes_are_a_kind_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        assert identify(path) in Kind
    except ModelFileError as error:
        assert "\n" not in str(error)


def test_real_archives_of_each_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", w=np.zeros(3))
    assert identify(tmp_path / "a.npz") is identify(tmp_path / "b.npz") is Kind.NPZ
