"""What a check has to say: faults and warnings, those of many files as one line, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from symerge_dense.progress import console


class Fault(NamedTuple):
    """What is wrong, and where: a file or a folder, the first of ``files`` with the same fault."""

    path: Path
    text: str
    files: int = 1

    def __str__(self) -> str:
        if self.files == 1:
            return f"{self.path}: {self.text}"
        return f"{self.text}; in {self.files} files, first: {self.path}"


class Findings:
    """Collects what is wrong with many files; the same words about files of one folder become one ``Fault``."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Path, str], Fault] = {}

    def add(self, path: Path, text: str, lead: str = "") -> None:
        """``text`` must be the same for the same fault; ``lead`` goes before it and may differ (the first is kept)."""
        first = Fault(path, f"{lead}: {text}" if lead else text, 0)
        known = self._groups.get((path.parent, text), first)
        self._groups[path.parent, text] = known._replace(files=known.files + 1)

    @property
    def faults(self) -> list[Fault]:
        """In the order of their first file."""
        return list(self._groups.values())


@dataclass
class Report:
    """What ``check`` found. A set with ``faults`` should not be used; ``warnings`` and ``facts`` are for a human."""

    root: Path
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def print(self) -> None:
        """Tables, facts, warnings, faults and the verdict, to the terminal or the log."""
        for table in self.tables:
            console.print(table)
        for fact in self.facts:
            _line("  ", fact)
        for warning in self.warnings:
            _line("[yellow]warning[/] ", str(warning))
        for fault in self.faults:
            _line("[bold red]fault[/]   ", str(fault))
        colour = "bold red" if self.faults else "bold green"
        verdict = f"{_count(self.faults, 'fault')}, {_count(self.warnings, 'warning')}"
        console.print(f"[{colour}]{escape(str(self.root))}: {verdict}[/]", soft_wrap=True)


def _count(found: list[Fault], what: str) -> str:
    return f"{len(found) or 'no'} {what}{'' if len(found) == 1 else 's'}"


def _line(mark: str, text: str) -> None:
    console.print(mark + escape(text), emoji=False, soft_wrap=True)
