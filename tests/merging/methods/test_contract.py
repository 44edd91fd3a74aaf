"""What holds for all element-wise methods: arguments, readings, odd tensors, precision, BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from builders.merging_vectors import SIZE, build, deltas, merge, state, vector
from torch import Tensor, nn

from symerge_dense.merging.base import Merger
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import tensor_specs

READINGS = {
    "ties": 3,
    "dare": 1,
    "dare_ties": 3,
    "breadcrumbs": 1,
    "magmax": 1,
    "consensus": 1,
    "tall_masks": 1,
    "emr": 2,
    "pcb": 5,
    "lines": 1,
}
ELEMENTWISE = sorted({*READINGS, "model_stock"})
FLAT = {"lines": {"beta": 0.0}}  # states without a module know no depth


def task_of(merger: Merger) -> str | None:
    return "a" if merger.per_task else None


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ties", {"density": 0}, r"ties: density is 0; it must lie in \(0, 1\]: the share"),
        ("ties", {"density": 20}, "density is 20"),
        ("ties", {"density": float("nan")}, "density is nan; it must be a finite number"),
        ("ties", {"density": None}, "density is None"),
        ("ties", {"scale": float("inf")}, "ties: scale is inf"),
        ("ties", {"aggregation": "avg"}, "unknown aggregation of ties 'avg'"),
        ("ties", {"aggregation": None}, "unknown aggregation of ties 'None'"),
        ("dare", {"drop": 1}, r"dare: drop is 1; it must lie in \[0, 1\)"),
        ("dare", {"drop": -0.1}, "drop is -0.1"),
        ("dare", {"scale": "0.3"}, "dare: scale is '0.3'"),
        ("dare_ties", {"drop": 1.5}, "dare_ties: drop is 1.5"),
        ("dare_ties", {"density": 0.0}, "dare_ties: density is 0.0"),
        ("dare_ties", {"aggregation": "summ"}, "Did you mean 'sum'"),
        ("breadcrumbs", {"density": 1.1}, "breadcrumbs: density is 1.1"),
        ("breadcrumbs", {"density": 0.1, "gamma": 0.1}, r"gamma is 0.1; it must lie in \[0, 0.1\)"),
        ("breadcrumbs", {"gamma": -1e-9}, "gamma is -1e-09"),
        ("magmax", {"scale": None}, "magmax: scale is None"),
        ("consensus", {"agreement": -1}, "agreement is -1; it must be an integer of at least 0"),
        ("consensus", {"agreement": 2.0}, "agreement is 2.0"),
        ("consensus", {"agreement": True}, "agreement is True"),
        ("consensus", {"threshold": -0.1}, "consensus: threshold is -0.1"),
        ("tall_masks", {"threshold": {"a": 0.3, "b": -1}}, "threshold of b is -1"),
        ("pcb", {"ratio": 0}, "pcb: ratio is 0"),
        ("pcb", {"clip": 0.5}, "pcb: clip is 0.5"),
        ("pcb", {"scale": float("nan")}, "pcb: scale is nan"),
        ("lines", {"alpha": float("inf")}, "lines: alpha is inf"),
        ("lines", {"beta": None}, "lines: beta is None"),
    ],
)
def test_arguments_out_of_range_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **arguments)


class Counting(Mapping[str, Tensor]):
    """Counts how often every tensor is read."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.values_, self.reads = values, dict.fromkeys(values, 0)

    def __getitem__(self, name: str) -> Tensor:
        self.reads[name] += 1
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


@pytest.mark.parametrize("name", READINGS)
def test_experts_are_read_no_oftener_than_the_method_needs(name: str) -> None:
    experts = {task: Counting(state(tau)) for task, tau in zip("ab", deltas(2), strict=True)}
    merger = build(name, **FLAT.get(name, {}))
    merge_state(merger, state(torch.zeros(SIZE)), experts, task=task_of(merger))
    for expert in experts.values():  # the pre-flight looks at each once more, since it is no file
        assert set(expert.reads.values()) == {READINGS[name] + 1}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 0)])
def test_a_model_of_one_small_tensor(name: str, shape: tuple[int, ...]) -> None:
    merger = build(name, **FLAT.get(name, {}))
    experts = {task: {"w": torch.randn(shape), "v": torch.randn(3)} for task in "ab"}
    base = {"w": torch.randn(shape), "v": torch.randn(3)}
    merged = merge_state(merger, base, experts, task=task_of(merger))["w"]
    assert merged.shape == shape and bool(merged.isfinite().all())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_expert_that_is_the_base_among_others(name: str) -> None:
    taus = deltas(3).abs() + 0.1  # all agree, so that even Model Stock moves
    taus[1] = 0.0
    merged = merge(name, taus, task=task_of(build(name)), **FLAT.get(name, {}))
    assert bool(merged.isfinite().all()) and bool(merged.any())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_doubles_are_merged_as_doubles(name: str) -> None:
    taus, arguments = deltas(3), {"task": task_of(build(name)), **FLAT.get(name, {})}
    double = merge(name, taus.double(), **arguments)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), merge(name, taus, **arguments), rtol=1e-4, atol=1e-6)


def test_a_double_between_floats_counts_as_its_float() -> None:
    base = {"w": torch.zeros(3, dtype=torch.float64)}
    expert = {"w": torch.tensor([1.0, 1 - 1e-12, 0.5], dtype=torch.float64)}
    merged = merge_state(build("ties", density=1 / 3), base, {"a": expert})["w"]
    assert torch.equal(merged, torch.tensor([1.0, 1 - 1e-12, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("policy", ["pretrained", "mean", "moments"])
def test_extrapolating_methods_leave_variances_positive_and_counters_alone(name: str, policy: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    base = {key: value.clone() for key, value in model.state_dict().items()}
    experts = {}
    for number, task in enumerate("abcd"):
        experts[task] = {
            key: value + torch.randn_like(value) if value.is_floating_point() else value + number
            for key, value in base.items()
        }
        experts[task]["1.running_var"] = torch.full((4,), 1e-6)
    accepted = {"scale": 3.0} if "scale" in build(name).hyperparameters else {}
    merger = build(name, **accepted)
    merged = merge_state(merger, base, experts, tensor_specs(model), policy, task=task_of(merger))
    assert bool((merged["1.running_var"] > 0).all()) and merged["1.num_batches_tracked"].item() == 0
    model.load_state_dict(merged)
    assert bool(model.eval()(torch.randn(1, 3, 8, 8)).isfinite().all())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_statistics_and_counters_do_not_move_thresholds(name: str) -> None:
    taus = deltas(2)
    base = {
        **state(torch.zeros(SIZE)),
        "bn.running_var": torch.ones(99),
        "bn.running_mean": torch.zeros(99),
        "bn.num_batches_tracked": torch.tensor(0),
    }
    huge = {
        "bn.running_var": torch.full((99,), 1e9),
        "bn.running_mean": torch.full((99,), 1e9),
        "bn.num_batches_tracked": torch.tensor(10**9),
    }
    merger = build(name, **FLAT.get(name, {}))
    experts = {task: {**state(tau), **huge} for task, tau in zip("ab", taus, strict=True)}
    merged = merge_state(merger, base, experts, task=task_of(merger))
    assert torch.equal(vector(merged), merge(name, taus, task=task_of(merger), **FLAT.get(name, {})))
