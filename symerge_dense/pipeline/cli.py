"""How the command-line tools end: a user's error is one clear message and exit code 2, never a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import torch
from mmengine.dist import get_dist_info


def run_tool(work: Callable[[], object], interrupted: str = "go on with --resume") -> int:
    """Run ``work`` and return the exit code: 0, 2 after a ValueError or OSError or without memory, 130 after Ctrl-C.

    What went wrong is printed, ``interrupted`` after Ctrl-C; other errors are mistakes of the program and raised.
    """
    try:
        work()
    except (ValueError, OSError) as error:
        complain(f"error: {message(error)}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        complain(f"error: there is not enough memory ({str(error).splitlines()[0][:200]}); free some, or take smaller "
                 "batches, a smaller model, a method that needs less, or another device.")
        return 2
    except KeyboardInterrupt:
        complain(f"interrupted; {interrupted}")
        return 130
    return 0


def _out_of_memory(error: Exception) -> bool:
    # PyTorch has a class for accelerators only; on a CPU its allocator raises a plain RuntimeError
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def end_like_ctrl_c() -> None:
    """Let the signals that end a process clean up as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)


def complain(text: str) -> None:
    """Print to stderr; where there are several processes, every one of them does, and says which it is."""
    rank, processes = get_dist_info()
    # one write: with several, the lines of different processes would mix
    sys.stderr.write(f"rank {rank}: {text}\n" if processes > 1 else f"{text}\n")


def message(error: Exception) -> str:
    """What a user needs to read of ``error``."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename} cannot be read or written ({error.strerror}); choose another place."
    text = str(error)
    if "Original Traceback" in text:  # PyTorch repeats all that a data worker printed, the message last
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1].rstrip()
    return text
