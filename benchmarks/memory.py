"""Is the peak memory that we report the memory that was touched? Fresh children that touch an exact amount.

The parent first makes itself 300 MB large. Each child imports what a measuring child does, starts the watch, touches
64, 256 or 1,024 MiB, gives them back, and only then reads the peak. Ten children for each amount, in a random order.
Beside it stands what others report: `ru_maxrss`, which a child inherits from its parent, and the resident memory at
the end, which has forgotten the peak; both in all, as they know no baseline.

A second table shows why the free heap is given back to the kernel before the watch starts: each child first allocates
and frees 64 MiB in small pieces, as an import does, and then allocates 64 MiB in pieces of the same size.

The aim: within 2 % or 2 MiB of what was touched, 30 of 30.

    python benchmarks/memory.py --json result.json
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SIZES_MIB = (64, 256, 1024)
PARENT_BYTES = 300_000_000
AIM_SHARE, AIM_BYTES = 0.02, 2 * 2**20
MIB = 2**20

CHILD = """
import ctypes, json, mmap, resource, sys
import numpy
from featherweight.device import memory
kind, touched, trim = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"

class Heap:
    # 4 KiB each, straight from the C library; what is freed last keeps the heap's end in use.
    def __init__(self, size):
        self.library = ctypes.CDLL(None)
        self.library.malloc.restype = ctypes.c_void_p
        self.pieces = [self.library.malloc(4080) for _ in range(size // 4096)]
        for piece in self.pieces:
            ctypes.memset(piece, 1, 4080)
    def free(self, keep=0):
        for piece in self.pieces[:len(self.pieces) - keep]:
            self.library.free(ctypes.c_void_p(piece))

if kind == "heap":
    left_behind = Heap(touched)
    left_behind.free(keep=1)
if not trim:
    memory.give_back_free_memory = lambda: None
watch = memory.watch_peak()
if watch is None:
    raise SystemExit(memory.NO_PEAK)
if kind == "heap":
    block = Heap(touched)
    block.free()
else:
    block = mmap.mmap(-1, touched)
    for page in range(0, touched, mmap.PAGESIZE):
        block[page] = 1
    block.close()
peak = watch.read()
print(json.dumps({
    "above": peak.above_bytes,
    "total": peak.total_bytes,
    "maxrss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "resident": memory.resident_memory_bytes(),
}))
"""


@dataclass(frozen=True)
class Child:
    """What one child touched and reported, in bytes."""

    kind: str
    trimmed: bool
    touched: int
    above: int
    total: int
    maxrss: int
    resident: int

    @property
    def right(self) -> bool:
        """Whether the aim is reached."""
        return abs(self.above - self.touched) <= max(AIM_SHARE * self.touched, AIM_BYTES)


def run_child(kind: str, touched: int, trimmed: bool) -> Child:
    command = [sys.executable, "-c", CHILD, kind, str(touched), str(trimmed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"a child failed: {done.stderr.strip().splitlines()[-1]}")
    return Child(kind, trimmed, touched, **json.loads(done.stdout))


def row(label: str, some: Sequence[Child]) -> str:
    errors = [(child.above - child.touched) / MIB for child in some]
    maxrss, resident, total = (
        sum(values) / len(some) / MIB
        for values in ([c.maxrss for c in some], [c.resident for c in some], [c.total for c in some])
    )
    right = sum(child.right for child in some)
    return (
        f"{label:26} {right:>3} of {len(some)}   {min(errors):+9.2f} to {max(errors):+.2f} MiB"
        f"   total {total:7.1f}   ru_maxrss {maxrss:7.1f}   resident at the end {resident:6.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=10, help="for each amount")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ballast = bytearray(os.urandom(1)) * PARENT_BYTES
    order = [("pages", size * MIB, True) for size in SIZES_MIB for _ in range(args.children)]
    order += [("heap", SIZES_MIB[0] * MIB, trimmed) for trimmed in (True, False) for _ in range(args.children)]
    random.Random(0).shuffle(order)
    children = [run_child(*one) for one in order]
    print(
        f"parent: {len(ballast) / MIB:.0f} MiB; errors are least and most of what is reported less what was touched\n"
    )
    pages = [child for child in children if child.kind == "pages"]
    for size in SIZES_MIB:
        print(row(f"{size} MiB", [child for child in pages if child.touched == size * MIB]))
    print()
    for trimmed, label in ((True, "heap given back first"), (False, "heap not given back")):
        print(row(label, [child for child in children if child.kind == "heap" and child.trimmed == trimmed]))
    right = sum(child.right for child in pages)
    print(f"\nwithin 2 % or 2 MiB: {right} of {len(pages)}")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(child) for child in children], indent=1), encoding="utf-8")
    raise SystemExit(right != len(pages))


if __name__ == "__main__":
    main()
