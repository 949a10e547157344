"""The state of a training, whole in one file after each epoch: a run that was killed goes on at the last epoch done.

Keras' `BackupAndRestore` overwrites its weights in place and writes the epoch into a second file, so that a kill
between the two leaves a pair that does not belong together; it keeps neither the best weights nor what run it is of.
Here one `.npz` has it all; it is written beside its place and renamed.

In scope: what is in the file, and whether it is of this run. Not aware of: what is trained, and how. Imports artifact
and errors.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import GOLDEN_ERRORS, write_file
from featherweight.errors import OutputError, SettingError

if TYPE_CHECKING:
    import keras

# 1: first.
SCHEMA = 1
Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class State:
    """Where a training stands after an epoch.

    `history` has (loss, score) on val of the start, then of each epoch. `variables` is all that the next epoch
    depends on, `best` the weights of the best one so far. `seconds` went into epochs; `notes` says what was found out
    before the first.
    """

    history: tuple[tuple[float, float], ...]
    variables: Arrays
    best: Arrays
    seconds: float = 0.0
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.history) - 1


@dataclass(frozen=True)
class StateFile:
    """Where the state of one run is kept. `run` is what makes it this run and no other, in plain values for JSON."""

    path: Path
    run: Mapping[str, Any]

    def read(self) -> State | None:
        """The state after the last epoch that was finished; `None` where the run has not begun.

        Raises:
            SettingError: a damaged file, or one of another run.
        """
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                head = json.loads(archive["head"].tobytes())
                if head["schema"] != SCHEMA:
                    raise ValueError(f"schema {head['schema']}")
                run, history = head["run"], tuple((loss, score) for loss, score in head["history"])
                variables, best = (_numbered(archive, name, head[name]) for name in ("variables", "best"))
                state = State(history, variables, best, head["seconds"], head["notes"])
        except GOLDEN_ERRORS as error:
            raise SettingError(
                f"{self.path} is no state of a training that can be read; remove it, or name another file"
            ) from error
        if difference := _difference(run, json.loads(json.dumps(self.run))):
            raise SettingError(f"{self.path} is of another run: {difference}; name another file, or remove it")
        return state

    def write(self, state: State) -> None:
        """Keep the state in place of the one before.

        Raises:
            OutputError: it cannot be written; the one before is still there.
        """
        head = {
            "schema": SCHEMA, "run": self.run, "history": state.history, "seconds": state.seconds,
            "notes": state.notes, "variables": len(state.variables), "best": len(state.best),
        }  # fmt: skip
        arrays: dict[str, Any] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        arrays |= {f"variables_{i}": array for i, array in enumerate(state.variables)}
        arrays |= {f"best_{i}": array for i, array in enumerate(state.best)}
        data = io.BytesIO()
        np.savez(data, **arrays)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; name another place") from error
        write_file(self.path, data.getvalue())


def digest(arrays: Sequence[NDArray[Any]]) -> str:
    """SHA-256 in hex over shapes and numbers: the same for the same weights."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def model_digest(model: "keras.Model") -> str:
    """Of all weights, and of what they do not tell apart: sizes of maps, kinds of layers, activations."""
    layers = [
        (
            type(layer).__name__,
            [str(getattr(tensor, "shape", "")) for tensor in _several(getattr(layer, "output", None))],
            str(getattr(getattr(layer, "activation", None), "__name__", "")),
            str(getattr(layer, "max_value", "")),
        )
        for layer in model.layers
    ]
    whole = [digest(model.get_weights()), model.input_shape, layers]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _several(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _numbered(archive: Mapping[str, NDArray[Any]], name: str, count: int) -> Arrays:
    return tuple(archive[f"{name}_{i}"] for i in range(count))


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which two runs differ, in words; empty if they are the same."""
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if inside := _difference(old, new):
                return inside
        elif old != new:
            return f"its {name} is {_shortly(old)}, here {_shortly(new)}"
    return ""


def _shortly(value: Any) -> str:
    return f"{value!s:.40}"
