"""What runs a model file. One file each; `RUNTIMES` is the table. A runtime says itself what it supports.

Imports artifact, errors.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure, SettingError
from featherweight.runtimes.litert import LiteRT
from featherweight.runtimes.ort import OnnxRuntime


class Session(Protocol):
    """A model file, loaded."""

    height: int
    width: int

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → outputs (1, …), as float32.

        What the file wants beyond that (another type, other axes, quantized codes) is done in here, and timed.
        """
        ...


class Runtime(Protocol):
    """A library that loads and runs model files."""

    name: str

    def supports(self, artifact: Artifact) -> str | None:
        """The reason why it cannot run the artifact; `None` if it can."""
        ...

    def version(self) -> str:
        """The installed version."""
        ...

    def load(self, artifact: Artifact, threads: int) -> Session:
        """Load the file.

        Raises:
            RuntimeFailure: the library refuses it.
        """
        ...


RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (OnnxRuntime(), LiteRT())}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        SettingError: unknown.
    """
    if name not in RUNTIMES:
        raise SettingError(f"unknown runtime {name!r}; known: {', '.join(RUNTIMES)}, all")
    return RUNTIMES[name]


def supporting(artifact: Artifact, runtime: str = "all") -> list[str]:
    """The names of the runtimes that run the artifact here, of all or of the one that is named.

    Raises:
        RuntimeFailure: none does, with the reason of each.
        SettingError: an unknown name.
    """
    names = list(RUNTIMES) if runtime == "all" else [runtime]
    reasons = {name: runtime_named(name).supports(artifact) for name in names}
    found = [name for name, reason in reasons.items() if reason is None]
    if not found:
        raise RuntimeFailure(f"nothing here runs {artifact.name}: {'; '.join(r for r in reasons.values() if r)}")
    return found
