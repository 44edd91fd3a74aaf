"""Coefficients per channel and per singular direction: against plain sums and autograd, their ends, their errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symerge_dense.merging.fused import merge_channels, merge_directions
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.tensor_specs import specs_from_state, tensor_specs

TASKS = ("segmentation", "depth", "normals")


class Network(nn.Module):
    """Every kind of weight: kernels, a depthwise one, matrices, a norm, a position embedding, a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 4)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 4))
        self.scale = nn.Parameter(torch.tensor(0.5))


def states(count: int, seed: int = 0) -> list[dict[str, Tensor]]:
    torch.manual_seed(seed)
    return [{name: torch.randn_like(p) for name, p in Network().named_parameters()} for _ in range(count)]


def attached(
    granularity: str, tasks: tuple[str, ...] = TASKS, **options: Any
) -> tuple[LayerwiseMerge, dict[str, Tensor], list[dict[str, Tensor]]]:
    base, *experts = states(len(tasks) + 1)
    merge = LayerwiseMerge(tensor_specs(Network()), tasks, granularity, **options)  # type: ignore[arg-type]
    merge.attach(base, dict(zip(tasks, experts, strict=True)))
    return merge, base, experts


def rows_of(merge: LayerwiseMerge, coefficients: Tensor) -> dict[str, Tensor]:
    counts = torch.bincount(merge.owner).tolist()  # type: ignore[arg-type]
    return dict(zip(merge.groups, coefficients.split(counts), strict=True))


def plain(name: str, rows: Tensor, base: Tensor, vectors: list[Tensor], granularity: str, rank: int | None) -> Tensor:
    """The formula, tensor by tensor, by other means than the code's."""
    if len(rows) == 1 and (granularity == "singular" or base.ndim == 0):
        return base + sum(rows[0, t] * tau for t, tau in enumerate(vectors))
    if granularity == "channel":
        shape = [1] * base.ndim
        shape[-1 if name == "pos_embed" else 0] = -1
        return base + sum(rows[:, t].view(shape) * tau for t, tau in enumerate(vectors))
    total = base.flatten(1)
    for t, tau in enumerate(vectors):
        left, values, right = torch.linalg.svd(tau.flatten(1).double(), full_matrices=False)
        kept = len(values) if rank is None else rank
        own = rows[:, t].double()
        weights = torch.cat([own[:kept], own[-1:].expand(len(values) - kept)])
        total = total + ((left * values * weights) @ right).to(base.dtype)
    return total.view(base.shape)


@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]])
@pytest.mark.parametrize(("granularity", "rank"), [("channel", None), ("singular", None), ("singular", 2)])
def test_values_and_gradients_equal_the_plain_formula(
    granularity: str, rank: int | None, tasks: tuple[str, ...]
) -> None:
    merge, base, experts = attached(granularity, tasks, rank=rank)
    with torch.no_grad():
        merge.coefficients.copy_(torch.rand(merge.coefficients.shape) * 2 - 0.5)
    reference = merge.coefficients.detach().clone().requires_grad_()
    vectors = {name: [expert[name] - base[name] for expert in experts] for name in base}
    expected = {
        name: plain(name, rows, base[name], vectors[name], granularity, rank)
        for name, rows in rows_of(merge, reference).items()
    }
    merged = merge(base)
    targets = {name: torch.randn(value.shape) for name, value in base.items()}
    for result in (merged, expected):
        sum((result[name] * targets[name]).sum() for name in base).backward()  # type: ignore[union-attr]
    for name, value in base.items():
        torch.testing.assert_close(merged[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)
        assert merged[name].shape == value.shape and merged[name].is_contiguous(), name
    torch.testing.assert_close(merge.coefficients.grad, reference.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tasks", [1, 3])
def test_gradcheck(tasks: int) -> None:
    torch.manual_seed(0)
    exact: dict[str, Any] = {"dtype": torch.float64}
    base, vectors = torch.randn(3, 2, 2, **exact), torch.randn(tasks, 12, **exact)
    rows = torch.rand(3, tasks, **exact, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: merge_channels(r, base, vectors, idle=False), (rows,))
    left, right = torch.randn(3, 2 * tasks, **exact), torch.randn(2 * tasks, 4, **exact)
    for count, rest in ((2, None), (3, vectors)):
        rows = torch.rand(count, tasks, **exact, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda r, rest=rest: merge_directions(r, base, left, right, rest, idle=False), (rows,)
        )


@pytest.mark.parametrize(("granularity", "rank"), [("channel", None), ("singular", None), ("singular", 1)])
def test_coefficient_zero_is_the_base_to_the_bit_and_still_learns(granularity: str, rank: int | None) -> None:
    merge, base, _ = attached(granularity, init=0.0, rank=rank)
    base["conv.bias"][:2] = -0.0
    merged = merge(base)
    for name, value in base.items():
        assert torch.equal(merged[name].view(torch.int32), value.view(torch.int32)), name
    sum(value.sum() for value in merged.values()).backward()  # type: ignore[union-attr]
    assert float((merge.coefficients.grad != 0).float().mean()) > 0.9  # type: ignore[union-attr]


def test_channels_with_zeros_keep_the_bases_channel_beside_others() -> None:
    merge, base, _ = attached("channel", init=0.5)
    base["conv.bias"][:] = -0.0
    with torch.no_grad():
        rows_of(merge, merge.coefficients)["conv.bias"][2] = 0.0
    merged = merge(base)["conv.bias"]
    assert torch.equal(merged[2:3].view(torch.int32), base["conv.bias"][2:3].view(torch.int32))
    assert bool((merged[[0, 1, 3, 4, 5]] != 0).all())


def test_one_expert_at_one_is_that_expert() -> None:
    merge, base, (expert,) = attached("channel", TASKS[:1], init=1.0)
    for name, value in merge(base).items():
        assert torch.equal(value.view(torch.int32), expert[name].view(torch.int32)), name
    singular, base, (expert,) = attached("singular", TASKS[:1], init=1.0, rank=2)
    for name, value in singular(base).items():
        torch.testing.assert_close(value, expert[name])


@pytest.mark.parametrize("granularity", ["channel", "singular"])
def test_one_coefficient_for_all_is_the_tensors_own(granularity: str) -> None:
    coarse, base, _ = attached("tensor", init=0.4)
    finer, _, _ = attached(granularity, init=0.4)
    for name, value in coarse(base).items():
        torch.testing.assert_close(finer(base)[name], value)


def test_an_expert_like_the_base_and_one_of_low_rank_have_factors_too() -> None:
    base, expert, _ = states(3)
    low = {**base, "linear.weight": base["linear.weight"] + torch.outer(torch.ones(4), torch.arange(6.0))}
    merge = LayerwiseMerge(tensor_specs(Network()), TASKS, "singular", init=1.0)
    merge.attach(base, dict(zip(TASKS, (base, low, expert), strict=True)))
    total = low["linear.weight"] + expert["linear.weight"] - base["linear.weight"]
    torch.testing.assert_close(merge(base)["linear.weight"], total)


def test_tables_have_means_and_ranges() -> None:
    merge, _, _ = attached("channel", clamp=None)
    with torch.no_grad():
        rows_of(merge, merge.coefficients)["linear.bias"].copy_(
            torch.tensor([[0.0, 1, 2], [1, 1, 2], [0, 1, -2], [1, 1, 2]])
        )
    assert merge.table()["linear.bias"] == [0.5, 1.0, 1.0]
    assert merge.ranges()["linear.bias"] == [[0, 1], [1, 1], [-2, 2]]
    assert merge.table()["scale"] == pytest.approx([0.3] * 3) and "scale" not in merge.ranges()
    assert list(merge.table()) == list(merge.groups) == [name for name, _ in Network().named_parameters()]
    assert attached("tensor")[0].ranges() == {}


@pytest.mark.parametrize(
    ("granularity", "rows"), [("channel", 6 + 6 + 6 + 6 + 6 + 4 + 4 + 4 + 1), ("singular", 6 + 1 + 6 + 2 + 4 + 3)]
)
def test_checkpoints_hold_coefficients_only_and_the_clamp_holds_for_each(granularity: str, rows: int) -> None:
    merge, base, _ = attached(granularity)
    assert list(merge.state_dict()) == ["coefficients"] and merge.coefficients.shape == (rows, 3)
    twin = copy.deepcopy(merge)
    with torch.no_grad():
        twin.coefficients.copy_(torch.randn(rows, 3))
    twin.project_()
    assert twin.coefficients.aminmax() == (0.0, 1.0)
    merge.load_state_dict(twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(merge(base).values(), twin(base).values(), strict=True))


@pytest.mark.parametrize("granularity", ["channel", "singular"])
def test_half_precision_and_autocast_leave_the_types_alone(granularity: str) -> None:
    base, one, two = ({"w": torch.randn(8, 6).bfloat16()} for _ in range(3))
    merge = LayerwiseMerge(specs_from_state(base), ["a", "b"], granularity)  # type: ignore[arg-type]
    merge.attach(base, {"a": one, "b": two})
    with torch.autocast("cpu", torch.bfloat16):
        merged = merge(base)["w"]
        merged.sum().backward()
    expected = base["w"].float() + 0.3 * (one["w"].float() + two["w"].float() - 2 * base["w"].float())
    torch.testing.assert_close(merged, expected.bfloat16(), rtol=1e-2, atol=1e-2)
    assert merge.coefficients.grad is not None and merge.coefficients.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("granularity", "shape", "told"),
    [
        ("channel", (), r"none of the 1 tensors to merge \('w', ...\) has an axis of channels.*'tensor'"),
        ("singular", (4,), "has the form of a matrix or a kernel; use granularity='tensor'"),
    ],
)
def test_a_network_without_the_axis_is_refused(granularity: str, shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LayerwiseMerge(specs_from_state({"w": torch.zeros(shape)}), TASKS, granularity)  # type: ignore[arg-type]


def test_a_rank_below_one_and_rows_that_do_not_fit_are_refused() -> None:
    specs = tensor_specs(Network())
    with pytest.raises(ValueError, match="rank=0 singular directions; give 1 or more"):
        LayerwiseMerge(specs, TASKS, "singular", rank=0)
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*\(rows, tasks\) = \(43, 3\)"):
        LayerwiseMerge(specs, TASKS, "channel", init=torch.zeros(2, 2))
