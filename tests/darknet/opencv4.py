"""What OpenCV 4's Darknet importer computes; run by a Python that has it, as OpenCV 5 has none:

    python opencv4.py CFG WEIGHTS PICTURES.npy LAYERS OUT.npz

LAYERS are names of OpenCV's layers with commas between. PICTURES are (n, h, w, 3) uint8 RGB; OUT gets an array
(n, channels, h, w) a layer.
"""

import sys

import cv2
import numpy as np


def main(cfg: str, weights: str, pictures: str, layers: str, out: str) -> None:
    net = cv2.dnn.readNetFromDarknet(cfg, weights)
    found: dict[str, list[np.ndarray]] = {name: [] for name in layers.split(",")}
    for picture in np.load(pictures):
        net.setInput(cv2.dnn.blobFromImage(picture, 1 / 255))
        for name, arrays in found.items():
            arrays.append(net.forward(name)[0])
    np.savez(out, version=cv2.__version__, **{name: np.stack(arrays) for name, arrays in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
