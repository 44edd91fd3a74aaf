"""Contents of label/."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.numbered import INVALID_LABEL
from symerge_dense.preparation.contents import Content
from symerge_dense.preparation.findings import Findings

Array = NDArray[Any]
NAMED = 3  # that many wrong labels get a line each, more of them share one


class Labels(Content):
    """Class numbers 0..C-1 of ``class_names``; -1 and 255 are invalid. ``counts``: pixels per class."""

    folder: ClassVar[str] = "label"
    task: ClassVar[str] = "segmentation"

    def __init__(self, path: Path, faults: Findings, warnings: Findings, class_names: tuple[str, ...]) -> None:
        super().__init__(path, faults, warnings)
        self.class_names = class_names
        self.counts = np.zeros(len(class_names), np.int64)
        self._wrong: dict[float, list[Path]] = {}

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Pixels that carry one of the classes are valid."""
        labels = array.reshape(array.shape[:2])
        valid = (labels >= 0) & (labels < len(self.counts)) & (labels == np.floor(labels))
        self.counts += np.bincount(labels[valid].astype(np.int64), minlength=len(self.counts))
        for value in np.unique(labels[~valid & (labels != -1) & (labels != INVALID_LABEL)]).tolist():
            self._wrong.setdefault(value, []).append(path)
        return valid

    def close(self) -> None:
        """Wrong labels, and classes that never occur."""
        super().close()
        allowed = f"allowed are -1..{len(self.counts) - 1}, and 255 for invalid"
        if len(self._wrong) <= NAMED:
            for value, paths in sorted(self._wrong.items()):
                for path in paths:
                    self.faults.add(path, f"label {value:g}; {allowed}")
        else:
            values = sorted(self._wrong)
            text = f"labels {', '.join(f'{value:g}' for value in values[:NAMED])}, ... {values[-1]:g}; {allowed}"
            for path in sorted({path for paths in self._wrong.values() for path in paths}, key=lambda p: int(p.stem)):
                self.faults.add(path, text)
        absent = [name for name, pixels in zip(self.class_names, self.counts, strict=True) if not pixels]
        if absent and self.files:
            self.warnings.add(self.path, f"classes that never occur: {', '.join(absent)}")
