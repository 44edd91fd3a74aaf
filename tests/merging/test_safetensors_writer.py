"""Safetensors written in a stream, read back by the library, and beside what the library writes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from symerge_dense.merging.safetensors_writer import TensorFile
from symerge_dense.merging.sources import DTYPES, TensorLayout, layouts


def every_type() -> dict[str, Tensor]:
    state = {f"z.{name}": (torch.rand(3, 5) * 9).to(dtype) for name, dtype in DTYPES.items()}
    return {
        "byte": torch.arange(7, dtype=torch.uint8),
        **state,
        "scalar": torch.tensor(2.5),
        "ümlaut": torch.ones(1),
        "none": torch.zeros(0, 4),
        "turned": torch.rand(4, 6).T,
        "flag": torch.tensor(True),
    }


def write(path: Path, state: dict[str, Tensor], metadata: dict[str, str], names: list[str] | None = None) -> TensorFile:
    with TensorFile(path, layouts(state), metadata) as file:
        for name in names or list(state):
            file.write(name, state[name])
    return file


def header_of(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return length, json.loads(content[8 : 8 + length])


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_written_in_any_order_is_read_back(tmp_path: Path, order: int) -> None:
    state, path = every_type(), tmp_path / "m.safetensors"
    file = write(path, state, {"who": "me", "what": '{"a": 1}'}, list(state)[::order])
    found = load_file(path)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        assert (
            found[name].contiguous().view(-1).view(torch.uint8).tolist()
            == value.contiguous().view(-1).view(torch.uint8).tolist()
        )
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"who": "me", "what": '{"a": 1}'}
    assert path.stat().st_size == file.size


def test_every_tensor_is_aligned_and_there_are_no_gaps(tmp_path: Path) -> None:
    state, path = every_type(), tmp_path / "m.safetensors"
    write(path, state, {})
    length, header = header_of(path)
    assert length % 8 == 0
    places = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    assert places[0][0] == 0 and places[-1][1] + 8 + length == path.stat().st_size
    assert all(before[1] == after[0] for before, after in pairwise(places))
    assert all(header[name]["data_offsets"][0] % value.element_size() == 0 for name, value in state.items())


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    state = {"b": torch.rand(3, 4), "a": torch.rand(5), "n": torch.arange(3), "h": torch.rand(2).half()}
    save_file(state, tmp_path / "theirs.safetensors")
    write(tmp_path / "ours.safetensors", dict(sorted(state.items())), {})
    theirs, ours = header_of(tmp_path / "theirs.safetensors"), header_of(tmp_path / "ours.safetensors")
    assert {name: ours[1][name] for name in state} == {name: theirs[1][name] for name in state}
    assert (tmp_path / "ours.safetensors").read_bytes()[8 + ours[0] :] == (
        tmp_path / "theirs.safetensors"
    ).read_bytes()[8 + theirs[0] :]


def test_metadata_can_be_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with TensorFile(path, {"a": TensorLayout((2,), torch.float32)}, {"hash": "0000"}) as file:
        file.write("a", torch.ones(2))
        file.replace_metadata({"hash": "beef"})
        with pytest.raises(AssertionError, match="another length"):
            file.replace_metadata({"hash": "beef and much more"})
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"hash": "beef"} and opened.get_tensor("a").tolist() == [1, 1]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match=r"'c' has data type torch\.complex64"):
        TensorFile(path, {"c": TensorLayout((1,), torch.complex64)}, {})
    layout = {"a": TensorLayout((2,), torch.float32), "b": TensorLayout((2,), torch.float32)}
    with pytest.raises(ValueError, match=r"lacks \['b'\]"), TensorFile(path, layout, {}) as file:
        file.write("a", torch.ones(2))
    for name, tensor in [("x", torch.ones(2)), ("a", torch.ones(3)), ("a", torch.ones(2).double())]:
        with pytest.raises(AssertionError, match="not announced"), TensorFile(path, layout, {}) as file:
            file.write(name, tensor)
    with pytest.raises(AssertionError, match="not announced"), TensorFile(path, layout, {}) as file:
        file.write("a", torch.ones(2))
        file.write("a", torch.ones(2))  # a second time
