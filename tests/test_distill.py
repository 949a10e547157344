"""Distillation: the loss held against its formula, views that leave nothing behind, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import featherweight.distill
from featherweight.data import Dataset, load_pixels, read_dataset
from featherweight.distill import DistillSettings, _compile, _distiller, _pair, distill, feature_loss
from featherweight.errors import SettingError
from featherweight.models.functional import flat
from featherweight.models.zoo import Shape, build
from featherweight.train import TrainSettings, predict_pixels, train
from featherweight.training_state import State, StateFile
from tests.pictures import write_folder

SIDE = 12
PLAIN = TrainSettings(epochs=2, patience=8, batch_size=16, learning_rate=3e-2, augment=False, head_epochs=0)
AUGMENTED = replace(PLAIN, augment=True, crop=2, flip=True, shift=0.0, zoom=0.0, contrast=0.0)


def net(filters: int, side: int = SIDE, end: str = "softmax", classes: int = 3) -> Any:
    """RGB 0–255 → probabilities by two convolutions; `map` and `features` are what can be compared."""
    keras.utils.set_random_seed(filters)
    image = keras.Input((side, side, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(filters, 3, 2, "same", use_bias=False, name="first")(x)
    x = keras.layers.ReLU(name="map")(keras.layers.BatchNormalization(momentum=0.9, name="norm")(x))
    x = keras.layers.Conv2D(filters, 1, activation="relu", name="second")(x)
    x = keras.layers.Dropout(0.1)(keras.layers.GlobalAveragePooling2D(name="features")(x))
    inside = end if end in ("sigmoid", "dense softmax") else None
    x = keras.layers.Dense(classes, activation=inside and inside.removeprefix("dense "), name="logits")(x)
    if end == "softmax":
        x = keras.layers.Softmax(name="probabilities")(x)
    if end == "activation":
        x = keras.layers.Activation("softmax")(x)
    return keras.Model(image, x, name=f"net{filters}")


def per_pixel(filters: int, classes: int = 4) -> Any:
    """RGB 0–255 (6, 8, 3) → (6, 8, classes) probabilities, a pixel each."""
    keras.utils.set_random_seed(filters)
    image = keras.Input((6, 8, 3), name="image")
    x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name="map")(image)
    return keras.Model(image, keras.layers.Softmax()(keras.layers.Conv2D(classes, 1)(x)), name=f"pixels{filters}")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(write_folder(tmp_path_factory.mktemp("colours") / "colours"))


@pytest.fixture(scope="module")
def teacher(colours: Dataset) -> Any:
    model, step = train(net(12), colours, replace(PLAIN, epochs=8), pretrained=False)
    assert step.settings["accuracy_val"] >= 0.7
    return model


@pytest.fixture(scope="module")
def wide(colours: Dataset) -> Any:
    """A teacher for 20 pixels."""
    return train(net(6, side=20), colours, replace(PLAIN, epochs=8), pretrained=False)[0]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# ------------------------------------------------------------------------------------------------------ the loss


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def output(model: Any, layer: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.Model(model.inputs[0], layer)(x), np.float64)


@pytest.mark.parametrize("kind", [net, per_pixel], ids=["a picture", "a pixel"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_its_formula(kind: Callable[[int], Any], smoothing: float) -> None:
    student, wide = kind(4), kind(12)
    settings = DistillSettings(
        TrainSettings(label_smoothing=smoothing), 3.0, 0.3, feature_weight=0.7, endpoints=(("map", "map"),)
    )
    pair = _pair(flat(student), flat(wide), settings)
    distiller = _distiller(pair, False, settings)
    _compile(distiller, pair, settings.train, "sgd")
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (5, *student.input_shape[1:])).astype(np.float32)
    classes = student.output_shape[-1]
    truth = random.integers(0, classes, (5, *student.output_shape[1:-1]))
    inputs, wanted = pair.arranged(x, truth)
    found = float(distiller.compute_loss(inputs, wanted, distiller(inputs, training=False)))

    s, t = (output(model, model.layers[-1].input, x) for model in (student, wide))
    labels = np.eye(classes)[truth] * (1 - smoothing) + smoothing / classes
    hard = np.mean(-np.sum(labels * np.log(softmax(s)), -1))
    soft = 9 * np.mean(np.sum(softmax(t / 3) * (np.log(softmax(t / 3)) - np.log(softmax(s / 3))), -1))
    kernel, bias = (np.asarray(weight) for weight in distiller.student.get_layer("feature_0_projection").weights)
    ours = output(student, student.get_layer("map").output, x) @ kernel + bias
    theirs = output(wide, wide.get_layer("map").output, x)
    features = np.sum((ours - theirs) ** 2) / np.sum(theirs**2)
    assert found == pytest.approx(0.3 * hard + 0.7 * (soft + 0.7 * features), rel=1e-4)


def test_the_feature_loss_is_0_for_the_same_and_1_for_zeros() -> None:
    t = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    assert float(feature_loss(t, t)) == 0
    assert float(feature_loss(t, np.zeros_like(t))) == pytest.approx(1)
    assert float(feature_loss(100 * t, 50 * t)) == pytest.approx(0.25)
    assert float(feature_loss(np.zeros_like(t), np.zeros_like(t))) == 0


@pytest.mark.parametrize("end", ["softmax", "activation", "dense softmax", "logits"])
def test_logits_are_found_up_to_a_number_a_picture_however_the_model_ends(end: str) -> None:
    model, reference = net(4, end=end), net(4, end="logits")
    reference.set_weights(model.get_weights())
    student = net(4)
    pair = _pair(flat(student), flat(model), DistillSettings())
    x = np.random.default_rng(0).uniform(0, 255, (5, SIDE, SIDE, 3)).astype(np.float32)
    off = np.asarray(pair.asked(["logits"], own_size=True)(x)) - np.asarray(reference(x))
    np.testing.assert_allclose(off - off[:, :1], 0, atol=1e-5)
    assert end == "dense softmax" or np.abs(off).max() < 1e-6


# ---------------------------------------------------------------------------------------------------- distilling


def learns_from(teacher: Any, how: TrainSettings, alpha: float, colours: Dataset) -> dict[str, Any]:
    """A student learns the rule and leaves everything else as it was; its step's settings."""
    student = net(8)
    before = [model.get_weights() for model in (student, teacher)]
    settings = DistillSettings(replace(how, epochs=12, patience=12), alpha=alpha)
    found, step = distill(student, teacher, colours, settings, pretrained=False)
    assert step.name == "distill"
    assert step.settings["accuracy_val"] >= 0.7
    assert step.settings["teacher_accuracy_val"] >= 0.7
    assert (step.settings["teacher"], step.settings["teacher_parameters"]) == (teacher.name, teacher.count_params())
    assert same(before[0], student.get_weights())
    assert same(before[1], teacher.get_weights())
    assert all(layer.trainable for layer in teacher.layers)
    assert [layer.name for layer in found.layers] == [layer.name for layer in student.layers]  # no projection is left
    assert not found.compiled
    return step.settings


def test_a_student_learns_from_a_teacher_that_is_asked_once(colours: Dataset, teacher: Any) -> None:
    settings = learns_from(teacher, PLAIN, 0.0, colours)  # no label is told
    assert settings["teacher_asked"] == "once a picture"
    assert settings["teacher_pictures"] == "the student's"


def test_a_student_learns_from_a_teacher_of_another_size_that_is_asked_in_each_step(
    colours: Dataset, wide: Any
) -> None:
    settings = learns_from(wide, AUGMENTED, 0.5, colours)
    assert settings["teacher_asked"] == "in each step: augmentation"
    assert settings["teacher_pictures"] == "the student's, resized to 20×20"


def test_asked_once_or_in_each_step_is_the_same_training(
    colours: Dataset, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DistillSettings(replace(PLAIN, epochs=1), endpoints=(("map", "map"), ("features", "features")))
    student = net(4)
    once, _ = distill(student, teacher, colours, settings, pretrained=False)
    monkeypatch.setattr(featherweight.distill, "MEMORY_SHARE", 0)
    each, step = distill(student, teacher, colours, settings, pretrained=False)
    assert step.settings["teacher_asked"] == "in each step: 0.0 GB of answers, over a quarter of the memory"
    assert step.settings["features"] == ("map 6×6×4 like map 6×6×12", "features 4 like features 12")
    for first, second in zip(once.get_weights(), each.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_a_teacher_of_another_size_answers_to_pictures_decoded_for_it(
    colours: Dataset, wide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(featherweight.distill, "_ask", _recorded(featherweight.distill._ask, asked))
    _, step = distill(net(4), wide, colours, DistillSettings(replace(PLAIN, epochs=1)), pretrained=False)
    assert step.settings["teacher_pictures"] == "decoded at 20×20"
    items = colours.part("train")
    pixels = load_pixels(items, 20, 20).take(items)
    said = next(answers["logits"] for answers in asked if len(answers["logits"]) == len(items))
    np.testing.assert_allclose(softmax(said), predict_pixels(wide, pixels), rtol=1e-4, atol=1e-5)


def test_in_each_step_it_is_shown_the_same_pictures_resized(wide: Any) -> None:
    pair = _pair(flat(net(4)), flat(wide), DistillSettings())
    x = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    resized = keras.ops.image.resize(x, (20, 20))
    said = pair.teacher_view(False)({"image": x})
    np.testing.assert_allclose(said, pair.asked(["logits"], own_size=True)(resized), rtol=1e-5)


def test_a_teacher_for_any_size_takes_the_students(wide: Any) -> None:
    config = wide.get_config()
    config["layers"][0]["config"]["batch_shape"] = (None, None, None, 3)
    free = keras.Model.from_config(config)
    free.set_weights(wide.get_weights())
    pair = _pair(flat(net(4)), flat(free), DistillSettings(endpoints=(("map", "map"),)))
    assert pair.same_size
    assert pair.said["feature_0"].shape == (None, 6, 6, 6)


def _recorded(function: Any, found: list[Any]) -> Any:
    def recorded(*args: Any) -> Any:
        found.append(function(*args))
        return found[-1]

    return recorded


def test_a_nested_student_is_laid_open_and_its_zeros_stay_and_its_frozen_statistics_too(
    colours: Dataset, teacher: Any
) -> None:
    inner = net(4)
    kernel = inner.get_layer("first").get_weights()[0]
    kernel[..., 1] = 0
    inner.get_layer("first").set_weights([kernel])
    image = keras.Input((SIDE, SIDE, 3))
    nested = keras.Model(image, inner(image), name="outer")
    how = replace(PLAIN, keep_zeros=True, freeze_batch_norm=True)
    found, step = distill(nested, teacher, colours, DistillSettings(how, endpoints=(("map", "map"),)), pretrained=False)
    assert found.name == "outer"
    assert np.array_equal(found.get_layer("first").get_weights()[0] == 0, kernel == 0)
    assert step.settings["zeros_kept"] == 27
    assert step.settings["batch_norm"] == "frozen"
    assert not np.any(found.get_layer("norm").get_weights()[2])


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    colours: Dataset, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    write = StateFile.write

    def written(self: StateFile, state: State) -> None:
        write(self, state)
        if state.epochs == 1:
            raise Killed

    settings = DistillSettings(AUGMENTED, endpoints=(("map", "map"),))
    student, path = net(4), tmp_path / "state.npz"
    whole, _ = distill(student, teacher, colours, settings, pretrained=False)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StateFile, "write", written)
        distill(student, teacher, colours, settings, pretrained=False, checkpoint=path)
    again, _ = distill(student, teacher, colours, settings, pretrained=False, checkpoint=path)
    assert same(whole.get_weights(), again.get_weights())
    with pytest.raises(SettingError, match=r"of another run: its alpha is 0.1, here 0.5"):
        distill(student, teacher, colours, replace(settings, alpha=0.5), pretrained=False, checkpoint=path)


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_teacher_of_other_classes_is_refused(colours: Dataset, teacher: Any) -> None:
    def refused(message: str, student: Any, model: Any, **settings: Any) -> None:
        with pytest.raises(SettingError, match=message):
            distill(student, model, colours, DistillSettings(PLAIN, **settings), pretrained=False)

    refused(r"the teacher net4 tells 5 classes apart, .*colours has 3; wanted the same", net(4), net(4, classes=5))
    refused("the student net4 tells 2 classes apart", net(4, classes=2), teacher)
    refused(
        "class 1 of the teacher is 'red', of the data 'green'",
        net(4),
        teacher,
        teacher_classes=("blue", "red", "green"),
    )
    refused("class 2 of the teacher is None, of the data 'red'", net(4), teacher, teacher_classes=("blue", "green"))
    turned = keras.models.clone_model(teacher)
    turned.set_weights(teacher.get_weights())
    kernel, bias = teacher.get_layer("logits").get_weights()
    turned.get_layer("logits").set_weights([kernel[:, [1, 2, 0]], bias[[1, 2, 0]]])
    refused(r"the teacher net12 gets .* % of val right, its commonest class alone would get 33.3", net(4), turned)
    grey = build(Shape("hello", 0.25, 32), 3, channels=1)
    refused("the student takes 1 channels, the teacher 3; wanted the same", grey, teacher)


def test_models_that_end_otherwise_are_refused(colours: Dataset, teacher: Any) -> None:
    with pytest.raises(SettingError, match=r"the teacher net4 ends in logits \(Dense\); wanted a softmax"):
        distill(net(4), net(4, end="sigmoid"), colours, DistillSettings(), pretrained=False)
    with pytest.raises(SettingError, match=r"the student net4 ends in logits \(Dense\); wanted a softmax"):
        distill(net(4, end="logits"), teacher, colours, DistillSettings(), pretrained=False)
    with pytest.raises(SettingError, match="has no input shape yet"):
        distill(keras.Sequential([keras.layers.Dense(3)]), teacher, colours, DistillSettings(), pretrained=False)


def test_features_that_cannot_be_compared_are_refused_and_resized_only_when_asked() -> None:
    student, wide = flat(net(4)), flat(net(6, side=20))

    def refused(message: str, *endpoint: str, resize: bool = False) -> None:
        with pytest.raises(SettingError, match=message):
            _pair(student, wide, DistillSettings(endpoints=(endpoint,), resize=resize))  # type: ignore[arg-type]

    refused("the student net4 has no layer 'mup'; the nearest names: map, ", "mup", "map")
    refused("the teacher net6 has no layer 'conv9'; the nearest names: ", "map", "conv9")
    refused(
        "map gives 6×6×4, the teacher's map 10×10×6; wanted maps of one size: .* allow it with resize", "map", "map"
    )
    refused(
        "map gives 6×6×4, the teacher's features 6; wanted two maps, or two vectors", "map", "features", resize=True
    )
    pair = _pair(student, wide, DistillSettings(endpoints=(("map", "map"),), resize=True))
    assert pair.said["feature_0"].shape == (None, 6, 6, 6)
    assert pair.features == ("map 6×6×4 like map 10×10×6",)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperature": 0.0}, "temperature 0.0; wanted over 0"),
        ({"alpha": 1.0}, "alpha 1.0; wanted 0 up to 1"),
        ({"feature_weight": 0.0}, "feature weight 0.0; wanted over 0"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DistillSettings(**bad)  # type: ignore[arg-type]
