"""Tensors in files that are mapped into memory, and the files that make up one checkpoint."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from symerge_dense.fileio import new_array, parsed_json, temporary_folder
from symerge_dense.models.weight_files import CorruptFileError, existing, has_record, listing

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
INDEX = ".index.json"  # of the file that says which shard has which tensor
NUMBERED = re.compile(r"(?P<stem>.*?)-?(?P<number>\d+)-of-(?P<total>\d+)$")
TORCH = (".bin", ".pth", ".pt", ".ckpt")


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
        self.where = ", ".join(map(str, paths))  # for messages
        self.layouts: dict[str, TensorLayout] = {}
        # Mapped all at once: objects that stay, allocated between large results, would fragment memory.
        self._mapped: dict[str, Tensor] = {}
        for path in paths:
            self._enter(path)
        refuse_empty(self.layouts, prefix, paths)

    def _enter(self, path: str | Path) -> None:
        try:
            file: Any = safe_open(str(path), framework="pt")
        except SafetensorError as error:
            raise CorruptFileError(
                f"{path} is not a readable safetensors file: truncated or damaged ({error}); copy or download it again."
            ) from error
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


def scratch_tensor(numel: int, dtype: torch.dtype, folder: str | Path | None = None) -> Tensor:
    """Zeros in a file without a name, whose disk space is freed with the tensor.

    The system writes them to the disk and drops them from memory where it needs the room, and reads them again as they
    are used. They take part in all operations as other tensors do.

    Args:
        numel: how many numbers.
        dtype: their data type.
        folder: of the file; None is the system's for temporary files (``TMPDIR``), which may lie in memory.

    Returns:
        (numel,), on the CPU.

    Raises:
        ValueError: the disk is too small.
        OSError: it became full in the meantime.
    """
    place, size = Path(folder or tempfile.gettempdir()), numel * dtype.itemsize
    free = shutil.disk_usage(place).free
    if free < size:
        raise ValueError(
            f"{place} has {free / 2**30:.1f} GiB free, and {size / 2**30:.1f} are needed; make room, or choose another "
            "folder."
        )
    with temporary_folder(place / "scratch") as hidden:  # what is mapped stays, on the disk too, when its name is gone
        return torch.from_numpy(new_array(hidden / "numbers.npy", "u1", (size,))).view(dtype)  # NumPy has no bfloat16


def refuse_empty(found: Mapping[str, object], prefix: str, paths: Sequence[str | Path]) -> None:
    """Refuse a checkpoint in which no name has the prefix.

    Args:
        found: what has it.
        prefix: for the message.
        paths: of the checkpoint, for the message.

    Raises:
        ValueError: nothing was found.
    """
    if not found:
        raise ValueError(
            f"no tensor name starts with {prefix!r} in {', '.join(map(str, paths)) or 'no file'}; check "
            "the path and the prefix."
        )


# -- the files of one checkpoint --------------------------------------------------------------------------------------
def checkpoint_files(path: str | Path) -> tuple[list[Path], dict[str, str] | None]:
    """The files of a checkpoint, all of them or ValueError.

    Args:
        path: a file, a folder of the shards of one network, or the index of shards (``*.index.json``).

    Returns:
        The files, sorted, and {tensor: name of its file} where an index says it.

    Raises:
        ValueError: there is no file, the index or the numbering names a file that is missing, or a shard stands beside
            those that the index names.
    """
    path = Path(path)
    if not path.is_dir():
        if existing(path).name.endswith(INDEX):
            return _indexed(path)
        _refuse_single_shard(path)
        return [path], None
    visible = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    files = [file for file in visible if file.suffix == ".safetensors"]
    kind = (".safetensors",) if files else TORCH
    files = files or [file for file in visible if file.suffix in TORCH]
    indices = [file for file in visible if file.name.endswith(tuple(f"{suffix}{INDEX}" for suffix in kind))]
    if len(indices) == 1:
        return _indexed(indices[0], files)
    if indices:
        raise ValueError(f"folder {path} holds {listing(p.name for p in indices)}; name one of these indices.")
    if not files:
        held = f" It holds {listing(file.name for file in visible)}." if visible else ""
        raise ValueError(
            f"folder {path} holds no .safetensors file, and none of {', '.join(TORCH)}; name a checkpoint, or a folder "
            f"of its shards.{held}"
        )
    _check_numbers(path, files)
    if kind == TORCH and len(files) > 1 and not all(NUMBERED.match(file.stem) for file in files):
        raise ValueError(
            f"folder {path} holds {listing(file.name for file in files)} without an index: these may be several "
            "checkpoints; name one of them."
        )
    return files, None


def _indexed(index: Path, present: Sequence[Path] | None = None) -> tuple[list[Path], dict[str, str]]:
    """The files that an index names, and its map. ``present``: the shards in its folder, none of which may be left."""
    try:
        found = parsed_json(index.read_bytes()).get("weight_map")
    except (ValueError, AttributeError) as error:
        raise CorruptFileError(f"{index} is no index of shards ({error}); copy it again.") from error
    whole = isinstance(found, dict) and all(isinstance(file, str) for file in found.values())
    if not whole or not found or any(Path(file).name != file for file in found.values()):
        raise CorruptFileError(
            f"{index} is no index of shards: its weight_map names no files beside it; copy it again."
        )
    names = sorted(set(found.values()))
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise ValueError(
            f"{index} names shards that are missing: {listing(absent)}; half a network is not read. Copy them, too."
        )
    rest = [file.name for file in present or () if file.name not in names]
    if rest:
        raise ValueError(
            f"{index} does not name {listing(rest)}, which stand beside its shards; remove them, or name the file that "
            "is meant."
        )
    _check_numbers(index.parent, [index.parent / name for name in names])
    return [index.parent / name for name in names], found


def _refuse_single_shard(path: Path) -> None:
    found = NUMBERED.match(path.stem)
    digits = 5  # of shards; 'fold-1-of-5' may be a whole network
    if found and int(found["total"]) > 1 and len(found["total"]) >= digits and not has_record(path):
        raise ValueError(
            f"{path} is shard {int(found['number'])} of {int(found['total'])}, a part of a network; give the folder of "
            "all shards."
        )


def _check_numbers(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a folder of files like 'model-00001-of-00003' where one of a series is missing."""
    series: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if found := NUMBERED.match(file.stem):
            series.setdefault((found["stem"], int(found["total"])), set()).add(int(found["number"]))
    for (stem, total), numbers in series.items():
        absent = sorted(set(range(1, total + 1)) - numbers) if total < 10**6 else []
        if absent:
            raise ValueError(
                f"folder {folder} lacks shards {listing(map(str, absent))} of {total} of {stem}; half a network is not "
                "read. Copy them, too."
            )
    others = [file.name for file in files if not NUMBERED.match(file.stem)]
    if len(series) + bool(others and series) > 1:
        raise ValueError(
            f"folder {folder} holds shards of several networks, or of one beside other files "
            f"({listing(file.name for file in files)}); name one."
        )


def check_index(files: Mapping[str, str], found: Mapping[str, str], source: Path) -> None:
    """Compare what an index says with the tensors of its shards.

    Args:
        files: {tensor: name of its file} of the index.
        found: the same of the shards.
        source: of the checkpoint, for the message.

    Raises:
        ValueError: a tensor is not where the index says, or one is not in the index.
    """
    absent = [f"{name} in {file}" for name, file in files.items() if found.get(name) != file]
    rest = [f"{name} in {file}" for name, file in found.items() if name not in files]
    if absent or rest:
        raise CorruptFileError(
            f"{source}: index and shards differ. Missing {listing(absent)}; not in the index {listing(rest)}. Copy all "
            "files of one version again."
        )
