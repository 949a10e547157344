"""A detector that needs no training: every red cell of a picture is a "red" box, every green one a "green" box."""

import io
from pathlib import Path

import numpy as np
import onnx.helper
import onnx.numpy_helper
import onnx.parser
from PIL import Image

from featherweight.artifact import Artifact, write_artifact
from featherweight.boxes import Decoding, Scale
from featherweight.image import Pixels
from tests.boxed import lines, write

CLASSES = ("red", "green")
CELL, CELLS = 8, 4
SIZE = CELL * CELLS
# A prior a cell, of two cells' size, in its middle.
DECODING = Decoding("yolo", (Scale(CELLS, CELLS, ((16.0, 16.0),)),), SIZE, SIZE, classes=2)
NET = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1,32,32,3] image) => (float[1,16,7] rows) {
 t = Transpose <perm=[0,3,1,2]> (image)
 c = Conv <kernel_shape=[8,8], strides=[8,8]> (t, w, b)
 p = Transpose <perm=[0,2,3,1]> (c)
 rows = Reshape (p, shape)
}"""


def detector_bytes() -> bytes:
    """The file: x, y, w and h are 0; objectness and classes are means of colours, from -8 to 8 and more."""
    kernel = np.zeros((7, 3), np.float32)
    kernel[4] = 16 / 255  # as bright as red or green alone
    kernel[5], kernel[6] = (16 / 255, -16 / 255, 0), (-16 / 255, 16 / 255, 0)
    bias = np.array([0, 0, 0, 0, -8, 0, 0], np.float32)
    arrays = {
        "w": np.repeat(kernel[:, :, None] / CELL**2, CELL**2, 2).reshape(7, 3, CELL, CELL),
        "b": bias,
        "shape": np.array([1, CELLS**2, 7], np.int64),
    }
    model = onnx.parser.parse_model(NET)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    data: bytes = model.SerializeToString()
    return data


def make_detector(folder: Path, resize: str = "stretch") -> Artifact:
    """The artifact folder of it."""
    picture = red_at(1, 2)
    artifact = Artifact(
        folder, "model.onnx", "detector", "onnx", "float32", "", 0, task="detect", classes=CLASSES, height=SIZE,
        width=SIZE, resize=resize, decoding=DECODING,
    )  # fmt: skip
    rows = np.zeros((1, CELLS**2, 7), np.float32)
    rows[..., 4] = -8
    rows[0, 1 * CELLS + 2, 4:] = 8, 16, -16
    return write_artifact(artifact, detector_bytes(), (picture[None], rows))


def red_at(row: int, column: int, colour: tuple[int, int, int] = (255, 0, 0), times: int = 1) -> Pixels:
    """A black picture with one cell of a colour, each pixel so many times."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = colour
    return pixels.repeat(times, 0).repeat(times, 1)


def cells_folder(folder: Path, pictures: int = 6) -> Path:
    """Pictures with a red and a green cell in YOLO's layout, all of them test but two.

    The boxes are those that the detector finds; in each second picture the green one is called red.
    """
    for number in range(pictures):
        red, green = (1, 1 + number % 2), (2 + number % 2, 2)
        pixels = red_at(*red) | red_at(*green, colour=(0, 255, 0))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        part = ("train", "val")[number] if number < 2 else "test"
        write(folder / "images" / part / f"p{number}.png", stream.getvalue())
        second = "red" if number % 2 else "green"
        boxes = [("red", *around(*red)), (second, *around(*green))]
        write(folder / "labels" / part / f"p{number}.txt", lines(boxes, CLASSES, SIZE, SIZE))
    write(folder / "classes.txt", "red\ngreen\n")
    return folder


def around(row: int, column: int) -> tuple[float, float, float, float]:
    """The box that the detector finds at a cell: left, top, right, bottom."""
    return (column - 0.5) * CELL, (row - 0.5) * CELL, (column + 1.5) * CELL, (row + 1.5) * CELL
