"""The peak memory of this process: what is done between two moments, in all and above what was there before.

The kernel keeps the most memory that was ever resident (`VmHWM`) and forgets it on demand, so that nothing between two
samples of a poll is missed. `ru_maxrss` would not do: a child inherits its parent's peak through fork and exec.

How exact: each processor counts for itself and passes its count on in batches, so that `VmHWM` may be off by some
128 KiB for each core that the process ran on (much more on machines with hundreds of cores; kernel commit
f1a7941243c1). `smaps_rollup` walks the pages and is exact; the baseline is taken from it, and so is the peak where the
peak is still resident when it is read. Memory that was swapped out is not resident: `Peak.swapped_bytes` tells.
Imports nothing of the package but files.
"""

import ctypes
import gc
import sys
from dataclasses import dataclass
from pathlib import Path

from featherweight.device.files import ROOT, field

NO_PEAK = "this system keeps no peak that can be counted anew (/proc/self/clear_refs)"


@dataclass(frozen=True)
class Peak:
    """The most memory resident at once, in bytes."""

    total_bytes: int
    baseline_bytes: int
    swapped_bytes: int

    @property
    def above_bytes(self) -> int:
        """What came on top of the baseline."""
        return max(0, self.total_bytes - self.baseline_bytes)


@dataclass(frozen=True)
class PeakWatch:
    """Counts from `watch_peak` on, or from `again` on; `past_bytes` is the peak of what was watched before."""

    baseline_bytes: int
    past_bytes: int = 0

    def read(self) -> Peak:
        """The peak until now."""
        return Peak(self._highest(), self.baseline_bytes, _status_bytes("VmSwap") or 0)

    def again(self, counted: bool = True) -> "PeakWatch":
        """Go on above the same baseline; what came since the last start counts, or is left out."""
        past = self._highest() if counted else self.past_bytes
        reset_peak_memory()
        return PeakWatch(self.baseline_bytes, past)

    def _highest(self) -> int:
        return max(self.past_bytes, peak_memory_bytes() or 0, exact_resident_bytes() or 0)


def watch_peak() -> PeakWatch | None:
    """Take the memory that is resident now for the baseline, and count from here; `None` where `NO_PEAK` holds."""
    give_back_free_memory()
    baseline = exact_resident_bytes()
    if baseline is None or not reset_peak_memory():
        return None
    return PeakWatch(baseline)


def give_back_free_memory() -> None:
    """Collect garbage and hand the free part of the heap back to the kernel, where the C library can.

    Freed memory stays resident. Without this it would count into the baseline, and what is allocated next would be
    served from it and be seen as nothing: a model could hide in the heap that importing its library has left behind.
    """
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):  # musl has none
            return


def reset_peak_memory() -> bool:
    """Let the kernel count this process' peak memory anew; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes(root: Path = ROOT) -> int | None:
    """`VmHWM`, the most memory resident since the last reset."""
    return _status_bytes("VmHWM", root)


def resident_memory_bytes(root: Path = ROOT) -> int | None:
    """`VmRSS`, the memory resident now, as the kernel's quick counters have it."""
    return _status_bytes("VmRSS", root)


def exact_resident_bytes(root: Path = ROOT) -> int | None:
    """The memory resident now, page by page (a few milliseconds for each GiB); `VmRSS` where this is not offered."""
    exact = _kib(field(root / "proc/self/smaps_rollup", "Rss"))
    return resident_memory_bytes(root) if exact is None else exact


def _status_bytes(key: str, root: Path = ROOT) -> int | None:
    return _kib(field(root / "proc/self/status", key))


def _kib(text: str | None) -> int | None:
    """`123 kB` → bytes: the kernel writes kB and means KiB."""
    return None if text is None else int(text.split()[0]) * 1024
