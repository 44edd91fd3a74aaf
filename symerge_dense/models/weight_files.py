"""Weights in files: reading them without trust, naming them by their content, and how they meet those of a model."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

CONTAINERS = ("state_dict", "model")  # keys under which checkpoints nest their weights
SHOWN = 10  # names printed per list of a message
KEY = "symerge_dense"  # of our JSON text in the header of a safetensors file
FORMAT = 1


class CorruptFileError(ValueError):
    """The file is truncated or damaged."""


class UnsafeFileError(ValueError):
    """The file holds pickled objects, which could run code when read."""


def listing(names: Iterable[str]) -> str:
    """'3: a, b, c', shortened to the first ten."""
    every = list(names)
    rest = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return f"{len(every)}: {', '.join(every[:SHOWN])}{rest}" if every else "0"


# -- reading ----------------------------------------------------------------------------------------------------------
def read_plain(path: str | Path) -> Any:
    """Content of a ``torch.save`` file of tensors and plain values, on the CPU.

    Raises UnsafeFileError for anything else that is pickled in it, CorruptFileError where it is damaged (checked
    against the checksums of the file), ValueError where there is no such file.
    """
    path = existing(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise CorruptFileError(f"checksum of {damaged}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the type depends on where the reader stumbles: RuntimeError, EOFError, pickle's own
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ValueError:
    text = str(error)
    if any(word in text.lower() for word in ("unsupported global", "unsupported class", "blocked")):
        return UnsafeFileError(
            f"{path} holds pickled objects besides tensors and is not read: they could run code. "
            "Where it was written, save a plain state dict: torch.save(model.state_dict(), PATH)."
        )
    if "Unsupported operand" in text:
        return UnsafeFileError(
            f"{path} is a bare pickle or no checkpoint at all; it is not read. Give a file written "
            "by torch.save(model.state_dict()) or by safetensors."
        )
    return CorruptFileError(
        f"{path} is truncated or damaged ({text.splitlines()[0][:120] if text else 'empty'}); "
        "copy or download it again."
    )


def existing(path: str | Path) -> Path:
    """``path``, which must be a file (ValueError)."""
    path = Path(path)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:SHOWN] if path.parent.is_dir() else []
        raise ValueError(
            f"there is no file {path}. "
            + (
                f"Its folder holds: {', '.join(near)}."
                if near
                else f"Its folder {path.parent} holds no {path.suffix} file."
            )
        )
    return path


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name of a ``.safetensors`` file or a ``torch.save`` file (also nested under 'state_dict' or 'model').

    Raises ValueError, naming the file and the remedy, where it is missing, damaged, holds pickled objects or no
    tensors, or where a tensor is not finite.
    """
    path = existing(path)
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    else:
        content = read_plain(path)
        state = _tensors(content, path)
    refuse_non_finite(state, str(path))
    return state


def map_state(path: str | Path) -> dict[str, Tensor]:
    """``read_state`` of a ``torch.save`` file that may be larger than memory: values are read where they are used.

    Neither checksums nor values are looked at. What PyTorch wrote before version 1.6 cannot be mapped and is read
    whole. Raises ValueError as ``read_state`` does.
    """
    path = existing(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # as in read_plain
        raise _refusal(path, error) from error
    return _tensors(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CorruptFileError(f"{path} is truncated or damaged ({error}); copy or download it again.") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and any(isinstance(content.get(key), Mapping) for key in CONTAINERS):
        content = next(content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping))
    items = content.items() if isinstance(content, Mapping) else ()
    state = {
        name.removeprefix("module."): value
        for name, value in items
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    odd = [name for name, value in state.items() if value.layout != torch.strided or value.is_meta]
    if odd:
        raise ValueError(f"{path}: {listing(odd)} sparse, or without values (device meta); save dense tensors.")
    if not state:
        keys = ", ".join(map(str, content))[:200] if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{path} holds no tensors by name (found: {keys}); weights are looked for at the top level "
            f"and under {' and '.join(CONTAINERS)}."
        )
    return state


def has_record(path: str | Path) -> bool:
    """Is this a model file of this package?"""
    if Path(path).suffix != ".safetensors":
        return False
    with safe_open(existing(path), framework="pt") as file:
        return KEY in (file.metadata() or {})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The record of a model file, without reading its weights.

    Raises ValueError for a missing or damaged file, one that is not of this package, and one of a newer format.
    """
    path = existing(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
        metadata = json.loads(text) if text is not None else None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CorruptFileError(
            f"{path} is truncated, damaged or no safetensors file ({error}); copy it again, or train it again."
        ) from error
    if not isinstance(metadata, dict) or "model" not in metadata or not isinstance(metadata.get("format"), int):
        raise ValueError(
            f"{path} is not a model file of symerge_dense: its header says nothing about the network. "
            "Plain weights of a backbone are read by load_base(checkpoint=PATH)."
        )
    if metadata["format"] > FORMAT:
        raise ValueError(
            f"{path} has format {metadata['format']}, this version reads up to {FORMAT}; update the package."
        )
    return metadata


def refuse_non_finite(state: Mapping[str, Tensor], owner: str) -> None:
    """Raise ValueError naming the tensors of ``owner`` that hold NaN or infinity."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ValueError(
            f"{owner}: {listing(bad)} not finite (NaN or inf); its training diverged, take an earlier one."
        )


def state_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 (64 hex digits) over names, dtypes, shapes and bytes of all tensors; independent of order and device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -- how the tensors of a file meet those of a model ------------------------------------------------------------------
def part_of(name: str) -> str:
    """The part of a multi-task model that a tensor belongs to: 'backbone', 'heads.depth', ..."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "heads" and rest else first


@dataclass(frozen=True)
class MatchReport:
    """How tensors of a file meet those of a model, by name. ``dropped``: known, of no use to this model."""

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Every tensor of the model found, with its shape, and nothing unknown left over."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        kinds = {kind: getattr(self, kind) for kind in self.__dataclass_fields__}
        parts = sorted({part_of(name) for names in kinds.values() for name in names})
        lines = []
        for part in parts:
            mine = {kind: [n for n in names if part_of(n.split(" ")[0]) == part] for kind, names in kinds.items()}
            rest = [
                f"{kind.replace('_', ' ')} {listing(names)}"
                for kind, names in mine.items()
                if kind != "matched" and (names or kind not in ("dropped", "wrong_shape"))
            ]
            lines.append(f"{part}: matched {len(mine['matched'])}, {', '.join(rest)}")
        return "\n".join(lines)


def match_report(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], dropped: Iterable[str] = ()) -> MatchReport:
    """Compare tensors ``given`` by a file with those ``wanted`` by a model. ``dropped`` is only passed on.

    BatchNorm counters (``num_batches_tracked``) that a file lacks do not count as missing: old files have none.
    """
    wrong = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    return MatchReport(
        matched=tuple(name for name in wanted if name in given and name not in wrong),
        missing=tuple(missing),
        unexpected=tuple(name for name in given if name not in wanted),
        wrong_shape=tuple(f"{n} {tuple(given[n].shape)} for {tuple(wanted[n].shape)}" for n in wrong),
        dropped=tuple(dropped),
    )
