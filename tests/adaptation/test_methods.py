"""What holds for every adaptive method: the contract, walked over the registry."""

import copy
import dataclasses
import inspect

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adaptive_runs import NAMES, ROUNDS, again, once, setting, shared
from torch.utils.data import DataLoader, default_collate

from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.adaptation.method import OptionVariant
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.models.batchnorm import recalibrate, statistics
from symerge_dense.registry import ADAPTIVE_METHODS

DISTILLING = [name for name in NAMES if not name.startswith("adamerging") and name != "prodistill"]  # see its own test
each = pytest.mark.parametrize("name", NAMES)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_all_methods_and_controls_are_there():
    assert set(NAMES) >= {
        "symerge",
        "symerge_coefficients",
        "symerge_layer",
        "layer_on_base",
        "head_distillation",
        "full_distillation",
        "adamerging_task",
        "adamerging",
        "adamerging_pp",
        "surgery",
        "prodistill",
        "simo_representation",
    }


@each
def test_a_method_says_what_it_is(name):
    method = ADAPTIVE_METHODS[name]
    assert method.name == name and method.__doc__ and inspect.getmodule(method).__doc__
    assert method.paper.startswith("https://") and 0 < len(method.learns) < 60 and 0 < len(method.title) < 40
    assert isinstance(method().hyperparameters, dict)
    assert len({ADAPTIVE_METHODS[other].title for other in NAMES}) == len(NAMES)


@each
def test_the_result_can_be_evaluated_and_has_a_curve(name):
    adapted = once(name)
    scores = evaluate(adapted.model, DataLoader(tiny.TinySet(tiny.tasks(), count=4), 2, collate_fn=default_collate), "")
    assert list(scores) == list(tiny.tasks())
    assert all(
        np.isfinite(scores[task][metric].value)
        for task, metric in (("segmentation", "pixel_accuracy"), ("depth", "abs"), ("normals", "mean"))
    )
    (predicted,) = adapted.model(torch.rand(1, 3, *tiny.SIZE) * 255, mode="predict")
    assert {task: tuple(value.shape) for task, value in predicted.items()} == {
        "segmentation": (4, *tiny.SIZE),
        "depth": (1, *tiny.SIZE),
        "normals": (3, *tiny.SIZE),
    }
    assert not adapted.model.training and not any(p.requires_grad for p in adapted.model.parameters())
    assert [row["iteration"] for row in adapted.history] == list(range(ROUNDS))
    assert all(np.isfinite(value) for row in adapted.history for value in row.values())
    assert not list(shared().work_dir.rglob("*.pth"))


@each
def test_a_second_run_is_the_first_reads_no_target_and_leaves_base_and_experts_alone(name):
    given, first = shared(), once(name)
    modules = {"base": given.base, **given.experts}
    for expert in given.experts.values():
        expert.train(name == "surgery")  # a mode to find again
    before = {key: (copy.deepcopy(whole.state_dict()), flags(whole)) for key, whole in modules.items()}
    tiny.TinySet.targets_read.clear()
    second = again(name)
    assert not tiny.TinySet.targets_read
    assert same(first.model.state_dict(), second.model.state_dict()) and first.history == second.history
    for key, whole in modules.items():
        assert same(before[key][0], whole.state_dict()) and before[key][1] == flags(whole)
        whole.eval()


def flags(model):
    return [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("name", ["symerge", "surgery"])
def test_another_seed_is_another_run(name):
    assert not same(once(name).model.state_dict(), again(name, seed=4).model.state_dict())


def test_experts_are_asked_for_labels_once_for_all_methods():
    once("symerge")
    labels = shared().work_dir / "labels"
    written = {path.name: path.stat().st_mtime_ns for path in labels.iterdir()}
    assert set(written) == {f"{task}.{kind}" for task in tiny.tasks() for kind in ("npy", "json")}
    for name in ("head_distillation", "adamerging"):
        again(name)
    assert written == {path.name: path.stat().st_mtime_ns for path in labels.iterdir()}


@each
def test_extra_parameters_are_those_of_the_adapters(name):
    one = sum(2 * min(16, width) * width for width in tiny.CNN["channels"])  # as many levels as blocks
    extra = {"surgery": len(tiny.tasks()) * one, "simo_representation": one}
    assert once(name).extra_parameters == extra.get(name, 0)


@each
def test_batchnorm_is_re_estimated_on_the_pool(name):
    model = once(name).model
    fresh = copy.deepcopy(model)
    for value in statistics(fresh):
        value.fill_(0.5)
    recalibrate(fresh, image_batches(shared().pool, 8, 4, torch.device("cpu")))
    assert len(statistics(fresh)) > 20
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), statistics(fresh), strict=True))


@pytest.mark.parametrize("name", ["symerge_layer", "simo_representation", "prodistill"])
def test_batchnorm_follows_the_policy_on_weights_too(tmp_path, name):
    given = setting(tmp_path, batchnorm="mean", rounds=2)
    model = ADAPTIVE_METHODS[name]().run(given).model
    key = "body.bn1.running_var"
    mean = torch.stack([expert.backbone.state_dict()[key] for expert in given.experts.values()]).mean(0)
    torch.testing.assert_close(model.backbone.state_dict()[key], mean)
    for task, expert in given.experts.items():
        own, found = (whole.heads[task].state_dict()["norm.running_var"] for whole in (expert, model))
        assert torch.equal(own, found)


@pytest.mark.parametrize("name", DISTILLING)
def test_distilling_lowers_the_distance_or_keeps_it(name):
    rows = once(name).history
    first, last = (
        {task: np.mean([row[f"distance_{task}"] for row in part]) for task in tiny.tasks()}
        for part in (rows[: ROUNDS // 2], rows[ROUNDS // 2 :])
    )  # the whole pool, twice
    assert np.mean([last[task] / first[task] for task in first]) < 1.01


@each
def test_rounds_and_batch_are_the_settings(name):
    student = ADAPTIVE_METHODS[name]().student(shared())
    for kept in ("rounds", "batch_size", "statistics", "batchnorm", "recalibration_images", "soft", "amp"):
        assert getattr(student.options, kept) == getattr(shared().options, kept)
    assert student.parameter_groups() and all(group["weight_decay"] == 0 for group in student.parameter_groups())
    listed = {id(p) for group in student.parameter_groups() for p in group["params"]}
    assert listed == {id(p) for p in student.parameters() if p.requires_grad}


def test_controls_differ_from_symerge_in_what_they_control_alone():
    given = setting("unused", rounds=7, layer_lr=5e-3, balance="none", soft=False, schedule="per_task")
    for name, changed in {
        "symerge": set(),
        "symerge_coefficients": {"learn_layer"},
        "symerge_layer": {"learn_coefficients"},
        "layer_on_base": {"learn_coefficients", "initial", "clamp"},
        "head_distillation": {"learn_coefficients", "layer", "layer_lr"},
    }.items():
        asked = dataclasses.asdict(given.options)
        found = dataclasses.asdict(ADAPTIVE_METHODS[name]().options(given))
        assert {key for key in asked if asked[key] != found[key]} == changed


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"type": "symerge", "coeficient_lr": 1}, "Did you mean 'coefficient_lr'"),
        ({"type": "adamerging", "rounds": 0}, "rounds=0"),
        ({"type": "surgery", "rank": 0}, "surgery: rank is 0; it must be an integer of at least 1"),
        ({"type": "surgery", "lr": 0}, r"surgery: lr is 0; it must lie in \(0, inf\)"),
        ({"type": "simo_representation", "head_lr": -1}, "simo_representation: head_lr is -1"),
        ({"type": "full_distillation", "backbone_lr": "fast"}, "backbone_lr is 'fast'"),
        ({"type": "prodistill", "lr": float("nan")}, "prodistill: lr is nan"),
        ({"type": "surgerie"}, "unknown adaptive method 'surgerie'. Did you mean 'surgery'"),
    ],
)
def test_arguments_out_of_range_are_refused(spec, told):
    with pytest.raises(ValueError, match=told):
        ADAPTIVE_METHODS.build(spec).student(shared())


def test_overrides_reach_the_options():
    method = ADAPTIVE_METHODS.build({"type": "adamerging", "coefficient_lr": 0.5, "rounds": 2})
    assert method.options(shared()).coefficient_lr == 0.5 and method.options(shared()).objective == "entropy"
    assert method.hyperparameters == {"coefficient_lr": 0.5, "rounds": 2}


def test_a_student_of_ones_own_is_the_one_that_runs(tmp_path):
    """Also where files would let the method run from a plain config."""

    class Mine(OptionVariant):
        name, title, learns, paper = "mine", "Mine", "nothing new", "https://example.org"

        def student(self, context):
            raise LookupError("mine was asked")

    context = dataclasses.replace(setting(tmp_path), files={"base": "b", "experts": {}, "pool": {}})
    assert Mine().described(context) is None
    with pytest.raises(LookupError, match="mine was asked"):
        Mine().run(context)
    assert ADAPTIVE_METHODS["symerge"]().described(context)["tasks"] == list(context.experts)
