"""Cross-layer equalization: weights that int8 can hold, in a model with equal outputs.

One scale for a whole kernel wastes its steps on channels whose weights are small. Where layers follow each other with
nothing between but functions with f(s x) = s f(x) for s > 0 (ReLU, pooling, zero padding), a channel can be divided by
s in the first and multiplied by s in the second. With r the greatest magnitude of a channel's weights in each of the
layers, the scales that make all of them equal, t = (r₁ r₂ … rₙ)^(1/n), are

    s₁ = r₁ / t,  s₂ = s₁ r₂ / t,  …        for which  r₁ / s₁ = s₁ r₂ / s₂ = … = t.

Two layers are the pair of Nagel et al. 2019, arXiv 1906.04721, §4.1 and appendix A; with depthwise convolutions between
there are three and more. A layer ends one chain and begins the next, so that the chains are gone through until nothing
moves. Kernels with a scale for each output channel (as our int8 files have them) gain by the second layer, whose inputs
become alike, and by the activations between, but less.

ReLU6 clips at one number for all channels: nothing passes it, unless it is taken for a ReLU, which changes outputs.

In scope: pairs and longer chains. Not aware of: quantization. Imports artifact, errors and rewrite; keras where it is
used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.functional import functional
from featherweight.rewrite import (
    Graph,
    channels_last,
    is_depthwise,
    kernel_and_bias,
    models_inside,
    rebuilt,
)

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float64]
RELU6 = ("keep", "relu")
SWEEPS = 50  # at most; a handful do for most networks
STILL = 1e-3  # a sweep that moves no channel by more is the last
NORM = "a batch norm is behind it; fold batch norms first"
CLIPS = 'ReLU6 is behind it, which scales do not pass; relu6="relu" takes a ReLU for it, with other outputs'


def equalize(model: "keras.Model", relu6: str = "keep") -> tuple["keras.Model", Step]:
    """Equal ranges of weights for each channel in all layers of a chain.

    The step has the number of chains and of sweeps, and the precision before and after: a channel's range as a share of
    its layer's, which is 1 where each channel uses all of int8 (Nagel et al., eq. 8), as the mean over the chains and
    their channels of the geometric mean over their layers. It names the layers that no chain begins with, and why.

    Args:
        model: functional or sequential, with folded batch norms; unchanged.
        relu6: "keep", or "relu" to take a ReLU for each ReLU6 inside of a chain: outputs are then those of another
            model where an activation was clipped.

    Raises:
        SettingError: no functional model of layers that are used once, or another word for `relu6`.
    """
    if relu6 not in RELU6:
        raise SettingError(f"relu6 {relu6!r}; wanted keep or relu")
    model = functional(model)
    links = {layer.name: link for layer, link in _links(model, Graph(model), relu6 == "relu")}
    chains = list(_chains(links))
    weights = {name: _Weights.of(model.get_layer(name)) for chain in chains for name in chain}
    before = _precision(chains, weights)
    sweeps = _until_still(chains, weights)
    clipped = sorted({name for chain in chains for at in chain[:-1] for name in links[at].clipped})
    result = rebuilt(model, lambda layer: _copied(layer, layer.name in clipped), weights=_as_lists(model, weights))
    inside = "a model inside of a layer is not looked into; lay it open first"
    skipped = [(name, link.reason) for name, link in links.items() if link.reason]
    settings = {
        "chains": len(chains),
        "sweeps": sweeps,
        "precision": [before, _precision(chains, weights)],
        "relu6": relu6,
        "relu6_taken_for_relu": clipped,
    }
    return result, Step("equalize", settings, (*skipped, *((name, inside) for name in models_inside(model))))


# ------------------------------------------------------------------------------------------------------ chains


@dataclass(frozen=True)
class _Link:
    """From a layer with weights to the next one, or the reason why scales do not reach it."""

    to: Any = None
    reason: str = ""
    clipped: tuple[str, ...] = ()  # the layers with a ReLU6 on the way

    @property
    def passes(self) -> bool:
        """Whether the next layer has one output for each input, so that its chain goes on."""
        return is_depthwise(self.to) and self.to.depth_multiplier == 1


def _links(model: "keras.Model", graph: Graph, through_relu6: bool) -> Iterator[tuple[Any, _Link]]:
    import keras

    for layer in model.layers:
        if type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense):
            yield layer, _link(layer, graph, through_relu6)


def _chains(links: Mapping[str, _Link]) -> Iterator[list[str]]:
    """Names of two layers or more. Depthwise convolutions that another layer leads to stand inside of a chain."""
    inside = {link.to.name for link in links.values() if link.to is not None and link.passes}
    for name, link in links.items():
        if name in inside or link.to is None:
            continue
        chain = [name, link.to.name]
        while links[chain[-2]].passes and links[chain[-1]].to is not None:
            chain.append(links[chain[-1]].to.name)
        yield chain


def _link(layer: Any, graph: Graph, through_relu6: bool) -> _Link:
    """Forth from a layer, as far as each operation lets scales pass and feeds one other alone."""
    if not channels_last(layer):
        return _Link(reason="its channels are not the last axis")
    at, clipped = layer, []
    while True:
        reason = _why_no_way(at, layer, through_relu6)
        if not reason and not graph.once(at.output):
            reason = f"{at.name} feeds several layers or is an output"
        if reason:
            return _Link(reason=reason)
        if _clips(at):
            clipped.append(at.name)
        at = graph.taker(at.output)
        if _has_weights(at):
            reason = _why_no_end(at)
            return _Link(reason=reason) if reason else _Link(at, clipped=tuple(clipped))


def _why_no_way(at: Any, start: Any, through_relu6: bool) -> str:
    """Why scales of the channels do not pass an operation (of the layer that they begin with: its activation)."""
    import keras

    if isinstance(at, keras.layers.BatchNormalization):
        return NORM
    if _clips(at):
        return "" if through_relu6 else CLIPS
    if at is start or isinstance(at, keras.layers.Activation):
        known = _is_homogeneous(at.activation)
        return "" if known else f"{_name_of(at.activation)} is behind it, which scales do not pass"
    if isinstance(at, keras.layers.ReLU):
        passes = at.max_value is None and at.threshold == 0
    else:
        passes = isinstance(at, _passing()) and channels_last(at)
    return "" if passes else f"{type(at).__name__} ({at.name}) is behind it, which scales do not pass"


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _is_homogeneous(function: Any) -> bool:
    """Whether f(s x) = s f(x) for s > 0."""
    import keras

    return function in (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


def _clips(at: Any) -> bool:
    """Whether it is a ReLU6, or ends in one."""
    import keras

    if isinstance(at, keras.layers.ReLU):
        return bool(at.max_value == 6 and at.threshold == 0 and not at.negative_slope)
    kinds = (keras.layers.Activation, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return isinstance(at, kinds) and at.activation is keras.activations.relu6


def _passing() -> tuple[type, ...]:
    """Layers that treat each channel by itself, with f(s x) = s f(x) for s > 0."""
    import keras

    known = keras.layers
    return (
        known.LeakyReLU, known.PReLU, known.MaxPooling2D, known.AveragePooling2D, known.GlobalMaxPooling2D,
        known.GlobalAveragePooling2D, known.ZeroPadding2D, known.Cropping2D, known.UpSampling2D, known.Dropout,
        known.SpatialDropout2D, known.Identity, known.Flatten,
    )  # fmt: skip


def _has_weights(at: Any) -> bool:
    import keras

    kinds = (
        keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense, keras.layers.SeparableConv2D,
        keras.layers.Conv2DTranspose,
    )  # fmt: skip
    return isinstance(at, kinds)


def _why_no_end(at: Any) -> str:
    """Why the next layer with weights cannot take the scales."""
    import keras

    if type(at) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense):
        return f"{type(at).__name__} ({at.name}) is behind it, whose weights are not looked into"
    if type(at) is keras.layers.Conv2D and at.groups > 1:
        return f"{at.name} behind it is a grouped convolution"
    return "" if channels_last(at) else f"the channels of {at.name} behind it are not the last axis"


# ----------------------------------------------------------------------------------------------------- numbers


@dataclass
class _Weights:
    """A kernel (…, in, out), depthwise (h, w, c, m), and a bias (outputs,); both change in place."""

    kernel: Array
    bias: Array
    depthwise: bool

    @classmethod
    def of(cls, layer: Any) -> "_Weights":
        kernel, bias = kernel_and_bias(layer)
        return cls(kernel.astype(np.float64), bias.astype(np.float64), is_depthwise(layer))

    def by_output(self) -> Array:
        """The kernel as a view (…, outputs)."""
        return self.kernel.reshape(-1, len(self.bias))

    def by_input(self, channels: int) -> Array:
        """The kernel as a view (places, channels, …); of a dense layer behind a flattened map too, whose inputs are the
        channels of each place in turn.
        """
        return self.kernel.reshape(-1, channels, self.kernel.shape[-1])


def _until_still(chains: Sequence[Sequence[str]], weights: Mapping[str, _Weights]) -> int:
    """Scale all chains in turn, in place; returns how often."""
    for sweep in range(1, SWEEPS + 1):
        if max((_scale([weights[name] for name in chain]) for chain in chains), default=0.0) < STILL:
            return sweep
    return SWEEPS


def _scale(chain: Sequence[_Weights]) -> float:
    """Make the ranges of a chain equal, in place; returns the greatest logarithm of a scale."""
    ranges = _ranges(chain)
    alive = np.all(ranges > 0, axis=0)  # a channel that is 0 in one layer has no range to be made equal
    logs = np.log(ranges, where=alive, out=np.zeros_like(ranges))
    scales = np.exp(np.cumsum(logs - logs.mean(axis=0), axis=0)[:-1])
    for first, second, scale in zip(chain, chain[1:], scales, strict=False):
        first.by_output()[...] /= scale
        first.bias /= scale
        second.by_input(len(scale))[...] *= scale[:, None]
    return float(np.abs(np.log(scales)).max())


def _ranges(chain: Sequence[_Weights]) -> Array:
    """The greatest magnitude of each channel's weights (layers, channels): where it comes out, and at the end where it
    comes in.
    """
    outputs = [np.abs(one.by_output()).max(axis=0) for one in chain[:-1]]
    return np.stack([*outputs, np.abs(chain[-1].by_input(len(outputs[0]))).max(axis=(0, 2))])


def _precision(chains: Sequence[Sequence[str]], weights: Mapping[str, _Weights]) -> float | None:
    """The share of its layer's range that a channel has: the geometric mean over the layers of its chain, the mean over
    the channels, and over the chains; `None` without a chain.
    """
    found = []
    for chain in chains:
        ranges = _ranges([weights[name] for name in chain])
        shares = ranges / np.maximum(ranges.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        found.append(float(np.mean(np.prod(shares, axis=0) ** (1 / len(chain)))))
    return round(sum(found) / len(found), 4) if found else None


def _as_lists(model: "keras.Model", weights: Mapping[str, _Weights]) -> dict[str, list[Array]]:
    """As Keras' layers take them."""
    return {
        name: [found.kernel, found.bias] if model.get_layer(name).use_bias else [found.kernel]
        for name, found in weights.items()
    }


def _copied(layer: "keras.Layer", without_clip: bool) -> "keras.Layer":
    """The same layer, a ReLU for its ReLU6 where that is asked for."""
    import keras

    change = {"max_value": None} if isinstance(layer, keras.layers.ReLU) else {"activation": "relu"}
    return type(layer).from_config({**layer.get_config(), **(change if without_clip else {})})
