"""Cost of a run before it starts: floating-point operations per stage, counted on the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from symerge_dense.experts.matching import CHECKED, Matching, activation_moments
from symerge_dense.experts.recipe import Recipe
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.units import unit_families
from symerge_dense.models.views import Views
from symerge_dense.pipeline.config import RunConfig, Spec
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.data import dataset
from symerge_dense.pipeline.data_section import data_specs
from symerge_dense.pipeline.network import network

TRAINING = 3  # a step costs about three forward passes: forward, gradient of the inputs, gradient of the weights


@dataclass(frozen=True)
class Forward:
    """Cost of one forward pass of one image. A multiply-add is two operations.

    Args:
        backbone: GFLOP.
        heads: {task: GFLOP}.
        backbone_parameters: millions.
        head_parameters: {task: millions}.
    """

    backbone: float
    heads: dict[str, float]
    backbone_parameters: float
    head_parameters: dict[str, float]

    def of(self, *tasks: str) -> float:
        """GFLOP of the backbone once and of some heads.

        Args:
            *tasks: whose heads are counted.
        """
        return self.backbone + sum(self.heads[task] for task in tasks)


def forward_cost(config: RunConfig, tasks: Spec, size: tuple[int, int]) -> Forward:
    """Count one image through backbone and heads, without memory or arithmetic (meta device).

    Args:
        config: has backbone and heads.
        tasks: {task name: task spec}.
        size: (H, W) of the image.
    """
    with torch.device("meta"):
        model = network(config, TimmBackbone(**config.backbone), tasks).eval()
        image = torch.zeros(1, 3, *size)
    model.backbone.padded_size(*size)  # a size is tried out once, in a pass that must not be counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model.features(image)
    spent = {"": counter.get_total_flops() / 1e9}
    for task, head in model.named_heads():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            head(features)
        spent[task] = counter.get_total_flops() / 1e9
    count = {task: sum(p.numel() for p in head.parameters()) / 1e6 for task, head in model.named_heads()}
    return Forward(spent.pop(""), spent, sum(p.numel() for p in model.backbone.parameters()) / 1e6, count)


def matching_cost(config: RunConfig, images: int) -> float:
    """Cost of bringing the experts' units into one order: ``experts.match``.

    Expert and anchor go through every image, and their activations are multiplied with each other at all places where
    units can be read, which costs as much as a layer there. The assignment, which has no such operations, is left out:
    it takes seconds.

    Args:
        config: of the run.
        images: in the pool.

    Returns:
        GFLOP, 0 without ``experts.match``.

    Raises:
        ValueError: the units of the network cannot be found, so that its experts cannot be matched either.
    """
    if config.experts.get("match") is None:
        return 0.0
    size, tasks = image_size(config), list(config.tasks)
    matched = tasks[1:] if config.base.get("mean") else tasks  # without a base they are matched to the first
    model = network(config, TimmBackbone(**config.backbone), {tasks[0]: config.tasks[tasks[0]]}).eval()
    with explained("experts.match"):
        families = unit_families(model, size)
    model.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        activation_moments(model, model.backbone, families, [torch.zeros(1, 3, *size, device="meta")])
    cost, seen = forward_cost(config, config.tasks, size), min(Matching(**config.experts["match"]).images, images)
    per_expert = seen * counter.get_total_flops() / 1e9
    return sum(per_expert + 2 * CHECKED * cost.of(task) for task in matched)  # outputs are compared before and after


def workload(config: RunConfig, images: Mapping[str, int]) -> dict[str, float]:
    """Cost of a whole run, without reading data, metrics and pictures.

    Args:
        config: of the run.
        images: {split: number of images}, for 'train', 'unlabelled' and 'test'.

    Returns:
        {stage: TFLOP}.
    """
    options, tasks = config.options, list(config.tasks)
    cost = forward_cost(config, config.tasks, image_size(config))
    every = cost.of(*tasks)
    tested = images["test"] if "test" in config.data else 0
    merges = 1 + len(config.scales)
    recalibrated = min(options.recalibration_images, images["unlabelled"]) if options.batchnorm == "recalibrate" else 0
    stages = {
        f"expert {task}": TRAINING * _seen(config, task, images["train"]) * cost.of(task)
        for task in tasks
        if task not in config.experts.get("checkpoints", {})
    }
    if config.experts.get("match") is not None:
        stages["expert matching"] = matching_cost(config, images["unlabelled"])
    experts, views = sum(cost.of(task) for task in tasks), Views.of(options.views)
    seen = sum(view.scale**2 for view in views.all) if views is not None else 0.0  # in images: cost grows with the area
    stages["experts evaluation"] = tested * (1 + seen) * experts
    stages["training-free merges"] = merges * (recalibrated + tested) * every
    stages["expert labels"] = images["unlabelled"] * max(seen, 1) * experts
    per_round = every if options.schedule == "sum" else experts
    stages["adaptation"] = TRAINING * options.rounds * options.batch_size * per_round
    stages["evaluation"] = (recalibrated + tested) * every
    return {stage: gflop / 1e3 for stage, gflop in stages.items()}


def image_size(config: RunConfig) -> tuple[int, int]:
    """(H, W) of the images that the config feeds.

    Args:
        config: its ``data.train``, or where there is none its ``data.unlabelled``, says ``size`` or has a class with a
            DEFAULT_SIZE; else its first image is read.

    Raises:
        ValueError: none of these gives a size.
    """
    split = "train" if "train" in config.data else "unlabelled"
    split, spec = next((name, spec) for name, spec in data_specs(config.data).items() if name in (split, f"{split}[0]"))
    height, width = spec.get("size") or getattr(spec["type"], "DEFAULT_SIZE", None) or _first_image_size(config, split)
    return int(height), int(width)


def _first_image_size(config: RunConfig, split: str) -> tuple[int, int]:
    try:
        return tuple(dataset(config, split, {})[0]["image"].shape[-2:])
    except Exception as error:  # a plug-in can fail in any way
        raise ValueError(
            f"the size of the images of data.{split} is not known: its class has no DEFAULT_SIZE, and its first image "
            f"cannot be read ({type(error).__name__}: {error}); give data.{split}.size=(height, width)."
        ) from error


def _seen(config: RunConfig, task: str, images: int) -> int:
    """Images that the training of an expert goes through, repetitions counted."""
    recipe = Recipe(**{**config.experts["recipe"], **config.experts.get("recipes", {}).get(task, {})})
    return recipe.iterations(-(-images // recipe.batch_size)) * recipe.batch_size
