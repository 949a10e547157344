"""Do it: a plan's channels cut out of every weight that has them, into a new, ordinary Keras model.

Imports artifact, errors, models, plan, rules and trace; keras where it is used.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.copying import set_layer_weights
from featherweight.models.functional import copy_operation, flat
from featherweight.prune.plan import Plan
from featherweight.prune.rules import trace
from featherweight.prune.trace import Kept, Labels, Trace

if TYPE_CHECKING:
    import keras


def apply(model: "keras.Model", plan: Plan) -> tuple["keras.Model", Step]:
    """A smaller model without the plan's channels; it saves, trains and exports as any other. The old one is unchanged.

    A layer that holds other layers (nested models, `Block`) is laid open.

    Raises:
        SettingError: the plan is of another model, takes channels that must stay, or all of a layer.
    """
    model = flat(model)
    traced = trace(model)
    kept = traced.kept(_roots(model, traced, plan))
    settings = {
        **{key: value for key, value in plan.as_dict()["settings"].items()},
        "target": {plan.target.quantity: plan.target.share},
        "channels": {group.layers[0]: [group.before, group.after] for group in plan.groups if group.removed},
        "macs": plan.macs,
        "parameters": plan.parameters,
    }
    return sliced(model, traced, kept), Step("prune", settings, plan.fixed)


def _roots(model: "keras.Model", traced: Trace, plan: Plan) -> Labels:
    """What the plan removes, held against the model."""
    makers = {use.layer: use for use in traced.uses.values() if use.role == "makes"}
    found = [np.zeros(0, np.int64)]
    for group in plan.groups:
        use = makers.get(group.layers[0])
        if use is None:
            raise SettingError(f"the plan names {group.layers[0]}, which {model.name} has not; wanted a plan of it")
        wrong = [place for place in group.removed if not 0 <= place < len(use.channels)]
        if wrong:
            raise SettingError(f"the plan takes channel {wrong[0]} of {use.layer}, which has {len(use.channels)}")
        found.append(traced.roots(use.channels[list(group.removed)]))
    roots = np.unique(np.concatenate(found))
    reasons = traced.reasons()
    fixed = next((root for root in roots.tolist() if root in reasons), None)
    if fixed is not None:
        raise SettingError(f"the plan takes channels that must stay: {reasons[fixed]}")
    kept = traced.kept(roots)
    bare = next((use.layer for use in traced.uses.values() if not kept.count(use.channels)), None)
    if bare is not None:
        raise SettingError(f"the plan takes all channels of {bare}; wanted at least one left")
    return roots


def sliced(model: "keras.Model", traced: Trace, kept: Kept) -> "keras.Model":
    """A flat model's copy with the channels that are kept: new settings, and weights without the others."""
    import keras

    arguments: dict[int, tuple[Any, ...]] = {}

    def changed(operation: Any) -> Any:
        change = traced.settings.get(operation.name)
        copy = copy_operation(operation, None if change is None else change(kept))
        if operation.name in traced.arguments:
            arguments[id(copy)] = traced.arguments[operation.name](kept)
        return copy

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        given = (args[0], *arguments[id(operation)]) if id(operation) in arguments else args
        return operation(*given, **kwargs)

    result = keras.models.clone_model(model, clone_function=changed, call_function=call)
    weights = sliced_weights(model, traced, kept)
    for layer in (layer for layer in result.layers if layer.weights):
        set_layer_weights(layer, weights[layer.name])
    return result


def sliced_weights(model: "keras.Model", traced: Trace, kept: Kept) -> Mapping[str, list[NDArray[Any]]]:
    """The weights of every layer without the entries of channels that go."""
    found = {layer.name: list(layer.get_weights()) for layer in model.layers if layer.weights}
    for (layer, weight, axis), use in traced.uses.items():
        found[layer][weight] = np.compress(kept.mask[use.channels], found[layer][weight], axis)
    return found


def masked_weights(model: "keras.Model", traced: Trace, kept: Kept) -> Mapping[str, list[NDArray[Any]]]:
    """The weights of every layer, all of them, but with zeros wherever a kernel takes a channel that goes: the network
    that the sliced one must be equal to.
    """
    found = {layer.name: [weight.copy() for weight in layer.get_weights()] for layer in model.layers if layer.weights}
    for (layer, weight, axis), use in traced.uses.items():
        if use.role == "takes":
            np.moveaxis(found[layer][weight], axis, 0)[~kept.mask[use.channels]] = 0
    return found
