"""One model in a file: trained on data, or exported. The verbs `train` and `export`.

    trained = train("yolo-fastest.keras", "cells/", "cells.keras")          # its classes become those of the data
    artifacts = export("cells.keras", "cells/", "artifacts")

Imports artifact, data, errors, export, fold, frames, image, models, quantize, train and this folder; keras where used.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Step, check_new
from featherweight.boxes import RESIZES
from featherweight.data import Dataset, Split, load_pixels, read_dataset
from featherweight.errors import SettingError
from featherweight.export import FORMATS, PRECISIONS
from featherweight.export import export as export_one
from featherweight.fold import fold_branches
from featherweight.frames import picture_of, sources_of
from featherweight.image import resize
from featherweight.models.functional import picture_size
from featherweight.models.kept import Kept, kept_in
from featherweight.models.load import load_model, save_model
from featherweight.quantize import CALIBRATION_IMAGES, chosen_items, quantize
from featherweight.train import load_keras, set_seed
from featherweight.training import about_of, changed, names_of, rule_of, training_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LearnSettings:
    """How a model in a file is trained.

    `train` are the settings of the task, `TrainSettings`, `DetectSettings` or `SegmentSettings`, by default
    its usual ones; `changes` are settings by name that are to be other than those. `task` is that of the data, by
    default as the folder's layout tells; `resize` is how pictures become inputs, by default the rule of the task.
    """

    train: Any = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    task: str | None = None
    resize: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of it."""

    path: Path
    model: "keras.Model"
    step: Step

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"model": str(self.path), "parameters": self.model.count_params(), "step": asdict(self.step)}


def train(
    model: str | Path, data: str | Path | Dataset, output: str | Path, settings: LearnSettings | None = None
) -> Trained:
    """Train a model of a file on from where it is.

    Args:
        model: a `.keras` or `.h5` file. A classifier tells the classes of the data apart already; a detector for others
            is made one for these, with anchors fitted to their boxes where it has any.
        data: a folder of pictures, or a dataset, with the parts train and val.
        output: a new `.keras` file; it keeps the lineage, the classes and the rule of resizing. The state after each
            epoch is kept beside it until it is written: the same call goes on with a run that was interrupted.
        settings: how.

    Raises:
        ModelFileError: no model, or a damaged one.
        SettingError: a model of another task or other classes, or settings that cannot be.
        OutputError: the file exists or cannot be written.
        DataError: as `read_dataset`.
    """
    settings = settings or LearnSettings()
    place = Path(output)
    if place.suffix != ".keras":
        raise SettingError(f"--output {place}; wanted a name that ends in .keras")
    check_new(place)
    dataset = data if isinstance(data, Dataset) else read_dataset(data, settings.split, settings.task)
    known = kept_in(model)
    world = training_of(dataset.task, settings.resize or known.resize)
    load_keras()
    given = load_model(model)
    set_seed(settings.seed)
    start, knows = world.started(given, dataset, settings.seed)
    how = changed(settings.train or world.usual(True, knows), {**settings.changes, "seed": settings.seed})
    running = place.with_suffix(".running")
    trained, step = world.train(start, dataset, how, knows, None, running)
    kept = Kept((*known.steps, step), dataset.classes, world.rule(trained, dataset))
    save_model(trained, place, kept)
    running.unlink(missing_ok=True)
    return Trained(place, trained, step)


@dataclass(frozen=True)
class ExportSettings:
    """Which files are made. `resize` is how pictures become inputs, by default the model's rule; `classes` are the
    names of the outputs, by default those in the model or of the data.
    """

    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = ("float32",)
    resize: str | None = None
    classes: tuple[str, ...] = ()
    split: Split = field(default_factory=Split)
    task: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known = ((self.formats, FORMATS, "format"), (self.precisions, PRECISIONS, "precision"))
        for given, allowed, what in known:
            unknown = next((one for one in given if one not in allowed), None)
            if unknown is not None or not given:
                raise SettingError(f"{what} {unknown or 'none'}; known: {', '.join(allowed)}")
        if self.resize is not None and self.resize not in RESIZES:
            raise SettingError(f"unknown resize {self.resize!r}; known: {', '.join(RESIZES)}")


def export(
    model: str | Path,
    output: str | Path,
    data: str | Path | Dataset | None = None,
    pictures: Sequence[str | Path] = (),
    settings: ExportSettings | None = None,
) -> tuple[Artifact, ...]:
    """Write a model of a file as artifacts, each checked against Keras: `OUTPUT/NAME-FORMAT-PRECISION`.

    Args:
        model: a `.keras` or `.h5` file.
        output: a folder.
        data: what it was trained for: pictures of train are used, and the classes have its names.
        pictures: in place of data, files and folders of such pictures as it will see.
        settings: which files.

    Raises:
        ModelFileError: no model, or a damaged one.
        SettingError: neither data nor pictures, or both; classes that are not those of the model.
        ExportError: as `export.export` and `quantize`.
        OutputError: a folder exists or cannot be written.
        DataError: as `read_dataset`, or no pictures.
    """
    settings = settings or ExportSettings()
    if (data is None) == (not pictures):
        raise SettingError("no pictures to hold the files against, or two kinds; wanted --data or --calibration")
    name = Path(model).stem
    folder = Path(output)
    for file_format in settings.formats:
        for precision in settings.precisions:
            check_new(folder / f"{name}-{file_format}-{precision}")
    dataset = data if data is None or isinstance(data, Dataset) else read_dataset(data, settings.split, settings.task)
    load_keras()
    given, known = load_model(model), kept_in(model)
    classes = _classes(given, dataset, settings.classes, known.classes)
    usual = rule_of(given) if dataset is None else training_of(dataset.task).rule(given, dataset)
    rule = settings.resize or known.resize or usual
    pixels = _pixels(given, dataset, pictures, rule, settings.seed)
    folded, fold = fold_branches(given)
    steps = (*known.steps, fold) if fold.settings["folded"] else known.steps
    return _files(folded, name, classes, steps, pixels, rule, folder, settings)


def _files(
    model: "keras.Model",
    name: str,
    classes: tuple[str, ...],
    steps: tuple[Step, ...],
    pixels: NDArray[np.uint8],
    rule: str,
    folder: Path,
    settings: ExportSettings,
) -> tuple[Artifact, ...]:
    made = []
    with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
        for file_format in settings.formats:
            named = f"{name}-{file_format}-float32"
            kept = "float32" in settings.precisions
            about = about_of(model, named, classes, steps, rule)
            source = export_one(model, (folder if kept else Path(scratch)) / named, file_format, about, pixels)
            made += [source] if kept else []
            if "int8" in settings.precisions:
                named = f"{name}-{file_format}-int8"
                made.append(quantize(source, folder / named, pixels, named))
    return tuple(made)


def _classes(
    model: "keras.Model", dataset: Dataset | None, asked: tuple[str, ...], kept: tuple[str, ...]
) -> tuple[str, ...]:
    """The names of the outputs: those asked for, else the data's, else those in the file.

    Raises:
        SettingError: there are not so many, or the data have others.
    """
    own = names_of(model)
    if dataset is not None:
        training_of(dataset.task).check(model, dataset)  # then the model's names, if it has any, are the data's
        own = dataset.classes
    else:
        own = kept if len(kept) == len(own) else own
    names = asked or own
    if len(names) != len(own):
        raise SettingError(f"{len(names)} names for the {len(own)} classes of {model.name}; wanted a name each")
    return names


def _pixels(
    model: "keras.Model", dataset: Dataset | None, pictures: Sequence[str | Path], rule: str, seed: int
) -> NDArray[np.uint8]:
    """Pictures (n, h, w, 3) as the model takes them."""
    height, width = picture_size(model)
    if dataset is not None:
        items = chosen_items(dataset, CALIBRATION_IMAGES, seed)
        return load_pixels(items, height, width, rule=rule).take(items)
    found = [source for source in sources_of([str(one) for one in pictures]) if not source.moves]
    rows = np.unique(np.linspace(0, len(found) - 1, min(CALIBRATION_IMAGES, len(found))).astype(int)) if found else ()
    if not len(rows):
        raise SettingError(f"no pictures in {', '.join(map(str, pictures))}; wanted files or folders of them")
    return np.stack([resize(picture_of(found[row]), height, width, rule) for row in rows])
