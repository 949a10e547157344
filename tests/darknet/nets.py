"""Small Darknet networks for the tests: cfg texts, weights out of chance, pictures."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherweight.models.darknet.cfg import read_cfg
from featherweight.models.darknet.plan import Plan
from featherweight.models.darknet.rules import plan

HEADER = struct.pack("<3iQ", 0, 2, 5, 64)

ANCHORS = "anchors=3,4, 6,5, 9,12"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={0}\nsize=3\nstride={1}\npad=1\nactivation=leaky"
ONE = "[convolutional]\nfilters={0}\nsize=1\nactivation=linear"


def cfg(*layers: str, height: int = 12, width: int = 16) -> str:
    return "\n".join([f"[net]\nheight={height}\nwidth={width}\nchannels=3", *layers]) + "\n"


def conv(filters: int, stride: int = 1, /, **options: object) -> str:
    """Batch norm, 3×3 and leaky; options replace and add."""
    text = CONV.format(filters, stride)
    for key, value in options.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{key}=")]
        text = "\n".join([*lines, f"{key}={value}"])
    return text


def layer(name: str, **options: object) -> str:
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in options.items())])


# What each section can be told, each with a convolution before it where it wants a map of some channels.
NETS = {
    "convolutions": cfg(
        conv(4), conv(6, 2), conv(6, groups=2), conv(6, groups=6, size=5), conv(12, 2, groups=6),
        conv(5, size=1, pad=1, activation="swish"), conv(4, batch_normalize=0, size=2, padding=1, pad=0),
        conv(4, size=4, pad=1), conv(3, pad=0, activation="mish"),
    ),
    "strides": cfg(
        conv(4, 1, stride_x=2, stride_y=1), conv(4, groups=4, stride_x=1, stride_y=2), conv(4, dilation=2),
        conv(4, dilation=2, groups=4), conv(4, flipped=1), conv(2, 3),
    ),
    "maxpools": cfg(
        conv(3), layer("maxpool", size=2, stride=1), layer("maxpool", size=3, stride=1),
        layer("maxpool", size=3, stride=2), layer("maxpool", size=2, stride=2), layer("maxpool", size=5, stride=1),
        layer("maxpool", stride=1),
    ),
    "more maxpools": cfg(
        conv(3), layer("maxpool", size=4, stride=1), layer("maxpool", size=3, stride=1, padding=0),
        layer("maxpool", size=4, stride=2, padding=2), layer("maxpool", size=3, stride_x=2, stride_y=1, padding=1),
        height=14,
    ),
    "odd maxpools": cfg(
        conv(3), layer("maxpool", size=3, stride=2), layer("maxpool", size=2, stride=2),
        layer("maxpool", size=3, stride=3), height=13, width=19,
    ),
    "averages": cfg(
        conv(3), layer("local_avgpool", size=3, stride=1), layer("local_avgpool", size=2, stride=2),
        layer("local_avgpool", size=3, stride=2), conv(4), layer("avgpool"),
    ),
    "routes": cfg(
        conv(4), conv(6), layer("route", layers="-1,-2"), layer("route", layers="-1", groups=2, group_id=1),
        layer("route", layers="0, 1", groups=2, group_id=0), conv(4), layer("route", layers=1), conv(2),
    ),
    "a cross-stage block": cfg(
        conv(8, 2), layer("route", layers=-1, groups=2, group_id=1), conv(4), conv(4), layer("route", layers="-1,-2"),
        conv(8, size=1), layer("route", layers="-6,-1"), layer("maxpool", size=2, stride=2), conv(4),
        layer("upsample", stride=2), layer("route", layers="-1,4"), conv(4),
    ),
    "sizes": cfg(
        conv(4), layer("upsample", stride=2), layer("upsample", stride=2, scale=0.5), layer("upsample", stride=-2),
        layer("reorg3d", stride=2), conv(8), layer("reorg", stride=2), conv(3),
    ),
    "shortcuts": cfg(
        conv(4), conv(4), layer("shortcut", **{"from": -2, "activation": "leaky"}),
        conv(6), layer("shortcut", **{"from": 0, "activation": "linear"}),
        conv(3), layer("shortcut", **{"from": "-2, 0"}),
        conv(3, 2), layer("shortcut", **{"from": -2, "activation": "relu"}),
        conv(3), layer("shortcut", **{"from": -2, "alpha": 0.5, "beta": 2}),
    ),
    "shortcuts in a row": cfg(
        conv(4), conv(4), layer("shortcut", **{"from": -2, "activation": "leaky"}), conv(6),
        conv(4, 2), conv(4), layer("shortcut", **{"from": -2, "activation": "leaky"}),
    ),
    "weighted shortcuts": cfg(
        conv(4), conv(4), layer("shortcut", **{"from": "-2", "weights_type": "per_feature"}),
        conv(4), layer("shortcut", **{"from": "0,1", "weights_type": "per_channel", "weights_normalization": "relu"}),
        conv(5),
        layer("shortcut", **{"from": "0,1", "weights_type": "per_channel", "weights_normalization": "softmax"}),
        conv(5),
        layer("shortcut", **{"from": -2, "weights_type": "per_layer", "weights_normalization": "avg_relu"}),
    ),
    "attention": cfg(
        conv(4), layer("avgpool"), conv(4, size=1, pad=0, batch_normalize=0, activation="logistic"),
        layer("scale_channels", **{"from": 0, "activation": "leaky"}), conv(1, activation="logistic"),
        layer("scale_channels", **{"from": 0, "scale_wh": 1}), conv(4), layer("sam", **{"from": 3}),
    ),
    "dense": cfg(
        conv(3, 4), layer("connected", output=6, activation="leaky"),
        layer("connected", output=5, batch_normalize=1, activation="relu"), layer("dropout", probability=0.5),
        conv(4, size=1), layer("connected", output=6, activation="linear"), layer("softmax", groups=2), layer("cost"),
    ),
    "local": cfg(
        conv(4, 2), layer("local", filters=3, size=3, stride=1, pad=1, activation="leaky"),
        layer("local", filters=2, size=2, stride=2, activation="linear"), layer("batchnorm"),
        layer("activation", activation="tanh"), layer("empty"),
    ),
    "crop": cfg(
        layer("crop", crop_height=9, crop_width=13), conv(3), layer("crop", crop_height=4, crop_width=8, noadjust=1)
    ),
    "softmaxes": cfg(
        conv(4), layer("softmax", spatial=1), conv(3, 4), layer("softmax", temperature=2), conv(2),
        layer("softmax", groups=2),
    ),
    "classifier": cfg(conv(4, 2), layer("avgpool"), ONE.format(5), layer("softmax"), layer("cost")),
}  # fmt: skip

HEADS = {
    "yolo": cfg(
        conv(8, 4), ONE.format(14), layer("yolo", mask="1,2", classes=2, num=3, scale_x_y=1.05) + "\n" + ANCHORS,
        layer("route", layers=0), layer("upsample", stride=2), ONE.format(7),
        layer("yolo", mask="0", classes=2, num=3) + "\n" + ANCHORS,
    ),
    "new_coords": cfg(
        conv(8, 4), ONE.format(21).replace("linear", "logistic"),
        layer("yolo", classes=2, num=3, new_coords=1, scale_x_y=2.0) + "\n" + ANCHORS,
    ),
    "gaussian": cfg(conv(8, 4), ONE.format(33), layer("Gaussian_yolo", classes=2, num=3) + "\n" + ANCHORS),
    "region": cfg(conv(8, 4), ONE.format(24), layer("region", classes=3, num=3, softmax=1, coords=4) + "\n" + ANCHORS),
    "region without softmax": cfg(conv(8, 4), ONE.format(24), layer("region", classes=3, num=3) + "\n" + ANCHORS),
    "detection": cfg(
        conv(4, 4), layer("connected", output=3 * 3 * (2 + 10), activation="linear"),
        layer("detection", classes=2, num=2, side=3, sqrt=1, softmax=1, coords=4),
    ),
}  # fmt: skip


def written(text: str, folder: Path, seed: int = 0) -> tuple[Path, Path, Plan]:
    """The cfg and weights files, and the plan."""
    path = folder / "net.cfg"
    path.write_text(text)
    network = plan(read_cfg(path))
    weights = folder / "net.weights"
    weights.write_bytes(HEADER + floats(network, seed).tobytes())
    return path, weights, network


def floats(network: Plan, seed: int = 0) -> NDArray[np.float32]:
    """Weights under which numbers stay near 1, whatever the depth."""
    chance = np.random.default_rng(seed)
    parts = []
    for one in network.layers:
        if not one.floats:
            continue
        outputs = one.shape[2]
        if one.kind == "shortcut":
            parts.append(chance.uniform(0.2, 1, one.floats))
            continue
        if one.kind == "batchnorm":
            parts += [chance.normal(0, 0.1, outputs), *chance.uniform(0.5, 1.5, (3, outputs))]
            continue
        statistics = [chance.normal(0, 0.2, outputs), *chance.uniform(0.5, 1.5, (2, outputs))]
        biases = one.shape[0] * one.shape[1] * outputs if one.kind == "local" else outputs
        norm = bool(one.settings.get("norm"))
        kernel = one.floats - biases - 3 * outputs * norm
        spread = (2 / (kernel / outputs)) ** 0.5 if one.kind != "local" else 0.3
        first, second = chance.normal(0, 0.1, biases), chance.normal(0, spread, kernel)
        scales, means, variances = statistics[1], statistics[0], statistics[2]
        middle = [scales, means, variances] if norm else []
        parts += [first, second, *middle] if one.kind == "connected" else [first, *middle, second]
    return np.concatenate(parts).astype("<f4") if parts else np.zeros(0, "<f4")


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
