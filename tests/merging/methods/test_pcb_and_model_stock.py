"""PCB-Merging and Model Stock against references on whole vectors, and where their quotients have no value."""

from __future__ import annotations

import math

import pytest
import torch
from builders.merging_vectors import SHAPES, SIZE, build, deltas, merge, state
from torch import Tensor

from symerge_dense.merging.methods.model_stock import mean_cosine
from symerge_dense.merging.run import merge_state


def scaled(values: Tensor) -> Tensor:
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    return (values - low) / (high - low)


def clipped(values: Tensor, low: int, high: int) -> Tensor:
    ordered = values.sort(dim=1).values
    return values.clamp(ordered[:, low : low + 1], ordered[:, high : high + 1])


def pcb(taus: Tensor, ratio: float, clip: float) -> Tensor:
    """The formula over the whole vector, all tasks at once."""
    count, size = taus.shape
    strength = clipped(taus.abs(), int(size * clip), int(size * (1 - clip) - 1))
    unit = scaled(strength)
    balance = torch.exp(count * unit.square()) * torch.tanh(taus * (taus.sign() * unit).sum(0))
    score = scaled(clipped(balance, int(size * (1 - ratio)), size - 1))
    return (taus.sign() * strength * score).sum(0) / score.sum(0).clamp(min=1e-12)


@pytest.mark.parametrize("grid", [0.0, 0.25])
@pytest.mark.parametrize(("ratio", "clip"), [(0.05, 0.01), (0.3, 0.1), (0.5, 0.0)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_pcb_is_the_formula_on_the_whole_vector(count: int, ratio: float, clip: float, grid: float) -> None:
    taus = deltas(count, seed=1, grid=grid)
    expected = 1.2 * pcb(taus.double(), ratio, clip).float()
    assert 0 < int((expected != 0).sum()) < SIZE
    torch.testing.assert_close(merge("pcb", taus, ratio=ratio, clip=clip), expected, rtol=1e-4, atol=1e-6)


def test_pcb_by_hand() -> None:
    # One task, nothing clipped: n(|tau|) = 0, 1/3, 2/3, 1; votes have tau's sign; r = 1/2 leaves the two largest
    # scores, of which the smaller is scaled to 0: the winner takes its own value, times 1.2.
    taus = {"a": {"w": torch.tensor([1.0, -2.0, 3.0, 4.0])}}
    merged = merge_state(build("pcb", ratio=0.5, clip=0.0), {"w": torch.zeros(4)}, taus)["w"]
    assert merged.tolist() == pytest.approx([0.0, 0.0, 0.0, 4.8])


def test_pcb_with_nothing_to_compare_is_the_base() -> None:
    base = {"w": torch.tensor([3.0])}
    assert torch.equal(merge_state(build("pcb"), base, {"a": {"w": torch.tensor([5.0])}})["w"], base["w"])
    taus = deltas(3)
    taus[1] = 0.0  # an expert that is the base has no quantiles to scale by; the others merge on
    merged = merge("pcb", taus)
    assert bool(merged.isfinite().all()) and bool(merged.any())
    many = {str(number): {"w": tau} for number, tau in enumerate(deltas(100))}  # exp(100) is no float32
    merged = merge_state(build("pcb"), {"w": torch.zeros(SIZE)}, many)["w"]
    assert bool(merged.isfinite().all()) and bool(merged.any())


def test_model_stock_by_hand() -> None:
    # The angle is 45 degrees: t = 2 c / (1 + c) with c = cos 45.
    experts = {"a": {"w": torch.tensor([3.0, 1.0])}, "b": {"w": torch.tensor([3.0, 3.0])}}
    merged = merge_state(build("model_stock"), {"w": torch.tensor([1.0, 1.0])}, experts)["w"]
    share = 2 * math.cos(math.pi / 4) / (1 + math.cos(math.pi / 4))
    assert merged.tolist() == pytest.approx([1 + 2 * share, 1 + share])


def test_model_stock_interpolates_every_tensor_by_its_own_cosines() -> None:
    taus = deltas(3) + 0.7 * deltas(1, seed=9)
    merged = state(merge("model_stock", taus))
    shares = set()
    for name in SHAPES:
        rows = torch.stack([state(tau)[name].reshape(-1) for tau in taus]).double()
        cosines = torch.corrcoef(torch.cat([rows, -rows], 1))[[0, 0, 1], [1, 2, 2]]  # of centred rows: plain cosines
        cosine = max(0.0, float(cosines.mean()))
        share = 3 * cosine / (1 + 2 * cosine)
        shares.add(round(share, 4))
        torch.testing.assert_close(merged[name].reshape(-1), (share * rows.mean(0)).float(), rtol=1e-4, atol=1e-6)
    assert len(shares) > 3


def test_model_stock_where_the_ratio_has_no_value() -> None:
    base = {"w": torch.zeros(2)}

    def stock(*experts: list[float]) -> list[float]:
        states = {str(number): {"w": torch.tensor(values)} for number, values in enumerate(experts)}
        merged: list[float] = merge_state(build("model_stock"), base, states)["w"].tolist()
        return merged

    assert stock([1.0, 2.0], [-1.0, -2.0]) == [0.0, 0.0]  # cos = -1 is the pole of t for two experts
    assert stock([1.0, 0.0], [0.0, 1.0]) == [0.0, 0.0]  # orthogonal: the base
    assert stock([0.0, 0.0], [4.0, 4.0]) == [0.0, 0.0]  # a frozen expert
    assert stock([4.0, 8.0], [4.0, 8.0]) == pytest.approx([4.0, 8.0])  # agreement: the average
    assert stock([1e30, 0.0], [1e30, 0.0]) == pytest.approx([1e30, 0.0])  # squares would overflow
    assert mean_cosine([torch.tensor(2.0), torch.tensor(-3.0), torch.tensor(1.0)]) == pytest.approx(-1 / 3)
    assert mean_cosine([torch.zeros(0), torch.zeros(0)]) == 0.0
