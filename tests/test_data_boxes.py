"""Folders of pictures with boxes: the task, the split, what is left out, what the audit says. Pictures are 40×30."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.annotations.labels import Marked, marks
from featherweight.cli import main
from featherweight.data import Dataset, labels, read_dataset, read_dataset_cached
from featherweight.data.boxed import check
from featherweight.data.dataset import hundredths
from featherweight.errors import DataError, LabelError, SettingError, TooManyBad
from tests.boxed import CLASSES, as_coco, as_yolo, coco, lines, picture, some_boxes, voc_folder, write, xml
from tests.hostile import flips, truncations

SHARED = Path(__file__).parents[2] / "shared" / "data"
INDEX = {name: label for label, name in enumerate(CLASSES)}


def by_stem(dataset: Dataset) -> dict[str, list[tuple[float, ...]]]:
    return {
        item.path.stem: [
            (int(label), *corners)
            for label, corners in zip(item.boxes.labels, item.boxes.corners.tolist(), strict=True)
        ]
        for item in dataset.items
        if item.boxes is not None
    }


# ----------------------------------------------------------------------------------------------------- the data set


def test_a_folder_of_boxes(tmp_path: Path) -> None:
    dataset = read_dataset(voc_folder(tmp_path / "d"))
    assert (dataset.task, dataset.classes, dataset.parts) == ("detect", CLASSES, ("train", "val", "test"))
    assert [len(dataset.part(part)) for part in dataset.parts] == [6, 2, 2]
    for number, item in enumerate(dataset.items):
        assert (item.label, item.height, item.width) == (-1, 30, 40)
        assert item.boxes is not None
        wanted = some_boxes(number)
        assert item.boxes.corners.tolist() == [list(map(float, box[1:])) for box in wanted]
        assert item.boxes.labels.tolist() == [INDEX[box[0]] for box in wanted]
        assert (item.boxes.corners.dtype, item.boxes.labels.dtype) == (np.float32, np.int64)
        assert item.boxes.scores.tolist() == [1.0] * 3
        assert not item.boxes.hard.any()
    assert read_dataset(dataset.root) == dataset
    with pytest.raises(DataError, match="pictures with boxes have no one label each"):
        labels(dataset.items)


def test_three_formats_are_one_data_set(tmp_path: Path) -> None:
    dataset = read_dataset(voc_folder(tmp_path / "voc"))
    for layout, folder in (("coco", as_coco(dataset, tmp_path / "c")), ("yolo", as_yolo(dataset, tmp_path / "y"))):
        other = read_dataset(folder)
        assert other.audit.boxes is not None
        assert other.audit.boxes.layout == layout
        assert by_stem(other).keys() == by_stem(dataset).keys()
        for stem, boxes in by_stem(other).items():
            np.testing.assert_allclose(boxes, by_stem(dataset)[stem], atol=1e-4)
        assert other.fingerprint == dataset.fingerprint
        assert other.classes == dataset.classes


def test_the_fingerprint_changes_with_a_box_its_class_and_how_hard_it_is(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d")
    seen = [read_dataset(root).fingerprint]
    for boxes, hard in (([("cell", 1, 1, 9, 9)], []), ([("dot", 1, 1, 9, 9)], []), ([("dot", 1, 1, 9, 9)], [0]),
                        ([("dot", 1, 1, 9, 9.02)], [0]), ([], [])):  # fmt: skip
        write(root / "Annotations" / "p000.xml", xml(boxes, hard=hard))
        seen.append(read_dataset(root).fingerprint)
    assert len(set(seen)) == len(seen)
    write(root / "Annotations" / "p001.xml", xml(some_boxes(1)[::-1]))  # another order, the same boxes
    assert read_dataset(root).fingerprint == seen[-1]


def test_a_folder_without_parts_is_split_by_contents(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d", train=20, val=0, test=0)
    shutil.rmtree(root / "ImageSets")
    dataset = read_dataset(root)
    assert {part: len(dataset.part(part)) for part in dataset.parts} == {"train": 14, "val": 3, "test": 3}
    order = sorted(dataset.items, key=lambda item: item.sha256)
    assert [item.part for item in order] == ["test"] * 3 + ["val"] * 3 + ["train"] * 14
    for number in range(20):  # every picture again, under another name: no pair is parted
        write(root / "JPEGImages" / f"again{number}.png", picture(number))
        write(root / "Annotations" / f"again{number}.xml", xml(some_boxes(number)))
    again = read_dataset(root)
    assert len(again.items) == 40
    assert again.audit.leaks == ()
    assert len(again.audit.duplicates) == 20


def test_without_val_some_of_train_becomes_val(tmp_path: Path) -> None:
    dataset = read_dataset(voc_folder(tmp_path / "d", train=20, val=0, test=4))
    assert dataset.audit.boxes is not None
    assert dataset.audit.boxes.pictures == {"train": 17, "val": 3, "test": 4}


def test_too_few_pictures(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d", train=2, val=0, test=0)
    with pytest.raises(DataError, match=r"d has 2 different pictures; wanted at least 3, one for each part"):
        read_dataset(root)


# --------------------------------------------------------------------------------------------------------- the task


def classes_with(root: Path, extra: Callable[[Path], Any]) -> Path:
    for number in range(12):
        write(root / ("cat", "dog")[number % 2] / f"{number}.png", picture(number))
    extra(root)
    return root


@pytest.mark.parametrize("extra", [
    lambda root: write(root / "cat" / "0.xml", xml([])),
    lambda root: write(root / "cat" / "0.txt", "0 .5 .5 .1 .1"),
    lambda root: write(root / "cat" / "annotations" / "0.xml", xml([])),
    lambda root: write(root / "cat" / "all.json", json.dumps(coco({"0.png": []}, CLASSES))),
    lambda root: write(root / "notes.txt", "0 .5 .5 .1 .1"),
    lambda root: write(root / "config.json", "{}"),
])  # fmt: skip
def test_folders_of_classes_stay_what_they_were(tmp_path: Path, extra: Callable[[Path], Any]) -> None:
    before = read_dataset(classes_with(tmp_path / "plain", lambda root: None))
    after = read_dataset(classes_with(tmp_path / "extra", extra))
    assert (after.task, after.fingerprint) == ("classify", before.fingerprint)


def test_parts_of_classes_stay_classes_and_parts_with_labels_are_boxes(tmp_path: Path) -> None:
    number = 0
    for part in ("train", "val"):
        for name in ("images", "cat"):
            for _ in range(3):
                write(tmp_path / part / name / f"{number}.png", picture(number))
                write(tmp_path / part / name / f"{number}.txt", "0 .5 .5 .1 .1")
                number += 1
    assert read_dataset(tmp_path).classes == ("cat", "images")
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / part / "cat")
    assert read_dataset(tmp_path).task == "detect"


def test_the_task_can_be_named(tmp_path: Path) -> None:
    root = classes_with(tmp_path / "d", lambda root: None)
    for number in range(12):
        write(root / ("cat", "dog")[number % 2] / f"{number}.txt", "0 .5 .5 .1 .1")
    assert read_dataset(root).task == "classify"
    assert read_dataset(root, task="detect").task == "detect"
    assert read_dataset_cached(root, 8, 8, task="detect")[1].pixels.shape == (12, 8, 8, 3)
    with pytest.raises(SettingError, match="unknown task 'detec'; known: classify, detect"):
        read_dataset(root, task="detec")
    boxed = voc_folder(tmp_path / "voc")
    with pytest.raises(DataError, match=r"no usable picture"):
        read_dataset(boxed, task="classify")


def test_no_boxes_where_boxes_are_asked_for(tmp_path: Path) -> None:
    root = classes_with(tmp_path / "d", lambda root: None)
    with pytest.raises(DataError, match=r"no boxes in .*wanted pictures and Pascal VOC \(Annotations/\*.xml\), COCO"):
        read_dataset(root, task="detect")


def test_the_first_layout_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d")
    write(root / "labels" / "p000.txt", "0 .5 .5 .1 .1")
    audit = read_dataset(root).audit.boxes
    assert audit is not None
    assert (audit.layout, audit.also) == ("voc", ("yolo",))


def test_folders_may_be_links(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("JPEGImages", "Annotations", "ImageSets"):
        (linked / name).symlink_to(root / name)
    (linked / "JPEGImages" / "loop").symlink_to(linked)
    assert read_dataset(linked).fingerprint == read_dataset(root).fingerprint


def test_labels_without_any_picture_of_theirs(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d")
    shutil.rmtree(root / "JPEGImages")
    write(root / "JPEGImages" / "other.png", picture(0))
    shutil.rmtree(root / "ImageSets")
    with pytest.raises(DataError, match=r"has labels: 1 pictures, 0 of them in no part, 10 files of labels \(voc\)"):
        read_dataset(root)


def test_labels_without_a_class(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d")
    for path in (root / "Annotations").iterdir():
        path.write_text(xml([]))
    with pytest.raises(DataError, match=r"no class in the labels of .*wanted boxes of at least one"):
        read_dataset(root)
    write(root / "Annotations" / "p009.xml", xml(some_boxes(9)))  # in test
    with pytest.raises(DataError, match=r"no box to train on in"):
        read_dataset(root)


# -------------------------------------------------------------------------------------------------------- the audit


def test_the_audit_of_clean_boxes(tmp_path: Path) -> None:
    dataset = read_dataset(voc_folder(tmp_path / "d"))
    audit = dataset.audit.boxes
    assert audit is not None
    assert audit.pictures == {"train": 6, "val": 2, "test": 2}
    assert audit.counts["train"] == {"cell": 12, "dot": 6}
    assert dataset.audit.counts["train"] == {"cell": 6, "dot": 6}
    spans = np.array([[box[3] - box[1], box[4] - box[2]] for seed in range(10) for box in some_boxes(seed)])
    assert audit.widths == (spans[:, 0].min(), np.median(spans[:, 0]), spans[:, 0].max())
    assert audit.heights == (spans[:, 1].min(), np.median(spans[:, 1]), spans[:, 1].max())
    assert audit.shares == {"small": 1.0, "medium": 0.0, "large": 0.0}
    named = (audit.left_out, audit.twice, audit.clipped, audit.empty, audit.unlabelled, audit.missing, audit.partless)
    assert named == ((),) * 7
    assert audit.hard == 0
    plain = dataset.audit.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert dataset.audit.ignored == 3  # the lists


def test_every_fault_is_named_and_left_out(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "d", train=60)
    fine = ("cell", 2, 3, 12, 13)
    write(
        root / "Annotations" / "p000.xml", xml([fine, ("cell", 5, 5, 6, 9), ("dot", 45, 5, 50, 9), fine], hard=[0, 3])
    )
    write(root / "Annotations" / "p001.xml", xml([fine, ("dot", 30, 20, 41, 30), ("dot", 30, -4, 35, 9)]))
    write(root / "Annotations" / "p002.xml", xml([]))
    (root / "Annotations" / "p003.xml").unlink()
    (root / "JPEGImages" / "p004.png").unlink()
    write(root / "Annotations" / "p005.xml", xml([fine], width=30, height=40))
    write(root / "Annotations" / "p006.xml", xml([fine])[:-3])
    write(root / "JPEGImages" / "lost.png", picture(999))
    write(root / "Annotations" / "lost.xml", xml([fine]))
    write(root / "JPEGImages" / "p060.png", picture(7))  # p007, which is in train; p060 is in val
    dataset = read_dataset(root)
    audit = dataset.audit.boxes
    assert audit is not None
    where = "JPEGImages"
    assert audit.left_out == (
        (f"{where}/p000.png", "cell without area: 6, 6, 6, 9"),
        (f"{where}/p000.png", "dot 45, 5, 50, 9: outside of the picture"),
    )
    assert audit.twice == ((f"{where}/p000.png", "cell 2, 3, 12, 13"),)
    assert audit.clipped == ((f"{where}/p001.png", "dot 30, -4, 35, 9"),)  # the one to 41 is only a pixel beyond
    assert audit.empty == (f"{where}/p002.png",)
    assert audit.unlabelled == (f"{where}/p003.png",)
    assert set(audit.missing) == {"Annotations/p004.xml", "p004 in ImageSets/Main/train.txt"}
    assert audit.partless == (f"{where}/lost.png",)
    assert audit.hard == 1
    bad = dict(dataset.audit.bad)
    assert "its labels are for 30×40 pixels, and it has 40×30" in bad[f"{where}/p005.png"]
    assert bad[f"{where}/p006.png"].startswith("its labels Annotations/p006.xml: no XML: ")
    assert dataset.audit.leaks == ((f"{where}/p007.png", f"{where}/p060.png"),)
    assert dataset.audit.conflicts == dataset.audit.leaks  # and their boxes differ
    found = by_stem(dataset)
    assert found["p000"] == [(0, 2, 3, 12, 13)]
    assert found["p001"][1:] == [(1, 30, 20, 40, 30), (1, 30, 0, 35, 9)]
    assert found["p002"] == []


def test_too_many_pictures_with_bad_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder(tmp_path / "d")
    write(root / "Annotations" / "p000.xml", "<annotation><!DOCTYPE x>")
    write(root / "Annotations" / "p001.xml", '<!DOCTYPE x SYSTEM "http://x"><annotation/>')
    with pytest.raises(TooManyBad, match=r"2 of 10 pictures .* more than 5 %; the first: JPEGImages/p000.png"):
        read_dataset(root)
    assert main(["data", str(root)]) == 2
    captured = capsys.readouterr()
    assert "JPEGImages/p001.png: its labels Annotations/p001.xml: XML with a document type" in captured.out


def test_the_verb_shows_pictures_and_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder(tmp_path / "d", train=40)
    for number in range(30):
        write(root / "Annotations" / f"p{number:03}.xml", xml([]))
    write(root / "labels" / "p000.txt", "")
    assert main(["data", str(root)]) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert text.startswith("44 pictures, 2 classes of boxes (voc), fingerprint ")
    assert rows["class"] == ["pictures", "boxes"] * 3
    assert rows["cell"] == ["10", "20", "2", "4", "2", "4"]
    assert rows["all"] == ["40", "30", "2", "6", "2", "6"]
    assert "100.0 % small (under 32²), 0.0 % medium (under 96²), 0.0 % large" in text
    assert "30 pictures without boxes\n  JPEGImages/p000.png\n" in text
    assert "  and 10 more, all in --json\n" in text
    assert "also boxes in the layout yolo, which were not read" in text
    assert main(["data", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], len(told["boxes"]["empty"]), told["boxes"]["also"]) == ("detect", 30, ["yolo"])
    assert main(["data", str(root), "--task", "classify"]) == 2


# ----------------------------------------------------------------------------------- boxes held against their picture


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("corners", "cause"),
    [
        ((5, 5, 5, 9), "no area"),
        ((5, 5, 5.005, 9), "no area"),
        ((9, 5, 5, 9), "no area"),
        ((NAN, 5, 9, 9), "a corner that is no number"),
        ((5, 5, INFINITE, 9), "a corner that is no number"),
        ((-INFINITE, 5, INFINITE, 9), "a corner that is no number"),
        ((-9, 5, 0, 9), "outside of the picture"),
        ((5, 30, 9, 35), "outside of the picture"),
        ((39.995, 5, 50, 9), "no area within the picture"),
    ],
)
def test_boxes_that_cannot_be(corners: tuple[float, ...], cause: str) -> None:
    found = check(marks([Marked("dot", *corners), Marked("cell", 1, 2, 3, 4)]), INDEX, 30, 40)
    assert found.boxes.corners.tolist() == [[1, 2, 3, 4]]
    assert len(found.left_out) == 1
    assert found.left_out[0].endswith(f": {cause}")


def test_unknown_classes_shares_and_lines_of_the_reader() -> None:
    given = marks([Marked("cat", 0, 0, 1, 1), Marked("dot", 0.25, 0.5, 0.75, 1)], ["line 7: odd"], shares=True)
    found = check(given, INDEX, 30, 40)
    assert found.left_out == ("line 7: odd", "cat 0, 0, 40, 30: unknown class")
    assert found.boxes.corners.tolist() == [[10, 15, 30, 30]]
    assert check(marks([]), INDEX, 30, 40).boxes.corners.shape == (0, 4)


def test_the_same_box_is_kept_once_unless_its_class_or_kind_differs() -> None:
    box = (10.0, 10.0, 110.0, 110.0)
    near = (10.0, 10.0, 110.0, 110.9)  # IoU 100/100.9 = 0.991
    apart = (10.0, 10.0, 110.0, 111.1)  # IoU 100/101.1 = 0.989
    given = [Marked("dot", *box), Marked("dot", *near), Marked("cell", *box), Marked("dot", *box, hard=True),
             Marked("dot", *apart)]  # fmt: skip
    found = check(marks(given), INDEX, 200, 200)
    assert found.twice == ("dot 10, 10, 110, 110.9",)
    assert found.boxes.labels.tolist() == [1, 0, 1, 1]
    assert found.boxes.hard.tolist() == [False, False, True, False]


@pytest.mark.parametrize(("height", "width"), [(31, 40), (30, 39), (40, 30)])
def test_labels_of_another_size(height: int, width: int) -> None:
    with pytest.raises(
        LabelError, match=f"its labels are for {width}×{height} pixels, and it has 40×30; label it anew"
    ):
        check(marks([], height=height, width=width), INDEX, 30, 40)
    check(marks([], height=None, width=40), INDEX, 30, 40)


NUMBER = st.floats(-100, 200) | st.sampled_from([NAN, INFINITE, -INFINITE, 0.0, 30.0, 40.0, 1e300, -1e300])


@given(
    st.lists(st.builds(Marked, st.sampled_from(["cell", "dot", "cat"]), NUMBER, NUMBER, NUMBER, NUMBER)), st.booleans()
)
def test_whatever_comes_boxes_lie_within_the_picture_and_nothing_is_lost(given: list[Marked], shares: bool) -> None:
    found = check(marks(given, shares=shares), INDEX, 30, 40)
    corners = found.boxes.corners
    assert (corners >= 0).all()
    assert (corners <= [40, 30, 40, 30]).all()
    assert (corners[:, 2:] > corners[:, :2]).all()
    assert set(found.boxes.labels.tolist()) <= {0, 1}
    assert len(found.left_out) >= len(given) - len(corners) - len(found.twice)
    again = check(
        marks([Marked(CLASSES[n], *row) for n, row in zip(found.boxes.labels, corners.tolist(), strict=True)]),
        INDEX,
        30,
        40,
    )
    assert hundredths(again.boxes) == hundredths(replace(found.boxes, hard=again.boxes.hard))
    assert (again.left_out, again.clipped) == ((), ())


def test_damaged_labels_are_read_or_told_in_one_line(tmp_path: Path) -> None:
    dataset = read_dataset(voc_folder(tmp_path / "voc", 4, 2, 2))
    folders = {"voc": dataset.root, "coco": as_coco(dataset, tmp_path / "c"), "yolo": as_yolo(dataset, tmp_path / "y")}
    files = {
        "voc": ("Annotations/p000.xml", "ImageSets/Main/train.txt"),
        "coco": ("annotations/instances_train2026.json",),
        "yolo": ("labels/train/p000.txt", "data.yaml"),
    }
    told = 0
    for layout, root in folders.items():
        for file in files[layout]:
            data = (root / file).read_bytes()
            for damaged in [*truncations(data, 12), *(version for _, version in flips(data, 12))]:
                (root / file).write_bytes(damaged)
                try:
                    read_dataset(root)
                except DataError as error:
                    told += 1
                    assert len(str(error).splitlines()) == 1
                    assert str(error).isprintable()
            (root / file).write_bytes(data)
        assert read_dataset(root).fingerprint == dataset.fingerprint
    assert told > 20


# -------------------------------------------------------------------------------------------------------- real data


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason=f"the data set bccd is not in {SHARED}")
def test_blood_cells(tmp_path: Path) -> None:
    dataset = read_dataset(SHARED / "bccd")
    audit = dataset.audit.boxes
    assert audit is not None
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    assert audit.pictures == {"train": 205, "val": 87, "test": 72}
    counts = {name: sum(audit.counts[part][name] for part in dataset.parts) for name in dataset.classes}
    assert counts == {"Platelets": 361, "RBC": 4155 - 2, "WBC": 372}
    assert audit.left_out == (
        ("JPEGImages/BloodImage_00338.jpg", "RBC without area: 504, 337, 504, 337"),
        ("JPEGImages/BloodImage_00343.jpg", "RBC without area: 181, 329, 181, 329"),
    )
    assert (audit.twice, audit.clipped, audit.empty, dataset.audit.bad, dataset.audit.leaks) == ((),) * 5
    few = replace(dataset, items=dataset.items[::8])
    converted = [read_dataset(as_coco(few, tmp_path / "coco")), read_dataset(as_yolo(few, tmp_path / "yolo"))]
    for other in converted:
        assert other.fingerprint == few.fingerprint
        for stem, boxes in by_stem(other).items():
            np.testing.assert_allclose(boxes, by_stem(few)[stem], atol=1e-3)


def test_lines_of_yolo_are_those_of_voc() -> None:
    assert lines([("dot", 10, 15, 30, 30)], CLASSES) == "1 0.5000000 0.7500000 0.5000000 0.5000000\n"
