"""The run around a merger: passes, scope, extras, seeds, lazy reading, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from symerge_dense.merging.base import Merger
from symerge_dense.merging.methods.average import Average
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.run import merge_state, run
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.testing.mergers import BASE, EXPERTS, SPECS


class Probe(Merger):
    """Uses everything the contract offers: two passes, a global norm, random numbers, extras, every treatment."""

    name: ClassVar[str] = "probe"
    needs: ClassVar[frozenset[str]] = frozenset({"fisher"})
    treats: ClassVar[Any] = {
        "matrix": "method",
        "conv": "method",
        "norm": "mean",
        "vector": "base",
        "embedding": "base",
    }
    passes = 2

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._seen: list[tuple[int, str]] = []
        self._norm, self._specs, self._tasks = 0.0, specs, tasks

    def observe(self, number: int, operands: Operands) -> None:
        self._seen.append((number, operands.spec.name))
        if number == 1:
            self._norm += sum(float(delta.square().sum()) for _, delta in operands.deltas())

    def end_pass(self, number: int) -> None:
        self._seen.append((number, "end"))

    def merge(self, operands: Operands) -> Tensor:
        noise = torch.rand(operands.base.shape, generator=operands.generator("depth"))
        weighted = sum(operands.extra("fisher", task) * delta for task, delta in operands.deltas())
        return operands.base + self.strength * (weighted / self._norm + noise)


FISHER = {
    "fisher": {
        task: {spec.name: torch.full(spec.shape, float(number)) for spec in SPECS}
        for number, task in enumerate(EXPERTS)
    }
}


def test_passes_scope_extras_and_seeds_reach_the_method() -> None:
    probe = Probe(strength=0.5)
    merged = merge_state(probe, BASE, EXPERTS, SPECS, extras=FISHER, seed=3)
    mine = [spec.name for spec in SPECS if spec.kind in ("matrix", "conv")]
    assert probe._seen == [*((0, name) for name in mine), (0, "end"), *((1, name) for name in mine), (1, "end")]
    assert probe._tasks == ("depth", "normals", "segmentation") and probe.hyperparameters == {"strength": 0.5}
    norm = sum(float((EXPERTS[t][name] - BASE[name]).square().sum()) for name in mine for t in EXPERTS)
    weighted = sum(n * (EXPERTS[t]["linear.weight"] - BASE["linear.weight"]) for n, t in enumerate(EXPERTS)) / norm
    noise = (merged["linear.weight"] - BASE["linear.weight"]) / 0.5 - weighted
    assert noise.min() > -1e-5 and noise.max() < 1 + 1e-5 and noise.std() > 0.1
    mean = torch.stack([state["bn.weight"] for state in EXPERTS.values()]).mean(0)
    torch.testing.assert_close(merged["bn.weight"], mean)
    for name in ("cls_token", "temperature", "conv3.bias", "table.weight"):
        assert torch.equal(merged[name], BASE[name])


def test_random_numbers_depend_on_seed_and_name_not_on_order() -> None:
    merged = merge_state(Probe(), BASE, EXPERTS, SPECS, extras=FISHER)
    backwards = dict(run(Probe(), BASE, EXPERTS, SPECS[::-1], extras=FISHER))
    assert torch.allclose(merged["conv3.weight"], backwards["conv3.weight"], atol=1e-6)
    other = merge_state(Probe(), BASE, EXPERTS, SPECS, extras=FISHER, seed=1)
    assert not torch.allclose(merged["conv3.weight"], other["conv3.weight"], atol=1e-2)
    operands = [Operands(TensorSpec(name, (), torch.float32, "vector"), torch.zeros(()), {}) for name in ("x", "y")]
    draws = {torch.rand(1, generator=one.generator(task)).item() for one in operands for task in ("a", "b")}
    assert len(draws) == 4


class Lazy(Mapping[str, Tensor]):
    """Counts how many tensors it was asked for."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state, self.asked = state, 0

    def __getitem__(self, name: str) -> Tensor:
        self.asked += 1
        return self.state[name]

    def __iter__(self) -> Any:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def test_tensors_are_read_when_their_turn_comes_and_once() -> None:
    expert = Lazy(EXPERTS["depth"])
    stream = run(TaskArithmetic(), BASE, {"depth": expert}, SPECS)
    layout = expert.asked  # the pre-flight looks at every tensor of a source that is no file
    for number in range(1, 4):
        next(stream)
        assert expert.asked - layout == number


def test_inputs_are_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="no expert"):
        run(Average(), BASE, {}, SPECS)
    with pytest.raises(ValueError, match=r"missing 'linear\.weight'"):
        run(Average(), BASE, {"a": {k: v for k, v in BASE.items() if k != "linear.weight"}}, SPECS)
    with pytest.raises(ValueError, match=r"specs and base differ in \['cls_token'\]"):
        run(Average(), BASE, EXPERTS, [spec for spec in SPECS if spec.name != "cls_token"])
    with pytest.raises(ValueError, match="fisher of depth"):
        run(Probe(), BASE, EXPERTS, SPECS)
    with pytest.raises(ValueError, match="one set of weights"):
        run(Average(), BASE, EXPERTS, SPECS, task="depth")


def test_broken_values_are_found_while_streaming() -> None:
    broken = {name: value.clone() for name, value in BASE.items()}
    broken["conv3.weight"][0, 0, 0, 0] = float("nan")
    stream = run(Average(), BASE, {"a": BASE, "depth": broken}, SPECS)
    with pytest.raises(ValueError, match=r"depth: tensor 'conv3\.weight'"):
        list(stream)


def test_results_beyond_the_range_of_half_precision_are_refused() -> None:
    base, expert = {"w": torch.zeros(2).half()}, {"w": torch.full((2,), 3e4).half()}
    with pytest.raises(ValueError, match=r"'w' exceeds the range of torch\.float16"):
        merge_state(TaskArithmetic(scale=9.0), base, {"a": expert})


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "0.3", None, True])
def test_a_scale_must_be_a_finite_number(scale: Any) -> None:
    with pytest.raises(ValueError, match="task_arithmetic: scale is"):
        TaskArithmetic(scale=scale)


class Selected(Merger):
    """A method that gives every task its own weights."""

    name: ClassVar[str] = "selected"
    per_task: ClassVar[bool] = True

    def merge(self, operands: Operands) -> Tensor:
        return dict(operands.experts())[operands.task or ""].clone()


def test_methods_with_weights_per_task() -> None:
    merged = merge_state(Selected(), BASE, EXPERTS, SPECS, task="depth")
    assert torch.equal(merged["linear.weight"], EXPERTS["depth"]["linear.weight"])
    with pytest.raises(ValueError, match="task is 'depht'"):
        merge_state(Selected(), BASE, EXPERTS, SPECS, task="depht")
