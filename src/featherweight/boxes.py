"""Boxes: what a detector's answers mean, and how they become boxes in a picture.

A detector has one output of raw numbers, (n, priors, values): what its maps hold before any sigmoid, cell by cell,
map by map. `Decoding` says what the numbers mean and is kept with the model and in the manifest; `decode` makes boxes
of them. So one file serves every threshold, and what int8 rounds is what the network computed.

Imports errors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError

KINDS = ("yolo", "region", "grid", "distances")


@dataclass(frozen=True)
class Scale:
    """One map of cells; each cell has as many priors as there are anchors, or one where there are none."""

    height: int  # cells
    width: int
    anchors: tuple[tuple[float, float], ...] = ()  # (width, height) in pixels of the network's input
    xy_scale: float = 1.0  # how far a centre may leave its cell: YOLOv4's scale_x_y

    @property
    def priors(self) -> int:
        """Rows of the output that belong to this map."""
        return self.height * self.width * max(1, len(self.anchors))


@dataclass(frozen=True)
class Decoding:
    """What the rows (priors, values) of a detector's output mean.

    Rows stand map by map in the order of `scales`, in a map by row, by column, by anchor. The values of a row:

        yolo       x, y, w, h, objectness, a value a class. YOLOv3 (Redmon & Farhadi 2018, arXiv 1804.02767 §2.1);
                   `activated` is the new_coords of Scaled-YOLOv4: sigmoids are applied already, sizes are (2 v)²
        yolo, `uncertain`   x, y, w, h, their four uncertainties, objectness, classes (Gaussian YOLOv3, arXiv 1904.04620)
        region     as yolo, with a softmax over the classes (YOLOv2, arXiv 1612.08242 §2)
        grid       YOLOv1 (arXiv 1506.02640): x, y, w, h, objectness, classes, all as they are; `anchors` only counts
                   the boxes of a cell; sizes are square roots of shares of the picture where `roots`
        distances  left, top, right, bottom in strides from the cell's centre, each a number (`bins` 0) or the softmax
                   of so many bins, whose mean counts (Generalized Focal Loss, arXiv 2006.04388 §3.2); then classes
    """

    kind: str
    scales: tuple[Scale, ...]
    height: int  # of the network's input, in pixels
    width: int
    classes: int
    activated: bool = False
    uncertain: bool = False
    roots: bool = False
    softmax: bool = False  # over classes, instead of a sigmoid each
    bins: int = 0
    score: float = 0.25  # the least that counts as found
    iou: float = 0.45  # of two boxes of one class that lie closer, the worse goes
    most: int = 300  # boxes a picture

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"unknown decoding {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def priors(self) -> int:
        """Rows of the output."""
        return sum(scale.priors for scale in self.scales)

    @property
    def values(self) -> int:
        """Numbers a row."""
        if self.kind == "distances":
            return 4 * max(1, self.bins) + self.classes
        return (9 if self.uncertain else 5) + self.classes

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def decoding_of(fields: Mapping[str, Any]) -> Decoding:
    """The `Decoding` that `as_dict` was made of.

    Raises:
        SettingError: something is missing, unknown or of another type.
    """
    try:
        scales = tuple(
            Scale(**{**one, "anchors": tuple((float(w), float(h)) for w, h in one["anchors"])})
            for one in fields["scales"]
        )
        return Decoding(**{**fields, "scales": scales})
    except (TypeError, KeyError, ValueError) as error:
        raise SettingError(f"a decoding that is none: {error}") from error


@dataclass(frozen=True)
class Boxes:
    """Boxes in one picture, found or true."""

    corners: NDArray[np.float32]  # (k, 4): left, top, right, bottom in pixels of the picture
    labels: NDArray[np.int64]  # (k,): indices into the classes
    scores: NDArray[np.float32]  # (k,): 0–1, best first; 1 for true boxes
    hard: NDArray[np.bool_]  # (k,): true boxes that are neither asked for nor counted as wrong (VOC difficult, COCO crowd)
