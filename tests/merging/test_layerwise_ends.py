"""The layer-wise merge at its ends (base and single expert, bit for bit) and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import TensorSpec, specs_from_state, tensor_specs

TASKS = ("segmentation", "depth", "normals")


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, bias=False))


def states(count: int, model: nn.Module) -> list[dict[str, Tensor]]:
    state = model.state_dict()
    return [
        {name: value + 1 if value.is_floating_point() else value for name, value in state.items()} for _ in range(count)
    ]


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32)


def mixed_magnitudes(shape: torch.Size, generator: torch.Generator) -> Tensor:
    exponents = torch.rand(shape, generator=generator) * 12 - 8
    return torch.randn(shape, generator=generator) * 10**exponents


@pytest.mark.parametrize("kind", ["mixed", "resnet18"])
def test_both_ends_are_exact_to_the_bit(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    model = timm.create_model("resnet18", pretrained=False) if kind == "resnet18" else nn.Linear(300, 300)
    base = {name: value.detach() for name, value in model.named_parameters()}
    experts = {task: {name: mixed_magnitudes(value.shape, generator) for name, value in base.items()} for task in TASKS}
    if kind == "mixed":
        base = {name: mixed_magnitudes(value.shape, generator) for name, value in base.items()}
        base["bias"][:5], experts["depth"]["bias"][5:9] = -0.0, -0.0
    specs = specs_from_state(base)
    several, one = LayerwiseMerge(specs, TASKS, init=0.0), LayerwiseMerge(specs, ["depth"], init=1.0)
    several.attach(base, experts)
    one.attach(base, {"depth": experts["depth"]})
    static = merge_state(TaskArithmetic(scale=1.0), base, {"depth": experts["depth"]}, specs)
    zero, full = several(base), one(base)
    with torch.no_grad():
        one.coefficients.zero_()
    nothing = one(base)
    for name, value in base.items():
        assert torch.equal(bits(zero[name]), bits(value)) and torch.equal(bits(nothing[name]), bits(value))
        assert torch.equal(bits(full[name]), bits(experts["depth"][name]))
        assert torch.equal(bits(static[name]), bits(experts["depth"][name]))
        assert zero[name].data_ptr() != value.data_ptr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": {"depth": 0.1}}, "init names"),
        ({"init": torch.zeros(2, 2)}, r"shape \(2, 2\)"),
        ({"init": float("nan")}, "NaN"),
        ({"init": 1.5}, "outside clamp"),
        ({"clamp": (1.0, 0.0)}, "low < high"),
        ({"granularity": "blocks"}, "Did you mean 'block'"),
        ({"tasks": []}, "at least one"),
        ({"tasks": ["a", "a"]}, "each once"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerwiseMerge(tensor_specs(network()), **{"tasks": TASKS, **options})


def test_nothing_to_merge_and_unknown_blocks() -> None:
    with pytest.raises(ValueError, match="no weight to merge"):
        LayerwiseMerge([TensorSpec("n", (), torch.int64, "counter")], TASKS)
    with pytest.raises(ValueError, match="no known block"):
        LayerwiseMerge(specs_from_state(network().state_dict()), TASKS, "block")


def test_errors_of_attach_and_forward() -> None:
    model = network()
    base, *rest = states(4, model)
    experts = dict(zip(TASKS, rest, strict=True))
    merge = LayerwiseMerge(tensor_specs(model), TASKS)
    with pytest.raises(RuntimeError, match=r"call attach\(base, experts\)"):
        merge(base)
    with pytest.raises(ValueError, match="the coefficients are for"):
        merge.attach(base, {"depth": rest[0]})
    with pytest.raises(ValueError, match=r"depth: 1 differences\n  missing '0\.weight'"):
        merge.attach(base, {**experts, "depth": {k: v for k, v in rest[1].items() if k != "0.weight"}})
    with pytest.raises(ValueError, match=r"normals: tensor '0\.bias'"):
        merge.attach(base, {**experts, "normals": {**rest[2], "0.bias": torch.full((4,), float("nan"))}})
    assert merge.vectors is None  # a failed attach leaves nothing half-filled
    narrow = {name: value[:2] if value.ndim else value for name, value in base.items()}
    with pytest.raises(ValueError, match="other shapes than the specs"):
        merge.attach(narrow, dict.fromkeys(TASKS, narrow))
    merge.attach(base, experts)
    with pytest.raises(ValueError, match="lack 6 merged tensors"):
        merge({"0.weight": base["0.weight"]})
