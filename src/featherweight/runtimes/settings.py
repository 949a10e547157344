"""How a file is to be run, what a build offers for it, and what a loaded session really does.

Plain values: `dataclasses.asdict` of each goes through JSON. Imports artifact and errors.
"""

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featherweight.artifact import fits
from featherweight.errors import SettingError

# What libraries call a number's type → what it is called here. An int8 network has uint8 activations, too.
NUMBERS = {
    "f64": "float64", "double": "float64",
    "f32": "float32", "float": "float32",
    "f16": "float16", "bf16": "bfloat16",
    "i16": "int16",
    "i8": "int8", "u8": "int8", "uint8": "int8",
    "i4": "int4", "u4": "int4", "uint4": "int4",
}  # fmt: skip
NARROWEST_FIRST = ("int4", "int8", "int16", "float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Settings:
    """How a file is to be run.

    Raises:
        SettingError: less than one thread or pixel.
    """

    threads: int = 1
    precision: str | None = None  # arithmetic to ask for: float32 | bfloat16 | float16; None: the runtime's own default
    optimization: str | None = None  # a name out of the runtime's options; None: its default
    provider: str | None = None  # a name out of the runtime's options; None: cpu
    input_size: tuple[int, int] | None = None  # (height, width) of a foreign file that leaves them open

    def __post_init__(self) -> None:
        if self.threads < 1 or min(self.input_size or (1,)) < 1:
            raise SettingError(f"{self.threads} threads, input size {self.input_size}; wanted at least 1")


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings out of plain values, as JSON brings them.

    Raises:
        SettingError: fields missing, unknown or of the wrong kind.
    """
    hints = typing.get_type_hints(Settings)
    if set(values) != set(hints) or not all(fits(values[name], hint) for name, hint in hints.items()):
        raise SettingError(f"settings {values!r:.200}; wanted {', '.join(hints)}")
    size = values["input_size"]
    return Settings(**{**values, "input_size": None if size is None else (size[0], size[1])})


@dataclass(frozen=True)
class Ran:
    """What a loaded session really does, as far as the library says; `None` where it does not."""

    precision: str | None  # of its convolutions and products: float32 | bfloat16 | int8 | int8+float32 …
    provider: str  # cpu | cuda …
    optimization: str
    layout: str | None  # NCHW | NHWC | NCHWc: how it holds the pictures inside
    details: dict[str, Any] = field(default_factory=dict)  # arena, spinning …: plain values for the record


@dataclass(frozen=True)
class Options:
    """What this build offers for an artifact; the first of each is the default.

    A precision is asked of what is not quantized: an int8 file's integers stay integers.
    """

    precisions: tuple[str, ...]
    optimizations: tuple[str, ...]
    providers: tuple[str, ...]


def choose(what: str, asked: str | None, offered: Sequence[str], runtime: str) -> str:
    """What is asked for, or the first that is offered.

    Raises:
        SettingError: it is not offered, with what is.
    """
    if asked is None:
        return offered[0]
    if asked not in offered:
        raise SettingError(f"{runtime} has no {what} {asked} for this file here; offered: {', '.join(offered)}")
    return asked


def joined(numbers: Iterable[str]) -> str | None:
    """Types of numbers by a library's names as one name, narrowest first: int8+float32. `None` where there is none."""
    found = {NUMBERS.get(number, number) for number in numbers}
    known = [number for number in NARROWEST_FIRST if number in found]
    return "+".join([*known, *sorted(found.difference(known))]) or None
