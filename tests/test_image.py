"""The decoder: what every format and mode means in RGB, and what is refused. Truth is worked out from the pixels."""

import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from featherweight.errors import DataError, ImageError, SettingError
from featherweight.image import GREY, MAX_BYTES, MAX_PIXELS, decode, decoder_versions, read_bytes, read_image, resize

HEIGHT, WIDTH = 12, 20


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A slope in each channel: what JPEG keeps to within a few steps."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 8 * x, 40 + 12 * y, 200 - 4 * x - 4 * y], axis=2).astype(np.uint8)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255.0
    return colour * share + 255.0 * (1.0 - share)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def exif(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    """An EXIF block by hand: TIFF header, one directory of one entry, no next directory."""
    value = struct.pack({1: "B", 3: f"{order}H", 4: f"{order}I"}[kind], orientation).ljust(4, b"\0")
    start = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return b"Exif\0\0" + start + struct.pack(f"{order}H", 1) + entry + bytes(4)


def with_segment(jpeg: bytes, block: bytes) -> bytes:
    """The JPEG with an APP1 segment directly after its first marker."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def segment_of(jpeg: bytes, marker: int) -> int:
    return jpeg.index(bytes([0xFF, marker]))


# ------------------------------------------------------------------------------------------------ formats and modes


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_very_pixels(kind: str, options: dict[str, Any]) -> None:
    pixels = noise()
    decoded = decode(encode(Image.fromarray(pixels), kind, **options))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 2}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_lossy_formats_come_close(kind: str, options: dict[str, Any]) -> None:
    decoded = decode(encode(Image.fromarray(smooth()), kind, **options))
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(decoded.astype(int) - smooth()).mean() < 4


def test_gif_gives_its_first_frame() -> None:
    first, second = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    first[:, : WIDTH // 2] = [255, 0, 0]
    second[:] = [0, 255, 0]
    data = encode(Image.fromarray(first), "GIF", save_all=True, append_images=[Image.fromarray(second)])
    np.testing.assert_array_equal(decode(data), first)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_give_their_first_frame(kind: str) -> None:
    first, second = Image.fromarray(noise(1)), Image.fromarray(noise(2))
    data = encode(first, kind, save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(decode(data), noise(1))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = noise()[:, :, 0]
    np.testing.assert_array_equal(decode(encode(Image.fromarray(grey), kind)), np.stack([grey] * 3, axis=2))


def test_grey_jpeg_has_three_equal_channels() -> None:
    grey = smooth()[:, :, 0]
    decoded = decode(encode(Image.fromarray(grey), "JPEG", quality=95))
    assert np.ptp(decoded, axis=2).max() == 0
    assert np.abs(decoded[:, :, 0].astype(int) - grey).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    bits = noise()[:, :, 0] > 127
    expected = np.repeat(np.where(bits, 255, 0)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(bits), kind)), expected)


@pytest.mark.parametrize(("depth", "row", "values"), [(2, 0b00_01_10_11, [0, 85, 170, 255]), (4, 0x5F, [85, 255])])
def test_two_and_four_bit_grey_fill_the_range(depth: int, row: int, values: list[int]) -> None:
    decoded = decode(png(len(values), 1, depth, 0, [bytes([row])]))
    assert decoded[0, :, 0].tolist() == values


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 256, 257, 128 * 257, 200 * 257, 40_000, 65_535]], np.uint16)
    expected = [round(int(value) / 257) for value in values[0]]
    decoded = decode(encode(Image.fromarray(values), "PNG"))
    assert decoded[0, :, 0].tolist() == decoded[0, :, 2].tolist() == expected


def test_sixteen_bit_grey_with_a_transparent_value() -> None:
    decoded = decode(png(3, 1, 16, 0, [struct.pack(">3H", 0, 257, 65_535)], chunk(b"tRNS", struct.pack(">H", 257))))
    assert decoded[0, :, 0].tolist() == [0, 255, 255]


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    decoded = decode(png(2, 1, 16, 2, [struct.pack(">6H", 0, 0x80FF, 0xFFFF, 0x0100, 0x7F00, 0xFE01)]))
    assert decoded.tolist() == [[[0, 0x80, 0xFF], [0x01, 0x7F, 0xFE]]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(kind: str) -> None:
    rng = np.random.default_rng(3)
    colours, alpha = noise(), rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    alpha[0, 0], alpha[0, 1] = 0, 255
    data = encode(Image.fromarray(np.dstack([colours, alpha])), kind, lossless=True, exact=True)
    decoded = decode(data)
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 1].tolist() == colours[0, 1].tolist()
    assert np.abs(decoded - over_white(colours, alpha)).max() <= 1


def test_grey_with_alpha_is_laid_over_white() -> None:
    grey, alpha = np.array([[10, 10, 10]], np.uint8), np.array([[0, 51, 255]], np.uint8)
    decoded = decode(encode(Image.fromarray(np.dstack([grey, alpha]), "LA"), "PNG"))
    # 51 is a fifth of 255: 10/5 + 255·4/5 = 206
    assert decoded[0, :, 0].tolist() == [255, 206, 10]
    assert np.ptp(decoded, axis=2).max() == 0


def palette_picture() -> Image.Image:
    picture = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8), "L").convert("P")
    picture.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    picture.putdata([0, 1, 2, 1])
    return picture


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_a_palette_is_looked_up(kind: str) -> None:
    decoded = decode(encode(palette_picture(), kind))
    assert decoded.tolist() == [[[250, 0, 0], [0, 250, 0], [0, 0, 250], [0, 250, 0]]]


def test_a_palette_with_alphas_is_laid_over_white() -> None:
    decoded = decode(encode(palette_picture(), "PNG", transparency=bytes([0, 51])))
    # (0, 250, 0) a fifth over white: 204, 50 + 204, 204
    assert decoded.tolist() == [[[255, 255, 255], [204, 254, 204], [0, 0, 250], [204, 254, 204]]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    decoded = decode(encode(palette_picture(), kind, transparency=1))
    assert decoded.tolist() == [[[250, 0, 0], [255, 255, 255], [0, 0, 250], [255, 255, 255]]]


def test_a_transparent_colour_is_white() -> None:
    decoded = decode(png(2, 1, 8, 2, [bytes([1, 2, 3, 9, 9, 9])], chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))))
    assert decoded.tolist() == [[[255, 255, 255], [9, 9, 9]]]


@pytest.mark.parametrize(
    ("ink", "colour"), [((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))]
)
def test_cmyk_jpeg(ink: tuple[int, ...], colour: tuple[int, ...]) -> None:
    decoded = decode(encode(Image.new("CMYK", (16, 8), ink), "JPEG", quality=95))
    assert decoded.shape == (8, 16, 3)
    assert np.abs(decoded.astype(int) - colour).max() <= 3


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(Image.fromarray(noise()), "PNG"))
    np.testing.assert_array_equal(read_image(path), noise())


def test_one_pixel_and_one_row() -> None:
    for height, width in ((1, 1), (1, 2000), (2000, 1)):
        pixels = noise(height=height, width=width)
        np.testing.assert_array_equal(decode(encode(Image.fromarray(pixels), "PNG")), pixels)


def test_texts_and_profiles_in_a_png_are_not_read() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 * 2**20)))
    profile = chunk(b"iCCP", b"junk\0\0not zlib")
    decoded, peak = traced(lambda: decode(png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], bomb, profile)))
    assert decoded.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert peak < 10 * 2**20


def test_the_same_in_eight_threads() -> None:
    files = [encode(Image.fromarray(noise(seed)), kind) for seed in range(4) for kind in ("PNG", "BMP")]
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: decode(files[i])})) for i in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(len(files)):
        np.testing.assert_array_equal(results[i], noise(i // 2))


# ---------------------------------------------------------------------------------------------------- orientation

# EXIF 2.32, tag 0x0112: where the 0th row and the 0th column of the stored picture lie in the upright one.
# Each turns an upright picture into the one that a camera stores with that orientation.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],  # stored row 0 is the right-hand column
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_undone(orientation: int, order: str) -> None:
    upright = noise()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    for kind in ("PNG", "WEBP"):
        data = encode(stored, kind, lossless=True, exif=exif(orientation, order))
        np.testing.assert_array_equal(decode(data), upright)


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_undone_in_a_jpeg(orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](smooth(16, 24)))
    data = with_segment(encode(Image.fromarray(stored), "JPEG", quality=95, subsampling=0), exif(orientation))
    decoded = decode(data)
    assert decoded.shape == (16, 24, 3)
    assert np.abs(decoded.astype(int) - smooth(16, 24)).max() < 12


def test_orientation_is_undone_in_a_jpeg_that_only_pillow_reads() -> None:
    data = with_segment(encode(Image.new("CMYK", (16, 8), (0, 0, 0, 0)), "JPEG"), exif(6))
    assert decode(data).shape == (16, 8, 3)


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_orientation_in_any_integer_type(kind: int) -> None:
    data = with_segment(encode(Image.fromarray(smooth()), "JPEG"), exif(6, "<", kind))
    assert decode(data).shape == (WIDTH, HEIGHT, 3)


BROKEN_EXIF = {
    "nothing": b"Exif\0\0",
    "no TIFF header": b"Exif\0\0garbage!!!!!",
    "cut in the header": exif(6)[:12],
    "cut in the entry": exif(6)[:22],
    "directory outside": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "more entries than bytes": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(24),
    "orientation as text": exif(6).replace(struct.pack(">HH", 0x0112, 3), struct.pack(">HH", 0x0112, 2)),
    "orientation 0": exif(0),
    "orientation 9": exif(9),
    "orientation 65535": exif(65535),
}


@pytest.mark.parametrize("block", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_a_broken_exif_block_leaves_the_pixels_as_they_are(block: bytes) -> None:
    plain = encode(Image.fromarray(smooth()), "JPEG")
    np.testing.assert_array_equal(decode(with_segment(plain, block)), decode(plain))
    as_png = encode(Image.fromarray(noise()), "PNG")
    np.testing.assert_array_equal(decode(as_png[:33] + chunk(b"eXIf", block[6:]) + as_png[33:]), noise())


# -------------------------------------------------------------------------------------------------------- refused


def truncatable() -> dict[str, bytes]:
    colour, grey = Image.fromarray(noise()), Image.fromarray(noise()[:, :, 0])
    return {
        "jpeg": encode(colour, "JPEG"),
        "progressive jpeg": encode(colour, "JPEG", progressive=True),
        "grey jpeg": encode(grey, "JPEG"),
        "cmyk jpeg": encode(colour.convert("CMYK"), "JPEG"),
        "png": encode(colour, "PNG"),
        "palette png": encode(colour.convert("P"), "PNG", transparency=3),
        "16-bit png": encode(Image.fromarray(noise()[:, :, 0].astype(np.uint16) * 257), "PNG"),
        "bmp": encode(colour, "BMP"),
        "grey bmp": encode(grey, "BMP"),
        "webp": encode(colour, "WEBP"),
        "lossless webp": encode(colour, "WEBP", lossless=True),
        "animated webp": encode(colour, "WEBP", save_all=True, append_images=[colour.rotate(180)]),
        "gif": encode(colour, "GIF"),
        "animated gif": encode(colour, "GIF", save_all=True, append_images=[colour.rotate(180)]),
    }


@pytest.mark.parametrize("name", truncatable())
def test_a_truncated_file_is_an_error_wherever_it_ends(name: str) -> None:
    data = truncatable()[name]
    decode(data)  # whole, it is good
    for end in (*range(0, len(data) - 40, 13), *range(len(data) - 40, len(data))):
        with pytest.raises(ImageError):
            decode(data[:end])


@pytest.mark.parametrize("name", [name for name in truncatable() if "jpeg" in name])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_jpeg_whose_pixels_end_early_is_an_error_even_with_its_end_marker(name: str, share: float) -> None:
    data = truncatable()[name]
    scan = segment_of(data, 0xDA) + 12
    with pytest.raises(ImageError, match=r"(?i)premature end"):
        decode(data[: scan + int(share * (len(data) - scan))] + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF"])
def test_bytes_after_the_end_do_no_harm(kind: str) -> None:
    data = encode(Image.fromarray(noise()), kind)
    np.testing.assert_array_equal(decode(data + b"\0appended by a camera" * 9), decode(data))


def test_a_jpeg_with_junk_between_segments_is_read() -> None:
    data = encode(Image.fromarray(smooth()), "JPEG", quality=95)
    table = segment_of(data, 0xDB)
    decoded = decode(data[:table] + b"\0\0\0" + data[table:])
    assert np.abs(decoded.astype(int) - smooth()).mean() < 4


NOT_PICTURES = {
    "text": (b"just some words\n" * 9, "not a JPEG, PNG, BMP, WebP or GIF"),
    "one byte": (b"\xff", "not a JPEG"),
    "nothing": (b"", "not a JPEG"),
    "html": (b"\n <!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML page"),
    "small html": (b"<!doctype html><p>", "HTML page"),
    "bare html": (b"<html><p>", "HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "git lfs pull"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "xml": (b"<?xml version='1.0'?><svg/>", "SVG"),
    "tiff": (b"II*\0" + bytes(60), "TIFF"),
    "big-endian tiff": (b"MM\0*" + bytes(60), "TIFF"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt ", "not a JPEG"),
}


@pytest.mark.parametrize("name", NOT_PICTURES)
def test_what_is_no_picture_is_called_by_its_name(name: str, tmp_path: Path) -> None:
    data, message = NOT_PICTURES[name]
    with pytest.raises(ImageError, match=message):
        decode(data)
    if data:
        (tmp_path / "x.jpg").write_bytes(data)
        with pytest.raises(DataError, match=message):
            read_image(tmp_path / "x.jpg")


def bomb(kind: str, side: int) -> bytes:
    """A small file whose header says side × side."""
    if kind == "png":
        return png(side, side, 8, 2, [bytes(8)])
    if kind == "png of rows":  # the pixels are there, packed a thousandfold
        return png(side, side, 1, 0, [bytes(side // 8)] * 2)
    if kind == "bmp":
        return b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(9)
    if kind == "gif":  # the screen is small, the frame is not
        side = min(side, 65_535)
        frame = b"\x2c" + struct.pack("<4HB", 0, 0, side, side, 0) + b"\x08\x01\0\0"
        return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame + b"\x3b"
    if kind == "gif screen":
        side = min(side, 65_535)
        frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x08\x01\0\0"
        return b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + frame + b"\x3b"
    if kind == "webp":
        size = struct.pack("<I", side - 1)[:3]
        body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + size
        return b"RIFF" + struct.pack("<I", len(body)) + body
    jpeg = encode(Image.fromarray(smooth()), "JPEG")
    frame_at, side = segment_of(jpeg, 0xC0) + 5, min(side, 65_535)
    return jpeg[:frame_at] + struct.pack(">HH", side, side) + jpeg[frame_at + 4 :]


def traced(work: Callable[[], Any]) -> tuple[Any, int]:
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["png", "png of rows", "bmp", "gif", "gif screen", "webp", "jpeg"])
def test_a_huge_header_is_refused_before_a_pixel_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr("featherweight.image._decode_jpeg", never)
    monkeypatch.setattr("featherweight.image.to_rgb", never)

    def refuse() -> None:
        with pytest.raises(ImageError, match=f"{MAX_PIXELS:,}"):
            decode(bomb(kind, 100_000))

    assert traced(refuse)[1] < 2**20


def test_the_caps_are_on_pixels_and_on_a_side() -> None:
    for width, height in ((65_501, 1), (1, 65_501), (8_945, 8_945), (8_001, 10_000)):
        with pytest.raises(ImageError, match=f"{width}×{height} pixels"):
            decode(png(width, height, 8, 0, [bytes(8)]))
    row = bytes(65_500)
    assert decode(png(65_500, 1, 8, 0, [row])).shape == (1, 65_500, 3)


@pytest.mark.parametrize(("width", "height"), [(65_000, 1_500), (1_500, 65_000)])
def test_a_gif_frame_may_not_grow_the_screen_over_the_cap(width: int, height: int) -> None:
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x08\x01\0\0"
    with pytest.raises(ImageError, match=f"{width}×{height} pixels"):
        decode(b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame + b"\x3b")
    beyond = b"\x2c" + struct.pack("<4HB", 64_999, 0, 1, 1, 0) + b"\x08\x01\0\0"  # small, but far out
    with pytest.raises(ImageError, match="65000×1500 pixels"):
        decode(b"GIF89a" + struct.pack("<HHBBB", 1, 1_500, 0, 0, 0) + beyond + b"\x3b")


def test_no_size_is_refused() -> None:
    for width, height in ((0, 5), (5, 0)):
        with pytest.raises(ImageError, match=f"{width}×{height} pixels"):
            decode(png(width, height, 8, 0, [b"\0"]))


def test_damage_is_named_with_the_format() -> None:
    good = png(4, 4, 8, 2, [bytes(12)] * 4)
    broken = good.replace(b"IDAT", b"IDAX")
    for data, message in (
        (broken, "damaged PNG"),
        (good[:-12], "damaged PNG: truncated, it has no IEND"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "damaged JPEG"),
        (b"BM" + bytes(30), "damaged BMP"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(9), "damaged WebP"),
        (b"GIF89a" + bytes(3), "damaged GIF: truncated"),
        (b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b"\x3b", "damaged GIF: no frame"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            decode(data)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [TypeError("internals"), MemoryError()])
def test_what_pillow_throws_at_damage_becomes_an_image_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr("featherweight.image.to_rgb", fail)
    with pytest.raises(ImageError, match=f"damaged PNG: {type(error).__name__}"):
        decode(encode(Image.fromarray(noise()), "PNG"))


# --------------------------------------------------------------------------------------------------- reading files


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").touch()
    with pytest.raises(ImageError, match="empty file"):
        read_bytes(tmp_path / "x.jpg")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_bytes(tmp_path / "x.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="no such file"):
        read_bytes(str(tmp_path / "dangling.jpg"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_bytes(tmp_path / "x.jpg")


def test_a_folder_by_a_picture_name(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(ImageError, match="not a regular file"):
        read_bytes(tmp_path / "x.jpg")


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to(tmp_path / "x.jpg")
    with pytest.raises(ImageError):
        read_bytes(tmp_path / "x.jpg")


def test_the_byte_cap_is_checked_before_reading(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: it takes no room on the disk

    def refuse() -> None:
        with pytest.raises(ImageError, match=f"{MAX_BYTES + 1:,} bytes; at most {MAX_BYTES:,}"):
            read_bytes(tmp_path / "x.jpg")

    assert traced(refuse)[1] < 2**20


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")

    def deny(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(ImageError, match="Permission denied"):
        read_bytes(tmp_path / "x.jpg")


# -------------------------------------------------------------------------------------------------------- the rest


def test_resize_keeps_what_has_the_size_and_averages_what_is_halved() -> None:
    pixels = noise(height=8, width=8)
    assert resize(pixels, 8, 8) is pixels
    flat = np.full((8, 16, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize(flat, 4, 5), np.full((4, 5, 3), 77, np.uint8))
    # Antialiased: fine black and white stripes come out grey, not black or white.
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 4, 4).astype(int) - 127.5).max() < 25
    assert resize(noise(), 7, 9).shape == (7, 9, 3)


def test_a_letterbox_keeps_the_aspect_ratio_on_grey() -> None:
    pixels = noise(height=4, width=8)
    boxed = resize(pixels, 8, 8, "letterbox")
    np.testing.assert_array_equal(boxed[2:6], pixels)
    assert (boxed[:2] == GREY).all() and (boxed[6:] == GREY).all()
    tall = resize(noise(height=40, width=10), 20, 16, "letterbox")  # 5×20, the 11 that are left over 5 to 6
    assert (tall[:, :5] == GREY).all() and (tall[:, 10:] == GREY).all() and (tall[:, 5:10] != GREY).any()
    assert resize(pixels, 4, 8, "letterbox") is pixels
    with pytest.raises(SettingError, match="unknown resize 'crop'"):
        resize(pixels, 4, 4, "crop")


def test_bilinear_alone_skips_pixels() -> None:
    pixels = np.zeros((1, 16, 3), np.uint8)
    pixels[:, 1::4] = 255  # of each 4 only pixels 1 and 2 are looked at, half of each
    assert (resize(pixels, 1, 4, "bilinear") == 128).all()
    assert (resize(pixels, 1, 4) == 64).all()  # the mean of all 4


def test_decoder_versions_names_every_decoder() -> None:
    assert set(decoder_versions()) == {"pillow", "simplejpeg", "opencv-python-headless"}


GOOD = [
    *truncatable().values(),
    encode(Image.fromarray(noise()), "PNG", exif=exif(6)),
    with_segment(encode(Image.fromarray(smooth()), "JPEG"), exif(6)),
    encode(Image.fromarray(noise()[:, :, 0] > 127), "BMP"),
    encode(palette_picture(), "GIF", transparency=1),
    encode(Image.fromarray(noise()), "PNG", save_all=True, append_images=[Image.fromarray(noise(1))]),
]
STARTS = [b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x20\0\0\0WEBPVP8X", b"GIF89a", b"GIF87a", b""]


def check_total(data: bytes) -> None:
    """A picture or an `ImageError`; nothing else, and not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pixels = decode(data)
        except ImageError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


@pytest.fixture
def small_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps a mutated header that is large but allowed from taking seconds."""
    monkeypatch.setattr("featherweight.image.MAX_PIXELS", 1_000_000)


fuzzing = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("small_cap")
@fuzzing
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_decode_is_total_on_any_bytes(start: bytes, rest: bytes) -> None:
    check_total(start + rest)


@pytest.mark.usefixtures("small_cap")
@fuzzing
@given(data=st.data())
def test_decode_is_total_on_damaged_pictures(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 4))):
        # The headers are where a changed byte does most.
        where = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(content) - 1))) % len(content)
        content[where : where + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        if not content:
            break
    check_total(bytes(content))
