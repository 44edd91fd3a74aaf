"""How a network is trained: validated options, and the optimizer and learning-rate schedule that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from symerge_dense.models.blocks import steps_from_end
from symerge_dense.registry import did_you_mean

OPTIMIZERS: dict[str, Any] = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "SGD": torch.optim.SGD}
SCHEDULES = ("cosine", "poly", "step", "constant")
MOMENTUM = 0.9  # of SGD
POLY_POWER = 0.9  # Chen et al. 2017, arXiv 1606.00915


@dataclass(frozen=True)
class Recipe:
    """Training options.

    Args:
        epochs: passes over the data set.
        batch_size: images per step and process.
        lr: learning rate of all weights outside the backbone.
        weight_decay: of all weights.
        optimizer: 'AdamW', 'Adam' or 'SGD'.
        backbone_lr_scale: factor on ``lr`` for the backbone.
        layer_decay: factor on a backbone block's rate from each block to the one before it (BEiT, arXiv 2106.08254):
            the last block learns at ``lr * backbone_lr_scale``, the stem slowest. 1: all at one rate.
        schedule: 'cosine' or 'poly' (both to 0 over the run), 'step' (times ``gamma`` every ``step_size`` epochs) or
            'constant'; the rate is set anew in every iteration.
        warmup_iters: iterations of a linear rise before the schedule.
        step_size: epochs between two steps of 'step'.
        gamma: factor of 'step'.
        num_workers: of the data loader.
        max_iters: ends the run early, and shortens the schedule with it; None for no limit.
        amp: mixed precision: bfloat16, or float16 with loss scaling on a GPU that lacks bfloat16.
        ema: decay of a moving average of the weights, which becomes the trained network; 0 keeps the last weights.

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int = 40
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str = "AdamW"
    backbone_lr_scale: float = 1.0
    layer_decay: float = 1.0
    schedule: str = "cosine"
    warmup_iters: int = 0
    step_size: int = 100
    gamma: float = 0.5
    num_workers: int = 0
    max_iters: int | None = None
    amp: bool = False
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(did_you_mean(self.optimizer, OPTIMIZERS, "optimizer"))
        if self.schedule not in SCHEDULES:
            raise ValueError(did_you_mean(self.schedule, SCHEDULES, "schedule"))
        for name, least in {
            "epochs": 1,
            "batch_size": 1,
            "step_size": 1,
            "lr": 0,
            "weight_decay": 0,
            "gamma": 0,
            "backbone_lr_scale": 0,
            "warmup_iters": 0,
            "num_workers": 0,
            "max_iters": 1,
        }.items():
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise ValueError(f"recipe: {name}={value} must be a number >= {least}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"recipe: layer_decay={self.layer_decay} must be in (0, 1]; 1 is one rate for all blocks.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"recipe: ema={self.ema} must be in [0, 1), such as 0.99; 0 is no average.")

    def iterations(self, epoch_length: int) -> int:
        """Optimizer steps of a run.

        Args:
            epoch_length: batches per epoch.
        """
        every = self.epochs * epoch_length
        return every if self.max_iters is None else min(every, self.max_iters)

    def build_optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer of a network, with the scaled learning rates for its ``backbone``.

        Args:
            model: the network; its frozen parameters are left out.
        """
        backbone = model.get_submodule("backbone")
        steps = (
            dict.fromkeys(dict(backbone.named_parameters()), 0) if self.layer_decay == 1 else steps_from_end(backbone)
        )
        shared = {id(parameter): steps[name] for name, parameter in backbone.named_parameters()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {
                "params": [p for p in trained if shared.get(id(p)) == step],
                "lr": self.lr * self.backbone_lr_scale * self.layer_decay**step,
            }
            for step in sorted(set(shared.values()), reverse=True)
        ]
        groups.append({"params": [p for p in trained if id(p) not in shared], "lr": self.lr})
        more = {"momentum": MOMENTUM} if self.optimizer == "SGD" else {}
        built: Optimizer = OPTIMIZERS[self.optimizer](
            [group for group in groups if group["params"]],
            lr=self.lr,
            weight_decay=self.weight_decay,
            fused=True,  # one pass over the weights: a seventh of the time on CPUs, equal up to rounding
            **more,
        )
        return built

    def schedulers(self, epoch_length: int) -> list[dict[str, Any]]:
        """MMEngine's parameter schedulers, one step per iteration.

        Args:
            epoch_length: batches per epoch.

        Returns:
            Their configs.

        Raises:
            ValueError: the warm-up is not shorter than the run.
        """
        total, warm = self.iterations(epoch_length), self.warmup_iters
        if warm >= total:
            raise ValueError(f"recipe: warmup_iters={warm} must be smaller than the run's {total} iterations.")
        rise = {"type": "LinearLR", "start_factor": 1 / (warm + 1), "begin": 0, "end": warm + 1, "by_epoch": False}
        main = {
            "cosine": {"type": "CosineAnnealingLR", "T_max": total - warm, "eta_min": 0.0, "begin": warm, "end": total},
            "poly": {"type": "PolyLR", "power": POLY_POWER, "eta_min": 0.0, "begin": warm, "end": total + 1},
            "step": {"type": "StepLR", "step_size": self.step_size * epoch_length, "gamma": self.gamma},
            "constant": {"type": "ConstantLR", "factor": 1.0},
        }[self.schedule]
        return [*([rise] if warm else []), {**main, "by_epoch": False}]
