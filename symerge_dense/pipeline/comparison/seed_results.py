"""What one run of a candidate gave, saved as soon as it is measured: a row of several seeds is many such results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symerge_dense.evaluation.scores import Scores, scores_from_json, scores_to_json
from symerge_dense.pipeline.comparison.rows import changed_settings
from symerge_dense.pipeline.config import to_json
from symerge_dense.progress import say
from symerge_dense.report.record_shapes import NUMBER, OPEN, refuse_misshapen
from symerge_dense.report.sealed import read_sealed, write_sealed

SEED_FORMAT = 1  # of the files


SHAPE = {
    "cost": {"seconds": NUMBER, "peak_memory_mb?": NUMBER},
    "transferred": {"*": OPEN},
    "layers?": str,
    "gives?": str,
    "block": str,
    "data": str,
    "encoder_passes": NUMBER,
    "facts": dict,
}
"""Of what is saved of a ``SeedResult``, beside scores."""


@dataclass
class SeedResult:
    """What one run of a candidate gave.

    Args:
        scores: on the test split.
        also: {further labelled set: scores}.
        cost: as ``resources.measured`` has it.
        transferred: {task or 'mean': Delta_m with transferred layers}; empty where none were transferred.
        layers: hash of the model whose layers those are; None where none are transferred.
        gives: hash of the model file that this run wrote for others to take layers from; None if it wrote none.
        block: as ``Outcome``.
        data: as ``Outcome``.
        encoder_passes: number of networks.
        facts: as ``Outcome``.
    """

    scores: Scores
    also: dict[str, Scores]
    cost: dict[str, Any]
    transferred: dict[str, float]
    layers: str | None
    gives: str | None
    block: str
    data: str
    encoder_passes: int
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON data."""
        also = {name: scores_to_json(scores) for name, scores in self.also.items()}
        return {**vars(self), "scores": scores_to_json(self.scores), "also": also}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> SeedResult:
        """The inverse of ``to_json``, for data that were written and read again.

        Args:
            found: the data; None stands for an undefined number.

        Raises:
            ValueError: scores have another form.
            KeyError, TypeError, AttributeError: so has the rest.
        """
        refuse_misshapen(found, SHAPE, "the result")
        read = {
            "scores": scores_from_json(found["scores"]),
            "also": {name: scores_from_json(scores) for name, scores in found["also"].items()},
            "transferred": {
                task: math.nan if value is None else float(value) for task, value in found["transferred"].items()
            },
        }
        return cls(**{**found, **read})


@dataclass
class MadeWith:
    """What a result depends on.

    Args:
        asked: fingerprint of what the config and the caller ask for, but for the number of seeds.
        settings: {option: value} of the candidate, defaults included.
    """

    asked: str
    settings: Mapping[str, Any]


@dataclass
class SeedStore:
    """The saved results of single seeds, each in a file of its own.

    Args:
        folder: of the files.
    """

    folder: Path

    def read(self, name: str, seed: int, made_with: MadeWith) -> SeedResult | None:
        """Read the result of a seed. Says so if there is a file that does not count.

        Args:
            name: of the candidate.
            seed: of the run.
            made_with: what the result must have been made with.
        """
        path = self._file(name, seed)
        try:
            found = read_sealed(path)
            why = _other(found, made_with)
            if not why:
                return SeedResult.from_json(found["result"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            why = "cannot be read, or is damaged,"
        say(f"{name}, seed {seed}: {path} {why} and does not count; the seed is run again.")
        return None

    def write(self, name: str, seed: int, made_with: MadeWith, result: SeedResult) -> SeedResult:
        """Save the result of a seed.

        Args:
            name: of the candidate.
            seed: of the run.
            made_with: what it was made with.
            result: what to save.

        Returns:
            The result as ``read`` will return it.
        """
        path, settings = self._file(name, seed), to_json(made_with.settings)
        write_sealed(
            path, {"format": SEED_FORMAT, "asked": made_with.asked, "settings": settings, "result": result.to_json()}
        )
        return SeedResult.from_json(read_sealed(path)["result"])

    def _file(self, name: str, seed: int) -> Path:
        return self.folder / name / f"{seed}.json"


def _other(found: Mapping[str, Any], made_with: MadeWith) -> str:
    """Why the content of a file is not what was asked for; empty where it is."""
    if found["format"] != SEED_FORMAT:
        return "is of another version of this package"
    if found["asked"] != made_with.asked:
        return "was made with other options"
    changed = changed_settings(found["settings"], made_with.settings)
    return f"was made with {changed}, by other defaults than today's," if changed else ""
