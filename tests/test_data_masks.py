"""Folders of pictures with masks: which is whose, what values mean, the split, what the audit says. 12×8 pixels."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from featherweight.annotations import Entry, Legend, Masks
from featherweight.annotations.shapes import read_document
from featherweight.cli import main
from featherweight.data import Dataset, Split, labels, load_masks, read_dataset, read_dataset_cached, targets
from featherweight.data.masked import Glance, Key, agree, glance
from featherweight.errors import DataError, LabelError, SettingError, TooManyBad
from featherweight.masks import IGNORE, mask_source_of, read_mask
from featherweight.report.audit import audit_text
from tests.boxed import voc_folder, write
from tests.masked import CLASSES, HEIGHT, WIDTH, bmp, coco_of, coloured, encoded, folder, grey, low_bits, shot, truth

MODULE = sys.modules["featherweight.data"]  # `featherweight.data` itself is the verb
SHARED = Path(__file__).parents[2] / "shared" / "data"


def masks_of(dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    assert all(item.mask is not None and item.label == -1 for item in dataset.items)
    return {item.path.stem: read_mask(item.mask, item.height, item.width) for item in dataset.items if item.mask}


def binary(mask: NDArray[np.uint8]) -> bytes:
    return grey((mask > 0).astype(np.uint8) * 255)


# ------------------------------------------------------------------------------------------------------ the data set


def test_a_folder_of_masks(tmp_path: Path) -> None:
    dataset = read_dataset(folder(tmp_path), Split(val=0.2, test=0.2))
    assert (dataset.task, dataset.classes, dataset.parts) == ("segment", CLASSES, ("train", "val", "test"))
    assert [len(dataset.part(part)) for part in dataset.parts] == [6, 2, 2]
    for stem, mask in masks_of(dataset).items():
        assert (mask == truth(int(stem))).all()
    assert read_dataset(tmp_path, Split(val=0.2, test=0.2)) == dataset
    for plain, item in zip(json.loads(json.dumps(targets(dataset.items))), dataset.items, strict=True):
        assert mask_source_of(plain) == item.mask
        assert (plain["height"], plain["width"]) == (HEIGHT, WIDTH)
    with pytest.raises(DataError, match="pictures with masks have no one label each"):
        labels(dataset.items)
    with pytest.raises(SettingError, match="ignore 256; wanted a value of masks"):
        read_dataset(tmp_path, ignore=256)


def test_the_same_masks_in_any_kind_are_one_data_set(tmp_path: Path) -> None:
    def in_palette(mask: NDArray[np.uint8]) -> bytes:
        image = Image.fromarray(mask)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        return encoded(image)

    kinds: list[tuple[Callable[[NDArray[np.uint8]], bytes], str]] = [
        (grey, "classes.txt"),
        (in_palette, "classes.txt"),
        (bmp, "classes.txt"),
        (coloured, "legend.csv"),
        (lambda mask: low_bits(mask, 4), "classes.txt"),
    ]
    found = [read_dataset(folder(tmp_path / str(i), *kind)) for i, kind in enumerate(kinds)]
    assert len({dataset.fingerprint for dataset in found}) == 1
    assert len({dataset.classes for dataset in found}) == 1
    other = folder(tmp_path / "other")
    write(other / "masks" / "3.png", grey(truth(99)))
    assert read_dataset(other).fingerprint != found[0].fingerprint


def test_pixels_and_masks_at_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, cache = read_dataset_cached(folder(tmp_path), 8, 12)
    items = dataset.part("train")
    assert cache.take(items).shape == (len(items), 8, 12, 3)
    monkeypatch.setattr(MODULE, "MEMORY_SHARE", 0)
    found = load_masks(items, 8, 12)
    assert isinstance(found, np.memmap)
    assert all((mask == truth(int(item.path.stem))).all() for mask, item in zip(found, items, strict=True))
    write(tmp_path / "masks" / items[0].path.name, grey(truth(0)[:4]))
    with pytest.raises(DataError, match="changed since the scan: its mask has 12×4 pixels"):
        load_masks(items, 8, 12)


def test_equal_pictures_stay_together(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in "abcde":
        write(tmp_path / "images" / f"{name}.png", shot(3))
        write(tmp_path / "masks" / f"{name}.png", grey(truth(4)))
    dataset = read_dataset(tmp_path)
    assert len({item.part for item in dataset.items if item.path.stem in "abcde3"}) == 1
    wanted = sorted(f"images/{name}.png" for name in "abcde3")  # five with one mask, one with another
    assert [sorted(group) for group in dataset.audit.conflicts] == [wanted]


# ------------------------------------------------------------------------------------------------- which is whose mask


def arrange(root: Path, picture_name: str, mask_name: str, parts: tuple[str, ...] = ("",), count: int = 8) -> Path:
    for place, part in enumerate(parts):
        for seed in range(count * place, count * (place + 1)):
            write(root / picture_name.format(part=part, n=seed), shot(seed))
            write(root / mask_name.format(part=part, n=seed), grey(truth(seed)))
    return root


@pytest.mark.parametrize(
    ("picture_name", "mask_name", "source"),
    [
        ("images/{n}.png", "masks/{n}.png", "masks"),
        ("img/{n}.png", "gt/{n}.bmp", "gt"),
        ("JPEGImages/{n}.png", "SegmentationClass/{n}.png", "segmentationclass"),
        ("images/{n}.png", "labels/{n}.png", "labels"),
        ("images/{n}.png", "annotations/{n}.png", "annotations"),
        ("images/{n}.png", "masks/{n}_mask.png", "masks"),
        ("images/{n}.png", "images_gt/{n}.png", "gt"),
        ("{n}.png", "masks/{n}.png", "masks"),
        ("{n}.png", "{n}_mask.png", "mask"),
        ("{n}_a.png", "{n}_gt_a.png", "gt"),
        ("images/{n}.png", "images/{n}-mask.png", "mask"),
    ],
)
def test_the_layout_tells(tmp_path: Path, picture_name: str, mask_name: str, source: str) -> None:
    dataset = read_dataset(arrange(tmp_path, picture_name, mask_name))
    assert dataset.audit.masks is not None
    assert (dataset.task, len(dataset.items), dataset.audit.masks.source) == ("segment", 8, source)
    assert all((mask == truth(int(stem.split("_")[0]))).all() for stem, mask in masks_of(dataset).items())


@pytest.mark.parametrize(
    ("picture_name", "mask_name"),
    [
        ("{part}/images/{n}.png", "{part}/masks/{n}.png"),
        ("images/{part}/{n}.png", "masks/{part}/{n}.png"),
        ("{part}/{n}.png", "{part}_labels/{n}.png"),
        ("{part}/{n}.png", "{part}annot/{n}.png"),
        ("{part}/{n}.png", "{part}/{n}_mask.png"),
    ],
)
def test_parts_by_folders(tmp_path: Path, picture_name: str, mask_name: str) -> None:
    dataset = read_dataset(arrange(tmp_path, picture_name, mask_name, ("train", "val", "test"), 3))
    assert dataset.task == "segment"
    assert [len(dataset.part(part)) for part in ("train", "val", "test")] == [3, 3, 3]
    assert {int(item.path.stem) // 3: item.part for item in dataset.items} == {0: "train", 1: "val", 2: "test"}


@pytest.mark.parametrize("place", ["ImageSets/Segmentation/{}.txt", "{}.txt"])
@pytest.mark.parametrize("line", ["{n}\n", "JPEGImages/{n}.png SegmentationClass/{n}.png\n"])
def test_parts_by_lists(tmp_path: Path, place: str, line: str) -> None:
    arrange(tmp_path, "JPEGImages/{n}.png", "SegmentationClass/{n}.png")
    write(tmp_path / place.format("train"), "".join(line.format(n=n) for n in range(4)))
    write(tmp_path / place.format("trainval"), "".join(line.format(n=n) for n in range(7)))
    write(tmp_path / place.format("val"), "".join(line.format(n=n) for n in (4, 5)) + "nowhere\n")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "0\n1\n2\n3\n")
    dataset = read_dataset(tmp_path, Split(val=0.2, test=0.0))
    audit = dataset.audit.masks
    assert audit is not None
    assert [len(dataset.part(part)) for part in dataset.parts] == [4, 2]
    assert audit.missing == (f"nowhere in {place.format('val')}",)
    assert audit.partless == ("JPEGImages/6.png", "JPEGImages/7.png")


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    arrange(tmp_path, "images/{n}.png", "masks/{n}.png")
    write(tmp_path / "train.txt", b"\xff")
    with pytest.raises(DataError, match=r"train.txt: no UTF-8 text at byte 0; wanted a name of a picture a line"):
        read_dataset(tmp_path)


def test_what_is_there_too_is_not_read(tmp_path: Path) -> None:
    folder(tmp_path)
    for seed in range(10):
        write(tmp_path / "instances" / f"{seed}.png", grey(truth(seed)))
        write(tmp_path / "labels" / f"{seed}.png", b"no picture")
    write(tmp_path / "notes.json", coco_of({"0.png": []}))
    dataset = read_dataset(tmp_path, task="segment")
    assert dataset.audit.masks is not None
    assert dataset.audit.masks.also == ("10 pictures in instances", "10 pictures in labels", "notes.json")
    assert len(dataset.items) == 10


def test_masks_are_told_from_classes_and_boxes(tmp_path: Path) -> None:
    for place, name in enumerate(("with_mask", "without_mask", "mask")):
        for seed in range(5):
            write(tmp_path / "faces" / name / f"{seed}.png", shot(100 * place + seed))
    assert read_dataset(tmp_path / "faces").task == "classify"
    with pytest.raises(DataError, match=r"no masks in .*; wanted images/ and masks/"):
        read_dataset(tmp_path / "faces", task="segment")
    assert read_dataset(voc_folder(tmp_path / "voc")).task == "detect"
    pairs = arrange(tmp_path / "pairs", "cat/{n}.png", "cat/{n}_mask.png")
    arrange(pairs, "dog/{n}.png", "dog/{n}_mask.png")
    assert read_dataset(pairs, task="classify").task == read_dataset(pairs).task == "classify"
    assert read_dataset(pairs, task="segment").task == "segment"


def test_a_mask_for_two_and_two_for_one(tmp_path: Path) -> None:
    folder(tmp_path, count=60)
    write(tmp_path / "images" / "7.jpg", shot(7))
    write(tmp_path / "masks" / "8.bmp", bmp(truth(8)))
    bad = dict(read_dataset(tmp_path).audit.bad)
    assert bad["images/7.jpg"] == "masks/7.png is for 2 pictures: images/7.jpg, images/7.png"
    assert bad["images/8.png"] == "2 masks are for it: masks/8.bmp, masks/8.png"
    assert len(bad) == 3


# ------------------------------------------------------------------------------------------- what the values stand for


def of_values(*sets: set[int], lossy: bool = False) -> list[Glance]:
    return [Glance(frozenset(one), frozenset(v * 0x010101 for v in one), lossy) for one in sets]


def key_of(
    glances: list[Glance], names: list[str] | None = None, source: str = "masks", ignore: int = 255
) -> tuple[tuple[str, ...], dict[int, int]]:
    legend = None if names is None else Legend(tuple(map(Entry, names)), "classes.txt")
    key = agree(Masks("folders", source, (), (), (), ()), legend, glances, ignore)
    return key.classes, {numbers[0]: label for numbers, label in key.legend}


def test_what_values_suggest() -> None:
    two = ("background", "foreground")
    assert key_of(of_values({0, 255}, {0}, {255})) == (two, {0: 0, 255: 1})
    assert key_of(of_values({0, 1}, {0, 1})) == (two, {0: 0, 1: 1, 255: IGNORE})
    assert key_of(of_values({0, 1, 255})) == (two, {0: 0, 1: 1, 255: IGNORE})
    assert key_of(of_values({0, 128})) == (two, {0: 0, 128: 1, 255: IGNORE})
    assert key_of(of_values({0, 255}), source="nuclei")[0] == ("background", "nuclei")
    three = ("background", "class 2", "class 5")
    assert key_of(of_values({0, 2}, {0, 5, 255})) == (three, {0: 0, 2: 1, 5: 2, 255: IGNORE})
    assert key_of(of_values({1, 2})) == (("class 1", "class 2"), {1: 0, 2: 1, 255: IGNORE})
    assert key_of(of_values({0, 1, 2}), ignore=0) == (("class 1", "class 2"), {1: 0, 2: 1, 0: IGNORE})
    # One stray value among a hundred masks of 0 and 255 is an error; a JPEG has no say at all.
    assert key_of([*of_values(*[{0, 255}] * 100), *of_values({0, 77, 255})])[1] == {0: 0, 255: 1}
    assert key_of([*of_values({0, 1, 2}), *of_values({0, 1, 2, 3, 4}, lossy=True)])[1].keys() == {0, 1, 2, 255}
    assert key_of(of_values({0, 3, 250, 255}, lossy=True))[1] == {0: 0, 255: 1}


def test_what_names_and_values_say() -> None:
    assert key_of(of_values({0, 2}), ["ground", "a", "b"]) == (("ground", "a", "b"), {0: 0, 1: 1, 2: 2, 255: IGNORE})
    assert key_of(of_values({0, 1, 2}), ["a", "b"])[0] == ("background", "a", "b")  # the background has no name
    assert key_of(of_values({0, 255}), ["no", "yes"]) == (("no", "yes"), {0: 0, 255: 1})
    assert key_of(of_values({0, 255}), ["cell"]) == (("background", "cell"), {0: 0, 255: 1})
    assert key_of(of_values({0, 1}), ["cell"])[0] == ("background", "cell")
    found = key_of(of_values({0, 1, 2}), ["a", "background", "void"])
    assert found == (("background", "a"), {0: 1, 1: 0, 2: IGNORE, 255: IGNORE})


def key_of_colours(glances: list[Glance], **colours: tuple[int, int, int]) -> Key:
    legend = Legend(tuple(Entry(name, None, colour) for name, colour in colours.items()), "legend.csv")
    return agree(Masks("folders", "masks", (), (), (), ()), legend, glances)


def test_what_colours_say() -> None:
    red = [Glance(frozenset(), frozenset([0xFF0000, 0]), False)]
    found = key_of_colours(red, car=(255, 0, 0), void=(9, 9, 9))
    assert (found.kind, found.classes) == ("colours", ("background", "car"))
    assert found.legend == (((0, 0, 0), 0), ((255, 0, 0), 1), ((9, 9, 9), IGNORE))
    assert found.told(found.classes) == {"background": "0 0 0", "car": "255 0 0", "ignored": "9 9 9"}
    # Grey values in the order of a legend's lines: its colours are for pictures of the masks.
    found = key_of_colours(of_values({0, 1}), ground=(3, 3, 3), car=(255, 0, 0))
    assert (found.kind, found.classes) == ("values", ("ground", "car"))
    many = {f"c{n}": (255, n, 0) for n in range(256)}
    with pytest.raises(DataError, match="masks of 257 classes; at most 255 fit into 8 bits"):
        key_of_colours(red, **many)


def test_values_in_a_legend(tmp_path: Path) -> None:
    folder(tmp_path, lambda mask: grey(mask * 7), names=None)
    write(tmp_path / "legend.csv", "name,value,r,g,b\ncell,7,1,1,1\nvoid,0,0,0,0\nedge,14,2,2,2\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("cell", "edge")
    for stem, mask in masks_of(dataset).items():
        true = truth(int(stem))
        assert (mask == np.where(true == 0, IGNORE, true - 1)).all()
    assert dataset.audit.masks is not None
    assert dataset.audit.masks.keys == {"ignored": "0, 255", "cell": "7", "edge": "14"}


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    write(folder(tmp_path) / "classes.txt", "background\nbackground")
    with pytest.raises(DataError, match=r"classes\.txt: two classes are called background"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="two classes of masks are called 'background'"):
        key_of(of_values({0, 255}), source="background")


@given(
    st.lists(st.frozensets(st.integers(0, 255), min_size=1, max_size=5), max_size=5),
    st.integers(0, 255),
    st.none() | st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True),
)
def test_any_values_have_a_key(sets: list[frozenset[int]], ignore: int, names: list[str] | None) -> None:
    classes, legend = key_of(of_values(*map(set, sets)), names, ignore=ignore)
    assert len(set(classes)) == len(classes)
    assert set(legend.values()) <= {*range(len(classes)), IGNORE}


def test_a_glance(tmp_path: Path) -> None:
    assert glance(write(tmp_path / "a.png", grey(truth(0)))) == of_values({0, 1, 2})[0]
    assert glance(write(tmp_path / "b.png", b"nothing")) is None
    deep = glance(write(tmp_path / "c.png", encoded(Image.fromarray(truth(0).astype(np.uint16) * 999))))
    assert deep == Glance(frozenset(), frozenset(), False)


# ---------------------------------------------------------------------------------------------------------- the audit


def test_bad_pairs_are_named_one_line_each(tmp_path: Path) -> None:
    folder(tmp_path, binary, None, count=100)
    write(tmp_path / "masks" / "1.png", grey(truth(1)[:5]))
    write(tmp_path / "masks" / "2.png", encoded(Image.fromarray((truth(2) > 0).astype(np.uint8) * 255), "JPEG"))
    stray = (truth(3) > 0).astype(np.uint8) * 255
    stray[4, 4] = 77
    write(tmp_path / "masks" / "3.png", grey(stray))
    write(tmp_path / "masks" / "4.png", b"")
    write(tmp_path / "masks" / "5.png", grey(np.zeros((8, 12), np.uint8)))
    write(tmp_path / "masks" / "6.png", grey(np.full((8, 12), 255, np.uint8)))
    (tmp_path / "masks" / "7.png").unlink()
    write(tmp_path / "masks" / "extra.png", grey(truth(0)))
    write(tmp_path / "masks" / "9.png", binary(truth(8)))
    dataset = read_dataset(tmp_path)
    assert dataset.audit.bad == (
        ("images/1.png", "its mask has 12×5 pixels, and it has 12×8"),
        ("images/2.png", dataset.audit.bad[1][1]),
        ("images/3.png", "its mask has the value 77, of no class"),
        ("images/4.png", "its mask cannot be read: empty file"),
    )
    assert dataset.audit.bad[1][1].startswith("its mask is a JPEG, which smears values between those of the classes (")
    audit = dataset.audit.masks
    assert audit is not None
    assert (audit.empty, audit.alone) == (("images/5.png",), ("images/6.png",))
    assert audit.unlabelled == ("images/7.png",)
    assert audit.missing == ("masks/extra.png",)
    assert audit.equal == (("images/8.png", "images/9.png"),)
    text = audit_text(dataset)
    for line in (
        "95 pictures, 2 classes of masks (folders: masks), fingerprint",
        "values: 0 background; 255 foreground",
        "0.00 % of all pixels are ignored",
        "1 pictures that show background alone\n  images/5.png",
        "1 groups of different pictures with equal masks\n  images/8.png = images/9.png",
        "1 masks without their picture\n  masks/extra.png",
        "4 bad pictures\n  images/1.png: its mask has 12×5",
        "0 groups of equal pictures with different masks",
    ):
        assert line in text
    plain = json.loads(json.dumps(dataset.audit.as_dict()))
    assert plain["masks"]["equal"] == [["images/8.png", "images/9.png"]]


def test_shares_add_up(tmp_path: Path) -> None:
    folder(tmp_path, lambda mask: grey(np.where(np.arange(12) < 3, 255, mask % 2).astype(np.uint8)))
    dataset = read_dataset(tmp_path)
    audit = dataset.audit.masks
    assert audit is not None
    assert audit.ignored == pytest.approx(0.25)
    wanted = float(np.mean([(truth(n)[:, 3:] % 2 == 1).mean() for n in range(10)]))
    assert audit.shares == pytest.approx({"background": 1 - wanted, "cell": wanted, "edge": 0})
    assert audit.unseen == ("edge",)
    assert sum(sum(of.values()) for of in audit.pixels.values()) == 10 * 8 * 9
    assert "\n1 classes have no pixel: edge\n" in audit_text(dataset)
    assert all(dataset.audit.counts[part]["edge"] == 0 for part in dataset.parts)


def test_a_class_that_train_lacks(tmp_path: Path) -> None:
    dataset = read_dataset(folder(tmp_path))
    for item in dataset.items:
        if item.part == "train":
            write(tmp_path / "masks" / item.path.name, grey(truth(int(item.path.stem), 2)))
    dataset = read_dataset(tmp_path)
    assert dataset.audit.masks is not None
    assert dataset.audit.masks.untrained == ("edge",)
    assert "\n1 classes have no pixel in train: edge\n" in audit_text(dataset)


def test_too_many_bad_pairs_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path, binary, None)
    write(tmp_path / "masks" / "1.png", grey(truth(1)[:5]))
    with pytest.raises(TooManyBad, match=r"1 of 10 pictures in .* more than 5 %; the first: images/1.png: its mask"):
        read_dataset(tmp_path)
    assert main(["data", str(tmp_path), "--task", "segment"]) == 2
    assert capsys.readouterr().out == "1 bad pictures\n  images/1.png: its mask has 12×5 pixels, and it has 12×8\n"


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_class_alone_stop(tmp_path: Path, value: int) -> None:
    folder(tmp_path, lambda mask: grey(np.full_like(mask, value)), None)
    shown = "background" if value == 0 else "foreground"
    with pytest.raises(DataError, match=f"the masks of train in .* show only '{shown}'; wanted at least two classes"):
        read_dataset(tmp_path)


def test_masks_that_ask_for_nothing_are_bad(tmp_path: Path) -> None:
    folder(tmp_path, lambda mask: grey(np.full_like(mask, 255)))
    write(tmp_path / "masks" / "1.png", grey(truth(1)))
    write(tmp_path / "legend.csv", "name,value\nbackground,0\ncell,1\nedge,2\n")
    with pytest.raises(TooManyBad, match="its mask asks for nothing: all of its pixels are to be ignored"):
        read_dataset(tmp_path, task="segment")


def test_a_picture_that_its_exif_turns(tmp_path: Path) -> None:
    folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.rot90(np.asarray(Image.open(tmp_path / "images" / "0.png"))).copy()
    write(tmp_path / "images" / "0.png", encoded(Image.fromarray(lying), exif=exif.tobytes()))
    before = read_dataset(tmp_path)
    write(tmp_path / "masks" / "0.png", grey(np.rot90(truth(0)).copy()))
    after = read_dataset(tmp_path)
    for dataset in (before, after):
        assert (masks_of(dataset)["0"] == truth(0)).all()
    assert before.fingerprint == after.fingerprint


# ------------------------------------------------------------------------------------------------------ COCO's outlines


def square(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco_folder(root: Path) -> Path:
    found: dict[str, list[dict[str, object]]] = {}
    for seed in range(10):
        write(root / "images" / f"{seed}.png", shot(seed))
        found[f"{seed}.png"] = [
            {"category_id": 1, "segmentation": [square(0, 0, 4, 4), square(6, 0, 8, 2)]},
            {"category_id": 2, "segmentation": [square(2, 2, 6, 6)]},
            {"category_id": 2, "segmentation": {"counts": [88, 8], "size": [8, 12]}, "iscrowd": 1},
        ]
    write(root / "instances.json", coco_of(found))
    return root


def test_outlines_are_masks_when_asked_for(tmp_path: Path) -> None:
    assert read_dataset(coco_folder(tmp_path)).task == "detect"
    dataset = read_dataset(tmp_path, task="segment")
    assert (dataset.task, dataset.classes) == ("segment", CLASSES)
    wanted = np.zeros((8, 12), np.uint8)
    wanted[:, 11] = 2
    wanted[0:4, 0:4] = 1
    wanted[0:2, 6:8] = 1
    wanted[2:6, 2:6] = 2
    assert all((mask == wanted).all() for mask in masks_of(dataset).values())
    assert dataset.audit.masks is not None
    assert (dataset.audit.masks.layout, dataset.audit.masks.source) == ("coco", "instances.json")
    # The same masks as files are the same data.
    for item in dataset.items:
        write(tmp_path / "files" / "images" / item.path.name, item.path.read_bytes())
        write(tmp_path / "files" / "masks" / item.path.name, grey(wanted))
    write(tmp_path / "files" / "classes.txt", "\n".join(CLASSES))
    assert read_dataset(tmp_path / "files").fingerprint == dataset.fingerprint


def test_what_is_wrong_with_outlines(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    plain = json.loads((tmp_path / "instances.json").read_text())
    for category, drawn in (
        (9, [square(0, 0, 4, 4)]),
        (1, [[0, 0, 4, 4]]),
        (1, [[0, 0, 4, 4, 1, float("nan")]]),
        (1, []),
        (1, {"counts": "o", "size": [8, 12]}),
        (1, {"counts": [0.5]}),
    ):
        plain["annotations"].append({"image_id": 0, "category_id": category, "segmentation": drawn})
    plain["images"].append({"id": 10, "file_name": "../../etc/passwd"})
    write(tmp_path / "instances.json", json.dumps(plain))
    audit = read_dataset(tmp_path, task="segment").audit.masks
    assert audit is not None
    assert [line for _, line in audit.left_out] == [
        "a shape of the unknown category 9",
        "cell: a ring that is no list of three points or more",
        "cell: a ring that is no list of three points or more",
        "cell: an annotation without an outline",
        "cell: compressed runs that end within a number",
        "cell: run lengths that are no whole numbers",
    ]
    assert {name for name, _ in audit.left_out} == {"images/0.png"}
    assert audit.missing == ("../../etc/passwd in instances.json",)
    plain["images"][1]["width"] = 13
    plain["annotations"].append({"image_id": 2, "category_id": 1, "segmentation": {"counts": [5], "size": [8, 12]}})
    write(tmp_path / "instances.json", json.dumps(plain))
    with pytest.raises(TooManyBad) as caught:
        read_dataset(tmp_path, task="segment")
    assert caught.value.bad == (
        (
            "images/1.png",
            "its labels are for 13×8 pixels, and it has 12×8; label it anew, or undo what turned or resized it",
        ),
        ("images/2.png", "runs over 5 pixels, and its picture has 96"),
    )


def test_boxes_alone_are_no_masks(tmp_path: Path) -> None:
    for seed in range(10):
        write(tmp_path / "images" / f"{seed}.png", shot(seed))
    write(tmp_path / "instances.json", coco_of({"0.png": [{"category_id": 1}]}))
    with pytest.raises(DataError, match="no masks in"):
        read_dataset(tmp_path, task="segment")


ANYTHING = st.recursive(
    st.none() | st.integers(-9, 99) | st.floats() | st.text(max_size=4),
    lambda some: st.lists(some, max_size=7) | st.dictionaries(st.sampled_from(["counts", "size"]), some),
)


@given(ANYTHING)
def test_any_segmentation_is_a_shape_or_a_line(drawn: object) -> None:
    text = coco_of({"a.png": [{"category_id": 1, "segmentation": drawn}]})
    (image,) = read_document(text.encode()).images
    shapes = image.marks
    assert all("\n" not in line for line in shapes.left_out)
    assert shapes.polygons or shapes.runs or shapes.left_out


@given(st.binary(max_size=60))
def test_any_bytes_are_no_document_in_one_line(text: bytes) -> None:
    with pytest.raises(LabelError) as caught:
        read_document(text)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.skipif(not (SHARED / "dsb2018-gray256").is_dir(), reason=f"dsb2018-gray256 is not in {SHARED}")
def test_the_nuclei() -> None:
    dataset = read_dataset(SHARED / "dsb2018-gray256", Split(val=0.2, test=0.2))
    audit = dataset.audit.masks
    assert audit is not None
    assert (dataset.task, dataset.classes) == ("segment", ("background", "foreground"))
    assert [len(dataset.part(part)) for part in dataset.parts] == [200, 67, 67]
    assert audit.also == ("334 pictures in instances",)
    assert audit.shares["foreground"] == pytest.approx(0.077, abs=0.001)  # as its README says
    assert audit.empty == audit.unlabelled == audit.missing == dataset.audit.bad == ()


@pytest.mark.skipif(not (SHARED / "coral-seg").is_dir(), reason=f"coral-seg is not in {SHARED}")
def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could both name the classes of its masks; wanted one"):
        read_dataset(SHARED / "coral-seg", task="segment")
    for name in ("bird_segmentation", "dog_segmentation", "pascal_voc_segmentation_labels"):
        for file in (SHARED / "coral-seg").glob(f"{name}*"):
            write(tmp_path / file.name, file.read_bytes())
    dataset = read_dataset(tmp_path)
    assert (dataset.task, len(dataset.classes), dataset.classes[:4]) == (
        "segment", 21, ("background", "aeroplane", "bicycle", "bird"),
    )  # fmt: skip
    assert [item.mask.path.rsplit("/", 1)[-1] for item in dataset.items if item.mask] == [
        "bird_segmentation_mask.bmp", "dog_segmentation_mask.bmp", "dog_segmentation_mask_256.bmp",
    ]  # fmt: skip
