"""The roof of this machine: peak arithmetic and memory bandwidth, and what follows for each operator's least time.

An operator that does F FLOPs and moves B bytes takes at least max(F / peak, B / bandwidth): below the ridge
peak / bandwidth (FLOPs a byte) it waits for memory, above it for arithmetic. Williams et al. 2009, "Roofline".

The peak is the best rate of float32 matrix products (numpy's BLAS) on the given number of threads, the bandwidth that
of copying, for working sets from a quarter of a MiB up, as what fits in a cache is faster. Both are the best that was
seen, in a process of its own; they are kept in the user's cache directory (`featherweight/roofline`) unless others
used the machine meanwhile.

An operator's bytes are its weights, inputs and outputs, each once. Padding, and element-wise functions of one tensor
that follow a convolution, a dense layer or the joining of branches, are computed within their neighbour by runtimes and
move nothing of their own: `fused`. So the times are lower bounds, for float32 on the processor; a runtime that needs
fewer multiplications (Winograd's convolutions) could beat them. Where an operator gives another type than float32,
whose peak is not measured, the bound is that of its bytes alone.

Imports artifact, device, errors and this folder.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featherweight.analyze.costs import Analysis, Row
from featherweight.analyze.operators import PRODUCTS, Memory, memory_of
from featherweight.device import available_cores, busy_share, cache_directory, this_device
from featherweight.errors import MeasureError, SettingError

# 1: first.
SCHEMA = 1
CHILD_TIMEOUT_SECONDS = 120.0
MATRIX_SIDES = (256, 512, 1024)
SECONDS_EACH = 0.35
# Working sets, bytes. Below the second limit threads would wait for Python more than for memory: there one thread is
# measured and counted as often as there are threads, which no machine exceeds.
WORKING_SETS = tuple(2**power for power in range(18, 29, 2))
LEAST_THREADED_BYTES = 2**24
# With more than this share of the cores in use by others, what is measured is no roof, and is not kept.
MOST_BUSY = 0.2


@dataclass(frozen=True)
class Machine:
    """What this machine can do at most, on so many threads."""

    name: str
    device_id: str
    threads: int
    flops_per_second: float
    bandwidth: tuple[tuple[int, float], ...]  # (working set, bytes a second), from small to large
    numpy: str
    busy: float | None = None  # the share of all cores that others used while it was measured

    @property
    def disturbed(self) -> bool:
        """Whether others used so much that the true roof may be higher."""
        return self.busy is not None and self.busy > MOST_BUSY

    def bytes_per_second(self, moved: int) -> float:
        """The bandwidth for a working set: that of the largest one measured that is not larger."""
        fitting = [rate for size, rate in self.bandwidth if size <= moved] or [self.bandwidth[0][1]]
        return fitting[-1]

    @property
    def ridge(self) -> float:
        """FLOPs a byte from which on arithmetic is the limit, for data that comes from memory."""
        return self.flops_per_second / self.bandwidth[-1][1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ridge_flops_per_byte": self.ridge}


@dataclass(frozen=True)
class Timed:
    """The least time of an operator or of several, what binds it, and what was measured."""

    bound_by: str  # arithmetic | memory | fused (arithmetic, within a neighbour) | nothing
    least_us: float
    measured_us: float | None = None


@dataclass(frozen=True)
class Roofline:
    """Times of one model on one machine. What is `None` has its reason in `missing`."""

    machine: Machine
    rows: dict[str, Timed]  # by the operator's name
    least_us: float
    measured_us: float | None = None  # of the whole model
    measured_by: str = ""
    profiled_us: float | None = None  # of the whole model, in the profile that the operators' times come from
    other_us: float | None = None  # of the profile, but of no operator
    missing: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> float | None:
        """The share of the bound that was reached: least time / measured time."""
        return None if not self.measured_us else self.least_us / self.measured_us

    def row(self, name: str) -> Timed | None:
        """Of one operator."""
        return self.rows.get(name)

    def group(self, names: Sequence[str]) -> Timed | None:
        """The sum over several."""
        found = [self.rows[name] for name in names if name in self.rows]
        if not found:
            return None
        times = [timed.measured_us for timed in found if timed.measured_us is not None]
        least = _by_bound(found)
        bound = max(least, key=lambda name: least[name]) if any(least.values()) else found[0].bound_by
        return Timed(bound, sum(timed.least_us for timed in found), sum(times) if times else None)

    def lines(self) -> list[str]:
        """For people."""
        machine = self.machine
        memory, cache = machine.bandwidth[-1][1], machine.bandwidth[0][1]
        lines = [
            f"  this machine {machine.name}, {machine.threads} thread{'s' if machine.threads > 1 else ''}: "
            f"{machine.flops_per_second / 1e9:.0f} GFLOP/s, {memory / 1e9:.1f} GB/s from memory, "
            f"{cache / 1e9:.0f} GB/s from cache"
        ]
        if machine.disturbed:
            share = f"{100 * (machine.busy or 0.0):.0f} % of the cores"
            lines.append(f"  warning      {share} were in use by others meanwhile: the roof may be higher")
        lines.append(f"  least time   {self.least_us / 1e3:.3f} ms a picture; {self._bound_text()}")
        if self.measured_us is not None:
            reached = self.reached or 0.0
            lines.append(
                f"  measured     {self.measured_us / 1e3:.3f} ms {self.measured_by}: "
                f"{100 * reached:.0f} % of the bound reached"
            )
        if self.other_us is not None:
            whole, other = (self.profiled_us or 0.0) / 1e3, self.other_us / 1e3
            lines.append(f"  profile      {whole:.3f} ms; {other:.3f} ms of it belongs to no operator of the file")
        lines += [f"  note         {note}" for note in self.notes]
        return [*lines, *(f"  no times     {reason}" for reason in self.missing)]

    def _bound_text(self) -> str:
        times = _by_bound(self.rows.values())
        whole = sum(times.values()) or 1.0
        return ", ".join(f"{100 * times[bound] / whole:.0f} % of it bound by {bound}" for bound in BOUNDS)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "machine": self.machine.as_dict(), "reached": self.reached}


BOUNDS = ("arithmetic", "memory")
# What runtimes compute the element-wise functions after it with, in one pass.
TAKES_FUNCTIONS = (*PRODUCTS, "add", "subtract", "multiply", "divide")


def _by_bound(times: Iterable[Timed]) -> dict[str, float]:
    """Microseconds by what binds them; what is fused costs its arithmetic."""
    found = dict.fromkeys(BOUNDS, 0.0)
    for timed in times:
        found["memory" if timed.bound_by == "memory" else "arithmetic"] += timed.least_us
    return found


def roofline(analysis: Analysis, machine: Machine) -> Roofline:
    """The least time of every operator of a model."""
    fused = _fused(analysis.rows)
    rows = {row.name: _least(row, machine, row.name in fused) for row in analysis.rows}
    others = sorted({row.dtype for row in analysis.rows if row.macs} - {"float32"})
    notes = (
        f"it computes in {', '.join(others)}, and the arithmetic's roof is float32's: there the least times are the "
        "memory's alone",
    )
    return Roofline(machine, rows, sum(timed.least_us for timed in rows.values()), notes=notes if others else ())


def _fused(rows: Sequence[Row]) -> set[str]:
    """Names of operators that runtimes compute within a neighbour, so that they move nothing of their own."""
    found: set[str] = set()
    takes: set[str] = set()  # tensors of which a function costs no pass of its own
    for row in rows:
        is_function = memory_of(row.kind) is Memory.IN_PLACE and bool(row.takes) and row.takes[0] in takes
        if is_function or row.kind in TAKES_FUNCTIONS:
            takes.update(row.gives)
        if is_function or row.kind in ("pad", "crop"):
            found.add(row.name)
    return found


def _least(row: Row, machine: Machine, fused: bool) -> Timed:
    arithmetic = (row.flops or 0) / machine.flops_per_second if row.dtype == "float32" else 0.0
    if fused:
        return Timed("fused", 1e6 * arithmetic)
    moved = row.traffic_bytes
    memory = moved / machine.bytes_per_second(moved) if moved else 0.0
    if not arithmetic and not memory:
        return Timed("nothing", 0.0)
    return Timed("arithmetic" if arithmetic >= memory else "memory", 1e6 * max(arithmetic, memory))


# -------------------------------------------------------------------------------------------- this machine's roof


def this_machine(threads: int | None = None, cache: Path | None = None) -> Machine:
    """The roof of this machine: measured once, then read from the user's cache directory.

    Args:
        threads: by default all cores that this process may use.
        cache: where it is kept.

    Raises:
        SettingError: no such number of threads.
        MeasureError: the measuring process died.
    """
    threads = check_threads(threads)
    import numpy

    device = this_device()
    key = {"schema": SCHEMA, "device": device.id, "threads": threads, "numpy": numpy.__version__}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    place = (cache or cache_directory()) / "roofline" / f"{name}.json"
    known = _read_kept(place, key)
    if known is None:
        known = _measure(threads)
        if (known["busy"] or 0.0) <= MOST_BUSY:
            _keep(place, {**key, **known})
    return Machine(
        device.name,
        device.id,
        threads,
        known["flops_per_second"],
        tuple((int(size), float(rate)) for size, rate in known["bandwidth"]),
        numpy.__version__,
        known["busy"],
    )


def check_threads(threads: int | None) -> int:
    """The number of threads: by default all cores that this process may use.

    Raises:
        SettingError: no such number of threads.
    """
    cores = available_cores()
    threads = cores if threads is None else threads
    if not 1 <= threads <= cores:
        raise SettingError(f"{threads} threads; wanted 1 to {cores}, the cores of this machine")
    return threads


def _read_kept(place: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured before; `None` if nothing, or nothing that can be used."""
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        usable = (
            all(kept[name] == value for name, value in key.items())
            and kept["flops_per_second"] > 0
            and len(kept["bandwidth"]) == len(WORKING_SETS)
            and all(size > 0 and rate > 0 for size, rate in kept["bandwidth"])
            and "busy" in kept
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if usable else None


def _keep(place: Path, values: dict[str, Any]) -> None:
    """Write it beside its place and rename it there. A cache that cannot be written costs a few seconds each time."""
    from featherweight.artifact import write_file
    from featherweight.errors import OutputError
    from featherweight.progress import logger

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(place, json.dumps(values).encode())
    except (OSError, OutputError) as error:
        logger.warning("the machine's roof is not kept: %s", error)


def _measure(threads: int) -> dict[str, Any]:
    """In a fresh process, whose BLAS takes so many threads."""
    from featherweight.progress import logger

    logger.info("measuring this machine's peak arithmetic and bandwidth, once, for a few seconds")
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")
    busy = busy_share()
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "featherweight.analyze.roofline", str(threads)],
            capture_output=True,
            env=environment,
            timeout=CHILD_TIMEOUT_SECONDS,
            check=True,
        )
        values: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise MeasureError(f"measuring this machine's roof failed: {error}; try again on an idle machine") from error
    return {**values, "busy": busy}


def child_main(threads: int) -> None:
    """The fresh process: measure, and print JSON."""
    bandwidth = [[size, _copy_rate(size, threads)] for size in WORKING_SETS]
    # A larger working set cannot be faster; where it was, the smaller one met other load.
    for place in range(len(bandwidth) - 2, -1, -1):
        bandwidth[place][1] = max(bandwidth[place][1], bandwidth[place + 1][1])
    json.dump({"flops_per_second": max(map(_product_rate, MATRIX_SIDES)), "bandwidth": bandwidth}, sys.stdout)


def _best_rate(work: Callable[[], object], amount: float, seconds: float = SECONDS_EACH) -> float:
    """The best of many runs, as the amount a second."""
    best = float("inf")
    work()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return amount / best


def _product_rate(side: int) -> float:
    """FLOPs a second of a square matrix product: 2 · side³."""
    import numpy as np

    left, right = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
    out = np.empty((side, side), np.float32)
    return _best_rate(lambda: np.matmul(left, right, out=out), 2.0 * side**3)


def _copy_rate(size: int, threads: int) -> float:
    """Bytes read and written a second by copying within a working set of that size."""
    import numpy as np

    together = threads if size >= LEAST_THREADED_BYTES else 1
    pairs = [(np.ones(size // 8 // together, np.float32), np.empty(size // 8 // together, np.float32))] * together
    pairs = [(source.copy(), target.copy()) for source, target in pairs]
    repeats = max(1, 2**20 // size)  # so that a run is longer than the clock's and the call's own time

    def copy(pair: tuple[Any, Any]) -> None:
        for _ in range(repeats):
            np.copyto(pair[1], pair[0])

    def all_threads() -> None:
        workers = [threading.Thread(target=copy, args=(pair,)) for pair in pairs[1:]]
        for worker in workers:
            worker.start()
        copy(pairs[0])
        for worker in workers:
            worker.join()

    rate = _best_rate(all_threads, float(size * repeats))
    return rate if together == threads else rate * threads


if __name__ == "__main__":
    child_main(int(sys.argv[1]))
