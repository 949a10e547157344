"""Does the memory of a prediction by tiles grow with the picture? The command line in a child, on ever larger pictures.

A picture is made by repeating one of a folder until it is as large as asked for, as a PNG. A fresh process each runs
`featherweight predict` on it with `--resize tile --masks`, and says at its end the peak of its resident memory as the
kernel counted it since it began (VmHWM). Without an artifact the network is one convolution of 3×3 and a sigmoid at
512×512, so that what is seen is the tiles' own need.

    python benchmarks/tiles.py ../shared/data/dsb2018-gray256/images --sides 2000,6000,20000 --csv results/tiles.csv
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from featherweight.artifact import Artifact, read_artifact, write_artifact
from featherweight.image import read_image
from featherweight.runtimes import runtime_named, supporting
from featherweight.runtimes.settings import Settings
from featherweight.strips import IndexPng

SIDE = 512
GREY = [(value, value, value) for value in range(256)]
CHILD = """
import pathlib, sys
from featherweight.cli import main
code = main(sys.argv[1:])
status = pathlib.Path("/proc/self/status").read_text()
print("peak", next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
sys.exit(code)
"""
NET = f"""<ir_version: 8, opset_import: ["" : 17]>
net (float[1,{SIDE},{SIDE},3] image) => (float[1,{SIDE},{SIDE},1] maps) {{
 t = Transpose <perm=[0,3,1,2]> (image)
 c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (t, w, b)
 p = Sigmoid (c)
 maps = Transpose <perm=[0,2,3,1]> (p)
}}"""


def one_convolution(folder: Path) -> Artifact:
    """White is where the mean of 3×3 pixels is over 64."""
    import onnx.numpy_helper
    import onnx.parser

    model = onnx.parser.parse_model(NET)
    arrays = {"w": np.full((1, 3, 3, 3), 0.1 / 27, np.float32), "b": np.array([-6.4], np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    golden = np.zeros((1, SIDE, SIDE, 3), np.uint8), np.full((1, SIDE, SIDE, 1), 1 / (1 + np.exp(6.4)), np.float32)
    artifact = Artifact(
        folder, "model.onnx", "one-convolution", "onnx", "float32", "", 0, task="segment", classes=("dark", "light"),
        height=SIDE, width=SIDE, resize="tile",
    )  # fmt: skip
    return write_artifact(artifact, model.SerializeToString(), golden)


def repeated(picture: Path, side: int, path: Path) -> None:
    """A PNG of side × side pixels."""
    grey = read_image(picture)[..., 0]
    times = -(-side // grey.shape[1])
    rows = np.tile(grey, (1, times))[:, :side]
    with IndexPng(path, side, side, GREY) as png:
        for start in range(0, side, len(rows)):
            png.put(rows[: side - start])


def measured(artifact: Path, picture: Path, masks: Path) -> tuple[float, float]:
    """(seconds, peak of resident memory in MiB) of a prediction in a child."""
    verb = ["predict", str(artifact), str(picture), "--resize", "tile", "--masks", str(masks)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *verb], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return time.perf_counter() - start, int(done.stdout.split()[-1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder; its first picture is repeated")
    parser.add_argument("--artifact", type=Path, help="a segmenter (default: one convolution)")
    parser.add_argument("--sides", default="2000,6000,20000", help="of the pictures, in pixels")
    parser.add_argument("--csv", type=Path, help="write the rows there")
    args = parser.parse_args()
    picture = min(path for path in args.pictures.iterdir() if path.suffix == ".png")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        artifact = read_artifact(args.artifact) if args.artifact else one_convolution(place / "net")
        runtime = supporting(artifact)[0]
        session = runtime_named(runtime).load(artifact, Settings())
        for side in map(int, args.sides.split(",")):
            large = place / f"{side}.png"
            repeated(picture, side, large)
            seconds, peak = measured(artifact.path, large, place / "masks")
            row = {
                "model": artifact.name, "input": f"{session.height}x{session.width}", "runtime": runtime,
                "side": side, "seconds": f"{seconds:.1f}", "peak_mib": f"{peak:.1f}",
            }  # fmt: skip
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            rows.append(row)
            large.unlink()
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
