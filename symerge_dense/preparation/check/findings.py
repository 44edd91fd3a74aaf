"""The report of a check: faults and warnings, with equal ones of many files as one line, and their wording."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from symerge_dense.datasets.nyuv2.normals import written
from symerge_dense.preparation.check.normal_axes import EXPECTED, Diagnosis, difference, in_words
from symerge_dense.preparation.check.pairing import FEWEST, Pairing
from symerge_dense.progress import console


class Fault(NamedTuple):
    """What is wrong, and where.

    Args:
        path: a file or a folder; the first of several.
        text: what is wrong.
        files: number of files with the same fault.
    """

    path: Path
    text: str
    files: int = 1

    def __str__(self) -> str:
        if self.files == 1:
            return f"{self.path}: {self.text}"
        return f"{self.text}; in {self.files} files, first: {self.path}"


class Findings:
    """Collects faults. The same text about several files of one folder, or one kind, becomes one ``Fault``."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Path | None, str], Fault] = {}

    def add(self, path: Path, text: str, lead: str = "", kind: str = "") -> None:
        """Add a fault.

        Args:
            path: the file or folder.
            text: what is wrong, in the same words for the same fault.
            lead: put before ``text``; may differ between files, and the first one is kept.
            kind: what faults have in common whose texts and folders differ; the first one is kept.
        """
        first = Fault(path, f"{lead}: {text}" if lead else text, 0)
        group = (None, kind) if kind else (path.parent, text)
        known = self._groups.get(group, first)
        self._groups[group] = known._replace(files=known.files + 1)

    @property
    def faults(self) -> list[Fault]:
        """All faults, in the order of their first file."""
        return list(self._groups.values())


@dataclass
class Report:
    """What ``check`` found.

    Args:
        root: folder of the set.
        faults: a set with any should not be used.
        warnings: for a person to judge.
        facts: sentences about the set.
        tables: files and classes, for a terminal.
    """

    root: Path
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def print(self) -> None:
        """Print tables, facts, warnings, faults and the verdict to the terminal or the log."""
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


# -- from evidence to words: the axes and the numbering of a split ----------------------------------------------------
def note_axes(path: Path, found: Diagnosis, faults: Findings, warnings: Findings) -> None:
    """Add a fault if the normals have other axes than expected, or a warning if that is uncertain.

    Args:
        path: folder of the normals.
        found: the diagnosis of their axes.
        faults: a fault is added here.
        warnings: a warning is added here.
    """
    if found.sure and found.best == EXPECTED:
        return
    if not found.sure:
        warnings.add(path, f"the axes of the normals are uncertain, too few surfaces tell them apart; {found}")
    else:
        faults.add(
            path,
            f"{difference(found.best)}: they hold {in_words(found.best)}, {found.error:.1f} degrees off "
            f"the depth; expected {in_words(EXPECTED)}. Packagings nyud_mt and nyudv2: convert with "
            f"--normal-axes={written(found.best)}; others: turn the arrays. Metrics bear any axes as long "
            "as channel 0 is x right, which a mirror negates",
        )


def axes_fact(found: Diagnosis) -> str:
    """One line of the report about the axes of the normals.

    Args:
        found: the diagnosis of the axes.
    """
    return f"normal axes: {found}, {found.pixels} pixels compared"


def note_pairing(split: Path, found: Pairing, faults: Findings) -> None:
    """Add a fault for every folder that is shifted against the others or resembles none of them.

    Args:
        split: folder of the split.
        found: the comparison of its folders.
        faults: faults are added here.
    """
    others = [f"{folder}/" for folder in found.offsets if folder not in found.shifted]
    for folder in found.shifted:
        offset = found.offsets[folder]
        number = found.first + max(7, 7 + offset)
        where = f" from image {found.first} on" if found.first else ""
        faults.add(
            split / folder,
            f"{folder}/ seems shifted by {offset:+d} against {' and '.join(others)}{where}: "
            f"{folder}/{number}.npy belongs to {others[0]}{number - offset}.npy",
        )
    for folder in found.strangers:
        faults.add(
            split / folder,
            f"the edges of {folder}/ fit those of no other folder at any shift: files in "
            "another order, say 0, 1, 10, 100, ..., 2?",
        )


def pairing_fact(found: Pairing) -> str:
    """One line of the report about the numbering of the folders.

    Args:
        found: the comparison of the folders.
    """
    if found.images < FEWEST:
        return f"pairing: {found.images} complete images, too few to compare the folders' edges (at least {FEWEST})"
    if found.shifted or found.strangers:
        return f"pairing: the edges of {', '.join((*found.shifted, *found.strangers))} do not fit the other folders"
    return f"pairing: no folder is shifted against another ({found.images} images, by their edges)"
