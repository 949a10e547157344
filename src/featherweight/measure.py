"""Artifact × runtime × threads × pictures → `Record`. Every measurement runs in a fresh process of its own.

How it is measured (MLPerf single stream in small): one picture at a time; inputs are decoded before the clock starts;
a warm-up that is not counted; then runs until both a least time and a least number of runs are reached. Latency is
`session.run` alone; pre-processing (decode and resize) and post-processing (scores to labels) have timers of their
own. Accuracy is taken afterwards through the same session. Peak memory is `VmHWM`, counted anew before the model is
loaded and before it runs: it holds loading and running, but neither the decoding of photos nor the accuracy pass.

In scope: the clock, the process, the record. Not aware of: what the model is, nor how it was made.
Imports artifact, data, device, errors, image, progress, record, runtimes, stats and tasks.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, read_artifact
from featherweight.data import Dataset, Item, display, read_dataset
from featherweight.device import (
    EnergyMeter,
    available_cores,
    busy_share,
    peak_memory_bytes,
    reset_peak_memory,
    resident_memory_bytes,
    this_device,
)
from featherweight.errors import FeatherweightError, ImageError, MeasureError, RuntimeFailure, SettingError
from featherweight.image import Pixels, decode, decoder_versions, read_bytes, resize
from featherweight.progress import track
from featherweight.record import Record, append_record
from featherweight.runtimes import Session, runtime_named, supporting
from featherweight.stats import MIN_SAMPLES, median_interval, percentile, spread
from featherweight.tasks import Task, task_named

BUSY_LIMIT = 0.25
SPREAD_LIMIT = 0.10
WINDOWS = 20
GOLDEN_TOLERANCE = 0.05
CHILD_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class Protocol:
    """When a measurement may stop, and on how many different pictures the clock runs."""

    min_seconds: float = 2.0
    min_runs: int = 100
    warmup_seconds: float = 0.5
    warmup_runs: int = 10
    inputs: int = 32

    def __post_init__(self) -> None:
        times = (self.min_seconds, self.warmup_seconds, self.warmup_runs)
        if self.min_runs < 1 or self.inputs < 1 or not all(0 <= value < float("inf") for value in times):
            raise SettingError(f"{self}; wanted at least one run and one input, and times from 0 on")


@dataclass(frozen=True)
class Origin:
    """What a record says of its making: the seed of the training and the command that was typed."""

    seed: int | None = None
    command: str | None = None


def measure(
    artifacts: str | Path | Artifact | Sequence[str | Path | Artifact],
    data: str | Path | Dataset | None = None,
    runtime: str = "all",
    threads: Sequence[int] | None = None,
    part: str | None = None,
    protocol: Protocol | None = None,
    output: str | Path | None = None,
    origin: Origin | None = None,
) -> list[Record]:
    """Measure every artifact by every runtime that supports it, on every number of threads.

    Args:
        artifacts: artifact folders or bare model files, one or several.
        data: the pictures for accuracy and for the inputs; without, the golden inputs are used and accuracy is `None`.
        runtime: a runtime's name, or "all".
        threads: numbers of threads; by default 1 and all cores.
        part: the part of the data; by default test where there is one, else val.
        protocol: how long to run.
        output: a file of records to append each record to as soon as it is taken.
        origin: what to write into the record about its making.

    Raises:
        RuntimeFailure: no runtime supports one of the artifacts, with the reason of each.
        MeasureError: the measuring process died.
        FeatherweightError: anything wrong with the artifact, the data or the output.
    """
    listed = [artifacts] if isinstance(artifacts, str | Path | Artifact) else list(artifacts)
    loaded = [artifact if isinstance(artifact, Artifact) else read_artifact(artifact) for artifact in listed]
    dataset = data if isinstance(data, Dataset) or data is None else read_dataset(data)
    counts = check_threads(threads)
    runs = [(a, name, n) for a in loaded for name in supporting(a, runtime) for n in counts]
    records = []
    for artifact, name, count in track(runs, "measuring", len(runs)):
        record = measure_one(artifact, name, count, dataset, part, protocol or Protocol(), origin or Origin())
        if output is not None:
            append_record(output, record)
        records.append(record)
    return records


def check_threads(threads: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of threads to measure with; by default 1 and all cores.

    Raises:
        SettingError: less than one, or more than the cores of this machine.
    """
    cores = available_cores()
    counts = tuple(dict.fromkeys(threads or (1, cores)))
    for count in counts:
        if not 1 <= count <= cores:
            raise SettingError(f"{count} threads; this process may use 1 to {cores} cores")
    return counts


def measure_one(
    artifact: Artifact,
    runtime: str,
    threads: int,
    dataset: Dataset | None,
    part: str | None,
    protocol: Protocol,
    origin: Origin,
) -> Record:
    """One artifact, one runtime, one number of threads, in a fresh process.

    Raises:
        MeasureError: the process died, with how it ended and what it last said.
        FeatherweightError: what the process found wrong with the artifact or the pictures.
    """
    warnings = []
    busy = busy_share()
    if busy is not None and busy > BUSY_LIMIT:
        warnings.append(f"other programs used {busy:.0%} of the processor just before the run")
    chosen, items, no_accuracy = _pictures(artifact, dataset, part)
    job = {
        "artifact": os.fspath(artifact.path),
        "runtime": runtime,
        "threads": threads,
        "protocol": asdict(protocol),
        "items": [(os.fspath(item.path), item.label) for item in items],
        "score": no_accuracy is None,
    }
    found = _in_child(job)
    if chosen == "val" and no_accuracy is None:
        warnings.append("accuracy was taken on the part that training watched for its best epoch (val)")
    if chosen == "train" and no_accuracy is None:
        warnings.append("accuracy was taken on the pictures it was trained on (train)")
    trained_on = [step.settings.get("data") for step in artifact.steps if step.name == "build"]
    if dataset is not None and trained_on and trained_on[0] != dataset.fingerprint:
        warnings.append(
            f"other pictures or another split ({dataset.fingerprint}) than it was trained on ({trained_on[0]}); "
            "it may have been trained on some of these"
        )
    missing = dict(found.pop("missing"))
    if no_accuracy is not None:
        missing["accuracy"] = no_accuracy
    for name in ("parameters", "macs"):
        if getattr(artifact, name) is None:
            missing[name] = "the artifact does not say"
    device = this_device()
    return Record(
        name=artifact.name,
        artifact_sha256=artifact.sha256,
        format=artifact.format,
        precision=artifact.precision,
        task=artifact.task,
        steps=tuple(json.loads(json.dumps(asdict(step))) for step in artifact.steps),
        device=device.as_dict(),
        device_id=device.id,
        runtime=runtime,
        threads=threads,
        settings={
            "protocol": asdict(protocol),
            "resize": artifact.resize,
            "height": artifact.height,
            "width": artifact.width,
            "command": origin.command,
            **found.pop("settings"),
        },
        versions={
            "featherweight": version("featherweight"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            runtime: runtime_named(runtime).version(),
            **decoder_versions(),
        },
        data=dataset.fingerprint if dataset is not None else None,
        part=chosen,
        seed=origin.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        size_bytes=artifact.size_bytes,
        parameters=artifact.parameters,
        macs=artifact.macs,
        missing=missing,
        warnings=(*warnings, *found.pop("warnings")),
        accuracy_interval=_pair(found.pop("accuracy_interval")),
        latency_p50_interval_ms=_pair(found.pop("latency_p50_interval_ms")),
        **found,
    )


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _pictures(
    artifact: Artifact, dataset: Dataset | None, part: str | None
) -> tuple[str | None, tuple[Item, ...], str | None]:
    """(part, its items, why there can be no accuracy)."""
    if dataset is None:
        return None, (), "no data was given"
    chosen = part or ("test" if "test" in dataset.parts else "val")
    items = dataset.part(chosen)
    if artifact.classes is None:
        return chosen, items, "a bare model file does not say its classes and its normalization"
    if artifact.classes != dataset.classes:
        raise MeasureError(
            f"{artifact.name} knows the classes {', '.join(artifact.classes[:5])}… and the data has "
            f"{', '.join(dataset.classes[:5])}…: wanted the same classes. Name the data it was trained on"
        )
    return chosen, items, None


# ------------------------------------------------------------------------------------------- parent and child


def _in_child(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job in `python -m featherweight.measure`: JSON in on standard input, JSON out on standard output."""
    what = f"{job['artifact']} by {job['runtime']}"
    try:
        process = subprocess.run(
            [sys.executable, "-m", "featherweight.measure"],
            input=json.dumps(job).encode(),
            capture_output=True,
            check=False,
            timeout=CHILD_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(
            f"measuring {what} took over {CHILD_TIMEOUT_SECONDS:g} s; the file may hang the runtime"
        ) from None
    if process.returncode != 0:
        last = [line for line in process.stderr.decode(errors="replace").splitlines() if line.strip()]
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise MeasureError(
            f"the process that measured {what} died with {how}: {last[-1][:300] if last else 'it said nothing'}. "
            "The file may be damaged; export it again"
        )
    result: dict[str, Any] = json.loads(process.stdout)
    if "error" in result:
        raise MeasureError(result["error"])
    return result


def child_main() -> None:
    """The fresh process: a job on standard input, its result on standard output, all else to standard error."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints does not mix with the answer
    job = json.load(sys.stdin)
    try:
        result = _run_job(job)
    except FeatherweightError as error:
        result = {"error": str(error)}
    with answer:
        json.dump(result, answer)


def _run_job(job: dict[str, Any]) -> dict[str, Any]:
    protocol = Protocol(**job["protocol"])
    artifact = read_artifact(job["artifact"])
    task = None if artifact.task is None else task_named(artifact.task)
    baseline = resident_memory_bytes()
    can_reset = reset_peak_memory()
    session = runtime_named(job["runtime"]).load(artifact, job["threads"])
    loaded = peak_memory_bytes()
    warnings = _check_golden(artifact, session)
    timed = _evenly([Path(path) for path, _ in job["items"]], protocol.inputs)
    inputs, source = _inputs(artifact, session, timed, protocol.inputs)
    reset_peak_memory()  # decoding a large photo is not the model's memory
    _warm_up(session, inputs, protocol)
    meter = EnergyMeter()
    meter.start()
    infer_ns, post_ns = _time_runs(session, inputs, _decoder(task, artifact), protocol)
    energy_mj = meter.used_mj()
    peak = max(loaded or 0, peak_memory_bytes() or 0) if can_reset else None
    result = _latency(infer_ns)
    missing: dict[str, str] = result["missing"]
    result["energy_mj"] = None if energy_mj is None else energy_mj / len(infer_ns)
    if energy_mj is None:
        missing["energy_mj"] = meter.missing or "not available: the counter could not be read"
    else:
        result["settings"]["energy"] = "measured:rapl-package, idle included"
    result["memory_peak_bytes"], result["memory_baseline_bytes"] = peak, baseline
    if peak is None:
        missing["memory_peak_bytes"] = "this system keeps no peak that can be counted anew (/proc/self/clear_refs)"
    result["postprocess_p50_ms"] = percentile(post_ns, 50) / 1e6 if post_ns else None
    if not post_ns:
        missing["postprocess_p50_ms"] = "the artifact does not say its task"
    preprocess_ns = _time_preprocessing(timed, session)
    result["preprocess_p50_ms"] = percentile(preprocess_ns, 50) / 1e6 if preprocess_ns else None
    if not preprocess_ns:
        missing["preprocess_p50_ms"] = "no data was given"
    result["accuracy"] = result["accuracy_interval"] = result["accuracy_n"] = None
    if job["score"] and task is not None:
        outputs = [session.run(_picture(path, session)[None])[0] for path, _ in job["items"]]
        score = task.score(np.stack(outputs), np.array([label for _, label in job["items"]]))
        result["accuracy"], result["accuracy_interval"], result["accuracy_n"] = (
            score["value"],
            score["interval"],
            score["n"],
        )
    result["settings"]["inputs"] = source
    result["warnings"] = [*warnings, *result["warnings"]]
    return result


def _latency(infer_ns: list[int]) -> dict[str, Any]:
    """The percentiles that so many samples carry, and the interval of the median."""
    result: dict[str, Any] = {"missing": {}, "warnings": [], "settings": {}, "latency_n": len(infer_ns)}
    for percent, least in MIN_SAMPLES.items():
        name = f"latency_p{percent}_ms"
        result[name] = percentile(infer_ns, percent) / 1e6 if len(infer_ns) >= least else None
        if result[name] is None:
            result["missing"][name] = f"{len(infer_ns)} runs; a p{percent} wants {least}"
    interval = median_interval(_window_medians(infer_ns))
    result["latency_p50_interval_ms"] = None if interval is None else [bound / 1e6 for bound in interval]
    if spread(infer_ns) > SPREAD_LIMIT:
        result["warnings"].append(
            f"the middle half of the runs spreads over {spread(infer_ns):.0%} of the median; "
            "other load or a changing clock is likely"
        )
    return result


def _window_medians(samples: list[int]) -> list[float]:
    """Medians of consecutive windows: neighbouring runs are alike, and single ones make too narrow an interval."""
    size = max(1, len(samples) // WINDOWS)
    return [percentile(samples[i : i + size], 50) for i in range(0, len(samples) - size + 1, size)]


def _check_golden(artifact: Artifact, session: Session) -> list[str]:
    """A warning where the file answers here otherwise than when it was made."""
    if artifact.foreign:
        return []
    inputs, expected = artifact.golden()
    if inputs.shape[1:3] != (session.height, session.width):
        raise RuntimeFailure(f"{artifact.name} takes {session.height}×{session.width}, its golden input differs")
    found = np.concatenate([session.run(one[None]) for one in inputs])
    off = float(np.max(np.abs(found - expected)))
    return [] if off <= GOLDEN_TOLERANCE else [f"outputs differ by up to {off:.2g} from those when it was made"]


def _evenly(paths: list[Path], count: int) -> list[Path]:
    """At most `count` of them, from all over the list, which is ordered by class."""
    return [paths[i * len(paths) // count] for i in range(count)] if len(paths) > count else paths


def _inputs(artifact: Artifact, session: Session, paths: list[Path], count: int) -> tuple[Pixels, str]:
    if paths:
        return np.stack([_picture(path, session) for path in paths]), "pictures of the data"
    if not artifact.foreign:
        return artifact.golden()[0], "golden inputs"
    noise = np.random.default_rng(0).integers(0, 256, (count, session.height, session.width, 3), np.uint8)
    return noise, "noise"


def _picture(path: str | Path, session: Session) -> Pixels:
    try:
        return resize(decode(read_bytes(path)), session.height, session.width)
    except ImageError as error:
        raise MeasureError(f"{display(path)} changed since the scan: {error}. Scan the data anew") from error


def _warm_up(session: Session, inputs: Pixels, protocol: Protocol) -> None:
    start, runs = time.perf_counter(), 0
    while runs < protocol.warmup_runs or time.perf_counter() - start < protocol.warmup_seconds:
        session.run(inputs[runs % len(inputs)][None])
        runs += 1


def _decoder(task: Task | None, artifact: Artifact) -> Callable[[NDArray[np.float32]], Any] | None:
    classes = artifact.classes
    return None if task is None or classes is None else lambda outputs: task.decode(outputs, classes)


def _time_runs(
    session: Session,
    inputs: Pixels,
    decode_outputs: Callable[[NDArray[np.float32]], Any] | None,
    protocol: Protocol,
) -> tuple[list[int], list[int]]:
    """(inference, post-processing) in nanoseconds a run, until both the least time and the least runs are reached."""
    infer_ns: list[int] = []
    post_ns: list[int] = []
    batches = [one[None] for one in inputs]
    end_ns = time.perf_counter_ns() + int(protocol.min_seconds * 1e9)
    while len(infer_ns) < protocol.min_runs or time.perf_counter_ns() < end_ns:
        batch = batches[len(infer_ns) % len(batches)]
        start = time.perf_counter_ns()
        outputs = session.run(batch)
        middle = time.perf_counter_ns()
        infer_ns.append(middle - start)
        if decode_outputs is not None:
            decode_outputs(outputs)
            post_ns.append(time.perf_counter_ns() - middle)
    return infer_ns, post_ns


def _time_preprocessing(paths: list[Path], session: Session) -> list[int]:
    """Decode and resize, from bytes in memory, in nanoseconds a picture."""
    samples = []
    for data in [read_bytes(path) for path in paths]:
        start = time.perf_counter_ns()
        resize(decode(data), session.height, session.width)
        samples.append(time.perf_counter_ns() - start)
    return samples


if __name__ == "__main__":
    child_main()
