"""One file × one runtime × one setting → its `Record` and the raw samples, in fresh processes.

The order: load, warm up (memory is read here), hold the golden outputs, time, time picture to answer, score, energy;
then, in processes of their own, throughput and cold starts. Accuracy is taken through the same session as latency,
and the outputs of the timed run are held against it (MLPerf's TEST01).

In scope: which questions are asked and what becomes a record. Not aware of: how they are answered (`worker`).
Imports artifact, data, device, errors, record, runtimes, stats, tasks and worker.
"""

import datetime
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from featherweight.artifact import Artifact
from featherweight.data import Dataset, Item, targets
from featherweight.device import available_cores, this_device
from featherweight.device.energy import Window, estimate, from_csv
from featherweight.device.environment import snapshot
from featherweight.device.gpu import gpu_memory_bytes
from featherweight.device.load import Watch, reasons
from featherweight.device.memory import NO_PEAK
from featherweight.device.meters import LaterMeter
from featherweight.errors import MeasureError, RuntimeFailure, SettingError
from featherweight.image import decoder_versions
from featherweight.measure import numbers
from featherweight.measure.protocol import Origin, Power, Protocol
from featherweight.record import OPTIONAL, Record
from featherweight.runtimes import runtime_named
from featherweight.runtimes.settings import Settings
from featherweight.tasks import task_of
from featherweight.worker import Worker
from featherweight.worker.child import GPU_PROVIDERS

T = TypeVar("T")

GOLDEN_TOLERANCE = 0.05
# The same session answers the same picture twice: with several threads sums may come in another order, no more.
TIMED_TOLERANCE = 1e-3
# A picture's decoding and one run, at most, where neither is known yet.
PICTURE_SECONDS = 0.5


@dataclass(frozen=True, eq=False)  # a case is itself: two of the same file are still two
class Case:
    """What is measured: one file, by one runtime, so."""

    artifact: Artifact
    runtime: str
    settings: Settings

    def __str__(self) -> str:
        asked = f", {self.settings.precision}" if self.settings.precision else ""
        return f"{self.artifact.name} by {self.runtime}, threads {self.settings.threads}{asked}"


@dataclass(frozen=True)
class Pictures:
    """The part of a dataset that is used, and why there can be no accuracy, if there can be none."""

    dataset: Dataset | None
    part: str | None
    items: tuple[Item, ...]
    no_accuracy: str | None


@dataclass
class _Found:
    """What the questions have brought so far: fields of the record, reasons, raw samples."""

    fields: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    unstable: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[int]] = field(default_factory=dict)

    def add(self, found: tuple[dict[str, Any], dict[str, str]]) -> None:
        """Fields, and what is missing of them."""
        self.fields.update(found[0])
        self.missing.update(found[1])


def measure_case(
    case: Case,
    pictures: Pictures,
    protocol: Protocol,
    origin: Origin,
    power: Power | None = None,
) -> tuple[Record, dict[str, list[int]]]:
    """(the record, the raw samples by name).

    Args:
        case: what to measure.
        pictures: on which pictures.
        protocol: how long.
        origin: what the record says of its making.
        power: an external meter, or the machine's power for an estimate.

    Raises:
        MeasureError: the process died, hung or refused.
    """
    found = _Found()
    before = snapshot()
    with Worker(case.artifact, case.runtime, case.settings) as worker:
        loaded = worker.load()
        watch = Watch.now([worker.pid])
        run_seconds = _warm_up(worker, protocol, found)
        _golden(worker, case.artifact, found)
        _inputs(worker, pictures, protocol, found)
        _latency(worker, protocol, run_seconds, found)
        picture_seconds = run_seconds * most_runs(case.artifact, pictures)
        _total(worker, pictures, protocol, picture_seconds, found)
        _accuracy(worker, case.artifact, pictures, picture_seconds, found)
        _gpu_memory(worker, loaded["ran"]["provider"], found)
        _energy(worker, protocol, power or Power(), found)
        loads = [watch.since()]
    watch = Watch.now()
    _throughput(case, pictures, protocol, found)
    _cold_starts(case, protocol, found)
    loads.append(watch.since())
    after = snapshot()
    found.unstable += dict.fromkeys(reason for load in loads for reason in reasons(before, after, load))
    _exact(case.artifact, found)
    return _record(case, pictures, protocol, origin, loaded, {"before": before, "after": after}, found), found.samples


def pictures_of(artifact: Artifact, dataset: Dataset | None, part: str | None) -> Pictures:
    """Which pictures a file is measured on: of the part that is named, else test where there is one, else val.

    Raises:
        MeasureError: the file knows other classes than the data, or another task.
        DataError: what its task's metric needs is not installed.
    """
    if dataset is None:
        return Pictures(None, None, (), "no data was given")
    chosen = part or ("test" if "test" in dataset.parts else "val")
    items = dataset.part(chosen)
    if artifact.classes is None:
        why = "a bare model file does not say its classes and its normalization"
        return Pictures(dataset, chosen, items, why)
    if artifact.classes != dataset.classes:
        raise MeasureError(
            f"{artifact.name} knows the classes {', '.join(artifact.classes[:5])}… and the data has "
            f"{', '.join(dataset.classes[:5])}…: wanted the same classes. Name the data it was trained on"
        )
    if artifact.task != dataset.task:
        raise MeasureError(
            f"{artifact.name} is for {artifact.task} and the data for {dataset.task}: wanted the same task"
        )
    task_of(artifact).check_scoring()
    return Pictures(dataset, chosen, items, None)


def latency_again(case: Case, pictures: Pictures, protocol: Protocol) -> list[int]:
    """Nanoseconds of timed inferences in a fresh process, for the drift of a session."""
    with Worker(case.artifact, case.runtime, case.settings) as worker:
        worker.load()
        found = _Found()
        run_seconds = _warm_up(worker, protocol, found)
        _inputs(worker, pictures, protocol, found)
        _latency(worker, protocol, run_seconds, found)
    return found.samples["infer_ns"]


# ---------------------------------------------------------------------------------------------- the questions


def _warm_up(worker: Worker, protocol: Protocol, found: _Found) -> float:
    """Warm up; returns seconds a run."""
    answer = worker.ask("warm_up", protocol.warmup_seconds, seconds=protocol.warmup_seconds, runs=protocol.warmup_runs)
    found.samples["warmup_ns"] = answer["ns"]
    names = ("memory_peak_bytes", "memory_baseline_bytes", "memory_model_bytes")
    found.fields |= dict(zip(names, answer["memory"] or (None, None, None), strict=True))
    if answer["swapped_bytes"]:
        found.warnings.append(f"{answer['swapped_bytes']} bytes were swapped out, which peak memory does not count")
    if answer["memory"] is None:
        found.missing |= {"memory_peak_bytes": NO_PEAK, "memory_model_bytes": NO_PEAK}
    return float(np.median(answer["ns"])) / 1e9 if answer["ns"] else 1.0


def _golden(worker: Worker, artifact: Artifact, found: _Found) -> None:
    off = worker.ask("golden")["off"]
    if off is not None and not off <= GOLDEN_TOLERANCE:
        found.warnings.append(f"outputs differ by up to {off:.2g} from those when it was made")


def _inputs(worker: Worker, pictures: Pictures, protocol: Protocol, found: _Found) -> None:
    paths = evenly([os.fspath(item.path) for item in pictures.items], protocol.inputs)
    answer = worker.ask("inputs", PICTURE_SECONDS * len(paths), paths=paths, count=protocol.inputs)
    part = f" ({len(paths)} of the {pictures.part} part)" if paths else ""
    found.settings["inputs"] = f"{answer['inputs']}{part}"


def _latency(worker: Worker, protocol: Protocol, run_seconds: float, found: _Found) -> None:
    seconds = max(protocol.min_seconds, 2 * protocol.runs * run_seconds)
    answer = worker.ask("time", seconds, seconds=protocol.min_seconds, runs=protocol.runs)
    found.samples["infer_ns"], found.samples["post_ns"] = answer["infer_ns"], answer["post_ns"]
    found.settings["timed_from_to"] = answer["edges"]  # seconds since 1970, for a meter's file
    found.add(numbers.latency(answer["infer_ns"]))
    found.unstable += numbers.unsteady(answer["infer_ns"])
    found.warnings += numbers.outlier_note(answer["infer_ns"])


def _total(worker: Worker, pictures: Pictures, protocol: Protocol, run_seconds: float, found: _Found) -> None:
    samples: dict[str, list[int]] = {}
    if pictures.items and protocol.total_seconds:
        seconds = protocol.total_seconds + protocol.runs * (run_seconds + PICTURE_SECONDS)
        samples = worker.ask("total", seconds, seconds=protocol.total_seconds, runs=protocol.runs)
    found.samples |= {f"total_{name}" if name != "total_ns" else name: values for name, values in samples.items()}
    # What the artifact does not know to decode took no time worth a number.
    post = samples.get("post_ns") if pictures.no_accuracy is None else None
    why_none = "not asked for" if pictures.items else "no data was given"
    found.add(numbers.total({**samples, "post_ns": post or found.samples["post_ns"]}, why_none))
    if samples and pictures.no_accuracy is not None:
        found.warnings.append("the total has no post-processing in it: the file does not say how to decode its outputs")
    if found.fields["postprocess_p50_ms"] is None and not found.samples["post_ns"]:
        found.missing["postprocess_p50_ms"] = "the artifact does not say its task"


def _accuracy(worker: Worker, artifact: Artifact, pictures: Pictures, run_seconds: float, found: _Found) -> None:
    found.fields |= dict.fromkeys(("accuracy", "accuracy_interval", "accuracy_n"))
    if pictures.no_accuracy is not None:
        found.missing["accuracy"] = pictures.no_accuracy
        found.fields["metric"] = None if artifact.foreign else task_of(artifact).metric
        return
    items = labelled_paths(pictures)
    answer = worker.ask("accuracy", len(items) * (run_seconds + PICTURE_SECONDS), items=items)
    score = answer["score"]
    low, high = score["interval"]
    found.fields |= {"accuracy": score["value"], "accuracy_interval": (low, high), "accuracy_n": score["n"]}
    found.fields |= {name: score.get(name) for name in (*OPTIONAL, "scores", "metric")}
    found.settings["accuracy_interval_by"] = score["interval_by"]
    if score["right"] is not None:
        found.samples["right"] = score["right"]
    found.settings["timed_outputs_checked"] = answer["checked"]
    if answer["checked"] and not answer["off"] <= TIMED_TOLERANCE:
        found.unstable.append(f"outputs of the timed run differ from the accuracy run's by up to {answer['off']:.2g}")
    trained = any(step.name in ("train", "distill") for step in artifact.steps)
    if pictures.part == "val" and trained:
        found.warnings.append("accuracy was taken on the part that training watched for its best epoch (val)")
    if pictures.part == "train" and trained:
        found.warnings.append("accuracy was taken on the pictures it was trained on (train)")


def labelled_paths(pictures: Pictures) -> list[tuple[str, Any]]:
    """Each picture's file, and what is true of it as plain values."""
    return [
        (os.fspath(item.path), target) for item, target in zip(pictures.items, targets(pictures.items), strict=True)
    ]


def most_runs(artifact: Artifact, pictures: Pictures) -> int:
    """How many runs the largest picture takes at most: one, or as many as there are tiles that overlap by half."""
    if artifact.resize != "tile" or not pictures.items or not artifact.height or not artifact.width:
        return 1
    return max(
        math.ceil(2 * item.height / artifact.height) * math.ceil(2 * item.width / artifact.width)
        for item in pictures.items
    )


def _energy(worker: Worker, protocol: Protocol, power: Power, found: _Found) -> None:
    """Measurements alone are put into `energy_mj`; an estimate stays apart, so that it can never rank beside one."""
    answer: dict[str, Any] = {"method": "not available: not asked for", "mj_per_inference": None, "windows": []}
    if protocol.energy_window_seconds:
        try:
            answer = worker.ask(
                "energy",
                2 * (protocol.energy_windows + 2) * protocol.energy_window_seconds,
                windows=protocol.energy_windows,
                window_seconds=protocol.energy_window_seconds,
                meter_csv=None if power.meter is None else os.fspath(power.meter),
            )
        except (MeasureError, RuntimeFailure) as error:  # the rest of the record stands all the same
            answer["method"] = f"not available: {error}"
    if answer["method"] == LaterMeter.label and power.meter is not None and Path(power.meter).exists():
        idle, windows = ([Window(**window) for window in answer[name]] for name in ("idle", "windows"))
        try:
            answer = from_csv(power.meter, idle, windows).as_dict()
        except (MeasureError, SettingError) as error:
            answer["method"] = f"not available: {error}"
    measured = answer["method"].startswith("measured:") and answer["mj_per_inference"] is not None
    found.fields["energy_method"] = answer["method"]
    found.fields["energy_mj"] = answer["mj_per_inference"] if measured else None
    found.fields["energy_estimate"] = answer if answer["method"].startswith("estimated:") else None
    if answer["windows"]:
        found.settings["energy"] = answer  # with the windows, so that a meter's file can be laid beside them later
    if not measured:
        found.missing["energy_mj"] = answer["method"]
    p50_ms = found.fields["latency_p50_ms"]
    if power.watts is not None and p50_ms is not None:
        found.fields["energy_estimate"] = estimate(power.watts, p50_ms / 1e3)


def _gpu_memory(worker: Worker, provider: str, found: _Found) -> None:
    found.fields["gpu_memory_bytes"] = None
    if provider not in GPU_PROVIDERS:
        found.missing["gpu_memory_bytes"] = f"it ran on {provider}"
        return
    used, why = gpu_memory_bytes(worker.pid)  # cannot run here: no GPU
    found.fields["gpu_memory_bytes"] = used
    if why is not None:
        found.missing["gpu_memory_bytes"] = why


def _throughput(case: Case, pictures: Pictures, protocol: Protocol, found: _Found) -> None:
    """All cores at work, in a process of its own: as many sessions as fit, each on the threads that were asked for."""
    streams = max(1, available_cores() // case.settings.threads)
    found.fields["throughput_per_s"] = None
    if not protocol.throughput_seconds:
        found.missing["throughput_per_s"] = "not asked for"
        return
    try:
        with Worker(case.artifact, case.runtime, case.settings) as worker:
            worker.load(memory=False)
            _inputs(worker, pictures, protocol, found)
            answer = worker.ask(
                "throughput", protocol.throughput_seconds, seconds=protocol.throughput_seconds, streams=streams
            )
    except (MeasureError, RuntimeFailure) as error:
        found.missing["throughput_per_s"] = str(error)
        return
    found.fields["throughput_per_s"] = answer["runs"] / answer["seconds"]
    found.settings["throughput"] = {"streams": streams, "threads": case.settings.threads, **answer}


def _cold_starts(case: Case, protocol: Protocol, found: _Found) -> None:
    """Process start to first answer, of several fresh processes."""
    found.fields["cold_start_ms"] = None
    if not protocol.cold_starts:
        found.missing["cold_start_ms"] = "not asked for"
        return
    samples = []
    try:
        for _ in range(protocol.cold_starts):
            with Worker(case.artifact, case.runtime, case.settings) as worker:
                samples.append(worker.load(memory=False)["answered_ns"] - worker.started_ns)
    except (MeasureError, RuntimeFailure) as error:
        found.missing["cold_start_ms"] = str(error)
        return
    found.samples["cold_start_ns"] = samples
    found.fields["cold_start_ms"] = float(np.median(samples)) / 1e6
    found.settings["cold_start"] = {"n": len(samples), "low_ms": min(samples) / 1e6, "high_ms": max(samples) / 1e6}


def _exact(artifact: Artifact, found: _Found) -> None:
    """What is known of the file without running it."""
    found.fields |= {"size_bytes": artifact.size_bytes, "parameters": artifact.parameters, "macs": artifact.macs}
    for name in ("parameters", "macs"):
        if found.fields[name] is None:
            found.missing[name] = "the artifact does not say"


# ------------------------------------------------------------------------------------------------- the record


def _record(
    case: Case,
    pictures: Pictures,
    protocol: Protocol,
    origin: Origin,
    loaded: dict[str, Any],
    environment: dict[str, Any],
    found: _Found,
) -> Record:
    artifact, device, ran = case.artifact, this_device(), loaded["ran"]
    dataset = pictures.dataset
    trained_on = [step.settings["data"] for step in artifact.steps if step.name == "build" and "data" in step.settings]
    if dataset is not None and trained_on and trained_on[0] != dataset.fingerprint:
        found.warnings.append(
            f"other pictures or another split ({dataset.fingerprint}) than it was trained on ({trained_on[0]}); "
            "it may have been trained on some of these"
        )
    return Record(
        name=artifact.name,
        artifact_sha256=artifact.sha256,
        format=artifact.format,
        precision=artifact.precision,
        task=artifact.task,
        steps=tuple(json.loads(json.dumps(asdict(step))) for step in artifact.steps),
        device=device.as_dict(),
        device_id=device.id,
        runtime=case.runtime,
        threads=case.settings.threads,
        compute_precision=ran["precision"],
        provider=ran["provider"],
        settings={
            "protocol": asdict(protocol),
            "asked": asdict(case.settings),
            "ran": ran,
            "resize": artifact.resize,
            "height": loaded["height"],
            "width": loaded["width"],
            "command": origin.command,
            **found.settings,
        },
        environment=environment,
        versions=_versions(case.runtime),
        data=None if dataset is None else dataset.fingerprint,
        part=pictures.part,
        seed=origin.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        missing=found.missing,
        warnings=tuple(found.warnings),
        unstable=tuple(found.unstable),
        quick=protocol.quick,
        **found.fields,
    )


def _versions(runtime: str) -> dict[str, str]:
    return {
        "featherweight": version("featherweight"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        runtime: runtime_named(runtime).version(),
        **decoder_versions(),
    }


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, from all over the list, which is ordered by class."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


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
