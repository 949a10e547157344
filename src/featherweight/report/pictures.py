"""Pictures with what is true and what was found, side by side, the worst first: boxes here, masks by a neighbour.

A picture is in the page once, as a small JPEG; boxes and words are drawn over it, so that they stay sharp.
Imports boxes, errors, image, matches, page and its neighbours.
"""

from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from featherweight.boxes import Boxes
from featherweight.errors import ImageError, display
from featherweight.image import read_image
from featherweight.matches import OVERLAP, Answers, Seen, SeenMask, to_look_at
from featherweight.page import escape
from featherweight.report import mask_pictures
from featherweight.report.inline import jpeg

WORST, OTHERS = 12, 6  # pictures in a page, of all files together
SIDE = 560  # the longer side of a picture in the page
MOST_LABELS = 16  # boxes of a kind that are named; all are named where the pointer rests
GAP = 16
LETTER = 7.6  # the width of one, about

STYLE = (
    mask_pictures.STYLE
    + """
figure{margin:18px 0}figcaption{font-size:13px;margin-bottom:4px;overflow-wrap:anywhere}
.pair{display:block;width:100%;height:auto;font:600 12px system-ui,sans-serif}
.pair rect{fill:none;stroke-width:2}.pair .edge{stroke:#000;stroke-width:4;stroke-opacity:.55}
.pair .right{stroke:#3ddc97}.pair .hard{stroke:#c9d1d9;stroke-dasharray:2 4}
.pair .missed{stroke:#ffb224;stroke-width:3;stroke-dasharray:8 4}.pair .wrong{stroke:#ff5c8a;stroke-width:3}
.pair .ground{stroke:none}.pair .ground.right{fill:#3ddc97}.pair .ground.missed{fill:#ffb224}
.pair .ground.wrong{fill:#ff5c8a}.pair .ground.hard{fill:#c9d1d9}.pair .ink{fill:#000}
.key{display:inline-block;padding:0 7px;margin-right:4px;color:#000;font-weight:600;font-size:13px}
.key.right{background:#3ddc97}.key.missed{background:#ffb224}.key.wrong{background:#ff5c8a}.key.hard{background:#c9d1d9}
"""
)


def pictures(answers: Sequence[Answers]) -> list[str]:
    """HTML for the answers of each file: how many were right, then the pictures."""
    body: list[str] = []
    names = map("picture-{}".format, count(1))
    limits = max(1, WORST // max(1, len(answers))), OTHERS // max(1, len(answers))
    for one in answers:
        body.append(f"<h2>What {escape(one.name)} finds</h2>")
        boxed = [seen for seen in one.pictures if isinstance(seen, Seen)]
        masked = [seen for seen in one.pictures if isinstance(seen, SeenMask)]
        if masked:
            worst_masks, other_masks = to_look_at(masked, *limits)
            body += [mask_pictures.told(masked, one.part, len(worst_masks), len(other_masks))]
            body += [mask_pictures.key(one.classes)]
            body += [mask_pictures.figure(seen, one.classes, next(names)) for seen in (*worst_masks, *other_masks)]
        else:
            worst, others = to_look_at(boxed, *limits)
            body += [_told(one, boxed, len(worst), len(others)), KEY]
            body += [_figure(seen, one.classes, next(names)) for seen in (*worst, *others)]
    return body


KEY = (
    '<p><span class="key right">right</span><span class="key missed">missed</span>'
    '<span class="key wrong">wrong</span><span class="key hard">need not be found</span></p>'
)


def _told(one: Answers, boxed: Sequence[Seen], worst: int, others: int) -> str:
    right = sum(int(seen.right.sum()) for seen in boxed)
    missed, wrong = (sum(int(part.sum()) for part in parts) for parts in zip(
        *((seen.missed, ~seen.right) for seen in boxed), strict=True
    )) if boxed else (0, 0)  # fmt: skip
    shown = [f"the {worst} with the most boxes missed or wrongly found, the worst first"] if worst else []
    shown += [f"{others} of the others" if worst else f"{others} of them"] if others else []
    return (
        f"<p>In {len(boxed)} pictures of the {escape(one.part)} part, with boxes that score at least "
        f"{one.score:g}: {right} boxes right, {missed} missed, {wrong} wrong. A box is right where it overlaps a true "
        f"one of its class by {OVERLAP:g} (intersection over union), which counts once. Below: "
        f"{', then '.join(shown) or 'none'}; on the left what is there, on the right what was found.</p>"
    )


def _figure(seen: Seen, classes: Sequence[str], name: str) -> str:
    words = [
        f"{int(number)} {word}"
        for number, word in ((seen.missed.sum(), "missed"), ((~seen.right).sum(), "wrong"), (seen.right.sum(), "right"))
    ]
    caption = f"<figcaption>{escape(display(seen.path.name))}: {', '.join(words)}</figcaption>"
    try:
        pixels = read_image(seen.path)
    except (ImageError, OSError) as error:
        return f"<figure>{caption}<p>It cannot be shown: {escape(error)}.</p></figure>"
    return f"<figure>{caption}{_pair(seen, classes, pixels, name)}</figure>"


def _pair(seen: Seen, classes: Sequence[str], pixels: NDArray[np.uint8], name: str) -> str:
    times = SIDE / max(pixels.shape[:2])
    width, height = (max(1, round(side * times)) for side in (pixels.shape[1], pixels.shape[0]))
    image = (
        f'<image id="{name}" width="{width}" height="{height}" preserveAspectRatio="none" href="{jpeg(pixels, SIDE)}"/>'
    )
    hard = np.where(seen.true.hard, "hard", "right")
    true = _boxes(seen.true, np.where(seen.missed, "missed", hard), classes, times, width)
    found = _boxes(seen.found, np.where(seen.right, "right", "wrong"), classes, times, width, scored=True)
    whole = 2 * width + GAP
    return (
        f'<svg class="pair" viewBox="0 0 {whole} {height}" style="max-width:{whole}px" role="img" '
        f'aria-label="true boxes on the left, found ones on the right">'
        f"<g>{image}{true}</g>"
        f'<g transform="translate({width + GAP} 0)"><use href="#{name}"/>{found}</g></svg>'
    )


def _boxes(
    boxes: Boxes, kinds: NDArray[np.str_], classes: Sequence[str], times: float, width: int, scored: bool = False
) -> str:
    """Rectangles, the failures on top; the first failures are named, and the others where they are few."""
    good = np.isin(kinds, ("right", "hard"))
    few = int(good.sum()) <= MOST_LABELS
    parts, words, failures = [], [], 0
    for place in np.argsort(~good, kind="stable"):
        kind = str(kinds[place])
        left, top, right, bottom = (float(side) * times for side in boxes.corners[place])
        text = classes[boxes.labels[place]] + (f" {100 * boxes.scores[place]:.0f} %" if scored else "")
        sides = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        hover = f"<title>{escape(text)}, {kind}</title>"
        parts.append(f'<rect class="edge" {sides}/><rect class="{kind}" {sides}>{hover}</rect>')
        failures += not good[place]
        if few if good[place] else failures <= MOST_LABELS:
            words.append(_label(text, kind, left, top, width))
    return "".join([*parts, *words])  # words above all boxes


def _label(text: str, kind: str, left: float, top: float, width: int) -> str:
    """A name on its own ground, above its box where there is room, and within the picture."""
    shown = text if len(text) <= 28 else f"{text[:27]}…"
    wide = LETTER * len(shown) + 6
    x, y = max(0.0, min(left, width - wide)), max(0.0, top - 15)
    return (
        f'<rect class="ground {kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="15"/>'
        f'<text class="ink" x="{x + 3:.1f}" y="{y + 11.5:.1f}">{escape(shown)}</text>'
    )
