"""Memory that a run frees: kept where the next step needs it again, given back where it does not."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
MALLOC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of <malloc.h>
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next step, which asks for the same again.

    By default glibc gives every large block back, and the kernel fills its pages with zeros when the next tensor of
    that size comes: on CPUs a tenth of a small network's step. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in MALLOC_VARIABLES):
        return  # who has set them knows better
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def giving_back(items: Iterable[T]) -> Iterator[T]:
    """Items one by one; the system gets back what the work on each of them has freed.

    The C library keeps a freed block that lies below one in use. Where tensors of many sizes come and go beside small
    objects that stay, as in packing, such blocks add up to more than all that is in use.

    Args:
        items: to work on.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    for item in items:
        yield item
        if trim is not None:
            trim(0)
