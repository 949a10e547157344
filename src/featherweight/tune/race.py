"""The race: configurations of one file on the same cores, in short blocks in random order, the slow ones out early.

A leg is a fresh process for each one that is left, and rounds in which each runs one block; what drifts in time is
shared by all of a round, what differs from process to process by none of a leg. Every block is kept as a ratio to the
default's in the same round, so that heats, where memory does not hold all at once, have a common measure.

In scope: who is out after which leg. Not aware of: outputs, what is chosen. Imports errors, measure, progress, stats
and worker.
"""

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from featherweight.errors import MeasureError, RuntimeFailure, SettingError
from featherweight.measure.one import PICTURE_SECONDS, Case
from featherweight.measure.pairs import INPUTS, shared_cores
from featherweight.progress import logger
from featherweight.stats import Ratio, ratio_interval
from featherweight.worker import Worker


@dataclass(frozen=True)
class Limits:
    """How long is raced, and what is enough to be out."""

    legs: int = 6  # at most; each in fresh processes
    rounds: int = 8  # blocks of each configuration in a leg
    block_seconds: float = 0.02
    warmup_seconds: float = 0.15
    warmup_runs: int = 5
    behind: float = 0.05  # out where the whole interval of the ratio to the best lies beyond
    pairs: int = 12  # of the best and the default, in fresh processes; more while their interval is wide
    most_pairs: int = 40
    pictures: int = 256  # of the data, for accuracy
    quick: bool = False  # less than a choice needs to be sure: labelled

    def __post_init__(self) -> None:
        if min(self.legs, self.warmup_runs, self.pictures) < 1 or min(self.rounds, self.pairs) < 6:
            raise SettingError(f"{self}; wanted at least one leg and picture, and 6 rounds and pairs for an interval")
        if not (0 < self.behind < 1 and 0 <= self.block_seconds < 60 and 0 <= self.warmup_seconds < 60):
            raise SettingError(f"{self}; wanted a share over 0 and under 1 to be behind, and times from 0 to 60 s")


QUICK = Limits(legs=1, rounds=6, pairs=6, most_pairs=6, pictures=64, quick=True)


@dataclass(eq=False)  # a runner is itself
class Runner:
    """A configuration, and what it has shown so far."""

    case: Case
    ran: dict[str, Any] | None = None
    agreement: str | None = None  # None until it is found to agree
    out: str | None = None  # where and why
    log_ratios: dict[tuple[int, int], float] = field(default_factory=dict)  # (leg, round) → log(its time / default's)
    block_ms: list[float] = field(default_factory=list)  # the median of each block
    runs_ns: list[int] = field(default_factory=list)  # every run
    run_blocks: list[int] = field(default_factory=list)  # the block of each run, as a place in `block_ms`

    @property
    def way(self) -> str:
        """The configuration without the file's name: `openvino, 2 threads, float32`."""
        settings = self.case.settings
        threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
        more = (settings.precision, settings.optimization, settings.provider)
        return ", ".join([self.case.runtime, threads, *filter(None, more)])

    @property
    def middle(self) -> float:
        """The median log-ratio of its time to the default's; unbeaten while nothing is known."""
        return median(self.log_ratios.values()) if self.log_ratios else 0.0

    @property
    def ratio(self) -> Ratio | None:
        """Its time as a multiple of the default's, over all rounds."""
        return ratio_interval(list(self.log_ratios.values()))

    @property
    def p50_ms(self) -> float | None:
        """Over all blocks."""
        return median(self.block_ms) if self.block_ms else None


def race(
    runners: Sequence[Runner], default: Runner, paths: Sequence[str], limits: Limits, rng: random.Random, most: int
) -> list[Runner]:
    """Race until one is left or all legs are run; returns those that are left, the fastest first.

    Args:
        runners: all that agree, the default among them.
        default: what all are measured against; it runs in every leg, also where it is out itself.
        paths: pictures to run on; without, golden inputs or noise.
        limits: how long.
        rng: the order.
        most: how many processes may live at once, 2 or more.

    Raises:
        MeasureError: the default's process died, hung or refused.
    """
    cores = shared_cores(max(runner.case.settings.threads for runner in runners))
    left = list(runners)
    for leg in range(1, limits.legs + 1):
        for heat in heats(left, default, most):
            _run(heat, default, Leg(leg, paths, cores, limits, rng))
        left = [runner for runner in left if runner.out is None]
        if not left:  # all of them have died, and the default was behind them
            return [default]
        eliminate(left, leg, limits.behind)
        left = [runner for runner in left if runner.out is None]
        logger.info("leg %d: %d left, ahead is %s", leg, len(left), min(left, key=lambda one: one.middle).way)
        if len(left) == 1:
            break
    return sorted(left, key=lambda runner: runner.middle)


def heats(runners: Sequence[Runner], default: Runner, most: int) -> list[list[Runner]]:
    """Groups of about the same size, at most `most` with the default, which is in each of them."""
    others = [runner for runner in runners if runner is not default]
    count = max(1, math.ceil(len(others) / (most - 1)))
    return [[default, *others[place::count]] for place in range(count)]


def eliminate(left: Sequence[Runner], leg: int, behind: float) -> None:
    """Put out who is behind the best: where the whole 95 % interval of the ratio to it lies beyond."""
    best = min(left, key=lambda runner: runner.middle)
    for runner in left:
        rounds = sorted(runner.log_ratios.keys() & best.log_ratios.keys())
        apart = [runner.log_ratios[one] - best.log_ratios[one] for one in rounds]
        ratio = ratio_interval(apart)
        if ratio is not None and ratio.low > 1 + behind:
            runner.out = (
                f"leg {leg}: {ratio.median:.2f} × the time of {best.way} "
                f"({ratio.low:.2f}–{ratio.high:.2f}, {ratio.n} rounds)"
            )


@dataclass(frozen=True)
class Leg:
    """One leg: its number, on what, where and for how long it is run."""

    number: int
    paths: Sequence[str]
    cores: tuple[int, ...] | None
    limits: Limits
    rng: random.Random


def _run(heat: Sequence[Runner], default: Runner, leg: Leg) -> None:
    """A fresh process each, then the rounds; who dies or hangs is out, and the others go on."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for runner in leg.rng.sample(heat, len(heat)):  # all start at once, so that they wait for each other little
            case = runner.case
            worker = Worker(case.artifact, case.runtime, case.settings, leg.cores)
            workers[runner] = stack.enter_context(worker)
        for runner in list(workers):
            if _guarded(_get_ready, runner, default, workers[runner], leg) is None:
                del workers[runner]
        for number in range(leg.limits.rounds):
            blocks = {}
            for runner in leg.rng.sample(list(workers), len(workers)):
                runs = _guarded(_block, runner, default, workers[runner], leg)
                if runs is None:
                    del workers[runner]
                else:
                    blocks[runner] = runs
            _keep(blocks, default, (leg.number, number))


def _guarded(
    step: Callable[[Worker, Leg], list[int]], runner: Runner, default: Runner, worker: Worker, leg: Leg
) -> list[int] | None:
    """The runs of a step; where its process dies, `None`, and the runner is out."""
    try:
        return step(worker, leg)
    except (MeasureError, RuntimeFailure) as error:
        if runner is default:
            raise  # without it there is nothing to measure against
        runner.out = f"leg {leg.number}: {error}"
        return None


def _get_ready(worker: Worker, leg: Leg) -> list[int]:
    worker.load()
    worker.ask("inputs", PICTURE_SECONDS * len(leg.paths), paths=list(leg.paths), count=INPUTS)
    limits = leg.limits
    answer = worker.ask("warm_up", limits.warmup_seconds, seconds=limits.warmup_seconds, runs=limits.warmup_runs)
    runs: list[int] = answer["ns"]
    return runs


def _block(worker: Worker, leg: Leg) -> list[int]:
    runs: list[int] = worker.ask("block", leg.limits.block_seconds, seconds=leg.limits.block_seconds)["ns"]
    return runs


def _keep(blocks: dict[Runner, list[int]], default: Runner, place: tuple[int, int]) -> None:
    """Keep a round: each block as a ratio to the default's, and every run."""
    usual = median(blocks[default])
    for runner, runs in blocks.items():
        middle = median(runs)
        runner.log_ratios[place] = math.log(middle / usual)
        runner.run_blocks += [len(runner.block_ms)] * len(runs)
        runner.runs_ns += runs
        runner.block_ms.append(middle / 1e6)
