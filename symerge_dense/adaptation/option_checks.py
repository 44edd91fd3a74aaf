"""Checks of options: their types, and of the adaptation's those that take more than a look at one value."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.datasets.transforms import Augment
from symerge_dense.models.views import Views
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import DenseTask

if TYPE_CHECKING:
    from symerge_dense.adaptation.options import SyMergeOptions


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Let errors inside the block say which part of the config they are about.

    Args:
        where: name of that part.

    Raises:
        ValueError: the block raises a TypeError or ValueError.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def check_types(kind: Any, values: Mapping[str, Any], where: str) -> None:
    """Check the types of options that have a number, bool or text as default.

    Args:
        kind: the dataclass with the defaults.
        values: {option: value}.
        where: name of the section, for the message.

    Raises:
        ValueError: a value is not of its default's type, or a number is not finite.
    """
    fits: dict[type, Any] = {bool: bool, int: int, float: (int, float), str: str}
    for field in dataclasses.fields(kind):
        wanted = type(field.default)
        if field.name in values and wanted in fits and "|" not in str(field.type):
            value = values[field.name]
            if not isinstance(value, fits[wanted]) or isinstance(value, bool) != (wanted is bool):
                raise ValueError(f"{where}.{field.name}={value!r} must be a value of type {wanted.__name__}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{where}.{field.name}={value!r} must be a finite number.")


def check_forms(options: SyMergeOptions) -> None:
    """Options that may be None or are made of several values have the form that later checks count on.

    Args:
        options: of the adaptation.

    Raises:
        ValueError: one has another form.
    """
    clamp, rank, weights = options.clamp, options.singular_rank, options.task_weights
    if clamp is not None:
        numbers = isinstance(clamp, tuple) and len(clamp) == 2 and all(_is_number(bound) for bound in clamp)
        if not numbers or not clamp[0] < clamp[1]:
            raise ValueError(f"adaptation.clamp={clamp!r} must be (lowest, highest), such as (0.0, 1.0), or None.")
    if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
        raise ValueError(f"adaptation.singular_rank={rank!r} must be a whole number from 1, or None for all.")
    if options.density is not None and not _is_number(options.density):
        raise ValueError(f"adaptation.density={options.density!r} must be a number in (0, 1], or None to merge all.")
    if options.augment is not None and not isinstance(options.augment, Mapping):
        raise ValueError(f"adaptation.augment={options.augment!r}: give dict(flip=0.5) or the like, or None.")
    if not isinstance(weights, Mapping) or not all(_is_number(one) and one < math.inf for one in weights.values()):
        raise ValueError(f"adaptation.task_weights={weights!r}: give a number for each task, such as dict(depth=2.0).")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_optimisation(options: SyMergeOptions) -> None:
    """Warm-up, averages and sharpness.

    Args:
        options: of the adaptation.

    Raises:
        ValueError: one of them is out of range.
    """
    if not 0 <= options.warmup < 1:
        raise ValueError(
            f"adaptation.warmup={options.warmup!r} must lie in [0, 1): it is a share of the run, 0.1 the first "
            "tenth of its rounds."
        )
    for name in ("averaging_start", "averaging_decay"):
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"adaptation.{name}={getattr(options, name)!r} must lie in [0, 1).")
    if not 0 <= options.sharpness < float("inf"):
        raise ValueError(f"adaptation.sharpness={options.sharpness!r} must be 0 (off) or a radius such as 0.07.")


def check_batches(options: SyMergeOptions) -> None:
    """What is done to the images of a batch.

    Args:
        options: of the adaptation.

    Raises:
        ValueError: an option does not go with the others, or is out of range; no augmentation or strong view can be
            built as they say.
    """
    _check_augment(options.augment)
    if options.strong is not None:
        with explained("adaptation"):
            StrongViews(options.strong, (64, 64))
    if options.augment is not None and options.labels == "online":
        raise ValueError("adaptation.augment acts on cached labels; set adaptation.augment=None with 'online'.")
    if (options.strong is not None or options.cutmix) and options.labels == "online":
        raise ValueError(
            "adaptation.strong and adaptation.cutmix need labels of the clean view; use adaptation.labels='cached'."
        )
    if not 0 <= options.cutmix <= 1:
        raise ValueError(f"adaptation.cutmix={options.cutmix!r} is a probability; it must lie in [0, 1].")
    if options.cutmix and options.batch_size < 2:
        raise ValueError("adaptation.cutmix mixes images of one batch; use adaptation.batch_size=2 or more.")
    if options.batch_size < 2 and options.statistics == "batch":
        raise ValueError("adaptation.batch_size=1 has no batch statistics; use 2 or more, or statistics='running'.")


def _check_augment(augment: Mapping[str, Any] | None) -> None:
    known = inspect.signature(Augment).parameters
    for name in augment or {}:
        if name not in known:
            raise ValueError(f"adaptation.augment: {did_you_mean(str(name), known, 'key')}")
    with explained("adaptation.augment"):
        Augment(**(augment or {}))


def check_weighted(name: str, task: DenseTask, options: SyMergeOptions) -> None:
    """The loss of a task must take weights, where an option gives some.

    Args:
        name: of the task.
        task: its rules.
        options: ``uncertainty`` and ``class_balance`` matter.

    Raises:
        ValueError: it does not.
    """
    taken = inspect.signature(task.loss).parameters.values()
    if any(one.name == "weight" or one.kind is one.VAR_KEYWORD for one in taken):
        return
    for option, off, gives in (
        ("uncertainty", "'ignore'", options.uncertainty != "ignore"),
        ("class_balance", "0", options.class_balance > 0 and type(task).rarity is not DenseTask.rarity),
    ):
        if gives:
            raise ValueError(
                f"adaptation.{option}={getattr(options, option)!r}: the loss of task {name!r} ({type(task).__name__}) "
                "takes no weights; override `pixel_loss` instead of `loss`, give `loss` the argument `weight`, or set "
                f"{option}={off}."
            )


def check_views(options: SyMergeOptions) -> None:
    """The views, and what is done with their variance.

    Args:
        options: of the adaptation.

    Raises:
        ValueError: they do not fit each other, or a value is not allowed.
    """
    try:
        Views.of(options.views)
    except ValueError as error:
        raise ValueError(f"adaptation.{error}") from None
    if not 0 < options.uncertain_share < 1:
        raise ValueError(f"adaptation.uncertain_share={options.uncertain_share!r} must lie between 0 and 1.")
    if options.uncertainty != "ignore" and (options.views is None or options.labels != "cached"):
        raise ValueError(
            f"adaptation.uncertainty={options.uncertainty!r} needs cached labels of several views: set "
            "adaptation.views=dict(flip=True) and labels='cached', or uncertainty='ignore'."
        )
