"""The adapted layers of one merged model on the encoders of the others."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from symerge_dense.models.checkpoint import read_metadata
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.scoring import Networks
from symerge_dense.pipeline.expert_store import read_model


@dataclass
class HeadDonor:
    """A model file whose heads are plugged onto other encoders; it may not exist yet."""

    path: Path

    @property
    def hash(self) -> str | None:
        """Of its weights; None while there is no file that can be read."""
        try:
            return str(read_metadata(self.path)["hash"])
        except (ValueError, OSError, KeyError):
            return None

    @cached_property
    def model(self) -> MultiTaskModel:
        """The model, on the CPU. Raises ValueError where it cannot be read."""
        return read_model(self.path)[0]

    def plugged(self, models: ModelPool, networks: Networks) -> Networks:
        """Copies of ``networks`` with the donor's heads, BatchNorm settled anew. Raises ValueError as ``plug`` does."""
        return {task: models.settle(plug(network, self.model)) for task, network in networks.items()}

    def check(self, models: ModelPool) -> None:
        """Raise ValueError where its heads do not fit the experts': now, and not in the row of every method."""
        for expert in models.experts.values():
            plug(expert, self.model)


def plug(network: MultiTaskModel, donor: MultiTaskModel) -> MultiTaskModel:
    """A copy of ``network`` with the heads of ``donor`` for its tasks. Raises ValueError where they do not fit."""
    changed = copy.deepcopy(network)
    for task, head in changed.named_heads():
        if task not in donor.tasks:
            raise ValueError(
                f"the adapted layers are those of {', '.join(donor.tasks)}, none is for {task!r}; take "
                "them from a model of the same tasks."
            )
        try:
            head.load_state_dict(donor.heads[task].state_dict())
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ValueError(
                f"the adapted layers do not fit the head of {task!r} ({reason}); take them from a model "
                "with the same heads."
            ) from error
    return changed
