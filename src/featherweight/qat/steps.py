"""A trained model → one that computes with the rounding of int8, and back to plain layers.

In scope: models and ranges. Not aware of: training, files. Imports artifact, errors, fold, rewrite and its neighbours;
keras where it is used.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.fold import fold
from featherweight.qat.grid import Grid, kernel_scales, on_bias_grid, on_kernel_grid
from featherweight.rewrite import Graph

if TYPE_CHECKING:
    import keras

CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class RangeSettings:
    """How the ranges of activations are found.

    Raises:
        SettingError: a number out of its range.
    """

    calibration_images: int = 128  # training pictures that give the first ranges
    momentum: float = 0.99  # the share of its range that an activation keeps in a training step
    frozen_after: float = 0.5  # the share of the epochs after which ranges stay as they are

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise SettingError(f"{self.calibration_images} calibration images; wanted at least 1")
        if not 0 <= self.momentum <= 1 or not 0 <= self.frozen_after <= 1:
            raise SettingError(f"momentum {self.momentum:g}, frozen after {self.frozen_after:g}; wanted 0 to 1")


@dataclass(frozen=True)
class PlaceSettings:
    """Where it is rounded, other than everywhere that 8 bits can be. Both are for ONNX files alone.

    `float_up_to` is a layer that stays float with all that it is computed from: the first layers, at the largest maps,
    are those that move the outputs most. `fused` leaves out the codes between a convolution or a sum and its
    activation, which OpenVINO computes as one, and those of the outputs.
    """

    float_up_to: str | None = None
    fused: bool = False


def fake_quantize(
    model: "keras.Model",
    calibration: NDArray[np.uint8],
    settings: RangeSettings | None = None,
    places: PlaceSettings | None = None,
) -> tuple["keras.Model", Step]:
    """A copy that computes as its int8 file will, and can be trained.

    Batch norms are folded first (`fold`): their statistics are frozen in fine-tuning anyway, and so the kernel that is
    rounded in training is the one that the file holds, without statistics of a batch in its scale.

    Args:
        model: functional or Sequential, of one picture RGB 0–255, of layers that are used once; unchanged.
        calibration: training pictures (n, h, w, c) RGB 0–255 of the model's size. The first range of an activation is
            the mean over batches of its least and greatest values.
        settings: of the ranges.
        places: where it rounds.

    Returns:
        The copy, whose ranges a training step moves; and what stays float, with the reason.

    Raises:
        SettingError: another kind of model, pictures of another size, a layer that is not there, or nothing in it that
            could be int8.
    """
    from featherweight.qat.layers import FakeQuantizedKernel
    from featherweight.qat.places import placed
    from featherweight.qat.spelling import spelled_out

    settings, places = settings or RangeSettings(), places or PlaceSettings()
    folded, _ = fold(model)
    _check_pictures(folded, calibration)
    copy, skipped = placed(spelled_out(folded), calibration.shape[1:], places.float_up_to, places.fused)
    kernels = sum(isinstance(layer, FakeQuantizedKernel) for layer in copy.layers)
    if not kernels:
        raise SettingError(f"{model.name} has no convolution or dense layer that could be int8")
    pictures = calibration[: settings.calibration_images]
    _calibrate(copy, pictures, settings.momentum)
    done = {"kernels": kernels, "activations": len(quantizers(copy)), "calibration_images": len(pictures)}
    if places != PlaceSettings():
        done |= asdict(places)
    return copy, Step("fake_quantize", done, skipped)


def finish(model: "keras.Model") -> tuple["keras.Model", dict[str, Grid]]:
    """The model in plain layers, kernels and biases on their grids; and the grids of its activations, by layer.

    Args:
        model: as `fake_quantize` or `train_aware` gives it; unchanged.

    Raises:
        SettingError: it is not fake-quantized.
    """
    import keras

    from featherweight.qat.spelling import set_weights

    weights = _rounded_weights(model)
    copy = keras.models.clone_model(model, call_function=_plain)
    set_weights(copy, model, weights)
    return copy, {layer.name.removesuffix("_quantized"): layer.grid() for layer in quantizers(model)}


def settled(model: "keras.Model") -> "keras.Model":
    """A fake-quantized copy whose kernels and biases lie on their grids: it answers as its int8 file does.

    A bias is not rounded in training: its grid is far finer than all others.

    Raises:
        SettingError: it is not fake-quantized.
    """
    import keras

    from featherweight.qat.spelling import set_weights

    weights = _rounded_weights(model)
    copy = keras.models.clone_model(model)
    set_weights(copy, model, weights)
    return copy


def quantizers(model: "keras.Model") -> list[Any]:
    """The layers that round activations."""
    from featherweight.qat.layers import FakeQuantize

    return [layer for layer in model.layers if isinstance(layer, FakeQuantize)]


def set_rate(model: "keras.Model", rate: float) -> None:
    """How far a training step moves ranges towards those of its batch, in place; 0 freezes them."""
    for layer in quantizers(model):
        layer.rate.assign(rate)


def in_place_of(layer: Any, inputs: Any) -> Any:
    """What to put in the place of a layer that rounds activations: its inputs, as many as it has outputs."""
    if not layer.tells:
        return inputs
    several = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    return [*several, several[0]]  # nobody takes the last any more


def _plain(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Call what is inside of a layer that rounds."""
    from featherweight.qat.layers import FakeQuantize, FakeQuantizedKernel, SameGrid

    if isinstance(layer, FakeQuantize):
        return in_place_of(layer, args[0])
    if isinstance(layer, FakeQuantizedKernel):
        return layer.layer(args[0])
    return layer.layer(args[0][0]) if isinstance(layer, SameGrid) else layer(*args, **kwargs)


def _check_pictures(model: "keras.Model", calibration: NDArray[np.uint8]) -> None:
    wanted = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    found = calibration.shape[1:]
    fits = len(wanted) == 1 and len(wanted[0]) == len(found) == 3
    if not fits or not len(calibration) or any(w not in (None, f) for w, f in zip(wanted[0], found, strict=True)):
        raise SettingError(
            f"calibration pictures of shape {calibration.shape} for {model.name} with inputs {wanted}; wanted at least "
            "one, of the size of its one input"
        )


def _calibrate(model: "keras.Model", pictures: NDArray[np.uint8], momentum: float) -> None:
    """First ranges, in place on our own copy: a mean over batches. An activation is seen with all before it rounded."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # one that could not be folded keeps its statistics
            layer.trainable = False
    for number, start in enumerate(range(0, len(pictures), CALIBRATION_BATCH), 1):
        set_rate(model, 1 / number)
        model(pictures[start : start + CALIBRATION_BATCH].astype(np.float32), training=True)
    set_rate(model, 1 - momentum)


def _rounded_weights(model: "keras.Model") -> dict[str, list[NDArray[np.float32]]]:
    """Kernels and biases on their grids, by layer. A bias stays as it is where the layer's input is float."""
    from featherweight.qat.layers import KERNEL_AXES, FakeQuantizedKernel

    if not quantizers(model):
        raise SettingError(f"{model.name} is not fake-quantized; wanted what fake_quantize or train_aware gave")
    graph = Graph(model)
    weights = {}
    for layer in (layer for layer in model.layers if isinstance(layer, FakeQuantizedKernel)):
        axes, grid = KERNEL_AXES[type(layer.layer)], grid_of(layer.input, graph)
        kernel, *bias = layer.get_weights()
        scales = kernel_scales(kernel, axes)
        rounded = [one if grid is None else on_bias_grid(one, grid.scale, scales) for one in bias]
        weights[layer.name] = [on_kernel_grid(kernel, axes), *rounded]
    return weights


def grid_of(tensor: Any, graph: Graph) -> Grid | None:
    """The grid that a tensor of a fake-quantized model lies on, or `None` where it is float."""
    import keras

    from featherweight.qat.layers import FakeQuantize, SameGrid
    from featherweight.qat.places import HANDS_ON

    maker = graph.maker(tensor)
    while isinstance(maker, (*HANDS_ON, SameGrid)):
        maker = graph.maker(keras.tree.flatten(maker.input)[0])
    return maker.grid() if isinstance(maker, FakeQuantize) else None
