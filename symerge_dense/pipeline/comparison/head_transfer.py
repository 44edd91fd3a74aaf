"""Transfer of the adapted layers of one merged model to the encoders of others."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from symerge_dense.models.checkpoint import load_model, read_metadata
from symerge_dense.models.kept_files import damage_of
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.scoring import Networks


@dataclass
class HeadDonor:
    """A model file whose heads are put onto other encoders.

    Args:
        path: the file; it may not exist yet.
    """

    path: Path
    _read: tuple[int, int, str | None] = field(default=(0, 0, None), init=False)

    @property
    def hash(self) -> str | None:
        """Hash of the weights; None while there is no whole file."""
        try:
            found = self.path.stat()
            if self._read[:2] != (found.st_mtime_ns, found.st_size):  # a file is read once
                digest = None if damage_of(self.path) else str(read_metadata(self.path)["hash"])
                self._read = (found.st_mtime_ns, found.st_size, digest)
            return self._read[2]
        except (ValueError, OSError, KeyError):
            return None

    @cached_property
    def model(self) -> MultiTaskModel:
        """The model, on the CPU.

        Raises:
            ValueError: the file cannot be read.
        """
        return load_model(self.path)[0]

    def plugged(self, models: ModelPool, networks: Networks) -> Networks:
        """Copies of networks with the heads of this model and newly settled BatchNorm.

        Args:
            models: settles BatchNorm.
            networks: what to copy.

        Raises:
            ValueError: as ``plug`` raises it.
        """
        return {task: models.settle(plug(network, self.model)) for task, network in networks.items()}

    def check(self, models: ModelPool) -> None:
        """Check that the heads fit those of the experts, before any method runs.

        Args:
            models: has the experts.

        Raises:
            ValueError: they do not fit.
        """
        for expert in models.experts.values():
            plug(expert, self.model)


def plug(network: MultiTaskModel, source: MultiTaskModel) -> MultiTaskModel:
    """A copy of a network with the heads of another one.

    Args:
        network: what to copy.
        source: has the heads for all tasks of ``network``.

    Raises:
        ValueError: ``source`` lacks a task, or its heads do not fit.
    """
    changed = copy.deepcopy(network)
    for task, head in changed.named_heads():
        if task not in source.tasks:
            raise ValueError(
                f"the adapted layers are those of {', '.join(source.tasks)}, none is for {task!r}; take "
                "them from a model of the same tasks."
            )
        try:
            head.load_state_dict(source.heads[task].state_dict())
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ValueError(
                f"the adapted layers do not fit the head of {task!r} ({reason}); take them from a model "
                "with the same heads."
            ) from error
    return changed
