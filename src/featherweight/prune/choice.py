"""Which channels go: groups of channels that can be chosen among, the least important of each, as far as the target.

Imports analyze, errors, models, criteria, plan, rules, slicing and trace.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.analyze.costs import analyze_graph
from featherweight.analyze.folding import folded
from featherweight.analyze.keras_reader import read_keras
from featherweight.analyze.roofline import Machine, roofline
from featherweight.errors import SettingError
from featherweight.models.functional import flat
from featherweight.prune.criteria import Array, Pictures, importance
from featherweight.prune.plan import Group, Plan, PruneSettings, Target
from featherweight.prune.rules import trace
from featherweight.prune.slicing import sliced
from featherweight.prune.trace import Kept, Labels, Trace, Use

if TYPE_CHECKING:
    import keras

ROUNDS = 30  # of halving the interval of what is kept; a measured latency is not worth more than
TIMED_ROUNDS = 6


@dataclass(frozen=True)
class Candidates:
    """One group before the choice, its scores of mean 1: `roots` and `scores` are (n,)."""

    makers: tuple[Use, ...]
    roots: Labels
    entries: int  # how many channels of a layer go with one root
    scores: Array

    def step(self, multiple_of: int) -> int:
        """So many roots are a multiple of so many channels."""
        return multiple_of // math.gcd(multiple_of, self.entries)

    def stay(self, wanted: float, settings: PruneSettings) -> int:
        """The number of roots nearest to `wanted` that the settings allow."""
        step, count = self.step(settings.multiple_of), len(self.roots)
        least = max(1, math.ceil(settings.least * count))
        if wanted >= count:  # which need not be a multiple
            return count
        return min(count, max(math.ceil(least / step), round(wanted / step)) * step)

    def gone(self, stay: int) -> Labels:
        """The roots that matter least."""
        return self.roots[np.argsort(self.scores, kind="stable")[: len(self.roots) - stay]]


Timed = Callable[["keras.Model"], float]
Costs = Mapping[str, float]  # by layer


def plan(
    model: "keras.Model",
    target: Target,
    settings: PruneSettings | None = None,
    *,
    pictures: Pictures | None = None,
    machine: Machine | None = None,
    timed: Timed | None = None,
) -> Plan:
    """Choose the channels that matter least, as many as the target takes. The model is unchanged.

    Args:
        model: functional or sequential; nested models are looked into.
        target: what may be left.
        settings: criterion, scope and rounding.
        pictures: for the criterion taylor.
        machine: for the predicted times (`analyze.roofline.this_machine`).
        timed: for a target of latency: the time of a model on this device, in any unit.

    Raises:
        SettingError: no channel can go; the target is out of reach, or wants a function or pictures that are missing;
            the model has no graph.
    """
    settings = settings or PruneSettings()
    model = flat(model)
    traced = trace(model)
    groups, fixed = _candidates(model, traced, settings, pictures)
    if not groups:
        raise SettingError(f"{model.name} has no channels that can go: {_first(fixed)}; wanted a layer between others")
    stay = _chosen(model, traced, groups, target, settings, timed)
    return _plan(model, traced, groups, stay, fixed, target, settings, machine)


def plan_like(
    model: "keras.Model",
    smaller: "keras.Model",
    settings: PruneSettings | None = None,
    *,
    pictures: Pictures | None = None,
    machine: Machine | None = None,
) -> Plan:
    """As many channels as a narrower model of the same layers has: a width multiplier that keeps the best channels.

    Args:
        model: as `plan`'s.
        smaller: the same network with fewer channels, layer by layer of the same name; its weights do not matter.
        settings: criterion and seed count.
        pictures: as `plan`'s.
        machine: as `plan`'s.

    Raises:
        SettingError: a layer is missing or wider, or the widths cannot be reached by groups that go together.
    """
    settings = settings or PruneSettings()
    model, smaller = flat(model), flat(smaller)
    traced = trace(model)
    groups, fixed = _candidates(model, traced, settings, pictures)
    stay = _like(traced, groups, smaller)
    kept = traced.kept(_gone(groups, stay))
    now, before = traced.parameters(kept), traced.parameters(_all(traced))
    target = Target("parameters", now / before)
    return _plan(model, traced, groups, stay, fixed, target, settings, machine)


# ------------------------------------------------------------------------------------------------------- groups


def _candidates(
    model: "keras.Model", traced: Trace, settings: PruneSettings, pictures: Pictures | None
) -> tuple[list[Candidates], list[tuple[str, str]]]:
    """Groups in the order of the graph, and layers whose channels stay with the reason."""
    scores = importance(model, traced, settings.criterion, pictures, settings.seed)
    reasons = traced.reasons()
    members: dict[int, list[Use]] = {}
    entries: dict[int, int] = {}
    for use in (use for use in traced.uses.values() if use.role == "makes"):
        roots, counts = np.unique(traced.roots(use.channels), return_counts=True)
        for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
            members.setdefault(root, []).append(use)
            entries[root] = max(count, entries.get(root, 0))
    by_makers: dict[tuple[tuple[str, int], ...], list[int]] = {}
    fixed: dict[str, str] = {}
    for root, makers in members.items():
        reason = reasons.get(root) or (f"{settings.criterion} sees none of them" if np.isnan(scores[root]) else None)
        if reason:
            fixed.setdefault(makers[0].layer, reason)
        else:
            by_makers.setdefault(tuple((use.layer, use.weight) for use in makers), []).append(root)
    groups = []
    for found in by_makers.values():
        chosen = scores[found]
        mean = max(float(chosen.mean()), np.finfo(float).tiny)
        groups.append(Candidates(tuple(members[found[0]]), np.array(found), entries[found[0]], chosen / mean))
    return groups, list(fixed.items())


def _first(fixed: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{layer}: {reason}" for layer, reason in fixed[:3]) or "no convolution and no dense layer"


def _all(traced: Trace) -> Kept:
    return traced.kept(np.zeros(0, np.int64))


def _gone(groups: Sequence[Candidates], stay: Sequence[int]) -> Labels:
    parts = [group.gone(count) for group, count in zip(groups, stay, strict=True)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


# -------------------------------------------------------------------------------------------------- how many stay


def _chosen(
    model: "keras.Model",
    traced: Trace,
    groups: Sequence[Candidates],
    target: Target,
    settings: PruneSettings,
    timed: Timed | None,
) -> list[int]:
    """How many roots of each group stay."""
    wanted = _by_layer(groups, settings) if settings.scope == "layer" else _by_score(groups, settings)
    if target.quantity == "channels":
        return wanted(target.share)
    share = _share(model, traced, groups, target, timed)
    if share(wanted(1.0)) <= target.share:
        return wanted(1.0)
    low, high = 0.0, 1.0
    least = share(wanted(low))
    if least > target.share:
        raise SettingError(
            f"{target.quantity} {target.share:g} of {model.name}; at least {least:.3f} of them stay with multiples of "
            f"{settings.multiple_of} channels and {settings.least:g} of each group; allow fewer, or ask for less"
        )
    for _ in range(TIMED_ROUNDS if target.quantity == "latency" else ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(wanted(middle)) <= target.share else (low, middle)
    stay = wanted(low)
    return stay if target.quantity == "latency" else _filled_up(groups, stay, wanted(high), share, target.share)


def _by_layer(groups: Sequence[Candidates], settings: PruneSettings) -> Callable[[float], list[int]]:
    """The same share of each group."""
    return lambda share: [group.stay(share * len(group.roots), settings) for group in groups]


def _by_score(groups: Sequence[Candidates], settings: PruneSettings) -> Callable[[float], list[int]]:
    """So large a share of all, wherever they are."""
    scores = np.sort(np.concatenate([group.scores for group in groups]))[::-1]

    def wanted(share: float) -> list[int]:
        count = round(share * len(scores))
        limit = scores[count - 1] if count else np.inf
        return [group.stay(int(np.count_nonzero(group.scores >= limit)), settings) for group in groups]

    return wanted


def _share(
    model: "keras.Model", traced: Trace, groups: Sequence[Candidates], target: Target, timed: Timed | None
) -> Callable[[Sequence[int]], float]:
    """What is left of the quantity when so many stay."""
    whole = _all(traced)
    if target.quantity == "latency":
        if timed is None:
            raise SettingError("a target of latency is measured; wanted a function `timed`, or a target of macs")
        before = timed(model)
        return lambda stay: timed(sliced(model, traced, traced.kept(_gone(groups, stay)))) / before
    if target.quantity == "parameters":
        parameters = traced.parameters(whole)
        return lambda stay: traced.parameters(traced.kept(_gone(groups, stay))) / parameters
    macs = _total_macs(traced, whole)
    if macs is None:
        raise SettingError(f"{model.name} leaves its input size open; wanted a fixed one, or a target of parameters")
    return lambda stay: (_total_macs(traced, traced.kept(_gone(groups, stay))) or 0) / macs


def _total_macs(traced: Trace, kept: Kept) -> int | None:
    macs = traced.macs(kept)
    return None if macs is None else sum(macs.values())


def _filled_up(
    groups: Sequence[Candidates],
    stay: list[int],
    more: Sequence[int],
    share: Callable[[Sequence[int]], float],
    target: float,
) -> list[int]:
    """Rounding makes groups jump together; those whose next channels matter most jump first, while there is room."""
    jumps = [place for place, (few, many) in enumerate(zip(stay, more, strict=True)) if many > few]
    worth = {place: np.sort(groups[place].scores)[::-1][stay[place] : more[place]].mean() for place in jumps}
    for place in sorted(jumps, key=lambda place: worth[place], reverse=True):
        tried = [*stay[:place], more[place], *stay[place + 1 :]]
        stay = tried if share(tried) <= target else stay
    return stay


def _like(traced: Trace, groups: Sequence[Candidates], smaller: "keras.Model") -> list[int]:
    """A layer that is made of several groups tells of one when the others are known."""
    kernels = {layer.name: layer for layer in smaller.layers}
    stay: dict[int, int] = {}
    makers = [use for use in traced.uses.values() if use.role == "makes"]
    open_uses = makers
    while open_uses:
        left = [use for use in open_uses if not _told(use, traced, groups, kernels, stay)]
        if len(left) == len(open_uses):
            raise SettingError(
                f"the channels of {left[0].layer} are of several groups; wanted a width for each of them"
            )
        open_uses = left
    return [stay[number] for number in range(len(groups))]


def _told(
    use: Use, traced: Trace, groups: Sequence[Candidates], kernels: "dict[str, keras.Layer]", stay: dict[int, int]
) -> bool:
    """Whether the layer's width told how many of a group stay, or had nothing left to tell."""
    inside = [number for number, group in enumerate(groups) if use in group.makers]
    unknown = [number for number in inside if number not in stay]
    if len(unknown) > 1:
        return False
    if use.layer not in kernels or len(kernels[use.layer].weights) <= use.weight:
        raise SettingError(f"the narrower model has no layer {use.layer}; wanted the same layers")
    width = int(kernels[use.layer].weights[use.weight].shape[use.axis])
    roots, counts = np.unique(traced.roots(use.channels), return_counts=True)
    entries = dict(zip(roots.tolist(), counts.tolist(), strict=True))
    candidates = {root for number in inside for root in groups[number].roots.tolist()}
    rest = sum(count for root, count in entries.items() if root not in candidates)
    rest += sum(stay[number] * entries[int(groups[number].roots[0])] for number in inside if number in stay)
    if unknown:
        group = groups[unknown[0]]
        each = entries[int(group.roots[0])]
        stay[unknown[0]] = (width - rest) // each
        rest += stay[unknown[0]] * each
        if not 0 < stay[unknown[0]] <= len(group.roots):
            rest = -1
    if rest != width:
        raise SettingError(f"{use.layer} cannot have {width} of its {len(use.channels)} channels beside the others")
    return True


# ------------------------------------------------------------------------------------------------------ the plan


def _plan(
    model: "keras.Model",
    traced: Trace,
    groups: Sequence[Candidates],
    stay: Sequence[int],
    fixed: Sequence[tuple[str, str]],
    target: Target,
    settings: PruneSettings,
    machine: Machine | None,
) -> Plan:
    whole, kept = _all(traced), traced.kept(_gone(groups, stay))
    macs: tuple[Costs | None, Costs | None] = (traced.macs(whole), traced.macs(kept))
    least: tuple[Costs | None, Costs | None] = (None, None)
    if machine is not None:
        least = (_least_us(model, machine), _least_us(sliced(model, traced, kept), machine))
    rows = []
    for group in groups:
        first = group.makers[0].channels
        own = np.isin(traced.roots(first), group.roots)
        layers = tuple(dict.fromkeys(use.layer for use in group.makers))
        removed = np.flatnonzero(own & ~kept.mask[first])
        costs = _both(*macs, layers), _both(*least, layers)
        rows.append(Group(layers, int(own.sum()), tuple(removed.tolist()), *costs))
    return Plan(
        model.name,
        settings,
        target,
        tuple(rows),
        tuple(fixed),
        _both(*macs, None),
        (traced.parameters(whole), traced.parameters(kept)),
        _both(*least, None),
    )


def _least_us(model: "keras.Model", machine: Machine) -> dict[str, float]:
    """Layer → microseconds at least, in the form in which it is exported: with batch norms folded."""
    analysis = analyze_graph(folded(read_keras(model)))
    timed = roofline(analysis, machine)
    found: dict[str, float] = {}
    for row in analysis.rows:
        found[row.layer] = found.get(row.layer, 0.0) + timed.rows[row.name].least_us
    return found


def _both(before: Costs | None, after: Costs | None, layers: Sequence[str] | None) -> Any:
    """The layers' costs before and after, by default those of all layers; a layer without any costs nothing."""
    if before is None or after is None:
        return None
    return tuple(sum(costs.get(layer, 0) for layer in layers or costs) for costs in (before, after))
