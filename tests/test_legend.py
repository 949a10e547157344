"""Files that name the classes of masks: the usual spellings, and anything."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.annotations import Entry, Tree, find_legend
from featherweight.annotations.legend import read
from featherweight.errors import DataError, LabelError
from tests.boxed import write

SKY, ROAD = Entry("Sky", None, (128, 128, 128)), Entry("Road Marking", None, (128, 64, 128))


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nSky,128,128,128\nRoad Marking,128,64,128\n",
        "\ufeffr;g;b;class;extra\n128;128;128;Sky;1\n128;64;128;Road Marking;0",
        "Sky,128,128,128\r\nRoad Marking,128,64,128",
        "128 128 128\tSky\n128 64 128\t\tRoad Marking\n\n",
        "# label:color_rgb:parts:actions\nSky:128,128,128::\nRoad Marking:128,64,128::",
    ],
)
def test_names_and_colours(text: str) -> None:
    assert read(text.encode(), ".txt") == (SKY, ROAD)


@pytest.mark.parametrize(
    ("plain", "entries"),
    [
        ({"Sky": [128, 128, 128], "Road Marking": [128, 64, 128]}, (SKY, ROAD)),
        ([{"name": "Sky", "color": [128, 128, 128], "id": 4}], (Entry("Sky", 4, (128, 128, 128)),)),
        ({"0": "background", "7": "car"}, (Entry("background", 0), Entry("car", 7))),
        ({"classes": {"road": 1}}, (Entry("road", 1),)),
        (["a", "b"], (Entry("a"), Entry("b"))),
    ],
)
def test_json(plain: object, entries: tuple[Entry, ...]) -> None:
    assert read(json.dumps(plain).encode(), ".json") == entries


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("0 background\n1: traffic light\n", (Entry("background", 0), Entry("traffic light", 1))),
        ("name,value\nroad,3\nvoid,0", (Entry("road", 3), Entry("void", 0))),
        ("road, 3\nsky, 4", (Entry("road", 3), Entry("sky", 4))),
        ("cat\nclass 2\n\nand 255 is not asked for", (Entry("cat"), Entry("class 2"))),
    ],
)
def test_names_and_values(text: str, entries: tuple[Entry, ...]) -> None:
    assert read(text.encode(), ".txt") == entries
    assert [one.ignored for one in read(text.encode(), ".txt")] == [one.name == "void" for one in entries]


@pytest.mark.parametrize(
    ("data", "suffix", "line"),
    [
        (b"\xff\xfe", ".txt", "no UTF-8 text at byte 0"),
        (b"a\0b", ".txt", "no text: it holds zero bytes"),
        (b"", ".txt", "0 classes"),
        (b"a\n" * 5000, ".txt", "4097 classes"),
        (b"name,r,g,b\nSky,1,2", ".csv", "line 2 has 3 columns; wanted 4"),
        (b"name,r,g,b\nSky,1,2,256", ".csv", "'256' where a number of 0 to 255 belongs"),
        (b"name,value\nSky,-1", ".csv", "'-1' where a number"),
        (b"name,value\n,1", ".csv", "a class without a name"),
        (b"name,value\nSky,1\nSky,2", ".csv", "two classes are called Sky"),
        (b"name,value\nSky,1\nRoad,1", ".csv", "two classes have the value 1"),
        (b"Sky 1 2 3\nRoad 1 2 3", ".txt", r"two classes have the colour \(1, 2, 3\)"),
        (b'name,value\n"' + b"a" * 200_000 + b'",1', ".csv", "no table: field larger"),
        (b"{", ".json", "no JSON"),
        (b"[" * 100_000, ".json", "nested too deep"),
        (b"3", ".json", "JSON that is no list and no object"),
        (b"[3]", ".json", "an entry without a name"),
        (b'{"a": [1, 2]}', ".json", "a colour that is no three numbers"),
        (b'{"a": true}', ".json", "'True' where a number"),
        (b'{"x": "a"}', ".json", "'x' where a number"),
    ],
)
def test_bad_legends(data: bytes, suffix: str, line: str) -> None:
    with pytest.raises(LabelError, match=line):
        read(data, suffix)


@given(st.text(max_size=60) | st.text('0123456789 ,;:\tab\n"', max_size=60), st.sampled_from([".txt", ".json"]))
def test_any_text_is_a_legend_or_one_line(text: str, suffix: str) -> None:
    try:
        entries = read(text.encode(errors="surrogatepass"), suffix)
        assert entries and all(one.name for one in entries)
    except LabelError as error:
        assert "\n" not in str(error)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=5), some, max_size=4),
)


@given(PLAIN)
def test_any_json_is_a_legend_or_one_line(plain: object) -> None:
    try:
        read(json.dumps(plain).encode(), ".json")
    except LabelError as error:
        assert "\n" not in str(error)


def tree(root: Path, **files: str) -> Tree:
    others = tuple(write(root / name.replace("__", "."), text) for name, text in files.items())
    return Tree(root, (), others)


def test_which_file_is_the_legend(tmp_path: Path) -> None:
    assert find_legend(tree(tmp_path, readme__txt="x", train__txt="7")) is None
    found = find_legend(tree(tmp_path, classes__txt="a\nb", legend__csv="name,r,g,b\nSky,128,128,128"))
    assert found is not None and found.file == "legend.csv" and found.coloured and not found.valued
    found = find_legend(tree(tmp_path, pascal_labels__txt="a\nb"))
    assert found is not None and [one.name for one in found.entries] == ["a", "b"]
    with pytest.raises(DataError, match=r"x_labels.txt and y_labels.txt in .* could both name the classes"):
        find_legend(tree(tmp_path, x_labels__txt="a\nb", y_labels__txt="c"))
    with pytest.raises(DataError, match=r"legend.json: no JSON: .*; wanted the classes of masks, as name,r,g,b lines"):
        find_legend(tree(tmp_path, legend__json="{"))
