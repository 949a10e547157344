"""A segmenter that needs no training: a pixel brighter than a grey level is "thing", by a convolution and a sigmoid."""

from pathlib import Path

import numpy as np
import onnx.helper
import onnx.numpy_helper
import onnx.parser
from PIL import Image

from featherweight.artifact import Artifact, write_artifact
from featherweight.data.dataset import Audit, Dataset, Item
from featherweight.image import Pixels
from featherweight.masks import MaskSource

CLASSES = ("ground", "thing")
SIZE = 32
LEGEND = (((0,), 0), ((255,), 1))
NET = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1,SIZE,SIZE,3] image) => (float[1,SIZE,SIZE,1] masks) {
 t = Transpose <perm=[0,3,1,2]> (image)
 c = Conv <kernel_shape=[1,1]> (t, w, b)
 s = Sigmoid (c)
 masks = Transpose <perm=[0,2,3,1]> (s)
}"""


def answers(pixels: Pixels, level: float, steep: float = 0.25) -> np.ndarray:
    """What the file answers to pixels (…, 3): the probability of a thing (…, 1)."""
    grey = pixels.astype(np.float64).mean(axis=-1, keepdims=True)
    return (1 / (1 + np.exp(-steep * (grey - level)))).astype(np.float32)


def make_thresholder(
    folder: Path, level: float = 127.5, size: int = SIZE, resize: str = "stretch", classes: tuple[str, ...] = CLASSES
) -> Artifact:
    """The artifact folder of it."""
    model = onnx.parser.parse_model(NET.replace("SIZE", str(size)))
    arrays = {"w": np.full((1, 3, 1, 1), 0.25 / 3, np.float32), "b": np.array([-0.25 * level], np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    artifact = Artifact(
        folder, "model.onnx", folder.name, "onnx", "float32", "", 0, task="segment", classes=classes, height=size,
        width=size, resize=resize,
    )  # fmt: skip
    golden = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    return write_artifact(artifact, model.SerializeToString(), (golden, answers(golden, level)))


def scene(folder: Path, name: str, true: np.ndarray, bright: np.ndarray, part: str = "test") -> Item:
    """A picture that is bright where `bright` (h, w) is, and its mask, which says where a thing is."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, mask = folder / f"{name}.png", folder / f"{name}-mask.png"
    Image.fromarray(np.where(bright[..., None], np.uint8(220), np.uint8(30)).repeat(3, 2)).save(picture)
    Image.fromarray(np.where(true, np.uint8(255), np.uint8(0))).save(mask)
    return Item(
        picture, -1, part, name, name, *true.shape, mask=MaskSource(str(mask), "values", LEGEND)
    )  # fmt: skip


def square(top: int, left: int, side: int, size: int = SIZE) -> np.ndarray:
    """(size, size): whether a pixel is in a square."""
    inside = np.zeros((size, size), np.bool_)
    inside[top : top + side, left : left + side] = True
    return inside


def dataset_of(root: Path, items: list[Item], classes: tuple[str, ...] = CLASSES) -> Dataset:
    """A data set of these pictures, as no folder was read for."""
    parts = dict.fromkeys(item.part for item in items)
    counts = {part: {classes[1]: sum(item.part == part for item in items)} for part in parts}
    audit = Audit(counts, (SIZE,) * 3, (SIZE,) * 3, (), 0, (), (), (), ())
    return Dataset(root, classes, tuple(items), audit, "segment")
