"""The shared base and the experts: found where a config names them, else trained and kept.

A trained file carries a fingerprint of everything that made it in its name, so a changed option trains anew and two
configs that agree share one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process

from symerge_dense.experts.backbone import TimmBackbone, load_base
from symerge_dense.experts.checkpoint import check_same_base, load_model, save_model, state_hash
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.experts.training import Recipe, fit
from symerge_dense.pipeline.config import RunConfig, Spec, fingerprint, to_json
from symerge_dense.pipeline.sources import dataset
from symerge_dense.pipeline.workdir import ROOT
from symerge_dense.progress import console

HOW = "Train it (leave out --no-train-experts), or name a file in the config"


@dataclass
class Stock:
    """Trains what is missing. ``allowed=False`` refuses instead; ``changes`` are recipe overrides for all trainings."""

    config: RunConfig
    allowed: bool = True
    launcher: str = "none"
    amp: bool = False

    @property
    def folder(self) -> Path:
        """Where base and experts of this config are kept."""
        return Path(self.config.experts.get("folder") or ROOT / "experts" / self.config.experts["name"])

    # -- the base ---------------------------------------------------------------------------------------------------
    def base(self) -> TimmBackbone:
        """The shared pretrained backbone: from a checkpoint, timm's download, or trained on the config's base tasks."""
        config = self.config
        backbone = TimmBackbone(**config.backbone)
        train = config.base.get("train")
        if config.base.get("checkpoint"):
            load_base(backbone, checkpoint=config.base["checkpoint"])
        elif config.base.get("pretrained"):
            load_base(backbone, pretrained=True)
        elif train:
            load_base(backbone, checkpoint=self._trained_base(train))
        else:
            raise ValueError("config.base says nowhere where the shared weights come from: give base.checkpoint=PATH, "
                             "base.pretrained=True (downloads from timm's hub), or base.train.")
        return backbone

    def _trained_base(self, train: Spec) -> Path:
        config, seed = self.config, self.config.experts.get("seed", 0)
        path = self.folder / f"base-{fingerprint(self._common(), train, config.head, seed)}.safetensors"
        if not path.exists():
            torch.manual_seed(seed)
            backbone = TimmBackbone(**config.backbone)
            load_base(backbone, random_init=True)
            self._train(path, backbone, train["tasks"], dict(train["recipe"]), "shared base", seed)
        return path

    # -- the experts ------------------------------------------------------------------------------------------------
    def experts(self, base: TimmBackbone) -> dict[str, MultiTaskModel]:
        """{task: expert}, each checked against the base and against its task."""
        origin = state_hash(base.state_dict())
        given = self.config.experts.get("checkpoints", {})
        experts, about = {}, {}
        for task in self.config.tasks:
            path = Path(given[task]) if task in given else self._trained_expert(task, base, origin)
            experts[task], about[task] = load_model(path)
            if task not in experts[task].tasks:
                raise ValueError(f"expert {path} serves {', '.join(experts[task].tasks)}, not {task!r}; "
                                 f"name an expert of {task} in experts.checkpoints.")
            experts[task].keep_tasks([task])
        check_same_base({"base": {"base_hash": origin}, **about}, allow=self.config.experts.get("other_base", False))
        return experts

    def _trained_expert(self, task: str, base: TimmBackbone, origin: str) -> Path:
        config, seed = self.config, self.config.experts.get("seed", 0)
        recipe = {**config.experts["recipe"], **config.experts.get("recipes", {}).get(task, {})}
        key = fingerprint(self._common(), config.tasks[task], config.head_of(task), recipe, origin, seed)
        path = self.folder / f"{task}-{key}.safetensors"
        if not path.exists():
            torch.manual_seed(seed)
            backbone = TimmBackbone(**config.backbone)
            backbone.load_state_dict(base.state_dict())
            self._train(path, backbone, {task: config.tasks[task]}, recipe, f"expert {task}", seed)
        return path

    # -- training ---------------------------------------------------------------------------------------------------
    def _common(self) -> list[Any]:
        """What base and experts share; the length of the training set tells data sets of one layout apart."""
        config = self.config
        return [config.data["train"], len(dataset(config, "train", config.tasks)), config.backbone,
                config.preprocessing, config.align_corners]

    def _train(self, path: Path, backbone: TimmBackbone, tasks: Spec, recipe: Spec, title: str, seed: int) -> None:
        if not self.allowed:
            raise ValueError(f"{title} is missing: {path} does not exist. {HOW}.")
        config = self.config
        if is_main_process():
            console.print(f"{title} is missing, training it: {path}")
        model = MultiTaskModel(backbone, {task: config.head_of(task) for task in tasks}, tasks,
                               **config.preprocessing, align_corners=config.align_corners)
        origin = state_hash(backbone.state_dict())
        fit(model, dataset(config, "train", tasks), Recipe(**recipe, amp=self.amp), path.with_suffix(""),
            title=title, seed=seed, launcher=self.launcher)
        if is_main_process():
            save_model(path, model, {"base_hash": origin, "training": to_json({**recipe, "seed": seed}),
                                     "data": to_json(config.data["train"])})
        barrier()
