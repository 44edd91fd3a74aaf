"""Planted results of studies, and a study at its smallest: tiny rooms, two tasks, four rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builders.pipeline_tiny import write_config
from symerge_dense.studies.frame.study import Measured

STUDY = """
study = dict(type="parts", seeds=1, tasks=["segmentation", "depth"])
quick = {"adaptation.rounds": 2, "study.seeds": 2}
"""


def write_study_config(folder, name="tiny_study.py", study=STUDY):
    """The config of a study in ``folder``; its rooms and experts are kept there, too."""
    return write_config(folder, name, study)


def planted(numbers: Mapping[str, Mapping[str, Sequence[float]]], **more) -> list[Measured]:
    """Runs with planted numbers: {label: {name of the number: one value per seed}}, with further keys of every run."""
    found = []
    for label, columns in numbers.items():
        for seed in range(max(map(len, columns.values()))):
            values = {name: column[seed] for name, column in columns.items() if seed < len(column)}
            found.append(Measured({"label": label, "seed": seed, **more}, values))
    return found


def deltas(means: Mapping[str, float], spread: float = 0.1, seeds: int = 3) -> list[Measured]:
    """Runs whose Delta_m has a planted mean, and over seeds a planted spread that differs from label to label."""
    return planted(
        {
            label: {"delta_m": [mean + spread * ((seed + place) % 3 - 1) for seed in range(seeds)]}
            for place, (label, mean) in enumerate(means.items())
        }
    )
