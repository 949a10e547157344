"""Records and their file: nothing acknowledged is ever lost, and nothing but a record is taken for one."""

import errno
import fcntl
import json
import os
import random
import subprocess
import sys
import threading
import typing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featherweight import record as module
from featherweight.errors import OutputError, RecordError
from featherweight.record import (
    OPTIONAL,
    QUANTITIES,
    Record,
    append_record,
    label_of,
    newer_than,
    read_records,
    record_from_json,
    told,
    value_of,
)
from tests.make import make_record

NAMES = [field.name for field in fields(Record)]
UNMEASURED = dict.fromkeys([*QUANTITIES, "accuracy_interval", "accuracy_n", "latency_p50_interval_ms", "latency_n"])
RECORDS = (
    make_record(),
    make_record(**UNMEASURED, missing=dict.fromkeys(QUANTITIES, "no time"), precision=None, task=None, data=None),
    make_record(part=None, seed=None, memory_baseline_bytes=None, steps=(), warnings=("busy", "hot")),
    make_record(name="ü猫\u2028|<img>\n" + os.fsdecode(b"\xff"), latency_p50_ms=0.1 + 0.2, size_bytes=2**53 + 1),
)


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_survives_json(record: Record) -> None:
    found = record_from_json(record.to_json())
    for name in NAMES:
        assert (name, getattr(found, name)) == (name, getattr(record, name))
        assert type(getattr(found, name)) is type(getattr(record, name))
    assert found == record and found.id == record.id
    assert "\n" not in record.to_json()


def other_value(name: str) -> Any:
    value = getattr(make_record(), name)
    if name == "schema":
        return 1
    if isinstance(value, bool):
        return not value
    if value is None:
        return {"x": "y"} if name == "energy_estimate" else "x"
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {**value, "x": "y"}
    if isinstance(value, tuple):
        return (0.5, 0.75) if "interval" in name else (*value, {"x": 1}) if name == "steps" else (*value, "x")
    return value / 2 if name == "accuracy" else value + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_id_is_of_everything(name: str) -> None:
    assert replace(make_record(), **{name: other_value(name)}).id != make_record().id


def test_the_same_record_has_the_same_id_whatever_the_order() -> None:
    record = make_record(settings={"a": 1, "b": 2})
    assert record.id == make_record(settings={"b": 2, "a": 1}).id
    assert len(record.id) == 8 and int(record.id, 16) >= 0


@pytest.mark.parametrize("name", QUANTITIES)
def test_each_quantity_by_its_name(name: str) -> None:
    assert value_of(make_record(**{name: 0.5}), name) == 0.5
    assert value_of(make_record(**{name: None}), name) is None


@pytest.mark.parametrize("name", ["threads", "__class__", "", "latency_p50"])
def test_no_other_field_is_a_quantity(name: str) -> None:
    with pytest.raises(RecordError, match=f"unknown quantity '{name}'; known: accuracy, latency_p50_ms"):
        value_of(make_record(), name)


def test_a_record_of_schema_2_keeps_its_line_and_its_metric_is_top_1() -> None:
    old = {name: value for name, value in json.loads(make_record().to_json()).items() if name not in newer_than(2)}
    line = json.dumps({**old, "schema": 2}, sort_keys=True)
    record = record_from_json(line)
    assert record.to_json() == line and label_of("accuracy", [record]) == "top-1"
    with pytest.raises(RecordError, match="'ap50, ap75, boundary_f1, dice, iou, metric, pixel_accuracy, scores'"):
        record_from_json(line_with(schema=2))


def test_a_record_of_schema_3_keeps_its_line_and_has_no_masks() -> None:
    old = {name: value for name, value in json.loads(make_record().to_json()).items() if name not in newer_than(3)}
    line = json.dumps({**old, "schema": 3}, sort_keys=True)
    record = record_from_json(line)
    assert record.to_json() == line and record.iou is None and "iou" not in told(record)
    with pytest.raises(RecordError, match="fields missing or unknown: 'boundary_f1, dice, iou, pixel_accuracy'"):
        record_from_json(line_with(schema=3))


def test_a_segmenter_s_record_says_its_metric() -> None:
    record = make_record(metric="mean IoU", iou=0.75, dice=0.85, pixel_accuracy=0.97, boundary_f1=0.5)
    assert record_from_json(record.to_json()) == record
    assert label_of("accuracy", [record]) == "mean IoU" and label_of("iou", [record]) == "IoU of class 1"
    assert set(QUANTITIES) - set(told(record)) == {"ap50", "ap75"}


def test_a_detector_s_record_says_its_metric() -> None:
    plain, detector = make_record(), make_record(metric="AP50:95", ap50=0.75, ap75=0.5, scores={"small": None})
    assert record_from_json(detector.to_json()) == detector
    assert [name for name in QUANTITIES if name not in told(plain)] == list(OPTIONAL)
    assert set(QUANTITIES) - set(told(detector)) == {"iou", "dice", "pixel_accuracy", "boundary_f1"}
    assert label_of("accuracy", [detector, detector]) == "AP50:95"
    assert label_of("accuracy", [plain, detector]) == "accuracy" and label_of("ap50", [plain, detector]) == "AP50"
    assert label_of("accuracy", []) == "top-1"


def test_a_record_of_schema_1_is_read_and_keeps_its_line_and_id() -> None:
    old = {name: value for name, value in json.loads(make_record().to_json()).items() if name not in newer_than(1)}
    line = json.dumps({**old, "schema": 1}, sort_keys=True)
    record = record_from_json(line)
    assert record.to_json() == line
    assert record.quick  # two seconds were its default
    assert (record.total_p50_ms, record.unstable, record.samples) == (None, (), None)
    assert record.latency_p50_ms == make_record().latency_p50_ms


def test_an_estimate_is_no_energy() -> None:
    for method in ("estimated:tdp", "not available: no", None):
        with pytest.raises(RecordError, match="an estimate has its own field"):
            record_from_json(line_with(energy_method=method))
    assert record_from_json(line_with(energy_method="estimated:battery", energy_mj=None)).energy_mj is None


def test_a_record_of_schema_1_has_no_fields_of_schema_2() -> None:
    with pytest.raises(RecordError, match="fields missing or unknown: 'ap50, ap75, boundary_f1, cold_start_ms, "):
        record_from_json(line_with(schema=1))


def test_a_record_that_is_corrected_later_is_left_out(tmp_path: Path) -> None:
    first, other = make_record(), make_record(name="other")
    corrected = replace(first, unstable=("the first was 8 % slower when it was run again",), replaces=first.id)
    for record in (first, other, corrected):
        append_record(tmp_path / "records.jsonl", record)
    assert read_records(tmp_path / "records.jsonl") == [other, corrected]


def test_intervals_by_name() -> None:
    record = make_record()
    assert record.interval("accuracy") == (0.81, 0.92)
    assert record.interval("latency_p50_ms") == (4.125, 4.375)
    assert record.interval("size_bytes") is None


# ------------------------------------------------------------------------------------------------------ reading


def line_with(**changes: Any) -> str:
    values = {**json.loads(make_record().to_json()), **changes}
    return json.dumps({name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ("[]", "list instead of an object"),
        ("null", "NoneType instead of an object"),
        ("{}", "schema None; this featherweight reads 1 to 4"),
        (line_with(schema=5), "schema 5; this featherweight reads 1 to 4"),
        (line_with(schema=True), "schema True; this featherweight reads 1 to 4"),
        (line_with(color="red"), "fields missing or unknown: 'color'"),
        (line_with(accuracy=...), "fields missing or unknown: 'accuracy'"),
        (line_with(accuracy=float("nan")), "NaN is not a number"),
        (line_with(macs=float("-inf")), "-Infinity is not a number"),
        (line_with().replace("4.25", "1e999"), "1e999 is more than a number can be"),
        (line_with(settings={"deep": [float("nan")]}), "NaN is not a number"),
        (line_with(macs=10**400), "macs is 1000.*; wanted float"),
        (line_with(accuracy=True), "accuracy is True; wanted float | None"),
        (line_with(accuracy="0.9"), "accuracy is '0.9'; wanted float | None"),
        (line_with(accuracy=1.01), "accuracy is 1.01; wanted 0 to 1"),
        (line_with(size_bytes=-1), "size_bytes is -1; wanted 0 or more"),
        (line_with(accuracy_interval=[0.5]), "accuracy_interval is"),
        (line_with(accuracy_interval=[None, 0.5]), "accuracy_interval is"),
        (line_with(accuracy_interval=[0.6, 0.5]), "the lower one first"),
        (line_with(latency_p50_interval_ms=[-1, 5]), "two numbers from 0 on"),
        (line_with(threads="1"), "threads is '1'; wanted int"),
        (line_with(data=["a"]), "data is ['a']; wanted str | None"),
        (line_with(versions={"onnxruntime": 1}), "versions is"),
        (line_with(memory_baseline_bytes=1.5), "memory_baseline_bytes is 1.5; wanted int | None"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused_with_the_cause(line: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        record_from_json(line)
    pieces = message.split(".*")
    assert all(piece in str(caught.value) for piece in pieces)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [{"a": [1]}, [[1]], True, None, 0.5])
def test_each_field_of_a_wrong_kind_is_refused(name: str, wrong: Any) -> None:
    hint = str(typing.get_type_hints(Record)[name])
    fitting = (
        (wrong is None and "None" in hint and name != "energy_method")  # which energy_mj needs
        or (wrong == 0.5 and wrong is not True and hint == "float | None")
        or (isinstance(wrong, dict) and hint.removesuffix(" | None") == "dict[str, typing.Any]")
        or (wrong is True and name == "quick")
    )
    if fitting:
        record_from_json(line_with(**{name: wrong}))
    else:
        with pytest.raises(RecordError):
            record_from_json(line_with(**{name: wrong}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def read_or_refused(line: str) -> None:
    try:
        found = record_from_json(line)
    except RecordError:
        return
    assert record_from_json(found.to_json()) == found  # what is read can be written
    assert found.id == record_from_json(found.to_json()).id


@given(JSON)
def test_any_json_is_a_record_or_a_record_error(value: Any) -> None:
    read_or_refused(json.dumps(value))


@given(st.text(max_size=40))
def test_any_text_is_a_record_or_a_record_error(line: str) -> None:
    read_or_refused(line)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))
@example({"accuracy": 10**400})
@example({"name": "\ud800"})
@example({"settings": {"\ud800": 1e308}})
def test_a_record_with_any_fields_is_read_or_refused(changes: dict[str, Any]) -> None:
    read_or_refused(line_with(**changes))


def test_a_record_cut_off_anywhere_is_refused() -> None:
    line = make_record().to_json()
    for length in range(len(line)):
        with pytest.raises(RecordError):
            record_from_json(line[:length])


# ----------------------------------------------------------------------------------------------------- the file


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    for record in RECORDS:
        append_record(path, record)
    assert read_records(path) == list(RECORDS)
    assert read_records(str(path)) == list(RECORDS)
    assert path.read_bytes().count(b"\n") == len(RECORDS) and path.read_bytes().endswith(b"\n")
    assert [p.name for p in path.parent.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_is_refused_before_anything_is_written(tmp_path: Path, value: float) -> None:
    append_record(tmp_path / "records.jsonl", RECORDS[0])
    before = (tmp_path / "records.jsonl").read_bytes()
    for bad in (make_record(accuracy=value), make_record(settings={"deep": [value]})):
        with pytest.raises(ValueError, match="not JSON compliant"):
            append_record(tmp_path / "records.jsonl", bad)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_a_record_torn_at_any_byte_is_the_only_one_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "fsync", lambda file: None)  # two thousand appends; no power is cut here
    first, second, last = (make_record(seed=seed, name="ü", settings={}, steps=()) for seed in (1, 2, 3))
    path, torn_path = tmp_path / "records.jsonl", tmp_path / "records.jsonl.torn"
    head = (first.to_json() + "\n").encode()
    line = second.to_json().encode()
    for length in range(len(line) + 1):
        path.write_bytes(head + line[:length])
        torn_path.unlink(missing_ok=True)
        assert read_records(path) == [first]
        append_record(path, last)
        if length == len(line):  # whole, and lacks only its newline
            assert read_records(path) == [first, second, last]
        else:
            assert read_records(path) == [first, last], length
        if 0 < length < len(line):
            assert torn_path.read_bytes() == line[:length] + b"\n"
        else:
            assert not torn_path.exists()


@pytest.mark.parametrize(
    "tail", [b"\x00" * 50, b"\xff\xfe", b"{}", b"[" * 100_000], ids=["zeros", "bytes", "{}", "deep"]
)
def test_any_rubbish_at_the_end_is_set_aside(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, RECORDS[0])
    for _ in range(2):  # set aside behind what was set aside before
        with path.open("ab") as file:
            file.write(tail)
        append_record(path, RECORDS[1])
    assert read_records(path) == [RECORDS[0], RECORDS[1], RECORDS[1]]
    assert (tmp_path / "records.jsonl.torn").read_bytes() == (tail + b"\n") * 2


def test_a_file_that_holds_nothing_but_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"accuracy": 1, "na')
    with pytest.raises(RecordError, match="holds no record"):
        read_records(path)
    append_record(path, RECORDS[0])
    assert read_records(path) == [RECORDS[0]]


WRITER = """
import sys
from dataclasses import replace
from featherweight.record import append_record, record_from_json
record = record_from_json(sys.stdin.read())
for turn in range(int(sys.argv[3])):
    append_record(sys.argv[1], replace(record, name=sys.argv[2], seed=turn))
    print(turn, flush=True)
"""


def writer(path: Path, name: str, turns: int) -> subprocess.Popen[str]:
    code = [sys.executable, "-c", WRITER, str(path), name, str(turns)]
    process = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(make_record().to_json())
    process.stdin.close()
    return process


def test_four_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    processes = [writer(path, f"writer-{number}", 50) for number in range(4)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.read()
        process.stdout.close()
        assert process.wait(60) == 0
    records = read_records(path)
    assert sorted((r.name, r.seed) for r in records) == [(f"writer-{n}", turn) for n in range(4) for turn in range(50)]
    for number in range(4):  # and each writer's own in its order
        assert [r.seed for r in records if r.name == f"writer-{number}"] == list(range(50))
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_an_append_waits_for_the_file_s_lock(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, RECORDS[0])
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=append_record, args=(path, RECORDS[2]))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and read_records(path) == [RECORDS[0]]
        file.write(RECORDS[1].to_json().encode() + b"\n")
    waiting.join(30)
    assert read_records(path) == list(RECORDS[:3])


def test_writers_killed_at_any_moment_lose_nothing_acknowledged(tmp_path: Path) -> None:
    path, rng = tmp_path / "records.jsonl", random.Random(0)
    said: set[tuple[str, int]] = set()
    for number in range(3):
        process, name = writer(path, f"writer-{number}", 100_000), f"writer-{number}"
        assert process.stdout is not None
        for _ in range(rng.randrange(5, 40)):
            said.add((name, int(process.stdout.readline())))
        process.kill()
        said |= {(name, int(line)) for line in process.stdout.read().split()}
        process.stdout.close()
        process.wait()
    append_record(path, make_record(name="after", seed=0))
    found = [(r.name, r.seed) for r in read_records(path)]
    assert len(found) == len(set(found))
    assert said <= set(found)
    assert len(set(found) - said) <= 3 + 1  # one each that was written but not yet said, and the one after


# -------------------------------------------------------------------------------------------------- a bad disk


def failing(code: int) -> Any:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("function", ["write", "fsync"])
def test_a_failing_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, RECORDS[0])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module.os, function, failing(code))
        with pytest.raises(OutputError, match=rf"cannot append the record of .*: {os.strerror(code)}; make room"):
            append_record(path, RECORDS[1])
        assert path.read_bytes() == before
    append_record(path, RECORDS[1])
    assert read_records(path) == list(RECORDS[:2])
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_disk_that_fills_up_within_a_line_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, RECORDS[0])
    before, write = path.read_bytes(), os.write
    for length in (1, 100, len(RECORDS[1].to_json()) - 1):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "write", lambda file, data, length=length: write(file, data[:length]))
            with pytest.raises(OutputError, match="No space left on device"):
                append_record(path, RECORDS[1])
        assert path.read_bytes() == before
    append_record(path, RECORDS[1])
    assert read_records(path) == list(RECORDS[:2])


def test_a_disk_that_fails_while_a_torn_line_is_set_aside_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, RECORDS[0])
    with path.open("ab") as file:
        file.write(b'{"torn')
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", failing(errno.EIO))
        with pytest.raises(OutputError, match="Input/output error"):
            append_record(path, RECORDS[1])
    assert path.read_bytes() == before
    append_record(path, RECORDS[1])
    assert read_records(path) == list(RECORDS[:2])
    assert b'{"torn\n' in (tmp_path / "records.jsonl.torn").read_bytes()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="make room or name another place"):
        append_record(tmp_path / "file" / "records.jsonl", RECORDS[0])
    with pytest.raises(OutputError, match="not a regular file"):
        append_record(tmp_path, RECORDS[0])
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------------------------------------- files and folders


@pytest.mark.parametrize("bad", [b"", b"rubbish", b"\xff", b'{"schema": 3}'], ids=["empty", "text", "bytes", "schema"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: bytes, number: int) -> None:
    lines = [record.to_json().encode("utf-8", "backslashreplace") for record in RECORDS[:3]]
    lines.insert(number - 1, bad)
    (tmp_path / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(RecordError, match=rf"records\.jsonl line {number} is no record: "):
        read_records(tmp_path / "records.jsonl")


def test_lines_ended_as_windows_does(tmp_path: Path) -> None:
    lines = [record.to_json() for record in RECORDS[:2]]
    (tmp_path / "records.jsonl").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    assert read_records(tmp_path / "records.jsonl") == list(RECORDS[:2])


def test_a_folder_of_files(tmp_path: Path) -> None:
    append_record(tmp_path / "b.jsonl", RECORDS[0])
    append_record(tmp_path / "a.jsonl", RECORDS[1])
    append_record(tmp_path / "a.jsonl", RECORDS[2])
    (tmp_path / "notes.txt").write_text("no record")
    (tmp_path / "b.jsonl.torn").write_text("torn")
    assert read_records(tmp_path) == [RECORDS[1], RECORDS[2], RECORDS[0]]
    (tmp_path / "c.jsonl").write_text("rubbish\n")
    with pytest.raises(RecordError, match=r"c\.jsonl line 1 is no record"):
        read_records(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no \*\.jsonl in .*; wanted a file of records"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match=r"cannot read .*nothing: No such file or directory; wanted a file"):
        read_records(tmp_path / "nothing")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RecordError, match=r"empty\.jsonl holds no record"):
        read_records(tmp_path / "empty.jsonl")


def test_in_a_folder_of_fit_only_its_records_are_read(tmp_path: Path) -> None:
    for name in ("screen", "records", "proof"):
        append_record(tmp_path / f"{name}.jsonl", make_record(name=name))
    assert [record.name for record in read_records(tmp_path)] == ["records"]
