"""Whole experts packed into one file, as task vectors of a few bits per weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from symerge_dense.engine.freed_memory import giving_back
from symerge_dense.merging.packed_experts import ExpertPacker, Packing
from symerge_dense.merging.sources import TensorSource, with_prefix
from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.pipeline.file_merge.inputs import BASE, NO_KEYS, Hashes, Inputs, file_identity, open_inputs
from symerge_dense.pipeline.file_merge.merge import NO_HASH
from symerge_dense.pipeline.file_merge.output import Output, check_out
from symerge_dense.pipeline.file_merge.plan import MIB
from symerge_dense.pipeline.run_info import PACKAGES
from symerge_dense.progress import say, track
from symerge_dense.report.results import versions

FORMAT = 1
ENTRY = "packed_experts"  # of the metadata


@dataclass(frozen=True)
class FilePack:
    """Experts to pack into one file, from which ``FileUnpack`` takes each of them whole, heads included.

    Matrices, convolutions and embeddings are quantised; tensors of one dimension or of fewer than 1024 numbers, running
    statistics, counters, and what lies outside of ``prefix`` (heads) are kept bit for bit. Experts come back by their
    names; one whose names differ from the base's by a prefix of all ('model.'), by the base's.

    Args:
        base: the checkpoint that the experts were fine-tuned from; not in the file, but needed to unpack it.
        experts: {task: checkpoint}.
        out: the ``.safetensors`` file to write. Its metadata 'packed_experts' is JSON text with a format number, bits,
            inputs, versions and what the headers of the experts said. Equal inputs write equal bytes.
        packing: bits per weight.
        prefix: of the tensors that base and experts share, see ``open_inputs``.
        keys: {'base' or task, '' for all: key of the network in a checkpoint of several}.
        ema: take averaged (EMA) weights, where a file has them.
        overwrite: whether ``out`` may exist.
    """

    base: str
    experts: Mapping[str, str]
    out: str
    packing: Packing = field(default_factory=Packing)
    prefix: str | None = None
    keys: Mapping[str, str] = field(default_factory=lambda: NO_KEYS)
    ema: bool = False
    overwrite: bool = False

    def plan(self) -> None:
        """Check all that can be checked without packing, and print what ``write`` would do."""
        inputs, packer, record = self._open()
        file = Output(self.out, packer.layouts, _metadata(record))
        say(f"{self._summary(inputs, file.size)}. Nothing was written.")

    def write(self) -> dict[str, float]:
        """Write ``out`` completely or not at all, and print its size and the error of every expert.

        Returns:
            {task: relative error of its packed task vector, 0 for none}.

        Raises:
            ValueError: before any work if inputs are missing, damaged or do not match, space is lacking, or ``out``
                exists; during the work for NaN or infinite values.
        """
        inputs, packer, record = self._open()
        file = Output(self.out, packer.layouts, _metadata(record))
        with file.open(), Hashes(inputs.files[BASE]) as hashes:
            file.write_all(packer.stream(giving_back(track(packer.names, "packing"))))
            for entry in record[BASE]:
                entry["sha256"] = hashes.wait()[Path(entry["file"])]
            for task, digest in packer.hashes.items():
                record["experts"][task]["hash"] = digest
            file.replace_metadata(_metadata(record))
        say(f"{self.out}: {self._summary(inputs, file.size)}")
        for task, error in packer.errors.items():
            say(f"{task}: relative error of the task vector {error:.3f}")
        return packer.errors

    def _summary(self, inputs: Inputs, size: int) -> str:
        whole = sum(file.stat().st_size for task in self.experts for file in inputs.files[task])
        shared = self.packing.shared_bits
        return (
            f"{', '.join(self.experts)} in {self.packing.bits} bits per weight and task"
            f"{f', {shared} bits shared' if shared else ''}, {size / MIB:.1f} MiB, {size / whole:.1%} of the "
            f"{whole / MIB:.1f} MiB of their files"
        )

    def _open(self) -> tuple[Inputs, ExpertPacker, dict[str, Any]]:
        check_out(self.out, (self.base, *self.experts.values()), self.overwrite)
        inputs = open_inputs(self.base, self.experts, self.prefix, self.keys, self.ema)
        key = self.keys.get(BASE, self.keys.get(""))
        read = read_foreign(self.base, key, self.ema, mapped=True)  # as ``open_packed`` will
        if set(with_prefix(read.state, inputs.prefix, self.base, read.wrapper)) != set(inputs.base):
            raise ValueError(
                f"{self.base} calls its tensors other names than the experts; give the base file that was written "
                "beside them, or save the base by their names."
            )
        prefix, outside = self._outside(inputs)
        packer = ExpertPacker(self.packing, inputs.base, inputs.experts, inputs.specs, prefix, outside)
        chosen = ({} if key is None else {"base_key": key}) | ({"ema": True} if self.ema else {})
        record = {
            "format": FORMAT,
            **asdict(self.packing),
            "prefix": inputs.prefix,
            "expert_prefix": prefix,
            **chosen,
            BASE: [file_identity(file) | {"sha256": NO_HASH} for file in inputs.files[BASE]],
            "experts": {
                task: {
                    "files": [file_identity(file) for file in inputs.files[task]],
                    "header": _header(inputs.files[task]),
                    "hash": NO_HASH,
                }
                for task in sorted(self.experts)
            },
            "versions": versions(PACKAGES),
        }
        return inputs, packer, record

    def _outside(self, inputs: Inputs) -> tuple[str, dict[str, TensorSource]]:
        """The prefix in the experts, and their tensors without it."""
        found, prefixes = dict[str, TensorSource](), set[str]()
        for task, path in self.experts.items():
            read = read_foreign(path, self.keys.get(task, self.keys.get("")), self.ema, mapped=True)
            within = any(name.startswith(inputs.prefix) for name in read.state)
            prefix = inputs.prefix if within else inputs.prefix.removeprefix(read.wrapper)
            prefixes.add(prefix)
            found[task] = {name: value for name, value in read.state.items() if not name.startswith(prefix)}
        if len(prefixes) > 1:
            raise ValueError(
                f"the names of the shared tensors begin with {' or '.join(map(repr, sorted(prefixes)))}, depending on "
                "the expert; save the experts by the same names."
            )
        return prefixes.pop(), found


def _header(files: list[Path]) -> dict[str, str]:
    """Metadata of an expert of one safetensors file."""
    if len(files) != 1:
        return {}
    try:
        with safe_open(files[0], framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:  # of torch.save
        return {}


def _metadata(record: Mapping[str, Any]) -> dict[str, str]:
    return {"format": "pt", ENTRY: json.dumps(record)}
