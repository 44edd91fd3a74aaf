"""Training through MMEngine's runner: what it may change, what it prints, and that an interruption changes nothing."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from builders.prepared_python import Python, torchrun_environments
from builders.tiny import CNN, PREPROCESSING, TinySet, backbone, tasks
from mmengine.hooks import Hook

from symerge_dense.experts.training import Recipe, _fingerprint, fit
from symerge_dense.models.checkpoint import UnsafeFileError, state_hash
from symerge_dense.models.multi_task import MultiTaskModel, NonFiniteLoss

DROPOUT = {"type": "MMSegHead", "width": 8, "dropout_ratio": 0.5}


def network(names=("depth",), head=DROPOUT, seed=0):
    base = backbone(CNN, seed)
    chosen = {name: tasks()[name] for name in names}
    return MultiTaskModel(base, dict.fromkeys(chosen, head), chosen, **PREPROCESSING)


def data(names=("depth",), count=7):
    return TinySet({name: tasks()[name] for name in names}, count=count, augment={"flip": 0.5})


class Recorder(Hook):
    """Keeps learning rates, images and losses of every iteration; may break the run at one."""

    def __init__(self, stop=None):
        self.stop, self.rates, self.images, self.losses = stop, [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise KeyboardInterrupt
        self.rates.append([group["lr"] for group in runner.optim_wrapper.optimizer.param_groups])
        self.images.append(data_batch["index"].tolist())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs["loss"].detach()))


RECIPE = Recipe(epochs=4, batch_size=2, lr=1e-2, weight_decay=0.01, schedule="cosine", warmup_iters=2)


# -- resuming ---------------------------------------------------------------------------------------------------------
def interrupted(folder, stop, recipe=RECIPE, seed=3):
    recorder = Recorder(stop)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), data(), recipe, folder, title="expert depth", seed=seed, hooks=[recorder])
    return recorder


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe(
            epochs=4, batch_size=2, lr=1e-2, optimizer="SGD", schedule="poly", amp=True, max_iters=11, num_workers=1
        ),
    ],
    ids=["AdamW", "SGD-amp"],
)
def test_an_interrupted_run_ends_like_an_unbroken_one(tmp_path, recipe):
    whole, record = network(), Recorder()
    assert fit(whole, data(), recipe, tmp_path / "a", title="expert depth", seed=3, hooks=[record]) is None
    first = interrupted(tmp_path / "b", 8, recipe)
    model, second = network(), Recorder()
    found = fit(model, data(), recipe, tmp_path / "b", title="expert depth", seed=3, hooks=[second])
    assert found.name == "epoch_2.pth"
    assert first.losses[:6] + second.losses == record.losses and first.images[:6] + second.images == record.images
    assert first.rates[:6] + second.rates == record.rates
    assert state_hash(model.state_dict()) == state_hash(whole.state_dict()) != state_hash(network().state_dict())
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_two_checkpoints_are_kept_and_a_damaged_one_falls_back(tmp_path, capsys):
    interrupted(tmp_path, 10)
    files = sorted(tmp_path.glob("unfinished-expert-depth/*.pth"))
    assert [f.name for f in files] == ["epoch_2.pth", "epoch_3.pth"]
    for file in files:
        torch.load(file, weights_only=True)
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 255
    files[1].write_bytes(content)
    model, whole = network(), network()
    found = fit(model, data(), RECIPE, tmp_path, title="expert depth", seed=3)
    assert found.name == "epoch_2.pth" and "epoch_3.pth is truncated or damaged" in capsys.readouterr().out
    fit(whole, data(), RECIPE, tmp_path / "other", title="expert depth", seed=3)
    assert state_hash(model.state_dict()) == state_hash(whole.state_dict())


def test_only_damaged_checkpoints_mean_a_fresh_start(tmp_path):
    interrupted(tmp_path, 4)
    for file in tmp_path.glob("*/*.pth"):
        file.write_bytes(file.read_bytes()[:100])
    assert fit(network(), data(), RECIPE, tmp_path, title="expert depth", seed=3) is None


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_checkpoint_with_pickled_objects_is_refused_unread(tmp_path):
    interrupted(tmp_path, 4)
    file = next(tmp_path.glob("*/epoch_1.pth"))
    torch.save({**torch.load(file, weights_only=True), "extra": Payload(tmp_path / "owned")}, file)
    with pytest.raises(UnsafeFileError, match=r"epoch_1.pth"):
        fit(network(), data(), RECIPE, tmp_path, title="expert depth", seed=3)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("change", ["seed", "recipe", "weights", "data"])
def test_another_runs_checkpoint_is_refused_or_discarded(tmp_path, change):
    interrupted(tmp_path, 4)
    arguments = {
        "model": network(seed=9 if change == "weights" else 0),
        "dataset": data(count=8 if change == "data" else 7),
        "recipe": Recipe(**{**vars(RECIPE), "lr": 0.5}) if change == "recipe" else RECIPE,
        "seed": 4 if change == "seed" else 3,
    }
    with pytest.raises(ValueError, match=r"unfinished run with other settings.*resume=False"):
        fit(**arguments, work_dir=tmp_path, title="expert depth")
    assert fit(**arguments, work_dir=tmp_path, title="expert depth", resume=False) is None


def test_the_number_of_workers_may_change(tmp_path):
    interrupted(tmp_path, 4)
    recipe = Recipe(**{**vars(RECIPE), "num_workers": 1})
    assert fit(network(), data(), recipe, tmp_path, title="expert depth", seed=3) is not None


# -- what training does -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("head", [DROPOUT, {"type": "MultiScale", "width": 8}])
def test_weights_survive_the_runner(tmp_path, head):
    """With lr 0 nothing but BatchNorm statistics moves: MMEngine re-initialised nothing."""
    model = network(head=head)
    before = {name: value.clone() for name, value in model.named_parameters()}
    means = model.backbone.body.bn1.running_mean.clone()
    fit(model, data(), Recipe(epochs=1, batch_size=2, lr=0.0), tmp_path, title="x", seed=0)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert not torch.equal(means, model.backbone.body.bn1.running_mean) and not model.training


def test_it_learns_and_is_quiet(tmp_path, capfd):
    names = ("segmentation", "depth")
    model, record = network(names, {"type": "MultiScale", "width": 8}), Recorder()
    recipe = Recipe(epochs=20, batch_size=4, lr=2e-2)
    fit(model, data(names, 12), recipe, tmp_path / "run", title="expert pair", seed=0, hooks=[record])
    assert sum(record.losses[-3:]) < 0.7 * sum(record.losses[:3])
    out, err = capfd.readouterr()
    assert not err and len(out.splitlines()) == 1 and out.startswith("expert pair: 60/60") and "loss " in out


def test_seeds_decide_everything(tmp_path):
    def run(seed):
        model = network()
        torch.rand(1)
        fit(model, data(), Recipe(epochs=1, batch_size=2, lr=0.01), tmp_path, title="x", seed=seed)
        return state_hash(model.state_dict())

    assert run(0) == run(0) != run(1)


def test_a_short_run_and_incomplete_batches(tmp_path):
    record = Recorder()
    recipe = Recipe(epochs=3, batch_size=2, max_iters=4)
    fit(network(), data(count=7), recipe, tmp_path, title="x", seed=0, hooks=[record])
    assert [len(images) for images in record.images] == [2, 2, 2, 2]
    record = Recorder()
    fit(network(), data(count=3), Recipe(epochs=2, batch_size=8), tmp_path, title="x", seed=0, hooks=[record])
    assert [len(images) for images in record.images] == [3, 3]
    with pytest.raises(ValueError, match="no images"):
        fit(network(), data(count=0), Recipe(epochs=1), tmp_path, title="x", seed=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    class Poison(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 4:
                data_batch["image"][:] = float("nan")

    with pytest.raises(NonFiniteLoss, match="depth"):
        fit(network(), data(), RECIPE, tmp_path, title="x", seed=0, hooks=[Poison()])
    assert [f.name for f in tmp_path.glob("*/*.pth")] == ["epoch_1.pth"]


# -- the recipe -------------------------------------------------------------------------------------------------------
def expected_rate(recipe, step, epoch_length):
    """Learning rate by the textbook."""
    total, warm = recipe.iterations(epoch_length), recipe.warmup_iters
    rise = min(1.0, (step + 1) / (warm + 1))
    progress = max(0, step - warm) / (total - warm)
    return (
        recipe.lr
        * rise
        * {
            "cosine": (1 + torch.cos(torch.tensor(progress * torch.pi)).item()) / 2,
            "poly": (1 - progress) ** 0.9,
            "step": recipe.gamma ** (step // (recipe.step_size * epoch_length)),
            "constant": 1.0,
        }[recipe.schedule]
    )


@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("schedule", ["cosine", "poly", "step", "constant"])
def test_schedules_against_the_textbook(tmp_path, schedule, warmup):
    recipe = Recipe(
        epochs=4,
        batch_size=2,
        lr=0.01,
        schedule=schedule,
        warmup_iters=warmup,
        step_size=2,
        gamma=0.1,
        backbone_lr_scale=0.1,
    )
    record = Recorder()
    fit(network(), data(), recipe, tmp_path, title="x", seed=0, hooks=[record])
    for step, (shared, own) in enumerate(record.rates):
        assert own == pytest.approx(expected_rate(recipe, step, 3), rel=1e-4)
        assert shared == pytest.approx(own * 0.1)
    assert len(record.rates) == 12


def test_parameter_groups_cover_what_is_trained_once():
    model = network()
    model.backbone.body.conv1.requires_grad_(False)
    for name in ("AdamW", "Adam", "SGD"):
        optimizer = Recipe(optimizer=name, weight_decay=0.1).build_optimizer(model)
        listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
        assert type(optimizer).__name__ == name and {g["weight_decay"] for g in optimizer.param_groups} == {0.1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "AdamV"}, "unknown optimizer 'AdamV'. Did you mean 'Adam"),
        ({"schedule": "cosin"}, "'cosine'"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": -1}, "lr=-1"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"max_iters": 0}, "max_iters=0"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_recipes_are_checked(options, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**options)


def test_a_rise_longer_than_the_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="warmup_iters=9 must be smaller than the run's 3"):
        fit(network(), data(), Recipe(epochs=1, batch_size=2, warmup_iters=9), tmp_path, title="x", seed=0)


# -- two processes ----------------------------------------------------------------------------------------------------
def test_two_processes_train_one_model(tmp_path):
    program = (
        "import sys, torch\n"
        "from experts.test_training import network, data, Recipe, fit, state_hash\n"
        "model = network(head={'type': 'MultiScale', 'width': 8})\n"
        "fit(model, data(count=8), Recipe(epochs=2, batch_size=2, lr=0.01, ema=0.9), sys.argv[1], title='x', seed=0,\n"
        "    launcher='pytorch')\n"
        "print(state_hash(model.state_dict()), flush=True)\n"
    )
    script = tmp_path / "train.py"
    script.write_text(program)
    here = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    runs = [Python(script, tmp_path / "run", env=env | given) for given in torchrun_environments(2)]
    results = [run.printed() for run in runs]
    hashes = [out.strip().splitlines()[-1] for out in results]
    assert hashes[0] == hashes[1] and len(hashes[0]) == 64
    assert len(results[1].splitlines()) == 1, "only the first process shows progress"
    assert not (tmp_path / "run").exists()


def test_runs_of_earlier_versions_resume():
    """What the fingerprint hashed before layer_decay and ema came, it hashes still, where they are off."""
    numbers = {
        key: value
        for key, value in dataclasses.asdict(Recipe()).items()
        if key not in ("num_workers", "layer_decay", "ema")
    }
    model = network()
    text = json.dumps([model.spec, 3, numbers, 0, 1, state_hash(model.state_dict())])
    assert _fingerprint(model, range(3), Recipe(), 0) == hashlib.sha256(text.encode()).hexdigest()
    assert _fingerprint(model, range(3), Recipe(ema=0.9), 0) != _fingerprint(model, range(3), Recipe(), 0)
