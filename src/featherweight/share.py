"""Records as other tools read them: a CSV file, and runs of MLflow.

In scope: names and places. Not aware of: what the numbers mean. Imports artifact, compare, errors, page, record;
mlflow where it is used.
"""

import contextlib
import csv
import datetime
import io
import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.artifact import to_utf8, write_file
from featherweight.compare import Source, flat, gather
from featherweight.errors import OutputError
from featherweight.page import check_place
from featherweight.record import QUANTITIES, Record, value_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# The first columns of every CSV file of ours; quantities have their unit in their name.
FIRST_COLUMNS = ("record", "name", "artifact_sha256", "format", "precision", "compute_precision", "runtime")
# A spreadsheet would run a text that starts so.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")

RECORD_TAG = "featherweight.record"  # by which a run is found again
DATABASE = "mlflow.db"
SQLITE_HEAD = b"SQLite format 3\0"
# MLflow's own limits.
PARAMS_AT_ONCE, PARAM_LETTERS, TAG_LETTERS = 100, 6000, 5000
NO_KEY_LETTERS = re.compile(r"[^\w\-. ]", re.ASCII)


# --------------------------------------------------------------------------------------------------------- CSV


def write_csv(records: Sequence[Record], path: str | Path) -> None:
    """Write a row a record: every field, nested ones flattened with dots; floats with all digits, missing ones empty.

    Raises:
        OutputError: as `check_csv`, or it cannot be written.
    """
    check_csv(path)
    write_file(Path(path), to_utf8(to_csv(records)))


def check_csv(path: str | Path) -> None:
    """See that records can be written there; errors as in `page.check_place`."""
    check_place(path, lambda head: head.startswith(",".join(FIRST_COLUMNS).encode()), "table of records")


def to_csv(records: Sequence[Record]) -> str:
    """The text of the CSV file."""
    rows = [row(record) for record in records]
    columns = dict.fromkeys([*FIRST_COLUMNS, *(name for one in rows for name in one)])
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for one in rows:
        writer.writerow([_cell(one.get(name)) for name in columns])
    return stream.getvalue()


def row(record: Record) -> dict[str, Any]:
    """Column → value: numbers and texts as they are, an interval as two columns, other lists as JSON."""
    values: dict[str, Any] = {"record": record.id}
    for name, value in flat(asdict(record)).items():
        if name in ("accuracy_interval", "latency_p50_interval_ms"):
            start, unit = (name.removesuffix("_ms"), "_ms") if name.endswith("_ms") else (name, "")
            values[f"{start}_low{unit}"], values[f"{start}_high{unit}"] = value or (None, None)
        else:
            values[name] = value
    return values


def _cell(value: Any) -> Any:
    """What is unknown stays empty; a text that a spreadsheet would run as a formula is marked as text."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_SIGNS) else value
    if value is None:
        return ""
    # A float is written by its repr, from which the same float is read.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict | bool) else value


# ------------------------------------------------------------------------------------------------------ MLflow


def write_mlflow(
    records: str | Path | Sequence[str | Path | Record], tracking: str | Path, experiment: str = "featherweight"
) -> tuple[str, ...]:
    """Write each record as a run of MLflow; one that is there already is not written again.

    Numbers become metrics, with the unit in the name as in the record; settings become parameters; what was measured
    and where become tags; the whole record and its raw samples become files of the run. MLflow's telemetry is off.

    Args:
        records: a file of records, a folder, several of them, or records; raw samples are found beside files only.
        tracking: a folder, in which `mlflow.db` and the runs' files are kept without any server (MLflow has given up
            its older store of plain files), or the address of a tracking server or database.
        experiment: MLflow's name for a set of runs.

    Returns:
        The ids of the records that were written.

    Raises:
        RecordError: no record there.
        OutputError: mlflow is not installed, or the runs cannot be written.
    """
    sources = gather(records)
    address, files = _store(tracking)
    with _client(address) as client:
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment, artifact_location=files)
        fresh = [source for source in sources if not _has_run(client, number, source.record)]
        for source in fresh:
            _write_run(client, number, source)
    return tuple(source.record.id for source in fresh)


def _store(tracking: str | Path) -> tuple[str, str | None]:
    """(address of the runs, address of their files or `None` for the server's own choice).

    Raises:
        OutputError: the folder cannot be written, or something else is in the database's place.
    """
    if "://" in str(tracking):
        return str(tracking), None
    folder = Path(tracking).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; name another folder") from error
    database = folder / DATABASE
    if set("?#%") & set(str(database)):  # they mean something else in an address
        raise OutputError(f"{folder} has ?, # or % in its name, which MLflow cannot address; name another folder")
    check_place(database, lambda head: head.startswith(SQLITE_HEAD), "database")
    try:  # MLflow would try again for minutes
        with contextlib.closing(sqlite3.connect(database, timeout=2)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise OutputError(f"cannot write to {database}: {error}; name another folder") from error
    return f"sqlite:///{database.as_posix()}", (folder / "files").as_uri()


@contextlib.contextmanager
def _client(address: str) -> Iterator["MlflowClient"]:
    """A client whose errors are one line of ours."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import, which starts it
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own 7 take minutes to say that nobody is there
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of each table that it makes
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise _not_installed(error) from error
    try:
        yield MlflowClient(tracking_uri=address)
    except ImportError as error:  # it brings in its database library only here
        raise _not_installed(error) from error
    except (MlflowException, OSError) as error:
        lines = str(error).splitlines() or ["no reason given"]
        raise OutputError(f"mlflow cannot write to {address}: {lines[0]:.300}; name another place") from error


def _not_installed(error: ImportError) -> OutputError:
    return OutputError(f"{error.name or 'mlflow'} is not installed; wanted: pip install 'featherweight[mlflow]'")


def _has_run(client: "MlflowClient", experiment: str, record: Record) -> bool:
    return bool(client.search_runs([experiment], f"tags.`{RECORD_TAG}` = '{record.id}'", max_results=1))


def _write_run(client: "MlflowClient", experiment: str, source: Source) -> None:
    """One run; the tag by which it is found again comes last, so that a broken one is written anew."""
    from mlflow.entities import Metric, Param, RunTag

    record = source.record
    taken = _milliseconds(record.created)
    run = client.create_run(experiment, start_time=taken, run_name=record.name).info.run_id
    try:
        metrics = [Metric(name, value, taken or 0, 0) for name, value in metrics_of(record).items()]
        settings = {_key(name): _text(value, PARAM_LETTERS) for name, value in flat(record.settings).items()}
        params = [Param(name, value) for name, value in settings.items()]
        tags = [RunTag(_key(name), _text(value, TAG_LETTERS)) for name, value in tags_of(record).items()]
        client.log_batch(run, metrics=metrics)
        for start in range(0, len(params), PARAMS_AT_ONCE):
            client.log_batch(run, params=params[start : start + PARAMS_AT_ONCE])
        for start in range(0, len(tags), PARAMS_AT_ONCE):
            client.log_batch(run, tags=tags[start : start + PARAMS_AT_ONCE])
        client.log_text(run, record.to_json() + "\n", "record.json")
        samples = _samples(source)
        if samples is not None:
            client.log_artifact(run, os.fspath(samples), "samples")
        client.set_tag(run, RECORD_TAG, record.id)
        client.set_terminated(run, "FINISHED", taken)
    except BaseException:
        client.delete_run(run)
        raise


def metrics_of(record: Record) -> dict[str, float]:
    """The measured numbers by their fields' names, which say the units, with intervals and numbers of samples."""
    values = {name: value_of(record, name) for name in QUANTITIES}
    more = ("accuracy_interval", "latency_p50_interval", "accuracy_n", "latency_n", "memory_baseline_bytes")
    values |= {name: value for name, value in row(record).items() if name.startswith(more)}
    return {name: float(value) for name, value in values.items() if value is not None}


def tags_of(record: Record) -> dict[str, Any]:
    """What was measured, where, by what, and what must be known of it."""
    fields = (
        "artifact_sha256", "format", "precision", "compute_precision", "task", "device_id", "runtime", "threads",
        "provider", "data", "part", "seed", "quick", "energy_method",
    )  # fmt: skip
    values = asdict(record)
    tags = {name: values[name] for name in fields}
    tags |= {"device": record.device.get("name"), "unstable": bool(record.unstable)}
    tags |= {f"versions.{name}": value for name, value in record.versions.items()}
    tags |= {f"missing.{name}": value for name, value in record.missing.items()}
    lists: Mapping[str, tuple[str, ...]] = {
        "unstable_reasons": record.unstable,
        "warnings": record.warnings,
        "findings": record.findings,
    }
    tags |= {name: "; ".join(texts) for name, texts in lists.items() if texts}
    return {name: value for name, value in tags.items() if value is not None}


def _samples(source: Source) -> Path | None:
    """The file of raw samples, if it is there; a record cannot name a file outside of its own folder."""
    if source.folder is None or source.record.samples is None:
        return None
    path = source.folder / source.record.samples
    inside = path.resolve().is_relative_to(source.folder.resolve())
    return path if inside and path.is_file() else None


def _key(name: str) -> str:
    """A name as MLflow allows it."""
    return NO_KEY_LETTERS.sub("_", name)[:250]


def _text(value: Any, most: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 1] + "…"


def _milliseconds(created: str) -> int | None:
    """ISO 8601 → milliseconds since 1970; `None` for MLflow's own clock where the text is no time."""
    try:
        return int(datetime.datetime.fromisoformat(created).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
