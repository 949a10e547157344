"""Energy of one inference: idle before, windows of running, idle after; what idling takes is subtracted and shown.

    energy = measure_energy(run_window, 5.0, 6, 5.0, find_meter())
    energy.method                 # "measured:rapl-package", …, or "not available: <cause>"
    energy.mj_per_inference       # net of idling; `None` without a meter

The labels: `measured:rapl-package`, `measured:nvml`, `measured:meter`, `estimated:battery`, `estimated:power-given`,
`not available: <cause>`. An estimate is no measurement and is never ranked beside one.

A library that reads the counters honestly? nvidia-ml-py does and is used. CodeCarbon does not: it adds up domains that
contain each other, and where there is no counter it goes on silently with half of the processor's nominal power.

In scope: the protocol of the windows. Not aware of: how a meter works. Imports errors, stats and meters.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from featherweight.device.meter_csv import CsvMeter
from featherweight.device.meters import LaterMeter, Meter, NoMeter, Reading
from featherweight.errors import MeasureError, SettingError
from featherweight.stats import median_interval, spread

LEAST_WINDOWS = 5
# From six on, the 95 % interval of a median exists.
WINDOWS = 6
# Idling that changes by more than this share of the running power is said.
IDLE_DRIFT = 0.10
ESTIMATE_NOTE = "±40 % or worse: the power that was given times the time of one inference, nothing was measured"


@dataclass(frozen=True)
class Window:
    """One stretch of time between two readings; `mj` is all that was used, idling included."""

    start_s: float  # seconds since 1970, so that a meter's file can be laid beside it later
    end_s: float
    seconds: float  # by the clock that nobody sets
    runs: int  # 0 while idling
    mj: float | None = None

    @property
    def watts(self) -> float | None:
        """The mean power."""
        return None if self.mj is None else self.mj / 1e3 / self.seconds


@dataclass(frozen=True)
class Energy:
    """Millijoules of one inference; the medians over the windows."""

    method: str
    mj_per_inference: float | None = None  # net of idling
    gross_mj_per_inference: float | None = None
    interval_mj: tuple[float, float] | None = None  # 95 %, of the net median; from six windows on
    spread: float | None = None  # interquartile range of the net windows over their median
    idle_before_watts: float | None = None
    idle_after_watts: float | None = None
    runs: int = 0
    window_mj: tuple[float, ...] = ()  # net, one inference, window by window
    windows: tuple[Window, ...] = ()
    idle: tuple[Window, ...] = ()  # before, after
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether it may stand, and be ranked, among measurements."""
        return self.method.startswith("measured:") and self.mj_per_inference is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


@dataclass(frozen=True)
class _Taken:
    """A window whose energy is worked out at the end, as a meter's file is complete only then."""

    window: Window
    start: Reading
    end: Reading


def measure_energy(
    run_window: Callable[[float], int],
    window_seconds: float,
    windows: int,
    idle_seconds: float,
    meter: Meter,
) -> Energy:
    """Read the meter around idling, running and idling; nothing is run without a meter.

    Args:
        run_window: runs inferences for that many seconds and returns how many.
        window_seconds: the least length of a window; 30 and more for figures to publish.
        windows: how many, at least 5.
        idle_seconds: how long to idle before and after.
        meter: from `find_meter`.

    Raises:
        SettingError: too few windows, or times that are not above zero.
        MeasureError: a window without one inference.
    """
    if windows < LEAST_WINDOWS or not (0 < window_seconds < math.inf and 0 < idle_seconds < math.inf):
        raise SettingError(
            f"{windows} windows of {window_seconds:g} s, idling {idle_seconds:g} s; "
            f"wanted {LEAST_WINDOWS} windows or more, and times above 0"
        )
    if isinstance(meter, NoMeter):
        return Energy(meter.label)
    before = _take(meter, lambda: _rest(idle_seconds))
    running = [_take(meter, lambda: run_window(window_seconds)) for _ in range(windows)]
    after = _take(meter, lambda: _rest(idle_seconds))
    if any(taken.window.runs < 1 for taken in running):
        raise MeasureError(f"not one inference within {window_seconds:g} s; take longer windows")
    return _settle(meter, [before, after], running)


def from_csv(path: str | Path, idle: Sequence[Window], windows: Sequence[Window]) -> Energy:
    """The energy of windows that were run before, by the file of a meter that watched them.

    Raises:
        SettingError: not a meter's file, or windows that `measure_energy` did not make.
        MeasureError: the file does not cover the windows, or has gaps in them.
    """
    if len(idle) != 2 or len(windows) < LEAST_WINDOWS or min(window.runs for window in windows) < 1:
        raise SettingError(
            f"{len(idle)} idle windows and {len(windows)} of running; wanted 2 idle windows and {LEAST_WINDOWS} or "
            "more with inferences, as a measurement keeps them"
        )
    meter = CsvMeter(Path(path))
    edges = [[_Taken(w, (w.start_s,), (w.end_s,)) for w in some] for some in (idle, windows)]
    return _worked_out(meter, edges[0], edges[1])


def estimate(watts: float, seconds_per_inference: float) -> dict[str, Any]:
    """What one inference takes if the device draws so much power; plain values for a record's `energy_estimate`.

    Raises:
        SettingError: power or time that is not above zero.
    """
    if not (0 < watts < math.inf and 0 < seconds_per_inference < math.inf):
        raise SettingError(f"{watts:g} W for {seconds_per_inference:g} s; wanted both above 0")
    return {
        "method": "estimated:power-given",
        "mj_per_inference": watts * seconds_per_inference * 1e3,
        "watts": watts,
        "seconds_per_inference": seconds_per_inference,
        "note": ESTIMATE_NOTE,
    }


def _rest(seconds: float) -> int:
    time.sleep(seconds)
    return 0


def _take(meter: Meter, do: Callable[[], int]) -> _Taken:
    start_s, start_ns, start = time.time(), time.perf_counter_ns(), meter.read()
    runs = do()
    end, end_ns = meter.read(), time.perf_counter_ns()
    seconds = (end_ns - start_ns) / 1e9
    return _Taken(Window(start_s, start_s + seconds, seconds, runs), start, end)


def _settle(meter: Meter, idle: list[_Taken], running: list[_Taken]) -> Energy:
    """The result; where the meter cannot tell, the cause and the windows, so that a file can be handed in later."""
    kept = Energy(
        meter.label,
        runs=sum(taken.window.runs for taken in running),
        windows=tuple(taken.window for taken in running),
        idle=tuple(taken.window for taken in idle),
    )
    if isinstance(meter, LaterMeter):
        return kept
    try:
        return _worked_out(meter, idle, running)
    except (MeasureError, SettingError) as cause:
        return replace(kept, method=f"not available: {cause}")


def _worked_out(meter: Meter, idle: Sequence[_Taken], running: Sequence[_Taken]) -> Energy:
    used = meter.used_mj([(taken.start, taken.end) for taken in (*idle, *running)])
    filled = [replace(taken.window, mj=mj) for taken, mj in zip((*idle, *running), used, strict=True)]
    resting, windows = filled[: len(idle)], filled[len(idle) :]
    idle_watts = [window.watts for window in resting if window.watts is not None]
    net = tuple(_net_mj(window, fmean(idle_watts)) for window in windows)
    result = Energy(
        method=meter.label,
        gross_mj_per_inference=median((window.mj or 0.0) / window.runs for window in windows),
        idle_before_watts=idle_watts[0],
        idle_after_watts=idle_watts[-1],
        runs=sum(window.runs for window in windows),
        window_mj=net,
        windows=tuple(windows),
        idle=tuple(resting),
        notes=(meter.scope, *_drift(idle_watts, windows)),
    )
    interval = median_interval(net)
    if median(net) <= 0 or (interval is not None and interval[0] <= 0):
        cause = "running took no more power than idling; take longer windows on an idle machine"
        return replace(result, method=f"not available: {cause}")
    return replace(result, mj_per_inference=median(net), interval_mj=interval, spread=spread(net))


def _net_mj(window: Window, idle_watts: float) -> float:
    """One inference's share of what the window took above idling."""
    return ((window.mj or 0.0) - idle_watts * window.seconds * 1e3) / window.runs


def _drift(idle_watts: Sequence[float], windows: Sequence[Window]) -> tuple[str, ...]:
    running = fmean(window.watts or 0.0 for window in windows)
    if abs(idle_watts[-1] - idle_watts[0]) <= IDLE_DRIFT * running:
        return ()
    return (f"idling changed from {idle_watts[0]:.2f} to {idle_watts[-1]:.2f} W, running took {running:.2f} W",)
