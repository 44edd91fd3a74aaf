"""Scores of networks on the labelled splits of a config, by the config's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch.utils.data import Subset

from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.scores import Scores
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.views import Views, ViewsModel
from symerge_dense.pipeline import data
from symerge_dense.pipeline.config import RunConfig

LABELLED_IMAGES = 200  # at most, of the tuning split, when scales are tuned on labels
Networks = Mapping[str | None, MultiTaskModel]
"""One network for all tasks under None, or one for each task under its name."""


@dataclass
class Scoring:
    """Scores on the split that the table reports, and on the split that scales may be tuned on.

    Args:
        config: has the data sets and the protocol.
        device: where networks run.
    """

    config: RunConfig
    device: torch.device

    def score(self, networks: Networks, title: str, loader: Any = None) -> Scores:
        """Scores of all tasks.

        Args:
            networks: one for all tasks, or one per task.
            title: shown at the progress bar.
            loader: labelled batches; None takes the test split.
        """
        scores: Scores = {}
        protocol = self.config.evaluation.get("protocol", "default")
        for task, network in networks.items():
            name = title if task is None else f"{title}, {task}"
            scores |= evaluate(network, self.test if loader is None else loader, name, self.device, protocol)
        return scores

    def score_views(self, experts: Mapping[str, MultiTaskModel], views: Views) -> Scores:
        """Scores of the experts, each asked for several views of every image of the test split.

        Args:
            experts: {task: expert}.
            views: that are averaged, as in the labels that students learn from.
        """
        scores: Scores = {}
        protocol = self.config.evaluation.get("protocol", "default")
        for task, expert in experts.items():
            model = ViewsModel(expert.to(self.device), views)
            scores |= evaluate(model, self.test, f"expert {task}, {views}", self.device, protocol)
        return scores

    @cached_property
    def test(self) -> Any:
        """Loader of the test split.

        Raises:
            ValueError: the config names none.
        """
        if "test" not in self.config.data:
            raise ValueError(
                "data has no 'test', and a comparison measures on labels; name labelled images there. Without labels, "
                "symerge train merges the experts and reports how far the merged model agrees with them."
            )
        return data.loader(self.config, data.dataset(self.config, "test", self.config.tasks))

    @property
    def tuning_split(self) -> str:
        """The split for tuning on labels: the config's 'validation' where it has one, else 'train'."""
        return "validation" if "validation" in self.config.data else "train"

    @cached_property
    def labelled(self) -> Any:
        """Loader of up to ``LABELLED_IMAGES`` evenly spaced images of the tuning split, unaugmented."""
        if self.tuning_split not in self.config.data:
            raise ValueError("tuning on labels needs data.validation or data.train; name one, or tune by agreement.")
        tuning = data.dataset(self.config, self.tuning_split, self.config.tasks)
        tuning.augment = None
        chosen = torch.linspace(0, len(tuning) - 1, min(LABELLED_IMAGES, len(tuning))).long().unique().tolist()
        return data.loader(self.config, cast(Any, Subset(tuning, chosen)))
