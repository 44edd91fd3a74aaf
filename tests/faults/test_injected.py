"""Errors that a disk tells late or elsewhere: at the sync, the close, the rename, the next line of a log."""

import errno

import pytest
from builders import tiny
from builders.merge_checkpoints import write_files
from builders.photos import photo
from builders.pipeline_tiny import tool

from faults.full_disk import FULL
from faults.injected import CODES, Disk, Injected, failing
from faults.jobs import Job
from symerge_dense.commands.cli import run_tool
from symerge_dense.fileio import temporary_folder, write_text
from symerge_dense.inference.video_files import video_file
from symerge_dense.models.checkpoint import save_model


def told(capsys):
    return capsys.readouterr().err


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in CODES if kind != "append"])
def test_a_file_stays_as_it_was_whichever_call_fails(tmp_path, capsys, kind, lasting):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for number in (1, 2):
        disk = Disk(tmp_path, number, errno.ENOSPC, lasting, kind)
        with failing(disk):
            code = run_tool(lambda: write_text(path, "new" * 9000))
        if len(disk.calls) < number:
            break
        assert code == 2 and told(capsys) == f"error: {path} {FULL}\n"
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "new" * 9000 or number == 2


def test_a_disk_that_knows_no_sync_is_written_to(tmp_path):
    with failing(Disk(tmp_path, 1, errno.EINVAL, True, "sync")):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_an_error_without_a_name_within_a_folder_gets_that_of_the_folder(tmp_path):
    with pytest.raises(OSError) as found, temporary_folder(tmp_path / "a"):
        raise OSError(errno.EIO, "Input/output error")
    assert found.value.filename == str(tmp_path / "a") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lasting", [False, True])
def test_a_merge_in_shards_leaves_nothing_whichever_call_fails(tmp_path, capsys, lasting):
    (tmp_path / "made").mkdir()
    given = write_files(tmp_path)
    out = tmp_path / "made" / "out.safetensors"
    words = ["merge.py", *given.arguments("average", "--shard-size", "2KB", out=str(out))]
    number, code = 0, 2
    while code:
        number += 1
        capsys.readouterr()
        disk = Disk(tmp_path / "made", number, errno.ENOSPC, lasting)
        with failing(disk):
            code = tool(*words)
        if code:
            assert code == 2 and told(capsys).count(FULL) == 1, disk.calls[number - 1]
            assert list((tmp_path / "made").iterdir()) == [], disk.calls[number - 1]
    assert number > len(disk.calls) > 15
    kinds = [kind for kind, _ in disk.calls]
    assert set(kinds[kinds.index("rename") :]) == {"rename"}, (
        "whoever kills it between two shards' names loses all of it"
    )


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("kind", ["create", "rename"])
def test_a_video_leaves_nothing_whichever_call_fails(tmp_path, capsys, kind, lasting):
    def write():
        with video_file(tmp_path / "seen" / "a.mp4", 10) as add:
            add(photo(0, (48, 64)))

    number, code = 0, 2
    while code:
        number += 1
        disk = Disk(tmp_path, number, errno.ENOSPC, lasting, kind)
        with failing(disk):
            code = run_tool(write)
        errors = told(capsys)
        assert not code or (errors.endswith(f"{FULL}\n") and ".part" not in errors and not list(tmp_path.iterdir()))
    assert number == len(disk.calls) + 1 > 2


def test_an_export_on_a_full_disk_does_not_blame_the_network(tmp_path, capsys):
    save_model(tmp_path / "model.safetensors", tiny.family()[2], {"image_size": [32, 48]})
    out = tmp_path / "out.pt2"
    with failing(Disk(tmp_path, 1, errno.ENOSPC, True, "write ")):
        assert tool("export.py", tmp_path / "model.safetensors", "--to", "torch-export", "--out", out) == 2
    assert told(capsys) == f"error: {out} {FULL}\n" and not out.exists()


# -- the harness ------------------------------------------------------------------------------------------------------
def test_a_job_that_hides_an_error_is_caught(tmp_path):
    def prepare(given, made):
        (given / "careless.py").write_text(
            "import sys, pathlib\nfolder = pathlib.Path(sys.argv[1])\nfolder.mkdir(parents=True, exist_ok=True)\n"
            "try:\n    (folder / 'a.json').write_text('[1]')\nexcept OSError:\n    pass\n"
        )
        return [given / "careless.py", made]

    trial = Injected(Job("careless", 1, prepare, last="a.json"), tmp_path.resolve())
    number = next(number for number, (kind, _) in enumerate(trial.calls, 1) if kind == "write")
    trial.fail(number, errno.ENOSPC, True)
    assert trial.counts["messages"] == trial.counts["half-written"] == trial.counts["losses"] == 1, trial.faults
