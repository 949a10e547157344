"""Small files of the operating system, read without raising: what cannot be read is `None`.

Imports nothing of the package.
"""

import re
from pathlib import Path

ROOT = Path("/")


def read(path: Path) -> str | None:
    """The file's text without the space around it; `None` where it is absent, forbidden or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00 \t\r\n") or None
    except OSError:
        return None


def number(path: Path) -> int | None:
    """The whole number that is all of the file; `None` where there is none."""
    text = read(path)
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,20}", text) else None


def field(path: Path, key: str) -> str | None:
    """The value of the first line `key: value` or `key value`; `None` where there is no such line."""
    for line in (read(path) or "").splitlines():
        name, _, value = line.replace(":", " ", 1).strip().partition(" ")
        if name == key and value.strip():
            return value.strip()
    return None


def listed(text: str) -> tuple[int, ...]:
    """The kernel's way of writing a set: `0-3,8` → 0, 1, 2, 3, 8."""
    found: list[int] = []
    for first, last in re.findall(r"([0-9]+)(?:-([0-9]+))?", text):
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
