"""Policies for BatchNorm running statistics and counters, from the weights alone; these never reach a merger.

A merge rule that extrapolates can turn a variance negative, and huge counts or variances would dominate its
thresholds. So statistics have policies of their own. ``models.batchnorm`` re-estimates them on images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from symerge_dense.merging.sources import TensorSource, load
from symerge_dense.merging.tensor_specs import tensor_specs
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import did_you_mean

StatisticsPolicy: TypeAlias = Callable[[str, TensorSource, Mapping[str, TensorSource]], Tensor]


def pretrained(name: str, base: TensorSource, experts: Mapping[str, TensorSource]) -> Tensor:
    """The base's own statistic.

    Args:
        name: name of the statistic in the state dict.
        base: tensors of the base.
        experts: {task: tensors}.
    """
    return base[name].clone()


def mean(name: str, base: TensorSource, experts: Mapping[str, TensorSource]) -> Tensor:
    """The mean of the experts' statistics.

    Args:
        name: name of the statistic in the state dict.
        base: tensors of the base; gives the data type.
        experts: {task: tensors}.
    """
    return _mean(name, experts).to(base[name].dtype)


def moments(name: str, base: TensorSource, experts: Mapping[str, TensorSource]) -> Tensor:
    """Moments of the experts' features pooled: mu = mean mu_t, var = mean(var_t + mu_t^2) - mu^2.

    The variance is computed as mean var_t + mean (mu_t - mu)^2, which is the same and cannot become negative.

    Args:
        name: name of the statistic in the state dict; a variance also reads the ``running_mean`` beside it.
        base: tensors of the base; gives the data type.
        experts: {task: tensors}.
    """
    path, dot, leaf = name.rpartition(".")
    result = _mean(name, experts)
    if leaf == "running_var":
        sibling = f"{path}{dot}running_mean"
        centre = _mean(sibling, experts)
        for task, expert in experts.items():
            result += (load(expert, task, sibling).double() - centre).square() / len(experts)
    return result.to(base[name].dtype)


STATISTICS: dict[str, StatisticsPolicy] = {"pretrained": pretrained, "mean": mean, "moments": moments}


def statistics_policy(name: str) -> StatisticsPolicy:
    """The policy of a name.

    Args:
        name: a key of ``STATISTICS``.

    Raises:
        ValueError: there is no such policy; names the nearest ones.
    """
    if name not in STATISTICS:
        raise ValueError(did_you_mean(name, STATISTICS, "BatchNorm statistics policy"))
    return STATISTICS[name]


def model_statistics(policy: str, model: MultiTaskModel, experts: Mapping[str, MultiTaskModel]) -> dict[str, Tensor]:
    """BatchNorm statistics of a merged model without images: the backbone's by a policy, each head's from its expert.

    Args:
        policy: its name.
        model: the merged model; its backbone holds the base.
        experts: {task: expert}.

    Returns:
        {name in ``model.state_dict()``: value}.
    """
    merge, base = statistics_policy(policy), model.backbone.state_dict()
    sources = {task: experts[task].backbone.state_dict() for task in model.tasks}
    found = {
        f"backbone.{spec.name}": merge(spec.name, base, sources)
        for spec in tensor_specs(model.backbone)
        if spec.kind == "bn_stat"
    }
    for task, head in model.named_heads():
        own = experts[task].heads[task].state_dict()
        found |= {
            f"heads.{task}.{spec.name}": own[spec.name].clone() for spec in tensor_specs(head) if spec.kind == "bn_stat"
        }
    return found


def _mean(name: str, experts: Mapping[str, TensorSource]) -> Tensor:
    """Mean in float64: of equal statistics it is exactly that statistic."""
    total: Tensor = torch.zeros(())
    for number, (task, expert) in enumerate(experts.items()):
        value = load(expert, task, name).double()
        total = total + value if number else value
    return total / len(experts)
