"""Artifact × runtime × settings × pictures → `Record`. Every measurement runs in fresh processes of its own.

How it is measured (MLPerf single stream in small): one picture at a time, from pictures of the data; a warm-up that is
not counted; then runs until both a least time and a least number of runs are reached. Variants are taken in random
order; at the end the first is run again, and where it is more than 5 % away the whole session is UNSTABLE. What other
programs did meanwhile, a changing clock or a wide spread make a record UNSTABLE too, with the reason. Every raw sample
is kept beside the records.

    protocol    how long, how often
    one         one file, one runtime, one setting → one record
    numbers     samples → percentiles
    samples     the raw samples' files
    session     what is taken together: repeats, failures, drift
    pairs       fresh-process pairs of two files → log-ratios
    versus      A against B: the verdict
    findings    a file against the one that it was made from
    fastest     which way of running a file takes the least time here

In scope: which variants, in which order. Imports all below.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featherweight.artifact import Artifact, read_artifact
from featherweight.data import Dataset, read_dataset
from featherweight.errors import RuntimeFailure, SomeUnmeasured
from featherweight.measure.one import Case, check_threads, pictures_of
from featherweight.measure.protocol import QUICK, Origin, Patience, Power, Protocol
from featherweight.measure.session import Session
from featherweight.progress import track
from featherweight.record import Record, check_records_file
from featherweight.runtimes import runtime_named, supporting
from featherweight.runtimes.settings import Settings

__all__ = ["QUICK", "Case", "Origin", "Patience", "Power", "Protocol", "check_threads", "measure"]


def measure(
    artifacts: str | Path | Artifact | Sequence[str | Path | Artifact],
    data: str | Path | Dataset | None = None,
    runtime: str = "all",
    threads: Sequence[int] | None = None,
    part: str | None = None,
    protocol: Protocol | None = None,
    output: str | Path | None = None,
    origin: Origin | None = None,
    settings: Settings | None = None,
    precisions: Sequence[str] = (),
    patience: Patience | None = None,
    power: Power | None = None,
    findings: bool = True,
    drift: bool = True,
    order_seed: int | None = None,
) -> list[Record]:
    """Measure every artifact by every runtime that supports it, on every number of threads, in every precision.

    Args:
        artifacts: artifact folders or bare model files, one or several.
        data: the pictures for accuracy and for the inputs; without, the golden inputs are used and accuracy is `None`.
        runtime: a runtime's name, several with commas, or "all".
        threads: numbers of threads; by default 1 and all cores.
        part: the part of the data; by default test where there is one, else val.
        protocol: how long to run.
        output: a file of records to append each record to as soon as it is taken, with its raw samples beside.
        origin: what to write into the record about its making.
        settings: provider, optimization and input size to ask for; threads and precision are taken from here only
            where `threads` and `precisions` do not say.
        precisions: the arithmetic to ask the runtimes for, for example float32 and bfloat16; by default their own.
        patience: wait for a quiet machine, repeat what came out UNSTABLE.
        power: an external meter, or the machine's power for an estimate.
        findings: hold each file against the one that it was made from, where that lies beside it.
        drift: run the first variant again, last.
        order_seed: of the order of the variants; drawn, and recorded, where it is not given.

    Raises:
        RuntimeFailure: no runtime supports one of the artifacts, with the reason of each.
        SomeUnmeasured: measurements failed; the others are in its `records`, and written.
        FeatherweightError: anything wrong with the artifact, the data, the settings or the output.
    """
    listed = [artifacts] if isinstance(artifacts, str | Path | Artifact) else list(artifacts)
    loaded = [artifact if isinstance(artifact, Artifact) else read_artifact(artifact) for artifact in listed]
    dataset = data if isinstance(data, Dataset) or data is None else read_dataset(data)
    protocol, origin = protocol or Protocol(), origin or Origin()
    power = power or Power()
    power.check()
    if output is not None:
        check_records_file(output)
    seed = random.SystemRandom().randrange(2**32) if order_seed is None else order_seed
    cases = cases_of(loaded, runtime, threads, settings or Settings(), precisions)
    session = Session(protocol, origin, patience or Patience(), power, output, runtime == "all")
    pictures = {case: pictures_of(case.artifact, dataset, part) for case in cases}
    # In random order, so that what drifts does not always fall on the same variant.
    order = random.Random(seed).sample(cases, len(cases))
    for case in track(order, "measuring", len(order)):
        session.take(case, pictures[case], {"seed": seed, "place": order.index(case), "of": len(order)})
    session.close(pictures, drift, findings)
    records = [session.taken[case] for case in cases if case in session.taken]
    if session.failures:
        raise SomeUnmeasured(tuple(session.failures), tuple(records))
    return records


def cases_of(
    artifacts: Sequence[Artifact],
    runtime: str,
    threads: Sequence[int] | None,
    settings: Settings,
    precisions: Sequence[str],
) -> list[Case]:
    """Every artifact by every runtime that supports it, on every number of threads, in every precision it offers.

    Raises:
        RuntimeFailure: nothing supports one of the artifacts, or no runtime offers one of the precisions.
        SettingError: numbers of threads that this machine has not.
    """
    counts = check_threads(threads)
    cases = []
    for artifact in artifacts:
        names = supporting(artifact, runtime)
        offered = {name: runtime_named(name).options(artifact).precisions for name in names} if precisions else {}
        found = [
            Case(artifact, name, replace(settings, threads=count, precision=precision))
            for name in names
            for precision in (precisions or (settings.precision,))
            if not precisions or precision in offered[name]
            for count in counts
        ]
        absent = [precision for precision in precisions if all(precision not in some for some in offered.values())]
        if absent:
            known = "; ".join(f"{name}: {', '.join(some) or 'its own'}" for name, some in offered.items())
            raise RuntimeFailure(f"nothing here runs {artifact.name} in {', '.join(absent)}; offered: {known}")
        cases += found
    return cases
