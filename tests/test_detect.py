"""Geometry, assignments, losses, anchors, moves and scores of detection, on grids small enough to work by hand."""

import math
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from featherweight.boxes import Boxes, Decoding, Scale
from featherweight.detect.anchors import fitted_anchors, mean_iou
from featherweight.detect.assign import MOST_ROWS, by_anchor, by_task
from featherweight.detect.geometry import (
    complete_iou,
    found_boxes,
    found_scores,
    iou,
    priors_of,
    shape_iou,
)
from featherweight.detect.losses import BOX, DISTRIBUTION, loss_of
from featherweight.detect.moves import Move, drawn_move, mosaic, recoloured, stretched
from featherweight.detect.scores import average_precision, quick_boxes
from featherweight.detect.settings import DetectSettings
from featherweight.detect.stream import BoxStream, Pictures, padded, truth_of
from featherweight.errors import SettingError
from featherweight.train import TrainSettings

LN2 = math.log(2)


def free(cells: int = 2, side: int = 16, classes: int = 1, bins: int = 0) -> Decoding:
    """One map, without anchors."""
    return Decoding("distances", (Scale(cells, cells),), side, side, classes, bins=bins)


def yolo(*scales: Scale, side: int = 16, classes: int = 1, **more: Any) -> Decoding:
    return Decoding("yolo", scales, side, side, classes, **more)


def truth(*rows: tuple[float, ...]) -> np.ndarray:
    """One picture: (left, top, right, bottom, class[, hard])."""
    return padded([np.array([(*row, 0.0)[:6] for row in rows], np.float32).reshape(-1, 6)])


def numbers(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


# ------------------------------------------------------------------------------------------------------- geometry


def test_iou_by_hand() -> None:
    assert float(iou(np.float32([0, 0, 2, 2]), np.float32([1, 1, 3, 3]))) == pytest.approx(1 / 7)
    assert iou(np.float32([0, 0, 2, 2]), np.float32([5, 5, 6, 6])) == 0
    assert iou(np.float32([1, 1, 1, 1]), np.float32([0, 0, 2, 2])) == 0
    assert iou(np.float32([1, 1, 1, 1]), np.float32([1, 1, 1, 1])) == 0
    assert float(shape_iou(np.float32([4, 4]), np.float32([5, 5]))) == pytest.approx(16 / 25)


def test_complete_iou_by_hand() -> None:
    # Centres (1, 1) and (2, 2) lie √2 apart, what holds both has a diagonal of √18.
    assert float(complete_iou(np.float32([0, 0, 2, 2]), np.float32([1, 1, 3, 3]))) == pytest.approx(1 / 7 - 2 / 18)
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    wanted = 0.5 - 1 / 20 - v / (0.5 + v) * v
    assert float(complete_iou(np.float32([0, 0, 2, 2]), np.float32([0, 0, 4, 2]))) == pytest.approx(wanted, rel=1e-5)
    assert float(complete_iou(np.float32([3, 4, 5, 9]), np.float32([3, 4, 5, 9]))) == pytest.approx(1, abs=1e-6)


def test_rows_of_kind_yolo_are_boxes_about_their_cells() -> None:
    decoding = yolo(Scale(2, 2, ((8.0, 4.0), (2.0, 2.0)), 2.0), side=32)
    raw = np.zeros((1, 8, 6), np.float32)
    raw[0, 2, 0] = math.log(3)  # σ = 0.75: a quarter of a cell of 16 pixels, twice as far by xy_scale
    raw[0, 3, 2] = math.log(2)
    raw[0, 4, 4] = math.log(3)
    boxes = numbers(found_boxes(raw, decoding, priors_of(decoding)))[0]
    # Rows of a cell stand together: cell (0, 0) has rows 0 and 1, its right neighbour 2 and 3.
    assert boxes[0] == pytest.approx([4, 6, 12, 10])
    assert boxes[2] == pytest.approx([28, 6, 36, 10])
    assert boxes[3] == pytest.approx([22, 7, 26, 9])
    assert boxes[4] == pytest.approx([4, 22, 12, 26])
    assert numbers(found_scores(raw, decoding))[0, [0, 4], 0] == pytest.approx([0.25, 0.375])


def test_rows_of_distances_are_boxes_about_their_cells() -> None:
    decoding = free()
    raw = np.zeros((1, 4, 5), np.float32)
    raw[0, 1, :4] = 1, 2, 3, 0.5
    boxes = numbers(found_boxes(raw, decoding, priors_of(decoding)))[0]
    assert boxes[1] == pytest.approx([12 - 8, 4 - 16, 12 + 24, 4 + 4])
    decoding = free(bins=4)
    raw = np.zeros((1, 4, 17), np.float32)
    raw[0, 0, 4:8] = 0, 0, 0, 100  # the top's bins: all at 3
    boxes = numbers(found_boxes(raw, decoding, priors_of(decoding)))[0]
    assert boxes[0] == pytest.approx([4 - 12, 4 - 24, 4 + 12, 4 + 12])  # others (0 + 1 + 2 + 3) / 4 strides


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding("region", (Scale(2, 2, ((1.0, 1.0),)),), 16, 16, 1),
        yolo(Scale(2, 2, ((1.0, 1.0),)), uncertain=True),
        yolo(Scale(2, 2, ((1.0, 1.0),)), activated=True),
    ],
)
def test_other_kinds_are_refused(decoding: Decoding) -> None:
    with pytest.raises(SettingError, match="is not trained here; wanted yolo or distances"):
        loss_of(decoding)


# ---------------------------------------------------------------------------------------------------- assignments


def test_by_task_the_wanted_score_is_the_place_of_the_best() -> None:
    boxes = np.float32([[[0, 0, 16, 8], [0, 0, 16, 16], [0, 0, 16, 16], [0, 0, 16, 16]]])
    scores = np.float32([[[0.9], [0.5], [0.5], [0.25]]])
    found = by_task(scores, boxes, truth((0, 0, 16, 16, 0)), priors_of(free()))
    # t = score · IoU⁶: 0.9 / 64, 0.5, 0.5, 0.25; divided by the best, times its IoU of 1.
    assert numbers(found.quality)[0] == pytest.approx([0.9 / 64 / 0.5, 1, 1, 0.5])
    assert numbers(found.positive).all()
    assert not numbers(found.negative).any()


def test_by_task_a_row_that_two_want_is_of_the_box_it_fits_better() -> None:
    boxes = np.tile(np.float32([0, 0, 10, 10]), (1, 4, 1))
    given_truth = truth((0, 0, 8, 8, 0), (0, 0, 10, 10, 1))
    found = by_task(np.full((1, 4, 2), 0.5, np.float32), boxes, given_truth, priors_of(free()))
    # Both hold the middle of the first cell, (4, 4), alone: the others' are at 12.
    assert numbers(found.positive)[0].tolist() == [True, False, False, False]
    assert numbers(found.truth)[0, 0].tolist() == [0, 0, 10, 10, 1, 0]
    assert numbers(found.quality)[0] == pytest.approx([1, 0, 0, 0])


def test_by_task_takes_the_best_few_and_every_box_gets_one() -> None:
    decoding = free(cells=4, side=32)
    scores = np.linspace(0.1, 0.9, 16, dtype=np.float32).reshape(1, 16, 1)
    whole = np.tile(np.float32([0, 0, 32, 32]), (1, 16, 1))
    found = by_task(scores, whole, truth((0, 0, 32, 32, 0)), priors_of(decoding))
    assert numbers(found.positive)[0].tolist() == [False] * (16 - MOST_ROWS) + [True] * MOST_ROWS
    # A box of two pixels between four cells, and found boxes that have nothing in common with it.
    nowhere = np.tile(np.float32([30, 30, 31, 31]), (1, 16, 1))
    found = by_task(scores, nowhere, truth((7, 7, 9, 9, 0)), priors_of(decoding))
    assert np.flatnonzero(numbers(found.positive)[0]).tolist() == [0, 1, 4, 5]


def test_by_task_hard_boxes_and_filled_up_rows_are_nobodys() -> None:
    given_truth = truth((0, 0, 8, 8, 0, 1), (0, 0, 16, 16, -1))
    scores, boxes = np.full((1, 4, 1), 0.5, np.float32), np.zeros((1, 4, 4), np.float32)
    found = by_task(scores, boxes, given_truth, priors_of(free()))
    assert not numbers(found.positive).any()
    assert numbers(found.negative)[0].tolist() == [False, True, True, True]


ANCHORED = yolo(Scale(2, 2, ((4.0, 4.0),)), Scale(1, 1, ((12.0, 12.0),)))
NOTHING = np.zeros((1, 5, 4), np.float32)


@pytest.mark.parametrize(
    ("side", "rows"),
    [
        (5, [0]),  # 16 / 25 in common with the small anchor, 25 / 144 = 0.17 with the large one
        (8, [0, 4]),  # 16 / 64 and 64 / 144: both are over 0.213
        (1, [0]),  # 1 / 16 at most: the nearest answers whatever it has in common
    ],
)
def test_by_anchor_the_nearest_shape_and_all_near_ones_answer(side: float, rows: list[int]) -> None:
    box = (3 - side / 2, 3 - side / 2, 3 + side / 2, 3 + side / 2, 0)
    found = by_anchor(NOTHING, truth(box), ANCHORED, priors_of(ANCHORED))
    assert np.flatnonzero(numbers(found.positive)[0]).tolist() == rows


def test_by_anchor_two_boxes_in_a_row_a_middle_on_the_edge_and_good_guesses() -> None:
    priors = priors_of(ANCHORED)
    both = truth((0, 0, 5, 5, 0), (2, 2, 6, 6, 0))
    assert numbers(by_anchor(NOTHING, both, ANCHORED, priors).truth)[0, 0, :4].tolist() == [2, 2, 6, 6]
    edge = by_anchor(NOTHING, truth((14, 14, 18, 18, 0)), ANCHORED, priors)
    assert np.flatnonzero(numbers(edge.positive)[0]).tolist() == [3]
    guess = NOTHING.copy()
    guess[0, 3] = 0, 0, 5, 5
    found = by_anchor(guess, truth((0, 0, 5, 5, 0)), ANCHORED, priors)
    assert numbers(found.negative)[0].tolist() == [False, True, True, False, True]
    hard = by_anchor(guess, truth((0, 0, 5, 5, 0, 1)), ANCHORED, priors)
    assert not numbers(hard.positive).any()
    assert numbers(hard.negative)[0].tolist() == [True, True, True, False, True]


# --------------------------------------------------------------------------------------------------------- losses


def test_the_yolo_loss_by_hand() -> None:
    decoding = yolo(Scale(1, 1, ((8.0, 8.0),)))
    loss = loss_of(decoding)
    raw = np.zeros((1, 1, 6), np.float32)
    # The box is right: what is left is ln 2 for an objectness of a half, and for a class of a half.
    assert float(loss(truth((4, 4, 12, 12, 0)), raw)) == pytest.approx(2 * LN2, abs=1e-5)
    assert float(loss(truth(), raw)) == pytest.approx(LN2)
    # A hard one in its place: nothing is asked.
    assert float(loss(truth((4, 4, 12, 12, 0, 1)), raw)) == 0
    # Half as wide: IoU 1/2, centres alike, v of the ratios 1 and 1/2.
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    off = 1 - 0.5 + v / (0.5 + v) * v
    assert float(loss(truth((6, 4, 10, 12, 0)), raw)) == pytest.approx(2 * off + 2 * LN2, rel=1e-5)


def test_the_loss_of_distances_by_hand() -> None:
    loss = loss_of(free(cells=1))
    raw = np.zeros((1, 1, 5), np.float32)
    raw[..., :4] = 0.5
    assert float(loss(truth((0, 0, 16, 16, 0)), raw)) == pytest.approx(0.25 * LN2, abs=1e-5)
    assert float(loss(truth(), raw)) == pytest.approx(0.25 * LN2)
    assert float(loss(truth((0, 0, 16, 16, 0, 1)), raw)) == 0


def test_the_loss_of_distributions_by_hand() -> None:
    loss = loss_of(free(cells=1, bins=4))
    raw = np.zeros((1, 1, 17), np.float32)
    # Each side is found at 1.5 strides of 16, where 0.5 is true: 48 pixels wide, an IoU of 1/9.
    wanted = (0.5 - 1 / 9) ** 2 * LN2 + BOX / 9 * (1 - 1 / 9) + DISTRIBUTION / 9 * math.log(4)
    assert float(loss(truth((0, 0, 16, 16, 0)), raw)) == pytest.approx(wanted, rel=1e-5)


def test_a_batch_has_the_sum_over_what_it_asks_for() -> None:
    loss = loss_of(yolo(Scale(1, 1, ((8.0, 8.0),))))
    both = np.concatenate([truth((4, 4, 12, 12, 0)), truth()])
    assert float(loss(both, np.zeros((2, 1, 6), np.float32))) == pytest.approx(3 * LN2, abs=1e-5)


@pytest.mark.parametrize("decoding", [ANCHORED, free(), free(bins=8)])
@pytest.mark.parametrize("boxes", [(), ((5, 5, 5, 5, 0),), ((0, 0, 16, 16, 0), (1, 2, 3, 4, 0, 1))])
@pytest.mark.parametrize("size", [0.0, 1.0, 300.0])
def test_gradients_are_finite(decoding: Decoding, boxes: Any, size: float) -> None:
    random = np.random.default_rng(0)
    raw = tf.Variable(random.normal(0, 1, (1, decoding.priors, decoding.values)).astype(np.float32) * size)
    with tf.GradientTape() as tape:
        value = loss_of(decoding)(truth(*boxes), raw)
    assert np.isfinite(float(value))
    assert np.isfinite(numbers(tape.gradient(value, raw))).all()


@pytest.mark.parametrize("decoding", [yolo(Scale(4, 4, ((6.0, 6.0),)), classes=2), free(4, classes=2, bins=6)])
def test_rows_that_follow_the_loss_find_the_boxes(decoding: Decoding) -> None:
    random = np.random.default_rng(1)
    raw = tf.Variable(random.normal(0, 0.1, (1, decoding.priors, decoding.values)).astype(np.float32))
    wanted = truth((1, 1, 7, 8, 0), (8, 9, 15, 14, 1))
    optimizer, loss = keras.optimizers.Adam(0.1), tf.function(loss_of(decoding))
    for _ in range(150):
        with tf.GradientTape() as tape:
            value = loss(wanted, raw)
        optimizer.apply_gradients([(tape.gradient(value, raw), raw)])
    found = quick_boxes(np.asarray(raw), decoding)
    assert average_precision(found, [wanted[0]], 2) == 1
    assert found[0].labels[:2].tolist() in ([0, 1], [1, 0])
    assert float(np.asarray(iou(found[0].corners[found[0].labels == 0][0], wanted[0, 0, :4]))) > 0.8


# -------------------------------------------------------------------------------------------------------- anchors


def test_anchors_are_the_middles_of_the_kinds_of_boxes() -> None:
    random = np.random.default_rng(0)
    small, wide = random.uniform(9, 11, (50, 2)), random.uniform((78, 38), (82, 42), (50, 2))
    found = fitted_anchors(np.concatenate([wide, small]), 2)
    assert found == pytest.approx(np.array([small.mean(0), wide.mean(0)]))
    assert np.array_equal(found, fitted_anchors(np.concatenate([wide, small]), 2))
    assert mean_iou(small, found) > 0.85
    assert mean_iou(np.array([[10.0, 10.0]]), np.array([[10.0, 20.0]])) == 0.5


def test_as_many_anchors_as_sizes_fit_exactly_and_more_are_refused() -> None:
    sides = np.array([[1.0, 1], [5, 2], [30, 30], [5, 2]])
    assert fitted_anchors(sides, 3).tolist() == [[1, 1], [5, 2], [30, 30]]
    with pytest.raises(SettingError, match="4 anchors for 3 different sizes"):
        fitted_anchors(sides, 4)
    with pytest.raises(SettingError, match="without area"):
        fitted_anchors(np.array([[0.0, 2], [1, 1]]), 1)


# ---------------------------------------------------------------------------------------------------------- moves

MOVING = DetectSettings(
    TrainSettings(flip=True, zoom=0.3, shift=0.1, contrast=0.0, head_epochs=0, batch_size=2),
    flip_vertical=True,
    hue=0.0,
    saturation=0.0,
)


def square(box: tuple[int, int, int, int], height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A black picture with one white box, and that box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels, np.array([[*box, 0, 0]], np.float32)


def seen(pixels: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(pixels[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@given(st.integers(0, 2**31))
def test_a_box_goes_where_its_pixels_go(seed: int) -> None:
    pixels, boxes = square((20, 12, 40, 30))
    move = drawn_move((40, 60), (32, 64), MOVING, np.random.default_rng(seed))
    shown, moved = move.of_pixels(pixels, 32, 64), move.of_boxes(boxes, 32, 64)
    assert seen(shown) == pytest.approx(moved[0, :4].tolist(), abs=1.01)


@given(st.integers(0, 2**31))
def test_a_box_in_a_mosaic_goes_where_its_pixels_go(seed: int) -> None:
    white, boxes = square((4, 4, 56, 36))
    others = [(np.zeros_like(white), np.zeros((0, 6), np.float32))] * 3
    pictures = [(white, boxes), *others]
    shown, moved = mosaic(
        [p for p, _ in pictures], [t for _, t in pictures], (64, 96), MOVING, np.random.default_rng(seed)
    )
    assert shown.shape == (64, 96, 3)
    if len(moved):
        assert seen(shown) == pytest.approx(moved[0, :4].tolist(), abs=1.01)
    else:  # hardly anything of it is in its quarter, which is at least 0.3 · 64 by 0.3 · 96 pixels
        assert np.sum(shown[..., 0] > 127) < 0.2 * 1.3**2 * (52 / 60 * 96) * (32 / 40 * 64)


@given(st.integers(0, 2**31))
def test_no_part_of_a_mosaic_is_empty(seed: int) -> None:
    white, none = np.full((40, 60, 3), 255, np.uint8), np.zeros((0, 6), np.float32)
    shown, boxes = mosaic([white] * 4, [none] * 4, (64, 96), MOVING, np.random.default_rng(seed))
    assert shown.min() == 255
    assert boxes.shape == (0, 6)


def test_a_plain_move_is_a_resize_and_boxes_of_which_little_is_left_go() -> None:
    assert stretched((10, 20), (20, 20)) == Move(1.0, 2.0, 0.0, 0.0)
    away = Move(1, 1, 8.1, 0)  # of 10 pixels 1.9 are left before the edge, less than a fifth
    boxes = np.array([[0, 0, 10, 10, 1, 0], [-5, 0, 1, 9, 0, 1], [0, 0, 9, 1, 2, 0]], np.float32)
    assert away.of_boxes(boxes, 10, 10)[:, 4].tolist() == [0]
    assert away.of_boxes(boxes, 10, 10)[0].tolist() == pytest.approx([3.1, 0, 9.1, 9, 0, 1])
    turned = Move(-1, 1, 10, 0).of_boxes(boxes[:1] * [0.5, 1, 0.7, 1, 1, 1], 10, 10)
    assert turned[0, :4].tolist() == pytest.approx([3, 0, 10, 10])


def test_colours_change_within_the_settings_alone() -> None:
    pixels = np.full((4, 4, 3), 100, np.uint8)
    settings = replace(MOVING, train=replace(MOVING.train, contrast=0.5))
    greys = [recoloured(pixels, settings, np.random.default_rng(seed)) for seed in range(30)]
    assert all(one.min() >= 50 and one.max() <= 150 for one in greys)
    assert len({int(one[0, 0, 0]) for one in greys}) > 20
    assert recoloured(pixels, MOVING, np.random.default_rng(0)) is pixels


# --------------------------------------------------------------------------------------------------------- stream


def pictures(count: int = 5) -> Pictures:
    made = [square((4 + i, 4, 30, 30)) for i in range(count)]
    return Pictures(np.stack([pixels for pixels, _ in made]), tuple(boxes for _, boxes in made))


def batches(stream: BoxStream) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(x), np.asarray(y)) for x, y in stream.next_epoch()[1]]


def test_an_epoch_is_a_function_of_the_seed_and_its_number() -> None:
    def run(first: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        settings = replace(MOVING, train=replace(MOVING.train, seed=seed))
        stream = BoxStream(pictures(), settings, (40, 60), True, 0)
        return [batches(stream) for _ in range(first + 1)][first]

    def alike(one: Any, other: Any) -> bool:
        return all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))

    straight = BoxStream(pictures(), MOVING, (40, 60), True, 1)
    assert alike(run(1), batches(straight))
    assert not alike(run(0), run(1))
    assert not alike(run(0), run(0, seed=1))


def test_a_stream_without_changes_has_every_picture_as_it_is() -> None:
    stream = BoxStream(pictures(), MOVING, (40, 60), False, 0)
    found = batches(stream)
    assert [len(x) for x, _ in found] == [2, 2, 1]
    assert stream.cardinality() == 3
    assert np.array_equal(np.concatenate([x for x, _ in found]), pictures().pixels.astype(np.float32))
    assert np.array_equal(np.concatenate([y for _, y in found])[:, 0], np.concatenate(pictures().truths))
    assert BoxStream(pictures(), MOVING, (40, 60), True, 0).cardinality() == 2  # the lone last one waits


def test_sizes_are_drawn_and_the_last_epochs_have_no_mosaics() -> None:
    settings = replace(MOVING, sizes=(32, 48), mosaic=1.0, plain=0.5, train=replace(MOVING.train, epochs=12, zoom=0.0))
    stream = BoxStream(pictures(), settings, (40, 40), True, 0)
    sizes, most = set(), []
    for _ in range(12):
        size, found = stream.next_epoch()
        images, boxes = next(iter(found))
        assert images.shape[1:3] == size
        sizes.add(size)
        most.append(boxes.shape[1])
    assert sizes == {(40, 40), (32, 32), (48, 48)}
    assert max(most[:6]) > 1
    assert max(most[6:]) == 1


def test_truth_is_in_pixels_of_the_network() -> None:
    boxes = Boxes(np.float32([[10, 20, 30, 40]]), np.array([2]), np.ones(1, np.float32), np.array([True]))
    assert truth_of(boxes, (100, 50), (50, 100)).tolist() == [[20, 10, 60, 20, 2, 1]]
    none = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))
    assert truth_of(none, (100, 50), (50, 100)).shape == (0, 6)
    assert padded([truth_of(none, (1, 1), (1, 1))])[0, 0, 4] == -1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mosaic": 1.5}, "mosaic 1.5"),
        ({"average": 1.0}, "average 1.0"),
        ({"aspect": 1.0}, "out of range"),
        ({"train": TrainSettings(head_epochs=0, rotate=0.1)}, "rotate 0.1 with boxes"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        DetectSettings(**change)


# --------------------------------------------------------------------------------------------------------- scores


def found_ones(*rows: tuple[float, ...]) -> Boxes:
    """(left, top, right, bottom, class, score)."""
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(array[:, :4], array[:, 4].astype(np.int64), array[:, 5], np.zeros(len(array), bool))


def test_average_precision_by_hand() -> None:
    given_truth = truth((0, 0, 10, 10, 0), (20, 20, 30, 30, 0))
    found = found_ones((0, 0, 10, 9, 0, 0.9), (50, 50, 60, 60, 0, 0.8), (20, 20, 30, 30, 0, 0.7))
    # Recall 1/2 at precision 1, then 1 at precision 2/3.
    assert average_precision([found], given_truth, 1) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # Twice the same: the second is wrong. A class without true boxes does not count.
    twice = found_ones((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 0, 0.8), (0, 0, 5, 5, 1, 0.8))
    assert average_precision([twice], given_truth, 2) == pytest.approx(0.5)
    assert average_precision([twice], [np.zeros((0, 6), np.float32)], 2) == 0
    assert average_precision([found_ones()], given_truth, 1) == 0


def test_hard_boxes_are_neither_missed_nor_wrong() -> None:
    given_truth = truth((0, 0, 10, 10, 0), (20, 20, 30, 30, 0, 1))
    found = found_ones((20, 20, 30, 30, 0, 0.9), (0, 0, 10, 10, 0, 0.8))
    assert average_precision([found], given_truth, 1) == 1


def test_quick_boxes_keep_the_best_of_a_heap_and_clip() -> None:
    decoding = free(classes=2)
    raw = np.full((1, 4, 6), -9.0, np.float32)
    raw[..., :4] = 1
    raw[0, :2, 4] = 2, 1  # rows 0 and 1: (-4, -4, 12, 12) and (4, -4, 20, 12)
    raw[0, 1, 5] = 1
    (found,) = quick_boxes(raw, replace(decoding, iou=0.3))
    # In common 8·16 of 2·256 - 128: an IoU of 1/3, so that of class 0 one is left. Clipped at the end, as for the file.
    assert found.labels.tolist() == [0, 1]
    assert found.corners.tolist() == [[0, 0, 12, 12], [4, 0, 16, 12]]
    assert found.scores == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
