"""The model that SyMerge adapts: a backbone merged layer by layer, and the experts' heads.

SyMerge, https://arxiv.org/abs/2412.19098, learns the merging coefficients and one layer of each head together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from symerge_dense.adaptation.options import SyMergeOptions, make_options
from symerge_dense.adaptation.student import Groups, MergedStudent
from symerge_dense.merging.granularity import FINER
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.trimmed_experts import trimmed_experts
from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import check_same_base, load_model, state_hash
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.registry import MODELS


@MODELS.register_module()
class SyMergeModel(MergedStudent):
    """A multi-task model whose backbone weights are base + coefficients x task vectors.

    ``merge.coefficients`` and the adapted layer of each head learn. A config names the experts by their files, as
    OpenMMLab's distillation configs name a teacher:
    ``model=dict(type='SyMergeModel', base='base.safetensors', experts=dict(depth='depth.safetensors', ...))``.

    Args:
        base: what the experts were fine-tuned from: a backbone, a file that ``load_base`` reads, or the arguments of
            ``load_base``, such as ``dict(pretrained=True)``.
        experts: {task: expert}, models or their files; the tasks of the merged model.
        options: a SyMergeOptions, its arguments as a dict, or None for the defaults.
        tasks: their order, where that of ``experts`` is not it: MMEngine writes dicts in alphabetical order.
        other_base: accept files of experts that do not say that they started from this base.
        data_preprocessor: what MMEngine passes on; None stacks and moves batches.

    Raises:
        ValueError: a file cannot be read, an expert lacks its task or started from another base, experts and base
            differ in architecture, there is no expert, ``tasks`` are not theirs, or an option is unknown.
    """

    def __init__(
        self,
        base: TimmBackbone | str | Path | Mapping[str, Any],
        experts: Mapping[str, MultiTaskModel | str | Path],
        options: SyMergeOptions | Mapping[str, Any] | None = None,
        tasks: Sequence[str] | None = None,
        other_base: bool = False,
        data_preprocessor: Any = None,
    ) -> None:
        chosen = options if isinstance(options, SyMergeOptions) else make_options(**(options or {}))
        order = list(experts) if tasks is None else list(tasks)
        if not experts or set(order) != set(experts):
            raise ValueError(f"SyMergeModel: experts {list(experts)}, tasks {order}; give one expert for every task.")
        found = {task: load_expert(experts[task], task, chosen.task_vectors == "mapped") for task in order}
        loaded = {task: expert for task, (expert, _) in found.items()}
        backbone, records = _backbone(base, loaded), {task: record for task, (_, record) in found.items() if record}
        if records and not other_base:
            origin = {"base_hash": state_hash(backbone.state_dict())}
            try:
                check_same_base({"base": origin, **records})
            except ValueError as error:
                raise ValueError(f"{error} Here that is other_base=True.") from error
        super().__init__(assemble(backbone, loaded), chosen, data_preprocessor)
        self.experts = loaded
        fixed = not chosen.learn_coefficients and chosen.granularity in FINER  # all alike: one number says as much
        self.merge = LayerwiseMerge(
            self.specs,
            list(loaded),
            granularity="tensor" if fixed else chosen.granularity,
            init=chosen.initial,
            clamp=chosen.clamp,
            rank=chosen.singular_rank,
        )
        self.merge.requires_grad_(chosen.learn_coefficients)
        self.adapted = {task: head.layer_modules(chosen.layer) for task, head in self.model.named_heads()}
        for parameter in self.layer_parameters():
            parameter.requires_grad_(chosen.learn_layer)

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        """Compute the experts' task vectors.

        Args:
            experts: {task: expert}.

        Raises:
            ValueError: an expert is missing, or its backbone does not fit.
        """
        base, mapped = dict(self.model.backbone.named_parameters()), self.options.task_vectors == "mapped"
        found = {task: experts[task] if mapped else experts[task].to(self.device) for task in self.model.tasks}
        weights: Mapping[str, Mapping[str, Tensor]] = {
            task: dict(expert.backbone.named_parameters()) for task, expert in found.items()
        }
        if self.options.density is not None:
            weights = trimmed_experts(base, weights, self.merge.specs, self.options.density)
        folder = self.scratch or Path(tempfile.gettempdir()) if mapped else None
        self.merge.attach(base, weights, folder, half=self.options.task_vector_dtype == "bfloat16")
        super().attach(experts)

    # -- what learns ------------------------------------------------------------------------------------------------
    def layer_parameters(self) -> list[nn.Parameter]:
        """Parameters of the adapted layers of all heads."""
        layers = (self.model.heads[task].get_submodule(name) for task, names in self.adapted.items() for name in names)
        return [parameter for layer in layers for parameter in layer.parameters()]

    def parameter_groups(self) -> Groups:
        """Coefficients and adapted layers with their own learning rates; a half that does not learn is left out."""
        options = self.options
        groups = [
            {"params": list(self.merge.parameters()), "lr": options.coefficient_lr, "weight_decay": 0.0},
            {"params": self.layer_parameters(), "lr": options.layer_lr, "weight_decay": options.weight_decay},
        ]
        wanted = (options.learn_coefficients, options.learn_layer)
        return [group for group, on in zip(groups, wanted, strict=True) if on]

    def after_step(self) -> None:
        """Project the coefficients into their interval."""
        self.merge.project_()

    def log_scalars(self) -> dict[str, Tensor]:
        """The mean coefficient of every task; each group of tensors counts once."""
        means = self.merge.means().mean(0)
        return {f"coefficient_mean_{task}": mean for task, mean in zip(self.model.tasks, means, strict=True)}

    def merged_weights(self) -> dict[str, Tensor]:
        """Backbone parameters of the merged model, differentiable in the coefficients."""
        return self.merge(dict(self.model.backbone.named_parameters()))


def load_expert(
    expert: MultiTaskModel | str | Path, task: str, mapped: bool = False
) -> tuple[MultiTaskModel, dict[str, Any]]:
    """An expert model, read from its file and reduced to one task; an object is returned as it is.

    Args:
        expert: the model, or its file.
        task: the task to keep.
        mapped: leave the weights in the file, see ``load_model``.

    Returns:
        The model, and what its file says about it; an object says nothing.

    Raises:
        ValueError: the file is no model of this package, or does not serve the task.
    """
    if isinstance(expert, MultiTaskModel):
        return expert, {}
    model, record = load_model(expert, mapped)
    if task not in model.tasks:
        raise ValueError(f"expert {expert} serves {', '.join(model.tasks)}, not {task!r}; name an expert of {task}.")
    model.keep_tasks([task])
    return model, record


def _backbone(
    base: TimmBackbone | str | Path | Mapping[str, Any], experts: Mapping[str, MultiTaskModel]
) -> TimmBackbone:
    """The base backbone; one that is read from a file has the experts' architecture."""
    if isinstance(base, TimmBackbone):
        return base
    backbone = TimmBackbone(**next(iter(experts.values())).backbone.spec)
    load_base(backbone, **(base if isinstance(base, Mapping) else {"checkpoint": base}))
    return backbone
