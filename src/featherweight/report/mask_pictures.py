"""A picture, its true mask, the one that was found, and where they differ, side by side.

Imports draw, errors, image, masks, matches, page, tasks and its neighbour.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from featherweight.draw import colour_of
from featherweight.errors import ImageError, display
from featherweight.image import Pixels, read_image
from featherweight.masks import IGNORE
from featherweight.matches import SeenMask
from featherweight.page import escape
from featherweight.report.inline import Colour, jpeg, png
from featherweight.tasks.confusion import count, ious

PANEL, GAP, HEAD = 300, 12, 20  # pixels of the page: the longer side of each of the four, between them, above them
SIDE = 600  # of what is in the page, so that it stays sharp where it is enlarged
MOST_NAMED = 12  # classes in the key
MOST_TOLD = 3  # classes of a picture in its caption
GROUND: Colour = (22, 24, 28)
IGNORED: Colour = (150, 156, 164)
ERRORS: tuple[Colour | None, ...] = (None, (61, 220, 151), (255, 178, 36), (255, 92, 138), IGNORED)
SEEN_THROUGH, RIGHT, MISSED, WRONG, NOT_ASKED = range(len(ERRORS))
HEADS = ("picture", "true", "found", "where they differ")

STYLE = """
.masks{display:block;width:100%;height:auto;font:600 13px system-ui,sans-serif}
.masks text{fill:currentColor}.masks .mask{image-rendering:pixelated}.masks .dark{fill:#000}
.swatch{display:inline-block;width:.9em;height:.9em;margin:0 4px 0 12px;vertical-align:-.08em;border:1px solid #8888}
"""


def told(seen: Sequence[SeenMask], part: str, worst: int, others: int) -> str:
    """What is shown of these pictures."""
    known = [one.iou for one in seen if one.iou is not None]
    middle = f", whose own mean IoU has the median {100 * median(known):.1f} %" if known else ""
    shown = [f"the {worst} of least mean IoU, the worst first"] if worst else []
    shown += [f"{others} of the others" if worst else f"{others} of them"] if others else []
    return f"<p>{len(seen)} pictures of the {escape(part)} part{middle}. Below: {', then '.join(shown) or 'none'}.</p>"


def key(classes: Sequence[str]) -> str:
    """Which colour is what."""
    named = [(_colour(place), name) for place, name in enumerate(classes[:MOST_NAMED])]
    more = f" and {len(classes) - MOST_NAMED} more" if len(classes) > MOST_NAMED else ""
    missed = f"missed: it was called {classes[0]}"
    errors = zip(ERRORS[1:], ("right", missed, "wrong: it is of another class", "not asked for"), strict=True)
    return (
        f"<p>Classes:{''.join(_swatch(colour, name) for colour, name in named)}{more}</p>"
        f"<p>Where they differ:{''.join(_swatch(colour, name) for colour, name in errors)}</p>"
    )


def figure(seen: SeenMask, classes: Sequence[str], name: str) -> str:
    """The four pictures of one, with a line above."""
    true, found = seen.masks
    caption = (
        f"<figcaption>{escape(display(seen.path.name))}: {escape(_words(seen, true, found, classes))}</figcaption>"
    )
    try:
        pixels = read_image(seen.path)
    except (ImageError, OSError) as error:
        return f"<figure>{caption}<p>It cannot be shown: {escape(error)}.</p></figure>"
    return f"<figure>{caption}{_panels(pixels, true, found, len(classes), name)}</figure>"


def _words(seen: SeenMask, true: NDArray[np.uint8], found: NDArray[np.uint8], classes: Sequence[str]) -> str:
    """`mean IoU 71.2 %; nucleus 44.0 %, background 98.4 %; missed 3.1 % of the pixels, wrong 1.2 %`."""
    if seen.iou is None:
        return "nothing is asked in it"
    known = ious(count(true, found, len(classes)).parts)
    order = [place for place in np.argsort(known, kind="stable").tolist() if not np.isnan(known[place])]
    by_class = ", ".join(f"{classes[place]} {100 * known[place]:.1f} %" for place in order[:MOST_TOLD])
    more = f" and {len(order) - MOST_TOLD} more classes" if len(order) > MOST_TOLD else ""
    errors = _errors(true, found)
    asked = np.sum(true != IGNORE)
    missed, wrong = (100 * float(np.sum(errors == kind) / asked) for kind in (MISSED, WRONG))
    return (
        f"mean IoU {100 * seen.iou:.1f} % ({by_class}{more}); {missed:.1f} % of the pixels missed, {wrong:.1f} % wrong"
    )


def _errors(true: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w): a place in `ERRORS` each."""
    same = true == found
    kinds = np.where(same, np.where(true > 0, RIGHT, SEEN_THROUGH), np.where(found == 0, MISSED, WRONG))
    return np.where(true == IGNORE, NOT_ASKED, kinds).astype(np.uint8)


def _panels(pixels: Pixels, true: NDArray[np.uint8], found: NDArray[np.uint8], classes: int, name: str) -> str:
    times = PANEL / max(true.shape)
    height, width = (max(1, round(side * times)) for side in true.shape)
    size = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    palette: list[Colour | None] = [_colour(place) if place < classes else IGNORED for place in range(IGNORE + 1)]
    picture = f'<image id="{name}" {size} href="{jpeg(pixels, SIDE)}"/>'
    errors = (
        f'<rect class="dark" width="{width}" height="{height}"/><use href="#{name}" opacity=".4"/>'
        f'<image class="mask" {size} href="{png(_errors(true, found), ERRORS, SIDE)}"/>'
    )
    masks = [f'<image class="mask" {size} href="{png(mask, palette, SIDE)}"/>' for mask in (true, found)]
    step = max(width + GAP, 90)  # room for the words
    parts = [
        f'<text x="{step * place}" y="14">{head}</text><g transform="translate({step * place} {HEAD})">{body}</g>'
        for place, (head, body) in enumerate(zip(HEADS, (picture, *masks, errors), strict=True))
    ]
    whole = step * 3 + max(width, 120)
    return (
        f'<svg class="masks" viewBox="0 0 {whole} {height + HEAD}" style="max-width:{whole}px" role="img" '
        f'aria-label="the picture, its true mask, the found one, where they differ">{"".join(parts)}</svg>'
    )


def _colour(place: int) -> Colour:
    """Class 0, the background where there is one, is dark."""
    return colour_of(place) if place else GROUND


def _swatch(colour: Colour | None, name: str) -> str:
    red, green, blue = colour or GROUND
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>{escape(name)}'
