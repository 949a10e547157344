"""Does it help to set weights to 0? The file's size, its size when packed, and the latency, for some shares of zeros.

Each row is a network of the zoo, or a `.keras` file, with that share of its kernels' weights at 0 (L1, one threshold
for all), exported to ONNX. Packed is zlib at level 9, about what a download is. The last column holds each file against
the one without zeros in pairs of fresh processes, all of them judged together. Untrained weights pack like trained
ones: in both the mantissas are noise. What accuracy is left is no matter of this table.

    python benchmarks/sparsify.py [--model mobilenet_v2 | FILE.keras] [--shares 0,0.5,0.8,0.9] [--without-latency]
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.artifact import Artifact
from featherweight.device import this_device
from featherweight.export import About, export
from featherweight.measure.pairs import PairProtocol
from featherweight.measure.versus import Against, versus
from featherweight.models.load import load_model
from featherweight.models.zoo import Shape, build
from featherweight.runtimes.settings import Settings
from featherweight.sparsify import compressed_bytes, sparsify
from featherweight.train import load_keras, set_seed

CLASSES = 1000


def network(name: str, width: float, size: int) -> Any:
    if Path(name).suffix in (".keras", ".h5"):
        return load_model(name)
    set_seed(0)
    return build(Shape(name, width, size), CLASSES)


def exported(model: Any, share: float, folder: Path) -> Artifact:
    thin, step = sparsify(model, share)
    height, width = model.input_shape[1:3]
    pictures = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), np.uint8)
    classes = tuple(map(str, range(model.output_shape[-1])))
    return export(thin, folder, "onnx", About(f"{model.name}-{share:g}", classes, (step,)), pictures)


def row(share: float, artifact: Artifact, dense: Artifact, latency: str) -> str:
    packed = compressed_bytes(artifact.path)
    sizes = f"{artifact.size_bytes / 1024:,.0f} KiB | {packed / 1024:,.0f} KiB"
    return f"| {share:.0%} | {sizes} | {packed / compressed_bytes(dense.path):.2f} | {latency} |"


def latencies(artifacts: list[Artifact], threads: int, pairs: int) -> list[Against]:
    """The first against each of the others, in pairs; a ratio under 1 says that the first is faster."""
    return list(versus(artifacts, settings=Settings(threads=threads), protocol=PairProtocol(cap=pairs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2", help="a network of the zoo, or a Keras file")
    parser.add_argument("--width", type=float, default=1.0, help="of the network of the zoo (default: 1)")
    parser.add_argument("--size", type=int, default=224, help="its input's side in pixels (default: 224)")
    parser.add_argument("--shares", default="0,0.5,0.8,0.9", help="of zeros, the first is what is held against")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=PairProtocol().cap, help="of fresh processes, at most")
    parser.add_argument("--without-latency", action="store_true", help="sizes alone, which need no quiet machine")
    parser.add_argument("--output", type=Path, help="a file to append a JSON line a share to")
    args = parser.parse_args()
    load_keras()
    shares = [float(share) for share in args.shares.split(",")]
    model = network(args.model, args.width, args.size)
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = [exported(model, share, Path(scratch) / f"{share:g}") for share in shares]
        against = [] if args.without_latency else latencies(artifacts, args.threads, args.pairs)
        print(f"{model.name}, zeros by L1, against {shares[0]:.0%}\n")
        print("| zeros | file | packed | packed against the first | the first against it |\n|---|---|---|---|---|")
        for place, (share, artifact) in enumerate(zip(shares, artifacts, strict=True)):
            held = against[place - 1] if place and against else None
            said = "–" if held is None else str(held.speed)
            print(row(share, artifact, artifacts[0], said))
            if args.output:
                keep(args.output, share, artifact, held)


def keep(output: Path, share: float, artifact: Artifact, held: Against | None) -> None:
    """Append a row as JSON."""
    values = {
        "benchmark": "sparsify",
        "name": artifact.name,
        "share": share,
        "size_bytes": artifact.size_bytes,
        "compressed_bytes": compressed_bytes(artifact.path),
        "speed": None if held is None else {**asdict(held.speed), "said": str(held.speed)},
        "device_id": this_device().id,
    }
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
