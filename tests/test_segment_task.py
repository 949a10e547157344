"""Segmentation as a task: masks out of probabilities and indices, and the metrics, worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featherweight.artifact import Artifact
from featherweight.errors import ArtifactError, DataError, SettingError
from featherweight.masks import IGNORE, MaskSource, mask_of, placed_mask
from featherweight.tasks import task_of
from featherweight.tasks.confusion import boundary_f1, count, evaluate, ious, mean_iou

TWO, THREE = ("ground", "thing"), ("ground", "cat", "dog")
ARTIFACT = Artifact(Path("x"), "model.onnx", "x", "onnx", "float32", "", 0, task="segment", classes=THREE, height=4,
                    width=4)  # fmt: skip


def mask(*rows: str) -> np.ndarray:
    """Rows of digits, `.` for what is ignored."""
    return np.array([[IGNORE if letter == "." else int(letter) for letter in row] for row in rows], np.uint8)


def chances(labels: np.ndarray, classes: int = 3, sure: float = 0.8) -> np.ndarray:
    """Probabilities (h, w, classes) that are `sure` of these classes."""
    rest = (1 - sure) / (classes - 1)
    return np.where(np.arange(classes) == labels[..., None], sure, rest).astype(np.float32)


def target(folder: Path, labels: np.ndarray, name: str = "m") -> dict[str, Any]:
    path = folder / f"{name}.png"
    Image.fromarray(labels).save(path)
    legend = tuple(((int(value),), int(value)) for value in (0, 1, 2, IGNORE))
    return {**MaskSource(str(path), "values", legend).as_dict(), "height": labels.shape[0], "width": labels.shape[1]}


# --------------------------------------------------------------------------------- probabilities → masks


def test_the_greatest_probability_counts_and_the_first_of_equal_ones() -> None:
    labels = mask("012", "210")
    assert mask_of(chances(labels), (2, 3), "stretch").tolist() == labels.tolist()
    even = np.full((2, 2, 3), 1 / 3, np.float32)
    assert mask_of(even, (2, 2), "stretch").tolist() == [[0, 0], [0, 0]]


def test_one_channel_counts_from_above_a_half_on() -> None:
    one = np.array([[[0.5], [0.51]], [[0.0], [1.0]]], np.float32)
    assert mask_of(one, (2, 2), "stretch").tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("rule", ["stretch", "bilinear"])
def test_probabilities_are_resized_and_not_classes(rule: str) -> None:
    # Two pixels to four: sampled at -0.25, 0.25, 0.75 and 1.25 of the way; class 1 has 0.9, 0.725, 0.375, 0.2.
    row = np.array([[[0.1, 0.9], [0.8, 0.2]]], np.float32)
    assert mask_of(row, (1, 4), rule).tolist() == [[1, 1, 0, 0]]
    assert mask_of(row[..., 1:], (1, 4), rule).tolist() == [[1, 1, 0, 0]]
    weak = np.array([[[0.9], [0.2]]], np.float32)  # 0.9, 0.725, 0.375, 0.2 again, and a third of that
    assert mask_of(weak, (1, 6), rule).tolist() == [[1, 1, 1, 0, 0, 0]]  # 0.9, 0.9, 0.667, 0.433 …


def test_what_a_letterbox_adds_is_cut_off() -> None:
    # A picture of 2×4 lies in rows 1 and 2 of a 4×4 input.
    found = mask("1111", "0120", "2001", "1111")
    assert mask_of(chances(found), (2, 4), "letterbox").tolist() == [[0, 1, 2, 0], [2, 0, 0, 1]]
    assert placed_mask(found, (2, 4), "letterbox").tolist() == [[0, 1, 2, 0], [2, 0, 0, 1]]
    assert (
        placed_mask(found, (4, 8), "letterbox").tolist() == np.kron([[0, 1, 2, 0], [2, 0, 0, 1]], [[1, 1]] * 2).tolist()
    )
    with pytest.raises(SettingError, match="unknown resize 'fit'"):
        mask_of(chances(found), (2, 4), "fit")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 6), st.integers(0, 99))
def test_the_mask_is_that_of_all_classes_resized_at_once(height: int, width: int, classes: int, seed: int) -> None:
    import cv2

    maps = np.random.default_rng(seed).random((5, 4, classes), np.float32)
    planes = [cv2.resize(np.ascontiguousarray(maps[..., k]), (width, height)) for k in range(classes)]
    assert mask_of(maps, (height, width), "stretch").tolist() == np.stack(planes, -1).argmax(-1).tolist()


# ------------------------------------------------------------------------------------------------- the task


def test_masks_of_every_kind_of_output() -> None:
    labels = mask("0012", "0112", "0222", "0000")
    three, two = task_of(ARTIFACT), task_of(replace(ARTIFACT, classes=TWO))
    sizes = [(4, 4)]
    for outputs in (chances(labels)[None], labels[None].astype(np.float32), labels[None, ..., None].astype(np.float32)):
        (found,) = three.masks(outputs, sizes)  # type: ignore[attr-defined]
        assert found.dtype == np.uint8 and found.tolist() == labels.tolist()
    thing = np.minimum(labels, 1)
    for outputs in (chances(thing, 2)[None], thing[None].astype(np.float32), chances(thing, 2)[None, ..., 1:]):
        (found,) = two.masks(outputs, sizes)  # type: ignore[attr-defined]
        assert found.tolist() == thing.tolist()
    (larger,) = three.masks(labels[None].astype(np.float32), [(8, 8)])  # type: ignore[attr-defined]
    assert larger.tolist() == np.kron(labels, np.ones((2, 2), int)).tolist()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.zeros((1, 4)), r"outputs \(1, 4\) are no masks of 3 classes; wanted \(n, h, w, 3\)"),
        (np.zeros((1, 4, 4, 2)), r"outputs \(1, 4, 4, 2\) are no masks of 3 classes"),
        (np.full((1, 4, 4), 3.0), "a pixel from 3 to 3; wanted indices of 3 classes"),
        (np.full((1, 4, 4), 0.5), "a pixel from 0.5 to 0.5; wanted indices"),
        (np.full((1, 4, 4), -1.0), "a pixel from -1 to -1; wanted indices"),
    ],
)
def test_outputs_that_are_no_masks(outputs: np.ndarray, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        task_of(ARTIFACT).decode(outputs.astype(np.float32), [(4, 4)])


def test_a_segmenter_has_two_classes_at_least() -> None:
    with pytest.raises(ArtifactError, match="x is a segmenter of 1 classes; wanted 2 to 255"):
        task_of(replace(ARTIFACT, classes=("a",)))


def test_classes_are_told_by_their_shares() -> None:
    labels = mask("0000", "0002", "0022", "0111")
    (found,) = task_of(ARTIFACT).decode(chances(labels)[None], [(4, 4)])
    assert found == [
        {"label": "ground", "score": 0.8, "share": 10 / 16},
        {"label": "cat", "score": 0.8, "share": 3 / 16},
        {"label": "dog", "score": 0.8, "share": 3 / 16},
    ]
    (indices,) = task_of(ARTIFACT).decode(labels[None].astype(np.float32), [(4, 4)])
    assert [one["score"] for one in indices] == [1.0, 1.0, 1.0]
    one = np.array([[[[0.25], [0.75]]]], np.float32)
    assert task_of(replace(ARTIFACT, classes=TWO)).decode(one, [(1, 2)]) == [
        [{"label": "ground", "score": 0.75, "share": 0.5}, {"label": "thing", "score": 0.75, "share": 0.5}]
    ]


def test_pictures_are_counted_one_by_one_and_scored_together(tmp_path: Path) -> None:
    task = task_of(ARTIFACT)
    task.check_scoring()
    # cat: 2 right of 3 true and 3 found (IoU 2/4); ground: 11 right of 12 and 12 (11/13) with one pixel not asked.
    true, found = mask("1110", "0000", "0000", "000."), mask("0111", "0000", "0000", "0002")
    counts = task.read(chances(found)[None], [(4, 4)], [target(tmp_path, true)])
    more = task.read(chances(true // 2 * 0)[None], [(4, 4)], [target(tmp_path, true * 0, "n")])
    score = task.score([*counts, *more], [None, None])
    assert score["value"] == pytest.approx((2 / 4 + (11 + 16) / (13 + 16)) / 2)
    assert (score["metric"], score["n"], score["right"], score["iou"]) == ("mean IoU", 2, None, None)
    assert score["pixel_accuracy"] == pytest.approx((13 + 16) / (15 + 16))
    assert score["dice"] == pytest.approx((4 / 6 + 2 * 27 / 56) / 2)
    assert score["scores"]["classes"]["dog"] == {
        "iou": None, "interval": None, "dice": None, "precision": None, "recall": None, "boundary_f1": None, "pixels": 0
    }  # fmt: skip
    assert score["scores"]["confusion"] == [[27, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_a_mask_that_is_gone(tmp_path: Path) -> None:
    gone = {**target(tmp_path, mask("01")), "path": str(tmp_path / "gone.png")}
    with pytest.raises(DataError, match=r"gone\.png changed since the scan: its mask cannot .*Scan the data anew"):
        task_of(ARTIFACT).read(chances(mask("01"))[None], [(1, 2)], [gone])


def test_agreement_is_the_mean_iou_of_the_masks() -> None:
    task = task_of(ARTIFACT)
    wanted, found = chances(mask("0011"))[None], chances(mask("0111"))[None]
    assert task.agreement(wanted, wanted) == 1.0
    assert task.agreement(wanted, found) == pytest.approx((1 / 2 + 2 / 3) / 2)
    with pytest.raises(SettingError, match="are no masks of 3 classes"):
        task.agreement(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))


def test_what_was_seen_in_a_picture(tmp_path: Path) -> None:
    true, found = mask("0011", "00.."), mask("0111", "0122")
    seen: Any = task_of(ARTIFACT).seen(tmp_path / "a.png", chances(found)[None], (2, 4), target(tmp_path, true))
    assert [one.tolist() for one in seen.masks] == [true.tolist(), found.tolist()]
    # ground: 2 right, 4 true, 2 found; thing: 2 right, 2 true, 4 found
    assert seen.iou == pytest.approx((2 / 4 + 2 / 4) / 2) and seen.failures == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------------- the metrics


def plain_matrix(true: np.ndarray, found: np.ndarray, classes: int) -> list[list[int]]:
    """Pixel by pixel."""
    matrix = [[0] * classes for _ in range(classes)]
    for one, other in zip(true.ravel().tolist(), found.ravel().tolist(), strict=True):
        if one != IGNORE:
            matrix[one][other] += 1
    return matrix


@given(st.integers(2, 5), st.integers(1, 8), st.integers(1, 8), st.integers(0, 999))
def test_the_matrix_and_the_ious_are_those_of_a_plain_loop(classes: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, found = (rng.integers(0, classes, (height, width)).astype(np.uint8) for _ in range(2))
    true[rng.random(true.shape) < 0.2] = IGNORE
    counts = count(true, found, classes)
    matrix = plain_matrix(true, found, classes)
    assert counts.matrix.tolist() == matrix
    known = []
    for label in range(classes):
        right = matrix[label][label]
        union = sum(matrix[label]) + sum(row[label] for row in matrix) - right
        iou = float(ious(counts.parts)[label])
        assert math.isnan(iou) if union == 0 else iou == pytest.approx(right / union)
        known += [right / union] if union else []
    assert counts.iou == (pytest.approx(sum(known) / len(known)) if known else None)


def test_what_cannot_be_counted() -> None:
    with pytest.raises(DataError, match="a true pixel of class 2; wanted 0 to 1"):
        count(mask("02"), mask("00"), 2)
    with pytest.raises(SettingError, match="a found pixel of class 2; wanted 0 to 1"):
        count(mask("00"), mask("02"), 2)
    with pytest.raises(SettingError, match=r"a mask of \(1, 3\) was found for one of \(1, 2\)"):
        count(mask("00"), mask("000"), 2)
    with pytest.raises(DataError, match="no pixel of 1 masks counts"):
        evaluate([count(mask(".."), mask("01"), 2)], TWO)
    assert count(mask(".."), mask("02"), 2).iou is None  # what is found there is not looked at
    assert mean_iou(np.zeros((3, 2))) is None


def disc(size: int, middle: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (np.hypot(y - middle[0], x - middle[1]) <= radius).astype(np.uint8)


def test_boundaries_of_shapes() -> None:
    still = np.zeros((40, 40), np.uint8)
    still[10:20, 10:20] = 1
    assert boundary_f1(still, still) == {0: 1.0, 1: 1.0}
    # Three to the right, a pixel of tolerance: 36 boundary pixels each. Of the found ones in the upper and lower row
    # columns 13 to 19 lie on the true one and 20 is beside it, 8 in each; of the left side only the two beside the
    # corners are near, and of the right side none: 18 of 36, and so many of the true ones by symmetry.
    moved = np.roll(still, 3, axis=1)
    assert boundary_f1(still, moved, 1.0)[1] == pytest.approx(plain_f1(still, moved, 1, 1.0))
    assert boundary_f1(still, moved, 1.0)[1] == 0.5
    assert boundary_f1(still, moved, 3.0) == {0: 1.0, 1: 1.0}
    assert boundary_f1(still, np.zeros_like(still)) == {0: 0.0, 1: 0.0}
    assert boundary_f1(np.ones_like(still), np.ones_like(still)) == {}  # the picture's edge is none
    # The tolerance is a share of the diagonal: of 300 × 400 pixels it is 3.75.
    large = np.zeros((300, 400), np.uint8)
    large[100:200, 100:200] = 1
    assert boundary_f1(large, np.roll(large, 3, axis=0))[1] == 1.0
    assert boundary_f1(large, np.roll(large, 4, axis=0))[1] < 1.0


def test_the_edge_of_what_is_ignored_is_no_boundary() -> None:
    true = np.zeros((20, 20), np.uint8)
    true[:, 10:] = 1
    found = true.copy()
    true[:, 8:12] = IGNORE
    assert count(true, found, 2).boundaries == {}
    true[:5, 8:10], true[:5, 10:12] = 0, 1
    assert count(true, found, 2).boundaries == {0: 1.0, 1: 1.0}


def plain_f1(true: np.ndarray, found: np.ndarray, label: int, tolerance: float) -> float:
    """Every boundary pixel against every other."""

    def boundary(labels: np.ndarray) -> list[tuple[int, int]]:
        height, width = labels.shape
        near = ((-1, 0), (1, 0), (0, -1), (0, 1))
        return [
            (y, x)
            for y in range(height)
            for x in range(width)
            if labels[y, x] == label
            and any(
                0 <= y + dy < height and 0 <= x + dx < width and labels[y + dy, x + dx] not in (label, IGNORE)
                for dy, dx in near
            )
        ]

    one, other = boundary(true), boundary(found)
    if not one or not other:
        return 0.0
    precision, recall = (
        sum(min(math.dist(a, b) for b in theirs) <= tolerance for a in mine) / len(mine)
        for mine, theirs in ((other, one), (one, other))
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, found = np.zeros((2, 24, 24), np.uint8)
    for label in (1, 2):
        middle, radius = rng.uniform(4, 20, 2), rng.uniform(2, 7)
        true[disc(24, (middle[0], middle[1]), radius) > 0] = label
        found[disc(24, (middle[0] + rng.normal(), middle[1] + rng.normal()), radius * 1.1) > 0] = label
    true[rng.random(true.shape) < 0.03] = IGNORE
    found[true == IGNORE] = IGNORE
    for tolerance in (1.0, 1.5, 3.0):
        scores = boundary_f1(true, found, tolerance)
        assert scores == pytest.approx({k: plain_f1(true, found, k, tolerance) for k in scores}) and len(scores) > 1


# -------------------------------------------------------------------------------------------- all pictures


def crowd(seed: int, worse: float = 0.0) -> list[Any]:
    rng = np.random.default_rng(seed)
    counts = []
    for _ in range(25):
        true = disc(16, (rng.uniform(4, 12), rng.uniform(4, 12)), rng.uniform(2, 6))
        noise = np.random.default_rng(len(counts)).random(true.shape) < 0.05 + worse
        counts.append(count(true, np.where(noise, 1 - true, true).astype(np.uint8), 2))
    return counts


def test_of_two_classes_the_second_one_has_its_iou() -> None:
    counts = crowd(0)
    found = evaluate(counts, TWO)
    whole = np.sum([one.matrix for one in counts], axis=0)
    iou = whole[1, 1] / (whole[1].sum() + whole[:, 1].sum() - whole[1, 1])
    ground = whole[0, 0] / (whole[0].sum() + whole[:, 0].sum() - whole[0, 0])
    assert found["iou"] == pytest.approx(iou) and found["value"] == pytest.approx((iou + ground) / 2)
    assert found["dice"] == pytest.approx(2 * iou / (1 + iou))  # as it always is
    assert found["pixel_accuracy"] == pytest.approx(np.trace(whole) / whole.sum())
    thing = found["scores"]["classes"]["thing"]
    assert thing["precision"] == pytest.approx(whole[1, 1] / whole[:, 1].sum())
    assert thing["recall"] == pytest.approx(whole[1, 1] / whole[1].sum()) and thing["pixels"] == whole[1].sum()
    low, high = found["interval"]
    assert low < found["value"] < high and high - low < 0.2
    assert thing["interval"][0] < iou < thing["interval"][1]
    assert found == evaluate(counts, TWO)  # the same draws each time


def test_the_boundary_score_is_of_pictures_and_not_of_pixels() -> None:
    still = np.zeros((20, 20), np.uint8)
    still[5:15, 5:15] = 1
    counts = [count(still, still, 2), count(still, still * 0, 2), count(still * 0, still * 0, 2)]
    found = evaluate(counts, TWO)
    assert found["boundary_f1"] == 0.5  # the third has no boundary
    assert found["scores"]["classes"]["thing"]["boundary_f1"] == 0.5
    assert evaluate(counts[2:], TWO)["boundary_f1"] is None


def test_two_files_are_drawn_alike() -> None:
    good, bad = evaluate(crowd(3), TWO), evaluate(crowd(3, 0.02), TWO)
    apart = np.array(good["drawn"]) - np.array(bad["drawn"])
    spread = np.array(good["drawn"]) - np.array(bad["drawn"])[::-1]
    assert len(good["drawn"]) == len(bad["drawn"]) == 1000
    assert apart.std() < spread.std() / 2  # the same pictures in both: what is hard is hard for both
    assert np.percentile(apart, 2.5) > 0
    # A draw in which nothing is asked is left out, whatever was found there.
    empty, full = np.full((4, 4), IGNORE, np.uint8), np.ones((4, 4), np.uint8)
    for answer in (full, full * 0):
        assert 0 < len(evaluate([count(empty, answer, 2), count(full, answer, 2)], TWO)["drawn"]) < 1000


def test_a_large_matrix_is_left_out() -> None:
    names = tuple(f"c{number}" for number in range(40))
    found = evaluate([count(mask("0123"), mask("0124"), 40)], names, resamples=2)
    assert "confusion" not in found["scores"] and found["value"] == pytest.approx(3 / 5)
