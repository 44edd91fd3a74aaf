"""A comparison in a folder of its own, on this machine or on those of a cluster.

Every run on a cluster saves its seed or its row in the folder, where the comparison finds it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symerge_dense.engine.fan_out import check_place, each
from symerge_dense.pipeline import run_dir
from symerge_dense.pipeline.comparison.comparison import Comparison
from symerge_dense.pipeline.comparison.methods import Adaptive, Candidate
from symerge_dense.pipeline.config import RunConfig
from symerge_dense.pipeline.run_lock import alone_in
from symerge_dense.progress import Bar, console, silent
from symerge_dense.report.comparison_files import FILES, print_comparison

_open: dict[Path, tuple[str | None, Comparison]] = {}  # of this process: base, experts and data are read once


def compare_methods(
    config: RunConfig, work_dir: str | None = None, resume: bool = False, on: str | None = None, **how: Any
) -> dict[str, Any]:
    """Run a comparison in a folder of its own and print its table.

    Args:
        config: base, experts, data, and the options of adaptation and BatchNorm.
        work_dir: the folder; None takes a new one, or with ``resume`` the newest.
        resume: keep the rows and seeds that the folder holds. A complete comparison is only shown; ``methods`` adds to
            the table.
        on: 'ray' or 'ray:ADDRESS': what is missing is run on the machines of a cluster, which share the folders; the
            rows are the same. None runs it here.
        **how: further fields of ``Comparison``.

    Returns:
        The content of compare.json.

    Raises:
        ValueError: as ``Comparison``, ``run_dir.choose`` and ``run_dir.open_run`` raise it.
    """
    if on is not None:
        check_place(on)
    named = dataclasses.replace(config, name=f"{config.name}_compare")
    folder = run_dir.open_run(run_dir.choose(named, work_dir, resume), config, resume)
    with alone_in(folder), run_dir.abandoned(folder, keep=resume):
        comparison = Comparison(config, folder, **how)
        if on is not None:
            spread(comparison, on)
        record = comparison.run()
    print_comparison(record, console)
    console.print(f"In {folder}: {', '.join(FILES)}")
    return record


# -- on the machines of a cluster -------------------------------------------------------------------------------------
def spread(comparison: Comparison, on: str) -> None:
    """Make what is missing of a comparison on a cluster, each seed of each method by itself.

    The method whose adapted layers are transferred comes first, as the others try them. What fails there is left out,
    and made by the comparison itself.

    Args:
        comparison: what is asked for.
        on: as for ``fan_out.each``.
    """
    comparison.enter(comparison.candidates[0])  # the experts
    missing = _missing(comparison)
    for candidate in {candidate.name: candidate for candidate, _ in missing}.values():
        if isinstance(candidate, Adaptive):
            candidate.prepare(comparison.models)  # the experts' labels, which all machines read
    fields = ("methods", "options", "criterion", "seeds", "adapted_from")
    how = {"train_experts": False, **{name: getattr(comparison, name) for name in fields}}
    work = functools.partial(_make, comparison.config, comparison.folder.absolute(), how)
    for gives in (True, False):
        items = [(one.name, seed) for one, seed in missing if comparison.gives(one.name) == gives]
        with Bar("runs on the cluster", len(items)) as bar:
            for label in each(work, items, on=on):
                bar.advance(label)


def _missing(comparison: Comparison) -> list[tuple[Candidate, int]]:
    """The runs that the comparison would do, references apart: each seed, and methods without chance once."""
    found = []
    for candidate in comparison.candidates:
        if candidate.block == "reference" or candidate.name not in (comparison.methods or [candidate.name]):
            continue
        row, seeds = comparison.saved_row(candidate), comparison.seeds_of(candidate)
        if row is None or not comparison.is_whole(candidate, row):
            known = comparison.measurement(candidate).saved_seeds(candidate, seeds, comparison.made_with(candidate))
            found += [(candidate, seed) for seed in seeds if seed not in known]
    return found


def _make(config: RunConfig, folder: Path, how: Mapping[str, Any], name: str, seed: int) -> str:
    """Run a method, or a seed of it, and save what it gave. One that fails saves nothing."""
    with silent():
        one = _comparison(config, folder, how)
        candidate = next(candidate for candidate in one.candidates if candidate.name == name)
        measurement, made_with = one.measurement(candidate), one.made_with(candidate)
        try:
            if candidate.random:
                measurement.save(candidate, seed, one.seeds_of(candidate), made_with)
            else:
                one.settle(candidate)
        except Exception as error:
            return f"{name}, seed {seed}: {type(error).__name__}, will be tried here"
    return f"{name}, seed {seed}"


def _comparison(config: RunConfig, folder: Path, how: Mapping[str, Any]) -> Comparison:
    """The comparison in this process; another one where the layers to transfer have changed."""
    layers, found = _open.get(folder, (None, None))
    if found is None or layers != found.head_donor.hash:
        found = Comparison(config, folder, **how)
        experts = found.saved_row(found.candidates[0])
        if experts is None:
            raise ValueError(f"{folder} has no row of the experts; run the comparison again with --resume.")
        found.rows[experts["method"]] = experts
        _open[folder] = found.head_donor.hash, found
    return found
