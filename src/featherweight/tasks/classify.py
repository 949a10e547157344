"""Classification: one label a picture, from outputs (n, classes) of probabilities.

Imports artifact, errors and stats.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import SettingError
from featherweight.stats import wilson


class Classify:
    """One label a picture; the metric is top-1 accuracy with Wilson's 95 % interval."""

    name = "classify"
    metric = "top-1"
    shown: int | None = 5
    pictured = False

    def __init__(self, artifact: Artifact):
        self._classes = artifact.classes or ()

    def decode(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]] = ()) -> list[list[dict[str, Any]]]:
        """(n, classes) → for each picture every class with its score, best first."""
        return [
            [{"label": self._classes[i], "score": round(float(row[i]), 6)} for i in np.argsort(-row, kind="stable")]
            for row in outputs
        ]

    def read(
        self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]] = (), targets: Sequence[Any] = ()
    ) -> list[Any]:
        """(n, classes) → the place of the best class each."""
        return [int(place) for place in np.argmax(outputs, axis=1)]

    def score(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        """Labels found and true, n each → as the protocol has it, with "right" a bool a picture."""
        right = [int(found) == int(target) for found, target in zip(answers, targets, strict=True)]
        count, n = sum(right), len(right)
        how = {"metric": self.metric, "interval_by": "Wilson's"}
        return {"value": count / n, "interval": wilson(count, n), "n": n, "right": right, **how}

    def check_scoring(self) -> None:
        """Nothing is needed."""

    def agreement(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
        """How often the best class of (n, classes) is the same.

        Raises:
            SettingError: outputs that do not tell classes apart.
        """
        if wanted.ndim != 2:
            raise SettingError(f"outputs {wanted.shape} do not tell classes apart; say how they are scored")
        return float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)))

    def seen(self, path: Path, outputs: NDArray[np.float32], size: tuple[int, int], target: Any) -> None:
        """Nothing: one label needs no picture."""
