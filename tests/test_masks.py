"""Masks: every kind of file, what is wrong with one, and how one is resized."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from featherweight.errors import LabelError, SettingError
from featherweight.image import decode_raw
from featherweight.masks import IGNORE, MaskSource, mask_source_of, read_mask, resize_mask
from tests.boxed import write
from tests.masked import COLOURS, HEIGHT, WIDTH, bmp, coloured, encoded, grey, low_bits, palette, truth

VALUES = (((0,), 0), ((1,), 1), ((2,), 2), ((255,), IGNORE))
IN_COLOURS = tuple((tuple(colour), label) for label, colour in enumerate(COLOURS.tolist()))
TRUTH = truth(0)


def read(path: Path, data: bytes, kind: str = "values", legend: tuple = VALUES, turn: int = 1) -> NDArray[np.uint8]:
    write(path / "mask", data)
    return read_mask(MaskSource(str(path / "mask"), kind, legend, turn=turn), HEIGHT, WIDTH)


@pytest.mark.parametrize("write_mask", [grey, palette, bmp, lambda m: low_bits(m, 2), lambda m: low_bits(m, 4)])
def test_values_are_the_classes(tmp_path: Path, write_mask) -> None:
    mask = read(tmp_path, write_mask(TRUTH))
    assert mask.dtype == np.uint8
    assert (mask == TRUTH).all()


def test_more_ways_to_keep_values(tmp_path: Path) -> None:
    as_rgb = encoded(Image.fromarray(TRUTH).convert("RGB"))
    with_alpha = encoded(Image.merge("LA", [Image.fromarray(TRUTH), Image.new("L", (WIDTH, HEIGHT), 9)]))
    as_16_bit = encoded(Image.fromarray(TRUTH.astype(np.uint16)))
    without_loss = encoded(Image.fromarray(TRUTH).convert("RGB"), "WEBP", lossless=True)
    for data in (as_rgb, with_alpha, as_16_bit, without_loss):
        assert (read(tmp_path, data) == TRUTH).all()
    one_bit = encoded(Image.fromarray(TRUTH == 1))
    assert (read(tmp_path, one_bit) == (TRUTH == 1)).all()


def test_what_is_ignored(tmp_path: Path) -> None:
    mask = TRUTH.copy()
    mask[3] = 255
    assert (read(tmp_path, grey(mask)) == np.where(mask == 255, IGNORE, mask)).all()


def test_colours_are_the_classes(tmp_path: Path) -> None:
    assert (read(tmp_path, coloured(TRUTH), "colours", IN_COLOURS) == TRUTH).all()
    see_through = np.dstack([COLOURS[TRUTH], np.full((HEIGHT, WIDTH), 7, np.uint8)])
    assert (read(tmp_path, encoded(Image.fromarray(see_through)), "colours", IN_COLOURS) == TRUTH).all()
    # The palette runs backwards, so that its colours say the opposite of its indices.
    assert (read(tmp_path, palette(TRUTH), "colours", IN_COLOURS) == 2 - TRUTH).all()
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert (read(tmp_path, grey(black), "colours", IN_COLOURS) == 0).all()


def test_a_smeared_jpeg_is_called_by_its_name(tmp_path: Path) -> None:
    smeared = encoded(Image.fromarray(TRUTH * 120), "JPEG", quality=60)
    with pytest.raises(LabelError, match=r"its mask is a JPEG, which smears values between those of the class"):
        read(tmp_path, smeared, legend=(((0,), 0), ((120,), 1), ((240,), 2)))
    clean = encoded(Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)), "JPEG", quality=100)
    assert (read(tmp_path, clean, legend=(((0,), 0), ((255,), 1))) == 1).all()
    with pytest.raises(LabelError, match="its mask is a JPEG in colours, which smears them; wanted a PNG"):
        read(tmp_path, encoded(Image.fromarray(COLOURS[TRUTH]), "JPEG"))
    assert decode_raw(encoded(Image.fromarray(COLOURS[TRUTH]), "WEBP")).lossy
    assert not decode_raw(encoded(Image.fromarray(COLOURS[TRUTH]), "WEBP", lossless=True)).lossy


def test_what_no_mask_is(tmp_path: Path) -> None:
    def line(data: bytes, kind: str = "values", legend: tuple = VALUES) -> str:
        with pytest.raises(LabelError) as caught:
            read(tmp_path, data, kind, legend)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert line(grey(TRUTH + 3)).startswith("its mask has the values 3 and 2 more, of no class")
    assert line(grey(np.where(TRUTH == 2, 77, TRUTH).astype(np.uint8))) == "its mask has the value 77, of no class"
    assert line(grey(TRUTH[:, :5])) == "its mask has 5×8 pixels, and it has 12×8"
    assert line(coloured(TRUTH)).startswith("its mask is in colours, and no legend says what they stand for")
    stray = COLOURS[TRUTH]
    stray[5, 5] = 1, 2, 3
    assert line(encoded(Image.fromarray(stray)), "colours", IN_COLOURS) == (
        "its mask has the value (1, 2, 3), of no class"
    )
    deep = encoded(Image.fromarray(TRUTH.astype(np.uint16) * 300))
    assert line(deep).startswith("its mask has the value 600; wanted classes of 0 to 254, in 8 bits (numbers of single")
    assert line(deep, "colours", IN_COLOURS).startswith("its mask has the value 600 and no colours")
    assert line(grey(TRUTH)[:-20]) == "its mask cannot be read: damaged PNG: truncated, it has no IEND chunk"
    assert line(grey(TRUTH), legend=()).startswith("its mask has the value")
    with pytest.raises(LabelError, match="its mask cannot be read: no such file"):
        read_mask(MaskSource(str(tmp_path / "none")), 8, 12)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    data = bytearray(grey(TRUTH))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(LabelError, match="60000×60000 pixels; at most 80,000,000 are read"):
        read(tmp_path, bytes(data))


@pytest.mark.parametrize(("turn", "turned"), [(6, np.rot90), (8, lambda mask: np.rot90(mask, -1))])
def test_a_mask_from_before_its_picture_was_turned_is_turned_too(tmp_path: Path, turn: int, turned) -> None:
    lying = np.ascontiguousarray(turned(TRUTH))  # what turning by the picture's EXIF makes upright
    assert (read(tmp_path, grey(lying), turn=turn) == TRUTH).all()
    assert (read(tmp_path, grey(TRUTH), turn=turn) == TRUTH).all()
    with pytest.raises(LabelError, match="its mask has 8×12 pixels, and it has 12×8"):
        read(tmp_path, grey(lying))


def test_shapes_lie_on_each_other() -> None:
    ring = (2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0)
    hole = (3.0, 2.0, 4.0, 2.0, 4.0, 3.0, 3.0, 3.0)
    source = MaskSource(
        kind="polygons",
        polygons=((1, (ring, hole)), (2, ((5.0, 0.0, 9.0, 0.0, 9.0, 2.0, 5.0, 2.0),))),
        runs=((1, (0, HEIGHT, HEIGHT * (WIDTH - 1))),),
    )
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[:, 0] = 1
    wanted[1:4, 2:6] = 1
    wanted[2, 3] = 0
    wanted[0:2, 5:9] = 2
    assert (read_mask(source, HEIGHT, WIDTH) == wanted).all()
    plain = json.loads(json.dumps(source.as_dict()))
    assert mask_source_of(plain) == source
    old = {key: plain[key] for key in ("path", "kind", "legend", "polygons")}
    assert mask_source_of(old).runs == ()


def test_a_source_is_plain() -> None:
    source = MaskSource("masks/7.png", "values", VALUES, turn=6)
    assert mask_source_of(json.loads(json.dumps(source.as_dict()))) == source


def test_resizing_takes_the_nearest_pixel() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    assert resize_mask(mask, 2, 2).tolist() == mask.tolist()
    assert resize_mask(mask, 4, 4).tolist() == np.kron(mask, np.ones((2, 2), np.uint8)).tolist()
    boxed = resize_mask(TRUTH, 24, 24, "letterbox")
    assert boxed.shape == (24, 24)
    assert (boxed[:4] == IGNORE).all() and (boxed[20:] == IGNORE).all()
    assert (boxed[4:20:2, ::2] == TRUTH).all()
    with pytest.raises(SettingError, match="unknown resize 'bent'"):
        resize_mask(mask, 4, 4, "bent")


@pytest.mark.parametrize("write_mask", [grey, palette, bmp, coloured])
def test_damage_is_a_mask_or_one_line(tmp_path: Path, write_mask) -> None:
    data = write_mask(TRUTH)
    cut = [data[:size] for size in range(0, len(data), 7)]
    flipped = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(0, len(data), 3)]
    for one in [*cut, *flipped]:
        try:
            assert read(tmp_path, one).shape == (HEIGHT, WIDTH)
        except LabelError as error:
            assert "\n" not in str(error)
