"""Detection as a task: boxes out of raw outputs, and average precision, worked out by hand and held against others."""

import builtins
import contextlib
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.boxes import Boxes, Decoding, Scale, found_boxes, true_boxes
from featherweight.errors import ArtifactError, DataError
from featherweight.tasks import task_of
from featherweight.tasks.average_precision import _evaluated, _matches, average_precision, resampled

CLASSES = ("cat", "dog")
# 4×4 cells of 8 pixels, one anchor of 8×8.
DECODING = Decoding("yolo", (Scale(4, 4, ((8.0, 8.0),)),), 32, 32, classes=2)
ARTIFACT = Artifact(
    Path("x"), "model.onnx", "x", "onnx", "float32", "", 0, task="detect", classes=CLASSES, height=32, width=32,
    resize="letterbox", decoding=DECODING,
)  # fmt: skip


def outputs_with(*boxes: tuple[int, int, float]) -> NDArray[np.float32]:
    """(1, 16, 7): boxes of 8×8 pixels in the middle of cells: (cell, class, score)."""
    outputs = np.full((1, 16, 7), -20.0, np.float32)
    outputs[:, :, :4] = 0
    for cell, label, score in boxes:
        outputs[0, cell, 4], outputs[0, cell, 5 + label] = 20.0, math.log(score / (1 - score))
    return outputs


def test_boxes_are_told_in_pixels_of_the_picture() -> None:
    task = task_of(ARTIFACT)
    # A picture of 64×128 lies in rows 8 to 24 of the input, at a quarter. Cell 5 is row 1, column 1.
    (found,) = task.decode(outputs_with((5, 1, 0.75), (10, 0, 0.5), (0, 0, 0.9), (6, 0, 0.2)), [(64, 128)])
    assert [(one["label"], one["box"]) for one in found] == [
        ("dog", [32.0, 0.0, 64.0, 32.0]),
        ("cat", [64.0, 32.0, 96.0, 64.0]),
    ]  # the box in cell 0 is on grey, the last one scores too little
    assert [one["score"] for one in found] == pytest.approx([0.75, 0.5], abs=1e-6)


def test_a_detector_must_say_what_its_numbers_mean() -> None:
    with pytest.raises(ArtifactError, match="does not say what its numbers mean"):
        task_of(replace(ARTIFACT, decoding=None))


def test_reading_goes_down_to_the_lowest_scores() -> None:
    task = task_of(ARTIFACT)
    (boxes,) = task.read(outputs_with((5, 1, 0.75), (6, 0, 0.002), (9, 0, 0.0001)), [(64, 128)])
    assert boxes.labels.tolist() == [1, 0]


def test_the_score_of_a_task() -> None:
    pytest.importorskip("hotcoco")
    task = task_of(ARTIFACT)
    targets = [true_boxes([[32, 0, 64, 32], [64, 32, 96, 64]], [1, 0]).as_dict()]
    answers = task.read(outputs_with((5, 1, 0.75), (10, 0, 0.5)), [(64, 128)])
    found = task.score(answers, targets)
    assert (found["value"], found["ap50"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (found["interval"], found["n"], found["right"]) == ((1.0, 1.0), 1, None)


def test_agreement_is_on_the_boxes_that_are_shown() -> None:
    pytest.importorskip("hotcoco")
    task = task_of(ARTIFACT)
    wanted = outputs_with((5, 1, 0.75), (10, 0, 0.5), (6, 0, 0.2))
    assert task.agreement(wanted, wanted) == pytest.approx(1.0)
    assert task.agreement(wanted, outputs_with((5, 1, 0.75))) == pytest.approx(0.5)  # no cat at all
    with pytest.raises(DataError, match="no box is to be found in 1 pictures"):
        task.agreement(outputs_with(), wanted)


# -------------------------------------------------------------------------------------------- average precision


def boxes_of(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    table = np.array(rows, float).reshape(-1, 6)
    return found_boxes(table[:, :4], table[:, 4], table[:, 5])


def test_average_precision_by_hand() -> None:
    pytest.importorskip("hotcoco")
    # Two cats to find in two pictures. Found: one exactly (0.9), nothing (0.8), the other at IoU 0.5 · … = 80/120.
    true = [true_boxes([[0, 0, 10, 10]], [0]), true_boxes([[50, 50, 60, 60]], [0])]
    found = [
        boxes_of((0, 0, 10, 10, 0, 0.9), (30, 30, 40, 40, 0, 0.8)),
        boxes_of((52, 50, 62, 60, 0, 0.7)),  # shifted by 2 of 10: 80 / 120 = 0.67
    ]
    result = average_precision(found, true, CLASSES)
    # At IoU up to 0.65 precision is 1 to recall 0.5 (51 of 101 places) and 2/3 after it; beyond it is 1 and then 0.
    near, far = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert result["ap50"] == pytest.approx(near) and result["ap75"] == pytest.approx(far)
    assert result["value"] == pytest.approx((4 * near + 6 * far) / 10)
    assert result["scores"]["small"] == pytest.approx(result["value"])
    assert result["scores"]["medium"] is None and result["scores"]["large"] is None
    assert result["scores"]["recall"] == pytest.approx((4 * 1 + 6 * 0.5) / 10)
    assert result["scores"]["classes"]["cat"]["boxes"] == 2
    assert result["scores"]["classes"]["dog"] == {"ap": None, "ap50": None, "boxes": 0}
    at = {row["score"]: (row["precision"], row["recall"]) for row in result["scores"]["thresholds"]}
    assert at[0.5] == (2 / 3, 1.0) and at[0.75] == (1 / 2, 1 / 2) and at[0.85] == (1.0, 1 / 2) and at[0.95] == (None, 0)
    low, high = result["interval"]
    assert low < result["value"] < high


def test_what_need_not_be_found_counts_neither_way() -> None:
    pytest.importorskip("hotcoco")
    corners = [[0, 0, 10, 10], [50, 50, 60, 60]]
    true = [true_boxes(corners, [0, 0], [False, True])]
    found_both = [boxes_of((50, 50, 60, 60, 0, 0.9), (0, 0, 10, 10, 0, 0.8))]
    found_one = [boxes_of((0, 0, 10, 10, 0, 0.8))]
    for found in (found_both, found_one):
        assert average_precision(found, true, CLASSES)["value"] == pytest.approx(1.0)
    assert average_precision(found_both, [true_boxes(corners[:1], [0])], CLASSES)["value"] == pytest.approx(0.5)


def test_what_cannot_be_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    one = [true_boxes([[0, 0, 1, 1]], [0])]
    with pytest.raises(DataError, match="no box is to be found in 1 pictures"):
        average_precision(one, [true_boxes([[0, 0, 1, 1]], [0], [True])], CLASSES)
    with pytest.raises(DataError, match="a box of class 2; wanted 0 to 1"):
        average_precision([true_boxes([[0, 0, 1, 1]], [2])], one, CLASSES)
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "hotcoco":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"needs hotcoco; install it with: pip install featherweight\[detect\]"):
        average_precision(one, one, CLASSES)


def crowd(seed: int, pictures: int, classes: int) -> tuple[list[Boxes], list[Boxes]]:
    """(found, true): true boxes of all sizes, some hard; found ones near them, and some anywhere."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(pictures):
        count = rng.integers(0, 8)
        start, sides = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(2, 5.5, (count, 2)))
        corners, labels = np.hstack([start, start + sides]), rng.integers(0, classes, count)
        true.append(true_boxes(corners, labels, rng.random(count) < 0.1))
        seen = rng.random(count) < 0.8
        moved = corners[seen] + rng.normal(0, 0.08, (seen.sum(), 4)) * np.tile(sides[seen], 2)
        more = rng.uniform(0, 200, (rng.integers(0, 5), 2))
        both = np.vstack([moved, np.hstack([more, more + 40])])
        names = np.concatenate([labels[seen], rng.integers(0, classes, len(more))])
        found.append(found_boxes(both, names, np.round(rng.random(len(both)), 2)))
    return found, true


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_picture_once_is_the_average_precision(seed: int) -> None:
    pytest.importorskip("hotcoco")
    found, true = crowd(seed, 30, 3)
    names = ("a", "b", "c")
    result = average_precision(found, true, names, resamples=200)
    matches = _matches(_evaluated(found, true, names), true, 3)
    assert resampled(matches, np.ones(30, np.int64)) == pytest.approx(result["value"], abs=1e-9)
    # Each picture twice is the data set twice: what is read at the same recalls is the same.
    twice = average_precision(found * 2, true * 2, names, resamples=1)
    assert resampled(matches, np.full(30, 2)) == pytest.approx(twice["value"], abs=5e-3)
    low, high = result["interval"]
    assert 0.01 < high - low < 0.5 and low < result["value"] < high
    assert average_precision(found, true, names, resamples=200) == result  # the same draws each time


def test_an_empty_draw_has_no_average_precision() -> None:
    pytest.importorskip("hotcoco")
    found, true = [boxes_of(), boxes_of()], [true_boxes([[0, 0, 9, 9]], [0]), true_boxes([], [])]
    matches = _matches(_evaluated(found, true, CLASSES), true, 2)
    assert resampled(matches, np.array([0, 2])) is None
    assert resampled(matches, np.array([1, 1])) == 0.0
    assert average_precision(found, true, CLASSES)["interval"] == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_pycocotools(seed: int) -> None:
    pytest.importorskip("hotcoco")
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    found, true = crowd(seed + 10, 40, 4)
    ours = average_precision(found, true, ("a", "b", "c", "d"), resamples=1)

    def rows(boxes: list[Boxes]) -> list[dict[str, Any]]:
        return [
            {
                "image_id": n + 1, "category_id": int(one.labels[k]) + 1, "score": float(one.scores[k]),
                "bbox": [float(v) for v in (*one.corners[k, :2], *(one.corners[k, 2:] - one.corners[k, :2]))],
                "area": float(np.prod(one.corners[k, 2:] - one.corners[k, :2])), "iscrowd": int(one.hard[k]),
            }
            for n, one in enumerate(boxes) for k in range(len(one))
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {
            "images": [{"id": n + 1} for n in range(40)],
            "categories": [{"id": n + 1, "name": name} for n, name in enumerate("abcd")],
            "annotations": [{**row, "id": n + 1} for n, row in enumerate(rows(true))],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(rows(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = ours["scores"]
    mine = [ours["value"], ours["ap50"], ours["ap75"], scores["small"], scores["medium"], scores["large"]]
    assert mine == pytest.approx(list(evaluation.stats[:6]), abs=1e-6)
    assert scores["recall"] == pytest.approx(evaluation.stats[8], abs=1e-6)
