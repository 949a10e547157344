"""The command line: a verb parses, calls one function and prints one thing.

Results go to standard output, progress and logs to standard error. Exit status: 0 done or fits, 1 nothing fits the
budget, 2 wrong usage or bad input, 130 interrupted. A traceback is shown only with --debug.

Imports each verb's module inside the verb, so that --help answers at once and the device world runs without Keras.
"""

import argparse
import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.errors import FeatherweightError, SettingError, TooManyBad

if TYPE_CHECKING:
    from featherweight.data import Dataset
    from featherweight.search import Fit

DESCRIPTION = "The lightest CNN that is good enough on your device, and the proof."
BUDGET_HELP = 'limits, for example "latency_p90=10ms,size=4MB,accuracy>=0.9"'


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    args.command = shlex.join(["featherweight", *arguments])
    # TensorFlow reads this when it is first imported: no notes about the processor.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _log_to_stderr()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # only what a verb returns goes to standard output
            text, status = args.verb(args)
        for line in _lines(text):
            print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if args.debug:
            raise
        print("featherweight: interrupted; finished records and artifacts are kept", file=sys.stderr)
        return 130
    except (FeatherweightError, OSError, ModuleNotFoundError) as error:
        if args.debug:
            raise
        print(f"featherweight: {_one_line(error)}", file=sys.stderr)
        return 2
    return int(status)


def _lines(text: str | Iterator[str]) -> Iterator[str]:
    """What a verb returns, piece by piece; what comes while a piece is made goes to standard error, as all else."""
    pieces = iter([text]) if isinstance(text, str) else text
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


# ------------------------------------------------------------------------------------------------------- verbs


def _data(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.data import read_dataset
    from featherweight.report.audit import audit_text, bad_text, dataset_dict

    try:
        dataset = read_dataset(args.data, _split(args.split), args.task)
    except TooManyBad as error:
        # The list is what this verb is for; the folder is unusable all the same.
        logging.getLogger("featherweight").error("%s", _one_line(error))
        bad = [{"file": file, "cause": cause} for file, cause in error.bad]
        return _json({"error": str(error), "bad": bad}) if args.json else bad_text(error.bad), 2
    return (_json(dataset_dict(dataset)) if args.json else audit_text(dataset)), 0


def _fit(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.budget import parse_budget

    parse_budget(args.budget)  # before Keras and TensorFlow take their seconds
    from featherweight.search import SearchSettings, fit

    weights = None if args.weights == "none" else args.weights
    settings = SearchSettings(
        models=_words(args.models),
        widths=_numbers(args.widths, float),
        sizes=_numbers(args.sizes, int),
        formats=_words(args.formats),
        precisions=_words(args.precisions),
        threads=_numbers(args.threads, int),
        split=_split(args.split),
        changes=_training(args),
        task=args.task,
        resize=args.resize,
        start=args.start,
        protocol=_protocol(args),
        seed=args.seed,
    )
    found = fit(args.data, args.budget, args.output, weights, settings, args.command)
    return _fit_text(found, args), 0 if found.fits else 1


def _train(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.training.verbs import LearnSettings, train

    output = args.output or f"{Path(args.model).stem}-trained.keras"
    settings = LearnSettings(
        changes=_training(args), split=_split(args.split), task=args.task, resize=args.resize, seed=args.seed
    )
    found = train(args.model, args.data, output, settings)
    if args.json:
        return _json(found.as_dict()), 0
    told = {name: value for name, value in found.step.settings.items() if name.endswith("_val")}
    best = ", ".join(f"{name.removesuffix('_val')} {value:.4g} on val" for name, value in told.items())
    return f"model: {found.path}, {found.model.count_params():,} parameters; {best}", 0


def _export(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.training.verbs import ExportSettings, export

    settings = ExportSettings(
        formats=_words(args.format),
        precisions=_words(args.precisions),
        resize=args.resize,
        classes=_words(args.classes),
        split=_split(args.split),
        task=args.task,
        seed=args.seed,
    )
    made = export(args.model, args.output, args.data, args.calibration, settings)
    if args.json:
        plain = [{"artifact": str(one.path), "size_bytes": one.size_bytes, "classes": one.classes} for one in made]
        return _json(plain), 0
    return "\n".join(f"artifact: {one.path}, {one.size_bytes:,} B" for one in made), 0


def _training(args: argparse.Namespace) -> dict[str, Any]:
    """What of the usual settings is to be other: what was named."""
    named = ("epochs", "patience", "batch_size", "learning_rate", "temperature", "alpha")
    given = {name: vars(args)[name] for name in named if vars(args).get(name) is not None}
    if vars(args).get("no_augment"):
        given["augment"] = False
    if vars(args).get("flip"):
        given["flip"] = True
    return given


def _prune(args: argparse.Namespace) -> tuple[str, int]:
    import json

    from featherweight.artifact import write_file
    from featherweight.errors import OutputError
    from featherweight.models.load import load_model
    from featherweight.prune import PruneSettings, Target, apply, plan

    output = None if args.output is None else Path(args.output)
    if output is not None and output.suffix != ".keras":
        raise SettingError(f"--output {output}; wanted a name that ends in .keras")
    note = None if output is None else output.with_suffix(".plan.json")
    for place in filter(None, (output, note)):
        if place.exists():
            raise OutputError(f"{place} exists; name another file, nothing is overwritten")
    settings = PruneSettings(args.criterion, args.scope, args.multiple_of, args.least, args.seed)
    target = Target.read(args.target)
    model = load_model(args.model)
    pictures = _taught(args, model)
    found = plan(model, target, settings, pictures=pictures, machine=_machine(args), timed=_timed(target))
    written = []
    if output is not None and note is not None:
        smaller, _ = apply(model, found)
        beside = output.with_name(f".{output.name}")
        smaller.save(beside.with_suffix(".keras"))
        beside.replace(output)
        write_file(note, json.dumps(found.as_dict(), indent=1).encode())
        written = [f"model: {output}", f"plan: {note}"]
    return (_json(found.as_dict()) if args.json else "\n".join([str(found), *written])), 0


def _import(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.models.darknet import save_darknet

    path, model, classes, step = save_darknet(args.cfg, args.weights, args.names, args.output, args.epsilon)
    _, height, width, _ = model.input_shape
    if args.json:
        from dataclasses import asdict

        found = {"model": str(path), "input": [height, width], "output": list(model.output_shape[1:])}
        return _json({**found, "parameters": model.count_params(), "classes": classes, "step": asdict(step)}), 0
    told = f"{len(classes)} classes" if classes else "a map"
    lines = [f"model: {path}, {height}×{width}, {told}, {model.count_params():,} parameters"]
    return "\n".join([*lines, *(f"  {layer}: {why}" for layer, why in step.skipped)]), 0


def _taught(args: argparse.Namespace, model: Any) -> Any:
    """Pictures for the criterion taylor."""
    from featherweight.data import load_pixels
    from featherweight.models.functional import picture_size
    from featherweight.quantize import chosen_items
    from featherweight.training import training_of

    dataset = _dataset(args)
    if dataset is None:
        return None
    world = training_of(dataset.task)
    world.check(model, dataset)
    items = chosen_items(dataset, args.images, args.seed)
    rule = world.rule(model, dataset)
    return world.pictures(model, items, load_pixels(items, *picture_size(model), rule=rule).take(items), rule)


def _timed(target: Any) -> Any:
    """For a share of the latency."""
    if target.quantity != "latency":
        return None
    from featherweight.compress import timed_here

    return timed_here()


def _machine(args: argparse.Namespace) -> Any:
    if not args.device:
        return None
    from featherweight.analyze.roofline import this_machine

    return this_machine()


def _compress(args: argparse.Namespace) -> tuple[str, int]:
    from dataclasses import replace

    from featherweight.budget import parse_budget

    if args.budget is not None:
        parse_budget(args.budget)  # before Keras and TensorFlow take their seconds
    from featherweight.compress import CompressSettings, compress
    from featherweight.prune import PruneSettings, Target

    start = CompressSettings()
    settings = replace(
        start,
        target=None if args.target is None else Target.read(args.target),
        prune=PruneSettings(args.criterion, args.scope, args.multiple_of, args.least, args.seed),
        changes=_training(args),
        quantize=replace(start.quantize, calibration=args.calibration),
        prune_loss=args.prune_loss,
        max_loss=args.max_loss,
        formats=_words(args.formats),
        threads=_numbers(args.threads, int),
        split=_split(args.split),
        task=args.task,
        resize=args.resize,
        protocol=_protocol(args),
        seed=args.seed,
    )
    found = compress(args.model, args.data, args.budget, args.output, settings, args.command)
    if args.json:
        return _json(found.as_dict()), 0 if found.fits else 1
    lines = [
        *(f"{one.name:<10} {'kept   ' if one.kept else 'refused'} {_numbers_of(one.record)}  {one.why}"
          for one in found.stages),
        *(f"- {reason}" for reason in found.reasons),
        *(f"misses: {miss}" for miss in found.misses),
        f"artifact: {found.chosen.path}",
        f"report: {found.output / 'report.html'}",
    ]  # fmt: skip
    return "\n".join(lines), 0 if found.fits else 1


def _numbers_of(record: Any) -> str:
    from featherweight.report import show

    return "  ".join(show(record, name) for name in ("accuracy", "latency_p50_ms", "size_bytes"))


def _score_on(artifact: Any, items: Sequence[Any]) -> Any:
    """The score of a file like this one on these items."""
    from featherweight.data import load_pixels, targets
    from featherweight.quantize import accuracy_on

    pixels = load_pixels(items, artifact.height or 0, artifact.width or 0, rule=artifact.resize or "stretch")
    return accuracy_on(pixels.take(items), targets(items), [(item.height, item.width) for item in items])


def _quantize(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.artifact import check_new, read_artifact
    from featherweight.quantize import (
        QuantizeSettings,
        calibration_pictures,
        quantize,
        quantize_within,
        quantized_name,
        sensitivity,
    )

    settings = QuantizeSettings(
        args.precision, args.calibration, args.percentile, args.images, args.seed,
        skip=_words(args.skip), bias_correction=args.bias_correction, smooth=args.smooth, inner_codes=args.inner_codes,
    )  # fmt: skip
    artifact = read_artifact(args.artifact)
    dataset = _dataset(args)
    if dataset is None:
        raise SettingError("no --data; wanted the pictures that the file was trained for, to calibrate on")
    calibration = calibration_pictures(artifact, dataset, settings)
    if args.sensitivity:
        found = sensitivity(artifact, calibration, settings=settings)
        return (_json(found.as_dict()) if args.json else str(found)), 0
    folder = Path(args.output or artifact.path.with_name(quantized_name(artifact.path.name, settings)))
    check_new(folder)
    if args.max_loss is None:
        made = quantize(artifact, folder, calibration, None, settings)
    else:
        score = _score_on(artifact, dataset.part("val"))
        made = quantize_within(artifact, folder, calibration, score, args.max_loss, None, settings)
    step = made.steps[-1]
    if args.json:
        from dataclasses import asdict

        return _json({"artifact": str(made.path), "size_bytes": made.size_bytes, "step": asdict(step)}), 0
    lines = [f"artifact: {made.path}, {made.size_bytes:,} B (before: {artifact.size_bytes:,} B)"]
    return "\n".join([*lines, *(f"  {layer}: {why}" for layer, why in step.skipped)]), 0


def _demo(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.demo import demo

    found = demo(args.output, None, args.command)
    return _fit_text(found, args), 0 if found.fits else 1


def _measure(args: argparse.Namespace) -> tuple[str, int]:
    import json

    from featherweight.errors import SomeUnmeasured
    from featherweight.measure import Origin, Patience, Power, measure
    from featherweight.report import card

    if args.report is not None:
        from featherweight.page import check_page

        check_page(args.report)  # before minutes are spent
    dataset = _dataset(args)
    failures: tuple[str, ...] = ()
    try:
        records = measure(
            args.artifacts,
            dataset,
            args.runtime,
            _numbers(args.threads, int),
            args.part,
            _protocol(args),
            args.output,
            Origin(None, args.command),
            _settings(args),
            _words(args.precision),
            Patience(args.wait, args.repeat),
            Power(args.meter, args.watts),
            not args.no_findings,
            order_seed=args.seed,
        )
    except SomeUnmeasured as error:  # what was measured is shown all the same, and the exit status tells
        records, failures = list(error.records), error.failures
    status = 2 if failures else 0
    if args.report is not None and records:
        _write_measured(args.artifacts, records, dataset, args.report)
    if args.json:
        return _json([{"id": record.id, **json.loads(record.to_json())} for record in records]), status
    lines = [*map(card, records), *(f"failed: {failure}" for failure in failures)]
    written = [f"appended to {args.output}", *([f"report: {args.report}"] if args.report else [])]
    return "\n".join([*lines, *written] if records else lines), status


def _write_measured(artifacts: Sequence[str], records: Sequence[Any], dataset: "Dataset | None", output: str) -> None:
    """A page of what was just measured, with pictures where there are boxes or masks."""
    from featherweight.artifact import read_artifact
    from featherweight.compare import DEFAULT_KEYS
    from featherweight.predict import answers_of
    from featherweight.record import BY_KEY, value_of
    from featherweight.report import compare

    keys = [key for key in DEFAULT_KEYS if all(value_of(one, BY_KEY[key].field) is not None for one in records)]
    loaded = [read_artifact(path) for path in artifacts]
    answers = [] if dataset is None else answers_of(loaded, dataset, records[0].part)
    compare(records, None, keys or ("size",), output, any(record.quick for record in records), answers)


def _tune(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.tune import QUICK, Limits, tune

    found = tune(
        args.artifact,
        _dataset(args),
        args.runtime,
        _numbers(args.threads, int),
        _words(args.precision),
        QUICK if args.quick else Limits(),
        args.output,
        args.seed,
        _size(args.input, "--input"),
        args.wait,
    )
    return (_json(found.as_dict()) if args.json else found.text()), 0


def _reproduce(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.measure import Patience
    from featherweight.reproduce import reproduce

    found = reproduce(
        args.record,
        args.artifact,
        _dataset(args),
        args.records,
        args.output,
        Patience(args.wait, args.repeat),
        args.command,
    )
    return (_json(found.as_dict()) if args.json else found.text()), 0 if found.same else 1


def _compare(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.artifact import is_model

    for path in args.paths:
        if not Path(path).exists():
            raise SettingError(f"no {path}; wanted files of records, or two or more artifacts")
    models = [is_model(path) for path in args.paths]
    if any(models) and not all(models):
        raise SettingError("records and artifacts mixed; wanted files of records, or two or more artifacts")
    other = RECORDS_ONLY if all(models) else ARTIFACTS_ONLY
    given = [name for name, default in other.items() if vars(args)[name] != default]
    if given:
        kind = "records" if all(models) else "artifacts"
        raise SettingError(f"--{given[0]} is for {kind}, and these are none; leave it out")
    return _versus(args) if all(models) else _compare_records(args)


# Options of `compare` that belong to one of its two uses, with their defaults.
RECORDS_ONLY: dict[str, Any] = {"budget": None, "output": None, "csv": None, "mlflow": None, "quick": False}
ARTIFACTS_ONLY: dict[str, Any] = {"data": None, "part": None, "runtime": "all", "precision": "", "provider": None}


def _versus(args: argparse.Namespace) -> tuple[str, int]:
    """Files of models: A against B, measured now."""
    from dataclasses import replace

    from featherweight.measure.pairs import PairProtocol
    from featherweight.measure.versus import versus

    threads, precisions = _numbers(args.threads, int) or (1,), _words(args.precision)
    if len(threads) > 1 or len(precisions) > 1:
        raise SettingError(f"--threads {args.threads}, --precision {args.precision}; one of each to compare files with")
    precision = next(iter(precisions), None)
    found = versus(
        args.paths,
        _dataset(args),
        args.runtime,
        replace(_settings(args), threads=threads[0], precision=precision),
        args.part,
        PairProtocol(margin=args.margin, cap=args.pairs),
        args.seed,
    )
    return (_json([one.as_dict() for one in found]) if args.json else "\n".join(map(str, found))), 0


def _compare_records(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.report import compare, table

    _check_two_files(args)
    if args.csv:
        from featherweight.share import check_csv, write_csv

        check_csv(args.csv)
    comparison = compare(args.paths, args.budget, _words(args.keys), args.output, quick=args.quick)
    written = [f"report: {args.output}"] if args.output else []
    if args.csv:
        write_csv(comparison.records, args.csv)
        written.append(f"table: {args.csv}")
    if args.mlflow:
        from featherweight.share import write_mlflow

        fresh = write_mlflow(args.paths, args.mlflow)
        written.append(f"MLflow: {len(fresh)} new runs in {args.mlflow}")
    status = 0
    if args.budget and all(comparison.violations[record.id] for record in comparison.records):
        status = 1
    if args.json:
        return _json(comparison.as_dict()), status
    width = os.get_terminal_size().columns if sys.__stdout__ is not None and sys.__stdout__.isatty() else None
    return "\n".join([table(comparison, args.budget is not None, width), *written]), status


def _check_two_files(args: argparse.Namespace) -> None:
    if args.csv and args.output and Path(args.csv).resolve() == Path(args.output).resolve():
        raise SettingError(f"--csv and --output both name {args.csv}; wanted two files")


def _analyze(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.analyze import analyze
    from featherweight.analyze.roofline import check_threads
    from featherweight.analyze.views import View, check_csv, write_csv
    from featherweight.analyze.views import text as show
    from featherweight.page import check_page

    if args.csv:
        check_csv(args.csv)  # before minutes are spent
    if args.output:
        check_page(args.output)
    _check_two_files(args)
    check_threads(args.threads)
    size = _size(args.input_size, "--input-size")
    views = [View(analyze(model, size)) for model in args.models]
    if args.device or args.profile or args.records:
        from featherweight.analyze.timing import timed

        views = [timed(view.analysis, args.threads, args.records, args.profile) for view in views]
    written = []
    if args.csv:
        write_csv(views, args.csv)
        written.append(f"table: {args.csv}")
    if args.output:
        from featherweight.analyze.page import write_page

        write_page(views, args.output)
        written.append(f"page: {args.output}")
    if args.json:
        return _json({"models": [view.as_dict() for view in views]}), 0
    width = os.get_terminal_size().columns if sys.__stdout__ is not None and sys.__stdout__.isatty() else None
    return "\n".join([show(views, args.by, width), *written]), 0


def _models(args: argparse.Namespace) -> tuple[str, int]:
    from featherweight.models.catalog import explanation, listing, models

    found = models(args.name)
    if args.json:
        return _json(found), 0
    return (listing(found) if isinstance(found, list) else explanation(found)), 0


def _predict(args: argparse.Namespace) -> tuple[str | Iterator[str], int]:
    import json

    from featherweight.artifact import described, read_artifact, read_names
    from featherweight.predict import PredictSettings, predictions

    names = () if args.names is None else read_names(args.names)
    size = _size(args.input, "--input")
    artifact = described(read_artifact(args.artifact), args.task, names, args.resize, size)
    settings = PredictSettings(
        top=args.top,
        score=args.score,
        draw=None if args.draw is None else Path(args.draw),
        masks=None if args.masks is None else Path(args.masks),
        polygons=args.polygons,
        output=None if args.output is None else Path(args.output),
        frames=args.frames,
        bar=sys.__stdout__ is None or not sys.__stdout__.isatty(),  # a bar among the lines would be torn by them
    )
    found = predictions(artifact, args.images, args.runtime, args.threads, settings)
    if args.json:
        return _json(list(found)), 0
    if args.lines:
        return (_printable(json.dumps(one, ensure_ascii=False)) for one in found), 0
    return map(_told_text, found), 0


def _told_text(result: dict[str, Any]) -> str:
    """One picture's predictions on a line: `dog.jpg: dog 97.1 % at 10,20–200,180`; of a mask, the classes' shares."""
    best = (
        f"{one['label']} {100 * (one['share'] if 'share' in one else one['score']):.1f} %"
        + (" at {:.0f},{:.0f}–{:.0f},{:.0f}".format(*one["box"]) if "box" in one else "")
        for one in result["predictions"]
    )
    frame = f" frame {result['frame']}" if "frame" in result else ""
    return f"{_printable(result['image'])}{frame}: {'  '.join(best) or 'nothing'}"


# -------------------------------------------------------------------------------------------------------- text


def _fit_text(found: "Fit", args: argparse.Namespace) -> str:
    from featherweight.report import card, compare

    report = None
    if found.records:
        report = found.output / "report.html"
        quick = any(record.quick for record in found.records)
        compare(found.records, getattr(args, "budget", None), output=report, quick=quick, answers=found.answers)
    if args.json:
        return _json({**found.as_dict(), "report": None if report is None else str(report)})
    lines = [*(f"- {reason}" for reason in found.reasons), ""]
    if found.record is None:
        return "\n".join([*lines, "nothing could be measured"])
    if found.fits:
        lines.append(f"The lightest that fits: {found.record.name}")
    else:
        nearest = f"Nothing fits. The nearest is {found.record.name}; it misses:"
        on_test = f"{found.record.name} fitted on val, which it was chosen by; on test it misses:"
        lines.append(on_test if found.record.part == "test" else nearest)
        lines += [f"  {violation}" for violation in found.violations]
    lines += ["", card(found.record), ""]
    if found.chosen is not None:
        lines += [
            f"artifact: {found.chosen.path}",
            f"use it:   featherweight predict {shlex.quote(str(found.chosen.path))} IMAGE",
        ]
    lines.append(f"records:  {found.output / 'records.jsonl'}")
    if report is not None:
        lines.append(f"report:   {report}")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------ parsing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("featherweight", description=DESCRIPTION)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    demo = _verb(verbs, "demo", _demo, "the main job on handwritten digits that are at hand")
    demo.add_argument("--output", metavar="DIR", help="a new folder for results (default: fit-digits)")

    fit = _verb(verbs, "fit", _fit, "pictures and a budget → the lightest model that fits, with its record and report")
    fit.add_argument(
        "data",
        metavar="DATA",
        help="DIR/class/*.jpg or DIR/{train,val,test}/class/*.jpg, or pictures with boxes or masks",
    )
    fit.add_argument("--budget", required=True, metavar="LIMITS", help=BUDGET_HELP)
    fit.add_argument("--output", metavar="DIR", help="a new folder for results (default: fit-DATA)")
    fit.add_argument(
        "--weights",
        default="none",
        metavar="FILE",
        help="none, imagenet, or a .weights.h5, .npz, .pth, .th or .safetensors file",
    )
    fit.add_argument("--start", metavar="MODEL", help="train on from this .keras file, in place of the zoo's networks")
    _add_task(fit)
    _add_resize(fit)
    fit.add_argument("--models", default="", metavar="NAMES", help="which networks, comma-separated")
    fit.add_argument("--widths", default="", metavar="NUMBERS", help="which width multipliers")
    fit.add_argument("--sizes", default="", metavar="PIXELS", help="which input sizes")
    fit.add_argument("--formats", default="onnx,litert", metavar="NAMES", help="onnx, litert (default: both)")
    fit.add_argument("--precisions", default="int8,float32", metavar="NAMES", help="int8, float32 (default: both)")
    fit.add_argument(
        "--epochs",
        type=int,
        help="at most so many (default: 12 with weights, 40 without; of a detector 100, 200; of a segmenter 60, 120)",
    )
    fit.add_argument("--patience", type=int, help="stop after so many epochs without gain")
    fit.add_argument("--learning-rate", type=float, help="its peak")
    fit.add_argument("--flip", action="store_true", help="also train on mirrored pictures")
    fit.add_argument("--no-augment", action="store_true", help="train on the pictures as they are")
    fit.add_argument("--seed", type=int, default=0, help="of all chance (default: 0)")
    _add_split(fit)
    _add_protocol(fit)

    train = _verb(verbs, "train", _train, "a model in a file, trained on; a detector for the classes of the data")
    train.add_argument("model", metavar="MODEL", help="a .keras or whole-model .h5 file")
    train.add_argument(
        "--data", required=True, metavar="DATA", help="pictures in folders of classes, or with boxes or masks"
    )
    train.add_argument("--output", metavar="FILE", help="a new .keras file (default: MODEL-trained.keras, here)")
    train.add_argument("--epochs", type=int, help="at most so many (default: 12, of a detector 100, of a segmenter 60)")
    train.add_argument("--patience", type=int, help="stop after so many epochs without gain")
    train.add_argument(
        "--batch-size", type=int, help="pictures a step (default: 32, of a detector 16, of a segmenter 8)"
    )
    train.add_argument("--learning-rate", type=float, help="its peak")
    train.add_argument("--flip", action="store_true", help="also train on mirrored pictures")
    train.add_argument("--no-augment", action="store_true", help="train on the pictures as they are")
    train.add_argument("--seed", type=int, default=0, help="of all chance (default: 0)")
    _add_task(train)
    _add_resize(train)
    _add_split(train)

    export = _verb(verbs, "export", _export, "a model in a file → artifacts that measure, predict and tune take")
    export.add_argument("model", metavar="MODEL", help="a .keras or whole-model .h5 file")
    export.add_argument("--data", metavar="DATA", help="what it was trained for: pictures of train, and the classes")
    export.add_argument("--calibration", metavar="IMAGE", nargs="+", default=[], help="in place of data, pictures")
    export.add_argument("--format", default="onnx,litert", metavar="NAMES", help="onnx, litert (default: both)")
    export.add_argument("--precisions", default="float32", metavar="NAMES", help="float32, int8 (default: float32)")
    export.add_argument("--classes", default="", metavar="NAMES", help="(default: the model's own, or the data's)")
    export.add_argument("--output", default="artifacts", metavar="DIR", help="(default: artifacts)")
    export.add_argument("--seed", type=int, default=0, help="of the choice of pictures (default: 0)")
    _add_task(export)
    _add_resize(export)
    _add_split(export)

    compress = _verb(
        verbs, "compress", _compress, "a trained model → folded, pruned, distilled, int8; what pays is kept"
    )
    compress.add_argument("model", metavar="MODEL", help="a trained .keras or whole-model .h5 file")
    compress.add_argument("--data", required=True, metavar="DATA", help="the pictures that it was trained for")
    compress.add_argument("--budget", metavar="LIMITS", help=BUDGET_HELP)
    compress.add_argument(
        "--output", metavar="DIR", help="a new folder, or an interrupted one (default: compress-MODEL)"
    )
    compress.add_argument(
        "--target", metavar="QUANTITY=SHARE", help="what pruning leaves (default: as the budget allows, or macs=0.5)"
    )
    _add_pruning(compress)
    compress.add_argument(
        "--epochs", type=int, help="of distillation, at most (default: 20; of a detector 40, of a segmenter 30)"
    )
    compress.add_argument("--learning-rate", type=float, help="its peak")
    compress.add_argument("--temperature", type=float, help="of the teacher's answers (default: 4; of a segmenter 2)")
    compress.add_argument(
        "--alpha", type=float, help="the share of the labels' own loss (default: 0.1; of others than classifiers 0.5)"
    )
    compress.add_argument(
        "--prune-loss", type=float, default=0.01, help="accuracy that pruning may cost (default: 0.01, one point)"
    )
    compress.add_argument("--max-loss", type=float, default=0.005, help="accuracy that int8 may cost (default: 0.005)")
    compress.add_argument("--calibration", default="minmax", help="minmax, percentile or entropy (default: minmax)")
    _add_task(compress)
    _add_resize(compress)
    compress.add_argument("--formats", default="onnx,litert", metavar="NAMES", help="onnx, litert (default: both)")
    compress.add_argument("--seed", type=int, default=0, help="of all chance (default: 0)")
    _add_split(compress)
    _add_protocol(compress)

    prune = _verb(verbs, "prune", _prune, "which channels of a trained model can go; with --output, without them")
    prune.add_argument("model", metavar="MODEL", help="a .keras or whole-model .h5 file")
    prune.add_argument("--target", default="macs=0.5", metavar="QUANTITY=SHARE", help="what may be left of channels, "
                       "macs, parameters or latency, which is measured here (default: macs=0.5)")  # fmt: skip
    _add_pruning(prune)
    prune.add_argument("--device", action="store_true", help="predict times by this machine's roofline")
    prune.add_argument("--data", metavar="DATA", help="pictures, for the criterion taylor")
    prune.add_argument("--images", type=int, default=256, help="so many of them (default: 256)")
    prune.add_argument("--output", metavar="FILE", help="write the smaller model, a .keras file, and its plan beside")
    prune.add_argument("--seed", type=int, default=0, help="of the criterion random (default: 0)")
    _add_split(prune)

    imported = _verb(verbs, "import", _import, "a Darknet network, cfg and weights → a Keras model")
    imported.add_argument("cfg", metavar="CFG", help="what the network is")
    imported.add_argument("weights", metavar="WEIGHTS", help="its numbers")
    imported.add_argument("--names", metavar="FILE", help="the names of its classes, one a line")
    imported.add_argument("--output", metavar="FILE", help="a new .keras file (default: named as the weights, here)")
    imported.add_argument(
        "--epsilon", type=float, default=1e-5, help="of batch norm (default: 1e-5, Darknet's; OpenCV's was 1e-6)"
    )

    quantize = _verb(verbs, "quantize", _quantize, "a float32 artifact → int8 or float16, within a loss of accuracy")
    quantize.add_argument("artifact", metavar="ARTIFACT", help="a float32 artifact folder, ONNX or LiteRT")
    quantize.add_argument("--data", metavar="DATA", help="the pictures that it was trained for")
    quantize.add_argument("--output", metavar="DIR", help="a new folder (default: ARTIFACT, int8 for float32)")
    quantize.add_argument("--precision", default="int8", help="int8, int8-dynamic or float16 (default: int8)")
    quantize.add_argument("--calibration", default="minmax", help="minmax, percentile or entropy (default: minmax)")
    quantize.add_argument("--percentile", type=float, default=99.999, help="of the values in range (default: 99.999)")
    quantize.add_argument("--images", type=int, help="how many pictures are used (default: 128)")
    quantize.add_argument("--skip", default="", metavar="NAMES", help="layers that stay float")
    quantize.add_argument("--bias-correction", action="store_true", help="where it helps (int8)")
    quantize.add_argument("--smooth", action="store_true", help="channels of an activation alike first (int8, ONNX)")
    quantize.add_argument(
        "--no-inner-codes", dest="inner_codes", action="store_false",
        help="no rounding before a leaky ReLU and the like: for OpenVINO (int8, ONNX)",
    )  # fmt: skip
    quantize.add_argument("--max-loss", type=float, help="leave layers in float until no more is lost, as 0.005")
    quantize.add_argument("--sensitivity", action="store_true", help="only show what each layer costs by itself")
    quantize.add_argument("--seed", type=int, default=0, help="of the choice of pictures (default: 0)")
    _add_split(quantize)

    data = _verb(verbs, "data", _data, "what is in a folder of pictures and what is wrong with it")
    data.add_argument("data", metavar="DIR")
    _add_task(data)
    _add_split(data)

    measure = _verb(verbs, "measure", _measure, "accuracy, latency, memory, energy and size of exported files, here")
    measure.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="artifact folders, .onnx or .tflite files")
    measure.add_argument("--data", metavar="DATA", help="pictures to measure accuracy on")
    measure.add_argument(
        "--part", choices=("train", "val", "test"), help="(default: test where there is one, else val)"
    )
    _add_runtime(measure)
    measure.add_argument("--output", default="records.jsonl", metavar="FILE", help="(default: records.jsonl)")
    _add_patience(measure)
    measure.add_argument("--meter", metavar="FILE", help="CSV of an external power meter: time, watts")
    measure.add_argument("--watts", type=float, help="the machine's power, for an estimate of energy, kept apart")
    measure.add_argument("--report", metavar="FILE", help="write a self-contained page; of detectors with pictures")
    measure.add_argument("--no-findings", action="store_true", help="do not hold a file against what it was made from")
    measure.add_argument("--seed", type=int, help="of the order of the variants (default: drawn, and recorded)")
    _add_split(measure)
    _add_protocol(measure)

    tune = _verb(verbs, "tune", _tune, "the fastest runtime, threads and precision for a file here, kept in it")
    tune.add_argument("artifact", metavar="ARTIFACT", help="an artifact folder, an .onnx or .tflite file")
    tune.add_argument("--data", metavar="DATA", help="pictures to run on, and to hold accuracy against the default's")
    _add_runtime(tune, raced=True)
    tune.add_argument("--threads", default="", metavar="NUMBERS", help="(default: 1, 2, 4 … all cores)")
    tune.add_argument("--quick", action="store_true", help="a shorter race, labelled")
    tune.add_argument("--output", metavar="FILE", help="append the whole result to this file, raw samples beside")
    tune.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for a quiet machine")
    tune.add_argument("--seed", type=int, default=0, help="of all orders (default: 0)")
    _add_split(tune)

    reproduce = _verb(verbs, "reproduce", _reproduce, "run a record's exact settings again: are the numbers the same?")
    reproduce.add_argument("record", metavar="RECORD", help="a record's id or its beginning, or a file with one record")
    reproduce.add_argument("artifact", metavar="ARTIFACT", nargs="?", help="(default: found beside the records)")
    reproduce.add_argument("--data", metavar="DATA", help="the pictures that it was taken on")
    reproduce.add_argument("--records", default="records.jsonl", metavar="FILE", help="(default: records.jsonl)")
    reproduce.add_argument("--output", metavar="FILE", help="append the new record to this file")
    _add_patience(reproduce)
    _add_split(reproduce)

    compare = _verb(
        verbs, "compare", _compare, "records side by side: table, front, page; or files, A against B, measured now"
    )
    compare.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="files of records or folders of such files; or two or more artifacts, the first against each other one",
    )
    records = compare.add_argument_group("records")
    records.add_argument("--budget", metavar="LIMITS", help=BUDGET_HELP)
    records.add_argument("--keys", default="accuracy,latency_p50,size", metavar="NAMES", help="quantities of the front")
    records.add_argument("--output", metavar="FILE", help="write a self-contained page, for example report.html")
    records.add_argument("--csv", metavar="FILE", help="write all fields of all records as a table")
    records.add_argument("--mlflow", metavar="DIR", help="write the records as runs of MLflow")
    records.add_argument("--quick", action="store_true", help="show quick records too, without verdicts")
    files = compare.add_argument_group("artifacts")
    files.add_argument("--data", metavar="DATA", help="pictures to run on, and to compare accuracy on")
    files.add_argument("--part", choices=("train", "val", "test"), help="(default: test where there is one, else val)")
    _add_runtime(files)
    files.add_argument("--threads", default="1", metavar="NUMBER", help="(default: 1)")
    files.add_argument(
        "--margin", type=float, default=0.02, help="the least difference of speed that matters (default: 0.02)"
    )
    files.add_argument("--pairs", type=int, default=40, help="at most so many pairs of processes (default: 40)")
    files.add_argument("--seed", type=int, default=0, help="of the order within pairs (default: 0)")
    _add_split(files)

    analyze = _verb(verbs, "analyze", _analyze, "where the cost of a model goes: parameters, MACs, memory, by layer")
    analyze.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="an artifact folder, an .onnx, .tflite, .keras or .h5 file, or the name of a network of the zoo",
    )
    analyze.add_argument("--by", choices=("stage", "layer", "operator"), default="layer", help="(default: layer)")
    analyze.add_argument("--input-size", default="", metavar="PIXELS", help="224, or 320,640 for height,width")
    analyze.add_argument("--device", choices=("here",), help="add the least time of each layer on this machine")
    analyze.add_argument("--profile", action="store_true", help="add each layer's time, by ONNX Runtime's profiler")
    analyze.add_argument("--records", metavar="FILE", help="records, for the share of the bound that was reached")
    analyze.add_argument("--threads", type=int, help="for --device and --profile (default: all cores)")
    analyze.add_argument("--csv", metavar="FILE", help="write a table of all operators")
    analyze.add_argument("--output", metavar="FILE", help="write a self-contained page, for example analysis.html")

    models = _verb(verbs, "models", _models, "the zoo: parameters, MACs, published accuracy, source")
    models.add_argument("name", metavar="NAME", nargs="?", help="explain this one: its stages, input and weights")

    predict = _verb(verbs, "predict", _predict, "labels, boxes or masks of pictures, folders, videos or a camera")
    predict.add_argument("artifact", metavar="ARTIFACT", help="an artifact, or a bare file with --task and --names")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="a picture, a folder, a video, a camera's number")
    predict.add_argument(
        "--runtime", metavar="NAME", help="(default: as tune found best here, else the first that runs the file)"
    )
    predict.add_argument("--threads", type=int, help="(default: as tune found best here, else 1)")
    predict.add_argument("--top", type=int, help="how many predictions a picture (default: 5 labels, or every box)")
    predict.add_argument("--score", type=float, help="the least score of a box (default: as the artifact says)")
    predict.add_argument("--draw", metavar="FOLDER", help="write the pictures with their predictions drawn on")
    predict.add_argument("--masks", metavar="FOLDER", help="write masks, PNG files of class indices with a palette")
    predict.add_argument("--polygons", metavar="FORM", help="tell outlines in a mask, too: coco or geojson")
    predict.add_argument(
        "--resize", metavar="RULE", help="stretch, letterbox, bilinear or tile (default: as the artifact says)"
    )
    predict.add_argument("--task", metavar="TASK", help="of a bare file: classify or segment")
    predict.add_argument("--names", metavar="FILE", help="of a bare file: the names of its classes, one a line")
    predict.add_argument("--input", default="", metavar="PIXELS", help="of a bare file: the size that it leaves open")
    predict.add_argument("--output", metavar="FILE", help="write JSON lines, one a picture or frame")
    predict.add_argument("--lines", action="store_true", help="print JSON lines, each as soon as it is there")
    predict.add_argument("--frames", type=int, metavar="N", help="at most so many of each video or camera")
    return parser


class _Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata costs a tenth of `--help`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version

        print(f"featherweight {version('featherweight')}")
        parser.exit()


def _verb(
    verbs: Any, name: str, function: Callable[[argparse.Namespace], tuple[str | Iterator[str], int]], what: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    parser.set_defaults(verb=function)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--debug", action="store_true", help="show a traceback where something goes wrong")
    return parser


def _add_runtime(parser: Any, raced: bool = False) -> None:
    parser.add_argument(
        "--runtime", default="all", metavar="NAMES", help="onnxruntime, litert, openvino, opencv, or all (default)"
    )
    parser.add_argument(
        "--precision", default="", metavar="NAMES", help="float32, bfloat16, float16 (default: the runtime's own)"
    )
    if raced:
        parser.set_defaults(provider=None, optimization=None)
    else:
        parser.add_argument("--provider", metavar="NAME", help="cpu, cuda … as the runtime offers (default: cpu)")
        parser.add_argument("--optimization", metavar="NAME", help="the runtime's level of graph optimization")
    parser.add_argument(
        "--input", default="", metavar="PIXELS", help="224, or 320,640: the size that a foreign file leaves open"
    )


def _add_patience(parser: Any) -> None:
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for a quiet machine")
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="repeat what is UNSTABLE up to N times")


def _settings(args: argparse.Namespace) -> Any:
    from featherweight.runtimes.settings import Settings

    return Settings(provider=args.provider, optimization=args.optimization, input_size=_size(args.input, "--input"))


def _size(text: str, option: str) -> tuple[int, int] | None:
    size = _numbers(text, int)
    if len(size) > 2 or any(side < 1 for side in size):
        raise SettingError(f"{option} {text}; wanted one number of pixels, or height,width")
    return (size[0], size[-1]) if size else None


def _dataset(args: argparse.Namespace) -> "Dataset | None":
    if args.data is None:
        if vars(args).get("part") is not None:
            raise SettingError(f"--part {args.part} without --data; name the data, or leave it out")
        return None
    from featherweight.data import read_dataset

    return read_dataset(args.data, _split(args.split))


def _add_pruning(parser: Any) -> None:
    parser.add_argument("--criterion", default="l1", help="l1, l2, batch_norm, taylor or random (default: l1)")
    parser.add_argument("--scope", default="layer", help="layer: each group the same share; or global (default: layer)")
    parser.add_argument("--multiple-of", type=int, default=8, help="channels kept at a time (default: 8)")
    parser.add_argument("--least", type=float, default=0.1, help="the share that each group keeps (default: 0.1)")


def _add_split(parser: Any) -> None:
    parser.add_argument(
        "--split", default="0.15,0.15", metavar="VAL,TEST", help="shares of a folder without parts (default: 0.15,0.15)"
    )


def _add_task(parser: Any) -> None:
    parser.add_argument("--task", help="classify, detect or segment (default: as the folder's layout tells)")


def _add_resize(parser: Any) -> None:
    parser.add_argument(
        "--resize",
        help="stretch, letterbox, bilinear or tile (default: bilinear for detectors with anchors, tile for segmenters "
        "of pictures over twice their size, else stretch)",
    )


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", default="", metavar="NUMBERS", help="(default: 1 and all cores)")
    parser.add_argument("--quick", action="store_true", help="half a second each: labelled, and never compared")
    parser.add_argument("--min-seconds", type=float, help="run at least so long (default: 10)")
    parser.add_argument("--min-runs", type=int, help="and at least so often (default: 64)")
    parser.add_argument("--percentile", type=float, help="the highest that is wanted, 90 or 99 (default: 90)")
    parser.add_argument(
        "--cold-starts", type=int, metavar="N", help="fresh processes to the first answer (default: 10)"
    )


def _protocol(args: argparse.Namespace) -> Any:
    from dataclasses import replace

    from featherweight.measure import QUICK, Protocol

    named = ("min_seconds", "min_runs", "percentile", "cold_starts")
    given = {name: vars(args)[name] for name in named if vars(args)[name] is not None}
    return replace(QUICK if args.quick else Protocol(), **given)


def _split(text: str) -> Any:
    from featherweight.data import Split

    shares = _numbers(text, float)
    if len(shares) != 2:
        raise SettingError(f"--split {text}; wanted two shares, for example 0.15,0.15 for val and test")
    return Split(*shares)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _numbers(text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(word) for word in _words(text))
    except ValueError:
        raise SettingError(f"cannot read {text!r}; wanted numbers separated by commas") from None


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False)


def _printable(path: str) -> str:
    from featherweight.data import display

    return display(path)


def _one_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in ("keras", "tensorflow", "tf2onnx", "h5py"):
        return f"{error.name} is not installed; training needs it: pip install 'featherweight[train]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{_printable(os.fspath(error.filename))}: {error.strerror}"
    text = " ".join(str(error).split()) or type(error).__name__
    # What a stranger's file is named by, or names its parts by, must not steer the terminal.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _log_to_stderr() -> None:
    logger = logging.getLogger("featherweight")
    logger.setLevel(logging.INFO)
    logger.propagate = False  # TensorFlow hangs a handler on the root, and every line would come twice
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
