"""The main job on tiny rooms, from a config file to every file that it promises; again, killed and resumed."""

import json
import math
import os
import re
import signal
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from builders.pipeline_tiny import ENV, ROOT, TASKS, tool, write_config
from builders.prepared_python import Python

from symerge_dense.adaptation.history import read_history
from symerge_dense.engine.checkpointing import checkpoints
from symerge_dense.models.checkpoint import load_model, state_hash
from symerge_dense.pipeline import run_dir as workdir
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.data import dataset
from symerge_dense.pipeline.train import train
from symerge_dense.report.agreement import read_record
from symerge_dense.report.results import MERGED_ROWS, ROWS, RUN_KEYS

PICTURES = ("panels.png", "coefficients.png", "curves.png")
CLOCKS = ("timings", "peak_memory_mb")


def files(folder):
    """{path: time of its last change} of everything under ``folder``."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def without_clocks(results):
    return {key: value for key, value in results.items() if key not in CLOCKS}


def values(row):
    """{(task, metric): value} of one row of a record."""
    return {(task, name): metric["value"] for task, metrics in row["tasks"].items() for name, metric in metrics.items()}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished run, with nothing there before it: rooms are rendered, base and experts trained."""
    folder = tmp_path_factory.mktemp("home")
    path = write_config(folder)
    results = train(load_config(path), work_dir=str(folder / "run"))
    return SimpleNamespace(folder=folder, config=path, run=folder / "run", results=results)


@pytest.fixture
def stock(home):
    """{'base' or task: file} of what the first run trained."""
    found = {path.name.split("-")[0]: path for path in (home.folder / "experts").glob("*.safetensors")}
    assert set(found) == {"base", *TASKS}
    return found


# -- what a run leaves -------------------------------------------------------------------------------------------------
def test_everything_is_written_and_nothing_else(home, stock):
    names = {path.relative_to(home.run).parts[0] for path in home.run.rglob("*")}
    (log,) = (name for name in names if re.fullmatch(r"\d{8}_\d{6}", name))  # MMEngine's
    assert (home.run / log / "vis_data" / "config.py").is_file()
    assert names - {log} == {
        "run.json",
        "adaptation.py",
        "results.json",
        "history.jsonl",
        "merged.safetensors",
        "coefficients.safetensors",
        "labels",
        "checkpoints",
        "panels",
        *PICTURES,
    }
    assert {path.name for path in home.folder.iterdir()} == {"rooms", "experts", "run", "tiny.py"}
    assert set((home.folder / "experts").iterdir()) == set(stock.values())  # unfinished trainings are tidied away
    for name in PICTURES:
        picture = cv2.imread(str(home.run / name))
        assert min(picture.shape[:2]) > 50 and picture.std() > 5, name


def test_the_record_is_complete_and_every_number_is_one(home):
    record = read_record(home.run / "results.json")
    assert {*RUN_KEYS, *ROWS, "delta_m", "coefficients"} <= set(record)
    assert record["delta_m_metrics"]["depth"] == "abs" and record["published_metrics"]["depth"] == ["abs", "rel"]
    assert record["seed"] == 0 and record["config"] == json.loads((home.run / "run.json").read_text())
    assert record["config"] == load_config(home.config).record
    for row in ROWS:
        assert set(record[row]["tasks"]) == set(TASKS)
        assert all(math.isfinite(value) for value in values(record[row]).values()), row
    for row in MERGED_ROWS:
        assert set(record["delta_m"][row]) == {"mean", *TASKS}
        mean = sum(record["delta_m"][row][task] for task in TASKS) / len(TASKS)
        assert record["delta_m"][row]["mean"] == pytest.approx(mean)
    assert record["task_arithmetic"]["scale"] == 0.3
    stages = {"data", "experts", "experts_evaluation", "baselines", "adaptation", "evaluation"}
    assert stages <= set(record["timings"]) and min(record["timings"].values()) >= 0 < record["peak_memory_mb"]
    assert without_clocks(record) == without_clocks(json.loads(json.dumps(home.results)))


def test_the_record_has_classes_sizes_and_single_pictures(home):
    for row in ROWS:
        miou = home.results[row]["tasks"]["segmentation"]["mIoU"]
        seen = [value for value in miou["parts"].values() if value is not None]
        assert len(miou["parts"]) == 13 and sum(seen) / len(seen) == pytest.approx(miou["value"])
        assert "parts" not in home.results[row]["tasks"]["depth"]["abs"]
    merged, _ = load_model(home.run / "merged.safetensors")
    sizes = home.results["parameters"]
    assert set(sizes["heads"]) == set(TASKS)
    assert sizes["backbone"] + sum(sizes["heads"].values()) == sum(weight.numel() for weight in merged.parameters())
    assert home.results["units"]["depth"] == {"abs": "m", "rmse": "m", "delta1": "%"}
    assert home.results["units"]["normals"]["mean"] == "°" and home.results["units"]["segmentation"]["mIoU"] == "%"
    assert home.results["plugins"] == {}  # no task comes from another package


def test_the_single_pictures_are_those_of_the_composite(home):
    pictures = home.results["panels"]
    assert len(pictures) == 2
    listed = {path for entry in pictures for path in (entry["image"], *columns_of(entry).values())}
    assert listed == {path.relative_to(home.run).as_posix() for path in (home.run / "panels").iterdir()}
    for entry in pictures:
        assert entry["legends"]["segmentation"]["names"][0] == "bed" and entry["legends"]["depth"]["unit"] == "m"
        assert 0 < entry["legends"]["depth"]["low"] < entry["legends"]["depth"]["high"]
        assert {column for _, column in columns_of(entry)} == {"truth", "expert", "task arithmetic", "merged"}
        assert {cv2.imread(str(home.run / path)).shape for path in columns_of(entry).values()} == {(32, 48, 3)}
    config = load_config(home.config)
    sample = dataset(config, "test", config.tasks)[1]  # the first of two evenly spaced ones of six
    found = cv2.imread(str(home.run / pictures[0]["image"]))[:, :, ::-1]
    assert np.array_equal(found, sample["image"].permute(1, 2, 0).round().numpy().astype(np.uint8))


def columns_of(entry):
    """{(task, column): path} of one image of a record's pictures."""
    return {(task, name): path for task, columns in entry["tasks"].items() for name, path in columns.items()}


def test_the_losses_are_finite_and_one_for_every_round(home):
    rows = read_history(home.run / "history.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all({f"loss_{task}", f"coefficient_mean_{task}"} <= set(row) for row in rows for task in TASKS)


def test_experts_know_their_base_and_only_their_task(stock):
    base, _ = load_model(stock["base"])
    assert set(base.tasks) == {"albedo", "edges"}
    for task in TASKS:
        expert, about = load_model(stock[task])
        assert list(expert.tasks) == [task] and about["base_hash"] == state_hash(base.backbone.state_dict())


def test_the_initial_merge_is_task_arithmetic(home):
    initial, arithmetic = values(home.results["initial"]), values(home.results["task_arithmetic"])
    assert initial == pytest.approx(arithmetic, rel=1e-4, abs=0.01)
    assert initial != values(home.results["average"]) and initial != values(home.results["merged"])


def test_the_coefficients_start_at_their_value_and_move(home):
    table = home.results["coefficients"]
    numbers = torch.tensor([table[name] for name in table])
    assert numbers.shape[1] == len(TASKS) and numbers.min() >= 0 and numbers.max() <= 1
    reach = 4 * 1.01 * load_config(home.config).options.coefficient_lr  # four Adam steps of at most the learning rate
    assert 0 < (numbers - 0.3).abs().max() <= reach


# -- the same again ----------------------------------------------------------------------------------------------------
def test_a_second_run_trains_nothing_and_ends_the_same(home, monkeypatch, capsys):
    kept = files(home.folder / "experts") | files(home.folder / "rooms")
    assert tool("train.py", home.config, "--work-dir", home.folder / "again", "--no-train-experts") == 0
    output = capsys.readouterr()
    assert files(home.folder / "experts") | files(home.folder / "rooms") == kept
    assert "SyMerge" in output.out and "training it" not in output.out and output.err == ""
    again = read_record(home.folder / "again" / "results.json")
    assert without_clocks(again) == without_clocks(read_record(home.run / "results.json"))
    merged = [load_model(home.folder / run / "merged.safetensors")[0].state_dict() for run in ("run", "again")]
    assert all(torch.equal(value, merged[1][name]) for name, value in merged[0].items())


def test_another_seed_adapts_the_same_experts_differently(home, stock):
    kept = files(home.folder / "experts")
    other = train(load_config(home.config, seed=1), work_dir=str(home.folder / "other"))
    assert other["seed"] == 1 and other["coefficients"] != home.results["coefficients"]
    assert other["initial"] == home.results["initial"] and files(home.folder / "experts") == kept


def test_a_finished_run_that_is_resumed_is_shown_and_left_alone(home, capsys):
    before = files(home.folder)
    assert tool("train.py", home.config, "--work-dir", home.run, "--resume") == 0
    output = capsys.readouterr().out
    assert files(home.folder) == before
    assert "complete" in output and "SyMerge" in output and "experts" in output


def test_without_work_dir_runs_are_dated_and_resume_takes_the_newest(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(home.config)
    with pytest.raises(ValueError, match="start one without --resume"):
        workdir.choose(config, None, resume=True)
    for name in ("20200101-000000", "20200102-000000"):
        workdir.open_run(tmp_path / "work_dirs" / "tiny" / name, config, resume=False)
    assert workdir.choose(config, None, resume=True).name == "20200102-000000"
    new = workdir.choose(config, None, resume=False)
    assert str(new.parent) == "work_dirs/tiny" and new.name > "2020" and not new.exists()


# -- killed and resumed ------------------------------------------------------------------------------------------------
def test_a_run_killed_while_adapting_and_resumed_ends_like_an_unbroken_one(home):
    options = ["--cfg-options", "adaptation.rounds=30", "adaptation.save_every=3"]
    unbroken = train(load_config(home.config, options[1:]), work_dir=str(home.folder / "unbroken"))
    killed = home.folder / "killed"
    command = [ROOT / "tools" / "train.py", home.config, "--work-dir", killed, *options]
    process = Python(*command, env=ENV, folder=home.folder)
    while not checkpoints(killed / "checkpoints"):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (killed / "run.json").exists() and not (killed / "results.json").exists()
    assert tool("train.py", home.config, "--work-dir", killed, "--resume", *options) == 0
    resumed = read_record(killed / "results.json")
    assert resumed["coefficients"] == unbroken["coefficients"] and resumed["merged"] == unbroken["merged"]
    assert read_history(killed / "history.jsonl") == read_history(home.folder / "unbroken" / "history.jsonl")


# -- the files of a run go on ------------------------------------------------------------------------------------------
def test_the_merged_file_scores_what_the_record_says(home, capsys):
    capsys.readouterr()
    assert tool("test.py", home.config, home.run / "merged.safetensors", "--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == home.results["merged"]["tasks"] and output.err == ""


def test_an_expert_file_scores_what_the_record_says(home, stock, capsys):
    assert tool("test.py", home.config, stock["normals"], "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"normals": home.results["experts"]["tasks"]["normals"]}
    assert tool("test.py", home.config, stock["base"], "--split", "unlabelled") == 0  # rooms have labels for all
    assert "albedo" in capsys.readouterr().out


def test_own_experts_are_merged_by_their_paths(home, stock, tmp_path):
    named = {task: str(stock[task]) for task in TASKS}
    config = write_config(
        tmp_path,
        "own.py",
        rooms=home.folder / "rooms",
        more=(f"base = dict(checkpoint={str(stock['base'])!r})\nexperts = dict(checkpoints={named!r})\n"),
    )
    own = train(load_config(config), work_dir=str(tmp_path / "run"), train_experts=False)
    for key in ("coefficients", *ROWS, "delta_m"):
        assert own[key] == home.results[key], key
    assert not (tmp_path / "experts").exists() and not (tmp_path / "work_dirs").exists()


def test_a_single_task_is_merged_too(home, stock, tmp_path):
    path = write_config(
        tmp_path,
        rooms=home.folder / "rooms",
        experts=home.folder / "experts",
        more="del tasks['segmentation']\ndel tasks['normals']\nadaptation.update(rounds=1, views=dict(flip=True))\n",
    )
    kept = files(home.folder / "experts")
    alone = train(load_config(path), work_dir=str(tmp_path / "run"))
    new = set(files(home.folder / "experts")) - set(kept)
    assert set(alone["merged"]["tasks"]) == {"depth"} and alone["delta_m"]["merged"]["mean"] is not None
    once, twice = (values(alone[row]) for row in ("experts", "experts_views"))
    assert once.keys() == twice.keys() and once != twice
    assert math.isfinite(alone["delta_m"]["experts_views"]["depth"])
    assert "experts_views" not in home.results and read_record(tmp_path / "run" / "results.json")["experts_views"]
    assert not new  # the base, and what depth learned from it, do not depend on the other tasks


def test_a_changed_recipe_trains_its_own_experts_and_keeps_the_others(home, stock):
    kept = files(home.folder / "experts")
    config = load_config(home.config, ["experts.recipes.depth.epochs=2", "adaptation.rounds=1"])
    train(config, work_dir=str(home.folder / "longer"))
    after = files(home.folder / "experts")
    new = set(after) - set(kept)
    assert kept.items() <= after.items() and [path.name.split("-")[0] for path in new] == ["depth"]
    new.pop().unlink()
