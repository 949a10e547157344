"""Artifact folders: what is written is what is read, and nothing half-written or changed is taken for whole."""

import errno
import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from featherweight import artifact as module
from featherweight.artifact import (
    GOLDEN,
    MANIFEST,
    Artifact,
    Choice,
    fits,
    is_model,
    new_folder,
    read_artifact,
    sha256_of,
    to_utf8,
    write_artifact,
    write_choice,
    write_file,
)
from featherweight.boxes import Decoding, Scale
from featherweight.errors import ArtifactError, OutputError
from tests.make import CLASSES, MODEL, make_artifact


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of a manifest; `...` takes one away."""
    fields = {**json.loads((folder / MANIFEST).read_text()), **changes}
    kept = {name: value for name, value in fields.items() if value is not ...}
    (folder / MANIFEST).write_text(json.dumps(kept))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = make_artifact(tmp_path / "deep" / "model")
    assert read_artifact(str(tmp_path / "deep" / "model")) == written
    assert written.sha256 == hashlib.sha256(MODEL).hexdigest()
    assert written.size_bytes == len(MODEL) == (tmp_path / "deep/model/model.onnx").stat().st_size
    assert written.model_path.read_bytes() == MODEL
    assert written.classes == CLASSES and not written.foreign
    assert written.steps[0].skipped == (("mixup", "too few pictures"),)
    assert sorted(path.name for path in written.path.iterdir()) == sorted([MANIFEST, GOLDEN, "model.onnx"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]
    assert (tmp_path / "deep/model").stat().st_mode & 0o777 == 0o755


def test_a_detector_keeps_what_its_numbers_mean(tmp_path: Path) -> None:
    decoding = Decoding("yolo", (Scale(1, 1, ((4.0, 2.0), (1.0, 8.0)), 1.05),), 8, 8, classes=3, softmax=True)
    written = make_artifact(tmp_path / "model", task="detect", resize="letterbox", decoding=decoding)
    assert read_artifact(tmp_path / "model") == written and written.decoding == decoding
    whole = json.loads((tmp_path / "model" / MANIFEST).read_text())["decoding"]
    for changes, said in (
        ({"resize": "crop"}, "resize is 'crop'; known: stretch, letterbox, bilinear"),
        ({"decoding": {**whole, "classes": 2}}, "decoding is of 2 classes at 8×8, the manifest of 3 at 8×8"),
        ({"decoding": {**whole, "kind": "ssd"}}, "unknown decoding 'ssd'"),
    ):
        edit(tmp_path / "model", **changes)
        with pytest.raises(ArtifactError, match=said):
            read_artifact(tmp_path / "model")
        edit(tmp_path / "model", resize="letterbox", decoding=whole)


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="resize is 'crop'"):
        make_artifact(tmp_path / "model", resize="crop")
    assert list(tmp_path.iterdir()) == []


def test_golden_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    golden = rng.integers(0, 256, (3, 4, 5, 3), np.uint8), rng.random((3, 2), np.float32)
    template = make_artifact(tmp_path / "template")
    inputs, outputs = write_artifact(replace(template, path=tmp_path / "model"), MODEL, golden).golden()
    assert (inputs.dtype, outputs.dtype) == (np.uint8, np.float32)
    assert np.array_equal(inputs, golden[0]) and np.array_equal(outputs, golden[1])


def test_class_names_in_any_script_and_of_undecodable_bytes(tmp_path: Path) -> None:
    classes = ("über", "猫", os.fsdecode(b"\xff\xfe"))
    make_artifact(tmp_path / "model", classes=classes)
    assert read_artifact(tmp_path / "model").classes == classes
    assert "猫" in (tmp_path / "model" / MANIFEST).read_text(encoding="utf-8")


def test_any_changed_byte_of_the_model_file_is_refused(tmp_path: Path) -> None:
    written = make_artifact(tmp_path / "model")
    for place in (0, 7, len(MODEL) // 2, len(MODEL) - 1):
        changed = bytearray(MODEL)
        changed[place] ^= 1
        written.model_path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=rf"its manifest says {written.sha256[:12]}…: the file was changed"):
            read_artifact(written.path)
    written.model_path.write_bytes(MODEL[:-1])
    with pytest.raises(ArtifactError, match="the file was changed"):
        read_artifact(written.path)
    written.model_path.write_bytes(MODEL)
    assert read_artifact(written.path) == written


def test_a_missing_model_file(tmp_path: Path) -> None:
    make_artifact(tmp_path / "model").model_path.unlink()
    with pytest.raises(ArtifactError, match=r"lacks its model file model\.onnx; export the model again"):
        read_artifact(tmp_path / "model")


def test_nothing_there_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no artifact .*nowhere; wanted an artifact folder"):
        read_artifact(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"has no artifact\.json"):
        read_artifact(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN{", b'{"schema": 1', b"9" * 5000],
    ids=["empty", "open", "not UTF-8", "deep", "no JSON", "torn", "long number"],
)
def test_a_damaged_manifest(tmp_path: Path, content: bytes) -> None:
    make_artifact(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"artifact\.json cannot be read"):
        read_artifact(tmp_path / "model")


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "{}", '{"schema": 1}'])
def test_json_that_is_no_manifest(tmp_path: Path, content: str) -> None:
    make_artifact(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match=r"artifact\.json is not a manifest"):
        read_artifact(tmp_path / "model")


def test_a_manifest_cut_off_anywhere(tmp_path: Path) -> None:
    make_artifact(tmp_path / "model")
    whole = (tmp_path / "model" / MANIFEST).read_bytes()
    for length in range(0, len(whole), 13):
        (tmp_path / "model" / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            read_artifact(tmp_path / "model")


def test_another_schema(tmp_path: Path) -> None:
    make_artifact(tmp_path / "model")
    for schema in (4, 0, True, "2", None):
        edit(tmp_path / "model", schema=schema)
        with pytest.raises(
            ArtifactError, match=rf"has schema {schema}, this featherweight reads 1 to 3; use the version that wrote it"
        ):
            read_artifact(tmp_path / "model")


# -------------------------------------------------------------------------------------------------------- tuned

CHOICE = Choice(
    runtime="openvino",
    settings={"threads": 2, "precision": None, "optimization": None, "provider": None, "input_size": None},
    p50_ms=3.25,
    ratio_to_default=(0.5, 0.48, 0.53),
    agreement="same top-1 on 2 golden inputs",
    date="2026-01-02T03:04:05+00:00",
    quick=False,
    versions={"featherweight": "0.1.0", "openvino": "2026.4.0"},
)


@pytest.mark.parametrize(("schema", "without"), [(1, ("tuned", "decoding")), (2, ("decoding",))])
def test_an_earlier_manifest_is_read(tmp_path: Path, schema: int, without: tuple[str, ...]) -> None:
    written = make_artifact(tmp_path / "model")
    edit(tmp_path / "model", schema=schema, **dict.fromkeys(without, ...))
    assert read_artifact(tmp_path / "model") == written
    assert written.tuned == {} and written.decoding is None
    tuned = write_choice(written, "abc", CHOICE)  # and becomes one of schema 3 by a choice
    assert json.loads((tmp_path / "model" / MANIFEST).read_text())["schema"] == 3
    assert tuned == replace(written, tuned={"abc": CHOICE})


def test_a_choice_is_written_and_nothing_else_changes(tmp_path: Path) -> None:
    written = make_artifact(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in written.path.iterdir()}
    first = write_choice(written, "this device", CHOICE)
    other = replace(CHOICE, runtime="opencv", ratio_to_default=None)
    both = write_choice(written, "that device", other)  # `written` knows nothing of the first
    assert (first.tuned, both.tuned) == ({"this device": CHOICE}, {"this device": CHOICE, "that device": other})
    assert read_artifact(written.path) == both
    again = write_choice(both, "this device", other)
    assert again.tuned == {"this device": other, "that device": other}
    after = {path.name: path.read_bytes() for path in written.path.iterdir()}
    assert {name: data for name, data in after.items() if name != MANIFEST} == {
        name: data for name, data in before.items() if name != MANIFEST
    }
    old, new = json.loads(before[MANIFEST]), json.loads(after[MANIFEST])
    assert {**new, "tuned": {}} == old


def test_a_choice_of_another_file_is_not_kept(tmp_path: Path) -> None:
    tuned = write_choice(make_artifact(tmp_path / "model"), "abc", CHOICE)
    assert write_artifact(replace(tuned, path=tmp_path / "other"), MODEL[:-1], tuned.golden()).tuned == {}


def test_a_choice_is_refused_where_it_cannot_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(8))
    with pytest.raises(ArtifactError, match=r"bare model file and has no artifact\.json to write a choice into"):
        write_choice(read_artifact(tmp_path / "net.tflite"), "abc", CHOICE)
    written = make_artifact(tmp_path / "model")
    before = (written.path / MANIFEST).read_bytes()
    with pytest.raises(ArtifactError, match="is another model than it was before; nothing was written"):
        write_choice(replace(written, sha256="00" * 32), "abc", CHOICE)
    failing(monkeypatch, module.os, "fsync", 1, errno.ENOSPC)
    with pytest.raises(OutputError, match="No space left on device"):
        write_choice(written, "abc", CHOICE)
    assert (written.path / MANIFEST).read_bytes() == before
    assert left(written.path) == sorted([MANIFEST, GOLDEN, "model.onnx"])


@pytest.mark.parametrize("name", list(Choice.__dataclass_fields__))
def test_each_field_of_a_choice_must_be_there_and_be_of_its_kind(tmp_path: Path, name: str) -> None:
    make_artifact(tmp_path / "model")
    whole = asdict(CHOICE)
    for wrong in (..., {"a": [1]}, [[1]], True, [1.0, 2.0]):
        if (name, wrong) in (("settings", {"a": [1]}), ("quick", True)):  # a setting's own kind is the runtimes' matter
            continue
        values = {key: value for key, value in {**whole, name: wrong}.items() if value is not ...}
        edit(tmp_path / "model", tuned={"abc": values})
        with pytest.raises(ArtifactError, match="is not a manifest"):
            read_artifact(tmp_path / "model")
    edit(tmp_path / "model", tuned={"abc": {**whole, "more": 1}})
    with pytest.raises(ArtifactError, match="is not a manifest"):
        read_artifact(tmp_path / "model")


@pytest.mark.parametrize("name", ["../other.onnx", "/etc/passwd", "model.tflite", ""])
def test_a_manifest_names_no_file_but_its_own(tmp_path: Path, name: str) -> None:
    make_artifact(tmp_path / "model")
    edit(tmp_path / "model", file=name)
    with pytest.raises(ArtifactError, match=r"names the file .*; wanted model\.onnx"):
        read_artifact(tmp_path / "model")


FIELDS = [name for name in Artifact.__dataclass_fields__ if name != "path"]


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_must_be_there_and_be_of_its_kind(tmp_path: Path, name: str) -> None:
    make_artifact(tmp_path / "model")
    before = (tmp_path / "model" / MANIFEST).read_text()
    for wrong in (..., {"a": 1}, [[1]], True):
        edit(tmp_path / "model", **{name: wrong})
        with pytest.raises(ArtifactError, match=r"artifact\.json"):
            read_artifact(tmp_path / "model")
        (tmp_path / "model" / MANIFEST).write_text(before)


@pytest.mark.parametrize(
    "step",
    [
        {},
        {"name": 1, "settings": {}, "skipped": []},
        {"name": "a", "settings": [], "skipped": []},
        {"name": "a", "settings": {}, "skipped": [["only one"]]},
        {"name": "a", "settings": {}, "skipped": "no"},
    ],
)
def test_a_step_that_is_none(tmp_path: Path, step: dict[str, Any]) -> None:
    make_artifact(tmp_path / "model")
    edit(tmp_path / "model", steps=[step])
    with pytest.raises(ArtifactError, match="is not a manifest"):
        read_artifact(tmp_path / "model")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*FIELDS, "schema", "other"]), value=JSON)
@example(name="sha256", value=5)
@example(name="format", value=[])
def test_any_manifest_is_read_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    if not (tmp_path / "model").exists():
        make_artifact(tmp_path / "model")
    before = (tmp_path / "model" / MANIFEST).read_text()
    edit(tmp_path / "model", **{name: value})
    try:
        found = read_artifact(tmp_path / "model")
        assert isinstance(found.name, str) and isinstance(found.size_bytes, int)
    except ArtifactError:
        pass
    finally:
        (tmp_path / "model" / MANIFEST).write_text(before)


# ------------------------------------------------------------------------------------------------------ golden


def test_golden_missing(tmp_path: Path) -> None:
    written = make_artifact(tmp_path / "model")
    (written.path / GOLDEN).unlink()
    assert read_artifact(written.path) == written  # it can run all the same
    with pytest.raises(ArtifactError, match=r"golden\.npz is missing or damaged; export the model again"):
        written.golden()


def test_golden_damaged_at_any_byte_is_the_same_or_refused(tmp_path: Path) -> None:
    written = make_artifact(tmp_path / "model")
    wanted = written.golden()
    whole = (written.path / GOLDEN).read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]):
            (written.path / GOLDEN).write_bytes(damaged)
            try:
                found = written.golden()
            except ArtifactError:
                refused += 1
            else:  # a byte that means nothing, such as a date
                assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert refused > len(whole) // 3


def test_golden_of_another_kind(tmp_path: Path) -> None:
    written = make_artifact(tmp_path / "model")
    with (written.path / GOLDEN).open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ArtifactError, match="missing or damaged"):
        written.golden()
    np.savez(written.path / GOLDEN, input=np.zeros(3))
    with pytest.raises(ArtifactError, match="missing or damaged"):
        written.golden()
    np.savez(written.path / GOLDEN, input=np.array([object()]), output=np.zeros(3))  # a pickle
    with pytest.raises(ArtifactError, match="missing or damaged"):
        written.golden()


# ------------------------------------------------------------------------------------------------------- files


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make_artifact(tmp_path / "model")
    before = (tmp_path / "model" / MANIFEST).read_bytes()
    with pytest.raises(OutputError, match="model exists already; name another place, nothing is overwritten"):
        make_artifact(tmp_path / "model", name="other")
    assert (tmp_path / "model" / MANIFEST).read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file exists already"):
        make_artifact(tmp_path / "file")
    assert left(tmp_path) == ["file", "model"]


def test_a_file_in_place_of_the_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"cannot write .*; name another place with --output"):
        make_artifact(tmp_path / "file" / "model")
    with pytest.raises(OutputError, match=r"cannot write .*; make room or name another place"):
        write_file(tmp_path / "file" / "page.html", b"page")
    assert left(tmp_path) == ["file"]


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken("no"), KeyboardInterrupt(), OutputError("no")])
def test_an_exception_inside_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), new_folder(tmp_path / "model") as folder:
        (folder / "part").write_text("half")
        assert not (tmp_path / "model").exists()
        raise error
    assert left(tmp_path) == []


def test_a_full_disk_inside_is_an_output_error(tmp_path: Path) -> None:
    message = "cannot write .*model: No space left on device; make room"
    with pytest.raises(OutputError, match=message), new_folder(tmp_path / "model"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert left(tmp_path) == []


def test_a_place_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), new_folder(tmp_path / "model") as folder:
        (folder / "part").write_text("ours")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "theirs").write_text("theirs")
    assert left(tmp_path) == ["model"] and left(tmp_path / "model") == ["theirs"]


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, code: int) -> list[int]:
    """Let the `at`-th call of a function fail with an operating system's error; the answer counts the calls."""
    whole, calls = getattr(owner, name), [0]

    def maybe(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise OSError(code, os.strerror(code))
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, maybe)
    return calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(
    ("owner", "name", "times"), [(module.os, "fsync", 3), (Path, "replace", 3), (Path, "rename", 1), (Path, "chmod", 1)]
)
def test_any_failing_step_of_a_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int, code: int
) -> None:
    for at in range(1, times + 2):
        with monkeypatch.context() as patch:
            calls = failing(patch, owner, name, at, code)
            if at <= times:
                with pytest.raises(OutputError, match=f"cannot write .*: {os.strerror(code)}"):
                    make_artifact(tmp_path / "model")
                assert left(tmp_path) == []
            else:
                make_artifact(tmp_path / "model")
                assert calls == [times]  # each of them was made to fail
    assert left(tmp_path) == ["model"]


def test_write_file_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "page", b"old")
    with monkeypatch.context() as patch:
        failing(patch, module.os, "fsync", 1, errno.ENOSPC)
        with pytest.raises(OutputError, match="No space left on device"):
            write_file(tmp_path / "page", b"new")
    assert (tmp_path / "page").read_bytes() == b"old"
    write_file(tmp_path / "page", b"new")
    assert (tmp_path / "page").read_bytes() == b"new" and left(tmp_path) == ["page"]


def test_what_looks_like_a_model(tmp_path: Path) -> None:
    make_artifact(tmp_path / "model")
    for name in ("records.jsonl", "net.onnx", "net.tflite"):
        (tmp_path / name).write_text("")
    looks = {name: is_model(tmp_path / name) for name in ("model", "records.jsonl", "net.onnx", "net.tflite", ".", "x")}
    assert looks == {
        "model": True, "records.jsonl": False, "net.onnx": True, "net.tflite": True, ".": False, "x": False,
    }  # fmt: skip


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert (
        sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180


# -------------------------------------------------------------------------------------------------------- bare


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("net.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(8), "litert"),
        ("net.bin", b"\x1c\x00\x00\x00TFL3" + bytes(8), "litert"),  # by content, not by name
        ("net.onnx", b"\x08\x07\x12\x07pytorch", "onnx"),
    ],
)
def test_a_bare_file_is_told_by_its_content(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = read_artifact(tmp_path / name)
    assert (found.format, found.name, found.file) == (kind, "net", name)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert (found.size_bytes, found.model_path) == (len(content), tmp_path / name)
    assert found.foreign
    unknown = (found.precision, found.task, found.classes, found.height, found.width, found.parameters, found.macs)
    assert set(unknown) == {None}
    with pytest.raises(ArtifactError, match="is a bare model file and has no golden input"):
        found.golden()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.onnx", b"this is no model"),
        ("text.tflite", b"this is no model"),
        ("empty.onnx", b""),
        ("page.onnx", b"<!doctype html>"),
        ("pointer.onnx", b"version https://git-lfs.github.com/spec/v1"),
        ("pickle.onnx", b"\x80\x04\x95"),
        ("weights.bin", b"\x08\x07\x12\x07pytorch"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="is no ONNX and no LiteRT model; wanted an artifact folder"):
        read_artifact(tmp_path / name)


# --------------------------------------------------------------------------------------------------- JSON kinds


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (1, int, True), (1.0, int, False), (True, int, False), (1, float, True), (True, float, False),
        (float("inf"), float, False), (float("nan"), float, False), (10**400, float, False), ("1", float, False),
        (None, int | None, True), ("a", int | None, False), ("a", str, True), (None, str, False),
        ([1.0, 2.0], tuple[float, float], True), ([1.0], tuple[float, float], False),
        ([1.0, None], tuple[float, float], False), ("ab", tuple[str, ...], False), (["a"], tuple[str, ...], True),
        ([], tuple[str, ...], True), ({"a": "b"}, dict[str, str], True), ({"a": 1}, dict[str, str], False),
        ({"a": [1, {}]}, dict[str, Any], True), ([], dict[str, Any], False),
    ],
)  # fmt: skip
def test_which_json_values_fit_an_annotation(value: Any, hint: Any, wanted: bool) -> None:
    assert fits(value, hint) is wanted


def test_lone_surrogates_become_json_escapes() -> None:
    text = json.dumps(os.fsdecode(b"a\xff\xc3\xbc"), ensure_ascii=False)
    assert to_utf8(text) == b'"a\\udcff\xc3\xbc"'
    assert json.loads(to_utf8(text).decode()) == os.fsdecode(b"a\xff\xc3\xbc")
