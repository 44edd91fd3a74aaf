"""Sources of tensors, a dict or safetensors files read one tensor at a time; and checks that they fit together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.mapped_files import DTYPES, SafetensorsSource, TensorLayout
from symerge_dense.models.weight_files import SHOWN, listing
from symerge_dense.progress import say

__all__ = ["DTYPES", "SafetensorsSource", "TensorLayout"]  # and what is defined here

TensorSource: TypeAlias = Mapping[str, Tensor]


def open_source(path: str | Path, prefix: str = "", key: str | None = None, ema: bool = False) -> TensorSource:
    """The tensors of a checkpoint, read when they are used.

    Args:
        path: as for ``read_foreign``: a file of safetensors or of ``torch.save``, or a folder of shards.
        prefix: selects the names that start with it, and is stripped.
        key: of the network in a file of several.
        ema: take the averaged (EMA) weights.

    Raises:
        ValueError: as ``read_foreign`` does, or no tensor has such a name.
    """
    found = read_foreign(path, key, ema, mapped=True)
    for remark in found.remarks:
        say(f"{path}: {remark}")
    return with_prefix(found.state, prefix, str(path), found.wrapper)


def with_prefix(state: Mapping[str, Tensor], prefix: str, source: str, wrapper: str = "") -> TensorSource:
    """The tensors whose names start with a prefix, by their names without it.

    Args:
        state: tensors by name.
        prefix: of the names; it may begin with ``wrapper``, which they had in the file.
        source: of the tensors, for the message.
        wrapper: what was taken off all names.

    Raises:
        ValueError: no name starts with it.
    """
    if wrapper and prefix.startswith(wrapper) and not any(name.startswith(prefix) for name in state):
        prefix = prefix.removeprefix(wrapper)
    found = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(
            f"no tensor name starts with {prefix!r} in {source}; check the path and the prefix. Its names: "
            f"{listing(state)}."
        )
    return found


def layouts(source: TensorSource) -> dict[str, TensorLayout]:
    """Shape and data type of every tensor of a source, without reading the tensors of a file.

    Args:
        source: the source.
    """
    if isinstance(source, SafetensorsSource):
        return dict(source.layouts)
    return {name: TensorLayout(tuple(value.shape), value.dtype) for name, value in source.items()}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The data type merges are computed in: float64 stays, everything else is float32.

    Args:
        dtype: the data type of a tensor.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def load(source: TensorSource, owner: str, name: str, device: torch.device | str | None = None) -> Tensor:
    """One tensor of a source, as ``checked`` returns it.

    Args:
        source: the source.
        owner: name of the source for the message: 'base' or a task.
        name: name of the tensor.
        device: where to move it; None to leave it where it is.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    return checked(source[name], owner, name, device)


def checked(tensor: Tensor, owner: str, name: str, device: torch.device | str | None = None) -> Tensor:
    """A tensor in its ``compute_dtype``; may share memory with the source, so do not write into it.

    Args:
        tensor: the tensor.
        owner: name of its source for the message: 'base' or a task.
        name: its name for the message.
        device: where to move it; None to leave it where it is.

    Raises:
        ValueError: a value is NaN or infinite; names owner and tensor.
    """
    tensor = tensor.detach().to(device=device, dtype=compute_dtype(tensor.dtype))
    if not finite(tensor):
        raise ValueError(f"{owner}: tensor {name!r} holds NaN or infinite values; train or export it again.")
    return tensor


def finite(tensor: Tensor) -> bool:
    """Whether no value of a floating-point tensor is NaN or infinite.

    Args:
        tensor: the tensor.
    """
    # A sum is the fastest look at every value. Where it is not finite, it may only have overflowed.
    if math.isfinite(tensor.sum(dtype=compute_dtype(tensor.dtype))):
        return True
    return all(bool(bound.isfinite()) for bound in tensor.aminmax())


# -- base and experts must hold the same tensors ----------------------------------------------------------------------


def check_compatible(
    base: TensorSource, experts: Mapping[str, TensorSource], names: Collection[str] | None = None
) -> None:
    """Compare names, shapes and data types of all inputs, reading no values from files.

    Args:
        base: tensors of the base.
        experts: {task: tensors}.
        names: compare only these tensors, all of which the base must have; None for all.

    Raises:
        ValueError: there are no experts, or they differ from the base; lists, per expert, the number of differences and
            the first ten.
    """
    if not experts:
        raise ValueError("there is no expert to merge; pass at least one {task: state dict}.")
    reference = layouts(base)
    if names is not None:
        absent = [name for name in names if name not in reference]
        if absent:
            raise ValueError(f"the base lacks {len(absent)} of the tensors to merge: {_first(absent)}.")
        reference = {name: reference[name] for name in names}
    reports = []
    for task, expert in experts.items():
        found = _differences(reference, layouts(expert), strict=names is None)
        if found:
            lacks = any(line.startswith("missing") for line in found)
            held = f"\n  {task} holds {listing(expert)}" if lacks else ""
            reports.append(f"{task}: {len(found)} differences\n  {_first(found, separator=chr(10) + '  ')}{held}")
    if reports:
        raise ValueError(
            "the experts do not match the base; merge models of one architecture, and only the part they "
            "share (the backbone).\n" + "\n".join(reports)
        )


def _differences(reference: Mapping[str, TensorLayout], found: Mapping[str, TensorLayout], strict: bool) -> list[str]:
    lines = []
    for name, layout in reference.items():
        other = found.get(name)
        if other is None:
            lines.append(f"missing {name!r}")
        elif other.shape != layout.shape:
            lines.append(f"{name!r} has shape {other.shape}, the base {layout.shape}")
        elif other.dtype != layout.dtype:
            floats = other.dtype.is_floating_point and layout.dtype.is_floating_point
            remedy = "; cast both by .float() where they differ, and save them again" if floats else ""
            lines.append(f"{name!r} has data type {other.dtype}, the base {layout.dtype}{remedy}")
    return lines + [f"unexpected {name!r}" for name in found if strict and name not in reference]


def _first(items: list[str], separator: str = ", ") -> str:
    more = [f"... and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join(items[:SHOWN] + more)
