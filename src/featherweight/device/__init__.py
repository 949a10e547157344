"""The machine: processor, instruction sets, cores; memory, energy, load and surroundings of what runs on it.

| module | reads |
|---|---|
| `environment` | everything that may change a measurement, as plain values, before and after |
| `load` | what others took of the processor in between, and whether the result can be trusted |
| `memory` | the peak memory of this process |
| `energy` `meters` `meter_csv` | millijoules, by a counter or a meter, with the name of the method |
| `gpu` | name, driver and memory through NVML |
| `sensors` `cgroup` `files` | clock, heat, power source; a container's limits; small system files |

Everything is read from the operating system's own files; what it does not tell is `None`, never a guess.
In scope: this machine. Not aware of: what runs. Imports errors and stats.
"""

import hashlib
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featherweight.device.cgroup import quota_cores
from featherweight.device.files import ROOT, read
from featherweight.device.memory import peak_memory_bytes, reset_peak_memory, resident_memory_bytes

__all__ = [
    "INSTRUCTIONS",
    "Device",
    "available_cores",
    "busy_share",
    "cache_directory",
    "peak_memory_bytes",
    "quota_cores",
    "reset_peak_memory",
    "resident_memory_bytes",
    "this_device",
]

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


def this_device(root: Path = ROOT) -> Device:
    """The machine that this process runs on; `root` is where its system files are."""
    fields = _cpuinfo(root)
    flags = (fields.get("flags") or fields.get("Features") or _letters(fields.get("isa", ""))).split()
    board = read(root / "proc/device-tree/model")
    name = board or fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return Device(
        name=name.strip("\x00 "),
        architecture=platform.machine(),
        system=platform.system(),
        cores=available_cores(),
        memory_bytes=_memory_bytes(),
        instructions=tuple(flag for flag in INSTRUCTIONS if flag in flags),
        governor=read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        virtual="hypervisor" in flags if "flags" in fields else None,
    )


def available_cores() -> int:
    """The cores that this process may run on: its affinity, which in a container can be less than the machine.

    A quota of processor time (`quota_cores`) takes no core away and does not count here.
    """
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy_share(seconds: float = 0.2, root: Path = ROOT) -> float | None:
    """The share of all cores that is in use over a short window (0–1); `None` where it cannot be read."""
    before = _cpu_ticks(root)
    time.sleep(seconds)
    after = _cpu_ticks(root)
    if before is None or after is None or after[1] <= before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/featherweight`, by default `~/.cache/featherweight`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featherweight"


def _cpu_ticks(root: Path) -> tuple[int, int] | None:
    """(idle, all) processor ticks since boot."""
    text = read(root / "proc/stat")
    if text is None:
        return None
    ticks = [int(part) for part in text.splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo, and the board's lines at its end."""
    fields: dict[str, str] = {}
    for line in (read(root / "proc/cpuinfo") or "").splitlines():
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
