"""Own numbers beside those of a paper, in Markdown: of runs, or of a comparison of methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from symerge_dense.evaluation.delta_m import Compared
from symerge_dense.report.differences import flat
from symerge_dense.report.paper_numbers import PublishedTable
from symerge_dense.report.results import ROWS
from symerge_dense.report.run_tables import Tasks, change, markdown, number, protocol, seeds
from symerge_dense.report.seeds import Results, pooled, spread
from symerge_dense.report.table import UNDEFINED

DEFINITIONS = ("task_mean", "metric_mean")


class Measured(NamedTuple):
    """Own numbers.

    Args:
        title: what they are called.
        about: how many runs there are, of which seeds.
        config: of the runs.
        pooled: {row: tasks}, means with ``std`` where there are several runs.
        single: the same of every run, for the spread of Delta_m; the means, where single runs were not kept.
    """

    title: str
    about: str
    config: Mapping[str, Any]
    pooled: Mapping[str, Tasks]
    single: Sequence[Mapping[str, Tasks]]


def of_runs(title: str, runs: Sequence[Results]) -> Measured:
    """The rows of runs.

    Args:
        title: name of the runs.
        runs: records of one configuration that differ in their seed.

    Raises:
        ValueError: ``runs`` is empty, or the metrics of its runs differ.
    """
    mean = pooled(runs)
    single = [{row: run[row]["tasks"] for row in ROWS} for run in runs]
    return Measured(title, seeds(runs), runs[0]["config"] or {}, {row: mean[row]["tasks"] for row in ROWS}, single)


def of_comparison(record: Mapping[str, Any]) -> Measured:
    """The rows of a comparison, a method each; those of failed methods are left out.

    Args:
        record: content of compare.json.

    Raises:
        ValueError: the experts' row is not there.
    """
    names = {"symerge": "merged"}
    rows = {names.get(row["method"], row["method"]): row["tasks"] for row in record["rows"] if "tasks" in row}
    title = f"{record['config'].get('name', 'run')}, compared"
    if "experts" not in rows:
        raise ValueError(f"{title} has no row of the experts; go on with it: symerge compare CONFIG --resume.")
    many = "s" if record["seeds"] > 1 else ""
    return Measured(title, f"{record['seeds']} run{many} per method", record["config"], rows, [rows])


def beside_paper(own: Measured, paper: PublishedTable) -> str:
    """A paper's table with a column of own numbers beside each of its own.

    Delta_m is computed here for both, from the columns of the table. What else differs from the paper's setting than
    the weights stands above the table.

    Args:
        own: numbers to show.
        paper: the published table.

    Returns:
        Markdown.

    Raises:
        ValueError: the numbers are of another data set or split than the paper's, or lack one of its metrics.
    """
    told = departures(own, paper)
    for column in paper.columns:
        if column.metric not in own.pooled["experts"].get(column.task, {}):
            raise ValueError(
                f"{own.title} has no {column.task}/{column.metric}, which {paper.source} reports; run a "
                "config with that task, or leave --paper out."
            )
    headings = [*(column.title for column in paper.columns), *(f"Δm {name} %" for name in DEFINITIONS)]
    lines = [["", *(f"{heading} {whose}" for heading in headings for whose in ("paper", "yours"))]]
    for row, printed in paper.rows.items():
        mine = list(_mine(own, row, paper)) if row in own.pooled else [UNDEFINED] * len(headings)
        theirs = [*_printed(printed.values, printed.spread), *(_paper_delta(paper, row, d) for d in DEFINITIONS)]
        lines.append([printed.method, *(cell for pair in zip(theirs, mine, strict=True) for cell in pair)])
    head = f"**{own.title}** ({own.about}, protocol `{_protocol(own)}`) beside {paper.title}: {paper.source}"
    warning = f"\n\nNot the paper's setting: {'; '.join(told)}." if told else ""
    return f"{head}{warning}\n\n{markdown(lines)}"


def departures(own: Measured, paper: PublishedTable) -> list[str]:
    """How numbers were measured otherwise than a paper's; what a record does not say is taken to be the paper's.

    Args:
        own: numbers.
        paper: the published table.

    Returns:
        Phrases such as 'backbone resnet18 (paper: resnet50)'.

    Raises:
        ValueError: the data set or its split is another: no line of the table could be compared.
    """
    setting, config = paper.setting, flat(own.config)
    data, split = config.get("data.test.type"), config.get("data.test.split")
    if data is None:
        told = ["the record does not say on which data it was measured"]
    elif data != setting.data or split not in (None, setting.split):
        raise ValueError(
            f"{own.title} was measured on {data}{f' ({split})' if split else ''}, and the table of {paper.source} on "
            f"{setting.data} ({setting.split}): nothing in it can be compared. Give runs on {setting.data}, or leave "
            "--paper out."
        )
    else:
        told = []
    found = {
        "backbone": (config.get("backbone.name", setting.backbone).split(".")[0], setting.backbone),
        "image size": (config.get("data.test.size", setting.size), setting.size),
        "classes": (config.get("tasks.segmentation.classes", setting.classes), setting.classes),
        "protocol": (_protocol(own), setting.protocol or _protocol(own)),
    }
    told += [f"{what} {mine} (paper: {theirs})" for what, (mine, theirs) in found.items() if mine != theirs]
    tasks, wanted = list(own.pooled["experts"]), list(dict.fromkeys(column.task for column in paper.columns))
    more = [task for task in tasks if task not in wanted]
    return [*told, *([f"merged together with {', '.join(more)}"] if more else [])]


def _protocol(own: Measured) -> str:
    return protocol({"config": own.config})


def _mine(own: Measured, row: str, paper: PublishedTable) -> Iterator[str]:
    for column in paper.columns:
        entry = own.pooled[row][column.task][column.metric]
        scaled = {key: entry[key] and entry[key] * column.factor for key in ("value", "std") if key in entry}
        yield number(scaled, 1)
    for definition in DEFINITIONS:
        if row == "experts":
            yield UNDEFINED
            continue
        known = _columns_by_task(paper)
        changes = [
            change(_only(run[row], paper), _only(run["experts"], paper), definition, known)[0] for run in own.single
        ]
        yield number(spread(changes), 1, "+")


def _printed(values: Sequence[float], spreads: Sequence[float] | None) -> Iterator[str]:
    for index, value in enumerate(values):
        yield number({"value": value, **({"std": spreads[index]} if spreads else {})}, 1)


def _paper_delta(paper: PublishedTable, row: str, definition: str) -> str:
    if row == "experts":
        return UNDEFINED
    value, _ = change(paper.tasks(row), paper.tasks("experts"), definition, _columns_by_task(paper))
    return number({"value": value}, 1, "+")


def _only(tasks: Tasks, paper: PublishedTable) -> Tasks:
    """The metrics that the paper's table has."""
    found: dict[str, dict[str, Any]] = {}
    for column in paper.columns:
        found.setdefault(column.task, {})[column.metric] = tasks[column.task][column.metric]
    return found


def _columns_by_task(paper: PublishedTable) -> dict[str, Compared]:
    """The metrics that a paper's table has of each task."""
    found: dict[str, Compared] = {}
    for column in paper.columns:
        known = found.get(column.task, Compared(column.metric, ()))
        found[column.task] = known._replace(delta_metrics=(*known.delta_metrics, column.metric))
    return found
