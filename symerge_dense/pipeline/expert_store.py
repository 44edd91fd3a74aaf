"""The shared base and the experts: found where a config names them, else trained and kept.

The name of a trained file holds a fingerprint of everything that it depends on. A changed option therefore trains
anew, and configs that agree share one file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_world_size, is_main_process

from symerge_dense.adaptation.symerge_model import load_expert
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.evaluation.scores import Scores, scores_to_json
from symerge_dense.experts.recipe import Recipe
from symerge_dense.experts.training import fit
from symerge_dense.fileio import check_writable
from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import load_model, read_metadata, save_model, state_hash
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.config import RunConfig, Spec, config_hash, to_json, type_names
from symerge_dense.pipeline.config_checks import UNTRAINED, explained
from symerge_dense.pipeline.data import dataset, labels_fingerprint, pool_spec
from symerge_dense.pipeline.expert_facts import check_base
from symerge_dense.pipeline.expert_files import HOW, base_file, is_usable
from symerge_dense.pipeline.expert_matching import matched_experts, mean_backbone
from symerge_dense.pipeline.network import network
from symerge_dense.pipeline.run_dir import ROOT
from symerge_dense.progress import say


@dataclass
class ExpertStore:
    """Finds base and experts of a config, or trains what is missing.

    Args:
        config: says where they are, or how they are trained.
        allowed: whether to train; False makes a missing file an error.
        launcher: 'none', 'pytorch' or 'slurm'.
        amp: train in mixed precision.
        score: measures a trained expert for its record: (model, title) -> scores.

    Attributes:
        before_training: called once, before anything is trained: it may look at the data and refuse.
    """

    config: RunConfig
    allowed: bool = True
    launcher: str = "none"
    amp: bool = False
    score: Callable[[MultiTaskModel, str], Scores] | None = None
    before_training: Callable[[], None] | None = field(default=None, init=False)
    paths: dict[str, Path] = field(default_factory=dict, init=False)
    _given: dict[str, tuple[MultiTaskModel, Spec]] = field(default_factory=dict, init=False)

    @property
    def folder(self) -> Path:
        """Where trained files of this config are kept."""
        experts = self.config.experts
        return Path(experts.get("folder") or ROOT / "experts" / experts.get("name", self.config.name))

    @property
    def may_train(self) -> bool:
        """Whether anything may have to be trained, which takes labelled data."""
        config = self.config
        given = config.experts.get("checkpoints", {})
        base = any(config.base.get(key) for key in UNTRAINED)
        return self.allowed and not (base and all(task in given for task in config.tasks))

    def files(self, base: TimmBackbone, pool: Any = None) -> dict[str, Any]:
        """Where base, experts and the unlabelled images come from, as plain values: see ``AdaptationContext.files``.

        A base without a file of its own (timm's download, random weights) is kept beside the experts.

        Args:
            base: the shared backbone, as ``base()`` gives it.
            pool: spec or object of the unlabelled images; None takes all that the config names.
        """
        own = set(self._source) == {"checkpoint"}
        return {
            "base": str(self._source["checkpoint"] if own else base_file(self.folder, base)),
            "experts": {task: str(path) for task, path in self.paths.items()},
            "pool": pool_spec(self.config) if pool is None else pool,
            "other_base": bool(self.config.experts.get("other_base", False) or self.config.base.get("mean")),
        }

    def models(self, pool: Unlabelled, device: torch.device) -> tuple[TimmBackbone, dict[str, MultiTaskModel]]:
        """Base and experts as they are merged: where the config says so matched, and the base their mean.

        Args:
            pool: unlabelled images, which activations are taken from.
            device: where to match.

        Raises:
            ValueError: as ``experts`` raises it, or the experts cannot be matched.
        """
        base = None if self.config.base.get("mean") else self.base()
        experts = self.experts(base)
        if self.config.experts.get("match") is not None:
            experts = matched_experts(self.config, self.folder, self.paths, base, experts, pool, device)
        return mean_backbone(experts) if base is None else base, experts

    # -- the base ---------------------------------------------------------------------------------------------------
    def base(self) -> TimmBackbone:
        """The shared pretrained backbone: from a checkpoint, timm's download, or trained on the config's base tasks."""
        config = self.config
        torch.manual_seed(config.experts.get("seed", 0))  # random weights are drawn when the network is built
        backbone = TimmBackbone(**config.backbone)
        load_base(backbone, **self._source)
        return backbone

    @cached_property
    def _source(self) -> dict[str, Any]:
        """Arguments of ``load_base``: the first that the config names of a file, timm's download, random weights."""
        base = self.config.base
        for key in UNTRAINED:
            if base.get(key):
                of_file = ("key", "ema") if key == "checkpoint" else ()
                return {key: base[key], **{word: base[word] for word in of_file if base.get(word)}}
        return {"checkpoint": self._trained_base(base["train"])}

    def _trained_base(self, train: Spec) -> Path:
        config, seed = self.config, self.config.experts.get("seed", 0)
        train = {**train, "recipe": {**train["recipe"], **self._precision}}
        path = self._file("base", train, config.head, seed)
        if not self._found(path, train["tasks"]):
            torch.manual_seed(seed)
            backbone = TimmBackbone(**config.backbone)
            load_base(backbone, random_init=True)
            self._train(path, backbone, train["tasks"], train["recipe"], "shared base", seed)
        return path

    # -- the experts ------------------------------------------------------------------------------------------------
    def experts(self, base: TimmBackbone | None) -> dict[str, MultiTaskModel]:
        """The expert of every task, checked against the base and the task.

        Args:
            base: as ``base()`` gives it; None where it is the experts' mean, so that all of them have files.

        Raises:
            ValueError: an expert is missing, lacks its task, or started from another base.
        """
        origin = "" if base is None else state_hash(base.state_dict())
        self.load_given()
        started = {"base": {"base_hash": origin}}
        check_base(self.config, {**started, **{task: about for task, (_, about) in self._given.items()}})
        experts, about = {}, {}
        for task in self.config.tasks:
            if task not in self._given and base is not None:
                self.paths[task] = self._trained_expert(task, base, origin)
            experts[task], about[task] = self._given.pop(task) if task in self._given else self._load(task)
            say(f"expert {task}: all {len(experts[task].state_dict())} tensors of {self.paths[task]}")
        check_base(self.config, {**started, **about})
        return experts

    def load_given(self) -> None:
        """Read the experts that the config names: what is wrong with them is known before anything is trained.

        Raises:
            ValueError: a file is missing, damaged, or lacks its task or the adapted layer.
        """
        given = self.config.experts.get("checkpoints", {})
        for task in self.config.tasks:
            if task in given and task not in self._given:
                self.paths[task] = Path(given[task])
                self._given[task] = self._load(task)

    def _load(self, task: str) -> tuple[MultiTaskModel, Spec]:
        path = self.paths[task]
        expert, about = load_expert(path, task, self.config.options.task_vectors == "mapped")
        with explained(f"adaptation.layer, expert {path}"):
            dict(expert.named_heads())[task].layer_modules(self.config.options.layer)
        return expert, about

    def _trained_expert(self, task: str, base: TimmBackbone, origin: str) -> Path:
        config, seed = self.config, self.config.experts.get("seed", 0)
        recipe = {**config.experts["recipe"], **config.experts.get("recipes", {}).get(task, {}), **self._precision}
        path = self._file(task, config.tasks[task], config.head_of(task), recipe, origin, seed)
        if not self._found(path, {task: config.tasks[task]}):
            torch.manual_seed(seed)
            backbone = TimmBackbone(**config.backbone)
            backbone.load_state_dict(base.state_dict())
            self._train(path, backbone, {task: config.tasks[task]}, recipe, f"expert {task}", seed)
        return path

    def joint(self, base: TimmBackbone) -> MultiTaskModel:
        """All tasks trained together, with labels, from the base: the experts' recipe, each step on every loss.

        Args:
            base: as ``base()`` gives it.

        Raises:
            ValueError: the model is missing and must not be trained, or there is no recipe.
        """
        config, seed = self.config, self.config.experts.get("seed", 0)
        if "recipe" not in config.experts:
            raise ValueError("joint training has no recipe: give experts.recipe, or leave the method out.")
        recipe = {**config.experts["recipe"], **self._precision}
        origin = state_hash(base.state_dict())
        path = self._file("joint", config.tasks, config.head, config.heads, recipe, origin, seed)
        if not self._found(path, config.tasks):
            torch.manual_seed(seed)
            backbone = TimmBackbone(**config.backbone)
            backbone.load_state_dict(base.state_dict())
            self._train(path, backbone, config.tasks, recipe, "joint model", seed)
        return load_model(path)[0]

    # -- training ---------------------------------------------------------------------------------------------------
    def _common(self) -> list[Any]:
        """What all fingerprints include. A sample of the training images tells data sets of one layout apart."""
        config = self.config
        made = [config.data["train"], self._images, config.backbone, config.preprocessing, config.align_corners]
        processes = get_world_size()  # batch_size is per process: their number changes the result
        return made if processes == 1 else [*made, processes]

    def _file(self, title: str, *values: Any) -> Path:
        """The file of a model that depends on ``values``: of this version, or of one that named it in another way.

        The number of data workers changes no result and is not in the name; earlier versions had it there, and hashed
        the names of classes as written.
        """
        hashed = [self._common(), *map(_without_workers, values)], [self._common(), *values]
        keys = [config_hash(*hashed[0]), config_hash(*hashed[1])]
        keys.append(config_hash(self._common(), *map(type_names, values)))
        paths = [self.folder / f"{title}-{key}.safetensors" for key in keys]
        return next((path for path in paths if path.exists()), paths[0])

    @cached_property
    def _images(self) -> str:
        return Unlabelled(dataset(self.config, "train", {})).fingerprint

    @property
    def _precision(self) -> Spec:
        """What --amp adds to a recipe, and thereby to the fingerprint."""
        return {"amp": True} if self.amp else {}

    def _found(self, path: Path, tasks: Spec) -> bool:
        """Whether the file is there. Labels are not in its name: it says so if they changed since its training.

        A damaged file is trained anew.
        """
        if not is_usable(path, self.allowed):
            return False
        labels = read_metadata(path).get("labels")
        if labels is not None and labels != labels_fingerprint(self.config, tasks):
            say(f"note: {path} was trained on other labels; remove it to train it anew.", once=True)
        return True

    def _train(self, path: Path, backbone: TimmBackbone, tasks: Spec, recipe: Spec, title: str, seed: int) -> None:
        if not self.allowed:
            raise ValueError(f"{title} is missing: {path} does not exist. {HOW}.")
        if is_main_process():
            check_writable(path.parent)
        if self.before_training is not None:
            check, self.before_training = self.before_training, None
            with torch.random.fork_rng(devices=[]):  # a data loader draws a number: the training must not notice
                check()
        config = self.config
        say(f"{title} is missing, training it: {path}")
        model = network(config, backbone, tasks)
        origin, images = state_hash(backbone.state_dict()), dataset(config, "train", tasks)
        size = list(images[0]["image"].shape[-2:])
        fit(
            model,
            images,
            Recipe(**recipe),
            path.with_suffix(""),
            title=title,
            seed=seed,
            launcher=self.launcher,
            settings=config.runner,
        )
        scorable = set(tasks) <= set(config.tasks)  # tasks of the base alone are not in the test split
        metrics = scores_to_json(self.score(model, title)) if self.score is not None and scorable else {}
        labels = labels_fingerprint(config, tasks)  # by all processes: a data set may wait for them
        if is_main_process():
            about = {"base_hash": origin, "training": to_json({**recipe, "seed": seed}), "metrics": metrics}
            about |= {"data": to_json(config.data["train"]), "labels": labels}
            about["image_size"] = size
            save_model(path, model, about)
        barrier()


def _without_workers(value: Any) -> Any:
    """A config value in which no recipe says ``num_workers``."""
    if not isinstance(value, dict):
        return value
    return {key: _without_workers(item) for key, item in value.items() if key != "num_workers"}
