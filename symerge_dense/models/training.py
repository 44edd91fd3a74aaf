"""What MMEngine's training asks of a network here: stacked batches, losses that are finite, weights that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor

from symerge_dense.registry import MODELS


class NonFiniteLoss(ValueError):
    """A loss became NaN or infinite; raised before the optimizer could use it."""


def check_finite(losses: Mapping[str, Tensor]) -> None:
    """Refuse losses that are NaN or infinite.

    Call it in every process or in none: all of them raise if one does, since the others would wait for its gradient.

    Args:
        losses: by name; only those named ``loss_<task>`` are checked.

    Raises:
        NonFiniteLoss: a loss is not finite; the message names the tasks.
    """
    named = {key.removeprefix("loss_"): value.detach() for key, value in losses.items() if key.startswith("loss_")}
    if not named:
        return
    finite = torch.stack([value.isfinite().all() for value in named.values()]).all().float()
    all_reduce(finite, "min")  # does nothing in a single process
    if not bool(finite):
        bad = [f"{task} ({float(value.mean())})" for task, value in named.items() if not bool(value.isfinite().all())]
        raise NonFiniteLoss(
            f"the loss of {', '.join(bad) or 'another process'} is not finite; no weight was changed "
            "by it. Lower the learning rate, switch off mixed precision, or check the labels."
        )


@MODELS.register_module()
class StackingPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the model, and stacks what MMEngine's default collation leaves as lists of tensors."""

    def forward(self, data: Mapping[str, Any], training: bool = False) -> Any:
        """The batch on the model's device, lists of tensors stacked.

        Args:
            data: {name: tensor, or list of equally large tensors}.
            training: passed on to MMEngine, which ignores it.
        """
        stacked = {
            name: torch.stack(list(value))
            if isinstance(value, list | tuple) and all(isinstance(item, Tensor) for item in value)
            else value
            for name, value in data.items()
        }
        return super().forward(stacked, training)


class TrainableModel(BaseModel):
    """An MMEngine model whose losses are checked, and whose weights MMEngine's runner does not initialise."""

    def init_weights(self) -> None:
        """Keep the weights: MMEngine's runner calls this before training and must not re-initialise anything."""

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """MMEngine's sum of the losses, and the losses for the log.

        Args:
            losses: by name; those called ``loss_<task>`` are summed, the others are for the log alone.

        Raises:
            NonFiniteLoss: a loss is not finite; the optimizer never sees it.
        """
        check_finite(losses)
        objective = {name: value for name, value in losses.items() if name.startswith("loss_")}
        total, logs = super().parse_losses(objective)  # MMEngine would add all that has 'loss' somewhere in its name
        return total, {**logs, **{name: value for name, value in losses.items() if name not in objective}}
