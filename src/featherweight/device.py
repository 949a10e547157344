"""The machine: processor, instruction sets, cores, memory, governor, load; peak memory and energy of this process.

Everything is read from the operating system's own files; what it does not tell is `None`, never a guess.
Imports nothing of the package.
"""

import hashlib
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Only what decides how fast a convolution runs.
INSTRUCTIONS = [
    "sse4_1",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "v",
]

RAPL = Path("/sys/class/powercap/intel-rapl:0")


@dataclass(frozen=True)
class Device:
    """One machine, as far as it can be told apart from another."""

    name: str
    architecture: str
    system: str
    cores: int
    memory_bytes: int | None
    instructions: tuple[str, ...]
    governor: str | None
    virtual: bool | None

    @property
    def id(self) -> str:
        """12 hex digits; the same for the same kind of machine (memory counts in whole GiB)."""
        memory = None if self.memory_bytes is None else round(self.memory_bytes / 2**30)
        parts = (self.name, self.architecture, self.system, self.cores, memory, self.instructions)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {**asdict(self), "instructions": list(self.instructions)}


def this_device() -> Device:
    """The machine that this process runs on."""
    fields = _cpuinfo()
    flags = (fields.get("flags") or fields.get("Features") or _letters(fields.get("isa", ""))).split()
    board = _read(Path("/proc/device-tree/model"))
    name = board or fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return Device(
        name=name.strip("\x00 "),
        architecture=platform.machine(),
        system=platform.system(),
        cores=available_cores(),
        memory_bytes=_memory_bytes(),
        instructions=tuple(flag for flag in INSTRUCTIONS if flag in flags),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        virtual="hypervisor" in flags if "flags" in fields else None,
    )


def available_cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_per_core() -> float | None:
    """The load average of the last minute by core; `None` where the system keeps none."""
    try:
        return os.getloadavg()[0] / available_cores()
    except (OSError, AttributeError):
        return None


def reset_peak_memory() -> bool:
    """Let the kernel count this process' peak memory anew; False where it cannot.

    `ru_maxrss` would not do: a child inherits its parent's peak.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes() -> int | None:
    """`VmHWM`, the most memory resident since the last reset."""
    return _status_bytes("VmHWM")


def resident_memory_bytes() -> int | None:
    """`VmRSS`, the memory resident now."""
    return _status_bytes("VmRSS")


class EnergyMeter:
    """Energy of the whole processor package from Intel's or AMD's RAPL counter, in millijoules.

    The counter is read before and after; a wrap-around is put right. `missing` says why there is no meter.
    """

    def __init__(self, rapl: Path = RAPL):
        self._counter = rapl / "energy_uj"
        self._range_uj = _number(rapl / "max_energy_range_uj")
        self._start_uj: int | None = None
        self.missing: str | None = None
        if not self._counter.exists():
            self.missing = "not available: no RAPL counter and no power meter on this machine"
        elif _number(self._counter) is None:
            self.missing = "not available: the RAPL counter is readable by root only (grant a group by a udev rule)"

    def start(self) -> None:
        """Remember the counter."""
        self._start_uj = _number(self._counter)

    def used_mj(self) -> float | None:
        """Millijoules since `start`; `None` without a meter."""
        now_uj = _number(self._counter)
        if now_uj is None or self._start_uj is None:
            return None
        used_uj = now_uj - self._start_uj
        if used_uj < 0:
            used_uj += self._range_uj or 0
        return used_uj / 1e3 if used_uj >= 0 else None


def busy_share(seconds: float = 0.2) -> float | None:
    """The share of all cores that is in use over a short window (0–1); `None` where it cannot be read."""
    before = _cpu_ticks()
    time.sleep(seconds)
    after = _cpu_ticks()
    if before is None or after is None or after[1] == before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def _cpu_ticks() -> tuple[int, int] | None:
    """(idle, all) processor ticks since boot."""
    text = _read(Path("/proc/stat"))
    if text is None:
        return None
    ticks = [int(part) for part in text.splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo, and the board's lines at its end."""
    fields: dict[str, str] = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _letters(isa: str) -> str:
    """RISC-V's one-letter extensions, apart: `rv64imafdcv_zicsr` → `i m a f d c v`."""
    return " ".join(isa.partition("_")[0].lower().removeprefix("rv64").removeprefix("rv32"))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _status_bytes(key: str) -> int | None:
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.strip().isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/featherweight`, by default `~/.cache/featherweight`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featherweight"
