"""Low rank: a 1×1 convolution or a dense layer → two thinner ones, of fewer MACs.

W (c, f) ≈ U V, with U (c, r) and V (r, f), costs r·(c + f) products at a place instead of c·f; it pays where
r < c·f / (c + f). Of all U V of rank r the truncated singular value decomposition is nearest to W: Denton et al. 2014,
arXiv 1404.0736. What counts are the outputs, though. With pictures at hand, the nearest to the outputs y = x·W over all
places is had from the linear regression B of y on x, with the first r principal components of x·B as the columns of P:

    U = B P,  V = Pᵀ,  and the bias grows by ȳ - x̄ U V.

Where x is what the layer saw in training, B is W, and P are the components of y itself: Zhang et al. 2016, arXiv
1505.06798, §3.1. But x is what the layers before give now, so that B makes good some of what they lost (§3.3). Without
pictures all inputs count alike, B is W, and what comes out is the decomposition of W.

    small, step = factorize(model, Energy(0.95))               # each layer as thin as its energy allows
    small, step = factorize(model, Macs(0.8), pictures)        # 80 % of the model's MACs are left

Pictures are worth much: MobileNetV1 0.5/160 with 90 % of its MACs agreed with itself in 66 % of 200 pictures after a
fit to 100 others, and in none without. A model that was factorized wants to be trained on all the same. In scope: which
rank, which weights. Not aware of: training. Imports analyze, artifact, errors, moments and rewrite; keras where it is
used.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.analyze.costs import count
from featherweight.artifact import Step
from featherweight.errors import SettingError
from featherweight.models.functional import functional
from featherweight.moments import MOST_INPUTS, Moments, Regression, check_pictures, moments, regression, seen
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

Matrix = NDArray[np.float64]
PLACES = 64  # of each picture and layer; neighbours say much the same
LEAST_KEPT = 1e-12  # so that the logarithm of a share stays finite


@dataclass(frozen=True)
class Spectrum:
    """What a layer of (c, f) weights costs and keeps at each rank."""

    name: str
    shape: tuple[int, int]
    shares: Matrix  # (k,) of the energy of its outputs by direction, the greatest first; they sum to 1
    places: int | None  # at which the layer is computed for a picture; None: the input size is open

    @property
    def full_rank(self) -> int:
        """The rank that the weights can have."""
        return min(self.shape)

    def pays(self, rank: int) -> bool:
        """Whether the two layers take fewer MACs than the one."""
        return rank * sum(self.shape) < math.prod(self.shape)

    def macs(self, rank: int | None) -> int:
        """Of the two layers for a picture, or with `None` of the one."""
        return (math.prod(self.shape) if rank is None else rank * sum(self.shape)) * (self.places or 1)

    def kept(self, rank: int) -> float:
        """The share of the energy (0–1)."""
        return float(self.shares[:rank].sum())


@dataclass(frozen=True)
class Energy:
    """In each layer the lowest rank that keeps this share (over 0, under 1) of its energy: of the squares of
    the singular values of its weights, or of its outputs' variance.
    """

    energy: float

    def __post_init__(self) -> None:
        if not 0 < self.energy < 1:
            raise SettingError(f"energy {self.energy:g}; wanted a share over 0 and under 1, for example 0.95")

    def ranks(self, model: "keras.Model", layers: Sequence[Spectrum], multiple_of: int) -> dict[str, int]:
        """By name; also where it does not pay."""
        return {layer.name: self._rank(layer, multiple_of) for layer in layers}

    def _rank(self, layer: Spectrum, multiple_of: int) -> int:
        rank = int(np.searchsorted(np.cumsum(layer.shares), self.energy)) + 1
        return min(-(-rank // multiple_of) * multiple_of, layer.full_rank)


@dataclass(frozen=True)
class Macs:
    """The ranks that leave this share (over 0, under 1) of the whole model's MACs and the most energy: the product of
    the layers' shares, by giving up first what is least for a MAC saved. Zhang et al. 2016, §3.4, with each layer's
    ranks thinned out to those that no other two beat between them.
    """

    macs: float

    def __post_init__(self) -> None:
        if not 0 < self.macs < 1:
            raise SettingError(f"MACs {self.macs:g}; wanted a share over 0 and under 1, for example 0.7")

    def ranks(self, model: "keras.Model", layers: Sequence[Spectrum], multiple_of: int) -> dict[str, int]:
        """By name; a layer that stays whole is not in it.

        Raises:
            SettingError: the MACs are not known, or the lowest ranks leave more.
        """
        left = all_macs = count(model)[1]
        if left is None or all_macs is None:
            raise SettingError(f"{model.name} has a layer whose MACs nobody knows; wanted Energy for a rank instead")
        found: dict[str, int] = {}
        for cut in sorted((cut for layer in layers for cut in _cuts(layer, multiple_of)), key=lambda cut: cut.price):
            if left <= self.macs * all_macs:
                break
            found[cut.name] = cut.rank
            left -= cut.saved
        if left > self.macs * all_macs:
            raise SettingError(
                f"{model.name} keeps {left / all_macs:.0%} of its MACs even with ranks of {multiple_of}; "
                f"wanted {self.macs:.0%}: ask for more, or remove channels too"
            )
        return found


@dataclass(frozen=True)
class _Cut:
    """From one rank of a layer to the next lower one that is worth taking."""

    price: float  # what is lost for each MAC saved
    name: str
    rank: int
    saved: int


def _cuts(layer: Spectrum, multiple_of: int) -> list[_Cut]:
    """The lower convex hull of (MACs, loss) from the whole layer down, so that each cut has a higher price than the
    one before.
    """
    found = []
    ranks = [rank for rank in range(multiple_of, layer.full_rank, multiple_of) if layer.pays(rank)]
    macs, loss = layer.macs(None), 0.0
    while ranks:
        prices = [(_loss(layer, rank) - loss) / (macs - layer.macs(rank)) for rank in ranks]
        price, rank = min(zip(prices, ranks, strict=True))
        found.append(_Cut(price, layer.name, rank, macs - layer.macs(rank)))
        macs, loss = layer.macs(rank), _loss(layer, rank)
        ranks = [lower for lower in ranks if lower < rank]
    return found


def _loss(layer: Spectrum, rank: int) -> float:
    """Whose sum over layers is least where the product of their energies is greatest."""
    return -math.log(max(layer.kept(rank), LEAST_KEPT))


def factorize(
    model: "keras.Model",
    rank: Energy | Macs,
    pictures: NDArray[Any] | None = None,
    layers: Sequence[str] | None = None,
    multiple_of: int = 8,
    seed: int = 0,
) -> tuple["keras.Model", Step]:
    """Two thinner layers for each 1×1 convolution or dense layer where that saves MACs.

    The first, NAME_low, has no bias and no activation; the second keeps the layer's name, bias and activation. The step
    names each layer's rank and the energy kept, and the layers left alone, with the reason.

    Args:
        model: functional or sequential; unchanged.
        rank: how the ranks are chosen.
        pictures: (n, h, w, c) as the model takes them, a few dozen or more: its outputs on them are held on to, at the
            cost of running it twice for each layer. Without them its weights are.
        layers: names of the only ones to look at; by default all.
        multiple_of: what ranks are rounded up to, as devices like it.
        seed: of the places in the pictures.

    Raises:
        SettingError: no functional model of layers that are used once, an unknown name, pictures of another size, or
            MACs that the lowest ranks do not reach.
    """
    if multiple_of < 1:
        raise SettingError(f"ranks in multiples of {multiple_of}; wanted at least 1")
    model = functional(model)
    Graph(model)  # refuses a layer that is used twice
    check_names(model, layers or ())
    if pictures is not None:
        check_pictures(model, pictures)
    names, skipped = _candidates(model, layers, pictures is not None)
    found = _spectra(model, names, pictures, seed)
    ranks = rank.ranks(model, found, multiple_of)
    whole = [(layer.name, _why_whole(layer, ranks.get(layer.name))) for layer in found]
    thin = [layer for layer, (_, reason) in zip(found, whole, strict=True) if not reason]
    alive = {layer.name for layer in found}
    dead = [(name, "its outputs do not vary") for name in names if name not in alive]
    settings = {
        **asdict(rank),
        "multiple_of": multiple_of,
        "pictures": None if pictures is None else len(pictures),
        "ranks": {layer.name: [ranks[layer.name], layer.full_rank] for layer in thin},
        "energy_kept": {layer.name: round(layer.kept(ranks[layer.name]), 4) for layer in thin},
    }
    reasons = (*skipped, *dead, *(pair for pair in whole if pair[1]))
    small = _thinned(model, {layer.name: ranks[layer.name] for layer in thin}, pictures, seed)
    return small, Step("factorize", settings, reasons)


# -------------------------------------------------------------------------------------------------- which layers


def _candidates(
    model: "keras.Model", only: Sequence[str] | None, on_pictures: bool
) -> tuple[list[str], list[tuple[str, str]]]:
    """The names of the layers that can be factorized; and of those like them, or asked for, that cannot."""
    inside = "a model inside of a layer is not looked into; lay it open first"
    asked = [layer for layer in model.layers if (_has_a_matrix(layer) if only is None else layer.name in only)]
    reasons = {layer.name: _why_not(layer, on_pictures) for layer in asked}
    reasons |= {name: inside for name in models_inside(model) if only is None or name in only}
    names = [name for name, reason in reasons.items() if not reason]
    return names, [(name, reason) for name, reason in reasons.items() if reason]


def _has_a_matrix(layer: Any) -> bool:
    """Whether what it does, or a part of it, is a product with a matrix at each place."""
    import keras

    if isinstance(layer, keras.layers.Conv2D):
        return tuple(layer.kernel_size) == (1, 1)
    return isinstance(layer, keras.layers.Dense | keras.layers.SeparableConv2D)


def _why_not(layer: Any, on_pictures: bool) -> str:
    import keras

    if isinstance(layer, keras.layers.SeparableConv2D):
        return "its 1×1 half is inside of the layer"
    if not _has_a_matrix(layer):
        return "no 1×1 convolution or dense layer"
    if type(layer) not in (keras.layers.Conv2D, keras.layers.Dense):
        return f"{type(layer).__name__} may do more than Keras' own layer"
    if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
        return "a grouped convolution: its kernel is thin already"
    if not channels_last(layer):
        return "its channels are not the last axis"
    inputs = layer.kernel.shape[-2]
    too_many = on_pictures and inputs > MOST_INPUTS
    return f"{inputs} inputs are too many to be fitted on pictures; leave them out" if too_many else ""


def _spectra(model: "keras.Model", names: Sequence[str], pictures: NDArray[Any] | None, seed: int) -> list[Spectrum]:
    """Of the layers whose outputs vary at all."""
    weights = {name: _matrix(model.get_layer(name)) for name in names}
    outputs: dict[str, Moments] = {}
    if pictures is not None:
        batches = seen(model, names, pictures, PLACES, seed)
        outputs = moments({name: rows @ weights[name] for name, rows in batch.items()} for batch in batches)
    found = []
    for name, matrix in weights.items():
        spread = matrix.T @ matrix if pictures is None else _shrunk(outputs[name], matrix)
        energy = np.maximum(np.linalg.eigvalsh(spread)[::-1][: min(matrix.shape)], 0)
        places = model.get_layer(name).output.shape[1:-1]
        if energy.sum() > 0:
            at = None if None in places else math.prod(places)
            found.append(Spectrum(name, matrix.shape, energy / energy.sum(), at))
    return found


def _matrix(layer: Any) -> Matrix:
    kernel, _ = kernel_and_bias(layer)
    return kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)


def _shrunk(outputs: Moments, weights: Matrix) -> Matrix:
    """The covariance of outputs, steadied as that of a `Regression` is: the fewer rows, the more the weights count, by
    equal and independent inputs that give outputs of as much variance.
    """
    gram, inputs = weights.T @ weights, len(weights)
    scale = np.trace(outputs.covariance) / max(np.trace(gram), np.finfo(np.float64).tiny)
    return np.asarray((outputs.count * outputs.covariance + inputs * scale * gram) / (outputs.count + inputs))


def _why_whole(layer: Spectrum, rank: int | None) -> str:
    """Why a layer is not factorized; empty if it is."""
    c, f = layer.shape
    if rank is None:
        return "the others reach the target with less lost"
    return "" if layer.pays(rank) else f"rank {rank} takes {rank * (c + f)} MACs at a place, the layer itself {c * f}"


# ------------------------------------------------------------------------------------------------------- weights


def _thinned(model: "keras.Model", ranks: Mapping[str, int], pictures: NDArray[Any] | None, seed: int) -> "keras.Model":
    """All at once from the weights; on pictures one after the other, each in the model as it is by then."""
    small = rebuilt(model)
    for names in [list(ranks)] if pictures is None else [[name] for name in ranks]:
        replaced: dict[str, Then] = {}
        weights: dict[str, list[Matrix]] = {}
        for name in names:
            layer, task = model.get_layer(name), None
            if pictures is not None:
                task = regression(small, model, name, pictures, PLACES, seed).steadied(_matrix(layer))
            replaced[name], new = _in_two(layer, ranks[name], task, free_name(small, f"{name}_low"))
            weights |= new
        small = rebuilt(small, replaced=replaced, weights=weights)
    return small


def _halves(best: Matrix, products: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """U (c, r) and V (r, f) for weights (c, f) and the products of inputs with outputs, which are the weights again for
    equal and independent inputs. Both share a direction's length: training and int8 like numbers of one size.
    """
    kept = np.linalg.eigh(products.T @ best)[1][:, ::-1][:, :rank]
    thin = best @ kept
    size = np.sqrt(np.maximum(np.linalg.norm(thin, axis=0), np.finfo(np.float32).tiny))
    return thin / size, (kept * size).T


def _in_two(layer: Any, rank: int, task: Regression | None, name: str) -> tuple[Then, dict[str, list[Matrix]]]:
    """What stands in the layer's place, and its weights."""
    import keras

    bias = kernel_and_bias(layer)[1].astype(np.float64)
    if task is None:
        thin, wide = _halves(_matrix(layer), _matrix(layer), rank)
    else:
        thin, wide = _halves(np.linalg.solve(task.spread, task.products), task.products, rank)
        bias += task.outputs - task.inputs @ thin @ wide
    use_bias = bool(layer.use_bias or task)
    alike: dict[str, Any] = {
        "use_bias": False,
        "name": name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "kernel_regularizer": layer.kernel_regularizer,
    }
    changes: dict[str, Any] = {"use_bias": use_bias}
    if isinstance(layer, keras.layers.Dense):
        first = keras.layers.Dense(rank, **alike)
    else:
        first = keras.layers.Conv2D(rank, 1, layer.strides, data_format="channels_last", **alike)
        changes["strides"] = (1, 1)
        thin, wide = thin[None, None], wide[None, None]
    second = type(layer).from_config({**layer.get_config(), **changes})
    return Then(first, second), {name: [thin], layer.name: [wide, bias] if use_bias else [wide]}
