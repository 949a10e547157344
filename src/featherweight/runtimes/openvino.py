"""OpenVINO. In scope: its devices, precision and threads, quantized outputs. Not aware of: what the model is.

It computes in bfloat16 by itself where the processor can, and says so only in the graph that it really runs: that is
where `ran` takes the precision from.
"""

import importlib.util
import sys
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure
from featherweight.progress import quiet
from featherweight.runtimes.pictures import Answer, Entry, entry_of
from featherweight.runtimes.settings import NUMBERS, Options, Ran, Settings, choose, joined
from featherweight.runtimes.smallest import CONVOLUTION

# What a device calls an arithmetic that it can do → the name of the hint that asks for it.
HINTS = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}
CONVOLUTIONS = {"Convolution", "Deconvolution"}
PRODUCTS = {*CONVOLUTIONS, "FullyConnected", "MatMul"}
MOVES = {"Convert", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
# Orders of a picture's axes in memory, a: picture, b: channel, c: row, d: column.
LAYOUTS = {"abcd": "NCHW", "acdb": "NHWC"}


class OpenVINO:
    """Runs `.onnx` and `.tflite` on a stated number of threads, in one stream, for the least latency."""

    name = "openvino"

    def supports(self, artifact: Artifact) -> str | None:
        """The reason why not, or `None`."""
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed; pip install 'featherweight[openvino]'"
        return None

    def version(self) -> str:
        """The installed version."""
        from importlib.metadata import version

        return version("openvino")

    def prepare(self, artifact: Artifact) -> None:
        """Run the smallest network; 36 MB that each file would bring, of its compiler and the processor's plug-in."""
        core = _library().Core()
        with quiet():
            compiled = core.compile_model(core.read_model(CONVOLUTION), "CPU", {"INFERENCE_NUM_THREADS": 1})
            compiled.create_infer_request().infer()

    def options(self, artifact: Artifact) -> Options:
        """The devices that the library finds here, and the precisions of the processor, its default first."""
        core = _library().Core()
        return Options(_precisions(core, "CPU"), ("default",), tuple(_devices(core)))

    def load(self, artifact: Artifact, settings: Settings) -> "OpenVINOSession":
        """Load the file.

        Raises:
            RuntimeFailure: OpenVINO refuses the file, or its input is no picture.
            SettingError: what is asked for is not offered.
        """
        library = _library()
        core = library.Core()
        devices = _devices(core)
        provider = choose("provider", settings.provider, list(devices), self.name)
        choose("optimization", settings.optimization, ("default",), self.name)
        wanted = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if provider == "cpu":
            wanted["INFERENCE_NUM_THREADS"] = settings.threads
        if settings.precision is not None:
            asked = choose("precision", settings.precision, _precisions(core, devices[provider]), self.name)
            wanted["INFERENCE_PRECISION_HINT"] = next(hint for hint in HINTS.values() if NUMBERS[hint] == asked)
        try:
            with quiet():
                model = core.read_model(artifact.model_path)
                entry = _entry(model, artifact.model_path, settings.input_size)
                compiled = core.compile_model(model, devices[provider], wanted)
        except RuntimeError as error:  # all that its core raises
            raise RuntimeFailure(f"openvino cannot load {artifact.model_path}: {_cause(error)}") from error
        return OpenVINOSession(compiled, artifact.model_path, entry, _answer(model), provider)


def _library() -> Any:
    """The library, without `openvino_telemetry`: with that, every import is reported to its maker."""
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it fails now
    try:
        import openvino
    finally:
        if absent:
            del sys.modules["openvino_telemetry"]
    return openvino


def _devices(core: Any) -> dict[str, str]:
    """The devices here by their names in small letters, the processor first: it is the default."""
    found = {name.lower(): str(name) for name in core.available_devices}
    return {"cpu": found.pop("cpu"), **found}  # no GPU or NPU is where this was written


def _precisions(core: Any, device: str) -> tuple[str, ...]:
    """What the device can compute in, its own choice first."""
    can = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    found = [NUMBERS[hint] for capability, hint in HINTS.items() if capability in can]
    default = NUMBERS.get(core.get_property(device, "INFERENCE_PRECISION_HINT").get_type_name())
    return tuple(sorted(found, key=lambda name: name != default))


def _entry(model: Any, path: Path, input_size: tuple[int, int] | None) -> Entry:
    """The entry of the only input; where the file leaves its size open, it is set."""
    if len(model.inputs) != 1:
        found = ", ".join(f"{value.any_name} {value.partial_shape}" for value in model.inputs)
        raise RuntimeFailure(f"{path} takes {found}; wanted one picture")
    shape = model.inputs[0].partial_shape
    if shape.rank.is_dynamic:
        raise RuntimeFailure(f"{path} does not say how many axes its input has; wanted one picture")
    sides = [side.get_length() if side.is_static else None for side in shape]
    kind = model.inputs[0].element_type.to_dtype().name
    entry = entry_of(path, sides, kind, input_size)
    if None in sides:
        model.reshape(list(entry.buffer.shape))
    return entry


def _answer(model: Any) -> Answer:
    """What the output's numbers stand for: the last operator of a quantized file maps values in a range to codes.
    Behind it these may only be moved, as a map's are into the order of its axes.
    """
    result = model.get_results()[0]
    dtype = result.get_output_element_type(0).to_dtype()
    mapping = result.input_value(0).get_node()
    while mapping.get_type_name() in MOVES:
        mapping = mapping.input_value(0).get_node()
    if mapping.get_type_name() != "FakeQuantize":
        return Answer(dtype)
    low, high, low_code, high_code = (
        float(mapping.input_value(place).get_node().data.ravel()[0]) for place in range(1, 5)
    )
    scale = (high - low) / (high_code - low_code)
    return Answer(dtype, scale, low_code - low / scale)


def _says(node: Any, key: str) -> str:
    """What a node of the executed graph says of itself."""
    return str(node[key].astype(str)) if key in node else ""


def _cause(error: Exception) -> str:
    """The last line before a summary: those above tell where in its source it was."""
    lines = [line.strip() for line in str(error).split("\nSummary:")[0].splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


class OpenVINOSession:
    """A compiled file."""

    def __init__(self, compiled: Any, path: Path, entry: Entry, answer: Answer, provider: str):
        self.height, self.width = entry.height, entry.width
        self._compiled, self._path, self._entry, self._answer = compiled, path, entry, answer
        self._provider = provider
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(_library().Tensor(entry.buffer, shared_memory=True))

    @cached_property
    def ran(self) -> Ran:
        """What it really does, by the graph that is executed."""
        nodes = [node.get_rt_info() for node in self._compiled.get_runtime_model().get_ops()]
        products = [node for node in nodes if _says(node, "layerType") in PRODUCTS]
        details = {"input": str(self._entry), "devices": list(self._compiled.get_property("EXECUTION_DEVICES"))}
        if self._provider == "cpu":
            details["threads"] = self._compiled.get_property("INFERENCE_NUM_THREADS")
        layouts = Counter(_says(node, "outputLayouts") for node in products if _says(node, "layerType") in CONVOLUTIONS)
        order = layouts.most_common(1)[0][0] if layouts else ""
        return Ran(
            joined(_says(node, "runtimePrecision") for node in products),
            self._provider,
            "default",
            "NCHWc" if "B" in order else LAYOUTS.get(order),
            details,
        )

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), float32."""
        self._entry.fill(batch)
        try:
            self._request.infer(share_outputs=True)
        except RuntimeError as error:
            raise RuntimeFailure(f"openvino cannot run {self._path}: {_cause(error)}") from error
        output = self._request.get_output_tensor(0).data.copy()  # the next run writes there again
        return self._answer.real(output)
