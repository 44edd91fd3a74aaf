"""What each study measures runs on tiny rooms, and its picture is drawn: nothing of it fails after hours."""

import math

import pytest
from builders.studies import write_study_config

from symerge_dense.datasets.corrupted import Corrupted
from symerge_dense.datasets.long_tailed import LongTailed
from symerge_dense.registry import STUDIES
from symerge_dense.studies.cross_task_layer import GAIN as CROSS_GAIN
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.studies.frame.costs import costs_by_label
from symerge_dense.studies.frame.execution import _alone
from symerge_dense.studies.frame.plan import load_plan
from symerge_dense.studies.frame.study import Measured
from symerge_dense.studies.pilot import BATCHNORM
from symerge_dense.studies.transfer import GAIN

TASKS = ["segmentation", "depth", "normals"]
RUNS = {
    "self_labels": ["entropy, segmentation+depth+normals, rates x1, 50 rounds"],
    "pilot": ["encoder of depth", "segmentation + depth"],
    "unlabelled_images": ["1 image"],
    "teachers": ["cross-task", "merged by average"],
    "layers": ["laterals.0"],
    "transfer": ["average"],
    "worse_experts": ["symerge, one broken expert"],
    "linearity": ["average"],
    "scaling": ["iso_c, 2 tasks"],
    "cross_task_layer": ["depth > segmentation"],
    "corruptions": ["symerge, noise 5"],
    "shifts": ["task_arithmetic, dim light", "task_arithmetic, long tail"],
}
"""{study: labels of the runs that are tried}: those that no comparison makes."""
ARGUMENTS = {
    "teachers": {"merged_by": ["average"]},
    "unlabelled_images": {"counts": [1, 6], "few": 1, "enough": 6},
    "scaling": {"counts": [2, 3]},
}
STUDY = "study = dict(type={name!r}, seeds=1, **{arguments!r})\nadaptation.update(rounds=2, batch_size=3)\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("measures")


def planned(home, name):
    text = STUDY.format(name=name, arguments=ARGUMENTS.get(name, {}))
    plan = load_plan(str(write_study_config(home, f"{name}.py", text)))
    if name == "corruptions":
        for split in ("unlabelled", "test"):
            clean = plan.values["data"][split]
            plan.values["data"][split] = {"type": Corrupted, "dataset": clean, "corruption": "none"}
    if name == "shifts":
        whole = {"type": LongTailed, "dataset": plan.values["data"]["unlabelled"], "exponent": 0.0}
        plan.values["data"]["unlabelled"] = {"type": Corrupted, "dataset": whole, "corruption": "none", "severity": 5}
    return plan


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_measured(home, name):
    plan, cache = planned(home, name), RunCache(home / "cache")
    runs = {run["label"]: run for run in plan.runs()}
    for label in RUNS[name]:
        run = runs[label]
        if "rounds" in run:
            run = {**run, "options": {**run["options"], "rounds": 2}}
        laboratory = plan.laboratory(run, cache)
        with _alone(0):
            hashes = laboratory.train()
            numbers = plan.study.measure(laboratory, run)
        assert "method" not in run or laboratory.cost["seconds"] > 0
        assert cache.file(plan.study.experiment, laboratory.asked(run, hashes)).name
        assert numbers and all(map(math.isfinite, numbers.values())), numbers


def numbers_of(run):
    """Everything that any study measures, planted."""
    levels = {f"{what}, level {level}": 0.9 for what in ("cosine", "error") for level in range(4)}
    losses = {f"{what} loss, {task}": value for what, value in (("merged", 1.0), ("cross-task", 1.1)) for task in TASKS}
    shares = {f"{task}{end}": 0.5 + len(run["label"] + task) % 7 / 20 for end in BATCHNORM for task in TASKS}
    deltas = {f"delta_m/{task}": -2.0 for task in run.get("tasks", TASKS)}
    return {"delta_m": -2.0, **deltas, GAIN: 1.0, CROSS_GAIN: 2.0, **levels, **losses, **shares}


@pytest.mark.parametrize("name", STUDIES)
def test_a_picture_is_drawn_of_the_whole_grid(tmp_path, name):
    study = STUDIES[name](**ARGUMENTS.get(name, {}))
    runs = [{**run, "seed": seed} for seed in range(2) for run in study.grid(TASKS)]
    measured = [Measured(run, numbers_of(run)) for run in runs]
    study.draw(tmp_path / "study.png", measured, study.verdict(measured))
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_scaling_draws_what_its_methods_cost(tmp_path):
    study = STUDIES["scaling"](counts=[2, 3])
    costs = {"runs": [run | {"method_seconds": 2.0, "peak_memory_mb": 900.0} for run in study.grid(TASKS)]}
    study.draw_costs(tmp_path / "costs.png", costs_by_label(costs))
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")
