"""The contracts of an adaptive method. Each takes a ``TinyRuns``, which runs the method on a tiny family of experts."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from symerge_dense.adaptation.method import AdaptationContext, Adapted, AdaptiveMethod
from symerge_dense.adaptation.options import make_options
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.testing import tiny
from symerge_dense.testing.contract import expect

ROUNDS = 6  # twice the whole pool; no augmentation, so that parts of the curve can be compared
OPTIONS = {"rounds": ROUNDS, "batch_size": 4, "augment": None, "recalibration_images": 8}
VARIED: dict[str, Any] = {  # no value is a default: a method that ignores the config would go unnoticed
    "granularity": "block",
    "clamp": (0.0, 0.9),
    "coefficient_lr": 0.02,
    "layer_lr": 0.004,
    "views": {"flip": False, "shift": 2},
    "filter": "confidence",
    "task_weights": {"depth": 2.0},
    "class_balance": 0.25,
    "cutmix": 0.5,
    "teacher": "mix",
}
KEPT = ("rounds", "batch_size", "statistics", "batchnorm", "recalibration_images", "soft", "amp")


def tiny_context(
    folder: str | Path,
    spec: dict[str, Any] = tiny.CNN,
    seed: int = 3,
    family: tiny.Family | None = None,
    **options: Any,
) -> AdaptationContext:
    """What an adaptive method is given, on tiny networks and images.

    Args:
        folder: for labels and logs.
        spec: of the backbone.
        seed: of the adaptation.
        family: base, experts and model; None makes them.
        **options: of the adaptation.
    """
    base, experts, _ = family or tiny.family(spec)
    pool = Unlabelled(tiny.TinySet(tiny.tasks(), split="pool"))  # could give targets, and would tell
    asked = make_options(**{**OPTIONS, **options})
    return AdaptationContext(base, experts, pool, asked, torch.device("cpu"), seed, Path(folder))


@functools.cache
def shared_context() -> AdaptationContext:
    """The context that all methods share in this process; its base and experts must survive all of them."""
    return tiny_context(tempfile.mkdtemp())


class TinyRuns:
    """A method and what it makes of ``shared_context``, run when it is first needed.

    Args:
        build: builds the method.
    """

    def __init__(self, build: Callable[[], AdaptiveMethod]) -> None:
        self.build = build
        self._first: Adapted | None = None

    @property
    def first(self) -> Adapted:
        """The first run."""
        if self._first is None:
            self._first = self.again()
        return self._first

    def again(self, **changes: Any) -> Adapted:
        """Another run.

        Args:
            **changes: of the context, for example another ``seed``.
        """
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its progress
            return self.build().run(dataclasses.replace(shared_context(), **changes))


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _flags(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]


def check_description(runs: TinyRuns) -> None:
    """It says what it is: docstrings, the paper's address, what it learns, a title, its hyper-parameters."""
    method = runs.build()
    documented = type(method).__doc__ and inspect.getdoc(inspect.getmodule(type(method)))
    expect(documented, "its class or its module has no docstring.")
    expect(method.paper.startswith("https://"), f"paper is {method.paper!r}; give an https:// address.")
    expect(0 < len(method.learns) < 60, f"learns is {method.learns!r}; give 1 to 59 letters.")
    expect(0 < len(method.title) < 40, f"title is {method.title!r}; give 1 to 39 letters.")
    expect(isinstance(method.hyperparameters, dict), "hyperparameters is no dict.")


def check_result(runs: TinyRuns) -> None:
    """The result is a network in evaluation mode that can be scored, with a curve of one finite row per round."""
    adapted = runs.first
    loader = DataLoader(tiny.TinySet(tiny.tasks(), count=4), 2, collate_fn=default_collate)
    scores = evaluate(adapted.model, loader, "")
    expect(list(scores) == list(tiny.tasks()), f"it has the tasks {list(scores)} instead of {list(tiny.tasks())}.")
    for task, metric in (("segmentation", "pixel_accuracy"), ("depth", "abs"), ("normals", "mean")):
        expect(np.isfinite(scores[task][metric].value), f"{metric} of {task} is not finite.")
    (predicted,) = adapted.model(torch.rand(1, 3, *tiny.SIZE) * 255, mode="predict")
    shapes = {task: tuple(value.shape) for task, value in predicted.items()}
    wanted = {"segmentation": (4, *tiny.SIZE), "depth": (1, *tiny.SIZE), "normals": (3, *tiny.SIZE)}
    expect(shapes == wanted, f"it predicts {shapes} instead of {wanted}.")
    idle = not adapted.model.training and not any(p.requires_grad for p in adapted.model.parameters())
    expect(idle, "the model is in training mode, or still asks for gradients.")
    expect([row["iteration"] for row in adapted.history] == list(range(ROUNDS)), "history has not one row per round.")
    finite = all(np.isfinite(value) for row in adapted.history for value in row.values())
    expect(finite, "history has values that are not finite.")
    expect(not list(shared_context().work_dir.rglob("*.pth")), "it leaves pickled checkpoints behind.")


def check_repeatable(runs: TinyRuns) -> None:
    """A second run is the first one, reads no target, and leaves base and experts as they were."""
    given, first = shared_context(), runs.first
    modules: dict[str, nn.Module] = {"base": given.base, **given.experts}
    before = {name: (copy.deepcopy(whole.state_dict()), _flags(whole)) for name, whole in modules.items()}
    tiny.TinySet.targets_read.clear()
    second = runs.again()
    expect(not tiny.TinySet.targets_read, "it reads targets; the pool is unlabelled.")
    same = _equal(first.model.state_dict(), second.model.state_dict()) and first.history == second.history
    expect(same, "the same seed gives another network or curve; draw random numbers from the seed only.")
    for name, whole in modules.items():
        expect(_equal(before[name][0], whole.state_dict()), f"the weights of {name} are changed; copy what you train.")
        expect(before[name][1] == _flags(whole), f"modes or requires_grad of {name} are not put back: `left_alone`.")


def check_options(runs: TinyRuns) -> None:
    """Options are the config's but for ``changes``, never rounds or batch; what learns is in a group, without decay."""
    method, given = runs.build(), shared_context()
    student = method.student(given)
    for name in KEPT:
        if name == "statistics" and name in method.changes:
            continue  # a method that does not learn through the heads has them settle last
        asked, found = getattr(shared_context().options, name), getattr(student.options, name)
        expect(
            asked == found, f"{name} is {found} instead of {asked}; replace only the options that define the method."
        )
    varied = dataclasses.replace(given, options=dataclasses.replace(given.options, **VARIED))
    learned = method.student(varied).options
    for field in dataclasses.fields(learned):
        own = {**method.changes, **method.hyperparameters}.get(field.name, getattr(varied.options, field.name))
        found = getattr(learned, field.name)
        told = "a method learns as the config says, but for the options that its class names in `changes`"
        expect(found == own, f"{field.name} is {found!r} instead of {own!r}; {told}.")
    groups = student.parameter_groups()
    expect(groups and all(group["weight_decay"] == 0 for group in groups), "a parameter group has a weight decay.")
    listed = {id(p) for group in groups for p in group["params"]}
    expect(
        listed == {id(p) for p in student.parameters() if p.requires_grad},
        "parameter_groups() has other parameters than those with requires_grad.",
    )


ADAPTIVE_CHECKS = (check_description, check_result, check_repeatable, check_options)
"""The contracts of an adaptive method."""
