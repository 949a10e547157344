"""A fresh process that loads one file by one runtime and does what it is asked: the parent's side.

Whatever the file does to its runtime (a crash, a hang, memory without end) costs that process only. The parent sends
one JSON line a command and waits for one line back, for as long as the command may take and no longer.

In scope: the process, its end, its time limits. Not aware of: what the commands do (`child`).
Imports artifact, errors and runtimes.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any

from featherweight.artifact import Artifact
from featherweight.errors import MeasureError, RuntimeFailure
from featherweight.runtimes.settings import Settings

# How long a command may take beyond what it was asked to take: to import, to load, to run once.
SILENCE_SECONDS = 90.0
# How long a process that has closed its end, or was killed, may take to be gone.
END_SECONDS = 2.0


class Worker:
    """One file, one runtime, one setting, in a process of its own. To be used in a `with`.

    Args:
        artifact: what to load.
        runtime: by which runtime.
        settings: how.
        cpus: the cores that the process may use; by default those of this process.

    Raises (from every method):
        RuntimeFailure: the runtime refuses the file.
        MeasureError: the process died or hung, or a picture cannot be read; one line with the cause.
    """

    def __init__(self, artifact: Artifact, runtime: str, settings: Settings, cpus: Sequence[int] | None = None):
        self.what = f"{artifact.path} by {runtime}"
        self._job = {
            "artifact": os.fspath(artifact.path),
            "runtime": runtime,
            "settings": asdict(settings),
            "cpus": None if cpus is None else list(cpus),
        }
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        # The child holds the other end, to which nothing is ever written: it breaks when this process is gone.
        end: int | None = None
        self._lifeline: int | None = None
        if sys.platform == "linux":
            end, self._lifeline = os.pipe()
        self.started_ns = time.perf_counter_ns()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "featherweight.worker.child", *([] if end is None else [str(end)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=() if end is None else (end,),
        )
        if end is not None:
            os.close(end)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def load(self, memory: bool = True) -> dict[str, Any]:
        """Load the file; returns what `child.Child.load` says. Without `memory` nothing but what a cold start needs."""
        return self.ask("load", **self._job, memory=memory)

    def ask(self, command: str, expected_s: float = 0.0, /, **values: Any) -> dict[str, Any]:
        """Let the process do a command of `child.Child`; `expected_s` is how long it takes when all goes well."""
        limit = expected_s + SILENCE_SECONDS
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": command, **values}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise MeasureError(
                f"{self.what} did not answer within {limit:.0f} s ({command}); the file may hang the runtime"
            ) from None
        except OSError:  # it has closed its end
            line = b""
        if not line.endswith(b"\n"):  # nothing, or it died in the middle of an answer
            raise MeasureError(self._why_dead())
        answer = self._understood(line, command)
        if "error" in answer:
            raise RuntimeFailure(answer["error"]) if answer["refused"] else MeasureError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()  # it holds nothing that could be lost
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what it did not read any more
            self._process.stdin.close()
        self._reader.join(END_SECONDS)  # what the process itself has started may hold the pipe open
        self._errors.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _read(self) -> None:
        """Hand on each line; an empty one at the end."""
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._lines.put(line)
        self._lines.put(b"")

    def _understood(self, line: bytes, command: str) -> dict[str, Any]:
        """The answer in a line; a process that writes anything else there is ended."""
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        self.close()
        raise MeasureError(
            f"the process that ran {self.what} answered {command} with {line[:80]!r}; the file may damage its memory, "
            "export it again"
        )

    def _why_dead(self) -> str:
        """How it ended; what has closed its end without ending is killed."""
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        last = said[-1][:300] if said else "it said nothing"
        if code < 0:
            how = f"signal {-code}: {last}. The file may be damaged; export it again"
        else:
            how = f"exit code {code}: {last}"
        return f"the process that ran {self.what} died with {how}"
