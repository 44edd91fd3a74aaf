"""Activation matching: the units of an expert are put into the order of another network that computes much the same.

Networks that were trained from different first weights have their units in different orders, and weights of units that
do not correspond cannot be added up. Git Re-Basin (Ainsworth et al. 2023, https://arxiv.org/abs/2209.04836), and with
permutations alone ZipIt (https://arxiv.org/abs/2305.03053) and PLeaS (https://arxiv.org/abs/2407.02447), assign
units by the correlation of their activations on the same images. The expert computes what it did before.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from symerge_dense.fileio import optional_import
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.channel_probe import FEATURES
from symerge_dense.models.modes import evaluating
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.units import Family, Point, unit_families
from symerge_dense.registry import did_you_mean

KINDS = ("activations",)
EXACT, ROUNDED = 1e-6, 1e-4  # how far outputs may move, over the largest: computed in float64, and in float32
STAYING = 1e-6  # what a unit's own place adds to its similarity: without a reason to move it stays
TINY = 1e-24  # a variance, or a product of two, of what does not change
CHECKED = 2  # images on which an expert is compared with itself


@dataclass(frozen=True)
class Matching:
    """How experts are matched.

    Args:
        type: 'activations': by the correlation of activations.
        images: unlabelled images that activations are taken from, at most.

    Raises:
        ValueError: an unknown type, or fewer than two images.
    """

    type: str = "activations"
    images: int = 200

    def __post_init__(self) -> None:
        if self.type not in KINDS:
            raise ValueError(did_you_mean(self.type, KINDS, "kind of matching"))
        if self.images < 2:
            raise ValueError(f"images={self.images} must be at least 2: correlations need several.")


@dataclass(frozen=True)
class Matched:
    """What a matching found.

    Args:
        units: number of units that could change places.
        moved: number of them that did.
        similarity: of units in the same place, before, averaged over units: the correlation of their activations, or
            for units of several channels linear CKA (https://arxiv.org/abs/1905.00414), averaged over the layers that
            read them.
        similarity_matched: the same afterwards.
        fixed: names of the backbone's convolutions and linear layers whose outputs cannot change places.
    """

    units: int
    moved: int
    similarity: float
    similarity_matched: float
    fixed: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """It as JSON-able data."""
        return {**dataclasses.asdict(self), "fixed": list(self.fixed)}


@torch.no_grad()
def match(expert: MultiTaskModel, anchor: TimmBackbone, batches: Iterable[Tensor]) -> Matched:
    """Put the units of an expert's backbone into the order of another backbone, and its head's inputs along.

    Channels of convolutions and linear layers move one by one, groups of grouped convolutions and attention heads as a
    whole. Attention that the network computes past its linear layers, and what depends on it, stays as it is.

    Args:
        expert: changed in place; its outputs stay the same within rounding.
        anchor: of the same architecture, on the same device.
        batches: images, one batch (N,3,H,W) in 0..255 or more.

    Returns:
        What was found.

    Raises:
        ValueError: the architectures differ, no unit can be moved, or the outputs would change.
    """
    backbone = expert.backbone
    if backbone.spec != anchor.spec:
        raise ValueError(f"matching needs one architecture: the expert is {backbone.spec}, the other {anchor.spec}.")
    assignment = optional_import("scipy.optimize", "experts.match")
    rest = iter(batches)
    first = next(rest)
    try:
        families = unit_families(expert, (first.shape[-2], first.shape[-1]))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the units of {backbone.name} cannot be found: {error} {_remedy(backbone)}") from error
    if not families:
        raise ValueError(f"no units of {backbone.name} can change places. {_remedy(backbone)}")
    tables = _similarities(expert, anchor, families, chain([first], rest))
    state = dict(expert.state_dict())
    found = torch.zeros(4, dtype=torch.float64)  # units, those that move, similarity before and after
    for family, table in zip(families, tables, strict=True):
        own = torch.arange(len(family))
        rewards = table + STAYING * torch.eye(len(own))
        order = torch.from_numpy(assignment.linear_sum_assignment(rewards.numpy(), maximize=True)[1])
        family.reorder(state, order)
        found += torch.tensor([len(family), (order != own).sum(), table[own, own].sum(), table[own, order].sum()])
    units, moved, same, matched = found.tolist()
    _check_outputs(expert, state, first[:CHECKED])
    expert.load_state_dict(state)
    return Matched(int(units), int(moved), same / units, matched / units, _fixed(backbone, families))


def _remedy(backbone: TimmBackbone) -> str:
    return f"Leave out experts.match, or use a backbone of another kind than {backbone.name}, such as a ResNet or ViT."


def _fixed(backbone: TimmBackbone, families: Sequence[Family]) -> tuple[str, ...]:
    """Convolutions and linear layers whose outputs are in no family."""
    made = {name for family in families for name, axis in family.places if axis == 0}
    layers = (name for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d))
    return tuple(name for name in layers if f"backbone.{name}.weight" not in made)


def _check_outputs(expert: MultiTaskModel, state: Mapping[str, Tensor], images: Tensor) -> None:
    """Refuse weights with which the expert computes something else."""
    first, other = copy.deepcopy(expert).cpu().eval(), copy.deepcopy(expert).cpu().eval()
    other.load_state_dict(state)
    images, limit = images.cpu(), EXACT
    try:
        outputs = [network.double().raw_outputs(images.double()) for network in (first, other)]
    except RuntimeError:  # a head that insists on float32
        outputs, limit = [network.float().raw_outputs(images) for network in (first, other)], ROUNDED
    for task, output in outputs[0].items():
        far, scale = (output - outputs[1][task]).abs().max(), output.abs().max()
        if not far <= limit * scale:
            raise ValueError(
                f"expert {task} would change by {float(far):.2g} of {float(scale):.2g} where units change places: "
                f"something in {expert.backbone.name} or in its head {expert.heads[task]._get_name()} tells units "
                f"apart. {_remedy(expert.backbone)}"
            )


# -- how alike units are ----------------------------------------------------------------------------------------------
def _similarities(
    expert: MultiTaskModel, anchor: TimmBackbone, families: Sequence[Family], batches: Iterable[Tensor]
) -> list[Tensor]:
    """(units of the anchor, units of the expert) for every family: how alike their activations are."""
    moments = activation_moments(expert, anchor, families, batches)
    return [
        torch.stack([moments[point].similarity(channels) for point, channels in family.points.items()]).mean(0)
        for family in families
    ]


def activation_moments(
    expert: MultiTaskModel, anchor: TimmBackbone, families: Sequence[Family], batches: Iterable[Tensor]
) -> dict[Point, _Moments]:
    """Run both networks over images, and sum up their activations: what grows with the number of images.

    Args:
        expert: whose units are matched.
        anchor: what they are matched to.
        families: units, of the expert.
        batches: images, (N,3,H,W) in 0..255.

    Returns:
        {where units of the families can be read: sums over both networks' activations}.
    """
    sizes: dict[Point, int] = {}
    for family in families:
        sizes |= {point: max(sizes.get(point, 0), part.shape[1]) for point, part in family.points.items()}
    moments = {point: _Moments(whole=size > 1) for point, size in sizes.items()}
    with evaluating(expert, anchor):
        for batch in batches:
            images = expert.normalised(batch)
            with _activations(anchor, moments) as ours:
                ours |= _features(anchor(images))
            with _activations(expert.backbone, moments) as theirs:
                theirs |= _features(expert.backbone(images))
            for point, sums in moments.items():
                for x, y in zip(ours[point.name, point.side], theirs[point.name, point.side], strict=True):
                    sums.add(_rows(x, point.axis), _rows(y, point.axis))
    return moments


def _rows(x: Tensor, axis: int) -> Tensor:
    """Activations as (positions, channels)."""
    return x.movedim(axis, -1).flatten(0, -2)


def _features(features: Iterable[Tensor]) -> dict[tuple[str, str], list[Tensor]]:
    return {(f"{FEATURES}{level}", "in"): [feature] for level, feature in enumerate(features)}


@contextmanager
def _activations(backbone: TimmBackbone, points: Iterable[Point]) -> Iterator[dict[tuple[str, str], list[Tensor]]]:
    """Inside, {(module, side): what it is given or gives, call by call} is noted."""
    found: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    modules = dict(backbone.named_modules())

    def note(name: str, side: str) -> Any:
        def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name, side].append(inputs[0].clone())  # what follows may overwrite it

        def after(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found[name, side].append(output.clone())

        return before if side == "in" else after

    with ExitStack() as stack:
        for point in points:
            if point.name in modules:
                module, hook = modules[point.name], note(point.name, point.side)
                given = point.side == "in"
                handle = module.register_forward_pre_hook(hook) if given else module.register_forward_hook(hook)
                stack.callback(handle.remove)
        yield found


class _Moments:
    """Sums over two networks' activations at one point, about the means of the first batch; in float64.

    Args:
        whole: also sum the products of each network's own channels with each other.
    """

    def __init__(self, whole: bool) -> None:
        self.whole, self.count = whole, 0
        self.shifts: tuple[Tensor, ...] = ()
        self.sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add activations (positions, channels) of both."""
        self.shifts = self.shifts or (x.mean(0), y.mean(0))
        x, y = x - self.shifts[0], y - self.shifts[1]
        own = [part.T @ part if self.whole else part.square().sum(0) for part in (x, y)]
        new = [part.double() for part in (x.sum(0), y.sum(0), x.T @ y, *own)]
        self.sums = [old + more for old, more in zip(self.sums, new, strict=True)] if self.count else new
        self.count += len(x)

    def similarity(self, channels: Tensor) -> Tensor:
        """(units, units): correlations, or linear CKA where units have several channels.

        Args:
            channels: (units, channels of a unit) at this point.
        """
        x, y, xy, xx, yy = (part.cpu() / self.count for part in self.sums)
        units, size = channels.shape
        flat = channels.flatten()
        cross = (xy - torch.outer(x, y))[flat][:, flat]
        if size == 1:
            own = [(square.diagonal() if self.whole else square) - mean.square() for square, mean in ((xx, x), (yy, y))]
            sizes = [variance[flat].clamp(min=0).sqrt() for variance in own]
            return _over(cross, torch.outer(*sizes))

        def energies(covariance: Tensor) -> Tensor:
            return covariance.view(units, size, units, size).square().sum((1, 3))

        own = [(square - torch.outer(mean, mean))[flat][:, flat] for square, mean in ((xx, x), (yy, y))]
        return _over(energies(cross), torch.outer(*(energies(part).diagonal().sqrt() for part in own)))


def _over(part: Tensor, whole: Tensor) -> Tensor:
    """A quotient; 0 for what never changes."""
    return torch.where(whole > TINY, part / whole.clamp(min=TINY), 0.0)
