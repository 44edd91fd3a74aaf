"""What holds for every adaptive method: the contract, walked over the registry."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adaptive_runs import NAMES, ROUNDS, again, once, runs, setting, shared

from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.adaptation.label_cache import labels_folder
from symerge_dense.adaptation.method import OptionVariant
from symerge_dense.models.batchnorm import recalibrate, statistics
from symerge_dense.models.views import Views
from symerge_dense.registry import ADAPTIVE_METHODS
from symerge_dense.testing.adaptive_methods import ADAPTIVE_CHECKS

OWN_TEST = {"prodistill", "samerging"}
DISTILLING = [name for name in NAMES if not name.startswith("adamerging") and name not in OWN_TEST]
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
        "frank_wolfe",
        "samerging",
        "prob_surgery",
        "surgery_v2",
        "adarank",
    }


@pytest.mark.parametrize("check", ADAPTIVE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@each
def test_contract(name, check):
    check(runs(name))


def test_titles_differ():
    assert len({ADAPTIVE_METHODS[name].title for name in NAMES}) == len(NAMES)


def test_experts_in_training_mode_are_found_in_it_again():
    experts = shared().experts.values()
    for expert in experts:
        expert.train()
    before = [module.training for expert in experts for module in expert.modules()]
    assert same(once("surgery").model.state_dict(), again("surgery").model.state_dict())
    assert [module.training for expert in experts for module in expert.modules()] == before
    for expert in experts:
        expert.eval()


@pytest.mark.parametrize("name", ["symerge", "surgery"])
def test_another_seed_is_another_run(name):
    assert not same(once(name).model.state_dict(), again(name, seed=4).model.state_dict())


def test_experts_are_asked_for_labels_once_for_all_methods():
    once("symerge")
    folder, views = shared().work_dir / "labels", Views.of(shared().options.views)
    labels = labels_folder(folder, views)
    written = {path: path.stat().st_mtime_ns for path in labels.iterdir()}
    arrays = ("npy",) if views is None else ("npy", "variance.npy")
    kinds = ("json", *arrays, *(f"{kind}.crc32" for kind in arrays))
    assert {path.name for path in written} == {f"{task}.{kind}" for task in tiny.tasks() for kind in kinds}
    before = sorted(folder.iterdir())
    for name in ("head_distillation", "adamerging"):
        again(name)
    assert written == {path: path.stat().st_mtime_ns for path in labels.iterdir()}
    assert sorted(folder.iterdir()) == before, "other methods learn from other labels"


@each
def test_extra_parameters_are_those_of_the_adapters(name):
    one, wide = (sum(2 * min(rank, width) * width for width in tiny.CNN["channels"]) for rank in (16, 128))
    tasks = len(tiny.tasks())  # as many levels as blocks
    extra = {
        "surgery": tasks * one,
        "surgery_v2": 2 * tasks * one,
        "prob_surgery": tasks * wide,
        "simo_representation": one,
    }
    assert once(name).extra_parameters == extra.get(name, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if "statistics" not in ADAPTIVE_METHODS[name].changes])
def test_batchnorm_is_that_of_the_network_that_a_method_starts_from(name):
    start, model = ADAPTIVE_METHODS[name]().start(shared()), once(name).model
    assert len(statistics(start)) > 20
    assert all(torch.equal(a, b) for a, b in zip(statistics(start), statistics(model), strict=True))


@pytest.mark.parametrize("name", ["symerge", "prodistill"])
def test_batchnorm_of_the_batch_is_re_estimated_on_the_pool(tmp_path, name):
    model = ADAPTIVE_METHODS[name]().run(setting(tmp_path, statistics="batch", rounds=2)).model
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


def test_controls_differ_from_symerge_in_what_they_control_alone():
    given = setting(
        "unused", rounds=7, clamp=(0.0, 1.0), layer_lr=5e-3, balance="none", soft=False, schedule="per_task"
    )
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
        ({"type": "surgery_v2", "rank": 0}, "surgery_v2: rank is 0; it must be an integer of at least 1"),
        ({"type": "prob_surgery", "kl_weight": -1}, r"prob_surgery: kl_weight is -1; it must lie in \[0, inf\)"),
        ({"type": "adarank", "ranks": 3}, "unknown option of adarank 'ranks'"),
        ({"type": "surgery", "lr": 0}, r"surgery: lr is 0; it must lie in \(0, inf\)"),
        ({"type": "simo_representation", "head_lr": -1}, "simo_representation: head_lr is -1"),
        ({"type": "full_distillation", "backbone_lr": "fast"}, "backbone_lr is 'fast'"),
        ({"type": "prodistill", "lr": float("nan")}, "prodistill: lr is nan"),
        ({"type": "frank_wolfe", "step": 0}, r"frank_wolfe: step is 0; it must lie in \(0, 1\]"),
        ({"type": "frank_wolfe", "iterations": 0}, "frank_wolfe: iterations is 0; it must be an integer of at least 1"),
        ({"type": "frank_wolfe", "granularity": "block"}, "unknown granularity of frank_wolfe 'block'"),
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
