"""What Darknet computes, slowly and place by place, from its own description: maps are (channels, height, width).

Written for the tests alone and from nothing that they test: it reads a cfg in its own way, takes its weights from the
front of the file's numbers, and must have used them all.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Options = dict[str, str]


def sections(text: str) -> list[tuple[str, Options]]:
    found: list[tuple[str, Options]] = []
    for line in text.replace(" ", "").splitlines():
        if line.startswith("["):
            found.append((line[1:-1], {}))
        elif line:
            key, value = line.split("=")
            found[-1][1][key] = value
    return found


def sigmoid(x: Map) -> Map:
    return 1 / (1 + np.exp(-x))


def piecewise(x: Map, slope: float, low: float, high: float, inside: Callable[[Map], Map]) -> Map:
    """Darknet's plse and lhtan: with a slope below `low`, where 0 is given, and above `high`, where 1 is."""
    return np.where(x < low, slope * (x - low), np.where(x > high, slope * (x - high) + 1, inside(x)))


def shares(positive: Map) -> Map:
    return positive / (1e-4 + positive.sum(0))


ACTIVATIONS: dict[str, Callable[[Map], Map]] = {
    "linear": lambda x: x,
    "logistic": sigmoid,
    "loggy": lambda x: 2 * sigmoid(x) - 1,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x >= 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.0507 * np.where(x >= 0, x, 1.6732 * (np.exp(x) - 1)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "relie": lambda x: np.where(x > 0, x, 0.01 * x),
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "tanh": np.tanh,
    "plse": lambda x: piecewise(x, 0.01, -4, 4, lambda y: 0.125 * y + 0.5),
    "hardtan": lambda x: np.clip(x, -1, 1),
    "lhtan": lambda x: piecewise(x, 0.001, 0, 1, lambda y: y),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "normalize_channels": lambda x: shares(np.maximum(x, 0)),
    "normalize_channels_softmax": lambda x: shares(np.exp(x)),
    "normalize_channels_softmax_maxval": lambda x: shares(np.exp(x - x.max(0))),
}
ACTIVATIONS |= dict.fromkeys(("hard_swish", "hswish", "h_swish"), ACTIVATIONS["hardswish"])


class Darknet:
    """One network on one picture."""

    def __init__(self, text: str, floats: NDArray[Any], epsilon: float = 1e-5):
        (_, self.net), *self.layers = sections(text)
        self.floats, self.epsilon = floats.astype(np.float64), epsilon
        self.outputs: list[Map] = []

    def run(self, picture: NDArray[Any]) -> list[Map]:
        """The outputs of all layers for a picture (h, w, 3), 0–255."""
        x = picture.astype(np.float64).transpose(2, 0, 1) / 255
        for number, (kind, options) in enumerate(self.layers):
            self.number, self.options = number, options
            x = vars(type(self))[kind](self, x)
            self.outputs.append(x)
        assert not len(self.floats)
        return self.outputs

    def take(self, *shape: int) -> Map:
        count = int(np.prod(shape))
        taken, self.floats = self.floats[:count], self.floats[count:]
        return taken.reshape(shape)

    def whole(self, key: str, default: int) -> int:
        return int(self.options.get(key, default))

    def activated(self, x: Map, default: str = "linear") -> Map:
        return ACTIVATIONS[self.options.get("activation", default)](x)

    def normalized(self, x: Map, biases: Map, scales: Map, means: Map, variances: Map) -> Map:
        each = (slice(None), *(None,) * (x.ndim - 1))
        return (x - means[each]) / np.sqrt(variances[each] + self.epsilon) * scales[each] + biases[each]

    def convolutional(self, x: Map) -> Map:
        filters, size, groups = self.whole("filters", 1), self.whole("size", 1), self.whole("groups", 1)
        down, across = (self.whole(f"stride_{axis}", self.whole("stride", 1)) for axis in "yx")
        dilation = self.whole("dilation", 1)
        pad = (size // 2 if self.whole("pad", 0) else self.whole("padding", 0)) * dilation
        channels, height, width = x.shape
        biases = self.take(filters)
        norm = self.take(3, filters) if self.whole("batch_normalize", 0) else None
        if self.whole("flipped", 0):
            kernel = self.take(channels // groups * size * size, filters).T
            kernel = kernel.reshape(filters, channels // groups, size, size)
        else:
            kernel = self.take(filters, channels // groups, size, size)
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        reach = (size - 1) * dilation + 1
        rows, columns = (height + 2 * pad - reach) // down + 1, (width + 2 * pad - reach) // across + 1
        y = np.zeros((filters, rows, columns))
        for f in range(filters):
            first = f // (filters // groups) * (channels // groups)
            part = padded[first : first + channels // groups]
            for i in range(rows):
                for j in range(columns):
                    window = part[:, i * down : i * down + reach : dilation, j * across : j * across + reach : dilation]
                    y[f, i, j] = (window * kernel[f]).sum()
        y = y + biases[:, None, None] if norm is None else self.normalized(y, biases, *norm)
        return self.activated(y, "logistic")

    def connected(self, x: Map) -> Map:
        units = self.whole("output", 1)
        biases, kernel = self.take(units), self.take(units, x.size)
        y = kernel @ x.ravel()
        y = self.normalized(y, biases, *self.take(3, units)) if self.whole("batch_normalize", 0) else y + biases
        return self.activated(y, "logistic").reshape(units, 1, 1)

    def local(self, x: Map) -> Map:
        filters, size, stride = (self.whole(key, 1) for key in ("filters", "size", "stride"))
        pad = self.whole("pad", 0)
        less = 1 if pad else size
        rows, columns = ((side - less) // stride + 1 for side in x.shape[1:])
        biases, kernel = self.take(filters, rows, columns), self.take(rows * columns, filters, len(x), size, size)
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        y = np.zeros((filters, rows, columns))
        for i in range(rows):
            for j in range(columns):
                window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
                y[:, i, j] = (kernel[i * columns + j] * window).sum((1, 2, 3))
        return self.activated(y + biases, "logistic")

    def batchnorm(self, x: Map) -> Map:
        return self.normalized(x, *self.take(4, len(x)))

    def pooled(self, x: Map, function: Callable[..., Any]) -> Map:
        stride = self.whole("stride", 1)
        down, across = self.whole("stride_y", stride), self.whole("stride_x", stride)
        size = self.whole("size", stride)
        padding = self.whole("padding", size - 1)
        rows, columns = (x.shape[1] + padding - size) // down + 1, (x.shape[2] + padding - size) // across + 1
        y = np.zeros((len(x), rows, columns))
        for i in range(rows):
            for j in range(columns):
                top, left = i * down - padding // 2, j * across - padding // 2
                window = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
                y[:, i, j] = function(window, axis=(1, 2))
        return y

    def maxpool(self, x: Map) -> Map:
        return self.pooled(x, np.max)

    def local_avgpool(self, x: Map) -> Map:
        return self.pooled(x, np.mean)

    def avgpool(self, x: Map) -> Map:
        return x.mean((1, 2), keepdims=True)

    def upsample(self, x: Map) -> Map:
        stride, scale = self.whole("stride", 2), float(self.options.get("scale", 1))
        if stride > 0:
            return scale * x.repeat(stride, 1).repeat(stride, 2)
        c, h, w = x.shape
        return scale * x.reshape(c, h // -stride, -stride, w // -stride, -stride).sum((2, 4))

    def reorg(self, x: Map) -> Map:
        return reorganized(x, x.shape, self.whole("stride", 1))

    def reorg3d(self, x: Map) -> Map:
        stride, (c, h, w) = self.whole("stride", 1), x.shape
        return reorganized(x, (c * stride**2, h // stride, w // stride), stride)

    def indices(self, key: str) -> list[int]:
        return [int(i) if int(i) >= 0 else self.number + int(i) for i in self.options[key].split(",")]

    def route(self, x: Map) -> Map:
        groups, group = self.whole("groups", 1), self.whole("group_id", 0)
        parts = [self.outputs[i] for i in self.indices("layers")]
        return np.concatenate([p[len(p) // groups * group : len(p) // groups * (group + 1)] for p in parts])

    def shortcut(self, x: Map) -> Map:
        """The flat arrays are added as far as the shorter one goes."""
        others = [self.outputs[i] for i in self.indices("from")]
        kind, norm = self.options.get("weights_type", "none"), self.options.get("weights_normalization", "none")
        weights = np.ones((len(others) + 1, 1))
        if kind != "none":
            weights = self.take(len(others) + 1, len(x) if kind == "per_channel" else 1)
            if norm in ("relu", "avg_relu"):
                weights = np.maximum(weights, 0) / (np.maximum(weights, 0).sum(0) + 1e-4)
            elif norm == "softmax":
                weights = np.exp(weights - weights.max(0))
                weights = weights / (weights.sum(0) + 1e-4)
        alpha, beta = (float(self.options.get(key, 1)) for key in ("alpha", "beta"))
        y = alpha * x * weights[0][:, None, None]
        for other, weight in zip(others, weights[1:], strict=True):
            step = other.shape[1] // x.shape[1]
            least = min(len(other), len(x))
            y[:least] += beta * other[:least, ::step, ::step] * weight[: least if len(weight) > 1 else 1, None, None]
        return self.activated(y)

    def scale_channels(self, x: Map) -> Map:
        return self.activated(x * self.outputs[self.indices("from")[0]])

    def sam(self, x: Map) -> Map:
        return self.activated(x * self.outputs[self.indices("from")[0]])

    def dropout(self, x: Map) -> Map:
        return x

    cost = empty = yolo = region = Gaussian_yolo = detection = dropout

    def activation(self, x: Map) -> Map:
        return self.activated(x)

    def crop(self, x: Map) -> Map:
        height, width = self.whole("crop_height", 1), self.whole("crop_width", 1)
        top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
        y = x[:, top : top + height, left : left + width]
        return y if self.whole("noadjust", 0) else 2 * y - 1

    def softmax(self, x: Map) -> Map:
        temperature = float(self.options.get("temperature", 1))
        if self.whole("spatial", 0):
            parts = np.exp((x - x.max(0)) / temperature)
            return parts / parts.sum(0)
        groups = x.reshape(self.whole("groups", 1), -1) / temperature
        groups = np.exp(groups - groups.max(1, keepdims=True))
        return (groups / groups.sum(1, keepdims=True)).reshape(x.shape)


def reorganized(x: Map, shape: tuple[int, ...], stride: int) -> Map:
    """Darknet's `reorg_cpu`: number (k, j, i) of a map of that shape comes from a place of a wider one."""
    (channels, height, width), flat = shape, x.ravel()
    fewer = channels // stride**2
    y = np.zeros(shape)
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                row, column = j * stride + k // fewer // stride, i * stride + k // fewer % stride
                y[k, j, i] = flat[column + width * stride * (row + height * stride * (k % fewer))]
    c, h, w = x.shape
    return y.reshape(c * stride**2, h // stride, w // stride)
