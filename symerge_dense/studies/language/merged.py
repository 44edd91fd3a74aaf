"""SyMerge of encoders of any kind: coefficients by ``LayerwiseMerge``, and a layer behind it, learned together.

SyMerge, https://arxiv.org/abs/2412.19098. Nothing here knows of text: an encoder is a module that maps a batch to
features, and a head is the layer that learns. What an image needs beside it (views, BatchNorm) is not there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from symerge_dense.adaptation.objective import logarithms
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.tensor_specs import tensor_specs
from symerge_dense.studies.language.encoder import Recipe, batches

USED = (
    "granularity",
    "singular_rank",
    "initial",
    "clamp",
    "learn_coefficients",
    "learn_layer",
    "coefficient_lr",
    "layer_lr",
    "weight_decay",
    "rounds",
    "batch_size",
    "objective",
    "soft",
    "balance",
)
"""Options of the adaptation that mean something without images; rates fall to 0 by a cosine."""


class Expert(NamedTuple):
    """An encoder that was fine-tuned for one task, and its head.

    Args:
        encoder: a batch to features.
        head: features to logits (N,classes).
    """

    encoder: nn.Module
    head: nn.Module


def adapt(
    base: nn.Module, experts: Mapping[str, Expert], inputs: Tensor, options: SyMergeOptions, seed: int
) -> dict[str, Expert]:
    """Learn merging coefficients and heads on unlabelled inputs, from the experts' own predictions.

    Args:
        base: what the experts' encoders were fine-tuned from.
        experts: {task: expert}.
        inputs: unlabelled, (N, ...); a batch is a part of them.
        options: of the adaptation; those of ``USED`` matter.
        seed: of the batches.

    Returns:
        {task: the merged encoder, which all share, with the task's head}.
    """
    with torch.no_grad():
        wanted = {task: one.head(one.encoder(inputs)) for task, one in experts.items()}
    heads = nn.ModuleDict({task: copy.deepcopy(one.head) for task, one in experts.items()})
    origin = {name: value.detach() for name, value in base.named_parameters()}
    specs = [spec for spec in tensor_specs(base) if spec.name in origin]
    fixed = not options.learn_coefficients  # all alike: one number says as much
    granularity = "tensor" if fixed else options.granularity
    merge = LayerwiseMerge(specs, list(experts), granularity, options.initial, options.clamp, options.singular_rank)
    merge.attach(origin, {task: dict(one.encoder.named_parameters()) for task, one in experts.items()})
    merge.requires_grad_(options.learn_coefficients)
    heads.requires_grad_(options.learn_layer)
    coefficients = {"params": list(merge.parameters()), "lr": options.coefficient_lr}
    layers = {"params": list(heads.parameters()), "lr": options.layer_lr, "weight_decay": options.weight_decay}
    learned = [(coefficients, options.learn_coefficients), (layers, options.learn_layer)]
    optimizer = torch.optim.Adam([group for group, on in learned if on])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.rounds)
    for batch in batches(len(inputs), Recipe(options.rounds, options.batch_size), seed):
        features = functional_call(base, merge(origin), (inputs[batch],))
        losses = {task: _loss(heads[task](features), logits[batch], options) for task, logits in wanted.items()}
        balanced = logarithms(losses) if options.balance == "log" else losses
        optimizer.zero_grad()
        torch.stack(list(balanced.values())).sum().backward()
        optimizer.step()
        schedule.step()
        merge.project_()
    with torch.no_grad():
        encoder = placed(base, merge(origin))
    return {task: Expert(encoder, heads[task]) for task in experts}


def placed(base: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of an encoder with other weights.

    Args:
        base: the encoder.
        state: its parameters; buffers may be left out.
    """
    encoder = copy.deepcopy(base)
    encoder.load_state_dict({**base.state_dict(), **state})
    return encoder


def _loss(output: Tensor, expert_output: Tensor, options: SyMergeOptions) -> Tensor:
    """Cross-entropy from the expert's distribution, or class; or the entropy of one's own."""
    own = output.log_softmax(1)
    if options.objective == "entropy":
        target = own.exp()
    elif options.soft:
        target = expert_output.softmax(1)
    else:
        target = nn.functional.one_hot(expert_output.argmax(1), expert_output.shape[1]).to(own)
    return -(target * own).sum(1).mean()
