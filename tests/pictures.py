"""Generated pictures with a rule that a small network learns at once: the class is the colour."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 40, 200), "green": (30, 200, 40), "red": (200, 40, 30)}


def write_folder(folder: Path, per_class: int = 24, side: int = 20, seed: int = 0) -> Path:
    """`folder/COLOUR/NN.png`: noise around the class' colour."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            noise = random.normal(0, 30, (side, side, 3))
            Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder
