"""One split of a set, every file read once: contents, edge maps and evidence of the axes are taken on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.numbered import read_array
from symerge_dense.datasets.nyu_geometry import RGB_CAMERA
from symerge_dense.preparation.axes import evidence, judge
from symerge_dense.preparation.edge_maps import Strength, edge_map
from symerge_dense.preparation.findings import Findings
from symerge_dense.preparation.images import Images
from symerge_dense.preparation.labels import Labels
from symerge_dense.preparation.listing import frame_size, list_numbers, shape_fault
from symerge_dense.preparation.pairing import compare
from symerge_dense.preparation.surfaces import Depths, Normals
from symerge_dense.preparation.verdicts import axes_fact, note_axes, note_pairing, pairing_fact
from symerge_dense.progress import track

Array = NDArray[Any]
FULL = {"train": 795, "val": 654}  # images of NYUv2's official splits
ROWS, COLUMNS = 480, 640           # that RGB_CAMERA sees; crops of the packagings move it by a few percent


class SplitCheck:
    """Checks the split in folder ``path``: ``faults``, ``warnings``, ``facts``, and the ``contents`` per folder.

    Every file is read once. The axes of the normals are judged on ``samples`` evenly spaced images.
    """

    def __init__(self, path: Path, class_names: tuple[str, ...], samples: int) -> None:
        self.path, self.facts = path, list[str]()
        self.faults, self.warnings = Findings(), Findings()
        notes = (self.faults, self.warnings)
        self.images, self.labels = Images(path / "image", *notes), Labels(path / "label", *notes, class_names)
        self.depths, self.normals = Depths(path / "depth", *notes), Normals(path / "normal", *notes)
        self.contents = {"image": self.images, "label": self.labels, "depth": self.depths, "normal": self.normals}
        self.numbers, self.count = list_numbers(path, self.faults)
        self.frame = frame_size(path, self.numbers)
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

    def _read(self, folder: str, number: int) -> Array | None:
        """One file in memory; None, and a fault unless it was one before, where it is missing or not as it should."""
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
        return np.array(stored)

    def _look(self, arrays: dict[str, Array], number: int) -> None:
        for folder, array in arrays.items():
            self.contents[folder].take(self.path / folder / f"{number}.npy", array)
            self._edges[folder][number] = edge_map(folder, array)
        if number in self._sampled and {"depth", "normal"} <= arrays.keys():
            height, width = arrays["depth"].shape[:2]
            self._pairs.append(evidence(arrays["normal"], arrays["depth"],
                                        RGB_CAMERA.scaled(height / ROWS, width / COLUMNS)))

    def _conclude(self) -> None:
        if self.frame is None:
            return
        self.facts.append(f"{self.count} images of {self.frame[0]} x {self.frame[1]}; "
                          f"NYUv2's {self.path.name} split has {FULL[self.path.name]}")
        if self.images.files:
            red, green, blue = self.images.mean_colour
            self.facts.append(f"mean RGB ({red:.0f}, {green:.0f}, {blue:.0f}) of 255; NYUv2's is (123, 106, 101)")
        if self._pairs:
            diagnosis = judge(self._pairs)
            note_axes(self.normals.path, diagnosis, self.faults, self.warnings)
            self.facts.append(axes_fact(diagnosis))
        pairing = compare({folder: maps for folder, maps in self._edges.items() if any(m is not None for m in maps)})
        note_pairing(self.path, pairing, self.faults)
        self.facts.append(pairing_fact(pairing))
