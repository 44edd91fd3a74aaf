"""One row of the comparison per method, and the file that each is kept in until the table is complete."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from symerge_dense.evaluation.scores import Scores, scores_from_json
from symerge_dense.report.results import write_results
from symerge_dense.report.seeds import spread

Row = dict[str, Any]
Deltas = Sequence[Mapping[str, float]]


def metrics_of(runs: Sequence[Scores]) -> dict[str, Any]:
    """{task: {metric: {'value', 'std', 'higher_is_better'}}} over runs."""
    return {
        task: {
            metric: {**_spread([run[task][metric].value for run in runs]), "higher_is_better": entry.higher_is_better}
            for metric, entry in metrics.items()
        }
        for task, metrics in runs[0].items()
    }


def deltas_of(runs: Deltas) -> dict[str, Any]:
    """{task or 'mean': {'value', 'std'}} over runs; nothing of none."""
    return {key: _spread([run[key] for run in runs]) for key in runs[0]} if runs else {}


def costs_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean seconds and greatest peak memory over runs."""
    peaks = [run["peak_memory_mb"] for run in runs if run["peak_memory_mb"] is not None]
    return {"seconds": round(fmean(run["seconds"] for run in runs), 2), "peak_memory_mb": max(peaks, default=None)}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """``report.seeds.spread``, but None where the mean is undefined: rows are kept as JSON."""
    found = spread(values)
    return dict(found) if math.isfinite(found["value"]) else {"value": None}


def scores_of(row: Mapping[str, Any]) -> Scores:
    """The scores of a row: means, where it stands for several runs."""
    return scores_from_json(row["tasks"])


@dataclass
class RowStore:
    """The rows of a comparison in ``folder``, each in a file of its own as soon as it is known."""

    folder: Path

    def read(self, name: str, asked: str) -> Row | None:
        """The row of a method, unless there is none, it failed, or it was made with other than is ``asked`` for."""
        try:
            found = json.loads(self._file(name).read_text("utf-8"))
            row: Row = found["row"]
            return row if found["asked"] == asked and "error" not in row else None
        except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: it is made again
            return None

    def write(self, name: str, asked: str, row: Row, trace: str = "") -> Row:
        """Keep a row, with the ``trace`` of its failure; returns it as it will be read."""
        write_results(self._file(name), {"asked": asked, "row": row, "trace": trace})
        kept: Row = json.loads(self._file(name).read_text("utf-8"))["row"]
        return kept

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
