"""Large pictures are read, and masks written, by rows."""

import io
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featherweight import strips
from featherweight.errors import ImageError, OutputError
from featherweight.strips import IndexPng, open_rows


def picture_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def read_all(path: Path, most: int = 7) -> np.ndarray:
    with open_rows(path) as rows:
        counts = [min(most, rows.height - start) for start in range(0, rows.height, most)]
        return np.concatenate([rows.read(count) for count in counts])


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures from 100 pixels on count as too large for memory."""
    monkeypatch.setattr(strips, "MAX_PIXELS", 100)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
@pytest.mark.usefixtures("no_room")
def test_a_png_by_rows(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "CHUNK_BYTES", 50)
    monkeypatch.setattr(strips, "STRIP_BYTES", 200)
    smooth = np.add.outer(np.arange(33), np.arange(21))[..., None] * [3, 5, 7] % 256
    image = Image.fromarray(smooth.astype(np.uint8)).convert(mode)
    image.save(tmp_path / "x.png")
    wanted = np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")))[..., :3]
    assert np.array_equal(read_all(tmp_path / "x.png"), wanted)


def filtered_png(pixels: np.ndarray, parts: int = 3) -> bytes:
    """Each row filtered another way (PNG 1.2, section 6), in several IDAT chunks."""
    rows, above = [], np.zeros(pixels.shape[1] * 3, int)
    for number, row in enumerate(pixels.reshape(len(pixels), -1).astype(int)):
        left, corner = (np.concatenate([[0, 0, 0], one[:-3]]) for one in (row, above))
        guess = left + above - corner
        off = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)])
        paeth = np.choose(off.argmin(0), [left, above, corner])
        base = [0 * row, left, above, (left + above) // 2, paeth][number % 5]
        rows.append(bytes([number % 5]) + ((row - base) % 256).astype(np.uint8).tobytes())
        above = row
    data = zlib.compress(b"".join(rows))
    cuts = np.linspace(0, len(data), parts + 1).astype(int)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tEXt", b"a\0b"), (b"IDAT", b"")]
    chunks += [(b"IDAT", data[start:end]) for start, end in pairwise(cuts)]
    return strips.PNG_START + b"".join(strips._chunk(*one) for one in [*chunks, (b"IEND", b"")])


@pytest.mark.usefixtures("no_room")
def test_every_filter(tmp_path: Path) -> None:
    pixels = picture_of(23, 11)
    (tmp_path / "x.png").write_bytes(filtered_png(pixels))
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(read_all(tmp_path / "x.png"), pixels)


@pytest.mark.usefixtures("no_room")
def test_rows_as_they_stand(tmp_path: Path) -> None:
    pixels = picture_of(13, 17)
    for name in ("x.bmp", "x.ppm"):
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "x.pgm")
    np.save(tmp_path / "x.npy", pixels)
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    for name in ("x.bmp", "x.ppm", "x.npy"):
        assert np.array_equal(read_all(tmp_path / name), pixels), name
    for name in ("x.pgm", "grey.npy"):
        assert np.array_equal(read_all(tmp_path / name), pixels[..., :1].repeat(3, 2)), name


def test_small_pictures_are_read_as_ever(tmp_path: Path) -> None:
    pixels = picture_of(5, 7)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.array_equal(read_all(tmp_path / "x.png", 2), pixels)
    with pytest.raises(ImageError, match="no such file"):
        open_rows(tmp_path / "absent.png")
    (tmp_path / "x.txt").write_text("no picture")
    with pytest.raises(ImageError, match="not a JPEG"):
        open_rows(tmp_path / "x.txt")


def header_says(data: bytes, depth: int = 8, interlaced: int = 0) -> bytes:
    header = data[16:24] + bytes([depth]) + data[25:28] + bytes([interlaced])
    return data[:8] + strips._chunk(b"IHDR", header) + data[33:]


@pytest.mark.usefixtures("no_room")
@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("x.png", lambda data: data[:-40], "truncated, it ends before its last row"),
        ("x.png", lambda data: data[:600] + bytes(50) + data[650:], "damaged PNG"),
        ("x.png", lambda data: header_says(data, depth=16), "16 bits a channel; wanted 8 bits, not interlaced"),
        ("x.png", lambda data: header_says(data, interlaced=1), "interlaced; wanted 8 bits"),
        ("x.png", lambda data: data[:8] + strips._chunk(b"IHDR", data[16:28]) + data[33:], "its header is cut off"),
        ("x.png", lambda data: data[:8] + bytes(4) + b"abcd" + data[16:24] + data[29:], "damaged PNG"),
        ("x.png", lambda data: data[:33] + strips._chunk(b"IDAT", zlib.compress(b"\0")), "pixels end before"),
        ("x.png", lambda data: data[:33] + struct.pack(">I4s", 2**30, b"tEXt"), "a chunk of"),
        ("x.png", lambda data: data[:33] + strips._chunk(b"IEND", b""), "truncated"),
        ("x.bmp", lambda data: data[:-9], "truncated"),
        ("x.bmp", lambda data: data[:28] + b"\x10" + data[29:], "a large BMP of 16 bits"),
        ("x.ppm", lambda data: data[:-9], "truncated"),
        ("x.ppm", lambda data: data.replace(b"255", b"999", 1), "values to 999; wanted 255"),
        ("x.ppm", lambda data: data.replace(b"40", b"0", 1), "no side over"),
        ("x.npy", lambda data: data.replace(b"|u1", b"<f4", 1), "an array float32"),
        ("x.npy", lambda data: data.replace(b"descr", b"other", 1), "damaged NPY"),
        ("x.jpg", lambda data: data.replace(b"\0\x28\0\x28", b"\xf0\x28\xf0\x28", 1), "PNG, BMP, PPM and NPY are read"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, name: str, change: Callable[[bytes], bytes], said: str) -> None:
    pixels = picture_of(40, 40)
    stream = io.BytesIO()
    if name == "x.npy":
        np.save(stream, pixels)
    else:
        Image.fromarray(pixels).save(stream, {"x.ppm": "PPM", "x.jpg": "JPEG"}.get(name, name[2:].upper()))
    (tmp_path / name).write_bytes(change(stream.getvalue()))
    with pytest.raises(ImageError, match=said) as caught:
        read_all(tmp_path / name)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_no_damage_to_a_png_is_another_error(tmp_path_factory: pytest.TempPathFactory, place: int, value: int) -> None:
    data = bytearray(filtered_png(picture_of(20, 20)))
    data[place % len(data)] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "MAX_PIXELS", 100)
        path = tmp_path_factory.getbasetemp() / "damaged.png"
        path.write_bytes(bytes(data))
        try:
            with open_rows(path) as rows:
                if rows.height * rows.width < 10**6:
                    rows.read(rows.height)
        except ImageError as error:
            assert "\n" not in str(error)


def test_a_mask_as_a_png(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (50, 31)).astype(np.uint8)
    palette = [(0, 0, 0), (1, 2, 3), (200, 100, 0)]
    with IndexPng(tmp_path / "deep/m.png", 50, 31, palette) as png:
        for start in range(0, 50, 20):
            png.put(mask[start : start + 20])
            assert not (tmp_path / "deep/m.png").exists()
    with Image.open(tmp_path / "deep/m.png") as image:
        image.load()
        assert image.mode == "P" and np.array_equal(np.asarray(image), mask)
        assert np.array_equal(np.asarray(image.convert("RGB")), np.array(palette, np.uint8)[mask])
    with pytest.raises(OutputError, match="exists already"):
        IndexPng(tmp_path / "deep/m.png", 1, 1, palette)
    with IndexPng(tmp_path / "deep/n.png", 50, 31, palette) as png:
        png.put(mask[:20])  # some are missing
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        IndexPng(tmp_path / "file/m.png", 1, 1, palette)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m.png"]
