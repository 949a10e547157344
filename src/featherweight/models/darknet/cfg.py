"""A Darknet cfg file as sections: names, settings and the line that each stands in.

    [convolutional]       # a comment
    filters = 16

Darknet reads a number as C's `atoi` does, takes a default for a key that is missing or misspelt, and the first of a key
that is repeated. Here a number that is none, a key that is repeated with another value, and a section that does not
exist are refused, each with its line: a network with one filter where 16 were meant helps nobody.

In scope: text. Not aware of: what a section computes. Imports modelfile.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featherweight.errors import ModelFileError
from featherweight.modelfile import check_file, failure, one_line, open_file, refuse_known_strangers

MAX_BYTES = 2**18  # YOLOv4's has 12 kB
MAX_SECTIONS = 600  # YOLOv4-P7's has about 400
MAX_OPTIONS = 200  # of one section
MAX_VALUES = 1_000  # of one list

# Other names of sections → theirs here; capitals do not count.
ALIASES = {
    "conv": "convolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool", "local_avg": "local_avgpool",
    "soft": "softmax", "lrn": "normalization", "network": "net", "silence": "empty",
}  # fmt: skip
KNOWN = (
    "net", "convolutional", "connected", "local", "maxpool", "local_avgpool", "avgpool", "upsample", "route",
    "shortcut", "scale_channels", "sam", "reorg", "reorg3d", "batchnorm", "activation", "dropout", "softmax", "crop",
    "cost", "empty", "yolo", "gaussian_yolo", "region", "detection",
)  # fmt: skip
# Sections that Darknet or one of its forks has, which have no counterpart here.
FOREIGN = (
    "rnn", "gru", "lstm", "crnn", "conv_lstm", "history", "contrastive", "implicit", "normalization", "deconvolutional",
    "deconv", "xnor", "l2norm", "logistic", "iseg", "instance", "shift_channels", "control_channels",
)  # fmt: skip
WHOLE = re.compile(r"[+-]?\d{1,9}(\.0*)?")
DECIMAL = re.compile(r"[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})([eE][+-]?\d{1,2})?f?")


@dataclass(frozen=True)
class Option:
    """One setting as it is written."""

    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """One section; `name` is one of `KNOWN`."""

    path: Path  # of the file, for the errors
    name: str
    line: int
    options: Mapping[str, Option]
    asked: set[str] = field(default_factory=set, compare=False)  # keys that a rule has looked at

    def failure(self, what: str, wanted: str, key: str = "") -> ModelFileError:
        """An error that names this section, and the line of the key where it is written."""
        line = self.options[key].line if key in self.options else self.line
        return failure(self.path, f"line {line}: [{self.name}] {what}", wanted)

    def has(self, key: str) -> bool:
        """Whether the key is written."""
        self.asked.add(key)
        return key in self.options

    def text(self, key: str, default: str | None = None) -> str:
        """A word; without a default the key must be there."""
        self.asked.add(key)
        if key in self.options:
            return self.options[key].value
        if default is None:
            raise self.failure(f"has no {key}", f"wanted {key}=…")
        return default

    def whole(self, key: str, default: int | None = None, least: int | None = None) -> int:
        """A whole number of at least `least`; without a default the key must be there."""
        value = self._whole(key, self.text(key, None if default is None else str(default)))
        if least is not None and value < least:
            raise self.failure(f"{key}={value}", f"wanted at least {least}", key)
        return value

    def decimal(self, key: str, default: float) -> float:
        """Any number."""
        return self._decimal(key, self.text(key, repr(float(default))))

    def wholes(self, key: str) -> tuple[int, ...]:
        """Whole numbers with commas between; the key must be there."""
        return tuple(self._whole(key, part) for part in self._parts(key))

    def decimals(self, key: str) -> tuple[float, ...]:
        """Numbers with commas between; the key must be there."""
        return tuple(self._decimal(key, part) for part in self._parts(key))

    def _parts(self, key: str) -> list[str]:
        parts = self.text(key).removesuffix(",").split(",")
        if len(parts) > MAX_VALUES:
            raise self.failure(f"{key} with {len(parts):,} values", f"wanted up to {MAX_VALUES:,}", key)
        return parts

    def _whole(self, key: str, text: str) -> int:
        if not WHOLE.fullmatch(text):
            raise self.failure(f"{key}={one_line(text, 40)}", "wanted a whole number", key)
        return int(text.partition(".")[0])

    def _decimal(self, key: str, text: str) -> float:
        if not DECIMAL.fullmatch(text) or not math.isfinite(float(text.rstrip("f"))):
            raise self.failure(f"{key}={one_line(text, 40)}", "wanted a number", key)
        return float(text.rstrip("f"))


def read_cfg(path: str | Path) -> tuple[Section, ...]:
    """The sections of a cfg file in their order; the first is [net].

    Raises:
        ModelFileError: absent, too large, no text, or a line that cannot be understood; it is named.
    """
    path = Path(path)
    size = check_file(path, wanted="wanted a cfg file of Darknet")
    with open_file(path) as file:
        data = file.read(MAX_BYTES)
    refuse_known_strangers(path, data[:512])
    if size > MAX_BYTES:
        raise failure(path, f"{size:,} bytes", f"wanted a cfg file, of at most {MAX_BYTES:,}; the weights come second")
    if b"\0" in data:
        raise failure(path, "no text", "wanted the cfg file; its weights are named after it")
    reader = _Reader(path)
    # Comments may be in any encoding, and no key or value that counts has other letters than ASCII's.
    for number, line in enumerate(re.split("\r\n|\n|\r", data.decode("utf-8-sig", "replace")), 1):
        reader.line(number, re.sub(r"[ \t]", "", line))
    return reader.finished()


class _Reader:
    """One file, line by line."""

    def __init__(self, path: Path):
        self.path = path
        self.sections: list[Section] = []
        self.options: dict[str, Option] = {}

    def refuse(self, number: int, what: str, wanted: str) -> ModelFileError:
        return failure(self.path, f"line {number}: {what}", wanted)

    def line(self, number: int, text: str) -> None:
        """One line without its blanks."""
        text = text if text[:1] in "#;" else text.partition("#")[0]
        if not text or text[0] in "#;":
            return
        if text[0] == "[":
            self.begin(number, text)
        elif "=" not in text:
            raise self.refuse(number, one_line(text, 60), "wanted [section], key=value or # comment")
        elif not self.sections:
            raise self.refuse(number, f"{one_line(text, 60)} before any section", "wanted [net] first")
        else:
            self.option(number, *text.partition("=")[::2])

    def begin(self, number: int, text: str) -> None:
        name = text[1:-1].lower()
        name = ALIASES.get(name, name)
        if text[-1] != "]" or not name:
            raise self.refuse(number, one_line(text, 60), "wanted [section]")
        if name in FOREIGN:
            raise self.refuse(number, f"[{name}], a section that no layer here stands for", "it cannot be imported")
        if name not in KNOWN:
            raise self.refuse(number, f"unknown section [{one_line(name, 40)}]", f"known: {', '.join(KNOWN)}")
        if (name == "net") != (not self.sections):
            problem = "a second [net]" if self.sections else f"[{name}] before [net]"
            raise self.refuse(number, problem, "wanted one [net], and it first")
        if len(self.sections) == MAX_SECTIONS:
            raise self.refuse(number, f"over {MAX_SECTIONS} sections", "refused")
        self.options = {}
        self.sections.append(Section(self.path, name, number, self.options))

    def option(self, number: int, key: str, value: str) -> None:
        name = self.sections[-1].name
        if not key or not value:
            raise self.refuse(number, f"[{name}] {one_line(f'{key}={value}', 60)}", "wanted key=value")
        before = self.options.get(key)
        if before is not None:
            # Of [net] only three keys matter here, and cfg files for training and testing in one repeat the others.
            if before.value != value and (name != "net" or key in ("width", "height", "channels")):
                what = f"[{name}] {one_line(f'{key}={value}', 80)}"
                raise self.refuse(number, what, f"wanted it once: line {before.line} has {one_line(before.value, 40)}")
            return
        if len(self.options) == MAX_OPTIONS:
            raise self.refuse(number, f"[{name}] with over {MAX_OPTIONS} keys", "refused")
        self.options[key] = Option(value, number)

    def finished(self) -> tuple[Section, ...]:
        if len(self.sections) < 2:
            raise failure(self.path, "a cfg without layers", "wanted [net] and the sections of a network")
        return tuple(self.sections)
