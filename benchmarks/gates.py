"""Does `compare A B` ever say "faster" of two files that are equally fast, and does it find 10 %?

    python benchmarks/gates.py prepare FOLDER              two networks: the second is slower by about 10 %, truly
    python benchmarks/gates.py aa FOLDER results.csv       the first against itself, 50 times, on a quiet machine
    python benchmarks/gates.py aa-load FOLDER results.csv  the same under other load
    python benchmarks/gates.py ab FOLDER results.csv       the first against the second, 100 times, on a quiet machine
    python benchmarks/gates.py show results.csv

Each comparison is one of `featherweight compare`, whole: pairs of fresh processes until the interval is as narrow as
the margin of 2 %, at most 40. The other load is two processes that compute for random moments on any core. Rows are
appended as they come, so that a run that was ended goes on where it was.

The second network is the first with so many more depthwise convolutions at its end that the pooled median over 60
pairs, which no comparison shares, is nearest to 1.10 times the first one's time.
"""

import argparse
import csv
import math
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from featherweight.artifact import Artifact, read_artifact
from featherweight.measure.one import Case
from featherweight.measure.pairs import PairProtocol, log_ratios, one_pair
from featherweight.runtimes.settings import Settings
from featherweight.stats import verdict

COLUMNS = ("kind", "pairs", "word", "ratio", "low", "high", "seconds")
BURN = """
import random, time
while True:
    end = time.perf_counter() + random.uniform(0.02, 0.5)
    while time.perf_counter() < end:
        sum(range(1000))
    time.sleep(random.uniform(0.02, 0.5))
"""
SIZE = 128
KINDS = {
    "aa": ("A against itself, quiet", 50),
    "aa-load": ("A against itself, other load", 50),
    "ab": ("A against B, which is slower by about 10 %", 100),
}


def network(extra: int) -> "object":
    """MobileNetV2 0.35 at 128 px with `extra` depthwise convolutions more, on its 8×8 map."""
    import keras

    from featherweight.models.zoo import Shape, build

    model = build(Shape("mobilenet_v2", 0.35, SIZE), 10)
    at = next(layer for layer in reversed(model.layers) if len(layer.output.shape) == 4 and layer.output.shape[1] == 8)
    x = keras.layers.UpSampling2D(3)(at.output)
    for _ in range(extra):
        x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    y = keras.layers.Dense(10)(x)
    return keras.Model(model.inputs, keras.layers.Softmax()(keras.layers.Add()([model.outputs[0], y])))


def prepare(folder: Path) -> None:
    import numpy as np

    from featherweight.export import About, export
    from featherweight.train import set_seed

    pictures = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    made: dict[int, Artifact] = {}
    for extra in (1, 3, 4, 5):
        set_seed(0)
        name = f"extra-{extra}"
        about = About(name, tuple(map(str, range(10))), ())
        made[extra] = export(network(extra), folder / name, "onnx", about, pictures, "float32")
    rng = random.Random(1)
    base = case(made[1])
    found = {}
    for extra, artifact in list(made.items())[1:]:
        ratios = [one_pair(case(artifact), base, (), PairProtocol(), rng) for _ in range(60)]
        found[extra] = math.exp(statistics.median(ratios))
        print(f"extra {extra}: {found[extra]:.3f} times the time", flush=True)
    nearest = min(found, key=lambda extra: abs(found[extra] - 1.10))
    (folder / "a").symlink_to("extra-1")
    (folder / "b").symlink_to(f"extra-{nearest}")
    print(f"b is extra-{nearest}: {found[nearest]:.3f} times the time of a")


def case(artifact: Artifact) -> Case:
    return Case(artifact, "onnxruntime", Settings(threads=1))


def run(kind: str, folder: Path, table: Path, comparisons: int) -> None:
    """Append comparisons until there are so many of the kind."""
    a, b = case(read_artifact(folder / "a")), case(read_artifact(folder / ("b" if kind == "ab" else "a")))
    done = [row for row in rows(table) if row["kind"] == kind]
    for number in range(len(done), comparisons):
        burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(2 if kind == "aa-load" else 0)]
        try:
            start = time.perf_counter()
            said = verdict(log_ratios(a, b, (), PairProtocol(), random.Random(number)))
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()
        assert said.ratio is not None
        ratio = said.ratio
        row = (kind, ratio.n, said.word, *(f"{v:.4f}" for v in (ratio.median, ratio.low, ratio.high)))
        append(table, (*row, f"{time.perf_counter() - start:.1f}"))
        print(number + 1, *row, flush=True)


def rows(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def append(table: Path, row: tuple[object, ...]) -> None:
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(COLUMNS)
        writer.writerow(row)


def show(table: Path) -> None:
    print("| what | comparisons | faster | slower | no difference shown | median pairs | median seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found = rows(table)
    for kind, (what, _) in KINDS.items():
        some = [row for row in found if row["kind"] == kind]
        if some:
            words = [sum(row["word"] == word for row in some) for word in ("faster", "slower", "no difference shown")]
            pairs, seconds = (statistics.median(float(row[name]) for row in some) for name in ("pairs", "seconds"))
            print(f"| {what} | {len(some)} | {' | '.join(map(str, words))} | {pairs:.0f} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", *KINDS, "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--comparisons", type=int, help="in all, with those of earlier runs (default: 50, 50, 100)")
    args = parser.parse_args()
    if args.what == "prepare":
        prepare(args.folder)
    elif args.what == "show":
        show(args.folder)
    else:
        run(args.what, args.folder, args.table, args.comparisons or KINDS[args.what][1])


if __name__ == "__main__":
    main()
