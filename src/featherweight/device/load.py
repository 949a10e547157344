"""What others took of the processor while something was measured, and whether the result can be trusted.

    watch = Watch.now([child.pid])
    ...                                   # the child runs
    load = watch.since()
    reasons(before, after, load)          # two `environment.snapshot()`; empty: nothing speaks against it

What the whole machine did less what this process, its waited children and the named processes did is what others did.
Clock ticks of 10 ms are counted, so that a share over a second is good to about 1 %, and less long ones to less.
Imports the rest of this folder.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.device import busy_share
from featherweight.device.cgroup import held_back_ms
from featherweight.device.environment import UNKNOWN
from featherweight.device.files import ROOT, field, listed, read
from featherweight.device.sensors import Throttling, throttling

BUSY_LIMIT = 0.10
STEAL_LIMIT = 0.05
WAITED_LIMIT = 0.10
CHANGE_LIMIT = 0.10
HELD_BACK_LIMIT = 0.01
TEMPERATURE_MARGIN_C = 2.0
QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """Between two moments; shares are 0–1 of the cores that this process may use, `None` is unknown."""

    seconds: float
    cores: int | None
    own_seconds: float | None  # processor time of this process, its waited children and the named ones
    other_share: float | None  # used by other programs
    steal_share: float | None  # taken by the hypervisor for other machines
    waited_share: float | None  # of the named processes' time: ready to run, and no core was free
    held_back_ms: float | None  # by the container's quota
    throttling: tuple[str, ...] | None  # what slowed the processor down, in words; empty: nothing did


@dataclass(frozen=True)
class Watch:
    """The counters at one moment; `since` compares them with those of a later one."""

    pids: tuple[int, ...]
    root: Path
    moment_s: float
    cores: int | None
    busy_s: float | None
    stolen_s: float | None
    own_s: float | None
    waits: Mapping[str, tuple[int, int]]
    held_back_ms: float | None
    protection: Throttling

    @classmethod
    def now(cls, pids: Iterable[int] = (), root: Path = ROOT) -> "Watch":
        """Read the counters; `pids` are the processes that count as own beside this one."""
        named = tuple(pids)
        busy_s, stolen_s, cores = _processor_seconds(root)
        waits = {thread: times for pid in named for thread, times in _waits(pid, root).items()}
        return cls(
            pids=named,
            root=root,
            moment_s=time.perf_counter(),
            cores=cores,
            busy_s=busy_s,
            stolen_s=stolen_s,
            own_s=_own_seconds(named, root),
            waits=waits,
            held_back_ms=held_back_ms(root),
            protection=throttling(root),
        )

    def since(self, pids: Iterable[int] = ()) -> Load:
        """What happened between then and now; `pids` are own processes that were started in between and still run."""
        end = Watch.now((*self.pids, *pids), self.root)
        seconds = end.moment_s - self.moment_s
        busy, stolen = _difference(self.busy_s, end.busy_s), _difference(self.stolen_s, end.stolen_s)
        own = _difference(self.own_s, end.own_s)
        capacity = seconds * end.cores if end.cores else None
        others = None if busy is None or own is None else max(0.0, busy - own)
        return Load(
            seconds=seconds,
            cores=end.cores,
            own_seconds=own,
            other_share=_share(others, capacity),
            steal_share=_share(stolen, capacity),
            waited_share=_waited_share(self.waits, end.waits),
            held_back_ms=_difference(self.held_back_ms, end.held_back_ms),
            throttling=end.protection.since(self.protection),
        )


def reasons(before: Mapping[str, Any], after: Mapping[str, Any], load: Load) -> tuple[str, ...]:
    """Why a measurement between two snapshots is not to be trusted, a sentence each; empty where nothing was seen."""
    return (*_reasons_of_load(load), *_reasons_of_heat(after), *_reasons_of_change(before, after))


def wait_until_quiet(limit: float = BUSY_LIMIT, seconds: float = 60.0, root: Path = ROOT) -> bool:
    """Wait until at most this share of the cores was in use for a second, and no longer than `seconds` in all.

    Returns:
        Whether it is quiet; False too where this system does not tell.
    """
    end = time.monotonic() + seconds
    while True:
        busy = busy_share(min(QUIET_SECONDS, max(0.1, end - time.monotonic())), root)
        if busy is None or busy <= limit:
            return busy is not None
        if time.monotonic() >= end:
            return False


# ---------------------------------------------------------------------------------------------- the reasons


def _reasons_of_load(load: Load) -> list[str]:
    shares = (
        ("other programs used {:.0%} of the processor during the run", load.other_share, BUSY_LIMIT),
        ("the hypervisor took {:.0%} of the processor away", load.steal_share, STEAL_LIMIT),
        ("it waited {:.0%} of its time for a free core", load.waited_share, WAITED_LIMIT),
        ("the container's quota stopped it for {:.0%} of the time", _held_back_share(load), HELD_BACK_LIMIT),
    )
    found = [
        f"{words.format(share)} (at most {limit:.0%} is steady)"
        for words, share, limit in shares
        if share is not None and share > limit
    ]
    return [*found, *(load.throttling or ())]


def _held_back_share(load: Load) -> float | None:
    """The threads' times are added up, so that it may be over 1."""
    return None if load.held_back_ms is None or load.seconds <= 0 else load.held_back_ms / 1e3 / load.seconds


def _reasons_of_heat(after: Mapping[str, Any]) -> list[str]:
    limits = _table(after.get("temperature_limits_c"))
    return [
        f"{name} is at {celsius:.0f} °C, and slows down or stops at {limits[name]:.0f} °C"
        for name, celsius in _table(after.get("temperatures_c")).items()
        if name in limits and celsius >= limits[name] - TEMPERATURE_MARGIN_C
    ]


def _table(value: Any) -> dict[str, float]:
    return value if isinstance(value, dict) else {}


def _reasons_of_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = []
    for key, what, unit in (
        ("frequency_mhz", "one busy core's clock", "MHz"),
        ("frequency_max_mhz", "the highest clock that is allowed", "MHz"),
        ("hash_mb_per_s", "the same small calculation", "MB/s"),
    ):
        old, new = before.get(key), after.get(key)
        if isinstance(old, int | float) and isinstance(new, int | float) and abs(new - old) > CHANGE_LIMIT * old:
            found.append(f"{what} {'fell' if new < old else 'rose'} from {old:.0f} to {new:.0f} {unit}")
    for key, what in (("governor", "governor"), ("power_source", "power source"), ("boost", "boost setting")):
        old, new = before.get(key, UNKNOWN), after.get(key, UNKNOWN)
        if old != new and UNKNOWN not in (old, new):
            found.append(f"the {what} changed from {old} to {new}")
    return found


# --------------------------------------------------------------------------------------------- the counters


def _processor_seconds(root: Path) -> tuple[float | None, float | None, int | None]:
    """(busy seconds, stolen seconds, how many cores) of the cores that this process may use, since the start."""
    if sys.platform != "linux":
        return _processor_by_psutil()  # cannot run on the machines that this was built on; tested with a fake
    allowed = listed(field(root / "proc/self/status", "Cpus_allowed_list") or "")
    rows = {row[0]: row[1:] for line in (read(root / "proc/stat") or "").splitlines() if (row := line.split())}
    ticks = [[int(part) for part in rows[f"cpu{core}"][:8]] for core in allowed if f"cpu{core}" in rows]
    if not ticks or any(len(row) < 8 for row in ticks):
        return None, None, None
    # user nice system idle iowait irq softirq steal; what guests of this machine use is in user already
    busy = sum(row[0] + row[1] + row[2] + row[5] + row[6] for row in ticks)
    return busy / _ticks_per_second(), sum(row[7] for row in ticks) / _ticks_per_second(), len(ticks)


def _own_seconds(pids: tuple[int, ...], root: Path) -> float | None:
    """Processor time of this process and the named ones, their waited children included.

    The sum is the same before and after a child was waited for: its time moves to its parent.
    """
    if sys.platform != "linux":
        return _own_by_psutil(pids)
    texts = [read(root / "proc" / name / "stat") for name in ("self", *map(str, dict.fromkeys(pids)))]
    if texts[0] is None:
        return None
    # The program's name, in brackets, may hold anything; the 12th to the 15th field after it are the times.
    fields = [text.rpartition(")")[2].split() for text in texts if text is not None]
    return sum(int(part) for row in fields for part in row[11:15]) / _ticks_per_second()


def _waits(pid: int, root: Path) -> dict[str, tuple[int, int]]:
    """Thread → (ns that it ran, ns that it was ready and waited for a core)."""
    found = {}
    for thread in (root / "proc" / str(pid) / "task").glob("*"):
        times = (read(thread / "schedstat") or "").split()
        if len(times) == 3:
            found[f"{pid}/{thread.name}"] = (int(times[0]), int(times[1]))
    return found


def _waited_share(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> float | None:
    """Over the threads that are there at the end; `None` where none of them did anything."""
    ran = sum(times[0] - before.get(thread, (0, 0))[0] for thread, times in after.items())
    waited = sum(times[1] - before.get(thread, (0, 0))[1] for thread, times in after.items())
    return waited / (ran + waited) if ran + waited > 0 else None


def _processor_by_psutil() -> tuple[float | None, float | None, int | None]:
    import psutil

    times = psutil.cpu_times()
    return sum(times) - times.idle, None, os.cpu_count()


def _own_by_psutil(pids: tuple[int, ...]) -> float | None:
    import psutil

    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    for pid in dict.fromkeys(pids):
        try:
            used = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        own += used.user + used.system
    return own


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(1.0, part / whole)


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
