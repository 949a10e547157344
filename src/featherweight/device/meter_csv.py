"""The file of a power meter that the user hands in: rows of a time and watts, or volts and amperes.

Times are seconds since 1970 or ISO 8601 (without a zone: the local one); the first line names the columns, in any case
and with units in brackets as meters write them (`Power (mW)`). Commas, semicolons or tabs part the columns; with the
latter two a comma may be the decimal point. Lines that start with # are left out, and nothing else is.

The meter's clock must be this device's: a meter that is logged on another machine wants both set by the network.
Imports errors.
"""

import bisect
import csv
import datetime
import io
import itertools
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.errors import MeasureError, SettingError

MOST_BYTES = 256 * 2**20
MOST_GAP_SECONDS = 10.0
# With fewer rows in a window the straight lines at its edges would mix running and idling.
LEAST_ROWS = 5
# A time beyond the year 5000 is one in milliseconds.
MOST_SECONDS = 1e11

# Column → how many of our own unit one of it is.
TIMES = {
    **dict.fromkeys(("time", "timestamp", "datetime", "date_time", "epoch", "time_s", "timestamp_s", "epoch_s"), 1.0),
    **dict.fromkeys(("time_ms", "timestamp_ms", "epoch_ms"), 1e-3),
}
WATTS = {
    **dict.fromkeys(("watts", "watt", "w", "power", "power_w", "power_watts"), 1.0),
    **dict.fromkeys(("milliwatts", "mw", "power_mw"), 1e-3),
}
VOLTS = {
    **dict.fromkeys(("volts", "volt", "v", "voltage", "voltage_v"), 1.0),
    **dict.fromkeys(("mv", "voltage_mv"), 1e-3),
}
AMPERES = {
    **dict.fromkeys(("amperes", "ampere", "amps", "amp", "a", "current", "current_a"), 1.0),
    **dict.fromkeys(("ma", "current_ma"), 1e-3),
}
WANTED = "wanted a column of times (time, timestamp) and one of watts (watts, power, W), or volts and amperes"


@dataclass(frozen=True)
class Trace:
    """Moments in seconds since 1970, never falling, and the watts at each."""

    moments: tuple[float, ...]
    watts: tuple[float, ...]

    def joules(self, start_s: float, end_s: float) -> float:
        """Trapezoids between the rows; the edges of the window are put in between theirs.

        Raises:
            MeasureError: the rows do not cover the window, leave a gap of over 10 s in it, or are too few.
        """
        if not self.moments[0] <= start_s < end_s <= self.moments[-1]:
            covered = f"{_clock(self.moments[0])} to {_clock(self.moments[-1])}"
            raise MeasureError(
                f"the meter's file covers {covered}, the window is {_clock(start_s)} to {_clock(end_s)}; "
                "wanted a file of the whole run, with the time of this device"
            )
        first = bisect.bisect_right(self.moments, start_s)
        last = bisect.bisect_left(self.moments, end_s)
        self._check_gaps(first - 1, last)
        if last - first < LEAST_ROWS:
            raise MeasureError(
                f"the meter's file has {last - first} rows within a window of {end_s - start_s:.1f} s; "
                f"wanted {LEAST_ROWS}: take longer windows, or let the meter write more often"
            )
        inside = [(self.moments[row], self.watts[row]) for row in range(first, last)]
        points = [(start_s, self._at(start_s)), *inside, (end_s, self._at(end_s))]
        return sum((b - a) * (p + q) / 2 for (a, p), (b, q) in itertools.pairwise(points))

    def _check_gaps(self, first: int, last: int) -> None:
        for row in range(first, last):
            gap = self.moments[row + 1] - self.moments[row]
            if gap > MOST_GAP_SECONDS:
                raise MeasureError(
                    f"the meter's file has no row for {gap:.0f} s after {_clock(self.moments[row])}; "
                    f"wanted one every {MOST_GAP_SECONDS:g} s or more often"
                )

    def _at(self, moment: float) -> float:
        """The watts between two rows, on a straight line."""
        after = bisect.bisect_left(self.moments, moment)
        if self.moments[after] == moment:
            return self.watts[after]
        a, b = self.moments[after - 1], self.moments[after]
        return self.watts[after - 1] + (self.watts[after] - self.watts[after - 1]) * (moment - a) / (b - a)


@dataclass(frozen=True)
class CsvMeter:
    """A meter whose file is read when the windows are over; its readings are moments."""

    path: Path
    label: str = "measured:meter"
    scope: str = "whatever the user's meter was connected to"

    @classmethod
    def checked(cls, path: Path) -> "CsvMeter":
        """The meter of a file that can be read as it is now; it may still grow.

        Raises:
            SettingError: not a meter's file.
        """
        _opened(path)
        return cls(path)

    def read(self) -> tuple[float, ...]:
        """The moment, in seconds since 1970."""
        return (time.time(),)

    def used_mj(self, spans: Sequence[tuple[tuple[float, ...], tuple[float, ...]]]) -> list[float]:
        """The integrals over the spans.

        Raises:
            SettingError: not a meter's file any more.
            MeasureError: the file does not cover a span, or has gaps in it.
        """
        trace = read_trace(self.path)
        return [trace.joules(start[0], end[0]) * 1e3 for start, end in spans]


def read_trace(path: str | Path) -> Trace:
    """Read a meter's file.

    Raises:
        SettingError: absent, too large, without the columns, or with a row that cannot be read, with its number.
    """
    file = Path(path)
    columns, lines = _opened(file)
    read = [columns.read(text, number, file) for number, text in lines]
    if len(read) < 2:
        raise SettingError(f"{file} has {len(read)} rows below its names; wanted a row every second or more often")
    for (number, _), (before, _), (after, _) in zip(lines[1:], read, read[1:], strict=False):
        if after < before:
            raise SettingError(f"{file} line {number} is {before - after:g} s earlier than the line before; sort it")
    return Trace(tuple(moment for moment, _ in read), tuple(watts for _, watts in read))


def _opened(file: Path) -> "tuple[_Columns, list[tuple[int, str]]]":
    """What the first line names, and the lines below it with their numbers."""
    (_, names), *rows = _lines(file)
    return _Columns.named(names, file), rows


def _lines(file: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that hold something; a spreadsheet's byte order marks are understood."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise SettingError(f"{file} is over {MOST_BYTES >> 20} MiB; wanted the rows of this run alone")
        content = file.read_bytes()
    except OSError as error:
        raise SettingError(f"{file} cannot be read ({error.strerror}); wanted the CSV file of a power meter") from None
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = content.decode(encoding, errors="replace").replace("\x00", "")
    lines = [(number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip()]
    kept = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if not kept:
        raise SettingError(f"{file} is empty; {WANTED}")
    return kept


@dataclass(frozen=True)
class _Columns:
    """Where the time stands, and what is multiplied to get watts; each with the size of its unit."""

    time: tuple[int, float]
    factors: tuple[tuple[int, float], ...]
    delimiter: str

    @classmethod
    def named(cls, line: str, file: Path) -> "_Columns":
        """From the names that a line gives.

        Raises:
            SettingError: it does not name what is wanted, or names it twice.
        """
        delimiter = max(",;\t", key=line.count)
        names = line.strip().split(delimiter)
        plain = [re.sub("[^a-z0-9]+", "_", name.lower()).strip("_") for name in names]
        moment, watts, volts, amperes = (_column(plain, known, file) for known in (TIMES, WATTS, VOLTS, AMPERES))
        if moment is not None and watts is not None:
            return cls(moment, (watts,), delimiter)
        if moment is not None and volts is not None and amperes is not None:
            return cls(moment, (volts, amperes), delimiter)
        raise SettingError(f"{file} has the columns {', '.join(name.strip() for name in names)[:200]}; {WANTED}")

    def read(self, line: str, number: int, file: Path) -> tuple[float, float]:
        """(moment, watts) of a row.

        Raises:
            SettingError: it has not what is wanted.
        """
        place, unit = self.time
        try:
            cells = next(csv.reader([line], delimiter=self.delimiter))
            moment = self._moment(cells[place]) * unit
            watts = math.prod(self._number(cells[at]) * scale for at, scale in self.factors)
            if not abs(moment) < MOST_SECONDS or not math.isfinite(watts):
                raise ValueError
        except (ValueError, IndexError, OverflowError, OSError, csv.Error):
            raise SettingError(
                f"{file} line {number} is {line.strip()[:80]!r}; wanted a time (seconds since 1970, or ISO 8601) "
                "and finite numbers"
            ) from None
        return moment, watts

    def _moment(self, text: str) -> float:
        try:
            return self._number(text)
        except ValueError:
            return datetime.datetime.fromisoformat(text.strip()).timestamp()

    def _number(self, text: str) -> float:
        return float(text if self.delimiter == "," else text.replace(",", "."))


def _column(names: Sequence[str], known: Mapping[str, float], file: Path) -> tuple[int, float] | None:
    found = [(place, known[name]) for place, name in enumerate(names) if name in known]
    if len(found) > 1:
        doubled = ", ".join(names[place] for place, _ in found)
        raise SettingError(f"{file} has the columns {doubled}, which say the same; leave one of them")
    return found[0] if found else None


def _clock(moment: float) -> str:
    """UTC to the second; the bare number where no calendar has it."""
    try:
        return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{moment:g} s"
