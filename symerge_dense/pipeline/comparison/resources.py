"""What a method costs: seconds and peak memory of the work inside a block."""

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
    """Yields a dict that has, when the block has ended, 'seconds' and 'peak_memory_mb'.

    Memory in MiB: what PyTorch held on the GPU where there is one, else what was resident, all of the process counted.
    None where the system does not tell.
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
    """Now, when all that was asked of a GPU is done."""
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def _forget_peak() -> None:
    """Let the kernel count the peak anew, from what is in use. Where it cannot, peaks are the process's so far."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what earlier methods left to the allocator; glibc has this
        CLEAR.write_text("5")
    except (OSError, AttributeError):
        return


def _peak() -> float | None:
    """Peak resident memory since ``_forget_peak`` in MiB."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        return None
    return None if found is None else round(int(found[1]) / 2**10, 1)
