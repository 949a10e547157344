"""Pictures of coloured rectangles with their boxes, in YOLO's layout: the smallest data that a detector learns from."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.boxed import lines, write

CLASSES = ("red", "blue")
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SIDE = 64


def rectangles_folder(folder: Path, counts: tuple[int, int, int] = (14, 5, 5)) -> Path:
    """Parts train, val and test; every picture has one rectangle of each class."""
    random = np.random.default_rng(0)
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        for number in range(count):
            pixels = random.integers(100, 140, (SIDE, SIDE, 3)).astype(np.uint8)
            boxes = []
            for half, name in enumerate(random.permutation(CLASSES)):  # one to the left, one to the right
                left, top = 32 * half + int(random.integers(0, 10)), int(random.integers(0, 36))
                width, height = int(random.integers(14, 22)), int(random.integers(14, 28))
                pixels[top : top + height, left : left + width] = COLOURS[str(name)]
                boxes.append((str(name), left, top, left + width, top + height))
            place = folder / "images" / part / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
            write(folder / "labels" / part / f"{number}.txt", lines(boxes, CLASSES, SIDE, SIDE))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    write(folder / "data.yaml", f"train: images/train\nval: images/val\ntest: images/test\nnames:\n{names}")
    return folder
