"""How far outputs are from those that they should be: the one measure of it for whatever a file answers.

Outputs (n, …) with one number a class are probabilities, and are held number by number. Others, as a detector's, are
raw: numbers of any size, of which single ones say little. They are held as a whole, against how much they vary.

Imports nothing of the package.
"""

import numpy as np
from numpy.typing import NDArray


def are_classes(outputs: NDArray[np.float32]) -> bool:
    """Whether outputs (n, …) are one number a class each, and no map or list of numbers."""
    return len([side for side in outputs.shape[1:] if side > 1]) <= 1


def most_off(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """How far the worst of n outputs (n, …) is from the wanted one; 0 where all are equal, NaN where they are none.

    Of classes the greatest difference; of raw numbers the root of the mean squared difference, over the standard
    deviation of the wanted ones: 0.01 is a hundredth of how much they vary.
    """
    apart = (found.astype(np.float64) - wanted).reshape(len(wanted), -1)
    if are_classes(wanted):
        return float(np.max(np.abs(apart)))
    spread = wanted.astype(np.float64).reshape(len(wanted), -1).std(axis=1)
    off = np.sqrt(np.mean(np.square(apart), axis=1))
    return float(np.max(np.where(off == 0, 0.0, off / np.maximum(spread, np.finfo(np.float64).tiny))))
