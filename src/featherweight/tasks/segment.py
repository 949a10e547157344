"""Segmentation: a class for each pixel, from outputs (n, h, w, classes) of probabilities or (n, h, w) of indices.

Imports artifact, errors, masks, matches and its neighbour.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import ArtifactError, DataError, LabelError, SettingError, display
from featherweight.masks import MOST_CLASSES, Mask, chosen, mask_source_of, placed_mask, read_mask
from featherweight.matches import SeenMask
from featherweight.tasks.confusion import Counts, count, evaluate


class Segment:
    """A mask at the picture's size; the metric is mean IoU over the classes that are or were found."""

    name = "segment"
    metric = "mean IoU"
    shown: int | None = None
    pictured = True

    def __init__(self, artifact: Artifact):
        self._classes = artifact.classes or ()
        if not 2 <= len(self._classes) <= MOST_CLASSES:
            raise ArtifactError(
                f"{artifact.path} is a segmenter of {len(self._classes)} classes; wanted 2 to {MOST_CLASSES}, the "
                "background among them"
            )
        self._resize = artifact.resize or "stretch"

    def masks(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]]) -> list[Mask]:
        """Outputs for pictures of these sizes → for each its mask (height, width).

        Args:
            outputs: (n, h, w, classes) probabilities; (n, h, w, 1) or (n, h, w) the probability of class 1 where there
                are two classes, else class indices. Of a picture that was run in tiles (h, w) is its own size.
            sizes: (height, width) of each picture.

        Raises:
            SettingError: outputs of another shape, or indices of no class.
        """
        return [mask for mask, _ in self._chosen(outputs, sizes)]

    def _chosen(
        self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[Mask, NDArray[np.float32] | None]]:
        """(the mask, the probability of what was chosen), a picture each; indices have none."""
        classes = len(self._classes)
        maps = outputs[..., None] if outputs.ndim == 3 else outputs
        if maps.ndim != 4 or maps.shape[-1] not in (1, classes):
            raise SettingError(
                f"outputs {outputs.shape} are no masks of {classes} classes; wanted (n, h, w, {classes}), or (n, h, w) "
                "of indices"
            )
        pairs = list(zip(maps, sizes, strict=True))
        if classes > 2 and maps.shape[-1] == 1:
            return [(placed_mask(self._indices(one[..., 0]), size, self._resize), None) for one, size in pairs]
        return [chosen(one, size, self._resize) for one, size in pairs]

    def _indices(self, values: NDArray[np.float32]) -> Mask:
        """Class indices (h, w) as such.

        Raises:
            SettingError: other numbers.
        """
        found = np.rint(values)
        if not (np.all(found == values) and found.min() >= 0 and found.max() < len(self._classes)):
            raise SettingError(
                f"outputs of one number a pixel from {values.min():g} to {values.max():g}; wanted indices of "
                f"{len(self._classes)} classes"
            )
        return np.asarray(found, np.uint8)

    def decode(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]]) -> list[list[dict[str, Any]]]:
        """For each picture `[{"label", "score", "share"}, …]`, the classes found in it, the largest first.

        "share" is of the picture's pixels, "score" their mean probability, 1 where the file gives indices.

        Raises:
            SettingError: as `masks`.
        """
        return [self._plain(mask, best) for mask, best in self._chosen(outputs, sizes)]

    def _plain(self, mask: Mask, best: NDArray[np.float32] | None) -> list[dict[str, Any]]:
        pixels = np.bincount(mask.ravel())
        sums = pixels if best is None else np.bincount(mask.ravel(), weights=best.ravel())
        return [
            {
                "label": self._classes[label],
                "score": round(float(sums[label] / pixels[label]), 6),
                "share": round(float(pixels[label] / mask.size), 6),
            }
            for label in np.argsort(-pixels, kind="stable").tolist()
            if pixels[label]
        ]

    def read(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]], targets: Sequence[Any]) -> list[Any]:
        """For each picture its `Counts`: the masks themselves are let go.

        Raises:
            DataError: a true mask that cannot be read any more.
            SettingError: as `masks`.
        """
        masks = self.masks(outputs, sizes)
        return [count(_true(target), mask, len(self._classes)) for mask, target in zip(masks, targets, strict=True)]

    def score(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        """`Counts`, a picture each → as `confusion.evaluate`; "right" is `None`. The targets are in the counts.

        Raises:
            DataError: no pixel counts in any picture.
        """
        how = {"metric": self.metric, "interval_by": "a bootstrap over pictures, whose"}
        return {**evaluate(answers, self._classes), "right": None, **how}

    def check_scoring(self) -> None:
        """Nothing is needed."""

    def agreement(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
        """Mean IoU of the masks in `found`, where those in `wanted` are the true ones; at the outputs' size.

        Raises:
            SettingError: as `masks`.
        """
        sizes = [(wanted.shape[1], wanted.shape[2])] * len(wanted) if wanted.ndim > 2 else []
        pairs = zip(self.masks(wanted, sizes), self.masks(found, sizes), strict=True)
        counts = [count(true, mask, len(self._classes)) for true, mask in pairs]
        return float(evaluate(counts, self._classes, resamples=1)["value"])

    def seen(self, path: Path, outputs: NDArray[np.float32], size: tuple[int, int], target: Any) -> SeenMask:
        """The mask found in one picture beside the true one.

        Raises:
            DataError: as `read`.
            SettingError: as `masks`.
        """
        (found,) = self.masks(outputs, [size])
        true = _true(target)
        counts: Counts = count(true, found, len(self._classes))
        return SeenMask.of(path, true, found, counts.iou)


def _true(target: Any) -> Mask:
    """The mask that a target as of `data.targets` names.

    Raises:
        DataError: it cannot be read any more.
    """
    try:
        return read_mask(mask_source_of(target), target["height"], target["width"])
    except LabelError as error:
        where = display(target["path"]) if target["path"] else "a picture with polygons"
        raise DataError(f"{where} changed since the scan: {error}. Scan the data anew") from error
