"""What killed processes leave behind: the next one removes it, and nothing of a process that still works."""

import os
import subprocess
import sys

import pytest

from symerge_dense.fileio import atomic_write, temporary_folder, write_text
from symerge_dense.leftovers import machine, remove_leftovers
from symerge_dense.pipeline.run_lock import LOCK, alone_in

WRITES = """
import os, sys
from symerge_dense.fileio import atomic_write, temporary_folder
with atomic_write(sys.argv[1] + "/file") as file, temporary_folder(sys.argv[1] + "/folder") as folder:
    file.write_text("half")
    (folder / "inside").write_text("half")
    print(file.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of a file and a folder."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WRITES, tmp_path], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline().startswith(".file.")
        yield process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_first_write_into_a_folder_removes_what_a_killed_process_left(tmp_path, writer):
    foreign = tmp_path / ".file.00000000-1-0123456789ab.part"  # of another machine, where it may still be written
    foreign.touch()
    writer.kill()
    writer.wait()
    assert len(names(tmp_path)) == 3
    write_text(tmp_path / "other", "whole")
    assert names(tmp_path) == [foreign.name, "other"]


def test_what_a_living_process_writes_is_kept(tmp_path, writer):
    before = names(tmp_path)
    with temporary_folder(tmp_path / "other"):
        assert set(before) < set(names(tmp_path))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == before and len(before) == 2
    writer.communicate("")
    assert writer.returncode == 0 and names(tmp_path) == ["file"]


def test_who_is_alone_in_a_folder_removes_what_any_machine_left_in_it(tmp_path):
    kept = [tmp_path / ".hidden", tmp_path / ".a.part", tmp_path / "labels" / "depth.npy"]
    left = [tmp_path / f".a.json.{'0' * 32}.part", tmp_path / "labels" / ".depth.npy.00000000-7-0123456789ab.part"]
    left.append(tmp_path / f".a.{machine()}-{os.getpid()}-0123456789ab.mp4")  # a container started again
    (tmp_path / "labels").mkdir()
    for path in [*kept, *left]:
        path.touch()
    with alone_in(tmp_path):
        assert names(tmp_path) == sorted([".a.part", ".hidden", LOCK, "labels"])
        assert names(tmp_path / "labels") == ["depth.npy"]


def test_the_process_that_writes_keeps_its_own_files(tmp_path):
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "b") as second:
        first.write_text("1")
        second.write_text("2")
    assert names(tmp_path) == ["a", "b"]
