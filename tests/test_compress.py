"""A trained model compressed step by step: what is kept and refused, what a second run takes over, what is refused."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest

from featherweight.artifact import Step, read_artifact
from featherweight.compress import CompressSettings, compress, judged, timed_here
from featherweight.distill import DistillSettings
from featherweight.errors import OutputError, SettingError
from featherweight.measure import QUICK
from featherweight.prune import PruneSettings, Target
from featherweight.quantize import QuantizeSettings
from featherweight.record import read_records
from featherweight.train import TrainSettings
from featherweight.training import classify
from tests.pictures import write_folder
from tests.trained import SIZE, Trained

screen: Any = importlib.import_module("featherweight.measure.fastest")
module: Any = importlib.import_module("featherweight.compress")  # the package's own name is the verb
FAST = replace(QUICK, min_seconds=0.02, warmup_seconds=0.01, energy_window_seconds=0.0)
SETTINGS = CompressSettings(
    target=Target("macs", 0.6),
    distil=DistillSettings(TrainSettings(epochs=2, patience=2, batch_size=16, augment=False)),
    prune_loss=0.9,
    formats=("onnx",),
    threads=(1,),
    protocol=FAST,
)


@pytest.fixture(autouse=True)
def quick_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs of one runtime, and no pairs: what they say is `judged`'s to say here."""
    real = module.measure

    def by_one_runtime(artifacts: Any, data: Any, runtime: str, *rest: Any, **settings: Any) -> Any:
        return real(artifacts, data, "onnxruntime", *rest, **settings)

    monkeypatch.setattr(screen, "QUICK", FAST)
    for one in (module, screen):
        monkeypatch.setattr(one, "measure", by_one_runtime)
    monkeypatch.setattr(module, "hold", lambda *_: None)


@pytest.fixture(scope="module")
def model(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compress") / "colours.keras"
    trained.model.save(place)
    return place


def killed(*args: Any, **kwargs: Any) -> Any:
    raise KeyboardInterrupt


def test_all_the_way_and_on_from_where_it_was_killed(
    trained: Trained, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "judged", lambda _: (True, "as the test wants it"))
    with monkeypatch.context() as before_int8:
        before_int8.setattr(module, "quantize_within", killed)
        with pytest.raises(KeyboardInterrupt):
            compress(model, trained.folder, None, tmp_path / "out", SETTINGS)
    records = read_records(tmp_path / "out" / "records.jsonl")
    assert len(records) == 3
    monkeypatch.setattr(classify, "distill", killed)  # it is done already
    found = compress(model, trained.folder, None, tmp_path / "out", SETTINGS, "featherweight compress colours")
    assert [stage.name for stage in found.stages] == ["as it was", "prune", "distil", "int8"]
    assert all(stage.kept for stage in found.stages)
    assert read_records(tmp_path / "out" / "records.jsonl")[:3] == records
    assert found.stages[-1].record.size_bytes < records[0].size_bytes / 3
    assert found.fits and found.misses == ()
    assert [step.name for step in found.chosen.steps] == ["prune", "distill", "export", "quantize"]
    assert [proof.part for proof in found.proofs] == ["test", "test"]
    assert found.record.settings["command"] == "featherweight compress colours"
    pruned = read_artifact(tmp_path / "out" / "artifacts" / "pruned" / "colours-onnx-float32")
    whole = read_artifact(tmp_path / "out" / "artifacts" / "original" / pruned.name)
    assert pruned.macs is not None and whole.macs is not None and pruned.macs < 0.62 * whole.macs
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("<svg") == 3
    values = json.loads(json.dumps(found.as_dict()))
    assert [stage["kept"] for stage in values["stages"]] == [True] * 4
    with pytest.raises(OutputError, match="holds another compression"):
        compress(model, trained.folder, "size=1MB", tmp_path / "out", SETTINGS)


def test_what_does_not_pay_is_refused_unless_the_budget_takes_it(
    trained: Trained, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The float file has 830 kB, half of its MACs 500, int8 260."""
    monkeypatch.setattr(module, "judged", lambda _: (False, "as the test wants it"))
    found = compress(model, trained.folder, "size=400kB", tmp_path / "out", SETTINGS)
    assert [(stage.name, stage.kept) for stage in found.stages] == [
        ("as it was", True), ("prune", False), ("int8", True)
    ]  # fmt: skip
    assert found.stages[-1].why == "the budget takes it; as the test wants it"
    assert found.fits
    assert [step.name for step in found.chosen.steps] == ["export", "quantize"]
    assert "prune, refused" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_too_much_accuracy_lost_refuses_pruning_and_a_budget_may_be_out_of_reach(
    trained: Trained, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "judged", lambda _: (True, "as the test wants it"))
    monkeypatch.setattr(module, "SHARES", (0.75, 0.01))
    untaught = lambda student, *_: (keras.models.clone_model(student), Step("distill", {}))  # noqa: E731
    monkeypatch.setattr(classify, "distill", untaught)  # new weights: a guess
    settings = replace(SETTINGS, target=None, prune_loss=0.0)
    found = compress(model, trained.folder, "size=1kB", tmp_path / "out", settings)
    prune, distil = found.stages[1:3]
    assert not prune.kept and not distil.kept
    assert "at most 0.0 points may be lost" in prune.why and prune.why.endswith("as the test wants it")
    assert [step.name for step in found.chosen.steps] == ["export", "quantize"]
    assert not found.fits
    assert "file size is" in found.misses[0]
    assert found.reasons == ("with 75% of the MACs left an untrained file still misses the budget",)


def test_a_layer_that_is_used_twice_and_the_criterion_taylor(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "judged", lambda _: (False, "as the test wants it"))
    image, relu = keras.Input((SIZE, SIZE, 3)), keras.layers.ReLU()
    x = relu(keras.layers.Conv2D(16, 3, strides=4)(keras.layers.Rescaling(1 / 255)(image)))
    x = keras.layers.GlobalAveragePooling2D()(relu(keras.layers.Conv2D(16, 3)(x)))
    one = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x), name="twice")
    found = compress(one, trained.dataset, None, tmp_path / "out", replace(SETTINGS, prune=PruneSettings("taylor")))
    assert found.reasons[0].startswith("not folded: a layer of twice is used more than once")
    assert [stage.name for stage in found.stages] == ["as it was", "prune", "int8"]


def test_a_model_without_channels_that_can_go_is_quantized_all_the_same(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "judged", lambda _: (True, "as the test wants it"))
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(1 / 255)(image)))
    one = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x), name="linear")
    found = compress(one, trained.dataset, None, tmp_path / "out", replace(SETTINGS, prune_loss=0.0))
    assert found.reasons[0].startswith("not pruned: linear has no channels that can go")
    assert [stage.name for stage in found.stages] == ["as it was", "int8"]


def test_the_time_of_a_model_is_measured_here(trained: Trained) -> None:
    timed = timed_here(("onnx",), (1,))
    assert 0 < timed(trained.model) < 1000
    image = keras.Input((None, None, 3))
    with pytest.raises(SettingError, match="of a fixed size"):
        timed(keras.Model(image, keras.layers.Conv2D(2, 1)(image)))
    image = keras.Input((8, 8, 3))
    with pytest.raises(SettingError, match="gives 2 answers; wanted one"):
        timed(keras.Model(image, [image, image]))


def two_classes(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "two", per_class=8)
    for picture in (folder / "red").iterdir():
        picture.unlink()
    (folder / "red").rmdir()
    return folder


def test_refusals(trained: Trained, model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="tells 3 classes apart and the data has 2"):
        compress(model, two_classes(tmp_path), None, tmp_path / "out", SETTINGS)
    image = keras.Input((None, None, 3))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(SettingError, match=r"wanted one picture \(n, height, width, 3\) of a fixed size"):
        compress(keras.Model(image, x), trained.dataset, None, tmp_path / "out", SETTINGS)
    image = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(SettingError, match="wanted RGB and one"):
        compress(keras.Model(image, x), trained.dataset, None, tmp_path / "out", SETTINGS)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(SettingError, match="wanted a softmax"):
        compress(keras.Model(image, x), trained.dataset, None, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        compress(model, trained.dataset, None, tmp_path / "mine", SETTINGS)
    with pytest.raises(OutputError, match="cannot write to"):
        compress(model, trained.dataset, None, tmp_path / "mine" / "thesis.txt" / "below", SETTINGS)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prune_loss": 1.0}, "prune_loss 1; wanted a share"),
        ({"max_loss": -0.1}, "max_loss -0.1; wanted a share"),
        ({"formats": ("pb",)}, "format pb; known: onnx, litert"),
        ({"formats": ()}, "format none; known"),
        ({"seed": -1}, "seed -1; wanted 0"),
        ({"quantize": QuantizeSettings("float16")}, "wanted neither"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        CompressSettings(**wrong)


@pytest.mark.parametrize(
    ("word", "sizes", "pays"),
    [
        ("faster", (100, 100), True),
        ("faster", (300, 100), True),
        ("no difference shown", (94, 100), True),
        ("no difference shown", (96, 100), False),
        ("slower", (10, 100), False),
    ],
)
def test_what_pays(word: str, sizes: tuple[int, int], pays: bool) -> None:
    a, b = (SimpleNamespace(artifact=SimpleNamespace(size_bytes=size)) for size in sizes)
    assert judged(SimpleNamespace(a=a, b=b, speed=SimpleNamespace(word=word)))[0] is pays  # type: ignore[arg-type]
