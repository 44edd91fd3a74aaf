"""One of several packed experts as a source of tensors, each restored when it is read, for any method that merges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from symerge_dense.merging.packed import fitting
from symerge_dense.merging.packed_experts import Packing, added, keys
from symerge_dense.merging.quantised import Quantised, dequantise
from symerge_dense.merging.sources import TensorLayout, TensorSource, compute_dtype, layouts, load


class RestoredExpert(Mapping[str, Tensor]):
    """One expert out of a packed file: its tensors, each restored when it is asked for.

    Args:
        packing: how the file was packed.
        base: tensors of the base.
        packed: tensors of the file.
        task: the expert's name.
        prefix: of the base's tensors in the expert.

    Raises:
        ValueError: tensors of the task are missing.
    """

    def __init__(self, packing: Packing, base: TensorSource, packed: TensorSource, task: str, prefix: str = "") -> None:
        self.packing, self._base, self._packed, self._task, self._prefix = packing, base, packed, task, prefix
        owned = [name for kind in ("codes", "kept") for name in packed if name.startswith(f"{kind}.{task}.")]
        self._names = sorted({name.split(".", 2)[2] for name in owned})
        absent = [f"{prefix}{name}" for name in base if f"{prefix}{name}" not in self._names]
        if absent:
            raise ValueError(f"{task} lacks {absent[0]!r} in the packed file; copy the file again, or pack again.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def layouts(self) -> dict[str, TensorLayout]:
        """Shape and data type of every tensor, nothing being restored."""
        inner, kept = layouts(self._base), layouts(self._packed)
        return {
            name: kept.get(f"kept.{self._task}.{name}") or inner[name.removeprefix(self._prefix)]
            for name in self._names
        }

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._restored(name)
        except ValueError as error:
            raise ValueError(f"{getattr(self._packed, 'where', self._task)}: {error}") from error

    def _restored(self, name: str) -> Tensor:
        inner = name.removeprefix(self._prefix) if name.startswith(self._prefix) else None
        like = None if inner is None else self._base.get(inner)
        kept = f"kept.{self._task}.{name}"
        if kept in self._packed:
            return fitting(kept, self._packed[kept], self._packed[kept] if like is None else like)
        if inner is None or like is None or name not in self._names:
            raise KeyError(name)
        base = load(self._base, "base", inner, "cpu")
        shared = self._values(keys(name, shared=True), base, self.packing.shared_bits, name)
        offset = self._values(keys(f"{self._task}.{name}"), base, self.packing.bits, f"{self._task}.{name}")
        assert offset is not None, "bits are never 0"
        return added(base, shared, offset, like, f"packed {name!r}")

    def _values(self, names: list[str], base: Tensor, bits: int, what: str) -> Tensor | None:
        if not bits:
            return None
        absent = [key for key in names if key not in self._packed]
        if absent:
            raise ValueError(f"there is no {absent[0]!r} in the packed file; copy the file again, or pack again.")
        found = Quantised(*(self._packed[key] for key in names))
        return dequantise(found, tuple(base.shape), bits, self.packing.per, compute_dtype(base.dtype), repr(what))
