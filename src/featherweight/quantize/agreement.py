"""How the outputs of a quantized file are held against those of the float one.

Imports artifact, errors and runtimes.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.errors import ExportError
from featherweight.runtimes import runtime_named, supporting
from featherweight.runtimes.settings import Settings

# How far int8 outputs may be from float on average over the calibration pictures, by `output_error`. A collapsed
# network is at 0.5 and more.
INT8_TOLERANCE = 0.25
FLOAT16_TOLERANCE = 0.02
GOLDEN_IMAGES = 4
CHECK_IMAGES = 64


def output_error(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """How far outputs (n, …) are from others, 0 for equal ones; not a number where they are not.

    Of probabilities the mean total variation, half the sum of absolute differences, at most 1; of other numbers the
    relative error ‖found - wanted‖ / ‖wanted‖.
    """
    if is_distribution(wanted):
        return float(np.mean(np.sum(np.abs(found - wanted), axis=1) / 2))
    return float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)


def is_distribution(outputs: NDArray[np.float32]) -> bool:
    """Whether each row (n, classes) is of probabilities that add up to 1."""
    return outputs.ndim == 2 and bool(np.all(outputs >= 0) and np.all(np.abs(outputs.sum(axis=1) - 1) < 1e-3))


def check_agreement(
    name: str, wanted: NDArray[np.float32], found: NDArray[np.float32], precision: str = "int8"
) -> None:
    """Raise where a quantized file's outputs have left the float ones.

    Raises:
        ExportError: the error is over the tolerance, or the outputs are not numbers.
    """
    tolerance = FLOAT16_TOLERANCE if precision == "float16" else INT8_TOLERANCE
    off = output_error(wanted, found)
    if not off <= tolerance:
        measure = "mean total variation, 0 to 1" if is_distribution(wanted) else "relative error"
        raise ExportError(
            f"{name}: {precision} outputs are {off:.2f} away from float32 ({measure}); wanted at most {tolerance}. "
            f"This network does not survive {precision} so; use its float32 file"
        )


def export_golden(
    calibration: NDArray[np.uint8], outputs: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A few pictures from all over the calibration set with the outputs that belong to them."""
    rows = np.unique(np.linspace(0, len(outputs) - 1, GOLDEN_IMAGES).astype(int))
    return calibration[rows], outputs[rows]


def answers(artifact: Artifact, pictures: NDArray[np.uint8], data: bytes | None = None) -> NDArray[np.float32]:
    """The outputs (n, …) for pictures (n, h, w, 3), as `each_answer`.

    Args:
        artifact: what the file is.
        pictures: RGB 0–255.
        data: the file, where it is not that of the artifact.

    Raises:
        RuntimeFailure: nothing here runs it.
    """
    return np.concatenate(list(each_answer(artifact, pictures, data)))


def each_answer(
    artifact: Artifact, pictures: NDArray[np.uint8], data: bytes | None = None
) -> Iterator[NDArray[np.float32]]:
    """The outputs (1, …) for each of pictures (n, h, w, 3), one by one, by the first runtime that runs the file.

    Args and raises as `answers`.
    """
    with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
        if data is not None:
            artifact = replace(artifact, path=Path(scratch))
            (Path(scratch) / artifact.file).write_bytes(data)
        runtime = runtime_named(supporting(artifact)[0])
        session = runtime.load(artifact, Settings(precision="float32"))
        for one in pictures:
            yield session.run(one[None])
