"""What a detector's page shows: its failures first, by class, self-contained, and nothing of a stranger's as HTML."""

import base64
import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherweight.boxes import found_boxes, true_boxes
from featherweight.cli import main
from featherweight.data import Dataset, read_dataset
from featherweight.errors import DataError, MeasureError, SettingError
from featherweight.matches import Answers, Seen
from featherweight.measure import versus as versus_module
from featherweight.measure.one import pictures_of
from featherweight.measure.versus import Together, accuracies
from featherweight.predict import answers_of
from featherweight.report import card, compare
from featherweight.report.inline import MOST_BYTES
from featherweight.report.pictures import SIDE, pictures
from featherweight.report.scores import by_class
from featherweight.stats import Bootstrap, drawn_difference
from tests.detector import CLASSES, cells_folder, make_detector
from tests.make import make_artifact, make_record
from tests.test_report import HOSTILE, Elements

SCORES = {
    "small": 0.25, "medium": None, "large": 0.5, "recall": 0.75,
    "classes": {"red": {"ap": 0.5, "ap50": 0.875, "boxes": 8}, HOSTILE: {"ap": None, "ap50": None, "boxes": 0}},
    "thresholds": [{"score": 0.25, "precision": 0.5, "recall": 0.625}, {"score": 0.5, "precision": None, "recall": 0}],
}  # fmt: skip
RECORD = make_record(task="detect", metric="AP50:95", ap50=0.875, ap75=0.5, scores=SCORES)


@pytest.fixture
def cells(tmp_path: Path) -> Dataset:
    return read_dataset(cells_folder(tmp_path / "cells"))


def picture(path: Path, width: int = 64, height: int = 48) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def seen(path: Path, found: int = 1) -> Seen:
    true = true_boxes([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1], [False, True])
    boxes = np.array([[0, 0, 10, 10], [30, 5, 50, 25]][:found], np.float32)
    return Seen(path, true, found_boxes(boxes, np.zeros(found, np.int64), np.full(found, 0.5, np.float32)))


def test_pictures_of_a_detector(cells: Dataset, tmp_path: Path) -> None:
    (answers,) = answers_of([make_detector(tmp_path / "detector")], cells)
    assert (answers.part, answers.score, answers.classes) == ("test", 0.25, CLASSES)
    # In each second picture the green box is called red: one missed and one wrong.
    assert [one.failures for one in answers.pictures] == [0, 2, 0, 2]
    text = "".join(pictures([answers]))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions == [
        "p3.png: 1 missed, 1 wrong, 1 right",
        "p5.png: 1 missed, 1 wrong, 1 right",
        "p2.png: 0 missed, 0 wrong, 2 right",
        "p4.png: 0 missed, 0 wrong, 2 right",
    ]
    assert (
        "In 4 pictures of the test part, with boxes that score at least 0.25: 6 boxes right, 2 missed, 2 wrong" in text
    )
    assert text.count('class="missed"') == text.count('class="wrong"') == 2


def test_files_that_are_no_detectors_and_pictures_without_boxes_have_none(cells: Dataset, tmp_path: Path) -> None:
    assert answers_of([make_artifact(tmp_path / "classifier")], cells) == ()
    plain = replace(cells, items=tuple(replace(item, boxes=None) for item in cells.items))
    detector = make_detector(tmp_path / "detector")
    assert answers_of([detector], plain) == ()
    with pytest.raises(SettingError, match="finds green, red and the data has red, green: wanted the same classes"):
        answers_of([replace(detector, classes=CLASSES[::-1])], cells)


def test_the_page_holds_its_pictures_and_asks_for_nothing(tmp_path: Path) -> None:
    big = picture(tmp_path / f"{'n' * 60}<b>.png", 900, 1400)
    answers = Answers(HOSTILE, (HOSTILE, "b"), (seen(big, 2), seen(tmp_path / "gone.png")), HOSTILE, 0.25)
    compare([RECORD], output=tmp_path / "page.html", answers=[answers])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    tags = Elements(text).found
    assert not {"img", "script", "b"} & {tag for tag, _ in tags}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    sources = [attributes["href"] or "" for _, attributes in tags if "href" in attributes]
    (data,) = [source for source in sources if source.startswith("data:image/jpeg;base64,")]
    assert set(sources) == {data, "#picture-1"}
    jpeg = base64.b64decode(data.split(",")[1])
    assert len(jpeg) <= MOST_BYTES  # noise at its worst
    assert Image.open(io.BytesIO(jpeg)).size == (SIDE * 900 // 1400, SIDE)
    assert "It cannot be shown" in text


def test_many_pictures_and_files_are_bounded(tmp_path: Path) -> None:
    one = seen(picture(tmp_path / "a.png"), 2)
    good = seen(picture(tmp_path / "b.png"))
    many = Answers("a", ("x", "y"), (one,) * 40 + (good,) * 40, "test", 0.25)
    assert "".join(pictures([many])).count("<figure>") == 18
    assert "".join(pictures([many, many, many])).count("<figure>") == 18
    assert "".join(pictures([replace(many, pictures=())])).count("<figure>") == 0


def test_boxes_lie_where_they_are(tmp_path: Path) -> None:
    text = "".join(pictures([Answers("a", ("x", "y"), (seen(picture(tmp_path / "a.png"), 2),), "test", 0.25)]))
    times = SIDE / 64
    wanted = f'<rect class="wrong" x="{30 * times:.1f}" y="{5 * times:.1f}" width="{20 * times:.1f}"'
    assert wanted in text
    assert "<title>x 50 %, wrong</title>" in text and "<title>y, hard</title>" in text


def test_scores_by_class_are_on_the_page_and_on_the_card() -> None:
    text = "".join(by_class(compare([RECORD])))
    assert '<td class="file">red</td><td>8</td><td>50.0 % (87.5 %)</td>' in text
    assert "<td>0</td><td>– (–)</td>" in text and "<img" not in text
    assert "small, under 32² pixels</em></td><td></td><td>25.0 %</td>" in text
    assert '<td class="text">25.0 %</td><td class="text">50.0 %</td><td class="text">62.5 %</td>' in text
    assert "AP50 by class            red 87.5 %" in card(RECORD)
    many = {str(number): {"ap": 0.5, "ap50": number / 20, "boxes": 1} for number in range(20)}
    said = card(replace(RECORD, scores={"classes": many}))
    assert "0 0.0 %, 1 5.0 %, 2 10.0 %, 3 15.0 %, 4 20.0 %, 5 25.0 %; 14 more on the page" in said


def test_records_that_say_the_same_share_a_column() -> None:
    other = replace(RECORD, runtime="openvino", seed=1)
    different = replace(RECORD, runtime="litert", scores={**SCORES, "small": 0.5})
    text = "".join(by_class(compare([RECORD, other, different])))
    assert "(onnxruntime, openvino)</th>" in text and "(litert)</th>" in text
    nine = [replace(RECORD, seed=seed, scores={**SCORES, "small": seed / 10}) for seed in range(9)]
    assert "1 more columns are in the records." in "".join(by_class(compare(nine)))
    classes = {f"c{number}": {"ap": 0.5, "ap50": 0.5, "boxes": 1} for number in range(210)}
    assert "10 more classes are in the records." in "".join(
        by_class(compare([replace(RECORD, scores={"classes": classes})]))
    )


@pytest.mark.parametrize("odd", [None, {}, {"classes": 3}, {"classes": {"a": 3}}, {"classes": {}, "thresholds": 3}])
def test_scores_that_are_none_are_left_out(odd: dict | None) -> None:
    record = replace(RECORD, scores=odd)
    assert by_class(compare([record])) == []
    assert "AP50 by class" not in card(record)


def test_odd_numbers_in_scores_are_no_numbers() -> None:
    odd = {"classes": {"a": {"ap": "x", "ap50": True, "boxes": "<b>"}}, "thresholds": [3, {"score": "inf"}]}
    text = "".join(by_class(compare([replace(RECORD, scores=odd)])))
    assert '<td class="file">a</td><td>–</td><td>– (–)</td>' in text and "<b>" not in text


def test_measure_writes_the_page(cells: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hotcoco")
    detector = make_detector(tmp_path / "detector")
    page, records = tmp_path / "page.html", tmp_path / "records.jsonl"
    folder = str(cells.root)
    asked = ["measure", str(detector.path), "--data", folder, "--runtime", "onnxruntime", "--threads", "1", "--quick"]
    asked += ["--cold-starts", "0", "--no-findings", "--output", str(records), "--report", str(page)]
    assert main(asked) == 0
    assert f"report: {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 4 and "By class and size" in text
    page.write_text("mine")
    assert main(asked) == 2
    assert "exists and is no report" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- A against B


def test_two_files_on_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.1, 400)  # how hard the drawn pictures are moves both
    a = Together("AP50:95", 0.52, 50, tuple(base + 0.02 + rng.normal(0, 0.002, 400)))
    b = Together("AP50:95", 0.5, 50, tuple(base))
    found = accuracies(a, b, "test")
    assert found is not None and found.shown
    assert found.difference.low == pytest.approx(0.016, abs=0.001)
    assert found.test == Bootstrap(400, pytest.approx(2 / 401))
    assert str(found).startswith(
        "more accurate: AP50:95 52.0 % against 50.0 %, +2.0 points (+1.6 to +2.4, 50 pictures, "
    )
    assert "Bootstrap p = 0.005" in str(found)
    same = accuracies(b, b, "test")
    assert same is not None and not same.shown and same.test.p == 1
    assert accuracies(a, None, "test") is None
    for wrong in ((), (0.5,)):
        with pytest.raises(ValueError, match="wanted as many of both"):
            drawn_difference((1, 1), (wrong, (0.5, 0.6)), 2)


def test_detectors_are_held_against_each_other(cells: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hotcoco")
    monkeypatch.setattr(versus_module, "log_ratios", lambda *_: [0.01 * (place % 3) for place in range(20)])
    files = [make_detector(tmp_path / "a"), make_detector(tmp_path / "b")]
    (found,) = versus_module.versus(files, cells, "onnxruntime")
    assert found.accuracy is not None and not found.accuracy.shown
    assert found.accuracy.difference.value == 0 and found.accuracy.difference.n == 4
    assert "accuracy  no difference shown: AP50:95 " in str(found)
    assert found.as_dict()["accuracy"]["test"] == {"draws": 400, "p": 1.0}


def test_what_cannot_be_scored_is_said_before_anything_is_measured(
    cells: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector(tmp_path / "detector")
    with pytest.raises(MeasureError, match="is for classify and the data for detect: wanted the same task"):
        pictures_of(replace(detector, task="classify", decoding=None), cells, None)
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(DataError, match=r"needs hotcoco; install it with: pip install featherweight\[detect\]"):
        pictures_of(detector, cells, None)
    assert pictures_of(detector, None, None).no_accuracy == "no data was given"
