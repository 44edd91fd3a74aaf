"""The adaptation as a whole: it learns, sees no label, is the same however it is run, and survives interruptions."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import OPTIONS, adapt_tiny, state
from builders.prepared_python import Python, torchrun_environments
from safetensors.torch import load_file

from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.checkpointing import checkpoints
from symerge_dense.models.checkpoint import save_model, state_hash
from symerge_dense.models.multi_task import NonFiniteLoss

TESTS = Path(__file__).parents[1]
SCRIPT = str(TESTS / "builders" / "adapt_once.py")
ENV = {
    **os.environ,
    "OMP_NUM_THREADS": str(torch.get_num_threads()),
    "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))),
}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_no_ground_truth_is_read(tmp_path):
    pool = tiny.TinySet(tiny.tasks(), split="pool")  # could give targets, and would tell
    tiny.TinySet.targets_read.clear()
    model, _ = adapt_tiny(tmp_path, data=pool, rounds=40, coefficient_lr=3e-2, clamp=(0.0, 1.0))
    assert not tiny.TinySet.targets_read
    assert pool[0].keys() >= tiny.tasks().keys() and len(tiny.TinySet.targets_read) == 3
    rows = read_history(tmp_path / "history.jsonl")
    assert [row["iteration"] for row in rows] == list(range(40))
    for task in model.model.tasks:
        first, last = (np.mean([row[f"distance_{task}"] for row in part]) for part in (rows[:4], rows[-4:]))
        assert last < 0.8 * first
    assert model.merge.coefficients.min() >= 0 and model.merge.coefficients.max() <= 1


def test_base_weights_survive_the_runner(tmp_path):
    base, _, _ = tiny.family()
    model, _ = adapt_tiny(tmp_path)
    model.unfold()
    assert all(torch.equal(v, base.get_parameter(k)) for k, v in model.model.backbone.named_parameters())


@pytest.mark.parametrize("schedule", ["sum", "per_task"])
def test_cached_and_online_labels_agree(tmp_path, schedule):
    # float16 labels turn signs of gradients near Adam's epsilon, and its first steps have the size of the rate
    options = {"schedule": schedule, "views": {"flip": True}, "granularity": "tensor", "coefficient_lr": 1e-2}
    cached, _ = adapt_tiny(tmp_path / "cached", rounds=6, **options)
    online, _ = adapt_tiny(tmp_path / "online", rounds=6, labels="online", **options)
    torch.testing.assert_close(cached.merge.coefficients, online.merge.coefficients, rtol=0, atol=5e-4)
    torch.testing.assert_close(cached.loss_scale, online.loss_scale, rtol=5e-3, atol=0)
    assert not list((tmp_path / "online").glob("labels/*"))


def test_augmented_labels_move_with_the_image(tmp_path):
    adapt_tiny(tmp_path, augment={"flip": 0.5, "zoom": (1.0, 1.5)}, rounds=30, coefficient_lr=3e-2)
    rows = read_history(tmp_path / "history.jsonl")
    totals = [sum(value for key, value in row.items() if key.startswith("loss_")) for row in rows]
    assert np.mean(totals[-5:]) < 0.9 * np.mean(totals[:5])


@pytest.mark.parametrize("schedule", ["sum", "per_task"])
def test_watching_validation_changes_nothing(tmp_path, schedule):
    from mmengine.dataset import DefaultSampler

    watched = tiny.TinySet(tiny.tasks(), count=4, split="val")
    validation = {
        "val_dataloader": {
            "dataset": watched,
            "batch_size": 2,
            "sampler": {"type": DefaultSampler, "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        "val_cfg": {},
        "val_evaluator": {"type": "DenseMetric"},
        "val_interval": 4,
    }
    plain, _ = adapt_tiny(tmp_path / "a", schedule=schedule)
    seen, _ = adapt_tiny(tmp_path / "b", schedule=schedule, validation=validation)
    assert ("val", 0, "depth") in tiny.TinySet.targets_read and same(state(plain), state(seen))


def test_same_seed_same_end_and_labels_are_reused(tmp_path):
    first, _ = adapt_tiny(tmp_path, views=None)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "labels").glob("*.npy")}
    second, _ = adapt_tiny(tmp_path, views=None)
    assert len(written) == 3 and written == {path: path.stat().st_mtime_ns for path in written}
    assert same(state(first), state(second))


def test_experts_and_task_vectors_on_disk_change_no_bit(tmp_path):
    base, experts, _ = tiny.family()
    for name, expert in experts.items():
        save_model(tmp_path / f"{name}.safetensors", expert, {"base_hash": state_hash(base.state_dict())})
    files, ends = {name: tmp_path / f"{name}.safetensors" for name in experts}, []
    for place in ("memory", "mapped"):
        model = SyMergeModel(base, files, make_options(**{**OPTIONS, "rounds": 4, "task_vectors": place}))
        adapt(model, model.experts, Unlabelled(tiny.TinySet({}, split="pool")), tmp_path / place, seed=3)
        ends.append(state(model))
    assert same(*ends) and not list((tmp_path / "mapped").glob(".scratch*"))


@pytest.mark.parametrize("schedule", ["sum", "per_task"])
def test_killed_and_resumed_ends_like_unbroken(tmp_path, schedule):
    options = {"schedule": schedule, "rounds": 30, "augment": {"flip": 0.5}}
    unbroken, _ = adapt_tiny(tmp_path / "unbroken", **options)
    killed = tmp_path / "killed"
    arguments = [f"{key}={value!r}" for key, value in options.items()]
    process = Python(SCRIPT, killed, *arguments, env=ENV)
    while not checkpoints(killed / "checkpoints"):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "end.safetensors").exists()
    resumed, _ = adapt_tiny(killed, resume=True, **options)
    assert same(state(unbroken), state(resumed))
    assert read_history(tmp_path / "unbroken" / "history.jsonl") == read_history(killed / "history.jsonl")


# At a rate of 0.2, what rounding leaves of a gradient near Adam's epsilon would grow from step to step.
SLOW = {"granularity": "tensor", "coefficient_lr": 3e-2, "teacher": "mix"}
FINER = {"granularity": "channel", "coefficient_lr": 3e-2, "views": {"flip": True}, "class_balance": 0.5}
FINER |= {"averaging": "ema", "averaging_start": 0.5, "sharpness": 0.1, "warmup": 0.34}


@pytest.mark.parametrize(("count", "net", "schedule", "more"), [(2, "CNN", "per_task", SLOW), (4, "VIT", "sum", FINER)])
def test_processes_equal_one_at_the_same_global_batch(tmp_path, count, net, schedule, more):
    options = {"statistics": "running", "schedule": schedule, **more}
    alone, _ = adapt_tiny(tmp_path / "one", spec=getattr(tiny, net), **options)
    words = [tmp_path / "many", "--launcher", "pytorch", f"net={net!r}"]
    words += [f"{key}={value!r}" for key, value in options.items()]
    for rank in [Python(SCRIPT, *words, env=ENV | given) for given in torchrun_environments(count)]:
        rank.printed()
    found = load_file(tmp_path / "many" / "end.safetensors")
    for name, value in state(alone).items():
        torch.testing.assert_close(value, found[name], rtol=1e-3, atol=2e-5, msg=lambda text, name=name: name + text)
    labels = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one" / "labels").rglob("*.npy")]
    assert len(labels) == 6, "a file of labels per task, and one of their variance"
    for path in labels:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "many" / path).read_bytes()


class Poisoned(tiny.TinySet):
    """One of its images is not a number."""

    def image(self, index):
        return super().image(index) if index != 5 else np.full((*tiny.SIZE, 3), np.nan, np.float32)


@pytest.mark.parametrize("save_every", [1, 1000])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path, save_every):
    with pytest.raises(NonFiniteLoss, match="segmentation"):
        adapt_tiny(
            tmp_path, data=Poisoned({}, split="pool"), balance="none", save_every=save_every, rounds=50, batch_size=2
        )
    steps = len(read_history(tmp_path / "history.jsonl"))  # all before are on record, though no flush was due
    assert 0 < steps < 20
    found = checkpoints(tmp_path / "checkpoints")
    assert bool(found) == (save_every <= steps)
    if found:
        kept = torch.load(found[0], weights_only=True)
        assert kept["meta"]["iter"] == steps
        assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
