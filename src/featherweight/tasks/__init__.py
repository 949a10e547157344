"""What a model's outputs mean and how good they are. Only this folder and the heads know a task's name.

Imports errors and stats.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError


class Task(Protocol):
    """One task: `decode` makes predictions of outputs, `score` holds them against the truth."""

    name: str
    metric: str

    def decode(self, outputs: NDArray[np.float32], classes: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Outputs (n, …) → for each picture its predictions, best first, as plain values."""
        ...

    def score(self, outputs: NDArray[np.float32], targets: NDArray[np.int64]) -> dict[str, Any]:
        """Outputs and true labels → the metric, its 95 % interval, n, and which pictures were right."""
        ...


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        SettingError: unknown.
    """
    from featherweight.tasks.classify import Classify

    tasks: dict[str, Task] = {"classify": Classify()}
    if name not in tasks:
        raise SettingError(f"unknown task {name!r}; known: {', '.join(tasks)}")
    return tasks[name]
