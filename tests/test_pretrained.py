"""Weights files: whose they are, that they arrive, and that nothing else does. Parity with PyTorch: test_parity.py."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from featherweight.errors import FeatherweightError, WeightsError
from featherweight.image import read_image, resize
from featherweight.models import download, pretrained, zoo
from featherweight.models.checkpoints import CHECKPOINTS
from featherweight.models.nets import NETS, Application, net_named
from featherweight.models.zoo import Shape

DATA = Path(__file__).parents[2] / "shared" / "data"
MODELS = DATA / "imagenet-models"
needs_weights = pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/data/imagenet-models is not here")
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
SMALL = Shape("mobilenet_v1", 0.25, 128)
SMALL_FILE = "mobilenet_v1_0.25_128.weights.h5"


def features(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(keras.Model(model.input, model.get_layer(zoo.FEATURES).output)(pixels))


def pictures(size: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, channels)).astype(np.float32)


def randomised(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) * (0.1 if w.ndim > 1 else 1)
                       for w in model.get_weights()])  # fmt: skip
    return model


# ------------------------------------------------------------------------------------------------- whose is it?


@needs_weights
@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (SMALL_FILE, ("mobilenet_v1", 0.25)),
        ("mobilenet_v1_0.25_128_quant.npz", ("mobilenet_v1", 0.25)),
        ("mobilenet_v2_1.0_224.weights.h5", ("mobilenet_v2", 1.0)),
        ("mobilenet_v2_1.0_224_quant.npz", ("mobilenet_v2", 1.0)),
        ("squeezenet1.1.npz", ("squeezenet_1_1", 1.0)),
        ("../cifar-models/resnet20-12fca82f.th", ("resnet20_cifar", 1.0)),
        ("../cifar-models/resnet56-4bfd9763.th", ("resnet56_cifar", 1.0)),
    ],
)
def test_a_file_tells_its_network(file: str, wanted: tuple[str, float]) -> None:
    assert pretrained.identify(MODELS / file) == [wanted]


@pytest.mark.parametrize("name", ["squeezenet_1_0", "mobilenet_v3_small"])
def test_a_file_that_keras_saved_of_ours_tells_its_network(name: str, tmp_path: Path) -> None:
    zoo.reference(net_named(name), 1.0).save_weights(tmp_path / "saved.weights.h5")
    assert pretrained.identify(tmp_path / "saved.weights.h5") == [(name, 1.0)]


def test_every_checkpoint_belongs_to_a_published_variant() -> None:
    for (name, width), row in CHECKPOINTS.items():
        assert width in NETS[name].widths
        assert not isinstance(NETS[name].trunk, Application)
        assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{8,10}|[0-9a-f]{64}", row.sha256)
        assert row.sha256 is None or row.url.startswith("https://")
    files = [row.file for row in CHECKPOINTS.values()]
    assert len(set(files)) == len(files)


# ---------------------------------------------------------------------------------------------- that they arrive


@needs_weights
def test_both_files_of_one_network_give_the_same_features() -> None:
    """The data's README: the .weights.h5 equals the folded network of the .npz within 5e-6 on its outputs."""
    found = [
        features(pretrained.build_pretrained(SMALL, 10, str(MODELS / file)), pictures(128))
        for file in (SMALL_FILE, "mobilenet_v1_0.25_128_quant.npz")
    ]
    assert np.abs(found[0]).max() > 0.1
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@needs_weights
def test_the_trunk_of_a_file_still_knows_what_it_was_trained_on() -> None:
    """Whole, on every fifth of the 500 sample photos: 41 %, as the data's README says."""
    photos = sorted((DATA / "imagenet-samples").glob("*.jpg"))[::5]
    pixels = np.stack([resize(read_image(photo), 128, 128) for photo in photos]).astype(np.float32)
    model = pretrained.published(SMALL, str(MODELS / SMALL_FILE))
    right = np.mean(model.predict_on_batch(pixels).argmax(1) == [int(photo.name[:4]) for photo in photos])
    assert right == pytest.approx(0.41, abs=0.1)
    transferred = pretrained.build_pretrained(SMALL, 10, str(MODELS / SMALL_FILE))
    head = model.get_layer("conv_preds")
    logits = np.asarray(head(features(transferred, pixels)[:, None, None, :]))[:, 0, 0]
    assert np.mean(logits.argmax(1) == model.predict_on_batch(pixels).argmax(1)) == 1


@needs_weights
def test_caffes_squeezenet_recognizes_photos() -> None:
    """The data's README says 62.6 % of 1000 photos; of these 100 the interval reaches 10 points to both sides."""
    photos = sorted((DATA / "imagenet-samples").glob("*.jpg"))[::5]
    pixels = np.stack([resize(read_image(photo), 227, 227) for photo in photos]).astype(np.float32)
    model = pretrained.published(Shape("squeezenet_1_1", 1.0, 227), str(MODELS / "squeezenet1.1.npz"))
    right = np.mean(model.predict_on_batch(pixels).argmax(1) == [int(photo.name[:4]) for photo in photos])
    assert right == pytest.approx(0.626, abs=0.1)


@needs_weights
def test_folded_arrays_bring_their_head() -> None:
    """The .npz is the network of the .weights.h5, background row and all."""
    models = [pretrained.published(SMALL, str(MODELS / f)) for f in (SMALL_FILE, "mobilenet_v1_0.25_128_quant.npz")]
    first, second = (np.asarray(model(pictures(128))) for model in models)
    np.testing.assert_allclose(second, first, atol=1e-4)


def test_a_file_with_another_number_of_classes_is_taken(tmp_path: Path) -> None:
    source = randomised(keras.applications.MobileNet((128, 128, 3), alpha=0.25, weights=None, classes=7))
    source.save_weights(tmp_path / "seven.weights.h5")
    assert pretrained.identify(tmp_path / "seven.weights.h5") == [("mobilenet_v1", 0.25)]
    whole = pretrained.published(SMALL, str(tmp_path / "seven.weights.h5"))
    wanted = np.asarray(source(pictures(128) / 127.5 - 1))
    assert wanted.shape == (2, 7)
    np.testing.assert_allclose(np.asarray(whole(pictures(128))), wanted, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_stem_of_two_branches_takes_other_channels(channels: int, tmp_path: Path) -> None:
    shape = Shape("mobileone_s0", 1.0, 64)
    randomised(zoo.reference(net_named(shape.net), 1.0, 64)).save_weights(tmp_path / "saved.weights.h5")
    model = pretrained.build_pretrained(shape, 3, str(tmp_path / "saved.weights.h5"), channels)
    assert model.input_shape == (None, 64, 64, channels)


def test_a_depthwise_stem_cannot_take_other_channels(tmp_path: Path) -> None:
    zoo.reference(net_named("hello"), 1.0, 64).save_weights(tmp_path / "saved.weights.h5")
    with pytest.raises(WeightsError, match="weights for 3 input channels and no way to 1"):
        pretrained.build_pretrained(Shape("hello", 1.0, 64), 3, str(tmp_path / "saved.weights.h5"), 1)


def test_keras_own_file_of_ours_arrives(tmp_path: Path) -> None:
    shape = Shape("squeezenet_1_1", 1.0, 64)
    source = randomised(zoo.reference(net_named(shape.net), 1.0, 64))
    source.save_weights(tmp_path / "saved.weights.h5")
    whole = pretrained.published(shape, str(tmp_path / "saved.weights.h5"))
    np.testing.assert_array_equal(whole(pictures(64)), source(pictures(64)))


@needs_weights
def test_grey_answers_as_the_same_picture_in_colour() -> None:
    weights = str(MODELS / SMALL_FILE)
    grey = pictures(128, 1)
    in_colour = features(pretrained.build_pretrained(SMALL, 10, weights), np.repeat(grey, 3, axis=3))
    in_grey = features(pretrained.build_pretrained(SMALL, 10, weights, channels=1), grey)
    np.testing.assert_allclose(in_grey, in_colour, atol=1e-4)


@needs_weights
def test_a_fourth_channel_starts_without_a_say() -> None:
    weights = str(MODELS / SMALL_FILE)
    model = pretrained.build_pretrained(SMALL, 10, weights, channels=4)
    four = pictures(128, 4)
    np.testing.assert_allclose(
        features(model, four), features(pretrained.build_pretrained(SMALL, 10, weights), four[..., :3]), atol=1e-4
    )


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_networks_trained_on_bgr_see_rgb(name: str, tmp_path: Path) -> None:
    """Ours on RGB 0–255 is Keras' on its own preprocessed BGR."""
    build = {"resnet50": keras.applications.ResNet50, "vgg16": keras.applications.VGG16}[name]
    # A head of two classes keeps the file of VGG's 138 M numbers away.
    theirs = randomised(build(weights=None, input_shape=(64, 64, 3), include_top=False, pooling="avg"))
    ours = zoo.build(Shape(name, 1.0, 64), 2)
    for layer in (layer for layer in theirs.layers if layer.weights):
        ours.get_layer(layer.name).set_weights(layer.get_weights())
    pretrained._for_our_input(ours, net_named(name))
    wanted = np.asarray(theirs(keras.applications.imagenet_utils.preprocess_input(pictures(64), mode="caffe")))
    np.testing.assert_allclose(features(ours, pictures(64)), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_efficientnet_by_name_and_by_file_is_keras_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras adds a division for published weights only. The download is played by a file of random numbers."""
    application = keras.applications.EfficientNetB0
    keras.utils.set_random_seed(0)
    source = application(weights=None, input_shape=(64, 64, 3))
    # Keras numbers this layer anew in every model.
    normalization = next(layer for layer in source.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    whole, trunk = tmp_path / "whole.weights.h5", tmp_path / "trunk.weights.h5"
    source.save_weights(whole)
    keras.Model(source.input, source.get_layer("top_activation").output).save_weights(trunk)
    monkeypatch.setattr(
        "keras.src.applications.efficientnet.file_utils.get_file",
        lambda name, *_, **__: str(trunk if "notop" in name else whole),
    )
    theirs = application(weights="imagenet", input_shape=(64, 64, 3), include_top=False, pooling="avg")
    wanted = np.asarray(theirs(pictures(64)))
    assert np.ptp(wanted) > 0
    for weights in ("imagenet", str(whole)):
        ours = pretrained.build_pretrained(Shape("efficientnet_b0", 1.0, 64), 10, weights)
        np.testing.assert_allclose(features(ours, pictures(64)), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


# ------------------------------------------------------------------------------------------ that nothing else does


@needs_weights
@pytest.mark.parametrize(
    "file",
    ["mobilenet_v2_1.0_224.weights.h5", "mobilenet_v2_1.0_224_quant.npz", "squeezenet1.1.npz"],
)
def test_weights_of_another_network_are_refused(file: str) -> None:
    with pytest.raises(WeightsError, match=r"does not fit mobilenet_v1 of width 0\.25"):
        pretrained.build_pretrained(SMALL, 10, str(MODELS / file))


def some_state(net: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A small network of ours and a state that fills it, made backwards."""
    model = zoo.reference(net_named(net), 1.0, 32)
    naming = next(row.naming for (name, _), row in CHECKPOINTS.items() if name == net)
    state = {}
    for layer in (layer for layer in model.layers if layer.weights):
        names = pretrained._array_names(layer, naming.key(layer.name))
        for name, weight in zip(names, layer.get_weights(), strict=True):
            state[name] = weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight.T
    return model, state


def test_a_state_must_fit_whole() -> None:
    model, state = some_state("resnet20_cifar")
    pretrained.import_state(
        model, "resnet20_cifar", {**state, "bn1.num_batches_tracked": np.array(3), "total_ops": np.array(3)}
    )
    before = [w.copy() for w in model.get_weights()]
    for broken, message in (
        ({k: v for k, v in state.items() if k != "conv1.weight"}, "no array 'conv1.weight' in it"),
        ({**state, "aux.weight": np.zeros(3)}, "1 arrays that resnet20_cifar has no place for, as 'aux.weight'"),
        ({**state, "linear.bias": np.zeros(7)}, r"linear.bias gives \(7,\); resnet20_cifar wants \(10,\)"),
    ):
        with pytest.raises(WeightsError, match=message):
            pretrained.import_state(model, "resnet20_cifar", broken)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))  # not half filled


@needs_weights
def test_pytorch_weights_of_keras_networks_are_refused() -> None:
    file = DATA / "cifar-models" / "resnet20-12fca82f.th"
    with pytest.raises(WeightsError, match=r"no PyTorch weights are read for mobilenet_v1; wanted a \.weights\.h5"):
        pretrained.build_pretrained(SMALL, 10, str(file))


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    def written(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    cases = {
        "cannot read the weights": str(tmp_path / "absent.h5"),
        "page.h5": written("page.h5", b"<html>not found</html>"),
        "damaged": written("torn.weights.h5", HDF5_MAGIC + b"\x00" * 100),
        "torn.npz": written("torn.npz", b"PK\x03\x04" + b"\x00" * 100),
        "of kind tflite; wanted .weights.h5": written("model.tflite", b"\x1c\x00\x00\x00TFL3" + b"\x00" * 100),
    }
    for message, path in cases.items():
        with pytest.raises(WeightsError, match=message):
            pretrained.identify(path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match="has no kernels"):
        pretrained.identify(tmp_path / "other.npz")
    np.savez(tmp_path / "strange.npz", **{"a/w": np.zeros((3, 3, 3, 5)), "a/b": np.zeros(5)})
    with pytest.raises(WeightsError, match="no network here; known: hello"):
        pretrained.identify(tmp_path / "strange.npz")


# ----------------------------------------------------------------------------------------------------- by name


def test_imagenet_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure: [Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(pretrained, "keras_trunk", offline)
    with pytest.raises(WeightsError, match="connect once, or name a local file with --weights FILE"):
        pretrained.build_pretrained(SMALL, 10, "imagenet")


def test_our_own_are_fetched_by_name_and_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, sha256: str, name: str) -> Path:
        asked.append((url, sha256, name))
        raise WeightsError(f"cannot fetch {url}; put {name} there")

    monkeypatch.setattr(pretrained, "fetch", fetch)
    with pytest.raises(WeightsError, match=r"put squeezenet1_1-b8a52dc0\.pth there"):
        pretrained.build_pretrained(Shape("squeezenet_1_1", 1.0, 64), 10, "imagenet")
    assert asked[0][1] == "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
    assert download.fetch is not fetch


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            Shape("mobilenet_v1", 0.3, 128),
            r"no ImageNet weights for mobilenet_v1 of width 0\.3; published: 0\.25, 0\.5",
        ),
        (Shape("shufflenet_v1_g3", 1.0, 64), "nobody has published weights of shufflenet_v1_g3"),
        (Shape("ghostnet", 1.0, 64), "gives no checksum to hold a download against; fetch https://.* yourself"),
    ],
)
def test_what_is_not_published_is_said(shape: Shape, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        pretrained.build_pretrained(shape, 10, "imagenet")


def test_keras_networks_come_whole_from_keras() -> None:
    with pytest.raises(FeatherweightError, match=r"keras\.applications\.MobileNet\(\) gives it"):
        pretrained.published(SMALL)
