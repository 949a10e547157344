"""The training world of masks: segmenters go the ways of classifiers and detectors. Pieces are wired, not accurate."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.artifact import read_artifact
from featherweight.budget import parse_budget
from featherweight.compress import CompressSettings, compress
from featherweight.data import Dataset, load_pixels
from featherweight.detect.settings import DetectSettings
from featherweight.errors import BudgetError, SettingError
from featherweight.export import export as export_one
from featherweight.models.load import load_model
from featherweight.models.zoo import Shape
from featherweight.prune import PruneSettings, Target
from featherweight.search import SearchSettings, candidates, check_qualities, fit
from featherweight.segment.settings import SegmentSettings
from featherweight.segment.train import train_segmenter, trunk_layers
from featherweight.training import about_of, changed, names_of, training_of
from featherweight.training.segment import LADDER, TaughtSettings
from featherweight.training.verbs import ExportSettings, LearnSettings, export, train
from tests.discs import CLASSES, SIDE, masked, unet
from tests.test_training import FAST, SHORT, quick

__all__ = ["quick"]
LEARN = {"epochs": 12, "patience": 12, "learning_rate": 2e-2, "augment": False, "batch_size": 4}


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return masked(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def learnt(discs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    model, step = train_segmenter(unet(), discs, changed(SegmentSettings(), LEARN), False)
    assert step.settings["mean_iou_val"] > 0.8
    place = tmp_path_factory.mktemp("learnt") / "learnt.keras"
    model.save(place)
    return place


def of_side(data: Dataset, side: int) -> Dataset:
    return replace(data, items=tuple(replace(item, height=side, width=2 * side) for item in data.items))


def test_sizes_and_rules_follow_the_pictures(discs: Dataset) -> None:
    world = training_of("segment")
    assert [world.sizes(of_side(discs, side)) for side in (32, 128, 256, 2000)] == [
        (96,), (96, 128), (224, 256), (384, 512)
    ]  # fmt: skip
    model = unet()
    assert [world.rule(model, of_side(discs, side)) for side in (20, 64, 65)] == ["stretch", "stretch", "tile"]
    assert training_of("segment", "letterbox").rule(model, of_side(discs, 500)) == "letterbox"
    about = about_of(model, "tiny", CLASSES, (), "tile")
    assert (about.task, about.resize, about.decoding) == ("segment", "tile", None)
    assert names_of(model) == ("class 0", "class 1")
    assert len(names_of(unet(3))) == 3


def test_worlds_and_what_they_refuse(discs: Dataset, tmp_path: Path) -> None:
    world = training_of("segment")
    with pytest.raises(SettingError, match="tells 3 classes apart and the data has 2"):
        world.check(unet(3), discs)
    same = unet()
    assert world.started(same, discs, 0) == (same, True)
    other, knows = world.started(unet(3), discs, 0)
    assert (other.output_shape, knows) == (same.output_shape, False)
    with pytest.raises(SettingError, match="DetectSettings for the task segment; wanted SegmentSettings"):
        world.train(unet(), discs, DetectSettings(), False)
    with pytest.raises(SettingError, match="SegmentSettings for the task segment; wanted TaughtSettings"):
        world.distil(unet(), unet(), discs, SegmentSettings(), tmp_path / "state")
    with pytest.raises(SettingError, match="resize tile in the settings beside stretch"):
        world.train(unet(), discs, SegmentSettings(resize="tile"), False)
    with pytest.raises(BudgetError, match="ap50 in the budget, and these data are to segment"):
        check_qualities(parse_budget("ap50>=0.5"), world)
    check_qualities(parse_budget("accuracy>=0.5,iou>=0.2"), world)
    found = changed(TaughtSettings(), {"epochs": 3, "alpha": 0.2, "loss": "focal"})
    assert (found.segment.train.epochs, found.alpha, found.segment.loss) == (3, 0.2, "focal")


def test_usual_settings_follow_what_is_known() -> None:
    world = training_of("segment")
    known, trunk, nothing = world.usual(True, True), world.usual(True), world.usual(False)
    assert [how.train.head_epochs for how in (known, trunk, nothing)] == [0, 4, 0]
    assert nothing.train.epochs == 2 * trunk.train.epochs


def test_candidates_are_segmenters(discs: Dataset) -> None:
    shapes = candidates(discs, None, SearchSettings())
    assert [(shape.net, shape.width) for shape in shapes] == list(LADDER)
    world = training_of("segment")
    for net, width in LADDER[:2]:  # the others are built likewise: they have a trunk to start from
        model, knows = world.build(Shape(net, width, 64), CLASSES)
        assert (model.output_shape, knows) == ((None, 64, 64, 1), False)
        layers = {layer.name: layer for layer in model.layers}
        trunk = trunk_layers(model)
        assert 0 < sum(layers[name].count_params() for name in trunk) < model.count_params()
        assert "logits" not in trunk


def test_int8_is_held_against_mean_iou(discs: Dataset, learnt: Path, tmp_path: Path) -> None:
    items = discs.part("val")
    model = load_model(learnt)
    for rule in ("stretch", "tile"):
        pixels = load_pixels(items, SIDE, SIDE, rule=rule).take(items)
        file = export_one(model, tmp_path / rule, "onnx", about_of(model, "x", CLASSES, (), rule), pixels)
        found = training_of("segment").score(items, pixels)(file)
        assert 0.8 < found < 1


def test_fit_of_masks(discs: Dataset, tmp_path: Path) -> None:
    settings = SearchSettings(
        models=("mobilenet_v1",), widths=(0.25,), sizes=(32,), formats=("onnx",), precisions=("float32",),
        threads=(1,), changes={**SHORT, "epochs": 1}, protocol=FAST,
    )  # fmt: skip
    found = fit(discs, "size=4MB,iou>=0", tmp_path / "out", None, settings)
    assert found.fits, found.violations
    assert [(r.task, r.metric, r.precision) for r in found.records] == [("segment", "mean IoU", "float32")]
    chosen = read_artifact(found.chosen.path)
    assert (chosen.task, chosen.classes, chosen.resize) == ("segment", CLASSES, "stretch")
    assert [step.name for step in chosen.steps][:2] == ["build", "train_segmenter"]
    assert chosen.steps[1].settings["resize"] == "stretch"
    assert [one.name for one in found.answers] == [chosen.name] and len(found.answers[0].pictures) == 4  # of test


def test_compress_a_segmenter(learnt: Path, discs: Dataset, tmp_path: Path) -> None:
    settings = CompressSettings(
        target=Target("macs", 0.7), prune=PruneSettings("taylor", multiple_of=1), changes=SHORT, prune_loss=0.9,
        max_loss=0.9, formats=("onnx",), threads=(1,), protocol=FAST,
    )  # fmt: skip
    found = compress(learnt, discs, None, tmp_path / "out", settings)
    assert [stage.name for stage in found.stages] == ["as it was", "prune", "distil", "int8"], found.reasons
    assert {stage.record.metric for stage in found.stages} == {"mean IoU"}
    assert [step.name for step in found.chosen.steps] == ["prune", "train_segmenter", "export", "quantize"]
    assert found.chosen.steps[1].settings["distillation"]["teacher"] == "tiny"
    assert "mean IoU" in found.stages[2].why
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("<figure>") == 4  # pictures of test


def test_train_and_export_one_file(learnt: Path, discs: Dataset, tmp_path: Path) -> None:
    how = LearnSettings(changes={**SHORT, "batch_size": 4}, resize="tile")
    found = train(learnt, discs, tmp_path / "on.keras", how)
    assert found.step.settings["resize"] == "tile"
    assert found.step.settings["mean_iou_val"] > 0.7
    made = export(
        found.path, tmp_path / "out", discs, settings=ExportSettings(formats=("onnx",), precisions=("float32", "int8"))
    )
    # As it was trained, which the file keeps.
    assert [(one.precision, one.task, one.classes, one.resize) for one in made] == [
        (precision, "segment", CLASSES, "tile") for precision in ("float32", "int8")
    ]


def test_large_pictures_are_cut(tmp_path: Path) -> None:
    data = masked(tmp_path / "data", counts=(4, 2, 1), side=80)
    world: Any = training_of("segment")
    model, step = world.train(unet(), data, changed(SegmentSettings(), {**SHORT, "batch_size": 4}), False)
    assert step.settings["resize"] == "tile"
    (made,) = export(
        _saved(model, tmp_path / "cut.keras"), tmp_path / "out", data, settings=ExportSettings(formats=("onnx",))
    )
    assert made.resize == "tile"
    assert np.isfinite(step.settings["mean_iou_val"])


def _saved(model: Any, place: Path) -> Path:
    model.save(place)
    return place
