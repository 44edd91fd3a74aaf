"""The checkpoints of a merge: opened, described, and identified by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from symerge_dense.merging.sources import TensorSource, open_source, shards
from symerge_dense.merging.tensor_specs import TensorSpec, specs_from_state, tensor_specs
from symerge_dense.models.weight_files import has_record, read_metadata, state_hash

BASE = "base"
SHARED = "backbone."  # prefix of the tensors that this package merges in its own models
CHUNK, BLOCK = 1 << 20, 1 << 16  # bytes
SAMPLES = 32


@dataclass(frozen=True)
class Inputs:
    """The opened checkpoints. All names of tensors are without ``prefix``.

    Args:
        base: tensors of the base.
        experts: {name: tensors of the expert}.
        files: {'base' or name: files of the checkpoint}.
        specs: the tensors to merge.
        prefix: of these tensors in the files.
    """

    base: TensorSource
    experts: dict[str, TensorSource]
    files: dict[str, list[Path]]
    specs: list[TensorSpec]
    prefix: str

    @property
    def every_file(self) -> list[Path]:
        """The files of all inputs."""
        return [file for files in self.files.values() for file in files]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the tensors of one checkpoint."""
        return sum(spec.numel * spec.dtype.itemsize for spec in self.specs)


def open_inputs(base: str | Path, experts: Mapping[str, str | Path], prefix: str | None = None) -> Inputs:
    """Open all files, and read the base only to compare it with what the experts say of theirs.

    The kind and depth of every tensor come from the network if the backbone of this package's model files is merged,
    else from names and shapes (``specs_from_state``).

    Args:
        base: file or folder of the base.
        experts: {name: file or folder}.
        prefix: of the tensors to merge; None takes all tensors, or the backbone of this package's model files.

    Raises:
        ValueError: a file is missing, damaged, or without such tensors, or an expert is called 'base'.
    """
    if BASE in experts:
        raise ValueError(f"no expert can be called {BASE!r}; give it the name of its task.")
    paths = {BASE: Path(base), **{name: Path(path) for name, path in experts.items()}}
    own = next((path for path in paths.values() if path.is_file() and _is_own(path)), None)
    chosen = (SHARED if own else "") if prefix is None else prefix
    sources = {name: open_source(path, chosen) for name, path in paths.items()}
    files = {name: shards(path) if path.is_dir() else [path] for name, path in paths.items()}
    origin = sources.pop(BASE)
    _check_base(origin, {name: path for name, path in paths.items() if name != BASE}, chosen)
    if own and chosen == SHARED:
        from symerge_dense.models.backbone import TimmBackbone  # takes seconds: only imported when needed

        specs = tensor_specs(TimmBackbone(**read_metadata(own)["model"]["backbone"]))  # heads may be plug-ins
    else:
        specs = specs_from_state(origin)
    return Inputs(origin, sources, files, specs, chosen)


def _check_base(base: TensorSource, experts: Mapping[str, Path], prefix: str) -> None:
    """Refuse experts that say that they started from another base. Models of this package do; others say nothing."""
    records = {name: read_metadata(path) for name, path in experts.items() if path.is_file() and has_record(path)}
    known = {name: record["base_hash"] for name, record in records.items() if record.get("base_hash")}
    if not known or prefix != SHARED:
        return
    from symerge_dense.models.checkpoint import check_same_base  # takes seconds: only imported when needed

    try:
        check_same_base({BASE: {"base_hash": state_hash(base)}, **{name: records[name] for name in known}})
    except ValueError as error:
        raise ValueError(f"{error} --base is the file that all of them were fine-tuned from.") from error


def _is_own(path: str | Path) -> bool:
    open_source(path)  # reports a damaged file
    return has_record(path)


def file_identity(file: Path) -> dict[str, Any]:
    """Identify a file by samples of its content.

    Two checkpoints of one network have the same header, but weights of different trainings differ in the samples. A
    change of a few tensors may lie between the samples; ``Hashes`` detects it.

    Args:
        file: a checkpoint.

    Returns:
        'file' (its path), 'size' in bytes, and 'sampled_sha256': of the first block, which has the header, and of
        ``SAMPLES`` more that are spread evenly over the file, the last block among them.
    """
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for number in range(SAMPLES + 1):
            stream.seek(max(0, size - BLOCK) * number // SAMPLES)
            digest.update(stream.read(BLOCK))
    return {"file": str(file), "size": size, "sampled_sha256": digest.hexdigest()}


class Hashes:
    """Context manager: the SHA-256 of files, computed by a thread during other work.

    Args:
        files: what to hash.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files, self._found = files, dict[Path, str]()
        self._stopped = Event()
        self._error: OSError | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Hashes:
        self._thread.start()
        return self

    def wait(self) -> dict[Path, str]:
        """Wait for the hashes of all files.

        Returns:
            {file: SHA-256 in hexadecimal}.

        Raises:
            OSError: a file could not be read.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for path in self._files:
                digest = hashlib.sha256()
                with path.open("rb") as file:
                    while (block := file.read(CHUNK)) and not self._stopped.is_set():
                        digest.update(block)
                self._found[path] = digest.hexdigest()
        except OSError as error:
            self._error = error
