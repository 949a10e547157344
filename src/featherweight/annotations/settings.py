"""The few keys that count of a data.yaml: names of classes and places of parts.

Not all of YAML: one word, or a list or numbered names in either of YAML's spellings, which is what such files hold.
Imports errors and annotations.tree.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from featherweight.annotations.tree import PART_NAMES
from featherweight.errors import LabelError, display

_KEY = re.compile(r"""(?P<quote>['"]?)(?P<key>[\w-]+)(?P=quote)\s*:(?:\s+(?P<value>.*))?""")
_WORD = re.compile(
    r"""\s*(?:'(?P<single>(?:[^']|'')*)'|"(?P<double>[^"\\]*)"|(?P<plain>[^'"\[\]{},\s][^\[\]{},]*))\s*"""
)


@dataclass(frozen=True)
class Settings:
    """What a data.yaml says."""

    names: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # part → folders or lists, as they are written


def read_settings(data: bytes) -> Settings:
    """The keys `names`, `nc`, `train`, `val` and `test` of a YAML file; a file without them says nothing.

    Raises:
        LabelError: no UTF-8 text, `names` in another form, or another number of them than `nc`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"no UTF-8 text at byte {error.start}") from error
    blocks = _blocks(text)
    names = _names(blocks.get("names", []))
    told = " ".join(blocks.get("nc", [])).strip()
    if names and told.isdecimal() and int(told[:9]) != len(names):
        raise LabelError(f"nc is {told[:9]} and there are {len(names)} names")
    parts: dict[str, tuple[str, ...]] = {}
    for key, part in PART_NAMES.items():
        if key in blocks and part not in parts:
            parts[part] = _places(blocks[key])
    return Settings(names, parts)


def _blocks(text: str) -> dict[str, list[str]]:
    """Key at the left edge → its lines, without comments; the first is what stands behind the colon."""
    blocks: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        bare = _bare(line)
        match = _KEY.fullmatch(bare)
        if match:
            lines = blocks.setdefault(match["key"], [])
            bare = match["value"] or ""
        if bare.strip():
            lines.append(bare)
    return blocks


def _bare(line: str) -> str:
    """A line without its comment: a # at its start or behind a space, outside of quotes."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and (place == 0 or line[place - 1] in " \t,[{:"):
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place].rstrip()
    return line.rstrip()


def _names(lines: list[str]) -> tuple[str, ...]:
    words = _items(lines)
    if words is None:
        raise LabelError(f"names in a form that is not read: {display(' '.join(lines)[:40])}")
    if words and all(key is not None for key, _ in words):
        numbered = {int(key): word for key, word in words if key is not None and key.isdecimal() and len(key) < 10}
        if sorted(numbered) != list(range(len(words))):
            raise LabelError(f"names that are not numbered from 0 to {len(words) - 1}")
        return tuple(numbered[number] for number in range(len(words)))
    return tuple(word for _, word in words)


def _places(lines: list[str]) -> tuple[str, ...]:
    words = _items(lines)
    if words is None:
        word = _word(" ".join(lines))
        return () if word is None else (word,)
    return tuple(word for _, word in words)


def _items(lines: list[str]) -> list[tuple[str | None, str]] | None:
    """(number or None, word) of a list or of numbered names, in flow or block spelling; None if it is neither."""
    whole = " ".join(lines).strip()
    if not whole:
        return []
    if (whole[0], whole[-1]) in (("[", "]"), ("{", "}")):
        return _flow(whole[1:-1], numbered=whole[0] == "{")
    items: list[tuple[str | None, str]] = []
    for line in lines:
        item, match = line.strip(), _KEY.fullmatch(line.strip())
        key, rest = (match["key"], match["value"] or "") if match else (None, item[1:] if item[:2] == "- " else "")
        word = _word(rest)
        if word is None or (items and (items[-1][0] is None) != (key is None)):
            return None
        items.append((key, word))
    return items


def _flow(text: str, numbered: bool) -> list[tuple[str | None, str]] | None:
    items: list[tuple[str | None, str]] = []
    place = 0
    while text[place:].strip():
        key = re.compile(r"\s*['\"]?(\w+)['\"]?\s*:\s").match(text, place) if numbered else None
        match = _WORD.match(text, key.end() if key else place)
        if match is None or (numbered and key is None):
            return None
        items.append((key[1] if key else None, _unquoted(match)))
        place = match.end()
        if place < len(text):
            if text[place] != ",":
                return None
            place += 1
    return items


def _word(text: str) -> str | None:
    """One word, unquoted; a plain one may hold anything but what opens a list."""
    match = _WORD.fullmatch(text)
    return None if match is None else _unquoted(match)


def _unquoted(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return match["single"].replace("''", "'")
    return (match["double"] if match["double"] is not None else match["plain"]).strip()
