"""Experts' heads on one shared backbone: the multi-task network that merging fills with weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from symerge_dense.experts.backbone import TimmBackbone
from symerge_dense.experts.model import MultiTaskModel


def assemble(backbone: TimmBackbone, experts: Mapping[str, MultiTaskModel]) -> MultiTaskModel:
    """A multi-task model with a copy of ``backbone`` and of the head that each expert has for its task.

    ``experts`` is {task: expert}. Raises ValueError if experts disagree about preprocessing, upsampling or backbone:
    one pass through one backbone cannot serve both.
    """
    specs = {task: expert.spec for task, expert in experts.items()}
    first, reference = next(iter(specs.items()))
    for task, spec in specs.items():
        for part in ("backbone", "preprocessing", "align_corners"):
            if spec[part] != reference[part]:
                raise ValueError(f"experts {first!r} and {task!r} differ in {part}: {reference[part]} and "
                                 f"{spec[part]}; merging needs one architecture that sees images in the same way.")
    if backbone.spec != reference["backbone"]:
        raise ValueError(f"the base is {backbone.spec}, the experts' backbone is {reference['backbone']}; use the base "
                         "that the experts were fine-tuned from.")
    heads = {task: copy.deepcopy(experts[task].heads[task]) for task in experts}
    tasks = {task: specs[task]["tasks"][task] for task in experts}
    return MultiTaskModel(copy.deepcopy(backbone), heads, tasks, **reference["preprocessing"],
                          align_corners=reference["align_corners"])
