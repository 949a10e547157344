"""A standard convolution → a depthwise and a pointwise one, fitted to its outputs on pictures.

k²·c·f products at a place become m·(k²·c + c·f), with m depthwise filters for each channel. The two layers together are
a convolution with the kernel Ŵ[t, c, f] = Σⱼ D[t, c, j] P[c, j, f] (t: place under the window, j: 1 … m), of rank m in
each input channel. With patches x of pictures and the outputs y that the trained layer gave, both without their means,
the mean squared error is

    tr (Ŵᵀ G Ŵ - 2 Ŵᵀ Q) + tr E y yᵀ        G = E x xᵀ,  Q = E x yᵀ,

which is least squares in P for a given D, and in D for a given P: the two are solved in turn, from the best rank m of W
itself (singular values, channel by channel; that is the answer where inputs are equal and independent). Jaderberg et
al. 2014, arXiv 1405.3866, fit separable filters to outputs in this way. Layers are taken in the model's order, each
with the patches that the layers before it give by now.

A trained 3×3 kernel is not of rank 1, so that a model with separated layers wants to be trained on; it begins nearer to
the trained one than from new weights. In scope: which weights. Not aware of: training. Imports artifact, errors,
moments and rewrite; keras where it is used.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.functional import functional
from featherweight.moments import MOST_INPUTS, Regression, check_pictures, regression
from featherweight.rewrite import (
    Graph,
    Then,
    channels_last,
    check_names,
    free_name,
    kernel_and_bias,
    models_inside,
    rebuilt,
)

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float64]
FEW = 4  # channels or fewer are those of a picture: so few depthwise maps cannot stand for dozens of filters
HELD = 5  # every fifth picture is not fitted to: the error is measured on it
STILL = 1e-3  # a sweep that improves the fit by less, as a share of the error, is the last
STEADY = 1e-6  # of the mean of a diagonal, added to it: what the data do not settle stays as it was


@dataclass(frozen=True)
class SeparateSettings:
    """How to fit. `max_error` is how much more of the variance of its outputs (0–1) a layer may miss than it would if
    it were left alone, which misses what the layers before it have lost.
    """

    multiplier: int = 1  # depthwise filters for each channel
    max_error: float = 0.5
    places: int = 64  # of each picture and layer
    sweeps: int = 20  # at most
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.multiplier, self.places, self.sweeps) < 1:
            raise SettingError(f"multiplier {self.multiplier}, places {self.places}, sweeps {self.sweeps}; wanted >= 1")
        if not 0 < self.max_error <= 1:
            raise SettingError(f"error of at most {self.max_error:g}; wanted a share over 0, at most 1")


def separate(
    model: "keras.Model",
    pictures: NDArray[Any],
    layers: Sequence[str] | None = None,
    settings: SeparateSettings | None = None,
) -> tuple["keras.Model", Step]:
    """Depthwise and pointwise layers for standard convolutions.

    The first, NAME_depthwise, has no bias and no activation; the second keeps the layer's name and activation and has a
    bias. The step has the error of each layer: the share of the variance of the trained layer's outputs that is missed,
    on pictures that were not fitted to. It names the layers left alone, with the reason.

    Args:
        model: functional or sequential; unchanged.
        pictures: (n, h, w, c) as the model takes them, two or more; a few dozen do.
        layers: names of the only ones to look at; by default all standard convolutions.
        settings: how.

    Raises:
        SettingError: no functional model of layers that are used once, an unknown name, or pictures of another size.
    """
    settings = settings or SeparateSettings()
    model = functional(model)
    Graph(model)  # refuses a layer that is used twice
    check_names(model, layers or ())
    check_pictures(model, pictures)
    reasons = _reasons(model, layers, settings.multiplier)
    small, errors = rebuilt(model), {}
    for name in [name for name, reason in reasons.items() if not reason]:
        layer = model.get_layer(name)
        fit = _fitted(layer, _tasks(small, model, name, pictures, settings), settings)
        reasons[name] = _why_not_so(fit, settings.max_error)
        if fit is not None and not reasons[name]:
            errors[name] = round(fit.missed, 4)
            pair, weights = _in_two(layer, fit, free_name(small, f"{name}_depthwise"))
            small = rebuilt(small, replaced={name: pair}, weights=weights)
    done = {**asdict(settings), "pictures": len(pictures), "errors": errors}
    return small, Step("separate", done, tuple((name, reason) for name, reason in reasons.items() if reason))


# -------------------------------------------------------------------------------------------------- which layers


def _reasons(model: "keras.Model", only: Sequence[str] | None, multiplier: int) -> dict[str, str]:
    """The layers to look at, each with the reason why it is left alone; empty if it is not."""
    inside = "a model inside of a layer is not looked into; lay it open first"
    asked = [layer for layer in model.layers if (_is_wide(layer) if only is None else layer.name in only)]
    found = {layer.name: _why_not(layer, multiplier) for layer in asked}
    return found | {name: inside for name in models_inside(model) if only is None or name in only}


def _is_wide(layer: Any) -> bool:
    """Whether it is a convolution with a window of more than one place."""
    import keras

    return isinstance(layer, keras.layers.Conv2D) and tuple(layer.kernel_size) != (1, 1)


def _why_not(layer: Any, multiplier: int) -> str:
    import keras

    if not isinstance(layer, keras.layers.Conv2D):
        return "no standard convolution"
    if not _is_wide(layer):
        return "a 1×1 convolution: it filters nothing"
    if type(layer) is not keras.layers.Conv2D:
        return f"{type(layer).__name__} may do more than Keras' own layer"
    if layer.groups > 1:
        return "a grouped convolution"
    if tuple(layer.dilation_rate) != (1, 1):
        return "a dilated convolution"
    if layer.strides[0] != layer.strides[1]:
        return "different strides down and across, which depthwise convolutions do not have"
    if not channels_last(layer):
        return "its channels are not the last axis"
    *window, channels, filters = layer.kernel.shape
    if channels <= FEW:
        return f"{channels} channels: so few depthwise maps cannot stand for {filters} filters"
    before, after = window[0] * window[1] * filters, multiplier * (window[0] * window[1] + filters)
    if after >= before:
        return f"takes {before} MACs for a channel and place, the two layers {after}"
    inputs = window[0] * window[1] * channels
    return f"{inputs} inputs are too many to be fitted on pictures" if inputs > MOST_INPUTS else ""


# ------------------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True)
class _Fit:
    """D (h, w, c, m), P (1, 1, c·m, f) and bias (f,); the shares of the outputs' variance that they miss, and that the
    layer left alone misses.
    """

    depthwise: Array
    pointwise: Array
    bias: Array
    missed: float
    missed_alone: float


def _tasks(
    small: "keras.Model", model: "keras.Model", name: str, pictures: NDArray[Any], settings: SeparateSettings
) -> tuple[Regression, Regression]:
    """What to fit to, and what to measure the error on."""
    held = np.arange(len(pictures)) % HELD == 0
    parts = (pictures[~held], pictures[held])
    task, test = (regression(small, model, name, some, settings.places, settings.seed) for some in parts)
    return task, test


def _fitted(layer: Any, tasks: tuple[Regression, Regression], settings: SeparateSettings) -> _Fit | None:
    """`None` where nothing varies that could be fitted to."""
    task, test = tasks
    if not min(task.variance, test.variance) > 0:
        return None
    kernel, bias = (array.astype(np.float64) for array in kernel_and_bias(layer))
    *window, channels, filters = kernel.shape
    weights = kernel.reshape(-1, filters)
    start = _nearest(kernel.reshape(-1, channels, filters), settings.multiplier)
    d, p = _alternate(task.steadied(weights), *start, settings.sweeps)
    new = np.einsum("tcm,cmf->tcf", d, p).reshape(weights.shape)
    shift = task.outputs - task.inputs @ new
    return _Fit(
        d.reshape(*window, channels, -1),
        p.reshape(1, 1, -1, filters),
        bias + shift,
        test.missed(new, shift),
        test.missed(weights, np.zeros(filters)),
    )


def _why_not_so(fit: _Fit | None, most: float) -> str:
    """Why a fit is not taken; empty if it is."""
    if fit is None:
        return "its outputs do not vary"
    more = fit.missed - fit.missed_alone
    return (
        "" if more <= most else f"{more:.0%} more of its outputs' variance would be missed; wanted at most {most:.0%}"
    )


def _nearest(kernel: Array, multiplier: int) -> tuple[Array, Array]:
    """D (t, c, m) and P (c, m, f) nearest to a kernel (t, c, f): each channel's greatest singular values."""
    u, s, v = np.linalg.svd(kernel.transpose(1, 0, 2), full_matrices=False)
    root = np.sqrt(s[:, None, :multiplier])
    return (u[:, :, :multiplier] * root).transpose(1, 0, 2), v[:, :multiplier] * root.transpose(0, 2, 1)


def _alternate(task: Regression, d: Array, p: Array, sweeps: int) -> tuple[Array, Array]:
    """Better D (t, c, m) and P (c, m, f), in turn."""
    places, channels, _ = d.shape
    spread = task.spread.reshape(places, channels, places, channels)
    products = task.products.reshape(places, channels, -1)
    error = float(np.finfo(np.float64).max)
    for _ in range(sweeps):
        p, less = _solve_pointwise(spread, products, d, p)
        d = _solve_depthwise(spread, products, d, p)
        if error - (task.variance + less) < STILL * error:
            break
        error = task.variance + less
    return d, p


def _solve_pointwise(spread: Array, products: Array, d: Array, p: Array) -> tuple[Array, float]:
    """The best P for D, and tr Ŵᵀ (G Ŵ - 2 Q), which is the error but for the variance of y."""
    channels, multiplier, filters = p.shape
    half = np.einsum("tcuv,tcm->cmuv", spread, d)
    normal = np.einsum("cmuv,uvn->cmvn", half, d).reshape(channels * multiplier, -1)
    right = np.einsum("tcm,tcf->cmf", d, products).reshape(-1, filters)
    found = _solved(normal, right, p.reshape(-1, filters))
    return found.reshape(p.shape), float(np.sum(found * (normal @ found - 2 * right)))


def _solve_depthwise(spread: Array, products: Array, d: Array, p: Array) -> Array:
    """The best D for P."""
    flat = p.reshape(-1, p.shape[-1])
    alike = (flat @ flat.T).reshape(*p.shape[:2], *p.shape[:2])
    normal = np.einsum("tcuv,cmvn->tcmuvn", spread, alike).reshape(d.size, d.size)
    right = np.einsum("tcf,cmf->tcm", products, p).reshape(-1)
    return _solved(normal, right, d.reshape(-1)).reshape(d.shape)


def _solved(normal: Array, right: Array, before: Array) -> Array:
    """Of normal · x = right the solution that stays near to `before` where the equations do not settle it."""
    steady = STEADY * np.trace(normal) / len(normal) or 1.0
    return np.linalg.solve(normal + steady * np.eye(len(normal)), right + steady * before)


def _in_two(layer: Any, fit: _Fit, name: str) -> tuple[Then, dict[str, list[Array]]]:
    """What stands in the layer's place, and its weights."""
    import keras

    first = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        depth_multiplier=fit.depthwise.shape[-1],
        data_format="channels_last",
        use_bias=False,
        name=name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )
    changes = {"kernel_size": (1, 1), "strides": (1, 1), "padding": "valid", "use_bias": True}
    second = keras.layers.Conv2D.from_config({**layer.get_config(), **changes})
    return Then(first, second), {name: [fit.depthwise], layer.name: [fit.pointwise, fit.bias]}
