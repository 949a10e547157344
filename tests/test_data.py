"""Folders: what is found, how it is split, what the audit says, what stops. Pictures are made here, 8 px wide."""

import hashlib
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featherweight.data import (
    Dataset,
    Split,
    allocate,
    display,
    labels,
    load_pixels,
    read_dataset,
    read_dataset_cached,
    scan,
)
from featherweight.errors import DataError, SettingError
from featherweight.image import read_image, resize

MODULE = sys.modules["featherweight.data"]  # `featherweight.data` itself is the verb
SHARED = Path(__file__).parents[2] / "shared" / "data"
SIDE = 8


def pixels_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def picture(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(seed)).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fill(folder: Path, seeds: Sequence[int]) -> None:
    for seed in seeds:
        write(folder / f"{seed:04}.png", picture(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 different pictures each."""
    fill(tmp_path / "pets" / "cat", range(20))
    fill(tmp_path / "pets" / "dog", range(100, 120))
    return tmp_path / "pets"


def by_content(dataset: Dataset) -> dict[str, tuple[str, str]]:
    return {item.sha256: (dataset.classes[item.label], item.part) for item in dataset.items}


def part_sizes(dataset: Dataset) -> dict[tuple[str, str], int]:
    return dict(Counter((dataset.classes[item.label], item.part) for item in dataset.items))


# ------------------------------------------------------------------------------------------------------- the split


def test_each_class_gives_its_share_to_each_part(folder: Path) -> None:
    fill(folder / "cow", range(200, 240))
    dataset = read_dataset(folder)
    assert dataset.classes == ("cat", "cow", "dog")
    for name, count in (("cat", 20), ("cow", 40), ("dog", 20)):
        held_out = round(0.15 * count)
        sizes = {part: dataset.audit.counts[part][name] for part in ("train", "val", "test")}
        assert sizes == {"train": count - 2 * held_out, "val": held_out, "test": held_out}


@pytest.mark.parametrize(("val", "test"), [(0.25, 0.5), (0.1, 0.0), (0.3, 0.3)])
def test_the_shares_can_be_chosen(folder: Path, val: float, test: float) -> None:
    sizes = part_sizes(read_dataset(folder, Split(val, test)))
    for name in ("cat", "dog"):
        assert sizes[name, "val"] == round(20 * val)
        assert sizes.get((name, "test"), 0) == round(20 * test)
        assert sizes[name, "train"] == 20 - round(20 * val) - round(20 * test)


def test_the_rule_of_the_split(folder: Path) -> None:
    """By least SHA-256: the first 15 % test, the next val, the rest train."""
    parts = by_content(read_dataset(folder))
    for name in ("cat", "dog"):
        hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / name).iterdir())
        assert [parts[one][1] for one in hashes] == ["test"] * 3 + ["val"] * 3 + ["train"] * 14


def test_a_tiny_class_still_has_one_picture_in_each_part(folder: Path) -> None:
    fill(folder / "rare", [300, 301, 302])
    sizes = part_sizes(read_dataset(folder))
    assert [sizes["rare", part] for part in ("train", "val", "test")] == [1, 1, 1]


def test_the_split_does_not_move_with_names_place_or_order(folder: Path, tmp_path: Path) -> None:
    before = read_dataset(folder)
    other = tmp_path / "elsewhere" / "deep"
    for name in ("dog", "cat"):
        for number, path in enumerate(sorted((folder / name).iterdir(), reverse=True)):
            write(other / name / f"sub{number % 2}" / f"IMG_{number}.PNG", path.read_bytes())
    after = read_dataset(other)
    assert by_content(after) == by_content(before)
    assert after.fingerprint == before.fingerprint
    assert read_dataset(folder) == before


def test_the_fingerprint_changes_with_a_label_a_picture_a_class_name_and_a_part(folder: Path) -> None:
    seen = [read_dataset(folder).fingerprint]
    (folder / "cat" / "0000.png").rename(folder / "dog" / "0000.png")
    seen.append(read_dataset(folder).fingerprint)
    write(folder / "dog" / "0000.png", picture(777))
    seen.append(read_dataset(folder).fingerprint)
    seen.append(read_dataset(folder, Split(0.2, 0.2)).fingerprint)
    (folder / "dog").rename(folder / "wolf")
    seen.append(read_dataset(folder).fingerprint)
    assert len(set(seen)) == len(seen)
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in seen)


def test_adding_pictures_moves_few_others(folder: Path) -> None:
    before = by_content(read_dataset(folder))
    fill(folder / "cat", [500])
    after = by_content(read_dataset(folder))
    # 21 pictures: still three in test and three in val, so one newcomer pushes at most one over each border.
    assert sum(before[one] != after[one] for one in before) <= 2


def test_equal_pictures_are_never_in_two_parts(folder: Path) -> None:
    for seed in range(20):  # every cat again: the same bytes, and the same pixels in another format
        write(folder / "cat" / f"copy{seed}.png", picture(seed))
        write(folder / "cat" / f"as_bmp{seed}.bmp", picture(seed, "BMP"))
    dataset = read_dataset(folder)
    parts: dict[str, set[str]] = {}
    for item in dataset.items:
        parts.setdefault(item.pixels_sha256, set()).add(item.part)
    assert len(parts) == 40
    assert all(len(where) == 1 for where in parts.values())
    assert dataset.audit.leaks == ()
    assert dataset.audit.counts["test"] == {"cat": 9, "dog": 3}  # three groups of three


@pytest.mark.parametrize(("val", "test"), [(0, 0.1), (1, 0), (0.5, 0.5), (0.1, -0.1), (0.1, 1), (float("nan"), 0.1)])
def test_bad_shares_are_refused(val: float, test: float) -> None:
    with pytest.raises(SettingError, match="wanted shares with 0 < val"):
        Split(val, test)


# ------------------------------------------------------------------------------------------------ ready-made parts


def ready_made(root: Path, **counts: int) -> Path:
    for number, (part, count) in enumerate(counts.items()):
        fill(root / part / "cat", range(1000 * number, 1000 * number + count))
        fill(root / part / "dog", range(1000 * number + 500, 1000 * number + 500 + count))
    return root


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "validation", "TEST"), ("train", "valid", "test")]
)
def test_a_ready_made_split_is_kept(tmp_path: Path, names: tuple[str, str, str]) -> None:
    dataset = read_dataset(ready_made(tmp_path / "d", **dict(zip(names, (5, 2, 3), strict=True))))
    assert dataset.audit.counts == {
        "train": {"cat": 5, "dog": 5},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 3, "dog": 3},
    }
    for item in dataset.items:
        assert item.path.relative_to(dataset.root).parts[0].lower()[:3] == {"train": "tra"}.get(
            item.part, item.part[:3]
        )


def test_train_and_valid_without_test(tmp_path: Path) -> None:
    dataset = read_dataset(ready_made(tmp_path / "d", train=10, valid=4))
    assert dataset.parts == ("train", "val")
    assert [len(dataset.part(name)) for name in dataset.parts] == [20, 8]
    with pytest.raises(DataError, match="has no part 'test'; it has: train, val"):
        dataset.part("test")


def test_without_val_some_of_train_becomes_val(tmp_path: Path) -> None:
    dataset = read_dataset(ready_made(tmp_path / "d", train=20, test=6))
    assert dataset.audit.counts == {
        "train": {"cat": 17, "dog": 17},
        "val": {"cat": 3, "dog": 3},
        "test": {"cat": 6, "dog": 6},
    }
    for item in dataset.items:
        assert (item.part == "test") == ("test" in item.path.relative_to(dataset.root).parts)


def test_a_leak_between_ready_made_parts_is_reported_and_left(tmp_path: Path) -> None:
    root = ready_made(tmp_path / "d", train=5, val=3, test=3)
    write(root / "test" / "cat" / "leak.bmp", picture(0, "BMP"))
    dataset = read_dataset(root)
    assert [set(group) for group in dataset.audit.leaks] == [{"train/cat/0000.png", "test/cat/leak.bmp"}]
    assert dataset.audit.counts["test"] == {"cat": 4, "dog": 3}


def test_a_ready_made_split_needs_each_class_in_train(tmp_path: Path) -> None:
    root = ready_made(tmp_path / "d", train=3, val=3)
    fill(root / "val" / "cow", range(50, 53))
    with pytest.raises(DataError, match=r"'cow'.*no picture to train on"):
        read_dataset(root)


def test_parts_beside_other_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = ready_made(tmp_path / "d", train=3, val=3)
    fill(root / "unlabelled", range(50, 53))
    with pytest.raises(DataError, match=r"parts \(train, val\) and beside them: unlabelled"):
        read_dataset(root)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for number, name in enumerate(("bus", "train", "car")):
        fill(tmp_path / "d" / name, range(100 * number, 100 * number + 5))
    dataset = read_dataset(tmp_path / "d")
    assert dataset.classes == ("bus", "car", "train")
    assert len(dataset.items) == 15


# -------------------------------------------------------------------------------------------------------- bad files


def test_exactly_five_percent_bad_goes_on_and_names_them(folder: Path) -> None:
    (folder / "cat" / "0003.png").write_bytes(picture(3)[:60])
    write(folder / "dog" / "0100.png", b"<html>404</html>")
    dataset = read_dataset(folder)  # 2 of 40
    assert len(dataset.items) == 38
    causes = dict(dataset.audit.bad)
    assert list(causes) == ["cat/0003.png", "dog/0100.png"]
    assert "truncated" in causes["cat/0003.png"] and "HTML page" in causes["dog/0100.png"]
    assert not {item.path.name for item in dataset.items} & {"0003.png", "0100.png"}


def test_more_than_five_percent_bad_stops(folder: Path) -> None:
    for name in ("0003", "0004", "0005"):
        write(folder / "cat" / f"{name}.png", b"")
    with pytest.raises(DataError, match=r"3 of 40 pictures .* more than 5 %; the first: cat/0003.png: empty file"):
        read_dataset(folder)


def test_every_kind_of_bad_file_is_named_once(folder: Path) -> None:
    for seed in range(200, 400):
        write(folder / "cat" / f"{seed}.png", picture(seed))
    bad = {
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "lfs.jpg": b"version https://git-lfs.github.com/spec/v1\n",
        "photo.heic": b"\0\0\0\x18ftypheic",
        "scan.tiff": b"II*\0" + bytes(20),
        "cut.bmp": picture(1, "BMP")[:-20],
    }
    for name, content in bad.items():
        write(folder / "cat" / name, content)
    (folder / "cat" / "dangling.jpg").symlink_to(folder / "gone.jpg")
    (folder / "cat" / "folder.jpg").mkdir()  # a folder, not a picture: it is walked into and found empty
    os.mkfifo(folder / "cat" / "pipe.jpg")
    dataset = read_dataset(folder)
    named = Counter(file for file, _ in dataset.audit.bad)
    assert named == {f"cat/{name}": 1 for name in (*bad, "dangling.jpg", "pipe.jpg")}
    assert dict(dataset.audit.bad)["cat/pipe.jpg"] == "not a regular file"
    assert dict(dataset.audit.bad)["cat/dangling.jpg"] == "no such file"
    assert len(dataset.items) == 240


def test_a_class_emptied_by_bad_files_stops(folder: Path) -> None:
    fill(folder / "cat", range(500, 600))
    write(folder / "rare" / "only.jpg", b"")
    with pytest.raises(DataError, match=r"'rare'.*no usable picture"):
        read_dataset(folder)


def test_an_empty_class_stops(folder: Path) -> None:
    (folder / "ghost").mkdir()
    with pytest.raises(DataError, match=r"'ghost'.*no usable picture"):
        read_dataset(folder)


def test_one_class_stops(folder: Path) -> None:
    shutil.rmtree(folder / "dog")
    with pytest.raises(DataError, match=r"only the class 'cat'; wanted .* at least two classes"):
        read_dataset(folder)


def test_a_folder_without_classes_stops(tmp_path: Path) -> None:
    write(tmp_path / "d" / "loose.png", picture(0))
    with pytest.raises(DataError, match="no folder of a class"):
        read_dataset(tmp_path / "d")


def test_no_pictures_stop(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a" / "notes.txt", b"x")
    (tmp_path / "d" / "b").mkdir()
    with pytest.raises(DataError, match=r"no pictures in .*; wanted JPEG, PNG"):
        read_dataset(tmp_path / "d")


def test_a_missing_folder_stops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*gone; wanted DIR/class"):
        read_dataset(tmp_path / "gone")


def test_a_file_instead_of_a_folder_stops(folder: Path) -> None:
    with pytest.raises(DataError, match=r"0000.png is a file; wanted the folder"):
        read_dataset(folder / "cat" / "0000.png")


def test_too_few_different_pictures_stop(folder: Path) -> None:
    for number in range(5):  # five files, two pictures
        write(folder / "cow" / f"{number}.png", picture(900 + number % 2))
    with pytest.raises(DataError, match=r"'cow' .* has 2 different pictures; wanted at least 3"):
        read_dataset(folder)
    assert part_sizes(read_dataset(folder, Split(0.2, 0)))["cow", "val"] in (2, 3)  # two parts, two groups


def test_a_folder_that_cannot_be_listed_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may list everything, so the refusal is played."""

    def deny(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(DataError, match=r"cannot list .*pets: Permission denied"):
        read_dataset(folder)


def test_a_subfolder_that_cannot_be_listed_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder / "cat" / "more", [700])
    real = os.scandir

    def deny(path: Any) -> Any:
        if Path(path).name == "more":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DataError, match=r"cannot list .*more: Permission denied"):
        read_dataset(folder)


# -------------------------------------------------------------------------------------------------------- the audit


def test_the_audit_of_a_clean_folder(folder: Path) -> None:
    write(folder / "cat" / "notes.txt", b"x")
    write(folder / "dog" / "._0100.png", b"a hidden file of macOS")
    write(folder / ".hidden" / "x.png", picture(0))
    audit = read_dataset(folder).audit
    assert audit.ignored == 2
    assert (audit.bad, audit.duplicates, audit.equal, audit.conflicts, audit.leaks) == ((), (), (), (), ())
    assert audit.heights == audit.widths == (SIDE, SIDE, SIDE)
    assert json.loads(json.dumps(audit.as_dict()))["counts"]["train"] == {"cat": 14, "dog": 14}


def test_the_audit_tells_same_bytes_same_pixels_and_contradicting_labels_apart(folder: Path) -> None:
    write(folder / "cat" / "same_bytes.png", picture(0))
    write(folder / "cat" / "same_pixels.bmp", picture(1, "BMP"))
    write(folder / "dog" / "is_a_cat.bmp", picture(2, "BMP"))
    audit = read_dataset(folder).audit
    assert [set(group) for group in audit.duplicates] == [{"cat/0000.png", "cat/same_bytes.png"}]
    assert {frozenset(group) for group in audit.equal} == {
        frozenset({"cat/0001.png", "cat/same_pixels.bmp"}),
        frozenset({"cat/0002.png", "dog/is_a_cat.bmp"}),
    }
    assert [set(group) for group in audit.conflicts] == [{"cat/0002.png", "dog/is_a_cat.bmp"}]
    assert audit.leaks == ()
    plain = audit.as_dict()
    assert json.loads(json.dumps(plain)) == plain


def test_sizes_are_least_median_and_most(folder: Path) -> None:
    for seed, (height, width) in enumerate(((4, 30), (10, 12), (9, 11))):
        content = io.BytesIO()
        Image.fromarray(np.full((height, width, 3), seed, np.uint8)).save(content, "PNG")
        write(folder / "cat" / f"size{seed}.png", content.getvalue())
    dataset = read_dataset(folder)
    assert dataset.audit.heights == (4, SIDE, 10)
    assert dataset.audit.widths == (SIDE, SIDE, 30)
    assert dataset.median_side == SIDE
    assert labels(dataset.items).tolist() == [item.label for item in dataset.items]


def test_names_that_cannot_be_printed(folder: Path) -> None:
    awkward = ["line\nbreak.png", "<script>alert(1)</script>.png".replace("/", "\u2215"), 'quote".png', "bell\a.png"]
    for number, name in enumerate(awkward):
        write(folder / "cat" / name, picture(800 + number))
        write(folder / "cat" / f"copy of {name}", picture(800 + number))
    names = [name for group in read_dataset(folder).audit.duplicates for name in group]
    assert len(names) == 8
    assert all(name.isprintable() for name in names)
    assert "cat/line\\nbreak.png" in names


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a file's name")
def test_names_that_are_no_utf8(folder: Path) -> None:
    raw = os.fsencode(folder)
    Path(os.fsdecode(raw + b"/cat/caf\xe9.png")).write_bytes(picture(801))
    Path(os.fsdecode(raw + b"/dog/caf\xe9.png")).write_bytes(b"")
    os.rename(raw + b"/cat", raw + b"/ch\xe2t")  # noqa: PTH104 -- bytes are the point
    dataset = read_dataset(folder)
    assert dataset.classes == ("ch\\xe2t", "dog")
    assert dataset.audit.bad == (("dog/caf\\xe9.png", "empty file"),)
    json.dumps(dataset.audit.as_dict()).encode("utf-8")
    assert len(dataset.items) == 41
    assert len(load_pixels(dataset.items, SIDE, SIDE).pixels) == 41


def test_display_escapes_what_cannot_be_printed() -> None:
    assert display("plain/ä 猫.jpg") == "plain/ä 猫.jpg"
    assert display("a\nb\tc\x1b[31m") == "a\\nb\\tc\\x1b[31m"
    assert display(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert display("right\u202eto left") == "right\\u202eto left"
    assert display(Path("<script>")) == "<script>"  # whoever writes HTML escapes it there


def snapshot(root: Path) -> list[tuple[str, int, bytes]]:
    return [
        (str(path), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (root, *sorted(root.rglob("*")))
    ]


def test_the_folder_is_left_as_it_was(folder: Path) -> None:
    write(folder / "cat" / "bad.jpg", b"")
    before = snapshot(folder)
    dataset, _ = read_dataset_cached(folder, 4, 4)
    load_pixels(dataset.items, 4, 4)
    assert snapshot(folder) == before


def test_links_to_folders_inside_a_class_do_not_loop(folder: Path) -> None:
    (folder / "cat" / "loop").symlink_to(folder, target_is_directory=True)
    assert len(read_dataset(folder).items) == 40


def test_classes_and_pictures_may_be_links(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "linked"
    (other / "cat").mkdir(parents=True)
    for path in (folder / "cat").iterdir():
        (other / "cat" / path.name).symlink_to(path)
    (other / "dog").symlink_to(folder / "dog", target_is_directory=True)
    assert read_dataset(other).fingerprint == read_dataset(folder).fingerprint


# ------------------------------------------------------------------------------------------------------- the pixels


@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), (5, 7)])
def test_the_scan_keeps_the_pixels_that_load_pixels_reads(folder: Path, height: int, width: int) -> None:
    write(folder / "cat" / "0000.png", b"bad: a row of the cache that nobody may take")
    dataset, cache = read_dataset_cached(folder, height, width)
    assert dataset == read_dataset(folder)
    assert (cache.height, cache.width) == (height, width)
    for part in dataset.parts:
        items = dataset.part(part)
        loaded = load_pixels(items, height, width).take(items)
        np.testing.assert_array_equal(cache.take(items), loaded)
        for item, pixels in zip(items, loaded, strict=True):
            np.testing.assert_array_equal(pixels, resize(read_image(item.path), height, width))


def test_take_in_any_order(folder: Path) -> None:
    dataset, cache = read_dataset_cached(folder, SIDE, SIDE)
    for chosen in (dataset.items[::-1], dataset.items[3:9], dataset.items[7:8], (dataset.items[5],) * 2, ()):
        taken = cache.take(chosen)
        assert taken.shape == (len(chosen), SIDE, SIDE, 3)
        for item, pixels in zip(chosen, taken, strict=True):
            np.testing.assert_array_equal(pixels, pixels_of(int(item.path.stem)))
    assert np.shares_memory(cache.take(dataset.items[3:9]), cache.pixels)


def test_scan_without_a_size_keeps_no_pixels(folder: Path) -> None:
    assert scan(folder, None, None)[1] is None


def change(path: Path) -> None:
    path.write_bytes(b"no longer a picture")


@pytest.mark.parametrize(("alter", "cause"), [(change, "not a JPEG"), (Path.unlink, "no such file")])
def test_a_file_changed_or_gone_since_the_scan(folder: Path, alter: Callable[[Path], None], cause: str) -> None:
    dataset = read_dataset(folder)
    alter(folder / "dog" / "0107.png")
    with pytest.raises(DataError, match=f"0107.png changed since the scan: .*{cause}.*Scan the data anew"):
        load_pixels(dataset.items, SIDE, SIDE)


def test_much_goes_to_a_mapped_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_pixels(read_dataset(folder).items, SIDE, SIDE).pixels
    assert not isinstance(plain, np.memmap)
    monkeypatch.setattr(MODULE, "MEMORY_SHARE", 0.0)
    dataset, cache = read_dataset_cached(folder, SIDE, SIDE)
    assert isinstance(cache.pixels, np.memmap)
    np.testing.assert_array_equal(cache.take(dataset.items), plain)


def test_the_border_is_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "this_device", lambda: SimpleNamespace(memory_bytes=4 * 10 * 2 * 2 * 3))
    assert not isinstance(allocate(10, 2, 2), np.memmap)
    assert isinstance(allocate(11, 2, 2), np.memmap)
    monkeypatch.setattr(MODULE, "this_device", lambda: SimpleNamespace(memory_bytes=None))
    assert not isinstance(allocate(11, 2, 2), np.memmap)


# -------------------------------------------------------------------------------------------------------- real data


@pytest.mark.skipif(not (SHARED / "signdigits").is_dir(), reason=f"the data set signdigits is not in {SHARED}")
def test_real_photos_three_of_them_turned() -> None:
    root = SHARED / "signdigits" / "Dataset"
    dataset = read_dataset(root)
    assert dataset.classes == tuple("0123456789")
    assert len(dataset.items) == 2062
    assert dataset.audit.bad == ()
    turned = []
    for item in dataset.items:
        with Image.open(item.path) as photo:
            if photo.getexif().get(0x0112, 1) != 1:
                turned.append(item.path)
                # EXIF 6: the stored row 0 is the right-hand column of the upright picture.
                stored = np.asarray(photo.convert("RGB")).astype(int)
                upright = read_image(item.path).astype(int)
                assert np.abs(upright.swapaxes(0, 1)[::-1] - stored).mean() < 2
    assert len(turned) == 3
    held_out = sum(dataset.audit.counts["test"].values())
    assert abs(held_out / 2062 - 0.15) < 0.005
