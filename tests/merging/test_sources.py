"""Inputs of a merge: files read tensor by tensor, and the comparison before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from symerge_dense.merging.operands import interpolate, task_vectors
from symerge_dense.merging.sources import SafetensorsSource, check_compatible, layouts, load


def small(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, bias, half, brain = (torch.randn(*shape, generator=generator) for shape in ((4, 3, 3, 3), (4,), (5,), (5,)))
    return {
        "conv.weight": weight,
        "conv.bias": bias,
        "half": half.half(),
        "brain": brain.bfloat16(),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
    }


def test_files_read_as_the_dict_they_were_saved_from(tmp_path: Path) -> None:
    state = small()
    save_file(state, tmp_path / "a.safetensors")
    source = SafetensorsSource(tmp_path / "a.safetensors")
    assert set(source) == set(state) and len(source) == len(state)
    assert layouts(source) == {name: layouts(state)[name] for name in source}
    assert all(torch.equal(source[name], state[name]) and source[name].dtype == state[name].dtype for name in state)


def test_shards_and_prefix(tmp_path: Path) -> None:
    state = small()
    save_file({f"backbone.{name}": value for name, value in list(state.items())[:3]}, tmp_path / "1.safetensors")
    rest = {f"backbone.{name}": value for name, value in list(state.items())[3:]}
    save_file({**rest, "head.weight": torch.ones(2)}, tmp_path / "2.safetensors")
    source = SafetensorsSource(tmp_path / "1.safetensors", tmp_path / "2.safetensors", prefix="backbone.")
    assert set(source) == set(state) and torch.equal(source["brain"], state["brain"])
    with pytest.raises(ValueError, match=r"'backbone\.conv.*two files"):
        SafetensorsSource(tmp_path / "1.safetensors", tmp_path / "1.safetensors")
    with pytest.raises(ValueError, match=r"'bakbone\.'.*prefix"):
        SafetensorsSource(tmp_path / "1.safetensors", prefix="bakbone.")


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    save_file(small(), tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"a\.safetensors is not a readable"):
        SafetensorsSource(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        SafetensorsSource(tmp_path / "b.safetensors")


def test_no_experts() -> None:
    with pytest.raises(ValueError, match="no expert"):
        check_compatible(small(), {})


def test_every_difference_is_listed_per_expert() -> None:
    base = small()
    odd = {name: value for name, value in base.items() if name != "half"}
    odd["conv.bias"], odd["brain"], odd["extra"] = torch.zeros(5), torch.zeros(5), torch.zeros(1)
    with pytest.raises(ValueError) as error:
        check_compatible(base, {"fine": small(1), "depth": odd})
    text = str(error.value)
    assert "depth: 4 differences" in text and "fine" not in text
    for part in (
        "missing 'half'",
        "'conv.bias' has shape (5,), the base (4,)",
        "'brain' has data type torch.float32, the base torch.bfloat16",
        "unexpected 'extra'",
    ):
        assert part in text


def test_at_most_ten_differences_are_listed() -> None:
    many = {f"layer{number}": torch.zeros(1) for number in range(25)}
    with pytest.raises(ValueError) as error:
        check_compatible(many, {"a": {}, "b": dict(list(many.items())[:-12])})
    text = str(error.value)
    assert "a: 25 differences" in text and "... and 15 more" in text and "b: 12 differences" in text
    assert text.count("missing") == 20


def test_names_limit_the_comparison() -> None:
    base = small()
    check_compatible(base, {"a": {"half": base["half"], "head": torch.zeros(3)}}, names=["half"])
    with pytest.raises(ValueError, match=r"base lacks 1 .*nothing"):
        check_compatible(base, {"a": base}, names=["half", "nothing"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_name_owner_and_tensor(bad: float) -> None:
    state = small()
    state["conv.weight"][1, 1, 1, 1] = bad
    with pytest.raises(ValueError, match=r"depth.*'conv\.weight'.*NaN or infinite"):
        load(state, "depth", "conv.weight")


def test_load_computes_in_float32_and_keeps_float64() -> None:
    state = {**small(), "double": torch.ones(2, dtype=torch.float64), "empty": torch.zeros(0)}
    assert load(state, "a", "half").dtype == load(state, "a", "brain").dtype == torch.float32
    assert load(state, "a", "double").dtype == torch.float64 and load(state, "a", "empty").numel() == 0


def test_task_vectors_are_the_differences() -> None:
    base, experts = small(), {"b": small(1), "a": small(2)}
    names = ["conv.weight", "half"]
    vectors = task_vectors(base, experts, names)
    assert list(vectors) == names
    for name in names:
        rows = [(experts[task][name].float() - base[name].float()).reshape(-1) for task in ("b", "a")]
        assert torch.equal(vectors[name], torch.stack(rows)) and vectors[name].is_contiguous()


def test_interpolation_is_exact_at_both_ends() -> None:
    base, expert = torch.tensor([1e4, -0.0, 1.0, 3.0]), torch.tensor([1e-8, 5.0, -0.0, -1e-30])
    assert torch.equal(interpolate(base, expert, 0.0).view(torch.int32), base.view(torch.int32))
    assert torch.equal(interpolate(base, expert, 1.0).view(torch.int32), expert.view(torch.int32))
    assert not torch.equal(base + (expert - base), expert)  # why it is needed
    torch.testing.assert_close(interpolate(base, expert, 0.25), 0.75 * base + 0.25 * expert)
    assert interpolate(base, expert, 0.0).data_ptr() != base.data_ptr()
