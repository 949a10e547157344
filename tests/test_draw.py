"""What is drawn can be read: on light, on dark, in small and in large pictures."""

import numpy as np
import pytest

from featherweight.draw import BLACK, WHITE, colour_of, contrast, draw, luminance


def test_luminance_and_contrast_as_defined() -> None:
    assert luminance(BLACK) == 0 and luminance(WHITE) == pytest.approx(1)
    assert luminance((255, 0, 0)) == pytest.approx(0.2126)
    assert contrast(WHITE, BLACK) == pytest.approx(21)


def test_every_colour_is_seen_on_light_and_dark_and_its_label_can_be_read() -> None:
    colours = [colour_of(place) for place in range(300)]
    for colour in colours:
        assert min(contrast(colour, WHITE), contrast(colour, BLACK)) >= 3 - 0.05
        assert max(contrast(colour, WHITE), contrast(colour, BLACK)) >= 4.5
    near = np.array(colours[:20], int)
    apart = np.abs(near[:, None] - near[None]).sum(-1)[~np.eye(20, dtype=bool)]
    assert apart.min() > 20 and np.abs(near[1:] - near[:-1]).sum(-1).min() > 100
    assert colours == [colour_of(place) for place in range(300)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 30), (480, 640), (3000, 2000)])
def test_boxes_are_drawn_in_proportion(height: int, width: int) -> None:
    pixels = np.full((height, width, 3), 128, np.uint8)
    box = [0.25 * width, 0.5 * height, 0.75 * width, 0.9 * height]
    drawn = draw(pixels, [{"label": "dog", "score": 0.5, "box": box}], ("cat", "dog"))
    assert drawn.shape == pixels.shape and (pixels == 128).all()
    if height < 100:
        return
    colour = np.array(colour_of(1))
    lines = (drawn == colour).all(-1)
    row = lines[round(0.7 * height)]
    thickness = max(2, round(0.003 * max(height, width)))
    assert row.sum() == 2 * thickness  # the left and the right side
    assert lines[round(0.5 * height) + 1].sum() >= 0.49 * width
    above = drawn[: round(0.5 * height)]
    ink = (above == (WHITE if contrast(tuple(colour), WHITE) > contrast(tuple(colour), BLACK) else BLACK)).all(-1)
    text_rows = np.flatnonzero(ink.any(1))
    assert text_rows.size >= 0.01 * max(height, width)  # letters of some height, above the box


@pytest.mark.parametrize("box", [[-50, -50, 900, 900], [630, 0, 640, 4], [0, 470, 3, 480], [5, 5, 5, 5]])
def test_labels_stay_in_the_picture(box: list[float]) -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    drawn = draw(pixels, [{"label": "a long name of a class", "score": 1.0, "box": box}], ("a long name of a class",))
    assert (drawn == colour_of(0)).all(-1).sum() > 500


def test_a_class_without_a_box_is_written_into_the_corner() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    found = [{"label": "cat", "score": 0.9}, {"label": "dog", "score": 0.1}]
    drawn = draw(pixels, found, ("cat", "dog"))
    assert (drawn[:30] == colour_of(0)).all(-1).any() and not (drawn == colour_of(1)).all(-1).any()
    assert np.array_equal(draw(pixels, [], ("cat",)), pixels)


def test_names_in_other_scripts_do_not_stop_it() -> None:
    drawn = draw(np.zeros((90, 90, 3), np.uint8), [{"label": "猫 ü", "score": 0.5, "box": [9, 40, 60, 80]}], ("猫 ü",))
    assert drawn.any()
