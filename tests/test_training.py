"""The training world by task: detectors go the same ways as classifiers. Pieces are wired, not accurate."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.artifact import read_artifact
from featherweight.budget import parse_budget
from featherweight.cli import main
from featherweight.compress import CompressSettings, compress, timed_here
from featherweight.data import Dataset, read_dataset
from featherweight.detect.settings import DetectSettings
from featherweight.distill import DistillSettings
from featherweight.errors import BudgetError, OutputError, SettingError
from featherweight.measure import QUICK
from featherweight.models.detectors import detector
from featherweight.models.heads import classes_of_model, decoding_of_model
from featherweight.models.kept import kept_in
from featherweight.models.load import load_model, save_model
from featherweight.models.zoo import Shape
from featherweight.prune import PruneSettings, Target, apply, plan
from featherweight.search import SearchSettings, check_qualities, fit
from featherweight.train import TrainSettings, set_seed
from featherweight.training import about_of, changed, rule_of, training_of
from featherweight.training.detect import TaughtSettings
from featherweight.training.start import starts
from featherweight.training.verbs import ExportSettings, LearnSettings, export, train
from tests.rectangles import CLASSES, rectangles_folder
from tests.test_detectors import anchored
from tests.trained import Trained

FAST = replace(QUICK, min_seconds=0.02, warmup_seconds=0.01, energy_window_seconds=0.0, cold_starts=0)
SHORT = {"epochs": 2, "patience": 2, "augment": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rectangles_folder(tmp_path_factory.mktemp("boxes") / "rectangles")


@pytest.fixture(scope="module")
def boxes(folder: Path) -> Dataset:
    dataset = read_dataset(folder)
    assert (dataset.task, dataset.classes, len(dataset.items)) == ("detect", CLASSES, 24)
    return dataset


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with anchors, of three other classes, in a file."""
    place = tmp_path_factory.mktemp("models") / "small.keras"
    anchored().save(place)
    return place


@pytest.fixture(scope="module")
def learnt(small: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It for the classes of the data, trained until it finds something."""
    place = tmp_path_factory.mktemp("learnt") / "learnt.keras"
    how = {"epochs": 40, "patience": 40, "learning_rate": 2e-2, "augment": False, "batch_size": 7, "mosaic": 0.0}
    found = train(small, folder, place, LearnSettings(changes=how))
    assert found.step.settings["ap50_val"] > 0.05
    return place


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs of one runtime, and no pairs."""
    for name in ("search", "measure.fastest", "compress"):
        module: Any = importlib.import_module(f"featherweight.{name}")
        real = importlib.import_module("featherweight.measure").measure

        def by_one_runtime(artifacts: Any, data: Any, runtime: str, *rest: Any, real: Any = real, **more: Any) -> Any:
            return real(artifacts, data, "onnxruntime", *rest, **more)

        monkeypatch.setattr(module, "measure", by_one_runtime)
        if name != "compress":
            monkeypatch.setattr(module, "QUICK", FAST)
    monkeypatch.setattr(module, "hold", lambda *_: None)
    monkeypatch.setattr(module, "judged", lambda _: (True, "as the test wants it"))


# --------------------------------------------------------------------------------------------------------- pieces


def test_rules_follow_the_end_of_the_model(trained: Trained, small: Path) -> None:
    free = detector(Shape("mobilenet_v1", 0.25, 64), CLASSES)
    assert [rule_of(model) for model in (trained.model, free, load_model(small))] == ["stretch", "stretch", "bilinear"]
    about = about_of(free, "free", CLASSES, ())
    assert (about.task, about.resize, about.decoding) == ("detect", "stretch", decoding_of_model(free))
    about = about_of(trained.model, "colours", ("a", "b", "c"), (), "letterbox")
    assert (about.task, about.resize, about.decoding) == ("classify", "letterbox", None)


def test_settings_are_changed_where_they_are() -> None:
    found = changed(TaughtSettings(), {"epochs": 3, "alpha": 0.2, "hue": 0.0})
    assert (found.detect.train.epochs, found.alpha, found.detect.hue) == (3, 0.2, 0.0)
    assert changed(TrainSettings(), {}) == TrainSettings()
    with pytest.raises(SettingError, match="unknown setting 'colour'; known: augment, "):
        changed(DistillSettings(), {"colour": 1})


def test_worlds_and_what_they_refuse(boxes: Dataset, trained: Trained, small: Path) -> None:
    with pytest.raises(SettingError, match="unknown task 'depth'; known: classify, detect, segment"):
        training_of("depth")
    with pytest.raises(SettingError, match="unknown resize 'squeeze'"):
        training_of("detect", "squeeze")
    detect, classify = training_of("detect"), training_of("classify")
    assert detect.sizes(boxes) == (96,)
    assert detect.sizes(replace(boxes, items=tuple(replace(i, height=480, width=640) for i in boxes.items))) == (
        256, 320
    )  # fmt: skip
    model = load_model(small)
    with pytest.raises(SettingError, match="finds 3 classes and the data has red, blue"):
        detect.check(model, boxes)
    with pytest.raises(SettingError, match="is no detector"):
        detect.started(trained.model, boxes, 0)
    with pytest.raises(SettingError, match="wanted a softmax"):
        classify.check(model, trained.dataset)
    with pytest.raises(SettingError, match="TrainSettings for the task detect; wanted DetectSettings"):
        detect.train(model, boxes, TrainSettings(), False)
    with pytest.raises(SettingError, match="DetectSettings for the task classify; wanted TrainSettings"):
        classify.train(trained.model, trained.dataset, DetectSettings(), False)
    with pytest.raises(SettingError, match="trained with resize letterbox; wanted stretch or bilinear"):
        training_of("detect", "letterbox").train(model, boxes, DetectSettings(), False)
    with pytest.raises(BudgetError, match="ap50 in the budget, and these data are to classify"):
        check_qualities(parse_budget("ap50>=0.5"), classify)
    check_qualities(parse_budget("ap50>=0.5,accuracy>=0.2"), detect)


def test_a_detector_for_other_classes_gets_anchors_of_the_data(boxes: Dataset, small: Path) -> None:
    model, knows = training_of("detect").started(load_model(small), boxes, 0)
    assert not knows
    assert classes_of_model(model) == CLASSES
    decoding = decoding_of_model(model)
    sides = [side for scale in decoding.scales for anchor in scale.anchors for side in anchor]
    assert min(sides) >= 7 and max(sides) <= 14  # boxes of 14 to 28 pixels, in pictures that shrink by half
    again, knows = training_of("detect").started(model, boxes, 0)
    assert knows and again is model


def test_a_start_at_other_sizes(small: Path, trained: Trained, tmp_path: Path) -> None:
    (own,) = starts(small)
    assert (str(own), own.size) == ("small-32", (32, 32))
    assert [str(one) for one in starts(small, (32, 64))] == ["small-32", "small-64"]
    trained.model.save(tmp_path / "colours.keras")
    with pytest.raises(SettingError, match="takes pictures of 40×40; leave --sizes out"):
        starts(tmp_path / "colours.keras", (48,))


def test_pruning_keeps_the_rows_of_a_detector(boxes: Dataset, learnt: Path) -> None:
    model = load_model(learnt)
    world = training_of("detect")
    items = boxes.part("train")
    pixels = np.zeros((len(items), 32, 32, 3), np.uint8)
    settings = PruneSettings("taylor", multiple_of=1)
    smaller, _ = apply(
        model, plan(model, Target("macs", 0.5), settings, pictures=world.pictures(model, items, pixels, "bilinear"))
    )
    assert decoding_of_model(smaller) == decoding_of_model(model)
    assert smaller.output_shape == model.output_shape
    assert smaller.count_params() < model.count_params()


# ------------------------------------------------------------------------------------------------------ the ways


def test_fit_of_boxes(folder: Path, tmp_path: Path) -> None:
    settings = SearchSettings(
        models=("mobilenet_v1",), widths=(0.25,), sizes=(64,), formats=("onnx",), precisions=("float32",), threads=(1,),
        changes={**SHORT, "epochs": 1}, protocol=FAST,
    )  # fmt: skip
    found = fit(folder, "size=4MB,ap50>=0", tmp_path / "out", None, settings)
    assert found.fits, found.violations
    assert [(r.task, r.metric, r.precision) for r in found.records] == [("detect", "AP50:95", "float32")]
    assert all(record.ap50 is not None for record in found.records)
    assert found.record is not None and found.record.part == "test"
    chosen = read_artifact(found.chosen.path)
    assert (chosen.task, chosen.classes, chosen.resize) == ("detect", CLASSES, "stretch")
    assert chosen.decoding is not None and chosen.decoding.kind == "distances"
    assert [step.name for step in chosen.steps][:2] == ["build", "train_detector"]


def test_fit_from_a_model_at_hand(small: Path, folder: Path, tmp_path: Path) -> None:
    settings = SearchSettings(
        start=str(small), formats=("onnx",), precisions=("float32",), threads=(1,), changes=SHORT, protocol=FAST
    )
    found = fit(folder, "size=4MB", tmp_path / "out", None, settings)
    assert found.fits
    assert found.chosen.name == "small-32-onnx-float32"
    assert (found.chosen.resize, found.chosen.classes) == ("bilinear", CLASSES)
    assert found.chosen.steps[0].settings["start"] == "small"
    with pytest.raises(SettingError, match="weights imagenet beside the start"):
        fit(folder, "size=4MB", tmp_path / "again", "imagenet", settings)
    with pytest.raises(SettingError, match="models or widths beside the start"):
        replace(settings, widths=(0.5,))


def test_compress_a_detector(learnt: Path, folder: Path, tmp_path: Path) -> None:
    settings = CompressSettings(
        target=Target("macs", 0.7), prune=PruneSettings(multiple_of=1), changes=SHORT, prune_loss=0.9, max_loss=0.9,
        formats=("onnx",), threads=(1,), protocol=FAST,
    )  # fmt: skip
    found = compress(learnt, folder, None, tmp_path / "out", settings)
    assert [stage.name for stage in found.stages] == ["as it was", "prune", "distil", "int8"], found.reasons
    assert {stage.record.metric for stage in found.stages} == {"AP50:95"}
    # From the training before, which the model's file keeps, to the last step.
    names = ["train_detector", "prune", "train_detector", "export", "quantize"]
    assert [step.name for step in found.chosen.steps] == names
    assert found.chosen.steps[2].settings["distillation"]["teacher"] == "anchored"
    assert found.chosen.decoding == decoding_of_model(load_model(learnt))
    assert (found.chosen.resize, found.chosen.classes) == ("bilinear", CLASSES)
    assert "AP50:95" in found.stages[2].why and "% on val" in found.stages[2].why
    assert "<figure>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    step = found.chosen.steps[-1].settings
    assert step["scored_by"] == "score" and step["score_float32"] >= found.stages[2].record.accuracy  # AP50
    assert json.loads(json.dumps(found.as_dict()))["fits"]


def test_the_time_of_a_detector_is_measured_here(learnt: Path) -> None:
    assert 0 < timed_here(("onnx",), (1,))(load_model(learnt)) < 1000


def test_train_and_export_by_the_command_line(
    small: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = tmp_path / "new.keras", tmp_path / "artifacts"
    short = ("--epochs", "1", "--no-augment")
    assert main(["train", str(small), "--data", str(folder), "--output", str(place), *short, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == str(place) and told["step"]["settings"]["train"]["epochs"] == 1
    assert classes_of_model(load_model(place)) == CLASSES
    kept = kept_in(place)
    assert [step.name for step in kept.steps] == ["train_detector"] and kept.classes == CLASSES
    assert [file.name for file in tmp_path.iterdir()] == ["new.keras"]
    assert main(["train", str(small), "--data", str(folder), "--output", str(place)]) == 2
    assert "exists" in capsys.readouterr().err
    pictures = str(folder / "images" / "train")
    arguments = ["export", str(place), "--calibration", pictures, "--format", "onnx", "--output", str(out)]
    assert main([*arguments, "--precisions", "float32,int8"]) == 0
    for precision in ("float32", "int8"):
        made = read_artifact(out / f"new-onnx-{precision}")
        assert (made.task, made.classes, made.resize, made.precision) == ("detect", CLASSES, "bilinear", precision)
        assert made.decoding == decoding_of_model(load_model(place))
        assert [step.name for step in made.steps][:2] == ["train_detector", "export"]
    assert "new-onnx-int8" in capsys.readouterr().out
    assert main(["export", str(small), "--data", str(folder)]) == 2
    assert "finds 3 classes and the data has red, blue" in capsys.readouterr().err


def test_export_of_a_classifier_and_of_a_detector_without_names(
    trained: Trained, small: Path, folder: Path, tmp_path: Path
) -> None:
    trained.model.save(tmp_path / "colours.keras")
    (made,) = export(
        tmp_path / "colours.keras", tmp_path / "out", trained.folder, settings=ExportSettings(formats=("onnx",))
    )
    assert (made.task, made.classes, made.resize) == ("classify", trained.dataset.classes, "stretch")
    picture = folder / "images" / "val" / "0.png"
    settings = ExportSettings(formats=("onnx",), precisions=("int8",), resize="letterbox")
    (made,) = export(small, tmp_path / "out", pictures=[picture], settings=settings)
    assert (made.classes, made.resize) == (("class 0", "class 1", "class 2"), "letterbox")
    assert [path.name for path in (tmp_path / "out").iterdir() if "small" in path.name] == ["small-onnx-int8"]
    with pytest.raises(SettingError, match="1 names for the 3 classes"):
        export(small, tmp_path / "new", pictures=[picture], settings=replace(settings, classes=("one",)))
    with pytest.raises(OutputError, match="exists"):
        export(small, tmp_path / "out", pictures=[picture], settings=settings)
    with pytest.raises(SettingError, match="wanted --data or --calibration"):
        export(small, tmp_path / "new")
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(SettingError, match="no pictures in"):
        export(small, tmp_path / "new", pictures=[tmp_path / "film.mp4"])
    for bad in ({"formats": ("pb",)}, {"precisions": ()}, {"resize": "squeeze"}):
        with pytest.raises(SettingError, match="known: "):
            ExportSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"wanted a name that ends in \.keras"):
        train(small, folder, tmp_path / "x.h5")
    image = keras.Input((8, 8, 3))
    keras.Model(image, [keras.layers.ReLU()(image), keras.layers.ReLU()(image)]).save(tmp_path / "two.keras")
    with pytest.raises(SettingError, match="gives 2 answers; wanted one"):
        export(tmp_path / "two.keras", tmp_path / "new", pictures=[picture])


def test_a_full_disk_costs_a_line_and_leaves_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, place: Path) -> None:
        Path(place).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    model = load_model(small)
    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*x\.keras: No space left on device"):
        save_model(model, tmp_path / "x.keras")
    assert not list(tmp_path.iterdir())


def test_training_a_classifier_on(trained: Trained, tmp_path: Path) -> None:
    set_seed(0)
    trained.model.save(tmp_path / "colours.keras")
    found = train(
        tmp_path / "colours.keras",
        trained.folder,
        tmp_path / "on.keras",
        LearnSettings(changes=SHORT, resize="bilinear"),
    )
    assert found.step.name == "train"
    assert found.step.settings["head_epochs"] == 0
    assert load_model(tmp_path / "on.keras").output_shape == trained.model.output_shape
