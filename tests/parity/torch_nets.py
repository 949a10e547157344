"""The published PyTorch architectures, written compactly: the same names of weights, in the same order, and the same
arithmetic as torchvision's, timm's and akamaster's, for tests where those are not installed.

    net = build("squeezenet1_1")

`make_parity.py --check` holds each against torchvision and timm.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 1000


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple, but at least 0.9 of the channels."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: what is odd goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            sides += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, sides))


def conv(c: int, f: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """With symmetric padding."""
    return nn.Conv2d(c, f, kernel, stride, kernel // 2, groups=groups, bias=bias)


def conv_norm(c: int, f: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Named as timm's ConvNormAct without an activation."""
    return nn.Sequential(
        OrderedDict(conv=conv(c, f, kernel, stride, groups), bn=nn.BatchNorm2d(f)),
    )


def plain(*layers: nn.Module) -> nn.Sequential:
    """Layers named by their number."""
    return nn.Sequential(*layers)


# --------------------------------------------------------------------------------------------------- SqueezeNet


class Fire(nn.Module):
    def __init__(self, c: int, f: int) -> None:
        super().__init__()
        self.squeeze = conv(c, f // 8, bias=True)
        self.expand1x1 = conv(f // 8, f // 2, bias=True)
        self.expand3x3 = conv(f // 8, f // 2, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


class SqueezeNet(nn.Module):
    """`fires`: filters, or 0 for a pool."""

    def __init__(self, f: int, kernel: int, fires: Iterable[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, f, kernel, 2), nn.ReLU()]
        for filters in fires:
            layers.append(Fire(f, filters) if filters else nn.MaxPool2d(3, 2, ceil_mode=True))
            f = filters or f
        self.features = plain(*layers)
        self.classifier = plain(nn.Dropout(), conv(f, CLASSES, bias=True), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).mean((2, 3))


# ------------------------------------------------------------------------------------------------- ShuffleNet V2


class ShuffleUnit(nn.Module):
    def __init__(self, c: int, f: int, stride: int) -> None:
        super().__init__()
        half, into = f // 2, c if stride > 1 else c // 2
        self.stride = stride
        norm = nn.BatchNorm2d
        if stride > 1:
            self.branch1 = plain(conv(c, c, 3, stride, c), norm(c), conv(c, half), norm(half), nn.ReLU())
        self.branch2 = plain(
            *(conv(into, half), norm(half), nn.ReLU()),
            *(conv(half, half, 3, stride, half), norm(half)),
            *(conv(half, half), norm(half), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = (self.branch1(x), x) if self.stride > 1 else x.chunk(2, 1)
        x = torch.stack([left, self.branch2(right)], 2)  # (n, half, 2, h, w): read in order, left and right alternate
        return x.flatten(1, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self, *filters: int) -> None:
        super().__init__()
        self.conv1 = plain(conv(3, 24, 3, 2), nn.BatchNorm2d(24), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c = 24
        for number, (f, repeats) in enumerate(zip(filters, (4, 8, 4), strict=False)):
            units = [ShuffleUnit(f if i else c, f, 1 if i else 2) for i in range(repeats)]
            self.add_module(f"stage{number + 2}", plain(*units))
            c = f
        self.conv5 = plain(conv(c, filters[3]), nn.BatchNorm2d(filters[3]), nn.ReLU())
        self.fc = nn.Linear(filters[3], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        for stage in (self.stage2, self.stage3, self.stage4, self.conv5):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


# ------------------------------------------------------------------------------------------------------ MNASNet


class MnasUnit(nn.Module):
    def __init__(self, c: int, f: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = c * expand
        self.skip = c == f and stride == 1
        self.layers = plain(
            *(conv(c, wide), nn.BatchNorm2d(wide), nn.ReLU()),
            *(conv(wide, wide, kernel, stride, wide), nn.BatchNorm2d(wide), nn.ReLU()),
            *(conv(wide, f), nn.BatchNorm2d(f)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.skip else self.layers(x)


class MNASNet(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        f, g, *rest = (divisible(n * width) for n in (32, 16, 24, 40, 80, 96, 192, 320))
        layers: list[nn.Module] = [conv(3, f, 3, 2), nn.BatchNorm2d(f), nn.ReLU()]
        layers += [conv(f, f, 3, 1, f), nn.BatchNorm2d(f), nn.ReLU(), conv(f, g), nn.BatchNorm2d(g)]
        table = ((3, 2, 3, 3), (5, 2, 3, 3), (5, 2, 6, 3), (3, 1, 6, 2), (5, 2, 6, 4), (3, 1, 6, 1))
        for filters, (kernel, stride, expand, repeats) in zip(rest, table, strict=True):
            first = MnasUnit(g, filters, kernel, stride, expand)
            layers.append(plain(first, *(MnasUnit(filters, filters, kernel, 1, expand) for _ in range(repeats - 1))))
            g = filters
        layers += [conv(g, 1280), nn.BatchNorm2d(1280), nn.ReLU()]
        self.layers = plain(*layers)
        self.classifier = plain(nn.Dropout(), nn.Linear(1280, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.layers(x).mean((2, 3)))


# ------------------------------------------------------------------------------------------------ CIFAR ResNets


class ResidualUnit(nn.Module):
    """Its shortcut has no weights: every second pixel, and zeros for the new channels, half of them in front."""

    def __init__(self, c: int, f: int, stride: int) -> None:
        super().__init__()
        self.stride, self.missing = stride, (f - c) // 2
        self.conv1, self.bn1 = conv(c, f, 3, stride), nn.BatchNorm2d(f)
        self.conv2, self.bn2 = conv(f, f, 3), nn.BatchNorm2d(f)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        short = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.missing, self.missing))
        return (y + short).relu()


class CifarResNet(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        c = 16
        for number, f in enumerate((16, 32, 64)):
            strides = [1 + (number > 0), *[1] * ((depth - 2) // 6 - 1)]
            units = [ResidualUnit(f if i else c, f, stride) for i, stride in enumerate(strides)]
            self.add_module(f"layer{number + 1}", plain(*units))
            c = f
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


# ----------------------------------------------------------------------------------------------------- MobileOne


class Branches(nn.Module):
    """k×k convolutions side by side, a 1×1 one where k > 1, and a lone batch norm where the shape stays."""

    def __init__(self, c: int, f: int, kernel: int, stride: int = 1, groups: int = 1, count: int = 4) -> None:
        super().__init__()
        if c == f and stride == 1:
            self.identity = nn.BatchNorm2d(c)
        self.conv_kxk = nn.ModuleList(conv_norm(c, f, kernel, stride, groups) for _ in range(count))
        if kernel > 1:
            self.conv_scale = conv_norm(c, f, 1, stride, groups)

    def forward(self, x: Tensor) -> Tensor:
        branches = [*self.conv_kxk, *(child for name, child in self.named_children() if name != "conv_kxk")]
        return torch.stack([branch(x) for branch in branches]).sum(0).relu()


class MobileOneS0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Branches(3, 48, 3, 2, count=1)
        stages, c = [], 48
        for f, repeats in ((48, 2), (128, 8), (256, 10), (1024, 1)):
            units: list[nn.Module] = []
            for number in range(repeats):
                units += [Branches(c, c, 3, 1 if number else 2, c), Branches(c, f, 1)]
                c = f
            stages.append(plain(*units))
        self.stages = plain(*stages)
        self.head = nn.ModuleDict({"fc": nn.Linear(c, CLASSES)})

    def forward(self, x: Tensor) -> Tensor:
        return self.head["fc"](self.stages(self.stem(x)).mean((2, 3)))


# ------------------------------------------------------------------- timm's frame: conv_stem, bn1, blocks.stage.unit


class Unit(nn.Module):
    """One unit of the frame: `steps` in a row, and the input added where the shape stays and `skip` says so.

    A step is (name of the convolution, it, name of the batch norm, activation or None).
    """

    Step = tuple[str, nn.Module, str | None, Callable[[Tensor], Tensor] | None]

    def __init__(self, steps: Iterable["Unit.Step"], skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.order: list[tuple[str, str | None, Callable[[Tensor], Tensor] | None]] = []
        for name, module, norm, activation in steps:
            self.add_module(name, module)
            if norm:
                self.add_module(norm, nn.BatchNorm2d(module.out_channels))
            self.order.append((name, norm, activation))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name, norm, activation in self.order:
            y = self.get_submodule(name)(y)
            y = self.get_submodule(norm)(y) if norm else y
            y = activation(y) if activation else y
        return x + y if self.skip else y


class Frame(nn.Module):
    """conv_stem, bn1, blocks, conv_head: `early` puts the head's convolution before the pooling, as EfficientNet does;
    the others pool first. `head_norm` is its batch norm's name; None gives a bias instead.
    """

    def __init__(
        self,
        stem: nn.Conv2d,
        stages: Iterable[list[nn.Module]],
        c: int,
        head_norm: str | None,
        activation: Callable[[Tensor], Tensor] = functional.relu,
        early: bool = False,
    ) -> None:
        super().__init__()
        self.activation, self.early, self.head_norm = activation, early, head_norm
        self.conv_stem, self.bn1 = stem, nn.BatchNorm2d(stem.out_channels)
        self.blocks = plain(*(plain(*stage) for stage in stages))
        self.conv_head = conv(c, 1280, bias=head_norm is None)
        if head_norm:
            self.add_module(head_norm, nn.BatchNorm2d(1280))
        self.classifier = nn.Linear(1280, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.activation(self.bn1(self.conv_stem(x))))
        if not self.early:
            x = x.mean((2, 3), keepdim=True)
        x = self.conv_head(x)
        x = self.activation(self.get_submodule(self.head_norm)(x) if self.head_norm else x)
        return self.classifier(x.mean((2, 3)))


def conv_unit(c: int, f: int, kernel: int = 1, stride: int = 1) -> Unit:
    return Unit([("conv", conv(c, f, kernel, stride), "bn1", functional.relu)], skip=False)


# EfficientNet-Lite


def efficientnet_lite(width: float, depth: float) -> Frame:
    relu6 = functional.relu6

    def filtering(c: int, kernel: int, stride: int) -> nn.Conv2d:
        return conv(c, c, kernel, 1, c) if stride == 1 else SameConv(c, c, kernel, stride, groups=c, bias=False)

    def unit(c: int, f: int, kernel: int, stride: int) -> Unit:
        wide = 6 * c
        steps = (
            ("conv_pw", conv(c, wide), "bn1", relu6),
            ("conv_dw", filtering(wide, kernel, stride), "bn2", relu6),
            ("conv_pwl", conv(wide, f), "bn3", None),
        )
        return Unit(steps, c == f and stride == 1)

    c = divisible(16 * width)
    first = (("conv_dw", filtering(32, 3, 1), "bn1", relu6), ("conv_pw", conv(32, c), "bn2", None))
    stages: list[list[nn.Module]] = [[Unit(first, skip=False)]]
    table = ((24, 2, 2, 3), (40, 2, 2, 5), (80, 3, 2, 3), (112, 3, 1, 5), (192, 4, 2, 5), (320, 1, 1, 3))
    for filters, repeats, stride, kernel in table:
        f = divisible(filters * width)
        count = repeats if filters == 320 else -int(-repeats * depth // 1)
        stages.append([unit(f if i else c, f, kernel, 1 if i else stride) for i in range(count)])
        c = f
    net = Frame(SameConv(3, 32, 3, 2, bias=False), stages, c, "bn2", relu6, early=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    return net


# MobileNetV4


class Universal(nn.Module):
    """Depthwise (linear), 1×1 to c·expand, depthwise, 1×1 (linear); a kernel of 0 leaves that depthwise out."""

    def __init__(self, c: int, f: int, start: int, middle: int, expand: float, stride: int) -> None:
        super().__init__()
        wide = divisible(c * expand)
        self.skip = c == f and stride == 1
        if start:
            self.dw_start = conv_norm(c, c, start, 1 if middle else stride, c)
        self.pw_exp = conv_norm(c, wide)
        if middle:
            self.dw_mid = conv_norm(wide, wide, middle, stride, wide)
        self.pw_proj = conv_norm(wide, f)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name, child in self.named_children():
            y = child(y)
            y = y.relu() if name in ("pw_exp", "dw_mid") else y
        return x + y if self.skip else y


def mobilenet_v4(first: Callable[[], list[list[nn.Module]]], c: int, *tables: str) -> Frame:
    """`tables`: a stage each, of rows "filters start middle expand", the first with stride 2."""
    stages = first()
    for table in tables:
        units: list[nn.Module] = []
        for number, row in enumerate(table.split(", ")):
            f, start, middle, expand = map(int, row.split())
            units.append(Universal(c, f, start, middle, expand, 1 if number else 2))
            c = f
        stages.append(units)
    stages.append([conv_unit(c, 960)])
    return Frame(conv(3, 32, 3, 2), stages, 960, "norm_head")


def mobilenet_v4_small() -> Frame:
    return mobilenet_v4(
        lambda: [[conv_unit(32, 32, 3, 2), conv_unit(32, 32)], [conv_unit(32, 96, 3, 2), conv_unit(96, 64)]],
        64,
        "96 5 5 3, 96 0 3 2, 96 0 3 2, 96 0 3 2, 96 0 3 2, 96 3 0 4",
        "128 3 3 6, 128 5 5 4, 128 0 5 4, 128 0 5 3, 128 0 3 4, 128 0 3 4",
    )


def mobilenet_v4_medium() -> Frame:
    fused = (("conv_exp", conv(32, 128, 3, 2), "bn1", functional.relu), ("conv_pwl", conv(128, 48), "bn2", None))
    return mobilenet_v4(
        lambda: [[Unit(fused, skip=False)]],
        48,
        "80 3 5 4, 80 3 3 2",
        "160 3 5 6, 160 3 3 4, 160 3 3 4, 160 3 5 4, 160 3 3 4, 160 3 0 4, 160 0 0 2, 160 3 0 4",
        "256 5 5 6, 256 5 5 4, 256 3 5 4, 256 3 5 4, 256 0 0 4, 256 3 0 4, 256 3 5 2, 256 5 5 4, 256 0 0 4, 256 0 0 4, "
        "256 5 0 2",
    )


# GhostNet


class Ghost(nn.Module):
    def __init__(self, c: int, f: int, active: bool) -> None:
        super().__init__()
        half = f // 2
        self.active = active
        self.primary_conv = plain(conv(c, half), nn.BatchNorm2d(half))
        self.cheap_operation = plain(conv(half, half, 3, 1, half), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        act = functional.relu if self.active else nn.Identity()
        x = act(self.primary_conv(x))
        return torch.cat([x, act(self.cheap_operation(x))], 1)


class Excitation(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        few = divisible(c / 4, 4)
        self.conv_reduce, self.conv_expand = conv(c, few, bias=True), conv(few, c, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_expand(self.conv_reduce(x.mean((2, 3), keepdim=True)).relu())
        return x * functional.hardsigmoid(gate)


class GhostBottleneck(nn.Module):
    def __init__(self, c: int, wide: int, f: int, kernel: int, stride: int, excite: bool) -> None:
        super().__init__()
        self.ghost1 = Ghost(c, wide, active=True)
        if stride > 1:
            self.conv_dw, self.bn_dw = conv(wide, wide, kernel, stride, wide), nn.BatchNorm2d(wide)
        if excite:
            self.se = Excitation(wide)
        self.ghost2 = Ghost(wide, f, active=False)
        self.shortcut = plain()
        if c != f or stride > 1:
            self.shortcut = plain(
                conv(c, c, kernel, stride, c), nn.BatchNorm2d(c), conv(c, f), nn.BatchNorm2d(f)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name, child in self.named_children():
            y = child(y) if name != "shortcut" else y + child(x)
        return y


def ghostnet() -> Frame:
    """Rows: wide, filters, kernel, stride, excitation; each | starts a stage."""
    table = (
        "16 16 3 1 0 | 48 24 3 2 0 | 72 24 3 1 0 | 72 40 5 2 1 | 120 40 5 1 1 | 240 80 3 2 0 | "
        "200 80 3 1 0, 184 80 3 1 0, 184 80 3 1 0, 480 112 3 1 1, 672 112 3 1 1 | "
        "672 160 5 2 1 | 960 160 5 1 0, 960 160 5 1 1, 960 160 5 1 0, 960 160 5 1 1"
    )
    stages: list[list[nn.Module]] = []
    c = 16
    for stage in table.split(" | "):
        units: list[nn.Module] = []
        for row in stage.split(", "):
            wide, f, kernel, stride, excite = map(int, row.split())
            units.append(GhostBottleneck(c, wide, f, kernel, stride, bool(excite)))
            c = f
        stages.append(units)
    stages.append([conv_unit(c, 960)])
    return Frame(conv(3, 16, 3, 2), stages, 960, None)


# ---------------------------------------------------------------------------------------------------- all of them

NETS: dict[str, Callable[[], nn.Module]] = {
    "squeezenet1_0": lambda: SqueezeNet(96, 7, (0, 128, 128, 256, 0, 256, 384, 384, 512, 0, 512)),
    "squeezenet1_1": lambda: SqueezeNet(64, 3, (0, 128, 128, 0, 256, 256, 0, 384, 384, 512, 512)),
    "shufflenet_v2_x0_5": lambda: ShuffleNetV2(48, 96, 192, 1024),
    "shufflenet_v2_x1_0": lambda: ShuffleNetV2(116, 232, 464, 1024),
    "shufflenet_v2_x1_5": lambda: ShuffleNetV2(176, 352, 704, 1024),
    "shufflenet_v2_x2_0": lambda: ShuffleNetV2(244, 488, 976, 2048),
    "mnasnet0_5": lambda: MNASNet(0.5),
    "mnasnet0_75": lambda: MNASNet(0.75),
    "mnasnet1_0": lambda: MNASNet(1.0),
    "mnasnet1_3": lambda: MNASNet(1.3),
    "ghostnet_100": ghostnet,
    "mobilenetv4_conv_small": mobilenet_v4_small,
    "mobilenetv4_conv_medium": mobilenet_v4_medium,
    "mobileone_s0": MobileOneS0,
    "tf_efficientnet_lite0": lambda: efficientnet_lite(1.0, 1.0),
    "tf_efficientnet_lite1": lambda: efficientnet_lite(1.0, 1.1),
    "tf_efficientnet_lite2": lambda: efficientnet_lite(1.1, 1.2),
    "tf_efficientnet_lite3": lambda: efficientnet_lite(1.2, 1.4),
    "tf_efficientnet_lite4": lambda: efficientnet_lite(1.4, 1.8),
    "resnet20": lambda: CifarResNet(20),
    "resnet32": lambda: CifarResNet(32),
    "resnet44": lambda: CifarResNet(44),
    "resnet56": lambda: CifarResNet(56),
}


def build(name: str) -> nn.Module:
    """The network in inference mode, with torch's random weights."""
    return NETS[name]().eval()
