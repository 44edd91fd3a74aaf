"""Pre-flight: base and experts must hold the same tensors, or nothing is merged at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from symerge_dense.merging.sources import Layout, TensorSource, layouts

SHOWN = 10


def check_compatible(base: TensorSource, experts: Mapping[str, TensorSource],
                     names: Collection[str] | None = None) -> None:
    """Compare names, shapes and data types of all inputs, reading no values from files.

    ``names`` limits the comparison to these tensors, all of which the base must have. Raises ValueError without
    experts, and one that lists, per expert, the number of differences and the first ten.
    """
    if not experts:
        raise ValueError("there is no expert to merge; pass at least one {task: state dict}.")
    reference = layouts(base)
    if names is not None:
        absent = [name for name in names if name not in reference]
        if absent:
            raise ValueError(f"the base lacks {len(absent)} of the tensors to merge: {_first(absent)}.")
        reference = {name: reference[name] for name in names}
    reports = []
    for task, expert in experts.items():
        found = _differences(reference, layouts(expert), strict=names is None)
        if found:
            reports.append(f"{task}: {len(found)} differences\n  {_first(found, separator=chr(10) + '  ')}")
    if reports:
        raise ValueError("the experts do not match the base; merge models of one architecture, and only the part they "
                         "share (the backbone).\n" + "\n".join(reports))


def _differences(reference: Mapping[str, Layout], found: Mapping[str, Layout], strict: bool) -> list[str]:
    lines = []
    for name, layout in reference.items():
        other = found.get(name)
        if other is None:
            lines.append(f"missing {name!r}")
        elif other.shape != layout.shape:
            lines.append(f"{name!r} has shape {other.shape}, the base {layout.shape}")
        elif other.dtype != layout.dtype:
            lines.append(f"{name!r} has data type {other.dtype}, the base {layout.dtype}")
    return lines + [f"unexpected {name!r}" for name in found if strict and name not in reference]


def _first(items: list[str], separator: str = ", ") -> str:
    more = [f"... and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join(items[:SHOWN] + more)
