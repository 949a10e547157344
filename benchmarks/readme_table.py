"""Write the README's table anew from the records in `results/`: what stands between the two marks is generated.

make table
"""

import re
from pathlib import Path

from featherweight.record import read_records
from featherweight.report import markdown

ROOT = Path(__file__).parents[1]
MARKS = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """The README with each table between `<!-- table:FILE -->` and `<!-- end -->` made from `results/FILE`."""
    return MARKS.sub(lambda m: m[1] + markdown(read_records(ROOT / "results" / m[2])) + m[3], text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8")), encoding="utf-8")
