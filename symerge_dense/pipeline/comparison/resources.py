"""Cost of a method: seconds and peak memory of the work inside a block."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Measure the work inside the block.

    Yields:
        A dict that is filled when the block ends: 'seconds', and 'peak_memory_mb' in MiB. With a GPU that is what
        PyTorch held there, else the resident memory of the whole process; None where the system does not tell.
    """
    on_gpu, cost = torch.cuda.is_available(), dict[str, Any]()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()
    start = _clock(on_gpu)
    try:
        yield cost
    finally:
        cost["seconds"] = round(_clock(on_gpu) - start, 2)
        cost["peak_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1) if on_gpu else _peak()


def _clock(on_gpu: bool) -> float:
    """The time, after the GPU has finished its work."""
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def _forget_peak() -> None:
    """Let the kernel restart its count of peak memory. Where it cannot, peaks are those since the process started."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # returns memory that earlier methods left to the allocator; glibc only
        CLEAR.write_text("5")
    except (OSError, AttributeError):
        return


def _peak() -> float | None:
    """Peak resident memory in MiB since ``_forget_peak``; None where the system does not tell."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        return None
    return None if found is None else round(int(found[1]) / 2**10, 1)
