"""One small network, trained and exported once for all tests that need a real artifact. `conftest.py` takes it in."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from featherweight.artifact import Artifact, Step
from featherweight.data import Dataset, load_pixels, read_dataset
from featherweight.export import About, export
from featherweight.models.zoo import Shape, build
from featherweight.quantize import quantize
from featherweight.train import TrainSettings, set_seed, train
from tests.pictures import write_folder

SIZE = 40  # at 32 the strides would be those for CIFAR, and four times as many places


class Trained(NamedTuple):
    folder: Path
    dataset: Dataset
    untrained: Any  # keras.Model
    model: Any
    step: Step
    artifacts: dict[str, Artifact]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    dataset = read_dataset(write_folder(place / "colours", per_class=48))
    set_seed(0)
    untrained = build(Shape("mobilenet_v1", 0.25, SIZE), 3)
    settings = TrainSettings(epochs=12, patience=12, batch_size=16, learning_rate=1e-2, augment=False)
    model, step = train(untrained, dataset, settings, pretrained=False)
    items = dataset.part("train")
    pixels = load_pixels(items, SIZE, SIZE).take(items)
    about = About("colours", dataset.classes, (step,))
    artifacts = {
        "onnx-float32": export(model, place / "onnx-float32", "onnx", about, pixels),
        "litert-float32": export(model, place / "litert-float32", "litert", about, pixels),
        "litert-int8": export(model, place / "litert-int8", "litert", about, pixels, "int8"),
    }
    artifacts["onnx-int8"] = quantize(artifacts["onnx-float32"], place / "onnx-int8", pixels, "colours-int8")
    return Trained(place / "colours", dataset, untrained, model, step, artifacts)
