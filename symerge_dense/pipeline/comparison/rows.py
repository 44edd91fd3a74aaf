"""The rows of a comparison, one per method, each saved in a file of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from symerge_dense.evaluation.delta_m import delta_by_task
from symerge_dense.evaluation.scores import Scores, scores_from_json
from symerge_dense.pipeline.config import to_json
from symerge_dense.progress import say
from symerge_dense.report.record_shapes import ROW_SHAPE, refuse_misshapen
from symerge_dense.report.sealed import read_sealed, write_sealed
from symerge_dense.report.seeds import spread

Row = dict[str, Any]
Deltas = Sequence[Mapping[str, float]]


def measured_row(runs: Sequence[Scores], reference: Scores | None) -> Row:
    """What a row says of one labelled set.

    Args:
        runs: scores of each run.
        reference: of the experts on the same set; None: these runs are the experts'.

    Returns:
        'tasks' and 'delta_m', as ``metrics_of`` and ``deltas_of`` give them.
    """
    deltas = [] if reference is None else [delta_by_task(run, reference) for run in runs]
    return {"tasks": metrics_of(runs), "delta_m": deltas_of(deltas)}


def metrics_of(runs: Sequence[Scores]) -> dict[str, Any]:
    """Mean and standard deviation of every metric over runs.

    Args:
        runs: scores of each run.

    Returns:
        {task: {metric: {'value', 'std', 'higher_is_better'}}}.
    """
    return {
        task: {
            metric: {**_spread([run[task][metric].value for run in runs]), "higher_is_better": entry.higher_is_better}
            for metric, entry in metrics.items()
        }
        for task, metrics in runs[0].items()
    }


def deltas_of(runs: Deltas) -> dict[str, Any]:
    """Mean and standard deviation of Delta_m over runs.

    Args:
        runs: {task or 'mean': Delta_m} of each run.

    Returns:
        {task or 'mean': {'value', 'std'}}; empty without runs.
    """
    return {key: _spread([run[key] for run in runs]) for key in runs[0]} if runs else {}


def costs_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean seconds and greatest peak memory over runs.

    Args:
        runs: costs of each run, as ``resources.measured`` has them.

    Returns:
        'seconds', and 'peak_memory_mb' in MiB or None.
    """
    peaks = [run["peak_memory_mb"] for run in runs if run["peak_memory_mb"] is not None]
    return {"seconds": round(fmean(run["seconds"] for run in runs), 2), "peak_memory_mb": max(peaks, default=None)}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """``report.seeds.spread`` with None for an undefined mean, because rows are saved as JSON."""
    found = spread(values)
    return dict(found) if math.isfinite(found["value"]) else {"value": None}


def scores_of(row: Mapping[str, Any], also: str | None = None) -> Scores:
    """The scores of a row: the means, if it has several runs.

    Args:
        row: of a method that did not fail.
        also: the further labelled set that they were measured on; None is the test split.
    """
    return scores_from_json((row if also is None else row["also"][also])["tasks"])


@dataclass
class RowStore:
    """The saved rows of a comparison, each in a file of its own.

    Args:
        folder: of the files.
    """

    folder: Path

    def read(self, name: str, asked: str, settings: Mapping[str, Any]) -> Row | None:
        """Read the row of a method. Says so if it was made under other defaults than today's.

        Args:
            name: of the method.
            asked: fingerprint of what the config and the caller ask for, which the row must have been made with.
            settings: {option: value} of the method, defaults included. Options that the row's file does not know are
                newer than it, and off by default; files of earlier versions know none.

        Returns:
            The row; None if there is none, the file is damaged, the method failed, or the settings were others.
        """
        try:
            found = read_sealed(self._file(name))
            row: Row = found["row"]
            refuse_misshapen(row, ROW_SHAPE, "the row")
            if found["asked"] != asked or "error" in row:
                return None
            changed = changed_settings(found.get("settings", {}), settings)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"{name}: {self._file(name)} is damaged ({error}) and does not count; the row is made again.")
            return None
        if changed:
            say(
                f"{name}: its row in {self.folder} was made with {changed}, by other defaults than today's, and does "
                "not count. It is made anew where the method is asked for."
            )
        return None if changed else row

    def write(self, name: str, asked: str, settings: Mapping[str, Any], row: Row, trace: str = "") -> Row:
        """Save a row.

        Args:
            name: of the method.
            asked: fingerprint of what the config and the caller ask for.
            settings: {option: value} that the row was made with, defaults included.
            row: what to save.
            trace: the traceback of a method that failed.

        Returns:
            The row as ``read`` will return it.
        """
        write_sealed(self._file(name), {"asked": asked, "settings": to_json(settings), "row": row, "trace": trace})
        kept: Row = read_sealed(self._file(name))["row"]
        return kept

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def changed_settings(then: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What of saved settings is not so now, in words; empty where nothing is.

    Args:
        then: as a file gives them back. Settings that it does not have are newer than it, and off by default.
        settings: of today.
    """
    now: dict[str, Any] = json.loads(json.dumps(to_json(settings)))
    others = {key: value for key, value in now.items() if key in then and then[key] != value}
    return ", ".join(f"{key}={then[key]!r}, now {value!r}" for key, value in others.items())
