"""The inputs of a merge, in files or in memory: opened, described, and identified by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from symerge_dense.merging.sources import TensorSource, layouts, with_prefix
from symerge_dense.merging.tensor_specs import TensorSpec, specs_from_state, tensor_specs
from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.mapped_files import checkpoint_files
from symerge_dense.models.network_entries import OWNERS, Network, common_prefix, network_in
from symerge_dense.models.weight_files import has_record, read_metadata, state_hash
from symerge_dense.models.whole_network import check_whole
from symerge_dense.progress import say

BASE = "base"
SHARED = "backbone."  # prefix of the tensors that this package merges in its own models
CHUNK, BLOCK = 1 << 20, 1 << 16  # bytes
SAMPLES = 32
NO_KEYS: Mapping[str, str] = MappingProxyType({})

Weights: TypeAlias = "str | Path | Mapping[str, Any] | nn.Module"
"""A checkpoint's path, a state dict, or a network."""


@dataclass(frozen=True)
class Inputs:
    """The opened inputs. All names of tensors are without ``prefix``.

    Args:
        base: tensors of the base.
        experts: {name: tensors of the expert}.
        files: {'base' or name: files of the checkpoint}; none for what is in memory.
        specs: the tensors to merge.
        prefix: of these tensors in the base.
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


@dataclass(frozen=True)
class _Opened:
    """One input: its tensors, and what else is known of it."""

    name: str
    state: dict[str, Tensor]
    wrapper: str
    files: list[Path] = field(default_factory=list)
    record: Mapping[str, Any] = field(default_factory=dict)
    module: nn.Module | None = None
    averaged: bool = False

    @property
    def label(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else self.name

    @property
    def backbone(self) -> Mapping[str, Any] | None:
        """Arguments of the backbone where this is a model of this package."""
        if self.record:
            found: Mapping[str, Any] = self.record["model"]["backbone"]
            return found
        return _spec(self.module)


def _spec(module: nn.Module | None) -> Mapping[str, Any] | None:
    spec = getattr(getattr(module, "backbone", None), "spec", None)
    return spec if isinstance(spec, Mapping) else None


def open_inputs(
    base: Weights,
    experts: Mapping[str, Weights],
    prefix: str | None = None,
    keys: Mapping[str, str] = NO_KEYS,
    ema: bool = False,
) -> Inputs:
    """Open all inputs, and read the base only to compare it with what the experts say of theirs.

    The kind and depth of every tensor come from the network where one is known: a module is among the inputs, or the
    backbone of this package's models is merged. Else they come from names and shapes (``specs_from_state``).

    Prefixes that all names of an input share are no difference: 'module.' and '_orig_mod.' are taken off, and 'model.'
    where the names of base and experts differ by it. The base of models of this package may be any file that
    ``load_base`` reads.

    Args:
        base: file or folder, state dict, or network.
        experts: {name: the same}.
        prefix: of the tensors to merge; None takes all tensors, or the backbone of this package's models.
        keys: {'base' or name, '' for all: key of the network in a checkpoint of several}.
        ema: take averaged (EMA) weights, where a file has them.

    Raises:
        ValueError: a file is missing, damaged, or without such tensors, an expert is called 'base', or a key is for
            none of them.
    """
    if BASE in experts:
        raise ValueError(f"no expert can be called {BASE!r}; give it the name of its task.")
    unknown = [name for name in keys if name not in ("", BASE, *experts)]
    if unknown:
        raise ValueError(f"--key {unknown[0]}=...: there is no such input; there are {', '.join([BASE, *experts])}.")
    sources = {BASE: base, **experts}
    opened = {name: _opened(name, source, keys.get(name, keys.get("")), ema) for name, source in sources.items()}
    if ema and not any(one.averaged for one in opened.values()):
        raise ValueError("--ema takes averaged (EMA) weights, and no input has any; leave it out.")
    origin = opened.pop(BASE)
    spec = next((one.backbone for one in [origin, *opened.values()] if one.backbone is not None), None)
    chosen = (SHARED if spec is not None else "") if prefix is None else prefix
    own = spec is not None and chosen == SHARED
    found = {name: with_prefix(one.state, chosen, one.label, one.wrapper) for name, one in opened.items()}
    for name, one in opened.items():
        _check_own(one, found[name])
    if own and spec is not None:
        tensors, specs = _own_base(origin, spec)
    else:
        tensors = with_prefix(origin.state, chosen, origin.label, origin.wrapper)
        found = {name: _named_like(tensors, state) for name, state in found.items()}
        _check_own(origin, tensors)
        specs = _specs(tensors, [origin, *opened.values()])
    if own:
        _check_base(tensors, {name: one.record for name, one in opened.items() if one.record})
    _warn_of_equal({BASE: tensors, **found})
    return Inputs(tensors, found, {one.name: one.files for one in [origin, *opened.values()]}, specs, chosen)


def _opened(name: str, source: Weights, key: str | None, ema: bool) -> _Opened:
    if isinstance(source, (str, Path)):
        read = read_foreign(source, key, ema, mapped=True)
        files = checkpoint_files(source)[0]
        record = read_metadata(files[0]) if len(files) == 1 and has_record(files[0]) else {}
        one = _Opened(name, read.state, read.wrapper, files, record, averaged=read.averaged)
        remarks = read.remarks
    else:
        content = source.state_dict() if isinstance(source, nn.Module) else source
        own = key is None and isinstance(source, nn.Module) and _spec(source) is not None
        kept = Network(dict(content)) if own else network_in(content, f"{name} (in memory)", key, ema)
        state = {name: value.detach() for name, value in kept.state.items()}
        module = source if isinstance(source, nn.Module) else None
        one = _Opened(name, state, kept.wrapper, module=module, averaged=kept.averaged)
        remarks = kept.remarks
    for remark in remarks:
        say(f"{one.label}: {remark}")
    return one


def _check_own(one: _Opened, state: TensorSource) -> None:
    """What is merged of this package's models; their heads, which may be of any kind, are read unchecked."""
    if one.backbone is not None:
        check_whole(state, {}, one.label)


def _own_base(origin: _Opened, spec: Mapping[str, Any]) -> tuple[TensorSource, list[TensorSpec]]:
    """The base of models of this package: the backbone that they describe, from any file that fits it."""
    from symerge_dense.models.backbone import TimmBackbone, load_weights  # takes seconds: only imported when needed

    backbone = TimmBackbone(**spec)  # heads may be plug-ins
    wanted, specs = backbone.state_dict(), tensor_specs(backbone)
    for prefix in (SHARED, ""):  # a model of this package, or its backbone alone
        if {name.removeprefix(prefix) for name in origin.state if name.startswith(prefix)} == set(wanted):
            return with_prefix(origin.state, prefix, origin.label), specs
    if any(name.startswith(f"{SHARED}body.") for name in origin.state):
        return with_prefix(origin.state, SHARED, origin.label), specs  # of another architecture, as is said later
    load_weights(backbone, origin.state, origin.label)
    return backbone.state_dict(), specs


def _warn_of_equal(sources: Mapping[str, TensorSource]) -> None:
    """Warn of inputs of equal weights. Different ones differ in the first tensors, so little is read of them."""
    for (first, one), (second, other) in combinations(sources.items(), 2):
        if one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items()):
            why = "it learned nothing, or is the wrong file" if first == BASE else "the same network counts twice"
            say(f"warning: {first} and {second} have equal weights: {why}; check the paths.")


def _named_like(base: TensorSource, expert: TensorSource) -> TensorSource:
    """An expert by the names of the base, where the two differ in prefixes of all names only."""
    if expert.keys() == base.keys():
        return expert
    ours, theirs = common_prefix(base, OWNERS), common_prefix(expert, OWNERS)
    renamed = {ours + name.removeprefix(theirs): value for name, value in expert.items()}
    return renamed if renamed.keys() == base.keys() else expert


def _specs(base: TensorSource, inputs: Sequence[_Opened]) -> list[TensorSpec]:
    """By a module that has exactly these tensors, else by names and shapes."""
    known = layouts(base)
    for one in inputs:
        if one.module is not None and not one.wrapper:
            specs = tensor_specs(one.module)
            if {spec.name: (spec.shape, spec.dtype) for spec in specs} == {k: tuple(v) for k, v in known.items()}:
                return specs
    return specs_from_state(base)


def _check_base(base: TensorSource, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse experts that say that they started from another base. Models of this package do; others say nothing."""
    known = [name for name, record in records.items() if record.get("base_hash")]
    if not known:
        return
    from symerge_dense.models.checkpoint import check_same_base  # takes seconds: only imported when needed

    try:
        check_same_base({BASE: {"base_hash": state_hash(base)}, **{name: records[name] for name in known}})
    except ValueError as error:
        raise ValueError(f"{error} --base is the file that all of them were fine-tuned from.") from error


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
