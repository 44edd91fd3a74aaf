"""Two runs in one folder: the second is refused and told of the first; a killed one keeps nobody out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from builders.pipeline_tiny import write_config

from symerge_dense.pipeline import run_dir
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.run_lock import LOCK, alone_in
from symerge_dense.pipeline.train import train

HOLDS = """
import os, sys, time
from pathlib import Path
from symerge_dense.pipeline.run_lock import alone_in
with alone_in(Path(sys.argv[1])):
    if os.fork() == 0:  # as a data worker, which outlives a killed parent for some seconds
        time.sleep(60)
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in the folder, and has a worker."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "holds\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_the_second_is_refused_by_name_until_the_first_is_killed(tmp_path, holder):
    with pytest.raises(ValueError) as found, alone_in(tmp_path):
        raise AssertionError("two at once")
    told = f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()} since {time.strftime('%Y-')}"
    assert str(found.value).startswith(told) and "wait for its end, or choose another --work-dir" in str(found.value)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid, "the refused one left it as it was"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists(), "nobody tidied up"
    with alone_in(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_a_damaged_lock_file_still_locks(tmp_path, holder):
    (tmp_path / LOCK).write_bytes(b"\xff{")
    with pytest.raises(ValueError, match="is in use by another process; wait"), alone_in(tmp_path):
        pass


def test_a_refused_run_touches_nothing_of_the_first(tmp_path, holder, monkeypatch):
    """The first has just begun: there is nothing but its config, which a run that fails takes away again."""
    config = load_config(write_config(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps(config.record))
    monkeypatch.setattr(run_dir, "open_run", lambda folder, *_: folder)  # both came here before either wrote
    with pytest.raises(ValueError, match=f"in use by process {holder.pid}"):
        train(config, work_dir=str(tmp_path))
    assert (tmp_path / "run.json").exists() and (tmp_path / LOCK).exists()


def test_a_new_run_in_a_busy_folder_is_told_who_works_there(tmp_path, holder):
    config = load_config(write_config(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps(config.record))
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=f"in use by process {holder.pid}"):
        run_dir.open_run(tmp_path, config, resume=False)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with pytest.raises(ValueError, match="already holds a run; add --resume"):
        run_dir.open_run(tmp_path, config, resume=False)


@pytest.mark.parametrize(("more", "keep"), [("", False), ("", True), ("results.json", False)])
def test_a_run_that_fails_at_once_leaves_no_folder_of_its_own(tmp_path, more, keep):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in filter(None, ("run.json", more)):
        (folder / name).write_text("{}")
    with pytest.raises(ValueError, match="no base"), alone_in(folder), run_dir.abandoned(folder, keep):
        raise ValueError("no base")
    assert folder.exists() == bool(more or keep)
