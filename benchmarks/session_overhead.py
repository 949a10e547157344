"""What `session.run` adds to the bare call of the library beneath it: the aim is at most 3 %.

One picture (1, height, width, 3) of bytes is what both sides start from, and both run the same file with the same
threads, precision, level of optimization, engine and kernels, which is what our session does by default. The bare side
is the shortest code that a user of the library writes:

- onnxruntime: `session.run(None, {name: picture.astype(np.float32)})[0]`
- litert: `set_tensor(…, picture.astype(dtype))`, `invoke()`, `get_tensor(…)`
- openvino: `compiled(picture.astype(dtype))[0]`, a `CompiledModel` being called
- opencv: `net.setInput(picture.astype(np.float32))`, `net.forward()`

In both: from the bytes to the first output, with the conversion to the type that the input has (none for uint8) and,
where the file has channels first, their transposition. In ours only: the check of the picture's size, quantized
outputs made real numbers, what keeps an output from changing with the next run. In neither: loading, the first runs.

Each round loads both sides anew, in random order, in this process, which is pinned to one core (so that more than one
thread is of no use here). Within a round, blocks of both sides alternate, in random order, each of so many calls as
take about 15 ms; a pair of neighbouring blocks gives one ratio of their median times. Printed are the median ratio
over all pairs and its 95 % interval by order statistics. Exit code 1: a whole interval lies above the aim.

    python benchmarks/session_overhead.py ARTIFACT… [--rounds 10] [--pairs 20] [--json FILE]
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, read_artifact
from featherweight.errors import RuntimeFailure
from featherweight.runtimes import Session, runtime_named, supporting
from featherweight.runtimes.settings import Settings
from featherweight.stats import median_interval

AIM = 1.03
BLOCK_SECONDS = 0.015
WARM_UP_SECONDS = 0.3

Call = Callable[[NDArray[np.uint8]], object]


def bare_onnxruntime(artifact: Artifact, session: Session) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loaded = onnxruntime.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
    entry = loaded.get_inputs()[0]
    name, dtype = entry.name, np.uint8 if "uint8" in entry.type else np.float32
    if entry.shape[1] == 3:
        return lambda picture: loaded.run(None, {name: picture.transpose(0, 3, 1, 2).astype(dtype, order="C")})[0]
    return lambda picture: loaded.run(None, {name: picture.astype(dtype, copy=False)})[0]


def bare_litert(artifact: Artifact, session: Session) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(artifact.model_path), num_threads=1)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    index, dtype = entry["index"], entry["dtype"]

    def run(picture: NDArray[np.uint8]) -> object:
        interpreter.set_tensor(index, picture.astype(dtype, copy=False))
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def bare_openvino(artifact: Artifact, session: Session) -> Call:
    import openvino  # our runtime has imported it before, without its telemetry

    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(artifact.model_path), "CPU", settings)
    dtype = compiled.inputs[0].element_type.to_dtype()
    if compiled.inputs[0].partial_shape[1] == 3:
        return lambda picture: compiled(picture.transpose(0, 3, 1, 2).astype(dtype, order="C"))[0]
    return lambda picture: compiled(picture.astype(dtype, copy=False))[0]


def bare_opencv(artifact: Artifact, session: Session) -> Call:
    import cv2

    engine = cv2.dnn.ENGINE_NEW if session.ran.optimization == "new" else cv2.dnn.ENGINE_CLASSIC
    cv2.setNumThreads(1)
    litert = artifact.format == "litert"
    read = cv2.dnn.readNetFromTFLite if litert else cv2.dnn.readNetFromONNX
    net = read(str(artifact.model_path), engine)
    channels_first = session.ran.details["input"].startswith("float32 1×3×")

    def run(picture: NDArray[np.uint8]) -> object:
        values = picture.transpose(0, 3, 1, 2) if channels_first else picture
        net.setInput(values.astype(np.float32, order="C"))
        return net.forward()

    return run


BARE = {
    "onnxruntime": bare_onnxruntime,
    "litert": bare_litert,
    "openvino": bare_openvino,
    "opencv": bare_opencv,
}


def load_both(artifact: Artifact, runtime: str, rng: random.Random) -> dict[str, Call]:
    """Both sides, loaded in random order, warm; that they answer alike is made sure of."""
    known = runtime_named(runtime).load(artifact, Settings())  # what the bare side wants to know; not timed
    picture = picture_for(known)
    wanted = known.run(picture)
    loads: dict[str, Callable[[], Call]] = {
        "ours": lambda: runtime_named(runtime).load(artifact, Settings()).run,
        "bare": lambda: BARE[runtime](artifact, known),
    }
    sides = {name: loads[name]() for name in rng.sample(sorted(loads), 2)}
    found = np.asarray(sides["bare"](picture), np.float32)
    scale = 255 if found.max() > 2 else 1  # codes of a quantized output, or probabilities
    if not np.allclose(found.ravel() / scale, wanted.ravel(), atol=0.01):
        raise SystemExit(f"{runtime} on {artifact.name}: the bare call answers otherwise than the session")
    for call in sides.values():
        end = time.perf_counter() + WARM_UP_SECONDS
        while time.perf_counter() < end:
            call(picture)
    return sides


def picture_for(session: Session) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, session.height, session.width, 3), np.uint8)


def block_ms(call: Call, picture: NDArray[np.uint8], runs: int) -> float:
    samples = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        call(picture)
        samples.append(time.perf_counter_ns() - start)
    return statistics.median(samples) / 1e6


def compare(artifact: Artifact, runtime: str, rounds: int, pairs: int, rng: random.Random) -> dict[str, object]:
    """Ratios of ours to bare, one a pair of blocks."""
    ratios, bare_ms = [], []
    picture = picture_for(runtime_named(runtime).load(artifact, Settings()))
    for _ in range(rounds):
        sides = load_both(artifact, runtime, rng)
        runs = max(3, round(BLOCK_SECONDS * 1e3 / block_ms(sides["bare"], picture, 5)))
        for _ in range(pairs):
            times = {name: block_ms(sides[name], picture, runs) for name in rng.sample(sorted(sides), 2)}
            ratios.append(times["ours"] / times["bare"])
            bare_ms.append(times["bare"])
    low, high = median_interval(ratios) or (float("nan"), float("nan"))
    return {
        "artifact": artifact.name,
        "runtime": runtime,
        "version": runtime_named(runtime).version(),
        "bare_ms": statistics.median(bare_ms),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "pairs": len(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path, help="artifact folders, or bare files")
    parser.add_argument("--runtime", default="all", help="names, separated by commas (default: all)")
    parser.add_argument("--rounds", type=int, default=10, help="how often both sides are loaded (default: 10)")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of blocks a round (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the orders (default: 0)")
    parser.add_argument("--json", type=Path, help="a file for the rows, one a line; new ones are appended")
    args = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = random.Random(args.seed)
    over = []
    print(f"{'artifact':<40} {'runtime':<12} {'bare ms':>8} {'ours/bare':>9}  95 % interval  pairs")
    for artifact in map(read_artifact, args.artifacts):
        named = replace(artifact, name=str(artifact.path)[-40:])
        for runtime in supporting(artifact, args.runtime):
            try:
                row = compare(named, runtime, args.rounds, args.pairs, rng)
            except RuntimeFailure as error:
                print(f"{named.name:<40} {runtime:<12} {error}")
                continue
            print(
                f"{row['artifact']:<40} {row['runtime']:<12} {row['bare_ms']:>8.3f} {row['ratio']:>9.4f}  "
                f"{row['low']:.4f}–{row['high']:.4f}  {row['pairs']}",
                flush=True,
            )
            over += [row] if float(str(row["low"])) > AIM else []
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
