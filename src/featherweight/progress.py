"""What a long step shows while it runs: a bar on a terminal, plain lines in a log; always on standard error.

Imports nothing of the package.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger("featherweight")

T = TypeVar("T")
LINE_EVERY_SECONDS = 10.0


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield the items and show how many are done."""
    return _bar(items, label, total) if sys.stderr.isatty() else _lines(items, label, total)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries print, from C++ too, off standard output and standard error."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, target)
            os.close(copy)


def _bar(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    return iter(rich_track(items, f"{label:<28}", total=total, console=Console(stderr=True), transient=True))


def _lines(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """A line at most every `LINE_EVERY_SECONDS`, so that a short step leaves a log alone."""
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > LINE_EVERY_SECONDS:
            last = time.monotonic()
            logger.info("%s: %d of %d", label, done, total)
