"""A segmenter through the timed session: its record, tiles, A against B, and the page."""

import base64
import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from featherweight import boxes
from featherweight.artifact import Artifact
from featherweight.budget import parse_budget
from featherweight.data import Dataset, targets
from featherweight.errors import MeasureError, SettingError
from featherweight.matches import Answers, SeenMask
from featherweight.measure import versus as versus_module
from featherweight.measure.one import Case, measure_case, most_runs, pictures_of
from featherweight.measure.protocol import QUICK, Origin
from featherweight.predict import answers_of
from featherweight.quantize import accuracy_on
from featherweight.report import card, compare
from featherweight.report.pictures import pictures
from featherweight.report.scores import by_class
from featherweight.runtimes.settings import Settings
from featherweight.worker.child import MOST_KEPT_BYTES, Child
from tests.make import make_record
from tests.test_report import HOSTILE, Elements
from tests.thresholder import CLASSES, SIZE, answers, dataset_of, make_thresholder, scene, square

SCORES = {
    "classes": {
        "ground": {"iou": 0.98, "interval": [0.97, 0.99], "dice": 0.99, "boundary_f1": 0.5, "pixels": 900},
        HOSTILE: {"iou": 0.75, "interval": None, "dice": 0.857, "boundary_f1": None, "pixels": 100},
    },
}
RECORD = make_record(task="segment", metric="mean IoU", iou=0.75, dice=0.857, pixel_accuracy=0.97, scores=SCORES)


@pytest.fixture
def squares(tmp_path: Path) -> Dataset:
    """Four pictures: what is true is 8×8; what is bright is that, or half of it, or that and as much again."""
    true = square(4, 4, 8)
    half, more = true & (np.arange(SIZE) < 8), true | square(20, 20, 8)
    bright = (true, half, more, true)
    return dataset_of(tmp_path, [scene(tmp_path / "pictures", f"p{n}", true, one) for n, one in enumerate(bright)])


# By hand: of 4·64 true pixels 32 are missed and 64 others are found.
IOU = (256 - 32) / (256 + 64)
GROUND = (4 * 960 - 64) / (4 * 960 + 32)


def loaded(artifact: Artifact) -> Child:
    child = Child()
    child.load(str(artifact.path), "onnxruntime", {}, None, memory=False)
    return child


def asked(dataset: Dataset) -> list[tuple[str, object]]:
    return [(str(item.path), target) for item, target in zip(dataset.items, targets(dataset.items), strict=True)]


def test_the_record_of_a_segmenter(squares: Dataset, tmp_path: Path) -> None:
    artifact = make_thresholder(tmp_path / "thresholder")
    protocol = replace(QUICK, cold_starts=0, throughput_seconds=0, energy_window_seconds=0, inputs=2)
    case = Case(artifact, "onnxruntime", Settings())
    record, _ = measure_case(case, pictures_of(artifact, squares, None), protocol, Origin(0, None))
    assert (record.metric, record.task, record.accuracy_n) == ("mean IoU", "segment", 4)
    assert record.iou == pytest.approx(IOU) and record.accuracy == pytest.approx((IOU + GROUND) / 2)
    assert record.dice == pytest.approx(2 * IOU / (1 + IOU))
    assert record.pixel_accuracy == pytest.approx(1 - (32 + 64) / (4 * SIZE**2))
    assert record.boundary_f1 is not None and 0.5 < record.boundary_f1 < 1
    assert record.accuracy_interval is not None and record.accuracy_interval[0] < record.accuracy_interval[1]
    assert record.scores is not None and record.scores["confusion"][1] == [32, 224]
    assert record.settings["timed_outputs_checked"] == 2
    assert not [reason for reason in record.unstable if "outputs" in reason]
    assert record.total_p50_ms is not None and record.postprocess_p50_ms is not None
    said = card(record)
    assert "mean IoU                 " in said and "IoU of class 1           70.0 %" in said
    assert "IoU by class             thing 70.0 %, ground " in said
    assert not parse_budget("iou>=0.69,accuracy>=0.8").violations(record)
    assert parse_budget("iou>=0.71").violations(record)


def test_files_and_data_that_do_not_belong_together(squares: Dataset, tmp_path: Path) -> None:
    artifact = make_thresholder(tmp_path / "thresholder")
    assert pictures_of(artifact, squares, None).no_accuracy is None
    assert pictures_of(artifact, None, None).no_accuracy == "no data was given"
    with pytest.raises(MeasureError, match="knows the classes ground, thing… and the data has thing, ground"):
        pictures_of(artifact, replace(squares, classes=CLASSES[::-1]), None)
    with pytest.raises(MeasureError, match="is for segment and the data for classify: wanted the same task"):
        pictures_of(artifact, replace(squares, task="classify"), None)
    with pytest.raises(SettingError, match="is for segment and the data for detect: wanted the same task"):
        answers_of([artifact], replace(squares, task="detect"))


def test_the_score_before_a_file_is_written_is_that_of_the_record(squares: Dataset, tmp_path: Path) -> None:
    artifact = make_thresholder(tmp_path / "thresholder")
    pixels = np.stack([np.asarray(Image.open(item.path)) for item in squares.items])
    assert accuracy_on(pixels, targets(squares.items))(artifact) == pytest.approx((IOU + GROUND) / 2)
    score = loaded(artifact).accuracy(asked(squares))["score"]
    assert score["value"] == pytest.approx((IOU + GROUND) / 2) and score["right"] is None


def test_large_answers_are_kept_of_a_few_pictures_only(tmp_path: Path) -> None:
    child = loaded(make_thresholder(tmp_path / "thresholder"))
    child._timed = {}
    large = np.broadcast_to(np.float32(0), (MOST_KEPT_BYTES // 8,))
    for place in (0, 1, 2, 3, 0):
        child._keep(place, large)
    assert list(child._timed) == [0, 1]
    for place in range(10):
        child._keep(place, np.zeros(1, np.float32))
    assert len(child._timed) == 10


def test_the_outputs_of_a_segmenter_come_over_whole(tmp_path: Path) -> None:
    child = loaded(make_thresholder(tmp_path / "thresholder"))
    child.inputs([], 1)
    told = child.outputs()
    found = np.frombuffer(base64.b64decode(told["outputs"]), "<f4").reshape(told["shape"])
    golden = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    assert found == pytest.approx(answers(golden, 127.5), abs=1e-5)


# ---------------------------------------------------------------------------------------------------- tiles


@pytest.fixture
def tiling(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Tiles side by side without overlap, and which pictures were cut so."""
    seen: list[tuple[int, ...]] = []

    def tiled(run, picture, height, width):  # type: ignore[no-untyped-def]
        seen.append(picture.shape)
        rows, columns = picture.shape[0] // height, picture.shape[1] // width
        return np.vstack([
            np.hstack([run(picture[None, y * height : (y + 1) * height, x * width : (x + 1) * width])[0]
                       for x in range(columns)])
            for y in range(rows)
        ])  # fmt: skip

    module = ModuleType("featherweight.tiles")
    module.tiled = tiled  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "featherweight.tiles", module)
    monkeypatch.setattr("featherweight.boxes.RESIZES", tuple(dict.fromkeys((*boxes.RESIZES, "tile"))))
    monkeypatch.setattr("featherweight.artifact.RESIZES", tuple(dict.fromkeys((*boxes.RESIZES, "tile"))))
    return seen


def test_a_picture_keeps_its_scale_and_is_run_in_tiles(tmp_path: Path, tiling: list[tuple[int, ...]]) -> None:
    true = square(10, 10, 3, 3 * SIZE)  # too small to be seen once it is shrunk
    items = [scene(tmp_path / "pictures", f"p{n}", true, true) for n in range(2)]
    dataset, artifact = dataset_of(tmp_path, items), make_thresholder(tmp_path / "thresholder", resize="tile")
    child = loaded(artifact)
    assert child.inputs([str(items[0].path)], 1) == {"inputs": "pictures of the data"}
    child.time(0, 3)
    answer = child.accuracy(asked(dataset))
    assert answer["score"]["value"] == 1.0 and (answer["checked"], answer["off"]) == (1, 0.0)
    assert tiling == [(96, 96, 3)] * 2  # and none under the clock
    total = child.total(0, 2)
    assert len(total["total_ns"]) == 2 and len(tiling) == 4
    assert most_runs(artifact, pictures_of(artifact, dataset, "test")) == 36
    assert most_runs(replace(artifact, resize="stretch"), pictures_of(artifact, dataset, "test")) == 1
    (found,) = answers_of([artifact], dataset)
    assert [one.failures for one in found.pictures] == [0, 0]


def test_the_tile_under_the_clock_is_the_one_in_the_middle(tmp_path: Path, tiling: list[tuple[int, ...]]) -> None:
    child = loaded(make_thresholder(tmp_path / "thresholder", resize="tile"))
    large = np.arange(64 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 40, 3)
    assert np.array_equal(child._input(large)[0], large[16:48, 4:36])
    small = np.arange(20 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 32, 3)
    assert np.array_equal(child._input(small)[0], np.vstack([small, small[:12]]))


# ------------------------------------------------------------------------------------------- A against B


def test_segmenters_are_held_against_each_other(
    squares: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versus_module, "log_ratios", lambda *_: [0.01 * (place % 3) for place in range(20)])
    # 250 is brighter than anything: nothing is found.
    files = [make_thresholder(tmp_path / "good"), make_thresholder(tmp_path / "blind", 300.0)]
    (found,) = versus_module.versus(files, squares, "onnxruntime")
    assert found.accuracy is not None and found.accuracy.shown and found.accuracy.metric == "mean IoU"
    assert found.accuracy.difference.value == pytest.approx((IOU + GROUND) / 2 - 960 / 1024 / 2)
    assert "more accurate: mean IoU" in str(found)


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_shows_the_worst_first(squares: Dataset, tmp_path: Path) -> None:
    (found,) = answers_of([make_thresholder(tmp_path / "thresholder")], squares)
    assert (found.name, found.part, found.classes, found.score) == ("thresholder", "test", CLASSES, None)
    # Half of it is found: thing 32 / 64, ground 960 / 992. As much again: thing 64 / 128, ground 896 / 960.
    wanted = [0.0, 1 - (32 / 64 + 960 / 992) / 2, 1 - (64 / 128 + 896 / 960) / 2, 0.0]
    assert [one.failures for one in found.pictures] == pytest.approx(wanted)
    text = "".join(pictures([found]))
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == [
        "p2.png: mean IoU 71.7 % (thing 50.0 %, ground 93.3 %); 0.0 % of the pixels missed, 6.2 % wrong",
        "p1.png: mean IoU 73.4 % (thing 50.0 %, ground 96.8 %); 3.1 % of the pixels missed, 0.0 % wrong",
        "p0.png: mean IoU 100.0 % (thing 100.0 %, ground 100.0 %); 0.0 % of the pixels missed, 0.0 % wrong",
        "p3.png: mean IoU 100.0 % (thing 100.0 %, ground 100.0 %); 0.0 % of the pixels missed, 0.0 % wrong",
    ]
    assert "4 pictures of the test part" in text and "the 2 of least mean IoU, the worst first, then 2 of the" in text


def colours(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA"))


def test_errors_are_coloured_by_kind(tmp_path: Path) -> None:
    item = scene(tmp_path, "a", square(4, 4, 8), square(4, 4, 8))
    true = square(4, 4, 8).astype(np.uint8)
    found = np.roll(true, 4, axis=1)
    true[20:] = 255
    text = "".join(pictures([Answers("a", CLASSES, (SeenMask.of(item.path, true, found, 0.5),), "test")]))
    addresses = re.findall(r'href="(data:image/png[^"]*)"', text)
    assert len(addresses) == 3  # the true mask, the found one, the errors
    errors = colours(addresses[2])
    assert errors.shape == (SIZE, SIZE, 4) and errors[0, 0, 3] == 0
    assert errors[5, 5].tolist() == [255, 178, 36, 255]  # missed
    assert errors[5, 9].tolist() == [61, 220, 151, 255]  # right
    assert errors[5, 13].tolist() == [255, 92, 138, 255]  # wrong
    assert errors[25, 5].tolist() == [150, 156, 164, 255]  # not asked for
    shown = colours(addresses[0])
    assert shown[25, 5].tolist() == [150, 156, 164, 255] and shown[5, 5].tolist() != shown[0, 0].tolist()


def test_the_page_of_masks_holds_its_pictures_and_asks_for_nothing(tmp_path: Path) -> None:
    size = 800
    noise = np.random.default_rng(0).random((size, size)) < 0.5
    item = scene(tmp_path, f"{'n' * 60}<b>", noise, noise)
    true = noise.astype(np.uint8)
    one, gone = (SeenMask.of(path, true, 1 - true, iou) for path, iou in ((item.path, 0.0), (tmp_path / "gone", None)))
    answers = Answers(HOSTILE, (HOSTILE, "b", *"cdefghijklmno"), (one, gone), HOSTILE)
    compare([RECORD], output=tmp_path / "page.html", answers=[answers])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    tags = Elements(text).found
    assert not {"img", "script", "b"} & {tag for tag, _ in tags}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    sources = [attributes["href"] or "" for _, attributes in tags if "href" in attributes]
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "It cannot be shown" in text and "nothing is asked in it" in text and " and 3 more" in text
    assert max(colours(source).shape[0] for source in sources if "png" in source) == 600
    many = replace(answers, pictures=(one,) * 40)
    assert "".join(pictures([many])).count("<figure>") == 18


def test_classes_are_on_the_page_and_on_the_card() -> None:
    text = "".join(by_class(compare([RECORD])))
    assert "<h2>By class</h2>" in text and "small, under" not in text and "<img" not in text
    assert '<td class="file">ground</td><td>900</td><td>98.0 % (99.0 %, 50.0 %)</td>' in text
    assert "<td>100</td><td>75.0 % (85.7 %, –)</td>" in text
    assert "IoU by class" in card(RECORD)
    page = "".join(
        by_class(compare([RECORD, replace(RECORD, seed=1, metric="AP50:95", scores=DETECTED)], keys=["size"]))
    )
    assert "<h2>By class</h2>" in page and "<h2>By class and size</h2>" in page


DETECTED = {"classes": {"red": {"ap": 0.5, "ap50": 0.875, "boxes": 8}}}
