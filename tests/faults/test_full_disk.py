"""A disk that takes no more, at one write after another of the main job: a message, old files whole, and then the rest.

The limit of the operating system on the size of a file stands for the disk: every library meets it in its own way.
"""

import errno
import os
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from builders.pipeline_tiny import tool, write_config
from safetensors.torch import save_file

from faults.full_disk import FullDisk, may_mount
from faults.injected import Disk, failing
from faults.jobs import JOBS, Job, contents, files, half_written, unfinished
from symerge_dense import fileio
from symerge_dense.commands.cli import run_tool
from symerge_dense.fileio import atomic_write, new_array


@contextmanager
def full():
    """No file grows beyond 64 bytes inside: not in a whole test, whose result pytest writes somewhere, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "a.safetensors": lambda path: save_file({"a": torch.ones(1000)}, path),
    "a.pth": lambda path: torch.save({"a": torch.ones(1000)}, path),
    "a.npy": lambda path: new_array(path, np.float32, (1000,)),
    "a.txt": lambda path: path.write_text("a" * 5000),
    "b.npy": lambda path: np.save(path.open("wb"), np.ones(1000)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_library_s_complaint_names_the_file_which_stays_as_it_was(tmp_path, capsys, name):
    path = tmp_path / name
    path.write_text("old")

    def write():
        with atomic_write(path) as temporary:
            WRITERS[name](temporary)

    with full():
        assert run_tool(write) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {path} cannot be read or written (") and "Traceback" not in told
    assert path.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == [name]


def test_room_is_the_remedy_of_a_full_disk(tmp_path, capsys):
    def write():
        with atomic_write(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert run_tool(write) == 2
    told = "cannot be read or written (No space left on device); make room on its disk."
    assert capsys.readouterr().err == f"error: {tmp_path / 'a'} {told}\n"


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(OSError, match="missing") as found, atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_text()
    assert found.value.filename == str(tmp_path / "missing")


def test_a_folder_that_vanishes_is_named(tmp_path, capsys):
    def write():
        with atomic_write(tmp_path / "run" / "a.pth") as temporary:
            shutil.rmtree(tmp_path / "run")
            torch.save({}, temporary.open("wb"))

    assert run_tool(write) == 2
    told = capsys.readouterr().err
    assert (
        told
        == f"error: {tmp_path / 'run' / 'a.pth'} cannot be read or written ({os.strerror(2)}); choose another place.\n"
    )


def test_reserved_bytes_are_zeros_on_the_disk(tmp_path):
    array = new_array(tmp_path / "a.npy", np.float16, (300, 1000))
    assert not array.any() and array.shape == (300, 1000)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes


MORE = """
evaluation = dict(batch_size=3, panels=1)
log_level = "INFO"
default_hooks = dict(logger=dict(type="LoggerHook", interval=1))
"""
FAULTS = [  # the number of the file after which no more is taken, or kind and path of a call that fails
    (3, errno.EFBIG),
    ("sync run/labels/.depth.npy", errno.EIO),
    ("append run/2", errno.ENOSPC),  # a line of the log, whose folder has the date
    ("append run/history.jsonl", errno.ENOSPC),
    (8, errno.EFBIG),
    ("rename run/merged.safetensors", errno.EDQUOT),
]


@contextmanager
def full_from(number):
    """No file grows beyond 64 bytes inside, from a file of so many on."""
    limit, name_of, left = resource.getrlimit(resource.RLIMIT_FSIZE), fileio.temporary_name, [number]

    def counted(target):
        left[0] -= 1
        if left[0] == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, limit[1]))
        return name_of(target)

    fileio.temporary_name = counted
    try:
        yield
    finally:
        fileio.temporary_name = name_of
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_the_main_job_goes_on_after_a_full_disk_wherever_it_was(tmp_path, capsys):
    words = ["train.py", write_config(tmp_path, more=MORE), "--work-dir", tmp_path / "run"]
    assert tool(*words) == 0
    whole = contents(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    for place, code in FAULTS:
        resume = ["--resume"] if (tmp_path / "run" / "run.json").exists() else []
        capsys.readouterr()
        with failing(Disk(tmp_path, 1, code, only=place)) if isinstance(place, str) else full_from(place):
            assert tool(*words, *resume) == 2, place
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1 and errors[0].startswith(f"error: {tmp_path / 'run'}") and ".part" not in errors[0]
        assert "cannot be read or written (" in errors[0]
        assert half_written(tmp_path / "run") == []
        assert not any(unfinished(name) for name, _ in files(tmp_path / "run"))
    assert tool(*words, "--resume") == 0
    assert contents(tmp_path / "run") == whole


# -- a real one -------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not may_mount(), reason="file systems may not be mounted here")
def test_a_job_goes_on_when_a_real_disk_has_grown(tmp_path):
    trial = FullDisk(next(job for job in JOBS if job.name == "file merge, shards"), tmp_path.resolve())
    assert trial.try_size(9_000_000, late=True) and trial.faults == [] and len(trial.named) == 1


@pytest.mark.skipif(not may_mount(), reason="file systems may not be mounted here")
def test_a_job_that_hides_a_full_disk_is_caught(tmp_path):
    def prepare(given, made):
        (given / "careless.py").write_text(
            "import sys, pathlib\n"
            "folder = pathlib.Path(sys.argv[1])\nfolder.mkdir(parents=True, exist_ok=True)\n"
            "try:\n    (folder / 'a.json').write_text('[' + '1, ' * 9000 + '1]')\nexcept OSError:\n    pass\n"
        )
        return [given / "careless.py", made]

    trial = FullDisk(Job("careless", 1, prepare, last="none"), tmp_path.resolve())
    assert not trial.try_size(8192, False), "it ends with 0"
