"""What surrounds a measurement, on recorded system trees of a small board, a laptop, a server and a container."""

import json
import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featherweight.device import cgroup, gpu, sensors
from featherweight.device.environment import NONE, UNKNOWN, snapshot
from featherweight.device.load import Load, Watch, reasons, wait_until_quiet
from tests.make import tree

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' own files")
CPU = "sys/devices/system/cpu"
TICK = os.sysconf("SC_CLK_TCK")


def clocks(cores: int, **values: Any) -> dict[str, Any]:
    return {f"{CPU}/cpu{core}/cpufreq/{name}": value for core in range(cores) for name, value in values.items()}


STAT = "cpu  40 0 0 40 0 0 0 0\ncpu0 10 0 0 10 0 0 0 0\ncpu1 10 0 0 10 0 0 0 0\n"

PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/self/status": "Name:\tpython3\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n",
    "proc/self/cgroup": "0::/user.slice/session-1.scope\n",
    "proc/1/cgroup": "0::/init.scope\n",
    "proc/loadavg": "0.52 0.31 0.10 1/150 900\n",
    "proc/meminfo": "MemTotal:        8256016 kB\nMemAvailable:    7000000 kB\n",
    "proc/stat": STAT,
    "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-2712\n",
    "sys/fs/cgroup/cgroup.procs": "",
    "sys/fs/cgroup/user.slice/cgroup.procs": "",
    "sys/fs/cgroup/user.slice/session-1.scope/cgroup.procs": "",
    "sys/fs/cgroup/user.slice/memory.max": "max\n",
    f"{CPU}/online": "0-3\n",
    **clocks(4, scaling_governor="ondemand", scaling_cur_freq=2400000, scaling_min_freq=1500000),
    **clocks(4, scaling_max_freq=2400000, cpuinfo_max_freq=2400000),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "61650\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "active",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "50000",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "2",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "50000\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
}

LAPTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: 13th Gen Core i7\nflags\t\t: fpu avx avx2 fma f16c avx_vnni\n",
    "proc/self/status": "Cpus_allowed_list:\t0-1\n",
    "proc/self/cgroup": "0::/\n",
    "proc/stat": STAT,
    "sys/class/dmi/id/sys_vendor": "LENOVO",
    **clocks(2, scaling_governor="powersave", scaling_cur_freq=4100000, scaling_min_freq=400000),
    **clocks(2, scaling_max_freq=4700000, cpuinfo_max_freq=5000000),
    f"{CPU}/intel_pstate/no_turbo": "0\n",
    **{f"{CPU}/cpu{core}/thermal_throttle/core_throttle_count": 3 + core for core in range(2)},
    **{f"{CPU}/cpu{core}/thermal_throttle/package_throttle_count": 9 for core in range(2)},
    **{f"{CPU}/cpu{core}/topology/physical_package_id": 0 for core in range(2)},
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": "71000",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "-274000",
    "sys/class/thermal/thermal_zone1/type": "INT3400 Thermal",
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/hwmon/hwmon0/name": "coretemp",
    "sys/class/hwmon/hwmon0/temp1_input": "72000",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon0/temp1_crit": "100000",
    "sys/class/hwmon/hwmon0/temp2_input": "72000",
    "sys/class/hwmon/hwmon0/temp2_label": "Core 0",
    "sys/class/hwmon/hwmon1/name": "nvme",
    "sys/class/hwmon/hwmon1/temp1_input": "40000",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": "0",
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/power_supply/hidpp_battery_0/type": "Battery",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device",
    "sys/class/power_supply/hidpp_battery_0/status": "Full",
}


@LINUX
def test_a_small_board(tmp_path: Path) -> None:
    found = snapshot(tree(tmp_path, PI), 0)
    assert json.loads(json.dumps(found)) == found
    expected = {
        "processor": "Raspberry Pi 5 Model B Rev 1.0",
        "instructions": ["asimd", "asimddp", "asimdhp"],
        "cores_online": 4,
        "affinity": [0, 1, 2, 3],
        "governor": "ondemand",
        "frequency_min_mhz": 1500.0,
        "frequency_max_mhz": 2400.0,
        "frequency_hardware_max_mhz": 2400.0,
        "frequency_mhz": 2400.0,
        "boost": UNKNOWN,
        "temperatures_c": {"cpu-thermal": 61.65},
        "temperature_limits_c": {"cpu-thermal": 110.0},  # at 50 °C only the fan goes on
        "throttle_counts": UNKNOWN,
        "cooling_steps": UNKNOWN,  # a fan slows nothing down
        "firmware_throttling": "0x50000",
        "load_average": [0.52, 0.31, 0.10],
        "busy_share": UNKNOWN,  # no tick passed
        "quota_cores": NONE,
        "memory_limit_bytes": NONE,
        "memory_available_bytes": 7_000_000 * 1024,
        "container": NONE,
        "virtual_machine": UNKNOWN,
        "power_source": UNKNOWN,
        "clocksource": "arch_sys_counter",
        "kernel": "Linux 6.6.31+rpt-rpi-2712",
    }
    assert {name: found[name] for name in expected} == expected
    assert found["hash_mb_per_s"] > 1


@LINUX
def test_a_laptop_on_battery(tmp_path: Path) -> None:
    found = snapshot(tree(tmp_path, LAPTOP), 0)
    expected = {
        "processor": "13th Gen Core i7",
        "instructions": ["avx", "avx2", "fma", "f16c", "avx_vnni"],
        "governor": "powersave",
        "frequency_min_mhz": 400.0,
        "frequency_max_mhz": 4700.0,
        "frequency_hardware_max_mhz": 5000.0,
        "frequency_mhz": 4100.0,
        "boost": True,
        "temperatures_c": {"x86_pkg_temp": 71.0, "coretemp Package id 0": 72.0},
        "temperature_limits_c": {"coretemp Package id 0": 100.0},
        "throttle_counts": {"core": 3 + 4, "package": 9},
        "cooling_steps": {"Processor (cooling_device0)": 0},
        "container": UNKNOWN,
        "virtual_machine": "no",
        "power_source": "battery",
        "load_average": UNKNOWN,
    }
    assert {name: found[name] for name in expected} == expected


@LINUX
def test_an_empty_tree_is_unknown_all_over(tmp_path: Path) -> None:
    found = snapshot(tmp_path, 0)
    told = {"processor", "cores", "hash_mb_per_s", "kernel", "memory_bytes", "gpus"}  # by Python, not by files
    assert {name for name, value in found.items() if value != UNKNOWN} <= told
    assert None not in found.values()
    assert "" not in found.values()


@LINUX
def test_this_machine_tells_plain_values() -> None:
    found = snapshot(seconds=0.05)
    assert json.loads(json.dumps(found)) == found
    assert found["affinity"] == sorted(os.sched_getaffinity(0))
    assert found["cores"] == len(found["affinity"])
    assert os.sched_getaffinity(0) == set(found["affinity"])  # the probe of the clock has let go of its core


def test_off_linux_the_rest_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse() -> None:
        raise OSError

    monkeypatch.setitem(sys.modules, "psutil", types.SimpleNamespace(sensors_battery=lambda: None))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 1.0, 0.5))
    found = snapshot(tmp_path, 0)
    assert (found["cores"], found["cores_online"], found["load_average"]) == (10, 10, [1.5, 1.0, 0.5])
    assert (found["affinity"], found["power_source"], found["busy_share"]) == (UNKNOWN,) * 3
    assert found["hash_mb_per_s"] > 1
    monkeypatch.setattr(os, "getloadavg", refuse)
    assert snapshot(tmp_path, 0)["load_average"] == UNKNOWN


def test_two_kinds_of_governors_and_boost_of_other_makers(tmp_path: Path) -> None:
    root = tree(tmp_path, {**clocks(2, scaling_governor="performance"), f"{CPU}/cpufreq/boost": 0})
    tree(root, {f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave"})
    found = sensors.clock((0, 1), root)
    assert (found.governor, found.boost, found.max_mhz) == ("performance, powersave", False, None)
    assert sensors.clock((0,), root).governor == "performance"


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({"AC/type": "Mains", "AC/online": "1"}, "mains"),
        ({"AC/type": "Mains", "AC/online": "0"}, None),
        ({"BAT1/type": "Battery", "BAT1/status": "Charging"}, "mains"),
        ({"usb/type": "USB", "usb/online": "1", "BAT1/type": "Battery", "BAT1/status": "Discharging"}, "battery"),
        ({"mouse/type": "Battery", "mouse/scope": "Device", "mouse/status": "Discharging"}, None),
        ({}, None),
    ],
)
@LINUX
def test_where_the_power_comes_from(tmp_path: Path, supplies: dict[str, str], expected: str | None) -> None:
    root = tree(tmp_path, {f"sys/class/power_supply/{name}": text for name, text in supplies.items()})
    assert sensors.power_source(root) == expected


@pytest.mark.parametrize(
    ("battery", "expected"), [(None, None), (True, "mains"), (False, "battery"), ("unknown", None)]
)
def test_off_linux_psutil_tells_the_power_source(
    monkeypatch: pytest.MonkeyPatch, battery: bool | str | None, expected: str | None
) -> None:
    plugged = None if battery == "unknown" else battery
    known = None if battery is None else types.SimpleNamespace(power_plugged=plugged)
    monkeypatch.setitem(sys.modules, "psutil", types.SimpleNamespace(sensors_battery=lambda: known))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert sensors.power_source() == expected


def group(version: str, path: str, files: dict[str, Any]) -> dict[str, Any]:
    """A control group's files, its own and those of the groups above."""
    mount = "sys/fs/cgroup" if version == "" else f"sys/fs/cgroup/{version}"
    levels = [path[:end] for end in range(len(path)) if path[end] == "/"] + [path]
    procs = {f"{mount}{level}/cgroup.procs".replace("//", "/"): "" for level in levels}
    line = f"0::{path}" if version in ("", "unified") else f"4:{version}:{path}"
    return {"proc/self/cgroup": line + "\n", **procs, **{f"{mount}/{name}": text for name, text in files.items()}}


@pytest.mark.parametrize(
    ("version", "path", "files", "quota"),
    [
        ("", "/", {"cpu.max": "150000 100000"}, 1.5),
        ("", "/", {"cpu.max": "max 100000"}, None),
        ("", "/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 0.5),  # the least of all levels
        ("", "/../..", {"cpu.max": "200000 100000"}, 2.0),
        ("unified", "/", {"cpu.max": "300000 100000"}, 3.0),
        (
            "cpu,cpuacct",
            "/docker/1f",
            {"docker/1f/cpu.cfs_quota_us": 250000, "docker/1f/cpu.cfs_period_us": 100000},
            2.5,
        ),
        ("cpu", "/", {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000}, None),
        ("cpu", "/", {"cpu.cfs_quota_us": 100, "cpu.cfs_period_us": 0}, None),
        ("", "/", {"cpu.max": "damaged"}, None),
    ],
)
def test_the_quota_of_a_container(
    tmp_path: Path, version: str, path: str, files: dict[str, Any], quota: float | None
) -> None:
    root = tree(tmp_path, group(version, path, files))
    assert cgroup.quota_cores(root) == quota
    assert cgroup.are_told(root)


def test_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {"cpu.cfs_quota_us": 100000, "cpu.cfs_period_us": 100000, "cgroup.procs": ""}
    root = tree(tmp_path, {f"sys/fs/cgroup/cpu/{name}": text for name, text in files.items()})
    tree(root, {"proc/self/cgroup": "4:cpu:/docker/not/seen/here\n"})
    assert cgroup.quota_cores(root) == 1.0


def test_without_groups_nothing_is_told(tmp_path: Path) -> None:
    assert not cgroup.are_told(tmp_path)
    assert cgroup.quota_cores(tmp_path) is cgroup.memory_limit_bytes(tmp_path) is cgroup.held_back_ms(tmp_path) is None


@pytest.mark.parametrize(
    ("version", "files", "limit"),
    [
        ("", {"memory.max": 512 * 2**20}, 512 * 2**20),
        ("", {"memory.max": "max"}, None),
        ("memory", {"memory.limit_in_bytes": 2**30}, 2**30),
        ("memory", {"memory.limit_in_bytes": 9223372036854771712}, None),
    ],
)
def test_the_memory_of_a_container(tmp_path: Path, version: str, files: dict[str, Any], limit: int | None) -> None:
    assert cgroup.memory_limit_bytes(tree(tmp_path, group(version, "/", files))) == limit


def test_how_long_a_quota_held_back(tmp_path: Path) -> None:
    root = tree(tmp_path, group("", "/a", {"cpu.stat": "usage_usec 9\nthrottled_usec 1500\n", "a/cpu.stat": "x 1\n"}))
    assert cgroup.held_back_ms(root) == 1.5
    other = tree(tmp_path / "v1", group("cpu", "/", {"cpu.stat": "nr_throttled 2\nthrottled_time 2500000\n"}))
    assert cgroup.held_back_ms(other) == 2.5


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({"run/systemd/container": "lxc\n"}, "lxc"),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": 'engine="podman"'}, "podman"),
        ({"proc/1/cgroup": "12:cpu:/kubepods/besteffort/pod1\n"}, "kubepods"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, NONE),
        ({"proc/1/cgroup": "0::/\n"}, UNKNOWN),
    ],
)
def test_containers(tmp_path: Path, files: dict[str, str], container: str) -> None:
    assert snapshot(tree(tmp_path, files), 0)["container"] == container


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({"proc/cpuinfo": "flags: fpu hypervisor", "sys/class/dmi/id/sys_vendor": "QEMU"}, "yes: QEMU"),
        ({"proc/cpuinfo": "flags: fpu hypervisor"}, "yes"),
        ({"proc/cpuinfo": "flags: fpu", "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "no"),
        (
            {"sys/class/dmi/id/sys_vendor": "Amazon EC2", "sys/class/dmi/id/product_name": "t4g.large"},
            "yes: Amazon EC2 t4g.large",
        ),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2", "sys/class/dmi/id/product_name": "c7g.metal"}, UNKNOWN),
        ({"sys/class/dmi/id/sys_vendor": "Google", "sys/class/dmi/id/product_name": "Spherion"}, UNKNOWN),
        ({"proc/device-tree/hypervisor/compatible": "linux,kvm"}, "yes"),
        ({"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2"}, "yes: WSL"),
    ],
)
def test_virtual_machines(tmp_path: Path, files: dict[str, str], virtual: str) -> None:
    assert snapshot(tree(tmp_path, files), 0)["virtual_machine"] == virtual


# --------------------------------------------------------------------------------------- what slowed it down

CALM = sensors.Throttling(counts={"core": 5, "package": 2}, cooling={"cpufreq-cpu0": 0}, firmware=0x50000)


def test_throttling_that_rose_is_said() -> None:
    assert CALM.since(CALM) == ()
    assert replace(CALM, counts={"core": 8, "package": 2}).since(CALM) == ("the core's throttle count rose by 3",)
    assert replace(CALM, cooling={"cpufreq-cpu0": 2}).since(CALM) == ("cpufreq-cpu0 is slowed down by 2 steps",)
    assert replace(CALM, firmware=0x50004).since(CALM) == ("the board reports: throttled",)  # it holds now
    assert replace(CALM, firmware=0xD0000).since(CALM) == ("the board reports: soft temperature limit",)  # it held
    unknown = sensors.Throttling(None, None, None)
    assert unknown.since(unknown) is None
    assert CALM.since(unknown) == ("the board reports: under-voltage", "the board reports: throttled")


def test_a_board_that_writes_no_number(tmp_path: Path) -> None:
    root = tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "?"})
    assert sensors.throttling(root) == sensors.Throttling(None, None, None)


def test_sensors_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    zones = {f"thermal_zone{n}/{name}": value for n in range(3) for name, value in (("type", "acpitz"), ("temp", n))}
    found = sensors.temperatures(tree(tmp_path, {f"sys/class/thermal/{name}": text for name, text in zones.items()}))
    assert found == {"acpitz": (0.0, None), "acpitz #2": (0.001, None), "acpitz #3": (0.002, None)}


# -------------------------------------------------------------------------------------------- who took what


def moment(root: Path, busy: list[int], steal: int, own: int, child: int | None, waits: tuple[int, int]) -> None:
    """Counters in ticks of two cores that may be used and one that may not."""
    rows = [f"cpu{core} {ticks} 0 0 500 0 0 0 {steal} 0 0" for core, ticks in enumerate(busy)]
    files = {"proc/stat": "cpu  1 1\n" + "\n".join(rows), "proc/self/status": "Cpus_allowed_list:\t0-1\n"}
    files["proc/self/stat"] = f"7 (a ) b) S {'0 ' * 10}{own} 0 0 0 20"
    if child is not None:
        files["proc/99/stat"] = f"99 (python) R {'0 ' * 10}{child} 0 0 0 20"
    files["proc/99/task/99/schedstat"] = f"{waits[0]} {waits[1]} 3"
    tree(root, files)


@LINUX
def test_others_are_all_less_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((100.0, 102.0))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    moment(tmp_path, [100, 100, 0], 10, 50, 20, (1_000, 500))
    watch = Watch.now([99], tmp_path)
    # In 2 s of two cores: 1.5 s and 1 s busy, of which 0.1 s own and 1.4 s the child's; core 2 is none of ours.
    moment(
        tmp_path,
        [100 + 15 * TICK // 10, 100 + TICK, 9_999],
        10 + TICK // 10,
        50 + TICK // 10,
        20 + 14 * TICK // 10,
        (4_000, 1_500),
    )
    load = watch.since()
    assert (load.seconds, load.cores) == (2.0, 2)
    assert load.own_seconds == pytest.approx(1.5)
    assert load.other_share == pytest.approx((2.5 - 1.5) / 4)
    assert load.steal_share == pytest.approx(0.2 / 4)
    assert load.waited_share == 1_000 / (3_000 + 1_000)
    assert load.held_back_ms is load.throttling is None


@LINUX
def test_a_tree_that_tells_nothing_gives_no_load(tmp_path: Path) -> None:
    load = Watch.now([99], tmp_path).since()
    assert (load.cores, load.own_seconds, load.other_share, load.steal_share, load.waited_share) == (None,) * 5
    assert reasons({}, {}, load) == ()


SPIN = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@LINUX
def test_a_child_s_work_is_own_while_it_runs_and_after_it_was_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        try:
            watch, stranger = Watch.now([child.pid]), Watch.now()
            time.sleep(0.6)
            own, foreign = watch.since(), stranger.since()
        finally:
            child.kill()
    after = watch.since()
    assert own.own_seconds is not None and foreign.own_seconds is not None and after.own_seconds is not None
    assert own.own_seconds - foreign.own_seconds > 0.15  # the child's time, on two cores that others use too
    assert after.own_seconds >= own.own_seconds - 0.02  # it has moved to its parent


def test_off_linux_psutil_tells_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class Times(tuple[float, ...]):
        idle = 70.0

    class Gone(Exception):
        pass

    def process(pid: int) -> Any:
        if pid == 1:
            raise Gone
        return types.SimpleNamespace(cpu_times=lambda: types.SimpleNamespace(user=2.0, system=1.0))

    own = types.SimpleNamespace(user=4.0, system=3.0, children_user=2.0, children_system=1.0)
    fake = types.SimpleNamespace(cpu_times=lambda: Times((20.0, 10.0, 70.0)), Process=process, Error=Gone)
    monkeypatch.setitem(sys.modules, "psutil", fake)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "times", lambda: own)
    watch = Watch.now([1, 5])
    assert (watch.busy_s, watch.stolen_s, watch.own_s) == (30.0, None, 10.0 + 3.0)


# ------------------------------------------------------------------------------------------- what it means

QUIET = Load(10.0, 2, 9.0, 0.02, 0.0, 0.01, 0.0, ())
STEADY = {
    "governor": "performance",
    "power_source": "mains",
    "boost": True,
    "frequency_mhz": 2000.0,
    "frequency_max_mhz": 2400.0,
    "hash_mb_per_s": 1800.0,
    "temperatures_c": {"cpu": 60.0, "board": 40.0},
    "temperature_limits_c": {"cpu": 85.0},
}


def test_a_steady_run_has_no_reasons() -> None:
    assert reasons(STEADY, STEADY, QUIET) == ()
    assert reasons({}, {}, replace(QUIET, throttling=None, other_share=None, waited_share=None)) == ()
    unknown = dict.fromkeys(STEADY, UNKNOWN)
    assert reasons(unknown, unknown, QUIET) == reasons(STEADY, unknown, QUIET) == reasons(unknown, STEADY, QUIET) == ()
    slightly = {**STEADY, "frequency_mhz": 1801.0, "hash_mb_per_s": 1621.0, "temperatures_c": {"cpu": 82.9}}
    assert reasons(STEADY, slightly, replace(QUIET, other_share=0.1, steal_share=0.05, waited_share=0.1)) == ()
    assert reasons(STEADY, {**STEADY, "frequency_mhz": 2199.0, "hash_mb_per_s": 1979.0}, QUIET) == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"other_share": 0.231}, "other programs used 23% of the processor during the run (at most 10% is steady)"),
        ({"steal_share": 0.06}, "the hypervisor took 6% of the processor away (at most 5% is steady)"),
        ({"waited_share": 0.5}, "it waited 50% of its time for a free core (at most 10% is steady)"),
        ({"held_back_ms": 500.0}, "the container's quota stopped it for 5% of the time (at most 1% is steady)"),
        ({"throttling": ("the core's throttle count rose by 3",)}, "the core's throttle count rose by 3"),
    ],
)
def test_a_load_that_disturbs_is_a_reason(change: dict[str, Any], sentence: str) -> None:
    assert reasons(STEADY, STEADY, replace(QUIET, **change)) == (sentence,)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frequency_mhz": 1700.0}, "one busy core's clock fell from 2000 to 1700 MHz"),
        ({"frequency_max_mhz": 1200}, "the highest clock that is allowed fell from 2400 to 1200 MHz"),
        ({"hash_mb_per_s": 1500.0}, "the same small calculation fell from 1800 to 1500 MB/s"),
        ({"frequency_mhz": 2300.0}, "one busy core's clock rose from 2000 to 2300 MHz"),
        ({"frequency_max_mhz": 3000}, "the highest clock that is allowed rose from 2400 to 3000 MHz"),
        ({"hash_mb_per_s": 2000.0}, "the same small calculation rose from 1800 to 2000 MB/s"),
        ({"governor": "powersave"}, "the governor changed from performance to powersave"),
        ({"power_source": "battery"}, "the power source changed from mains to battery"),
        ({"boost": False}, "the boost setting changed from True to False"),
        ({"temperatures_c": {"cpu": 84.0}}, "cpu is at 84 °C, and slows down or stops at 85 °C"),
    ],
)
def test_a_machine_that_changed_is_a_reason(change: dict[str, Any], sentence: str) -> None:
    assert reasons(STEADY, {**STEADY, **change}, QUIET) == (sentence,)


def test_waiting_until_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter((0.8, 0.3, 0.05))
    monkeypatch.setattr("featherweight.device.load.busy_share", lambda seconds, root: next(shares))
    assert wait_until_quiet(0.1, 60.0)
    assert next(shares, None) is None
    monkeypatch.setattr("featherweight.device.load.busy_share", lambda seconds, root: 0.8)
    assert not wait_until_quiet(0.1, 0.0)
    monkeypatch.setattr("featherweight.device.load.busy_share", lambda seconds, root: None)
    assert not wait_until_quiet(0.1, 60.0)


# --------------------------------------------------------------------------------------------------- GPUs


class NVMLError(Exception):
    """What the module raises."""


def pynvml(processes: dict[int, int | None], error: str | None = None) -> Any:
    """A stand-in for the module, with two GPUs."""

    def refuse() -> None:
        raise NVMLError(error)

    def running(handle: int) -> list[Any]:
        seen = processes if handle == 1 else {}
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in seen.items()]

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=refuse if error == "no driver" else lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=refuse if error == "lost" else lambda: "580.65",
        nvmlDeviceGetCount=lambda: 0 if error == "none" else 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"Testcard {handle}",
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(total=8 * 2**30),
        nvmlDeviceGetComputeRunningProcesses=running,
    )


def test_gpus_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml({7: 300}))
    rows = [{"index": n, "name": f"Testcard {n}", "driver": "580.65", "memory_bytes": 8 * 2**30} for n in range(2)]
    assert gpu.gpus() == (rows, None)
    assert snapshot(seconds=0)["gpus"] == rows
    assert gpu.gpu_memory_bytes(7) == (300, None)


@pytest.mark.parametrize(
    ("processes", "reason"), [({}, "a container hides its number"), ({7: None}, "does not tell the memory")]
)
def test_a_process_whose_memory_is_not_told(
    monkeypatch: pytest.MonkeyPatch, processes: dict[int, int | None], reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml(processes))
    found, why = gpu.gpu_memory_bytes(7)
    assert found is None
    assert why is not None and reason in why


@pytest.mark.parametrize(
    ("error", "reason"),
    [("no driver", "no driver of one: no driver"), ("lost", "NVML: lost"), ("none", "knows no GPU")],
)
def test_no_gpu_is_a_reason(monkeypatch: pytest.MonkeyPatch, error: str, reason: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml({}, error))
    found, why = gpu.gpus()
    assert found is None
    assert why is not None and reason in why


@pytest.mark.parametrize(
    ("visible", "index"),
    [("2", 2), (" 1 , 0", 1), ("", None), ("GPU-8932f937", None), ("-1", None), ("MIG-1,2", None), ("²", None)],
)
def test_which_gpu_computes(monkeypatch: pytest.MonkeyPatch, visible: str, index: int | None) -> None:
    assert gpu.first_gpu(visible) == index
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.first_gpu() == index
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu.first_gpu() == 0


def test_without_the_module_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    reason = "nvidia-ml-py is not installed: pip install 'featherweight[energy]'"
    assert gpu.gpus() == gpu.gpu_memory_bytes(1) == (None, reason)
