"""Packed experts: TVQ and RTVQ against their equations, what is kept, and packed experts as operands of any method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.packed_experts import ExpertPacker, Packing
from symerge_dense.merging.restored_expert import RestoredExpert
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.models.weight_files import state_hash

State = dict[str, Tensor]


def states(dtype: torch.dtype = torch.float32, tasks: str = "abc") -> tuple[State, dict[str, State]]:
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> State:
        shapes = {"fc.weight": (33, 64), "conv.weight": (8, 16, 3, 3), "fc.bias": (2000,), "few.weight": (31, 33)}
        found = {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: value.to(dtype) for name, value in found.items()}

    base, common = draw(1.0), draw(0.02)
    experts = {task: {name: base[name] + common[name] + part for name, part in draw(0.01).items()} for task in tasks}
    for number, state in enumerate([base, *experts.values()]):
        state["bn.running_mean"], state["bn.weight"] = torch.randn(6), torch.randn(6)
        state["bn.num_batches_tracked"] = torch.tensor(2**40 + number)
    return base, experts


def packed(packing: Packing, base: State, experts: dict[str, State]) -> tuple[ExpertPacker, State]:
    packer = ExpertPacker(packing, base, experts, specs_from_state(base))
    found = dict(packer.stream(packer.names))
    assert {name: (tuple(value.shape), value.dtype) for name, value in found.items()} == packer.layouts
    return packer, found


def levels(vector: Tensor, bits: int) -> Tensor:
    """Rounded to the nearest multiple of the step, written out in float64."""
    vector = vector.double()
    step = (vector.max() - vector.min()) / (2**bits - 1)
    zero = (-vector.min() / step).round()
    return ((vector / step).round() + zero).clamp(0, 2**bits - 1).sub(zero) * step


@pytest.mark.parametrize(("bits", "shared"), [(3, 0), (2, 3), (4, 6)])
def test_restored_experts_are_those_of_the_equations(bits: int, shared: int) -> None:
    base, experts = states()
    packer, found = packed(Packing(bits, shared, "tensor"), base, experts)
    for name in ("fc.weight", "conv.weight"):
        vectors = {task: experts[task][name].double() - base[name].double() for task in experts}
        common = levels(sum(vectors.values()) / 3, shared) if shared else torch.zeros(())
        for task, vector in vectors.items():
            expected = base[name] + common + levels(vector - common, bits)
            restored = RestoredExpert(packer.packing, base, found, task)[name]
            step = found[f"step.{task}.{name}"].item()
            off = (restored - expected).abs() > 1e-6
            assert off.float().mean() < 0.005  # ties between two levels
            assert ((restored - experts[task][name]).abs() <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_small_tensors_statistics_and_counters_are_kept_and_data_types_stay(dtype: torch.dtype) -> None:
    base, experts = states(dtype)
    packer, found = packed(Packing(3), base, experts)
    assert {name.split(".", 2)[2] for name in found if name.startswith("codes.a.")} == {"fc.weight", "conv.weight"}
    for task, expert in experts.items():
        restored = RestoredExpert(packer.packing, base, found, task)
        assert list(restored) == sorted(expert) and len(restored) == len(expert)
        assert restored.layouts == {name: (tuple(value.shape), value.dtype) for name, value in restored.items()}
        assert all(restored[name].dtype == value.dtype for name, value in expert.items())
        kept = set(expert) - {"fc.weight", "conv.weight"}
        assert all(torch.equal(restored[name], expert[name]) for name in kept)
        assert packer.hashes[task] == state_hash(dict(restored))


def test_a_shared_vector_lowers_the_error_of_few_bits() -> None:
    base, experts = states()
    errors = {shared: packed(Packing(2, shared, "tensor"), base, experts)[0].errors for shared in (0, 4)}
    assert all(errors[4][task] < 0.7 * errors[0][task] for task in experts)
    packer, found = packed(Packing(2, 4), base, experts)
    for task, expert in experts.items():
        restored = RestoredExpert(packer.packing, base, found, task)
        names = ("fc.weight", "conv.weight")
        lost, own = (
            sum((state[name] - other[name]).square().sum().item() for name in names)
            for state, other in ((restored, expert), (expert, base))
        )
        assert packer.errors[task] == pytest.approx((lost / own) ** 0.5, rel=1e-3)


def test_an_expert_that_is_the_base_comes_back_as_it() -> None:
    base, experts = states()
    packer, found = packed(Packing(1), base, {"a": experts["a"], "idle": base})
    assert packer.errors["idle"] == 0
    restored = RestoredExpert(packer.packing, base, found, "idle")
    assert all(torch.equal(restored[name], value) for name, value in base.items())


def test_the_order_of_experts_changes_nothing() -> None:
    base, experts = states()
    turned = dict(reversed(experts.items()))
    first, second = (packed(Packing(2, 3), base, order)[1] for order in (experts, turned))
    assert first.keys() == second.keys() and all(torch.equal(second[name], value) for name, value in first.items())


def test_packed_experts_are_merged_like_others() -> None:
    base, experts = states()
    packer, found = packed(Packing(8), base, experts)
    sources = {task: RestoredExpert(packer.packing, base, found, task) for task in experts}
    merged, exact = (merge_state(TaskArithmetic(scale=0.3), base, group) for group in (sources, experts))
    assert all((merged[name] - exact[name]).abs().max() < 1e-3 for name in ("fc.weight", "conv.weight"))
    assert torch.equal(merged["fc.bias"], exact["fc.bias"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "bits=0; give a whole number from 1 to 8"),
        ({"bits": 9}, "bits=9"),
        ({"bits": 3.0}, r"bits=3\.0"),
        ({"shared_bits": -1}, "shared_bits=-1; give a whole number from 0 to 8"),
        ({"shared_bits": True}, "shared_bits=True"),
        ({"per": "chanel"}, "Did you mean 'channel'"),
    ],
)
def test_wrong_packings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Packing(**options)


def test_wrong_experts() -> None:
    base, experts = states()
    specs = specs_from_state(base)
    with pytest.raises(ValueError, match="there is one, a; give shared_bits=0"):
        ExpertPacker(Packing(2, 3), base, {"a": experts["a"]}, specs)
    with pytest.raises(ValueError, match=r"task 'a\.b' has a dot in its name"):
        ExpertPacker(Packing(), base, {"a.b": experts["a"]}, specs)
    with pytest.raises(ValueError, match=r"missing 'fc\.bias'"):
        ExpertPacker(Packing(), base, {"a": {k: v for k, v in base.items() if k != "fc.bias"}}, specs)


@pytest.mark.parametrize(("name", "value"), [("fc.weight", float("nan")), ("fc.bias", float("inf"))])
def test_experts_with_nan_are_refused(name: str, value: float) -> None:
    base, experts = states()
    experts["b"][name] = experts["b"][name].clone()
    experts["b"][name].view(-1)[7] = value
    with pytest.raises(ValueError, match=f"b: tensor '{name}' holds NaN or infinite values; train or export it again"):
        packed(Packing(), base, experts)


def test_a_task_vector_that_overflows_is_refused() -> None:
    base, experts = states()
    base["fc.weight"], experts["a"]["fc.weight"] = torch.full((33, 64), -3e38), torch.full((33, 64), 3e38)
    with pytest.raises(ValueError, match=r"the task vector of a, 'fc\.weight', holds NaN or infinite values"):
        packed(Packing(), base, experts)


def test_what_is_not_in_the_file_is_named() -> None:
    base, experts = states()
    packer, found = packed(Packing(2, 3), base, experts)
    for absent in ("codes.a.fc.weight", "kept.a.fc.bias"):
        with pytest.raises(ValueError, match=r"a lacks 'fc\.\w+' in the packed file; copy the file again"):
            RestoredExpert(packer.packing, base, {k: v for k, v in found.items() if k != absent}, "a")
    for absent in ("step.a.fc.weight", "shared_codes.fc.weight"):
        source = {name: value for name, value in found.items() if name != absent}
        with pytest.raises(ValueError, match=f"there is no '{absent}' in the packed file; copy the file again"):
            RestoredExpert(packer.packing, base, source, "a")["fc.weight"]
    whole = RestoredExpert(packer.packing, base, found, "a")
    assert "nothing" not in whole
    with pytest.raises(KeyError):
        whole["nothing"]
