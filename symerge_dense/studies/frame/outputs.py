"""What a study writes: study.json, its tables in Markdown and CSV, its plot; and beside them what it cost.

study.json is an object that no clock has a part in: a study that was killed and resumed writes the same bytes.

::

    name, type, title, claim, question, paper, rule, would_change, quick, seeds, command, cost
    config, study                        sections of the config, arguments of the study
    verdict: {outcome, reason, findings: {what: {mean, low, high, count}}}
    rows: {label: {number: {mean, low, high, count}}}
    runs: [{label, seed, ..., numbers: {name: value}}]

costs.json has what every run cost, on which device and by which versions: see ``costs``. A study that asks for it draws
costs.png.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symerge_dense.fileio import write_text
from symerge_dense.pipeline.config import to_json
from symerge_dense.report.results import write_results
from symerge_dense.report.run_tables import markdown
from symerge_dense.report.table import UNDEFINED
from symerge_dense.studies.frame.costs import costs_by_label
from symerge_dense.studies.frame.intervals import Interval
from symerge_dense.studies.frame.plan import Plan
from symerge_dense.studies.frame.study import Measured, Verdict, table

FILES = ("study.json", "study.md", "study.csv", "study.png", "costs.json")
COSTS_PLOT = "costs.png"
Record = dict[str, Any]


def write_study(folder: Path, plan: Plan, measured: Sequence[Measured], costs: Mapping[str, Any]) -> Record:
    """Judge a study and write all its files.

    Args:
        folder: where they are written.
        plan: of the study.
        measured: all runs.
        costs: content of costs.json.

    Returns:
        The content of study.json.
    """
    verdict = plan.study.verdict(measured)
    record = study_record(plan, measured, verdict)
    write_results(folder / "costs.json", costs)
    write_text(folder / "study.csv", csv_study(measured))
    write_text(folder / "study.md", markdown_study(record, plan.study.shown))
    plan.study.draw(folder / "study.png", measured, verdict)
    plan.study.draw_costs(folder / COSTS_PLOT, costs_by_label(costs))
    write_results(folder / "study.json", record)  # last: it says that the study is whole
    return record


def study_record(plan: Plan, measured: Sequence[Measured], verdict: Verdict) -> Record:
    """The content of study.json.

    Args:
        plan: of the study.
        measured: all runs.
        verdict: of the study's rule.
    """
    study, quick = plan.study, " --quick" if plan.quick else ""
    names = list(dict.fromkeys(name for one in measured for name in one.numbers))
    return {
        "name": plan.name,
        "type": study.name,
        **{key: getattr(study, key) for key in ("title", "claim", "question", "paper", "rule", "would_change")},
        "quick": plan.quick,
        "seeds": plan.seeds,
        "command": f"symerge study {plan.name}{quick} --seeds {plan.seeds}",
        "cost": plan.cost,
        "config": plan.config.record,
        "study": to_json(plan.spec),
        "verdict": {
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "findings": {what: plain_interval(found) for what, found in verdict.findings.items()},
        },
        "rows": {
            label: {name: plain_interval(found) for name, found in row.items()}
            for label, row in table(measured, names).items()
        },
        "runs": [{**to_json(one.run), "numbers": dict(one.numbers)} for one in measured],
    }


def plain_interval(interval: Interval) -> dict[str, Any]:
    """An interval as JSON data, None for what is undefined.

    Args:
        interval: to write.
    """
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**{key: value if math.isfinite(value) else None for key, value in ends.items()}, "count": interval.count}


def shown_interval(found: Mapping[str, Any] | None) -> str:
    """An interval of study.json as a cell of a table.

    Args:
        found: as ``plain_interval`` gives it; None for a number that a row has not.
    """
    if found is None or found["mean"] is None:
        return UNDEFINED
    if found["low"] is None:
        return f"{found['mean']:.2f}"
    return f"{found['mean']:.2f} ± {(found['high'] - found['low']) / 2:.2f}"


def markdown_study(record: Mapping[str, Any], shown: Sequence[str], level: str = "#") -> str:
    """A study as a section in Markdown.

    Args:
        record: content of study.json.
        shown: columns of the table.
        level: signs of its heading.
    """
    names = [name for name in shown if any(name in row for row in record["rows"].values())]
    lines = [
        ["", *names],
        *([label, *(shown_interval(row.get(n)) for n in names)] for label, row in record["rows"].items()),
    ]
    verdict = record["verdict"]
    found = [["finding", "mean", "95 % interval"]]
    found += [[what, _mean(one), _ends(one)] for what, one in verdict["findings"].items()]
    reduced = " This is the reduction for a first look (`--quick`): its verdict says little." if record["quick"] else ""
    return (
        f"{level} {record['title']}: {verdict['outcome']}\n\n"
        f"**Claim.** {record['claim']} **Question.** {record['question']}\n\n"
        f"**Paper.** {record['paper'] or 'Reports nothing on it.'}\n\n"
        f"**Verdict: {verdict['outcome']}.** {verdict['reason']}{reduced}\n\n"
        f"Rule, written before the runs: {record['rule']}\n\n{markdown(found)}\n"
        f"Every row, mean ± half of the 95 % interval over {_seeds(record)}:\n\n{markdown(lines)}\n"
        f"What would change the verdict: {record['would_change']}\n\n    {record['command']}\n"
    )


def _seeds(record: Mapping[str, Any]) -> str:
    return "1 seed" if record["seeds"] == 1 else f"{record['seeds']} seeds"


def _mean(found: Mapping[str, Any]) -> str:
    return UNDEFINED if found["mean"] is None else f"{found['mean']:+.3f}"


def _ends(found: Mapping[str, Any]) -> str:
    return UNDEFINED if found["low"] is None else f"{found['low']:+.3f} to {found['high']:+.3f}"


def csv_study(measured: Sequence[Measured]) -> str:
    """CSV with one line per run.

    Args:
        measured: all runs.
    """
    names = list(dict.fromkeys(name for one in measured for name in one.numbers))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "seed", *names])
    for one in measured:
        writer.writerow([one.label, one.run["seed"], *(_cell(one.numbers.get(name)) for name in names)])
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(value)
