"""The cost rules: one table, kind of operator → functions of its shapes.

Two words that are often mixed up:

- a **MAC** (multiply-accumulate) is one multiplication and the addition of its product to a sum. MACs count what
  convolutions, dense layers and matrix products do;
- a **FLOP** is one floating-point operation of any sort. Every MAC is two; biases, activations, pooling, additions
  and normalization add theirs: FLOPs = 2 · MACs + other arithmetic. (FLOPS with a capital S is a rate, per second.)

The other arithmetic is counted as one FLOP for each addition, multiplication, division, comparison and elementary
function (exp, tanh, erf, sqrt). Data that is only moved costs bytes, not FLOPs. Batch normalization is counted as
inference does it: one multiplication and one addition an element.

To add an operator: one row in `RULES`, then one row in the reader whose files have it (docs/add-an-operator.md).
Imports graph only.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from featherweight.analyze.graph import Operator, Shape, Tensor, Window


class Memory(Enum):
    """Where an operator puts its output."""

    NEW = "in memory of its own"
    IN_PLACE = "over its first input, where nothing else reads that later"
    VIEW = "nowhere: it is its first input under another shape"


WINDOW = Window()


@dataclass(frozen=True)
class Shapes:
    """What a rule may look at. Shapes are (n, h, w, c), `kernel` is (kh, kw, in / groups, out); `bias` says if any."""

    inputs: tuple[Shape, ...]
    output: Shape
    kernel: Shape = ()
    window: Window = WINDOW
    bias: bool = False

    @property
    def elements(self) -> int:
        """Of the output."""
        return math.prod(self.output)

    @property
    def taps(self) -> int:
        """Positions under the window."""
        return math.prod(self.window.kernel)


Count = Callable[[Shapes], int]


@dataclass(frozen=True)
class Rule:
    """What one kind of operator costs."""

    macs: Count
    other: Count  # FLOPs beyond 2 · MACs
    memory: Memory = Memory.NEW


def _none(shapes: Shapes) -> int:
    return 0


def _bias(shapes: Shapes) -> int:
    return shapes.elements if shapes.bias else 0


def _convolution_macs(shapes: Shapes) -> int:
    """Each output position of each output channel sums kernel height × kernel width × input channels / groups."""
    return math.prod(shapes.output[:-1]) * math.prod(shapes.kernel)


def _transposed_macs(shapes: Shapes) -> int:
    """Each input position is spread by the whole kernel; what "same" padding crops is computed too."""
    return math.prod(shapes.inputs[0][:-1]) * math.prod(shapes.kernel)


def _dense_macs(shapes: Shapes) -> int:
    """Each output sums all inputs of one row; the input's own shape does not say how many, as it may be flattened."""
    return shapes.elements * math.prod(shapes.kernel[:-1])


def _matmul_macs(shapes: Shapes) -> int:
    """Each output sums the axis that both share. A constant is (…, shared, other), whichever side it was on."""
    return shapes.elements * math.prod((shapes.kernel or shapes.inputs[0][-1:])[-2:][:1])


def _each(flops: int) -> Count:
    """So many FLOPs an output element."""
    return lambda shapes: flops * shapes.elements


def _between(shapes: Shapes) -> int:
    """One FLOP an element between each two inputs."""
    return (len(shapes.inputs) - 1) * shapes.elements


def _mean_between(shapes: Shapes) -> int:
    return len(shapes.inputs) * shapes.elements


def _reduce(shapes: Shapes) -> int:
    """Comparisons or additions: one fewer than there are elements for each result."""
    return math.prod(shapes.inputs[0]) - shapes.elements


def _mean(shapes: Shapes) -> int:
    return math.prod(shapes.inputs[0])


def _elementwise(flops: int) -> Rule:
    return Rule(_none, _each(flops), Memory.IN_PLACE)


_MOVE = Rule(_none, _none)
_VIEW = Rule(_none, _none, Memory.VIEW)

RULES: dict[str, Rule] = {
    # sums of products
    "convolution": Rule(_convolution_macs, _bias),
    "depthwise": Rule(_convolution_macs, _bias),
    "transposed_convolution": Rule(_transposed_macs, _bias),
    "dense": Rule(_dense_macs, _bias),
    "matmul": Rule(_matmul_macs, _none),
    # constants applied to every element: y = scale · x + shift
    "scale": _elementwise(1),
    "shift": _elementwise(1),
    "affine": _elementwise(2),
    "batch_norm": _elementwise(2),
    # mean 1, difference 1, square and its mean 2, times the deviation's inverse 1, scale and shift 2
    "layer_norm": Rule(_none, _each(7)),
    # activations
    "relu": _elementwise(1),
    "relu6": _elementwise(2),
    "clip": _elementwise(2),
    "leaky_relu": _elementwise(2),
    "prelu": _elementwise(2),
    "elu": _elementwise(3),
    "celu": _elementwise(4),
    "selu": _elementwise(4),
    "sigmoid": _elementwise(4),  # 1 / (1 + exp(-x))
    "hard_sigmoid": _elementwise(4),  # clip(x + 3, 0, 6) / 6
    "silu": _elementwise(5),  # x · sigmoid(x)
    "hard_silu": _elementwise(5),  # x · hard_sigmoid(x)
    "tanh": _elementwise(1),
    "gelu": _elementwise(5),  # x / 2 · (1 + erf(x / √2))
    "softplus": _elementwise(3),
    "log_sigmoid": _elementwise(5),  # -softplus(-x)
    "softsign": _elementwise(3),
    "mish": _elementwise(5),
    "function": _elementwise(1),  # exp, log, sqrt, erf, abs, negation, reciprocal, power, rounding
    "softmax": Rule(_none, _each(5)),  # maximum, difference, exp, sum, quotient
    "log_softmax": Rule(_none, _each(5)),
    # several inputs, element by element
    "add": Rule(_none, _between),
    "subtract": Rule(_none, _between),
    "multiply": Rule(_none, _between),
    "divide": Rule(_none, _between),
    "maximum": Rule(_none, _between),
    "minimum": Rule(_none, _between),
    "average": Rule(_none, _mean_between),
    "compare": Rule(_none, _each(1)),
    # windows and sums
    "max_pool": Rule(_none, lambda shapes: (shapes.taps - 1) * shapes.elements),
    "average_pool": Rule(_none, lambda shapes: shapes.taps * shapes.elements),
    "global_average_pool": Rule(_none, _mean),
    "global_max_pool": Rule(_none, _reduce),
    "reduce_mean": Rule(_none, _mean),
    "reduce": Rule(_none, _reduce),
    "normalize": Rule(_none, _each(4)),  # square, sum, inverse root, product
    # sampling: three interpolations of three operations
    "resize_linear": Rule(_none, _each(9)),
    "resize_nearest": _MOVE,
    "affine_sampler": Rule(_none, _each(9)),
    # quantization: scale and rounding, difference and scale
    "quantize": Rule(_none, _each(2)),
    "dequantize": Rule(_none, _each(2)),
    # data that is only moved
    "pad": _MOVE,
    "crop": _MOVE,
    "slice": _MOVE,
    "concatenate": _MOVE,
    "transpose": _MOVE,
    "repeat": _MOVE,
    "gather": _MOVE,
    "space_to_depth": _MOVE,
    "depth_to_space": _MOVE,
    "cast": _MOVE,
    "constant": _MOVE,
    "shape": _MOVE,  # arithmetic on sizes, not on data
    "reshape": _VIEW,
    "identity": _VIEW,
}

# With a constant in place of one input these apply it.
WITH_CONSTANT = {"add": "shift", "subtract": "shift", "multiply": "scale", "divide": "scale"}

# Kinds whose weights make the sums of products: the list of them is what two readers must agree on.
PRODUCTS = ("convolution", "depthwise", "transposed_convolution", "dense", "matmul")


def cost(operator: Operator, tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """(MACs, FLOPs) of one operator; `None` for a kind that has no rule.

    Args:
        operator: with kernels as (kh, kw, in / groups, out).
        tensors: those it names, of batch 1.
    """
    rule = RULES.get(operator.kind)
    if rule is None:
        return None
    kernel = operator.weight("kernel")
    shapes = Shapes(
        tuple(tensors[name].shape for name in operator.inputs),
        tensors[operator.outputs[0]].shape,
        () if kernel is None else kernel.shape,
        operator.window or WINDOW,
        operator.weight("bias") is not None,
    )
    macs = rule.macs(shapes)
    return macs, 2 * macs + rule.other(shapes)


def memory_of(kind: str) -> Memory:
    """Where that kind puts its output; an unknown one takes memory of its own."""
    return RULES[kind].memory if kind in RULES else Memory.NEW
