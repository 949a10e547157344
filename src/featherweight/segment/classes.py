"""A segmenter for other classes: all but its last convolution is kept.

Imports errors and models; keras where it is used.
"""

from typing import TYPE_CHECKING, Any

from featherweight.errors import SettingError
from featherweight.models.copying import set_layer_weights
from featherweight.models.functional import flat, functional, nodes

if TYPE_CHECKING:
    import keras

MOVING = ("UpSampling2D", "Cropping2D", "ZeroPadding2D", "Resizing")  # what may stand behind the last convolution


def with_classes(model: "keras.Model", classes: int) -> "keras.Model":
    """A copy of a segmenter for so many classes: its last convolution is new, and its end a sigmoid for two.

    Args:
        model: ends in a softmax or a sigmoid behind a convolution, maybe spread or cut between the two; unchanged.
        classes: how many, with the background.

    Raises:
        SettingError: fewer than two classes, or a model that ends otherwise.
    """
    import keras

    if classes < 2:
        raise SettingError(f"{classes} classes; wanted at least 2, the background among them")
    model = flat(model)
    last, end = _last_convolution(model)
    channels, gate = (1, "sigmoid") if classes == 2 else (classes, "softmax")

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if layer is last:
            config |= {"filters": channels, "activation": gate if layer is end else config["activation"]}
        return layer.__class__.from_config(config)

    # The end apart: a softmax is called with a mask, which a sigmoid does not take.
    before = end.output if end is last else end.input
    made = keras.models.clone_model(keras.Model(model.inputs, before), clone_function=copied)
    for layer in made.layers:
        if layer.name != last.name:
            set_layer_weights(layer, model.get_layer(layer.name).get_weights())
    if end is last:
        return keras.Model(made.inputs[0], made.outputs[0], name=model.name)
    ends = keras.layers.Softmax(name=end.name) if classes > 2 else keras.layers.Activation(gate, name=end.name)
    return keras.Model(made.inputs[0], ends(made.outputs[0]), name=model.name)


def _last_convolution(model: "keras.Model") -> tuple[Any, Any]:
    """(the convolution that makes the logits, the layer that makes probabilities of them)."""
    import keras

    makers = {id(made): node for node in nodes(functional(model)) for made in node.outputs}
    node = makers[id(model.outputs[0])]
    end = node.operation
    while not isinstance(node.operation, keras.layers.Conv2D):
        named = type(node.operation).__name__
        before = node.arguments.keras_tensors
        if (node.operation is not end and named not in MOVING) or len(before) != 1 or id(before[0]) not in makers:
            raise SettingError(f"{model.name} has no convolution before {end.name}; wanted one that gives its logits")
        node = makers[id(before[0])]
    return node.operation, end
