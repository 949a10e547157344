"""What is asked for, and what would go: plain data that prints as a table.

Imports errors and criteria.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from featherweight.errors import SettingError
from featherweight.prune.criteria import CRITERIA

QUANTITIES = ("channels", "macs", "parameters", "latency")
SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Target:
    """How far: the share, over 0 and at most 1, that may be left of a quantity.

    `channels` is the share that each group keeps (or, over the whole model, all groups together); the others are
    reached by as many channels as that takes. `latency` is measured, which `plan` must be given a function for.
    """

    quantity: str
    share: float

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise SettingError(f"unknown target {self.quantity!r}; known: {', '.join(QUANTITIES)}")
        if not 0 < self.share <= 1:
            raise SettingError(f"a share of {self.share:g} of the {self.quantity}; wanted over 0 and at most 1")

    @classmethod
    def read(cls, text: str) -> "Target":
        """`macs=0.5` → a target.

        Raises:
            SettingError: not of that form, an unknown quantity, or a share that is none.
        """
        quantity, _, share = text.partition("=")
        try:
            return cls(quantity.strip(), float(share))
        except ValueError:
            raise SettingError(f"target {text!r}; wanted a quantity and a share of it, such as macs=0.5") from None


@dataclass(frozen=True)
class PruneSettings:
    """How to choose. `scope`: every group keeps the same share (layer), or the weakest go wherever they are (global).

    `multiple_of`: so many channels a layer are kept at a time, as vector units and GEMM kernels like them. `least`: the
    share that every group keeps at least.
    """

    criterion: str = "l1"
    scope: str = "layer"
    multiple_of: int = 8
    least: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise SettingError(f"unknown criterion {self.criterion!r}; known: {', '.join(CRITERIA)}")
        if self.scope not in SCOPES:
            raise SettingError(f"unknown scope {self.scope!r}; known: {', '.join(SCOPES)}")
        if self.multiple_of < 1:
            raise SettingError(f"multiples of {self.multiple_of} channels; wanted 1 or more")
        if not 0 <= self.least <= 1:
            raise SettingError(f"at least a share of {self.least:g} of each group; wanted 0 to 1")
        if self.seed < 0:
            raise SettingError(f"seed {self.seed}; wanted 0 or more")


@dataclass(frozen=True)
class Group:
    """Channels that are made by the same layers and can be chosen among; each goes from all of the layers at once."""

    layers: tuple[str, ...]
    before: int  # channels of the first layer that belong to the group
    removed: tuple[int, ...]  # places among the first layer's outputs
    macs: tuple[int, int] | None  # of the layers, before and after
    least_us: tuple[float, float] | None  # by the machine's roofline, before and after

    @property
    def after(self) -> int:
        """How many of the first layer's channels stay."""
        return self.before - len(self.removed)


@dataclass(frozen=True)
class Plan:
    """What would go. Plain data: `as_dict` and `from_dict`, and what a user changes in `removed` is what is done."""

    model: str
    settings: PruneSettings
    target: Target
    groups: tuple[Group, ...]
    fixed: tuple[tuple[str, str], ...]  # layer → why its channels stay
    macs: tuple[int, int] | None
    parameters: tuple[int, int]
    least_us: tuple[float, float] | None = None

    @property
    def left(self) -> float:
        """The share of the target's quantity that stays; of a latency, which was measured, the share asked for."""
        channels = sum(group.before for group in self.groups), sum(group.after for group in self.groups)
        known = {"macs": self.macs, "parameters": self.parameters, "channels": channels}
        pair = known.get(self.target.quantity)
        return self.target.share if pair is None else pair[1] / pair[0]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """Back from `as_dict`, also after a way through JSON.

        Raises:
            SettingError: something else.
        """
        try:
            groups = tuple(
                Group(
                    tuple(group["layers"]),
                    int(group["before"]),
                    tuple(map(int, group["removed"])),
                    _pair(group["macs"]),
                    _pair(group["least_us"]),
                )
                for group in values["groups"]
            )
            return cls(
                str(values["model"]),
                PruneSettings(**values["settings"]),
                Target(**values["target"]),
                groups,
                tuple((str(layer), str(reason)) for layer, reason in values["fixed"]),
                _pair(values["macs"]),
                _pair(values["parameters"]),
                _pair(values["least_us"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(f"no plan: {error!r}; wanted what Plan.as_dict gives") from error

    def __str__(self) -> str:
        heads = ("group", "layers", "channels", "MACs", "predicted")
        rows = [(str(number), *_cells(group)) for number, group in enumerate(self.groups, 1)]
        rows.append(("all", self.model, "", _change(self.macs, _millions), _change(self.least_us, _milliseconds)))
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)
        ]
        lines.append(f"parameters {self.parameters[0]:,} → {self.parameters[1]:,}")
        lines += [f"{layer} stays: {reason}" for layer, reason in self.fixed]
        return "\n".join(line.rstrip() for line in lines)


def _pair(values: Sequence[Any] | None) -> Any:
    return None if values is None else tuple(values)


def _cells(group: Group) -> tuple[str, ...]:
    more = f" and {len(group.layers) - 1} more" if len(group.layers) > 1 else ""
    return (
        group.layers[0] + more,
        f"{group.before} → {group.after}",
        _change(group.macs, _millions),
        _change(group.least_us, _milliseconds),
    )


def _change(pair: tuple[Any, Any] | None, shown: Callable[[Any], str]) -> str:
    return "" if pair is None else f"{shown(pair[0])} → {shown(pair[1])}"


def _millions(macs: int) -> str:
    return f"{macs / 1e6:.2f} M"


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1e3:.3f} ms"
