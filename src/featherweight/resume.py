"""Models by stage in a folder, so that a long way of several stages that was interrupted goes on at the last one done.

    01-prune.keras   01-prune.json      the model, and its step with the key that tells what it was made from
    02-train.keras   02-train.json

A stage's key is made of its settings and of the key of the stage before: what was asked for otherwise is never taken
for what is asked for now. Imports artifact, errors, models and progress; keras where it is used.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.artifact import Step, write_file
from featherweight.errors import ModelFileError, OutputError, SettingError
from featherweight.models.load import load_model
from featherweight.progress import logger

if TYPE_CHECKING:
    import keras

Made = tuple["keras.Model", Step]


class Resumable:
    """Stages in the order in which they are asked for. `origin` tells what they start from: a model, data, a seed."""

    def __init__(self, folder: str | Path, origin: Mapping[str, Any]):
        self.folder = Path(folder)
        self.number = 0
        self.key = _key("", "origin", origin)

    def run(self, name: str, settings: Mapping[str, Any], work: Callable[[], Made]) -> Made:
        """The stage's model and step: from the folder where it was finished before, else made and kept there.

        Raises:
            SettingError: the folder has this stage with other settings or of another origin.
            OutputError: it cannot be written.
        """
        self.number += 1
        self.key = _key(self.key, name, settings)
        place = self.folder / f"{self.number:02d}-{name}"
        kept = self._kept(place)
        if kept is not None:
            logger.info("%s: taken from %s", name, place.with_suffix(".keras"))
            return kept
        made = work()
        self._keep(place, *made)
        return made

    def _kept(self, place: Path) -> Made | None:
        note, file = place.with_suffix(".json"), place.with_suffix(".keras")
        if not note.exists():  # it is written last
            return None
        try:
            values = json.loads(note.read_text(encoding="utf-8"))
            key, step = values["key"], values["step"]
            found = Step(step["name"], step["settings"], tuple((what, why) for what, why in step["skipped"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingError(f"{note} is damaged; remove it and its model, or name another folder") from error
        if key != self.key:
            raise SettingError(
                f"{note} is of other settings, another model or other data; name another folder, or remove it"
            )
        try:
            return load_model(file), found
        except ModelFileError as error:
            raise SettingError(f"{error}; remove {note} to make it again") from error

    def _keep(self, place: Path, model: "keras.Model", step: Step) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            beside = place.with_name(f".{place.name}.keras")
            model.save(beside)
            beside.replace(place.with_suffix(".keras"))
        except OSError as error:
            raise OutputError(f"cannot write {place}.keras: {error.strerror}") from error
        values = {"key": self.key, "step": {"name": step.name, "settings": step.settings, "skipped": step.skipped}}
        write_file(place.with_suffix(".json"), json.dumps(values, indent=1).encode())


def _key(before: str, name: str, settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([before, name, settings], sort_keys=True).encode()).hexdigest()
