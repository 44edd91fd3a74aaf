"""LiNeS: any method's delta by depth, with the paper's alpha from a statistics pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import timm
import torch
from builders.merging_vectors import NAMES, SHAPES, SIZE, build, deltas, merge, state, vector
from torch import Tensor, nn

from symerge_dense.merging.base import Merger
from symerge_dense.merging.methods.lines import Lines
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import TensorSpec, specs_from_state, tensor_specs
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.registry import MERGERS

DEPTHS = dict(zip(SHAPES, (0, 0, 1, 2, 3, None), strict=True))
SPECS = [
    replace(spec, depth=None if (block := DEPTHS[spec.name]) is None else block / 3)
    for spec in specs_from_state(state(torch.zeros(SIZE)))
]


def weights(alpha: float, beta: float) -> Tensor:
    """alpha + beta * l / 3 of every element; alpha for the tensor without a block."""
    return vector({name: torch.full(shape, alpha + beta * (DEPTHS[name] or 0) / 3) for name, shape in SHAPES.items()})


def test_task_arithmetic_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    specs = tensor_specs(model)
    base = {spec.name: torch.tensor([[1.0]]) for spec in specs}
    experts = {
        "a": {spec.name: torch.tensor([[3.0]]) for spec in specs},
        "b": {spec.name: torch.tensor([[2.0]]) for spec in specs},
    }
    merged = merge_state(build("lines", alpha=0.5, beta=0.4), base, experts, specs)
    assert [value.item() for value in merged.values()] == pytest.approx([1 + 3 * 0.5, 1 + 3 * 0.7, 1 + 3 * 0.9])
    merged = merge_state(build("lines"), base, experts, specs)  # alpha = 1 / T
    assert [value.item() for value in merged.values()] == pytest.approx([1 + 3 * 0.5, 1 + 3 * 0.65, 1 + 3 * 0.8])


@pytest.mark.parametrize(
    ("name", "first", "last", "outside"),
    [
        ("resnet18", "layer1.0", "layer4.1", "conv1"),
        ("vit_tiny_patch16_224", "blocks.0", "blocks.11", "patch_embed"),
        ("convnext_atto", "stages_0.blocks.0", "stages_3.blocks.1", "stages_1.downsample"),
    ],
)
def test_depth_counts_residual_blocks_as_the_published_code_does(
    name: str, first: str, last: str, outside: str
) -> None:
    """The first block is at alpha, the last at alpha + beta; stem and downsampling are at alpha."""
    with torch.device("meta"):
        specs = tensor_specs(TimmBackbone(name).body)
    merger = Lines(alpha=0.25, beta=0.5)
    scales = {spec.name: merger.coefficient(spec) for spec in specs}

    def of(block: str) -> set[float]:
        found = {scale for name, scale in scales.items() if name.removeprefix("model.").startswith(f"{block}.")}
        assert found
        return found

    assert of(first) == {0.25} and of(last) == {0.75} and of(outside) == {0.25}
    assert len({spec.depth for spec in specs} - {None}) == len({s.block_name for s in specs if s.depth is not None})


def test_the_final_norm_is_at_alpha() -> None:
    with torch.device("meta"):
        specs = tensor_specs(timm.create_model("vit_tiny_patch16_224"))
    merger = Lines(alpha=0.25, beta=0.5)
    assert {merger.coefficient(spec) for spec in specs if spec.name.startswith("norm.")} == {0.25}


@pytest.mark.parametrize(
    "method",
    [
        "task_arithmetic",
        "ties",
        "dare",
        "dare_ties",
        "breadcrumbs",
        "magmax",
        "consensus",
        "pcb",
        "average",
        {"type": "ties", "scale": 0.25, "density": 0.9},
        {"type": "task_arithmetic", "scale": -0.5},
    ],
)
def test_alpha_is_the_ratio_of_norms_over_the_number_of_tasks(method: Any) -> None:
    taus = deltas(3)
    inner = dict(method) if isinstance(method, dict) else {"type": method}
    if isinstance(method, str) and method != "average":
        inner["scale"] = 1.0  # a method given by its name leaves the scaling to LiNeS
    delta = merge(inner.pop("type"), taus, seed=4, **inner)
    alpha = float(taus.sum(0).abs().sum() / delta.abs().sum()) / 3
    merged = merge("lines", taus, specs=SPECS, method=method, beta=0.6, seed=4)
    torch.testing.assert_close(merged, weights(alpha, 0.6) * delta)


def test_task_arithmetic_needs_no_pass_for_alpha_nor_does_an_alpha_given() -> None:
    assert build("lines").passes == build("lines", method="ties", alpha=0.3).passes - build("ties").passes == 0
    assert all(build("lines", method=name).passes == build(name).passes + 1 for name in ("ties", "pcb"))
    assert torch.equal(
        merge("lines", deltas(2), specs=SPECS, method={"type": "task_arithmetic", "scale": 0}), torch.zeros(SIZE)
    )


def test_methods_with_weights_per_task() -> None:
    taus = deltas(3)
    for task in NAMES[3]:
        merged = merge("lines", taus, specs=SPECS, method="emr", alpha=0.5, beta=0.3, task=task)
        torch.testing.assert_close(merged, weights(0.5, 0.3) * merge("emr", taus, task=task))


class Choosy(Merger):
    """Doubles convolutions' sum, averages matrices, leaves the rest; needs Fisher values."""

    name: ClassVar[str] = "choosy"
    needs: ClassVar[Any] = frozenset({"fisher"})
    treats: ClassVar[Any] = {"conv": "method", "matrix": "mean", "norm": "base", "vector": "base", "embedding": "base"}
    passes = 1

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._kinds = {spec.kind for spec in specs}

    def observe(self, number: int, operands: Operands) -> None:
        self._kinds.add(operands.spec.kind)

    def merge(self, operands: Operands) -> Tensor:
        assert self._kinds == {operands.spec.kind} == {"conv"}
        return operands.base + 2 * sum(delta for _, delta in operands.deltas())


def test_scope_and_needs_are_those_of_the_wrapped_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MERGERS.module_dict, "choosy", Choosy)
    taus = deltas(2)
    experts = {task: state(tau) for task, tau in zip("ab", taus, strict=True)}
    base = state(torch.zeros(SIZE))
    merger = build("lines", method="choosy", alpha=1.0, beta=0.9)
    with pytest.raises(ValueError, match="lines needs fisher of a"):
        merge_state(merger, base, experts, SPECS)
    merged = merge_state(merger, base, experts, SPECS, extras={"fisher": experts})
    total = state(taus.sum(0))
    torch.testing.assert_close(merged["conv3.weight"], 2 * total["conv3.weight"])
    torch.testing.assert_close(merged["conv1.weight"], 1.3 * 2 * total["conv1.weight"])
    torch.testing.assert_close(merged["fc.weight"], 1.6 * total["fc.weight"] / 2)
    assert not bool(merged["conv3.bias"].any()) and not bool(merged["temperature"].any())


def test_without_blocks_there_is_no_depth() -> None:
    taus = deltas(2)
    with pytest.raises(ValueError, match=r"lines scales by depth.*tensor_specs.*beta=0"):
        merge("lines", taus)
    torch.testing.assert_close(merge("lines", taus, alpha=0.4, beta=0), merge("task_arithmetic", taus, scale=0.4))


def test_a_single_block_gets_alpha() -> None:
    spec = TensorSpec("w", (1,), torch.float32, "vector", 0, 1, "stem")
    assert Lines(alpha=0.25, beta=0.5).coefficient(spec) == 0.25


@pytest.mark.parametrize("method", [None, 3, {}, {"density": 0.2}, {"type": 5}])
def test_a_method_is_a_name_or_a_dict_with_a_type(method: Any) -> None:
    with pytest.raises(ValueError, match="lines: method is"):
        build("lines", method=method)


def test_an_unknown_method_suggests() -> None:
    with pytest.raises(ValueError, match="Did you mean 'ties'"):
        build("lines", method="tie")


def test_the_record_holds_what_builds_it_again() -> None:
    merger = build("lines", method={"type": "ties", "density": 0.5}, beta=0.1)
    assert merger.hyperparameters == {"method": {"type": "ties", "density": 0.5}, "alpha": None, "beta": 0.1}
