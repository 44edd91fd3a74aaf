"""Order statistics, with a sample or without, against a sort of the whole vector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from symerge_dense.merging import order_statistics as threshold
from symerge_dense.merging.order_statistics import OrderStatistics, most


def read(statistics: OrderStatistics, parts: list[Tensor], sample: list[Tensor] | None = None) -> int:
    """Give ``statistics`` what they ask for, every other reading backwards; how often that was all of ``parts``."""
    full = 0
    for number in range(statistics.readings):
        wanted = statistics.reads(number)
        for part in {"sample": sample or [], "all": parts[:: (-1) ** number], "nothing": []}[wanted]:
            statistics.read(number, part)
        statistics.close(number)
        full += wanted == "all"
    assert statistics.reads(statistics.readings) == "nothing" or not parts or not sum(map(torch.numel, parts))
    return full


def found(parts: list[Tensor], ranks: list[int], sample: list[Tensor] | None = None) -> list[float]:
    """The numbers at ``ranks`` of a stream in parts."""
    statistics = OrderStatistics(lambda count: ranks)
    read(statistics, parts, sample)
    return list(statistics.values)


def streams() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(5000, generator=generator)
    return {
        "normal": normal,
        "magnitudes": normal.abs(),
        "tiny": normal * 1e-40,
        "huge": normal * 1e38,
        "ties": (normal * 3).round(),
        "zeros": normal.clamp(min=0),
        "one bin": 1 + normal * 1e-4,
        "wide": normal * 10 ** (normal * 8),
        "constant": torch.full((777,), -2.5),
        "signed zeros": torch.tensor([0.0, -0.0, 1.0, -1.0, -0.0, 0.0]),
        "infinite": normal / (normal > 0),
    }


@pytest.mark.parametrize("name", streams())
def test_every_rank_is_that_of_a_sort(name: str) -> None:
    values = streams()[name]
    ranks = sorted({*range(0, len(values), 97), len(values) - 1, *range(min(6, len(values)))})
    expected = values.sort().values[ranks].tolist()
    assert found(list(values.split(613)), ranks) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 65_537])
def test_the_kth_largest_magnitude_is_kthvalue(size: int) -> None:
    magnitude = torch.randn(size, generator=torch.Generator().manual_seed(size)).abs()
    for k in sorted({1, (size + 1) // 2, max(1, size // 5), size}):
        assert found([magnitude], [size - k]) == [magnitude.kthvalue(size - k + 1).values.item()]


def test_shapes_and_cuts_of_the_stream_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(2, 3, 40, 5)
    expected = found([values.reshape(-1)], [0, 600, 1199])
    monkeypatch.setattr(threshold, "PENDING", 7)
    assert found([torch.zeros(0), values[0], values[1].transpose(0, 1)], [0, 600, 1199]) == expected
    assert found([value.clone() for value in values.reshape(-1)], [0, 600, 1199]) == expected


def test_numbers_come_in_the_order_of_the_ranks_and_may_repeat() -> None:
    assert found([torch.tensor([3.0, 1.0, 2.0])], [2, 0, 2, 1]) == [3.0, 1.0, 3.0, 2.0]


def test_ranks_are_chosen_when_the_length_is_known() -> None:
    lengths = []
    statistics = OrderStatistics(lambda count: lengths.append(count) or [count - 1])
    statistics.close(0)
    statistics.read(1, torch.rand(3))
    statistics.read(1, torch.rand(2, 2))
    assert lengths == []
    statistics.close(1)
    assert lengths == [7] and len(statistics.values) == 1


def test_doubles_and_halves_are_taken_as_float32() -> None:
    values = torch.rand(1000, dtype=torch.float64)
    assert found([values], [500]) == [values.float().sort().values[500].item()]
    assert found([values.bfloat16()], [500]) == [values.bfloat16().float().sort().values[500].item()]


def test_an_empty_stream_has_no_values() -> None:
    statistics = OrderStatistics(lambda count: [0])
    read(statistics, [torch.zeros(0, 4)])
    assert statistics.values == ()


SHARES = (0.0, 1e-5, 0.01, 0.2, 0.5, 0.8, 0.999, 1.0)


def many(kind: str) -> Tensor:
    """100,000 numbers, of which a sample is worth its while."""
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    signed_zeros = torch.tensor([0.0, -0.0, 1.0, -1.0]).repeat(25_000)
    return {
        "normal": normal,
        "magnitudes": normal.abs(),
        "tiny": normal * 1e-40,
        "ties": (normal * 3).round(),
        "mostly zeros": normal.clamp(min=0),
        "wide": (normal * 10 ** (normal * 8)).nan_to_num(0),
        "zeros": normal * 0,
        "signed zeros": signed_zeros,
    }[kind]


@pytest.mark.parametrize(
    "kind", ["normal", "magnitudes", "tiny", "ties", "mostly zeros", "wide", "zeros", "signed zeros"]
)
@pytest.mark.parametrize("sample", ["fair", "too low", "too high", "negative"])
def test_the_sample_costs_readings_but_never_the_result(kind: str, sample: str) -> None:
    values = many(kind)
    given = {
        "fair": values[::5],
        "too low": torch.full((20_000,), -1e-38),
        "too high": torch.full((20_000,), 1e30),
        "negative": -values.abs()[:20_000] - 1,
    }[sample]
    ordered = values.sort().values
    for share in SHARES:

        def ranks(count: int, share: float = share) -> list[int]:
            return [min(count - 1, int(share * count)), count - 1]

        statistics = OrderStatistics(ranks)
        full = read(statistics, list(values.split(7013)), list(given.split(999)))
        assert list(statistics.values) == ordered[ranks(len(values))].tolist()
        assert 1 <= full <= 3


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_with_a_fair_sample_one_reading_is_enough(share: float) -> None:
    values = torch.randn(1_000_000, generator=torch.Generator().manual_seed(2)).abs()
    statistics = OrderStatistics(lambda count: [int(share * count)])
    assert read(statistics, [values], [values[::4]]) == 1
    assert statistics.values == (values.kthvalue(int(share * 1_000_000) + 1).values.item(),)
    assert read(OrderStatistics(lambda count: [int(share * count)]), [values]) == 2  # without one


def test_a_sample_grows_no_larger_than_it_needs_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "ENOUGH", 20_000)
    statistics = OrderStatistics(lambda count: [count // 2])
    for part in many("normal").split(5000):
        statistics.read(0, part)
    assert sum(map(len, statistics._sample)) == 20_000


def test_the_reading_that_serves_several_statistics() -> None:
    assert most(["nothing", "all", "sample"]) == "all" and most({"nothing", "sample"}) == "sample"
    assert most([]) == "nothing"
