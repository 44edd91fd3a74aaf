"""One model of all tasks: a merged backbone with the heads of the experts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import load_model
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.models.weight_files import has_record
from symerge_dense.pipeline.file_merge.inputs import Weights


def experts_by_task(experts: Mapping[str, Weights]) -> dict[str, MultiTaskModel]:
    """The experts that serve each task.

    Args:
        experts: {name: model file or MultiTaskModel}.

    Returns:
        {task: expert}, in the order of the experts.

    Raises:
        ValueError: an expert has no heads, because it is no model of this package, or two serve one task.
    """
    found: dict[str, MultiTaskModel] = {}
    for name, source in experts.items():
        if isinstance(source, (str, Path)) and Path(source).is_file() and has_record(source):
            model = load_model(source)[0]
        elif isinstance(source, MultiTaskModel):
            model = source
        else:
            told = source if isinstance(source, (str, Path)) else type(source).__name__
            raise ValueError(
                f"expert {name} ({told}) is no model of this package, so its head is not known; make one of it by "
                "symerge import-expert, or leave out --heads (heads=True) to merge the weights alone."
            )
        for task in model.tasks:
            if task in found:
                raise ValueError(
                    f"two experts serve {task!r}, the second is {name}; one model has one head for a task."
                )
            found[task] = model
    return found


def with_heads(state: Mapping[str, Tensor], experts: Mapping[str, MultiTaskModel]) -> MultiTaskModel:
    """A model of the merged backbone and copies of the experts' heads, in evaluation mode.

    Args:
        state: tensors of the backbone.
        experts: {task: expert}.

    Raises:
        ValueError: the experts differ in architecture, preprocessing or upsampling.
    """
    backbone = TimmBackbone(**next(iter(experts.values())).backbone.spec)
    backbone.load_state_dict(state)
    return assemble(backbone, experts).eval()
