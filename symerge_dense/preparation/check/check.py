"""Check a prepared NYUv2. Every file is read once; faults are collected, not raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from symerge_dense.datasets.array_checksums import change_of, read_checksums
from symerge_dense.datasets.class_names import NAMES_BY_COUNT
from symerge_dense.datasets.mtan_layout import SPLITS, read_array
from symerge_dense.datasets.nyuv2.camera import RGB_CAMERA
from symerge_dense.datasets.targets import NYU_FRAME
from symerge_dense.preparation.check.contents import DepthFiles, ImageFiles, LabelFiles, NormalFiles
from symerge_dense.preparation.check.findings import Findings, Report, axes_fact, note_axes, note_pairing, pairing_fact
from symerge_dense.preparation.check.listing import CHANNELS, frame_size, list_numbers, shape_fault
from symerge_dense.preparation.check.normal_axes import evidence, judge
from symerge_dense.preparation.check.pairing import Strength, compare_folders, edge_map
from symerge_dense.progress import console, track

Array = NDArray[Any]
FULL = {"train": 795, "val": 654}  # images of NYUv2's official splits


# -- one split --------------------------------------------------------------------------------------------------------
class SplitCheck:
    """Checks one split. The results are ``faults``, ``warnings``, ``facts``, and the ``contents`` of each folder.

    Args:
        path: folder of the split. Every file in it is read once.
        class_names: names of the label classes, in the order of their numbers.
        samples: number of evenly spaced images on which the axes of the normals are judged.
    """

    def __init__(self, path: Path, class_names: tuple[str, ...], samples: int) -> None:
        self.path, self.facts = path, list[str]()
        self.faults, self.warnings = Findings(), Findings()
        notes = (self.faults, self.warnings)
        self.images, self.labels = ImageFiles(path / "image", *notes), LabelFiles(path / "label", *notes, class_names)
        self.depths, self.normals = DepthFiles(path / "depth", *notes), NormalFiles(path / "normal", *notes)
        self.contents = {"image": self.images, "label": self.labels, "depth": self.depths, "normal": self.normals}
        self.numbers, self.count = list_numbers(path, self.faults)
        self.frame = frame_size(path, self.numbers)
        self._checksums = self._listed()
        self._edges: dict[str, list[Strength | None]] = {folder: [None] * self.count for folder in self.numbers}
        self._sampled = set(np.linspace(0, max(self.count - 1, 0), samples).round().astype(int).tolist())
        self._pairs: list[Array] = []
        self._run()

    def _run(self) -> None:
        for number in track(range(self.count), f"reading {self.path}"):
            arrays = {folder: self._read(folder, number) for folder in self.numbers}
            self._look({folder: array for folder, array in arrays.items() if array is not None}, number)
        for content in self.contents.values():
            content.close()
        self._conclude()

    def _listed(self) -> dict[str, str]:
        """The checksums of the split; none, and a fault, if their list is damaged."""
        try:
            return read_checksums(self.path)
        except ValueError as error:
            path, _, why = str(error).partition(": ")
            self.faults.add(Path(path), why.rstrip("."))
            return {}

    def _read(self, folder: str, number: int) -> Array | None:
        """One file in memory. None if it is missing, and None with a fault if it is unreadable or of a wrong shape."""
        path = self.path / folder / f"{number}.npy"
        if number not in self.numbers[folder] or self.frame is None:
            return None
        try:
            stored = read_array(path)
        except ValueError as error:
            self.faults.add(path, str(error).removeprefix(f"{path}: ").rstrip("."))
            return None
        wrong = shape_fault(folder, stored.shape, self.frame)
        if wrong:
            self.faults.add(path, wrong)
            return None
        found = np.array(stored)
        if changed := change_of(self.path, f"{folder}/{path.name}", found, self._checksums):
            self.faults.add(path, changed)
        return found

    def _look(self, arrays: dict[str, Array], number: int) -> None:
        for folder, array in arrays.items():
            self.contents[folder].take(self.path / folder / f"{number}.npy", array)
            self._edges[folder][number] = edge_map(folder, array)
        if number in self._sampled and {"depth", "normal"} <= arrays.keys():
            height, width = arrays["depth"].shape[:2]
            self._pairs.append(
                evidence(
                    arrays["normal"], arrays["depth"], RGB_CAMERA.scaled(height / NYU_FRAME[0], width / NYU_FRAME[1])
                )
            )

    def _conclude(self) -> None:
        if self.frame is None:
            return
        self.facts.append(
            f"{self.count} images of {self.frame[0]} x {self.frame[1]}; "
            f"NYUv2's {self.path.name} split has {FULL[self.path.name]}"
        )
        if self.images.files:
            red, green, blue = self.images.mean_colour
            self.facts.append(f"mean RGB ({red:.0f}, {green:.0f}, {blue:.0f}) of 255; NYUv2's is (123, 106, 101)")
        if self._pairs:
            diagnosis = judge(self._pairs)
            note_axes(self.normals.path, diagnosis, self.faults, self.warnings)
            self.facts.append(axes_fact(diagnosis))
        pairing = compare_folders(
            {folder: maps for folder, maps in self._edges.items() if any(m is not None for m in maps)}
        )
        note_pairing(self.path, pairing, self.faults)
        self.facts.append(pairing_fact(pairing))


# -- the whole set ----------------------------------------------------------------------------------------------------
SAMPLES = 24


def check(root: str | Path, classes: int = 13, samples: int = SAMPLES) -> Report:
    """Check a set in the layout ``root/{train,val}/{image,label,depth,normal}/{0,1,2,...}.npy``.

    Checked are names, shapes, values and units of all files. Edges tell whether files of the same number show the same
    scene. The depth tells whether the normals use the axes (x right, z forward, y up).

    Args:
        root: folder of the prepared set.
        classes: number of classes of the labels, 13 or 40.
        samples: images per split on which the axes of the normals are judged.

    Returns:
        What was found. Faults are in it and are not raised.

    Raises:
        ValueError: ``root`` has neither split, or ``classes`` is another number.
    """
    root = Path(root)
    if classes not in (13, 40):
        raise ValueError(f"classes={classes}: NYUv2's labels have 13 or 40 classes.")
    if not any((root / split).is_dir() for split in SPLITS):
        raise ValueError(
            f"{root}: {'no train/ and no val/ in it' if root.is_dir() else 'not there'}; give the folder "
            f"that holds {{train,val}}/{{{','.join(CHANNELS)}}}/{{0,1,2,...}}.npy."
        )
    report = Report(root)
    splits = [SplitCheck(root / split, NAMES_BY_COUNT[classes], samples) for split in SPLITS]
    for split in splits:
        report.faults += split.faults.faults
        report.warnings += split.warnings.faults
        report.facts += [f"{split.path.name}: {fact}" for fact in split.facts]
    report.tables += [_folders(splits), _classes(splits)]
    return report


def check_tool(root: str, classes: int = 13, sheet: str | None = None) -> int:
    """Check a set and print the report.

    Args:
        root: folder of the prepared set.
        classes: number of classes of the labels, 13 or 40.
        sheet: PNG file for a contact sheet; None: do not draw one.

    Returns:
        Exit code: 1 if faults were found, else 0.

    Raises:
        ValueError: as ``check``.
    """
    report = check(root, classes)
    report.print()
    if sheet is not None:
        from symerge_dense.preparation.check.contact_sheet import contact_sheet  # matplotlib takes a second to import

        contact_sheet(root, sheet, classes=classes)
        console.print(f"contact sheet: {sheet}", markup=False, soft_wrap=True)
    return 1 if report.faults else 0


def _folders(splits: list[SplitCheck]) -> Table:
    """A line per folder: number of files, dtypes, lowest and highest value, share of invalid pixels."""
    table = Table("folder", "files", "dtype", "lowest", "highest", "without label", title="Files")
    for split in splits:
        for folder, content in split.contents.items():
            if content.files:
                table.add_row(
                    f"{split.path.name}/{folder}",
                    str(content.files),
                    ", ".join(sorted(content.dtypes)),
                    f"{content.low:.4g}",
                    f"{content.high:.4g}",
                    f"{content.invalid_share:.1%}",
                )
    return table


def _classes(splits: list[SplitCheck]) -> Table:
    """Share of each class among the labelled pixels, per split."""
    table = Table("label", "class", *(split.path.name for split in splits), title="Classes")
    for index, name in enumerate(splits[0].labels.class_names):
        shares = [split.labels.counts[index] / max(split.labels.counts.sum(), 1) for split in splits]
        table.add_row(str(index), name, *(f"{share:.1%}" if share else "–" for share in shares))
    return table
