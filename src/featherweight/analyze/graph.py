"""What a reader makes of a model: operators over tensors, each of a known kind, whatever file they came from.

Shapes are written (n, h, w, c) and kernels (kernel height, kernel width, input channels / groups, output channels),
also where the file stores them otherwise. The batch is 1. Imports nothing of the package.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Shape = tuple[int, ...]

# Bytes of one element; what is not here counts as 4.
DTYPE_BYTES = {
    "float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4, "float16": 2, "bfloat16": 2,
    "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "bool": 1, "float8": 1, "int4": 0.5, "uint4": 0.5, "int2": 0.25,
}  # fmt: skip

UNKNOWN = "unknown"

# What readers take from files of strangers at most.
MAX_FILE_BYTES = 2**29  # 134 million float32 parameters
MAX_TENSOR_BYTES = 2**31
MAX_RANK = 16


@dataclass(frozen=True)
class Tensor:
    """A value that flows between operators."""

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return math.ceil(self.elements * DTYPE_BYTES.get(self.dtype, 4))


@dataclass(frozen=True)
class Weight:
    """Numbers that the model brings along. `trainable` is `None` where the file does not say.

    `held` says where they are: `own`; `shared` with an earlier operator, which counts them; `setting`, written into
    the layer's configuration and no weight there, though an exported file holds them as constants.
    """

    role: str  # kernel, bias, gamma, beta, mean, variance, scale, shift, …
    shape: Shape
    dtype: str = "float32"
    trainable: bool | None = None
    held: Literal["own", "shared", "setting"] = "own"

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.ceil(self.elements * DTYPE_BYTES.get(self.dtype, 4))


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling walks over its input, (height, width) each."""

    kernel: Shape = (1, 1)
    strides: Shape = (1, 1)
    dilations: Shape = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Operator:
    """One step of the computation. `inputs` and `outputs` name tensors; weights are no inputs."""

    name: str
    kind: str  # a key of operators.RULES, or UNKNOWN
    layer: str  # the layer that it is part of
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[Weight, ...] = ()
    window: Window | None = None
    origin: str = ""  # what the file calls it
    also: tuple[str, ...] = ()  # names of operators that were merged into this one

    def weight(self, role: str) -> Weight | None:
        """The weight of that role."""
        return next((weight for weight in self.weights if weight.role == role), None)

    @property
    def parameters(self) -> int:
        """How many numbers its own weights have."""
        return sum(weight.elements for weight in self.weights if weight.held == "own")


@dataclass(frozen=True)
class Graph:
    """A model as operators in the order in which they run."""

    name: str
    format: str  # keras | onnx | litert
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    path: str | None = None
    file_bytes: int | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()

    def with_operators(self, operators: list[Operator]) -> "Graph":
        """The same model with other operators."""
        return replace(self, operators=tuple(operators))

    def consumers(self) -> dict[str, list[int]]:
        """Tensor → places in `operators` that read it; one that reads it twice is listed once."""
        found: dict[str, list[int]] = {}
        for place, operator in enumerate(self.operators):
            for name in dict.fromkeys(operator.inputs):
                found.setdefault(name, []).append(place)
        return found

    def producers(self) -> dict[str, int]:
        """Tensor → the place in `operators` that makes it."""
        return {name: place for place, operator in enumerate(self.operators) for name in operator.outputs}


def convolution_kind(channels: int, groups: int) -> str:
    """`depthwise` where each of several input channels is filtered by itself, else `convolution`."""
    return "depthwise" if groups == channels and groups > 1 else "convolution"


def uniquely_named(operators: list[Operator]) -> tuple[Operator, ...]:
    """The operators with a number behind every name that was there before."""
    seen: dict[str, int] = {}
    found = []
    for operator in operators:
        name = operator.name
        while name in seen:
            seen[operator.name] += 1
            name = f"{operator.name}:{seen[operator.name]}"
        seen[name] = 1
        found.append(operator if name == operator.name else replace(operator, name=name))
    return tuple(found)
