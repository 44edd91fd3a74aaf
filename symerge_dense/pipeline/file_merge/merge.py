"""Merge of checkpoint files into a file, tensor by tensor, with a plan that can be printed first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from symerge_dense.fileio import atomic_write
from symerge_dense.merging.base import Merger, treatment_of
from symerge_dense.merging.chunks import PART
from symerge_dense.merging.masked import Masked
from symerge_dense.merging.packed import packed_layouts, run_packed
from symerge_dense.merging.run import ProgressCallback, run
from symerge_dense.merging.safetensors_writer import WAITING, TensorFile
from symerge_dense.merging.sources import layouts
from symerge_dense.merging.tensor_specs import Kind, TensorSpec
from symerge_dense.pipeline.file_merge.inputs import BASE, Hashes, Inputs, file_identity, open_inputs
from symerge_dense.pipeline.run_info import PACKAGES
from symerge_dense.progress import Bar, console, say
from symerge_dense.registry import MERGERS
from symerge_dense.report.results import versions

MIB = 1 << 20


# -- checks of the file to write --------------------------------------------------------------------------------------
def check_out(path: str, inputs: Iterable[str], overwrite: bool) -> None:
    """Check the path of the file to write.

    Args:
        path: of the file.
        inputs: paths of the checkpoints to read.
        overwrite: whether the file may exist.

    Raises:
        ValueError: the path does not end in .safetensors, is a folder, belongs to an input, or exists.
    """
    out = Path(path)
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out} must end in .safetensors, the only format that can be written in a stream.")
    for given in map(Path, inputs):
        if out.resolve() == given.resolve() or (given.is_dir() and out.resolve().parent == given.resolve()):
            raise ValueError(f"--out {out} is one of the inputs, or in the folder of one; choose another name.")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it.")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another name, or pass --overwrite.")


def check_space(file: TensorFile, path: str) -> TensorFile:
    """Check that there is space for a file, and return it.

    Args:
        file: to be written.
        path: where; the nearest folder that exists is asked.

    Raises:
        ValueError: there is not enough space.
    """
    folder = next(folder for folder in Path(path).absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < file.size:
        raise ValueError(
            f"{path} takes {file.size / MIB:.1f} MiB, and {folder} has {free / MIB:.1f} MiB free; "
            "make room or choose another place."
        )
    return file


# -- what a merge will do and need ------------------------------------------------------------------------------------
def treatment(merger: Merger, kind: Kind, statistics: str) -> str:
    """What happens to a kind of tensor, in words.

    Args:
        merger: the method.
        kind: of tensor.
        statistics: policy for running statistics of BatchNorm.
    """
    words = {"method": merger.name, "mean": "mean of the experts", "base": "the base's"}
    found = treatment_of(merger, kind)
    return words[found] if found else f"statistics: {statistics}"


def memory(merger: Merger, inputs: Inputs, packed: bool = False) -> int:
    """Expected bytes of memory beside the libraries, without mapped files, which can be dropped at any time.

    Args:
        merger: the method. If it works on whole tensors, base, experts, result and a scratch are held in float32;
            singular vectors of matrix methods come on top.
        inputs: the opened checkpoints.
        packed: whether the merge is packed, which works on whole tensors too.
    """
    largest = max((spec.numel * spec.dtype.itemsize for spec in inputs.specs), default=0)
    results = largest + max(largest, WAITING)  # one is computed, others wait for the disk
    if merger.elementwise and not packed:
        return results + PART * 4 * (len(inputs.experts) + 8) * torch.get_num_threads()
    return results + max((spec.numel for spec in inputs.specs), default=0) * 4 * (len(inputs.experts) + 2)


def plan_table(merger: Merger, inputs: Inputs, statistics: str) -> Table:
    """One row per kind of tensor: what happens to it, how many tensors, elements and MiB.

    Args:
        merger: the method.
        inputs: the opened checkpoints.
        statistics: policy for running statistics of BatchNorm.
    """
    options = ", ".join(f"{name}={value!r}" for name, value in merger.hyperparameters.items())
    title = f"{merger.name} {options} of {len(inputs.experts)} experts"
    table = Table("kind", "gets", "tensors", "elements", "MiB", title=Text(title))
    kinds: dict[Kind, list[TensorSpec]] = {}
    for spec in inputs.specs:
        kinds.setdefault(spec.kind, []).append(spec)
    for kind, specs in kinds.items():
        numbers = sum(spec.numel for spec in specs)
        size = sum(spec.numel * spec.dtype.itemsize for spec in specs)
        table.add_row(kind, treatment(merger, kind, statistics), f"{len(specs)}", f"{numbers:,}", f"{size / MIB:.1f}")
    return table


def summary(merger: Merger, inputs: Inputs, written: int, packed: bool = False) -> str:
    """What a merge reads, writes and needs, in words.

    Args:
        merger: the method.
        inputs: the opened checkpoints.
        written: bytes to write.
        packed: whether the merge is packed.
    """
    one = inputs.tensor_bytes / MIB
    return (
        f"reads {one * (len(inputs.experts) + 1):.1f} MiB of tensors (again for every statistics pass), writes "
        f"{written / MIB:.1f} MiB, needs about {memory(merger, inputs, packed) / MIB:.0f} MiB of memory beside the "
        "libraries"
    )


# -- the merge --------------------------------------------------------------------------------------------------------
NO_HASH = "0" * 64  # placeholder of the same length


@dataclass(frozen=True)
class FileMerge:
    """A merge of files, to be planned or done.

    Args:
        merger: the method.
        base: the checkpoint that the experts were fine-tuned from.
        experts: {name: checkpoint}.
        out: the ``.safetensors`` file to write, with the names of the inputs. Its metadata 'merge' is JSON text with
            method, options, seed, inputs and versions. Equal merges of the same paths write equal bytes.
        statistics: policy for running statistics of BatchNorm.
        prefix: of the tensors to merge, see ``open_inputs``.
        seed: of random methods.
        task: whose weights to write, of a method that gives every task its own.
        device: where to compute.
        overwrite: whether ``out`` may exist.
        hash_inputs: record the SHA-256 of all inputs, computed during the merge (1 to 2 s per GB on a core of its own).
            Otherwise size and samples identify them (``file_identity``); the base of a packed merge is always hashed.
        packed: write the weights of all tasks of a method with masks, see ``merging.packed`` and ``FileUnpack``.
    """

    merger: Merger
    base: str
    experts: Mapping[str, str]
    out: str
    statistics: str = "mean"
    prefix: str | None = None
    seed: int = 0
    task: str | None = None
    device: str | None = None
    overwrite: bool = False
    hash_inputs: bool = False
    packed: bool = False

    def plan(self) -> None:
        """Check all that can be checked without merging, and print what ``merge`` would do."""
        inputs, _ = self._open(lambda specs, what: specs)
        file = self._file(inputs, self.out)
        console.print(plan_table(self.merger, inputs, self.statistics))
        say(f"{summary(self.merger, inputs, file.size, self.packed)}. Nothing was written.")

    def merge(self) -> None:
        """Write ``out`` completely or not at all.

        Raises:
            ValueError: before any work if inputs are missing, damaged or do not match, the method needs more than
                weights, space is lacking, or ``out`` exists; during the merge for NaN or infinite values.
        """
        with ExitStack() as stack:
            bars = stack.enter_context(ExitStack())
            inputs, stream = self._open(_progress(bars, len(self.experts) + 1))
            self._file(inputs, self.out)  # checks space before a folder is made
            temporary = stack.enter_context(atomic_write(self.out))
            file = stack.enter_context(self._file(inputs, temporary))
            hashes = stack.enter_context(Hashes(self._hashed(inputs)))
            prefix = "" if self.packed else inputs.prefix
            file.write_all((f"{prefix}{name}", tensor) for name, tensor in stream)
            file.replace_metadata(self._metadata(inputs, hashes.wait()))
        say(f"{self.out}: {self.merger.name} of {', '.join(self.experts)}, {file.size / MIB:.1f} MiB")

    def _open(self, progress: ProgressCallback) -> tuple[Inputs, Iterator[tuple[str, Tensor]]]:
        """The inputs, checked, and the merge, not yet begun."""
        if self.merger.needs:
            raise ValueError(
                f"{self.merger.name} needs {' and '.join(sorted(self.merger.needs))} of every expert, "
                "which come from images, and this tool has none; use tools/compare.py, or another method."
            )
        if self.merger.per_task and self.task is None and not self.packed:
            raise ValueError(
                f"{self.merger.name} gives every task weights of its own; name one with --task: "
                f"{', '.join(self.experts)}; or pass --packed for all in one file."
            )
        check_out(self.out, (self.base, *self.experts.values()), self.overwrite)
        inputs = open_inputs(self.base, self.experts, self.prefix)
        weights = inputs.base, inputs.experts, inputs.specs, self.statistics
        how: Any = {"seed": self.seed, "device": _device(self.device), "progress": progress}
        if self.packed:
            return inputs, run_packed(_with_masks(self.merger, self.task), *weights, **how)
        return inputs, run(self.merger, *weights, task=self.task, **how)

    def _file(self, inputs: Inputs, path: str | Path) -> TensorFile:
        """The file to write, for which there is space."""
        if self.packed and isinstance(self.merger, Masked):  # else ``_open`` raises
            found = packed_layouts(self.merger, inputs.specs, list(self.experts))
        else:
            found = {f"{inputs.prefix}{name}": layout for name, layout in layouts(inputs.base).items()}
        file = TensorFile(path, found, self._metadata(inputs, dict.fromkeys(self._hashed(inputs), NO_HASH)))
        return check_space(file, self.out)

    def _hashed(self, inputs: Inputs) -> list[Path]:
        """The files whose SHA-256 is recorded: of a packed merge at least the base, which unpacking needs."""
        return inputs.every_file if self.hash_inputs else inputs.files[BASE] if self.packed else []

    def _metadata(self, inputs: Inputs, hashes: Mapping[Path, str]) -> dict[str, str]:
        found = {
            name: [file_identity(file) | ({"sha256": hashes[file]} if file in hashes else {}) for file in files]
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
