"""A clock that is set by a day, back or forward, between two runs or during one: nothing depends on it."""

import json
import os
import shutil
import time
from types import SimpleNamespace

import pytest
from builders.pipeline_tiny import tool, write_config

from faults.jobs import contents
from symerge_dense.fileio import write_text
from symerge_dense.leftovers import machine
from symerge_dense.pipeline import run_dir
from symerge_dense.pipeline.run_lock import LOCK, alone_in

DAY = 86400.0


@pytest.fixture
def jumping(monkeypatch):
    """A clock that is a day off, now forward, now back, each time that anybody reads it."""
    real, jumps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + DAY * (-1) ** next(jumps))


def scalars(run):
    """All numbers that MMEngine has logged for an adaptation."""
    return [json.loads(line) for path in run.glob("*/vis_data/scalars.json") for line in path.open()]


def test_a_run_and_its_resumption_under_a_jumping_clock(tmp_path, jumping, capsys):
    """The interruption leaves what a kill after the first checkpoint leaves."""
    config = write_config(tmp_path, more="default_hooks = dict(logger=dict(type='LoggerHook', interval=1))\n")
    words = ["train.py", config, "--work-dir", tmp_path / "run"]
    assert tool(*words) == 0
    whole = contents(tmp_path / "run")
    times = [row[name] for row in scalars(tmp_path / "run") for name in ("time", "data_time") if name in row]
    assert times and all(0 <= value < DAY / 2 for value in times)
    seconds = json.loads((tmp_path / "run" / "results.json").read_text())["timings"]
    assert all(0 <= value < DAY / 2 for value in seconds.values())
    for path in (tmp_path / "run").iterdir():
        if path.name in ("results.json", "merged.safetensors", "coefficients.safetensors"):
            path.unlink()
        elif path.name in ("panels", "panels.png"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "run" / "checkpoints" / "iter_4.pth").unlink()
    for number, path in enumerate((tmp_path / "run").rglob("*")):  # written the day before, or the day after
        moment = time.time() + DAY * (-1) ** number
        os.utime(path, (moment, moment))
    assert tool(*words, "--resume") == 0
    assert contents(tmp_path / "run") == whole
    told = capsys.readouterr()
    assert "nan" not in told.out.lower() and "-1 day" not in told.out + told.err


def test_mmengine_s_time_left_is_none_that_has_passed(jumping):
    from symerge_dense.engine.hooks import SteadyTimerHook

    hub, values = SimpleNamespace(), {}
    hub.update_scalar = lambda name, value: values.setdefault(name, []).append(value)
    hub.update_info = lambda name, value: values.setdefault(name, []).append(value)
    hub.get_scalar = lambda name: SimpleNamespace(current=lambda: values[name][-1])
    runner, hook = SimpleNamespace(message_hub=hub, iter=0, max_iters=9), SteadyTimerHook()
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for _ in range(4):
        hook.before_train_iter(runner, runner.iter)
        time.sleep(0.002)
        hook.after_train_iter(runner, runner.iter)
        runner.iter += 1
    assert len(values["eta"]) == 4 and all(0 < value < 60 for value in values["eta"])
    assert all(0.002 <= value < 60 for value in values["train/time"])


def test_a_run_that_starts_after_the_clock_was_set_back_is_the_newest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = SimpleNamespace(name="tiny", record={})
    moments = iter(["20260102-120000", "20260101-120000", "20260101-120500", "20260102-120000", "20260103-000000"])
    monkeypatch.setattr(time, "strftime", lambda *_: next(moments))
    names = []
    for _ in range(5):
        folder = run_dir.open_run(run_dir.choose(config, None, False), config, False)
        names.append(folder.name)
        (folder / "a").touch()
        assert run_dir.choose(config, None, True).name == names[-1]
    assert names == ["20260102-120000", *(f"20260102-120000-0{number}" for number in (2, 3, 4)), "20260103-000000"]


@pytest.mark.parametrize("shift", [-DAY, DAY])
def test_leftovers_and_locks_are_told_by_processes_and_not_by_times(tmp_path, shift):
    dead = tmp_path / "a" / f".x.{machine()}-999999999-0123456789ab.part"
    own = tmp_path / "a" / f".x.{machine()}-{os.getppid()}-0123456789ab.part"
    dead.parent.mkdir()
    (tmp_path / LOCK).write_text('{"host": "here", "pid": 1, "started": "2999-01-01 00:00:00"}')
    for path in (dead, own, tmp_path / LOCK):
        path.touch()
        os.utime(path, (time.time() + shift,) * 2)
    write_text(tmp_path / "a" / "y", "")
    assert not dead.exists() and own.exists(), "of a process that runs"
    with alone_in(tmp_path):
        assert own.exists()
