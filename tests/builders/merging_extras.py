"""What data-dependent mergers are given beside the weights, drawn at random: extras for methods with ``needs``."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from symerge_dense.merging.tensor_specs import TensorSpec, weights


def random_extras(
    needs: Collection[str], specs: Iterable[TensorSpec], tasks: Iterable[str], seed: int = 0
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """{what: {task: {tensor name: tensor}}}, the same for a task whichever other tasks there are.

    'fisher': non-negative, of the shape of every weight. 'gram': (n, n), n = inputs of a matrix or I * kh * kw of a
    convolution, symmetric positive semidefinite; rank-deficient where n > 4.
    """
    drawn: dict[str, dict[str, dict[str, Tensor]]] = {what: {} for what in needs}
    chosen = weights(specs)
    for what in needs:
        for task in tasks:
            generator = torch.Generator().manual_seed(sum(task.encode()) + 1000 * seed)
            drawn[what][task] = {
                spec.name: _DRAW[what](spec, generator)
                for spec in chosen
                if what == "fisher" or spec.kind in ("matrix", "conv")
            }
    return drawn


def _fisher(spec: TensorSpec, generator: torch.Generator) -> Tensor:
    return torch.rand(spec.shape, generator=generator)


def _gram(spec: TensorSpec, generator: torch.Generator) -> Tensor:
    inputs = torch.randn(4, math.prod(spec.shape[1:]), generator=generator)
    return inputs.T @ inputs / 4


_DRAW = {"fisher": _fisher, "gram": _gram}
