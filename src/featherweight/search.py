"""The main job: pictures and a budget → the lightest model that is good enough on this device, and the proof.

1. **Screen.** Every candidate is built, exported and measured untrained: size, latency and memory do not depend on
   the weights. What breaks the budget in every variant is out before anybody trains it.
2. **Train** the rest from light to heavy as measured here, not by MACs, which do not rank light models. Each is
   exported, and every file is measured with its accuracy on val, by the runtime and on the threads that were the
   fastest for it in the screen. With a floor on accuracy the search stops at the first that fits, as soon as no
   candidate that is left can be lighter.
3. **Choose** the lightest record that is good enough: it fits the budget, and, without a floor on accuracy, its
   accuracy is not shown to be lower than that of the best that fits. Lightest is the least p50 latency; where that
   does not tell two apart, the smaller file.
4. **Prove.** The chosen file is measured once more on test, which nothing before has looked at.

What a candidate is made and trained by is its task's `training`. Imports all below; keras only through training, models
and export.
"""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Step
from featherweight.budget import Budget, Violation, parse_budget
from featherweight.compare import apart
from featherweight.data import Dataset, Split, load_pixels, read_dataset
from featherweight.errors import (
    BudgetError,
    ExportError,
    MeasureError,
    OutputError,
    RuntimeFailure,
    SettingError,
    SomeUnmeasured,
)
from featherweight.export import FORMATS, PRECISIONS, export
from featherweight.fold import fold_branches
from featherweight.matches import Answers
from featherweight.measure import QUICK, Origin, Patience, Protocol, check_threads, measure
from featherweight.models.functional import picture_size
from featherweight.models.kept import Kept
from featherweight.models.load import save_model
from featherweight.models.pretrained import identify
from featherweight.models.segmenter_nets import row_named, trunk_of
from featherweight.models.zoo import Shape
from featherweight.predict import answers_of
from featherweight.progress import logger
from featherweight.quantize import quantize
from featherweight.record import Record
from featherweight.stats import MIN_SAMPLES
from featherweight.train import load_keras, set_seed
from featherweight.training import QUALITIES, Ladder, Training, about_of, changed, training_of
from featherweight.training.start import Start, starts

CALIBRATION_IMAGES = 128
SCREEN_SLACK = 1.25
PATIENCE = Patience(repeats=1)  # of what is proven; the others only help to choose it
MEASURED_ON_FILE = (
    "size", "latency_p50", "latency_p90", "latency_p99", "memory_peak", "memory_model", "energy", "parameters", "macs",
)  # fmt: skip


@dataclass(frozen=True)
class SearchSettings:
    """What to try and how. Empty tuples mean: choose for me.

    `train` are the settings of the task's training, `TrainSettings`, `DetectSettings` or `SegmentSettings`, by default
    its usual ones; `changes` are settings by name that are to be other than those. `task` is that of the data,
    classify, detect or segment; by default the folder's layout tells. `resize` is how pictures become inputs, by
    default the rule of the task. `start` is a file with a model to train on from, in place of the zoo's.
    """

    models: tuple[str, ...] = ()
    widths: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = PRECISIONS
    threads: tuple[int, ...] = ()
    split: Split = field(default_factory=Split)
    train: Any = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    resize: str | None = None
    start: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start is not None and (self.models or self.widths):
            raise SettingError(f"models or widths beside the start {self.start}; leave one of them out")
        for name in self.models:
            row_named(name)
        if not 0 <= self.seed < 2**32:
            raise SettingError(f"seed {self.seed}; wanted 0 to {2**32 - 1}")
        if self.protocol.min_runs < MIN_SAMPLES[50]:
            raise SettingError(f"{self.protocol.min_runs} runs; a p50 wants at least {MIN_SAMPLES[50]}")
        if not self.formats or not self.precisions:
            raise SettingError("no format or no precision; wanted for example onnx,litert and int8,float32")
        for given, known in ((self.formats, FORMATS), (self.precisions, PRECISIONS)):
            for one in given:
                if one not in known:
                    raise SettingError(f"unknown format or precision {one!r}; known: {', '.join(known)}")


@dataclass(frozen=True)
class Fit:
    """What the search found."""

    fits: bool
    chosen: Artifact | None  # with `fits` false: the nearest, if one was trained
    record: Record | None  # the chosen file's own
    violations: tuple[Violation, ...]
    records: tuple[Record, ...]  # of every file that was measured with accuracy
    reasons: tuple[str, ...]  # what was left out or stopped, and why
    output: Path
    answers: tuple[Answers, ...] = ()  # boxes or masks that the chosen file finds, beside the true ones

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        import json

        return {
            "fits": self.fits,
            "artifact": None if self.chosen is None else str(self.chosen.path),
            "record": None if self.record is None else json.loads(self.record.to_json()),
            "violations": [str(violation) for violation in self.violations],
            "measured": len(self.records),
            "reasons": list(self.reasons),
            "output": str(self.output),
        }


@dataclass(frozen=True)
class _Screened:
    """A candidate, its files' records before training, and what keeps it out."""

    shape: Shape | Start
    records: tuple[Record, ...]
    misses: tuple[Violation, ...]

    @property
    def p50_ms(self) -> float:
        """The least p50 latency of its files."""
        return min((r.latency_p50_ms for r in self.records if r.latency_p50_ms is not None), default=float("inf"))

    def fastest(self, name: str, threads: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """(runtime, threads) by which the file of that name was the fastest; of one that was not screened, all."""
        found = [r for r in self.records if r.name == name and r.latency_p50_ms is not None]
        if not found:
            return "all", threads
        best = min(found, key=lambda r: r.latency_p50_ms or float("inf"))
        return best.runtime, (best.threads,)


def fit(
    data: str | Path | Dataset,
    budget: str | Budget,
    output: str | Path | None = None,
    weights: str | None = None,
    settings: SearchSettings | None = None,
    command: str | None = None,
) -> Fit:
    """Train, export and measure candidates until the lightest that fits the budget on this device is known.

    Args:
        data: a folder of pictures, or a dataset; with labels, with boxes or with masks.
        budget: limits, for example "latency_p90=10ms,size=4MB,accuracy>=0.9".
        output: a new folder for artifacts, records and the report; by default `fit-NAME` in the working directory.
        weights: `None` for random, "imagenet", or a file; a file decides which networks are tried.
        settings: what to try and how.
        command: what was typed, for the records.

    Raises:
        FeatherweightError: bad data, budget, weights, settings or output.
    """
    settings = settings or SearchSettings()
    limits = parse_budget(budget) if isinstance(budget, str) else budget
    place = _claim(output, data)
    try:
        return _search(data, limits, place, weights, settings, Origin(settings.seed, command))
    except BaseException:
        with contextlib.suppress(OSError):
            place.rmdir()  # goes only if nothing was put there yet
        raise


def _search(
    data: str | Path | Dataset,
    limits: Budget,
    place: Path,
    weights: str | None,
    settings: SearchSettings,
    origin: Origin,
) -> Fit:
    threads = check_threads(settings.threads)
    dataset = data if isinstance(data, Dataset) else read_dataset(data, settings.split, settings.task)
    world = training_of(dataset.task, settings.resize)
    check_qualities(limits, world)
    load_keras()
    shapes = candidates(dataset, weights, settings)
    logger.info("%d pictures, %d classes; candidates: %s", len(dataset.items), len(dataset.classes), _list(shapes))
    if weights is not None:  # what does not fit, or cannot be had, is known before the screen
        nets = [shape for shape in shapes if isinstance(shape, Shape)]
        for shape in {(shape.net, shape.width): shape for shape in nets}.values():
            world.build(shape, dataset.classes, weights)
    reasons: list[str] = []
    screened = _screen(shapes, dataset, limits, settings, threads, place, reasons)
    records: list[tuple[Artifact, Record]] = []
    ready = sorted((s for s in screened if s.records and not s.misses), key=lambda s: s.p50_ms)
    for position, one in enumerate(ready):
        records += _train_and_measure(one, dataset, limits, weights, settings, threads, place, origin, reasons)
        stop = _why_stop(limits, records, ready[position + 1 :])
        if stop is not None:
            reasons.append(stop)
            logger.info("%s", stop)
            break
    return _conclude(dataset, limits, records, screened, settings, origin, place, reasons)


def check_qualities(limits: Budget, world: Training) -> None:
    """See that the budget asks only for what the task has.

    Raises:
        BudgetError: AP50 of a classifier.
    """
    for limit in limits.limits:
        key = limit.quantity.key
        if key in QUALITIES and key not in world.qualities:
            raise BudgetError(f"{key} in the budget, and these data are to {world.name}; wanted accuracy")


def candidates(dataset: Dataset, weights: str | None, settings: SearchSettings) -> tuple[Shape | Start, ...]:
    """The networks to try: what was asked for, what the weights file holds, or the ladder; at sizes fit for the data.
    With a start, that model alone.

    Raises:
        WeightsError: the file is of no network here.
        ModelFileError: no model to start from in that file.
        SettingError: nothing is left to try, or weights beside a start.
    """
    if settings.start is not None:
        if weights is not None:
            raise SettingError(f"weights {weights} beside the start {settings.start}, which has its own; leave one out")
        return starts(settings.start, settings.sizes)
    if weights is None or weights == "imagenet":
        ladder = training_of(dataset.task).ladder
        chosen = settings.models or tuple(dict.fromkeys(net for net, _ in ladder))
        nets = [(net, width) for net in chosen for width in settings.widths or _widths(net, ladder)]
        nets.sort(key=lambda one: ladder.index(one) if one in ladder else len(ladder))
    else:
        held = [(net, width) for net, width in identify(weights) if width in (settings.widths or (width,))]
        nets = [(name, width) for net, width in held for name in settings.models or (net,) if trunk_of(name) == net]
    sizes = settings.sizes or default_sizes(dataset)
    shapes = tuple(dict.fromkeys(Shape(net, width, size) for net, width in nets for size in sizes))
    if not shapes:
        raise SettingError(
            f"nothing to try with models {settings.models}, widths {settings.widths} and weights {weights}; "
            "leave one of them out"
        )
    return shapes


def _widths(net: str, ladder: Ladder) -> tuple[float, ...]:
    """The ladder's widths of a network; of one that is not in it, the published ones."""
    return tuple(width for name, width in ladder if name == net) or row_named(net).widths


def default_sizes(dataset: Dataset) -> tuple[int, ...]:
    """The input sizes that suit the pictures and what is to be done with them."""
    return training_of(dataset.task).sizes(dataset)


# ------------------------------------------------------------------------------------------------------- steps


def _screen(
    shapes: Sequence[Shape | Start],
    dataset: Dataset,
    limits: Budget,
    settings: SearchSettings,
    threads: tuple[int, ...],
    place: Path,
    reasons: list[str],
) -> list[_Screened]:
    """Build, export and measure every candidate untrained."""
    found = []
    world = training_of(dataset.task, settings.resize)
    noise = np.random.default_rng(settings.seed)
    for shape in shapes:
        logger.info("screening %s: size and latency of the untrained files", shape)
        model, _ = _built(shape, dataset, None, settings.seed)
        pictures = noise.integers(0, 256, (8, *picture_size(model), 3), np.uint8)
        records: list[Record] = []
        with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
            about = _Written(shape, dataset.classes, (), world.rule(model, dataset))
            made = _export_all(model, about, pictures, settings, Path(scratch), reasons)
            for artifact in made:
                origin = Origin(settings.seed)
                records += _measured(
                    artifact, None, None, QUICK, threads, origin, reasons, output=place / "screen.jsonl"
                )
        misses = _least_misses(records, with_slack(limits.only(MEASURED_ON_FILE)))
        if not records:
            reasons.append(f"{shape} was not trained: none of its files could be made and measured")
        if misses:
            reasons.append(f"{shape} was not trained: in its best variant {'; '.join(map(str, misses))}")
            logger.info("%s", reasons[-1])
        found.append(_Screened(shape, tuple(records), misses))
    return found


def _built(shape: Shape | Start, dataset: Dataset, weights: str | None, seed: int) -> tuple[Any, bool]:
    """A candidate as a model, and whether it is to be trained as a pretrained one."""
    world = training_of(dataset.task)
    if isinstance(shape, Start):
        return world.started(shape.model, dataset, seed)
    return world.build(shape, dataset.classes, weights)


def _begun(shape: Shape | Start, dataset: Dataset, weights: str | None) -> tuple[Step, ...]:
    """Where a candidate comes from, for the lineage."""
    if isinstance(shape, Start):
        settings = {"start": shape.name, "size": list(shape.size), "data": dataset.fingerprint}
        return (*shape.steps, Step("build", settings))
    named = {"net": shape.net, "width": shape.width, "size": shape.size}
    weighted = {"weights": None if weights is None else Path(weights).name}
    return (Step("build", {**named, **weighted, "data": dataset.fingerprint}),)


def _train_and_measure(
    candidate: _Screened,
    dataset: Dataset,
    limits: Budget,
    weights: str | None,
    settings: SearchSettings,
    threads: tuple[int, ...],
    place: Path,
    origin: Origin,
    reasons: list[str],
) -> list[tuple[Artifact, Record]]:
    """One candidate: weights, training, all files, and of each its record on val in its fastest variant."""
    shape = candidate.shape
    logger.info("training %s", shape)
    world = training_of(dataset.task, settings.resize)
    set_seed(settings.seed)
    model, pretrained = _built(shape, dataset, weights, settings.seed)
    items = (*dataset.part("train"), *dataset.part("val"))
    rule = world.rule(model, dataset)
    cache = load_pixels(items, *picture_size(model), rule=rule)
    started = isinstance(shape, Start)
    usual = world.usual(started or weights is not None, started and pretrained)
    how = changed(changed(settings.train or usual, settings.changes), {"seed": settings.seed})
    model, step = world.train(model, dataset, how, pretrained, cache)
    trained = place / "models" / f"{shape}.keras"
    trained.parent.mkdir(exist_ok=True)
    steps = (*_begun(shape, dataset, weights), step)
    # What `prune` and `compress` go on from.
    save_model(model, trained, Kept(steps, dataset.classes, rule))
    pixels = cache.take(dataset.part("train"))
    spread_out = np.linspace(0, len(pixels) - 1, min(CALIBRATION_IMAGES, len(pixels))).astype(int)
    about = _Written(shape, dataset.classes, steps, rule)
    artifacts = _export_all(model, about, pixels[spread_out], settings, place / "artifacts", reasons)
    protocol = _lean(settings.protocol, limits)
    measured = []
    for artifact in artifacts:
        runtime, counts = candidate.fastest(artifact.name, threads)
        output = place / "records.jsonl"
        found = _measured(artifact, dataset, "val", protocol, counts, origin, reasons, runtime, output)
        measured += [(artifact, record) for record in found]
    return measured


def _lean(protocol: Protocol, limits: Budget) -> Protocol:
    """Cold starts and throughput are measured of what is proven, and of all only where the budget bounds them."""
    return replace(
        protocol,
        cold_starts=0 if limits.bound("cold_start") is None else protocol.cold_starts,
        throughput_seconds=0.0 if limits.bound("throughput") is None else protocol.throughput_seconds,
    )


@dataclass(frozen=True)
class _Written:
    """What the files of a candidate say of it."""

    shape: Shape | Start
    classes: tuple[str, ...]
    steps: tuple[Step, ...]
    rule: str


def _export_all(
    model: Any,
    about: _Written,
    calibration: NDArray[np.uint8],
    settings: SearchSettings,
    folder: Path,
    reasons: list[str],
) -> list[Artifact]:
    """Every format and precision that was asked for; one that cannot be made is named in `reasons`."""
    made: list[Artifact] = []
    shape, steps = about.shape, about.steps
    model, fold = fold_branches(model)  # what is several convolutions for training only
    if fold.settings["folded"]:
        steps = (*steps, fold)

    def attempt(make: Callable[[], Artifact], name: str) -> Artifact | None:
        try:
            made.append(make())
        except ExportError as error:
            reasons.append(f"{name} was left out: {error}")
            logger.warning("%s", reasons[-1])
            return None
        return made[-1]

    def exported(file_format: str, parent: Path) -> Artifact:
        name = f"{shape}-{file_format}-float32"
        said = about_of(model, name, about.classes, steps, about.rule)
        return export(model, parent / name, file_format, said, calibration)

    with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
        keep = "float32" in settings.precisions
        for file_format in settings.formats:
            name = f"{shape}-{file_format}"
            source = attempt(partial(exported, file_format, folder if keep else Path(scratch)), name)
            if source is not None and not keep:
                made.remove(source)
            if source is not None and "int8" in settings.precisions:
                attempt(partial(quantize, source, folder / f"{name}-int8", calibration, f"{name}-int8"), f"{name}-int8")
    return made


def _measured(
    artifact: Artifact,
    dataset: Dataset | None,
    part: str | None,
    protocol: Protocol,
    threads: tuple[int, ...],
    origin: Origin,
    reasons: list[str],
    runtime: str = "all",
    output: Path | None = None,
) -> list[Record]:
    """All records of one artifact; a file that no runtime can run, or that kills its process, is named instead."""
    try:
        return measure(
            artifact, dataset, runtime, threads, part, protocol, output, origin,
            patience=PATIENCE if part == "test" else Patience(), findings=False, drift=part == "test",
        )  # fmt: skip
    except SomeUnmeasured as error:
        reasons += [f"{artifact.name} was not measured: {failure}" for failure in error.failures]
        return list(error.records)
    except (RuntimeFailure, MeasureError) as error:
        reasons.append(f"{artifact.name} was not measured: {error}")
        logger.warning("%s", reasons[-1])
        return []


def _why_stop(limits: Budget, records: list[tuple[Artifact, Record]], rest: list[_Screened]) -> str | None:
    """Why none of the rest can win; `None` where one still can."""
    if not rest:
        return None
    if all(limits.violations(record) for _, record in records):
        return None
    lightest = choose(records, limits)[1]
    if not _has_floor(limits) and lightest.accuracy != 1:
        return None  # a heavier one can still be more accurate
    can_be_lighter = [s for s in rest if any(apart(lightest, r, "latency_p50") is not True for r in s.records)]
    if can_be_lighter:
        return None
    return (
        f"stopped: {lightest.name} fits with a p50 of {lightest.latency_p50_ms:.3g} ms, and the {len(rest)} left "
        f"untrained ({_list([s.shape for s in rest])}) were slower in every variant of the screen "
        f"(from {rest[0].p50_ms:.3g} ms)"
    )


def _conclude(
    dataset: Dataset,
    limits: Budget,
    records: list[tuple[Artifact, Record]],
    screened: list[_Screened],
    settings: SearchSettings,
    origin: Origin,
    place: Path,
    reasons: list[str],
) -> Fit:
    if not records:
        nearest = min(
            (record for s in screened for record in s.records),
            key=lambda record: _miss(limits.only(MEASURED_ON_FILE), record),
            default=None,
        )
        violations = () if nearest is None else limits.only(MEASURED_ON_FILE).violations(nearest)
        return Fit(False, None, nearest, violations, (), tuple(reasons), place)
    artifact, record = choose(records, limits)
    if "test" in dataset.parts and not limits.violations(record):
        logger.info("proving %s on test", record.name)
        threads = (record.threads,)
        output = place / "proof.jsonl"
        how = settings.protocol
        proofs = _measured(artifact, dataset, "test", how, threads, origin, reasons, record.runtime, output)
        record = proofs[0] if proofs else record  # none with the reason
    if record.unstable:
        reasons.append(f"the record of {record.name} is UNSTABLE: {record.unstable[0]}")
    if record.quick:
        reasons.append("chosen by quick records, which are not compared elsewhere; leave --quick out for a result")
    violations = limits.violations(record)
    answers = answers_of((artifact,), dataset, None, record.runtime, record.threads)
    measured = tuple(one for _, one in records)
    return Fit(not violations, artifact, record, violations, measured, tuple(reasons), place, answers)


def choose(records: Sequence[tuple[Artifact, Record]], limits: Budget) -> tuple[Artifact, Record]:
    """The lightest that is good enough; where nothing fits, the one that misses least.

    Raises:
        SettingError: no records.
    """
    if not records:
        raise SettingError("no records to choose from; measure something first")
    fitting = [(artifact, record) for artifact, record in records if not limits.violations(record)]
    if not fitting:
        return min(records, key=lambda pair: _miss(limits, pair[1]))
    if not _has_floor(limits):
        best = max((record for _, record in fitting), key=lambda record: record.accuracy or 0)
        fitting = [pair for pair in fitting if apart(best, pair[1], "accuracy") is not True]
    lightest = _lightest([record for _, record in fitting])
    return next(pair for pair in fitting if pair[1] is lightest)


def _has_floor(limits: Budget) -> bool:
    """Whether the budget says how right is right enough."""
    return any(limits.bound(key) is not None for key in QUALITIES)


def _lightest(records: Sequence[Record]) -> Record:
    """The least p50 latency; among those not shown to be slower, the smallest file, then the most accurate."""
    fastest = min(records, key=lambda record: record.latency_p50_ms or float("inf"))
    as_fast = [r for r in records if r is fastest or apart(fastest, r, "latency_p50") is not True]
    return min(as_fast, key=lambda r: (r.size_bytes or float("inf"), -(r.accuracy or 0), r.latency_p50_ms or 0))


def _least_misses(records: Sequence[Record], limits: Budget) -> tuple[Violation, ...]:
    """What the best of them misses; nothing if one fits."""
    if not records:
        return ()
    return min((limits.violations(record) for record in records), key=lambda v: (bool(v), sum(x.miss for x in v)))


def with_slack(limits: Budget) -> Budget:
    """The limits with room for the noise of a quick run: a candidate is not dropped for good by one busy moment."""
    noisy = ("ms", "mJ")
    return Budget(
        tuple(
            replace(limit, bound=limit.bound * (SCREEN_SLACK if limit.quantity.unit in noisy else 1))
            for limit in limits.limits
        )
    )


def _miss(limits: Budget, record: Record) -> float:
    return sum(violation.miss for violation in limits.violations(record))


def _claim(output: str | Path | None, data: str | Path | Dataset) -> Path:
    """The new folder for results, made at once, so that an unwritable place is known before the long work.

    Raises:
        OutputError: it exists and is not empty, or cannot be made.
    """
    root = data.root if isinstance(data, Dataset) else Path(data)
    if output is not None:
        place = Path(output)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise OutputError(f"{place} exists and is not empty; name another folder with --output")
    else:
        name = root.resolve().name
        numbered = (Path(f"fit-{name}{suffix}") for suffix in ("", *(f"-{i}" for i in range(2, 10_000))))
        place = next(path for path in numbered if not path.exists())
    if place.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"{place} lies among the pictures of {root}; name another folder with --output")
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / ".write-test").touch()
        (place / ".write-test").unlink()
    except OSError as error:
        raise OutputError(f"cannot write to {place}: {error.strerror}; name another folder with --output") from error
    return place


def _list(shapes: Sequence[Shape | Start]) -> str:
    return ", ".join(map(str, shapes))
