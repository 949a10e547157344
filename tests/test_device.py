"""The machine as the operating system tells it, on made-up system files and on this very machine."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featherweight import device
from featherweight.device import Device, EnergyMeter, this_device

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' own files")
BOARD = Device("Testboard 5", "aarch64", "Linux", 4, 8 * 2**30, ("asimd", "asimddp"), "performance", None)


def rapl(folder: Path, counter: object, largest: object = 1_000_000) -> Path:
    (folder / "energy_uj").write_text(f"{counter}\n")
    if largest is not None:
        (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def test_energy_is_the_counter_s_difference(tmp_path: Path) -> None:
    meter = EnergyMeter(rapl(tmp_path, 400_000))
    assert meter.missing is None
    assert meter.used_mj() is None  # not started
    meter.start()
    rapl(tmp_path, 412_500)
    assert meter.used_mj() == 12.5  # 12,500 µJ
    rapl(tmp_path, 400_000)
    assert meter.used_mj() == 0
    meter.start()
    rapl(tmp_path, 400_500)
    assert meter.used_mj() == 0.5


def test_energy_over_a_wrap_around(tmp_path: Path) -> None:
    meter = EnergyMeter(rapl(tmp_path, 990_000))
    meter.start()
    rapl(tmp_path, 5_000)
    assert meter.used_mj() == (1_000_000 - 990_000 + 5_000) / 1000


def test_a_wrap_around_without_a_range_is_no_number(tmp_path: Path) -> None:
    meter = EnergyMeter(rapl(tmp_path, 990_000, largest=None))
    meter.start()
    rapl(tmp_path, 5_000)
    assert meter.used_mj() is None


def test_without_a_counter_energy_is_missing_with_the_cause(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path / "none")
    meter.start()
    assert meter.used_mj() is None
    assert meter.missing is not None and meter.missing.startswith("not available: no RAPL counter")


def test_an_unreadable_counter_is_missing_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "energy_uj").mkdir()  # there, and reading it fails
    meter = EnergyMeter(tmp_path)
    meter.start()
    assert meter.used_mj() is None
    assert meter.missing is not None and "readable by root only" in meter.missing


@pytest.mark.parametrize("content", ["", "n/a", "-5", "1.5"])
def test_a_counter_without_a_number_is_no_meter(tmp_path: Path, content: str) -> None:
    meter = EnergyMeter(rapl(tmp_path, content))
    meter.start()
    assert meter.used_mj() is None
    assert meter.missing is not None


def test_a_counter_that_vanishes_is_no_number(tmp_path: Path) -> None:
    meter = EnergyMeter(rapl(tmp_path, 5))
    meter.start()
    (tmp_path / "energy_uj").unlink()
    assert meter.used_mj() is None


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


def test_the_kernel_counts_in_kib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_read", lambda path: "VmPeak:\t 9 kB\nVmHWM:\t  123456 kB\nVmRSS:\t 7890 kB\nVmX: 1")
    assert device.peak_memory_bytes() == 123_456 * 1024
    assert device.resident_memory_bytes() == 7_890 * 1024


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
    monkeypatch: pytest.MonkeyPatch, kind: str, instructions: tuple[str, ...], virtual: bool | None
) -> None:
    text, name = CPUINFO[kind]
    monkeypatch.setattr(device, "_read", lambda path: text if str(path) == "/proc/cpuinfo" else None)
    found = this_device()
    assert found.instructions == instructions
    assert found.virtual is virtual
    assert found.governor is None
    if name is not None:
        assert found.name == name


def test_a_board_s_own_name_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/device-tree/model": "Raspberry Pi 5 Rev 1.0\x00", "/proc/cpuinfo": CPUINFO["PC"][0]}
    monkeypatch.setattr(device, "_read", lambda path: files.get(str(path)))
    assert this_device().name == "Raspberry Pi 5 Rev 1.0"


def test_what_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(device, "_read", lambda path: None)
    monkeypatch.setattr(os, "sysconf", refuse)
    monkeypatch.setattr(os, "getloadavg", refuse)
    found = this_device()
    assert (found.memory_bytes, found.virtual, found.governor, found.instructions) == (None, None, None, ())
    assert device.peak_memory_bytes() is device.resident_memory_bytes() is device.load_per_core() is None
    assert device.busy_share(0) is None


def test_the_busy_share_is_what_was_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    #                    user nice system idle iowait irq softirq steal; guest time is in user already
    before, after = "cpu  100 0 100 700 100 0 0 0 55 0\ncpu0 1 2", "cpu  160 5 110 715 105 1 2 2 99 0\ncpu0 1 2"
    lines = iter((before, after, after, after))
    monkeypatch.setattr(device, "_read", lambda path: next(lines))
    assert device.busy_share(0) == 1 - 20 / 100  # idle and waiting 15 + 5 of 60 + 5 + 10 + 15 + 5 + 1 + 2 + 2
    assert device.busy_share(0) is None  # no tick has passed


@LINUX
def test_this_machine_s_load() -> None:
    load, busy = device.load_per_core(), device.busy_share(0.05)
    assert load is not None and load >= 0
    assert busy is None or -0.01 <= busy <= 1
    assert device.available_cores() == len(os.sched_getaffinity(0))
