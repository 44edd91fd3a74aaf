"""Rows that are a method with other options or other unlabelled images: ``baselines.variants``."""

import json
from types import SimpleNamespace

import pytest
from builders.pipeline_tiny import tool, write_config

from symerge_dense.adaptation import label_cache
from symerge_dense.evaluation.delta_m import delta_m
from symerge_dense.evaluation.scores import scores_from_json
from symerge_dense.pipeline.comparison.comparison import Comparison
from symerge_dense.pipeline.comparison.methods import Adaptive, Static
from symerge_dense.pipeline.comparison.run import compare_methods
from symerge_dense.pipeline.config import load_config

MORE = """
base = dict(random_init=True)
evaluation["batch_size"] = 6
adaptation.update(clamp=(0.0, 1.0), views=dict(flip=True), rounds=2)
data["other"] = dict(type=Rooms, root=ROOMS, split="train", count=5, size=(32, 48))
baselines["methods"] = ["symerge", "free", "plain", "more images", "again", "slow", "trimmed"]
baselines["variants"] = {
    "free": dict(method="symerge", clamp=None, initial=0.6, density=None),
    "plain": dict(method="symerge", views=None),
    "more images": dict(method="symerge", unlabelled=dict(data["other"])),
    "again": dict(method="symerge_layer", unlabelled=dict(data["other"], type="Rooms"), layer_lr=1e-2),
    "slow": dict(method="full_distillation", backbone_lr=1e-4, rounds=3),
    "trimmed": dict(method="ties", density=0.1, scale=0.5),
}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A comparison whose config names its rows, and how often an expert was asked for its labels."""
    folder = tmp_path_factory.mktemp("variants")
    path = write_config(folder, more=MORE.replace("ROOMS", repr(str(folder / "rooms"))))
    asked, predict = [], label_cache._predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_cache, "_predict", lambda task, *given: (asked.append(task), predict(task, *given)))
        record = compare_methods(load_config(path), str(folder / "run"))
    rows = {row["method"]: row for row in record["rows"]}
    return SimpleNamespace(folder=folder, path=path, run=folder / "run", rows=rows, record=record, asked=asked)


@pytest.fixture
def made(monkeypatch):
    """Names of the rows that are made."""
    names = []
    for kind in (Adaptive, Static):

        def noted(self, *given, make=kind.make):
            names.append(self.name)
            return make(self, *given)

        monkeypatch.setattr(kind, "make", noted)
    return names


def tasks_of(config, folder, method, **how):
    record = compare_methods(config, str(folder), methods=[method], **how)
    return next(row for row in record["rows"] if row["method"] == method)["tasks"]


def test_the_config_names_the_rows(home):
    assert list(home.rows) == ["experts", "experts_views", *load_config(home.path).baselines["methods"]]
    assert [row["error"] for row in home.record["rows"] if "error" in row] == []


@pytest.mark.parametrize(
    "row, method, changes",
    [
        ("free", "symerge", {"adaptation.clamp": None, "adaptation.initial": 0.6}),
        ("plain", "symerge", {"adaptation.views": None}),
        ("more images", "symerge", {"data.unlabelled.split": "train", "data.unlabelled.count": 5}),
        ("slow", "full_distillation", {"adaptation.rounds": 3}),
        ("trimmed", "ties", {}),
    ],
)
def test_a_variant_is_the_method_under_a_config_with_its_options(home, row, method, changes, tmp_path):
    options = {
        "slow": {"full_distillation": {"backbone_lr": 1e-4}},
        "trimmed": {"ties": {"density": 0.1, "scale": 0.5}},
    }
    config = load_config(home.path, {**changes, "baselines.methods": [method]})
    assert home.rows[row]["tasks"] == tasks_of(config, tmp_path / "run", method, options=options.get(row, {}))
    assert home.rows[row]["tasks"] != home.rows["symerge"]["tasks"]


def test_a_row_says_what_it_is(home):
    assert home.rows["free"]["options"] == {"method": "symerge", "clamp": None, "initial": 0.6, "density": None}
    assert home.rows["free"]["note"] == "`symerge` with clamp=None, initial=0.6", "what is not as in the config"
    assert home.rows["trimmed"]["note"] == "`ties` with density=0.1, scale=0.5"
    assert home.rows["more images"]["note"] == "`symerge` with 5 unlabelled images of its own"
    assert (
        home.rows["slow"]["note"] == "`full_distillation` with backbone_lr=0.0001, rounds=3; upper bound, not a merge"
    )
    assert home.rows["trimmed"]["options"]["method"] == "ties" and home.rows["trimmed"]["data"] == "none"
    assert {row["block"] for name, row in home.rows.items() if not name.startswith("experts")} == {"plain"}
    text = (home.run / "compare.md").read_text()
    assert "\n- free: `symerge` with clamp=None, initial=0.6\n" in text and "| more images | " in text


def test_experts_are_asked_once_for_each_set_of_images_and_views(home):
    assert home.asked == 3 * ["segmentation", "depth", "normals"], "views, no views, and images that two rows share"
    pools = [json.loads(path.read_text())["pool"] for path in sorted(home.run.glob("labels*/**/depth.json"))]
    assert len(set(pools)) == 2 and len(pools) == 3


def test_the_experts_that_see_the_views_are_a_reference(home):
    row = home.rows["experts_views"]
    assert row["block"] == "reference" and row["encoder_passes"] == 6 and row["options"]["flip"] is True
    wanted = delta_m(scores_from_json(row["tasks"]), scores_from_json(home.rows["experts"]["tasks"]))
    assert {key: entry["value"] for key, entry in row["delta_m"].items()} == pytest.approx(wanted)
    assert row["tasks"] != home.rows["experts"]["tasks"]
    assert "| experts_views | " in (home.run / "compare.md").read_text()


def test_layers_are_transferred_to_methods_only(home):
    assert all("transferred" not in home.rows[name] for name in ("free", "again", "trimmed"))
    assert "adapted layers on other encoders" not in (home.run / "compare.md").read_text()


def test_a_changed_variant_is_made_again_and_no_other_row(home, made, tmp_path):
    rows = {"baselines.methods": ["average", "trimmed"]}
    compare_methods(load_config(home.path, rows), str(tmp_path / "run"))
    made.clear()
    rows = {"baselines.methods": ["average", "trimmed", "new"], "baselines.variants.trimmed.density": 0.2}
    config = load_config(home.path, {**rows, "baselines.variants.new": {"method": "average"}})
    record = compare_methods(config, str(tmp_path / "run"), resume=True)
    assert made == ["trimmed", "new"]
    assert [row["method"] for row in record["rows"]][2:] == ["average", "trimmed", "new"]


def test_variants_have_a_spread_over_seeds(home, tmp_path):
    config = load_config(home.path, {"adaptation.rounds": 1})
    record = compare_methods(config, str(tmp_path / "run"), methods=["free", "trimmed"], seeds=2)
    rows = {row["method"]: row for row in record["rows"]}
    assert rows["free"]["runs"] == 2 and rows["free"]["delta_m"]["mean"]["std"] > 0
    assert rows["trimmed"]["runs"] == 1 and "std" not in rows["trimmed"]["delta_m"]["mean"]


def test_methods_of_the_command_line_stand_above_those_of_the_config(home, tmp_path):
    names = [candidate.name for candidate in Comparison(load_config(home.path), tmp_path, ["average"]).candidates]
    assert {"average", "free", "symerge"} <= set(names)
    assert Comparison(load_config(home.path), tmp_path, ["average"]).methods == ["average"]
    with pytest.raises(ValueError, match=r"unknown merging method 'fre'. Did you mean 'free'"):
        Comparison(load_config(home.path), tmp_path, ["fre"])


def test_a_method_of_any_options_takes_them_from_the_command_line(home, tmp_path):
    options = ("--methods", "symerge", "--set", "symerge.rounds=1")
    assert tool("compare.py", home.path, "--work-dir", tmp_path / "run", *options) == 0
    (row,) = [
        row for row in json.loads((tmp_path / "run" / "compare.json").read_text())["rows"] if row["method"] == "symerge"
    ]
    assert row["options"] == {"rounds": 1}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"x": {"clamp": None}},
            "must be a dict with a 'method', such as {'free': dict(method='symerge', clamp=None)}",
        ),
        ({"x": {"method": "symerg"}}, "unknown merging method 'symerg'. Did you mean 'symerge'"),
        (
            {"x": {"method": "symerge", "clmp": None}},
            "baselines.variants, 'x': unknown option of symerge 'clmp'. Did you",
        ),
        ({"x": {"method": "full_distillation", "bakbone_lr": 1}}, "Did you mean 'backbone_lr'"),
        ({"x": {"method": "full_distillation", "rounds": 0}}, "rounds=0 must be positive"),
        ({"x": {"method": "symerge", "views": {"flp": True}}}, "'flp'. Did you mean 'flip'"),
        ({"x": {"method": "symerge", "initial": 2.0}}, "initial=2.0 lies outside clamp"),
        ({"x": {"method": "symerge", "rounds": "many"}}, "rounds='many' must be a value of type int"),
        ({"x": {"method": "ties", "densty": 0.1}}, "unknown option of ties 'densty'. Did you mean 'density'"),
        ({"x": {"method": "ties", "unlabelled": {}}}, "ties learns from no images"),
        ({"x": {"method": "symerge", "unlabelled": {"type": "Rooms", "splt": "val"}}}, "Did you mean 'split'"),
        ({"symerge": {"method": "symerge"}}, "'symerge' is the name of a row of its own; call the variant by another"),
        ({"a/b": {"method": "symerge"}}, "the name is a file's too; use up to 60 letters, digits, blanks"),
    ],
)
def test_what_cannot_be_a_row_is_refused_before_anything_is_built(home, changes, message):
    config = load_config(home.path)
    with pytest.raises(ValueError) as error:
        type(config)(**{**vars(config), "baselines": {"variants": changes}})
    assert message in str(error.value)


def test_wrong_lists_of_rows_are_refused(home, capsys, tmp_path):
    for value, message in (("symerge", "must be a list of names"), (["fre"], "Did you mean 'free'")):
        with pytest.raises(ValueError, match=message):
            load_config(home.path, {"baselines.methods": value})
    with pytest.raises(ValueError, match=r"must be a dict of rows, such as \{'free'"):
        load_config(home.path, {"baselines.variants": ["symerge"]})


def test_images_and_layers_of_a_variant_are_checked_before_any_method_runs(home, made, tmp_path):
    missing = {"type": "ImageFolder", "root": str(tmp_path / "nowhere")}
    for change, message in (
        ({"unlabelled": missing}, "nowhere"),
        ({"layer": "fnal"}, r"x: layer, expert segmentation: unknown layer 'fnal'"),
    ):
        values = load_config(home.path)
        rows = {"methods": ["symerge", "x"], "variants": {"x": {"method": "symerge", **change}}}
        config = type(values)(**{**vars(values), "baselines": rows})
        with pytest.raises(ValueError, match=message):
            compare_methods(config, str(tmp_path / "run"))
        assert made == [] and not (tmp_path / "run").exists()
