"""Checks of the adaptation's options that take more than a look at one value."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from symerge_dense.models.views import Views
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
    if not isinstance(weights, Mapping) or not all(map(_is_number, weights.values())):
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
        ValueError: an option does not go with the others, or is out of range.
    """
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


def check_weighted(name: str, task: DenseTask, uncertainty: str) -> None:
    """The loss of a task must take weights, where the variance over the views gives some.

    Args:
        name: of the task.
        task: its rules.
        uncertainty: the option.

    Raises:
        ValueError: it does not.
    """
    taken = inspect.signature(task.loss).parameters.values()
    if not any(one.name == "weight" or one.kind is one.VAR_KEYWORD for one in taken):
        raise ValueError(
            f"adaptation.uncertainty={uncertainty!r}: the loss of task {name!r} ({type(task).__name__}) takes no "
            "weights; override `pixel_loss` instead of `loss`, give `loss` the argument `weight`, or set "
            "uncertainty='ignore'."
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
