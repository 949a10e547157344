"""Masks of pictures, by a file of ours and by files of others: what is told, written and drawn."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from featherweight import masking, strips
from featherweight.artifact import described, read_artifact, read_names
from featherweight.cli import main
from featherweight.draw import BLACK, colour_of, draw_mask, palette_of
from featherweight.errors import ArtifactError, DataError, OutputError, RuntimeFailure, SettingError
from featherweight.predict import PredictSettings, predict
from tests.detector import make_detector
from tests.segmenter import CLASSES, FIELD, make_segmenter, patches, segmenter_bytes

CORAL = Path(__file__).parents[2] / "shared/data/coral-seg"
needs_coral = pytest.mark.skipif(not CORAL.is_dir(), reason="../shared/data/coral-seg is not here")


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def truth(pixels: np.ndarray) -> np.ndarray:
    """The class of each pixel."""
    return np.asarray((pixels[..., 0] > 0) + 2 * (pixels[..., 1] > 0), np.uint8)


def clear(mask: np.ndarray) -> np.ndarray:
    """Where the network cannot but find it: all that it sees is the same, and no corner is near."""
    square = np.ones((2 * FIELD + 1, 2 * FIELD + 1), np.uint8)
    same = np.asarray(cv2.erode(mask, square) == cv2.dilate(mask, square))
    same[[[0], [1], [-1], [-2]], [0, 1, -1, -2]] = False
    return same


def index_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_picture_larger_than_the_network(tmp_path: Path) -> None:
    artifact = make_segmenter(tmp_path / "net")
    assert read_artifact(artifact.path).resize == "tile"
    pixels = patches(100, 75)
    wanted = truth(pixels)
    settings = PredictSettings(masks=tmp_path / "masks", draw=tmp_path / "drawn")
    (found,) = predict(artifact, save(tmp_path / "a.bmp", pixels), settings=settings)
    mask = index_png(tmp_path / "masks/a.png")
    assert found["mask"] == str(tmp_path / "masks/a.png")
    assert mask.shape == wanted.shape and (mask == wanted)[clear(wanted)].all() and clear(wanted).mean() > 0.3
    assert {one["label"]: one["share"] for one in found["predictions"]} == {
        name: round(float((mask == place).mean()), 6) for place, name in enumerate(CLASSES)
    }
    shares = [one["share"] for one in found["predictions"]]
    assert shares == sorted(shares, reverse=True)
    with Image.open(tmp_path / "drawn/a.png") as drawn:
        assert drawn.size == (75, 100)
    with pytest.raises(OutputError, match=r"a\.png exists already; name another folder for masks"):
        predict(artifact, tmp_path / "a.bmp", settings=PredictSettings(masks=tmp_path / "masks"))
    assert len(predict(artifact, tmp_path / "a.bmp", top=1)[0]["predictions"]) == 1


@pytest.mark.parametrize(("rule", "height", "width"), [("stretch", 64, 96), ("letterbox", 64, 96), ("tile", 20, 90)])
def test_a_picture_of_another_size(tmp_path: Path, rule: str, height: int, width: int) -> None:
    artifact = described(read_artifact(make_segmenter(tmp_path / "net", "stretch").path), resize=rule)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    predict(artifact, save(tmp_path / "a.png", pixels), settings=PredictSettings(masks=tmp_path / "masks"))
    mask = index_png(tmp_path / "masks/a.png")
    assert mask.shape == (height, width)
    red, dark = slice(10, width // 2 - 10), slice(width // 2 + 10, width - 10)
    assert (mask[8:-8, red] == 1).all() and (mask[8:-8, dark] == 0).all()


@pytest.mark.parametrize("form", ["coco", "geojson"])
def test_outlines(tmp_path: Path, form: str) -> None:
    artifact = make_segmenter(tmp_path / "net")
    settings = PredictSettings(masks=tmp_path / "masks", polygons=form)
    (found,) = predict(artifact, save(tmp_path / "a.png", patches(70, 70)), settings=settings)
    mask, plain = index_png(tmp_path / "masks/a.png"), json.loads(json.dumps(found))["polygons"]
    pieces = plain if form == "coco" else [one["properties"] for one in plain["features"]]
    names = "category" if form == "coco" else "label"
    for place, name in enumerate(CLASSES[1:], start=1):
        assert sum(one["area"] for one in pieces if one[names] == name) == (mask == place).sum()


def test_what_is_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make_segmenter(tmp_path / "net")
    place = save(tmp_path / "a.png", patches(90, 120))
    predict(artifact, place, settings=PredictSettings(masks=tmp_path / "small"))
    monkeypatch.setattr(strips, "MAX_PIXELS", 5000)
    monkeypatch.setattr(masking, "MAX_PIXELS", 5000)
    monkeypatch.setattr(masking, "MOST_DRAWN", 90 * 120 // 9)
    predict(artifact, place, settings=PredictSettings(masks=tmp_path / "large", draw=tmp_path / "drawn"))
    assert np.array_equal(index_png(tmp_path / "small/a.png"), index_png(tmp_path / "large/a.png"))
    with Image.open(tmp_path / "drawn/a.png") as drawn:
        assert drawn.size == (40, 30)
    with pytest.raises(SettingError, match="polygons of 120×90 pixels; at most 5,000"):
        predict(artifact, place, settings=PredictSettings(polygons="coco"))
    place.write_bytes(place.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"a\.png: damaged PNG: truncated"):
        predict(artifact, place, settings=PredictSettings(masks=tmp_path / "bad"))
    assert not list((tmp_path / "bad").iterdir())


def test_a_video_has_a_mask_a_frame(tmp_path: Path) -> None:
    artifact = make_segmenter(tmp_path / "net")
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for seed in range(3):
        writer.write(cv2.cvtColor(patches(48, 64, seed), cv2.COLOR_RGB2BGR))
    writer.release()
    settings = PredictSettings(masks=tmp_path / "masks", draw=tmp_path / "drawn")
    found = predict(artifact, clip, settings=settings)
    assert [one["frame"] for one in found] == [0, 1, 2]
    assert sorted(path.name for path in (tmp_path / "masks/clip").iterdir()) == [f"{n:06d}.png" for n in range(3)]
    assert (tmp_path / "drawn/clip.mp4").is_file()


def test_masks_are_asked_of_segmenters_only(tmp_path: Path) -> None:
    detector = make_detector(tmp_path / "detector")
    for settings in (PredictSettings(masks=tmp_path / "m"), PredictSettings(polygons="coco")):
        with pytest.raises(SettingError, match="is to detect and gives no masks"):
            predict(detector, tmp_path / "a.png", settings=settings)
    with pytest.raises(SettingError, match="boxes of tiles are not joined"):
        described(detector, resize="tile")
    with pytest.raises(ArtifactError, match="boxes of tiles are not joined"):
        make_detector(tmp_path / "tiles", "tile")
    picture = save(tmp_path / "a.png", patches(8, 8))
    with pytest.raises(SettingError, match="unknown polygons 'svg'; known: coco, geojson"):
        predict(make_segmenter(tmp_path / "net"), picture, settings=PredictSettings(polygons="svg"))


# ----------------------------------------------------------------------------------------------- files of others


@pytest.fixture
def names(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text("\n".join(CLASSES) + "\n\nwhat follows is no name\n")
    return tmp_path / "names.txt"


@pytest.mark.parametrize("first", [True, False])
def test_a_foreign_file(tmp_path: Path, names: Path, first: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Channels first or last, its size left open."""
    file, pixels = tmp_path / "x.onnx", patches(48, 48)
    file.write_bytes(segmenter_bytes("s", first))
    picture, asked = str(save(tmp_path / "a.png", pixels)), ["--task", "segment", "--names", str(names)]
    assert main(["predict", str(file), picture, *asked, "--input", "48", "--masks", str(tmp_path / "m")]) == 0
    line = capsys.readouterr().out
    mask = index_png(tmp_path / "m/a.png")
    assert (mask == truth(pixels))[clear(truth(pixels))].all()
    assert line.startswith(f"{picture}: ") and f"red {100 * (mask == 1).mean():.1f} %" in line
    tiles = ["--resize", "tile", "--input", "32", "--masks", str(tmp_path / "t")]
    assert main(["predict", str(file), picture, *asked, *tiles]) == 0
    assert (index_png(tmp_path / "t/a.png") == mask).mean() > 0.98


def test_every_runtime_runs_a_foreign_file(tmp_path: Path, names: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(segmenter_bytes(32))
    loaded = described(read_artifact(tmp_path / "x.onnx"), "segment", read_names(names), "tile")
    assert loaded.foreign
    picture, masks = save(tmp_path / "a.png", patches(40, 50)), []
    for runtime in ("onnxruntime", "opencv", "openvino"):
        predict(loaded, picture, runtime, settings=PredictSettings(masks=tmp_path / runtime))
        masks.append(index_png(tmp_path / runtime / "a.png"))
    assert all((one == masks[0]).mean() > 0.999 for one in masks)


def test_what_is_said_of_a_file(tmp_path: Path, names: Path) -> None:
    artifact = make_segmenter(tmp_path / "net")
    (tmp_path / "x.onnx").write_bytes(segmenter_bytes())
    bare = read_artifact(tmp_path / "x.onnx")
    picture = save(tmp_path / "a.png", patches(8, 8))
    for made, said in (
        (lambda: described(artifact, "segment", CLASSES), "says itself its task"),
        (lambda: described(bare, "segment"), "--task and --names"),
        (lambda: described(bare, names=CLASSES), "--task and --names"),
        (lambda: described(bare, resize="crop"), "unknown resize 'crop'; known: stretch"),
        (lambda: predict(described(bare, "sort", CLASSES), picture), "unknown task 'sort'"),
        (lambda: read_names(tmp_path / "absent.txt"), "cannot be read"),
        (lambda: predict(described(bare, "classify", CLASSES), picture), r"answers \(1, 32, 32, 3\); wanted \(1, 3\)"),
    ):
        with pytest.raises(SettingError, match=said):
            made()
    for text in ("", "a\na\n"):
        names.write_text(text)
        with pytest.raises(SettingError, match="wanted a name a line, each once"):
            read_names(names)
    with pytest.raises(ArtifactError, match="or its task and their names with it"):
        predict(bare, picture)
    with pytest.raises(RuntimeFailure, match="How many classes has it"):
        predict(described(bare, "segment", (*CLASSES, "blue")), picture)


@needs_coral
@pytest.mark.parametrize(("name", "wanted"), [("dm05_", 0.961), ("", 0.979)])
def test_deeplab_agrees_with_the_masks_beside_it(tmp_path: Path, name: str, wanted: float) -> None:
    file = CORAL / f"deeplabv3_mnv2_{name}pascal_quant.tflite"
    loaded = described(read_artifact(file), "segment", read_names(CORAL / "pascal_voc_segmentation_labels.txt"))
    settings = PredictSettings(masks=tmp_path / "masks")
    (found,) = predict(loaded, CORAL / "bird_segmentation.bmp", "litert", settings=settings)
    true = index_png(CORAL / "bird_segmentation_mask.bmp")
    mask = index_png(tmp_path / "masks/bird_segmentation.png")
    assert (mask == true).mean() == pytest.approx(wanted, abs=0.0006)
    assert [one["label"] for one in found["predictions"]][:2] == ["background", "bird"]


# ------------------------------------------------------------------------------------------------------- drawing


def test_a_drawing_shows_classes_and_leaves_the_rest() -> None:
    pixels, mask = np.full((200, 300, 3), 100, np.uint8), np.zeros((200, 300), np.uint8)
    mask[50:150, 100:200] = 2
    mask[190:, :] = 255  # of no class
    shares: list[dict[str, Any]] = [{"label": "a", "share": 0.8}, {"label": "c", "share": 0.17}]
    drawn = draw_mask(pixels, mask, shares, ("a", "b", "c"))
    colour = np.array(colour_of(2))
    assert np.abs(drawn[100, 150] - (0.5 * colour + 50)).max() <= 1
    assert (drawn[100, 100] == colour).all() and (drawn[50, 150] == colour).all()  # the outline, on its own side
    assert (drawn[100, 98] == 100).all() and (drawn[195, 150] == 100).all() and (pixels == 100).all()
    assert (drawn[:20, :60] == colour).all(-1).any()  # the legend
    assert palette_of(3) == [BLACK, colour_of(1), colour_of(2)]
    assert draw_mask(pixels[:1, :1], mask[:1, :1], [], ("a",)).shape == (1, 1, 3)
