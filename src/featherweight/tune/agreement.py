"""Does a configuration give the file's own answers? Held against outputs that are known, and by the task's metric.

The limits are wide enough for float32 in any order of sums and for bfloat16 in a network that bears it, and narrow
enough that what is lost would show on a few inputs; a smaller loss is for the pictures of the data to show.

In scope: the outputs. Not aware of: time.
Imports artifact, device, errors, measure, outputs, progress, runtimes, worker and race.
"""

import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact
from featherweight.device import available_cores
from featherweight.errors import MeasureError, RuntimeFailure
from featherweight.measure.one import PICTURE_SECONDS, Case, Pictures, evenly
from featherweight.measure.versus import Accuracies, scored_of
from featherweight.measure.versus import accuracies as held_against
from featherweight.outputs import are_classes, most_off
from featherweight.progress import logger
from featherweight.runtimes.settings import Settings
from featherweight.tune.race import Runner
from featherweight.worker import Worker

# The most that outputs may be off: half the sum of the differences, as a share of the sum of the wanted ones. Of
# probabilities this is the total variation distance.
OFF_LIMIT = 0.05
# The most that raw outputs may be off, as a share of their spread: arithmetic of fewer bits moves them by 0.01 to 0.03.
RAW_LIMIT = 0.1
# Two classes nearer than this share of the sum are tied, so that either may come first: the step of an int8 output.
TIE = 1 / 256
NOISE_INPUTS = 8

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Answers:
    """What a configuration said: its outputs (n, …), and what it really ran with."""

    outputs: NDArray[np.float32]
    ran: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """The outputs (n, …) that a configuration must give, and what they are."""

    outputs: NDArray[np.float32]
    source: str


def hold_outputs(runners: Sequence[Runner]) -> Runner:
    """Put out who crashes, hangs or does not give the wanted outputs; returns the default: the first that does.

    Raises:
        RuntimeFailure: none does, with the reason of the first.
    """
    logger.info("outputs of %d configurations", len(runners))
    found = in_parallel(lambda runner: tried(lambda: answers(runner.case)), runners)
    wanted: Wanted | None = None
    seen: list[tuple[Runner, Answers]] = []
    for runner, one in zip(runners, found, strict=True):
        if isinstance(one, str):
            runner.out = f"outputs: {one}"
            continue
        wanted = wanted or wanted_of(runner.case.artifact, one)
        _judge(runner, one, wanted, seen)
        seen.append((runner, one))
    default = next((runner for runner in runners if runner.out is None), None)
    if default is None:
        raise RuntimeFailure(f"nothing here runs {runners[0].case.artifact.name} as it should: {runners[0].out}")
    return default


def _judge(runner: Runner, found: Answers, wanted: Wanted, seen: Sequence[tuple[Runner, Answers]]) -> None:
    """Whether one is in the race: its outputs agree, and no other does the same."""
    runner.ran = found.ran
    why_not = disagreement(wanted.outputs, found.outputs)
    if why_not is not None:
        runner.out = f"outputs: {why_not}"
        return
    off = outputs_off(wanted.outputs, found.outputs)
    one = "; all of them have one answer, which shows little" if is_constant(wanted.outputs) else ""
    same = "same first class" if are_classes(wanted.outputs) else "outputs near"
    runner.agreement = f"{same} on {len(wanted.outputs)} {wanted.source}, off by at most {off:.2g}{one}"
    twin = next((other for other, its in seen if _same(runner, found, other, its)), None)
    runner.out = None if twin is None else f"does the same as {twin.way}"


def _same(runner: Runner, found: Answers, other: Runner, its: Answers) -> bool:
    """Whether two that are asked for differently do one thing: then one of them is enough to race."""
    return (
        runner.case.runtime == other.case.runtime
        and runner.case.settings.threads == other.case.settings.threads
        and found.ran == its.ran
        and np.array_equal(found.outputs, its.outputs)
    )


def hold_accuracy(runners: Sequence[Runner], default: Runner, pictures: Pictures, count: int) -> None:
    """Put out whose accuracy is shown to be lower than the default's; one of each arithmetic is asked for all."""
    if pictures.no_accuracy is not None:
        return
    groups: dict[tuple[str, Settings], list[Runner]] = {}
    for runner in runners:
        if runner.out is None:
            groups.setdefault((runner.case.runtime, replace(runner.case.settings, threads=1)), []).append(runner)
    logger.info("accuracy of %d configurations on %d pictures", len(groups), min(count, len(pictures.items)))
    found = accuracies([group[0].case for group in groups.values()], default.case, pictures, count)
    for group in groups.values():
        accuracy = found.get(group[0].case)
        if accuracy is None:
            continue
        for runner in group:
            if isinstance(accuracy, str) or lower(accuracy):
                runner.out = f"accuracy: {accuracy}"
            runner.agreement = f"{runner.agreement}; accuracy: {accuracy}"


def answers(case: Case) -> Answers:
    """Run a configuration on the golden inputs, or on noise, in a process of its own.

    Raises:
        MeasureError: it died, hung or refused.
    """
    with Worker(case.artifact, case.runtime, case.settings) as worker:
        ran = worker.load()["ran"]
        worker.ask("inputs", paths=[], count=NOISE_INPUTS)
        answer = worker.ask("outputs", NOISE_INPUTS * PICTURE_SECONDS)
    outputs = np.frombuffer(base64.b64decode(answer["outputs"]), "<f4").astype(np.float32)
    return Answers(outputs.reshape(answer["shape"]), ran)


def wanted_of(artifact: Artifact, default: Answers) -> Wanted:
    """The golden outputs; for a bare file, what the default configuration said.

    Raises:
        ArtifactError: the golden file is missing or damaged.
    """
    if artifact.foreign:
        return Wanted(default.outputs, "inputs of noise, as the default answers them")
    return Wanted(artifact.golden()[1], "golden inputs")


def disagreement(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> str | None:
    """Why these outputs (n, …) are not the wanted ones; `None` where they agree."""
    if found.size != wanted.size:
        return f"gives outputs {found.shape}, wanted {wanted.shape}"
    found = found.reshape(wanted.shape)  # a library may leave sides of 1 out
    if not np.isfinite(found).all():
        return "gives outputs that are no numbers"
    if not are_classes(wanted):
        off = most_off(wanted, found)
        return None if off <= RAW_LIMIT else f"outputs off by {off:.2g} of their spread, allowed are {RAW_LIMIT:g}"
    other = int(np.sum(~_same_first(_flat(wanted), _flat(found))))
    if other:
        return f"another first class on {other} of {len(wanted)} inputs"
    off = outputs_off(wanted, found)
    return None if off <= OFF_LIMIT else f"outputs off by {off:.2g}, allowed are {OFF_LIMIT:g}"


def outputs_off(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The most by which any of outputs (n, …) is off: of classes as a share (`OFF_LIMIT`), else of the spread."""
    if not are_classes(wanted):
        return most_off(wanted, found.reshape(wanted.shape))
    wanted, found = _flat(wanted), _flat(found)
    apart = np.abs(found.astype(np.float64) - wanted).sum(1) / 2
    size = np.abs(wanted.astype(np.float64)).sum(1)
    return float(np.max(np.where(apart == 0, 0.0, apart / np.maximum(size, np.finfo(np.float64).tiny))))


def is_constant(outputs: NDArray[np.float32]) -> bool:
    """Whether outputs (n, …) are the same whatever the input: so are those of a network that was not trained."""
    outputs = _flat(outputs)
    return bool(np.all(np.abs(outputs - outputs[:1]).sum(1) <= TIE * np.abs(outputs[:1]).sum()))


def _flat(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    return outputs.reshape(len(outputs), -1)


def _same_first(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the first class of each row is that of the wanted one, or tied with it there."""
    chosen = np.take_along_axis(wanted, found.argmax(1)[:, None], 1)[:, 0]
    same: NDArray[np.bool_] = chosen >= wanted.max(1) - TIE * np.abs(wanted).sum(1)
    return same


def accuracies(cases: Sequence[Case], default: Case, pictures: Pictures, count: int) -> dict[Case, Accuracies | str]:
    """Each configuration against the default on the same pictures, or why that could not be told.

    Args:
        cases: one of each arithmetic; threads do not change what is computed.
        default: what they are held against.
        pictures: of which at most `count` are used, from all over.
        count: how many.

    Raises:
        MeasureError: the default itself died, hung or refused.
    """
    some = replace(pictures, items=tuple(evenly(pictures.items, count)))
    expected = scored_of(default, some)
    found = in_parallel(lambda case: tried(lambda: scored_of(case, some)), cases)
    held = (one if isinstance(one, str) else held_against(one, expected, pictures.part) for one in found)
    return {case: one for case, one in zip(cases, held, strict=True) if one is not None}


def lower(accuracy: Accuracies) -> bool:
    """Whether the accuracy is shown to be lower than the default's."""
    return accuracy.shown and accuracy.difference.value < 0


def in_parallel(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The function of each item, as many at once as there are cores. Nothing is timed in here."""
    pool = ThreadPoolExecutor(available_cores())
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)


def tried(step: Callable[[], T]) -> T | str:
    """What a step brings, or in one line why its process could not do it."""
    try:
        return step()
    except (MeasureError, RuntimeFailure) as error:
        return str(error)
