"""What a benchmark measures, one line a contender: printed, as JSON, and as a section of a Markdown page."""

from __future__ import annotations

import datetime
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from symerge_dense.fileio import write_text
from symerge_dense.pipeline.run_info import run_facts
from symerge_dense.report.run_tables import markdown

PAGE_HEAD = """# Benchmarks

    make bench

appends a section: seconds and memory on one machine at one commit. Contenders of a case take turns in one run, so their
ratio says more than their seconds, which depend on the machine.
"""


@dataclass(frozen=True)
class Row:
    """One contender of one case.

    Args:
        case: what is computed.
        contender: who computes it.
        seconds: median of its rounds.
        ratio: of its seconds to those of the case's first contender, the median of the ratios within a round.
        slow: 95th percentile of its rounds in seconds; None where there are fewer than 20.
        count: images or files of one round.
        mebibytes: of memory: the suite says which.
    """

    case: str
    contender: str
    seconds: float
    ratio: float
    slow: float | None = None
    count: int = 1
    mebibytes: float | None = None


ENOUGH = 20  # rounds, for a 95th percentile
HEADINGS = ("case", "contender", "seconds", "95 % of rounds", "a second", "ratio", "MiB")


def cells(row: Row) -> list[str]:
    """A row as the text of its cells, in the order of ``HEADINGS``.

    Args:
        row: to be shown.
    """
    return [
        row.case,
        row.contender,
        f"{row.seconds:.4g}",
        "–" if row.slow is None else f"{row.slow:.4g}",
        f"{row.count / row.seconds:.4g}",
        f"{row.ratio:.2f}",
        "–" if row.mebibytes is None else f"{row.mebibytes:.0f}",
    ]


def print_rows(title: str, rows: Sequence[Row], console: Console) -> None:
    """Print a suite's table.

    Args:
        title: says what ratio and memory mean.
        rows: of the suite.
        console: to print on.
    """
    table = Table(title=title)
    for position, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if position < 2 else "right", no_wrap=position > 1)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)


def record(measured: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Rows and the facts of their machine, as JSON takes them.

    Args:
        measured: {suite: rows}.
    """
    suites = {suite: [asdict(row) for row in rows] for suite, rows in measured.items()}
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"date": now.date().isoformat(), **run_facts(), "suites": suites}


def append_section(page: Path, command: str, measured: Mapping[str, Sequence[Row]], titles: Mapping[str, str]) -> None:
    """Add what was measured to a page, with date, machine and commit. The page is made where there is none.

    Args:
        page: a Markdown file.
        command: that measured it.
        measured: {suite: rows}.
        titles: {suite: what its ratio and memory mean}.
    """
    facts = record(measured)
    versions = ", ".join(
        f"{name} {version}" for name, version in facts["versions"].items() if name in ("torch", "timm")
    )
    parts = [
        page.read_text("utf-8").rstrip() if page.exists() else PAGE_HEAD.rstrip(),
        f"## {facts['date']}, {facts['device']}",
        f"    {command}",
        f"Commit `{facts['commit'][:12]}`, {versions}.",
    ]
    for suite, rows in measured.items():
        parts += [f"**{titles[suite]}**", markdown([HEADINGS, *map(cells, rows)], words=2).rstrip()]
    write_text(page, "\n\n".join(parts) + "\n")


def check_positive(numbers: Mapping[str, float | None]) -> None:
    """Check numbers of a benchmark before anything is measured.

    Args:
        numbers: {name: value}; None is not given.

    Raises:
        ValueError: one is not finite or not above 0.
    """
    for name, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value} must be positive and finite; choose another number, or leave it out.")


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds until some work is done, on the GPU too.

    Args:
        work: what to time.
    """
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def contest(case: str, rounds: Sequence[Mapping[str, float]], **more: Mapping[str, Any]) -> list[Row]:
    """The rows of contenders that took turns.

    Args:
        case: what they computed.
        rounds: {contender: seconds} of every round; ratios are to the first contender of a round.
        **more: {field of ``Row``: {contender: value}}.
    """
    first = next(iter(rounds[0]))
    return [
        Row(
            case,
            name,
            seconds=round(statistics.median(turn[name] for turn in rounds), 5),
            ratio=round(statistics.median(turn[name] / turn[first] for turn in rounds), 3),
            slow=round(float(np.percentile([turn[name] for turn in rounds], 95)), 5) if len(rounds) >= ENOUGH else None,
            **{field: values[name] for field, values in more.items()},
        )
        for name in rounds[0]
    ]
