"""Classification: one label a picture, from outputs (n, classes) of probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.stats import wilson


class Classify:
    """One label a picture; the metric is top-1 accuracy with Wilson's 95 % interval."""

    name = "classify"
    metric = "accuracy"

    def decode(self, outputs: NDArray[np.float32], classes: Sequence[str]) -> list[list[dict[str, Any]]]:
        """(n, classes) → for each picture every class with its score, best first."""
        return [
            [{"label": classes[i], "score": round(float(row[i]), 6)} for i in np.argsort(-row, kind="stable")]
            for row in outputs
        ]

    def score(self, outputs: NDArray[np.float32], targets: NDArray[np.int64]) -> dict[str, Any]:
        """Outputs (n, classes), labels (n,) → {"value", "interval", "n", "right": a bool a picture}."""
        right = np.argmax(outputs, axis=1) == targets
        count, n = int(np.sum(right)), len(targets)
        return {"value": count / n, "interval": wilson(count, n), "n": n, "right": right.tolist()}
