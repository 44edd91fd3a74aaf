"""tools/compare.py on a tiny main job: every registered method, then interrupted, resumed, seeded, transferred."""

import csv
import dataclasses
import json
import math
import statistics
from types import SimpleNamespace

import cv2
import pytest
import torch
from builders.pipeline_tiny import TASKS, tool, write_config

from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.evaluation.delta_m import delta_m
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.scores import scores_from_json, scores_to_json
from symerge_dense.merging.methods.magmax import MagMax
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.multi_task import assemble
from symerge_dense.pipeline import data as sources
from symerge_dense.pipeline.comparison.comparison import Comparison
from symerge_dense.pipeline.comparison.methods import BLOCKS, DATA, Static
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS
from symerge_dense.report.comparison_files import COSTS, FILES
from symerge_dense.tasks.metric import Metric

CLOCKS = ("seconds", "tuning_seconds", "peak_memory_mb")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished comparison of every method, with nothing there before it."""
    folder = tmp_path_factory.mktemp("home")
    path = write_config(folder)
    assert tool("compare.py", path, "--work-dir", folder / "run") == 0
    return SimpleNamespace(
        folder=folder,
        path=path,
        run=folder / "run",
        config=load_config(path),
        record=json.loads((folder / "run" / "compare.json").read_text()),
    )


@pytest.fixture
def again(home, tmp_path):
    """A comparison of some methods with the same experts, in a folder of its own."""

    def start(*methods, options=(), folder="run", expect=0):
        chosen = ("--methods", *methods) if methods else ()
        assert tool("compare.py", home.path, "--work-dir", tmp_path / folder, *chosen, *options) == expect
        found = tmp_path / folder / "compare.json"
        return json.loads(found.read_text()) if found.exists() else None

    return start


@pytest.fixture
def made(monkeypatch):
    """Names of the static methods that are run, in their order."""
    names, make = [], Static.make

    def noted(self, *given):
        names.append(self.name)
        return make(self, *given)

    monkeypatch.setattr(Static, "make", noted)
    return names


def rows(record):
    return {row["method"]: row for row in record["rows"]}


def lasting(row):
    """What of a row does not depend on the machine's mood, nor on whose layers there were to transfer."""
    return {key: value for key, value in row.items() if key not in (*CLOCKS, "layers", "transferred")}


def means(row):
    return {
        task: {name: Metric(entry["value"], entry["higher_is_better"]) for name, entry in metrics.items()}
        for task, metrics in row["tasks"].items()
    }


def tables(home):
    """{method: {heading: cell}} of all tables of compare.md, and of the transfer table."""
    found, moved = {}, {}
    for block in (home.run / "compare.md").read_text().split("\n**")[1:]:
        lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in block.splitlines() if "|" in line]
        for line in lines[2:]:
            (moved if "adapted" in block.splitlines()[0] else found)[line[0]] = dict(zip(lines[0], line, strict=True))
    return found, moved


# -- what a comparison leaves -----------------------------------------------------------------------------------------
def test_every_registered_method_has_its_row(home):
    names = [row["method"] for row in home.record["rows"]]
    assert sorted(names) == sorted(["experts", "joint_training", *MERGERS, *ADAPTIVE_METHODS])
    assert [row["error"] for row in home.record["rows"] if "error" in row] == []
    assert {path.name for path in home.run.iterdir()} == {
        *FILES,
        "run.json",
        "rows",
        "seeds",
        "labels",
        "adaptive",
        "symerge.safetensors",
    }


def test_every_row_has_all_that_is_promised(home):
    for name, row in rows(home.record).items():
        assert row["block"] in BLOCKS and row["data"] in DATA and row["runs"] == 1, name
        assert set(row["tasks"]) == set(TASKS)
        assert all(math.isfinite(metric["value"]) for task in row["tasks"].values() for metric in task.values())
        assert row["encoder_passes"] == (3 if row["block"] == "masks" or name == "experts" else 1)
        if row["block"] != "reference":
            assert row["seconds"] > 0 and row["peak_memory_mb"] > 50 and row["extra_parameters"] >= 0, name
            assert isinstance(row["options"], dict) and row.get("tuning_seconds", 0) <= row["seconds"]
    record = home.record
    assert {"config", "commit", "versions", "device", "tuning", "seeds", "adapted_from"} <= set(record)
    assert "no label is read" in record["tuning"] and record["delta_m_metrics"]["segmentation"] == "mIoU"


def test_blocks_and_extra_weights_say_what_is_kept(home):
    found = rows(home.record)
    assert {name for name, row in found.items() if row["block"] == "masks"} == {"emr", "tall_masks", "surgery_v2"}
    beside = {"surgery", "prob_surgery", "simo_representation"}
    assert {name for name, row in found.items() if row["block"] == "adapters"} == beside
    plain = [row for row in found.values() if row["block"] == "plain"]
    assert len(plain) > 20 and {row["extra_parameters"] for row in plain} == {0}
    weights = sum(p.numel() for p in load_model(home.run / "symerge.safetensors")[0].backbone.parameters())
    assert found["experts"]["extra_parameters"] == 2 * weights
    assert found["emr"]["extra_parameters"] == weights + 3 * math.ceil(weights / 32)


def test_delta_m_is_that_of_the_printed_metrics(home):
    found = rows(home.record)
    reference = means(found["experts"])
    assert found["experts"]["delta_m"] == {}
    for name, row in found.items():
        if name != "experts":
            wanted = delta_m(means(row), reference)
            assert {key: entry["value"] for key, entry in row["delta_m"].items()} == pytest.approx(wanted), name


def test_markdown_and_csv_hold_the_same_numbers(home):
    table, moved = tables(home)
    with (home.run / "compare.csv").open() as file:
        lines = {line["method"]: line for line in csv.DictReader(file)}
    assert set(table) == set(lines) == set(rows(home.record))
    for name, row in rows(home.record).items():
        for task, metrics in row["tasks"].items():
            for metric, entry in metrics.items():
                assert float(lines[name][f"{task}/{metric}"]) == entry["value"]
                cell = table[name][f"{task} {metric} {'↑' if entry['higher_is_better'] else '↓'}"]
                assert float(cell) == pytest.approx(entry["value"], abs=0.006)
        assert table[name]["data"] == lines[name]["data"] == row["data"]
        assert set(COSTS) <= set(lines[name]) and json.loads(lines[name]["options"]) == row.get("options", {})
        if row["delta_m"]:
            assert float(lines[name]["delta_m"]) == row["delta_m"]["mean"]["value"]
            assert table[name]["Δm % ↑"] == f"{row['delta_m']['mean']['value']:+.2f}"
    assert set(moved) == {name for name, row in rows(home.record).items() if "transferred" in row}
    assert all(
        line["with SyMerge's layers"] == f"{rows(home.record)[name]['transferred']['mean']['value']:+.2f}"
        for name, line in moved.items()
    )


def test_tables_are_in_order_and_the_picture_is_there(home):
    text = (home.run / "compare.md").read_text()
    assert [text.index(f"**{title}**") for title in BLOCKS.values()] == sorted(
        text.index(f"**{title}**") for title in BLOCKS.values()
    )
    table, _ = tables(home)
    for block in BLOCKS:
        shown = [name for name in table if rows(home.record)[name]["block"] == block and name != "experts"]
        values = [rows(home.record)[name]["delta_m"]["mean"]["value"] for name in shown]
        assert values == sorted(values, reverse=True)
    assert next(iter(table)) == "experts"
    picture = cv2.imread(str(home.run / "compare.png"))
    assert min(picture.shape[:2]) > 400 and picture.std() > 20


def test_the_printed_numbers_are_those_of_the_models(home):
    """Two rows measured again from their files: SyMerge's model, and joint training's."""
    loader = sources.loader(home.config, sources.dataset(home.config, "test", home.config.tasks))
    joint = next((home.folder / "experts").glob("joint-*.safetensors"))
    for name, path in (("symerge", home.run / "symerge.safetensors"), ("joint_training", joint)):
        scores = evaluate(load_model(path)[0], loader, name)
        row = rows(home.record)[name]
        assert scores_from_json(scores_to_json(scores)) == scores_from_json(
            row["tasks"]
        )  # rows leave out the parts of means


# -- transfer ---------------------------------------------------------------------------------------------------------
def test_transferred_layers_are_scored_as_a_direct_evaluation_scores_them(home):
    stock = ExpertStore(home.config, allowed=False)
    base = stock.base()
    experts = stock.experts(base)
    model, donor = assemble(base, experts).eval(), load_model(home.run / "symerge.safetensors")[0]
    with torch.no_grad():
        for name, weight in model.backbone.named_parameters():
            states = [expert.backbone.state_dict()[name] for expert in experts.values()]
            origin = weight.clone()
            weight.add_(sum(state - origin for state in states) / 3)
    model.heads.load_state_dict(donor.heads.state_dict())
    recalibrate(model, image_batches(sources.pool(home.config), 6, 4, torch.device("cpu")))
    loader = sources.loader(home.config, sources.dataset(home.config, "test", home.config.tasks))
    direct = delta_m(evaluate(model, loader, "direct"), means(rows(home.record)["experts"]))
    row = rows(home.record)["average"]
    assert {key: entry["value"] for key, entry in row["transferred"].items()} == pytest.approx(direct, rel=1e-4)
    assert row["transferred"]["mean"]["value"] != row["delta_m"]["mean"]["value"]


def test_references_and_the_donor_are_given_no_layers(home):
    without = {name for name, row in rows(home.record).items() if "transferred" not in row}
    assert without == {"experts", "joint_training", "symerge"}


def test_layers_of_a_saved_model_are_put_on_all_encoders(home, again):
    donor = home.run / "symerge.safetensors"
    record = again("average", "emr", "symerge_layer", options=["--adapted-from", donor])
    found, before = rows(record), rows(home.record)
    for name in ("average", "emr", "symerge_layer"):
        assert found[name]["transferred"] == before[name]["transferred"]
    assert record["adapted_from"] == str(donor)


def test_layers_that_do_not_fit_are_refused_before_anything_is_compared(home, again, made, capsys, tmp_path):
    expert = next((home.folder / "experts").glob("depth-*.safetensors"))
    again("average", options=["--adapted-from", expert], expect=2)
    assert "none is for 'segmentation'" in capsys.readouterr().err
    again("average", options=["--adapted-from", home.folder / "none.safetensors"], expect=2)
    assert "none.safetensors" in capsys.readouterr().err
    wider = write_config(tmp_path, "wider.py", rooms=home.folder / "rooms", more="head['width'] = 12\n")
    assert (
        tool(
            "compare.py",
            wider,
            "--methods",
            "average",
            "--work-dir",
            tmp_path / "wider",
            "--adapted-from",
            home.run / "symerge.safetensors",
        )
        == 2
    )
    assert "do not fit the head of 'segmentation'" in capsys.readouterr().err
    assert made == [] and not (tmp_path / "run").exists()


# -- one method at a time ---------------------------------------------------------------------------------------------
def test_a_method_that_fails_is_a_row_that_says_so(home, again, made, monkeypatch, capsys, tmp_path):
    with monkeypatch.context() as broken:
        broken.setattr(MagMax, "merge", lambda self, operands: operands.nonsense)
        record = again("average", "magmax", "model_stock")
    row = rows(record)["magmax"]
    assert row["error"].startswith("AttributeError: ") and "nonsense" in row["error"] and row["runs"] == 0
    assert "magmax failed: AttributeError" in capsys.readouterr().out
    text = (tmp_path / "run" / "compare.md").read_text()
    assert "| magmax | failed |" in text and "magmax failed: AttributeError" in text
    assert "Traceback" in json.loads((tmp_path / "run" / "rows" / "magmax.json").read_text())["trace"]
    for name in ("average", "model_stock"):
        assert lasting(rows(record)[name]) == lasting(rows(home.record)[name])
    made.clear()
    mended = again("average", "magmax", "model_stock", options=["--resume"])
    assert made == ["magmax"] and "error" not in rows(mended)["magmax"]
    assert [rows(mended)[name] for name in ("average", "model_stock")] == [
        rows(record)[name] for name in ("average", "model_stock")
    ]


def test_ctrl_c_keeps_what_there_is_and_resume_does_the_rest(home, again, made, monkeypatch, capsys, tmp_path):
    tuned = Static._tuned

    def press(self, *given):
        if self.name == "emr":
            raise KeyboardInterrupt
        return tuned(self, *given)

    with monkeypatch.context() as pressed:
        pressed.setattr(Static, "_tuned", press)
        record = again("average", "emr", "model_stock", expect=130)
    assert "--resume" in capsys.readouterr().err
    assert list(rows(record)) == ["experts", "average"] and all((tmp_path / "run" / name).exists() for name in FILES)
    made.clear()
    whole = again("average", "emr", "model_stock", options=["--resume"])
    assert made == ["emr", "model_stock"] and list(rows(whole)) == ["experts", "average", "emr", "model_stock"]
    assert rows(whole)["average"] == rows(record)["average"]


def test_a_finished_comparison_is_only_shown_again(home, made, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in (home.run / "rows").iterdir()}
    monkeypatch.setattr(Comparison, "models", None)  # neither base nor experts are asked for
    assert tool("compare.py", home.path, "--work-dir", home.run, "--resume") == 0
    printed = capsys.readouterr().out
    assert made == [] and {path: path.read_bytes() for path in (home.run / "rows").iterdir()} == before
    assert rows(json.loads((home.run / "compare.json").read_text())) == rows(home.record)
    for name in ("symerge", "tall_masks", "full_distillation", "symerge_coefficients"):
        assert f" {name} " in printed, "no name is cut"
    assert "adapted layers on other encoders" in printed


def test_methods_are_added_to_a_table(again, made):
    first = again("average")
    both = again("model_stock", options=["--resume"])
    assert made == ["average", "model_stock"] and list(rows(both)) == ["experts", "average", "model_stock"]
    assert rows(both)["average"] == rows(first)["average"]
    again("average", options=["--resume", "--tuning", "labels"])
    assert made[2:] == ["average"], "rows that were tuned otherwise are made again"


def test_damaged_rows_are_made_again(again, made, tmp_path):
    again("average", "model_stock")
    (tmp_path / "run" / "rows" / "average.json").write_text('{"asked": ')
    again("average", "model_stock", options=["--resume"])
    assert made == ["average", "model_stock", "average"]


def test_a_row_of_other_defaults_is_named_and_made_again(again, made, tmp_path, capsys):
    again("average", "model_stock", "symerge_layer")
    files = {name: tmp_path / "run" / "rows" / f"{name}.json" for name in ("average", "model_stock", "symerge_layer")}
    kept = {name: json.loads(path.read_text()) for name, path in files.items()}
    assert kept["symerge_layer"]["settings"]["class_balance"] == 0.5, "a default, which the config does not say"
    for name, option, value in (("average", "batchnorm", "mean"), ("symerge_layer", "class_balance", 0.0)):
        kept[name]["settings"][option] = value
    del kept["model_stock"]["settings"]  # as earlier versions wrote it
    for name, path in files.items():
        del kept[name]["hash"]
        path.write_text(json.dumps(kept[name]))
    capsys.readouterr()
    made.clear()
    found = again("average", "model_stock", options=["--resume"])
    assert made == ["average"] and "symerge_layer" not in rows(found), "it is not asked for"
    said = " ".join(capsys.readouterr().out.split())
    assert "average: its row in" in said and "was made with batchnorm='mean', now 'recalibrate'" in said
    assert "was made with class_balance=0.0, now 0.5" in said


def test_layers_are_transferred_anew_when_the_donor_is(home, again, made):
    alone = again("average")
    assert "transferred" not in rows(alone)["average"]
    both = again("average", "symerge", options=["--resume"])
    assert made == ["average", "average"]
    assert rows(both)["average"]["transferred"] == rows(home.record)["average"]["transferred"]


def test_the_donor_is_added_and_no_row_is_lost(again, made):
    first = again("average", "model_stock")
    more = again("symerge", options=["--resume"])
    assert list(rows(more)) == ["experts", "symerge", "average", "model_stock"] and made == ["average", "model_stock"]
    assert rows(more)["average"] == rows(first)["average"], "its own numbers hold, and nothing was transferred yet"
    whole = again("average", options=["--resume"])
    assert "transferred" in rows(whole)["average"] and "transferred" not in rows(whole)["model_stock"]


def test_rows_of_other_experts_do_not_share_a_table(home, again, capsys):
    again("average")
    (path,) = ExpertStore(home.config).folder.glob("depth-*.safetensors")
    kept = path.read_bytes()
    model, about = load_model(path)
    with torch.no_grad():
        next(model.heads.parameters()).add_(1.0)
    save_model(path, model, {"base_hash": about["base_hash"]})
    try:
        again("model_stock", options=["--resume"], expect=2)
    finally:
        path.write_bytes(kept)
    assert "expert depth: not the weights that the rows in" in capsys.readouterr().err


def test_arguments_of_methods_are_set(again):
    found = rows(again("iso_c", "ties", options=["--set", "iso_c.conv=mean", "ties.scale=0.5", "ties.density=0.3"]))
    assert found["iso_c"]["options"]["conv"] == "mean" and found["iso_c"]["note"] == "convolutions averaged"
    assert (found["ties"]["options"]["scale"], found["ties"]["options"]["density"]) == (0.5, 0.3)
    assert "tuning" in found["iso_c"] and "tuning" not in found["ties"]


def test_joint_training_takes_part_where_there_is_a_recipe(home, tmp_path):
    given = dict.fromkeys(TASKS, "expert.safetensors")
    bare = dataclasses.replace(home.config, experts={"checkpoints": given})
    for config, methods, there in ((home.config, None, True), (bare, None, False), (bare, ["joint_training"], True)):
        names = [entrant.name for entrant in Comparison(config, tmp_path, methods).candidates]
        assert ("joint_training" in names) == there and "average" in names


# -- numbers ----------------------------------------------------------------------------------------------------------
def test_a_comparison_is_reproducible(home, again):
    record = again("symerge", "dare", "fisher", "tall_masks")
    for name, row in rows(record).items():
        before = rows(home.record)[name]
        assert lasting(row) == lasting(before) and row.get("transferred") == before.get("transferred"), name


def test_seeds_give_a_spread_where_the_seed_matters(home, again, tmp_path):
    record = again("symerge_layer", "dare", "average", options=["--seeds", "2"])
    found, single = rows(record), rows(home.record)
    assert {name: row["runs"] for name, row in found.items()} == {
        "experts": 1,
        "average": 1,
        "dare": 2,
        "symerge_layer": 2,
    }
    other = again("symerge_layer", "dare", options=["--cfg-options", "seed=1"], folder="other")
    for name in ("dare", "symerge_layer"):
        values = [source[name]["delta_m"]["mean"]["value"] for source in (single, rows(other))]
        entry = found[name]["delta_m"]["mean"]
        assert entry["value"] == pytest.approx(statistics.fmean(values))
        assert entry["std"] == pytest.approx(statistics.stdev(values)) and entry["std"] > 0
        metric = found[name]["tasks"]["depth"]["abs"]
        assert metric["std"] > 0
        assert f"{entry['value']:+.2f} ± {entry['std']:.2f}" in (tmp_path / "run" / "compare.md").read_text()
    assert "std" not in found["average"]["delta_m"]["mean"]


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, message",
    [
        (["--methods", "tsv"], "Did you mean 'tsv_m'"),
        (["--methods", "average", "--tuning", "label"], "Did you mean 'labels'"),
        (["--methods", "average", "--seeds", "0"], "seeds=0"),
        (["--set", "iso_c.cnv=mean"], "unknown option of iso_c 'cnv'. Did you mean 'conv'"),
        (["--set", "iso.conv=mean"], "unknown merging method 'iso'. Did you mean 'iso_c'"),
        (["--set", "conv=mean"], "'conv' names no method; write METHOD.OPTION=VALUE"),
        (["--methods", "average", "--resume"], "holds no run"),
    ],
)
def test_what_cannot_be_is_said_at_once(home, capsys, tmp_path, options, message):
    assert tool("compare.py", home.path, "--work-dir", tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_missing_experts_are_refused_where_none_may_be_trained(home, capsys, tmp_path):
    path = write_config(tmp_path, rooms=home.folder / "rooms")
    assert tool("compare.py", path, "--work-dir", tmp_path / "run", "--methods", "average", "--no-train-experts") == 2
    assert "--no-train-experts" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_folder_in_use_is_not_overwritten(home, capsys):
    assert tool("compare.py", home.path, "--work-dir", home.run) == 2
    assert "--resume" in capsys.readouterr().err
