"""Two files, pair after pair of fresh processes → one log-ratio of latency a pair.

What differs from process to process (where memory lies, how threads fall) is repeated with each pair; what drifts in
time is shared by both sides, as the two processes of a pair live at once, on the same cores, and run short blocks in
turn, in random order. One process after the other is six times as noisy where other machines share the processor.

In scope: taking pairs. Not aware of: what the ratios say (`stats`).
Imports device, one, stats and worker.
"""

import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from featherweight.device import available_cores
from featherweight.device.files import ROOT, listed, number, read
from featherweight.errors import SettingError
from featherweight.measure.one import PICTURE_SECONDS, Case
from featherweight.stats import MARGIN, PAIRS_CAP, PAIRS_START, PAIRS_STEP, more_wanted
from featherweight.worker import Worker

INPUTS = 8
LEAST_PAIRS = 6  # of fewer there is no interval
CPU = Path("sys/devices/system/cpu")


@dataclass(frozen=True)
class PairProtocol:
    """How many pairs, and how each is taken.

    A cap under `start` is how many pairs there are. A cap over 40 is allowed, but that the interval covers as often as
    it says is shown up to 40 only (benchmarks/coverage.py).
    """

    margin: float = MARGIN  # the least difference that matters; pairs are added until the interval is as narrow
    start: int = PAIRS_START  # or the cap, where that is less
    step: int = PAIRS_STEP
    cap: int = PAIRS_CAP
    warmup_seconds: float = 0.1
    warmup_runs: int = 10
    block_seconds: float = 0.01
    side_seconds: float = 0.15  # of blocks, on each side of a pair
    rounds: tuple[int, int] = (5, 20)  # at least, at most

    def __post_init__(self) -> None:
        if min(self.start, self.cap) < LEAST_PAIRS:
            raise SettingError(f"{min(self.start, self.cap)} pairs; wanted at least {LEAST_PAIRS} for an interval")
        if self.step < 1:
            raise SettingError(f"{self.step} pairs more at a time; wanted at least 1")
        if not 0 < self.margin < 1:
            raise SettingError(f"margin {self.margin:g}; wanted a share over 0 and under 1, for example 0.02")


def log_ratios(
    a: Case,
    b: Case,
    paths: Sequence[str],
    protocol: PairProtocol,
    rng: random.Random,
    told: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """log(time of A / time of B) of as many pairs as the interval's width asks for, at most the cap.

    Args:
        a: one side.
        b: the other side.
        paths: pictures to run on; without, golden inputs or noise.
        protocol: how many, how long.
        rng: the order within pairs.
        told: is called with the number of pairs after each.

    Raises:
        MeasureError: a process died, hung or refused.
    """
    found: list[float] = []
    wanted = min(protocol.start, protocol.cap)
    while True:
        while len(found) < wanted:
            found.append(one_pair(a, b, paths, protocol, rng))
            told(len(found))
        if wanted >= protocol.cap or not more_wanted(found, protocol.margin, protocol.cap):
            return found
        wanted = min(protocol.cap, wanted + protocol.step)


def one_pair(a: Case, b: Case, paths: Sequence[str], protocol: PairProtocol, rng: random.Random) -> float:
    """log(time of A / time of B) of one pair of fresh processes: the median over rounds of the blocks' log-ratio."""
    cores = shared_cores(max(a.settings.threads, b.settings.threads))
    sides = [a, b]
    starting = rng.sample((0, 1), 2)
    workers: dict[int, Worker] = {}
    try:
        for side in starting:
            case = sides[side]
            workers[side] = Worker(case.artifact, case.runtime, case.settings, cores)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda side: _get_ready(workers[side], paths), starting))
        runs = [_warm_run_seconds(workers[side], protocol) for side in (0, 1)]
        return _alternate(workers, _rounds(max(runs), protocol), protocol, rng)
    finally:
        for worker in workers.values():
            worker.close()


def _get_ready(worker: Worker, paths: Sequence[str]) -> None:
    worker.load()
    worker.ask("inputs", PICTURE_SECONDS * len(paths), paths=list(paths), count=INPUTS)


def shared_cores(threads: int) -> tuple[int, ...] | None:
    """The cores that both sides are bound to: as many as threads (`best_cores`); `None` where all are needed."""
    if sys.platform != "linux" or threads >= available_cores():
        return None
    return best_cores(os.sched_getaffinity(0), threads)


def best_cores(allowed: Iterable[int], count: int, root: Path = ROOT) -> tuple[int, ...]:
    """So many of the allowed cores: no two of one physical core as long as there are others, then the fastest.

    Among equals the last ones, as on the first core of a machine the system does most of its own work.

    Args:
        allowed: numbers of cores.
        count: how many.
        root: where the system's files are; what they do not tell is taken to be the same for all.
    """
    cores = sorted(allowed, reverse=True)
    beside = {core: _siblings(core, root) for core in cores}
    speeds = _speeds(cores, root)
    fastest = sorted(cores, key=lambda core: (-speeds[core], -core))
    # How many of its physical core's threads come before it: 0 is a core of its own.
    turn = {core: sum(other in beside[core] for other in fastest[:place]) for place, core in enumerate(fastest)}
    return tuple(sorted(sorted(fastest, key=lambda core: turn[core])[:count]))


def _siblings(core: int, root: Path) -> tuple[int, ...]:
    return listed(read(root / CPU / f"cpu{core}" / "topology/thread_siblings_list") or str(core))


def _speeds(cores: Sequence[int], root: Path) -> dict[int, int]:
    """How fast each core is, by the first measure that is told for all of them: capacity on Arm, else its top clock."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        found = {core: speed for core in cores if (speed := number(root / CPU / f"cpu{core}" / name)) is not None}
        if len(found) == len(cores):
            return found
    return dict.fromkeys(cores, 0)


def _warm_run_seconds(worker: Worker, protocol: PairProtocol) -> float:
    answer = worker.ask("warm_up", protocol.warmup_seconds, seconds=protocol.warmup_seconds, runs=protocol.warmup_runs)
    return float(median(answer["ns"])) / 1e9


def _rounds(run_seconds: float, protocol: PairProtocol) -> int:
    """As many rounds as fill the time of a side; a slow model's block is three runs, however long these take."""
    block = max(protocol.block_seconds, 3 * run_seconds) + run_seconds
    least, most = protocol.rounds
    return max(least, min(most, round(protocol.side_seconds / block)))


def _alternate(workers: dict[int, Worker], rounds: int, protocol: PairProtocol, rng: random.Random) -> float:
    blocks: dict[int, list[Sequence[int]]] = {0: [], 1: []}
    for _ in range(rounds):
        for side in rng.sample((0, 1), 2):
            answer = workers[side].ask("block", protocol.block_seconds, seconds=protocol.block_seconds)
            blocks[side].append(answer["ns"])
    return pair_log_ratio(blocks[0], blocks[1])


def pair_log_ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """log(time of A / time of B) of one pair: the median over rounds of the blocks' log-ratio.

    Swapping the sides turns its sign and no more: of an even number the two middle ones count alike.

    Args:
        a: the times of one side's runs, a block each round.
        b: those of the other side, in the same rounds.
    """
    return median(math.log(median(one)) - math.log(median(other)) for one, other in zip(a, b, strict=True))
