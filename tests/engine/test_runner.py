"""What a config hands through to MMEngine's runner: in the runner's config, and seen in what a main job leaves."""

import copy
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from builders.pipeline_tiny import TASKS, write_config
from mmengine.config import Config
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from symerge_dense.adaptation.history import read_history
from symerge_dense.engine.checkpointing import CheckpointPolicy
from symerge_dense.engine.freed_memory import MALLOC_VARIABLES
from symerge_dense.engine.hooks import IterationSeedHook
from symerge_dense.engine.runner import runner_config
from symerge_dense.models.checkpoint import load_model
from symerge_dense.pipeline.config import RUNNER_KEYS, load_config
from symerge_dense.pipeline.train import train
from symerge_dense.registry import HOOKS
from symerge_dense.report.results import ROWS

HOOK = '''
import cv2
from mmengine.hooks import Hook

from symerge_dense.registry import HOOKS


@HOOKS.register_module()
class TellTale(Hook):
    """Writes down what it sees, a line an iteration."""

    def __init__(self, file):
        self.file = file

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(self.file, "a") as file:
            file.write(f"{runner.iter} {cv2.getNumThreads()} {runner.cfg.get('work_dir')}\\n")
'''
WATCHED = """
custom_imports = dict(imports=["hooks_of_a_lab"])
custom_hooks = [dict(type="TellTale", file=TALE)]
default_hooks = dict(logger=dict(type="LoggerHook", interval=1))
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")])
env_cfg = dict(mp_cfg=dict(opencv_num_threads=2))
log_level = "INFO"
val_interval = 2
"""


def files_of(run, pattern):
    """The one file of that name below MMEngine's folder of a run, which is named by the time."""
    (path,) = run.glob(f"*/{pattern}")
    return path


def scalars(run):
    return [json.loads(line) for line in files_of(run, "vis_data/scalars.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The same main job twice: as it is, and with everything that passes through."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "hooks_of_a_lab.py").write_text(HOOK)
    plain = train(load_config(write_config(folder)), work_dir=str(folder / "plain"))
    tale = folder / "tale.txt"
    config = write_config(folder, "watched.py", more=WATCHED.replace("TALE", repr(str(tale))))
    watched = train(load_config(config), work_dir=str(folder / "watched"))
    return SimpleNamespace(folder=folder, plain=plain, watched=watched, tale=tale.read_text(), run=folder / "watched")


# -- seen in a main job -----------------------------------------------------------------------------------------------
def test_a_run_that_is_watched_ends_the_same_bit_for_bit(home):
    for key in (*ROWS, "delta_m", "coefficients"):
        assert home.watched[key] == home.plain[key], key
    merged = [load_model(home.folder / run / "merged.safetensors")[0].state_dict() for run in ("plain", "watched")]
    assert all(torch.equal(value, merged[1][name]) for name, value in merged[0].items())
    assert read_history(home.folder / "plain" / "history.jsonl") == read_history(home.run / "history.jsonl")


def test_the_logger_writes_a_row_per_iteration(home):
    history = read_history(home.run / "history.jsonl")
    rows = [row for row in scalars(home.run) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    means = [sum(row["loss_depth"] for row in history[:count]) / count for count in (1, 2, 3, 4)]  # MMEngine's window
    assert [row["loss_depth"] for row in rows] == pytest.approx(means)


def test_labelled_metrics_are_on_record_at_their_iterations(home):
    rows = [row for row in scalars(home.run) if "depth/abs" in row]
    assert [row["step"] for row in rows] == [2, 4]
    for task, metrics in home.watched["merged"]["tasks"].items():
        for name, metric in metrics.items():
            assert rows[-1][f"{task}/{name}"] == pytest.approx(metric["value"], rel=1e-5), (task, name)
    assert not [row for row in scalars(home.folder / "plain") if "depth/abs" in row]


def test_tensorboard_reads_back_losses_and_metrics(home):
    events = EventAccumulator(str(files_of(home.run, "vis_data")))
    events.Reload()
    names = events.Tags()["scalars"]
    assert {"loss", *(f"loss_{task}" for task in TASKS), "segmentation/mIoU"} <= set(names)
    written = {row["step"]: row["loss"] for row in scalars(home.run) if "loss" in row}
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(written)
    assert [event.step for event in events.Scalars("normals/mean")] == [2, 4]


def test_a_hook_of_another_package_is_called_under_the_given_environment(home):
    lines = [line.split() for line in home.tale.splitlines()]
    assert [(iteration, threads) for iteration, threads, _ in lines] == [(str(step), "2") for step in range(4)]
    assert {work_dir for _, _, work_dir in lines} == {str(home.run)}


def test_the_log_level_rules_what_is_logged(home):
    assert "Iter(train) [4/4]" in files_of(home.run, "2*.log").read_text()
    (log,) = (home.folder / "plain").glob("*/2*.log")
    assert "Iter(train)" not in log.read_text()


def test_the_composed_config_runs_again_by_mmengine_itself(home, tmp_path):
    again = Config.fromfile(home.run / "adaptation.py")
    assert "hooks_of_a_lab" in again.custom_imports["imports"]
    assert again.env_cfg == {"mp_cfg": {"opencv_num_threads": 2}} and again.val_evaluator["type"] == "DenseMetric"
    hooks = [
        hook if hook["type"] != "SyMergeHook" else {"type": "SyMergeHook"}
        for hook in again.custom_hooks
        if hook["type"] != "SafeCheckpointHook"
    ]
    again.merge_from_dict({"work_dir": str(tmp_path), "experiment_name": "again", "custom_hooks": hooks})
    student = Runner.from_cfg(again).train()
    merged, _ = load_model(home.run / "merged.safetensors")
    for name, value in student.model.state_dict().items():
        torch.testing.assert_close(value, merged.state_dict()[name], rtol=1e-3, atol=1e-4)


SCOPED = """
default_scope = "mmengine"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
custom_hooks = [dict(type="EmptyCacheHook", priority="LOWEST")]
val_interval = 4
"""


def test_models_are_trained_one_after_another_with_a_visualizer_in_another_scope(home, tmp_path):
    """MMEngine writes names and folders into what it builds from: the next run must not get them."""
    config = load_config(write_config(tmp_path, rooms=home.folder / "rooms", more=SCOPED))
    asked = copy.deepcopy(config.runner)
    results = train(config, work_dir=str(tmp_path / "run"))
    assert config.runner == asked and all(results[key] == home.plain[key] for key in (*ROWS, "coefficients"))
    again = Config.fromfile(tmp_path / "run" / "adaptation.py")
    assert again.model["type"] == "symerge_dense.SyMergeModel" and again.default_scope == "mmengine"
    assert [row["step"] for row in scalars(tmp_path / "run") if "depth/abs" in row] == [4]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("val_interval = 'abc'", "val_interval='abc'"),
        ("val_interval = -1", "val_interval=-1"),
        ("log_level = 'FOO'", "log_level='FOO'"),
        ("default_hooks = 3", "default_hooks=3"),
        ("custom_hooks = 'foo'", "custom_hooks='foo'"),
        ("custom_hooks = [dict(interval=1)]", "custom_hooks is {'interval': 1}"),
        ("custom_hooks = [dict(type='EmptyCashHook')]", "Did you mean 'EmptyCacheHook'"),
        ("default_hooks = dict(logger=dict(type='LogerHook'))", "default_hooks.logger.type"),
        ("visualizer = dict(type='Visualiser')", "Did you mean 'Visualizer'"),
    ],
)
def test_what_the_runner_cannot_use_is_refused_when_the_config_is_read(tmp_path, more, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        load_config(write_config(tmp_path, more=more + "\n"))


# -- in the runner's config -------------------------------------------------------------------------------------------
class Composed(Exception):
    """Ends a run as soon as the config of its runner is known."""


def test_weights_and_biases_reach_the_runner(home, tmp_path, monkeypatch):
    backends = '[dict(type="WandbVisBackend", init_kwargs=dict(project="merging", mode="offline"))]'
    more = f'visualizer = dict(type="Visualizer", vis_backends={backends})\n'
    path = write_config(tmp_path, rooms=home.folder / "rooms", experts=home.folder / "experts", more=more)

    def stop(config, **live):
        raise Composed(config)

    monkeypatch.setattr("symerge_dense.adaptation.adapt.build_runner", stop)
    with pytest.raises(Composed) as found:
        train(load_config(path), work_dir=str(tmp_path / "run"))
    assert found.value.args[0]["visualizer"] == {
        "type": "Visualizer",
        "vis_backends": [{"type": "WandbVisBackend", "init_kwargs": {"project": "merging", "mode": "offline"}}],
    }


def composed(folder, by_epoch=False, **settings):
    return runner_config(folder, CheckpointPolicy(folder, by_epoch=by_epoch), title="test", seed=0, settings=settings)


def test_what_a_config_may_set_is_handed_through_and_the_rest_is_not(tmp_path):
    given = {
        "env_cfg": {"cudnn_benchmark": True},
        "visualizer": {"type": "Visualizer"},
        "log_level": "DEBUG",
        "default_scope": "mmseg",
        "custom_hooks": [{"type": "EmptyCacheHook"}],
    }
    config = composed(tmp_path, **given, val_interval=3, train_cfg={"max_epochs": 1})
    assert {key: config[key] for key in given if key != "custom_hooks"} == {
        key: value for key, value in given.items() if key != "custom_hooks"
    }
    types = [hook["type"] for hook in config["custom_hooks"]]
    assert types == ["IterationSeedHook", "ProgressHook", "EmptyCacheHook"]
    assert "val_interval" not in config and "train_cfg" not in config and "val_interval" in RUNNER_KEYS


def test_mmengines_checkpoints_are_off_unless_they_are_named(tmp_path):
    assert composed(tmp_path)["default_hooks"]["checkpoint"] is None
    named = {"type": "CheckpointHook", "interval": 5, "by_epoch": False}
    assert composed(tmp_path, default_hooks={"checkpoint": named})["default_hooks"]["checkpoint"] == named


def test_a_run_of_iterations_is_logged_by_iterations(tmp_path):
    config = composed(tmp_path, default_hooks={"logger": {"type": "LoggerHook", "interval": 1}})
    assert config["default_hooks"]["logger"] == {"type": "LoggerHook", "interval": 1, "log_metric_by_epoch": False}
    assert composed(tmp_path)["default_hooks"]["logger"]["log_metric_by_epoch"] is False
    assert composed(tmp_path)["log_processor"] == {"type": "LogProcessor", "by_epoch": False}
    assert composed(tmp_path, log_processor={"window_size": 1})["log_processor"]["by_epoch"] is False
    epochs = composed(tmp_path, by_epoch=True)
    assert "logger" not in epochs["default_hooks"] and epochs["log_processor"]["by_epoch"] is True


@pytest.mark.parametrize("logger", [None, {"type": "LoggerHook", "log_metric_by_epoch": True}, {"type": "MyLogger"}])
def test_a_users_own_logger_is_left_alone(tmp_path, logger):
    assert composed(tmp_path, default_hooks={"logger": logger})["default_hooks"]["logger"] == logger


def test_the_seed_of_an_iteration_does_not_depend_on_those_before():
    hook = HOOKS.build({"type": "IterationSeedHook", "seed": 5})
    assert isinstance(hook, IterationSeedHook)
    drawn = []
    for iterations in ([0, 1, 2], [2]):
        for iteration in iterations:
            hook.before_train_iter(SimpleNamespace(iter=iteration), 0)
            number = torch.rand(1).item()
        drawn.append(number)
    assert drawn[0] == drawn[1]


# -- memory -----------------------------------------------------------------------------------------------------------
FAULTS = """
import os, resource
import torch
from symerge_dense.engine.freed_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(16 << 20).add_(1)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

os.environ["MALLOC_MMAP_THRESHOLD_"] = "131072"
keep_freed_memory()
faults()
print(faults())
del os.environ["MALLOC_MMAP_THRESHOLD_"]
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_a_step_gets_the_memory_that_the_last_one_freed():
    environment = {name: value for name, value in os.environ.items() if name not in MALLOC_VARIABLES}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before >= 8  # who sets glibc's own variables keeps what they say
    assert after <= 4
