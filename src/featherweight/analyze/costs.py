"""`Graph` → `Analysis`: the cost of every operator, its sums, and what follows from the shapes alone.

Parameters are counted as the model has them: a Keras model with its batch norms' statistics, an exported file with
what is left of them. A stage is the run of operators at one stride to the input picture (one resolution of the map,
whatever padding does to its sides), so a strided convolution begins a stage; what comes after global pooling is the
head, and a squeeze-and-excitation gate belongs to the stage of what it scales.

Imports the graph, rules, folding, geometry and memory of this folder.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from featherweight.analyze.folding import folded
from featherweight.analyze.geometry import Field, fields
from featherweight.analyze.graph import UNKNOWN, Graph, Operator, Shape, Tensor
from featherweight.analyze.memory import Peak, peak_memory
from featherweight.analyze.operators import PRODUCTS, Memory, cost, memory_of

if TYPE_CHECKING:
    import keras

HEAD = "head"
PREPARES = ("pad", "crop")  # for the operator after, often of the next stage


@dataclass(frozen=True)
class Row:
    """One operator and its cost. `macs` and `flops` are `None` for an unknown kind; so is `field` without places."""

    name: str
    kind: str
    layer: str
    stage: str
    inputs: tuple[Shape, ...]
    output: Shape
    dtype: str
    parameters: int
    trainable: int | None  # None where the file does not say
    macs: int | None
    flops: int | None
    weight_bytes: int
    activation_bytes: int  # of the outputs; 0 where it only is its input under another shape
    traffic_bytes: int  # weights, inputs and outputs, each touched once
    field: tuple[int, int] | None  # receptive field, (height, width) in input pixels
    stride: tuple[float, float] | None  # input pixels between two places of the output
    origin: str  # what the file calls it
    takes: tuple[str, ...] = ()  # names of tensors
    gives: tuple[str, ...] = ()
    share: float | None = None  # of all MACs, as in Group; None for an unknown kind

    @property
    def intensity(self) -> float | None:
        """FLOPs a byte moved; `None` where either is unknown or nothing is moved."""
        return None if self.flops is None or not self.traffic_bytes else self.flops / self.traffic_bytes


@dataclass(frozen=True)
class Group:
    """The sums over a layer or a stage. `share` is of all MACs, or of all FLOPs where a model has no MACs (0–1)."""

    name: str
    stage: str
    operators: int
    kinds: tuple[str, ...]
    output: Shape
    parameters: int
    trainable: int | None
    macs: int
    flops: int
    weight_bytes: int
    activation_bytes: int
    traffic_bytes: int
    share: float
    at_least: bool  # an unknown operator is in it

    @property
    def intensity(self) -> float | None:
        """FLOPs a byte moved."""
        return None if not self.traffic_bytes else self.flops / self.traffic_bytes


@dataclass(frozen=True)
class Endpoint:
    """The last operator at one stride. What a detection head takes of a net of the zoo, `zoo.endpoints` says."""

    name: str
    layer: str
    shape: Shape
    stride: tuple[float, float]
    field: tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A depthwise convolution, the 1×1 one that follows, and the standard convolution that would stand for both.

    `ratio` = MACs of both / MACs of the standard one = 1/N + 1/k² (N output channels, k kernel side, and multiplier 1).
    """

    depthwise: str
    pointwise: str
    kernel: tuple[int, int]
    channels: int
    filters: int
    macs: int
    parameters: int
    standard_macs: int
    standard_parameters: int

    @property
    def ratio(self) -> float:
        """The share of the standard convolution's MACs."""
        return self.macs / self.standard_macs


@dataclass(frozen=True)
class Standard:
    """The same net with a standard convolution in place of each such pair."""

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]  # depthwise convolutions that no 1×1 one follows
    macs: int
    parameters: int


@dataclass(frozen=True)
class Analysis:
    """What one model costs, operator by operator, and in sums. Byte counts are of batch 1."""

    name: str
    format: str
    path: str | None
    sha256: str | None
    file_bytes: int | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rows: tuple[Row, ...]
    layers: tuple[Group, ...]
    stages: tuple[Group, ...]
    parameters: int
    trainable: int | None
    weight_bytes: int
    macs: int
    flops: int
    activation_bytes: int
    peak: Peak
    endpoints: tuple[Endpoint, ...]
    standard: Standard
    unknown: tuple[tuple[str, int], ...]  # (what the model calls it, how often)
    notes: tuple[str, ...]

    @property
    def at_least(self) -> bool:
        """Whether MACs and FLOPs are lower bounds, as some operators have no rule."""
        return bool(self.unknown)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for key in ("name", "path"):  # a file name that is no UTF-8 holds what JSON cannot
            plain[key] = plain[key] and plain[key].encode("utf-8", "backslashreplace").decode()
        plain["at_least"] = self.at_least
        for kind in ("rows", "layers", "stages"):
            for row, values in zip(getattr(self, kind), plain[kind], strict=True):
                values["intensity"] = row.intensity
        for pair, values in zip(self.standard.pairs, plain["standard"]["pairs"], strict=True):
            values["ratio"] = pair.ratio
        return plain


def count(model: "keras.Model") -> tuple[int, int | None]:
    """(parameters, MACs) of a Keras model; MACs are `None` where a layer has no rule.

    Raises:
        SettingError: the model cannot be looked into, or its input size is open.
    """
    from featherweight.analyze.keras_reader import read_keras

    graph = read_keras(model)
    costs = [cost(operator, graph.tensors) for operator in graph.operators]
    parameters = sum(operator.parameters for operator in graph.operators)
    return parameters, None if None in costs else sum(found[0] for found in costs if found is not None)


def analyze_graph(graph: Graph) -> Analysis:
    """Everything that follows from a graph."""
    rows = _rows(graph)
    known = [row for row in rows if row.macs is not None and row.flops is not None]
    macs, flops = sum(row.macs or 0 for row in known), sum(row.flops or 0 for row in known)
    rows = [replace(row, share=_share(row.macs, row.flops, macs, flops)) for row in rows]
    groups = _Groups(rows, macs, flops)
    unknown = [row.origin or row.kind for row in rows if row.macs is None]
    return Analysis(
        name=graph.name,
        format=graph.format,
        path=graph.path,
        sha256=graph.sha256,
        file_bytes=graph.file_bytes,
        inputs=tuple(graph.tensors[name] for name in graph.inputs),
        outputs=tuple(graph.tensors[name] for name in graph.outputs),
        rows=tuple(rows),
        layers=groups.by(lambda row: row.layer),
        stages=groups.by(lambda row: row.stage),
        parameters=sum(row.parameters for row in rows),
        trainable=_sum_known(row.trainable for row in rows),
        weight_bytes=sum(row.weight_bytes for row in rows),
        macs=macs,
        flops=flops,
        activation_bytes=sum(row.activation_bytes for row in rows),
        peak=peak_memory(graph),
        endpoints=_endpoints(rows),
        standard=_standard(graph, macs),
        unknown=tuple((name, unknown.count(name)) for name in dict.fromkeys(unknown)),
        notes=graph.notes,
    )


def products(graph: Graph) -> list[tuple[str, int]]:
    """(kind, MACs) of every convolution, dense layer and matrix product, in order."""
    found = []
    for operator in graph.operators:
        costs = cost(operator, graph.tensors) if operator.kind in PRODUCTS else None
        if costs is not None:
            found.append((operator.kind, costs[0]))
    return found


def folded_totals(graph: Graph) -> tuple[int, int, int]:
    """(parameters, MACs, FLOPs) of the graph as exporters write it: what a model and its exported file agree on."""
    small = folded(graph)
    costs = [cost(operator, small.tensors) or (0, 0) for operator in small.operators]
    parameters = sum(operator.parameters for operator in small.operators)
    return parameters, sum(macs for macs, _ in costs), sum(flops for _, flops in costs)


# ----------------------------------------------------------------------------------------------------------- rows


def _rows(graph: Graph) -> list[Row]:
    found = fields(graph)
    stages = _stages(graph, found)
    return [
        _row(operator, graph.tensors, found.get(operator.outputs[0]), stage)
        for operator, stage in zip(graph.operators, stages, strict=True)
    ]


def _row(operator: Operator, tensors: Mapping[str, Tensor], field: Field | None, stage: str) -> Row:
    costs = cost(operator, tensors)
    outputs = [tensors[name] for name in operator.outputs]
    inputs = [tensors[name] for name in operator.inputs]
    is_view = memory_of(operator.kind) is Memory.VIEW
    weight_bytes = sum(weight.bytes for weight in operator.weights if weight.held == "own")
    # A kernel that an earlier operator counted is read again here.
    read_bytes = sum(weight.bytes for weight in operator.weights)
    activation_bytes = 0 if is_view else sum(tensor.bytes for tensor in outputs)
    moved = 0 if is_view else activation_bytes + read_bytes + sum(tensor.bytes for tensor in inputs)
    return Row(
        name=operator.name,
        kind=operator.kind,
        layer=operator.layer,
        stage=stage,
        inputs=tuple(tensor.shape for tensor in inputs),
        output=outputs[0].shape,
        dtype=outputs[0].dtype,
        parameters=operator.parameters,
        trainable=_sum_known(
            None if weight.trainable is None else weight.elements * weight.trainable
            for weight in operator.weights
            if weight.held == "own"
        ),
        macs=None if costs is None else costs[0],
        flops=None if costs is None else costs[1],
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        traffic_bytes=moved,
        field=None if field is None else (int(field.size[0]), int(field.size[1])),
        stride=None if field is None else (float(field.jump[0]), float(field.jump[1])),
        origin=operator.origin,
        takes=operator.inputs,
        gives=operator.outputs,
    )


def _sum_known(values: Iterable[int | None]) -> int | None:
    """The sum, or `None` where one is unknown."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _stages(graph: Graph, found: dict[str, Field | None]) -> list[str]:
    """The stage of each operator: the stride of its output; for a gate, that of the next operator that has one."""
    names: list[str] = []
    following = HEAD
    for operator in reversed(graph.operators):
        field = found.get(operator.outputs[0])
        if field is not None:
            following = _stage_name(field)
        names.append(following)
    return names[::-1]


def _stage_name(field: Field) -> str:
    high, wide = (f"{float(jump):g}" for jump in field.jump)
    stride = f"stride {high}" if high == wide else f"stride {high}×{wide}"
    return f"{stride}, up" if field.raised else stride


def _share(macs: int | None, flops: int | None, all_macs: int, all_flops: int) -> float | None:
    """Of all MACs, or of all FLOPs where there are no MACs."""
    if macs is None or flops is None:
        return None
    return macs / all_macs if all_macs else flops / all_flops if all_flops else 0.0


class _Groups:
    """Sums of rows."""

    def __init__(self, rows: Sequence[Row], macs: int, flops: int):
        self._rows, self._macs, self._flops = rows, macs, flops

    def by(self, key: Callable[[Row], str]) -> tuple[Group, ...]:
        """One group for each value of `key`, in the order of first appearance."""
        groups: dict[str, list[Row]] = {}
        for row in self._rows:
            groups.setdefault(key(row), []).append(row)
        return tuple(self._group(name, rows) for name, rows in groups.items())

    def _group(self, name: str, rows: list[Row]) -> Group:
        macs, flops = sum(row.macs or 0 for row in rows), sum(row.flops or 0 for row in rows)
        share = _share(macs, flops, self._macs, self._flops) or 0.0
        return Group(
            name=name,
            stage=rows[-1].stage,
            operators=len(rows),
            kinds=tuple(dict.fromkeys(row.kind for row in rows)),
            output=next((row for row in reversed(rows) if row.kind not in PREPARES), rows[-1]).output,
            parameters=sum(row.parameters for row in rows),
            trainable=_sum_known(row.trainable for row in rows),
            macs=macs,
            flops=flops,
            weight_bytes=sum(row.weight_bytes for row in rows),
            activation_bytes=sum(row.activation_bytes for row in rows),
            traffic_bytes=sum(row.traffic_bytes for row in rows),
            share=share,
            at_least=any(row.kind == UNKNOWN for row in rows),
        )


def _endpoints(rows: Sequence[Row]) -> tuple[Endpoint, ...]:
    """The last operator of each stage but the head, without what comes before the first window or pads for the next."""
    last: dict[str, Row] = {}
    for row in rows:
        if row.stage != HEAD and row.field not in (None, (1, 1)) and row.kind not in PREPARES:
            last[row.stage] = row
    return tuple(
        Endpoint(row.name, row.layer, row.output, row.stride, row.field)
        for row in last.values()
        if row.stride is not None and row.field is not None
    )


# ------------------------------------------------------------------------- standard convolutions instead of pairs

# What may stand between the two halves: it changes neither channels nor what the pair computes together.
BETWEEN = {
    "batch_norm", "scale", "shift", "affine", "relu", "relu6", "clip", "leaky_relu", "prelu", "elu", "sigmoid",
    "silu", "hard_silu", "hard_sigmoid", "gelu", "tanh", "identity", "multiply", "pad",
}  # fmt: skip


def _standard(graph: Graph, macs: int) -> Standard:
    """Replace each depthwise convolution and the 1×1 convolution after it by a standard one.

    Normalization, activation and a squeeze-and-excitation gate between the two stay, at their cost.
    """
    readers = graph.consumers()
    pairs, unpaired = [], []
    parameters = sum(operator.parameters for operator in graph.operators)
    for operator in graph.operators:
        if operator.kind != "depthwise":
            continue
        follower = _pointwise_after(operator, graph, readers)
        pair = None if follower is None else _pair(operator, follower, graph.tensors)
        if pair is None:
            unpaired.append(operator.name)
        else:
            pairs.append(pair)
    return Standard(
        tuple(pairs),
        tuple(unpaired),
        macs + sum(pair.standard_macs - pair.macs for pair in pairs),
        parameters + sum(pair.standard_parameters - pair.parameters for pair in pairs),
    )


def _pointwise_after(operator: Operator, graph: Graph, readers: dict[str, list[int]]) -> Operator | None:
    """The 1×1 convolution that alone reads what the depthwise one gives, through activations and gates."""
    tensor = operator.outputs[0]
    channels = graph.tensors[tensor].shape[-1]
    while True:
        followers = [graph.operators[place] for place in readers.get(tensor, ())]
        through = [f for f in followers if f.kind in BETWEEN and graph.tensors[f.outputs[0]].shape[-1] == channels]
        # A gate or a hard swish reads the tensor twice and joins again in the multiplication that comes last.
        wide = [f for f in through if f.kind != "multiply"]
        joins = [f for f in through if f.kind == "multiply"]
        if len(followers) == 1 and followers[0].kind == "convolution":
            window = followers[0].window
            one = window is not None and window.groups == 1 and set(window.kernel) == {1}
            return followers[0] if one else None
        following = joins[0] if joins else wide[0] if len(followers) == 1 and wide else None
        if following is None:
            return None
        tensor = following.outputs[0]


def _pair(depthwise: Operator, pointwise: Operator, tensors: Mapping[str, Tensor]) -> Pair | None:
    first, second = cost(depthwise, tensors), cost(pointwise, tensors)
    kernel, wide = depthwise.weight("kernel"), pointwise.weight("kernel")
    if first is None or second is None or kernel is None or wide is None or len(kernel.shape) != 4:
        return None
    window = depthwise.window
    channels, filters = window.groups if window is not None else kernel.shape[-1], wide.shape[-1]
    # A 1×1 convolution with strides leaves places out; so would the standard one, which strides as far as both.
    output = tensors[pointwise.outputs[0]].shape
    standard = kernel.shape[0] * kernel.shape[1] * channels * filters
    if not math.prod(output) * standard:
        return None  # nothing is computed there
    return Pair(
        depthwise=depthwise.name,
        pointwise=pointwise.name,
        kernel=(kernel.shape[0], kernel.shape[1]),
        channels=channels,
        filters=filters,
        macs=first[0] + second[0],
        parameters=kernel.elements + wide.elements,
        standard_macs=output[0] * output[1] * output[2] * standard,
        standard_parameters=standard,
    )
