"""The raw samples of a record: every run, beside the file of records, compressed.

    records.jsonl
    records.samples/3f2a9c….npz     named by its own content, so that a record names exactly one

Imports artifact and errors.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import GOLDEN_ERRORS, write_file
from featherweight.errors import OutputError, RecordError


def folder_of(records: str | Path) -> Path:
    """Where the samples of a file of records are: `records.jsonl` → `records.samples`."""
    return Path(records).with_suffix(".samples")


def write_samples(records: str | Path, samples: Mapping[str, Sequence[float]]) -> str:
    """Write the samples beside a file of records; returns the file's name for the record.

    Args:
        records: the file of records.
        samples: name → values; nanoseconds where the name ends with `_ns`.

    Raises:
        OutputError: it cannot be written.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in samples.items()}
    np.savez_compressed(stream, **arrays)
    data = stream.getvalue()
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.npz"
    folder = folder_of(records)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; name another place with --output") from error
    write_file(folder / name, data)
    return f"{folder.name}/{name}"


def read_samples(records: str | Path, name: str) -> dict[str, NDArray[np.generic]]:
    """The samples that a record names.

    Raises:
        RecordError: they are missing or damaged.
    """
    path = folder_of(records) / Path(name).name  # a stranger's record names no other place
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except GOLDEN_ERRORS as error:
        raise RecordError(f"{path} is missing or damaged; measure again to have the raw samples") from error
