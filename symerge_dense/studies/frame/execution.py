"""A study is run: experts first, then every run that the cache lacks, one after another or in several processes."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from symerge_dense.engine.fan_out import Launched, check_place, each
from symerge_dense.fileio import check_writable
from symerge_dense.pipeline import run_dir
from symerge_dense.pipeline.config import Spec
from symerge_dense.pipeline.run_info import run_facts
from symerge_dense.progress import Bar, say, silent
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.studies.frame.costs import METHOD, costs_record
from symerge_dense.studies.frame.outputs import FILES, Record, study_record, write_study
from symerge_dense.studies.frame.plan import Plan
from symerge_dense.studies.frame.study import Measured
from symerge_dense.studies.frame.workplace import Run, Workplace

ROOT = run_dir.ROOT / "studies"
Item = tuple[Run, Any]
Do = Callable[[Callable[..., Any], Sequence[Item]], Iterator[Any]]  # ``each``, told where


def run_study(
    plan: Plan,
    work_dir: str | None = None,
    resume: bool = False,
    cache: str | None = None,
    jobs: int = 1,
    on: str | None = None,
    launcher: str = "none",
) -> Record:
    """Run what is missing of a study, judge it, and write its files.

    Args:
        plan: of the study.
        work_dir: folder for the results; None takes work_dirs/studies/NAME, with -quick behind a reduced one.
        resume: go on with what the folder holds, or write its results anew.
        cache: folder of experts and runs that studies share; None takes work_dirs/studies/cache.
        jobs: processes; the results do not depend on their number.
        on: 'ray' or 'ray:ADDRESS' for the machines of a cluster, which share the folders; None for this one alone.
        launcher: 'pytorch' in the processes of torchrun, which share the runs; else 'none'.

    Returns:
        The content of study.json, which the first process writes.

    Raises:
        ValueError: the folder holds a study and ``resume`` is False, or anything of the grid is wrong.
    """
    do, rank = _place(jobs, on, launcher)
    kept = RunCache(Path(cache or ROOT / "cache").absolute())
    runs = plan.runs()
    laboratories = [plan.laboratory(run, kept) for run in runs]  # what is wrong with the grid is known now
    read: dict[str, Any] = {}
    for one in laboratories:
        one.share(read)
    folder = Path(work_dir or ROOT / (plan.name + ("-quick" if plan.quick else "")))
    if rank == 0:
        run_dir.open_run(folder, plan.config, resume)
    with silent(rank > 0):
        with run_dir.abandoned(folder, keep=resume or rank > 0):
            hashes = _train(plan, runs, laboratories, kept, do)
        asked = [
            {"version": plan.study.version, **one.asked(run, hashes[one.ground])}
            for run, one in zip(runs, laboratories, strict=True)
        ]
        _fill(plan, runs, asked, kept, do)
    found = [kept.read(plan.study.experiment, one) for one in asked]
    measured = [Measured(run, one["numbers"]) for run, one in zip(runs, found, strict=True) if one is not None]
    if rank > 0:
        return study_record(plan, measured, plan.study.verdict(measured))
    record = write_study(folder, plan, measured, costs_record(measured, [one for one in found if one is not None]))
    say(f"{plan.study.title}: {record['verdict']['outcome']}. {record['verdict']['reason']}")
    say(f"In {folder}: {', '.join(FILES)}")
    return record


def _place(jobs: int, on: str | None, launcher: str) -> tuple[Do, int]:
    """How independent work is done, and the number of this process among those of a launcher.

    Raises:
        ValueError: ``jobs`` is below 1, or a place is unknown, is not reached, or is one of two.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: give at least 1.")
    given = [f"--jobs {jobs}"] * (jobs > 1) + [f"--on {on}"] * (on is not None)
    given += [f"--launcher {launcher}"] * (launcher != "none")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: each says where the runs are done; give one.")
    if launcher == "pytorch":
        launched = Launched()
        return launched.each, launched.rank
    if on is not None:
        check_place(on)
    return functools.partial(each, jobs=jobs, on=on), 0


# -- experts, then runs -----------------------------------------------------------------------------------------------
def _train(
    plan: Plan, runs: Sequence[Run], laboratories: Sequence[Workplace], cache: RunCache, do: Do
) -> dict[str, dict[str, str]]:
    """Train what is missing of the experts of all runs; {ground: hashes of its base and experts}."""
    first: dict[str, Run] = {}
    tasks: dict[str, set[str]] = {}
    for run, one in zip(runs, laboratories, strict=True):
        first.setdefault(one.ground, run)
        tasks.setdefault(one.ground, set()).update(one.tasks)
    ordered = {ground: [task for task in plan.values["tasks"] if task in tasks[ground]] for ground in first}
    items: list[Item] = [(first[ground], (ground, ordered[ground])) for ground in first]
    found: dict[str, dict[str, str]] = {}
    with Bar("base and experts", len(items)) as bar:
        for ground, hashes in do(functools.partial(_train_one, plan, cache), items):
            found[ground] = hashes
            bar.advance()
    return found


def _train_one(plan: Plan, cache: RunCache, run: Run, wanted: tuple[str, list[str]]) -> tuple[str, dict[str, str]]:
    ground, tasks = wanted
    with _alone(run["seed"]):
        return ground, plan.laboratory(run, cache, tasks).train()


def _fill(plan: Plan, runs: Sequence[Run], asked: Sequence[Spec], cache: RunCache, do: Do) -> None:
    """Make the runs that the cache lacks. Two runs that ask for the same are one."""
    kind = plan.study.experiment
    wanted = {cache.file(kind, one): (run, one) for run, one in zip(runs, asked, strict=True)}
    missing: list[Item] = [item for item in wanted.values() if cache.read(kind, item[1]) is None]
    if missing:
        check_writable(cache.folder)
    with Bar(f"runs of {plan.name}", len(wanted), len(wanted) - len(missing)) as bar:
        for label in do(functools.partial(_make_one, plan, cache), missing):
            bar.advance(label)


def _make_one(plan: Plan, cache: RunCache, run: Run, asked: Spec) -> str:
    kind, label = plan.study.experiment, f"{run['label']}, seed {run['seed']}"
    if cache.read(kind, asked) is None:  # another study may have made it in the meantime
        start = time.perf_counter()
        with _alone(run["seed"]):
            laboratory = plan.laboratory(run, cache)
            numbers = plan.study.measure(laboratory, run)
        seconds = round(time.perf_counter() - start, 2)
        cache.write(kind, asked, numbers, {"seconds": seconds, METHOD: laboratory.cost, **run_facts()})
    return label


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Silence, one thread and fresh random numbers: a run gives the same whatever runs beside or before it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        with silent():
            yield
    finally:
        torch.set_num_threads(threads)
