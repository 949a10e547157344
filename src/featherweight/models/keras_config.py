"""The description of a Keras model in a file (`config.json`, `model_config`): held against a list of what may be in
it, and translated from Keras 2.

Keras looks classes and functions up by the names in this JSON, so a file can ask for anything that Keras, or any
package it imports, can call. `safe_mode` has been got round eight times since 2025. So nothing passes here that is
not on the lists below, and the names of modules in the file are not passed on at all: each is replaced by the module
in which the listed class lives.

Keras 2 files differ in arguments that were dropped (`groups=1` of a depthwise convolution), names with slashes, the
counting of calls of nested models, and operators on tensors; `clean_config` writes them as Keras 3 does. An argument
that Keras 3 lacks and that would change the result is refused, never dropped.

Initializers become zeros: every weight is loaded over them. What makes Keras repeat its work is bounded.

In scope: the JSON. Not aware of: weights, Keras itself. Imports modelfile.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherweight.modelfile import failure, one_line


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a convolutional network is made of.
LAYERS = _names(
    """
    InputLayer Activation ReLU LeakyReLU PReLU ELU Softmax Identity
    Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose
    DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D Dense
    BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization
    MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    AdaptiveAveragePooling2D AdaptiveMaxPooling2D
    Flatten Reshape Permute RepeatVector UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout
    ActivityRegularization Rescaling Resizing CenterCrop Normalization
    RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomCrop
    """
)
MODELS = frozenset({"Sequential", "Functional", "Model"})
# Our own, by the package name that they are registered with, and the module of `models` that each is in. The tuples
# `OWN_LAYERS` of these modules hold the classes.
OWN_PACKAGE = "featherweight"
OWN_LAYERS = {
    "ChannelSlice": "blocks", "ChannelPad": "blocks", "AffineSampler": "blocks", "Block": "blocks",
    "Predictions": "heads", "LocalConvolution": "local",
}  # fmt: skip
INITIALIZERS = _names(
    """
    Zeros Ones Constant RandomNormal RandomUniform TruncatedNormal VarianceScaling GlorotUniform GlorotNormal
    HeNormal HeUniform LecunNormal LecunUniform Orthogonal OrthogonalInitializer Identity IdentityInitializer
    """
)
REGULARIZERS = frozenset({"L1", "L2", "L1L2", "OrthogonalRegularizer"})
CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
POLICIES = frozenset({"DTypePolicy", "FloatDTypePolicy"})
ACTIVATIONS = _names(
    """
    celu elu exponential gelu hard_sigmoid hard_silu hard_swish leaky_relu linear log_sigmoid log_softmax mish relu
    relu6 selu sigmoid silu softmax softplus softsign swish tanh
    """
)
# Operations on tensors that stand between the layers of a functional model.
NUMPY_OPERATIONS = _names(
    """
    Absolute Add Subtract Multiply Divide TrueDivide Negative Maximum Minimum Clip Power Square Sqrt Exp Log Tanh
    Mean Max Min Sum Concatenate Stack Split Reshape Transpose Squeeze ExpandDims GetItem Flip Pad
    """
)
NN_OPERATIONS = _names(
    """
    Relu Relu6 Elu Gelu LeakyRelu Selu Sigmoid Silu Softmax LogSoftmax Softplus Softsign HardSigmoid HardSilu
    AveragePool MaxPool
    """
)
# Values of JSON that stand for plain Python values.
VALUES = frozenset({"__keras_tensor__", "__slice__", "__ellipsis__", "__tensor__", "__numpy__"})
NUMBER_TYPES = re.compile(r"(float(16|32|64)|bfloat16|u?int(8|16|32|64)|bool)")

Node = dict[str, Any]

# Family → (its names, the module that the names are looked up in).
FAMILIES = {
    "models": (MODELS, "keras"),
    "layers": (LAYERS, "keras.layers"),
    "initializers": (INITIALIZERS, "keras.initializers"),
    "regularizers": (REGULARIZERS, "keras.regularizers"),
    "constraints": (CONSTRAINTS, "keras.constraints"),
    "policies": (POLICIES, "keras"),
    "ops.numpy": (NUMPY_OPERATIONS, "keras.src.ops.numpy"),
    "ops.nn": (NN_OPERATIONS, "keras.src.ops.nn"),
}
MODULES = re.compile(r"(keras|tensorflow|tf_keras|builtins)(\.|$)")
SCALARS = (int, float, str, type(None))  # True and False are numbers, too
KEYS = _names(
    "class_name config module registered_name build_config compile_config name inbound_nodes shared_object_id"
)
RUNS_CODE = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__"})

MAX_LAYERS = 3_000
# Layer calls until the model stands, about 0.4 ms each. Keras builds a Sequential anew for each layer that it gets, and
# a model that calls another one twice, which calls another one twice … costs double at every level.
MAX_CALLS = 15_000
CALLS_OF_BLOCK = 40
MAX_LIST_OF_BLOCK = 32  # the longest that a block is given by anyone are three sizes of windows
# Keras resolves a layer that stands before its input by another pass over all layers.
MAX_FORWARD_REFERENCES = 100
# Each weight is loaded over what an initializer made, and some take minutes for large kernels.
ZEROS: Node = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
BUILD_INSTEAD = "build the model in code and load its weights into it"


def clean_config(tree: Any, path: Path) -> Node:
    """A new tree with only listed names in it, in the form of Keras 3; `tree` is left as it is.

    Args:
        tree: the parsed JSON, limited in depth and number of values by `modelfile.parse_json`.
        path: for the errors.

    Raises:
        ModelFileError: no model, or something in it that is not on the lists; it is named.
    """
    if not isinstance(tree, dict) or tree.get("class_name") not in tuple(MODELS):
        raise failure(path, "its configuration describes no model", "wanted a Sequential or functional Keras model")
    cleaner = _Cleaner(path)
    clean: Node = cleaner.node(tree)
    cleaner.check_work(clean)
    return clean


class _Cleaner:
    """One walk over one file's configuration."""

    def __init__(self, path: Path):
        self.path = path
        self.layers = self.models = 0  # models: also what else takes more than one call
        self.weighed = self.work = 0

    def refuse(self, what: str, wanted: str = BUILD_INSTEAD) -> Exception:
        return failure(self.path, what, wanted)

    def node(self, node: Any) -> Any:
        """Any value of JSON."""
        if isinstance(node, list):
            return [self.node(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "class_name" in node:
            return self.object(node)
        if "module" in node or "registered_name" in node:
            raise self.refuse("its configuration names a module without a class")
        return {key: self.node(value) for key, value in node.items()}

    def object(self, node: Node) -> Any:
        """What Keras would make an object of."""
        name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
        if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
            raise self.refuse("its configuration has a class whose name is no text")
        if unknown := sorted(set(node) - KEYS):
            raise self.refuse(f"its configuration has {one_line(name, 40)} with the unknown key {one_line(unknown[0])}")
        if name in VALUES:
            return self.value(name, node)
        if name == "function":
            return self.function(node)
        if name == "TFOpLambda":
            node, module, registered = self.tensor_operator(node), None, None
            name = node["class_name"]
        if module is None and name in NUMPY_OPERATIONS & LAYERS and _is_called_with_terms(node):
            module = FAMILIES["ops.numpy"][1]
        own = self.own_name(name, registered)
        if own:
            module = None
            family, canonical = "layers", f"{OWN_PACKAGE}.models.{OWN_LAYERS[own]}"
        else:
            family, canonical = self.family(name, module, registered)
        return self.finished(node, own or name, family, canonical)

    def own_name(self, name: str, registered: str | None) -> str | None:
        """The name of one of our own layers, where it is one."""
        prefix = f"{OWN_PACKAGE}>"
        for given in (registered or "", name):
            if given.startswith(prefix) and given.removeprefix(prefix) in OWN_LAYERS:
                return given.removeprefix(prefix)
        return None

    def family(self, name: str, module: str | None, registered: str | None) -> tuple[str, str]:
        """(family, module) of a listed class.

        Raises:
            ModelFileError: not listed.
        """
        where = f"{module}.{name}" if module else name
        if name in RUNS_CODE:
            raise self.refuse(f"a {name}, which runs code out of the file")
        if module is not None and not MODULES.match(module):
            raise self.refuse(f"{one_line(where, 80)}, which is no class of Keras")
        if registered is not None and registered not in (name, f"keras>{name}"):
            raise self.refuse(f"{one_line(registered, 80)}, a class of somebody's own")
        # Some names stand in two families, and the module tells which is meant.
        hinted = [f for f in FAMILIES if module is not None and f".{f}" in module]
        for family in hinted or FAMILIES:
            if name in FAMILIES[family][0]:
                return family, FAMILIES[family][1]
        raise self.refuse(f"{one_line(where, 80)}, which is not on the list of what is loaded")

    def function(self, node: Node) -> Node:
        name = node.get("config")
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise self.refuse(f"the function {one_line(name, 80)}, which is no listed activation")
        return {"module": "keras.activations", "class_name": "function", "config": name, "registered_name": None}

    def value(self, name: str, node: Node) -> Node:
        config = node.get("config", {})
        if isinstance(config, dict) and name in ("__tensor__", "__numpy__"):
            kind = config.get("dtype")
            if not isinstance(kind, str) or not NUMBER_TYPES.fullmatch(kind):
                raise self.refuse(f"a constant of type {one_line(kind, 40)}")
        return {"class_name": name, "config": self.node(config)}

    def finished(self, node: Node, name: str, family: str, module: str) -> Node:
        """The object with its contents cleaned, under the name and module of the list."""
        self.models += family == "models" or name == "Split"
        self.layers += family in ("layers", "models") or family.startswith("ops")
        if self.layers > MAX_LAYERS:
            raise self.refuse(f"its configuration has over {MAX_LAYERS:,} layers", "refused")
        inside = node.get("config") or {}
        if not isinstance(inside, dict | list):
            raise self.refuse(f"{one_line(name, 40)} without settings")
        if isinstance(inside, list):  # the oldest form of a Sequential
            inside = {"layers": inside}
        if family == "initializers":
            return dict(ZEROS)
        own = module.startswith(f"{OWN_PACKAGE}.")
        if name == "Block" and own:
            self.check_block(inside)
        clean: Node = {
            "module": module,
            "class_name": "Model" if name == "Functional" else name,
            "config": self.node(inside),
            "registered_name": f"{OWN_PACKAGE}>{name}" if own else name if family.startswith("ops") else None,
        }
        for key in ("name", "inbound_nodes", "build_config", "shared_object_id"):
            if key in node:
                clean[key] = self.node(node[key])
        if family == "layers" and not own:
            self.translate_layer(clean)
        if family == "models":
            self.translate_model(clean)
        return clean

    def check_block(self, config: Node) -> None:
        """One of our blocks takes numbers, texts, short lists of numbers, and a flat dictionary as its style."""
        settings = config.get("settings") or {}
        if not isinstance(settings, dict):
            raise self.refuse("a Block whose settings are no dictionary")
        self.models += 1
        style = settings.get("style")
        rows = [("style", key, value) for key, value in style.items()] if isinstance(style, dict) else []
        rows += [("settings", k, v) for k, v in settings.items() if k != "style" or not isinstance(style, dict)]
        for where, key, value in rows:
            numbers = value if isinstance(value, list) and where == "settings" else []
            if len(numbers) > MAX_LIST_OF_BLOCK or any(type(number) not in (int, float) for number in numbers):
                raise self.refuse(f"a Block with the list {one_line(key, 40)}", "wanted a short list of numbers")
            if key in KEYS - {"name"} or (not isinstance(value, SCALARS) and value is not numbers):
                raise self.refuse(f"a Block with {one_line(key, 40)} in its {where} that is no number and no text")

    def tensor_operator(self, node: Node) -> Node:
        """Keras 2's layer for a TensorFlow operator (`x + 3`, `tf.nn.relu(x)`) as a layer of Keras that does the same.

        With a number a sum or product is a Rescaling, x · scale + offset; exact, as the other term is 1 or 0.
        """
        config, nodes = node.get("config"), node.get("inbound_nodes")
        function = config.get("function") if isinstance(config, dict) else None
        wanted = isinstance(function, str) and isinstance(nodes, list) and len(nodes) == 1
        reference = nodes[0] if wanted and isinstance(nodes, list) else None
        if not isinstance(reference, list) or len(reference) != 4 or not isinstance(reference[3], dict):
            raise self.refuse(f"the TensorFlow operator {one_line(function, 60)} in an unknown form")
        source = [*reference[:3], {}]
        arguments = {key: value for key, value in reference[3].items() if value is not None}
        other = arguments.pop("y", None)
        operation = str(function).rpartition(".")[2]
        if type(other) in (int, float) and operation in WITH_NUMBER and not arguments:
            kind, settings, inputs = "Rescaling", WITH_NUMBER[operation](other), [source]
        elif isinstance(other, list) and len(other) == 3 and operation in WITH_TENSOR and not arguments:
            kind, settings, inputs = WITH_TENSOR[operation], {}, [source, [*other, {}]]
        elif other is None and operation in ("relu", "relu6", "sigmoid", "silu") and not arguments:
            kind, settings, inputs = "Activation", {"activation": operation}, [source]
        else:
            raise self.refuse(f"the TensorFlow operator {one_line(function, 60)}, which has no translation")
        kept = {key: config[key] for key in ("name", "dtype") if key in config} if isinstance(config, dict) else {}
        return {"class_name": kind, "config": {**kept, **settings}, "name": node.get("name"), "inbound_nodes": [inputs]}

    def check_work(self, model: Node) -> None:
        """Refuse what would keep Keras busy for minutes, from a few kB of JSON."""
        self.weigh(model)
        if self.weighed != self.models:
            raise self.refuse("a model, Block or Split in a place where a layer has no model", "refused")
        if self.work > MAX_CALLS:
            raise self.refuse(
                f"a model that takes {self.work:,} calls of layers to build", f"wanted up to {MAX_CALLS:,}"
            )

    def weigh(self, model: Node) -> int:
        """How many layers are called when the model is called once; `work` grows by what building it takes."""
        self.weighed += 1
        sequential, calls = model["class_name"] == "Sequential", 0
        layers = model["config"]["layers"]
        for layer in layers:
            if layer.get("class_name") in ("Sequential", "Model"):
                each = self.weigh(layer)
            elif layer.get("class_name") == "Block":
                self.weighed += 1
                each = CALLS_OF_BLOCK + _repeats(layer)
            elif layer.get("class_name") == "Split":
                self.weighed += 1
                each = self.parts(layer)
            else:
                each = 1
            nodes = layer.get("inbound_nodes")
            calls += each if sequential or not isinstance(nodes, list) else each * len(nodes)
        self.work += calls * len(layers) if sequential else calls
        return calls

    def parts(self, split: Node) -> int:
        """How many tensors a Split makes."""
        given = split["config"].get("indices_or_sections")
        parts = len(given) + 1 if isinstance(given, list) else given
        if type(parts) is not int:
            raise self.refuse("a Split into something that is no number of parts")
        return abs(parts)

    # --- from Keras 2 to Keras 3 ---------------------------------------------------------------------------------

    def translate_layer(self, layer: Node) -> None:
        """Write one layer's settings as Keras 3 takes them."""
        name, config = layer["class_name"], layer["config"]
        for key in config:
            if key.endswith("_initializer") and config[key] is not None:
                config[key] = dict(ZEROS)
        if "batch_input_shape" in config:
            shape = config.pop("batch_input_shape")
            if name == "InputLayer":
                config["batch_shape"] = shape
        if name in ("BatchNormalization", "LayerNormalization") and isinstance(config.get("axis"), list):
            if len(config["axis"]) != 1:
                raise self.refuse(f"a {name} over several axes", BUILD_INSTEAD)
            config["axis"] = config["axis"][0]
        for key, new in RENAMED.get(name, {}).items():
            if key in config:
                config[new] = config.pop(key)
        for key in UNUSED.get(name, ()):
            config.pop(key, None)
        for key, neutral in {**NEUTRAL["*"], **NEUTRAL.get(name, {})}.items():
            if key in config and config.pop(key) not in neutral:
                raise self.refuse(f"a {name} with {key} set, which Keras 3 does not have")

    def translate_model(self, model: Node) -> None:
        """Write a model's graph as Keras 3 takes it."""
        config = model["config"]
        layers = config.get("layers")
        if not isinstance(layers, list) or not all(isinstance(each, dict) and "class_name" in each for each in layers):
            raise self.refuse("a model without a list of layers")
        if not all(isinstance(each.get("inbound_nodes", []), list) for each in layers):
            raise self.refuse("a layer without a list of its calls")
        if model["class_name"] == "Sequential":
            _plain_names(config)
            return
        if not {"input_layers", "output_layers"} <= set(config):
            raise self.refuse("a functional model without its inputs and outputs")
        self.check_order(layers)
        if any(isinstance(node, list) for layer in layers for node in layer.get("inbound_nodes") or ()):
            _write_as_keras_3(config)
        _plain_names(config)

    def check_order(self, layers: list[Node]) -> None:
        """Layers stand after their inputs, as Keras writes them; shared layers are the few exceptions."""
        known: set[str] = set()
        forward = 0
        for layer in layers:
            name = layer.get("name")
            if not isinstance(name, str):
                raise self.refuse("a layer of a functional model without a name")
            known.add(name)
            forward += sum(reference[0] not in known for reference in _references(layer.get("inbound_nodes")))
        if forward > MAX_FORWARD_REFERENCES:
            raise self.refuse("a functional model whose layers stand before their inputs", "refused")


# Arguments of Keras 2 under their new names.
RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
# Arguments that Keras 2 wrote and itself never used.
_OF_KERNEL = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
UNUSED: dict[str, tuple[str, ...]] = {
    "SeparableConv1D": _OF_KERNEL,
    "SeparableConv2D": _OF_KERNEL,
    "DepthwiseConv1D": _OF_KERNEL,
    "DepthwiseConv2D": _OF_KERNEL,
    "BatchNormalization": ("fused",),
    "SpatialDropout1D": ("trainable",),
    "SpatialDropout2D": ("trainable",),
    "SpatialDropout3D": ("trainable",),
}
# Arguments that Keras 3 dropped → the values that mean what it does anyway.
NEUTRAL: dict[str, dict[str, tuple[Any, ...]]] = {
    "*": {"dynamic": (False, None), "stateful": (False, None)},
    "DepthwiseConv1D": {"groups": (1,)},
    "DepthwiseConv2D": {"groups": (1,)},
    "SeparableConv1D": {"groups": (1,)},
    "SeparableConv2D": {"groups": (1,)},
    "Conv1DTranspose": {"groups": (1,)},
    "Conv2DTranspose": {"groups": (1,)},
    "Conv3DTranspose": {"groups": (1,)},
    "BatchNormalization": {"virtual_batch_size": (None,), "adjustment": (None,)},
    "SpatialDropout1D": {"noise_shape": (None,)},
    "SpatialDropout2D": {"noise_shape": (None,)},
    "SpatialDropout3D": {"noise_shape": (None,)},
    "InputLayer": {"ragged": (False, None)},
}


# TensorFlow's operators of two terms, by the last part of their name.
WITH_NUMBER: dict[str, Callable[[float], Node]] = {
    "add": lambda number: {"scale": 1.0, "offset": number},
    "subtract": lambda number: {"scale": 1.0, "offset": -number},
    "multiply": lambda number: {"scale": number, "offset": 0.0},
}
WITH_TENSOR = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply"}


def _is_called_with_terms(node: Node) -> bool:
    """Whether this is an operation, called as (x, y), and not the layer of that name, called as ([x, y]).

    The old format names no modules.
    """
    nodes = node.get("inbound_nodes")
    call = nodes[0] if isinstance(nodes, list) and nodes else None
    arguments = call.get("args") if isinstance(call, dict) else None
    return isinstance(arguments, list) and len(arguments) == 2


def _references(tree: Any) -> list[list[Any]]:
    """The references to tensors in inbound nodes or lists of outputs: [layer, call, output, …] each."""
    if isinstance(tree, dict):
        return [found for value in tree.values() for found in _references(value)]
    if not isinstance(tree, list):
        return []
    if len(tree) >= 3 and isinstance(tree[0], str) and type(tree[1]) is int and type(tree[2]) is int:
        return [tree, *_references(tree[3:])]
    return [found for item in tree for found in _references(item)]


def _repeats(block: Node) -> int:
    """How many more layers one of our own blocks is told to make."""
    settings = block["config"].get("settings") or {}
    branches = settings.get("branches", 0)
    lists = sum(len(value) for value in settings.values() if isinstance(value, list))
    return lists + (10 * abs(branches) if isinstance(branches, int) else 0)


def _all_references(config: Node) -> list[list[Any]]:
    nodes = [layer.get("inbound_nodes") for layer in config["layers"]]
    return _references([nodes, config["input_layers"], config["output_layers"]])


def _write_as_keras_3(config: Node) -> None:
    """Two habits of Keras 2's graphs: lists of one input and one output, where a tensor is meant; and the call that
    made a nested Sequential counts as its call 0.
    """
    for key in ("input_layers", "output_layers"):
        if isinstance(config[key], list) and len(config[key]) == 1:
            config[key] = config[key][0]
    for layer in config["layers"]:
        if layer["class_name"] == "Sequential" and isinstance(layer.get("inbound_nodes"), list):
            ours = [reference for reference in _all_references(config) if reference[0] == layer["name"]]
            if ours and min(r[1] for r in ours) == 1 and max(r[1] for r in ours) == len(layer["inbound_nodes"]):
                for reference in ours:
                    reference[1] -= 1


def _plain_names(config: Node) -> None:
    """Keras 3 takes no slash in a name."""
    for layer in config["layers"]:
        for holder in (layer, layer["config"]):
            if isinstance(holder.get("name"), str):
                holder["name"] = holder["name"].replace("/", "_")
    if "input_layers" in config:
        for reference in _all_references(config):
            reference[0] = reference[0].replace("/", "_")
