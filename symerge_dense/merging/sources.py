"""Sources of tensors, a dict or safetensors files read one tensor at a time; and checks that they fit together."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from symerge_dense.models.weight_files import SHOWN, existing, map_state

TensorSource: TypeAlias = Mapping[str, Tensor]
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}  # as safetensors call them


class TensorLayout(NamedTuple):
    """Shape and data type of a tensor that need not be in memory.

    Args:
        shape: its shape.
        dtype: its data type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype


class SafetensorsSource(Mapping[str, Tensor]):
    """Tensors of one or several safetensors files (shards), mapped into memory and not to be written into.

    The disk is read as tensors are used, and the system may drop what it read.

    Args:
        *paths: the files.
        prefix: selects the names that start with it, and is stripped: ``SafetensorsSource(path, prefix="backbone.")``
            is the backbone of a whole model.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, a data type unknown, a tensor in two files, or nothing has the prefix.
    """

    def __init__(self, *paths: str | Path, prefix: str = "") -> None:
        self.prefix = prefix
        self.layouts: dict[str, TensorLayout] = {}
        # Mapped all at once: objects that stay, allocated between large results, would fragment memory.
        self._mapped: dict[str, Tensor] = {}
        for path in paths:
            self._enter(path)
        _refuse_empty(self.layouts, prefix, paths)

    def _enter(self, path: str | Path) -> None:
        try:
            file: Any = safe_open(str(path), framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file ({error}); copy it again.") from error
        for full in file.keys():  # noqa: SIM118 - a file handle, not a mapping
            if not full.startswith(self.prefix):
                continue
            name, view = full[len(self.prefix) :], file.get_slice(full)
            if name in self._mapped:
                raise ValueError(f"tensor {full!r} is in two files, the second is {path}; pass each shard once.")
            if view.get_dtype() not in DTYPES:
                raise ValueError(f"{path}: {full!r} has data type {view.get_dtype()}; known: {', '.join(DTYPES)}.")
            self._mapped[name] = file.get_tensor(full)
            self.layouts[name] = TensorLayout(tuple(view.get_shape()), DTYPES[view.get_dtype()])

    def __getitem__(self, name: str) -> Tensor:
        return self._mapped[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layouts)

    def __len__(self) -> int:
        return len(self.layouts)


def open_source(path: str | Path, prefix: str = "") -> TensorSource:
    """The tensors of a checkpoint, read when they are used.

    Args:
        path: a ``.safetensors`` file, a folder of them (the shards of one model), or a file of ``torch.save``.
        prefix: selects the names that start with it, and is stripped.

    Raises:
        ValueError: there is no file, or none that is whole, safe to read and has such names.
    """
    path = Path(path)
    if path.is_dir():
        files = shards(path)
        if not files:
            raise ValueError(f"folder {path} holds no .safetensors file; name a checkpoint, or a folder of its shards.")
        return SafetensorsSource(*files, prefix=prefix)
    if existing(path).suffix == ".safetensors":
        return SafetensorsSource(path, prefix=prefix)
    state = {name[len(prefix) :]: value for name, value in map_state(path).items() if name.startswith(prefix)}
    _refuse_empty(state, prefix, [path])
    return state


def shards(folder: Path) -> list[Path]:
    """The safetensors files in a folder, sorted.

    Args:
        folder: the folder.
    """
    return sorted(folder.glob("*.safetensors"))


def _refuse_empty(found: Mapping[str, object], prefix: str, paths: Sequence[str | Path]) -> None:
    if not found:
        raise ValueError(
            f"no tensor name starts with {prefix!r} in {', '.join(map(str, paths)) or 'no file'}; check "
            "the path and the prefix."
        )


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
            reports.append(f"{task}: {len(found)} differences\n  {_first(found, separator=chr(10) + '  ')}")
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
            lines.append(f"{name!r} has data type {other.dtype}, the base {layout.dtype}")
    return lines + [f"unexpected {name!r}" for name in found if strict and name not in reference]


def _first(items: list[str], separator: str = ", ") -> str:
    more = [f"... and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join(items[:SHOWN] + more)
