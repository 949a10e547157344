"""HDF5 files of strangers: a child process walks the file and writes a clean copy; nobody else opens the original.

HDF5 is a large C library with a long list of overflows, and its format can point outside the file (external links,
external storage, virtual datasets), declare sizes that no byte stands for, or make one byte count many times. So a
child of its own, with limits on memory and time, opens the file and copies only what Keras needs: groups, plain
arrays that lie in the file one beside the other, and the few attributes that name layers and weights. A crash in
there is an error here; what Keras reads afterwards was written by the child.

The optimizer's state is left out: nothing here continues somebody else's training.

    python -m featherweight.models.hdf5 SOURCE TARGET       what `clean_copy` runs; answers in JSON

Imports modelfile; h5py in the child only.
"""

import contextlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.modelfile import MAX_JSON_BYTES, failure, memory_budget_bytes, one_line

MAX_OBJECTS = 20_000
MAX_DEPTH = 64
MAX_DIMENSIONS = 16
MAX_NAME = 500
MAX_ATTRIBUTE_ENTRIES = 20_000
# Of processor time, and 1 more for each 16 MiB; HDF5 can be led into loops without end.
CHILD_SECONDS = 8
CHILD_BYTES_A_SECOND = 2**24
OUT_OF_TIME = 24  # SIGXCPU
# How many times longer it may take by the clock, on a busy machine.
PATIENCE = 10
CHILD_MEMORY_BYTES = 2**29  # beside a few times the file's size

# What stands for training only, at the file's root.
LEFT_OUT = ("optimizer", "optimizer_weights", "metrics")
# Lists of names; Keras splits long ones into layer_names0, layer_names1, …
NAME_LISTS = re.compile(r"(layer_names|weight_names)\d{0,4}")
TEXTS = ("model_config", "keras_version", "backend", "dtype", "name")


@dataclass(frozen=True)
class Contents:
    """What a clean copy holds."""

    shapes: dict[str, tuple[int, ...]]  # path within the file → shape
    model_config: str | None  # JSON, of a whole model in the old format
    legacy: bool  # the old format, which lists layers and weights by name


def clean_copy(source: Path, target: Path, shown: Path | None = None) -> Contents:
    """Copy the weights of an HDF5 file to a new file that holds nothing else.

    Args:
        source: the file to read.
        target: the file to write.
        shown: the file that errors name, where `source` was taken out of another.

    Raises:
        ModelFileError: damaged, hostile, or no file of weights; or reading it crashed or took too long.
    """
    shown = shown or source
    answer = _in_child(source, target, shown)
    if "error" in answer:
        raise failure(shown, answer["error"], "wanted plain weights as Keras saves them")
    shapes = {name: tuple(shape) for name, shape in answer["shapes"].items()}
    return Contents(shapes, answer["model_config"], answer["legacy"])


def _in_child(source: Path, target: Path, shown: Path) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "featherweight.models.hdf5", os.fspath(source), os.fspath(target)]
    seconds = _seconds(source)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE * seconds,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise failure(shown, f"reading it took over {PATIENCE * seconds} s", "the file may be hostile") from None
    if -process.returncode == OUT_OF_TIME:
        raise failure(shown, f"reading it took over {seconds} s", "the file may be hostile")
    if process.returncode != 0:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        last = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise failure(shown, f"the process that read it died with {how}: {last or 'it said nothing'}", "fetch it again")
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


# --- the child -------------------------------------------------------------------------------------------------------


class _Refusal(Exception):
    """Why the file is not copied."""


def child_main(source: str, target: str) -> None:
    """Copy within limits, and answer on standard output in JSON."""
    _limit_self(CHILD_MEMORY_BYTES + 4 * Path(source).stat().st_size, _seconds(Path(source)))
    sys.stdout.write(json.dumps(copy_plainly(source, target)))


def copy_plainly(source: str, target: str) -> dict[str, Any]:
    """The copy itself: what it holds, or {"error": why there is none}."""
    try:
        return _copy(source, target, Path(source).stat().st_size)
    except _Refusal as refusal:
        return {"error": str(refusal)}
    except MemoryError:
        return {"error": "it needs far more memory than it has bytes"}
    except Exception as error:  # whatever h5py makes of a damaged file: OSError, RuntimeError, KeyError, TypeError …
        return {"error": f"a damaged HDF5 file: {one_line(error, 120)}"}


def _seconds(source: Path) -> int:
    return CHILD_SECONDS + source.stat().st_size // CHILD_BYTES_A_SECOND


def _limit_self(memory_bytes: int, seconds: int) -> None:
    """Bound this process' memory and processor time, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _copy(source: str, target: str, size: int) -> dict[str, Any]:
    import h5py

    with h5py.File(source, "r") as file, h5py.File(target, "w") as clean:
        walk = _Walk(size)
        walk.group(file, clean, "", 0)
        text = clean.attrs.get("model_config")
        legacy = any(NAME_LISTS.fullmatch(name) for name in clean.attrs) or "model_weights" in clean
        return {"shapes": walk.shapes, "model_config": text, "legacy": legacy}


class _Walk:
    """One walk over a file: what was seen so far, to refuse what comes twice or adds up to too much."""

    def __init__(self, size: int):
        self.size = size
        self.budget = min(size, memory_budget_bytes())
        self.seen: set[Any] = set()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def group(self, source: Any, target: Any, path: str, depth: int) -> None:
        """Copy a group with all below it."""
        import h5py

        self._once(source, path)
        if depth > MAX_DEPTH:
            raise _Refusal(f"groups nested deeper than {MAX_DEPTH} levels")
        for name in source:
            place = f"{path}/{name}" if path else name
            if not name.isprintable() or len(name) > MAX_NAME or name in (".", ".."):
                raise _Refusal(f"an object with the name {one_line(name, 60)!r}")
            if source.id.links.get_info(os.fsencode(name)).type != h5py.h5l.TYPE_HARD:
                raise _Refusal(f"{one_line(place, 80)} is a link, which can point anywhere")
            if not path and name in LEFT_OUT:
                continue
            node = source[name]
            if isinstance(node, h5py.Group):
                self.group(node, target.create_group(name), place, depth + 1)
            elif isinstance(node, h5py.Dataset):
                self._once(node, place)
                self._array(node, place)
                copied = target.create_dataset(name, data=np.asarray(node[()], node.dtype.newbyteorder("=")))
                _copy_attributes(node, copied, place)
            else:
                raise _Refusal(f"{one_line(place, 80)} is neither a group nor an array")
        # Names last: they must be those of what was copied.
        _copy_attributes(source, target, path)

    def _once(self, node: Any, path: str) -> None:
        """Refuse a second way to the same object: a loop, or one array that counts many times."""
        import h5py

        information = h5py.h5o.get_info(node.id)
        place = (information.fileno, information.addr)
        if place in self.seen:
            raise _Refusal(f"{one_line(path, 80)} is the same object as another")
        self.seen.add(place)
        if len(self.seen) > MAX_OBJECTS:
            raise _Refusal(f"over {MAX_OBJECTS:,} objects")

    def _array(self, node: Any, path: str) -> None:
        """Check one array before a number of it is read: plain, stored whole and inside this file."""
        import h5py

        what, dtype = one_line(path, 80), node.dtype
        if dtype.kind not in "fiub" or dtype.itemsize > 8 or dtype.itemsize != node.id.get_type().get_size():
            raise _Refusal(f"{what} holds {one_line(dtype, 40)}, not plain numbers")
        properties = node.id.get_create_plist()
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise _Refusal(f"{what} takes its numbers from another file")
        if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or properties.get_nfilters():
            raise _Refusal(f"{what} is compressed or stored in pieces")
        if node.id.get_space().get_simple_extent_type() == h5py.h5s.NULL or len(node.shape) > MAX_DIMENSIONS:
            raise _Refusal(f"{what} has no proper shape")
        declared, stored = math.prod(node.shape) * dtype.itemsize, node.id.get_storage_size()
        offset = node.id.get_offset()
        inside = layout == h5py.h5d.COMPACT or (offset is not None and offset + declared <= self.size)
        if declared and (stored != declared or not inside):
            raise _Refusal(f"{what} of shape {node.shape} declares {declared:,} bytes that are not in the file")
        self.budget -= declared
        if self.budget < 0:
            raise _Refusal("its arrays declare more bytes than the file has, or than memory allows")
        self.shapes[path] = tuple(int(n) for n in node.shape)


def _copy_attributes(source: Any, target: Any, path: str) -> None:
    """Copy the attributes that Keras reads: lists of names, each of which must be there once, and a few texts."""
    import h5py

    for name in source.attrs:
        if NAME_LISTS.fullmatch(name):
            _check_names(names := _texts(source, name, path), target, f"{path}@{name}")
            target.attrs[name] = np.array(names, h5py.string_dtype())
        elif name in TEXTS:
            texts = _texts(source, name, path)
            if len(texts) != 1:
                raise _Refusal(f"{one_line(path, 80)}@{name} is no single text")
            target.attrs[name] = texts[0]


def _texts(node: Any, name: str, path: str) -> list[str]:
    """An attribute as texts, once its type and size were looked at."""
    import h5py

    attribute, what = node.attrs.get_id(name), f"{one_line(path, 80)}@{name}"
    count = math.prod(attribute.shape)
    if not count:
        return []
    is_text = attribute.dtype.kind == "S" or h5py.check_string_dtype(attribute.dtype) is not None
    if not is_text or count > MAX_ATTRIBUTE_ENTRIES or attribute.get_storage_size() > MAX_JSON_BYTES:
        raise _Refusal(f"{what} is no short list of texts")
    values = [v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(np.asarray(node.attrs[name], object))]
    if sum(map(len, values)) > MAX_JSON_BYTES or any("\0" in value for value in values):
        raise _Refusal(f"{what} is no short list of texts")
    return values


def _check_names(names: list[str], group: Any, what: str) -> None:
    """Each name once, and of something that was copied below this group."""
    for name in names:
        if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")) or name not in group:
            raise _Refusal(f"{one_line(what, 80)} names {one_line(name, 60)!r}, which is not there")
    if len(set(names)) != len(names):
        raise _Refusal(f"{one_line(what, 80)} names something twice")


if __name__ == "__main__":
    child_main(sys.argv[1], sys.argv[2])
