"""Predictions for pictures, folders and videos; what is drawn and written of them."""

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from featherweight.artifact import Artifact
from featherweight.boxes import true_boxes
from featherweight.cli import main
from featherweight.errors import DataError, FeatherweightError, OutputError, SettingError
from featherweight.frames import Canvas, Lines, Source, Video, sources_of
from featherweight.predict import PredictSettings, predict, predictions
from featherweight.runtimes.settings import Settings
from featherweight.worker import Worker
from tests.detector import make_detector, red_at

GREEN = (0, 255, 0)
# Of the cell in row 1, column 2: its middle is (20, 12), the box 16 wide.
BOX = [12.0, 4.0, 28.0, 20.0]


@pytest.fixture
def detector(tmp_path: Path) -> Artifact:
    return make_detector(tmp_path / "detector")


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def film(path: Path, count: int = 5) -> Path:
    """A green cell that goes to the right, at 10 frames/s; JPEG frames, which every OpenCV can write and read."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (128, 128))
    assert writer.isOpened()
    for place in range(count):
        writer.write(cv2.cvtColor(red_at(1, place % 4, GREEN, times=4), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_boxes_in_pixels_of_the_picture(tmp_path: Path, detector: Artifact) -> None:
    big = save(tmp_path / "big.png", red_at(1, 2, times=3))
    (found,) = predict(detector, big)
    assert found["image"] == str(big)
    (one,) = found["predictions"]
    assert one["label"] == "red" and one["score"] > 0.99
    assert one["box"] == [3 * side for side in BOX]
    json.dumps(found)
    wide = save(tmp_path / "wide.png", np.hstack([red_at(1, 2), red_at(0, 1, GREEN)]))  # in rows 8 to 24 of the input
    boxed = make_detector(tmp_path / "boxed", "letterbox")
    labels = [one["label"] for one in predict(boxed, wide, settings=PredictSettings(score=0.0001))[0]["predictions"]]
    assert set(labels) == {"red", "green"}


def test_how_many_and_how_sure(tmp_path: Path, detector: Artifact) -> None:
    both = save(tmp_path / "both.png", np.maximum(red_at(0, 0), red_at(3, 3, GREEN)))
    assert len(predict(detector, both)[0]["predictions"]) == 2
    assert len(predict(detector, both, top=1)[0]["predictions"]) == 1
    assert len(predict(detector, both, settings=PredictSettings(score=0.0))[0]["predictions"]) > 2
    for wrong in ({"top": 0}, {"frames": 0}, {"score": 1.5}, {"top": -1}):
        with pytest.raises(SettingError, match="wanted"):
            PredictSettings(**wrong)
    with pytest.raises(SettingError, match="threads 0; wanted at least 1"):
        predict(detector, both, threads=0)


def test_a_folder_is_a_stream_and_a_bad_picture_costs_itself_only(
    tmp_path: Path, detector: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "in/a/one.png", red_at(0, 0))
    save(tmp_path / "in/b/one.png", red_at(0, 0))
    (tmp_path / "in/b/bad.jpg").write_text("no picture")
    (tmp_path / "in/notes.txt").write_text("no picture by name")
    settings = PredictSettings(draw=tmp_path / "drawn", output=tmp_path / "deep/found.jsonl")
    found = predictions(detector, tmp_path / "in", settings=settings)
    first = next(found)
    assert first["image"] == str(tmp_path / "in/a/one.png")
    assert (tmp_path / "drawn/a/one.png").is_file() and not (tmp_path / "drawn/b").exists()
    assert not (tmp_path / "deep/found.jsonl").exists()  # it is there when it is whole
    assert [one["image"] for one in found] == [str(tmp_path / "in/b/one.png")]
    assert "passed over" in caplog.text and "bad.jpg: not a JPEG" in caplog.text
    lines = (tmp_path / "deep/found.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == first and len(lines) == 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["found.jsonl"]
    drawn = np.asarray(Image.open(tmp_path / "drawn/a/one.png"))
    assert drawn.shape == (32, 32, 3) and not np.array_equal(drawn, red_at(0, 0))
    with pytest.raises(OutputError, match=r"found\.jsonl exists already"):
        next(predictions(detector, tmp_path / "in", settings=settings))
    with pytest.raises(OutputError, match=r"one\.png exists already; name another folder"):
        predict(detector, tmp_path / "in", settings=PredictSettings(draw=tmp_path / "drawn"))


def test_a_video_frame_by_frame(tmp_path: Path, detector: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="featherweight")
    clip = film(tmp_path / "clip.avi")
    found = predict(detector, clip, settings=PredictSettings(draw=tmp_path / "drawn"))
    assert [one["frame"] for one in found] == [0, 1, 2, 3, 4]
    lefts = [one["predictions"][0]["box"][0] for one in found]
    assert all(one["predictions"][0]["label"] == "green" for one in found)
    assert lefts == [0.0, 16.0, 48.0, 80.0, 0.0]  # (column · 8 + 4 - 8) · 4, cut off at the edge
    assert "5 frames, " in caplog.text and "frames/s from reading to drawing" in caplog.text
    with Video(Source(tmp_path / "drawn/clip.mp4", Path("x"))) as drawn:
        frames = list(drawn)
        assert len(frames) == 5 and frames[0].shape == (128, 128, 3) and drawn.rate == pytest.approx(10)
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["clip.mp4"]
    assert len(predict(detector, clip, settings=PredictSettings(frames=2, bar=False))) == 2


def test_a_video_that_is_left_early_is_not_taken_for_whole(tmp_path: Path, detector: Artifact) -> None:
    clip = film(tmp_path / "clip.avi")
    found = predictions(detector, clip, settings=PredictSettings(draw=tmp_path / "drawn"))
    next(found)
    found.close()
    assert list((tmp_path / "drawn").iterdir()) == []


def test_what_a_camera_showed_until_it_was_stopped_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Canvas(tmp_path, Source(0, Path("camera-0")), 10.0) as canvas:
        canvas.put(red_at(0, 0, times=2))
        raise KeyboardInterrupt
    assert (tmp_path / "camera-0.mp4").is_file()


def test_what_a_place_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sources_of([0, "1"]) == [Source(0, Path("camera-0")), Source(1, Path("camera-1"))]
    assert str(Source(0, Path("x"))) == "camera 0" and Source(0, Path("x")).moves
    save(tmp_path / "7/a.png", red_at(0, 0))
    assert sources_of(["7"]) == [Source(Path("7/a.png"), Path("a.png"), True)]  # a folder by that name is a folder
    assert sources_of(["x/y.MP4"]) == [Source(Path("x/y.MP4"), Path("y.MP4"))]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in empty"):
        sources_of(["empty"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: place / "absent.png", "no such file; wanted a JPEG"),
        (lambda place: place / "absent.avi", "no such file; wanted a video"),
        (lambda place: (place / "text.avi").write_text("no video") and place / "text.avi", "wanted a video"),
        (lambda place: 99, "camera 99 cannot be opened"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, detector: Artifact, make: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        predict(detector, make(tmp_path))


def test_lines_of_a_failure_do_not_stand_in_their_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FeatherweightError), Lines(tmp_path / "x.jsonl") as lines:
        lines.put(b"{}")
        raise FeatherweightError("no")
    assert not (tmp_path / "x.jsonl").exists() and "what was written before the failure is in" in caplog.text
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Lines(tmp_path / "file" / "x.jsonl")


def test_the_verb(tmp_path: Path, detector: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    picture, clip = save(tmp_path / "a.png", red_at(1, 2)), film(tmp_path / "clip.avi", 2)
    (tmp_path / "black").mkdir()
    black = save(tmp_path / "black/b.png", np.zeros((8, 8, 3), np.uint8))
    place = str(detector.path)
    assert main(["predict", place, str(picture), str(clip), str(tmp_path / "black")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{picture}: red 100.0 % at 12,4–28,20"
    assert out[1].startswith(f"{clip} frame 0: green") and out[3] == f"{black}: nothing"
    assert main(["predict", place, str(picture), "--lines", "--output", str(tmp_path / "x.jsonl")]) == 0
    line = capsys.readouterr().out
    assert json.loads(line) == json.loads((tmp_path / "x.jsonl").read_text())
    assert main(["predict", place, str(picture), "--json", "--score", "2"]) == 2
    assert "score 2; wanted 0 to 1" in capsys.readouterr().err


def test_a_worker_scores_and_times_a_detector(tmp_path: Path, detector: Artifact) -> None:
    pytest.importorskip("hotcoco")
    places = [(0, 0), (1, 2), (3, 3)]
    files = [save(tmp_path / f"{n}.png", red_at(*place, times=2)) for n, place in enumerate(places)]
    truth = [
        [2 * (8 * column - 4), 2 * (8 * row - 4), 2 * (8 * column + 12), 2 * (8 * row + 12)] for row, column in places
    ]
    targets = [true_boxes(np.clip([box], 0, 64), [0]).as_dict() for box in truth]
    with Worker(detector, "onnxruntime", Settings()) as worker:
        worker.load(memory=False)
        assert worker.ask("golden")["off"] < 1e-5
        worker.ask("inputs", paths=[str(file) for file in files], count=3)
        timed = worker.ask("time", seconds=0.0, runs=3)
        assert len(timed["post_ns"]) == 3
        assert len(worker.ask("total", seconds=0.0, runs=2)["total_ns"]) == 2
        found = worker.ask("accuracy", items=[(str(file), target) for file, target in zip(files, targets, strict=True)])
    score = found["score"]
    assert score["value"] == pytest.approx(1.0) and score["ap50"] == pytest.approx(1.0)
    assert (score["n"], score["metric"], score["right"]) == (3, "AP50:95", None)
    assert (found["checked"], found["off"]) == (3, 0.0)
