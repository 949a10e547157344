"""Every error that a user can cause or meet. The message is one line: what came, what was wanted, what to do.

    FeatherweightError
    ├── DataError          an image folder that cannot be used
    │   ├── ImageError     one file that is not a picture we can read
    │   ├── LabelError     one file of boxes or masks that cannot be read
    │   └── TooManyBad     a folder with over 5 % of such files; `bad` lists them all
    ├── WeightsError       pretrained weights that are absent, damaged or of another network
    ├── ModelFileError     a model file that is damaged, hostile or of a kind that cannot be read
    ├── ArtifactError      not an exported model, or a damaged one
    ├── ExportError        the exported file answers differently from the model
    ├── RuntimeFailure     a runtime that is absent, or cannot load or run the file
    ├── MeasureError       the measuring process died or did not answer
    │   └── SomeUnmeasured some measurements failed; `records` has the others
    ├── RecordError        a records file that cannot be read, or records that cannot be compared
    ├── BudgetError        a budget that cannot be understood
    ├── SettingError       any other setting with a value that cannot be
    └── OutputError        a place where results cannot be written

`display` is how a path stands in a message. Imports nothing of the package.
"""

import os
from pathlib import Path
from typing import Any


class FeatherweightError(Exception):
    """The root: the command line prints it as one line and exits with 2."""


class DataError(FeatherweightError):
    """An image folder that cannot be used."""


class ImageError(DataError):
    """One file that is not a picture we can read; the message is the cause, without the file's name."""


class LabelError(DataError):
    """One file of boxes or masks that cannot be read; the message is the cause, without the file's name."""


class TooManyBad(DataError):
    """A folder with over 5 % bad pictures; `bad` has (file, cause) of each."""

    def __init__(self, message: str, bad: tuple[tuple[str, str], ...]):
        super().__init__(message)
        self.bad = bad


class WeightsError(FeatherweightError):
    """Pretrained weights that are absent, damaged or of another network."""


class ModelFileError(FeatherweightError):
    """A model or weights file that is damaged, hostile or of a kind that cannot be read."""


class ArtifactError(FeatherweightError):
    """Not an exported model, or a damaged one."""


class ExportError(FeatherweightError):
    """The exported file answers differently from the model, or the converter failed."""


class RuntimeFailure(FeatherweightError):
    """A runtime that is absent, or that cannot load or run the file."""


class MeasureError(FeatherweightError):
    """The measuring process died or did not answer."""


class SomeUnmeasured(MeasureError):
    """Some measurements failed; `failures` has a line each, `records` what was measured all the same."""

    def __init__(self, failures: tuple[str, ...], records: tuple[Any, ...]):
        more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
        super().__init__(f"{len(failures)} failed, {len(records)} measured: {failures[0]}{more}")
        self.failures, self.records = failures, records


class RecordError(FeatherweightError):
    """A records file that cannot be read, or records that cannot be compared."""


class BudgetError(FeatherweightError):
    """A budget that cannot be understood."""


class SettingError(FeatherweightError):
    """A setting with a value that cannot be."""


class OutputError(FeatherweightError):
    """A place where results cannot be written."""


def display(path: str | Path) -> str:
    """A path that can always be printed: bytes that are no UTF-8, and control characters, are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
