"""What is asked of quantization, and which pictures it is calibrated on.

Imports artifact, data and errors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.data import Dataset, Item, display, load_pixels
from featherweight.errors import ExportError, SettingError

PRECISIONS = ("int8", "int8-dynamic", "float16")
CALIBRATIONS = ("minmax", "percentile", "entropy")
CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class QuantizeSettings:
    """How a float32 file is quantized.

    precision
        int8: weights and activations are int8, with ranges from calibration pictures; the fastest where the runtime
        has kernels for it. int8-dynamic: weights are 8-bit, activations are quantized while the file runs, each by its
        own least and most. float16: weights are stored in 16 bits, the arithmetic is what the runtime makes of it,
        which on most processors is float32: half the file and no faster.
    calibration
        How the range of an activation comes from what it was on the pictures: minmax (all of it), percentile (the
        middle share), entropy (see `ranges.entropy`).
    inner_codes
        Without them a leaky ReLU and the like work on what the convolution computed, not on its codes. OpenVINO
        computes both as one and is faster so; ONNX Runtime has no int8 convolution then and takes twice the time.

    Raises:
        SettingError: an unknown name, or a number out of its range.
    """

    precision: str = "int8"
    calibration: str = "minmax"
    percentile: float = 99.999  # the share of values that stay within the range, in percent
    images: int | None = None  # how many of the calibration pictures are used; None: all
    seed: int = 0  # of their choice
    per_channel: bool = True  # a scale for each output channel of the weights
    skip: tuple[str, ...] = ()  # names of layers that stay float
    bias_correction: bool = False  # of int8; kept where the outputs come nearer to float by it
    smooth: bool = False  # of int8 in ONNX: the channels of an activation are made alike first, see `onnx_ease`
    inner_codes: bool = True  # ONNX: a convolution's output is rounded before its activation, as ONNX Runtime wants it

    def __post_init__(self) -> None:
        for what, given, known in (
            ("precision", self.precision, PRECISIONS),
            ("calibration", self.calibration, CALIBRATIONS),
        ):
            if given not in known:
                raise SettingError(f"unknown {what} {given!r}; known: {', '.join(known)}")
        if not 50 < self.percentile <= 100:
            raise SettingError(f"percentile {self.percentile:g}; wanted over 50 and at most 100")
        if self.seed < 0:
            raise SettingError(f"seed {self.seed}; wanted 0 or more")
        if self.images is not None and self.images < 1:
            raise SettingError(f"{self.images} calibration images; wanted at least 1")
        if self.precision != "int8" and (self.smooth or not self.inner_codes):
            raise SettingError(f"smooth or no inner codes with precision {self.precision}; they are for int8 only")
        if self.bias_correction and self.precision != "int8":
            raise SettingError(f"bias correction with precision {self.precision}; it is for int8 only")


def choose_calibration(count: int, labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows of `count` pictures, as many of each class as can be; the same for the same seed.

    Args:
        count: how many; all where there are not so many.
        labels: (n,) the class of each picture; where none are known, all the same.
        seed: of the choice.

    Returns:
        Rows in rising order.

    Raises:
        SettingError: a count below 1, or nothing to choose from.
    """
    if count < 1 or not len(labels):
        raise SettingError(f"{count} calibration images out of {len(labels)}; wanted at least 1 out of at least 1")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)  # how many of its class stand before a picture
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        turn[rows] = np.arange(len(rows))
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:count])


def calibration_pictures(
    artifact: Artifact, dataset: Dataset, settings: QuantizeSettings, part: str = "train"
) -> NDArray[np.uint8]:
    """Pictures (n, height, width, 3) of a dataset at the artifact's size, a seeded choice balanced over the classes.

    Raises:
        ExportError: a bare file, or a dataset of another task or other classes than the artifact's.
        DataError: the dataset has no such part.
    """
    if artifact.height is None or artifact.width is None:
        raise ExportError(f"{artifact.name} is a bare file and does not say its size; wanted an artifact folder")
    if dataset.task != artifact.task:
        raise ExportError(
            f"{display(dataset.root)} is for {dataset.task}, {artifact.name} for {artifact.task}; calibrate on "
            "pictures of its own task"
        )
    if dataset.classes != artifact.classes:
        raise ExportError(
            f"{display(dataset.root)} has other classes than {artifact.name}, as {dataset.classes[0]!r}; calibrate on "
            "pictures of what it was trained for"
        )
    items = chosen_items(dataset, settings.images or CALIBRATION_IMAGES, settings.seed, part)
    return load_pixels(items, artifact.height, artifact.width, rule=artifact.resize or "stretch").take(items)


def chosen_items(dataset: Dataset, count: int, seed: int, part: str = "train") -> list[Item]:
    """So many items of a part, a seeded choice, balanced over the classes where each picture is of one.

    Raises:
        DataError: the dataset has no such part.
        SettingError: a count below 1.
    """
    items = dataset.part(part)
    # A picture of several classes, with boxes or a mask, stands for none of them: all have the label -1.
    kinds = np.array([item.label for item in items], np.int64)
    return [items[row] for row in choose_calibration(count, kinds, seed)]


def check_pictures(name: str, size: tuple[int | None, int | None], pictures: NDArray[np.uint8]) -> None:
    """Raise unless these are calibration pictures for a model of that name and (height, width).

    Raises:
        ExportError: they are none, or not RGB 0–255 (n, h, w, 3) of the size.
    """
    wanted = (*size, 3)
    if pictures.ndim != 4 or pictures.shape[1:] != wanted or pictures.dtype != np.uint8 or not len(pictures):
        raise ExportError(
            f"calibration pictures are {pictures.dtype} {'×'.join(map(str, pictures.shape))}; {name} wants "
            f"at least one, uint8 n×{'×'.join(map(str, wanted))}, RGB 0–255"
        )


def chosen_pictures(pictures: NDArray[np.uint8], settings: QuantizeSettings) -> NDArray[np.uint8]:
    """As many of the calibration pictures (n, h, w, 3) as the settings say, by their seed."""
    if settings.images is None or settings.images >= len(pictures):
        return pictures
    return pictures[choose_calibration(settings.images, np.zeros(len(pictures), np.int64), settings.seed)]
