"""Averages of what learns: their formula, their place in a run, and what interruptions and validation leave alone."""

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny, state
from torch import nn

from symerge_dense.adaptation.averaging import WeightAverage
from symerge_dense.adaptation.history import read_history
from symerge_dense.engine.checkpointing import checkpoints
from symerge_dense.registry import ADAPTIVE_METHODS
from symerge_dense.testing.adaptive_methods import tiny_context

AVERAGED = {"averaging": "swa", "averaging_start": 0.5, "lr_decay": "none"}


def walked(decay, steps=8):
    """An average over a walk of one parameter, and the parameter's states."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(3))
    average, seen = WeightAverage({"head.weight": parameter}, decay), []
    for _ in range(steps):
        parameter.data.add_(torch.randn(3))
        average.update()
        seen.append(parameter.detach().double())
    return average, parameter, torch.stack(seen)


def test_swa_is_the_mean_of_all_states():
    average, _, seen = walked(decay=1.0)
    torch.testing.assert_close(average.get_buffer("head/weight").double(), seen.mean(0), rtol=0, atol=1e-6)


def test_ema_is_the_mean_at_first_and_forgets_later():
    average, _, seen = walked(decay=0.75)
    expected = seen[:4].mean(0)
    for value in seen[4:]:
        expected = 0.75 * expected + 0.25 * value
    torch.testing.assert_close(average.get_buffer("head/weight").double(), expected, rtol=0, atol=1e-6)


def test_exchanging_twice_is_nothing_and_checkpoints_hold_the_mean():
    average, parameter, seen = walked(decay=1.0)
    last = parameter.detach().clone()
    average.exchange()
    torch.testing.assert_close(parameter.detach().double(), seen.mean(0), rtol=0, atol=1e-6)
    average.exchange()
    assert torch.equal(parameter, last) and set(average.state_dict()) == {"head/weight", "count"}
    fresh = WeightAverage({"head.weight": parameter}, 1.0)
    assert not fresh.begun
    fresh.load_state_dict(average.state_dict())
    assert fresh.begun and int(fresh.count) == 8


# -- in a run ---------------------------------------------------------------------------------------------------------
def test_the_merged_model_is_the_average_over_the_last_part(tmp_path):
    model, _ = adapt_tiny(tmp_path, **AVERAGED)
    rows = read_history(tmp_path / "history.jsonl")[6:]
    means = model.merge.means().mean(0).tolist()
    for task, found in zip(model.model.tasks, means, strict=True):
        assert found == pytest.approx(np.mean([row[f"coefficient_mean_{task}"] for row in rows]), abs=1e-6)
        assert found != pytest.approx(rows[-1][f"coefficient_mean_{task}"], abs=1e-6)
    merged = model.merge(tiny.backbone().state_dict())
    for name, value in model.model.backbone.named_parameters():
        torch.testing.assert_close(value, merged[name])
    assert not [name for name in state(model) if name.startswith("average")]  # what it was made of has gone


@pytest.mark.parametrize("name", ["symerge", "full_distillation", "simo_representation"])
def test_an_average_over_the_last_step_alone_is_none(tmp_path, name):
    ends = [
        ADAPTIVE_METHODS[name]()
        .run(tiny_context(tmp_path / kind, rounds=3, averaging=kind, averaging_start=0.99))
        .model
        for kind in ("none", "ema")
    ]
    plain, averaged = (end.state_dict() for end in ends)
    assert all(torch.equal(value, averaged[key]) for key, value in plain.items())


def test_adapters_are_averaged_too(tmp_path):
    made = {
        kind: ADAPTIVE_METHODS["surgery"]().run(
            tiny_context(tmp_path / kind, rounds=4, averaging=kind, averaging_start=0.0)
        )
        for kind in ("none", "swa")
    }
    assert made["none"].history == made["swa"].history  # the steps are the same, the result is not
    plain, averaged = (made[kind].model.state_dict() for kind in ("none", "swa"))
    moved = [key for key in plain if key.startswith("adapters") and not torch.equal(plain[key], averaged[key])]
    ups = [key for key in moved if key.endswith("up")]
    assert ups and sum(float(averaged[key].norm()) for key in ups) < sum(float(plain[key].norm()) for key in ups)


def test_a_resumed_run_has_the_same_average(tmp_path):
    unbroken, _ = adapt_tiny(tmp_path, **AVERAGED)
    ended = state(unbroken)
    newest, before = checkpoints(tmp_path / "checkpoints")
    kept = torch.load(before, weights_only=True)["state_dict"]
    assert int(kept["average.count"]) == 3 and "average.merge/coefficients" in kept
    newest.unlink()
    resumed, _ = adapt_tiny(tmp_path, resume=True, **AVERAGED)
    found = state(resumed)
    assert found.keys() == ended.keys() and all(torch.equal(value, found[name]) for name, value in ended.items())


def test_validation_sees_the_average_and_changes_nothing(tmp_path):
    from mmengine.dataset import DefaultSampler

    validation = {
        "val_dataloader": {
            "dataset": tiny.TinySet(tiny.tasks(), count=4, split="val"),
            "batch_size": 2,
            "sampler": {"type": DefaultSampler, "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        "val_cfg": {},
        "val_evaluator": {"type": "DenseMetric"},
        "val_interval": 4,
    }
    options = {**AVERAGED, "rounds": 8, "coefficient_lr": 0.1}
    plain, _ = adapt_tiny(tmp_path / "a", **options)
    seen, _ = adapt_tiny(tmp_path / "b", validation=validation, **options)
    ended, found = state(plain), state(seen)
    assert all(torch.equal(value, found[name]) for name, value in ended.items())
