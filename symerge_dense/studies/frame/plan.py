"""A study's config: which study, on which experts and images, how many seeds; and its reduction for a first look."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from symerge_dense.pipeline.config import Spec, config_values, plain
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.config_files import find_study
from symerge_dense.registry import STUDIES, did_you_mean
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.studies.frame.laboratory import candidate_of
from symerge_dense.studies.frame.study import Study, distinct
from symerge_dense.studies.frame.workplace import RUN_KEYS, Run, StudyConfig, Workplace

OWN = ("type", "seeds", "cost", "tasks")  # of the config's ``study``; all else are arguments of the study
SEEDS = 3


@dataclass
class Plan:
    """A study, and what it runs on.

    Args:
        name: of the config file.
        study: the claim with its grid and thresholds.
        values: sections of the run's config.
        seeds: number of seeds; each has a base, experts and adaptations of its own.
        quick: whether this is the reduction for a first look.
        cost: what a full run takes, by estimate, in words.
        spec: the config's ``study`` as it was read.
    """

    name: str
    study: Study
    values: Spec
    seeds: int
    quick: bool
    cost: str
    spec: Spec

    @property
    def config(self) -> StudyConfig:
        """The config that all runs differ from."""
        return self.study.workplace.read(self.name, self.values, f"study {self.name}")

    def runs(self) -> list[Run]:
        """The grid for every seed. All runs of a seed stand together.

        Raises:
            ValueError: a run has a key, a method, an option or a config value that does not exist.
        """
        grid = distinct(self.study.grid(list(self.values["tasks"])))
        known = [*RUN_KEYS, *self.study.keys]
        for run in grid:
            for key in run:
                if key not in known:
                    raise ValueError(f"study {self.name}: {did_you_mean(key, known, 'key of a run')}")
        return [{**run, "seed": seed} for seed in range(self.seeds) for run in grid]

    def laboratory(self, run: Run, cache: RunCache, tasks: list[str] | None = None) -> Workplace:
        """Where a run is made.

        Args:
            run: of the grid, with its seed.
            cache: keeps experts and results.
            tasks: in place of the run's own.

        Raises:
            ValueError: a value of the run that the config does not know, or is not allowed.
        """
        with explained(f"study {self.name}, run {run['label']!r}"):
            if "method" in run:
                candidate_of(run["method"], run.get("options", {}))
            merged = Config(self.values)
            merged.merge_from_dict(dict(run.get("config", {})))
            values = {key: plain(value) for key, value in merged.items()}
            values["tasks"] = _chosen(values["tasks"], tasks or run.get("tasks") or list(values["tasks"]))
            return self.study.workplace.of_run(self.name, values, run, cache)


def _chosen(tasks: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        if name not in tasks:
            raise ValueError(did_you_mean(name, tasks, "task of the config"))
    return {name: tasks[name] for name in names}


# -- reading one ------------------------------------------------------------------------------------------------------
def load_plan(
    name: str, quick: bool = False, seeds: int | None = None, overrides: Mapping[str, Any] | None = None
) -> Plan:
    """Read a study's config.

    Args:
        name: of the study, or the path of its config.
        quick: take the config's ``quick``, {'section.key': value}, over its values.
        seeds: in place of the config's.
        overrides: {'section.key': value}, over all others.

    Raises:
        ValueError: an unknown study, key or argument, or a value that is not allowed.
    """
    path = find_study(name)
    values = config_values(path, {})
    reduced = values.pop("quick", {})
    changes = {**(reduced if quick else {}), **(overrides or {})}
    merged = Config(values)
    merged.merge_from_dict(changes)
    values = {key: plain(value) for key, value in merged.items()}
    spec = values.pop("study", None)
    if not isinstance(spec, Mapping) or "type" not in spec:
        raise ValueError(f"{path} names no study; give study=dict(type=..., seeds={SEEDS}), one of {list(STUDIES)}.")
    own = {key: value for key, value in spec.items() if key not in OWN}
    if "tasks" in spec:
        values["tasks"] = _chosen(values["tasks"], spec["tasks"])
    count = int(seeds if seeds is not None else spec.get("seeds", SEEDS))
    if count < 1:
        raise ValueError(f"seeds={count}: give at least 1; an interval takes 2 or more.")
    with explained(f"study {path.stem}"):
        try:
            study: Study = STUDIES[spec["type"]](**own)
        except TypeError as error:
            raise ValueError(
                f"study: {str(error).partition('() ')[2] or error}; {_arguments(spec['type'])}."
            ) from error
    plan = Plan(path.stem, study, values, count, quick, str(spec.get("cost", "")), dict(spec))
    config = plan.config
    with explained(f"study {path.stem}"):
        study.check(config)
    return plan


def _arguments(kind: str) -> str:
    return f"{kind} takes {', '.join(inspect.signature(STUDIES[kind]).parameters) or 'no argument'}"
