"""CIFAR-10 (the JPEG copy): a small MobileNetV2-like net trained, pruned, fine-tuned and distilled, stage by stage; and
a published ResNet-56, pruned and fine-tuned.

    python benchmarks/cifar.py train OUT --pictures PICTURES                     the net: at most 0.7 M parameters
    python benchmarks/cifar.py prune50 OUT … ; tune50 OUT …                      half of the MACs
    python benchmarks/cifar.py prune25 OUT … ; tune25 OUT … --seed 0             a quarter, without a teacher
    python benchmarks/cifar.py distil25 OUT … --seed 0                           the same with the unpruned net's help
    python benchmarks/cifar.py resnet56 OUT … ; again56 OUT …                    the published net; trained on, unpruned
    python benchmarks/cifar.py prune56 OUT … ; tune56 OUT …                      2.1 times fewer MACs; trained on
    python benchmarks/cifar.py speed OUT                                         each net against the one it was made of
    python benchmarks/cifar.py table OUT                                         what is there, and what a teacher adds

Each stage has a folder in OUT: `model.keras`, `done.json` with its figures, and `state.npz`, from which a training that
was killed goes on at its last epoch. A stage that is done is not done again. PICTURES is where the two archives of
`--data` are unpacked at the first run; 10 % of the training pictures, chosen by the contents of the files, are val. The
test pictures are looked at once, when a stage is done. JPEG costs accuracy: these figures do not stand beside published
ones of CIFAR-10.
"""

import argparse
import json
import math
import os
import statistics
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from featherweight.artifact import Artifact, Step, new_folder, read_artifact, write_file
from featherweight.data import Dataset, PixelCache, Split, labels, read_dataset_cached
from featherweight.device import available_cores, this_device
from featherweight.distill import DistillSettings, distill
from featherweight.stats import wilson
from featherweight.train import TrainSettings, load_keras, predict_pixels, set_seed, train

SIDE, CLASSES = 32, 10
ARCHIVES = ("train.tar.xz", "test.tar.xz")

# MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2) for 32 pixels: the early strides are 1, and the early
# maps, which cost time and few parameters, are widened less.
#   expand  filters  repeats  strides   feature map in → out
STAGES = (
    (1, 16, 1, 1),  # 32 → 32
    (3, 24, 2, 2),  # 32 → 16
    (4, 48, 3, 2),  # 16 → 8
    (4, 80, 3, 1),  # 8 → 8
    (4, 128, 2, 2),  # 8 → 4
)
STEM, TAIL = 24, 512

# No label smoothing: a teacher that was trained with it teaches less (Müller et al. 2019, arXiv 1906.02629).
TRAIN = TrainSettings(
    epochs=40, patience=40, batch_size=128, learning_rate=0.1, optimizer="sgd", weight_decay=5e-3, head_epochs=0,
    crop=4, flip=True, shift=0.0, zoom=0.0, contrast=0.0,
)  # fmt: skip
# Statistics of a net that lost channels are those of another net: they are learned anew.
TUNE = replace(TRAIN, epochs=10, patience=10, learning_rate=0.02, freeze_batch_norm=False)
# As above for a net that was trained on the original pixels: it learns what JPEG makes of them, too.
ON = replace(TUNE, epochs=6, patience=6, learning_rate=0.01)
# What the pruned net's maps are to be like: the ends of the unpruned one's stages. In two epochs this gave 84.2 % on
# val, training without a teacher 82.4.
LIKE = tuple((name, name) for name in ("stage2_block2_add", "stage3_block2_add", "stage4_block1_add"))
# 95 % of Student's t for so many pairs, two-sided.
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


@dataclass(frozen=True)
class Bench:
    """One call: where everything is, and what may be other than usual."""

    out: Path
    data: Path
    pictures: Path
    seed: int
    epochs: int | None
    weights: Path

    def settings(self, usual: TrainSettings) -> TrainSettings:
        """With this call's seed and, where it was asked for, its number of epochs."""
        return replace(usual, seed=self.seed, epochs=self.epochs or usual.epochs)

    def model(self, stage: str) -> Any:
        """What an earlier stage made."""
        from featherweight.models.load import load_model

        file = self.out / stage / "model.keras"
        if not file.exists():
            raise SystemExit(f"{file} is not there; run the stage {stage} first")
        return load_model(file)

    def read(self) -> tuple[Dataset, PixelCache]:
        """The pictures, unpacked at the first time."""
        if not self.pictures.exists():
            with new_folder(self.pictures) as beside:
                for name in ARCHIVES:
                    with tarfile.open(self.data / name) as archive:
                        archive.extractall(beside, filter="data")
        return read_dataset_cached(self.pictures, SIDE, SIDE, Split(val=0.1))


Made = tuple[Any, Step]


def network() -> Any:
    """RGB 0–255 (32, 32, 3) → probabilities of the ten classes."""
    import keras

    from featherweight.models import blocks

    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(image)
    x = blocks.convolution(x, STEM, 3, name="stem")
    for number, (expand, filters, repeats, strides) in enumerate(STAGES):
        for block in range(repeats):
            name = f"stage{number}_block{block}"
            x = blocks.inverted_residual(x, filters, 1 if block else strides, name=name, expand=expand)
    x = blocks.convolution(x, TAIL, name="tail")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    x = keras.layers.Dense(CLASSES, name="logits")(keras.layers.Dropout(0.1, name="dropout")(x))
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(x), name="cifar")


# ------------------------------------------------------------------------------------------------------- stages


def trained(bench: Bench, dataset: Dataset, cache: PixelCache, state: Path) -> Made:
    set_seed(bench.seed)
    return train(network(), dataset, bench.settings(TRAIN), False, cache, state)


def pruned(before: str, share: float) -> Callable[[Bench, Dataset, PixelCache, Path], Made]:
    """To so much of the MACs, by the L1 norm of filters, at once."""

    def stage(bench: Bench, dataset: Dataset, cache: PixelCache, state: Path) -> Made:
        from featherweight import prune

        model = bench.model(before)
        return prune.apply(model, prune.plan(model, prune.Target("macs", share), prune.PruneSettings("l1")))

    return stage


def tuned(before: str) -> Callable[[Bench, Dataset, PixelCache, Path], Made]:
    """A pruned net trained on, without a teacher."""

    def stage(bench: Bench, dataset: Dataset, cache: PixelCache, state: Path) -> Made:
        return train(bench.model(before), dataset, bench.settings(TUNE), True, cache, state)

    return stage


def distilled(before: str) -> Callable[[Bench, Dataset, PixelCache, Path], Made]:
    """A pruned net trained on, with the unpruned one as its teacher."""

    def stage(bench: Bench, dataset: Dataset, cache: PixelCache, state: Path) -> Made:
        settings = DistillSettings(bench.settings(TUNE), temperature=4.0, alpha=0.1, feature_weight=5.0, endpoints=LIKE)
        return distill(bench.model(before), bench.model("train"), dataset, settings, True, cache, state)

    return stage


def published_net(bench: Bench, dataset: Dataset, cache: PixelCache, state: Path) -> Made:
    """ResNet-56 of He et al. 2016, table 6, as akamaster/pytorch_resnet_cifar10 trained it."""
    from featherweight.models.pretrained import published
    from featherweight.models.zoo import Shape

    return published(Shape("resnet56_cifar", 1.0, SIDE), str(bench.weights)), Step("import", {"net": "resnet56_cifar"})


def tuned_on(before: str) -> Callable[[Bench, Dataset, PixelCache, Path], Made]:
    """The published net, pruned or not, trained on with the same settings."""

    def stage(bench: Bench, dataset: Dataset, cache: PixelCache, state: Path) -> Made:
        return train(bench.model(before), dataset, bench.settings(ON), True, cache, state)

    return stage


STAGE: Mapping[str, Callable[[Bench, Dataset, PixelCache, Path], Made]] = {
    "train": trained,
    "prune50": pruned("train", 0.5),
    "tune50": tuned("prune50"),
    "prune25": pruned("train", 0.25),
    "tune25": tuned("prune25"),
    "distil25": distilled("prune25"),
    "resnet56": published_net,
    "prune56": pruned("resnet56", 1 / 2.1),
    "tune56": tuned_on("prune56"),
    "again56": tuned_on("resnet56"),
}
BY = {"onnxruntime": "onnx", "litert": "litert", "openvino": "onnx", "opencv": "onnx"}  # which file each runs
BY_SEED = ("tune50", "tune25", "distil25", "tune56", "again56")


def run(name: str, bench: Bench) -> dict[str, Any]:
    """A stage's figures: those of its folder, or from doing it."""
    place = bench.out / (f"{name}-{bench.seed}" if name in BY_SEED else name)
    note = place / "done.json"
    if note.exists():
        return dict(json.loads(note.read_text(encoding="utf-8")))
    load_keras()
    started = time.monotonic()
    dataset, cache = bench.read()
    place.mkdir(parents=True, exist_ok=True)
    model, step = STAGE[name](bench, dataset, cache, place / "state.npz")
    beside = place / "beside.keras"
    model.save(beside)
    beside.replace(place / "model.keras")
    done = {
        "stage": name,
        "seed": bench.seed,
        **figures(model, dataset, cache),
        "data": dataset.fingerprint,
        "stage_s": round(time.monotonic() - started, 1),
        "step": asdict(step),
    }
    write_file(note, json.dumps(done, indent=1).encode())
    return done


def figures(model: Any, dataset: Dataset, cache: PixelCache) -> dict[str, Any]:
    """Accuracy on val and on test, this with its 95 % interval, and MACs."""
    from featherweight.analyze.costs import count

    right = {}
    for part in ("val", "test"):
        items = dataset.part(part)
        answers = np.argmax(predict_pixels(model, cache.take(items), part), -1)
        right[part] = answers == labels(items)
    parameters, macs = count(model)
    hits, n = int(right["test"].sum()), len(right["test"])
    return {
        "parameters": parameters,
        "macs": macs,
        "accuracy_val": float(right["val"].mean()),
        "accuracy_test": hits / n,
        "accuracy_test_interval": wilson(hits, n),
        "n_test": n,
    }


def table(out: Path) -> str:
    """All that is done in a folder, and what the teacher adds, seed by seed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/done.json"))]
    found.sort(key=lambda one: (list(STAGE).index(one["stage"]), one["seed"]))
    lines = [f"{'stage':<10}{'seed':>5}{'parameters':>12}{'MACs':>12}{'val':>8}{'test':>8}{'epochs took':>13}"]
    for one in found:
        seconds = one["step"]["settings"].get("train_s")
        lines.append(
            f"{one['stage']:<10}{one['seed']:>5}{one['parameters']:>12,}{one['macs'] / 1e6:>10.2f} M"
            f"{100 * one['accuracy_val']:>7.2f}{100 * one['accuracy_test']:>8.2f}"
            f"{'' if seconds is None else f'{seconds:.0f} s':>13}"
        )
    by_seed = {
        stage: {one["seed"]: one["accuracy_test"] for one in found if one["stage"] == stage}
        for stage in ("tune25", "distil25")
    }
    gains = [
        100 * (by_seed["distil25"][s] - by_seed["tune25"][s]) for s in by_seed["tune25"] if s in by_seed["distil25"]
    ]
    if len(gains) in STUDENT_T:
        half = STUDENT_T[len(gains)] * statistics.stdev(gains) / math.sqrt(len(gains))
        mean = statistics.mean(gains)
        lines.append(f"the teacher adds {mean:.2f} points ± {half:.2f} (95 %, Student's t, {len(gains)} seeds)")
    return "\n".join(lines)


def speed(bench: Bench) -> None:
    """Each fine-tuned net against the one that it was pruned from, in pairs of fresh processes: each as it runs fastest
    here, and both by each runtime, on one thread and on all cores. A line of JSON each into `speed.jsonl`.
    """
    from featherweight.export import FORMATS, About, export
    from featherweight.measure.fastest import fastest
    from featherweight.measure.one import Case, pictures_of
    from featherweight.measure.pairs import PairProtocol
    from featherweight.measure.versus import hold
    from featherweight.runtimes.settings import Settings

    load_keras()
    dataset, cache = bench.read()
    pixels = cache.take(dataset.part("train")[:64])

    def exported(stage: str) -> dict[str, Artifact]:
        files = {}
        for file_format in FORMATS:
            place = bench.out / "files" / f"{stage}-{file_format}"
            about = About(place.name, dataset.classes, ())
            if not place.is_dir():
                place.parent.mkdir(exist_ok=True)
                export(bench.model(stage), place, file_format, about, pixels)
            files[file_format] = read_artifact(place)
        return files

    for whole, made in (("train", "tune50-0"), ("train", "distil25-0"), ("resnet56", "tune56-0")):
        if (bench.out / made / "model.keras").exists():
            less, more = exported(made), exported(whole)
            cases = [(fastest(list(less.values()))[0], fastest(list(more.values()))[0])]
            for runtime, file_format in BY.items():
                for threads in sorted({1, available_cores()}):
                    both = (Case(files[file_format], runtime, Settings(threads=threads)) for files in (less, more))
                    cases.append(tuple(both))
            for a, b in cases:
                found = hold(a, b, pictures_of(a.artifact, None, None), PairProtocol(), bench.seed)
                print(f"{a}\n  against {b}\n  {found.speed}", flush=True)
                with (bench.out / "speed.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**found.as_dict(), "device_id": this_device().id}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=(*STAGE, "speed", "table"))
    parser.add_argument("out", type=Path, help="the folder of all stages")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/cifar10-jpg"), help="train.tar.xz, test.tar.xz"
    )
    parser.add_argument(
        "--weights", type=Path, default=Path("../shared/data/cifar-models/resnet56-4bfd9763.th"), help="of resnet56"
    )
    parser.add_argument("--pictures", type=Path, help="where they are unpacked; beside OUT by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="other than the recipe's: to see how long one takes")
    args = parser.parse_args()
    if args.stage == "table":
        print(table(args.out))
        return
    pictures = args.pictures or args.out.with_name(f"{args.out.name}-pictures")
    bench = Bench(args.out, args.data, pictures, args.seed, args.epochs, args.weights)
    if args.stage == "speed":
        speed(bench)
        return
    done = run(args.stage, bench)
    print(json.dumps({key: value for key, value in done.items() if key != "step"}, indent=1))
    print(json.dumps({k: v for k, v in done["step"]["settings"].items() if not isinstance(v, list | dict)}, indent=1))


if __name__ == "__main__":
    main()
