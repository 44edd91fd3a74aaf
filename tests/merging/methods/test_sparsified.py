"""TIES, DARE, Breadcrumbs and MagMax: by hand, against loops over the whole vector, and at the edges."""

from __future__ import annotations

import pytest
import torch
from builders.merging_vectors import NAMES, SHAPES, SIZE, deltas, merge, state, vector
from torch import Tensor

from symerge_dense.merging.combine import elect_sign
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.registry import MERGERS


def rows(*values: list[float]) -> dict[str, dict[str, Tensor]]:
    return {name: {"w": torch.tensor(row)} for name, row in zip("abc", values, strict=False)}


def by_hand(name: str, base: list[float], *experts: list[float], **arguments: object) -> list[float]:
    merger = MERGERS.build({"type": name, **arguments})
    merged: list[float] = merge_state(merger, {"w": torch.tensor(base)}, rows(*experts))["w"].tolist()
    return merged


def trimmed(taus: Tensor, density: float) -> Tensor:
    """Rows with all but their largest magnitudes set to zero, the threshold found by sorting."""
    k = max(1, round(density * taus.shape[1]))
    thresholds = taus.abs().sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where(taus.abs() >= thresholds, taus, 0.0)


def disjoint(taus: Tensor, aggregation: str) -> Tensor:
    """Weight by weight, in plain Python."""
    result = []
    for column in taus.T.tolist():
        sign = -1 if float(sum(torch.tensor(column))) < 0 else 1
        agreeing = [value for value in column if value * sign > 0] or [0.0]
        result.append(
            {"mean": sum(agreeing) / len(agreeing), "sum": sum(agreeing), "max": max(agreeing, key=abs)}[aggregation]
        )
    return torch.tensor(result)


def test_ties_by_hand() -> None:
    # Trimmed to 3 of 5: a keeps 6, -2, 4; b keeps 2, -5, 3 (its second -> -1 -> goes). Sums 8, -2 + -5 = -7, 4, 0, 3.
    base, a, b = [1.0] * 5, [7.0, -1.0, 5.0, 2.0, 1.5], [3.0, -4.0, 2.0, 1.0, 4.0]
    assert by_hand("ties", base, a, b, density=0.6) == [5.0, -2.5, 5.0, 1.0, 4.0]
    assert by_hand("ties", base, a, b, density=0.6, aggregation="sum", scale=0.5) == [5.0, -2.5, 3.0, 1.0, 2.5]
    assert by_hand("ties", base, a, b, density=0.6, aggregation="max") == [7.0, -4.0, 5.0, 1.0, 4.0]
    assert by_hand("ties", [0.0, 0.0], [3.0, 1.0], [-3.0, -2.0], density=1.0) == [3.0, -2.0]  # a draw elects +


@pytest.mark.parametrize("grid", [0.0, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.77, 1.0])
def test_ties_is_a_loop_over_the_whole_vector(density: float, count: int, grid: float) -> None:
    taus = deltas(count, grid=grid)
    for aggregation in ("mean", "sum", "max"):
        expected = 0.7 * disjoint(trimmed(taus, density), aggregation)
        merged = merge("ties", taus, density=density, scale=0.7, aggregation=aggregation)
        torch.testing.assert_close(merged, expected)


def test_the_ties_threshold_is_global_not_per_tensor() -> None:
    taus = deltas(1)
    taus[0, : 4 * 27] *= 100  # the first convolution outweighs everything
    kept = state(merge("ties", taus, density=0.2))
    assert int((kept["conv3.weight"] != 0).sum()) == round(0.2 * SIZE)
    assert all(not bool(kept[name].any()) for name in SHAPES if name != "conv3.weight")


def test_dare_keeps_the_expectation_and_rescales() -> None:
    base, expert = {"w": torch.zeros(40_000)}, {"w": torch.ones(40_000)}
    for drop in (0.2, 0.5, 0.9):
        merged = merge_state(MERGERS.build({"type": "dare", "drop": drop, "scale": 1.0}), base, {"a": expert})["w"]
        assert set(merged.tolist()) == {0.0, torch.tensor(1.0).div(1 - drop).item()}
        assert float((merged == 0).float().mean()) == pytest.approx(drop, abs=0.01)
        assert float(merged.mean()) == pytest.approx(1.0, abs=0.05)


def test_dare_is_the_sum_of_what_each_task_keeps() -> None:
    taus = deltas(3)
    alone = [
        merge_state(
            MERGERS.build({"type": "dare", "drop": 0.6, "scale": 1.0}),
            state(torch.zeros(SIZE)),
            {name: state(tau)},
            seed=5,
        )
        for name, tau in zip(NAMES[3], taus, strict=True)
    ]
    kept = torch.stack([vector(one) for one in alone])
    assert not torch.equal(kept[0] != 0, kept[1] != 0)
    torch.testing.assert_close(merge("dare", taus, drop=0.6, scale=0.4, seed=5), 0.4 * kept.sum(0))
    expected = 0.5 * disjoint(trimmed(kept, 0.3), "sum")
    torch.testing.assert_close(merge("dare_ties", taus, drop=0.6, density=0.3, seed=5), expected)


@pytest.mark.parametrize("name", ["dare", "dare_ties"])
def test_what_dare_drops_depends_on_seed_task_and_name_only(name: str) -> None:
    taus = deltas(2)
    merged = merge(name, taus, seed=1)
    assert torch.equal(merge(name, taus, seed=1, specs=specs_from_state(state(taus[0]))[::-1]), merged)
    assert not torch.equal(merge(name, taus, seed=2), merged)
    twins = {"x": torch.zeros(500), "y": torch.zeros(500)}
    result = merge_state(MERGERS.build({"type": name}), twins, {"a": {key: value + 1 for key, value in twins.items()}})
    assert not torch.equal(result["x"], result["y"])


def test_breadcrumbs_by_hand() -> None:
    # Of ten, density 0.5 leaves the five largest and gamma 0.2 takes the two very largest of them.
    a = [10.0, -9.0, 8.0, -7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    b = [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, -5.0, -6.0, 7.0, 8.0]
    merged = by_hand("breadcrumbs", [0.0] * 10, a, b, density=0.5, gamma=0.2, scale=2)
    assert merged == [0, 0, 16, -14, 12, 8, -10, -12, 0, 0]


@pytest.mark.parametrize(("density", "gamma"), [(0.15, 0.006), (0.15, 0.14), (0.4, 0.1), (1.0, 0.3), (0.01, 0.0)])
def test_breadcrumbs_is_a_band_of_ranks_in_every_tensor(density: float, gamma: float) -> None:
    taus = deltas(3)
    expected = {}
    for name, first in state(taus[0]).items():
        result = torch.zeros(first.numel())
        for tau in taus:
            values = state(tau)[name].reshape(-1)
            last = max(1, round(density * len(values)))
            order = values.abs().argsort(descending=True)[min(round(gamma * len(values)), last - 1) : last]
            result[order] += values[order]
        expected[name] = result.view(first.shape)
    merged = merge("breadcrumbs", taus, density=density, gamma=gamma, scale=1.0)
    torch.testing.assert_close(merged, vector(expected))


@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 1, 3, 3), (2, 1, 1, 1), (64, 64, 1, 1), (3, 0)])
def test_breadcrumbs_leaves_something_of_every_tensor(shape: tuple[int, ...]) -> None:
    base, expert = {"w": torch.zeros(shape)}, {"w": torch.randn(shape)}
    merged = merge_state(MERGERS.build({"type": "breadcrumbs"}), base, {"a": expert, "b": expert})["w"]
    assert bool(merged.any()) or merged.numel() == 0


def test_equal_magnitudes_share_one_fate() -> None:
    assert by_hand("breadcrumbs", [0.0] * 4, [1.0, -1.0, 1.0, 1.0], density=0.3, gamma=0.0, scale=1.0) == [1, -1, 1, 1]
    assert by_hand("ties", [0.0] * 4, [2.0, -1.0, 1.0, 0.0], density=0.5) == [2, -1, 1, 0]


def test_magmax_by_hand() -> None:
    base, a, b, c = [1.0, 1.0, 1.0], [4.0, 0.5, 2.0], [-1.0, 3.0, 0.0], [2.0, -2.0, 1.0]
    assert by_hand("magmax", base, a, b, c, scale=1.0) == [4.0, -2.0, 0.0]  # of +1 and -1 the later task wins
    assert by_hand("magmax", base, a, b, c) == [2.5, -0.5, 0.5]


def test_magmax_is_a_gather_at_the_largest_magnitude() -> None:
    taus = deltas(3)
    expected = taus.gather(0, taus.abs().argmax(0, keepdim=True))[0]
    assert torch.equal(merge("magmax", taus, scale=1.0), expected)


def test_a_sign_is_elected_even_where_nothing_votes() -> None:
    votes = [torch.tensor([1.0, -1.0, 0.0, -3.0]), torch.tensor([-1.0, -1.0, 0.0, 2.0])]
    assert elect_sign(votes).tolist() == [1, -1, 1, -1] and elect_sign(votes, tie=-1.0).tolist() == [-1, -1, -1, -1]
    assert votes[0].tolist() == [1.0, -1.0, 0.0, -3.0]
