"""Exact rewrites: `keras.Model` → a smaller `keras.Model` with equal outputs.

- A batch norm behind a convolution or a dense layer goes into its kernel and bias: at inference it is the affine map
  y = γ (x - μ) / √(σ² + ε) + β of each channel.
- Parallel linear branches from one tensor that are added (`blocks.branched`: MobileOne, RepVGG) go into one
  convolution: convolutions are linear, so that kernels of one place add up; a 1×1 kernel is a k×k kernel with zeros
  around, and the batch-normed input itself is a convolution with the identity. Ding et al. 2021, arXiv 2101.03697,
  §3.3.

The result is for inference: nothing is left to train batch statistics with. Imports artifact and rewrite; keras where
it is used.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.models.functional import functional
from featherweight.rewrite import (
    Array,
    Graph,
    Then,
    channels_last,
    is_depthwise,
    kernel_and_bias,
    models_inside,
    rebuilt,
)

if TYPE_CHECKING:
    import keras


def fold(model: "keras.Model") -> tuple["keras.Model", Step]:
    """Branches first, then the batch norms that are left; the step names what could not be folded, and why.

    Models inside of layers (`Block`, nested models) are left as they are, and named.

    Raises:
        SettingError: the model is no functional or sequential model of layers that are used once.
    """
    model, branches = fold_branches(model)
    model, norms = fold_batch_norm(model)
    settings = {"branches": branches.settings["folded"], "batch_norms": norms.settings["folded"]}
    inside = "a model inside of a layer is not looked into; fold it by itself"
    nested = [(name, inside) for name in models_inside(model)]
    return model, Step("fold", settings, (*branches.skipped, *norms.skipped, *nested))


def fold_batch_norm(model: "keras.Model") -> tuple["keras.Model", Step]:
    """Batch norms whose only input is a linear convolution or dense layer that feeds nothing else, into that layer.

    Raises:
        SettingError: as `fold`.
    """
    import keras

    model = functional(model)
    graph = Graph(model)
    folded: dict[str, list[Array]] = {}
    removed: set[str] = set()
    skipped: list[tuple[str, str]] = []
    for norm in (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)):
        layer = graph.maker(norm.input)
        reason = _why_not(layer, norm, graph)
        if reason:
            skipped.append((norm.name, reason))
            continue
        kernel, bias = kernel_and_bias(layer)
        before = layer.get_weights()[:1] if isinstance(layer, keras.layers.SeparableConv2D) else []
        folded[layer.name] = [*before, *_with_norm(kernel, bias, norm, is_depthwise(layer))]
        removed.add(norm.name)

    def changed(layer: "keras.Layer") -> "keras.Layer":
        settings = layer.get_config()
        if layer.name in folded:
            settings["use_bias"] = True
        return type(layer).from_config(settings)

    result = rebuilt(model, changed, {name: None for name in removed}, folded)
    return result, Step("fold_batch_norm", {"folded": len(removed)}, tuple(skipped))


def fold_branches(model: "keras.Model") -> tuple["keras.Model", Step]:
    """Additions of parallel linear branches from one tensor, into one convolution each.

    Raises:
        SettingError: as `fold`.
    """
    import keras

    model = functional(model)
    graph = Graph(model)
    replaced: dict[str, Any] = {}
    folded: dict[str, list[Array]] = {}
    skipped: list[tuple[str, str]] = []
    for add in (layer for layer in model.layers if isinstance(layer, keras.layers.Add)):
        branches = [_branch(tensor, graph) for tensor in add.input]
        if len({id(branch.source) for branch in branches}) > 1 or not any(branch.layers for branch in branches):
            continue  # an ordinary addition of two paths
        reason = _why_not_merge(branches)
        if reason:
            skipped.append((add.name, reason))
            continue
        replaced[add.name], folded[add.name] = _merged(branches, add.name)
        replaced |= {layer.name: None for branch in branches for layer in branch.layers}

    result = rebuilt(model, replaced=replaced, weights=folded)
    return result, Step("fold_branches", {"folded": len(folded)}, tuple(skipped))


# -------------------------------------------------------------------------------------------------- batch norm


def _why_not(layer: Any, norm: Any, graph: Graph) -> str:
    """Why a batch norm cannot go into the layer before it; empty if it can."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Dense)
    if type(layer) not in kinds:
        return f"behind {type(layer).__name__}, not behind a convolution or dense layer"
    if layer.activation is not keras.activations.linear:
        return f"{layer.name} has an activation between"
    if not _over_channels(norm) or not channels_last(layer):
        return "not over the last axis"
    return "" if graph.once(layer.output) else f"{layer.name} feeds other layers too"


def _over_channels(norm: Any) -> bool:
    """Whether it has its statistics for each number of the last axis, which convolutions have their filters on."""
    axes = norm.axis if isinstance(norm.axis, list | tuple) else [norm.axis]
    return [axis % len(norm.input.shape) for axis in axes] == [len(norm.input.shape) - 1]


def _scale_and_shift(norm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """γ / √(σ² + ε) and β - μ γ / √(σ² + ε), a channel each."""
    variance = np.asarray(norm.moving_variance, np.float64)
    scale = (np.asarray(norm.gamma, np.float64) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    beta = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    return scale, beta - np.asarray(norm.moving_mean, np.float64) * scale


def _with_norm(kernel: Array, bias: Array, norm: Any, depthwise: bool) -> tuple[Array, Array]:
    """norm(conv(x)) as one kernel and bias. Output channels are the last axis, or, depthwise, the last two."""
    scale, shift = _scale_and_shift(norm)
    by_channel = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return (kernel * by_channel).astype(np.float32), (bias * scale + shift).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- branches


@dataclass(frozen=True)
class _Branch:
    """What lies between a source and an addition: padding, convolution and batch norm, each of which may be absent."""

    source: Any
    output: Any
    pad: Any = None
    convolution: Any = None
    norm: Any = None

    @property
    def layers(self) -> list[Any]:
        return [layer for layer in (self.pad, self.convolution, self.norm) if layer is not None]

    @property
    def side(self) -> int:
        return 1 if self.convolution is None else int(self.convolution.kernel_size[0])


def _branch(tensor: Any, graph: Graph) -> _Branch:
    """Back from an input of the addition, as far as layers are linear and feed nothing else."""
    import keras

    norm = convolution = pad = None
    output, maker = tensor, graph.maker(tensor)
    if isinstance(maker, keras.layers.BatchNormalization) and graph.once(tensor) and _over_channels(maker):
        norm, tensor = maker, maker.input
        maker = graph.maker(tensor)
    is_convolution = type(maker) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    if is_convolution and graph.once(tensor) and maker.activation is keras.activations.linear:
        convolution, tensor = maker, maker.input
        maker = graph.maker(tensor)
        if isinstance(maker, keras.layers.ZeroPadding2D) and graph.once(tensor):
            pad, tensor = maker, maker.input
    return _Branch(tensor, output, pad, convolution, norm)


def _why_not_merge(branches: list[_Branch]) -> str:
    """Why branches from one tensor cannot be one convolution; empty if they can."""
    convolutions = [branch.convolution for branch in branches if branch.convolution is not None]
    if not convolutions:
        return "no convolution in any branch"
    if len({type(layer) for layer in convolutions}) > 1:
        return "a standard and a depthwise convolution side by side"
    if any(not is_depthwise(layer) and layer.groups > 1 for layer in convolutions):
        return "grouped convolutions"
    if any(tuple(layer.dilation_rate) != (1, 1) for layer in convolutions):
        return "dilated convolutions"
    if any(is_depthwise(layer) and layer.depth_multiplier > 1 for layer in convolutions):
        return "several filters a channel"
    if len({tuple(layer.strides) for layer in convolutions}) > 1:
        return "different strides"
    if len({tuple(branch.output.shape) for branch in branches}) > 1:
        return "outputs of different shapes"
    if any(layer.kernel_size[0] != layer.kernel_size[1] or layer.kernel_size[0] % 2 == 0 for layer in convolutions):
        return "a kernel that is not square with an odd side"
    off = next((branch for branch in branches if not _centred(branch)), None)
    return "" if off is None else f"{off.convolution.name} is not padded by half of its kernel on every side"


def _centred(branch: _Branch) -> bool:
    """Whether output place i looks at input places around i · strides: then kernels of several sizes add up."""
    layer, half = branch.convolution, branch.side // 2
    if branch.pad is not None:
        return bool(layer.padding == "valid" and branch.pad.padding == ((half, half), (half, half)))
    return half == 0 or bool(layer.padding == "same" and tuple(layer.strides) == (1, 1))


def _merged(branches: list[_Branch], name: str) -> tuple[Any, list[Array]]:
    """One convolution, with the padding inside where it can be, and its weights."""
    import keras

    first = next(branch.convolution for branch in branches if branch.convolution is not None)
    depthwise = is_depthwise(first)
    side = max(branch.side for branch in branches)
    parts = [_as_kernel(branch, side, depthwise) for branch in branches]
    kernel = sum((kernel for kernel, _ in parts), np.zeros_like(parts[0][0]))
    bias = sum((bias for _, bias in parts), np.zeros_like(parts[0][1]))
    plain = tuple(first.strides) == (1, 1) or side == 1
    padding = "same" if plain else "valid"
    settings = {"strides": first.strides, "padding": padding, "dtype": first.dtype_policy, "name": name}
    layer = (
        keras.layers.DepthwiseConv2D(side, **settings)
        if depthwise
        else keras.layers.Conv2D(first.filters, side, **settings)
    )
    if plain:
        return layer, [kernel, bias]
    pad = keras.layers.ZeroPadding2D(side // 2, name=f"{name}_pad")
    return Then(pad, layer), [kernel, bias]


def _as_kernel(branch: _Branch, side: int, depthwise: bool) -> tuple[Array, Array]:
    """The branch as a kernel of that side and a bias."""
    if branch.convolution is None:
        channels = branch.source.shape[-1]
        identity = np.ones((1, 1, channels, 1)) if depthwise else np.eye(channels)[None, None]
        kernel, bias = identity.astype(np.float32), np.zeros(channels, np.float32)
    else:
        kernel, bias = kernel_and_bias(branch.convolution)
    around = (side - kernel.shape[0]) // 2
    kernel = np.pad(kernel, ((around, around), (around, around), (0, 0), (0, 0)))
    return (kernel, bias) if branch.norm is None else _with_norm(kernel, bias, branch.norm, depthwise)
