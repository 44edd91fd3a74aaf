"""SAMerging: merging coefficients by distillation and adaptive sharpness-aware steps.

min over a of sum_t KL(softmax(z_t / T) || softmax(z / T)), T = 2, with the logits z of the merged model
theta_0 + sum_t a_t * tau_t and z_t of the experts; every step takes the gradient at the worst a within rho = 0.07.
Dalili and Mahdavi, Model Merging via Multi-Teacher Knowledge Distillation, 2025, https://arxiv.org/abs/2512.21288
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from symerge_dense.adaptation.method import AdaptationContext, OptionVariant
from symerge_dense.registry import ADAPTIVE_METHODS

STEPS, RATE = 1000, 1e-3  # published


@ADAPTIVE_METHODS.register_module()
class SAMerging(OptionVariant):
    """One coefficient for each tensor of each task vector, from 0 on and without bounds; the heads stay as they are.

    Tasks that predict no distribution learn by their own loss. The rate is three times the published one, since the
    default 300 rounds could not move coefficients far enough from 0 otherwise. There is no weight decay (published:
    5e-4). Losses are balanced as the context's options say.
    """

    name: ClassVar[str] = "samerging"
    title: ClassVar[str] = "SAMerging"
    paper: ClassVar[str] = "https://arxiv.org/abs/2512.21288"
    learns: ClassVar[str] = "coefficients"
    changes: ClassVar[Mapping[str, Any]] = {
        "objective": "labels",
        "temperature": 2.0,
        "granularity": "tensor",
        "initial": 0.0,
        "clamp": None,
        "density": None,
        "learn_coefficients": True,
        "learn_layer": False,
        "coefficient_lr": 3e-3,
        "lr_decay": "none",
        "warmup": 0,
        "sharpness": 0.07,
        "schedule": "sum",
    }

    def note(self, context: AdaptationContext) -> str:
        options = self.options(context)
        return f"{options.rounds} steps at {options.coefficient_lr:g}, {STEPS} at {RATE:g} in the paper"
