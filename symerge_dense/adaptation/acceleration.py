"""Options that change what a step costs and not what it computes: activation checkpointing, and torch.compile."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.models.blocks import repeated_blocks


def check_acceleration(backbone: nn.Module, options: SyMergeOptions) -> None:
    """Check that backbone and machine can do what the options ask for, before any work.

    Args:
        backbone: of the student.
        options: of the adaptation.

    Raises:
        ValueError: activation checkpointing of a backbone in which no block repeats, or torch compiles nothing here.
    """
    if options.activation_checkpointing and not repeated_blocks(backbone):
        raise ValueError(
            "adaptation.activation_checkpointing=True works on blocks that repeat, and this backbone has none; leave "
            "it at False."
        )
    if options.compile:
        try:
            torch.compile(torch.sin)(torch.zeros(1))
        except Exception as error:  # whatever its compilers raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ValueError(
                f"adaptation.compile=True, but torch.compile fails here ({reason[:200]}); install a C++ compiler, or "
                "leave it at False."
            ) from error


def accelerate(backbone: nn.Module, options: SyMergeOptions) -> None:
    """Make a backbone's steps take less memory or time, as the options say; ``restore`` undoes it.

    Args:
        backbone: of the student; its parameters may be replaced in every pass.
        options: of the adaptation.
    """
    if options.activation_checkpointing:
        for name in repeated_blocks(backbone):
            _forget_activations(backbone.get_submodule(name))
    if options.compile:
        backbone.compile()


def restore(backbone: nn.Module) -> None:
    """Undo ``accelerate``; does nothing where nothing was done.

    Args:
        backbone: as there.
    """
    backbone._compiled_call_impl = None
    for module in backbone.modules():
        if getattr(vars(module).get("forward"), "forgets", False):
            del module.forward


def _forget_activations(block: nn.Module) -> None:
    """Keep a block's inputs alone for backward, which computes the rest again.

    The second pass takes place when ``functional_call`` has put other weights back, so it is given those of the first.
    """
    forward = block.forward

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        weights, buffers, passes = dict(block.named_parameters()), dict(block.named_buffers()), itertools.count()

        def compute(*args: Any, **kwargs: Any) -> Any:
            again = next(passes) > 0
            kept = {name: value.clone() for name, value in buffers.items()} if again else buffers
            block.forward = forward
            try:
                return functional_call(block, weights | kept, args, kwargs)
            finally:
                block.forward = forgetful

        return checkpoint(compute, *args, use_reentrant=False, **kwargs)

    forgetful.forgets = True  # type: ignore[attr-defined]  # told apart from a forward that a network brings
    block.forward = forgetful
