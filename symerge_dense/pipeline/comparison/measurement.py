"""One row of a comparison: a candidate is run, once for each seed, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from symerge_dense.evaluation.delta_m import delta_by_task
from symerge_dense.evaluation.scores import Scores
from symerge_dense.models.checkpoint import save_model
from symerge_dense.pipeline.comparison.head_transfer import HeadDonor
from symerge_dense.pipeline.comparison.methods import EXPERTS, Adaptive, Candidate, Outcome
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.resources import measured
from symerge_dense.pipeline.comparison.rows import Row, costs_of, deltas_of, measured_row, scores_of
from symerge_dense.pipeline.comparison.scoring import Scoring
from symerge_dense.pipeline.comparison.tuning import Tuner
from symerge_dense.pipeline.config import to_json


@dataclass
class Measurement:
    """Runs candidates and makes their rows.

    Args:
        models: base, experts and unlabelled images.
        tuner: chooses scales.
        scoring: scores networks.
        donor: its heads are put onto other encoders; the candidate ``giver`` writes its file.
        giver: name of the candidate whose heads the donor's file gets; None: the file is given.
        experts: the row that the others are measured against; None while the experts themselves are measured.
    """

    models: ModelPool
    tuner: Tuner
    scoring: Scoring
    donor: HeadDonor
    giver: str | None
    experts: Row | None

    def row(self, candidate: Candidate, seeds: Sequence[int]) -> Row:
        """Run a candidate and score what it makes.

        Args:
            candidate: whose row is made.
            seeds: one run each.
        """
        scores: list[Scores] = []
        also: dict[str, list[Scores]] = {name: [] for name in self.scoring.also}
        costs: list[dict[str, Any]] = []
        moved: list[dict[str, float]] = []
        if isinstance(candidate, Adaptive):
            candidate.prepare(self.models)
        for seed in seeds:
            with measured() as cost:
                outcome = candidate.make(self.models, self.tuner, seed)
            costs.append(cost)
            scores.append(self.scoring.score(outcome.networks, candidate.name))
            for name, found in self.scoring.score_also(outcome.networks, candidate.name).items():
                also[name].append(found)
            moved += self._moved(candidate, outcome)
        further = {name: measured_row(runs, self._reference(name)) for name, runs in also.items()}
        if candidate.name == self.giver:
            save_model(self.donor.path, outcome.networks[None], {"training": to_json(vars(self.models.options))})
        own = costs_of(costs) if outcome.block != "reference" else {}  # a reference costs training, if it was not found
        layers = {"layers": self.donor.hash} if candidate.transfers else {}
        return {
            "method": candidate.name,
            "block": outcome.block,
            "data": outcome.data,
            "runs": len(scores),
            **measured_row(scores, self._reference()),
            **({"also": further} if further else {}),
            "encoder_passes": len(outcome.networks),
            **own,
            **outcome.facts,
            **({"transferred": deltas_of(moved)} if moved else {}),
            **({"models": self.models.hashes} if candidate.name == EXPERTS else layers),
        }

    def _reference(self, also: str | None = None) -> Scores | None:
        return None if self.experts is None else scores_of(self.experts, also)

    def _moved(self, candidate: Candidate, outcome: Outcome) -> list[dict[str, float]]:
        """Delta_m of the encoder with transferred heads; empty for references, the heads' own method, and no heads."""
        other = candidate.transfers and candidate.name != self.giver and outcome.block != "reference"
        reference = self._reference()
        if not other or reference is None or self.donor.hash is None:
            return []
        plugged = self.donor.plugged(self.models, outcome.networks)
        return [delta_by_task(self.scoring.score(plugged, f"{candidate.name}, transferred layers"), reference)]
