"""The networks: a table, one row each, and `build`, which puts a head for the user's classes on the trunk.

Each model takes RGB 0–255 (n, h, w, 3) as float32 and gives probabilities (n, classes). The layer `features` is what
the head sees. The scaling to [-1, 1] that these trunks were trained with is their first layer.

In scope: architecture. Not aware of: data, training, files. Imports errors; keras where it is used.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherweight.errors import SettingError

if TYPE_CHECKING:
    import keras

FEATURES = "features"
MIN_SIZE = 32

# Keras' trunks keep the batch-norm momentum of ImageNet runs (0.99 and 0.999, over a million steps). A run here has
# hundreds: at 0.999 the statistics that inference uses would still be mostly their start values.
BATCH_NORM_MOMENTUM = 0.9


@dataclass(frozen=True)
class Net:
    """One row: `trunk` is the name in `keras.applications`; widths are those with published ImageNet weights."""

    name: str
    trunk: str
    widths: tuple[float, ...]
    sizes: tuple[int, ...]  # input sizes it was published for
    settings: tuple[tuple[str, Any], ...]
    source: str


NETS = {
    net.name: net
    for net in (
        Net(
            "mobilenet_v1",
            "MobileNet",
            (0.25, 0.5, 0.75, 1.0),
            (128, 160, 192, 224),
            (),
            "Howard et al. 2017, arXiv 1704.04861",
        ),
        Net(
            "mobilenet_v2",
            "MobileNetV2",
            (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
            (96, 128, 160, 192, 224),
            (),
            "Sandler et al. 2018, arXiv 1801.04381",
        ),
        Net(
            "mobilenet_v3_small",
            "MobileNetV3Small",
            (0.75, 1.0),
            (224,),
            (("include_preprocessing", False),),
            "Howard et al. 2019, arXiv 1905.02244",
        ),
    )
}


@dataclass(frozen=True)
class Shape:
    """What makes one network out of a row: width multiplier and input size in pixels."""

    net: str
    width: float
    size: int

    def __str__(self) -> str:
        return f"{self.net}-{self.width:g}-{self.size}"

    def __post_init__(self) -> None:
        net_named(self.net)
        if not 0.1 <= self.width <= 4:
            raise SettingError(f"width {self.width}; wanted 0.1 to 4")
        if not MIN_SIZE <= self.size <= 1024:
            raise SettingError(f"input size {self.size}; wanted {MIN_SIZE} to 1024 pixels")


def net_named(name: str) -> Net:
    """The row of that name.

    Raises:
        SettingError: unknown.
    """
    if name not in NETS:
        raise SettingError(f"unknown model {name!r}; known: {', '.join(NETS)}")
    return NETS[name]


def trunk_function(net: Net) -> Callable[..., "keras.Model"]:
    """The function of `keras.applications` that builds the trunk."""
    import keras

    functions: dict[str, Callable[..., keras.Model]] = {
        "MobileNet": keras.applications.MobileNet,
        "MobileNetV2": keras.applications.MobileNetV2,
        "MobileNetV3Small": keras.applications.MobileNetV3Small,
    }
    return functions[net.trunk]


def build(shape: Shape, classes: int, dropout: float = 0.2, weights: str | None = None) -> "keras.Model":
    """A new model: scaling, trunk, global pooling (`features`), dropout, a dense head and softmax.

    Args:
        shape: which network.
        classes: how many classes the head tells apart.
        dropout: the share of features dropped in training.
        weights: "imagenet" lets Keras load its own published trunk weights; `None` leaves random ones.

    Raises:
        SettingError: fewer than two classes.
    """
    import keras

    if classes < 2:
        raise SettingError(f"{classes} classes; wanted at least 2")
    net = net_named(shape.net)
    inputs = keras.Input((shape.size, shape.size, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    with warnings.catch_warnings():
        # Keras warns that weights of 224 pixels are taken for other sizes; a trunk of convolutions fits them all.
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)
        trunk = trunk_function(net)(
            input_tensor=scaled, alpha=shape.width, include_top=False, weights=weights, **dict(net.settings)
        )
    features = keras.layers.GlobalAveragePooling2D(name=FEATURES)(trunk.output)
    head = keras.layers.Dropout(dropout, name="dropout")(features)
    head = keras.layers.Dense(classes, name="logits")(head)
    outputs = keras.layers.Softmax(name="probabilities")(head)
    model = keras.Model(inputs, outputs, name=str(shape).replace(".", "_"))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return model


def reference(net: Net, width: float, size: int = 224) -> "keras.Model":
    """The network as `keras.applications` publishes it, with its head for 1000 classes and random weights."""
    return trunk_function(net)(
        input_shape=(size, size, 3), alpha=width, weights=None, classes=1000, **dict(net.settings)
    )


def parameters(model: "keras.Model") -> int:
    """How many numbers inference needs: batch-norm statistics count, the optimizer's and metrics' do not."""
    return int(model.count_params())


def macs(model: "keras.Model") -> int | None:
    """Multiply-accumulates of one picture in convolutions and dense layers; `None` if a layer with a kernel is unknown.

    A convolution costs output height × output width × kernel size × input channels / groups × output channels, which
    is the output's area times the kernel's numbers; for a depthwise one too.
    """
    import keras

    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * layer.kernel.shape.num_elements()
        elif isinstance(layer, keras.layers.Dense):
            total += layer.kernel.shape.num_elements()
        elif any(weight.path.endswith("kernel") for weight in layer.weights):
            return None
    return total
