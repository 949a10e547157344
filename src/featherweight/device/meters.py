"""Meters behind one small protocol: `read` is quick and goes at the edges of a window, `used_mj` works out the rest.

- RAPL, the processor's own counter: the package domain of every package. The domains core, uncore and dram lie within
  it and psys around it, so that they are never added. It leaves out memory chips, disks, board and power supply.
- NVML, the GPU's own counter: the board of the GPU that computes.
- The battery's gauge, while it discharges: the whole device with its screen, in coarse steps; hence an estimate.
- A meter of the user's: `meter_csv`.

RAPL, NVML and batteries cannot run on the machines that this was built on: the tests feed recorded trees and a
stand-in for the module `pynvml`.
Imports errors and files, gpu, sensors and meter_csv of this folder.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from featherweight.device.files import ROOT, number, read
from featherweight.device.gpu import NoGpu, nvml
from featherweight.device.meter_csv import CsvMeter
from featherweight.device.sensors import batteries
from featherweight.errors import MeasureError

# What a meter shows at one moment; empty where it could not be read.
Reading = tuple[float, ...]
Span = tuple[Reading, Reading]

POWERCAP = Path("sys/class/powercap")
# 1 µWh is 3.6 mJ.
MJ_PER_UWH = 3.6
# Not for everybody: fine readings of the counter give away what other programs compute (CVE-2020-8694).
RAPL_ADVICE = (
    "the RAPL counter is readable by root only; make a group rapl, join it, and add the udev rule "
    'SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", ACTION=="add", '
    "RUN+=\"/bin/sh -c 'chgrp rapl /sys%p/energy_uj && chmod 0440 /sys%p/energy_uj'\""
)


class Meter(Protocol):
    """Something that tells energy."""

    @property
    def label(self) -> str:
        """The method, as a record names it."""

    @property
    def scope(self) -> str:
        """What the energy is that of, in words."""

    def read(self) -> Reading:
        """What it shows now; empty where it cannot be read."""

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        """Millijoules of each span between two readings.

        Raises:
            MeasureError: what it shows does not carry an answer, with the cause.
        """


@dataclass(frozen=True)
class NoMeter:
    """There is none, and why."""

    cause: str
    scope: str = "nothing"

    @property
    def label(self) -> str:
        """`not available: <cause>`."""
        return f"not available: {self.cause}"

    def read(self) -> Reading:
        """Nothing."""
        return ()

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        """Nothing.

        Raises:
            MeasureError: always.
        """
        raise MeasureError(self.cause)


@dataclass(frozen=True)
class LaterMeter:
    """A meter runs beside and its file is handed in afterwards: the windows are run and their edges are kept."""

    label: str = "not available: the meter's file is still to be handed in"
    scope: str = "nothing"

    def read(self) -> Reading:
        """The moment."""
        return (time.time(),)

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        """Not known yet.

        Raises:
            MeasureError: always.
        """
        raise MeasureError(self.label.removeprefix("not available: "))


@dataclass(frozen=True)
class Rapl:
    """The package domains' counters, in µJ; each starts anew at its own range."""

    domains: tuple[Path, ...]
    label: str = "measured:rapl-package"
    scope: str = "the processor package alone, without memory chips, disk, board and power supply"

    def read(self) -> Reading:
        """µJ of each package."""
        return _all(number(domain / "energy_uj") for domain in self.domains)

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        """The sum over the packages; a window shorter than a turn of the counter (minutes) is told rightly.

        Raises:
            MeasureError: a counter could not be read, or turned over and does not say where.
        """
        ranges = [number(domain / "max_energy_range_uj") for domain in self.domains]
        return [sum(map(_turned, *_both(span), ranges)) / 1e3 for span in spans]


def _turned(start_uj: float, end_uj: float, range_uj: int | None) -> float:
    if end_uj >= start_uj:
        return end_uj - start_uj
    if range_uj is None or end_uj + range_uj < start_uj:
        raise MeasureError("the RAPL counter turned over and does not say at which number")
    return end_uj + range_uj - start_uj


@dataclass(frozen=True)
class Nvml:
    """The energy counter of one GPU, in mJ since its driver was loaded (Volta and newer)."""

    index: int
    label: str = "measured:nvml"
    scope: str = "the GPU's board alone, without processor and power supply"

    def read(self) -> Reading:
        """The counter, in mJ."""
        try:
            with nvml() as module:
                return (module.nvmlDeviceGetTotalEnergyConsumption(module.nvmlDeviceGetHandleByIndex(self.index)),)
        except NoGpu:
            return ()

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        """The difference.

        Raises:
            MeasureError: the counter could not be read, or the driver was loaded anew in between.
        """
        used = [end[0] - start[0] for start, end in map(_both, spans)]
        if min(used, default=0.0) < 0:
            raise MeasureError("the GPU's driver was loaded anew while it was measured")
        return used


@dataclass(frozen=True)
class Battery:
    """What is left in the batteries while they discharge: µWh, or µAh and µV, of each."""

    folders: tuple[Path, ...]
    label: str = "estimated:battery"
    scope: str = "the whole device with its screen, by the battery's own coarse gauge"

    def read(self) -> Reading:
        """(left, volts) of each; the volts are 1 where the gauge shows energy itself."""
        if not any(_discharging(folder) for folder in self.folders):
            return ()
        pairs = [_left(folder) for folder in self.folders]
        return () if None in pairs else tuple(value for pair in pairs if pair is not None for value in pair)

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        """What is gone, at the mean of the two voltages.

        Raises:
            MeasureError: mains came on, or the gauge did not move within a window.
        """
        used = []
        for start, end in map(_both, spans):
            pairs = zip(start[::2], start[1::2], end[::2], end[1::2], strict=True)
            used.append(sum((a - b) * (volts + later) / 2 * MJ_PER_UWH for a, volts, b, later in pairs))
        if min(used, default=0.0) <= 0:
            raise MeasureError("the battery's gauge did not move within a window; take windows of minutes")
        return used


def _discharging(folder: Path) -> bool:
    return read(folder / "status") == "Discharging"


def _left(folder: Path) -> tuple[float, float] | None:
    energy = number(folder / "energy_now")
    if energy is not None:
        return float(energy), 1.0
    charge, microvolts = number(folder / "charge_now"), number(folder / "voltage_now")
    return None if charge is None or microvolts is None else (float(charge), microvolts / 1e6)


def find_meter(csv: str | Path | None = None, gpu: int | None = None, root: Path = ROOT) -> Meter:
    """The best meter for the work.

    Args:
        csv: the file of the user's own meter, which wins; it is read again when the windows are over.
        gpu: the number of the GPU that computes; `None`: the processor computes.
        root: where the system files are.

    Raises:
        SettingError: the file is not that of a meter.
    """
    if csv is not None:
        return CsvMeter.checked(Path(csv))
    if gpu is not None:
        return _nvml_meter(gpu)
    rapl = _rapl_meter(root)
    if isinstance(rapl, NoMeter) and any(_discharging(folder) for folder in batteries(root)):
        battery = Battery(tuple(batteries(root)))
        return battery if battery.read() else rapl
    return rapl


def _rapl_meter(root: Path) -> Meter:
    """`intel-rapl:0` is a package, `intel-rapl:0:0` lies within it; `intel-rapl-mmio:0` shows a package once more."""
    zones = [zone for zone in sorted((root / POWERCAP).glob("intel-rapl:*")) if zone.name.count(":") == 1]
    packages = tuple(zone for zone in zones if (read(zone / "name") or "").startswith("package"))
    if not packages:
        return NoMeter("no RAPL counter, no battery in use and no power meter on this machine")
    if any(number(package / "energy_uj") is None for package in packages):
        return NoMeter(RAPL_ADVICE)
    return Rapl(packages)


def _nvml_meter(index: int) -> Meter:
    try:
        with nvml() as module:
            module.nvmlDeviceGetTotalEnergyConsumption(module.nvmlDeviceGetHandleByIndex(index))
    except NoGpu as reason:
        return NoMeter(str(reason))
    return Nvml(index)


def _all(values: Iterable[int | None]) -> Reading:
    """All of them, or nothing."""
    found = tuple(values)
    return () if None in found else tuple(float(value) for value in found if value is not None)


def _both(span: Span) -> Span:
    """The two readings.

    Raises:
        MeasureError: one of them is missing.
    """
    start, end = span
    if not start or len(start) != len(end):
        raise MeasureError("the counter could not be read at both ends of a window")
    return span
