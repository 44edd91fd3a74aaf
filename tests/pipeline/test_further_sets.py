"""Every row is measured on further labelled sets too: ``evaluation.also``, and ``data.outside`` without a word."""

import csv
import json
from types import SimpleNamespace

import pytest
from builders.pipeline_tiny import tool, write_config

from symerge_dense.evaluation.delta_m import delta_m
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.scores import scores_from_json, scores_to_json
from symerge_dense.merging.methods.magmax import MagMax
from symerge_dense.models.checkpoint import load_model
from symerge_dense.pipeline import data as sources
from symerge_dense.pipeline.api import given_config
from symerge_dense.pipeline.comparison.comparison import Comparison
from symerge_dense.pipeline.comparison.run import compare_methods
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.train import train
from symerge_dense.report.results import REFERENCES, ROWS
from symerge_dense.report.run_tables import seeds_table

OUTSIDE = """
data["outside"] = dict(type=Rooms, root=ROOMS, split="test", scene_seed=9, count=5, size=(32, 48))
data["pool"] = dict(data["unlabelled"])
adaptation["views"] = dict(flip=True)
"""
OVERRIDES = ("evaluation.also=['outside', 'pool']", "adaptation.rounds=1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run and a comparison whose rows are measured on the test split, on other rooms, and on those of the pool."""
    folder = tmp_path_factory.mktemp("further")
    path = write_config(folder, more=OUTSIDE.replace("ROOMS", repr(str(folder / "rooms"))))
    config = load_config(path, OVERRIDES)
    run = train(config, work_dir=str(folder / "run"), pictures=False)
    compared = compare_methods(config, str(folder / "compared"), methods=["symerge", "average"])
    return SimpleNamespace(folder=folder, path=path, config=config, run=run, compared=compared)


def test_a_run_records_every_row_on_every_set(home):
    record = json.loads((home.folder / "run" / "results.json").read_text())
    assert set(record["also"]) == {"outside", "pool"}
    model = load_model(home.folder / "run" / "merged.safetensors")[0]
    for name, rows in record["also"].items():
        assert set(rows) == {*ROWS, *REFERENCES, "delta_m"}
        loader = sources.loader(home.config, sources.dataset(home.config, name, home.config.tasks))
        assert json.loads(json.dumps(scores_to_json(evaluate(model, loader, name)))) == rows["merged"]["tasks"]
        reference = scores_from_json(rows["experts"]["tasks"])
        for row in (*ROWS, *REFERENCES):
            if row != "experts":
                wanted = delta_m(scores_from_json(rows[row]["tasks"]), reference)
                assert rows["delta_m"][row] == pytest.approx(wanted)
    assert record["also"]["outside"]["experts"] != record["experts"] != record["also"]["pool"]["experts"]


def test_a_run_prints_a_column_for_every_set(home, capsys):
    assert tool("train.py", home.path, "--work-dir", home.folder / "run", "--resume", "--cfg-options", *OVERRIDES) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if "outside" in line or "pool" in line]
    assert heads and "mean" in heads[0] and heads[0].index("mean") < heads[0].index("outside")


def test_the_table_of_seeds_has_a_column_and_a_table_for_every_set(home):
    text = seeds_table("tiny", [home.run, {**home.run, "seed": 1}])
    whole, outside, pool = text.split("\n**")
    assert "Δm outside % ↑ | Δm pool % ↑ |" in whole
    assert outside.startswith("tiny, measured on data.outside**") and pool.startswith("tiny, measured on data.pool**")
    value = home.run["also"]["outside"]["delta_m"]["merged"]["mean"]
    (line,) = [line for line in whole.splitlines() if line.startswith("| SyMerge ")]
    assert line.split(" | ")[-2] == f"{value:+.2f} ± 0.00"
    assert f"{home.run['also']['outside']['merged']['tasks']['depth']['abs']['value']:.3f}"[:4] in outside


def test_a_comparison_measures_every_row_on_every_set(home):
    rows = {row["method"]: row for row in home.compared["rows"]}
    record = home.run["also"]["outside"]
    assert scores_from_json(rows["experts"]["also"]["outside"]["tasks"]) == {
        task: {name: pytest.approx(metric) for name, metric in metrics.items()}
        for task, metrics in scores_from_json(record["experts"]["tasks"]).items()
    }
    assert rows["experts"]["also"]["outside"]["delta_m"] == {}
    assert rows["average"]["also"]["outside"]["delta_m"]["mean"]["value"] == pytest.approx(
        record["delta_m"]["average"]["mean"]
    )
    text = (home.folder / "compared" / "compare.md").read_text()
    assert "| method | Δm % ↑ | Δm outside % ↑ | Δm pool % ↑ |" in text
    assert "**outside: every metric on data.outside**" in text and "nothing is tuned on them" in text
    with (home.folder / "compared" / "compare.csv").open() as file:
        line = {line["method"]: line for line in csv.DictReader(file)}["average"]
    for name in ("outside", "pool"):
        found = rows["average"]["also"][name]
        assert float(line[f"{name}/delta_m"]) == found["delta_m"]["mean"]["value"]
        assert float(line[f"{name}/depth/abs"]) == found["tasks"]["depth"]["abs"]["value"]


def test_a_failed_row_has_no_number_on_any_set(home, monkeypatch, tmp_path):
    monkeypatch.setattr(MagMax, "merge", lambda self, operands: operands.nonsense)
    record = compare_methods(home.config, str(tmp_path / "run"), methods=["magmax"])
    assert [row["method"] for row in record["rows"] if "error" in row] == ["magmax"]
    text = (tmp_path / "run" / "compare.md").read_text()
    assert "| magmax | failed | – | – |" in text and text.count("| magmax |") == 1


def test_outside_is_measured_without_a_word_and_nothing_else_is(home):
    assert sources.measured_sets(load_config(home.path)) == ["test", "outside"]
    assert sources.measured_sets(load_config(home.path, ["evaluation.also=[]"])) == ["test"]
    assert sources.measured_sets(load_config(home.path, ["evaluation.also=['pool']"])) == ["test", "pool"]


def test_no_row_is_tuned_on_a_further_set(home, monkeypatch, tmp_path):
    """Whatever chooses scales, 'agreement' or 'labels', the further sets are read for finished networks only."""
    comparison = Comparison(home.config, tmp_path, ["iso_c"], criterion="labels")
    further = {id(loader) for loader in comparison.scoring.also.values()}
    seen = []
    score = comparison.scoring.score

    def noted(networks, title, loader=None):
        seen.append((title, loader is not None and id(loader) in further))
        return score(networks, title, loader)

    monkeypatch.setattr(comparison.scoring, "score", noted)
    comparison.run()
    assert {title for title, is_further in seen if is_further} == {
        "experts, outside",
        "experts, pool",
        "experts_views, outside",
        "experts_views, pool",
        "iso_c, outside",
        "iso_c, pool",
    }
    assert any(title == "tuning" for title, _ in seen)


def test_photos_in_place_of_the_data_leave_no_set_to_measure_on(home):
    config = given_config(home.path, {"evaluation.panels": 1}, images=str(home.folder))
    assert sources.measured_sets(config) == [] and "also" not in config.evaluation


@pytest.mark.parametrize(
    "also, message",
    [
        ("'outside'", "must be a list of names of data sets, such as ['outside']"),
        ("['outsde']", "evaluation.also: unknown data set 'outsde'. Did you mean 'outside'"),
        ("['train']", "the experts have learned it; give the labelled images a name of their own"),
        ("['unlabelled']", "has no way to read a label"),
        ("['validation']", "scales may be tuned on it"),
        ("['test']", "measured on it anyway"),
        ("['pool', 'pool']", "names 'pool' twice; leave one out"),
        ("['depth']", "'depth' is the name of a task; call the data set by another"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_built(home, also, message, capsys, tmp_path):
    more = 'data["depth"] = dict(data["test"])\n'
    path = write_config(tmp_path, more=OUTSIDE.replace("ROOMS", "'rooms'") + more, experts=tmp_path / "none")
    for name in ("train.py", "compare.py"):
        options = ("--work-dir", tmp_path / "run", "--cfg-options", f"evaluation.also={also}")
        assert tool(name, path, *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists() and not (tmp_path / "none").exists()


def test_a_further_set_without_test_split_or_images_is_refused(home, capsys, tmp_path):
    config = load_config(home.path)
    bare = {name: spec for name, spec in config.data.items() if name != "test"}
    with pytest.raises(ValueError, match=r"beside data.test, which is missing; name labelled images there"):
        type(config)(**{**vars(config), "data": bare, "evaluation": {"also": ["outside"]}})
    path = write_config(
        tmp_path,
        more="\nfrom symerge_dense.datasets.nyuv2.mtan import NYUv2\n"
        'data["outside"] = dict(type=NYUv2, root="nowhere", split="val")\n',
        experts=tmp_path / "none",
    )
    assert tool("train.py", path, "--work-dir", tmp_path / "run") == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "none").exists()
