"""The contract of every registered static merger, formulas by hand, and the run around them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.merging_extras import random_extras
from safetensors.torch import save_file
from torch import Tensor, nn

import symerge_dense.merging
from symerge_dense.merging.base import Merger
from symerge_dense.merging.methods.average import Average
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.sources import SafetensorsSource
from symerge_dense.merging.tensor_specs import WEIGHT_KINDS, tensor_specs
from symerge_dense.registry import MERGERS

for _module in pkgutil.iter_modules(symerge_dense.merging.__path__):
    importlib.import_module(f"symerge_dense.merging.{_module.name}")
NAMES = list(MERGERS)
# Arguments under which one expert comes back bit for bit, for the methods whose formula says so.
RECOVERS_ONE = {
    "average": {},
    "task_arithmetic": {"scale": 1.0},
    "ties": {"density": 1.0},
    "dare": {"drop": 0.0, "scale": 1.0},
    "dare_ties": {"drop": 0.0, "density": 1.0, "scale": 1.0},
    "breadcrumbs": {"density": 1.0, "gamma": 0.0, "scale": 1.0},
    "magmax": {"scale": 1.0},
    "consensus": {"scale": 1.0},
    "tall_masks": {},
    "emr": {},
    "model_stock": {},
    "lines": {"alpha": 1.0, "beta": 0.0},
    "tsv_m": {},
    "wudi": {},
    "fisher": {},
    "regmean": {},
}


class Net(nn.Module):
    """Every kind of tensor, small; among them a 3x3 and a 1x1 convolution and a tensor of one element."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 6))
        self.temperature = nn.Parameter(torch.randn(1))
        self.conv3 = nn.Conv2d(3, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 1, 1)
        self.linear = nn.Linear(6, 5)
        self.table = nn.Embedding(4, 6)


def state_of(seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = {name: value.clone() for name, value in Net().state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point():
            value += spread * torch.randn_like(value)
        if name.endswith("running_var"):
            value.abs_().add_(0.1)
    state["bn.num_batches_tracked"].fill_(seed)
    return state


SPECS = tensor_specs(Net())
BASE = state_of(100)
EXPERTS = {task: state_of(number) for number, task in enumerate(("segmentation", "depth", "normals"))}


def build(name: str, **arguments: Any) -> Merger:
    merger: Merger = MERGERS.build({"type": name, **arguments})
    return merger


def merge(
    merger: Merger, base: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]], **options: Any
) -> dict[str, Tensor]:
    if merger.per_task:
        options["task"] = min(experts)
    if merger.needs:
        options["extras"] = random_extras(merger.needs, SPECS, experts)
    return merge_state(merger, base, experts, SPECS, **options)


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_the_registry_knows_the_first_two() -> None:
    assert {"average", "task_arithmetic"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_scope_is_stated_for_every_kind_and_the_file_names_its_paper(name: str) -> None:
    merger = build(name)
    assert set(merger.treats) == WEIGHT_KINDS and set(merger.treats.values()) <= {"method", "mean", "base"}
    assert "https://" in (importlib.import_module(type(merger).__module__).__doc__ or "")
    assert MERGERS[name](**merger.hyperparameters).hyperparameters == merger.hyperparameters


@pytest.mark.parametrize("name", NAMES)
def test_shapes_types_memory_and_inputs_are_kept(name: str) -> None:
    before = {name: value.clone() for name, value in BASE.items()}
    merged = merge(build(name), BASE, EXPERTS)
    assert same(before, BASE) and list(merged) == list(BASE)
    inputs = {value.data_ptr() for state in (BASE, *EXPERTS.values()) for value in state.values()}
    for key, value in merged.items():
        assert value.shape == BASE[key].shape and value.dtype == BASE[key].dtype
        assert value.data_ptr() not in inputs and bool(value.isfinite().all())
    assert merged["bn.num_batches_tracked"].item() == 100


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_experts_does_not_matter(name: str) -> None:
    turned = dict(reversed(EXPERTS.items()))
    assert same(merge(build(name), BASE, EXPERTS), merge(build(name), BASE, turned))


@pytest.mark.parametrize("name", NAMES)
def test_all_zero_task_vectors_give_the_base(name: str) -> None:
    assert same(merge(build(name), BASE, dict.fromkeys("abc", BASE), statistics="pretrained"), BASE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("statistics", ["pretrained", "mean", "moments"])
def test_streaming_from_files_equals_memory(name: str, statistics: str, tmp_path: Path) -> None:
    sources = {}
    for task, state in {"base": BASE, **EXPERTS}.items():
        save_file(state, tmp_path / f"{task}.safetensors")
        sources[task] = SafetensorsSource(tmp_path / f"{task}.safetensors")
    base = sources.pop("base")
    streamed = merge(build(name), base, sources, statistics=statistics)
    assert same(streamed, merge(build(name), BASE, EXPERTS, statistics=statistics))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_can_be_repeated_with_one_merger(name: str) -> None:
    merger = build(name)
    first = merge(merger, BASE, EXPERTS)
    merge(merger, EXPERTS["depth"], {"a": BASE})
    assert same(merge(merger, BASE, EXPERTS), first)


@pytest.mark.parametrize("name", RECOVERS_ONE)
@pytest.mark.parametrize("spread", [1e-8, 1.0, 1e4])
def test_one_expert_comes_back_bit_for_bit(name: str, spread: float) -> None:
    expert = state_of(3, spread)
    merged = merge(build(name, **RECOVERS_ONE[name]), BASE, {"a": expert})
    expert["bn.num_batches_tracked"] = BASE["bn.num_batches_tracked"]
    assert same(merged, expert)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    def cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        return {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}

    base = cast(BASE, torch.bfloat16)
    experts = {task: cast(state, torch.bfloat16) for task, state in EXPERTS.items()}
    same_in_float = {task: cast(state, torch.float32) for task, state in experts.items()}
    wide = merge(build(name), cast(base, torch.float32), same_in_float)
    assert same(merge(build(name), base, experts), cast(wide, torch.bfloat16))


def test_average_and_task_arithmetic_by_hand() -> None:
    base = {"w": torch.tensor([[1.0, 2.0]])}
    experts = {"a": {"w": torch.tensor([[2.0, 2.0]])}, "b": {"w": torch.tensor([[4.0, 0.0]])}}
    assert merge_state(Average(), base, experts)["w"].tolist() == [[3.0, 1.0]]
    assert merge_state(TaskArithmetic(scale=0.5), base, experts)["w"].tolist() == [[3.0, 1.0]]
    assert merge_state(TaskArithmetic(scale=2), base, experts)["w"].tolist() == [[9.0, -2.0]]
    torch.testing.assert_close(merge_state(TaskArithmetic(), base, experts)["w"], torch.tensor([[2.2, 1.4]]))


def test_average_is_the_mean_of_the_experts() -> None:
    merged = merge(Average(), BASE, EXPERTS)
    for spec in SPECS:
        if spec.kind != "counter":
            mean = torch.stack([state[spec.name] for state in EXPERTS.values()]).mean(0)
            torch.testing.assert_close(merged[spec.name], mean)
