"""Hyper-parameters checked where a method is built, so that a wrong one costs no run."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from symerge_dense.registry import did_you_mean

LARGEST = torch.finfo(torch.float32).max


def check_within(method: str, what: str, value: float, interval: str, meaning: str) -> float:
    """Check that a number lies in an interval.

    Args:
        method: name of the method, for the message.
        what: name of the argument, for the message.
        value: the number.
        interval: two bounds in mathematical notation, such as ``'(0, 1]'``.
        meaning: what the argument is, for the message.

    Returns:
        ``value`` as a float.

    Raises:
        ValueError: ``value`` lies outside, or is no number; names method, argument, value, interval and meaning.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    number = check_number(method, what, value)
    inside = low < number < high or (number == low and interval[0] == "[") or (number == high and interval[-1] == "]")
    if not inside:
        raise ValueError(f"{method}: {what} is {value!r}; it must lie in {interval}: {meaning}.")
    return number


def check_count(method: str, what: str, value: int, least: int, meaning: str) -> int:
    """Check that a value is an integer of at least ``least``.

    Args:
        method: name of the method, for the message.
        what: name of the argument, for the message.
        value: the integer.
        least: smallest value allowed.
        meaning: what the argument is, for the message.

    Returns:
        ``value``.

    Raises:
        ValueError: ``value`` is no integer (booleans are none), or is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{method}: {what} is {value!r}; it must be an integer of at least {least}: {meaning}.")
    return value


def check_choice(method: str, what: str, value: str, known: Collection[str]) -> str:
    """Check that a value is one of the known ones.

    Args:
        method: name of the method, for the message.
        what: name of the argument, for the message.
        value: the name chosen.
        known: all names allowed.

    Returns:
        ``value``.

    Raises:
        ValueError: ``value`` is not known; names the nearest ones.
    """
    if value not in known:
        raise ValueError(did_you_mean(str(value), known, f"{what} of {method}"))
    return value


def check_per_task(
    method: str, what: str, value: float | Mapping[str, float], interval: str, meaning: str
) -> float | dict[str, float]:
    """Check one number for all tasks, or one number per task, as ``check_within`` does.

    Args:
        method: name of the method, for the message.
        what: name of the argument, for the message.
        value: one number, or {task: number}.
        interval: two bounds in mathematical notation, such as ``'(0, 1]'``.
        meaning: what the argument is, for the message.

    Returns:
        A float, or {task: float}.

    Raises:
        ValueError: a number lies outside ``interval``, or is no number.
    """
    if not isinstance(value, Mapping):
        return check_within(method, what, value, interval, meaning)
    return {
        task: check_within(method, f"{what} of {task}", number, interval, meaning) for task, number in value.items()
    }


def of_task(method: str, what: str, value: float | Mapping[str, float], task: str) -> float:
    """Look up the number of one task.

    Args:
        method: name of the method, for the message.
        what: name of the argument, for the message.
        value: one number for all tasks, or {task: number}.
        task: the task.

    Returns:
        The number.

    Raises:
        ValueError: there are numbers per task and none for this one.
    """
    if not isinstance(value, Mapping):
        return value
    if task not in value:
        raise ValueError(
            f"{method}: {what} names {sorted(value)}, not the task {task!r}; give every task a number, or "
            "one number to all."
        )
    return value[task]


def check_number(method: str, what: str, value: float) -> float:
    """Check that a value is a number that float32 can hold.

    Args:
        method: name of the method, for the message.
        what: name of the argument, for the message.
        value: the number.

    Returns:
        ``value`` as a float.

    Raises:
        ValueError: it is no number, not finite, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError(f"{method}: {what} is {value!r}; it must be a finite number of at most {LARGEST:.4g}.")
    return float(value)
