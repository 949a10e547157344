"""The end of a detector: maps lined up, and what they mean kept with the model."""

from typing import Any

import keras
import numpy as np
import pytest

from featherweight.analyze.costs import count
from featherweight.boxes import Decoding, Scale
from featherweight.errors import SettingError
from featherweight.models.heads import Predictions, classes_of_model, decoding_of_model
from featherweight.models.load import load_model

TWO = Decoding("yolo", (Scale(2, 3, ((1.0, 2.0), (3.0, 4.0))), Scale(4, 6, ((5.0, 6.0),))), 8, 12, 1)


def detector(decoding: Decoding = TWO, classes: list[str] | None = None) -> keras.Model:
    image = keras.Input((8, 12, 3))
    fine = keras.layers.Conv2D(6, 1, 2, name="fine")(image)
    coarse = keras.layers.Conv2D(12, 1, 2, name="coarse")(fine)
    return keras.Model(image, Predictions(decoding.as_dict(), classes, name="predictions")([coarse, fine]))


def test_rows_stand_by_map_by_row_by_column_by_anchor() -> None:
    model = detector()
    image = np.random.default_rng(0).uniform(0, 255, (2, 8, 12, 3)).astype(np.float32)
    coarse, fine = (
        np.asarray(keras.Model(model.input, model.get_layer(name).output)(image)) for name in ("coarse", "fine")
    )
    found = np.asarray(model(image))
    assert found.shape == (2, 2 * 3 * 2 + 4 * 6, 6)
    for row, column, anchor in np.ndindex(2, 3, 2):
        wanted = coarse[:, row, column, 6 * anchor : 6 * anchor + 6]
        np.testing.assert_array_equal(found[:, (row * 3 + column) * 2 + anchor], wanted)
    np.testing.assert_array_equal(found[:, 12 + 2 * 6 + 5], fine[:, 2, 5])


def test_decoding_and_classes_travel_with_the_file(tmp_path: Any) -> None:
    model = detector(classes=["bird"])
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert decoding_of_model(loaded) == TWO and classes_of_model(loaded) == ("bird",)
    assert classes_of_model(detector()) is None


def test_it_costs_nothing() -> None:
    model = detector()
    parameters, macs = count(model)
    assert (parameters, macs) == (3 * 6 + 6 + 6 * 12 + 12, 4 * 6 * 3 * 6 + 2 * 3 * 6 * 12)


def test_other_models_have_no_decoding() -> None:
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.Flatten()(image))
    assert decoding_of_model(model) is None and classes_of_model(model) is None
    behind = keras.Model((inner := detector()).input, keras.layers.Flatten()(inner.output))
    assert decoding_of_model(behind) is None


def test_maps_that_do_not_fit_are_refused() -> None:
    layer = Predictions(TWO.as_dict())
    with pytest.raises(SettingError, match=r"given maps \[\(2, 3, 12\)\]; its decoding has"):
        layer(keras.Input((2, 3, 12)))
    with pytest.raises(SettingError, match="is given maps"):
        layer([keras.Input((2, 3, 12)), keras.Input((4, 6, 5))])


BAD: dict[str, dict[str, Any]] = {
    "unknown": {"sort": 1}, "no scales": {"scales": []}, "a text": {"height": "8"}, "negative": {"width": -1},
    "huge": {"classes": 10**9}, "a fraction": {"most": 2.5}, "bins": {"bins": -1}, "kind": {"kind": "ssd"},
    "scale": {"scales": [{"height": 10**9, "width": 1, "anchors": []}]}, "anchors": {"scales": [{"anchors": [[1]]}]},
}  # fmt: skip


@pytest.mark.parametrize("change", BAD)
def test_a_decoding_out_of_a_file_is_checked(change: str) -> None:
    with pytest.raises(SettingError):
        Predictions({**TWO.as_dict(), **BAD[change]})


def test_classes_must_be_as_many_as_the_decoding_has() -> None:
    with pytest.raises(SettingError, match="2 names of classes; wanted 1"):
        detector(classes=["a", "b"])
