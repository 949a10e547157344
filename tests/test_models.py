from pathlib import Path

import numpy as np
import pytest

from featherweight.errors import SettingError, WeightsError
from featherweight.models import pretrained, zoo
from featherweight.models.zoo import NETS, Shape, build

DATA = Path(__file__).parents[2] / "shared" / "data"
MODELS = DATA / "imagenet-models"
needs_weights = pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/data/imagenet-models is not here")


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [32, 75])
def test_every_network_takes_any_size_and_number_of_classes(net: str, size: int) -> None:
    model = build(Shape(net, 0.3, size), 7)
    outputs = np.asarray(model(np.full((2, size, size, 3), 128.0)))
    assert outputs.shape == (2, 7)
    assert outputs.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert model.get_layer(zoo.FEATURES).output.shape[1] == model.get_layer("logits").kernel.shape[0]


def test_the_input_is_0_to_255_and_scaled_inside() -> None:
    model = build(Shape("mobilenet_v1", 0.25, 32), 2)
    scaled = model.get_layer("scale")(np.array([0.0, 127.5, 255.0]).reshape(1, 1, 1, 3))
    assert np.asarray(scaled).ravel() == pytest.approx([-1, 0, 1])


def test_batch_norm_forgets_fast_enough_for_short_runs() -> None:
    for net in NETS:
        norms = [
            layer for layer in build(Shape(net, 0.3, 32), 2).layers if type(layer).__name__ == "BatchNormalization"
        ]
        assert norms
        assert {norm.momentum for norm in norms} == {zoo.BATCH_NORM_MOMENTUM}


def test_macs_of_mobilenet_v1_are_those_of_its_table() -> None:
    """Howard et al. 2017, table 1, at 224: the truth from the layers' shapes, and the published 569 million."""
    macs = 112 * 112 * 3 * 3 * 3 * 32
    channels, side = 32, 112
    for filters, stride in (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
        (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
    ):  # fmt: skip
        side //= stride
        macs += side * side * channels * (3 * 3 + filters)
        channels = filters
    macs += 1024 * 1000
    assert zoo.macs(build(Shape("mobilenet_v1", 1.0, 224), 1000)) == macs
    assert macs == pytest.approx(569e6, rel=0.001)


def test_macs_are_unknown_with_an_unknown_layer() -> None:
    import keras

    assert zoo.macs(keras.Sequential([keras.Input((8, 3)), keras.layers.Conv1D(4, 3)])) is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Shape("mobilenet_v9", 1.0, 96), "unknown model 'mobilenet_v9'; known: mobilenet_v1"),
        (lambda: Shape("mobilenet_v1", 0.0, 96), "width 0.0"),
        (lambda: Shape("mobilenet_v1", 1.0, 16), "input size 16; wanted 32"),
        (lambda: build(Shape("mobilenet_v1", 0.25, 32), 1), "1 classes"),
    ],
)
def test_bad_settings_are_refused(bad: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        bad()  # type: ignore[operator]


@needs_weights
@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("mobilenet_v1_0.25_128.weights.h5", ("mobilenet_v1", 0.25)),
        ("mobilenet_v1_0.25_128_quant.npz", ("mobilenet_v1", 0.25)),
        ("mobilenet_v2_1.0_224.weights.h5", ("mobilenet_v2", 1.0)),
        ("mobilenet_v2_1.0_224_quant.npz", ("mobilenet_v2", 1.0)),
    ],
)
def test_a_file_tells_its_network(file: str, wanted: tuple[str, float]) -> None:
    assert pretrained.identify(MODELS / file) == [wanted]


@needs_weights
def test_both_files_of_one_network_give_the_same_features() -> None:
    """The data's README: the .weights.h5 equals the folded network of the .npz within 5e-6 on its outputs."""
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3)).astype(np.float32)
    features = []
    for file in ("mobilenet_v1_0.25_128.weights.h5", "mobilenet_v1_0.25_128_quant.npz"):
        model = pretrained.build_pretrained(Shape("mobilenet_v1", 0.25, 128), 10, str(MODELS / file))
        features.append(np.asarray(keras.Model(model.input, model.get_layer(zoo.FEATURES).output)(pixels)))
    assert np.abs(features[0]).max() > 0.1
    assert features[0] == pytest.approx(features[1], abs=1e-4)


@needs_weights
def test_the_trunk_of_a_file_still_knows_what_it_was_trained_on() -> None:
    """Its features through the file's own head: 41 % of the 500 sample photos, as the data's README says."""
    from featherweight.image import read_image, resize

    photos = sorted((DATA / "imagenet-samples").glob("*.jpg"))[::5]
    pixels = np.stack([resize(read_image(photo), 128, 128) for photo in photos]).astype(np.float32)
    import keras

    source = zoo.reference(zoo.net_named("mobilenet_v1"), 0.25, 128)
    source.load_weights(MODELS / "mobilenet_v1_0.25_128.weights.h5")
    model = pretrained.build_pretrained(
        Shape("mobilenet_v1", 0.25, 128), 10, str(MODELS / "mobilenet_v1_0.25_128.weights.h5")
    )
    features = keras.Model(model.input, model.get_layer(zoo.FEATURES).output)(pixels)
    head = source.get_layer("conv_preds")
    logits = np.asarray(head(np.asarray(features)[:, None, None, :]))[:, 0, 0]
    right = np.mean(logits.argmax(1) == [int(photo.name[:4]) for photo in photos])
    assert right == pytest.approx(0.41, abs=0.1)


@needs_weights
def test_weights_of_another_network_are_refused() -> None:
    for file in ("mobilenet_v2_1.0_224.weights.h5", "mobilenet_v2_1.0_224_quant.npz"):
        with pytest.raises(WeightsError, match=r"does not fit mobilenet_v1 of width 0\.25"):
            pretrained.build_pretrained(Shape("mobilenet_v1", 0.25, 128), 10, str(MODELS / file))
    with pytest.raises(WeightsError, match=r"has no kernels|no network here"):
        pretrained.identify(MODELS / "squeezenet1.1.npz")


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    def written(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    cases = {
        "cannot read the weights": str(tmp_path / "absent.h5"),
        "is no weights file": written("page.h5", b"<html>not found</html>"),
        "damaged": written("torn.weights.h5", pretrained.HDF5_MAGIC + b"\x00" * 100),
        "torn.npz is damaged": written("torn.npz", pretrained.ZIP_MAGIC + b"\x00" * 100),
    }
    for message, path in cases.items():
        with pytest.raises(WeightsError, match=message):
            pretrained.identify(path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match="has no kernels"):
        pretrained.identify(tmp_path / "other.npz")
    np.savez(tmp_path / "strange.npz", **{"a/w": np.zeros((3, 3, 3, 5)), "a/b": np.zeros(5)})
    with pytest.raises(WeightsError, match="no network here; known: mobilenet_v1"):
        pretrained.identify(tmp_path / "strange.npz")


def test_a_far_too_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "MAX_FILE_BYTES", 10)
    (tmp_path / "large.npz").write_bytes(pretrained.ZIP_MAGIC + b"\x00" * 100)
    with pytest.raises(WeightsError, match="104 bytes; no light network has over 10"):
        pretrained.identify(tmp_path / "large.npz")


def test_imagenet_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure: [Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(pretrained, "build", offline)
    with pytest.raises(WeightsError, match="connect once, or name a local file with --weights FILE"):
        pretrained.build_pretrained(Shape("mobilenet_v1", 0.25, 128), 10, "imagenet")


def test_imagenet_weights_exist_for_published_widths_only() -> None:
    with pytest.raises(
        WeightsError, match=r"no ImageNet weights for mobilenet_v1 of width 0\.3; published: 0\.25, 0\.5"
    ):
        pretrained.build_pretrained(Shape("mobilenet_v1", 0.3, 128), 10, "imagenet")
