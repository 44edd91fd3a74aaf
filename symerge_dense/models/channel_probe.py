"""Which channels of a network's layers meet, found by experiment on a copy whose layers give fixed random numbers.

Layers are convolutions, linear layers, and modules that treat all channels alike, such as norms. With their outputs
fixed, a change of one channel of one output shows, in the inputs of the next layers, what it reaches through everything
between them: additions, activations, attention, concatenation. Nothing is assumed about that, and no graph is traced.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from symerge_dense.models.channel_layers import SAME, Layer, Place, fixed_numbers, holds_tensors, layer_of
from symerge_dense.models.image_sizes import Size
from symerge_dense.models.multi_task import MultiTaskModel

IMAGE, FEATURES, OUTPUT, HEADS = "image", "features.", "output.", "heads."
ROWS = 64  # channels that are changed one by one in one batch
MOST = 10**10  # numbers that the channels of one layer may make if changed one by one
MORE = 2.0  # the least change: what was below 0 is then above, so that no ReLU hides it
NOTHING = torch.empty(0, 0, dtype=torch.bool)
Pairs = tuple[str, Tensor, Tensor]


class ChannelProbe:
    """A copy of a network whose layers give fixed random numbers, and note which channels of their inputs change.

    The image, the backbone's features ('features.0', ...) and the outputs ('output.<task>') count as layers.

    Args:
        network: left as it is.
        size: (H, W) of the image that is shown to it.

    Attributes:
        layers: {name: layer}, of all layers that take part in the outputs.
        free: {name: tensor} of the state's numbers that no layer holds, such as a position embedding.

    Raises:
        ValueError: the network does not run as it should; names the module.
    """

    def __init__(self, network: MultiTaskModel, size: Size) -> None:
        self.network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
        self._shapes: dict[str, list[tuple[torch.Size, torch.Size]]] = defaultdict(list)
        self._first: dict[tuple[str, int], Tensor] = {}
        self._outputs: dict[tuple[str, int], Tensor] = {}
        modules = {name: module for name, module in self.network.named_modules() if holds_tensors(module)}
        self._record(modules, torch.Size((1, 3, *size)))
        self.layers = {
            name: Layer((1, 1), (calls[0][0][1], calls[0][1][1]), groups=calls[0][0][1])
            for name, calls in self._shapes.items()
            if name not in modules
        }
        for name, module in modules.items():
            if name in self._shapes and (layer := layer_of(name, module, self._shapes[name][0][0])) is not None:
                self.layers[name] = layer
                module.forward = partial(self._meet, name)
        held = {tensor for layer in self.layers.values() for tensor, _ in layer.makes}
        state = self.network.state_dict()
        self.free = {name: state[name] for name in state.keys() - held if state[name].is_floating_point()}
        for name, value in self.free.items():
            value.copy_(fixed_numbers(name, value.shape, least=0.5))
        self._run()  # notes the inputs that those with changed tensors are compared with

    @torch.no_grad()
    def _record(self, modules: dict[str, nn.Module], image: torch.Size) -> None:
        """Note the shapes of what goes into modules and comes out, of the image, the features and the outputs."""

        def note(name: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                self._shapes[name].append((inputs[0].shape, output.shape))

        handles = [module.register_forward_hook(partial(note, name)) for name, module in modules.items()]
        self._shapes[IMAGE] = [(image, image)]
        features = self.network.features(fixed_numbers(IMAGE, image))
        for level, feature in enumerate(features):
            self._shapes[f"{FEATURES}{level}"] = [(feature.shape, feature.shape)]
        for task, head in self.network.named_heads():
            shape = head(self.network.task_features(task, features)).shape
            self._shapes[f"{OUTPUT}{task}"] = [(shape, shape)]
        for handle in handles:
            handle.remove()

    # -- what reaches what --------------------------------------------------------------------------------------------
    def reached(self, name: str) -> list[Pairs]:
        """What the output channels of a layer reach.

        Args:
            name: of the layer.

        Returns:
            (next layer, output channels (pairs,), the input channels of that layer (pairs,) that change with them).
        """
        count = self.layers[name].counts[1]
        changes = self._run(name, name, _codes(count))
        found = [(layer, _decoded(changed, count)) for layer, changed in changes]
        if all(pairs is not None for _, pairs in found):
            return [(layer, *pairs) for layer, pairs in found if pairs is not None]
        numbers = sum(calls[0][1].numel() for calls in self._shapes.values())
        if count * numbers > MOST:
            return _tied(changes, count)
        single = []
        for masks in torch.eye(count, dtype=torch.bool).split(ROWS):
            own = masks.any(0).nonzero()[:, 0]
            for layer, changed in self._run(name, name, masks):
                row, channel = changed.nonzero(as_tuple=True)
                single.append((layer, own[row], channel))
        return single

    def reached_by(self, place: Place) -> list[Pairs]:
        """What the entries along an axis of a free tensor reach, as ``reached`` tells it.

        An axis whose entries all reach the same channels, such as that of positions, is not one of channels: it
        reaches nothing.

        Args:
            place: the tensor and the axis.
        """
        count = self.free[place[0]].shape[place[1]]
        codes = _codes(count)
        changes = self._changed_by(place, codes)
        found = [(layer, _decoded(changed, count)) for layer, changed in changes]
        if all(pairs is not None for _, pairs in found):
            return [(layer, *pairs) for layer, pairs in found if pairs is not None]
        filled = codes.any(1)
        if all((changed[filled] == changed[filled][:1]).all() for _, changed in changes):
            return []
        if count > ROWS:
            return _tied(changes, count)
        changes = self._changed_by(place, torch.eye(count, dtype=torch.bool))
        pairs = [(layer, changed.nonzero()) for layer, changed in changes]
        return [(layer, pair[:, 0], pair[:, 1]) for layer, pair in pairs]

    def _changed_by(self, place: Place, masks: Tensor) -> list[tuple[str, Tensor]]:
        name, axis = place
        value = self.free[name]
        before, runs = value.clone(), []
        shape = [-1 if other == axis else 1 for other in range(value.ndim)]
        for mask in masks:
            value.copy_(before + mask.view(shape) * fixed_numbers(f"{name} more", value.shape, MORE))
            runs.append(self._run(name))
        value.copy_(before)
        return [(calls[0][0], torch.cat([changed for _, changed in calls])) for calls in zip(*runs, strict=True)]

    # -- one pass -----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def _run(self, changed: str = "", source: str = "", masks: Tensor = NOTHING) -> list[tuple[str, Tensor]]:
        """(layer, changed input channels (masks, channels)) of each call of a layer, in order.

        The features are fixed like every output: a change before them ends there, and one behind them begins there.

        Args:
            changed: the layer or tensor in which something is changed; '' runs all of the network.
            source: the layer whose output changes; '' compares this pass with the first.
            masks: (masks, channels), the output channels that change.
        """
        self._source, self._masks = source, masks
        self._calls: Counter[str] = Counter()
        self._seen: list[tuple[str, Tensor]] = []
        network, levels = self.network, [f"{FEATURES}{level}" for level in range(len(self.network.backbone.channels))]
        if not changed.startswith((FEATURES, HEADS)):
            for name, feature in zip(levels, network.features(self._given(IMAGE, 0)), strict=True):
                self._note(name, 0, feature)
        if not changed or changed.startswith((FEATURES, HEADS)):
            features = [self._given(name, 0) for name in levels]
            for task, head in network.named_heads():
                self._note(f"{OUTPUT}{task}", 0, head(network.task_features(task, features)))
        return self._seen

    def _meet(self, name: str, x: Tensor, *_more: Any, **_named: Any) -> Tensor:
        """What a layer does in place of its own computation."""
        call = self._calls[name]
        self._calls[name] += 1
        self._note(name, call, x)
        return self._given(name, call)

    def _note(self, name: str, call: int, x: Tensor) -> None:
        rows = 1 + len(self._masks)
        if call >= len(self._shapes[name]) or len(x) != rows * self._shapes[name][call][0][0]:
            raise ValueError(f"module {name} is not given {rows} times the input that one image gives.")
        x = x.unflatten(0, (rows, -1))
        first = x[:1] if self._source else self._first.setdefault((name, call), x.clone())
        changed = ((x[1:] if self._source else x) - first).abs() > SAME
        axis = self.layers[name].axes[0] % (x.ndim - 1) + 1
        self._seen.append((name, changed.any(tuple(dim for dim in range(1, x.ndim) if dim != axis))))

    def _given(self, name: str, call: int) -> Tensor:
        shape, rows = self._shapes[name][call][1], 1 + len(self._masks)
        if (name, call) not in self._outputs:
            self._outputs[name, call] = fixed_numbers(f"{name} {call}", shape)
        one = self._outputs[name, call]
        out = one.repeat(rows, *[1] * (len(shape) - 1))
        if name == self._source:
            axis = self.layers[name].axes[1] % len(shape)
            mask = self._masks.view(-1, *[self._masks.shape[1] if dim == axis else 1 for dim in range(len(shape))])
            more = mask * fixed_numbers(f"{name} {call} more", shape, MORE)
            out[len(one) :] += more.flatten(0, 1)
        return out


def _codes(count: int) -> Tensor:
    """(2 bits, count): for each bit the channels whose number has it, then for each bit those without it."""
    bits = torch.arange(max(1, (count - 1).bit_length()))[:, None]
    has = (torch.arange(count)[None] >> bits) % 2 == 1
    return torch.cat([has, ~has])


def _tied(changes: list[tuple[str, Tensor]], count: int) -> list[Pairs]:
    """All sources and all channels that change, as one unit, which stays: it would take long to tell more."""
    found = [(layer, changed.any(0).nonzero()[:, 0]) for layer, changed in changes]
    ends = [(layer, torch.arange(count), touched[:1].expand(count)) for layer, touched in found if len(touched)]
    return ends + [(layer, torch.zeros_like(touched), touched) for layer, touched in found]


def _decoded(changed: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """(source channels, changed channels) where each channel is changed by one source alone; None where not."""
    has, lacks = changed.chunk(2)
    touched = changed.any(0).nonzero()[:, 0]
    if not (has ^ lacks)[:, touched].all():
        return None
    code = (has[:, touched] * 2 ** torch.arange(len(has))[:, None]).sum(0)
    return None if (code >= count).any() else (code, touched)
