"""OpenCV's DNN module. In scope: its engines and targets, axes of the input. Not aware of: what the model is.

It is checked as no other runtime is, by one run on loading: its older engine (5.0 has it beside the new one) answers
wrongly, and says nothing, where a padded 3×3 depthwise convolution meets a map that is one pixel high or wide.
"""

import importlib.util
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure
from featherweight.progress import quiet
from featherweight.runtimes.pictures import Entry, Side, entry_of
from featherweight.runtimes.settings import Options, Ran, Settings, choose
from featherweight.runtimes.smallest import CONVOLUTION

# Up to OpenCV 4 there is one engine, since 5 there are two.
ENGINES = {"new": "ENGINE_NEW", "classic": "ENGINE_CLASSIC"}
# Provider → back-end and target; only the older engine has any but the processor's.
PROVIDERS = {
    "cpu": ("DNN_BACKEND_OPENCV", "DNN_TARGET_CPU"),
    "opencl": ("DNN_BACKEND_OPENCV", "DNN_TARGET_OPENCL"),
    "cuda": ("DNN_BACKEND_CUDA", "DNN_TARGET_CUDA"),
}
# In the description of a network, a grouped 3×3 convolution that gives such a map. Whether it is padded is not in all.
NARROW = re.compile(
    r"kernel(?:_size)? \(HxW\): 3 x 3\\l.*group: .*output: \[?\d+ x \d+ x (?:1 x \d+|\d+ x 1)(?:\]|\\l)"
)
# How far answers may be from the golden ones, of the largest of these: rounding for float, some codes for int8.
TOLERANCE = {"float32": 1e-4, "int8": 0.1}


class OpenCV:
    """Runs `.onnx` and float `.tflite`. Its number of threads is one for the whole process: the last load sets it."""

    name = "opencv"

    def supports(self, artifact: Artifact) -> str | None:
        """The reason why not, or `None`."""
        if artifact.format == "litert" and artifact.precision == "int8":
            return "opencv reads no int8 .tflite files; the int8 ONNX file of the same network runs there"
        if importlib.util.find_spec("cv2") is None:
            return "opencv is not installed; pip install opencv-python-headless"
        return None

    def version(self) -> str:
        """The installed version."""
        import cv2

        return str(cv2.__version__)

    def prepare(self, artifact: Artifact) -> None:
        """Run the smallest network, and import what reads the input size of a bare file."""
        import cv2

        if artifact.foreign and artifact.format == "onnx":
            import onnx  # noqa: F401
        with quiet():
            network = cv2.dnn.readNetFromONNX(np.frombuffer(CONVOLUTION, np.uint8))
            network.setInput(np.zeros((1, 1, 1, 1), np.float32))
            network.forward()

    def options(self, artifact: Artifact) -> Options:
        """The engines that read such a file, and the targets of the installed build."""
        return Options(("float32",), _engines(artifact), _providers())

    def load(self, artifact: Artifact, settings: Settings) -> "OpenCVSession":
        """Load the file.

        Raises:
            RuntimeFailure: OpenCV refuses the file, its input is no picture, or it answers otherwise than it should.
            SettingError: what is asked for is not offered.
        """
        import cv2

        offered = self.options(artifact)
        provider = choose("provider", settings.provider, offered.providers, self.name)
        engines = offered.optimizations if provider == "cpu" else ("classic",)
        engine = choose("optimization", settings.optimization, engines, self.name)
        choose("precision", settings.precision, offered.precisions, self.name)
        cv2.setNumThreads(settings.threads)
        try:
            with quiet():  # it prints every failure, too
                network = _read(artifact, engine)
                network.setPreferableBackend(vars(cv2.dnn)[PROVIDERS[provider][0]])
                network.setPreferableTarget(vars(cv2.dnn)[PROVIDERS[provider][1]])
        except cv2.error as error:
            raise RuntimeFailure(f"opencv cannot load {artifact.model_path}: {_cause(error)}") from error
        entry = _entry(artifact, settings.input_size)
        session = OpenCVSession(network, artifact.model_path, entry, provider, engine)
        with quiet():
            _check(session, network, artifact)
        return session


def _engines(artifact: Artifact) -> tuple[str, ...]:
    """The newer engine runs no quantized network, and a `.tflite` file in places only once."""
    import cv2

    if "ENGINE_NEW" not in vars(cv2.dnn) or artifact.format == "litert" or artifact.precision == "int8":
        return ("classic",)
    return tuple(ENGINES)


def _providers() -> tuple[str, ...]:
    """The providers whose target the build has; no other than the processor's is where this was written."""
    import cv2

    names = vars(cv2.dnn)
    return tuple(
        provider
        for provider, (backend, target) in PROVIDERS.items()
        if names[target] in cv2.dnn.getAvailableTargets(names[backend])
    )


def _read(artifact: Artifact, engine: str) -> Any:
    import cv2

    read = cv2.dnn.readNetFromONNX if artifact.format == "onnx" else cv2.dnn.readNetFromTFLite
    path, names = str(artifact.model_path), vars(cv2.dnn)
    return read(path, names[ENGINES[engine]]) if "ENGINE_NEW" in names else read(path)


def _entry(artifact: Artifact, input_size: tuple[int, int] | None) -> Entry:
    """The entry of the only input. OpenCV does not tell it: a bare file is asked by other means, as far as can be."""
    path = artifact.model_path
    if artifact.height is not None and artifact.width is not None:
        own: list[Side] = [1, artifact.height, artifact.width, 3]
        kind = "float32"
    elif artifact.format == "onnx":
        own, kind = _onnx_input(path)
    elif input_size is not None:
        own, kind = [1, *input_size, 3], "float32"
    else:
        raise RuntimeFailure(f"opencv does not tell the input size of {path}; give it with --input")
    entry = entry_of(path, own, kind, input_size)
    if artifact.format == "litert":  # it turns the axes of all that it reads
        return Entry(entry.height, entry.width, True, entry.buffer.dtype)
    return entry


def _onnx_input(path: Path) -> tuple[list[Side], str]:
    """(shape, type) of the only input of a bare ONNX file."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph  # OpenCV has read it before
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise RuntimeFailure(f"{path} takes {', '.join(value.name for value in inputs)}; wanted one picture")
    tensor = inputs[0].type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    sides: list[Side] = [side.dim_value or side.dim_param or None for side in tensor.shape.dim]
    return sides, {"float": "float32"}.get(kind, kind)


class OpenCVSession:
    """A loaded file."""

    def __init__(self, network: Any, path: Path, entry: Entry, provider: str, engine: str):
        self.height, self.width = entry.height, entry.width
        self._network, self._path, self._entry = network, path, entry
        self._provider, self._engine = provider, engine
        self._output = network.getUnconnectedOutLayersNames()[0]

    @cached_property
    def ran(self) -> Ran:
        """What it really does, by the kinds of its layers: integers are computed with in its Int8 layers only."""
        import cv2

        kinds = set(self._network.getLayerTypes())
        integers = any(kind.endswith("Int8") for kind in kinds)
        return Ran(
            "int8" if integers else "float32",
            self._provider,
            self._engine,
            "NCHWc" if "TransformLayout" in kinds else "NCHW",
            {"input": str(self._entry), "threads_of_the_process": cv2.getNumThreads()},
        )

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), float32."""
        import cv2

        self._entry.fill(batch)
        try:
            self._network.setInput(self._entry.buffer)
            return np.asarray(self._network.forward(self._output), np.float32)
        except cv2.error as error:
            raise RuntimeFailure(f"opencv's {self._engine} engine cannot run {self._path}: {_cause(error)}") from error


def _check(session: OpenCVSession, network: Any, artifact: Artifact) -> None:
    """Run it once, on a golden input where there is one, and refuse what may be wrong."""
    empty = np.zeros((1, session.height, session.width, 3), np.uint8)
    inputs, outputs = (empty, None) if artifact.foreign else artifact.golden()
    answer = session.run(inputs[:1])
    if session.ran.optimization == "classic" and NARROW.search(network.dump()):
        raise RuntimeFailure(
            f"opencv's classic engine may compute depthwise convolutions of {artifact.name} wrongly: their maps are "
            f"one pixel high or wide at {session.height}×{session.width}; use another runtime or engine"
        )
    if outputs is None:
        return
    off = float(np.max(np.abs(answer - outputs[:1])) / max(1.0, np.max(np.abs(outputs[:1]))))
    if not off <= TOLERANCE.get(artifact.precision or "", 0.1):
        raise RuntimeFailure(
            f"opencv answers otherwise than {artifact.name} did when it was made, by up to {off:.2g}; "
            "use another runtime or engine"
        )


def _cause(error: Exception) -> str:
    """What OpenCV says after the place in its source: OpenCV(5.0.0) …/file.cpp:12: error: (-2:Kind) cause."""
    return " ".join(str(error).split()).split("error: ")[-1][:300] or type(error).__name__
