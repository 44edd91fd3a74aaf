"""How the command-line tools end: a user's error is one clear message and exit code 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mmengine.dist import is_main_process


def run_tool(work: Callable[[], object]) -> int:
    """Run ``work`` and return the exit code: 0, 2 after a ValueError (printed), 130 after Ctrl-C."""
    try:
        work()
    except ValueError as error:
        if is_main_process():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        return 130
    return 0
