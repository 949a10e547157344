"""A Darknet detector through our files and runtimes, against OpenCV 4's own Darknet importer on the same weights.

OpenCV 5 has no such importer, so that the other side needs a Python of its own:

    python -m venv opencv4 && opencv4/bin/pip install 'opencv-python-headless==4.14.*'
    python benchmarks/darknet.py CFG WEIGHTS PHOTOS --opencv opencv4/bin/python [--names FILE] [--json FILE]

Timed is one picture of the network's size, which is resized before:

- OpenCV: `setInput(blob)` of float32 numbers that were made before, and `forward` to the outputs of its region layers,
  which are decoded: sigmoids, boxes as shares of the picture, scores; of all cells, nothing suppressed.
- ours, "network": from the picture as bytes, conversion included, to the raw output as float32.
- ours, "boxes": the same and the boxes of it (`decode.decode`), in pixels of the input, for scores from the decoding's
  least on, the best first; nothing suppressed. This is the column to compare.

What is float is computed in float32, the layers of an int8 file that stay float, too: bfloat16, which OpenVINO takes by
itself where the processor can, costs a point more here. A short race finds the fastest runtime for each precision; then
a round starts fresh processes of all sides, which live together and run short blocks in random order. A round gives one
ratio, of the medians of the blocks' medians; printed is the median of the rounds with its 95 % interval by order
statistics.

Lost is 1 - AP50 of an int8 file's boxes, by the runtime that is timed, where those that float32 finds with a score over
0.3 are the true ones, on photos of the folder that int8 was not calibrated on. Of int8 files two are made: ONNX with
the first half of the layers in float, which are at the largest maps and move the outputs most, with smoothed channels
and no codes between convolutions and their activations; and plain LiteRT. Those that lose too much are in no race,
unless all do. (Layers that stay float here and there cost a conversion at each of their ends: chosen by
`quantize_within`, as many lose 0.67 points, and the file is slower than in float32.) Exit code 1: a whole interval is
below its aim, or more is lost than may be.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, read_artifact
from featherweight.boxes import true_boxes
from featherweight.decode import decode
from featherweight.device.environment import snapshot
from featherweight.device.load import Watch, reasons
from featherweight.errors import RuntimeFailure
from featherweight.export import About, export
from featherweight.image import read_image, resize
from featherweight.quantize import QuantizeSettings, quantize
from featherweight.quantize.make import read_source
from featherweight.runtimes import runtime_named, supporting
from featherweight.runtimes.settings import Settings
from featherweight.stats import median_interval
from featherweight.tasks.average_precision import MOST_BOXES, average_precision
from featherweight.tasks.detect import LEAST_SCORE, Detect

AIMS = {"float32": 1.5, "int8": 2.5}
MOST_LOST = 0.01  # of AP50
SURE = 0.3  # the least score of a float box that is to be found
BLOCKS, BLOCK_SECONDS, WARM_UP_SECONDS, TIMED = 8, 0.05, 0.3, 6
Pictures = NDArray[np.uint8]
Case = tuple[str, str]  # the names of a file and of a runtime


# ------------------------------------------------------------------------------------------------------- one side


def child() -> None:
    """A file of ours in a runtime, asked line by line."""
    session: Any = None
    pictures: list[Pictures] = []
    decoding: Any = None

    def run(picture: Pictures, boxes: bool) -> int:
        outputs = session.run(picture)
        return len(decode(outputs, decoding)[0]) if boxes else 0

    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "load":
            artifact = read_artifact(asked["artifact"])
            decoding = artifact.decoding
            settings = Settings(threads=asked["threads"], precision=asked["precision"])
            try:
                session = runtime_named(asked["runtime"]).load(artifact, settings)
            except RuntimeFailure as error:
                raise SystemExit(f"  {error}") from error
            pictures = [one[None] for one in np.load(asked["pictures"])]
            answer: dict[str, Any] = {"boxes": [run(picture, True) for picture in pictures]}
        else:
            samples: list[int] = []
            end = time.perf_counter() + asked["seconds"]
            while len(samples) < 3 or time.perf_counter() < end:
                picture = pictures[len(samples) % len(pictures)]
                start = time.perf_counter_ns()
                run(picture, asked["boxes"])
                samples.append(time.perf_counter_ns() - start)
            answer = {"ns": samples}
        print(json.dumps(answer), flush=True)


class Side:
    """A process that answers each line with a line."""

    def __init__(self, command: Sequence[str], load: dict[str, Any], block: dict[str, Any]):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._load, self._block = {"do": "load"} | load, {"do": "block"} | block

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def get_ready(self) -> dict[str, Any]:
        """Load and warm up; what the side says of itself."""
        told = self._ask(self._load)
        self._ask(self._block | {"seconds": WARM_UP_SECONDS})
        return told

    def block(self) -> float:
        """The median time of a short block, in ms."""
        return median(self._ask(self._block | {"seconds": BLOCK_SECONDS})["ns"]) / 1e6

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side died with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def ours(artifact: Artifact, runtime: str, threads: int, pictures: Path, boxes: bool) -> Side:
    load = {"artifact": str(artifact.path), "runtime": runtime, "threads": threads, "pictures": str(pictures)}
    return Side([sys.executable, __file__, "--child"], load | {"precision": "float32"}, {"boxes": boxes})


def opencv(python: str, cfg: Path, weights: Path, threads: int, pictures: Path) -> Side:
    load = {"cfg": str(cfg), "weights": str(weights), "threads": threads, "pictures": str(pictures)}
    return Side([python, str(Path(__file__).with_name("darknet_opencv4.py"))], load, {})


# ------------------------------------------------------------------------------------------------------ the files


def photos(folder: Path, height: int, width: int, rule: str, most: int, seed: int) -> Pictures:
    """So many photos (n, h, w, 3) of a folder, a seeded choice."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = random.Random(seed).sample(files, min(most, len(files)))
    return np.stack([resize(read_image(path), height, width, rule) for path in chosen])


def imported(cfg: Path, weights: Path, names: Path | None) -> tuple[Any, About]:
    """The network as a Keras model, and what its files say of themselves."""
    from featherweight.models.darknet import import_darknet
    from featherweight.models.heads import decoding_of_model

    model, classes, step = import_darknet(cfg, weights, names)
    decoding = decoding_of_model(model)
    if decoding is None:
        raise SystemExit(f"{cfg} ends in no boxes; wanted a detector")
    rule = str(step.settings.get("resize", "bilinear"))
    return model, About(cfg.stem, classes, (step,), task="detect", resize=rule, decoding=decoding)


def files(model: Any, about: About, folder: Path) -> list[Artifact]:
    """The network as our float32 files."""
    some = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]), np.uint8)
    return [
        export(model, folder / f"{kind}-float32", kind, replace(about, name=f"{about.name}-{kind}-float32"), some)
        for kind in ("onnx", "litert")
    ]


def in_int8(made: Sequence[Artifact], calibration: Pictures, float_first: int, folder: Path) -> list[Artifact]:
    """The float32 files in int8."""
    onnx, litert = made
    settings = QuantizeSettings(smooth=True, inner_codes=False, bias_correction=True)
    first = tuple(layer.name for layer in read_source(onnx, calibration, settings).file.layers[:float_first])
    return [
        quantize(onnx, folder / "onnx-int8", calibration, settings=replace(settings, skip=first)),
        quantize(litert, folder / "litert-int8", calibration),
    ]


def answers(artifact: Artifact, runtime: str, pictures: Pictures) -> NDArray[np.float32]:
    """The outputs (n, priors, values) of a file by a runtime."""
    session = runtime_named(runtime).load(artifact, Settings(precision="float32"))
    return np.concatenate([session.run(one[None]) for one in pictures])


def losses(made: Sequence[Artifact], float_file: Artifact, pictures: Pictures) -> dict[Case, float]:
    """What each int8 file loses by each runtime that runs it."""
    wanted = answers(float_file, supporting(float_file)[0], pictures)
    found = {}
    for artifact in made:
        for runtime in supporting(artifact):
            with suppress(RuntimeFailure):
                share, count = lost(artifact, wanted, answers(artifact, runtime, pictures))
                found[artifact.name, runtime] = share
                print(
                    f"{artifact.name} by {runtime}: {100 * share:.2f} points of AP50 lost on {count} boxes "
                    f"of {len(pictures)} photos",
                    flush=True,
                )
    return found


def lost(artifact: Artifact, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, int]:
    """The share of AP50 that is lost on what float32 finds, and how many boxes that is."""
    task = Detect(artifact)
    sizes = [(artifact.height or 0, artifact.width or 0)] * len(wanted)
    sure = task.boxes(wanted, sizes, SURE)
    true = [true_boxes(boxes.corners, boxes.labels) for boxes in sure]
    answered = task.boxes(found, sizes, LEAST_SCORE, MOST_BOXES)
    score = average_precision(answered, true, artifact.classes or (), resamples=1)
    return 1 - float(score["ap50"]), sum(map(len, sure))


# ----------------------------------------------------------------------------------------------------- the session


def fastest(cases: Sequence[tuple[Artifact, str]], threads: int, pictures: Path, rng: random.Random) -> int:
    """The place of the file and runtime with the least time in a short race of all."""
    with ExitStack() as stack:
        sides = {}
        for place, (artifact, runtime) in enumerate(cases):
            side = stack.enter_context(ours(artifact, runtime, threads, pictures, boxes=False))
            with suppress(RuntimeError):  # it cannot run this file
                side.get_ready()
                sides[place] = side
        times: dict[int, list[float]] = {place: [] for place in sides}
        for _ in range(BLOCKS):
            for place in rng.sample(list(sides), len(sides)):
                times[place].append(sides[place].block())
    for place in sorted(times, key=lambda one: median(times[one])):
        print(f"  {median(times[place]):7.2f} ms  {cases[place][0].name} by {cases[place][1]}", file=sys.stderr)
    return min(times, key=lambda one: median(times[one]))


def one_round(sides: dict[str, Side], rng: random.Random) -> tuple[dict[str, float], dict[str, Any]]:
    """The median of each side's blocks in ms, and what each said of itself."""
    with ExitStack() as stack:
        for side in sides.values():
            stack.enter_context(side)
        told = {name: sides[name].get_ready() for name in rng.sample(list(sides), len(sides))}
        blocks: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(BLOCKS):
            for name in rng.sample(list(sides), len(sides)):
                blocks[name].append(sides[name].block())
    return {name: median(values) for name, values in blocks.items()}, told


def session(
    chosen: dict[str, tuple[Artifact, str]], theirs: Callable[[], Side], threads: int, pictures: Path, rounds: int,
    rng: random.Random,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rounds of all sides → a row for each precision and for what of ours is timed."""
    times: dict[str, list[float]] = {}
    told: dict[str, Any] = {}
    for number in range(rounds):
        sides = {"opencv": theirs()}
        for precision, (artifact, runtime) in chosen.items():
            for what in ("network", "boxes"):
                sides[f"{precision} {what}"] = ours(artifact, runtime, threads, pictures, what == "boxes")
        found, told = one_round(sides, rng)
        for name, value in found.items():
            times.setdefault(name, []).append(value)
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    rows = []
    for name in [name for name in times if name != "opencv"]:
        precision, what = name.split()
        artifact, runtime = chosen[precision]
        ratios = [a / b for a, b in zip(times["opencv"], times[name], strict=True)]
        low, high = median_interval(ratios) or (None, None)
        rows.append(
            {
                "benchmark": "darknet", "precision": precision, "timed": what, "threads": threads,
                "artifact": artifact.name, "sha256": artifact.sha256, "runtime": runtime,
                "version": runtime_named(runtime).version(), "opencv": told["opencv"]["version"],
                "ms": median(times[name]), "opencv_ms": median(times["opencv"]),
                "ratio": median(ratios), "low": low, "high": high, "rounds": rounds, "ratios": ratios,
                "aim": AIMS[precision],
            }
        )  # fmt: skip
    return rows


def line(row: dict[str, Any]) -> str:
    """Of the table."""
    interval = "–" if row["low"] is None else f"{row['low']:.2f}–{row['high']:.2f}"
    return (
        f"| {row['precision']} | {row['timed']} | {row['threads']} | {row['runtime']} | {row['ms']:.2f} | "
        f"{row['opencv_ms']:.2f} | {row['ratio']:.2f} | {interval} | {row['aim']:g} |"
    )


def run(args: argparse.Namespace, folder: Path) -> int:
    """The whole of it; 1 where an aim is missed."""
    rng = random.Random(args.seed)
    model, about = imported(args.cfg, args.weights, args.names)
    made = files(model, about, folder)
    first = made[0]
    assert first.height is not None and first.width is not None
    every = photos(args.photos, first.height, first.width, first.resize or "stretch", args.images, args.seed)
    half = min(args.calibration, len(every) // 2)
    calibration, judged = every[:half], every[half:]
    small = [read_artifact(args.int8)] if args.int8 else in_int8(made, calibration, args.float_first, folder)
    for artifact in (*made, *small):
        print(f"{artifact.name}: {artifact.size_bytes:,} bytes; {artifact.steps[-1].settings}", file=sys.stderr)
    shares = losses(small, first, judged)
    fit = [case for case, share in shares.items() if share <= MOST_LOST] or list(shares)
    cases = {
        "float32": [(artifact, runtime) for artifact in made for runtime in supporting(artifact)],
        "int8": [(artifact, runtime) for artifact in small for name, runtime in fit if name == artifact.name],
    }
    timed = folder / "timed.npy"
    np.save(timed, judged[:TIMED])
    missed = False
    print("\n| precision | timed | threads | runtime | ms | OpenCV ms | ratio | 95 % interval | aim |")
    print("|---" * 9 + "|", flush=True)
    for threads in args.threads:
        chosen = {name: found[fastest(found, threads, timed, rng)] for name, found in cases.items()}
        theirs = partial(opencv, args.opencv, args.cfg, args.weights, threads, timed)
        before, watch = snapshot(), Watch.now()
        rows = session(chosen, theirs, threads, timed, args.rounds, rng)
        disturbed = list(reasons(before, snapshot(), watch.since()))
        for why in disturbed:
            print(f"  {why}", file=sys.stderr)
        for row in rows:
            row |= {"ap50_lost": shares.get((row["artifact"], row["runtime"]), 0.0), "disturbed": disturbed}
            print(line(row), flush=True)
            missed |= row["timed"] == "boxes" and row["high"] is not None and row["high"] < row["aim"]
            missed |= row["ap50_lost"] > MOST_LOST
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, sort_keys=True) + "\n")
    return int(missed)


def main() -> int:
    if sys.argv[1:] == ["--child"]:
        child()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path, help="a folder of photos, to calibrate on and to judge by")
    parser.add_argument("--opencv", required=True, help="a Python with OpenCV 4")
    parser.add_argument("--names", type=Path, help="the names of the classes, one a line")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10, help="of fresh processes (default: 10)")
    parser.add_argument("--images", type=int, default=500, help="photos in all (default: 500)")
    parser.add_argument("--calibration", type=int, default=250, help="of them to calibrate on (default: 250)")
    parser.add_argument("--float-first", type=int, default=54, help="layers that stay float (default: 54, half)")
    parser.add_argument("--int8", type=Path, help="an int8 artifact of the network that is there already, to time that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the rows, one a line; new ones are appended")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
        return run(args, Path(scratch))


if __name__ == "__main__":
    raise SystemExit(main())
