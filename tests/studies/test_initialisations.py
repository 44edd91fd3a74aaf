"""Where experts of other first weights come from: their bases, their seeds, and what is refused."""

import math

import pytest
from builders.studies import write_study_config

from symerge_dense.models.checkpoint import read_metadata
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.studies.frame.plan import load_plan
from symerge_dense.studies.initialisations import OWN, SEEDS, with_experts

STUDY = 'study = dict(type="initialisations", seeds=1, tasks=["segmentation", "depth"])\n'


def test_experts_start_from_the_bases_that_a_row_names_and_only_what_is_new_is_trained(tmp_path):
    plan, cache = load_plan(str(write_study_config(tmp_path, study=STUDY))), RunCache(tmp_path / "cache")
    runs = {run["label"]: run for run in plan.runs()}
    laboratory = plan.laboratory(runs["symerge, one base"], cache)
    hashes = laboratory.train()
    found = {}
    for start in (SEEDS, OWN):
        there = with_experts(laboratory, start)
        files = there.config.experts["checkpoints"]
        found[start] = [read_metadata(path)["base_hash"] for path in files.values()], there.train()
    bases, models = found[SEEDS]
    assert set(bases) == {hashes["base"]} == {models["base"]} and models["expert depth"] != hashes["expert depth"]
    bases, models = found[OWN]
    assert len(set(bases)) == 2 and bases[0] == hashes["base"] != models["base"]
    numbers = plan.study.measure(laboratory, runs["symerge_coefficients, own bases, matched"])
    assert all(map(math.isfinite, numbers.values())) and {"delta_m", "depth/abs"} <= set(numbers)
    assert laboratory.cost["seconds"] > 0
    kept = sorted(path.stem.rsplit("-", 1)[0] for path in laboratory.store.folder.glob("*.safetensors"))
    assert [name for name in kept if name != "base"] == ["depth"] * 3 + ["depth-matched", "segmentation"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"base.checkpoint": "base.pth"}, r"base\.checkpoint: .* Give base\.train"),
        ({"base.pretrained": True}, r"base\.pretrained: .* base\.random_init=True"),
        ({"study.tasks": ["depth"]}, r"tasks=\['depth'\]: .* take two or more"),
    ],
)
def test_weights_that_are_not_trained_here_and_a_single_task_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_plan(str(write_study_config(tmp_path, study=STUDY)), overrides=changes)
