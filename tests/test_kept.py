"""What a `.keras` file of ours keeps beside the model."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.artifact import Step
from featherweight.errors import ModelFileError
from featherweight.modelfile import KEPT_MEMBER
from featherweight.models.kept import Kept, keep, kept_in
from featherweight.models.load import load_model, save_model

KEPT = Kept((Step("train", {"epochs": 3, "rates": [0.1]}, (("a", "why"),)),), ("cat", "Käfer"), "letterbox")


@pytest.fixture(scope="module")
def model() -> Any:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1)(image))


def test_it_comes_back_and_keras_and_we_still_load_the_model(model: Any, tmp_path: Path) -> None:
    save_model(model, tmp_path / "a.keras", KEPT)
    assert kept_in(tmp_path / "a.keras") == KEPT
    for loaded in (load_model(tmp_path / "a.keras"), keras.saving.load_model(tmp_path / "a.keras")):
        assert [weight.tolist() for weight in loaded.get_weights()] == [w.tolist() for w in model.get_weights()]


def test_other_files_keep_nothing(model: Any, tmp_path: Path) -> None:
    save_model(model, tmp_path / "a.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # h5py's way of asking NumPy
        model.save(tmp_path / "a.h5")
    assert kept_in(tmp_path / "a.keras") == kept_in(tmp_path / "a.h5") == Kept()


def written(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(KEPT_MEMBER, text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "no json",
        json.dumps({"steps": [{"name": 1, "settings": {}, "skipped": []}], "classes": [], "resize": None}),
        json.dumps({"steps": [], "classes": [1], "resize": None}),
        json.dumps({"steps": [], "classes": [], "resize": "squeeze"}),
        json.dumps({"steps": 3, "classes": [], "resize": None}),
        json.dumps({"steps": [], "classes": [], "resize": []}),
    ],
)
def test_what_we_did_not_write_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"a\.keras"):
        kept_in(written(tmp_path / "a.keras", text))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(PLAIN, PLAIN, PLAIN)
def test_any_other_content_gives_it_back_or_a_line(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, classes: Any, resize: Any
) -> None:
    path = written(
        tmp_path_factory.mktemp("kept") / "a.keras", json.dumps({"steps": steps, "classes": classes, "resize": resize})
    )
    try:
        found = kept_in(path)
    except ModelFileError:
        return
    assert list(found.classes) == classes and found.resize == resize


def test_nothing_is_added_to_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        keep(tmp_path / "no" / "a.keras", KEPT)
