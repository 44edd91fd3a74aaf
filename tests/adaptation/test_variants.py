"""Options at work: what each of them changes in a run, and that the `paper` preset goes through."""

import math

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny, state
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from symerge_dense.adaptation.adapt import learning_rates
from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel


def curve(folder):
    """The rows of the run in ``folder``; every number in them is finite."""
    rows = read_history(folder / "history.jsonl")
    assert all(np.isfinite(value) for row in rows for value in row.values())
    return rows


def served(row):
    return [key.removeprefix("distance_") for key in row if key.startswith("distance_")]


def changed_parameters(model):
    """Names of the heads' parameters that a run moved."""
    before = dict(tiny.family()[2].named_parameters())
    return {
        name
        for name, value in model.model.named_parameters()
        if name.startswith("heads") and not torch.equal(value, before[name])
    }


def test_the_paper_preset_runs(tmp_path):
    model, _ = adapt_tiny(tmp_path, preset="paper", rounds=2, batch_size=4)
    rows = curve(tmp_path)
    assert model.options.amp and not model.options.soft and model.options.filter == "confidence"
    assert [len(served(row)) for row in rows] == [1] * 6
    assert all({task for row in part for task in served(row)} == set(tiny.tasks()) for part in (rows[:3], rows[3:]))
    assert all(torch.isfinite(value).all() for value in state(model).values())
    coefficients = model.merge.coefficients.detach()
    assert coefficients.min() >= 0 and coefficients.max() <= 1 and (coefficients - 0.3).abs().max() > 5e-3
    for task, output in model.eval().outputs(torch.rand(2, 3, *tiny.SIZE) * 255).items():
        assert output.dtype == torch.float32 and output.isfinite().all(), task


def test_mixed_precision_alone_rounds_and_changes_little(tmp_path):
    full, _ = adapt_tiny(tmp_path / "full", rounds=3, coefficient_lr=3e-2)
    mixed, _ = adapt_tiny(tmp_path / "mixed", rounds=3, coefficient_lr=3e-2, amp=True)
    first = [curve(tmp_path / name)[0] for name in ("full", "mixed")]
    for task in tiny.tasks():
        exact, rounded = (row[f"distance_{task}"] for row in first)
        assert exact != rounded and rounded == pytest.approx(exact, rel=0.1)
    assert mixed.merge.coefficients.dtype == torch.float32
    assert all(value.isfinite().all() for value in state(mixed).values())
    assert (full.merge.coefficients - mixed.merge.coefficients).abs().mean() < 0.02


def test_task_weights_multiply_the_scale_of_the_losses(tmp_path):
    raw, _ = adapt_tiny(tmp_path / "raw", rounds=1, balance="none", task_weights={"depth": 3.0})
    assert raw.loss_scale.tolist() == [1, 3, 1]
    row = curve(tmp_path / "raw")[0]
    assert row["loss_depth"] == pytest.approx(3 * row["distance_depth"], rel=1e-5)
    assert row["loss_normals"] == pytest.approx(row["distance_normals"], rel=1e-5)
    even, _ = adapt_tiny(tmp_path / "even", rounds=1, balance="initial")
    assert all(curve(tmp_path / "even")[0][f"loss_{task}"] == pytest.approx(1, abs=0.5) for task in tiny.tasks())
    weighted, _ = adapt_tiny(
        tmp_path / "weighted", rounds=1, balance="initial", task_weights={"segmentation": 0.5, "depth": 3.0}
    )
    torch.testing.assert_close(weighted.loss_scale, even.loss_scale * torch.tensor([0.5, 3.0, 1.0]))


def test_logarithms_of_losses_are_what_a_step_adds(tmp_path):
    model, _ = adapt_tiny(tmp_path, rounds=1, balance="log", task_weights={"depth": 3.0})
    assert model.loss_scale.tolist() == [1, 3, 1]
    row = curve(tmp_path)[0]
    for task, factor in {"segmentation": 1, "depth": 3, "normals": 1}.items():
        assert row[f"loss_{task}"] == pytest.approx(factor * math.log(row[f"distance_{task}"]), rel=1e-5)


def test_granularity_is_the_number_of_coefficients(tmp_path):
    groups = {}
    for granularity in ("tensor", "block", "task"):
        model, _ = adapt_tiny(tmp_path / granularity, rounds=3, granularity=granularity)
        curve(tmp_path / granularity)
        groups[granularity] = len(model.merge.coefficients)
        assert (model.merge.coefficients - 0.3).abs().max() > 1e-2
    parameters = len(list(tiny.backbone().named_parameters()))
    assert groups["task"] == 1 < groups["block"] < groups["tensor"] <= parameters


@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT], ids=["CNN", "VIT"])
@pytest.mark.parametrize("granularity", ["channel", "singular"])
def test_finer_coefficients_are_folded_into_a_network_of_the_same_size(tmp_path, granularity, spec):
    options = {"rounds": 3, "granularity": granularity, "singular_rank": 4, "clamp": None, "coefficient_lr": 0.1}
    model, _ = adapt_tiny(tmp_path, spec=spec, **options)
    (first, *_) = curve(tmp_path)
    merged = model.merge(tiny.backbone(spec).state_dict())
    for name, value in model.model.backbone.named_parameters():
        torch.testing.assert_close(value, merged[name])
        assert value.is_contiguous()
    assert {name: value.shape for name, value in state(model).items()}["merge.coefficients"][0] > len(
        model.merge.groups
    )
    ranges = model.merge.ranges()
    assert any(high > low for pairs in ranges.values() for low, high in pairs)
    assert first["coefficient_mean_depth"] == pytest.approx(0.3, abs=0.11)


def test_coefficients_that_do_not_learn_need_no_finer_ones(tmp_path):
    base, experts, _ = tiny.family()
    for granularity in ("channel", "singular"):
        options = make_options(granularity=granularity, learn_coefficients=False)
        assert SyMergeModel(base, experts, options).merge.ranges() == {}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("final", {"predict.weight", "predict.bias"}),
        ("pre_final", {"conv.weight", "norm.weight", "norm.bias"}),
        ("laterals.1", {"laterals.1.weight", "laterals.1.bias"}),
    ],
)
def test_the_named_layer_of_each_head_moves_and_no_other(tmp_path, layer, expected):
    model, _ = adapt_tiny(tmp_path, rounds=2, layer=layer)
    curve(tmp_path)
    assert changed_parameters(model) == {f"heads.{task}.{name}" for task in tiny.tasks() for name in expected}


@pytest.mark.parametrize("half", ["learn_coefficients", "learn_layer"])
def test_one_half_can_be_switched_off(tmp_path, half):
    model, _ = adapt_tiny(tmp_path, rounds=2, **{half: False})
    assert bool(changed_parameters(model)) == (half == "learn_coefficients")
    assert bool((model.merge.coefficients != 0.3).any()) == (half == "learn_layer")


def test_coefficients_leave_the_interval_only_without_clamp(tmp_path):
    for name, clamp in (("free", None), ("kept", (0.2, 0.4))):
        model, _ = adapt_tiny(tmp_path / name, rounds=4, coefficient_lr=0.5, clamp=clamp)
        curve(tmp_path / name)
        lowest, highest = model.merge.coefficients.min().item(), model.merge.coefficients.max().item()
        if clamp is None:
            assert lowest < 0 and highest > 1
        else:
            assert (lowest, highest) == pytest.approx(clamp)


def test_hard_labels_are_another_objective_for_classes_only(tmp_path):
    for name, soft in (("soft", True), ("hard", False)):
        adapt_tiny(tmp_path / name, rounds=20, soft=soft, balance="none", coefficient_lr=3e-2, lr_decay="none")
    soft, hard = curve(tmp_path / "soft"), curve(tmp_path / "hard")
    assert hard[0]["loss_segmentation"] > soft[0]["loss_segmentation"]  # the soft one is a divergence: no entropy in it
    for task in ("depth", "normals"):
        assert hard[0][f"loss_{task}"] == pytest.approx(soft[0][f"loss_{task}"], rel=1e-5)
    first, last = (np.mean([row["loss_segmentation"] for row in part]) for part in (hard[:3], hard[-3:]))
    assert last < first


@pytest.mark.parametrize("options", [{}, {"schedule": "per_task", "amp": True, "granularity": "channel"}])
def test_sharpness_takes_the_gradient_nearby_from_the_same_start(tmp_path, options):
    plain, _ = adapt_tiny(tmp_path / "plain", rounds=2, **options)
    sharp, _ = adapt_tiny(tmp_path / "sharp", rounds=2, sharpness=0.3, **options)
    first, other = curve(tmp_path / "plain")[0], curve(tmp_path / "sharp")[0]
    assert {key: first[key] for key in first if "distance" in key} == {
        key: other[key] for key in other if "distance" in key
    }
    assert not torch.equal(plain.merge.coefficients, sharp.merge.coefficients)
    assert all(value.isfinite().all() for value in state(sharp).values())


def rates(options, steps, start=1.0):
    """The learning rate of every step, by MMEngine's own schedulers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=start)
    schedulers = [PARAM_SCHEDULERS.build({**one, "optimizer": optimizer}) for one in learning_rates(options, steps)]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(found)


def test_rates_rise_over_the_warmup_and_fall_to_zero_at_the_end():
    steps = np.arange(20)
    falls = {"none": 0 * steps + 1.0, "linear": 1 - steps / 20, "cosine": (1 + np.cos(np.pi * steps / 20)) / 2}
    for decay, expected in falls.items():
        assert rates(make_options(rounds=20, warmup=0.0, lr_decay=decay), 20) == pytest.approx(expected, abs=1e-6)
    late = np.arange(16)
    falls = {"none": 0 * late + 1.0, "linear": 1 - late / 16, "cosine": (1 + np.cos(np.pi * late / 16)) / 2}
    for decay, expected in falls.items():
        found = rates(make_options(rounds=10, warmup=0.2, lr_decay=decay, schedule="per_task"), 20)
        assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8]) and found[4:] == pytest.approx(expected, abs=1e-6)
