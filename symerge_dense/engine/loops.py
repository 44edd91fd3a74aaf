"""A training loop for MMEngine's runner."""

from __future__ import annotations

import itertools
from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from symerge_dense.registry import LOOPS


@LOOPS.register_module()
class TrainLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop, which can also end within an epoch.

    Args:
        runner: MMEngine's.
        dataloader: the data loader, or its config.
        max_epochs: replaced by the number of epochs that ``max_iters`` takes.
        max_iters: iterations of the whole run.
    """

    def __init__(self, runner: Any, dataloader: Any, max_epochs: int, max_iters: int) -> None:
        super().__init__(runner, dataloader, max_epochs)
        self._max_iters = max_iters
        self._max_epochs = -(-max_iters // len(self.dataloader))

    def run_epoch(self) -> None:
        """One epoch, or what is left of the run."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index, batch in enumerate(itertools.islice(self.dataloader, self._max_iters - self._iter)):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
