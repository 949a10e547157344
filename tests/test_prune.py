"""Removing channels: masked equals sliced for every network and criterion; groups worked out by hand; every refusal."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from featherweight import prune
from featherweight.analyze.costs import count, products
from featherweight.analyze.keras_reader import read_keras
from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.functional import flat
from featherweight.models.nets import NETS
from featherweight.models.zoo import Shape, build
from featherweight.prune.rules import trace
from featherweight.prune.slicing import masked_weights
from featherweight.prune.trace import Trace
from featherweight.train import set_seed

CRITERIA = tuple(prune.CRITERIA)


def alive(model: keras.Model) -> keras.Model:
    """Weights as they could be after training: no channel is like another, nothing is 0 or 1 by accident."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [rng.uniform(0.5, 1.5, w.shape) if i in (0, 3) else rng.normal(0, 0.3, w.shape)
                 for i, w in enumerate(layer.get_weights())]
            )  # fmt: skip
        elif layer.weights and not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([w + rng.normal(0, 0.05, w.shape) for w in layer.get_weights()])
    return model


def pictures(model: keras.Model, count: int = 4) -> prune.Pictures:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (count, *model.input_shape[1:]), np.uint8)
    return prune.Pictures(pixels, rng.integers(0, model.output_shape[-1], count))


def logits(model: keras.Model) -> keras.Model:
    """Without the softmax, which hides differences."""
    names = [layer.name for layer in model.layers]
    return keras.Model(model.inputs[0], model.get_layer("logits").output) if "logits" in names else model


def assert_masked_is_sliced(model: keras.Model, plan: prune.Plan) -> keras.Model:
    """The law: the smaller model answers as the old one with the removed channels' contributions zeroed."""
    before = [w.copy() for w in model.get_weights()]
    smaller, _ = prune.apply(model, plan)
    masked = flat(model)
    traced = trace(masked)
    gone = [np.zeros(0, np.int64)]
    for group in plan.groups:
        use = next(u for u in traced.uses.values() if u.role == "makes" and u.layer == group.layers[0])
        gone.append(traced.roots(use.channels[list(group.removed)]))
    for name, weights in masked_weights(masked, traced, traced.kept(np.concatenate(gone))).items():
        masked.get_layer(name).set_weights(weights)
    x = np.random.default_rng(2).uniform(0, 255, (3, *model.input_shape[1:])).astype(np.float32)
    wanted, found = np.asarray(logits(masked)(x)), np.asarray(logits(smaller)(x))
    assert wanted.shape == found.shape and np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1.0, float(np.abs(wanted).max())))
    assert not np.allclose(wanted, np.asarray(logits(model)(x)), atol=1e-6)  # what was removed did count
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert smaller.count_params() < model.count_params()
    return smaller


def macs(model: keras.Model) -> int:
    return sum(count for _, count in products(read_keras(model)))


# ----------------------------------------------------------------------------------------------------- the laws


def laws() -> list[Any]:
    """Every network with every criterion; each network with one of them in turn in the quick run."""
    # In eight groups, every channel of a ShuffleNet is tied to every other one.
    names = [name for name in NETS if name != "shufflenet_v1_g8"]
    return [
        pytest.param(name, criterion, marks=[] if (place + number) % len(CRITERIA) == 0 else pytest.mark.slow)
        for place, name in enumerate(names)
        for number, criterion in enumerate(CRITERIA)
    ]


@functools.lru_cache(maxsize=1)
def network(name: str) -> keras.Model:
    set_seed(0)
    return alive(build(Shape(name, {"hello": 1.0, "nasnet_mobile": 0.5}.get(name, 0.25), 32), 4))


@pytest.mark.parametrize(("name", "criterion"), laws())
def test_masked_equals_sliced_for_every_network_and_criterion(name: str, criterion: str) -> None:
    model = network(name)
    by_eights = CRITERIA.index(criterion) % 2  # half of them so, the others channel by channel to a target of MACs
    settings = prune.PruneSettings(criterion, ("global", "layer")[by_eights], multiple_of=(1, 8)[by_eights])
    # Shuffles and grouped convolutions tie so many channels that little can go.
    little = name.startswith("shufflenet_v1") and not by_eights
    target = prune.Target(("macs", "channels")[by_eights], 0.97 if little else 0.6)
    if criterion == "batch_norm" and not any(isinstance(layer, layers.BatchNormalization) for layer in model.layers):
        with pytest.raises(SettingError, match="batch_norm sees none of them"):
            prune.plan(model, target, settings)
        return
    plan = prune.plan(model, target, settings, pictures=pictures(model) if criterion == "taylor" else None)
    smaller = assert_masked_is_sliced(model, plan)
    assert plan.macs is not None
    assert (macs(model), macs(smaller)) == plan.macs
    assert by_eights or plan.macs[1] <= target.share * plan.macs[0]
    assert (count(model)[0], count(smaller)[0]) == plan.parameters


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2", "resnet20_cifar"])
def test_removing_nothing_gives_an_equal_model(name: str) -> None:
    model = alive(build(Shape(name, 0.25, 32), 4))
    same, step = prune.apply(model, prune.plan(model, prune.Target("macs", 1.0)))
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(same(x)))
    assert step.settings["channels"] == {}


def test_what_is_pruned_saves_loads_trains_and_exports(tmp_path: Path) -> None:
    from featherweight.export import About, export

    model = alive(build(Shape("mobilenet_v3_small", 0.35, 32), 3))
    smaller, step = prune.apply(model, prune.plan(model, prune.Target("macs", 0.5)))
    smaller.save(tmp_path / "smaller.keras")
    again = keras.saving.load_model(tmp_path / "smaller.keras")
    data = pictures(model, 8)
    x = data.pixels.astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(smaller(x)))
    about = About("smaller", ("a", "b", "c"), (step,))
    full = export(model, tmp_path / "full", "onnx", About("full", ("a", "b", "c"), ()), data.pixels)
    small = export(again, tmp_path / "small", "onnx", about, data.pixels)
    assert small.size_bytes < full.size_bytes and small.parameters == step.settings["parameters"][1]
    again.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    again.fit(x, data.truth, verbose=0)


# -------------------------------------------------------------------------------------------- groups, by hand


def net(body: Callable[[Any], Any], channels: int = 3, side: int = 8) -> keras.Model:
    """The body between a picture and two outputs, which stay."""
    image = keras.Input((side, side, channels), name="image")
    x = body(image)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return keras.Model(image, layers.Dense(2, name="logits")(x))


def groups_of(model: keras.Model, multiple_of: int = 1) -> list[tuple[tuple[str, ...], int]]:
    found = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=multiple_of))
    return [(group.layers, group.before) for group in found.groups]


def conv(filters: int, name: str, **settings: Any) -> layers.Layer:
    return layers.Conv2D(filters, settings.pop("kernel_size", 1), name=name, **settings)


def chain(x: Any) -> Any:
    x = layers.ReLU()(layers.BatchNormalization()(conv(8, "a", kernel_size=3)(x)))
    return conv(6, "b")(layers.DepthwiseConv2D(3, depth_multiplier=2)(layers.ZeroPadding2D()(layers.MaxPooling2D()(x))))


def added(x: Any) -> Any:
    y = conv(8, "a")(x)
    return layers.Add()([y, conv(8, "c")(conv(4, "b")(y))])


def stacked(x: Any) -> Any:
    y = conv(8, "a")(x)
    return conv(6, "c")(layers.Concatenate()([y, conv(4, "b")(y)]))


def gated(x: Any) -> Any:
    y = conv(8, "a", activation="relu")(x)
    gate = layers.Dense(8, "sigmoid", name="expand")(layers.Dense(2, "relu", name="reduce")(
        layers.GlobalAveragePooling2D()(y)))  # fmt: skip
    return layers.Multiply()([y, layers.Reshape((1, 1, 8))(gate)])


def grouped(x: Any) -> Any:
    return conv(12, "b", groups=3)(conv(6, "a")(x))


def shuffled(x: Any) -> Any:
    y = layers.Reshape((64, 2, 4))(conv(8, "a")(x))
    y = layers.Reshape((8, 8, 8))(layers.Permute((1, 3, 2))(y))
    return conv(4, "b", groups=2)(y)


def with_ops(x: Any) -> Any:
    y = ops.reshape(conv(8, "a")(x), (-1, 8, 8, 2, 4))
    y = ops.reshape(ops.transpose(y, (0, 1, 2, 4, 3)), (-1, 8, 8, 8))
    left, right = ops.split(y, 2, axis=-1)
    return ops.concatenate([ops.relu(left) * 2.0, right[..., 1:] + 1], axis=-1)


def flattened(x: Any) -> Any:
    return layers.Dense(5, name="dense")(layers.Flatten()(conv(8, "a")(x)))


def separable(x: Any) -> Any:
    return layers.SeparableConv2D(8, 3, name="b", depth_multiplier=2)(conv(6, "a")(x))


def transposed(x: Any) -> Any:
    return layers.Conv2DTranspose(6, 2, 2, name="b")(layers.PReLU(shared_axes=(1, 2))(conv(8, "a")(x)))


def depthwise_by_groups(x: Any) -> Any:
    return conv(16, "b", groups=8, kernel_size=3)(conv(8, "a")(x))


def shared(x: Any) -> Any:
    twice = conv(8, "b", kernel_size=3, padding="same")
    return twice(layers.ReLU()(twice(conv(8, "a")(x))))


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        (chain, [(("a",), 8), (("b",), 6)]),
        (added, [(("a", "c"), 8), (("b",), 4)]),
        (stacked, [(("a",), 8), (("b",), 4), (("c",), 6)]),
        (gated, [(("a", "expand"), 8), (("reduce",), 2)]),
        (grouped, [(("a",), 6), (("b",), 12)]),  # two places and four places in each of three groups
        (shuffled, [(("a",), 8), (("b",), 4)]),
        (flattened, [(("a",), 8), (("dense",), 5)]),
        (separable, [(("a",), 6), (("b",), 8)]),
        (transposed, [(("a",), 8), (("b",), 6)]),
        (depthwise_by_groups, [(("a",), 8)]),
        (shared, [(("a", "b"), 8)]),
    ],
)
def test_groups_by_hand(body: Callable[[Any], Any], groups: list[tuple[tuple[str, ...], int]]) -> None:
    model = alive(net(body))
    assert groups_of(model) == groups
    plan = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=1))
    smaller = assert_masked_is_sliced(model, plan)
    assert macs(smaller) == plan.macs[1] if plan.macs else False


def test_operations_on_tensors_are_followed() -> None:
    """Split, slices and shuffles written with `keras.ops`: half of the channels, the cut places move along."""
    model = alive(net(with_ops))
    plan = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=1))
    assert [(group.layers, group.before, group.after) for group in plan.groups] == [(("a",), 8, 4)]
    assert_masked_is_sliced(model, plan)


def test_ties_of_groups_by_hand() -> None:
    """Six channels in three groups of two: 0, 2, 4 go together, and 1, 3, 5."""
    traced = trace(net(grouped))
    made = next(use.channels for use in traced.uses.values() if use.layer == "a" and use.role == "makes")
    roots = traced.roots(made)
    assert roots[0] == roots[2] == roots[4] != roots[1] == roots[3] == roots[5]


def test_the_smallest_filters_go() -> None:
    """L1 by hand: filters of sums 4, 1, 3, 2; half of them stay, the first and the third."""
    model = net(lambda x: layers.ReLU()(conv(4, "a", use_bias=False)(x)), channels=1)
    model.get_layer("a").set_weights([np.array([[[[4.0, -1.0, 3.0, -2.0]]]])])
    settings = prune.PruneSettings(multiple_of=1)
    plan = prune.plan(model, prune.Target("channels", 0.5), settings)
    assert plan.groups[0].removed == (1, 3)
    # 64 places × 4 filters, and 4 × 2 in the dense layer; parameters 4 + 4 · 2 + 2
    assert plan.macs == (64 * 4 + 8, 64 * 2 + 4)
    assert plan.parameters == (14, 8)


def test_coupled_members_are_added_up_by_hand() -> None:
    """a has 1, 3 (mean 2), c has 9, 1 (mean 5): 1/2 + 9/5 = 2.3 against 3/2 + 1/5 = 1.7, so that the second goes."""

    def body(x: Any) -> Any:
        y = conv(2, "a", use_bias=False)(x)
        return layers.Add()([y, conv(2, "c", use_bias=False)(layers.ReLU()(conv(1, "b", use_bias=False)(y)))])

    model = net(body, channels=1)
    model.get_layer("a").set_weights([np.array([[[[1.0, 3.0]]]])])
    model.get_layer("c").set_weights([np.array([[[[9.0, 1.0]]]])])
    plan = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=1))
    assert next(group for group in plan.groups if group.layers == ("a", "c")).removed == (1,)


def test_global_takes_where_it_matters_least() -> None:
    """Scores over their group's mean: a has 0.1, 0.1, 1.9, 1.9, b has four of 1; half of all: both weak ones of a, and
    two of b (ties stay by order).
    """

    def body(x: Any) -> Any:
        return conv(4, "b", use_bias=False)(layers.ReLU()(conv(4, "a", use_bias=False)(x)))

    model = net(body, channels=1)
    model.get_layer("a").set_weights([np.array([[[[1.0, 1.0, 19.0, 19.0]]]])])
    model.get_layer("b").set_weights([np.ones((1, 1, 4, 4))])
    found = prune.plan(model, prune.Target("channels", 0.75), prune.PruneSettings(scope="global", multiple_of=1))
    assert [group.removed for group in found.groups] == [(0, 1), ()]


def test_channels_are_kept_by_eights() -> None:
    model = net(lambda x: conv(40, "b")(conv(24, "a")(x)))
    plan = prune.plan(model, prune.Target("channels", 0.5))
    assert [(group.before, group.after) for group in plan.groups] == [(24, 16), (40, 16)]
    few = net(lambda x: conv(40, "b")(conv(6, "a")(x)))  # fewer than eight stay as they are
    assert prune.plan(few, prune.Target("channels", 0.5)).groups[0].after == 6


def test_taylor_finds_what_the_loss_needs() -> None:
    """Channel 1 is what the answer is made of; channel 0 has the larger filter and goes nowhere."""
    model = net(conv(2, "a", use_bias=False), channels=1)
    model.get_layer("a").set_weights([np.array([[[[5.0, 0.1]]]])])
    model.get_layer("logits").set_weights([np.array([[0.0, 0.0], [1.0, -1.0]]), np.zeros(2)])
    probabilities = keras.Model(model.input, layers.Softmax()(model.output))
    data = pictures(probabilities)
    plans = {
        criterion: prune.plan(
            probabilities, prune.Target("channels", 0.5), prune.PruneSettings(criterion, multiple_of=1), pictures=data
        )
        for criterion in ("l1", "taylor")
    }
    assert plans["l1"].groups[0].removed == (1,)
    assert plans["taylor"].groups[0].removed == (0,)


def test_unknown_layers_keep_their_channels_and_the_plan_says_so() -> None:
    class Reverse(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x[..., ::-1]

    model = alive(net(lambda x: conv(6, "c")(Reverse(name="mine")(conv(8, "b")(conv(8, "a")(x))))))
    plan = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=1))
    assert [group.layers for group in plan.groups] == [("a",), ("c",)]
    assert dict(plan.fixed)["b"] == "mine (Reverse) may mix channels in a way that is not known"
    assert dict(plan.fixed)["logits"] == "the model's output"
    assert "mine (Reverse)" in str(plan)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.LayerNormalization(name="n"), "n (LayerNormalization) looks at all channels"),
        (layers.Activation("softmax", name="n"), "softmax in n looks at all channels"),
        (layers.Rescaling([1.0] * 8, name="n"), "n scales each channel by a number of its own"),
        (layers.BatchNormalization(axis=1, name="n"), "n reads channels that do not lie along the last axis alone"),
    ],
)
def test_what_looks_at_all_channels_keeps_them(layer: layers.Layer, reason: str) -> None:
    model = net(lambda x: conv(4, "c")(conv(4, "b")(layer(conv(8, "a")(x)))))
    found = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=1))
    assert dict(found.fixed)["a"] == reason
    assert_masked_is_sliced(model, found)


def test_channels_along_another_axis_are_left_alone() -> None:
    model = net(lambda x: conv(4, "c")(conv(4, "b")(layers.Permute((3, 1, 2))(conv(8, "a")(x)))))
    found = prune.plan(model, prune.Target("channels", 0.5), prune.PruneSettings(multiple_of=1))
    assert dict(found.fixed)["a"] == "b reads channels that do not lie along the last axis alone"
    assert [group.layers for group in found.groups] == [("c",)]


# ------------------------------------------------------------------------------------- nested models, other forms


def test_nested_models_and_blocks_are_looked_into() -> None:
    from featherweight.models.blocks import Block

    inner = keras.Sequential([keras.Input((8, 8, 8)), conv(8, "a"), layers.BatchNormalization()], name="inner")
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), conv(8, "a"), inner, Block("inverted_residual", {"filters": 16, "expand": 2}),
         layers.GlobalAveragePooling2D(), layers.Dense(2, name="logits")]
    )  # fmt: skip
    alive(model)
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(flat(model)(x)), np.asarray(model(x)), atol=1e-4)
    names = [layer.name for layer in flat(model).layers]
    assert {"a", "inner_a"} <= set(names)
    assert_masked_is_sliced(model, prune.plan(model, prune.Target("macs", 0.6), prune.PruneSettings(multiple_of=1)))


def test_a_width_multiplier_keeps_the_best_channels() -> None:
    for name in ("mobilenet_v2", "resnet20_cifar"):
        wide = alive(build(Shape(name, 1.0, 32), 4))
        narrow, step = prune.narrowed(wide, Shape(name, 0.5, 32))
        wanted = build(Shape(name, 0.5, 32), 4)
        assert [w.shape for w in narrow.get_weights()] == [w.shape for w in wanted.get_weights()]
        assert step.name == "narrow"
        assert step.settings["width"] == 0.5
    # ShuffleNet's channels are tied across its shuffles: other widths tie others
    with pytest.raises(SettingError, match=r"cannot have .* channels beside the others"):
        prune.narrowed(build(Shape("shufflenet_v2", 1.0, 32), 4), Shape("shufflenet_v2", 0.5, 32))


# ------------------------------------------------------------------------------------------- plans and targets


def small() -> keras.Model:
    return alive(net(lambda x: conv(16, "b")(layers.ReLU()(conv(16, "a")(x)))))


def test_a_plan_is_plain_data() -> None:
    plan = prune.plan(small(), prune.Target("macs", 0.5))
    assert prune.Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    text = str(plan)
    assert "16 → 8" in text and "logits stays: the model's output" in text
    with pytest.raises(SettingError, match="no plan: KeyError"):
        prune.Plan.from_dict({"model": "x"})


def test_the_plan_predicts_time_by_the_roofline() -> None:
    from featherweight.analyze.roofline import Machine

    machine = Machine("test", "test", 1, 1e9, ((2**30, 1e9),), "")
    plan = prune.plan(small(), prune.Target("macs", 0.5), machine=machine)
    assert plan.least_us is not None and plan.least_us[1] < plan.least_us[0]
    assert plan.groups[0].least_us is not None and "ms" in str(plan)


def test_latency_is_a_target_by_a_function() -> None:
    """Here the time is the number of parameters."""
    timed = lambda model: float(model.count_params())  # noqa: E731
    plan = prune.plan(small(), prune.Target("latency", 0.6), timed=timed)
    assert plan.parameters[1] <= 0.6 * plan.parameters[0]


def test_parameters_are_a_target() -> None:
    plan = prune.plan(small(), prune.Target.read("parameters=0.6"))
    assert plan.parameters[1] <= 0.6 * plan.parameters[0]


def test_gradually_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    calls = []

    def tuned(model: keras.Model) -> tuple[keras.Model, Step]:
        calls.append(model.count_params())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return model, Step("train", {})

    model = alive(net(lambda x: conv(64, "b")(layers.ReLU()(conv(64, "a")(x)))))
    target = prune.Target("macs", 0.25)
    with pytest.raises(KeyboardInterrupt):
        prune.gradually(model, target, 2, tuned, tmp_path)
    smaller, step = prune.gradually(model, target, 2, tuned, tmp_path)
    assert len(calls) == 3 and calls[1] == calls[2]  # the first training was not repeated
    assert macs(smaller) <= 0.25 * macs(model)
    assert [done["step"] for done in step.settings["steps"]] == ["prune", "train", "prune", "train"]
    with pytest.raises(SettingError, match="is of other settings"):
        prune.gradually(model, prune.Target("macs", 0.5), 2, tuned, tmp_path)
    with pytest.raises(SettingError, match="is of other settings"):
        prune.gradually(model, target, 3, tuned, tmp_path)
    with pytest.raises(SettingError, match="0 steps"):
        prune.gradually(model, target, 0, tuned, tmp_path)


def test_gradually_reaches_its_target_though_each_step_is_rounded(tmp_path: Path) -> None:
    """0.5^(1/8) of 32 channels is 29.3, of which the nearest multiple of eight is 32 again."""
    model = alive(net(lambda x: conv(32, "b")(conv(32, "a")(x))))
    target = prune.Target("channels", 0.5)
    smaller, step = prune.gradually(model, target, 8, lambda one: (one, Step("train", {})), tmp_path)
    assert smaller.get_layer("a").filters == smaller.get_layer("b").filters == 16
    assert step.settings["steps"][-2]["left"] == pytest.approx(0.5)


# --------------------------------------------------------------------------------------------------- refusals


def test_no_group_to_prune() -> None:
    with pytest.raises(SettingError, match=r"no channels that can go: logits: the model's output"):
        prune.plan(net(lambda x: x), prune.Target("macs", 0.5))


def test_a_sequential_that_was_never_built() -> None:
    with pytest.raises(SettingError, match="has no input shape yet"):
        prune.plan(keras.Sequential([layers.Dense(4)]), prune.Target("macs", 0.5))


def test_a_model_with_a_call_of_its_own() -> None:
    class Mine(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(SettingError, match=r"call\(\) of its own"):
        prune.plan(Mine(), prune.Target("macs", 0.5))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: prune.Target("macs", 0.0), "a share of 0 of the macs"),
        (lambda: prune.Target("speed", 0.5), "unknown target 'speed'"),
        (lambda: prune.Target.read("macs"), "target 'macs'; wanted a quantity and a share"),
        (lambda: prune.PruneSettings("l3"), "unknown criterion 'l3'"),
        (lambda: prune.PruneSettings(scope="all"), "unknown scope 'all'"),
        (lambda: prune.PruneSettings(multiple_of=0), "multiples of 0 channels"),
        (lambda: prune.PruneSettings(least=2), "at least a share of 2"),
        (lambda: prune.PruneSettings(seed=-1), "seed -1; wanted 0 or more"),
        (lambda: prune.Pictures(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(3)), "as many of both"),
        (lambda: prune.plan(small(), prune.Target("macs", 0.01)), "at least 0."),
        (lambda: prune.plan(small(), prune.Target("latency", 0.5)), "wanted a function"),
        (lambda: prune.plan(small(), prune.Target("macs", 0.5), prune.PruneSettings("taylor")), "wants pictures"),
        (
            lambda: prune.plan(
                small(),
                prune.Target("macs", 0.5),
                prune.PruneSettings("taylor"),
                pictures=prune.Pictures(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2)),
            ),
            r"pictures \(4, 4, 3\); wanted \(8, 8, 3\)",
        ),
        (lambda: prune.narrowed(small(), Shape("mobilenet_v2", 0.5, 32)), "the narrower model has no layer"),
    ],
)
def test_refusals(make: Callable[[], object], text: str) -> None:
    with pytest.raises(SettingError, match=text):
        make()


def test_open_input_sizes_have_no_macs() -> None:
    image = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(conv(16, "b")(conv(16, "a")(image)))
    model = keras.Model(image, layers.Dense(2)(x))
    with pytest.raises(SettingError, match="leaves its input size open"):
        prune.plan(model, prune.Target("macs", 0.5))
    plan = prune.plan(model, prune.Target("channels", 0.5))
    assert plan.macs is None and [group.after for group in plan.groups] == [8, 8]


def changed(plan: prune.Plan, **group: Any) -> prune.Plan:
    values = plan.as_dict()
    values["groups"][0].update(group)
    return prune.Plan.from_dict(values)


def test_a_plan_that_does_not_fit_is_refused() -> None:
    model = small()
    plan = prune.plan(model, prune.Target("macs", 0.5))
    for wrong, text in (
        (changed(plan, layers=["z"]), "the plan names z"),
        (changed(plan, removed=[99]), "takes channel 99 of a, which has 16"),
        (changed(plan, removed=list(range(16))), "all channels of a"),
        (changed(plan, layers=["logits"], removed=[0]), "must stay: the model's output"),
    ):
        with pytest.raises(SettingError, match=text):
            prune.apply(model, wrong)


def test_trees_of_ties() -> None:
    traced = Trace()
    a, b, c = traced.new(2), traced.new(2), traced.new(1)
    traced.tie(a, b)
    traced.tie(b[:1], c)
    assert traced.roots(c)[0] == traced.roots(a)[0] != traced.roots(a)[1] == traced.roots(b)[1]
