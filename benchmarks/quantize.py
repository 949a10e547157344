"""What quantization costs and brings: MobileNets with published weights on ImageNet photos, every way side by side.

128 photos calibrate, the others judge: how often the best class is right, and how often it is the float32 file's. The
photos are from the training set of these weights, so that only differences mean something. Which layers stay float in
the file within half a point is chosen by the photos that calibrate. The library's own calibrations stand beside ours,
on the same photos. `--speed` then holds int8 against float32 in pairs of fresh processes: each file as it runs fastest
here, and by every runtime that runs both.

    python benchmarks/quantize.py MODELS PHOTOS --files FOLDER [--nets v2] [--speed] [--json]

MODELS is a folder with mobilenet_v1_0.25_128.weights.h5 and so on, PHOTOS one of pictures whose names start with the
number of their class.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, read_artifact
from featherweight.device import available_cores
from featherweight.errors import FeatherweightError
from featherweight.export import About, export
from featherweight.image import read_image, resize
from featherweight.measure.fastest import fastest
from featherweight.measure.one import pictures_of
from featherweight.measure.pairs import PairProtocol
from featherweight.measure.versus import hold, versus
from featherweight.models.pretrained import published
from featherweight.models.zoo import Shape
from featherweight.quantize import QuantizeSettings, accuracy_on, choose_calibration, quantize, quantize_within
from featherweight.quantize.agreement import answers
from featherweight.runtimes import supporting
from featherweight.runtimes.settings import Settings
from featherweight.stats import accuracy_difference

NETS = {
    "v1-0.25": (Shape("mobilenet_v1", 0.25, 128), "mobilenet_v1_0.25_128.weights.h5"),
    "v1-0.5": (Shape("mobilenet_v1", 0.5, 160), "mobilenet_v1_0.5_160.weights.h5"),
    "v2": (Shape("mobilenet_v2", 1.0, 224), "mobilenet_v2_1.0_224.weights.h5"),
}
CALIBRATION, FORMATS = 128, ("onnx", "litert")
WAYS = {f"int8 {method}": QuantizeSettings(calibration=method) for method in ("minmax", "percentile", "entropy")} | {
    "int8 minmax, per tensor": QuantizeSettings(per_channel=False)
}
CORRECTED = {f"{name}, biases corrected": replace(settings, bias_correction=True) for name, settings in WAYS.items()}
OTHERS = {"int8-dynamic": QuantizeSettings("int8-dynamic"), "float16": QuantizeSettings("float16")}


@dataclass(frozen=True)
class Photos:
    """At the size of one network."""

    calibration: NDArray[np.uint8]
    calibration_labels: NDArray[np.int64]
    judging: NDArray[np.uint8]
    labels: NDArray[np.int64]  # of those that judge


def read_photos(folder: Path, size: int) -> Photos:
    paths = sorted(folder.glob("*.jpg"))
    pixels = np.stack([resize(read_image(path), size, size) for path in paths])
    labels = np.array([int(path.name[:4]) for path in paths])
    chosen = np.isin(np.arange(len(paths)), choose_calibration(CALIBRATION, np.zeros(len(paths), np.int64), 0))
    return Photos(pixels[chosen], labels[chosen], pixels[~chosen], labels[~chosen])


def exported(files: Path, models: Path, net: str, file_format: str, photos: Photos) -> Artifact:
    shape, weights = NETS[net]
    place = files / f"{net}-{file_format}-float32"
    if place.is_dir():
        return read_artifact(place)
    classes = tuple(f"{number:04d}" for number in range(1000))
    model = published(shape, str(models / weights))
    return export(model, place, file_format, About(place.name, classes, ()), photos.calibration)


def by_the_library(artifact: Artifact, photos: Photos) -> Iterator[tuple[str, bytes]]:
    """ONNX Runtime's own three calibrations, with its own settings for them."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(photos.calibration[:32])  # it keeps all activations of all photos in memory

        def get_next(self) -> dict[str, Any] | None:
            photo = next(self.rest, None)
            return None if photo is None else {"image": photo[None].astype(np.float32)}

    place = artifact.path.parent
    source, target = place / "library.onnx", place / "library-int8.onnx"
    quant_pre_process(str(artifact.model_path), str(source), skip_symbolic_shape=True)
    for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile, CalibrationMethod.Entropy):
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                str(source), str(target), Reader(), per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, calibrate_method=method,
            )  # fmt: skip
        yield f"the library's {method.name.lower()}, 32 photos", target.read_bytes()
    source.unlink()
    target.unlink()


def row(name: str, size_bytes: int, found: NDArray[np.float32], wanted: NDArray[np.float32], photos: Photos) -> Any:
    best, float_best = found.argmax(axis=1), wanted.argmax(axis=1)
    lost = accuracy_difference((best == photos.labels).tolist(), (float_best == photos.labels).tolist())
    return {
        "file": name,
        "size_bytes": size_bytes,
        "accuracy": float(np.mean(best == photos.labels)),
        "agreement": float(np.mean(best == float_best)),
        "difference": [lost.value, lost.low, lost.high],
        "photos": len(photos.labels),
    }


def rows_of(source: Artifact, files: Path, photos: Photos) -> Iterator[dict[str, Any]]:
    wanted = answers(source, photos.judging)
    yield row(source.name, source.size_bytes, wanted, wanted, photos)
    ways = WAYS | CORRECTED | OTHERS
    for way, settings in ways.items():
        name = source.name.replace("float32", way.replace(" ", "-").replace(",", ""))
        try:
            made = read_artifact(files / name) if (files / name).is_dir() else None
            made = made or quantize(source, files / name, photos.calibration, name, settings)
        except FeatherweightError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        yield row(name, made.size_bytes, answers(made, photos.judging), wanted, photos)
    name = source.name.replace("float32", "int8-within-half-a-point")
    if not (files / name).is_dir():
        score = accuracy_on(photos.calibration, photos.calibration_labels)
        quantize_within(source, files / name, photos.calibration, score, name=name)
    made = read_artifact(files / name)
    yield row(name, made.size_bytes, answers(made, photos.judging), wanted, photos)
    if source.format == "onnx":
        for way, data in by_the_library(source, photos):
            found = answers(replace(source, precision="int8"), photos.judging, data)
            yield row(f"{source.name}: {way}", len(data), found, wanted, photos)


def speeds(files: Path, net: str) -> Iterator[tuple[str, str]]:
    """int8 against float32, each as it runs fastest: in float32, and in whatever arithmetic the runtimes take by
    themselves; then by each runtime that runs both files of a format.
    """
    kinds = ("int8-minmax-biases-corrected", "float32")
    small, full = ([read_artifact(files / f"{net}-{one}-{kind}") for one in FORMATS] for kind in kinds)
    for threads in (1, available_cores()):
        int8, _ = fastest(small, (threads,))
        for precision in ("float32", None):
            float32, _ = fastest(full, (threads,), precision)
            found = hold(int8, float32, pictures_of(int8.artifact, None, None), PairProtocol())
            yield f"{net}: {int8} against {float32}, arithmetic {precision or 'their own'}", str(found.speed)
    for file_format in FORMATS:
        both = [read_artifact(files / f"{net}-{file_format}-{kind}") for kind in kinds]
        for runtime in supporting(both[0]):
            if runtime in supporting(both[1]):
                (found,) = versus(both, None, runtime, Settings(threads=available_cores()))
                yield f"{net} {file_format} {runtime}, all cores", str(found.speed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--files", type=Path, required=True, help="a folder for the files; kept for the next run")
    parser.add_argument("--nets", default=",".join(NETS), help=f"of {', '.join(NETS)}")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--speed", action="store_true", help="also hold int8 against float32 in time")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for net in args.nets.split(","):
        photos = read_photos(args.photos, NETS[net][0].size)
        for file_format in args.formats.split(","):
            source = exported(args.files, args.models, net, file_format, photos)
            for one in rows_of(source, args.files, photos):
                found.append(one)
                low, high = one["difference"][1:]
                if not args.json:
                    print(
                        f"{one['file']:<58} {one['size_bytes'] / 1024:8.0f} KiB  top-1 {100 * one['accuracy']:5.1f}  "
                        f"as float32 {100 * one['agreement']:5.1f}  "
                        f"{100 * one['difference'][0]:+5.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                        flush=True,
                    )
        if args.speed:
            for what, verdict in speeds(args.files, net):
                found.append({"pair": what, "speed": verdict})
                print(f"{what}: {verdict}", file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
