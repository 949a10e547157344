"""A file that crashes or hangs its runtime costs one process and one line, and nothing else.

    python benchmarks/mutations.py somebody.tflite --files 300 --seed 0

Each file is the named one with one byte changed, at a place and to a value that chance picks. Every runtime that
supports it loads it and runs it once in a worker; what becomes of it is counted: it answers; it is refused (an error
of the runtime, in one line); the process dies (a signal); it hangs (is ended after --silence seconds). After each
death the original file is run, to show that the others go on. Any traceback in this process fails the run.
"""

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path

from featherweight import worker as module
from featherweight.artifact import read_artifact
from featherweight.errors import FeatherweightError
from featherweight.runtimes import supporting
from featherweight.runtimes.settings import Settings
from featherweight.worker import Worker


def outcome(path: Path, runtime: str) -> tuple[str, str]:
    """(what became of it, the line that says so)."""
    try:
        with Worker(read_artifact(path), runtime, Settings()) as worker:
            worker.load()
    except FeatherweightError as error:
        line = str(error)
        assert "\n" not in line, line
        for words, word in (("died with signal", "died"), ("did not answer", "hung"), ("died with exit", "gave up")):
            if words in line:
                return word, line
        return "refused", line
    return "answered", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--silence", type=float, default=20.0)
    parser.add_argument("--runtime", default="all")
    args = parser.parse_args()
    module.SILENCE_SECONDS = args.silence
    data, rng = args.file.read_bytes(), random.Random(args.seed)
    names = supporting(read_artifact(args.file), args.runtime)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(args.files):
            place, value = rng.randrange(8, len(data)), rng.randrange(256)
            path = Path(scratch) / f"mutated{args.file.suffix}"
            path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            for name in names:
                what, line = outcome(path, name)
                counts[name, what] += 1
                if what in ("died", "hung"):
                    print(f"{number}: byte {place} = {value}: {line}", flush=True)
                    assert outcome(args.file, name)[0] == "answered"
    words = ("answered", "refused", "gave up", "died", "hung")
    print("\n| runtime | " + " | ".join(words) + " |\n|" + " --- |" * (len(words) + 1))
    for name in names:
        print(f"| {name} | " + " | ".join(str(counts[name, word]) for word in words) + " |")


if __name__ == "__main__":
    main()
