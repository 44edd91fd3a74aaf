"""A student whose backbone is merged anew in every step, from base weights that stay as they are."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.func import functional_call

from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.engine.student import Student
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.merging.kinds import TensorSpec, tensor_specs


class MergedStudent(Student):
    """The backbone holds the base; ``merged_weights`` stand in for it in every pass, until ``fold`` puts them there.

    ``specs`` are the backbone's parameters, which is what a merge may be given.
    """

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions) -> None:
        super().__init__(model, options)
        parameters = {name for name, _ in model.backbone.named_parameters()}
        self.specs: list[TensorSpec] = [spec for spec in tensor_specs(model.backbone) if spec.name in parameters]
        self._base: dict[str, Tensor] | None = None

    @abstractmethod
    def merged_weights(self) -> dict[str, Tensor]:
        """Backbone parameters of the merged model, differentiable in what the merge learns."""

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Raw head outputs {task: (N,C,h,w)} of the active tasks for images (N,3,H,W) in 0..255."""
        if self._base is not None:  # folded: the backbone already holds the merged weights
            return super().outputs(image)
        weights = {f"backbone.{name}": value for name, value in self.merged_weights().items()}
        return functional_call(self.model, weights, (image,), {"mode": "tensor", "only": self.active})

    @torch.no_grad()
    def fold(self) -> None:
        """Put the merged weights into the backbone, for evaluation or export; ``unfold`` brings the base back."""
        if self._base is None:
            merged = self.merged_weights()
            self._base = {name: p.data for name, p in self.model.backbone.named_parameters()}
            for name, parameter in self.model.backbone.named_parameters():
                parameter.data = merged[name]

    def unfold(self) -> None:
        """Restore the base weights after ``fold``; does nothing if not folded."""
        if self._base is not None:
            for name, parameter in self.model.backbone.named_parameters():
                parameter.data = self._base[name]
            self._base = None
