"""The networks as data: a row each, with what was published of them.

In scope: names, sources, numbers, which trunk. Not aware of: how a trunk is built. Imports errors and stages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from featherweight.errors import SettingError
from featherweight.models import stages
from featherweight.models.stages import Trunk


@dataclass(frozen=True)
class Scaling:
    """What the network sees of a pixel: pixel · scale + offset, for red, green and blue."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]

    def of(self, channels: int) -> tuple[list[float], list[float]]:
        """For 1 (grey: the mean of the three), 3 or 4 channels (the fourth like grey)."""
        grey = (sum(self.scale) / 3, sum(self.offset) / 3)
        rows = {1: [grey], 3: [*zip(self.scale, self.offset, strict=True)]}
        rows[4] = [*rows[3], grey]
        scale, offset = zip(*rows[channels], strict=True)
        return list(scale), list(offset)


def _mean_and_deviation(mean: tuple[float, ...], deviation: tuple[float, ...]) -> Scaling:
    r, g, b = ((1 / (255 * d), -m / d) for m, d in zip(mean, deviation, strict=True))
    return Scaling((r[0], g[0], b[0]), (r[1], g[1], b[1]))


SYMMETRIC = Scaling((1 / 127.5,) * 3, (-1.0,) * 3)  # [-1, 1]
IMAGENET = _mean_and_deviation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNSCALED = Scaling((1.0,) * 3, (0.0,) * 3)  # the trunk scales by itself
# Caffe's networks took BGR 0–255 minus the means. Here the channels stay RGB and are divided by 127.5 as well;
# `pretrained` turns and multiplies the first kernel instead.
CAFFE = Scaling((1 / 127.5,) * 3, (-123.68 / 127.5, -116.779 / 127.5, -103.939 / 127.5))


@dataclass(frozen=True)
class Published:
    """One published variant. Parameters are those that training changes, without batch-norm statistics."""

    width: float
    size: int
    parameters: int
    macs: int
    top1: float | None


@dataclass(frozen=True)
class Application:
    """A trunk of `keras.applications`, wrapped, not rewritten."""

    name: str
    # Layers, from fine to coarse; "x>" is the layer behind x, which Keras gives no fixed name; of "x|y" the one that is
    # there.
    endpoints: tuple[str, ...]
    small: Mapping[str, Mapping[str, Any]]  # what changes in which layer for 32-pixel inputs
    settings: Mapping[str, Any] = field(default_factory=dict)
    takes_width: bool = False  # by its argument alpha; the others' filters are scaled here:
    scale: Callable[[int, float], int] = stages.by_eights
    small_from: int | None = None  # at 32 pixels, the input size whose paddings are right once the first stride is 1


@dataclass(frozen=True)
class Net:
    """One row of the zoo."""

    name: str
    what: str
    source: str
    trunk: Trunk | Application
    published: tuple[Published, ...]
    scaling: Scaling = IMAGENET
    classes: int = 1000
    note: str = ""  # where our count is not the paper's, and why

    @property
    def widths(self) -> tuple[float, ...]:
        """The published width multipliers."""
        return tuple(dict.fromkeys(row.width for row in self.published))

    @property
    def size(self) -> int:
        """The published input size, in pixels."""
        return self.published[-1].size


def _unpadded(pad: str, *layers: str) -> dict[str, dict[str, Any]]:
    """Layers without their strides; where they had a padding layer of their own, it is made even."""
    return {pad: {"padding": ((1, 1), (1, 1))}, **{layer: {"strides": (1, 1)} for layer in layers}}


_ROWS = (
    Net(
        "hello",
        "The smallest one: depthwise 3×3, 1×1 to 32 channels, global pooling, dense.",
        "the usual first example of depthwise separable convolution",
        stages.HELLO,
        (Published(1.0, 224, 33_193, 6_203_648, None),),
        SYMMETRIC,
    ),
    Net(
        "mobilenet_v1",
        "Depthwise separable convolutions all the way.",
        "Howard et al. 2017, arXiv 1704.04861",
        Application(
            "MobileNet",
            ("conv_pw_1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
            _unpadded("conv_pad_2", "conv1", "conv_dw_2"),
            takes_width=True,
        ),
        (
            Published(0.25, 224, 470_072, 41_030_272, 50.6),
            Published(0.5, 224, 1_331_592, 149_497_088, 63.7),
            Published(0.75, 224, 2_585_560, 325_400_448, 68.4),
            Published(1.0, 224, 4_231_976, 568_740_352, 70.6),
        ),
        SYMMETRIC,
        note="580 M where two operations are counted for each number that leaves a batch norm.",
    ),
    Net(
        "mobilenet_v2",
        "Inverted residuals: wide inside, narrow and linear between.",
        "Sandler et al. 2018, arXiv 1801.04381",
        Application(
            "MobileNetV2",
            ("expanded_conv_project_BN", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
            _unpadded("block_1_pad", "Conv1", "block_1_depthwise"),
            takes_width=True,
        ),
        (
            Published(0.35, 224, 1_677_128, 59_285_808, 60.3),
            Published(0.5, 224, 1_968_680, 97_131_840, 65.4),
            Published(0.75, 224, 2_636_424, 209_069_792, 69.8),
            Published(1.0, 224, 3_504_872, 300_774_272, 72.0),
            Published(1.3, 224, 5_386_792, 509_374_560, 74.4),
            Published(1.4, 224, 6_108_776, 582_195_824, 74.7),
        ),
        SYMMETRIC,
    ),
    Net(
        "mobilenet_v3_small",
        "Inverted residuals found by search, with squeeze-and-excitation and hard swish.",
        "Howard et al. 2019, arXiv 1905.02244",
        Application(
            "MobileNetV3Small",
            ("conv_bn>", "expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "conv_1_bn>"),
            _unpadded("expanded_conv_depthwise_pad", "conv", "expanded_conv_depthwise"),
            {"include_preprocessing": False},
            takes_width=True,
        ),
        (Published(0.75, 224, 2_041_872, 43_399_344, 65.4), Published(1.0, 224, 2_542_856, 56_510_400, 67.4)),
        SYMMETRIC,
    ),
    Net(
        "mobilenet_v3_large",
        "The larger of the two found by search.",
        "Howard et al. 2019, arXiv 1905.02244",
        Application(
            "MobileNetV3Large",
            (
                "expanded_conv_add|expanded_conv_project_bn",
                "expanded_conv_2_add",
                "expanded_conv_5_add",
                "expanded_conv_11_add",
                "conv_1_bn>",
            ),
            _unpadded("expanded_conv_1_depthwise_pad", "conv", "expanded_conv_1_depthwise"),
            {"include_preprocessing": False},
            takes_width=True,
        ),
        (Published(0.75, 224, 3_993_528, 154_560_624, 73.3), Published(1.0, 224, 5_483_032, 216_589_760, 75.2)),
        SYMMETRIC,
    ),
    Net(
        "mobilenet_v4_conv_small",
        "Universal inverted bottlenecks: up to two depthwise filters a block.",
        "Qin et al. 2024, arXiv 2404.10518",
        stages.MOBILENET_V4_CONV_SMALL,
        (Published(1.0, 224, 3_774_024, 186_005_568, 73.8),),
        note="0.19 G where two operations are counted for each number that leaves a batch norm. top-1 is timm's.",
    ),
    Net(
        "mobilenet_v4_conv_medium",
        "The middle one of the family, with one fused block in front.",
        "Qin et al. 2024, arXiv 2404.10518",
        stages.MOBILENET_V4_CONV_MEDIUM,
        (Published(1.0, 224, 9_715_512, 827_649_984, 79.1),),
        note="0.84 G where two operations are counted for each number that leaves a batch norm. top-1 is timm's.",
    ),
    Net(
        "squeezenet_1_0",
        "Fire modules: squeeze by 1×1, expand by 1×1 and 3×3 side by side. No batch norm.",
        "Iandola et al. 2016, arXiv 1602.07360",
        stages.SQUEEZENET_1_0,
        (Published(1.0, 224, 1_248_424, 818_924_576, 58.1),),
    ),
    Net(
        "squeezenet_1_1",
        "SqueezeNet with a smaller stem and earlier pools: 2.4 times fewer MACs.",
        "Iandola et al. 2016, arXiv 1602.07360",
        stages.SQUEEZENET_1_1,
        (Published(1.0, 224, 1_235_496, 349_151_936, 58.2),),
    ),
    *(
        Net(
            f"shufflenet_v1_g{groups}",
            f"Grouped 1×1 convolutions in {groups} group{'s' * (groups > 1)}, and a shuffle between them.",
            "Zhang et al. 2018, arXiv 1707.01083",
            stages.shufflenet_v1(groups, filters),
            (Published(1.0, 224, parameters, macs, top1),),
            note="the paper's figure is without the dense layer.",
        )
        for groups, filters, parameters, macs, top1 in (
            (1, 144, 1_531_936, 143_078_976, 66.4),
            (2, 200, 1_733_848, 140_836_512, 67.3),
            (3, 240, 1_865_728, 137_460_672, 67.4),
            (4, 272, 1_968_344, 134_339_776, 67.2),
            (8, 384, 2_434_768, 138_365_952, 67.6),
        )
    ),
    Net(
        "shufflenet_v2",
        "Half of the channels pass, half are filtered, then they are shuffled: made for latency, not MACs.",
        "Ma et al. 2018, arXiv 1807.11164",
        stages.SHUFFLENET_V2,
        (
            Published(0.5, 224, 1_366_792, 40_476_448, 60.6),
            Published(1.0, 224, 2_278_604, 144_907_992, 69.4),
            Published(1.5, 224, 3_503_624, 295_759_392, 73.0),
            Published(2.0, 224, 7_393_996, 583_253_464, 76.2),
        ),
        note="the paper says 41, 146, 299 and 591 M; with one operation for each number that leaves a batch norm, ours "
        "are 41.5, 146.9, 298.5 and 587 M, the last 590.7 with two. top-1 is torchvision's.",
    ),
    Net(
        "mnasnet",
        "Found by a search with measured phone latency in its reward.",
        "Tan et al. 2019, arXiv 1807.11626",
        stages.MNASNET,
        (
            Published(0.5, 224, 2_218_512, 104_455_968, 67.7),
            Published(0.75, 224, 3_170_208, 215_493_104, 71.2),
            Published(1.0, 224, 4_383_312, 314_415_872, 73.5),
            Published(1.3, 224, 6_282_256, 526_362_432, 76.5),
        ),
        note="top-1 is torchvision's.",
    ),
    Net(
        "ghostnet",
        "Half of the maps by convolution, the other half from those by cheap depthwise filters.",
        "Han et al. 2020, arXiv 1911.11907",
        stages.GHOSTNET,
        (Published(1.0, 224, 5_182_508, 141_150_512, 73.9),),
    ),
    *(
        Net(
            f"efficientnet_lite{number}",
            "EfficientNet without what mobile accelerators dislike: no excitation, ReLU6.",
            "Google 2020; Tan & Le 2019, arXiv 1905.11946",
            stages.efficientnet_lite(width, depth),
            (Published(1.0, size, parameters, macs, top1),),
            SYMMETRIC,
            note=f"published as {said}, where batch norms and activations are counted too.",
        )
        for number, (width, depth, size, parameters, macs, top1, said) in enumerate(
            (
                (1.0, 1.0, 224, 4_652_008, 385_187_552, 75.1, "407 M"),
                (1.0, 1.1, 240, 5_416_680, 600_185_232, 76.7, "631 M"),
                (1.1, 1.2, 260, 6_092_072, 859_736_272, 77.6, "899 M"),
                (1.2, 1.4, 280, 8_197_096, 1_383_321_872, 79.8, "1.44 G"),
                (1.4, 1.8, 300, 13_006_568, 2_553_034_336, 81.5, "2.64 G"),
            )
        )
    ),
    Net(
        "efficientnet_b0",
        "Depth, width and size scaled together, from a searched base with squeeze-and-excitation.",
        "Tan & Le 2019, arXiv 1905.11946",
        Application(
            "EfficientNetB0",
            ("block1a_project_bn", "block2b_add", "block3b_add", "block5c_add", "top_activation"),
            {
                "stem_conv_pad": {"padding": ((1, 1), (1, 1))},
                "stem_conv": {"strides": (1, 1)},
                "block2a_dwconv_pad": {"padding": ((1, 1), (1, 1))},
                "block2a_dwconv": {"strides": (1, 1)},
            },
        ),
        (Published(1.0, 224, 5_288_548, 385_814_752, 77.1),),
        UNSCALED,
    ),
    Net(
        "nasnet_mobile",
        "Cells found by search, of separable convolutions side by side.",
        "Zoph et al. 2018, arXiv 1707.07012",
        Application(
            "NASNetMobile",
            ("stem_bn1", "reduction_concat_stem_1", "normal_concat_3", "normal_concat_8", "normal_concat_12"),
            {"stem_conv1": {"strides": (1, 1)}},
            scale=stages.by_elevenths,
            small_from=61,
        ),
        (Published(1.0, 224, 5_289_978, 563_638_816, 74.0),),
        SYMMETRIC,
    ),
    Net(
        "mobileone_s0",
        "Branches for training that fold into plain depthwise and 1×1 convolutions for inference.",
        "Vasu et al. 2022, arXiv 2206.04040",
        stages.MOBILEONE_S0,
        (Published(1.0, 224, 5_293_272, 1_051_935_232, 71.4),),
        note="as trained; folded it has 2,078,504 parameters and 275 M MACs.",
    ),
    *(
        Net(
            f"resnet{depth}_cifar",
            "The heavy baseline for 32-pixel pictures: standard convolutions, shortcuts without weights.",
            "He et al. 2016, arXiv 1512.03385, §4.2",
            stages.cifar_resnet(depth),
            (Published(1.0, 32, parameters, macs, None),),
            classes=10,
        )
        for depth, parameters, macs in (
            (20, 269_722, 40_551_040),
            (32, 464_154, 68_862_592),
            (44, 658_586, 97_174_144),
            (56, 853_018, 125_485_696),
        )
    ),
    Net(
        "resnet50",
        "The heavy baseline: standard convolutions in bottlenecks.",
        "He et al. 2016, arXiv 1512.03385",
        Application(
            "ResNet50",
            ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
            {"conv1_conv": {"strides": (1, 1)}, "pool1_pool": {"strides": (1, 1)}},
        ),
        (Published(1.0, 224, 25_583_592, 3_857_973_248, 74.9),),
        CAFFE,
        note="Keras' has 26,560 biases more than the 25,557,032 of PyTorch's, and its strides sit in the 1×1 "
        "convolutions, which saves 6 % of the usual 4.09 G MACs.",
    ),
    Net(
        "vgg16",
        "The very heavy baseline: nothing but 3×3 convolutions.",
        "Simonyan & Zisserman 2014, arXiv 1409.1556",
        Application(
            "VGG16",
            ("block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"),
            {},
        ),
        (Published(1.0, 224, 138_357_544, 15_470_264_320, 71.3),),
        CAFFE,
    ),
)
NETS = {net.name: net for net in _ROWS}


def net_named(name: str) -> Net:
    """The row of that name.

    Raises:
        SettingError: unknown.
    """
    if name not in NETS:
        raise SettingError(f"unknown model {name!r}; known: {', '.join(NETS)}")
    return NETS[name]
