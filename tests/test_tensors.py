"""Arrays come out of torch, safetensors and npz files as they were put in; hostile files run nothing, cost nothing."""

import json
import pickletools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.errors import ModelFileError
from featherweight.models import tensors, torchpickle
from featherweight.models.tensors import read_tensors, state_dict
from tests import hostile
from tests.hostile import call, name, number, ordered, row, storage, tensor, text

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar-models"
TWELVE = np.arange(12, dtype="<f4")


def small_zip(path: Path, value: bytes | None = None, **members: bytes) -> Path:
    if value is None:
        value = ordered(("w", tensor(storage("0", 12), (3, 4))), ("b", tensor(storage("1", 4), (4,))))
    return hostile.torch_zip(path, value, {"0": TWELVE.tobytes(), "1": TWELVE[:4].tobytes()}, **members)


def small_legacy(path: Path, **settings: int) -> Path:
    value = ordered(("w", tensor(storage("0", 12), (3, 4))), ("b", tensor(storage("1", 4), (4,))))
    blocks = {"0": (12, TWELVE.tobytes()), "1": (4, TWELVE[:4].tobytes())}
    return hostile.torch_legacy(path, value, blocks, **settings)


def small_safetensors(path: Path, **changes: object) -> Path:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [48, 64]},
        "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
    }
    header["b"].update(changes)
    return hostile.safetensors(path, json.dumps(header).encode(), TWELVE.tobytes() + TWELVE[:4].tobytes())


def small_npz(path: Path) -> Path:
    with path.open("wb") as file:
        np.savez(file, w=TWELVE.reshape(3, 4), b=TWELVE[:4])
    return path


MAKERS = {"pth": small_zip, "th": small_legacy, "safetensors": small_safetensors, "npz": small_npz}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_gives_the_arrays_by_name_and_in_order(tmp_path: Path, kind: str) -> None:
    found = read_tensors(MAKERS[kind](tmp_path / "weights.bin"))
    assert list(found) == (["b", "w"] if kind == "safetensors" else ["w", "b"])
    np.testing.assert_array_equal(found["w"], TWELVE.reshape(3, 4))
    np.testing.assert_array_equal(found["b"], TWELVE[:4])
    assert all(array.flags.owndata or array.base.flags.owndata for array in found.values())
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.values())


# --- right results: views, types, wrappers ----------


def test_views_of_storages(tmp_path: Path) -> None:
    block = storage("0", 12)
    value = ordered(
        ("transposed", tensor(block, (4, 3), (1, 4))),
        ("column", tensor(block, (3,), (4,), offset=2)),
        ("tied", tensor(block, (12,))),
        ("again", tensor(block, (12,))),
        ("repeated", tensor(block, (2, 3), (0, 1))),
        ("scalar", tensor(block, (), (), offset=7)),
        ("empty", tensor(block, (0, 4))),
    )
    found = state_dict(small_zip(tmp_path / "a.pth", value))
    square = TWELVE.reshape(3, 4)
    np.testing.assert_array_equal(found["transposed"], square.T)
    np.testing.assert_array_equal(found["column"], square[:, 2])
    np.testing.assert_array_equal(found["tied"], found["again"])
    np.testing.assert_array_equal(found["repeated"], [[0, 1, 2], [0, 1, 2]])
    assert found["scalar"].shape == () and found["scalar"] == 7
    assert found["empty"].shape == (0, 4)
    found["tied"][0] = 99
    assert found["again"][0] == 0  # each its own


@pytest.mark.parametrize("kind", sorted(torchpickle.STORAGE_TYPES))
def test_every_type_of_storage(tmp_path: Path, kind: str) -> None:
    code = torchpickle.STORAGE_TYPES[kind]
    truth = np.array([0, 1, 1, 0] if kind in ("BoolStorage", "ByteStorage") else [0, 1, -2, 100])
    if code == torchpickle.BFLOAT16:  # the upper half of a float32
        data = (truth.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = truth.astype(code).tobytes()
    path = hostile.torch_zip(tmp_path / "a.pth", ordered(("t", tensor(storage("k", 4, kind), (4,)))), {"k": data})
    found = state_dict(path)["t"]
    np.testing.assert_array_equal(found, truth)
    assert found.dtype == (np.float32 if code == torchpickle.BFLOAT16 else np.dtype(code))


@pytest.mark.parametrize("kind", sorted(tensors.SAFETENSORS_TYPES))
def test_every_type_of_safetensors(tmp_path: Path, kind: str) -> None:
    code = tensors.SAFETENSORS_TYPES[kind]
    data = b"\x80\x3f" if kind == "BF16" else np.ones(1, code).tobytes()
    header = json.dumps({"t": {"dtype": kind, "shape": [1, 1], "data_offsets": [0, len(data)]}}).encode()
    found = read_tensors(hostile.safetensors(tmp_path / "a", header, data))["t"]
    np.testing.assert_array_equal(found, [[1]])
    assert found.dtype == (np.float32 if kind == "BF16" else np.dtype(code))


def test_wrappers_and_the_prefix_of_parallel_training_are_taken_off(tmp_path: Path) -> None:
    inner = ordered(("module.w", tensor(storage("0", 12), (3, 4))), ("module.b", tensor(storage("1", 4), (4,))))
    wrapped = b"}(" + text("epoch") + number(90) + text("state_dict") + inner + text("best") + b"G" + bytes(8) + b"u"
    path = small_zip(tmp_path / "a.pth", wrapped)
    assert list(read_tensors(path)) == ["state_dict/module.w", "state_dict/module.b"]
    assert list(state_dict(path)) == ["w", "b"]
    mixed = ordered(("module.w", tensor(storage("0", 12), (3, 4))), ("b", tensor(storage("1", 4), (4,))))
    assert list(state_dict(small_zip(tmp_path / "b.pth", mixed))) == ["module.w", "b"]


def test_a_module_of_parameters_and_its_attributes(tmp_path: Path) -> None:
    parameter = call(name("torch._utils", "_rebuild_parameter"), tensor(storage("0", 12), (3, 4)), b"\x88", b"N")
    metadata = b"}" + text("_metadata") + ordered() + b"s"
    value = ordered(("w", parameter)) + metadata + b"b"  # BUILD: versions of modules, which say nothing
    assert list(state_dict(small_zip(tmp_path / "a.pth", value))) == ["w"]


def test_plain_python_values_beside_tensors(tmp_path: Path) -> None:
    """Lists, tuples and an ordered dictionary made from pairs, as older pickles write them."""
    weight = tensor(storage("0", 12), (3, 4))
    pairs = b"(" + b"(" + text("w") + weight + b"t" + b"l"
    value = b"(" + text("state_dict") + call(name("collections", "OrderedDict"), pairs)
    value += text("more") + b"]" + number(3) + b"a(" + number(4) + b"\x88e" + b"d"
    assert list(state_dict(small_zip(tmp_path / "a.pth", value))) == ["w"]


def test_the_older_name_of_rebuilding(tmp_path: Path) -> None:
    old = call(
        name("torch._utils", "_rebuild_tensor"), storage("0", 12, "FloatStorage", b"N"), number(0), row(number(12)),
        row(number(1)),
    )  # fmt: skip
    np.testing.assert_array_equal(state_dict(small_zip(tmp_path / "a.pth", ordered(("w", old))))["w"], TWELVE)


def test_npz_of_every_order_and_byte_order(tmp_path: Path) -> None:
    square = np.arange(6.0).reshape(2, 3)
    arrays = {"f": np.asfortranarray(square), "big": square.astype(">f8"), "flags": square > 2, "scalar": np.float32(5)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_tensors(tmp_path / "a.npz")
    for key, truth in arrays.items():
        np.testing.assert_array_equal(found[key], truth)
        assert found[key].dtype.isnative


def test_safetensors_agree_with_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    chance = np.random.default_rng(0)
    truth = {
        f"layer{i}.weight": chance.normal(size=shape).astype(kind)
        for i, (shape, kind) in enumerate([((3, 4), "f4"), ((), "f8"), ((0, 2), "f2"), ((5,), "i8"), ((2, 2, 2), "u1")])
    }
    library.save_file(truth, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = read_tensors(tmp_path / "a.safetensors")
    assert set(found) == set(truth)
    for key, array in truth.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


@pytest.mark.torch
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_itself(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2))
    tied = torch.randn(6, 4)
    extra = {
        "strided": torch.randn(5, 7).t(),
        "slice": torch.randn(10, 10)[2:5, ::3],
        "half": torch.randn(3).half(),
        "bfloat": torch.randn(3).bfloat16(),
        "double": torch.randn(3).double(),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "tied": tied,
        "tied too": tied.view(24),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    checkpoint = {"epoch": 3, "state_dict": {**net.state_dict(), **extra}, "note": [1, "x", None]}
    torch.save(checkpoint, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    found = state_dict(tmp_path / "a.pth")
    assert list(found) == list(checkpoint["state_dict"])
    for key, truth in checkpoint["state_dict"].items():
        wanted = truth.detach().float() if truth.dtype is torch.bfloat16 else truth.detach()
        np.testing.assert_array_equal(found[key], wanted.numpy())
        assert found[key].dtype == wanted.numpy().dtype
    torch.save(net.state_dict(), tmp_path / "b.pth", _use_new_zipfile_serialization=not legacy)
    assert list(state_dict(tmp_path / "b.pth")) == list(net.state_dict())
    torch.save(net, tmp_path / "c.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelFileError, match="wants to import"):
        state_dict(tmp_path / "c.pth")


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_resnets_for_cifar(depth: int) -> None:
    files = list(CIFAR.glob(f"resnet{depth}-*.th"))
    if not files:
        pytest.skip("needs ../shared/data/cifar-models")
    found = state_dict(files[0])
    # He et al. 2015, table 6: three stages of n blocks of two 3×3 convolutions with 16, 32 and 64 filters.
    n = (depth - 2) // 6
    convolutions, width = [(16, 3)], 16
    for filters in (16, 32, 64):
        for _ in range(n):
            convolutions += [(filters, width), (filters, filters)]
            width = filters
    weights = sum(9 * out * into for out, into in convolutions) + 64 * 10 + 10
    norms = sum(2 * out for out, _ in convolutions)
    trained = [k for k in found if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert sum(found[k].size for k in trained) == weights + norms
    assert found["conv1.weight"].shape == (16, 3, 3, 3)
    assert found["linear.weight"].shape == (10, 64)
    assert all(np.isfinite(array).all() for array in found.values())
    assert all((array > 0).all() for key, array in found.items() if key.endswith("running_var"))


# --- hostile pickles ----------


def laughs(levels: int) -> bytes:
    """A tuple of two of a tuple of two of …, by way of the memo: 2^levels values in a few bytes a level."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(levels))


def nested_dicts(levels: int) -> bytes:
    """The same with dictionaries, where walking them would take forever."""
    step = b"q\x00}(" + text("a") + b"h\x00" + text("b") + b"h\x00" + b"u"
    return b"}" + b"".join(step for _ in range(levels))


MANY = b"".join(number(key) + b"N" for key in range(150_000))
PAIRS = b"".join(number(key) + b"N\x86" for key in range(120_000))
ALIKE = b"".join(number(key * (2**61 - 1)) + b"N" for key in range(1, 120_000))


def hostile_pickles(marker: Path) -> dict[str, tuple[bytes, str]]:
    touch = text(f"touch {marker}")
    return {
        "os.system": (call(name("os", "system"), touch), "wants to import 'os.system'"),
        "posix.system": (call(name("posix", "system"), touch), "wants to import 'posix.system'"),
        "eval": (call(name("builtins", "eval"), text(f"open({str(marker)!r}, 'w')")), "'builtins.eval'"),
        "getattr": (call(name("builtins", "getattr"), name("os", "path")), "'builtins.getattr'"),
        "a torch function": (call(name("torch", "load"), touch), "'torch.load'"),
        "a function of _utils": (call(name("torch._utils", "_import_dotted_name"), touch), "_import_dotted_name"),
        "a storage of elsewhere": (name("evil", "FloatStorage"), "'evil.FloatStorage'"),
        "stack global": (text("os") + text("system") + b"\x93", "'os.system'"),
        "in a state dict": (ordered(("w", call(name("os", "system"), touch))), "'os.system'"),
        "nested reduce": (call(call(name("collections", "OrderedDict")), touch), "wants to call"),
        "called storage": (call(name("torch", "FloatStorage"), number(9)), "wants to call"),
        "old instance": (b"(" + touch + b"ios\nsystem\n", "operation INST"),
        "object": (b"(" + name("os", "system") + touch + b"o", "'os.system'"),
        "newobj": (name("collections", "OrderedDict") + b")\x81", "operation NEWOBJ"),
        "extension": (b"\x82\x01", "operation EXT1"),
        "text number": (b"I" + b"9" * 10_000 + b"\n", "damaged"),
        "billion laughs": (laughs(5000), "outermost value is no dictionary"),
        "laughs as a name": (b"}" + laughs(100) + b"Ns", "a name is a tuple"),
        "laughs as a shape": (
            call(name("torch._utils", "_rebuild_tensor_v2"), storage("0", 12), number(0), laughs(60), b")"),
            "without a proper",
        ),
        "laughs of dictionaries": (nested_dicts(60), "too many or too deeply"),
        "a dictionary in itself": (b"}q\x00" + text("a") + b"h\x00s", "too many or too deeply"),
        "deep tuples": (b")" + b"\x85" * 300_000, "outermost value is no dictionary"),
        "deep lists": (b"]" * 200_000 + b"a" * 199_999, "outermost value is no dictionary"),
        "many marks": (b"(" * 300_000 + b"t", "outermost value is no dictionary"),
        "memo bomb": (b"}" + b"".join(b"r" + i.to_bytes(4, "little") for i in range(300_000)), "no tensors in it"),
        "no mark": (b"t", "damaged"),
        "empty stack": (b"", "damaged"),
        "short stack": (b")\x87", "damaged"),
        "absent memo": (b"h\x07", "damaged"),
        "odd items": (b"}(" + text("a") + b"u", "a name without a value"),
        "append to a tuple": (b"))a", "a list was wanted"),
        "names that are no text": (b"))\x93", "a name to import is no text"),
        "a persistent number": (number(1) + b"Q", "refers to something that is no storage"),
        "a storage without type": (
            row(text("storage"), text("x"), text("0"), text("cpu"), number(1)) + b"Q",
            "unknown type",
        ),
        "a view of a storage": (storage("0", 12, "FloatStorage", row(text("v"), number(0), number(4))), "not plain"),
        "a storage of -1": (storage("0", -1), "not plain"),
        "a parameter of text": (
            call(name("torch._utils", "_rebuild_parameter"), text("x")),
            "parameter that is no tensor",
        ),
        "a tensor of too little": (call(name("torch._utils", "_rebuild_tensor_v2"), number(1)), "damaged"),
        "an odd ordered dictionary": (call(name("collections", "OrderedDict"), text("x")), "not plain"),
        "one list for thousands": (
            b"](" + PAIRS + b"eq\x00" + name("collections", "OrderedDict") + b"q\x01" + b"h\x01h\x00\x85R" * 3000,
            "an ordered dictionary that is not plain",
        ),
        "numbers that hash alike": (b"}(" + ALIKE + b"u", "a name is the number 2305843009213693951"),
        "a name below zero": (b"}" + number(-1) + b"Ns", "a name is the number -1"),
        "long names over many": (
            b"}" + text("a" * 2**20) + b"}(" + MANY[: 19_000 * 6] + b"us",
            "a name of 1,048,576 characters",
        ),
        "many names": (
            b"}" + text("a") + b"}(" + MANY + b"us",
            "too many or too deeply",
        ),
        "many names at once": (
            b"}(" + MANY + b"u",
            "a dictionary of 150,000 values",
        ),
        "a name that is no text": (b"}X\x03\x00\x00\x00\xed\xa0\x80Ns", r"the name \ud800, which"),
        "complex numbers": (name("torch", "ComplexFloatStorage"), "'torch.ComplexFloatStorage'"),
    }  # fmt: skip


@pytest.mark.parametrize("case", hostile_pickles(Path("marker")))
@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_pickles_run_nothing_and_are_named(tmp_path: Path, case: str, legacy: bool) -> None:
    marker = tmp_path / "marker"
    value, said = hostile_pickles(marker)[case]
    path = tmp_path / "weights.pth"
    start = time.monotonic()
    if legacy:
        hostile.torch_legacy(path, value, {})
    else:
        small_zip(path, value)
    with pytest.raises(ModelFileError) as caught:
        read_tensors(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not marker.exists()
    assert time.monotonic() - start < 8


def test_addresses_as_names(tmp_path: Path) -> None:
    """Old optimizers' states; and the largest whole number that is taken."""
    value = ordered(("w", tensor(storage("0", 12), (3, 4)))) + text("state") + b"}(" + number(2**48 - 1) + b"}us"
    assert list(read_tensors(small_zip(tmp_path / "a.pth", value))) == ["w"]
    with pytest.raises(ModelFileError, match="a name is the number 281474976710656"):
        read_tensors(small_zip(tmp_path / "a.pth", value.replace(number(2**48 - 1), number(2**48))))


@pytest.mark.parametrize("shape", [(2**59, 0), (2**40, 2**19, 0)])
def test_large_shapes_of_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """The largest that NumPy can make; twice that is refused."""
    assert torchpickle.is_shape(shape) == (max(shape) < 2**48)
    assert not torchpickle.is_shape((2, *shape))
    if torchpickle.is_shape(shape):
        value = ordered(("w", tensor(storage("0", 12, "DoubleStorage"), shape, (1,) * len(shape))))
        path = hostile.torch_zip(tmp_path / "a.pth", value, {"0": bytes(96)})
        assert read_tensors(path)["w"].shape == shape
        header = {"w": {"dtype": "F64", "shape": shape, "data_offsets": [0, 0]}}
        assert read_tensors(hostile.safetensors(path, json.dumps(header).encode(), b""))["w"].shape == shape


# --- sizes that are not there ----------

SIZES = {
    "past the end": (tensor(storage("0", 12), (3, 5)), "reaches past its storage"),
    "by an offset": (tensor(storage("0", 12), (3, 4), offset=1), "reaches past its storage"),
    "by a stride": (tensor(storage("0", 12), (3,), (6,)), "reaches past its storage"),
    "2^40 numbers of one": (tensor(storage("0", 12), (2**20, 2**20), (0, 0)), "reaches past its storage"),
    "one too many of one": (tensor(storage("0", 12), (13,), (0,)), "reaches past its storage"),
    "another length": (tensor(storage("0", 13), (3, 4)), "storage of another size|another length than declared"),
    "another type": (tensor(storage("0", 12, "DoubleStorage"), (3, 4)), "storage of another size|cut off"),
    "a negative size": (tensor(storage("0", 12), (-1,), (1,)), "without a proper"),
    "a negative stride": (tensor(storage("0", 12), (2,), (-1,)), "without a proper"),
    "an absurd size": (tensor(storage("0", 12), (2**60,), (1,)), "without a proper"),
    "strides lacking": (tensor(storage("0", 12), (3, 4), (1,)), "without a proper"),
    "an absurd size of nothing": (tensor(storage("0", 12), (2**30, 2**30, 0), (1, 1, 1)), "without a proper"),
    "17 axes": (tensor(storage("0", 12), (1,) * 17), "without a proper"),
    "an absent storage": (tensor(storage("9", 12), (3, 4)), "no storage in the file|belongs to no tensor"),
}


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("legacy", [False, True])
def test_sizes_are_held_against_the_file(tmp_path: Path, case: str, legacy: bool) -> None:
    value, said = SIZES[case]
    path = tmp_path / "weights.pth"
    if legacy:
        hostile.torch_legacy(path, ordered(("w", value)), {"0": (12, TWELVE.tobytes())})
    else:
        small_zip(path, ordered(("w", value)))
    with pytest.raises(ModelFileError, match=said):
        read_tensors(path)


def test_one_storage_cannot_count_a_thousand_times(tmp_path: Path) -> None:
    count = 2**20
    views = ordered(*((f"t{i}", tensor(storage("0", count), (count,))) for i in range(1000)))
    path = hostile.torch_zip(tmp_path / "a.pth", views, {"0": bytes(4 * count)})
    with pytest.raises(ModelFileError, match="declare 4,194,304,000 bytes"):
        read_tensors(path)


def test_one_storage_has_one_description(tmp_path: Path) -> None:
    value = ordered(("a", tensor(storage("0", 12), (12,))), ("b", tensor(storage("0", 24, "HalfStorage"), (24,))))
    with pytest.raises(ModelFileError, match="declared in two ways"):
        read_tensors(small_zip(tmp_path / "a.pth", value))


def test_names_that_fall_together_are_refused(tmp_path: Path) -> None:
    block = tensor(storage("0", 12), (12,))
    value = b"}(" + text("a/b") + block + text("a") + ordered(("b", block)) + b"u"
    with pytest.raises(ModelFileError, match=r"'a/b' is there twice"):
        read_tensors(small_zip(tmp_path / "a.pth", value))


def test_what_torch_files_must_be(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(ModelFileError, match="big-endian"):
        read_tensors(small_zip(path, byteorder=b"big"))
    assert read_tensors(small_zip(path, byteorder=b"little"))
    with pytest.raises(ModelFileError, match="big-endian"):
        read_tensors(small_legacy(path, little=False))
    with pytest.raises(ModelFileError, match="unknown version"):
        read_tensors(small_legacy(path, version=1000))
    with pytest.raises(ModelFileError, match="TorchScript"):
        read_tensors(small_zip(path, **{"constants.pkl": b"x"}))
    with pytest.raises(ModelFileError, match=r"2 members data\.pkl"):
        read_tensors(small_zip(path, **{"more/data.pkl": b"x"}))
    with pytest.raises(ModelFileError, match="no tensors in it"):
        read_tensors(small_zip(path, b"}"))
    with pytest.raises(ModelFileError, match="wanted at most 2,097,152"):
        read_tensors(small_zip(path, b"}" + b"N0" * 2**20))
    path.write_bytes(small_legacy(path).read_bytes() + b"x")
    with pytest.raises(ModelFileError, match="1 bytes after the last storage"):
        read_tensors(path)
    path.write_bytes(hostile.LEGACY_MAGIC)
    with pytest.raises(ModelFileError, match="exhausted before"):
        read_tensors(path)
    value = ordered(("w", tensor(storage("0", 12), (3, 4))))
    with pytest.raises(ModelFileError, match="'0' is not in the file"):
        read_tensors(hostile.torch_legacy(path, value, {}))
    parts = [hostile.pickled(p) for p in (number(1001), b"}" + text("little_endian") + b"\x88s", b"}", number(3))]
    path.write_bytes(hostile.LEGACY_MAGIC + b"".join(parts))
    with pytest.raises(ModelFileError, match="no list of names"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": [5]}, r"shape \[5\] takes 16 bytes"),
        ({"shape": [-4]}, "no proper shape"),
        ({"shape": [2**50, 0]}, "no proper shape"),
        ({"shape": [2**40, 2**20, 0], "data_offsets": [48, 48]}, "no proper shape"),
        ({"shape": "4"}, "no proper shape"),
        ({"shape": [True, 4]}, "no proper shape"),
        ({"data_offsets": [48]}, "no proper shape"),
        ({"data_offsets": [44, 60]}, "hole or overlaps"),
        ({"data_offsets": [52, 68]}, "hole or overlaps"),
        ({"shape": [8], "data_offsets": [48, 80]}, "declares 80 bytes of numbers and holds 64"),
        ({"shape": [2], "data_offsets": [48, 56]}, "declares 56 bytes of numbers and holds 64"),
        ({"shape": [2**40], "data_offsets": [48, 48 + 2**42]}, "declares"),
        ({"dtype": "F8_E4M3"}, "has the type F8_E4M3; known: F64"),
        ({"dtype": ["F32"]}, "has the type"),
        ({"more": 1}, "not described by"),
    ],
)
def test_safetensors_headers_are_held_against_the_file(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelFileError, match=said):
        read_tensors(small_safetensors(tmp_path / "a", **changes))


@pytest.mark.parametrize(
    ("header", "length", "said"),
    [
        (b"{}", None, "no tensors in it"),
        (b"{}", 2**40, "header of 1,099,511,627,776 bytes"),
        (b"{}", 1, "header of 1 bytes"),
        (b'{"a": 1, "a": 2}', None, "a name twice"),
        (b'{"a": 1}', None, "not described by"),
        (b"{" + b"[" * 5000, None, "no JSON"),
    ],
)
def test_safetensors_headers_are_parsed_within_limits(
    tmp_path: Path, header: bytes, length: int | None, said: str
) -> None:
    with pytest.raises(ModelFileError, match=said):
        read_tensors(hostile.safetensors(tmp_path / "a", header, b"", length))


def array_header(shape: str = "(4,)", descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (hostile.npy(array_header("(5,)"), bytes(16)), "declares the shape"),
        (hostile.npy(array_header("(1000000, 1000000)"), bytes(16)), "declares the shape"),
        (hostile.npy(array_header("(-4,)"), bytes(16)), "declares the shape"),
        (hostile.npy(array_header(descr="'|O'"), bytes(16)), "holds object, not plain numbers; .*could run code"),
        (hostile.npy(array_header(descr="'<U4'"), bytes(64)), "not plain numbers"),
        (hostile.npy(array_header(descr="'<c16'"), bytes(64)), "not plain numbers"),
        (hostile.npy(array_header(descr="[('a', '<f4')]"), bytes(16)), "not plain numbers"),
        (hostile.npy(array_header("__import__('os')"), bytes(16)), "is no array"),
        (hostile.npy("(" * 5000, b""), "is no array"),
        (hostile.npy("{}", b""), "is no array"),
        (b"not an array", "is no array"),
        (b"", "is no array"),
    ],
)
def test_npz_arrays_are_held_against_their_bytes(tmp_path: Path, data: bytes, said: str) -> None:
    path = hostile.zipped(tmp_path / "a.npz", ("good.npy", hostile.one_array()), ("bad.npy", data))
    with pytest.raises(ModelFileError, match=said):
        read_tensors(path)


def test_kinds_without_plain_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelFileError, match=r"kind hdf5; wanted \.pth, \.safetensors or \.npz"):
        read_tensors(path)


# --- damage ----------

CHECKSUMMED = ("pth", "npz")


@pytest.mark.parametrize("kind", MAKERS)
def test_every_truncation_gives_one_line(tmp_path: Path, kind: str) -> None:
    data = MAKERS[kind](tmp_path / "good").read_bytes()
    versions = hostile.truncations(data)
    messages, results = hostile.outcomes(tmp_path / "bad", versions, read_tensors, ModelFileError)
    assert len(messages) == len(versions) and not results
    assert all("\n" not in message for message in messages)


@pytest.mark.parametrize("kind", MAKERS)
def test_one_changed_byte_gives_one_line_or_a_right_result(tmp_path: Path, kind: str) -> None:
    """zip archives have checksums; elsewhere a changed number cannot be seen, but names and shapes must fit."""
    good = MAKERS[kind](tmp_path / "good")
    truth = read_tensors(good)
    versions = [data for _, data in hostile.flips(good.read_bytes())]
    messages, results = hostile.outcomes(tmp_path / "bad", versions, read_tensors, ModelFileError)
    assert messages and all("\n" not in message for message in messages)
    for found in results:
        assert sum(array.nbytes for array in found.values()) <= sum(array.nbytes for array in truth.values())
        if kind in CHECKSUMMED:
            assert list(found) == list(truth)
            for key, array in truth.items():
                np.testing.assert_array_equal(found[key], array)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(MAKERS)))
def test_any_mutation_gives_one_line_or_arrays(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    good = MAKERS[kind](folder / "good").read_bytes()
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(len(good), start + 8)))
    path = folder / "mutated"
    path.write_bytes(good[:start] + data.draw(st.binary(max_size=8)) + good[stop:])
    try:
        assert all(isinstance(array, np.ndarray) for array in read_tensors(path).values())
    except ModelFileError as error:
        assert "\n" not in str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(sorted({op.code for op in pickletools.opcodes})), max_size=30), st.binary())
def test_any_pickle_gives_one_line_or_arrays(
    tmp_path_factory: pytest.TempPathFactory, operations: list[str], tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pth"
    value = "".join(operations).encode("latin-1") + tail
    with pytest.raises(ModelFileError):
        read_tensors(hostile.torch_zip(path, value, {}))


BOMBS = """
import sys
from pathlib import Path
from featherweight.device import peak_memory_bytes, reset_peak_memory, resident_memory_bytes
from featherweight.errors import ModelFileError
from featherweight.models.tensors import read_tensors
reset_peak_memory()
before = resident_memory_bytes()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_tensors(path)
        print("read", path)
    except ModelFileError:
        pass
print((peak_memory_bytes() - before) // 2**20)
"""


def test_bombs_cost_little_memory(tmp_path: Path) -> None:
    small_zip(tmp_path / "dicts.pth", b"}" * 2_000_000)
    small_zip(tmp_path / "laughs.pth", laughs(300_000))
    small_zip(tmp_path / "expanded.pth", ordered(("w", tensor(storage("0", 12), (2**20, 2**20), (0, 0)))))
    count = 2**20
    views = ordered(*((f"t{i}", tensor(storage("0", count), (count,))) for i in range(1000)))
    hostile.torch_zip(tmp_path / "views.pth", views, {"0": bytes(4 * count)})
    hostile.torch_legacy(
        tmp_path / "count.th", ordered(("w", tensor(storage("0", 2**40), (2**40,)))), {"0": (2**40, b"")}
    )
    hostile.safetensors(tmp_path / "header.safetensors", b"{" + b"[]," * 5_000_000, b"")
    hostile.safetensors(tmp_path / "length.safetensors", b"{}", b"", 90_000_000)
    huge = json.dumps({"t": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    hostile.safetensors(tmp_path / "shape.safetensors", huge, b"")
    hostile.zipped(tmp_path / "bomb.npz", ("a.npy", bytes(600 * 2**20)), deflate=True)
    hostile.zipped(tmp_path / "shape.npz", ("a.npy", hostile.npy(array_header("(1000000, 100000)"), b"")))
    hostile.zipped(tmp_path / "members.npz", *((f"{i}.npy", b"") for i in range(30_000)))
    done = subprocess.run([sys.executable, "-c", BOMBS, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 512, done.stdout  # MiB
