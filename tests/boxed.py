"""Makers of pictures with boxes, and of the same data in Pascal VOC, COCO and YOLO."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from featherweight.data import Dataset

Box = tuple[str, float, float, float, float]  # class, left, top, right, bottom in pixels from the picture's edge


def picture(seed: int, width: int = 40, height: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def xml(boxes: Sequence[Box], width: int = 40, height: int = 30, hard: Sequence[int] = (), extra: str = "") -> str:
    """An annotation as the development kit counts: from 1, both corners within the box."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(number in hard)}</difficult><bndbox><xmin>{left + 1:g}</xmin>"
        f"<ymin>{top + 1:g}</ymin><xmax>{right:g}</xmax><ymax>{bottom:g}</ymax></bndbox></object>"
        for number, (name, left, top, right, bottom) in enumerate(boxes)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.png</filename>{size}{objects}{extra}</annotation>"


def lines(boxes: Sequence[Box], classes: Sequence[str], width: int = 40, height: int = 30) -> str:
    return "".join(
        f"{classes.index(name)} {(left + right) / 2 / width:.7f} {(top + bottom) / 2 / height:.7f} "
        f"{(right - left) / width:.7f} {(bottom - top) / height:.7f}\n"
        for name, left, top, right, bottom in boxes
    )


def coco(images: Mapping[str, Sequence[Box]], classes: Sequence[str], width: int = 40, height: int = 30) -> dict:
    return {
        "info": {"year": 2026},
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height} for number, name in enumerate(images)
        ],
        "annotations": [
            {"id": 0, "image_id": number, "category_id": classes.index(box[0]) + 1,
             "bbox": [box[1], box[2], box[3] - box[1], box[4] - box[2]], "iscrowd": 0}
            for number, boxes in enumerate(images.values())
            for box in boxes
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
    }  # fmt: skip


def as_coco(dataset: Dataset, folder: Path) -> Path:
    """A data set in COCO's layout, its parts given."""
    for part in dataset.parts:
        images = {}
        for item in dataset.part(part):
            write(folder / f"{part}2026" / item.path.name, item.path.read_bytes())
            images[item.path.name] = boxes_of(dataset, item)
        item = dataset.items[0]
        text = json.dumps(coco(images, dataset.classes, item.width, item.height))
        write(folder / "annotations" / f"instances_{part}2026.json", text)
    return folder


def as_yolo(dataset: Dataset, folder: Path) -> Path:
    """A data set in YOLO's layout, its parts given."""
    for item in dataset.items:
        write(folder / "images" / item.part / item.path.name, item.path.read_bytes())
        text = lines(boxes_of(dataset, item), dataset.classes, item.width, item.height)
        write(folder / "labels" / item.part / f"{item.path.stem}.txt", text)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(dataset.classes))
    write(folder / "data.yaml", f"path: ../somewhere\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder


def boxes_of(dataset: Dataset, item) -> list[Box]:
    return [
        (dataset.classes[label], *map(float, corners))
        for label, corners in zip(item.boxes.labels, item.boxes.corners, strict=True)
    ]


CLASSES = ("cell", "dot")


def some_boxes(seed: int, count: int = 3) -> list[Box]:
    """Boxes of whole pixels in a picture of 40×30."""
    chance = np.random.default_rng(seed)
    found = []
    for number in range(count):
        left, top = chance.integers(0, 30), chance.integers(0, 20)
        width, height = chance.integers(2, 10), chance.integers(2, 10)
        found.append((CLASSES[number % 2], int(left), int(top), int(left + width), int(top + height)))
    return found


def voc_folder(folder: Path, train: int = 6, val: int = 2, test: int = 2) -> Path:
    """The development kit's layout with three parts."""
    number = 0
    for part, count in (("train", train), ("val", val), ("test", test)):
        names = []
        for _ in range(count):
            name = f"p{number:03}"
            write(folder / "JPEGImages" / f"{name}.png", picture(number))
            write(folder / "Annotations" / f"{name}.xml", xml(some_boxes(number)))
            names.append(name)
            number += 1
        if names:
            write(folder / "ImageSets" / "Main" / f"{part}.txt", "\n".join(names) + "\n")
    return folder
