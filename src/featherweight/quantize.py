"""`Artifact` → `Artifact` with int8 weights and activations, for ONNX; and how int8 outputs are held against float.

Weights are int8 per output channel, activations uint8 per tensor with ranges from calibration pictures (ONNX
Runtime's static QDQ quantization). The softmax stays float: its input spans little and its output is the answer.

In scope: the file. Not aware of: Keras, data sets. Imports artifact, errors and runtimes; onnxruntime where used.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Step, write_artifact
from featherweight.errors import ExportError
from featherweight.runtimes import runtime_named
from featherweight.runtimes.settings import Settings

# How far int8 probabilities may be from float on average over the calibration pictures, in total variation: half the
# sum of absolute differences, 0 for equal, 1 for disjoint. A collapsed network is at 0.5 and more.
INT8_TOLERANCE = 0.25
GOLDEN_IMAGES = 4
FLOAT_OPERATORS = ("Softmax",)


def quantize(
    artifact: Artifact, folder: str | Path, calibration: NDArray[np.uint8], name: str | None = None
) -> Artifact:
    """An int8 copy of a float32 ONNX artifact.

    Args:
        artifact: float32, ONNX, with a manifest; it is unchanged.
        folder: where; it must not exist.
        calibration: training pictures (n, h, w, 3) RGB 0–255 at the artifact's size.
        name: the copy's name; by default the artifact's with int8 for float32.

    Raises:
        ExportError: another format or precision, the quantizer fails, or the outputs leave the float file's.
        OutputError: the folder exists or cannot be written.
    """
    if artifact.format != "onnx" or artifact.precision != "float32" or artifact.foreign:
        raise ExportError(
            f"cannot quantize {artifact.name} ({artifact.format}, {artifact.precision}); wanted a float32 ONNX artifact"
        )
    named = name or artifact.name.replace("float32", "int8")
    runtime = runtime_named("onnxruntime")
    float_session = runtime.load(artifact, Settings())
    wanted = np.concatenate([float_session.run(one[None]) for one in calibration[:64]])
    with tempfile.TemporaryDirectory() as scratch:
        data = _static_qdq(artifact, calibration, Path(scratch))
        copy = replace(
            artifact,
            path=Path(scratch),
            name=named,
            precision="int8",
            steps=(
                *artifact.steps,
                Step(
                    "quantize",
                    {"weights": "int8 per channel", "activations": "uint8", "calibration_images": len(calibration)},
                    tuple((operator, "stays float: its output is the answer") for operator in FLOAT_OPERATORS),
                ),
            ),
        )
        session = runtime.load(copy, Settings())
        found = np.concatenate([session.run(one[None]) for one in calibration[:64]])
    check_agreement(named, wanted, found)
    return write_artifact(replace(copy, path=Path(folder)), data, export_golden(calibration, found))


def check_agreement(name: str, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
    """Raise where int8 outputs (n, classes) have left the float ones.

    Raises:
        ExportError: the mean total variation is over the tolerance, or the outputs are not numbers.
    """
    off = float(np.mean(np.sum(np.abs(found - wanted), axis=1) / 2))
    if not off <= INT8_TOLERANCE:
        raise ExportError(
            f"{name}: int8 outputs are {off:.2f} away from float32 (mean total variation, 0 to 1); wanted at most "
            f"{INT8_TOLERANCE}. This network does not survive int8 so; use its float32 file"
        )


def export_golden(
    calibration: NDArray[np.uint8], outputs: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A few pictures from all over the calibration set with the outputs that belong to them."""
    rows = np.unique(np.linspace(0, len(outputs) - 1, GOLDEN_IMAGES).astype(int))
    return calibration[rows], outputs[rows]


def _static_qdq(artifact: Artifact, calibration: NDArray[np.uint8], scratch: Path) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, target = scratch / "prepared.onnx", scratch / artifact.file
    loaded = onnx.load(artifact.model_path)
    input_name = loaded.graph.input[0].name
    kept = {node.op_type for node in loaded.graph.node}.difference(FLOAT_OPERATORS)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images: Iterator[Any] = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {input_name: image[None].astype(np.float32)}

    chatter = logging.getLogger()
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # the quantizer logs advice that this function has already followed
    try:
        quant_pre_process(str(artifact.model_path), str(source), skip_symbolic_shape=True)
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=sorted(kept),
        )
    except Exception as error:  # the quantizer raises whatever its parts raise
        raise ExportError(f"cannot quantize {artifact.name}: {' '.join(str(error).split())[:300]}") from error
    finally:
        chatter.setLevel(level)
    return target.read_bytes()
