"""A small transformer that reads sentences, and its training: on text alone, then on one task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from symerge_dense.studies.language.sentences import LENGTH, MASK, PADDING, VOCABULARY

MASKED = 0.2  # share of the words that training on text alone hides


class Block(nn.Module):
    """Attention and two layers, each on normalised input and added to it.

    Args:
        width: channels.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.attention, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, words: Tensor, known: Tensor) -> Tensor:
        """Features of words, (N,L,width).

        Args:
            words: features (N,L,width).
            known: bool (N,L), the places that hold a word.
        """
        mixed = self.attention(self.before(words))
        asked, keys, values = rearrange(mixed, "n l (three h c) -> three n h l c", three=3, h=self.heads)
        seen = F.scaled_dot_product_attention(asked, keys, values, attn_mask=known[:, None, None])
        words = words + self.projection(rearrange(seen, "n h l c -> n l (h c)"))
        return words + self.narrow(F.gelu(self.wide(self.between(words))))


class TextEncoder(nn.Module):
    """Sentences to features.

    Args:
        width: channels.
        depth: blocks.
        heads: of each attention; they must divide ``width``.

    Raises:
        ValueError: they do not.
    """

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(f"encoder: width={width} must be a multiple of heads={heads}.")
        self.words = nn.Embedding(len(VOCABULARY) + 2, width, padding_idx=PADDING)
        self.positions = nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def each(self, numbers: Tensor) -> Tensor:
        """Features of every word, (N,L,width).

        Args:
            numbers: of words, int64 (N,L).
        """
        known, found = numbers != PADDING, self.words(numbers) + self.positions.weight
        for block in self.blocks:
            found = block(found, known)
        normalised: Tensor = self.norm(found)
        return normalised

    def forward(self, numbers: Tensor) -> Tensor:
        """Features of sentences: the mean over their words, (N,width).

        Args:
            numbers: of words, int64 (N,L).
        """
        known = (numbers != PADDING)[..., None]
        return (self.each(numbers) * known).sum(1) / known.sum(1)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, with Adam and a rate that falls to 0 in a straight line.

    Args:
        steps: of the optimizer.
        batch_size: sentences of each.
        lr: rate at the start.
        encoder_lr_scale: of the encoder's rate, where a head is trained with it.

    Raises:
        ValueError: one of them is not positive.
    """

    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-3
    encoder_lr_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"recipe: {name}={value!r} must be positive.")


def batches(count: int, recipe: Recipe, seed: int) -> Iterator[Tensor]:
    """Numbers of the sentences of each step.

    Args:
        count: of all sentences.
        recipe: steps and batch size.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(recipe.steps):
        yield torch.randint(count, (recipe.batch_size,), generator=generator)


def pretrain(encoder: TextEncoder, words: Tensor, recipe: Recipe, seed: int) -> None:
    """Teach an encoder the language: it guesses words that are hidden (BERT, https://arxiv.org/abs/1810.04805).

    Args:
        encoder: trained in place.
        words: int64 (N,L).
        recipe: of the training.
        seed: of batches and of what is hidden.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer, schedule = _optimizer([{"params": list(encoder.parameters())}], recipe)
    for batch in batches(len(words), recipe, seed):
        whole = words[batch]
        hidden = (torch.rand(whole.shape, generator=generator) < MASKED) & (whole != PADDING)
        found = encoder.each(whole.masked_fill(hidden, MASK))[hidden] @ encoder.words.weight.T
        _step(F.cross_entropy(found, whole[hidden]), optimizer, schedule)


def finetune(encoder: nn.Module, head: nn.Module, words: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> None:
    """Train encoder and head on one task.

    Args:
        encoder: trained in place.
        head: features (N,width) to logits (N,classes), trained in place.
        words: int64 (N,L).
        labels: class numbers (N,).
        recipe: of the training.
        seed: of the batches.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(encoder.parameters()), "lr": recipe.lr * recipe.encoder_lr_scale},
        {"params": list(head.parameters())},
    ]
    optimizer, schedule = _optimizer(groups, recipe)
    for batch in batches(len(words), recipe, seed):
        _step(F.cross_entropy(head(encoder(words[batch])), labels[batch]), optimizer, schedule)


def _optimizer(
    groups: list[dict[str, Any]], recipe: Recipe
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(groups, recipe.lr)
    return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, recipe.steps)


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
