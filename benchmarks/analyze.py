"""Counts and time of `featherweight analyze` against public counters, where they are installed.

One network for all: MobileNetV2 1.0 at 224 pixels with 1000 classes. Counters of ONNX files read the file that is
named; counters of PyTorch models get the same network written in plain PyTorch below.

- onnx-tool, onnx-opcounter: ONNX files.
- fvcore, ptflops, thop, torchinfo, calflops: PyTorch models.

Every contender runs in a process of its own, the order changes with every round; two times are taken: counting alone
(imports and reading included in neither) and the whole process from its start. Figures are medians over the rounds;
ratios are of the whole process to ours. A counter that is not installed is named as absent.

The aim: our MACs are exactly those worked out from the paper's table here, and our whole process takes under 1 s.

    python benchmarks/analyze.py mobilenet_v2.onnx --rounds 5
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIM_SECONDS = 1.0
# Expansion, filters, repeats, stride of each stage (arXiv 1801.04381, table 2).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def macs_of_the_paper() -> int:
    """Worked out from the table: each convolution's output places × kernel × channels in × channels out."""
    side, channels = 112, 32
    total = side * side * 27 * 32
    for expansion, filters, repeats, stride in STAGES:
        for repeat in range(repeats):
            wide = channels * expansion
            total += side * side * channels * wide if expansion != 1 else 0
            side //= stride if repeat == 0 else 1
            total += side * side * (9 * wide + wide * filters)
            channels = filters
    return total + side * side * channels * 1280 + 1280 * 1000


def mobilenet_v2() -> Any:
    """The network in plain PyTorch."""
    from torch import nn

    def unit(channels: int, filters: int, kernel: int, stride: int, groups: int, activation: bool) -> list[Any]:
        convolution = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(filters), *([nn.ReLU6()] if activation else [])]

    class Inverted(nn.Module):
        def __init__(self, channels: int, filters: int, stride: int, expansion: int):
            super().__init__()
            wide = channels * expansion
            first = unit(channels, wide, 1, 1, 1, True) if expansion != 1 else []
            self.body = nn.Sequential(
                *first, *unit(wide, wide, 3, stride, wide, True), *unit(wide, filters, 1, 1, 1, False)
            )
            self.residual = stride == 1 and channels == filters

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.residual else self.body(x)

    layers, channels = unit(3, 32, 3, 2, 1, True), 32
    for expansion, filters, repeats, stride in STAGES:
        for repeat in range(repeats):
            layers.append(Inverted(channels, filters, stride if repeat == 0 else 1, expansion))
            channels = filters
    layers += [*unit(channels, 1280, 1, 1, 1, True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers).eval()


# ------------------------------------------------------------------------------------------------- contenders
# Each prepares (imports, reads, builds) and returns what is timed: a function to (MACs, parameters, its own word).

Counted = tuple[float, float | None, str]


def featherweight(path: str) -> Callable[[], Counted]:
    import onnx  # noqa: F401

    import featherweight.analyze.onnx_reader
    import featherweight.artifact
    import featherweight.modelfile  # noqa: F401
    from featherweight.analyze import analyze

    def run() -> Counted:
        analysis = analyze(path)
        return analysis.macs, analysis.parameters, "MACs"

    return run


def onnx_tool(path: str) -> Callable[[], Counted]:
    import onnx_tool as peer

    def run() -> Counted:
        model = peer.Model(path)
        model.graph.shape_infer(None)
        model.graph.profile()
        return sum(_numbers(model.graph.macs)), model.graph.params, "MACs, all operators"

    return run


def _numbers(value: Any) -> list[float]:
    return [float(part) for part in value] if isinstance(value, list | tuple) else [float(value)]


def onnx_opcounter(path: str) -> Callable[[], Counted]:
    import onnx
    from onnx_opcounter import calculate_macs, calculate_params

    def run() -> Counted:
        model = onnx.load(path)
        return float(calculate_macs(model)), float(calculate_params(model)), "MACs"

    return run


def fvcore(path: str) -> Callable[[], Counted]:
    import torch
    from fvcore.nn import FlopCountAnalysis, parameter_count

    model = mobilenet_v2()

    def run() -> Counted:
        count = FlopCountAnalysis(model, torch.zeros(1, 3, 224, 224))
        count.unsupported_ops_warnings(False)
        return float(count.total()), float(parameter_count(model)[""]), '"flops": one a MAC'

    return run


def ptflops(path: str) -> Callable[[], Counted]:
    from ptflops import get_model_complexity_info

    model = mobilenet_v2()

    def run() -> Counted:
        macs, parameters = get_model_complexity_info(
            model, (3, 224, 224), as_strings=False, print_per_layer_stat=False, verbose=False
        )
        return float(macs), float(parameters), "MACs"

    return run


def thop(path: str) -> Callable[[], Counted]:
    import torch
    from thop import profile

    model = mobilenet_v2()

    def run() -> Counted:
        macs, parameters = profile(model, inputs=(torch.zeros(1, 3, 224, 224),), verbose=False)
        return float(macs), float(parameters), "MACs"

    return run


def torchinfo(path: str) -> Callable[[], Counted]:
    from torchinfo import summary

    model = mobilenet_v2()

    def run() -> Counted:
        found = summary(model, (1, 3, 224, 224), verbose=0)
        return float(found.total_mult_adds), float(found.total_params), "mult-adds"

    return run


def calflops(path: str) -> Callable[[], Counted]:
    from calflops import calculate_flops

    model = mobilenet_v2()

    def run() -> Counted:
        _, macs, parameters = calculate_flops(
            model, (1, 3, 224, 224), output_as_string=False, print_results=False, print_detailed=False
        )
        return float(macs), float(parameters), "MACs"

    return run


CONTENDERS: dict[str, tuple[Callable[[str], Callable[[], Counted]], tuple[str, ...]]] = {
    "featherweight": (featherweight, ("onnx",)),
    "onnx-tool": (onnx_tool, ("onnx_tool",)),
    "onnx-opcounter": (onnx_opcounter, ("onnx_opcounter",)),
    "fvcore": (fvcore, ("fvcore", "torch")),
    "ptflops": (ptflops, ("ptflops", "torch")),
    "thop": (thop, ("thop", "torch")),
    "torchinfo": (torchinfo, ("torchinfo", "torch")),
    "calflops": (calflops, ("calflops", "torch")),
}


def child(name: str, path: str) -> None:
    """One contender, once; JSON on standard output, its chatter nowhere."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = CONTENDERS[name][0](path)
        start = time.perf_counter()
        macs, parameters, word = run()
        seconds = time.perf_counter() - start
    print(json.dumps({"macs": macs, "parameters": parameters, "word": word, "count_s": seconds}))


def timed_child(name: str, path: Path) -> dict[str, Any]:
    """One contender in a fresh process, with the time of the whole process."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, str(path), "--child", name],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    whole = time.perf_counter() - start
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:120]}
    return {**json.loads(done.stdout.splitlines()[-1]), "whole_s": whole}


def main() -> int:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="MobileNetV2 1.0, 224 pixels, 1000 classes, as ONNX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--child", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, str(args.model))
        return 0
    absent = [n for n, (_, needs) in CONTENDERS.items() if any(importlib.util.find_spec(m) is None for m in needs)]
    names = [name for name in CONTENDERS if name not in absent]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in random.sample(names, len(names)):
            found[name].append(timed_child(name, args.model))
    return report(found, absent, args.json)


def report(found: dict[str, list[dict[str, Any]]], absent: list[str], place: Path | None) -> int:
    """Print the table; 1 where an aim is missed."""
    wanted = macs_of_the_paper()
    print(f"worked out from the paper's table: {wanted:,} MACs\n")
    print(f"{'counter':<16}{'MACs':>14}{'off':>8}{'parameters':>12}{'counting':>11}{'process':>10}{'ratio':>7}")
    ours = statistics.median(run["whole_s"] for run in found["featherweight"] if "error" not in run)
    for name, runs in found.items():
        good = [run for run in runs if "error" not in run]
        if not good:
            print(f"{name:<16}failed: {runs[0]['error']}")
            continue
        macs, parameters, word = good[0]["macs"], good[0]["parameters"], good[0]["word"]
        count_s, whole_s = (statistics.median(run[key] for run in good) for key in ("count_s", "whole_s"))
        off = f"{100 * (macs / wanted - 1):+.1f} %"
        count = "–" if parameters is None else f"{parameters:,.0f}"
        print(
            f"{name:<16}{macs:>14,.0f}{off:>8}{count:>12}{1e3 * count_s:>8.0f} ms{whole_s:>8.2f} s"
            f"{whole_s / ours:>6.1f}×  {word}"
        )
    print("\nabsent: " + (", ".join(absent) or "none"))
    if place is not None:
        place.write_text(json.dumps({"wanted_macs": wanted, "runs": found, "absent": absent}, indent=2))
    exact = all(run.get("macs") == wanted for run in found["featherweight"])
    print(f"ours exact: {exact}; whole process under {AIM_SECONDS:g} s: {ours < AIM_SECONDS} ({ours:.2f} s)")
    return 0 if exact and ours < AIM_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
