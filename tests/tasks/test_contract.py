"""What every registered task must satisfy; a new task is tested here without a line being added."""

from __future__ import annotations

import pytest

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.probability import Probability
from symerge_dense.tasks.vector import Vector
from symerge_dense.testing.contract import Check
from symerge_dense.testing.predictions import TASK_CHECKS


class Saliency(Probability):
    """What a user writes."""

    name, channels = "saliency", 1


class Masks(Probability):
    """Several masks."""

    name, channels = "masks", 3


class Flow(Vector):
    """Optical flow."""

    name, unit, channels, in_pixels = "flow", "px", 2, True


@pytest.fixture(params=[*TASKS, Saliency, Masks, Flow])
def task(request: pytest.FixtureRequest) -> DenseTask:
    built: DenseTask = (TASKS[request.param] if isinstance(request.param, str) else request.param)()
    return built


def test_there_are_the_tasks_that_the_package_documents() -> None:
    assert {"segmentation", "depth", "inverse_depth", "normals", "edges", "albedo", "shading"} <= set(TASKS)
    assert all(TASKS[name].name == name for name in TASKS)


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_contract(task: DenseTask, check: Check) -> None:
    check(task)
