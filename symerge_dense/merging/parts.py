"""Tensors in parts: slices that fit a processor's cache, for methods that treat every element alone, and samples."""

from __future__ import annotations

from collections.abc import Iterator

PART = 1 << 17  # elements
WINDOW, STEP, WINDOWS = 1 << 15, 16, 1 << 10  # a sample is every 16th element of 1,024 windows, about two million
LEAST = 1 << 18  # elements of a model from which a sample saves work


def parts(count: int) -> Iterator[slice]:
    """Slices of ``PART`` elements that cover a flat tensor of ``count`` elements."""
    for start in range(0, count, PART):
        yield slice(start, min(start + PART, count))


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
