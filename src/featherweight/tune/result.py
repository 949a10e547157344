"""What a tuning found: every configuration with its numbers or why it is out, the choice, and how sure it is.

Imports artifact, errors, measure, stats and race.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featherweight.artifact import MANIFEST, Artifact, to_utf8, write_file
from featherweight.errors import OutputError
from featherweight.measure.samples import write_samples
from featherweight.measure.versus import side_dict
from featherweight.stats import Verdict
from featherweight.tune.race import Runner

CHOSEN = "chosen"
HEAD = b'{"artifact": '  # how every line begins, as its keys are sorted


@dataclass(frozen=True, eq=False)
class Tuned:
    """The fastest way to run a file on a device, and what else was tried."""

    artifact: Artifact
    device_id: str
    runners: tuple[Runner, ...]
    default: Runner
    best: Runner  # of the race
    choice: Runner  # the best where it took less time than the default in their pairs, else the default
    verdict: Verdict | None  # of the best against the default, in pairs that took no part in the race; None: no pairs
    log_ratios: tuple[float, ...]  # of these pairs
    disturbed: tuple[str, ...]  # what went on meanwhile; the intervals have it in them
    quick: bool
    written: bool = False  # whether the choice is in the artifact
    samples: str | None = None  # the file of raw samples, beside the results

    @property
    def ordered(self) -> list[Runner]:
        """The choice first, then by time; what never ran comes last."""
        return sorted(self.runners, key=lambda one: (one is not self.choice, one.p50_ms is None, one.middle))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "artifact": self.artifact.name,
            "sha256": self.artifact.sha256,
            "device_id": self.device_id,
            "quick": self.quick,
            "written": self.written,
            "best": side_dict(self.best.case),
            "choice": side_dict(self.choice.case),
            "default": side_dict(self.default.case),
            "verdict": None if self.verdict is None else {**asdict(self.verdict), "said": str(self.verdict)},
            "log_ratios": list(self.log_ratios),
            "configurations": [self._row(runner) for runner in self.runners],
            "disturbed": list(self.disturbed),
            "samples": self.samples,
        }

    def _row(self, runner: Runner) -> dict[str, Any]:
        return {
            "runtime": runner.case.runtime,
            "settings": asdict(runner.case.settings),
            "ran": runner.ran,
            "p50_ms": runner.p50_ms,
            "ratio_to_default": None if runner.ratio is None else asdict(runner.ratio),
            "blocks_ms": runner.block_ms,
            "agreement": runner.agreement,
            "chosen": runner is self.choice,
            "out": runner.out,
        }

    def text(self) -> str:
        """The table and what follows from it, for a terminal."""
        quick = " (quick: less than a choice needs to be sure)" if self.quick else ""
        rows = [("", "configuration", "runs in", "ms", "× default", ""), *map(self._cells, self.ordered)]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        table = [
            " ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip()
            for row in rows
        ]
        return "\n".join(
            [
                f"{self.artifact.name}: {len(self.runners)} configurations{quick}",
                *table,
                f"choice    {self.choice.way}",
                f"speed     {self._speed()}",
                f"outputs   {self.choice.agreement}",
                *(
                    f"UNSTABLE  {reason}; tune it again when it is quiet, or with --wait 60"
                    for reason in self.disturbed
                ),
                self._where(),
            ]
        )

    def _speed(self) -> str:
        if self.best is self.default:
            return "the default is the fastest, or within the margin of it"
        if self.verdict is None:
            return f"the default; {self.best.way} was the fastest and failed"
        against = f"{self.verdict}, against the default, {self.default.way}"
        return against if self.choice is self.best else f"the default, as {self.best.way} was {against}"

    def _cells(self, runner: Runner) -> tuple[str, ...]:
        ratio, ran = runner.ratio, runner.ran or {}
        notes = [
            *([CHOSEN] if runner is self.choice else []),
            *(["default"] if runner is self.default else []),
            *([runner.out] if runner.out else []),
        ]
        return (
            "→" if runner is self.choice else " ",
            runner.way,
            "/".join(str(ran[name]) for name in ("precision", "layout") if ran.get(name)),
            "" if runner.p50_ms is None else f"{runner.p50_ms:.2f}",
            "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})",
            "; ".join(notes),
        )

    def _where(self) -> str:
        if self.written:
            return f"written into {self.artifact.path / MANIFEST}: predict runs it so on this device from now on"
        if not self.artifact.foreign:
            return f"{self.artifact.path / MANIFEST} keeps the choice of a full race; this quick one was not written"
        asked = {**asdict(self.choice.case.settings), "input_size": None}
        size = self.choice.case.settings.input_size
        asked["input"] = None if size is None else f"{size[0]},{size[1]}"
        options = "".join(f" --{name} {value}" for name, value in asked.items() if value is not None)
        return (
            f"{self.artifact.path} is a bare model file: nothing was written. Measure it so with --runtime "
            f"{self.choice.case.runtime}{options}"
        )


def check_tuned_file(path: str | Path) -> bytes:
    """See that a result can be appended there, before minutes are spent; returns what is there.

    Raises:
        OutputError: it cannot be read, or is a file of something else.
    """
    try:
        before = Path(path).read_bytes() if Path(path).exists() else b""
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name a file for the results") from error
    if not HEAD.startswith(before[: len(HEAD)]):
        raise OutputError(f"{path} is no file of results; name another file, nothing is overwritten")
    return before


def append_tuned(path: str | Path, tuned: Tuned) -> Tuned:
    """Append a result to a file, one JSON line each, with every run of the race in a file beside.

    Raises:
        OutputError: it is no such file, or cannot be written; it is then as it was before.
    """
    path, before = Path(path), check_tuned_file(path)
    samples: dict[str, list[int]] = {}
    for place, runner in enumerate(tuned.runners):
        samples |= {f"{place}_infer_ns": runner.runs_ns, f"{place}_block": runner.run_blocks}
    tuned = replace(tuned, samples=write_samples(path, samples))
    line = json.dumps(tuned.as_dict(), sort_keys=True, ensure_ascii=False)
    write_file(path, before + to_utf8(line + "\n"))
    return tuned
