"""Experts of different first weights: brought into one order of units before they are merged, and their mean as base.

Matched experts are files beside the trained ones. The name holds a fingerprint of all that they depend on: a resumed
run, and every run with the same experts, images and options, reads the same file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process

from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.adaptation.symerge_model import load_expert
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.experts.matching import Matched, Matching, match
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import save_model, state_hash
from symerge_dense.models.kept_files import is_kept
from symerge_dense.models.modes import left_alone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.config import RunConfig, config_hash
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.progress import say

BATCH = 4  # images that activations are kept of at a time


def matched_experts(
    config: RunConfig,
    folder: Path,
    paths: dict[str, Path],
    base: TimmBackbone | None,
    experts: Mapping[str, MultiTaskModel],
    pool: Unlabelled,
    device: torch.device,
) -> dict[str, MultiTaskModel]:
    """The experts with their units in the order of the base, or, without a base, of the first expert.

    Args:
        config: has ``experts.match``.
        folder: of the matched files.
        paths: {task: file of its expert}, changed to the matched ones.
        base: the common base, or None.
        experts: {task: expert}.
        pool: unlabelled images.
        device: where to work.

    Raises:
        ValueError: an expert cannot be matched.
    """
    first = next(iter(experts))
    anchor, title = (experts[first].backbone, f"expert {first}") if base is None else (base, "the base")
    found, options = {}, Matching(**config.experts["match"])
    digest = state_hash(anchor.state_dict())
    for task, expert in experts.items():
        if expert.backbone is anchor:
            found[task] = expert
            continue
        about = dataclasses.asdict(options), state_hash(expert.state_dict()), digest, pool.fingerprint
        path = folder / f"{task}-matched-{config_hash(*about)}.safetensors"
        if is_main_process() and not is_kept(path):
            with explained(f"experts.match, expert {task}"):
                result = _match(expert, anchor, pool, options, device)
            record = {**result.record, "to": title, "file": str(paths[task])}
            save_model(path, expert, {"base_hash": None if base is None else digest, "matched": record})
        barrier()
        paths[task] = path
        found[task], saved = load_expert(path, task)
        _tell(task, saved["matched"], path)
    return found


def _match(
    expert: MultiTaskModel, anchor: TimmBackbone, pool: Unlabelled, options: Matching, device: torch.device
) -> Matched:
    with left_alone([expert, anchor]):
        return match(expert.to(device), anchor.to(device), image_batches(pool, options.images, BATCH, device))


def _tell(task: str, matched: Mapping[str, Any], path: Path) -> None:
    before, after = matched["similarity"], matched["similarity_matched"]
    say(
        f"expert {task}: {matched['moved']} of {matched['units']} units moved to match {matched['to']}, "
        f"similarity {before:.2f} before, {after:.2f} now: {path}"
    )
    if fixed := matched["fixed"]:
        say(f"note: the units of {len(fixed)} layers of expert {task} could not be moved, {fixed[0]} among them.")


@torch.no_grad()
def mean_backbone(experts: Mapping[str, MultiTaskModel]) -> TimmBackbone:
    """The mean of experts' backbones, which their task vectors are taken from where they have no common base.

    Args:
        experts: {task: expert}; counters are those of the first.
    """
    states = [expert.backbone.state_dict() for expert in experts.values()]
    mean = TimmBackbone(**next(iter(experts.values())).backbone.spec)
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
            for name, value in states[0].items()
        }
    )
    return mean
