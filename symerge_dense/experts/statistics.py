"""Statistics of experts for Fisher merging and RegMean, collected on unlabelled images.

Fisher (Matena and Raffel 2022, https://arxiv.org/abs/2111.09832): the diagonal
F = E_x E_{y~p(y|x)} [(d log p(y|x) / d theta)^2], one backward pass per image. y is drawn from the expert's own
prediction: a class per pixel, or, where it predicts a number, the prediction plus Gaussian noise of variance 1.
Gram (RegMean, Jin et al. 2023, https://arxiv.org/abs/2212.09849): G = X^T X of the inputs X of every linear layer and,
patch by patch, of every convolution. RegMean++ (Nguyen et al. 2026, https://arxiv.org/abs/2508.03121) takes X from
networks in which everything before the layer's block is merged already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from symerge_dense.models.batchnorm import batch_statistics, batchnorms
from symerge_dense.models.modes import NotReachedError, left_alone, output_at
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.progress import track
from symerge_dense.registry import did_you_mean

SAMPLED = frozenset({"fisher"})  # statistics that depend on the seed
LARGEST_GRAM = 4608  # inputs of a layer, 85 MB; the Gram matrix of a larger layer is not collected
Statistics = dict[str, dict[str, Tensor]]


def collect(what: str, experts: Mapping[str, MultiTaskModel], batches: Sequence[Tensor], seed: int = 0) -> Statistics:
    """One statistic of every expert; the experts stay as they are.

    Args:
        what: 'fisher' or 'gram'.
        experts: {task: expert}.
        batches: images, each batch (N,3,H,W) in 0..255.
        seed: of the draws of 'fisher'.

    Returns:
        {task: {backbone tensor name: statistic}}. 'fisher' has every parameter; 'gram' has the weights of linear layers
        and of convolutions with one group and zero padding, each of at most ``LARGEST_GRAM`` inputs.

    Raises:
        ValueError: another ``what``.
    """
    rules: dict[str, Callable[[str, MultiTaskModel, Sequence[Tensor], int], dict[str, Tensor]]] = {
        "fisher": _fisher,
        "gram": _gram,
    }
    if what not in rules:
        raise ValueError(did_you_mean(what, rules, "statistic of an expert"))
    with left_alone(experts.values()):
        return {task: rules[what](task, expert.eval(), batches, seed) for task, expert in experts.items()}


@torch.no_grad()
def merged_grams(
    experts: Mapping[str, MultiTaskModel],
    batches: Sequence[Tensor],
    blocks: Mapping[str, Collection[str]],
    merge: Callable[[Collection[str], Statistics], Mapping[str, Tensor]],
) -> Statistics:
    """Gram matrices of every expert's layers on features of the merged network (RegMean++), block after block.

    In a network that starts as the merge without statistics, a block's weights are replaced by each expert's in turn,
    the inputs of its layers are collected, and the block is merged with them before the next one's turn. BatchNorm
    normalises with the batch: no expert's running statistics fit merged features. Each pass ends with its block, so
    that all of them cost about half a pass per block and expert.

    Args:
        experts: {task: expert}, which stay as they are.
        batches: images, each batch (N,3,H,W) in 0..255.
        blocks: {block: names of its tensors} of the backbone, in forward order, together all of its tensors.
        merge: gives the merged tensors of these names from the statistics found so far.

    Returns:
        {task: {name of a weight: Gram matrix}}, of the layers that ``collect('gram', ...)`` has.
    """
    states = {task: expert.backbone.state_dict() for task, expert in experts.items()}
    found: Statistics = {task: {} for task in experts}
    with left_alone(experts.values()):
        first = next(iter(experts.values()))
        network = assemble(first.backbone, experts).to(next(first.parameters()).device)
    network.backbone.load_state_dict(dict(merge(list(next(iter(states.values()))), found)))
    layers = _matrices(network)
    with batch_statistics(network, batchnorms(network)):
        for block, names in track(list(blocks.items()), "Gram matrices behind merged blocks"):
            own = {name: layers[name] for name in names if name in layers}
            if not own:
                continue
            for task, state in states.items():
                network.backbone.load_state_dict({name: state[name] for name in names}, strict=False)
                found[task] |= _grams(own, partial(_up_to, network, block), batches)
            network.backbone.load_state_dict(dict(merge(names, found)), strict=False)
    return found


def _up_to(network: MultiTaskModel, block: str, batch: Tensor) -> None:
    """Run the backbone until the block has put out something; to the end where the block is no module."""
    module = dict(network.backbone.named_modules()).get(block)
    if module is None:
        network.features(batch)
        return
    with suppress(NotReachedError):  # without inputs it has no Gram matrix, and is averaged
        output_at(module, lambda: network.features(batch))


def log_likelihood(expert: MultiTaskModel, task: str, output: Tensor, generator: torch.Generator) -> Tensor:
    """log p(y | x), up to a constant, of one draw y from the expert's own prediction, summed over pixels.

    The prediction is a distribution over classes, the probability of a single class, or the mean of a Gaussian.

    Args:
        expert: the expert.
        task: one of its tasks.
        output: its raw output (N,C,h,w).
        generator: of the draw.

    Returns:
        A scalar, differentiable in ``output``.
    """
    if expert.tasks[task].entropy(output.detach()) is None:
        noise = torch.randn(output.shape, generator=generator).to(output)
        return -0.5 * (output - (output.detach() + noise)).square().sum()
    if output.shape[1] == 1:
        probability = output.detach().sigmoid()
        drawn = (torch.rand(output.shape, generator=generator).to(output) < probability).to(output)
        return -F.binary_cross_entropy_with_logits(output, drawn, reduction="sum")
    logits = rearrange(output, "n classes h w -> (n h w) classes")
    drawn = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator)[:, 0].to(output.device)
    return -F.cross_entropy(logits, drawn, reduction="sum")


def _fisher(task: str, expert: MultiTaskModel, batches: Sequence[Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {name: weight.detach().requires_grad_() for name, weight in expert.backbone.named_parameters()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    named = {f"backbone.{name}": weight for name, weight in weights.items()}
    images = [image for batch in batches for image in batch.split(1)]  # a batch's summed gradient has cross terms
    for image in track(images, f"Fisher information of expert {task}"):
        with torch.enable_grad():
            output = functional_call(expert, named, (image,), {"mode": "tensor"})[task]
            likelihood = log_likelihood(expert, task, output, generator)
            gradients = torch.autograd.grad(likelihood, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
    return {name: value / max(len(images), 1) for name, value in total.items()}


@torch.no_grad()
def _gram(task: str, expert: MultiTaskModel, batches: Sequence[Tensor], seed: int) -> dict[str, Tensor]:
    layers = _matrices(expert)
    return _grams(layers, expert.features, track(batches, f"Gram matrices of expert {task}"))


def _matrices(network: MultiTaskModel) -> dict[str, nn.Module]:
    """{name of the weight: layer} of the backbone's layers that have a Gram matrix."""
    return {f"{name}.weight": layer for name, layer in network.backbone.named_modules() if _is_matrix(layer)}


def _grams(
    layers: Mapping[str, nn.Module], run: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """{name: X^T X} of the inputs X that layers get while ``run`` sees every batch."""
    grams: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(_observer(name, grams)).remove)
        for batch in batches:
            run(batch)
    return {name: gram.float() for name, gram in grams.items()}


def _observer(name: str, grams: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = _rows(layer, inputs[0])
        gram = (rows.T @ rows).double()
        grams[name] = grams[name].add_(gram) if name in grams else gram

    return observe


def _is_matrix(layer: nn.Module) -> bool:
    """Whether the layer multiplies the rows that ``_rows`` gives by its weight: only then it has a Gram matrix."""
    if isinstance(layer, nn.Linear):
        return layer.in_features <= LARGEST_GRAM
    if not isinstance(layer, nn.Conv2d) or type(layer).forward is not nn.Conv2d.forward:
        return False  # a subclass may pad or scale in its own way
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and layer.weight[0].numel() <= LARGEST_GRAM


def _rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """The rows that the weight's matrix multiplies: (positions, inputs of one output)."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return rearrange(patches, "n inputs positions -> (n positions) inputs")
    return rearrange(inputs, "... inputs -> (...) inputs")
