"""How a file, or which of several, runs fastest here: by short runs of every runtime, to choose and not to tell.

Imports artifact, record and its neighbours.
"""

from collections.abc import Sequence

from featherweight.artifact import Artifact
from featherweight.measure import QUICK, Case, measure
from featherweight.record import Record
from featherweight.runtimes.settings import Settings

Way = tuple[Case, Record]


def ways(files: Sequence[Artifact], threads: Sequence[int] = ()) -> list[Way]:
    """Every way to run the files, with its quick record.

    Args:
        files: one or several.
        threads: to run with; by default one, and all cores.

    Raises:
        RuntimeFailure: nothing here runs one of them.
        SomeUnmeasured: a process died or hung.
    """
    records = measure(list(files), None, "all", tuple(threads) or None, protocol=QUICK, findings=False, drift=False)
    by_sha = {file.sha256: file for file in files}
    return [
        (Case(by_sha[record.artifact_sha256], record.runtime, Settings(threads=record.threads)), record)
        for record in records
    ]


def fastest(files: Sequence[Artifact], threads: Sequence[int] = ()) -> Way:
    """The way of the least median latency; as `ways`."""
    return min(ways(files, threads), key=lambda way: p50(way[1]))


def p50(record: Record) -> float:
    """The median latency in ms; where there is none, infinity."""
    return float("inf") if record.latency_p50_ms is None else record.latency_p50_ms
