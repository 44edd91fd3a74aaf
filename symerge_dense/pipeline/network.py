"""The network that a config describes: built, and tried without memory for its weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from symerge_dense.adaptation.acceleration import check_acceleration
from symerge_dense.adaptation.teacher import build_teacher
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.plugins import plugins_of
from symerge_dense.models.task_specs import build_task
from symerge_dense.models.views import Views, check_views
from symerge_dense.pipeline.config import RunConfig, Spec
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.expert_facts import ExpertFacts


def network(config: RunConfig, backbone: TimmBackbone, tasks: Spec) -> MultiTaskModel:
    """A network with the config's head for each task.

    Args:
        config: has heads, preprocessing and upsampling.
        backbone: of the network.
        tasks: {task name: task spec}.
    """
    heads = {task: config.head_of(task) for task in tasks}
    return MultiTaskModel(backbone, heads, tasks, **config.preprocessing, align_corners=config.align_corners)


def check_network(config: RunConfig) -> None:
    """Build the config's network once: a second at the start, instead of an error after hours of training.

    Args:
        config: of the run. It does not describe the heads of given checkpoints: their adapted layer is not checked.

    Raises:
        ValueError: the network cannot be built, a plug-in is not registered, so that no model file could name it, a
            head lacks the adapted layer, or the backbone or this machine what ``check_acceleration`` asks for.
    """
    with torch.device("meta"):  # without memory for the weights
        backbone = TimmBackbone(**config.backbone)
    model = network(config, backbone, config.tasks)
    plugins_of(model.spec)
    check_acceleration(backbone, config.options)
    for task, head in model.named_heads():
        if task not in config.experts.get("checkpoints", {}):
            with explained(f"adaptation.layer, task {task}"):
                head.layer_modules(config.options.layer)


def check_size(config: RunConfig, size: tuple[int, int], title: str) -> None:
    """Check that the backbone takes images of a size, and the views of them that labels are averaged over.

    Args:
        config: of the run.
        size: (H, W).
        title: name of the data set in the config, for messages.

    Raises:
        ValueError: it does not, or a task has no average of several views.
    """
    with explained(f"{title}, images of {size[0]}x{size[1]}"), torch.device("meta"), torch.no_grad():
        backbone = TimmBackbone(**config.backbone).eval()
        backbone(torch.zeros(2, 3, *size))
    views = Views.of(config.options.views)
    if views is not None:
        tasks = {name: build_task(name, spec) for name, spec in config.tasks.items()}
        with explained(f"adaptation, {title} of {size[0]}x{size[1]}"):
            check_views(views, backbone, tasks, size)


def check_teacher(config: RunConfig, size: tuple[int, int]) -> None:
    """Check that the teacher can be asked about the unlabelled images.

    Args:
        config: of the run.
        size: (H, W) of the images.

    Raises:
        ValueError: it cannot.
    """
    with explained("adaptation.teacher"):
        with torch.device("meta"):
            backbone = TimmBackbone(**config.backbone)
        build_teacher(config.options.teacher).check_size(backbone, size)


def label_sizes(config: RunConfig, size: tuple[int, int], facts: Mapping[str, ExpertFacts]) -> dict[str, int]:
    """How many numbers an expert's raw output on one image has.

    Args:
        config: of the run.
        size: (H, W) of the images.
        facts: of given experts, whose own heads count.

    Returns:
        {task: count}; without the tasks whose head must have real weights to be asked.
    """
    heads = {task: facts[task].head if task in facts else config.head_of(task) for task in config.tasks}
    try:
        return _label_sizes(config, size, heads)  # one pass of the backbone for all
    except (RuntimeError, NotImplementedError):
        found: dict[str, int] = {}
        for task, head in heads.items():
            with suppress(RuntimeError, NotImplementedError):
                found |= _label_sizes(config, size, {task: head})
        return found


def _label_sizes(config: RunConfig, size: tuple[int, int], heads: Mapping[str, Any]) -> dict[str, int]:
    """``label_sizes`` of these heads, none of which needs real weights."""
    with torch.device("meta"), torch.no_grad():
        tasks = {task: config.tasks[task] for task in heads}
        model = MultiTaskModel(TimmBackbone(**config.backbone), dict(heads), tasks).eval().to("meta")
        outputs = model(torch.zeros(2, 3, *size), mode="tensor")
    return {task: outputs[task][0].numel() for task in heads}
