"""What each stage of a compression gained: floating bars from the value before to the value after, as one SVG.

Imports page and quantity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.page import escape
from featherweight.quantity import Quantity

BAR_WIDTH, GAP, TOP, HEIGHT, FOOT = 130, 30, 34, 240, 62
STYLE = """
.gain{fill:var(--front)}.loss{fill:var(--miss)}.whole{fill:var(--other)}
.refused{fill:none;stroke:var(--miss);stroke-dasharray:4 3}.step{stroke:var(--soft);stroke-dasharray:2 3}
td.text{min-width:20em}
"""


@dataclass(frozen=True)
class Bar:
    """A stage: the value that it reached, whether it was taken, and a line of text below."""

    name: str
    value: float | None
    kept: bool = True
    note: str = ""


def waterfall(quantity: Quantity, bars: Sequence[Bar]) -> str:
    """The way of one quantity from the first bar, drawn from zero, over each stage to the last.

    A stage that was refused is a dashed outline, and the next one starts where it did. A stage without a number is
    left out.
    """
    drawn = [bar for bar in bars if bar.value is not None]
    if not drawn:
        return f"<p>No {escape(quantity.label)} to draw.</p>"
    most = max(bar.value or 0.0 for bar in drawn) or 1.0
    width = len(drawn) * (BAR_WIDTH + GAP) + GAP
    parts = [
        f'<svg viewBox="0 0 {width} {TOP + HEIGHT + FOOT}" style="max-width:{width}px" role="img" '
        f'aria-label="{escape(quantity.label)} by stage">'
    ]
    before: float | None = None
    for place, bar in enumerate(drawn):
        left = GAP + place * (BAR_WIDTH + GAP)
        parts += _bar(quantity, bar, before, most, left)
        if bar.kept:
            before = bar.value
        if place < len(drawn) - 1 and before is not None:
            y = _height(before, most)
            parts.append(f'<line class="step" x1="{left}" y1="{y:.1f}" x2="{left + BAR_WIDTH + GAP}" y2="{y:.1f}"/>')
    return "\n".join([*parts, "</svg>"])


def _height(value: float, most: float) -> float:
    return TOP + HEIGHT * (1 - value / most)


def _bar(quantity: Quantity, bar: Bar, before: float | None, most: float, left: int) -> list[str]:
    value = bar.value or 0.0
    top, bottom = sorted((_height(value, most), _height(before or 0.0, most)))
    if not bar.kept:
        kind = "refused"
    elif before is None:
        kind = "whole"
    else:
        kind = "gain" if value <= before else "loss"
    middle = left + BAR_WIDTH / 2
    change = "" if not before else f" ({value / before - 1:+.0%})"
    texts = [
        (TOP + HEIGHT + 18, bar.name + ("" if bar.kept else ", refused")),
        (TOP + HEIGHT + 36, bar.note),
        (top - 6, f"{quantity.show(value)}{change}"),
    ]
    return [
        f'<rect class="{kind}" x="{left}" y="{top:.1f}" width="{BAR_WIDTH}" height="{max(bottom - top, 1):.1f}"/>',
        *(f'<text x="{middle}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>' for y, text in texts if text),
    ]
