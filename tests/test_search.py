from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featherweight import search
from featherweight.budget import parse_budget
from featherweight.data import Dataset, Item
from featherweight.errors import DataError, ExportError, OutputError, SettingError
from featherweight.measure import QUICK as QUICK_PROTOCOL
from featherweight.measure import Protocol
from featherweight.models.zoo import Shape, build
from featherweight.record import Record, read_records
from featherweight.search import SearchSettings, candidates, choose, default_sizes, fit
from featherweight.train import TrainSettings
from featherweight.training import LADDER
from tests.make import make_record
from tests.trained import Trained

QUICK = SearchSettings(
    models=("mobilenet_v1",),
    widths=(0.25,),
    sizes=(40,),
    formats=("onnx",),
    threads=(1,),
    train=TrainSettings(epochs=12, patience=12, batch_size=16, learning_rate=1e-2, augment=False),
    protocol=replace(QUICK_PROTOCOL, min_seconds=0.05, warmup_seconds=0.01, energy_window_seconds=0.05),
)


@pytest.fixture(autouse=True)
def quick_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "QUICK", QUICK.protocol)


def test_fit_finds_the_lightest_and_stops_before_the_heavier(trained: Trained, tmp_path: Path) -> None:
    settings = replace(QUICK, widths=(1.0, 0.25))
    found = fit(trained.folder, "accuracy>=0.5,size=4MB", tmp_path / "out", None, settings, "featherweight fit colours")
    assert found.fits
    assert found.chosen is not None
    assert found.record is not None
    assert found.chosen.name.startswith("mobilenet_v1-0.25-40-onnx")
    assert found.record.part == "test"
    assert found.record.settings["command"] == "featherweight fit colours"
    assert {record.part for record in found.records} == {"val"}
    assert {record.precision for record in found.records} == {"int8", "float32"}
    assert any("stopped" in reason and "mobilenet_v1-1-40" in reason for reason in found.reasons)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "artifacts", "models", "proof.jsonl", "proof.samples", "records.jsonl", "records.samples", "screen.jsonl",
        "screen.samples",
    }  # fmt: skip
    assert read_records(tmp_path / "out" / "records.jsonl") == list(found.records)
    assert [step.name for step in found.chosen.steps][:3] == ["build", "train", "export"]


def test_a_budget_nobody_can_meet_trains_nothing_and_names_the_nearest(trained: Trained, tmp_path: Path) -> None:
    found = fit(trained.folder, "size=10kB", tmp_path / "out", None, QUICK)
    assert not found.fits
    assert found.chosen is None
    assert found.record is not None
    assert found.record.precision == "int8"  # the smaller of the two misses by less
    assert "file size is" in str(found.violations[0])
    assert any("was not trained" in reason for reason in found.reasons)
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_an_output_that_is_not_empty_is_left_alone_and_bad_data_leaves_no_folder(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        fit(trained.folder, "size=1MB", tmp_path, None, QUICK)
    with pytest.raises(OutputError, match="cannot write to"):
        fit(trained.folder, "size=1MB", tmp_path / "mine.txt" / "below", None, QUICK)
    with pytest.raises(DataError, match="no folder"):
        fit(tmp_path / "absent", "size=1MB", tmp_path / "new", None, QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_written_among_the_pictures(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(trained.folder.rglob("*"))
    monkeypatch.chdir(trained.folder)
    for data, output in ((".", None), (trained.folder, trained.folder / "out"), (trained.folder, "red/out")):
        with pytest.raises(OutputError, match="lies among the pictures"):
            fit(data, "size=1MB", output, None, QUICK)
    assert sorted(trained.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"seed": -1}, "seed -1; wanted 0 to"),
        ({"seed": 2**32}, "seed 4294967296"),
        ({"protocol": Protocol(min_runs=10)}, "10 runs; a p50 wants at least 11"),
        ({"formats": ()}, "no format"),
    ],
)
def test_settings_that_would_fail_late_are_refused_at_once(bad: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        replace(QUICK, **bad)  # type: ignore[arg-type]


def test_the_screen_leaves_room_for_noise_in_time_only() -> None:
    limits = search.with_slack(parse_budget("latency_p50=1ms,size=1MB"))
    assert limits.bound("latency_p50") == search.SCREEN_SLACK
    assert limits.bound("size") == 1e6


def test_a_candidate_whose_files_cannot_be_made_is_not_trained(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ExportError("the ONNX converter failed: no such operator")

    monkeypatch.setattr(search, "export", fails)
    found = fit(trained.folder, "size=1MB", tmp_path / "out", None, QUICK)
    assert not found.fits
    assert found.record is None
    assert any("no such operator" in reason for reason in found.reasons)
    assert any("none of its files could be made" in reason for reason in found.reasons)


def test_cold_starts_and_throughput_only_where_the_budget_asks() -> None:
    full = Protocol()
    assert search._lean(full, parse_budget("size=1MB")) == replace(full, cold_starts=0, throughput_seconds=0)
    assert search._lean(full, parse_budget("cold_start=1s")) == replace(full, throughput_seconds=0)
    assert search._lean(full, parse_budget("throughput=9,cold_start=1s")) == full


def test_default_outputs_are_numbered(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(search._claim(None, trained.folder)) for _ in range(2)] == ["fit-colours", "fit-colours-2"]


def sized(side: int) -> Dataset:
    item = Item(Path("x"), 0, "train", "", "", side, 2 * side)
    return Dataset(Path("x"), ("a", "b"), (item,), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "sizes"), [(8, (48, 64)), (32, (48, 64)), (100, (96, 128)), (500, (192, 224)), (224, (192, 224))]
)
def test_sizes_follow_the_pictures(side: int, sizes: tuple[int, ...]) -> None:
    assert default_sizes(sized(side)) == sizes


def test_candidates_follow_what_was_asked() -> None:
    data = sized(100)
    assert len(candidates(data, None, SearchSettings())) == 2 * len(LADDER)
    asked = SearchSettings(models=("mobilenet_v2",), widths=(0.2, 0.3), sizes=(64,))
    assert candidates(data, None, asked) == (Shape("mobilenet_v2", 0.2, 64), Shape("mobilenet_v2", 0.3, 64))
    assert {s.net for s in candidates(data, None, SearchSettings(models=("mobilenet_v1",)))} == {"mobilenet_v1"}
    off_the_ladder = candidates(data, None, SearchSettings(models=("shufflenet_v2", "mobilenet_v2"), sizes=(64,)))
    assert [(s.net, s.width) for s in off_the_ladder] == [
        ("mobilenet_v2", 0.35), ("mobilenet_v2", 0.75), *(("shufflenet_v2", width) for width in (0.5, 1.0, 1.5, 2.0))
    ]  # fmt: skip
    with pytest.raises(SettingError, match="unknown model"):
        SearchSettings(models=("resnet",))
    with pytest.raises(SettingError, match="unknown format or precision 'int4'"):
        SearchSettings(precisions=("int4",))


def test_branches_for_training_are_folded_before_the_export(tmp_path: Path) -> None:
    shape = Shape("mobileone_s0", 0.25, 32)
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    settings = SearchSettings(formats=("onnx",), precisions=("float32",))
    model = build(shape, 2)
    about = search._Written(shape, ("a", "b"), (), "stretch")
    (artifact,) = search._export_all(model, about, pictures, settings, tmp_path, [])
    assert [step.name for step in artifact.steps] == ["fold_branches", "export"]
    assert artifact.parameters < model.count_params() / 3


def test_a_weights_file_decides_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "identify", lambda _: [("mobilenet_v1", 0.25)])
    assert candidates(sized(100), "w.h5", SearchSettings(sizes=(96,))) == (Shape("mobilenet_v1", 0.25, 96),)
    on_it = SearchSettings(models=("unet_light", "fast_scnn"), sizes=(96,))  # one stands on it, one on none
    assert candidates(sized(100), "w.h5", on_it) == (Shape("unet_light", 0.25, 96),)
    with pytest.raises(SettingError, match="nothing to try"):
        candidates(sized(100), "w.h5", SearchSettings(models=("mobilenet_v2",)))
    with pytest.raises(SettingError, match="nothing to try"):
        candidates(sized(100), "w.h5", SearchSettings(widths=(0.5,)))


def record(name: str, p50: float, size: float, accuracy: float, margin: float = 0.01) -> Record:
    return make_record(
        name=name,
        latency_p50_ms=p50,
        latency_p50_interval_ms=(p50 * 0.99, p50 * 1.01),
        size_bytes=size,
        accuracy=accuracy,
        accuracy_interval=(accuracy - margin, min(1.0, accuracy + margin)),
    )


def chosen(records: list[Record], budget: str) -> str:
    return choose([(None, one) for one in records], parse_budget(budget))[1].name  # type: ignore[misc]


def test_with_a_floor_the_fastest_that_fits_wins() -> None:
    records = [record("fast", 1, 1e6, 0.85), record("middle", 2, 1e6, 0.91), record("slow", 3, 1e6, 0.99)]
    assert chosen(records, "accuracy>=0.9") == "middle"
    assert chosen(records, "accuracy>=0.8") == "fast"


def test_without_a_floor_the_lightest_that_is_not_shown_to_be_worse_wins() -> None:
    records = [record("poor", 1, 1e6, 0.70), record("near", 2, 1e6, 0.975), record("best", 3, 1e6, 0.98)]
    assert chosen(records, "size=4MB") == "near"
    assert chosen(records, "size=4MB,latency_p50=1.5ms") == "poor"


def test_where_latency_does_not_tell_the_smaller_file_wins() -> None:
    assert chosen([record("large", 1.0, 2e6, 0.95), record("small", 1.01, 1e6, 0.95)], "accuracy>=0.9") == "small"
    assert chosen([record("large", 1.0, 2e6, 0.95), record("small", 1.2, 1e6, 0.95)], "accuracy>=0.9") == "large"


def test_where_nothing_fits_the_nearest_is_the_one_that_misses_least() -> None:
    records = [record("half", 1, 2e6, 0.9), record("tenth", 2, 1.1e6, 0.9)]
    assert chosen(records, "size=1MB") == "tenth"
    with pytest.raises(SettingError, match="no records"):
        choose([], parse_budget("size=1MB"))


def test_the_search_stops_only_when_the_rest_cannot_be_lighter() -> None:
    fits = [(None, record("fits", 1, 1e6, 0.95))]
    heavier = search._Screened(Shape("mobilenet_v1", 1.0, 64), (record("h", 2, 1e6, 0.5),), ())
    alike = search._Screened(Shape("mobilenet_v2", 0.5, 64), (record("a", 1.01, 1e6, 0.5),), ())
    floor, none = parse_budget("accuracy>=0.9"), parse_budget("size=4MB")
    assert "cannot" not in (search._why_stop(floor, fits, [heavier]) or "")  # type: ignore[arg-type]
    assert "were slower in every variant" in (search._why_stop(floor, fits, [heavier]) or "")  # type: ignore[arg-type]
    assert search._why_stop(floor, fits, [alike, heavier]) is None  # type: ignore[arg-type]
    assert search._why_stop(parse_budget("accuracy>=0.99"), fits, [heavier]) is None  # type: ignore[arg-type]
    assert search._why_stop(none, fits, [heavier]) is None  # type: ignore[arg-type]
    assert search._why_stop(floor, fits, []) is None  # type: ignore[arg-type]
    perfect = [(None, record("perfect", 1, 1e6, 1.0))]
    assert "were slower in every variant" in (search._why_stop(none, perfect, [heavier]) or "")  # type: ignore[arg-type]
    assert search._why_stop(none, perfect, [alike]) is None  # type: ignore[arg-type]
