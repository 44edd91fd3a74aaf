"""Experts packed as task vectors of a few bits per weight (TVQ, RTVQ); ``RestoredExpert`` gives each of them back.

TVQ keeps Q_b(tau_t), tau_t = theta_t - theta_0. RTVQ keeps one shared vector B = Q_s(mean_t tau_t) with more bits, and
offsets Q_b(tau_t - B): what the shared bits lose, the offsets still see (the paper's error correction). The expert
comes back as theta_0 + B + offset.

Names of tensors: 'codes.TASK.NAME', 'step.TASK.NAME' and 'zero.TASK.NAME' are the fields of ``Quantised``;
'shared_codes.NAME' and so on those of the shared vector; 'kept.TASK.NAME' is a tensor kept bit for bit.

Kim et al., Task Vector Quantization for Memory-Efficient Model Merging, ICCV 2025, https://arxiv.org/abs/2503.06921
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symerge_dense.merging.packed import refuse_dots
from symerge_dense.merging.quantised import MOST_BITS, PER, Quantised, dequantise, quantise, quantised_layouts
from symerge_dense.merging.run import check_specs, narrowed
from symerge_dense.merging.sources import (
    TensorLayout,
    TensorSource,
    check_compatible,
    finite,
    layouts,
    load,
)
from symerge_dense.merging.tensor_specs import WEIGHT_KINDS, TensorSpec
from symerge_dense.models.weight_files import StateHash
from symerge_dense.registry import did_you_mean

SMALL = 1024  # numbers; tensors of fewer are kept as they are


@dataclass(frozen=True)
class Packing:
    """How task vectors are packed.

    Args:
        bits: per weight and task, 1 to 8.
        shared_bits: per weight of the vector that all tasks share (RTVQ), 1 to 8; 0 for none (TVQ).
        per: what has a range of its own: 'channel', each index of a tensor's first axis, or 'tensor' (the paper).

    Raises:
        ValueError: a number of bits out of range, or another ``per``.
    """

    bits: int = 4
    shared_bits: int = 0
    per: str = "channel"

    def __post_init__(self) -> None:
        for name, least in (("bits", 1), ("shared_bits", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MOST_BITS:
                raise ValueError(f"{name}={value!r}; give a whole number from {least} to {MOST_BITS}.")
        if self.per not in PER:
            raise ValueError(did_you_mean(str(self.per), PER, "per"))

    def layouts(self, spec: TensorLayout, owner: str, shared: bool = False) -> dict[str, TensorLayout]:
        """Shapes and data types of one packed tensor.

        Args:
            spec: shape and data type of the tensor.
            owner: 'TASK.NAME', or the name alone of the shared vector.
            shared: whether this is the shared vector.
        """
        found = quantised_layouts(spec.shape, self.shared_bits if shared else self.bits, self.per)
        return dict(zip(keys(owner, shared), found, strict=True))


def keys(owner: str, shared: bool = False) -> list[str]:
    """Names of the three tensors of a ``Quantised``.

    Args:
        owner: 'TASK.NAME', or the name alone of the shared vector.
        shared: whether this is the shared vector.
    """
    return [f"{'shared_' if shared else ''}{field}.{owner}" for field in Quantised._fields]


def is_quantised(spec: TensorSpec) -> bool:
    """Whether a tensor is packed in a few bits: weights of two dimensions and more, of ``SMALL`` numbers and more.

    Args:
        spec: the tensor.
    """
    return spec.kind in WEIGHT_KINDS and len(spec.shape) > 1 and spec.numel >= SMALL


class ExpertPacker:
    """Packs experts, tensor by tensor, in sorted order of the names.

    After ``stream`` has ended, ``errors`` are the relative errors ||restored - tau|| / ||tau|| over all quantised
    tensors, and ``hashes`` the ``state_hash`` of the experts as they will be restored.

    Args:
        packing: how.
        base: tensors of the base.
        experts: {task: the same tensors}.
        specs: of these tensors.
        prefix: of their names in the whole experts.
        outside: {task: {name: tensor}} of the experts' other tensors, all kept.

    Raises:
        ValueError: inputs do not match, a task has a dot in its name, or a shared vector is of one expert.
    """

    def __init__(
        self,
        packing: Packing,
        base: TensorSource,
        experts: Mapping[str, TensorSource],
        specs: Sequence[TensorSpec],
        prefix: str = "",
        outside: Mapping[str, TensorSource] | None = None,
    ) -> None:
        check_compatible(base, experts)
        check_specs(base, specs)
        refuse_dots(experts)
        if packing.shared_bits and len(experts) < 2:
            raise ValueError(
                f"shared_bits={packing.shared_bits} packs what the task vectors of two experts and more share, and "
                f"there is one, {', '.join(experts)}; give shared_bits=0."
            )
        self.packing, self._base, self._prefix = packing, base, prefix
        self._experts = dict(sorted(experts.items()))  # so that sums do not depend on the order
        self._outside = {task: (outside or {}).get(task, {}) for task in self._experts}
        self._specs = {f"{prefix}{spec.name}": spec for spec in specs}
        self._squares = {task: [0.0, 0.0] for task in self._experts}
        self._hashes = {task: StateHash() for task in self._experts}

    @property
    def layouts(self) -> dict[str, TensorLayout]:
        """Shape and data type of everything that ``stream`` yields, by name."""
        found: dict[str, TensorLayout] = {}
        for name, spec in self._specs.items():
            layout = TensorLayout(spec.shape, spec.dtype)
            quantised = is_quantised(spec)
            if quantised and self.packing.shared_bits:
                found |= self.packing.layouts(layout, name, shared=True)
            for task in self._experts:
                owner = f"{task}.{name}"
                found |= self.packing.layouts(layout, owner) if quantised else {f"kept.{owner}": layout}
        for task, state in self._outside.items():
            found |= {f"kept.{task}.{name}": layout for name, layout in layouts(state).items()}
        return found

    @property
    def names(self) -> list[str]:
        """Names of all tensors of all experts, sorted."""
        return sorted(set(self._specs).union(*self._outside.values()))

    def stream(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Packed tensors by name.

        Args:
            names: what ``names`` gives, perhaps with a progress bar.

        Raises:
            ValueError: a value of an expert, the base or a task vector is NaN or infinite.
        """
        for name in names:
            spec = self._specs.get(name)
            if spec is not None and is_quantised(spec):
                yield from self._quantised(name, spec)
                continue
            sources = self._outside if spec is None else self._experts
            inner = name if spec is None else spec.name
            for task, source in sources.items():
                if inner in source:
                    yield f"kept.{task}.{name}", self._kept(task, name, source[inner])

    def _kept(self, task: str, name: str, tensor: Tensor) -> Tensor:
        value = tensor.detach().cpu()
        if value.is_floating_point() and not finite(value):
            raise ValueError(f"{task}: tensor {name!r} holds NaN or infinite values; train or export it again.")
        self._hashes[task].add(name, value)
        return value

    def _quantised(self, name: str, spec: TensorSpec) -> Iterator[tuple[str, Tensor]]:
        base = load(self._base, "base", spec.name, "cpu")
        shared = None
        if self.packing.shared_bits:
            total = torch.zeros_like(base)
            for task in self._experts:
                total += self._vector(task, spec, base)
            what = f"the mean task vector of {name!r}"
            found = quantise(total / len(self._experts), self.packing.shared_bits, self.packing.per, what)
            yield from zip(keys(name, shared=True), found, strict=True)
            shared = self._values(found, base, self.packing.shared_bits)
        for task in self._experts:
            vector = self._vector(task, spec, base)
            what = f"the task vector of {task}, {name!r},"
            offset = vector if shared is None else vector - shared
            found = quantise(offset, self.packing.bits, self.packing.per, what)
            yield from zip(keys(f"{task}.{name}"), found, strict=True)
            restored = added(base, shared, self._values(found, base, self.packing.bits), self._base[spec.name], what)
            self._hashes[task].add(name, restored)
            lost = restored.to(base.dtype) - base - vector
            for place, part in enumerate((lost, vector)):
                self._squares[task][place] += part.double().square().sum().item()

    def _vector(self, task: str, spec: TensorSpec, base: Tensor) -> Tensor:
        return load(self._experts[task], task, spec.name, "cpu") - base

    def _values(self, found: Quantised, base: Tensor, bits: int) -> Tensor:
        return dequantise(found, tuple(base.shape), bits, self.packing.per, base.dtype)

    @property
    def errors(self) -> dict[str, float]:
        """{task: relative error of its packed task vector}; 0 where nothing was learned."""
        return {task: (lost / own) ** 0.5 if own else 0.0 for task, (lost, own) in self._squares.items()}

    @property
    def hashes(self) -> dict[str, str]:
        """{task: hash of the restored expert}."""
        return {task: digest.hexdigest() for task, digest in self._hashes.items()}


def added(base: Tensor, shared: Tensor | None, offset: Tensor, like: Tensor, what: str) -> Tensor:
    """theta_0 + (B + offset), in the data type of the base.

    Args:
        base: the base's value, float32 or float64.
        shared: values of the shared vector; None for none.
        offset: of the task; changed.
        like: the base's tensor.
        what: name for the message.

    Raises:
        ValueError: the data type cannot hold a value.
    """
    vector = offset if shared is None else offset.add_(shared)
    return narrowed(vector.add_(base), like.detach().cpu(), what)
