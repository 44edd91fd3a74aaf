"""The mean of what learns over the last part of a run, which takes its place in the merged model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from symerge_dense.adaptation.options import SyMergeOptions


class WeightAverage(nn.Module):
    """A running mean of parameters, in buffers, so that checkpoints keep it and a resumed run goes on with it.

    The n-th state enters with weight max(1 / n, 1 - decay). So ``decay=1`` gives all states the same weight (stochastic
    weight averaging, Izmailov et al. 2018, https://arxiv.org/abs/1803.05407). With a smaller one it is the mean of all
    states at first and an exponential moving average from n = 1 / (1 - decay) on: an average that began with the first
    state alone would keep it for long.

    Args:
        parameters: {name: parameter}.
        decay: in [0, 1].
        start: share of the run at which the mean begins.
    """

    count: Tensor

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, start: float = 0.0) -> None:
        super().__init__()
        self.decay, self.start = decay, start
        self.exchanged = False  # whether the parameters hold the mean, and the buffers what they held
        self._learned = {name.replace(".", "/"): parameter for name, parameter in parameters.items()}
        for name, parameter in self._learned.items():
            self.register_buffer(name, parameter.detach().clone())
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def begun(self) -> bool:
        """Whether there is a mean."""
        return bool(self.count > 0)

    @property
    def means(self) -> dict[str, Tensor]:
        """{name of a parameter: its mean}; before there is one, its first value."""
        return {name.replace("/", "."): self.get_buffer(name) for name in self._learned}

    def after_step(self, iteration: int, steps: int) -> None:
        """Update the mean, if the run has come so far; the last step always counts.

        Args:
            iteration: number of the step, from 0.
            steps: of the run.
        """
        if iteration >= min(int(self.start * steps), steps - 1):
            self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Let the parameters' present values enter the mean."""
        self.count += 1
        weight = max(1.0 / int(self.count), 1.0 - self.decay)
        means = [self.get_buffer(name) for name in self._learned]
        torch._foreach_lerp_(means, list(self._learned.values()), weight)

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange mean and parameters; a second call exchanges them back."""
        for name, parameter in self._learned.items():
            mean = self.get_buffer(name)
            self._buffers[name], parameter.data = parameter.data, mean
        self.exchanged = not self.exchanged


def average_of(model: nn.Module, options: SyMergeOptions) -> WeightAverage:
    """The average of all that learns.

    Args:
        model: its parameters with ``requires_grad`` learn.
        options: ``averaging`` ('ema' or 'swa'), ``averaging_decay`` and ``averaging_start`` matter.
    """
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return WeightAverage(
        learned, 1.0 if options.averaging == "swa" else options.averaging_decay, options.averaging_start
    )
