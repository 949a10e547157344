"""What stands before the last activation of a model: its logits.

Imports errors and functional; keras where it is used.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.errors import SettingError
from featherweight.models.functional import functional, known_class, nodes

if TYPE_CHECKING:
    import keras

LEAST = float(np.finfo(np.float32).tiny)
MOST = 1 - float(np.finfo(np.float32).eps) / 2  # the greatest float32 below 1


def logits(model: "keras.Model", who: str, sigmoid: bool = False, linear: bool = False) -> Any:
    """What the last softmax is given, or as good as that.

    Where the softmax is inside of another layer (a dense layer's activation), it is the log of the probabilities:
    log softmax(z) = z - log Σ exp z, which serves as well wherever a softmax follows. Of a sigmoid it is
    log p - log (1 - p).

    Args:
        model: with a graph and one output.
        who: the model is in an error: "student".
        sigmoid: whether the end may be a sigmoid too.
        linear: whether the end may be without an activation: it gives logits then.

    Raises:
        SettingError: a model that ends otherwise.
    """
    import keras

    output = model.outputs[0]
    last = next(node for node in nodes(functional(model)) if any(made is output for made in node.outputs))
    layer, before = last.operation, last.arguments.keras_tensors[0]
    if known_class(layer, ("Softmax",)):
        return before
    if isinstance(layer, keras.layers.Activation | keras.layers.Dense | keras.layers.Conv2D):
        alone = isinstance(layer, keras.layers.Activation)
        if layer.activation is keras.activations.softmax:
            return before if alone else keras.ops.log(keras.ops.maximum(output, LEAST))
        if sigmoid and layer.activation is keras.activations.sigmoid:
            sure = keras.ops.clip(output, LEAST, MOST)
            return before if alone else keras.ops.log(sure) - keras.ops.log1p(-sure)
        if linear and layer.activation is keras.activations.linear:
            return output
    wanted = "a softmax or a sigmoid" if sigmoid else "a softmax"
    raise SettingError(f"the {who} {model.name} ends in {layer.name} ({type(layer).__name__}); wanted {wanted}")
