"""From evidence to words: what the axes and the numbering of a split amount to."""

from __future__ import annotations

from pathlib import Path

from symerge_dense.preparation.axes import OURS, Diagnosis, difference, in_words, written
from symerge_dense.preparation.findings import Findings
from symerge_dense.preparation.pairing import FEWEST, Pairing


def note_axes(path: Path, found: Diagnosis, faults: Findings, warnings: Findings) -> None:
    """Other axes than ours in the normals under ``path`` are a fault where the evidence is good, else a warning."""
    if found.sure and found.best == OURS:
        return
    if not found.sure:
        warnings.add(path, f"the axes of the normals are uncertain, too few surfaces tell them apart; {found}")
    else:
        faults.add(path, f"{difference(found.best)}: they hold {in_words(found.best)}, {found.error:.1f} degrees off "
                         f"the depth; expected {in_words(OURS)}. Packagings nyud_mt and nyudv2: convert with "
                         f"--normal-axes={written(found.best)}; others: turn the arrays. Metrics bear any axes as long "
                         "as channel 0 is x right, which a mirror negates")


def axes_fact(found: Diagnosis) -> str:
    """One line for the report."""
    return f"normal axes: {found}, {found.pixels} pixels compared"


def note_pairing(split: Path, found: Pairing, faults: Findings) -> None:
    """Folders out of step with the others are faults, and so are folders that resemble none of the others."""
    others = [f"{folder}/" for folder in found.offsets if folder not in found.shifted]
    for folder in found.shifted:
        offset = found.offsets[folder]
        number = found.first + max(7, 7 + offset)
        where = f" from image {found.first} on" if found.first else ""
        faults.add(split / folder, f"{folder}/ seems shifted by {offset:+d} against {' and '.join(others)}{where}: "
                                   f"{folder}/{number}.npy belongs to {others[0]}{number - offset}.npy")
    for folder in found.strangers:
        faults.add(split / folder, f"the edges of {folder}/ fit those of no other folder at any shift: files in "
                                   "another order, say 0, 1, 10, 100, ..., 2?")


def pairing_fact(found: Pairing) -> str:
    """One line for the report."""
    if found.images < FEWEST:
        return f"pairing: {found.images} complete images, too few to compare the folders' edges (at least {FEWEST})"
    if found.shifted or found.strangers:
        return f"pairing: the edges of {', '.join((*found.shifted, *found.strangers))} do not fit the other folders"
    return f"pairing: no folder is shifted against another ({found.images} images, by their edges)"
