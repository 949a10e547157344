"""A measured number's label, unit and better direction, said once.

Table heads, budget keys, Pareto signs and JSON keys are all read from the fields of `Record`:

    latency_p50_ms: float | None = measured("p50 latency", "ms", "lower")

Imports nothing of the package but errors.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from featherweight.errors import BudgetError

Better = Literal["lower", "higher"]

# How a unit may be written by a user, and how many of the record's own unit it is.
# Decimal prefixes are powers of ten and binary ones powers of two: 4 MB is 4,000,000 bytes, 4 MiB is 4,194,304.
SCALES: dict[str, dict[str, float]] = {
    "ms": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "B": {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "mJ": {"uJ": 1e-3, "mJ": 1.0, "J": 1e3},
    "1/s": {"": 1.0, "/s": 1.0},
    "fraction": {"": 1.0, "%": 0.01},
    "count": {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9},
}
# Three digits of exponent are more than a float holds; without a limit Decimal would have to refuse them.
WRITTEN = re.compile(r"\s*((?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*(/s|[A-Za-zµ%]*)\s*")
SUFFIXES = {"ms": "_ms", "B": "_bytes", "mJ": "_mj", "1/s": "_per_s", "fraction": "", "count": ""}


@dataclass(frozen=True)
class Quantity:
    """One measurable number: `field` is its name in `Record`, `key` the same without the unit (for budgets)."""

    field: str
    label: str
    unit: str
    better: Better

    @property
    def key(self) -> str:
        """The field's name without its unit: `latency_p50_ms` → `latency_p50`."""
        return self.field.removesuffix(SUFFIXES[self.unit])

    def cost(self, value: float) -> float:
        """The value with its sign turned where higher is better, so that less is always better."""
        return -value if self.better == "higher" else value

    def parse(self, text: str) -> float:
        """`"10ms"` → 10.0 in the record's own unit, rounded once: `35%` is 0.35, which 35 × 0.01 in floats is not.

        Raises:
            BudgetError: no number, a negative one, one beyond floats, or a unit that this quantity does not have.
        """
        scales = SCALES[self.unit]
        match = WRITTEN.fullmatch(text)
        units = ", ".join(name or "no unit" for name in scales)
        if match is None or match[2] not in scales:
            raise BudgetError(f"cannot read {text.strip()!r} as {self.key}; wanted a number and one of: {units}")
        value = float(Decimal(match[1]) * Decimal(repr(scales[match[2]])))
        if not math.isfinite(value):
            raise BudgetError(f"{text.strip()!r} is more than any {self.key} can be")
        return value

    def show(self, value: float | None) -> str:
        """The value for people: `320 kB`, `0.42 ms`, `97.9 %`; `–` where it is missing."""
        if value is None:
            return "–"
        if self.unit == "fraction":
            return f"{100 * value:.1f} %"
        steps = {"B": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), "count": (("G", 1e9), ("M", 1e6), ("k", 1e3))}
        for prefix, scale in steps.get(self.unit, ()):
            if abs(value) >= scale:
                return f"{_digits(value / scale)} {prefix}"
        unit = {"count": "", "1/s": "/s"}.get(self.unit, f" {self.unit}")
        return f"{_digits(value)}{unit}"

    def exact(self, value: float) -> str:
        """Every digit of the value, for two that `show` makes look the same: `4000001 B`."""
        unit = {"fraction": "", "count": "", "1/s": "/s"}.get(self.unit, f" {self.unit}")
        return repr(float(value)).removesuffix(".0") + unit


def _digits(value: float) -> str:
    """Three significant digits or more, and never an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}".rstrip("0").rstrip(".")


def measured(label: str, unit: str, better: Better) -> Any:
    """A dataclass field for a measured number: `None` until it was measured."""
    return dataclasses.field(default=None, metadata={"quantity": (label, unit, better)})


def quantities(record_type: type) -> dict[str, Quantity]:
    """Field name → quantity, for every measured field of a dataclass, in order."""
    return {
        field.name: Quantity(field.name, *field.metadata["quantity"])
        for field in dataclasses.fields(record_type)
        if "quantity" in field.metadata
    }
