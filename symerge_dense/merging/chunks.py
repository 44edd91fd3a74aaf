"""Large tensors in flat parts, for methods that treat every element alone: slices, samples and worker threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

PART = 1 << 17  # elements merged at a time: those of all experts together should fit a processor's cache
READ = 1 << 19  # elements read at a time, one expert after the other: more than PART, to hide Python's overhead
WINDOW, STEP, WINDOWS = 1 << 15, 16, 1 << 9  # a sample is every 16th element of 512 windows, about one million
LEAST = 1 << 18  # elements of a model above which a sample saves work
MOST_WORKERS = 4  # more would only wait for the interpreter lock


def parts(count: int, size: int) -> Iterator[slice]:
    """Cut a flat tensor into slices.

    Args:
        count: elements of the tensor.
        size: elements of a slice; the last may have fewer.

    Yields:
        Slices that cover the tensor.
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def windows(start: int, count: int, total: int) -> Iterator[slice]:
    """The sampled slices of one flat tensor among all tensors of a model laid end to end.

    Windows are spread evenly over all ``total`` elements, so a tensor counts by its size and a small one may get none.
    Each window is one contiguous read, which is cheap on a disk.

    Args:
        start: place of the tensor's first element among all.
        count: elements of the tensor.
        total: elements of all tensors.

    Yields:
        Slices of the tensor with step ``STEP``.
    """
    every = max(WINDOW, total // WINDOWS)
    for place in range(start // every * every, start + count, every):
        low, high = max(place, start), min(place + WINDOW, start + count)
        if low < high:
            yield slice(low - start, high - start, STEP)


class Workers:
    """Context manager: threads that work on parts, as many as PyTorch would use within one operation.

    Each thread computes alone. Threads within one operation wait for each other, which for small parts on a busy
    machine costs more than the work itself. The threads start when they are first needed.
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
        """Call a function with every slice; of several errors, the one of the first slice is raised.

        Args:
            work: the function; called from several threads at once.
            slices: its arguments, one for each call.
        """
        if self._count > 1 and self._executor is None:
            self._executor = self._start()
        for _ in map(work, slices) if self._executor is None else self._executor.map(work, slices):
            pass

    def _start(self) -> ThreadPoolExecutor:
        before, all_there = torch.get_num_threads(), Barrier(self._count + 1)

        def alone() -> None:
            torch.get_num_threads()  # a thread's first call adopts the last setting of any thread
            torch.set_num_threads(1)  # this thread's; new threads and MKL adopt it too, so it is undone below
            all_there.wait()

        executor = ThreadPoolExecutor(self._count, "merge", alone)
        for _ in range(self._count):
            executor.submit(int)
        all_there.wait()
        torch.set_num_threads(before)
        return executor
