"""Limits in the quantities of a record: `latency_p90=10ms,size=4MB,accuracy>=0.9`; and what a record violates.

Imports errors, quantity and record.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.errors import BudgetError
from featherweight.quantity import Quantity
from featherweight.record import BY_KEY, Record, value_of


@dataclass(frozen=True)
class Limit:
    """One bound: at most `bound` where lower is better, at least where higher is."""

    quantity: Quantity
    bound: float

    def __str__(self) -> str:
        return f"{self.quantity.key}{self.sign}{self.quantity.show(self.bound)}"

    @property
    def sign(self) -> str:
        """`<=` or `>=`."""
        return "<=" if self.quantity.better == "lower" else ">="


@dataclass(frozen=True)
class Violation:
    """A limit that a record misses; `value` is `None` where the number is missing, and `why` says the cause."""

    limit: Limit
    value: float | None
    why: str

    def __str__(self) -> str:
        return self.why

    @property
    def miss(self) -> float:
        """By how much, as a share of the bound; infinite where the number is missing."""
        if self.value is None:
            return float("inf")
        return abs(self.value - self.limit.bound) / abs(self.limit.bound) if self.limit.bound else float("inf")


@dataclass(frozen=True)
class Budget:
    """A set of limits; without any, everything fits."""

    limits: tuple[Limit, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits)) or "no limit"

    def bound(self, key: str) -> float | None:
        """The limit on one quantity, if there is one."""
        return next((limit.bound for limit in self.limits if limit.quantity.key == key), None)

    def only(self, keys: Sequence[str]) -> "Budget":
        """The limits on these quantities alone."""
        return Budget(tuple(limit for limit in self.limits if limit.quantity.key in keys))

    def violations(self, record: Record) -> tuple[Violation, ...]:
        """The limits that the record misses; a number that was not measured misses its limit."""
        found = []
        for limit in self.limits:
            quantity = limit.quantity
            value = value_of(record, quantity.field)
            if value is None:
                cause = record.missing.get(quantity.field, "not measured")
                found.append(Violation(limit, None, f"{quantity.label} is unknown ({cause}); wanted {limit}"))
            elif quantity.cost(value) > quantity.cost(limit.bound):
                shown, bound = quantity.show(value), quantity.show(limit.bound)
                if shown == bound:  # they differ beyond the digits that are usually shown
                    shown, bound = quantity.exact(value), quantity.exact(limit.bound)
                found.append(Violation(limit, value, f"{quantity.label} is {shown}; wanted {limit.sign} {bound}"))
        return tuple(found)


def parse_budget(text: str) -> Budget:
    """`"latency_p90=10ms,size=4MB,accuracy>=0.9"` → limits. `=` means at most, or at least where higher is better.

    Raises:
        BudgetError: an unknown quantity, a unit it does not have, a limit the wrong way round, or one given twice.
    """
    limits: list[Limit] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"([A-Za-z0-9_]+)\s*(<=|>=|=|<|>)\s*(.+)", part)
        if match is None:
            raise BudgetError(f"cannot read {part!r} in the budget; wanted for example latency_p90=10ms,accuracy>=0.9")
        key, sign, value = match.groups()
        if key not in BY_KEY:
            raise BudgetError(f"unknown quantity {key!r} in the budget; known: {', '.join(BY_KEY)}")
        quantity = BY_KEY[key]
        if sign != "=" and sign[0] != ("<" if quantity.better == "lower" else ">"):
            raise BudgetError(f"{part!r} bounds {key} from the wrong side: {quantity.better} is better; wanted {key}=…")
        if any(limit.quantity.key == key for limit in limits):
            raise BudgetError(f"{key} stands twice in the budget; name each quantity once")
        bound = quantity.parse(value)
        if quantity.unit == "fraction" and bound > 1:
            raise BudgetError(f"{part!r}: {key} is a fraction from 0 to 1, or a percentage with %")
        limits.append(Limit(quantity, bound))
    if not limits:
        raise BudgetError("the budget is empty; wanted for example latency_p90=10ms,size=4MB,accuracy>=0.9")
    return Budget(tuple(limits))
