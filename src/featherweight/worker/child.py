"""The fresh process: `python -m featherweight.worker.child`. One JSON line a command in, one JSON line back.

The clock stands around `session.run` alone, around decoding its outputs, or around all from the file's bytes on;
pictures for the first two are decoded before it starts. Memory is read while there is one input and no list of
samples yet: loading and running, and nothing of the measuring.

What only some commands need (pictures, meters, tasks) is imported in those: a cold start is the runtime's and the
file's, and none of ours. When the parent is gone, however it ended, so is this process, whatever it is doing.

In scope: what is timed. Not aware of: why, nor what becomes of the numbers.
Imports artifact, data, device, errors, image, outputs, runtimes and tasks.
"""

import base64
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import read_artifact
from featherweight.errors import FeatherweightError, ImageError, MeasureError, RuntimeFailure, SettingError
from featherweight.outputs import most_off
from featherweight.runtimes import Session, runtime_named
from featherweight.runtimes.settings import settings_of

if TYPE_CHECKING:
    from featherweight.device.memory import PeakWatch
    from featherweight.device.meters import Meter
    from featherweight.image import Pixels
    from featherweight.tasks import Size, Task

BLOCK_RUNS = 3
MOST_KEPT_BYTES = 64_000_000
SETTLE_SECONDS, SETTLE_SLICES = 0.002, 100
GPU_PROVIDERS = ("cuda", "tensorrt")  # whose energy and memory NVML tells
CPU_PROVIDERS = ("cpu", "xnnpack", "dnnl", "acl", "armnn")  # that run on the processor, whose counters are its own


class Child:
    """What it can be asked for: the methods in `COMMANDS`; what each returns is the answer."""

    def load(
        self,
        artifact: str,
        runtime: str,
        settings: dict[str, Any],
        cpus: list[int] | None,
        memory: bool = True,
    ) -> dict[str, Any]:
        """Load the file and run it a first time, on noise; without `memory` as an application would, and no more."""
        self._runtime = runtime_named(runtime)
        self._artifact = read_artifact(artifact)
        # Before the runtime is: OpenVINO keeps the cores that it found first, and would run on another one.
        if cpus is not None and sys.platform == "linux":
            os.sched_setaffinity(0, cpus)
        if memory:
            self._runtime.prepare(self._artifact)
        self._settings = settings_of(settings)
        self._memory = _watch_peak() if memory else None  # from here on, above the empty runtime
        start = time.perf_counter_ns()
        self._session: Session = self._runtime.load(self._artifact, self._settings)
        loaded = time.perf_counter_ns()
        self._inputs: list[Pixels] = [_noise(self._session, 1)]
        self._sizes = [self._own_size]
        self._bytes: list[bytes] = []
        self._paths: Sequence[str] = ()
        self._timed: dict[int, NDArray[np.float32]] = {}
        self._session.run(self._inputs[0])
        answered = time.perf_counter_ns()
        return {
            "height": self._session.height,
            "width": self._session.width,
            "ran": asdict(self._session.ran),
            "load_ms": (loaded - start) / 1e6,
            "first_ms": (answered - loaded) / 1e6,
            "answered_ns": answered,  # by the clock that the parent has too
        }

    def warm_up(self, seconds: float, runs: int) -> dict[str, Any]:
        """Runs that do not count, and the peak memory up to here."""
        samples = self._infer(seconds, runs)
        peak = None if self._memory is None else self._memory.read()
        memory = None if peak is None else (peak.total_bytes, peak.baseline_bytes, peak.above_bytes)
        _settle()
        return {"ns": samples.tolist(), "memory": memory, "swapped_bytes": 0 if peak is None else peak.swapped_bytes}

    def golden(self) -> dict[str, Any]:
        """How far the file's answers here are from those when it was made; `None` where that is not known."""
        if self._artifact.foreign:
            return {"off": None}
        inputs, expected = self._artifact.golden()
        if inputs.shape[1:3] != (self._session.height, self._session.width):
            raise RuntimeFailure(
                f"{self._artifact.name} takes {self._session.height}×{self._session.width}, its golden input differs"
            )
        found = np.concatenate([self._session.run(one[None]) for one in inputs])
        return {"off": most_off(expected, found)}

    def outputs(self) -> dict[str, Any]:
        """The answers to the inputs, as they are now: little-endian float32 in base64, and their shape."""
        found = np.stack([self._session.run(one)[0] for one in self._inputs]).astype("<f4")
        return {"outputs": base64.b64encode(found.tobytes()).decode(), "shape": list(found.shape)}

    def inputs(self, paths: list[str], count: int) -> dict[str, Any]:
        """What the clock runs on from now on: the pictures, else the golden inputs, else noise."""
        self._paths, self._timed = paths, {}
        if paths:
            self._bytes = [_read(path) for path in paths]
            self._inputs, self._sizes = [], []
            for path in paths:
                picture = self._decoded(path)
                self._inputs.append(self._input(picture))
                # One tile is an answer of its own size.
                self._sizes.append(self._own_size if self._tiled else (picture.shape[0], picture.shape[1]))
            return {"inputs": "pictures of the data"}
        if self._artifact.foreign:
            self._inputs = [_noise(self._session, 1, seed) for seed in range(count)]
        else:
            self._inputs = [one[None] for one in self._artifact.golden()[0]]
        self._sizes = [self._own_size] * len(self._inputs)
        return {"inputs": "noise" if self._artifact.foreign else "golden inputs"}

    def time(self, seconds: float, runs: int) -> dict[str, Any]:
        """One picture at a time: nanoseconds of inference and of decoding the outputs, and the wall clock's edges."""
        edges = [time.time()]
        infer, post = self._infer_and_decode(seconds, runs)
        edges.append(time.time())
        return {"infer_ns": infer.tolist(), "post_ns": post.tolist(), "edges": edges}

    def block(self, seconds: float) -> dict[str, Any]:
        """A short block of runs for a comparison, after one that does not count; nanoseconds each."""
        self._session.run(self._inputs[0])
        samples = self._infer(seconds, BLOCK_RUNS)
        _settle()
        return {"ns": samples.tolist()}

    def total(self, seconds: float, runs: int) -> dict[str, Any]:
        """From the bytes of a picture to the decoded answer, all four timers, nanoseconds each."""
        from featherweight.image import decode

        samples = {name: array("q") for name in ("pre_ns", "infer_ns", "post_ns", "total_ns")}
        task = self._task
        for index in _until(seconds, runs):
            data = self._bytes[index % len(self._bytes)]
            start = time.perf_counter_ns()
            picture = decode(data)
            prepared = self._prepared(picture)
            ready = time.perf_counter_ns()
            outputs = self._answers(prepared)
            answered = time.perf_counter_ns()
            if task is not None:
                task.decode(outputs, [(picture.shape[0], picture.shape[1])])
            done = time.perf_counter_ns()
            for name, value in zip(
                samples, (ready - start, answered - ready, done - answered, done - start), strict=True
            ):
                samples[name].append(value)
        return {name: values.tolist() for name, values in samples.items()}

    def accuracy(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        """The task's score on the pictures, and how far the timed run's outputs are from those of this run."""
        if self._task is None:
            raise MeasureError(f"{self._artifact.name} does not say its task; wanted an artifact folder")
        timed = {path: self._timed[index] for index, path in enumerate(self._paths) if index in self._timed}
        answers: list[Any] = []  # raw outputs are not kept: a detector's are large
        off: list[float] = []
        for path, target in items:
            picture = self._decoded(path)
            prepared = self._prepared(picture)
            outputs = self._answers(prepared)
            answers += self._task.read(outputs, [(picture.shape[0], picture.shape[1])], [target])
            if path in timed:
                again = self._session.run(self._input(picture)) if self._tiled else outputs
                off.append(most_off(timed[path][None], again))
        score = self._task.score(answers, [target for _, target in items])
        return {"score": score, "checked": len(off), "off": float(np.max(off)) if off else None}  # NaN comes through

    def throughput(self, seconds: float, streams: int) -> dict[str, Any]:
        """Inferences a second of `streams` sessions at once, each in a thread of its own, on the inputs."""
        more = [self._runtime.load(self._artifact, self._settings) for _ in range(streams - 1)]
        crowd = _Crowd([self._session, *more], self._inputs)
        return {"runs": crowd.run(seconds), "seconds": crowd.seconds}

    def energy(self, windows: int, window_seconds: float, meter_csv: str | None) -> dict[str, Any]:
        """Energy of what the provider runs on, less what it takes while idle."""
        from featherweight.device.energy import measure_energy

        meter = _meter(self._session.ran.provider, meter_csv)
        return measure_energy(self._count, window_seconds, windows, window_seconds, meter).as_dict()

    # --------------------------------------------------------------------------------------------- not commands

    @cached_property
    def _task(self) -> "Task | None":
        from featherweight.tasks import task_of

        return None if self._artifact.foreign else task_of(self._artifact)

    @property
    def _own_size(self) -> "Size":
        """Of pictures that need no resize."""
        return self._session.height, self._session.width

    @property
    def _rule(self) -> str:
        return self._artifact.resize or "stretch"

    @property
    def _tiled(self) -> bool:
        """Whether a picture keeps its scale and is run in several tiles."""
        return self._rule == "tile"

    def _decoded(self, path: str) -> "Pixels":
        """The picture (h, w, 3) as it came."""
        from featherweight.image import decode

        try:
            return decode(_read(path))
        except ImageError as error:
            raise _changed(path, error) from error

    def _prepared(self, picture: "Pixels") -> "Pixels":
        """What `_answers` takes: the input (1, h, w, 3), or the picture itself where it is cut into tiles."""
        return picture if self._tiled else self._input(picture)

    def _answers(self, prepared: "Pixels") -> NDArray[np.float32]:
        """The outputs (1, …) for a whole picture."""
        if not self._tiled:
            return self._session.run(prepared)
        from featherweight.tiles import tiled

        return tiled(self._session.run, prepared, *self._own_size)[None]

    def _input(self, picture: "Pixels") -> "Pixels":
        """One input (1, h, w, 3) of a picture: all of it, or the tile in its middle, repeated where it is smaller."""
        if not self._tiled:
            from featherweight.image import resize

            return resize(picture, *self._own_size, self._rule)[None]
        rows, columns = (
            (np.arange(wanted) + max(0, there - wanted) // 2) % there
            for wanted, there in zip(self._own_size, picture.shape[:2], strict=True)
        )
        return np.ascontiguousarray(picture[rows[:, None], columns])[None]

    def _keep(self, place: int, output: NDArray[np.float32]) -> None:
        """Keep what the timed run answers, to be held against the accuracy's: of large answers only some."""
        if place in self._timed or len(self._timed) * output.nbytes < MOST_KEPT_BYTES:
            self._timed[place] = output

    def _count(self, seconds: float) -> int:
        return len(self._infer(seconds, 1))

    def _infer(self, seconds: float, runs: int) -> "array[int]":
        run, inputs, samples = self._session.run, self._inputs, array("q")
        for index in _until(seconds, runs):
            batch = inputs[index % len(inputs)]
            start = time.perf_counter_ns()
            run(batch)
            samples.append(time.perf_counter_ns() - start)
        return samples

    def _infer_and_decode(self, seconds: float, runs: int) -> tuple["array[int]", "array[int]"]:
        infer, post = array("q"), array("q")
        task = self._task
        for index in _until(seconds, runs):
            place = index % len(self._inputs)
            start = time.perf_counter_ns()
            outputs = self._session.run(self._inputs[place])
            middle = time.perf_counter_ns()
            infer.append(middle - start)
            if task is not None:
                task.decode(outputs, [self._sizes[place]])
                post.append(time.perf_counter_ns() - middle)
            self._keep(place, outputs[0])
        return infer, post


class _Crowd:
    """Sessions that run at once, a thread each; the first that fails stops them all."""

    def __init__(self, sessions: Sequence[Session], inputs: "Sequence[Pixels]"):
        self._sessions, self._inputs = sessions, inputs
        self._counts = [0] * len(sessions)
        self._failures: list[Exception] = []
        self._ready = threading.Barrier(len(sessions) + 1)
        self._over = threading.Event()
        self.seconds = 0.0

    def run(self, seconds: float) -> int:
        """Run for so long; returns how often all of them did, and sets `seconds` to how long it took.

        Raises:
            Exception: whatever the first failing session raised.
        """
        threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(len(self._sessions))]
        for thread in threads:
            thread.start()
        with contextlib.suppress(threading.BrokenBarrierError):  # one failed in its first run
            self._ready.wait()
        start = time.perf_counter()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()
        self.seconds = time.perf_counter() - start
        if self._failures:
            raise self._failures[0]
        return sum(self._counts)

    def _work(self, place: int) -> None:
        session, inputs = self._sessions[place], self._inputs
        try:
            session.run(inputs[0])
            self._ready.wait()
            while not self._over.is_set():
                session.run(inputs[self._counts[place] % len(inputs)])
                self._counts[place] += 1
        except threading.BrokenBarrierError:  # another one failed
            return
        except Exception as error:  # raised again by `run`
            self._failures.append(error)
            self._over.set()
            self._ready.abort()


def _watch_peak() -> "PeakWatch | None":
    from featherweight.device.memory import watch_peak

    return watch_peak()


def _meter(provider: str, csv: str | None) -> "Meter":
    """The user's own meter, else the counter of what the provider runs on, else the reason why there is none."""
    from featherweight.device.gpu import first_gpu
    from featherweight.device.meters import LaterMeter, NoMeter, find_meter

    if csv is not None:
        return find_meter(csv) if Path(csv).exists() else LaterMeter()  # handed in when the windows are over
    if provider in CPU_PROVIDERS:
        return find_meter()
    if provider not in GPU_PROVIDERS:
        return NoMeter(f"no counter here tells what {provider} takes")
    gpu = first_gpu()
    return NoMeter("CUDA_VISIBLE_DEVICES names no number") if gpu is None else find_meter(gpu=gpu)


def _settle() -> None:
    """Wait until the threads of this process sleep: for three slices of time on end, at most a fifth of a second.

    After a run ONNX Runtime's threads spin for 30 to 50 ms: on cores that belong to the next process' block by then.
    """
    asleep = 0
    for _ in range(SETTLE_SLICES):
        before = time.process_time()
        time.sleep(SETTLE_SECONDS)
        # One slice is not enough: on a busy machine a thread that spins may have to wait for a core meanwhile.
        asleep = asleep + 1 if time.process_time() - before < SETTLE_SECONDS / 4 else 0
        if asleep == 3:
            return


def _until(seconds: float, runs: int) -> Iterator[int]:
    """0, 1, 2 … until both the time is over and there were so many."""
    end = time.perf_counter_ns() + int(seconds * 1e9)
    index = 0
    while index < runs or time.perf_counter_ns() < end:
        yield index
        index += 1


def _noise(session: Session, count: int, seed: int = 0) -> "Pixels":
    """Not NumPy's: importing its generators would be part of a cold start, and of the model's memory."""
    size = (count, session.height, session.width, 3)
    return np.frombuffer(bytearray(Random(seed).randbytes(math.prod(size))), np.uint8).reshape(size)


def _read(path: str) -> bytes:
    from featherweight.image import read_bytes

    try:
        return read_bytes(path)
    except ImageError as error:
        raise _changed(path, error) from error


def _changed(path: str, error: ImageError) -> MeasureError:
    from featherweight.data import display

    return MeasureError(f"{display(path)} changed since the scan: {error}. Scan the data anew")


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    command.__name__: command
    for command in (
        Child.load, Child.warm_up, Child.golden, Child.outputs, Child.inputs, Child.time, Child.block, Child.total,
        Child.accuracy, Child.throughput, Child.energy,
    )
}  # fmt: skip


def end_with_the_parent(lifeline: int) -> None:
    """Let the kernel kill this process when the other end of a pipe is closed: the parent is gone. Linux.

    No thread waits for that: none would get to run while native code hangs and holds the interpreter's lock. And no
    `PR_SET_PDEATHSIG`: that goes with the thread that started this process, not with the parent.
    """
    import fcntl

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):  # there is nothing to be read as long as it is held
        os.read(lifeline, 1)
        sys.exit("the parent is gone")


def die_first() -> None:
    """When memory runs out the kernel is to take this process, whose file may be the cause, and not the parent."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    """Answer commands until the parent closes its end."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints does not mix with the answers
    child = Child()
    for line in sys.stdin:
        job = json.loads(line)
        command = job.pop("do")
        try:
            answer = COMMANDS[command](child, **job)
        except FeatherweightError as error:
            answer = {"error": str(error), "refused": isinstance(error, RuntimeFailure | SettingError)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    die_first()
    if sys.argv[1:]:
        end_with_the_parent(int(sys.argv[1]))
    main()
