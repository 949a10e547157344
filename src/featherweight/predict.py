"""`Artifact` × pictures → predictions, through the same decoder and the same file as the measurement.

Where `tune` has found how the file runs fastest on this device, it is run so.

Imports artifact, data, device, errors, image, progress, runtimes and tasks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featherweight.artifact import Artifact, Choice, read_artifact
from featherweight.data import display
from featherweight.device import this_device
from featherweight.errors import DataError, ImageError, RuntimeFailure, SettingError
from featherweight.image import read_image, resize
from featherweight.progress import logger
from featherweight.runtimes import RUNTIMES, Session, runtime_named, supporting
from featherweight.runtimes.settings import Settings, settings_of
from featherweight.tasks import task_of


def predict(
    artifact: str | Path | Artifact,
    images: str | Path | Sequence[str | Path],
    runtime: str | None = None,
    threads: int | None = None,
    top: int = 5,
) -> list[dict[str, Any]]:
    """Predictions for pictures: `[{"image": "cat.jpg", "predictions": [{"label": "cat", "score": 0.97}, …]}, …]`.

    Args:
        artifact: an artifact folder.
        images: one picture or several.
        runtime: by default as `tune` found it best on this device, else the first one that supports the file.
        threads: how many threads the runtime may use; by default as `tune` found it best, else 1.
        top: how many predictions a picture, best first.

    Raises:
        ArtifactError: not an artifact, or a bare file that does not say its classes.
        RuntimeFailure: no runtime here runs the file.
        DataError: a picture cannot be read; its name and the cause.
        SettingError: an unknown runtime, or top or threads below 1.
    """
    if top < 1 or (threads is not None and threads < 1):
        raise SettingError(f"top {top}, threads {threads}; wanted at least 1")
    loaded = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
    task = task_of(loaded)
    session = load(loaded, runtime, threads)
    results = []
    for path in [images] if isinstance(images, str | Path) else images:
        try:
            picture = read_image(path)
        except ImageError as error:
            raise DataError(f"{display(path)}: {error}; wanted a JPEG, PNG, BMP, WebP or GIF picture") from error
        pixels = resize(picture, session.height, session.width, loaded.resize or "stretch")
        predictions = task.decode(session.run(pixels[None]), [(picture.shape[0], picture.shape[1])])[0]
        results.append({"image": display(path), "predictions": predictions[:top]})
    return results


def load(artifact: Artifact, runtime: str | None = None, threads: int | None = None) -> Session:
    """Load a file as `tune` found it best on this device; a choice that is stale costs a line, and is passed over.

    Args:
        artifact: the file.
        runtime: where a runtime or threads are named, the choice is not looked at.
        threads: the same.

    Raises:
        RuntimeFailure: nothing here runs the file.
        SettingError: an unknown runtime.
    """
    choice = artifact.tuned.get(this_device().id) if runtime is None and threads is None else None
    if choice is not None:
        try:
            check_holds(artifact, choice)
            return runtime_named(choice.runtime).load(artifact, settings_of(choice.settings))
        except (RuntimeFailure, SettingError) as error:
            logger.warning("the tuned choice for %s is passed over: %s. Tune it again", artifact.name, error)
    return runtime_named(supporting(artifact, runtime or "all")[0]).load(artifact, Settings(threads=threads or 1))


def check_holds(artifact: Artifact, choice: Choice) -> None:
    """Raise unless a choice is still as it was found.

    Raises:
        SettingError: its runtime is unknown, or of another version than it was found with.
        RuntimeFailure: its runtime is not installed, or does not run the file.
    """
    why_not = runtime_named(choice.runtime).supports(artifact)
    if why_not is not None:
        raise RuntimeFailure(why_not)
    then, now = choice.versions.get(choice.runtime), RUNTIMES[choice.runtime].version()
    if then != now:
        raise SettingError(f"it was found with {choice.runtime} {then}, here is {now}")
