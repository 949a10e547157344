"""Where the published weights of our own networks are, and what their authors call our layers.

A checkpoint of PyTorch is a mapping from names such as `stage2.0.branch2.5.weight` to arrays. A `Naming` gives the name
of one of our layers there; `pretrained` does the rest. A digest is pinned where one is public: whole, or the first
digits that torchvision writes into its file names and checks. Without one, the file is taken from the user only.

In scope: names and addresses. Not aware of: arrays, layers. Imports nothing of the package.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TORCHVISION = "https://download.pytorch.org/models/"
HUGGING_FACE = "https://huggingface.co/timm/"
AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
UNIT = re.compile(r"stage(\d+)_block(\d+)(?:_(\w+))?")


@dataclass(frozen=True)
class Naming:
    """`fixed` has the layers outside the stages; `unit` gives the name of (stage, block, part of the block)."""

    fixed: Mapping[str, str]
    unit: Callable[[int, int, str], str]

    def key(self, layer: str) -> str:
        """The checkpoint's name for a layer, without `.weight` and the like.

        Raises:
            KeyError: the checkpoint knows no such layer.
        """
        unit = UNIT.fullmatch(layer)
        return self.fixed[layer] if unit is None else self.unit(int(unit[1]), int(unit[2]), unit[3] or "")


@dataclass(frozen=True)
class Checkpoint:
    """A published file; `sha256` is the digest or its first digits, `None` where none is public."""

    url: str
    sha256: str | None
    naming: Naming

    @property
    def file(self) -> str:
        """A name for the cache: that of the file, or of its repository where the file has a common one."""
        parts = self.url.split("/")
        return f"{parts[4]}.safetensors" if parts[-1] == "model.safetensors" else parts[-1]


# ----------------------------------------------------------------------------------------------------- namings


def _with_norms(convolutions: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """A part's (convolution, batch norm) as two entries."""
    return {
        name: key
        for part, keys in convolutions.items()
        for name, key in zip((part, f"{part}_norm".lstrip("_")), keys, strict=True)
    }


def _squeezenet(fires: tuple[int, ...], firsts: tuple[int, ...]) -> Naming:
    """`fires` are their places in torchvision's `features`; `firsts` the number of the first fire of each stage."""
    leaves = {"squeeze": "squeeze", "expand1": "expand1x1", "expand3": "expand3x3"}
    return Naming(
        {"stem": "features.0", "head": "classifier.1"},
        lambda stage, block, part: f"features.{fires[firsts[stage] + block]}.{leaves[part]}",
    )


_SHUFFLE_PARTS = _with_norms(
    {
        "left_depthwise": ("branch1.0", "branch1.1"),
        "left_pointwise": ("branch1.2", "branch1.3"),
        "compress": ("branch2.0", "branch2.1"),
        "depthwise": ("branch2.3", "branch2.4"),
        "pointwise": ("branch2.5", "branch2.6"),
    }
)
SHUFFLENET_V2 = Naming(
    {"stem": "conv1.0", "stem_norm": "conv1.1", "tail": "conv5.0", "tail_norm": "conv5.1", "logits": "fc"},
    lambda stage, block, part: f"stage{stage + 2}.{block}.{_SHUFFLE_PARTS[part]}",
)

_MNASNET_FIRST = _with_norms({"depthwise": ("3", "4"), "pointwise": ("6", "7")})
_MNASNET_PARTS = _with_norms({"expand": ("0", "1"), "depthwise": ("3", "4"), "project": ("6", "7")})
MNASNET = Naming(
    {
        "stem": "layers.0",
        "stem_norm": "layers.1",
        "tail": "layers.14",
        "tail_norm": "layers.15",
        "logits": "classifier.1",
    },
    lambda stage, block, part: (
        f"layers.{stage + 7}.{block}.layers.{_MNASNET_PARTS[part]}" if stage else f"layers.{_MNASNET_FIRST[part]}"
    ),
)

_TIMM_STEM = {"stem": "conv_stem", "stem_norm": "bn1", "logits": "classifier"}
_LITE_FIRST = _with_norms({"depthwise": ("conv_dw", "bn1"), "pointwise": ("conv_pw", "bn2")})
_LITE_PARTS = _with_norms(
    {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
)
EFFICIENTNET_LITE = Naming(
    {**_TIMM_STEM, "tail": "conv_head", "tail_norm": "bn2"},
    lambda stage, block, part: f"blocks.{stage}.{block}.{(_LITE_PARTS if stage else _LITE_FIRST)[part]}",
)

_V4_PARTS = _with_norms(
    {
        "": ("conv", "bn1"),
        "start": ("dw_start.conv", "dw_start.bn"),
        "expand": ("pw_exp.conv", "pw_exp.bn"),
        "middle": ("dw_mid.conv", "dw_mid.bn"),
        "project": ("pw_proj.conv", "pw_proj.bn"),
    }
)
_V4_FUSED = _with_norms({"expand": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")})
_V4_FIXED = {**_TIMM_STEM, "head": "conv_head", "head_norm": "norm_head"}
MOBILENET_V4_SMALL = Naming(_V4_FIXED, lambda stage, block, part: f"blocks.{stage}.{block}.{_V4_PARTS[part]}")
MOBILENET_V4_MEDIUM = Naming(
    _V4_FIXED, lambda stage, block, part: f"blocks.{stage}.{block}.{(_V4_PARTS if stage else _V4_FUSED)[part]}"
)

_GHOST_PARTS = _with_norms(
    {
        "": ("conv", "bn1"),
        "ghost1_primary": ("ghost1.primary_conv.0", "ghost1.primary_conv.1"),
        "ghost1_cheap": ("ghost1.cheap_operation.0", "ghost1.cheap_operation.1"),
        "ghost2_primary": ("ghost2.primary_conv.0", "ghost2.primary_conv.1"),
        "ghost2_cheap": ("ghost2.cheap_operation.0", "ghost2.cheap_operation.1"),
        "depthwise": ("conv_dw", "bn_dw"),
        "short_depthwise": ("shortcut.0", "shortcut.1"),
        "short_pointwise": ("shortcut.2", "shortcut.3"),
    }
) | {"excite_reduce": "se.conv_reduce", "excite_expand": "se.conv_expand"}
GHOSTNET = Naming(
    {**_TIMM_STEM, "head": "conv_head"},
    lambda stage, block, part: f"blocks.{stage}.{block}.{_GHOST_PARTS[part]}",
)

_BRANCH_PARTS = _with_norms(
    {
        "scale": ("conv_scale.conv", "conv_scale.bn"),
        **{f"branch{i}": (f"conv_kxk.{i}.conv", f"conv_kxk.{i}.bn") for i in range(4)},
    }
) | {"identity": "identity"}


def _mobileone(stage: int, block: int, part: str) -> str:
    """In timm the depthwise and the pointwise half are blocks of their own."""
    half, _, leaf = part.partition("_")
    return f"stages.{stage}.{2 * block + (half == 'pointwise')}.{_BRANCH_PARTS[leaf]}"


MOBILEONE = Naming(
    {"logits": "head.fc", **{f"stem_{part}": f"stem.{key}" for part, key in _BRANCH_PARTS.items()}}, _mobileone
)

_RESIDUAL_PARTS = _with_norms({"conv1": ("conv1", "bn1"), "conv2": ("conv2", "bn2")})
RESNET_CIFAR = Naming(
    {"stem": "conv1", "stem_norm": "bn1", "logits": "linear"},
    lambda stage, block, part: f"layer{stage + 1}.{block}.{_RESIDUAL_PARTS[part]}",
)
SQUEEZENET_1_0 = _squeezenet((3, 4, 5, 7, 8, 9, 10, 12), (0, 3, 7))
SQUEEZENET_1_1 = _squeezenet((3, 4, 6, 7, 9, 10, 11, 12), (0, 2, 4))


# ------------------------------------------------------------------------------------------------------- files


def _torchvision(file: str, naming: Naming, sha256: str | None = None) -> Checkpoint:
    return Checkpoint(TORCHVISION + file, sha256 or re.split(r"[-.]", file)[-2], naming)


def _timm(repository: str, naming: Naming, sha256: str | None = None, revision: str = "main") -> Checkpoint:
    return Checkpoint(f"{HUGGING_FACE}{repository}/resolve/{revision}/model.safetensors", sha256, naming)


# (network, width) → its file.
CHECKPOINTS: dict[tuple[str, float], Checkpoint] = {
    ("squeezenet_1_0", 1.0): _torchvision("squeezenet1_0-b66bff10.pth", SQUEEZENET_1_0),
    ("squeezenet_1_1", 1.0): _torchvision(
        "squeezenet1_1-b8a52dc0.pth",
        SQUEEZENET_1_1,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
    ("shufflenet_v2", 0.5): _torchvision("shufflenetv2_x0.5-f707e7126e.pth", SHUFFLENET_V2),
    ("shufflenet_v2", 1.0): _torchvision("shufflenetv2_x1-5666bf0f80.pth", SHUFFLENET_V2),
    ("shufflenet_v2", 1.5): _torchvision("shufflenetv2_x1_5-3c479a10.pth", SHUFFLENET_V2),
    ("shufflenet_v2", 2.0): _torchvision("shufflenetv2_x2_0-8be3c8ee.pth", SHUFFLENET_V2),
    ("mnasnet", 0.5): _torchvision("mnasnet0.5_top1_67.823-3ffadce67e.pth", MNASNET),
    ("mnasnet", 0.75): _torchvision("mnasnet0_75-7090bc5f.pth", MNASNET),
    ("mnasnet", 1.0): _torchvision(
        "mnasnet1.0_top1_73.512-f206786ef8.pth",
        MNASNET,
        "f206786ef8a6d33af1091698bd667528dd506020f45e65bc4d4f00ce4e9990f0",
    ),
    ("mnasnet", 1.3): _torchvision("mnasnet1_3-a4c69d6f.pth", MNASNET),
    ("ghostnet", 1.0): _timm("ghostnet_100.in1k", GHOSTNET),
    ("mobileone_s0", 1.0): _timm("mobileone_s0.apple_in1k", MOBILEONE),
    ("mobilenet_v4_conv_small", 1.0): _timm(
        "mobilenetv4_conv_small.e2400_r224_in1k",
        MOBILENET_V4_SMALL,
        "7a7102ec18f62bbfb555b6fe829bbb5af749516b84174926c29ffdfdfc03aec4",
        "331fb803779522b685cf942e15f914fb6741c1eb",
    ),
    ("mobilenet_v4_conv_medium", 1.0): _timm(
        "mobilenetv4_conv_medium.e500_r224_in1k",
        MOBILENET_V4_MEDIUM,
        "10f9f8057d574f71d22c52d31cadab8af0bc325841fd93939c86d45d20998cad",
        "02a09fbfb82b289e871ba8255f9da58c056fb13b",
    ),
    **{
        (f"efficientnet_lite{number}", 1.0): _timm(f"tf_efficientnet_lite{number}.in1k", EFFICIENTNET_LITE)
        for number in range(5)
    },
    **{
        (f"resnet{depth}_cifar", 1.0): Checkpoint(f"{AKAMASTER}resnet{depth}-{digest[:8]}.th", digest, RESNET_CIFAR)
        for depth, digest in (
            (20, "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
            (32, "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
            (44, "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4"),
            (56, "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367"),
        )
    },
}
