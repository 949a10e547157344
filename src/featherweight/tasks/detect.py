"""Detection: boxes with a class and a score each, from outputs (n, priors, values) of raw numbers.

Imports artifact, boxes, decode, errors, matches and suppress.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.boxes import Boxes, place, true_boxes
from featherweight.decode import decode
from featherweight.errors import ArtifactError
from featherweight.matches import Seen
from featherweight.suppress import suppress
from featherweight.tasks.average_precision import MOST_BOXES, average_precision, check_installed

# Average precision is of all scores: from here on they count, whatever the score that the decoding shows from.
LEAST_SCORE = 0.001


class Detect:
    """Boxes in pixels of the picture; the metric is COCO's AP at IoU 0.50 to 0.95."""

    name = "detect"
    metric = "AP50:95"
    shown: int | None = None
    pictured = True

    def __init__(self, artifact: Artifact):
        if artifact.decoding is None:
            raise ArtifactError(
                f"{artifact.path} is a detector and does not say what its numbers mean (decoding); export it again"
            )
        self._decoding = artifact.decoding
        self._classes = artifact.classes or ()
        self._resize = artifact.resize or "stretch"

    def boxes(
        self,
        outputs: NDArray[np.float32],
        sizes: Sequence[tuple[int, int]],
        score: float | None = None,
        most: int | None = None,
    ) -> list[Boxes]:
        """Outputs (n, priors, values) for pictures of these sizes → for each its boxes in its pixels, best first.

        Args:
            outputs: as the network gave them.
            sizes: (height, width) of each picture.
            score: the least score; by default the decoding's.
            most: boxes a picture; by default the decoding's.

        Raises:
            SettingError: outputs of another shape than the decoding's.
        """
        decoding = self._decoding
        limits = decoding.iou, decoding.most if most is None else most
        found = (suppress(boxes, *limits) for boxes in decode(outputs, decoding, score))
        into = decoding.height, decoding.width
        return [place(boxes, self._resize, size, into) for boxes, size in zip(found, sizes, strict=True)]

    def decode(self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]]) -> list[list[dict[str, Any]]]:
        """For each picture `[{"label", "score", "box": [left, top, right, bottom]}, …]`, best first."""
        return [self._plain(boxes) for boxes in self.boxes(outputs, sizes)]

    def _plain(self, boxes: Boxes) -> list[dict[str, Any]]:
        rows = zip(boxes.labels.tolist(), boxes.scores.tolist(), boxes.corners.tolist(), strict=True)
        return [
            {"label": self._classes[label], "score": round(score, 6), "box": [round(side, 2) for side in corners]}
            for label, score, corners in rows
        ]

    def read(
        self, outputs: NDArray[np.float32], sizes: Sequence[tuple[int, int]], targets: Sequence[Any] = ()
    ) -> list[Any]:
        """For each picture its boxes down to the lowest scores."""
        return list(self.boxes(outputs, sizes, LEAST_SCORE, MOST_BOXES))

    def score(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        """Boxes found and true, a picture each → `average_precision` of them; "right" is `None`.

        Raises:
            DataError: as `average_precision`, or the data have no boxes.
        """
        true = [true_boxes(one["corners"], one["labels"], one["hard"]) for one in targets]
        how = {"metric": self.metric, "interval_by": "a bootstrap over pictures, whose"}
        return {**average_precision(answers, true, self._classes), "right": None, **how}

    def check_scoring(self) -> None:
        """Average precision needs hotcoco.

        Raises:
            DataError: it is not installed.
        """
        check_installed()

    def agreement(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
        """AP50 of the boxes in `found`, where those in `wanted` that score high enough to be shown are the true ones.

        Raises:
            DataError: there are none.
            SettingError: outputs of another shape than the decoding's.
        """
        sizes = [(self._decoding.height, self._decoding.width)] * len(wanted)
        true = [true_boxes(boxes.corners, boxes.labels) for boxes in self.boxes(wanted, sizes)]
        return float(average_precision(self.read(found, sizes, ()), true, self._classes, resamples=1)["ap50"])

    def seen(self, path: Path, outputs: NDArray[np.float32], size: tuple[int, int], target: Any) -> Seen:
        """The boxes that score high enough to be shown beside the true ones.

        Raises:
            SettingError: outputs of another shape than the decoding's.
        """
        true = true_boxes(target["corners"], target["labels"], target["hard"])
        return Seen(path, true, self.boxes(outputs, [size])[0])
