"""`Artifact` × pictures → predictions, through the same decoder and the same file as the measurement.

Pictures, folders, videos and cameras are one stream: one picture is held at a time. Where `tune` has found how the
file runs fastest on this device, it is run so.

Imports artifact, data, device, draw, errors, frames, image, matches, progress, runtimes and tasks.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Choice, read_artifact, to_utf8
from featherweight.data import Dataset, Item, targets
from featherweight.device import this_device
from featherweight.draw import draw
from featherweight.errors import DataError, RuntimeFailure, SettingError
from featherweight.frames import Canvas, Lines, Source, Video, picture_of, sources_of
from featherweight.image import Pixels, resize
from featherweight.matches import Answers
from featherweight.progress import logger, track
from featherweight.runtimes import RUNTIMES, Session, runtime_named, supporting
from featherweight.runtimes.settings import Settings, settings_of
from featherweight.tasks import Task, task_of


@dataclass(frozen=True)
class PredictSettings:
    """What is told of each picture, and where it goes beside."""

    top: int | None = None  # predictions a picture; by default 5 classes, or every box
    score: float | None = None  # of a detector, the least that is told, 0–1; by default as the artifact says
    draw: Path | None = None  # a folder for the pictures with their predictions drawn on
    output: Path | None = None  # a file of JSON lines
    frames: int | None = None  # at most so many of each video or camera
    bar: bool = True  # show how much is done

    def __post_init__(self) -> None:
        if min(self.top or 1, self.frames or 1) < 1 or 0 in (self.top, self.frames):
            raise SettingError(f"top {self.top}, frames {self.frames}; wanted at least 1")
        if self.score is not None and not 0 <= self.score <= 1:
            raise SettingError(f"score {self.score:g}; wanted 0 to 1")


def predict(
    artifact: str | Path | Artifact,
    images: str | Path | int | Sequence[str | Path | int],
    runtime: str | None = None,
    threads: int | None = None,
    top: int | None = None,
    settings: PredictSettings | None = None,
) -> list[dict[str, Any]]:
    """Predictions for pictures: `[{"image": "cat.jpg", "predictions": [{"label": "cat", "score": 0.97}, …]}, …]`.

    A detector's have a "box" each, [left, top, right, bottom] in pixels of the picture. Of a video or a camera each
    frame has its "frame", from 0.

    Args:
        artifact: an artifact folder.
        images: pictures, folders of them, videos, or a camera's number; one or several.
        runtime: by default as `tune` found it best on this device, else the first one that supports the file.
        threads: how many threads the runtime may use; by default as `tune` found it best, else 1.
        top: how many predictions a picture, best first; by default 5 classes, or every box.
        settings: more of it; `top` counts before that in it.

    Raises:
        ArtifactError: not an artifact, or a bare file that does not say its classes.
        RuntimeFailure: no runtime here runs the file.
        DataError: a picture cannot be read; its name and the cause. In a folder such a picture is passed over.
        SettingError: an unknown runtime, or top or threads below 1.
        OutputError: what is drawn or written is there already, or cannot be written.
    """
    settings = settings or PredictSettings()
    settings = settings if top is None else replace(settings, top=top)
    return list(predictions(artifact, images, runtime, threads, settings))


def predictions(
    artifact: str | Path | Artifact,
    images: str | Path | int | Sequence[str | Path | int],
    runtime: str | None = None,
    threads: int | None = None,
    settings: PredictSettings | None = None,
) -> Iterator[dict[str, Any]]:
    """As `predict`, each as soon as it is there: for what has no end, or does not fit into memory.

    Raises:
        FeatherweightError: as `predict`.
    """
    settings = settings or PredictSettings()
    if threads is not None and threads < 1:
        raise SettingError(f"threads {threads}; wanted at least 1")
    loaded = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
    if settings.score is not None:
        if loaded.decoding is None:
            raise SettingError(f"score {settings.score:g}: {loaded.name} is no detector; leave it out")
        loaded = replace(loaded, decoding=replace(loaded.decoding, score=settings.score))
    teller = _Teller(loaded, task_of(loaded), load(loaded, runtime, threads), settings)
    sources = sources_of([images] if isinstance(images, str | Path | int) else images)
    with Lines(settings.output) if settings.output else contextlib.nullcontext() as lines:
        pictures = len(sources) > 1 and settings.bar
        for source in track(sources, "predicting", len(sources)) if pictures else sources:
            for one in teller.of_video(source) if source.moves else teller.of_picture(source):
                if lines is not None:
                    lines.put(to_utf8(json.dumps(one, ensure_ascii=False)))
                yield one


@dataclass(frozen=True)
class _Teller:
    """A loaded file and what it is asked."""

    artifact: Artifact
    task: Task
    session: Session
    settings: PredictSettings

    def of_picture(self, source: Source) -> Iterator[dict[str, Any]]:
        try:
            picture = picture_of(source)
        except DataError as error:
            if not source.in_folder:
                raise
            logger.warning("passed over: %s", error)
            return
        found = self.told(picture)
        if self.settings.draw is not None:
            with Canvas(self.settings.draw, source) as canvas:
                canvas.put(draw(picture, found, self.artifact.classes or ()))
        yield {"image": str(source), "predictions": found}

    def of_video(self, source: Source) -> Iterator[dict[str, Any]]:
        """Frame by frame; the rate reached is told at the end."""
        count, in_model, start = 0, 0.0, time.perf_counter()
        with contextlib.ExitStack() as stack:
            video = stack.enter_context(Video(source))
            place = self.settings.draw
            canvas = None if place is None else stack.enter_context(Canvas(place, source, video.rate))
            frames: Iterator[Pixels] = islice(video, self.settings.frames)
            if video.count is not None and self.settings.bar:
                frames = track(frames, source.name.name, min(video.count, self.settings.frames or video.count))
            for count, frame in enumerate(frames, start=1):
                before = time.perf_counter()
                found = self.told(frame)
                in_model += time.perf_counter() - before
                if canvas is not None:
                    canvas.put(draw(frame, found, self.artifact.classes or ()))
                yield {"image": str(source), "frame": count - 1, "predictions": found}
        if not count:
            raise DataError(f"{source} has no frame that OpenCV can read; wanted a video")
        logger.info(
            "%s: %d frames, %.1f frames/s from reading to drawing, %.1f of resize, model and decoding alone",
            source, count, count / (time.perf_counter() - start), count / in_model,
        )  # fmt: skip

    def seen(self, item: Item, target: Any) -> Any:
        """What is found in a picture beside what is true of it, as the task has it."""
        picture = picture_of(Source(item.path, Path(item.path.name)))
        return self.task.seen(item.path, self.outputs(picture), (picture.shape[0], picture.shape[1]), target)

    def outputs(self, picture: Pixels) -> NDArray[np.float32]:
        """The outputs (1, …) for a picture (h, w, 3)."""
        rule = self.artifact.resize or "stretch"
        if rule == "tile":
            from featherweight.tiles import tiled

            return tiled(self.session.run, picture, self.session.height, self.session.width)[None]
        return self.session.run(resize(picture, self.session.height, self.session.width, rule)[None])

    def told(self, picture: Pixels) -> list[dict[str, Any]]:
        """The predictions for a picture (h, w, 3)."""
        found = self.task.decode(self.outputs(picture), [(picture.shape[0], picture.shape[1])])[0]
        return found[: self.settings.top or self.task.shown]


def answers_of(
    artifacts: Sequence[str | Path | Artifact],
    dataset: Dataset,
    part: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> tuple[Answers, ...]:
    """What files find in a part of a data set, beside what is true there: boxes or masks; classifiers are left out.

    Args:
        artifacts: artifact folders.
        dataset: pictures with boxes or masks; others bring no answers.
        part: by default test where there is one, else val.
        runtime: as `predict`.
        threads: as `predict`.

    Raises:
        SettingError: a file of other classes than the data's, or for another task.
        FeatherweightError: as `predict`.
    """
    loaded = [one if isinstance(one, Artifact) else read_artifact(one) for one in artifacts]
    chosen = part or ("test" if "test" in dataset.parts else "val")
    items = [item for item in dataset.part(chosen) if item.boxes is not None or item.mask is not None]
    found = []
    for one in loaded:
        if one.foreign or not items:
            continue
        task = task_of(one)
        if not task.pictured:
            continue
        if task.name != dataset.task:
            raise SettingError(f"{one.name} is for {task.name} and the data for {dataset.task}: wanted the same task")
        if one.classes != dataset.classes:
            theirs, known = (", ".join(names[:5]) for names in (one.classes or (), dataset.classes))
            raise SettingError(f"{one.name} finds {theirs} and the data has {known}: wanted the same classes")
        teller = _Teller(one, task, load(one, runtime, threads), PredictSettings())
        pairs = list(zip(items, targets(items), strict=True))
        seen = tuple(teller.seen(item, target) for item, target in track(pairs, f"answers of {one.name}", len(pairs)))
        score = None if one.decoding is None else one.decoding.score
        found.append(Answers(one.name, one.classes or (), seen, chosen, score))
    return tuple(found)


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
