"""Pictures of discs with their masks, and a tiny U-Net: the smallest data and net that segment."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from featherweight.data import Audit, Dataset, Item
from featherweight.masks import MaskSource

CLASSES = ("ground", "disc")
SIDE = 32
LEGEND = (((0,), 0), ((100,), 1), ((200,), 2), ((255,), 255))
COLOURS = ((90, 90, 90), (200, 60, 60), (60, 60, 200))


def masked(folder: Path, classes: int = 2, counts: tuple[int, int, int] = (12, 4, 4), side: int = SIDE) -> Dataset:
    """Noise with a disc of each class but the first; the mask of each has a ring of nothing asked."""
    random = np.random.default_rng(0)
    items = []
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        for number in range(count):
            name = f"{part}{number}.png"
            items.append(_drawn(folder, name, part, (classes, side), random))
    audit = Audit({}, (side,) * 3, (side,) * 3, (), 0, (), (), (), ())
    names = (*CLASSES, "other")[:classes]
    return Dataset(folder, names, tuple(items), audit, "segment")


def _drawn(folder: Path, name: str, part: str, sizes: tuple[int, int], random: np.random.Generator) -> Item:
    classes, side = sizes
    ys, xs = np.mgrid[:side, :side]
    pixels = random.normal(0, 12, (side, side, 3)) + COLOURS[0]
    mask = np.zeros((side, side), np.uint8)
    for label in range(1, classes):
        middle, radius = random.uniform(8, side - 8, 2), random.uniform(5, 8)
        far = np.hypot(ys - middle[0], xs - middle[1])
        pixels[far < radius] += np.array(COLOURS[label]) - COLOURS[0]
        mask[far < radius + 0.7] = 255
        mask[far < radius] = 100 * label
    for kind, array in (("images", np.clip(pixels, 0, 255).astype(np.uint8)), ("masks", mask)):
        place = folder / kind / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(place)
    source = MaskSource(str(folder / "masks" / name), "values", LEGEND)
    return Item(folder / "images" / name, -1, part, name, name, side, side, None, source)


def unet(classes: int = 2, size: int = SIDE, width: int = 8, name: str = "tiny") -> Any:
    """Two levels, a skip, and a sigmoid for two classes."""
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(image)
    fine = _block(x, width, 1, "fine")
    x = _block(fine, 2 * width, 2, "coarse")
    x = keras.layers.UpSampling2D(interpolation="bilinear", name="up")(x)
    x = keras.layers.Concatenate(name="skip")([x, fine])
    x = _block(x, width, 1, "back")
    x = keras.layers.Conv2D(1 if classes == 2 else classes, 1, name="logits")(x)
    ends = keras.layers.Activation("sigmoid", name="end") if classes == 2 else keras.layers.Softmax(name="end")
    return keras.Model(image, ends(x), name=name)


def _block(x: Any, filters: int, strides: int, name: str) -> Any:
    x = keras.layers.Conv2D(filters, 3, strides, "same", use_bias=False, name=f"{name}_conv")(x)
    x = keras.layers.BatchNormalization(momentum=0.8, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
