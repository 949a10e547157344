"""What the zoo has, as plain values and as text: the verb `models`. Works without Keras.

Parameters and MACs stand in the zoo's rows; the tests count them on the built networks.
Imports errors, checkpoints, nets, segmenter_nets and stages.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from featherweight.models.checkpoints import CHECKPOINTS
from featherweight.models.nets import NETS, UNSCALED, Application, Net, Published
from featherweight.models.segmenter_nets import SEGMENTERS, Segmenter, row_named
from featherweight.models.stages import Trunk, Units

Row = dict[str, Any]


def models(name: str | None = None) -> list[Row] | Row:
    """All published variants of all networks, or one network with its stages and variants.

    Raises:
        SettingError: a network that is not in the zoo.
    """
    if name is None:
        found = [_variant(net, row) for net in NETS.values() for row in net.published]
        return found + [_listed(row, size) for row in SEGMENTERS.values() for size in row.published]
    row = row_named(name)
    return _segmenter(row) if isinstance(row, Segmenter) else _network(row)


def listing(rows: Sequence[Row]) -> str:
    """A line a variant."""
    heads = ("network", "width", "input", "params", "MACs", "top-1", "task", "weights", "source")
    cells = [
        (
            row["name"],
            f"{row['width']:g}",
            str(row["size"]),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['macs'] / 1e6:,.0f} M",
            "" if row["top1"] is None else f"{row['top1']:.1f} %",
            row["task"],
            row["weights"],
            row["source"],
        )
        for row in rows
    ]
    right = {1, 2, 3, 4, 5}
    widths = [max(len(line[i]) for line in (heads, *cells)) for i in range(len(heads))]
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in (heads, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines) + LEGEND


LEGEND = """

params: what training changes, without batch-norm statistics. MACs: multiply-accumulates of one picture at the input
size named; 1 MAC = 2 FLOPs. top-1: ImageNet, as published. Neither params nor MACs rank light networks by their speed:
measure them on the device. weights: keras (its own download), file (fetched by name and held against its checksum),
by hand (no public checksum: name the file), none (nobody has published any that is read here), of a segmenter those of
its trunk. Each network to classify is also the trunk of a detector, and of a segmenter: a U-Net."""


def explanation(row: Row) -> str:
    """One network in words and tables."""
    if row["task"] == "segment":
        return _segmenter_explained(row)
    lines = [f"{row['name']}: {row['what']}", f"source: {row['source']}"]
    if row["note"]:
        lines.append(f"our count and the published one: {row['note']}")
    lines += ["", *_scaling_lines(row), ""]
    if row["stages"]:
        lines.append(f"{'stage':<7} {'block':<30} {'filters':>7} {'times':>5} {'strides':>7}  settings")
        lines += [
            f"{unit['stage']:<7} {unit['block']:<30} {unit['filters']:>7} {unit['repeats']:>5} {unit['strides']:>7}  "
            + ", ".join(f"{key} {value}" for key, value in unit["settings"].items())
            for unit in row["stages"]
        ]
        lines.append("Of several blocks in a row the first has the strides.")
    else:
        lines.append(f"wrapped from keras.applications.{row['application']}")
    lines += ["", listing(row["variants"])]
    for variant in row["variants"]:
        if variant["file"]:
            digest = f"sha256 {variant['sha256']}" if variant["sha256"] else "no public checksum: fetch it yourself"
            lines.append(f"weights of width {variant['width']:g}: {variant['file']} ({digest})")
    return "\n".join(lines)


def _variant(net: Net, row: Published) -> Row:
    checkpoint = CHECKPOINTS.get((net.name, row.width))
    if isinstance(net.trunk, Application):
        weights = "keras"
    elif checkpoint is None:
        weights = "none"
    else:
        weights = "by hand" if checkpoint.sha256 is None else "file"
    return {
        "name": net.name,
        "task": "classify",
        **asdict(row),
        "classes": net.classes,
        "weights": weights,
        "file": checkpoint and checkpoint.url,
        "sha256": checkpoint and checkpoint.sha256,
        "source": net.source,
    }


def _network(net: Net) -> Row:
    trunk = net.trunk
    return {
        "name": net.name,
        "task": "classify",
        "what": net.what,
        "source": net.source,
        "note": net.note,
        "classes": net.classes,
        "scale": None if net.scaling == UNSCALED else list(net.scaling.scale),
        "offset": None if net.scaling == UNSCALED else list(net.scaling.offset),
        "application": trunk.name if isinstance(trunk, Application) else None,
        "stages": _stages(trunk) if isinstance(trunk, Trunk) else [],
        "variants": [_variant(net, row) for row in net.published],
    }


def _listed(row: Segmenter, size: Published) -> Row:
    """A variant of a segmenter, for two classes. Its weights are those of its trunk."""
    weights: Row = {"weights": "none", "file": None, "sha256": None}
    if row.trunk is not None:
        trunk = _variant(NETS[row.trunk], size)
        weights = {key: trunk[key] for key in weights}
    return {"name": row.name, "task": "segment", **asdict(size), "classes": 2, **weights, "source": row.source}


def _segmenter(row: Segmenter) -> Row:
    return {
        "name": row.name,
        "task": "segment",
        "what": row.what,
        "source": row.source,
        "note": row.note,
        "classes": 2,
        "trunk": row.trunk,
        "decoder": row.decoder and asdict(row.decoder),
        "variants": [_listed(row, size) for size in row.published],
    }


def _segmenter_explained(row: Row) -> str:
    lines = [f"{row['name']}: {row['what']}", f"source: {row['source']}"]
    if row["note"]:
        lines.append(f"unlike the paper's: {row['note']}")
    if row["trunk"]:
        settings = ", ".join(f"{key} {value}" for key, value in row["decoder"].items())
        lines.append(f"trunk: {row['trunk']}; decoder: {settings}")
    lines += ["input: RGB 0–255, scaled inside; probabilities of each pixel, counted for two classes", ""]
    return "\n".join([*lines, listing(row["variants"])])


def _stages(trunk: Trunk) -> list[Row]:
    named: list[tuple[str, Units | None]] = [("stem", trunk.stem)]
    if trunk.stem_pool and trunk.stem is not None:
        named.append(("pool", Units("max_pool", trunk.stem.filters, 1, 2)))
    named += [(str(number), units) for number, stage in enumerate(trunk.stages) for units in stage]
    named += [("tail", trunk.tail), ("head", trunk.head)]
    return [{"stage": name, **asdict(units)} for name, units in named if units is not None]


def _scaling_lines(row: Row) -> list[str]:
    if row["scale"] is None:
        return ["input: RGB 0–255, scaled inside the trunk"]
    colours = zip(("red", "green", "blue"), row["scale"], row["offset"], strict=True)
    return ["input: RGB 0–255, and inside " + ", ".join(f"{c} · {s:.5f} {o:+.4f}" for c, s, o in colours)]
