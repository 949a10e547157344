"""Each file as `featherweight tune` chose it, against what a user gets who calls each library plainly.

The libraries' own defaults, on the same file: ONNX Runtime's `InferenceSession(path)` (all cores), LiteRT's
`Interpreter(path)` (one thread), OpenVINO's `compile_model(path, "CPU")`, OpenCV's `dnn.readNet(path)` (all cores). All
sides of a file run in one session: a round starts a fresh process each, on the same cores, and lets them run short
blocks in random order; of each round there is one ratio a peer. Timed is the same on all sides: from a picture as
uint8 (1, h, w, 3) to the outputs as float32.

    python benchmarks/tune.py ARTIFACT … [--rounds 20] [--quick] [--wait 300] [--output results/tune.jsonl]

An artifact that is tuned on this device already is not tuned again.
"""

import argparse
import contextlib
import json
import logging
import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, read_artifact
from featherweight.device import this_device
from featherweight.device.environment import snapshot
from featherweight.device.load import Watch, reasons, wait_until_quiet
from featherweight.runtimes import RUNTIMES
from featherweight.runtimes.settings import Ran, Settings, settings_of
from featherweight.stats import MARGIN, Verdict, percentile, verdicts
from featherweight.tune import QUICK, Limits, tune

CLAIM = 2.0  # "2 to 5 times faster than a default choice"
BLOCKS, BLOCK_SECONDS, WARMUP_SECONDS, WARMUP_RUNS, INPUTS = 8, 0.03, 0.2, 5, 8


class Called(NamedTuple):
    """A library, called plainly: how the file is run, and the shape and type of number that it takes."""

    run: Callable[[NDArray[Any]], NDArray[Any]]
    shape: Sequence[int]
    kind: np.dtype[Any]


# -------------------------------------------------------------------------------- the peers, as anybody calls them


def onnxruntime_default(path: str) -> Called:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    entry = session.get_inputs()[0]
    kind = np.dtype({"tensor(float)": "float32", "tensor(uint8)": "uint8"}[entry.type])
    return Called(lambda batch: session.run(None, {entry.name: batch})[0], entry.shape, kind)


def litert_default(path: str) -> Called:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(batch: NDArray[Any]) -> NDArray[Any]:
        interpreter.set_tensor(entry["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return Called(run, entry["shape"].tolist(), np.dtype(entry["dtype"]))


def openvino_default(path: str) -> Called:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU")
    entry = compiled.inputs[0]
    shape = [side.get_length() if side.is_static else 1 for side in entry.partial_shape]
    return Called(lambda batch: compiled(batch)[0], shape, entry.element_type.to_dtype())


def opencv_default(path: str) -> Called:
    import cv2
    import onnx

    network = cv2.dnn.readNet(path)
    shape = [1, 3, 0, 0]  # it turns the axes of a .tflite file
    if path.endswith(".onnx"):
        shape = [side.dim_value for side in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]

    def run(batch: NDArray[Any]) -> NDArray[Any]:
        network.setInput(batch)
        return network.forward()

    return Called(run, shape, np.dtype("float32"))


PEERS: dict[str, Callable[[str], Called]] = {
    "onnxruntime": onnxruntime_default,
    "litert": litert_default,
    "openvino": openvino_default,
    "opencv": opencv_default,
}


class Plain:
    """A peer's default in the place of a runtime, so that the worker's own child can run it; also its session."""

    def __init__(self, name: str):
        self.name, self.ran = name, Ran(None, "cpu", "the library's own default", None)

    def prepare(self, artifact: Artifact) -> None:
        """Nothing: each import is part of loading here."""

    def load(self, artifact: Artifact, settings: Settings) -> "Plain":
        """Load the file as the library does by itself."""
        self._called = PEERS[self.name](str(artifact.model_path))
        sides = self._called.shape[2:] if self._called.shape[1] == 3 else self._called.shape[1:3]
        self.height, self.width = artifact.height or sides[0], artifact.width or sides[1]
        return self

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As every user has to: into the file's order of axes and type of number, and through it."""
        values = batch.transpose(0, 3, 1, 2) if self._called.shape[1] == 3 else batch
        return np.asarray(self._called.run(np.ascontiguousarray(values, self._called.kind)), np.float32)


def child(peer: str) -> None:
    """The worker's child with one runtime: the library as it is."""
    from featherweight.worker import child as worker

    plain = Plain(peer)
    worker.runtime_named = lambda name: plain
    worker.main()


# ---------------------------------------------------------------------------------------------------- the session


class Side:
    """A process: our choice, or a peer's default."""

    def __init__(self, arguments: Sequence[str], artifact: Artifact, runtime: str, settings: Settings):
        self._process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._job = {
            "artifact": str(artifact.path), "runtime": runtime, "settings": asdict(settings), "cpus": None,
        }  # fmt: skip

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def get_ready(self) -> None:
        """Load, take inputs, warm up."""
        self.ask("load", **self._job)
        self.ask("inputs", paths=[], count=INPUTS)
        self.ask("warm_up", seconds=WARMUP_SECONDS, runs=WARMUP_RUNS)

    def block(self) -> float:
        """The median of a short block, in ms."""
        return percentile(self.ask("block", seconds=BLOCK_SECONDS)["ns"], 50) / 1e6

    def ask(self, command: str, **values: Any) -> dict[str, Any]:
        """A command of the worker's child, and its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"do": command, **values}).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(said[-1] if said else f"died with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


@dataclass
class Row:
    """A file: how it was tuned, and each peer's default against that."""

    artifact: Artifact
    choice: str
    ms: dict[str, list[float]]  # our choice ("") and each peer: the median of each round
    verdicts: dict[str, Verdict]  # the peer's time against the choice's
    failed: dict[str, str]

    def line(self) -> str:
        """Of the table."""
        cells = [f"| {self.artifact.name} | {self.choice} | {median(self.ms['']):.2f} "]
        for peer in PEERS:
            found = self.verdicts.get(peer)
            if found is None or found.ratio is None:
                cells.append(f"| {'fails' if peer in self.failed else '–'} ")
            else:
                ratio = found.ratio
                cells.append(f"| {median(self.ms[peer]):.2f}: {ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f}) ")
        return "".join(cells) + "|"


def session(artifact: Artifact, runtime: str, settings: Settings, rounds: int, rng: random.Random) -> Row:
    """All sides of a file, round after round of fresh processes."""
    ms: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    peers = [peer for peer in PEERS if RUNTIMES[peer].supports(artifact) is None]
    for number in range(rounds):
        names = ["", *(peer for peer in peers if peer not in failed)]
        for name, value in one_round(artifact, runtime, settings, names, failed, rng).items():
            ms.setdefault(name, []).append(value)
        print(f"{artifact.name}: round {number + 1} of {rounds}", file=sys.stderr)
    ms = {name: values for name, values in ms.items() if name not in failed}
    ratios = {
        peer: [math.log(theirs / ours) for theirs, ours in zip(values, ms[""], strict=True)]
        for peer, values in ms.items() if peer
    }  # fmt: skip
    found = dict(zip(ratios, verdicts(list(ratios.values())), strict=True))
    return Row(artifact, said(runtime, settings), ms, found, failed)


def one_round(
    artifact: Artifact, runtime: str, settings: Settings, names: Sequence[str], failed: dict[str, str],
    rng: random.Random,
) -> dict[str, float]:  # fmt: skip
    """The median of each side's blocks, in ms; who dies is named in `failed`."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name in rng.sample(names, len(names)):
            arguments = [__file__, "--child", name] if name else ["-m", "featherweight.worker.child"]
            sides[name] = stack.enter_context(Side(arguments, artifact, runtime, settings))
        for name, side in list(sides.items()):
            try:
                side.get_ready()
            except RuntimeError as error:
                if not name:
                    raise
                failed[name] = str(error)
                del sides[name]
        blocks: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(BLOCKS):
            for name in rng.sample(list(sides), len(sides)):
                blocks[name].append(sides[name].block())
    return {name: median(values) for name, values in blocks.items()}


def said(runtime: str, settings: Settings) -> str:
    more = (settings.precision, settings.optimization, settings.provider)
    return ", ".join([runtime, f"{settings.threads} thread{'s' if settings.threads > 1 else ''}", *filter(None, more)])


def tuned_way(artifact: Artifact, limits: Limits, output: Path | None) -> tuple[str, Settings]:
    """As the artifact says for this device; else it is tuned now."""
    choice = artifact.tuned.get(this_device().id)
    if choice is not None:
        return choice.runtime, settings_of(choice.settings)
    tuned = tune(artifact, limits=limits, output=output)
    print(tuned.text(), file=sys.stderr)
    return tuned.choice.case.runtime, tuned.choice.case.settings


def claim(rows: Sequence[Row]) -> str:
    """Where "2 to 5 times faster than a default choice" holds: the whole interval lies over 2."""
    all_pairs = [
        (row.artifact.name, peer, found.ratio) for row in rows for peer, found in row.verdicts.items() if found.ratio
    ]
    holds = [one for one in all_pairs if one[2].low >= CLAIM]
    not_slower = [one for one in all_pairs if one[2].high >= 1 / (1 + MARGIN)]
    slower = [f"{name} by {peer}" for name, peer, ratio in all_pairs if ratio.high < 1 / (1 + MARGIN)]
    lines = [
        f"{CLAIM:g} times faster or more, with the whole interval: {len(holds)} of {len(all_pairs)} "
        f"({', '.join(f'{name} by {peer}' for name, peer, _ in holds) or 'nowhere'}).",
        f"Not shown to be slower than a default: {len(not_slower)} of {len(all_pairs)}"
        + (f"; slower than: {', '.join(slower)}." if slower else "."),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="*", type=Path, help="artifact folders or model files")
    parser.add_argument("--rounds", type=int, default=20, help="of fresh processes, a file (default: 20)")
    parser.add_argument("--quick", action="store_true", help="tune in less time")
    parser.add_argument("--output", type=Path, help="a file to append results to, one JSON line each")
    parser.add_argument("--wait", type=float, default=0, help="wait so many seconds for a quiet machine, before each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    rows = []
    print("| file | choice | ms | " + " | ".join(f"{peer}, ms: × choice" for peer in PEERS) + " |")
    print("|---" * (3 + len(PEERS)) + "|", flush=True)
    for path in args.artifacts:
        artifact = read_artifact(path)
        wait_until_quiet(seconds=args.wait)
        runtime, settings = tuned_way(artifact, QUICK if args.quick else Limits(), args.output)
        wait_until_quiet(seconds=args.wait)
        before, watch = snapshot(), Watch.now()
        row = session(artifact, runtime, settings, args.rounds, random.Random(args.seed))
        disturbed = reasons(before, snapshot(), watch.since())
        rows.append(row)
        print(row.line(), flush=True)
        for line in (*disturbed, *(f"{peer} fails: {why}" for peer, why in row.failed.items())):
            print(f"{artifact.name}: {line}", file=sys.stderr)
        if args.output:
            keep(args.output, row, settings, disturbed)
    print(f"\n{claim(rows)}")
    print("Ratios: the library's own default / the choice, median of rounds with its 95 % interval.")
    return 0


def keep(output: Path, row: Row, settings: Settings, disturbed: Sequence[str]) -> None:
    """Append a file's row with each round, as JSON."""
    values = {
        "benchmark": "tune",
        "artifact": row.artifact.name,
        "sha256": row.artifact.sha256,
        "device_id": this_device().id,
        "choice": row.choice,
        "settings": asdict(settings),
        "versions": {peer: RUNTIMES[peer].version() for peer in PEERS if peer in row.ms},
        "rounds_ms": {name or "choice": found for name, found in row.ms.items()},
        "verdicts": {peer: str(found) for peer, found in row.verdicts.items()},
        "failed": row.failed,
        "disturbed": list(disturbed),
    }
    with output.open("a") as file:
        file.write(json.dumps(values, sort_keys=True) + "\n")  # `tune` appends to the same file


if __name__ == "__main__":
    raise SystemExit(main())
