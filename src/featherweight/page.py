"""One HTML page for people: self-contained, readable in the dark, asking for nothing. `report` and `analyze` fill it.

In scope: the frame, escaping, writing without harm. Not aware of: what a page shows. Imports artifact and errors.
"""

import html
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from featherweight.artifact import to_utf8, write_file
from featherweight.errors import OutputError

# What tells a page of ours from any other: only such a page is replaced by a newer one.
MARK = '<meta name="generator" content="featherweight">'
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--line:#e1e6eb;--paper:#fff;--front:#0b6e4f;
--other:#8a96a3;--miss:#b3402a}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf0;--soft:#9aa6b2;--line:#2a3139;--paper:#14181c;--front:#4fc79a;
--other:#77828e;--miss:#f08a73}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:32px 20px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}p{color:var(--soft);margin:4px 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:right;padding:6px 8px;border-bottom:1px solid var(--line);white-space:nowrap;
font-variant-numeric:tabular-nums;vertical-align:top}th{vertical-align:bottom;white-space:normal}
th:nth-child(-n+2),td:nth-child(-n+2),.text{text-align:left}td.text{white-space:normal;min-width:110px}
td.file{white-space:normal;overflow-wrap:anywhere;min-width:190px}
tr.on td:first-child{color:var(--front);font-weight:600}.miss{color:var(--miss)}small{color:var(--soft);display:block}
details{margin:8px 0;border-bottom:1px solid var(--line);padding-bottom:8px}summary{cursor:pointer}
summary,p{overflow-wrap:anywhere}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px;color:var(--soft)}
"""
# So much of a file is looked at.
HEAD_BYTES = 1024
# The page asks for nothing, and a browser is told so.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, style: str, body: Sequence[str], pictures: bool = False) -> str:
    """A whole page: `style` is added to the common one, `body` is HTML with everything foreign escaped.

    With `pictures` such are shown as are written into the page themselves.
    """
    policy = f"{POLICY}; img-src data:" if pictures else POLICY
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{MARK}'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def escape(value: object) -> str:
    """Any value as text in HTML, also within quotes."""
    return html.escape(str(value), quote=True)


def write_page(path: str | Path, text: str) -> None:
    """Write a page whole.

    Raises:
        OutputError: as `check_page`, or it cannot be written.
    """
    check_page(path)
    write_file(Path(path), to_utf8(text))


def check_page(path: str | Path) -> None:
    """See that a page can be written there; errors as in `check_place`."""
    check_place(path, lambda head: MARK.encode() in head, "report")


def check_place(path: str | Path, is_ours: Callable[[bytes], bool], what: str) -> None:
    """See that nothing of the user's is at a place where a file will be written.

    A slip like `--output records.jsonl` must not cost the records: nothing but an empty file or an older one of the
    same sort is replaced, and never a link, a pipe or a device, which writing would put a file in place of.

    Args:
        path: the place.
        is_ours: says by a file's first bytes whether it is of that sort.
        what: how the error calls the sort.

    Raises:
        OutputError: there is something else, or no folder to write into.
    """
    path = Path(path)
    try:
        kind = path.lstat().st_mode
    except (OSError, ValueError):
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: No such file or directory; make its folder first") from None
        return
    if not stat.S_ISREG(kind):
        raise OutputError(f"{path} exists and is no regular file; name another file, nothing is overwritten")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise OutputError(f"{path} exists and cannot be read: {error.strerror}; name another file") from error
    if head and not is_ours(head):
        raise OutputError(f"{path} exists and is no {what}; name another file, nothing is overwritten")
