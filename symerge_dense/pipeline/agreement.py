"""Agreement of a merged model with each expert on unlabelled images: metrics with the expert's decision as target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.scores import Scores
from symerge_dense.models.modes import evaluating
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline import data
from symerge_dense.pipeline.config import RunConfig
from symerge_dense.progress import say


class ExpertTargets:
    """Batches of images with what each expert decides on them in place of the ground truth.

    Args:
        batches: loader of batches with 'image' (N,3,H,W).
        experts: {task: expert}.
        device: where the experts run.
    """

    def __init__(self, batches: Any, experts: Mapping[str, MultiTaskModel], device: torch.device) -> None:
        self.batches, self.experts, self.device = batches, experts, device
        self.dataset = batches.dataset

    def __len__(self) -> int:
        return len(self.batches)

    @torch.no_grad()
    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches:
            images, targets = batch["image"].to(self.device), {}
            for task, expert in self.experts.items():
                with evaluating(expert):
                    outputs = expert.to(self.device)(images, mode="predict")
                output = torch.stack([image[task] for image in outputs])
                targets[task] = expert.tasks[task].self_label(output, soft=False)
                if not (labelled := torch.from_numpy(self.dataset.labelled_by(task))[batch["index"]]).all():
                    targets[task][~labelled] = expert.tasks[task].invalid_value
            yield {**batch, **targets}


@dataclass
class Agreement:
    """Measures models against the experts. It says how alike they are, not how good either is.

    Args:
        config: has batch size and workers of the evaluation.
        images: the held-out images, which no model learned from.
        experts: {task: expert}.
        device: where networks run.
    """

    config: RunConfig
    images: Unlabelled
    experts: Mapping[str, MultiTaskModel]
    device: torch.device

    def score(self, model: MultiTaskModel, title: str) -> Scores:
        """Metrics of every task, by the default protocol.

        Args:
            model: a merged model.
            title: shown at the progress bar.
        """
        say("agreement: what the expert decides stands for the truth", once=True)
        batches = data.loader(self.config, cast(Any, self.images))
        targets = ExpertTargets(batches, self.experts, self.device)
        return evaluate(model.to(self.device), cast(Any, targets), title, self.device)

    def start(self, pool: Unlabelled) -> dict[str, Any]:
        """The entry ``agreement`` of a run's record, without rows.

        Args:
            pool: the images that are learned from.
        """
        return {"held_out_images": len(self.images), "adapted_images": len(pool), "rows": {}}
