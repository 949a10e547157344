"""What a container allows: processor time, memory, and how long it held this process back. Linux, both versions.

A limit of a group above holds below too, so that the least of all levels counts.
Imports nothing of the package but files.
"""

from collections.abc import Iterator
from pathlib import Path

from featherweight.device.files import ROOT, field, number, read

# Version 1 writes "no limit" as a number of bytes that no machine has.
NO_LIMIT_BYTES = 2**62


def quota_cores(root: Path = ROOT) -> float | None:
    """The processor time that the container may use, in cores: 1.5 is one and a half; `None` without a limit.

    More threads than that are allowed, and are stopped together when the share of a period is used up.
    """
    shares = [share for folder in _folders("cpu", root) if (share := _quota(folder)) is not None]
    return min(shares, default=None)


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The memory that the container may use; `None` without a limit."""
    found = []
    for folder in _folders("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = number(folder / name)
            if limit is not None and limit < NO_LIMIT_BYTES:
                found.append(limit)
    return min(found, default=None)


def held_back_ms(root: Path = ROOT) -> float | None:
    """How long the quota has stopped the group's threads since the group was made; `None` where nothing is counted."""
    found = []
    for folder in _folders("cpu", root):
        microseconds = field(folder / "cpu.stat", "throttled_usec")
        nanoseconds = field(folder / "cpu.stat", "throttled_time")
        if microseconds is not None:
            found.append(int(microseconds) / 1e3)
        elif nanoseconds is not None:
            found.append(int(nanoseconds) / 1e6)
    return sum(found) if found else None


def are_told(root: Path = ROOT) -> bool:
    """Whether this system tells its groups, so that no limit found means that none is set."""
    return any(True for _ in _folders("cpu", root)) or any(True for _ in _folders("memory", root))


def _quota(folder: Path) -> float | None:
    """One level's quota in cores."""
    quota, _, period = (read(folder / "cpu.max") or "").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    old, length = number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")
    return old / length if old is not None and length and old > 0 else None


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process' group and of all above it, as far as they can be seen from here."""
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        names, _, path = line.partition(":")[2].partition(":")
        if names == "":
            mounts = ["", "unified"]
        elif controller in names.split(","):
            mounts = [names, controller]
        else:
            continue
        seen = [root / "sys/fs/cgroup" / mount for mount in mounts]
        mount = next((folder for folder in seen if _is_group(folder)), None)
        if mount is not None:
            # A container sees its own group as the mount's root, whatever the path says.
            parts = [part for part in path.split("/") if part not in ("", ".", "..")]
            levels = (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))
            yield from (level for level in levels if _is_group(level))


def _is_group(folder: Path) -> bool:
    return (folder / "cgroup.procs").exists()
