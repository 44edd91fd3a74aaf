"""The tables of results: one for all runs that were measured alike, experts on top as the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from symerge_dense.report.agreement import AGREEMENT_ROWS
from symerge_dense.report.page.grids import Cell, Heading, grid, marked, number_cell, spaced, words
from symerge_dense.report.page.markup import Markup, minus, tag
from symerge_dense.report.records import Found
from symerge_dense.report.results import MEASURED, MERGED_ROWS, REFERENCES, ROWS, measured_on, rows_of, unit_of
from symerge_dense.report.run_tables import number, protocol, seeds
from symerge_dense.report.seeds import further_sets, group, pooled, spread
from symerge_dense.report.table import row_title

Entry = Mapping[str, Any]


class Group(NamedTuple):
    """Runs that differ only in their seed.

    Args:
        title: name of the group.
        runs: its runs.
        mean: their pooled record.
    """

    title: str
    runs: list[Found]
    mean: dict[str, Any]

    @property
    def seeds(self) -> str:
        """How many runs there are, and their seeds."""
        return seeds([run.content for run in self.runs])


def groups_of(runs: Sequence[Found]) -> list[Group]:
    """Runs by configuration.

    Args:
        runs: with labels.

    Raises:
        ValueError: the metrics of runs of one configuration differ.
    """
    folders = {id(run.content): run for run in runs}
    found = group([run.content for run in runs])
    return [
        Group(title, [folders[id(member)] for member in members], _pooled(members)) for title, members in found.items()
    ]


def _pooled(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pooled record, with Delta_m of every task as mean and spread too."""
    mean = pooled(members)
    changes = {
        row: {
            task: spread([_nan(member["delta_m"][row].get(task)) for member in members])
            for task in ("mean", *mean["experts"]["tasks"])
        }
        for row in rows_of(mean)
        if row != "experts"
    }
    return {**mean, "delta_m": changes}


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def results_part(groups: Sequence[Group]) -> list[Markup]:
    """A sentence per group, and the tables.

    Args:
        groups: of runs with labels.
    """
    further = [_on(one, name) for one in groups for name in further_sets([run.content for run in one.runs])]
    return [tag("ul", map(_sentence, groups), class_="lead"), *map(_table, _measured_alike([*groups, *further]))]


def _on(one: Group, name: str) -> Group:
    """A group as if one of the further labelled sets of its runs were the only one."""
    return one._replace(mean=_pooled([measured_on(run.content, name) for run in one.runs]))


def _sentence(one: Group) -> Markup:
    tasks, change = len(one.mean["experts"]["tasks"]), one.mean["delta_m"]
    value, plain = (_with_spread(change[row]["mean"]) for row in ("merged", "average"))
    return tag(
        "li",
        tag("b", one.title),
        ": one network for ",
        "one task" if tasks == 1 else f"{tasks} tasks",
        " reaches ",
        tag("strong", f"Δm {value} %"),
        f" against {'its expert' if tasks == 1 else f'{tasks} experts'}; their average {plain} %. ",
        tag("span", one.seeds, class_="quiet"),
    )


def _with_spread(entry: Entry) -> str:
    return minus(number(entry if entry.get("std") else {"value": entry["value"]}, 2, "+"))


def _measured_alike(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups whose numbers may stand in one table: the same data, protocol, tasks and metrics."""
    found: dict[str, list[Group]] = {}
    for one in groups:
        metrics = {task: list(entries) for task, entries in one.mean["experts"]["tasks"].items()}
        found.setdefault(json.dumps([_data(one), protocol(one.mean), metrics], sort_keys=True), []).append(one)
    return list(found.values())


def _data(one: Group) -> Any:
    return ((one.mean["config"] or {}).get("data") or {}).get(one.mean.get(MEASURED, "test"))


def about_data(data: Any) -> str:
    """A data set in words, such as 'Rooms, test'.

    Args:
        data: its spec in a recorded config.
    """
    if not isinstance(data, Mapping):
        return "data not recorded"
    name = str(data.get("type", "")).rsplit(".", 1)[-1]
    size = data.get("size")
    shape = [" × ".join(map(str, size))] if isinstance(size, list) else []
    return ", ".join([name, *([str(data["split"])] if "split" in data else []), *shape])


def _table(groups: Sequence[Group]) -> Markup:
    first, several = groups[0].mean, len(groups) > 1
    columns = [
        *(_change(groups, task) for task in ("mean", *first["experts"]["tasks"])),
        *(_metric(groups, task, metric) for task, entries in first["experts"]["tasks"].items() for metric in entries),
    ]
    names = [Heading("model", number=False), *([Heading("run", number=False)] if several else [])]

    def line(one: Group, row: str, run: str = "") -> list[Cell]:
        names = [row_title(one.mean, row), *([run or short(one.title)] if several else [])]
        return [*map(words, names), *(cells[one.title, row] for _, cells in columns)]

    place = f"data.{first[MEASURED]}: " if MEASURED in first else ""
    caption = [f"{place}{about_data(_data(groups[0]))}; protocol {protocol(first)}. ", _LEGEND]
    rows = [line(one, row) for one in groups for row in MERGED_ROWS]
    experts = [line(one, "experts") for one in groups]
    if several and all(other[2:] == experts[0][2:] for other in experts):
        experts = [line(groups[0], "experts", "every run")]
    experts += [line(one, row) for one in groups for row in REFERENCES if row != "experts" and row in one.mean]
    return grid(caption, [*names, *(head for head, _ in columns)], rows, experts)


_LEGEND = tag(
    "span",
    "Experts, one network per task, are the reference; every other row is one network. Bold: the best of these. "
    "Δm: change against the experts. ±: standard deviation over seeds, where they differ.",
    class_="quiet",
)
Column = tuple[Heading, dict[tuple[str, str], Cell]]


def short(title: str) -> str:
    """The part of a group's name that says how it differs from others of its config, where there is one.

    Args:
        title: of the group.
    """
    _, mark, inner = title.partition(" (")
    return inner.removesuffix(")") if mark else title


def _metric(groups: Sequence[Group], task: str, metric: str) -> Column:
    """A metric of a task: {(group, row): cell}; the best merged rows are marked."""
    entries = {(one.title, row): one.mean[row]["tasks"][task][metric] for one in groups for row in rows_of(one.mean)}
    up = next(iter(entries.values()))["higher_is_better"]
    unit = unit_of(groups[0].mean, task, metric)
    return Heading(spaced(metric), task, unit, "up" if up else "down"), _marked(entries, up)


def _change(groups: Sequence[Group], task: str) -> Column:
    entries = {(one.title, row): change[task] for one in groups for row, change in one.mean["delta_m"].items()}
    cells = _marked(entries, True, places=2, sign="+")
    return Heading(task, "Δm", "%", "up"), {**{(one.title, "experts"): number_cell(None, 0) for one in groups}, **cells}


def _marked(
    entries: Mapping[tuple[str, str], Entry], up: bool, places: int | None = None, sign: str = ""
) -> dict[tuple[str, str], Cell]:
    return marked(entries, [key for key in entries if key[1] not in REFERENCES], up, places, sign)


def agreement_part(runs: Sequence[Found]) -> list[Markup]:
    """Tables of runs without labels, one each: how far a model decides as the experts do.

    Args:
        runs: without labels.
    """
    return [_agreement(run) for run in runs]


def _agreement(run: Found) -> Markup:
    found = run.content["agreement"]
    rows = {row: found["rows"][row]["tasks"] for row in AGREEMENT_ROWS}
    heads, columns = [Heading("model", number=False)], []
    for task, metrics in next(iter(rows.values())).items():
        for metric, entry in metrics.items():
            up = entry["higher_is_better"]
            heads.append(Heading(spaced(metric), task, better="up" if up else "down"))
            columns.append(_marked({("", row): rows[row][task][metric] for row in rows}, up))
    lines = [[words(ROWS[row]), *(column["", row] for column in columns)] for row in rows]
    name = (run.content["config"] or {}).get("name", "run")
    count = found.get("held_out_images")
    caption = [tag("b", name), f", seed {run.content['seed']}: each expert's decision taken for the truth, on "]
    return grid([*caption, f"{count} held-out images. No label was read: this is no accuracy."], heads, lines)
