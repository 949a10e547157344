"""Parsers of boxes: what they make of good files, and that bad ones are told in one line."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight import annotations
from featherweight.annotations import coco, tree, voc, yolo
from featherweight.annotations.labels import Labels, Marks
from featherweight.annotations.settings import Settings, read_settings
from featherweight.annotations.tree import Tree
from featherweight.errors import DataError, LabelError
from tests.boxed import CLASSES, write, xml
from tests.boxed import coco as document
from tests.boxed import lines as yolo_lines


def corners(marks: Marks) -> list[tuple[float, ...]]:
    return [tuple(row) for row in marks.corners.tolist()]


def tree_of(root: Path, classes: bool = False) -> Tree:
    files = sorted(path for path in root.rglob("*") if not path.is_dir())
    pictures = tuple(path for path in files if path.suffix == ".png")
    return Tree(root, pictures, tuple(path for path in files if path.suffix != ".png"), classes)


def labels_of(root: Path) -> Labels:
    found = annotations.find(tree_of(root))
    layout = next(iter(found))
    return annotations.read(tree_of(root), layout, found[layout])


def parts_of(labels: Labels) -> dict[str, str | None]:
    return {one.path.name: one.part for one in labels.pictures}


# ------------------------------------------------------------------------------------------------------- Pascal VOC


def test_a_voc_box_over_the_whole_picture_is_the_picture() -> None:
    text = (
        "<annotation><size><width>640</width><height>480</height></size><object><name> dog </name>"
        "<bndbox><ymin>1</ymin><xmin>1</xmin><xmax>640</xmax><ymax>480.0</ymax></bndbox></object></annotation>"
    )
    found = voc.read_marks(text.encode())
    assert corners(found) == [(0, 0, 640, 480)]
    assert (found.names, found.height, found.width, found.shares) == (("dog",), 480, 640, False)
    assert found.hard.tolist() == [False]


def test_difficult_is_hard_and_parts_of_objects_are_passed_over() -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = xml([("cat", 3, 4, 10, 12), ("dog", 0, 0, 5, 5)], hard=[1]).replace("</object>", f"{part}</object>", 1)
    found = voc.read_marks(text.encode())
    assert (found.names, found.hard.tolist()) == (("cat", "dog"), [False, True])
    assert corners(found)[0] == (3, 4, 10, 12)


@pytest.mark.parametrize(
    ("inner", "cause"),
    [
        (
            "<name>a</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>",
            "a without area: 5, 6",
        ),
        ("<name>a</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>2</xmax><ymax>9</ymax></bndbox>", "a without area"),
        ("<name>a</name><bndbox><xmin>x</xmin><ymin>6</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>", "no numbers: x, 6"),
        ("<name>a</name><bndbox><xmin>5</xmin></bndbox>", "a: no ymin, xmax, ymax"),
        ("<name>a</name>", "a: no xmin"),
        ("<name> </name><bndbox><xmin>5</xmin></bndbox>", "a box without a class"),
    ],
)
def test_voc_objects_that_are_no_boxes(inner: str, cause: str) -> None:
    found = voc.read_marks(xml([("b", 1, 1, 9, 9)], extra=f"<object>{inner}</object>").encode())
    assert found.names == ("b",)
    assert len(found.left_out) == 1
    assert cause in found.left_out[0]


@pytest.mark.parametrize("side", ["0", "", "wide", "1e999"])
def test_a_size_that_says_nothing(side: str) -> None:
    text = f"<annotation><size><width>{side}</width></size></annotation>"
    assert voc.read_marks(text.encode()).width is None


ENTITIES = '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;">]>'
BOMB = f"{ENTITIES}<annotation><object><name>&y;</name></object></annotation>"
OUTSIDE = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>'


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (BOMB.encode(), "document type"),
        (OUTSIDE.encode(), "document type"),
        (BOMB.encode("utf-16"), "document type"),
        (b"", "no XML: no element found"),
        (b"<annotation>", "no XML"),
        (b"<annotation>&x;</annotation>", "no XML: undefined entity"),
        (b"<html></html>", "<html>; wanted <annotation>"),
        (b"<annotation>" + b"<a>" * 20, "over 16 elements deep"),
        (b"<?xml version='1.0' encoding='klingon'?><annotation/>", "encoding"),
        (b"<?xml version='1.0' encoding='shift_jis'?><annotation/>", "encoding"),
        (b"<annotation>" + b"<object/>" * 10_001, "over 10,000 objects"),
    ],
)
def test_xml_that_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(LabelError, match=cause) as error:
        voc.read_marks(data)
    assert "\n" not in str(error.value)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: f"<annotation>{text}</annotation>".encode()))
def test_any_bytes_are_read_as_xml_or_refused(data: bytes) -> None:
    try:
        voc.read_marks(data)
    except LabelError as error:
        assert len(str(error).splitlines()) == 1


FRAGMENTS = [
    "<object>", "</object>", "<name>a</name>", "<bndbox>", "</bndbox>", "<xmin>1</xmin>", "<ymin>nan</ymin>",
    "<xmax>9</xmax>", "<ymax>9</ymax>", "<size><width>4</width></size>", "<part>", "</part>", "&lt;", "x",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=20))
def test_any_order_of_the_right_elements(pieces: list[str]) -> None:
    try:
        found = voc.read_marks(f"<annotation>{''.join(pieces)}</annotation>".encode())
    except LabelError:
        return
    assert len(found.names) == len(found.corners) == len(found.hard)
    assert len(found.names) + len(found.left_out) <= pieces.count("<object>")


WHOLE = st.integers(0, 60)
BOXES = st.lists(
    st.tuples(st.sampled_from(CLASSES), WHOLE, WHOLE, st.integers(2, 60), st.integers(2, 60)).map(
        lambda box: (box[0], box[1], box[2], box[1] + box[3], box[2] + box[4])
    ),
    max_size=6,
)


@given(BOXES)
def test_boxes_survive_each_format(boxes: list[tuple[str, int, int, int, int]]) -> None:
    wanted = [tuple(map(float, box[1:])) for box in boxes]
    names = tuple(box[0] for box in boxes)
    from_voc = voc.read_marks(xml(boxes, 128, 128).encode())
    (image,) = coco.read_document(json.dumps(document({"a.png": boxes}, CLASSES, 128, 128)).encode()).images
    from_yolo = yolo.read_marks(yolo_lines(boxes, CLASSES, 128, 128).split("\n"), CLASSES)
    assert corners(from_voc) == corners(image.marks) == wanted
    assert from_voc.names == image.marks.names == from_yolo.names == names
    for row, box in zip(corners(from_yolo), wanted, strict=True):
        assert [128 * share for share in row] == pytest.approx(box, abs=1e-4)


# ------------------------------------------------------------------------------------------------------------- COCO


def test_a_coco_document() -> None:
    text = document({"a.png": [("dot", 1, 2, 4, 8)], "b.png": []}, CLASSES)
    text["annotations"].append({"image_id": 1, "category_id": 1, "bbox": [0.5, 0, 2, 2], "iscrowd": 1,
                                "segmentation": {"counts": [1, 2], "size": [30, 40]}})  # fmt: skip
    text["annotations"].append({"image_id": 77, "category_id": 1, "bbox": [0, 0, 2, 2]})
    found = coco.read_document(json.dumps(text).encode())
    first, second = found.images
    assert (first.name, corners(first.marks), first.marks.names) == ("a.png", [(1, 2, 4, 8)], ("dot",))
    assert (corners(second.marks), second.marks.hard.tolist()) == ([(0.5, 0, 2.5, 2)], [True])
    assert (second.marks.height, second.marks.width) == (30, 40)
    assert found.astray == ("1 annotations of the unknown image 77",)


def test_classes_are_in_the_order_of_their_ids() -> None:
    text = document({"a.png": []}, CLASSES)
    text["categories"] = [{"id": 90, "name": "z"}, {"id": 7, "name": "b"}, {"id": 11, "name": "a"}]
    assert coco.read_document(json.dumps(text).encode()).classes == ("b", "a", "z")


def test_a_first_category_that_only_names_the_whole_is_no_class() -> None:
    text = document({"a.png": []}, CLASSES)
    whole = [{"id": 0, "name": "cells", "supercategory": "none"}]
    text["categories"] = [*whole, {"id": 1, "name": "dot", "supercategory": "cells"}]
    assert coco.read_document(json.dumps(text).encode()).classes == ("dot",)
    text["categories"] = whole
    assert coco.read_document(json.dumps(text).encode()).classes == ("cells",)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"category_id": 9}, "unknown category 9"),
        ({"category_id": None}, "unknown category None"),
        ({"bbox": None}, "dot: a bbox that is no list"),
        ({"bbox": [1, 2, 3]}, "no list of four"),
        ({"bbox": [1, 2, 3, "4"]}, "no list of four"),
        ({"bbox": [1, 2, 3, True]}, "no list of four"),
        ({"bbox": [1, 2, 3, 10**40]}, "no list of four"),
    ],
)
def test_coco_annotations_that_are_no_boxes(change: dict[str, Any], cause: str) -> None:
    text = document({"a.png": [("dot", 1, 2, 4, 8), ("cell", 1, 2, 4, 8)]}, CLASSES)
    text["annotations"][0].update(change)
    (image,) = coco.read_document(json.dumps(text).encode()).images
    assert image.marks.names == ("cell",)
    assert len(image.marks.left_out) == 1
    assert cause in image.marks.left_out[0]


def changed(**change: Any) -> bytes:
    return json.dumps({**document({"a.png": [("dot", 1, 2, 4, 8)]}, CLASSES), **change}).encode()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"images": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deep"),
        (b'{"images": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[]", "without images, annotations and categories"),
        (b"{}", "without a list of images"),
        (changed(annotations={}), "without a list of annotations"),
        (changed(categories=None), "without a list of categories"),
        (changed(categories=[]), "0 categories; wanted 1"),
        (changed(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "two categories are called 'a'"),
        (changed(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "two categories have the id 1"),
        (changed(categories=[{"id": True, "name": "a"}]), "entry 0 of categories lacks an id"),
        (changed(images=[{"id": 1}]), "entry 0 of images lacks an id or a file_name"),
        (changed(images=["a.png"]), "entry 0 of images lacks"),
        (changed(annotations=[{"bbox": [1, 2, 3, 4]}]), "annotation 0 has no image_id"),
        (changed(annotations=[3]), "annotation 0 has no image_id"),
        (changed(annotations=[{"image_id": 0, "category_id": 1, "bbox": [1, 1, 2, 2]}] * 10_001), "over 10,000 boxes"),
    ],
)  # fmt: skip
def test_json_that_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(LabelError, match=cause) as error:
        coco.read_document(data)
    assert "\n" not in str(error.value)


def test_json_of_too_many_lists_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "MAX_PARTS", 10)
    with pytest.raises(LabelError, match="over 10 lists and objects"):
        coco.read_document(b"[" * 11)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["id", "image_id", "category_id", "bbox", "name", "file_name", "width", "height", "iscrowd", "supercategory"]
    ), inner, max_size=6), max_leaves=12,
)  # fmt: skip


@given(st.fixed_dictionaries({}, optional={key: VALUES for key in ("images", "annotations", "categories")}))
def test_any_json_is_read_or_refused(text: dict[str, Any]) -> None:
    base = document({"a.png": [("dot", 1, 2, 4, 8)]}, CLASSES)
    try:
        found = coco.read_document(json.dumps({**base, **text}).encode())
    except LabelError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert all(len(image.marks.names) == len(image.marks.corners) for image in found.images)


# ------------------------------------------------------------------------------------------------------------- YOLO


def test_lines_of_yolo() -> None:
    found = yolo.read_marks(["1 0.5 0.5 0.5 0.25", "", "0 0 0 1 0 0.5 1"], CLASSES)
    assert corners(found) == [(0.25, 0.375, 0.75, 0.625), (0, 0, 1, 1)]
    assert (found.names, found.shares) == (("dot", "cell"), True)
    assert yolo.read_marks(["12 0.5 0.5 0.1 0.1"], None).names == ("12",)
    assert yolo.read_marks([], CLASSES).names == ()


@pytest.mark.parametrize("index", ["2", "-1", "0.5", "nan", "inf"])
def test_classes_that_yolo_does_not_know(index: str) -> None:
    found = yolo.read_marks(["0 .5 .5 .1 .1", f"{index} .5 .5 .1 .1"], CLASSES)
    assert found.left_out == (f"line 2: the unknown class {index}; known: 0 to 1",)
    assert found.names == ("cell",)


def test_outlines_with_points_that_are_no_numbers() -> None:
    assert all(map(math.isnan, corners(yolo.read_marks(["0 nan 0 1 0 1 1"], CLASSES))[0]))


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["0 .5 .5 .1"], "line 1 has 4 values; wanted a class"),
        (["0 .5 .5 .1 .1", "0 .5 .5 .1 .1 .9"], "line 2 has 6 values"),
        (["one two three four five"], "line 1 has values that are no numbers"),
        (["0 .5 .5 .1 .1"] * 10_001, "over 10,000 lines"),
    ],
)
def test_lines_that_are_refused(lines: list[str], cause: str) -> None:
    with pytest.raises(LabelError, match=cause):
        yolo.read_marks(lines, CLASSES)


@given(st.lists(st.text(alphabet="0123456789.-+einfa \t\r", max_size=30) | st.text(max_size=10), max_size=4))
def test_any_lines_are_read_or_refused(lines: list[str]) -> None:
    for names in (CLASSES, None):
        try:
            found = yolo.read_marks(lines, names)
        except LabelError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert len(found.names) == len(found.corners)


SPELLINGS = [
    "names: [a, 'b c', \"d\"]",
    "names: ['a', \"b c\", d]  # three",
    "names:\n- a\n- b c\n- 'd'\nnc: 3",
    "nc: 3\nnames:\n  - a  # the first\n  - 'b c'\n\n  - d\n",
    'names:\n  0: a\n  1: b c\n  2: "d"\n',
    "names:\n  2: d\n  0: a\n  1: 'b c'\n",
    "names: {0: a, 1: 'b c', 2: d}",
    "names: [\n  a,\n  b c,  # twice\n  d,\n]\n",
    "\ufeff# a comment\r\npath: ../x\r\nnames: [ a , b c , d ]\r\n",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings_of_names(text: str) -> None:
    assert read_settings(text.encode()).names == ("a", "b c", "d")


def test_what_else_a_data_yaml_says() -> None:
    text = "train: ../train/images\nval: 'valid/images'  # here\ntest:\n  - a/test\n  - b#1/test\nnames: ['it''s']\n"
    wanted = {"train": ("../train/images",), "val": ("valid/images",), "test": ("a/test", "b#1/test")}
    assert read_settings(text.encode()) == Settings(("it's",), wanted)
    assert read_settings(b"version: 1\nother: {a: 1}\n") == Settings()
    assert read_settings(b"train:\nnames:\n") == Settings((), {"train": ()})


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("names: [a, b]\nnc: 3", "nc is 3 and there are 2 names"),
        ("names: {0: a, 2: b}", "not numbered from 0 to 1"),
        ("names:\n  0: a\n  x: b\n", "not numbered"),
        ("names: &anchor", "a form that is not read"),
        ("names: [[a], b]", "a form that is not read"),
        ("names: {a, b}", "a form that is not read"),
        ("names: ['a' b]", "a form that is not read"),
        ("names:\n  - a\n  1: b\n", "a form that is not read"),
    ],
)
def test_names_that_are_refused(text: str, cause: str) -> None:
    with pytest.raises(LabelError, match=cause):
        read_settings(text.encode())


def test_yaml_that_is_no_text() -> None:
    with pytest.raises(LabelError, match="no UTF-8 text at byte 0"):
        read_settings(b"\xff")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
                .filter(lambda word: "'" not in word), max_size=5))  # fmt: skip
def test_any_quoted_names_come_back(names: list[str]) -> None:
    text = f"names: [{', '.join(repr_of(name) for name in names)}]"
    assert read_settings(text.encode()).names == tuple(names)
    block = "names:\n" + "".join(f"  {number}: {repr_of(name)}\n" for number, name in enumerate(names))
    assert read_settings(block.encode()).names == tuple(names)


def repr_of(word: str) -> str:
    return f"'{word}'"


@given(st.text(alphabet="names:[]{},'\"# \n-01ab", max_size=60))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    try:
        read_settings(f"names:{text}".encode())
    except LabelError as error:
        assert len(str(error).splitlines()) == 1


# ---------------------------------------------------------------------------------------------- layouts of folders


def pictures(root: Path, *names: str) -> None:
    for name in names:
        write(root / name, b"")


def test_layouts_are_told_by_names_and_beginnings(tmp_path: Path) -> None:
    write(tmp_path / "voc" / "Annotations" / "a.xml", xml([]))
    write(tmp_path / "coco" / "annotations" / "instances_train2017.json", json.dumps(document({}, CLASSES)))
    write(tmp_path / "yolo" / "labels" / "a.txt", "")
    write(tmp_path / "none" / "notes.txt", "hello")
    write(tmp_path / "none" / "a.xml", "<svg/>")
    write(tmp_path / "none" / "a.json", "{}")
    for name in ("voc", "coco", "yolo"):
        pictures(tmp_path / name, "images/a.png")
        assert list(annotations.find(tree_of(tmp_path / name))) == [name]
    pictures(tmp_path / "none", "a.png")
    assert annotations.find(tree_of(tmp_path / "none")) == {}


def test_where_folders_read_as_classes_only_what_is_meant_counts(tmp_path: Path) -> None:
    pictures(tmp_path, "cat/a.png", "dog/b.png")
    write(tmp_path / "cat" / "a.xml", xml([]))
    write(tmp_path / "cat" / "a.txt", "0 .5 .5 .1 .1")
    write(tmp_path / "cat" / "a.json", json.dumps(document({}, CLASSES)))
    assert annotations.find(tree_of(tmp_path, classes=True)) == {}
    assert list(annotations.find(tree_of(tmp_path))) == ["voc", "yolo"]
    write(tmp_path / "obj.names", "a\n")
    assert list(annotations.find(tree_of(tmp_path, classes=True))) == ["yolo"]
    write(tmp_path / "all.json", json.dumps(document({}, CLASSES)))
    assert list(annotations.find(tree_of(tmp_path, classes=True))) == ["coco", "yolo"]


def test_many_json_files_are_one_a_picture(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png")
    for number in range(65):
        write(tmp_path / f"{number}.json", json.dumps(document({}, CLASSES)))
    assert annotations.find(tree_of(tmp_path)) == {}


@pytest.mark.parametrize(
    ("picture", "file"),
    [("a.png", "a.xml"), ("JPEGImages/a.png", "Annotations/a.xml"), ("images/a.png", "annotations/xmls/a.xml"),
     ("train/a.png", "train/a.xml"), ("x/images/a.png", "x/a.xml"), ("photos/a.png", "annotations/a.xml")],
)  # fmt: skip
def test_places_of_voc(tmp_path: Path, picture: str, file: str) -> None:
    pictures(tmp_path, picture)
    write(tmp_path / file, xml([("dot", 1, 1, 5, 5)]))
    (one,) = labels_of(tmp_path).pictures
    assert isinstance(one.marks, Marks)
    assert one.marks.names == ("dot",)


def test_pictures_of_one_name_in_two_parts_have_their_own_labels(tmp_path: Path) -> None:
    for part, name in (("train", "dot"), ("valid", "cell")):
        pictures(tmp_path, f"{part}/images/a.png")
        write(tmp_path / part / "labels" / "a.txt", f"{CLASSES.index(name)} .5 .5 .1 .1")
    pictures(tmp_path, "train/images/b.png")
    write(tmp_path / "valid" / "labels" / "b.txt", "")
    write(tmp_path / "data.yaml", "names: [cell, dot]\ntrain: ../train/images\nval: ../valid/images\n")
    labels = labels_of(tmp_path)
    assert [(one.part, one.marks.names) for one in labels.pictures if isinstance(one.marks, Marks)] == [
        ("train", ("dot",)), ("val", ("cell",))
    ]  # fmt: skip
    assert [path.name for path in labels.unlabelled] == ["b.png"]
    assert labels.missing == ("valid/labels/b.txt",)


def test_labels_that_fit_two_pictures_and_pictures_with_two_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png", "a.png", "b.png")
    write(tmp_path / "annotations" / "a.xml", xml([]))
    write(tmp_path / "annotations" / "b.xml", xml([]))
    write(tmp_path / "b.xml", xml([]))
    causes = [one.marks for one in labels_of(tmp_path).pictures]
    assert "annotations/a.xml is for 2 pictures: a.png, images/a.png" in causes
    assert "2 label files are for it: annotations/b.xml, b.xml" in causes


def test_labels_of_another_place_are_not_taken(tmp_path: Path) -> None:
    pictures(tmp_path, "images/one/a.png", "images/two/a.png", "images/one/b.png", "images/photos/c.png")
    for name in ("two/a", "two/b", "c"):
        write(tmp_path / "labels" / f"{name}.txt", "0 .5 .5 .1 .1")
    labels = labels_of(tmp_path)
    assert [tree_of(tmp_path).show(one.path) for one in labels.pictures] == ["images/photos/c.png", "images/two/a.png"]
    assert [path.name for path in labels.unlabelled] == ["a.png", "b.png"]
    assert labels.missing == ("labels/two/b.txt",)


def test_parts_by_voc_lists(tmp_path: Path) -> None:
    for name in "abcde":
        pictures(tmp_path, f"JPEGImages/{name}.png")
        write(tmp_path / "Annotations" / f"{name}.xml", xml([]))
    sets = tmp_path / "ImageSets" / "Main"
    write(sets / "train.txt", "a\nb\r\n\n")
    write(sets / "trainval.txt", "a\nb\nc\n")
    write(sets / "val.txt", "c\nghost\n")
    write(sets / "test.txt", "d\nb\n")
    write(sets / "dot_train.txt", "e  1\n")
    labels = labels_of(tmp_path)
    assert parts_of(labels) == {"a.png": "train", "b.png": "test", "c.png": "val", "d.png": "test"}
    assert [path.name for path in labels.partless] == ["e.png"]
    assert labels.missing == ("ghost in ImageSets/Main/val.txt",)
    (sets / "train.txt").unlink()
    assert parts_of(labels_of(tmp_path)) == {"a.png": "train", "b.png": "test", "c.png": "train", "d.png": "test"}
    write(sets / "trainval.txt", b"\xff")
    with pytest.raises(DataError, match=r"trainval.txt: no UTF-8 text at byte 0; wanted a name of a picture a line"):
        labels_of(tmp_path)


def test_one_part_alone_is_none(tmp_path: Path) -> None:
    pictures(tmp_path, "images/train/a.png", "images/train/b.png")
    for name in "ab":
        write(tmp_path / "labels" / "train" / f"{name}.txt", "")
    write(tmp_path / "classes.txt", "cell\n")
    assert parts_of(labels_of(tmp_path)) == {"a.png": None, "b.png": None}


def test_pictures_beside_the_folders_of_parts_are_in_none(tmp_path: Path) -> None:
    for folder in ("train", "val", "more"):
        pictures(tmp_path, f"images/{folder}/{folder}.png")
        write(tmp_path / "labels" / folder / f"{folder}.txt", "")
    write(tmp_path / "data.yaml", "names: [a]\ntrain: images/train\n")
    labels = labels_of(tmp_path)
    assert parts_of(labels) == {"train.png": "train", "val.png": "val"}
    assert [path.name for path in labels.partless] == ["more.png"]


def test_parts_of_coco(tmp_path: Path) -> None:
    for part, name in (("train2017", "a"), ("val2017", "b")):
        pictures(tmp_path, f"images/{part}/{name}.png", f"images/{part}/same.png")
        text = document({f"{name}.png": [], "same.png": []}, CLASSES)
        write(tmp_path / "annotations" / f"instances_{part}.json", json.dumps(text))
        write(tmp_path / "annotations" / f"captions_{part}.json", json.dumps(text))
    labels = labels_of(tmp_path)
    found = {"/".join(one.path.parts[-2:]): one.part for one in labels.pictures}
    assert found == {"train2017/a.png": "train", "train2017/same.png": "train",
                     "val2017/b.png": "val", "val2017/same.png": "val"}  # fmt: skip
    assert labels.missing == ()


def test_coco_files_beside_their_pictures(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        pictures(tmp_path, f"{part}/a.png")
        write(tmp_path / part / "_annotations.coco.json", json.dumps(document({"a.png": []}, CLASSES)))
    assert [(one.path.parent.name, one.part) for one in labels_of(tmp_path).pictures] == [
        ("train", "train"), ("valid", "val")
    ]  # fmt: skip


def test_one_coco_file_for_all_with_paths_of_another_machine(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    text = document({"C:\\data\\images\\a.png": [], "/elsewhere/b.png": [], "ghost.png": [], "../b.png": []}, CLASSES)
    write(tmp_path / "labels.json", json.dumps(text))
    labels = labels_of(tmp_path)
    assert parts_of(labels) == {"a.png": None, "b.png": None}
    assert [path.name for path in labels.unlabelled] == ["c.png"]
    assert labels.missing == ("ghost.png in labels.json", "../b.png, which has labels already, in labels.json")


def test_coco_names_that_may_mean_two_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "one/a.png", "two/a.png")
    write(tmp_path / "all.json", json.dumps(document({"two/a.png": [], "a.png": []}, CLASSES)))
    labels = labels_of(tmp_path)
    assert [one.path.parent.name for one in labels.pictures] == ["two"]
    assert labels.missing == ("a.png in all.json",)


def test_coco_files_that_contradict_each_other(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png")
    write(tmp_path / "one.json", json.dumps(document({"a.png": []}, CLASSES)))
    write(tmp_path / "two.json", json.dumps(document({"a.png": []}, CLASSES)))
    with pytest.raises(DataError, match=r"one.json and two.json are both for one set; wanted one COCO file for each"):
        labels_of(tmp_path)
    (tmp_path / "one.json").rename(tmp_path / "train.json")
    write(tmp_path / "val.json", json.dumps(document({}, CLASSES)))
    with pytest.raises(DataError, match=r"two.json is for no part; wanted one COCO file for each"):
        labels_of(tmp_path)
    (tmp_path / "two.json").unlink()
    write(tmp_path / "val.json", json.dumps(document({}, ["other"])))
    with pytest.raises(DataError, match=r"train.json and val.json have other categories; wanted the same"):
        labels_of(tmp_path)
    write(tmp_path / "val.json", b'{"images": [')
    with pytest.raises(DataError, match=r"val.json: no JSON.*; wanted COCO's images, annotations and categories"):
        labels_of(tmp_path)


def test_parts_by_lists_of_paths(tmp_path: Path) -> None:
    pictures(tmp_path, "obj/a.png", "obj/b.png", "obj/c.png")
    for name in "abc":
        write(tmp_path / "obj" / f"{name}.txt", "0 .5 .5 .1 .1")
    write(tmp_path / "obj.names", "cell\n\n")
    write(tmp_path / "train.txt", "data/obj/a.png\ndata/obj/ghost.png\n")
    write(tmp_path / "test.txt", "data/obj/b.png\n")
    labels = labels_of(tmp_path)
    assert parts_of(labels) == {"a.png": "train", "b.png": "test"}
    assert [path.name for path in labels.partless] == ["c.png"]
    assert labels.missing == ("data/obj/ghost.png in train.txt",)
    assert labels.classes == ("cell",)
    pictures(tmp_path, "more/a.png")
    write(tmp_path / "train.txt", "a.png\n")
    assert "a.png in train.txt" in labels_of(tmp_path).missing
    write(tmp_path / "test.txt", b"\0")
    with pytest.raises(DataError, match=r"test.txt: no text: it holds zero bytes; wanted a path of a picture a line"):
        labels_of(tmp_path)


def test_parts_by_what_data_yaml_says(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        pictures(tmp_path, f"images/{folder}/{folder}.png")
        write(tmp_path / "labels" / folder / f"{folder}.txt", "")
    yaml = write(tmp_path / "data.yaml", "names: [a]\npath: ../x\ntrain: images/first\nval: images/second\n")
    assert parts_of(labels_of(tmp_path)) == {"first.png": "train", "second.png": "val"}
    write(yaml, "names: [a]\ntrain: images/first\nval: images/first\n")  # one folder for both is no split
    assert parts_of(labels_of(tmp_path)) == {"first.png": None, "second.png": None}
    write(yaml, "names: [a]\ntrain: first2026.txt\nval: second2026.txt\n")
    write(tmp_path / "first2026.txt", "./images/first/first.png\n")
    write(tmp_path / "second2026.txt", "./images/second/second.png\n")
    assert parts_of(labels_of(tmp_path)) == {"first.png": "train", "second.png": "val"}


def test_names_of_yolo(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png")
    write(tmp_path / "labels" / "a.txt", "3 .5 .5 .1 .1")
    assert labels_of(tmp_path).classes == ("0", "1", "2", "3")
    write(tmp_path / "labels" / "classes.txt", "a\nb\nc\nd\n")
    assert labels_of(tmp_path).classes == ("a", "b", "c", "d")
    write(tmp_path / "any.names", "e\nf\ng\nh\n")
    assert labels_of(tmp_path).classes == ("e", "f", "g", "h")
    write(tmp_path / "data.yaml", "names: [i, j, k, l]")
    assert labels_of(tmp_path).classes == ("i", "j", "k", "l")
    for text, cause in (("names: [a, a]", "2 classes are called 'a'"), ("names: ['', b]", "a class without a name"),
                        ("names: x", "a form that is not read")):  # fmt: skip
        write(tmp_path / "data.yaml", text)
        with pytest.raises(DataError, match=f"data.yaml: .*{cause}"):
            labels_of(tmp_path)


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_too_many_classes(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr({"voc": voc, "coco": coco, "yolo": yolo}[layout], "MAX_CLASSES", 1)
    pictures(tmp_path, "images/a.png")
    if layout == "voc":
        write(tmp_path / "annotations" / "a.xml", xml([("a", 1, 1, 5, 5), ("b", 1, 1, 5, 5)]))
    elif layout == "coco":
        write(tmp_path / "all.json", json.dumps(document({"a.png": []}, CLASSES)))
    else:
        write(tmp_path / "labels" / "a.txt", "")
        write(tmp_path / "classes.txt", "a\nb\n")
    with pytest.raises(DataError, match=r"2 cla|2 categories"):
        labels_of(tmp_path)


# -------------------------------------------------------------------------------------------------- files themselves


def test_label_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        pictures(tmp_path, f"images/{name}.png")
    write(tmp_path / "labels" / "a.txt", "0 .5 .5 .1 .1")
    os.mkfifo(tmp_path / "labels" / "b.txt")
    (tmp_path / "labels" / "c.txt").symlink_to(tmp_path / "gone")
    write(tmp_path / "labels" / "d.txt", "0 " * 100)
    monkeypatch.setattr(yolo, "MAX_BYTES", 50)
    marks = {one.path.stem: one.marks for one in labels_of(tmp_path).pictures}
    assert isinstance(marks.pop("a"), Marks)
    assert marks == {
        "b": "its labels labels/b.txt: not a regular file",
        "c": "its labels labels/c.txt: no such file",
        "d": "its labels labels/d.txt: 200 bytes; at most 50 are read",
    }


def test_files_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.txt", "x")

    def deny(*_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    monkeypatch.setattr(Path, "open", deny)
    for read in (lambda: tree.read_file(file, 10), lambda: tree.read_start(file)):
        with pytest.raises(LabelError, match="Permission denied"):
            read()
    with pytest.raises(LabelError, match="not a regular file"):
        tree.read_start(tmp_path)


def test_part_names() -> None:
    for name, part in {"train2017": "train", "Valid": "val", "obj_test_data": "test", "training": "train",
                       "instances_val2017": "val", "latest": None, "trains": None, "": None}.items():  # fmt: skip
        assert tree.part_of([name]) == part
    assert tree.part_of(["a", "val", "test"]) == "val"
