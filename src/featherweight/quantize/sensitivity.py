"""What each layer costs when only it is int8.

Ranges are taken once; each layer is one small change of the file, run on few pictures. Imports artifact, errors and
its neighbours.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Step
from featherweight.errors import ExportError, SettingError
from featherweight.progress import track
from featherweight.quantize.agreement import answers, is_distribution, output_error
from featherweight.quantize.layers import short
from featherweight.quantize.make import Draft, Source, quantized_name, read_source, write
from featherweight.quantize.settings import QuantizeSettings

IMAGES = 32
Score = Callable[[Artifact], float]


@dataclass(frozen=True)
class LayerCost:
    """One layer in int8 and all else in float32."""

    layer: str
    operator: str
    error: float  # of the outputs against float, see `agreement.output_error`
    score: float | None  # of the file, 0–1, if a score was asked for


@dataclass(frozen=True)
class Sensitivity:
    """The cost of each layer, in the order of the file."""

    layers: tuple[LayerCost, ...]
    measure: str  # what an error is
    images: int
    score: float | None  # of the float file

    def worst_first(self) -> tuple[LayerCost, ...]:
        """By error, the greatest first; one that is no number before all."""
        return tuple(sorted(self.layers, key=lambda one: -one.error if one.error == one.error else -np.inf))

    def __str__(self) -> str:
        """A table, the worst first."""
        width = max([5, *(len(short(one.layer)) for one in self.layers)])
        lines = [f"{'layer':<{width}}  {'operator':<18} {'error':>8}" + "  score" * (self.score is not None)]
        for one in self.worst_first():
            score = "" if one.score is None else f"  {100 * one.score:5.1f}"
            lines.append(f"{short(one.layer):<{width}}  {one.operator:<18} {one.error:8.4f}{score}")
        float_score = "" if self.score is None else f"; float32 scores {100 * self.score:.1f} %"
        return "\n".join([*lines, f"error: {self.measure} against float32 on {self.images} pictures{float_score}"])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def sensitivity(
    artifact: Artifact,
    calibration: NDArray[np.uint8],
    score: Score | None = None,
    settings: QuantizeSettings | None = None,
    images: int = IMAGES,
) -> Sensitivity:
    """Quantize one layer at a time to int8.

    Args:
        artifact: float32, with a manifest.
        calibration: pictures (n, h, w, 3) RGB 0–255, for the ranges; the first `images` of them for the errors.
        score: an artifact → its score, 0–1; called for the float file and once a layer.
        settings: how; int8, and nothing skipped.
        images: how many pictures the outputs are compared on.

    Raises:
        ExportError: as `quantize`; or another precision than int8.
        SettingError: less than one picture.
    """
    settings = settings or QuantizeSettings()
    if settings.precision != "int8":
        raise ExportError(f"sensitivity to {settings.precision}; it is told of int8 only")
    source = read_source(artifact, calibration, replace(settings, skip=(), bias_correction=False))
    return costs(source, score, images)


def costs(source: Source, score: Score | None = None, images: int = IMAGES) -> Sensitivity:
    """As `sensitivity`, of what is read already.

    Raises:
        SettingError: less than one picture.
    """
    if images < 1:
        raise SettingError(f"sensitivity on {images} pictures; wanted at least 1")
    wanted, pictures = source.wanted[:images], source.checked[:images]
    name = quantized_name(source.artifact.name, source.settings)
    rows = []
    for layer in track(source.file.layers, "one layer in int8", len(source.file.layers)):
        data = source.file.int8(source.ranges, source.settings.per_channel, (), layer).data
        found = answers(replace(source.artifact, precision="int8"), pictures, data)
        made = Draft(data, found, Step("quantize", {"only": layer.name}))
        scored = None if score is None else score_of(source, made, name, score)
        rows.append(LayerCost(layer.name, layer.operator, output_error(wanted, found), scored))
    measure = "mean total variation" if is_distribution(wanted) else "relative error of the outputs"
    return Sensitivity(tuple(rows), measure, len(wanted), None if score is None else score(source.artifact))


def score_of(source: Source, made: Draft, name: str, score: Score) -> float:
    """The score of a draft, as an artifact that stands for as long as it takes."""
    with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
        return score(write(source, made, Path(scratch) / "candidate", name))
