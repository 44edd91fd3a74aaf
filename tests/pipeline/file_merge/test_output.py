"""Shards and their index: the merge in several files, read by this package and by Hugging Face's, or nothing at all."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from builders.merge_checkpoints import Files, record, same, write_files, write_models
from builders.pipeline_tiny import tool
from huggingface_hub import load_state_dict_from_file
from safetensors.torch import load_file
from torch import Tensor

from symerge_dense.merging.safetensors_writer import TensorFile
from symerge_dense.merging.sources import open_source
from symerge_dense.pipeline.file_merge.weights import merge

NO_SIZES = "much", "abc", "nan", "nanGB", "infGB", "0", "0GB", "0.0001KB", "1.5"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-of-*.safetensors"))


def test_shards_hold_what_one_file_holds(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("merge.py", *files.arguments("ties", "--hash", "--shard-size", "800")) == 0
    index = files.folder / "out.safetensors.index.json"
    assert f"{index}: ties of a, b" in capsys.readouterr().out.replace("\n", "") and not files.out.exists()
    assert tool("merge.py", *files.arguments("ties", "--hash", out="whole.safetensors")) == 0
    whole = load_file(files.folder / "whole.safetensors")
    assert same(dict(open_source(index)), whole)
    found = {name: value for path in shards(files.folder) for name, value in load_state_dict_from_file(path).items()}
    assert same(found, whole)
    content = json.loads(index.read_text())
    assert content["weight_map"] == {name: path.name for path in shards(files.folder) for name in load_file(path)}
    assert content["metadata"]["total_size"] == sum(value.nbytes for value in whole.values())
    assert len(shards(files.folder)) > 1 and max(value.nbytes for value in whole.values()) > 800
    assert all(record(path) == record(files.folder / "whole.safetensors") for path in shards(files.folder))


@pytest.mark.parametrize("size", [1 << 20, "5MB"])
def test_tensors_that_fit_into_one_shard_are_one_file(files: Files, size: int | str) -> None:
    experts = {name: files.folder / f"{name}.safetensors" for name in files.experts}
    merge("average", files.folder / "base.safetensors", experts, out=files.out, shard_size=size)
    assert same(load_file(files.out), merge("average", files.base, files.experts))
    assert not shards(files.folder)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        *(
            (["--shard-size", size], f"--shard-size {size}: must be at least 1 byte; give a number")
            for size in NO_SIZES
        ),
        (["--shard-size", "1GB", "--overwrite"], "remove the old ones, or leave it out"),
        (["--shard-size", "1GB", "--heads"], "--packed and --heads write one file; leave it out"),
    ],
)
def test_sizes_that_make_no_sense(
    files: Files, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert tool("merge.py", *files.arguments("average", *more)) == 2
    assert words in capsys.readouterr().err and files.nothing_written()


@pytest.mark.parametrize("size", ["-1", "-1GB"])
def test_a_negative_size_gives_the_same_message(files: Files, capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert tool("merge.py", *files.arguments("average", f"--shard-size={size}")) == 2
    said = capsys.readouterr().err
    assert f"--shard-size {size}: must be at least 1 byte; give a number" in said and files.nothing_written()


def test_shards_are_never_mixed_with_older_ones(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    (files.folder / "out-00001-of-00009.safetensors").write_text("precious")
    assert tool("merge.py", *files.arguments("average", "--shard-size", "800")) == 2
    assert "has out-00001-of-00009.safetensors already; remove the shards, or choose" in capsys.readouterr().err
    assert (files.folder / "out-00001-of-00009.safetensors").read_text() == "precious"


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_one_file_is_never_put_beside_its_own_shards(
    files: Files, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert tool("merge.py", *files.arguments("average", "--shard-size", "800", out="s/m.safetensors")) == 0
    capsys.readouterr()
    assert tool("merge.py", *files.arguments("average", *more, out="s/m.safetensors")) == 2
    said = capsys.readouterr().err
    assert "m.safetensors.index.json exists" in said and "choose another name, or remove the index" in said
    assert not (files.folder / "s" / "m.safetensors").exists()
    assert dict(open_source(files.folder / "s"))


def test_an_error_in_the_middle_leaves_no_shard(
    files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, written = signal.getsignal(signal.SIGTERM), list[str]()

    def write(self: TensorFile, name: str, tensor: Tensor) -> None:
        written.append(name)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorFile, "write", write)
    try:
        assert tool("merge.py", *files.arguments("average", "--shard-size", "800")) != 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "No space left on device" in capsys.readouterr().err and files.nothing_written()


def test_a_task_of_a_packed_merge_in_shards(files: Files) -> None:
    assert tool("merge.py", *files.arguments("emr", "--packed", out="packed.safetensors")) == 0
    words = ["--base", files.folder / "base.safetensors", "--task", "b", "--out"]
    for out, more in (("one.safetensors", []), ("many.safetensors", ["--shard-size", "800"])):
        assert tool("unpack.py", files.folder / "packed.safetensors", *words, files.folder / out, *more) == 0
    assert len(shards(files.folder)) > 1
    assert same(
        dict(open_source(files.folder / "many.safetensors.index.json")), load_file(files.folder / "one.safetensors")
    )


def test_models_of_this_package_are_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, words = write_models(tmp_path)
    packed, base = tmp_path / "packed.safetensors", words[words.index("--base") + 1]
    experts = words[words.index("--experts") + 1 :]
    assert tool("pack.py", "--base", base, "--experts", *experts, "--out", packed) == 0
    task = str(experts[0]).split("=")[0]
    out = ["--out", tmp_path / "out.safetensors", "--shard-size", "1KB"]
    assert tool("unpack.py", packed, "--base", base, "--task", task, *out) == 2
    assert "is a model of this package, which is one file; leave out --shard-size" in capsys.readouterr().err
