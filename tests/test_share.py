"""What other tools read: every number with all its digits, nothing overwritten, nothing sent anywhere."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight import share
from featherweight.errors import OutputError, RecordError
from featherweight.record import QUANTITIES, SCHEMA, Record, append_record, record_from_json
from featherweight.share import check_csv, metrics_of, row, tags_of, to_csv, write_csv, write_mlflow
from tests.make import make_record

# sqlalchemy 2.1 says so of a loader that mlflow 3 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --------------------------------------------------------------------------------------------------------- CSV


@given(st.fixed_dictionaries({name: st.floats(0, 1) for name in QUANTITIES}), st.floats(0, 1e300))
def test_numbers_keep_every_digit(numbers: dict[str, float], large: float) -> None:
    record = make_record(**numbers, accuracy_interval=(numbers["macs"], 1.0), settings={"protocol": {"seconds": large}})
    (found,) = read(to_csv([record]))
    assert {name: float(found[name]) for name in numbers} == numbers
    assert float(found["accuracy_interval_low"]) == numbers["macs"] and float(found["accuracy_interval_high"]) == 1
    assert float(found["settings.protocol.seconds"]) == large


def test_a_row_has_every_field_by_its_name() -> None:
    record = make_record(unstable=("hot", "busy"), energy_mj=None, missing={"energy_mj": "no meter"}, quick=True)
    (found,) = read(to_csv([record]))
    assert found["record"] == record.id
    assert (found["latency_p50_ms"], found["memory_peak_bytes"], found["threads"]) == ("4.25", "64000000", "1")
    assert (found["latency_p50_interval_low_ms"], found["latency_p50_interval_high_ms"]) == ("4.125", "4.375")
    assert (found["energy_mj"], found["missing.energy_mj"], found["quick"]) == ("", "no meter", "true")
    assert json.loads(found["unstable"]) == ["hot", "busy"]
    assert json.loads(found["steps"]) == [dict(record.steps[0])]
    assert found["environment.before.governor"] == "performance"
    assert found["settings.protocol.min_seconds"] == "10.0"
    assert found["versions.onnxruntime"] == "1.31.1"
    nested = {"device", "settings", "environment", "versions", "missing"}
    whole = set(json.loads(record.to_json())) - nested - {"accuracy_interval", "latency_p50_interval_ms"}
    assert whole <= set(found)
    assert set(QUANTITIES) <= set(found)


def test_records_of_two_schemas_share_a_table() -> None:
    old = json.loads(make_record(schema=1).to_json())
    assert "quick" not in old and "total_p50_ms" not in old
    rows = read(to_csv([record_from_json(json.dumps(old)), make_record()]))
    assert [one["schema"] for one in rows] == ["1", str(SCHEMA)]
    assert [one["total_p50_ms"] for one in rows] == ["", "5.125"]
    assert [one["quick"] for one in rows] == ["true", "false"]
    assert rows[0]["record"] == record_from_json(json.dumps(old)).id


def test_texts_are_no_formulas_and_may_hold_anything() -> None:
    texts = ['=HYPERLINK("x")', "+1", "-1", "@x", "\tx", 'a,"b"\nc', "ä€"]
    for text in texts:
        (found,) = read(to_csv([make_record(name=text)]))
        assert found["name"] == (f"'{text}" if text[0] in "=+-@\t" else text)


def test_the_file_replaces_an_older_one_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "records.csv"
    write_csv([make_record()], place)
    write_csv([make_record(), make_record(seed=1, settings={"more": 1})], place)
    assert len(read(place.read_text(encoding="utf-8"))) == 2
    check_csv(place)
    other = tmp_path / "prices.csv"
    other.write_text("record,price\n1,2\n")
    with pytest.raises(OutputError, match=r"prices\.csv exists and is no table of records; name another file"):
        write_csv([make_record()], other)
    assert other.read_text() == "record,price\n1,2\n"
    with pytest.raises(OutputError, match="cannot write"):
        write_csv([make_record()], tmp_path / "none" / "records.csv")


# ------------------------------------------------------------------------------------------------------ MLflow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record], tuple[str, ...]]:
    """A folder with records and raw samples, written to MLflow: (folder, records, what was said to be written)."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    folder = tmp_path_factory.mktemp("a device ü")
    (folder / "records.samples").mkdir()
    (folder / "records.samples" / "ab.npz").write_bytes(b"samples")
    (folder.parent / "secret").write_text("not for sharing")
    records = [
        make_record(samples="records.samples/ab.npz"),
        make_record(seed=1, samples="../secret", unstable=("hot", "busy"), quick=True, warnings=("val",)),
        make_record(seed=2, created="?", settings={f"k{i}": i for i in range(250)} | {"a/b:c": "x" * 9000}),
    ]
    for record in records:
        append_record(folder / "records.jsonl", record)
    return folder, records, write_mlflow(folder / "records.jsonl", folder / "runs")


def runs_of(folder: Path) -> dict[str, Any]:
    """Record id → run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("featherweight")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {run.data.tags["featherweight.record"]: run for run in found}


def files_of(run: Any) -> dict[str, bytes]:
    folder = Path(unquote(run.info.artifact_uri.removeprefix("file://")))
    return {os.fspath(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_a_record(written: tuple[Path, list[Record], tuple[str, ...]]) -> None:
    folder, records, said = written
    runs = runs_of(folder / "runs")
    assert sorted(said) == sorted(runs) == sorted(record.id for record in records)
    for record in records:
        run = runs[record.id]
        assert run.data.metrics == metrics_of(record)
        assert record_from_json(files_of(run)["record.json"].decode()) == record
        assert run.info.status == "FINISHED" and run.info.run_name == record.name
    first, doubtful, many = (runs[record.id] for record in records)
    assert first.info.start_time == first.info.end_time == 1767323045000  # 2026-01-02T03:04:05Z
    assert first.data.params["protocol.min_seconds"] == "10.0"
    assert first.data.tags["device"] == "Testboard 5" and first.data.tags["versions.onnxruntime"] == "1.31.1"
    assert (first.data.tags["unstable"], first.data.tags["quick"]) == ("false", "false")
    assert files_of(first)["samples/ab.npz"] == b"samples"
    assert (doubtful.data.tags["unstable"], doubtful.data.tags["unstable_reasons"]) == ("true", "hot; busy")
    assert (doubtful.data.tags["quick"], doubtful.data.tags["warnings"]) == ("true", "val")
    assert set(files_of(doubtful)) == {"record.json"}, "a record cannot name a file outside of its folder"
    assert len(many.data.params) == 251 and many.data.params["k249"] == "249"
    assert many.data.params["a_b_c"] == "x" * 5999 + "…"


def test_what_is_there_is_not_written_again(written: tuple[Path, list[Record], tuple[str, ...]]) -> None:
    folder, records, _ = written
    assert write_mlflow(folder, folder / "runs") == ()
    new = make_record(seed=9)
    assert write_mlflow([*records, new], folder / "runs", "another") == (*(r.id for r in records), new.id)
    assert len(runs_of(folder / "runs")) == len(records)


def test_a_run_that_breaks_is_taken_back_and_written_anew(
    written: tuple[Path, list[Record], tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = written
    record = make_record(seed=77)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match=r"mlflow cannot write to sqlite.*No space"):
        patch.setattr(share, "_samples", lambda source: (_ for _ in ()).throw(OSError(28, "No space left")))
        write_mlflow([record], folder / "runs")
    assert record.id not in runs_of(folder / "runs")
    assert write_mlflow([record], folder / "runs") == (record.id,)
    assert record.id in runs_of(folder / "runs")


def test_what_mlflow_refuses_is_one_line(written: tuple[Path, list[Record], tuple[str, ...]]) -> None:
    folder, _, _ = written
    with pytest.raises(OutputError, match=r"mlflow cannot write to sqlite:.*name another place"):
        write_mlflow([make_record()], folder / "runs", "")


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\xff" * 200])
def test_another_file_in_the_place_of_the_database_is_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(OutputError, match=r"mlflow\.db.* name another"):
        write_mlflow([make_record()], tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write to .*file: File exists; name another folder"):
        write_mlflow([make_record()], tmp_path / "file")
    with pytest.raises(OutputError, match=r"has \?, # or % in its name"):
        write_mlflow([make_record()], tmp_path / "100%")
    locked = tmp_path / "locked"
    locked.mkdir()
    with sqlite3.connect(locked / "mlflow.db") as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="database is locked; name another folder"):
            write_mlflow([make_record()], locked)
    with pytest.raises(RecordError, match="cannot read"):
        write_mlflow(tmp_path / "none.jsonl", tmp_path)


@pytest.mark.parametrize("library", ["mlflow", "sqlalchemy"])
def test_a_missing_library_is_one_line(tmp_path: Path, library: str) -> None:
    done = in_a_process(
        f"""
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == {library!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Absent())
        try:
            write_mlflow([make_record()], {os.fspath(tmp_path / "runs")!r})
        except OutputError as error:
            print(error)
        """
    )
    assert done == [f"{library} is not installed; wanted: pip install 'featherweight[mlflow]'"]


def test_nothing_is_sent(tmp_path: Path) -> None:
    """Not even MLflow's telemetry, which without our switch asks for config.mlflow-telemetry.io at once."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    done = in_a_process(
        f"""
        import time
        seen = []
        sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
        print(len(write_mlflow([make_record()], {os.fspath(tmp_path)!r})))
        time.sleep(0.5)  # its telemetry has a thread of its own
        # urllib3 makes and binds one socket on this machine when it is imported, to see whether there is IPv6.
        print(sorted(set(seen) - {{"socket.__new__", "socket.bind"}}))
        """
    )
    assert done == ["1", "[]"]


def in_a_process(code: str) -> list[str]:
    """Lines that a fresh process prints; it does not look like a test, in which MLflow's telemetry would be silent."""
    lines = code.strip("\n").splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    head = (
        "import sys\nfrom featherweight.errors import OutputError\nfrom featherweight.share import write_mlflow\n"
        "from tests.make import make_record\n"
    )
    quiet = ("CI", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS", "GITLAB_CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")
    done = subprocess.run(
        [sys.executable, "-c", head + "\n".join(line[indent:] for line in lines)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={name: value for name, value in os.environ.items() if name not in quiet},
    )
    return done.stdout.splitlines()


def test_metrics_and_tags_leave_out_what_is_unknown() -> None:
    record = make_record(energy_mj=None, gpu_memory_bytes=0.0, accuracy_interval=None, accuracy_n=None, part=None)
    metrics = metrics_of(record)
    assert "energy_mj" not in metrics and metrics["gpu_memory_bytes"] == 0
    assert "accuracy_interval_low" not in metrics and "accuracy_n" not in metrics
    assert metrics["latency_p50_interval_high_ms"] == 4.375
    assert "part" not in tags_of(record)
    assert tags_of(replace(record, missing={"energy_mj": "no meter"}))["missing.energy_mj"] == "no meter"
    assert row(record)["accuracy_interval_low"] is None
