"""Finished runs in Markdown: every metric over the seeds, and the same beside the numbers of a paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from symerge_dense.evaluation.delta_m import DEFINITIONS, Compared, delta_m
from symerge_dense.evaluation.scores import scores_from_json
from symerge_dense.progress import say
from symerge_dense.report.paper_numbers import PublishedColumn, PublishedTable
from symerge_dense.report.results import ROWS
from symerge_dense.report.seeds import Results, pooled, spread
from symerge_dense.report.table import UNDEFINED, row_title

Tasks = Mapping[str, Mapping[str, Mapping[str, Any]]]
PAPER_DEFINITIONS = ("task_mean", "metric_mean")


def seeds_table(title: str, runs: Sequence[Results]) -> str:
    """Every row and metric as mean ± standard deviation over the runs, and Delta_m by every definition.

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
    lines = [["", *headings, *(f"Δm {definition} % ↑" for definition in DEFINITIONS)]]
    for row in ROWS:
        cells = [number(mean[row]["tasks"][task][metric]) for task, metric, _ in metrics]
        deltas = [_delta(runs, row, definition) for definition in DEFINITIONS]
        lines.append([row_title(mean, row), *cells, *deltas])
    return f"**{title}**: {_seeds(runs)}, protocol `{protocol(runs[0])}`\n\n{markdown(lines)}"


def comparison(title: str, runs: Sequence[Results], paper: PublishedTable) -> str:
    """A paper's table with a column for ``runs`` beside each of its own.

    Delta_m is computed here for both, from the columns of the table.

    Args:
        title: name of the runs, above the table.
        runs: records of one configuration that differ in their seed.
        paper: the published table.

    Returns:
        Markdown.

    Raises:
        ValueError: ``runs`` is empty, lacks a metric of the paper, or the metrics of its runs differ.
    """
    mean = pooled(runs)
    for column in paper.columns:
        if column.metric not in mean["experts"]["tasks"].get(column.task, {}):
            raise ValueError(
                f"{title} has no {column.task}/{column.metric}, which {paper.source} reports; run a "
                "config with that task, or leave --paper out."
            )
    headings = [*(column.title for column in paper.columns), *(f"Δm {name} %" for name in PAPER_DEFINITIONS)]
    lines = [["", *(f"{heading} {whose}" for heading in headings for whose in ("paper", "yours"))]]
    for row, printed in paper.rows.items():
        mine = list(_mine(runs, mean, row, paper)) if row in mean else [UNDEFINED] * len(headings)
        theirs = [*_printed(printed.values, printed.spread), *(_paper_delta(paper, row, d) for d in PAPER_DEFINITIONS)]
        lines.append([printed.method, *(cell for pair in zip(theirs, mine, strict=True) for cell in pair)])
    return (
        f"**{title}** ({_seeds(runs)}, protocol `{protocol(runs[0])}`) beside {paper.title}: {paper.source}\n\n"
        f"{markdown(lines)}"
    )


def protocol(run: Results) -> str:
    """Name of the conventions by which a run was measured.

    Args:
        run: its record.
    """
    evaluation = (run["config"] or {}).get("evaluation") or {}
    return str(evaluation.get("protocol", "default"))


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        lines: the heading, then the rows. The first column is text, the others are numbers.
    """
    rule = ["---", *("---:" for _ in lines[0][1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])) + "\n"


def number(entry: Mapping[str, Any], decimals: int | None = None, sign: str = "") -> str:
    """A value with its standard deviation as text, '43.20 ± 0.10'; a dash where it is undefined.

    Args:
        entry: ``value`` (None: undefined) and, with several runs, ``std``.
        decimals: None for 4 below 1, 3 below 10, else 2.
        sign: '+' to print the sign of positive values as well.
    """
    value = entry["value"]
    if value is None or not math.isfinite(value):
        return UNDEFINED
    places = decimals if decimals is not None else 4 if abs(value) < 1 else 3 if abs(value) < 10 else 2
    text = f"{value:{sign}.{places}f}"
    return f"{text} ± {entry['std']:.{places}f}" if "std" in entry else text


def _seeds(runs: Sequence[Results]) -> str:
    seeds = sorted({run["seed"] for run in runs})
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}, seed {', '.join(map(str, seeds))}"


def _mine(runs: Sequence[Results], mean: Results, row: str, paper: PublishedTable) -> Iterator[str]:
    for column in paper.columns:
        entry = mean[row]["tasks"][column.task][column.metric]
        yield number({key: value * column.factor for key, value in entry.items() if key in ("value", "std")}, 1)
    for definition in PAPER_DEFINITIONS:
        yield _delta(runs, row, definition, paper.columns)


def _printed(values: Sequence[float], spreads: Sequence[float] | None) -> Iterator[str]:
    for index, value in enumerate(values):
        yield number({"value": value, **({"std": spreads[index]} if spreads else {})}, 1)


def _paper_delta(paper: PublishedTable, row: str, definition: str) -> str:
    if row == "experts":
        return UNDEFINED
    known = _columns_by_task(paper.columns)
    return number({"value": _change(paper.tasks(row), paper.tasks("experts"), definition, known)}, 1, "+")


def _delta(runs: Sequence[Results], row: str, definition: str, columns: Sequence[PublishedColumn] = ()) -> str:
    """Delta_m of a row, as mean and spread over the runs; of the metrics of ``columns`` only, if there are any."""
    if row == "experts":
        return UNDEFINED
    changes = [
        _change(
            _only(run[row]["tasks"], columns),
            _only(run["experts"]["tasks"], columns),
            definition,
            _columns_by_task(columns) or _recorded(run),
        )
        for run in runs
    ]
    return number(spread(changes), 2 if not columns else 1, "+")


def _only(tasks: Tasks, columns: Sequence[PublishedColumn]) -> Tasks:
    wanted = {(column.task, column.metric) for column in columns}
    if not wanted:
        return tasks
    return {
        task: {metric: entry for metric, entry in metrics.items() if (task, metric) in wanted}
        for task, metrics in tasks.items()
        if any(name == task for name, _ in wanted)
    }


def _columns_by_task(columns: Sequence[PublishedColumn]) -> dict[str, Compared]:
    """The metrics that a paper's table has of each task."""
    found: dict[str, Compared] = {}
    for column in columns:
        known = found.get(column.task, Compared(column.metric, ()))
        found[column.task] = known._replace(delta_metrics=(*known.delta_metrics, column.metric))
    return found


def _recorded(run: Results) -> dict[str, Compared]:
    """What the record itself says of its tasks, whose modules need not be imported then; older records say nothing."""
    headlines, published = run.get("delta_m_metrics") or {}, run.get("published_metrics") or {}
    return {
        task: Compared(headline, tuple(published[task])) for task, headline in headlines.items() if task in published
    }


def _change(tasks: Tasks, reference: Tasks, definition: Any, known: Mapping[str, Compared]) -> float:
    """Mean Delta_m; NaN, with a remark, where it is undefined (a reference of 0) or nothing is known of a task."""
    try:
        return delta_m(scores_from_json(tasks), scores_from_json(reference), definition, known)["mean"]
    except ValueError as error:
        say(f"no Delta_m: {error}", once=True, aside=True)
        return math.nan
