"""Merge of checkpoint files into a file, tensor by tensor, with a plan that can be printed first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from symerge_dense.merging.base import Merger
from symerge_dense.merging.masked import Masked
from symerge_dense.merging.packed import packed_layouts, run_packed
from symerge_dense.merging.run import ProgressCallback, run
from symerge_dense.merging.sources import layouts
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.models.weight_files import state_hash
from symerge_dense.pipeline.file_merge.inputs import (
    BASE,
    Hashes,
    Inputs,
    Weights,
    file_identity,
    open_inputs,
)
from symerge_dense.pipeline.file_merge.output import Output, check_out
from symerge_dense.pipeline.file_merge.plan import MIB, check_needs, plan_table, summary
from symerge_dense.pipeline.run_info import PACKAGES
from symerge_dense.progress import Bar, console, say
from symerge_dense.registry import MERGERS
from symerge_dense.report.results import versions

if TYPE_CHECKING:
    from symerge_dense.models.multi_task import MultiTaskModel


NO_HASH = "0" * 64  # placeholder of the same length


@dataclass(frozen=True)
class FileMerge:
    """A merge, to be planned or done: from files, or from weights in memory, to a file or into memory.

    Args:
        merger: the method.
        base: what the experts were fine-tuned from: a checkpoint, a state dict, or a network.
        experts: {name: the same}.
        out: the ``.safetensors`` file to write, with the names of the base. Its metadata 'merge' is JSON text with
            method, options, seed, inputs and versions. Equal merges of the same paths write equal bytes.
        statistics: policy for running statistics of BatchNorm.
        prefix: of the tensors to merge, see ``open_inputs``.
        keys: {'base' or name, '' for all: key of the network in a checkpoint of several}.
        ema: take averaged (EMA) weights, where a file has them.
        seed: of random methods.
        task: whose weights to write, of a method that gives every task its own.
        device: where to compute.
        overwrite: whether ``out`` may exist.
        hash_inputs: record the SHA-256 of all inputs, computed during the merge (1 to 2 s per GB on a core of its own).
            Otherwise size and samples identify them (``file_identity``); the base of a packed merge is always hashed.
        packed: write the weights of all tasks of a method with masks, see ``merging.packed`` and ``FileUnpack``.
        shard_size: greatest size of a file, in bytes or as '2GB', see ``Output``; None writes one file.
        heads: write one model, which ``load_model`` reads: the merged backbone and the heads of all experts, which are
            models of this package.
    """

    merger: Merger
    base: Weights
    experts: Mapping[str, Weights]
    out: str | None
    statistics: str = "mean"
    prefix: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    ema: bool = False
    seed: int = 0
    task: str | None = None
    device: str | None = None
    overwrite: bool = False
    hash_inputs: bool = False
    packed: bool = False
    heads: bool = False
    shard_size: int | str | None = None

    def __post_init__(self) -> None:
        if self.shard_size is not None and (self.packed or self.heads):
            raise ValueError("--shard-size is of plain merges: --packed and --heads write one file; leave it out.")

    def plan(self) -> None:
        """Check all that can be checked without merging, and print what ``merge`` would do."""
        inputs, _ = self._open(lambda specs, what: specs)
        file = self._output(inputs)
        console.print(plan_table(self.merger, inputs, self.statistics))
        say(f"{summary(self.merger, inputs, file.size, self.packed)}. Nothing was written.")

    def merge(self) -> None:
        """Write ``out`` completely or not at all.

        Raises:
            ValueError: before any work if inputs are missing, damaged or do not match, the method needs more than
                weights, space is lacking, or ``out`` exists; during the merge for NaN or infinite values.
        """
        out = str(self.out)
        if self.heads:
            self._merge_with_heads(out)
            return
        with ExitStack() as stack:
            bars = stack.enter_context(ExitStack())
            inputs, stream = self._open(_progress(bars, len(self.experts) + 1))
            file = self._output(inputs)
            stack.enter_context(file.open())
            hashes = stack.enter_context(Hashes(self._hashed(inputs)))
            prefix = "" if self.packed else inputs.prefix
            file.write_all((f"{prefix}{name}", tensor) for name, tensor in stream)
            file.replace_metadata(self._metadata(inputs, hashes.wait()))
        shards = f" in {len(file.shards)} shards" if len(file.shards) > 1 else ""
        say(f"{file.path}: {self.merger.name} of {', '.join(self.experts)}, {file.size / MIB:.1f} MiB{shards}")

    def state(self) -> tuple[Inputs, dict[str, Tensor]]:
        """The merged tensors in memory, by their names without ``Inputs.prefix``, and the opened inputs."""
        inputs, stream = self._open(lambda specs, what: specs)
        return inputs, dict(stream)

    def model(self) -> tuple[Inputs, MultiTaskModel]:
        """One model in memory: the merged backbone with copies of the experts' heads, and the opened inputs."""
        from symerge_dense.pipeline.file_merge.heads import experts_by_task, with_heads  # takes seconds

        experts = experts_by_task(self.experts)
        inputs, state = self.state()
        return inputs, with_heads(state, experts)

    def _merge_with_heads(self, out: str) -> None:
        from symerge_dense.models.checkpoint import save_model  # takes seconds: only imported when needed

        inputs, model = self.model()
        record = json.loads(self._metadata(inputs, {})["merge"])
        save_model(out, model, {"base_hash": state_hash(inputs.base), "merge": record})
        say(f"{out}: {self.merger.name} of {', '.join(self.experts)}, one model of {', '.join(model.tasks)}")

    def _open(self, progress: ProgressCallback) -> tuple[Inputs, Iterator[tuple[str, Tensor]]]:
        """The inputs, checked, and the merge, not yet begun."""
        check_needs(self.merger)
        if self.merger.per_task and self.task is None and not self.packed:
            raise ValueError(
                f"{self.merger.name} gives every task weights of its own; name one with --task: "
                f"{', '.join(self.experts)}; or pass --packed for all in one file."
            )
        if self.heads and (self.packed or self.merger.per_task or self.prefix is not None):
            raise ValueError("--heads writes one model of all tasks: leave out --packed, --task and --prefix.")
        if self.out is not None:
            paths = [str(source) for source in (self.base, *self.experts.values()) if isinstance(source, (str, Path))]
            check_out(self.out, paths, self.overwrite, self.shard_size)
        inputs = open_inputs(self.base, self.experts, self.prefix, self.keys, self.ema)
        weights = inputs.base, inputs.experts, inputs.specs, self.statistics
        how: Any = {"seed": self.seed, "device": _device(self.device), "progress": progress}
        if self.packed:
            return inputs, run_packed(_with_masks(self.merger, self.task), *weights, **how)
        return inputs, run(self.merger, *weights, task=self.task, **how)

    def _output(self, inputs: Inputs) -> Output:
        """The files to write, for which there is space."""
        if self.packed and isinstance(self.merger, Masked):  # else ``_open`` raises
            found = packed_layouts(self.merger, inputs.specs, list(self.experts))
        else:
            found = {f"{inputs.prefix}{name}": layout for name, layout in layouts(inputs.base).items()}
        metadata = self._metadata(inputs, dict.fromkeys(self._hashed(inputs), NO_HASH))
        return Output(str(self.out), found, metadata, self.shard_size)

    @property
    def _choice(self) -> dict[str, Any]:
        """How the base was chosen from its file, where that was said; ``FileUnpack`` reads it in the same way."""
        key = self.keys.get(BASE, self.keys.get(""))
        return ({} if key is None else {"base_key": key}) | ({"ema": True} if self.ema else {})

    def _hashed(self, inputs: Inputs) -> list[Path]:
        """The files whose SHA-256 is recorded: of a packed merge at least the base, which unpacking needs."""
        return inputs.every_file if self.hash_inputs else inputs.files[BASE] if self.packed else []

    def _metadata(self, inputs: Inputs, hashes: Mapping[Path, str]) -> dict[str, str]:
        found = {
            name: [file_identity(file) | ({"sha256": hashes[file]} if file in hashes else {}) for file in files]
            or [{"memory": True}]
            for name, files in inputs.files.items()
        }
        record = {
            "method": self.merger.name,
            "options": self.merger.hyperparameters,
            "statistics": self.statistics,
            "seed": self.seed,
            "task": self.task,
            "packed": self.packed,
            "prefix": inputs.prefix,
            **self._choice,
            "base": found.pop(BASE),
            "experts": found,
            "versions": versions(PACKAGES),
        }
        return {"format": "pt", "merge": json.dumps(record)}


def _with_masks(merger: Merger, task: str | None) -> Masked:
    """``merger``, if it can be packed, or ValueError."""
    if not isinstance(merger, Masked):
        raise ValueError(
            f"--packed keeps a mask for each task, and {merger.name} has none; leave it out, or use one "
            f"of {', '.join(name for name in MERGERS if issubclass(MERGERS[name], Masked))}."
        )
    if task is not None:
        raise ValueError(f"--packed writes all tasks; leave out --task {task}, or --packed.")
    return merger


def _device(name: str | None) -> torch.device | None:
    try:
        device = None if name is None else torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch raises either
        raise ValueError(f"--device {name} cannot be used ({str(error).splitlines()[0]}); use cpu.") from error
    if device is not None and device.type == "meta":
        raise ValueError("--device meta cannot be used (it holds no values); use cpu.")
    return device


def _progress(bars: ExitStack, sources: int) -> ProgressCallback:
    """Show a bar for every pass over the tensors, in MiB of ``sources`` checkpoints. ``bars`` closes it in any case."""

    def progress(specs: Sequence[TensorSpec], what: str) -> Iterator[TensorSpec]:
        sizes = [spec.numel * spec.dtype.itemsize * sources for spec in specs]
        bar, read = bars.enter_context(Bar(f"{what}, MiB", sum(sizes) // MIB)), 0
        for spec, size in zip(specs, sizes, strict=True):
            yield spec
            read += size
            bar.advance(by=read // MIB - bar.done)
        bars.close()

    return progress
