"""The way of a quantity from stage to stage, drawn: where each bar begins and ends."""

import re

import pytest

from featherweight.record import QUANTITIES
from featherweight.report.waterfall import HEIGHT, TOP, Bar, waterfall

LATENCY = QUANTITIES["latency_p50_ms"]
BARS = [Bar("as it was", 4.0, note="top-1 90 %"), Bar("prune", 2.0), Bar("fold", 3.0, kept=False), Bar("int8", 1.0)]


def rectangles(drawn: str) -> list[tuple[str, float, float]]:
    """(kind, top, height) as shares of the height of the greatest bar, from below."""
    found = re.findall(r'<rect class="(\w+)" x="\d+" y="([\d.]+)" width="\d+" height="([\d.]+)"', drawn)
    return [(kind, 1 - (float(y) - TOP) / HEIGHT, float(height) / HEIGHT) for kind, y, height in found]


def test_each_bar_goes_from_the_last_that_was_kept_to_its_own() -> None:
    found = rectangles(waterfall(LATENCY, BARS))
    wanted = [("whole", 1.0, 1.0), ("gain", 1.0, 0.5), ("refused", 0.75, 0.25), ("gain", 0.5, 0.25)]
    assert [kind for kind, _, _ in found] == [kind for kind, _, _ in wanted]
    for (_, top, height), (_, wanted_top, wanted_height) in zip(found, wanted, strict=True):
        assert (top, height) == pytest.approx((wanted_top, wanted_height), abs=1e-3)


def test_it_says_values_changes_and_what_was_refused() -> None:
    drawn = waterfall(LATENCY, BARS)
    for text in (LATENCY.show(4.0), "(-50%)", "fold, refused", "(+50%)", "top-1 90 %"):
        assert f">{text}" in drawn or f"{text}<" in drawn
    assert rectangles(waterfall(LATENCY, [Bar("a", 1.0), Bar("b", 2.0)]))[1][0] == "loss"


def test_what_was_not_measured_is_left_out() -> None:
    assert len(rectangles(waterfall(LATENCY, [Bar("a", 1.0), Bar("b", None), Bar("c", 0.5)]))) == 2
    assert waterfall(LATENCY, [Bar("a", None)]) == f"<p>No {LATENCY.label} to draw.</p>"


def test_names_are_text() -> None:
    assert "<b>" not in waterfall(LATENCY, [Bar("<b>", 1.0, note="<b>")])
