"""Write the tables of the README and of docs/ anew from the records in `results/`: what stands between two marks.

make table
"""

import re
from pathlib import Path

from featherweight.record import read_records
from featherweight.report import markdown

ROOT = Path(__file__).parents[1]
MARKS = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """A page with each table between `<!-- table:FILE -->` and `<!-- end -->` made from `results/FILE`."""
    return MARKS.sub(lambda m: m[1] + markdown(read_records(ROOT / "results" / m[2])) + m[3], text)


if __name__ == "__main__":
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if fill(text) != text:
            page.write_text(fill(text), encoding="utf-8")
