"""BatchNorm statistics of merged weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from symerge_dense.merging.bn_statistics import STATISTICS, statistics_policy
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import tensor_specs


def norm(mean: list[float], var: list[float], count: int = 5) -> dict[str, Tensor]:
    return {
        "bn.running_mean": torch.tensor(mean),
        "bn.running_var": torch.tensor(var),
        "bn.num_batches_tracked": torch.tensor(count),
    }


BASE = norm([0.0, 0.0], [1.0, 1.0])
EXPERTS = {"a": norm([1.0, -2.0], [0.5, 4.0], 10), "b": norm([3.0, 2.0], [1.5, 2.0], 20)}


@pytest.mark.parametrize(
    ("policy", "mean", "var"),
    [
        ("pretrained", [0.0, 0.0], [1.0, 1.0]),
        ("mean", [2.0, 0.0], [1.0, 3.0]),
        ("moments", [2.0, 0.0], [2.0, 7.0]),  # (0.5 + 1 + 1.5 + 9) / 2 - 4 = 2; (4 + 4 + 2 + 4) / 2 - 0 = 7
    ],
)
def test_values_by_hand(policy: str, mean: list[float], var: list[float]) -> None:
    merged = merge_state(TaskArithmetic(), BASE, EXPERTS, statistics=policy)
    assert merged["bn.running_mean"].tolist() == mean and merged["bn.running_var"].tolist() == var
    assert merged["bn.num_batches_tracked"].item() == 5


def test_moments_are_those_of_the_pooled_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.randn(1000, 3, generator=generator) * scale + shift for scale, shift in ((1, 100), (3, 103), (0.1, 99))
    ]
    experts = {
        str(number): {"running_mean": x.mean(0), "running_var": x.var(0, unbiased=False)}
        for number, x in enumerate(features)
    }
    merged = {name: statistics_policy("moments")(name, experts["0"], experts) for name in experts["0"]}
    pooled = torch.cat(features)
    torch.testing.assert_close(merged["running_mean"], pooled.mean(0))
    torch.testing.assert_close(merged["running_var"], pooled.var(0, unbiased=False), rtol=1e-4, atol=0)


@pytest.mark.parametrize("policy", sorted(STATISTICS))
def test_extrapolating_merges_keep_variances_positive(policy: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    base = model.state_dict()
    base = {name: value.clone() for name, value in base.items()}
    experts = {task: {name: value.clone() for name, value in base.items()} for task in "abcd"}
    for number, expert in enumerate(experts.values()):
        expert["1.running_var"].fill_(1e-6 * (number + 1))  # task arithmetic would give 1 + 4 * 0.9 * (-1) < 0
        expert["1.running_mean"].fill_(1e-3)
        expert["1.num_batches_tracked"].fill_(100)
    merged = merge_state(TaskArithmetic(scale=0.9), base, experts, tensor_specs(model), statistics=policy)
    assert bool((merged["1.running_var"] > 0).all()) and merged["1.num_batches_tracked"].item() == 0
    model.load_state_dict(merged)
    assert bool(model.eval()(torch.randn(1, 3, 8, 8)).isfinite().all())


@pytest.mark.parametrize("policy", ["mean", "moments"])
def test_equal_experts_keep_their_statistics_exactly(policy: str) -> None:
    expert = {"running_mean": torch.randn(500), "running_var": torch.rand(500) + 1e-3}
    for count in (1, 3, 7):
        experts = {str(number): expert for number in range(count)}
        for name, value in expert.items():
            assert torch.equal(statistics_policy(policy)(name, expert, experts), value)


def test_unknown_policy_suggests() -> None:
    with pytest.raises(ValueError, match=r"'moment'.*Did you mean 'moments'"):
        merge_state(TaskArithmetic(), BASE, EXPERTS, statistics="moment")


def test_broken_statistics_name_the_expert() -> None:
    broken = {"a": EXPERTS["a"], "b": norm([0.0, 0.0], [1.0, float("nan")])}
    with pytest.raises(ValueError, match=r"b: .*'bn\.running_var'"):
        merge_state(TaskArithmetic(), BASE, broken, statistics="mean")
