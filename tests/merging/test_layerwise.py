"""The layer-wise merge against an independent sum, its gradients, its exact ends and its errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symerge_dense.merging.fused import merge_tensor
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import block_names, specs_from_state, tensor_specs, weights
from symerge_dense.models.mapped_files import scratch_tensor

TASKS = ("segmentation", "depth", "normals")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(image)))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Block(), Block()))


def states(count: int, model: nn.Module) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            name: value + torch.randn(value.shape, generator=generator) if value.is_floating_point() else value.clone()
            for name, value in model.state_dict().items()
        }
        for _ in range(count)
    ]


def attached(
    model: nn.Module, tasks: tuple[str, ...] = TASKS, **options: Any
) -> tuple[LayerwiseMerge, dict[str, Tensor], Any]:
    base, *experts = states(len(tasks) + 1, model)
    named = dict(zip(tasks, experts, strict=True))
    merge = LayerwiseMerge(tensor_specs(model), tasks, **options)
    merge.attach(base, dict(reversed(named.items())))  # columns follow tasks, not the order of this dict
    return merge, base, named


@pytest.mark.parametrize("granularity", ["tensor", "block", "task"])
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]])
def test_values_and_gradients_equal_a_plain_sum(granularity: str, tasks: tuple[str, ...]) -> None:
    merge, base, experts = attached(network(), tasks, granularity=granularity)
    with torch.no_grad():
        merge.coefficients.copy_(torch.rand(merge.coefficients.shape))
    reference = merge.coefficients.detach().clone().requires_grad_()
    targets = {spec.name: torch.randn(spec.shape) for spec in merge.specs}
    rows = {name: number for number, names in enumerate(merge.groups.values()) for name in names}
    plain = {
        name: base[name]
        + sum(reference[rows[name], t] * (experts[task][name] - base[name]) for t, task in enumerate(tasks))
        for name in targets
    }
    merged = merge(base)
    for result in (merged, plain):
        sum((result[name] * targets[name]).sum() for name in targets).backward()  # type: ignore[union-attr]
    assert list(merged) == [name for name, _ in network().named_parameters()]
    for name in targets:
        torch.testing.assert_close(merged[name], plain[name])
    torch.testing.assert_close(merge.coefficients.grad, reference.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_gradcheck(tasks: int) -> None:
    torch.manual_seed(0)
    base, vectors = torch.randn(3, 2, 2, dtype=torch.float64), torch.randn(tasks, 12, dtype=torch.float64)
    row = torch.rand(tasks, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: merge_tensor(r, base, vectors, r.tolist()), (row,))


@pytest.mark.parametrize("values", [[0.0], [1.0], [0.0, 0.0]])
def test_the_exact_ends_have_the_same_gradient(values: list[float]) -> None:
    base, vectors, weight = torch.randn(6), torch.randn(len(values), 6), torch.randn(6)
    row = torch.tensor(values, requires_grad=True)
    (merge_tensor(row, base, vectors, values) * weight).sum().backward()
    deltas = vectors - base if len(values) == 1 else vectors
    torch.testing.assert_close(row.grad, deltas @ weight)


def test_base_and_task_vectors_get_no_gradient() -> None:
    merge, base, _ = attached(network())
    base = {name: value.requires_grad_() for name, value in base.items() if value.is_floating_point()}
    sum(value.sum() for value in merge(base).values()).backward()  # type: ignore[union-attr]
    assert all(value.grad is None for value in base.values())
    assert merge.coefficients.grad is not None and bool((merge.coefficients.grad != 0).all())


def test_groups_share_a_row() -> None:
    model = network()
    specs = tensor_specs(model)
    by_block = LayerwiseMerge(specs, TASKS, "block")
    assert list(by_block.groups) == block_names(specs) == ["stem", "1.0", "1.1"]
    assert by_block.coefficients.shape == (3, 3) and by_block.groups["stem"] == ("0.weight", "0.bias")
    assert LayerwiseMerge(specs, TASKS, "task").coefficients.shape == (1, 3)
    by_tensor = LayerwiseMerge(specs, TASKS)
    assert list(by_tensor.groups) == [name for name, _ in model.named_parameters()]
    with torch.no_grad():
        by_block.coefficients[1] = torch.tensor([0.1, 0.2, 0.3])
    assert by_block.table()["1.0"] == pytest.approx([0.1, 0.2, 0.3])
    assert sorted(name for names in by_block.groups.values() for name in names) == sorted(
        w.name for w in weights(specs)
    )


def test_untouched_tensors_stay_whatever_the_coefficients() -> None:
    base = {"w": torch.randn(1000)}
    merge = LayerwiseMerge(specs_from_state(base), TASKS)
    merge.attach(base, dict.fromkeys(TASKS, base))
    assert torch.equal(merge(base)["w"], base["w"])


def test_one_coefficient_for_all_is_task_arithmetic() -> None:
    model = network()
    merge, base, experts = attached(model, init=0.4)
    static = merge_state(TaskArithmetic(scale=0.4), base, experts, tensor_specs(model))
    for name, value in merge(base).items():
        torch.testing.assert_close(value, static[name])


def test_descent_through_the_network_finds_the_expert() -> None:
    torch.manual_seed(0)
    model = network().eval()
    base, expert = (dict(network().eval().state_dict()) for _ in range(2))
    merge = LayerwiseMerge(tensor_specs(model), ["a", "b"], "task", init=0.3)
    merge.attach(base, {"a": expert, "b": base})
    image = torch.randn(4, 3, 8, 8)
    target = torch.func.functional_call(model, expert, image)
    optimizer = torch.optim.Adam(merge.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (torch.func.functional_call(model, merge(base), image) - target).square().mean()
        loss.backward()
        optimizer.step()
        merge.project_()
    row = merge.table()["all"]
    assert row[0] == pytest.approx(1.0, abs=0.05) and row[1] == pytest.approx(0.3, abs=1e-6)


def test_autocast_is_off_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    # Autocast on a CPU leaves matrix-vector products alone, so no value would show it: look at the switch itself.
    merge, base, _ = attached(network())
    seen: dict[str, set[bool]] = {}

    def log_scalars(name: str, real: Any) -> Any:
        def call(*args: Tensor) -> Tensor:
            seen.setdefault(name, set()).add(torch.is_autocast_enabled("cpu"))
            return real(*args)

        return call

    for name in ("addmv", "mv"):
        monkeypatch.setattr(torch, name, log_scalars(name, getattr(torch, name)))
    with torch.autocast("cpu", torch.bfloat16):
        merged = merge(base)
        sum(value.sum() for value in merged.values()).backward()  # type: ignore[union-attr]
    assert seen == {"addmv": {False}, "mv": {False}}
    assert {value.dtype for value in merged.values()} == {torch.float32}


def test_half_precision_base_keeps_its_type() -> None:
    base, expert = {"w": torch.randn(50).bfloat16()}, {"w": torch.randn(50).bfloat16()}
    merge = LayerwiseMerge(specs_from_state(base), ["a", "b"])
    merge.attach(base, {"a": expert, "b": base})
    expected = (base["w"].float() + 0.3 * (expert["w"].float() - base["w"].float())).bfloat16()
    assert torch.equal(merge(base)["w"], expected)


def test_checkpoints_hold_coefficients_only_and_copies_work() -> None:
    merge, base, _ = attached(network(), granularity="block")
    assert list(merge.state_dict()) == [name for name, _ in merge.named_parameters()] == ["coefficients"]
    twin = copy.deepcopy(merge)
    with torch.no_grad():
        twin.coefficients.fill_(0.9)
    merge.load_state_dict(twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(merge(base).values(), twin(base).values(), strict=True))
    numbers = len(TASKS) * sum(spec.numel for spec in merge.specs)
    assert sum(buffer.numel() for buffer in merge.buffers()) == numbers


def test_projection_clamps_in_place() -> None:
    merge = LayerwiseMerge(tensor_specs(network()), TASKS, "task", init=0.5)
    free = LayerwiseMerge(tensor_specs(network()), TASKS, "task", init=3.0, clamp=None)
    with torch.no_grad():
        merge.coefficients.copy_(torch.tensor([[-0.5, 0.5, 1.5]]))
    parameter = merge.coefficients
    merge.project_()
    free.project_()
    assert merge.coefficients is parameter and merge.table() == {"all": [0.0, 0.5, 1.0]}
    assert free.table() == {"all": [3.0, 3.0, 3.0]}


def test_initial_values_by_task_and_by_tensor() -> None:
    specs = tensor_specs(network())
    named = LayerwiseMerge(specs, TASKS, "block", init={"depth": 0.1, "normals": 0.2, "segmentation": 0.0})
    assert named.table()["1.1"] == pytest.approx([0.0, 0.1, 0.2])
    full = torch.rand(3, 3)
    given = LayerwiseMerge(specs, TASKS, "block", init=full)
    assert torch.equal(given.coefficients, full) and given.coefficients.data_ptr() != full.data_ptr()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "singular"])
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]])
def test_task_vectors_in_a_file_give_the_same_bits(granularity: Any, tasks: tuple[str, ...], tmp_path: Any) -> None:
    model, found = network(), []
    for folder in (None, tmp_path):
        merge, base, experts = attached(model, tasks, granularity=granularity, rank=2)
        merge.attach(base, experts, folder)
        assert (merge.vectors is None) == (folder is not None)
        merged = merge(base)
        torch.stack([value.square().sum() for value in merged.values()]).sum().backward()
        found.append([*merged.values(), merge.coefficients.grad])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not list(tmp_path.iterdir())  # it goes with the process, however that ends


@pytest.mark.parametrize("granularity", ["tensor", "channel", "singular"])
@pytest.mark.parametrize("mapped", [False, True])
def test_task_vectors_of_half_the_bytes_merge_as_if_they_had_been_rounded(
    granularity: Any, mapped: bool, tmp_path: Any
) -> None:
    model, found = network(), []
    for half in (True, False):
        merge, base, experts = attached(model, TASKS, granularity=granularity, rank=2)
        if half:
            merge.attach(base, experts, tmp_path if mapped else None, half=True)
            assert mapped or merge.vectors.dtype == torch.bfloat16
        else:
            merge.vectors = merge.vectors.bfloat16().float()
        merged = merge(base)
        assert {value.dtype for value in merged.values()} == {torch.float32}
        torch.stack([value.square().sum() for value in merged.values()]).sum().backward()
        found.append([*merged.values(), merge.coefficients.grad])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_single_expert_is_not_rounded() -> None:
    merge, base, experts = attached(network(), TASKS[:1], init=1.0)
    merge.attach(base, experts, half=True)
    assert merge.vectors.dtype == torch.float32
    (expert,) = experts.values()
    assert all(torch.equal(value, expert[name]) for name, value in merge(base).items())


def test_task_vectors_that_no_disk_holds(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"GiB free, and 4194304\.0 are needed; make room, or choose another folder"):
        scratch_tensor(1 << 50, torch.float32, tmp_path)
    assert not list(tmp_path.iterdir())
