"""Our own networks as data: the stage tables of their papers, one constant each, and the rules that scale them.

A trunk is a stem, stages of units, and what stands before and after the pooling. Each unit names a block of
`models.blocks`. Feature maps in the comments are for the published input size; tests check them.

In scope: numbers. Not aware of: layers, weights. Imports errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from featherweight.errors import SettingError


@dataclass(frozen=True)
class Style:
    """What a network does alike in all its blocks.

    `padding` of strided windows is "symmetric" (k // 2 on every side, as PyTorch's networks were trained), "same"
    (TensorFlow's: what is odd goes to the right and the bottom) or "valid" (none). A network answers well only with
    its own.
    """

    padding: str = "symmetric"
    epsilon: float = 1e-5
    activation: str = "relu"
    # ImageNet runs keep 0.99 and more over a million steps. A run here has hundreds: the statistics that inference
    # uses would still be mostly their start values.
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.padding not in ("symmetric", "same", "valid"):
            raise SettingError(f"padding {self.padding!r}; wanted symmetric, same or valid")


def make_divisible(channels: float, divisor: int = 8, least_share: float = 0.9) -> int:
    """The multiple of `divisor` nearest to `channels`, but not under `least_share` of it (MobileNetV2's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least_share * channels else rounded


def by_eights(filters: int, width: float) -> int:
    """The usual scaling: the multiple of 8 nearest to filters × width."""
    return make_divisible(filters * width)


def by_fours(filters: int, width: float) -> int:
    """GhostNet's scaling: multiples of 4."""
    return make_divisible(filters * width, 4)


def by_sixteens(filters: int, width: float) -> int:
    """For Fire modules: halves and eighths of the filters stay whole."""
    return make_divisible(filters * width, 16)


def by_elevenths(filters: int, width: float) -> int:
    """NASNet-Mobile's filters are multiples of 11, and sums of some of them must stay equal to others."""
    return filters // 11 * max(1, round(11 * width)) if filters % 11 == 0 else by_eights(filters, width)


@dataclass(frozen=True)
class Units:
    """`repeats` blocks in a row; the first has `strides`. Without `scaled` the width leaves the filters alone."""

    block: str
    filters: int
    repeats: int = 1
    strides: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    scaled: bool = True


Stage = tuple[Units, ...]


@dataclass(frozen=True)
class Trunk:
    """A network up to its pooled features. `tail` stands before the global pooling, `head` after it."""

    stages: tuple[Stage, ...]
    stem: Units | None = None
    stem_pool: bool = False
    tail: Units | None = None
    head: Units | None = None
    style: Style = field(default_factory=Style)
    scale: Callable[[int, float], int] = by_eights
    scaled_settings: tuple[str, ...] = ()  # settings of units that are numbers of channels, which the width scales too


def _conv(filters: int, kernel: int = 3, strides: int = 1, *, scaled: bool = True, norm: bool = True) -> Units:
    return Units("convolution", filters, 1, strides, {"kernel": kernel, "norm": norm}, scaled)


# ------------------------------------------------------------------------------------------------------ hello

# The smallest network of the tutorials: three layers with weights.
HELLO = Trunk(
    stages=((Units("depthwise_separable", 32),),),  # 224 → 224
    style=Style("same"),
)

# --------------------------------------------------------------------------------------------------- SqueezeNet

# Iandola et al. 2016, arXiv 1602.07360, table 1. Fires with strides 2 pool before.
SQUEEZENET_1_0 = Trunk(
    stem=_conv(96, 7, 2, norm=False),  # 224 → 109
    stages=(
        (Units("fire", 128, 2, 2), Units("fire", 256)),  # 109 → 54
        (Units("fire", 256, 1, 2), Units("fire", 384, 2), Units("fire", 512)),  # 54 → 27
        (Units("fire", 512, 1, 2),),  # 27 → 13
    ),
    style=Style("valid"),
    scale=by_sixteens,
)
# The authors' repository, 2016: 2.4 times fewer MACs by a smaller stem and earlier pools.
SQUEEZENET_1_1 = Trunk(
    stem=_conv(64, 3, 2, norm=False),  # 224 → 111
    stages=(
        (Units("fire", 128, 2, 2),),  # 111 → 55
        (Units("fire", 256, 2, 2),),  # 55 → 27
        (Units("fire", 384, 2, 2), Units("fire", 512, 2)),  # 27 → 13
    ),
    style=Style("valid"),
    scale=by_sixteens,
)

# --------------------------------------------------------------------------------------------------- ShuffleNet


def shufflenet_v1(groups: int, filters: int) -> Trunk:
    """Zhang et al. 2018, arXiv 1707.01083, table 1: 4, 8 and 4 units; `filters` is stage 2's, doubled twice."""

    def scale(channels: int, width: float) -> int:
        # A quarter of the filters goes through a grouped convolution; the stem's 24 are themselves a multiple.
        return make_divisible(channels * width, groups if channels == 24 else 4 * groups)

    def stage(number: int, repeats: int) -> Stage:
        first = {"groups": groups, "group_first": number > 0}  # stage 2's input is too thin to be grouped
        rest = {"groups": groups}
        wide = filters * 2**number
        return Units("shuffle_unit", wide, 1, 2, first), Units("shuffle_unit", wide, repeats - 1, 1, rest)

    return Trunk(
        stem=_conv(24, 3, 2),  # 224 → 112
        stem_pool=True,  # 112 → 56
        stages=(stage(0, 4), stage(1, 8), stage(2, 4)),  # 56 → 28 → 14 → 7
        style=Style("same"),
        scale=scale,
    )


# Ma et al. 2018, arXiv 1807.11164, table 5: the widths are no multiples of each other.
_SHUFFLENET_V2 = {
    0.5: {116: 48, 232: 96, 464: 192, 1024: 1024},
    1.0: {116: 116, 232: 232, 464: 464, 1024: 1024},
    1.5: {116: 176, 232: 352, 464: 704, 1024: 1024},
    2.0: {116: 244, 232: 488, 464: 976, 1024: 2048},
}


def _scale_shufflenet_v2(filters: int, width: float) -> int:
    """The paper's table; between its widths the nearest even number, because units split in halves."""
    if filters == 24:
        return 24
    return _SHUFFLENET_V2.get(width, {}).get(filters) or make_divisible(filters * width, 2)


SHUFFLENET_V2 = Trunk(
    stem=_conv(24, 3, 2),  # 224 → 112
    stem_pool=True,  # 112 → 56
    stages=(
        (Units("shuffle_unit_v2", 116, 4, 2),),  # 56 → 28
        (Units("shuffle_unit_v2", 232, 8, 2),),  # 28 → 14
        (Units("shuffle_unit_v2", 464, 4, 2),),  # 14 → 7
    ),
    tail=_conv(1024, 1),
    scale=_scale_shufflenet_v2,
)

# ------------------------------------------------------------------------------------------------------ MNASNet


def _inverted(filters: int, repeats: int, strides: int, expand: int, kernel: int) -> Units:
    return Units("inverted_residual", filters, repeats, strides, {"expand": expand, "kernel": kernel})


# Tan et al. 2019, arXiv 1807.11626: the search's result without squeeze-and-excitation, B1 in the authors' code.
MNASNET = Trunk(
    stem=_conv(32, 3, 2),  # 224 → 112
    stages=(
        (Units("depthwise_separable", 16, 1, 1, {"activation": "linear"}),),  # 112 → 112
        (_inverted(24, 3, 2, 3, 3),),  # 112 → 56
        (_inverted(40, 3, 2, 3, 5),),  # 56 → 28
        (_inverted(80, 3, 2, 6, 5),),  # 28 → 14
        (_inverted(96, 2, 1, 6, 3),),  # 14 → 14
        (_inverted(192, 4, 2, 6, 5),),  # 14 → 7
        (_inverted(320, 1, 1, 6, 3),),  # 7 → 7
    ),
    tail=_conv(1280, 1, scaled=False),
)

# ----------------------------------------------------------------------------------------------------- GhostNet


def _ghost(filters: int, expand: int, kernel: int, strides: int = 1, excite: float = 0.0) -> Units:
    return Units("ghost_bottleneck", filters, 1, strides, {"expand": expand, "kernel": kernel, "excite": excite})


# Han et al. 2020, arXiv 1911.11907, table 1.
GHOSTNET = Trunk(
    stem=_conv(16, 3, 2),  # 224 → 112
    stages=(
        (_ghost(16, 16, 3),),  # 112 → 112
        (_ghost(24, 48, 3, 2),),  # 112 → 56
        (_ghost(24, 72, 3),),
        (_ghost(40, 72, 5, 2, 0.25),),  # 56 → 28
        (_ghost(40, 120, 5, 1, 0.25),),
        (_ghost(80, 240, 3, 2),),  # 28 → 14
        (
            _ghost(80, 200, 3),
            _ghost(80, 184, 3),
            _ghost(80, 184, 3),
            _ghost(112, 480, 3, 1, 0.25),
            _ghost(112, 672, 3, 1, 0.25),
        ),
        (_ghost(160, 672, 5, 2, 0.25),),  # 14 → 7
        (
            _ghost(160, 960, 5),
            _ghost(160, 960, 5, 1, 0.25),
            _ghost(160, 960, 5),
            _ghost(160, 960, 5, 1, 0.25),
        ),
        (_conv(960, 1),),
    ),
    head=_conv(1280, 1, scaled=False, norm=False),
    scale=by_fours,
    scaled_settings=("expand",),
)

# --------------------------------------------------------------------------------------------- EfficientNet-Lite


def efficientnet_lite(width: float, depth: float) -> Trunk:
    """Google 2020, "EfficientNet-Lite": EfficientNet (Tan & Le 2019, arXiv 1905.11946, table 1) without
    squeeze-and-excitation, with ReLU6, stem and head not scaled, first and last stage not deepened.
    """

    def stage(filters: int, repeats: int, strides: int, kernel: int) -> Stage:
        deep = repeats if filters == 320 else -int(-repeats * depth // 1)
        return (_inverted(filters, deep, strides, 6, kernel),)

    return Trunk(
        stem=_conv(32, 3, 2, scaled=False),  # 224 → 112
        stages=(
            (Units("depthwise_separable", 16, 1, 1, {"activation": "linear", "residual": True}),),  # 112 → 112
            stage(24, 2, 2, 3),  # 112 → 56
            stage(40, 2, 2, 5),  # 56 → 28
            stage(80, 3, 2, 3),  # 28 → 14
            stage(112, 3, 1, 5),  # 14 → 14
            stage(192, 4, 2, 5),  # 14 → 7
            stage(320, 1, 1, 3),  # 7 → 7
        ),
        tail=_conv(1280, 1, scaled=False),
        style=Style("same", 1e-3, "relu6"),
        scale=lambda filters, multiplier: make_divisible(filters * width * multiplier),
    )


# --------------------------------------------------------------------------------------------------- MobileNetV4


def _universal(filters: int, start: int, middle: int, expand: float, strides: int = 1, repeats: int = 1) -> Units:
    settings = {"start": start, "middle": middle, "expand": expand}
    return Units("universal_inverted_bottleneck", filters, repeats, strides, settings)


# Qin et al. 2024, arXiv 2404.10518, appendix D, table 10: start, middle, expand.
MOBILENET_V4_CONV_SMALL = Trunk(
    stem=_conv(32, 3, 2),  # 224 → 112
    stages=(
        (_conv(32, 3, 2), _conv(32, 1)),  # 112 → 56
        (_conv(96, 3, 2), _conv(64, 1)),  # 56 → 28
        (
            _universal(96, 5, 5, 3, 2),  # 28 → 14
            _universal(96, 0, 3, 2, 1, 4),
            _universal(96, 3, 0, 4),
        ),
        (
            _universal(128, 3, 3, 6, 2),  # 14 → 7
            _universal(128, 5, 5, 4),
            _universal(128, 0, 5, 4),
            _universal(128, 0, 5, 3),
            _universal(128, 0, 3, 4, 1, 2),
        ),
        (_conv(960, 1),),
    ),
    head=_conv(1280, 1, scaled=False),
)
# Table 11.
MOBILENET_V4_CONV_MEDIUM = Trunk(
    stem=_conv(32, 3, 2),  # 224 → 112
    stages=(
        (Units("fused_inverted_residual", 48, 1, 2, {"expand": 4}),),  # 112 → 56
        (_universal(80, 3, 5, 4, 2), _universal(80, 3, 3, 2)),  # 56 → 28
        (
            _universal(160, 3, 5, 6, 2),  # 28 → 14
            _universal(160, 3, 3, 4, 1, 2),
            _universal(160, 3, 5, 4),
            _universal(160, 3, 3, 4),
            _universal(160, 3, 0, 4),
            _universal(160, 0, 0, 2),
            _universal(160, 3, 0, 4),
        ),
        (
            _universal(256, 5, 5, 6, 2),  # 14 → 7
            _universal(256, 5, 5, 4),
            _universal(256, 3, 5, 4, 1, 2),
            _universal(256, 0, 0, 4),
            _universal(256, 3, 0, 4),
            _universal(256, 3, 5, 2),
            _universal(256, 5, 5, 4),
            _universal(256, 0, 0, 4, 1, 2),
            _universal(256, 5, 0, 2),
        ),
        (_conv(960, 1),),
    ),
    head=_conv(1280, 1, scaled=False),
)

# ----------------------------------------------------------------------------------------------------- MobileOne

# Vasu et al. 2022, arXiv 2206.04040, table 2; S0's width multipliers are in the filters: 0.75, 1, 1, 2.
MOBILEONE_S0 = Trunk(
    stem=Units("branched", 48, 1, 2),  # 224 → 112
    stages=(
        (Units("mobileone_block", 48, 2, 2),),  # 112 → 56
        (Units("mobileone_block", 128, 8, 2),),  # 56 → 28
        (Units("mobileone_block", 256, 10, 2),),  # 28 → 14
        (Units("mobileone_block", 1024, 1, 2),),  # 14 → 7
    ),
)

# ------------------------------------------------------------------------------------------------- CIFAR ResNets


def cifar_resnet(depth: int) -> Trunk:
    """He et al. 2016, arXiv 1512.03385, §4.2: 6n + 2 layers for 32-pixel pictures."""
    repeats = (depth - 2) // 6
    return Trunk(
        stem=_conv(16, 3),  # 32 → 32
        stages=(
            (Units("basic_residual", 16, repeats),),  # 32 → 32
            (Units("basic_residual", 32, repeats, 2),),  # 32 → 16
            (Units("basic_residual", 64, repeats, 2),),  # 16 → 8
        ),
        scale=by_fours,
    )
