"""The bridge: `keras.Model` → `Artifact`, as ONNX or LiteRT.

Every export is held against the Keras model on calibration pictures before it is kept; one that answers differently
raises. Files of int8 and float16 are made of the float32 file by `quantize`; LiteRT int8 may be asked for here too.

In scope: converters, the check, the manifest. Not aware of: data sets, budgets.
Imports analyze, artifact, boxes, errors, outputs, quantize and runtimes; keras and tensorflow where they are used.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featherweight.analyze.costs import count
from featherweight.artifact import FILES, Artifact, Step, write_artifact
from featherweight.boxes import Decoding
from featherweight.errors import ExportError
from featherweight.models.copying import every_layer
from featherweight.outputs import most_off
from featherweight.progress import quiet
from featherweight.quantize import export_golden, quantize
from featherweight.quantize.settings import check_pictures
from featherweight.runtimes import RUNTIMES
from featherweight.runtimes.settings import Settings

if TYPE_CHECKING:
    import keras

FORMATS = ("onnx", "litert")
PRECISIONS = ("int8", "float32")

# How far a float32 file's outputs may be from Keras', by `outputs.most_off`: both compute in float32, in
# another order of additions.
FLOAT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class About:
    """What the manifest should say beyond the file itself."""

    name: str
    classes: tuple[str, ...]
    steps: tuple[Step, ...]
    task: str = "classify"
    resize: str = "stretch"  # how pictures became the size that it was trained on: one of `boxes.RESIZES`
    decoding: Decoding | None = None  # of a detector


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
        precision: float32, or int8 for LiteRT; the others, and int8 for ONNX, are made of the float32 artifact by
            `quantize`.

    Raises:
        ExportError: no picture, or pictures of another size or type; the converter fails, or the file's outputs differ
            from Keras' beyond the tolerance.
        OutputError: the folder exists or cannot be written.
    """
    height, width = model.input_shape[1:3]
    if (file_format, precision) not in (("onnx", "float32"), ("litert", "float32"), ("litert", "int8")):
        raise ExportError(
            f"cannot export {file_format} {precision}; known: onnx float32, litert float32, litert int8 "
            "(onnx int8 is made from the onnx artifact by quantize)"
        )
    check_pictures(about.name, (height, width), calibration)
    if precision == "int8":
        with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
            source = export(model, Path(scratch) / "float32", file_format, about, calibration)
            return quantize(source, folder, calibration, about.name)
    data = onnx_bytes(model) if file_format == "onnx" else litert_bytes(model)
    parameters, macs = count(model)
    step = Step("export", {"format": file_format, "precision": precision})
    artifact = described(folder, file_format, precision, about, (height, width), (parameters, macs))
    artifact = replace(artifact, size_bytes=len(data), steps=(*about.steps, step))
    wanted = model.predict_on_batch(calibration[:64].astype(np.float32))
    return _checked(artifact, data, calibration, wanted)


def described(
    folder: str | Path,
    file_format: str,
    precision: str,
    about: About,
    size: tuple[int, int],
    counts: tuple[int | None, int | None],
) -> Artifact:
    """What the manifest will say of a file before it is written: `write_artifact` fills in the rest.

    Args:
        folder: where.
        file_format: onnx or litert.
        precision: of the file.
        about: name, classes, and how pictures go in and answers come out.
        size: (height, width) of its pictures.
        counts: (parameters, MACs).
    """
    return Artifact(
        path=Path(folder),
        file=FILES[file_format],
        name=about.name,
        format=file_format,
        precision=precision,
        sha256="",
        size_bytes=0,
        task=about.task,
        classes=about.classes,
        height=size[0],
        width=size[1],
        resize=about.resize,
        parameters=counts[0],
        macs=counts[1],
        decoding=about.decoding,
    )


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
    off = most_off(wanted, found)
    if not off <= FLOAT_TOLERANCE:
        raise ExportError(
            f"{artifact.name}: the exported file's outputs differ from Keras' by up to {off:.2g}; wanted at most "
            f"{FLOAT_TOLERANCE:g}. Try another format"
        )
    return write_artifact(artifact, data, export_golden(calibration, found))


def onnx_bytes(model: "keras.Model") -> bytes:
    """The model as an ONNX file with one input `image` (1, h, w, 3).

    Raises:
        ExportError: the converter fails.
    """
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


def litert_bytes(model: "keras.Model", on_marked_grids: bool = False) -> bytes:
    """The model as a LiteRT file with one input `image` (1, h, w, 3).

    Args:
        model: of a fixed input size.
        on_marked_grids: full-integer, input and output of 8 bits, on the grids of TensorFlow's fake-quantization
            operators in it.

    Raises:
        ExportError: the converter fails.
    """
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
        if on_marked_grids:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
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

    layers = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.Normalization)]
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


@contextlib.contextmanager
def _converter(what: str) -> Iterator[None]:
    """A converter's work, without its chatter, its failure as one line."""
    try:
        with quiet():
            yield
    except Exception as error:  # each converter has its own zoo of exceptions
        raise ExportError(f"the {what} converter failed: {' '.join(str(error).split())[:300]}") from error
