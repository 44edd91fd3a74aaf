"""What a study is: a claim, the runs that can confirm or refute it, what is measured, and the rule of its verdict."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from symerge_dense.studies.frame.intervals import UNMEASURED, Interval, Outcome, every, exceeds, t_interval
from symerge_dense.studies.frame.laboratory import Laboratory, Numbers, Run, measure_method
from symerge_dense.studies.frame.plots import draw_intervals
from symerge_dense.studies.frame.workplace import Workplace

CHANGES = ("delta_m", "delta_m/segmentation", "delta_m/depth", "delta_m/normals")
REACHED = ("segmentation/mIoU", "depth/abs", "normals/mean")
"""Columns of a study's table: the change against the experts, and what was reached, of the tasks of all studies."""


@dataclass(frozen=True)
class Measured:
    """A finished run.

    Args:
        run: of the grid, with its seed.
        numbers: what was measured; NaN where undefined.
    """

    run: Run
    numbers: Numbers

    @property
    def label(self) -> str:
        """What tables and plots call the run, the same for all seeds."""
        return str(self.run["label"])


@dataclass(frozen=True)
class Verdict:
    """What the rule says.

    Args:
        outcome: 'confirmed', 'refuted' or 'inconclusive'.
        reason: one sentence with the numbers that decide.
        findings: {what: interval over seeds} that the rule looked at.
    """

    outcome: Outcome
    reason: str
    findings: Mapping[str, Interval] = field(default_factory=dict)


class Study(ABC):
    """A claim under test. Its constructor takes grid and thresholds, which the config may change.

    ``name`` is the registered name; ``title`` heads its section; ``claim`` is one sentence; ``question`` is what a
    reader wants to know; ``paper`` is what the paper reports, None where it reports nothing; ``rule`` says in words
    when the verdict is what, ``would_change`` what would change it; ``keys`` are the study's own keys of a run;
    ``experiment`` names what ``measure`` does, so that studies that measure alike share runs;
    ``version`` is raised with every change of ``measure`` that alters a number; ``shown`` are the columns of the table;
    ``workplace`` is where runs are made: data that are no images have their own.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    question: ClassVar[str]
    paper: ClassVar[str | None] = None
    rule: ClassVar[str]
    would_change: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ()
    experiment: ClassVar[str] = "method"
    version: ClassVar[int] = 1
    shown: ClassVar[tuple[str, ...]] = ("delta_m",)
    axis: ClassVar[str] = "Δm in percent against the experts: further right is better"
    workplace: ClassVar[type[Workplace]] = Laboratory

    def check(self, config: Any) -> None:  # noqa: B027 (most studies can use any config)
        """Refuse a config that the study cannot use, before anything is trained; by default it can use any.

        Args:
            config: that all runs differ from, as the ``workplace`` reads it.

        Raises:
            ValueError: with the value and the remedy.
        """

    @abstractmethod
    def grid(self, tasks: Sequence[str]) -> list[Run]:
        """The runs without their seeds, each a dict of plain values: see ``workplace.RUN_KEYS``.

        Args:
            tasks: names of the config's tasks, of which a run may take some.
        """

    def measure(self, laboratory: Any, run: Run) -> Numbers:
        """Make a run and measure it.

        Args:
            laboratory: of the run, a ``workplace``: base, experts, images and metrics.
            run: of the grid.

        Returns:
            {what: number}, flat.
        """
        return measure_method(laboratory, run)

    @abstractmethod
    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        """Judge by the rule: a pure function of the numbers.

        Args:
            measured: every run of the grid, for every seed.
        """

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        """Draw one picture that answers the question at a glance: here the first shown number of every row.

        Args:
            path: PNG to write.
            measured: every run.
            verdict: what the rule said.
        """
        draw_intervals(path, column(measured, self.shown[0]), f"{self.title}: {verdict.outcome}", self.axis)

    def draw_costs(self, path: Path, costs: Mapping[str, Mapping[str, Interval]]) -> None:  # noqa: B027 - for some
        """Draw what the rows cost, in a study that asks for it too; here nothing.

        Args:
            path: PNG to write.
            costs: {label: {number: interval}}, see ``costs_by_label``.
        """


# -- numbers of several runs ------------------------------------------------------------------------------------------
def table(measured: Sequence[Measured], names: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Intervals over seeds.

    Args:
        measured: runs of all seeds.
        names: of numbers; one that no run of a label has is left out there.

    Returns:
        {label: {name: interval}} in the order of the grid.
    """
    found: dict[str, dict[str, Interval]] = {}
    for label in dict.fromkeys(one.label for one in measured):
        runs = [one.numbers for one in measured if one.label == label]
        found[label] = {
            name: t_interval(run[name] for run in runs if name in run)
            for name in names
            if any(name in run for run in runs)
        }
    return found


def column(measured: Sequence[Measured], name: str = "delta_m") -> dict[str, Interval]:
    """Intervals over seeds of one number, {label: interval}, of the labels that have it.

    Args:
        measured: runs of all seeds.
        name: of the number.
    """
    return {label: row[name] for label, row in table(measured, [name]).items() if name in row}


def by_seed(measured: Sequence[Measured], label: str, name: str = "delta_m") -> dict[int, float]:
    """A number of the runs of one label.

    Args:
        measured: runs of all seeds.
        label: of the runs.
        name: of the number.

    Returns:
        {seed: number}.
    """
    return {one.run["seed"]: one.numbers[name] for one in measured if one.label == label and name in one.numbers}


def difference(measured: Sequence[Measured], better: str, worse: str, name: str = "delta_m") -> Interval:
    """Interval of a difference of two labels, taken seed by seed: both have the same experts there.

    Args:
        measured: runs of all seeds.
        better: label that is subtracted from.
        worse: label that is subtracted.
        name: of the number.
    """
    first, second = by_seed(measured, better, name), by_seed(measured, worse, name)
    shared = sorted(first.keys() & second.keys())
    return t_interval(first[seed] - second[seed] for seed in shared) if shared else UNMEASURED


def over_seeds(measured: Sequence[Measured], of_seed: Callable[[Sequence[Measured]], float]) -> Interval:
    """Interval of what is computed from all runs of one seed.

    Args:
        measured: runs of all seeds.
        of_seed: gives the number of one seed's runs.
    """
    seeds = sorted({one.run["seed"] for one in measured})
    return t_interval(of_seed([one for one in measured if one.run["seed"] == seed]) for seed in seeds)


def gains(measured: Sequence[Measured], name: str, margin: float, majority: float, of: str) -> Verdict:
    """The verdict on a gain that each run measured: on its mean, and on the share of runs that gain.

    Args:
        measured: runs of all seeds.
        name: of the gain.
        margin: that the mean must exceed, in points of Delta_m.
        majority: that the share must exceed.
        of: what a run is of, in the plural.
    """
    mean = over_seeds(measured, lambda runs: fmean(one.numbers[name] for one in runs))
    share = over_seeds(measured, lambda runs: fmean(one.numbers[name] > 0 for one in runs))
    findings = {f"mean gain over {of}": mean, f"share of {of} that gain": share}
    outcome = every([exceeds(mean, margin), exceeds(share, majority)])
    return Verdict(outcome, f"{share.mean:.0%} of the {of} gain, {mean} points of Delta_m on average.", findings)


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Runs without repetitions, checked for labels that mean two things.

    Args:
        runs: of a grid.

    Raises:
        ValueError: two different runs have one label.
    """
    found: dict[str, Any] = {}
    for run in runs:
        text = json.dumps({**run}, sort_keys=True, default=str)
        if found.setdefault(run["label"], text) != text:
            raise ValueError(f"two runs of the grid are called {run['label']!r}; give every run a label of its own.")
    return [run for index, run in enumerate(runs) if run not in runs[:index]]
