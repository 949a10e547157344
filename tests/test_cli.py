import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from featherweight.cli import main
from featherweight.errors import FeatherweightError
from featherweight.record import append_record, read_records
from tests.make import make_record
from tests.pictures import write_folder
from tests.trained import Trained


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", per_class=6)


def test_data_prints_the_audit(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "red" / "zz.jpg").write_text("no picture")  # 1 of 19 is over 5 %
    status, out, err = run(capsys, "data", photos)
    assert status == 2
    assert out == "1 bad pictures\n  red/zz.jpg: not a JPEG, PNG, BMP, WebP or GIF file\n"
    assert f"1 of 19 pictures in {photos} are bad, more than 5 %; the first: red/zz.jpg: not a JPEG" in err
    status, out, _ = run(capsys, "data", photos, "--json")
    assert status == 2
    assert [bad["file"] for bad in json.loads(out)["bad"]] == ["red/zz.jpg"]
    (photos / "red" / "zz.jpg").unlink()
    status, out, _ = run(capsys, "data", photos)
    assert status == 0
    assert "18 pictures, 3 classes" in out
    status, out, _ = run(capsys, "data", photos, "--json", "--split", "0.2,0.2")
    audit = json.loads(out)
    assert audit["pictures"] == 18
    assert sum(sum(classes.values()) for classes in audit["counts"].values()) == 18


def test_predict_names_the_colour(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = sorted((trained.folder / "red").glob("*.png"))[:5]
    artifact = trained.artifacts["litert-int8"].path
    status, out, _ = run(capsys, "predict", artifact, *pictures, "--json", "--top", 2)
    results = json.loads(out)
    assert status == 0
    assert [result["image"] for result in results] == [str(picture) for picture in pictures]
    assert sum(result["predictions"][0]["label"] == "red" for result in results) >= 3
    assert all(len(result["predictions"]) == 2 for result in results)
    status, out, _ = run(capsys, "predict", trained.artifacts["onnx-float32"].path, pictures[0])
    assert status == 0
    assert out.startswith(f"{pictures[0]}: ")
    assert out.count(" %") == 3


def test_measure_appends_and_compare_shows(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, page = tmp_path / "records.jsonl", tmp_path / "report.html"
    common = ("--data", trained.folder, "--threads", "1", "--runtime", "onnxruntime", "--quick", "--output", records)
    for kind in ("onnx-int8", "onnx-float32"):
        status, out, _ = run(capsys, "measure", trained.artifacts[kind].path, *common)
        assert status == 0
        assert "top-1" in out
        assert f"appended to {records}" in out
    assert len(read_records(records)) == 2
    assert read_records(records)[0].settings["command"].startswith("featherweight measure ")
    status, _, err = run(capsys, "compare", records)
    assert status == 2
    assert "quick" in err
    records.write_text("".join(replace(one, quick=False).to_json() + "\n" for one in read_records(records)))
    status, out, _ = run(capsys, "compare", records, "--output", page, "--csv", tmp_path / "all.csv")
    assert status == 0
    assert "beaten by none" in out
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 3
    assert "<svg" in page.read_text(encoding="utf-8")
    status, out, _ = run(capsys, "compare", records, "--budget", "size=1B", "--json")
    assert status == 1
    assert all(record["violations"] for record in json.loads(out)["records"])


ERRORS = {
    "missing folder": (("data", "absent"), "no folder absent; wanted"),
    "empty folder": (("data", "empty"), "empty has no folder of a class"),
    "text named jpg": (("fit", "texts", "--budget", "size=1MB"), "6 of 6 pictures in texts are bad"),
    "one class": (("data", "single"), "single has only the class 'a'"),
    "a file": (("data", "page.html"), "page.html is a file"),
    "bad split": (("data", "empty", "--split", "0.5"), "--split 0.5; wanted two shares"),
    "bad number": (("measure", "x.onnx", "--threads", "two"), "cannot read 'two'"),
    "a part of nothing": (("measure", "x.onnx", "--part", "val"), "--part val without --data"),
    "unknown key": (
        ("fit", "photos", "--budget", "speed=3"),
        "unknown quantity 'speed' in the budget; known: accuracy",
    ),
    "wrong side": (("fit", "photos", "--budget", "size>=3MB"), "bounds size from the wrong side"),
    "unknown model": (("fit", "photos", "--budget", "size=3MB", "--models", "vgg"), "unknown model 'vgg'"),
    "no model": (("measure", "page.html"), "page.html is no ONNX and no LiteRT model"),
    "no artifact": (("predict", "absent", "x.jpg"), "no artifact absent"),
    "bare predict": (("predict", "bare.tflite", "x.jpg"), "does not say its classes"),
    "no records": (("compare", "absent.jsonl"), "no absent.jsonl; wanted files of records"),
    "no record": (("compare", "page.html"), "page.html line 1 is no record"),
    "unknown quantity": (("compare", "good.jsonl", "--keys", "speed"), "unknown quantity 'speed'"),
    "page in no folder": (("compare", "good.jsonl", "--output", "page.html/x.html"), "cannot write"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input_is_one_line_and_exit_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "texts" / name / f"{number}.jpg").write_text("text")
    write_folder(tmp_path / "colours", per_class=1)
    (tmp_path / "single").mkdir()
    (tmp_path / "colours" / "red").rename(tmp_path / "single" / "a")
    (tmp_path / "page.html").write_text("<html></html>\n")
    (tmp_path / "bare.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    append_record(tmp_path / "good.jsonl", make_record())
    arguments, message = ERRORS[case]
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("featherweight: ")
    assert err.count("\n") == 1
    assert message in err
    with pytest.raises((FeatherweightError, OSError)):
        main([*arguments, "--debug"])


def test_predict_runs_a_file_as_tune_found_it_best(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from featherweight.cli import _parser

    args = _parser().parse_args(["predict", "artifact", "picture.png"])
    assert (args.runtime, args.threads) == (None, None)  # what is named would win over the choice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "a.onnx", "b.onnx", "--csv", "x.csv"), "--csv is for records, and these are none"),
        (("compare", "good.jsonl", "--data", "photos"), "--data is for artifacts, and these are none"),
        (("compare", "a.onnx", "good.jsonl"), "records and artifacts mixed"),
        (("compare", "absent.onnx", "a.onnx"), "no absent.onnx; wanted"),
        (("compare", "a.onnx", "b.onnx", "--threads", "1,2"), "one of each to compare files with"),
        (("compare", "good.jsonl", "--csv", "x", "--output", "x"), "both name x; wanted two files"),
    ],
)
def test_compare_refuses_what_does_not_go_together(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    append_record("good.jsonl", make_record())
    for name in ("a.onnx", "b.onnx"):
        Path(name).write_bytes(b"\x08\x0a" + bytes(50))
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_json_file_of_something_else_is_never_appended_to(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = trained.artifacts["onnx-int8"].path
    mine = tmp_path / "mine.json"
    mine.write_text('{"mine": 1}')
    for verb, target in (("measure", artifact / "artifact.json"), ("measure", mine), ("tune", mine)):
        before = target.read_bytes()
        status, _, err = run(capsys, verb, artifact, "--quick", "--output", target)
        assert status == 2
        assert "name another file, nothing is overwritten" in err
        assert target.read_bytes() == before


def test_a_full_disk_is_one_line(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    records = tmp_path / "records.jsonl"
    quick = ("--threads", "1", "--runtime", "onnxruntime", "--quick", "--min-seconds", "0.01")
    status, out, err = run(capsys, "measure", trained.artifacts["onnx-int8"].path, *quick, "--output", records)
    assert (status, out) == (2, "")
    assert "No space left on device; make room or name another place" in err.splitlines()[-1]
    assert not records.exists()


@pytest.mark.parametrize("name", ["notes.txt", "/dev/full"])
def test_a_file_of_something_else_is_never_appended_to(
    name: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "/dev/full" and not Path(name).exists():
        pytest.skip("this system has no /dev/full")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine, without a newline")
    quick = ("--threads", "1", "--quick")
    output = tmp_path / name  # an absolute name stays itself
    status, _, err = run(capsys, "measure", trained.artifacts["onnx-int8"].path, *quick, "--output", output)
    assert status == 2
    assert "no file of records" in err or "not a regular file" in err
    assert notes.read_text() == "mine, without a newline"


def test_ctrl_c_keeps_finished_records_and_exits_130(trained: Trained, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    kinds = [str(trained.artifacts[kind].path) for kind in ("onnx-int8", "litert-int8", "onnx-float32")] * 4
    command = [sys.executable, "-m", "featherweight.cli", "measure", *kinds, "--threads", "1", "--quick"]
    # A shell starts what runs in the background deaf to SIGINT, and children inherit that; a handler they do not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, "--output", str(records)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not records.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and child
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == b""
    assert err.decode().splitlines()[-1] == "featherweight: interrupted; finished records and artifacts are kept"
    assert 1 <= len(read_records(records)) < 3


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["frobnicate"], ["fit"], ["measure"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    capsys.readouterr()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("featherweight 0.")


def test_without_the_training_world_fit_says_what_to_install(photos: Path, tmp_path: Path) -> None:
    from tests.test_floors import BLOCK

    block = BLOCK.replace("ImportError(f", "ModuleNotFoundError(name=name.split('.')[0], *[f").replace(
        'the device world")', 'the device world"])'
    )
    code = (
        f"{block}\nfrom featherweight.cli import main\nsys.exit(main(['fit', {str(photos)!r}, '--budget', 'size=1MB']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'featherweight[train]'" in done.stderr
    assert not list(tmp_path.glob("fit-*"))


@pytest.fixture
def saved(trained: Trained, tmp_path: Path) -> Path:
    trained.model.save(tmp_path / "colours.keras")
    return tmp_path / "colours.keras"


def test_prune_shows_what_would_go_and_then_does_it(
    trained: Trained, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "prune", saved, "--target", "macs=0.6")
    assert status == 0
    assert out.splitlines()[0].split() == ["group", "layers", "channels", "MACs", "predicted"]
    assert not (tmp_path / "less.keras").exists()
    taylor = ("--criterion", "taylor", "--data", trained.folder, "--images", 20)
    status, out, _ = run(capsys, "prune", saved, "--target", "macs=0.6", *taylor, "--output", tmp_path / "less.keras")
    assert status == 0
    assert f"plan: {tmp_path / 'less.plan.json'}" in out
    plan = json.loads((tmp_path / "less.plan.json").read_text())
    assert plan["macs"][1] <= 0.6 * plan["macs"][0]
    status, out, _ = run(capsys, "analyze", tmp_path / "less.keras", "--json")
    assert status == 0
    assert json.loads(out)["models"][0]["macs"] <= plan["macs"][1]
    status, _, err = run(capsys, "prune", saved, "--output", tmp_path / "less.keras")
    assert status == 2
    assert "less.keras exists; name another file" in err
    two = write_folder(tmp_path / "two", per_class=4)
    (two / "red").rename(tmp_path / "red")
    status, _, err = run(capsys, "prune", saved, "--criterion", "taylor", "--data", two)
    assert status == 2
    assert "tells 3 classes apart and the data has 2" in err
    status, _, err = run(capsys, "prune", saved, "--output", tmp_path / "less.onnx")
    assert status == 2
    assert "wanted a name that ends in .keras" in err


def test_quantize_makes_a_file_shows_layers_and_keeps_within(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = trained.artifacts["onnx-float32"].path
    data = ("--data", trained.folder, "--images", 16)
    status, out, _ = run(capsys, "quantize", artifact, *data, "--output", tmp_path / "int8", "--json")
    assert status == 0
    made = json.loads(out)
    assert made["size_bytes"] < trained.artifacts["onnx-float32"].size_bytes / 2
    assert made["step"]["settings"]["precision"] == "int8"
    status, out, _ = run(capsys, "quantize", artifact, *data, "--sensitivity")
    assert status == 0
    assert "conv" in out
    status, out, _ = run(capsys, "quantize", artifact, *data, "--output", tmp_path / "within", "--max-loss", 0.5)
    assert status == 0
    assert f"artifact: {tmp_path / 'within'}" in out
    status, _, err = run(capsys, "quantize", artifact, *data, "--output", tmp_path / "within", "--max-loss", 0.5)
    assert status == 2
    assert "within exists already" in err
    status, _, err = run(capsys, "quantize", artifact, "--seed", -1)
    assert status == 2
    assert "seed -1; wanted 0 or more" in err
    status, _, err = run(capsys, "quantize", artifact)
    assert status == 2
    assert "no --data; wanted the pictures that the file was trained for" in err
    half = ("--precision", "float16", "--output", tmp_path / "half")
    status, _, err = run(capsys, "quantize", artifact, *data, *half, "--max-loss", 0.1)
    assert status == 2
    assert "layers go back to float from int8 only" in err


def test_compress_hands_on_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherweight.errors import SettingError
    from featherweight.prune import Target

    seen: dict[str, tuple[object, ...]] = {}

    def noted(*given: object) -> None:
        seen["given"] = given
        raise SettingError("enough")

    monkeypatch.setattr(importlib.import_module("featherweight.compress"), "compress", noted)
    status, _, err = run(
        capsys, "compress", "m.keras", "--data", "photos", "--budget", "latency_p50=2ms", "--target", "macs=0.4",
        "--epochs", 3, "--alpha", 0.3, "--prune-loss", 0.02, "--formats", "onnx", "--threads", 1, "--criterion", "l2",
    )  # fmt: skip
    assert (status, err) == (2, "featherweight: enough\n")
    model, data, budget, output, settings, command = seen["given"]
    assert (model, data, budget, output) == ("m.keras", "photos", "latency_p50=2ms", None)
    assert command.startswith("featherweight compress m.keras")
    assert (settings.target, settings.prune.criterion) == (Target("macs", 0.4), "l2")
    assert (settings.changes, settings.prune_loss) == ({"epochs": 3, "alpha": 0.3}, 0.02)
    assert (settings.formats, settings.threads) == (("onnx",), (1,))
    status, _, err = run(capsys, "compress", "m.keras", "--data", "photos", "--budget", "speed=3")
    assert status == 2
    assert "unknown quantity 'speed'" in err
