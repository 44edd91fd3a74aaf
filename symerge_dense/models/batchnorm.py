"""BatchNorm statistics of a merged network, re-estimated on unlabelled images.

Averaged or copied running statistics do not fit the merged weights; on dense tasks they cost as much as the choice of
the merging method. Re-estimation shows the merged network a few unlabelled images and pools exact moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from symerge_dense.models.modes import evaluating


def batchnorms(module: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers of a network that keep running statistics, in module order.

    Args:
        module: the network.
    """
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances of all BatchNorm layers: the tensors themselves, not copies.

    Args:
        module: the network.
    """
    named = dict(module.named_buffers())
    return [value for name, value in named.items() if name.endswith(("running_mean", "running_var"))]


@contextmanager
def keeping_statistics(model: nn.Module) -> Iterator[None]:
    """Layers that normalise with the batch do so inside, too, but leave their running statistics as they are.

    Args:
        model: the network.
    """
    layers = [layer for layer in batchnorms(model) if layer.training]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


class _Moments:
    """Running sums of a layer's input over images and positions, per channel, in float64."""

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self.sums = torch.zeros(2, layer.num_features, dtype=torch.float64, device=layer.weight.device)
        self.count = torch.zeros((), dtype=torch.float64, device=layer.weight.device)

    def observe(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = rearrange(inputs[0].detach(), "n c ... -> c (n ...)").double()
        self.sums += torch.stack([x.sum(1), x.square().sum(1)])
        self.count += x.shape[1]

    def write(self) -> None:
        mean, square = self.sums / self.count.clamp(min=1)
        variance = (square - mean.square()).clamp(min=0) * self.count / (self.count - 1).clamp(min=1)
        self.layer.running_mean.copy_(mean)  # type: ignore[union-attr]
        self.layer.running_var.copy_(variance)  # type: ignore[union-attr]


@contextmanager
def batch_statistics(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Evaluation mode, except that ``layers`` normalise with the batch and keep their statistics; undone on leaving.

    Args:
        model: the network.
        layers: those of its BatchNorm layers.
    """
    with evaluating(model):
        for layer in layers:
            layer.training = True
        with keeping_statistics(model):
            yield


def _show(model: nn.Module, images: Tensor) -> None:
    try:
        model(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "BatchNorm cannot be re-estimated on one image in a layer that pools the whole image: give "
            "data.unlabelled two images or more, or set adaptation.batchnorm='mean'."
        ) from error


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every running mean and variance to the pooled moments of the layer's input over all images.

    While estimating, each layer normalises with its batch, so that deeper layers see the activations of a network
    whose statistics fit. The variance is the unbiased one over all pixels of all images, as BatchNorm keeps it. What a
    layer sees depends on how the images are batched, so under a distributed launcher every process is given all of
    them. A network without BatchNorm is left alone.

    Args:
        model: changed in place; its train/eval mode is left as found.
        batches: images, each batch (N,3,H,W).

    Raises:
        ValueError: a batch of one image meets a BatchNorm layer behind a pooling over the whole image.
    """
    layers = batchnorms(model)
    if not layers:
        return
    moments = [_Moments(layer) for layer in layers]
    with batch_statistics(model, layers), ExitStack() as stack:
        for layer, moment in zip(layers, moments, strict=True):
            stack.callback(layer.register_forward_pre_hook(moment.observe).remove)
        for images in batches:
            _show(model, images)
    for moment in moments:
        moment.write()
