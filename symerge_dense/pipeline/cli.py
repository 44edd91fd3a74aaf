"""How the command-line tools end: a user's error is one clear message and exit code 2, never a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

import torch
from mmengine.dist import get_dist_info

# PyTorch has a class for accelerators only; the allocator of the CPU raises a plain RuntimeError
MEMORY = "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"
_signalled: list[int] = []


def run_tool(work: Callable[[], object], interrupted: str = "go on with --resume") -> int:
    """Run ``work`` and return the exit code: 0, 2 after a ValueError or OSError or without memory, 130 after Ctrl-C.

    What went wrong is printed, ``interrupted`` after Ctrl-C; other errors are mistakes of the program and raised.
    """
    try:
        work()
    except KeyboardInterrupt:
        complain(f"interrupted; {interrupted}")
        return 130
    except Exception as error:
        if _signalled:  # which may turn into another error in code that is not Python's
            complain(f"interrupted; {interrupted}")
            return 130
        text = message(error)
        if text is None:
            raise
        complain(f"error: {text}")
        return 2
    return 0


def end_like_ctrl_c() -> None:
    """Let the signals that end a process clean up as Ctrl-C does."""
    _signalled.clear()

    def interrupt(number: int, frame: FrameType | None) -> None:
        _signalled.append(number)
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)


def complain(text: str) -> None:
    """Print to stderr; where there are several processes, every one of them does, and says which it is."""
    rank, processes = get_dist_info()
    # one write: with several, the lines of different processes would mix
    sys.stderr.write(f"rank {rank}: {text}\n" if processes > 1 else f"{text}\n")


def message(error: Exception) -> str | None:
    """What a user needs to read of ``error``; None where it is a mistake of the program."""
    if _out_of_memory(error):
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return (
            f"there is not enough memory ({first[:200]}); free some, or take smaller batches, a smaller model, a "
            "method that needs less, or another device."
        )
    if not isinstance(error, (ValueError, OSError)):
        return None
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename} cannot be read or written ({error.strerror}); choose another place."
    text = str(error)
    if "Original Traceback" in text:  # PyTorch repeats all that a data worker printed, the message last
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1].rstrip()
    return text


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in MEMORY)
