"""What the numbers in masks stand for, and masks held against their pictures.

    glance       which numbers one mask file has
    agree        of all glances and the legend, the classes and what stands for each: `Key`
    check_mask   the mask of one picture by that key, with its digest and its pixels by class

Imports annotations, errors, image and masks.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featherweight.annotations import Entry, Legend, Masks, Shapes, unusual
from featherweight.errors import DataError, LabelError, SettingError, display
from featherweight.masks import (
    IGNORE,
    MOST_CLASSES,
    SIDEWAYS,
    MaskSource,
    codes_of,
    histogram,
    is_coloured,
    read_mask,
    read_raw,
)

MOST_COLOURS = 4096  # in one mask, that a legend could be for
SURE_SHARE = 0.95  # of the masks with a foreground that have it as 255: then that is what 255 means
BLACK = (0, 0, 0)
GROUND = "background"


@dataclass(frozen=True)
class Glance:
    """The numbers in one mask file: values, and colours as `masks.codes_of`; empty where it has none of a kind."""

    values: frozenset[int]
    colours: frozenset[int]
    lossy: bool


@dataclass(frozen=True)
class Key:
    """What the numbers in the masks of a folder stand for."""

    kind: str
    classes: tuple[str, ...]
    legend: tuple[tuple[tuple[int, ...], int], ...]  # as `MaskSource.legend`

    def told(self, classes: Sequence[str]) -> dict[str, str]:
        """Class, or "ignored" → the values or colours that stand for it, as text."""
        of: dict[str, list[str]] = {}
        for numbers, label in self.legend:
            name = "ignored" if label == IGNORE else classes[label]
            of.setdefault(name, []).append(" ".join(map(str, numbers)))
        return {name: ", ".join(keys) for name, keys in of.items()}


@dataclass(frozen=True)
class CheckedMask:
    """The mask of one picture."""

    source: MaskSource
    sha256: str
    pixels: tuple[int, ...]  # by class
    left_out: tuple[str, ...]  # a line for each shape that could not be read

    @property
    def shown(self) -> tuple[int, ...]:
        """The classes that it has pixels of."""
        return tuple(label for label, count in enumerate(self.pixels) if count)


def glance(path: Path) -> Glance | None:
    """The numbers in a mask file; None where it cannot be read."""
    try:
        raw = read_raw(path)
    except LabelError:
        return None
    if is_coloured(raw):
        found = np.unique(codes_of(raw, "colours"))
        return Glance(frozenset(), frozenset(found[:MOST_COLOURS].tolist()), raw.lossy)
    try:
        values = np.flatnonzero(histogram(codes_of(raw, "values"))).astype(np.uint8)
    except LabelError:  # numbers over 255
        return Glance(frozenset(), frozenset(), raw.lossy)
    colours = codes_of(replace(raw, values=values[None]), "colours")
    return Glance(frozenset(values.tolist()), frozenset(colours.ravel().tolist()), raw.lossy)


def agree(masks: Masks, legend: Legend | None, glances: Sequence[Glance], ignore: int = IGNORE) -> Key:
    """What the numbers stand for: what the legend says; without one, what all masks together suggest.

    Masks of 0 and one other value have a background and a foreground; where those of 0 and 255 are nearly all, other
    values are errors. Else each value that occurs is a class, and `ignore` is not asked for.

    Raises:
        DataError: more classes than a mask can hold.
        SettingError: an `ignore` that no mask can have.
    """
    if isinstance(ignore, bool) or not 0 <= ignore <= 255:
        raise SettingError(f"ignore {ignore}; wanted a value of masks, 0 to 255")
    if masks.layout == "coco":
        key = Key("polygons", masks.classes, ())
    elif legend is not None and legend.coloured and _is_in_colours(legend, glances, ignore):
        key = _by_colours(legend, glances)
    elif legend is not None and legend.valued:
        key = _keyed([((one.value or 0,), one) for one in sorted(legend.entries, key=_value)], ignore)
    else:
        key = _by_values(masks, legend, [one for one in glances if not one.lossy], ignore)
    if len(key.classes) > MOST_CLASSES:
        raise DataError(f"masks of {len(key.classes)} classes; at most {MOST_CLASSES} fit into 8 bits")
    return key


def check_mask(mask: Path | Shapes, key: Key, height: int, width: int, orientation: int = 1) -> CheckedMask:
    """The mask of a picture of that size, once it is upright; `orientation` is how its file says to turn it.

    Raises:
        LabelError: as `masks.read_mask`; labels for another size, or nothing that is asked for.
    """
    left_out: tuple[str, ...] = ()
    if isinstance(mask, Shapes):
        source, left_out = _drawn(mask, key, height, width), mask.left_out
    else:
        source = MaskSource(str(mask), key.kind, key.legend, turn=orientation if orientation in SIDEWAYS else 1)
    found = read_mask(source, height, width)
    pixels = histogram(found)
    if pixels[IGNORE] == found.size:
        raise LabelError("its mask asks for nothing: all of its pixels are to be ignored")
    digest = hashlib.sha256(f"{height} {width} ".encode())
    digest.update(np.ascontiguousarray(found).data)
    return CheckedMask(source, digest.hexdigest(), tuple(pixels[: len(key.classes)].tolist()), left_out)


def _drawn(shapes: Shapes, key: Key, height: int, width: int) -> MaskSource:
    if (shapes.height or height, shapes.width or width) != (height, width):
        raise LabelError(
            f"its labels are for {shapes.width or '?'}×{shapes.height or '?'} pixels, and it has {width}×{height}; "
            "label it anew, or undo what turned or resized it"
        )
    index = {name: label for label, name in enumerate(key.classes)}
    return MaskSource(
        kind="polygons",
        polygons=tuple((index[name], (ring,)) for name, ring in shapes.polygons),
        runs=tuple((index[name], runs) for name, runs in shapes.runs),
    )


def _value(entry: Entry) -> int:
    return entry.value or 0


def _is_in_colours(legend: Legend, glances: Sequence[Glance], ignore: int) -> bool:
    """Whether masks have the legend's colours, rather than values in the order of its lines."""
    known = {_code(one.colour or BLACK) for one in legend.entries} | {0}
    values = {*range(len(legend.entries)), ignore}
    if legend.valued:
        values = {_value(one) for one in legend.entries} | {ignore}
    in_colours = sum(bool(one.colours) and one.colours <= known for one in glances)
    in_values = sum(bool(one.values) and one.values <= values for one in glances)
    coloured = any(one.colours and not one.values for one in glances)
    return in_colours > in_values or (in_colours == in_values and (coloured or not legend.valued))


def _by_colours(legend: Legend, glances: Sequence[Glance]) -> Key:
    pairs: list[tuple[tuple[int, ...], Entry]] = [(one.colour or BLACK, one) for one in legend.entries]
    has_ground = any(one.ground for one in legend.entries) or BLACK in (colour for colour, _ in pairs)
    if not has_ground and any(0 in one.colours for one in glances):
        pairs.insert(0, (BLACK, Entry(GROUND)))  # a legend often names the foreground alone
    key = _keyed(pairs, None)
    return Key("colours", key.classes, key.legend)


def _by_values(masks: Masks, legend: Legend | None, glances: Sequence[Glance], ignore: int) -> Key:
    """Of names in the order of values, or of values alone; lossy masks do not vote."""
    sets = [one.values for one in glances if one.values]
    with_foreground = [one for one in sets if one - {0}]
    in_255 = sum(one <= {0, 255} for one in with_foreground) >= SURE_SHARE * len(with_foreground)
    values = [0, 255] if in_255 else sorted(frozenset[int]().union(*sets) - {ignore})
    names = None if legend is None else [one.name for one in legend.entries]
    if legend is not None and names is not None and not (in_255 and len(names) <= 2):
        ground = values[:1] == [0] and values[-1] == len(names) and not any(one.ground for one in legend.entries)
        values = list(range(len(names) + ground))
        names = [GROUND] * ground + names
    elif names is None and len(values) == 2 and values[0] == 0:
        names = [GROUND, unusual(masks.source) or "foreground"]
    elif names is None:
        names = [f"class {value}" if value else GROUND for value in values]
    elif len(names) == 1:
        names = [GROUND, *names]
    return _keyed([((value,), Entry(name)) for value, name in zip(values, names, strict=True)], ignore)


def _keyed(pairs: Sequence[tuple[tuple[int, ...], Entry]], ignore: int | None) -> Key:
    """A key of numbers and classes in order; `ignore` only if it stands for no class."""
    ordered = sorted((entry for _, entry in pairs), key=lambda one: not one.ground)  # the background is class 0
    named = [entry.name for entry in ordered if not entry.ignored]
    legend = [(numbers, IGNORE if entry.ignored else named.index(entry.name)) for numbers, entry in pairs]
    if ignore is not None and all(numbers != (ignore,) for numbers, _ in legend):
        legend.append(((ignore,), IGNORE))
    for name, count in Counter(named).items():
        if count > 1:
            raise DataError(f"two classes of masks are called {display(name)!r}; wanted names that differ")
    return Key("values", tuple(named), tuple(legend))


def _code(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
