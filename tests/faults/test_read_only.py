"""A disk that may only be read, and folders that vanish: one message, exit code 2, before long work begins."""

import shutil
from pathlib import Path

import pytest
from builders import tiny
from builders.merge_checkpoints import write_files
from builders.nyu_mat_files import write_mat
from builders.photos import write_photos
from builders.pipeline_tiny import tool, write_config
from builders.studies import STUDY

from faults.full_disk import disk, may_mount, mount
from symerge_dense.experts import training
from symerge_dense.models.checkpoint import save_model
from symerge_dense.pipeline import expert_store
from symerge_dense.studies.frame.cache import RunCache

pytestmark = pytest.mark.skipif(not may_mount(), reason="file systems may not be mounted here")


@pytest.fixture
def closed(tmp_path):
    """A folder on a disk that may only be read."""
    folder = tmp_path / "closed"
    with disk(folder, 1 << 26):
        assert mount(folder, "-o", "remount,ro")
        yield folder


@pytest.fixture
def trained(monkeypatch):
    """Names of what was trained."""
    found, fit = [], training.fit
    monkeypatch.setattr(
        expert_store, "fit", lambda *given, **named: found.append(named["title"]) or fit(*given, **named)
    )
    return found


def train(folder: Path, closed: Path, **more: Path):
    return ["train.py", write_config(folder, **more), "--work-dir", folder / "run"]


COMMANDS = {
    "train, --work-dir": lambda folder, closed: [*train(folder, closed)[:2], "--work-dir", closed / "run"],
    "train, rooms": lambda folder, closed: train(folder, closed, rooms=closed / "rooms"),
    "train, experts": lambda folder, closed: train(folder, closed, experts=closed / "experts"),
    "compare, --work-dir": lambda folder, closed: ["compare.py", write_config(folder), "--work-dir", closed / "run"],
    "merge": lambda folder, closed: [
        "merge.py",
        *write_files(folder).arguments("ties", out=str(closed / "out.safetensors")),
    ],
    "merge, shards": lambda folder, closed: [
        "merge.py",
        *write_files(folder).arguments("ties", "--shard-size", "2KB", out=str(closed / "out.safetensors")),
    ],
    "pack": lambda folder, closed: [
        "pack.py",
        *write_files(folder).arguments("ties", out=str(closed / "out.safetensors"))[2:],
    ],
    "study, --cache": lambda folder, closed: study(folder, closed / "cache", folder / "run"),
    "study, --work-dir": lambda folder, closed: study(folder, folder / "cache", closed / "run"),
    "predict": lambda folder, closed: ["predict.py", *_model(folder), "--out", closed / "seen", "--device", "cpu"],
    "export, onnx": lambda folder, closed: _export(folder, closed / "out.onnx", "onnx"),
    "export, torch-export": lambda folder, closed: _export(folder, closed / "out.pt2", "torch-export"),
    "export, safetensors": lambda folder, closed: _export(folder, closed / "out.safetensors", "safetensors"),
    "export, timm": lambda folder, closed: [*_export(folder, closed / "out.safetensors", "safetensors"), "--timm"],
    "export, hub": lambda folder, closed: _export(folder, closed / "out", "hub"),
    "unpack": lambda folder, closed: [*_packed(folder), "--task", "a", "--out", closed / "out.safetensors"],
    "prepare-data": lambda folder, closed: [
        "prepare_data.py",
        "nyuv2",
        _raw(folder),
        "--from",
        "mat",
        "--out",
        closed / "out",
    ],
}


def study(folder: Path, cache: Path, work_dir: Path):
    config = write_config(folder, more=STUDY)
    return ["study.py", config, "--cache", cache, "--work-dir", work_dir]


def _model(folder: Path):
    path, model = folder / "model.safetensors", tiny.family()[2]
    save_model(path, model, {"image_size": [32, 48]})
    return path, *write_photos(folder / "photos", 1, (32, 48))


def _export(folder: Path, out: Path, kind: str):
    return ["export.py", _model(folder)[0], "--to", kind, "--out", out]


def _packed(folder: Path):
    given = write_files(folder)
    assert tool("pack.py", *given.arguments("ties", out="packed.safetensors")[2:]) == 0
    return ["unpack.py", folder / "packed.safetensors", "--base", folder / "base.safetensors"]


def _raw(folder: Path) -> Path:
    write_mat(folder, count=4, train=(1, 2), normals="tgz")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_may_only_be_read_is_named_before_the_work(tmp_path, closed, trained, capsys, name):
    words = COMMANDS[name](tmp_path, closed)
    capsys.readouterr()
    assert tool(*words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(errors) == 1 and errors[0].startswith("error: ") and "Traceback" not in errors[0]
    assert str(closed) in errors[0] and "Read-only file system" in errors[0] and ".part" not in errors[0]
    assert trained == [] and list(closed.iterdir()) == []
    assert not (tmp_path / "run").exists(), "a run that did nothing leaves nothing"


def test_caches_that_are_whole_may_lie_on_such_a_disk(tmp_path):
    shared = tmp_path / "shared"
    with disk(shared, 1 << 28):
        config = write_config(tmp_path, rooms=shared / "rooms", experts=shared / "experts")
        assert tool("train.py", config, "--work-dir", tmp_path / "first") == 0
        assert mount(shared, "-o", "remount,ro")
        assert tool("train.py", config, "--work-dir", tmp_path / "second") == 0


def test_a_run_whose_folder_vanishes_ends_with_one_message(tmp_path, capsys, monkeypatch):
    config, run = write_config(tmp_path), tmp_path / "run"
    fit = training.fit

    def vanish(*given, **named):
        if named["title"] == "expert normals":
            shutil.rmtree(tmp_path / "experts")
        return fit(*given, **named)

    monkeypatch.setattr(expert_store, "fit", vanish)
    code = tool("train.py", config, "--work-dir", run)
    told = capsys.readouterr().err
    assert code == 2 and told.count("error: ") == 1 and "Traceback" not in told and str(tmp_path / "experts") in told
    monkeypatch.undo()
    assert tool("train.py", config, "--work-dir", run, "--resume") == 0


def test_a_cache_of_studies_on_such_a_disk_needs_no_lock(closed):
    cache, begun = RunCache(closed), []
    with cache.locked("a"):
        begun.append("whole")
    with pytest.raises(OSError, match="Read-only"), RunCache(closed / "missing").locked("a"):
        begun.append("missing")
    assert begun == ["whole"]
