"""Energy by every meter: counters as recorded trees and a stand-in for NVML, the user's meter as files."""

import itertools
import json
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from featherweight.device import energy
from featherweight.device.energy import Window, estimate, from_csv, measure_energy
from featherweight.device.meter_csv import CsvMeter, read_trace
from featherweight.device.meters import (
    Battery,
    LaterMeter,
    NoMeter,
    Nvml,
    Rapl,
    Reading,
    Span,
    find_meter,
)
from featherweight.errors import MeasureError, SettingError
from featherweight.measure.protocol import QUICK, Power, Protocol
from tests.make import tree

POWERCAP = "sys/class/powercap"


def rapl(root: Path, *counters: int, largest: int | None = 1_000_000) -> Path:
    """Packages with these µJ, within them core, around them psys, and the first once more over another interface."""
    zones: dict[str, Any] = {"intel-rapl:9/name": "psys", "intel-rapl:9/energy_uj": 77_000}
    zones |= {"intel-rapl-mmio:0/name": "package-0", "intel-rapl-mmio:0/energy_uj": 88_000}
    for index, counter in enumerate(counters):
        zones |= {f"intel-rapl:{index}/name": f"package-{index}", f"intel-rapl:{index}/energy_uj": counter}
        zones |= {f"intel-rapl:{index}:0/name": "core", f"intel-rapl:{index}:0/energy_uj": counter // 2}
        zones |= {f"intel-rapl:{index}/max_energy_range_uj": "" if largest is None else largest}
    return tree(root, {f"{POWERCAP}/{name}": text for name, text in zones.items()})


# ------------------------------------------------------------------------------------------------- RAPL


def test_packages_are_added_and_nothing_else_is(tmp_path: Path) -> None:
    meter = find_meter(root=rapl(tmp_path, 400_000, 10_000))
    assert isinstance(meter, Rapl)
    assert (meter.label, [path.name for path in meter.domains]) == (
        "measured:rapl-package",
        ["intel-rapl:0", "intel-rapl:1"],
    )
    start = meter.read()
    rapl(tmp_path, 412_500, 11_000)
    assert meter.used_mj([(start, meter.read()), (start, start)]) == [13.5, 0.0]  # 12,500 and 1,000 µJ


def test_a_counter_that_turned_over_goes_on(tmp_path: Path) -> None:
    meter = find_meter(root=rapl(tmp_path, 990_000, 5_000))
    start = meter.read()
    rapl(tmp_path, 5_000, 6_000)
    assert meter.used_mj([(start, meter.read())]) == [(1_000_000 - 990_000 + 5_000 + 1_000) / 1000]


@pytest.mark.parametrize("largest", [None, 900_000])
def test_a_counter_that_turned_over_nobody_knows_where(tmp_path: Path, largest: int | None) -> None:
    meter = find_meter(root=rapl(tmp_path, 990_000, largest=largest))
    start = meter.read()
    rapl(tmp_path, 5_000, largest=largest)
    with pytest.raises(MeasureError, match="turned over and does not say at which number"):
        meter.used_mj([(start, meter.read())])


def test_a_counter_that_vanishes_is_no_number(tmp_path: Path) -> None:
    meter = find_meter(root=rapl(tmp_path, 5))
    start = meter.read()
    (tmp_path / POWERCAP / "intel-rapl:0/energy_uj").unlink()
    assert meter.read() == ()
    with pytest.raises(MeasureError, match="could not be read at both ends"):
        meter.used_mj([(start, meter.read())])


def test_without_a_counter_the_cause_is_said(tmp_path: Path) -> None:
    meter = find_meter(root=tmp_path)
    assert meter.label == "not available: no RAPL counter, no battery in use and no power meter on this machine"
    assert meter.read() == ()
    with pytest.raises(MeasureError, match="no RAPL counter"):
        meter.used_mj([])
    only_psys = tree(tmp_path, {f"{POWERCAP}/intel-rapl:0/name": "psys", f"{POWERCAP}/intel-rapl:0/energy_uj": 5})
    assert isinstance(find_meter(root=only_psys), NoMeter)


def test_a_forbidden_counter_comes_with_a_rule_for_one_group(tmp_path: Path) -> None:
    rapl(tmp_path, 5)
    counter = tmp_path / POWERCAP / "intel-rapl:0/energy_uj"
    counter.unlink()
    counter.mkdir()  # there, and reading it fails, for root too
    label = find_meter(root=tmp_path).label
    assert label.startswith("not available: the RAPL counter is readable by root only")
    assert "chgrp rapl" in label and "chmod 0440" in label and "\n" not in label
    assert "a+r" not in label


# ------------------------------------------------------------------------------------------------- NVML


class NVMLError(Exception):
    """What the module raises."""


def pynvml(counters: Sequence[int | None]) -> Any:
    """A stand-in whose only GPU has number 1 and shows these mJ, one after another; `None` is a refusal."""
    shown = iter(counters)

    def consumption(handle: int) -> int:
        value = next(shown)
        if handle != 1 or value is None:
            raise NVMLError("Not Supported")
        return value

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=consumption,
    )


def test_a_gpu_s_counter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml([0, 5_000, 5_250]))
    meter = find_meter(gpu=1, root=rapl(tmp_path, 5))
    assert meter == Nvml(1)
    assert meter.label == "measured:nvml"
    assert meter.used_mj([(meter.read(), meter.read())]) == [250]


def test_a_gpu_without_a_counter_is_not_replaced_by_the_processor_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml([None]))
    assert find_meter(gpu=1, root=rapl(tmp_path, 5)).label == "not available: NVML: Not Supported"


def test_a_gpu_that_is_lost_or_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml([None]))
    assert Nvml(1).read() == ()
    with pytest.raises(MeasureError, match="loaded anew"):
        Nvml(1).used_mj([((500.0,), (20.0,))])


# ---------------------------------------------------------------------------------------------- batteries


def battery(root: Path, **files: Any) -> Path:
    values = {"type": "Battery", "status": "Discharging", **files}
    return tree(root, {f"sys/class/power_supply/BAT0/{name}": value for name, value in values.items()})


def test_a_battery_that_shows_energy(tmp_path: Path) -> None:
    meter = find_meter(root=battery(tmp_path, energy_now=50_000_000))
    assert isinstance(meter, Battery)
    assert meter.label == "estimated:battery"
    start = meter.read()
    battery(tmp_path, energy_now=49_990_000)
    assert meter.used_mj([(start, meter.read())]) == [36_000.0]  # 10,000 µWh = 0.01 Wh = 36 J


def test_a_battery_that_shows_charge(tmp_path: Path) -> None:
    meter = find_meter(root=battery(tmp_path, charge_now=4_000_000, voltage_now=12_000_000))
    start = meter.read()
    battery(tmp_path, charge_now=3_999_000, voltage_now=11_000_000)
    # 1 mAh at 11.5 V in the mean: 0.001 × 3600 s × 11.5 V = 41.4 J
    assert meter.used_mj([(start, meter.read())]) == [pytest.approx(41_400.0)]


def test_a_battery_that_is_charged_or_stands_still(tmp_path: Path) -> None:
    meter = find_meter(root=battery(tmp_path, energy_now=50_000_000))
    start = meter.read()
    with pytest.raises(MeasureError, match="did not move within a window"):
        meter.used_mj([(start, meter.read())])
    battery(tmp_path, status="Charging")
    assert meter.read() == ()
    assert isinstance(find_meter(root=tmp_path), NoMeter)


def test_a_battery_without_a_gauge_is_no_meter(tmp_path: Path) -> None:
    assert isinstance(find_meter(root=battery(tmp_path, charge_now=5)), NoMeter)


def test_rapl_comes_before_the_battery(tmp_path: Path) -> None:
    assert isinstance(find_meter(root=rapl(battery(tmp_path, energy_now=5), 5)), Rapl)


# ------------------------------------------------------------------------------------- the user's own meter


@pytest.mark.parametrize(
    "content",
    [
        b"time,watts\n1700000000,2\n1700000001,4\n",
        b"\xef\xbb\xbf time , Power [W]\r\n1700000000,2.0\r\n1700000001,4.0\r\n",
        b"Timestamp;Power (W);note\n1700000000,0;2,0;x\n1700000001,0;4,0;\n",
        b"epoch_ms\tPower (mW)\n1700000000000\t2000\n1700000001000\t4000\n",
        b"# logged by hand\n\ntime,W\n2023-11-14T22:13:20Z,2\n\n2023-11-14T22:13:21+00:00,4\n",
        b'"time","voltage_v","current_ma"\n"1700000000","5","400"\n"1700000001","5","800"\n',
        "\ufefftime;U;Volts;Amps\n2023-11-14 22:13:20+00:00;0;4;0,5\n2023-11-14 22:13:21+00:00;0;4;1\n".encode(
            "utf-16-le"
        ),
        b"time,power,extra\n1700000000,2\n1700000001,4",
    ],
)
def test_files_as_meters_write_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meter.csv").write_bytes(content)
    trace = read_trace(tmp_path / "meter.csv")
    assert trace.moments == pytest.approx((1_700_000_000, 1_700_000_001), abs=1e-6)
    assert trace.watts == pytest.approx((2, 4))


def test_a_time_without_a_zone_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-3")  # three hours east
    time.tzset()
    try:
        (tmp_path / "meter.csv").write_text("time,watts\n2023-11-15 01:13:20,1\n2023-11-15T01:13:21.5,1\n")
        assert read_trace(tmp_path / "meter.csv").moments == (1_700_000_000, 1_700_000_001.5)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "is empty; wanted a column of times"),
        ("# nothing\n", "is empty"),
        ("when,watts\n1,2\n", "has the columns when, watts; wanted a column of times"),
        ("time,volts\n1,2\n", "has the columns time, volts"),
        ("time,watts,power_w\n1,2,2\n", "has the columns watts, power_w, which say the same"),
        ("time,watts\n", "has 0 rows below its names"),
        ("time,watts\n1,2\n", "has 1 rows below its names"),
        ("time,watts\n1,2\n# why\n3,two\n", "line 4 is '3,two'; wanted a time"),
        ("time,watts\n1,2\n3\n", "line 3 is '3'"),
        ("time,watts\n1,2\n3,nan\n", "line 3 is '3,nan'"),
        ("time,watts\n1,2\nnan,3\n", "line 3 is 'nan,3'"),
        ("time,watts\n1,2\n1700000000000,3\n", "line 3 is '1700000000000,3'"),  # milliseconds, not said
        ("time,watts\n1,2\n12:30:01,3\n", "line 3 is '12:30:01,3'"),
        ('time,watts\n1,2\n3,"1,234"\n', "line 3"),
        ("time,watts\n1,2\n3,4\n2.5,4\n", "line 4 is 0.5 s earlier than the line before; sort it"),
        ("time,watts\n1,2\n3," + "4" * 140_000, "line 3"),
    ],
)
def test_files_that_are_no_meter_s(tmp_path: Path, content: str, cause: str) -> None:
    (tmp_path / "meter.csv").write_text(content)
    with pytest.raises(SettingError) as raised:
        read_trace(tmp_path / "meter.csv")
    assert cause in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        find_meter(tmp_path / "none.csv")
    with pytest.raises(SettingError, match="cannot be read"):
        find_meter(tmp_path)
    (tmp_path / "meter.csv").write_text("time,watts\n1,2\n")
    monkeypatch.setattr("featherweight.device.meter_csv.MOST_BYTES", 9)
    with pytest.raises(SettingError, match="wanted the rows of this run alone"):
        find_meter(tmp_path / "meter.csv")


def rows(*points: tuple[float, float]) -> str:
    return "time,watts\n" + "".join(f"{moment!r},{watts!r}\n" for moment, watts in points)


def test_the_integral_is_that_of_straight_lines(tmp_path: Path) -> None:
    (tmp_path / "meter.csv").write_text(rows(*((n, 2.0 * n) for n in range(21))))  # 2 W more every second
    trace = read_trace(tmp_path / "meter.csv")
    assert trace.joules(0, 20) == 20 * 20  # t² from 0 to 20
    assert trace.joules(2.5, 11.25) == pytest.approx(11.25**2 - 2.5**2)
    assert trace.joules(3, 9) == pytest.approx(81 - 9)


def test_rows_of_the_same_moment_are_a_step(tmp_path: Path) -> None:
    points = [(0, 1.0), (1, 1.0), (1.5, 1.0), (2, 1.0), (2, 5.0), (3, 5.0), (4, 5.0)]
    (tmp_path / "meter.csv").write_text(rows(*points))
    assert read_trace(tmp_path / "meter.csv").joules(0.5, 3.5) == pytest.approx(1.5 * 1 + 1.5 * 5)


@pytest.mark.parametrize(
    ("window", "cause"),
    [
        ((-1, 5), "covers 1970-01-01 00:00:00 UTC to 1970-01-01 00:01:00 UTC, the window is 1969-12-31"),
        ((50, 61), "wanted a file of the whole run"),
        ((5, 45), "no row for 21 s after 1970-01-01 00:00:20 UTC"),
        ((19.5, 22), "no row for 21 s"),
        ((5.5, 8.5), "has 3 rows within a window of 3.0 s; wanted 5"),
        ((-1e30, 5), "the window is -1e+30 s to"),
    ],
)
def test_a_window_that_the_file_does_not_carry(tmp_path: Path, window: tuple[float, float], cause: str) -> None:
    points = [(n, 1.0) for n in range(61) if not 20 < n < 41]
    (tmp_path / "meter.csv").write_text(rows(*points))
    with pytest.raises(MeasureError) as raised:
        read_trace(tmp_path / "meter.csv").joules(*window)
    assert cause in str(raised.value)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------- the windows


@dataclass
class Clock:
    """A made-up time; running takes 7 W and idling 2 W, later `idle_later` W."""

    now_s: float = 1_700_000_000.0
    mj: float = 0.0
    idle_w: float = 2.0
    running_w: float = 7.0
    log: list[tuple[float, float]] = field(default_factory=list)

    def spend(self, seconds: float, watts: float) -> None:
        self.now_s += seconds
        self.mj += watts * seconds * 1e3

    def sleep(self, seconds: float) -> None:
        self.spend(seconds, self.idle_w)

    def run(self, seconds: float) -> int:
        self.spend(seconds, self.running_w)
        return 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time", lambda: made.now_s)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round((made.now_s - 1_699_999_000) * 1e9))
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


@dataclass(frozen=True)
class Counter:
    """A perfect meter."""

    clock: Clock
    label: str = "measured:meter"
    scope: str = "all"

    def read(self) -> Reading:
        return (self.clock.mj,)

    def used_mj(self, spans: Sequence[Span]) -> list[float]:
        return [end[0] - start[0] for start, end in spans]


def test_idling_is_subtracted_and_shown(clock: Clock) -> None:
    found = measure_energy(clock.run, 10.0, 6, 4.0, Counter(clock))
    assert found.method == "measured:meter"
    assert found.measured
    assert found.gross_mj_per_inference == pytest.approx(7 * 10 * 1000 / 20)
    assert found.mj_per_inference == pytest.approx((7 - 2) * 10 * 1000 / 20)
    assert found.interval_mj == pytest.approx((2500, 2500))
    assert (found.idle_before_watts, found.idle_after_watts) == pytest.approx((2, 2))
    assert found.spread == pytest.approx(0, abs=1e-6)
    assert found.runs == 6 * 20
    assert found.window_mj == pytest.approx((2500,) * 6)
    assert [window.runs for window in (*found.idle, *found.windows)] == [0, 0] + [20] * 6
    assert found.notes == ("all",)
    edges = [edge for window in found.windows for edge in (window.start_s, window.end_s)]
    assert edges == pytest.approx([1_700_000_004 + 10 * n for n in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6)])
    assert json.loads(json.dumps(found.as_dict()))["mj_per_inference"] == found.mj_per_inference


def test_five_windows_carry_no_interval(clock: Clock) -> None:
    found = measure_energy(clock.run, 1.0, 5, 1.0, Counter(clock))
    assert found.measured
    assert found.interval_mj is None


def test_windows_that_differ_are_told_by_the_median_and_their_spread(clock: Clock) -> None:
    powers = iter((4.0, 5.0, 6.0, 7.0, 8.0, 9.0))

    def run(seconds: float) -> int:
        clock.spend(seconds, next(powers))
        return 1

    found = measure_energy(run, 1.0, 6, 1.0, Counter(clock))
    assert found.window_mj == pytest.approx((2000, 3000, 4000, 5000, 6000, 7000))
    assert found.mj_per_inference == pytest.approx(4500)
    assert found.interval_mj == pytest.approx((2000, 7000))
    assert found.spread == pytest.approx((6000 - 3000) / 4000)  # nearest ranks


def test_idling_that_changes_is_said(clock: Clock) -> None:
    def run(seconds: float) -> int:
        clock.idle_w = 3.0
        return clock.run(seconds)

    found = measure_energy(run, 10.0, 5, 4.0, Counter(clock))
    assert found.notes == ("all", "idling changed from 2.00 to 3.00 W, running took 7.00 W")
    assert found.mj_per_inference == pytest.approx((7 - 2.5) * 10 * 1000 / 20)


def test_running_that_takes_no_more_than_idling_is_no_number(clock: Clock) -> None:
    clock.running_w = 2.0
    found = measure_energy(clock.run, 10.0, 5, 4.0, Counter(clock))
    assert found.method.startswith("not available: running took no more power than idling")
    assert found.mj_per_inference is None
    assert not found.measured


def test_without_a_meter_nothing_is_run(clock: Clock) -> None:
    def never(seconds: float) -> int:
        raise AssertionError(seconds)

    found = measure_energy(never, 1.0, 5, 1.0, NoMeter("no plug"))
    assert (found.method, found.mj_per_inference, found.windows) == ("not available: no plug", None, ())


@pytest.mark.parametrize(
    ("seconds", "windows", "idle"),
    [(1, 4, 1), (0, 5, 1), (1, 5, 0), (-1, 5, 1), (float("nan"), 5, 1), (1, 5, float("inf"))],
)
def test_settings_that_cannot_be(clock: Clock, seconds: float, windows: int, idle: float) -> None:
    with pytest.raises(SettingError, match="wanted 5 windows or more, and times above 0"):
        measure_energy(clock.run, seconds, windows, idle, Counter(clock))


def test_a_window_without_one_inference(clock: Clock) -> None:
    with pytest.raises(MeasureError, match="not one inference within 1 s; take longer windows"):
        measure_energy(lambda seconds: 0, 1.0, 5, 1.0, Counter(clock))


def meter_file(path: Path, clock: Clock, powers: Sequence[tuple[float, float]]) -> Path:
    """A row every 0.1 s while the power is in turn (seconds, watts), from the start of time on."""
    moments, at = [(clock.now_s - 1.0, 2.0)], clock.now_s
    for seconds, watts in powers:
        moments += [(at + 1e-6, watts), *((at + n / 10, watts) for n in range(1, round(seconds * 10)))]
        at += seconds
        moments.append((at, watts))
    moments.append((at + 5.0, powers[-1][1]))
    path.write_text(rows(*moments))
    return path


def test_a_meter_s_file_is_laid_beside_the_windows(tmp_path: Path, clock: Clock) -> None:
    path = meter_file(tmp_path / "meter.csv", clock, [(4.0, 2.0), (50.0, 7.0), (4.0, 2.0)])
    meter = find_meter(path)
    assert meter == CsvMeter(path)
    found = measure_energy(clock.run, 10.0, 5, 4.0, meter)
    assert found.method == "measured:meter"
    assert found.mj_per_inference == pytest.approx(2500, rel=1e-4)
    again = from_csv(path, found.idle, found.windows)
    assert again.mj_per_inference == pytest.approx(found.mj_per_inference, rel=1e-6)


def test_a_file_that_is_handed_in_later(tmp_path: Path, clock: Clock) -> None:
    path = meter_file(tmp_path / "meter.csv", clock, [(4.0, 2.0), (50.0, 7.0), (4.0, 2.0)])
    first = measure_energy(clock.run, 10.0, 5, 4.0, LaterMeter())
    assert first.method == "not available: the meter's file is still to be handed in"
    assert first.mj_per_inference is None
    kept = json.loads(json.dumps(first.as_dict()))
    windows = [Window(**window) for window in kept["windows"]]
    found = from_csv(str(path), [Window(**window) for window in kept["idle"]], windows)
    assert found.method == "measured:meter"
    assert found.mj_per_inference == pytest.approx(2500, rel=1e-4)
    assert found.runs == 100
    with pytest.raises(MeasureError, match="still to be handed in"):
        LaterMeter().used_mj([])
    for idle, some in (
        (windows[:1], windows),
        (windows[:2], windows[:4]),
        (windows[:2], [*windows[:4], Window(1, 2, 1, 0)]),
    ):
        with pytest.raises(SettingError, match="wanted 2 idle windows and 5 or more"):
            from_csv(path, idle, some)


def test_a_file_that_fails_afterwards_costs_the_number_and_not_the_windows(tmp_path: Path, clock: Clock) -> None:
    path = meter_file(tmp_path / "meter.csv", clock, [(4.0, 2.0), (20.0, 7.0)])
    found = measure_energy(clock.run, 10.0, 5, 4.0, find_meter(path))
    assert found.method.startswith("not available: the meter's file covers")
    assert (found.mj_per_inference, found.runs, len(found.windows), len(found.idle)) == (None, 100, 5, 2)
    with pytest.raises(MeasureError, match="covers"):
        from_csv(path, found.idle, found.windows)

    def spoil(seconds: float) -> int:
        path.write_text("time,watts\n1,")
        return clock.run(seconds)

    assert measure_energy(spoil, 10.0, 5, 4.0, CsvMeter(path)).method.startswith(f"not available: {path} line 2 is")


def test_a_counter_s_windows_come_from_its_readings(tmp_path: Path, clock: Clock) -> None:
    steps = itertools.count(100_000, 10_000)

    def spend(do: Callable[[float], Any]) -> Callable[[float], int]:
        def spent(seconds: float) -> int:
            do(seconds)
            rapl(tmp_path, next(steps))
            return 10

        return spent

    meter = find_meter(root=rapl(tmp_path, 90_000))
    found = measure_energy(spend(clock.run), 1.0, 5, 1.0, meter)
    assert found.method == "measured:rapl-package"
    assert found.gross_mj_per_inference == pytest.approx(1.0)  # 10,000 µJ for 10 inferences
    assert found.mj_per_inference == pytest.approx(1.0)  # the counter stood still while idling


# ----------------------------------------------------------------------------------------------- estimates


def test_an_estimate_says_that_it_is_one() -> None:
    found = estimate(4.5, 0.020)
    assert found["method"] == "estimated:power-given"
    assert found["mj_per_inference"] == pytest.approx(90.0)
    assert found["note"].startswith("±40 % or worse")
    assert json.loads(json.dumps(found)) == found
    assert not energy.Energy("estimated:battery", 5.0).measured


@pytest.mark.parametrize(("watts", "seconds"), [(0, 1), (-1, 1), (5, 0), (float("nan"), 1), (float("inf"), 1)])
def test_an_estimate_of_nothing(watts: float, seconds: float) -> None:
    with pytest.raises(SettingError, match="wanted both above 0"):
        estimate(watts, seconds)


# ------------------------------------------------------------------------------ how a measurement asks for energy


@pytest.mark.parametrize("watts", [0.0, -5.0, float("nan"), float("inf")])
def test_a_power_that_cannot_be(watts: float) -> None:
    with pytest.raises(SettingError, match=r"a power of .* W; wanted a number above 0"):
        Power(watts=watts)


def test_a_meter_s_file_is_looked_at_before_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    Power().check()
    Power(path, 5.0).check()  # it is handed in later
    path.write_text(rows((1.0, 2.0)))
    Power(path).check()  # it still grows
    path.write_text("a photograph")
    with pytest.raises(SettingError, match="wanted a column of times"):
        Power(path).check()


def test_a_protocol_has_as_many_windows_as_energy_needs() -> None:
    assert Protocol(energy_windows=5, energy_window_seconds=0).energy_windows == 5
    with pytest.raises(SettingError, match=r"4 windows of energy; wanted 5 or more, or energy_window_seconds=0"):
        Protocol(energy_windows=4)


def test_a_single_picture_is_quick() -> None:
    assert (Protocol().quick, Protocol(inputs=2).quick, Protocol(inputs=1).quick, QUICK.quick) == (
        False,
        False,
        True,
        True,
    )
