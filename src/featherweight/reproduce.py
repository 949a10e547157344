"""A record run again with its exact settings, on the machine that it was taken on: are the numbers the same?

Accuracy is the same where it is exactly equal, on the same pictures. Latency is the same where the new p50 lies inside
the record's 95 % interval, or both intervals overlap, or lie apart by no more than the practical margin of 2 %: an
interval knows the drift within one process only, and a fresh process of the same file differs by about as much. Where
one of the two runs is UNSTABLE, latency is not judged: what other load did is taken for no difference.

In scope: what must be equal before anything is run, and what the two say of each other. Not aware of: how a record is
taken (`measure`). Imports artifact, compare, data, device, errors, measure, predict, quantity, record and runtimes.
"""

import contextlib
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featherweight.artifact import MANIFEST, Artifact, fits, read_artifact
from featherweight.compare import apart, changes
from featherweight.data import Dataset, read_dataset
from featherweight.device import this_device
from featherweight.device.load import wait_until_quiet
from featherweight.errors import ArtifactError, RecordError, SettingError
from featherweight.measure import Origin, Patience, Protocol
from featherweight.measure.one import Case, Pictures, measure_case, pictures_of
from featherweight.measure.samples import write_samples
from featherweight.progress import logger
from featherweight.record import QUANTITIES, Record, append_record, check_records_file, read_records
from featherweight.runtimes import supporting
from featherweight.runtimes.settings import Settings, settings_of
from featherweight.stats import MARGIN

# What of a machine stays as it is from run to run, so that a change of it is worth a note.
STEADY = (
    "governor", "frequency_max_mhz", "boost", "cores_online", "affinity", "quota_cores", "memory_limit_bytes",
    "container", "virtual_machine", "power_source", "kernel",
)  # fmt: skip


@dataclass(frozen=True)
class Reproduced:
    """A record, and the one of its settings run again."""

    record: Record
    again: Record
    notes: tuple[str, ...]  # what was another this time: versions, the machine's settings

    @property
    def accuracy_same(self) -> bool | None:
        """Whether accuracy is exactly equal; `None` where the record has none."""
        if self.record.accuracy is None:
            return None
        return (self.again.accuracy, self.again.accuracy_n) == (self.record.accuracy, self.record.accuracy_n)

    @property
    def latency_same(self) -> bool | None:
        """Whether p50 latency is no other beyond noise; `None` where that cannot be judged (`not_judged`)."""
        return None if self.not_judged else apart(self.record, self.again, "latency_p50") is None

    @property
    def not_judged(self) -> str | None:
        """Why latency says nothing."""
        for one, when in ((self.record, "the record"), (self.again, "this run")):
            if one.unstable:
                return f"{when} is UNSTABLE: {one.unstable[0]}"
            if one.latency_p50_ms is None or one.latency_p50_interval_ms is None:
                return f"{when} has no p50 with an interval: {one.missing.get('latency_p50_ms', 'too few runs')}"
        return None

    @property
    def same(self) -> bool:
        """Whether nothing that can be judged differs."""
        return self.accuracy_same is not False and self.latency_same is not False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "same": self.same,
            "accuracy_same": self.accuracy_same,
            "latency_same": self.latency_same,
            "latency_not_judged": self.not_judged,
            "accuracy": self.accuracy_text(),
            "latency": self.latency_text(),
            "notes": list(self.notes),
            "record": json.loads(self.record.to_json()),
            "again": json.loads(self.again.to_json()),
        }

    def text(self) -> str:
        """What a terminal shows."""
        return "\n".join(
            [
                f"{self.record.id} {self.record.name} by {self.record.runtime}, threads {self.record.threads}: "
                + self._word(),
                f"  accuracy  {self.accuracy_text()}",
                f"  latency   {self.latency_text()}",
                *(f"  note      {note}" for note in self.notes),
            ]
        )

    def _word(self) -> str:
        if not self.same:
            return "NOT reproduced"
        if self.latency_same is None and self.accuracy_same is None:
            return "nothing could be judged"
        return "reproduced" if self.latency_same else "reproduced, but latency was not judged"

    def accuracy_text(self) -> str:
        """How the accuracies stand to each other."""
        if self.accuracy_same is None:
            return f"not compared: {self.record.missing.get('accuracy', 'the record has none')}"
        show = QUANTITIES["accuracy"].show
        word = "equal" if self.accuracy_same else "another"
        return (
            f"{word}: {show(self.record.accuracy)} of {self.record.accuracy_n}, "
            f"now {show(self.again.accuracy)} of {self.again.accuracy_n}"
        )

    def latency_text(self) -> str:
        """How the latencies stand to each other, by which rule."""
        both = f"p50 {_p50(self.record)}, now {_p50(self.again)}"
        return f"not judged, {self.not_judged} ({both})" if self.not_judged else f"{self._latency_word()}: {both}"

    def _latency_word(self) -> str:
        then, now = self.record.latency_p50_interval_ms, self.again.latency_p50_interval_ms
        assert then is not None and now is not None and self.again.latency_p50_ms is not None
        if then[0] <= self.again.latency_p50_ms <= then[1]:
            return "the same, inside the record's interval"
        if now[0] <= then[1] and then[0] <= now[1]:
            return "the same, the intervals overlap"
        if self.latency_same:
            return f"the same, the intervals are apart by no more than {MARGIN:.0%}"
        return "slower than the record" if now[0] > then[1] else "faster than the record"


def _p50(record: Record) -> str:
    interval = record.latency_p50_interval_ms
    middle = QUANTITIES["latency_p50_ms"].show(record.latency_p50_ms)
    return middle if interval is None else f"{middle} ({interval[0]:.3g}–{interval[1]:.3g})"


def reproduce(
    record: str | Path | Record,
    artifact: str | Path | Artifact | None = None,
    data: str | Path | Dataset | None = None,
    records: str | Path = "records.jsonl",
    output: str | Path | None = None,
    patience: Patience | None = None,
    command: str | None = None,
) -> Reproduced:
    """Run a record's exact settings again.

    Args:
        record: an id, or its beginning, in the file of records; a file with one record; or the record itself.
        artifact: what the record was taken of; by default the folder with its sha256 among `artifacts/*` and `*` beside
            the file of records.
        data: the pictures that the record was taken on, where it was taken on any.
        records: the file of records.
        output: a file of records to append the new one to, with its raw samples beside.
        patience: wait for a quiet machine, repeat what comes out UNSTABLE.
        command: what the new record says of its making.

    Raises:
        RecordError: no such record, one of another machine or a quick one, or other data than it was taken on.
        ArtifactError: no such artifact, or another one than the record was taken of.
        RuntimeFailure: the runtime is not here, or does not run the file.
        MeasureError: the process died, hung or refused.
    """
    wanted = record if isinstance(record, Record) else find_record(record, records)
    check_repeatable(wanted)
    if output is not None:
        check_records_file(output)
    place = record if not isinstance(record, Record) and Path(record).is_file() else records
    loaded = artifact if isinstance(artifact, Artifact) else _artifact_of(wanted, artifact, Path(place).parent)
    if loaded.sha256 != wanted.artifact_sha256:
        raise ArtifactError(
            f"{loaded.path} has sha256 {loaded.sha256[:12]}…, record {wanted.id} was taken of "
            f"{wanted.artifact_sha256[:12]}…: name the artifact of the record"
        )
    pictures = _pictures_of(wanted, loaded, data)
    runtime = supporting(loaded, wanted.runtime)[0]
    case = Case(loaded, runtime, _settings_of(wanted))
    again = _measured(
        case, pictures, _protocol_of(wanted), Origin(wanted.seed, command), patience or Patience(), output
    )
    return Reproduced(wanted, again, notes_of(wanted, again))


def find_record(record: str | Path, records: str | Path) -> Record:
    """The record of an id or its beginning in a file of records, or the only one of a file.

    Raises:
        RecordError: none, or more than one.
    """
    if Path(record).is_file():
        found = read_records(record)
        if len(found) != 1:
            raise RecordError(f"{record} holds {len(found)} records; name one: reproduce ID --records {record}")
        return found[0]
    known = read_records(records)
    # A record may be in a file twice, copied.
    ids = {one.id: one for one in known if one.id.startswith(str(record))}
    if len(ids) != 1:
        shown = ", ".join(list(ids or {one.id: one for one in known})[:8])
        what = "no record" if not ids else f"{len(ids)} records"
        raise RecordError(f"{what} with an id that begins with {str(record)!r:.80} in {records}; it has: {shown}")
    return next(iter(ids.values()))


def check_repeatable(record: Record) -> None:
    """Raise where a record cannot be held against a run on this machine.

    Raises:
        RecordError: it is of another machine, or a quick one.
    """
    device = this_device()
    if record.device_id != device.id:
        raise RecordError(
            f"{record.id} was taken on {record.device.get('name', '?')} ({record.device_id}), this is {device.name} "
            f"({device.id}): records of other machines are not compared. Run it there, or measure the file here"
        )
    if record.quick:
        raise RecordError(f"{record.id} is a quick record, which is not compared; measure again without --quick")


def notes_of(record: Record, again: Record) -> tuple[str, ...]:
    """What was another when it was run again: versions, what it really ran with, the machine's settings."""
    names = sorted(record.versions.keys() | again.versions.keys())
    pairs = [(name, record.versions.get(name), again.versions.get(name)) for name in names]
    pairs += [
        ("arithmetic", record.compute_precision, again.compute_precision),
        ("provider", record.provider, again.provider),
        ("inputs", record.settings.get("inputs"), again.settings.get("inputs")),
    ]
    before = {"before": record.environment.get("before"), "after": again.environment.get("before")}
    pairs += [change for change in changes(before) if change[0] in STEADY]
    return tuple(f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now)


def _measured(
    case: Case,
    pictures: Pictures,
    protocol: Protocol,
    origin: Origin,
    patience: Patience,
    output: str | Path | None,
) -> Record:
    """The new record; taken again while it comes out UNSTABLE and patience is left."""
    for attempt in range(1 + patience.repeats):
        wait_until_quiet(seconds=patience.wait_seconds)
        logger.info("%s again", case)
        record, samples = measure_case(case, pictures, protocol, origin)
        if not record.unstable or attempt == patience.repeats:
            break
    if output is not None:
        record = replace(record, samples=write_samples(output, samples))
        append_record(output, record)
    return record


def _artifact_of(record: Record, artifact: str | Path | None, folder: Path) -> Artifact:
    if artifact is not None:
        return read_artifact(artifact)
    for found, sha256 in _beside(folder):
        if sha256 == record.artifact_sha256:
            return read_artifact(found)
    raise ArtifactError(
        f"no artifact with sha256 {record.artifact_sha256[:12]}… in {folder} or {folder / 'artifacts'}; name it"
    )


def _beside(folder: Path) -> Iterator[tuple[Path, Any]]:
    """(artifact folder, the sha256 that its manifest says) of those beside a file of records."""
    for pattern in (f"artifacts/*/{MANIFEST}", f"*/{MANIFEST}"):
        for manifest in sorted(folder.glob(pattern)):
            try:
                fields = json.loads(manifest.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue  # it is not the one; whoever wants it is told by read_artifact
            if isinstance(fields, dict):
                yield manifest.parent, fields.get("sha256")


def _pictures_of(record: Record, artifact: Artifact, data: str | Path | Dataset | None) -> Pictures:
    """The pictures that the record was taken on.

    Raises:
        RecordError: they are not given, or others are.
    """
    if record.data is None:
        if data is not None:
            raise RecordError(f"{record.id} was taken without data; leave --data out")
        return pictures_of(artifact, None, None)
    if data is None:
        raise RecordError(
            f"{record.id} was taken on the {record.part} part of data {record.data}; name its folder with --data"
        )
    dataset = data if isinstance(data, Dataset) else read_dataset(data)
    if dataset.fingerprint != record.data:
        raise RecordError(
            f"{record.id} was taken on data {record.data}, this is {dataset.fingerprint}: other pictures, or another "
            "--split. Name the data of the record"
        )
    return pictures_of(artifact, dataset, record.part)


def _settings_of(record: Record) -> Settings:
    """What the record asked the runtime for.

    Raises:
        RecordError: it does not say.
    """
    asked = record.settings.get("asked")
    try:
        return settings_of(asked if isinstance(asked, dict) else {})
    except SettingError as error:
        raise RecordError(f"{record.id} does not say how it was run: {error}; measure the file again") from error


def _protocol_of(record: Record) -> Protocol:
    """How long the record was measured.

    Raises:
        RecordError: it does not say, or by another version's protocol.
    """
    values = record.settings.get("protocol")
    hints = typing.get_type_hints(Protocol)
    if isinstance(values, dict) and set(values) == set(hints) and all(fits(values[n], hints[n]) for n in hints):
        with contextlib.suppress(SettingError):
            return Protocol(**values)
    raise RecordError(f"{record.id} was measured by another version's protocol: {values!r:.200}; measure again")
