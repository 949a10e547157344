"""Boxes: what raw numbers mean, worked out by hand for each kind; where they lie in the picture; suppression."""

import contextlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featherweight.boxes import RESIZES, Boxes, Decoding, Scale, area_of, decoding_of, found_boxes, place
from featherweight.decode import CANDIDATES, decode
from featherweight.errors import SettingError
from featherweight.suppress import suppress

NOTHING = -20.0  # whose sigmoid is 0


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def rows(decoding: Decoding, changes: dict[int, list[float]], rest: float = NOTHING) -> NDArray[np.float32]:
    """(1, priors, values): the same number everywhere but in some rows."""
    outputs = np.full((1, decoding.priors, decoding.values), rest, np.float32)
    for row, values in changes.items():
        outputs[0, row] = values
    return outputs


# A network of 64×32 pixels with maps of 2×4 and 1×2 cells of 16 and 32 pixels; two anchors, then one.
SCALES = (Scale(2, 4, ((10.0, 20.0), (30.0, 6.0))), Scale(1, 2, ((40.0, 24.0),), 1.1))
YOLO = Decoding("yolo", SCALES, 32, 64, classes=3)


def test_rows_stand_by_map_row_column_and_anchor() -> None:
    assert (YOLO.priors, YOLO.values) == (2 * 4 * 2 + 2, 8)
    # Row 1, column 2, anchor 1 of the first map: (1 · 4 + 2) · 2 + 1 = 13. Centre (2.5, 1.5) cells of 16 pixels.
    ours = [0.0, 0.0, math.log(2), 0.0, logit(0.8), NOTHING, logit(0.5), NOTHING]
    (found,) = decode(rows(YOLO, {13: ours}), YOLO)
    assert found.labels.tolist() == [1] and found.scores == pytest.approx([0.8 * 0.5], abs=1e-6)
    assert found.corners == pytest.approx(np.array([[40 - 30, 24 - 3, 40 + 30, 24 + 3]]), abs=1e-4)


def test_a_centre_may_leave_its_cell_by_the_scale() -> None:
    # Column 1 of the second map, cells of 32 pixels: (1 + 0.9 · 1.1 - 0.05) · 32 and (0 + 0.2 · 1.1 - 0.05) · 32.
    ours = [logit(0.9), logit(0.2), 0.0, 0.0, 20.0, 20.0, NOTHING, NOTHING]
    (found,) = decode(rows(YOLO, {17: ours}), YOLO)
    x, y = 1.94 * 32, 0.17 * 32
    assert found.corners == pytest.approx(np.array([[x - 20, y - 12, x + 20, y + 12]]), abs=1e-3)


def test_every_class_that_scores_high_enough_is_a_box_best_first() -> None:
    ours = [0.0, 0.0, 0.0, 0.0, logit(0.9), logit(0.5), logit(0.2), logit(0.9)]
    (found,) = decode(rows(YOLO, {0: ours}), YOLO)  # 0.45, 0.18, 0.81 against 0.25
    assert found.labels.tolist() == [2, 0] and found.scores == pytest.approx([0.81, 0.45], abs=1e-6)
    assert not found.hard.any() and len(found) == 2
    (all_three,) = decode(rows(YOLO, {0: ours}), YOLO, score=0.1)
    assert all_three.labels.tolist() == [2, 0, 1]


def test_activated_numbers_are_as_they_are_and_sides_are_squares() -> None:
    decoding = replace(YOLO, activated=True)
    ours = [0.25, 0.5, 1.0, 0.5, 0.5, 0.9, 0.0, 0.0]  # times (2 · 1)² = 4 and (2 · 0.5)² = 1
    (found,) = decode(rows(decoding, {0: ours}, rest=0.0), decoding)
    assert found.scores == pytest.approx([0.45])
    assert found.corners == pytest.approx(np.array([[4 - 20, 8 - 10, 4 + 20, 8 + 10]]), abs=1e-4)


def test_gaussian_yolo_takes_its_doubt_off_the_score() -> None:
    decoding = replace(YOLO, uncertain=True)
    doubt = [logit(0.1), logit(0.2), logit(0.3), logit(0.4)]  # 0.25 on average
    ours = [0.0, 0.0, 0.0, 0.0, *doubt, logit(0.8), logit(0.5), logit(0.9), NOTHING]
    (found,) = decode(rows(decoding, {0: ours}), decoding)
    assert decoding.values == 12
    assert found.labels.tolist() == [1, 0] and found.scores == pytest.approx([0.54, 0.3], abs=1e-6)
    assert found.corners[0] == pytest.approx([8 - 5, 8 - 10, 8 + 5, 8 + 10], abs=1e-4)


def test_region_shares_its_classes_out() -> None:
    decoding = Decoding("region", (Scale(1, 1, ((16.0, 8.0),)),), 32, 32, classes=3)
    ours = [0.0, 0.0, 0.0, math.log(2), logit(0.8), math.log(6), math.log(3), math.log(1)]  # 0.6, 0.3, 0.1
    (found,) = decode(rows(decoding, {0: ours}), decoding, score=0.2)
    assert found.labels.tolist() == [0, 1] and found.scores == pytest.approx([0.48, 0.24], abs=1e-6)
    assert found.corners[0] == pytest.approx([16 - 8, 16 - 8, 16 + 8, 16 + 8], abs=1e-4)


@pytest.mark.parametrize("roots", [False, True])
def test_grid_takes_numbers_as_they_are(roots: bool) -> None:
    # Two boxes a cell, which have no size of their own; cells of 20×10 pixels.
    decoding = Decoding("grid", (Scale(2, 2, ((0.0, 0.0), (0.0, 0.0))),), 20, 40, classes=2, roots=roots)
    ours = [0.5, 0.1, 0.5, 0.25, 0.8, 0.5, 0.1]  # row 1, column 0, box 1: (1 · 2 + 0) · 2 + 1
    (found,) = decode(rows(decoding, {5: ours}, rest=0.0), decoding)
    width, height = (0.25 * 40, 0.0625 * 20) if roots else (0.5 * 40, 0.25 * 20)
    assert found.labels.tolist() == [0] and found.scores == pytest.approx([0.4])
    assert found.corners[0] == pytest.approx([10 - width / 2, 11 - height / 2, 10 + width / 2, 11 + height / 2])


def test_distances_are_of_the_centre_in_strides() -> None:
    decoding = Decoding("distances", (Scale(2, 4), Scale(1, 2)), 32, 64, classes=2)
    assert (decoding.priors, decoding.values) == (10, 6)
    (found,) = decode(rows(decoding, {5: [1.0, 0.5, 2.0, 0.25, logit(0.7), NOTHING]}), decoding)
    # Row 1, column 1, of 16 pixels: its centre is (24, 24).
    assert found.scores == pytest.approx([0.7], abs=1e-6)
    assert found.corners[0] == pytest.approx([24 - 16, 24 - 8, 24 + 32, 24 + 4], abs=1e-4)
    (found,) = decode(rows(decoding, {9: [0.5, 0.5, 0.5, 0.5, NOTHING, logit(0.6)]}), decoding)
    assert found.labels.tolist() == [1]
    assert found.corners[0] == pytest.approx([32, 0, 64, 32], abs=1e-4)


def test_distances_are_the_mean_of_their_bins() -> None:
    decoding = Decoding("distances", (Scale(1, 1),), 8, 8, classes=1, bins=3)
    left = [math.log(1), math.log(2), math.log(1)]  # 0 · 0.25 + 1 · 0.5 + 2 · 0.25
    top, right = [20.0, 0.0, 0.0], [0.0, 0.0, 20.0]
    bottom = [math.log(2), math.log(1), math.log(1)]  # 0.25 + 2 · 0.25
    (found,) = decode(rows(decoding, {0: [*left, *top, *right, *bottom, logit(0.9)]}), decoding)
    assert found.corners[0] == pytest.approx([4 - 8, 4, 4 + 16, 4 + 0.75 * 8], abs=1e-4)
    shared = replace(decoding, classes=2, softmax=True)
    (found,) = decode(rows(shared, {0: [*left, *top, *right, *bottom, math.log(3), 0.0]}), shared)
    assert found.scores == pytest.approx([0.75, 0.25], abs=1e-6)


def test_numbers_beyond_all_bounds_make_no_box_and_no_warning() -> None:
    outputs = rows(YOLO, {0: [np.inf, -np.inf, 500.0, 20.0, 90.0, 1e30, -1e30, 0.0], 1: [np.nan] * 8})
    (found,) = decode(outputs, YOLO)
    assert np.isfinite(found.corners).all() and found.labels.tolist() == [0, 2]


def test_a_box_whose_sides_are_the_wrong_way_round_is_none() -> None:
    decoding = Decoding("distances", (Scale(1, 1),), 8, 8, classes=1)
    for distances, count in (([1.0, 1, 1, 1], 1), ([1.0, 1, -2, 1], 0), ([1.0, -1, 1, 1], 0)):
        (found,) = decode(rows(decoding, {0: [*distances, 5.0]}), decoding)
        assert len(found) == count


def test_of_too_many_candidates_the_best_are_kept() -> None:
    decoding = Decoding("yolo", (Scale(40, 40, ((8.0, 8.0),)),), 320, 320, classes=1)
    outputs = np.zeros((2, decoding.priors, 6), np.float32)
    outputs[1, :, 4] = np.random.default_rng(0).permutation(decoding.priors) / 1000
    first, second = decode(outputs, decoding, score=0.001)
    assert len(first) == len(second) == CANDIDATES
    wanted = np.sort(0.5 / (1 + np.exp(-np.arange(decoding.priors) / 1000)))[::-1][:CANDIDATES]
    assert second.scores == pytest.approx(wanted, abs=1e-6)


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(SettingError, match=r"outputs \(1, 17, 8\); wanted \(n, 18, 8\)"):
        decode(np.zeros((1, 17, 8), np.float32), YOLO)
    with pytest.raises(SettingError, match="unknown decoding 'ssd'; known: yolo, region"):
        replace(YOLO, kind="ssd")


def test_a_decoding_survives_json_and_a_broken_one_is_told() -> None:
    assert decoding_of(json.loads(json.dumps(YOLO.as_dict()))) == YOLO
    for broken in ({}, {**YOLO.as_dict(), "more": 1}, {**YOLO.as_dict(), "scales": [{"height": 1}]}):
        with pytest.raises(SettingError, match="a decoding that is none"):
            decoding_of(broken)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": 0}, "classes 0 of a decoding; wanted a whole number"),
        ({"height": 32.0}, r"height 32\.0 of a decoding"),
        ({"most": True}, "most True of a decoding"),
        ({"bins": -1}, "bins -1 of a decoding"),
        ({"roots": 1}, "roots 1; wanted true or false"),
        ({"iou": 1.5}, r"score 0\.25, iou 1\.5; wanted 0 to 1"),
        ({"score": math.nan}, "score nan"),
        ({"scales": ()}, "0 maps of 0 priors"),
        ({"scales": (Scale(9_000_000, 9_000_000),)}, "1 maps of 81000000000000 priors"),
    ],
)
def test_a_decoding_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        replace(YOLO, **changes)


def test_a_map_that_cannot_be() -> None:
    for anchors, reach in ((((1.0, math.inf),), 1.0), (((1.0, -1.0),), 1.0), ((), math.nan)):
        with pytest.raises(SettingError, match="wanted numbers from 0 on"):
            Scale(1, 1, anchors, reach)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(YOLO.as_dict())), JSON)
def test_any_decoding_is_read_or_refused(name: str, value: Any) -> None:
    with contextlib.suppress(SettingError):
        assert decoding_of({**YOLO.as_dict(), name: value}).priors > 0


# ------------------------------------------------------------------------------------------- in the picture


def test_where_a_picture_lies() -> None:
    assert area_of("stretch", (50, 200), (30, 40)) == area_of("bilinear", (50, 200), (30, 40)) == (0, 0, 40, 30)
    assert area_of("letterbox", (50, 200), (30, 40)) == (0, 10, 40, 10)  # 200×50 by 0.2
    assert area_of("letterbox", (200, 50), (30, 40)) == (16, 0, 7, 30)  # 50 · 30 / 200 = 7.5, rounded down
    assert area_of("letterbox", (1, 1000), (30, 40)) == (0, 14, 40, 1)  # never less than a pixel
    with pytest.raises(SettingError, match="unknown resize 'crop'; known: stretch, letterbox, bilinear"):
        area_of("crop", (1, 1), (1, 1))


def boxes_of(*corners: tuple[float, float, float, float]) -> Boxes:
    return found_boxes(np.array(corners), np.zeros(len(corners)), np.linspace(1, 0.5, len(corners)))


def test_boxes_are_placed_in_the_picture_and_cut_off() -> None:
    boxes = boxes_of((10, 10, 20, 15), (-5, 0, 5, 30), (0, 2, 40, 8))
    stretched = place(boxes, "stretch", (60, 200), (30, 40))  # 5 times and twice
    assert stretched.corners.tolist() == [[50, 20, 100, 30], [0, 0, 25, 60], [0, 4, 200, 16]]
    boxed = place(boxes, "letterbox", (50, 200), (30, 40))  # the picture is in rows 10 to 20: the third is on grey
    assert boxed.corners.tolist() == [[50, 0, 100, 25], [0, 0, 25, 50]]
    assert boxed.scores.tolist() == [1.0, 0.75]


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(RESIZES),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)  # fmt: skip
def test_placing_turns_the_resize_back(high: int, wide: int, rule: str, shares: list[float]) -> None:
    left, top, width, height = area_of(rule, (high, wide), (96, 160))
    assert min(left, top) >= 0 and left + width <= 160 and top + height <= 96 and min(width, height) >= 1
    x, y = sorted(shares[:2]), sorted(shares[2:])
    inside = (left + x[0] * width, top + y[0] * height, left + x[1] * width, top + y[1] * height)
    for corners in place(boxes_of(inside), rule, (high, wide), (96, 160)).corners:
        assert corners == pytest.approx(
            [x[0] * wide, y[0] * high, x[1] * wide, y[1] * high], abs=0.01 * max(high, wide)
        )


# ---------------------------------------------------------------------------------------------- suppression


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0.0, width) * max(0.0, height)
    return float(inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter))


def test_the_worse_of_two_of_one_class_goes() -> None:
    # The second overlaps the first by 9·10 / (200 - 90) = 0.82, the third by 5·10 / 150 = 0.33; the fourth is a dog.
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [0, 0, 10, 10]], np.float32)
    boxes = found_boxes(corners, np.array([0, 0, 0, 1]), np.array([0.9, 0.8, 0.7, 0.6]))
    assert suppress(boxes, 0.45, 10).scores == pytest.approx([0.9, 0.7, 0.6])
    assert suppress(boxes, 0.3, 10).scores == pytest.approx([0.9, 0.6])
    assert suppress(boxes, 0.9, 10).scores == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert suppress(boxes, 0.45, 1).scores == pytest.approx([0.9])
    assert len(suppress(boxes.take(np.arange(0)), 0.45, 10)) == 0
    assert len(suppress(boxes.take(np.arange(1)), 0.45, 10)) == 1


@pytest.mark.parametrize("count", [2, 50, 300])
def test_suppression_is_greedy_by_class(count: int) -> None:
    rng = np.random.default_rng(count)
    start, sides = rng.uniform(-30, 300, (count, 2)), rng.uniform(1, 90, (count, 2))
    boxes = found_boxes(np.hstack([start, start + sides]), rng.integers(0, 4, count), rng.random(count))
    kept: list[int] = []
    for i in range(count):
        if not any(boxes.labels[i] == boxes.labels[j] and iou(boxes.corners[i], boxes.corners[j]) > 0.45 for j in kept):
            kept.append(i)
    assert suppress(boxes, 0.45, count).corners.tolist() == boxes.corners[kept].tolist()
