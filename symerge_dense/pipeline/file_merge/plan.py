"""What a merge will do and need, in words and numbers."""

from __future__ import annotations

import torch
from rich.table import Table
from rich.text import Text

from symerge_dense.merging.base import Merger, treatment_of
from symerge_dense.merging.chunks import PART
from symerge_dense.merging.safetensors_writer import WAITING
from symerge_dense.merging.tensor_specs import Kind, TensorSpec
from symerge_dense.pipeline.file_merge.inputs import Inputs

MIB = 1 << 20


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


def check_needs(merger: Merger) -> None:
    """Check that a method merges files.

    Args:
        merger: the method.

    Raises:
        ValueError: it needs more than weights.
    """
    if merger.needs:
        raise ValueError(
            f"{merger.name} needs {' and '.join(sorted(merger.needs))} of every expert, "
            "which come from images, and this tool has none; use tools/compare.py, or another method."
        )
