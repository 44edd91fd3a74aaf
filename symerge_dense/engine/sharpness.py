"""Sharpness-aware minimisation: every step follows the gradient at the worst point nearby.

Foret et al. 2021, https://arxiv.org/abs/2010.01412; its adaptive form, Kwon et al. 2021,
https://arxiv.org/abs/2102.11600, eq. 9: w moves to w + rho T^2 g / |T g| with T = |w| + eta. In that form the
neighbourhood of a parameter grows with its size, so one rho serves merging coefficients near 0.3 and weights near 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

ETA = 0.01  # the paper's: parameters at 0 have a neighbourhood too


class SharpnessAware(OptimWrapper):
    """A step of two passes over one batch, the second from the perturbed parameters; their moves are undone exactly.

    The model's call is noted within ``optim_context`` and repeated, with the same random numbers, so that any model of
    MMEngine works, also inside DistributedDataParallel, where all processes have the same gradient and perturbation.

    Args:
        sharpness: rho, the radius of the neighbourhood.
        **options: of MMEngine's wrapper.

    Raises:
        ValueError: gradients are to be accumulated over several steps.
    """

    def __init__(self, sharpness: float, **options: Any) -> None:
        if options.get("accumulative_counts", 1) != 1:
            raise ValueError(
                f"accumulative_counts={options['accumulative_counts']} with sharpness={sharpness:g}: the second pass "
                "repeats one batch; use accumulative_counts=1, or sharpness=0."
            )
        super().__init__(**options)
        self.sharpness = sharpness
        self._repeat: Callable[[], Tensor] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """MMEngine's context, in which the model's call is noted.

        Args:
            model: as in MMEngine's ``OptimWrapper``; a call in mode 'loss' returns what its ``parse_losses`` reads.
        """
        context = super().optim_context
        owner: Any = model.module if is_model_wrapper(model) else model

        def note(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._repeat is not None:
                return  # a call within the call: a teacher made of the student
            state, cuda = torch.get_rng_state(), torch.cuda.is_initialized()
            device_state = torch.cuda.get_rng_state() if cuda else None

            def repeat() -> Tensor:
                torch.set_rng_state(state)
                if device_state is not None:
                    torch.cuda.set_rng_state(device_state)
                with context(model):
                    losses = model(*args, **kwargs)
                total: Tensor = owner.parse_losses(losses)[0]
                return total

            self._repeat = repeat

        self._repeat = None
        handle = model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            with context(model):
                yield
        finally:
            handle.remove()

    def update_params(
        self, loss: Tensor, step_kwargs: dict[str, Any] | None = None, zero_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Both passes and the step.

        Args:
            loss: at the parameters as they are.
            step_kwargs: of ``step``.
            zero_kwargs: of ``zero_grad``.

        Raises:
            RuntimeError: the loss was not computed within ``optim_context``.
            NonFiniteLoss: the loss nearby is not finite; the parameters are as before.
        """
        repeat, self._repeat = self._repeat, None
        if repeat is None:
            raise RuntimeError("compute the loss within optim_context(model): the second pass repeats that call.")
        self.backward(self.scale_loss(loss))
        shifts = self._ascent()
        if shifts:  # a gradient of 0 or infinity has no direction; a gradient scaler skips the latter
            self.zero_grad(**(zero_kwargs or {}))
            with _moved(shifts):
                total = repeat()
                if total.requires_grad:
                    self.backward(self.scale_loss(total))
        self.step(**(step_kwargs or {}))
        self.zero_grad(**(zero_kwargs or {}))

    @torch.no_grad()
    def _ascent(self) -> list[tuple[nn.Parameter, Tensor]]:
        """(parameter, shift) to where the loss grows fastest; a gradient scaler's factor cancels."""
        groups = self.optimizer.param_groups
        learned = [p for group in groups for p in group["params"] if p.grad is not None]
        sizes = [p.abs() + ETA for p in learned]
        scaled = [p.grad * size for p, size in zip(learned, sizes, strict=True)]
        norm = torch.stack([torch.linalg.vector_norm(g) for g in scaled]).norm() if scaled else torch.zeros(())
        if not 0 < float(norm) < float("inf"):
            return []
        return [(p, g * size * (self.sharpness / norm)) for p, g, size in zip(learned, scaled, sizes, strict=True)]


@contextmanager
def _moved(shifts: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Parameters moved by their shifts, and back to the bit."""
    kept = [(parameter, parameter.detach().clone()) for parameter, _ in shifts]
    with torch.no_grad():
        for parameter, shift in shifts:
            parameter.add_(shift)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)
