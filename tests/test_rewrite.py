"""Models as graphs, and copies of them with layers changed."""

import keras
import numpy as np
import pytest

from featherweight.errors import SettingError
from featherweight.models import blocks
from featherweight.models.functional import functional
from featherweight.rewrite import Graph, Then, check_names, free_name, models_inside, rebuilt


def two_paths() -> keras.Model:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(3, 1, name="a")(inputs)
    y = keras.layers.Conv2D(3, 1, name="b")(x)
    return keras.Model(inputs, keras.layers.Add(name="sum")([x, y]), name="two_paths")


def picture() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)


def test_a_graph_knows_who_makes_and_takes() -> None:
    model = two_paths()
    graph = Graph(model)
    a, b, total = (model.get_layer(name) for name in ("a", "b", "sum"))
    assert graph.maker(b.input) is a
    assert not graph.once(a.output)  # b and the sum
    assert graph.once(b.output)
    assert graph.taker(b.output) is total
    assert not graph.once(total.output)  # the model's
    assert graph.maker(keras.Input((3,))) is None


def test_a_copy_has_the_same_outputs_and_its_own_weights() -> None:
    model = two_paths()
    copy = rebuilt(model)
    np.testing.assert_allclose(np.asarray(copy(picture())), np.asarray(model(picture())), atol=1e-6)
    copy.get_layer("a").set_weights([np.zeros((1, 1, 3, 3)), np.zeros(3)])
    assert np.any(model.get_layer("a").get_weights()[0])


def test_layers_are_replaced_and_left_out() -> None:
    model = two_paths()
    pair = Then(keras.layers.Conv2D(5, 1, name="c"), keras.layers.Conv2D(3, 1, name="b"))
    ones = {"c": [np.ones((1, 1, 3, 5)), np.zeros(5)], "b": [np.ones((1, 1, 5, 3)), np.zeros(3)]}
    copy = rebuilt(model, replaced={"a": None, "b": pair}, weights=ones)
    x = picture()
    np.testing.assert_allclose(np.asarray(copy(x)), x + 5 * x.sum(axis=-1, keepdims=True), atol=1e-5)


def test_a_sequential_model_becomes_a_functional_one() -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 1)])
    np.testing.assert_allclose(np.asarray(functional(model)(picture())), np.asarray(model(picture())))
    with pytest.raises(SettingError, match="unbuilt has no input shape yet"):
        functional(keras.Sequential([keras.layers.Conv2D(2, 1)], name="unbuilt"))


def test_models_inside_of_layers_are_named() -> None:
    inputs = keras.Input((8, 8, 4))
    x = blocks.Block("fire", {"filters": 16}, name="own")(inputs)
    nested = keras.Sequential([keras.Input((8, 8, 16)), keras.layers.Conv2D(4, 1)], name="nested")
    assert list(models_inside(keras.Model(inputs, nested(x)))) == ["own", "nested"]


@pytest.mark.parametrize(("wanted", "found"), [("new", "new"), ("a", "a_2")])
def test_a_free_name_is_nobodys(wanted: str, found: str) -> None:
    assert free_name(two_paths(), wanted) == found


def test_unknown_names_are_refused() -> None:
    check_names(two_paths(), ["a", "sum"])
    with pytest.raises(SettingError, match="two_paths has no layer 'c'; wanted names of layers"):
        check_names(two_paths(), ["a", "c"])


def test_a_layer_that_is_used_twice_is_refused() -> None:
    inputs = keras.Input((4, 4, 3))
    layer = keras.layers.Conv2D(3, 1)
    with pytest.raises(SettingError, match="is used more than once; wanted layers that are used once"):
        Graph(keras.Model(inputs, layer(layer(inputs))))
