"""A fake-quantized model → an int8 file with the very grids that it was trained with.

What is rounded is marked in the graph by TensorFlow's fake-quantization operators, which both converters know: LiteRT's
makes its int8 file from them, tf2onnx a Q/DQ pair of each. Kernels lie on their grids already.

    LiteRT   full-integer; 8-bit input (a pixel is its own code) and output
    ONNX     QDQ: int8 kernels per output channel, uint8 activations; float input and output, the softmax stays float;
             alone for what is not rounded everywhere (`PlaceSettings`)

In scope: files, and that they answer as the model. Not aware of: training. Imports analyze, artifact, errors, export,
quantize and its neighbours; keras and tensorflow where they are used.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.analyze.costs import count
from featherweight.artifact import FILES, Artifact, Step, check_new, write_artifact
from featherweight.errors import ExportError
from featherweight.export import About, described, litert_bytes, onnx_bytes
from featherweight.qat.grid import LEVELS, Grid
from featherweight.qat.onnx_file import with_integer_weights
from featherweight.qat.steps import finish, grid_of, in_place_of, settled
from featherweight.quantize.agreement import answers, export_golden, output_error
from featherweight.quantize.settings import check_pictures
from featherweight.rewrite import Graph

if TYPE_CHECKING:
    import keras

# How far a file's answers may be from the model's, by `output_error`; one with other grids or weights is much farther.
# Sums in another order round the other way now and then, by a step, and of 256 codes LiteRT's hard-swish gives one or
# two a step off; the layers behind multiply it. Of trained networks 0.0005 to 0.0044 was seen, of random ones 0.041.
TOLERANCE = 0.05
CHECK_IMAGES = 64


def export_qat(
    model: "keras.Model", folder: str | Path, file_format: str, about: About, calibration: NDArray[np.uint8]
) -> Artifact:
    """Write a fake-quantized model as an int8 artifact folder.

    Args:
        model: as `fake_quantize` or `train_aware` gives it; unchanged.
        folder: where; it must not exist.
        file_format: onnx or litert.
        about: name, classes and lineage for the manifest.
        calibration: pictures (n, h, w, 3) RGB 0–255 for the check.

    Raises:
        ExportError: an unknown format, or one that has no such files; no picture or such of another size, the converter
            fails, or the file answers otherwise than the model.
        SettingError: the model is not fake-quantized.
        OutputError: the folder exists or cannot be written.
    """
    if file_format not in FILES:
        raise ExportError(f"unknown format {file_format!r}; known: {', '.join(FILES)}")
    check_new(Path(folder))  # before the long work
    model = settled(model)
    if file_format == "litert" and _is_partly_float(model):
        raise ExportError(f"{about.name} is not rounded everywhere, and LiteRT has no such int8 files; wanted onnx")
    height, width = model.input_shape[1:3]
    check_pictures(about.name, (height, width), calibration)
    artifact = described(folder, file_format, "int8", about, (height, width), count(finish(model)[0]))
    marked = _marked(model, integer_only=file_format == "litert")
    data = litert_bytes(marked, True) if file_format == "litert" else with_integer_weights(onnx_bytes(marked))
    pictures = calibration[:CHECK_IMAGES]
    wanted = np.asarray(model.predict_on_batch(pictures.astype(np.float32)))
    found = answers(artifact, pictures, data)
    done = {
        "format": file_format,
        "precision": "int8",
        "weights": "int8 per channel",
        "activations": "8 bits on trained grids",
        "largest_difference": _check(about.name, wanted, found),
    }
    steps = (*about.steps, Step("export_qat", done))
    return write_artifact(replace(artifact, steps=steps), data, export_golden(calibration, found))


def _is_partly_float(model: "keras.Model") -> bool:
    """Whether kernels are left, or no codes are where `places.placed` puts them by itself."""
    from featherweight.models.heads import Predictions
    from featherweight.qat.layers import KERNEL_AXES, FakeQuantizedKernel
    from featherweight.qat.places import FUNCTIONS, RELUS
    from featherweight.qat.spelling import function_of

    graph, unrounded = Graph(model), set(FUNCTIONS) - set(RELUS)
    for layer in model.layers:
        takers = graph.takers.get(id(layer.output), ())
        bare = not takers or any(isinstance(one, Predictions) or function_of(one) in unrounded for one in takers)
        if type(layer) in KERNEL_AXES or (isinstance(layer, FakeQuantizedKernel) and bare):
            return True
    return False


def _check(name: str, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The greatest difference of outputs (n, …)."""
    off = output_error(wanted, found)
    if not off <= TOLERANCE:
        raise ExportError(
            f"{name}: the int8 file is {off:.3f} away from the fake-quantized model; wanted at most "
            f"{TOLERANCE}. Try another format"
        )
    return float(np.max(np.abs(found - wanted)))


def _marked(model: "keras.Model", integer_only: bool) -> "keras.Model":
    """Plain layers with a mark wherever the settled model rounds an activation.

    Args:
        model: settled.
        integer_only: for LiteRT, so that none of its operators is float.
    """
    import keras

    from featherweight.qat.spelling import set_weights

    copy = keras.models.clone_model(model, call_function=_Marking(model, integer_only))
    set_weights(copy, model, {})
    return copy


def _rounded(x: Any, grid: Grid) -> Any:
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(x, grid.low, grid.high)


class _Marking:
    """Calls what is inside of each layer that rounds, and marks what comes out."""

    def __init__(self, model: "keras.Model", integer_only: bool):
        self.graph = Graph(model)
        self.originals = {operation.name: operation for operation in model.operations}
        self.entry = self.graph.taker(model.inputs[0])
        self.integer_only = integer_only

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        import keras

        from featherweight.qat.layers import FakeQuantize, FakeQuantizedKernel, SameGrid

        x, original = args[0], self.originals[layer.name]
        if isinstance(layer, FakeQuantizedKernel):
            return layer.layer(x)
        if isinstance(layer, FakeQuantize):
            return in_place_of(layer, self._marked(x, original))
        if isinstance(layer, SameGrid):
            return _mark(layer.layer(x[0]), grid_of(original.output, self.graph))
        if isinstance(layer, keras.layers.Concatenate):
            return _mark(layer(x), grid_of(original.output, self.graph))
        apart = self.integer_only and self._is_taken_apart(original)
        return _in_integers(layer, x) if apart else layer(*args, **kwargs)

    def _marked(self, x: Any, layer: Any) -> Any:
        """What a `FakeQuantize` takes, marked. Left are the picture of ONNX, which is float where it is scaled first,
        and what goes into a concatenation where the format takes it to the new grid itself: LiteRT's converter always,
        ONNX' operator from any other grid.
        """
        import keras

        from featherweight.qat.places import SCALING

        if isinstance(x, list):
            lying = [self.integer_only or grid_of(old, self.graph) is not None for old in layer.input]
            return [one if left else _mark(one, layer.grid()) for one, left in zip(x, lying, strict=True)]
        takers = self.graph.takers.get(id(keras.tree.flatten(layer.output)[0]), [])
        scaled = layer is self.entry and all(isinstance(taker, SCALING) for taker in takers)
        return x if scaled and not self.integer_only else _mark(x, layer.grid())

    def _is_taken_apart(self, layer: Any) -> bool:
        """Whether LiteRT's converter makes two operators of it, of which the first needs a mark: a hard sigmoid, and
        what scales the picture by one number.
        """
        import keras

        from featherweight.qat.spelling import function_of

        if isinstance(layer, keras.layers.Rescaling) and self.graph.maker(layer.input) is self.entry:
            return bool(np.ndim(layer.scale) == np.ndim(layer.offset) == 0 and layer.scale > 0)
        return function_of(layer) is keras.activations.hard_sigmoid


def _mark(x: Any, grid: Grid | None) -> Any:
    import keras

    return x if grid is None else keras.layers.Lambda(_rounded, arguments={"grid": grid})(x)


def _in_integers(layer: Any, x: Any) -> Any:
    """The layer with a mark inside. What is marked lies on that grid anyway, or is rounded alike behind."""
    import keras
    import tensorflow as tf

    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = layer.scale, layer.offset
        return keras.layers.Lambda(lambda x: _rounded(x * scale, Grid(scale, 0)) + offset)(x)
    return keras.layers.Lambda(lambda x: _rounded(tf.nn.relu6(x + 3), Grid(6 / LEVELS, 0)) * (1 / 6))(x)
