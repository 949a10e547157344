"""The segmenters as data: a row each for those that have a name of their own, and the settings of a decoder.

Any network of the zoo is a segmenter too: a U-Net on its trunk. What is here has another form, or names its trunk.

In scope: names, sources, numbers. Not aware of: layers. Imports errors and nets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from featherweight.errors import SettingError
from featherweight.models.nets import NETS, Net, Published, net_named

UNET, LRASPP = "unet", "lraspp"
KINDS = (UNET, LRASPP)
STRIDES = (1, 2, 4, 8, 16, 32)
MOST_BLOCKS = 4


@dataclass(frozen=True)
class Decoder:
    """What stands on a trunk and answers for each pixel.

    `unet` (Ronneberger et al. 2015, arXiv 1505.04597): from the coarsest map down, each is spread to the next finer
    one and joined with it. `lraspp` (Howard et al. 2019, arXiv 1905.02244, §6.4): the coarse map, weighed by what all
    of it shows, beside a finer one; trunks keep their strides here, where the paper thins the last ones out.

    `width` is the channels of a `unet` at stride 2: half as many at stride 1, and twice as many at each coarser one up
    to 8 · width; of an `lraspp` it is that of the coarse map. `strides` are the maps that are taken, fine to coarse; of
    a `unet` 1 is the picture itself; empty means all that the trunk has, of an `lraspp` the coarsest and the one two
    steps finer. `separable` and `blocks` are the convolutions of a `unet` on each map: depthwise separable or plain
    3×3, and how many.
    """

    kind: str = UNET
    width: int = 16
    separable: bool = True
    blocks: int = 1
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"unknown decoder {self.kind!r}; known: {', '.join(KINDS)}")
        if not 4 <= self.width <= 512:
            raise SettingError(f"decoder of {self.width} channels; wanted 4 to 512")
        if not 1 <= self.blocks <= MOST_BLOCKS:
            raise SettingError(f"{self.blocks} blocks on a map; wanted 1 to {MOST_BLOCKS}")
        rising = all(a < b for a, b in zip(self.strides, self.strides[1:], strict=False))
        if not rising or not set(self.strides) <= set(STRIDES):
            raise SettingError(f"strides {self.strides}; wanted some of {STRIDES}, from fine to coarse")
        if self.kind == LRASPP and len(self.strides) not in (0, 2):
            raise SettingError(f"strides {self.strides} of an lraspp; wanted two, as (8, 32)")

    def channels(self, stride: int) -> int:
        """Of a `unet` at that stride."""
        return max(4, self.width * min(stride, STRIDES[4]) // 2)


@dataclass(frozen=True)
class Segmenter:
    """One row. `published` are counts for two classes, `trunk` the network of the zoo that it stands on, if it does."""

    name: str
    what: str
    source: str
    published: tuple[Published, ...]
    trunk: str | None = None
    decoder: Decoder | None = None
    note: str = ""

    @property
    def widths(self) -> tuple[float, ...]:
        """The width multipliers that are listed."""
        return tuple(dict.fromkeys(row.width for row in self.published))

    @property
    def size(self) -> int:
        """The listed input size, in pixels."""
        return self.published[-1].size


UNET_MINI, FAST_SCNN = "unet_mini", "fast_scnn"
_ROWS = (
    Segmenter(
        UNET_MINI,
        "The smallest one: 3×3 convolutions of 32, 64 and 32 channels, the second on a half of the sides, one skip.",
        "the usual first example of a U-Net; Ronneberger et al. 2015, arXiv 1505.04597",
        (
            Published(0.25, 256, 3_137, 146_800_640, None),
            Published(0.5, 256, 12_033, 557_842_432, None),
            Published(1.0, 256, 47_105, 2_172_649_472, None),
        ),
        note="few weights, but all of them at every pixel: for its MACs compare the U-Nets on trunks.",
    ),
    Segmenter(
        "unet_light",
        "A U-Net of separable blocks on MobileNetV1 down to stride 16, its finest map of stride 2: fast in int8.",
        "Ronneberger et al. 2015, arXiv 1505.04597, on Howard et al. 2017, arXiv 1704.04861",
        (
            Published(0.25, 256, 133_105, 94_453_760, None),
            Published(0.5, 256, 453_265, 235_503_616, None),
            Published(1.0, 256, 1_681_105, 744_095_744, None),
        ),
        trunk="mobilenet_v1",
        decoder=Decoder(strides=(2, 4, 8, 16)),
    ),
    Segmenter(
        "lraspp",
        "A light head on MobileNetV3-Small: the coarse map weighed by its own mean, beside a finer one.",
        "Howard et al. 2019, arXiv 1905.02244, §6.4",
        (
            Published(0.75, 256, 684_609, 58_434_304, None),
            Published(1.0, 256, 1_075_001, 76_509_184, None),
        ),
        trunk="mobilenet_v3_small",
        decoder=Decoder(LRASPP, 128),
        note="the trunk keeps its stride of 32; the paper's has 16 by dilated filters.",
    ),
    Segmenter(
        "lraspp_large",
        "The same on MobileNetV3-Large.",
        "Howard et al. 2019, arXiv 1905.02244, §6.4",
        (
            Published(0.75, 256, 1_974_513, 204_877_184, None),
            Published(1.0, 256, 3_218_265, 287_313_792, None),
        ),
        trunk="mobilenet_v3_large",
        decoder=Decoder(LRASPP, 128),
        note="the trunk keeps its stride of 32; the paper's has 16 by dilated filters.",
    ),
    Segmenter(
        FAST_SCNN,
        "Two branches from one start: details at stride 8, and what a narrow deep one sees at stride 32.",
        "after Poudel et al. 2019, arXiv 1902.04502",
        (
            Published(0.25, 256, 84_097, 17_717_504, None),
            Published(0.5, 256, 299_801, 57_834_496, None),
            Published(1.0, 256, 1_127_217, 207_134_720, None),
        ),
        note="pools of the pyramid are of whole cells, so that their number depends on the input's size.",
    ),
)
SEGMENTERS: Mapping[str, Segmenter] = {row.name: row for row in _ROWS}


def row_named(name: str) -> Net | Segmenter:
    """The row of a network or of a segmenter.

    Raises:
        SettingError: unknown.
    """
    if name in SEGMENTERS:
        return SEGMENTERS[name]
    if name not in NETS:
        raise SettingError(f"unknown model {name!r}; known: {', '.join((*NETS, *SEGMENTERS))}")
    return NETS[name]


def trunk_of(name: str) -> str | None:
    """The network of the zoo that a network or a segmenter stands on, by name; `None` where it stands on none.

    Raises:
        SettingError: unknown.
    """
    row = row_named(name)
    return row.trunk if isinstance(row, Segmenter) else row.name


def trunk_named(name: str) -> Net:
    """The row of a network that takes a head.

    Raises:
        SettingError: unknown, or a segmenter, which has its own.
    """
    if name in SEGMENTERS:
        raise SettingError(f"{name} is whole and answers for each pixel; wanted a trunk: {', '.join(NETS)}")
    return net_named(name)
