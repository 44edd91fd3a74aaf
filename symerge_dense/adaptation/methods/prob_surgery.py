"""ProbSurgery: Representation Surgery whose correction is drawn from a distribution that depends on the features.

z' = z - (mu + sigma * e), e ~ N(0, 1), with mu = M h, log sigma^2 = S h, h = relu(D z), per task; minimise
||z' - z_expert||_1 + w KL(N(mu, sigma^2) || N(0, 1)) over D, M and S. At inference z' = z - mu, the expectation.
The paper corrects one embedding. Feature levels differ in size, some a hundredfold, so noise and prior are in units
of each.
Wei et al., Representation Surgery in Model Merging with Probabilistic Modeling, ICML 2025,
https://proceedings.mlr.press/v267/wei25c.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from symerge_dense.adaptation.low_rank import TaskAdapted
from symerge_dense.adaptation.method import AdaptationContext, initial_merge, probe_image
from symerge_dense.adaptation.methods.surgery import Surgery, SurgeryStudent, mean_distance
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.student import Groups, Student
from symerge_dense.merging.arguments import check_within
from symerge_dense.models.modes import evaluating
from symerge_dense.registry import ADAPTIVE_METHODS


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over channels, averaged over images and positions.

    Args:
        mean: (N,C,h,w).
        log_variance: (N,C,h,w).
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


class ProbSurgeryStudent(SurgeryStudent):
    """Adapters give the mean of the correction; maps for its variance are learned beside the network, and not kept.

    Args:
        model: the merged network with adapters.
        options: of the adaptation.
        lr: learning rate of adapters and variances.
        kl_weight: w.
        units: {feature level: root mean square of its features}.
        seed: of the noise; that of a step depends on its number and the process, so that a resumed run draws the same.
    """

    def __init__(
        self,
        model: TaskAdapted,
        options: SyMergeOptions,
        lr: float,
        kl_weight: float,
        units: Mapping[int, float],
        seed: int,
    ) -> None:
        super().__init__(model, options, {"adapters": lr})
        self.lr, self.kl_weight, self.units, self.seed, self._iteration = lr, kl_weight, dict(units), seed, 0
        self.spreads = nn.ModuleDict(
            {
                task: nn.ParameterDict(
                    {str(level): torch.zeros_like(adapter.up) for level, adapter in model.levels(task).items()}
                )
                for task in model.tasks
            }
        )
        self._noise = torch.Generator()

    def parameter_groups(self) -> Groups:
        """Adapters, and the maps for the variances, at one rate."""
        spreads = list(self.spreads.parameters())
        return [
            *super().parameter_groups(),
            {"params": spreads, "lr": self.lr, "weight_decay": self.options.weight_decay},
        ]

    def before_step(self, iteration: int, steps: int) -> None:
        """Note the number of the step, which the noise depends on."""
        self._iteration = iteration

    def distances(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean absolute difference of sampled features from the expert's, plus the weighted divergence, per task.

        Args:
            image: (N,3,H,W) in 0..255.
            batch: only ``valid_<task>`` is used, which images the task's expert labels.
        """
        state = np.random.SeedSequence((self.seed, self._iteration, get_rank())).generate_state(1, np.uint64)
        self._noise = torch.Generator(self.device).manual_seed(int(state[0] >> np.uint64(1)))
        return super().distances(image, batch)

    def _distance_of(self, task: str, features: list[Tensor], wanted: list[Tensor], own: Tensor | None) -> Tensor:
        losses, counts = [], own is None or bool(own.any())
        chosen = own if own is not None and counts else slice(None)
        for level, adapter in self.model.levels(task).items():
            code = adapter.code(features[level])
            mean = adapter.along(code, adapter.up).float()
            log_variance = adapter.along(code, self.spreads.get_parameter(f"{task}.{level}")).float()
            noise, unit = torch.randn(mean.shape, generator=self._noise, device=mean.device), self.units[level]
            sampled = features[level].float() - mean - unit * noise * (0.5 * log_variance).exp()
            distance = mean_distance([sampled], [wanted[level]], own)
            losses.append(distance + self.kl_weight * counts * divergence(mean[chosen] / unit, log_variance[chosen]))
        return torch.stack(losses).mean()


@ADAPTIVE_METHODS.register_module()
class ProbSurgery(Surgery):
    """Surgery with sampled corrections; the network at the end is Surgery's, of a higher rank.

    Rank 128, weight 1e-4 and Adam at 1e-3 without decay are those of the public code. As there, the variance is 1 at
    first, here in units of a level's mean square over one image. Every position of a feature map has its own noise.

    Args:
        rank: of the adapters.
        lr: Adam's learning rate.
        kl_weight: of the divergence from N(0, 1).
    """

    name: ClassVar[str] = "prob_surgery"
    title: ClassVar[str] = "ProbSurgery"
    paper: ClassVar[str] = "https://proceedings.mlr.press/v267/wei25c.html"
    learns: ClassVar[str] = "a random adapter per task and feature level"

    def __init__(self, rank: int = 128, lr: float = 1e-3, kl_weight: float = 1e-4) -> None:
        super().__init__(rank, lr)
        self.kl_weight = check_within(self.name, "kl_weight", kl_weight, "[0, inf)", "the weight of a loss")

    def student(self, context: AdaptationContext) -> Student:
        image = probe_image(context)
        network = TaskAdapted(initial_merge(context), image, self.rank, context.seed)
        with torch.no_grad(), evaluating(network):
            units = {level: float(found.square().mean().sqrt()) for level, found in enumerate(network.features(image))}
        return ProbSurgeryStudent(network, self.options(context), self.lr, self.kl_weight, units, context.seed)

    def note(self, context: AdaptationContext) -> str:
        return "an adapter per feature level; the mean corrections are kept at inference"
