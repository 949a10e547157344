"""Tasks: what outputs mean and how good they are."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.artifact import Artifact
from featherweight.errors import ArtifactError, SettingError
from featherweight.record import BY_KEY
from featherweight.tasks import task_of

CLASSES = ("cat", "dog", "owl")
ARTIFACT = Artifact(Path("x"), "model.onnx", "x", "onnx", "float32", "", 0, task="classify", classes=CLASSES)
TASK = task_of(ARTIFACT)
SIZES = [(4, 4)]


def test_the_task_s_name_and_its_metric() -> None:
    assert TASK.name == "classify"
    assert TASK.metric == BY_KEY["accuracy"].label


@pytest.mark.parametrize("name", ["detec", "", "Classify"])
def test_an_unknown_task(name: str) -> None:
    with pytest.raises(SettingError, match=f"unknown task '{name}'; known: classify, detect"):
        task_of(replace(ARTIFACT, task=name))


def test_a_bare_file_does_not_say_its_task() -> None:
    for bare in (replace(ARTIFACT, task=None), replace(ARTIFACT, classes=None)):
        with pytest.raises(ArtifactError, match="x is a bare model file and does not say its classes"):
            task_of(bare)


def test_predictions_best_first() -> None:
    outputs = np.array([[0.25, 0.125, 0.625], [0.5, 0.5, 0.0]], np.float32)
    assert TASK.decode(outputs, SIZES * len(outputs)) == [
        [{"label": "owl", "score": 0.625}, {"label": "cat", "score": 0.25}, {"label": "dog", "score": 0.125}],
        # equal scores in the order of the classes, as argmax has it
        [{"label": "cat", "score": 0.5}, {"label": "dog", "score": 0.5}, {"label": "owl", "score": 0.0}],
    ]


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_each_class_once_and_the_first_is_what_is_scored(rows: list[list[float]]) -> None:
    outputs = np.array(rows, np.float32)
    decoded = TASK.decode(outputs, SIZES * len(outputs))
    for row, predictions in zip(outputs, decoded, strict=True):
        assert sorted(p["label"] for p in predictions) == sorted(CLASSES)
        assert [p["score"] for p in predictions] == sorted((round(float(x), 6) for x in row), reverse=True)
        assert all(type(p["score"]) is float for p in predictions)
    tops = np.array([CLASSES.index(predictions[0]["label"]) for predictions in decoded])
    assert TASK.score(TASK.read(outputs, SIZES * len(outputs)), tops)["value"] == 1.0
    assert TASK.score(TASK.read(outputs, SIZES * len(outputs)), (tops + 1) % 3)["value"] == 0.0


def test_accuracy_is_the_share_of_right_answers_with_its_interval() -> None:
    outputs = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 0]]
    targets = np.array([0, 1, 2, 0, 1, 0, 1, 2])  # 5 of 8 right
    found = TASK.score(TASK.read(outputs, SIZES * len(outputs)), targets)
    assert (found["value"], found["n"]) == (5 / 8, 8)
    z2 = 1.959963984540054**2
    for bound in found["interval"]:  # where 5/8 lies exactly z standard errors off
        assert (5 / 8 - bound) ** 2 == pytest.approx(z2 * bound * (1 - bound) / 8)
    low, high = found["interval"]
    assert low < 5 / 8 < high and type(found["value"]) is float
    assert not math.isnan(low + high)


def test_agreement_is_how_often_the_best_class_is_the_same() -> None:
    wanted = np.eye(3, dtype=np.float32)
    assert TASK.agreement(wanted, wanted) == 1.0
    assert TASK.agreement(wanted, wanted[[0, 2, 2]]) == pytest.approx(2 / 3)
    with pytest.raises(SettingError, match=r"outputs \(1, 3, 3\) do not tell classes apart"):
        TASK.agreement(wanted[None], wanted[None])
