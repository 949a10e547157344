from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.data import Dataset, labels, load_pixels, read_dataset
from featherweight.errors import OutputError, SettingError
from featherweight.models.load import load_model
from featherweight.models.zoo import Shape, build
from featherweight.train import (
    TrainSettings,
    augmentation,
    batches,
    cross_entropy,
    moved,
    optimizer,
    predict_pixels,
    set_seed,
    train,
)
from featherweight.training_state import State, StateFile, digest
from tests.pictures import write_folder
from tests.trained import SIZE, Trained

SIDE = 12
SHORT = TrainSettings(
    epochs=3, patience=3, batch_size=16, learning_rate=3e-2, crop=2, flip=True, shift=0.0, zoom=0.0, contrast=0.0,
    head_epochs=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(write_folder(tmp_path_factory.mktemp("colours") / "colours"))


def tiny(seed: int = 0) -> Any:
    """RGB 0–255 (12, 12, 3) → 3 probabilities, by one convolution of 8 filters."""
    set_seed(seed)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(8, 3, 2, use_bias=False, name="convolution")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name="norm")(x))
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    x = keras.layers.Dense(3, name="logits")(keras.layers.Dropout(0.2)(x))
    return keras.Model(image, keras.layers.Softmax()(x))


def same(first: Any, second: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_training_learns_the_rule_and_leaves_the_given_model_alone(trained: Trained) -> None:
    items = trained.dataset.part("test")
    pixels, truth = load_pixels(items, SIZE, SIZE).take(items), labels(items)
    after = np.mean(np.argmax(predict_pixels(trained.model, pixels), 1) == truth)
    assert after >= 0.7  # chance is a third
    fresh = build(Shape("mobilenet_v1", 0.25, SIZE), 3)
    assert len(fresh.get_weights()) == len(trained.untrained.get_weights())
    means = [w for w in trained.untrained.weights if w.path.endswith("moving_mean")]
    assert all(not np.any(np.asarray(w)) for w in means)  # training would have moved them


def test_the_step_says_how_it_was_trained(trained: Trained) -> None:
    assert trained.step.name == "train"
    assert trained.step.settings["learning_rate"] == 1e-2
    assert 1 <= trained.step.settings["best_epoch"] <= trained.step.settings["epochs_run"] <= 12
    assert 0.7 <= trained.step.settings["accuracy_val"] <= 1


def test_pretrained_features_alone_tell_the_colours(trained: Trained) -> None:
    settings = TrainSettings(epochs=1, batch_size=16, learning_rate=1e-6, head_learning_rate=0.05)
    _, step = train(trained.model, trained.dataset, settings, pretrained=True)
    assert step.settings["head_accuracy_val"] >= 0.7


def test_same_seed_same_weights_other_seed_others(trained: Trained) -> None:
    settings = TrainSettings(epochs=1, batch_size=48)
    first, again, other = (
        train(trained.untrained, trained.dataset, replace(settings, seed=seed), pretrained=False)[0]
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), again.get_weights(), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_the_trained_model_is_an_ordinary_one_whose_file_has_no_optimizer(colours: Dataset, tmp_path: Path) -> None:
    model, _ = train(tiny(), colours, replace(SHORT, epochs=1, label_smoothing=0.1), pretrained=False)
    assert not model.compiled
    model.save(tmp_path / "model.keras")
    assert same(load_model(tmp_path / "model.keras"), model)


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.zeros((count, 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return pixels, np.arange(count)


def test_batches_deliver_every_picture_once_an_epoch_in_a_new_order() -> None:
    stream = batches(*numbered(10), TrainSettings(batch_size=4, augment=False))
    epochs = [[int(label) for _, truth in stream for label in truth] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_batches_keep_pictures_and_labels_together_as_floats_of_0_to_255() -> None:
    for images, truth in batches(*numbered(10), TrainSettings(batch_size=4, augment=False)):
        assert images.dtype == "float32"
        assert np.array_equal(np.asarray(images)[:, 0, 0, 0], np.asarray(truth))


@pytest.mark.parametrize(("count", "shuffle", "sizes"), [(9, True, [4, 4]), (9, False, [4, 4, 1]), (1, True, [1])])
def test_a_last_batch_of_one_is_left_out_of_training_only(count: int, shuffle: bool, sizes: list[int]) -> None:
    stream = batches(*numbered(count), TrainSettings(batch_size=4, augment=False), shuffle=shuffle)
    assert [len(truth) for _, truth in stream] == sizes
    assert int(stream.cardinality()) == len(sizes)


def test_what_stands_beside_a_picture_stays_with_it() -> None:
    pixels, truth = numbered(10)
    beside = [truth[:, None].astype(np.float32), np.ones((10, 2, 3), np.float32)]
    for _, labels_of, first, second in batches(
        pixels, truth, TrainSettings(batch_size=4, augment=False), beside=beside
    ):
        assert np.array_equal(first[:, 0], labels_of)
        assert second.shape[1:] == (2, 3)


def test_an_epoch_is_a_function_of_the_seed_and_its_number() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)

    def epochs(first: int, count: int, seed: int = 0) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        settings = TrainSettings(batch_size=8, flip=True, crop=2, rotate=0.03, seed=seed)
        stream = batches(pixels, np.arange(20), settings, first_epoch=first)
        return [[(np.asarray(x), np.asarray(y)) for x, y in stream] for _ in range(count)]

    def equal(first: Any, second: Any) -> bool:
        return all(np.array_equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))

    all_three = epochs(0, 3)
    assert equal(epochs(2, 1)[0], all_three[2])
    assert not equal(all_three[1], all_three[2])
    assert not equal(epochs(2, 1, seed=1)[0], all_three[2])


def test_augmentation_changes_pictures_and_stays_in_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    settings = TrainSettings(batch_size=6, flip=True, rotate=0.03)
    assert len(augmentation(settings)) == 4
    ((images, truth),) = batches(pixels, np.arange(6), settings)
    images, original = np.asarray(images), pixels[np.asarray(truth)]
    assert all(np.abs(a - b).max() > 1 for a, b in zip(images, original, strict=True))
    assert images.min() >= 0
    assert images.max() <= 255


def test_pictures_move_by_whole_pixels_over_their_mirror_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 6, 7, 3), np.uint8)
    found = moved(pixels, TrainSettings(crop=2, flip=True), np.random.default_rng(1))
    seen = set()
    for picture, original in zip(found, pixels, strict=True):
        around = np.pad(original, ((2, 2), (2, 2), (0, 0)), "reflect")
        views = {(y, x): around[y : y + 6, x : x + 7] for y in range(5) for x in range(5)}
        views |= {(y, x, "turned"): view[:, ::-1] for (y, x), view in views.items()}
        seen |= {place for place, view in views.items() if np.array_equal(view, picture)}
    assert len(seen) >= 48  # of the 50 places, with 200 draws
    assert moved(pixels, TrainSettings(), np.random.default_rng(1)) is pixels
    with pytest.raises(SettingError, match=r"crop 6 of pictures of \(6, 7\); wanted less"):
        batches(pixels, np.arange(200), TrainSettings(crop=6))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])  # a label a picture, a label a pixel
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    logits, truth = random.normal(size=(*shape, 3)).astype(np.float32), random.integers(0, 3, shape)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for smoothing in (0.0, 0.3):
        wanted = np.eye(3)[truth] * (1 - smoothing) + smoothing / 3
        expected = np.mean(-np.sum(wanted * np.log(probabilities), -1))
        settings = TrainSettings(label_smoothing=smoothing)
        assert float(np.mean(cross_entropy(settings, 3)(truth, probabilities))) == pytest.approx(expected, rel=1e-5)
        found = cross_entropy(settings, 3, from_logits=True)(truth, logits)
        assert float(np.mean(found)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_kernels_decay_by_the_learning_rate_and_nothing_else_does(name: str) -> None:
    model = tiny()
    before = [np.asarray(weight) for weight in model.trainable_variables]
    made = optimizer(TrainSettings(optimizer=name, weight_decay=0.5, learning_rate=0.1), model, steps=4)
    made.apply([np.zeros(weight.shape, np.float32) for weight in before], model.trainable_variables)
    for weight, old in zip(model.trainable_variables, before, strict=True):
        # The first step of the warm-up: a tenth of the learning rate.
        expected = old * (1 - 0.01 * 0.5) if old.ndim > 1 else old
        np.testing.assert_allclose(np.asarray(weight), expected, rtol=1e-6, atol=1e-9)


def test_sgd_learns_the_rule_too(colours: Dataset) -> None:
    settings = replace(SHORT, optimizer="sgd", epochs=8, patience=8, weight_decay=1e-3)
    assert train(tiny(), colours, settings, pretrained=False)[1].settings["accuracy_val"] >= 0.7


def test_zeros_of_kernels_are_kept_beside_a_layers_own_constraint(colours: Dataset) -> None:
    config = tiny().get_config()
    dense = next(layer for layer in config["layers"] if layer["name"] == "logits")["config"]
    dense["kernel_constraint"] = keras.saving.serialize_keras_object(keras.constraints.NonNeg())
    model = keras.Model.from_config(config)
    kernel = model.get_layer("convolution").get_weights()[0]
    kernel[0] = 0
    model.get_layer("convolution").set_weights([kernel])
    model.get_layer("logits").set_weights([np.ones((8, 3)) * (np.arange(8) % 2)[:, None], np.zeros(3)])
    sparse, step = train(model, colours, replace(SHORT, keep_zeros=True, weight_decay=1e-3), pretrained=False)
    assert step.settings["zeros_kept"] == 3 * 3 * 8 + 4 * 3
    found, (last, bias) = (sparse.get_layer(name).get_weights() for name in ("convolution", "logits"))
    assert np.array_equal(found[0] == 0, kernel == 0)
    assert not np.array_equal(found[0], kernel)
    assert not last[::2].any()
    assert last.min() == 0
    assert bias.any()  # it began as zeros
    assert sparse.get_layer("convolution").kernel.constraint is None
    assert isinstance(sparse.get_layer("logits").kernel.constraint, keras.constraints.NonNeg)


@pytest.mark.parametrize(("asked", "frozen"), [(None, True), (False, False)])
def test_batch_norm_is_frozen_where_the_weights_are_kept_unless_it_is_asked(
    asked: bool | None, frozen: bool, colours: Dataset
) -> None:
    model, step = train(tiny(), colours, replace(SHORT, freeze_batch_norm=asked), pretrained=True)
    assert step.settings["best_epoch"] > 0
    assert step.settings["batch_norm"] == ("frozen" if frozen else "trained")
    assert np.any(model.get_layer("norm").get_weights()[2]) != frozen
    assert "head_accuracy_val" not in step.settings  # head_epochs=0


# ---------------------------------------------------------------------------------------------------- resuming


class Killed(BaseException):
    pass


def killed_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """The state is written, and then nothing comes any more."""
    write = StateFile.write

    def written(self: StateFile, state: State) -> None:
        write(self, state)
        if state.epochs == epochs:
            raise Killed

    monkeypatch.setattr(StateFile, "write", written)


# Every source of chance is in it: order, moved bytes, Keras' layers, dropout.
@pytest.mark.parametrize(("pretrained", "epochs"), [(False, 2), (True, 0)])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    pretrained: bool, epochs: int, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SHORT, head_epochs=3, label_smoothing=0.1, optimizer="sgd", zoom=0.1 * pretrained)
    start = tiny()
    whole, whole_step = train(start, colours, settings, pretrained)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, epochs)
        train(start, colours, settings, pretrained, checkpoint=tmp_path / "sub" / "state.npz")
    again, step = train(start, colours, settings, pretrained, checkpoint=tmp_path / "sub" / "state.npz")
    assert same(whole, again)
    assert {**step.settings, "train_s": 0} == {**whole_step.settings, "train_s": 0}
    with monkeypatch.context() as patch:  # it is done: not one more epoch
        patch.setattr(StateFile, "write", lambda *_: pytest.fail("an epoch was run"))
        assert same(train(start, colours, settings, pretrained, checkpoint=tmp_path / "sub" / "state.npz")[0], whole)


def test_a_state_of_another_run_or_a_damaged_one_is_refused(colours: Dataset, tmp_path: Path) -> None:
    path, start, settings = tmp_path / "state.npz", tiny(), replace(SHORT, epochs=1)
    train(start, colours, settings, False, checkpoint=path)
    with pytest.raises(SettingError, match=r"of another run: its learning_rate is 0.03, here 0.02; name another"):
        train(start, colours, replace(settings, learning_rate=0.02), False, checkpoint=path)
    with pytest.raises(SettingError, match="its pretrained is False, here True"):
        train(start, colours, settings, True, checkpoint=path)
    with pytest.raises(SettingError, match="its weights is"):
        train(tiny(seed=1), colours, settings, False, checkpoint=path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x93NUMPY", b'{"schema": 1}'):
        path.write_bytes(damaged)
        with pytest.raises(SettingError, match="no state of a training that can be read; remove it"):
            train(start, colours, settings, False, checkpoint=path)


def test_a_state_of_another_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "state.npz", {})
    with monkeypatch.context() as patch:
        patch.setattr("featherweight.training_state.SCHEMA", 99)
        file.write(State(((1.0, 0.5),), (), ()))
    with pytest.raises(SettingError, match="no state of a training"):
        file.read()


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.npz", {"settings": {"widths": (1, 2)}})
    assert file.read() is None
    arrays = (np.arange(3, dtype=np.uint32), np.float32([[0.1]]), np.array(7))
    state = State(((np.inf, 0.0), (0.5, 0.25)), arrays, arrays[1:2], 1.5, {"head": 0.5})
    file.write(state)
    found = file.read()
    assert found is not None
    assert replace(found, variables=(), best=()) == replace(state, variables=(), best=())
    assert found.epochs == 1
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found.variables, arrays, strict=True))
    assert np.array_equal(found.best[0], arrays[1])


def test_a_state_that_cannot_be_written_is_known_before_the_work(colours: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "state.npz", tmp_path):
        with pytest.raises((OutputError, SettingError), match=str(tmp_path)):
            train(tiny(), colours, SHORT, False, checkpoint=path)


def test_a_digest_tells_shapes_and_numbers() -> None:
    one = np.zeros((2, 3), np.float32)
    assert digest([one]) == digest([one.copy()])
    assert len({digest([a]) for a in (one, one.T, one + 1, one.astype(np.float64))} | {digest([one, one])}) == 5


# ------------------------------------------------------------------------------------------------------- rules


def test_the_first_weights_follow_the_seed() -> None:
    def first(seed: int) -> np.ndarray:
        set_seed(seed)
        return build(Shape("hello", 0.25, SIZE), 3).get_weights()[0]

    assert np.array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


def test_a_network_without_batch_norm_takes_smaller_steps(trained: Trained) -> None:
    model = build(Shape("squeezenet_1_1", 0.25, SIZE), 3)
    settings = TrainSettings(epochs=1, batch_size=32, learning_rate=1e-3, augment=False)
    _, step = train(model, trained.dataset, settings, pretrained=False)
    assert step.settings["learning_rate"] == pytest.approx(1e-4)


def test_fine_tuning_that_only_harms_is_undone(trained: Trained) -> None:
    settings = TrainSettings(epochs=1, batch_size=16, learning_rate=0.9, augment=False)
    model, step = train(trained.model, trained.dataset, settings, pretrained=True)
    assert step.settings["best_epoch"] == 0
    assert step.settings["epochs_run"] == 1
    assert step.settings["accuracy_val"] == pytest.approx(step.settings["head_accuracy_val"])
    stem = "conv1"
    assert np.array_equal(model.get_layer(stem).get_weights()[0], trained.model.get_layer(stem).get_weights()[0])


def test_losses_that_are_no_numbers_are_the_worst_and_end_the_run(colours: Dataset) -> None:
    settings = replace(SHORT, epochs=9, patience=2, learning_rate=0.9, optimizer="sgd", augment=False)
    model = tiny()
    model.get_layer("logits").set_weights([np.full((8, 3), 1e38), np.zeros(3)])
    found, step = train(model, colours, settings, pretrained=True)
    assert step.settings["epochs_run"] in (2, 3)
    assert step.settings["best_epoch"] == 0
    assert same(found, model)


def test_a_model_without_our_names_has_no_phase_for_its_head(colours: Dataset) -> None:
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    )
    with pytest.raises(SettingError, match="has no layer 'features' for the head's phase; leave it out: head_epochs=0"):
        train(model, colours, TrainSettings(), pretrained=True)
    settings = replace(SHORT, epochs=1, learning_rate=1e-5)
    assert train(model, colours, settings, pretrained=True)[1].settings["epochs_run"] == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"epochs": 0}, "wanted >= 1"),
        ({"patience": 0}, "wanted >= 1"),
        ({"batch_size": 0}, "wanted >= 1"),
        ({"head_epochs": -1}, "head epochs -1, crop 0; wanted >= 0"),
        ({"crop": -1}, "crop -1; wanted >= 0"),
        ({"learning_rate": 0.0}, "learning rate 0.0; wanted between 0 and 1"),
        ({"weight_decay": -0.1}, "weight decay -0.1, label smoothing 0.0; wanted 0 up to 1"),
        ({"label_smoothing": 1.0}, "label smoothing 1.0; wanted 0 up to 1"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; known: adam, sgd"),
        ({"seed": -1}, "seed -1; wanted 0 to 4294967295"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        replace(TrainSettings(), **bad)
