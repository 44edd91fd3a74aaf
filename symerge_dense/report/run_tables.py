"""Finished runs in Markdown: every metric over the seeds, and Delta_m by every definition."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from symerge_dense.evaluation.delta_m import DEFINITIONS, Compared, delta_m
from symerge_dense.evaluation.scores import scores_from_json
from symerge_dense.models.plugins import origin
from symerge_dense.registry import TASKS
from symerge_dense.report.results import measured_on, rows_of
from symerge_dense.report.seeds import Results, further_sets, pooled, spread
from symerge_dense.report.table import UNDEFINED, decimals, row_title

Tasks = Mapping[str, Mapping[str, Mapping[str, Any]]]


def seeds_table(title: str, runs: Sequence[Results]) -> str:
    """Every row and metric as mean ± standard deviation over the runs, and Delta_m by every definition.

    Further labelled sets that all runs were measured on have a column of Delta_m (by headline), and a table each.

    Args:
        title: stands above the table.
        runs: records of one configuration that differ in their seed.

    Returns:
        Markdown.

    Raises:
        ValueError: ``runs`` is empty, or the metrics of its runs differ.
    """
    mean = pooled(runs)
    metrics = [
        (task, metric, entry["higher_is_better"])
        for task, entries in mean["experts"]["tasks"].items()
        for metric, entry in entries.items()
    ]
    headings = [f"{task} {metric} {'↑' if better else '↓'}" for task, metric, better in metrics]
    further = {name: [measured_on(run, name) for run in runs] for name in further_sets(runs)}
    deltas = [*(f"Δm {definition} % ↑" for definition in DEFINITIONS), *(f"Δm {name} % ↑" for name in further)]
    lines = [["", *headings, *deltas]]
    reasons: list[str] = []
    for row in rows_of(mean):
        cells = [number(mean[row]["tasks"][task][metric]) for task, metric, _ in metrics]
        also = [_headline(views, row) for views in further.values()]
        lines.append([row_title(mean, row), *cells, *_deltas(runs, row, reasons), *also])
    notes = "".join(f"\n{UNDEFINED} {reason}\n" for reason in dict.fromkeys(reasons))
    whole = f"**{title}**: {seeds(runs)}, protocol `{protocol(runs[0])}`\n\n{markdown(lines)}{notes}"
    tables = [seeds_table(f"{title}, measured on data.{name}", views) for name, views in further.items()]
    return "\n".join([whole, *tables])


def _headline(runs: Sequence[Results], row: str) -> str:
    """Delta_m of a row by headline, as the records have it."""
    if row == "experts":
        return UNDEFINED
    means = [run["delta_m"][row]["mean"] for run in runs]
    return number(spread([math.nan if mean is None else mean for mean in means]), 2, "+")


def protocol(run: Results) -> str:
    """Name of the conventions by which a run was measured.

    Args:
        run: its record.
    """
    evaluation = (run["config"] or {}).get("evaluation") or {}
    return str(evaluation.get("protocol", "default"))


def markdown(lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table.

    Args:
        lines: the heading, then the rows.
        words: how many columns, from the left, are text; the others are numbers.
    """
    rule = ["---" if position < words else "---:" for position in range(len(lines[0]))]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (lines[0], rule, *lines[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def number(entry: Mapping[str, Any], places: int | None = None, sign: str = "") -> str:
    """A value with its standard deviation as text, '43.20 ± 0.10'; a dash where it is undefined.

    Args:
        entry: ``value`` (None: undefined) and, with several runs, ``std``.
        places: decimals; None for as many as ``decimals`` gives the value.
        sign: '+' to print the sign of positive values as well.
    """
    value = entry["value"]
    if value is None or not math.isfinite(value):
        return UNDEFINED
    places = decimals([value]) if places is None else places
    text = f"{value:{sign}.{places}f}"
    return f"{text} ± {entry['std']:.{places}f}" if entry.get("std") is not None else text


def seeds(runs: Sequence[Results]) -> str:
    """How many runs there are, and their seeds: one that comes twice is named twice.

    Args:
        runs: records of one configuration.
    """
    many = "s" if len(runs) > 1 else ""
    return f"{len(runs)} run{many}, seed{many} {', '.join(map(str, sorted(run['seed'] for run in runs)))}"


def _deltas(runs: Sequence[Results], row: str, reasons: list[str]) -> Iterator[str]:
    """Delta_m of a row by every definition, as mean and spread over the runs; why one is missing joins ``reasons``.

    By headline, the record has it: that stands where a task's module is not imported.
    """
    for definition in DEFINITIONS:
        if row == "experts":
            yield UNDEFINED
            continue
        values = []
        for run in runs:
            tasks, reference = run[row]["tasks"], run["experts"]["tasks"]
            value, reason = change(tasks, reference, definition, recorded(run), run.get("plugins"))
            stored = run["delta_m"][row]["mean"] if definition == "headline" else None
            if reason and stored is not None:
                value = stored
            elif reason:
                reasons.append(f"no Δm {definition}: {reason}")
            values.append(value)
        yield number(spread(values), 2, "+")


def recorded(run: Results) -> dict[str, Compared]:
    """What a record itself says of its tasks, whose modules need not be imported then; older records say nothing.

    Args:
        run: the record.
    """
    headlines, published = run.get("delta_m_metrics") or {}, run.get("published_metrics") or {}
    return {
        task: Compared(headline, tuple(published[task])) for task, headline in headlines.items() if task in published
    }


def change(
    tasks: Tasks, reference: Tasks, definition: Any, known: Mapping[str, Compared], plugins: Any = None
) -> tuple[float, str]:
    """Mean Delta_m of a row, and why there is none.

    Args:
        tasks: of the row, as in results.json.
        reference: of the experts.
        definition: of ``DEFINITIONS``.
        known: what the record says of its tasks; others are looked up among the registered ones.
        plugins: what the record says of the modules that registered its tasks.

    Returns:
        The value and an empty text; NaN and the reason where it is undefined (a reference of 0), or where nothing is
        known of a task.
    """
    missing = [task for task in tasks if task not in known and task not in TASKS]
    if missing:
        told = "".join(origin(f"task {task}", plugins) for task in missing)
        return math.nan, (
            f"the record is of an earlier version and does not say which metrics of {', '.join(map(repr, missing))} "
            f"count, and no such task is registered here.{told or ' Import the module that does: --import MODULE.'}"
        )
    try:
        return delta_m(scores_from_json(tasks), scores_from_json(reference), definition, known)["mean"], ""
    except ValueError as error:
        return math.nan, str(error)
