"""How far outputs are from others."""

import numpy as np
import pytest

from featherweight.outputs import are_classes, most_off


def test_what_is_one_number_a_class() -> None:
    for shape, wanted in (((4, 10), True), ((4, 1, 1, 10), True), ((4, 1), True), ((4, 20, 10), False)):
        assert are_classes(np.zeros(shape, np.float32)) is wanted


def test_classes_are_held_number_by_number() -> None:
    wanted = np.array([[0.5, 0.5], [1.0, 0.0]], np.float32)
    assert most_off(wanted, wanted) == 0
    assert most_off(wanted, np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)) == 0.25
    assert np.isnan(most_off(wanted, wanted * np.nan))


def test_raw_numbers_are_held_against_how_much_they_vary() -> None:
    wanted = np.array([[[-4.0, 4.0], [-4.0, 4.0]], [[0.0, 2.0], [0.0, 2.0]]], np.float32)  # deviations 4 and 1
    found = wanted + np.array([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.5]]], np.float32)
    assert most_off(wanted, wanted) == 0
    assert most_off(wanted[:1], found[:1]) == pytest.approx(1 / 4)
    assert most_off(wanted, found) == pytest.approx(0.25)  # of the second: the root of 0.25 / 4
    assert most_off(100 * wanted + 7, 100 * found + 7) == pytest.approx(0.25, rel=1e-5)
    assert np.isnan(most_off(wanted, wanted * np.nan))
    assert most_off(np.ones((1, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)) == 0
    assert most_off(np.full((1, 2, 2), 2, np.float32), np.zeros((1, 2, 2), np.float32)) > 1e9


def test_maps_of_probabilities_may_hardly_vary() -> None:
    nothing = np.full((1, 8, 8, 1), 0.01, np.float32)  # found anywhere
    assert most_off(nothing, nothing + np.float32(1e-3)) == pytest.approx(0.01, rel=1e-3)
    # Half of a thing that fills half of the map is lost: the root of 1/4, of a deviation of 1/2.
    half = np.zeros((1, 8, 8, 1), np.float32)
    half[:, :4] = 1
    less = half.copy()
    less[:, 2:] = 0
    assert most_off(half, less) == pytest.approx(1.0)
    # A thing of 1 % that is lost altogether is seen, where a mean difference would be 0.01.
    small = np.zeros((1, 10, 10, 2), np.float32)
    small[..., 0] = 1
    lost = small.copy()
    small[0, 5, 5] = 0, 1
    assert most_off(small, lost) == pytest.approx(0.1 / 0.5, rel=1e-5)
