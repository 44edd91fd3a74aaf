"""One row of a comparison: a candidate is run, once for each seed, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from symerge_dense.evaluation.delta_m import delta_by_task
from symerge_dense.evaluation.scores import Scores
from symerge_dense.models.checkpoint import save_model
from symerge_dense.pipeline.comparison.head_transfer import HeadDonor
from symerge_dense.pipeline.comparison.methods import EXPERTS, Adaptive, Candidate, Outcome
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.resources import measured
from symerge_dense.pipeline.comparison.rows import Row, costs_of, deltas_of, measured_row, scores_of
from symerge_dense.pipeline.comparison.scoring import Scoring
from symerge_dense.pipeline.comparison.seed_results import MadeWith, SeedResult, SeedStore
from symerge_dense.pipeline.comparison.tuning import Tuner
from symerge_dense.pipeline.config import to_json
from symerge_dense.progress import say

OTHER_LAYERS = "its saved result does not go with the adapted layers that this comparison transfers"


@dataclass
class Measurement:
    """Runs candidates and makes their rows.

    Args:
        models: base, experts and unlabelled images.
        tuner: chooses scales.
        scoring: scores networks.
        donor: its heads are put onto other encoders; the candidate ``giver`` writes its file.
        giver: name of the candidate whose heads the donor's file gets, those of its last seed; None: the file is given.
        experts: the row that the others are measured against; None while the experts themselves are measured.
        saved: results of single seeds.
    """

    models: ModelPool
    tuner: Tuner
    scoring: Scoring
    donor: HeadDonor
    giver: str | None
    experts: Row | None
    saved: SeedStore

    def row(self, candidate: Candidate, seeds: Sequence[int], made_with: MadeWith) -> Row:
        """Run a candidate and score what it makes. Seeds whose results are saved are not run again.

        Args:
            candidate: whose row is made.
            seeds: one run each.
            made_with: what a saved result must have been made with.
        """
        found = self.saved_seeds(candidate, seeds, made_with)
        missing = [seed for seed in seeds if seed not in found]
        if missing and isinstance(candidate, Adaptive):
            candidate.prepare(self.models)
        for seed in missing:
            found[seed] = self.save(candidate, seed, seeds, made_with)
        return self._row(candidate, [found[seed] for seed in seeds])

    def save(self, candidate: Candidate, seed: int, seeds: Sequence[int], made_with: MadeWith) -> SeedResult:
        """Run a candidate once, and save the result where the candidate is random.

        Args:
            candidate: whose row is made; its labels of experts are there.
            seed: of the run.
            seeds: of all runs of its row.
            made_with: what the result is made with.
        """
        if self._gives(candidate, seed, seeds):
            self.donor.path.unlink(missing_ok=True)  # layers of an earlier run must not pass for this one's
        result = self._run(candidate, seed, self._gives(candidate, seed, seeds))
        return self.saved.write(candidate.name, seed, made_with, result) if candidate.random else result

    def saved_seeds(self, candidate: Candidate, seeds: Sequence[int], made_with: MadeWith) -> dict[int, SeedResult]:
        """{seed: saved result} of the seeds that need not be run. Other results than random ones are not saved.

        Args:
            candidate: whose row is made.
            seeds: of all runs of its row.
            made_with: what a saved result must have been made with.
        """
        found = {}
        for seed in seeds if candidate.random else ():
            result = self.saved.read(candidate.name, seed, made_with)
            if result is None:
                continue
            gave = result.gives is not None and result.gives == self.donor.hash
            if result.layers != self._layers(candidate) or (self._gives(candidate, seed, seeds) and not gave):
                say(f"{candidate.name}, seed {seed}: {OTHER_LAYERS}; the seed is run again.")
            else:
                found[seed] = result
        if found:
            say(f"{candidate.name}: {len(found)} of {len(seeds)} seeds are saved, and not run again.")
        return found

    def _run(self, candidate: Candidate, seed: int, gives: bool) -> SeedResult:
        """Run a candidate once; write the donor's file if it gives the heads."""
        with measured() as cost:
            outcome = candidate.make(self.models, self.tuner, seed)
        scores = self.scoring.score(outcome.networks, candidate.name)
        also = self.scoring.score_also(outcome.networks, candidate.name)
        moved = self._moved(candidate, outcome)
        if gives:
            save_model(self.donor.path, outcome.networks[None], {"training": to_json(vars(self.models.options))})
        return SeedResult(
            scores=scores,
            also=also,
            cost=cost,
            transferred=moved,
            layers=self._layers(candidate),
            gives=self.donor.hash if gives else None,
            block=outcome.block,
            data=outcome.data,
            encoder_passes=len(outcome.networks),
            facts=outcome.facts,
        )

    def _row(self, candidate: Candidate, runs: Sequence[SeedResult]) -> Row:
        """The row of all runs of a candidate."""
        last, moved = runs[-1], [run.transferred for run in runs if run.transferred]
        further = {
            name: measured_row([run.also[name] for run in runs], self._reference(name)) for name in self.scoring.also
        }
        own = costs_of([run.cost for run in runs])
        own = own if last.block != "reference" else {}  # a reference costs training, if it was not found
        layers = {"layers": self.donor.hash} if candidate.transfers else {}
        return {
            "method": candidate.name,
            "block": last.block,
            "data": last.data,
            "runs": len(runs),
            **measured_row([run.scores for run in runs], self._reference()),
            **({"also": further} if further else {}),
            "encoder_passes": last.encoder_passes,
            **own,
            **last.facts,
            **({"transferred": deltas_of(moved)} if moved else {}),
            **({"models": self.models.hashes} if candidate.name == EXPERTS else layers),
        }

    def _reference(self, also: str | None = None) -> Scores | None:
        return None if self.experts is None else scores_of(self.experts, also)

    def _gives(self, candidate: Candidate, seed: int, seeds: Sequence[int]) -> bool:
        """Whether the transferred heads come from this run: the last of the candidate that gives them."""
        return candidate.name == self.giver and seed == seeds[-1]

    def _layers(self, candidate: Candidate) -> str | None:
        """Hash of the model whose heads are tried on a candidate's encoder; None for the heads' own method."""
        return self.donor.hash if candidate.transfers and candidate.name != self.giver else None

    def _moved(self, candidate: Candidate, outcome: Outcome) -> dict[str, float]:
        """Delta_m of the encoder with transferred heads; empty for references, the heads' own method, and no heads."""
        reference = self._reference()
        if outcome.block == "reference" or reference is None or self._layers(candidate) is None:
            return {}
        plugged = self.donor.plugged(self.models, outcome.networks)
        return delta_by_task(self.scoring.score(plugged, f"{candidate.name}, transferred layers"), reference)
