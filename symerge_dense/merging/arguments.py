"""Hyper-parameters checked where a method is built, so that a wrong one costs no run."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from symerge_dense.registry import did_you_mean

LARGEST = torch.finfo(torch.float32).max


def check_within(method: str, what: str, value: float, interval: str, meaning: str) -> float:
    """``value`` as a float, if it lies in ``interval``: two bounds in mathematical notation, such as '(0, 1]'.

    Raises ValueError naming method, argument, value, interval and ``meaning`` (what the argument is) otherwise.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    number = check_number(method, what, value)
    inside = low < number < high or (number == low and interval[0] == "[") or (number == high and interval[-1] == "]")
    if not inside:
        raise ValueError(f"{method}: {what} is {value!r}; it must lie in {interval}: {meaning}.")
    return number


def check_count(method: str, what: str, value: int, least: int, meaning: str) -> int:
    """``value``, if it is an integer of at least ``least``. Raises ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{method}: {what} is {value!r}; it must be an integer of at least {least}: {meaning}.")
    return value


def check_choice(method: str, what: str, value: str, known: Collection[str]) -> str:
    """``value``, if it is one of ``known``. Raises ValueError with the nearest names otherwise."""
    if value not in known:
        raise ValueError(did_you_mean(str(value), known, f"{what} of {method}"))
    return value


def check_per_task(
    method: str, what: str, value: float | Mapping[str, float], interval: str, meaning: str
) -> float | dict[str, float]:
    """``check_within`` for one number that serves all tasks, or for each of {task: number}."""
    if not isinstance(value, Mapping):
        return check_within(method, what, value, interval, meaning)
    return {
        task: check_within(method, f"{what} of {task}", number, interval, meaning) for task, number in value.items()
    }


def of_task(method: str, what: str, value: float | Mapping[str, float], task: str) -> float:
    """The number of ``task``. Raises ValueError if there are numbers per task and none is its own."""
    if not isinstance(value, Mapping):
        return value
    if task not in value:
        raise ValueError(
            f"{method}: {what} names {sorted(value)}, not the task {task!r}; give every task a number, or "
            "one number to all."
        )
    return value[task]


def check_number(method: str, what: str, value: float) -> float:
    """``value`` as a float. Raises ValueError naming the method and argument if it is no number that float32 holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError(f"{method}: {what} is {value!r}; it must be a finite number of at most {LARGEST:.4g}.")
    return float(value)
