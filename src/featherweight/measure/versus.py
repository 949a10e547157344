"""A against B: is it faster here, is it as accurate, and may that be said?

"Faster" is said only where the whole 95 % interval of the median ratio lies beyond a practical margin; otherwise what
is said is how small a difference could have been seen. Accuracies are held against each other picture by picture,
or, where a metric is of all pictures together, on the same pictures drawn anew.

In scope: the verdicts and their words. Not aware of: how a pair is taken (`pairs`), what an interval is (`stats`).
Imports artifact, data, device, errors, pairs, one, record, runtimes, stats and worker.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featherweight.artifact import Artifact, read_artifact
from featherweight.data import Dataset, read_dataset
from featherweight.device import this_device
from featherweight.device.environment import snapshot
from featherweight.device.load import Watch, reasons
from featherweight.errors import SettingError
from featherweight.measure.one import (
    PICTURE_SECONDS,
    Case,
    Pictures,
    check_threads,
    evenly,
    labelled_paths,
    most_runs,
    pictures_of,
)
from featherweight.measure.pairs import INPUTS, PairProtocol, log_ratios
from featherweight.progress import logger
from featherweight.record import QUANTITIES
from featherweight.runtimes import supporting
from featherweight.runtimes.settings import Settings
from featherweight.stats import (
    Bootstrap,
    Difference,
    McNemar,
    Verdict,
    accuracy_difference,
    drawn_difference,
    holm,
    mcnemar,
    verdicts,
)
from featherweight.worker import Worker

SIZE = QUANTITIES["size_bytes"]


@dataclass(frozen=True)
class Together:
    """A metric that is of all pictures together, and cannot be said of one."""

    metric: str
    value: float
    n: int  # pictures
    drawn: tuple[float, ...]  # on pictures drawn anew, draw by draw the same ones for every file


Scored = list[bool] | Together  # whether it is right, a picture each; or what it scores on all of them


@dataclass(frozen=True)
class Accuracies:
    """How often A and B are right on the same pictures, or what they score; the difference is A less B."""

    a: float
    b: float
    difference: Difference
    test: McNemar | Bootstrap
    part: str | None
    metric: str | None = None  # `None`: the share of pictures that are right
    comparisons: int = 1  # that were made together
    holds: bool = True  # whether the test holds among them all (Holm)

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: the whole interval lies on one side of 0, and the test says so too."""
        return (self.difference.low > 0 or self.difference.high < 0) and self.test.p <= 0.05 and self.holds

    def __str__(self) -> str:
        low, high = 100 * self.difference.low, 100 * self.difference.high
        words = ("more" if self.difference.value > 0 else "less") + " accurate" if self.shown else "no difference shown"
        among = f", Holm over {self.comparisons} comparisons" if self.comparisons > 1 else ""
        metric = f"{self.metric} " if self.metric else ""
        apart = f"{100 * self.difference.value:+.1f} points ({low:+.1f} to {high:+.1f}"
        test = f"{type(self.test).__name__} p = {self.test.p:.2g}"
        return (
            f"{words}: {metric}{100 * self.a:.1f} % against {100 * self.b:.1f} %, {apart}, "
            f"{self.difference.n} pictures, {test}{among})"
        )


@dataclass(frozen=True)
class Against:
    """A held against one B."""

    a: Case
    b: Case
    log_ratios: tuple[float, ...]
    speed: Verdict
    accuracy: Accuracies | None
    no_accuracy: str | None
    disturbed: tuple[str, ...]  # what went on meanwhile; the interval has it in it

    def __str__(self) -> str:
        lines = [
            f"{self.a}\n  against {self.b}",
            f"  speed     {self.speed}",
            f"  accuracy  {self.accuracy or f'not compared: {self.no_accuracy}'}",
            f"  size      {SIZE.show(self.a.artifact.size_bytes)} against {SIZE.show(self.b.artifact.size_bytes)}",
        ]
        return "\n".join([*lines, *(f"  note      {reason}" for reason in self.disturbed)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with every pair."""
        accuracy = None if self.accuracy is None else {**asdict(self.accuracy), "said": str(self.accuracy)}
        if accuracy is not None and self.accuracy is not None:
            accuracy["test"] = self.accuracy.test._asdict()
        return {
            "a": side_dict(self.a),
            "b": side_dict(self.b),
            "speed": {**asdict(self.speed), "said": str(self.speed)},
            "log_ratios": list(self.log_ratios),
            "accuracy": accuracy,
            "no_accuracy": self.no_accuracy,
            "disturbed": list(self.disturbed),
            "device_id": this_device().id,
        }


def side_dict(case: Case) -> dict[str, Any]:
    """A case as plain values."""
    return {
        "name": case.artifact.name,
        "sha256": case.artifact.sha256,
        "runtime": case.runtime,
        "settings": asdict(case.settings),
    }


def versus(
    artifacts: Sequence[str | Path | Artifact],
    data: str | Path | Dataset | None = None,
    runtime: str = "all",
    settings: Settings | None = None,
    part: str | None = None,
    protocol: PairProtocol | None = None,
    seed: int = 0,
) -> tuple[Against, ...]:
    """Hold the first file against each other one, in pairs of fresh processes.

    Args:
        artifacts: two or more artifact folders or bare model files.
        data: pictures, for the inputs and for accuracy.
        runtime: a runtime's name; by default the first that supports a file.
        settings: threads, precision, provider, optimization, input size; by default one thread.
        part: the part of the data; by default test where there is one, else val.
        protocol: margin, number of pairs.
        seed: of the order within pairs.

    Raises:
        SettingError: less than two files, or threads that this machine has not.
        MeasureError: a process died, hung or refused.
        FeatherweightError: anything wrong with the files or the data.
    """
    if len(artifacts) < 2:
        raise SettingError(f"{len(artifacts)} file to compare; wanted two or more")
    settings, protocol = settings or Settings(), protocol or PairProtocol()
    check_threads((settings.threads,))
    dataset = data if isinstance(data, Dataset) or data is None else read_dataset(data)
    loaded = [one if isinstance(one, Artifact) else read_artifact(one) for one in artifacts]
    cases = [Case(one, supporting(one, runtime)[0], settings) for one in loaded]
    pictures = [pictures_of(one, dataset, part) for one in loaded]
    rng = random.Random(seed)
    scored = [scored_of(case, some) for case, some in zip(cases, pictures, strict=True)]
    found = [
        _hold((cases[0], case), (pictures[0], some), (scored[0], scored_b), protocol, rng)
        for case, some, scored_b in zip(cases[1:], pictures[1:], scored[1:], strict=True)
    ]
    return judged(found, protocol.margin)


def judged(found: Sequence[Against], margin: float) -> tuple[Against, ...]:
    """The same, judged together: a false verdict among all is as rare as in one, of speed and of accuracy each."""
    speeds = verdicts([one.log_ratios for one in found], margin)
    accuracies = iter(_accuracies_together([one.accuracy for one in found if one.accuracy is not None]))
    return tuple(
        replace(one, speed=speed, accuracy=None if one.accuracy is None else next(accuracies))
        for one, speed in zip(found, speeds, strict=True)
    )


def _accuracies_together(found: Sequence[Accuracies]) -> list[Accuracies]:
    held = holm([one.test.p for one in found])
    return [replace(one, comparisons=len(found), holds=holds) for one, holds in zip(found, held, strict=True)]


def hold(a: Case, b: Case, pictures: Pictures, protocol: PairProtocol, seed: int = 0) -> Against:
    """Hold one file against another, in pairs of fresh processes, and picture by picture."""
    scored = (scored_of(a, pictures), scored_of(b, pictures))
    return _hold((a, b), (pictures, pictures), scored, protocol, random.Random(seed))


def scored_of(case: Case, pictures: Pictures) -> Scored | None:
    """How the file does on the pictures; `None` where that cannot be known."""
    if pictures.no_accuracy is not None:
        return None
    items = labelled_paths(pictures)
    with Worker(case.artifact, case.runtime, case.settings) as worker:
        worker.load()
        expected = PICTURE_SECONDS * (1 + most_runs(case.artifact, pictures)) * len(items)
        score = worker.ask("accuracy", expected, items=items)["score"]
    if score["right"] is not None:
        right: list[bool] = score["right"]
        return right
    return Together(score["metric"], score["value"], score["n"], tuple(score["drawn"]))


def accuracies(a: Scored | None, b: Scored | None, part: str | None) -> Accuracies | None:
    """A's against B's, both on the same pictures; `None` where one of them is not known."""
    if isinstance(a, Together) and isinstance(b, Together):
        difference, test = drawn_difference((a.value, b.value), (a.drawn, b.drawn), a.n)
        return Accuracies(a.value, b.value, difference, test, part, a.metric)
    if isinstance(a, list) and isinstance(b, list):
        return Accuracies(sum(a) / len(a), sum(b) / len(b), accuracy_difference(a, b), mcnemar(a, b), part)
    return None


def _hold(
    cases: tuple[Case, Case],
    pictures: tuple[Pictures, Pictures],
    scored: tuple[Scored | None, Scored | None],
    protocol: PairProtocol,
    rng: random.Random,
) -> Against:
    a, b = cases
    paths = evenly([os.fspath(item.path) for item in pictures[0].items], INPUTS)
    before, watch = snapshot(), Watch.now()
    ratios = log_ratios(a, b, paths, protocol, rng, lambda count: _tell(a, b, count, protocol))
    disturbed = reasons(before, snapshot(), watch.since())
    return Against(
        a,
        b,
        tuple(ratios),
        verdicts([ratios], protocol.margin)[0],
        accuracies(*scored, pictures[0].part),
        pictures[0].no_accuracy or pictures[1].no_accuracy,
        disturbed,
    )


def _tell(a: Case, b: Case, count: int, protocol: PairProtocol) -> None:
    if count == 1 or count % 10 == 0:
        logger.info("%s against %s: pair %d of at most %d", a.artifact.name, b.artifact.name, count, protocol.cap)
