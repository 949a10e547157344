"""Boxes out of the file itself are those that are decoded outside."""

from dataclasses import replace

import numpy as np
import onnx.helper
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray

from featherweight.boxes import Boxes, Decoding, Scale
from featherweight.boxes_in_graph import with_boxes
from featherweight.decode import decode
from featherweight.errors import ExportError
from featherweight.suppress import suppress
from tests.detector import DECODING, detector_bytes, red_at

SCALES = (Scale(4, 6, ((10.0, 20.0), (30.0, 12.0)), 1.05), Scale(2, 3, ((40.0, 44.0), (70.0, 30.0)), 1.1))
YOLO = Decoding("yolo", SCALES, 64, 96, classes=3, most=12)
FREE = Decoding("distances", (Scale(8, 12), Scale(4, 6)), 64, 96, classes=3)
KINDS = {
    "yolo": YOLO,
    "softmax": replace(YOLO, softmax=True),
    "gaussian": replace(YOLO, uncertain=True),
    "activated": replace(YOLO, activated=True),
    "region": replace(YOLO, kind="region"),
    "grid": replace(YOLO, kind="grid"),
    "grid of roots": replace(YOLO, kind="grid", roots=True),
    "distances": FREE,
    "bins": replace(FREE, bins=6),
}


def nothing(decoding: Decoding, opset: int = 17) -> bytes:
    """A file that answers its input."""
    shape = f"float[1,{decoding.priors},{decoding.values}]"
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> net ({shape} x) => ({shape} rows) {{ rows = Identity (x) }}'
    data: bytes = onnx.parser.parse_model(text).SerializeToString()
    return data


def by_onnx(data: bytes, fed: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: fed})
    return np.asarray(found)


def rows_of(boxes: Boxes) -> NDArray[np.float32]:
    return np.column_stack([boxes.corners, boxes.scores, boxes.labels]).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_s_boxes_are_ours(kind: str) -> None:
    decoding = KINDS[kind]
    rng = np.random.default_rng(3)
    plain = decoding.activated or decoding.kind == "grid"
    shape = (1, decoding.priors, decoding.values)
    raw = (rng.random(shape) if plain else rng.normal(0, 1.5, shape)).astype(np.float32)
    raw = np.abs(raw) if kind == "distances" else raw  # below 0 are boxes with their sides the wrong way round
    (found,) = decode(raw, decoding)
    wanted = suppress(found, decoding.iou, decoding.most)
    assert 3 <= len(wanted) < len(found)
    np.testing.assert_allclose(by_onnx(with_boxes(nothing(decoding), decoding), raw), rows_of(wanted), 1e-4, 1e-4)


def test_a_detector_tells_boxes_and_none_where_there_is_none() -> None:
    data = with_boxes(detector_bytes(), DECODING)
    (one,) = by_onnx(data, red_at(1, 2)[None].astype(np.float32))
    assert one[:4].tolist() == [12, 4, 28, 20] and one[4] > 0.99 and one[5] == 0
    assert by_onnx(data, np.zeros((1, 32, 32, 3), np.float32)).shape == (0, 6)


def test_what_cannot_have_boxes() -> None:
    with pytest.raises(ExportError, match="operator set 12; boxes in the graph need 13"):
        with_boxes(nothing(YOLO, 12), YOLO)
    with pytest.raises(ExportError, match=r"outputs \[1, 60, 8\]; wanted one, \[1, 120, 7\]"):
        with_boxes(nothing(YOLO), FREE)
