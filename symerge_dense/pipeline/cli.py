"""How the command-line tools end: a user's error is one clear message and exit code 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mmengine.dist import is_main_process


def run_tool(work: Callable[[], object]) -> int:
    """Run ``work`` and return the exit code: 0, 2 after a ValueError or OSError (printed), 130 after Ctrl-C."""
    try:
        work()
    except (ValueError, OSError) as error:
        if is_main_process():
            print(f"error: {message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        return 130
    return 0


def message(error: Exception) -> str:
    """What a user needs to read of ``error``."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename} cannot be read or written ({error.strerror}); choose another place."
    text = str(error)
    if "Original Traceback" in text:  # PyTorch repeats all that a data worker printed, the message last
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1].rstrip()
    return text
