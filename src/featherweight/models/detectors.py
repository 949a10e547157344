"""Detectors as Keras models: an anchor-free head on any trunk of the zoo, and any detector for other classes.

    model = detector(Shape("mobilenet_v1", 0.25, 320), 3)               # maps of strides 8, 16 and 32
    model = with_classes(imported, ("RBC", "WBC", "Platelets"))         # the boxes' weights stay

The head: each endpoint is brought to `width` channels; what the coarse maps know goes to the fine ones (Lin et al.
2017, arXiv 1612.03144) and back (Liu et al. 2018, arXiv 1803.01534), by depthwise separable blocks with sums; on each
map one block for classes and one for boxes (decoupled: Ge et al. 2021, arXiv 2107.08430, §2.1), then a 1×1 convolution
each. Nothing but convolutions, ReLU6, nearest upsampling, sums and concatenation, which int8 has everywhere.

In scope: architecture. Not aware of: data, losses. Imports boxes, errors, and its neighbours; keras where it is used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Decoding, Scale
from featherweight.errors import SettingError
from featherweight.models.copying import set_layer_weights
from featherweight.models.functional import copy_operation, functional, nodes, picture_size
from featherweight.models.nets import net_named
from featherweight.models.pretrained import build_pretrained
from featherweight.models.stages import Style
from featherweight.models.zoo import Shape, endpoints

if TYPE_CHECKING:
    import keras

PREFIX = "detect_"  # of the head's layers
STYLE = Style(activation="relu6", epsilon=1e-3)
# What a class's score is before anything is learnt: the many rows without an object then cost little. Lin et al. 2017,
# arXiv 1708.02002, §4.1.
FIRST_SCORE = 0.01
FIRST_DISTANCE = 3.0  # strides, where distances are plain numbers


@dataclass(frozen=True)
class Head:
    """The anchor-free head. `bins` 0 gives a distance as one number, else as a distribution over 0 … bins - 1 strides,
    which is also the farthest that a box reaches from its cell.
    """

    width: int = 64
    strides: tuple[int, ...] = (8, 16, 32)
    bins: int = 8

    def __post_init__(self) -> None:
        if not 8 <= self.width <= 512:
            raise SettingError(f"head of {self.width} channels; wanted 8 to 512")
        doubles = all(b == 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False))
        if not self.strides or not doubles:
            raise SettingError(f"strides {self.strides}; wanted each twice the one before, as (8, 16, 32)")
        if self.bins != 0 and not 4 <= self.bins <= 32:
            raise SettingError(f"{self.bins} bins; wanted 4 to 32, or 0 for plain numbers")


def detector(
    shape: Shape, classes: int | Sequence[str], head: Head | None = None, weights: str | None = None
) -> "keras.Model":
    """RGB 0–255 (n, size, size, 3) → raw numbers (n, priors, values), as its `Decoding` says.

    Args:
        shape: the trunk.
        classes: their names, or how many.
        head: by default 64 channels at strides 8, 16 and 32.
        weights: of the trunk: `None` (random), "imagenet" or a file, as `build_pretrained` takes them.

    Raises:
        SettingError: a size that the strides do not divide, a trunk without a map of one of them, no class.
        WeightsError: as `build_pretrained`.
    """
    import keras

    head = head or Head()
    names = None if isinstance(classes, int) else [str(name) for name in classes]
    count = classes if isinstance(classes, int) else len(classes)
    if count < 1:
        raise SettingError("no class to find; wanted at least one")
    if shape.size % head.strides[-1]:
        raise SettingError(f"input of {shape.size} pixels; wanted a multiple of the stride {head.strides[-1]}")
    trunk = build_pretrained(shape, 2, weights)
    known = endpoints(net_named(shape.net), trunk)
    if missing := [stride for stride in head.strides if stride not in known]:
        raise SettingError(f"{shape.net} has no map of stride {missing[0]}; it has: {', '.join(map(str, known))}")
    maps = _joined([trunk.get_layer(known[stride]).output for stride in head.strides], head)
    decoding = Decoding(
        kind="distances",
        scales=tuple(Scale(one.shape[1], one.shape[2]) for one in maps),
        height=shape.size,
        width=shape.size,
        classes=count,
        bins=head.bins,
    )
    raw = [_branches(one, stride, count, head) for one, stride in zip(maps, head.strides, strict=True)]
    outputs = _predictions(decoding, names)(raw)
    return keras.Model(trunk.inputs[0], outputs, name=f"{trunk.name}_detector")


def _predictions(decoding: Decoding, names: Sequence[str] | None, name: str = "predictions") -> Any:
    from featherweight.models.heads import Predictions

    return Predictions(decoding.as_dict(), names, name=name)


def _joined(maps: Sequence[Any], head: Head) -> list[Any]:
    """Fine to coarse, each map with what the others know."""
    import keras

    from featherweight.models import blocks

    def block(x: Any, name: str, strides: int = 1) -> Any:
        return blocks.depthwise_separable(x, head.width, strides, name=name, style=STYLE)

    def names(what: str) -> list[str]:
        return [f"{PREFIX}{what}{stride}" for stride in head.strides]

    found = [
        blocks.convolution(one, head.width, name=name, style=STYLE)
        for one, name in zip(maps, names("lateral"), strict=True)
    ]
    for i in reversed(range(len(found) - 1)):
        name = names("down")[i]
        finer = keras.layers.UpSampling2D(2, name=f"{name}_upsampled")(found[i + 1])
        found[i] = block(keras.layers.Add(name=f"{name}_add")([found[i], finer]), name)
    for i in range(1, len(found)):
        name = names("up")[i]
        coarser = block(found[i - 1], f"{name}_strided", strides=2)
        found[i] = block(keras.layers.Add(name=f"{name}_add")([found[i], coarser]), name)
    return found


def _branches(x: Any, stride: int, classes: int, head: Head) -> Any:
    """(n, h, w, c) → (n, h, w, 4 · bins + classes): distances, then classes."""
    import keras

    from featherweight.models import blocks

    found = []
    for what, filters, bias in (
        ("boxes", 4 * max(1, head.bins), 0.0 if head.bins else FIRST_DISTANCE),
        ("classes", classes, -math.log(1 / FIRST_SCORE - 1)),
    ):
        name = f"{PREFIX}{what}{stride}"
        y = blocks.depthwise_separable(x, head.width, name=name, style=STYLE)
        last = keras.layers.Conv2D(
            filters,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(bias),
            name=f"{name}_last",
        )
        found.append(last(y))
    return keras.layers.Concatenate(name=f"{PREFIX}stride{stride}")(found)


# ------------------------------------------------------------------------------------------- other classes, anchors


def with_classes(
    model: "keras.Model",
    classes: int | Sequence[str],
    anchors: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> "keras.Model":
    """A copy of a detector for other classes: its last convolutions are rebuilt, the weights of boxes and of objectness
    are kept, those of classes are new and small.

    Args:
        model: of kind yolo or distances; unchanged.
        classes: their names, or how many.
        anchors: (k, 2) width and height in pixels of the input, as many as the model has, which replace its own: the
            smallest go to the finest map.
        seed: of the new weights.

    Raises:
        SettingError: no detector, one of another kind, maps that no convolution makes, no class, another number of
            anchors.
    """
    import keras

    from featherweight.models.heads import Predictions, decoding_of_model

    decoding = decoding_of_model(model)
    if decoding is None or decoding.kind not in ("yolo", "distances"):
        what = "no detector" if decoding is None else f"a detector of kind {decoding.kind}"
        raise SettingError(f"{model.name} is {what}; wanted one of kind yolo or distances")
    names = None if isinstance(classes, int) else [str(name) for name in classes]
    count = classes if isinstance(classes, int) else len(classes)
    if count < 1:
        raise SettingError("no class to find; wanted at least one")
    new = replace(decoding, classes=count)
    if anchors is not None:
        new = replace(new, scales=_with_anchors(new.scales, anchors))
    random = np.random.default_rng(seed)
    last = next(layer for layer in model.layers if isinstance(layer, Predictions))
    given = last.input if isinstance(last.input, list) else [last.input]
    changed: dict[str, list[NDArray[np.float32]]] = {}
    for scale, tensor in zip(decoding.scales, given, strict=True):
        layer, others = _class_convolution(model, tensor, decoding, scale)
        changed[layer.name] = _for_classes(layer, decoding.values - decoding.classes - others, decoding, count, random)

    def copied(layer: Any) -> Any:
        if layer is last:
            return _predictions(new, names, last.name)
        return copy_operation(layer, {"filters": changed[layer.name][0].shape[-1]} if layer.name in changed else None)

    copy = keras.models.clone_model(model, clone_function=copied)
    for layer in (layer for layer in copy.layers if layer.weights):
        set_layer_weights(layer, changed.get(layer.name) or model.get_layer(layer.name).get_weights())
    return copy


def _with_anchors(scales: Sequence[Scale], anchors: NDArray[np.float64]) -> tuple[Scale, ...]:
    """The scales with these anchors, by area: the finest map has the smallest."""
    wanted = sum(len(scale.anchors) for scale in scales)
    if anchors.shape != (wanted, 2):
        raise SettingError(f"anchors of shape {anchors.shape}; the model has {wanted} of two sides")
    rest = [(float(w), float(h)) for w, h in anchors[np.argsort(anchors.prod(1), kind="stable")]]
    found: dict[int, Scale] = {}
    for place in sorted(range(len(scales)), key=lambda i: -scales[i].height * scales[i].width):
        count = len(scales[place].anchors)
        found[place], rest = replace(scales[place], anchors=tuple(rest[:count])), rest[count:]
    return tuple(found[place] for place in range(len(scales)))


def _class_convolution(model: "keras.Model", tensor: Any, decoding: Decoding, scale: Scale) -> tuple[Any, int]:
    """(the convolution whose last channels are the classes, how many other values a row has before it)."""
    import keras

    node, before = _maker(model, tensor), 0
    if isinstance(node.operation, keras.layers.Concatenate):
        *first, tensor = node.input_tensors
        before = sum(one.shape[-1] for one in first)
        node = _maker(model, tensor)
    layer = node.operation
    is_linear = isinstance(layer, keras.layers.Conv2D) and layer.activation is keras.activations.linear
    wanted = max(1, len(scale.anchors)) * decoding.values - before
    if not is_linear or isinstance(layer, keras.layers.DepthwiseConv2D) or layer.filters != wanted or layer.groups != 1:
        raise SettingError(f"a map of {model.name} comes from {layer.name}; wanted a convolution without activation")
    return layer, before


def _maker(model: "keras.Model", tensor: Any) -> Any:
    """The node that makes a tensor of this model; its layer may stand in other models too (`at_size`)."""
    return next(node for node in nodes(model) if any(one is tensor for one in node.outputs))


def _for_classes(
    layer: Any, kept: int, decoding: Decoding, count: int, random: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Kernel and bias whose rows of `kept` values and the old classes become rows of `kept` and `count` classes.

    With an objectness a class is asked for where there is something already, so that its first score is a half.
    """
    kernel, *biases = (np.asarray(array) for array in layer.get_weights())
    *window, channels, filters = kernel.shape
    rows = filters // (kept + decoding.classes)
    old = kernel.reshape(*window, channels, rows, -1)
    new = random.normal(0, 0.01, (*window, channels, rows, count))
    made = [np.concatenate([old[..., :kept], new], -1).reshape(*window, channels, -1)]
    first = 0.0 if decoding.kind == "yolo" else -math.log(1 / FIRST_SCORE - 1)
    for bias in biases:
        fresh = np.full((rows, count), first)
        made.append(np.concatenate([bias.reshape(rows, -1)[:, :kept], fresh], -1).reshape(-1))
    return [array.astype(np.float32) for array in made]


def detector_size(model: "keras.Model") -> tuple[int, int]:
    """(height, width) of the pictures that a detector takes.

    Raises:
        SettingError: no detector, or one whose decoding is for another size.
    """
    from featherweight.models.heads import decoding_of_model

    decoding = decoding_of_model(model)
    if decoding is None:
        raise SettingError(f"{model.name} is no detector: it does not end in Predictions")
    size = picture_size(model)
    if size != (decoding.height, decoding.width):
        raise SettingError(f"{model.name} takes {size}, its decoding is for {(decoding.height, decoding.width)}")
    return size


def at_size(model: "keras.Model", height: int, width: int) -> "keras.Model":
    """The same detector, with the same layers and weights, for pictures of another size. Anchors stay as they are.

    Raises:
        SettingError: a size at which its maps have no whole number of cells.
    """
    import keras

    from featherweight.models.heads import Predictions, decoding_of_model

    decoding = decoding_of_model(model)
    assert decoding is not None
    scales = []
    for scale in decoding.scales:
        rows, columns = scale.height * height, scale.width * width
        if rows % decoding.height or columns % decoding.width:
            raise SettingError(
                f"{model.name} at {height}×{width}: wanted multiples of {decoding.height // scale.height} pixels"
            )
        scales.append(replace(scale, height=rows // decoding.height, width=columns // decoding.width))
    new = replace(decoding, scales=tuple(scales), height=height, width=width)
    function = functional(model)
    image = keras.Input((height, width, model.inputs[0].shape[-1]), name="image")
    made = {id(model.inputs[0]): image}
    for node in nodes(function):
        layer = node.operation
        if isinstance(layer, Predictions):
            layer = _predictions(new, layer.classes, layer.name)
        args, kwargs = node.arguments.fill_in(made)
        outputs = keras.tree.flatten(layer(*args, **kwargs))
        made |= {id(old): new_one for old, new_one in zip(node.outputs, outputs, strict=True)}
    return keras.Model(image, made[id(model.outputs[0])])
