"""Unstructured pruning: exactly the weights nearest to 0; files pack better and are no smaller."""

import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.errors import ArtifactError, SettingError
from featherweight.models import blocks, zoo
from featherweight.models.copying import every_layer
from featherweight.sparsify import compressed_bytes, sparsify
from tests.make import MODEL, make_artifact


def network(name: str = "squeezenet_1_1") -> keras.Model:
    return zoo.build(zoo.Shape(name, 0.35, 32), 5)


def dense_model() -> keras.Model:
    """Kernels 1 … 4 and 10 … 40 between two that are spared."""
    model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2, name=name) for name in "abcd")])
    for name, size in zip("abcd", (1, 1, 10, 1), strict=True):
        model.get_layer(name).set_weights([size * np.array([[1.0, -2], [3, -4]]), size * np.array([0.5, 5])])
    return model


def kernels(model: keras.Model) -> dict[str, list[float]]:
    return {layer.name: layer.get_weights()[0].ravel().tolist() for layer in model.layers}


def test_one_threshold_for_all() -> None:
    """Half of the eight between the spared ends: all of b."""
    model = dense_model()
    thin, step = sparsify(model, 0.5)
    assert kernels(thin) == {"a": [1, -2, 3, -4], "b": [0, 0, 0, 0], "c": [10, -20, 30, -40], "d": [1, -2, 3, -4]}
    assert step.skipped == (("a", "the first layer with a kernel"), ("d", "the last layer with a kernel"))
    assert (step.settings["zeros"], step.settings["looked_at"], step.settings["weights"]) == (4, 8, 24)
    assert "dense kernels compute with zeros as fast" in step.settings["note"]
    assert kernels(model)["b"] == [1, -2, 3, -4]


def test_each_layer_the_same_share() -> None:
    thin, _ = sparsify(dense_model(), 0.5, "layer", spare=["c"])
    assert kernels(thin) == {"a": [0, 0, 3, -4], "b": [0, 0, 3, -4], "c": [10, -20, 30, -40], "d": [0, 0, 3, -4]}


def test_biases_are_spared_unless_asked_for() -> None:
    thin, step = sparsify(dense_model(), 0.25, parts=("kernels", "biases"))
    assert thin.get_layer("b").get_weights()[1].tolist() == [0, 5]  # 0.5, 1 and 2 are the smallest of twelve
    assert kernels(thin)["b"] == [0, 0, 3, -4]
    assert step.settings["looked_at"] == 12
    thin, _ = sparsify(dense_model(), 0.25, parts=("biases",))
    assert kernels(thin) == kernels(dense_model())


def test_factors_of_norms_are_spared_unless_asked_for() -> None:
    model = network("resnet20_cifar")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    thin, _ = sparsify(model, 0.9)
    assert all(thin.get_layer(layer.name).gamma.numpy().all() for layer in norms)
    thin, step = sparsify(model, 0.5, parts=("norms",))
    assert step.settings["looked_at"] == sum(2 * layer.gamma.shape[0] for layer in norms)
    assert not any(thin.get_layer(layer.name).beta.numpy().any() for layer in norms)  # which are 0 anyway


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "squeezenet_1_1"])
def test_networks_have_as_many_zeros_as_asked_for(name: str, scope: str) -> None:
    model = network(name)
    thin, step = sparsify(model, 0.8, scope)
    found = [w for layer in thin.layers if layer.name not in dict(step.skipped) for w in layer.weights
             if w.name == "kernel"]  # fmt: skip
    zeros, total = (sum(int(f(w.numpy())) for w in found) for f in (lambda w: np.sum(w == 0), np.size))
    assert (zeros, total) == (step.settings["zeros"], step.settings["looked_at"])
    assert zeros == pytest.approx(0.8 * total, abs=len(found))
    left = np.concatenate([w.numpy().ravel() for w in found])
    if scope == "global":
        whole = np.concatenate([model.get_layer(layer.name).kernel.numpy().ravel() for layer in thin.layers
                                if any(w is v for w in found for v in layer.weights)])  # fmt: skip
        assert np.abs(whole[left == 0]).max() <= np.abs(left[left != 0]).min()


def test_models_inside_of_layers_are_thinned_too(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(4, 1, name="first")(inputs)
    x = blocks.Block("fire", {"filters": 16}, name="own")(x)
    layer = keras.layers.Conv2D(16, 1, name="twice")
    nested = keras.Sequential([keras.Input((8, 8, 16)), keras.layers.Conv2D(4, 1, name="inside")], name="nested")
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(nested(layer(layer(x)))))
    thin, _ = sparsify(model, 0.5, "layer")
    shares = {one.name: float(np.mean(one.kernel.numpy() == 0)) for one in every_layer(thin) if one.weights
              and one.name not in ("own", "nested")}  # fmt: skip
    assert {name: shares[name] for name in ("first", "twice", "inside", "last")} == {
        "first": 0, "twice": 0.5, "inside": 0.5, "last": 0,
    }  # fmt: skip
    assert sum(share == 0.5 for share in shares.values()) == 5  # and three in the block
    thin.save(tmp_path / "thin.keras")
    saved = keras.saving.load_model(tmp_path / "thin.keras")
    assert all(np.array_equal(a, b) for a, b in zip(saved.get_weights(), thin.get_weights(), strict=True))


def test_nothing_changes_at_a_share_of_zero() -> None:
    model = network()
    thin, step = sparsify(model, 0)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), thin.get_weights(), strict=True))
    assert step.settings["zeros"] == 0


def test_the_file_packs_better_and_is_no_smaller(tmp_path: Path) -> None:
    model, sizes = network(), []
    for share in (0, 0.5, 0.9):
        path = tmp_path / f"{share}.keras"
        sparsify(model, share)[0].save(path)
        assert compressed_bytes(path) == len(zlib.compress(path.read_bytes(), 9))
        sizes.append((path.stat().st_size, compressed_bytes(path)))
    stored, packed = zip(*sizes, strict=True)
    assert max(stored) - min(stored) < 2048
    assert packed[1] < 0.8 * packed[0]
    assert packed[2] < 0.6 * packed[0]


def test_an_artifacts_model_file_is_packed_alone(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "model")
    assert compressed_bytes(artifact.path) == compressed_bytes(artifact.model_path) == len(zlib.compress(MODEL, 9))
    for nothing in (tmp_path / "none", tmp_path):
        with pytest.raises(ArtifactError):
            compressed_bytes(nothing)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"share": 1.0}, "share 1; wanted at least 0 and under 1"),
        ({"share": -0.1}, "share -0.1; wanted at least 0 and under 1"),
        ({"share": 0.5, "scope": "group"}, "scope 'group'; wanted global or layer"),
        ({"share": 0.5, "parts": ("weights",)}, "parts weights; known: kernels, biases, norms"),
        ({"share": 0.5, "parts": ()}, "parts none; known: kernels, biases, norms"),
        ({"share": 0.5, "spare": ["x"]}, "has no layer 'x'; wanted names of layers"),
        ({"share": 0.5, "spare": list("abcd")}, "has no kernels outside of the spared layers"),
    ],
)
def test_bad_requests_are_refused_in_one_line(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        sparsify(dense_model(), **settings)


def test_a_model_that_was_never_built_is_refused() -> None:
    with pytest.raises(SettingError, match="wanted a built model with some"):
        sparsify(keras.Sequential([keras.layers.Dense(2)]), 0.5)
