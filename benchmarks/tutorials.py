"""The walk-throughs of docs/, run as they stand: each command in the folder at hand, its output written behind it.

    cd FOLDER && python benchmarks/tutorials.py docs/tutorial-classify.md

FOLDER holds what the page says that the reader has. Commands are the lines of ```sh blocks; what they print goes
between `<!-- output … -->` and `<!-- end -->` behind the block, so that no page shows what was not printed. A block
without such marks shows nothing, and behind the last one with marks none is run. A command that fails ends the run and
leaves the page as it is.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"```sh\n(.*?)```\n(?:<!-- output.*?-->\n(.*?)<!-- end -->)?", re.DOTALL)
MOST_LINES = 24


def commands_of(page: str) -> list[str]:
    """The commands of a page, in order."""
    return [
        line for block in BLOCK.finditer(page) for line in block[1].splitlines() if line.startswith("featherweight ")
    ]


def filled(page: str) -> str:
    """The page with what its commands print, run now."""
    last = max((block.start() for block in BLOCK.finditer(page) if block[2] is not None), default=-1)

    def run(block: re.Match[str]) -> str:
        if block.start() > last:
            return block[0]
        printed = [
            subprocess.run(shlex.split(line), check=True, capture_output=True, text=True).stdout
            for line in block[1].splitlines()
            if line.startswith("featherweight ")
        ]
        if block[2] is None:
            return block[0]
        lines = "".join(printed).rstrip().splitlines()
        shown = lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "…"]
        text = "\n".join(line.rstrip() for line in shown)
        return block[0].replace(f"-->\n{block[2]}<!-- end -->", f"-->\n```\n{text}\n```\n<!-- end -->")

    return BLOCK.sub(run, page)


def main() -> None:
    """Run and fill the pages that are named."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
