"""Outlines filled and runs unrolled: by hand, against one pixel at a time, and against what nobody draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight import outlines
from featherweight.errors import LabelError
from featherweight.outlines import fill, runs_of, unroll


def filled(*rings: list[float], height: int = 6, width: int = 8) -> list[str]:
    mask = np.zeros((height, width), np.uint8)
    fill(mask, rings, 1)
    return ["".join(".#"[one] for one in row) for row in mask]


def test_a_rectangle_has_the_pixels_between_its_edges() -> None:
    assert filled([1, 1, 4, 1, 4, 3, 1, 3]) == ["........", ".###....", ".###....", "........", "........", "........"]
    assert filled([1, 3, 4, 3, 4, 1, 1, 1]) == filled([1, 1, 4, 1, 4, 3, 1, 3])  # the other way round
    assert filled([1.6, 1, 3.4, 1, 3.4, 3, 1.6, 3])[1] == "..#....."  # centres at 2.5 alone
    assert filled([0, 0, 8, 0, 8, 6, 0, 6]) == ["########"] * 6


def test_a_ring_within_a_ring_is_a_hole() -> None:
    ring = [0, 0, 8, 0, 8, 6, 0, 6]
    assert filled(ring, [2, 1, 5, 1, 5, 3, 2, 3])[1:4] == ["##...###", "##...###", "########"]


def test_what_is_beyond_the_picture_is_cut_off() -> None:
    assert filled([-9, -9, 3, -9, 3, 2, -9, 2])[:3] == ["###.....", "###.....", "........"]
    assert filled([20, 0, 30, 0, 30, 5, 20, 5]) == ["........"] * 6
    assert filled([1, 1, 5, 1, 3, 1]) == ["........"] * 6  # no area


@given(st.lists(st.tuples(st.integers(-4, 12), st.integers(-4, 10)), min_size=3, max_size=8))
def test_any_ring_has_the_pixels_whose_centres_are_within(points: list[tuple[int, int]]) -> None:
    mask = np.zeros((6, 8), np.uint8)
    fill(mask, [[float(one) for point in points for one in point]], 1)
    for row in range(6):
        for column in range(8):
            x, y, left = column + 0.5, row + 0.5, 0
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 <= y) != (y1 <= y):
                    left += x0 + (x1 - x0) * (y - y0) / (y1 - y0) <= x
            assert mask[row, column] == left % 2


def test_neighbours_share_no_pixel_and_leave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "CHUNK", 3)  # the work goes on in pieces
    one, other = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    fill(one, [[0, 0, 8, 0, 0, 6]], 1)
    fill(other, [[8, 0, 8, 6, 0, 6]], 1)
    assert (one + other == 1).all()


def test_too_many_crossings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "MOST_CROSSINGS", 5)
    with pytest.raises(LabelError, match="an outline that crosses 8 rows in all; at most 5 are filled"):
        fill(np.zeros((6, 8), np.uint8), [[0, 0, 4, 0, 4, 4, 0, 4]], 1)


def test_runs_go_down_the_columns() -> None:
    assert unroll([1, 2, 3], 2, 3).tolist() == [[False, True, False], [True, False, False]]
    with pytest.raises(LabelError, match="runs over 7 pixels, and its picture has 6"):
        unroll([1, 6], 2, 3)
    with pytest.raises(LabelError, match="runs over 6 pixels"):
        unroll([-1, 7], 2, 3)


def packed(runs: list[int]) -> str:
    """COCO's text of runs."""
    text = ""
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(st.lists(st.integers(0, 100_000)))
def test_compressed_runs_come_back(runs: list[int]) -> None:
    assert runs_of(packed(runs)) == runs


@given(st.text(max_size=30))
def test_any_text_is_runs_or_one_line(text: str) -> None:
    try:
        assert all(run >= 0 for run in runs_of(text))
    except LabelError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "line"),
    [(" ", "compressed runs that are none"), ("oooooooooo0", "that are none"), ("o", "end within a number"),
     ("@", "compressed runs of -16 pixels")],
)  # fmt: skip
def test_bad_runs(text: str, line: str) -> None:
    with pytest.raises(LabelError, match=line):
        runs_of(text)
