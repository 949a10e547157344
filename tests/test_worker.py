"""The fresh process: it answers, and whatever becomes of it costs nobody else."""

import base64
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featherweight import worker as module
from featherweight.artifact import Artifact, read_artifact
from featherweight.errors import MeasureError, RuntimeFailure, SettingError
from featherweight.runtimes.settings import Settings
from featherweight.worker import Worker
from featherweight.worker.child import COMMANDS, Child, _until, die_first
from tests.trained import SIZE, Trained

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="by Linux' own means")


def python_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Every worker is a process that runs this code."""
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: real([sys.executable, "-c", code], **rest))


def test_a_session_of_commands(trained: Trained) -> None:
    pictures = [str(item.path) for item in trained.dataset.part("test")]
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        loaded = worker.load()
        assert (loaded["height"], loaded["width"]) == (SIZE, SIZE)
        assert loaded["ran"]["precision"] == "float32"
        assert loaded["answered_ns"] > worker.started_ns
        warm = worker.ask("warm_up", 1, seconds=0, runs=7)
        assert len(warm["ns"]) == 7
        if sys.platform == "linux":
            total, baseline, above = warm["memory"]
            assert total >= baseline > 0
            assert 0 <= above < 300e6
        assert worker.ask("golden")["off"] < 1e-3
        assert worker.ask("inputs", 1, paths=pictures[:3], count=8)["inputs"] == "pictures of the data"
        timed = worker.ask("time", 1, seconds=0, runs=11)
        assert len(timed["infer_ns"]) == len(timed["post_ns"]) == 11
        assert timed["edges"][0] <= timed["edges"][1]
        assert len(worker.ask("block", 1, seconds=0)["ns"]) == 3
        answer = worker.ask("accuracy", 10, items=[(path, 0) for path in pictures])
        assert answer["score"]["n"] == len(pictures) == len(answer["score"]["right"])
        assert (answer["checked"], answer["off"]) == (3, 0.0)


def test_total_is_the_sum_of_its_parts(trained: Trained) -> None:
    pictures = [str(item.path) for item in trained.dataset.part("test")][:2]
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        worker.load()
        worker.ask("inputs", 1, paths=pictures, count=2)
        found = worker.ask("total", 1, seconds=0, runs=5)
    assert len(found["total_ns"]) == 5
    for whole, *parts in zip(found["total_ns"], found["pre_ns"], found["infer_ns"], found["post_ns"], strict=True):
        assert whole == sum(parts)
        assert min(parts[:2]) > 0


def test_throughput_counts_all_streams(trained: Trained) -> None:
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        worker.load()
        found = worker.ask("throughput", 1, seconds=0.1, streams=2)
    assert found["runs"] >= 2
    assert 0.1 <= found["seconds"] < 5


def test_a_bare_file_runs_on_noise(trained: Trained, tmp_path: Path) -> None:
    bare = tmp_path / "somebody.onnx"
    bare.write_bytes(trained.artifacts["onnx-float32"].model_path.read_bytes())
    with Worker(read_artifact(bare), "onnxruntime", Settings()) as worker:
        worker.load()
        assert worker.ask("golden") == {"off": None}
        assert worker.ask("inputs", paths=[], count=2)["inputs"] == "noise"
        answer = worker.ask("outputs")
        outputs = np.frombuffer(base64.b64decode(answer["outputs"]), "<f4").reshape(answer["shape"])
        assert len(outputs) == 2
        assert np.allclose(np.sum(outputs, axis=1), 1, atol=1e-3)
        with pytest.raises(MeasureError, match="does not say its task"):
            worker.ask("accuracy", items=[])


def test_another_golden_size_is_named(trained: Trained) -> None:
    class Other(Child):
        def __init__(self) -> None:
            self._artifact = replace(trained.artifacts["onnx-float32"])
            self._session = type("Session", (), {"height": 8, "width": 8})()

    with pytest.raises(Exception, match="takes 8×8, its golden input differs"):
        Other().golden()


def test_a_process_that_dies_is_named_with_what_it_last_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = (
        "import os, signal, sys; print('at the end', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    python_instead(monkeypatch, dying)
    with (
        Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker,
        pytest.raises(MeasureError, match=r"onnx-float32 by onnxruntime died with signal 11: at the end\. The file"),
    ):
        worker.load()


def test_a_process_that_ends_in_silence(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    python_instead(monkeypatch, "import sys; sys.exit(3)")
    with (
        Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker,
        pytest.raises(MeasureError, match="died with exit code 3: it said nothing"),
    ):
        worker.load()


def test_a_process_that_hangs_is_ended(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    python_instead(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.2)
    with (
        Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker,
        pytest.raises(MeasureError, match=r"did not answer within 0 s \(load\); the file may hang the runtime"),
    ):
        worker.load()


@pytest.mark.parametrize("torn", ['{"height": 4', '{"height": 40}'])
def test_an_answer_that_ends_in_the_middle_is_a_death(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    python_instead(monkeypatch, f"import sys; input(); sys.stdout.write({torn!r}); sys.stdout.flush(); sys.exit(3)")
    with (
        Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker,
        pytest.raises(MeasureError, match="died with exit code 3: it said nothing"),
    ):
        worker.load()


@pytest.mark.parametrize("foreign", [b"hello", b"[1]", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_a_line_that_is_no_answer_ends_the_process(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, foreign: bytes
) -> None:
    code = (
        f"import sys, time; input(); sys.stdout.buffer.write({foreign!r} + b'\\n'); sys.stdout.flush(); time.sleep(60)"
    )
    python_instead(monkeypatch, code)
    worker = Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings())
    with pytest.raises(
        MeasureError, match=r"onnx-float32 by onnxruntime answered load with b'.{1,330}'; the"
    ) as caught:
        worker.load()
    assert "\n" not in str(caught.value)
    assert not is_there(worker.pid)
    worker.close()


def test_a_process_that_only_closes_its_end_is_ended(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    python_instead(monkeypatch, "import os, time; os.close(1); time.sleep(60)")
    monkeypatch.setattr(module, "END_SECONDS", 0.2)
    start = time.monotonic()
    with (
        Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker,
        pytest.raises(MeasureError, match="died with signal 9: it said nothing"),
    ):
        worker.load()
    assert time.monotonic() - start < 10


@LINUX
def test_what_the_process_has_started_does_not_hold_up_its_end(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = "import time; time.sleep(4)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); print('{{}}', flush=True)"
    python_instead(monkeypatch, f"input(); {code}; {sleep}")
    monkeypatch.setattr(module, "END_SECONDS", 0.2)
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        worker.load()
        start = time.monotonic()
    assert time.monotonic() - start < 2
    worker._reader.join()  # until the last has let go


def is_there(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_gone_soon(pid: int) -> bool:
    end = time.monotonic() + 5
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_there(pid)


PARENT = """
import sys
from featherweight.artifact import Artifact, read_artifact
from featherweight.runtimes.settings import Settings
from featherweight.worker import Worker
worker = Worker(read_artifact(sys.argv[1]), "onnxruntime", Settings())
worker.load()
worker._process.stdin.write(b'{"do": "time", "seconds": 20, "runs": 1}\\n')
worker._process.stdin.flush()
print(worker.pid, flush=True)
worker.ask("outputs", 20)
"""


@LINUX
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_when_the_parent_goes_so_does_the_process(trained: Trained, how: signal.Signals) -> None:
    path = str(trained.artifacts["onnx-float32"].path)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, path], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert is_there(pid)
    parent.send_signal(how)
    parent.wait()
    assert is_gone_soon(pid)


HANGING = """
import ctypes, sys
from featherweight.worker.child import end_with_the_parent
end_with_the_parent(int(sys.argv[1]))
print(flush=True)
ctypes.PyDLL(None).sleep(20)  # native, and with the interpreter's lock
"""


@LINUX
def test_native_code_that_hangs_does_not_hold_up_that_end() -> None:
    assert ctypes.PyDLL(None).sleep
    end, lifeline = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", HANGING, str(end)], pass_fds=(end,), stdout=subprocess.PIPE)
    os.close(end)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
    os.close(lifeline)
    assert child.wait(5) == -signal.SIGKILL


@LINUX
def test_a_parent_that_went_before_is_noticed() -> None:
    end, lifeline = os.pipe()
    os.close(lifeline)
    command = [sys.executable, "-c", HANGING, str(end)]
    done = subprocess.run(command, pass_fds=(end,), capture_output=True, text=True, check=False, timeout=15)
    os.close(end)
    assert (done.returncode, done.stderr) == (1, "the parent is gone\n")


@LINUX
def test_the_kernel_takes_it_first_when_memory_runs_out(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        worker.load()
        assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "1000\n"

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    die_first()


def test_memory_is_watched_unless_it_is_a_cold_start(trained: Trained) -> None:
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        assert worker.load(memory=False)["answered_ns"] > worker.started_ns
        assert worker.ask("warm_up", seconds=0, runs=1)["memory"] is None


def test_files_in_the_current_folder_are_no_modules(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a file of somebody else')")
    monkeypatch.chdir(tmp_path)
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        assert worker.load()["height"] == SIZE


COLD = """
import json, sys
from featherweight.runtimes.ort import OnnxRuntime
from featherweight.runtimes.settings import Settings
from featherweight.worker.child import Child
OnnxRuntime.prepare = None
child = Child()
child.load(sys.argv[1], "onnxruntime", vars(Settings()), None, memory=False)
assert child.warm_up(0, 1)["memory"] is None
names = ("cv2", "PIL", "simplejpeg", "featherweight.data", "featherweight.device.memory", "featherweight.tasks")
print(json.dumps([name for name in (*names, "numpy.random") if name in sys.modules]))
"""


def test_a_cold_start_imports_nothing_that_only_measuring_needs(trained: Trained) -> None:
    command = [sys.executable, "-c", COLD, str(trained.artifacts["onnx-float32"].path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@LINUX
@pytest.mark.parametrize(
    ("kind", "runtime", "most"), [("onnx", "onnxruntime", 8e6), ("litert", "litert", 4e6), ("onnx", "openvino", 40e6)]
)
def test_a_runtime_s_own_memory_is_not_the_model_s(trained: Trained, kind: str, runtime: str, most: float) -> None:
    """The file has less than 1 MB; without the smallest network before it 14, 6 and 57 MB would count."""
    with Worker(trained.artifacts[f"{kind}-float32"], runtime, Settings()) as worker:
        worker.load()
        memory = worker.ask("warm_up", seconds=0, runs=3)["memory"]
    if memory is None:
        pytest.skip("this kernel cannot count the peak anew")
    assert 0 < memory[2] < most


def test_what_it_refuses_is_one_line_and_it_lives_on(trained: Trained, tmp_path: Path) -> None:
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings()) as worker:
        worker.load()
        with pytest.raises(MeasureError, match=r"gone\.png changed since the scan: no such file"):
            worker.ask("inputs", paths=[str(tmp_path / "gone.png")], count=1)
        with pytest.raises(MeasureError, match=r"gone\.png changed since the scan: no such file"):
            worker.ask("accuracy", items=[(str(tmp_path / "gone.png"), 0)])
        assert len(worker.ask("warm_up", seconds=0, runs=1)["ns"]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process to cores")
def test_it_is_bound_to_the_cores_that_are_named(trained: Trained) -> None:
    core = max(os.sched_getaffinity(0))
    with Worker(trained.artifacts["onnx-float32"], "onnxruntime", Settings(), (core,)) as worker:
        worker.load()
        assert os.sched_getaffinity(worker.pid) == {core}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process to cores")
def test_it_is_bound_before_the_runtime_sees_the_machine(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO keeps the cores that it finds when it is first used, whatever the process may use later."""
    from featherweight.worker import child as child_module

    order: list[str] = []
    real = child_module.runtime_named("onnxruntime")

    class Watched:
        name = "onnxruntime"
        load = real.load

        def prepare(self, artifact: Artifact) -> None:
            order.append("prepare")

    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: order.append(f"bound to {cpus}"))
    monkeypatch.setattr(child_module, "runtime_named", lambda name: Watched())
    path = os.fspath(trained.artifacts["onnx-float32"].path)
    Child().load(path, "onnxruntime", vars(Settings(threads=1)), [0])
    assert order == ["bound to [0]", "prepare"]


def test_every_command_is_a_method() -> None:
    assert set(COMMANDS) == {name for name, value in vars(Child).items() if callable(value) and name[0] != "_"}


def test_runs_go_on_until_both_the_time_and_the_count_are_reached() -> None:
    assert list(_until(0, 17)) == list(range(17))
    found = list(_until(0.02, 1))
    assert found == list(range(len(found)))
    assert len(found) > 17


# ------------------------------------------------------------------------------------ the commands, on made-up sessions


class Counting:
    """A session that answers with how often it was run, and remembers on what."""

    height = width = 1

    def __init__(self, fails_at: int | None = None, answer: Callable[[int], float] = float):
        self.fails_at, self.answer, self.seen = fails_at, answer, list[int]()
        self.ran = SimpleNamespace(provider="cpu")

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.seen.append(int(batch.ravel()[0]))
        time.sleep(0.001)  # as a real one, it lets the other streams run
        if len(self.seen) == self.fails_at:
            raise RuntimeFailure("it cannot run twice at once")
        return np.array([[self.answer(len(self.seen))]], np.float32)


def child_of(*sessions: Counting) -> Child:
    """A child whose first session is loaded, and whose runtime loads the others."""
    child, others = Child(), iter(sessions[1:])
    child._session = sessions[0]
    child._runtime = SimpleNamespace(load=lambda *_: next(others))  # type: ignore[assignment]
    child._artifact, child._settings = SimpleNamespace(classes=None, task=None, name="x"), Settings()  # type: ignore
    child._inputs = [np.full((1, 1, 1, 3), n, np.uint8) for n in (3, 5, 7)]
    child._sizes = [(1, 1)] * 3
    child._paths, child._timed = ("a", "b", "c"), {}
    return child


def test_every_stream_counts_and_runs_on_the_inputs() -> None:
    sessions = [Counting() for _ in range(3)]
    found = child_of(*sessions).throughput(0.5, 3)
    assert found["runs"] == sum(len(one.seen) - 1 for one in sessions)  # less the first, which starts it
    assert found["seconds"] >= 0.5
    for one in sessions:
        assert len(one.seen) > 4
        assert one.seen[:5] == [3, 3, 5, 7, 3]


@pytest.mark.parametrize("fails_at", [1, 4])
@pytest.mark.parametrize("place", [0, 1])
def test_a_stream_that_fails_stops_them_all(fails_at: int, place: int) -> None:
    sessions = [Counting(), Counting()]
    sessions[place] = Counting(fails_at)
    start = time.monotonic()
    with pytest.raises(RuntimeFailure, match="it cannot run twice at once"):
        child_of(*sessions).throughput(30, 2)
    assert time.monotonic() - start < 10


class Scored(Child):
    """Its pictures are empty and its task gives no score."""

    _task = SimpleNamespace(  # type: ignore[assignment]
        read=lambda outputs, sizes: list(outputs),
        decode=lambda outputs, sizes: [],
        score=lambda answers, targets: {"n": len(answers)},
    )

    def _picture(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        return np.zeros((1, 1, 1, 3), np.uint8), (1, 1)


@pytest.mark.parametrize(
    ("answer", "off"),
    [
        (float, 3.0),  # the timed runs answered 1, 2, 3, the same pictures now give 4, 5, 6
        (lambda n: 1.0 if n < 6 else float("nan"), float("nan")),
        (lambda n: 1.0 if n != 2 else float("nan"), float("nan")),
        (lambda n: 1.0, 0.0),
    ],
)
def test_the_outputs_of_the_timed_run_are_those_that_are_held_against(
    answer: Callable[[int], float], off: float
) -> None:
    child = child_of(Counting(answer=answer))
    child.__class__ = Scored
    child.time(0, 3)
    found = child.accuracy([("a", 0), ("b", 0), ("c", 0), ("not timed", 0)])
    assert (found["score"]["n"], found["checked"]) == (4, 3)
    assert found["off"] == pytest.approx(off, nan_ok=True)
    assert json.dumps(found)


def test_without_a_timed_run_nothing_is_held_against() -> None:
    child = child_of(Counting())
    child.__class__ = Scored
    assert child.accuracy([("a", 0)]) == {"score": {"n": 1}, "checked": 0, "off": None}


# ------------------------------------------------------------------------------------------------- energy of what


def gpus(session: Counting) -> Any:
    """A stand-in for NVML: GPU 3 takes 2 mJ a run of the session, the others nothing. No such GPU is here."""
    return SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda index: 2 * len(session.seen) if index == 3 else 0,
    )


@pytest.mark.parametrize(
    ("provider", "visible", "method", "mj"),
    [
        ("cuda", "3,0", "measured:nvml", 2.0),
        ("tensorrt", "3", "measured:nvml", 2.0),
        ("cuda", "GPU-8932f937", "not available: CUDA_VISIBLE_DEVICES names no number", None),
        ("opencl", "3", "not available: no counter here tells what opencl takes", None),
    ],
)
def test_a_gpu_s_energy_is_that_of_the_gpu_that_computes(
    monkeypatch: pytest.MonkeyPatch, provider: str, visible: str, method: str, mj: float | None
) -> None:
    session = Counting()
    session.ran.provider = provider
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setitem(sys.modules, "pynvml", gpus(session))
    found = child_of(session).energy(5, 0.01, None)
    assert (found["method"], found["mj_per_inference"]) == (method, mj)


def test_the_processor_s_energy_is_its_own_counter_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from featherweight.device import meters

    asked: list[Any] = []

    def find(csv: Any = None, gpu: int | None = None) -> meters.Meter:
        asked.append((csv, gpu))
        return meters.NoMeter("a test")

    monkeypatch.setattr(meters, "find_meter", find)
    assert child_of(Counting()).energy(5, 0.01, None)["method"] == "not available: a test"
    assert asked == [(None, None)]


@pytest.mark.parametrize("provider", ["cpu", "cuda", "opencl"])
def test_the_user_s_meter_comes_first_and_its_file_may_come_later(tmp_path: Path, provider: str) -> None:
    session, path = Counting(), tmp_path / "meter.csv"
    session.ran.provider = provider
    later = child_of(session).energy(5, 0.01, str(path))
    assert later["method"] == "not available: the meter's file is still to be handed in"
    assert len(later["windows"]) == 5
    path.write_text("time,watts\n1,2\n2,2\n")
    assert (
        child_of(session).energy(5, 0.01, str(path))["method"].startswith("not available: the meter's file covers 19")
    )
    path.write_text("a photograph")
    with pytest.raises(SettingError, match="wanted a column of times"):
        child_of(session).energy(5, 0.01, str(path))
