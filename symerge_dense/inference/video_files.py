"""MP4 files, whole or not at all: OpenCV says nothing of a disk that takes a part of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from symerge_dense.datasets.image_files import Pixels
from symerge_dense.fileio import atomic_write


@contextmanager
def video_file(path: Path, fps: float) -> Iterator[Callable[[Pixels], None]]:
    """Yield a function that appends pictures, uint8 (H,W,3) RGB of one size, to an MP4 file.

    The file takes its name when the block ends; if the block raises, nothing is left of it.

    Args:
        path: the file.
        fps: frames a second.

    Raises:
        ValueError: OpenCV cannot write MP4 files here.
        OSError: the disk took a part of it.
    """
    writers: list[cv2.VideoWriter] = []
    with atomic_write(path) as target:
        temporary = target.with_suffix(".mp4")  # OpenCV takes the format from the suffix

        def write(picture: Pixels) -> None:
            height, width = picture.shape[:2]
            even = picture[: height - height % 2 or None, : width - width % 2 or None]  # as MP4 needs it
            if not writers:
                size = even.shape[1], even.shape[0]
                writers.append(cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size))
                if not writers[0].isOpened():
                    temporary.write_bytes(bytes(4096))  # says so if it is for the disk
                    temporary.unlink()
                    raise ValueError(f"{path}: this OpenCV cannot write MP4 files; give --raw and no pictures.")
            writers[0].write(cv2.cvtColor(np.ascontiguousarray(even), cv2.COLOR_RGB2BGR))

        try:
            yield write
        finally:
            for writer in writers:
                writer.release()
            try:
                with suppress(FileNotFoundError):  # OpenCV could not begin it
                    os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        if writers and not _is_whole(target):
            raise RuntimeError(f"{path}: file write failed")  # OpenCV says nothing of a disk that takes no more


def _is_whole(path: Path) -> bool:
    """Whether the boxes of an MP4 file, each behind its length, fill it, and one says what is in the others."""
    if not path.exists():
        return False
    place, size, kinds = 0, path.stat().st_size, set()
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(16)
            long = head[:4] == b"\0\0\0\1"
            kinds.add(head[4:8])
            place += max(int.from_bytes(head[8:16] if long else head[:4], "big"), 8)
    return place == size and b"moov" in kinds
