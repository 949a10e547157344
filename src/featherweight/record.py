"""`Record`: one artifact measured once, on one device, by one runtime, with everything needed to check it; and the
file of records, one JSON line each.

A number that could not be measured is `None` and `missing` says why; nothing is estimated, and unknown is never zero.

Imports artifact, errors and quantity.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import typing
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from featherweight.artifact import fits, to_utf8
from featherweight.errors import OutputError, RecordError
from featherweight.quantity import measured, quantities

# 1: first.
# 2: what the session really ran with, the machine before and after, UNSTABLE and quick as fields, raw samples beside,
#    total, cold start, throughput, memory above the empty runtime's, GPU memory, the label of the energy.
# 3: which metric `accuracy` is, and of detectors AP50, AP75 and what stands behind them.
# 4: of segmenters IoU, Dice, pixel accuracy and boundary F1.
SCHEMA = 4

TAIL_STEP_BYTES = 65_536
HEAD = b'{"accuracy": '


@dataclass(frozen=True)
class Record:
    """One artifact × one runtime with its settings × one device × one set of pictures."""

    # what was measured
    name: str
    artifact_sha256: str
    format: str
    precision: str | None
    task: str | None
    steps: tuple[dict[str, Any], ...]
    # where and how
    device: dict[str, Any]
    device_id: str
    runtime: str
    threads: int
    compute_precision: str | None  # the arithmetic that it really ran with, which may not be that of the file
    provider: str | None  # cpu, cuda, …
    settings: dict[str, Any]
    environment: dict[str, Any]  # the machine {"before": …, "after": …}
    versions: dict[str, str]
    data: str | None  # fingerprint of the dataset
    part: str | None
    seed: int | None
    created: str  # ISO 8601, UTC
    # the numbers
    accuracy: float | None = measured("top-1", "fraction", "higher")  # or the task's own `metric`: see `label_of`
    latency_p50_ms: float | None = measured("p50 latency", "ms", "lower")
    latency_p90_ms: float | None = measured("p90 latency", "ms", "lower")
    latency_p99_ms: float | None = measured("p99 latency", "ms", "lower")
    total_p50_ms: float | None = measured("p50 total", "ms", "lower")
    total_p90_ms: float | None = measured("p90 total", "ms", "lower")
    preprocess_p50_ms: float | None = measured("p50 pre-processing", "ms", "lower")
    postprocess_p50_ms: float | None = measured("p50 post-processing", "ms", "lower")
    cold_start_ms: float | None = measured("cold start", "ms", "lower")
    throughput_per_s: float | None = measured("throughput", "1/s", "higher")
    memory_peak_bytes: float | None = measured("peak memory", "B", "lower")
    memory_model_bytes: float | None = measured("peak above empty runtime", "B", "lower")
    gpu_memory_bytes: float | None = measured("GPU memory", "B", "lower")
    energy_mj: float | None = measured("energy per inference", "mJ", "lower")
    size_bytes: float | None = measured("file size", "B", "lower")
    parameters: float | None = measured("parameters", "count", "lower")
    macs: float | None = measured("MACs", "count", "lower")
    ap50: float | None = measured("AP50", "fraction", "higher")  # of detectors only, as the next one
    ap75: float | None = measured("AP75", "fraction", "higher")
    iou: float | None = measured("IoU of class 1", "fraction", "higher")  # of segmenters of two classes only
    dice: float | None = measured(
        "Dice", "fraction", "higher"
    )  # of segmenters, as the next two; of two classes class 1's
    pixel_accuracy: float | None = measured("pixel accuracy", "fraction", "higher")
    boundary_f1: float | None = measured("boundary F1", "fraction", "higher")
    # how sure they are
    accuracy_interval: tuple[float, float] | None = None
    accuracy_n: int | None = None
    metric: str | None = None  # what the accuracy is called; `None`: top-1
    scores: dict[str, Any] | None = None  # what stands behind it: by class and by size, over thresholds
    latency_p50_interval_ms: tuple[float, float] | None = None
    latency_n: int | None = None
    memory_baseline_bytes: int | None = None  # resident before the model was loaded
    energy_method: str | None = None  # measured:rapl-package, measured:nvml, measured:meter
    energy_estimate: dict[str, Any] | None = None  # never in `energy_mj`, so that it cannot rank beside a measurement
    missing: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    quick: bool = False  # taken in less time than a number that is compared needs
    unstable: tuple[str, ...] = ()  # why the numbers cannot be believed
    findings: tuple[str, ...] = ()  # how it stands to the file that it was made from
    samples: str | None = None  # the file of raw samples in the folder beside the records
    replaces: str | None = None  # the id of an earlier record that this one corrects
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """8 hex digits of everything in it."""
        return hashlib.sha256(to_utf8(self.to_json())).hexdigest()[:8]

    def to_json(self) -> str:
        """One line.

        Raises:
            ValueError: a number in it is NaN or infinite.
        """
        values = asdict(self)
        if self.schema < SCHEMA:  # as it was written, so that its id stays
            values = {name: value for name, value in values.items() if name not in newer_than(self.schema)}
        return json.dumps(values, sort_keys=True, allow_nan=False, ensure_ascii=False)

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a measured field, where one was taken."""
        return {"accuracy": self.accuracy_interval, "latency_p50_ms": self.latency_p50_interval_ms}.get(name)


# Field → what a record of schema 1 says of it.
NEW_IN_2: dict[str, Any] = {
    "compute_precision": None,
    "provider": None,
    "environment": {},
    "total_p50_ms": None,
    "total_p90_ms": None,
    "cold_start_ms": None,
    "throughput_per_s": None,
    "memory_model_bytes": None,
    "gpu_memory_bytes": None,
    "energy_method": None,
    "energy_estimate": None,
    "quick": True,  # two seconds by default
    "unstable": [],
    "findings": [],
    "samples": None,
    "replaces": None,
}

NEW_IN_3: dict[str, Any] = {"ap50": None, "ap75": None, "metric": None, "scores": None}
NEW_IN_4: dict[str, Any] = {"iou": None, "dice": None, "pixel_accuracy": None, "boundary_f1": None}
OPTIONAL = (
    "ap50",
    "ap75",
    "iou",
    "dice",
    "pixel_accuracy",
    "boundary_f1",
)  # quantities that are told only where there are any


def newer_than(schema: int) -> dict[str, Any]:
    """The fields that a record of an earlier schema does not have → what it says of them."""
    news = (NEW_IN_2, NEW_IN_3, NEW_IN_4)
    return {name: value for since, new in enumerate(news, start=2) if schema < since for name, value in new.items()}


KINDS = typing.get_type_hints(Record)
QUANTITIES = quantities(Record)
BY_KEY = {quantity.key: quantity for quantity in QUANTITIES.values()}


def told(record: Record) -> tuple[str, ...]:
    """The quantities that a record says something of: all but those that are not of its task."""
    return tuple(
        name
        for name in QUANTITIES
        if name not in OPTIONAL or name in record.missing or value_of(record, name) is not None
    )


def label_of(name: str, records: Iterable[Record]) -> str:
    """A quantity's label for these records: that of accuracy is their metric, where they have one in common."""
    metrics = {record.metric or QUANTITIES[name].label for record in records} if name == "accuracy" else set()
    if len(metrics) > 1:
        return "accuracy"
    return metrics.pop() if metrics else QUANTITIES[name].label


def value_of(record: Record, name: str) -> float | None:
    """A measured field by its name; only the names in `QUANTITIES` are answered.

    Raises:
        RecordError: no such quantity.
    """
    if name not in QUANTITIES:
        raise RecordError(f"unknown quantity {name!r}; known: {', '.join(QUANTITIES)}")
    value: float | None = getattr(record, name)
    return value


def record_from_json(line: str) -> Record:
    """The record in one JSON line.

    Raises:
        RecordError: not JSON, another schema, or fields missing, unknown or of the wrong kind.
    """
    try:
        values = json.loads(line, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{type(values).__name__} instead of an object")
    if values.get("schema") not in range(1, SCHEMA + 1) or isinstance(values["schema"], bool):
        raise RecordError(f"schema {values.get('schema')!r}; this featherweight reads 1 to {SCHEMA}")
    newer = newer_than(values["schema"])
    odd = sorted(newer.keys() & values.keys())
    if odd:
        raise RecordError(f"fields missing or unknown: {', '.join(odd)!r:.200}")
    values = {**newer, **values}
    if set(values) != set(KINDS):
        raise RecordError(f"fields missing or unknown: {', '.join(sorted(set(values) ^ set(KINDS)))!r:.200}")
    for name, hint in KINDS.items():
        if not fits(values[name], hint):
            wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
            raise RecordError(f"{name} is {values[name]!r:.80}; wanted {wanted}")
        if isinstance(values[name], list):
            values[name] = tuple(values[name])
    for name, quantity in QUANTITIES.items():
        most, wanted = (1.0, "0 to 1") if quantity.unit == "fraction" else (math.inf, "0 or more")
        if values[name] is not None and not 0 <= values[name] <= most:
            raise RecordError(f"{name} is {values[name]}; wanted {wanted}")
    method = values["energy_method"]
    if values["schema"] > 1 and values["energy_mj"] is not None and not str(method).startswith("measured:"):
        raise RecordError(f"energy_mj by {method!r}; wanted energy_method measured:…, an estimate has its own field")
    for name in ("accuracy_interval", "latency_p50_interval_ms"):
        if values[name] is not None and not 0 <= values[name][0] <= values[name][1]:
            raise RecordError(f"{name} is {values[name]}; wanted two numbers from 0 on, the lower one first")
    return Record(**values)


def check_records_file(path: str | Path) -> None:
    """See that records can be appended there, before minutes are spent; nothing is written.

    Raises:
        OutputError: it is no regular file, or one of something else.
    """
    path = Path(path)
    if path.suffix == ".samples":
        raise OutputError(f"{path} is the name of a folder of raw samples; name a file for the records, as x.jsonl")
    if not path.exists():
        return
    if not path.is_file():  # a device or a pipe has no end to repair
        raise OutputError(f"{path} is not a regular file; name a file for the records")
    try:
        with path.open("rb") as file:
            _check_head(path, file)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; name another file for the records") from error


def append_record(path: str | Path, record: Record) -> None:
    """Add one record to a file: under a lock, in one write, flushed to the disk.

    A torn last line, left by a crash or a full disk, is first moved to `PATH.torn`, so nothing is lost and the file
    stays readable.

    Raises:
        OutputError: the file cannot be written, or is no file of records; it is then as it was before.
        ValueError: a number of the record is NaN or infinite.
    """
    path = Path(path)
    line = to_utf8(record.to_json() + "\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_records_file(path)
        with path.open("a+b") as file, _locked(file):
            _check_head(path, file)
            _repair_tail(path, file)
            end = file.seek(0, os.SEEK_END)
            try:
                written = os.write(file.fileno(), line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise OutputError(
            f"cannot append the record of {record.name} to {path}: {error.strerror}; make room or name another place"
        ) from error


def read_records(path: str | Path) -> list[Record]:
    """All records of a file, or of a folder (its `records.jsonl`, else every `*.jsonl`).

    Left out are a torn last line, and records that a later one in the same file corrects.

    Raises:
        RecordError: no such file, no record in it, or a line that is no record.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise RecordError(f"no *.jsonl in {path}; wanted a file of records, as measure and fit write it")
        # In a folder that fit wrote, screen and proof stand beside it and were taken on other pictures.
        files = [file for file in files if file.name == "records.jsonl"] or files
        return _not_replaced([record for file in files for record in read_records(file)])
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}; wanted a file of records") from error
    whole = text[: text.rfind(b"\n") + 1]
    records: list[Record] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            records.append(record_from_json(line.decode()))
        except (RecordError, UnicodeDecodeError) as error:
            raise RecordError(f"{path} line {number} is no record: {error}") from error
    if not records:
        raise RecordError(f"{path} holds no record")
    return _not_replaced(records)


def _not_replaced(records: list[Record]) -> list[Record]:
    replaced = {record.replaces for record in records}
    return [record for record in records if record.id not in replaced]


def _check_head(path: Path, file: IO[bytes]) -> None:
    """Refuse a file of something else before a byte of it is touched: a record's keys are sorted, and begin so."""
    file.seek(0)
    if not HEAD.startswith(file.read(len(HEAD))):
        raise OutputError(f"{path} is no file of records; name another file, nothing is overwritten")


def _repair_tail(path: Path, file: IO[bytes]) -> None:
    """Move what stands behind the last newline to a file beside; a whole record that lacks only its newline stays."""
    torn, start = b"", file.seek(0, os.SEEK_END)
    while start > 0 and b"\n" not in torn:
        step = min(TAIL_STEP_BYTES, start)
        start = file.seek(start - step)
        torn = file.read(step) + torn
    torn = torn[torn.rfind(b"\n") + 1 :]
    if not torn:
        return
    try:
        record_from_json(torn.decode())
    except (RecordError, UnicodeDecodeError):
        with path.with_name(f"{path.name}.torn").open("ab") as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        file.truncate(file.seek(0, os.SEEK_END) - len(torn))
    else:
        os.write(file.fileno(), b"\n")


@contextlib.contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """An exclusive lock for the time of an append; where the system has no flock, appends rely on one writer."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file lets the lock go


def _no_constant(name: str) -> None:
    raise RecordError(f"{name} is not a number")


def _finite(text: str) -> float:
    """JSON has no infinity, but 1e999 reads as one."""
    value = float(text)
    if math.isinf(value):
        raise RecordError(f"{text:.40} is more than a number can be")
    return value
