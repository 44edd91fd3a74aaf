"""tools/pack.py and back: size, every task by tools/unpack.py, models of this package, damaged files, wrong words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.merge_checkpoints import same, write_models
from builders.pipeline_tiny import tool
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from symerge_dense.models.checkpoint import load_model
from symerge_dense.models.weight_files import read_metadata
from symerge_dense.pipeline.file_merge import open_packed
from symerge_dense.pipeline.file_merge.weights import merge

State = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """base, a and b .safetensors, mostly of one matrix."""
    torch.manual_seed(0)
    base = {"fc.weight": torch.randn(600, 300), "fc.bias": torch.randn(600), "count": torch.tensor([3])}
    save_file(base, tmp_path / "base.safetensors")
    for task in "ab":
        learned = {"fc.weight": base["fc.weight"] + 0.01 * torch.randn(600, 300), "fc.bias": torch.randn(600)}
        save_file({**base, **learned, "count": torch.tensor([ord(task)])}, tmp_path / f"{task}.safetensors")
    return tmp_path


def pack(folder: Path, *more: object, tasks: str = "ab") -> int:
    experts = [f"{task}={folder / task}.safetensors" for task in tasks]
    words = ["--base", folder / "base.safetensors", "--experts", *experts, "--out", folder / "packed.safetensors"]
    return tool("pack.py", *words, *more)


def unpack(folder: Path, *more: object, task: str = "b", base: str = "base") -> int:
    words = ["--base", folder / f"{base}.safetensors", "--task", task, "--out", folder / "out.safetensors"]
    return tool("unpack.py", folder / "packed.safetensors", *words, *more)


def rewrite(folder: Path, tensors: dict[str, Tensor | None], change: Callable[[dict[str, Any]], object] = dict) -> None:
    """Write the packed file anew, with other tensors and another record."""
    path = folder / "packed.safetensors"
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["packed_experts"])
    change(record)
    state = {name: value for name, value in {**load_file(path), **tensors}.items() if value is not None}
    save_file(state, path, {"packed_experts": json.dumps(record)})


@pytest.mark.parametrize(
    ("words", "bits", "bound"),
    [
        (["--bits", 3, "--per", "tensor"], 3, 0.5),
        (["--bits", 4, "--per", "tensor"], 4, 0.25),
        (["--bits", 2, "--shared-bits", 3], 3.5, 1.0),  # 2 for each task, 3 for both
        ([], 4, 0.15),
    ],
)
def test_every_task_comes_back_from_a_file_of_that_many_bits(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[object], bits: float, bound: float
) -> None:
    assert pack(folder, *words, "--dry-run") == 0 and not (folder / "packed.safetensors").exists()
    assert pack(folder, *words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    size, whole = (
        sum((folder / f"{name}.safetensors").stat().st_size for name in names) for names in (["packed"], "ab")
    )
    assert bits / 32 < size / whole < bits / 32 + 0.03
    assert printed.count(f"{size / 2**20:.1f} MiB, {size / whole:.1%} of the {whole / 2**20:.1f} MiB") == 2
    base = load_file(folder / "base.safetensors")
    for task in "ab":
        assert unpack(folder, "--overwrite", task=task) == 0
        found, expert = load_file(folder / "out.safetensors"), load_file(folder / f"{task}.safetensors")
        assert found.keys() == expert.keys()
        assert torch.equal(found["fc.bias"], expert["fc.bias"]) and torch.equal(found["count"], expert["count"])
        lost, own = (found["fc.weight"] - expert["fc.weight"]).norm(), (expert["fc.weight"] - base["fc.weight"]).norm()
        assert 0 < lost / own < bound
        assert f"{task}: relative error of the task vector {lost / own:.3f}" in printed


def test_equal_inputs_write_equal_bytes(folder: Path) -> None:
    found = []
    for tasks in ("ab", "ab", "ba"):
        assert pack(folder, "--shared-bits", 3, "--overwrite", tasks=tasks) == 0
        found.append((folder / "packed.safetensors").read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("words", [[], ["--bits", 3, "--shared-bits", 4, "--per", "tensor"]])
def test_models_of_this_package_come_back_whole(tmp_path: Path, words: list[object]) -> None:
    _, experts, named = write_models(tmp_path)
    packed = tmp_path / "packed.safetensors"
    assert tool("pack.py", *named, "--out", packed, *words) == 0
    for task, expert in experts.items():
        out = tmp_path / "out.safetensors"
        more = ["--base", tmp_path / "base.safetensors", "--task", task, "--out", out, "--overwrite"]
        assert tool("unpack.py", packed, *more) == 0
        model, record = load_model(out)
        old = read_metadata(tmp_path / f"{task}.safetensors")
        assert {**record, "hash": ""} == {**old, "hash": ""} and list(model.tasks) == list(expert.tasks)
        assert same(dict(model.heads.state_dict()), dict(expert.heads.state_dict()))
        with safe_open(out, framework="pt") as file:
            assert json.loads(file.metadata()["unpacked"])["task"] == task
        images = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            one, other = (network.eval()(images)[task] for network in (model, expert))
        assert one.shape == other.shape and bool(one.isfinite().all())


def test_outside_of_a_prefix_all_is_kept(folder: Path) -> None:
    for name in ("base", "a", "b"):
        state = load_file(folder / f"{name}.safetensors")
        more = {} if name == "base" else {f"head_{name}.weight": torch.randn(64, 64)}
        save_file({**{f"encoder.{key}": value for key, value in state.items()}, **more}, folder / f"{name}.safetensors")
    assert pack(folder, "--prefix", "encoder.") == 0 and unpack(folder) == 0
    found, expert = load_file(folder / "out.safetensors"), load_file(folder / "b.safetensors")
    assert found.keys() == expert.keys() and torch.equal(found["head_b.weight"], expert["head_b.weight"])
    assert 0 < (found["encoder.fc.weight"] - expert["encoder.fc.weight"]).abs().max() < 0.01


@pytest.mark.parametrize("how", [["--key", "teacher"], ["--ema"]])
def test_experts_and_base_come_from_files_of_several_networks(folder: Path, how: list[str]) -> None:
    for name in ("base", "a", "b"):
        state = load_file(folder / f"{name}.safetensors")
        others = {key: value + 1 for key, value in state.items()}
        first, second = ("student", "teacher") if "--key" in how else ("state_dict", "state_dict_ema")
        torch.save({first: others, second: state}, folder / f"{name}.pth")
    experts = [f"{task}={folder / task}.pth" for task in "ab"]
    packed = folder / "packed.safetensors"
    assert tool("pack.py", "--base", folder / "base.pth", "--experts", *experts, "--out", packed, *how) == 0
    words = ["--base", folder / "base.pth", "--task", "b", "--out", folder / "out.safetensors"]
    assert tool("unpack.py", packed, *words) == 0
    assert torch.equal(load_file(folder / "out.safetensors")["count"], torch.tensor([ord("b")]))


def test_packed_experts_are_merged_from_their_file(folder: Path) -> None:
    assert pack(folder, "--bits", 8) == 0
    base = folder / "base.safetensors"
    experts = open_packed(str(folder / "packed.safetensors"), str(base))
    merged = merge("average", base, experts)
    exact = merge("average", base, {task: folder / f"{task}.safetensors" for task in "ab"})
    assert isinstance(merged, dict) and isinstance(exact, dict)
    assert torch.equal(merged["fc.bias"], exact["fc.bias"])
    assert 0 < (merged["fc.weight"] - exact["fc.weight"]).abs().max() < 1e-3


def test_the_base_may_move_but_must_be_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(folder) == 0
    shutil.move(folder / "base.safetensors", folder / "moved.safetensors")
    assert unpack(folder, base="moved") == 0
    assert unpack(folder, "--overwrite", base="a") == 2
    assert "a.safetensors is not the base that" in capsys.readouterr().err


CODES = "codes.b.fc.weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({CODES: torch.zeros(3, 22500, dtype=torch.uint8)}, "codes of 'b.fc.weight': (3, 22500) of torch.uint8, but 4"),
        ({CODES: torch.zeros(4, 22500, dtype=torch.uint8)}, "the weights of b are not those that were packed"),
        ({CODES: None}, "b lacks 'fc.weight' in the packed file; copy the file again, or pack again"),
        ({"zero.b.fc.weight": None}, "there is no 'zero.b.fc.weight' in the packed file"),
        ({"step.b.fc.weight": torch.full((600,), float("nan"))}, "NaN, infinite or below 0"),
        ({"kept.b.fc.bias": torch.zeros(5)}, "'kept.b.fc.bias' is (5,) of torch.float32, the base's tensor (600,)"),
        ({"kept.b.fc.bias": torch.zeros(600)}, "(their hash differs); copy the file again, or pack again"),
        ({"kept.c.fc.bias": torch.zeros(600)}, "holds tensors of 3: a, b, c, but its record names 2: a, b"),
    ],
)
def test_a_damaged_file_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], tensors: dict[str, Tensor | None], message: str
) -> None:
    assert pack(folder) == 0
    rewrite(folder, tensors)
    assert unpack(folder) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (folder / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(bits=3), "4, 22500) of torch.uint8, but 3 bits per value"),
        (lambda record: record.update(bits="x"), "its record says bits='x'; give a whole number from 1 to 8"),
        (lambda record: record.pop("per"), "is damaged: its record says"),
        (lambda record: record.update(shared_bits=2), "there is no 'shared_codes.fc.weight' in the packed file"),
        (lambda record: record.update(format=2), "has format 2, this version reads 1; update the package"),
        (lambda record: record["experts"].pop("a"), "holds tensors of 2: a, b, but its record names 1: b"),
        (lambda record: record.update(experts={}), "or a damaged record of them; write it by tools/pack.py"),
        (lambda record: record.update(base=[{"file": 3}]), "or a damaged record of them"),
        (lambda record: record["experts"]["b"].update(header={"symerge_dense": "[]"}), "or a damaged record of them"),
        (lambda record: record["experts"]["b"].update(header=[]), "or a damaged record of them"),
    ],
)
def test_a_record_is_untrusted(
    folder: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    assert pack(folder) == 0
    rewrite(folder, {}, change)
    assert unpack(folder) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (folder / "out.safetensors").exists()


def test_a_truncated_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(folder) == 0
    path = folder / "packed.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert unpack(folder) == 2
    assert "packed.safetensors is no safetensors file, truncated or damaged" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"a\.safetensors holds no packed experts"):
        open_packed(str(folder / "a.safetensors"), str(folder / "base.safetensors"))
    with pytest.raises(ValueError, match="there is no file"):
        open_packed(str(folder / "none.safetensors"), str(folder / "base.safetensors"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bits", 9], "bits=9; give a whole number from 1 to 8"),
        (["--per", "row"], "unknown per 'row'"),
        (["--out", "packed.pth"], "must end in .safetensors"),
        (["--prefix", "encoder."], "no tensor name starts with 'encoder.'"),
    ],
)
def test_wrong_words(folder: Path, capsys: pytest.CaptureFixture[str], words: list[object], message: str) -> None:
    assert pack(folder, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (folder / "packed.safetensors").exists()


def test_what_exists_stays_and_other_tasks_are_unknown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(folder) == 0 and pack(folder) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert unpack(folder, task="c") == 2 and "unknown task of" in capsys.readouterr().err
    assert pack(folder, "--shared-bits", 3, "--overwrite", tasks="a") == 2
    assert "there is one, a; give shared_bits=0" in capsys.readouterr().err
    assert pack(folder, "--overwrite", tasks="a") == 0 and unpack(folder, task="a") == 0


def test_experts_that_diverged_are_not_packed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_file(folder / "a.safetensors")
    state["fc.weight"][3, 3] = float("nan")
    save_file(state, folder / "a.safetensors")
    assert pack(folder) == 2
    assert "a: tensor 'fc.weight' holds NaN or infinite values; train or export it again" in capsys.readouterr().err
    assert not (folder / "packed.safetensors").exists()
