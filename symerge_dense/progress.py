"""Progress for long work: a bar with ETA on a terminal, occasional lines in a log file."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # a log file has room for a wide table
LOG_EVERY_SECONDS = 15.0
_quiet = False
_said: set[str] = set()


def _is_main_process() -> bool:
    """Ask MMEngine only if ``mmengine.dist`` is imported already: it imports torch, which takes seconds."""
    dist = sys.modules.get("mmengine.dist")
    return dist is None or bool(dist.is_main_process())


@contextmanager
def silent(on: bool = True) -> Iterator[None]:
    """Suppress progress output inside the block, for tools whose standard output is read by a program.

    Args:
        on: False changes nothing.
    """
    global _quiet
    before, _quiet = _quiet, on or _quiet
    try:
        yield
    finally:
        _quiet = before


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text that may come from a file, without what moves a terminal's cursor or turns text round.

    Args:
        text: any; line breaks and tabs stay.

    Returns:
        The text, each such character by its number, as Python writes it: ``\\x1b``.
    """
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str, once: bool = False, aside: bool = False) -> None:
    """Print a line as it is, on the main process and outside ``silent``.

    Args:
        text: the line.
        once: skip a line that was already printed with ``once``.
        aside: print to standard error, where standard output is a table that goes into a file.
    """
    if not _is_main_process() or _quiet or (once and text in _said):
        return
    text = printable(text)
    if once:
        _said.add(text)
    if aside:
        sys.stderr.write(f"{text}\n")
    else:
        console.print(text, markup=False, emoji=False, soft_wrap=True)


class Bar:
    """A progress bar as a context manager; call ``advance`` once per unit of work. Only the main process prints.

    Args:
        description: text in front of the bar.
        total: units of work; None where nobody knows.
        done: units that were done before, as in a resumed run.
    """

    def __init__(self, description: str, total: int | None, done: int = 0) -> None:
        self.description, self.total, self.done = description, total, done
        self._note = ""
        self._first = done
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        self._start = self._spoke = time.monotonic()
        if not _is_main_process() or _quiet:
            return self
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            self._rich = Progress(*columns, console=console)
            self._rich.start()
            self._task = self._rich.add_task(self.description, total=self.total, completed=self.done, note="")
        return self

    def advance(self, note: str = "", by: int = 1) -> None:
        """Count finished units of work.

        Args:
            note: text behind the bar (a loss, say).
            by: number of units that were finished.
        """
        self.done += by
        self._note = note
        if self._rich is not None:
            self._rich.update(self._task, completed=self.done, note=note)
        elif time.monotonic() - self._spoke > LOG_EVERY_SECONDS and self.total is None:
            self._spoke = time.monotonic()
            self._say(f"{self._elapsed:.0f} s")
        elif time.monotonic() - self._spoke > LOG_EVERY_SECONDS and self.total is not None and self.done < self.total:
            self._spoke = time.monotonic()
            self._say(f"eta {self._elapsed / max(self.done - self._first, 1) * (self.total - self.done):.0f} s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
        else:
            self._say(f"{self._elapsed:.1f} s")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _say(self, clock: str) -> None:
        of = "" if self.total is None else f"/{self.total}"
        say(f"{self.description}: {self.done}{of}, {clock} {self._note}".rstrip())


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar.

    Args:
        iterable: what to iterate over.
        description: text in front of the bar.
        total: number of items; None takes ``len(iterable)``.

    Raises:
        ValueError: ``total`` is None and ``iterable`` has no length.
    """
    if total is None:
        if not isinstance(iterable, Sized):
            raise ValueError(f"track({description!r}): the iterable has no length; pass total=.")
        total = len(iterable)
    with Bar(description, total) as bar:
        for item in iterable:
            yield item
            bar.advance()
