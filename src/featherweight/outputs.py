"""How far outputs are from those that they should be: the one measure of it for whatever a file answers.

Outputs (n, …) with one number a class are probabilities, and are held number by number. Others, as a detector's, are
raw: numbers of any size, of which single ones say little. They are held as a whole, against how much they vary. So are
maps of probabilities, a segmenter's: one pixel at an edge says little there too.

Imports nothing of the package.
"""

import numpy as np
from numpy.typing import NDArray

LEAST_SPREAD = 0.1  # of probabilities


def are_classes(outputs: NDArray[np.float32]) -> bool:
    """Whether outputs (n, …) are one number a class each, and no map or list of numbers."""
    return len([side for side in outputs.shape[1:] if side > 1]) <= 1


def most_off(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """How far the worst of n outputs (n, …) is from the wanted one; 0 where all are equal, NaN where they are none.

    Of classes the greatest difference; of raw numbers the root of the mean squared difference, over the standard
    deviation of the wanted ones: 0.01 is a hundredth of how much they vary. Of probabilities that deviation counts as
    0.1 at least: where a network finds nothing they hardly vary, and what is off by as little is no other answer.
    """
    apart = (found.astype(np.float64) - wanted).reshape(len(wanted), -1)
    if are_classes(wanted):
        return float(np.max(np.abs(apart)))
    spread = wanted.astype(np.float64).reshape(len(wanted), -1).std(axis=1)
    if wanted.min() >= 0 and wanted.max() <= 1:
        spread = np.maximum(spread, LEAST_SPREAD)
    off = np.sqrt(np.mean(np.square(apart), axis=1))
    return float(np.max(np.where(off == 0, 0.0, off / np.maximum(spread, np.finfo(np.float64).tiny))))
