"""Measurements that are taken together: what is repeated, what failed, and what is known only at the end.

A record is appended as soon as it is taken, so that nothing is lost. At the end of the session it is known whether the
machine drifted, and how a file stands to the one that it was made from: each record is then appended once more with
that, and names the one that it replaces.

In scope: failures, repeats, corrections. Not aware of: how one record is made (`one`).
Imports device, errors, findings, one, progress, protocol, record and samples.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from featherweight.device.load import wait_until_quiet
from featherweight.errors import FeatherweightError, MeasureError, RuntimeFailure
from featherweight.measure.findings import findings_of_all
from featherweight.measure.one import Case, Pictures, latency_again, measure_case
from featherweight.measure.protocol import Origin, Patience, Power, Protocol
from featherweight.measure.samples import write_samples
from featherweight.progress import logger
from featherweight.record import Record, append_record
from featherweight.stats import percentile

DRIFT_LIMIT = 0.05
OFFER = "wait for a quiet machine or repeat it: --wait 60 --repeat 3"


class Session:
    """The records of a session so far, and what failed.

    Args:
        protocol: how long each takes.
        origin: what records say of their making.
        patience: wait for a quiet machine, repeat what came out UNSTABLE.
        power: where energy comes from beyond the machine's own counters.
        output: the file of records; nothing is written without.
        everything: whether the runtimes were not named: one of them may refuse a file then that another one runs.
    """

    def __init__(
        self,
        protocol: Protocol,
        origin: Origin,
        patience: Patience,
        power: Power,
        output: str | Path | None,
        everything: bool = False,
    ):
        self.protocol, self.origin, self.patience, self.power, self.output = protocol, origin, patience, power, output
        self.taken: dict[Case, Record] = {}
        self.everything = everything
        self.refused: dict[Case, str] = {}
        self.failures: list[str] = []

    def take(self, case: Case, pictures: Pictures, order: dict[str, int]) -> None:
        """Measure one case, again where it came out UNSTABLE and patience is left; a failure costs this case only.

        Args:
            case: what.
            pictures: on which.
            order: its place in the session, for the record.
        """
        for attempt in range(1 + self.patience.repeats):
            restless = self._wait()
            try:
                record, samples = measure_case(case, pictures, self.protocol, self.origin, self.power)
            except (MeasureError, RuntimeFailure) as error:
                self._fail(case, error)
                return
            settings = {**record.settings, "order": order}
            record = replace(record, warnings=(*record.warnings, *restless), settings=settings)
            if self.output is not None:
                record = replace(record, samples=write_samples(self.output, samples))
            self._keep(case, replace(record, replaces=self.taken[case].id) if case in self.taken else record)
            if not record.unstable:
                return
            if attempt == self.patience.repeats and not self.protocol.quick:
                logger.warning("%s is UNSTABLE: %s; %s", case, record.unstable[0], OFFER)

    def close(self, pictures: dict[Case, Pictures], drift: bool, findings: bool) -> None:
        """What is known only now: drift, findings, and which refusals are failures."""
        drifted = self._drift(pictures) if drift and not self.protocol.quick else None
        measured = {case.artifact.path for case in self.taken}
        for case, why in self.refused.items():
            if self.everything and case.artifact.path in measured:
                logger.info("left out: %s", why)
            else:
                self.failures.append(why)
                logger.error("%s", why)
        found: dict[Case, tuple[str, ...]] = {}
        if findings and not self.protocol.quick:
            found = findings_of_all([(case, record, pictures[case]) for case, record in self.taken.items()])
        for case, record in list(self.taken.items()):
            self._correct(case, record, drifted, found.get(case, ()))

    def _drift(self, pictures: dict[Case, Pictures]) -> dict[str, Any] | None:
        """How far the first case, run again, is from its record; `None` where that cannot be said."""
        case, first = next(iter(self.taken.items()), (None, None))
        if case is None or first is None or first.latency_p50_ms is None:
            return None
        self._wait()
        try:
            again = latency_again(case, pictures[case], self.protocol)
        except (MeasureError, RuntimeFailure) as error:
            self.failures.append(f"the first of the session could not be run again at its end: {error}")
            logger.error("%s", self.failures[-1])
            return None
        share = percentile(again, 50) / 1e6 / first.latency_p50_ms - 1
        samples = None if self.output is None else write_samples(self.output, {"infer_ns": again})
        return {"of": str(case), "share": share, "samples": samples}

    def _correct(self, case: Case, record: Record, drift: dict[str, Any] | None, found: tuple[str, ...]) -> None:
        unstable = record.unstable
        if drift is not None and abs(drift["share"]) > DRIFT_LIMIT:
            what = (
                f"{drift['of']}, the first of its session, was {drift['share']:+.0%} when it was run again at the end"
            )
            unstable = (*unstable, what)
            logger.warning("%s is UNSTABLE: %s; %s", case, what, OFFER)
        if drift is None and not found:
            return
        settings = record.settings if drift is None else {**record.settings, "drift": drift}
        self._keep(case, replace(record, settings=settings, unstable=unstable, findings=found, replaces=record.id))

    def _wait(self) -> tuple[str, ...]:
        """Wait for a quiet machine, if asked to; a warning where it did not become quiet."""
        seconds = self.patience.wait_seconds
        if not seconds or wait_until_quiet(seconds=seconds):
            return ()
        logger.warning("the machine did not become quiet within %g s", seconds)
        return (f"the machine did not become quiet within {seconds:g} s",)

    def _fail(self, case: Case, error: FeatherweightError) -> None:
        if isinstance(error, RuntimeFailure):
            self.refused[case] = str(error)
        else:
            self.failures.append(str(error))
            logger.error("%s", error)

    def _keep(self, case: Case, record: Record) -> None:
        if self.output is not None:
            append_record(self.output, record)
        self.taken[case] = record
