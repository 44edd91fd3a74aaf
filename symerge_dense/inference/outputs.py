"""What ``symerge predict`` writes: pictures, videos and files of numbers, and where."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
from numpy.typing import NDArray

from symerge_dense.datasets.image_files import Pixels
from symerge_dense.fileio import atomic_write, check_writable, nearest_existing
from symerge_dense.inference.pictures import Limits, colored, draw_overlay, draw_panel, limits_of
from symerge_dense.inference.raw_files import RawKind, check_raw, raw_folders, write_raw
from symerge_dense.inference.sources import Frame, Source
from symerge_dense.inference.video_files import video_file
from symerge_dense.tasks.base import DenseTask

Pictures = Literal["panel", "overlay", "separate"]
FOLDERS = {"panel": "panels", "overlay": "overlays", "separate": "colors"}
JPEG_QUALITY = 92
ALPHA = 0.6
CALM = 0.9  # of a video's colour range is kept from frame to frame, lest it flickers
GUESSED_FRAMES = 1000  # of a camera, or a video that does not say, for the room on the disk
MEBIBYTE = 1 << 20
BYTES = {"panel": 0.3, "overlay": 0.3, "separate": 0.5, "video": 0.05}  # a pixel and picture, roughly

Size = tuple[int, int]


@dataclass(frozen=True)
class OutputOptions:
    """What to write.

    Args:
        out: folder of all outputs.
        pictures: the image and all tasks side by side, the image with each task's colours over it, each task's colours
            alone, or None.
        raw: files of numbers, or None.
        fps: frames a second of written videos; None takes those of the video that is read.
        alpha: how much of the colours an overlay has, 0..1.
    """

    out: Path
    pictures: Pictures | None = "panel"
    raw: RawKind | None = None
    fps: float | None = None
    alpha: float = ALPHA

    def folders(self, tasks: Mapping[str, DenseTask]) -> list[Path]:
        """Folders that are written to.

        Args:
            tasks: {name: task}.
        """
        found = raw_folders(self.raw, tasks) if self.raw else []
        if self.pictures == "panel":
            found = [*found, FOLDERS["panel"]]
        elif self.pictures:
            found = [*found, *(f"{FOLDERS[self.pictures]}/{name}" for name in tasks)]
        return [self.out / name for name in found]


# -- before the work --------------------------------------------------------------------------------------------------
def check_outputs(options: OutputOptions, sources: Sequence[Source], tasks: Mapping[str, DenseTask]) -> None:
    """Refuse what would end badly: inputs overwritten, numbers that files cannot hold, no folder to write to.

    Args:
        options: what is written.
        sources: what is read.
        tasks: {name: task}.

    Raises:
        ValueError: with the remedy.
    """
    if options.raw:
        check_raw(options.raw, tasks)
    existing = nearest_existing(options.out)
    if not existing.is_dir():
        raise ValueError(f"--out {options.out}: {existing} is a file; give a folder.")
    check_writable(options.out)
    written = {folder.resolve() for folder in options.folders(tasks)}
    for source in sources:
        if source.kind != "camera" and Path(source.path).resolve().parent in written:
            raise ValueError(
                f"--out {options.out}: outputs would lie among the inputs, in {Path(source.path).parent}, and could "
                "overwrite them; give another folder."
            )


def check_room(
    options: OutputOptions, frames: Iterable[tuple[Source, int | None, int]], tasks: Mapping[str, DenseTask]
) -> None:
    """Refuse to start where the disk has too little room for what will roughly be written.

    Args:
        options: what is written.
        frames: (source, its frames; None where it does not say; pixels of one).
        tasks: {name: task}.

    Raises:
        ValueError: with both numbers.
    """
    needed = sum(
        (GUESSED_FRAMES if count is None else count) * pixels * _bytes_a_pixel(options, tasks, source.kind != "image")
        for source, count, pixels in frames
    )
    free = shutil.disk_usage(nearest_existing(options.out)).free
    if needed > free:
        raise ValueError(
            f"--out {options.out}: about {needed / MEBIBYTE:.0f} MiB will be written, and {free / MEBIBYTE:.0f} MiB "
            "are free; give a folder on another disk, or write less (--tasks, --limit, another --raw)."
        )


def _bytes_a_pixel(options: OutputOptions, tasks: Mapping[str, DenseTask], video: bool) -> float:
    pictures = BYTES["video" if video else options.pictures] if options.pictures else 0.0
    total = pictures * (len(tasks) + (options.pictures == "panel"))
    for task in tasks.values():
        channels = 1 if task.class_map else task.channels
        if options.raw == "npz":
            total += channels if task.class_map else 4 * channels
        elif options.raw:
            total += 0.1 if task.class_map else {"png": 1, "exr": 2}[options.raw] * channels
    return total


# -- during the work --------------------------------------------------------------------------------------------------
class Outputs:
    """Writes predictions, as a context manager: videos are finished at its end, or dropped if it ends by an error.

    ``render`` may run in several threads; ``limits`` and ``append`` are called in the order of the frames.

    Args:
        options: what is written.
        tasks: {name: task}.
    """

    def __init__(self, options: OutputOptions, tasks: Mapping[str, DenseTask]) -> None:
        self.options, self.tasks = options, tasks
        self.cut: dict[str, float] = {}
        self._limits: dict[str, dict[str, Limits | None]] = {}
        self._videos: dict[Path, Callable[[Pixels], None]] = {}
        self._source: str | None = None
        self._open, self._lock = ExitStack(), threading.Lock()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def limits(self, frame: Frame, predictions: Mapping[str, NDArray[Any]]) -> dict[str, Limits | None]:
        """The colour range of every task; a video's follows its frames slowly. Call it in their order.

        Args:
            frame: of an image or a video.
            predictions: {task: array}.
        """
        now = {name: limits_of(task, predictions[name]) for name, task in self.tasks.items()}
        if frame.source.kind == "image":
            return now
        before = self._limits.get(frame.source.name, {})
        for name, span in now.items():
            old = before.get(name)
            if old is not None and span is not None:
                now[name] = CALM * old[0] + (1 - CALM) * span[0], CALM * old[1] + (1 - CALM) * span[1]
        self._limits[frame.source.name] = now
        return now

    def render(
        self, frame: Frame, predictions: Mapping[str, NDArray[Any]], limits: Mapping[str, Limits | None]
    ) -> list[tuple[Path, Pixels]]:
        """Write all files of a frame but its pictures in videos.

        Args:
            frame: with pixels.
            predictions: {task: array}.
            limits: {task: colour range}.

        Returns:
            Pictures to append to videos, with the videos' paths.
        """
        assert frame.pixels is not None, "a faulty frame has no prediction"
        name, moving = frame.source.name, frame.source.kind != "image"
        if self.options.raw:
            single = f"{name}_{frame.index:06d}" if moving else name
            cut = write_raw(self.options.out, single, self.options.raw, self.tasks, predictions)
            with self._lock:
                for task, share in cut.items():
                    self.cut[task] = max(self.cut.get(task, 0.0), share)
        pictures = self._pictures(frame.pixels, predictions, limits)
        if moving:
            return [(self.options.out / folder / f"{name}.mp4", picture) for folder, picture in pictures]
        for folder, picture in pictures:
            suffix = ".png" if self.options.pictures == "separate" else ".jpg"
            _write_picture(self.options.out / folder / f"{name}{suffix}", picture)
        return []

    def _pictures(
        self, pixels: Pixels, predictions: Mapping[str, NDArray[Any]], limits: Mapping[str, Limits | None]
    ) -> list[tuple[str, Pixels]]:
        kind = self.options.pictures
        if kind is None:
            return []
        if kind == "panel":
            return [(FOLDERS[kind], draw_panel(pixels, self.tasks, predictions, limits))]
        found = []
        for name, task in self.tasks.items():
            if kind == "overlay":
                picture = draw_overlay(pixels, task, predictions[name], self.options.alpha, True, limits[name])
            else:
                picture = colored(task, predictions[name], limits[name])
            found.append((f"{FOLDERS[kind]}/{name}", picture))
        return found

    def append(self, source: Source, pictures: Iterable[tuple[Path, Pixels]], fps: float) -> None:
        """Append a frame's pictures to its videos; another source's videos are finished first.

        Args:
            source: of the frame.
            pictures: what ``render`` returned.
            fps: of the video that is read.
        """
        if source.name != self._source:
            self._open.close()
            self._videos.clear()
            self._source = source.name
        for path, picture in pictures:
            if path not in self._videos:
                self._videos[path] = self._open.enter_context(video_file(path, self.options.fps or fps))
            self._videos[path](picture)


def _write_picture(path: Path, picture: Pixels) -> None:
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    good, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)
    if not good:
        raise ValueError(f"{path}: OpenCV cannot write a picture of {picture.shape}.")
    with atomic_write(path, sync=False) as temporary:
        temporary.write_bytes(data.tobytes())
