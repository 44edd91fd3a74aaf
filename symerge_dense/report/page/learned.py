"""What runs learned: metrics class by class, the merging coefficients of every layer, curves of the adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from symerge_dense.adaptation.history import read_history
from symerge_dense.report.figures.curves import COEFFICIENT, LOSS
from symerge_dense.report.figures.heatmap import layer_labels
from symerge_dense.report.page.grids import Cell, Heading, grid, number_cell, words
from symerge_dense.report.page.markup import Markup, minus, tag
from symerge_dense.report.page.plots import curves, dots, heat_map
from symerge_dense.report.records import Found, Runs
from symerge_dense.report.results import MERGED_ROWS, ROWS, unit_of


# -- classes ----------------------------------------------------------------------------------------------------------
def classes_part(means: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    """Metrics that are means over classes, class by class.

    Args:
        means: {title of a group: its pooled record}.
    """
    found = []
    for title, mean in means.items():
        for task, metrics in mean["experts"]["tasks"].items():
            for metric, entry in metrics.items():
                rows = {row: mean[row]["tasks"][task][metric].get("parts") for row in ROWS}
                if entry.get("parts") and all(rows.values()):
                    caption = [tag("b", title), ": "] if len(means) > 1 else []
                    unit = unit_of(mean, task, metric)
                    found.append(_classes([*caption, f"{task}, {metric} by class. "], rows, unit))
    return found


def _classes(caption: Sequence[Any], rows: Mapping[str, Mapping[str, float | None]], unit: str) -> Markup:
    others = ", ".join(ROWS[row] for row in MERGED_ROWS if row != "merged")
    key = tag("span", f"○ expert, ● {ROWS['merged']}, strokes: {others}", class_="quiet")
    top = max((value for parts in rows.values() for value in parts.values() if value is not None), default=0.0)
    full = 100.0 if 1 < top <= 100 else top or 1.0
    lines = [_class(name, {row: parts.get(name) for row, parts in rows.items()}, full) for name in rows["experts"]]
    heads = [
        Heading("class", number=False),
        Heading(f"0 to {full:g}", unit=unit, better="up"),
        Heading("expert", unit=unit, better="up"),
        Heading(ROWS["merged"], unit=unit, better="up"),
        Heading("change", better="up"),
    ]
    return tag("div", grid([*caption, key], heads, lines), class_="classes")


def _class(name: str, values: Mapping[str, float | None], full: float) -> list[Cell]:
    expert, merged = values["experts"], values["merged"]
    change = merged - expert if merged is not None and expert is not None else None
    places = {("expert" if row == "experts" else row): value and value / full for row, value in values.items()}
    numbers = [number_cell(expert, 1), number_cell(merged, 1), number_cell(change, 1, "+")]
    return [words(name), Cell(dots(places), merged), *numbers]


# -- coefficients -----------------------------------------------------------------------------------------------------
def coefficients_part(groups: Sequence[Runs]) -> list[Markup]:
    """A map of the merging coefficients per group, means over its seeds.

    Args:
        groups: runs; one without coefficients is left out.
    """
    found = []
    for title, runs in groups:
        tables = [dict(run.content.get("coefficients") or {}) for run in runs]
        tasks = _tasks(runs[0])
        if not all(tables) or any(len(values) != len(tasks) for table in tables for values in table.values()):
            continue
        mean = {name: _means([table.get(name) for table in tables], len(tasks)) for name in tables[0]}
        labels = layer_labels(list(mean))
        spans = _spans(runs, len(tasks))
        lines = [
            [
                words(label),
                *(number_cell(value, 3) for value in values),
                *spans.get(name, [words("")] * (len(tasks) * bool(spans))),
            ]
            for label, (name, values) in zip(labels, mean.items(), strict=True)
        ]
        heads = [Heading("layer", number=False), *(Heading(task) for task in tasks)]
        heads += [Heading(task, over="lowest to highest", number=False) for task in tasks] if spans else []
        caption = f"{len(labels)} groups of tensors" + (", means of their coefficients" if spans else "")
        values = tag("details", tag("summary", "All values"), grid(caption, heads, lines))
        found.append(tag("div", _heading(title, groups), heat_map(mean, labels, tasks), values, class_="learned"))
    return found


def _spans(runs: Sequence[Found], tasks: int) -> dict[str, list[Cell]]:
    """{group with several coefficients per task: their span over all seeds, task by task}."""
    tables = [dict(run.content.get("coefficient_ranges") or {}) for run in runs]
    found = {}
    for name in tables[0]:
        ends = [table.get(name) or [] for table in tables]
        if all(len(pairs) == tasks and None not in chain(*pairs) for pairs in ends):
            spans = [
                (min(low for low, _ in pairs), max(high for _, high in pairs)) for pairs in zip(*ends, strict=True)
            ]
            found[name] = [words(minus(f"{low:.3f} to {high:.3f}")) for low, high in spans]
    return found


def _means(rows: Sequence[Sequence[float | None] | None], count: int) -> list[float | None]:
    """Means over the seeds; None for what some seed has not."""
    columns = [[None if row is None else row[place] for row in rows] for place in range(count)]
    return [None if None in column else fmean(value or 0.0 for value in column) for column in columns]


def _tasks(run: Found) -> list[str]:
    return list((run.content["config"] or {}).get("tasks") or ())


def _heading(title: str, groups: Sequence[Runs]) -> Markup | None:
    return tag("h3", title) if len(groups) > 1 else None


# -- curves -----------------------------------------------------------------------------------------------------------
def curves_part(groups: Sequence[Runs]) -> list[Markup]:
    """Losses and mean coefficients over the iterations, a line per seed.

    Args:
        groups: runs; one without a history is left out.
    """
    found = []
    for title, runs in groups:
        histories = [read_history(run.folder / "history.jsonl") for run in runs]
        known = {name for rows in histories for row in rows for name in row}
        drawn = [
            curves(what, histories, {task: key + task for task in _tasks(runs[0]) if key + task in known})
            for what, key in (("Loss, smoothed", LOSS), ("Mean merging coefficient", COEFFICIENT))
        ]
        if any(drawn):
            found.append(tag("div", _heading(title, groups), tag("div", drawn, class_="pair")))
    return found
