"""What was measured, beside what is possible: a record of the same file, and ONNX Runtime's own profiler.

The profile is taken in a process of its own, on noise. ONNX Runtime fuses activations and normalization into the
convolution before, and names the fused operator by itself or by the tensor it gives; its time is put down to the
convolution. What no operator of the file is named by (changes of layout, fused away names) stays as `other`.

LiteRT's Python API gives no times of operators (2.3), so `.tflite` files have the bound alone.
Imports artifact, errors, record, runtimes and this folder.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featherweight.analyze.costs import Analysis, Row
from featherweight.analyze.graph import Shape
from featherweight.analyze.roofline import Roofline, roofline, this_machine
from featherweight.analyze.views import View
from featherweight.errors import FeatherweightError, MeasureError
from featherweight.record import Record, read_records

RUNS = 30
CHILD_TIMEOUT_SECONDS = 600.0
# What ONNX Runtime appends to a name when it rewrites an operator, and for its event.
RENAMED = re.compile(r"(_kernel_time|_nchwc|_nhwc|_token_\d+|_quant|_QuantizeLinear|_DequantizeLinear)$")
# Its types that hold a product, so that a fused operator's time is that product's.
HOLDS_PRODUCT = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Profile:
    """Medians over runs, in microseconds: of each operator's event, by (name, type), and of a whole run."""

    events: dict[tuple[str, str], float]
    run_us: float


def timed(
    analysis: Analysis, threads: int | None = None, records: str | Path | None = None, profile: bool = False
) -> View:
    """The analysis with the least times on this machine, and what was measured.

    Args:
        analysis: of a model; of another type than float32 the bound is that of its bytes.
        threads: by default all cores.
        records: a file of records, or a folder of such files, in which one of the same file, machine and number of
            threads is looked for.
        profile: take each operator's time by the runtime's profiler.

    Raises:
        SettingError: there are not so many threads.
        MeasureError, RecordError, RuntimeFailure: what is asked for cannot be measured or read.
    """
    listed = None if records is None else read_records(records)
    machine = this_machine(threads)
    found = roofline(analysis, machine)
    if profile:
        found = _with_profile(found, analysis)
    if listed is not None:
        found = _with_record(found, analysis, listed)
    return View(analysis, found)


def _with_record(found: Roofline, analysis: Analysis, records: Sequence[Record]) -> Roofline:
    """The fastest record of the same file on this machine with as many threads: the bound is of no runtime."""
    machine = found.machine
    same = [
        record
        for record in records
        if record.artifact_sha256 == analysis.sha256
        and record.device_id == machine.device_id
        and record.threads == machine.threads
        and record.latency_p50_ms is not None
    ]
    if not same:
        return _without(
            found,
            f"no record has a latency of this file on this machine with {machine.threads} threads; measure it first",
        )
    best = min(same, key=lambda record: record.latency_p50_ms or 0.0)
    latency_us = 1e3 * (best.latency_p50_ms or 0.0)
    return replace(found, measured_us=latency_us, measured_by=f"by {best.runtime} (record {best.id}, p50)")


def _without(found: Roofline, reason: str) -> Roofline:
    return replace(found, missing=(*found.missing, reason))


# --------------------------------------------------------------------------------------------------- profiler


def _with_profile(found: Roofline, analysis: Analysis) -> Roofline:
    if analysis.format == "litert":
        return _without(found, "LiteRT's Python API has no profiler of operators; profile the .onnx file")
    if analysis.format != "onnx" or analysis.path is None:
        return _without(found, "only a runtime has times of operators; export the model and profile the .onnx file")
    shapes = {tensor.name: tensor.shape for tensor in analysis.inputs}
    taken = take_profile(Path(analysis.path), found.machine.threads, shapes)
    times, other = attribute(analysis.rows, taken)
    rows = {name: replace(least, measured_us=times.get(name)) for name, least in found.rows.items()}
    by = f"by ONNX Runtime with its profiler on (median of {RUNS} runs on noise)"
    return replace(found, rows=rows, measured_us=taken.run_us, measured_by=by, profiled_us=taken.run_us, other_us=other)


def take_profile(path: Path, threads: int, shapes: Mapping[str, Shape]) -> Profile:
    """Profile an `.onnx` file in a process of its own.

    Args:
        path: the file.
        threads: of an operator.
        shapes: of the inputs, pictures as (n, h, w, c): what the file leaves open is taken from there.

    Raises:
        MeasureError: the process died, or the runtime cannot run the file.
    """
    command = [sys.executable, "-m", "featherweight.analyze.timing", str(path), str(threads), json.dumps(shapes)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=CHILD_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"profiling {path} took over {CHILD_TIMEOUT_SECONDS:g} s") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise MeasureError(f"the process that profiled {path} died: {last[0][:300]}; the file may be damaged") from None
    if "error" in answer:
        raise MeasureError(answer["error"])
    return Profile({(name, kind): us for name, kind, us in answer["events"]}, answer["run_us"])


def child_main(path: str, threads: int, shapes: Mapping[str, Shape]) -> None:
    """The fresh process: profile, and print JSON."""
    from featherweight.runtimes.ort import profile

    try:
        with tempfile.TemporaryDirectory() as folder:
            taken = profile(Path(path), threads, RUNS, Path(folder), shapes)
            answer = read_profile(json.loads(taken.read_text()))
    except FeatherweightError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


def read_profile(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the later half of the runs, as the first half warms up."""
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    runs = []
    for event in events:
        if event.get("name") == "model_run":
            runs.append(float(event["dur"]))
        elif event.get("cat") == "Node" and str(event.get("name")).endswith("_kernel_time"):
            samples[str(event["name"]), str(event["args"].get("op_name"))].append(float(event["dur"]))
    medians = [[*key, statistics.median(times[len(times) // 2 :])] for key, times in samples.items()]
    return {"events": medians, "run_us": statistics.median(runs[len(runs) // 2 :])}


def attribute(rows: tuple[Row, ...], taken: Profile) -> tuple[dict[str, float], float]:
    """(operator → microseconds, the rest of a run that is of no operator).

    An event belongs to the operator that has its name, or gives the tensor that it is named by. A fused convolution
    is named by the activation at its end: its time goes to the convolution, and the activation has none of its own.
    """
    named = {row.name: place for place, row in enumerate(rows)}
    gives = {tensor: place for place, row in enumerate(rows) for tensor in row.gives}
    times: dict[str, float] = defaultdict(float)
    for (event, kind), duration in taken.events.items():
        name = event
        while (shorter := RENAMED.sub("", name)) != name:
            name = shorter
        place = named.get(name, gives.get(name))
        if place is not None:
            times[rows[_product_before(rows, gives, place, kind)].name] += duration
    return dict(times), max(0.0, taken.run_us - sum(times.values()))


def _product_before(rows: tuple[Row, ...], gives: dict[str, int], place: int, kind: str) -> int:
    """The convolution or dense layer that a fused operator computes, found backwards through its first inputs."""
    at = place
    while any(word in kind for word in HOLDS_PRODUCT) and not rows[at].macs:
        before = next((gives[tensor] for tensor in rows[at].takes if tensor in gives), None)
        if before is None:
            return place
        at = before
    return at


if __name__ == "__main__":
    child_main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
