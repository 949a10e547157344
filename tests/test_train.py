from dataclasses import replace

import numpy as np
import pytest

from featherweight.data import labels, load_pixels
from featherweight.errors import SettingError
from featherweight.models.zoo import Shape, build
from featherweight.train import TrainSettings, augmentation, batches, predict_pixels, set_seed, train
from tests.trained import SIZE, Trained


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


def test_augmentation_changes_pictures_and_stays_in_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    settings = TrainSettings(batch_size=6, flip=True, rotate=0.03)
    assert len(augmentation(settings)) == 5
    ((images, truth),) = batches(pixels, np.arange(6), settings)
    images, original = np.asarray(images), pixels[np.asarray(truth)]
    assert all(np.abs(a - b).max() > 1 for a, b in zip(images, original, strict=True))
    assert images.min() >= 0
    assert images.max() <= 255


def test_the_first_weights_follow_the_seed() -> None:
    def first(seed: int) -> np.ndarray:
        set_seed(seed)
        return build(Shape("mobilenet_v1", 0.25, SIZE), 3).get_weights()[0]

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


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"patience": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="wanted"):
        replace(TrainSettings(), **bad)
