"""Whatever library writes a file, it gets the permissions of the process's umask."""

import os
import stat

import numpy as np
import pytest
import torch
from builders import tiny
from builders.merge_checkpoints import write_files
from builders.pipeline_tiny import tool
from safetensors.torch import save_file

from symerge_dense.datasets.rooms.render import render_set
from symerge_dense.fileio import atomic_write, write_text
from symerge_dense.models.checkpoint import save_model


def model_file(folder):
    save_model(folder / "new" / "expert.safetensors", next(iter(tiny.family()[1].values())))


def merged_file(folder):
    files = write_files(folder)
    for path in folder.iterdir():
        path.chmod(0o400)  # inputs say nothing about the result
    assert tool("merge.py", *files.arguments("average")) == 0


def library_files(folder):
    with atomic_write(folder / "a.safetensors") as temporary:
        save_file({"a": torch.ones(1)}, temporary)
    with atomic_write(folder / "a.pth") as temporary:
        torch.save({"a": torch.ones(1)}, temporary)
    with atomic_write(folder / "a.npy") as temporary:
        np.lib.format.open_memmap(temporary, "w+", np.float16, (2,)).flush()
    write_text(folder / "a.txt", "a")


def rendered_rooms(folder):
    render_set(folder / "rooms", "val", 1, (8, 8), 0, workers=1)


def replaced_file(folder):
    (folder / "a.txt").write_text("old")
    (folder / "a.txt").chmod(0o600)
    write_text(folder / "a.txt", "new")


@pytest.mark.parametrize("write", [model_file, merged_file, library_files, rendered_rooms, replaced_file])
@pytest.mark.parametrize(("mask", "of_files", "of_folders"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_files_and_folders_get_what_the_umask_leaves(write, mask, of_files, of_folders, tmp_path):
    before = os.umask(mask)
    try:
        write(tmp_path)
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    written = {path: mode for path, mode in found.items() if mode != 0o400}
    assert written and all(mode == (of_folders if path.is_dir() else of_files) for path, mode in written.items())
    assert not list(tmp_path.rglob(".*")), "nothing temporary is left"


def test_a_block_that_writes_nothing_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "new" / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []
