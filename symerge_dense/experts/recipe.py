"""How a network is trained: validated numbers, and the optimizer and learning-rate schedule they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from symerge_dense.registry import did_you_mean

OPTIMIZERS: dict[str, Any] = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "SGD": torch.optim.SGD}
SCHEDULES = ("cosine", "poly", "step", "constant")
MOMENTUM = 0.9  # of SGD
POLY_POWER = 0.9  # Chen et al. 2017, arXiv 1606.00915


@dataclass(frozen=True)
class Recipe:
    """Training options.

    Args:
        epochs, batch_size: batch_size is per process.
        lr, weight_decay, optimizer ('AdamW', 'Adam', 'SGD'): of all weights; the backbone's lr is multiplied by
            ``backbone_lr_scale``.
        schedule: 'cosine' or 'poly' (both to 0 over the run), 'step' (times ``gamma`` every ``step_size`` epochs) or
            'constant'; each moves with every iteration, after a linear rise over ``warmup_iters`` iterations.
        num_workers: of the data loader. max_iters: ends the run early, the schedule shortened with it.
        amp: mixed precision (float16 on CUDA, bfloat16 on CPUs).

    Raises ValueError for values out of range.
    """

    epochs: int = 40
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str = "AdamW"
    backbone_lr_scale: float = 1.0
    schedule: str = "cosine"
    warmup_iters: int = 0
    step_size: int = 100
    gamma: float = 0.5
    num_workers: int = 0
    max_iters: int | None = None
    amp: bool = False

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

    def iterations(self, epoch_length: int) -> int:
        """Optimizer steps of a run whose epochs have ``epoch_length`` batches."""
        every = self.epochs * epoch_length
        return every if self.max_iters is None else min(every, self.max_iters)

    def build_optimizer(self, model: nn.Module) -> Optimizer:
        """Optimizer of ``model``: its ``backbone`` with the scaled learning rate, and everything else."""
        shared = {id(parameter) for parameter in model.get_submodule("backbone").parameters()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if id(p) in shared], "lr": self.lr * self.backbone_lr_scale},
            {"params": [p for p in trained if id(p) not in shared], "lr": self.lr},
        ]
        more = {"momentum": MOMENTUM} if self.optimizer == "SGD" else {}
        built: Optimizer = OPTIMIZERS[self.optimizer](
            [group for group in groups if group["params"]], lr=self.lr, weight_decay=self.weight_decay, **more
        )
        return built

    def schedulers(self, epoch_length: int) -> list[dict[str, Any]]:
        """MMEngine's parameter schedulers, one step per iteration."""
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
