"""The curve of a run: one JSON line per iteration. A killed run keeps its rows, and a resumed one cuts them back."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symerge_dense.fileio import parsed_json, write_text, writing
from symerge_dense.progress import say

FLUSH_EVERY = 20
LARGEST = 1 << 53  # of whole numbers


class History:
    """Collects scalars per iteration and appends them to a file in groups: reading a scalar waits for the GPU.

    The owner calls ``flush`` when the run ends, by an exception too (a loss that is not finite, Ctrl-C): the last rows
    tell why.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[int, dict[str, Tensor]]] = []

    def cut(self, iteration: int) -> None:
        """Remove the rows that a resumed run will write again; the file is replaced as a whole.

        Args:
            iteration: the first to remove.
        """
        kept = [row for row in read_history(self.path) if row["iteration"] < iteration]
        if lost := iteration - len(kept):
            say(f"{self.path} is damaged: {lost} of {iteration} iterations are lost. The run goes on without them.")
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, iteration: int, values: dict[str, Tensor]) -> None:
        """Record one iteration.

        Args:
            iteration: its number.
            values: {name: scalar tensor}.
        """
        self._rows.append((iteration, {name: value.detach() for name, value in values.items()}))
        if len(self._rows) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write the collected rows; without any, the file is not touched."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        lines = []
        for iteration, values in rows:
            numbers = torch.stack([v.float() for v in values.values()]).tolist() if values else []
            lines.append(json.dumps({"iteration": iteration, **dict(zip(values, numbers, strict=True))}) + "\n")
        with writing(self.path), self.path.open("a") as file:
            file.write("".join(lines))


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a history file; damaged lines, and a last one that a kill cut short, are left out.

    Args:
        path: the file; one that does not exist has no rows.

    Returns:
        The rows: ``iteration`` and finite or other numbers by their names.
    """
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        with suppress(ValueError):
            if _is_row(row := parsed_json(line)):
                rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    """Whether a line is what ``History`` writes: a damaged one may be JSON, too."""
    if not isinstance(row, dict) or type(row.get("iteration")) is not int:
        return False
    return all(type(value) is float or (type(value) is int and abs(value) < LARGEST) for value in row.values())
