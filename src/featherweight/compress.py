"""A trained model → the lightest file of it that is good enough here, step by step, each step held to what it brings.

1. **Fold** parallel branches into one convolution, where there are any: equal outputs, fewer operators.
2. **Prune** channels until the budget's limits on the file are met, as measured on this device before any training; a
   smaller model that is slower here, or neither faster nor smaller, is refused there and then.
3. **Distil** what is left from the model as it was. If too much accuracy is lost, pruning is refused.
4. **Quantize** to int8, layers that cost too much left in float. If that is neither faster nor smaller, it is refused.

Each stage is exported in every format, the fastest way to run it here is found by quick runs, the file is measured so
on val, and held against the stage before in pairs of fresh processes. What pays is kept. The last that was kept is
measured once more on test, as is the model as it was.

An interrupted run goes on at the last stage that was finished: trained models are kept in `stages/`, and so are the
exported files with what was found of them.

How the model is taught, and by what int8 is held against it, is its task's `training`.

Imports all below; keras only through models, prune, training and export.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import Artifact, Step, read_artifact, write_file
from featherweight.budget import Budget, parse_budget
from featherweight.data import Dataset, Item, Split, load_pixels, read_dataset
from featherweight.errors import ExportError, OutputError, RecordError, SettingError
from featherweight.export import FORMATS, export
from featherweight.fold import fold_branches
from featherweight.measure import Case, Origin, Patience, Protocol, measure
from featherweight.measure.fastest import fastest, p50, ways
from featherweight.measure.one import pictures_of
from featherweight.measure.pairs import PairProtocol
from featherweight.measure.versus import Against, hold
from featherweight.models.functional import flat, picture_size
from featherweight.models.kept import Kept, kept_in
from featherweight.models.load import load_model
from featherweight.page import write_page
from featherweight.predict import answers_of
from featherweight.progress import logger
from featherweight.prune import Pictures, Plan, PruneSettings, Target, Timed, apply, plan
from featherweight.quantize import (
    CALIBRATION_IMAGES,
    QuantizeSettings,
    chosen_items,
    quantize,
    quantize_within,
)
from featherweight.record import Record, read_records
from featherweight.report.compression import Stage, compression_page
from featherweight.resume import Resumable
from featherweight.runtimes.settings import Settings
from featherweight.search import MEASURED_ON_FILE, check_qualities, with_slack
from featherweight.train import load_keras, set_seed
from featherweight.training import Training, about_of, changed, names_of, training_of
from featherweight.training_state import model_digest

if TYPE_CHECKING:
    import keras

# Shares of the MACs that are tried, largest first, until the file fits the budget.
SHARES = (0.75, 0.5, 0.35, 0.25, 0.15)
WITHOUT_BUDGET = 0.5
NOTE, STAGES, BUDGET = "compress.json", "stages", "budget"
MadeOf = Callable[[Artifact, Path, NDArray[np.uint8]], Artifact]  # of a float32 file, with calibration pictures
# A file that is smaller by less is not worth a step.
LEAST_SMALLER = 0.05
PATIENCE = Patience(repeats=1)


@dataclass(frozen=True)
class CompressSettings:
    """How each step is done, and what it may cost.

    `target` is what pruning may leave; by default as much as the budget's limits on the file allow, or half of the MACs
    where it has none. `distil` are the settings of the task's distillation, `DistillSettings` or the task's
    `TaughtSettings`, by default its usual ones; `changes` are settings by name that are to be other than those.
    `prune_loss` and `max_loss` are how much less accurate on val the distilled model may be than the one given, by the
    record's metric, and the int8 file than the float one, by top-1, AP50 or mean IoU. `resize` is how pictures become
    inputs, by default the rule of the task; `task` that of the data, by default as the folder's layout tells.
    """

    target: Target | None = None
    prune: PruneSettings = field(default_factory=PruneSettings)
    distil: Any = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    quantize: QuantizeSettings = field(default_factory=lambda: QuantizeSettings(bias_correction=True))
    prune_loss: float = 0.01
    max_loss: float = 0.005
    formats: tuple[str, ...] = FORMATS
    threads: tuple[int, ...] = ()
    split: Split = field(default_factory=Split)
    task: str | None = None
    resize: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    pairs: PairProtocol = field(default_factory=PairProtocol)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in (("prune_loss", self.prune_loss), ("max_loss", self.max_loss)):
            if not 0 <= share < 1:
                raise SettingError(f"{name} {share:g}; wanted a share from 0 to below 1, as 0.01 for one point")
        if self.quantize.precision != "int8" or self.quantize.skip:
            raise SettingError("quantize with another precision than int8, or with names to skip; wanted neither")
        if not 0 <= self.seed < 2**32:
            raise SettingError(f"seed {self.seed}; wanted 0 to {2**32 - 1}")
        unknown = next((one for one in self.formats if one not in FORMATS), None)
        if unknown is not None or not self.formats:
            raise SettingError(f"format {unknown or 'none'}; known: {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Compressed:
    """What came of it."""

    fits: bool
    chosen: Artifact
    record: Record  # of the chosen file, on test where there is such a part
    misses: tuple[str, ...]  # of the budget
    stages: tuple[Stage, ...]
    proofs: tuple[Record, ...]  # of the chosen file and of the model as it was, on test
    reasons: tuple[str, ...]
    output: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "fits": self.fits,
            "artifact": str(self.chosen.path),
            "record": {"id": self.record.id, **json.loads(self.record.to_json())},
            "misses": list(self.misses),
            "stages": [
                {"name": one.name, "kept": one.kept, "why": one.why, "record": one.record.id} for one in self.stages
            ],
            "proofs": [one.id for one in self.proofs],
            "reasons": list(self.reasons),
            "output": str(self.output),
            "report": str(self.output / "report.html"),
        }


def compress(
    model: "str | Path | keras.Model",
    data: str | Path | Dataset,
    budget: str | Budget | None = None,
    output: str | Path | None = None,
    settings: CompressSettings | None = None,
    command: str | None = None,
) -> Compressed:
    """Make a trained model lighter, and prove each gain on this device.

    Args:
        model: trained on the classes of `data`, in their order; a `.keras` or `.h5` file, or the model.
        data: pictures, for training, for choosing (val) and for the proof (test).
        budget: limits on the file, for example "latency_p90=10ms,size=1MB,accuracy>=0.9".
        output: a folder for artifacts, records and the page, by default `compress-NAME`; one that was interrupted is
            gone on with.
        settings: how.
        command: what was typed, for the records.

    Raises:
        SettingError: a model of other classes, that ends in neither a softmax, boxes nor masks or has an open input
            size; settings that cannot be.
        OutputError: the folder holds something else, or cannot be written.
        FeatherweightError: anything wrong with the model's file, the data or the budget.
    """
    settings = settings or CompressSettings()
    limits = parse_budget(budget) if isinstance(budget, str) else budget or Budget()
    load_keras()
    original = load_model(model) if isinstance(model, str | Path) else model
    known = kept_in(model) if isinstance(model, str | Path) else Kept()
    rule = settings.resize or known.resize
    dataset = data if isinstance(data, Dataset) else read_dataset(data, settings.split, settings.task)
    world = training_of(dataset.task, rule)
    check_qualities(limits, world)
    _check_fits(original, dataset, world)
    taught = changed(changed(settings.distil or world.usual_taught(), settings.changes), {"seed": settings.seed})
    settings = replace(settings, distil=taught, changes={})
    name = Path(model).stem if isinstance(model, str | Path) else original.name
    origin = {
        "model": model_digest(original),
        "data": dataset.fingerprint,
        "budget": str(limits),
        "settings": json.loads(json.dumps(asdict(settings))),
    }
    place = _claim(Path(output) if output is not None else Path(f"compress-{name}"), origin)
    set_seed(settings.seed)
    way = _Way(
        name, dataset, world, limits, place, settings, Origin(settings.seed, command),
        Resumable(place / STAGES, origin), world.rule(original, dataset), known.steps,
    )  # fmt: skip
    return way.gone(original)


def timed_here(formats: Sequence[str] = FORMATS, threads: Sequence[int] = ()) -> Timed:
    """What `prune.plan` wants for a target of latency: model → p50 in ms on this device, untrained, by quick runs of
    every runtime; the fastest counts.

    Args:
        formats: it is exported to.
        threads: to run with; by default one, and all cores.
    """

    def timed(model: "keras.Model") -> float:
        height, width = picture_size(model)
        pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
        about = about_of(model, model.name, names_of(model), ())
        with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
            files = [export(model, Path(scratch) / one, one, about, pictures) for one in formats]
            return p50(fastest(files, threads)[1])

    return timed


def _check_fits(model: "keras.Model", dataset: Dataset, world: Training) -> None:
    picture_size(model)
    world.check(model, dataset)
    for part in ("train", "val"):
        dataset.part(part)


def _claim(place: Path, origin: dict[str, Any]) -> Path:
    """The folder, new or of the same work.

    Raises:
        OutputError: it holds something else, or cannot be made.
    """
    note, stages = place / NOTE, place / STAGES
    if note.exists():
        try:
            same = json.loads(note.read_text(encoding="utf-8")) == origin
        except (OSError, ValueError):
            same = False
        if not same:
            raise OutputError(
                f"{place} holds another compression (model, data, budget or settings); name another folder"
            )
        stages.mkdir(exist_ok=True)
        return place
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise OutputError(f"{place} exists and is not empty; name another folder with --output")
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_file(note, json.dumps(origin, indent=1).encode())
        stages.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {place}: {error.strerror}; name another folder with --output") from error
    return place


class _NotPruned(Exception):
    """No channel can go, or none that the target wants."""


def _shown_to_miss(limits: Budget, record: Record) -> bool:
    """A quick run does not have every number; what it has not, it does not tell of."""
    return any(violation.value is not None for violation in limits.violations(record))


@dataclass(frozen=True)
class _Found:
    """A stage with the way in which its fastest file is run, and the float32 files that the next one starts from."""

    stage: Stage
    case: Case
    files: tuple[Artifact, ...]


@dataclass
class _Way:
    """The whole way of one model."""

    name: str
    dataset: Dataset
    world: Training
    limits: Budget
    place: Path
    settings: CompressSettings
    origin: Origin
    trained: Resumable
    rule: str  # how pictures become inputs
    before: tuple[Step, ...]  # how the model came to be
    reasons: list[str] = field(default_factory=list)

    def gone(self, original: "keras.Model") -> Compressed:
        """All stages, the choice and the proof."""
        original = flat(original)
        first = self._measured("as it was", partial(self._exported, "original", original, self.before), None)
        stages, last = [first.stage], first
        model: keras.Model = original
        steps = self.before
        try:
            folded, step = fold_branches(original)
        except SettingError as error:  # a layer that is used twice, which pruning can do with
            self._reason(f"not folded: {error}")
            folded, step = original, Step("fold_branches", {"folded": 0})
        if step.settings["folded"]:
            found = self._measured("fold", partial(self._exported, "folded", folded, (*steps, step)), last)
            stages.append(found.stage)
            if found.stage.kept:
                last, model, steps = found, folded, (*steps, step)
        pruned = self._pruned(model, steps, first, last)
        stages += [one.stage for one in pruned]
        last = pruned[-1] if pruned and pruned[-1].stage.kept else last
        final = self._quantized(last)
        if final is not None:
            stages.append(final.stage)
            last = final if final.stage.kept else last
        return self._concluded(first, last, stages)

    # ------------------------------------------------------------------------------------------------- stages

    def _pruned(self, model: "keras.Model", steps: tuple[Step, ...], first: _Found, last: _Found) -> list[_Found]:
        """Pruned, then distilled; kept both or neither."""
        try:
            smaller, step = self.trained.run("prune", {}, lambda: self._smaller(model))
        except _NotPruned as error:
            self._reason(f"not pruned: {error}")
            return []
        self.reasons += [why for what, why in step.skipped if what == BUDGET]
        found = self._measured("prune", partial(self._exported, "pruned", smaller, (*steps, step)), last)
        if not found.stage.kept:
            return [found]
        running = self.place / STAGES / "distil.running"
        student, learnt = self.trained.run(
            "distil", {}, lambda: self.world.distil(smaller, model, self.dataset, self.settings.distil, running)
        )
        files = partial(self._exported, "distilled", student, (*steps, step, learnt))
        distilled = self._measured("distil", files, None)  # the pruned file with other weights: as fast, as large
        before, now = (one.stage.record.accuracy or 0.0 for one in (first, distilled))
        why = (
            f"{self.world.told(now)}, {100 * before:.1f} before pruning; "
            f"at most {100 * self.settings.prune_loss:.1f} points may be lost"
        )
        if before - now > self.settings.prune_loss + 1e-9:
            return [_judged(found, False, f"{why}; {found.stage.why}"), _judged(distilled, False, why)]
        return [found, _judged(distilled, True, why)]

    def _smaller(self, model: "keras.Model") -> tuple["keras.Model", Step]:
        try:
            found, reason = self._plan(model)
        except SettingError as error:
            raise _NotPruned(str(error)) from error
        smaller, step = apply(model, found)
        return smaller, replace(step, skipped=(*step.skipped, *([(BUDGET, reason)] if reason else ())))

    def _reason(self, text: str) -> None:
        self.reasons.append(text)
        logger.warning("%s", text)

    def _taught(self, model: "keras.Model") -> Pictures | None:
        """What the criterion taylor learns from."""
        if self.settings.prune.criterion != "taylor":
            return None
        items = self._items("train")
        return self.world.pictures(model, items, self._pixels(items, *picture_size(model)), self.rule)

    def _plan(self, model: "keras.Model") -> tuple[Plan, str]:
        """The largest share of the MACs whose files, untrained, keep the budget's limits on a file; and why not."""
        pictures = self._taught(model)
        if self.settings.target is not None:
            timed = timed_here(self.settings.formats, self.settings.threads)
            return plan(model, self.settings.target, self.settings.prune, pictures=pictures, timed=timed), ""
        limits = with_slack(self.limits.only(MEASURED_ON_FILE))
        if not limits.limits:
            return plan(model, Target("macs", WITHOUT_BUDGET), self.settings.prune, pictures=pictures), ""
        found: Plan | None = None
        for share in SHARES:
            try:
                found = plan(model, Target("macs", share), self.settings.prune, pictures=pictures)
            except SettingError:
                if found is None:
                    raise
                break  # so few cannot be left
            with tempfile.TemporaryDirectory(prefix="featherweight-") as scratch:
                smaller, step = apply(model, found)
                files = self._exported_to(Path(scratch), smaller, (step,))
                with contextlib.suppress(ExportError):  # then the float files alone tell
                    files += self._int8(files, Path(scratch), quantize)
                quick = [record for _, record in ways(files, self.settings.threads)]
            if any(not _shown_to_miss(limits, record) for record in quick):
                return found, ""
        assert found is not None
        return found, f"with {found.target.share:.0%} of the MACs left an untrained file still misses the budget"

    def _quantized(self, last: _Found) -> _Found | None:
        files = partial(self._int8, last.files, self.place / "artifacts" / "int8", self._within)
        try:
            return self._measured("int8", files, last)
        except ExportError as error:
            self._reason(f"not quantized: {error}")
            return None

    def _int8(self, files: Sequence[Artifact], folder: Path, made_of: MadeOf) -> list[Artifact]:
        """Of each format that can be.

        Raises:
            ExportError: none can.
        """
        made, failures = [], []
        for source in files:
            place = folder / source.name.replace("float32", "int8")
            if (place / "artifact.json").exists():
                made.append(read_artifact(place))
                continue
            try:
                pixels = self._pixels(self._items("train"), source.height or 0, source.width or 0)
                made.append(made_of(source, place, pixels))
            except ExportError as error:
                failures.append(str(error))
                logger.warning("%s is not quantized: %s", source.name, error)
        if not made:
            raise ExportError("; ".join(failures))
        return made

    def _within(self, source: Artifact, folder: Path, calibration: NDArray[np.uint8]) -> Artifact:
        items, most = self._items("val"), self.settings.max_loss
        score = self.world.score(items, self._pixels(items, source.height or 0, source.width or 0))
        return quantize_within(source, folder, calibration, score, most, None, self.settings.quantize)

    # -------------------------------------------------------------------------------------------------- files

    def _exported(self, kind: str, model: "keras.Model", steps: tuple[Step, ...]) -> list[Artifact]:
        return self._exported_to(self.place / "artifacts" / kind, model, steps)

    def _exported_to(self, folder: Path, model: "keras.Model", steps: tuple[Step, ...]) -> list[Artifact]:
        """The float32 files of a model; what was exported before is read."""
        height, width = model.input_shape[1:3]
        pictures = self._pixels(self._items("train"), height, width)[:64]
        made = []
        for file_format in self.settings.formats:
            place = folder / f"{self.name}-{file_format}-float32"
            if (place / "artifact.json").exists():
                made.append(read_artifact(place))
            else:
                about = about_of(model, place.name, self.dataset.classes, steps, self.rule)
                made.append(export(model, place, file_format, about, pictures))
        return made

    def _items(self, part: str) -> Sequence[Item]:
        """Of train a choice, of another part all."""
        if part == "train":
            return chosen_items(self.dataset, CALIBRATION_IMAGES, self.settings.seed)
        return self.dataset.part(part)

    def _pixels(self, items: Sequence[Item], height: int, width: int) -> NDArray[np.uint8]:
        return load_pixels(items, height, width, rule=self.rule).take(items)

    # ---------------------------------------------------------------------------------------------- measuring

    def _measured(self, name: str, make: Callable[[], list[Artifact]], before: _Found | None) -> _Found:
        """The stage's fastest file, its record on val, and whether it pays against the stage before."""
        note = self.place / STAGES / f"{name.replace(' ', '-')}.found.json"
        files = make()
        kept = self._noted(name, note, files)
        if kept is not None:
            return kept
        case, _ = fastest(files, self.settings.threads)
        artifact = case.artifact
        record = self._record(case, "val", self.place / "records.jsonl")
        pays, why = True, "where it starts"
        if before is not None:
            pictures = pictures_of(artifact, self.dataset, "val")
            pays, why = judged(hold(case, before.case, pictures, self.settings.pairs, self.settings.seed))
            if not pays and self._nearer(record, before.stage.record):
                pays, why = True, f"the budget takes it; {why}"
            logger.info("%s %s: %s", name, "pays" if pays else "is refused", why)
        found = _Found(Stage(name, record, pays, why), case, tuple(files))
        values = {"sha256": artifact.sha256, "runtime": case.runtime, "threads": case.settings.threads}
        values |= {"record": record.id, "kept": pays, "why": why}
        write_file(note, json.dumps(values, indent=1).encode())
        return found

    def _nearer(self, record: Record, before: Record) -> bool:
        """Whether it keeps limits on the file that the one before it does not keep, and all that that one keeps."""
        limits = self.limits.only(MEASURED_ON_FILE)
        now, then = ({one.limit for one in limits.violations(r)} for r in (record, before))
        return now < then

    def _noted(self, name: str, note: Path, files: Sequence[Artifact]) -> _Found | None:
        """The stage as it was finished before; `None` where it was not."""
        try:
            values = json.loads(note.read_text(encoding="utf-8"))
            record = next(r for r in read_records(self.place / "records.jsonl") if r.id == values["record"])
            artifact = next(file for file in files if file.sha256 == values["sha256"])
        except (OSError, ValueError, TypeError, KeyError, StopIteration, RecordError):
            return None
        case = Case(artifact, values["runtime"], Settings(threads=values["threads"]))
        return _Found(Stage(name, record, values["kept"], values["why"]), case, tuple(files))

    def _record(self, case: Case, part: str, output: Path) -> Record:
        return measure(
            case.artifact, self.dataset, case.runtime, (case.settings.threads,), part, self.settings.protocol, output,
            self.origin, patience=PATIENCE, findings=False, drift=False,
        )[0]  # fmt: skip

    def _concluded(self, first: _Found, last: _Found, stages: Sequence[Stage]) -> Compressed:
        proofs: list[Record] = []
        if "test" in self.dataset.parts:
            cases = [last.case] if last is first else [last.case, first.case]
            proofs = [self._record(case, "test", self.place / "proof.jsonl") for case in cases]
        record = proofs[0] if proofs else last.stage.record
        misses = tuple(map(str, self.limits.violations(record)))
        found = answers_of((last.case.artifact,), self.dataset, None, last.case.runtime, last.case.settings.threads)
        page = compression_page(self.name, stages, proofs, self.reasons, self.limits, found)
        write_page(self.place / "report.html", page)
        return Compressed(
            not misses,
            last.case.artifact,
            record,
            misses,
            tuple(stages),
            tuple(proofs),
            tuple(self.reasons),
            self.place,
        )


def _judged(found: _Found, kept: bool, why: str) -> _Found:
    return replace(found, stage=replace(found.stage, kept=kept, why=why))


def judged(against: Against) -> tuple[bool, str]:
    """(whether the first file pays against the second, the figures).

    It pays where it is shown to be faster, or where it is smaller by 5 % and more and not shown to be slower.
    """
    sizes = against.a.artifact.size_bytes, against.b.artifact.size_bytes
    smaller = 1 - sizes[0] / sizes[1]
    word = against.speed.word
    pays = word == "faster" or (word != "slower" and smaller >= LEAST_SMALLER)
    return pays, f"{against.speed}; the file {'shrinks' if smaller >= 0 else 'grows'} by {100 * abs(smaller):.0f} %"
