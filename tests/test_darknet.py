"""Darknet's networks: what they compute, against a slow reference and OpenCV's importer; and what is refused."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featherweight.analyze.costs import count
from featherweight.boxes import Decoding
from featherweight.cli import main
from featherweight.errors import ModelFileError, OutputError, SettingError
from featherweight.fold import fold
from featherweight.image import read_image
from featherweight.models.darknet import build_darknet, import_darknet, read_cfg, save_darknet
from featherweight.models.darknet.activations import ACTIVATIONS, activated
from featherweight.models.darknet.rules import RULES, plan
from featherweight.models.darknet.weights import read_names
from featherweight.models.heads import classes_of_model, decoding_of_model
from featherweight.models.kept import kept_in
from featherweight.models.load import load_model
from featherweight.prune import PruneSettings, Target, apply
from featherweight.prune import plan as prune_plan
from tests.darknet import reference
from tests.darknet.make_recorded import EVERY, LAST, YOLO_FASTEST, asked, pictures, yolo_fastest
from tests.darknet.nets import ANCHORS, HEADER, HEADS, NETS, ONE, cfg, conv, floats, layer, picture, written

CFGS = Path(__file__).parents[2] / "shared" / "data" / "darknet-cfg"
OPENCV4 = os.environ.get("FEATHERWEIGHT_OPENCV4")
OPENCV_EPSILON = 1e-6
needs_cfgs = pytest.mark.skipif(not CFGS.is_dir(), reason="../shared/data/darknet-cfg is not here")
needs_yolo = pytest.mark.skipif(not YOLO_FASTEST.is_dir(), reason="../shared/data/darknet-yolo-fastest is not here")


def answer(model: keras.Model, pictures: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(model(pictures.astype(np.float32), training=False))


def referred(text: str, weights: NDArray[Any], pixels: NDArray[Any]) -> list[NDArray[np.float64]]:
    return reference.Darknet(text, weights).run(pixels)


# ------------------------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("name", NETS)
def test_every_section_computes_what_darknet_does(name: str, tmp_path: Path) -> None:
    text, (path, weights, network) = NETS[name], written(NETS[name], tmp_path)
    pixels = picture(*network.picture[:2])
    wanted = referred(text, floats(network), pixels)[-1]
    model, _, step = import_darknet(path, weights)
    found = answer(model, pixels[None])[0]
    found = np.moveaxis(found, -1, 0) if found.ndim == 3 else found.reshape(wanted.shape)
    assert np.abs(found - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())
    assert step.settings["pictures_seen"] == 64 and step.settings["version"] == "0.2.5"


def test_the_reference_was_asked_about_every_section() -> None:
    tried = {name.lower() for text in (*NETS.values(), *HEADS.values()) for name in re.findall(r"\[(\w+)\]", text)}
    assert set(RULES) | {"net"} == tried


def test_every_activation_is_darknets() -> None:
    values = np.linspace(-9, 9, 4 * 181).reshape(1, 181, 1, 4).astype(np.float32)
    image = keras.Input(values.shape[1:])
    model = keras.Model(image, {name: activated(image, name, name) for name in ACTIVATIONS})
    found = model(values)
    assert set(ACTIVATIONS) == set(reference.ACTIVATIONS)
    for name, function in reference.ACTIVATIONS.items():
        wanted = np.moveaxis(function(np.moveaxis(values[0].astype(np.float64), -1, 0)), 0, -1)
        # Darknet's selu has five digits of its two constants.
        assert np.abs(np.asarray(found[name])[0] - wanted).max() < (1e-3 if name == "selu" else 1e-5), name


def rows(decoding: Decoding, maps: list[NDArray[Any]]) -> NDArray[Any]:
    """Darknet's maps (anchors · values, h, w) as rows: by map, by row, by column, by anchor."""
    every = [
        one.reshape(max(1, len(scale.anchors)), -1, scale.height, scale.width).transpose(2, 3, 0, 1)
        for one, scale in zip(maps, decoding.scales, strict=True)
    ]
    return np.concatenate([one.reshape(-1, one.shape[-1]) for one in every])


# The section before each head, as Darknet numbers them.
HEAD_INPUTS = {"yolo": (1, 5), "new_coords": (1,), "gaussian": (1,), "region": (1,), "region without softmax": (1,)}


@pytest.mark.parametrize("name", HEAD_INPUTS)
def test_predictions_are_the_raw_maps_row_by_row(name: str, tmp_path: Path) -> None:
    text, (path, weights, network) = HEADS[name], written(HEADS[name], tmp_path)
    pixels = picture(*network.picture[:2])
    outputs = referred(text, floats(network), pixels)
    model, classes, _ = import_darknet(path, weights)
    decoding = decoding_of_model(model)
    assert decoding is not None and len(classes) == decoding.classes
    wanted = rows(decoding, [outputs[number] for number in HEAD_INPUTS[name]])
    if name == "gaussian":  # x, σ(x), y, σ(y), w, σ(w), h, σ(h) → the means, then the uncertainties
        wanted = wanted[:, [0, 2, 4, 6, 1, 3, 5, 7, *range(8, wanted.shape[1])]]
    assert answer(model, pixels[None]).shape == (1, decoding.priors, decoding.values)
    assert np.abs(answer(model, pixels[None])[0] - wanted).max() < 1e-5


def test_the_vector_of_yolov1_becomes_cells(tmp_path: Path) -> None:
    path, weights, network = written(HEADS["detection"], tmp_path)
    pixels = picture(*network.picture[:2])
    vector = referred(HEADS["detection"], floats(network), pixels)[1].ravel()
    classes, objects, boxes = np.split(vector, [9 * 2, 9 * 2 + 9 * 2])
    wanted = [
        [*boxes.reshape(9, 2, 4)[cell, box], objects.reshape(9, 2)[cell, box], *classes.reshape(9, 2)[cell]]
        for cell in range(9)
        for box in range(2)
    ]
    model, _, _ = import_darknet(path, weights)
    decoding = decoding_of_model(model)
    assert decoding is not None and (decoding.kind, decoding.roots, decoding.softmax) == ("grid", True, True)
    assert [len(scale.anchors) for scale in decoding.scales] == [2]
    assert np.abs(answer(model, pixels[None])[0] - np.array(wanted)).max() < 1e-5


def test_what_the_heads_mean(tmp_path: Path) -> None:
    found = {}
    for name, text in HEADS.items():
        decoding = decoding_of_model(build_darknet(written(text, tmp_path)[0]))
        assert decoding is not None and (decoding.height, decoding.width) == (12, 16)
        found[name] = decoding
    coarse, fine = found["yolo"].scales
    assert (coarse.height, coarse.width, coarse.anchors, coarse.xy_scale) == (3, 4, ((6, 5), (9, 12)), 1.05)
    assert (fine.height, fine.width, fine.anchors, fine.xy_scale) == (6, 8, ((3, 4),), 1.0)
    assert found["new_coords"].activated and found["new_coords"].scales[0].xy_scale == 2
    assert found["gaussian"].uncertain and found["gaussian"].values == 11
    assert (found["region"].kind, found["region"].softmax) == ("region", True)
    assert found["region"].scales[0].anchors[0] == (3 * 4, 4 * 4)  # cells of 4 by 4 pixels
    assert found["region without softmax"].kind == "yolo"


def test_a_classifier_is_named_as_the_zoo_names_it(tmp_path: Path) -> None:
    path, weights, _ = written(NETS["classifier"], tmp_path)
    model, classes, _ = import_darknet(path, weights)
    assert [model.get_layer(name).output.shape[1:] for name in ("features", "logits", "probabilities")] == [
        (1, 1, 4), (5,), (5,)
    ]  # fmt: skip
    assert classes == tuple(f"class {number}" for number in range(5))
    assert decoding_of_model(model) is None and classes_of_model(model) is None


def test_older_headers_and_transposed_matrices(tmp_path: Path) -> None:
    text = cfg(conv(2, 4), layer("connected", output=3, activation="linear"))
    path, weights, network = written(text, tmp_path)
    model, _, _ = import_darknet(path, weights)
    numbers, pixels = floats(network), picture(12, 16)[None]
    weights.write_bytes(np.array([0, 1, 0, 7], "<i4").tobytes() + numbers.tobytes())
    older, _, step = import_darknet(path, weights)
    np.testing.assert_array_equal(answer(older, pixels), answer(model, pixels))
    assert step.settings["pictures_seen"] == 7
    matrix = 3 * 2 * 3 * 4
    turned = np.concatenate([numbers[:-matrix], numbers[-matrix:].reshape(3, -1).T.ravel()])
    weights.write_bytes(np.array([1001, 0, 0, 7], "<i4").tobytes() + turned.tobytes())
    np.testing.assert_array_equal(answer(import_darknet(path, weights)[0], pixels), answer(model, pixels))


# ---------------------------------------------------------------------------------------------------- OpenCV's importer


@pytest.mark.parametrize("name", LAST)
def test_outputs_are_those_recorded_from_opencv(name: str, tmp_path: Path) -> None:
    path, weights, network = written(NETS[name], tmp_path)
    model, _, _ = import_darknet(path, weights, epsilon=OPENCV_EPSILON)
    found = answer(model, picture(*network.picture[:2])[None])
    assert np.abs(found.reshape(-1) - recorded(name).reshape(-1)).max() < 1e-5


def recorded(name: str) -> NDArray[np.float32]:
    with np.load(Path(reference.__file__).with_name("recorded.npz")) as file:
        return np.asarray(file[name])


@pytest.fixture(scope="module")
def fastest() -> Iterator[tuple[keras.Model, tuple[str, ...]]]:
    yield import_darknet(*fastest_files())[:2]


def fastest_files() -> tuple[Path, Path, Path]:
    return (
        YOLO_FASTEST / "yolo-fastest-1.1.cfg",
        YOLO_FASTEST / "yolo-fastest-1.1.weights",
        YOLO_FASTEST / "coco.names",
    )


def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Within 1e-4; numbers reach 35 here, and float32 has seven digits."""
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@needs_yolo
def test_yolo_fastest_is_as_recorded_from_opencv() -> None:
    model, _, _ = import_darknet(*fastest_files(), epsilon=OPENCV_EPSILON)
    close(answer(model, pictures())[:, ::EVERY], recorded("yolo-fastest"))


@pytest.mark.opencv4
@needs_yolo
@pytest.mark.skipif(OPENCV4 is None, reason="FEATHERWEIGHT_OPENCV4 names no Python with OpenCV 4.14")
def test_live_outputs_are_opencvs(tmp_path: Path) -> None:
    assert OPENCV4 is not None
    photos = [read_image(path) for path in sorted((YOLO_FASTEST / "images").iterdir())]
    every = np.concatenate([pictures(), np.stack([stretched(photo) for photo in photos])])
    model, _, _ = import_darknet(*fastest_files(), epsilon=OPENCV_EPSILON)
    close(answer(model, every), yolo_fastest(OPENCV4, every))
    for name in LAST:
        path, weights, network = written(NETS[name], tmp_path)
        one = picture(*network.picture[:2])[None]
        (wanted,) = asked(OPENCV4, path, weights, one, LAST[name]).values()
        found = answer(import_darknet(path, weights, epsilon=OPENCV_EPSILON)[0], one)
        assert np.abs(found.reshape(-1) - wanted.reshape(-1)).max() < 1e-5


def stretched(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Plain bilinear, four neighbours, as the reference boxes were made with."""
    import cv2

    return np.asarray(cv2.resize(photo, (320, 320), interpolation=cv2.INTER_LINEAR), np.uint8)


@needs_yolo
def test_yolo_fastest_finds_the_boxes_that_are_known(fastest: tuple[keras.Model, tuple[str, ...]]) -> None:
    model, classes = fastest
    decoding = decoding_of_model(model)
    wanted = json.loads((YOLO_FASTEST / "expected.json").read_text())
    assert decoding is not None and classes_of_model(model) == classes and classes[0] == "person"
    for path in sorted((YOLO_FASTEST / "images").iterdir()):
        photo = read_image(path)
        found = found_boxes(decoding, answer(model, stretched(photo)[None])[0], (photo.shape[1], photo.shape[0]))
        truth = wanted[path.name]
        assert len(found) == len(truth), path.name
        for name, score, *corners in truth:
            near = [(overlap(box, np.array(corners)), s) for label, s, box in found if classes[label] == name]
            best, its_score = max(near)
            assert best >= 0.98 and abs(its_score - score) < 0.01, (path.name, name)


def found_boxes(
    decoding: Decoding, output: NDArray[Any], size: tuple[int, int]
) -> list[tuple[int, float, NDArray[Any]]]:
    """(class, score, corners) by YOLOv3's formulas; scores over 0.3, the worse of two of a class over IoU 0.45 gone."""
    boxes, start = [], 0
    for scale in decoding.scales:
        part = output[start : start + scale.priors].reshape(scale.height, scale.width, len(scale.anchors), -1)
        start += scale.priors
        down, across = np.mgrid[: scale.height, : scale.width][..., None]
        sure = 1 / (1 + np.exp(-part))
        x, y = (sure[..., 0] + across) / scale.width, (sure[..., 1] + down) / scale.height
        half = np.exp(part[..., 2:4]) * np.array(scale.anchors) / (decoding.width, decoding.height) / 2
        corners = np.stack([x - half[..., 0], y - half[..., 1], x + half[..., 0], y + half[..., 1]], -1) * (
            *size,
            *size,
        )
        scores = sure[..., 4:5] * sure[..., 5:]
        places = np.argwhere(scores > 0.3)
        boxes += [(int(at[-1]), float(scores[tuple(at)]), corners[tuple(at[:-1])]) for at in places]
    kept: list[tuple[int, float, NDArray[Any]]] = []
    for one in sorted(boxes, key=lambda box: -box[1]):
        if all(one[0] != other[0] or overlap(one[2], other[2]) <= 0.45 for other in kept):
            kept.append(one)
    return kept


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    both = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both))


# ---------------------------------------------------------------------------------------------------- what it costs

# cfg → (weights, BFLOPs where they are published: https://pjreddie.com/darknet/yolo/, …/yolov2/, …/imagenet/, and
# AlexeyAB's and Yolo-Fastest's tables). A multiplication and an addition are two.
PUBLISHED = {
    "yolov3-tiny": (8_858_734, 5.56), "yolov4-tiny": (6_062_814, 6.9), "yolov2-tiny": (11_237_145, 5.41),
    "yolov2-tiny-voc": (15_867_885, 6.97), "yolov3-tiny-prn": (4_939_758, 3.5), "tiny": (1_046_488, 0.98),
    "yolov3-tiny_3l": (9_009_967, None), "yolov4-tiny-3l": (6_334_045, None), "cifar": (7_687_050, None),
    "cifar.test": (7_687_050, None), "darknet": (7_323_480, None),
}  # fmt: skip
LARGE = {"yolov3": (62_001_757, 140.69), "yolov2": (50_983_561, 62.94), "yolov1-tiny": (27_099_950, None)}


@needs_cfgs
@pytest.mark.parametrize("name", [*PUBLISHED, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_published_networks_build_and_cost_what_is_published(name: str) -> None:
    parameters, billions = {**PUBLISHED, **LARGE}[name]
    path = CFGS / f"{name}.cfg"
    assert plan(read_cfg(path)).floats == parameters
    if name in ("yolov3-tiny_3l", "yolov4-tiny-3l"):
        return  # as those without _3l
    model = build_darknet(path)
    counted, macs = count(model)
    assert counted == parameters and macs is not None
    assert billions is None or abs(2 * macs / 1e9 - billions) < 0.012 * billions


@needs_cfgs
def test_no_cfg_at_hand_is_left_out() -> None:
    assert {path.stem for path in CFGS.glob("*.cfg")} == {*PUBLISHED, *LARGE}


@needs_yolo
def test_yolo_fastest_costs_what_is_published(fastest: tuple[keras.Model, tuple[str, ...]]) -> None:
    parameters, macs = count(fastest[0])
    assert parameters == 346_062 and macs is not None and abs(2 * macs / 1e9 - 0.252) < 0.002


# ------------------------------------------------------------------------------------------- as any other Keras model


@needs_yolo
def test_yolo_fastest_folds(fastest: tuple[keras.Model, tuple[str, ...]]) -> None:
    model, classes = fastest
    folded, step = fold(model)
    assert not [one for one in folded.layers if isinstance(one, keras.layers.BatchNormalization)] and not step.skipped
    assert classes_of_model(folded) == classes
    close(answer(folded, pictures()), answer(model, pictures()))


def test_a_detector_is_pruned_and_keeps_its_priors(tmp_path: Path) -> None:
    path, weights, _ = written(HEADS["yolo"], tmp_path)
    model, _, _ = import_darknet(path, weights)
    smaller, _ = apply(model, prune_plan(model, Target.read("channels=0.5"), PruneSettings(multiple_of=1)))
    assert smaller.count_params() < model.count_params()
    assert smaller.output_shape == model.output_shape
    assert decoding_of_model(smaller) == decoding_of_model(model)


@pytest.mark.parametrize("name", ["yolo", "gaussian", "detection", "local", "sizes"])
def test_it_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    text = {**HEADS, **NETS}[name]
    path, weights, network = written(text, tmp_path)
    output, model, _, step = save_darknet(path, weights, output=tmp_path / "model.keras")
    loaded = load_model(output)
    pixels = picture(*network.picture[:2])[None]
    np.testing.assert_array_equal(answer(loaded, pixels), answer(model, pixels))
    assert decoding_of_model(loaded) == decoding_of_model(model)
    assert kept_in(output).steps == (step,) and kept_in(output).resize == "bilinear"
    assert [one.name for one in tmp_path.iterdir() if one.suffix == ".keras"] == ["model.keras"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, weights, _ = written(HEADS["yolo"], tmp_path)
    names = tmp_path / "of.names"
    names.write_text("cat\nbig dog\n\n")
    output = tmp_path / "cats.keras"
    arguments = ["import", str(path), str(weights), "--names", str(names), "--output", str(output)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["cat", "big dog"] and found["input"] == [12, 16] and found["output"] == [72, 7]
    assert classes_of_model(load_model(output)) == ("cat", "big dog")
    before = output.read_bytes()
    assert main(arguments) == 2 and "exists already" in capsys.readouterr().err
    assert output.read_bytes() == before
    output.unlink()
    assert main(arguments) == 0 and "2 classes" in capsys.readouterr().out


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    path, weights, _ = written(NETS["classifier"], tmp_path)
    with pytest.raises(SettingError, match=r"ends in \.keras"):
        save_darknet(path, weights, output=tmp_path / "model.h5")
    with pytest.raises(OutputError, match="cannot write"):
        save_darknet(path, weights, output=tmp_path / "no" / "model.keras")


def test_what_was_left_aside_is_told(tmp_path: Path) -> None:
    text = cfg(conv(2, filtres=3, learning_rate=0.1), conv(3), layer("route", layers=0), conv(4), layer("dropout"))
    path, weights, _ = written(text, tmp_path)
    _, classes, step = import_darknet(path, weights)
    assert [why for _, why in step.skipped] == ["the key filtres is not known", "no output depends on it"]
    assert "line 5" in step.skipped[0][0] and "layer 1," in step.skipped[1][0] and classes == ()


# ------------------------------------------------------------------------------------------------ what is refused: cfg

REGION = layer("region", classes=2, num=3, softmax=1) + "\n" + ANCHORS
YOLO = layer("yolo", classes=2, num=3) + "\n" + ANCHORS
REFUSED = {
    "nothing": ("", "an empty file"),
    "no layers": (cfg(), "without layers"),
    "no net": (conv(4), r"line 1: \[convolutional\] before \[net\]"),
    "two nets": (cfg(conv(4), "[net]"), r"line 12: a second \[net\]"),
    "a page": ("<!DOCTYPE html><html>", "an HTML page"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    "weights": ("\0\0\0\0", "no text"),
    "key first": ("width=3\n[net]", "line 1: width=3 before any section"),
    "no equals sign": (cfg("[convolutional]", "filters"), "line 6: filters; wanted"),
    "no value": (cfg("[convolutional]", "filters="), r"line 6: \[convolutional\] filters=; wanted key=value"),
    "open bracket": (cfg("[convolutional"), r"line 5: \[convolutional; wanted \[section\]"),
    "unknown section": (cfg("[convolutionl]"), r"line 5: unknown section \[convolutionl\]; known: "),
    "foreign section": (cfg("[lstm]"), r"line 5: \[lstm\], a section that no layer"),
    "key twice": (cfg(conv(4) + "\nfilters=5"), r"line 12: .*filters=5; wanted it once: line 7 has 4"),
    "missing key": (cfg("[convolutional]", "size=3"), r"line 5: \[convolutional\] has no filters"),
    "no number": (cfg(conv(4, filters="many")), r"line 11: \[convolutional\] filters=many; wanted a whole number"),
    "a fraction": (cfg(conv(4, size=2.5)), "size=2.5; wanted a whole number"),
    "zero": (cfg(conv(4, stride=0)), "stride=0; wanted at least 1"),
    "no real number": (cfg(layer("dropout", probability="nan")), "probability=nan; wanted a number"),
    "too long a list": (cfg(conv(2), layer("route", layers=",".join(["-1"] * 1001))), "1,001 values"),
    "no input": ("[net]\nwidth=4\n" + conv(4), r"line 1: \[net\] has no height"),
    "grey": (cfg(conv(4)).replace("channels=3", "channels=1"), r"line 4: \[net\] channels=1; wanted channels=3"),
    "huge input": (cfg(conv(4), height=100_000), "100000×16×3; wanted sides up to 8,192"),
    "huge map": (cfg(conv(10**8), height=4096, width=4096), "1,677,721,600,000,000 numbers for one picture"),
    "huge weights": (cfg(conv(10**6, 12), conv(1, size=99, pad=1)), "have .* weights; wanted up to 536,870,912"),
    "huge padding": (cfg(conv(4, pad=0, padding=10**6)), "padding=1000000; wanted up to"),
    "no map left": (cfg(conv(4, size=20, pad=0)), "would give a map of 0×0×4"),
    "groups": (cfg(conv(4, groups=2)), "2 groups of 3 channels and 4 filters"),
    "dilation": (cfg(conv(4, dilation=2, stride=2)), "dilation=2 of size=3"),
    "activation": (cfg(conv(4, activation="lekay")), "unknown activation=lekay; known: linear, "),
    "stair": (cfg(conv(4, activation="stair")), "activation=stair, for which no layer"),
    "refused key": (cfg(conv(4, xnor=1)), "line 12: .*xnor=1, for which no layer"),
    "shared": (cfg(conv(4), conv(4, share_index=0)), "share_index=0, for which no layer"),
    "tree": (cfg(layer("softmax", tree="9k.tree")), "tree=9k.tree, for which no layer"),
    "corner": (cfg(layer("Gaussian_yolo", yolo_point="left_top")), "yolo_point=left_top"),
    "pool padding": (cfg(layer("maxpool", size=2, padding=2)), "padding=2 with size=2"),
    "pool size": (cfg(layer("maxpool", size=40, padding=0)), "size=40 on a map of 12×16×3"),
    "upsampling": (cfg(layer("upsample", stride=0)), "stride=0; wanted 1"),
    "downsampling": (cfg(layer("upsample", stride=-5)), "stride=-5 on a map of 12×16×3"),
    "reorg": (cfg(layer("reorg", stride=5)), "stride=5 on a map of 12×16×3"),
    "local": (cfg(layer("local", size=5, pad=1)), r"\[local\] has no filters"),
    "local padding": (cfg(layer("local", size=5, pad=1, filters=2)), "pad=1 with size=5"),
    "local size": (cfg(layer("local", size=15, filters=2)), "size=15 on a map"),
    "itself": (cfg(layer("route", layers=0)), "layers=0 from layer 0; wanted a layer before it"),
    "later": (cfg(conv(4), layer("route", layers=2), conv(4)), "layers=2 from layer 1"),
    "before the first": (cfg(conv(4), layer("shortcut", **{"from": -2})), "from=-2 from layer 1"),
    "many routes": (cfg(conv(4), layer("route", layers=",".join(["-1"] * 65))), "layers with 65 layers"),
    "a route of sizes": (cfg(conv(4), conv(4, 2), layer("route", layers="0,1")), "joins maps of 12×16×4 and 6×8×4"),
    "route's group": (cfg(conv(4), layer("route", layers=0, groups=2, group_id=2)), "part 2 of 2 of 4 channels"),
    "shortcut's size": (cfg(conv(4, 2), conv(4, 2), layer("upsample"), layer("upsample"),
                            layer("shortcut", **{"from": 0})), "adds a map of 6×8×4 to one of 12×16×4"),
    "shortcut's weights": (cfg(conv(4), conv(4), layer("shortcut", **{"from": 0, "weights_type": "x"})),
                           "weights_type=x; wanted one of"),
    "shortcut's norm": (cfg(conv(4), conv(4), layer("shortcut", **{"from": 0, "weights_normalization": "x"})),
                        "weights_normalization=x; wanted one of"),
    "shortcut's scales": (cfg(conv(4), conv(5), layer("shortcut", **{"from": 0, "alpha": 2})), "alpha=2 and beta=1"),
    "scale's shape": (cfg(conv(4), conv(4), layer("scale_channels", **{"from": 0})),
                      "scales 12×16×4 by 12×16×4; wanted 1×1×4"),
    "two sources": (cfg(conv(4), conv(4), layer("sam", **{"from": "0,1"})), "from 2 layers; wanted one"),
    "sam's shape": (cfg(conv(4), conv(5), layer("sam", **{"from": 0})), "multiplies 12×16×4 by 12×16×5"),
    "dropout": (cfg(layer("dropout", probability=1)), "probability=1; wanted 0 … 1"),
    "crop": (cfg(layer("crop", crop_height=13, crop_width=1)), "13×1×3 out of 12×16×3"),
    "softmax's groups": (cfg(layer("softmax", groups=7)), "7 groups of 12×16×3"),
    "temperature": (cfg(layer("softmax", temperature=0)), "temperature=0; wanted more than 0"),
    "filters of yolo": (cfg(ONE.format(20), YOLO), "is given 20 channels; wanted 3 anchors × 7 = 21 filters"),
    "mask": (cfg(ONE.format(7), YOLO + "\nmask=3"), r"mask=\(3,\); wanted numbers below num=3"),
    "anchors": (cfg(ONE.format(28), YOLO.replace("num=3", "num=4")), "6 values of anchors for num=4; wanted 8 above 0"),
    "no anchors": (cfg(ONE.format(21), layer("yolo", classes=2, num=3)), "has no anchors"),
    "coords of region": (cfg(layer("region", classes=2, num=3, coords=5)), "coords=5; wanted coords=4"),
    "coords of detection": (cfg(layer("detection", classes=2, num=3, side=2, coords=5)), "coords=5; wanted coords=4"),
    "detection": (cfg(layer("detection", classes=2, num=3, side=2)),
                  r"is given 576 numbers; wanted 2² × \(2 \+ 5 × 3\)"),
    "behind a head": (cfg(ONE.format(21), YOLO, conv(4)), r"takes what layer 1, \[yolo\] of line 9 gives"),
    "heads unlike": (cfg(ONE.format(21), YOLO, layer("route", layers=0), REGION), "of another kind"),
    "other classes": (cfg(conv(4), ONE.format(21), YOLO, layer("route", layers=0), ONE.format(24),
                          YOLO.replace("classes=2", "classes=3")), "of another kind, or of other classes"),
    "many bytes": ("#" * 2**18 + "\n", "262,145 bytes; wanted a cfg file, of at most 262,144"),
    "many keys": (cfg("[convolutional]", *(f"key{number}=1" for number in range(201))), "with over 200 keys"),
    "many sections": (cfg(*["[cost]"] * 601), "over 600 sections"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_cfgs_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    path = tmp_path / "bad.cfg"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=message) as caught:
        build_darknet(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_comments_blanks_and_repeated_keys_are_read_as_darknet_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    lines = ["\ufeff# a network", "[NET]", "batch = 64", "batch=1", "height= 8", "width =8 # small", "; and now", "",
             "[conv]\t", "filters=4\r", "size=3.0", "pad=1", "size=3.0", "activation=leaky", "[max]"]  # fmt: skip
    path.write_bytes("\n".join(lines).encode() + b"\n# \xff\xfe")
    network = plan(read_cfg(path))
    assert [one.kind for one in network.layers] == ["convolutional", "maxpool"]
    assert network.layers[0].shape == (8, 8, 4) and network.layers[1].section.line == 15


WORDS = [
    "[net]", "[convolutional]", "[route]", "[shortcut]", "[yolo]", "[maxpool]", "[connected]", "[reorg]", "[softmax]",
    "width", "height", "filters", "size", "stride", "layers", "from", "anchors", "mask", "num", "classes", "groups",
    "=", "=1", "=2", "=-1", "=0,1", "=9999999", "=1e9", "\n", "\n", "\n", "#", ";", ",", " ", "]", "\0", "é",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_text_is_a_network_or_one_line(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "any.cfg"
    path.write_text("[net]\nwidth=8\nheight=8\n[convolutional]\nfilters=2\n" + "".join(words))
    try:
        plan(read_cfg(path))
    except ModelFileError as error:
        assert "\n" not in str(error)


LINES = [
    *("[convolutional]\nfilters=4", "[route]\nlayers=-1", "[route]\nlayers=0,-1", "[shortcut]\nfrom=-2", "[maxpool]"),
    *(
        "[upsample]",
        "[reorg]\nstride=2",
        "[connected]\noutput=5",
        "[avgpool]",
        "[softmax]",
        "stride=2",
        "size=3",
        "pad=1",
    ),
    *("groups=2", "stride=-2", "padding=1", "[yolo]\nclasses=1\nnum=1\nanchors=1,1", "[scale_channels]\nfrom=0"),
]


@given(st.lists(st.sampled_from(LINES), max_size=30))
def test_shapes_follow_or_one_line_says_why_not(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "any.cfg"
    path.write_text(cfg("[convolutional]\nfilters=4", *lines))
    try:
        network = plan(read_cfg(path))
    except ModelFileError as error:
        assert re.search(r": line \d+: \[\w+\] .*; ", str(error)), error
        return
    assert all(min(one.shape) > 0 for one in network.layers)


# -------------------------------------------------------------------------------------------- what is refused: weights

SMALL = cfg(conv(4), conv(6, 2, batch_normalize=0), layer("connected", output=3))


def refusal(path: Path, weights: Path, *more: Any) -> str:
    with pytest.raises(ModelFileError) as caught:
        import_darknet(path, weights, *more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_truncated_file_is_told_by_the_layer_in_which_it_ends(tmp_path: Path) -> None:
    path, weights, network = written(SMALL, tmp_path)
    whole = weights.read_bytes()
    ends = np.cumsum([len(HEADER), *(4 * one.floats for one in network.layers)])
    for cut in np.linspace(0, len(whole) - 1, 50).astype(int):
        weights.write_bytes(whole[:cut])
        message = refusal(path, weights)
        if cut < len(HEADER):
            assert "header" in message or "an empty file" in message
            continue
        number = int(np.searchsorted(ends, cut, "right")) - 1
        assert f"{cut:,} bytes where net.cfg takes {len(whole):,}: it ends in layer {number}, [" in message


def test_a_longer_file_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path, weights, _ = written(SMALL, tmp_path)
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert f"{size + 1:,} bytes, 1 more than the {size:,} that the layers of net.cfg take" in refusal(path, weights)


STRANGERS = {
    b"<!DOCTYPE html><html>404": "an HTML page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n": "a Git LFS pointer",
    b"\xff" * 40: "no weights of Darknet",
    b"\0" * 12: "12 bytes; wanted a header",
    np.array([0, 2, 0, 0], "<i4").tobytes(): "16 bytes; wanted a header of 20",
    b"\x1f\x8b" + b"\0" * 40: "a compressed file",
}


@pytest.mark.parametrize("data", STRANGERS, ids=list(STRANGERS.values()))
def test_what_is_found_in_place_of_weights_is_called_by_its_name(data: bytes, tmp_path: Path) -> None:
    path, weights, _ = written(SMALL, tmp_path)
    weights.write_bytes(data)
    assert STRANGERS[data] in refusal(path, weights)
    weights.unlink()
    assert "cannot be read" in refusal(path, weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(value: float, tmp_path: Path) -> None:
    path, weights, network = written(SMALL, tmp_path)
    numbers = floats(network)
    numbers[network.layers[0].floats + 5] = value
    weights.write_bytes(HEADER + numbers.tobytes())
    assert "NaN or infinity in layer 1, [convolutional] of line 12" in refusal(path, weights)


def test_a_variance_below_zero_is_refused(tmp_path: Path) -> None:
    path, weights, network = written(SMALL, tmp_path)
    numbers = floats(network)
    numbers[3 * 4] = -1
    weights.write_bytes(HEADER + numbers.tobytes())
    assert "a variance below zero in layer 0" in refusal(path, weights)


def test_names_must_be_as_many_as_classes(tmp_path: Path) -> None:
    path, weights, _ = written(HEADS["yolo"], tmp_path)
    names = tmp_path / "names"
    bad = {b"cat\n": "1 names; wanted 2", b"cat\n\ndog\n": "3 names", b"cat\ncat": "the name cat twice",
           b"a\x07\nb": "unprintable", b"\xff\xfe": "no text in UTF-8"}  # fmt: skip
    for data, message in bad.items():
        names.write_bytes(data)
        assert message in refusal(path, weights, names)
    names.write_text("a\n")
    trunk = written(cfg(conv(4)), tmp_path)[:2]
    with pytest.raises(SettingError, match="tells no classes apart"):
        import_darknet(*trunk, names)
    assert read_names(names, 1) == ("a",)


def test_an_epsilon_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="epsilon 0; wanted"):
        import_darknet(*written(SMALL, tmp_path)[:2], epsilon=0)


def test_refusing_takes_no_keras_little_memory_and_no_time(tmp_path: Path) -> None:
    """In a fresh process, as memory counts from its beginning."""
    path, weights, _ = written(SMALL, tmp_path)
    (tmp_path / "short.weights").write_bytes(weights.read_bytes()[:-4])
    deep = tmp_path / "deep.cfg"
    deep.write_text(cfg(conv(64), *[layer("route", layers="-1,-1")] * 500, height=8000, width=8000))
    wide = tmp_path / "wide.cfg"
    wide.write_text(cfg(conv(10**9, size=10**6), height=8192, width=8192))
    many = tmp_path / "many.cfg"
    many.write_text("[net]\n" + "a=1\n" * 65_000)
    pairs = [(path, tmp_path / "short.weights"), *((one, weights) for one in (deep, wide, many))]
    code = f"""
import sys, time
from featherweight.device import peak_memory_bytes
from featherweight.errors import ModelFileError
from featherweight.models.darknet import import_darknet
for cfg, weights in {[tuple(map(str, pair)) for pair in pairs]}:
    start = time.perf_counter()
    try:
        import_darknet(cfg, weights)
    except ModelFileError as error:
        print(len(str(error).splitlines()), time.perf_counter() - start < 1, "keras" in sys.modules)
print(peak_memory_bytes() < 256 * 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 True False"] * 4 + ["True"]


# ------------------------------------------------------------------------------------------------------ as exported


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "litert"])
@pytest.mark.parametrize("name", ["yolo", "gaussian", "detection", "local", "sizes", "weighted shortcuts", "attention"])
def test_exported_files_answer_alike(name: str, file_format: str, tmp_path: Path) -> None:
    from featherweight.export import About, export

    path, weights, network = written({**HEADS, **NETS}[name], tmp_path)
    model, classes, step = import_darknet(path, weights)
    pixels = np.stack([picture(*network.picture[:2], seed) for seed in range(4)])
    artifact = export(model, tmp_path / "file", file_format, About("net", classes, (step,), "detect"), pixels)
    assert artifact.parameters == model.count_params() and artifact.steps[0].name == "import_darknet"
