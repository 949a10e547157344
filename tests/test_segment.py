"""Segmenters learn: losses by hand, masks that move with their pictures, epochs, a training that goes on, a teacher."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.data import Dataset
from featherweight.errors import DataError, SettingError
from featherweight.image import resize
from featherweight.masks import IGNORE, resize_mask
from featherweight.segment import losses
from featherweight.segment.classes import with_classes
from featherweight.segment.distil import Distillation, divergence
from featherweight.segment.losses import balanced, loss_of, weights_of
from featherweight.segment.moves import Move, drawn_move, recoloured
from featherweight.segment.scores import classes_of, confusion, mean_iou
from featherweight.segment.settings import SegmentSettings
from featherweight.segment.stream import MaskStream, Pictures, pictures_of, windows_of
from featherweight.segment.train import check, train_segmenter, trunk_layers
from featherweight.train import TrainSettings
from tests.discs import SIDE, masked, unet

PLAIN = TrainSettings(epochs=2, patience=2, batch_size=4, augment=False, head_epochs=0)
LOG3 = math.log(3)


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return masked(tmp_path_factory.mktemp("discs"))


def settings(**more: Any) -> SegmentSettings:
    return SegmentSettings(**{"train": PLAIN, **more})


def loss(name: str, truth: Any, logits: Any, weights: Any = None, **more: Any) -> float:
    """Of one row of pixels: truth (w,), logits (w, channels)."""
    found = loss_of(settings(loss=name, **more), None if weights is None else np.asarray(weights, np.float32))
    return float(found(np.array(truth, np.uint8)[None, None], np.array(logits, np.float32)[None, None]))


# ---------------------------------------------------------------------------------------------------------- losses


# Logits (0, log 3) are the probabilities ¼ and ¾, for a softmax over two channels as for a sigmoid of log 3.
BOTH = pytest.mark.parametrize("pixel", [lambda z: [z], lambda z: [0.0, z]], ids=["sigmoid", "softmax"])


@BOTH
def test_cross_entropy_by_hand(pixel: Any) -> None:
    truth, logits = [1, 0, IGNORE, 1], [pixel(LOG3), pixel(LOG3), pixel(-50.0), pixel(0.0)]
    each = [-math.log(0.75), -math.log(0.25), -math.log(0.5)]
    assert loss("cross_entropy", truth, logits) == pytest.approx(sum(each) / 3, rel=1e-5)
    weighted = (3 * each[0] + each[1] + 3 * each[2]) / 7
    assert loss("cross_entropy", truth, logits, (1, 3)) == pytest.approx(weighted, rel=1e-5)
    assert loss("cross_entropy", [1], [pixel(-1000.0)]) == pytest.approx(1000, rel=1e-5)  # no overflow


@BOTH
def test_focal_by_hand(pixel: Any) -> None:
    truth, logits = [1, 0, IGNORE], [pixel(LOG3), pixel(LOG3), pixel(9.0)]
    wanted = (0.25**2 * -math.log(0.75) + 0.75**2 * -math.log(0.25)) / 2
    assert loss("focal", truth, logits) == pytest.approx(wanted, rel=1e-5)
    assert loss("focal", truth, logits, focus=0.0) == pytest.approx(loss("cross_entropy", truth, logits), rel=1e-6)


def test_dice_by_hand() -> None:
    truth, p = [1, 0, IGNORE], (0.75, 0.25)
    # of class 1: Σ p·y = ¾, Σ p² = 9/16 + 9/16, Σ y² = 1; of class 0: Σ p·y = ¼, Σ p² = 1/16 + 1/16, Σ y² = 1
    one = 1 - (2 * p[0] + 1) / (2 * p[0] ** 2 + 1 + 1)
    none = 1 - (2 * p[1] + 1) / (2 * p[1] ** 2 + 1 + 1)
    assert loss("dice", truth, [[LOG3]] * 3) == pytest.approx(one, rel=1e-5)
    assert loss("dice", truth, [[0, LOG3]] * 3) == pytest.approx((one + none) / 2, rel=1e-5)
    assert loss("dice", truth, [[0, LOG3]] * 3, (1, 3)) == pytest.approx((3 * one + none) / 4, rel=1e-5)
    # of three channels, the last is nowhere in the truth and does not count; e^0 + e^0 + e^(log 2) = 4
    first = 1 - (2 * 0.25 + 1) / (0.25**2 + 1 + 1)
    assert loss("dice", [0], [[0, 0, math.log(2)]]) == pytest.approx(first, rel=1e-5)
    assert loss("dice", [0, 0], [[-100.0], [-100.0]]) == pytest.approx(0, abs=1e-6)  # neither there nor found


def test_lovasz_softmax_by_hand() -> None:
    # Class 1: errors ¼ where it is true, ¾ where it is not. Sorted: the wrong pixel first, then the true one. Of the
    # one true pixel, IoU is 1 → 1/2 with the wrong one found too → 0 with the true one missed.
    one = 0.75 * 0.5 + 0.25 * 0.5
    # Class 0: errors ¾ where it is true, ¼ where it is not: IoU 1 → 0 at once, then nothing more to lose.
    none = 0.75 * 1.0
    logits = [[0, LOG3], [0, LOG3], [7.0, -7.0]]
    assert loss("lovasz", [1, 0, IGNORE], logits) == pytest.approx((one + none) / 2, rel=1e-5)


def test_lovasz_hinge_by_hand() -> None:
    # Errors 1 - z·(±1): true with z = ½: ½; not true with z = 1: 2; not true with z = -3: 0 after the hinge.
    truth, logits = [1, 0, 0, IGNORE], [[0.5], [1.0], [-3.0], [40.0]]
    # Sorted 2, ½, 0: IoU 1 → ½ → 0.
    assert loss("lovasz", truth, logits) == pytest.approx(2 * 0.5 + 0.5 * 0.5, rel=1e-5)


@pytest.mark.parametrize("name", losses.TERMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_ignored_counts_nowhere(name: str, channels: int) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, max(2, channels), 12)
    logits = random.normal(0, 2, (12, channels))
    hidden, other = np.concatenate([truth, [IGNORE] * 5]), random.normal(0, 9, (5, channels))
    assert loss(name, hidden, np.concatenate([logits, other])) == pytest.approx(loss(name, truth, logits), rel=1e-5)
    assert loss(name, [IGNORE, IGNORE], logits[:2]) == pytest.approx(0, abs=1e-6)
    right = 40.0 * (2 * truth[:, None] - 1) if channels == 1 else 40.0 * np.eye(channels)[truth]
    assert loss(name, truth, right) == pytest.approx(0, abs=1e-5)


def test_a_sum_of_losses_is_their_sum() -> None:
    truth, logits = [1, 0, 0], [[0.3], [0.2], [-1.0]]
    both = loss("cross_entropy", truth, logits) + loss("dice", truth, logits)
    assert loss("cross_entropy + dice", truth, logits) == pytest.approx(both, rel=1e-6)
    for name in ("dice+hinge", "dice+dice", ""):
        with pytest.raises(SettingError, match="known, once each: cross_entropy, focal"):
            settings(loss=name)


def test_every_loss_has_a_gradient() -> None:
    import tensorflow as tf

    for channels in (1, 3):
        logits = tf.constant(np.random.default_rng(0).normal(0, 1, (1, 4, 4, channels)), tf.float32)
        truth = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) % max(2, channels)
        for name in losses.TERMS:
            with tf.GradientTape() as tape:
                tape.watch(logits)
                off = loss_of(settings(loss=name))(truth, logits)
            slope = np.asarray(tape.gradient(off, logits))
            assert np.isfinite(slope).all() and np.abs(slope).max() > 1e-4, name


def test_class_weights() -> None:
    mask = np.array([[0, 0, 0, 1, IGNORE, IGNORE]], np.uint8)
    weights = weights_of(settings(class_weights="balanced"), [mask], 3)
    raw = [1 / math.log(1.02 + share) for share in (0.75, 0.25, 0)]
    assert weights == pytest.approx(np.array(raw) / (0.75 * raw[0] + 0.25 * raw[1]), rel=1e-5)
    assert np.sum(balanced(np.array([3, 1])) * (0.75, 0.25)) == pytest.approx(1)
    assert weights_of(settings(), [mask], 2) is None
    assert weights_of(settings(class_weights=(1.0, 2.0)), [mask], 2).tolist() == [1, 2]
    with pytest.raises(SettingError, match="2 class weights for 3 classes"):
        weights_of(settings(class_weights=(1.0, 2.0)), [mask], 3)
    for bad in ("even", (), (0.0, 0.0), (-1.0, 1.0)):
        with pytest.raises(SettingError, match="wanted 'balanced' or a number"):
            settings(class_weights=bad)


def test_settings_that_cannot_be() -> None:
    for how in (replace(PLAIN, crop=4), replace(PLAIN, label_smoothing=0.1)):
        with pytest.raises(SettingError, match="with masks; wanted 0"):
            settings(train=how)
    with pytest.raises(SettingError, match="out of range"):
        settings(brightness=1.0)
    with pytest.raises(SettingError, match="foreground 2"):
        settings(foreground=2.0)
    with pytest.raises(SettingError, match="unknown resize 'squeeze'"):
        settings(resize="squeeze")


# ----------------------------------------------------------------------------------------------------------- moves


def test_masks_move_with_their_pictures() -> None:
    """A mask drawn as a picture too: wherever its value is sure, both say the same."""
    random = np.random.default_rng(1)
    mask = np.zeros((40, 30), np.uint8)
    mask[8:30, 6:20] = 1
    pixels = np.repeat(mask[..., None] * 200, 3, axis=2)
    how = settings(train=replace(PLAIN, flip=True, rotate=0.2, zoom=0.3, shift=0.2), flip_vertical=True)
    seen = set()
    for _ in range(30):
        move = drawn_move((40, 30), (32, 32), how, random)
        picture, moved = move.of_pixels(pixels, 32, 32)[..., 0], move.of_mask(mask, 32, 32)
        sure = (moved != IGNORE) & ((picture == 0) | (picture == 200))
        assert np.array_equal(moved[sure], picture[sure] // 200)
        assert sure.mean() > 0.3
        seen |= set(np.unique(moved).tolist())
    assert seen == {0, 1, IGNORE}


def test_a_turned_move_is_exact() -> None:
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
    over = Move(((-1.0, 0.0), (0.0, 1.0)), (2.0, 2.0), (2.0, 2.0))
    assert np.array_equal(over.of_mask(mask, 4, 4), mask[:, ::-1])
    quarter = Move(((0.0, -1.0), (1.0, 0.0)), (2.0, 2.0), (2.0, 2.0))  # x → y: to the right becomes downwards
    assert np.array_equal(quarter.of_mask(mask, 4, 4), np.rot90(mask, -1))
    right = Move(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0), (1.0, 0.0))
    assert right.of_mask(mask, 4, 4)[0].tolist() == [IGNORE, 0, 1, 2]
    pixels = np.repeat(mask[..., None], 3, axis=2)
    assert right.of_pixels(pixels, 4, 4)[0, :, 0].tolist() == [1, 0, 1, 2]  # mirrored


def test_colours_change_the_picture_alone() -> None:
    pixels = np.full((4, 4, 3), 100, np.uint8)
    pixels[0] = 200
    found = {recoloured(pixels, settings(), np.random.default_rng(seed)).tobytes() for seed in range(5)}
    assert len(found) == 5
    still = settings(train=replace(PLAIN, contrast=0.0), brightness=0.0)
    assert recoloured(pixels, still, np.random.default_rng(0)) is pixels


def test_a_dark_picture_stays_one_to_see_something_in() -> None:
    dark = np.arange(0, 48, 3, dtype=np.uint8).repeat(3).reshape(4, 4, 3)
    for seed in range(50):
        shown = recoloured(dark, settings(brightness=0.5), np.random.default_rng(seed))
        assert len(np.unique(shown)) > 12


def test_a_tile_stands_for_the_middle() -> None:
    mask = np.arange(36, dtype=np.uint8).reshape(6, 6)
    pixels = np.repeat(mask[..., None], 3, axis=2)
    assert np.array_equal(resize_mask(mask, 2, 4, "tile"), mask[2:4, 1:5])
    assert np.array_equal(resize(pixels, 2, 4, "tile"), pixels[2:4, 1:5])
    assert np.array_equal(resize_mask(mask, 2, 8, "tile")[:, 1:7], mask[2:4])


# ---------------------------------------------------------------------------------------------------------- stream


def batches(stream: MaskStream) -> list[tuple[Any, Any]]:
    return [(images.numpy(), truth.numpy()) for images, truth in stream.next_epoch()]


def test_epochs_are_functions_of_their_number(discs: Dataset) -> None:
    items = discs.part("train")
    pictures = pictures_of(items, (SIDE, SIDE), "stretch")
    how = settings(train=replace(PLAIN, augment=True, flip=True, rotate=0.1, batch_size=5))
    first = MaskStream(pictures, how, (SIDE, SIDE), True, 0)
    epochs = [batches(first), batches(first)]
    again = batches(MaskStream(pictures, how, (SIDE, SIDE), True, 1))
    assert [len(images) for images, _ in again] == [5, 5, 2]
    assert all(np.array_equal(a[i], b[i]) for a, b in zip(epochs[1], again, strict=True) for i in (0, 1))
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])
    lone = MaskStream(Pictures(pictures.pixels[:11], pictures.masks[:11]), how, (SIDE, SIDE), True, 0)
    assert lone.cardinality() == 2  # five and five; the one that is left is for another epoch


def test_val_comes_as_it_is(discs: Dataset) -> None:
    items = discs.part("val")
    pictures = pictures_of(items, (16, 16), "stretch")
    ((images, truth),) = batches(MaskStream(pictures, settings(), (16, 16), False, 0))
    assert np.array_equal(images, pictures.pixels)
    assert np.array_equal(truth, pictures.masks)
    assert images.dtype == np.float32 and truth.dtype == np.uint8


def test_cut_outs_cover_every_pixel_once(tmp_path: Path) -> None:
    data = masked(tmp_path, counts=(2, 2, 0), side=50)
    pictures = pictures_of(data.part("val"), (SIDE, SIDE), "tile")
    assert [mask.shape for mask in pictures.masks] == [(50, 50)] * 2
    stream = MaskStream(pictures, settings(resize="tile"), (SIDE, SIDE), False, 0)
    seen = np.concatenate([truth for _, truth in batches(stream)])
    assert len(seen) == 8  # two by two a picture
    for label in (0, 1):
        assert np.sum(seen == label) == sum(np.sum(mask == label) for mask in pictures.masks)
    small = np.zeros((10, 40), np.uint8)
    assert [(w.y, w.x, w.left) for w in windows_of([small], (32, 32))] == [(-11, 0, 0), (-11, 8, 24)]
    one = Pictures([np.zeros((10, 40, 3), np.uint8)], [small])
    ((_, truth),) = batches(MaskStream(one, settings(resize="tile"), (32, 32), False, 0))
    assert np.sum(truth == 0) == small.size


@pytest.mark.parametrize("augment", [False, True])
def test_cut_outs_of_large_pictures_look_for_foreground(augment: bool) -> None:
    mask = np.zeros((200, 160), np.uint8)
    mask[150:156, 10:16] = 1
    pictures = Pictures([np.zeros((200, 160, 3), np.uint8)], [mask])
    how = settings(resize="tile", foreground=1.0, train=replace(PLAIN, augment=augment, shift=0.0))
    stream = MaskStream(pictures, how, (32, 32), True, 0)
    assert stream.count == round(200 * 160 / 32**2)
    found = np.concatenate([truth for _, truth in batches(stream)])
    assert np.mean([(one == 1).any() for one in found]) > 0.9
    never = MaskStream(pictures, replace(how, foreground=0.0), (32, 32), True, 0)
    places = np.concatenate([truth for _, truth in batches(never)])
    assert np.mean([(one == 1).any() for one in places]) < 0.3
    if not augment:
        assert not (places == IGNORE).any()  # inside of the picture


def test_masks_that_are_none(discs: Dataset) -> None:
    for rule in ("stretch", "tile"):
        with pytest.raises(DataError, match="has no mask; wanted pictures with masks"):
            pictures_of([replace(discs.items[0], mask=None)], (16, 16), rule)
        with pytest.raises(DataError, match="changed since the scan"):
            pictures_of([replace(discs.items[0], height=31)], (16, 16), rule)


# ---------------------------------------------------------------------------------------------------------- scores


def test_mean_iou_by_hand() -> None:
    truth = np.array([0, 0, 1, 1, IGNORE])
    counts = confusion(truth, np.array([0, 1, 1, 1, 2]), 4)
    assert counts[:2, :2].tolist() == [[1, 1], [0, 2]]
    assert mean_iou(counts) == pytest.approx((1 / 2 + 2 / 3) / 2)  # classes 2 and 3 are nowhere
    counts[0, 3] = 1  # found, and never true
    assert mean_iou(counts) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert mean_iou(np.zeros((2, 2), np.int64)) == 0
    assert classes_of(np.array([[[[0.2], [0.6]]]])).tolist() == [[[0, 1]]]
    assert classes_of(np.array([[[[0.2, 0.5, 0.3]]]])).tolist() == [[[1]]]


# -------------------------------------------------------------------------------------------------------- training


LEARN = replace(PLAIN, epochs=12, patience=12, learning_rate=2e-2)


@pytest.fixture(scope="module")
def learnt(discs: Dataset) -> Any:
    keras.utils.set_random_seed(0)
    model = unet(width=10, name="learnt")
    before = model.get_weights()
    trained, step = train_segmenter(model, discs, settings(train=LEARN, class_weights="balanced"), False)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert step.settings["mean_iou_val"] > 0.8
    assert len(step.settings["weights_of_classes"]) == 2
    return trained


def test_a_segmenter_learns(learnt: Any) -> None:
    trained = learnt
    assert trained.output_shape == (None, SIDE, SIDE, 1)
    assert not trained.compiled


def test_three_classes_in_cut_outs(tmp_path: Path) -> None:
    data = masked(tmp_path, 3, (8, 3, 0), side=48)
    keras.utils.set_random_seed(0)
    how = settings(train=replace(LEARN, epochs=8, augment=True), resize="tile", loss="focal+lovasz")
    _, step = train_segmenter(unet(3), data, how, False)
    assert step.settings["mean_iou_val"] > 0.6


def test_a_run_that_was_stopped_goes_on_where_it_was(discs: Dataset, tmp_path: Path) -> None:
    """Through the end of the first phase."""
    how = settings(train=replace(PLAIN, epochs=4, patience=9, head_epochs=2, augment=True))
    keras.utils.set_random_seed(0)
    model = unet()
    whole, step = train_segmenter(model, discs, how, False, checkpoint=tmp_path / "whole")
    from featherweight.segment.train import _Segmenter

    class Stopped(Exception):
        pass

    for last in (1, 2, 3):
        real = _Segmenter.learn

        def learn(self: Any, stream: Any, callback: Any, real: Any = real, last: int = last) -> None:
            if stream.epoch == last:
                raise Stopped
            real(self, stream, callback)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(_Segmenter, "learn", learn)
            train_segmenter(model, discs, how, False, checkpoint=tmp_path / "run")
    found, again = train_segmenter(model, discs, how, False, checkpoint=tmp_path / "run")
    for a, b in zip(whole.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert again.settings["epochs_run"] == step.settings["epochs_run"] == 4
    with pytest.raises(SettingError):
        train_segmenter(model, discs, replace(how, focus=1.0), False, checkpoint=tmp_path / "run")


def test_the_trunk_stays_in_the_first_phase(discs: Dataset) -> None:
    model = unet()
    assert trunk_layers(model) == {
        "scale",
        *(f"{block}_{what}" for block in ("fine", "coarse") for what in ("conv", "norm", "relu"))
    }  # fmt: skip
    how = settings(train=replace(PLAIN, epochs=1, patience=1, head_epochs=1))
    found, _ = train_segmenter(model, discs, how, False)
    for layer in model.layers:
        same = all(
            np.array_equal(a, b)
            for a, b in zip(layer.get_weights(), found.get_layer(layer.name).get_weights(), strict=True)
        )
        assert same == (layer.name in trunk_layers(model) or not layer.weights), layer.name
    assert all(layer.trainable for layer in found.layers)
    frozen, _ = train_segmenter(model, discs, settings(train=replace(PLAIN, freeze_batch_norm=True)), False)
    norms = [("fine_norm", True), ("back_norm", False)]
    for name, stays in norms:
        pair = model.get_layer(name).get_weights(), frozen.get_layer(name).get_weights()
        assert all(np.array_equal(a, b) for a, b in zip(*pair, strict=True)) == stays


def test_what_knows_already_may_be_its_own_best(discs: Dataset, learnt: Any) -> None:
    model = learnt
    how = settings(train=replace(PLAIN, learning_rate=0.5))
    found, step = train_segmenter(model, discs, how, True)
    assert step.settings["best_epoch"] == 0
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), found.get_weights(), strict=True))


def test_models_that_cannot_be_trained(discs: Dataset) -> None:
    image = keras.Input((SIDE, SIDE, 3))
    half = keras.layers.Conv2D(2, 1, 2, activation="softmax")(image)
    raw = keras.layers.Conv2D(2, 1)(image)
    for model, message in (
        (keras.Model(image, half), "wanted one map of probabilities that size"),
        (keras.Model(image, raw), "wanted a softmax or a sigmoid"),
        (unet(3), "tells 3 classes apart and the data has 2"),
    ):
        with pytest.raises(SettingError, match=message):
            check(model, 2)
    flat = keras.Model(image, keras.layers.Conv2D(1, 1, activation="sigmoid")(image))
    with pytest.raises(SettingError, match="no layer behind its trunk"):
        train_segmenter(flat, discs, settings(train=replace(PLAIN, head_epochs=1)), False)
    _, step = train_segmenter(flat, discs, settings(), False)  # logits out of probabilities
    assert 0 <= step.settings["mean_iou_val"] <= 1


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (3, 4)])
def test_other_classes_keep_all_but_the_last_convolution(before: int, after: int) -> None:
    model = unet(before)
    made = with_classes(model, after)
    assert made.output_shape == (None, SIDE, SIDE, 1 if after == 2 else after)
    check(made, after)
    for layer in model.layers:
        pair = layer.get_weights(), made.get_layer(layer.name).get_weights()
        assert layer.name == "logits" or all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))
    made.predict_on_batch(np.zeros((1, SIDE, SIDE, 3), np.float32))


def test_other_classes_where_that_cannot_be() -> None:
    image = keras.Input((8, 8, 3))
    one = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(image))
    assert with_classes(one, 2).layers[-1].activation is keras.activations.sigmoid
    none = keras.Model(image, keras.layers.Softmax()(keras.layers.ReLU()(image)))
    with pytest.raises(SettingError, match="has no convolution before"):
        with_classes(none, 2)
    with pytest.raises(SettingError, match="1 classes; wanted at least 2"):
        with_classes(one, 1)


# ----------------------------------------------------------------------------------------------------- distillation


def test_divergence_by_hand() -> None:
    told, learnt = np.array([[[[LOG3]]]], np.float32), np.array([[[[0.0]]]], np.float32)
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert np.asarray(divergence(told, learnt)) == pytest.approx(wanted, rel=1e-5)
    two = [np.concatenate([np.zeros_like(one), one], -1) for one in (told, learnt)]
    assert np.asarray(divergence(*two)) == pytest.approx(wanted, rel=1e-5)


def test_a_student_learns_from_a_teacher(
    discs: Dataset, learnt: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keras.utils.set_random_seed(0)
    taught = Distillation(learnt, 0.0, endpoints=(("coarse_relu", "coarse_relu"),))
    with caplog.at_level(logging.INFO):
        student, step = train_segmenter(
            unet(width=6), discs, settings(train=LEARN), False, None, tmp_path / "state", taught
        )
    assert step.settings["mean_iou_val"] > 0.7  # without a look at a true mask
    assert "mean IoU" in caplog.text
    assert step.settings["distillation"]["teacher"] == "learnt"
    assert not any("projection" in layer.name for layer in student.layers)
    again, _ = train_segmenter(unet(width=6), discs, settings(), False, distillation=Distillation(learnt))
    assert again.count_params() == student.count_params()


def test_teachers_that_cannot_be(discs: Dataset) -> None:
    with pytest.raises(SettingError, match="wanted the same"):
        train_segmenter(unet(), discs, settings(), False, distillation=Distillation(unet(3)))
    for pair, message in (
        (("coarse_relu", "nothing"), "has no map 'nothing'"),
        (("coarse_relu", "fine_relu"), "wanted maps of one size"),
    ):
        with pytest.raises(SettingError, match=message):
            train_segmenter(unet(), discs, settings(), False, distillation=Distillation(unet(), endpoints=(pair,)))
    with pytest.raises(SettingError, match="alpha 1"):
        Distillation(unet(), alpha=1.0)
