"""The bridge: `keras.Model` → `Artifact`, as ONNX or LiteRT, float32 or (LiteRT) full-integer int8.

Every export is held against the Keras model on calibration pictures before it is kept; one that answers differently
raises. ONNX int8 is made from the ONNX file by `quantize`, which needs no Keras; LiteRT's converter starts from the
model, so its int8 is made here.

In scope: converters, the check, the manifest. Not aware of: data sets, budgets.
Imports analyze, artifact, errors and runtimes; keras and tensorflow where they are used.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.analyze.costs import count
from featherweight.artifact import FILES, Artifact, Step, write_artifact
from featherweight.errors import ExportError
from featherweight.progress import quiet
from featherweight.quantize import check_agreement, export_golden
from featherweight.runtimes import RUNTIMES
from featherweight.runtimes.settings import Settings

if TYPE_CHECKING:
    import keras

FORMATS = ("onnx", "litert")
PRECISIONS = ("int8", "float32")

# How far a float32 file's probabilities may be from Keras': both compute in float32, in another order of additions.
FLOAT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class About:
    """What the manifest should say beyond the file itself."""

    name: str
    classes: tuple[str, ...]
    steps: tuple[Step, ...]
    task: str = "classify"


def export(
    model: "keras.Model",
    folder: str | Path,
    file_format: str,
    about: About,
    calibration: NDArray[np.uint8],
    precision: str = "float32",
) -> Artifact:
    """Write the model as an artifact folder.

    Args:
        model: takes RGB 0–255 (n, h, w, 3) float32 of a fixed size.
        folder: where; it must not exist.
        file_format: onnx or litert.
        about: name, classes and lineage for the manifest.
        calibration: training pictures (n, h, w, 3) RGB 0–255 for the check and for int8's ranges.
        precision: float32, or int8 for LiteRT (for ONNX: `quantize`).

    Raises:
        ExportError: the converter fails, or the file's outputs differ from Keras' beyond the tolerance.
        OutputError: the folder exists or cannot be written.
    """
    height, width = model.input_shape[1:3]
    if (file_format, precision) not in (("onnx", "float32"), ("litert", "float32"), ("litert", "int8")):
        raise ExportError(
            f"cannot export {file_format} {precision}; known: onnx float32, litert float32, litert int8 "
            "(onnx int8 is made from the onnx artifact by quantize)"
        )
    data = _onnx(model) if file_format == "onnx" else _litert(model, calibration if precision == "int8" else None)
    parameters, macs = count(model)
    step = Step("export", {"format": file_format, "precision": precision, **_calibration(precision, calibration)})
    artifact = Artifact(
        path=Path(folder),
        file=FILES[file_format],
        name=about.name,
        format=file_format,
        precision=precision,
        sha256="",
        size_bytes=len(data),
        task=about.task,
        classes=about.classes,
        height=height,
        width=width,
        resize="stretch",
        parameters=parameters,
        macs=macs,
        steps=(*about.steps, step),
    )
    wanted = model.predict_on_batch(calibration[:64].astype(np.float32))
    return _checked(artifact, data, calibration, wanted)


def _calibration(precision: str, calibration: NDArray[np.uint8]) -> dict[str, Any]:
    return {"calibration_images": len(calibration)} if precision == "int8" else {}


def _checked(artifact: Artifact, data: bytes, calibration: NDArray[np.uint8], wanted: NDArray[np.float32]) -> Artifact:
    """Run the file on calibration pictures, compare with Keras, write the folder with the golden outputs."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / artifact.file).write_bytes(data)
        runtime = next((r for r in RUNTIMES.values() if r.supports(artifact) is None), None)
        if runtime is None:
            reasons = "; ".join(r.supports(artifact) or "" for r in RUNTIMES.values())
            raise ExportError(f"no runtime to check {artifact.name} with: {reasons}")
        session = runtime.load(replace(artifact, path=Path(scratch)), Settings(precision="float32"))
        found = np.concatenate([session.run(one[None]) for one in calibration[: len(wanted)]])
    if artifact.precision == "float32":
        off = float(np.max(np.abs(found - wanted)))
        if not off <= FLOAT_TOLERANCE:
            raise ExportError(
                f"{artifact.name}: the exported file's outputs differ from Keras' by up to {off:.2g}; wanted at most "
                f"{FLOAT_TOLERANCE:g}. Try another format"
            )
    else:
        check_agreement(artifact.name, wanted, found)
    return write_artifact(artifact, data, export_golden(calibration, found))


def _onnx(model: "keras.Model") -> bytes:
    import keras

    height, width = model.input_shape[1:3]
    signature = [keras.InputSpec(shape=(1, height, width, 3), dtype="float32", name="image")]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        with _converter("ONNX"):
            model.predict_on_batch(np.zeros((1, height, width, 3), np.float32))
            with _plain_graph(model):
                model.export(str(path), format="onnx", verbose=False, input_signature=signature)
        return path.read_bytes()


def _litert(model: "keras.Model", calibration: NDArray[np.uint8] | None) -> bytes:
    import tensorflow as tf

    height, width = model.input_shape[1:3]
    with _converter("LiteRT"):
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        with _plain_graph(model):
            function = tf.function(lambda image: model(image, training=False)).get_concrete_function(
                tf.TensorSpec((1, height, width, 3), tf.float32, name="image")
            )
        # Frozen here: the converter's own way there goes through a SavedModel and takes four times as long, and given
        # the function alone it leaves Keras 3's variables unfrozen.
        converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)])
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image] for image in _full_range(calibration))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.uint8
        data: bytes = converter.convert()
        return data


@contextlib.contextmanager
def _plain_graph(model: "keras.Model") -> Iterator[None]:
    """Trace into one graph without functions and with all constants in it.

    Keras puts a grouped convolution into a function of its own, for XLA, because TensorFlow has no kernel for it on a
    processor; converters do not look into that function, and need no kernel. The statistics of a `Normalization` layer
    are tensors made outside of the graph, which tf2onnx takes for inputs; as arrays they are constants.
    """
    import keras
    import tensorflow as tf

    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)]
    statistics = [(layer.mean, layer.variance) for layer in layers]
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    for layer in layers:
        layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
        for layer, (mean, variance) in zip(layers, statistics, strict=True):
            layer.mean, layer.variance = mean, variance


def _full_range(calibration: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """The pictures one by one, float32 (1, h, w, 3), two corner values set to 0 and 255.

    So the input's range is 0–255 whatever the pictures: scale 1, zero point 0, and a pixel is its own code.
    """
    for picture in calibration:
        image = picture.astype(np.float32)[None]
        image[0, 0, 0, 0], image[0, -1, -1, -1] = 0, 255
        yield image


@contextlib.contextmanager
def _converter(what: str) -> Iterator[None]:
    """A converter's work, without its chatter, its failure as one line."""
    try:
        with quiet():
            yield
    except Exception as error:  # each converter has its own zoo of exceptions
        raise ExportError(f"the {what} converter failed: {' '.join(str(error).split())[:300]}") from error
