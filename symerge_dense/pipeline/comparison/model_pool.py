"""What all contestants share: base, experts and unlabelled images, and the rules that hold for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symerge_dense.adaptation.expert_labels import write_labels
from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.adaptation.method import AdaptationContext
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.experts.statistics import Statistics, collect
from symerge_dense.merging.base import Merger
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import tensor_specs, weights
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.multi_task import MultiTaskModel, assemble

STATISTICS_IMAGES = 256  # that Fisher information and Gram matrices are collected on
State = dict[str, Tensor]


@dataclass
class ModelPool:
    """The experts and what they are merged with. ``folder`` keeps their labels, which adaptive methods share."""

    base: TimmBackbone
    experts: dict[str, MultiTaskModel]
    pool: Unlabelled
    options: SyMergeOptions
    folder: Path
    device: torch.device
    files: Mapping[str, Any] | None = None
    _images: dict[int, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for expert in self.experts.values():
            expert.to(self.device).eval()
        self.base.to(self.device)
        self.specs = tensor_specs(self.base)
        assemble(self.base, self.experts)  # raises where they do not fit together

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What base and experts are known by."""
        experts = {f"expert {task}": state_hash(expert.state_dict()) for task, expert in self.experts.items()}
        return {"base": state_hash(self.base.state_dict()), **experts}

    # -- networks -----------------------------------------------------------------------------------------------------
    def merge(self, merger: Merger, seed: int = 0, extras: Any = None, task: str | None = None) -> State:
        """The backbone that ``merger`` makes; of ``task`` where weights are per task."""
        states = {name: expert.backbone.state_dict() for name, expert in self.experts.items()}
        policy = "mean" if self.options.batchnorm == "recalibrate" else self.options.batchnorm
        return merge_state(
            merger, self.base.state_dict(), states, self.specs, policy, seed=seed, extras=extras, task=task
        )

    def place(
        self, state: Mapping[str, Tensor], task: str | None = None, images: Sequence[Tensor] | None = None
    ) -> MultiTaskModel:
        """A new network of this backbone state and the experts' heads, or that of ``task`` alone; ``settle``-d."""
        experts = self.experts if task is None else {task: self.experts[task]}
        network = assemble(self.base, experts).to(self.device).eval()
        network.backbone.load_state_dict(dict(state))
        return self.settle(network, images)

    @property
    def own_networks(self) -> dict[str | None, MultiTaskModel]:
        """The experts, each for its own task."""
        return dict(self.experts.items())

    def settle(self, network: MultiTaskModel, images: Sequence[Tensor] | None = None) -> MultiTaskModel:
        """Give BatchNorm the statistics of the config's policy, the same for every method; returns the network.

        Where they are re-estimated that is done on ``images``, by default those that the options ask for.
        """
        if self.options.batchnorm == "recalibrate":
            recalibrate(network, self.images(self.options.recalibration_images) if images is None else images)
        return network

    # -- what methods look at -----------------------------------------------------------------------------------------
    def images(self, count: int) -> list[Tensor]:
        """Batches of up to ``count`` evenly spaced unlabelled images (N,3,H,W), read once and kept."""
        count = min(count, len(self.pool))
        if count not in self._images:
            self._images[count] = list(image_batches(self.pool, count, self.options.batch_size, self.device))
        return self._images[count]

    def statistics(self, what: str, seed: int) -> Statistics:
        """What Fisher merging or RegMean needs of every expert."""
        return collect(what, self.experts, self.images(STATISTICS_IMAGES), seed)

    def context(self, seed: int, **more: Any) -> AdaptationContext:
        """The same for an adaptive method; ``more`` are further fields of its context."""
        return AdaptationContext(
            base=self.base,
            experts=self.experts,
            pool=self.pool,
            options=self.options,
            device=self.device,
            seed=seed,
            work_dir=self.folder,
            files=self.files,
            **more,
        )

    def ask_experts(self) -> None:
        """Write the experts' labels of all unlabelled images, before the first method would pay for it."""
        write_labels(self.experts, self.pool, self.folder / "labels", self.options.batch_size)

    @property
    def backbone_weights(self) -> int:
        """Numbers that a merge decides on; statistics of BatchNorm and counters are none."""
        return sum(spec.numel for spec in weights(self.specs))
