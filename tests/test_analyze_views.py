"""What people and programs see of an analysis: the verb, its tables, JSON, CSV, page; and this machine's roof."""

import csv
import html.parser
import io
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx.parser
import pytest

from featherweight.analyze import analyze, roofline, timing
from featherweight.analyze.page import page
from featherweight.analyze.roofline import Machine, child_main, this_machine
from featherweight.analyze.timing import Profile, attribute, read_profile, timed
from featherweight.analyze.views import View, show_bytes, show_count, text, to_csv
from featherweight.cli import main
from featherweight.device import available_cores, this_device
from featherweight.errors import MeasureError, SettingError
from featherweight.export import litert_bytes, onnx_bytes
from featherweight.record import append_record
from featherweight.runtimes.ort import _filled
from tests.make import make_record

L = keras.layers
# 100 GFLOP/s; 10 GB/s from memory, 40 GB/s within a MiB.
MACHINE = Machine("Testboard", "0123456789ab", 1, 1e11, ((2**18, 4e10), (2**20, 4e10), (2**26, 1e10)), "2.0")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    x = keras.Input((16, 16, 3))
    y = L.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(x)
    y = L.ReLU(name="stem_relu")(L.BatchNormalization(name="stem_norm")(y))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="wide")(y)
    y = L.Conv2D(16, 1, activation="relu", name="narrow")(y)
    y = L.GlobalAveragePooling2D(name="features")(y)
    return keras.Model(x, L.Dense(4, activation="softmax", name="head")(y), name="small")


@pytest.fixture(scope="module")
def exported(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in model.get_weights()])
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    path.write_bytes(onnx_bytes(model))
    path.with_suffix(".tflite").write_bytes(litert_bytes(model))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# ------------------------------------------------------------------------------------------------------ verb


def test_the_verb_prints_every_layer_and_the_totals(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "analyze", exported)
    macs = 64 * 27 * 8 + 64 * 9 * 8 + 64 * 8 * 16 + 16 * 4
    assert status == 0
    assert f"({macs:,})" in out
    assert "16×16×3 → 4" in out
    for name in ("wide", "narrow", "stride 2", "head", "total", "last operator at this stride", "as standard"):
        assert name in out
    assert "Counts do not rank light models" in out
    assert f"1/N + 1/k² = {1 / 16 + 1 / 9:.3f}" in out


@pytest.mark.parametrize("level", ["stage", "layer", "operator"])
def test_each_level_has_a_line_each(level: str, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "analyze", exported, "--by", level)
    analysis = analyze(exported)
    lines = {"stage": analysis.stages, "layer": analysis.layers, "operator": analysis.rows}[level]
    first = next(number for number, line in enumerate(out.splitlines()) if line.startswith(level))
    names = [line.split("  ")[0] for line in out.splitlines()[first + 1 : first + 1 + len(lines)]]
    assert names == [line.name for line in lines]


def test_json_is_one_document_with_every_number(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "analyze", exported, exported.with_suffix(".tflite"), "--json")
    first, second = json.loads(out)["models"]
    assert (first["format"], second["format"]) == ("onnx", "litert")
    assert first["macs"] == second["macs"] == sum(row["macs"] for row in first["rows"])
    assert first["standard"]["pairs"][0]["ratio"] == pytest.approx(1 / 16 + 1 / 9)
    assert first["rows"][0].keys() == second["rows"][0].keys()
    assert not first["at_least"]
    assert first["roofline"] is None


def test_several_models_stand_side_by_side(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "analyze", exported, exported.with_suffix(".tflite"))
    lines = {line.split("  ")[0]: line.split()[1:] for line in out.splitlines() if line}
    assert lines["format"] == ["onnx", "litert"]
    assert lines["unknown operators"][1:] == ["0", "0"]
    assert "MACs at stride 2" in lines
    assert "MACs at head" in lines


def test_csv_has_a_row_an_operator_and_no_formula(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "analyze", exported, "--csv", tmp_path / "costs.csv")
    assert f"table: {tmp_path / 'costs.csv'}" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "costs.csv").read_text())))
    analysis = analyze(exported)
    assert len(rows) == len(analysis.rows)
    assert sum(int(row["macs"]) for row in rows) == analysis.macs
    assert sum(int(row["parameters"]) for row in rows) == analysis.parameters
    evil = replace(analysis, rows=(replace(analysis.rows[0], name="=cmd()"),))
    assert "'=cmd()" in to_csv([View(evil)])


def test_wrong_input_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.onnx").write_text("<!doctype html>")
    for arguments in (
        (tmp_path / "page.onnx",),
        (tmp_path / "absent.onnx",),
        ("no_such_net",),
        ("hello", "--input-size", "1,2,3"),
        ("hello", "--input-size", "x"),
    ):
        status, out, err = run(capsys, "analyze", *arguments)
        assert (status, out) == (2, "")
        assert err.startswith("featherweight: ")
        assert err.count("\n") == 1


def test_names_from_a_file_cannot_steer_the_terminal(model: keras.Model) -> None:
    analysis = analyze(model)
    hostile = replace(analysis, name="\x1b[2J[bold]x", layers=(replace(analysis.layers[0], name="a\x1b]0;b\x07"),))
    out = text([View(hostile)], "layer")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]x" in out


# ------------------------------------------------------------------------------------------------------ page


class Tags(html.parser.HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [name for name, _ in attributes if name in ("src", "href", "xlink:href", "onload", "onclick")]


def test_the_page_is_self_contained_and_escapes_what_files_say(model: keras.Model) -> None:
    analysis = analyze(model)
    hostile = replace(
        analysis,
        name="<script>alert(1)</script>",
        layers=tuple(replace(layer, name=f'"><img src=x>{layer.name}') for layer in analysis.layers),
    )
    whole = page([View(hostile), View(analysis)])
    parser = Tags()
    parser.feed(whole)
    assert not {"script", "img", "link", "iframe"} & set(parser.tags)
    assert parser.links == []
    assert "default-src 'none'" in whole
    assert parser.tags.count("svg") == 6
    # A bar to hover over for each layer of each chart of each model.
    assert whole.count('<g class="layer"><title>') == 6 * len(analysis.layers)
    assert "8×8×8 → 8×8×8" in whole


def test_bars_are_as_high_as_their_cost_is(model: keras.Model) -> None:
    import re

    analysis = analyze(model)
    chart = page([View(analysis)]).split("<svg")[1]
    heights = [float(value) for value in re.findall(r'class="cost"[^>]*height="([0-9.]+)"', chart)]
    macs = [layer.macs for layer in analysis.layers if layer.macs]
    assert len(heights) == len(macs)
    for height, cost in zip(heights, macs, strict=True):
        assert height / max(heights) == pytest.approx(cost / max(macs), abs=0.01)


def test_the_page_is_written_and_replaces_only_pages(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "page.html"
    for _ in range(2):
        status, _, _ = run(capsys, "analyze", exported, "--output", place)
        assert status == 0
    assert place.read_text().startswith("<!doctype html>")
    (tmp_path / "empty.html").touch()
    assert run(capsys, "analyze", exported, "--output", tmp_path / "empty.html")[0] == 0


@pytest.mark.parametrize("option", ["--csv", "--output"])
@pytest.mark.parametrize("content", ["mine", "<!doctype html><title>my own page</title>", "model,number\n1,2\n"])
def test_what_is_the_users_is_never_overwritten(
    option: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "mine"
    place.write_text(content)
    status, _, err = run(capsys, "analyze", tmp_path / "absent.onnx", option, place)
    assert status == 2
    assert "nothing is overwritten" in err  # and not that the model is absent: the place is looked at first
    assert place.read_text() == content


def test_pipes_links_and_folders_are_no_places_for_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("pipe", "link", "dangling", "."):
        status, _, err = run(capsys, "analyze", "absent.onnx", "--csv", tmp_path / name)
        assert (status, "no regular file" in err) == (2, True)
    assert "make its folder" in run(capsys, "analyze", "absent.onnx", "--output", tmp_path / "a" / "b.html")[2]
    assert (tmp_path / "link").is_symlink()


def test_table_and_page_want_two_places(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = tmp_path / "both"
    status, _, err = run(capsys, "analyze", exported, "--csv", both, "--output", tmp_path / "." / "both")
    assert (status, "wanted two files" in err, both.exists()) == (2, True, False)


def test_whole_numbers_are_written_whole() -> None:
    assert (show_count(4), show_count(999), show_count(1500), show_count(None)) == ("4", "999", "1.50 k", "unknown")
    assert (show_bytes(16), show_bytes(1500), show_bytes(None)) == ("16 B", "1.50 kB", "–")


def test_threads_are_checked_first(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "analyze", "absent.onnx", "--threads", "9999")
    assert (status, "9999 threads; wanted 1 to" in err) == (2, True)


def test_an_error_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = '<ir_version: 8, opset_import: ["" : 15]>\n'
    model = onnx.parser.parse_model(header + "net (float[1,4] x) => (float[1,4] y) { y = Relu (absent) }")
    model.graph.node[0].op_type = "\x1b]0;title\x07\x1b[31mRelu"
    (tmp_path / "steers.onnx").write_bytes(model.SerializeToString())
    status, _, err = run(capsys, "analyze", tmp_path / "steers.onnx")
    assert (status, "\x1b" in err, "\\x1b" in err) == (2, False, True)


# -------------------------------------------------------------------------------------------------- roofline


def test_a_layer_is_bound_by_what_takes_longer(model: keras.Model) -> None:
    analysis = analyze(model)
    found = roofline.roofline(analysis, MACHINE)
    stem = next(row for row in analysis.rows if row.name == "stem")
    moved = 4 * (16 * 16 * 3 + 8 * 8 * 8 + 27 * 8)
    assert stem.traffic_bytes == moved
    arithmetic, memory = 2 * 64 * 27 * 8 / 1e11, moved / 4e10
    timed_stem = found.row("stem")
    assert timed_stem is not None
    assert timed_stem.least_us == pytest.approx(1e6 * max(arithmetic, memory))
    assert timed_stem.bound_by == ("arithmetic" if arithmetic > memory else "memory")
    pooled = found.row("features")
    assert pooled is not None
    assert pooled.bound_by == "memory"
    # Fused into the convolution, it moves nothing of its own.
    relu = found.row("stem_relu")
    assert relu is not None
    assert relu.least_us == pytest.approx(1e6 * 64 * 8 / 1e11)
    assert found.least_us == pytest.approx(sum(timed.least_us for timed in found.rows.values()))
    assert MACHINE.ridge == 10
    assert MACHINE.bytes_per_second(10) == MACHINE.bytes_per_second(2**20) == 4e10
    assert MACHINE.bytes_per_second(2**30) == 1e10


def test_a_model_of_another_type_has_the_bound_of_its_bytes(model: keras.Model) -> None:
    analysis = analyze(model)
    int8 = replace(analysis, rows=tuple(replace(row, dtype="int8") for row in analysis.rows))
    slow = replace(MACHINE, flops_per_second=1.0)  # float32's arithmetic must not matter
    found = roofline.roofline(int8, slow)
    moved = {row.name: row.traffic_bytes for row in int8.rows if found.rows[row.name].bound_by == "memory"}
    assert {"stem", "wide", "narrow", "features", "head"} <= set(moved)
    assert found.least_us == pytest.approx(sum(1e6 * size / slow.bytes_per_second(size) for size in moved.values()))
    assert "it computes in int8" in "\n".join(found.lines())
    assert not roofline.roofline(analysis, slow).notes


def test_only_what_follows_a_product_or_a_joining_is_fused() -> None:
    x = keras.Input((8, 8, 4))
    y = L.ReLU(name="alone")(x)
    y = L.ReLU(name="after")(L.BatchNormalization(name="norm")(L.Conv2D(4, 3, padding="same", name="conv")(y)))
    y = L.ReLU(name="joined")(L.Add(name="add")([x, y]))
    y = L.ReLU(name="pooled")(L.MaxPooling2D(name="pool")(y))
    found = roofline.roofline(analyze(keras.Model(x, L.Flatten(name="flat")(y))), MACHINE)
    bound = {name: timed.bound_by for name, timed in found.rows.items()}
    assert {name for name, by in bound.items() if by == "fused"} == {"norm", "after", "joined"}
    assert (bound["alone"], bound["pooled"], bound["add"], bound["flat"]) == ("memory", "memory", "memory", "nothing")
    assert found.rows["after"].least_us == pytest.approx(1e6 * 256 / 1e11)
    only = found.group(["flat"])
    assert only is not None and only.bound_by == "nothing"


def test_the_roof_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    busy: list[float | None] = [0.0]

    def measure(threads: int) -> dict[str, Any]:
        calls.append(threads)
        bandwidth = [[size, 1e10] for size in roofline.WORKING_SETS]
        return {"flops_per_second": 1e11, "bandwidth": bandwidth, "busy": busy[-1]}

    monkeypatch.setattr(roofline, "_measure", measure)
    first, second = this_machine(1, tmp_path), this_machine(1, tmp_path)
    assert first == second
    assert calls == [1]
    (kept,) = (tmp_path / "roofline").iterdir()
    for broken in ("", "{}", "[]", '{"schema": 1}', kept.read_text().replace("1e+11", "-1").replace("1e11", "-1")):
        kept.write_text(broken)
        this_machine(1, tmp_path)
    assert len(calls) >= 5
    with pytest.raises(SettingError, match=f"wanted 1 to {available_cores()}"):
        this_machine(available_cores() + 1, tmp_path)
    (tmp_path / "file").write_text("")
    assert this_machine(1, tmp_path / "file").flops_per_second == 1e11  # kept nowhere, measured all the same


def test_a_roof_that_others_disturbed_says_so_and_is_not_kept(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"flops_per_second": 1e11, "bandwidth": [[size, 1e10] for size in roofline.WORKING_SETS]}
    monkeypatch.setattr(roofline, "_measure", lambda threads: {**measured, "busy": 0.5})
    machine = this_machine(1, tmp_path)
    assert machine.disturbed
    assert not list(tmp_path.iterdir())
    out = text([View(analyze(model), roofline.roofline(analyze(model), machine))], "stage")
    assert "50 % of the cores were in use by others" in out
    monkeypatch.setattr(roofline, "_measure", lambda threads: {**measured, "busy": None})
    assert not this_machine(1, tmp_path).disturbed
    assert len(list((tmp_path / "roofline").iterdir())) == 1


def test_what_is_measured_is_plausible(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(roofline, "MATRIX_SIDES", (64, 128))
    monkeypatch.setattr(roofline, "WORKING_SETS", (2**18, 2**24))
    monkeypatch.setattr(roofline._best_rate, "__defaults__", (0.01,))
    child_main(available_cores())
    found = json.loads(capsys.readouterr().out)
    assert 1e8 < found["flops_per_second"] < 1e14
    rates = [rate for _, rate in found["bandwidth"]]
    assert 1e8 < rates[1] <= rates[0] < 1e13


def test_a_measuring_process_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "python")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(MeasureError, match="measuring this machine's roof failed"):
        roofline._measure(1)


@pytest.fixture
def roof(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = replace(MACHINE, device_id=this_device().id)
    monkeypatch.setattr(timing, "this_machine", lambda threads: machine)
    return machine


def test_a_record_of_the_same_file_says_what_share_was_reached(exported: Path, tmp_path: Path, roof: Machine) -> None:
    analysis = analyze(exported)
    place = tmp_path / "records.jsonl"
    same = {"artifact_sha256": analysis.sha256, "device_id": roof.device_id, "threads": 1}
    append_record(place, make_record(artifact_sha256="cd" * 32, latency_p50_ms=0.001))
    append_record(place, make_record(**{**same, "threads": 2}, latency_p50_ms=0.001))
    found = timed(analysis, 1, place).roofline
    assert found is not None
    assert found.measured_us is None
    assert "no record has a latency of this file on this machine with 1 threads" in found.missing[0]
    append_record(place, make_record(**same, latency_p50_ms=0.25))
    append_record(place, make_record(**same, runtime="litert", latency_p50_ms=0.5))
    view = timed(analysis, 1, place)
    assert view.roofline is not None
    assert view.roofline.reached == pytest.approx(view.roofline.least_us / 250)
    assert "of the bound reached" in text([view], "layer")
    assert "onnxruntime" in view.roofline.measured_by


def test_the_profile_adds_up_to_a_run(exported: Path, roof: Machine) -> None:
    analysis = analyze(exported)
    found = timed(analysis, 1, profile=True).roofline
    assert found is not None
    assert found.measured_us is not None
    assert found.other_us is not None
    times = {name: t.measured_us for name, t in found.rows.items() if t.measured_us is not None}
    assert sum(times.values()) + found.other_us == pytest.approx(found.measured_us)
    products = {row.name for row in analysis.rows if row.macs}
    assert products <= set(times)  # every convolution and dense layer has its time, also fused ones


def test_a_profile_of_open_sizes_is_of_what_was_analysed(tmp_path: Path, roof: Machine) -> None:
    zeros = ", ".join(["0"] * 64 * 3 * 9)
    net = (
        '<ir_version: 8, opset_import: ["" : 15]>\n'
        f"net (float[N,3,H,W] x) => (float[N,64,H,W] y) <float[64,3,3,3] w = {{{zeros}}}>"
        "{ y = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w) }"
    )
    (tmp_path / "open.onnx").write_bytes(onnx.parser.parse_model(net).SerializeToString())
    found = {side: timed(analyze(tmp_path / "open.onnx", side), 1, profile=True).roofline for side in (8, 256)}
    times = {side: each.measured_us or 0.0 for side, each in found.items() if each is not None}
    assert times[256] > 10 * times[8] > 0  # a thousand times the work


@pytest.mark.parametrize(
    ("own", "given", "wanted"),
    [
        (["N", 3, "H", "W"], (1, 5, 7, 3), [1, 3, 5, 7]),
        (["N", "H", "W", 3], (1, 5, 7, 3), [1, 5, 7, 3]),
        ([None, 3, 8, 8], (1, 8, 8, 3), [1, 3, 8, 8]),
        ([1, 10], (1, 10), [1, 10]),
        (["N", 4], (), [1, 4]),
    ],
)
def test_open_sizes_of_a_profile_are_the_analysed_ones(
    own: list[Any], given: tuple[int, ...], wanted: list[int]
) -> None:
    assert _filled(own, given) == wanted


def test_formats_without_a_profiler_say_so(exported: Path, model: keras.Model, roof: Machine) -> None:
    for source, reason in ((exported.with_suffix(".tflite"), "LiteRT's Python API"), (model, "only a runtime")):
        view = timed(analyze(source), 1, profile=True)
        assert view.roofline is not None
        assert reason in view.roofline.missing[0]
        assert reason in text([view], "stage")


def test_profiling_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08nothing")
    with pytest.raises(MeasureError, match="onnxruntime cannot load"):
        timing.take_profile(tmp_path / "bad.onnx", 1, {})


def test_a_profiling_process_that_hangs_or_dies_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(MeasureError, match="took over 600 s"):
        timing.take_profile(Path("x.onnx"), 1, {})
    died = subprocess.CompletedProcess([], -11, b"", b"one\nSegmentation fault\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(MeasureError, match="died: Segmentation fault; the file may be damaged"):
        timing.take_profile(Path("x.onnx"), 1, {})


def test_fused_events_belong_to_the_convolution(model: keras.Model) -> None:
    analysis = analyze(model)
    events = {
        ("stem_relu_nchwc_kernel_time", "Conv"): 7.0,
        ("narrow/relu_kernel_time", "FusedConv"): 5.0,
        ("features_token_3_kernel_time", "GlobalAveragePool"): 2.0,
        ("ReorderInput_kernel_time", "ReorderInput"): 1.0,
    }
    times, other = attribute(analysis.rows, Profile(events, 20.0))
    assert times == {"stem": 7.0, "narrow": 5.0, "features": 2.0}
    assert other == 20.0 - 14.0


def test_medians_are_of_the_later_half() -> None:
    def event(name: str, duration: int, **more: object) -> dict[str, Any]:
        return {"name": name, "dur": duration, **more}

    node = {"cat": "Node", "args": {"op_name": "Conv"}}
    events = [event("model_run", d) for d in (900, 100, 10, 12, 14, 30)]
    events += [event("c_kernel_time", d, **node) for d in (90, 10, 1, 2, 3, 4)]
    events += [event("c_fence_before", 5, **node)]
    assert read_profile(events) == {"events": [["c_kernel_time", "Conv", 3.0]], "run_us": 14.0}


def test_the_view_with_times_has_a_chart_more(exported: Path, roof: Machine) -> None:
    analysis = analyze(exported)
    view = timed(analysis, 1)
    assert page([view]).count("<svg") == 4
    out = text([view], "layer")
    assert "bound by" in out
    assert "GFLOP/s" in out
    both = text([view, view], "layer")
    assert "least time here, µs" in both
    assert json.loads(json.dumps(view.as_dict()))["roofline"]["machine"]["ridge_flops_per_byte"] == 10
