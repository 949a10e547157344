"""What a layer sees of pictures: patches of its input at random places, and sums over them for least squares.

A layer is linear in its patches: a convolution with kernel W (h, w, c, f) gives at each place x · W, where x are the
h·w·c numbers under its window and W is taken as a matrix. So all that fitting other weights to its outputs needs of
the data are means and covariances. Memory is bounded: a batch of maps at a time, and (h·w·c + f)² numbers.

Where several layers of a model are changed, each is fitted to what it gave in the trained model, from what it sees in
the changed one: so it makes good some of what was lost before it. Zhang et al. 2016, arXiv 1505.06798, §3.3. On
ResNet-20 with all of its convolutions but the first separated, that left 45 % right where fits to the trained inputs
left 24.

In scope: places, sums. Not aware of: what is fitted. Imports errors; keras where it is used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.errors import SettingError

if TYPE_CHECKING:
    import keras

Matrix = NDArray[Any]  # float32 rows, float64 sums
BATCH = 16
# Of a layer that is fitted: a matrix of as many squared in float64 has 0.3 GB, and a fit takes a handful of them.
MOST_INPUTS = 6000


@dataclass(frozen=True)
class Moments:
    """Of `count` rows of d numbers: their mean (d,) and covariance (d, d), float64."""

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


class _Sums:
    """Of rows of d numbers, as they come."""

    def __init__(self, d: int):
        self.count, self.total, self.squares = 0, np.zeros(d), np.zeros((d, d))

    def add(self, rows: Matrix) -> None:
        self.count += len(rows)
        self.total += rows.sum(axis=0, dtype=np.float64)
        self.squares += rows.T @ rows

    def moments(self) -> Moments:
        mean = self.total / self.count
        return Moments(self.count, mean, self.squares / self.count - np.outer(mean, mean))


def moments(batches: Iterable[Mapping[str, Matrix]]) -> dict[str, Moments]:
    """Of the rows (n, d) of each name in all batches."""
    sums: dict[str, _Sums] = {}
    for batch in batches:
        for name, rows in batch.items():
            sums.setdefault(name, _Sums(rows.shape[1])).add(rows)
    return {name: found.moments() for name, found in sums.items()}


@dataclass(frozen=True)
class Regression:
    """What a layer sees, x (d,), and what shall be had from it, y (f,): all that least squares need to know.

    y is without the layer's bias.
    """

    count: int  # of the rows
    inputs: Matrix  # the mean of x (d,)
    outputs: Matrix  # the mean of y (f,)
    spread: Matrix  # the covariance of x (d, d)
    products: Matrix  # the covariance of x with y (d, f)
    variance: float  # of all of y

    def steadied(self, weights: Matrix) -> "Regression":
        """As if, beside the rows that were seen, d more had come of equal and independent inputs of the same power, and
        with them what the layer's weights (d, f) make of them: the fewer rows, the more the weights count.
        """
        d = len(weights)
        seen = self.count / (self.count + d)
        power = (1 - seen) * (np.trace(self.spread) / d or 1.0)  # where nothing varies, the weights count alone
        spread = seen * self.spread
        spread[np.diag_indices(d)] += power
        products = seen * self.products + power * weights
        return replace(
            self, spread=spread, products=products, variance=seen * self.variance + power * float(np.sum(weights**2))
        )

    def missed(self, weights: Matrix, shift: Matrix) -> float:
        """The mean squared error of x · weights + shift as a share of the variance of y."""
        varied = self.variance - 2 * np.sum(self.products * weights) + np.sum(weights * (self.spread @ weights))
        constant = np.sum((self.inputs @ weights + shift - self.outputs) ** 2)
        return float((varied + constant) / self.variance)


def regression(
    model: "keras.Model", trained: "keras.Model", name: str, pictures: Matrix, places: int, seed: int
) -> Regression:
    """From what a layer sees in a model that was changed before it, to what it gave in the trained one.

    Args:
        model: has a layer of that name and settings.
        trained: whose outputs of the layer, before bias and activation, shall be had.
        name: as for `seen`.
        pictures: (n, h, w, c) as the model takes them.
        places: of each picture at most.
        seed: of the places, which are the same in both.
    """
    kernel = np.asarray(trained.get_layer(name).kernel, np.float32)
    weights = kernel.reshape(-1, kernel.shape[-1])
    pairs = zip(*(seen(one, [name], pictures, places, seed) for one in (model, trained)), strict=True)
    found = moments({name: np.hstack([now[name], before[name] @ weights])} for now, before in pairs)[name]
    d = len(weights)
    return Regression(
        found.count,
        found.mean[:d],
        found.mean[d:],
        found.covariance[:d, :d],
        found.covariance[:d, d:],
        float(np.trace(found.covariance[d:, d:])),
    )


def check_pictures(model: "keras.Model", pictures: Matrix, least: int = 2) -> None:
    """That the model takes them.

    Raises:
        SettingError: too few, of another size, or a model with several inputs.
    """
    if len(model.inputs) != 1:
        raise SettingError(f"{model.name} takes {len(model.inputs)} inputs; wanted a model of pictures alone")
    wanted = tuple(model.inputs[0].shape[1:])
    fits = len(pictures.shape) == len(wanted) + 1 and all(
        size in (None, found) for size, found in zip(wanted, pictures.shape[1:], strict=True)
    )
    if not fits or len(pictures) < least:
        raise SettingError(
            f"pictures {pictures.shape}; {model.name} wants (n, {', '.join(str(size or 'any') for size in wanted)}), "
            f"n of {least} or more"
        )


def seen(
    model: "keras.Model", names: Sequence[str], pictures: Matrix, places: int, seed: int
) -> Iterator[dict[str, Matrix]]:
    """Batch by batch of pictures, the patches (n, h·w·c) that each of the layers sees, at random places.

    Args:
        model: functional, of one input.
        names: convolutions that are neither grouped nor dilated, or dense layers, whose window is one place.
        pictures: (n, h, w, c) as the model takes them.
        places: of each picture at most, in each layer.
        seed: of the places.
    """
    import keras

    if not names:
        return
    layers = [model.get_layer(name) for name in names]
    probe = keras.Model(model.inputs[0], [layer.input for layer in layers])
    rng = np.random.default_rng(seed)
    for start in range(0, len(pictures), BATCH):
        maps = keras.tree.flatten(probe(pictures[start : start + BATCH].astype(np.float32), training=False))
        yield {
            layer.name: patches(np.asarray(found, np.float32), layer, places, rng)
            for layer, found in zip(layers, maps, strict=True)
        }


def patches(maps: Matrix, layer: Any, places: int, rng: np.random.Generator) -> Matrix:
    """What lies under the layer's window (n, h·w·c) at `places` random ones of its places a map, or at all if there
    are no more. `layer` gives of each row x, reshaped, x · kernel + bias.
    """
    import keras

    if isinstance(layer, keras.layers.Dense):
        maps, size, strides = maps.reshape(len(maps), -1, 1, maps.shape[-1]), (1, 1), (1, 1)
    else:
        size, strides = layer.kernel_size, layer.strides
        maps = _padded(maps, size, strides) if layer.padding == "same" else maps
    rows, columns = ((maps.shape[axis] - size[axis - 1]) // strides[axis - 1] + 1 for axis in (1, 2))
    every = np.arange(rows * columns)
    chosen = np.stack([rng.choice(every, places, replace=False) if places < len(every) else every for _ in maps])
    picture = np.repeat(np.arange(len(maps)), chosen.shape[1])[:, None, None]
    top, left = np.divmod(chosen.reshape(-1, 1, 1), columns)
    down = top * strides[0] + np.arange(size[0])[:, None]
    across = left * strides[1] + np.arange(size[1])
    return maps[picture, down, across].reshape(len(picture), -1)


def _padded(maps: Matrix, size: Sequence[int], strides: Sequence[int]) -> Matrix:
    """With the zeros of Keras' "same": what is odd goes to the right and the bottom."""
    around = [_around(maps.shape[axis + 1], size[axis], strides[axis]) for axis in (0, 1)]
    return np.pad(maps, ((0, 0), *around, (0, 0)))


def _around(length: int, window: int, stride: int) -> tuple[int, int]:
    total = max((-(-length // stride) - 1) * stride + window - length, 0)
    return total // 2, total - total // 2
