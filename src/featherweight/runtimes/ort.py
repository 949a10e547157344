"""ONNX Runtime. In scope: session options, providers, axes and types of the input. Not aware of: what the model is."""

import importlib.util
import json
import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure
from featherweight.runtimes.pictures import Entry, entry_of
from featherweight.runtimes.settings import Options, Ran, Settings, choose, joined
from featherweight.runtimes.smallest import CONVOLUTION

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
# How far the graph is rewritten. On x86 `all` holds pictures in blocks of channels (NCHWc), `extended` does not.
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
RACED = ("all", "extended")  # the others do less of the same
REMOTE = {"azure"}  # a service that gets the pictures, no device
SUFFIX = "ExecutionProvider"
REORDERS = {
    "ReorderInput",
    "ReorderOutput",
}  # into blocks of channels and back; a first convolution needs only the last
PRODUCTS = ("Conv", "MatMul", "Gemm")  # within the names of the operators that a network spends its time in


class OnnxRuntime:
    """Runs `.onnx` on a stated number of threads, one operator at a time."""

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
        from importlib.metadata import version  # slow to import, and no process that runs a file needs it

        return version("onnxruntime")

    def prepare(self, artifact: Artifact) -> None:
        """Run the smallest network; 10 MB that each file would bring."""
        options = _options(1, "all")
        session = _library().InferenceSession(CONVOLUTION, options, providers=["CPU" + SUFFIX], enable_fallback=0)
        session.run(None, {"x": np.zeros((1, 1, 1, 1), np.float32)})

    def options(self, artifact: Artifact) -> Options:
        """The levels worth a try, and the providers of the installed build."""
        return Options(("float32",), RACED, tuple(_providers()))

    def load(self, artifact: Artifact, settings: Settings) -> "OrtSession":
        """Load the file.

        Raises:
            RuntimeFailure: ONNX Runtime refuses the file, its input is no picture, or the provider does not start.
            SettingError: what is asked for is not offered.
        """
        providers = _providers()
        provider = choose("provider", settings.provider, list(providers), self.name)
        level = choose("optimization", settings.optimization, list(LEVELS), self.name)
        choose("precision", settings.precision, ("float32",), self.name)
        return OrtSession(artifact.model_path, settings, providers[provider], level)


class OrtSession:
    """A loaded ONNX file. The library's profiler is on for the first run, which tells what is executed."""

    def __init__(self, path: Path, settings: Settings, provider: str, level: str):
        folder = tempfile.mkdtemp(prefix="featherweight-")
        self._discard = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        options = _options(settings.threads, level)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "first")
        session = _open(path, options, provider, settings.threads)
        entry = _entry(session, path, settings.input_size)
        if _fix_named_sizes(options, session, entry):
            session = _open(path, options, provider, settings.threads)
        self.height, self.width = entry.height, entry.width
        self._session, self._path, self._entry = session, path, entry
        self._input, self._outputs = session.get_inputs()[0].name, [session.get_outputs()[0].name]
        self._profile: bytes | None = None
        self._provider, self._level = _short(provider), level

    @cached_property
    def ran(self) -> Ran:
        """What it really does, as its profiler told of the first run."""
        if self._profile is None:
            self.run(np.zeros((1, self.height, self.width, 3), np.uint8))
        nodes = [
            event["args"] for event in json.loads(self._profile or b"[]")
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ]  # fmt: skip
        products = [node for node in nodes if any(word in node["op_name"] for word in PRODUCTS)]
        options = self._session.get_session_options()
        return Ran(
            joined(_arithmetic(node) for node in products),
            self._provider,
            self._level,
            "NCHWc" if any(node["op_name"] in REORDERS for node in nodes) else _layout(products),
            {
                "input": str(self._entry),
                "threads": options.intra_op_num_threads,
                "arena": options.enable_cpu_mem_arena,
                "memory_pattern": options.enable_mem_pattern,
                "spinning": True,  # the library's default: threads wait in a loop for the next operator
                "operators_by_provider": dict(Counter(_short(node["provider"]) for node in nodes)),
            },
        )

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), float32."""
        feeds = {self._input: self._entry.take(batch)}
        try:
            output = self._session.run(self._outputs, feeds)[0]
        except Exception as error:  # as when loading
            raise RuntimeFailure(f"onnxruntime cannot run {self._path}: {_first_line(error)}") from error
        if self._profile is None:
            self._profile = Path(self._session.end_profiling()).read_bytes()
            self._discard()
        return output if output.dtype == np.float32 else output.astype(np.float32)  # type: ignore[no-any-return]


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
    options = _options(threads, "all")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = _open(path, options, "CPU" + SUFFIX, threads)
    noise = np.random.default_rng(0)
    feeds = {}
    for value in session.get_inputs():
        if value.type not in TYPES:
            raise RuntimeFailure(f"{path} takes {value.name} {value.type}; wanted float or 8-bit numbers")
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


def _library() -> Any:
    """The library, without its telemetry: a device id and a database in the user's home, and a thread beside ours."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the first import
    import onnxruntime

    return onnxruntime


def _short(provider: str) -> str:
    return provider.removesuffix(SUFFIX).lower()


def _providers() -> dict[str, str]:
    """The build's providers by short name, the processor first: it is the default."""
    found = {_short(name): str(name) for name in _library().get_available_providers()}
    return {"cpu": found.pop("cpu"), **{name: full for name, full in found.items() if name not in REMOTE}}


def _options(threads: int, level: str) -> Any:
    library = _library()
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.__members__[LEVELS[level]]
    options.log_severity_level = 4  # what matters is raised; the rest would go to the user's terminal
    return options


def _open(path: Path, options: Any, provider: str, threads: int) -> Any:
    """A session. What the provider cannot do the processor does; that it does something at all is made sure of."""
    cpu = "CPU" + SUFFIX
    asked: list[Any] = [cpu]
    if provider != cpu:  # no such provider runs where this was written
        asked = [(provider, {"intra_op_num_threads": str(threads)} if _short(provider) == "xnnpack" else {}), cpu]
    try:
        session = _library().InferenceSession(str(path), options, providers=asked, enable_fallback=0)
    except Exception as error:  # onnxruntime raises a dozen classes of its own without a common one
        raise RuntimeFailure(f"onnxruntime cannot load {path}: {_first_line(error)}") from error
    if provider not in session.get_providers():
        raise RuntimeFailure(
            f"onnxruntime could not start {_short(provider)} for {path} and would run it on the processor; "
            "install what the provider needs, or name another"
        )
    return session


def _entry(session: Any, path: Path, input_size: tuple[int, int] | None) -> Entry:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in TYPES:
        found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in inputs)
        raise RuntimeFailure(f"{path} takes {found}; wanted one picture, 8-bit or float")
    return entry_of(path, inputs[0].shape, TYPES[inputs[0].type], input_size)


def _fix_named_sizes(options: Any, session: Any, entry: Entry) -> bool:
    """Tell the library the sizes that the file has names for, so that it can plan with them; whether there are any.

    Open sizes without a name are as fed.
    """
    sizes = zip(session.get_inputs()[0].shape, entry.buffer.shape, strict=True)
    named = {own: size for own, size in sizes if isinstance(own, str)}
    for name, size in named.items():
        options.add_free_dimension_override_by_name(name, size)
    return bool(named)


def _arithmetic(node: dict[str, Any]) -> str:
    """The type of a product's first factor; the one that quantizes it on the way computes with integers."""
    kind = next(iter(node["input_type_shape"][0])) if node["input_type_shape"] else "unknown"
    return "int8" if node["op_name"] == "DynamicQuantizeMatMul" else str(kind)


def _layout(products: Sequence[dict[str, Any]]) -> str | None:
    """Where the convolutions hold their channels: there are as many as kernels, biases or scales."""
    found: Counter[str] = Counter()
    for node in products:
        shapes = [size for value in node["input_type_shape"] for size in value.values()]
        kernels = {shape[0] for shape in shapes[1:] if len(shape) in (1, 4)}.difference({1})
        output: list[int] = next(iter(node["output_type_shape"][0].values()), [])
        if len(output) == 4 and (output[1] in kernels) != (output[3] in kernels):
            found["NCHW" if output[1] in kernels else "NHWC"] += 1
    return found.most_common(1)[0][0] if found else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
