"""What a contract is: a function that promises a sentence, and says why it is broken. And how contracts are run."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import symerge_dense

Check = Callable[[Any], None]
"""Checks one plug-in. The first line of its docstring is the promise; it raises AssertionError where it is broken."""


class Skipped(Exception):
    """A contract cannot be checked on this plug-in; the message says why."""


class Outcome(NamedTuple):
    """What became of one contract.

    Args:
        promise: the contract, in a sentence.
        reason: why it is broken or was not checked; empty where it is kept.
        kept: False where it is broken, None where it was not checked.
    """

    promise: str
    reason: str
    kept: bool | None


def expect(holds: object, reason: str) -> None:
    """Break the contract unless something holds.

    Args:
        holds: what must be true.
        reason: what is wrong otherwise, and what to do about it.

    Raises:
        AssertionError: it does not hold.
    """
    if not holds:
        raise AssertionError(reason)


def promise(check: Check) -> str:
    """The sentence that a check stands for, without its full stop, for a reader of plain text.

    Args:
        check: a contract.
    """
    return (inspect.getdoc(check) or check.__name__).splitlines()[0].rstrip(".").replace("``", "`")


def run_checks(checks: Sequence[Check], plugin: Any) -> list[Outcome]:
    """Check one plug-in. What it raises, whatever it is, breaks the contract that was being checked.

    Args:
        checks: the contracts of its kind.
        plugin: what they take.
    """
    return [_run(check, plugin) for check in checks]


def _run(check: Check, plugin: Any) -> Outcome:
    try:
        check(plugin)
    except Skipped as skipped:
        return Outcome(promise(check), str(skipped), None)
    except AssertionError as error:
        return Outcome(promise(check), str(error) or _told(error), False)
    except Exception as error:  # foreign code can fail in any way
        return Outcome(promise(check), _told(error), False)
    return Outcome(promise(check), "", True)


def _told(error: Exception) -> str:
    """Type and text of an error, and the line of the plug-in that raised it."""
    ours = str(symerge_dense.__path__[0])
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(ours) and "site-packages" not in frame.filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
