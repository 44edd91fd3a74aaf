"""The work of ``symerge predict``: read ahead in threads, one pass for all tasks, write in threads."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from symerge_dense.datasets.image_files import Pixels, image_size
from symerge_dense.inference.arrays import Prediction
from symerge_dense.inference.outputs import OutputOptions, Outputs, check_outputs, check_room
from symerge_dense.inference.predictor import Predictor
from symerge_dense.inference.sources import FPS, Clip, Frame, Source, frames_of
from symerge_dense.progress import Bar

T = TypeVar("T")
Written = tuple[Source, Future[list[tuple[Path, Pixels]]]]


@dataclass
class Report:
    """What a run did.

    Args:
        frames: that were predicted.
        seconds: that it took, from the first frame on.
        images: files whose predictions are written.
        faults: what could not be read or predicted, a sentence each.
        cut: {task: largest share of one image's values that its files could not hold}.
    """

    frames: int = 0
    seconds: float = 0.0
    images: list[Source] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    cut: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0


def predict_files(
    predictor: Predictor, sources: Sequence[Source], options: OutputOptions, limit: int | None = None, workers: int = 4
) -> Report:
    """Predict all frames of all sources and write what the options say.

    A file that cannot be read is named in the report, and the rest goes on. Ctrl-C ends a camera's recording, not the
    program.

    Args:
        predictor: the model.
        sources: what to read.
        options: what to write, and where.
        limit: at most this many frames of each video and camera.
        workers: threads that read, and as many that write.

    Raises:
        ValueError: before the first frame: a camera cannot be opened, the disk is too small, or outputs do not fit.
        OSError: the disk is full, or the folder cannot be written to.
    """
    check_outputs(options, sources, predictor.tasks)
    counts, pixels, rates = _look(sources, limit)
    check_room(options, zip(sources, counts, pixels, strict=True), predictor.tasks)
    report, known = Report(), None if None in counts else sum(count or 0 for count in counts)
    live = any(source.kind == "camera" for source in sources)
    with (
        Outputs(options, predictor.tasks) as outputs,
        ThreadPoolExecutor(workers) as pool,
        Bar("predict", known) as bar,
    ):
        waiting: deque[Written] = deque()
        start = time.monotonic()
        frames = in_background(frames_of(sources, limit, workers), 2 * predictor.batch_size)
        try:
            for batch in _batches(frames, predictor.batch_size):
                for frame, prediction in _predicted(predictor, batch, report):
                    limits = outputs.limits(frame, prediction)
                    waiting.append((frame.source, pool.submit(outputs.render, frame, prediction, limits)))
                _write(outputs, waiting, rates, workers)
                report.seconds = time.monotonic() - start
                bar.advance(f"{report.rate:.1f} frames/s", len(batch))
        except KeyboardInterrupt:
            if not live:
                raise
        finally:
            frames.close()
        _write(outputs, waiting, rates, 0)
        report.seconds = time.monotonic() - start
    report.cut = outputs.cut
    return report


def _look(sources: Sequence[Source], limit: int | None) -> tuple[list[int | None], list[int], dict[str, float]]:
    """Of every source: its frames, as far as it says, and the pixels of one; {name: frames a second} of moving ones."""
    counts: list[int | None] = []
    pixels: list[int] = []
    rates: dict[str, float] = {}
    for source in sources:
        count: int | None = 1
        size = 0, 0
        try:
            if source.kind == "image":
                size = image_size(source.path)
            else:
                clip = Clip(source)
                clip.close()
                rates[source.name], size = clip.fps, clip.size
                count = limit if clip.count is None else min(clip.count, limit or clip.count)
        except ValueError:
            if source.kind == "camera":
                raise  # a file's fault is named when its turn comes
        counts.append(count)
        pixels.append(size[0] * size[1])
    return counts, pixels, rates


def _batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _predicted(predictor: Predictor, batch: Sequence[Frame], report: Report) -> list[tuple[Frame, Prediction]]:
    """The frames that have a prediction; the others' faults are in the report."""
    report.faults += [frame.fault for frame in batch if frame.fault]
    good = [frame for frame in batch if frame.pixels is not None]
    try:
        found = list(zip(good, predictor([frame.pixels for frame in good]), strict=True))
    except ValueError as error:
        if len(good) > 1:  # find out which one it is
            return [pair for frame in good for pair in _predicted(predictor, [frame], report)]
        report.faults.append(f"{good[0].source.path}: {error}")
        return []
    report.frames += len(found)
    report.images += [frame.source for frame, _ in found if frame.source.kind == "image"]
    return found


def _write(outputs: Outputs, waiting: deque[Written], rates: dict[str, float], allowed: int) -> None:
    """Wait until at most so many frames are being written; videos get theirs in order."""
    while len(waiting) > allowed:
        source, future = waiting.popleft()
        outputs.append(source, future.result(), rates.get(source.name, FPS))


def in_background(items: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """The items of a generator that runs in a thread of its own.

    Args:
        items: the generator; it is closed where it is not taken to its end.
        ahead: how many items may wait to be taken.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
    ended = threading.Event()

    def put(entry: tuple[str, Any]) -> None:
        while not ended.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put(("item", item))
                if ended.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # it belongs to the thread that takes the items
            put(("error", error))
        finally:
            items.close()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        ended.set()
        thread.join()
