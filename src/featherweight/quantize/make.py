"""`Artifact` → quantized `Artifact`.

In scope: settings and pictures → a file that still answers as the float one. Not aware of: graphs, Keras, data sets.
Imports artifact, errors and its neighbours.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Step, check_new, write_artifact
from featherweight.errors import ExportError
from featherweight.quantize.agreement import CHECK_IMAGES, answers, check_agreement, export_golden, output_error
from featherweight.quantize.layers import Layer, Made, members_of, whole_names
from featherweight.quantize.litert_file import open_litert
from featherweight.quantize.onnx_file import open_onnx
from featherweight.quantize.ranges import Range, observe
from featherweight.quantize.settings import QuantizeSettings, check_pictures, chosen_pictures


class FloatFile(Protocol):
    """A float32 model file, whatever its format; see `onnx_file` and `litert_file`."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What can be int8, in the file's order."""
        ...

    @property
    def ends(self) -> frozenset[str]:
        """The tensors that its answers are read from, of which no range is clipped."""
        ...

    def tensors(self, pictures: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Every float activation by name, for each picture (h, w, 3) in turn."""
        ...

    def int8(
        self, ranges: Mapping[str, Range], per_channel: bool, skip: Collection[str], only: Layer | None = None
    ) -> Made:
        """The file with int8 weights and activations, but for the operators in `skip`, or in one layer only."""
        ...

    def dynamic(self, per_channel: bool, skip: Collection[str]) -> Made:
        """The file with 8-bit weights and activations that are quantized while it runs."""
        ...

    def float16(self, skip: Collection[str]) -> Made:
        """The file with its weights stored in 16 bits."""
        ...

    def eased(self, pictures: NDArray[np.uint8], settings: QuantizeSettings) -> "FloatFile":
        """Itself with equal outputs, as the settings want it for int8.

        Raises:
            SettingError: the format has no such thing.
        """
        ...

    def corrected(self, data: bytes, pictures: NDArray[np.uint8]) -> "FloatFile":
        """Itself with biases that make up for the mean error of the weights in the int8 file `data`."""
        ...


@dataclass(frozen=True)
class Source:
    """All that quantized files are made of, taken once: the file, its pictures, its answers and its ranges."""

    artifact: Artifact
    file: FloatFile
    settings: QuantizeSettings
    pictures: NDArray[np.uint8]
    wanted: NDArray[np.float32]  # the float file's outputs for the first CHECK_IMAGES of the pictures
    ranges: Mapping[str, Range]  # of the activations; empty where the precision needs none

    @property
    def checked(self) -> NDArray[np.uint8]:
        """The pictures that outputs are compared on."""
        return self.pictures[: len(self.wanted)]


@dataclass(frozen=True)
class Draft:
    """A quantized file that is not written yet."""

    data: bytes
    found: NDArray[np.float32]  # its outputs for the checked pictures
    step: Step


def quantize(
    artifact: Artifact,
    folder: str | Path,
    calibration: NDArray[np.uint8],
    name: str | None = None,
    settings: QuantizeSettings | None = None,
) -> Artifact:
    """A quantized copy of a float32 artifact, ONNX or LiteRT.

    Args:
        artifact: float32, with a manifest; it is unchanged.
        folder: where; it must not exist.
        calibration: training pictures (n, h, w, 3) RGB 0–255 at the artifact's size. Every precision is checked on
            them; int8 has its ranges from them, too.
        name: the copy's name; by default the artifact's with the new precision for float32.
        settings: by default static int8 with ranges from least to greatest.

    Raises:
        ExportError: a bare file or one that is not float32, pictures of another size or type or none, the quantizer
            fails, or the outputs leave the float file's.
        SettingError: a layer to skip that the file has not, or what its format cannot do.
        OutputError: the folder exists or cannot be written.
    """
    check_new(Path(folder))  # before the long work
    source = read_source(artifact, calibration, settings or QuantizeSettings())
    named = name or quantized_name(artifact.name, source.settings)
    made = draft(source, named, source.settings.skip)
    check_agreement(named, source.wanted, made.found, source.settings.precision)
    return write(source, made, folder, named)


def quantized_name(name: str, settings: QuantizeSettings) -> str:
    """A name with the new precision in place of float32, or behind it."""
    return name.replace("float32", settings.precision) if "float32" in name else f"{name}-{settings.precision}"


def read_source(artifact: Artifact, calibration: NDArray[np.uint8], settings: QuantizeSettings) -> Source:
    """Read the float file and run it on the calibration pictures.

    Raises:
        ExportError: as `quantize`.
        SettingError: a layer to skip that the file has not.
    """
    formats: dict[str, Callable[[Artifact], FloatFile]] = {"onnx": open_onnx, "litert": open_litert}
    if artifact.precision != "float32" or artifact.foreign:
        what = "a bare file" if artifact.foreign else f"{artifact.format}, {artifact.precision}"
        raise ExportError(
            f"cannot quantize {artifact.name} ({what}); wanted a float32 artifact with its manifest, which says how "
            "pictures go in"
        )
    check_pictures(artifact.name, (artifact.height, artifact.width), calibration)
    pictures = chosen_pictures(calibration, settings)
    file = formats[artifact.format](artifact)
    settings = replace(settings, skip=whole_names(file.layers, settings.skip))
    wanted = answers(artifact, pictures[:CHECK_IMAGES])
    file = file.eased(pictures, settings)
    ranges: dict[str, Range] = {}
    if settings.precision == "int8":
        ranges = observe(partial(file.tensors, pictures), settings.calibration, settings.percentile, file.ends)
    return Source(artifact, file, settings, pictures, wanted, ranges)


def draft(source: Source, name: str, skip: Collection[str], reasons: Mapping[str, str] | None = None) -> Draft:
    """Make the file, with these layers left float.

    Args:
        source: what it is made of.
        name: what it is called in errors.
        skip: names of layers.
        reasons: why, by name; by default they were asked for.
    """
    settings, left = source.settings, members_of(source.file.layers, skip)
    made = _made(source, left)
    copy = replace(source.artifact, name=name, precision=settings.precision)
    reasons = reasons or dict.fromkeys(skip, "asked for")
    skipped = tuple((what, f"stays float: {why}") for what, why in (*reasons.items(), *made.left))
    step = Step("quantize", _told(settings, len(source.pictures)), skipped)
    found = Draft(made.data, answers(copy, source.checked, made.data), step)
    return _with_bias_correction(source, found, copy, left) if settings.bias_correction else found


def _made(source: Source, left: Collection[str]) -> Made:
    settings, file = source.settings, source.file
    if settings.precision == "float16":
        return file.float16(left)
    if settings.precision == "int8-dynamic":
        return file.dynamic(settings.per_channel, left)
    return file.int8(source.ranges, settings.per_channel, left)


def _told(settings: QuantizeSettings, pictures: int) -> dict[str, Any]:
    """What the lineage says of the settings: those that had an effect."""
    scales = "per channel" if settings.per_channel else "per tensor"
    weights, activations = {
        "int8": (f"int8 {scales}", "8 bits"),
        "int8-dynamic": (f"8 bits {scales}", "float32, 8 bits on the way"),
        "float16": ("float16", "float32"),
    }[settings.precision]
    told: dict[str, Any] = {"precision": settings.precision, "weights": weights, "activations": activations}
    told["calibration_images"] = pictures
    told["seed"] = settings.seed  # of their choice, here or by `calibration_pictures`
    if settings.precision == "int8":
        told["calibration"] = settings.calibration
        if settings.calibration == "percentile":
            told["percentile"] = settings.percentile
        told |= {"smooth": True} if settings.smooth else {}
        told |= {} if settings.inner_codes else {"inner_codes": False}
    return told


def write(source: Source, made: Draft, folder: str | Path, name: str) -> Artifact:
    """Write a draft as an artifact folder.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    copy = replace(
        source.artifact,
        path=Path(folder),
        name=name,
        precision=source.settings.precision,
        steps=(*source.artifact.steps, made.step),
    )
    return write_artifact(copy, made.data, export_golden(source.pictures, made.found))


def _with_bias_correction(source: Source, made: Draft, copy: Artifact, left: Collection[str]) -> Draft:
    """The draft with corrected biases, if that brings its outputs nearer to float; else as it was, which it says."""
    corrected = source.file.corrected(made.data, source.pictures)
    data = corrected.int8(source.ranges, source.settings.per_channel, left).data
    found = answers(copy, source.checked, data)
    before, after = (output_error(source.wanted, one) for one in (made.found, found))
    if after < before:
        settings = made.step.settings | {"bias_correction": {"error_before": before, "error_after": after}}
        return Draft(data, found, replace(made.step, settings=settings))
    reason = f"left out: the outputs were {before:.4f} away from float without it and {after:.4f} with it"
    return replace(made, step=replace(made.step, skipped=(*made.step.skipped, ("bias correction", reason))))
