"""The machine and the memory of this process, on made-up system files and on this very machine."""

import ctypes
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featherweight import device
from featherweight.device import Device, memory, this_device
from featherweight.device.files import field, listed, number, read

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' own files")
BOARD = Device("Testboard 5", "aarch64", "Linux", 4, 8 * 2**30, ("asimd", "asimddp"), "performance", None)


PEAK = """
import mmap
from featherweight.device import peak_memory_bytes, reset_peak_memory, resident_memory_bytes
if not reset_peak_memory():
    raise SystemExit
before = peak_memory_bytes()
block = mmap.mmap(-1, 64 * 2**20)
for page in range(0, len(block), 4096):
    block[page] = 1
touched, resident = peak_memory_bytes(), resident_memory_bytes()
block.close()
kept, freed = peak_memory_bytes(), resident_memory_bytes()
assert reset_peak_memory()
print(before, touched, resident, kept, freed, peak_memory_bytes())
"""


@LINUX
def test_the_peak_is_what_was_touched_and_a_reset_forgets_it() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this kernel cannot count the peak anew")
    before, touched, resident, kept, freed, forgotten = map(int, done.stdout.split())
    block, slack = 64 * 2**20, 4 * 2**20
    assert before < 64 * 2**20
    assert abs(touched - before - block) <= slack
    assert abs(resident - before - block) <= slack
    assert abs(kept - touched) <= slack  # the kernel's counters are a few pages off
    assert abs(freed - before) <= slack
    assert abs(forgotten - before) <= slack


def tree(root: Path, files: dict[str, str]) -> Path:
    """A folder with these files, as a system's root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_kernel_counts_in_kib(tmp_path: Path) -> None:
    status = "VmPeak:\t 9 kB\nVmHWM:\t  123456 kB\nVmRSS:\t 7890 kB\nVmX: 1"
    root = tree(tmp_path, {"proc/self/status": status})
    assert device.peak_memory_bytes(root) == 123_456 * 1024
    assert device.resident_memory_bytes(root) == memory.exact_resident_bytes(root) == 7_890 * 1024
    tree(
        tmp_path,
        {"proc/self/smaps_rollup": "00010000-7ffd ---p 00000000 00:00 0   [rollup]\nRss:   8000 kB\nPss: 1 kB"},
    )
    assert memory.exact_resident_bytes(root) == 8_000 * 1024


TOUCH = """
import json, mmap
from featherweight.device import memory
watch = memory.watch_peak()
if watch is None:
    raise SystemExit
def touch(size):
    block = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        block[page] = 1
    block.close()
found = {}
touch(64 * 2**20)
found["touched"] = watch.read().above_bytes
watch = watch.again()
touch(16 * 2**20)
found["less later"] = watch.read().above_bytes
watch = watch.again()
touch(96 * 2**20)
found["left out"] = watch.again(counted=False).read().above_bytes
peak = watch.again().read()
found["baseline"], found["total"], found["swapped"] = peak.baseline_bytes, peak.total_bytes, peak.swapped_bytes
print(json.dumps(found))
"""


@LINUX
def test_the_watch_tells_what_came_on_top() -> None:
    done = subprocess.run([sys.executable, "-c", TOUCH], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip(memory.NO_PEAK)
    found = json.loads(done.stdout)
    assert abs(found["touched"] - 64 * 2**20) <= 2 * 2**20
    assert found["less later"] >= found["touched"]  # the highest of all that was counted
    assert found["less later"] - found["touched"] <= 2**20
    assert abs(found["left out"] - 64 * 2**20) <= 2 * 2**20  # 96 MiB came while nobody counted
    assert found["baseline"] < 64 * 2**20
    assert found["total"] >= found["baseline"] + 62 * 2**20
    assert found["swapped"] == 0


def test_a_peak_is_never_below_its_baseline() -> None:
    assert memory.Peak(total_bytes=100, baseline_bytes=120, swapped_bytes=0).above_bytes == 0
    assert memory.Peak(total_bytes=150, baseline_bytes=120, swapped_bytes=0).above_bytes == 30


def test_without_a_peak_there_is_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "reset_peak_memory", lambda: False)
    assert memory.watch_peak() is None
    monkeypatch.setattr(memory, "exact_resident_bytes", lambda: None)
    assert memory.watch_peak() is None


def test_a_c_library_that_cannot_trim_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def __init__(self, name: str | None):
            assert name is None

    monkeypatch.setattr(ctypes, "CDLL", Musl)
    memory.give_back_free_memory()


def test_small_files_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "text": " a\x00\n",
            "empty": "\n",
            "seven": "-7\n",
            "half": "7.5",
            "big": "9" * 21,
            "pairs": "a 1\nb:\nc: 2 kB",
        },
    )
    assert (read(root / "text"), read(root / "empty"), read(root / "none"), read(root)) == ("a", None, None, None)
    assert (number(root / "seven"), number(root / "half"), number(root / "text"), number(root / "big")) == (
        -7,
        None,
        None,
        None,
    )
    assert [field(root / "pairs", key) for key in "abcd"] == ["1", None, "2 kB", None]


def test_sets_as_the_kernel_writes_them() -> None:
    assert listed("0-3,8\n") == (0, 1, 2, 3, 8)
    assert listed("5") == (5,)
    assert listed("") == ()


def test_where_the_peak_cannot_be_reset_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert not device.reset_peak_memory()


def test_a_device_is_the_same_each_time() -> None:
    one, two = this_device(), this_device()
    assert (one, one.id) == (two, two.id)
    code = "from featherweight.device import this_device; print(this_device().id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == one.id
    assert re.fullmatch("[0-9a-f]{12}", one.id)
    assert one.name and one.cores >= 1
    assert one.as_dict() == {**one.__dict__, "instructions": list(one.instructions)}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Testboard 4"},
        {"architecture": "armv7l"},
        {"system": "Darwin"},
        {"cores": 2},
        {"memory_bytes": 4 * 2**30},
        {"memory_bytes": None},
        {"instructions": ("asimd",)},
    ],
)
def test_another_machine_has_another_id(change: dict[str, object]) -> None:
    assert replace(BOARD, **change).id != BOARD.id


def test_an_id_stays_what_it_was() -> None:
    """Records of earlier versions hold ids: whoever changes how they are made must keep these."""
    parts = "('Testboard 5', 'aarch64', 'Linux', 4, 8, ('asimd', 'asimddp'))"
    assert BOARD.id == hashlib.sha256(parts.encode()).hexdigest()[:12] == "5f527d50b1d4"


def test_what_does_not_make_another_machine() -> None:
    assert replace(BOARD, governor="powersave").id == BOARD.id
    assert replace(BOARD, memory_bytes=8 * 2**30 - 200 * 2**20).id == BOARD.id  # what a kernel keeps for itself


CPUINFO = {
    "Pi": ("processor: 0\nFeatures\t: fp asimd asimddp\n\nModel\t\t: Raspberry Pi 5\n", "Raspberry Pi 5"),
    "PC": (
        "model name\t: Fast CPU @ 3:00 GHz\nflags : fpu avx2 fma hypervisor\n\nmodel name: other\n",
        "Fast CPU @ 3:00 GHz",
    ),
    "RISC-V": ("hart\t: 0\nisa\t: rv64imafdcv_zicsr_zvl\n", None),
}


@pytest.mark.parametrize(
    ("kind", "instructions", "virtual"),
    [("Pi", ("asimd", "asimddp"), None), ("PC", ("avx2", "fma"), True), ("RISC-V", ("v",), None)],
)
def test_processor_files_of_three_kinds(
    tmp_path: Path, kind: str, instructions: tuple[str, ...], virtual: bool | None
) -> None:
    text, name = CPUINFO[kind]
    found = this_device(tree(tmp_path, {"proc/cpuinfo": text}))
    assert found.instructions == instructions
    assert found.virtual is virtual
    assert found.governor is None
    if name is not None:
        assert found.name == name


def test_a_board_s_own_name_comes_first(tmp_path: Path) -> None:
    files = {"proc/device-tree/model": "Raspberry Pi 5 Rev 1.0\x00", "proc/cpuinfo": CPUINFO["PC"][0]}
    assert this_device(tree(tmp_path, files)).name == "Raspberry Pi 5 Rev 1.0"


def test_what_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "sysconf", refuse)
    found = this_device(tmp_path)
    assert (found.memory_bytes, found.virtual, found.governor, found.instructions) == (None, None, None, ())
    assert device.peak_memory_bytes(tmp_path) is device.resident_memory_bytes(tmp_path) is None
    assert device.busy_share(0, tmp_path) is None


def test_the_busy_share_is_what_was_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    #                    user nice system idle iowait irq softirq steal; guest time is in user already
    before, after = "cpu  100 0 100 700 100 0 0 0 55 0\ncpu0 1 2", "cpu  160 5 110 715 105 1 2 2 99 0\ncpu0 1 2"
    tree(tmp_path, {"proc/stat": before})
    monkeypatch.setattr("time.sleep", lambda seconds: tree(tmp_path, {"proc/stat": after}))
    assert device.busy_share(0, tmp_path) == 1 - 20 / 100  # idle and waiting 15 + 5 of 60 + 5 + 10 + 15 + 5 + 1 + 2 + 2
    assert device.busy_share(0, tmp_path) is None  # no tick has passed


@LINUX
def test_this_machine_s_load() -> None:
    busy = device.busy_share(0.05)
    assert busy is None or -0.01 <= busy <= 1
    assert device.available_cores() == len(os.sched_getaffinity(0))


@LINUX
def test_a_quota_takes_no_core_away(tmp_path: Path) -> None:
    group = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cgroup.procs": "", "sys/fs/cgroup/cpu.max": "150000 100000"}
    assert device.quota_cores(tree(tmp_path, group)) == 1.5
    assert this_device(tmp_path).cores == device.available_cores() == len(os.sched_getaffinity(0))


def test_off_linux_every_core_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert device.available_cores() == 10
