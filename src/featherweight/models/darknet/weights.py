"""A Darknet weights file: a header, then float32 numbers in the order of the cfg's layers, without names or shapes.

    header          major, minor, revision: int32 each; then the pictures seen in training: 64 bits from version 0.2 on,
                    32 before. With a version above 1000 the matrices of dense layers are transposed.
    convolutional   biases (f), with batch norm also scales, means, variances (f each); weights (f, c / groups, k, k)
    connected       biases (u), weights (u, inputs); with batch norm also scales, means, variances (u each)
    local           biases (f, h, w), weights (h · w, f, c, k, k)
    batchnorm       biases, scales, means, variances (c each)
    shortcut        one number for each map that is added, or one for each of its channels

Nothing but the sizes tells whether the file belongs to the cfg, so they must agree to the byte.

In scope: bytes → arrays as Keras' layers take them. Not aware of: Keras. Imports plan and modelfile.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import ModelFileError
from featherweight.modelfile import check_file, failure, open_file, refuse_known_strangers
from featherweight.models.darknet.plan import Plan, Planned

Array = NDArray[np.float32]
# (layer's number, part of it) → arrays in the order in which that Keras layer has its weights
Arrays = dict[tuple[int, str], list[Array]]

HEADER = struct.Struct("<3i")
TRANSPOSED = 1_000  # versions above
MOST_VERSION = 10_000
MAX_NAMES_BYTES = 2**20
SAME_FILE = "wanted the weights of this very cfg"


@dataclass(frozen=True)
class Header:
    """The beginning of a weights file."""

    version: tuple[int, int, int]
    seen: int  # pictures in training
    bytes: int  # of the header

    @property
    def transposed(self) -> bool:
        """Whether the matrices of dense layers are (inputs, units)."""
        return max(self.version[:2]) > TRANSPOSED


def read_header(path: str | Path) -> Header:
    """The header of a weights file, which tells little; what else is often found in its place is called by its name.

    Raises:
        ModelFileError: no weights file of Darknet.
    """
    path = Path(path)
    check_file(path, wanted="wanted a .weights file of Darknet")
    with open_file(path) as file:
        head = file.read(512)
    refuse_known_strangers(path, head)
    if len(head) < 16:
        raise failure(path, f"{len(head)} bytes", "wanted a header of 16 or 20 bytes and the weights")
    major, minor, revision = HEADER.unpack_from(head)
    if not all(0 <= part <= MOST_VERSION for part in (major, minor, revision)):
        raise failure(path, f"no weights of Darknet: it starts with {head[:12].hex(' ')}", "wanted a .weights file")
    wide = major * 10 + minor >= 2 and max(major, minor) <= TRANSPOSED
    if wide and len(head) < 20:
        raise failure(path, f"{len(head)} bytes", "wanted a header of 20 bytes and the weights")
    (seen,) = struct.unpack_from("<Q" if wide else "<I", head, HEADER.size)
    return Header((major, minor, revision), seen, 20 if wide else 16)


def check_size(path: Path, header: Header, plan: Plan) -> None:
    """The file has as many bytes as the cfg's layers take.

    Raises:
        ModelFileError: fewer, with the layer in which it ends, or more.
    """
    size = check_file(path)
    wanted = header.bytes + 4 * plan.floats
    if size > wanted:
        raise failure(
            path,
            f"{size:,} bytes, {size - wanted:,} more than the {wanted:,} that the layers of {plan.net.path.name} take",
            SAME_FILE,
        )
    if size < wanted:
        end = _ends_in(plan, (size - header.bytes) / 4)
        raise failure(
            path,
            f"{size:,} bytes where {plan.net.path.name} takes {wanted:,}: it ends in {end.label}",
            "fetch it again, or " + SAME_FILE.removeprefix("wanted "),
        )


def _ends_in(plan: Plan, floats: float) -> Planned:
    for layer in plan.layers:
        floats -= layer.floats
        if floats < 0:
            return layer
    raise AssertionError("a file that is too short ends in a layer")


def read_weights(path: str | Path, plan: Plan) -> tuple[Header, Arrays]:
    """The arrays of every Keras layer of the network.

    Raises:
        ModelFileError: no weights file, not the weights of this cfg, or numbers in it that are none.
    """
    path = Path(path)
    header = read_header(path)
    check_size(path, header, plan)
    floats = np.fromfile(path, "<f4", offset=header.bytes)
    if len(floats) != plan.floats:
        raise failure(path, "changed while it was read", "read it again")
    arrays: Arrays = {}
    start = 0
    for layer in plan.layers:
        if not layer.floats:
            continue
        part = floats[start : start + layer.floats]
        start += layer.floats
        if not np.isfinite(part).all():
            raise failure(path, f"NaN or infinity in {layer.label}", "wanted a training that has not diverged")
        arrays |= _Reader(path, plan, layer, part, header.transposed).arrays()
    return header, arrays


class _Reader:
    """The numbers of one layer, taken from the front."""

    def __init__(self, path: Path, plan: Plan, layer: Planned, floats: Array, transposed: bool):
        self.path, self.plan, self.layer, self.floats, self.transposed = path, plan, layer, floats, transposed

    def arrays(self) -> Arrays:
        """By part of the layer."""
        found = {
            "convolutional": self.convolutional, "connected": self.connected, "local": self.local,
            "batchnorm": self.batchnorm, "shortcut": self.shortcut,
        }[self.layer.kind]()  # fmt: skip
        return {(self.layer.number, part): arrays for part, arrays in found.items()}

    def take(self, *shape: int) -> Array:
        count = int(np.prod(shape))
        taken, self.floats = self.floats[:count], self.floats[count:]
        return taken.reshape(shape)

    def given(self) -> tuple[int, int, int]:
        """(height, width, channels) of what comes in."""
        return self.plan.shape(self.layer.sources[0])

    def norm(self, biases: Array) -> list[Array]:
        """Gamma, beta, mean, variance."""
        scales, means, variances = self.take(3, len(biases))
        if float(variances.min()) < 0:
            raise failure(self.path, f"a variance below zero in {self.layer.label}", SAME_FILE)
        return [scales, biases, means, variances]

    def convolutional(self) -> dict[str, list[Array]]:
        settings, filters, channels = self.layer.settings, self.layer.shape[2], self.given()[2]
        groups, size = settings["groups"], settings["size"]
        biases = self.take(filters)
        norm = {"norm": self.norm(biases)} if settings["norm"] else {}
        inputs = channels // groups
        if settings["flipped"]:
            kernel = self.take(inputs * size * size, filters).T.reshape(filters, inputs, size, size)
        else:
            kernel = self.take(filters, inputs, size, size)
        if settings["depthwise"]:  # (c, multiplier, k, k): filter c · multiplier + i reads channel c
            kernel = kernel.reshape(channels, filters // channels, size, size).transpose(2, 3, 0, 1)
        else:
            kernel = kernel.transpose(2, 3, 1, 0)
        return {"kernel": [kernel] if norm else [kernel, biases], **norm}

    def connected(self) -> dict[str, list[Array]]:
        units, (height, width, channels) = self.layer.shape[2], self.given()
        biases, inputs = self.take(units), height * width * channels
        kernel = self.take(inputs, units).T if self.transposed else self.take(units, inputs)
        norm = {"norm": self.norm(biases)} if self.layer.settings["norm"] else {}
        # Darknet's maps lie channel by channel, Keras' place by place.
        kernel = kernel.reshape(units, channels, height, width).transpose(2, 3, 1, 0).reshape(inputs, units)
        return {"kernel": [kernel] if norm else [kernel, biases], **norm}

    def local(self) -> dict[str, list[Array]]:
        (height, width, filters), channels = self.layer.shape, self.given()[2]
        size, places = self.layer.settings["size"], height * width
        biases = self.take(filters, places).T
        kernel = self.take(places, filters, channels, size, size).transpose(0, 3, 4, 2, 1)
        return {"kernel": [kernel.reshape(places, size * size * channels, filters), biases]}

    def batchnorm(self) -> dict[str, list[Array]]:
        return {"norm": self.norm(self.take(self.layer.shape[2]))}

    def shortcut(self) -> dict[str, list[Array]]:
        """The weights as they act, normalized over the maps that are added; one for each channel."""
        maps = len(self.layer.sources)
        weights = self.take(maps, self.layer.floats // maps).astype(np.float64)
        how = self.layer.settings["normalized"]
        if how == "relu":
            weights = np.maximum(weights, 0)
        elif how == "softmax":
            weights = np.exp(weights - weights.max(0))
        if how != "none":
            weights = weights / (1e-4 + weights.sum(0))
        every = np.broadcast_to(weights, (maps, self.layer.shape[2])).astype(np.float32)
        return {f"weight{number}": [row.reshape(1, 1, -1, 1)] for number, row in enumerate(every)}


def read_names(path: str | Path, classes: int) -> tuple[str, ...]:
    """The names of classes, one a line.

    Raises:
        ModelFileError: no text, or not as many as the network has classes.
    """
    path = Path(path)
    check_file(path, MAX_NAMES_BYTES, "wanted the names of classes, one a line")
    with open_file(path) as file:
        data = file.read()
    refuse_known_strangers(path, data[:512])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise failure(path, "no text in UTF-8", "wanted the names of classes, one a line") from error
    names = tuple(line.strip() for line in text.split("\n"))
    while names and not names[-1]:
        names = names[:-1]
    if len(names) != classes:
        raise failure(path, f"{len(names)} names", f"wanted {classes}, as many as the cfg has classes")
    problem: ModelFileError | None = None
    if not all(name and name.isprintable() for name in names):
        problem = failure(path, "an empty or unprintable name", "wanted one name a line")
    elif len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        problem = failure(path, f"the name {twice} twice", "wanted each class once")
    if problem is not None:
        raise problem
    return names
