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
        inner = layer if getattr(layer, "layers", None) else getattr(layer, "inner", None)
        if inner is not None:
            yield from every_layer(inner)


def set_layer_weights(layer: "keras.Layer", arrays: Sequence[NDArray[Any]]) -> None:
    """As `set_weights`; a `Normalization` also takes its new statistics into use, which it keeps apart from them."""
    layer.set_weights([np.asarray(array) for array in arrays])
    finalize = getattr(layer, "finalize_state", None)
    if finalize is not None:
        finalize()


def copy_weights(source: "keras.Model", copy: "keras.Model") -> None:
    """All weights of a model into its copy, in place."""
    copy.set_weights(source.get_weights())
    for layer in every_layer(copy):
        finalize = getattr(layer, "finalize_state", None)
        if finalize is not None:
            finalize()
