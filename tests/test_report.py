"""What people read: complete, self-contained, and never a number that was not measured."""

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.budget import Budget, parse_budget
from featherweight.errors import BudgetError, OutputError, RecordError
from featherweight.record import BY_KEY, OPTIONAL, QUANTITIES, Record, append_record
from featherweight.report import Comparison, card, compare, markdown, page, plot, show, table
from featherweight.report.figure import (
    BOTTOM,
    LARGEST_DOT,
    LEFT,
    LONGEST_NAME,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    SMALLEST_DOT,
    TOP,
)
from featherweight.report.text import COLUMNS
from tests.make import make_record

HOSTILE = "<img src=x onerror=alert(1)>\"'&|[bold]:smile:"


def record_of(name: str, latency: float, hits: int, size: float | None, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "name": name,
        "latency_p50_ms": latency,
        "latency_p50_interval_ms": (latency * 0.95, latency * 1.05),
        "accuracy": hits / 100,
        "accuracy_interval": (max(0, hits - 6) / 100, min(100, hits + 4) / 100),
        "size_bytes": size,
        **changes,
    }
    return make_record(**fields)


EIGHT = (
    record_of("v1-96-int8", 0.42, 86, 320_000),
    record_of("v1-96-int8", 0.33, 86, 321_000, threads=2),
    record_of("v1-96-float32", 0.61, 87, 930_000, warnings=("others kept 30 % of the cores busy",)),
    record_of("v1-128-int8", 1.9, 93, 1_400_000),
    record_of("shuffle-128-float32", 3.4, 94, 5_400_000),
    record_of("squeeze-160-int8", 4.1, 90, 800_000, energy_mj=None, missing={"energy_mj": "no meter on this board"}),
    record_of("v2-160-float32", 9.8, 97, 9_100_000),
    record_of("resnet18-224-float32", 38, 98, 46_000_000),
)
# Forty that crowd each other, by arithmetic instead of chance.
FORTY = tuple(
    record_of(f"net-{i}-int8", 0.3 * 1.12**i * (1 + i * 7 % 5 / 10), 50 + i, 200_000 * 1.1 ** (i * 3 % 40))
    for i in range(40)
)
ONES = tuple(record_of(f"net-{i}", 1 + i / 4, 100, 300_000 * (i + 1), accuracy_interval=(0.98, 1.0)) for i in range(5))
SAME = tuple(
    record_of("net", 1.0, 90, 1000.0, seed=i, latency_p50_interval_ms=None, accuracy_interval=None) for i in (1, 2)
)
SETS = {"eight": EIGHT, "one": EIGHT[:1], "forty": FORTY, "ones": ONES, "same": SAME}
EACH_SET = pytest.mark.parametrize("records", SETS.values(), ids=SETS)


DOUBTFUL = record_of(
    "v1-96-float32",
    0.61,
    87,
    930_000,
    precision="float32",
    compute_precision="bfloat16",
    unstable=("other programs kept 40 % of the cores busy", "the clock fell"),
    quick=True,
    findings=("slower than the float file",),
    environment={"before": dict.fromkeys("abcde", 1), "after": dict.fromkeys("abcde", 2)},
    energy_mj=None,
    energy_method=None,
    energy_estimate={"method": "estimated:power-given", "mj_per_inference": 7.5},
    missing={"energy_mj": "no meter"},
    samples="records.samples/0123456789abcdef.npz",
)
OTHERS = tuple(
    replace(record, device_id="ffffffffffff", device={"name": "Big PC", "cores": 16}, accuracy=0.99)
    for record in EIGHT[:3]
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and whether each is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "polyline"):
            assert self.open.pop() == tag

    def close(self) -> None:
        super().close()
        assert self.open == []


def drawn(records: Comparison) -> ET.Element:
    return ET.fromstring(plot(records))


def circles(records: Comparison) -> dict[str, ET.Element]:
    """Hover text → dot."""
    return {circle[0].text or "": circle for circle in drawn(records).iter("circle")}


# --------------------------------------------------------------------------------------------------------- page


@EACH_SET
def test_the_page_asks_for_nothing(records: tuple[Record, ...]) -> None:
    text = page(compare(records, "latency_p50=5ms"), parse_budget("latency_p50=5ms"))
    assert not re.search(r"https?:|//|url\(|@import|<script|javascript:", text)
    words = (
        "html head meta title style body h1 h2 p small span div table thead tbody tr th td details summary pre strong"
    )
    allowed = {*words.split(), "svg", "line", "text", "circle", "polyline"}
    for tag, attributes in Elements(text).found:
        assert tag in allowed
        assert not {name for name in attributes if name in ("src", "href", "srcset", "style") or name.startswith("on")}
    assert "default-src 'none'" in text


@EACH_SET
def test_every_record_is_in_the_page(records: tuple[Record, ...]) -> None:
    text = page(compare(records), Budget())
    ids = [attributes["id"] for tag, attributes in Elements(text).found if tag == "details"]
    assert sorted(map(str, ids)) == sorted(record.id for record in records)
    for record in records:
        assert text.count(f"<td>{record.id}</td>") == 1
        assert text.count(f"<summary>{record.id} · ") == 1
        assert all(text.count(f"; command: {record.settings['command']}.") == len(records) for record in records)


def test_what_the_page_says_of_a_record() -> None:
    text = page(compare(EIGHT, "latency_p50=1ms"), parse_budget("latency_p50=1ms"))
    assert "8 records on Testboard 5, 4 cores (0123456789ab). Budget: latency_p50&lt;=1.00 ms." in text
    assert "Warning: others kept 30 % of the cores busy." in text
    assert "No energy per inference: no meter on this board." in text
    assert "700 runs (at least 100 and 10.0 s) after a warm-up of at least 10 runs and 1.0 s" in text
    assert "Accuracy: 160 pictures of test (data feedc0de)" in text
    assert text.count(">fits</td>") == sum((record.latency_p50_ms or 0) <= 1 for record in EIGHT)
    assert "p50 latency is 9.80 ms; wanted &lt;= 1.00 ms" in text
    assert text.count('<tr class="on">') == len(compare(EIGHT).front)
    assert "1 record on" in page(compare(EIGHT[:1]), Budget())


def test_hostile_names_are_text() -> None:
    record = make_record(
        name=HOSTILE,
        runtime=HOSTILE,
        part=HOSTILE,
        data=HOSTILE,
        device={"name": HOSTILE, "cores": HOSTILE},
        steps=({"name": HOSTILE},),
        settings={"command": HOSTILE, "inputs": HOSTILE, "protocol": HOSTILE},
        energy_mj=None,
        macs=None,
        missing={"energy_mj": HOSTILE, "macs": HOSTILE, HOSTILE: HOSTILE},
        warnings=(HOSTILE, "</pre></details><script>"),
        created=HOSTILE,
    )
    text = page(compare([record], "energy=1mJ"), parse_budget("energy=1mJ"))
    assert "<img" not in text and "<script" not in text
    tags = {tag for tag, _ in Elements(text).found}
    assert "img" not in tags and "script" not in tags
    for _, attributes in Elements(text).found:
        assert not any(name.startswith("on") for name in attributes)
    assert HOSTILE in {
        circle[0].text.split(", <img")[0] for circle in drawn(compare([record])).iter("circle") if circle[0].text
    }


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    compare([make_record(name="\udcff")], output=tmp_path / "page.html")
    assert "\\udcff" in (tmp_path / "page.html").read_text(encoding="utf-8")


UNMEASURED = {name: None for name in QUANTITIES if name not in ("accuracy", "latency_p50_ms")}


def test_a_missing_number_never_appears_as_one() -> None:
    reasons = {name: f"reason {i}" for i, name in enumerate(UNMEASURED)}
    record = make_record(
        **UNMEASURED, memory_baseline_bytes=None, missing=reasons, precision=None, data=None, part=None
    )
    keys = ("accuracy", "latency_p50")
    text = page(compare([record], keys=keys), Budget())
    for name, reason in reasons.items():
        assert f"No {QUANTITIES[name].label}: {reason}." in text
    shown = re.sub(r"<(style|pre|title)\b.*?</\1>", "", text, flags=re.S)
    shown = re.sub(r"<svg.*?</svg>", "", shown, flags=re.S)
    assert not re.search(r"(?<![\d.])0(\.0+)? ?(ms|B|kB|MB|mJ|k|M|%)?<", shown)
    assert "None" not in shown and "null" not in shown
    cells = re.findall(r"<td>(.*?)</td>", text)
    titles = {reason for reason in reasons.values() if f'<span title="{reason}">–</span>' in text}
    assert titles == {reasons[BY_KEY[key].field] for key in COLUMNS if BY_KEY[key].field in reasons}
    assert "0" not in cells
    assert record.id in text


def test_a_page_without_accuracy_or_latency() -> None:
    changes = {
        "accuracy": None,
        "accuracy_interval": None,
        "accuracy_n": None,
        "missing": {"accuracy": "no data was given"},
    }
    record = make_record(**changes)
    comparison = compare([record], keys=("size",))
    text = page(comparison, Budget())
    assert "No accuracy or latency to draw." in text and "<svg" not in text
    assert "No top-1: no data was given." in text
    assert comparison.verdicts == {record.id: "–"}
    both = page(compare([record, EIGHT[0]], keys=("size",)), Budget())
    assert "Not drawn, for want of accuracy or latency: 1." in both and both.count("<circle") == 1


# --------------------------------------------------------------------------------------------------------- plot


@EACH_SET
def test_each_record_has_one_dot_of_its_size(records: tuple[Record, ...]) -> None:
    comparison = compare(records)
    dots = circles(comparison)
    assert len(list(drawn(comparison).iter("circle"))) == len(records)
    largest = max(record.size_bytes or 0 for record in records)
    for record in records:
        hover = next(text for text in dots if f"{show(record, 'latency_p50_ms')}, " in text)
        circle = dots[hover]
        assert hover.startswith(f"{record.name}, {record.runtime}, {record.threads} thread")
        wanted = LARGEST_DOT**2 * (record.size_bytes or 0) / largest
        assert float(circle.attrib["r"]) ** 2 == pytest.approx(max(wanted, SMALLEST_DOT**2), rel=0.01)
        assert (circle.attrib["class"] == "front") == (record.id in comparison.front)


@EACH_SET
def test_dots_lie_whole_within_the_frame_and_in_order(records: tuple[Record, ...]) -> None:
    places = []
    for text, circle in circles(compare(records)).items():
        x, y, r = (float(circle.attrib[name]) for name in ("cx", "cy", "r"))
        assert x - r >= LEFT and x + r <= PLOT_WIDTH - RIGHT and y - r >= TOP and y + r <= PLOT_HEIGHT - BOTTOM
        record = next(r for r in records if f"{show(r, 'latency_p50_ms')}, " in text)
        places.append((record.latency_p50_ms, x, record.accuracy, y))
    by_latency = [x for _, x, _, _ in sorted(places, key=lambda place: place[0] or 0)]
    assert by_latency == sorted(by_latency)
    by_accuracy = [y for _, _, _, y in sorted(places, key=lambda place: place[2] or 0)]
    assert by_accuracy == sorted(by_accuracy, reverse=True)


def test_the_axes_say_where_the_dots_are() -> None:
    picture = drawn(compare(EIGHT))
    texts = [(text.text or "", float(text.attrib["x"]), float(text.attrib["y"])) for text in picture.iter("text")]
    x_ticks = {float(text): x for text, x, _ in texts if re.fullmatch(r"[\d.]+", text)}
    y_ticks = {float(text.removesuffix(" %")): y - 4 for text, _, y in texts if text.endswith(" %")}
    assert len(x_ticks) >= 4 and len(y_ticks) >= 4
    (x1, left), (x2, right) = min(x_ticks.items()), max(x_ticks.items())
    (y1, bottom), (y2, top) = min(y_ticks.items()), max(y_ticks.items())
    assert y2 <= 100
    dots = circles(compare(EIGHT))
    for record in EIGHT:
        circle = next(c for text, c in dots.items() if f"{show(record, 'latency_p50_ms')}, " in text)
        share = math.log((record.latency_p50_ms or 0) / x1) / math.log(x2 / x1)
        assert float(circle.attrib["cx"]) == pytest.approx(left + share * (right - left), abs=0.3)
        share = (100 * (record.accuracy or 0) - y1) / (y2 - y1)
        assert float(circle.attrib["cy"]) == pytest.approx(bottom + share * (top - bottom), abs=0.3)


def boxes(picture: ET.Element) -> list[tuple[str, float, float, float, float]]:
    """The names as rectangles, with letters of 7 pixels."""
    found = []
    for text in picture.iter("text"):
        if not text.attrib.get("class", "").startswith("name"):
            continue
        name = text.text or ""
        width, x, y = 7.0 * len(name), float(text.attrib["x"]), float(text.attrib["y"])
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
        found.append((name, left, y - 11, left + width, y + 4))
    return found


@EACH_SET
def test_no_name_lies_on_another_or_on_a_dot_or_is_cut_off(records: tuple[Record, ...]) -> None:
    comparison = compare(records)
    picture = drawn(comparison)
    names = boxes(picture)
    assert len(names) >= min(len(records), 4) - (records is SAME)
    for i, (_, left, top, right, bottom) in enumerate(names):
        assert left >= 0 and right <= PLOT_WIDTH and top >= 0 and bottom <= PLOT_HEIGHT
        for _, other_left, other_top, other_right, other_bottom in names[:i]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
        for circle in picture.iter("circle"):
            x, y, r = (float(circle.attrib[name]) for name in ("cx", "cy", "r"))
            nearest = min(max(x, left), right), min(max(y, top), bottom)
            assert math.dist((x, y), nearest) >= r - 0.6


def test_names_say_what_tells_them_apart() -> None:
    names = {name for name, *_ in boxes(drawn(compare(EIGHT)))}
    assert {"v1-96-int8, 1 thread", "v1-96-int8, 2 threads", "v1-96-float32"} <= names
    long = record_of("n" * 200, 1.0, 90, 1000)
    assert [len(name) for name, *_ in boxes(drawn(compare([long])))] == [LONGEST_NAME]


def test_the_dashed_line_joins_the_records_that_none_beats_in_accuracy_and_latency() -> None:
    picture = drawn(compare(EIGHT))
    (line,) = picture.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True)
    wanted = [EIGHT[i] for i in (1, 2, 3, 4, 6, 7)]  # 0 is as good as 1 and slower; 5 is slower and worse than 4
    dots = circles(compare(EIGHT))
    assert points == [
        next(
            (float(c.attrib["cx"]), float(c.attrib["cy"]))
            for text, c in dots.items()
            if f"{show(record, 'latency_p50_ms')}, " in text
        )
        for record in wanted
    ]
    assert not list(drawn(compare(EIGHT[:1])).iter("polyline"))


def test_a_dot_without_a_size_is_a_ring_and_the_page_says_so() -> None:
    records = (EIGHT[0], record_of("foreign", 2.0, 80, None))
    text = page(compare(records, keys=("accuracy", "latency_p50")), Budget())
    assert 'class="other unsized"' in text and "A dashed ring has no known size." in text
    assert "at most 320 kB" in text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1e5), st.integers(0, 100), st.one_of(st.none(), st.floats(0, 1e10))),
        min_size=1,
        max_size=12,
    )
)
def test_any_records_can_be_drawn(values: list[tuple[float, int, float | None]]) -> None:
    records = [record_of(f"net-{i}", *value) for i, value in enumerate(values)]
    picture = drawn(compare(records, keys=("accuracy", "latency_p50")))
    numbers = [float(x) for item in picture.iter() for x in item.attrib.values() if re.fullmatch(r"-?[\d.]+", x)]
    assert all(-1 <= x <= PLOT_WIDTH + 1 for x in numbers)
    assert "nan" not in ET.tostring(picture, encoding="unicode").replace("nano", "")
    ticks = [text.text for text in picture.iter("text") if "class" not in text.attrib]
    assert 3 <= len(ticks) <= 30 and len(set(ticks)) == len(ticks)


# --------------------------------------------------------------------------------------------------------- text


def test_show_with_and_without_an_interval() -> None:
    record = make_record()
    assert show(record, "accuracy") == "87.5 % (81.0–92.0)"
    assert show(record, "latency_p50_ms") == "4.25 ms (4.12–4.38)"
    assert show(record, "size_bytes") == "320 kB"
    assert show(make_record(size_bytes=None), "size_bytes") == "–"


def test_a_card_has_every_number_and_the_reason_of_each_missing_one() -> None:
    lines = card(
        make_record(energy_mj=None, macs=None, missing={"energy_mj": "no meter"}, warnings=("hot",))
    ).splitlines()
    assert lines[0].startswith("mobilenet_v1-0.25-128-int8  [")
    assert "onnxruntime 1.31.1, 1 thread, Testboard 5" in lines[1]
    assert lines[2] == "  computed in int8 on cpu (file: int8)"
    body = {line.strip()[:24].strip(): line.strip()[24:].strip() for line in lines[3:-1]}
    assert list(body) == [QUANTITIES[name].label for name in QUANTITIES if name not in OPTIONAL]
    assert body["top-1"] == "87.5 % (81.0–92.0)  n = 160, test pictures"
    assert body["p50 latency"] == "4.25 ms (4.12–4.38)  n = 700 runs"
    assert body["energy per inference"] == "–  no meter"
    assert body["MACs"] == "–  not measured"
    assert lines[-1] == "  warning: hot"


def test_a_card_of_nothing_measured_shows_no_number() -> None:
    nothing = dict.fromkeys([*QUANTITIES, "accuracy_interval", "accuracy_n", "latency_p50_interval_ms", "latency_n"])
    reasons = dict.fromkeys(QUANTITIES, "no time")
    body = card(make_record(**nothing, missing=reasons)).splitlines()[3:]
    assert [line.strip()[24:].strip() for line in body] == ["–  no time"] * len(QUANTITIES)


def test_a_card_says_all_that_must_be_known_of_a_record() -> None:
    lines = card(DOUBTFUL).splitlines()
    assert lines[0].endswith(f"[{DOUBTFUL.id}]  UNSTABLE  quick")
    assert lines[2] == "  computed in bfloat16 on cpu (file: float32)"
    assert "  energy per inference     –  no meter" in lines
    assert "  energy, estimated and not measured: method estimated:power-given, mj_per_inference 7.5" in lines
    tail = [
        "  UNSTABLE: other programs kept 40 % of the cores busy",
        "  UNSTABLE: the clock fell",
        "  quick: too short to be compared",
        "  finding: slower than the float file",
        "  changed meanwhile: a 1 → 2; b 1 → 2; c 1 → 2; d 1 → 2; 1 more",
        "  raw samples: records.samples/0123456789abcdef.npz",
    ]
    assert lines[-len(tail) :] == tail
    foreign = card(make_record(compute_precision=None, provider=None, precision=None))
    assert "  computed in unknown on unknown (file: unknown)" in foreign.splitlines()
    measured = next(line for line in card(make_record()).splitlines() if "energy" in line)
    assert measured.endswith("12.50 mJ  measured:rapl-package")


@EACH_SET
def test_table_and_markdown_have_each_record_once_lightest_first(records: tuple[Record, ...]) -> None:
    comparison = compare(records)
    rows = table(comparison, budgeted=False, width=400).splitlines()[1:-2]
    lines = markdown(records).splitlines()[2:]
    assert len(rows) == len(lines) == len(records)
    for record, row, line in zip(comparison.records, rows, lines, strict=True):
        assert record.name in row and show(record, "latency_p50_ms") in row
        assert row.startswith("●") == (record.id in comparison.front)
        assert line.startswith(f"| {record.id} | {record.name} | ")
    latencies = [record.latency_p50_ms or 0 for record in comparison.records]
    assert latencies == sorted(latencies)
    assert len({line.count("|") for line in markdown(records).splitlines()}) == 1


def test_the_table_says_once_what_is_the_same_in_every_row() -> None:
    lines = table(compare(EIGHT), budgeted=False, width=400).splitlines()
    assert "threads" in lines[0] and "runtime" not in lines[0]
    assert lines[-2] == "all: onnxruntime, computed in int8, on cpu"
    mixed = [EIGHT[0], replace(EIGHT[2], runtime="openvino", compute_precision="bfloat16", provider=None)]
    text = table(compare(mixed), budgeted=False, width=400)
    assert "all: threads 1\n" in text
    assert re.search(r"v1-96-float32 +openvino +bfloat16 +\? ", text)


@pytest.mark.parametrize("width", [80, 90, 100, 120, 160])
@pytest.mark.parametrize("budget", [None, "latency_p50=1ms"])
def test_a_narrow_terminal_cuts_no_word_and_hides_no_column_in_silence(width: int, budget: str | None) -> None:
    comparison = compare([*EIGHT[:3], DOUBTFUL, *OTHERS], budget, quick=True)
    text = table(comparison, budgeted=budget is not None, width=width)
    rows = [line for line in text.splitlines() if not line.startswith(("all:", "no room", "●b", "● b", "UNSTABLE:"))]
    assert max(map(len, rows)) <= width
    for record in comparison.records:
        assert record.name in text
        for name in ("accuracy", "latency_p50_ms"):
            assert all(word in text for word in show(record, name).split())
    left_out = " ".join(re.findall(r"no room for: (.*);", text))
    for label in [BY_KEY[key].label for key in COLUMNS] + ["accuracy against best"]:
        head = all(any(word in row.split() for row in rows) for word in label.split())
        assert head or label in left_out
    assert budget is None or "fits" in text


def test_devices_stand_beside_each_other_without_a_verdict_across() -> None:
    comparison = compare([*EIGHT, *OTHERS])
    assert [one.device for one in comparison.devices] == [
        "Big PC, 16 cores (ffffffffffff)",
        "Testboard 5, 4 cores (0123456789ab)",
    ]
    for records in (EIGHT, OTHERS):
        alone = compare(records)
        assert [id for id in comparison.front if id in {r.id for r in records}] == list(alone.front)
        assert {r.id: comparison.verdicts[r.id] for r in records} == alone.verdicts
    text = table(comparison, budgeted=False)
    titles = [line for line in text.splitlines() if line.endswith(")") and "cores (" in line and "file" not in line]
    assert titles == [one.device for one in comparison.devices]
    rows = [line for line in text.splitlines() if re.match(r"v1-96-int8 +onnxruntime ", line)]
    cell = "0.33 ms (2 threads, int8); 0.42 ms (1 thread, int8)"
    assert [re.split(" {2,}", row)[2:] for row in rows] == [[cell, cell]]
    only_here = next(line for line in text.splitlines() if re.match(r"resnet18-224-float32 +onnxruntime ", line))
    assert re.split(" {2,}", only_here)[2:] == ["–", "38.00 ms (1 thread, int8)"]
    with pytest.raises(RecordError, match="differ in data"):  # within one device
        compare([*EIGHT, *OTHERS, replace(OTHERS[0], part="val")])


def test_two_files_of_one_name_are_two_rows_of_the_matrix() -> None:
    other = replace(OTHERS[0], artifact_sha256="cd" * 32)
    text = table(compare([EIGHT[0], other]), budgeted=False)
    assert re.search(r"v1-96-int8 abababab +onnxruntime +– +0\.42 ms", text)
    assert re.search(r"v1-96-int8 cdcdcdcd +onnxruntime +0\.42 ms \(1 thread, int8\) +–", text)


def test_the_page_of_several_devices_has_a_section_each() -> None:
    comparison = compare([*EIGHT, *OTHERS])
    text = page(comparison, Budget())
    assert "11 records on 2 devices." in text
    for title in ("Big PC, 16 cores (ffffffffffff)", "Testboard 5, 4 cores (0123456789ab)"):
        assert f"<h2>Accuracy against latency: {title}</h2>" in text
        assert f"<h2>Records: {title}</h2>" in text
    assert text.count("<svg") == 2 and text.count("<circle") == 11
    assert "records of different devices are not compared" in text
    assert text.count("<details") == 11
    Elements(text)


def test_markdown_of_several_devices_names_each() -> None:
    lines = markdown([*EIGHT, *OTHERS]).splitlines()
    assert lines[0].startswith("| record | device | file |")
    assert [line.split(" | ")[1] for line in lines[2:]] == ["Testboard 5"] * 8 + ["Big PC"] * 3
    assert len({line.count("|") for line in lines}) == 1


def test_unstable_and_quick_are_said_wherever_a_record_is_shown() -> None:
    comparison = compare([*EIGHT, DOUBTFUL], quick=True)
    rows = [line for line in table(comparison, budgeted=False).splitlines() if line.startswith("UNSTABLE quick ")]
    assert len(rows) == 1 and DOUBTFUL.name in rows[0]
    assert f"| {DOUBTFUL.id} | v1-96-float32 (UNSTABLE, quick) |" in markdown(comparison.records)
    assert next(text for text in circles(comparison) if "UNSTABLE" in text).startswith(
        "v1-96-float32, onnxruntime, 1 thread, UNSTABLE, quick: "
    )
    text = page(comparison, Budget())
    small = "<small>onnxruntime, 1 thread, computed in bfloat16</small>"
    badges = '<strong class="miss">UNSTABLE</strong> <strong class="miss">quick</strong>'
    assert text.count(small + badges) == 1
    for line in (
        "UNSTABLE, so that its times are not compared: the clock fell.",
        "Quick: too short to be compared.",
        "Computed in bfloat16 on cpu (file: float32).",
        "Finding: slower than the float file.",
        "Changed meanwhile: e 1 → 2.",
        "never compared: method estimated:power-given, mj_per_inference 7.5.",
        "records.samples/0123456789abcdef.npz, beside the file of records.",
        "Red: UNSTABLE or quick.",
    ):
        assert line in text
    assert f"{DOUBTFUL.id} · v1-96-float32, onnxruntime, 1 thread, UNSTABLE, quick</summary>" in text
    assert "Energy: measured:rapl-package." in text
    assert "UNSTABLE" not in page(compare(EIGHT), Budget())


def test_quick_records_have_no_part_in_front_and_verdicts() -> None:
    quick = replace(EIGHT[1], quick=True, latency_p50_ms=0.01, accuracy=1.0)
    with pytest.raises(RecordError, match="a quick measurement is not compared"):
        compare([*EIGHT, quick])
    comparison = compare([*EIGHT, quick], quick=True)
    alone = compare(EIGHT)
    assert comparison.front == alone.front
    assert comparison.verdicts == {**alone.verdicts, quick.id: "–"}
    only = compare([quick, replace(quick, accuracy=None, seed=1)], quick=True)
    assert only.front == () and set(only.verdicts.values()) == {"–"}
    assert "quick: too short to be compared" in table(only, budgeted=False)
    with pytest.raises(RecordError, match="unknown quantity 'speed'"):
        compare([quick], keys=("speed",), quick=True)


def test_the_line_of_those_beaten_by_none_leaves_out_what_is_unstable() -> None:
    fast = record_of("fast", 0.1, 99, 1000, unstable=("hot",))
    picture = drawn(compare([fast, *EIGHT]))
    with_it = [line.attrib["points"] for line in picture.iter("polyline")]
    corners = len(with_it[0].split())
    assert corners == len(next(drawn(compare(EIGHT)).iter("polyline")).attrib["points"].split())
    assert next(c for t, c in circles(compare([fast, *EIGHT])).items() if "fast" in t).attrib["class"] == "doubtful"


def test_the_table_says_what_a_budget_misses() -> None:
    text = table(compare(EIGHT, "latency_p50=1ms,energy=20mJ"), budgeted=True, width=500)
    assert sum(line.endswith("  fits") for line in text.splitlines()) == 3
    assert "energy per inference is unknown (no meter on this board); wanted energy<=20.00 mJ" in text
    assert text.splitlines()[-1] == "● beaten by none in top-1, p50 latency, file size"


def test_names_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    text = table(compare([make_record(name=HOSTILE + "\\"), make_record(name="\x1b[31m")]), budgeted=False, width=400)
    assert HOSTILE + "\\" in text
    assert "\x1b" not in text and "\x1b" not in card(make_record(name="\x1b[31m", warnings=("\x1b[2J",)))
    row = markdown([make_record(name=HOSTILE + "\n")]).splitlines()[2]
    assert "<img" not in row and "&lt;img" in row and "&amp;\\|[bold]" in row


# ------------------------------------------------------------------------------------------------------ compare


def test_verdicts_say_no_more_than_the_intervals() -> None:
    best = record_of("best", 1, 95, 1000, accuracy_interval=(0.90, 0.98))
    near = record_of("near", 2, 90, 1000, accuracy_interval=(0.84, 0.94))
    worse = record_of("worse", 3, 80, 1000, accuracy_interval=(0.72, 0.86))
    comparison = compare([worse, near, best])
    assert [comparison.verdicts[r.id] for r in comparison.records] == ["best", "no difference shown", "lower"]
    assert set(compare([best, worse], keys=("size",)).verdicts.values()) == {"–"}


def test_a_comparison_as_plain_values() -> None:
    comparison = compare(EIGHT, "latency_p50=1ms")
    values = json.loads(json.dumps(comparison.as_dict()))
    assert values["keys"] == ["accuracy", "latency_p50", "size"]
    for record, value in zip(comparison.records, values["records"], strict=True):
        assert value["id"] == record.id
        assert value["on_front"] == (record.id in comparison.front)
        assert value["violations"] == [str(v) for v in comparison.violations[record.id]]
        assert value["accuracy_against_best"] == comparison.verdicts[record.id]
        rest = {name: value[name] for name in value if name in json.loads(record.to_json())}
        assert rest == json.loads(record.to_json())


def test_from_a_file_a_folder_and_a_budget_either_way(tmp_path: Path) -> None:
    for record in EIGHT:
        append_record(tmp_path / "records.jsonl", record)
    budget = parse_budget("latency_p50=1ms")
    wanted = compare(EIGHT, budget)
    assert compare(tmp_path / "records.jsonl", "latency_p50=1ms") == wanted
    assert compare(str(tmp_path), budget, output=tmp_path / "page.html") == wanted
    for record in OTHERS:
        append_record(tmp_path / "pc" / "records.jsonl", record)
    both = compare([*EIGHT, *OTHERS], budget)
    assert compare(tmp_path, budget) == compare([tmp_path / "records.jsonl", str(tmp_path / "pc")], budget) == both
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page(wanted, budget)


def test_what_cannot_be_compared_writes_no_page(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    with pytest.raises(RecordError, match="no records to compare"):
        compare([], output=place)
    with pytest.raises(RecordError, match="unknown quantity 'speed'"):
        compare(EIGHT, keys=("speed",), output=place)
    with pytest.raises(BudgetError, match="cannot read 'fast'"):
        compare(EIGHT, "fast", output=place)
    with pytest.raises(RecordError, match="cannot read"):
        compare(tmp_path / "none.jsonl", output=place)
    assert not place.exists()
    with pytest.raises(OutputError, match=r"cannot write .*page\.html: No such file or directory"):
        compare(EIGHT, output=tmp_path / "none" / "page.html")


def test_a_page_replaces_an_older_page_and_nothing_else(tmp_path: Path) -> None:
    page_file, records = tmp_path / "report.html", tmp_path / "records.jsonl"
    for _ in range(2):
        compare([make_record()], output=page_file)
    records.write_text("{}\n")
    with pytest.raises(OutputError, match="is no report"):
        compare([make_record()], output=records)
    assert records.read_text() == "{}\n"
