"""tools/unpack.py: from a packed merge of all tasks, each task's weights as tools/merge.py --task writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from builders.merge_checkpoints import Files, record, same, write_files, write_models
from builders.pipeline_tiny import tool
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from symerge_dense.merging.masked import Masked
from symerge_dense.pipeline.file_merge.inputs import file_identity
from symerge_dense.registry import MERGERS

MASKED = [name for name in MERGERS if issubclass(MERGERS[name], Masked)]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


@pytest.fixture
def packed(files: Files) -> Path:
    assert tool("merge.py", *files.arguments("emr", "--packed", out="packed.safetensors")) == 0
    return files.folder / "packed.safetensors"


def unpack(files: Files, *more: object, task: str = "b", base: object = None, source: object = None) -> int:
    return tool(
        "unpack.py",
        source or files.folder / "packed.safetensors",
        "--base",
        base or files.folder / "base.safetensors",
        "--task",
        task,
        "--out",
        files.out,
        *more,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", MASKED)
def test_every_task_comes_back_bit_for_bit(files: Files, method: str, dtype: torch.dtype) -> None:
    for name, state in {"base": files.base, **files.experts}.items():
        cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        save_file(cast, files.folder / f"{name}.safetensors")
    more = ["--statistics", "moments"]
    assert tool("merge.py", *files.arguments(method, "--packed", *more, out="packed.safetensors")) == 0
    for task in files.experts:
        assert tool("merge.py", *files.arguments(method, "--task", task, *more, out=f"alone_{task}.safetensors")) == 0
        assert unpack(files, "--overwrite", task=task) == 0
        assert same(load_file(files.out), load_file(files.folder / f"alone_{task}.safetensors"))
        assert record(files.out)["task"] == task and record(files.out)["method"] == method


def test_a_mask_is_one_bit_per_weight_and_task(files: Files, packed: Path) -> None:
    with safe_open(packed, framework="pt") as file:
        sizes = {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118 - a file, not a mapping
    weights = {name: value for name, value in files.base.items() if "running" not in name and "num" not in name}
    for task in files.experts:
        assert {name: sizes[f"mask.{task}.{name}"] for name in weights} == {
            name: -(-value.numel() // 8) for name, value in weights.items()
        }
    shared = sum(size for name, size in sizes.items() if name.startswith("shared."))
    assert shared == sum(value.nbytes for value in weights.values())
    assert {name for name in sizes if name.startswith("kept.")} == {
        f"kept.{name}" for name in files.base if name not in weights
    }


def test_of_this_package_s_models_the_names_keep_their_prefix(tmp_path: Path) -> None:
    _, experts, words = write_models(tmp_path)
    task = next(iter(experts))
    assert tool("merge.py", "--method", "tall_masks", *words, "--packed", "--out", tmp_path / "p.safetensors") == 0
    assert tool("merge.py", "--method", "tall_masks", *words, "--task", task, "--out", tmp_path / "t.safetensors") == 0
    assert (
        tool(
            "unpack.py",
            tmp_path / "p.safetensors",
            "--base",
            tmp_path / "base.safetensors",
            "--task",
            task,
            "--out",
            tmp_path / "u.safetensors",
        )
        == 0
    )
    assert same(load_file(tmp_path / "u.safetensors"), load_file(tmp_path / "t.safetensors"))


def test_a_dry_run_tells_the_size_of_the_packed_file(
    files: Files, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool("merge.py", *files.arguments("emr", "--packed", "--dry-run", out="other.safetensors")) == 0
    assert f"writes {packed.stat().st_size / 2**20:.1f} MiB" in " ".join(capsys.readouterr().out.split())


def test_the_base_may_move_but_must_be_the_same(files: Files, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = files.folder / "moved.safetensors"
    shutil.move(files.folder / "base.safetensors", moved)
    assert unpack(files, base=moved) == 0
    files.out.unlink()
    assert unpack(files, base=files.folder / "a.safetensors") == 2
    assert "a.safetensors is not the base that" in capsys.readouterr().err and not files.out.exists()


@pytest.mark.parametrize("how", [["--key", "base=teacher"], ["--key", "teacher"], ["--ema"]])
def test_the_base_is_chosen_from_its_file_as_it_was_for_the_merge(files: Files, how: list[str]) -> None:
    other = {name: value + 1 for name, value in files.base.items()}
    names = ("state_dict", "state_dict_ema") if how == ["--ema"] else ("student", "teacher")
    base = files.folder / "several.pth"
    torch.save(dict(zip(names, (other, files.base), strict=True)), base)
    words = files.arguments("emr", "--packed", *how, out="packed.safetensors")
    words[words.index("--base") + 1] = str(base)
    if how == ["--key", "teacher"]:  # of all inputs
        for name, state in files.experts.items():
            torch.save({"teacher": state}, files.folder / f"{name}.pth")
        words = [word.replace("a.safetensors", "a.pth").replace("b.safetensors", "b.pth") for word in words]
    assert tool("merge.py", *words) == 0
    assert unpack(files, base=base) == 0
    assert tool("merge.py", *files.arguments("emr", "--task", "b", out="alone.safetensors")) == 0
    assert same(load_file(files.out), load_file(files.folder / "alone.safetensors"))


def test_a_change_that_samples_miss_is_another_base(
    files: Files, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.folder / "base.safetensors"
    state = {name: torch.randn(3_000_000) for name in "uv"}
    for name in ("base", "a", "b"):
        save_file(state, files.folder / f"{name}.safetensors")
    assert tool("merge.py", *files.arguments("emr", "--packed", "--overwrite", out="packed.safetensors")) == 0
    sampled = file_identity(path)["sampled_sha256"]
    state["v"][1_030_000] += 1
    save_file(state, path)
    assert file_identity(path)["sampled_sha256"] == sampled
    assert unpack(files) == 2 and "is not the base that" in capsys.readouterr().err and not files.out.exists()


def test_a_single_expert_is_not_packed(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--packed", "--experts", f"a={files.folder / 'a.safetensors'}"]
    assert tool("merge.py", *files.arguments("emr", *words)) == 2
    assert "there is one expert, a; packing is for the weights of two and more" in capsys.readouterr().err
    assert not files.out.exists()


def test_a_vector_that_overflows_is_not_written(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    for name, expert in files.experts.items():
        save_file({**expert, "fc.weight": torch.full((20, 30), 3e38)}, files.folder / f"{name}.safetensors")
    assert tool("merge.py", *files.arguments("tall_masks", "--packed")) == 2
    assert "tall_masks: shared 'fc.weight' exceeds the range of torch.float32" in capsys.readouterr().err
    assert files.nothing_written()


def test_names_are_no_markup(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--packed",
        "--experts",
        f"[/b]={files.folder / 'a.safetensors'}",
        f"b={files.folder / 'b.safetensors'}",
        "--threshold",
        "{'[/b]': 0.2, 'b': 0.3}",
    ]
    assert tool("merge.py", *files.arguments("tall_masks", "--dry-run", *words)) == 0
    assert "'[/b]': 0.2" in capsys.readouterr().out
    assert tool("merge.py", *files.arguments("tall_masks", *words, out="packed.safetensors")) == 0
    assert unpack(files, task="[/b]") == 0


def damage(packed: Path, **tensors: torch.Tensor | None) -> None:
    """Write ``packed`` anew with other tensors, or without them."""
    with safe_open(packed, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(packed)
    for key, value in tensors.items():
        name = key.replace("__", ".")
        state.pop(name)
        if value is not None:
            state[name] = value
    save_file(state, packed, metadata)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"mask__b__fc__weight": None}, "there is no 'mask.b.fc.weight' among the packed tensors"),
        ({"mask__b__fc__weight": torch.zeros(3, dtype=torch.uint8)}, "a packed mask of shape (20, 30) is uint8 of 75 "),
        ({"shared__fc__weight": torch.zeros(20, 31)}, "'shared.fc.weight' is (20, 31) of torch.float32, the base's"),
        (
            {"kept__bn__running_mean": torch.zeros(7)},
            "'kept.bn.running_mean' is (7,) of torch.float32, the base's tensor",
        ),
        (
            {"factor__b": torch.zeros(2)},
            "'factor.b' is [0.0, 0.0] of torch.float32; it must be one finite float64 number",
        ),
        ({"factor__b": torch.tensor(float("nan")).double()}, "'factor.b' is [nan] of torch.float64"),
        ({"shared__fc__weight": torch.full((20, 30), float("nan"))}, "'shared.fc.weight' holds NaN or infinite values"),
        (
            {"kept__bn__running_var": torch.full((6,), float("inf"))},
            "'kept.bn.running_var' holds NaN or infinite values",
        ),
    ],
)
def test_a_damaged_packed_file_leaves_nothing(
    files: Files,
    packed: Path,
    capsys: pytest.CaptureFixture[str],
    tensors: dict[str, torch.Tensor | None],
    message: str,
) -> None:
    damage(packed, **tensors)
    assert unpack(files) == 2
    assert message in capsys.readouterr().err and not files.out.exists()


def test_wrong_arguments(files: Files, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unpack(files, task="c") == 2
    assert "unknown task of" in capsys.readouterr().err
    for source in (files.folder / "a.safetensors", files.folder / "base.pth"):
        torch.save(files.base, files.folder / "base.pth")
        assert unpack(files, source=source) == 2
        assert f"{source} is no packed merge; write one with tools/merge.py --packed" in capsys.readouterr().err
    assert unpack(files, source=files.folder / "nowhere.safetensors") == 2
    assert "there is no file" in capsys.readouterr().err
    files.out.write_text("precious")
    assert unpack(files) == 2 and files.out.read_text() == "precious"


RECORD = '{"packed": true, "prefix": "", "method": "emr", "experts": {"b": []}, "base": '


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"packed": true}',
        '{"packed": true, "prefix": 3}',
        "nonsense",
        RECORD + "[{}]}",
        RECORD + "[]}",
        RECORD + '[{"file": 1, "sha256": 2}]}',
        "[" * 200_000,
    ],
)
def test_a_record_is_untrusted(files: Files, packed: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    save_file(load_file(packed), packed, {"merge": text})
    assert unpack(files) == 2 and "is no packed merge" in capsys.readouterr().err


def test_a_task_whose_name_has_a_dot_is_refused(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--packed", "--experts", f"a.b={files.folder / 'a.safetensors'}", f"b={files.folder / 'b.safetensors'}"]
    assert tool("merge.py", *files.arguments("emr", *words)) == 2
    assert "task 'a.b' has a dot in its name" in capsys.readouterr().err and not files.out.exists()


def test_the_record_of_a_packed_merge_says_so(packed: Path) -> None:
    found = record(packed)
    assert found["packed"] is True and found["task"] is None and json.loads(json.dumps(found)) == found
