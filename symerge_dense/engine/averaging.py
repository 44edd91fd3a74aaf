"""A moving average of the weights while training, on MMEngine's own hook."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

from symerge_dense.registry import HOOKS, MODELS, SCOPE


@MODELS.register_module()
class WarmAverage(BaseAveragedModel):
    """An exponential moving average whose decay rises to its value: min(decay, (1 + t) / (10 + t)) in step t.

    So short runs forget their first weights too (Polyak averaging as TensorFlow and timm do it). BatchNorm's running
    statistics are averaged like the weights.

    Args:
        model: whose weights are averaged.
        decay: weight of the former average, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, update_buffers=True)
        self.decay = decay

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Move an average, in place, towards the newest value.

        Args:
            averaged_param: the average.
            source_param: the newest value.
            steps: number of earlier updates.
        """
        step = int(steps)
        averaged_param.lerp_(source_param, 1 - min(self.decay, (1 + step) / (10 + step)))


@HOOKS.register_module()
class AverageHook(EMAHook):
    """Averages the weights over a run, and leaves the average in the model when the run ends.

    A checkpoint holds both, so a resumed run ends as an unbroken one.

    Args:
        decay: see ``WarmAverage``.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(f"{SCOPE}.{WarmAverage.__name__}", decay=decay)

    def after_train_epoch(self, runner: Any) -> None:
        """Let processes agree on the averaged running statistics, of which each has seen its own batches."""
        if is_distributed():
            all_reduce_params(self.ema_model.buffers(), op="mean")

    @torch.no_grad()
    def after_train(self, runner: Any) -> None:
        """Put the average into the model; counters of batches stay as they are."""
        average = {
            name: value for name, value in self.ema_model.module.state_dict().items() if value.is_floating_point()
        }
        self.src_model.load_state_dict({**self.src_model.state_dict(), **average})
