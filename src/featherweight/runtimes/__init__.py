"""What runs a model file. One file each; `RUNTIMES` is the table. A runtime says itself what it supports and offers.

Imports artifact, errors.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure, SettingError
from featherweight.runtimes.litert import LiteRT
from featherweight.runtimes.opencv import OpenCV
from featherweight.runtimes.openvino import OpenVINO
from featherweight.runtimes.ort import OnnxRuntime
from featherweight.runtimes.settings import Options, Ran, Settings


class Session(Protocol):
    """A model file, loaded. One thread at a time may run it."""

    height: int
    width: int

    @property
    def ran(self) -> Ran:
        """What the session really does; where the library tells only of a run, it is run on an empty picture."""
        ...

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), as float32. It stays as it is when the next one is run.

        What the file wants beyond that (another type, other axes, quantized codes) is done in here, and timed.
        """
        ...


class Runtime(Protocol):
    """A library that loads and runs model files."""

    name: str

    def supports(self, artifact: Artifact) -> str | None:
        """The reason why it cannot run the artifact; `None` if it can, or if only trying can tell."""
        ...

    def version(self) -> str:
        """The installed version."""
        ...

    def prepare(self, artifact: Artifact) -> None:
        """Bring the library to where any file of this kind would have it, to tell its memory from a model's.

        The file is not opened. `load` does not need it.
        """
        ...

    def options(self, artifact: Artifact) -> Options:
        """What can be asked for; the file is not loaded."""
        ...

    def load(self, artifact: Artifact, settings: Settings) -> Session:
        """Load the file.

        Raises:
            RuntimeFailure: the library refuses it, or its input is no picture.
            SettingError: something is asked for that is not offered.
        """
        ...


RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (OnnxRuntime(), LiteRT(), OpenVINO(), OpenCV())}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        SettingError: unknown.
    """
    if name not in RUNTIMES:
        raise SettingError(f"unknown runtime {name!r}; known: {', '.join(RUNTIMES)}, all")
    return RUNTIMES[name]


def supporting(artifact: Artifact, runtime: str = "all") -> list[str]:
    """The names of the runtimes that run the artifact here, of all or of those that are named, separated by commas.

    Raises:
        RuntimeFailure: none does, with the reason of each.
        SettingError: an unknown name.
    """
    names = list(RUNTIMES) if runtime == "all" else [name.strip() for name in runtime.split(",")]
    reasons = {name: runtime_named(name).supports(artifact) for name in names}
    found = [name for name, reason in reasons.items() if reason is None]
    if not found:
        raise RuntimeFailure(f"nothing here runs {artifact.name}: {'; '.join(r for r in reasons.values() if r)}")
    return found
