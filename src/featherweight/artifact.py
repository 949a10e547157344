"""The exported model: a folder with the model file, `artifact.json` and golden inputs with their outputs.

    my-model/
      model.onnx | model.tflite
      artifact.json     what it is, how it was made, sha256 of the model file; how it runs fastest, a device each
      golden.npz        input (k, h, w, 3) uint8 and the outputs (k, …) float32 that the file gave when made

A model's input is always RGB, 0–255, (n, h, w, 3): normalization lives inside the graph, so that accuracy cannot be
lost between training and deployment. A bare `.onnx` or `.tflite` of somebody else can be read too; what cannot be
known of it is `None`.

Imports boxes and errors.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import types
import typing
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import RESIZES, Decoding, decoding_of
from featherweight.errors import ArtifactError, OutputError, SettingError

# 1: first.
# 2: `tuned`, the fastest way to run the file on each device where it was looked for.
# 3: `decoding`, what a detector's numbers mean; `resize` may be letterbox.
SCHEMA = 3
MANIFEST = "artifact.json"
GOLDEN = "golden.npz"
# What numpy and zipfile raise on damaged, foreign or encrypted archives.
GOLDEN_ERRORS = (
    OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
FILES = {"onnx": "model.onnx", "litert": "model.tflite"}
SUFFIXES = (".onnx", ".tflite")


@dataclass(frozen=True)
class Step:
    """One thing that was done to a model: its name, its settings, and what it passed over with the reason."""

    name: str
    settings: dict[str, Any]
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Choice:
    """The fastest way to run the file on one device, as `tune` found it."""

    runtime: str
    settings: dict[str, Any]  # the fields of `runtimes.settings.Settings`
    p50_ms: float
    ratio_to_default: tuple[float, float, float] | None  # median, low, high; `None`: it is the default
    agreement: str  # how its outputs were held against those of the file when it was made
    date: str  # ISO 8601, UTC
    quick: bool  # found in less time than a choice needs to be sure
    versions: dict[str, str]  # of featherweight and of the runtime: with another one the choice is stale


@dataclass(frozen=True)
class Artifact:
    """One exported model file and what is known of it."""

    path: Path  # the folder; the file itself where it came bare
    file: str  # the model file's name within the folder
    name: str  # for people: mobilenet_v1-0.25-128-int8
    format: str  # onnx | litert
    precision: str | None  # float32 | float16 | int8 | int8-dynamic
    sha256: str
    size_bytes: int
    task: str | None = None
    classes: tuple[str, ...] | None = None
    height: int | None = None
    width: int | None = None
    resize: str | None = None  # how a picture becomes (height, width): one of `boxes.RESIZES`
    parameters: int | None = None
    macs: int | None = None
    steps: tuple[Step, ...] = ()
    tuned: dict[str, Choice] = field(default_factory=dict)  # by device id
    decoding: Decoding | None = None  # of a detector: what its raw numbers mean

    @property
    def model_path(self) -> Path:
        """The model file."""
        return self.path / self.file if self.path.is_dir() else self.path

    @property
    def foreign(self) -> bool:
        """Whether it is a bare file without a manifest, described by its user or not."""
        return self.classes is None or self.path.is_file()

    def golden(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """(inputs (k, h, w, 3), the outputs (k, …) that the file gave when it was made).

        Raises:
            ArtifactError: a bare file, or the golden file is missing or damaged.
        """
        if self.foreign:
            raise ArtifactError(f"{self.path} is a bare model file and has no golden input")
        try:
            # Opened here, as numpy leaves a damaged file open.
            with (self.path / GOLDEN).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return arrays["input"], arrays["output"]
        except GOLDEN_ERRORS as error:
            raise ArtifactError(f"{self.path / GOLDEN} is missing or damaged; export the model again") from error


def is_model(path: str | Path) -> bool:
    """Whether it looks like an artifact folder or a model file; it may still be damaged."""
    path = Path(path)
    return (path / MANIFEST).is_file() or path.suffix in SUFFIXES


def read_artifact(path: str | Path) -> Artifact:
    """An artifact folder, or a bare `.onnx` or `.tflite` file.

    Raises:
        ArtifactError: nothing there, not a model, or the model file is not the one the manifest was written for.
    """
    path = Path(path)
    if path.is_file():
        return _read_bare(path)
    if not path.is_dir():
        raise ArtifactError(f"no artifact {path}; wanted an artifact folder, an .onnx or a .tflite file")
    manifest = path / MANIFEST
    try:
        fields = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} has no {MANIFEST}; wanted an artifact folder as export writes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{manifest} cannot be read: {error}") from error
    artifact = _from_fields(path, fields)
    if not artifact.model_path.is_file():
        raise ArtifactError(f"{path} lacks its model file {artifact.file}; export the model again")
    found = sha256_of(artifact.model_path)
    if found != artifact.sha256:
        raise ArtifactError(
            f"{artifact.model_path} has sha256 {found[:12]}…, its manifest says {artifact.sha256[:12]}…: "
            "the file was changed. Export the model again"
        )
    return artifact


def described(
    artifact: Artifact,
    task: str | None = None,
    names: Sequence[str] = (),
    resize: str | None = None,
    size: tuple[int, int] | None = None,
) -> Artifact:
    """A file with what its user says of it: of a bare one anything, of an artifact how pictures become its input.

    Args:
        artifact: the file.
        task: what it is for; a bare file does not say.
        names: its classes in the order of its answers.
        resize: how a picture becomes the input, one of `boxes.RESIZES`.
        size: (height, width), where the file leaves it open.

    Raises:
        SettingError: an unknown rule; a task without names or names without a task; or an artifact, which says itself
            what it is.
    """
    if resize is not None and resize not in RESIZES:
        raise SettingError(f"unknown resize {resize!r:.40}; known: {', '.join(RESIZES)}")
    if resize == "tile" and artifact.decoding is not None:
        raise SettingError(f"resize tile: {artifact.name} is a detector, and boxes of tiles are not joined")
    known = artifact if resize is None else replace(artifact, resize=resize)
    if task is None and not names and size is None:
        return known
    if not artifact.foreign:
        raise SettingError(f"{artifact.path} says itself its task, names and size; leave --task, --names, --input out")
    if (task is None) != (not names):
        raise SettingError("a bare file wants both its task and the names of its classes: --task and --names")
    height, width = size or (None, None)
    return replace(known, task=task, classes=tuple(names) or None, height=height, width=width)


def read_names(path: str | Path) -> tuple[str, ...]:
    """Names of classes out of a file of text, one a line, in order; empty lines at its end are none.

    Raises:
        SettingError: it cannot be read, is empty, or has a name twice.
    """
    try:
        names = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"names {path} cannot be read: {error}") from error
    if not all(names) or len(set(names)) != len(names) or not names:
        raise SettingError(f"names {path}: {len(names)} lines; wanted a name a line, each once")
    return names


def write_artifact(artifact: Artifact, model: bytes, golden: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> Artifact:
    """Write the folder `artifact.path` beside its place and rename it there; sha256 and size are filled in here.

    It is written untuned: what was fastest for another file says nothing of this one.

    Raises:
        ArtifactError: the manifest would be none, as where the decoding is about other classes.
        OutputError: the folder exists already or cannot be written.
    """
    fields = {
        **asdict(artifact),
        "schema": SCHEMA,
        "sha256": hashlib.sha256(model).hexdigest(),
        "size_bytes": len(model),
        "tuned": {},
    }
    del fields["path"]
    written = _from_fields(artifact.path, json.loads(json.dumps(fields)))
    with new_folder(artifact.path) as folder:
        write_file(folder / artifact.file, model)
        arrays = io.BytesIO()
        np.savez_compressed(arrays, input=golden[0], output=golden[1])
        write_file(folder / GOLDEN, arrays.getvalue())
        write_file(folder / MANIFEST, _manifest(fields))
    return written


def write_choice(artifact: Artifact, device_id: str, choice: Choice) -> Artifact:
    """Write into the manifest how the file runs fastest on a device; all else in it stays as it is.

    Raises:
        ArtifactError: a bare file, which has no manifest, or the folder has changed meanwhile.
        OutputError: the manifest cannot be written; it is then as it was before.
    """
    if artifact.foreign:
        raise ArtifactError(f"{artifact.path} is a bare model file and has no {MANIFEST} to write a choice into")
    if read_artifact(artifact.path).sha256 != artifact.sha256:  # another one has taken its place
        raise ArtifactError(f"{artifact.path} is another model than it was before; nothing was written")
    manifest = artifact.path / MANIFEST
    # Read anew: another device's choice may have been written into a shared folder meanwhile.
    fields = json.loads(manifest.read_text(encoding="utf-8"))
    tuned = {**fields.get("tuned", {}), device_id: asdict(choice)}
    newer = {"schema": SCHEMA, "tuned": tuned, "decoding": fields.get("decoding")}
    write_file(manifest, _manifest({**fields, **newer}))
    return read_artifact(artifact.path)


def check_new(path: Path) -> None:
    """That nothing is there yet: asked before long work, too.

    Raises:
        OutputError: something is.
    """
    if path.exists():
        raise OutputError(f"{path} exists already; name another place, nothing is overwritten")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that stands at `path` only once it is whole; removed again if anything goes wrong.

    Raises:
        OutputError: `path` exists already, or cannot be written.
    """
    check_new(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name another place with --output") from error
    try:
        yield beside
        beside.chmod(0o755)
        beside.rename(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; make room or name another place") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole: beside its place, flushed to the disk, then renamed there.

    Raises:
        OutputError: it cannot be written (no space, no permission).
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror}; make room or name another place") from error


def to_utf8(text: str) -> bytes:
    """JSON or HTML as bytes. A file name that is no UTF-8 holds lone surrogates; these become JSON's own escapes."""
    return text.encode("utf-8", "backslashreplace")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of the kind that a field's annotation names; a list stands for a tuple.

    Numbers are finite, and `true` is no number.
    """
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is types.UnionType:
        return any(fits(value, kind) for kind in kinds)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, kinds[1]) for item in value.values())
    if origin is tuple:
        if not isinstance(value, list) or (kinds[-1] is not ... and len(value) != len(kinds)):
            return False
        return all(fits(item, kinds[0]) for item in value)
    if hint in (int, float):
        wanted = int if hint is int else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, hint)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(fields: dict[str, Any]) -> bytes:
    return to_utf8(json.dumps(fields, indent=2, ensure_ascii=False))


def _from_fields(path: Path, fields: dict[str, Any]) -> Artifact:
    try:
        schema = fields["schema"]
        if schema not in range(1, SCHEMA + 1) or isinstance(schema, bool):
            raise ArtifactError(
                f"{path / MANIFEST} has schema {schema}, this featherweight reads 1 to {SCHEMA}; "
                "use the version that wrote it"
            )
        if schema == 1:
            fields = {**fields, "tuned": {}}
        if schema < 3:
            fields = {**fields, "decoding": None}
        if fields["file"] != FILES[fields["format"]]:
            raise ArtifactError(
                f"{path / MANIFEST} names the file {fields['file']!r}; wanted {FILES[fields['format']]}"
            )
        hints = {
            **typing.get_type_hints(Artifact),
            "classes": tuple[str, ...],
            "steps": tuple[dict[str, Any], ...],
            "tuned": dict[str, dict[str, Any]],
            "decoding": dict[str, Any] | None,
        }
        _check_kinds(fields, {name: hint for name, hint in hints.items() if name != "path"})
        for step in fields["steps"]:
            _check_kinds(step, {**typing.get_type_hints(Step), "skipped": tuple[tuple[str, str], ...]})
        steps = tuple(
            Step(step["name"], step["settings"], tuple((what, why) for what, why in step["skipped"]))
            for step in fields["steps"]
        )
        tuned = {device_id: _choice(values) for device_id, values in fields["tuned"].items()}
        values = {name: value for name, value in fields.items() if name != "schema"}
        values |= {"classes": tuple(fields["classes"]), "steps": steps, "tuned": tuned, "decoding": _decoding(fields)}
        return Artifact(path=path, **values)
    except (KeyError, TypeError, ValueError, SettingError) as error:
        raise ArtifactError(f"{path / MANIFEST} is not a manifest: {error!r}; export the model again") from error


def _choice(values: dict[str, Any]) -> Choice:
    _check_kinds(values, typing.get_type_hints(Choice))
    ratio = values["ratio_to_default"]
    return Choice(**{**values, "ratio_to_default": None if ratio is None else tuple(ratio)})


def _decoding(fields: dict[str, Any]) -> Decoding | None:
    """What a detector's numbers mean; it must be about these classes and this size."""
    if fields["resize"] not in (None, *RESIZES):
        raise ValueError(f"resize is {fields['resize']!r:.80}; known: {', '.join(RESIZES)}")
    if fields["decoding"] is None:
        return None
    if fields["resize"] == "tile":
        raise ValueError("resize is tile, and boxes of tiles are not joined")
    decoding = decoding_of(fields["decoding"])
    told = (len(fields["classes"]), fields["height"], fields["width"])
    if (decoding.classes, decoding.height, decoding.width) != told:
        raise ValueError(
            f"decoding is of {decoding.classes} classes at {decoding.height}×{decoding.width}, the manifest of "
            f"{told[0]} at {told[1]}×{told[2]}"
        )
    return decoding


def _check_kinds(fields: dict[str, Any], hints: dict[str, Any]) -> None:
    for name, hint in hints.items():
        if not fits(fields[name], hint):
            raise TypeError(f"{name} is {fields[name]!r:.80}")


def _read_bare(path: Path) -> Artifact:
    """A model file without a manifest, told by its content: a flatbuffer names TFL3, ONNX is a protobuf message."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"TFL3":
        kind = "litert"
    elif (
        head[:1] == b"\x08" and path.suffix == ".onnx"
    ):  # field 1 of ModelProto, ir_version; the runtime checks the rest
        kind = "onnx"
    else:
        raise ArtifactError(
            f"{path} is no ONNX and no LiteRT model; wanted an artifact folder, an .onnx or .tflite file"
        )
    return Artifact(path, path.name, path.stem, kind, None, sha256_of(path), path.stat().st_size)
