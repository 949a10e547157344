"""Images per second of the input path: ours against Keras' two, on one folder of class folders.

What is timed: delivering float32 RGB batches (b, size, size, 3) with labels of every picture in the folder, no
augmentation, each batch waited for and then dropped; no network runs. A first epoch starts from fresh objects and
includes all that must happen before its first batch; later epochs go through the same objects again (their median).

- ours: `read_dataset_cached` (every file fully decoded, hashed for the audit, kept at the size), then `train.batches`.
- ours, without the scan: `load_pixels` of a known dataset, then `train.batches`: what a second input size costs.
- image_dataset_from_directory: Keras' function with `.prefetch(AUTOTUNE)`, as its guide advises.
- ImageDataGenerator: Keras' `ImageDataGenerator().flow_from_directory(...)`, bilinear like the others.

All shuffle, as for training.

All run in one process, interleaved: each round runs every contender once, in a random order; figures are medians over
the rounds. The files are read once beforehand, so all find them in the page cache.

The aim: ours reaches at least 1.5 times the images per second of the better of the two peers in the first epoch, the
scan included, and at least 5 times in later epochs.

    python benchmarks/input_path.py DIR --size 224 --json result.json
"""

import argparse
import contextlib
import io
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

PEERS = ("image_dataset_from_directory", "ImageDataGenerator")
AIM_FIRST, AIM_LATER = 1.5, 5.0
Epoch = Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Timing:
    """One contender in one round, in seconds."""

    first_s: float
    later_s: float


def ours(folder: Path, size: int, batch: int) -> Epoch:
    from featherweight.data import read_dataset_cached

    dataset, cache = read_dataset_cached(folder, size, size)
    return _epoch_of(cache.take(dataset.items), dataset.items, batch)


def ours_without_scan(items: Any, size: int, batch: int) -> Epoch:
    from featherweight.data import load_pixels

    return _epoch_of(load_pixels(items, size, size).take(items), items, batch)


def image_dataset_from_directory(folder: Path, size: int, batch: int) -> Epoch:
    import keras
    import tensorflow as tf

    # It has no sense for .jpe, .jfif or .webp; the count of pictures shows where that matters.
    stream = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=batch, label_mode="int", verbose=False
    ).prefetch(tf.data.AUTOTUNE)
    return lambda: stream


def image_data_generator(folder: Path, size: int, batch: int) -> Epoch:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it found
        flow = ImageDataGenerator().flow_from_directory(
            folder, target_size=(size, size), batch_size=batch, class_mode="sparse", interpolation="bilinear"
        )
    return lambda: (flow[index] for index in range(len(flow)))


def time_one(build: Callable[[], Epoch], later: int, expected: tuple[int, int]) -> Timing:
    """Build, run one epoch; then `later` more. Every epoch must deliver `expected` = (pictures, size)."""
    start = time.perf_counter()
    epoch = build()
    _run(epoch, expected)
    first = time.perf_counter() - start
    more = []
    for _ in range(later):
        start = time.perf_counter()
        _run(epoch, expected)
        more.append(time.perf_counter() - start)
    return Timing(first, statistics.median(more))


def compare(folder: Path, size: int, batch: int, rounds: int, later: int, seed: int) -> dict[str, Any]:
    from featherweight.data import read_dataset
    from featherweight.device import this_device

    dataset = read_dataset(folder)  # also warms the page cache for all
    items = dataset.items
    if len(items) % batch == 1:
        raise SystemExit(
            f"{len(items)} pictures in batches of {batch} leave one over, which ours skips: change --batch"
        )
    contenders: dict[str, Callable[[], Epoch]] = {
        "ours": lambda: ours(folder, size, batch),
        "ours, without the scan": lambda: ours_without_scan(items, size, batch),
        PEERS[0]: lambda: image_dataset_from_directory(folder, size, batch),
        PEERS[1]: lambda: image_data_generator(folder, size, batch),
    }
    for build in contenders.values():  # one batch each: imports and first calls are nobody's first epoch
        for _ in build()():
            break
    rng = random.Random(seed)
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    loads = []
    for number in range(1, rounds + 1):
        order = rng.sample(sorted(contenders), len(contenders))
        loads.append(os.getloadavg()[0] if hasattr(os, "getloadavg") else None)
        for name in order:
            timings[name].append(time_one(contenders[name], later, (len(items), size)))
        print(f"round {number} of {rounds}: {', '.join(order)}", file=sys.stderr)
    rates = {
        name: {
            "first_images_per_s": len(items) / statistics.median(one.first_s for one in runs),
            "later_images_per_s": len(items) / statistics.median(one.later_s for one in runs),
            "rounds": [asdict(one) for one in runs],
        }
        for name, runs in timings.items()
    }
    best_first, best_later = (
        max(rates[peer][key] for peer in PEERS) for key in ("first_images_per_s", "later_images_per_s")
    )
    for one in rates.values():
        one["first_ratio"] = one["first_images_per_s"] / best_first
        one["later_ratio"] = one["later_images_per_s"] / best_later
    return {
        "folder": str(folder),
        "fingerprint": dataset.fingerprint,
        "images": len(items),
        "classes": len(dataset.classes),
        "median_side": dataset.median_side,
        "size": size,
        "batch": batch,
        "rounds": rounds,
        "later_epochs": later,
        "seed": seed,
        "load_before_each_round": loads,
        "device": this_device().as_dict(),
        "versions": _versions(),
        "aim": {"first_ratio": AIM_FIRST, "later_ratio": AIM_LATER},
        "contenders": rates,
    }


def show(result: dict[str, Any]) -> None:
    print(
        f"{result['images']} pictures, {result['classes']} classes, median side {result['median_side']}; size "
        f"{result['size']}, batch {result['batch']}, {result['rounds']} rounds; images per second, median of rounds"
    )
    print(f"{'':<30}{'first epoch':>12}{'× peer':>8}{'later':>12}{'× peer':>8}")
    for name, one in result["contenders"].items():
        print(
            f"{name:<30}{one['first_images_per_s']:>12,.0f}{one['first_ratio']:>8.2f}"
            f"{one['later_images_per_s']:>12,.0f}{one['later_ratio']:>8.2f}"
        )
    mine = result["contenders"]["ours"]
    for key, aim in result["aim"].items():
        verdict = "reached" if mine[key] >= aim else "NOT reached"
        print(f"aim {key} >= {aim}: {verdict} ({mine[key]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of the input path, ours against Keras'.")
    parser.add_argument("folder", type=Path, help="a folder with a folder of pictures for each class")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="at least 3")
    parser.add_argument("--later", type=int, default=2, help="later epochs in each round")
    parser.add_argument("--seed", type=int, default=0, help="of the order inside the rounds")
    parser.add_argument("--json", type=Path, help="write the result here as one JSON document")
    asked = parser.parse_args()
    if asked.rounds < 3 or min(asked.size, asked.batch, asked.later) < 1:
        parser.error("wanted at least 3 rounds, and size, batch and later epochs of at least 1")
    result = compare(asked.folder, asked.size, asked.batch, asked.rounds, asked.later, asked.seed)
    show(result)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _epoch_of(pixels: Any, items: Any, batch: int) -> Epoch:
    from featherweight.data import labels
    from featherweight.train import TrainSettings, batches

    stream = batches(pixels, labels(items), TrainSettings(batch_size=batch, augment=False))
    return lambda: stream


def _run(epoch: Epoch, expected: tuple[int, int]) -> None:
    """One epoch to its end; every batch must be float32 of the size, and the pictures all there."""
    wanted, size = expected
    count = 0
    for images, truth in epoch():
        # `name` for a tensor of TensorFlow, `str` for an array of NumPy: both say "float32".
        kind = getattr(images.dtype, "name", str(images.dtype))
        if kind != "float32" or tuple(images.shape[1:]) != (size, size, 3) or len(truth) != len(images):
            raise RuntimeError(f"a batch of {kind} {tuple(images.shape)} with {len(truth)} labels")
        count += len(images)
    if count != wanted:
        raise RuntimeError(f"{count} pictures came, {wanted} are in the folder; use one with .jpg or .png files only")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from featherweight.image import decoder_versions

    found = {name: version(name) for name in ("featherweight", "keras", "numpy")}
    import tensorflow as tf

    return {"python": platform.python_version(), "tensorflow": tf.__version__, **found, **decoder_versions()}


if __name__ == "__main__":
    main()
