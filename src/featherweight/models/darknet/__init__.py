"""Darknet's networks as Keras models: a cfg file says what they compute, a weights file has their numbers.

    model, classes, step = import_darknet("yolov3-tiny.cfg", "yolov3-tiny.weights", "coco.names")

A detector ends in `heads.Predictions`: raw numbers, before any sigmoid, with the `boxes.Decoding` that says what they
mean. A classifier ends in probabilities. Inputs are RGB 0–255, as everywhere; Darknet's 0–1 is the first layer.

Both files are input from strangers: everything about them is checked, in integers, before Keras is imported.

Imports artifact, boxes, models and this folder; layers and keras where they are used.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.artifact import Step, check_new
from featherweight.boxes import Decoding, Scale
from featherweight.errors import SettingError
from featherweight.models.darknet.cfg import Section, read_cfg
from featherweight.models.darknet.plan import Plan, Planned, Shape
from featherweight.models.darknet.rules import plan
from featherweight.models.darknet.weights import check_size, read_header, read_names, read_weights
from featherweight.models.kept import Kept
from featherweight.models.load import save_model

if TYPE_CHECKING:
    import keras

__all__ = ["build_darknet", "import_darknet", "read_cfg", "save_darknet"]


# Of batch norm, (x - mean) / √(variance + ε): Darknet's on graphics processors, where the weights were trained, and
# AlexeyAB's everywhere. OpenCV's importer took 1e-6, which moves raw outputs by up to 0.02.
EPSILON = 1e-5


def build_darknet(cfg: str | Path | Sequence[Section], epsilon: float = EPSILON) -> "keras.Model":
    """The network of a cfg file with random weights: RGB 0–255 (n, h, w, 3) → boxes, probabilities, or its last map.

    Raises:
        ModelFileError: the cfg cannot be understood, or asks for what no layer here stands for.
    """
    return _built(_planned(cfg), None, epsilon)[0]


def import_darknet(
    cfg: str | Path, weights: str | Path, names: str | Path | None = None, epsilon: float = EPSILON
) -> tuple["keras.Model", tuple[str, ...], Step]:
    """A Darknet network with its weights.

    Args:
        cfg: the file that describes it.
        weights: the file of its numbers.
        names: a file with the names of its classes, one a line; else they are called class 0, class 1 …
        epsilon: of batch norm; 1e-6 for the very numbers of OpenCV's importer.

    Returns:
        The model; the names of the classes, none for a network that ends in a map; what was done, for the lineage,
        with what of the cfg was left aside.

    Raises:
        ModelFileError: one of the files is damaged, or they do not belong together; one line says where.
        SettingError: names for a network that tells no classes apart, or an epsilon that cannot be.
    """
    if not 0 < epsilon < 1:
        raise SettingError(f"epsilon {epsilon:g}; wanted a small number above 0, as {EPSILON:g}")
    network = _planned(cfg)
    header = read_header(weights)
    check_size(Path(weights), header, network)
    count = _classes(network)
    if names is not None and count is None:
        raise SettingError(f"{names} for a network that tells no classes apart; leave it out")
    named = None if names is None or count is None else read_names(names, count)
    header, arrays = read_weights(weights, network)
    model, weighted = _built(network, named, epsilon)
    for key, given in arrays.items():
        weighted[key].set_weights(given)
    settings = {
        "cfg": Path(cfg).name,
        "weights": Path(weights).name,
        "sha256": _digest(Path(weights)),
        "version": ".".join(map(str, header.version)),
        "pictures_seen": header.seen,
        "epsilon": epsilon,
        "resize": "letterbox" if network.net.whole("letter_box", 0) else "bilinear",
    }
    skipped = (*network.ignored, *_unused(model, network, weighted))
    classes = named or tuple(f"class {number}" for number in range(count or 0))
    return model, classes, Step("import_darknet", settings, skipped)


def save_darknet(
    cfg: str | Path,
    weights: str | Path,
    names: str | Path | None = None,
    output: str | Path | None = None,
    epsilon: float = EPSILON,
) -> tuple[Path, "keras.Model", tuple[str, ...], Step]:
    """`import_darknet`, written as a `.keras` file: by default with the name of the weights, in the working directory.

    Returns:
        The file, and what `import_darknet` gives.

    Raises:
        ModelFileError, SettingError: as `import_darknet`.
        OutputError: the file exists or cannot be written.
    """
    path = Path(Path(weights).with_suffix(".keras").name if output is None else output)
    if path.suffix != ".keras":
        raise SettingError(f"--output {path}; wanted a name that ends in .keras")
    check_new(path)
    model, classes, step = import_darknet(cfg, weights, names, epsilon)
    save_model(model, path, Kept((step,), classes, str(step.settings["resize"])))
    return path, model, classes, step


# ---------------------------------------------------------------------------------------------------------- building


def _planned(cfg: str | Path | Sequence[Section]) -> Plan:
    network = plan(read_cfg(cfg) if isinstance(cfg, str | Path) else cfg)
    _decoding(network)  # raises what can be known without Keras
    return network


def _built(
    network: Plan, names: tuple[str, ...] | None, epsilon: float
) -> tuple["keras.Model", dict[tuple[int, str], Any]]:
    """The model, and its layers that take weights by the keys of `weights.Arrays`."""
    import keras

    from featherweight.models.darknet.layers import Making, make
    from featherweight.models.heads import Predictions

    picture = keras.Input(network.picture, name="image")
    making = Making(network, keras.layers.Rescaling(1 / 255, name="scale")(picture), epsilon)
    heads = []
    for layer in network.layers:
        if layer in network.heads:
            heads.append(_head(making, layer))
        else:
            making.tensors[layer.number] = make(making, layer)
    decoding = _decoding(network)
    if decoding is None:
        output = making.tensors[len(network.layers) - 1]
    else:
        output = Predictions(decoding.as_dict(), names, name="predictions")(heads)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in network.net.path.stem)
    return keras.Model(picture, output, name=name or "darknet"), making.weighted


def _head(making: Any, layer: Planned) -> Any:
    """The map (n, h, w, anchors · values) whose rows are as `Decoding` says."""
    if layer.kind == "detection":
        return _cells(making, layer)
    x = making.map(layer.number - 1)
    return _means_first(x, layer) if layer.kind == "gaussian_yolo" else x


def _means_first(x: Any, layer: Planned) -> Any:
    """Of each prior's x, σ(x), y, σ(y) … the four means, then the four uncertainties."""
    from keras import layers

    from featherweight.models.blocks import ChannelSlice

    name, (height, width, channels), anchors = f"yolo{layer.number}", layer.shape, len(layer.settings["anchors"])
    values = channels // anchors
    x = layers.Reshape((height, width, anchors, values), name=f"{name}_priors")(x)
    box = ChannelSlice(0, 8, name=f"{name}_box")(x)
    box = layers.Reshape((height, width, anchors, 4, 2), name=f"{name}_pairs")(box)
    box = layers.Permute((1, 2, 3, 5, 4), name=f"{name}_means_first")(box)
    box = layers.Reshape((height, width, anchors, 8), name=f"{name}_ordered")(box)
    x = layers.Concatenate(name=f"{name}_joined")([box, ChannelSlice(8, values, name=f"{name}_rest")(x)])
    return layers.Reshape(layer.shape, name=name)(x)


def _cells(making: Any, layer: Planned) -> Any:
    """YOLOv1's vector, all classes, then all objectness, then all boxes, as a map with these cell by cell."""
    from keras import layers

    from featherweight.models.blocks import ChannelSlice

    name, settings = f"detection{layer.number}", layer.settings
    side, boxes, classes = settings["side"], settings["boxes"], settings["classes"]
    x = making.vector(layer.number - 1, f"{name}_flat")
    parts, start = [], 0
    for part, count in (("classes", classes), ("objects", boxes), ("boxes", 4 * boxes)):
        stop = start + side * side * count
        piece = ChannelSlice(start, stop, name=f"{name}_take_{part}")(x)
        parts.append(layers.Reshape((side, side, count), name=f"{name}_{part}")(piece))
        start = stop
    named, objects, corners = parts
    rows = []
    for box in range(boxes):
        rows.append(ChannelSlice(4 * box, 4 * box + 4, name=f"{name}_box{box}")(corners))
        rows.append(ChannelSlice(box, box + 1, name=f"{name}_object{box}")(objects))
        rows.append(named)
    return layers.Concatenate(name=name)(rows)


# ----------------------------------------------------------------------------------------------- what the output means


def _decoding(network: Plan) -> Decoding | None:
    """What a detector's rows mean; `None` for any other network.

    Raises:
        ModelFileError: heads that one decoding cannot describe.
    """
    found: Decoding | None = None
    for layer in network.heads:
        one = _decoding_of_head(layer, network.picture)
        if found is None:
            found = one
        elif (found.kind, found.classes, found.activated, found.uncertain) != (
            one.kind, one.classes, one.activated, one.uncertain
        ):  # fmt: skip
            raise layer.section.failure("is of another kind, or of other classes, than the one before", "wanted alike")
        else:
            found = Decoding(**{**vars(found), "scales": (*found.scales, *one.scales)})
    return found


def _decoding_of_head(layer: Planned, picture: Shape) -> Decoding:
    settings, (height, width, _) = layer.settings, layer.shape
    size: dict[str, Any] = {"height": picture[0], "width": picture[1], "classes": settings["classes"]}
    if layer.kind == "detection":
        side = settings["side"]
        scale = Scale(side, side, ((1.0, 1.0),) * settings["boxes"])
        return Decoding("grid", (scale,), **size, roots=settings["roots"], softmax=settings["softmax"])
    scale = Scale(height, width, settings["anchors"], settings.get("xy_scale", 1.0))
    if layer.kind == "region":  # without the softmax it is what YOLOv3 computes
        softmax = settings["softmax"]
        return Decoding("region" if softmax else "yolo", (scale,), **size, softmax=softmax)
    uncertain = layer.kind == "gaussian_yolo"
    return Decoding("yolo", (scale,), **size, activated=settings["activated"], uncertain=uncertain)


def _classes(network: Plan) -> int | None:
    """How many classes the network tells apart, if it does."""
    if network.heads:
        return int(network.heads[0].settings["classes"])
    last = [layer for layer in network.layers if layer.kind not in ("cost", "empty", "dropout")][-1:]
    whole = last and last[0].kind == "softmax" and not last[0].settings["spatial"]
    return math.prod(last[0].shape) if whole else None


def _unused(model: Any, network: Plan, weighted: dict[tuple[int, str], Any]) -> list[tuple[str, str]]:
    """Layers with weights that no output depends on."""
    used = {id(layer) for layer in model.layers}
    numbers = sorted({number for (number, _), layer in weighted.items() if id(layer) not in used})
    return [(network.layers[number].label, "no output depends on it") for number in numbers]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
