"""The benchmark of one step: contenders on the same footing, numbers that mean something, JSON and nothing else."""

import json

import pytest
import torch
from builders.pipeline_tiny import TASKS, tool, write_config
from builders.prepared_python import prepared_spawn

from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.profiling import step as step_cost
from symerge_dense.pipeline.profiling.step import CASES, CONTENDERS, Bench

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
    with prepared_spawn():
        assert tool("benchmark.py", "step", config, "--batch-size", 4, "--rounds", 2, "--json") == 0
    output = capfd.readouterr().out
    assert output.count("\n") == 1
    rows = json.loads(output)["suites"]["step"]
    assert [row["contender"] for row in rows] == list(CONTENDERS)
    for row in rows:
        assert row["case"] == "tiny: 3 tasks, 4 of 32x48" and row["count"] == 4
        assert 0 < row["seconds"] < 1e3 and 0 < row["ratio"] < 100 and 0 < row["mebibytes"] < 1e5
    assert rows[0]["ratio"] == 1
    assert not (tmp_path / "rooms").exists()  # timing needs no data


def test_the_suite_has_cases_of_few_and_many_tasks(monkeypatch):
    monkeypatch.setattr(step_cost, "CASES", (("rooms_twenty_symerge", 1, 1, 1), ("rooms_twenty_symerge", 2, 1, 1)))
    monkeypatch.setattr(step_cost, "peak_memory", lambda arguments, name: len(arguments[0].tasks))
    rows = list(step_cost.step_rows(CPU))
    assert [row.mebibytes for row in rows] == [1, 1, 1, 2, 2, 2]
    monkeypatch.setattr(step_cost, "LARGE", ("rooms_twenty_symerge",))
    assert not list(step_cost.step_rows(CPU, large=False))
    for name, tasks, *_ in CASES:  # those that ship can be made
        assert len(load_config(name).tasks) >= tasks


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["CONFIG", "--rounds", 0], "rounds=0"),
        (["--batch-size", 2], "--batch-size is of a config"),
        (["--rounds", 2], "--rounds is of a config"),
        (["CONFIG", "--dir", "x"], "benchmark step does not take --dir, which is of merge"),
        (["CONFIG", "--append", "page.txt"], "a Markdown page ends in .md"),
        (["CONFIG", "--size", 1, 1, "--batch-size", 1], "error: 1 of 1x1: Expected more than 1 value"),
    ],
)
def test_the_tool_refuses(words, wanted, tmp_path, capsys):
    config = write_config(tmp_path)
    assert tool("benchmark.py", "step", *(config if word == "CONFIG" else word for word in words)) == 2
    assert wanted in capsys.readouterr().err
