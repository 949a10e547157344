"""What every exporter does before a model runs: constants applied to a convolution's output become part of it.

`folded(graph)` is the form in which a model and its exported file must cost the same: a Keras model has batch norms,
its ONNX file has convolutions with a bias, or a multiplication and an addition by constants where the exporter left
them. All three become one convolution with a bias. Chains of constants that follow no convolution become one `affine`.
And what is computed twice from the same tensor (NASNet rectifies one tensor for five branches) is computed once.

Only shapes are worked on, no numbers. Imports graph only.
"""

from dataclasses import replace

from featherweight.analyze.graph import Graph, Operator, Weight

CONSTANTS = ("scale", "shift", "affine", "batch_norm")
# Same kind, same input, same window: the same result. Kinds whose settings are not in the graph are not listed.
REPEATABLE = (
    "relu", "relu6", "sigmoid", "hard_sigmoid", "silu", "hard_silu", "tanh", "max_pool", "average_pool",
    "global_average_pool", "global_max_pool",
)  # fmt: skip
TARGETS = ("convolution", "depthwise", "transposed_convolution", "dense")


def folded(graph: Graph) -> Graph:
    """The same model with constants folded into the convolution or dense layer before them, and identities gone."""
    graph = _without_repeats(graph)
    operators: list[Operator] = []
    reads = {name: len(places) for name, places in graph.consumers().items()}
    made: dict[str, int] = {}  # tensor → place in `operators`
    renamed: dict[str, str] = {}
    for original in graph.operators:
        operator = _as_affine(_renamed(original, renamed))
        if operator.kind == "identity" and operator.outputs[0] not in graph.outputs:
            source = operator.inputs[0]
            renamed[operator.outputs[0]] = source
            reads[source] = reads.get(source, 1) - 1 + reads.get(operator.outputs[0], 0)
            continue
        place = made.get(operator.inputs[0]) if operator.inputs and operator.kind in CONSTANTS else None
        alone = place is not None and reads.get(operator.inputs[0]) == 1 and operator.inputs[0] not in graph.outputs
        merged = _merged(operators[place], operator, graph) if place is not None and alone else None
        if merged is None or place is None:
            place = len(operators)
            operators.append(operator)
        else:
            operators[place] = merged
        made.update((name, place) for name in operator.outputs)
    return graph.with_operators(operators)


def _without_repeats(graph: Graph) -> Graph:
    """What was computed already is not computed again."""
    first: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for original in graph.operators:
        operator = _renamed(original, renamed)
        output = operator.outputs[0]
        key = (operator.kind, operator.inputs, operator.window, graph.tensors[output].shape)
        if operator.kind in REPEATABLE and key in first and output not in graph.outputs:
            renamed[output] = first[key]
            continue
        first.setdefault(key, output)
        kept.append(operator)
    return graph.with_operators(kept)


def _renamed(operator: Operator, renamed: dict[str, str]) -> Operator:
    return replace(operator, inputs=tuple(renamed.get(name, name) for name in operator.inputs))


def _as_affine(operator: Operator) -> Operator:
    """A batch norm as one multiplication and one addition a channel; settings as the constants they become."""
    if operator.kind not in CONSTANTS:
        return operator
    if operator.kind != "batch_norm":
        return replace(operator, weights=tuple(replace(weight, held="own") for weight in operator.weights))
    shape = max((weight.shape for weight in operator.weights), default=())
    return replace(operator, kind="affine", weights=(Weight("scale", shape), Weight("shift", shape)))


def _merged(first: Operator, second: Operator, graph: Graph) -> Operator | None:
    """Both as one operator; `None` where that cannot be."""
    first = replace(first, outputs=second.outputs, also=(*first.also, second.name, *second.also))
    if first.kind in CONSTANTS:
        weights = _constants(first, second)
        parts = {role for operator in (first, second) for role in _parts(operator)}
        kind = "affine" if len(parts) == 2 else parts.pop()
        return replace(first, kind=kind, weights=weights)
    if first.kind not in TARGETS or not second.weights:
        return None  # one number for all channels stays: it belongs to an activation such as hard sigmoid
    channels = graph.tensors[second.outputs[0]].shape[-1]
    if any(weight.elements != channels for weight in second.weights):
        return None
    kept = first.weights
    if "shift" in _parts(second) and first.weight("bias") is None:
        kept = (*kept, Weight("bias", (channels,)))
    return replace(first, weights=kept)


def _parts(operator: Operator) -> tuple[str, ...]:
    return ("scale", "shift") if operator.kind == "affine" else (operator.kind,)


def _constants(first: Operator, second: Operator) -> tuple[Weight, ...]:
    """(x · a + b) · c + d = x · ac + (bc + d): a product or sum has the larger of its parts' shapes."""
    scale = [operator.weight("scale") for operator in (first, second)]
    shift = [operator.weight("shift") for operator in (first, second)]
    if "shift" in _parts(first):
        shift.append(scale[1])
    weights = []
    for role, candidates in (("scale", scale), ("shift", shift)):
        known = [weight for weight in candidates if weight is not None]
        if known:
            weights.append(Weight(role, max(known, key=lambda weight: weight.elements).shape))
    return tuple(weights)
