"""The usual tutorial's way and ours, side by side, on the same pictures: time, accuracy, file, milliseconds a picture.

The tutorial's way is what most MobileNet tutorials do: `ImageDataGenerator`, the head cut off, a dense layer on top,
Adam, 8 epochs, `model.save`, `model.predict` for one picture. It may train on all pictures that ours calls train and
val; both are judged on the same test pictures, which neither has seen. Each way runs in a process of its own, one
after the other, and its time is all of it: start, reading, training, and for ours also exporting and measuring.

    python benchmarks/tutorial.py DATA WEIGHTS --budget "accuracy>=0.975,size=0.5MB,latency_p50=1ms"

WEIGHTS is a `.weights.h5` of MobileNet 0.25 for 128 pixels with 1000 classes. `--json` prints one JSON document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from featherweight.data import read_dataset

SIZE, WIDTH, EPOCHS = 128, 0.25, 8


def tutorial(data: str, weights: str) -> dict[str, Any]:
    import keras
    import numpy as np
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    dataset = read_dataset(data)
    with tempfile.TemporaryDirectory() as scratch:
        for item in dataset.items:
            part = "test" if item.part == "test" else "train"
            place = Path(scratch, part, dataset.classes[item.label])
            place.mkdir(parents=True, exist_ok=True)
            (place / item.path.name).symlink_to(item.path.resolve())
        generator = ImageDataGenerator(preprocessing_function=keras.applications.mobilenet.preprocess_input)
        flow = {"target_size": (SIZE, SIZE), "batch_size": 32, "class_mode": "categorical"}
        train = generator.flow_from_directory(Path(scratch, "train"), **flow)
        test = generator.flow_from_directory(Path(scratch, "test"), shuffle=False, **flow)
        mobile = keras.applications.MobileNet((SIZE, SIZE, 3), alpha=WIDTH, weights=None)
        mobile.load_weights(weights)
        features = keras.layers.Flatten()(mobile.get_layer("global_average_pooling2d").output)
        model = keras.Model(mobile.input, keras.layers.Dense(len(dataset.classes), activation="softmax")(features))
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        model.fit(train, epochs=EPOCHS, verbose=0)
        right = float(model.evaluate(test, verbose=0)[1])
        model.save(Path(scratch, "model.keras"))
        size = Path(scratch, "model.keras").stat().st_size
        picture = np.zeros((1, SIZE, SIZE, 3), np.float32)
        times = []
        for _ in range(30):
            start = time.perf_counter()
            model.predict(picture, verbose=0)
            times.append(1e3 * (time.perf_counter() - start))
    return {"accuracy": right, "size_bytes": size, "picture_ms": statistics.median(times[5:]), "file": "model.keras"}


def ours(data: str, weights: str, budget: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "featherweight.cli", "fit", data, "--weights", weights),
                *("--budget", budget, "--output", str(Path(scratch, "fit")), "--json"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        found = json.loads(done.stdout)
    record = found["record"]
    return {
        "fits": found["fits"],
        "accuracy": record["accuracy"],
        "size_bytes": record["size_bytes"],
        "picture_ms": record["latency_p50_ms"],
        "file": f"{record['name']} by {record['runtime']}, threads {record['threads']}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--budget", default="accuracy>=0.975,size=0.5MB,latency_p50=1ms")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=("tutorial", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is not None:
        way = {"tutorial": lambda: tutorial(args.data, args.weights)}.get(
            args.way, lambda: ours(args.data, args.weights, args.budget)
        )
        result = way()
        print(json.dumps(result))
        return
    results = {}
    for way in ("tutorial", "ours"):
        start = time.perf_counter()
        command = [sys.executable, __file__, args.data, args.weights, "--budget", args.budget, "--way", way]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        results[way] = {"seconds": time.perf_counter() - start, **json.loads(done.stdout.splitlines()[-1])}
    if args.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'way':<10}{'seconds':>9}{'test top-1':>12}{'file':>10}{'a picture':>12}   which file")
    for way, result in results.items():
        print(
            f"{way:<10}{result['seconds']:>9.0f}{100 * result['accuracy']:>10.1f} %"
            f"{result['size_bytes'] / 1e3:>7.0f} kB{result['picture_ms']:>9.2f} ms   {result['file']}"
        )


if __name__ == "__main__":
    main()
