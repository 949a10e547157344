"""The graph of a Keras model: what runs in which order, models inside of models laid open, layers copied.

    model = flat(model)          # nested models and `Block`s inlined; equal outputs, the same weights

Imports errors and copying; keras where it is used.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featherweight.errors import SettingError
from featherweight.models.copying import set_layer_weights

if TYPE_CHECKING:
    import keras


def functional(model: Any) -> Any:
    """The functional graph of a model (keras' `Functional`), which for a Sequential lies inside of it.

    Raises:
        SettingError: a Sequential that was never built, or a model with a `call` of its own.
    """
    import keras

    inside = model
    if isinstance(model, keras.Sequential):
        inside = model._functional
        if inside is None:
            raise SettingError(f"{model.name} has no input shape yet; begin it with keras.Input, or call it once")
    # Every functional model, also a subclass that only adds training steps, keeps its graph; others have none.
    if not isinstance(inside, keras.src.models.functional.Functional):
        raise SettingError(
            f"{getattr(model, 'name', type(model).__name__)} has a call() of its own, which cannot be looked into; "
            "wanted a Functional or Sequential model. Export it and analyze the file"
        )
    return inside


def graph_inside(layer: Any) -> Any:
    """The functional graph of a nested model or of a `Block`; `None` for any other layer."""
    import keras

    inner = layer.inner if known_class(layer, ("Block",)) else layer
    is_model = isinstance(inner, keras.Sequential | keras.src.models.functional.Functional)
    return functional(inner) if is_model else None


def nodes(function: Any) -> Iterator[Any]:
    """The calls of a functional graph in the order in which Keras runs them, without its inputs."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)


def known_class(operation: Any, known: Collection[str], ignored: tuple[str, ...] = ()) -> str:
    """The class whose behaviour a layer or operation has: its own, or a known one above it whose `call` it does not
    replace. Empty if there is none.

    Args:
        operation: a layer or an operation on tensors.
        known: names of classes of Keras and of ours.
        ignored: beginnings of names of classes that stand for "Identity".
    """
    for kind in type(operation).__mro__:
        ours = kind.__module__.startswith(("keras.", "featherweight."))
        if ours and kind.__name__.startswith(ignored):
            return "Identity"
        if ours and kind.__name__ in known:
            return kind.__name__
        if "call" in vars(kind):
            break
    return ""


def copy_operation(operation: Any, changes: Mapping[str, Any] | None = None) -> Any:
    """A new layer or operation with the settings of this one but for `changes`, without its weights.

    Raises:
        SettingError: a layer of the user's that cannot be made again from its own `get_config`.
    """
    import keras

    changes = dict(changes or {})
    if type(operation) is keras.layers.Lambda:  # its settings carry code; the function itself is at hand
        return keras.layers.Lambda(
            operation.function,
            output_shape=operation._output_shape,
            mask=operation.mask,
            arguments=operation.arguments,
            name=changes.get("name", operation.name),
        )
    try:
        return type(operation).from_config({**operation.get_config(), **changes})
    except Exception as error:  # whatever a stranger's class raises
        text = " ".join(str(error).split())[:200]
        raise SettingError(
            f"{operation.name} ({type(operation).__name__}) cannot be made again from its get_config(): {text}"
        ) from error


def picture_size(model: Any) -> tuple[int, int]:
    """(height, width) of the one picture that a model takes.

    Raises:
        SettingError: it takes something else, or a size is open.
    """
    shapes = [tuple(tensor.shape) for tensor in model.inputs or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:3]:
        raise SettingError(f"{model.name} takes {shapes}; wanted one picture (n, height, width, 3) of a fixed size")
    return int(shapes[0][1]), int(shapes[0][2])


def flat(model: "keras.Model") -> "keras.Model":
    """A functional copy with equal outputs in which every layer stands by itself: nested models and `Block`s are laid
    open. Inner layers keep their names where these are free; else the outer name stands before.

    That a nested model was called with `training=False` is not kept, as Keras' own `fit` overrides it in every call.

    Raises:
        SettingError: as `functional` and `copy_operation`.
    """
    import keras

    function = functional(model)
    laid_open = _LaidOpen()
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in function.inputs]
    outputs = laid_open.run(function, inputs, "")
    result = keras.Model(_alike(function._inputs_struct, inputs), _alike(function._outputs_struct, outputs))
    result.name = model.name
    laid_open.set_weights()
    return result


def copied_onto(model: "keras.Model", tensors: Sequence[Any]) -> list[Any]:
    """The outputs of a model's layers, copied with their weights, for other tensors than its inputs. The copies keep
    their names; nested models are laid open.

    Raises:
        SettingError: as `flat`.
    """
    laid_open = _LaidOpen()
    outputs = laid_open.run(functional(model), list(tensors), "")
    laid_open.set_weights()
    return outputs


def _alike(structure: Any, tensors: list[Any]) -> Any:
    import keras

    return keras.tree.pack_sequence_as(structure, tensors)


class _LaidOpen:
    """Copies of layers on their way into one graph; a layer that is called twice is one copy called twice."""

    def __init__(self) -> None:
        self.copies: dict[int, tuple[Any, Any]] = {}
        self.names: set[str] = set()

    def run(self, function: Any, inputs: list[Any], prefix: str) -> list[Any]:
        """Call the copies of a graph's operations on tensors of the new graph."""
        import keras

        made = {id(old): new for old, new in zip(function.inputs, inputs, strict=True)}
        for node in nodes(function):
            inner = graph_inside(node.operation)
            if inner is not None:
                given = [made[id(tensor)] for tensor in node.arguments.keras_tensors]
                outputs = self.run(inner, given, f"{prefix}{node.operation.name}_")
            else:
                args, kwargs = node.arguments.fill_in(made)
                outputs = keras.tree.flatten(self._copy(node.operation, prefix)(*args, **kwargs))
            made |= {id(old): new for old, new in zip(node.outputs, outputs, strict=True)}
        return [made[id(tensor)] for tensor in function.outputs]

    def _copy(self, operation: Any, prefix: str) -> Any:
        if id(operation) not in self.copies:
            name = operation.name if operation.name not in self.names else f"{prefix}{operation.name}"
            number = 1
            while name in self.names:
                number += 1
                name = f"{prefix}{operation.name}_{number}"
            self.names.add(name)
            self.copies[id(operation)] = operation, copy_operation(operation, {"name": name})
        return self.copies[id(operation)][1]

    def set_weights(self) -> None:
        import keras

        for original, copy in self.copies.values():
            if isinstance(original, keras.Layer) and original.weights:
                set_layer_weights(copy, original.get_weights())
