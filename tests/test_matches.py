"""Which boxes are right: by class and overlap, each true one once, hard ones never asked for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.boxes import Boxes, found_boxes, true_boxes
from featherweight.matches import Seen, overlaps, to_look_at

TRUE = true_boxes([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 1], [False, False, True])


def found(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return found_boxes(table[:, :4], table[:, 4], table[:, 5])


def seen(*rows: tuple[float, float, float, float, int, float], true: Boxes = TRUE) -> Seen:
    return Seen(Path("x.png"), true, found(*rows))


def test_overlaps_by_hand() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 3]], np.float32)
    assert overlaps(a, b)[0] == pytest.approx([1, 50 / 150, 0, 0])
    assert overlaps(b[3:], b[3:])[0, 0] == 0  # no area, no overlap, no warning


def test_each_true_box_is_found_once_and_by_its_class() -> None:
    one = seen((0, 0, 10, 10, 0, 0.9), (1, 0, 11, 10, 0, 0.8), (20, 0, 30, 10, 1, 0.7))
    assert one.right.tolist() == [True, False, False]  # the second is there twice, the third of the other class
    assert one.missed.tolist() == [False, True, False]
    assert one.failures == 3


def test_a_hard_box_is_neither_missed_nor_wrong() -> None:
    one = seen((40, 0, 50, 10, 1, 0.9), (41, 0, 51, 10, 1, 0.8))
    assert one.right.all() and not one.missed[2]
    # One that must be found goes before a hard one that lies nearer.
    both = true_boxes([[0, 0, 10, 10], [2, 0, 12, 10]], [0, 0], [True, False])
    assert seen((0, 0, 10, 10, 0, 0.9), true=both).failures == 0


@pytest.mark.parametrize("boxes", [(), ((0, 0, 10, 10, 0, 0.9),)])
def test_pictures_without_boxes(boxes: tuple) -> None:
    empty = true_boxes([], [])
    assert seen(*boxes, true=empty).failures == len(boxes)
    assert seen(*boxes).missed.sum() == 2 - len(boxes)


BOX = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(21, 40), st.integers(21, 40), st.integers(0, 1))


@given(st.lists(BOX, max_size=8), st.lists(BOX, max_size=8))
def test_right_and_missed_add_up(true: list, some: list) -> None:
    there = true_boxes([box[:4] for box in true], [box[4] for box in true])
    one = seen(*[(*box, 1 - 0.1 * place) for place, box in enumerate(some)], true=there)
    assert one.right.sum() + one.missed.sum() == len(true)
    assert seen(*[(*box, 0.5) for box in true], true=there).right.any() == bool(true)


def test_the_worst_come_first_and_some_of_the_rest() -> None:
    wrong = [(100, 100, 110, 110, 0, 0.9)]
    good = [(0, 0, 10, 10, 0, 0.9), (20, 0, 30, 10, 0, 0.8)]
    pictures = [seen(*good), seen(*good, *wrong), seen(*good), seen(*wrong), *(seen(*good) for _ in range(6))]
    worst, others = to_look_at(pictures, 5, 2)
    assert worst == [pictures[3], pictures[1]]
    assert others == [pictures[0], pictures[6]]
    assert to_look_at(pictures, 1, 0) == ([pictures[3]], [])
    assert to_look_at([], 5, 2) == ([], [])
