"""What a long step shows: a bar on a terminal, seldom a line elsewhere, and the items untouched in both."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from featherweight.progress import LINE_EVERY_SECONDS, track


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def show_on(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Screen:
    """To be called in the test itself: between set-up and call pytest puts its own standard error back."""
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    return screen


on_both = pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])


class Clock:
    """Stands still but for `step`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("featherweight.progress.time", clock)
    return clock


@on_both
def test_the_items_come_through_in_order(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_on(Screen(terminal), monkeypatch)
    assert list(track(range(30), "counting", 30)) == list(range(30))
    assert list(track([], "nothing", 0)) == []
    assert capsys.readouterr().out == ""


@on_both
def test_a_terminal_sees_the_label_and_a_log_is_left_alone(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on(Screen(terminal), monkeypatch)
    list(track(range(30), "counting", 30))
    assert ("counting" in screen.getvalue()) == screen.terminal


@on_both
def test_an_item_is_asked_for_only_when_it_is_wanted(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    show_on(Screen(terminal), monkeypatch)
    asked = []

    def items() -> Iterator[int]:
        for number in range(10):
            asked.append(number)
            yield number

    shown = track(items(), "lazy", 10)
    assert next(shown) == 0
    assert asked == [0]


@on_both
def test_an_error_in_the_items_comes_through(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    show_on(Screen(terminal), monkeypatch)

    def items() -> Iterator[int]:
        yield 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(track(items(), "failing", 2))


def test_a_log_gets_a_line_when_enough_time_has_passed(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_on(Screen(False), monkeypatch)
    caplog.set_level(logging.INFO, "featherweight")
    for _ in track(range(10), "decoding", 10):
        clock.now += 0.4 * LINE_EVERY_SECONDS
    # A line as soon as more than one interval has passed: after 3 items (1.2 intervals), 6 and 9.
    assert caplog.messages == ["decoding: 3 of 10", "decoding: 6 of 10", "decoding: 9 of 10"]


def test_a_short_step_leaves_a_log_alone(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_on(Screen(False), monkeypatch)
    caplog.set_level(logging.INFO, "featherweight")
    for _ in track(range(10), "decoding", 10):
        clock.now += LINE_EVERY_SECONDS / 10
    assert caplog.messages == []
