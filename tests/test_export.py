from pathlib import Path

import numpy as np
import pytest

from featherweight.artifact import read_artifact
from featherweight.data import load_pixels
from featherweight.errors import ExportError, OutputError
from featherweight.export import FLOAT_TOLERANCE, About, _checked, export
from featherweight.models.zoo import Shape, build
from featherweight.quantize import INT8_TOLERANCE, check_agreement, quantize
from featherweight.runtimes import RUNTIMES
from featherweight.runtimes.settings import Settings
from featherweight.train import predict_pixels
from tests.trained import SIZE, Trained

KINDS = ("onnx-float32", "onnx-int8", "litert-float32", "litert-int8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_answers_as_keras_does(trained: Trained, kind: str) -> None:
    artifact = read_artifact(trained.artifacts[kind].path)
    runtime = next(r for r in RUNTIMES.values() if r.supports(artifact) is None)
    session = runtime.load(artifact, Settings(precision="float32"))
    items = trained.dataset.part("test")
    pixels = load_pixels(items, SIZE, SIZE).take(items)
    wanted = predict_pixels(trained.model, pixels)
    found = np.concatenate([session.run(one[None]) for one in pixels])
    assert found.shape == wanted.shape == (len(items), 3)
    if artifact.precision == "float32":
        assert np.abs(found - wanted).max() <= FLOAT_TOLERANCE
    else:
        assert np.mean(np.abs(found - wanted).sum(axis=1) / 2) <= INT8_TOLERANCE
        assert np.mean(found.argmax(1) == wanted.argmax(1)) >= 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_says_what_it_is_and_how_it_was_made(trained: Trained, kind: str) -> None:
    artifact = read_artifact(trained.artifacts[kind].path)
    file_format, precision = kind.split("-")
    assert (artifact.format, artifact.precision) == (file_format, precision)
    assert (artifact.height, artifact.width, artifact.resize) == (SIZE, SIZE, "stretch")
    assert artifact.classes == ("blue", "green", "red")
    assert artifact.size_bytes == artifact.model_path.stat().st_size
    made = ["train", "export"] + ["quantize"] * (precision == "int8")
    assert [step.name for step in artifact.steps] == made
    inputs, outputs = artifact.golden()
    assert inputs.shape == (4, SIZE, SIZE, 3)
    assert outputs.shape == (4, 3)


@pytest.mark.parametrize("file_format", ["onnx", "litert"])
def test_int8_is_a_good_deal_smaller(trained: Trained, file_format: str) -> None:
    small, large = (trained.artifacts[f"{file_format}-{p}"].size_bytes for p in ("int8", "float32"))
    assert small < large / 2


def test_int8_litert_takes_a_pixel_as_its_own_code(trained: Trained) -> None:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(trained.artifacts["litert-int8"].model_path)).get_input_details()[0]
    assert details["dtype"] is np.uint8
    assert details["quantization"] == (1.0, 0)


@pytest.mark.parametrize(
    "net", ["mobilenet_v1", "mobilenet_v3_small", "shufflenet_v1_g3", "shufflenet_v2", "ghostnet", "squeezenet_1_1"]
)
def test_networks_of_every_kind_survive_every_export(net: str, tmp_path: Path) -> None:
    """The traps of the stack: MobileNetV3's dynamic sizes, its quantized ONNX file, LiteRT's unfrozen variables, the
    grouped convolutions that TensorFlow runs through XLA only.
    """
    model = build(Shape(net, 0.35, 64), 4)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    about = About(net, ("a", "b", "c", "d"), ())
    source = export(model, tmp_path / "onnx", "onnx", about, pixels)
    made = (
        source,
        quantize(source, tmp_path / "onnx-int8", pixels, "int8"),
        export(model, tmp_path / "litert", "litert", about, pixels),
        export(model, tmp_path / "litert-int8", "litert", about, pixels, "int8"),
    )
    for artifact in made:
        assert read_artifact(artifact.path) == artifact
        assert artifact.parameters == model.count_params()


def test_an_unknown_format_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="onnx int8 is made from the onnx artifact"):
        export(
            trained.model,
            tmp_path / "x",
            "onnx",
            About("x", ("a",), ()),
            np.zeros((1, SIZE, SIZE, 3), np.uint8),
            "int8",
        )


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
        np.zeros((1, SIZE, SIZE + 1, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.uint8),
    ],
)
def test_pictures_that_no_file_can_be_checked_on_are_refused(
    trained: Trained, pictures: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=rf"^calibration pictures are .*; x wants at least one, uint8 n×{SIZE}×"):
        export(trained.model, tmp_path / "x", "onnx", About("x", ("a",), ()), pictures)
    assert not (tmp_path / "x").exists()


def test_a_file_that_answers_otherwise_is_refused_and_nothing_is_written(trained: Trained, tmp_path: Path) -> None:
    from dataclasses import replace

    artifact = trained.artifacts["onnx-float32"]
    pixels, outputs = artifact.golden()
    place = tmp_path / "wrong"
    with pytest.raises(ExportError, match=r"differ from Keras' by up to 0\.01"):
        _checked(replace(artifact, path=place), artifact.model_path.read_bytes(), pixels, outputs + 0.01)
    assert not place.exists()


def test_a_collapsed_int8_file_is_refused() -> None:
    wanted = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    check_agreement("x", wanted, wanted)
    with pytest.raises(ExportError, match=r"1\.00 away"):
        check_agreement("x", wanted, wanted[::-1])
    with pytest.raises(ExportError, match="does not survive int8"):
        check_agreement("x", wanted, np.full((2, 2), np.nan, np.float32))
    edge = wanted + np.array([[-INT8_TOLERANCE, INT8_TOLERANCE], [INT8_TOLERANCE, -INT8_TOLERANCE]], np.float32)
    check_agreement("x", wanted, edge)


def test_an_existing_folder_is_not_overwritten(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        pixels = np.zeros((2, SIZE, SIZE, 3), np.uint8)
        export(trained.model, tmp_path / "mine", "onnx", About("x", ("a", "b", "c"), ()), pixels)
