"""Tasks: what outputs mean and how good they are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.errors import SettingError
from featherweight.record import BY_KEY
from featherweight.tasks import task_named

CLASSES = ("cat", "dog", "owl")
TASK = task_named("classify")


def test_the_task_s_name_and_its_metric() -> None:
    assert TASK.name == "classify"
    assert TASK.metric in BY_KEY


@pytest.mark.parametrize("name", ["detect", "", "Classify"])
def test_an_unknown_task(name: str) -> None:
    with pytest.raises(SettingError, match=f"unknown task '{name}'; known: classify"):
        task_named(name)


def test_predictions_best_first() -> None:
    outputs = np.array([[0.25, 0.125, 0.625], [0.5, 0.5, 0.0]], np.float32)
    assert TASK.decode(outputs, CLASSES) == [
        [{"label": "owl", "score": 0.625}, {"label": "cat", "score": 0.25}, {"label": "dog", "score": 0.125}],
        # equal scores in the order of the classes, as argmax has it
        [{"label": "cat", "score": 0.5}, {"label": "dog", "score": 0.5}, {"label": "owl", "score": 0.0}],
    ]


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_each_class_once_and_the_first_is_what_is_scored(rows: list[list[float]]) -> None:
    outputs = np.array(rows, np.float32)
    decoded = TASK.decode(outputs, CLASSES)
    for row, predictions in zip(outputs, decoded, strict=True):
        assert sorted(p["label"] for p in predictions) == sorted(CLASSES)
        assert [p["score"] for p in predictions] == sorted((round(float(x), 6) for x in row), reverse=True)
        assert all(type(p["score"]) is float for p in predictions)
    tops = np.array([CLASSES.index(predictions[0]["label"]) for predictions in decoded])
    assert TASK.score(outputs, tops)["value"] == 1.0
    assert TASK.score(outputs, (tops + 1) % 3)["value"] == 0.0


def test_accuracy_is_the_share_of_right_answers_with_its_interval() -> None:
    outputs = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 0]]
    targets = np.array([0, 1, 2, 0, 1, 0, 1, 2])  # 5 of 8 right
    found = TASK.score(outputs, targets)
    assert (found["value"], found["n"]) == (5 / 8, 8)
    z2 = 1.959963984540054**2
    for bound in found["interval"]:  # where 5/8 lies exactly z standard errors off
        assert (5 / 8 - bound) ** 2 == pytest.approx(z2 * bound * (1 - bound) / 8)
    low, high = found["interval"]
    assert low < 5 / 8 < high and type(found["value"]) is float
    assert not math.isnan(low + high)
