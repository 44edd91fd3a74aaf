"""``symerge train``: from a config to experts, one merged model, its table and its pictures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import barrier, is_main_process
from safetensors.torch import save_file

from symerge_dense.adaptation.adapt import data_loading
from symerge_dense.adaptation.method import Adapted
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.evaluation.delta_m import delta_by_task, published_metrics
from symerge_dense.evaluation.scores import Scores, scores_to_json, units
from symerge_dense.fileio import atomic_write
from symerge_dense.merging.methods.average import Average
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.hub import MERGED
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.plugins import task_plugins
from symerge_dense.models.views import Views
from symerge_dense.pipeline import data, run_dir
from symerge_dense.pipeline.agreement import Agreement
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.scoring import Networks, Scoring, seen_in_views
from symerge_dense.pipeline.config import RunConfig, to_json
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.run_checks import check_run, held_out_count
from symerge_dense.pipeline.run_info import Stages, parameters, peak_memory_mb, run_facts
from symerge_dense.pipeline.run_lock import alone_in
from symerge_dense.pipeline.run_pictures import Panels, draw_learning
from symerge_dense.progress import console
from symerge_dense.registry import ADAPTIVE_METHODS, TASKS
from symerge_dense.report.agreement import print_record, read_record
from symerge_dense.report.results import write_results

MARGIN = 1.0  # points of Delta_m that SyMerge must be below the initial merge for a sentence about it


@dataclass
class TrainRun:
    """One run. Its stages share this object; ``run`` executes them in order.

    Args:
        config: of the run.
        folder: where results and checkpoints are written.
        launcher: 'none', 'pytorch' or 'slurm'.
        resume: go on from the checkpoints in ``folder``.
        amp: train missing experts in mixed precision.
        train_experts: whether missing experts are trained; False makes them an error.
        images: the unlabelled images as an object, where the config can only describe them.
        pictures: whether to draw some.
    """

    config: RunConfig
    folder: Path
    launcher: str = "none"
    resume: bool = False
    amp: bool = False
    train_experts: bool = True
    images: Unlabelled | None = None
    pictures: bool = True

    def __post_init__(self) -> None:
        self.labelled = "test" in self.config.data
        self.stages = Stages()
        self.scoring = Scoring(self.config, torch.device(get_device()))
        compared = {
            "delta_m_metrics": {task: TASKS[task].headline for task in self.config.tasks},
            "published_metrics": {task: published_metrics(TASKS[task]) for task in self.config.tasks},
        }
        self.results: dict[str, Any] = {
            "config": self.config.record,
            "seed": self.config.seed,
            **run_facts(),
            **(compared if self.labelled else {}),
            "plugins": task_plugins(self.config.tasks),
        }
        self.reference: dict[str, Scores] = {}  # of the experts, by labelled set

    def run(self) -> dict[str, Any]:
        """Execute all stages. The main process writes the run record.

        Returns:
            The run record.
        """
        config = self.config
        validation = data.validation(config)
        data_loading(config.options)  # a batch that the processes cannot share is refused now
        score = self._evaluate if self.labelled else None
        store = ExpertStore(config, self.train_experts, self.launcher, self.amp, score)
        with self.stages("data", "Data"):
            pool, spec = self._read_data(store)
        with self.stages("experts", "Base and experts"):
            base, experts = store.models(pool, self.scoring.device)
            self.models = ModelPool(
                base, experts, pool, config.options, self.folder, self.scoring.device, store.files(base, spec)
            )
        tasks = {task: expert.tasks[task] for task, expert in experts.items()}
        shown = self.scoring.test.dataset if self.labelled else self.held_out
        self.panels = Panels(shown, tasks, config.evaluation.get("panels", 3))
        if not self.labelled:
            self.agreement = Agreement(config, self.held_out, experts, self.scoring.device)
            self.results["agreement"] = self.agreement.start(pool)
        with self.stages("experts_evaluation", "Experts on their own tasks" if self.labelled else ""):
            self._score_experts()
        with self.stages("baselines", "Training-free merges"):
            self._score_baselines()
        with self.stages("adaptation", "SyMerge"):
            adapted = self._adapt(validation)
        with self.stages("evaluation"):
            self._score("merged", adapted.model, "SyMerge")
            self.panels.predict("merged", adapted.model)
        if is_main_process():
            with self.stages("report"):
                if self.pictures:
                    self._draw(adapted)
            self._report(adapted)
        barrier()  # no process goes on to files that are not there yet
        return self.results

    # -- stages -----------------------------------------------------------------------------------------------------
    def _read_data(self, store: ExpertStore) -> tuple[Unlabelled, Any]:
        """The images to learn from and their spec; without labels, some are held out to measure agreement on."""
        measured = self.scoring.sets if self.labelled else None
        pool, self.size = check_run(self.config, store, self.folder, measured, self.images)
        if self.labelled:
            return pool, self.images
        count = held_out_count(self.config, len(pool))
        pool, self.held_out = pool.split(count)
        return pool, data.pool_spec(self.config, count) if self.images is None else pool

    def _evaluate(self, model: MultiTaskModel, title: str) -> Scores:
        if not self.labelled:
            return self.agreement.score(model, title)
        return self.scoring.score({None: model.to(self.scoring.device)}, title)

    def _score(self, entry: str, model: MultiTaskModel, title: str) -> None:
        self._record(entry, self._evaluate(model, title), {None: model}, title)

    def _record(self, entry: str, scores: Scores, networks: Networks, title: str) -> None:
        """Note a row: its scores, and those of its networks on every further labelled set."""
        if not self.labelled:
            self.results["agreement"]["rows"][entry] = {"tasks": scores_to_json(scores)}
            return
        self._note(self.results, "test", entry, scores)
        for name, found in self.scoring.score_also(networks, title).items():
            self._note(self.results.setdefault("also", {}).setdefault(name, {}), name, entry, found)

    def _note(self, place: dict[str, Any], name: str, entry: str, scores: Scores) -> None:
        place[entry] = {"tasks": scores_to_json(scores)}
        if entry == "experts":
            self.reference[name] = scores
        else:
            place.setdefault("delta_m", {})[entry] = delta_by_task(scores, self.reference[name])

    def _score_experts(self) -> None:
        scores: Scores = {}
        for task, expert in self.models.experts.items():
            if self.labelled:
                scores |= self._evaluate(expert, f"expert {task}")
            self.panels.predict("expert", expert)
        if self.labelled:
            self._record("experts", scores, self.models.own_networks, "experts")
            if (views := Views.of(self.config.options.views)) is not None:
                networks, title = seen_in_views(self.models.experts, views, self.scoring.device), f"experts, {views}"
                self._record("experts_views", self.scoring.score(networks, title), networks, title)

    def _score_baselines(self) -> None:
        """Average, and task arithmetic at the scale that is best on the test split itself: an upper bound."""
        average = self.models.place(self.models.merge(Average()))
        self._score("average", average, "average")
        if not self.labelled:
            self.panels.predict("average", average)
            return
        tried: dict[float, Scores] = {}
        for scale in self.config.scales:
            tried[scale] = self._evaluate(self._task_arithmetic(scale), f"task arithmetic {scale:g}")
        deltas = {scale: delta_by_task(scores, self.reference["test"])["mean"] for scale, scores in tried.items()}
        best = max(deltas, key=lambda scale: -math.inf if math.isnan(deltas[scale]) else deltas[scale])
        model = self._task_arithmetic(best)
        self._record("task_arithmetic", tried[best], {None: model}, "task arithmetic")
        by_scale = {f"{scale:g}": deltas[scale] for scale in deltas}
        self.results["task_arithmetic"] |= {"scale": best, "delta_m_by_scale": by_scale}
        self.panels.predict("task arithmetic", model)

    def _task_arithmetic(self, scale: float) -> MultiTaskModel:
        return self.models.place(self.models.merge(TaskArithmetic(scale=scale)))

    def _adapt(self, validation: Mapping[str, Any] | None) -> Adapted:
        method = ADAPTIVE_METHODS["symerge"]()
        more = {"launcher": self.launcher, "settings": self.config.runner, "validation": validation}
        context = self.models.context(self.config.seed, **more)
        self._score("initial", method.start(context), "initial merge")
        adapted: Adapted = method.run(context, self.folder, self.resume)
        return adapted

    def _draw(self, adapted: Adapted) -> None:
        self.results["panels"] = self.panels.draw(self.folder)
        draw_learning(self.folder, adapted.coefficients, list(self.config.tasks), adapted.history)

    def _report(self, adapted: Adapted) -> None:
        self.results |= {
            "coefficients": adapted.coefficients,
            **({"coefficient_ranges": ranges} if (ranges := adapted.coefficient_ranges) else {}),
            "parameters": parameters(adapted.model),
            "units": units((self.results if self.labelled else self.results["agreement"]["rows"])["merged"]["tasks"]),
            "timings": self.stages.seconds,
            "peak_memory_mb": peak_memory_mb(),
        }
        measured = {"results": self.results["merged"]} if self.labelled else {"agreement": self.results["agreement"]}
        about = {**measured, "training": to_json(vars(self.config.options)), "image_size": list(self.size)}
        save_model(self.folder / MERGED, adapted.model, about)
        with atomic_write(self.folder / "coefficients.safetensors") as temporary:
            learned = adapted.student.trainable_state_dict()
            save_file(
                {name: value.contiguous() for name, value in learned.items() if not name.startswith("teacher.")},
                temporary,
                {"tasks": json.dumps(list(self.config.tasks)), "groups": json.dumps(list(adapted.coefficients))},
            )
        write_results(self.folder / "results.json", self.results)
        print_record(self.results, console)
        self._say_if_behind()
        seconds, memory = sum(self.stages.seconds.values()), self.results["peak_memory_mb"]
        used = f"{seconds:.0f} s, {memory:.0f} MiB at peak."
        if not self.pictures:  # the folder is the caller's, and may be gone soon
            console.print(used)
            return
        names = f"results.json, {MERGED}, panels.png, coefficients.png, curves.png, panels/"
        console.print(f"{used} In {self.folder}: {names}.")
        console.print(f"`symerge report page {self.folder} --out report.html` makes one page of it.")

    def _say_if_behind(self) -> None:
        """A sentence where adaptation made the model worse than what it started from."""
        means = [
            self.results.get("delta_m", {}).get(entry, {}).get("mean", math.nan) for entry in ("initial", "merged")
        ]
        if means[1] < means[0] - MARGIN:
            console.print(
                f"SyMerge ended below the initial merge after {self.config.options.rounds} rounds. It learns what the "
                "experts decide: experts that were trained too little, or too few rounds, are the usual reasons."
            )


def train(
    config: RunConfig,
    *,
    work_dir: str | None = None,
    resume: bool = False,
    launcher: str = "none",
    amp: bool = False,
    train_experts: bool = True,
    images: Unlabelled | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Train missing experts, merge them, evaluate and report. A finished run that is resumed is only shown again.

    Args:
        config: of the run.
        work_dir: the run's folder; None takes a new one, or with ``resume`` the newest.
        resume: go on with an interrupted run.
        launcher: 'none', 'pytorch' or 'slurm'.
        amp: train and adapt in mixed precision.
        train_experts: whether missing experts are trained; False makes them an error.
        images: the unlabelled images as an object, where the config can only describe them.
        pictures: whether to draw some.

    Returns:
        The run record.

    Raises:
        ValueError: anything a user can correct: data sets, checkpoints, options, and what ``run_dir.open_run`` raises.
    """
    if amp:
        config = dataclasses.replace(config, adaptation={**config.adaptation, "amp": True})
    folder = run_dir.open_run(run_dir.choose(config, work_dir, resume), config, resume)
    done = folder / "results.json"
    if resume and done.exists() and not (folder / MERGED).exists():
        console.print(f"{folder}: {MERGED} is missing; it is made again.")
    elif resume and done.exists():
        results = read_record(done)
        console.print(f"{folder} is complete.")
        print_record(results, console)
        return results
    with alone_in(folder), run_dir.abandoned(folder, keep=resume):
        return TrainRun(config, folder, launcher, resume, amp, train_experts, images, pictures).run()
