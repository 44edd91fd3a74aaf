"""Options of a step's cost: the same gradients from fewer kept bytes, and a compiler that is missing is told early."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny, state
from torch import Tensor, nn
from torch.func import functional_call

from symerge_dense.adaptation.acceleration import accelerate, check_acceleration, restore
from symerge_dense.adaptation.options import SyMergeOptions, make_options
from symerge_dense.models.backbone import TimmBackbone

SAVING = make_options(activation_checkpointing=True)


def gradients_and_kept(backbone: nn.Module, options: SyMergeOptions) -> tuple[list[Tensor], list[Tensor], int]:
    """Gradients of weights that stand in for the backbone's, its buffers after the step, and the bytes kept for it."""
    accelerate(backbone, options)
    weights = {name: (value.detach() * 1.1).requires_grad_() for name, value in backbone.named_parameters()}
    held = {value.untyped_storage().data_ptr() for value in weights.values()}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        total = torch.stack([level.square().mean() for level in functional_call(backbone, weights, (image,))]).sum()
    total.backward()
    restore(backbone)
    gradients = [value.grad for value in weights.values() if value.grad is not None]  # not of what no level shows
    return gradients, [value.clone() for value in backbone.buffers()], sum(kept.values())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "share"),
    [("resnet26t", 0.6), ("test_vit", 0.4), ("test_convnext", 0.8), ("mobilenetv3_small_050", 0.8)],
)
def test_gradients_are_the_same_from_fewer_bytes(name: str, share: float, training: bool) -> None:
    size = {"img_size": (64, 64)} if "vit" in name else {}
    found = []
    for options in (make_options(), SAVING):
        torch.manual_seed(1)
        backbone = TimmBackbone(name, **size).train(training)
        found.append(gradients_and_kept(backbone, options))
        assert not any("forward" in vars(module) for module in backbone.modules()), "restore leaves nothing behind"
    (plain, buffers, kept), (saving, own_buffers, less) = found
    assert plain and all(torch.equal(*pair) for pair in zip(plain, saving, strict=True))
    assert all(torch.equal(*pair) for pair in zip(buffers, own_buffers, strict=True)), "statistics are taken once"
    assert less < share * kept


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_an_adaptation_ends_alike_to_the_bit(statistics: str, tmp_path: Path) -> None:
    ends = [
        state(adapt_tiny(tmp_path / str(saves), rounds=4, statistics=statistics, activation_checkpointing=saves)[0])
        for saves in (False, True)
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_what_cannot_be_done_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"exclude each other; set one to False"):
        make_options(activation_checkpointing=True, compile=True)
    with pytest.raises(ValueError, match=r"blocks that repeat, and this backbone has none"):
        check_acceleration(nn.Sequential(nn.Conv2d(3, 4, 3)), SAVING)

    def without_compiler(work: object) -> object:
        raise RuntimeError("no working C++ compiler found\nin six places")

    monkeypatch.setattr(torch, "compile", without_compiler)
    with pytest.raises(ValueError, match=r"torch.compile fails here \(no working C\+\+ compiler found\); install"):
        check_acceleration(tiny.backbone(), make_options(compile=True))
    check_acceleration(tiny.backbone(), make_options())


def test_a_traced_adaptation_differs_by_rounding_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The program that torch traces, forward and backward, run without a C++ compiler: compiling takes half a minute.
    compiler, given = functools.partial(torch.compile, backend="aot_eager"), list[Any]()
    monkeypatch.setattr(torch, "compile", lambda work, **_: given.append(work) or compiler(work))
    eager, traced = (state(adapt_tiny(tmp_path / str(on), rounds=2, compile=on)[0]) for on in (False, True))
    assert eager and len(given) > 1, "a trial, and the backbone"
    for name, value in eager.items():
        torch.testing.assert_close(traced[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: name + text)


def test_rounded_task_vectors_end_near(tmp_path: Path) -> None:
    exact, rounded = (
        adapt_tiny(tmp_path / kind, rounds=4, coefficient_lr=1e-2, task_vector_dtype=kind)[0].merge
        for kind in ("float32", "bfloat16")
    )
    assert rounded.vectors.nbytes * 2 == exact.vectors.nbytes
    torch.testing.assert_close(rounded.coefficients, exact.coefficients, rtol=0, atol=5e-3)
