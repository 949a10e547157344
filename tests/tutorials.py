"""What the walk-throughs say that their reader has, made small, and how their commands are shortened for a test."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

# Behind the command: of a setting that is given twice the last one counts.
SHORTER: Mapping[str, tuple[str, ...]] = {
    "fit": ("--quick", "--epochs", "1", "--threads", "1", "--cold-starts", "1", "--formats", "litert"),
    "train": ("--epochs", "1"),
    "compare": ("--quick",),
    "measure": ("--quick", "--threads", "1", "--cold-starts", "1", "--runtime", "onnxruntime,litert"),
}
PICTURES = 12  # of a class, or of a part


def classify(shared: Path, place: Path) -> None:
    """Folders of classes, weights, one photo."""
    weights = "mobilenet_v1_0.25_128.weights.h5"
    (place / weights).symlink_to(shared / "imagenet-models" / weights)
    for folder in sorted((shared / "signdigits" / "Dataset").iterdir()):
        (place / "digits" / folder.name).mkdir(parents=True)
        for picture in sorted(folder.iterdir())[:PICTURES]:
            (place / "digits" / folder.name / picture.name).symlink_to(picture)
    shutil.copy(sorted((shared / "signdigits" / "Dataset" / "0").iterdir())[-1], place / "hand.jpg")


def detect(shared: Path, place: Path) -> None:
    """A Darknet network, photos, and pictures with boxes as Pascal VOC."""
    darknet = shared / "darknet-yolo-fastest"
    for name in ("yolo-fastest-1.1.cfg", "yolo-fastest-1.1.weights", "coco.names"):
        (place / name).symlink_to(darknet / name)
    (place / "photos").mkdir()
    for photo in sorted((darknet / "images").iterdir())[:2]:
        (place / "photos" / photo.name).symlink_to(photo)
    cells, bccd = place / "cells", shared / "bccd"
    (cells / "ImageSets" / "Main").mkdir(parents=True)
    for folder in ("Annotations", "JPEGImages"):
        (cells / folder).mkdir()
    for part in ("train", "val", "test"):
        names = (bccd / "ImageSets" / "Main" / f"{part}.txt").read_text().split()[: PICTURES // 2]
        (cells / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names))
        for name in names:
            for file in (f"Annotations/{name}.xml", f"JPEGImages/{name}.jpg"):
                (cells / file).symlink_to(bccd / file)


def segment(shared: Path, place: Path) -> None:
    """Pictures with masks under the same names, weights, two pictures without."""
    weights, nuclei = "mobilenet_v1_0.25_128.weights.h5", shared / "dsb2018-gray256"
    (place / weights).symlink_to(shared / "imagenet-models" / weights)
    for folder in ("nuclei/images", "nuclei/masks", "scans"):
        (place / folder).mkdir(parents=True)
    pictures = sorted((nuclei / "images").iterdir())
    for picture in pictures[: 2 * PICTURES]:
        (place / "nuclei" / "images" / picture.name).symlink_to(picture)
        (place / "nuclei" / "masks" / picture.name).symlink_to(nuclei / "masks" / picture.name)
    for picture in pictures[-2:]:
        (place / "scans" / picture.name).symlink_to(picture)


READER: Mapping[str, Callable[[Path, Path], None]] = {"classify": classify, "detect": detect, "segment": segment}
