"""How far networks are from the experts on unlabelled images: what scales are tuned by where no label may be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor

from symerge_dense.merging.average import Average
from symerge_dense.pipeline.comparison.ground import Ground
from symerge_dense.pipeline.comparison.measures import Networks

IMAGES = 64  # of the unlabelled ones, evenly spaced: that many tell scales apart, and cost little


@dataclass
class Agreement:
    """The experts' outputs on a few unlabelled images, against which networks are held."""

    ground: Ground

    @property
    def images(self) -> list[Tensor]:
        """The batches (N,3,H,W)."""
        return self.ground.images(IMAGES)

    def __call__(self, networks: Networks) -> float:
        """Minus the mean over tasks of the distance from the expert, the distance of the plain average as its unit."""
        distances, unit = self.distances(networks), self.unit
        return -fmean(distance / max(unit[task], 1e-12) for task, distance in distances.items())

    @torch.no_grad()
    def distances(self, networks: Networks) -> dict[str, float]:
        """{task: the task's loss against its expert's output, mean over images and pixels}."""
        losses: dict[str, list[float]] = {}
        for network in networks.values():
            for images, wanted in zip(self.images, self._wanted, strict=True):
                for name, output in network(images, mode="tensor").items():
                    task = network.tasks[name]
                    loss = task.pixel_loss(output, task.self_label(wanted[name])).flatten(1).mean(1)
                    losses.setdefault(name, []).extend(loss.tolist())
        return {task: fmean(values) for task, values in losses.items()}

    @cached_property
    def _wanted(self) -> list[dict[str, Tensor]]:
        with torch.no_grad():
            return [{task: expert(images, mode="tensor")[task] for task, expert in self.ground.experts.items()}
                    for images in self.images]

    @cached_property
    def unit(self) -> dict[str, float]:
        """Those of the plain average of the experts: what losses of different tasks are divided by."""
        average = self.ground.place(self.ground.merge(Average()), images=self.images)
        return self.distances({None: average})
