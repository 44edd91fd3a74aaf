"""The benchmark of file merges, on checkpoints of one block."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path

import pytest
import torch
from builders.pipeline_tiny import tool
from safetensors.torch import load_file

from symerge_dense.pipeline.profiling import file_merge as merge_cost
from symerge_dense.pipeline.profiling.file_merge import (
    PACK,
    PLAIN,
    UNPACK,
    generate,
    measure_process,
    own_memory,
    plain_pass,
    remove,
    work,
)
from symerge_dense.progress import Bar, silent


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(merge_cost, "WIDTH", 64)
    monkeypatch.setattr(merge_cost, "POOL", 1 << 16)
    with silent():
        generate(tmp_path / "c", 100e3 / 1e9, 2)
    return tmp_path / "c"


def test_checkpoints_are_of_the_size_asked_for_and_differ(checkpoints: Path) -> None:
    states = {path.stem: load_file(path) for path in checkpoints.iterdir()}
    assert set(states) == {"base", "expert0", "expert1"}
    sizes = {sum(value.numel() for value in state.values()) for state in states.values()}
    assert sizes == {2 * (3 * 64 * 64 + 64)}  # two blocks
    for name, value in states["base"].items():
        assert 0.01 < value.std() < 0.03
        assert not torch.equal(states["expert0"][name] - value, states["expert1"][name] - value)


def test_the_plain_pass_reads_everything_and_writes_the_base(checkpoints: Path, tmp_path: Path) -> None:
    inputs = sorted(checkpoints.iterdir())
    plain_pass(inputs, tmp_path / "out")
    content = inputs[0].read_bytes()
    assert (tmp_path / "out").read_bytes() == content[8 + int.from_bytes(content[:8], "little") :]


@pytest.mark.parametrize("contenders", [[PLAIN], ["ties"], [PACK, UNPACK]])
def test_work_leaves_the_checkpoints_alone(checkpoints: Path, contenders: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    assert set(before) == {"base.safetensors", "expert0.safetensors", "expert1.safetensors"}
    assert all(work(checkpoints, contender) > 0 for contender in contenders)
    after = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    packed = after.pop("packed.safetensors", None)
    assert after == before and (packed is not None) == (PACK in contenders)
    remove(checkpoints)
    assert not checkpoints.exists()


def test_only_generated_files_are_removed(checkpoints: Path) -> None:
    (checkpoints / "mine.txt").write_text("precious")
    remove(checkpoints)
    assert [path.name for path in checkpoints.iterdir()] == ["mine.txt"]


def test_a_process_that_fails_is_named_with_what_it_printed() -> None:
    with pytest.raises(ValueError, match=r"^json\.tool nothing\.json failed: [\s\S]*No such file"):
        measure_process(["json.tool", "nothing.json"], 1)


def test_a_process_that_takes_more_memory_than_it_may_is_ended() -> None:
    words = ["timeit", "-n1", "-r1", "-s", "import time", "data = b'x' * 200_000_000; time.sleep(60)"]
    with pytest.raises(ValueError, match=r"^timeit .* takes 0\.[12]\d GB of memory, and --memory 0\.1 was allowed\.$"):
        measure_process(words, 1, memory=0.1)
    assert measure_process(["timeit", "-n1", "-r1", "data = b'x' * 50_000"], 1, memory=0.1)[1] < 100e6


def test_memory_of_a_process() -> None:
    before = own_memory(os.getpid())
    # new memory, not what an earlier test gave back
    with mmap.mmap(-1, 80_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(bytes(80_000_000))
        assert 70e6 < own_memory(os.getpid()) - before < 180e6
    assert own_memory(2**22 + 1) == 0


def test_the_tool_measures_and_removes_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(merge_cost, "WIDTH", 64)
    monkeypatch.setattr(merge_cost, "POOL", 1 << 16)
    words = ["--gigabytes", 1e-4, "--experts", 2, "--methods", UNPACK, "--threads", 1, "--rounds", 1, "--memory", 2]
    assert tool("benchmark.py", "merge", "--dir", tmp_path / "new", *words, "--json") == 0
    plain, unpack = json.loads(capfd.readouterr().out)["suites"]["merge"]
    assert (plain["contender"], plain["ratio"], unpack["contender"]) == (PLAIN, 1.0, UNPACK)
    assert 0 < unpack["seconds"] < 60 and 50 < unpack["mebibytes"] < 2000
    assert unpack["case"] == "2 experts of 0.0001 GB, at most 2 GB of memory"
    assert not (tmp_path / "new").exists()


def test_the_tool_refuses_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for words, wanted in [
        (["--dir", tmp_path], "no folder of a former run"),
        (["--dir", tmp_path / "new", "--experts", "0"], "experts=0 must be positive"),
        (["--dir", tmp_path / "new", "--memory", "0"], "memory=0.0 must be positive and finite; choose another"),
        (["--dir", tmp_path / "new", "--memory", "nan"], "memory=nan must be positive and finite; choose another"),
        (["--dir", tmp_path / "new", "--gigabytes", "nan"], "gigabytes=nan must be positive and finite"),
        (["--dir", tmp_path / "new", "--gigabytes", "inf"], "gigabytes=inf must be positive and finite"),
        (["--dir", tmp_path / "new", "--methods", "fisher"], "error: fisher needs fisher of every expert"),
        (["--dir", tmp_path / "new", "--methods", "emr"], "error: emr gives every task weights of its own"),
        (["--dir", tmp_path / "new", "--methods", "averge"], "Did you mean 'average'"),
        (["--dir", tmp_path / "new", "--gigabytes", "1e9"], "choose fewer --gigabytes"),
        (["--keep"], "name one by --dir"),
        (["--batch-size", "2"], "benchmark merge does not take --batch-size, which is of step"),
    ]:
        assert tool("benchmark.py", "merge", *words) == 2
        assert wanted in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_page_that_cannot_be_written_is_found_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_cost, "merge_rows", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "file").write_text("precious")
    (tmp_path / "latin.md").write_bytes(b"d\xe9j\xe0")
    for page, wanted in [
        (tmp_path / "folder.md", "folder.md is a folder; name a page in it"),
        (tmp_path / "latin.md", "latin.md is not a text in UTF-8; name another page"),
        (tmp_path / "file" / "page.md", f"{tmp_path / 'file'}"),
    ]:
        assert tool("benchmark.py", "merge", "--dir", tmp_path / "new", "--append", page) == 2
        assert wanted in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.md", "latin.md"]


def test_a_bar_takes_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("bytes", 10) as bar:
        bar.advance(by=7)
        bar.advance()
    assert bar.done == 8 and "bytes: 8/10" in capsys.readouterr().out
