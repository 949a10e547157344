"""Pretrained weights: Keras' own download, a `.weights.h5`, or an `.npz` of folded convolutions; `identify` tells
which network a file belongs to.

An `.npz` out of a `.tflite` file has its batch norm folded into the convolutions: here each batch norm then only
shifts. Training such a network on batch statistics would wreck it, so `train` keeps pretrained batch norms frozen.

Imports errors and zoo; h5py and keras where they are used.
"""

import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import WeightsError
from featherweight.models.zoo import NETS, Shape, build, net_named, reference

if TYPE_CHECKING:
    import keras

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
MAX_FILE_BYTES = 2**31


def build_pretrained(shape: Shape, classes: int, weights: str | None) -> "keras.Model":
    """A model with pretrained weights in its trunk and a new head.

    Args:
        shape: which network.
        classes: how many classes the new head tells apart.
        weights: `None` (random), "imagenet" (Keras' download), or a file.

    Raises:
        WeightsError: no network for the download, a width without published weights, or a file that is absent,
            damaged or of another network.
    """
    if weights is None:
        return build(shape, classes)
    if weights == "imagenet":
        return _build_imagenet(shape, classes)
    model = build(shape, classes)
    _fill(model, shape, Path(weights))
    return model


def identify(path: str | Path) -> list[tuple[str, float]]:
    """The (network, width) pairs of the zoo whose published form has just the arrays that are in the file.

    Raises:
        WeightsError: absent, not a weights file, damaged, or of no network of the zoo.
    """
    path = Path(path)
    kind = _kind(path)
    found = Counter(_npz_kernels(path) if kind == "npz" else _h5_shapes(path))
    matches = []
    for net in NETS.values():
        for width in net.widths:
            model = reference(net, width)
            shapes = _kernel_shapes(model) if kind == "npz" else [tuple(w.shape) for w in model.weights]
            if _same_but_for_head(found, Counter(shapes)):
                matches.append((net.name, width))
    if not matches:
        raise WeightsError(
            f"{path} holds the weights of no network here; known: "
            + ", ".join(f"{net.name} (widths {', '.join(f'{w:g}' for w in net.widths)})" for net in NETS.values())
        )
    return matches


def _build_imagenet(shape: Shape, classes: int) -> "keras.Model":
    net = net_named(shape.net)
    if shape.width not in net.widths:
        raise WeightsError(
            f"no ImageNet weights for {net.name} of width {shape.width:g}; published: "
            f"{', '.join(f'{w:g}' for w in net.widths)}"
        )
    try:
        return build(shape, classes, weights="imagenet")
    except Exception as error:  # Keras turns a failed download into a bare Exception
        raise WeightsError(
            f"cannot download the ImageNet weights of {net.name} {shape.width:g} ({_one_line(error)}); connect once, "
            "or name a local file with --weights FILE, or train from nothing with --weights none"
        ) from error


def _fill(model: "keras.Model", shape: Shape, path: Path) -> None:
    """Copy a file's weights into the model's trunk."""
    source = reference(net_named(shape.net), shape.width)
    if _kind(path) == "npz":
        _fill_from_npz(source, path, shape)
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Keras only warns of layers that it leaves random
                source.load_weights(path)
        except (ValueError, OSError, KeyError, UserWarning) as error:
            raise WeightsError(
                f"{path} does not fit {shape.net} of width {shape.width:g} with 1000 classes: {_one_line(error)}"
            ) from error
    by_name = {layer.name: layer for layer in source.layers if layer.weights}
    trunk = [layer for layer in model.layers if layer.weights and layer.name != "logits"]
    for layer in trunk:
        layer.set_weights(by_name[layer.name].get_weights())


def _fill_from_npz(model: "keras.Model", path: Path, shape: Shape) -> None:
    """Kernels and biases in layer order → kernels and batch norms that only shift: (x - 0) / sqrt(1 + e) · g + bias."""
    arrays = _npz_arrays(path)
    kernels = [array for name, array in arrays.items() if name.endswith("/w")]
    biases = [array for name, array in arrays.items() if name.endswith("/b")]
    convolutions = _convolutions(model)
    fits = len(kernels) == len(biases) == len(convolutions) and all(
        tuple(layer.kernel.shape)[:-1] == kernel.shape[:-1] for layer, kernel in zip(convolutions, kernels, strict=True)
    )
    if not fits:
        raise WeightsError(f"{path} does not fit {shape.net} of width {shape.width:g}: other kernels in it")
    norms = iter(_batch_norms(model))
    # The last is the head, which nobody needs.
    for layer, kernel, bias in zip(convolutions[:-1], kernels[:-1], biases[:-1], strict=True):
        layer.set_weights([kernel])
        norm = next(norms)
        channels = np.ones(len(bias), np.float32)
        norm.set_weights([channels * np.sqrt(1 + norm.epsilon), bias, 0 * channels, channels])


def _kind(path: Path) -> str:
    """`h5` or `npz`, by content."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise WeightsError(
            f"cannot read the weights {path}: {error.strerror}; wanted a .weights.h5 or .npz file"
        ) from error
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"{path} has {size:,} bytes; no light network has over {MAX_FILE_BYTES:,}")
    if head == HDF5_MAGIC:
        return "h5"
    if head[:4] == ZIP_MAGIC:
        return "npz"
    raise WeightsError(f"{path} is no weights file; wanted a .weights.h5 that Keras wrote, or an .npz")


def _h5_shapes(path: Path) -> list[tuple[int, ...]]:
    """The shapes of all arrays in a Keras weights file; nothing is read but the structure."""
    import h5py

    shapes: list[tuple[int, ...]] = []

    def look(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            shapes.append(tuple(node.shape))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(look)
    except (OSError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{path} is damaged: {_one_line(error)}; fetch it again") from error
    return shapes


def _npz_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if not any(name.endswith("/w") for name in file):
                raise WeightsError(f"{path} has no kernels; wanted arrays named LAYER/w and LAYER/b in layer order")
            return {name: np.asarray(file[name], np.float32) for name in file}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is damaged: {_one_line(error)}; fetch it again") from error


def _npz_kernels(path: Path) -> list[tuple[int, ...]]:
    return [array.shape for name, array in _npz_arrays(path).items() if name.endswith("/w")]


def _kernel_shapes(model: "keras.Model") -> list[tuple[int, ...]]:
    return [tuple(layer.kernel.shape) for layer in _convolutions(model)]


def _same_but_for_head(found: "Counter[tuple[int, ...]]", wanted: "Counter[tuple[int, ...]]") -> bool:
    """Equal but for the head: at most its kernel and bias may have another number of classes."""
    extra, lacking = found - wanted, wanted - found
    return extra.total() == lacking.total() <= 2 and all(1000 in shape for shape in lacking)


def _convolutions(model: "keras.Model") -> list[Any]:
    """Layers with a kernel, in the order in which the network runs."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def _batch_norms(model: "keras.Model") -> list[Any]:
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
