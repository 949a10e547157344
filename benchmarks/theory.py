"""Fill the tables and the figure of docs/lightweight-cnns.md: counted by `analyze`, measured by `measure`.

Blocks are measured as a network of 16 of them in a row, a sixteenth each, in fresh processes, three rounds in turn, the
median of the rounds. The figure and the rank correlations are made from results/zoo.jsonl (benchmarks/zoo.py).

    python benchmarks/theory.py [--threads 1]
"""

import argparse
import html
import math
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.analyze import analyze
from featherweight.artifact import Artifact
from featherweight.export import About, export
from featherweight.fold import fold, fold_branches
from featherweight.measure import Origin, Protocol, measure
from featherweight.models.nets import NETS
from featherweight.models.zoo import reference
from featherweight.record import Record, read_records
from featherweight.stats import rank_correlation
from featherweight.train import load_keras

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "lightweight-cnns.md"
FIGURE = ROOT / "docs" / "macs-latency.svg"
RECORDS = ROOT / "results" / "zoo.jsonl"

SIDE, CHANNELS, REPEATS = 28, 128, 16
BLOCKS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("standard 3×3", "convolution", {"filters": CHANNELS, "kernel": 3}),
    ("depthwise separable 3×3", "depthwise_separable", {"filters": CHANNELS}),
    ("Fire, squeezed to 16", "fire", {"filters": CHANNELS}),
    ("ShuffleNet V1 unit, 4 groups", "shuffle_unit", {"filters": CHANNELS, "groups": 4}),
    ("ShuffleNet V2 unit", "shuffle_unit_v2", {"filters": CHANNELS}),
    ("Ghost module", "ghost", {"filters": CHANNELS}),
    ("inverted residual, twice as wide inside", "inverted_residual", {"filters": CHANNELS, "expand": 2}),
    ("inverted residual, six times as wide", "inverted_residual", {"filters": CHANNELS, "expand": 6}),
    ("branched 3×3, 4 branches, as trained", "branched", {"filters": CHANNELS, "branches": 4}),
    ("the same folded", "branched", {"filters": CHANNELS, "branches": 4}),
)


def block_network(kind: str, settings: dict[str, Any], folded: bool) -> Any:
    """16 blocks in a row between a thin start and a pooling."""
    import keras

    from featherweight.models.blocks import BLOCKS as KNOWN

    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(CHANNELS, 1, name="start")(inputs)
    for number in range(REPEATS):
        x = KNOWN[kind](x, name=f"block{number}", **settings)
    outputs = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    return fold_branches(model)[0] if folded else model


def measured(artifacts: Sequence[Artifact], threads: int, rounds: int = 3) -> list[float]:
    """p50 in ms of each, the median of rounds that take them in turn."""
    found: list[list[float]] = [[] for _ in artifacts]
    for _ in range(rounds):
        for place, artifact in enumerate(artifacts):
            record = measure(artifact, None, "onnxruntime", (threads,), None, Protocol(2.0, 100), None, Origin())[0]
            found[place].append(float(record.latency_p50_ms or math.nan))
    return [statistics.median(samples) for samples in found]


def blocks_table(threads: int) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    classes = tuple(str(number) for number in range(CHANNELS))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = []
        for number, (label, kind, settings) in enumerate(BLOCKS):
            model = block_network(kind, settings, label.startswith("the same folded"))
            found = analyze(model)
            own = [row for row in found.rows if row.layer.startswith("block")]
            macs = sum(row.macs or 0 for row in own) / REPEATS
            parameters = sum(row.trainable or 0 for row in own) / REPEATS
            rows.append((label, parameters, macs))
            artifacts.append(export(model, Path(scratch) / str(number), "onnx", About(kind, classes, ()), pixels))
        times = measured(artifacts, threads)
    base_macs, base_time = rows[0][2], times[0]
    lines = ["| block | parameters | MACs | MACs against standard | time | time against standard |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for (label, parameters, macs), time in zip(rows, times, strict=True):
        fewer, faster = _times(base_macs / macs, "fewer", "more"), _times(base_time / time, "faster", "slower")
        lines.append(
            f"| {label} | {parameters:,.0f} | {macs / 1e6:.1f} M | {fewer} | {time / REPEATS:.3f} ms | {faster} |"
        )
    return "\n".join(lines) + "\n"


def kinds_table() -> str:
    """Where the operators of MobileNetV2 spend: by kind, batch norms folded as a runtime has them."""
    model, _ = fold(reference(NETS["mobilenet_v2"], 1.0))
    found = analyze(model)
    lines = [
        "| operator | MACs | share | parameters | share | bytes moved | FLOPs per byte |",
        "|---|---|---|---|---|---|---|",
    ]
    rows: dict[str, list[Any]] = {"convolution": [], "pointwise": [], "depthwise": [], "dense": []}
    for row in found.rows:
        thin = row.kind == "convolution" and model.get_layer(row.layer).kernel_size == (1, 1)
        rows.get("pointwise" if thin else row.kind, []).append(row)
    for kind, some in rows.items():
        macs = sum(row.macs for row in some)
        parameters = sum(row.parameters for row in some)
        flops, moved = sum(row.flops for row in some), sum(row.traffic_bytes for row in some)
        lines.append(
            f"| {NAMES[kind]} | {macs / 1e6:.1f} M | {macs / found.macs:.1%} | {parameters / 1e6:.2f} M | "
            f"{parameters / found.parameters:.1%} | {moved / 1e6:.1f} MB | {flops / moved:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _times(ratio: float, less: str, more: str) -> str:
    """How many times; nothing where there is no difference to speak of."""
    if 0.95 < ratio < 1.05:
        return ""
    return f"{ratio:.1f}× {less}" if ratio > 1 else f"{1 / ratio:.1f}× {more}"


NAMES = {
    "convolution": "standard 3×3 (the stem)",
    "pointwise": "pointwise 1×1",
    "depthwise": "depthwise 3×3",
    "dense": "dense",
}


def separable_table() -> str:
    """The law on whole networks: what standard convolutions in place of each depthwise pair would cost."""
    lines = ["| network | MACs | with standard convolutions | times |", "|---|---|---|---|"]
    for name in ("mobilenet_v1", "mobilenet_v2", "mnasnet", "efficientnet_lite0"):
        found = analyze(name)
        standard = found.standard.macs
        lines.append(f"| {name} | {found.macs / 1e6:,.0f} M | {standard / 1e6:,.0f} M | {standard / found.macs:.1f} |")
    return "\n".join(lines) + "\n"


def light(record: Record) -> bool:
    """Up to 1 G MACs, and not made for 32 pixels."""
    return (record.macs or 0) <= 1e9 and not record.name.endswith("-32")


def rank_table(records: Sequence[Record]) -> str:
    lines = [
        "| networks | n | latency and MACs | latency and parameters | latency and file size |",
        "|---|---|---|---|---|",
    ]
    for label, some in (
        ("all", list(records)),
        ("light: up to 1 G MACs, 224 px and more", [r for r in records if light(r)]),
        ("of these, 100 to 400 M MACs", [r for r in records if light(r) and 1e8 <= (r.macs or 0) <= 4e8]),
    ):
        latency = [float(r.latency_p50_ms or 0) for r in some]
        figures = (
            rank_correlation(latency, [float(value or 0) for value in values])
            for values in ([r.macs for r in some], [r.parameters for r in some], [r.size_bytes for r in some])
        )
        lines.append(f"| {label} | {len(some)} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join(lines) + "\n"


def extreme_text(records: Sequence[Record]) -> str:
    """The two light networks whose times differ most although the slower one has fewer MACs; and time a MAC."""
    some = [r for r in records if light(r)]
    pairs = [(a, b) for a in some for b in some if (a.macs or 0) <= (b.macs or 0)]
    slow, fast = max(pairs, key=lambda pair: float(pair[0].latency_p50_ms or 0) / float(pair[1].latency_p50_ms or 1))
    per_mac = sorted((float(r.latency_p50_ms or 0) / float(r.macs or 1), r.name) for r in records)
    (least, dense), (most, sparse) = per_mac[0], per_mac[-1]
    return (
        f"The starkest pair: {_short(slow.name)} takes {slow.latency_p50_ms:.2f} ms for {(slow.macs or 0) / 1e6:.0f} M "
        f"MACs, {_short(fast.name)} {fast.latency_p50_ms:.2f} ms for {(fast.macs or 0) / 1e6:.0f} M. A MAC costs "
        f"{1e9 * least:.0f} ps in {_short(dense)} and {1e9 * most:.0f} ps in {_short(sparse)}.\n"
    )


def _short(name: str) -> str:
    """Without the usual width and input size."""
    return re.sub(r"-(224|240|260|300|380|32)$", "", name).removesuffix("-1")


def figure(records: Sequence[Record]) -> str:
    """MACs across, latency upwards, both logarithmic; names where there is room."""
    width, height, left, bottom, top, right = 900, 620, 70, 560, 30, 860
    points = [(math.log10(float(r.macs or 1)), math.log10(float(r.latency_p50_ms or 1)), r) for r in records]
    low_x, high_x = min(p[0] for p in points) - 0.1, max(p[0] for p in points) + 0.1
    low_y, high_y = min(p[1] for p in points) - 0.1, max(p[1] for p in points) + 0.1

    def x(value: float) -> float:
        return left + (value - low_x) / (high_x - low_x) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low_y) / (high_y - low_y) * (bottom - top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui,sans-serif" '
        'font-size="11" fill="#5b6570" role="img" aria-label="latency against MACs">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for exponent in range(math.ceil(low_x), math.floor(high_x) + 1):
        at = f"{x(exponent):.1f}"
        parts.append(f'<path d="M{at} {top}V{bottom}" stroke="#e1e6eb"/>')
        parts.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{_count(10**exponent)}</text>')
    for value in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500):
        if low_y <= math.log10(value) <= high_y:
            up = y(math.log10(value))
            parts.append(f'<path d="M{left} {up:.1f}H{right}" stroke="#e1e6eb"/>')
            parts.append(f'<text x="{left - 8}" y="{up + 4:.1f}" text-anchor="end">{value:g} ms</text>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{height - 16}" text-anchor="middle" font-size="13">'
        "MACs of one picture</text>"
    )
    parts.append(f'<text x="16" y="{top - 12}" font-size="13">p50 latency</text>')
    boxes = [(x(a) - 5, y(b) - 5, x(a) + 5, y(b) + 5) for a, b, _ in points]
    for a, b, record in sorted(points, key=lambda point: point[1]):
        name, own = _short(record.name), (x(a) - 5, y(b) - 5, x(a) + 5, y(b) + 5)
        parts.append(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" fill="#0b6e4f" fill-opacity=".65">'
                     f"<title>{html.escape(name)}: {record.latency_p50_ms:.2f} ms</title></circle>")  # fmt: skip
        for anchor, shift_x, shift_y in (("start", 7, 4), ("end", -7, 4), ("middle", 0, -8), ("middle", 0, 16)):
            long = 6.2 * len(name)
            start = x(a) + shift_x - {"start": 0, "end": long, "middle": long / 2}[anchor]
            box = (start, y(b) + shift_y - 9, start + long, y(b) + shift_y + 2)
            if (
                box[0] > left
                and box[2] < right + 30
                and not any(_overlap(box, other) for other in boxes if other != own)
            ):
                boxes.append(box)
                parts.append(f'<text x="{x(a) + shift_x:.1f}" y="{y(b) + shift_y:.1f}" text-anchor="{anchor}" '
                             f'fill="#1b1f24">{html.escape(name)}</text>')  # fmt: skip
                break
    return "\n".join([*parts, "</svg>", ""])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _count(value: float) -> str:
    return f"{value / 1e9:g} G" if value >= 1e9 else f"{value / 1e6:g} M"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="fill only these tables, comma-separated")
    args = parser.parse_args()
    load_keras()
    records = [r for r in read_records(RECORDS) if r.latency_p50_ms and r.macs and r.parameters]
    makers = {
        "blocks": lambda: blocks_table(args.threads),
        "kinds": kinds_table,
        "separable": separable_table,
        "rank": lambda: rank_table(records),
        "extreme": lambda: extreme_text(records),
    }
    FIGURE.write_text(figure(records), encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    for name in args.only.split(",") if args.only else makers:
        table = makers[name]()
        mark = re.compile(rf"(<!-- theory:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = mark.sub(lambda found, table=table: found[1] + table + found[2], text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
