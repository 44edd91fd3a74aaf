"""Large tensors in parts, by several threads: the same merge, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from builders.merging_vectors import build
from torch import Tensor

from symerge_dense.merging import chunks as parts
from symerge_dense.merging import run as job
from symerge_dense.merging.chunks import STEP, WINDOW, WINDOWS, Workers, windows
from symerge_dense.merging.run import merge_state
from symerge_dense.registry import MERGERS

FLAT = {"lines": {"beta": 0.0}}  # states without a module know no depth
ELEMENTWISE = [name for name in MERGERS if build(name).elementwise]


def state(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (60, 75), "b.weight": (9, 5, 10, 10), "b.bias": (9,), "half.weight": (30, 7)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**drawn, "half.weight": drawn["half.weight"].half()}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(job, "PART", size)
    monkeypatch.setattr(job, "READ", 2 * size)


def test_the_methods_that_are_known_to_be_elementwise() -> None:
    assert {"average", "task_arithmetic", "ties", "magmax", "consensus", "pcb", "tall_masks", "lines"} <= {*ELEMENTWISE}
    assert not {"dare", "dare_ties", "breadcrumbs", "model_stock"} & {*ELEMENTWISE}  # what they do is per tensor


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_parts_give_what_whole_tensors_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, experts = state(0), {task: state(seed) for seed, task in enumerate("abc", 1)}
    merger = build(name, **FLAT.get(name, {}))
    task = "b" if merger.per_task else None
    whole = merge_state(merger, base, experts, task=task)
    for size in (64, 1000):
        cut(monkeypatch, size)
        in_parts = merge_state(merger, base, experts, task=task)
        assert list(in_parts) == list(whole)
        for key, value in whole.items():
            assert torch.equal(in_parts[key], value) and in_parts[key].dtype == value.dtype
            assert in_parts[key].shape == value.shape


@pytest.mark.parametrize("name", ["ties", "pcb", "dare_ties", "doge_ta"])
def test_a_sampled_pass_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, experts = state(0), {task: state(seed) for seed, task in enumerate("abc", 1)}
    expected = merge_state(build(name), base, experts, seed=5)
    for module, attribute, value in [
        (job, "LEAST", 0),
        (parts, "WINDOW", 128),
        (parts, "STEP", 2),
        (parts, "WINDOWS", 40),
    ]:
        monkeypatch.setattr(module, attribute, value)
    monkeypatch.setattr("symerge_dense.merging.order_statistics.LEAST", 100)
    sampled = merge_state(build(name), base, experts, seed=5)
    assert all(torch.equal(sampled[key], value) for key, value in expected.items())


def test_with_a_sample_ties_reads_its_inputs_twice() -> None:
    torch.manual_seed(0)
    base = {"a.weight": torch.zeros(700, 1500)}
    merger, seen = build("ties"), []
    observe = merger.observe
    merger.observe = lambda number, operands: (seen.append((number, operands.base.numel())), observe(number, operands))
    merge_state(merger, base, {task: {"a.weight": torch.randn(700, 1500)} for task in "ab"})
    counts = {number: sum(size for other, size in seen if other == number) for number, _ in seen}
    assert counts == {0: 1_050_000 // STEP + 1, 1: 1_050_000} or counts == {0: 1_050_000 // STEP, 1: 1_050_000}


def test_channels_last_tensors_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(seed: int) -> dict[str, Tensor]:
        return {"b.weight": torch.randn(9, 5, 10, 10).to(memory_format=torch.channels_last)}

    base, expert = turned(0), turned(1)
    cut(monkeypatch, 50)
    assert torch.equal(merge_state(build("average"), base, {"a": expert})["b.weight"], expert["b.weight"])


@pytest.mark.usefixtures("two_threads")
def test_a_broken_value_is_found_in_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 100)
    base, broken = state(0), state(1)
    broken["b.weight"].view(-1)[4321] = float("inf")
    with pytest.raises(ValueError, match=r"depth: tensor 'b\.weight' holds NaN or infinite"):
        merge_state(build("ties"), base, {"a": state(2), "depth": broken})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_no_broken_value_passes_unseen(name: str, count: int, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 1000)
    base = state(0)
    for scale in ({}, {"scale": 0.0}) if "scale" in build(name).hyperparameters else ({},):
        merger = build(name, **FLAT.get(name, {}), **scale)
        for broken in "abc"[:count]:
            experts = {task: state(seed) for seed, task in enumerate("abc"[:count], 1)}
            experts[broken]["b.weight"].view(-1)[4321] = value
            with pytest.raises(ValueError, match=rf"{broken}: tensor 'b\.weight' holds NaN or infinite"):
                merge_state(merger, base, experts, task="a" if merger.per_task else None)


def test_many_experts_add_up_in_parts_as_in_whole_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    base, experts = state(0), {f"{seed:02}": state(seed) for seed in range(1, 41)}
    for merger in (build("ties"), build("ties", aggregation="sum"), build("task_arithmetic")):
        monkeypatch.undo()
        whole = merge_state(merger, base, experts)
        cut(monkeypatch, 1000)
        in_parts = merge_state(merger, base, experts)
        assert all(torch.equal(in_parts[key], value) for key, value in whole.items())


@pytest.mark.parametrize("aggregation", ["mean", "sum", "max"])
def test_ties_shows_opposite_infinities(aggregation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 1000)
    experts = {task: state(seed) for seed, task in enumerate("abc", 1)}
    for task, value in {"a": float("inf"), "c": float("-inf")}.items():
        experts[task]["b.weight"].view(-1)[7] = value
    with pytest.raises(ValueError, match=r"a: tensor 'b\.weight' holds NaN or infinite"):
        merge_state(build("ties", aggregation=aggregation), state(0), experts)


def test_finite_weights_whose_sum_overflows_are_called_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 1000)
    experts = {
        task: {
            name: torch.full_like(value, 3e38) if name == "a.weight" else value for name, value in state(seed).items()
        }
        for seed, task in enumerate("ab", 1)
    }
    with pytest.raises(ValueError, match=r"'a\.weight' exceeds the range of torch\.float32; use a smaller scale"):
        merge_state(build("task_arithmetic", scale=1.0), state(0), experts)


@pytest.mark.parametrize(("start", "total"), [(0, 10 * WINDOW), (12_345, 3_000_000), (99_999_999, 300_000_000)])
def test_windows_lie_where_they_would_in_one_vector(start: int, total: int) -> None:
    count = 2_000_000
    places = torch.cat([torch.arange(count)[part] for part in windows(start, count, total)] or [torch.zeros(0)])
    every = max(WINDOW, total // WINDOWS)
    inside = (torch.arange(start, start + count) % every) < WINDOW
    assert bool(inside[places.long()].all()) and len(places.unique()) == len(places)
    assert abs(len(places) - int(inside.sum()) / STEP) <= 1 + count / every  # a window cut by the ends starts anew


def test_parts_cover_and_do_not_overlap() -> None:
    for count in (0, 1, parts.PART, parts.PART + 1, 5 * parts.PART - 1):
        places = torch.zeros(count)
        for part in parts.parts(count, parts.PART):
            places[part] += 1
        assert bool((places == 1).all())


@pytest.mark.usefixtures("two_threads")
def test_workers_share_the_parts_and_compute_alone() -> None:
    seen: list[tuple[str, int]] = []
    both = threading.Barrier(2)

    def work(part: slice) -> None:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        both.wait(10)

    with Workers() as workers:
        workers.each(work, parts.parts(4 * parts.PART, parts.PART))
        assert torch.get_num_threads() == 2
    assert len({name for name, _ in seen}) == 2 and {threads for _, threads in seen} == {1}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("merge")]


@pytest.mark.usefixtures("two_threads")
def test_the_error_of_the_first_slice_is_raised() -> None:
    def work(part: slice) -> None:
        if part.start >= 3:
            raise ValueError(f"at {part.start}")

    with Workers() as workers, pytest.raises(ValueError, match="at 3"):
        workers.each(work, [slice(start, start + 1) for start in range(50)])


def test_with_one_thread_nobody_else_works() -> None:
    names = []
    with Workers() as workers:
        workers.each(lambda part: names.append(threading.current_thread()), [slice(0, 1)])
    assert names == [threading.main_thread()]
