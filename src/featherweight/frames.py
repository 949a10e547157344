"""Where pictures come from, one at a time: files, folders, videos, a camera. And where drawn ones go.

Nothing but the picture at hand is held in memory. Imports artifact, data, errors, image, progress and strips.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from featherweight.artifact import write_file
from featherweight.data.find import SUFFIXES
from featherweight.errors import DataError, ImageError, OutputError, display
from featherweight.image import Pixels, Rows, Whole, read_image
from featherweight.progress import logger
from featherweight.strips import open_rows

VIDEO_SUFFIXES = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"])
USUAL_RATE = 25.0  # frames a second, where a camera or a file does not say
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Source:
    """A picture, a folder's picture, a video or a camera."""

    place: Path | int  # a file, or a camera's number
    name: Path  # what is drawn goes under this name
    in_folder: bool = False  # found in a folder, where one that is bad does not stop the others

    @property
    def moves(self) -> bool:
        """Whether it has frames."""
        return isinstance(self.place, int) or self.place.suffix.lower() in VIDEO_SUFFIXES

    def __str__(self) -> str:
        return f"camera {self.place}" if isinstance(self.place, int) else display(self.place)


def sources_of(places: Sequence[str | Path | int]) -> list[Source]:
    """What is meant by paths and camera numbers; a folder stands for the pictures and videos in and below it.

    Raises:
        DataError: a folder without any.
    """
    found: list[Source] = []
    for place in places:
        path = Path(str(place))
        if str(place).isdigit() and (isinstance(place, int) or not path.exists()):
            found.append(Source(int(str(place)), Path(f"camera-{place}")))
        elif path.is_dir():
            inside = sorted(
                (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES), key=os.fsencode
            )
            if not inside:
                raise DataError(f"no pictures in {display(path)}; wanted JPEG, PNG, BMP, WebP or GIF files, or videos")
            found += [Source(file, file.relative_to(path), True) for file in inside]
        else:
            found.append(Source(path, Path(path.name)))
    return found


def picture_of(source: Source) -> Pixels:
    """The picture in a file.

    Raises:
        DataError: it cannot be read; its name and the cause.
    """
    assert isinstance(source.place, Path)
    try:
        return read_image(source.place)
    except ImageError as error:
        raise DataError(f"{source}: {error}; wanted a JPEG, PNG, BMP, WebP or GIF picture") from error


@contextlib.contextmanager
def rows_of(source: Source, large: bool = False) -> Iterator[Rows]:
    """The picture in a file, by rows; `large`: of any size, in the formats that can be read so.

    Raises:
        DataError: it cannot be read; its name and the cause.
    """
    assert isinstance(source.place, Path)
    try:
        with open_rows(source.place) if large else Whole(read_image(source.place)) as rows:
            yield rows
    except ImageError as error:
        raise DataError(f"{source}: {error}; wanted a JPEG, PNG, BMP, WebP or GIF picture") from error


class Video:
    """The frames of a video or a camera, RGB (h, w, 3), in order. To be used in a `with`.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, source: Source):
        place = source.place
        if isinstance(place, Path) and not place.is_file():
            raise DataError(f"{source}: no such file; wanted a video")
        self._capture = cv2.VideoCapture(place) if isinstance(place, int) else cv2.VideoCapture(os.fspath(place))
        if not self._capture.isOpened():
            self._capture.release()
            hint = "wanted the number of a camera that is there" if isinstance(place, int) else "wanted a video"
            raise DataError(f"{source} cannot be opened by OpenCV; {hint}")
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or USUAL_RATE
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and isinstance(place, Path) else None  # as the file says; `None`: not known

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Pixels]:
        while True:
            there, frame = self._capture.read()
            if not there:
                return
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


class Canvas:
    """A folder for drawn pictures and videos; what is in it is whole. To be used in a `with` for each source.

    Args:
        folder: made where it is not there.
        source: whose frames are put into it.
        rate: frames a second, of a video.

    Raises:
        OutputError: it cannot be written, or a file of that name is there.
    """

    def __init__(self, folder: Path, source: Source, rate: float = USUAL_RATE):
        self._source, self._rate = source, rate
        self._writer: cv2.VideoWriter | None = None
        name = source.name.with_suffix(".mp4" if source.moves else _suffix(source.name))
        self.path = folder / name
        self._beside = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        if self.path.exists():
            raise OutputError(f"{self.path} exists already; name another folder to draw into, nothing is overwritten")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; name another place") from error

    def __enter__(self) -> "Canvas":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        # A camera has no end but being stopped; a video that was not read to its end would look whole.
        if kind is None or isinstance(self._source.place, int):
            self._beside.replace(self.path)
        else:
            with contextlib.suppress(OSError):
                self._beside.unlink()

    def put(self, pixels: NDArray[np.uint8]) -> None:
        """The picture, or the next frame.

        Raises:
            OutputError: it cannot be written.
        """
        colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        if not self._source.moves:
            how = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if self.path.suffix == ".jpg" else []
            done, data = cv2.imencode(self.path.suffix, colours, how)
            if not done:
                raise OutputError(f"cannot write {self.path}: OpenCV cannot encode it")
            write_file(self.path, data.tobytes())
            return
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(
                os.fspath(self._beside), code, self._rate, (pixels.shape[1], pixels.shape[0])
            )
            if not self._writer.isOpened():
                raise OutputError(f"cannot write {self.path}: OpenCV cannot write a video there")
        self._writer.write(colours)


def _suffix(name: Path) -> str:
    """Without loss where the picture came so."""
    return ".jpg" if name.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif") else ".png"


class Lines:
    """A file of lines that stands in its place only once it is whole. To be used in a `with`.

    Raises:
        OutputError: it is there already, or cannot be written.
    """

    def __init__(self, path: Path):
        self.path, self._beside = path, path.with_name(f".{path.name}.{os.getpid()}")
        if path.exists():
            raise OutputError(f"{path} exists already; name another file, nothing is overwritten")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._beside.open("wb")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; name another place") from error

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind in (None, KeyboardInterrupt, GeneratorExit):  # what is there by then is worth keeping
            self._beside.replace(self.path)
        else:
            logger.warning("what was written before the failure is in %s", self._beside)

    def put(self, line: bytes) -> None:
        """One line more.

        Raises:
            OutputError: no room.
        """
        try:
            self._file.write(line + b"\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}; make room") from error
