"""Three checkpoints of a small network on disk, and what is asked of the file that a tool makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from builders.tiny import family
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.multi_task import MultiTaskModel


class Net(nn.Module):
    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(30, width)


def state_of(seed: int, width: int = 20) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        name: value + torch.rand_like(value) if value.is_floating_point() else value + seed
        for name, value in Net(width).state_dict().items()
    }


class Files(NamedTuple):
    folder: Path
    base: dict[str, Tensor]
    experts: dict[str, dict[str, Tensor]]

    def arguments(self, method: str, *more: object, out: str = "out.safetensors") -> list[str]:
        experts = [f"{name}={self.folder / name}.safetensors" for name in self.experts]
        words = [
            "--method",
            method,
            "--base",
            self.folder / "base.safetensors",
            "--experts",
            *experts,
            "--out",
            self.folder / out,
            *more,
        ]
        return [str(word) for word in words]

    @property
    def out(self) -> Path:
        return self.folder / "out.safetensors"

    def nothing_written(self) -> bool:
        return {path.name for path in self.folder.iterdir()} == {"base.safetensors", "a.safetensors", "b.safetensors"}


def write_files(folder: Path, width: int = 20) -> Files:
    """base, a and b .safetensors in ``folder``, of a network with so many outputs."""
    states = {name: state_of(seed, width) for seed, name in enumerate(("base", "a", "b"))}
    for name, state in states.items():
        save_file(state, folder / f"{name}.safetensors")
    return Files(folder, states.pop("base"), states)


class Models(NamedTuple):
    base: TimmBackbone
    experts: dict[str, MultiTaskModel]
    words: list[str]  # that name their files


def write_models(folder: Path) -> Models:
    """Models of this package: base and experts as .safetensors in ``folder``."""
    base, experts, assembled = family()
    for name, model in {"base": assembled, **experts}.items():
        save_model(folder / f"{name}.safetensors", model)
    named = [f"{name}={folder / name}.safetensors" for name in experts]
    return Models(base, experts, ["--base", f"{folder / 'base'}.safetensors", "--experts", *named])


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items()
    )


def record(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == "pt"
        return json.loads(file.metadata()["merge"])
