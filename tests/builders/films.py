"""Tiny real videos for tests, whole and broken."""

from __future__ import annotations

from pathlib import Path

import cv2

from builders.photos import photo

FORMATS = {".mp4": "mp4v", ".avi": "MJPG"}


def write_film(path: Path, frames=6, size=(48, 64), fps=12.0):
    """A video of ``frames`` pictures; its suffix says which kind."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*FORMATS[path.suffix]), fps, size[::-1])
    assert writer.isOpened()
    for index in range(frames):
        writer.write(photo(index, size)[..., ::-1])
    writer.release()
    return path


def cut(path: Path, share=0.5, name="cut"):
    """A copy of a file that ends too early."""
    data = path.read_bytes()
    copy = path.with_name(f"{name}{path.suffix}")
    copy.write_bytes(data[: int(len(data) * share)])
    return copy
