"""All tasks' weights of a method with masks, in little more than the space of one; and one task's weights from that.

Names of tensors: 'shared.NAME' is the unified task vector, in the data type merges are computed in; 'mask.TASK.NAME'
the mask M_t, packed (``pack``); 'factor.TASK' the factor of the masked vector, float64; 'kept.NAME' a tensor that is
the same for all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from symerge_dense.merging.base import treatment_of
from symerge_dense.merging.bn_statistics import statistics_policy
from symerge_dense.merging.chunks import Workers
from symerge_dense.merging.masked import Masked
from symerge_dense.merging.run import MergeRun, ProgressCallback, check_specs, narrowed
from symerge_dense.merging.sources import TensorLayout, TensorSource, check_compatible, compute_dtype, finite, load
from symerge_dense.merging.tensor_specs import TensorSpec

_SHIFTS = (7, 6, 5, 4, 3, 2, 1, 0)


# -- masks at one bit per weight, in the bit order of numpy.packbits --------------------------------------------------
def pack(mask: Tensor) -> Tensor:
    """Pack a mask to one bit per weight, the first weight in the highest bit.

    Args:
        mask: bool, of any shape.

    Returns:
        uint8 (ceil(numel / 8),).
    """
    flat = rearrange(mask, "... -> (...)").to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    octets = rearrange(padded, "(octet bit) -> bit octet", bit=8)
    packed = torch.zeros(octets.shape[1], dtype=torch.uint8, device=mask.device)
    for bit, shift in zip(octets, _SHIFTS, strict=True):
        packed |= bit << shift
    return packed


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpack what ``pack`` packed.

    Args:
        packed: uint8 (ceil(numel / 8),).
        shape: shape of the mask.

    Returns:
        The bool mask.

    Raises:
        ValueError: the length does not fit the shape.
    """
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != (-(-count // 8),):
        raise ValueError(
            f"a packed mask of shape {tuple(shape)} is uint8 of {-(-count // 8)} bytes, this is "
            f"{packed.dtype} of shape {tuple(packed.shape)}; pass the mask of this very tensor."
        )
    shifts = torch.tensor(_SHIFTS, dtype=torch.uint8, device=packed.device)
    bits = rearrange((packed[:, None] >> shifts) & 1, "octet bit -> (octet bit)")
    return bits[:count].bool().view(tuple(shape))


# -- files of all tasks -----------------------------------------------------------------------------------------------
def packed_layouts(merger: Masked, specs: Sequence[TensorSpec], tasks: Sequence[str]) -> dict[str, TensorLayout]:
    """Shape and data type of everything that ``run_packed`` yields, by name.

    Args:
        merger: the method.
        specs: the tensors of the base.
        tasks: the experts' names.
    """
    found = {f"factor.{task}": TensorLayout((), torch.float64) for task in tasks}
    for spec in specs:
        if treatment_of(merger, spec.kind) == "method":
            found[f"shared.{spec.name}"] = TensorLayout(spec.shape, compute_dtype(spec.dtype))
            size = -(-spec.numel // 8)
            found |= {f"mask.{task}.{spec.name}": TensorLayout((size,), torch.uint8) for task in tasks}
        else:
            found[f"kept.{spec.name}"] = TensorLayout(spec.shape, spec.dtype)
    return found


def run_packed(
    merger: Masked,
    base: TensorSource,
    experts: Mapping[str, TensorSource],
    specs: Sequence[TensorSpec],
    statistics: str = "mean",
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Merge for all tasks: yield (name, tensor) as in ``packed_layouts``.

    Args:
        merger: a method with masks.
        base: tensors of the base.
        experts: {task: tensors}, two or more, no task with a dot in its name. A single expert needs no masks, and would
            come back rounded.
        specs: the tensors of the base, all of them.
        statistics: BatchNorm policy, a key of ``bn_statistics.STATISTICS``.
        seed: seed of random methods.
        device: where to compute; None for where the tensors are.
        progress: called as ``progress(specs, what)``, iterates over the tensors of a pass.

    Raises:
        ValueError: as ``run`` does, for a task name with a dot, and for a single expert.
    """
    check_compatible(base, experts)
    check_specs(base, specs)
    _check_tasks(list(experts))
    ordered = dict(sorted(experts.items()))  # as in ``run``
    merge = MergeRun(
        merger,
        base,
        ordered,
        statistics_policy(statistics),
        {},
        seed,
        None,
        device,
        progress or (lambda specs, what: specs),
    )
    return _packed(merge, merger, list(specs))


def _check_tasks(tasks: Sequence[str]) -> None:
    if len(tasks) < 2:
        raise ValueError(
            f"there is one expert, {', '.join(tasks)}; packing is for the weights of two and more; "
            "merge it for its task alone."
        )
    refuse_dots(tasks)


def refuse_dots(tasks: Iterable[str]) -> None:
    """Refuse names of tasks that names of packed tensors cannot hold.

    Args:
        tasks: the names.

    Raises:
        ValueError: a name has a dot.
    """
    dotted = [task for task in tasks if "." in task]
    if dotted:
        raise ValueError(
            f"task {dotted[0]!r} has a dot in its name, which the names of packed tensors cannot hold; rename it."
        )


def _packed(merge: MergeRun, merger: Masked, specs: list[TensorSpec]) -> Iterator[tuple[str, Tensor]]:
    with Workers() as workers:
        merge.gather(specs, workers)
        for spec in merge.progress(specs, "packing"):
            if treatment_of(merger, spec.kind) != "method":
                yield f"kept.{spec.name}", merge.tensor(spec, workers)
                continue
            unified, masks = merger.parts(merge.whole(spec))
            yield f"shared.{spec.name}", narrowed(unified, unified, f"{merger.name}: shared {spec.name!r}").cpu()
            for task, mask in masks.items():
                yield f"mask.{task}.{spec.name}", pack(mask).cpu()
    for task in merge.experts:
        yield f"factor.{task}", torch.tensor(merger.factor(task), dtype=torch.float64)


def restored(base: TensorSource, packed: TensorSource, task: str, name: str) -> Tensor:
    """One tensor of a task's weights, bit for bit what ``run`` gives for it.

    Args:
        base: tensors of the base of that merge.
        packed: what ``run_packed`` gave.
        task: the task.
        name: name of the tensor in the base.

    Raises:
        ValueError: ``packed`` lacks this tensor or task, or the masks do not fit.
    """
    if f"kept.{name}" in packed:
        return fitting(f"kept.{name}", packed[f"kept.{name}"], base[name])
    needed = (f"shared.{name}", f"mask.{task}.{name}", f"factor.{task}")
    absent = [key for key in needed if key not in packed]
    if absent:
        raise ValueError(f"there is no {absent[0]!r} among the packed tensors; is this base, or this task, another?")
    unified, mask, factor = (packed[key] for key in needed)
    value = load(base, "base", name)
    fitting(f"shared.{name}", unified, value)
    if factor.shape != () or factor.dtype != torch.float64 or not bool(factor.isfinite()):
        raise ValueError(
            f"'factor.{task}' is {factor.flatten()[:3].tolist()} of {factor.dtype}; it must be one finite "
            "float64 number; write the file again."
        )
    merged = torch.add(value, torch.where(unpack(mask, value.shape), unified, 0.0), alpha=factor.item())
    return narrowed(merged, base[name], f"packed {name!r}")


def fitting(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """A packed tensor, checked.

    Args:
        name: its name among the packed tensors.
        tensor: the tensor.
        like: the base's tensor.

    Raises:
        ValueError: shape or data type differ from the base's, or a value is NaN or infinite.
    """
    if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
        raise ValueError(
            f"{name!r} is {tuple(tensor.shape)} of {tensor.dtype}, the base's tensor {tuple(like.shape)} "
            f"of {like.dtype}; give the base of this very merge."
        )
    if tensor.is_floating_point() and not finite(tensor):
        raise ValueError(f"{name!r} holds NaN or infinite values, which no merge writes; copy the file again.")
    return tensor
