"""Sharpness-aware steps against a computation by hand, and what they leave as it was."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from symerge_dense.engine.optim_wrapper import (
    SHARP,
    Bf16OptimWrapper,
    ParameterGroupsConstructor,
    SharpAmpOptimWrapper,
    SharpBf16OptimWrapper,
    SharpOptimWrapper,
    wrapper_type,
)
from symerge_dense.engine.sharpness import ETA, SharpnessAware
from symerge_dense.models.training import NonFiniteLoss, TrainableModel

RHO, RATE = 0.5, 0.1


class Bowl(TrainableModel):
    """Two parameters of different size in a bowl of different curvature; the noise is another in every pass."""

    sharpness = RHO

    def __init__(self, noise: float = 0.0, limit: float = 1e9) -> None:
        super().__init__()
        self.large, self.small = nn.Parameter(torch.tensor([0.4, -0.8])), nn.Parameter(torch.tensor([0.02]))
        self.noise, self.limit, self.passes = noise, limit, 0

    def forward(self, scale, mode="loss"):
        self.passes += 1
        bowl = (self.large.square().sum() + 50 * self.small.square().sum()) * scale / 2
        bowl = bowl * (1 + self.noise * torch.rand(()))
        return {"loss_depth": torch.where(bowl > self.limit, float("nan"), bowl)}

    def parameter_groups(self):
        return [{"params": [self.large], "lr": RATE}, {"params": [self.small], "lr": RATE}]


def wrapped(model, kind="OptimWrapper", **options):
    made = ParameterGroupsConstructor({"type": kind, "optimizer": {"type": "SGD", "lr": RATE}, **options})(model)
    assert isinstance(made, SharpnessAware)
    return made


def step(model, wrapper, scale=1.0):
    with wrapper.optim_context(model):
        losses = model(torch.tensor(scale), mode="loss")
    total, logs = model.parse_losses(losses)
    wrapper.update_params(total)
    return logs["loss"]


def by_hand(weights, scale=1.0):
    """w - lr * gradient at w + rho T^2 g / |T g|, T = |w| + eta, in float64; the gradient is curvature * w."""
    w, curvature = torch.tensor(weights, dtype=torch.float64), torch.tensor([1.0, 1, 50], dtype=torch.float64) * scale
    size, gradient = w.abs() + ETA, curvature * w
    shift = RHO * size**2 * gradient / (size * gradient).norm()
    return w - RATE * curvature * (w + shift)


def test_a_step_follows_the_gradient_at_the_shifted_point():
    model = Bowl()
    loss = step(model, wrapped(model))
    found = torch.cat([model.large, model.small]).detach().double()
    torch.testing.assert_close(found, by_hand([0.4, -0.8, 0.02]), rtol=1e-5, atol=1e-7)
    assert model.passes == 2 and loss.item() == pytest.approx((0.16 + 0.64 + 50 * 4e-4) / 2)  # where it stands
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_second_pass_has_the_random_numbers_of_the_first():
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        model = Bowl(noise=1.0)
        step(model, wrapped(model))
        runs.append((model.large.detach().clone(), torch.rand(())))
    torch.manual_seed(3)
    factor = 1 + float(torch.rand(()))
    torch.testing.assert_close(runs[0][0].double(), by_hand([0.4, -0.8, 0.02], factor)[:2], rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True)) and runs[0][1] == torch.rand(())


def test_a_model_that_asks_itself_on_the_way_is_repeated_as_a_whole():
    class Asks(Bowl):
        def forward(self, scale, mode="loss"):
            if mode == "tensor":
                return scale
            return super().forward(self(scale, mode="tensor"), mode)

    model = Asks()
    step(model, wrapped(model))
    found = torch.cat([model.large, model.small]).detach().double()
    torch.testing.assert_close(found, by_hand([0.4, -0.8, 0.02]), rtol=1e-5, atol=1e-7)


def test_a_loss_nearby_that_is_not_finite_leaves_the_parameters_to_the_bit():
    model = Bowl(limit=0.5)  # it stands at 0.41, and the shifted point is higher
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(NonFiniteLoss, match="depth"):
        step(model, wrapped(model))
    assert model.passes == 2
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_without_a_gradient_there_is_no_second_pass():
    model = Bowl()
    before = model.large.detach().clone()
    step(model, wrapped(model), scale=0.0)
    assert model.passes == 1 and torch.equal(model.large, before)


def test_bfloat16_is_on_in_both_passes():
    seen = []

    class Looks(Bowl):
        def forward(self, scale, mode="loss"):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(scale, mode)

    model = Looks()
    step(model, wrapped(model, "Bf16OptimWrapper"))
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("kind", "sharp"),
    [
        ("OptimWrapper", SharpOptimWrapper),
        (OptimWrapper, SharpOptimWrapper),
        (Bf16OptimWrapper, SharpBf16OptimWrapper),
        ("SharpOptimWrapper", SharpOptimWrapper),
    ],
)
def test_the_constructor_takes_the_sharp_form_of_a_wrapper(kind, sharp):
    assert type(wrapped(Bowl(), kind)) is sharp
    plain = Bowl()
    plain.sharpness = 0.0
    if not isinstance(kind, str) or "Sharp" not in kind:
        made = ParameterGroupsConstructor({"type": kind, "optimizer": {"type": "SGD", "lr": RATE}})(plain)
        assert not isinstance(made, SharpnessAware)


def test_what_has_no_sharp_form_is_refused_with_the_remedy():
    class Own(OptimWrapper):
        pass

    with pytest.raises(ValueError, match=r"has no sharpness-aware form; use one of OptimWrapper, .*or sharpness=0"):
        wrapped(Bowl(), Own)
    with pytest.raises(ValueError, match=r"accumulative_counts=2 with sharpness=0\.5"):
        wrapped(Bowl(), accumulative_counts=2)
    model = Bowl()
    with pytest.raises(RuntimeError, match="within optim_context"):
        wrapped(model).update_params(model.large.sum())


def test_mixed_precision_on_cuda_has_its_form_too():
    assert SHARP[AmpOptimWrapper] is SharpAmpOptimWrapper and issubclass(SharpAmpOptimWrapper, AmpOptimWrapper)


@pytest.mark.parametrize(
    ("cuda", "bf16", "kind"),
    [(False, False, Bf16OptimWrapper), (True, True, Bf16OptimWrapper), (True, False, AmpOptimWrapper)],
)
def test_mixed_precision_is_bfloat16_where_the_device_computes_in_it(cuda, bf16, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert wrapper_type(True) == kind.__name__ and wrapper_type(False) == "OptimWrapper"
