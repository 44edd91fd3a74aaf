"""The main job: from a config to experts, one merged model, its table and its pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from safetensors.torch import save_file
from torch import Tensor

from symerge_dense.engine.adapt import adapt
from symerge_dense.engine.folding import folded, image_batches
from symerge_dense.engine.history import read_history
from symerge_dense.engine.symerge_model import SyMergeModel
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.scores import Scores, scores_to_json
from symerge_dense.experts.assemble import assemble
from symerge_dense.experts.checkpoint import save_model
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.pipeline import sources, workdir
from symerge_dense.pipeline.baselines import Contest, compare
from symerge_dense.pipeline.config import RunConfig, to_json
from symerge_dense.pipeline.pictures import Panels, draw_learning
from symerge_dense.pipeline.record import Stages, peak_memory_mb, run_facts
from symerge_dense.pipeline.stock import Stock, check_network
from symerge_dense.progress import console
from symerge_dense.registry import TASKS
from symerge_dense.report.atomic import replacing
from symerge_dense.report.results import read_results, write_results
from symerge_dense.report.table import print_results


@dataclass
class Job:
    """One run: what the stages share. ``run`` goes through them in order."""

    config: RunConfig
    folder: Path
    launcher: str = "none"
    amp: bool = False
    resume: bool = False
    train_experts: bool = True

    def __post_init__(self) -> None:
        self.stages = Stages()
        self.device = torch.device(get_device())
        headlines = {task: TASKS[task].headline for task in self.config.tasks}
        self.results: dict[str, Any] = {"config": to_json(vars(self.config)), "seed": self.config.seed, **run_facts(),
                                        "delta_m_metrics": headlines}
        self.scores: dict[str, Scores] = {}

    def run(self) -> dict[str, Any]:
        """All stages; returns (and the main process writes) the run record."""
        config = self.config
        check_network(config)
        with self.stages("data", "Data"):
            self.data, self.pool = sources.dataset(config, "test", config.tasks), sources.pool(config)
            self.loader = sources.loader(config, self.data)
            stock = Stock(config, self.train_experts, self.launcher, self.amp, self._evaluate)
            if stock.may_train:
                sources.dataset(config, "train", config.tasks)  # objects now, not after the base is trained
        with self.stages("experts", "Base and experts"):
            base = stock.base()
            experts = stock.experts(base)
        self.model = assemble(base, experts).to(self.device)
        self.panels = Panels(self.data, self.model.tasks, config.evaluation.get("panels", 3))
        with self.stages("experts_evaluation", "Experts on their own tasks"):
            self._score_experts(experts)
        with self.stages("baselines", "Training-free merges"):
            self._score_baselines(experts)
        with self.stages("adaptation", "SyMerge"):
            symerge = self._adapt(experts)
        with self.stages("evaluation"):
            self._score("merged", symerge.model, "SyMerge")
            self.panels.predict("merged", symerge.model)
        if is_main_process():
            with self.stages("report"):
                self._draw(symerge)
            self._report(symerge)
        return self.results

    # -- stages -----------------------------------------------------------------------------------------------------
    def _evaluate(self, model: MultiTaskModel, title: str) -> Scores:
        protocol = self.config.evaluation.get("protocol", "default")
        return evaluate(model, self.loader, title, self.device, protocol=protocol)

    def _score(self, entry: str, model: MultiTaskModel, title: str) -> None:
        self._record(entry, self._evaluate(model, title))

    def _record(self, entry: str, scores: Scores) -> None:
        self.scores[entry] = scores
        self.results[entry] = {"tasks": scores_to_json(scores)}
        if entry != "experts":
            self.results.setdefault("delta_m", {})[entry] = compare(scores, self.scores["experts"])

    def _score_experts(self, experts: dict[str, MultiTaskModel]) -> None:
        scores: Scores = {}
        for task, expert in experts.items():
            scores |= self._evaluate(expert.to(self.device), f"expert {task}")
            self.panels.predict("expert", expert)
        self._record("experts", scores)

    def _images(self) -> Iterator[Tensor]:
        options = self.config.options
        return image_batches(self.pool, options.recalibration_images, options.batch_size, self.device)

    def _score_baselines(self, experts: dict[str, MultiTaskModel]) -> None:
        contest = Contest(self.model, experts, self._images, self._evaluate, self.config.options.batchnorm)
        self._record("average", contest.enter("average", "average"))
        scales = self.config.baselines["scales"]
        scale, scores, deltas = contest.best_task_arithmetic(scales, self.scores["experts"])
        self._record("task_arithmetic", scores)
        self.results["task_arithmetic"] |= {"scale": scale, "delta_m_by_scale": deltas}
        self.panels.predict("task arithmetic", contest.merge("task_arithmetic", scale=scale))
        self.model.backbone.load_state_dict(contest.base)

    def _adapt(self, experts: dict[str, MultiTaskModel]) -> SyMergeModel:
        symerge = SyMergeModel(self.model, self.config.options).to(self.device)
        symerge.attach(experts)
        with folded(symerge, self._images()) as initial:
            self._score("initial", initial, "initial merge")
        return adapt(symerge, experts, self.pool, self.folder, seed=self.config.seed, launcher=self.launcher,
                     resume=self.resume)

    def _draw(self, symerge: SyMergeModel) -> None:
        self.panels.draw(self.folder / "panels.png")
        draw_learning(self.folder, symerge.merge.table(), list(self.model.tasks),
                      read_history(self.folder / "history.jsonl"))

    def _report(self, symerge: SyMergeModel) -> None:
        self.results |= {"coefficients": symerge.merge.table(), "timings": self.stages.seconds,
                         "peak_memory_mb": peak_memory_mb()}
        save_model(self.folder / "merged.safetensors", symerge.model,
                   {"results": self.results["merged"], "training": to_json(vars(self.config.options))})
        with replacing(self.folder / "coefficients.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in symerge.slim_state().items()}, temporary,
                      {"tasks": json.dumps(list(self.model.tasks)), "groups": json.dumps(list(symerge.merge.groups))})
        write_results(self.folder / "results.json", self.results)
        print_results(self.results, console)
        console.print(f"{sum(self.stages.seconds.values()):.0f} s, {self.results['peak_memory_mb']:.0f} MiB at peak. "
                      f"In {self.folder}: results.json, merged.safetensors, panels.png, coefficients.png, curves.png")


def train(config: RunConfig, *, work_dir: str | None = None, resume: bool = False, launcher: str = "none",
          amp: bool = False, train_experts: bool = True) -> dict[str, Any]:
    """Run the main job and return its record; a finished run that is resumed is only shown again.

    Raises ValueError for anything a user can mend: see ``workdir.open_run``, data sets, checkpoints and options.
    """
    if amp:
        config = dataclasses.replace(config, adaptation={**config.adaptation, "amp": True})
    folder = workdir.open_run(workdir.choose(config, work_dir, resume), config, resume)
    done = folder / "results.json"
    if resume and done.exists():
        results = read_results(done)
        console.print(f"{folder} is complete.")
        print_results(results, console)
        return results
    try:
        return Job(config, folder, launcher, amp, resume, train_experts).run()
    except (ValueError, OSError):
        if not resume:
            workdir.abandon(folder)
        raise
