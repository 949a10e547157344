"""How a file, or which of several, runs fastest here: by short runs of every runtime, to choose and not to tell.

Imports artifact, record and its neighbours.
"""

from collections.abc import Sequence

from featherweight.artifact import Artifact
from featherweight.measure import QUICK, Case, measure
from featherweight.record import Record
from featherweight.runtimes.settings import Settings

Way = tuple[Case, Record]


def ways(files: Sequence[Artifact], threads: Sequence[int] = (), precision: str | None = None) -> list[Way]:
    """Every way to run the files, with its quick record.

    Args:
        files: one or several.
        threads: to run with; by default one, and all cores.
        precision: the arithmetic to ask for; by default each runtime's own, which need not be the file's.

    Raises:
        RuntimeFailure: nothing here runs one of them.
        SettingError: an arithmetic that a runtime does not offer.
        SomeUnmeasured: a process died or hung.
    """
    records = measure(
        list(files), None, "all", tuple(threads) or None, protocol=QUICK, precisions=(precision,) if precision else (),
        findings=False, drift=False,
    )  # fmt: skip
    by_sha = {file.sha256: file for file in files}
    return [
        (Case(by_sha[record.artifact_sha256], record.runtime, Settings(record.threads, precision=precision)), record)
        for record in records
    ]


def fastest(files: Sequence[Artifact], threads: Sequence[int] = (), precision: str | None = None) -> Way:
    """The way of the least median latency; as `ways`."""
    return min(ways(files, threads, precision), key=lambda way: p50(way[1]))


def p50(record: Record) -> float:
    """The median latency in ms; where there is none, infinity."""
    return float("inf") if record.latency_p50_ms is None else record.latency_p50_ms
