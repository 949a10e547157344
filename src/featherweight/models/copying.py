"""From one Keras model to another: weights, and the layers inside of layers.

Imports nothing of the package.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras


def every_layer(model: Any) -> Iterator[Any]:
    """The layers of a model, and those inside of nested models and `Block`s."""
    for layer in model.layers:
        yield layer
        inner = model_inside(layer)
        if inner is not None:
            yield from every_layer(inner)


def model_inside(layer: Any) -> Any:
    """The model that a layer is (nested) or has (`Block`); `None` for any other layer."""
    return layer if getattr(layer, "layers", None) else getattr(layer, "inner", None)


def set_layer_weights(layer: "keras.Layer", arrays: Sequence[NDArray[Any]]) -> None:
    """As `set_weights`; a `Normalization` also takes its new statistics into use, which it keeps apart from them."""
    layer.set_weights([np.asarray(array) for array in arrays])
    _use_statistics(layer)


def copy_weights(source: "keras.Model", copy: "keras.Model") -> None:
    """All weights of a model into its copy, in place."""
    copy.set_weights(source.get_weights())
    for layer in every_layer(copy):
        _use_statistics(layer)


def _use_statistics(layer: "keras.Layer") -> None:
    finalize = getattr(layer, "finalize_state", None)
    if finalize is not None:
        finalize()
