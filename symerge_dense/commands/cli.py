"""The commands, and how they end: a user's error is one message and exit code 2, never a traceback."""

from __future__ import annotations

import _thread
import argparse
import errno
import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import symerge_dense

COMMANDS = {
    "check": "read every image and label of a config, and say what is wrong with them",
    "train": "train missing experts, merge them by SyMerge, evaluate, report",
    "test": "evaluate a checkpoint on a labelled split",
    "predict": "predict images, videos or a camera with a finished model",
    "compare": "put every merging method on the experts of a config",
    "study": "test a claim of the method: runs, intervals over seeds, a verdict",
    "merge": "merge checkpoint files by a static method",
    "pack": "put experts into one file, at a few bits per weight",
    "unpack": "the checkpoint of one task from a packed file",
    "export": "write a model for other runtimes: ONNX, torch.export, timm, the Hub",
    "report": "tables of finished runs",
    "config": "list, copy or print the configs that come with the package",
    "prepare-data": "convert a downloaded NYUv2, or check a prepared folder",
    "import-expert": "import an expert that another program trained",
    "estimate": "what a run will compute, before it is run",
    "benchmark": "seconds and memory: adaptation steps, inference, file merges, the demo",
}
# PyTorch has an exception for accelerators only; its CPU allocator raises a plain RuntimeError
MEMORY = "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"
LOST = (
    "another process of this run has ended or does not answer, and so all end; what it printed says why (nothing: it "
    "was killed, often for lack of memory)"
)
AGAIN = 0.05  # seconds until a lost interrupt comes again
_signalled: list[int] = []


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of ``symerge``: run the subcommand that is named first.

    Args:
        words: the command line without the program's name; None takes ``sys.argv``.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(
        prog="symerge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{symerge_dense.__doc__}\n\ncommands:\n"
        + "\n".join(f"  {name:16} {what}" for name, what in COMMANDS.items()),
        epilog="symerge COMMAND --help says more about one.",
    )
    parser.add_argument("--version", action="version", version=f"symerge {symerge_dense.__version__}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="one of the above")
    chosen = parser.parse_args(given[:1])
    return tool(chosen.command, given[1:])


def tool(name: str, words: Sequence[str] | None = None) -> int:
    """Run one command: what ``tools/NAME.py`` and ``symerge NAME`` do.

    Args:
        name: of ``COMMANDS``.
        words: its arguments; None takes ``sys.argv``.

    Returns:
        The exit code: 0, 2 for a user's error, 130 after Ctrl-C, or what the command returns.
    """
    command = importlib.import_module(f"symerge_dense.commands.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"symerge {name}" if words is not None else None,
        description=command.__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.arguments(parser)
    parser.add_argument(
        "--import",
        dest="plugins",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers tasks, data sets, heads or methods, e.g. my_lab.saliency; repeatable",
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")
    given = sys.argv[1:] if words is None else list(words)
    if {"-h", "--help"} & set(given) and hasattr(command, "more_help"):
        return run_tool(lambda: print(f"{parser.format_help()}\n{command.more_help(given)}"))
    takes_more = getattr(command, "TAKES_MORE", False)
    options, rest = parser.parse_known_args(given)
    if rest and not takes_more:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest

    def work() -> int | None:
        if options.plugins:
            from symerge_dense.registry import import_plugins

            import_plugins(options.plugins)
        code: int | None = command.run(options)
        return code

    return run_tool(work, getattr(command, "INTERRUPTED", "go on with --resume"), options.traceback)


def run_tool(work: Callable[[], object], interrupted: str = "go on with --resume", show_traceback: bool = False) -> int:
    """Run ``work`` and turn what a user can mend into a message and an exit code.

    Args:
        work: what to do; an int that it returns is the exit code.
        interrupted: printed after Ctrl-C.
        show_traceback: print where an error comes from before its message.

    Returns:
        0 or what ``work`` returns; 2 after a ValueError or OSError or without memory; 130 after Ctrl-C. Other errors
        are bugs of the program and are raised.
    """
    try:
        code = work()
    except KeyboardInterrupt:
        complain(f"interrupted; {interrupted}", aftermath=True)
        return 130
    except Exception as error:
        if _signalled:  # C code may turn the interrupt into another error
            complain(f"interrupted; {interrupted}", aftermath=True)
            return 130
        processes = sys.modules.get("symerge_dense.engine.processes")  # not imported: no distributed run
        lost = processes is not None and processes.has_lost_another(error)
        text = f"{LOST}; {interrupted}" if lost else message(error)
        if text is None:
            if processes is not None:
                processes.is_first_to_say(str(error))  # the traceback says why, and the others need not
            raise
        if show_traceback:
            traceback.print_exc()
        complain(f"error: {text}", aftermath=lost)
        return 2
    return code if isinstance(code, int) else 0


def end_like_ctrl_c() -> None:
    """Make the signals that end a process clean up as Ctrl-C does."""
    _signalled.clear()

    def interrupt(number: int, frame: FrameType | None) -> None:
        _signalled.append(number)
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


class _Unraisable:
    """Python drops what is raised in a destructor, also the interrupt that comes during one: it is raised again."""

    def __init__(self, before: Callable[[Any], object]) -> None:
        self._before = before

    def __call__(self, dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            number = _signalled[-1] if _signalled else signal.SIGINT
            threading.Timer(AGAIN, _send, [number]).start()
        else:
            self._before(dropped)


def _send(number: int) -> None:
    """Send this process a signal, which its main thread hears also in a system call."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def join(launcher: str) -> None:
    """Join the processes of a launcher, which ends them by a signal when one of them dies.

    With gloo they then clean up as after Ctrl-C. NCCL may wait for the dead one where no signal is heard: there the
    signal ends a process at once.

    Args:
        launcher: 'none', 'pytorch' or 'slurm'.

    Raises:
        ValueError: as ``engine.join_processes``.
    """
    import torch

    from symerge_dense.engine.processes import join_processes

    join_processes(launcher)
    if launcher != "none" and torch.distributed.get_backend() == "gloo":
        end_like_ctrl_c()


def complain(text: str, aftermath: bool = False) -> None:
    """Print to stderr. In a distributed run with its rank, and one process for all that would say the same.

    Args:
        text: one line or more.
        aftermath: it says no more than that the run ends: one process says so, where none has said why.
    """
    distributed = sys.modules.get("mmengine.dist")  # not imported: no distributed run
    from symerge_dense.progress import printable

    text = printable(text)  # names may come from files
    rank, processes = (0, 1) if distributed is None else distributed.get_dist_info()
    told = sys.modules.get("symerge_dense.engine.processes")
    if told is not None and not told.is_first_to_say(text, aftermath):
        return
    # one write, so that lines of different processes do not mix
    sys.stderr.write(f"rank {rank}: {text}\n" if processes > 1 else f"{text}\n")


def message(error: Exception) -> str | None:
    """What a user needs to read of an error.

    Args:
        error: raised by a command.

    Returns:
        The text; None for a bug of the program.
    """
    if _out_of_memory(error):
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return (
            f"there is not enough memory ({first[:200]}); free some, or take smaller batches, a smaller model, a "
            "method that needs less, or another device."
        )
    if not isinstance(error, (ValueError, OSError)):
        return None
    if isinstance(error, OSError) and error.filename and error.strerror:
        remedy = "make room on its disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"
        return f"{error.filename} cannot be read or written ({error.strerror}); {remedy}."
    text = str(error)
    if "Original Traceback" in text:  # PyTorch shows a data worker's whole traceback, the message last
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1].rstrip()
    return text


def _out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    on_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return on_device or isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY)


if __name__ == "__main__":
    sys.exit(main())
