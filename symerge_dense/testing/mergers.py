"""The contracts of a static merging method. Each takes a function without arguments that builds the merger."""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from symerge_dense.merging.base import Merger
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.sources import SafetensorsSource
from symerge_dense.merging.tensor_specs import WEIGHT_KINDS, TensorSpec, tensor_specs, weights
from symerge_dense.testing.contract import Skipped, expect

State = Mapping[str, Tensor]
MergerBuilder = Callable[[], Merger]


class ExampleNet(nn.Module):
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


def example_state(seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    """Weights of ``ExampleNet``.

    Args:
        seed: of the values, and the value of the counter.
        spread: of the noise on them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = {name: value.clone() for name, value in ExampleNet().state_dict().items()}
        for name, value in state.items():
            if value.is_floating_point():
                value += spread * torch.randn_like(value)
            if name.endswith("running_var"):
                value.abs_().add_(0.1)
    state["bn.num_batches_tracked"].fill_(seed)
    return state


SPECS = tensor_specs(ExampleNet())
BASE = example_state(100)
EXPERTS = {task: example_state(number) for number, task in enumerate(("segmentation", "depth", "normals"))}


def random_extras(
    needs: Collection[str], specs: Iterable[TensorSpec], tasks: Iterable[str], seed: int = 0
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """What data-dependent mergers are given beside the weights, drawn at random; the same for a task among any others.

    Args:
        needs: 'fisher': non-negative, of the shape of every weight. 'gram', 'merged_gram': (n, n), n = inputs of a
            matrix or I * kh * kw of a convolution, symmetric positive semidefinite; rank-deficient where n > 4.
        specs: of the tensors.
        tasks: names of the experts.
        seed: of the values.

    Returns:
        ``{what: {task: {tensor name: tensor}}}``.
    """
    draw = {"fisher": _fisher, "gram": _gram, "merged_gram": _gram}
    unknown = sorted(set(needs) - set(draw))
    if unknown:
        raise Skipped(f"it needs {unknown}, which cannot be made up here")
    drawn: dict[str, dict[str, dict[str, Tensor]]] = {what: {} for what in needs}
    chosen = weights(specs)
    for what in needs:
        for task in tasks:
            generator = torch.Generator().manual_seed(sum(task.encode()) + 1000 * seed)
            fitting = [spec for spec in chosen if what == "fisher" or spec.kind in ("matrix", "conv")]
            drawn[what][task] = {spec.name: draw[what](spec, generator) for spec in fitting}
    return drawn


def _fisher(spec: TensorSpec, generator: torch.Generator) -> Tensor:
    return torch.rand(spec.shape, generator=generator)


def _gram(spec: TensorSpec, generator: torch.Generator) -> Tensor:
    inputs = torch.randn(4, math.prod(spec.shape[1:]), generator=generator)
    return inputs.T @ inputs / 4


def merge(merger: Merger, base: Any, experts: Mapping[str, Any], **options: Any) -> dict[str, Tensor]:
    """Merge states of ``ExampleNet``, with all that the method needs.

    Args:
        merger: the method.
        base: a state, or a source of one.
        experts: {task: state, or source of one}.
        **options: of ``merge_state``.
    """
    if merger.per_task:
        options["task"] = min(experts)
    if merger.needs:
        options["extras"] = random_extras(merger.needs, SPECS, experts)
    return merge_state(merger, base, experts, SPECS, **options)


def same(a: State, b: State) -> bool:
    """Whether two states have the same names, types and values, bit for bit.

    Args:
        a: one.
        b: the other.
    """
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def check_description(build: MergerBuilder) -> None:
    """It says what each kind of tensor gets and which paper it is from, and keeps its constructor's arguments."""
    merger = build()
    fits = set(merger.treats) == WEIGHT_KINDS and set(merger.treats.values()) <= {"method", "mean", "base"}
    expect(
        fits, f"treats is {dict(merger.treats)}; give 'method', 'mean' or 'base' for each of {sorted(WEIGHT_KINDS)}."
    )
    text = importlib.import_module(type(merger).__module__).__doc__ or ""
    expect("https://" in text, "the docstring of its module has no https:// address of a paper or page.")
    again = type(merger)(**merger.hyperparameters).hyperparameters
    expect(
        again == merger.hyperparameters, "built again from `hyperparameters` it has others; keep arguments as given."
    )


def check_result_fits(build: MergerBuilder) -> None:
    """Names, shapes, types and inputs are kept; the result is finite and has memory of its own."""
    before = {name: value.clone() for name, value in BASE.items()}
    merged = merge(build(), BASE, EXPERTS)
    expect(same(before, BASE), "the base is changed; no operation in place on what `operands` gives.")
    expect(list(merged) == list(BASE), "tensors are missing, or in another order.")
    inputs = {value.data_ptr() for state in (BASE, *EXPERTS.values()) for value in state.values()}
    for name, value in merged.items():
        fits = value.shape == BASE[name].shape and value.dtype == BASE[name].dtype
        expect(fits, f"{name} is {value.dtype} {tuple(value.shape)} instead of {tuple(BASE[name].shape)}.")
        expect(value.data_ptr() not in inputs, f"{name} is the memory of an input; return a copy.")
        expect(value.isfinite().all(), f"{name} has values that are not finite.")
    expect(merged["bn.num_batches_tracked"].item() == 100, "the counter of batches is not the base's.")


def check_order_of_experts(build: MergerBuilder) -> None:
    """The order in which experts are given does not matter."""
    turned = merge(build(), BASE, dict(reversed(EXPERTS.items())))
    expect(same(merge(build(), BASE, EXPERTS), turned), "experts in another order give other weights.")


def check_nothing_learned(build: MergerBuilder) -> None:
    """Experts that equal the base give the base."""
    merged = merge(build(), BASE, dict.fromkeys("abc", BASE), statistics="pretrained")
    expect(same(merged, BASE), "task vectors of zeros give another network than the base.")


def check_streaming(build: MergerBuilder) -> None:
    """Files, read tensor by tensor, give what weights in memory give."""
    with tempfile.TemporaryDirectory() as folder:
        sources = {}
        for task, state in {"base": BASE, **EXPERTS}.items():
            save_file(dict(state), Path(folder, f"{task}.safetensors"))
            sources[task] = SafetensorsSource(Path(folder, f"{task}.safetensors"))
        base = sources.pop("base")
        for statistics in ("pretrained", "mean", "moments"):
            streamed = merge(build(), base, sources, statistics=statistics)
            in_memory = merge(build(), BASE, EXPERTS, statistics=statistics)
            expect(same(streamed, in_memory), f"with statistics={statistics!r} files give other weights.")


def check_repeated(build: MergerBuilder) -> None:
    """One merger can be used again: nothing is left of the run before."""
    merger = build()
    first = merge(merger, BASE, EXPERTS)
    merge(merger, EXPERTS["depth"], {"a": BASE})
    expect(same(merge(merger, BASE, EXPERTS), first), "the second merge differs; forget former runs in `begin`.")


def check_half_precision(build: MergerBuilder) -> None:
    """Weights in bfloat16 are merged in float32 and rounded once."""

    def cast(state: State, dtype: torch.dtype) -> dict[str, Tensor]:
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}

    base = cast(BASE, torch.bfloat16)
    experts = {task: cast(state, torch.bfloat16) for task, state in EXPERTS.items()}
    wide = {task: cast(state, torch.float32) for task, state in experts.items()}
    merged = merge(build(), cast(base, torch.float32), wide)
    narrow = merge(build(), base, experts)
    expect(same(narrow, cast(merged, torch.bfloat16)), "rounded inputs give more than a rounded result.")


MERGER_CHECKS = (
    check_description,
    check_result_fits,
    check_order_of_experts,
    check_nothing_learned,
    check_streaming,
    check_repeated,
    check_half_precision,
)
"""The contracts of a static merging method."""
