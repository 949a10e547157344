"""A light detector for blood cells, trained on from Yolo-Fastest: BCCD, split as it comes.

    python benchmarks/bccd.py train OUT --data BCCD --cfg CFG --weights WEIGHTS      the net: about 0.3 M parameters
    python benchmarks/bccd.py files OUT --data BCCD                                  float32, float16 and int8 files
    featherweight measure OUT/cells-*-* --data BCCD --threads 1,2 --output results/bccd.jsonl --report OUT/cells.html

The network is imported (`models.darknet`), gets the classes of the data and anchors that fit their boxes, and all of it
is trained. `train` keeps its state in OUT after each epoch and goes on there when it was killed; how long it took, by
the clock and of the processors, is in `done.json`, over all calls. The best epoch is chosen on val; the part test is
looked at by `measure` alone. Where the machine has other work, the processors' time says more than the clock: two cores
that are busy for 40 minutes give 80. int8 is made within half a point of AP50 on val.
"""

import argparse
import json
import logging
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from featherweight.artifact import Artifact, Step, write_file
from featherweight.data import Dataset, Split, load_pixels, read_dataset
from featherweight.detect.settings import DetectSettings
from featherweight.quantize import chosen_items
from featherweight.train import load_keras, set_seed

EPOCHS, RATE = 120, 2e-3
CALIBRATION = 100


def usual(epochs: int, seed: int) -> DetectSettings:
    """Cells have no upside."""
    start = DetectSettings(flip_vertical=True)
    how = replace(start.train, epochs=epochs, patience=epochs, learning_rate=RATE, seed=seed)
    return replace(start, train=how)


def train(out: Path, dataset: Dataset, cfg: Path, weights: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The network for the data's cells, trained; goes on where it was stopped."""
    from featherweight.models.darknet import import_darknet
    from featherweight.models.load import save_model
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

    logger = logging.getLogger("featherweight")
    logger.addHandler(Spent())
    imported, _, made = import_darknet(cfg, weights)
    world = training_of("detect")
    model, _ = world.started(imported, dataset, seed)
    model, step = world.train(model, dataset, usual(epochs, seed), False, None, out / "state.npz")
    save_model(model, out / "cells.keras")
    steps = [asdict(one) for one in (made, step)]
    done = {"parameters": model.count_params(), "taken": so_far(), "steps": steps}
    write_file(out / "done.json", json.dumps(done, indent=1, default=str).encode())
    return {"parameters": done["parameters"], "taken": done["taken"], **{k: step.settings[k] for k in ("ap50_val",)}}


def files(out: Path, dataset: Dataset) -> list[Artifact]:
    """The trained network as ONNX and LiteRT, in float32, float16 and int8."""
    from featherweight.export import export
    from featherweight.models.load import load_model
    from featherweight.quantize import QuantizeSettings, quantize, quantize_within
    from featherweight.training import about_of, rule_of, training_of

    load_keras()
    model = load_model(out / "cells.keras")
    steps = [Step(one["name"], one["settings"]) for one in json.loads((out / "done.json").read_text())["steps"]]
    items = chosen_items(dataset, CALIBRATION, 0)
    height, width = model.input_shape[1:3]
    pixels = load_pixels(items, height, width, rule=rule_of(model)).take(items)
    val = dataset.part("val")
    on_val = load_pixels(val, height, width, rule=rule_of(model)).take(val)
    score = training_of("detect").score(val, on_val)
    made = []
    for kind in ("onnx", "litert"):
        about = about_of(model, f"cells-{kind}-float32", dataset.classes, steps)
        made.append(source := export(model, out / f"cells-{kind}-float32", kind, about, pixels))
        how = QuantizeSettings("float16")
        made.append(quantize(source, out / f"cells-{kind}-float16", pixels, f"cells-{kind}-float16", how))
        within = out / f"cells-{kind}-int8"
        made.append(quantize_within(source, within, pixels, score, name=within.name, max_loss=0.005))
    return made


def main() -> None:
    """One stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("train", "files"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cfg", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    dataset = read_dataset(args.data, Split(), "detect")
    if args.stage == "train":
        print(json.dumps(train(args.out, dataset, args.cfg, args.weights, args.epochs, args.seed), indent=1))
    else:
        for made in files(args.out, dataset):
            print(f"{made.path}: {made.size_bytes:,} B, {len(made.steps[-1].skipped)} layers stay as they were")


if __name__ == "__main__":
    main()
