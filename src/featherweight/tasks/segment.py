"""Segmentation: a class for each pixel, from outputs (n, h, w, classes) of probabilities.

Imports artifact, errors and masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import SettingError
from featherweight.masks import mask_of, shares_of


class Segment:
    """A mask a picture."""

    name = "segment"
    metric = "mean IoU"
    shown: int | None = None
    by_pixel = True

    def __init__(self, artifact: Artifact):
        self._classes = artifact.classes or ()
        self._resize = artifact.resize or "stretch"

    def decode(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]]) -> list[list[dict[str, Any]]]:
        """For each picture the classes in it with their shares, the greatest first."""
        masks = (mask_of(one, size, self._resize) for one, size in zip(outputs, sizes, strict=True))
        return [shares_of(np.bincount(mask.ravel(), minlength=256), self._classes) for mask in masks]

    def read(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Not here yet."""
        raise SettingError("masks are not scored yet")

    def score(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        """Not here yet."""
        raise SettingError("masks are not scored yet")

    def check_scoring(self) -> None:
        """Nothing is needed."""

    def agreement(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
        """Not here yet."""
        raise SettingError("masks are not compared yet")
