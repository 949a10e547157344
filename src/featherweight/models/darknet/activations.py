"""Darknet's activations as Keras layers; those that Keras has not are made of some that it has.

In scope: one tensor. Imports nothing of the package; keras with this module: it is imported where it is used.
"""

from collections.abc import Callable
from typing import Any

from keras import layers, ops

Tensor = Any


def activated(x: Tensor, activation: str, name: str) -> Tensor:
    """One of Darknet's activations; those that Keras has not are made of some that it has."""
    return ACTIVATIONS[activation](x, name)


def _keras(activation: str) -> Callable[[Tensor, str], Tensor]:
    return lambda x, name: layers.Activation(activation, name=f"{name}_{activation}")(x)


def _leaky(slope: float) -> Callable[[Tensor, str], Tensor]:
    return lambda x, name: layers.LeakyReLU(slope, name=f"{name}_leaky")(x)


def scaled(x: Tensor, scale: float, offset: float, name: str) -> Tensor:
    """X · scale + offset."""
    return layers.Rescaling(scale, offset, name=name)(x)


def _between(x: Tensor, slope: float, name: str) -> Tensor:
    """As it is from 0 to 1, with a small slope outside: slope · x + (1 - slope) · min(max(x, 0), 1)."""
    inside = layers.ReLU(max_value=1.0, name=f"{name}_clip")(x)
    inside = scaled(inside, 1 - slope, 0.0, f"{name}_inside")
    return layers.Add(name=f"{name}_between")([scaled(x, slope, 0.0, f"{name}_outside"), inside])


def _hard_mish(x: Tensor, name: str) -> Tensor:
    gate = layers.ReLU(max_value=1.0, name=f"{name}_gate")(scaled(x, 0.5, 1.0, f"{name}_half"))
    return layers.Multiply(name=f"{name}_hard_mish")([x, gate])


def _hardtan(x: Tensor, name: str) -> Tensor:
    x = layers.ReLU(max_value=2.0, name=f"{name}_clip")(scaled(x, 1.0, 1.0, f"{name}_up"))
    return scaled(x, 1.0, -1.0, f"{name}_hardtan")


def _shares(positive: Tensor) -> Tensor:
    return ops.divide(positive, ops.add(ops.sum(positive, axis=-1, keepdims=True), 1e-4))


def _exponential_shares(x: Tensor, name: str) -> Tensor:
    return _shares(ops.exp(x))


def _safe_shares(x: Tensor, name: str) -> Tensor:
    return _shares(ops.exp(ops.subtract(x, ops.max(x, axis=-1, keepdims=True))))


ACTIVATIONS: dict[str, Callable[[Tensor, str], Tensor]] = {
    "linear": lambda x, name: x,
    "logistic": _keras("sigmoid"), "relu": _keras("relu"), "relu6": _keras("relu6"), "elu": _keras("elu"),
    "selu": _keras("selu"), "tanh": _keras("tanh"), "swish": _keras("silu"), "mish": _keras("mish"),
    **dict.fromkeys(("hardswish", "hard_swish", "hswish", "h_swish"), _keras("hard_silu")),
    "leaky": _leaky(0.1), "revleaky": _leaky(0.1), "relie": _leaky(0.01),
    "gelu": lambda x, name: ops.gelu(x, approximate=True),
    # 2 / (1 + exp(-x)) - 1
    "loggy": lambda x, name: layers.Activation("tanh", name=f"{name}_loggy")(scaled(x, 0.5, 0.0, f"{name}_half")),
    # x · (x > 0) + x / 10
    "ramp": lambda x, name: scaled(_leaky(1 / 11)(x, name), 1.1, 0.0, f"{name}_ramp"),
    "hardtan": _hardtan, "hard_mish": _hard_mish,
    "lhtan": lambda x, name: _between(x, 0.001, name),
    "plse": lambda x, name: _between(scaled(x, 0.125, 0.5, f"{name}_eighth"), 0.08, name),
    "normalize_channels": lambda x, name: _shares(layers.ReLU(name=f"{name}_positive")(x)),
    "normalize_channels_softmax": _exponential_shares,
    "normalize_channels_softmax_maxval": _safe_shares,
}  # fmt: skip
