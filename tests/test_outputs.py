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
    assert most_off(np.ones((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)) > 1e9
