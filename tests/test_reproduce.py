"""A record run again: what is refused before anything is run, and what the two records say of each other."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from featherweight import measure as measure_verb
from featherweight import reproduce as reproduce_verb
from featherweight.artifact import Artifact
from featherweight.device import this_device
from featherweight.errors import ArtifactError, RecordError, RuntimeFailure
from featherweight.measure import Patience, Protocol
from featherweight.record import Record, append_record, read_records
from featherweight.reproduce import Reproduced, find_record, notes_of
from featherweight.runtimes.settings import Settings
from tests.make import make_artifact, make_record
from tests.trained import Trained

REPRODUCE = sys.modules["featherweight.reproduce"]


def taken(artifact: Artifact, **changes: Any) -> Record:
    """A record of that artifact on this machine, without data."""
    record = make_record(
        artifact_sha256=artifact.sha256,
        device_id=this_device().id,
        data=None,
        part=None,
        accuracy=None,
        accuracy_interval=None,
        accuracy_n=None,
        missing={"accuracy": "no data was given"},
        settings={"protocol": asdict(Protocol()), "asked": asdict(Settings(threads=1)), "inputs": "golden inputs"},
    )
    return replace(record, **changes)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "artifacts" / "model")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a measurement brings, one after the other; what it was asked for is appended."""
    answers: list[Any] = []

    def measure_case(case: Any, pictures: Any, protocol: Any, origin: Any) -> tuple[Record, dict[str, Sequence[int]]]:
        answers.append((case, pictures, protocol, origin))
        return answers.pop(0), {"infer_ns": [1, 2, 3]}

    monkeypatch.setattr(REPRODUCE, "measure_case", measure_case)
    return answers


# -------------------------------------------------------------------------------------------- what is run again


def test_the_exact_settings_are_run_again(artifact: Artifact, tmp_path: Path, runs: list[Any]) -> None:
    asked = Settings(threads=1, precision="float32", optimization="extended", input_size=(32, 48))
    protocol = Protocol(min_seconds=12, percentile=99, inputs=5)
    settings = {"protocol": asdict(protocol), "asked": asdict(asked)}
    record = taken(artifact, settings=json.loads(json.dumps(settings)), seed=7)
    append_record(tmp_path / "records.jsonl", record)
    append_record(tmp_path / "records.jsonl", taken(artifact, seed=8))
    runs.append(record)
    output = tmp_path / "again.jsonl"
    found = reproduce_verb(record.id[:6], records=tmp_path / "records.jsonl", output=output, command="it")
    case, pictures, used, origin = runs.pop()
    assert (case.artifact, case.runtime, case.settings, used) == (artifact, "onnxruntime", asked, protocol)
    assert (pictures.items, origin.seed, origin.command) == ((), 7, "it")
    assert found.record == record and found.same
    (kept,) = read_records(output)
    assert kept == found.again and kept.samples is not None and (tmp_path / kept.samples).is_file()


def test_the_artifact_is_found_beside_the_records(artifact: Artifact, tmp_path: Path, runs: list[Any]) -> None:
    (tmp_path / "artifacts" / "odd").mkdir()
    (tmp_path / "artifacts" / "odd" / "artifact.json").write_text("[")
    (tmp_path / "artifacts" / "list").mkdir()
    (tmp_path / "artifacts" / "list" / "artifact.json").write_text("[]")
    beside = make_artifact(tmp_path / "beside")
    record = taken(artifact)
    for place in (artifact, beside):  # both are the same file; `artifacts` comes first
        runs.append(record)
        assert reproduce_verb(record, records=tmp_path / "records.jsonl").same
        assert runs.pop()[0].artifact.path == place.path
        (tmp_path / "one.jsonl").write_text(record.to_json() + "\n")
        runs.append(record)
        assert reproduce_verb(tmp_path / "one.jsonl").same
        assert runs.pop()[0].artifact.path == place.path
        (place.path / "artifact.json").unlink()
    with pytest.raises(ArtifactError, match=r"no artifact with sha256 .*… in .* or .*artifacts; name it"):
        reproduce_verb(record, records=tmp_path / "records.jsonl")


def test_an_unstable_run_is_repeated_while_there_is_patience(artifact: Artifact, runs: list[Any]) -> None:
    record = taken(artifact)
    busy = replace(record, unstable=("other programs used 40 % of the processor",))
    runs += [busy, busy, record]
    found = reproduce_verb(record, artifact, patience=Patience(repeats=5))
    assert len(runs) == 3 and found.again == record and found.latency_same
    runs[:] = [busy, busy]
    assert reproduce_verb(record, artifact, patience=Patience(repeats=1)).again == busy


def test_a_real_record_by_real_processes(trained: Trained, tmp_path: Path) -> None:
    short = Protocol(
        min_seconds=0.2, warmup_seconds=0.01, total_seconds=0, throughput_seconds=0, cold_starts=0,
        energy_window_seconds=0.1,
    )  # fmt: skip
    artifact = trained.artifacts["onnx-int8"]
    (measured,) = measure_verb(artifact, trained.dataset, "onnxruntime", (1,), protocol=short)
    append_record(tmp_path / "records.jsonl", measured)
    with pytest.raises(RecordError, match="is a quick record, which is not compared; measure again without --quick"):
        reproduce_verb(measured.id, artifact.path, trained.dataset, tmp_path / "records.jsonl")
    # As if it had been taken in full.
    record = replace(measured, quick=False)
    (tmp_path / "one.json").write_text(record.to_json() + "\n")
    found = reproduce_verb(tmp_path / "one.json", artifact.path, trained.folder)
    assert found.accuracy_same is True
    assert found.again.settings["asked"] == record.settings["asked"]
    assert found.again.settings["protocol"] == record.settings["protocol"]
    assert "equal: " in found.text()


# ---------------------------------------------------------------------------------------------- what is refused


def test_a_record_of_another_machine_is_refused(artifact: Artifact) -> None:
    record = taken(artifact, device_id="0123456789ab")
    with pytest.raises(RecordError, match=r"was taken on Testboard 5 \(0123456789ab\), this is .*: records of other"):
        reproduce_verb(record, artifact)


def test_another_artifact_is_refused(artifact: Artifact) -> None:
    record = taken(artifact, artifact_sha256="cd" * 32)
    with pytest.raises(ArtifactError, match=r"was taken of cdcdcdcdcdcd…: name the artifact of the record"):
        reproduce_verb(record, artifact.path)


def test_other_data_is_refused(trained: Trained) -> None:
    artifact = trained.artifacts["onnx-float32"]
    record = taken(artifact, data="feedc0de", part="test")
    with pytest.raises(RecordError, match="was taken on the test part of data feedc0de; name its folder with --data"):
        reproduce_verb(record, artifact)
    with pytest.raises(RecordError, match=f"was taken on data feedc0de, this is {trained.dataset.fingerprint}: other"):
        reproduce_verb(record, artifact, trained.dataset)
    with pytest.raises(RecordError, match="was taken without data; leave --data out"):
        reproduce_verb(taken(artifact), artifact, trained.dataset)


def test_a_runtime_that_is_not_here_is_refused(artifact: Artifact) -> None:
    with pytest.raises(RuntimeFailure, match="nothing here runs tiny-8-float32: litert runs"):
        reproduce_verb(taken(artifact, runtime="litert"), artifact)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"asked": ...}, "does not say how it was run"),
        ({"asked": {"threads": 1}}, "does not say how it was run: settings"),
        ({"asked": {**asdict(Settings()), "threads": "1"}}, "does not say how it was run"),
        ({"protocol": ...}, "was measured by another version's protocol"),
        ({"protocol": {"min_seconds": 10.0}}, "was measured by another version's protocol"),
        ({"protocol": {**asdict(Protocol()), "inputs": 0}}, "was measured by another version's protocol"),
        ({"protocol": {**asdict(Protocol()), "inputs": "8"}}, "was measured by another version's protocol"),
    ],
)
def test_a_record_that_does_not_say_how_it_was_taken(artifact: Artifact, changes: dict[str, Any], why: str) -> None:
    settings = {**taken(artifact).settings, **changes}
    record = taken(artifact, settings={name: value for name, value in settings.items() if value is not ...})
    with pytest.raises(RecordError, match=why):
        reproduce_verb(record, artifact)


def test_a_record_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    first, second = make_record(seed=1), make_record(seed=2)
    for record in (first, second, second):
        append_record(path, record)
    assert find_record(first.id, path) == first
    assert find_record(second.id[:7], path) == second
    with pytest.raises(RecordError, match=rf"2 records with an id that begins with '' in .*: {first.id}, {second.id}"):
        find_record("", path)
    with pytest.raises(RecordError, match=r"no record with an id that begins with 'xyz' in .*; it has: "):
        find_record("xyz", path)
    with pytest.raises(RecordError, match=r"records\.jsonl holds 3 records; name one: reproduce ID --records"):
        find_record(path, "records.jsonl")
    with pytest.raises(RecordError, match=r"cannot read .*none\.jsonl"):
        find_record(first.id, tmp_path / "none.jsonl")


# --------------------------------------------------------------------------------------------- what is the same


def again(p50: float, low: float, high: float, **changes: Any) -> Reproduced:
    """A record of 4.25 ms (4.125–4.375), and one run again."""
    record = make_record()
    return Reproduced(record, replace(record, latency_p50_ms=p50, latency_p50_interval_ms=(low, high), **changes), ())


@pytest.mark.parametrize(
    ("p50", "low", "high", "same", "said"),
    [
        (4.3, 4.29, 4.31, True, "inside the record's interval"),
        (4.375, 4.37, 4.4, True, "inside the record's interval"),
        (4.5, 4.3, 4.6, True, "the intervals overlap"),
        (4.0, 3.9, 4.2, True, "the intervals overlap"),
        (4.45, 4.44, 4.6, True, "apart by no more than 2%"),
        (4.06, 4.0, 4.07, True, "apart by no more than 2%"),
        (4.6, 4.5, 4.7, False, "slower than the record"),
        (3.9, 3.8, 4.0, False, "faster than the record"),
    ],
)
def test_when_latency_is_the_same(p50: float, low: float, high: float, same: bool, said: str) -> None:
    found = again(p50, low, high)
    assert (found.latency_same, found.same, found.accuracy_same) == (same, same, True)
    assert said in found.latency_text()
    assert ("NOT reproduced" in found.text()) is not same


def test_accuracy_is_the_same_only_where_it_is_equal() -> None:
    assert again(4.25, 4.2, 4.3).accuracy_text() == "equal: 87.5 % of 160, now 87.5 % of 160"
    for changes in ({"accuracy": 0.88125}, {"accuracy_n": 159}):
        other = again(4.25, 4.2, 4.3, **changes)
        assert (other.accuracy_same, other.latency_same, other.same) == (False, True, False)
        assert other.accuracy_text().startswith("another: 87.5 % of 160, now ")
    without = Reproduced(make_record(accuracy=None, missing={"accuracy": "no data was given"}), make_record(), ())
    assert without.accuracy_same is None and without.same
    assert without.accuracy_text() == "not compared: no data was given"


def test_what_other_load_did_is_no_difference() -> None:
    slow = again(9.0, 8.0, 10.0, unstable=("other programs used 40 % of the processor",))
    assert slow.latency_same is None and slow.same
    assert "reproduced, but latency was not judged" in slow.text()
    assert slow.latency_text().startswith("not judged, this run is UNSTABLE: other programs used 40 %")
    assert not replace(slow, again=replace(slow.again, accuracy=0.5)).same
    neither = replace(slow.record, accuracy=None)
    assert "nothing could be judged" in Reproduced(neither, replace(slow.again, accuracy=None), ()).text()
    before = Reproduced(slow.again, slow.record, ())
    assert before.latency_same is None
    assert "the record is UNSTABLE" in before.latency_text()
    few = Reproduced(make_record(latency_p50_interval_ms=None), make_record(), ())
    assert few.latency_same is None and "has no p50 with an interval: too few runs" in few.latency_text()


def test_what_was_another_is_noted() -> None:
    record = make_record()
    other = replace(
        record,
        versions={"featherweight": "0.1.0", "onnxruntime": "1.32.0", "python": "3.12.1"},
        compute_precision="bfloat16",
        environment={"before": {"governor": "powersave", "load_average": 3}},
    )
    assert notes_of(record, record) == ()
    assert notes_of(record, other) == (
        "onnxruntime: 1.31.1 then, 1.32.0 now",
        "python: None then, 3.12.1 now",
        "arithmetic: int8 then, bfloat16 now",
        "governor: performance then, powersave now",
    )


def test_all_of_it_as_plain_values() -> None:
    found = replace(again(4.6, 4.5, 4.7), notes=("python: 3.11 then, 3.12 now",))
    values = json.loads(json.dumps(found.as_dict()))
    assert (values["same"], values["latency_same"], values["accuracy_same"]) == (False, False, True)
    assert values["record"]["latency_p50_ms"] == 4.25 and values["again"]["latency_p50_ms"] == 4.6
    assert "note      python: 3.11 then, 3.12 now" in found.text()
