"""docs/gallery.md: a classified, a detected and a segmented picture, each with the record of the file that did it.

    python benchmarks/gallery.py docs --classify FILE PICTURE DATA --detect FILE … --segment FILE …

Each picture is predicted and drawn on by the artifact, and the artifact is measured on DATA, on one thread by its first
runtime. The pictures go to docs/gallery/, the records to results/gallery.jsonl (a new file; the page says which of them
is whose). Nothing on the page is typed by hand but the words between.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import cv2

from featherweight.artifact import read_artifact
from featherweight.data import Split, read_dataset
from featherweight.measure import Origin, measure
from featherweight.predict import PredictSettings, predict
from featherweight.record import Record
from featherweight.report import markdown
from featherweight.runtimes import supporting

LONGEST = 640  # pixels of a picture on the page
TITLES = {
    "classify": "Classified",
    "detect": "Detected",
    "segment": "Segmented",
}


def drawn(artifact: str, picture: str, place: Path) -> None:
    """The picture with what the file says of it, as a JPEG on the page's scale."""
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "drawn"
        predict(artifact, picture, settings=PredictSettings(draw=found, bar=False))
        (made,) = found.iterdir()
        pixels = cv2.imread(str(made))
    assert pixels is not None
    scale = LONGEST / max(pixels.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    cv2.imwrite(str(place), cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=kind), [1, 88])


def measured(task: str, artifact: str, data: str, records: Path) -> Record:
    """The file's record on the test part."""
    dataset = read_dataset(data, Split(0.2, 0.2) if task == "segment" else Split(), task)
    runtime = supporting(read_artifact(artifact), "all")[0]
    (record,) = measure(
        artifact, dataset, runtime, (1,), output=records, origin=Origin(None, "python benchmarks/gallery.py docs …")
    )
    return record


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path)
    for task in TITLES:
        parser.add_argument(f"--{task}", nargs=3, metavar=("ARTIFACT", "PICTURE", "DATA"), required=True)
    args = parser.parse_args()
    folder, records = args.docs / "gallery", args.docs.parent / "results" / "gallery.jsonl"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    records.unlink(missing_ok=True)
    lines = [
        "# Gallery",
        "",
        "One picture a task, and the record of the very file that did it: written by `python benchmarks/gallery.py`,",
        "the records in `results/gallery.jsonl`. The pictures are of the public data sets that the walk-throughs name.",
    ]
    for task, title in TITLES.items():
        artifact, picture, data = getattr(args, task)
        drawn(artifact, picture, folder / f"{task}.jpg")
        record = measured(task, artifact, data, records)
        lines += [
            "",
            f"## {title}",
            f"![{title} by {record.name}](gallery/{task}.jpg)",
            "",
            markdown([record]).rstrip(),
        ]
    shutil.rmtree(records.with_suffix(".samples"), ignore_errors=True)  # megabytes, of which the page shows none
    (args.docs / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
