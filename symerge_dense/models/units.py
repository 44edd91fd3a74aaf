"""The hidden units of a network that may change places without a change of what it computes.

Exchanging two channels together with all that makes and reads them leaves every output as it is (Git Re-Basin,
Ainsworth et al. 2023, https://arxiv.org/abs/2209.04836). Channels that meet between two layers are one unit: the same
channel of all layers along a residual stream, a hidden unit of an MLP, a whole attention head, a group of a grouped
convolution. What mixes channels in an unknown way makes one unit of all of them, which stays in its place.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symerge_dense.models.channel_layers import Place
from symerge_dense.models.channel_probe import FEATURES, IMAGE, OUTPUT, ChannelProbe
from symerge_dense.models.image_sizes import SIZE_ERRORS, Size
from symerge_dense.models.multi_task import MultiTaskModel

BACKBONE = "backbone."


@dataclass(frozen=True)
class Point:
    """Where activations of a backbone can be read.

    Args:
        name: of a module of the backbone, or 'features.0', 'features.1' ... for what the backbone gives.
        side: 'in' or 'out' of the module.
        axis: of the channels.
    """

    name: str
    side: str
    axis: int


@dataclass(frozen=True)
class Family:
    """Units of one kind and place, which may change places with each other.

    Args:
        places: {(tensor of the network, axis): indices (units, indices of one unit)}.
        points: {where activations can be read: channels (units, channels of one unit)}.
    """

    places: dict[Place, Tensor]
    points: dict[Point, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.places.values())))

    def reorder(self, state: dict[str, Tensor], order: Tensor) -> None:
        """Put the units into other places.

        Args:
            state: of the network; tensors are replaced.
            order: (units,), the unit that comes to each place.
        """
        for (name, axis), indices in self.places.items():
            index = torch.arange(state[name].shape[axis])
            index[indices] = indices[order]
            state[name] = state[name].index_select(axis, index.to(state[name].device))


def unit_families(network: MultiTaskModel, size: Size) -> list[Family]:
    """The units of a network's backbone that may change places; those inside of heads are not looked for.

    Args:
        network: left as it is.
        size: (H, W) of its images, which it is shown where it takes no small ones.

    Raises:
        ValueError: the network cannot be analysed; names the module.
    """
    down, across = network.backbone.steps
    try:
        probe = ChannelProbe(network, (2 * down, 3 * across))
    except SIZE_ERRORS:
        probe = ChannelProbe(network, size)
    nodes = _Nodes(probe)
    edges = [nodes.tie(name, layer.ties()) for name, layer in probe.layers.items()]
    for name, layer in probe.layers.items():
        single = layer.counts[1] == 1  # such as a gate: there is no other place to take
        if not single and not name.startswith(OUTPUT):
            edges += [nodes.edge((name, "out"), *pairs) for pairs in probe.reached(name)]
    for place in nodes.free:
        edges += [nodes.edge(place, *pairs) for pairs in probe.reached_by(place)]
    nodes.units = _connected(torch.cat(edges, 1), nodes.count)
    return _families(probe, nodes)


class _Nodes:
    """A number for every input and output channel of all layers, and for every entry along an axis of free tensors."""

    units: Tensor  # of each node

    def __init__(self, probe: ChannelProbe) -> None:
        lengths: dict[tuple[str, Any], int] = {}
        for name, layer in probe.layers.items():
            lengths |= {(name, "in"): layer.counts[0], (name, "out"): layer.counts[1]}
        free = {
            (name, axis): count
            for name, value in sorted(probe.free.items())
            for axis, count in enumerate(value.shape)
            if count > 1
        }
        self.free: list[Place] = list(free)
        self.lengths = {**lengths, **free}
        ends = np.cumsum(list(self.lengths.values())).tolist()
        self.count: int = ends[-1]
        self.start = dict(zip(self.lengths, [0, *ends], strict=False))

    def tie(self, name: str, pairs: Tensor) -> Tensor:
        return torch.stack([self.start[name, "in"] + pairs[0], self.start[name, "out"] + pairs[1]])

    def edge(self, source: tuple[str, Any], layer: str, made: Tensor, read: Tensor) -> Tensor:
        return torch.stack([self.start[source] + made, self.start[layer, "in"] + read])

    def of(self, key: tuple[str, Any]) -> Tensor:
        """Units of a layer's channels, or of the entries along an axis."""
        return self.units[self.start[key] : self.start[key] + self.lengths[key]]


def _connected(edges: Tensor, count: int) -> Tensor:
    """(count,): the smallest node that each node is connected with by edges (2, pairs)."""
    least = torch.arange(count)
    while True:
        met = least[edges].amin(0).expand(2, -1).flatten()
        found = least.scatter_reduce(0, edges.flatten(), met, "amin")
        found = found[found]  # what the node's own representative is connected with
        if torch.equal(found, least):
            return least
        least = found


def _families(probe: ChannelProbe, nodes: _Nodes) -> list[Family]:
    """Families of the units that the backbone makes, where neither the image nor an output pins them down."""
    places: dict[Any, Tensor] = {place: nodes.of(place) for place in nodes.free}
    points: dict[Any, Tensor] = {}
    made: set[int] = set()
    fixed: set[int] = set(nodes.of((IMAGE, "out")).tolist())
    for name, layer in probe.layers.items():
        ends = {"in": nodes.of((name, "in")), "out": nodes.of((name, "out"))}
        places |= dict.fromkeys(layer.reads, ends["in"]) | dict.fromkeys(layer.makes, ends["out"])
        if name.startswith(OUTPUT):
            fixed |= set(ends["in"].tolist())
        if name.startswith(FEATURES):
            points[Point(name, "in", 1)] = ends["in"]
        if layer.matrix and name.startswith(BACKBONE):
            made |= set(ends["out"].tolist())
            inner = name.removeprefix(BACKBONE)
            points |= {Point(inner, side, axis): ends[side] for side, axis in zip(ends, layer.axes, strict=True)}
    kinds: dict[Any, list[dict[Any, list[int]]]] = defaultdict(list)
    for member in _members({**places, **points}, made - fixed):
        kinds[tuple((key, len(indices)) for key, indices in member.items())].append(member)
    families = []
    for units in kinds.values():
        if len(units) > 1:
            found = {key: torch.tensor([unit[key] for unit in units]) for key in units[0]}
            read = {key: value for key, value in found.items() if isinstance(key, Point)}
            read = {key: value for key, value in read.items() if key.side == "in"} or read
            families.append(Family({key: found[key] for key in found if key in places}, read))
    return families


def _members(where: dict[Any, Tensor], wanted: set[int]) -> list[dict[Any, list[int]]]:
    """{place or point: indices} of every wanted unit."""
    found: dict[int, dict[Any, list[int]]] = defaultdict(dict)
    for key, units in where.items():
        for index, unit in enumerate(units.tolist()):
            if unit in wanted:
                found[unit].setdefault(key, []).append(index)
    return list(found.values())
