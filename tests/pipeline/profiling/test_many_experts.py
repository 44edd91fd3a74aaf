"""The benchmark of many experts, with two of a small network."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.pipeline_tiny import tool

from symerge_dense.pipeline.profiling import many_experts
from symerge_dense.pipeline.profiling.many_experts import generate, work


def test_both_places_give_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BACKBONE": "resnet18", "ROUNDS": 1, "IMAGES": 2, "BATCH": 2}.items():
        monkeypatch.setattr(many_experts, name, value)
    size = generate(tmp_path, 2)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) == 3 and 2 * 40e6 < size < 2 * 50e6  # ResNet-18 has 11 million weights
    found = [work(tmp_path, place, 2) for place in many_experts.PLACES]
    assert found[0]["hash"] == found[1]["hash"] and min(row["seconds"] for row in found) > 0


def test_more_experts_than_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("benchmark.py", "experts", "--experts", 1000, "--dir", tmp_path / "new") == 2
    assert "experts=1000: rooms have" in capsys.readouterr().err and not list((tmp_path / "new").iterdir())
