"""What surrounds a measurement and may change it, as plain values for a record: taken once before and once after.

`unknown` stands wherever the system does not tell; `none` means that it tells that there is none, as with limits.
Imports the rest of this folder.
"""

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from featherweight.device import busy_share, this_device
from featherweight.device.cgroup import are_told, memory_limit_bytes, quota_cores
from featherweight.device.files import ROOT, field, listed, read
from featherweight.device.gpu import gpus
from featherweight.device.sensors import clock, power_source, probe_speed, temperatures, throttling

UNKNOWN = "unknown"
NONE = "none"
BUSY_SECONDS = 0.2
# What control groups are named after where a container runs in them.
CONTAINER = re.compile(r"docker|kubepods|containerd|libpod|lxc|garden|buildkit")
# Maker and product, as /sys/class/dmi/id has them, of machines that are made of software.
HYPERVISOR = re.compile(
    r"^(QEMU|VMware|Xen|innotek|Parallels|OpenStack)|Virtual Machine|Virtualization|Compute Engine"
    r"|^Amazon EC2 (?!.*metal)"
)


def snapshot(root: Path = ROOT, seconds: float = BUSY_SECONDS) -> dict[str, Any]:
    """The machine now; takes about a quarter of a second. `root` is where its system files are.

    Returns:
        Plain values for JSON; what is not told is "unknown". Shares are 0–1, `_mhz` of the cores that this process may
        use, `frequency_mhz` and `hash_mb_per_s` of one core while it computes (`sensors.probe_speed`).
    """
    # What cools down within milliseconds comes first, and what itself computes comes last.
    heat, power = temperatures(root), power_source(root)
    protection = throttling(root)
    load = _load_average(root)
    busy = busy_share(seconds, root)
    speed, mhz = probe_speed(root=root)
    device = this_device(root)
    cores = _affinity(root)
    settings = clock(cores or (), root)
    values = {
        "processor": device.name,
        "instructions": list(device.instructions),
        "cores": device.cores,
        "cores_online": _cores_online(root),
        "affinity": None if cores is None else list(cores),
        "governor": settings.governor,
        "frequency_min_mhz": settings.min_mhz,
        "frequency_max_mhz": settings.max_mhz,
        "frequency_hardware_max_mhz": settings.hardware_max_mhz,
        "frequency_mhz": mhz,
        "hash_mb_per_s": round(speed, 1),
        "boost": settings.boost,
        "temperatures_c": {name: celsius for name, (celsius, _) in heat.items()},
        "temperature_limits_c": {name: limit for name, (_, limit) in heat.items() if limit is not None},
        "throttle_counts": protection.counts,
        "cooling_steps": protection.cooling,
        "firmware_throttling": None if protection.firmware is None else hex(protection.firmware),
        "load_average": load,
        "busy_share": None if busy is None else round(busy, 4),
        "quota_cores": _limit(quota_cores(root), root),
        "memory_limit_bytes": _limit(memory_limit_bytes(root), root),
        "memory_bytes": device.memory_bytes,
        "memory_available_bytes": _available_bytes(root),
        "container": _container(root),
        "virtual_machine": _virtual_machine(root, device.virtual),
        "power_source": power,
        "clocksource": read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "kernel": f"{device.system} {read(root / 'proc/sys/kernel/osrelease') or platform.release()}",
        "gpus": gpus()[0],
    }
    return {name: _told(value) for name, value in values.items()}


def _told(value: Any) -> Any:
    """Zero and false are answers; nothing at all is none."""
    return UNKNOWN if value is None or value in ("", [], {}) else value


def _limit(value: float | None, root: Path) -> float | str | None:
    return NONE if value is None and are_told(root) else value


def _affinity(root: Path) -> tuple[int, ...] | None:
    allowed = field(root / "proc/self/status", "Cpus_allowed_list")
    return None if allowed is None else listed(allowed)


def _cores_online(root: Path) -> int | None:
    if sys.platform != "linux":
        return os.cpu_count()
    online = read(root / "sys/devices/system/cpu/online")
    return None if online is None else len(listed(online))


def _load_average(root: Path) -> list[float] | None:
    """Of the last 1, 5 and 15 minutes."""
    text = read(root / "proc/loadavg")
    if text is not None:
        return [float(part) for part in text.split()[:3]]
    try:
        return list(os.getloadavg()) if sys.platform == "darwin" else None
    except OSError:
        return None


def _available_bytes(root: Path) -> int | None:
    text = field(root / "proc/meminfo", "MemAvailable")
    return None if text is None else int(text.split()[0]) * 1024


def _container(root: Path) -> str | None:
    """The container's kind; `none` only where the first process is seen to live in the machine's own group."""
    named = read(root / "run/systemd/container")
    if named is not None:
        return named
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = read(root / "proc/1/cgroup") or ""
    marked = CONTAINER.search(groups)
    if marked is not None:
        return marked[0]
    return NONE if re.search(r":/init\.scope$", groups, re.MULTILINE) else None


def _virtual_machine(root: Path, flagged: bool | None) -> str | None:
    """`yes`, with the maker's name where it is told, or `no`. The processor's own flag decides where there is one."""
    if "microsoft" in (read(root / "proc/sys/kernel/osrelease") or "").lower():
        return "yes: WSL"
    identity = root / "sys/class/dmi/id"
    named = f"{read(identity / 'sys_vendor') or ''} {read(identity / 'product_name') or ''}".strip()
    known = HYPERVISOR.search(named) is not None
    if flagged or (flagged is None and known):
        return f"yes: {named}" if known else "yes"
    if flagged is None and (root / "proc/device-tree/hypervisor").exists():
        return "yes"
    return None if flagged is None else "no"
