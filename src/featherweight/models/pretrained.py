"""Pretrained weights: published ones by name, or from a file; `identify` tells which network a file belongs to.

| file | of | read by |
|---|---|---|
| `.weights.h5`, `.h5` | `keras.applications`' networks as published, and `reference` networks of ours | `load` |
| `.pth`, `.th`, `.safetensors` | our own networks, as torchvision and timm published them | `tensors`, without torch |
| `.npz` of `LAYER/w`, `LAYER/b` | MobileNets out of a `.tflite` file, SqueezeNet 1.1 out of Caffe | numpy |

A `.weights.h5` of ResNet-50, VGG-16 or EfficientNet-B0 is taken for Keras' own, which is made for another input than
ours and is fitted to it; one that was saved of our networks of these names is not for this way.

An `.npz` out of a `.tflite` file has its batch norm folded into the convolutions: here each batch norm then only
shifts. Training such a network on batch statistics would wreck it, so `train` keeps pretrained batch norms frozen.

Imports errors, modelfile and its neighbours; keras where it is used.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight import modelfile
from featherweight.errors import ModelFileError, WeightsError
from featherweight.modelfile import Kind
from featherweight.models.checkpoints import CHECKPOINTS
from featherweight.models.copying import set_layer_weights
from featherweight.models.download import fetch
from featherweight.models.load import load_weights_file, weight_shapes
from featherweight.models.nets import CAFFE, NETS, Application, Net, Scaling, net_named
from featherweight.models.tensors import read_tensors, state_dict
from featherweight.models.zoo import LOGITS, Shape, build, keras_trunk, reference

if TYPE_CHECKING:
    import keras

TORCH = (Kind.TORCH, Kind.SAFETENSORS)
# What SqueezeNet 1.1 was trained on by Caffe: BGR 0–255 minus these means, given here as RGB.
CAFFE_MEANS = (123.0, 117.0, 104.0)
# Beside its weights a checkpoint may hold what was counted while it was trained or profiled.
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
CAFFE_SQUEEZENET = "fire2/squeeze1x1/w"  # an array that no other network has
# torchvision's names of Caffe's fire modules.
SQUEEZENET_FIRES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}

EFFICIENTNET_DEVIATION = (0.229, 0.224, 0.225)

Arrays = Mapping[str, NDArray[Any]]


def build_pretrained(shape: Shape, classes: int, weights: str | None, channels: int = 3) -> "keras.Model":
    """A model with pretrained weights in its trunk and a new head.

    Args:
        shape: which network.
        classes: how many classes the new head tells apart.
        weights: `None` (random), "imagenet" (the published ones), or a file.
        channels: of the input. Grey answers as the same picture in RGB would, where all colours are scaled alike; a
            fourth channel starts with zero weights.

    Raises:
        WeightsError: a width without published weights, no network for the download, or a file that is absent, damaged
            or of another network.
    """
    model = build(shape, classes, channels=channels)
    if weights is not None:
        _copy_trunk(_imagenet(shape) if weights == "imagenet" else _from_file(shape, Path(weights)), model)
    return model


def published(shape: Shape, weights: str = "imagenet") -> "keras.Model":
    """A network whole, with its published head: RGB 0–255 → probabilities of its own classes.

    Raises:
        WeightsError: as `build_pretrained`; also for a network of `keras.applications` by "imagenet", which Keras
            itself gives whole.
    """
    net = net_named(shape.net)
    if weights == "imagenet" and isinstance(net.trunk, Application):
        raise WeightsError(f"{net.name} whole: keras.applications.{net.trunk.name}() gives it")
    return _imagenet(shape) if weights == "imagenet" else _from_file(shape, Path(weights))


def import_state(model: "keras.Model", net: str, state: Arrays) -> None:
    """Fill a `reference` model of ours with a checkpoint's arrays, in place.

    Layouts differ: PyTorch keeps a kernel as (out, in, h, w), Keras as (h, w, in, out). Every array of the checkpoint
    must be used and every weight of the model filled.

    Raises:
        WeightsError: an array is missing, left over, or of another shape.
    """
    naming = next((row.naming for (name, _), row in CHECKPOINTS.items() if name == net), None)
    if naming is None:
        raise WeightsError(f"no PyTorch weights are read for {net}; wanted a .weights.h5 of Keras")
    used: set[str] = set()
    filled: list[tuple[Any, list[NDArray[Any]]]] = []
    for layer in (layer for layer in model.layers if layer.weights):
        key = naming.key(layer.name)
        names = _array_names(layer, key)
        arrays = [_in_keras_layout(layer, np.asarray(_taken(state, name, net), np.float32)) for name in names]
        for name, array, weight in zip(names, arrays, layer.weights, strict=True):
            if array.shape != tuple(weight.shape):
                raise WeightsError(f"{name} gives {array.shape}; {net} wants {tuple(weight.shape)}: another network")
        used.update(names)
        filled.append((layer, arrays))
    left = [name for name in state if name not in used and not name.endswith(COUNTERS)]
    if left:
        raise WeightsError(f"{len(left)} arrays that {net} has no place for, as {left[0]!r}: another network")
    for layer, arrays in filled:
        layer.set_weights(arrays)


def identify(path: str | Path) -> list[tuple[str, float]]:
    """The (network, width) pairs of the zoo whose published form has just the arrays that are in the file.

    Raises:
        WeightsError: absent, not a weights file, damaged, or of no network of the zoo.
    """
    path = Path(path)
    kind = _kind(path)
    try:
        matches = _owners_of_state(state_dict(path)) if kind in TORCH else _owners_by_shapes(path, kind)
    except ModelFileError as error:
        raise WeightsError(str(error)) from error
    if not matches:
        raise WeightsError(
            f"{path} holds the weights of no network here; known: "
            + ", ".join(f"{net.name} (widths {', '.join(f'{w:g}' for w in net.widths)})" for net in NETS.values())
        )
    return matches


# ------------------------------------------------------------------------------------------------------ sources


def _imagenet(shape: Shape) -> "keras.Model":
    """The published network, with 3 channels and its own head or, for Keras' networks, some head."""
    net = net_named(shape.net)
    if shape.width not in net.widths:
        raise WeightsError(
            f"no ImageNet weights for {net.name} of width {shape.width:g}; published: "
            f"{', '.join(f'{w:g}' for w in net.widths)}"
        )
    if not isinstance(net.trunk, Application):
        return _downloaded(shape)
    try:
        model = keras_trunk(shape)
    except Exception as error:  # Keras turns a failed download into a bare Exception
        if "URL fetch failure" not in str(error):
            raise
        raise WeightsError(
            f"cannot download the ImageNet weights of {net.name} {shape.width:g} ({modelfile.one_line(error)}); "
            "connect once, or name a local file with --weights FILE, or train from nothing with --weights none"
        ) from error
    _for_our_input(model, net)
    return model


def _downloaded(shape: Shape) -> "keras.Model":
    """One of our own by its published checkpoint."""
    row = CHECKPOINTS.get((shape.net, shape.width))
    if row is None:
        raise WeightsError(
            f"nobody has published weights of {shape.net} in a form that is read here; train from nothing with "
            "--weights none, or name a local file"
        )
    if row.sha256 is None:
        raise WeightsError(
            f"the publisher of {shape.net} gives no checksum to hold a download against; fetch {row.url} yourself "
            "and name the file with --weights FILE"
        )
    return _from_file(shape, fetch(row.url, row.sha256, row.file))


def _from_file(shape: Shape, path: Path) -> "keras.Model":
    """The published form of the network with a file's weights."""
    net = net_named(shape.net)
    kind = _kind(path)
    # The size of the input is the user's, but where the weights depend on it.
    size = net.size if net.name == "vgg16" else shape.size
    model = reference(net, shape.width, size)
    misfit = f"{path} does not fit {shape.net} of width {shape.width:g}"
    try:
        if kind in TORCH:
            import_state(model, net.name, state_dict(path))
        elif kind == Kind.NPZ:
            _fill_from_npz(model, net, read_tensors(path))
        else:
            model = _with_its_head(model, net, shape.width, size, path)
            load_weights_file(model, path)
            _for_our_input(model, net)
    except (ModelFileError, WeightsError, KeyError, ValueError) as error:
        raise WeightsError(f"{misfit} with {net.classes} classes: {modelfile.one_line(error)}") from error
    return model


def _fill_from_npz(model: "keras.Model", net: Net, arrays: Arrays) -> None:
    if CAFFE_SQUEEZENET in arrays:
        import_state(model, net.name, _state_of_caffe_squeezenet(arrays, net.scaling))
    else:
        _fill_folded(model, arrays)


def _fill_folded(model: "keras.Model", arrays: Arrays) -> None:
    """Kernels and biases in layer order → kernels and batch norms that only shift: (x - 0) / sqrt(1 + e) · g + bias."""
    kernels = [array for name, array in arrays.items() if name.endswith("/w")]
    biases = [array for name, array in arrays.items() if name.endswith("/b")]
    convolutions = _convolutions(model)
    plain = [layer for layer in convolutions[:-1] if not layer.use_bias]
    fits = len(kernels) == len(biases) == len(convolutions) == len(plain) + 1 == len(_batch_norms(model)) + 1 and all(
        tuple(layer.kernel.shape)[:-1] == kernel.shape[:-1] for layer, kernel in zip(convolutions, kernels, strict=True)
    )
    if not fits:
        raise WeightsError("other kernels in it")
    norms = iter(_batch_norms(model))
    _fill_head(convolutions[-1], kernels[-1], biases[-1])
    for layer, kernel, bias in zip(convolutions[:-1], kernels[:-1], biases[:-1], strict=True):
        layer.set_weights([kernel])
        norm = next(norms)
        channels = np.ones(len(bias), np.float32)
        norm.set_weights([channels * np.sqrt(1 + norm.epsilon), bias, 0 * channels, channels])


def _fill_head(layer: Any, kernel: NDArray[Any], bias: NDArray[Any]) -> None:
    """The head of 1000 classes; TensorFlow's mobile networks have one more before them, the background."""
    classes = layer.kernel.shape[-1]
    if kernel.shape[-1] == classes + 1:
        kernel, bias = kernel[..., 1:], bias[1:]
    layer.set_weights([kernel.reshape(layer.kernel.shape), bias])


def _with_its_head(model: "keras.Model", net: Net, width: float, size: int, path: Path) -> "keras.Model":
    """The model with a head for the file's number of classes, where that is all that differs."""
    found = Counter(weight_shapes(path).values())
    wanted = Counter(tuple(weight.shape) for weight in model.weights)
    if found == wanted or not _same_but_for_head(found, wanted, net.classes):
        return model
    return reference(net, width, size, classes=max(shape[-1] for shape in found - wanted if len(shape) == 1))


# --------------------------------------------------------------------------------------------- what layers mean


def _array_names(layer: Any, key: str) -> list[str]:
    """The checkpoint's arrays in the order of the layer's weights."""
    import keras

    if isinstance(layer, keras.layers.BatchNormalization):
        return [f"{key}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    return [f"{key}.{leaf}" for leaf in ("weight", "bias")[: len(layer.weights)]]


def _taken(state: Arrays, name: str, net: str) -> NDArray[Any]:
    if name not in state:
        raise WeightsError(f"no array {name!r} in it, which {net} wants: another network, or a part of one")
    return state[name]


def _in_keras_layout(layer: Any, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """From PyTorch's layout: (o, i, h, w) → (h, w, i, o), depthwise (c, 1, h, w) → (h, w, c, 1), (o, i) → (i, o)."""
    import keras

    if array.ndim == 4 and isinstance(layer, keras.layers.DepthwiseConv2D):
        channels = layer.kernel.shape[2]
        if array.size % (channels * array.shape[2] * array.shape[3]):
            raise WeightsError(f"a depthwise kernel {array.shape} for {channels} channels: another network")
        return array.reshape(channels, -1, *array.shape[2:]).transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _state_of_caffe_squeezenet(arrays: Arrays, scaling: Scaling) -> dict[str, NDArray[np.float32]]:
    """Caffe's SqueezeNet 1.1, with (out, in, h, w) kernels, under torchvision's names and for our input.

    Caffe's first kernel w sees BGR x - mean; ours sees z = x · s + o in RGB. Nothing is padded before it, so that it
    can take the difference up exactly: w' = w / s, b' = b - Σ w · mean - Σ w' · o.
    """
    state = {}
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition("/")
        fire = re.fullmatch(r"fire(\d)/(\w+?)(1x1|3x3)", layer)
        if fire is not None:
            part = "squeeze" if fire[2] == "squeeze" else f"expand{fire[3]}"
            key = f"features.{SQUEEZENET_FIRES[int(fire[1])]}.{part}"
        else:
            key = {"conv1": "features.0", "conv10": "classifier.1"}[layer]
        state[f"{key}.{ {'w': 'weight', 'b': 'bias'}[leaf] }"] = np.asarray(array, np.float32)
    kernel = state["features.0.weight"][:, ::-1].astype(np.float64)
    rescaled = kernel / np.reshape(scaling.scale, (1, 3, 1, 1))
    shift = (kernel * np.reshape(CAFFE_MEANS, (1, 3, 1, 1)) + rescaled * np.reshape(scaling.offset, (1, 3, 1, 1))).sum(
        axis=(1, 2, 3)
    )
    state["features.0.weight"] = rescaled.astype(np.float32)
    state["features.0.bias"] = (state["features.0.bias"] - shift).astype(np.float32)
    return state


def _for_our_input(model: "keras.Model", net: Net) -> None:
    """Take up into Keras' published weights, exactly, what Keras does to the input beside them.

    ResNet and VGG were trained on BGR minus means; our input is RGB and divided by 127.5 as well: both go into the
    first kernel, because the padding of zeros is zero in both. EfficientNet is built with another division, by the
    root of each colour's deviation, for published weights only: it goes into the variance of its normalization.
    """
    import keras

    if net.scaling == CAFFE:
        first = _convolutions(model)[0]
        kernel, *rest = first.get_weights()
        first.set_weights([kernel[:, :, ::-1] * np.float32(127.5), *rest])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and np.any(layer.get_weights()[0]):
            mean, variance, *count = layer.get_weights()
            set_layer_weights(layer, [mean, variance * np.array(EFFICIENTNET_DEVIATION, np.float32), *count])


def _copy_trunk(source: "keras.Model", model: "keras.Model") -> None:
    """Weights by layer name, the head's left out; the first layers are fitted to other channels."""
    by_name = {_fixed_name(layer): layer for layer in source.layers if layer.weights}
    channels = model.inputs[0].shape[-1]
    for layer in (layer for layer in model.layers if layer.weights and layer.name != LOGITS):
        arrays = by_name[_fixed_name(layer)].get_weights()
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if shapes != [array.shape for array in arrays]:  # it sees the picture, and that has other channels
            if type(layer).__name__ == "Normalization":
                arrays = [_spread(array, channels) for array in arrays]
            elif len(shapes[0]) == 4 and shapes[0][2] == channels:
                arrays[0] = _for_channels(arrays[0], channels)
        if shapes != [array.shape for array in arrays]:
            raise WeightsError(
                f"{layer.name} has weights for 3 input channels and no way to {channels}; use 3, or --weights none"
            )
        set_layer_weights(layer, arrays)


def _fixed_name(layer: Any) -> str:
    """Keras numbers the normalization of EfficientNet anew in every model."""
    return "normalization" if type(layer).__name__ == "Normalization" else str(layer.name)


def _for_channels(kernel: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """(h, w, 3, out) → (h, w, channels, out): the sum over colours for grey, zeros for a fourth channel."""
    if channels == 1:
        return np.asarray(kernel.sum(axis=2, keepdims=True), np.float32)
    return np.concatenate([kernel, np.zeros_like(kernel[:, :, :1])], axis=2)


def _spread(statistic: NDArray[Any], channels: int) -> NDArray[Any]:
    """A mean or variance a colour → a channel, as `Scaling.of`; a count stays."""
    if statistic.ndim == 0:
        return statistic
    grey = statistic.mean(keepdims=True)
    return grey if channels == 1 else np.concatenate([statistic, grey])


# ------------------------------------------------------------------------------------------------- whose is it?


def _owners_of_state(state: Arrays) -> list[tuple[str, float]]:
    """The networks with so many parameters that the arrays fill, all of them, by name."""
    count = sum(array.size for name, array in state.items() if name.endswith((".weight", ".bias")))
    owners = []
    for name, width in CHECKPOINTS:
        net = NETS[name]
        if count == next(row.parameters for row in net.published if row.width == width):
            with contextlib.suppress(WeightsError, ValueError):
                import_state(reference(net, width, net.size), name, state)
                owners.append((name, width))
    return owners


def _owners_by_shapes(path: Path, kind: Kind) -> list[tuple[str, float]]:
    """The network with the same multiset of shapes; those whose size is nearest are built and compared first."""
    if kind == Kind.NPZ:
        arrays = read_tensors(path)
        if CAFFE_SQUEEZENET in arrays:
            return [("squeezenet_1_1", 1.0)]
        shapes = [array.shape for name, array in arrays.items() if name.endswith("/w")]
        if not shapes:
            raise WeightsError(f"{path} has no kernels; wanted arrays named LAYER/w and LAYER/b in layer order")
    else:
        shapes = list(weight_shapes(path).values())
    found = Counter(shapes)
    for net, width in _by_size(sum(int(np.prod(shape)) for shape in shapes)):
        model = reference(net, width, net.size)
        wanted = _kernel_shapes(model) if kind == Kind.NPZ else [tuple(w.shape) for w in model.weights]
        if _same_but_for_head(found, Counter(wanted), net.classes):
            return [(net.name, width)]
    return []


def _by_size(count: int) -> Iterator[tuple[Net, float]]:
    """The published networks of about so many numbers, the nearest first: heads and batch-norm statistics differ."""
    rows = [(abs(count / row.parameters - 1), net, row) for net in NETS.values() for row in net.published]
    for distance, net, row in sorted(rows, key=lambda found: found[0]):
        if distance < 0.7:
            yield net, row.width


def _kind(path: Path) -> Kind:
    """As `modelfile.identify`, of the kinds that hold weights.

    Raises:
        WeightsError: absent, or of another kind.
    """
    try:
        kind = modelfile.identify(path)
    except ModelFileError as error:
        raise WeightsError(f"cannot read the weights: {error}") from error
    if kind not in (*TORCH, Kind.NPZ, Kind.HDF5):
        raise WeightsError(f"{path} is of kind {kind}; wanted .weights.h5, .npz, .pth, .th or .safetensors")
    return kind


def _kernel_shapes(model: "keras.Model") -> list[tuple[int, ...]]:
    return [tuple(layer.kernel.shape) for layer in _convolutions(model)]


def _same_but_for_head(found: "Counter[tuple[int, ...]]", wanted: "Counter[tuple[int, ...]]", classes: int) -> bool:
    """Equal but for the head: at most its kernel and bias may have another number of classes."""
    extra, lacking = found - wanted, wanted - found
    return extra.total() == lacking.total() <= 2 and all(classes in shape for shape in lacking)


def _convolutions(model: "keras.Model") -> list[Any]:
    """Layers with a kernel, in the order in which the network runs."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def _batch_norms(model: "keras.Model") -> list[Any]:
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
