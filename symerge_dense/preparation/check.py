"""Is a prepared NYUv2 sound? Every file of it is read once; faults are collected, not raised."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from symerge_dense.datasets.classes import NAMES_BY_COUNT
from symerge_dense.preparation.findings import Report
from symerge_dense.preparation.listing import CHANNELS
from symerge_dense.preparation.split_check import SplitCheck
from symerge_dense.progress import console

SPLITS = ("train", "val")
SAMPLES = 24


def check(root: str | Path, classes: int = 13, samples: int = SAMPLES) -> Report:
    """Check a set in the layout ``root/{train,val}/{image,label,depth,normal}/{0,1,2,...}.npy``.

    Names, shapes, values and units of all files; by their edges, whether the folders belong together number by number;
    by the depth, on ``samples`` images per split, whether the normals use the axes (x right, z forward, y up).

    Args:
        classes: number of classes of the labels, 13 or 40.

    Raises ValueError where ``root`` has neither split, or for another number of classes.
    """
    root = Path(root)
    if classes not in (13, 40):
        raise ValueError(f"classes={classes}: NYUv2's labels have 13 or 40 classes.")
    if not any((root / split).is_dir() for split in SPLITS):
        raise ValueError(f"{root}: {'no train/ and no val/ in it' if root.is_dir() else 'not there'}; give the folder "
                         f"that holds {{train,val}}/{{{','.join(CHANNELS)}}}/{{0,1,2,...}}.npy.")
    report = Report(root)
    splits = [SplitCheck(root / split, NAMES_BY_COUNT[classes], samples) for split in SPLITS]
    for split in splits:
        report.faults += split.faults.faults
        report.warnings += split.warnings.faults
        report.facts += [f"{split.path.name}: {fact}" for fact in split.facts]
    report.tables += [_folders(splits), _classes(splits)]
    return report


def check_tool(root: str, classes: int = 13, sheet: str | None = None) -> int:
    """Check, print the report, draw a contact sheet to ``sheet``; 1 where faults were found, else 0."""
    report = check(root, classes)
    report.print()
    if sheet is not None:
        from symerge_dense.preparation.sheet import contact_sheet  # matplotlib takes a second to import

        contact_sheet(root, sheet, classes=classes)
        console.print(f"contact sheet: {sheet}", markup=False, soft_wrap=True)
    return 1 if report.faults else 0


def _folders(splits: list[SplitCheck]) -> Table:
    """A line per folder: how many files, of which dtype, values from where to where, how many invalid."""
    table = Table("folder", "files", "dtype", "lowest", "highest", "without label", title="Files")
    for split in splits:
        for folder, content in split.contents.items():
            if content.files:
                table.add_row(f"{split.path.name}/{folder}", str(content.files), ", ".join(sorted(content.dtypes)),
                              f"{content.low:.4g}", f"{content.high:.4g}", f"{content.invalid_share:.1%}")
    return table


def _classes(splits: list[SplitCheck]) -> Table:
    """Share of each class among the labelled pixels, per split."""
    table = Table("label", "class", *(split.path.name for split in splits), title="Classes")
    for index, name in enumerate(splits[0].labels.class_names):
        shares = [split.labels.counts[index] / max(split.labels.counts.sum(), 1) for split in splits]
        table.add_row(str(index), name, *(f"{share:.1%}" if share else "–" for share in shares))
    return table
