"""Of boxes of one class that lie on each other, the best: greedy non-maximum suppression, by OpenCV.

Imports boxes.
"""

from typing import Any

import cv2
import numpy as np

from featherweight.boxes import Boxes


def suppress(boxes: Boxes, iou: float, most: int) -> Boxes:
    """The boxes that no better one of the same class overlaps by more than `iou`, best first.

    Args:
        boxes: best first.
        iou: intersection over union, 0–1.
        most: boxes that are kept.
    """
    if len(boxes) < 2:
        return boxes.take(np.arange(min(most, len(boxes))))
    corners = boxes.corners.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # Every score is over -1: the threshold was applied before. OpenCV takes arrays here; its types say lists.
    by_opencv: Any = cv2.dnn.NMSBoxesBatched
    kept = by_opencv(sides, boxes.scores, boxes.labels.astype(np.int32), -1.0, iou)
    return boxes.take(np.asarray(kept, np.intp).reshape(-1)[:most])
