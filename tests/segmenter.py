"""A segmenter that needs no training: a pixel is of the colour that its neighbourhood has most of."""

from pathlib import Path

import numpy as np
import onnx.numpy_helper
import onnx.parser

from featherweight.artifact import Artifact, write_artifact
from featherweight.image import Pixels

CLASSES = ("dark", "red", "green")
SIZE, KERNEL = 32, 5
FIELD = KERNEL // 2  # pixels that it sees to each side


def segmenter_bytes(size: int | str = SIZE, first: bool = False, kernel: int = KERNEL, classes: int = 3) -> bytes:
    """The file: means of colours over a square, against 41 % of white; then a softmax.

    Args:
        size: of the input; a name leaves it open.
        first: the answer has its channels first, (1, classes, h, w).
        kernel: pixels, odd.
        classes: 3; 1 is the probability of red.
    """
    out = "float[1,{c},{s},{s}]" if first else "float[1,{s},{s},{c}]"
    last = "maps = Identity (p)" if first else "maps = Transpose <perm=[0,2,3,1]> (p)"
    ends = "p = Softmax <axis=1> (c)" if classes > 1 else "p = Sigmoid (c)"
    side = kernel // 2
    net = f"""<ir_version: 8, opset_import: ["" : 17]>
net (float[1,{size},{size},3] image) => ({out.format(c=classes, s=size)} maps) {{
 t = Transpose <perm=[0,3,1,2]> (image)
 c = Conv <kernel_shape=[{kernel},{kernel}], pads=[{side},{side},{side},{side}]> (t, w, b)
 {ends}
 {last}
}}"""
    colours = np.array([[0, 0, 0], [10, -10, 0], [-10, 10, 0]], np.float32)[-classes if classes == 3 else 1 :][:classes]
    weights = np.repeat(colours[:, :, None] / (255 * kernel**2), kernel**2, 2).reshape(classes, 3, kernel, kernel)
    bias = np.array([4.1, 0, 0] if classes == 3 else [-4.1], np.float32)  # 4 would be a tie at a straight edge
    model = onnx.parser.parse_model(net)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(one.astype(np.float32), name) for name, one in (("w", weights), ("b", bias))
    )
    data: bytes = model.SerializeToString()
    return data


def make_segmenter(folder: Path, resize: str = "tile", size: int = SIZE, kernel: int = KERNEL) -> Artifact:
    """The artifact folder of it; on a black picture it answers exp(4.1) for dark against 1 and 1."""
    artifact = Artifact(
        folder, "model.onnx", "segmenter", "onnx", "float32", "", 0, task="segment", classes=CLASSES, height=size,
        width=size, resize=resize,
    )  # fmt: skip
    odds = np.exp(np.array([4.1, 0, 0], np.float32))
    answer = np.tile(odds / odds.sum(), (1, size, size, 1)).astype(np.float32)
    return write_artifact(
        artifact, segmenter_bytes(size, kernel=kernel), (np.zeros((1, size, size, 3), np.uint8), answer)
    )


def patches(height: int, width: int, seed: int = 0, side: int = 16) -> Pixels:
    """A picture of squares that are black, red and green, at random."""
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    places = np.random.default_rng(seed).integers(0, 3, (-(-height // side), -(-width // side)))
    return colours[places].repeat(side, 0).repeat(side, 1)[:height, :width]
