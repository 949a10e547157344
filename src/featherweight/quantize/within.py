"""int8 as far as it costs no more than it may: layers go back to float, the costliest first, until it does.

Imports artifact, errors, progress, tasks and its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, check_new
from featherweight.errors import ExportError, SettingError
from featherweight.progress import logger
from featherweight.quantize.agreement import INT8_TOLERANCE, answers, each_answer, output_error
from featherweight.quantize.make import Draft, Source, draft, quantized_name, read_source, write
from featherweight.quantize.sensitivity import Score, Sensitivity, costs, score_of
from featherweight.quantize.settings import QuantizeSettings
from featherweight.tasks import Size, task_of


@dataclass(frozen=True)
class _Trial:
    """A file with the `count` costliest layers in float."""

    count: int
    made: Draft
    score: float
    error: float  # of the outputs
    fits: bool


def quantize_within(
    artifact: Artifact,
    folder: str | Path,
    calibration: NDArray[np.uint8],
    score: Score | None = None,
    max_loss: float = 0.005,
    name: str | None = None,
    settings: QuantizeSettings | None = None,
) -> Artifact:
    """A static int8 copy of a float32 artifact whose score is at most `max_loss` below the float file's.

    All layers are tried first. If that loses too much, 1, 2, 4, … of the layers that move the outputs most by
    themselves stay float, and between the first number that fits and the last that does not the least is searched. At
    most half of the layers stay float: a file of which more is float is no lighter to run than the float32 file.

    A score of few pictures moves in steps: of 200, each is half a point.

    Args:
        artifact: float32, with a manifest.
        folder: where; it must not exist.
        calibration: training pictures (n, h, w, 3) RGB 0–255 at the artifact's size.
        score: an artifact → its score, 0–1, best on labelled pictures that nothing was chosen by (`accuracy_on`); by
            default how far it says the same as the float file on the calibration pictures: how often the best class
            is the same, AP50 on the boxes, or mean IoU on the masks that the float file finds.
        max_loss: how much lower the score may be; 0.005 is half a point.
        name: the copy's name.
        settings: how; int8. By default with bias correction.

    Raises:
        ExportError: as `quantize`; or with half of the layers in float the loss is still too large.
        SettingError: a loss that is no share, or another precision than int8.
        OutputError: the folder exists or cannot be written.
    """
    settings = settings or QuantizeSettings(bias_correction=True)
    if not 0 <= max_loss < 1:
        raise SettingError(f"max_loss {max_loss:g}; wanted a share from 0 to below 1, as 0.005 for half a point")
    if settings.precision != "int8":
        raise SettingError(f"precision {settings.precision} within a loss; layers go back to float from int8 only")
    check_new(Path(folder))  # before the long work
    source = read_source(artifact, calibration, settings)
    named = name or quantized_name(artifact.name, settings)
    judged = score or _agreement(source)
    base = judged(artifact)
    best = _fewest_float(source, named, judged, base, max_loss)
    told = {
        "scored_by": "agreement with float32" if score is None else "score",
        "score_float32": base,
        "score": best.score,
        "max_loss": max_loss,
        "layers_float": best.count + len(set(settings.skip)),
        "layers": len(source.file.layers),
    }
    step = replace(best.made.step, settings=best.made.step.settings | told)
    return write(source, replace(best.made, step=step), folder, named)


def accuracy_on(
    pictures: NDArray[np.uint8], targets: Sequence[Any] | NDArray[np.int64], sizes: Sequence[Size] | None = None
) -> Score:
    """A score: the metric of an artifact's task.

    Args:
        pictures: (n, h, w, 3) as the artifact takes them.
        targets: n labels, or what else is true, as `data.targets` has it.
        sizes: (height, width) of the pictures as they came; by default they came as they are.
    """
    known = list(sizes) if sizes is not None else [pictures.shape[1:3]] * len(pictures)

    def score(artifact: Artifact) -> float:
        task, true, read = task_of(artifact), list(targets), []
        # One at a time: the answers of a segmenter are larger than the pictures.
        for outputs, size, target in zip(each_answer(artifact, pictures), known, true, strict=True):
            read += task.read(outputs, [size], [target])
        return float(task.score(read, true)["value"])

    return score


def _agreement(source: Source) -> Score:
    """How far a file says the same as the float file on the calibration pictures, in the way of its task."""
    wanted, task = answers(source.artifact, source.pictures), task_of(source.artifact)

    def score(artifact: Artifact) -> float:
        try:
            return task.agreement(wanted, answers(artifact, source.pictures))
        except SettingError as error:
            raise ExportError(f"{source.artifact.name}: {error}") from error

    return score


def _fewest_float(source: Source, name: str, score: Score, base: float, max_loss: float) -> _Trial:
    """The trial with the fewest layers in float that fits, as far as doubling and halving finds it."""
    asked = dict.fromkeys(source.settings.skip, "asked for")
    order: dict[str, str] = {}

    def attempt(count: int) -> _Trial:
        reasons = asked | dict(list(order.items())[:count])
        made = draft(source, name, list(reasons), reasons)
        found = score_of(source, made, name, score)
        error = output_error(source.wanted, made.found)
        logger.info("%s: %d layers in float score %.4f, float32 %.4f", name, len(reasons), found, base)
        return _Trial(count, made, found, error, error <= INT8_TOLERANCE and base - found <= max_loss + 1e-9)

    first = trial = attempt(0)
    if first.fits:
        return first
    order |= {layer: reason for layer, reason in _reasons(costs(source)).items() if layer not in asked}
    most, failed = len(source.file.layers) // 2 - len(asked), 0
    while not trial.fits:
        failed = trial.count
        if failed >= most:
            raise ExportError(
                f"{name}: {_points(base - first.score)} points are lost in int8, and {_points(base - trial.score)} "
                f"with {failed + len(asked)} of {len(source.file.layers)} layers in float, whose outputs are "
                f"{trial.error:.2f} away; wanted at most {_points(max_loss)} points and {INT8_TOLERANCE}. Use its "
                "float32 file"
            )
        trial = attempt(min(max(1, 2 * failed), most))
    while trial.count - failed > 1:
        middle = attempt((trial.count + failed) // 2)
        if middle.fits:
            trial = middle
        else:
            failed = middle.count
    return trial


def _reasons(found: Sensitivity) -> dict[str, str]:
    """Why each layer would stay float, the costliest first."""
    return {
        one.layer: f"alone in int8 it moves the outputs by {one.error:.4f} ({found.measure})"
        for one in found.worst_first()
    }


def _points(share: float) -> str:
    return f"{100 * share:.2f}"
