"""Single seeds of a row: each is saved when it is measured, found when a comparison goes on, and else run again."""

import json
import math
import re
import shutil
from types import SimpleNamespace

import pytest
from builders.pipeline_tiny import write_config

from symerge_dense.models.checkpoint import load_model, read_metadata, save_model
from symerge_dense.pipeline.comparison.methods import Adaptive
from symerge_dense.pipeline.comparison.run import compare_methods
from symerge_dense.pipeline.comparison.seed_results import MadeWith, SeedResult, SeedStore
from symerge_dense.pipeline.config import load_config
from symerge_dense.tasks.metric import Metric

MORE = """
base = dict(random_init=True)
tasks.pop("normals")
adaptation.update(rounds=1)
evaluation.update(also=["outside"], batch_size=6)
data["outside"] = dict(type=Rooms, root=ROOMS, split="test", scene_seed=9, count=2, size=(32, 48))
baselines["methods"] = ["symerge", "symerge_layer"]
"""
COSTS = ("seconds", "peak_memory_mb")
LAYER = "symerge_layer"
MADE_WITH = MadeWith("asked", {"rounds": 7, "clamp": (0.0, 1.0)})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished comparison of two seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    config = load_config(write_config(folder, more=MORE.replace("ROOMS", repr(str(folder / "rooms")))))
    return SimpleNamespace(config=config, run=folder / "run", rows=rows(config, folder / "run", resume=False))


@pytest.fixture
def copy(home, tmp_path):
    """A copy of the finished comparison."""
    return shutil.copytree(home.run, tmp_path / "run")


@pytest.fixture
def made(monkeypatch):
    """(name, seed) of every run, in their order; the run in ``stop`` is interrupted."""
    runs, make = [], Adaptive.make

    def noted(self, models, tuner, seed):
        if (self.name, seed) in stop:
            raise KeyboardInterrupt
        runs.append((self.name, seed))
        return make(self, models, tuner, seed)

    stop = set()
    monkeypatch.setattr(Adaptive, "make", noted)
    return SimpleNamespace(runs=runs, stop=stop)


def rows(config, folder, seeds=2, resume=True, **how):
    return {row["method"]: row for row in compare_methods(config, str(folder), resume, seeds=seeds, **how)["rows"]}


def lasting(found):
    return {name: {key: value for key, value in row.items() if key not in COSTS} for name, row in found.items()}


def seed_file(folder, name, seed):
    return folder / "seeds" / name / f"{seed}.json"


def donor_hash(folder):
    return read_metadata(folder / "symerge.safetensors")["hash"]


@pytest.mark.parametrize(
    "stopped, left", [("symerge", [("symerge", 1), (LAYER, 0), (LAYER, 1)]), (LAYER, [(LAYER, 1)])]
)
def test_a_comparison_killed_between_two_seeds_makes_only_what_is_left(home, made, tmp_path, capsys, stopped, left):
    made.stop.add((stopped, 1))
    with pytest.raises(KeyboardInterrupt):
        rows(home.config, tmp_path / "run", resume=False)
    first = json.loads(seed_file(tmp_path / "run", stopped, 0).read_text())["result"]
    made.stop.clear()
    made.runs.clear()
    found = rows(home.config, tmp_path / "run")
    assert made.runs == left and f"{stopped}: 1 of 2 seeds are saved" in capsys.readouterr().out
    assert lasting(found) == lasting(home.rows) and donor_hash(tmp_path / "run") == donor_hash(home.run)
    second = json.loads(seed_file(tmp_path / "run", stopped, 1).read_text())["result"]
    seconds = (first["cost"]["seconds"] + second["cost"]["seconds"]) / 2
    assert found[stopped]["seconds"] == pytest.approx(seconds, abs=0.006), "each seed keeps what it took"


def test_a_cluster_gives_the_same_rows(home, made, tmp_path, request):
    request.addfinalizer(pytest.importorskip("ray").shutdown)
    found = rows(home.config, tmp_path / "run", resume=False, methods=["symerge", LAYER, "average"], on="ray")
    assert made.runs == [], "nothing was left to do here"
    assert lasting({name: found[name] for name in home.rows}) == lasting(home.rows) and "average" in found
    assert donor_hash(tmp_path / "run") == donor_hash(home.run)


def test_a_row_is_made_of_saved_seeds_alone(home, copy, made):
    shutil.rmtree(copy / "rows")
    (copy / "rows").mkdir()
    shutil.copy(home.run / "rows" / "experts.json", copy / "rows")
    assert rows(home.config, copy) == home.rows and made.runs == [], "costs among them"
    assert home.rows[LAYER]["runs"] == 2 and home.rows[LAYER]["also"]["outside"]["delta_m"]["mean"]["std"] > 0
    assert home.rows[LAYER]["transferred"]["mean"]["std"] >= 0 and "transferred" not in home.rows["symerge"]


def test_more_seeds_later_run_only_the_new_ones(home, made, tmp_path):
    given = home.run / "symerge.safetensors"
    rows(home.config, tmp_path / "run", seeds=1, resume=False, methods=[LAYER], adapted_from=str(given))
    made.runs.clear()
    found = rows(home.config, tmp_path / "run", methods=[LAYER], adapted_from=str(given))
    assert made.runs == [(LAYER, 1)] and lasting(found)[LAYER] == lasting(home.rows)[LAYER]
    rows(home.config, tmp_path / "run", seeds=1, methods=[LAYER], adapted_from=str(given))
    assert made.runs == [(LAYER, 1)], "fewer seeds run none"


def test_other_layers_to_transfer_run_their_seeds_again(home, made, tmp_path, capsys):
    rows(home.config, tmp_path / "run", seeds=1, resume=False)
    made.runs.clear()
    found = rows(home.config, tmp_path / "run")
    assert made.runs == [("symerge", 1), (LAYER, 0), (LAYER, 1)], "SyMerge's last seed is another"
    assert f"{LAYER}, seed 0: its saved result does not go with the adapted layers" in capsys.readouterr().out
    assert lasting(found) == lasting(home.rows)


@pytest.mark.parametrize("left", ["nothing", "a changed model"])
def test_the_last_seed_runs_again_where_its_model_is_not_there(home, copy, made, left):
    path = copy / "symerge.safetensors"
    model, _ = load_model(path)
    path.unlink()
    if left == "a changed model":
        next(model.parameters()).data.mul_(2.0)
        save_model(path, model)
    found = rows(home.config, copy)
    assert made.runs == [("symerge", 1)] and donor_hash(copy) == donor_hash(home.run)
    assert lasting(found) == lasting(home.rows)


def test_a_damaged_file_is_made_again(home, copy, made, capsys):
    (copy / "rows" / f"{LAYER}.json").unlink()
    path = seed_file(copy, LAYER, 0)
    path.write_text(path.read_text()[:200])
    found = rows(home.config, copy)
    assert f"{LAYER}, seed 0: {path} cannot be read" in capsys.readouterr().out
    assert made.runs == [(LAYER, 0)] and lasting(found) == lasting(home.rows)


def test_options_that_change_a_row_change_its_seeds(home, copy, made, capsys):
    rows(home.config, copy, methods=[LAYER], options={LAYER: {"layer_lr": 1e-2}})
    assert made.runs == [(LAYER, 0), (LAYER, 1)]
    assert f"{LAYER}, seed 1: {seed_file(copy, LAYER, 1)} was made with other options" in capsys.readouterr().out


def test_a_comparison_of_an_earlier_version_has_no_seeds_and_is_kept(home, copy, made):
    shutil.rmtree(copy / "seeds")
    assert rows(home.config, copy) == home.rows and made.runs == []


@pytest.fixture
def store(tmp_path):
    return SeedStore(tmp_path / "seeds")


def result(**other):
    scores = {"depth": {"abs": Metric(math.inf, False), "rel": Metric(0.1, False, {"near": None})}}
    given = {"transferred": {"mean": math.nan}, "layers": "a", "gives": None, "facts": {"options": {"k": (1, 2)}}}
    cost = {"seconds": 1.5, "peak_memory_mb": None}
    return SeedResult(scores, {}, cost, block="plain", data="none", encoder_passes=1, **{**given, **other})


def test_a_result_comes_back_as_it_was_written(store):
    found = store.write("a method", 3, MADE_WITH, result())
    assert math.isnan(found.scores["depth"]["abs"].value) and found.scores["depth"]["rel"] == Metric(0.1, False)
    assert math.isnan(found.transferred["mean"]) and found.facts == {"options": {"k": [1, 2]}}
    again = store.read("a method", 3, MADE_WITH)
    assert again is not None and json.dumps(again.to_json()) == json.dumps(found.to_json())
    assert store.read("a method", 4, MADE_WITH) is None and store.read("method", 3, MADE_WITH) is None


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"facts"', '"remarks"'), "cannot be read"),
        (lambda text: text.replace('"abs": {', '"abs": {"value": "high", "was": {'), "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: text.replace('"format": 1', '"format": 0'), "is of another version"),
        (lambda text: text.replace('"asked": "', '"asked": "0'), "was made with other options"),
        (lambda text: text.replace('"rounds": 7', '"rounds": 8'), "was made with rounds=8, now 7, by other defaults"),
    ],
)
def test_a_file_that_does_not_count_is_named(store, capsys, change, why):
    store.write("ties", 0, MADE_WITH, result())
    path = store.folder / "ties" / "0.json"
    text = re.sub(r',\s*"hash": "\w+"', "", path.read_text())  # as of an earlier version
    assert change(text) != text
    path.write_text(change(text))
    capsys.readouterr()
    assert store.read("ties", 0, MADE_WITH) is None
    said = " ".join(capsys.readouterr().out.split())
    assert f"ties, seed 0: {path} {why}" in said and "does not count; the seed is run again" in said
