"""One task's checkpoint from a packed merge of all tasks, or from packed experts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open

from symerge_dense.engine.freed_memory import giving_back
from symerge_dense.fileio import parsed_json
from symerge_dense.merging.packed import restored
from symerge_dense.merging.sources import SafetensorsSource, TensorSource, layouts, open_source
from symerge_dense.models.weight_files import existing
from symerge_dense.pipeline.file_merge.inputs import BASE
from symerge_dense.pipeline.file_merge.output import Output, check_out
from symerge_dense.pipeline.file_merge.plan import MIB
from symerge_dense.pipeline.file_merge.unpack_expert import check_base, holds_experts, write_expert
from symerge_dense.progress import say, track
from symerge_dense.registry import did_you_mean


@dataclass(frozen=True)
class FileUnpack:
    """The weights of one task from a packed merge, or a whole expert from packed experts (``write_expert``).

    Args:
        packed: the file of the merge, or what ``FilePack`` wrote.
        base: the checkpoint it was made on. It may have moved, but its bytes must be the same.
        task: whose weights to write.
        out: the file to write. Of a merge it has the base's names, and its metadata 'merge' is that of ``packed``, with
            the task.
        overwrite: whether ``out`` may exist.
        shard_size: greatest size of a file, see ``Output``; None writes one.
    """

    packed: str
    base: str
    task: str
    out: str
    overwrite: bool = False
    shard_size: int | str | None = None

    def write(self) -> None:
        """Write ``out`` completely or not at all.

        Raises:
            ValueError: ``packed`` is not packed or lacks the task, ``base`` is another one, or ``out`` is refused.
        """
        check_out(self.out, (self.packed, self.base), self.overwrite, self.shard_size)
        if holds_experts(self.packed):
            write_expert(self.packed, self.base, self.task, self.out, self.shard_size)
            return
        record = _record(self.packed)
        source = SafetensorsSource(self.packed)
        if self.task not in record["experts"]:
            raise ValueError(did_you_mean(self.task, record["experts"], f"task of {self.packed}"))
        check_base(self.base, self.packed, record)
        prefix = record["prefix"]
        base = open_source(self.base, prefix, record.get("base_key"), record.get("ema", False))
        metadata = {"format": "pt", "merge": json.dumps(record | {"task": self.task, "packed": False})}
        wanted = {f"{prefix}{name}": layout for name, layout in layouts(base).items()}
        file = Output(self.out, wanted, metadata, self.shard_size)
        with file.open():
            file.write_all((f"{prefix}{name}", tensor) for name, tensor in self._tensors(base, source))
        say(
            f"{file.path}: {record['method']} of {', '.join(record['experts'])} for {self.task}, "
            f"{file.size / MIB:.1f} MiB"
        )

    def _tensors(self, base: TensorSource, source: TensorSource) -> Iterator[tuple[str, Any]]:
        for name in giving_back(track(list(base), f"unpacking {self.task}")):
            try:
                tensor = restored(base, source, self.task, name)
            except ValueError as error:
                raise ValueError(f"{self.packed}: {error}") from error
            yield name, tensor


def _record(path: str) -> dict[str, Any]:
    """The record of a packed merge; ValueError where there is none."""
    refusal = f"{path} is no packed merge; write one with tools/merge.py --packed, or pack experts with tools/pack.py."
    if existing(path).suffix != ".safetensors":
        raise ValueError(refusal)
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("merge", "{}")
    try:
        record = parsed_json(text)
        words = [record["prefix"], record["method"]]
        words += [file[key] for file in record[BASE] for key in ("file", "sha256")]
        whole = (
            record["packed"] is True
            and isinstance(record["experts"], dict)
            and len(record[BASE]) > 0
            and all(isinstance(word, str) for word in words)
            and isinstance(record.get("base_key", ""), str)
            and isinstance(record.get("ema", False), bool)
        )
    except (ValueError, KeyError, TypeError):  # no JSON, or of another structure
        whole = False
    if not whole:
        raise ValueError(refusal)
    return dict(record)
