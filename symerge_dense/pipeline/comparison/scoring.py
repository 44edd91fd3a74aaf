"""Scores of networks on the labelled splits of a config, by the config's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch.utils.data import Subset

from symerge_dense.datasets.base import DenseDataset
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
    """Scores on the sets that the table reports, and on the split that scales may be tuned on.

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

    def score_also(self, networks: Networks, title: str) -> dict[str, Scores]:
        """Scores of all tasks on every further set that the config measures on, ``evaluation.also``.

        Args:
            networks: one for all tasks, or one per task.
            title: shown at the progress bar.

        Returns:
            {name of the set: scores}.
        """
        return {name: self.score(networks, f"{title}, {name}", loader) for name, loader in self.also.items()}

    @cached_property
    def also(self) -> dict[str, Any]:
        """{name of a further set: its loader}. Nothing is ever tuned on them."""
        return {name: self._loader(name) for name in data.measured_sets(self.config)[1:]}

    def sets(self) -> dict[str, DenseDataset]:
        """{name in the config: labelled set}, of all that rows are measured on."""
        return {"data.test": self.test.dataset, **{f"data.{name}": found.dataset for name, found in self.also.items()}}

    def _loader(self, split: str) -> Any:
        return data.loader(self.config, data.dataset(self.config, split, self.config.tasks))

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
        return self._loader("test")

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


def seen_in_views(experts: Mapping[str, MultiTaskModel], views: Views, device: torch.device) -> Networks:
    """The experts as networks that are asked for several views of every image and average the answers.

    Args:
        experts: {task: expert}.
        views: that are averaged, as in the labels that students learn from.
        device: where networks run.
    """
    return {task: cast(Any, ViewsModel(expert.to(device), views)) for task, expert in experts.items()}
