"""How a file runs fastest on this device with its outputs kept: configurations raced, the slow ones out early.

A configuration is a runtime, its number of threads, precision, graph optimization and provider. Three steps:

1. Agreement. Each one answers, in a process of its own, the golden inputs (or, for a bare file, noise): the first class
   must be the same and the outputs near. With data, its accuracy must not be shown to be lower than the default's on
   the same pictures. Who crashes, hangs or disagrees is out.
2. Race. Legs of fresh processes on the same cores, in each of them rounds of short blocks in random order. After a leg
   a configuration is out where the whole interval of its ratio to the best lies beyond 5 %: more than the practical
   margin, as processes of the same file differ by a few percent.
3. Claim. The fastest that is left (or one that is plainer and within the practical margin of it) is held against the
   default in pairs of fresh processes, which took no part in the race, so that having been picked does not flatter it.
   It is the choice if it took less time in these too; the verdict says whether that is shown, or the best guess.

The default is what `predict` does without a choice: the first runtime that supports the file, as it is, on one thread.

    agreement   outputs and accuracy, held against the file's own
    race        legs, rounds, who is out
    result      the table, plain values

In scope: which configurations, what is chosen, what the manifest says. Not aware of: how a block is run (`worker`), how
a pair is taken (`measure.pairs`), what an interval is (`stats`). Imports all below.
"""

import datetime
import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featherweight.artifact import Artifact, Choice, read_artifact, write_choice
from featherweight.data import Dataset, read_dataset
from featherweight.device import available_cores, this_device
from featherweight.device.environment import snapshot
from featherweight.device.load import Watch, reasons, wait_until_quiet
from featherweight.errors import MeasureError, RuntimeFailure
from featherweight.measure import check_threads
from featherweight.measure.one import Case, evenly, pictures_of
from featherweight.measure.pairs import INPUTS, PairProtocol, log_ratios
from featherweight.progress import logger
from featherweight.runtimes import RUNTIMES, runtime_named, supporting
from featherweight.runtimes.settings import Settings
from featherweight.stats import MARGIN, verdict
from featherweight.tune.agreement import hold_accuracy, hold_outputs
from featherweight.tune.race import QUICK, Limits, Runner, race
from featherweight.tune.result import Tuned, append_tuned, check_tuned_file

__all__ = ["QUICK", "Limits", "Tuned", "configurations", "tune"]

# What a process takes beyond the model: the interpreter, numpy and the largest runtime; and a model's weights in memory
# as multiples of its file, as some runtimes keep them packed in another order beside the file's own.
PROCESS_BYTES, COPIES = 200_000_000, 4
MOST_ALIVE = 24


def tune(
    artifact: str | Path | Artifact,
    data: str | Path | Dataset | None = None,
    runtimes: str = "all",
    threads: Sequence[int] | None = None,
    precisions: Sequence[str] = (),
    limits: Limits | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    input_size: tuple[int, int] | None = None,
    wait_seconds: float = 0.0,
) -> Tuned:
    """Find the fastest way to run a file here that keeps its outputs, and write it into the artifact for `predict`.

    Args:
        artifact: an artifact folder, or a bare model file; for that the choice is returned and written nowhere.
        data: pictures for the inputs and for accuracy (its val part where it has one).
        runtimes: names separated by commas, or "all".
        threads: numbers of threads; by default powers of two up to all cores, and all cores.
        precisions: the arithmetic that may be asked for, for example float32; by default all that is offered.
        limits: how long, and when a configuration is out; `QUICK` is less, and labelled.
        output: a file of results to append this one to, one JSON line each, with the raw samples beside.
        seed: of all orders.
        input_size: (height, width) of a foreign file that leaves them open.
        wait_seconds: wait at most so long for a quiet machine first.

    Raises:
        RuntimeFailure: nothing here runs the file, or none of the configurations agrees.
        FeatherweightError: anything wrong with the artifact, the data, the settings or the output.
    """
    loaded = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
    dataset = data if isinstance(data, Dataset) or data is None else read_dataset(data)
    pictures = pictures_of(loaded, dataset, "val" if dataset is not None and "val" in dataset.parts else None)
    if output is not None:
        check_tuned_file(output)
    limits, rng = limits or Limits(), random.Random(seed)
    wait_until_quiet(seconds=wait_seconds)
    before, watch = snapshot(), Watch.now()
    runners = [Runner(case) for case in configurations(loaded, runtimes, threads, precisions, input_size)]
    default = hold_outputs(runners)
    hold_accuracy(runners, default, pictures, limits.pictures)
    paths = evenly([os.fspath(item.path) for item in pictures.items], INPUTS)
    most = most_alive(before, loaded.size_bytes)
    left = race([runner for runner in runners if runner.out is None], default, paths, limits, rng, most)
    best = plainest(left)
    ratios = claim(best, default, paths, limits, rng)
    said = verdict(ratios) if ratios else None
    tuned = Tuned(
        artifact=loaded,
        device_id=this_device().id,
        runners=tuple(runners),
        default=default,
        best=best,
        choice=best if said is not None and said.ratio is not None and said.ratio.median < 1 else default,
        verdict=said,
        log_ratios=ratios,
        disturbed=reasons(before, snapshot(), watch.since()),
        quick=limits.quick,
    )
    known = loaded.tuned.get(tuned.device_id)
    if tuned.quick and known is not None and not known.quick:
        logger.warning("%s keeps the choice of a full race; a quick one does not replace it", loaded.name)
    elif not loaded.foreign:
        tuned = replace(tuned, artifact=write_choice(loaded, tuned.device_id, choice_of(tuned)), written=True)
    return tuned if output is None else append_tuned(output, tuned)


def configurations(
    artifact: Artifact,
    runtimes: str = "all",
    threads: Sequence[int] | None = None,
    precisions: Sequence[str] = (),
    input_size: tuple[int, int] | None = None,
) -> list[Case]:
    """Every way to run the file that is offered here; the default of each runtime comes before its others.

    The first is the default of all, and is there whatever threads and precisions are named.

    Raises:
        RuntimeFailure: nothing here supports the file.
        SettingError: an unknown runtime, or numbers of threads that this machine has not.
    """
    cores = available_cores()
    powers = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    counts = check_threads(threads or (*powers, cores))
    names = supporting(artifact, runtimes)
    default = Case(artifact, names[0], Settings(input_size=input_size))
    offered = [
        Case(artifact, name, replace(settings, threads=count, input_size=input_size))
        for name in names
        for settings in _settings_of(artifact, name, precisions)
        for count in counts
    ]
    return [default, *(case for case in offered if _way(case) != _way(default))]


def _settings_of(artifact: Artifact, runtime: str, precisions: Sequence[str]) -> list[Settings]:
    """A runtime's, for one thread; its own default of an option is not named, so that plain settings stay plain."""
    options = runtime_named(runtime).options(artifact)
    return [
        Settings(
            precision=None if precision == options.precisions[0] else precision,
            optimization=None if optimization == options.optimizations[0] else optimization,
            provider=None if provider == options.providers[0] else provider,
        )
        for precision in options.precisions
        if not precisions or precision in precisions
        for optimization in options.optimizations
        for provider in options.providers
    ]


def _way(case: Case) -> tuple[str, Settings]:
    return case.runtime, case.settings


def most_alive(environment: Mapping[str, Any], size_bytes: int) -> int:
    """How many processes may live at once: so many as half of the free memory holds, 2 to `MOST_ALIVE`."""
    known = [environment.get(name) for name in ("memory_available_bytes", "memory_limit_bytes")]
    free = [value for value in known if isinstance(value, int | float)]
    held = int(min(free, default=0) / 2 / (PROCESS_BYTES + COPIES * size_bytes))
    return min(MOST_ALIVE, max(2, held))


def claim(best: Runner, default: Runner, paths: Sequence[str], limits: Limits, rng: random.Random) -> tuple[float, ...]:
    """Log-ratios of the best of the race and the default in pairs of fresh processes; none where they are one."""
    if best is default:
        return ()
    logger.info("%s against the default, %s: %d pairs or more of fresh processes", best.way, default.way, limits.pairs)
    protocol = PairProtocol(start=limits.pairs, cap=max(limits.pairs, limits.most_pairs))
    try:
        return tuple(log_ratios(best.case, default.case, paths, protocol, rng))
    except (MeasureError, RuntimeFailure) as error:
        best.out = f"claim: {error}"
        return ()


def plainest(left: Sequence[Runner]) -> Runner:
    """The fastest; before it, whoever is within the practical margin of it and plainer.

    Plainer is what asks for less beyond a runtime's own settings, then for fewer threads, then what stands first in
    the table of runtimes.
    """
    fastest = min(left, key=lambda runner: runner.middle)
    near = [runner for runner in left if runner.middle <= fastest.middle + math.log1p(MARGIN)]
    return min(near, key=_plainness)


def _plainness(runner: Runner) -> tuple[int, int, int]:
    settings = runner.case.settings
    asked = sum(one is not None for one in (settings.precision, settings.optimization, settings.provider))
    return asked, settings.threads, list(RUNTIMES).index(runner.case.runtime)


def choice_of(tuned: Tuned) -> Choice:
    """What the manifest says."""
    runner = tuned.choice
    assert runner.p50_ms is not None  # whoever is chosen has run
    ratio = None if tuned.verdict is None or runner is tuned.default else tuned.verdict.ratio
    return Choice(
        runtime=runner.case.runtime,
        settings=asdict(runner.case.settings),
        p50_ms=runner.p50_ms,
        ratio_to_default=None if ratio is None else (ratio.median, ratio.low, ratio.high),
        agreement=runner.agreement or "",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        quick=tuned.quick,
        versions={
            "featherweight": version("featherweight"),
            runner.case.runtime: runtime_named(runner.case.runtime).version(),
        },
    )
