"""A comparison: one method after another, one table. Each seed and each row is saved when it is known."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device

from symerge_dense.adaptation.adapt import data_loading
from symerge_dense.evaluation.delta_m import published_metrics
from symerge_dense.evaluation.scores import Scores, units
from symerge_dense.fileio import DISK
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.plugins import task_plugins
from symerge_dense.models.views import Views
from symerge_dense.pipeline import data, run_dir
from symerge_dense.pipeline.comparison.head_transfer import HeadDonor
from symerge_dense.pipeline.comparison.measurement import Measurement
from symerge_dense.pipeline.comparison.methods import BLOCKS, EXPERTS, IN_VIEWS, JOINT, Adaptive, Candidate
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.references import candidates
from symerge_dense.pipeline.comparison.rows import Row, RowStore
from symerge_dense.pipeline.comparison.scoring import Scoring
from symerge_dense.pipeline.comparison.seed_results import MadeWith, SeedStore
from symerge_dense.pipeline.comparison.tuning import CRITERIA, Tuner, check_criterion
from symerge_dense.pipeline.comparison.variants import AdaptiveVariant, Variant, variants
from symerge_dense.pipeline.config import RunConfig, config_hash
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.run_checks import check_run
from symerge_dense.pipeline.run_info import run_facts
from symerge_dense.progress import console, say
from symerge_dense.registry import TASKS, did_you_mean
from symerge_dense.report.comparison_files import delta, draw_comparison, write_comparison

HEADS_FROM = "symerge"  # the method whose adapted layers are transferred, unless a file is named


@dataclass
class Comparison:
    """Which methods are compared, and how.

    Args:
        config: base, experts, data, and the options of adaptation and BatchNorm.
        folder: where this comparison is kept.
        methods: names of rows, variants among them; None takes those of ``baselines.methods``, or all. Other rows that
            ``folder`` already holds stay in the table.
        options: arguments of methods, {name: {argument: value}}. An argument that is given here is not tuned.
        criterion: of ``CRITERIA``; scales are chosen by it.
        seeds: runs of each method whose result depends on the seed.
        adapted_from: file of a merged model whose adapted layers are put onto every other encoder; None takes those of
            SyMerge in this comparison.
        train_experts: whether missing experts are trained; False makes them an error.

    Raises:
        ValueError: an unknown method, argument or criterion, a value out of range, or an unreadable ``adapted_from``.
    """

    config: RunConfig
    folder: Path
    methods: Sequence[str] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    criterion: str = "agreement"
    seeds: int = 1
    adapted_from: str | None = None
    train_experts: bool = True

    def __post_init__(self) -> None:
        check_criterion(self.criterion)
        self.methods = self.config.baselines.get("methods") if self.methods is None else self.methods
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds}: give at least 1.")
        self.store = ExpertStore(self.config, self.train_experts, score=self._score_trained)
        self.candidates = self._candidates()
        self.scoring = Scoring(self.config, torch.device(get_device()))
        self.row_store = RowStore(self.folder / "rows")
        self.head_donor = HeadDonor(Path(self.adapted_from or self.folder / f"{HEADS_FROM}.safetensors"))
        if self.adapted_from is not None:
            _ = self.head_donor.model  # reports a file that cannot be read now
        self.rows: dict[str, Row] = {}

    def _candidates(self) -> list[Candidate]:
        views = Views.of(self.config.options.views)
        every = [*candidates(self.store.joint, self.options, views), *variants(self.config)]
        names = [candidate.name for candidate in every]
        for name in self.methods or ():
            if name not in names:
                if name == IN_VIEWS:
                    raise ValueError(f"method {name!r} needs adaptation.views, for example views=dict(flip=True).")
                raise ValueError(did_you_mean(name, names, "merging method"))
        joint = JOINT in (self.methods or ()) or ("recipe" in self.config.experts and "train" in self.config.data)
        return [candidate for candidate in every if joint or candidate.name != JOINT]

    def run(self) -> dict[str, Any]:
        """Run every method whose row is missing. A method that fails gets a row with its error.

        Returns:
            The content of compare.json.
        """
        gc.freeze()  # the libraries' objects stay: garbage collection between methods need not scan them
        try:
            for candidate in self.candidates:
                self.enter(candidate)
        finally:  # also after Ctrl-C
            gc.unfreeze()
            if self.rows:
                write_comparison(self.folder, self.record())
                draw_comparison(self.folder, self.record())
        return self.record()

    def record(self) -> dict[str, Any]:
        """The content of compare.json, with the rows so far."""
        split = f" ({self.scoring.tuning_split})" if self.criterion == "labels" else ""
        return {
            "config": self.config.record,
            "tuning": CRITERIA[self.criterion] + split,
            "seeds": self.seeds,
            "blocks": BLOCKS,
            "adapted_from": self.adapted_from or HEADS_FROM,
            **self._facts,
            "delta_m_metrics": {task: TASKS[task].headline for task in self.config.tasks},
            "published_metrics": {task: published_metrics(TASKS[task]) for task in self.config.tasks},
            "plugins": task_plugins(self.config.tasks),
            "units": units(next((row["tasks"] for row in self.rows.values() if "tasks" in row), {})),
            "rows": list(self.rows.values()),
        }

    # -- one method ---------------------------------------------------------------------------------------------------
    def enter(self, candidate: Candidate) -> None:
        """Put the row of a method into the table: a saved one, or one that is made now.

        Args:
            candidate: of the row.
        """
        name = candidate.name
        found = self.saved_row(candidate)
        wanted = self.methods is None or name in (EXPERTS, IN_VIEWS, *self.methods)
        if found is not None and self.is_whole(candidate, found):
            self.rows[name] = found
        elif found is not None and not wanted:  # its own numbers hold, only the transferred layers have changed
            self.rows[name] = {key: value for key, value in found.items() if key != "transferred"}
        elif wanted:
            console.print(f"[bold]{name}[/bold]")
            self.rows[name] = self.settle(candidate)
            write_comparison(self.folder, self.record())

    def saved_row(self, candidate: Candidate) -> Row | None:
        """The row of a candidate, if there is one that was made with today's options.

        Args:
            candidate: of a row.
        """
        return self.row_store.read(candidate.name, self._asked(candidate), candidate.settings(self.config.options))

    def is_whole(self, candidate: Candidate, row: Row) -> bool:
        """Whether a saved row needs no work: it was scored with the current adapted layers, or they are its own.

        Args:
            candidate: of the row.
            row: as saved.
        """
        if self.gives(candidate.name) and self.head_donor.hash is None:
            return False
        return row["block"] == "reference" or not candidate.transfers or row.get("layers") == self.head_donor.hash

    def settle(self, candidate: Candidate) -> Row:
        """Run a method; save and return its row.

        Args:
            candidate: of the row.
        """
        name, settings = candidate.name, candidate.settings(self.config.options)
        measurement = self.measurement(candidate)
        try:
            row, trace = measurement.row(candidate, self.seeds_of(candidate), self.made_with(candidate)), ""
        except Exception as error:
            full = isinstance(error, OSError) and error.errno in DISK  # the next method would meet it too
            if name == EXPERTS or full:  # without them there is nothing to compare with
                raise
            trace = traceback.format_exc()
            row = {
                "method": name,
                "block": candidate.block,
                "data": candidate.data,
                "runs": 0,
                "error": f"{type(error).__name__}: {error}",
            }
        kept = self.row_store.write(name, self._asked(candidate), settings, row, trace)
        if name != EXPERTS:
            say(f"{name} failed: {row['error']}" if trace else f"{name}: Δm {delta(kept)} %")
        return kept

    def measurement(self, candidate: Candidate) -> Measurement:
        """What runs and scores a candidate, once the experts have their row.

        Args:
            candidate: of a row.
        """
        giver = HEADS_FROM if self.adapted_from is None else None
        experts = None if candidate.name == EXPERTS else self.rows[EXPERTS]
        saved = SeedStore(self.folder / "seeds")
        return Measurement(self.models, self.tuner, self.scoring, self.head_donor, giver, experts, saved)

    def made_with(self, candidate: Candidate) -> MadeWith:
        """What a saved seed of a candidate must have been made with.

        Args:
            candidate: of a row.
        """
        return MadeWith(self._asked(candidate, whole=False), candidate.settings(self.config.options))

    def gives(self, name: str) -> bool:
        """Whether the transferred layers come from this method.

        Args:
            name: of a row.
        """
        return name == HEADS_FROM and self.adapted_from is None

    def seeds_of(self, candidate: Candidate) -> list[int]:
        """The seeds of the runs of a candidate.

        Args:
            candidate: of a row.
        """
        runs = self.seeds if self.seeds > 1 and candidate.random else 1
        return [self.config.seed + number for number in range(runs)]

    def _asked(self, candidate: Candidate, whole: bool = True) -> str:
        """Fingerprint of the settings that a saved row, or a single seed of it, must have been made with."""
        about: list[Any] = [candidate.name, run_dir.began_with(self.folder, self.config)]
        if further := data.measured_sets(self.config)[1:]:  # rows of a version that did not measure these are made anew
            about.append(further)
        if candidate.name != EXPERTS:
            own = candidate.spec if isinstance(candidate, Variant) else self.options.get(candidate.name, {})
            about += [self.criterion, *([len(self.seeds_of(candidate))] if whole else []), own]
        return config_hash(*about)

    # -- what all methods share ---------------------------------------------------------------------------------------
    @cached_property
    def models(self) -> ModelPool:
        """Base and experts, found or trained. Data that cannot be read are reported before that."""
        adaptive = [e for e in self.candidates if isinstance(e, Adaptive) and e.name in (self.methods or [e.name])]
        if adaptive:
            data_loading(self.config.options)  # a batch that the processes cannot share is refused now
        pool, _ = check_run(self.config, self.store, self.folder, self.scoring.sets)
        for candidate in adaptive:
            if isinstance(candidate, AdaptiveVariant):
                candidate.check_images(self.folder)
        console.print("[bold]Base and experts[/bold]")
        base, experts = self.store.models(pool, self.scoring.device)
        models = ModelPool(
            base, experts, pool, self.config.options, self.folder, self.scoring.device, self.store.files(base)
        )
        self._check_models(models)
        if self.adapted_from is not None:
            self.head_donor.check(models)
        for candidate in adaptive:
            candidate.check(models)
        return models

    def _check_models(self, models: ModelPool) -> None:
        known = self.rows.get(EXPERTS, {}).get("models", models.hashes)
        changed = [name for name, value in models.hashes.items() if known.get(name) != value]
        if changed:
            raise ValueError(
                f"{', '.join(changed)}: not the weights that the rows in {self.folder} were made with; "
                "give those back, or compare in another --work-dir."
            )

    @cached_property
    def tuner(self) -> Tuner:
        """Chooses scales; the experts are already measured."""
        tuner = Tuner(self.models, self.scoring, self.config.scales, self.criterion)
        tuner.prepare()
        return tuner

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return run_facts()

    def _score_trained(self, model: MultiTaskModel, title: str) -> Scores:
        return self.scoring.score({None: model.to(self.scoring.device)}, title)
