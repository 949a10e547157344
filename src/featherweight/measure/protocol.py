"""How a measurement is taken: how long, how often, on how many pictures; and what a record says of its making.

Imports device, errors, progress and stats.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from featherweight.device.energy import LEAST_WINDOWS, WINDOWS
from featherweight.device.meter_csv import CsvMeter
from featherweight.errors import SettingError
from featherweight.progress import logger
from featherweight.stats import MIN_SAMPLES

# Under these a number is `quick`: it may serve to choose what to measure, and is refused in comparisons.
FULL_SECONDS, FULL_WARMUP_SECONDS, FULL_WARMUP_RUNS = 10.0, 1.0, 10


@dataclass(frozen=True)
class Protocol:
    """When each part of a measurement may stop. Part by part, both the least time and the least runs are reached.

    Set against MLPerf (Tiny: windows of 10 s; Mobile: 60 s), it is a single stream: one picture at a time.
    """

    min_seconds: float = 10.0  # of timed inferences
    min_runs: int = 64
    percentile: float = 90.0  # the highest that is claimed: it may ask for more runs than `min_runs`
    warmup_seconds: float = 1.0
    warmup_runs: int = 10
    inputs: int = 256  # different pictures under the clock
    total_seconds: float = 2.0  # of picture in, answer out; 0: not measured
    throughput_seconds: float = 2.0  # of all cores at work; 0: not measured
    cold_starts: int = 10  # fresh processes, start to first answer; 0: not measured
    energy_windows: int = WINDOWS
    energy_window_seconds: float = 30.0  # 0: not measured

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf or (name in ("min_runs", "inputs") and value < 1):
                raise SettingError(f"{name} {value:g}; wanted at least one run and one input, and times from 0 on")
        if self.energy_windows < LEAST_WINDOWS:
            raise SettingError(
                f"{self.energy_windows} windows of energy; wanted {LEAST_WINDOWS} or more, "
                "or energy_window_seconds=0 for none"
            )
        if self.percentile not in MIN_SAMPLES:
            raise SettingError(f"percentile {self.percentile:g}; known: {', '.join(f'{p:g}' for p in MIN_SAMPLES)}")

    @property
    def runs(self) -> int:
        """The least number of timed runs: as many as the claimed percentile needs."""
        return max(self.min_runs, MIN_SAMPLES[self.percentile])

    @property
    def quick(self) -> bool:
        """Whether it is too short for a number that is compared with others."""
        return (
            self.min_seconds < FULL_SECONDS
            or self.warmup_seconds < FULL_WARMUP_SECONDS
            or self.warmup_runs < FULL_WARMUP_RUNS
            or self.runs < MIN_SAMPLES[90]
            or self.inputs < 2  # one picture again and again does not show what depends on the picture
        )


QUICK = Protocol(
    min_seconds=0.5,
    warmup_seconds=0.25,
    total_seconds=0.0,
    throughput_seconds=0.0,
    cold_starts=0,
    energy_window_seconds=1.0,
)


@dataclass(frozen=True)
class Patience:
    """What to do about other load: wait for quiet first, and repeat what came out UNSTABLE."""

    wait_seconds: float = 0.0  # at most so long before each measurement
    repeats: int = 0  # at most so often

    def __post_init__(self) -> None:
        if not 0 <= self.wait_seconds < float("inf") or self.repeats < 0:
            raise SettingError(f"wait {self.wait_seconds:g} s, repeat {self.repeats}; wanted numbers from 0 on")


@dataclass(frozen=True)
class Power:
    """Where energy comes from beyond the machine's own counters."""

    meter: str | Path | None = None  # a CSV file of an external meter
    watts: float | None = None  # the machine's power as the user gives it: makes an estimate, which stays apart

    def __post_init__(self) -> None:
        if self.watts is not None and not 0 < self.watts < math.inf:
            raise SettingError(f"a power of {self.watts:g} W; wanted a number above 0")

    def check(self) -> None:
        """See now, and not after the runs, whether the meter's file can be read; it may also be handed in later.

        Raises:
            SettingError: there is a file, and it is not that of a meter.
        """
        if self.meter is not None and Path(self.meter).exists():
            CsvMeter.checked(Path(self.meter))
        elif self.meter is not None:
            logger.warning("there is no %s yet; hand it in before the runs end, or energy stays unknown", self.meter)


@dataclass(frozen=True)
class Origin:
    """What a record says of its making: the seed of the training and the command that was typed."""

    seed: int | None = None
    command: str | None = None
