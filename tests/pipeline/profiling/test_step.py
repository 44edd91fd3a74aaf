"""The benchmark of one step: contenders on the same footing, numbers that mean something, JSON and nothing else."""

import json

import pytest
import torch
from builders.pipeline_tiny import TASKS, tool, write_config

from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.profiling.step import CONTENDERS, Bench

CPU = torch.device("cpu")
OF_THE_BATCH = "adaptation.statistics=batch"  # as the plain step and the reference normalise
AT_THE_BASE = ["adaptation.initial=0.0", OF_THE_BATCH]


def bench(tmp_path, *overrides):
    return Bench(load_config(write_config(tmp_path), overrides), 4, (32, 48), CPU)


def test_all_contenders_start_from_the_same_loss(tmp_path):
    material = bench(tmp_path, *AT_THE_BASE)
    first = {name: float(material.contender(name)()) for name in CONTENDERS}
    assert first["plain"] > 0.1
    assert first["symerge"] == pytest.approx(first["plain"], rel=1e-5)
    # between its tasks the reference has already moved the coefficients and a layer, a little
    assert first["reference"] == pytest.approx(first["plain"], rel=1e-2)


def test_every_contender_learns(tmp_path):
    material = bench(tmp_path, OF_THE_BATCH)
    for name in CONTENDERS:
        step = material.contender(name)
        losses = [float(step()) for _ in range(6)]
        assert losses[-1] < losses[0], name


def test_contenders_work_on_copies(tmp_path):
    material = bench(tmp_path)
    before = {name: value.clone() for name, value in material.model.state_dict().items()}
    labels = {task: label.clone() for task, label in material.labels.items()}
    for name in CONTENDERS:
        material.contender(name)()
    assert all(torch.equal(value, before[name]) for name, value in material.model.state_dict().items())
    assert list(labels) == list(TASKS) and all(torch.equal(labels[task], material.labels[task]) for task in TASKS)


def test_the_tool_prints_one_json_object_of_positive_numbers(tmp_path, capfd):
    config = write_config(tmp_path)
    assert tool("benchmark.py", "step", config, "--batch-size", 4, "--rounds", 2, "--json") == 0
    output = capfd.readouterr().out
    result = json.loads(output)
    assert output.count("\n") == 1
    assert {key: result[key] for key in ("config", "batch_size", "size", "rounds")} == {
        "config": "tiny",
        "batch_size": 4,
        "size": [32, 48],
        "rounds": 2,
    }
    for key in ("seconds", "peak_memory_mb"):
        assert set(result[key]) == set(CONTENDERS) and all(0 < value < 1e5 for value in result[key].values())
    assert 0 < result["ratio_to_floor"] < 100 and 0 < result["speedup_over_reference"] < 100
    assert not (tmp_path / "rooms").exists()  # timing needs no data


def test_the_tool_refuses_rounds_below_one(tmp_path, capsys):
    assert tool("benchmark.py", "step", write_config(tmp_path), "--rounds", 0) == 2
    assert "rounds=0" in capsys.readouterr().err
