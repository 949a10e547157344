import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherweight import measure as measure_verb
from featherweight.artifact import Artifact, Step, write_artifact
from featherweight.data import Dataset
from featherweight.errors import MeasureError, OutputError, RecordError, RuntimeFailure, SettingError, SomeUnmeasured
from featherweight.measure import Case, Origin, Patience, Power, Protocol, cases_of, check_threads, numbers
from featherweight.measure import one as one_module
from featherweight.measure import session as session_module
from featherweight.measure.one import evenly, measure_case, pictures_of
from featherweight.measure.samples import folder_of, read_samples, write_samples
from featherweight.measure.session import Session
from featherweight.record import Record, read_records, record_from_json, told, value_of
from featherweight.runtimes import RUNTIMES, runtime_named
from featherweight.runtimes.settings import Settings
from tests.make import make_record
from tests.test_floors import BLOCK
from tests.trained import SIZE, Trained

module = sys.modules["featherweight.measure"]
SHORT = Protocol(
    min_seconds=0.05, warmup_seconds=0.01, warmup_runs=2, total_seconds=0.01, throughput_seconds=0.05, cold_starts=1,
    energy_window_seconds=0.05,
)  # fmt: skip
# Long enough in name only: no field but `quick` hangs on it, and the tests must not take minutes.
FULL = replace(SHORT, min_seconds=10.0, warmup_seconds=1.0, warmup_runs=10)


def one_record(
    artifact: Artifact,
    dataset: Dataset | None = None,
    part: str | None = None,
    runtime: str = "onnxruntime",
    origin: Origin | None = None,
) -> Record:
    case = Case(artifact, runtime, Settings())
    return measure_case(case, pictures_of(artifact, dataset, part), SHORT, origin or Origin())[0]


@pytest.mark.parametrize("kind", ["onnx-int8", "litert-float32"])
def test_one_file_gives_one_whole_record(trained: Trained, kind: str) -> None:
    artifact = trained.artifacts[kind]
    runtime = "onnxruntime" if artifact.format == "onnx" else "litert"
    record = one_record(artifact, trained.dataset, "test", runtime, Origin(3, "featherweight fit colours"))
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
    assert record.total_p50_ms is not None
    assert 0 < record.preprocess_p50_ms < record.total_p50_ms
    assert record.throughput_per_s is not None
    assert record.throughput_per_s > 0
    assert record.cold_start_ms is not None
    assert record.cold_start_ms > record.latency_p50_ms
    assert (record.seed, record.settings["command"]) == (3, "featherweight fit colours")
    assert (record.data, record.part) == (trained.dataset.fingerprint, "test")
    assert record.parameters == trained.model.count_params()
    assert next(step["name"] for step in record.steps) == "train"
    assert record.quick
    assert record.compute_precision is not None
    assert ("int8" in record.compute_precision) == (kind == "onnx-int8")
    assert record.provider == "cpu"
    assert record.settings["timed_outputs_checked"] == min(256, len(trained.dataset.part("test")))
    assert set(record.environment) == {"before", "after"}
    assert None not in record.environment["before"].values()
    # None and a reason go together, for every quantity.
    for name in told(record):
        assert (value_of(record, name) is None) == (name in record.missing), name


def test_peak_memory_is_above_what_was_there_before(trained: Trained) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a peak that can be counted anew")
    record = one_record(trained.artifacts["onnx-float32"])
    assert record.memory_baseline_bytes is not None
    assert record.memory_peak_bytes is not None
    assert record.memory_model_bytes is not None
    assert record.memory_model_bytes == record.memory_peak_bytes - record.memory_baseline_bytes
    assert trained.artifacts["onnx-float32"].size_bytes < record.memory_model_bytes < 300e6


def test_without_data_there_is_no_accuracy_and_the_record_says_why(trained: Trained) -> None:
    record = one_record(trained.artifacts["onnx-float32"])
    assert record.accuracy is None
    assert record.missing["accuracy"] == "no data was given"
    assert record.missing["total_p50_ms"] == "no data was given"
    assert record.settings["inputs"] == "golden inputs"


def test_a_bare_file_is_measured_and_what_is_unknown_is_none(trained: Trained, tmp_path: Path) -> None:
    bare = tmp_path / "somebody.tflite"
    bare.write_bytes(trained.artifacts["litert-int8"].model_path.read_bytes())
    (record,) = measure_verb(bare, trained.dataset, "litert", (1,), protocol=SHORT)
    assert record.latency_p50_ms is not None
    assert "does not say its classes" in record.missing["accuracy"]
    assert record.missing["postprocess_p50_ms"] == "the artifact does not say its task"
    assert record.total_p50_ms is not None
    assert record.parameters is None
    assert "parameters" in record.missing


def test_all_runtimes_and_threads_are_measured_and_appended_with_their_samples(
    trained: Trained, tmp_path: Path
) -> None:
    kinds = [trained.artifacts["onnx-float32"].path, trained.artifacts["litert-float32"].path]
    output = tmp_path / "records.jsonl"
    records = measure_verb(kinds, None, "onnxruntime,litert", (1, 1), protocol=SHORT, output=output)
    assert [(record.runtime, record.threads) for record in records] == [("onnxruntime", 1), ("litert", 1)]
    assert sorted(read_records(output), key=lambda r: r.id) == sorted(records, key=lambda r: r.id)
    for record in records:
        assert record.samples is not None
        samples = read_samples(output, record.samples)
        assert len(samples["infer_ns"]) == record.latency_n
        assert np.sort(samples["infer_ns"])[(len(samples["infer_ns"]) - 1) // 2] / 1e6 == record.latency_p50_ms


def test_measuring_works_where_keras_cannot_be_imported(trained: Trained, tmp_path: Path) -> None:
    """By the command line, with the data, in an environment in which importing Keras raises."""
    arguments = [
        "measure", str(trained.artifacts["onnx-int8"].path), "--data", str(trained.folder), "--threads", "1",
        "--runtime", "onnxruntime", "--quick", "--json", "--output", str(tmp_path / "records.jsonl"),
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
    assert record["quick"]


def test_a_failure_costs_one_measurement_and_the_others_go_on(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(b"\x08\x0a" + bytes(200))
    output = tmp_path / "records.jsonl"
    with pytest.raises(SomeUnmeasured, match="1 failed, 1 measured") as caught:
        measure_verb([torn, trained.artifacts["onnx-float32"]], None, "onnxruntime", (1,), None, SHORT, output)
    assert "torn" in caught.value.failures[0]
    assert "\n" not in caught.value.failures[0]
    assert [record.name for record in caught.value.records] == [trained.artifacts["onnx-float32"].name]
    assert list(caught.value.records) == read_records(output)


def test_a_runtime_that_nobody_named_may_refuse_a_file(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(case: Case, *_: Any) -> Any:
        if case.runtime == "onnxruntime":
            return make_record(name=case.artifact.name), {}
        raise RuntimeFailure(f"{case.runtime} refuses it")

    artifact = trained.artifacts["onnx-float32"]
    monkeypatch.setattr(session_module, "measure_case", refuse)
    assert len(measure_verb(artifact, None, "all", (1,), None, SHORT)) == 1
    with pytest.raises(SomeUnmeasured, match="opencv refuses it"):
        measure_verb(artifact, None, "onnxruntime,opencv", (1,), None, SHORT)
    monkeypatch.setattr(module, "supporting", lambda artifact, runtime: ["opencv"])
    with pytest.raises(SomeUnmeasured, match="opencv refuses it"):
        measure_verb(artifact, None, "all", (1,), None, SHORT)


def test_data_with_other_classes_is_refused(trained: Trained) -> None:
    other = replace(trained.dataset, classes=("cat", "dog", "fish"))
    with pytest.raises(MeasureError, match="knows the classes blue, green, red"):
        pictures_of(trained.artifacts["onnx-float32"], other, "test")


def test_other_pictures_than_it_was_trained_on_are_a_warning(trained: Trained) -> None:
    built = Step("build", {"data": "another fingerprint"})
    artifact = replace(trained.artifacts["onnx-float32"], steps=(built, Step("train", {})))
    record = one_record(artifact, trained.dataset, "train")
    assert any("than it was trained on (another fingerprint)" in warning for warning in record.warnings)
    assert any("pictures it was trained on (train)" in warning for warning in record.warnings)
    same = replace(artifact, steps=(Step("build", {"data": trained.dataset.fingerprint}), Step("train", {})))
    record = one_record(same, trained.dataset, "val")
    assert not any("than it was trained on" in warning for warning in record.warnings)
    assert any("(val)" in warning for warning in record.warnings)


def test_golden_outputs_that_differ_are_a_warning(trained: Trained, tmp_path: Path) -> None:
    artifact: Artifact = trained.artifacts["onnx-float32"]
    inputs, outputs = artifact.golden()
    other = write_artifact(
        replace(artifact, path=tmp_path / "other"), artifact.model_path.read_bytes(), (inputs, 1 - outputs)
    )
    record = one_record(other)
    assert any("differ by up to" in warning for warning in record.warnings)
    assert artifact.height == SIZE


@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
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
    runtime = "onnxruntime" if suffix == ".onnx" else "litert"
    with pytest.raises(SomeUnmeasured, match="torn"):
        measure_verb(tmp_path / f"torn{suffix}", None, runtime, (1,), protocol=SHORT)


# ------------------------------------------------------------------------------------------- which, and in which order


def test_an_unknown_runtime_and_odd_settings_are_refused(trained: Trained) -> None:
    with pytest.raises(SettingError, match="unknown runtime 'tensorrt'; known: onnxruntime, litert"):
        runtime_named("tensorrt")
    with pytest.raises(SettingError, match="0 threads"):
        check_threads((0,))
    with pytest.raises(SettingError, match="99999 threads"):
        check_threads((99999,))
    with pytest.raises(SettingError, match="min_runs 0; wanted at least one run"):
        Protocol(min_runs=0)
    with pytest.raises(SettingError, match=r"min_seconds inf; wanted .* times from 0 on"):
        Protocol(min_seconds=float("inf"))
    with pytest.raises(SettingError, match="percentile 42; known: 50, 90"):
        Protocol(percentile=42)
    with pytest.raises(SettingError, match="wait -1 s"):
        Patience(wait_seconds=-1)
    with pytest.raises(SettingError, match="repeat -1"):
        Patience(repeats=-1)


def test_the_claimed_percentile_asks_for_its_runs() -> None:
    assert Protocol().runs == 64
    assert Protocol(min_runs=500).runs == 500
    assert Protocol(percentile=99).runs == 662
    assert not Protocol().quick
    assert module.QUICK.quick
    assert Protocol(min_seconds=9.9).quick
    assert Protocol(warmup_seconds=0.9).quick


def test_cases_are_all_that_was_asked_for(trained: Trained) -> None:
    artifact = trained.artifacts["onnx-float32"]
    found = cases_of([artifact], "onnxruntime", (1,), Settings(optimization="basic"), ())
    assert [(case.runtime, case.settings) for case in found] == [("onnxruntime", Settings(1, None, "basic"))]
    with pytest.raises(RuntimeFailure, match=r"nothing here runs .* in posit8; offered: onnxruntime: "):
        cases_of([artifact], "onnxruntime", (1,), Settings(), ("posit8",))
    with pytest.raises(RuntimeFailure, match=r"nothing here runs .* in posit8; offered"):  # not dropped in silence
        cases_of([artifact], "onnxruntime", (1,), Settings(), ("float32", "posit8"))


class Clock:
    """Instead of measuring: each call gives the next p50 of its case."""

    def __init__(self, p50s: Mapping[str, list[float]], unstable: Mapping[str, list[bool]] | None = None):
        self.p50s, self.unstable, self.order = p50s, unstable or {}, []

    def measure(self, case: Case, pictures: Any, protocol: Protocol, origin: Origin, power: Power) -> Any:
        name = case.artifact.name
        self.order.append(name)
        if not self.p50s[name]:
            raise MeasureError(f"{name} died")
        unstable = ("other programs used 40 %",) if self.unstable.get(name, [False]).pop(0) else ()
        p50 = self.p50s[name].pop(0)
        record = make_record(name=name, latency_p50_ms=p50, unstable=unstable, quick=protocol.quick)
        return record, {"infer_ns": [int(p50 * 1e6)]}

    def again(self, case: Case, pictures: Any, protocol: Protocol) -> list[int]:
        return [int(self.p50s[case.artifact.name].pop(0) * 1e6)] * 11


def named(trained: Trained, *names: str) -> list[Artifact]:
    return [replace(trained.artifacts["onnx-float32"], name=name) for name in names]


def run_session(
    clock: Clock, artifacts: list[Artifact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **settings: Any
) -> list[Record]:
    monkeypatch.setattr(session_module, "measure_case", clock.measure)
    monkeypatch.setattr(session_module, "latency_again", clock.again)
    return measure_verb(
        artifacts, None, "onnxruntime", (1,), None, FULL, tmp_path / "records.jsonl", findings=False, **settings
    )


def test_a_session_that_drifts_is_unstable_whole(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock({"a": [1.0, 1.2], "b": [2.0, 2.4]})
    records = run_session(clock, named(trained, "a", "b"), monkeypatch, tmp_path)
    first = clock.order[0]
    for record in records:
        assert f"{first} by onnxruntime, threads 1, the first of its session, was +20 %" in record.unstable[0].replace(
            "%", " %"
        )
    assert read_records(tmp_path / "records.jsonl") == [
        next(record for record in records if record.name == name) for name in clock.order
    ]


def test_a_session_that_does_not_drift_is_stable(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock({"a": [1.0, 1.04], "b": [2.0, 2.08]})
    assert not any(record.unstable for record in run_session(clock, named(trained, "a", "b"), monkeypatch, tmp_path))


def test_what_is_unstable_is_repeated_and_the_last_one_counts(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock({"a": [1.0, 1.5, 2.0, 2.0]}, {"a": [True, True, False, False]})
    (record,) = run_session(clock, named(trained, "a"), monkeypatch, tmp_path, patience=Patience(0, 5))
    assert (record.latency_p50_ms, record.unstable) == (2.0, ())
    assert read_records(tmp_path / "records.jsonl") == [record]
    assert (tmp_path / "records.jsonl").read_text().count("\n") == 4  # nothing that was measured is lost


def test_the_order_is_random_and_the_same_by_the_same_seed(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [f"n{i}" for i in range(8)]
    orders = []
    for seed in (0, 0, 1):
        clock = Clock({name: [1.0, 1.0] for name in names})
        run_session(clock, named(trained, *names), monkeypatch, tmp_path / str(len(orders)), order_seed=seed)
        orders.append(clock.order)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == names != orders[0]


def test_the_records_come_in_the_order_of_what_was_asked(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock({"a": [1.0, 1.0], "b": [], "c": [1.0, 1.0]})
    with pytest.raises(SomeUnmeasured, match="1 failed, 2 measured: b died") as caught:
        run_session(clock, named(trained, "a", "b", "c"), monkeypatch, tmp_path)
    assert [record.name for record in caught.value.records] == ["a", "c"]


def test_a_drift_that_cannot_be_checked_is_a_failure(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def dies(*_: Any) -> list[int]:
        raise MeasureError("it died at the end")

    clock = Clock({"a": [1.0], "b": [1.0]})
    monkeypatch.setattr(Clock, "again", dies)
    with pytest.raises(SomeUnmeasured, match="it died at the end"):
        run_session(clock, named(trained, "a", "b"), monkeypatch, tmp_path)


def test_findings_correct_the_record(trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        session_module,
        "findings_of_all",
        lambda some: {case: (f"{record.name} is slower",) for case, record, _ in some},
    )
    output = tmp_path / "records.jsonl"
    session = Session(FULL, Origin(), Patience(), Power(), output)
    case = Case(trained.artifacts["onnx-float32"], "onnxruntime", Settings())
    session._keep(case, make_record(name="a"))
    session.close({case: pictures_of(case.artifact, None, None)}, False, True)
    (record,) = read_records(output)
    assert record.findings == ("a is slower",)


def test_a_quiet_machine_is_waited_for_only_when_asked(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(session_module, "wait_until_quiet", lambda *, seconds: waited.append(seconds))
    run_session(Clock({"a": [1.0, 1.0]}), named(trained, "a"), monkeypatch, tmp_path)
    assert waited == []
    run_session(Clock({"a": [1.0, 1.0]}), named(trained, "a"), monkeypatch, tmp_path, patience=Patience(7.0))
    assert waited == [7.0, 7.0]  # before the measurement, and before the check for drift


# ---------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    ("n", "said"), [(10, []), (11, [50]), (63, [50]), (64, [50, 90]), (661, [50, 90]), (662, [50, 90, 99])]
)
def test_a_percentile_is_withheld_with_a_reason_where_n_is_too_small(n: int, said: list[int]) -> None:
    fields, missing = numbers.latency([1_000_000] * n)
    for percent in (50, 90, 99):
        name = f"latency_p{percent}_ms"
        assert fields[name] == (1.0 if percent in said else None)
        assert (name in missing) == (percent not in said)


def test_windows_keep_the_drift_in_the_interval() -> None:
    """Half the run at 1 ms, half at 2 ms: single runs would give a far too narrow interval, windows span both."""
    samples = [1_000_000] * 500 + [2_000_000] * 500
    assert len(numbers.window_medians(samples)) == 20
    assert numbers.latency(samples)[0]["latency_p50_interval_ms"] == (1.0, 2.0)
    assert "spreads over 100% of the median" in numbers.unsteady(samples)[0]
    assert numbers.unsteady([1_000_000] * 100) == ()


def test_outliers_are_counted_and_kept() -> None:
    samples = [1_000_000 + i for i in range(100)] + [50_000_000]
    assert numbers.outlier_note(samples) == ("1 of 101 runs are outliers; they are kept",)
    assert numbers.outlier_note(samples[:100]) == ()
    assert numbers.latency(samples)[0]["latency_n"] == 101


def test_the_parts_of_the_total() -> None:
    ones = [1_000_000] * 64
    fields, missing = numbers.total({"pre_ns": ones, "post_ns": ones[:10], "total_ns": [3_000_000] * 64})
    assert fields == {"preprocess_p50_ms": 1.0, "postprocess_p50_ms": None, "total_p50_ms": 3.0, "total_p90_ms": 3.0}
    assert missing == {"postprocess_p50_ms": "10 runs; a p50 wants 11"}
    assert numbers.total({})[1]["total_p90_ms"] == "no data was given"


def test_inputs_come_from_all_over_the_list() -> None:
    paths = [str(i) for i in range(100)]
    assert evenly(paths, 4) == ["0", "25", "50", "75"]
    assert evenly(paths[:3], 4) == paths[:3]


def test_timed_outputs_that_differ_make_a_record_unstable(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(one_module.Worker):
        def ask(self, command: str, expected_s: float = 0.0, /, **values: Any) -> dict[str, Any]:
            answer = super().ask(command, expected_s, **values)
            return {**answer, "off": 0.25} if command == "accuracy" else answer

    monkeypatch.setattr(one_module, "Worker", Odd)
    record = one_record(trained.artifacts["onnx-float32"], trained.dataset, "test")
    assert "outputs of the timed run differ from the accuracy run's by up to 0.25" in record.unstable


def test_power_that_is_given_makes_an_estimate_that_is_no_measurement(trained: Trained) -> None:
    case = Case(trained.artifacts["onnx-float32"], "onnxruntime", Settings())
    record, _ = measure_case(case, pictures_of(case.artifact, None, None), SHORT, Origin(), Power(watts=5.0))
    assert record.energy_estimate is not None
    assert record.latency_p50_ms is not None
    assert record.energy_estimate["method"] == "estimated:power-given"
    assert record.energy_estimate["mj_per_inference"] == pytest.approx(5 * record.latency_p50_ms)
    if record.energy_mj is None:
        assert record.missing["energy_mj"].startswith("not available: ")


@pytest.mark.parametrize("handed_in", ["before", "after", "never"])
def test_an_external_meter_by_its_file(trained: Trained, tmp_path: Path, handed_in: str) -> None:
    """A meter that says 5 W while idle and while running: the file covers all of the run, in steps of 10 ms."""
    file = tmp_path / "power.csv"
    start = time.time()
    rows = "".join(f"{start - 1 + i / 100:.2f},{5 + (i % 3)}\n" for i in range(6_000))
    if handed_in == "before":
        file.write_text("time,watts\n" + rows)
    case = Case(trained.artifacts["onnx-float32"], "onnxruntime", Settings())
    found = one_module._Found(fields={"latency_p50_ms": 1.0})
    with one_module.Worker(case.artifact, case.runtime, case.settings) as worker:
        worker.load()
        if handed_in == "after":
            real = worker.ask

            def ask(*arguments: Any, **values: Any) -> dict[str, Any]:
                answer = real(*arguments, **values)
                file.write_text("time,watts\n" + rows)
                return answer

            worker.ask = ask  # type: ignore[method-assign]
        one_module._energy(worker, replace(SHORT, energy_window_seconds=0.2), Power(meter=file), found)
    said = found.fields["energy_method"]
    if handed_in == "never":
        assert said == "not available: the meter's file is still to be handed in"
        assert len(found.settings["energy"]["windows"]) == 6
    else:  # idling and running draw the same, so that what is left may be nothing
        assert said == "measured:meter" or "no more power than idling" in said
        assert found.settings["energy"]["gross_mj_per_inference"] > 0


def test_what_speaks_against_a_measurement_is_in_its_record(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[tuple[int, ...]] = []

    class Watched(one_module.Watch):
        @classmethod
        def now(cls, pids: Any = (), root: Path = Path("/")) -> Any:
            watched.append(tuple(pids))
            return super().now(pids, root)

    monkeypatch.setattr(one_module, "Watch", Watched)
    monkeypatch.setattr(one_module, "reasons", lambda before, after, load: ("other programs used 40 %",))
    monkeypatch.setattr(numbers, "unsteady", lambda samples: ("wide",))
    monkeypatch.setattr(numbers, "outlier_note", lambda samples: ("3 are outliers",))
    record = one_record(trained.artifacts["onnx-float32"])
    assert record.unstable == ("wide", "other programs used 40 %")  # each reason once
    assert "3 are outliers" in record.warnings
    assert len(watched[0]) == 1  # the worker, so that its own work is not taken for that of others
    assert watched[0][0] > 1


def test_swapped_memory_is_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    class Swapped(one_module.Worker):
        def ask(self, command: str, expected_s: float = 0.0, /, **values: Any) -> dict[str, Any]:
            answer = super().ask(command, expected_s, **values)
            return {**answer, "swapped_bytes": 4096} if command == "warm_up" else answer

    monkeypatch.setattr(one_module, "Worker", Swapped)
    assert any("4096 bytes were swapped out" in one for one in one_record(trained.artifacts["onnx-float32"]).warnings)


def test_a_cold_start_that_dies_costs_that_number_alone(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(one_module.Worker):
        loads = 0

        def load(self, **values: Any) -> dict[str, Any]:
            Dying.loads += 1
            if Dying.loads > 1:
                raise MeasureError("it died at its start")
            return super().load(**values)

    monkeypatch.setattr(one_module, "Worker", Dying)
    record = one_record(trained.artifacts["onnx-float32"])
    assert record.latency_p50_ms is not None
    for name in ("throughput_per_s", "cold_start_ms"):
        assert value_of(record, name) is None
        assert record.missing[name] == "it died at its start"


def test_the_part_that_is_measured_on(trained: Trained) -> None:
    artifact = trained.artifacts["onnx-float32"]
    assert pictures_of(artifact, trained.dataset, None).part == "test"
    assert pictures_of(artifact, trained.dataset, "val").part == "val"
    without = replace(trained.dataset, items=tuple(item for item in trained.dataset.items if item.part != "test"))
    assert pictures_of(artifact, without, None).part == "val"


@pytest.mark.parametrize("ran", ["cpu", "cuda"])
def test_memory_of_a_gpu_is_asked_for_where_it_ran_there(monkeypatch: pytest.MonkeyPatch, ran: str) -> None:
    class Any1:
        pid = 4242

    asked: list[int] = []
    monkeypatch.setattr(one_module, "gpu_memory_bytes", lambda pid: (asked.append(pid), (7, None))[1])
    found = one_module._Found()
    one_module._gpu_memory(Any1(), ran, found)  # type: ignore[arg-type]
    assert asked == ([4242] if ran == "cuda" else [])
    assert found.fields["gpu_memory_bytes"] == (7 if ran == "cuda" else None)
    assert ("gpu_memory_bytes" in found.missing) == (ran == "cpu")


@pytest.mark.parametrize(
    ("method", "mj", "measured"),
    [("measured:rapl-package", 3.0, True), ("estimated:battery", 3.0, False), ("not available: no", None, False)],
)
def test_only_a_measurement_becomes_energy(method: str, mj: float | None, measured: bool) -> None:
    class Said:
        def ask(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {"method": method, "mj_per_inference": mj, "windows": [], "idle": []}

    found = one_module._Found(fields={"latency_p50_ms": 1.0})
    one_module._energy(Said(), Protocol(), Power(), found)  # type: ignore[arg-type]
    assert found.fields["energy_mj"] == (3.0 if measured else None)
    assert found.fields["energy_method"] == method
    assert (found.fields["energy_estimate"] is None) == (not method.startswith("estimated"))
    assert ("energy_mj" in found.missing) == (not measured)


def test_quick_sessions_are_neither_checked_for_drift_nor_held_against_ancestors(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a quick session")

    monkeypatch.setattr(session_module, "latency_again", never)
    monkeypatch.setattr(session_module, "findings_of_all", never)
    session = Session(SHORT, Origin(), Patience(), Power(), None)
    case = Case(trained.artifacts["onnx-float32"], "onnxruntime", Settings())
    session._keep(case, make_record(quick=True))
    session.close({case: pictures_of(case.artifact, None, None)}, True, True)


def test_a_record_says_how_far_its_session_drifted(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (record,) = run_session(Clock({"a": [1.0, 1.04]}), named(trained, "a"), monkeypatch, tmp_path)
    assert record.settings["drift"]["share"] == pytest.approx(0.04)
    assert list(read_samples(tmp_path / "records.jsonl", record.settings["drift"]["samples"])["infer_ns"])
    assert record.settings["order"]["of"] == 1


# -------------------------------------------------------------------------------------------------- the raw samples


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    rng = random.Random(0)
    samples = {"infer_ns": [rng.randrange(10**9) for _ in range(1000)], "right": [True, False], "empty": []}
    records = tmp_path / "deep" / "records.jsonl"
    name = write_samples(records, samples)
    assert name.startswith("records.samples/")
    assert folder_of(records) == tmp_path / "deep" / "records.samples"
    assert name == write_samples(records, samples)  # named by its content
    found = read_samples(records, name)
    assert {key: list(values) for key, values in found.items()} == samples


def test_samples_that_are_gone_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="missing or damaged"):
        read_samples(tmp_path / "records.jsonl", "records.samples/none.npz")
    (tmp_path / "records.samples").write_text("a file")
    with pytest.raises(OutputError, match=r"records\.samples"):
        write_samples(tmp_path / "records.jsonl", {"infer_ns": [1]})
