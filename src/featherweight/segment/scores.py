"""Mean IoU between epochs, of what stands in a confusion matrix. What a segmenter is worth is measured on its file, by
the task of segmentation, whose formula this is too.

Imports masks and tasks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.masks import IGNORE
from featherweight.tasks.confusion import mean_iou as mean_of_parts

Confusion = NDArray[np.int64]  # (classes, classes): pixels by true class and by found class


def confusion(truth: NDArray[Any], found: NDArray[Any], classes: int) -> Confusion:
    """Of masks of one shape; where the truth is `IGNORE` nothing counts."""
    asked = truth != IGNORE
    both = truth[asked].astype(np.int64) * classes + found[asked]
    return np.bincount(both, minlength=classes**2).reshape(classes, classes)


def mean_iou(counts: Confusion) -> float:
    """As the task's: over the classes that are true or found somewhere; 0 where none is."""
    return mean_of_parts(np.stack([np.diag(counts), counts.sum(1), counts.sum(0)])) or 0.0


def classes_of(outputs: NDArray[Any], threshold: float = 0.5) -> NDArray[np.int64]:
    """Outputs (n, h, w, channels) → class indices (n, h, w): the greatest; of one channel class 1 over the threshold,
    a half of probabilities and 0 of logits.
    """
    if outputs.shape[-1] == 1:
        return np.asarray(outputs[..., 0] > threshold, np.int64)
    return np.asarray(outputs.argmax(-1), np.int64)
