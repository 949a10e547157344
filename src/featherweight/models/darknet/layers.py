"""Each section of a planned Darknet network as Keras layers: one maker a section, one table.

Layers are named by the section and Darknet's own number of it (`conv12`, `conv12_norm`). Padding is Darknet's, on both
sides of a strided window.

Imports activations, blocks, local and plan; keras with this module: it is imported where it is used.
"""

from collections.abc import Callable
from typing import Any

from keras import layers

from featherweight.models.blocks import ChannelPad, ChannelSlice
from featherweight.models.darknet.activations import activated, scaled
from featherweight.models.darknet.plan import PICTURE, Plan, Planned
from featherweight.models.local import LocalConvolution

Tensor = Any
MOMENTUM = 0.9  # of Darknet's rolling means
NAMES = {"convolutional": "conv", "connected": "dense", "gaussian_yolo": "yolo"}
FEATURES, LOGITS, PROBABILITIES = "features", "logits", "probabilities"  # as in the zoo


class Making:
    """The network while it is made: a tensor a section, and the layers that take weights."""

    def __init__(self, plan: Plan, scaled: Tensor, epsilon: float):
        self.plan, self.tensors, self.epsilon = plan, {PICTURE: scaled}, epsilon
        self.maps: dict[int, Tensor] = {}  # of what is a vector
        self.weighted: dict[tuple[int, str], Any] = {}  # the keys of `weights.Arrays`
        kinds = [(layer.kind, layer.number) for layer in plan.layers if layer.kind not in ("cost", "empty", "dropout")]
        ends = kinds[-1:] if kinds and kinds[-1][0] == "softmax" else []
        self.end = ends[0][1] if ends else None  # the softmax that ends a classifier
        pools = [number for kind, number in kinds if kind == "avgpool"]
        self.pool = pools[-1] if ends and pools else None

    def map(self, number: int) -> Tensor:
        """What a section gives, as (n, h, w, c)."""
        x, (height, width, channels) = self.tensors[number], self.plan.shape(number)
        if len(x.shape) == 2 and number not in self.maps:
            if (height, width) != (1, 1):
                x = layers.Reshape((channels, height, width), name=f"map{number}_by_channel")(x)
                self.maps[number] = layers.Permute((2, 3, 1), name=f"map{number}")(x)
            else:
                self.maps[number] = layers.Reshape((1, 1, channels), name=f"map{number}")(x)
        return self.maps.get(number, x)

    def vector(self, number: int, name: str) -> Tensor:
        """What a section gives, as (n, numbers) in Darknet's order: channel by channel."""
        x = self.tensors[number]
        if len(x.shape) == 2:
            return x
        if self.plan.shape(number)[:2] != (1, 1):
            x = layers.Permute((3, 1, 2), name=f"{name}_by_channel")(x)
        return layers.Flatten(name=name)(x)


def name_of(layer: Planned) -> str:
    """The name of the Keras layer, or the beginning of the names of several."""
    return f"{NAMES.get(layer.kind, layer.kind)}{layer.number}"


def make(making: Making, layer: Planned) -> Tensor:
    """The layer's output; notes what takes weights."""
    x = MAKERS[layer.kind](making, layer)
    return activated(x, layer.settings["activation"], name_of(layer)) if "activation" in layer.settings else x


# --------------------------------------------------------------------------------------- convolutions, dense layers


def _convolutional(making: Making, layer: Planned) -> Tensor:
    settings, name, x = layer.settings, name_of(layer), making.map(layer.number - 1)
    size, padding, dilation = settings["size"], settings["padding"], settings["dilation"]
    how = "valid"
    if padding and settings["strides"] == (1, 1) and 2 * padding == (size - 1) * dilation:
        how = "same"
    elif padding:
        x = layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    alike = {"padding": how, "dilation_rate": dilation, "use_bias": not settings["norm"], "name": name}
    if settings["depthwise"]:
        multiplier = layer.shape[2] // settings["groups"]
        kernel = layers.DepthwiseConv2D(size, settings["strides"], depth_multiplier=multiplier, **alike)
    else:
        kernel = layers.Conv2D(layer.shape[2], size, settings["strides"], groups=settings["groups"], **alike)
    return _normed(making, layer, kernel, x)


def _normed(making: Making, layer: Planned, kernel: Any, x: Tensor) -> Tensor:
    making.weighted[layer.number, "kernel"] = kernel
    x = kernel(x)
    return _norm(making, layer, f"{kernel.name}_norm", x) if layer.settings["norm"] else x


def _norm(making: Making, layer: Planned, name: str, x: Tensor) -> Tensor:
    norm = layers.BatchNormalization(momentum=MOMENTUM, epsilon=making.epsilon, name=name)
    making.weighted[layer.number, "norm"] = norm
    return norm(x)


def _connected(making: Making, layer: Planned) -> Tensor:
    x, name, before = making.tensors[layer.number - 1], name_of(layer), layer.number - 1
    if len(x.shape) == 4 or making.plan.shape(before)[:2] != (1, 1):
        x = making.map(before)
        x = layers.Flatten(name=f"{name}_flat")(x)  # place by place; the weights are put in that order
    return _normed(making, layer, layers.Dense(layer.shape[2], use_bias=not layer.settings["norm"], name=name), x)


def _local(making: Making, layer: Planned) -> Tensor:
    settings = layer.settings
    kernel = LocalConvolution(
        layer.shape[2], settings["size"], settings["stride"], settings["padding"], name=name_of(layer)
    )
    making.weighted[layer.number, "kernel"] = kernel
    return kernel(making.map(layer.number - 1))


def _batchnorm(making: Making, layer: Planned) -> Tensor:
    return _norm(making, layer, name_of(layer), making.map(layer.number - 1))


# ---------------------------------------------------------------------------------------------- pools, other sizes


def _pool(making: Making, layer: Planned) -> Tensor:
    settings, name, x = layer.settings, name_of(layer), making.map(layer.number - 1)
    kind = layers.MaxPooling2D if layer.kind == "maxpool" else layers.AveragePooling2D
    if settings["how"] != "thinned":
        return kind(settings["size"], settings["strides"], settings["how"], name=name)(x)
    # Keras pads a strided window less on the left than Darknet does, and pads maxima with zeros nowhere.
    x = kind(settings["size"], 1, "same", name=name)(x)
    if settings["late"]:
        x = layers.Cropping2D(((settings["late"], 0), (settings["late"], 0)), name=f"{name}_crop")(x)
    x = layers.MaxPooling2D(1, settings["strides"], name=f"{name}_thin")(x)
    down, across = (int(x.shape[axis]) - layer.shape[axis - 1] for axis in (1, 2))
    if down or across:
        x = layers.Cropping2D(((0, down), (0, across)), name=f"{name}_rest")(x)
    return x


def _avgpool(making: Making, layer: Planned) -> Tensor:
    is_feature = layer.number == making.pool and any(
        later.kind in ("convolutional", "connected") for later in making.plan.layers[layer.number + 1 :]
    )
    name = FEATURES if is_feature else name_of(layer)
    return layers.GlobalAveragePooling2D(keepdims=True, name=name)(making.map(layer.number - 1))


def _upsample(making: Making, layer: Planned) -> Tensor:
    stride, scale, name = layer.settings["stride"], layer.settings["scale"], name_of(layer)
    x = making.map(layer.number - 1)
    if stride < 0:  # sums of squares
        scale *= stride**2
        x = layers.AveragePooling2D(-stride, name=name)(x)
    elif stride > 1:
        x = layers.UpSampling2D(stride, interpolation="nearest", name=name)(x)
    return x if scale == 1 else scaled(x, scale, 0.0, f"{name}_scale")


def _reorg(making: Making, layer: Planned) -> Tensor:
    """Channel k · c + j of what is given is channel j at place k of the square.

    [reorg] reads its input as if it had stride² times fewer channels on a map stride times as wide and high; so were
    YOLOv2's weights trained.
    """
    (height, width, channels), stride, name = layer.shape, layer.settings["stride"], name_of(layer)
    given, x = channels // stride**2, making.map(layer.number - 1)
    if layer.kind == "reorg3d":
        x = layers.Reshape((height, stride, width, stride, given), name=f"{name}_squares")(x)
        x = layers.Permute((1, 3, 2, 4, 5), name=f"{name}_order")(x)
        return layers.Reshape(layer.shape, name=name)(x)
    x = layers.Permute((3, 1, 2), name=f"{name}_by_channel")(x)
    wide = (given // stride**2, height * stride, stride, width * stride, stride)
    x = layers.Reshape(wide, name=f"{name}_squares")(x)
    x = layers.Permute((3, 5, 1, 2, 4), name=f"{name}_order")(x)
    x = layers.Reshape((channels, height, width), name=f"{name}_smaller")(x)
    return layers.Permute((2, 3, 1), name=name)(x)


def _crop(making: Making, layer: Planned) -> Tensor:
    x, name = making.map(layer.number - 1), name_of(layer)
    sides = [int(x.shape[axis]) - layer.shape[axis - 1] for axis in (1, 2)]
    cuts = tuple((less // 2, less - less // 2) for less in sides)
    x = layers.Cropping2D(cuts, name=name)(x)
    return scaled(x, 2.0, -1.0, f"{name}_adjust") if layer.settings["adjust"] else x


# --------------------------------------------------------------------------------------------------- several sources


def _route(making: Making, layer: Planned) -> Tensor:
    groups, group, name = layer.settings["groups"], layer.settings["group"], name_of(layer)
    parts = [making.map(source) for source in layer.sources]
    if groups > 1:
        widths = [int(part.shape[-1]) // groups for part in parts]
        parts = [
            ChannelSlice(group * width, (group + 1) * width, name=f"{name}_part{place}")(part)
            for place, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
    return layers.Concatenate(name=name)(parts) if len(parts) > 1 else parts[0]


def _shortcut(making: Making, layer: Planned) -> Tensor:
    name, settings = name_of(layer), layer.settings
    parts = [making.map(layer.sources[0])]
    parts += [_alike(making.map(source), layer, f"{name}_{place}") for place, source in enumerate(layer.sources[1:])]
    if settings["weighted"]:
        for place in range(len(parts)):
            weight = layers.DepthwiseConv2D(1, use_bias=False, name=f"{name}_weight{place}")
            making.weighted[layer.number, f"weight{place}"] = weight
            parts[place] = weight(parts[place])
    scales = (settings["scales"][0], *[settings["scales"][1]] * (len(parts) - 1))
    parts = [
        x if scale == 1 else scaled(x, scale, 0.0, f"{name}_scale{place}")
        for place, (x, scale) in enumerate(zip(parts, scales, strict=True))
    ]
    return layers.Add(name=name)(parts)


def _alike(x: Tensor, layer: Planned, name: str) -> Tensor:
    """With the shape of the layer: thinned, cut or filled up."""
    (height, _, channels), given = layer.shape, int(x.shape[-1])
    if int(x.shape[1]) != height:
        x = layers.MaxPooling2D(1, int(x.shape[1]) // height, name=f"{name}_thin")(x)
    if given > channels:
        return ChannelSlice(0, channels, name=f"{name}_cut")(x)
    return ChannelPad(0, channels - given, name=f"{name}_fill")(x) if given < channels else x


def _product(making: Making, layer: Planned) -> Tensor:
    first, second = layer.sources
    return layers.Multiply(name=name_of(layer))([making.map(second), making.map(first)])


# ---------------------------------------------------------------------------------------------------------- the rest


def _same(making: Making, layer: Planned) -> Tensor:
    return making.tensors[layer.number - 1]


def _dropout(making: Making, layer: Planned) -> Tensor:
    return layers.Dropout(layer.settings["share"], name=name_of(layer))(making.tensors[layer.number - 1])


def _softmax(making: Making, layer: Planned) -> Tensor:
    settings, name, ends = layer.settings, name_of(layer), layer.number == making.end
    if settings["spatial"]:
        return layers.Softmax(name=name)(making.map(layer.number - 1))
    x = making.vector(layer.number - 1, LOGITS if ends else f"{name}_flat")
    if settings["temperature"] != 1:
        x = scaled(x, 1 / settings["temperature"], 0.0, f"{name}_temperature")
    if settings["groups"] == 1:
        return layers.Softmax(name=PROBABILITIES if ends else name)(x)
    numbers = int(x.shape[-1])
    x = layers.Reshape((settings["groups"], numbers // settings["groups"]), name=f"{name}_groups")(x)
    return layers.Flatten(name=f"{name}_joined")(layers.Softmax(name=name)(x))


MAKERS: dict[str, Callable[[Making, Planned], Tensor]] = {
    "convolutional": _convolutional, "connected": _connected, "local": _local, "maxpool": _pool,
    "local_avgpool": _pool, "avgpool": _avgpool, "upsample": _upsample, "reorg": _reorg, "reorg3d": _reorg,
    "route": _route, "shortcut": _shortcut, "scale_channels": _product, "sam": _product, "dropout": _dropout,
    "batchnorm": _batchnorm, "activation": _same, "cost": _same, "empty": _same, "crop": _crop, "softmax": _softmax,
}  # fmt: skip
