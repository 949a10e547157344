"""A Keras model as a graph, and a copy of it with some layers changed: what every rewrite of a model stands on.

In scope: who makes and who takes a tensor; copies in which layers are changed, left out or replaced; weights as arrays.
Not aware of: why a layer is changed. Imports errors and models; keras where it is used.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError
from featherweight.models.copying import model_inside, set_layer_weights
from featherweight.models.functional import copy_operation

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float32]


class Graph:
    """Who makes and who takes a tensor of a functional model.

    Raises:
        SettingError: a layer is used more than once.
    """

    def __init__(self, model: "keras.Model"):
        self.makers: dict[int, Any] = {}
        self.takers: dict[int, list[Any]] = {}
        for operation in model.operations:  # layers, and plain additions and the like
            outputs = operation.output
            for tensor in outputs if isinstance(outputs, list | tuple) else [outputs]:
                self.makers[id(tensor)] = operation
            for tensor in operation.input if isinstance(operation.input, list) else [operation.input]:
                self.takers.setdefault(id(tensor), []).append(operation)
        self.outputs = {id(tensor) for tensor in model.outputs}
        # A layer that is called twice names the tensors of its first call only.
        if not (self.outputs | (self.takers.keys() - {id(tensor) for tensor in model.inputs})) <= self.makers.keys():
            raise SettingError(f"a layer of {model.name} is used more than once; wanted layers that are used once")

    def maker(self, tensor: Any) -> Any:
        """The layer whose output it is, or `None`."""
        return self.makers.get(id(tensor))

    def once(self, tensor: Any) -> bool:
        """Whether one layer takes it, and nobody outside of the model."""
        return len(self.takers.get(id(tensor), [])) == 1 and id(tensor) not in self.outputs

    def taker(self, tensor: Any) -> Any:
        """The one layer that takes it, where `once` says so."""
        return self.takers[id(tensor)][0]


def rebuilt(
    model: "keras.Model",
    changed: Callable[["keras.Layer"], "keras.Layer"] = copy_operation,
    replaced: Mapping[str, Callable[[Any], Any] | None] | None = None,
    weights: Mapping[str, Sequence[NDArray[Any]]] | None = None,
) -> "keras.Model":
    """A copy of the model. A layer that is replaced by `None` passes its input on; one replaced by another takes the
    first of its inputs, which for branches that all pass on is their source.

    Args:
        model: functional, of layers that are used once; unchanged.
        changed: layer → its copy, of the same name, perhaps with other settings.
        replaced: by name, what stands in a layer's place.
        weights: by name in the copy; other layers have those of the layer of their name.
    """
    import keras

    replaced, weights = replaced or {}, weights or {}

    def call(layer: "keras.Layer", *args: Any, **kwargs: Any) -> Any:
        if layer.name not in replaced:
            return layer(*args, **kwargs)
        source = args[0][0] if isinstance(args[0], list) else args[0]
        new = replaced[layer.name]
        return source if new is None else new(source)

    copy = keras.models.clone_model(model, clone_function=changed, call_function=call)
    for layer in (layer for layer in copy.layers if layer.weights):
        new = weights.get(layer.name)
        set_layer_weights(layer, model.get_layer(layer.name).get_weights() if new is None else new)
    return copy


@dataclass(frozen=True)
class Then:
    """Two layers one after the other, to stand in the place of one."""

    first: Any
    second: Any

    def __call__(self, x: Any) -> Any:
        """What the second gives for what the first gives for x."""
        return self.second(self.first(x))


def models_inside(model: "keras.Model") -> Iterator[str]:
    """The names of the layers that have models inside, which a graph does not look into."""
    return (layer.name for layer in model.layers if model_inside(layer) is not None)


def free_name(model: "keras.Model", wanted: str) -> str:
    """The name, with a number behind it where a layer of the model has it already."""
    taken = {layer.name for layer in model.layers}
    names = (wanted if number == 1 else f"{wanted}_{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def check_names(model: "keras.Model", names: Sequence[str]) -> None:
    """That each name is a layer's.

    Raises:
        SettingError: one is not.
    """
    known = {layer.name for layer in model.layers}
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise SettingError(f"{model.name} has no layer {unknown!r}; wanted names of layers as its summary has them")


def channels_last(layer: Any) -> bool:
    """Whether a convolution's channels are the last axis; a dense layer's always are."""
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")


def is_depthwise(layer: Any) -> bool:
    """Whether it filters each channel by itself and does nothing else."""
    import keras

    return isinstance(layer, keras.layers.DepthwiseConv2D)


def kernel_and_bias(layer: Any) -> tuple[Array, Array]:
    """As arrays; a depthwise kernel is (h, w, c, m) with c·m outputs, of a separable one it is the pointwise half.
    Without a bias, zeros.
    """
    import keras

    separable = isinstance(layer, keras.layers.SeparableConv2D)
    kernel = np.asarray(layer.pointwise_kernel if separable else layer.kernel, np.float32)
    outputs = layer.output.shape[-1]
    bias = np.asarray(layer.bias, np.float32) if layer.use_bias else np.zeros(outputs, np.float32)
    return kernel, bias
