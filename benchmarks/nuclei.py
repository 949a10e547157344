"""A light U-Net for nuclei on a pretrained MobileNet: dsb2018-gray256, 60 % to train on, 20 % val, 20 % test.

    python benchmarks/nuclei.py train OUT --data NUCLEI --weights mobilenet_v1_0.5_160.weights.h5
    python benchmarks/nuclei.py files OUT --data NUCLEI                              float32 and int8 files
    python benchmarks/nuclei.py judge OUT --data NUCLEI                              IoU on all parts, in two ways
    python benchmarks/nuclei.py speed OUT                                            int8 against float32
    featherweight measure OUT/nuclei-*-* --data NUCLEI --split 0.2,0.2 --output results/nuclei.jsonl

Plain 3×3 convolutions stand on the maps of stride 1, 2, 4, 8 and 16. `train` keeps its state in OUT after each epoch
and goes on there when it was killed; how long it took, by the clock and of the processors, is in `done.json`, over all
calls. The best epoch is chosen on val; test is looked at by `judge` and `measure` alone. `judge` tells the IoU of the
nuclei over all pixels of a part, as `measure` does, and the mean of the pictures' own, as others publish it. `speed`
holds the int8 file as it runs fastest here against the float32 file as it runs fastest in float32, in pairs of fresh
processes.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from featherweight.artifact import FILES, Artifact, Step, read_artifact, write_file
from featherweight.data import Dataset, Split, load_masks, load_pixels, read_dataset
from featherweight.device import available_cores
from featherweight.measure.fastest import fastest
from featherweight.measure.one import pictures_of
from featherweight.measure.pairs import PairProtocol
from featherweight.measure.versus import hold
from featherweight.quantize import chosen_items
from featherweight.quantize.agreement import answers
from featherweight.segment.scores import classes_of, confusion
from featherweight.segment.settings import SegmentSettings
from featherweight.train import load_keras, set_seed

SPLIT = Split(0.2, 0.2)
EPOCHS, RATE, BATCH = 80, 2e-3, 4
CALIBRATION = 100


def usual(epochs: int, seed: int) -> SegmentSettings:
    """Nuclei have no upside, and are as bright as the dye and the exposure made them."""
    start = SegmentSettings(flip_vertical=True, brightness=0.5)
    how = replace(
        start.train, epochs=epochs, patience=epochs, batch_size=BATCH, learning_rate=RATE, rotate=0.25, seed=seed
    )
    return replace(start, train=how)


def train(out: Path, dataset: Dataset, weights: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The network, trained; goes on where it was stopped."""
    from featherweight.models.load import save_model
    from featherweight.models.segmenters import Decoder, segmenter
    from featherweight.models.zoo import Shape
    from featherweight.training import training_of

    load_keras()
    set_seed(seed)
    clock, spent = time.monotonic(), out / "spent.json"
    before = json.loads(spent.read_text()) if spent.exists() else {"clock_s": 0.0, "processors_s": 0.0}

    def so_far() -> dict[str, float]:
        used = os.times()
        return {
            "clock_s": round(before["clock_s"] + time.monotonic() - clock, 1),
            "processors_s": round(before["processors_s"] + used.user + used.system, 1),
        }

    class Spent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            write_file(spent, json.dumps(so_far()).encode())

    logging.getLogger("featherweight").addHandler(Spent())
    decoder = Decoder(width=16, separable=False, strides=(1, 2, 4, 8, 16))
    model = segmenter(Shape("mobilenet_v1", 0.5, 256), len(dataset.classes), str(weights), decoder)
    world = training_of("segment")
    model, step = world.train(model, dataset, usual(epochs, seed), False, None, out / "state.npz")
    save_model(model, out / "nuclei.keras")
    done = {"parameters": model.count_params(), "taken": so_far(), "steps": [asdict(step)]}
    write_file(out / "done.json", json.dumps(done, indent=1, default=str).encode())
    return {"parameters": done["parameters"], "taken": done["taken"], "mean_iou_val": step.settings["mean_iou_val"]}


def files(out: Path, dataset: Dataset) -> list[Artifact]:
    """The trained network as ONNX and LiteRT, in float32 and int8."""
    from featherweight.export import export
    from featherweight.models.load import load_model
    from featherweight.quantize import quantize_within
    from featherweight.training import about_of, training_of

    load_keras()
    model = load_model(out / "nuclei.keras")
    steps = [Step(one["name"], one["settings"]) for one in json.loads((out / "done.json").read_text())["steps"]]
    size = model.input_shape[1:3]
    items, val = chosen_items(dataset, CALIBRATION, 0), dataset.part("val")
    pixels, on_val = (load_pixels(some, *size).take(some) for some in (items, val))
    score = training_of("segment").score(val, on_val)
    made = []
    for kind in ("onnx", "litert"):
        about = about_of(model, f"nuclei-{kind}-float32", dataset.classes, steps)
        made.append(source := export(model, out / f"nuclei-{kind}-float32", kind, about, pixels))
        within = out / f"nuclei-{kind}-int8"
        made.append(quantize_within(source, within, pixels, score, name=within.name, max_loss=0.005))
    return made


def judge(artifact: Artifact, dataset: Dataset) -> dict[str, Any]:
    """IoU of the nuclei on val and test: of all pixels, and the mean over the pictures."""
    size = (artifact.height or 0, artifact.width or 0)
    told: dict[str, Any] = {"benchmark": "nuclei", "file": artifact.name, "sha256": artifact.sha256}
    for part in ("train", "val", "test"):
        items = dataset.part(part)
        pixels, masks = load_pixels(items, *size).take(items), load_masks(items, *size)
        each = []
        for picture, mask in zip(pixels, masks, strict=True):
            counts = confusion(mask[None], classes_of(answers(artifact, picture[None])), 2)
            each.append((int(counts[1, 1]), int(counts[1].sum() + counts[:, 1].sum() - counts[1, 1])))
        both, either = np.array(each).T
        told[part] = {
            "iou": float(both.sum() / either.sum()),
            "mean_of_pictures": float(np.mean(both[either > 0] / either[either > 0])),
            "n": len(items),
        }
    return told


def speed(out: Path) -> Iterator[dict[str, Any]]:
    """int8 against float32, on one thread and on all cores."""
    small, full = ([read_artifact(out / f"nuclei-{kind}-{one}") for kind in FILES] for one in ("int8", "float32"))
    for threads in sorted({1, available_cores()}):
        (int8, _), (float32, _) = fastest(small, (threads,)), fastest(full, (threads,), "float32")
        found = hold(int8, float32, pictures_of(int8.artifact, None, None), PairProtocol())
        yield {"benchmark": "nuclei", "pair": f"{int8} against {float32}", "speed": str(found.speed)}


def main() -> None:
    """One stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("train", "files", "judge", "speed"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="of MobileNetV1 0.5 at 160 pixels")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage == "speed":
        for row in speed(args.out):
            print(json.dumps(row), flush=True)
        return
    dataset = read_dataset(args.data, SPLIT, "segment")
    if args.stage == "train":
        print(json.dumps(train(args.out, dataset, args.weights, args.epochs, args.seed), indent=1))
    elif args.stage == "files":
        for made in files(args.out, dataset):
            print(f"{made.path}: {made.size_bytes:,} B, {len(made.steps[-1].skipped)} layers stay as they were")
    else:
        for place in sorted(args.out.glob("nuclei-*-*")):
            print(json.dumps(judge(read_artifact(place), dataset)), flush=True)


if __name__ == "__main__":
    main()
