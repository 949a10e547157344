"""What a model's outputs mean and how good they are. Only this folder and the heads know a task's name.

Imports artifact, boxes, decode, errors, masks, matches, stats and suppress.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import ArtifactError, SettingError
from featherweight.matches import Seen, SeenMask

Size = tuple[int, int]  # (height, width) of a picture as it came, in pixels


class Task(Protocol):
    """One task of one artifact: what its manifest says of classes, resize and decoding is in here."""

    name: str
    metric: str  # what `score` gives
    shown: int | None  # predictions a picture that are told where no number is asked for; `None`: all

    pictured: bool  # whether `seen` has something to show

    def decode(self, outputs: NDArray[np.float32], sizes: Sequence[Size]) -> list[list[dict[str, Any]]]:
        """Outputs (n, …) for pictures of these sizes → for each its predictions, best first, as plain values."""
        ...

    def read(self, outputs: NDArray[np.float32], sizes: Sequence[Size], targets: Sequence[Any]) -> list[Any]:
        """Outputs (n, …) for pictures of these sizes → for each what `score` needs, and no more.

        What is true of each, as `data.targets` has it, is there so that what is large is counted here and let go.

        Raises:
            DataError: what is true cannot be read any more.
            SettingError: outputs that are none of this task.
        """
        ...

    def score(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        """What `read` gave, and what is true as `data.targets` has it → the metric and how sure it is.

        Always in it: "value" 0–1, "interval" of 95 % and what it is by ("interval_by"), "n" pictures, "metric", and
        "right": whether each picture was right, or `None` where that cannot be said of a single one. What else is in
        it by a quantity's name goes into the record, and "scores" is what stands behind the metric. Where "right" is
        `None`, "drawn" is the metric on pictures drawn anew, in draws that depend on the targets alone.
        """
        ...

    def check_scoring(self) -> None:
        """See, before minutes are spent, that `score` can be asked here.

        Raises:
            DataError: a library that it needs is not installed.
        """
        ...

    def agreement(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
        """How far outputs (n, …) say the same as others, 0–1.

        Raises:
            SettingError: outputs that are none of this task.
        """
        ...

    def seen(self, path: Path, outputs: NDArray[np.float32], size: Size, target: Any) -> Seen | SeenMask | None:
        """Outputs (1, …) for one picture beside what is true of it, to be looked at; `None` where it is one label."""
        ...


def task_of(artifact: Artifact) -> Task:
    """The task of an artifact, as its manifest says.

    Raises:
        ArtifactError: a bare file that does not say its task, or a manifest that lacks what the task needs.
        SettingError: an unknown task.
    """
    from featherweight.tasks.classify import Classify
    from featherweight.tasks.detect import Detect
    from featherweight.tasks.segment import Segment

    if artifact.task is None or artifact.classes is None:
        raise ArtifactError(
            f"{artifact.path} is a bare model file and does not say its classes; wanted an artifact folder"
        )
    kinds: tuple[Any, ...] = (Classify, Detect, Segment)
    tasks: dict[str, Callable[[Artifact], Task]] = {kind.name: kind for kind in kinds}
    if artifact.task not in tasks:
        raise SettingError(f"unknown task {artifact.task!r}; known: {', '.join(tasks)}")
    return tasks[artifact.task](artifact)
