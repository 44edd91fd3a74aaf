"""Weights in files: reading them without trust, hashing them, and comparing them with those of a model."""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from symerge_dense.fileio import parsed_json
from symerge_dense.models.file_kinds import DAMAGED_ZIP, container_of
from symerge_dense.models.pickle_protocols import has_memory, in_known_protocol, too_old

SHOWN = 10  # names printed per list of a message
# What Python's own readers of zip files and pickles say of a damaged file; OSError: of a place before its start.
MALFORMED = (*DAMAGED_ZIP, zlib.error, EOFError, ValueError, RuntimeError, OSError)
KEY = "symerge_dense"  # of our JSON text in the header of a safetensors file
MODEL_FORMAT = 1
NO_RECORD = "as save_model writes experts. Plain weights of a backbone are read by load_base(checkpoint=PATH)."


class CorruptFileError(ValueError):
    """The file is truncated or damaged."""


class UnsafeFileError(ValueError):
    """The file holds pickled objects, which could run code when read."""


def listing(names: Iterable[str]) -> str:
    """Count and names as one text, such as '3: a, b, c'; after the first ten, only how many more there are.

    Args:
        names: what to list.
    """
    every = list(names)
    rest = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return f"{len(every)}: {', '.join(every[:SHOWN])}{rest}" if every else "0"


# -- reading ----------------------------------------------------------------------------------------------------------
def read_plain(path: str | Path, mapped: bool = False) -> Any:
    """Content of a ``torch.save`` file of tensors and plain values, on the CPU.

    Args:
        path: the file; pickled by any protocol.
        mapped: read values when they are used, so that the file may be larger than memory. Neither checksums nor values
            are checked then. Files of PyTorch before 1.6, and of newer pickle protocols, are read whole all the same.

    Raises:
        UnsafeFileError: it holds any other pickled object.
        CorruptFileError: it is damaged; its checksums are verified.
        ValueError: there is no such file.
    """
    path = existing(path)
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped and not mapped:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise CorruptFileError(f"checksum of {damaged}")
        readable = in_known_protocol(path)
    except MALFORMED as error:
        raise _refusal(path, error) from error
    try:
        if isinstance(readable, Path) and path.suffix == ".safetensors":  # PyTorch would go by the suffix
            readable = io.BytesIO(path.read_bytes())
        mapped = mapped and zipped and isinstance(readable, Path)
        return torch.load(readable, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError as error:
        if not has_memory(2 * path.stat().st_size):
            raise
        raise _refusal(path, ValueError("it asks for more memory than it has bytes")) from error
    except Exception as error:  # the type depends on where the reader stumbles: RuntimeError, EOFError, pickle's own
        raise _refusal(path, error) from error


# What PyTorch's restricted reader says about a name off the list, and about calling what the file itself made.
REFUSED = r"GLOBAL (\S+) (?:was not|whose module)|unrecognized function|Can only (?:create new object|build)"


def _refusal(path: Path, error: Exception) -> ValueError:
    text = str(error)
    if (found := re.search(REFUSED, text)) or any(
        word in text.lower() for word in ("unsupported global", "unsupported class", "blocked")
    ):
        what = f"the pickled object {found[1] or 'of a call'}" if found else "pickled objects besides tensors"
        return UnsafeFileError(
            f"{path} holds {what} and is not read: it could run code. Where the file was written, keep its weights "
            "alone, torch.save(checkpoint['state_dict'], PATH) or torch.save(model.state_dict(), PATH), and give that "
            "file."
        )
    if "Unsupported operand" in text and (protocol := too_old(path)) is not None:
        return UnsafeFileError(
            f"{path} was saved with pickle protocol {protocol}, which is not read. Load it where it was written, and "
            "save it again by torch.save(model.state_dict(), PATH), without pickle_protocol."
        )
    if "Unsupported operand" in text:
        return UnsafeFileError(
            f"{path} is a bare pickle or no checkpoint at all; it is not read. Give a file written "
            "by torch.save(model.state_dict(), PATH) or by safetensors."
        )
    return CorruptFileError(
        f"{path} is truncated or damaged ({text.splitlines()[0][:120] if text else 'empty'}); "
        "copy or download it again."
    )


def existing(path: str | Path) -> Path:
    """Check that a file exists, and return its path.

    Args:
        path: the file.

    Raises:
        ValueError: there is no such file; the message lists files of the same type in its folder.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:SHOWN] if path.parent.is_dir() else []
        found = f"holds: {', '.join(near)}" if near else f"{path.parent} holds no {path.suffix} file"
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        meant = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
        hint = f" Did you mean {path.parent / meant[0]}?" if meant else ""
        raise ValueError(f"there is no file {path}. Its folder {found}.{hint}")
    return path


def has_record(path: str | Path) -> bool:
    """Whether a file is a model file of this package, by its content, whatever its suffix.

    Args:
        path: the file.
    """
    try:
        with safe_open(existing(path), framework="pt") as file:
            return KEY in (file.metadata() or {})
    except SafetensorError:  # another container, or a damaged file: its reader says so
        return False


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The record of a model file, without reading its weights.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing or damaged, is not of this package, or has a newer format.
    """
    path = existing(path)
    if container_of(path) != "safetensors":
        raise ValueError(f"{path} is not read: it is no safetensors file, {NO_RECORD}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
        metadata = parsed_json(text) if text is not None else None
    except (SafetensorError, ValueError) as error:
        raise CorruptFileError(
            f"{path} is truncated, damaged or no safetensors file ({error}); copy it again, or train it again."
        ) from error
    if not isinstance(metadata, dict) or "model" not in metadata or not isinstance(metadata.get("format"), int):
        raise ValueError(f"{path} is not a model file of symerge_dense, {NO_RECORD}")
    if metadata["format"] > MODEL_FORMAT:
        raise ValueError(
            f"{path} has format {metadata['format']}, this version reads up to {MODEL_FORMAT}; update the package."
        )
    return metadata


def refuse_non_finite(state: Mapping[str, Tensor], owner: str) -> None:
    """Refuse tensors that hold NaN or infinity.

    Args:
        state: tensors by name.
        owner: whose they are, for the message.

    Raises:
        ValueError: a tensor is not finite; the message names it.
    """
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ValueError(
            f"{owner}: {listing(bad)} not finite (NaN or inf); its training diverged, take an earlier one."
        )


def state_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 (64 hex digits) over names, dtypes, shapes and bytes of all tensors; independent of order and device.

    Args:
        state: tensors by name.
    """
    digest = StateHash()
    for name in sorted(state):
        digest.add(name, state[name])
    return digest.hexdigest()


class StateHash:
    """What ``state_hash`` gives, of tensors that come one by one, in the order of their sorted names."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in one tensor.

        Args:
            name: of the tensor; after all names before.
            tensor: the tensor.
        """
        value = tensor.detach().cpu().contiguous()
        self._digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        self._digest.update(value.reshape(-1).view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        """The hash of all tensors so far, 64 hex digits."""
        return self._digest.hexdigest()


# -- comparing the tensors of a file with those of a model ------------------------------------------------------------
def part_of(name: str) -> str:
    """The part of a multi-task model that a tensor belongs to: 'backbone', 'heads.depth', ...

    Args:
        name: of the tensor in the model's state.
    """
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "heads" and rest else first


@dataclass(frozen=True)
class MatchReport:
    """Which tensors of a file and of a model fit together, by name.

    Args:
        matched: in both, of the same shape.
        missing: in the model alone.
        unexpected: in the file alone.
        wrong_shape: in both, of different shapes; each entry gives the two shapes.
        dropped: in the file, known, but of no use to this model.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Whether every tensor of the model was found with its shape, and nothing unknown is left over."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        kinds = {kind: getattr(self, kind) for kind in self.__dataclass_fields__}
        lines = []
        for part in sorted({part_of(name) for names in kinds.values() for name in names}):
            mine = {kind: [n for n in names if part_of(n.split(" ")[0]) == part] for kind, names in kinds.items()}
            rest = [
                f"{kind.replace('_', ' ')} {listing(names)}"
                for kind, names in mine.items()
                if kind != "matched" and (names or kind not in ("dropped", "wrong_shape"))
            ]
            lines.append(f"{part}: matched {len(mine['matched'])}, {', '.join(rest)}")
        return "\n".join(lines)


def match_report(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], dropped: Iterable[str] = ()) -> MatchReport:
    """Compare the tensors of a file with those of a model.

    BatchNorm counters (``num_batches_tracked``) that a file lacks do not count as missing: old files have none.

    Args:
        given: tensors of the file.
        wanted: tensors of the model.
        dropped: names for the report's entry of that name; only passed on.
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
