"""How the tensors of a file meet those of a model: matched, missing, unexpected, of another shape, dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from symerge_dense.experts.state import listing


def part_of(name: str) -> str:
    """The part of a multi-task model that a tensor belongs to: 'backbone', 'heads.depth', ..."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "heads" and rest else first


@dataclass(frozen=True)
class MatchReport:
    """How tensors of a file meet those of a model, by name. ``dropped``: known, of no use to this model."""

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Every tensor of the model found, with its shape, and nothing unknown left over."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        kinds = {kind: getattr(self, kind) for kind in self.__dataclass_fields__}
        parts = sorted({part_of(name) for names in kinds.values() for name in names})
        lines = []
        for part in parts:
            mine = {kind: [n for n in names if part_of(n.split(" ")[0]) == part] for kind, names in kinds.items()}
            rest = [f"{kind.replace('_', ' ')} {listing(names)}" for kind, names in mine.items()
                    if kind != "matched" and (names or kind not in ("dropped", "wrong_shape"))]
            lines.append(f"{part}: matched {len(mine['matched'])}, {', '.join(rest)}")
        return "\n".join(lines)


def match_report(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], dropped: Iterable[str] = ()) -> MatchReport:
    """Compare tensors ``given`` by a file with those ``wanted`` by a model. ``dropped`` is only passed on.

    BatchNorm counters (``num_batches_tracked``) that a file lacks do not count as missing: old files have none.
    """
    wrong = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    return MatchReport(
        matched=tuple(name for name in wanted if name in given and name not in wrong),
        missing=tuple(missing),
        unexpected=tuple(name for name in given if name not in wanted),
        wrong_shape=tuple(f"{n} {tuple(given[n].shape)} for {tuple(wanted[n].shape)}" for n in wrong),
        dropped=tuple(dropped))
