"""Every published variant of the zoo as an ONNX float32 file, measured on this machine: do MACs rank them?

Weights are random: size, memory and latency do not depend on them. Networks with branches for training are folded
first. VGG-16 is taken with a pooling in place of its dense layers: they are 90 % of its parameters and 1 % of its MACs,
and tf2onnx needs over 20 GB of memory for them. A second run takes up where an earlier one stopped.

    python benchmarks/zoo.py --files FOLDER [--records results/zoo.jsonl] [--threads 1]
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from featherweight.artifact import Artifact, read_artifact
from featherweight.errors import FeatherweightError
from featherweight.export import About, export
from featherweight.fold import fold_branches
from featherweight.measure import Origin, Protocol, measure
from featherweight.models.nets import NETS, Net, Published
from featherweight.models.zoo import Shape, build, reference
from featherweight.record import read_records
from featherweight.stats import rank_correlation
from featherweight.train import load_keras, set_seed


def variants() -> list[tuple[str, Net, Published]]:
    """(name of the file, network, variant)."""
    return [
        (f"{net.name}{'_pooled' * (net.name == 'vgg16')}-{row.width:g}-{row.size}", net, row)
        for net in NETS.values()
        for row in net.published
    ]


def exported(folder: Path, name: str, net: Net, row: Published) -> Artifact:
    if (folder / name).is_dir():
        return read_artifact(folder / name)
    import keras

    keras.utils.clear_session()  # or the graphs of all networks stay in memory
    set_seed(0)
    pooled = net.name == "vgg16"
    model = build(Shape(net.name, row.width, row.size), 1000) if pooled else reference(net, row.width, row.size)
    model, step = fold_branches(model)
    pictures = np.random.default_rng(0).integers(0, 256, (2, row.size, row.size, 3), np.uint8)
    classes = tuple(f"{number:04d}" for number in range(net.classes))
    return export(model, folder / name, "onnx", About(name, classes, (step,)), pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", required=True, type=Path, help="a folder for the exported files")
    parser.add_argument("--records", type=Path, help="a file of records to append to; without it, only export")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    if any(not (args.files / name).is_dir() for name, _, _ in variants()):
        load_keras()
    done = {record.name for record in read_records(args.records)} if args.records and args.records.exists() else set()
    for name, net, row in variants():
        try:
            artifact = exported(args.files, name, net, row)
            if args.records and name not in done:
                origin = Origin(None, "python " + " ".join(["benchmarks/zoo.py", *sys.argv[1:]]))
                measure(artifact, None, "onnxruntime", (args.threads,), None, Protocol(3.0, 200), args.records, origin)
        except FeatherweightError as error:
            print(f"{name}: {error}", flush=True)
    if args.records:
        summary(args.records)


def summary(path: Path) -> None:
    """Rank correlations of latency with what is usually read instead of it."""
    records = [r for r in read_records(path) if r.latency_p50_ms and r.macs and r.parameters]
    for label, chosen in (
        ("all", records),
        (
            "light, up to 1 G MACs at 224 px and more",
            [r for r in records if r.macs <= 1e9 and not r.name.endswith("-32")],
        ),
    ):
        latency = [r.latency_p50_ms for r in chosen]
        print(f"{label}: {len(chosen)} networks")
        print(f"  latency with MACs        {rank_correlation(latency, [r.macs for r in chosen]):.2f}")
        print(f"  latency with parameters  {rank_correlation(latency, [r.parameters for r in chosen]):.2f}")


if __name__ == "__main__":
    main()
