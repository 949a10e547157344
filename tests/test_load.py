"""Keras models of strangers: good ones load and answer as before; hostile ones run nothing, cost nothing, are named."""

import copy
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
import h5py
import keras
from keras import layers

from featherweight.device import peak_memory_bytes, reset_peak_memory, resident_memory_bytes
from featherweight.errors import ModelFileError
from featherweight.models import blocks, heads, hdf5, keras_config, load, local
from featherweight.models.load import load_model, load_weights_file, weight_shapes
from tests import hostile

SHARED = Path(__file__).parents[2] / "shared" / "data"
SIZE = 16
Node = dict[str, Any]


# --- good files ----------


def plain() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3), name="image")
    stack = [layers.Conv2D(4, 3, strides=4, name="conv"), layers.Flatten(name="flat"), layers.Dense(3, name="dense")]
    return keras.Sequential([image, *stack], name="plain")


def residual() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer="l2")(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, 1, "same")(x)])
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def nested() -> keras.Model:
    inner = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()], name="inner")
    image = keras.Input((SIZE, SIZE, 3))
    part = keras.Model(image, layers.Conv2D(2, 1)(layers.ZeroPadding2D()(image)), name="part")
    return keras.Model(image, layers.GlobalMaxPooling2D()(inner(part(image))))


def shared() -> keras.Model:
    convolution = layers.Conv2D(3, 3, padding="same")
    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, [convolution(layers.Activation("relu")(convolution(image))), convolution(image)])


def activations() -> keras.Model:
    names = sorted(keras_config.ACTIVATIONS - {"linear"})
    image = keras.Input((SIZE, SIZE, 3))
    x = [layers.Activation(name)(image) for name in names]
    x += [layers.LeakyReLU(0.1)(image), layers.PReLU(shared_axes=[1, 2])(image), layers.ELU()(image)]
    return keras.Model(image, layers.Concatenate()(x))


def front_end() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 127.5, -1.0),
            layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.Resizing(8, 8),
            layers.SeparableConv2D(4, 3, depth_multiplier=2),
            layers.Conv2DTranspose(3, 2, 2),
            layers.UpSampling2D(interpolation="bilinear"),
            layers.SpatialDropout2D(0.1),
            layers.LayerNormalization(),
            layers.GaussianNoise(0.1),
            layers.Dropout(0.2),
        ]
    )


def settings_of_all_kinds() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3))
    x = image
    for initializer in ("HeNormal", "LecunUniform", "Orthogonal", "VarianceScaling", "RandomNormal", "TruncatedNormal"):
        x = layers.Conv2D(3, 1, kernel_initializer=initializer, kernel_constraint="max_norm")(x)
    x = layers.Dense(2, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), activity_regularizer="l1")(x)
    x = layers.Dense(2, bias_initializer=keras.initializers.Constant(3.0), kernel_constraint="non_neg")(x)
    return keras.Model(image, layers.GroupNormalization(1)(x))


def own_layers() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 4))
    x = blocks.ChannelSlice(0, 2)(image)
    x = blocks.ChannelPad(1, 1)(x)
    x = blocks.Block("fire", {"filters": 8})(x)
    style = {"padding": "same", "epsilon": 1e-3, "activation": "relu6"}
    x = blocks.Block("spatial_pyramid_pooling", {"filters": 8, "pools": [3, 5], "style": style})(x)
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


def compiled() -> keras.Model:
    model = residual()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)  # its state exists from here on and is saved
    return model


def half_precision() -> keras.Model:
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3, dtype="mixed_float16"), layers.Dense(2)])


NETS = {
    make.__name__: make
    for make in (
        plain, residual, nested, shared, activations, front_end, settings_of_all_kinds, own_layers, compiled,
        half_precision,
    )
}  # fmt: skip


def answers(model: keras.Model) -> list[np.ndarray[Any, Any]]:
    images = np.random.default_rng(1).integers(0, 256, (2, *model.input_shape[1:])).astype(np.float32)
    outputs = model(images, training=False)
    return [np.asarray(output) for output in (outputs if isinstance(outputs, list) else [outputs])]


def randomize(model: keras.Model, seed: int) -> keras.Model:
    chance = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(chance.uniform(0.1, 1, weight.shape))
    return model


@pytest.mark.usefixtures("one_child")
@pytest.mark.parametrize("net", NETS)
def test_good_models_load_and_answer_the_same(tmp_path: Path, net: str) -> None:
    model = randomize(NETS[net](), 0)
    truth = answers(model)
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        path = shutil.move(tmp_path / f"model{suffix}", tmp_path / "named.wrongly")
        loaded = load_model(path)
        assert not loaded.compiled
        for found, wanted in zip(answers(loaded), truth, strict=True):
            np.testing.assert_array_equal(found, wanted)
    model.save_weights(tmp_path / "model.weights.h5")
    randomize(model, 1)
    load_weights_file(model, tmp_path / "model.weights.h5")
    for found, wanted in zip(answers(model), truth, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_operations_on_tensors(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.ops.relu6(image * 2 - 1) / 3 + keras.ops.mean(image, axis=1, keepdims=True)
    model = keras.Model(
        image, keras.ops.concatenate([keras.ops.sigmoid(x), keras.ops.max(x, axis=-1, keepdims=True)], -1)
    )
    model.save(tmp_path / "model.keras")
    for found, wanted in zip(answers(load_model(tmp_path / "model.keras")), answers(model), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_our_own_layers_are_on_the_list() -> None:
    own = [layer for module in (blocks, heads, local) for layer in module.OWN_LAYERS]
    assert keras_config.OWN_LAYERS == {layer.__name__: layer.__module__.rpartition(".")[2] for layer in own}


@pytest.mark.parametrize("family", keras_config.FAMILIES)
def test_every_listed_name_is_one_that_keras_has(family: str) -> None:
    names, module = keras_config.FAMILIES[family]
    place = __import__("importlib").import_module(module)
    if family == "policies":
        place = keras.dtype_policies
    assert [name for name in sorted(names - {"Functional"}) if name not in vars(place)] == []


def test_loading_leaves_nothing_behind_in_keras(tmp_path: Path) -> None:
    """The variables that were only described must not come to life in the next scope."""
    plain().save(tmp_path / "a.keras")
    load_model(tmp_path / "a.keras")
    with keras.StatelessScope():
        pass
    assert keras.config.floatx() == "float32"


def test_the_resnet_of_mlperf_tiny_reads_cifar() -> None:
    path, pictures = SHARED / "cifar-models" / "pretrainedResnet.h5", SHARED / "cifar10-jpg" / "test.tar.xz"
    if not path.is_file() or not pictures.is_file():
        pytest.skip("needs ../shared/data/cifar-models and cifar10-jpg")
    from PIL import Image

    images, labels = [], []
    with tarfile.open(pictures) as archive:
        for number, member in enumerate(m for m in archive if m.isfile()):
            if number % 20 == 0:
                with Image.open(archive.extractfile(member)) as picture:  # type: ignore[arg-type]
                    images.append(np.asarray(picture.convert("RGB"), np.float32))
                labels.append(member.name.split("/")[-2])
    classes = sorted(set(labels))
    scores = load_model(path)(np.stack(images), training=False)
    right = np.argmax(scores, 1) == [classes.index(label) for label in labels]
    assert len(right) == 500
    assert 0.72 < right.mean() < 0.81  # 76.4 % on all, ± 2 standard errors of 500


# --- files of Keras 2 ----------


def keras_2(config: Node) -> Node:
    """What TensorFlow 2.15 writes for the same layers, as far as Keras 3 does not take it."""
    for layer in config["config"]["layers"]:
        for key in ("module", "registered_name", "build_config"):
            layer.pop(key, None)
        settings, name = layer["config"], layer["class_name"]
        settings["dtype"] = "float32"
        if name == "InputLayer":
            settings["batch_input_shape"] = settings.pop("batch_shape")
            settings.pop("optional")
        if name in ("DepthwiseConv2D", "SeparableConv2D"):
            settings.update(groups=1, kernel_initializer={"class_name": "Zeros", "config": {}})
        if name == "BatchNormalization":
            settings.update(axis=[3], fused=True, virtual_batch_size=None, adjustment=None)
        if name == "LeakyReLU":
            settings["alpha"] = settings.pop("negative_slope")
        if name == "SpatialDropout2D":
            settings.update(trainable=True, noise_shape=None)
    return {"class_name": "Functional", "config": config["config"]}


def in_keras_2_form(tensor: Node, *rest: Any) -> list[Any]:
    return [*tensor["config"]["keras_history"], *(rest or ({},))]


def test_a_file_of_keras_2_is_translated(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.DepthwiseConv2D(3, name="block_depthwise")(image)
    x = layers.SpatialDropout2D(0.1)(layers.BatchNormalization()(x))
    x = layers.LeakyReLU(0.25)(layers.SeparableConv2D(4, 3)(x))
    x = layers.Rescaling(0.5, 0.0, name="times")(layers.Rescaling(1.0, 3.0, name="plus")(x))
    x = layers.Activation("relu6", name="six")(x)
    x = layers.Multiply(name="both")([x, x])
    inner = keras.Sequential([keras.Input(x.shape[1:]), layers.Conv2D(2, 3)], name="inner")
    model = randomize(keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(inner(x))), 0)
    model.save(tmp_path / "new.h5")

    with h5py.File(tmp_path / "new.h5", "r+") as file:
        config = keras_2(json.loads(file.attrs["model_config"]))
        for layer in config["config"]["layers"]:
            nodes = layer["inbound_nodes"]
            layer["inbound_nodes"] = [[in_keras_2_form(t) for t in flat(node["args"])] for node in nodes]
            if layer["name"] in ("plus", "times", "six"):
                source = layer["inbound_nodes"][0][0][:3]
                function, other = {
                    "plus": ("__operators__.add", 3.0),
                    "times": ("math.multiply", 0.5),
                    "six": ("nn.relu6", None),
                }[layer["name"]]
                layer["class_name"] = "TFOpLambda"
                layer["config"] = {"name": layer["name"], "trainable": True, "dtype": "float32", "function": function}
                layer["inbound_nodes"] = [[*source, {} if other is None else {"y": other, "name": None}]]
            if layer["name"] == "both":
                source = layer["inbound_nodes"][0][0][:3]
                layer["class_name"], layer["config"] = "TFOpLambda", {"name": "both", "function": "math.multiply"}
                layer["inbound_nodes"] = [[*source, {"y": source}]]
            if layer["name"] == "pool":
                layer["inbound_nodes"][0][0][1] = 1  # Keras 2 counts the call that made `inner`
            if layer["name"] == "block_depthwise":
                layer["name"] = layer["config"]["name"] = "block/depthwise"
        text = json.dumps(config).replace('"block_depthwise"', '"block/depthwise"')
        file.attrs["model_config"] = text
    loaded = load_model(tmp_path / "new.h5")
    np.testing.assert_allclose(answers(loaded)[0], answers(model)[0], rtol=1e-6)
    assert loaded.get_layer("block_depthwise")


def flat(tree: Any) -> list[Node]:
    if isinstance(tree, dict):
        return [tree]
    return [found for item in tree for found in flat(item)]


OPERATORS = {
    "an unknown one": {
        "function": "math.erf",
        "nodes": [["input_layer", 0, 0, {}]],
        "said": "math.erf.*no translation",
    },
    "division": {"function": "math.divide", "nodes": [["input_layer", 0, 0, {"y": 3.0}]], "said": "no translation"},
    "more arguments": {"function": "nn.relu", "nodes": [["input_layer", 0, 0, {"axis": 1}]], "said": "no translation"},
    "an odd form": {"function": "math.add", "nodes": [["input_layer", 0, 0]], "said": "in an unknown form"},
    "two calls": {"function": "math.add", "nodes": [1, 2], "said": "in an unknown form"},
    "no function": {"function": ["os"], "nodes": [["input_layer", 0, 0, {}]], "said": "in an unknown form"},
}


@pytest.mark.parametrize("case", OPERATORS)
def test_operators_of_tensorflow_without_translation_are_named(case: str) -> None:
    row = OPERATORS[case]
    layer = {"class_name": "TFOpLambda", "name": "x", "config": {"name": "x", "function": row["function"]}}
    tree = {"class_name": "Functional", "config": {"layers": [{**layer, "inbound_nodes": row["nodes"]}]}}
    with pytest.raises(ModelFileError, match=row["said"]):
        keras_config.clean_config(tree, Path("file"))


def test_subtraction_and_addition_of_tensors_are_translated() -> None:
    cleaner = keras_config._Cleaner(Path("file"))
    node = {"name": "x", "config": {"function": "math.subtract"}, "inbound_nodes": [["a", 0, 0, {"y": 2.0}]]}
    assert cleaner.tensor_operator(node)["config"] == {"scale": 1.0, "offset": -2.0}
    node["inbound_nodes"] = [["a", 0, 0, {"y": ["b", 1, 2]}]]
    found = cleaner.tensor_operator(node)
    assert (found["class_name"], found["inbound_nodes"]) == ("Subtract", [[["a", 0, 0, {}], ["b", 1, 2, {}]]])


# --- hostile files ----------


class Files:
    """One good model in each format, and ways to spoil it."""

    def __init__(self, folder: Path):
        self.keras, self.h5 = folder / "good.keras", folder / "good.h5"
        self.weights = folder / "good.weights.h5"
        self.model = randomize(plain(), 0)
        self.model.save(self.keras)
        self.model.save(self.h5)
        self.model.save_weights(self.weights)
        with zipfile.ZipFile(self.keras) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.config: Node = json.loads(self.members["config.json"])

    def with_config(self, path: Path, change: Callable[[Node], Any]) -> Path:
        config = copy.deepcopy(self.config)
        changed = change(config)
        return self.with_members(path, **{"config.json": json.dumps(config if changed is None else changed).encode()})

    def with_members(self, path: Path, **members: bytes) -> Path:
        return hostile.zipped(path, *{**self.members, **members}.items())

    def with_weights(self, path: Path, change: Callable[[h5py.File], None]) -> Path:
        copied = path.with_suffix(".copy")
        copied.write_bytes(self.members["model.weights.h5"])
        with h5py.File(copied, "r+") as file:
            change(file)
        return self.with_members(path, **{"model.weights.h5": copied.read_bytes()})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("good"))


def layer(config: Node, number: int = -1) -> Node:
    found: Node = config["config"]["layers"][number]
    return found


def replace_layer(**changes: Any) -> Callable[[Node], None]:
    return lambda config: layer(config).update(changes)


def activation(**function: Any) -> Callable[[Node], None]:
    return lambda config: layer(config)["config"].update(activation=function)


def setting(**settings: Any) -> Callable[[Node], None]:
    return lambda config: layer(config)["config"].update(settings)


def deep(config: Node) -> None:
    inner: Any = {}
    for _ in range(200):
        inner = {"a": inner}
    layer(config)["config"]["more"] = inner


def doubled(config: Node) -> Node:
    """A model that calls a model twice that calls a model twice …: twenty levels, a million calls."""
    model: Node = {"class_name": "ReLU", "config": {}}
    for level in range(20):
        once = [[["in", 0, 0, {}]], [["m", 0, 0, {}]]]
        inner = {**model, "name": "m", "inbound_nodes": once}
        inputs = {"class_name": "InputLayer", "config": {"batch_shape": [None, 4]}, "name": "in", "inbound_nodes": []}
        graph = {
            "name": f"l{level}",
            "layers": [inputs, inner],
            "input_layers": [["in", 0, 0]],
            "output_layers": [["m", 1, 0]],
        }
        model = {"class_name": "Functional", "config": graph}
    return model


def backwards(config: Node) -> Node:
    """A chain of layers, the last one first."""
    inputs = {"class_name": "InputLayer", "config": {"batch_shape": [None, 4]}, "name": "l0", "inbound_nodes": []}
    chain = [
        {"class_name": "ReLU", "config": {}, "name": f"l{i}", "inbound_nodes": [[[f"l{i - 1}", 0, 0, {}]]]}
        for i in range(500, 0, -1)
    ]
    graph = {"layers": [*chain, inputs], "input_layers": [["l0", 0, 0]], "output_layers": [["l500", 0, 0]]}
    return {"class_name": "Functional", "config": graph}


def parted(parts: Any) -> Callable[[Node], Node]:
    inputs = {"class_name": "InputLayer", "config": {"batch_shape": [None, 4]}, "name": "in", "inbound_nodes": [1]}
    split = {"class_name": "Split", "config": {"indices_or_sections": parts}, "name": "s", "inbound_nodes": [{}]}
    graph = {"layers": [inputs, split], "input_layers": [["in", 0, 0]], "output_layers": [["s", 0, 0]]}
    return lambda _: {"class_name": "Functional", "config": graph}


BLOCK = {"class_name": "featherweight>Block", "module": None, "registered_name": None}


def block_of(**settings: Any) -> Node:
    return {**BLOCK, "config": {"kind": "spatial_pyramid_pooling", "settings": settings}}


def block(**settings: Any) -> Callable[[Node], None]:
    return replace_layer(**block_of(**settings))


RELU = {"class_name": "ReLU", "config": {}}
CONFIGS: dict[str, tuple[Callable[[Node], Any], str]] = {
    # CVE-2025-1550: any function of any module
    "os.system": (activation(module="os", class_name="function", config="system"), "the function system"),
    "a module gadget": (
        replace_layer(module="subprocess", class_name="Popen", config={"args": "true"}),
        r"subprocess\.Popen",
    ),
    "a module with a good name": (replace_layer(module="evil.layers"), r"evil\.layers\.Dense, which is no class"),
    # CVE-2025-8747, -9906: Keras' own functions
    "get_file": (activation(module="keras.utils", class_name="function", config="get_file"), "the function get_file"),
    "get_file as a class": (replace_layer(module="keras.utils", class_name="get_file"), r"keras\.utils\.get_file"),
    "unsafe mode": (
        replace_layer(module="keras.config", class_name="enable_unsafe_deserialization"),
        "not on the list",
    ),
    "load_model": (
        activation(module="keras.saving", class_name="function", config="load_model"),
        "the function load_model",
    ),
    # CVE-2026-1462 and its kin
    "TFSMLayer": (replace_layer(class_name="TFSMLayer", config={"filepath": "/tmp"}), "a TFSMLayer, which runs code"),
    "TorchModuleWrapper": (replace_layer(class_name="TorchModuleWrapper"), "a TorchModuleWrapper, which runs code"),
    "JaxLayer": (replace_layer(class_name="JaxLayer"), "a JaxLayer, which runs code"),
    "FlaxLayer": (replace_layer(class_name="FlaxLayer"), "a FlaxLayer, which runs code"),
    "Lambda": (replace_layer(class_name="Lambda"), "a Lambda, which runs code"),
    "a lambda as activation": (activation(class_name="__lambda__", config={"value": "x"}), "a __lambda__, which runs"),
    "a type of TensorFlow": (activation(class_name="__typespec__", config=[]), "not on the list"),
    "a registered class": (replace_layer(registered_name="evil>Dense"), "evil>Dense, a class of somebody's own"),
    "a false class of ours": (replace_layer(registered_name="featherweight>Evil"), "a class of somebody's own"),
    "a false name of ours": (replace_layer(class_name="featherweight>Evil"), "not on the list"),
    "a layer of words": (
        replace_layer(class_name="TextVectorization"),
        r"keras\.layers\.TextVectorization, which is not on",
    ),
    "a module alone": (setting(more={"module": "os"}), "a module without a class"),
    "a class that is no text": (replace_layer(class_name=["Dense"]), "whose name is no text"),
    "an unknown key": (replace_layer(evil=1), "unknown key evil"),
    "settings that are none": (replace_layer(config="x"), "Dense without settings"),
    "a constant of objects": (
        setting(more={"class_name": "__numpy__", "config": {"dtype": "O", "value": 1}}),
        "type O",
    ),
    "a constant of long texts": (
        setting(more={"class_name": "__tensor__", "config": {"dtype": "S999999999", "value": 1}}),
        "type S999999999",
    ),
    "no model": (lambda _: {"class_name": "Dense", "config": {}}, "describes no model"),
    "no object": (lambda _: [1], "describes no model"),
    "a class that is no name": (lambda _: {"class_name": {}}, "describes no model"),
    "a layer without a class": (lambda c: c["config"]["layers"].append({}), "without a list of layers"),
    "calls that are no list": (replace_layer(inbound_nodes=3), "without a list of its calls"),
    "a model without layers": (
        lambda _: {"class_name": "Sequential", "config": {"name": "x"}},
        "without a list of layers",
    ),
    "the oldest form": (lambda _: {"class_name": "Sequential", "config": [RELU]}, "Keras cannot load|do not fit"),
    "a graph without ends": (
        lambda _: {"class_name": "Functional", "config": {"layers": []}},
        "without its inputs and outputs",
    ),
    "a layer without a name": (
        lambda _: {"class_name": "Functional", "config": {"layers": [RELU], "input_layers": [], "output_layers": []}},
        "without a name",
    ),
    "nested settings": (deep, "nested deeper than 128"),
    "3,001 layers": (lambda c: c["config"].update(layers=[RELU] * 3001), "over 3,000 layers"),
    "a long Sequential": (lambda c: c["config"].update(layers=[RELU] * 200), "takes 40,000 calls"),
    "doubling": (doubled, "calls of layers to build"),
    "a block of a million branches": (
        replace_layer(class_name="featherweight>Block", config={"settings": {"branches": 10**6}}),
        "calls of layers to build",
    ),
    "a block of 40,000 windows": (block(pools=[3] * 40_000), "a Block with the list pools; wanted a short list"),
    "a block of 33 windows": (block(pools=[3] * 33), "a Block with the list pools"),
    "many blocks of windows": (
        lambda c: c["config"].update(layers=[block_of(pools=[3] * 32)] * 20), "calls of layers to build",
    ),
    "a block of texts": (block(pools=["3"]), "a Block with the list pools; wanted a short list of numbers"),
    "a block of blocks": (block(filters=block_of()), "a Block with filters in its settings that is no number"),
    "a block of a class": (block(class_name="Zeros"), "a Block with class_name in its settings"),
    "a style with a list": (block(style={"padding": [1]}), "a Block with padding in its style that is no number"),
    "a style with a class": (block(style={"class_name": "Zeros"}), "a Block with class_name in its style"),
    "a style in a list": (block(style=[{"padding": 1}]), "a Block with the list style"),
    "settings in a list": (replace_layer(**{**BLOCK, "config": {"settings": [1]}}), "settings are no dictionary"),
    "a block as activation": (lambda c: layer(c)["config"].update(activation=block_of(branches=9)), "has no model"),
    "a million parts": (parted(10**6), "takes 1,000,001 calls of layers"),
    "a million parts backwards": (parted(-(10**6)), "takes 1,000,001 calls of layers"),
    "parts at many places": (parted([0] * 20_000), "takes 20,002 calls of layers"),
    "parts as activation": (activation(class_name="Split", config={"indices_or_sections": 9}), "or Split in a place"),
    "parts of text": (parted("x"), "a Split into something that is no number of parts"),
    "a graph backwards": (backwards, "stand before their inputs"),
    "a model as activation": (
        activation(class_name="Sequential", config={"layers": [RELU]}),
        "a model, Block or Split in a place where a layer has no model",
    ),
    "groups of a depthwise convolution": (
        replace_layer(class_name="DepthwiseConv2D", config={"kernel_size": 3, "groups": 2}),
        "DepthwiseConv2D with groups set",
    ),
    "batch norm over two axes": (
        replace_layer(class_name="BatchNormalization", config={"axis": [1, 2]}),
        "over several axes",
    ),
    # Shape bombs: more is asked for than the file holds.
    "30,000 × 30,000": (setting(units=900_000_000), r"none of shape \(64, 900000000\)"),
    "one filter more": (lambda c: layer(c, 1)["config"].update(filters=5), r"do not fit|incompatible"),
    "a negative size": (setting(units=-5), "Keras cannot load it"),
    "an unknown argument": (setting(evil=1), "Keras cannot load it"),
    "an unknown activation": (setting(activation="evil"), "Keras cannot load it"),
}  # fmt: skip


@pytest.mark.usefixtures("one_child")
@pytest.mark.parametrize("case", CONFIGS)
def test_hostile_configurations_are_named(tmp_path: Path, good: Files, case: str) -> None:
    change, said = CONFIGS[case]
    path = good.with_config(tmp_path / "model.keras", change)
    with pytest.raises(ModelFileError, match=said) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("case", ["os.system", "a module gadget", "TFSMLayer", "a registered class", "30,000 × 30,000"])
def test_the_old_format_is_no_way_around(tmp_path: Path, good: Files, case: str) -> None:
    change, said = CONFIGS[case]
    path = shutil.copy(good.h5, tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ModelFileError, match=said.replace(r"keras\.layers\.", "")):
        load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_real_lambda_does_not_run(tmp_path: Path, suffix: str) -> None:
    """CVE-2024-3660, and CVE-2025-9905 for .h5: the layer's code is in the file."""
    marker = tmp_path / "marker"
    code = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(eval(code), output_shape=(4,))])
    model.save(tmp_path / f"model{suffix}")
    model(np.zeros((1, 4)))
    assert marker.exists()
    marker.unlink()
    with pytest.raises(ModelFileError, match="a Lambda, which runs code out of the file"):
        load_model(tmp_path / f"model{suffix}")
    assert not marker.exists()


def linked(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("assets")
    info.external_attr = mode << 16
    return info


CONTAINERS: dict[str, tuple[tuple[str | zipfile.ZipInfo, bytes], str]] = {
    "traversal": (("../../outside", b"x"), "points outside"),
    "an absolute name": (("/tmp/outside", b"x"), "points outside"),
    "a link": ((linked(stat.S_IFLNK | 0o777), b"/etc/passwd"), "is a link"),
    "assets": (("assets/vocabulary.txt", b"x"), "member assets/vocabulary.txt belongs to no such model"),
    "other weights": (("model.weights.npz", b"x"), "belongs to no such model"),
    "a member twice": (("config.json", b"{}"), "is there twice"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", CONTAINERS)
def test_hostile_archives_are_named(tmp_path: Path, good: Files, case: str) -> None:
    member, said = CONTAINERS[case]
    path = hostile.zipped(tmp_path / "model.keras", *good.members.items(), member)
    with pytest.raises(ModelFileError, match=said):
        load_model(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_what_an_archive_must_hold(tmp_path: Path, good: Files) -> None:
    path = tmp_path / "model.keras"
    two = {name: good.members[name] for name in ("config.json", "metadata.json")}
    with pytest.raises(ModelFileError, match=r"model\.weights\.h5 is missing"):
        load_model(hostile.zipped(path, *two.items()))
    with pytest.raises(ModelFileError, match=r"config\.json is no JSON"):
        load_model(good.with_members(path, **{"config.json": b"x"}))
    with pytest.raises(ModelFileError, match=r"metadata\.json is no JSON"):
        load_model(good.with_members(path, **{"metadata.json": b"x"}))
    with pytest.raises(ModelFileError, match="a damaged HDF5 file"):
        load_model(good.with_members(path, **{"model.weights.h5": b"x"}))
    with pytest.raises(ModelFileError, match=r"model\.keras: a damaged HDF5 file"):
        load_model(good.with_members(path, **{"model.weights.h5": b""}))
    with pytest.raises(ModelFileError, match=r"in the format of \.h5 models"):
        load_model(good.with_members(path, **{"model.weights.h5": good.h5.read_bytes()}))
    with pytest.raises(ModelFileError, match="weights only, without the model; wanted the whole model: save it again"):
        load_model(good.weights)
    with pytest.raises(ModelFileError, match=r"kind npz; wanted a \.keras"):
        load_model(hostile.zipped(path, ("a.npy", hostile.one_array())))
    with pytest.raises(ModelFileError, match=r"kind npz; wanted a \.weights\.h5"):
        weight_shapes(path)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    with pytest.raises(ModelFileError, match="a model without weights"):
        load_model(tmp_path / "bare.h5")


def test_weights_of_another_model_are_refused_before_they_are_read(tmp_path: Path, good: Files) -> None:
    assert sorted(weight_shapes(good.weights).values()) == sorted(tuple(w.shape) for w in good.model.weights)
    other = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(5, 3)])
    with pytest.raises(
        ModelFileError, match=r"2 weights are wanted and 4 are in the file, none of shape \(3, 3, 3, 5\)"
    ):
        load_weights_file(other, good.weights)
    with pytest.raises(ModelFileError, match=r"kind keras; wanted a \.weights\.h5"):
        load_weights_file(other, good.keras)


def test_weights_load_into_a_compiled_model_and_out_of_the_old_format(good: Files) -> None:
    model = plain()
    model.compile("adam", "mse")
    load_weights_file(model, good.weights)
    np.testing.assert_array_equal(answers(model)[0], answers(good.model)[0])
    again = plain()
    load_weights_file(again, good.h5)
    np.testing.assert_array_equal(answers(again)[0], answers(good.model)[0])


def test_the_optimizers_state_is_left_out(tmp_path: Path) -> None:
    model = compiled()
    model.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5") as file:
        assert "optimizer" in file
    answer = hdf5.copy_plainly(str(tmp_path / "a.weights.h5"), str(tmp_path / "copy"))
    assert len(answer["shapes"]) == len(model.weights)


def test_an_activation_as_an_object(tmp_path: Path, good: Files) -> None:
    path = good.with_config(
        tmp_path / "model.keras", activation(module="builtins", class_name="function", config="relu")
    )
    np.testing.assert_array_equal(answers(load_model(path))[0], np.maximum(answers(good.model)[0], 0))


def initializers(tree: Any) -> Iterator[Any]:
    for node in tree if isinstance(tree, list) else tree.values() if isinstance(tree, dict) else ():
        yield from initializers(node)
    if isinstance(tree, dict):
        yield from (value for key, value in tree.items() if key.endswith("_initializer"))


@pytest.mark.parametrize("kernel", ["orthogonal", {"class_name": "Orthogonal", "config": {"gain": 1.0}}])
def test_costly_initializers_are_replaced(good: Files, kernel: Any) -> None:
    config = copy.deepcopy(good.config)
    setting(kernel_initializer=kernel)(config)
    found = list(initializers(keras_config.clean_config(config, Path("file"))))
    assert len(found) == 4  # of a kernel and a bias each, in a convolution and a dense layer
    assert all(each["class_name"] == "Zeros" for each in found)


def test_a_layer_whose_weights_are_in_no_file_is_refused(tmp_path: Path, good: Files) -> None:
    """Else it would stay at zero: the same number of equal shapes, but one belongs to nobody."""

    def astray(file: h5py.File) -> None:
        file.copy("layers/dense/vars/0", "layers/dense/vars/2")
        del file["layers/dense/vars/0"]

    with pytest.raises(ModelFileError, match="Keras cannot load it"):
        load_model(good.with_weights(tmp_path / "model.keras", astray))


def test_weights_with_the_right_shapes_in_the_wrong_places(tmp_path: Path, good: Files) -> None:
    def swap(file: h5py.File) -> None:
        file.move("layers/dense", "layers/other")

    path = good.with_weights(tmp_path / "model.keras", swap)
    with pytest.raises(ModelFileError, match="Keras cannot load it"):
        load_model(path)


def enlarged(size: int) -> keras.Model:
    """A model for pictures of any size, which makes them larger and means over the result."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.UpSampling2D(size, name="bomb")(image)))


def of_nested(size: int) -> keras.Model:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, enlarged(size)(image))


def of_stack(*stack: keras.Layer) -> Callable[[], keras.Model]:
    return lambda: keras.Sequential([keras.Input((8, 8, 3)), *stack, layers.GlobalAveragePooling2D()])


def of_operation() -> keras.Model:
    image = keras.Input((8, 8, 3))
    wide = keras.ops.pad(image, [[0, 0], [0, 30_000], [0, 30_000], [0, 0]])
    return keras.Model(image, keras.ops.mean(wide, axis=(1, 2)))


LARGE_OUTPUTS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "larger maps": (of_stack(layers.UpSampling2D(10**6)), 3 * (8 * 10**6) ** 2),
    "wide edges": (of_stack(layers.ZeroPadding2D(20_000)), 3 * 40_008**2),
    "large pictures": (
        lambda: keras.Sequential([keras.Input((50_000, 50_000, 3)), layers.AveragePooling2D(50_000)]),
        3 * 50_000**2,
    ),
    "many channels": (of_stack(blocks.ChannelPad(0, 2**30)), 64 * (3 + 2**30)),
    "an operation": (of_operation, 3 * 30_008**2),
    "a nested model": (lambda: of_nested(10**4), 3 * 80_000**2),
    "nested twice": (lambda: keras.Sequential([keras.Input((8, 8, 3)), of_nested(10**4)]), 3 * 80_000**2),
}


@pytest.mark.usefixtures("one_child")
@pytest.mark.parametrize("case", LARGE_OUTPUTS)
def test_absurdly_large_outputs_are_refused(tmp_path: Path, case: str) -> None:
    make, numbers = LARGE_OUTPUTS[case]
    make().save(tmp_path / "model.keras")
    with pytest.raises(ModelFileError, match=f"gives {numbers:,} numbers for one picture; wanted up to 2,147,483,648"):
        load_model(tmp_path / "model.keras")


def test_the_limit_on_outputs_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inside of a block counts: 8 · 8 maps of 12 channels widened from 2."""
    block = blocks.Block("inverted_residual", {"filters": 2, "expand": 6})
    keras.Sequential([keras.Input((8, 8, 2)), block]).save(tmp_path / "model.keras")
    enlarged(10**6).save(tmp_path / "open.keras")  # says nothing of how large its pictures are
    assert load_model(tmp_path / "open.keras").input_shape == (None, None, None, 3)
    monkeypatch.setattr(load, "MAX_OUTPUT_NUMBERS", 8 * 8 * 12)
    assert load_model(tmp_path / "model.keras")
    monkeypatch.setattr(load, "MAX_OUTPUT_NUMBERS", 8 * 8 * 12 - 1)
    with pytest.raises(ModelFileError, match="inverted_residual_expand gives 768 numbers"):
        load_model(tmp_path / "model.keras")


# --- HDF5 ----------

KERNEL = "layers/dense/vars/0"


def put(make: Callable[[h5py.Group], Any]) -> Callable[[h5py.File], None]:
    """Make something else in the place of the dense layer's kernel."""

    def change(file: h5py.File) -> None:
        del file[KERNEL]
        make(file["layers/dense/vars"])

    return change


def virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((36, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (36, 3))
    group.create_virtual_dataset("0", layout)


def descent(group: h5py.Group) -> None:
    for _ in range(hdf5.MAX_DEPTH + 1):
        group = group.create_group("g")


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["layers"].attrs[name] = value

    return change


STRUCTURES: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    # CVE-2026-1669 and -12480
    "external link": (put(lambda g: g.__setitem__("0", h5py.ExternalLink("/etc/passwd", "/x"))), "is a link"),
    "soft link": (put(lambda g: g.__setitem__("0", h5py.SoftLink("/layers"))), "is a link"),
    "external storage": (
        put(lambda g: g.create_dataset("0", (36, 3), "f4", external=[("/etc/passwd", 0, 432)])),
        "from another file",
    ),
    "virtual": (put(virtual), "from another file"),
    "loop": (put(lambda g: g.__setitem__("0", g)), "the same object as another"),
    "twice": (put(lambda g: g.__setitem__("0", g["1"])), "the same object as another"),
    # CVE-2026-0897: numbers that are not there
    "unwritten": (put(lambda g: g.create_dataset("0", (30_000, 30_000), "f4")), "3,600,000,000 bytes that are not in"),
    "fill value": (put(lambda g: g.create_dataset("0", (36, 3), "f4", fillvalue=1)), "bytes that are not in the file"),
    "compressed": (
        put(lambda g: g.create_dataset("0", data=np.zeros((2000, 2000), "f4"), compression="gzip")),
        "compressed or stored in pieces",
    ),
    "pieces": (put(lambda g: g.create_dataset("0", data=np.zeros((36, 3), "f4"), chunks=(2, 3))), "stored in pieces"),
    "references": (put(lambda g: g.create_dataset("0", data=g.ref, dtype=h5py.ref_dtype)), "not plain numbers"),
    "texts": (put(lambda g: g.create_dataset("0", data=["x"], dtype=h5py.string_dtype())), "not plain numbers"),
    "compound": (put(lambda g: g.create_dataset("0", data=np.zeros(3, [("a", "f4")]))), "not plain numbers"),
    "complex": (put(lambda g: g.create_dataset("0", data=np.zeros(3, "c16"))), "not plain numbers"),
    "no space": (put(lambda g: g.create_dataset("0", data=h5py.Empty("f4"))), "no proper shape|not in the file"),
    "named type": (put(lambda g: g.__setitem__("0", np.dtype("f4"))), "neither a group nor an array"),
    "odd name": (put(lambda g: g.create_group("a\nb")), "an object with the name"),
    "deep groups": (descent, "nested deeper than 64"),
    "absolute names": (attribute("layer_names", ["/layers"]), "which is not there"),
    "names upwards": (attribute("weight_names", ["../x"]), "which is not there"),
    "absent names": (attribute("layer_names0", ["evil"]), "which is not there"),
    "names twice": (attribute("layer_names", ["dense", "dense"]), "names something twice"),
    "names that are numbers": (attribute("layer_names", [1.5]), "no short list of texts"),
    "names that are references": (attribute("backend", np.zeros(3, "f4")), "no short list of texts"),
    "two texts": (attribute("backend", ["a", "b"]), "no single text"),
    "too many names": (attribute("layer_names", np.full(2500, b"x")), "which is not there|twice"),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_hostile_hdf5_files_are_named(tmp_path: Path, good: Files, case: str) -> None:
    change, said = STRUCTURES[case]
    path = tmp_path / "model.weights.h5"
    shutil.copy(good.weights, path)
    with h5py.File(path, "r+") as file:
        change(file)
    answer = hdf5.copy_plainly(str(path), str(tmp_path / "copy.h5"))  # as the child does
    assert "error" in answer, answer
    assert __import__("re").search(said, answer["error"]), answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("case", ["external link", "virtual", "unwritten", "compressed"])
def test_hostile_weights_within_a_model_are_named(tmp_path: Path, good: Files, case: str) -> None:
    change, said = STRUCTURES[case]
    with pytest.raises(ModelFileError, match=said):
        load_model(good.with_weights(tmp_path / "model.keras", change))


def test_a_long_text_attribute_is_refused(tmp_path: Path, good: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shutil.copy(good.h5, tmp_path / "model.h5")
    monkeypatch.setattr(hdf5, "MAX_JSON_BYTES", 1000)
    assert "no short list of texts" in hdf5.copy_plainly(str(path), str(tmp_path / "copy"))["error"]
    monkeypatch.undo()
    monkeypatch.setattr(hdf5._Walk, "_array", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert "far more memory" in hdf5.copy_plainly(str(path), str(tmp_path / "copy"))["error"]


def test_objects_are_counted(tmp_path: Path, good: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    with h5py.File(good.weights) as file:
        file.visit(found.append)
    for limit, over in ((len(found) + 1, False), (len(found), True)):  # the root counts too
        monkeypatch.setattr(hdf5, "MAX_OBJECTS", limit)
        answer = hdf5.copy_plainly(str(good.weights), str(tmp_path / "copy"))
        assert (answer.get("error") == f"over {limit} objects") is over


def test_arrays_may_not_add_up_to_more_than_the_file(tmp_path: Path, good: Files) -> None:
    """Two arrays over the same bytes: each alone lies within the file."""
    walk = hdf5._Walk(good.weights.stat().st_size)
    walk.budget = 10
    with h5py.File(good.weights) as file, pytest.raises(hdf5._Refusal, match="declare more bytes than the file has"):
        walk._array(file[KERNEL], KERNEL)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died with signal 11: it said nothing"),
        ("raise SystemExit('worn out')", "died with exit code 1: worn out"),
        ("import os; os.kill(os.getpid(), 24)", "reading it took over 1 s; the file may be hostile"),  # SIGXCPU
        ("import time; time.sleep(60)", "reading it took over 1 s; the file may be hostile"),
    ],
)
def test_a_crash_of_the_child_is_one_line(
    tmp_path: Path, good: Files, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    run = subprocess.run
    monkeypatch.setattr(hdf5, "CHILD_SECONDS", 1)
    monkeypatch.setattr(hdf5, "PATIENCE", 1)
    monkeypatch.setattr(subprocess, "run", lambda _, **settings: run([sys.executable, "-c", code], **settings))
    with pytest.raises(ModelFileError, match=said):
        hdf5.clean_copy(good.weights, tmp_path / "copy.h5")


# --- damage ----------


COPIER = """
import json, sys
from featherweight.models.hdf5 import copy_plainly
for line in sys.stdin:
    print(json.dumps(copy_plainly(*json.loads(line))), flush=True)
"""


class Copier:
    """One child for many files: a fifth of a second less for each. What the real child does, other tests see.

    A damaged file can lead HDF5 into an endless loop; then this child is ended, and another takes its place.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, source: Path, target: Path, _: Path) -> Node:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COPIER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(source), str(target)]) + "\n")
        self.process.stdin.flush()
        timer = threading.Timer(20, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            self.close()
            return {"error": "the child died"}
        answer: Node = json.loads(line)
        return answer

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def copier() -> Iterator[Copier]:
    child = Copier()
    yield child
    child.close()


@pytest.fixture
def one_child(copier: Copier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_in_child", copier)


def reader(good: Files, kind: str) -> Callable[[Path], list[np.ndarray[Any, Any]]]:
    if kind != "weights":
        return lambda path: [np.asarray(weight) for weight in load_model(path).weights]

    def into_model(path: Path) -> list[np.ndarray[Any, Any]]:
        load_weights_file(good.model, path)
        return [np.asarray(weight) for weight in good.model.weights]

    return into_model


@pytest.mark.usefixtures("one_child")
@pytest.mark.parametrize("kind", ["keras", "h5", "weights"])
def test_every_truncation_gives_one_line(tmp_path: Path, good: Files, kind: str) -> None:
    data = vars(good)[kind].read_bytes()
    versions = hostile.truncations(data)
    messages, results = hostile.outcomes(tmp_path / "bad", versions, reader(good, kind), ModelFileError)
    assert len(messages) == len(versions) and not results
    assert all("\n" not in message for message in messages)


@pytest.mark.usefixtures("one_child")
@pytest.mark.parametrize("kind", ["keras", "h5", "weights"])
def test_one_changed_byte_gives_one_line_or_the_same_model(tmp_path: Path, good: Files, kind: str) -> None:
    """A zip archive has checksums; in HDF5 one changed number cannot be seen, but no more than that number changes."""
    truth = [np.asarray(weight) for weight in good.model.weights]
    versions = [data for _, data in hostile.flips(vars(good)[kind].read_bytes(), 60 if kind == "keras" else 30)]
    messages, results = hostile.outcomes(tmp_path / "bad", versions, reader(good, kind), ModelFileError)
    load_weights_file(good.model, good.weights)  # as before
    assert messages and all("\n" not in message for message in messages)
    for found in results:
        assert isinstance(found, list)
        changed = [np.sum(f != t) for f, t in zip(found, truth, strict=True)]
        assert sum(changed) <= (0 if kind == "keras" else 1)


def cost(path: Path) -> tuple[float, float]:
    """(MiB at the peak beyond what was there, seconds of processor time with the children's) of refusing a file."""
    reset_peak_memory()
    before, start = resident_memory_bytes(), sum(os.times()[:4])
    with pytest.raises(ModelFileError):
        load_model(path)
    return (peak_memory_bytes() - before) / 2**20, sum(os.times()[:4]) - start


def test_bombs_cost_little_memory_and_time(tmp_path: Path, good: Files) -> None:
    cases = (
        "30,000 × 30,000", "nested settings", "3,001 layers", "a long Sequential", "doubling", "a graph backwards",
        "a block of 40,000 windows", "many blocks of windows",
    )  # fmt: skip
    for number, case in enumerate(cases):
        good.with_config(tmp_path / f"bomb{number}", CONFIGS[case][0])
    for number, case in enumerate(("unwritten", "compressed")):
        good.with_weights(tmp_path / f"bomb-h5-{number}", STRUCTURES[case][0])
    million = b'{"class_name": "Sequential", "config": {"layers": [' + b'{"class_name":"ReLU"},' * 700_000 + b"{}]}}"
    good.with_members(tmp_path / "bomb-million", **{"config.json": million})
    good.with_members(tmp_path / "bomb-deep", **{"config.json": b"[" * 2**24})
    good.with_members(tmp_path / "bomb-long", **{"config.json": b" " * (2**24 + 1)})
    members = {**good.members, "config.json": bytes(100 * 2**20)}
    hostile.zipped(tmp_path / "bomb-zip", *members.items(), deflate=True)

    def both(config: Node) -> None:
        layer(config)["config"].update(units=30_000)
        config["config"]["layers"].append({"class_name": "Dense", "config": {"units": 30_000}})

    path = good.with_config(tmp_path / "bomb-both", both)
    assert path.stat().st_size < 40_000
    load_model(good.keras)
    bombs = sorted(path for path in tmp_path.glob("bomb*") if path.suffix != ".copy")
    assert len(bombs) == 15
    for path in bombs:
        memory_mib, seconds = cost(path)
        assert memory_mib < 512, path
        assert seconds <= 10, path


def test_a_declared_member_larger_than_memory_allows(tmp_path: Path, good: Files) -> None:
    data = bytearray(good.keras.read_bytes())
    place = data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, place + 24, 0xFFFFFFF0)
    (tmp_path / "model.keras").write_bytes(data)
    with pytest.raises(ModelFileError, match="would unpack to 4,29"):
        load_model(tmp_path / "model.keras")
