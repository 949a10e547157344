"""LiteRT (TensorFlow Lite). In scope: threads, kernels, quantized inputs and outputs. Not aware of: the model."""

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure
from featherweight.progress import quiet
from featherweight.runtimes.pictures import Answer, Entry, entry_of
from featherweight.runtimes.settings import Options, Ran, Settings, choose, joined
from featherweight.runtimes.smallest import CONVOLUTION_LITERT

# Which kernels compute: XNNPACK's, which the library takes by itself, or its own.
RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}
PRODUCTS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"}


class LiteRT:
    """Runs `.tflite` on a stated number of threads."""

    name = "litert"

    def supports(self, artifact: Artifact) -> str | None:
        """The reason why not, or `None`."""
        if artifact.format != "litert":
            return f"litert runs .tflite files, not {artifact.format}"
        if importlib.util.find_spec("ai_edge_litert") is None:
            return "litert is not installed; pip install 'featherweight[litert]'"
        return None

    def version(self) -> str:
        """The installed version."""
        from importlib.metadata import version

        return version("ai-edge-litert")

    def prepare(self, artifact: Artifact) -> None:
        """Run the smallest network; 3 MB that each file would bring."""
        from ai_edge_litert.interpreter import Interpreter

        with quiet():  # it announces its delegate
            interpreter = Interpreter(model_content=CONVOLUTION_LITERT, num_threads=1)
            interpreter.allocate_tensors()
            interpreter.invoke()

    def options(self, artifact: Artifact) -> Options:
        """Both kinds of kernels; the processor is all that the Python package has."""
        return Options(("float32",), tuple(RESOLVERS), ("cpu",))

    def load(self, artifact: Artifact, settings: Settings) -> "LiteRTSession":
        """Load the file.

        Raises:
            RuntimeFailure: LiteRT refuses the file, or its input is no picture.
            SettingError: what is asked for is not offered.
        """
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        path, offered = artifact.model_path, self.options(artifact)
        kernels = choose("optimization", settings.optimization, offered.optimizations, self.name)
        choose("provider", settings.provider, offered.providers, self.name)
        choose("precision", settings.precision, offered.precisions, self.name)
        try:
            with quiet():  # it announces its delegate on every load
                interpreter = Interpreter(
                    model_path=str(path),
                    num_threads=settings.threads,
                    experimental_op_resolver_type=OpResolverType[RESOLVERS[kernels]],
                )
                entry = _entry(interpreter, path, settings.input_size)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise RuntimeFailure(f"litert cannot load {path}: {_one_line(error)}") from error
        return LiteRTSession(interpreter, path, entry)


def _entry(interpreter: Any, path: Path, input_size: tuple[int, int] | None) -> Entry:
    """The entry of the only input; where the file leaves its size open, it is set."""
    inputs = interpreter.get_input_details()
    if len(inputs) != 1:
        found = ", ".join(f"{value['name']} {list(value['shape'])}" for value in inputs)
        raise RuntimeFailure(f"{path} takes {found}; wanted one picture (1, height, width, 3)")
    shape = [None if side < 0 else int(side) for side in inputs[0]["shape_signature"]]
    entry = entry_of(path, shape, np.dtype(inputs[0]["dtype"]).name, input_size)
    if None in shape:
        interpreter.resize_tensor_input(inputs[0]["index"], entry.buffer.shape)
    return entry


class LiteRTSession:
    """A loaded `.tflite` file."""

    def __init__(self, interpreter: Any, path: Path, entry: Entry):
        self.height, self.width = entry.height, entry.width
        self._interpreter, self._path, self._entry = interpreter, path, entry
        self._input = interpreter.get_input_details()[0]["index"]
        output = interpreter.get_output_details()[0]
        self._output = output["index"]
        self._answer = Answer(output["dtype"], *output["quantization"])

    @cached_property
    def ran(self) -> Ran:
        """What it really does, by the types of its tensors and by what was handed to XNNPACK."""
        operators = self._interpreter._get_ops_details()  # the only place where the library names them
        products = [one for one in operators if one["op_name"] in PRODUCTS]
        parts = sum(one["op_name"] == "DELEGATE" for one in operators)
        # A float picture times an int8 kernel is quantized on the way: both kinds of arithmetic.
        factors = [np.dtype(kind).name for one in products for kind in one["operand_types"][:2]]
        return Ran(
            joined(factors),
            "cpu",
            "xnnpack" if parts else "builtin",
            "NHWC",
            {"input": str(self._entry), "operators": len(operators) - parts, "parts_by_xnnpack": parts},
        )

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), float32."""
        picture = self._entry.take(batch)
        try:
            self._interpreter.set_tensor(self._input, picture)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise RuntimeFailure(f"litert cannot run {self._path}: {_one_line(error)}") from error
        return self._answer.real(self._interpreter.get_tensor(self._output))  # a copy of its own


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
