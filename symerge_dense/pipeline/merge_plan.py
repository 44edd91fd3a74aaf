"""What a merge of files will do and need, said before it is done."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rich.table import Table
from rich.text import Text

from symerge_dense.merging.base import Merger
from symerge_dense.merging.job import treatment_of
from symerge_dense.merging.kinds import Kind, TensorSpec
from symerge_dense.merging.parts import PART
from symerge_dense.merging.writer import WAITING
from symerge_dense.pipeline.merge_inputs import Inputs
from symerge_dense.pipeline.merge_out import MIB


def treatment(merger: Merger, kind: Kind, statistics: str) -> str:
    """What a kind of tensor gets, in words."""
    words = {"method": merger.name, "mean": "mean of the experts", "base": "the base's"}
    found = treatment_of(merger, kind)
    return words[found] if found else f"statistics: {statistics}"


def memory(merger: Merger, inputs: Inputs, packed: bool = False) -> int:
    """Expected bytes of memory beside the libraries: mapped files can be dropped at any time and do not count.

    A method that works on whole tensors, as packing does, holds them in float32: base, experts, result and a scratch;
    singular vectors of matrix methods come on top of that.
    """
    largest = max((spec.numel * spec.dtype.itemsize for spec in inputs.specs), default=0)
    results = largest + max(largest, WAITING)  # one is computed, others wait for the disk
    if merger.elementwise and not packed:
        return results + PART * 4 * (len(inputs.experts) + 8) * torch.get_num_threads()
    return results + max((spec.numel for spec in inputs.specs), default=0) * 4 * (len(inputs.experts) + 2)


def plan_table(merger: Merger, inputs: Inputs, statistics: str) -> Table:
    """One row per kind: what it gets, how many tensors, elements and bytes."""
    title = f"{merger.name} {_options(merger.hyperparameters)} of {len(inputs.experts)} experts"
    table = Table("kind", "gets", "tensors", "elements", "MiB", title=Text(title))
    kinds: dict[Kind, list[TensorSpec]] = {}
    for spec in inputs.specs:
        kinds.setdefault(spec.kind, []).append(spec)
    for kind, specs in kinds.items():
        size = sum(spec.numel * spec.dtype.itemsize for spec in specs)
        table.add_row(kind, treatment(merger, kind, statistics), f"{len(specs)}",
                      f"{sum(spec.numel for spec in specs):,}", f"{size / MIB:.1f}")
    return table


def summary(merger: Merger, inputs: Inputs, written: int, packed: bool = False) -> str:
    """Bytes in and ``written``, and memory."""
    one = inputs.tensor_bytes / MIB
    return (f"reads {one * (len(inputs.experts) + 1):.1f} MiB of tensors (again for every statistics pass), writes "
            f"{written / MIB:.1f} MiB, needs about {memory(merger, inputs, packed) / MIB:.0f} MiB of memory beside the "
            "libraries")


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
