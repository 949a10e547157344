"""What the parity recordings and the tests have in common, in numpy alone: which networks, their weights, the pictures,
and what of an answer is kept.

Weights and pictures are whole-number arithmetic on (name, position), so every machine and every numpy gets the same
bits and nothing but names and shapes needs to be stored.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RECORDED = Path(__file__).with_name("recorded.npz")
PICTURES = 2
ENDS = 16
PROJECTIONS = 8

Rows = dict[str, tuple[int, ...]]  # key → shape, in the order of the torch state dict

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Case:
    """One published architecture: our name of it, torch's, the normalization (mean, deviation) of its checkpoint.

    `gain` multiplies the gammas. Depth and branches make numbers grow at one gain and the picture's trace fade at a
    smaller one; here both stay in sight: outputs of order 1 to 10 that differ between the pictures.

    The sizes are chosen so that padding shows. A strided window over an even side is where TensorFlow's "same" and
    PyTorch's symmetric padding differ; over an odd side they agree. 92 pixels give 46, 23, 12, 6: even and odd.
    SqueezeNet's pools must round up, which they do at 92 (1.1) and 95 (1.0) pixels.
    """

    net: str
    width: float
    torch: str
    gain: float = 1.0
    size: int = 92
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET

    def __str__(self) -> str:
        return f"{self.net}-{self.width:g}"


CASES = (
    Case("squeezenet_1_0", 1.0, "squeezenet1_0", size=95),
    Case("squeezenet_1_1", 1.0, "squeezenet1_1"),
    Case("shufflenet_v2", 0.5, "shufflenet_v2_x0_5", 0.95),
    Case("shufflenet_v2", 1.0, "shufflenet_v2_x1_0", 0.95),
    Case("shufflenet_v2", 1.5, "shufflenet_v2_x1_5", 0.95),
    Case("shufflenet_v2", 2.0, "shufflenet_v2_x2_0", 0.95),
    Case("mnasnet", 0.5, "mnasnet0_5", 0.9),
    Case("mnasnet", 0.75, "mnasnet0_75", 0.9),
    Case("mnasnet", 1.0, "mnasnet1_0", 0.9),
    Case("mnasnet", 1.3, "mnasnet1_3", 0.9),
    Case("ghostnet", 1.0, "ghostnet_100", 0.75),
    Case("mobilenet_v4_conv_small", 1.0, "mobilenetv4_conv_small", 0.88),
    Case("mobilenet_v4_conv_medium", 1.0, "mobilenetv4_conv_medium", 0.82),
    Case("mobileone_s0", 1.0, "mobileone_s0", 0.43),
    *(Case(f"efficientnet_lite{n}", 1.0, f"tf_efficientnet_lite{n}", normalization=HALVES) for n in range(5)),
    *(Case(f"resnet{depth}_cifar", 1.0, f"resnet{depth}", 0.7, 32) for depth in (20, 32, 44, 56)),
)


def uniform(name: str, count: int) -> NDArray[np.float32]:
    """(count,) numbers of [0, 1), of 24 bits each: SplitMix64 (Steele et al. 2014) started at the name's CRC-32."""
    start = np.uint64(zlib.crc32(name.encode()) << 32)
    z = (np.arange(1, count + 1, dtype=np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def values(key: str, shape: tuple[int, ...], gain: float) -> NDArray[np.float32] | NDArray[np.int64]:
    """The array of one key of a torch state dict.

    Kernels keep the size of what passes through them (He et al. 2015: variance 2 / fan in). Variances lie near 0.1 and
    not near 1, so that a wrong epsilon shows; gammas make up for it.
    """
    if key.endswith("num_batches_tracked"):
        return np.array(1000, np.int64)
    if key.endswith("running_var"):
        low, high = 0.05, 0.15
    elif key.endswith("weight") and len(shape) == 1:
        low, high = 0.15 * gain, 0.4 * gain
    elif len(shape) == 1:  # biases, betas, running means
        low, high = -0.2, 0.2
    else:
        high = math.sqrt(6 / math.prod(shape[1:]))
        low = -high
    numbers = uniform(key, math.prod(shape)).reshape(shape)
    return np.float32(low) + np.float32(high - low) * numbers


def state(rows: Rows, gain: float = 1.0) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """A whole state dict."""
    return {key: values(key, shape, gain) for key, shape in rows.items()}


def pictures(size: int) -> NDArray[np.float32]:
    """(PICTURES, size, size, 3): RGB of whole numbers 0–255, stripes that differ by picture and channel, and noise."""
    number, row, column, channel = np.indices((PICTURES, size, size, 3))
    stripes = row * (3 + 4 * number) + column * (7 - 5 * number) + 50 * channel
    noise = (uniform("pictures", stripes.size) * 64).astype(np.int64).reshape(stripes.shape)
    return ((stripes + noise) % 256).astype(np.float32)


def summary(outputs: NDArray[np.floating]) -> NDArray[np.float32]:
    """(pictures, columns) of outputs (pictures, k): the first and last 16 of the k, their mean and standard deviation,
    and 8 sums with random signs, over √k, in which every one of the k takes part, so that no two can change places.
    """
    whole = np.asarray(outputs, np.float64)
    count = whole.shape[1]
    signs = np.where(uniform("signs", PROJECTIONS * count) < 0.5, -1.0, 1.0).reshape(PROJECTIONS, count)
    spread = np.stack([whole.mean(axis=1), whole.std(axis=1)], axis=1)
    sums = whole @ signs.T / math.sqrt(count)
    return np.concatenate([whole[:, :ENDS], whole[:, -ENDS:], spread, sums], axis=1).astype(np.float32)


def write(keys: Mapping[Case, Rows], answers: Mapping[Case, Mapping[str, NDArray[np.floating]]]) -> None:
    """Store for each case the keys with their shapes, as text, and the summary of each named output."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for case, rows in keys.items():
        text = "\n".join(f"{key} {','.join(map(str, shape))}" for key, shape in rows.items())
        arrays[f"{case}/keys"] = np.frombuffer(text.encode(), np.uint8)
        for name, outputs in answers[case].items():
            arrays[f"{case}/{name}"] = summary(outputs)
    np.savez_compressed(RECORDED, allow_pickle=False, **arrays)


def recorded(case: Case) -> tuple[Rows, dict[str, NDArray[np.float32]]]:
    """What `write` stored of a case: its keys, and the summaries of `features` and `logits`."""
    with np.load(RECORDED) as file:
        text = file[f"{case}/keys"].tobytes().decode()
        answers = {name: file[f"{case}/{name}"] for name in ("features", "logits")}
    lines = (line.split(" ") for line in text.split("\n"))
    return {key: tuple(int(n) for n in shape.split(",") if n) for key, shape in lines}, answers
