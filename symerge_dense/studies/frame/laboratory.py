"""Where one run of a study is made and measured: its experts, its images, the methods and the metrics.

All of it is the comparison's own machinery: ``ExpertStore``, ``ModelPool``, the candidates and ``Scoring``.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device

from symerge_dense.adaptation.method import OptionVariant
from symerge_dense.adaptation.options import NO_NUMBER, SyMergeOptions
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.evaluation.delta_m import delta_by_task
from symerge_dense.evaluation.metric import DenseMetric
from symerge_dense.evaluation.scores import Scores
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.kept_files import is_kept
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.training import NonFiniteLoss
from symerge_dense.pipeline import data
from symerge_dense.pipeline.comparison.methods import Adaptive, Candidate, Outcome, Static
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.references import Experts
from symerge_dense.pipeline.comparison.resources import measured
from symerge_dense.pipeline.comparison.scoring import Networks, Scoring
from symerge_dense.pipeline.comparison.tuning import Tuner
from symerge_dense.pipeline.config import RunConfig, Spec, config_hash, config_of, to_json, type_names
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.run_checks import check_run
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS, did_you_mean
from symerge_dense.studies.frame.cache import RunCache, content_hash
from symerge_dense.studies.frame.workplace import Numbers as Numbers
from symerge_dense.studies.frame.workplace import Run as Run
from symerge_dense.studies.frame.workplace import Workplace
from symerge_dense.tasks.metric import Metric

EXPERTS = Experts.name
DIVERGED = "diverged"  # 1 where the adaptation ended in a loss that is not finite


class Laboratory(Workplace):
    """Makes and measures what a run asks for, on images.

    Args:
        config: of the run, with its seed.
        cache: keeps experts, labels and results.
    """

    def __init__(self, config: RunConfig, cache: RunCache) -> None:
        self.config, self.cache = config, cache
        self.device = torch.device(get_device())
        self.scoring = Scoring(config, self.device)
        self.cost = {}

    @classmethod
    def read(cls, name: str, values: Mapping[str, Any], where: str) -> RunConfig:
        return config_of(name, values, None, where)

    @classmethod
    def of_run(cls, name: str, values: Mapping[str, Any], run: Run, cache: RunCache) -> Laboratory:
        kept = {**values, "experts": {"folder": str(cache.experts), **values["experts"]}}
        config = of_seed(cls.read(name, kept, "its config"), run["seed"])
        options_of(config, run)
        return cls(config, cache)

    @property
    def tasks(self) -> list[str]:
        return list(self.config.tasks)

    # -- what determines a result -------------------------------------------------------------------------------------
    @property
    def ground(self) -> str:
        config = self.config
        parts = (config.data.get("train"), config.backbone, config.head, config.heads, config.base, config.experts)
        return content_hash(parts, config.preprocessing, config.align_corners)

    @cached_property
    def pool(self) -> Unlabelled:
        """The unlabelled images."""
        return data.pool(self.config)

    def share(self, read: dict[str, Any]) -> None:
        key = config_hash(self.config.data["unlabelled"])
        if key not in read:
            read[key] = self.pool
        self.pool = read[key]

    def asked(self, run: Run, hashes: Mapping[str, str]) -> Spec:
        config = self.config
        own = {key: value for key, value in run.items() if key not in ("label", "config", "tasks")}
        options = vars(options_of(config, run))
        if _sets_options(run):
            own.pop("options", None)
        return {
            "run": to_json(own),
            "tasks": to_json(list(type_names(config.tasks).items())),  # their order counts
            "test": self._measured,
            "pool": self.pool.fingerprint,
            "options": to_json({key: value for key, value in options.items() if key not in NO_NUMBER}),
            "scales": config.scales,
            "seed": config.seed,
            "models": {name: hashes[name] for name in ("base", *(f"expert {task}" for task in config.tasks))},
        }

    @property
    def _measured(self) -> Spec:
        """How networks are measured."""
        evaluation = {key: self.config.evaluation.get(key) for key in ("protocol", "batch_size")}
        return {**evaluation, "data": to_json(type_names(self.config.data["test"]))}

    # -- base and experts ---------------------------------------------------------------------------------------------
    @cached_property
    def store(self) -> ExpertStore:
        """Finds or trains base and experts."""
        return ExpertStore(self.config)

    def train(self) -> dict[str, str]:
        with self.cache.locked(self.ground), _scratch() as folder:
            return dict(self._models(folder).hashes)

    def _models(self, folder: Path) -> ModelPool:
        pool, _ = check_run(self.config, self.store, folder, self.scoring.sets, self.pool)
        base, experts = self.store.models(pool, self.device)
        files = self.store.files(base)
        models = ModelPool(base, experts, pool, self.config.options, folder, self.device, files)
        models.labels = self.cache.labels / content_hash(pool.fingerprint, models.hashes)
        return models

    @contextmanager
    def working(self) -> Iterator[ModelPool]:
        """Base, experts and images, with a folder for what methods leave that is removed at the end."""
        with _scratch() as folder:
            with self.cache.locked(self.ground):
                models = self._models(folder)
            yield models

    # -- methods and metrics ------------------------------------------------------------------------------------------
    def make(self, models: ModelPool, name: str, options: Mapping[str, Any]) -> Outcome:
        """Run a method as a comparison does.

        Args:
            models: base, experts and images.
            name: of the row.
            options: arguments of the method.

        Raises:
            ValueError: the method or an argument does not exist.
        """
        candidate = candidate_of(name, options)
        if isinstance(candidate, Adaptive):
            with self.cache.locked(f"labels-{content_hash(str(models.labels))}"):
                candidate.prepare(models)
        with measured() as self.cost:
            return candidate.make(models, Tuner(models, self.scoring, self.config.scales), self.config.seed)

    def merged_file(self, models: ModelPool, run: Run) -> Path:
        """A finished merged model, made once for all runs that start from it.

        Args:
            models: base, experts and images.
            run: with 'method' and perhaps 'options'.
        """
        path = self.cache.folder / "merges" / f"{content_hash(self.asked(run, models.hashes))}.safetensors"
        with self.cache.locked(path.stem):
            if not is_kept(path):
                save_model(path, self.make(models, run["method"], run.get("options", {})).networks[None], {})
        return path

    def reference(self, models: ModelPool) -> Scores:
        """Scores of the experts, measured once for all studies.

        Args:
            models: has the experts.
        """
        found: Numbers = {}
        for task, expert in models.experts.items():
            asked = {
                "expert": models.hashes[f"expert {task}"],
                "task": to_json(type_names(self.config.tasks[task])),
                "test": self._measured,
            }
            found |= self.cache.fetch(EXPERTS, asked, partial(self._own, task, expert))
        rules = {task: expert.tasks[task] for task, expert in models.experts.items()}
        measures = DenseMetric(rules, self.config.evaluation.get("protocol", "default")).measures
        return {
            task: {name: Metric(found[f"{task}/{name}"], better) for name, better in rule.metrics.items()}
            for task, rule in measures.items()
        }

    def _own(self, task: str, expert: MultiTaskModel) -> Numbers:
        return flat(self.scoring.score({task: expert}, EXPERTS))

    def numbers(self, models: ModelPool, networks: Networks) -> Numbers:
        """All metrics of finished networks, and their Delta_m against the experts.

        Args:
            models: has the experts.
            networks: one for all tasks, or one per task.

        Returns:
            'delta_m', 'delta_m/TASK' and 'TASK/METRIC'.
        """
        scores = self.scoring.score(networks, "scores")
        deltas = delta_by_task(scores, self.reference(models))
        own = {f"delta_m/{task}": value for task, value in deltas.items() if task != "mean"}
        return {"delta_m": deltas["mean"], **own, **flat(scores)}


def measure_method(laboratory: Laboratory, run: Run) -> Numbers:
    """Make a run that is one row of a comparison, and measure it.

    Args:
        laboratory: of the run's config.
        run: with 'method' and perhaps 'options'.

    Returns:
        As ``Laboratory.numbers``; {'diverged': 1} where the adaptation's loss was not finite.
    """
    with laboratory.working() as models:
        try:
            outcome = laboratory.make(models, run["method"], run.get("options", {}))
        except NonFiniteLoss:
            return {DIVERGED: 1.0}
        return {DIVERGED: 0.0, **laboratory.numbers(models, outcome.networks)}


def candidate_of(name: str, options: Mapping[str, Any]) -> Candidate:
    """The row of a comparison that a run names.

    Args:
        name: of a method, or 'experts'.
        options: arguments of the method.

    Raises:
        ValueError: the method or an argument does not exist.
    """
    if name == EXPERTS:
        return Experts()
    if name in ADAPTIVE_METHODS:
        return Adaptive(name, options)
    if name in MERGERS:
        return Static(name, options)
    raise ValueError(did_you_mean(name, [EXPERTS, *ADAPTIVE_METHODS, *MERGERS], "merging method"))


def options_of(config: RunConfig, run: Run) -> SyMergeOptions:
    """The options of the adaptation that a run has: where its method is SyMerge with other options, those.

    Args:
        config: of the run.
        run: of the grid.

    Raises:
        ValueError: an option is not allowed.
    """
    changes = {**ADAPTIVE_METHODS[run["method"]].changes, **run.get("options", {})} if _sets_options(run) else {}
    return dataclasses.replace(config.options, **changes)


def _sets_options(run: Run) -> bool:
    name = run.get("method", "")
    return name in ADAPTIVE_METHODS and issubclass(ADAPTIVE_METHODS[name], OptionVariant)


def flat(scores: Scores) -> Numbers:
    """Scores as {'TASK/METRIC': value}.

    Args:
        scores: of a network.
    """
    return {f"{task}/{name}": metric.value for task, metrics in scores.items() for name, metric in metrics.items()}


def of_seed(config: RunConfig, seed: int) -> RunConfig:
    """A config whose base, experts and adaptation have one seed.

    Args:
        config: of the study.
        seed: of everything random.
    """
    return dataclasses.replace(config, seed=seed, experts={**config.experts, "seed": seed})


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="symerge-study-") as folder:
        yield Path(folder)
