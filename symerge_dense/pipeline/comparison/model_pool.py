"""What all candidates share: base, experts and unlabelled images, and the same treatment of BatchNorm."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.adaptation.label_cache import write_labels
from symerge_dense.adaptation.method import AdaptationContext
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.experts.statistics import Statistics, collect, merged_grams
from symerge_dense.merging.base import Merger
from symerge_dense.merging.methods.regmean_pp import RegMeanPP
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import block_names, tensor_specs, weights
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.models.views import Views

STATISTICS_IMAGES = 256  # for Fisher information and Gram matrices
MERGED_GRAM = RegMeanPP.statistic
State = dict[str, Tensor]


def labels_of_pool(folder: Path, pool: Unlabelled) -> Path:
    """Folder of the labels of other images than the config's, which all rows of these images share.

    Args:
        folder: of the comparison.
        pool: the images.
    """
    return folder / f"labels-{pool.fingerprint[:8]}"


@dataclass
class ModelPool:
    """The experts and what they are merged with.

    Args:
        base: the experts' common base weights.
        experts: {task: expert}.
        pool: unlabelled images.
        options: of adaptation and BatchNorm.
        folder: keeps the experts' labels, which adaptive methods share.
        device: where to work; base and experts are moved there.
        files: sources of base, experts and pool as config values, see ``AdaptationContext``.
        labels: folder of the experts' cached labels; None is ``folder/labels``.

    Raises:
        ValueError: base and experts do not fit together.
    """

    base: TimmBackbone
    experts: dict[str, MultiTaskModel]
    pool: Unlabelled
    options: SyMergeOptions
    folder: Path
    device: torch.device
    files: Mapping[str, Any] | None = None
    labels: Path | None = None
    _images: dict[int, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for expert in self.experts.values():
            expert.to(self.device).eval()
        self.base.to(self.device)
        self.specs = tensor_specs(self.base)
        assemble(self.base, self.experts)  # raises ValueError where they do not fit together

    @cached_property
    def hashes(self) -> dict[str, str]:
        """{'base' or 'expert TASK': hash of its weights}."""
        experts = {f"expert {task}": state_hash(expert.state_dict()) for task, expert in self.experts.items()}
        return {"base": state_hash(self.base.state_dict()), **experts}

    # -- networks -----------------------------------------------------------------------------------------------------
    def merge(
        self,
        merger: Merger,
        seed: int = 0,
        extras: Any = None,
        task: str | None = None,
        names: Collection[str] | None = None,
    ) -> State:
        """Merge the experts' backbones.

        Args:
            merger: the method.
            seed: of random methods.
            extras: statistics that the method needs, {what: statistics}.
            task: whose weights to make, of a method that gives every task its own.
            names: the tensors to merge; None merges all.

        Returns:
            The merged backbone state, or the part of it that is named.
        """
        chosen = [spec for spec in self.specs if names is None or spec.name in names]

        def part(backbone: TimmBackbone) -> State:
            state = backbone.state_dict()
            return {spec.name: state[spec.name] for spec in chosen}

        states = {name: part(expert.backbone) for name, expert in self.experts.items()}
        policy = "mean" if self.options.batchnorm == "recalibrate" else self.options.batchnorm
        return merge_state(merger, part(self.base), states, chosen, policy, seed=seed, extras=extras, task=task)

    def place(
        self, state: Mapping[str, Tensor], task: str | None = None, images: Sequence[Tensor] | None = None
    ) -> MultiTaskModel:
        """A new network of a backbone state and the experts' heads, with settled BatchNorm.

        Args:
            state: of the backbone.
            task: the only task whose head is taken; None takes all heads.
            images: see ``settle``.
        """
        experts = self.experts if task is None else {task: self.experts[task]}
        network = assemble(self.base, experts).to(self.device).eval()
        network.backbone.load_state_dict(dict(state))
        return self.settle(network, images)

    @property
    def own_networks(self) -> dict[str | None, MultiTaskModel]:
        """The experts, each for its own task."""
        return dict(self.experts.items())

    def settle(self, network: MultiTaskModel, images: Sequence[Tensor] | None = None) -> MultiTaskModel:
        """Give BatchNorm the statistics of the config's policy, the same for every method.

        Args:
            network: changed in place.
            images: batches (N,3,H,W) for re-estimation, if that is the policy; None takes as many as the options say.

        Returns:
            The same network.
        """
        if self.options.batchnorm == "recalibrate":
            recalibrate(network, self.images(self.options.recalibration_images) if images is None else images)
        return network

    # -- what methods look at -----------------------------------------------------------------------------------------
    def images(self, count: int) -> list[Tensor]:
        """Evenly spaced unlabelled images, read once and kept.

        Args:
            count: at most this many.

        Returns:
            Batches (N,3,H,W).
        """
        count = min(count, len(self.pool))
        if count not in self._images:
            self._images[count] = list(image_batches(self.pool, count, self.options.batch_size, self.device))
        return self._images[count]

    def statistics(self, what: str, seed: int, merger: Merger) -> Statistics:
        """The statistic of every expert that Fisher merging, RegMean or RegMean++ needs.

        Args:
            what: 'fisher', 'gram' or 'merged_gram'.
            seed: of the draws of 'fisher'.
            merger: the method, by which 'merged_gram' merges block after block.
        """
        images = self.images(STATISTICS_IMAGES)
        if what != MERGED_GRAM:
            return collect(what, self.experts, images, seed)
        blocks = {
            block: [spec.name for spec in self.specs if spec.block_name == block] for block in block_names(self.specs)
        }
        return merged_grams(
            self.experts, images, blocks, lambda names, found: self.merge(merger, seed, {what: found}, names=names)
        )

    def context(self, seed: int, **more: Any) -> AdaptationContext:
        """What an adaptive method is given.

        Args:
            seed: of everything random.
            **more: further fields of ``AdaptationContext``.
        """
        return AdaptationContext(
            base=self.base,
            experts=self.experts,
            pool=self.pool,
            options=self.options,
            device=self.device,
            seed=seed,
            work_dir=self.folder,
            files=self.files,
            labels=self.labels,
            **more,
        )

    def ask_experts(self, options: SyMergeOptions) -> None:
        """Write the experts' labels of all unlabelled images now, so that no method is charged for it.

        Args:
            options: of the method that learns from them; nothing is written where they say that it asks online.
        """
        if options.labels == "cached":
            folder, views = self.labels or self.folder / "labels", Views.of(options.views)
            write_labels(self.experts, self.pool, folder, self.options.batch_size, views)

    def variant(self, name: str, options: SyMergeOptions, pool: Unlabelled | None, spec: Any) -> ModelPool:
        """The same experts with other options, and perhaps other unlabelled images.

        Labels of other images are kept in a folder of their own, which variants of the same images share.

        Args:
            name: of the folder for what methods leave.
            options: of the adaptation.
            pool: the images; None takes the same.
            spec: of ``pool`` as a config value.
        """
        changed: dict[str, Any] = {"options": options, "folder": self.folder / "variants" / name}
        if pool is None:
            return dataclasses.replace(
                self, **changed, labels=self.labels or self.folder / "labels", _images=dict(self._images)
            )
        labels = labels_of_pool(self.folder, pool)
        files = {**self.files, "pool": spec} if self.files is not None else None
        return dataclasses.replace(self, **changed, pool=pool, files=files, labels=labels, _images={})

    @property
    def backbone_weights(self) -> int:
        """Number of merged weights, without statistics of BatchNorm and counters."""
        return sum(spec.numel for spec in weights(self.specs))
