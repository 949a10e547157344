"""What quantization takes or leaves of a model file, and what it makes. Imports errors only."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from featherweight.errors import SettingError


@dataclass(frozen=True)
class Operator:
    """One operator of a file."""

    name: str
    kind: str
    inputs: tuple[str, ...]  # the tensors that it takes, without constants
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """An operator with its activation and what only hands its output on: int8 together, or float together."""

    name: str
    operator: str
    members: tuple[str, ...]  # the operators' names in the file


@dataclass(frozen=True)
class Made:
    """A quantized file, and what of it stayed float without being asked to, with the reason."""

    data: bytes
    left: tuple[tuple[str, str], ...] = ()


def layers_of(
    operators: Iterable[Operator], passing: Collection[str], elementwise: Collection[str]
) -> tuple[Layer, ...]:
    """The operators of a file, in its order, as layers.

    Args:
        operators: those that make float activations.
        passing: kinds that hand on what they get, or a part of it: these belong to the layer before them, and to none
            if they only arrange the picture.
        elementwise: kinds that belong to the layer before them if that makes all that they take, as a swish does.
    """
    owner: dict[str, str] = {}  # tensor → the layer that makes it
    members: dict[str, list[Operator]] = {}
    for one in operators:
        before = {owner.get(tensor) for tensor in one.inputs}
        joins = one.kind in passing or (one.kind in elementwise and len(before) == 1 and None not in before)
        name = owner.get(one.inputs[0]) if joins else one.name
        if name is not None:
            members.setdefault(name, []).append(one)
            owner |= dict.fromkeys(one.outputs, name)
    return tuple(Layer(name, found[0].kind, tuple(one.name for one in found)) for name, found in members.items())


def short(name: str) -> str:
    """A name for a table. One of LiteRT's lists all operators that were fused into one; the first says enough."""
    return name.split(";", maxsplit=1)[0][-48:]


def whole_names(layers: Sequence[Layer], names: Iterable[str]) -> tuple[str, ...]:
    """The names of layers that were given whole, or as `short` has them where only one layer is called so.

    Raises:
        SettingError: no such layer.
    """
    shown = Counter(short(layer.name) for layer in layers)
    known = {short(layer.name): layer.name for layer in layers if shown[short(layer.name)] == 1}
    known |= {layer.name: layer.name for layer in layers}
    for name in names:
        if name not in known:
            few = ", ".join(short(layer.name) for layer in layers[:4])
            raise SettingError(f"no layer {name!r} to skip; the file has {len(layers)}, as {few}")
    return tuple(known[name] for name in names)


def members_of(layers: Sequence[Layer], names: Collection[str]) -> frozenset[str]:
    """The operators of the layers of these names."""
    return frozenset(member for layer in layers if layer.name in names for member in layer.members)
