"""Clock, heat and power source, as Linux tells them under /sys; off Linux only what psutil tells honestly.

Paths under /sys that exist on laptops, servers and small boards but not in most virtual machines; the tests feed
recorded trees of each kind.
Imports nothing of the package but files.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from featherweight.device.files import ROOT, number, read

CPU = Path("sys/devices/system/cpu")
THERMAL = Path("sys/class/thermal")
SUPPLIES = Path("sys/class/power_supply")
PROBE_SECONDS = 0.05
PROBE_BYTES = 65_536
# Sensors of a PC's processor; small boards show theirs as thermal zones.
PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower")
TRIPS = ("passive", "hot", "critical")
# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled; 16 bits higher: since the start.
FIRMWARE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")


# ------------------------------------------------------------------------------------------------- the clock


@dataclass(frozen=True)
class Clock:
    """How fast the cores may run and do run; MHz."""

    governor: str | None
    min_mhz: float | None
    max_mhz: float | None
    hardware_max_mhz: float | None
    boost: bool | None


def clock(cores: Iterable[int], root: Path = ROOT) -> Clock:
    """The settings of these cores: every governor that is in use, and the means of their limits."""
    folders = [root / CPU / f"cpu{core}" / "cpufreq" for core in cores]
    governors = {text for folder in folders if (text := read(folder / "scaling_governor")) is not None}
    return Clock(
        ", ".join(sorted(governors)) or None,
        _mean_mhz(folder / "scaling_min_freq" for folder in folders),
        _mean_mhz(folder / "scaling_max_freq" for folder in folders),
        _mean_mhz(folder / "cpuinfo_max_freq" for folder in folders),
        _boost(root),
    )


def probe_speed(seconds: float = PROBE_SECONDS, root: Path = ROOT) -> tuple[float, float | None]:
    """(SHA-256 of one core in MB/s, its clock in MHz while it computes).

    An idle core clocks down, so that its frequency says nothing; here one core is kept busy, and always the same one
    (the last that this process may use: on boards with two kinds of cores a big one). The best of thousands of blocks
    counts, so that other programs do not show but the clock does: repeated it stays within 2 %, also in virtual
    machines, which tell no clock at all.
    """
    allowed = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    core = max(allowed, default=0)
    if sys.platform == "linux":
        os.sched_setaffinity(0, {core})  # of this thread only
    try:
        best_s = _best_block_s(seconds)
        mhz = _mean_mhz([root / CPU / f"cpu{core}" / "cpufreq" / "scaling_cur_freq"])
    finally:
        if sys.platform == "linux":
            os.sched_setaffinity(0, allowed)
    return PROBE_BYTES / best_s / 1e6, mhz


def _best_block_s(seconds: float) -> float:
    block, best = bytes(PROBE_BYTES), float("inf")
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or best == float("inf"):
        hashlib.sha256(block)
        best = min(best, time.perf_counter() - start)
    return best


def _boost(root: Path) -> bool | None:
    no_turbo = number(root / CPU / "intel_pstate" / "no_turbo")
    boost = number(root / CPU / "cpufreq" / "boost") if no_turbo is None else 1 - no_turbo
    return None if boost is None else bool(boost)


def _mean_mhz(paths: Iterable[Path]) -> float | None:
    found = [khz / 1e3 for path in paths if (khz := number(path)) is not None]
    return round(fmean(found), 1) if found else None


# -------------------------------------------------------------------------------------------------- the heat


def temperatures(root: Path = ROOT) -> dict[str, tuple[float, float | None]]:
    """Sensor → (°C, the °C from which the system slows down or stops; `None` where it does not say)."""
    found: dict[str, tuple[float, float | None]] = {}
    for zone in sorted((root / THERMAL).glob("thermal_zone*")):
        trips = [
            number(zone / trip.name.replace("_type", "_temp"))
            for trip in zone.glob("trip_point_*_type")
            if read(trip) in TRIPS
        ]
        _add(found, read(zone / "type") or zone.name, number(zone / "temp"), trips)
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = read(chip / "name")
        for sensor in sorted(chip.glob("temp*_input")) if name in PROCESSOR_SENSORS else ():
            label = read(chip / sensor.name.replace("_input", "_label")) or sensor.name
            if not label.startswith("Core "):  # the package is as warm as its warmest core
                limit = number(chip / sensor.name.replace("_input", "_crit"))
                _add(found, f"{name} {label}", number(sensor), [limit])
    return found


def _add(
    found: dict[str, tuple[float, float | None]], name: str, millidegrees: int | None, limits: Sequence[int | None]
) -> None:
    """One more sensor; a limit of 0 or below is a driver's way of having none."""
    if millidegrees is None:
        return
    limit = min((limit for limit in limits if limit is not None and limit > 0), default=None)
    unique = name if name not in found else f"{name} #{sum(known.startswith(name) for known in found) + 1}"
    found[unique] = (millidegrees / 1e3, None if limit is None else limit / 1e3)


@dataclass(frozen=True)
class Throttling:
    """What the processor's own protection has done; each `None` where it is not told."""

    counts: dict[str, int] | None  # since the start: "core" of all cores together, "package"
    cooling: dict[str, int] | None  # steps that are taken now, by cooling device: 0 is none
    firmware: int | None  # a Raspberry Pi's bits

    def since(self, before: "Throttling") -> tuple[str, ...] | None:
        """What happened since then, or holds now, in words; `None` where nothing is told."""
        if self.counts is None and self.cooling is None and self.firmware is None:
            return None
        old = before.counts or {}
        found = [
            f"the {name}'s throttle count rose by {count - old[name]}"
            for name, count in (self.counts or {}).items()
            if count > old.get(name, count)
        ]
        found += [f"{name} is slowed down by {step} steps" for name, step in (self.cooling or {}).items() if step > 0]
        now = (self.firmware or 0) & 0xF
        fresh = ((self.firmware or 0) & ~(before.firmware or 0)) >> 16 & 0xF
        named = [words for bit, words in enumerate(FIRMWARE_BITS) if (now | fresh) >> bit & 1]
        return (*found, *(f"the board reports: {words}" for words in named))


def throttling(root: Path = ROOT) -> Throttling:
    """The counts and states as they are now."""
    bits = next((read(path) for path in (root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")), None)
    return Throttling(_throttle_counts(root), _cooling(root), _hexadecimal(bits))


def _throttle_counts(root: Path) -> dict[str, int] | None:
    """Each core counts for itself; a package's count is shown again by each of its cores."""
    cores, packages = [], {}
    for folder in (root / CPU).glob("cpu[0-9]*"):
        core = number(folder / "thermal_throttle/core_throttle_count")
        package = number(folder / "thermal_throttle/package_throttle_count")
        if core is not None:
            cores.append(core)
        if package is not None:
            packages[number(folder / "topology/physical_package_id")] = package
    counts = {**({"core": sum(cores)} if cores else {}), **({"package": sum(packages.values())} if packages else {})}
    return counts or None


def _cooling(root: Path) -> dict[str, int] | None:
    found = {}
    for device in sorted((root / THERMAL).glob("cooling_device*")):
        kind, step = read(device / "type") or "", number(device / "cur_state")
        if ("cpufreq" in kind or kind == "Processor") and step is not None:
            found[f"{kind} ({device.name})"] = step
    return found or None


def _hexadecimal(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------- the power source


def power_source(root: Path = ROOT) -> str | None:
    """`mains` or `battery`; `None` where it is not told, as on most machines without a battery."""
    if sys.platform != "linux":
        return _power_by_psutil()  # cannot run on the machines that this was built on; tested with a fake
    supplies = list((root / SUPPLIES).glob("*"))
    if any(read(battery / "status") == "Discharging" for battery in batteries(root)):
        return "battery"
    online = [number(supply / "online") for supply in supplies if read(supply / "type") in ("Mains", "USB")]
    return "mains" if batteries(root) or 1 in online else None


def batteries(root: Path = ROOT) -> list[Path]:
    """The batteries that the machine itself runs on, and not those of its mouse."""
    found = sorted((root / SUPPLIES).glob("*"))
    return [path for path in found if read(path / "type") == "Battery" and read(path / "scope") != "Device"]


def _power_by_psutil() -> str | None:
    import psutil

    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged is None:
        return None
    return "mains" if battery.power_plugged else "battery"
