"""The blocks of lightweight networks, each a function from tensor to tensor made of Keras' own layers.

    x = inverted_residual(x, 24, strides=2, expand=6, name="stage1_block0")     # in a functional model
    keras.Sequential([..., Block("fire", {"filters": 128}), ...])               # by name, in a user's own model

Every function takes a tensor (n, h, w, c) and names its layers after `name`. Most give (n, h / strides, w / strides,
filters), rounded up; where one does not, it says so. Costs below are MACs at one place of a map, for strides 1: c
channels in, f filters, k the kernel's side. With strides 2 what stands before the strided layer costs four times as
much. A k×k standard convolution costs k²·c·f; everything here is a way to pay less.

In scope: layers. Not aware of: whole networks, weights files. Imports errors, modelfile and stages; keras is imported
with this module, so the module itself is imported where it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from featherweight.errors import SettingError
from featherweight.modelfile import one_line
from featherweight.models.stages import Style, make_divisible

Tensor = Any  # keras.KerasTensor


PLAIN = Style()
# Where no batch norm sets the scale right, the first kernels must: He et al. 2015, arXiv 1502.01852, for ReLUs.
HE = "he_normal"


# ------------------------------------------------------------------------------------------------ single layers


def convolution(
    x: Tensor,
    filters: int,
    kernel: int = 1,
    strides: int = 1,
    *,
    name: str,
    style: Style = PLAIN,
    activation: str | None = None,
    norm: bool = True,
    groups: int = 1,
) -> Tensor:
    """k×k convolution, batch norm, activation: k²·c·f / groups. Without `norm` the convolution has a bias.

    `activation=None` means the style's; "linear" means none.
    """
    x, padding = _padded(x, kernel, strides, name, style)
    x = layers.Conv2D(
        filters,
        kernel,
        strides,
        padding,
        groups=groups,
        use_bias=not norm,
        kernel_initializer="glorot_uniform" if norm else HE,
        name=name,
    )(x)
    return _finish(x, name, style, activation, norm)


def depthwise(
    x: Tensor,
    kernel: int = 3,
    strides: int = 1,
    *,
    name: str,
    style: Style = PLAIN,
    activation: str | None = None,
) -> Tensor:
    """k×k convolution of each channel by itself, batch norm, activation: k²·c."""
    x, padding = _padded(x, kernel, strides, name, style)
    x = layers.DepthwiseConv2D(kernel, strides, padding, use_bias=False, name=name)(x)
    return _finish(x, name, style, activation, True)


def _padded(x: Tensor, kernel: int, strides: int, name: str, style: Style) -> tuple[Tensor, str]:
    if kernel % 2 == 0:
        raise SettingError(f"a kernel of {kernel} at {name}; wanted an odd side")
    if style.padding == "valid":
        return x, "valid"
    if strides == 1 or kernel == 1 or style.padding == "same":
        return x, "same"
    return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"


def _finish(x: Tensor, name: str, style: Style, activation: str | None, norm: bool) -> Tensor:
    if norm:
        x = _norm(x, f"{name}_norm", style)
    return _activated(x, style.activation if activation is None else activation, name)


def _norm(x: Tensor, name: str, style: Style) -> Tensor:
    return layers.BatchNormalization(momentum=style.momentum, epsilon=style.epsilon, name=name)(x)


def _activated(x: Tensor, activation: str, name: str) -> Tensor:
    return x if activation == "linear" else layers.Activation(activation, name=f"{name}_{activation}")(x)


def max_pool(x: Tensor, *, name: str, style: Style = PLAIN) -> Tensor:
    """3×3 maximum with strides 2. Padding with zeros is right after a ReLU only, where nothing is below zero."""
    if style.padding == "same":
        return layers.MaxPooling2D(3, 2, "same", name=name)(x)
    return layers.MaxPooling2D(3, 2, name=name)(layers.ZeroPadding2D(1, name=f"{name}_pad")(x))


# ------------------------------------------------------------------------------------------------------- blocks


def depthwise_separable(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    kernel: int = 3,
    residual: bool = False,
    activation: str | None = None,
    style: Style = PLAIN,
) -> Tensor:
    """Depthwise k×k, then pointwise 1×1: Y = W_p * (W_d * X), a composition. Howard et al. 2017, arXiv 1704.04861,
    §3.1.

    Costs k²·c + c·f, which is 1/f + 1/k² of the standard convolution. `activation` is that of the pointwise half.
    `residual` adds the input where the shapes are equal.
    """
    y = depthwise(x, kernel, strides, name=f"{name}_depthwise", style=style)
    y = convolution(y, filters, name=f"{name}_pointwise", style=style, activation=activation)
    return layers.Add(name=f"{name}_add")([x, y]) if residual and x.shape == y.shape else y


def inverted_residual(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    expand: float = 6,
    kernel: int = 3,
    excite: float = 0.0,
    style: Style = PLAIN,
) -> Tensor:
    """Widen by 1×1, filter depthwise, narrow by 1×1 without activation; the input is added where the shapes are equal.
    Sandler et al. 2018, arXiv 1801.04381, §3.3.

    With e = expand · c: e·c + k²·e + e·f. `excite` > 0 puts a squeeze-and-excitation of that share of c before the
    narrowing.
    """
    y = x
    if expand != 1:
        y = convolution(y, round(x.shape[-1] * expand), name=f"{name}_expand", style=style)
    y = depthwise(y, kernel, strides, name=f"{name}_depthwise", style=style)
    if excite:
        y = squeeze_excite(y, name=f"{name}_excite", reduced=make_divisible(x.shape[-1] * excite))
    y = convolution(y, filters, name=f"{name}_project", style=style, activation="linear")
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def fused_inverted_residual(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    expand: float = 4,
    kernel: int = 3,
    style: Style = PLAIN,
) -> Tensor:
    """Inverted residual whose widening and filtering are one standard convolution: k²·c·e + e·f.

    More MACs, but faster where maps are large and channels few. Gupta & Tan, EfficientNet-EdgeTPU, 2019.
    """
    y = convolution(x, round(x.shape[-1] * expand), kernel, strides, name=f"{name}_expand", style=style)
    y = convolution(y, filters, name=f"{name}_project", style=style, activation="linear")
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def squeeze_excite(
    x: Tensor,
    *,
    name: str,
    reduced: int,
    activation: str = "relu",
    gate: str = "hard_sigmoid",
) -> Tensor:
    """Y = x · gate(W₂ act(W₁ mean(x))): each channel is weighed by what the whole map shows. Hu et al. 2018,
    arXiv 1709.01507, §3; the hard gate is MobileNetV3's. 2·c·reduced MACs a picture, whatever the map.
    """
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    weights = layers.Conv2D(reduced, 1, activation=activation, name=f"{name}_reduce")(weights)
    weights = layers.Conv2D(x.shape[-1], 1, activation=gate, name=f"{name}_expand")(weights)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def fire(x: Tensor, filters: int, strides: int = 1, *, name: str, squeeze: int | None = None) -> Tensor:
    """Squeeze to few channels by 1×1, then half of the filters 1×1 and half 3×3, side by side. Iandola et al. 2016,
    arXiv 1602.07360, §3.2.

    With s = squeeze (by default filters / 8): c·s + s·f/2 + 9·s·f/2. `strides` 2 pools the input before, as SqueezeNet
    does between its stages.
    """
    if strides not in (1, 2):
        raise SettingError(f"strides {strides} at {name}; wanted 1 or 2")
    if strides == 2:
        x = _pool_without_rest(x, f"{name}_pool")
    alike = {"activation": "relu", "kernel_initializer": HE}
    x = layers.Conv2D(squeeze or filters // 8, 1, name=f"{name}_squeeze", **alike)(x)
    narrow = layers.Conv2D(filters // 2, 1, name=f"{name}_expand1", **alike)(x)
    wide = layers.Conv2D(filters - filters // 2, 3, padding="same", name=f"{name}_expand3", **alike)(x)
    return layers.Concatenate(name=f"{name}_concat")([narrow, wide])


def _pool_without_rest(x: Tensor, name: str) -> Tensor:
    """3×3 maximum with strides 2, the output's size rounded up and no padding before the first pixel (Caffe's rule).

    An odd side needs no padding; for an even one Keras' "same" pads just one at the end.
    """
    padding = "valid" if x.shape[1] % 2 and x.shape[2] % 2 else "same"
    if x.shape[1] % 2 != x.shape[2] % 2:
        raise SettingError(f"a map of {x.shape[1]}×{x.shape[2]}; wanted two even or two odd sides: use a square input")
    return layers.MaxPooling2D(3, 2, padding, name=name)(x)


def channel_shuffle(x: Tensor, *, name: str, groups: int) -> Tensor:
    """Channel i of group g becomes channel i·groups + g, so that the next grouped convolution sees all groups. No MACs.
    Zhang et al. 2018, arXiv 1707.01083, §3.1.

    Raises:
        SettingError: the channels do not divide by `groups`.
    """
    height, width, channels = x.shape[1:]
    if channels % groups:
        raise SettingError(f"{channels} channels in {groups} groups at {name}; wanted a multiple")
    x = layers.Reshape((height * width, groups, channels // groups), name=f"{name}_split")(x)
    x = layers.Permute((1, 3, 2), name=f"{name}_swap")(x)
    return layers.Reshape((height, width, channels), name=f"{name}_join")(x)


def shuffle_unit(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    groups: int = 3,
    group_first: bool = True,
    style: Style = PLAIN,
) -> Tensor:
    """ShuffleNet V1's residual unit: grouped 1×1, shuffle, depthwise 3×3, grouped 1×1. Zhang et al. 2018,
    arXiv 1707.01083, §3.2, figure 2.

    With m = filters / 4 and g groups: c·m/g + 9·m + m·f/g. With strides 2 the pooled input is concatenated and the
    unit makes the rest of the filters.
    """
    middle = filters // 4
    made = filters - x.shape[-1] if strides == 2 else filters
    y = convolution(x, middle, name=f"{name}_compress", groups=groups if group_first else 1, style=style)
    y = channel_shuffle(y, name=f"{name}_shuffle", groups=groups)
    y = depthwise(y, 3, strides, name=f"{name}_depthwise", style=style, activation="linear")
    y = convolution(y, made, name=f"{name}_project", groups=groups, style=style, activation="linear")
    if strides == 2:
        pooled = layers.AveragePooling2D(3, 2, "same", name=f"{name}_pool")(x)
        y = layers.Concatenate(name=f"{name}_concat")([pooled, y])
    else:
        y = layers.Add(name=f"{name}_add")([x, y])
    return _activated(y, style.activation, name)


def shuffle_unit_v2(x: Tensor, filters: int, strides: int = 1, *, name: str, style: Style = PLAIN) -> Tensor:
    """ShuffleNet V2's unit: half of the channels pass, the other half is filtered, then both are shuffled. Ma et al.
    2018, arXiv 1807.11164, §3, figure 3: equal widths, no grouped 1×1, no addition, because memory traffic counts.

    With h = f/2: 2·h² + 9·h at strides 1. With strides 2 both halves are made from the whole input.
    """
    half = filters // 2
    if filters % 2 or (strides == 1 and x.shape[-1] != filters):
        raise SettingError(
            f"{filters} filters on {x.shape[-1]} channels at {name}; wanted an even number, with strides 1 as many"
        )
    if strides == 1:
        left = ChannelSlice(0, half, name=f"{name}_pass")(x)
        right = ChannelSlice(half, filters, name=f"{name}_work")(x)
    else:
        left = depthwise(x, 3, strides, name=f"{name}_left_depthwise", style=style, activation="linear")
        left = convolution(left, half, name=f"{name}_left_pointwise", style=style)
        right = x
    right = convolution(right, half, name=f"{name}_compress", style=style)
    right = depthwise(right, 3, strides, name=f"{name}_depthwise", style=style, activation="linear")
    right = convolution(right, half, name=f"{name}_pointwise", style=style)
    x = layers.Concatenate(name=f"{name}_concat")([left, right])
    return channel_shuffle(x, name=f"{name}_shuffle", groups=2)


def ghost(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    ratio: int = 2,
    kernel: int = 3,
    activation: str | None = None,
    style: Style = PLAIN,
) -> Tensor:
    """1/ratio of the maps by a 1×1 convolution, the others from those by cheap depthwise filters. Han et al. 2020,
    arXiv 1911.11907, §3.1.

    With p = filters / ratio: c·p + k²·(f - p), near 1/ratio of a 1×1 convolution to all filters.
    """
    primary = -(-filters // ratio)
    x = convolution(x, primary, 1, strides, name=f"{name}_primary", style=style, activation=activation)
    cheap = layers.DepthwiseConv2D(
        kernel, padding="same", depth_multiplier=ratio - 1, use_bias=False, name=f"{name}_cheap"
    )(x)
    cheap = _finish(cheap, f"{name}_cheap", style, activation, True)
    x = layers.Concatenate(name=f"{name}_concat")([x, cheap])
    return x if x.shape[-1] == filters else ChannelSlice(0, filters, name=f"{name}_cut")(x)


def ghost_bottleneck(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    expand: int,
    kernel: int = 3,
    excite: float = 0.0,
    style: Style = PLAIN,
) -> Tensor:
    """Two ghost modules, the first widening to `expand` channels, the second narrowing; between them, with strides 2, a
    depthwise k×k. Han et al. 2020, arXiv 1911.11907, §3.2, figure 3.
    """
    y = ghost(x, expand, name=f"{name}_ghost1", style=style)
    if strides > 1:
        y = depthwise(y, kernel, strides, name=f"{name}_depthwise", style=style, activation="linear")
    if excite:
        y = squeeze_excite(y, name=f"{name}_excite", reduced=make_divisible(expand * excite, 4))
    y = ghost(y, filters, name=f"{name}_ghost2", style=style, activation="linear")
    if strides > 1 or x.shape[-1] != filters:
        x = depthwise(x, kernel, strides, name=f"{name}_short_depthwise", style=style, activation="linear")
        x = convolution(x, filters, name=f"{name}_short_pointwise", style=style, activation="linear")
    return layers.Add(name=f"{name}_add")([y, x])


def universal_inverted_bottleneck(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    expand: float = 4,
    start: int = 0,
    middle: int = 3,
    style: Style = PLAIN,
) -> Tensor:
    """MobileNetV4's block: an inverted residual with two optional depthwise filters, of side `start` before widening
    and of side `middle` after. Qin et al. 2024, arXiv 2404.10518.

    start 0, middle k is MobileNetV2's block; start k, middle 0 is ConvNeXt's; both is "ExtraDW"; none is a feed-forward
    network. With e = expand · c: start²·c + c·e + middle²·e + e·f.
    """
    if strides > 1 and not start and not middle:
        raise SettingError(f"strides {strides} without a depthwise filter at {name}; wanted start or middle")
    y = x
    if start:
        here = 1 if middle else strides
        y = depthwise(y, start, here, name=f"{name}_start", style=style, activation="linear")
    y = convolution(y, make_divisible(x.shape[-1] * expand), name=f"{name}_expand", style=style)
    if middle:
        y = depthwise(y, middle, strides, name=f"{name}_middle", style=style)
    y = convolution(y, filters, name=f"{name}_project", style=style, activation="linear")
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def branched(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    kernel: int = 3,
    branches: int = 1,
    each_channel: bool = False,
    style: Style = PLAIN,
) -> Tensor:
    """Parallel linear branches that train better and fold into one convolution: `branches` k×k, one 1×1 (where k > 1)
    and the batch-normed input (where the shapes are equal), added, then the activation. Vasu et al. 2022,
    arXiv 2206.04040 (MobileOne); Ding et al. 2021, arXiv 2101.03697, §3 (RepVGG).

    `each_channel` makes all of it depthwise. After `fold.fold_branches` it costs k²·c·f, or k²·c depthwise.
    """
    if each_channel and filters != x.shape[-1]:
        raise SettingError(f"{filters} filters on {x.shape[-1]} channels, each by itself, at {name}; wanted as many")

    def branch(side: int, label: str) -> Tensor:
        if each_channel:
            return depthwise(x, side, strides, name=f"{name}_{label}", style=style, activation="linear")
        return convolution(x, filters, side, strides, name=f"{name}_{label}", style=style, activation="linear")

    parts = [_norm(x, f"{name}_identity", style)] if strides == 1 and x.shape[-1] == filters else []
    parts += [branch(1, "scale")] if kernel > 1 else []
    parts += [branch(kernel, f"branch{number}") for number in range(branches)]
    y = layers.Add(name=f"{name}_add")(parts) if len(parts) > 1 else parts[0]
    return _activated(y, style.activation, name)


def mobileone_block(
    x: Tensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    branches: int = 4,
    style: Style = PLAIN,
) -> Tensor:
    """A depthwise 3×3 and a pointwise 1×1, both `branched`. Vasu et al. 2022, arXiv 2206.04040."""
    x = branched(x, x.shape[-1], strides, name=f"{name}_depthwise", branches=branches, each_channel=True, style=style)
    return branched(x, filters, name=f"{name}_pointwise", kernel=1, branches=branches, style=style)


def basic_residual(x: Tensor, filters: int, strides: int = 1, *, name: str, style: Style = PLAIN) -> Tensor:
    """Two 3×3 convolutions and the input added; where the shape changes, the input is thinned and filled up with zero
    channels, without weights. He et al. 2016, arXiv 1512.03385, §4.2 (option A): the heavy baseline at 32 pixels.
    """
    y = convolution(x, filters, 3, strides, name=f"{name}_conv1", style=style)
    y = convolution(y, filters, 3, name=f"{name}_conv2", style=style, activation="linear")
    if strides > 1:
        x = layers.MaxPooling2D(1, strides, name=f"{name}_thin")(x)
    if x.shape[-1] != filters:
        missing = filters - x.shape[-1]
        x = ChannelPad(missing // 2, missing - missing // 2, name=f"{name}_fill")(x)
    y = layers.Add(name=f"{name}_add")([x, y])
    return _activated(y, style.activation, name)


def spatial_pyramid_pooling(
    x: Tensor, filters: int, strides: int = 1, *, name: str, pools: Sequence[int] = (5, 9, 13), style: Style = PLAIN
) -> Tensor:
    """Compress by 1×1 to half of the channels, set maxima over windows of several sizes beside it, mix by 1×1: a wide
    receptive field for few MACs. He et al. 2014, arXiv 1406.4729; in this form YOLOv3-SPP's. c·c/2 + (1 + pools)·c/2·f.
    """
    x = convolution(x, max(1, x.shape[-1] // 2), 1, strides, name=f"{name}_compress", style=style)
    parts = [x, *(layers.MaxPooling2D(size, 1, "same", name=f"{name}_pool{size}")(x) for size in pools)]
    x = layers.Concatenate(name=f"{name}_concat")(parts)
    return convolution(x, filters, name=f"{name}_mix", style=style)


def spatial_transformer(x: Tensor, *, name: str, filters: int = 8, style: Style = PLAIN) -> Tensor:
    """A light front end that straightens the picture: a tiny network of two strided depthwise-separable convolutions
    gives six numbers a picture, an affine map, by which the picture is sampled again. Jaderberg et al. 2015,
    arXiv 1506.02025, §3. It starts as the identity.
    """
    y = depthwise_separable(x, filters, 2, name=f"{name}_look0", style=style)
    y = depthwise_separable(y, 2 * filters, 2, name=f"{name}_look1", style=style)
    y = layers.GlobalAveragePooling2D(name=f"{name}_pool")(y)
    theta = layers.Dense(
        6,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        name=f"{name}_theta",
    )(y)
    return AffineSampler(name=f"{name}_sample")([x, theta])


BLOCKS: dict[str, Callable[..., Tensor]] = {
    "convolution": convolution,
    "depthwise": depthwise,
    "depthwise_separable": depthwise_separable,
    "inverted_residual": inverted_residual,
    "fused_inverted_residual": fused_inverted_residual,
    "squeeze_excite": squeeze_excite,
    "fire": fire,
    "channel_shuffle": channel_shuffle,
    "shuffle_unit": shuffle_unit,
    "shuffle_unit_v2": shuffle_unit_v2,
    "ghost": ghost,
    "ghost_bottleneck": ghost_bottleneck,
    "universal_inverted_bottleneck": universal_inverted_bottleneck,
    "branched": branched,
    "mobileone_block": mobileone_block,
    "basic_residual": basic_residual,
    "spatial_pyramid_pooling": spatial_pyramid_pooling,
    "spatial_transformer": spatial_transformer,
}


# ------------------------------------------------------------------------------------------------------- layers


@keras.saving.register_keras_serializable(package="featherweight")
class ChannelSlice(layers.Layer):  # type: ignore[misc]
    """Channels `start` to `stop` (not included) of the last axis. No weights, no arithmetic."""

    def __init__(self, start: int, stop: int, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= start < stop:
            raise SettingError(f"channels {start} to {stop}; wanted 0 <= start < stop")
        self.start, self.stop = start, stop

    def call(self, x: Tensor) -> Tensor:
        """(…, c) → (…, stop - start)."""
        return x[..., self.start : self.stop]

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Also refuses an input with fewer channels than `stop`."""
        if shape[-1] is not None and shape[-1] < self.stop:
            raise SettingError(f"{self.name} wants channels {self.start} to {self.stop}; its input has {shape[-1]}")
        return (*shape[:-1], self.stop - self.start)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable(package="featherweight")
class ChannelPad(layers.Layer):  # type: ignore[misc]
    """`before` zero channels before and `after` behind those of the input. No weights, no arithmetic."""

    def __init__(self, before: int, after: int, **kwargs: Any):
        super().__init__(**kwargs)
        if before < 0 or after < 0:
            raise SettingError(f"{before} channels before and {after} after; wanted 0 or more")
        self.before, self.after = before, after

    def call(self, x: Tensor) -> Tensor:
        """(n, h, w, c) → (n, h, w, before + c + after)."""
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [self.before, self.after]])

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """One axis grows."""
        channels = None if shape[-1] is None else shape[-1] + self.before + self.after
        return (*shape[:-1], channels)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "before": self.before, "after": self.after}


@keras.saving.register_keras_serializable(package="featherweight")
class AffineSampler(layers.Layer):  # type: ignore[misc]
    """The picture (n, h, w, c) sampled at places that theta (n, 6) maps the output's to; bilinear, zero outside.

    Places are in [-1, 1], x to the right and y down: source = [[t0, t1, t2], [t3, t4, t5]] · (x, y, 1). Both inputs get
    gradients. Jaderberg et al. 2015, arXiv 1506.02025, §3.2–3.3.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """[(n, h, w, c), (n, 6)] → (n, h, w, c)."""
        image, theta = inputs
        height, width, channels = image.shape[1:]
        # In float16 places beyond 2048 are no whole numbers any more.
        dtype, image = image.dtype, ops.cast(image, "float32")
        places = _affine_places(ops.cast(theta, "float32"), height, width)
        x = (places[:, 0] + 1) * (width - 1) / 2
        y = (places[:, 1] + 1) * (height - 1) / 2
        flat = ops.reshape(image, (-1, height * width, channels))
        left, top = ops.floor(x), ops.floor(y)
        total = 0.0
        for across, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            column, row = left + across, top + down
            weight = (1 - ops.abs(x - column)) * (1 - ops.abs(y - row))
            inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
            weight = weight * ops.cast(inside, weight.dtype)
            index = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
            taken = ops.take_along_axis(flat, ops.cast(index, "int32")[..., None], axis=1)
            total = total + taken * weight[..., None]
        return ops.cast(ops.reshape(total, (-1, height, width, channels)), dtype)

    def compute_output_shape(self, shapes: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        """That of the picture."""
        return tuple(shapes[0])


def _affine_places(theta: Tensor, height: int, width: int) -> Tensor:
    """(n, 6) → source places (n, 2, height · width) in [-1, 1]."""
    x, y = ops.meshgrid(ops.linspace(-1.0, 1.0, width), ops.linspace(-1.0, 1.0, height))
    grid = ops.stack([ops.reshape(x, (-1,)), ops.reshape(y, (-1,)), ops.ones(height * width)])
    return ops.matmul(ops.reshape(theta, (-1, 2, 3)), ops.cast(grid, theta.dtype))


@keras.saving.register_keras_serializable(package="featherweight")
class Block(layers.Layer):  # type: ignore[misc]
    """Any block of `BLOCKS` as one layer, for a user's own Sequential or functional model.

    `kind` is its name, `settings` its arguments but for the tensor and the name; a `style` is given as a mapping of
    `Style`'s fields. The layers are made when the input's shape is known, in `inner`, a functional model, which
    `analyze` walks into. A block is for one input size.

        keras.Sequential([keras.Input((32, 32, 3)), Block("inverted_residual", {"filters": 16, "expand": 4}), ...])
    """

    def __init__(self, kind: str, settings: Mapping[str, Any] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in BLOCKS:
            raise SettingError(f"unknown block {kind!r}; known: {', '.join(BLOCKS)}")
        self.kind = kind
        self.settings = dict(settings or {})
        self.inner: keras.Model | None = None

    def build(self, shape: Sequence[int | None]) -> None:
        """Make the layers for inputs of this shape."""
        inputs = keras.Input(tuple(shape[1:]), dtype=self.compute_dtype, name="input")
        settings = {key: _plain(value) for key, value in self.settings.items()}
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.dtype_policy)
        try:
            style = {"style": Style(**settings["style"])} if "style" in settings else {}
            outputs = BLOCKS[self.kind](inputs, name=self.kind, **{**settings, **style})
        except SettingError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise SettingError(f"block {self.kind} on {tuple(shape[1:])} with {settings}: {one_line(error)}") from error
        finally:
            keras.config.set_dtype_policy(before)
        self.inner = keras.Model(inputs, outputs, name=f"{self.name}_inner")
        self.inner.trainable = self.trainable
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """(n, h, w, c) → what the block gives."""
        return self.inner(x, training=training)  # type: ignore[misc]

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Builds the block if that has not been done."""
        if self.inner is None:
            self.build(shape)
        return tuple(self.inner.compute_output_shape(tuple(shape)))  # type: ignore[union-attr]

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        return {**super().get_config(), "kind": self.kind, "settings": _plain(self.settings)}


def _plain(value: Any) -> Any:
    """Keras wraps lists and mappings that a layer keeps; the blocks take them as they were given."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


OWN_LAYERS = (ChannelSlice, ChannelPad, AffineSampler, Block)
