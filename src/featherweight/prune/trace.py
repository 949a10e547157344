"""Which channels are the same channel: the numbers of a graph's channels, followed from layer to layer.

Every convolution and dense layer makes channels, one number each. What follows passes the numbers on, ties some
together (addition), sets them side by side (concatenation) or orders them anew (shuffle). In the end each number stands
for all the places that must go together: rows and columns of kernels, entries of batch norms.

The labels of a tensor are an array of numbers with its rank (without the batch), of size 1 along every axis on which
they do not change: (1, 1, c) for an ordinary feature map.

Fang et al. 2023, arXiv 2301.12900, find the same groups from gradients; here they follow from the layers' meaning.

Imports models.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Size = int | None
Place = tuple[str, int, int]  # layer, number of the weight, axis


@dataclass(frozen=True)
class Use:
    """The channels along one axis of one weight, one for each entry.

    `makes`: outputs of a kernel that mixes its inputs. `takes`: inputs of such a kernel. `follows`: one channel each.
    """

    layer: str
    weight: int
    name: str  # the weight's, as Keras calls it: kernel, bias, gamma …
    axis: int
    channels: Labels
    role: Literal["makes", "takes", "follows"]


@dataclass(frozen=True)
class Kept:
    """Which channels stay: one truth value for each number."""

    mask: NDArray[np.bool_]

    def count(self, channels: Labels) -> int:
        """How many of them stay."""
        return int(np.count_nonzero(self.mask[channels]))

    def sizes(self, labels: Labels, shape: Sequence[Size]) -> tuple[Size, ...]:
        """The shape that is left of a tensor with these labels, in which the channels that stay are a grid."""
        mask = self.mask[labels]
        return tuple(
            size if labels.shape[axis] == 1 else int(np.count_nonzero(_along(mask, axis)))
            for axis, size in enumerate(shape)
        )


def _along(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    return np.asarray(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))


Change = Callable[[Kept], Mapping[str, Any]]


@dataclass
class Trace:
    """What is known of a graph's channels."""

    parents: list[int] = field(default_factory=list)
    found: Labels | None = None  # the root of each channel, until another is tied
    fixed: list[tuple[Labels, str]] = field(default_factory=list)
    uses: dict[Place, Use] = field(default_factory=dict)
    # (layer, weight) of each kernel → how often one picture goes through it; `None` where a map's size is open
    places: dict[tuple[str, int], Size] = field(default_factory=dict)
    shapes: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    settings: dict[str, Change] = field(default_factory=dict)  # of layers, that change with their channels
    arguments: dict[str, Callable[[Kept], tuple[Any, ...]]] = field(default_factory=dict)  # of calls, but the tensor

    def new(self, count: int) -> Labels:
        """So many new channels, (count,)."""
        self.found, start = None, len(self.parents)
        self.parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def tie(self, first: Labels, *others: Labels) -> Labels:
        """Make channels at the same place one, the shapes broadcast; returns the first's, broadcast."""
        self.found = None
        whole = np.broadcast_shapes(first.shape, *(other.shape for other in others))
        first = np.broadcast_to(first, whole)
        for other in others:
            for a, b in zip(first.ravel().tolist(), np.broadcast_to(other, whole).ravel().tolist(), strict=True):
                self.parents[self._root(b)] = self._root(a)
        return first

    def tie_to_grid(self, labels: Labels) -> Labels:
        """Tie channels so that those that stay are always a grid: freedom is left along the longest axis."""
        varying = [axis for axis, size in enumerate(labels.shape) if size > 1]
        if len(varying) > 1:
            free = max(varying, key=lambda axis: labels.shape[axis])
            lines = np.moveaxis(labels, free, -1).reshape(-1, labels.shape[free])
            self.tie(lines[0], *lines[1:])
        return labels

    def fix(self, labels: Labels, reason: str) -> Labels:
        """These channels must stay."""
        self.fixed.append((labels.ravel(), reason))
        return labels

    def roots(self, channels: Labels) -> Labels:
        """One number for all that is tied together."""
        if self.found is None:
            self.found = np.array(self.parents, np.int64)
            while not np.array_equal(further := self.found[self.found], self.found):
                self.found = further
        return np.asarray(self.found[channels])

    def reasons(self) -> dict[int, str]:
        """Root → why it must stay; the first reason counts."""
        found: dict[int, str] = {}
        for channels, reason in self.fixed:
            for root in self.roots(channels).tolist():
                found.setdefault(root, reason)
        return found

    def kept(self, roots: Labels) -> Kept:
        """All but what belongs to these roots."""
        gone = np.zeros(len(self.parents), bool)
        gone[roots] = True
        return Kept(~gone[self.roots(np.arange(len(self.parents)))])

    def use(self, use: Use) -> Labels:
        """Note it. A layer that is called again has the channels of its first call: both are tied."""
        known = self.uses.setdefault((use.layer, use.weight, use.axis), use)
        if known is not use:
            self.tie(known.channels, use.channels)
        return known.channels

    def sizes(self, kept: Kept) -> dict[tuple[str, int], list[int]]:
        """The shape of every weight when these channels stay."""
        found = {key: list(shape) for key, shape in self.shapes.items()}
        for (layer, weight, axis), use in self.uses.items():
            found[layer, weight][axis] = kept.count(use.channels)
        return found

    def macs(self, kept: Kept) -> dict[str, int] | None:
        """Multiply-accumulates of every layer with a kernel; `None` where a map's size is open."""
        sizes, found = self.sizes(kept), dict.fromkeys((layer for layer, _ in self.places), 0)
        for key, places in self.places.items():
            if places is None:
                return None
            found[key[0]] += places * math.prod(sizes[key])
        return found

    def parameters(self, kept: Kept) -> int:
        """Entries of all weights."""
        return sum(math.prod(shape) for shape in self.sizes(kept).values())

    def _root(self, channel: int) -> int:
        parents = self.parents
        while parents[channel] != channel:
            parents[channel] = parents[parents[channel]]
            channel = parents[channel]
        return channel


def compressed(labels: Labels) -> Labels:
    """Size 1 along every axis on which the labels do not change."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis)
        if np.array_equal(np.broadcast_to(first, labels.shape), labels):
            labels = first
    return labels
