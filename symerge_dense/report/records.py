"""Find and read what runs and comparisons leave: results.json and compare.json, and the files that lie beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from symerge_dense.progress import say
from symerge_dense.report.agreement import has_labels, read_record
from symerge_dense.report.record_shapes import COMPARISON_SHAPE, refuse_misshapen
from symerge_dense.report.results import read_json

RUN, COMPARISON = "results.json", "compare.json"
KEYS = {"config": Mapping, "blocks": Mapping, "rows": list, "seeds": int, "tuning": str, "delta_m_metrics": Mapping}
"""What a compare.json must have, and of which type."""


class Found(NamedTuple):
    """A record and where it lies.

    Args:
        folder: of the run or comparison.
        content: of its results.json or compare.json.
    """

    folder: Path
    content: dict[str, Any]


Runs = tuple[str, Sequence[Found]]
"""A title, and runs that differ in their seed."""


class Records(NamedTuple):
    """What was found.

    Args:
        runs: finished runs that were measured on labels.
        unlabelled: finished runs that no label was read for, with agreement with the experts in place of metrics.
        comparisons: of ``symerge compare``.
    """

    runs: list[Found]
    unlabelled: list[Found]
    comparisons: list[Found]


def read_records(paths: Sequence[str | Path]) -> Records:
    """Read the records of finished runs and comparisons, each once.

    A run that is not finished is left out, with a remark.

    Args:
        paths: results.json or compare.json files, or the folders that hold them.

    Raises:
        ValueError: a folder is no run, a file is missing or is no record, or nothing is left.
    """
    found = Records([], [], [])
    seen: set[Path] = set()
    for path in map(Path, paths):
        file = _record_file(path)
        if file is None:
            say(f"{path} is not finished yet and is left out", aside=True)
        elif file.resolve() not in seen:
            seen.add(file.resolve())
            if file.name == COMPARISON:
                found.comparisons.append(Found(file.parent, read_comparison(file)))
            else:
                run = Found(file.parent, read_record(file))
                (found.runs if has_labels(run.content) else found.unlabelled).append(run)
    if not seen:
        raise ValueError("none of these runs is finished, so there is nothing to report; let one end, or --resume it.")
    return found


def read_comparison(path: str | Path) -> dict[str, Any]:
    """Read a compare.json.

    Args:
        path: the file.

    Raises:
        ValueError: the file is no JSON or lacks a required key.
    """
    record = read_json(path, "compare.json that a comparison")
    given = record if isinstance(record, Mapping) else {}
    wrong = [key for key, kind in KEYS.items() if not isinstance(given.get(key), kind)]
    if not wrong:
        known = given["blocks"]
        wrong = [f"rows[{index}]" for index, row in enumerate(given["rows"]) if not _is_row(row, known)]
    if wrong:
        raise ValueError(f"{path} lacks {', '.join(wrong)}; compare again (symerge compare CONFIG) to write them all.")
    refuse_misshapen(record, COMPARISON_SHAPE, str(path))
    _check_alike(given["rows"], path)
    return dict(given)


def _check_alike(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Refuse rows that no table holds: of other metrics or further sets than the first, or without a mean of all."""
    measured = [row for row in rows if "error" not in row]
    kinds = [[_metrics(row), *((name, _metrics(one)) for name, one in _further(row))] for row in measured]
    other = [row["method"] for row, kind in zip(measured, kinds, strict=True) if kind != kinds[0]]
    if other:
        raise ValueError(f"{path}: {other[0]} has other metrics or further sets than the first row; compare again.")
    changes = [one["delta_m"] for row in measured for one in (row, *dict(_further(row)).values())]
    moved = [row["transferred"] or {} for row in rows if "transferred" in row]
    if any("mean" not in change for change in (*filter(None, changes), *moved)):
        raise ValueError(f"{path}: a row has Delta_m of tasks and no mean of them; compare again.")


def _further(row: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted((row.get("also") or {}).items())


def _metrics(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(task, metric) for task, metrics in row["tasks"].items() for metric in metrics]


def _is_row(row: Any, blocks: Mapping[str, Any]) -> bool:
    if not isinstance(row, Mapping) or not isinstance(row.get("method"), str):
        return False
    if not isinstance(row.get("block"), str) or row["block"] not in blocks:
        return False
    return "error" in row or (isinstance(row.get("tasks"), Mapping) and isinstance(row.get("delta_m"), Mapping))


def _record_file(path: Path) -> Path | None:
    """The record in a folder, or the file itself; None for a run that is not finished."""
    if not path.is_dir():
        if path.is_file():
            return path
        raise ValueError(_missing(path, path.parent))
    for name in (RUN, COMPARISON):
        if (path / name).is_file():
            return path / name
    if (path / "run.json").is_file():
        return None
    raise ValueError(_missing(path / RUN, path))


def _missing(file: Path, above: Path) -> str:
    near = sorted(
        str(other) for name in (RUN, COMPARISON) for depth in ("*", "*/*") for other in above.glob(f"{depth}/{name}")
    )
    such = f", such as {', '.join(near[:5])}" if near else ""
    return (
        f"{file} is not there; give the {RUN} of a finished run, the {COMPARISON} of a comparison, or a folder{such}."
    )
