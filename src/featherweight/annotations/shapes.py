"""Masks out of COCO's JSON: polygons and run lengths, as `coco` finds the file, its pictures and their parts.

The rings of one annotation are parts of one thing, each filled for itself. Run lengths, plain or compressed, mark
crowds and what has holes. What overlaps belongs to the annotation that comes later; runs lie below polygons. A mask has
no crowd: it is painted as its class is.

Imports errors, outlines and the folder's own files.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featherweight.annotations import coco
from featherweight.annotations.coco import Document
from featherweight.annotations.labels import Masked, Masks, Shapes
from featherweight.annotations.legend import GROUND
from featherweight.annotations.tree import Tree
from featherweight.errors import LabelError, display
from featherweight.outlines import runs_of

Shape = tuple[str, tuple[tuple[float, ...], ...], tuple[int, ...]]  # class, rings, run lengths


def read(tree: Tree, files: tuple[Path, ...]) -> Masks | None:
    """The shapes of a folder of this format, or None where its files have boxes alone.

    Raises:
        DataError: as `coco.read`.
    """
    classes, found, missing = coco.arranged(tree, files, read_document)
    if not any(shapes.polygons or shapes.runs for _, _, shapes in found.values()):
        return None
    names = classes if any(name.lower() in GROUND for name in classes) else ("background", *classes)
    return Masks(
        "coco",
        ", ".join(map(tree.show, files)),
        tuple(Masked(*found[picture]) for picture in tree.pictures if picture in found),
        tuple(picture for picture in tree.pictures if picture not in found),
        missing,
        (),
        (),
        tuple(sorted(names, key=lambda name: name.lower() not in GROUND)),
    )


def read_document(data: bytes) -> Document[Shapes]:
    """The shapes of one file.

    Raises:
        LabelError: as `coco.read_document`.
    """
    return coco.document_of(data, _packed, _shape, _gathered)


def _packed(fields: dict[str, Any]) -> dict[str, Any]:
    """Rings are held against the format while parsing, so that their numbers are there once only."""
    rings = fields.get("segmentation")
    if isinstance(rings, list):
        fields["segmentation"] = [tuple(map(float, ring)) if _is_ring(ring) else None for ring in rings]
    return fields


def _is_ring(ring: Any) -> bool:
    """Three points or more, as numbers that a picture can have."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        return False
    return all(type(one) in (int, float) and math.isfinite(one) and abs(one) < 2**31 for one in ring)


def _shape(one: Mapping[str, Any], names: Mapping[Any, str]) -> Shape | str:
    """A shape, or why there is none."""
    category, drawn = one.get("category_id"), one.get("segmentation")
    if not isinstance(category, int | str) or category not in names:
        return f"a shape of the unknown category {display(str(category)[:40])}"
    name = names[category]
    if isinstance(drawn, list) and drawn:
        if any(ring is None for ring in drawn):
            return f"{display(name)}: a ring that is no list of three points or more"
        return name, tuple(drawn), ()
    if isinstance(drawn, dict) and drawn.get("counts"):
        try:
            return name, (), tuple(_runs(drawn.get("counts")))
        except LabelError as error:
            return f"{display(name)}: {error}"
    return f"{display(name)}: an annotation without an outline"


def _runs(counts: Any) -> list[int]:
    if isinstance(counts, str):
        return runs_of(counts)
    if not isinstance(counts, list) or not all(type(one) is int and 0 <= one < 2**31 for one in counts):
        raise LabelError("run lengths that are no whole numbers")
    return counts


def _gathered(found: Sequence[Shape | str], height: int | None, width: int | None) -> Shapes:
    shapes = [one for one in found if not isinstance(one, str)]
    return Shapes(
        tuple((name, ring) for name, rings, _ in shapes for ring in rings),
        tuple((name, runs) for name, _, runs in shapes if runs),
        tuple(one for one in found if isinstance(one, str)),
        height,
        width,
    )
