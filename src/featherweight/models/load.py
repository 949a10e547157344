"""Load a Keras model of a stranger: `.keras`, or `.h5` in the old format; and weights into a model at hand.

Keras itself comes last, and it never sees the file:

1. The kind is told by content, the size is capped, and the zip archive must hold the three members that Keras writes
   and no other but ours (`kept`).
2. The configuration is parsed within limits and held against the lists of `keras_config`; Keras 2 is translated.
3. A child process copies the arrays out of the HDF5 file (`hdf5`): no links, nothing outside the file, no number that
   is not there.
4. Keras builds the model in a `StatelessScope`: this gives each weight's shape and allocates none. The shapes must be
   those of the file, so that no more can be asked for than the file holds; and no layer may make an absurdly large map.
5. Now Keras loads a file that was written here, from the cleaned configuration and the copied arrays, with
   `safe_mode=True, compile=False`.

Step 5 is done in this process: the model is wanted here, and after steps 1 to 4 there is nothing foreign left in it
but numbers. A model is still a program; what it computes is its author's business.

Imports errors, modelfile, hdf5, keras_config and kept; h5py and keras where they are used.
"""

import json
import math
import os
import tempfile
import threading
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import ModelFileError, OutputError
from featherweight.modelfile import (
    KEPT_MEMBER,
    KERAS_MEMBERS,
    MAX_JSON_BYTES,
    Kind,
    failure,
    identify,
    one_line,
    open_archive,
    parse_json,
    read_member,
)
from featherweight.models.hdf5 import Contents, clean_copy
from featherweight.models.kept import Kept, keep
from featherweight.models.keras_config import clean_config

if TYPE_CHECKING:
    import keras

WEIGHTS_MEMBER = "model.weights.h5"
WHOLE = 'wanted the whole model: save it again with model.save("name.keras") where it was made'
METADATA = {"keras_version": "3.0.0", "date_saved": "2000-01-01@00:00:00"}
# Numbers that one layer gives for one picture: 8 GiB of float32, thousands of times what light networks' widest do.
MAX_OUTPUT_NUMBERS = 2**31
Shape = tuple[int, ...]


def load_model(path: str | Path) -> "keras.Model":
    """The model in a `.keras` or whole-model `.h5` file, uncompiled.

    Raises:
        ModelFileError: damaged, hostile, of another kind, or with something in it that is not on our lists.
    """
    path = Path(path)
    kind = identify(path)
    if kind not in (Kind.KERAS, Kind.HDF5):
        raise failure(path, f"a file of kind {kind}", "wanted a .keras or whole-model .h5 file")
    with tempfile.TemporaryDirectory(prefix="featherweight-") as name:
        folder = Path(name)
        config, weights, contents = _take_apart(path, kind, folder)
        _check_shapes(config, contents, path)
        clean = _put_together(config, weights, contents, folder)
        return _load(clean, path)


def save_model(model: "keras.Model", place: Path, kept: Kept | None = None) -> None:
    """Write a `.keras` file with what is to be kept in it, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    beside = place.with_name(f".{place.stem}.{os.getpid()}.keras")
    try:
        model.save(beside)
        if kept is not None:
            keep(beside, kept)
        beside.replace(place)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {place}: {error.strerror}; make room or name another place") from error


def load_weights_file(model: "keras.Model", path: str | Path) -> None:
    """Load a weights file (`.weights.h5`, or `.h5` in the old format) into a model that has been built.

    Raises:
        ModelFileError: damaged, hostile, of another kind, or not the weights of this model.
    """
    path = Path(path)
    with _weights_copy(path) as (copy, contents):
        wanted = [tuple(weight.shape) for weight in model.weights]
        _compare(Counter(wanted), Counter(contents.shapes.values()), path)
        settings = {} if contents.legacy or not model.compiled else {"objects_to_skip": [model.optimizer]}
        with _keras_errors(path):
            model.load_weights(copy, **settings)


def weight_shapes(path: str | Path) -> dict[str, Shape]:
    """The shape of each array in an HDF5 file of weights, by its path in the file.

    Raises:
        ModelFileError: damaged, hostile or of another kind.
    """
    with _weights_copy(Path(path)) as (_, contents):
        return contents.shapes


@contextmanager
def _weights_copy(path: Path) -> Iterator[tuple[Path, Contents]]:
    """A clean copy of an HDF5 file of weights, under a name by which Keras tells the two formats apart."""
    kind = identify(path)
    if kind is not Kind.HDF5:
        raise failure(path, f"a file of kind {kind}", "wanted a .weights.h5 file")
    with tempfile.TemporaryDirectory(prefix="featherweight-") as name:
        copy = Path(name) / "copy"
        contents = clean_copy(path, copy)
        yield copy.rename(copy.with_name("copy.h5" if contents.legacy else "copy.weights.h5")), contents


def _take_apart(path: Path, kind: Kind, folder: Path) -> tuple[dict[str, Any], Path, Contents]:
    """(the cleaned configuration, the clean copy of the weights, what it holds)."""
    copy = folder / "copy.h5"
    if kind is Kind.HDF5:
        contents = clean_copy(path, copy)
        if contents.model_config is None:
            raise failure(path, "weights only, without the model", WHOLE)
        if not contents.legacy:
            raise failure(path, "a model without weights", "wanted a whole model as Keras saves it")
        return clean_config(parse_json(contents.model_config.encode(), path, "its model_config"), path), copy, contents
    with open_archive(path) as archive:
        _check_members(archive, path)
        config = clean_config(parse_json(read_member(archive, "config.json", path), path, "config.json"), path)
        parse_json(read_member(archive, "metadata.json", path, MAX_JSON_BYTES), path, "metadata.json")
        original = folder / "original.h5"
        original.write_bytes(read_member(archive, WEIGHTS_MEMBER, path))
    contents = clean_copy(original, copy, shown=path)
    original.unlink()
    if contents.legacy:
        raise failure(path, f"{WEIGHTS_MEMBER} is in the format of .h5 models", "save it again as .keras")
    return config, copy, contents


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    names = set(archive.namelist()) - {KEPT_MEMBER}
    if foreign := sorted(names - KERAS_MEMBERS):
        raise failure(path, f"its member {one_line(foreign[0], 80)} belongs to no such model", "refused")
    if lacking := sorted(KERAS_MEMBERS - names):
        raise failure(path, f"its member {lacking[0]} is missing", "fetch it again")


def _check_shapes(config: dict[str, Any], contents: Contents, path: Path) -> None:
    """The weights that the configuration asks for are those in the file."""
    found = Counter(contents.shapes.values())
    _compare(Counter(_expected_shapes(config, path)), found, path)


def _compare(wanted: "Counter[Shape]", found: "Counter[Shape]", path: Path) -> None:
    lacking, extra = wanted - found, found - wanted
    if lacking or extra:
        parts = [f"{sum(wanted.values())} weights are wanted and {sum(found.values())} are in the file"]
        parts += [f"none of shape {shape} for the model" for shape in list(lacking)[:1]]
        parts += [f"one of shape {shape} that the model does not have" for shape in list(extra)[:1]]
        raise failure(path, f"its weights do not fit: {', '.join(parts)}", "wanted the weights of this very model")


def _expected_shapes(config: dict[str, Any], path: Path) -> list[Shape]:
    """The shapes of all weights of the model, from building it without allocating one.

    Within a `StatelessScope` Keras only notes a variable's shape and puts off making it. The notes are kept for each
    thread, so a thread of our own takes them with it when it ends; else a later scope would make the variables.
    """
    shapes: list[Shape] = []
    problems: list[Exception] = []

    def build() -> None:
        import keras

        try:
            with keras.StatelessScope(initialize_variables=False), _keras_errors(path):
                model = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)), safe_mode=True)
                shapes.extend(tuple(weight.shape) for weight in model.weights)
                if model.built and model.inputs:
                    for image in model.inputs:
                        _check_output(image.shape, image.name, path)
                    _call_without_numbers(model, path)(model.inputs)
        except ModelFileError as error:
            problems.append(error)

    _import_own_layers()
    thread = threading.Thread(target=build, name="featherweight-shapes")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return shapes


def _call_without_numbers(operation: Any, path: Path) -> Callable[..., Any]:
    """What a layer, operation or model gives, as shapes only; every one within it is held against the limit.

    Nested models are walked through with the inputs of this call: their own may leave the picture's size open.
    """
    import keras

    from featherweight.models.blocks import Block

    def call(*inputs: Any, **settings: Any) -> Any:
        if isinstance(operation, Block) and operation.inner is not None:
            return _call_without_numbers(operation.inner, path)(*inputs)
        if isinstance(operation, keras.Sequential):
            outputs = inputs[0][0] if isinstance(inputs[0], list) else inputs[0]
            for layer in operation.layers:
                outputs = _call_without_numbers(layer, path)(outputs)
            return outputs
        if isinstance(operation, keras.Model):
            return operation._run_through_graph(inputs[0], lambda inner: _call_without_numbers(inner, path))
        outputs = operation.compute_output_spec(*inputs, **settings)
        for output in keras.tree.flatten(outputs):
            _check_output(output.shape, operation.name, path)
        return outputs

    return call


def _check_output(shape: tuple[int | None, ...], name: str, path: Path) -> None:
    """Sizes that are left open, the batch's before all, count as 1."""
    numbers = math.prod(size or 1 for size in shape)
    if numbers > MAX_OUTPUT_NUMBERS:
        raise failure(
            path,
            f"{one_line(name, 80)} gives {numbers:,} numbers for one picture",
            f"wanted up to {MAX_OUTPUT_NUMBERS:,}",
        )


def _put_together(config: dict[str, Any], weights: Path, contents: Contents, folder: Path) -> Path:
    """A new file for Keras, out of what was checked."""
    if contents.legacy:
        import h5py

        with h5py.File(weights, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        return weights
    clean = folder / "model.keras"
    with zipfile.ZipFile(clean, "w") as archive:
        archive.writestr("metadata.json", json.dumps(METADATA))
        archive.writestr("config.json", json.dumps(config))
        archive.write(weights, WEIGHTS_MEMBER)
    weights.unlink()
    return clean


def _load(clean: Path, path: Path) -> "keras.Model":
    import keras

    with _keras_errors(path):
        return keras.saving.load_model(clean, compile=False, safe_mode=True)


@contextmanager
def _keras_errors(path: Path) -> Iterator[None]:
    """What Keras raises, as an error of ours in one line; and what it only warns of: layers that it leaves random."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except ModelFileError:
        raise
    except Exception as error:  # Keras raises whatever comes out of a layer's own code
        raise failure(path, f"Keras cannot load it: {one_line(error)}", "wanted a model as Keras 3 saves it") from error


def _import_own_layers() -> None:
    """Our layers are known to Keras once their modules were imported."""
    import featherweight.models.blocks
    import featherweight.models.heads
    import featherweight.models.local  # noqa: F401
