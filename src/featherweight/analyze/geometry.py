"""Receptive field and stride of every tensor: how many input pixels one place of it sees, and how far apart places are.

For a window of k with strides s and dilation d over a tensor whose places see r pixels, j pixels apart:

    r' = r + (k - 1) · d · j        j' = j · s

Where branches meet the larger field counts. What has lost its places (global pooling, flattening) sees everything and
has no field: `None`; a gate computed from it, as in squeeze-and-excitation, is left out of the field of what it scales.
Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill.

Imports errors and graph only.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from featherweight.analyze.graph import Graph, Operator, Shape, Window
from featherweight.errors import ArtifactError

# Pixels between two places, and one over that: no picture has more.
MAX_JUMP = 2**32
GLOBAL = {"global_average_pool", "global_max_pool", "dense"}
WINDOWED = {"convolution", "depthwise", "max_pool", "average_pool"}


@dataclass(frozen=True)
class Field:
    """(height, width) of what one place sees, and the pixels between places; `raised` once it was sampled up."""

    size: tuple[Fraction, Fraction]
    jump: tuple[Fraction, Fraction]
    raised: bool = False


START = Field((Fraction(1), Fraction(1)), (Fraction(1), Fraction(1)))


def fields(graph: Graph) -> dict[str, Field | None]:
    """The field of every tensor; `None` for those without places."""
    found: dict[str, Field | None] = {}
    for name in graph.inputs:
        found[name] = START if len(graph.tensors[name].shape) == 4 else None
    for operator in graph.operators:
        inputs = [field for name in operator.inputs if (field := found.get(name)) is not None]
        field = _after(operator, graph, _joined(inputs)) if inputs else None
        if field is not None and not all(1 <= MAX_JUMP * jump <= MAX_JUMP**2 for jump in field.jump):
            raise ArtifactError(f"{graph.name}: the strides up to {operator.name!r} multiply to more than any picture")
        found.update((name, field) for name in operator.outputs)
    return found


def _joined(inputs: list[Field]) -> Field:
    """The larger field, and the coarser jump, of several."""
    return Field(
        (max(field.size[0] for field in inputs), max(field.size[1] for field in inputs)),
        (max(field.jump[0] for field in inputs), max(field.jump[1] for field in inputs)),
        any(field.raised for field in inputs),
    )


def _after(operator: Operator, graph: Graph, field: Field) -> Field | None:
    output = graph.tensors[operator.outputs[0]].shape
    before = graph.tensors[operator.inputs[0]].shape
    window = operator.window
    if operator.kind == "dense" and len(before) == len(output) == 4 and before[1:3] == output[1:3]:
        return field  # at each place by itself, as a 1×1 convolution
    if operator.kind in GLOBAL or len(output) < 4 or _is_whole(operator, before, output):
        return _kept_by_reshape(operator, before, output, field)
    if operator.kind in WINDOWED and window is not None and len(window.kernel) == 2:
        return _windowed(field, window)
    if operator.kind == "transposed_convolution" and window is not None and len(window.kernel) == 2:
        return _transposed(field, window)
    if operator.kind.startswith("resize") or operator.kind in ("repeat", "depth_to_space", "space_to_depth"):
        return _scaled(field, before, output)
    return field


def _is_whole(operator: Operator, before: Shape, output: Shape) -> bool:
    """Whether a reduction took all places at once."""
    reduces = operator.kind in ("reduce_mean", "reduce")
    return reduces and len(before) == 4 and math.prod(output[1:3]) < math.prod(before[1:3])


def _kept_by_reshape(operator: Operator, before: Shape, output: Shape, field: Field) -> Field | None:
    """A channel shuffle goes through (n, h · w, groups, c / groups) and back: its places stay."""
    if operator.kind in ("reshape", "transpose") and len(before) >= 4 and len(output) >= 4:
        return field
    return None


def _windowed(field: Field, window: Window) -> Field:
    size = [field.size[axis] + (window.kernel[axis] - 1) * window.dilations[axis] * field.jump[axis] for axis in (0, 1)]
    jump = [field.jump[axis] * window.strides[axis] for axis in (0, 1)]
    return Field((size[0], size[1]), (jump[0], jump[1]), field.raised)


def _transposed(field: Field, window: Window) -> Field:
    """Each output place takes ⌈k / s⌉ neighbouring inputs."""
    size = [
        field.size[axis] + (math.ceil(window.kernel[axis] / window.strides[axis]) - 1) * field.jump[axis]
        for axis in (0, 1)
    ]
    jump = [field.jump[axis] / window.strides[axis] for axis in (0, 1)]
    return Field((size[0], size[1]), (jump[0], jump[1]), field.raised or max(window.strides) > 1)


def _scaled(field: Field, before: Shape, output: Shape) -> Field:
    if len(before) != 4 or not all(output[1:3]):
        return field
    jump = [field.jump[axis] * Fraction(before[axis + 1], output[axis + 1]) for axis in (0, 1)]
    raised = field.raised or output[1] > before[1]
    return Field(field.size, (jump[0], jump[1]), raised)
