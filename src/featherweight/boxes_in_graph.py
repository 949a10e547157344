"""Decoding and suppression as part of an ONNX file: for a runtime whose caller wants boxes and no code of ours.

The file then answers (k, 6) for its one picture: left, top, right, bottom in pixels of its input, score, label; best
first. Its thresholds are fixed, and there is nothing left that int8 could be held against: it is made last. Boxes whose
sides are the wrong way round, of distances below 0, are not sorted out as `decode` does.

Imports boxes, decode and errors; onnx where it is used.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Decoding
from featherweight.decode import MOST_EXPONENT, cells_of
from featherweight.errors import ExportError

LEAST_OPSET = 13  # from which axes of Slice and Softmax mean what is written here
NAME = "boxes"


def with_boxes(data: bytes, decoding: Decoding) -> bytes:
    """An ONNX detector with decoding and suppression at its end.

    Args:
        data: the file, whose one output is (1, priors, values) of raw numbers.
        decoding: what they mean, with the thresholds that are to hold.

    Raises:
        ExportError: a file with another output, or of an operator set before 13.
    """
    import onnx

    model = onnx.ModelProto.FromString(data)
    opset = max([one.version for one in model.opset_import if one.domain in ("", "ai.onnx")], default=0)
    if opset < LEAST_OPSET:
        raise ExportError(f"operator set {opset}; boxes in the graph need {LEAST_OPSET}: export the model again")
    outputs = list(model.graph.output)
    shape = [side.dim_value for side in outputs[0].type.tensor_type.shape.dim] if len(outputs) == 1 else []
    if shape != [1, decoding.priors, decoding.values]:
        raise ExportError(f"outputs {shape or len(outputs)}; wanted one, [1, {decoding.priors}, {decoding.values}]")
    writer = _Writer(model.graph, outputs[0].name)
    _suppressed(writer, decoding, _corners(writer, decoding), _scores(writer, decoding))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(NAME, onnx.TensorProto.FLOAT, ["count", 6]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Writer:
    """Nodes and constants behind a graph; each call gives the name of what it wrote."""

    def __init__(self, graph: Any, rows: str):
        self._graph, self._rows, self._count = graph, rows, 0

    def name(self) -> str:
        self._count += 1
        return f"{NAME}_{self._count}"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        import onnx

        name = self.name()
        self._graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **settings: Any) -> str:
        import onnx

        name = output or self.name()
        self._graph.node.append(onnx.helper.make_node(kind, list(inputs), [name], name, **settings))
        return name

    def with_constant(self, kind: str, x: str, value: Any) -> str:
        """X and a constant."""
        return self.node(kind, x, self.constant(value))

    def columns(self, start: int, stop: int, of: str | None = None) -> str:
        """(1, priors, stop - start) of the rows."""
        bounds = (self.constant([number], np.int64) for number in (start, stop, -1))
        return self.node("Slice", of or self._rows, *bounds)

    def top(self, scores: str, most: str) -> tuple[str, str]:
        """(the greatest scores, their places)."""
        import onnx

        names = self.name(), self.name()
        self._graph.node.append(onnx.helper.make_node("TopK", [scores, most], list(names), names[0]))
        return names


def _corners(writer: _Writer, decoding: Decoding) -> str:
    """(1, priors, 4), as `decode` has them."""
    cells = cells_of(decoding.scales, decoding.height, decoding.width)
    place = np.stack([cells.column, cells.row], 1)
    side = np.stack([cells.cell_width, cells.cell_height], 1)
    if decoding.kind == "distances":
        away = writer.with_constant("Mul", _distances(writer, decoding), np.tile(side, 2))
        middle = writer.constant((place + 0.5) * side)
        start = writer.node("Sub", middle, writer.columns(0, 2, away))
        return writer.node("Concat", start, writer.node("Add", middle, writer.columns(2, 4, away)), axis=2)
    centre = _activated(writer, decoding, writer.columns(0, 2))
    reach = np.ones((decoding.priors, 1), np.float32) if decoding.kind == "grid" else cells.xy_scale[:, None]
    centre = writer.with_constant("Mul", centre, reach * side)
    centre = writer.with_constant("Add", centre, (place - (reach - 1) / 2) * side)
    half = writer.with_constant("Mul", _sides(writer, decoding, _units(decoding, cells)), 0.5)
    return writer.node("Concat", writer.node("Sub", centre, half), writer.node("Add", centre, half), axis=2)


def _units(decoding: Decoding, cells: Any) -> NDArray[np.float32]:
    """What sides are multiples of, (priors, 2) or (2,)."""
    if decoding.kind == "grid":
        return np.array([decoding.width, decoding.height], np.float32)
    return np.stack([cells.anchor_width, cells.anchor_height], 1)


def _sides(writer: _Writer, decoding: Decoding, units: NDArray[np.float32]) -> str:
    raw = writer.columns(2, 4)
    if decoding.kind == "grid":
        return writer.with_constant("Mul", writer.node("Mul", raw, raw) if decoding.roots else raw, units)
    if decoding.activated:
        return writer.with_constant("Mul", writer.node("Mul", raw, raw), 4 * units)
    return writer.with_constant("Mul", writer.node("Exp", writer.with_constant("Min", raw, MOST_EXPONENT)), units)


def _distances(writer: _Writer, decoding: Decoding) -> str:
    """(1, priors, 4) in cells."""
    raw = writer.columns(0, 4 * max(1, decoding.bins))
    if not decoding.bins:
        return raw
    shape = writer.constant([1, decoding.priors, 4, decoding.bins], np.int64)
    shares = writer.node("Softmax", writer.node("Reshape", raw, shape), axis=-1)
    means = writer.with_constant("MatMul", shares, np.arange(decoding.bins)[:, None])
    return writer.node("Reshape", means, writer.constant([1, decoding.priors, 4], np.int64))


def _scores(writer: _Writer, decoding: Decoding) -> str:
    """(1, priors, classes)."""
    start = decoding.values - decoding.classes
    raw = writer.columns(start, decoding.values)
    share = decoding.softmax or decoding.kind == "region"
    scores = writer.node("Softmax", raw, axis=-1) if share else _activated(writer, decoding, raw)
    if decoding.kind == "distances":
        return scores
    sure = _activated(writer, decoding, writer.columns(start - 1, start))
    if decoding.uncertain:
        doubt = writer.with_constant(
            "MatMul", _activated(writer, decoding, writer.columns(4, 8)), np.full((4, 1), 0.25)
        )
        sure = writer.node("Mul", sure, writer.node("Sub", writer.constant(1.0), doubt))
    return writer.node("Mul", scores, sure)


def _activated(writer: _Writer, decoding: Decoding, raw: str) -> str:
    return raw if decoding.activated or decoding.kind == "grid" else writer.node("Sigmoid", raw)


def _suppressed(writer: _Writer, decoding: Decoding, corners: str, scores: str) -> None:
    """The boxes that are left, as the output."""
    by_class = writer.node("Transpose", scores, perm=[0, 2, 1])
    most = writer.constant([decoding.most], np.int64)
    limits = most, writer.constant([decoding.iou]), writer.constant([decoding.score])
    # The sides' order does not matter for how much boxes overlap.
    kept = writer.node("NonMaxSuppression", corners, by_class, *limits)  # (k, 3): picture, class, prior
    found = writer.node("GatherND", by_class, kept)
    count = writer.node("Min", writer.node("Shape", found), most)
    best, places = writer.top(found, count)
    kept = writer.node("Gather", kept, places, axis=0)
    prior, label = (writer.node("Gather", kept, writer.constant(column, np.int64), axis=1) for column in (2, 1))
    first = writer.constant(0, np.int64)
    boxes = writer.node("Gather", writer.node("Gather", corners, first, axis=0), prior, axis=0)
    ahead = writer.constant([-1, 1], np.int64)
    columns = (
        writer.node("Reshape", one, ahead)
        for one in (best, writer.node("Cast", label, to=1))  # 1: float32
    )
    writer.node("Concat", boxes, *columns, axis=1, output=NAME)
