"""Segmenters as Keras models: U-Net and LR-ASPP on any trunk of the zoo, and two networks without one.

    model = segmenter(Shape("mobilenet_v2", 0.35, 256), 2)                    # a U-Net on that trunk
    model = segmenter(Shape("mobilenet_v2", 0.35, 256), 5, decoder=Decoder(width=24, strides=(1, 2, 4, 8, 16)))
    model = segmenter(Shape("lraspp", 1, 224), 21, "imagenet")                # a row of `SEGMENTERS`

Each takes RGB 0–255 (n, size, size, 3) and gives probabilities (n, size, size, classes), of two classes
(n, size, size, 1), that of class 1. Where strides do not divide the size, the picture stands in the middle of a larger
black one, and the answer is cut out of the larger answer. `logits` is the last convolution; it is spread to the
pixels by bilinear upsampling, behind which only the softmax stands.

The trunk's layers have their names from the zoo; all others begin with `PREFIX`, or are in `ENDS`.

In scope: architecture. Not aware of: data, losses. Imports errors and its neighbours; keras where it is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from featherweight.errors import SettingError, WeightsError
from featherweight.models.functional import copied_onto
from featherweight.models.nets import SYMMETRIC, net_named
from featherweight.models.pretrained import build_pretrained
from featherweight.models.segmenter_nets import FAST_SCNN, LRASPP, SEGMENTERS, UNET, UNET_MINI, Decoder
from featherweight.models.stages import Style, by_eights
from featherweight.models.zoo import CHANNELS, LOGITS, SMALL_SIZE, Shape, coarsest_stride, endpoints

if TYPE_CHECKING:
    import keras

__all__ = ["ENDS", "PREFIX", "SEGMENTERS", "Decoder", "segmenter"]

PREFIX = "decode"
ENDS = ("image", "pad", LOGITS, "spread", "crop", "probabilities")
STYLE = Style(padding="same", activation="relu6", epsilon=1e-3)
# How many more pixels a trunk wants whose windows are not padded, so that each map has half of the finer one's side.
EXCESSES = (0, 1, 5)


def segmenter(
    shape: Shape, classes: int, weights: str | None = None, decoder: Decoder | None = None, channels: int = 3
) -> "keras.Model":
    """RGB 0–255 (n, size, size, channels) → probabilities (n, size, size, classes), of two classes (n, size, size, 1).

    Args:
        shape: a network of the zoo, on which stands a U-Net, or a row of `SEGMENTERS`. Its width is that of the trunk
            or, of a segmenter without one, of all layers.
        classes: how many, with the background.
        weights: of the trunk: `None` (random), "imagenet" or a file, as `build_pretrained` takes them.
        decoder: what stands on the trunk; by default a U-Net of width 16 on all of its maps, or what the row says.
        channels: of the input: 1, 3 or 4.

    Raises:
        SettingError: fewer than two classes, other channels, a decoder for a network without a trunk, or one that
            takes maps that the trunk lacks.
        WeightsError: as `build_pretrained`; weights for a network without a trunk.
    """
    if classes < 2:
        raise SettingError(f"{classes} classes; wanted at least 2, the background among them")
    if channels not in CHANNELS:
        raise SettingError(f"{channels} input channels; wanted 1, 3 or 4")
    row = SEGMENTERS.get(shape.net)
    if row is None or row.trunk is not None:
        if row is not None and row.trunk is not None:
            shape, decoder = replace(shape, net=row.trunk), decoder or row.decoder
        return _on_trunk(shape, classes, weights, decoder or Decoder(), channels)
    if weights is not None:
        raise WeightsError(f"nobody has published weights of {shape.net}; train from nothing with --weights none")
    if decoder is not None:
        raise SettingError(f"a decoder for {shape.net}, which has its own; wanted a trunk of the zoo")
    return _whole(shape, classes, channels)


@dataclass(frozen=True)
class _Frame:
    """Where the picture lies in the square that the network computes on: in its middle, `side` - `size` around it."""

    size: int
    side: int
    excess: int = 0  # what the first windows take away

    def begun(self, channels: int) -> tuple[Any, Any]:
        """(the input, the square)."""
        import keras

        image = keras.Input((self.size, self.size, channels), name="image")
        around = self.side - self.size
        if not around:
            return image, image
        sides = (around // 2, around - around // 2)
        return image, keras.layers.ZeroPadding2D((sides, sides), name="pad")(image)

    def cropped(self, x: Any) -> Any:
        """The picture's part of a map of stride 1."""
        import keras

        around = self.side - self.size
        before = around // 2 - self.excess // 2
        sides = (before, around - self.excess - before)
        return keras.layers.Cropping2D((sides, sides), name="crop")(x) if any(sides) else x


def _answered(x: Any, stride: int, classes: int, frame: _Frame) -> Any:
    """Probabilities of each pixel, of the last map of that stride."""
    import keras

    x = keras.layers.Conv2D(1 if classes == 2 else classes, 1, name=LOGITS)(x)
    x = frame.cropped(_spread(x, stride, "spread", "bilinear"))
    last = keras.layers.Activation("sigmoid", name="probabilities")
    return (last if classes == 2 else keras.layers.Softmax(name="probabilities"))(x)


def _spread(x: Any, factor: int, name: str, rule: str = "nearest") -> Any:
    import keras

    return x if factor == 1 else keras.layers.UpSampling2D(factor, interpolation=rule, name=name)(x)


def _named(shape: Shape, what: str) -> str:
    return f"{shape}_{what}".replace(".", "_")


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of


# -------------------------------------------------------------------------------------------------------- on trunks


def _on_trunk(shape: Shape, classes: int, weights: str | None, decoder: Decoder, channels: int) -> "keras.Model":
    import keras

    trunk, frame, names = _framed_trunk(shape, weights, decoder, channels)
    image, square = frame.begun(channels)
    taps = keras.Model(trunk.inputs, [trunk.get_layer(name).output for name in names.values()])
    maps = dict(zip(names, copied_onto(taps, [square]), strict=True))
    if decoder.kind == LRASPP:
        x = _lraspp(maps, decoder.width)
    else:
        if 1 in decoder.strides and 1 not in maps:
            maps = {1: _seen(square, frame), **maps}
        x = _unet(maps, decoder)
    outputs = _answered(x, min(maps), classes, frame)
    return keras.Model(image, outputs, name=_named(shape, decoder.kind))


def _framed_trunk(
    shape: Shape, weights: str | None, decoder: Decoder, channels: int
) -> tuple["keras.Model", _Frame, dict[int, str]]:
    """(the trunk for a square that gives maps of whole cells, where the picture is in it, stride → layer)."""
    net = net_named(shape.net)
    multiple = decoder.strides[-1] if decoder.strides else coarsest_stride(net)
    for excess in EXCESSES:
        side = _multiple(shape.size, multiple) + excess
        trunk = build_pretrained(replace(shape, size=side), 2, weights, channels)
        names = _taken(endpoints(net, trunk), decoder, shape)
        sides = {stride * trunk.get_layer(name).output.shape[1] for stride, name in names.items()}
        if sides == {side - excess}:
            return trunk, _Frame(shape.size, side, excess), names
    raise SettingError(f"the maps of {shape.net} do not double in size; wanted another trunk")


def _taken(known: Mapping[int, str], decoder: Decoder, shape: Shape) -> dict[int, str]:
    """Of a trunk's layers by stride those that the decoder takes, fine to coarse.

    Raises:
        SettingError: one is missing.
    """
    strides = decoder.strides or tuple(sorted(known))
    if not decoder.strides and decoder.kind == LRASPP:
        strides = (max(known) // 4, max(known))
    missing = [stride for stride in strides if stride not in known and (stride > 1 or decoder.kind == LRASPP)]
    # A trunk for small pictures has smaller strides.
    if missing and not (decoder.kind == UNET and shape.size <= SMALL_SIZE and set(strides) & set(known)):
        raise SettingError(f"{shape.net} has no map of stride {missing[0]}; it has: {', '.join(map(str, known))}")
    return {stride: known[stride] for stride in strides if stride in known}


def _seen(square: Any, frame: _Frame) -> Any:
    """The picture as a map of stride 1."""
    import keras

    x = keras.layers.Rescaling(SYMMETRIC.scale[0], SYMMETRIC.offset[0], name=f"{PREFIX}1_picture")(square)
    if not frame.excess:
        return x
    sides = (frame.excess // 2, frame.excess - frame.excess // 2)
    return keras.layers.Cropping2D((sides, sides), name=f"{PREFIX}1_cut")(x)


def _unet(maps: Mapping[int, Any], decoder: Decoder) -> Any:
    """The finest map with what the coarser ones know."""
    import keras

    from featherweight.models import blocks

    *finer, at = sorted(maps)
    x = maps[at]
    if finer:
        x = blocks.convolution(x, decoder.channels(finer[-1]), name=f"{PREFIX}{at}", style=STYLE)
    for stride in reversed(finer):
        name, filters = f"{PREFIX}{stride}", decoder.channels(stride)
        x = _spread(x, at // stride, f"{name}_spread")
        x = keras.layers.Concatenate(name=f"{name}_joined")([maps[stride], x])
        for number in range(decoder.blocks):
            label = f"{name}_block{number}"
            if decoder.separable:
                x = blocks.depthwise_separable(x, filters, name=label, style=STYLE)
            else:
                x = blocks.convolution(x, filters, 3, name=label, style=STYLE)
        at = stride
    return x


def _lraspp(maps: Mapping[int, Any], width: int) -> Any:
    """The finer map beside the coarse one. The paper has a convolution to the classes on each, and adds; one on both
    side by side is the same.
    """
    import keras

    from featherweight.models import blocks

    fine, coarse = sorted(maps)
    x = blocks.convolution(maps[coarse], width, name=f"{PREFIX}_context", style=STYLE)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{PREFIX}_mean")(maps[coarse])
    gate = keras.layers.Conv2D(width, 1, activation="sigmoid", name=f"{PREFIX}_gate")(gate)
    x = keras.layers.Multiply(name=f"{PREFIX}_weighed")([x, gate])
    x = _spread(x, coarse // fine, f"{PREFIX}_spread")
    return keras.layers.Concatenate(name=f"{PREFIX}_joined")([maps[fine], x])


# --------------------------------------------------------------------------------------------------- without a trunk


def _whole(shape: Shape, classes: int, channels: int) -> "keras.Model":
    """A network that is all decoder."""
    import keras

    build, multiple = _WHOLE[shape.net]
    frame = _Frame(shape.size, _multiple(shape.size, multiple))
    image, square = frame.begun(channels)
    x = keras.layers.Rescaling(SYMMETRIC.scale[0], SYMMETRIC.offset[0], name=f"{PREFIX}_scale")(square)
    x, stride = build(x, shape.width)
    return keras.Model(image, _answered(x, stride, classes, frame), name=str(shape).replace(".", "_"))


def _unet_mini(x: Any, width: float) -> tuple[Any, int]:
    """32, 64 and 32 channels, as the usual example has them: plain 3×3 convolutions with biases."""
    import keras

    from featherweight.models import blocks

    style = replace(STYLE, activation="relu")

    def block(x: Any, filters: int, name: str) -> Any:
        return blocks.convolution(x, by_eights(filters, width), 3, name=f"{PREFIX}{name}", style=style, norm=False)

    fine = block(x, 32, "1_down")
    coarse = block(keras.layers.MaxPooling2D(2, name=f"{PREFIX}2_pool")(fine), 64, "2")
    joined = keras.layers.Concatenate(name=f"{PREFIX}1_joined")([fine, _spread(coarse, 2, f"{PREFIX}1_spread")])
    return block(joined, 32, "1_up"), 1


# Poudel et al. 2019, table 1: filters and strides of the bottlenecks of the deep branch.
BOTTLENECKS = ((64, 2), (64, 1), (64, 1), (96, 2), (96, 1), (96, 1), (128, 1), (128, 1), (128, 1))
# On a side of how many cells the pyramid's means may be; the paper has 1, 2, 3 and 6.
POOLED_SIDES = (1, 2, 3, 4, 6)


def _fast_scnn(x: Any, width: float) -> tuple[Any, int]:
    """Learning to downsample, global features, fusion, classifier (§3.2). Unlike the paper's: ReLU6, also between the
    two halves of a separable convolution; no dilation in the fusion.
    """
    import keras

    from featherweight.models import blocks

    def filters(count: int) -> int:
        return by_eights(count, width)

    def linear(x: Any, name: str) -> Any:
        return blocks.convolution(x, filters(128), name=f"{PREFIX}_{name}", style=STYLE, activation="linear")

    def separable(x: Any, count: int, name: str, strides: int = 1) -> Any:
        return blocks.depthwise_separable(x, filters(count), strides, name=f"{PREFIX}_{name}", style=STYLE)

    x = blocks.convolution(x, filters(32), 3, 2, name=f"{PREFIX}_detail0", style=STYLE)
    fine = separable(separable(x, 48, "detail1", 2), 64, "detail2", 2)
    x = fine
    for number, (count, strides) in enumerate(BOTTLENECKS):
        name = f"{PREFIX}_deep{number}"
        x = blocks.inverted_residual(x, filters(count), strides, name=name, style=STYLE)
    x = _spread(_pyramid(x, filters), 4, f"{PREFIX}_spread")
    x = blocks.depthwise(x, name=f"{PREFIX}_context_depthwise", style=STYLE)
    x = keras.layers.Add(name=f"{PREFIX}_add")([linear(fine, "fine"), linear(x, "context")])
    x = keras.layers.Activation(STYLE.activation, name=f"{PREFIX}_fused")(x)
    return separable(separable(x, 128, "last0"), 128, "last1"), 8


def _pyramid(x: Any, filters: Callable[[int], int]) -> Any:
    """A map beside its means over larger and larger parts, where these are of whole cells; mixed. Zhao et al. 2017,
    arXiv 1612.01105, §3.2.
    """
    import keras

    from featherweight.models import blocks

    side, parts = x.shape[1], [x]
    for count in (count for count in POOLED_SIDES if count < side and side % count == 0):
        name = f"{PREFIX}_pool{count}"
        mean = keras.layers.AveragePooling2D(side // count, name=name)(x)
        mean = blocks.convolution(mean, filters(32), name=f"{name}_mix", style=STYLE)
        parts.append(_spread(mean, side // count, f"{name}_spread"))
    joined = keras.layers.Concatenate(name=f"{PREFIX}_pools")(parts) if len(parts) > 1 else x
    return blocks.convolution(joined, filters(128), name=f"{PREFIX}_mix", style=STYLE)


# Name → (how its last map and that map's stride are made, what its strides divide).
_WHOLE: dict[str, tuple[Callable[[Any, float], tuple[Any, int]], int]] = {
    UNET_MINI: (_unet_mini, 2),
    FAST_SCNN: (_fast_scnn, 32),
}
