"""Elected task vectors against the definition, and coefficients per element against their sum."""

import pytest
import torch
from builders.merging_vectors import NAMES, SIZE, deltas, state, vector

from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.per_weight import PerWeightMerge
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.merging.trimmed_experts import trimmed_experts


def family(taus, seed=5):
    base = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    experts = {task: state(base + tau) for task, tau in zip(NAMES[len(taus)], taus, strict=True)}
    return state(base), experts, specs_from_state(state(base))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
def test_elected_vectors_are_the_top_share_with_the_winning_sign(count, density):
    base, experts, specs = family(deltas(count))
    chosen = trimmed_experts(base, experts, specs, density)
    assert list(chosen) == list(experts)
    origin = vector(base)
    taus = torch.stack([vector(expert) - origin for expert in experts.values()])
    trimmed = torch.zeros_like(taus)
    for row, tau in zip(trimmed, taus, strict=True):
        best = tau.abs().topk(max(1, round(density * SIZE))).indices
        row[best] = tau[best]
    for task, tau in zip(experts, trimmed, strict=True):
        keep = (tau != 0) & (tau.sign() == trimmed.sum(0).sign())
        wanted = torch.where(keep, vector(experts[task]), origin)
        assert torch.equal(vector(chosen[task]), wanted)


def test_elected_experts_share_nothing_with_their_inputs_and_need_the_same_tensors():
    base, experts, specs = family(deltas(2))
    chosen = trimmed_experts(base, experts, specs, 1.0)
    vector(chosen["a"])
    for tensor in chosen["a"].values():
        tensor.fill_(9.0)
    again = family(deltas(2))
    assert all(torch.equal(vector(experts[task]), vector(again[1][task])) for task in experts)
    del experts["b"]["fc.weight"]
    with pytest.raises(ValueError, match=r"fc\.weight"):
        trimmed_experts(base, experts, specs, 0.2)


@pytest.mark.parametrize("count", [1, 3])
def test_equal_coefficients_are_the_layer_wise_merge(count):
    base, experts, specs = family(deltas(count))
    element, layer = PerWeightMerge(specs, list(experts)), LayerwiseMerge(specs, list(experts))
    for merge in (element, layer):
        merge.attach(base, experts)
    torch.testing.assert_close(vector(element(base)), vector(layer(base)))


def test_each_element_has_its_coefficients_and_their_gradients_are_task_vectors():
    taus = deltas(2)
    base, experts, specs = family(taus)
    merge = PerWeightMerge(specs, list(experts), init=0.0)
    merge.attach(base, experts)
    assert torch.equal(vector(merge(base)), vector(base))
    with torch.no_grad():
        for coefficients in merge.coefficients:
            coefficients.copy_(torch.rand(coefficients.shape))
    rows = torch.cat(list(merge.coefficients), 1)
    order = torch.cat([base[spec.name].reshape(-1) for spec in merge.specs])
    tau = torch.stack(
        [torch.cat([expert[spec.name].reshape(-1) for spec in merge.specs]) - order for expert in experts.values()]
    )
    merged = merge(base)
    found = torch.cat([merged[spec.name].reshape(-1) for spec in merge.specs])
    torch.testing.assert_close(found, order + (rows * tau).sum(0))
    found.sum().backward()
    torch.testing.assert_close(torch.cat([p.grad for p in merge.coefficients], 1), tau)


def test_a_part_can_be_merged_alone_and_nothing_before_experts_came():
    base, experts, specs = family(deltas(2))
    merge = PerWeightMerge(specs, list(experts))
    with pytest.raises(RuntimeError, match="attach"):
        merge(base)
    merge.attach(base, experts)
    part = merge(base, ["fc.weight"])
    assert list(part) == ["fc.weight"] and torch.equal(part["fc.weight"], merge(base)["fc.weight"])
    assert sum(p.numel() for p in merge.parameters()) == 2 * SIZE and len(merge.state_dict()) == len(specs)
