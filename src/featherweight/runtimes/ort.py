"""ONNX Runtime on the CPU. In scope: session options, axes and types of the input. Not aware of: what the model is."""

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure

TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class OnnxRuntime:
    """Runs `.onnx` with all graph optimizations, on a stated number of threads, one operator at a time."""

    name = "onnxruntime"

    def supports(self, artifact: Artifact) -> str | None:
        """The reason why not, or `None`."""
        if artifact.format != "onnx":
            return f"onnxruntime runs ONNX files, not {artifact.format}"
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed; pip install onnxruntime"
        return None

    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version("onnxruntime")

    def load(self, artifact: Artifact, threads: int) -> "OrtSession":
        """Load the file.

        Raises:
            RuntimeFailure: ONNX Runtime refuses the file, or its input is no picture.
        """
        return OrtSession(_open(artifact.model_path, _options(threads)), artifact)


def profile(path: Path, threads: int, runs: int, folder: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """Run a file on noise with the library's own profiler; returns the profile, JSON in Chrome's trace format.

    Args:
        path: the `.onnx` file.
        threads: of an operator.
        runs: how often, after the same number of runs to warm up, which the profile has too.
        folder: where the profile is written.
        shapes: of the inputs by name, pictures as (n, h, w, c): sizes that the file leaves open are taken from there.

    Raises:
        RuntimeFailure: ONNX Runtime refuses the file, or its inputs.
    """
    options = _options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = _open(path, options)
    noise = np.random.default_rng(0)
    feeds = {}
    for value in session.get_inputs():
        if value.type not in TYPES:
            raise RuntimeFailure(f"{path} takes {value.name} {value.type}; wanted float32 or uint8")
        shape = _filled(value.shape, shapes.get(value.name, ()))
        feeds[value.name] = noise.uniform(0, 255, shape).astype(TYPES[value.type])
    try:
        for _ in range(2 * runs):
            session.run(None, feeds)
    except Exception as error:  # as when loading
        raise RuntimeFailure(f"onnxruntime cannot run {path}: {_first_line(error)}") from error
    return Path(session.end_profiling())


def _filled(shape: Sequence[int | str | None], given: Sequence[int]) -> list[int]:
    """A file's shape with its open sizes as given: in the file's order, or, as (n, c, h, w), out of (n, h, w, c)."""
    orders = [list(given), [*given[:1], *given[-1:], *given[1:-1]]]
    for order in orders:
        if len(order) == len(shape) and all(
            own == size or not isinstance(own, int) for own, size in zip(shape, order, strict=True)
        ):
            return order
    return [size if isinstance(size, int) else 1 for size in shape]


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # what matters is raised; the rest would go to the user's terminal
    return options


def _open(path: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes of its own without a common one
        raise RuntimeFailure(f"onnxruntime cannot load {path}: {_first_line(error)}") from error


class OrtSession:
    """A loaded ONNX file."""

    def __init__(self, session: Any, artifact: Artifact):
        inputs = session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else None
        if shape is None or len(shape) != 4 or inputs[0].type not in TYPES:
            wanted = "one float32 or uint8 input of four axes"
            found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise RuntimeFailure(f"{artifact.model_path} takes {found}; wanted {wanted}")
        self._channels_first = shape[1] == 3 and shape[3] != 3
        sides = shape[2:4] if self._channels_first else shape[1:3]
        if not all(isinstance(side, int) for side in sides):
            raise RuntimeFailure(f"{artifact.model_path} has no fixed input size: {shape}; export it with one")
        self.height, self.width = sides
        self._dtype = TYPES[inputs[0].type]
        self._session, self._input = session, inputs[0].name

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), float32."""
        values = batch.transpose(0, 3, 1, 2) if self._channels_first else batch
        output = self._session.run(None, {self._input: np.ascontiguousarray(values, self._dtype)})[0]
        return np.asarray(output, np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
