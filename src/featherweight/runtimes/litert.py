"""LiteRT (TensorFlow Lite) with XNNPACK. In scope: threads, quantized inputs and outputs. Not aware of: the model."""

import importlib.metadata
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import RuntimeFailure
from featherweight.progress import quiet


class LiteRT:
    """Runs `.tflite` on a stated number of threads, with the XNNPACK delegate that the library applies by itself."""

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
        return importlib.metadata.version("ai-edge-litert")

    def load(self, artifact: Artifact, threads: int) -> "LiteRTSession":
        """Load the file.

        Raises:
            RuntimeFailure: LiteRT refuses the file, or its input is no picture.
        """
        from ai_edge_litert.interpreter import Interpreter

        try:
            with quiet():  # it announces its delegate on every load
                interpreter = Interpreter(model_path=str(artifact.model_path), num_threads=threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise RuntimeFailure(f"litert cannot load {artifact.model_path}: {reason}") from error
        return LiteRTSession(interpreter, artifact)


class LiteRTSession:
    """A loaded `.tflite` file."""

    def __init__(self, interpreter: Any, artifact: Artifact):
        inputs = interpreter.get_input_details()
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["shape"][3] != 3:
            found = ", ".join(f"{i['name']} {list(i['shape'])}" for i in inputs)
            raise RuntimeFailure(f"{artifact.model_path} takes {found}; wanted one input (1, height, width, 3)")
        self.height, self.width = (int(side) for side in inputs[0]["shape"][1:3])
        self._interpreter = interpreter
        self._input, self._output = inputs[0], interpreter.get_output_details()[0]

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB 0–255 (1, h, w, 3) → the first output (1, …), float32."""
        self._interpreter.set_tensor(self._input["index"], _encode(batch, self._input))
        self._interpreter.invoke()
        return _decode(self._interpreter.get_tensor(self._output["index"]), self._output)


def _encode(batch: NDArray[np.uint8], tensor: dict[str, Any]) -> NDArray[Any]:
    """Real values → the codes that a quantized input takes: q = round(x / scale) + zero_point.

    Our own files take uint8 with scale 1 and zero point 0: there a pixel is its own code.
    """
    scale, zero_point = tensor["quantization"]
    dtype = tensor["dtype"]
    if scale == 0 or not np.issubdtype(dtype, np.integer):
        return batch.astype(dtype, copy=False)
    if scale == 1 and zero_point == 0 and dtype == np.uint8:
        return batch
    limits = np.iinfo(dtype)
    quantized: NDArray[Any] = np.clip(np.round(batch / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return quantized


def _decode(codes: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    """Codes → real values: x = (q - zero_point) * scale."""
    scale, zero_point = tensor["quantization"]
    if scale == 0 or not np.issubdtype(codes.dtype, np.integer):
        return codes.astype(np.float32)
    values: NDArray[np.float32] = ((codes.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return values
