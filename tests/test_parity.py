"""Our networks answer as the PyTorch networks whose weights they take.

Without torch: the weights are computed anew from their names (tests/parity/states.py), the answers were recorded from
torchvision and timm. With torch (`-m torch`): real files are written and read, and every logit is compared.
"""

import math
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featherweight.errors import WeightsError
from featherweight.image import decode, read_image, resize
from featherweight.models import pretrained, tensors, zoo
from featherweight.models.nets import net_named
from tests.parity.states import CASES, Case, pictures, recorded, state, summary, uniform, values

DATA = Path(__file__).parents[2] / "shared" / "data"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# Of the logits' standard deviation. Float32 gives at most 2e-5 after EfficientNet-Lite4's 90 layers, 5e-6 elsewhere.
# The smallest mistake tried, an epsilon doubled in the shallowest network, gives 6e-4; padding on the wrong side 6e-2.
TOLERANCE = 1e-4

# Each stands between two of its family, which differ from it in numbers of channels and units alone. To save time it is
# compared with torch only.
BETWEEN = ("shufflenet_v2-1.5", "mnasnet-0.75", "efficientnet_lite2-1", "efficientnet_lite3-1")
BETWEEN += ("resnet32_cifar-1", "resnet44_cifar-1")

each_case = pytest.mark.parametrize("case", CASES, ids=str)
most_cases = pytest.mark.parametrize("case", [case for case in CASES if str(case) not in BETWEEN], ids=str)


def imported(case: Case, size: int, weights: Mapping[str, NDArray[Any]]) -> Any:
    """Our network with the weights: pictures → features, logits."""
    import keras

    model = zoo.reference(net_named(case.net), case.width, size)
    pretrained.import_state(model, case.net, weights)
    if case.net.startswith("squeezenet"):  # its head is a convolution: what that one sees has no layer of its own
        features = keras.ops.mean(model.get_layer("dropout").output, axis=(1, 2))
    else:
        features = model.get_layer(zoo.FEATURES).output
    return keras.Model(model.input, [features, model.get_layer(zoo.LOGITS).output])


@most_cases
def test_outputs_are_those_recorded_from_torch(case: Case) -> None:
    rows, answers = recorded(case)
    network = imported(case, case.size, state(rows, case.gain))
    features, logits = (np.asarray(output) for output in network(pictures(case.size)))
    for outputs, wanted in ((features, answers["features"]), (logits, answers["logits"])):
        assert np.abs(summary(outputs) - wanted).max() < TOLERANCE * outputs.std()


@each_case
def test_recorded_keys_hold_the_published_number_of_parameters(case: Case) -> None:
    rows, _ = recorded(case)
    counted = sum(math.prod(shape) for key, shape in rows.items() if not key.endswith(STATISTICS))
    published = {row.width: row.parameters for row in net_named(case.net).published}
    assert counted == published[case.width]


def test_every_network_with_a_checkpoint_is_compared() -> None:
    from featherweight.models.checkpoints import CHECKPOINTS

    assert {(case.net, case.width) for case in CASES} == set(CHECKPOINTS)


def case_of(net: str) -> Case:
    return next(case for case in CASES if case.net == net)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weights: weights.pop("layer1.0.bn2.running_var"), "layer1.0.bn2.running_var"),
        (lambda weights: weights.update({"layer4.0.conv1.weight": weights["conv1.weight"]}), "layer4.0.conv1.weight"),
        (lambda weights: weights.update({"linear.weight": weights["linear.weight"][:, :-1]}), "linear.weight"),
    ],
    ids=["missing", "too many", "other shape"],
)
def test_a_state_that_does_not_fit_is_refused_by_the_name_of_the_array(
    change: Callable[[dict[str, Any]], object], says: str
) -> None:
    case = case_of("resnet20_cifar")
    weights: dict[str, Any] = state(recorded(case)[0])
    change(weights)
    with pytest.raises(WeightsError, match=says.replace(".", r"\.")):
        imported(case, case.size, weights)


# ------------------------------------------------------------------------------------- the recordings' own arithmetic


def test_weights_are_the_same_bits_on_every_machine() -> None:
    """The first number of SplitMix64 from seed 0 is 0xe220a8397b1dcdaf; the CRC-32 of no text is 0."""
    assert uniform("", 1)[0] == 0xE220A8 / 2**24
    assert values("a.weight", (4, 3, 3, 3), 1.0).std() == pytest.approx(math.sqrt(2 / 27), rel=0.1)
    assert pictures(32).min() >= 0
    assert pictures(32).max() <= 255


def test_a_summary_sees_any_two_outputs_that_changed_places() -> None:
    outputs = uniform("outputs", 1000).reshape(1, 1000)
    swapped = outputs.copy()
    swapped[:, [500, 501]] = swapped[:, [501, 500]]
    assert summary(outputs).shape == (1, 16 + 16 + 2 + 8)
    assert np.abs(summary(outputs) - summary(swapped)).max() > TOLERANCE * outputs.std()


# ------------------------------------------------------------------------------------------------------- with torch


def torch_net(case: Case) -> Any:
    """The compact network of torch_nets.py with the known weights, in float32."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from tests.parity import torch_nets

    net = torch_nets.build(case.torch)
    own = net.state_dict()
    for key, array in state({key: tuple(tensor.shape) for key, tensor in own.items()}, case.gain).items():
        own[key].copy_(torch.from_numpy(array))
    return net


def torch_answers(net: Any, case: Case, size: int) -> NDArray[np.float64]:
    """Logits (n, classes), computed in float64."""
    import torch

    mean, deviation = (np.array(part).reshape(1, 1, 1, 3) for part in case.normalization)
    x = (pictures(size).astype(np.float64) / 255 - mean) / deviation
    with torch.no_grad():
        return net.double()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.torch
@each_case
def test_files_of_torch_give_every_logit_of_torch(case: Case, tmp_path: Path) -> None:
    """At another size than the recorded one, through a real file of each of torch's two formats."""
    net = torch_net(case)
    import torch

    size = case.size + 5
    weights = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    torch.save(weights, tmp_path / "zip.pth")
    wrapped = {"best_prec1": 91.8, "state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}}
    torch.save(wrapped, tmp_path / "legacy.th", _use_new_zipfile_serialization=False)
    read = tensors.state_dict(tmp_path / "zip.pth")
    old = tensors.state_dict(tmp_path / "legacy.th")
    assert list(read) == list(old) == list(weights)
    assert all(np.array_equal(read[key], old[key]) for key in read)

    _, logits = imported(case, size, old)(pictures(size))
    wanted = torch_answers(net, case, size)
    assert np.abs(np.asarray(logits) - wanted).max() < TOLERANCE * wanted.std()


@pytest.mark.torch
@each_case
def test_the_recordings_are_what_torch_answers(case: Case) -> None:
    net = torch_net(case)
    rows, answers = recorded(case)
    assert list(rows.items()) == [(key, tuple(tensor.shape)) for key, tensor in net.state_dict().items()]
    wanted = torch_answers(net, case, case.size)
    assert np.abs(summary(wanted) - answers["logits"]).max() < 1e-6 * wanted.std()


@pytest.mark.torch
@pytest.mark.parametrize("case", [case for case in CASES if not case.net.startswith("resnet")], ids=str)
def test_the_compact_torch_networks_are_the_published_ones(case: Case) -> None:
    """Those of torchvision and timm; the CIFAR ResNets are in no package, their real weights are tested below."""
    pytest.importorskip("torch", reason="torch is not installed")
    try:
        import timm  # noqa: F401
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter where it was built for another torch
        pytest.skip(f"torchvision and timm cannot be imported: {error}")
    from tests.parity import make_parity

    assert make_parity.check(case) is None


# ------------------------------------------------------------------------------------------------------ real weights


def best_five(network: Any, photos: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, 5) classes, the likeliest first."""
    batches = np.array_split(photos, -(-len(photos) // 50))
    outputs = np.concatenate([np.asarray(network(batch.astype(np.float32))) for batch in batches])
    return np.argsort(-outputs, axis=1)[:, :5]


def chance(share: float, count: int) -> float:
    """Three standard errors of a share of `count` pictures."""
    return 3 * math.sqrt(share * (1 - share) / count)


@pytest.fixture(scope="module")
def cifar() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first 30 test pictures of each class, (300, 32, 32, 3), and their classes."""
    archive = DATA / "cifar10-jpg" / "test.tar.xz"
    if not archive.is_file():
        pytest.skip("../shared/data/cifar10-jpg is not here")
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None and int(Path(member.name).stem) < 30:
                found[member.name] = decode(file.read())
    classes = sorted({Path(name).parent for name in found})
    names = sorted(found)
    return np.stack([found[name] for name in names]), np.array([classes.index(Path(name).parent) for name in names])


@pytest.mark.parametrize(("depth", "published"), [(20, 0.8103), (56, 0.8320)])
def test_real_cifar_weights_classify_as_they_do_in_torch(
    depth: int, published: float, cifar: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    """The shares are torch's on all 10,000 JPEGs, which cost the nets about ten points against the original pixels."""
    photos, truth = cifar
    (path,) = (DATA / "cifar-models").glob(f"resnet{depth}-*.th")
    network = pretrained.published(zoo.Shape(f"resnet{depth}_cifar", 1.0, 32), str(path))
    right = best_five(network, photos)[:, 0] == truth
    assert right.mean() == pytest.approx(published, abs=chance(published, len(truth)))


@pytest.mark.skipif(not (DATA / "imagenet-models").is_dir(), reason="../shared/data/imagenet-models is not here")
def test_real_squeezenet_weights_out_of_caffe_classify_as_they_should() -> None:
    """62.6 and 84.4 % on 1,000 such photos; blue and red changed would give 45 %."""
    paths = sorted((DATA / "imagenet-samples").glob("*.jpg"))[::2]
    truth = np.array([int(path.name[:4]) for path in paths])
    photos = np.stack([resize(read_image(path), 227, 227) for path in paths])
    network = pretrained.published(
        zoo.Shape("squeezenet_1_1", 1.0, 227), str(DATA / "imagenet-models" / "squeezenet1.1.npz")
    )
    right = best_five(network, photos) == truth[:, None]
    assert right[:, 0].mean() == pytest.approx(0.626, abs=chance(0.626, len(truth)))
    assert right.any(axis=1).mean() == pytest.approx(0.844, abs=chance(0.844, len(truth)))
