import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featherweight import measure as measure_verb
from featherweight.artifact import Artifact, Step
from featherweight.errors import MeasureError, RuntimeFailure, SettingError
from featherweight.measure import (
    Origin,
    Protocol,
    _evenly,
    _latency,
    _time_runs,
    _window_medians,
    check_threads,
    measure_one,
)
from featherweight.record import QUANTITIES, read_records, record_from_json, value_of
from featherweight.runtimes import RUNTIMES, runtime_named
from tests.test_floors import BLOCK
from tests.trained import SIZE, Trained

QUICK = Protocol(min_seconds=0.05, min_runs=64, warmup_seconds=0.01, warmup_runs=2)


@pytest.mark.parametrize("kind", ["onnx-int8", "litert-float32"])
def test_one_file_gives_one_whole_record(trained: Trained, kind: str) -> None:
    artifact = trained.artifacts[kind]
    runtime = "onnxruntime" if artifact.format == "onnx" else "litert"
    record = measure_one(artifact, runtime, 1, trained.dataset, "test", QUICK, Origin(3, "featherweight fit colours"))
    assert record_from_json(record.to_json()) == record
    assert record.artifact_sha256 == artifact.sha256
    assert record.size_bytes == artifact.model_path.stat().st_size
    assert record.accuracy is not None
    assert record.accuracy_n == len(trained.dataset.part("test"))
    assert record.accuracy >= 0.7  # chance is a third
    assert record.accuracy_interval is not None
    assert record.accuracy_interval[0] < record.accuracy <= record.accuracy_interval[1]
    assert record.latency_n is not None
    assert record.latency_n >= 64
    assert record.latency_p50_ms is not None
    assert record.latency_p90_ms is not None
    assert 0 < record.latency_p50_ms <= record.latency_p90_ms
    assert record.preprocess_p50_ms is not None
    assert record.preprocess_p50_ms > 0
    assert (record.seed, record.settings["command"]) == (3, "featherweight fit colours")
    assert (record.data, record.part) == (trained.dataset.fingerprint, "test")
    assert record.parameters == trained.model.count_params()
    assert next(step["name"] for step in record.steps) == "train"
    # None and a reason go together, for every quantity.
    for name in QUANTITIES:
        assert (value_of(record, name) is None) == (name in record.missing)


def test_peak_memory_is_above_what_was_there_before(trained: Trained) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a peak that can be counted anew")
    record = measure_one(trained.artifacts["onnx-float32"], "onnxruntime", 1, None, None, QUICK, Origin())
    assert record.memory_baseline_bytes is not None
    assert record.memory_peak_bytes is not None
    model_bytes = trained.artifacts["onnx-float32"].size_bytes
    assert model_bytes < record.memory_peak_bytes - record.memory_baseline_bytes < 300e6


def test_without_data_there_is_no_accuracy_and_the_record_says_why(trained: Trained) -> None:
    record = measure_one(trained.artifacts["onnx-float32"], "onnxruntime", 1, None, None, QUICK, Origin())
    assert record.accuracy is None
    assert record.missing["accuracy"] == "no data was given"
    assert record.settings["inputs"] == "golden inputs"


def test_a_bare_file_is_measured_and_what_is_unknown_is_none(trained: Trained, tmp_path: Path) -> None:
    bare = tmp_path / "somebody.tflite"
    bare.write_bytes(trained.artifacts["litert-int8"].model_path.read_bytes())
    (record,) = measure_verb(bare, trained.dataset, threads=(1,), protocol=QUICK)
    assert record.latency_p50_ms is not None
    assert "does not say its classes" in record.missing["accuracy"]
    assert record.parameters is None
    assert "parameters" in record.missing


def test_all_runtimes_and_threads_are_measured_and_appended(trained: Trained, tmp_path: Path) -> None:
    kinds = [trained.artifacts["onnx-float32"].path, trained.artifacts["litert-float32"].path]
    output = tmp_path / "records.jsonl"
    records = measure_verb(kinds, threads=(1, 1), protocol=QUICK, output=output)
    assert [(record.runtime, record.threads) for record in records] == [("onnxruntime", 1), ("litert", 1)]
    assert read_records(output) == records


def test_measuring_works_where_keras_cannot_be_imported(trained: Trained, tmp_path: Path) -> None:
    """By the command line, with the data, in an environment in which importing Keras raises."""
    arguments = [
        "measure", str(trained.artifacts["onnx-int8"].path), "--data", str(trained.folder), "--threads", "1",
        "--min-seconds", "0.05", "--min-runs", "64", "--json", "--output", str(tmp_path / "records.jsonl"),
    ]  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(BLOCK)  # also in the child process
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; from featherweight.cli import main; sys.exit(main({arguments!r}))"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["accuracy"] >= 0.7


def test_a_file_that_kills_the_runtime_is_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen
    dying = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: real(dying, **rest))
    with pytest.raises(MeasureError, match=r"onnx-float32 by onnxruntime died with signal 11"):
        measure_one(trained.artifacts["onnx-float32"], "onnxruntime", 1, None, None, QUICK, Origin())


def test_a_process_that_hangs_is_ended(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen
    hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: real(hanging, **rest))
    monkeypatch.setattr(sys.modules["featherweight.measure"], "CHILD_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(MeasureError, match="may hang the runtime"):
        measure_one(trained.artifacts["onnx-float32"], "onnxruntime", 1, None, None, QUICK, Origin())


def test_data_with_other_classes_is_refused(trained: Trained) -> None:
    other = replace(trained.dataset, classes=("cat", "dog", "fish"))
    with pytest.raises(MeasureError, match="knows the classes blue, green, red"):
        measure_one(trained.artifacts["onnx-float32"], "onnxruntime", 1, other, "test", QUICK, Origin())


def test_other_pictures_than_it_was_trained_on_are_a_warning(trained: Trained) -> None:
    built = Step("build", {"data": "another fingerprint"})
    artifact = replace(trained.artifacts["onnx-float32"], steps=(built,))
    record = measure_one(artifact, "onnxruntime", 1, trained.dataset, "train", QUICK, Origin())
    assert any("than it was trained on (another fingerprint)" in warning for warning in record.warnings)
    assert any("pictures it was trained on (train)" in warning for warning in record.warnings)
    same = replace(artifact, steps=(Step("build", {"data": trained.dataset.fingerprint}),))
    record = measure_one(same, "onnxruntime", 1, trained.dataset, "test", QUICK, Origin())
    assert not any("trained on" in warning for warning in record.warnings)


def test_a_picture_that_vanished_is_named(trained: Trained, tmp_path: Path) -> None:
    gone = replace(trained.dataset.part("test")[0], path=tmp_path / "gone.png")
    data = replace(trained.dataset, items=(gone,))
    with pytest.raises(MeasureError, match=r"gone\.png changed since the scan: no such file"):
        measure_one(trained.artifacts["onnx-float32"], "onnxruntime", 1, data, "test", QUICK, Origin())


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_says_what_it_does_not_support(trained: Trained, name: str) -> None:
    other = trained.artifacts["litert-float32" if name == "onnxruntime" else "onnx-float32"]
    reason = RUNTIMES[name].supports(other)
    assert reason is not None
    assert name in reason
    with pytest.raises(RuntimeFailure, match="nothing here runs colours"):
        measure_verb(other, runtime=name, threads=(1,))


@pytest.mark.parametrize(("suffix", "head"), [(".onnx", b"\x08\x0a"), (".tflite", b"\x1c\0\0\0TFL3")])
def test_a_damaged_model_file_is_one_line(tmp_path: Path, suffix: str, head: bytes) -> None:
    (tmp_path / f"torn{suffix}").write_bytes(head + bytes(200))
    with pytest.raises((RuntimeFailure, MeasureError), match="torn"):
        measure_verb(tmp_path / f"torn{suffix}", threads=(1,), protocol=QUICK)


def test_an_unknown_runtime_and_odd_threads_are_refused(trained: Trained) -> None:
    with pytest.raises(SettingError, match="unknown runtime 'tensorrt'; known: onnxruntime, litert"):
        runtime_named("tensorrt")
    with pytest.raises(SettingError, match="0 threads"):
        check_threads((0,))
    with pytest.raises(SettingError, match="99999 threads"):
        check_threads((99999,))
    with pytest.raises(SettingError, match="at least one run"):
        Protocol(min_runs=0)
    with pytest.raises(SettingError, match="times from 0 on"):
        Protocol(min_seconds=float("inf"))


class Counting:
    """A session that only counts."""

    height = width = 4

    def __init__(self) -> None:
        self.runs = 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.runs += 1
        return np.zeros((1, 2), np.float32)


def test_runs_go_on_until_both_the_time_and_the_count_are_reached() -> None:
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    session = Counting()
    infer, post = _time_runs(session, pixels, None, Protocol(min_seconds=0, min_runs=17))
    assert (len(infer), session.runs, post) == (17, 17, [])
    infer, post = _time_runs(session, pixels, lambda outputs: outputs, Protocol(min_seconds=0.05, min_runs=1))
    assert len(infer) == len(post) > 17
    assert sum(infer) + sum(post) <= 0.5e9


@pytest.mark.parametrize(
    ("n", "said"), [(10, []), (11, [50]), (63, [50]), (64, [50, 90]), (661, [50, 90]), (662, [50, 90, 99])]
)
def test_a_percentile_is_withheld_with_a_reason_where_n_is_too_small(n: int, said: list[int]) -> None:
    result = _latency([1_000_000] * n)
    for percent in (50, 90, 99):
        name = f"latency_p{percent}_ms"
        assert result[name] == (1.0 if percent in said else None)
        assert (name in result["missing"]) == (percent not in said)


def test_windows_keep_the_drift_in_the_interval() -> None:
    """Half the run at 1 ms, half at 2 ms: single runs would give a far too narrow interval, windows span both."""
    samples = [1_000_000] * 500 + [2_000_000] * 500
    assert len(_window_medians(samples)) == 20
    low, high = _latency(samples)["latency_p50_interval_ms"]
    assert (low, high) == (1.0, 2.0)
    assert _latency(samples)["warnings"]
    assert not _latency([1_000_000] * 100)["warnings"]


def test_inputs_come_from_all_over_the_list() -> None:
    paths = [Path(str(i)) for i in range(100)]
    assert [int(str(p)) for p in _evenly(paths, 4)] == [0, 25, 50, 75]
    assert _evenly(paths[:3], 4) == paths[:3]


def test_golden_outputs_that_differ_are_a_warning(trained: Trained, tmp_path: Path) -> None:
    from featherweight.artifact import write_artifact

    artifact: Artifact = trained.artifacts["onnx-float32"]
    inputs, outputs = artifact.golden()
    other = write_artifact(
        replace(artifact, path=tmp_path / "other"), artifact.model_path.read_bytes(), (inputs, 1 - outputs)
    )
    record = measure_one(other, "onnxruntime", 1, None, None, QUICK, Origin())
    assert any("differ by up to" in warning for warning in record.warnings)
    assert artifact.height == SIZE
