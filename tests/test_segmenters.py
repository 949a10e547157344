"""Segmenters as models: shapes, costs, where the picture lies; every transform, held against arithmetic done here."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import pytest

from featherweight import cli, prune
from featherweight.analyze import analyze, count
from featherweight.analyze.costs import folded_totals, products
from featherweight.analyze.graph import UNKNOWN
from featherweight.analyze.keras_reader import read_keras
from featherweight.analyze.onnx_reader import read_onnx
from featherweight.equalize import equalize
from featherweight.errors import SettingError, WeightsError
from featherweight.export import export, onnx_bytes
from featherweight.factorize import Energy, factorize
from featherweight.fold import fold
from featherweight.models.heads import count_of_model, task_of_model
from featherweight.models.load import load_model
from featherweight.models.nets import NETS
from featherweight.models.segmenters import PREFIX, SEGMENTERS, Decoder, segmenter
from featherweight.models.zoo import Shape, build
from featherweight.quantize import quantize
from featherweight.runtimes import RUNTIMES
from featherweight.runtimes.settings import Settings
from featherweight.search import SearchSettings, candidates
from featherweight.separate import SeparateSettings, separate
from featherweight.sparsify import sparsify
from featherweight.train import set_seed
from featherweight.training import about_of, names_of
from tests.test_prune import alive, assert_masked_is_sliced

LIGHT = Shape("mobilenet_v1", 0.25, 44)
SMALL = Decoder(width=8, strides=(1, 2, 4, 8))
MAKERS: dict[str, Callable[[int], keras.Model]] = {
    "unet_mini": lambda size: segmenter(Shape("unet_mini", 0.25, size), 2),
    "unet": lambda size: segmenter(replace(LIGHT, size=size), 3, decoder=SMALL),
    "plain": lambda size: segmenter(replace(LIGHT, size=size), 2, decoder=replace(SMALL, separable=False, blocks=2)),
    "lraspp": lambda size: segmenter(replace(LIGHT, size=size), 3, decoder=Decoder("lraspp", 16, strides=(2, 8))),
    "fast_scnn": lambda size: segmenter(Shape("fast_scnn", 0.25, size), 4),
}
SIZES = {"unet_mini": 33, "unet": 44, "plain": 48, "lraspp": 50, "fast_scnn": 63}
CLASSES = {"unet_mini": 1, "unet": 3, "plain": 1, "lraspp": 3, "fast_scnn": 4}


@pytest.fixture(
    scope="module", params=["unet_mini", "unet", "lraspp", "fast_scnn", pytest.param("plain", marks=pytest.mark.slow)]
)
def model(request: pytest.FixtureRequest) -> keras.Model:
    """Each form once, with weights that no channel is indifferent to; only `plain` needs no padding."""
    set_seed(0)
    made = alive(MAKERS[request.param](SIZES[request.param]))
    made.name = request.param
    return made


def pictures(count: int, size: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def answers(model: Any, given: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(given.astype(np.float32)))


def logits(model: Any, given: np.ndarray) -> np.ndarray:
    return answers(keras.Model(model.inputs[0], model.layers[-1].input), given)


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


# --------------------------------------------------------------------------------------------------------- models


def test_each_pixel_gets_probabilities(model: keras.Model) -> None:
    size, channels = SIZES[model.name], CLASSES[model.name]
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, size, size, channels)
    found = answers(model, pictures(2, size))
    assert found.min() >= 0
    assert found.max() <= 1
    if channels > 1:
        assert found.sum(-1) == pytest.approx(1, abs=1e-5)
    assert found.std(axis=(1, 2)).min() > 0  # pixels differ
    last = model.get_layer("logits")
    assert isinstance(last, keras.layers.Conv2D)
    assert last.filters == channels
    assert task_of_model(model) == "segment"
    assert count_of_model(model) == max(2, channels)
    assert names_of(model) == tuple(f"class {i}" for i in range(max(2, channels)))
    about = about_of(model, "mine", names_of(model), ())
    assert (about.task, about.resize, about.decoding) == ("segment", "stretch", None)


@pytest.mark.parametrize(("name", "multiple"), [("unet_mini", 2), ("unet", 8), ("lraspp", 8), ("fast_scnn", 32)])
def test_a_size_that_strides_do_not_divide_is_the_middle_of_a_black_square(name: str, multiple: int) -> None:
    size = SIZES[name]
    side = -(-size // multiple) * multiple
    before = (side - size) // 2
    odd, even = alive(MAKERS[name](size)), MAKERS[name](side)
    even.set_weights(odd.get_weights())
    given = pictures(2, size)
    square = np.zeros((2, side, side, 3), np.uint8)
    square[:, before : before + size, before : before + size] = given
    wanted = answers(even, square)[:, before : before + size, before : before + size]
    close(answers(odd, given), wanted)


@pytest.mark.parametrize(
    ("net", "excess"),
    [("squeezenet_1_0", 5), ("squeezenet_1_1", 1), pytest.param("nasnet_mobile", 1, marks=pytest.mark.slow)],
)
def test_trunks_without_padding_get_the_pixels_that_they_lose(net: str, excess: int) -> None:
    made = segmenter(Shape(net, 1.0, 48), 2, decoder=Decoder(width=4, strides=(1, 2, 4)))
    assert made.output_shape == (None, 48, 48, 1)
    assert made.get_layer("pad").padding == ((excess // 2, excess - excess // 2),) * 2
    assert made.get_layer("decode2_joined").output.shape[1:3] == (24, 24)
    assert made.get_layer("decode1_cut").output.shape[1:3] == (48, 48)
    assert "crop" not in [layer.name for layer in made.layers]


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [32, 70])
def test_every_network_is_a_trunk(net: str, size: int) -> None:
    made = segmenter(Shape(net, NETS[net].widths[0], size), 3)
    assert made.output_shape == (None, size, size, 3)


def test_small_pictures_are_seen_by_smaller_strides() -> None:
    made = segmenter(Shape("mobilenet_v1", 0.25, 32), 2, decoder=Decoder(width=8, strides=(1, 2, 16)))
    assert made.get_layer("decode1_joined").output.shape[1:] == (32, 32, 32 + 4)  # the trunk has a map of stride 1
    assert made.output_shape == (None, 32, 32, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_inputs_of_other_channels(channels: int) -> None:
    for shape, decoder in ((Shape("unet_mini", 0.25, 32), None), (LIGHT, SMALL)):
        made = segmenter(shape, 2, decoder=decoder, channels=channels)
        assert made.input_shape[-1] == channels
        assert answers(made, pictures(1, shape.size, channels)).shape == (1, shape.size, shape.size, 1)


def test_the_tutorials_unet_costs_what_its_layers_cost() -> None:
    made = segmenter(Shape("unet_mini", 1, 64), 2)
    fine, coarse = 64 * 64, 32 * 32
    wanted = fine * 9 * 3 * 32 + coarse * 9 * 32 * 64 + fine * 9 * (32 + 64) * 32 + fine * 32
    weights = 9 * 3 * 32 + 32 + 9 * 32 * 64 + 64 + 9 * 96 * 32 + 32 + 32 + 1
    assert count(made) == (weights, wanted)
    thrice = segmenter(Shape("unet_mini", 1, 64), 3)
    assert count(thrice) == (weights + 2 * 33, wanted + 2 * fine * 32)


def test_a_decoder_costs_what_its_blocks_cost() -> None:
    made = segmenter(Shape("mobilenet_v1", 0.25, 64), 2, decoder=Decoder(width=8, strides=(1, 2, 4, 16)))
    rows = {row.name: row.macs for row in analyze(made).rows if row.name.startswith((PREFIX, "logits"))}
    trunk = {2: 16, 4: 32, 16: 128}
    wanted = 16 * trunk[16] * 16  # to the 16 channels of stride 4
    for stride, joined, filters in ((4, 32 + 16, 16), (2, 16 + 16, 8), (1, 3 + 8, 4)):
        wanted += (64 // stride) ** 2 * (9 * joined + joined * filters)
    wanted += 64 * 64 * 4
    assert sum(value or 0 for value in rows.values()) == wanted
    assert made.get_layer("decode4_spread").size == (4, 4)


def test_lraspp_weighs_a_coarse_map_by_its_mean() -> None:
    made = alive(segmenter(Shape("mobilenet_v1", 0.25, 64), 2, decoder=Decoder("lraspp", 16)))
    given = pictures(1, 64).astype(np.float32)

    def of(name: str) -> np.ndarray:
        return np.asarray(keras.Model(made.inputs[0], made.get_layer(name).output)(given))

    context, coarse = of("decode_context_relu6"), made.get_layer("decode_mean").input
    mean = np.asarray(keras.Model(made.inputs[0], coarse)(given)).mean(axis=(1, 2))
    kernel, bias = made.get_layer("decode_gate").get_weights()
    gate = 1 / (1 + np.exp(-(mean @ kernel[0, 0] + bias)))
    weighed = (context * gate[:, None, None]).repeat(4, 1).repeat(4, 2)
    fine = of("conv_pw_5_relu")
    kernel, bias = made.get_layer("logits").get_weights()
    close(of("logits"), np.concatenate([fine, weighed], -1) @ kernel[0, 0] + bias)
    assert made.get_layer("spread").size == (8, 8)


def test_two_branches_meet_at_stride_8() -> None:
    made = segmenter(Shape("fast_scnn", 1, 96), 2)
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in made.layers}
    assert shapes["decode_detail2_pointwise_relu6"] == (12, 12, 64)
    assert shapes["decode_deep8_add"] == (3, 3, 128)
    assert shapes["decode_pool1"] == (1, 1, 128)  # 3 cells have no half
    assert "decode_pool2" not in shapes
    assert shapes["decode_pools"] == (3, 3, 128 + 32)
    assert shapes["decode_add"] == (12, 12, 128)


def test_weights_of_a_trunk_are_taken(tmp_path: Path) -> None:
    from featherweight.models.zoo import reference

    set_seed(1)
    source = alive(reference(NETS["mobilenet_v1"], 0.25, 64))
    source.save_weights(file := tmp_path / "trunk.weights.h5")
    made = segmenter(LIGHT, 3, str(file), SMALL)
    for name in ("conv1", "conv_dw_5", "conv_pw_5_bn"):
        for mine, theirs in zip(made.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True):
            assert np.array_equal(mine, theirs)
    with pytest.raises(WeightsError, match="nobody has published weights of unet_mini"):
        segmenter(Shape("unet_mini", 1, 64), 2, "imagenet")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: segmenter(LIGHT, 1), "1 classes; wanted at least 2"),
        (lambda: segmenter(LIGHT, 2, channels=2), "2 input channels"),
        (lambda: segmenter(Shape("unet_mini", 1, 64), 2, decoder=SMALL), "a decoder for unet_mini, which has its own"),
        (
            lambda: segmenter(Shape("resnet20_cifar", 0.25, 64), 2, decoder=Decoder(strides=(2, 8))),
            "no map of stride 8",
        ),
        (lambda: segmenter(LIGHT, 2, decoder=Decoder("lraspp", strides=(1, 8))), "no map of stride 1; it has: 2, 4"),
        (lambda: segmenter(LIGHT, 2, decoder=Decoder(strides=(1,))), "no map of stride 1; it has: 2, 4"),
        (lambda: build(Shape("fast_scnn", 1, 64), 2), "fast_scnn is whole and answers for each pixel; wanted a trunk"),
        (lambda: Shape("unet", 1, 64), "unknown model 'unet'; known: hello, .*, unet_mini"),
        (lambda: Decoder("fpn"), "unknown decoder 'fpn'; known: unet, lraspp"),
        (lambda: Decoder(width=2), "decoder of 2 channels"),
        (lambda: Decoder(blocks=5), "5 blocks on a map"),
        (lambda: Decoder(strides=(4, 2)), "from fine to coarse"),
        (lambda: Decoder(strides=(3,)), "wanted some of"),
        (lambda: Decoder("lraspp", strides=(8,)), "wanted two"),
    ],
)
def test_what_cannot_be_built(make: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        make()


def test_the_task_is_in_a_models_end() -> None:
    image = keras.Input((8, 8, 3))
    assert task_of_model(build(Shape("mobilenet_v1", 0.25, 32), 2)) == "classify"
    assert task_of_model(keras.Model(image, keras.layers.Conv2D(5, 8)(image))) == "classify"  # one place
    two = keras.Model(image, [keras.layers.Conv2D(2, 1)(image), keras.layers.Conv2D(2, 1)(image)])
    assert task_of_model(two) == "classify"


# --------------------------------------------------------------------------------------------------------- listing


def variants(mark: bool) -> list[Any]:
    """Every variant; in the quick run the narrowest of each row."""
    return [
        pytest.param(row.name, size, marks=[] if place == 0 or not mark else pytest.mark.slow)
        for row in SEGMENTERS.values()
        for place, size in enumerate(row.published)
    ]


@pytest.mark.parametrize(("name", "row"), variants(mark=True))
def test_the_listed_counts_are_those_of_the_model(name: str, row: Any) -> None:
    made = segmenter(Shape(name, row.width, row.size), 2)
    trained = sum(math.prod(weight.shape) for weight in made.trainable_weights)
    assert (trained, count(made)[1]) == (row.parameters, row.macs)


def test_the_list_has_the_segmenters(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in SEGMENTERS.values():
        for size in row.published:
            line = next(x for x in lines if x.split()[:2] == [row.name, f"{size.width:g}"])
            assert f"{size.parameters / 1e6:.2f} M" in line
            assert row.source in line
            assert " segment " in line


@pytest.mark.parametrize("name", SEGMENTERS)
def test_each_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = SEGMENTERS[name]
    assert cli.main(["models", name]) == 0
    text = capsys.readouterr().out
    for part in (row.what, row.source, row.note, f"trunk: {row.trunk}" if row.trunk else ""):
        assert part in text


def test_one_is_analyzed_by_its_name() -> None:
    found = analyze("fast_scnn", 64)
    assert (found.parameters, found.macs) == count(segmenter(Shape("fast_scnn", 1.0, 64), 2))


def test_the_search_takes_them_by_name_and_never_for_classes() -> None:
    data, photos = (cast(Any, SimpleNamespace(task=task)) for task in ("segment", "classify"))  # sizes are given
    asked = SearchSettings(models=("unet_mini", "mobilenet_v2"), sizes=(64,))
    found = candidates(data, None, asked)
    assert {shape.net: shape.width for shape in found if isinstance(shape, Shape)} == {
        "unet_mini": 1.0,
        "mobilenet_v2": 0.75,
    }
    assert [str(shape) for shape in found if str(shape).startswith("unet")] == [
        f"unet_mini-{width:g}-64" for width in SEGMENTERS["unet_mini"].widths
    ]
    usual = candidates(photos, None, SearchSettings(sizes=(64,)))
    assert usual
    assert not any(isinstance(shape, Shape) and shape.net in SEGMENTERS for shape in usual)


# ------------------------------------------------------------------------------------------------------- transforms


def test_the_readers_agree(model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(model))
    ours, theirs = read_keras(model), read_onnx(path)
    assert {operator.kind for graph in (ours, theirs) for operator in graph.operators}.isdisjoint({UNKNOWN})
    assert folded_totals(ours) == folded_totals(theirs)
    assert sorted(products(ours)) == sorted(products(theirs))
    assert sum(operator.parameters for operator in ours.operators) == model.count_params()


def test_a_folded_one_answers_the_same(model: keras.Model) -> None:
    given = pictures(2, SIZES[model.name])
    folded, step = fold(model)
    close(logits(folded, given), logits(model, given))
    assert not step.skipped
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)


@pytest.mark.parametrize("multiple_of", [1, 8])
def test_masked_equals_sliced_through_skips(model: keras.Model, multiple_of: int) -> None:
    by_eights = multiple_of == 8
    settings = prune.PruneSettings(scope=("global", "layer")[by_eights], multiple_of=multiple_of)
    plan = prune.plan(model, prune.Target(("macs", "channels")[by_eights], 0.6), settings)
    smaller = assert_masked_is_sliced(model, plan)
    assert smaller.output_shape == model.output_shape
    assert plan.macs is not None
    assert plan.macs == (count(model)[1], count(smaller)[1])


def test_other_rewrites_and_files(model: keras.Model, tmp_path: Path) -> None:
    size = SIZES[model.name]
    given = pictures(2, size)
    wanted = logits(model, given)
    folded, _ = fold(model)
    equal, _ = equalize(folded)
    close(logits(equal, given), wanted)
    thin, step = factorize(model, Energy(0.999), multiple_of=1)
    assert step.name == "factorize"
    assert logits(thin, given).shape == wanted.shape
    sparse, _ = sparsify(model, 0.2)
    assert logits(sparse, given).shape == wanted.shape
    model.save(path := tmp_path / "saved.keras")
    read = load_model(path)
    assert task_of_model(read) == "segment"
    close(logits(read, given), wanted)


def test_plain_blocks_can_be_separated() -> None:
    set_seed(0)
    made = alive(MAKERS["plain"](48))
    wide = ["decode4_block0", "decode2_block1"]
    lighter, step = separate(made, pictures(4, 48), wide, SeparateSettings(max_error=1.0))
    assert sorted(step.settings["errors"]) == sorted(wide)
    assert (count(lighter)[1] or 0) < (count(made)[1] or 0)


# ------------------------------------------------------------------------------------------------------------- files

EXPORTED = ["unet_mini", "unet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("lraspp", "fast_scnn", "plain"))]


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("file_format", ["onnx", "litert"])
def test_each_file_says_what_the_model_says(name: str, file_format: str, tmp_path: Path) -> None:
    set_seed(0)
    made = alive(MAKERS[name](SIZES[name]))
    given = pictures(8, SIZES[name])
    about = about_of(made, name, names_of(made), ())
    whole = export(made, tmp_path / "float32", file_format, about, given)  # holds it against Keras
    assert whole.task == "segment"
    int8 = quantize(whole, tmp_path / "int8", given)
    wanted = answers(made, given[:2])
    run = 0
    for artifact, most in ((whole, 1e-3), (int8, 0.1)):
        for runtime in RUNTIMES.values():
            if runtime.supports(artifact) is not None or runtime.name == "opencv":
                continue
            exact = artifact.precision == "float32"
            session = runtime.load(artifact, Settings(precision="float32" if exact else None))
            found = np.concatenate([session.run(one[None]) for one in given[:2]])
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).mean() < most, (runtime.name, artifact.precision)
            run += 1
    assert run >= 2
