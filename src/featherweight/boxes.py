"""Boxes: what a detector's answers mean, and how they become boxes in a picture.

A detector has one output of raw numbers, (n, priors, values): what its maps hold before any sigmoid, cell by cell,
map by map. `Decoding` says what the numbers mean and is kept with the model and in the manifest; `decode` makes boxes
of them. So one file serves every threshold, and what int8 rounds is what the network computed.

    decode.decode      raw numbers → boxes in pixels of the network's input, all that score high enough
    suppress.suppress  of boxes of one class that lie on each other, the best
    place              boxes in pixels of the network's input → in pixels of the picture

Imports errors.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError

KINDS = ("yolo", "region", "grid", "distances")
# How a picture becomes the network's input: stretched to it; scaled as a whole and centred on grey; stretched by
# bilinear sampling alone, however much it shrinks, as Darknet's networks were trained; or at its own scale, cut into
# tiles of the input's size that overlap (`tiles`).
RESIZES = ("stretch", "letterbox", "bilinear", "tile")
MOST_PRIORS = 10_000_000  # more than any network's, and still no more than memory holds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check_counts(owner: "Scale | Decoding", names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_PRIORS:
            raise SettingError(f"{name} {value!r:.40} of a decoding; wanted a whole number from 1 on")


@dataclass(frozen=True)
class Scale:
    """One map of cells; each cell has as many priors as there are anchors, or one where there are none."""

    height: int  # cells
    width: int
    anchors: tuple[tuple[float, float], ...] = ()  # (width, height) in pixels of the network's input
    xy_scale: float = 1.0  # how far a centre may leave its cell: YOLOv4's scale_x_y

    def __post_init__(self) -> None:
        _check_counts(self, ("height", "width"))
        sides = [side for anchor in self.anchors for side in anchor]
        if not all(_is_number(side) for side in sides) or not _is_number(self.xy_scale):
            raise SettingError(
                f"anchors {self.anchors!r:.80}, xy_scale {self.xy_scale!r:.20}; wanted numbers from 0 on"
            )

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
        yolo, `uncertain`   x, y, w, h, their four uncertainties, objectness, classes
                   (Gaussian YOLOv3, arXiv 1904.04620)
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
            raise SettingError(f"unknown decoding {self.kind!r:.40}; known: {', '.join(KINDS)}")
        _check_counts(self, ("height", "width", "classes", "most"))
        for name in ("activated", "uncertain", "roots", "softmax"):
            if not isinstance(getattr(self, name), bool):
                raise SettingError(f"{name} {getattr(self, name)!r:.40}; wanted true or false")
        if not all(_is_number(value) and value <= 1 for value in (self.score, self.iou)):
            raise SettingError(f"score {self.score!r:.20}, iou {self.iou!r:.20}; wanted 0 to 1")
        if self.bins != 0:
            _check_counts(self, ("bins",))
        if not self.scales or self.priors > MOST_PRIORS:
            raise SettingError(f"{len(self.scales)} maps of {self.priors} priors; wanted 1 to {MOST_PRIORS:,} priors")

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
    hard: NDArray[
        np.bool_
    ]  # (k,): true boxes that are neither asked for nor counted as wrong (VOC difficult, COCO crowd)

    def __len__(self) -> int:
        return len(self.labels)

    def as_dict(self) -> dict[str, Any]:
        """True boxes as plain values for JSON; `true_boxes` takes them back."""
        return {"corners": self.corners.tolist(), "labels": self.labels.tolist(), "hard": self.hard.tolist()}

    def take(self, rows: NDArray[Any]) -> "Boxes":
        """Some of them, by rows (indices or a mask)."""
        return Boxes(self.corners[rows], self.labels[rows], self.scores[rows], self.hard[rows])


def true_boxes(corners: Any, labels: Any, hard: Any = None) -> Boxes:
    """Boxes that are true: corners (k, 4), labels (k,), and which of them need not be found (k,), by default none."""
    known = np.asarray(labels, np.int64).reshape(-1)
    easy = np.zeros(len(known), np.bool_)
    return Boxes(
        np.asarray(corners, np.float32).reshape(-1, 4),
        known,
        np.ones(len(known), np.float32),
        easy if hard is None else np.asarray(hard, np.bool_).reshape(-1),
    )


def found_boxes(corners: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any]) -> Boxes:
    """Boxes that a detector found: corners (k, 4), labels and scores (k,), put into order, the best first."""
    order = np.argsort(-scores, kind="stable")
    return Boxes(
        np.asarray(corners, np.float32).reshape(-1, 4)[order],
        np.asarray(labels, np.int64)[order],
        np.asarray(scores, np.float32)[order],
        np.zeros(len(order), np.bool_),
    )


# --------------------------------------------------------------------------------- boxes → boxes in the picture


def area_of(resize: str, picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a picture lies in the network's input, in pixels of that: (left, top, width, height).

    A letterbox is as Darknet's: the longer side fills the input, the other is rounded down, and what is left over is
    grey, by half on each side. A tile of the picture fills the input.

    Args:
        resize: one of `RESIZES`.
        picture: (height, width) of the picture.
        size: (height, width) of the input.

    Raises:
        SettingError: an unknown rule.
    """
    if resize not in RESIZES:
        raise SettingError(f"unknown resize {resize!r}; known: {', '.join(RESIZES)}")
    (high, wide), (height, width) = picture, size
    if resize != "letterbox":
        return 0, 0, width, height
    if width * high < height * wide:
        inner = width, max(1, high * width // wide)
    else:
        inner = max(1, wide * height // high), height
    return (width - inner[0]) // 2, (height - inner[1]) // 2, *inner


def mirrored(start: int, count: int, length: int) -> NDArray[np.intp]:
    """Places (count,) from `start` on along a side of so many pixels; beyond its ends those inside, mirrored.

    The pixel at the edge is not repeated, however far it goes: of 3 pixels from -3 on, 1 2 1 0 1 2 1 0.
    """
    places = np.arange(start, start + count)
    turn = length - 1
    return np.abs((places + turn) % max(1, 2 * turn) - turn) if turn else np.zeros(count, np.intp)


def middle(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle (height, width, …) of a picture or a mask (h, w, …), mirrored where that is smaller."""
    rows, columns = (
        mirrored((there - wanted) // 2, wanted, there)
        for there, wanted in zip(pixels.shape[:2], (height, width), strict=True)
    )
    return pixels[rows[:, None], columns]


def place(boxes: Boxes, resize: str, picture: tuple[int, int], size: tuple[int, int]) -> Boxes:
    """Boxes in pixels of the network's input → in pixels of the picture, cut off at its edges; none without area.

    Args:
        boxes: as `decode` gives them.
        resize: how the picture became the input, one of `RESIZES`.
        picture: (height, width) of the picture.
        size: (height, width) of the input.

    Raises:
        SettingError: an unknown rule.
    """
    left, top, width, height = area_of(resize, picture, size)
    high, wide = picture
    start, times = np.array([left, top] * 2), np.array([wide / width, high / height] * 2)
    corners = np.clip((boxes.corners - start) * times, 0, np.array([wide, high] * 2)).astype(np.float32)
    inside = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    return Boxes(corners, boxes.labels, boxes.scores, boxes.hard).take(inside)
