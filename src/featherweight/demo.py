"""The main job on data that is at hand: the 1,797 handwritten digits that scikit-learn ships, as an image folder.

Imports artifact, errors, search and train; scikit-learn and Pillow where they are used.
"""

from pathlib import Path

from featherweight.artifact import new_folder
from featherweight.device import cache_directory
from featherweight.errors import SettingError
from featherweight.progress import logger
from featherweight.search import Fit, SearchSettings, fit
from featherweight.train import TrainSettings

BUDGET = "accuracy>=0.95,latency_p50=1ms,size=0.5MB"


def demo(output: str | Path | None = None, cache: str | Path | None = None, command: str | None = None) -> Fit:
    """Write the digits out once, then fit the lightest classifier for them.

    Args:
        output: as in `fit`; by default `fit-digits` in the working directory.
        cache: where the digits are kept; by default the user's cache directory.
        command: what was typed, for the records.

    Raises:
        SettingError: scikit-learn is not installed.
        FeatherweightError: as `fit`.
    """
    folder = write_digits(Path(cache) if cache is not None else cache_directory())
    settings = SearchSettings(
        models=("mobilenet_v1",),
        widths=(0.25, 0.5),
        sizes=(48,),
        train=TrainSettings(epochs=20, patience=20, learning_rate=1e-2, contrast=0.0),
    )
    return fit(folder, BUDGET, output, None, settings, command)


def write_digits(cache: Path) -> Path:
    """The folder `digits` with a folder of PNG files a class; written once, whole, and found again later.

    Raises:
        SettingError: scikit-learn is not installed.
    """
    folder = cache / "digits"
    if folder.is_dir():
        return folder
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SettingError("the demo needs scikit-learn for its pictures; pip install 'featherweight[demo]'") from error
    from PIL import Image

    digits = load_digits()
    logger.info("writing %d handwritten digits to %s", len(digits.images), folder)
    with new_folder(folder) as beside:
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            (beside / str(label)).mkdir(exist_ok=True)
            grey = (pixels * 255 / 16).round().astype("uint8")  # the scans have 17 shades
            Image.fromarray(grey).save(beside / str(label) / f"{number:04d}.png")
    return folder
