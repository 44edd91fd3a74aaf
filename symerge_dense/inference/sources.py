"""What ``symerge predict`` reads: images, folders, patterns, videos and cameras, one frame after the other.

A file that cannot be read is no end of the work: its fault is a frame too, and is named at the end.
"""

from __future__ import annotations

import glob
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2

from symerge_dense.datasets.image_files import SUFFIXES, Pixels, is_hidden, read_image
from symerge_dense.registry import did_you_mean

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mjpeg", ".mjpg")
CAMERA = "camera:"
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # faults are named in our own words
FPS = 25.0  # where a video does not say
SPARE_FRAMES = 2  # by which containers miscount their frames


@dataclass(frozen=True)
class Source:
    """One input.

    Args:
        kind: 'image', 'video' or 'camera'.
        path: of the file; of a camera, ``camera:N``.
        name: of its outputs, without suffix; no two inputs share one.
    """

    kind: Literal["image", "video", "camera"]
    path: str
    name: str


@dataclass(frozen=True)
class Frame:
    """One image to predict, or what was wrong with it.

    Args:
        source: where it comes from.
        index: of the frame in a video, from 0.
        pixels: uint8 (H,W,3) RGB; None where there is a fault.
        fault: what is wrong, with the remedy; None where there is an image.
    """

    source: Source
    index: int
    pixels: Pixels | None = None
    fault: str | None = None


# -- which inputs -----------------------------------------------------------------------------------------------------
def find_sources(inputs: Sequence[str | Path]) -> list[Source]:
    """The inputs that paths, folders and patterns name, each once, with names for their outputs.

    Args:
        inputs: files, folders (their images and videos, not those of folders within), patterns such as
            'photos/*.jpg' or 'photos/**/*.png', and cameras, 'camera:0'.

    Raises:
        ValueError: there is no such file, or nothing in it that can be read.
    """
    found: dict[str, Literal["image", "video", "camera"]] = {}
    for given in map(str, inputs):
        if given.startswith(CAMERA):
            found[_camera(given)] = "camera"
            continue
        for path in _files(given):
            found.setdefault(str(path), "image" if path.suffix.lower() in SUFFIXES else "video")
    once: dict[Path | str, str] = {}
    for name, kind in found.items():  # the same file, reached by two ways
        once.setdefault(name if kind == "camera" else Path(name).resolve(), name)
    paths = list(once.values())
    return [Source(found[path], path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _camera(given: str) -> str:
    number = given.removeprefix(CAMERA)
    if not number.isdecimal():
        raise ValueError(f"{given}: a camera is camera:0, camera:1, ...")
    return f"{CAMERA}{int(number)}"


def _files(given: str) -> list[Path]:
    path, known = Path(given), (*SUFFIXES, *VIDEOS)
    if path.is_file():
        if path.suffix.lower() not in known:
            raise ValueError(
                f"{path}: neither an image ({', '.join(SUFFIXES)}) nor a video ({', '.join(VIDEOS)}); convert it."
            )
        return [path]
    if path.is_dir():
        inside = [entry for entry in path.iterdir() if not is_hidden(entry.name)]
        what, remedy = "folder", "give the folder that holds them, or a pattern such as"
        remedy = f"{remedy} {str(path / '**' / '*.jpg')!r}"
    elif glob.has_magic(given):
        fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        inside = [Path(entry) for entry in glob.glob(given, recursive=True)]
        inside = [entry for entry in inside if not is_hidden(entry.relative_to(fixed))]
        what, remedy = "pattern", "quote it, and see which files it names"
    else:
        raise ValueError(f"{path}: no such file or folder{_near(path)}")
    files = sorted(entry for entry in inside if entry.suffix.lower() in known and entry.is_file())
    if not files:
        raise ValueError(f"{given}: no image and no video in this {what} ({len(inside)} other entries); {remedy}.")
    return files


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor its folder {path.parent}; look for a misspelling."
    names = [entry.name for entry in path.parent.iterdir() if not is_hidden(entry.name)]
    told = did_you_mean(path.name, names, "file").split(" Known:")[0] if names else ""
    place = told.find("Did you mean")
    return f". {told[place:]}" if place > 0 else " in this folder." if path.parent == Path() else f" in {path.parent}."


def _names(paths: Sequence[str]) -> list[str]:
    """A name for each input: its stem; where several share one, with what tells them apart, or with a number."""
    files = [Path(path.replace(":", "")) if path.startswith(CAMERA) else Path(path) for path in paths]
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.stem.lower(), []).append(file)  # some disks do not know capitals
    names: dict[Path, str] = {}
    used: set[str] = set()
    for group in groups.values():
        way = next((way for way in NAMINGS if len({way(file).lower() for file in group}) == len(group)), NAMINGS[-1])
        for file in group:
            name, number = way(file), 2
            while name.lower() in used:
                name, number = f"{way(file)}-{number}", number + 1
            names[file] = name
            used.add(name.lower())
    return [names[file] for file in files]


NAMINGS: tuple[Callable[[Path], str], ...] = (
    lambda path: path.stem,
    lambda path: f"{path.stem}_{path.suffix.lower().lstrip('.')}",
    lambda path: f"{path.absolute().parent.name}_{path.stem}",
    lambda path: f"{path.absolute().parent.name}_{path.stem}_{path.suffix.lower().lstrip('.')}",
)


# -- their frames -----------------------------------------------------------------------------------------------------
class Clip:
    """A video or a camera, opened.

    Args:
        source: of kind 'video' or 'camera'.

    Attributes:
        fps: frames a second, as the file says; 25 where it does not.
        size: (H,W) of its frames.
        count: frames, as the file says; None where it does not, and of a camera.

    Raises:
        ValueError: it cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        target: Any = int(source.path.removeprefix(CAMERA)) if source.kind == "camera" else source.path
        self._capture = cv2.VideoCapture(target)
        if not self._capture.isOpened():
            self._capture.release()
            raise ValueError(
                f"{source.path} cannot be opened; see that it is connected and that no other program uses it."
                if source.kind == "camera"
                else f"{source.path}: not a readable video (broken, cut off, or of another kind); convert it to MP4."
            )
        fps, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        sides = (self._capture.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        height, width = (int(side) if 0 < side < 1e5 else 0 for side in sides)
        self.size = height, width
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else FPS
        known = source.kind == "video" and math.isfinite(count) and 0 < count < 1e9
        self.count = int(count) if known else None

    def close(self) -> None:
        """Let go of the file or the device."""
        self._capture.release()

    def frames(self, limit: int | None = None) -> Iterator[Frame]:
        """Frames until the end; what is wrong with the file is the last one.

        Args:
            limit: at most this many.
        """
        index = 0
        try:
            while limit is None or index < limit:
                good, pixels = self._capture.read()
                if not good:
                    if fault := self._end(index):
                        yield Frame(self.source, index, fault=fault)
                    return
                yield Frame(self.source, index, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                index += 1
        finally:
            self.close()

    def _end(self, read: int) -> str | None:
        path = self.source.path
        if read == 0:
            return f"{path}: a video without frames; replace it or remove it."
        if self.count is not None and read < self.count - max(SPARE_FRAMES, self.count // 100):
            return f"{path}: ends after {read} of {self.count} frames (cut off or broken); what there is was predicted."
        return None


def frames_of(sources: Iterable[Source], limit: int | None, workers: int) -> Generator[Frame, None, None]:
    """The frames of all sources in order; images are read ahead by several threads.

    Args:
        sources: what to read.
        limit: at most this many frames of a video or a camera.
        workers: threads that read images.
    """
    waiting: deque[Future[Frame]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for source in sources:
                if source.kind == "image":
                    waiting.append(pool.submit(_image, source))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                    continue
                while waiting:
                    yield waiting.popleft().result()
                yield from _clip(source, limit)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _image(source: Source) -> Frame:
    try:
        return Frame(source, 0, read_image(source.path))
    except ValueError as error:
        return Frame(source, 0, fault=str(error))


def _clip(source: Source, limit: int | None) -> Iterator[Frame]:
    try:
        clip = Clip(source)
    except ValueError as error:
        yield Frame(source, 0, fault=str(error))
        return
    yield from clip.frames(limit)
