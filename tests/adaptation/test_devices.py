"""What a device may change: rounding. The same tests run on the CPU, and with ``-m gpu`` on a GPU.

The CPU is compared with itself where something differs: the precision, or the number of threads, which share out work
and so round in another order. What only another device can tell is skipped without one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.adapt_once import adapt_tiny, state
from builders.merge_checkpoints import state_of

from symerge_dense.engine.processes import join_processes
from symerge_dense.engine.runner import working_on
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.pipeline.file_merge.weights import merge
from symerge_dense.registry import MERGERS

GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
)
DEVICES = ["cpu", GPU]
STATIC = [name for name in MERGERS if not MERGERS[name].needs and not MERGERS[name].per_task]
OPTIONS = {"rounds": 4, "granularity": "tensor", "coefficient_lr": 1e-2, "layer_lr": 1e-3}


@contextmanager
def more_threads(device: str) -> Iterator[None]:
    """Two threads more on the CPU inside; a GPU is another device anyway."""
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2 * (device == "cpu"))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(folder: Path, device: str, **options: Any) -> dict[str, torch.Tensor]:
    with working_on(device):
        model, _ = adapt_tiny(folder, **{**OPTIONS, **options})
    return {name: value.float().cpu() for name, value in state(model).items()}


def near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: n + text
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("amp", "tolerance"), [(False, 5e-3), (True, 5e-2)])
def test_an_adaptation_ends_where_one_in_float32_on_the_cpu_ends(
    device: str, amp: bool, tolerance: float, tmp_path: Path
) -> None:
    with more_threads(device):
        there = run(tmp_path / "there", device, amp=amp)
    here = run(tmp_path / "here", "cpu")
    near(there, here, tolerance)
    assert not amp or any(not torch.equal(value, here[name]) for name, value in there.items()), "it is not at work"


@pytest.mark.parametrize("device", DEVICES)
def test_task_vectors_on_disk_change_no_bit(device: str, tmp_path: Path) -> None:
    ends = [run(tmp_path / place, device, task_vectors=place, granularity="channel") for place in ("memory", "mapped")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("device", [GPU])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "singular"])
@pytest.mark.parametrize("count", [1, 2])
def test_task_vectors_of_another_device_are_moved_as_they_are_used(
    device: str, granularity: Any, count: int, tmp_path: Path
) -> None:
    base, *experts = (state_of(seed) for seed in range(count + 1))
    found = []
    for place in ("cpu", device):
        one = LayerwiseMerge(specs_from_state(base), [*"ab"[:count]], granularity).to(place)
        one.attach(base, dict(zip("ab", experts, strict=False)), tmp_path)
        merged = one({name: value.to(place) for name, value in base.items()})
        torch.stack([value.square().sum() for value in merged.values()]).sum().backward()
        assert {value.device.type for value in merged.values()} == {place}
        found.append(
            {**{name: value.detach().cpu() for name, value in merged.items()}, "": one.coefficients.grad.cpu()}
        )
    near(found[1], found[0], 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", STATIC)
def test_a_merge_is_the_same_on_every_device(device: str, method: str) -> None:
    base, *experts = (state_of(seed) for seed in range(3))
    given, options = dict(zip("ab", experts, strict=True)), {"beta": 0} if method == "lines" else {}
    with more_threads(device):
        found = merge(method, base, given, device=device, **options)
    near(found, merge(method, base, given, **options), 1e-4)


@pytest.mark.parametrize("device", [GPU])
def test_nccl_with_one_process(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(29500 + os.getpid() % 1000))
    alone = run(tmp_path / "alone", device)
    join_processes("pytorch")
    assert torch.distributed.get_backend() == "nccl"
    near(run(tmp_path / "joined", device, launcher="pytorch"), alone, 5e-3)
