"""What a `.keras` file of ours keeps beside the model: how it came to be, its classes and how its pictures are resized.

It is one more member of the archive, which Keras passes over: the file is still the model that Keras loads, and what is
exported from it knows its whole lineage. A file of somebody else keeps nothing.

Imports artifact, boxes, errors and modelfile.
"""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from featherweight.artifact import Step, fits, steps_of, to_utf8
from featherweight.boxes import RESIZES
from featherweight.modelfile import (
    KEPT_MEMBER,
    MAX_JSON_BYTES,
    Kind,
    failure,
    identify,
    open_archive,
    parse_json,
    read_member,
)


@dataclass(frozen=True)
class Kept:
    """What is kept; empty where nothing is known."""

    steps: tuple[Step, ...] = ()
    classes: tuple[str, ...] = ()
    resize: str | None = None  # one of `boxes.RESIZES`


def kept_in(path: str | Path) -> Kept:
    """What a model file keeps; nothing, where it is not one of ours.

    Raises:
        ModelFileError: what it keeps is damaged, or not as we write it.
    """
    path = Path(path)
    if identify(path) is not Kind.KERAS:
        return Kept()
    with open_archive(path) as archive:
        if KEPT_MEMBER not in archive.namelist():
            return Kept()
        plain = parse_json(read_member(archive, KEPT_MEMBER, path, MAX_JSON_BYTES), path, KEPT_MEMBER)
    try:
        steps, classes, resize = steps_of(plain["steps"]), plain["classes"], plain["resize"]
        if not fits(classes, tuple[str, ...]) or resize not in (None, *RESIZES):
            raise TypeError(f"classes {classes!r:.80}, resize {resize!r:.40}")
    except (KeyError, TypeError) as error:
        raise failure(path, f"its {KEPT_MEMBER} is not as we write it: {error}", "train or import it again") from error
    return Kept(steps, tuple(classes), resize)


def keep(path: Path, kept: Kept) -> None:
    """Add it to a `.keras` file that was just written and keeps nothing yet.

    Raises:
        OSError: it cannot be written.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(KEPT_MEMBER, to_utf8(json.dumps(asdict(kept), ensure_ascii=False)))
