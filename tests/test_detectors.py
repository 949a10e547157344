"""Detectors as models, and their training on pictures of two kinds of squares."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from featherweight.analyze import analyze
from featherweight.boxes import Boxes, Decoding, Scale
from featherweight.data import Audit, Dataset, Item
from featherweight.detect.distil import Distillation
from featherweight.detect.settings import DetectSettings
from featherweight.detect.train import anchors_for, boxes_of, train_detector
from featherweight.errors import DataError, SettingError
from featherweight.models.detectors import Head, at_size, detector, detector_size, with_classes
from featherweight.models.heads import Predictions, classes_of_model, decoding_of_model
from featherweight.models.load import load_model
from featherweight.models.zoo import Shape
from featherweight.train import TrainSettings, set_seed

SIDE = 32
CLASSES = ("light", "dark")


@pytest.fixture(scope="module")
def free() -> Any:
    """The head on the lightest trunk of the zoo."""
    set_seed(0)
    model = detector(Shape("mobilenet_v1", 0.25, 64), CLASSES, Head(width=16))
    random = np.random.default_rng(0)
    for layer in model.layers:  # without shifts, what a random trunk gives is hardly more than zero
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(random.uniform(-1, 1, layer.beta.shape))
    return model


def anchored(classes: int = 3, seed: int = 0) -> Any:
    """A tiny one of kind yolo, with two maps."""
    set_seed(seed)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    maps: list[Any] = []
    for number, filters in enumerate((8, 16, 16)):
        x = keras.layers.Conv2D(filters, 3, 2, "same", use_bias=False, name=f"convolution_{number}")(x)
        name = "detect_norm" if number == 2 else f"norm_{number}"  # the last one is the head's
        x = keras.layers.LeakyReLU(0.1)(keras.layers.BatchNormalization(momentum=0.9, name=name)(x))
        maps.insert(0, x)
    scales = (Scale(4, 4, ((12.0, 12.0), (20.0, 20.0))), Scale(8, 8, ((6.0, 6.0),)))
    maps = [
        keras.layers.Conv2D(len(scale.anchors) * (5 + classes), 1, name=f"map_{i}")(y)
        for i, (scale, y) in enumerate(zip(scales, maps[:2], strict=True))
    ]
    decoding = Decoding("yolo", scales, SIDE, SIDE, classes)
    return keras.Model(image, Predictions(decoding.as_dict(), name="end")(maps), name="anchored")


def pixels(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, side, side, 3)).astype(np.float32)


def answers(model: Any, pictures: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(pictures))


# --------------------------------------------------------------------------------------------------------- models


def test_the_head_gives_rows_of_distances_and_classes(free: Any) -> None:
    decoding = decoding_of_model(free)
    assert decoding is not None
    assert [(s.height, s.width, s.anchors) for s in decoding.scales] == [(8, 8, ()), (4, 4, ()), (2, 2, ())]
    assert (decoding.kind, decoding.bins, decoding.classes, decoding.height) == ("distances", 8, 2, 64)
    assert free.output_shape == (None, 64 + 16 + 4, 4 * 8 + 2) == (None, decoding.priors, decoding.values)
    assert classes_of_model(free) == CLASSES
    assert detector_size(free) == (64, 64)
    rows = answers(free, pixels(1, 64))[0]
    first = 1 / (1 + np.exp(-rows[:, 32:]))
    assert 0.005 < first.min() < first.max() < 0.02  # few rows claim to have found something


def test_the_head_costs_what_its_blocks_cost() -> None:
    shape, head = Shape("mobilenet_v1", 0.25, 64), Head(width=16)
    counted = {row.name: row.macs for row in analyze(detector(shape, 2, head)).rows if row.name.startswith("detect_")}
    places = {8: 64, 16: 16, 32: 4}
    block = 9 * 16 + 16 * 16
    wanted = sum(places[stride] * channels * 16 for stride, channels in ((8, 64), (16, 128), (32, 256)))  # laterals
    wanted += (places[8] + places[16]) * block + 2 * (places[16] + places[32]) * block  # down; strided ones and up
    wanted += sum(places.values()) * (2 * block + 16 * (4 * 8 + 2))
    macs = sum(value or 0 for name, value in counted.items() if not name.endswith(("_norm", "_relu6", "_add")))
    assert macs == wanted


def test_distances_as_plain_numbers_reach_from_the_start() -> None:
    set_seed(0)
    model = detector(Shape("mobilenet_v1", 0.25, 64), 3, Head(16, (16, 32), bins=0))
    assert model.output_shape == (None, 16 + 4, 4 + 3)
    assert classes_of_model(model) is None
    assert answers(model, pixels(1, 64))[0, :, :4] == pytest.approx(3, abs=1)


@pytest.mark.parametrize(
    ("size", "classes", "head", "words"),
    [
        (72, 2, Head(16), "input of 72 pixels; wanted a multiple of the stride 32"),
        (64, 0, Head(16), "no class to find"),
        (64, 2, Head(16, (32, 64)), "has no map of stride 64; it has: 2, 4, 8, 16, 32"),
    ],
)
def test_heads_that_cannot_be(size: int, classes: int, head: Head, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        detector(Shape("mobilenet_v1", 0.25, size), classes, head)


@pytest.mark.parametrize(
    ("settings", "words"), [({"width": 4}, "4 channels"), ({"strides": (8, 32)}, "each twice"), ({"bins": 2}, "2 bins")]
)
def test_settings_of_heads_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Head(**settings)


def test_other_classes_keep_boxes_and_objectness() -> None:
    old, pictures = anchored(3), pixels(2, SIDE)
    new = with_classes(old, ("a", "b"))
    before, after = answers(old, pictures), answers(new, pictures)
    assert after.shape == (2, 4 * 4 * 2 + 8 * 8, 7)
    assert np.array_equal(before[..., :5], after[..., :5])
    assert np.abs(after[..., 5:]).max() < 1  # about a half, of what is there at all
    assert classes_of_model(new) == ("a", "b")
    assert np.array_equal(
        answers(with_classes(old, 2, seed=1), pictures), answers(with_classes(old, 2, seed=1), pictures)
    )
    assert not np.array_equal(answers(with_classes(old, 2, seed=1), pictures), after)
    assert np.array_equal(answers(old, pictures), before)


def test_other_classes_for_the_anchor_free_head(free: Any) -> None:
    pictures = pixels(1, 64)
    new = with_classes(free, 5)
    before, after = answers(free, pictures), answers(new, pictures)
    assert after.shape[-1] == 4 * 8 + 5
    assert np.array_equal(before[..., :32], after[..., :32])
    assert after[..., 32:].max() < -2


def test_new_anchors_go_to_the_maps_by_size() -> None:
    new = with_classes(anchored(), 1, np.array([[20.0, 10], [2, 2], [9, 9]]))
    decoding = decoding_of_model(new)
    assert decoding is not None
    assert decoding.scales[0].anchors == ((9, 9), (20, 10))  # the coarse map
    assert decoding.scales[1].anchors == ((2, 2),)
    with pytest.raises(SettingError, match=r"anchors of shape \(1, 2\); the model has 3"):
        with_classes(anchored(), 1, np.ones((1, 2)))


def test_models_that_cannot_get_other_classes() -> None:
    image = keras.Input((8, 8, 3))
    with pytest.raises(SettingError, match="is no detector; wanted one of kind yolo or distances"):
        with_classes(keras.Model(image, keras.layers.Conv2D(1, 1)(image)), 2)
    with pytest.raises(SettingError, match="no class"):
        with_classes(anchored(), 0)

    def ending(kind: str, layer: Any) -> Any:
        decoding = Decoding(kind, (Scale(8, 8, ((1.0, 1.0),)),), 8, 8, 1)
        return keras.Model(image, Predictions(decoding.as_dict())(layer(image)))

    with pytest.raises(SettingError, match="a detector of kind region"):
        with_classes(ending("region", keras.layers.Conv2D(6, 1)), 2)
    with pytest.raises(SettingError, match="wanted a convolution without activation"):
        with_classes(ending("yolo", keras.layers.Conv2D(6, 1, activation="sigmoid")), 2)


def test_at_another_size_the_weights_are_the_same_ones(free: Any) -> None:
    model = keras.models.clone_model(free)
    model.set_weights(free.get_weights())
    larger = at_size(model, 96, 64)
    assert larger.output_shape == (None, 84 * 3 // 2, 34)
    assert detector_size(larger) == (96, 64)
    assert {id(weight) for weight in larger.weights} == {id(weight) for weight in model.weights}
    # What is far from the new part's edge is the same: nothing reaches from there to the first row of the finest map.
    below = np.zeros((1, 96, 64, 3), np.float32)
    assert np.isfinite(answers(larger, below)).all()
    with pytest.raises(SettingError, match="wanted multiples of"):
        at_size(model, 65, 64)
    # The layers now stand in two models; the larger one is made for other classes all the same.
    assert with_classes(larger, 5).output_shape == (None, 84 * 3 // 2, 32 + 5)


def test_a_decoding_for_another_size_is_named() -> None:
    image = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(5, 1)(keras.layers.MaxPooling2D(2)(image))
    with pytest.raises(SettingError, match=r"takes \(16, 16\), its decoding is for \(8, 8\)"):
        detector_size(keras.Model(image, Predictions(Decoding("distances", (Scale(8, 8),), 8, 8, 1).as_dict())(maps)))
    with pytest.raises(SettingError, match="does not end in Predictions"):
        detector_size(keras.Model(image, maps))


# ------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Boxed(Item):
    boxes: Boxes | None = field(default=None, compare=False)


NO_AUDIT = Audit({"train": {}, "val": {}}, (SIDE,) * 3, (SIDE,) * 3, (), 0, (), (), (), ())


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Light and dark squares on grey."""
    place, random, items = tmp_path_factory.mktemp("squares"), np.random.default_rng(0), []
    for number in range(40):
        picture = random.integers(110, 140, (SIDE, SIDE, 3)).astype(np.uint8)
        corners, kinds = [], random.integers(0, 2, 2) if number else []  # the first has none
        for half, kind in enumerate(kinds):  # one on each side, so that none covers the other
            side, top = int(random.integers(7, 14)), int(random.integers(0, SIDE - 14))
            left = 16 * half + int(random.integers(0, 16 - side))
            picture[top : top + side, left : left + side] = 20 if kind else 235
            corners.append((left, top, left + side, top + side))
        Image.fromarray(picture).save(path := place / f"{number}.png")
        count = len(corners)
        boxes = Boxes(
            np.array(corners, np.float32).reshape(-1, 4),
            np.array(kinds, np.int64),
            np.ones(count, np.float32),
            np.zeros(count, bool),
        )
        part = "train" if number < 28 else "val"
        items.append(Boxed(path, -1, part, path.name, path.name, SIDE, SIDE, boxes))
    return Dataset(place, CLASSES, tuple(items), NO_AUDIT, "detect")


SHORT = DetectSettings(
    TrainSettings(epochs=3, patience=3, batch_size=7, learning_rate=1e-2, flip=True, zoom=0.1, head_epochs=0),
    mosaic=0.3,
    hue=0.0,
)


def ready(seed: int = 0) -> Any:
    return with_classes(anchored(seed=seed), CLASSES)


def same(first: Any, second: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_a_detector_learns_to_find_squares(squares: Dataset, tmp_path: Path) -> None:
    model = ready()
    before = model.get_weights()
    how = replace(SHORT.train, epochs=18, patience=18, learning_rate=3e-2, zoom=0.0, shift=0.0)
    settings = replace(SHORT, train=how, aspect=0.0, mosaic=0.0)
    found, step = train_detector(model, squares, settings, pretrained=False)
    assert step.name == "train_detector"
    assert step.settings["ap50_val"] > 0.6
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not found.compiled
    found.save(tmp_path / "found.keras")
    read = load_model(tmp_path / "found.keras")
    assert same(read, found)
    assert decoding_of_model(read) == decoding_of_model(model)
    assert classes_of_model(read) == CLASSES


def test_a_run_that_stops_gives_what_it_would_have_given(squares: Dataset, tmp_path: Path) -> None:
    whole, step = train_detector(ready(), squares, SHORT, False)

    class Killed(Exception):
        pass

    import importlib

    module: Any = importlib.import_module("featherweight.train")  # the package's own name is the verb

    write, kept = module.StateFile.write, tmp_path / "state.npz"

    def killed(self: Any, state: Any) -> None:
        write(self, state)
        if state.epochs == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module.StateFile, "write", killed)
        train_detector(ready(), squares, SHORT, False, checkpoint=kept)
    resumed, resumed_step = train_detector(ready(), squares, SHORT, False, checkpoint=kept)
    assert same(resumed, whole)
    assert resumed_step.settings["ap50_val"] == step.settings["ap50_val"]
    other = replace(SHORT, mosaic=0.4)
    with pytest.raises(SettingError, match=r"of another run: its mosaic is 0\.3, here 0\.4"):
        train_detector(ready(), squares, other, False, checkpoint=kept)


def test_the_average_is_of_the_weights_that_learn(squares: Dataset) -> None:
    """Against the formula: after each step average ← m · average + (1 - m) · weight; the first one is the weight."""
    import featherweight.detect.train as module

    seen: list[list[np.ndarray]] = []
    learners: list[Any] = []

    class Watched(module._Detector):
        def learn(self, stream: Any, callback: Any) -> None:
            learners.append(self)
            callback.on_train_batch_end = lambda batch, logs=None: seen.append(
                [np.array(weight) for weight in self.trained.trainable_variables]
            )
            super().learn(stream, callback)

    # Of 14 steps it remembers no more than 1.4: 1 - 10 / 14.
    settings = replace(SHORT, train=replace(SHORT.train, epochs=7, batch_size=14, patience=9), average=0.9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_Detector", Watched)
        train_detector(ready(), squares, settings, False)
    assert len(seen) == 14
    momentum = 1 - 10 / 14
    average = seen[0]
    for weights in seen[1:]:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, weights, strict=True)]
    learner = learners[-1]
    kept = learner.fitted.optimizer._model_variables_moving_average
    for mine, theirs in zip(average, kept, strict=True):
        assert np.asarray(theirs) == pytest.approx(mine, abs=1e-5)
    # The weights themselves were put back.
    for weight, last in zip(learner.trained.trainable_variables, seen[-1], strict=True):
        assert np.array_equal(weight, last)


def test_other_sizes_and_a_frozen_trunk(squares: Dataset) -> None:
    how = replace(SHORT.train, epochs=1, freeze_batch_norm=True, batch_size=14)
    settings = replace(SHORT, sizes=(48,), train=how)
    assert np.random.default_rng((0, 0)).integers(2) == 1  # so that the only epoch is at 48 pixels
    model = ready()
    found, step = train_detector(model, squares, settings, pretrained=False)
    assert step.settings["batch_norm"] == "trunk frozen"
    moved = {
        layer.name: not np.array_equal(layer.moving_mean, found.get_layer(layer.name).moving_mean)
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert moved == {"norm_0": False, "norm_1": False, "detect_norm": True}


def test_a_teacher_helps(squares: Dataset) -> None:
    teacher, student = ready(1), ready(2)
    endpoints = (("convolution_2", "convolution_2"),)
    settings = replace(SHORT, train=replace(SHORT.train, epochs=1))
    found, step = train_detector(
        student, squares, settings, False, distillation=Distillation(teacher, 0.5, 4.0, endpoints)
    )
    assert step.settings["distillation"]["teacher"] == "anchored"
    assert not same(found, student)
    with pytest.raises(SettingError, match="wanted the same size, classes, kind and anchors"):
        train_detector(student, squares, settings, False, distillation=Distillation(anchored()))
    with pytest.raises(SettingError, match="has no map 'nowhere'"):
        train_detector(
            student, squares, settings, False, distillation=Distillation(teacher, endpoints=(("nowhere", ""),))
        )
    with pytest.raises(SettingError, match="maps of one size"):
        pair = (("convolution_1", "convolution_2"),)
        train_detector(student, squares, settings, False, distillation=Distillation(teacher, endpoints=pair))
    with pytest.raises(SettingError, match="leave sizes out"):
        train_detector(student, squares, replace(settings, sizes=(64,)), False, distillation=Distillation(teacher))
    with pytest.raises(SettingError, match="alpha 1"):
        Distillation(teacher, alpha=1)


def test_what_cannot_be_trained(squares: Dataset) -> None:
    with pytest.raises(SettingError, match="finds 3 classes, the data has 2"):
        train_detector(anchored(), squares, SHORT, False)
    plain = replace(squares, items=tuple(replace(item, boxes=None) for item in squares.items))
    with pytest.raises(DataError, match=r"0.png comes without boxes"):
        train_detector(ready(), plain, SHORT, False)


def test_anchors_for_a_model_and_its_data(squares: Dataset, free: Any) -> None:
    items = squares.part("train")
    found = anchors_for(ready(), items)
    assert found.shape == (3, 2)
    sides = np.concatenate([boxes_of(item).corners for item in items])
    assert found.min() >= (sides[:, 2:] - sides[:, :2]).min()
    assert np.all(np.diff(found.prod(1)) > 0)
    with pytest.raises(SettingError, match="has no anchors to fit"):
        anchors_for(free, items)
