"""Networks as Keras models: `build` puts a head for the user's classes on a trunk, `reference` is the published form.

Each model takes RGB 0–255 (n, h, w, 3) as float32 and gives probabilities (n, classes). The scaling that the trunk was
trained with is its first layer. The layer `features` is what the head sees.

In scope: architecture. Not aware of: data, training, files. Imports errors, nets and stages; keras and blocks where
they are used.
"""

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from featherweight.errors import SettingError
from featherweight.models.copying import copy_weights
from featherweight.models.nets import UNSCALED, Application, Net, net_named
from featherweight.models.segmenter_nets import row_named, trunk_named
from featherweight.models.stages import Style, Trunk, Units

if TYPE_CHECKING:
    import keras

FEATURES = "features"
LOGITS = "logits"
MIN_SIZE = 32
SMALL_SIZE = 32  # at this input size the first two strides are 1, as it is usual for CIFAR
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Shape:
    """What makes one network out of a row, of the zoo or of `SEGMENTERS`: width multiplier and input size in pixels."""

    net: str
    width: float
    size: int

    def __str__(self) -> str:
        return f"{self.net}-{self.width:g}-{self.size}"

    def __post_init__(self) -> None:
        row_named(self.net)
        if not 0.1 <= self.width <= 4:
            raise SettingError(f"width {self.width}; wanted 0.1 to 4")
        if not MIN_SIZE <= self.size <= 1024:
            raise SettingError(f"input size {self.size}; wanted {MIN_SIZE} to 1024 pixels")


def build(shape: Shape, classes: int, dropout: float = 0.2, channels: int = 3) -> "keras.Model":
    """A new model with random weights: scaling, trunk, pooling (`features`), dropout, a dense head (`logits`), softmax.

    At 32 pixels the first two strides are 1, where the network was not made for that size.

    Args:
        shape: which network.
        classes: how many classes the head tells apart.
        dropout: the share of features dropped in training.
        channels: of the input: 1 (grey), 3 (RGB) or 4 (RGB and one more, 0–255 too).

    Raises:
        SettingError: fewer than two classes, other channels, or a network that is a segmenter only.
    """
    import keras

    if classes < 2:
        raise SettingError(f"{classes} classes; wanted at least 2")
    net = trunk_named(shape.net)
    if isinstance(net.trunk, Trunk):
        inputs, x = _scaled_input(net, shape.size, channels)
        features = _own_features(net, shape, x)
    else:
        trunk = _wrapped(net, shape, channels, None, include_top=False)
        inputs = trunk.inputs[0]
        features = keras.layers.GlobalAveragePooling2D(name=FEATURES)(trunk.outputs[0])
    outputs = _head(features, classes, dropout)
    return keras.Model(inputs, outputs, name=str(shape).replace(".", "_"))


def keras_trunk(shape: Shape) -> "keras.Model":
    """The trunk of a network of `keras.applications` with the weights that Keras downloads, as they are: for the input
    that they were trained on (`pretrained` fits them to ours).
    """
    return _wrapped(net_named(shape.net), shape, 3, "imagenet", include_top=False)


def reference(
    net: Net, width: float, size: int | None = None, channels: int = 3, classes: int | None = None
) -> "keras.Model":
    """The network as it was published, with its own head, by default for its own classes, and random weights.

    It takes RGB 0–255 as `build`'s, by default of the published size. Of our own only SqueezeNet differs from
    `build`'s: its head is a convolution with a ReLU before the pooling. `keras.applications`' have their own heads.
    """
    import keras

    shape, classes = Shape(net.name, width, size or net.size), classes or net.classes
    if isinstance(net.trunk, Application):
        full = _wrapped(net, shape, channels, None, include_top=True, classes=classes)
        return keras.Model(full.inputs[0], full.outputs[0], name=str(shape).replace(".", "_"))
    inputs, x = _scaled_input(net, shape.size, channels)
    if net.name.startswith("squeezenet"):
        outputs = _convolution_head(_own_map(net.trunk, shape, x, small=False), classes)
    else:
        outputs = _head(_own_features(net, shape, x), classes, 0.2)
    return keras.Model(inputs, outputs, name=str(shape).replace(".", "_"))


def endpoints(net: Net, model: "keras.Model") -> dict[int, str]:
    """Stride → the layer whose output is the last of that stride in the trunk, for heads of detection and
    segmentation: of a block, not of its inside.

    Strides are those of this model: one of 32 pixels has smaller ones. A stride is missing where a network has no block
    of it.
    """
    small = model.input_shape[1] <= SMALL_SIZE < net.size
    if isinstance(net.trunk, Application):
        names = [_endpoint(model, name) for name in net.trunk.endpoints]
        gone = 2 ** sum("strides" in settings for settings in net.trunk.small.values()) if small else 1
        return {max(1, 2**place // gone): name for place, name in enumerate(names, 1)}
    strides = _stage_strides(_for_small_pictures(net.trunk) if small else net.trunk)
    last: dict[int, str] = {}
    for layer in model.layers:
        stage = re.match(r"stem_pool|stem|stage\d+|tail", layer.name)
        if stage and len(layer.output.shape) == 4 and not layer.name.endswith("_pad"):
            last[strides[stage[0]]] = layer.name
    return last


def coarsest_stride(net: Net) -> int:
    """The greatest of `endpoints`, but for small pictures."""
    trunk = net.trunk
    return 2 ** len(trunk.endpoints) if isinstance(trunk, Application) else max(_stage_strides(trunk).values())


# --------------------------------------------------------------------------------------------------- both kinds


def _scaled_input(net: Net, size: int, channels: int) -> tuple[Any, Any]:
    import keras

    if channels not in CHANNELS:
        raise SettingError(f"{channels} input channels; wanted 1, 3 or 4")
    inputs = keras.Input((size, size, channels), name="image")
    if net.scaling == UNSCALED:
        return inputs, inputs
    scale, offset = net.scaling.of(channels)
    even = len(set(scale)) == len(set(offset)) == 1
    layer = keras.layers.Rescaling(scale[0] if even else scale, offset[0] if even else offset, name="scale")
    return inputs, layer(inputs)


def _head(features: Any, classes: int, dropout: float) -> Any:
    import keras

    x = keras.layers.Dropout(dropout, name="dropout")(features)
    x = keras.layers.Dense(classes, name=LOGITS)(x)
    return keras.layers.Softmax(name="probabilities")(x)


# ------------------------------------------------------------------------------------------------ our own trunks


def _own_features(net: Net, shape: Shape, x: Any) -> Any:
    import keras

    from featherweight.models import blocks

    assert isinstance(net.trunk, Trunk)
    trunk = net.trunk
    x = _own_map(trunk, shape, x, small=shape.size <= SMALL_SIZE < net.size)
    if trunk.head is None:
        return keras.layers.GlobalAveragePooling2D(name=FEATURES)(x)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = _units(blocks.BLOCKS, trunk, trunk.head, x, shape.width, ["head"])
    return keras.layers.Flatten(name=FEATURES)(x)


def _own_map(trunk: Trunk, shape: Shape, x: Any, small: bool) -> Any:
    """The last feature map."""
    from featherweight.models import blocks

    if small:
        trunk = _for_small_pictures(trunk)
    if trunk.stem is not None:
        x = _units(blocks.BLOCKS, trunk, trunk.stem, x, shape.width, ["stem"])
    if trunk.stem_pool:
        x = blocks.max_pool(x, name="stem_pool", style=trunk.style)
    for number, stage in enumerate(trunk.stages):
        block = 0
        for units in stage:
            names = [f"stage{number}_block{block + i}" for i in range(units.repeats)]
            x = _units(blocks.BLOCKS, trunk, units, x, shape.width, names)
            block += units.repeats
    if trunk.tail is not None:
        x = _units(blocks.BLOCKS, trunk, trunk.tail, x, shape.width, ["tail"])
    return x


def _units(
    known: Mapping[str, Callable[..., Any]], trunk: Trunk, units: Units, x: Any, width: float, names: list[str]
) -> Any:
    """One row of a stage table: its block once a name, the first with the strides."""
    settings = {
        key: trunk.scale(value, width) if key in trunk.scaled_settings else value
        for key, value in units.settings.items()
    }
    if units.block != "fire":  # the only one without batch norm and with an activation of its own
        settings["style"] = trunk.style
    filters = trunk.scale(units.filters, width) if units.scaled else units.filters
    for number, name in enumerate(names):
        x = known[units.block](x, filters, strides=1 if number else units.strides, name=name, **settings)
    return x


def _stage_strides(trunk: Trunk) -> dict[str, int]:
    """How many input pixels lie between two places behind the stem, its pooling, each stage and the tail."""
    stride = trunk.stem.strides if trunk.stem else 1
    found = {"stem": stride}
    stride *= 2 if trunk.stem_pool else 1
    found["stem_pool"] = stride
    for number, stage in enumerate(trunk.stages):
        stride *= math.prod(units.strides for units in stage)
        found[f"stage{number}"] = stride
    return {**found, "tail": stride}


def _for_small_pictures(trunk: Trunk) -> Trunk:
    """The same trunk with its first two strides gone, so that 32 pixels end as a map of 4×4 and not of one place."""
    left = 2

    def plain(units: Units) -> Units:
        nonlocal left
        if units.strides == 1 or not left:
            return units
        left -= 1
        return replace(units, strides=1)

    stem = trunk.stem and plain(trunk.stem)
    pool = trunk.stem_pool and not left
    left -= trunk.stem_pool and not pool
    return replace(
        trunk, stem=stem, stem_pool=pool, stages=tuple(tuple(plain(u) for u in stage) for stage in trunk.stages)
    )


def _convolution_head(x: Any, classes: int) -> Any:
    """SqueezeNet's: dropout, a 1×1 convolution to the classes, ReLU, pooling. Iandola et al. 2016, §3.3."""
    import keras

    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Conv2D(classes, 1, activation="relu", name="head")(x)
    x = keras.layers.GlobalAveragePooling2D(name=LOGITS)(x)
    return keras.layers.Softmax(name="probabilities")(x)


# ----------------------------------------------------------------------------------------------- wrapped trunks


def _wrapped(
    net: Net, shape: Shape, channels: int, weights: str | None, include_top: bool, classes: int = 1000
) -> "keras.Model":
    """A network of `keras.applications` behind our scaling."""
    import keras

    application = net.trunk
    assert isinstance(application, Application)
    small = shape.size <= SMALL_SIZE
    _, x = _scaled_input(net, (small and application.small_from) or shape.size, channels)
    top = {"include_top": include_top, **({"classes": classes} if include_top else {})}
    model = _application(application, x, shape.width, weights, top)
    width = 1.0 if application.takes_width else shape.width
    if width != 1 or (small and application.small):
        model = _adapted(model, application, width, application.small if small else {}, shape.size)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = Style().momentum
    return model


def _endpoint(model: "keras.Model", name: str) -> str:
    """The layer that an entry of `Application.endpoints` means."""
    if name.endswith(">"):
        tensor = model.get_layer(name.removesuffix(">")).output
        return str(next(layer.name for layer in model.layers if layer.input is tensor))
    names = {layer.name for layer in model.layers}
    return next(option for option in name.split("|") if option in names)


def _application(
    application: Application, x: Any, width: float, weights: str | None, top: Mapping[str, Any]
) -> "keras.Model":
    import keras

    functions: dict[str, Callable[..., keras.Model]] = {
        "EfficientNetB0": keras.applications.EfficientNetB0,
        "MobileNet": keras.applications.MobileNet,
        "MobileNetV2": keras.applications.MobileNetV2,
        "MobileNetV3Large": keras.applications.MobileNetV3Large,
        "MobileNetV3Small": keras.applications.MobileNetV3Small,
        "NASNetMobile": keras.applications.NASNetMobile,
        "ResNet50": keras.applications.ResNet50,
        "VGG16": keras.applications.VGG16,
    }
    settings = {**application.settings, **({"alpha": width} if application.takes_width else {})}
    with warnings.catch_warnings():
        # Keras warns that weights of 224 pixels are taken for other sizes (a trunk of convolutions fits them all) and
        # of inputs that are neither grey nor RGB.
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)
        warnings.filterwarnings("ignore", "This model usually expects 1 or 3 input channels", UserWarning)
        return functions[application.name](
            input_tensor=x, input_shape=tuple(x.shape[1:]), weights=weights, **top, **settings
        )


def _adapted(
    model: "keras.Model", application: Application, width: float, small: Mapping[str, Mapping[str, Any]], size: int
) -> "keras.Model":
    """A copy for inputs of that size, with scaled filters and with the changes for small pictures.

    Weights are kept where the width is 1.
    """
    import keras

    def changed(layer: "keras.Layer") -> "keras.Layer":
        settings = layer.get_config()
        if width != 1 and "filters" in settings:
            settings["filters"] = application.scale(settings["filters"], width)
        if width != 1 and isinstance(layer, keras.layers.Reshape):  # of an excitation: (1, 1, filters)
            *places, filters = settings["target_shape"]
            settings["target_shape"] = (*places, application.scale(filters, width))
        return type(layer).from_config({**settings, **small.get(layer.name, {})})

    inputs = keras.Input((size, size, model.inputs[0].shape[-1]), name="image")
    copy = keras.models.clone_model(model, input_tensors=[inputs], clone_function=changed)
    if width == 1:
        copy_weights(model, copy)
    return copy
