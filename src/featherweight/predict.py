"""`Artifact` × pictures → predictions, through the same decoder and the same file as the measurement.

Imports artifact, data, errors, image, runtimes and tasks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featherweight.artifact import Artifact, read_artifact
from featherweight.data import display
from featherweight.errors import ArtifactError, DataError, ImageError, SettingError
from featherweight.image import read_image, resize
from featherweight.runtimes import runtime_named, supporting
from featherweight.tasks import task_named


def predict(
    artifact: str | Path | Artifact,
    images: str | Path | Sequence[str | Path],
    runtime: str | None = None,
    threads: int = 1,
    top: int = 5,
) -> list[dict[str, Any]]:
    """Predictions for pictures: `[{"image": "cat.jpg", "predictions": [{"label": "cat", "score": 0.97}, …]}, …]`.

    Args:
        artifact: an artifact folder.
        images: one picture or several.
        runtime: by default the first one that supports the file.
        threads: how many threads the runtime may use.
        top: how many predictions a picture, best first.

    Raises:
        ArtifactError: not an artifact, or a bare file that does not say its classes.
        RuntimeFailure: no runtime here runs the file.
        DataError: a picture cannot be read; its name and the cause.
        SettingError: an unknown runtime, or top or threads below 1.
    """
    if top < 1 or threads < 1:
        raise SettingError(f"top {top}, threads {threads}; wanted at least 1")
    loaded = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
    if loaded.classes is None or loaded.task is None:
        raise ArtifactError(
            f"{loaded.path} is a bare model file and does not say its classes; wanted an artifact folder"
        )
    session = runtime_named(supporting(loaded, runtime or "all")[0]).load(loaded, threads)
    task = task_named(loaded.task)
    results = []
    for path in [images] if isinstance(images, str | Path) else images:
        try:
            pixels = resize(read_image(path), session.height, session.width)
        except ImageError as error:
            raise DataError(f"{display(path)}: {error}; wanted a JPEG, PNG, BMP, WebP or GIF picture") from error
        predictions = task.decode(session.run(pixels[None]), loaded.classes)[0]
        results.append({"image": display(path), "predictions": predictions[:top]})
    return results
