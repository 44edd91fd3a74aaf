"""Large tensors in parts, for methods that treat every element alone: which, which make a sample, and who works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

PART = 1 << 17  # elements to merge at a time: those of all experts at once should fit a processor's cache
READ = 1 << 19  # to look at, of one expert after the other; more of them outweigh Python's share
WINDOW, STEP, WINDOWS = 1 << 15, 16, 1 << 9  # a sample is every 16th element of 512 windows, about one million
LEAST = 1 << 18  # elements of a model from which a sample saves work
MOST_WORKERS = 4  # more would wait for each other's Python


def parts(count: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` elements that cover a flat tensor of ``count`` elements."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def windows(start: int, count: int, total: int) -> Iterator[slice]:
    """The sampled slices of a flat tensor that takes places ``start`` to ``start + count`` of ``total`` in a row.

    Windows lie evenly over all ``total`` elements, so that a tensor weighs by its size; small ones may get none. That
    a window is read in one go spares a disk.
    """
    every = max(WINDOW, total // WINDOWS)
    for place in range(start // every * every, start + count, every):
        low, high = max(place, start), min(place + WINDOW, start + count)
        if low < high:
            yield slice(low - start, high - start, STEP)


class Workers:
    """Context manager: threads that work on parts, as many as PyTorch would use within one operation.

    Each computes alone: the threads of an operation wait for each other, which for small parts on a busy machine costs
    more than the work. They start when they are first needed.
    """

    def __init__(self) -> None:
        self._count = min(torch.get_num_threads(), MOST_WORKERS)
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def each(self, work: Callable[[slice], None], slices: Iterable[slice]) -> None:
        """Call ``work`` with every slice; of several errors the one of the first slice is raised."""
        if self._count > 1 and self._executor is None:
            self._executor = self._start()
        for _ in map(work, slices) if self._executor is None else self._executor.map(work, slices):
            pass

    def _start(self) -> ThreadPoolExecutor:
        before, all_there = torch.get_num_threads(), Barrier(self._count + 1)

        def alone() -> None:
            torch.get_num_threads()  # a thread's first call takes over the setting of the last one who set it
            torch.set_num_threads(1)  # for this thread, but new ones and MKL take it over, too: undone below
            all_there.wait()

        executor = ThreadPoolExecutor(self._count, "merge", alone)
        for _ in range(self._count):
            executor.submit(int)
        all_there.wait()
        torch.set_num_threads(before)
        return executor
