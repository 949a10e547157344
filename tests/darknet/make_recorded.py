"""Writes recorded.npz: what OpenCV 4.14's Darknet importer gives, for the tests that run without it.

    python -m venv opencv4 && opencv4/bin/pip install 'opencv-python-headless==4.14.*'
    PYTHONPATH=src python -m tests.darknet.make_recorded opencv4/bin/python

Small networks of `nets.NETS`, their last layers whole; and of Yolo-Fastest every `EVERY`-th row of its raw output.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.darknet.nets import NETS, picture, written

HERE = Path(__file__).parent
YOLO_FASTEST = HERE.parents[2] / "shared" / "data" / "darknet-yolo-fastest"
EVERY = 25
# Network → OpenCV's name of its last layer. The others have what OpenCV does not know, or does in another way.
LAST = {
    "a cross-stage block": "leaky_12", "maxpools": "pool_6", "shortcuts in a row": "leaky_7",
    "classifier": "softmax_3",
}  # fmt: skip


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """A picture that every machine computes alike."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1).astype(np.uint8)


def asked(
    python: str, cfg: Path, weights: Path, pictures: NDArray[np.uint8], layers: str
) -> dict[str, NDArray[np.float32]]:
    """Ask OpenCV 4 in a process of its own; layer → (n, h, w, channels)."""
    with tempfile.TemporaryDirectory() as name:
        given, out = Path(name) / "pictures.npy", Path(name) / "out.npz"
        np.save(given, pictures)
        script = str(HERE / "opencv4.py")
        subprocess.run([python, script, str(cfg), str(weights), str(given), layers, str(out)], check=True, env={})
        with np.load(out) as found:
            return {layer: np.moveaxis(found[layer], 1, -1) for layer in layers.split(",")}


def yolo_fastest(python: str, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Its raw output (n, 1500, 85)."""
    files = YOLO_FASTEST / "yolo-fastest-1.1.cfg", YOLO_FASTEST / "yolo-fastest-1.1.weights"
    maps = asked(python, *files, pictures, "conv_120,conv_129")
    return np.concatenate([one.reshape(len(one), -1, 85) for one in maps.values()], 1)


def pictures() -> NDArray[np.uint8]:
    """For Yolo-Fastest."""
    return np.stack([smooth(320, 320), picture(320, 320)])


def main(python: str) -> None:
    recorded = {"yolo-fastest": yolo_fastest(python, pictures())[:, ::EVERY]}
    for name, last in LAST.items():
        with tempfile.TemporaryDirectory() as folder:
            cfg, weights, network = written(NETS[name], Path(folder))
            one = picture(*network.picture[:2])[None]
            recorded[name] = next(iter(asked(python, cfg, weights, one, last).values()))
    np.savez_compressed(HERE / "recorded.npz", **{name: array.astype(np.float32) for name, array in recorded.items()})


if __name__ == "__main__":
    main(sys.argv[1])
